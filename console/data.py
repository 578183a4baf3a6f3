"""All that the pages ask of an environment: queries, run records, histories. No page in here.

Every list comes a page at a time, and every query names the columns and the conditions that it
needs. What Athena has said is remembered until an execution starts or ends.
"""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import threading
import time
import zlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

import glue_etl
import run_graph as graph
from console.athena import Answer, Athena, Memory, QueryError, containing, literal, one_of
from console.places import DWH, REJECTED, RUNS, Place
from tools import history
from tools.history import History
from tools.lake import Lake as LakeFiles

DATASETS = ("products", "orders", "order_items")
OUTCOMES = ("inserted", "updated", "unchanged", "superseded", "rejected", "parked")
PAGE = 50  # rows of a list
ENDED_BADLY = ("FAILED", "TIMED_OUT", "ABORTED")
LOOKED_AT = 100  # executions among which the newest runs are looked for
MANIFEST_BYTES, RECORD_BYTES = 4 << 20, 8 << 20  # of a run's files, read at most
PREVIEW_BYTES = 256 << 10
EVENTS = 5000
MISSING = ("NoSuchKey", "404", "NoSuchBucket", "NotFound", "403", "AccessDenied")
STAMP_SECONDS = 0.5
OPEN, ANY = "open", "any"  # words for a status: rejected or parked; whichever
REJECT_COLUMNS = (
    "run_id, dataset, status, json_format(CAST(reasons AS JSON)) AS reasons, record_key, order_id, "
    "product_id, file_path, file_digest, file_size, "
    "CAST(file_modified AS varchar) AS file_modified, line, raw, "
    "json_format(CAST(fields AS JSON)) AS fields, resolved_run_id"
)


def table_of(dataset: str) -> glue_etl.Table:
    """The declared table of a dataset."""
    return next(table for table in glue_etl.TABLES if table.dataset == dataset)


def meaning_of(reason: str) -> str:
    """What a reason code says, of a row or of a file."""
    known: dict[str, str] = {**glue_etl.FILE_REASONS, **glue_etl.ROW_REASONS}
    kind, _, column = reason.partition("_")
    if reason not in known and f"{kind}_<column>" in known:
        return known[f"{kind}_<column>"] + f" ({column})"
    return known.get(reason, "")


def column_of(reason: str) -> str | None:
    """The column that a reason blames; None where it blames the row."""
    if reason == "date_mismatch":
        return "date"
    parents = {p.reason: p.column for table in glue_etl.TABLES for p in table.parents}
    kind, _, column = reason.partition("_")
    return parents.get(reason) or (column if kind in ("missing", "invalid", "ambiguous") else None)


def names_and_columns() -> dict[str, list[tuple[str, str]]]:
    """Each table that can be queried with its columns and their types."""
    found = {
        table.name: [(column.name, column.type.lower()) for column in table.columns]
        for table in glue_etl.TABLES
    }
    for name, ddl in glue_etl.RECORD_TABLES.items():
        found[name] = columns_of(ddl)
    return found


def columns_of(ddl: str) -> list[tuple[str, str]]:
    """Name and type of each column of a declaration, commas within `<>` being part of a type."""
    parts, depth = [""], 0
    for character in ddl:
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    pairs = [part.strip().partition(" ") for part in parts]
    return [(name, kind.lower()) for name, _, kind in pairs]


@dataclass(frozen=True)
class Run:
    """An execution and what its job has recorded. `summary` is empty where there is none (yet)."""

    run_id: str
    status: str
    started: dt.datetime | None = None
    ended: dt.datetime | None = None
    operation: str = "load"
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        return self.status == "RUNNING"

    @property
    def failed(self) -> bool:
        return self.status in ENDED_BADLY

    @property
    def nothing_new(self) -> bool:
        return not self.running and not self.failed and not self.summary

    @property
    def seconds(self) -> float | None:
        if not self.started:
            return None
        return ((self.ended or dt.datetime.now(dt.UTC)) - self.started).total_seconds()

    def total(self, name: str) -> int:
        """A measure, over all datasets."""
        return sum(int(one.get(name) or 0) for one in self.summary.get("datasets", {}).values())


