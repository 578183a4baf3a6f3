"""Ask a real Trino every query of queries/ and keep its answers in recorded/: `python -m
tests.conformance.record`.

Needs 2.5 GB of disk and 3 GB of memory: `local/trino.py` fetches and runs the server.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client.aws import local_client
from local import trino
from local.athena import AthenaError
from local.aws.crawler import crawl_tables
from local.aws.moto_server import MotoServer
from local.aws.readers import s3_options
from tests.conformance import tables

HERE = Path(__file__).parent
QUERIES, RECORDED = HERE / "queries", HERE / "recorded"


def statements(kind: Path) -> list[str]:
    """The queries of one file: each ends with a semicolon at the end of a line; `--` lines are
    remarks."""
    lines = [x for x in kind.read_text("utf-8").splitlines() if not x.startswith("--")]
    return [x.strip() for x in re.split(r";\n", "\n".join(lines) + "\n") if x.strip()]


@contextmanager
def local_lake() -> Iterator[str]:
    """The tables in an S3 and a Glue of this machine, registered as the crawler registers them."""
    with MotoServer() as server:
        endpoint = f"http://127.0.0.1:{server.port}"
        s3, glue = local_client("s3", endpoint), local_client("glue", endpoint)
        s3.create_bucket(Bucket="lake")
        glue.create_database(DatabaseInput={"Name": tables.DATABASE})
        locations = tables.build("s3://lake/lakehouse-dwh", s3_options(endpoint))
        failures = crawl_tables(glue, tables.DATABASE, locations.values(), s3_options(endpoint))
        assert not failures, failures
        yield endpoint


def ask(address: str, sql: str) -> dict[str, Any]:
    """Return the answer to one statement as it is kept: names, types and rows, or the error's code,
    place and message."""
    try:
        columns, rows = trino.ask(address, sql, tables.DATABASE)
    except AthenaError as error:
        place = {"line": error.line, "column": error.column} if error.line else {}
        at = f"line {error.line}:{error.column}: " if error.line else ""
        return {"error": error.code, "message": at + error.message, **place}
    names, kinds = [c["name"] for c in columns], [c["type"] for c in columns]
    return {"names": names, "types": kinds, "rows": rows}


def record(address: str, kinds: list[Path]) -> None:
    for kind in kinds:
        answers = [{"sql": sql, **ask(address, sql)} for sql in statements(kind)]
        head = {"trino": trino.VERSION, "connector": "delta_lake", "time_zone": trino.TIME_ZONE}
        lines = ",\n".join(json.dumps(a, ensure_ascii=False) for a in answers)
        text = f'{{"recorded_from": {json.dumps(head)},\n"answers": [\n{lines}\n]}}\n'
        (RECORDED / f"{kind.stem}.json").write_text(text, "utf-8")
        errors = sum("error" in answer for answer in answers)
        print(f"{kind.stem:20} {len(answers):4} queries, {errors} refused", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help="wait instead of recording")
    parser.add_argument("kinds", nargs="*", help="the files of queries/ to record; all of them")
    options = parser.parse_args()
    kinds = [QUERIES / f"{k}.sql" for k in options.kinds] or sorted(QUERIES.glob("*.sql"))
    with local_lake() as endpoint, trino.server(endpoint) as address:
        if options.serve:
            print(f"{address}, until a line is entered", flush=True)
            sys.stdin.readline()
        else:
            record(address, kinds)


if __name__ == "__main__":
    main()
