"""The S3 requests that the job makes in small and large loads and in each operation.

    PYTHONPATH=src:lambda python -m tests.pipeline.job_requests

records them on this machine, boto3's and S3A's alike, and holds them against the job's role and the
boundary: it lists the requests that either would refuse, and the rights that no request took. It
fails if a request would be refused.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import boto3
from deltalake import DeltaTable

import glue_etl as etl
import moves3objects.handler as archiver
from client.template import ROOT, Template
from local.aws.moto_server import MotoServer
from local.aws.pipeline import SparkJob, job_environment, s3a_settings
from local.aws.readers import s3_options
from tests.pipeline.s3_requests import S3Request, record_s3
from tests.unit.test_iam import ARCHIVE, LAKE, RAW, Use, covers, each, listed, statements

PRODUCTS = "product_id,department_id,department,product_name\n"
ORDERS = "order_num,order_id,user_id,order_timestamp,total_amount,date\n"
ITEMS = (
    "id,order_id,user_id,days_since_prior_order,product_id,add_to_cart_order,reordered,"
    "order_timestamp,date\n"
)
# Kind of a request -> the action that it takes
ACTIONS = {
    "GET": "s3:GetObject",
    "HEAD": "s3:GetObject",
    "PUT": "s3:PutObject",
    "PART": "s3:PutObject",  # a part of an upload, its begin and its end
    "ABORT": "s3:AbortMultipartUpload",
    "DELETE": "s3:DeleteObject",
    "LIST": "s3:ListBucket",
    "UPLOADS": "s3:ListBucketMultipartUploads",
    "WHERE": "s3:GetBucketLocation",
}
OF_BUCKET = ("LIST", "UPLOADS", "WHERE")
BUCKETS = {"lake": "LakeBucket", "raw": "RawBucket", "archive": "ArchiveBucket"}
FOLDERS = ("lakehouse-dwh", "rejected", "runs", "glue-temp", "archived", "land-folder", "Data")
CONTEXT = SimpleNamespace(get_remaining_time_in_millis=lambda: 900_000)  # as Lambda's
FIXED_NAMES = {
    *FOLDERS,
    "_delta_log",
    "files",
    "damaged",
    "rejected_records",
    "intent.json",
    "lease.json",
}


# --------------------------------------------------------------------------------------------------
# Runs of the real job
# --------------------------------------------------------------------------------------------------
class Recording:
    """The deployed job on the template's buckets, without a state machine; each run is recorded."""

    def __init__(self, server: MotoServer) -> None:
        self.server, self.template = server, Template.load(endpoint=server.endpoint)
        self.s3 = boto3.client("s3", endpoint_url=server.endpoint)
        for logical_id in BUCKETS.values():
            self.s3.create_bucket(Bucket=self.name(logical_id))
        self.defaults = self.template.properties("GlueJob")["DefaultArguments"]
        self.lines: dict[str, list[str]] = {}
        self.job = SparkJob(server.endpoint)

    def name(self, logical_id: str) -> str:
        return self.template.ref(logical_id)

    def run(self, name: str, **arguments: str) -> str:
        """Run the job; return the run id. The requests are kept under the name."""
        run_id = f"{name.replace(', ', '-').replace(' ', '-')}-{len(self.lines)}"
        options = {f"--{key}": value for key, value in arguments.items()}
        with record_s3(self.server) as requests:
            self.job({**self.defaults, "--RUN_ID": run_id, **options})
        buckets = {self.name(logical_id): short for short, logical_id in BUCKETS.items()}
        self.lines[name] = lines_of(requests, buckets)
        bad = refused(self.lines[name])
        kinds = len(self.lines[name])
        print(
            f"{name}: {len(requests):,} requests of {kinds} kinds, {len(bad)} refused", flush=True
        )
        for line in bad:
            print(f"  {line}", flush=True)
        return run_id

    def load(self, name: str, files: Mapping[str, bytes]) -> str:
        """Upload and load files, then archive them; return the run id."""
        for path, body in files.items():
            key = f"land-folder/Data/{path}"
            self.s3.put_object(Bucket=self.name("RawBucket"), Key=key, Body=body)
        run_id = self.run(name)
        cursor: dict[str, Any] = {"offset": 0, "page": 0, "samples": []}
        cursor |= dict.fromkeys(archiver.COUNTED, 0)
        variables = self.template.properties("ArchiveFunction")["Environment"]["Variables"]
        with patch.dict(os.environ, variables):
            while not cursor.get("isComplete"):
                cursor = archiver.handler({"run_id": run_id, "archive": cursor}, CONTEXT)
        assert cursor["archived"] and not cursor["failed"], cursor
        return run_id

    def operate(self, name: str, **options: Any) -> str:
        """Run an operation, whose name begins that of the recording; return the run id."""
        asked = {"operation": name.partition(",")[0], "author": "recording", **options}
        return self.run(name, OPERATION=json.dumps(asked), scriptLocation="src/glue_operations.py")