@dataclass(frozen=True)
class Filters:
    """Which rows of rejected_records are asked for; an empty text asks for all, the status OPEN for
    rejected and parked rows."""

    dataset: str = ""
    status: str = ""
    reason: str = ""
    run: str = ""
    file: str = ""
    text: str = ""

    def where(self) -> str:
        """The condition in SQL."""
        named = {"dataset": self.dataset, "status": self.status, "run_id": self.run}
        words = ("", OPEN, ANY)
        parts = [
            f"{name} = {literal(value)}" for name, value in named.items() if value not in words
        ]
        if self.status == OPEN:
            parts.append("status IN ('rejected', 'parked')")
        if self.file:
            parts.append(f"file_path = {literal(self.file)}")
        if self.reason:
            parts.append(f"contains(reasons, {literal(self.reason)})")
        if self.text:
            parts.append(f"({containing('raw', self.text)} OR record_key = {literal(self.text)})")
        return " AND ".join(parts) or "true"

    def request(self) -> dict[str, Any]:
        """The same choice as the operation `replay` takes it; the text it does not know."""
        named = {
            "datasets": self.dataset,
            "statuses": self.status,
            "reasons": self.reason,
            "runs": self.run,
            "files": self.file,
        }
        return {name: [value] for name, value in named.items() if value not in ("", OPEN, ANY)}


@dataclass(frozen=True)
class Attention:
    """One thing that a person should look at: how many, since when, and where to read on."""

    kind: str
    title: str
    count: int
    since: dt.datetime | None
    link: Mapping[str, str]


