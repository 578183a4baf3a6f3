"""What reads Delta tables in a process of its own: the crawler and Athena.

Light to import, since each process does.
"""

from __future__ import annotations

from collections.abc import Sequence

from local.athena import AthenaError, Result, glue_client, on_endpoint, s3_options
from local.aws.crawler import crawl_tables
from local.runtime import STATE


def ready() -> None:
    """Nothing; whoever can call it has started."""


def crawl(endpoint: str, database: str, locations: Sequence[str]) -> list[str]:
    """Registers the Delta tables in the catalog.

    Returns a sentence for each one that cannot be read.
    """
    return crawl_tables(glue_client(endpoint), database, locations, s3_options(endpoint))


def query(endpoint: str, sql: str, database: str) -> Result | str:
    """The answer to one statement in Athena's SQL, or the text of Athena's error."""
    try:
        return on_endpoint(endpoint, database, STATE / "athena").query(sql)
    except AthenaError as error:
        return str(error)
