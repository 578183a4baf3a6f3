"""Check files before they are uploaded: what a run would set aside or reject, in words.

It takes neither Spark nor Java nor AWS; the rules are those of the package `rules`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import words
from rules import CheckedRow, Reading, SetAside, open_file
from rules.paths import dataset_of, is_marker
from rules.tables import COLUMNS

GOOD, SET_ASIDE, DUPLICATE, SKIPPED = "good", "set_aside", "known", "skipped"
RAW_LIMIT = 500  # characters of a row's text
NOT_CHECKED = (
    "Not checked: whether the order and the product of an item have arrived (an item waits for "
    "them), which of several rows of a key wins, and whether keys were reused."
)


@dataclass(frozen=True)
class Fault:
    """One reason to reject a row: its code and words, and the column and the value, if it is about
    one column."""

    reason: str
    text: str
    column: str | None = None
    value: str | None = None


@dataclass(frozen=True)
class RejectedRow:
    """A row that would be rejected: its line, its text and all faults."""

    line: int
    raw: str
    faults: tuple[Fault, ...]


@dataclass
class CheckedFile:
    """What a run would do with a file.

    path     its path below the raw prefix
    outcome  good (with or without rejected rows), set_aside, known (its bytes were delivered
             before) or skipped (no run takes notice of it)
    reason   the code of a file that is set aside; `detail` says it in words
    rejected_rows  the first ones; `rejected` counts all
    """

    path: str
    digest: str = ""
    dataset: str | None = None
    outcome: str = GOOD
    reason: str | None = None
    detail: str | None = None
    rows: int = 0
    rejected: int = 0
    rejected_by_reason: dict[str, int] = field(default_factory=dict)
    rejected_rows: list[RejectedRow] = field(default_factory=list)
    ignored_columns: list[str] = field(default_factory=list)
    lines_above_header: int = 0
    no_final_newline: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether no row would be rejected, and the file would not be set aside."""
        return self.outcome != SET_ASIDE and not (self.outcome == GOOD and self.rejected)


def check_file(
    path: str,
    stream: BinaryIO,
    delivered: dt.datetime | None = None,
    max_rejected_percent: int = 50,
    limit: int | None = None,
) -> CheckedFile:
    """Return what a run would do with a file, given its path below the raw prefix.

    delivered  when it is uploaded, in UTC without a time zone; now by default
    limit      how many rejected rows are listed; all by default
    """
    file = CheckedFile(path, dataset=dataset_of(path))
    if is_marker(path):
        file.outcome, file.detail = SKIPPED, "left by a tool or a desktop; no run reads it"
        return file
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    file.digest = _digest(stream)
    try:
        reading = open_file(path, stream, delivered or now)
        file.no_final_newline = reading.cut
        file.ignored_columns = reading.header.ignored
        file.lines_above_header = len(reading.header.above)
        _read_rows(file, reading, limit)
        reading.finish(max_rejected_percent)
    except SetAside as error:
        file.outcome, file.reason, file.detail = SET_ASIDE, error.reason, error.detail
    return file


def _digest(stream: BinaryIO) -> str:
    """The digest by which the ledger knows the file."""
    stream.seek(0)
    digest = hashlib.sha256()
    while piece := stream.read(1 << 18):
        digest.update(piece)
    return digest.hexdigest()


def _read_rows(file: CheckedFile, reading: Reading, limit: int | None) -> None:
    """Read all rows, and note the rejected ones."""
    for row in reading.bad_rows():
        if limit is None or len(file.rejected_rows) < limit:
            file.rejected_rows.append(_rejected_row(row, str(file.dataset)))
    file.rows, file.rejected = reading.read, reading.rejected
    file.rejected_by_reason = dict(reading.by_reason.most_common())


def _rejected_row(row: CheckedRow, dataset: str) -> RejectedRow:
    faults = (_fault(reason, row, dataset) for reason in row.reasons)
    return RejectedRow(row.line, row.raw[:RAW_LIMIT], tuple(faults))


def _fault(reason: str, row: CheckedRow, dataset: str) -> Fault:
    column = column_of(reason, dataset) if row.texts else None
    value = (row.texts or {}).get(column or "")
    return Fault(reason, words.row_reason(reason), column, value and value[:RAW_LIMIT])


def column_of(reason: str, dataset: str) -> str | None:
    """Return the column that a reason is about; None if it is about the whole row."""
    column = "date" if reason == "date_mismatch" else reason.partition("_")[2]
    return column if column in COLUMNS[dataset] else None


