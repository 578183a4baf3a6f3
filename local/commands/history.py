"""`python -m local history`: what changed the lake, a file or a key."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from client import history, places
from client.lake import Lake
from local.commands import operate


def main(argv: Sequence[str]) -> int:
    """Print the history; return 1 if it does not contain what the options name."""
    parser = history.parser("python -m local")
    operate.add_place(parser)
    options = parser.parse_args(argv)
    return history.show(lake_of(options), options, print, operate.complain)


def lake_of(options: argparse.Namespace) -> Lake:
    """Return the lake that the options of operate.add_place name."""
    if options.lake:
        operate.check_folder(options.lake)
        return Lake.in_folder(options.lake, options.archive)
    return places.on_endpoint(options.endpoint).lake()
