"""`python -m deploy COMMAND`: the lakehouse in an AWS account.

`make` calls it; so does the workflow.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import NoRegionError

from client import SetupError, aws
from client.aws import AWS_ERRORS, explained
from deploy.drift import drift
from deploy.environment import Environment, bootstrap, boundary_arn
from deploy.package import package
from deploy.restore import restore
from deploy.smoke import smoke
from deploy.stack import DeployError, outputs_of
from deploy.validate import validate

OPERATE = "python -m deploy operate"
RIGHTS = "docs/iam.md says what a deployer needs"


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="python -m deploy", description=__doc__)
    whole.add_argument(
        "--region", help="the region; else that of the credentials' profile or AWS_REGION"
    )
    whole.add_argument("--profile", help="a profile of ~/.aws/config")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[..., int], meaning: str, environment: bool = True
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=meaning, description=meaning)
        added.set_defaults(run=run)
        if environment:
            added.add_argument(
                "--environment", default="prod", help="prod, or the name of another one"
            )
        return added

    once = command(
        "bootstrap",
        _bootstrap,
        "once in an account: the bucket for packages and the roles to deploy with",
        environment=False,
    )
    once.add_argument(
        "--github-subjects",
        default=None,
        help="who may deploy from GitHub: the claim `sub`, exactly",
    )
    once.add_argument(
        "--github-check-subjects",
        default=None,
        help="who may smoke in throw-away environments and look for drift, in the same form",
    )
    once.add_argument(
        "--github-provider",
        default=None,
        help="the ARN of the account's OIDC provider for GitHub, where it has one",
    )
    once.add_argument(
        "--permissions-boundary",
        help="a policy of the account, by name or ARN, in place of an own boundary",
    )
    once.add_argument("--role-prefix", help="what the names of all roles begin with")
    up = command("up", _up, "deploy an environment, or bring it up to date")
    up.add_argument(
        "--parameters",
        default="",
        metavar="'NAME=VALUE …'",
        help="parameters of template.yaml, a value with blanks in quotes; others keep their values",
    )
    for command_with_tags in (once, up):
        command_with_tags.add_argument(
            "--tags",
            default="",
            metavar="'NAME=VALUE …'",
            help="tags for every resource; others keep their values, an empty value removes one",
        )
    up.add_argument(
        "--artifacts", help="the bucket for packages, where it is not that of `bootstrap`"
    )
    up.add_argument(
        "--plan", action="store_true", help="show what would change, and change nothing"
    )
    up.add_argument(
        "--package", help="deploy only if the package made here has this key: what was smoked"
    )
    up.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="append `package=KEY` to a file, such as GitHub's",
    )
    packing = command(
        "package",
        _package,
        "write the packaged template to a file and upload nothing",
        environment=False,
    )
    packing.add_argument("--artifacts", required=True, help="the bucket that the package is for")
    packing.add_argument("--out", type=Path, required=True)
    down = command("down", _down, "take an environment down; its data stays")
    down.add_argument(
        "--delete-data",
        metavar="ENVIRONMENT",
        help="delete the data as well: say the name of the environment once more",
    )
    down.add_argument(
        "--unprotect",
        metavar="ENVIRONMENT",
        help="delete a protected stack: say the name of the environment once more",
    )
    command("smoke", _smoke, "load the sample's two deliveries, read tables and history, run dry")
    command("drift", _drift, "list what was changed by other means than a deployment")
    filling = command("restore", _restore, "fill an empty environment from another one's archive")
    filling.add_argument(
        "--from", dest="source", required=True, metavar="ENVIRONMENT", help="whose archive it is"
    )
    operate = command("operate", _operate, "an operation on the tables: docs/operations.md")
    operate.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="OPERATION",
        help="history, rejects, or an operation, with its options; --help after it lists them",
    )
    checking = command(
        "validate", _validate, "check templates, state machine and workflows", environment=False
    )
    checking.add_argument(
        "--strict", action="store_true", help="a tool that is missing is an error"
    )
    return whole


def _session(options: argparse.Namespace) -> Any:
    """boto3's session; asks for the caller's identity, so that missing rights are told before
    anything is done."""
    session = aws.session(options.profile, options.region)
    if session.region_name is None:
        raise NoRegionError()
    session.client("sts").get_caller_identity()
    return session


def _bootstrap(options: argparse.Namespace) -> int:
    by_parameter = {
        "GitHubSubjects": options.github_subjects,
        "GitHubCheckSubjects": options.github_check_subjects,
        "GitHubProviderArn": options.github_provider,
        "RolePrefix": options.role_prefix,
    }
    session = _session(options)
    if options.permissions_boundary is not None:
        by_parameter["PermissionsBoundary"] = boundary_arn(session, options.permissions_boundary)
    chosen = {name: value for name, value in by_parameter.items() if value is not None}
    for name, value in bootstrap(session, chosen, tags=parameters(options.tags)).items():
        print(f"{name}: {value}")
    return 0


def parameters(text: str) -> Mapping[str, str]:
    """Return `NAME=VALUE` words as a mapping. Quotes work as in a shell; a value may be empty."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise DeployError(f"{text!r} cannot be read: {error}") from None
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise DeployError(f"{wrong[0]!r} is no parameter: write NAME=VALUE")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _up(options: argparse.Namespace) -> int:
    template_parameters, tags = parameters(options.parameters), parameters(options.tags)
    environment = Environment(_session(options), options.environment)
    bucket = environment.artifact_bucket(options.artifacts)
    key = package(bucket).template_artifact.key
    if options.package and options.package != key:
        raise DeployError(f"The package {key} is not {options.package}, which was smoked")
    environment.up(bucket, template_parameters, execute=not options.plan, tags=tags)
    if options.record:
        with options.record.open("a", encoding="utf-8") as file:
            file.write(f"package={key}\n")
    if not options.plan:
        for name, value in environment.stack.outputs().items():
            print(f"{name}: {value}")
    return 0