def mark_duplicates(files: Iterable[CheckedFile], ledger: Iterable[Mapping[str, Any]]) -> None:
    """Mark the files whose bytes were loaded before, by rows of the ledger, or that come twice."""
    loaded = {(row["dataset"], row["file_digest"]): row for row in ledger}
    first: dict[tuple[str | None, str], CheckedFile] = {}
    for file in files:
        if file.outcome != GOOD:
            continue
        row = loaded.get((str(file.dataset), file.digest))
        twin = first.setdefault((file.dataset, file.digest), file)
        if row:
            day = f"{row['ingested_at']:%d %B %Y}".lstrip("0")
            file.outcome = DUPLICATE
            file.detail = f"these bytes were loaded on {day} as {row['file_path']}; a run skips it"
        elif twin is not file:
            file.outcome = DUPLICATE
            file.detail = f"the same bytes as {twin.path}; a run loads them once"


def ledger_rows(lake: Any, digests: Iterable[str]) -> list[dict[str, Any]]:
    """Return the loaded files of a lake (client.lake.Lake) that have one of these digests."""
    import pyarrow.dataset as ds  # takes longer than a check; only if there is a lake to ask

    has_digest = ds.field("file_digest").isin(sorted(set(digests)))
    condition = has_digest & (ds.field("outcome") == "loaded")
    columns = ["dataset", "file_digest", "file_path", "ingested_at"]
    rows: list[dict[str, Any]] = lake.rows("ingested_files", condition, columns)
    return sorted(rows, key=lambda row: row["ingested_at"], reverse=True)


# ---- files on this machine
def paths_below(place: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder, or the file itself, each with its path below the raw prefix.

    A folder's own name counts if it names a dataset, such as `orders/`. So do the folders above a
    file whose own name names none.
    """
    if place.is_dir():
        own = place.resolve().name
        prefix = f"{own}/" if dataset_of(f"{own}/x.csv") else ""
        for file in sorted(place.rglob("*")):
            if file.is_file():
                yield prefix + file.relative_to(place).as_posix(), file
        return
    parts = place.resolve().parts
    names = ("/".join(parts[at:]) for at in range(len(parts) - 1, 0, -1))
    yield next((name for name in names if dataset_of(name)), place.name), place


# ---- in words
def lines_of(file: CheckedFile, limit: int) -> Iterator[str]:
    """Yield what a person reads about a file, with at most so many rejected rows."""
    if file.outcome in (DUPLICATE, SKIPPED):
        yield f"{file.path}: {file.detail}"
        return
    if file.outcome == SET_ASIDE:
        yield f"{file.path}: would be set aside, no row loaded: {file.detail}"
    elif file.rejected:
        rows, rejected = words.plural(file.rows, "row"), f"{file.rejected:,}"
        yield f"{file.path}: {name_of(file)}, {rows}, of which {rejected} would be rejected"
    else:
        yield f"{file.path}: {name_of(file)}, {words.plural(file.rows, 'row')}, all good"
    if file.lines_above_header:
        yield f"  {words.plural(file.lines_above_header, 'line')} above the header would be skipped"
    if file.ignored_columns:
        yield f"  columns of no table, ignored: {', '.join(file.ignored_columns)}"
    if file.no_final_newline and file.outcome == GOOD:
        yield "  the last line has no line end: compare the file with the export if it may be cut"
    shown = file.rejected_rows[:limit] if limit else file.rejected_rows
    for row in shown:
        yield f"  line {row.line:,}: {'; '.join(map(fault_text, row.faults))}"
        if not any(fault.column for fault in row.faults):
            yield f"    {row.raw[:100]!r}"
    if file.rejected > len(shown):
        yield f"  … and {file.rejected - len(shown):,} more"


def name_of(file: CheckedFile) -> str:
    return (file.dataset or "").replace("_", " ")


def fault_text(fault: Fault) -> str:
    """Return a fault with its value, if it has one, and its code."""
    text = fault.text if fault.value is None else f"{fault.text}: {fault.value!r}"
    return f"{text} ({fault.reason})"


def totals(files: Iterable[CheckedFile]) -> str:
    """Return the files in one line."""
    files = [file for file in files if file.outcome != SKIPPED]
    aside = sum(file.outcome == SET_ASIDE for file in files)
    duplicates = sum(file.outcome == DUPLICATE for file in files)
    good = [file for file in files if file.outcome == GOOD]
    rows, rejected = sum(file.rows for file in good), sum(file.rejected for file in good)
    counts = [words.plural(len(files), "file"), f"{aside:,} would be set aside"]
    counts += [f"{duplicates:,} known already"] if duplicates else []
    return f"{', '.join(counts)}; {words.plural(rows, 'row')}, {rejected:,} would be rejected"
