"""`python -m local sql`: a SELECT goes to Athena's console, what Athena cannot do is an operation.

That is a statement that changes rows, and a SELECT that reads a table as it was.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import local.athena
from local.commands import operate
from tools.operations import COMMENT, changes_data, parser, request

PAST = re.compile(r"\b(VERSION|TIMESTAMP)\s+AS\s+OF\b", re.IGNORECASE)
QUOTED = re.compile(r"'(?:''|[^'])*'")


def is_operation(sql: str) -> bool:
    """Whether the statement is one for Spark, not for Athena."""
    plain = COMMENT.sub(" ", QUOTED.sub("''", sql))
    return changes_data(plain) or PAST.search(plain) is not None


def options_of(argv: Sequence[str]) -> argparse.Namespace:
    """The options of both: those of the operation, and the console's own."""
    made = parser("sql", "python -m local")
    operate.add_place(made)
    made.add_argument("--csv", action="store_true", help="of a SELECT: Athena's result file")
    made.add_argument("--past", action="store_true", help="show the SELECTs of the past")
    made.add_argument("--history", type=Path, help="folder of the past SELECTs")
    return made.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """0 with the answer on stdout, 1 with the error on stderr."""
    options = options_of(argv)
    if options.past:
        return local.athena.main(argv)
    given = options.sql
    options.sql = sys.stdin.read() if given is None else given
    if is_operation(options.sql):
        return operate.run(request("sql", options), options)
    return local.athena.main(argv if given is not None else [*argv, options.sql])
