"""What reads Delta tables in a process of its own: the crawler and Athena.

Light to import, since each process does.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client.aws import REGION, local_client
from local.athena import DATABASE, Athena, AthenaError, Result
from local.aws.crawler import catalog_tables, crawl_tables
from local.runtime import STATE
from local.trino import TrinoConsole


def s3_options(endpoint: str) -> dict[str, str]:
    """`deltalake`'s options for an S3 that is stood in for on this machine."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID", "testing"),
        "AWS_SECRET_ACCESS_KEY": os.environ.get("AWS_SECRET_ACCESS_KEY", "testing"),
    }


def console(
    endpoint: str, database: str = DATABASE, history: Path | None = None, trino: str = ""
) -> Athena:
    """Athena's console of a local AWS: it knows the tables that the crawler has registered in the
    catalog. `trino` is the address of a Trino that answers in DuckDB's place."""
    tables = catalog_tables(local_client("glue", endpoint), database)
    return _athena(tables, endpoint, database, history, trino)


def _athena(
    tables: dict[str, str], endpoint: str, database: str, history: Path | None, trino: str
) -> Athena:
    options = s3_options(endpoint)
    if trino:
        return TrinoConsole(tables, options, database, history, trino)
    return Athena(tables, options, database, history)


def ready() -> None:
    """Nothing; whoever can call it has started."""


def crawl(endpoint: str, database: str, locations: Sequence[str]) -> list[str]:
    """Registers the Delta tables in the catalog.

    Returns a sentence for each one that cannot be read.
    """
    return crawl_tables(local_client("glue", endpoint), database, locations, s3_options(endpoint))


@functools.cache
def _console(endpoint: str, database: str, trino: str) -> tuple[Any, Athena]:
    """The catalog and the console that this process asks: to make them takes longer than most
    queries."""
    athena = _athena({}, endpoint, database, STATE / "athena", trino)
    return local_client("glue", endpoint), athena


def query(endpoint: str, sql: str, database: str, trino: str = "") -> Result | str:
    """The answer to one statement in Athena's SQL, or the text of Athena's error."""
    glue, athena = _console(endpoint, database, trino)
    try:
        athena.tables = catalog_tables(glue, database)
        return athena.query(sql)
    except AthenaError as error:
        return str(error)
