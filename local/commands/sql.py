"""`python -m local sql`: a SELECT goes to Athena's console, what Athena cannot do is an operation.

That is a statement that changes rows, and a SELECT that reads a table as it was.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from client import SetupError, places
from client.operations import COMMENT, changes_data, parser, request
from local import trino
from local.athena import Athena, AthenaError, Result
from local.aws import readers
from local.commands import operate

ENGINES = ("duckdb", "trino")
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
    engine_help = "of a SELECT: DuckDB, or a real Trino on the local AWS (820 MB once)"
    made.add_argument("--engine", choices=ENGINES, default="duckdb", help=engine_help)
    made.add_argument(
        "--history", type=Path, default=Path(".local/athena"), help="folder of the past SELECTs"
    )
    return made.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """0 with the answer on stdout, 1 with the error on stderr."""
    options = options_of(argv)
    if options.past:
        return show_past(Athena({}, history=options.history))
    options.sql = sys.stdin.read() if options.sql is None else options.sql
    if is_operation(options.sql):
        return operate.run(request("sql", options), options)
    if not options.lake:
        places.on_endpoint(options.endpoint)  # says so if nothing listens there
    if options.engine == "duckdb":
        return answer(console_of(options), options)
    if options.lake:
        raise SetupError("Trino reads the tables of a local AWS: leave out --lake, or --engine")
    with trino.reach(options.endpoint) as address:
        return answer(console_of(options, address), options)


def console_of(options: argparse.Namespace, trino_address: str = "") -> Athena:
    """Return the console on the folder of --lake, or on the local AWS."""
    if not options.lake:
        return readers.console(options.endpoint, history=options.history, trino=trino_address)
    logs = sorted(options.lake.rglob("_delta_log"))
    return Athena({log.parent.name: str(log.parent) for log in logs}, history=options.history)


def answer(athena: Athena, options: argparse.Namespace) -> int:
    """Print the answer to a SELECT, or Athena's error."""
    try:
        result = athena.query(options.sql)
    except AthenaError as error:
        print(error, file=sys.stderr)
        return 1
    print(result.csv() if options.csv else as_table(result), end="" if options.csv else "\n")
    if options.engine == "trino" and not options.csv:
        print(f"Answered by Trino {trino.VERSION}")
    return 0


def as_table(result: Result) -> str:
    """Return the rows as a table for a terminal: numbers to the right, NULL as an empty cell."""
    cells = [[(v or "").replace("\n", "⏎") for v in row] for row in result.text_rows()]
    widths = [max(map(len, column)) for column in zip(result.names, *cells, strict=True)]
    right = [re.match("bigint|integer|double|decimal", t) is not None for t in result.types]

    def line(row: Sequence[str]) -> str:
        columns = zip(row, widths, right, strict=True)
        return "  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in columns).rstrip()

    rule = "  ".join("-" * width for width in widths)
    total = f"({len(cells)} rows, {result.seconds:.2f} s)"
    return "\n".join([line(result.names), rule, *map(line, cells), total])


def show_past(athena: Athena) -> int:
    """Print the queries of the history, one a line."""
    for query in athena.queries():
        text = " ".join(query["sql"].split())
        print(f"{query['submitted_at']}  {query['state']:9}  {query['seconds']:6.2f} s  {text}")
    return 0
