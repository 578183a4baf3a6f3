"""What the local AWS holds, kept in a folder over a restart: objects, catalog, executions, queries.

    objects/<sha-256>      the bytes of an object, once for equal bytes
    executions/<name>.json what DescribeExecution and GetExecutionHistory say of one that has ended
    state.json             which objects lie where, the catalog's tables, the past queries

`state.json` is replaced as the last step, so that a kill leaves the state of the save before. Not
kept: old versions of objects, the results of queries (Athena's bucket deletes them too), and what
waits in queues: a raw zone that is not empty is swept at the next start.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

from moto.athena.models import Execution as Query
from moto.athena.models import athena_backends
from moto.s3.models import FakeDeleteMarker, FakeKey, s3_backends
from moto.stepfunctions.parser.api import ExecutionStatus
from moto.stepfunctions.parser.backend.execution import Execution
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from client.template import Template

FORMAT = 1  # of state.json
QUERIES = 500  # so many of the newest are kept
TABLE_INPUT = ("Name", "Description", "StorageDescriptor", "PartitionKeys", "TableType")
ENDED = {status.value for status in ExecutionStatus} - {"RUNNING"}


class PastExecution(Execution):
    """An execution of an earlier life: it is described, and never runs."""

    events: list[dict[str, Any]]

    def to_history_output(self) -> Any:
        return {"events": self.events}


class LocalEnvironment(Protocol):
    """What of a local AWS is needed to keep and restore it."""

    template: Template
    region: str

    def client(self, service: str) -> Any: ...

    def name(self, logical_id: str) -> str: ...


class StateFolder:
    """The folder of one local AWS."""

    def __init__(self, aws: LocalEnvironment, folder: Path) -> None:
        self.aws, self.folder = aws, folder
        self._hashes: dict[tuple[str, str, str], str] = {}  # bucket, key, version -> SHA-256

    def save(self) -> None:
        """Writes what is new since the last save."""
        for name in ("objects", "executions"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        state = {
            "format": FORMAT,
            "objects": self._objects(),
            "tables": self._tables(),
            "queries": self._queries(),
        }
        for execution in self._machine().executions:
            self._save_execution(execution)
        self._write("state.json", state)

    def restore(self) -> bool:
        """Puts back what the folder holds; False where it holds nothing."""
        path = self.folder / "state.json"
        if not path.exists():
            return False
        state = json.loads(path.read_text("utf-8"))
        if state["format"] != FORMAT:
            raise ValueError(
                f"{path}: of another version of this product; say --fresh (make up FRESH=1)"
            )
        for stored in state["objects"]:
            self._restore_object(stored)
        for table in state["tables"]:
            self.aws.client("glue").create_table(
                DatabaseName=self.aws.name("Database"), TableInput=table
            )
        for execution in sorted(
            (json.loads(path.read_text("utf-8")) for path in self.folder.glob("executions/*.json")),
            key=lambda execution: execution["startDate"],
        ):
            self._restore_execution(execution)
        for query in state["queries"]:
            self._restore_query(query)
        return True

    # Objects --------------------------------------------------------------------------------------

    def _objects(self) -> list[dict[str, Any]]:
        """Where which bytes lie; new bytes are written."""
        objects = []
        results = self.aws.name("AthenaResultsBucket")
        for bucket in list(s3_backends[self.aws.template.account]["aws"].buckets.values()):
            if bucket.name == results:
                continue
            for name in list(bucket.keys):
                key = bucket.keys.get(name)
                if key is None or isinstance(key, FakeDeleteMarker):
                    continue
                objects.append(
                    {
                        "bucket": bucket.name,
                        "key": name,
                        "etag": key.etag.strip('"'),
                        "modified": key.last_modified.isoformat(),
                        "type": key.metadata.get("content-type", ""),
                        "bytes": self._hash(bucket.name, key),
                    }
                )
        return objects

    def _hash(self, bucket: str, key: FakeKey) -> str:
        """The name of the file with the object's bytes, which exists from now on."""
        identity = (bucket, key.name, f"{key.version_id} {key.last_modified.isoformat()}")
        if identity not in self._hashes:
            value = key.value
            name = hashlib.sha256(value).hexdigest()
            path = self.folder / "objects" / name
            if not path.exists():
                part = path.with_suffix(".part")
                part.write_bytes(value)
                part.replace(path)
            self._hashes[identity] = name
        return self._hashes[identity]

    def _restore_object(self, stored: dict[str, Any]) -> None:
        """Without an event: it was told of in its first life."""
        backend = s3_backends[self.aws.template.account]["aws"]
        key = backend.put_object(
            stored["bucket"],
            stored["key"],
            (self.folder / "objects" / stored["bytes"]).read_bytes(),
            etag=stored["etag"],
            disable_notification=True,
        )
        key.last_modified = dt.datetime.fromisoformat(stored["modified"])
        if stored["type"]:
            key.set_metadata({"Content-Type": stored["type"]})
        self._hashes[
            (stored["bucket"], stored["key"], f"{key.version_id} {stored['modified']}")
        ] = stored["bytes"]

    # Catalog, executions, queries -----------------------------------------------------------------

    def _tables(self) -> list[dict[str, Any]]:
        pages = (
            self.aws.client("glue")
            .get_paginator("get_tables")
            .paginate(DatabaseName=self.aws.name("Database"))
        )
        named = (*TABLE_INPUT, "Parameters")
        return [
            {name: table[name] for name in named if name in table}
            for page in pages
            for table in page["TableList"]
        ]

    def _machine(self) -> Any:
        backend = stepfunctions_parser_backends[self.aws.template.account][self.aws.region]
        return backend.describe_state_machine(self.aws.name("StateMachine"))

    def _save_execution(self, execution: Execution) -> None:
        path = self.folder / "executions" / f"{execution.name}.json"
        if execution.status not in ENDED or path.exists() or "/" in execution.name:
            return
        described = {
            "name": execution.name,
            "arn": execution.exec_arn,
            "status": execution.status,
            "startDate": execution.start_date.isoformat(),
            "stopDate": execution.stop_date.isoformat() if execution.stop_date else None,
            "input": execution.execution_input,
            "output": execution.output,
            "error": execution.error,
            "cause": execution.cause,
            "events": execution.to_history_output()["events"],
        }
        self._write(f"executions/{path.name}", described)

    def _restore_execution(self, stored: dict[str, Any]) -> None:
        machine = self._machine()
        execution = PastExecution(
            name=stored["name"],
            sm_type=machine.sm_type,
            role_arn=machine.roleArn,
            exec_arn=stored["arn"],
            account_id=self.aws.template.account,
            region_name=self.aws.region,
            state_machine=machine,
            start_date=dt.datetime.fromisoformat(stored["startDate"]),
            cloud_watch_logging_session=None,
            activity_store={},
            input_data=stored["input"],
        )
        execution.exec_status = ExecutionStatus(stored["status"])
        execution.stop_date = dt.datetime.fromisoformat(stored["stopDate"] or stored["startDate"])
        execution.output, execution.error = stored["output"], stored["error"]
        execution.cause = stored["cause"]
        execution.events = [
            {**event, "timestamp": dt.datetime.fromisoformat(event["timestamp"])}
            for event in stored["events"]
        ]
        machine.executions.append(execution)

    def _queries(self) -> list[dict[str, Any]]:
        backend = athena_backends[self.aws.template.account][self.aws.region]
        return [
            {
                "id": query.id,
                "query": query.query,
                "context": query.context,
                "workgroup": query.workgroup.name if query.workgroup else "",
                "status": query.status,
                "reason": getattr(query, "reason", ""),
                "start": query.start_time,
                "end": query.end_time,
            }
            for query in list(backend.executions.values())[-QUERIES:]
        ]

    def _restore_query(self, stored: dict[str, Any]) -> None:
        backend = athena_backends[self.aws.template.account][self.aws.region]
        group = backend.work_groups.get(stored["workgroup"])
        query: Any = Query(stored["query"], stored["context"], {}, group, None)
        query.id, query.start_time, query.end_time = stored["id"], stored["start"], stored["end"]
        query._transitions = []
        query._status = (
            stored["status"] if stored["status"] in ENDED | {"CANCELLED"} else "CANCELLED"
        )
        if stored["reason"]:
            query.reason = stored["reason"]
        backend.executions[query.id] = query

    def _write(self, name: str, value: Any) -> None:
        """A file as JSON, whole or not at all."""
        part = self.folder / f"{name}.part"
        part.write_text(json.dumps(value, default=_plain), "utf-8")
        part.replace(self.folder / name)


def _plain(value: Any) -> Any:
    """A time as JSON."""
    if isinstance(value, dt.datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} in what is kept: {value!r}")
