"""The tables: rows, versions, partitions, and the history of a key."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from client import history
from client.declared import DATASETS, table_of
from client.history import History
from console.athena import literal
from console.data.runs import MAINTENANCE, Runs
from console.data.source import PAGE, Source, moment, number

CHANGES = 500  # runs to search for the last change of a table


class Tables:
    """The tables of the lake, read by Athena, from the summaries of runs, and from their logs."""

    def __init__(self, source: Source, runs: Runs) -> None:
        self.source, self.runs = source, runs

    def cards(self) -> list[dict[str, Any]]:
        """Return for each table its number of rows, and the time and the run of its last change."""
        names = [table_of(dataset).name for dataset in DATASETS]
        changes = self._last_changes()
        with ThreadPoolExecutor(len(names)) as pool:
            counts = list(pool.map(self._count, names))
        cards = []
        for name, rows in zip(names, counts, strict=True):
            run_id, changed = changes.get(name, ("", ""))
            cards.append({"table": name, "rows": rows, "changed": moment(changed), "run": run_id})
        return cards

    def _count(self, table: str) -> int:
        return number(self.source.ask(f"SELECT count(*) AS n FROM {table}"))

    def _last_changes(self) -> dict[str, tuple[str, str]]:
        """Return table -> id and end of the last run that changed its version. Maintenance is
        skipped, because it changes no row."""
        answer = self.source.ask(
            "SELECT run_id, operation, CAST(finished_at AS varchar) AS finished_at, "
            "json_format(CAST(table_versions AS JSON)) AS versions "
            f"FROM etl_runs ORDER BY finished_at DESC LIMIT {CHANGES}"
        )
        runs: list[dict[str, Any]] = [
            {**row, "versions": json.loads(row["versions"] or "{}")} for row in answer.records()
        ]
        changes: dict[str, tuple[str, str]] = {}
        older = [run["versions"] for run in runs[1:]] + [{}]
        for run, before in zip(runs, older, strict=False):  # `older` is longer if there are none
            for name, version in run["versions"].items():
                changed = version != before.get(name)
                if changed and run["operation"] not in MAINTENANCE:
                    changes.setdefault(name, (str(run["run_id"]), str(run["finished_at"])))
        return changes

    def row(self, dataset: str, key: str) -> dict[str, str | None] | None:
        """Return the row that the table holds for a key, or None."""
        table = table_of(dataset)
        columns = ", ".join(
            f"CAST({name} AS varchar) AS {name}" if name == table.version else name
            for name in table.column_names
        )
        answer = self.source.ask(
            f"SELECT {columns} FROM {table.name} WHERE {table.key} = {literal(key)} LIMIT 1"
        )
        return answer.records()[0] if answer.rows else None

    def versions(self, table: str, limit: int = PAGE) -> list[dict[str, Any]]:
        """Return the changes of a table by the newest `limit` runs, newest first."""
        runs = [
            (run, run.summary.get("tables", {}).get(table)) for run in self.runs.recorded(limit)
        ]
        return [
            {"run": run, **state}
            for run, state in runs
            if state and state.get("files_added", 0) + state.get("files_removed", 0)
        ]

    def partitions(self, table: str) -> list[dict[str, Any]]:
        """Return the partitions of a table with rows, files and bytes, newest first. A table
        without partitions has a single one."""
        return self.source.memory.get(("partitions", table), lambda: self._partitions(table))

    def _partitions(self, table: str) -> list[dict[str, Any]]:
        """Read the partitions from the table's log: Athena documents no query for the files of a
        Delta table."""
        partitions: dict[str, dict[str, Any]] = {}
        for file in self.source.place.lake().data_files(table):
            values = [file[column] for column in file if column.startswith("partition.")]
            name = ", ".join(str(value) for value in values if value is not None)
            empty = {"part": name, "rows": 0, "files": 0, "bytes": 0}
            partition = partitions.setdefault(name, empty)
            partition["rows"] += file["num_records"] or 0
            partition["files"] += 1
            partition["bytes"] += file["size_bytes"]
        return sorted(
            partitions.values(), key=lambda partition: str(partition["part"]), reverse=True
        )

    def history_of_key(self, table: str, key: str) -> History:
        """Return each version of a key. Read S3 directly; start no execution."""
        return history.of_key(self.source.place.lake(), table, key)
