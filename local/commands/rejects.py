"""`python -m local rejects --csv`: rejected rows as files to fix and upload again."""

from __future__ import annotations

from collections.abc import Sequence

from client import rejects
from local.commands import operate
from local.commands.history import lake_of


def main(argv: Sequence[str]) -> int:
    """Count the rejected rows by dataset, or write them as CSV files."""
    parser = rejects.parser("python -m local")
    operate.add_place(parser)
    options = parser.parse_args(argv)
    return rejects.show(lake_of(options), options, print)
