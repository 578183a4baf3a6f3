"""What is deployed is imported by its name, from the same folders everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

import pytest

from client import DEPLOYED, ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]


def test_pytest_mypy_and_ruff_name_the_same_folders() -> None:
    folders = list(DEPLOYED)
    assert SETTINGS["pytest"]["ini_options"]["pythonpath"] == [".", *folders]
    assert SETTINGS["ruff"]["src"] == [".", *folders]
    assert SETTINGS["mypy"]["mypy_path"].split(":") == folders


@pytest.mark.parametrize("package", ["local", "console", "tests.benchmarks", "client"])
def test_a_process_of_its_own_imports_what_is_deployed(package: str) -> None:
    imports = f"import {package}, glue_etl, glue_operations, facts, cost, metrics\n"
    imports += "import moves3objects.handler as archiver, run_report.handler as report\n"
    code = imports + "print(glue_operations.etl is glue_etl, report.metrics is metrics)"
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True
    )
    assert done.stdout == "True True\n", done.stderr


def test_no_module_is_loaded_by_its_path() -> None:
    loader = "spec_from_" + "file_location"
    folders = ("local", "console", "deploy", "client", "samples", "tests")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in sources if loader in path.read_text("utf-8")] == []
