"""A small shop on a local AWS for the console's tests. Uploads start runs as on AWS; the job is a
double that writes the same tables and records as the real job, within a second.

The double has one rule: a load rejects an order whose amount is `abc`; a replay admits it. It
writes Delta tables with the schemas that the job declares.
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import io
import json
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, write_deltalake

import glue_etl as etl
from client.declared import OUTCOMES
from local.athena import Result
from local.aws import readers
from local.aws.server import JobFailed, LocalAws, QueryFailed, Runners
from local.aws.stepfunctions import Pace
from tests.arrow import schema_of

ORDERS_HEADER = "order_num,order_id,user_id,order_timestamp,total_amount,date"
MACHINE = {
    "StartAt": "RunGlueJob",
    "States": {
        "RunGlueJob": {
            "Type": "Task",
            "Resource": "arn:aws:states:::glue:startJobRun.sync",
            "Parameters": {
                "JobName": "Lakehouse",
                "Arguments": {
                    "--RUN_ID.$": "$$.Execution.Name",
                    "--OPERATION.$": "States.JsonToString($$.Execution.Input)",
                },
            },
            "ResultPath": None,
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "HandleGlueJobFailure"}],
            "Next": "Done",
        },
        "Done": {"Type": "Succeed"},
        "HandleGlueJobFailure": {"Type": "Pass", "Next": "RunFailed"},
        "RunFailed": {"Type": "Fail", "Error": "RunFailed", "Cause": "the job failed"},
    },
}
Row = dict[str, Any]


def order(number: int, amount: str = "10.0", day: int = 1) -> str:
    """Return a line of a file of orders."""
    return f"1,{number},7,2025-04-{day:02}T10:00:00,{amount},2025-04-{day:02}"


def orders(*lines: str) -> bytes:
    return "\n".join([ORDERS_HEADER, *lines, ""]).encode()


class Shop:
    """The local AWS with the double of the job. `folder` holds the mirror of the lake."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        declared = {table.name: table.ddl.replace("`", "") for table in etl.TABLES}
        declared |= etl.JOB_TABLES
        self.partitions = {table.name: table.partition for table in etl.TABLES if table.partition}
        self.schemas = {name: schema_of(ddl) for name, ddl in declared.items()}
        self.rows: dict[str, list[Row]] = {name: [] for name in self.schemas}
        self.uploaded: set[str] = set()
        self.commits = 0
        self.hold = threading.Event()  # the job waits until it is set
        self.hold.set()
        self.job_lock = threading.Lock()
        self.pool = ProcessPoolExecutor(
            2, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
        )
        runners = Runners(glue_job=self.run, query=self.answer)
        self.aws = LocalAws(
            runners,
            port=port,
            pace=Pace(0.05, 0.1, 0.1),
            batching_window=0.3,
            change_definition=self.machine,
        )

    def __enter__(self) -> Shop:
        self.aws.start()
        self.commit()
        return self

    def __exit__(self, *_: object) -> None:
        self.aws.stop()
        self.pool.shutdown()

    @staticmethod
    def machine(definition: dict[str, Any]) -> None:
        definition.clear()
        definition.update(json.loads(json.dumps(MACHINE)))

    # The lake -------------------------------------------------------------------------------------

    def answer(self, sql: str, database: str) -> tuple[Any, ...]:
        result: Result | str = self.pool.submit(
            readers.query, self.aws.endpoint, sql, database
        ).result()
        if isinstance(result, str):
            raise QueryFailed(result)
        return result.names, result.text_rows(), result.types

    def path_of(self, table: str) -> str:
        below = "rejected" if table == "rejected_records" else "lakehouse-dwh"
        return f"{below}/{table}"

    def commit(self, tables: set[str] | None = None, run_id: str = "") -> None:
        """Write the tables with the id of a run in their logs, and copy their files to the lake."""
        stamp = {"userMetadata": json.dumps({"run_id": run_id})}
        for name, schema in self.schemas.items():
            if tables is None or name in tables:
                data = pa.Table.from_pylist(self.rows[name], schema)
                write_deltalake(
                    self.folder / self.path_of(name),
                    data,
                    mode="overwrite",
                    partition_by=self.partitions.get(name),
                    commit_properties=CommitProperties(custom_metadata=stamp),
                )
        self.commits += 1
        self.copy()

    def copy(self) -> None:
        """Copy new files of the mirror to the lake, logs last; add new tables to the catalog."""
        bucket, s3 = self.aws.name("LakeBucket"), self.aws.client("s3")
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: ("_delta_log" in path.parts, str(path))):
            key = path.relative_to(self.folder).as_posix()
            if key not in self.uploaded:
                s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
                self.uploaded.add(key)
        glue, database = self.aws.client("glue"), self.aws.name("Database")
        registered = {
            table["Name"] for table in glue.get_tables(DatabaseName=database)["TableList"]
        }
        for name in set(self.schemas) - registered:
            place = f"s3://{bucket}/{self.path_of(name)}"
            glue.create_table(
                DatabaseName=database,
                TableInput={
                    "Name": name,
                    "StorageDescriptor": {"Location": place},
                    "Parameters": {"table_type": "DELTA"},
                },
            )

    def put(self, run_id: str, name: str, text: str) -> None:
        self.aws.client("s3").put_object(
            Bucket=self.aws.name("LakeBucket"), Key=f"runs/{run_id}/{name}", Body=text.encode()
        )

    # The job --------------------------------------------------------------------------------------

    def run(self, arguments: Mapping[str, str]) -> None:
        """Run the double: an operation, or else a load."""
        self.hold.wait(60)
        run_id, request = arguments["--RUN_ID"], json.loads(arguments["--OPERATION"])
        with self.job_lock:
            if isinstance(request, dict) and request.get("operation"):
                self.operate(run_id, request)
            else:
                self.load(run_id)

    def load(self, run_id: str) -> None:
        s3, raw = self.aws.client("s3"), self.aws.name("RawBucket")
        numbers = dict.fromkeys(("rows_read", "admitted", *OUTCOMES, "conflicting", "moved"), 0)
        reasons: dict[str, int] = {}
        manifest = []
        for key in self.aws.keys("RawBucket"):
            path = key.removeprefix("land-folder/Data/")
            got = s3.get_object(Bucket=raw, Key=key)
            body, dataset = got["Body"].read(), etl.dataset_of(path)
            if b"fail the run" in body:
                self.summary(run_id, {}, "FAILED", "JobError: the double was told to fail")
                raise JobFailed("JobError: the double was told to fail")
            file = {
                "file_path": path,
                "file_digest": hashlib.sha256(body).hexdigest(),
                "file_size": len(body),
                "file_modified": got["LastModified"],
            }
            counts = self.take(run_id, dataset, file, body) if dataset == "orders" else {}
            outcome = "loaded" if dataset == "orders" else "set_aside"
            reason = None if dataset == "orders" else "unknown_dataset"
            line = {**dict.fromkeys(("rows_read", *OUTCOMES), 0), **counts}
            origin = {"run_id": run_id, "dataset": dataset, "outcome": outcome, "reason": reason}
            now = dt.datetime.now(dt.UTC)
            self.rows["ingested_files"].append({**origin, **file, **line, "ingested_at": now})
            for name, value in counts.items():
                numbers[name] += value
            if counts.get("rejected"):
                reasons["invalid_total_amount"] = counts["rejected"]
            below = f"archived/run={run_id}/{path}"
            s3.put_object(Bucket=self.aws.name("ArchiveBucket"), Key=below, Body=body)
            s3.delete_object(Bucket=raw, Key=key)
            place = {"path": path, "size": len(body), "destination": "archive", "detail": None}
            place["last_modified"] = got["LastModified"].isoformat()
            manifest.append({**place, **origin, "rows_read": line["rows_read"]})
        self.put(run_id, "manifest.jsonl", "".join(json.dumps(entry) + "\n" for entry in manifest))
        examples = [
            {"reason": "invalid_total_amount"}
            | {name: row[name] for name in ("dataset", "file_path", "line", "raw")}
            for row in reversed(self.rows["rejected_records"])
            if row["run_id"] == run_id
        ]
        self.record(run_id, "load", numbers, reasons, len(manifest), reject_examples=examples)

    def take(self, run_id: str, dataset: str, file: Row, body: bytes) -> dict[str, int]:
        """Add the orders of a file to the table or to the rejected rows; return the counts."""
        lines = body.decode().splitlines()
        counts = {"rows_read": len(lines) - 1, "inserted": 0, "rejected": 0}
        for at, (text, fields) in enumerate(
            zip(lines[1:], csv.DictReader(io.StringIO(body.decode())), strict=True), 2
        ):
            if fields["total_amount"].replace(".", "").isdigit():
                self.rows["clean_orders"].append(typed(fields, run_id))
                counts["inserted"] += 1
                continue
            counts["rejected"] += 1
            self.rows["rejected_records"].append(
                {
                    "run_id": run_id,
                    "dataset": dataset,
                    "status": "rejected",
                    "reasons": ["invalid_total_amount"],
                    "record_key": fields["order_id"],
                    **file,
                    "line": at,
                    "raw": text,
                    "fields": list(fields.items()),
                }
            )
        return counts

    def record(
        self, run_id: str, kind: str, numbers: Row, reasons: Row, listed: int, **extra_fields: Any
    ) -> None:
        summary = self.summary(run_id, numbers, "SUCCEEDED", None, reasons, listed, **extra_fields)
        now = dt.datetime.now(dt.UTC)
        self.rows["etl_runs"].append(
            {
                "run_id": run_id,
                "operation": kind,
                "status": "SUCCEEDED",
                "started_at": now,
                "finished_at": now,
                "summary": json.dumps(summary),
                "table_versions": [("clean_orders", self.commits)],
            }
        )
        self.commit(run_id=run_id)

    def summary(
        self,
        run_id: str,
        numbers: Row,
        status: str,
        error: str | None = None,
        reasons: Row | None = None,
        listed: int = 0,
        **extra_fields: Any,
    ) -> Row:
        now = dt.datetime.now(dt.UTC).isoformat()
        zero = {
            **dict.fromkeys(("rows_read", "admitted", *OUTCOMES, "conflicting", "moved"), 0),
            "rejected_by_reason": {},
        }
        table = {"version": 1, "schema_changed": False, "files_added": 1, "files_removed": 0}
        summary = {
            "schema_version": 1,
            "run_id": run_id,
            "status": status,
            "error": error,
            "started_at": now,
            "finished_at": now,
            "files": {"listed": listed, "set_aside_by_reason": {}},
            "datasets": {
                "products": zero,
                "orders": {**zero, **numbers, "rejected_by_reason": reasons or {}},
                "order_items": zero,
            },
            "tables": {
                "clean_orders": {**table, "rows": len(self.rows["clean_orders"]), "dates": []}
            },
            "timings": {"discovered": 0.1},
            **extra_fields,
        }
        self.put(run_id, "summary.json", json.dumps(summary))
        return summary

    # Operations -----------------------------------------------------------------------------------

    def operate(self, run_id: str, request: Row) -> None:
        name, dry = request["operation"], bool(request.get("dry_run"))
        if "refuse" in str(request.get("sql", "")):
            error = "the statement would leave two rows with the key 1: nothing was written"
            self.summary(run_id, {}, "FAILED", error)
            raise JobFailed(error)
        acts = {"replay": self.replay, "rollback": self.rollback}
        result = acts.get(name, self.anything)(run_id, request, dry)
        operation = {"name": name, "author": request["author"], "dry_run": dry, **result}
        self.put(run_id, "operation.json", json.dumps(operation))
        if dry:
            self.summary(run_id, {}, "SUCCEEDED", None, operation=operation)
        else:
            self.record(run_id, name, result["numbers"], {}, 0, operation=operation)

    def anything(self, run_id: str, request: Row, dry: bool) -> Row:
        effect = {"tables": {"clean_orders": {"inserted": 0, "updated": 0, "deleted": 1}}}
        return {
            "text": f"{request['operation']}: 1 row",
            "plan": effect,
            "effect": effect,
            "numbers": {},
        }

    def replay(self, run_id: str, request: Row, dry: bool) -> Row:
        """Admit the requested rejected rows, as if the rule had been relaxed."""
        identity = etl.ROW_IDENTITY
        places = {tuple(row[name] for name in identity) for row in request.get("rows", [])}
        chosen = [
            row
            for row in self.rows["rejected_records"]
            if row["status"] == "rejected"
            and (not places or tuple(row[name] for name in identity) in places)
            and row["run_id"] in request.get("runs", [row["run_id"]])
            and row["file_path"] in request.get("files", [row["file_path"]])
        ]
        if request.get("discard"):
            return self.discard(run_id, request, dry, chosen)
        count = len(chosen)
        effect = {"datasets": {"orders": {"rows_read": count, "inserted": count}}}
        text = f"{count} rejected rows {'would be' if dry else 'were'} admitted."
        if not dry:
            for row in chosen:
                row |= {"status": "admitted", "resolved_run_id": run_id}
                fields = {**dict(row["fields"]), "total_amount": "0"}
                self.rows["clean_orders"].append(typed(fields, run_id))
        numbers = {"rows_read": count, "inserted": count}
        return {"text": text, "plan": effect, "effect": effect, "numbers": numbers}

    def discard(self, run_id: str, request: Row, dry: bool, chosen: list[Row]) -> Row:
        count = len(chosen)
        text = f"{count} row{'' if count == 1 else 's'} {'would be' if dry else 'were'} discarded."
        if not dry:
            settled = {
                "resolved_run_id": run_id,
                "author": request["author"],
                "why": request["why"],
            }
            for row in chosen:
                row |= {"status": "discarded", **settled}
        effect = {"rows": {"rejected": count}}
        return {"text": text, "plan": effect, "effect": effect, "numbers": {}}

    def rollback(self, run_id: str, request: Row, dry: bool) -> Row:
        gone = [row for row in self.rows["clean_orders"] if row["user_id"] == request["undo"][:8]]
        if not dry:
            for name in ("ingested_files", "rejected_records"):
                self.rows[name] = [r for r in self.rows[name] if r["run_id"] != request["undo"]]
            self.rows["clean_orders"] = [r for r in self.rows["clean_orders"] if r not in gone]
        rows = len(self.rows["clean_orders"])
        ids = [run["run_id"] for run in self.rows["etl_runs"]]
        place = ids.index(request["undo"])
        tables = {"clean_orders": {"from": self.commits, "to": self.commits - 1, "rows": rows}}
        plan = {"to_run": ids[place - 1] if place else None, "runs": 1, "tables": tables}
        text = f"The tables {'would go' if dry else 'went'} back by one run."
        return {"text": text, "plan": plan, "effect": {"tables": tables}, "numbers": {}}


def typed(fields: Mapping[str, str], run_id: str) -> Row:
    """Return an order as a row of the table; its user_id identifies the run that loaded it."""
    when = dt.datetime.fromisoformat(fields["order_timestamp"]).replace(tzinfo=dt.UTC)
    return {
        "order_num": fields["order_num"],
        "order_id": fields["order_id"],
        "user_id": run_id[:8],
        "order_timestamp": when,
        "total_amount": float(fields["total_amount"]),
        "date": dt.date.fromisoformat(fields["date"]),
    }
