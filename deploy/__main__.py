"""`python -m deploy COMMAND`: the lakehouse in an AWS account.

`make` calls it; so does the workflow.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import (
    ClientError,
    ConnectionError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)

from deploy.environment import Environment, bootstrap
from deploy.package import package
from deploy.smoke import smoke
from deploy.stack import DENIED, DeployError
from deploy.validate import validate

OPERATE = "python -m deploy operate"
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
REFUSED = (
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "AuthFailure",
)


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
        "--github-provider",
        default=None,
        help="the ARN of the account's OIDC provider for GitHub, where it has one",
    )
    up = command("up", _up, "deploy an environment, or bring it up to date")
    up.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of template.yaml; others keep their values",
    )
    up.add_argument(
        "--artifacts", help="the bucket for packages, where it is not that of `bootstrap`"
    )
    up.add_argument(
        "--plan", action="store_true", help="show what would change, and change nothing"
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
    command("smoke", _smoke, "load the sample's two deliveries, and read the tables by Athena")
    operate = command("operate", _operate, "an operation on the tables: docs/operations.md")
    operate.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="OPERATION",
        help="history, or an operation, with its options; --help after it lists them",
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
    session = boto3.Session(profile_name=options.profile, region_name=options.region)
    if session.region_name is None:
        raise NoRegionError()
    session.client("sts").get_caller_identity()
    return session


def _bootstrap(options: argparse.Namespace) -> int:
    given = {
        "GitHubSubjects": options.github_subjects,
        "GitHubProviderArn": options.github_provider,
    }
    for name, value in bootstrap(
        _session(options), {name: value for name, value in given.items() if value is not None}
    ).items():
        print(f"{name}: {value}")
    return 0


def parameters(given: Sequence[str]) -> Mapping[str, str]:
    """`NAME=VALUE` words as a mapping; an empty value is one."""
    wrong = [word for word in given if "=" not in word]
    if wrong:
        raise DeployError(f"{wrong[0]!r} is no parameter: write NAME=VALUE")
    return {name: value for name, _, value in (word.partition("=") for word in given)}


def _up(options: argparse.Namespace) -> int:
    given = parameters(options.parameter)
    environment = Environment(_session(options), options.environment)
    environment.up(environment.artifact_bucket(options.artifacts), given, execute=not options.plan)
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
        delete_data=options.delete_data is not None
    )
    return 0


def _smoke(options: argparse.Namespace) -> int:
    session = _session(options)
    smoke(session, Environment(session, options.environment).stack.outputs())
    return 0


def _operate(options: argparse.Namespace) -> int:
    name = options.words[0] if options.words else ""
    if name == "history":
        return _history(options)
    import glue_operations  # it imports pyspark, which no other command needs
    from tools import operations

    if name not in glue_operations.SPECS:
        raise DeployError(
            f"{name!r} is no operation: say {', '.join(glue_operations.SPECS)}, or history, as in "
            "ARGS='history --run RUN'"
        )
    said = operations.parser(name, OPERATE).parse_args(options.words[1:])
    session = _session(options)
    outputs = Environment(session, options.environment).stack.outputs()
    place = operations.Lakehouse(
        session.client("stepfunctions"),
        session.client("s3"),
        outputs["StateMachineArn"],
        outputs["Lake"].removeprefix("s3://").rstrip("/"),
    )
    outcome = place.run(operations.request(name, said), _complain, poll=5.0)
    return operations.show(outcome, said.json, print, _complain)


def _history(options: argparse.Namespace) -> int:
    from tools import history  # it imports pyarrow, which no other command needs
    from tools.lake import Lake

    question = history.parser(OPERATE).parse_args(options.words[1:])
    session = _session(options)
    outputs = Environment(session, options.environment).stack.outputs()
    return history.show(Lake.of_deployment(session, outputs), question, print, _complain)


def _complain(line: str) -> None:
    print(line, file=sys.stderr)


def _validate(options: argparse.Namespace) -> int:
    return 0 if validate(strict=options.strict) else 1


def explained(error: Exception) -> str:
    """What went wrong with AWS, in one line that says what to do."""
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, TokenRetrievalError)):
        return (
            "No AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE, or log in with `aws sso login`"
        )
    if isinstance(error, NoRegionError):
        return "No AWS region: set AWS_REGION, or say --region eu-central-1"
    if isinstance(error, ProfileNotFound):
        return f"{error}: look into ~/.aws/config, or say another --profile"
    if isinstance(error, (EndpointConnectionError, ConnectionError)):
        return f"AWS cannot be reached: {error} Is the region right, and is there a network?"
    if isinstance(error, ClientError):
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if code in EXPIRED:
            return "The AWS credentials have expired: log in again"
        if code in REFUSED:
            return (
                f"AWS does not know these credentials ({code}): check AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY"
            )
        if (
            code in DENIED
            or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 403
        ):
            return f"Not allowed: {message or error}. docs/iam.md says what a deployer needs"
        return f"AWS refused {error.operation_name}: {message or code}"
    return str(error)


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    if options.region is None:
        options.region = os.environ.get("AWS_REGION")  # boto3 itself reads AWS_DEFAULT_REGION only
    try:
        return options.run(options)
    except (
        DeployError,
        ClientError,
        NoCredentialsError,
        PartialCredentialsError,
        TokenRetrievalError,
        NoRegionError,
        ProfileNotFound,
        EndpointConnectionError,
        ConnectionError,
    ) as error:
        print(" ".join(explained(error).split()), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