def recorded() -> dict[str, list[str]]:
    """Run loads and operations on one lake; return what each asked S3 for."""
    with (
        patch("local.aws.pipeline.s3a_settings", settings),
        MotoServer() as server,
        patch.dict(os.environ, job_environment(server.endpoint)),
    ):
        recording = Recording(server)
        try:
            first = recording.load("load", small_delivery(1))
            recording.operate("sql", sql="UPDATE clean_products SET department = 'Shop'")
            recording.operate("replay", statuses=["rejected", "parked"])
            recording.operate("rollback", to=first)
            recording.operate("optimize")
            forget(recording)
            recording.operate("vacuum")
            recording.load("second load", small_delivery(2))
            recording.operate("rollback, of a load", to=first)
            recording.operate("replay, archived", archived={})
            damage(recording)
            recording.operate("rebuild")
            recording.load("large load", {"order_items/large.csv": large_file()})
        finally:
            recording.job.close()
        return recording.lines


def settings(endpoint: str) -> dict[str, str]:
    """Return Spark's settings, by which S3A uploads in parts from 5 MB on instead of 128 MB."""
    parts = ("multipart.size", "multipart.threshold")
    return s3a_settings(endpoint) | {f"spark.hadoop.fs.s3a.{name}": "5M" for name in parts}


def small_delivery(number: int) -> dict[str, bytes]:
    """Each dataset: a row is rejected, an item waits for its order, a file is set aside."""
    moment = f"2025-04-0{number}T10:00:00"
    row = f"{number},u1,3,p{number},1,0,{moment},\n"
    texts = {
        f"products-{number}.csv": f"{PRODUCTS}p{number},1,Books,Pen\n",
        f"orders/{number}.csv": f"{ORDERS}1,o{number},u1,{moment},5,\n1,bad,u1,{moment},bad,\n",
        f"order_items/{number}.csv": f"{ITEMS}i{number},o{row}j{number},q{row}",
        f"stock/{number}.csv": f"what,count\npen,{number}\n",
    }
    return {path: text.encode() for path, text in texts.items()}


def large_file() -> bytes:
    """A file above LARGE_BYTES of items with long random ids; some wait for their order."""
    chance = random.Random(0)
    row = "{0:080x},o{1},1001,3,p1,1,0,2025-04-20T09:00:00,2025-04-20\n"
    count = etl.LARGE_BYTES // 120
    rows = (row.format(chance.getrandbits(320), 1 + number % 3) for number in range(count))
    body = (ITEMS + "".join(rows)).encode()
    assert len(body) > etl.LARGE_BYTES
    return body


def forget(recording: Recording) -> None:
    """Let VACUUM remove what is older than now."""
    table = f"s3://{recording.name('LakeBucket')}/lakehouse-dwh/clean_products"
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # `deltalake` holds Python's lock
        pool.submit(set_retention, table, s3_options(recording.server.endpoint)).result()


def set_retention(table: str, options: dict[str, str]) -> None:
    properties = {"delta.deletedFileRetentionDuration": "interval 0 hours"}
    DeltaTable(table, storage_options=options).alter.set_table_properties(properties)


def damage(recording: Recording) -> None:
    """Lose the data files of a table."""
    bucket, prefix = recording.name("LakeBucket"), "lakehouse-dwh/clean_products/part-"
    for item in recording.s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]:
        recording.s3.delete_object(Bucket=bucket, Key=item["Key"])


