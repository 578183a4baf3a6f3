"""Read delivered rows of a key from the archived files, with their file and line.

The rules are those of the job as far as plain Python needs them to recognize a row of a table; a
row that is not recognized has no file and line in the history.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow.dataset as ds

import glue_etl
from tools.lake import Lake, Row

DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Delivery:
    """A row of a delivered file: its place, and its cells as they are written there, by column."""

    run_id: str
    file: str
    line: int
    cells: Mapping[str, str]

    def equals(self, table: Any, row: Row | None) -> bool:
        """Return whether it has the values of a row of the table."""
        if row is None:
            return False
        cells = {column: self.cells.get(column.name, "").strip() for column in table.columns}
        return all(
            value_of(column, cell) == row[column.name]
            for column, cell in cells.items()
            if cell or column.type != "DATE"  # a blank date is taken from the timestamp
        )


def deliveries_of_key(lake: Lake, table: Any, key: str, run_ids: set[str]) -> list[Delivery]:
    """Return the rows of a key in the archived files that some runs have loaded, by delivery."""
    if not run_ids:
        return []
    ledger = lake.rows("ingested_files", ds.field("run_id").isin(sorted(run_ids)))
    loaded = {(row["file_path"], row["file_size"], second(row["file_modified"])) for row in ledger}
    dataset_of = glue_etl.dataset_of
    lines: dict[tuple[Any, ...], Row] = {}
    for line in lake.manifest():
        version = (line["path"], line["size"], line["last_modified"][:19])
        by_run = line["run_id"] in run_ids and line["outcome"] == "loaded"
        if dataset_of(line["path"]) == table.dataset and line["destination"] != "raw":
            if by_run or version in loaded:  # a replay has loaded what another run archived
                lines.setdefault(version, line)
    contents = lake.read([lake.destination(line) for line in lines.values()])
    return [
        Delivery(line["run_id"], line["path"], number, cells)
        for line, content in zip(lines.values(), contents, strict=True)
        if content is not None
        for number, cells in records(content, table)
        if value_of(key_column(table), cells.get(table.key, "").strip()) == key
    ]


def key_column(table: Any) -> Any:
    return next(column for column in table.columns if column.name == table.key)


def second(moment: dt.datetime) -> str:
    """Return a moment in UTC as manifests write it, to the second."""
    return moment.astimezone(dt.UTC).isoformat()[:19]


def records(content: bytes, table: Any) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the first line and the cells of each record, with the delimiter of the header."""
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            return
    text = content.decode("utf-8-sig", "replace")
    for delimiter in DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        header: list[str] = []
        line = 1
        with suppress(csv.Error):
            for cells in reader:
                if header and cells:
                    yield line, dict(zip(header, cells, strict=False))
                elif not header:
                    names = [cell.strip().lower() for cell in cells]
                    header = names if set(table.column_names) <= set(names) else []
                line = reader.line_num + 1
        if header:
            return


def value_of(column: Any, text: str) -> Any:
    """Return the value that a cell without blanks around it stands for; None if it has none."""
    if column.type == "STRING" and not column.identifier:
        return text if text not in ("", *glue_etl.NULL_TEXTS) else None
    if column.identifier and (wrapped := re.fullmatch('="([^"]*)"', text)):
        text = wrapped[1].strip()
    if text.lower() in ("", *glue_etl.NULL_WORDS):
        return None
    if column.identifier:
        return re.sub(r"\.0+$", "", text) if re.fullmatch(r"\d+\.0+", text) else text
    with suppress(ValueError):
        if column.type == "BOOLEAN":
            return True if text.lower() in glue_etl.TRUE_WORDS else False
        if column.type == "DATE":
            return dt.date.fromisoformat(text[:10])
        if column.type == "TIMESTAMP":
            moment = dt.datetime.fromisoformat(re.sub(" ?UTC$", "Z", text).replace(" +", "+"))
            return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
        number = float(text.replace(",", "."))
        return number if column.type == "DOUBLE" else int(number)
    return None
