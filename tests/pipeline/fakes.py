"""A Glue job, a crawler and a query engine without Spark: they keep the contracts that the state
machine relies on."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import boto3
from botocore.exceptions import ClientError

from local.aws.server import CrawlFailed, JobFailed, QueryFailed

COUNTS = (
    "rows_read",
    "admitted",
    "inserted",
    "updated",
    "unchanged",
    "superseded",
    "rejected",
    "parked",
    "conflicting",
    "moved",
)
TABLES = (
    "clean_products",
    "clean_orders",
    "clean_orders_items",
    "rejected_records",
    "ingested_files",
    "etl_runs",
    "corrections",
)


def split(path: str) -> tuple[str, str]:
    bucket, _, key = path.removeprefix("s3://").partition("/")
    return bucket, key


def digest_of(s3: Any, bucket: str, item: Mapping[str, Any]) -> str | None:
    """Return the SHA-256 of a listed object's bytes, or None if it has gone or changed since.

    The ETag is no digest: under SSE-KMS the same bytes have another ETag at each upload. A frozen
    object has no bytes to read; its digest is empty.
    """
    try:
        answer = s3.get_object(Bucket=bucket, Key=item["Key"], IfMatch=item["ETag"])
    except ClientError as error:
        code = error.response["Error"]["Code"]
        return {"InvalidObjectState": "", "NoSuchKey": None, "PreconditionFailed": None}[code]
    return hashlib.sha256(answer["Body"].read()).hexdigest()


class FakeJob:
    """Lists the raw zone, "loads" each line of a file as an order, keeps a ledger of paths and
    digests, commits manifest and summary.

    `failures` are raised one per run, before the commit; `during` is called between listing and
    commit.
    """

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.ledger: dict[tuple[str, str], str] = {}  # path, digest -> run
        self.loaded: list[str] = []
        self.failures: list[Exception] = []
        self.during: Callable[[], None] = lambda: None
        self.change_summary: Callable[[dict[str, Any]], None] = lambda summary: None
        self.seconds = 0.0
        self.asked: list[Mapping[str, str]] = []  # arguments of each operation
        self.operation: dict[str, Any] = {}  # what the next ones have in their summary
        self.running = threading.Lock()

    def __call__(self, arguments: Mapping[str, str]) -> None:
        assert self.running.acquire(blocking=False), "two writers at once"
        try:
            self.run(arguments)
        finally:
            self.running.release()

    def run(self, arguments: Mapping[str, str]) -> None:
        if "--OPERATION" in arguments:
            self.operate(arguments)
            return
        run_id = arguments["--RUN_ID"]
        self.runs.append(run_id)
        lines = self.list_files(*split(arguments["--RAW_PATH"]))
        self.during()
        time.sleep(self.seconds)
        if self.failures:
            error = self.failures.pop(0)
            if not isinstance(error, JobFailed) or error.state == "FAILED":
                failed = {**self.summary(run_id, [], 0), "status": "FAILED", "error": str(error)}
                self.write(arguments, "summary.json", json.dumps({**failed, "tables": {}}))
            raise error
        new = [line for line in lines if line["outcome"] == "loaded"]
        for line in new:
            self.ledger[line["path"], line["digest"]] = run_id
            self.loaded.append(line["path"])
        self.write(arguments, "manifest.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        summary = self.summary(run_id, lines, len(new))
        self.change_summary(summary)
        self.write(arguments, "summary.json", json.dumps(summary))

    def operate(self, arguments: Mapping[str, str]) -> None:
        """An operation that changes nothing, told as the script for operations tells it; a dry run
        and whatever reads name no tables."""
        self.asked.append(arguments)
        time.sleep(self.seconds)
        request = json.loads(arguments["--OPERATION"])
        operation = {
            "name": request["operation"],
            "author": request.get("author", "unknown"),
            "dry_run": request.get("dry_run", False),
            "text": f"The {request['operation']} is done.",
            "plan": {"runs": 1},
            "effect": {"clean_orders": {"version": [3, 4], "files": 2}},
            **self.operation,
        }
        summary = {**self.summary(arguments["--RUN_ID"], [], 0), "operation": operation}
        if request["operation"] != "replay":
            zeros = dict.fromkeys(COUNTS, 0) | {"rejected_by_reason": {}}
            summary["datasets"]["orders"] = zeros
        if self.failures:
            cause = str(self.failures[0])
            failed = {**summary, "status": "FAILED", "error": cause, "tables": {}}
            self.write(arguments, "summary.json", json.dumps(failed))
            raise self.failures.pop(0)
        reads = operation["dry_run"] or "SELECT" in str(request)
        summary["tables"] = {} if reads else summary["tables"]
        result = {**operation, "rows": [{"order_id": "1", "run": "run-1"}] if reads else []}
        self.write(arguments, "operation.json", json.dumps(result))
        self.write(arguments, "manifest.jsonl", "")
        self.change_summary(summary)
        self.write(arguments, "summary.json", json.dumps(summary))

    def list_files(self, bucket: str, prefix: str) -> list[dict[str, Any]]:
        s3 = boto3.client("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        items = [item for page in pages for item in page.get("Contents", [])]
        items.sort(key=lambda item: (item["LastModified"], item["Key"]))
        digests = [digest_of(s3, bucket, item) for item in items]
        return [
            self.line(bucket, prefix, item, digest)
            for item, digest in zip(items, digests, strict=True)
            if digest is not None
        ]

    def line(
        self, bucket: str, prefix: str, item: Mapping[str, Any], digest: str
    ) -> dict[str, Any]:
        path, etag = item["Key"].removeprefix(prefix), item["ETag"].strip('"')
        readable = path.endswith(".csv")
        outcome = (
            "set_aside"
            if not readable
            else "duplicate"
            if (path, digest) in self.ledger
            else "loaded"
        )
        return {
            "bucket": bucket,
            "key": item["Key"],
            "path": path,
            "etag": etag,
            "digest": digest,
            "size": item["Size"],
            "last_modified": item["LastModified"].isoformat(),
            "dataset": "orders" if readable else None,
            "outcome": outcome,
            "reason": None if readable else "unknown_dataset",
            "detail": None if readable else f"{path}: the path names no dataset: rename it",
            "rows_read": 1 if outcome == "loaded" else 0,
            "ignored_columns": [],
            "destination": "archive" if readable else "rejected",
        }

    def summary(self, run_id: str, lines: Sequence[Mapping[str, Any]], rows: int) -> dict[str, Any]:
        outcomes = [line["outcome"] for line in lines]
        zeros = {**dict.fromkeys(COUNTS, 0), "rejected_by_reason": {}}
        tables = {
            name: {
                "version": 1,
                "rows": len(self.loaded),
                "schema_changed": False,
                "files_added": 1,
                "files_removed": 0,
                "dates": [],
            }
            for name in TABLES
        }
        spans = [["2025-04-01", "2025-04-01"], ["2025-04-03", "2025-04-04"]]
        tables["clean_orders"]["dates"] = spans if rows else []
        return {
            "schema_version": 1,
            "run_id": run_id,
            "status": "SUCCEEDED",
            "error": None,
            "crawl_needed": len(self.runs) == 1,
            "files": {
                "listed": len(lines),
                "set_aside_by_reason": {},
                "no_final_newline": 0,
                **{
                    name: outcomes.count(name)
                    for name in ("loaded", "duplicate", "set_aside", "changed", "unreadable")
                },
            },
            "manifest_entries": len(lines),
            "tables": tables,
            "datasets": {
                "products": dict(zeros),
                "orders": {
                    **zeros,
                    "rows_read": rows + 2,
                    "inserted": rows,
                    "rejected": 2,
                    "rejected_by_reason": {"missing_order_timestamp": 2},
                },
                "order_items": dict(zeros),
            },
        }

    @staticmethod
    def write(arguments: Mapping[str, str], name: str, text: str) -> None:
        bucket, prefix = split(arguments["--RUNS_PATH"])
        boto3.client("s3").put_object(
            Bucket=bucket, Key=f"{prefix}{arguments['--RUN_ID']}/{name}", Body=text.encode()
        )


class FakeCrawler:
    """Counts crawls, and puts each target into the catalog; `failures` are raised one per crawl,
    `during` is called in each."""

    def __init__(self) -> None:
        self.crawls: list[Sequence[str]] = []
        self.failures: list[CrawlFailed] = []
        self.during: Callable[[], Any] = lambda: None

    def __call__(self, database: str, targets: Sequence[str]) -> None:
        self.during()
        self.crawls.append(targets)
        if self.failures:
            raise self.failures.pop(0)
        glue = boto3.client("glue")
        registered = {
            table["Name"] for table in glue.get_tables(DatabaseName=database)["TableList"]
        }
        for name in {target.rstrip("/").rpartition("/")[2] for target in targets} - registered:
            glue.create_table(DatabaseName=database, TableInput={"Name": name})


class FakeQueries:
    """Answers each check with the number of violations that is set for a word in its SQL; 0
    otherwise."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.violations: dict[str, int] = {}
        self.failures: dict[str, QueryFailed] = {}

    def __call__(self, sql: str, database: str) -> tuple[list[str], list[list[Any]]]:
        self.asked.append(sql)
        for word, failure in self.failures.items():
            if word in sql:
                raise failure
        total = sum(count for word, count in self.violations.items() if word in sql)
        return ["violations", "detail"], [[total, f"broken: {total}"]]
