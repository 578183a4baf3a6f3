"""`make validate`: every check of the templates, the state machine and the workflows that this
machine has the tools for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from client.template import ROOT

TEMPLATES = ("template.yaml", "bootstrap.yaml")
STATE_MACHINE = "stepfunctions/delta-lake.json"


def checks(root: Path = ROOT) -> Iterator[tuple[str, list[str]]]:
    """Name and command of each check, the tool's name first."""
    workflows = sorted(
        str(path.relative_to(root)) for path in (root / ".github" / "workflows").glob("*.yml")
    )
    yield "templates", ["cfn-lint", *TEMPLATES]
    yield "state machine", [sys.executable, "-m", "tests.asl_check", STATE_MACHINE]
    yield (
        "security of the templates",
        [
            "checkov",
            "--framework",
            "cloudformation",
            "--compact",
            "--quiet",
            "--skip-download",
            *[word for name in TEMPLATES for word in ("--file", name)],
        ],
    )
    yield "workflows", ["actionlint", *workflows]
    yield "security of the workflows", ["zizmor", "--offline", "--persona", "pedantic", *workflows]


def find(tool: str) -> str | None:
    """A tool beside this Python, or on the PATH."""
    return shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)


def validate(say: Callable[[str], None] = print, strict: bool = False) -> bool:
    """Runs the checks; False where one has findings, or where a tool is missing and `strict`."""
    good = True
    for name, (tool, *arguments) in checks():
        command = find(tool)
        if command is None:
            say(
                f"{name}: {tool} is not installed, so this is not checked"
                + (" (an error here)" if strict else "")
            )
            good = good and not strict
            continue
        finished = subprocess.run([command, *arguments], cwd=ROOT, capture_output=True, text=True)
        say(f"{name}: {'no findings' if finished.returncode == 0 else 'FINDINGS'}")
        if finished.returncode:
            say(finished.stdout + finished.stderr)
            good = False
    return good
