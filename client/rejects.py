"""Rejected rows as CSV files that a person fixes in a spreadsheet and uploads again.

A file has two columns in front: `reasons` in words, and `where`, the place of the row. The job
ignores the first and closes the row that the second names. A value that a spreadsheet would take
for a formula, or write in another way, begins with an apostrophe; the job removes it.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import words
from client.lake import Lake, Row
from rules.tables import COLUMNS, REJECT_COLUMNS, REQUIRED

SAFE_NUMBER = re.compile(r"0|[1-9][0-9]{0,14}")
# How texts begin that spreadsheets take for a formula, a number, a date or a truth value; and an
# apostrophe
CHANGED = re.compile(
    r"[\s=+@'(.,/$€£%-]|[0-9]"
    r"|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\W?[0-9]"
    r"|(?i:true|false)\Z"
)
NOT_TO_FIX = ("repeated_header",)  # rows without data


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    options = argparse.ArgumentParser(
        prog=f"{prog} rejects",
        description="Rejected rows that are still open, by dataset. Fix the files of --csv in a "
        "spreadsheet, and upload them: a row that is good now closes its reject.",
        allow_abbrev=False,
    )
    options.add_argument("--csv", action="store_true", help="write a CSV file for each dataset")
    options.add_argument("--run", default="", help="only rows that this run has rejected")
    options.add_argument("--dataset", choices=list(COLUMNS), default="", help="only one dataset")
    options.add_argument("--out", type=Path, default=Path(), help="folder of the files (this one)")
    return options


def show(lake: Lake, options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Count the open rejects, or write them as the options say; return the exit code."""
    rows = open_rejects(lake, options.run, options.dataset)
    to_fix = rows_to_fix(rows)
    if not to_fix:
        say("No rejected row is open")
    for dataset, some in to_fix.items():
        if not options.csv:
            say(f"{dataset}: {words.plural(len(some), 'rejected row')}")
            continue
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / file_name(dataset, options.run)
        with path.open("w", encoding="utf-8-sig", newline="") as stream:
            write_csv(stream, dataset, some)
        say(f"{path}: {words.plural(len(some), 'row')}")
    left_out = len(rows) - sum(map(len, to_fix.values()))
    if left_out:
        say(f"Left out, since they hold no data: {words.plural(left_out, 'repeated header')}")
    return 0


def open_rejects(lake: Lake, run_id: str = "", dataset: str = "") -> list[Row]:
    """Return the rows of rejected_records that are still rejected, by file and line."""
    import pyarrow.dataset as ds

    condition = ds.field("status") == "rejected"
    if run_id:
        condition &= ds.field("run_id") == run_id
    if dataset:
        condition &= ds.field("dataset") == dataset
    rows = lake.rows("rejected_records", condition)
    return sorted(rows, key=lambda row: (row["file_modified"], row["file_path"], row["line"]))


def rows_to_fix(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows that a person can fix, by dataset."""
    by_dataset: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["dataset"] in COLUMNS and not set(row["reasons"]) <= set(NOT_TO_FIX):
            by_dataset.setdefault(row["dataset"], []).append(row)
    return by_dataset


def file_name(dataset: str, run_id: str = "", now: dt.datetime | None = None) -> str:
    """Return a name by which an upload belongs to the dataset."""
    moment = now or dt.datetime.now(dt.UTC)
    return f"{dataset}-rejects-{run_id or f'{moment:%Y%m%dT%H%M%S}'}.csv"


def write_csv(stream: TextIO, dataset: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rejected rows of a dataset (rows of rejected_records) as CSV.

    `stream` is opened with newline="" and, so that Excel reads it right, as `utf-8-sig`.
    """
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerow([*REJECT_COLUMNS, *COLUMNS[dataset]])
    for row in rows:
        cells = [reasons_text(row["reasons"]), place_of(row), *cells_of(dataset, row)]
        writer.writerow([escaped(cell) for cell in cells])


def reasons_text(reasons: Sequence[str]) -> str:
    """Return the reasons of a row in words."""
    return "; ".join(map(words.row_reason, reasons))


def place_of(row: Mapping[str, Any]) -> str:
    """Return file and line of a rejected row, with the begin of the file's digest: a path may come
    again with other content."""
    return f"{row['file_path']}:{row['line']} ({row['file_digest'][:8]})"


def cells_of(dataset: str, row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values of a rejected row.

    If its fields could not be told apart, the whole text stands in the first column that may be
    blank: a guess might be loaded as it is.
    """
    fields = row["fields"]
    names = list(COLUMNS[dataset])
    if fields is not None:
        yield from (dict(fields).get(name) or "" for name in names)
        return
    free = next(name for name in names if name not in REQUIRED[dataset])
    yield from (row["raw"] if name == free else "" for name in names)


def escaped(cell: str) -> str:
    """Return a value as a spreadsheet leaves it alone; `unescaped` gives it back."""
    return f"'{cell}" if CHANGED.match(cell) and not SAFE_NUMBER.fullmatch(cell) else cell


def unescaped(cell: str) -> str:
    """Return the value of a cell."""
    return cell.removeprefix("'")