class Lake:
    """The questions that pages ask of one environment."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.athena = Athena(place)
        self.memory = Memory(self.stamp)
        self._stamp: tuple[float, Hashable] = (0.0, None)
        self._stamp_lock = threading.Lock()

    # What changes -------------------------------------------------------------------------------

    def stamp(self) -> Hashable:
        """Differs as soon as an execution has started or ended."""
        with self._stamp_lock:
            read_at, stamp = self._stamp
            if time.monotonic() - read_at > STAMP_SECONDS:
                newest = self.executions(10)
                stamp = tuple((one["executionArn"], one["status"]) for one in newest)
                self._stamp = (time.monotonic(), stamp)
            return stamp

    def ask(self, sql: str) -> Answer:
        """A query's answer, from memory where nothing has run since. No row where no run has
        written the table yet."""
        try:
            return self.memory.get(sql, lambda: self.athena.ask(sql))
        except QueryError as error:
            if error.no_table:
                return Answer((), (), ())
            raise

    # Executions and runs ------------------------------------------------------------------------

    def executions(self, limit: int, status: str = "") -> list[dict[str, Any]]:
        """The newest executions."""
        found, _ = self.executions_page(limit, "", status)
        return found

    def executions_page(
        self, limit: int, token: str = "", status: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        """A page of executions, newest first, and the token of the page behind it."""
        options: dict[str, Any] = {"nextToken": token} if token else {}
        if status:
            options["statusFilter"] = status
        page = self.place.clients["stepfunctions"].list_executions(
            stateMachineArn=self.place.state_machine, maxResults=limit, **options
        )
        return page["executions"][:limit], page.get("nextToken") or ""

    def arn(self, run_id: str) -> str:
        """The execution that a run is named after."""
        return self.place.state_machine.replace(":stateMachine:", ":execution:") + f":{run_id}"

    def recent(self, limit: int = 20) -> list[Run]:
        """The newest runs, newest first; those that found nothing new are left out."""
        executions = self.executions(LOOKED_AT)
        runs = [run for run in self.described(executions) if not run.nothing_new]
        if len(runs) < limit and len(executions) < LOOKED_AT:
            known = {run.run_id for run in runs}
            runs += [run for run in self.recorded(limit) if run.run_id not in known]
        return runs[:limit]

    def described(self, executions: Sequence[Mapping[str, Any]]) -> list[Run]:
        """Executions with what their jobs have recorded."""
        ended = [one["name"] for one in executions if one["status"] == "SUCCEEDED"]
        recorded = {run.run_id: run for run in self._recorded(ended)} if ended else {}
        return [
            Run(
                one["name"],
                one["status"],
                one["startDate"],
                one.get("stopDate"),
                recorded[one["name"]].operation if one["name"] in recorded else "load",
                recorded[one["name"]].summary if one["name"] in recorded else {},
            )
            for one in executions
        ]

    def recorded(self, limit: int = PAGE, offset: int = 0) -> list[Run]:
        """A page of etl_runs, newest first."""
        return self._runs(f"ORDER BY started_at DESC OFFSET {offset} LIMIT {limit}")

    def _recorded(self, run_ids: Sequence[str]) -> list[Run]:
        return self._runs(f"WHERE {one_of('run_id', run_ids)}")

    def _runs(self, rest: str) -> list[Run]:
        answer = self.ask(
            "SELECT run_id, operation, status, CAST(started_at AS varchar) AS started_at, "
            f"CAST(finished_at AS varchar) AS finished_at, summary FROM etl_runs {rest}"
        )
        return [
            Run(
                one["run_id"] or "",
                one["status"] or "",
                moment(one["started_at"]),
                moment(one["finished_at"]),
                one["operation"] or "load",
                json.loads(one["summary"] or "{}"),
            )
            for one in answer.records()
        ]

    def runs_recorded(self) -> int:
        """How many runs etl_runs holds."""
        return number(self.ask("SELECT count(*) AS n FROM etl_runs"))

    def run(self, run_id: str) -> Run | None:
        """One run by its id; None where nobody knows it."""
        summary = self.record(run_id, "summary.json") or {}
        operation = str((summary.get("operation") or {}).get("name") or "load")
        try:
            told = self.place.clients["stepfunctions"].describe_execution(
                executionArn=self.arn(run_id)
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("ExecutionDoesNotExist", "InvalidArn"):
                raise
            if not summary:
                return None
            times = (moment(summary.get("started_at")), moment(summary.get("finished_at")))
            return Run(run_id, str(summary.get("status")), *times, operation, summary)
        asked = json.loads(told.get("input") or "{}")
        if isinstance(asked, dict) and not summary:
            operation = str(asked.get("operation") or "load")
        times = (told["startDate"], told.get("stopDate"))
        return Run(run_id, told["status"], *times, operation, summary)

    def record(self, run_id: str, name: str) -> Any:
        """One of a run's files as JSON: summary.json, cost.json, operation.json; None where there
        is none."""
        body = self._object(self.place.lake_bucket, f"{RUNS}{run_id}/{name}", RECORD_BYTES)
        return None if body is None else json.loads(body)

    def manifest(self, run_id: str) -> list[dict[str, Any]]:
        """The files that a run listed; of a very long list the first."""
        key = f"{RUNS}{run_id}/manifest.jsonl"
        body = self._object(self.place.lake_bucket, key, MANIFEST_BYTES)
        lines = (body or b"").decode("utf-8", "replace").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def history(self, run_id: str) -> list[dict[str, Any]]:
        """The events of a run's execution, oldest first; none where AWS has forgotten it."""
        events: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while len(events) < EVENTS:
            try:
                page = self.place.clients["stepfunctions"].get_execution_history(
                    executionArn=self.arn(run_id), includeExecutionData=True, **token
                )
            except ClientError as error:
                if error.response["Error"]["Code"] != "ExecutionDoesNotExist":
                    raise
                return []
            events += page["events"]
            if not page.get("nextToken"):
                break
            token = {"nextToken": page["nextToken"]}
        return events

    @property
    def machine(self) -> dict[str, Any]:
        """The state machine's definition."""
        return self.memory.get("machine", self._machine)

    def _machine(self) -> dict[str, Any]:
        told = self.place.clients["stepfunctions"].describe_state_machine(
            stateMachineArn=self.place.state_machine
        )
        return json.loads(told["definition"])

    @property
    def knows_operations(self) -> bool:
        """Whether the state machine hands operations to the job; an older one would load."""
        return "--OPERATION" in json.dumps(self.machine)

    def job_lines(self, run_id: str, history: Sequence[Mapping[str, Any]]) -> list[str]:
        """What the job has printed so far, as its log has it; nothing where there is no log."""
        glue_run = next((one for event in history if (one := job_run_of(event))), None)
        if glue_run is None:
            return []
        try:
            page = self.place.clients["logs"].get_log_events(
                logGroupName=self.place.job_log, logStreamName=glue_run, startFromHead=True
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            return []
        lines = [event["message"].rstrip() for event in page["events"]]
        return [line for line in lines if f"[{run_id}]" in line]

    # Home ---------------------------------------------------------------------------------------

    def attention(self, runs: Sequence[Run]) -> list[Attention]:
        """What waits for a person, the most urgent first. `runs` are the newest."""
        found = [
            Attention(
                "failed",
                f"Run {run.status.replace('_', ' ').lower()}",
                1,
                run.started,
                {"page": "/run", "run": run.run_id},
            )
            for run in runs
            if run.failed
        ]
        return [*found, *self._files_aside(), *self._open_rejects()]

    def _open_rejects(self) -> Iterator[Attention]:
        answer = self.ask(
            "SELECT status, dataset, reason, count(*) AS n, "
            "CAST(min(file_modified) AS varchar) AS since "
            "FROM rejected_records CROSS JOIN UNNEST(reasons) AS t (reason) "
            "WHERE status IN ('rejected', 'parked') GROUP BY status, dataset, reason "
            "ORDER BY status DESC, n DESC LIMIT 40"
        )
        for one in answer.records():
            keys = ("status", "dataset", "reason")
            link = {"page": "/rejects", **{name: one[name] or "" for name in keys}}
            title = f"{one['dataset']}: {one['reason']}"
            count, since = int(one["n"] or 0), moment(one["since"])
            yield Attention(one["status"] or "", title, count, since, link)

    def _files_aside(self) -> Iterator[Attention]:
        answer = self.ask(
            "SELECT file_path, max_by(reason, ingested_at) AS reason, "
            "CAST(max(ingested_at) AS varchar) AS since FROM ingested_files GROUP BY file_path "
            "HAVING max_by(outcome, ingested_at) IN ('set_aside', 'unreadable') "
            "ORDER BY since DESC LIMIT 20"
        )
        for one in answer.records():
            path = one["file_path"] or ""
            title = f"{path}: {one['reason']}"
            link = {"page": "/file", "path": path}
            yield Attention("set_aside", title, 1, moment(one["since"]), link)

    def table_cards(self, runs: Sequence[Run]) -> list[dict[str, Any]]:
        """Of each table: rows, version, when it last changed and in which run."""
        complete = [run for run in runs if run.summary.get("tables")]
        cards = []
        for dataset in DATASETS:
            name = table_of(dataset).name
            states = [(run, run.summary["tables"].get(name)) for run in complete]
            known = [(run, state) for run, state in states if state and state.get("rows")]
            rows = known[0][1]["rows"] if known else 0
            changed = next((run for run, state in known if state.get("files_added")), None)
            cards.append(
                {
                    "dataset": dataset,
                    "table": name,
                    "rows": rows,
                    "version": known[0][1]["version"] if known else None,
                    "changed": changed.ended if changed else None,
                    "run": changed.run_id if changed else None,
                }
            )
        return cards

    # Files --------------------------------------------------------------------------------------

    def files_of(self, run_id: str, paths: Sequence[str]) -> dict[str, dict[str, str | None]]:
        """The ledger's line of each of a run's files."""
        if not paths:
            return {}
        answer = self.ask(
            f"SELECT file_path, outcome, reason, rows_read, {', '.join(OUTCOMES)} "
            f"FROM ingested_files WHERE run_id = {literal(run_id)} AND "
            f"{one_of('file_path', paths)}"
        )
        return {one["file_path"] or "": one for one in answer.records()}

    def file_versions(self, path: str) -> list[dict[str, str | None]]:
        """The ledger's lines of a path, newest first."""
        answer = self.ask(
            "SELECT run_id, dataset, file_path, file_digest, file_size, "
            "CAST(file_modified AS varchar) AS file_modified, outcome, reason, rows_read, "
            f"{', '.join(OUTCOMES)}, CAST(ingested_at AS varchar) AS ingested_at "
            f"FROM ingested_files WHERE file_path = {literal(path)} "
            f"ORDER BY ingested_at DESC LIMIT {PAGE}"
        )
        return answer.records()

    def files(self, text: str = "", outcome: str = "", offset: int = 0) -> list[dict[str, Any]]:
        """A page of the ledger, newest first; one file more than a page where there is another."""
        parts = [containing("file_path", text)] if text else []
        parts += [f"outcome = {literal(outcome)}"] if outcome else []
        answer = self.ask(
            "SELECT run_id, dataset, file_path, file_size, outcome, reason, rows_read, "
            f"{', '.join(OUTCOMES)}, CAST(ingested_at AS varchar) AS ingested_at "
            f"FROM ingested_files WHERE {' AND '.join(parts) or 'true'} "
            f"ORDER BY ingested_at DESC, file_path OFFSET {offset} LIMIT {PAGE + 1}"
        )
        return answer.records()

    def places_of(self, path: str, run_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Where a file lies now: the raw zone, the archive of a run, or among the files set
        aside."""
        place = self.place
        wanted = [("raw zone", place.raw_bucket, place.raw_prefix + path, "")]
        for run_id in run_ids:
            below = f"run={run_id}/{path}"
            wanted.append(("archive", place.archive_bucket, place.archive_prefix + below, run_id))
            wanted.append(("set aside", place.lake_bucket, f"{REJECTED}files/{below}", run_id))
        found = []
        for kind, bucket, key, run_id in wanted:
            head = self._head(bucket, key)
            if head:
                place_of_run = {"kind": kind, "bucket": bucket, "key": key, "run_id": run_id}
                found.append({**place_of_run, **head})
        return found

    def preview(self, bucket: str, key: str) -> list[str]:
        """The first lines of a file, unpacked where it is packed."""
        body = self._object(bucket, key, PREVIEW_BYTES) or b""
        if key.lower().endswith(".gz"):
            try:
                with gzip.open(io.BytesIO(body)) as stream:
                    body = b"".join(chunks(stream))
            except (OSError, zlib.error) as error:
                return [f"(this gzip file cannot be unpacked: {error})"]
        return body.decode("utf-8-sig", "replace").splitlines()

    def rejected_lines(self, path: str, digest: str = "") -> dict[int, list[str]]:
        """Line -> reasons, of the rejected rows of a file or of one version; of many the first."""
        version = f" AND file_digest = {literal(digest)}" if digest else ""
        answer = self.ask(
            "SELECT line, json_format(CAST(reasons AS JSON)) AS reasons FROM rejected_records "
            f"WHERE file_path = {literal(path)}{version} ORDER BY line LIMIT 1000"
        )
        return {int(line or 0): json.loads(reasons or "[]") for line, reasons in answer.rows}

    # History ------------------------------------------------------------------------------------

    def history_of_key(self, table: str, key: str) -> History:
        """Return each version of a key. It reads S3 itself, and starts no execution."""
        place = self.place
        files = LakeFiles.of_deployment(place.session, place.outputs, place.endpoint)
        return history.of_key(files, table, key)

    # Rejects ------------------------------------------------------------------------------------

    def rejects(self, filters: Filters, offset: int = 0, limit: int = PAGE) -> list[dict[str, Any]]:
        """A page of rejected and parked rows: by file and line, `reasons` a list and `fields` a
        mapping, which is None where the row has not the header's number of fields."""
        answer = self.ask(
            f"SELECT {REJECT_COLUMNS} FROM (SELECT * FROM rejected_records WHERE {filters.where()} "
            f"ORDER BY file_path, line, file_digest OFFSET {offset} LIMIT {limit}) "
            "ORDER BY file_path, line, file_digest"  # what is costly only for the page's rows
        )
        return [
            {
                **one,
                "reasons": json.loads(one["reasons"] or "[]") or [],
                "fields": json.loads(one["fields"] or "null"),
                "line": int(one["line"] or 0),
            }
            for one in answer.records()
        ]

    def count_rejects(self, filters: Filters) -> int:
        sql = f"SELECT count(*) AS n FROM rejected_records WHERE {filters.where()}"
        return number(self.ask(sql))

    def reject_choices(self) -> dict[str, dict[str, int]]:
        """What can be chosen in the filters, each with its number of rows."""
        answer = self.ask(
            "SELECT dataset, status, reason, count(*) AS n FROM rejected_records "
            "CROSS JOIN UNNEST(reasons) AS t (reason) GROUP BY dataset, status, reason"
        )
        choices: dict[str, dict[str, int]] = {"dataset": {}, "status": {}, "reason": {}}
        for one in answer.records():
            for name, counts in choices.items():
                value = one[name] or ""
                counts[value] = counts.get(value, 0) + int(one["n"] or 0)
        return choices

    def header_of(self, path: str, run_id: str) -> str:
        """A file's first line, from wherever the file is now; empty where it is nowhere."""
        for found in self.places_of(path, [run_id]):
            lines = self.preview(found["bucket"], found["key"])
            if lines:
                return lines[0]
        return ""

    # Keys ---------------------------------------------------------------------------------------

    def row_of(self, dataset: str, key: str) -> dict[str, str | None] | None:
        """The row that the table holds for a key."""
        table = table_of(dataset)
        columns = ", ".join(
            f"CAST({name} AS varchar) AS {name}" if name == table.version else name
            for name in table.column_names
        )
        answer = self.ask(
            f"SELECT {columns} FROM {table.name} WHERE {table.key} = {literal(key)} LIMIT 1"
        )
        return answer.records()[0] if answer.rows else None

    def rejects_of_key(self, dataset: str, key: str) -> list[dict[str, Any]]:
        """The rows of a key that were rejected, parked or settled, oldest first."""
        answer = self.ask(
            f"SELECT {REJECT_COLUMNS} FROM rejected_records WHERE dataset = {literal(dataset)} "
            f"AND record_key = {literal(key)} ORDER BY file_modified, line LIMIT {PAGE}"
        )
        return [{**one, "reasons": json.loads(one["reasons"] or "[]")} for one in answer.records()]

    # Tables -------------------------------------------------------------------------------------

    def versions(self, table: str, limit: int = PAGE) -> list[dict[str, Any]]:
        """What the newest runs did to a table, newest first."""
        found = []
        for run in self.recorded(limit):
            state = run.summary.get("tables", {}).get(table)
            if state:
                found.append({"run": run, **state})
        return found

    def partitions(self, dataset: str) -> list[dict[str, Any]]:
        """Each partition of a table with its rows, files and bytes, newest first; a table without
        partitions is one."""
        table = table_of(dataset)
        column = f"CAST({table.partition} AS varchar)" if table.partition else "''"
        answer = self.ask(
            f'SELECT {column} AS part, "$path" AS path, count(*) AS n FROM {table.name} '
            "GROUP BY 1, 2 ORDER BY 1 DESC LIMIT 10000"
        )
        prefix = f"{DWH}{table.name}/"
        sizes = self._sizes(prefix) if answer.rows else {}
        parts: dict[str, dict[str, Any]] = {}
        for part, path, rows in answer.rows:
            name = part or ""
            one = parts.setdefault(name, {"part": name, "rows": 0, "files": 0, "bytes": 0})
            one["rows"] += int(rows or 0)
            one["files"] += 1
            one["bytes"] += sizes.get((path or "").partition(prefix)[2], 0)
        return list(parts.values())

    def _sizes(self, prefix: str) -> dict[str, int]:
        """Path below a prefix of the lake -> bytes."""
        pages = (
            self.place.clients["s3"]
            .get_paginator("list_objects_v2")
            .paginate(Bucket=self.place.lake_bucket, Prefix=prefix)
        )
        return {
            item["Key"].removeprefix(prefix): item["Size"]
            for page in pages
            for item in page.get("Contents", [])
        }

    # Objects ------------------------------------------------------------------------------------

    def _object(self, bucket: str, key: str, limit: int) -> bytes | None:
        """The first bytes of an object; None where it is not there."""
        try:
            body = self.place.clients["s3"].get_object(Bucket=bucket, Key=key)["Body"]
        except ClientError as error:
            if error.response["Error"]["Code"] not in MISSING:
                raise
            return None
        with body:
            return body.read(limit)

    def _head(self, bucket: str, key: str) -> dict[str, Any] | None:
        try:
            head = self.place.clients["s3"].head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] not in MISSING:
                raise
            return None
        size, modified = head["ContentLength"], head["LastModified"]
        return {"size": size, "modified": modified}


# --------------------------------------------------------------------------------------------------
# Reading what the services say
# --------------------------------------------------------------------------------------------------
def chunks(stream: Any) -> Iterator[bytes]:
    """The first bytes of a stream, also where it was cut off."""
    left = PREVIEW_BYTES
    while left > 0:
        try:
            chunk = stream.read(min(left, 1 << 16))
        except EOFError:
            return
        if not chunk:
            return
        left -= len(chunk)
        yield chunk


def number(answer: Answer) -> int:
    """The one number that a query has returned; 0 where its table is not there."""
    return int(answer.rows[0][0] or 0) if answer.rows else 0


def moment(text: str | None) -> dt.datetime | None:
    """A time as Athena or a summary writes it: `2025-04-01 10:00:00.000 UTC`."""
    if not text:
        return None
    plain = text.replace(" UTC", "+00:00").replace("Z", "+00:00")
    try:
        found = dt.datetime.fromisoformat(plain)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def messages(history: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What the run has told the operators: subject and text of each message."""
    found = []
    for event in history:
        told = event.get("taskScheduledEventDetails") or {}
        if told.get("resourceType") == "sns":
            asked = json.loads(told.get("parameters") or "{}")
            found.append(
                {
                    "subject": str(asked.get("Subject", "")),
                    "message": str(asked.get("Message", "")),
                }
            )
    return found


def causes(run: Run, history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why a run failed, the job's own words first."""
    found = [str(run.summary["error"])] if run.summary.get("error") else []
    for name, state in graph.runs_of(history).items():
        if state.error and not any(one in state.error for one in found):
            found.append(f"{name}: {in_words(state.error)}")
    return found


def in_words(error: str) -> str:
    """An error without the description of the Glue run in which it comes."""
    head, brace, rest = error.partition("{")
    try:
        told = json.loads(brace + rest)
    except ValueError:
        return error
    message = told.get("ErrorMessage") if isinstance(told, dict) else None
    return head + str(message) if message else error


def job_run_of(event: Mapping[str, Any]) -> str | None:
    """The id of the Glue run that an event tells of."""
    told = event.get("taskSubmittedEventDetails") or {}
    if told.get("resourceType") != "glue":
        return None
    output = json.loads(told.get("output") or "{}")
    return output.get("JobRunId")


def visits(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each visit of a state that has begun, in their order: name, start and seconds, which are None
    while it lasts."""
    found: list[dict[str, Any]] = []
    for event in history:
        entered, left = event.get("stateEnteredEventDetails"), event.get("stateExitedEventDetails")
        if entered:
            found.append({"name": entered["name"], "start": event["timestamp"], "seconds": None})
        elif left:
            for one in reversed(found):
                if one["name"] == left["name"] and one["seconds"] is None:
                    one["seconds"] = (event["timestamp"] - one["start"]).total_seconds()
                    break
    return found
