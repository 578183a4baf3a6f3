"""A lakehouse from outside, for commands, console and deployer: its template, AWS's clients,
operations, and the history of its data. It knows nothing of the AWS that `local` plays.

What is deployed lies in no package. The import of this package puts its folders on Python's path;
`local`, `console`, `deploy` and the benchmarks import it first, and pytest, mypy and ruff name the
same folders in pyproject.toml.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ASL_FILE = ROOT / "stepfunctions" / "delta-lake.json"
DEPLOYED = ("src", "lambda", "lambda/run_report")
sys.path[:0] = [str(ROOT / folder) for folder in DEPLOYED if str(ROOT / folder) not in sys.path]


class SetupError(Exception):
    """A command cannot do its work; the message is one line that says what to do."""
