"""Read delivered rows of a key from the archived files, by the rules of the package `rules`."""

from __future__ import annotations

import datetime as dt
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.dataset as ds

from client.lake import Lake, Row
from rules import CheckedRow, SetAside, open_file
from rules.paths import dataset_of
from rules.tables import KEY

EXPONENT = re.compile(r"[0-9]\.?[eE]\+?[0-9]")  # such a number is written unlike its key


@dataclass(frozen=True)
class Delivery:
    """A valid row of a delivered file: its place, and its values and texts by column."""

    run_id: str
    file: str
    line: int
    values: Mapping[str, Any]
    texts: Mapping[str, str | None]

    def equals(self, row: Row | None) -> bool:
        """Return whether it has the values of a row of the table."""
        return row is not None and all(row[name] == value for name, value in self.values.items())


def deliveries_of_key(lake: Lake, dataset: str, key: str, run_ids: set[str]) -> list[Delivery]:
    """Return the rows of a key in the archived files that some runs have loaded, by delivery."""
    if not run_ids:
        return []
    ledger = lake.rows("ingested_files", ds.field("run_id").isin(sorted(run_ids)))
    loaded = {(row["file_path"], row["file_size"], second(row["file_modified"])) for row in ledger}
    lines: dict[tuple[Any, ...], Row] = {}
    for line in lake.manifest():
        version = (line["path"], line["size"], line["last_modified"][:19])
        by_run = line["run_id"] in run_ids and line["outcome"] == "loaded"
        if dataset_of(line["path"]) == dataset and line["destination"] != "raw":
            if by_run or version in loaded:  # a replay has loaded what another run archived
                lines.setdefault(version, line)
    contents = lake.read([lake.destination(line) for line in lines.values()])
    return [
        delivery
        for line, content in zip(lines.values(), contents, strict=True)
        if content is not None
        for delivery in rows_of_key(content, line, dataset, key)
    ]


def second(moment: dt.datetime) -> str:
    """Return a moment in UTC as manifests write it, to the second."""
    return moment.astimezone(dt.UTC).isoformat()[:19]


def rows_of_key(content: bytes, line: Row, dataset: str, key: str) -> Iterator[Delivery]:
    """Yield the valid rows of a key in a file, given its bytes and its line of a manifest."""
    delivered = dt.datetime.fromisoformat(line["last_modified"][:19])
    text = key.encode().decode("latin-1")  # as a record has it
    try:
        reading = open_file(line["path"], io.BytesIO(content), delivered)
        for row in reading.rows(lambda raw: text in raw or EXPONENT.search(raw) is not None):
            if not row.reasons and row.values[KEY[dataset]] == key:
                yield delivery_of(row, line)
    except SetAside:
        return


def delivery_of(row: CheckedRow, line: Row) -> Delivery:
    values = {
        name: value.replace(tzinfo=dt.UTC) if isinstance(value, dt.datetime) else value
        for name, value in row.values.items()
    }
    return Delivery(line["run_id"], line["path"], row.line, values, row.texts or {})
