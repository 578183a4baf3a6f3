"""What reads Delta tables in a process of its own: the crawler and Athena.

Light to import, since each process does.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from local.athena import Athena, AthenaError, Result, glue_client, s3_options
from local.aws.crawler import catalog_tables, crawl_tables
from local.runtime import STATE


def ready() -> None:
    """Nothing; whoever can call it has started."""


def crawl(endpoint: str, database: str, locations: Sequence[str]) -> list[str]:
    """Registers the Delta tables in the catalog.

    Returns a sentence for each one that cannot be read.
    """
    return crawl_tables(glue_client(endpoint), database, locations, s3_options(endpoint))


@functools.cache
def _console(endpoint: str, database: str) -> tuple[Any, Athena]:
    """The catalog and the console that this process asks: to make them takes longer than most
    queries."""
    console = Athena({}, s3_options(endpoint), database, STATE / "athena")
    return glue_client(endpoint), console


def query(endpoint: str, sql: str, database: str) -> Result | str:
    """The answer to one statement in Athena's SQL, or the text of Athena's error."""
    glue, console = _console(endpoint, database)
    try:
        console.tables = catalog_tables(glue, database)
        return console.query(sql)
    except AthenaError as error:
        return str(error)
