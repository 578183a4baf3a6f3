"""`python -m local sql`, and the console of a local AWS."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .console import DATABASE, Athena
from .errors import AthenaError


def s3_options(endpoint: str, region: str = "us-east-1") -> dict[str, str]:
    """`deltalake`'s options for an S3 that is stood in for on this machine."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": region,
        "AWS_ACCESS_KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID", "testing"),
        "AWS_SECRET_ACCESS_KEY": os.environ.get("AWS_SECRET_ACCESS_KEY", "testing"),
    }


def glue_client(endpoint: str) -> Any:
    """The Glue of a local AWS, with the credentials of `s3_options`."""
    import boto3

    options = s3_options(endpoint)
    return boto3.client(
        "glue",
        endpoint_url=endpoint,
        region_name=options["AWS_REGION"],
        aws_access_key_id=options["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=options["AWS_SECRET_ACCESS_KEY"],
    )


def on_endpoint(endpoint: str, database: str = DATABASE, history: Path | None = None) -> Athena:
    """The console of a local AWS: it knows the tables that the crawler has registered in the
    catalog."""
    from botocore.exceptions import EndpointConnectionError

    from local.aws.crawler import catalog_tables
    from tools import SetupError

    try:
        return Athena(
            catalog_tables(glue_client(endpoint), database), s3_options(endpoint), database, history
        )
    except EndpointConnectionError:
        raise SetupError(
            f"Nothing listens at {endpoint}: start it with `make up`, or say --endpoint URL"
        ) from None


def main(argv: Sequence[str]) -> int:
    """`python -m local sql "SELECT …"`: 0 with the answer on stdout, 1 with Athena's error on
    stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m local sql", description="Query the lakehouse in Athena's SQL."
    )
    parser.add_argument("sql", nargs="?", help="one statement; read from stdin where it is missing")
    parser.add_argument(
        "--csv", action="store_true", help="write Athena's result file instead of a table"
    )
    parser.add_argument("--past", action="store_true", help="show the queries of the past")
    parser.add_argument(
        "--lake", type=Path, help="a folder with Delta tables, instead of the local AWS"
    )
    parser.add_argument(
        "--endpoint", default=os.environ.get("AWS_ENDPOINT_URL", "http://localhost:5000")
    )
    parser.add_argument(
        "--history", type=Path, default=Path(".local/athena"), help="folder of the past queries"
    )
    options = parser.parse_args(argv)
    if options.lake:
        tables = {
            log.parent.name: str(log.parent) for log in sorted(options.lake.rglob("_delta_log"))
        }
        athena = Athena(tables, history=options.history)
    elif options.past:
        athena = Athena({}, history=options.history)
    else:
        athena = on_endpoint(options.endpoint, history=options.history)
    if options.past:
        for query in athena.queries():
            text = " ".join(query["sql"].split())
            print(f"{query['submitted_at']}  {query['state']:9}  {query['seconds']:6.2f} s  {text}")
        return 0
    try:
        result = athena.query(options.sql or sys.stdin.read())
    except AthenaError as error:
        print(error, file=sys.stderr)
        return 1
    print(result.csv() if options.csv else result.table(), end="" if options.csv else "\n")
    return 0
