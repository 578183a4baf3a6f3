"""What commands, deployer and tests share. It knows nothing of the AWS that `local` plays.

What is deployed lies in no package. The import of this package puts its folders on Python's path;
`local`, `console`, `deploy` and `benchmarks` import it first, and pytest, mypy and ruff name the
same folders in pyproject.toml.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEPLOYED = ("src", "lambda", "lambda/run_report")
sys.path[:0] = [str(ROOT / folder) for folder in DEPLOYED if str(ROOT / folder) not in sys.path]


class SetupError(Exception):
    """This machine lacks something; the message is one line that says what to do."""