def _package(options: argparse.Namespace) -> int:
    packaged = package(options.artifacts)
    options.out.write_text(packaged.body, "utf-8")
    for artifact in packaged.artifacts:
        print(
            f"{artifact.name}: s3://{packaged.bucket}/{artifact.key} ({len(artifact.body):,} bytes)"
        )
    return 0


def _down(options: argparse.Namespace) -> int:
    if options.delete_data not in (None, options.environment):
        raise DeployError(
            f"--delete-data says {options.delete_data!r}, --environment says "
            f"{options.environment!r}: nothing was done"
        )
    Environment(_session(options), options.environment).down(
        delete_data=options.delete_data is not None,
        unprotect=options.unprotect == options.environment,
    )
    return 0


def _smoke(options: argparse.Namespace) -> int:
    session = _session(options)
    smoke(session, outputs_of(session, options.environment))
    return 0


def _restore(options: argparse.Namespace) -> int:
    session = _session(options)
    source, target = (outputs_of(session, name) for name in (options.source, options.environment))
    restore(session, source, target)
    return 0


def _drift(options: argparse.Namespace) -> int:
    return 0 if drift(_session(options).client("cloudformation"), options.environment) else 1


def _operate(options: argparse.Namespace) -> int:
    name = options.words[0] if options.words else ""
    if name in ("history", "rejects"):
        return _read(name, options)
    import glue_operations  # it imports pyspark, which no other command needs
    from client import operations

    if name not in glue_operations.SPECS:
        raise DeployError(
            f"{name!r} is no operation: say {', '.join(glue_operations.SPECS)}, history or "
            "rejects, as in ARGS='history --run RUN'"
        )
    arguments = operations.parser(name, OPERATE).parse_args(options.words[1:])
    session = _session(options)
    arguments.author = arguments.author or operations.caller(session.client("sts"))
    outputs = outputs_of(session, options.environment)
    place = operations.Operations(
        session.client("stepfunctions"),
        session.client("s3"),
        outputs["StateMachineArn"],
        outputs["Lake"].removeprefix("s3://").rstrip("/"),
    )
    outcome = place.run(operations.request(name, arguments), _complain, poll=5.0)
    return operations.show(outcome, arguments.json, print, _complain)


def _read(name: str, options: argparse.Namespace) -> int:
    """Show the history, or the rejected rows."""
    from client import history, rejects  # they import pyarrow, which no other command needs
    from client.lake import Lake

    parser = rejects.parser if name == "rejects" else history.parser
    question = parser(OPERATE).parse_args(options.words[1:])
    session = _session(options)
    lake = Lake.of_deployment(session, outputs_of(session, options.environment))
    if name == "rejects":
        return rejects.show(lake, question, print)
    return history.show(lake, question, print, _complain)


def _complain(line: str) -> None:
    print(line, file=sys.stderr)


def _validate(options: argparse.Namespace) -> int:
    return 0 if validate(strict=options.strict) else 1


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    if options.region is None:
        options.region = os.environ.get("AWS_REGION")  # boto3 itself reads AWS_DEFAULT_REGION only
    try:
        return options.run(options)
    except (DeployError, SetupError, *AWS_ERRORS) as error:
        print(" ".join(explained(error, RIGHTS).split()), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
