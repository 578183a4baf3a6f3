"""The workflows: their tools find nothing, their actions are pinned, and their own commands do here
what they do on GitHub."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from deploy.__main__ import main, parser
from deploy.validate import checks, find
from tests.unit.account import REGION, account
from tools.template import ROOT, Template

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
    assert {jobs[job]["environment"] for job in ("smoke", "deploy")} == {"production"}


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
    for text in [*runs("deploy.yml", "smoke"), *runs("deploy.yml", "deploy")]:
        for line in re.findall(r"python -m deploy (.*)", text):
            parser().parse_args(
                line.replace('"$ENVIRONMENT"', "smoke1").replace('"${options[@]}"', "").split()
            )


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


def test_the_deployment_of_the_workflow_runs_here() -> None:
    """The workflow's own lines, in bash, against a moto server."""
    command = runs("deploy.yml", "deploy")[-1]
    with account(PARAMETERS="AlertEmail=shop@example.com NumberOfWorkers=4") as environment:
        assert main(["bootstrap"]) == 0
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        finished = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, **environment, "PATH": path},
        )
        assert finished.returncode == 0, finished.stderr
        (stack,) = boto3.client("cloudformation", region_name=REGION).describe_stacks(
            StackName="delta-lake-prod"
        )["Stacks"]
    given = {
        parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in stack["Parameters"]
    }
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    assert (given["AlertEmail"], given["NumberOfWorkers"]) == ("shop@example.com", "4")
