"""Athena on one machine: its SQL dialect, its answers and its refusals, on the Delta tables as they
lie in storage.

`deltalake` reads the Delta log, so this is a second reader, independent of Spark. A statement goes
one way, and each kind of difference between Athena and DuckDB has one place:

    syntax.py       what may be written at all: Trino's grammar, to a tree (tree.py)
    compiler.py     queries: what a name means, which relations there are (scope.py)
    expressions.py  operators and literals: which types fit, which type results (types.py)
    casts.py        one type to another, by itself or by CAST
    functions.py    the functions that are offered, one a line; calls.py for those that no line can
                    say
    values.py       what is computed in Python, since DuckDB lacks it or means otherwise
    results.py      how Athena writes what came out
    console.py      the statement as a whole: SELECT, SHOW, DESCRIBE, and what is refused
    command.py      `python -m local sql`

What is offered was compared with a real Trino (tests/conformance); the rest says "not part of this
local console".
"""

from .command import glue_client, main, on_endpoint, s3_options
from .console import CATALOG, DATABASE, Athena
from .errors import AthenaError
from .results import Result, as_text
from .types import hive_type

__all__ = [
    "CATALOG",
    "DATABASE",
    "Athena",
    "AthenaError",
    "Result",
    "as_text",
    "glue_client",
    "hive_type",
    "main",
    "on_endpoint",
    "s3_options",
]
