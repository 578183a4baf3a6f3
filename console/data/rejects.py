"""Rejected and parked rows, and filters for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from console.athena import containing, in_list, literal
from console.data.source import PAGE, Source, number

# Groups of statuses: rejected or parked; every status; superseded or admitted
OPEN, ANY, CORRECTED = "open", "any", "corrected"
STATUSES = {OPEN: ("rejected", "parked"), CORRECTED: ("superseded", "admitted")}
TO_FIX = 100_000  # rows of one download
GROUPS = 200  # dataset and reason
COLUMNS = (
    "run_id, dataset, status, json_format(CAST(reasons AS JSON)) AS reasons, record_key, order_id, "
    "product_id, file_path, file_digest, file_size, "
    "CAST(file_modified AS varchar) AS file_modified, line, raw, "
    "json_format(CAST(fields AS JSON)) AS fields, resolved_run_id, author, why"
)


@dataclass(frozen=True)
class Filters:
    """A selection of rows of rejected_records. An empty text selects all rows; a status may be a
    group of statuses: OPEN, CORRECTED, ANY."""

    dataset: str = ""
    status: str = ""
    reason: str = ""
    run: str = ""
    file: str = ""
    text: str = ""

    def where(self) -> str:
        """Return the condition in SQL."""
        named = {"dataset": self.dataset, "status": self.status, "run_id": self.run}
        words = ("", ANY, *STATUSES)
        parts = [
            f"{name} = {literal(value)}" for name, value in named.items() if value not in words
        ]
        if self.status in STATUSES:
            parts.append(in_list("status", STATUSES[self.status]))
        if self.file:
            parts.append(f"file_path = {literal(self.file)}")
        if self.reason:
            parts.append(f"contains(reasons, {literal(self.reason)})")
        if self.text:
            parts.append(f"({containing('raw', self.text)} OR record_key = {literal(self.text)})")
        return " AND ".join(parts) or "true"

    def request(self) -> dict[str, Any]:
        """Return the filters in the form of the operation `replay`, which has none for a text."""
        named = {
            "datasets": self.dataset,
            "statuses": self.status,
            "reasons": self.reason,
            "runs": self.run,
            "files": self.file,
        }
        words = ("", ANY, *STATUSES)
        return {name: [value] for name, value in named.items() if value not in words}

    @property
    def narrow(self) -> bool:
        """Return whether the page lists rows; else it lists groups of them."""
        return bool(self.reason or self.file or self.text or self.run)


def parsed(row: Mapping[str, str | None]) -> dict[str, Any]:
    """Return a row with its reasons as a list and its fields as a mapping or None."""
    return {
        **row,
        "reasons": json.loads(row["reasons"] or "[]") or [],
        "fields": json.loads(row["fields"] or "null"),
        "line": int(row["line"] or 0),
    }


class Rejects:
    """The rows of rejected_records."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def page(self, filters: Filters, offset: int = 0, limit: int = PAGE) -> list[dict[str, Any]]:
        """Return a page of rows by file and line. `reasons` is a list; `fields` is a mapping, or
        None if the row does not have the header's number of fields."""
        answer = self.source.ask(
            f"SELECT {COLUMNS} FROM (SELECT * FROM rejected_records WHERE {filters.where()} "
            f"ORDER BY file_path, line, file_digest OFFSET {offset} LIMIT {limit}) "
            "ORDER BY file_path, line, file_digest"  # so that JSON is formatted for these rows only
        )
        return [parsed(row) for row in answer.records()]

    def to_fix(self, filters: Filters) -> list[dict[str, Any]]:
        """Return the rows that a person can fix, by file and line: rejected rows, unless the
        filters name another status. They are not cached."""
        status = "rejected" if filters.status in ("", ANY, OPEN) else filters.status
        where = replace(filters, status=status).where()
        answer = self.source.athena.ask(
            f"SELECT {COLUMNS} FROM rejected_records WHERE {where} "
            f"ORDER BY dataset, file_modified, file_path, line LIMIT {TO_FIX}",
            TO_FIX,
        )
        return [parsed(row) for row in answer.records()]

    def groups(self, filters: Filters) -> list[dict[str, Any]]:
        """Return the groups of rows by dataset and reason, largest first: number of rows (`n`) and
        of files, and two examples. A row with two reasons is in two groups."""
        answer = self.source.ask(
            "SELECT dataset, reason, count(*) AS n, count(DISTINCT file_path) AS files, "
            "min(raw) AS first, max(raw) AS last FROM rejected_records "
            f"CROSS JOIN UNNEST(reasons) AS t (reason) WHERE {filters.where()} "
            f"GROUP BY dataset, reason ORDER BY n DESC, dataset, reason LIMIT {GROUPS}"
        )
        return [
            {**row, "n": int(row["n"] or 0), "files": int(row["files"] or 0)}
            for row in answer.records()
        ]

    def count(self, filters: Filters) -> int:
        sql = f"SELECT count(*) AS n FROM rejected_records WHERE {filters.where()}"
        return number(self.source.ask(sql))

    def choices(self) -> dict[str, dict[str, int]]:
        """Return dataset, status and reason -> value -> number of rows, for the filters."""
        answer = self.source.ask(
            "SELECT dataset, status, reason, count(*) AS n FROM rejected_records "
            "CROSS JOIN UNNEST(reasons) AS t (reason) GROUP BY dataset, status, reason"
        )
        choices: dict[str, dict[str, int]] = {"dataset": {}, "status": {}, "reason": {}}
        for row in answer.records():
            for name, counts in choices.items():
                value = row[name] or ""
                counts[value] = counts.get(value, 0) + int(row["n"] or 0)
        return choices

    def open_by_reason(self) -> list[dict[str, str | None]]:
        """Return the open rows by status, dataset and reason: their number and oldest delivery."""
        answer = self.source.ask(
            "SELECT status, dataset, reason, count(*) AS n, "
            "CAST(min(file_modified) AS varchar) AS since "
            "FROM rejected_records CROSS JOIN UNNEST(reasons) AS t (reason) "
            "WHERE status IN ('rejected', 'parked') GROUP BY status, dataset, reason "
            "ORDER BY status DESC, n DESC LIMIT 40"
        )
        return answer.records()

    def of_file(self, path: str, digest: str, first: int, last: int) -> dict[int, list[str]]:
        """Return line -> reasons for the lines from `first` to `last` of a version of a file."""
        answer = self.source.ask(
            "SELECT line, json_format(CAST(reasons AS JSON)) AS reasons FROM rejected_records "
            f"WHERE file_path = {literal(path)} AND file_digest = {literal(digest)} "
            f"AND line BETWEEN {int(first)} AND {int(last)} ORDER BY line"
        )
        return {int(line or 0): json.loads(reasons or "[]") for line, reasons in answer.rows}

    def of_key(self, dataset: str, key: str) -> list[dict[str, Any]]:
        """Return the rejects of a key, open and settled, oldest first."""
        answer = self.source.ask(
            f"SELECT {COLUMNS} FROM rejected_records WHERE dataset = {literal(dataset)} "
            f"AND record_key = {literal(key)} ORDER BY file_modified, line LIMIT {PAGE}"
        )
        return [{**row, "reasons": json.loads(row["reasons"] or "[]")} for row in answer.records()]
