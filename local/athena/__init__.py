"""Athena on one machine, for a closed subset of its SQL: the same answer, or a NOT_SUPPORTED error.

`deltalake` reads the Delta log, so this reader is independent of Spark.

    translate.py    translate a statement, parsed by sqlglot, to DuckDB's SQL; reject unlisted nodes
    expressions.py  translate its expressions, each with its type
    functions.py    the supported operators, functions and casts, one per line
    results.py      Athena's types, and its text of results
    console.py      run a statement: SELECT, SHOW, DESCRIBE; keep the history

The supported subset was compared with a real Trino (tests/conformance).
"""

from .console import CATALOG, DATABASE, Athena
from .results import AthenaError, Result, as_text

__all__ = ["CATALOG", "DATABASE", "Athena", "AthenaError", "Result", "as_text"]
