"""A small lake in a folder, written without Spark: tables, manifests and archived files."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, write_deltalake

import glue_etl
from tests.arrow import schema_of

Row = dict[str, Any]
NOON = dt.datetime(2025, 5, 1, 12, tzinfo=dt.UTC)


def order(key: str, amount: float | None, when: str = "2025-04-01T10:00:00") -> Row:
    """Return a row of clean_orders."""
    moment = dt.datetime.fromisoformat(when).replace(tzinfo=dt.UTC)
    values = {"order_num": "1", "order_id": key, "user_id": "u1", "order_timestamp": moment}
    return values | {"total_amount": amount, "date": moment.date()}


class SmallLake:
    """The lake; each call of a method is one commit or one object."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.minutes = folder, 0
        self.schemas = {table.name: schema_of(table.ddl) for table in glue_etl.TABLES}
        self.schemas |= {name: schema_of(ddl) for name, ddl in glue_etl.JOB_TABLES.items()}

    def path(self, table: str) -> Path:
        below = "rejected" if table == "rejected_records" else "lakehouse-dwh"
        return self.folder / below / table

    def write(self, table: str, rows: Sequence[Row], run_id: str, mode: Any = "append") -> None:
        """Commit rows with the stamp of a run; columns that a row lacks are NULL."""
        partition = {"clean_orders": ["date"], "rejected_records": ["status"]}.get(table)
        stamp = {"userMetadata": json.dumps({"run_id": run_id})}
        write_deltalake(
            str(self.path(table)),
            pa.Table.from_pylist(list(rows), self.schemas[table]),
            mode=mode,
            partition_by=partition,
            commit_properties=CommitProperties(custom_metadata=stamp),
        )

    def orders(self, run_id: str, *rows: Row) -> None:
        """Commit the whole content of clean_orders."""
        self.write("clean_orders", rows, run_id, "overwrite")

    def run(self, run_id: str, name: str = "load", **summary: Any) -> None:
        """Record a run as ended, a minute after the one before."""
        self.minutes += 1
        ended = NOON + dt.timedelta(minutes=self.minutes)
        counts = {"rows_read": 1, "inserted": 1, "updated": 0, "unchanged": 0, "superseded": 0}
        counts |= {"rejected": 0, "parked": 0}
        zeros = dict.fromkeys(counts, 0)
        whole = {"files": {"loaded": 1}, "datasets": {"orders": counts, "products": zeros}}
        row = {
            "run_id": run_id,
            "operation": name,
            "started_at": ended,
            "finished_at": ended,
            "summary": json.dumps(whole | summary),
            "table_versions": [("clean_orders", self.minutes)],
        }
        self.write("etl_runs", [row], run_id)

    def operation(self, run_id: str, name: str, text: str, **plan: Any) -> None:
        summary = {"name": name, "author": "ann", "text": text, "plan": plan}
        self.run(run_id, name, operation=summary, files={})

    def file(
        self,
        run_id: str,
        path: str,
        content: bytes | str = b"",
        outcome: str = "loaded",
        destination: str = "archive",
        ledger: bool = True,
        **fields: Any,
    ) -> None:
        """Put a file where a run leaves it, into the run's manifest and into the ledger."""
        body = content.encode() if isinstance(content, str) else content
        modified = NOON + dt.timedelta(seconds=len(path))
        line = {"path": path, "size": len(body), "last_modified": modified.isoformat()}
        line |= {"outcome": outcome, "destination": destination, "rows_read": 1}
        line |= {"reason": None, "detail": None, **fields}
        manifest = self.folder / "runs" / run_id / "manifest.jsonl"
        manifest.parent.mkdir(parents=True, exist_ok=True)
        with manifest.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
        below = {"archive": "archived", "rejected": "rejected/files", "raw": "raw"}[destination]
        home = self.folder / below / ("" if destination == "raw" else f"run={run_id}") / path
        home.parent.mkdir(parents=True, exist_ok=True)
        home.write_bytes(body)
        if ledger:
            self.ledger(run_id, path, len(body), modified, outcome)

    def ledger(
        self, run_id: str, path: str, size: int, modified: dt.datetime, outcome: str = "loaded"
    ) -> None:
        row = {"run_id": run_id, "file_path": path, "file_size": size, "file_modified": modified}
        self.write("ingested_files", [row | {"outcome": outcome}], run_id)

    def reject(self, run_id: str, path: str, line: int, key: str, **values: Any) -> None:
        row = {"run_id": run_id, "dataset": "orders", "status": "rejected", "record_key": key}
        row |= {"reasons": ["invalid_total_amount"], "file_path": path, "line": line, "raw": "x"}
        self.write("rejected_records", [row | values], run_id)

    def files_of(self, table: str, pattern: str) -> Mapping[str, Path]:
        return {path.name: path for path in sorted(self.path(table).rglob(pattern))}