# --------------------------------------------------------------------------------------------------
# From requests to lines
# --------------------------------------------------------------------------------------------------
def lines_of(requests: Iterable[S3Request], buckets: Mapping[str, str]) -> list[str]:
    """Return what was asked, once each, with names that differ from run to run shortened."""
    return sorted({line for request in requests for line in _lines(request, buckets)})


def _lines(request: S3Request, buckets: Mapping[str, str]) -> Iterator[str]:
    place = buckets[request.bucket]
    if request.source:
        bucket, _, key = request.source.partition("?")[0].partition("/")
        yield f"GET {buckets[bucket]}/{shortened(key)}"
    for key in request.deleted:
        yield f"DELETE {place}/{shortened(key)}"
    if not request.deleted:
        yield f"{kind_of(request)} {place}/{shortened(request.path)}"


def kind_of(request: S3Request) -> str:
    """Return the request's kind in ACTIONS."""
    method, query = request.method, request.query
    if not request.key:
        if method == "HEAD" or request.is_listing or "list-type" in query:
            return "LIST"
        kinds = {"uploads": "UPLOADS", "location": "WHERE"}
        return next(kinds[name] for name in query if name in kinds)
    if "uploads" in query or "uploadId" in query:
        return "ABORT" if method == "DELETE" else "PART"
    strange = query.keys() - {"x-id", "versionId"}
    assert not strange and method in ("GET", "HEAD", "PUT", "DELETE"), str(request)
    return method


def shortened(path: str) -> str:
    """Return a key or prefix with `run=X`, `x.parquet` and the like in place of names."""
    folders, _, name = path.rpartition("/")
    parts = [_folder(part) for part in folders.split("/")] if folders else []
    return "/".join([*parts, _name(name)])


def _folder(part: str) -> str:
    if part in FIXED_NAMES or part in etl.schemas():
        return part
    if "=" in part:
        return f"{part.partition('=')[0]}=X"
    return "X"


def _name(name: str) -> str:
    if not name or name in FIXED_NAMES or name in etl.schemas():
        return name
    hidden = "." if name.startswith(".") else ""
    suffix = re.search(r"(\.[a-z]+)+$", name)
    return f"{hidden}x{suffix[0] if suffix else ''}"


# --------------------------------------------------------------------------------------------------
# From lines to rights
# --------------------------------------------------------------------------------------------------
def use_of(line: str) -> Use:
    """Return the permission that a request takes."""
    kind, _, path = line.partition(" ")
    name, _, key = path.partition("/")
    arn = {"lake": LAKE, "raw": RAW, "archive": ARCHIVE}[name]
    if kind in OF_BUCKET:
        return Use(ACTIONS[kind], arn, {"s3:prefix": key})
    (use,) = each([ACTIONS[kind]], [f"{arn}/{key}"])
    return use


def refused(lines: Iterable[str]) -> list[str]:
    """Return the requests that the job's role or the boundary would refuse."""
    bootstrap = Template.load(ROOT / "bootstrap.yaml")
    boundary = bootstrap.properties("Boundary")["PolicyDocument"]["Statement"]
    return [
        line
        for line in lines
        if not all(
            any(covers(statement, use_of(line)) for statement in rights)
            for rights in (statements("GlueJobRole"), boundary)
        )
    ]


def unused(lines: Iterable[str]) -> list[str]:
    """Return the rights of the job on S3 that no request took, by statement and action."""
    uses = [use_of(line) for line in lines]
    return sorted(
        {
            f"{statement['Sid']}: {action}"
            for statement in statements("GlueJobRole")
            for action in listed(statement["Action"])
            for resource in listed(statement["Resource"])
            if action.startswith("s3:")
            if not any(
                covers({**statement, "Action": action, "Resource": resource}, use) for use in uses
            )
        }
    )


def main() -> int:
    all_lines = {line for lines in recorded().values() for line in lines}
    print("Rights that no request took:", *unused(all_lines), sep="\n  ")
    return 1 if refused(all_lines) else 0


if __name__ == "__main__":
    sys.exit(main())
