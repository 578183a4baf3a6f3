"""The lakehouse in plain Python: slow, short, and to be trusted by reading.

The package `rules` judges files and rows; here is what becomes of them in the tables. Neither
shares a line with the job. Tests give job and model the same deliveries and compare tables, counts
and rejected rows.

What it takes for granted: runs come in the order of delivery, so a file that is new to a run was
modified after every file of the runs before it (`run` refuses others). Timestamps in its tables are
UTC without a tzinfo.
"""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from rules import CheckedRow, SetAside, open_file
from rules.headers import Header
from rules.paths import dataset_of, is_news
from rules.tables import COLUMNS, KEY, PARENTS, Value
from rules.values import check_row

OUTCOMES = ("inserted", "updated", "unchanged", "superseded", "rejected", "parked")


@dataclass(frozen=True)
class RawFile:
    """A file of the raw zone: its path below the raw prefix, its bytes, and when it was
    delivered."""

    path: str
    content: bytes
    modified: datetime

    @property
    def identity(self) -> tuple[str | None, bytes]:
        """Return what the ledger knows a file by: its dataset and its bytes, under any name."""
        return dataset_of(self.path), self.content


@dataclass(frozen=True)
class Source:
    """Where a row comes from; the same bytes under another name are the same source."""

    path: str = field(compare=False)
    content: bytes
    line: int

    @property
    def place(self) -> str:
        """How a file of rejected rows to fix names the row."""
        return f"{self.path}:{self.line} ({hashlib.sha256(self.content).hexdigest()[:8]})"


@dataclass
class Row:
    """A valid row of a file."""

    dataset: str
    values: dict[str, Value]
    source: Source
    delivery: tuple
    replayed: bool
    fields: dict[str, str | None]
    raw: str
    moved: bool = False  # it took the place of a row with other parents
    outcome: str = ""  # in the run that read it last

    @property
    def key(self) -> str:
        return self.values[KEY[self.dataset]]

    @property
    def precedence(self) -> tuple:
        """The greatest wins.

        A replayed row was delivered before anything else, so it never wins a tie.
        """
        return self.values.get("order_timestamp") or datetime.min, not self.replayed, self.delivery


@dataclass
class Record:
    """A row of rejected_records."""

    dataset: str
    status: str
    reasons: list[str]
    record_key: str | None
    source: Source
    raw: str
    fields: dict[str, str | None] | None
    delivery: tuple = ()


@dataclass
class ReadFile:
    """A file that was read: its header, the valid rows and the rejected ones, and the places of the
    rows that they replace."""

    header: Header
    rows: list[Row] = field(default_factory=list)
    rejected: list[Record] = field(default_factory=list)
    replaced: set[str] = field(default_factory=set)

    @property
    def rows_read(self) -> int:
        return len(self.rows) + len(self.rejected)


def read_file(file: RawFile, replayed: bool = False, max_rejected_percent: int = 50) -> ReadFile:
    """All rows of a file; SetAside where it cannot be taken as a whole."""
    reading = open_file(file.path, io.BytesIO(file.content), file.modified)
    read = ReadFile(reading.header)
    for checked in reading.rows():
        row = as_row(file, read.header.dataset, checked, replayed)
        (read.rows if isinstance(row, Row) else read.rejected).append(row)
        read.replaced.add(checked.where)
    reading.finish(max_rejected_percent)
    return read


def as_row(file: RawFile, dataset: str, checked: CheckedRow, replayed: bool) -> Row | Record:
    """A row as a valid one, or as a rejected one with all its reasons."""
    source = Source(file.path, file.content, checked.line)
    values, texts, raw = checked.values, checked.texts, checked.raw
    filled = sum(value is not None for value in values.values())
    delivery = (file.modified, file.path, filled, checked.line)
    if checked.reasons:
        key = values.get(KEY[dataset])
        return Record(dataset, "rejected", checked.reasons, key, source, raw, texts, delivery)
    return Row(dataset, values, source, delivery, replayed, texts, raw)


# ---- runs
@dataclass
class FileResult:
    """What became of a file: the model's line of the manifest."""

    path: str
    dataset: str | None
    outcome: str
    reason: str | None = None
    rows_read: int = 0
    ignored_columns: list[str] = field(default_factory=list)


def no_counts() -> dict:
    return {
        "rows_read": 0,
        "admitted": 0,
        **{outcome: 0 for outcome in OUTCOMES},
        "conflicting": 0,
        "moved": 0,
        "rejected_by_reason": {},
    }


class Lakehouse:
    """Tables and parked rows after the runs so far.

    `rows[dataset][key]` is the table's row; `tables[dataset][key]` its values as a tuple in the
    order of the columns. `records[source]` are the rejected, parked, admitted and superseded rows
    of rejected_records.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Row]] = {dataset: {} for dataset in COLUMNS}
        self.records: dict[Source, Record] = {}
        self.parked: list[Row] = []
        self.ledger: set[tuple[str | None, bytes]] = set()
        self.last_delivery: tuple = (datetime.min, "")

    @property
    def tables(self) -> dict[str, dict[str, tuple]]:
        return {
            dataset: {key: tuple(row.values.values()) for key, row in rows.items()}
            for dataset, rows in self.rows.items()
        }

    def run(
        self,
        files: list[RawFile],
        force: bool = False,
        max_rejected_percent: int = 50,
        now: datetime = datetime.max,
        archived: bool = False,
        reused: frozenset[str] = frozenset(),
    ) -> dict:
        """Take in the files of one run; gives `files` (counts), `datasets` (as the summary) and
        `manifest`.

        Archived files come out of their turn, and keep their place in the order of deliveries.
        `reused` are the paths of files that are set aside because of their keys.
        """
        before = copy.deepcopy(self.__dict__)
        counts = {dataset: no_counts() for dataset in COLUMNS}
        arrived: dict[str, list[Row]] = {dataset: [] for dataset in COLUMNS}
        manifest, new, taken, replaced = [], [], set(), {}
        listed = [file for file in files if is_news(file.path, file.modified, now)]
        for file in sorted(listed, key=lambda each: (each.modified, each.path)):
            in_ledger = file.identity in self.ledger
            result = FileResult(file.path, dataset_of(file.path), "loaded")
            manifest.append(result)
            if file.identity in taken or (in_ledger and not force):
                result.outcome = "duplicate"
                continue
            try:
                read = read_file(file, in_ledger, max_rejected_percent)
            except SetAside as reason:
                result.outcome, result.reason = "set_aside", str(reason)
                continue
            if file.path in reused:
                result.outcome, result.reason = "set_aside", "keys_reused"
                continue
            in_turn = (file.modified, file.path) > self.last_delivery
            if not (in_ledger or archived or in_turn):
                raise ValueError(
                    f"{file.path} was delivered before {self.last_delivery}: give the model its "
                    "runs in order"
                )
            taken.add(file.identity)
            self.take_in(file, read, result, counts[result.dataset])
            arrived[result.dataset] += read.rows
            replaced |= {
                (result.dataset, source): (file.modified, file.path) for source in read.replaced
            }
            new += [] if in_ledger else [(file.modified, file.path)]
        for dataset in ("products", "orders"):
            self.load(arrived[dataset], counts[dataset])
        late = self.load_items(arrived["order_items"], counts["order_items"])
        worse = (
            set() if force else {row.source.path for row in self.reusing(arrived["order_items"])}
        )
        if worse:
            self.__dict__.update(before)
            return self.run(files, force, max_rejected_percent, now, archived, reused | worse)
        self.close_rejects([*(row for rows in arrived.values() for row in rows), *late], replaced)
        self.last_delivery = max([self.last_delivery, *new])
        outcomes = [result.outcome for result in manifest]
        counted = {name: outcomes.count(name) for name in ("loaded", "duplicate", "set_aside")}
        return {
            "files": {"listed": len(manifest), **counted},
            "datasets": counts,
            "manifest": manifest,
        }

    def take_in(self, file: RawFile, read: ReadFile, result: FileResult, counts: dict) -> None:
        """Count a file's rows, keep the rejected ones, and know the file from now on."""
        result.ignored_columns = read.header.ignored
        result.rows_read = read.rows_read
        counts["rows_read"] += read.rows_read
        for record in read.rejected:
            count_rejected(counts, record.reasons)
            old = self.records.get(record.source)
            if old is None or old.status in ("rejected", "parked"):
                self.records[record.source] = record
        self.ledger.add(file.identity)

    def load(self, rows: list[Row], counts: dict) -> None:
        """Rows that may all stand in the table: the best of each key does, if it beats the table's
        row."""
        for row, outcome in self.settle(rows):
            counts[outcome] += 1
            count_odd(row, outcome, rows, counts)
            self.mark(row, outcome)

    def reusing(self, rows: list[Row]) -> list[Row]:
        """The rows of files of which at least twenty rows, and more than half of those that
        updated one, changed its parents."""
        outcomes = {path: [] for path in {row.source.path for row in rows}}
        for row in rows:
            if row.outcome == "updated":
                outcomes[row.source.path].append(row.moved)
        bad = {
            path for path, moved in outcomes.items() if sum(moved) >= max(20, len(moved) // 2 + 1)
        }
        return [row for row in rows if row.source.path in bad]

    def close_rejects(self, rows: list[Row], replaced: dict[tuple[str, str], tuple]) -> None:
        """A rejected row is superseded when a later file brings a good one of its key, or a row
        that says that it replaces it."""
        waiting = {id(row) for row in self.parked}
        good: dict[tuple[str, str], tuple] = {}
        for row in rows:
            if id(row) not in waiting and row.outcome != "parked":
                place = row.dataset, row.key
                good[place] = max(good.get(place, ()), row.delivery[:2])
        for record in self.records.values():
            by_key = good.get((record.dataset, record.record_key), ())
            place = (record.dataset, record.source.place) if replaced else ()
            by_place = replaced.get(place, ())
            if record.status == "rejected" and max(by_key, by_place) > record.delivery[:2]:
                record.status = "superseded"

    def mark(self, row: Row, outcome: str) -> None:
        """Keep the record of a row that was rejected or parked, and is replayed, in step."""
        record = self.records.get(row.source)
        if record is not None and record.status in ("rejected", "parked"):
            still_open = outcome in ("parked", "superseded")
            record.status = outcome if still_open else "admitted"
            record.reasons = (
                sorted(self.missing(row).values()) if outcome == "parked" else record.reasons
            )

    def replay(self, chosen: Callable[[Record], bool]) -> dict:
        """Rejected and parked rows through the rules as they are now; gives `datasets`."""
        counts = {dataset: no_counts() for dataset in COLUMNS}
        arrived: dict[str, list[Row]] = {dataset: [] for dataset in COLUMNS}
        waiting = {row.source: row for row in self.parked}
        for record in self.records.values():
            if record.status not in ("rejected", "parked") or not chosen(record):
                continue
            counts[record.dataset]["rows_read"] += 1
            row = waiting.get(record.source) or self.recheck(record, counts[record.dataset])
            arrived[record.dataset] += [] if row is None else [row]
        self.parked = [row for row in self.parked if row not in arrived["order_items"]]
        for dataset in ("products", "orders"):
            self.load(arrived[dataset], counts[dataset])
        self.load_items(arrived["order_items"], counts["order_items"])
        return {"datasets": counts}

    def recheck(self, record: Record, counts: dict) -> Row | None:
        """A rejected row in its old place among the deliveries; None where it still fails."""
        if record.fields is not None:
            values, record.reasons = check_row(record.dataset, record.fields, record.delivery[0])
        if record.fields is None or record.reasons:
            count_rejected(counts, record.reasons)
            return None
        fields, raw = record.fields, record.raw
        return Row(record.dataset, values, record.source, record.delivery, False, fields, raw)

    def correct(
        self, dataset: str, at: datetime, change: Callable[[dict[str, Value]], dict | None]
    ) -> None:
        """Put `change` of each row in its place, a delivery at this time; None takes it away."""
        for key, row in list(self.rows[dataset].items()):
            values = change(dict(row.values))
            if values is None:
                del self.rows[dataset][key]
            elif values != row.values:
                source, delivery = Source("", b"", 0), (at, "", 0, 0)
                new = replace(row, values=values, source=source, delivery=delivery)
                self.rows[dataset][key] = new
                beaten = [
                    item for item in self.parked if item.key == key and dataset == item.dataset
                ]
                for item in (item for item in beaten if item.precedence < new.precedence):
                    self.parked.remove(item)
                    self.records[item.source].status = "superseded"

    def settle(self, rows: list[Row]) -> list[tuple[Row, str]]:
        """Put the winner of each key into its table. Gives each row with its outcome."""
        best: dict[str, Row] = {}
        for row in rows:
            if row.key not in best or row.precedence > best[row.key].precedence:
                best[row.key] = row
        for row in rows:
            row.outcome = self.put(row) if row is best[row.key] else "superseded"
        return [(row, row.outcome) for row in rows]

    def put(self, row: Row) -> str:
        table = self.rows[row.dataset]
        old = table.get(row.key)
        same = old is not None and old.values == row.values
        if old is not None and old.precedence > row.precedence:
            return "unchanged" if same else "superseded"
        table[row.key] = row
        row.moved = old is not None and any(
            old.values.get(column) != row.values.get(column)
            for column in PARENTS
            if row.dataset == "order_items"
        )
        if old is None:
            return "inserted"
        return "unchanged" if same else "updated"

    def missing(self, row: Row) -> dict[tuple[str, str], str]:
        """The parents (dataset and key) that an item waits for, each with its reason code."""
        return {
            (parent, row.values[column]): reason
            for column, (parent, reason) in PARENTS.items()
            if row.values[column] not in self.rows[parent]
        }

    def load_items(self, arrived: list[Row], counts: dict) -> list[Row]:
        """Items whose parents have come go to the table, the others wait, together with those that
        waited before. Gives those that waited and do no more."""
        waited = {row.source: row for row in self.parked}
        replayed = [
            row for row in arrived if row.source in waited
        ]  # replayed while it waits: no second version of it
        rows = [*waited.values(), *(row for row in arrived if row.source not in waited)]
        outcomes = self.settle([row for row in rows if not self.missing(row)])
        waiting: dict[str, list[Row]] = {}
        for row in rows:
            if self.missing(row):
                waiting.setdefault(row.key, []).append(row)
        for rivals in waiting.values():
            outcomes += [
                (row, "superseded" if self.is_beaten(row, rivals) else "parked") for row in rivals
            ]
        self.parked = [row for row, outcome in outcomes if outcome == "parked"]
        still_waiting = {row.source for row in self.parked}
        outcomes += [
            (row, "parked" if row.source in still_waiting else "superseded") for row in replayed
        ]
        for row, outcome in outcomes:
            row.outcome = outcome
            self.note(row, outcome, waited.get(row.source) is row, counts)
            if waited.get(row.source) is not row:
                count_odd(row, outcome, rows, counts)
        return [row for row in waited.values() if row.source not in still_waiting]

    def is_beaten(self, row: Row, rivals: list[Row]) -> bool:
        """Whether a waiting row can never win: a better one is in the table, or will be when this
        one could be."""
        in_table = self.rows["order_items"].get(row.key)
        if in_table is not None and in_table.precedence > row.precedence:
            return True
        return any(
            rival.precedence > row.precedence
            and self.missing(rival).keys() <= self.missing(row).keys()
            for rival in rivals
        )

    def note(self, row: Row, outcome: str, waited: bool, counts: dict) -> None:
        """Count a row's outcome and keep rejected_records in step."""
        if waited and outcome == "parked":
            return  # it waited before and waits on: nothing happened to it in this run
        counts[outcome] += 1
        if waited:
            counts["admitted"] += 1
            self.records[row.source].status = (
                "superseded" if outcome == "superseded" else "admitted"
            )
        elif row.source in self.records:
            self.mark(row, outcome)
        elif outcome == "parked":
            reasons = sorted(self.missing(row).values())
            self.records[row.source] = Record(
                row.dataset, "parked", reasons, row.key, row.source, row.raw, row.fields
            )


def count_odd(row: Row, outcome: str, rows: list[Row], counts: dict) -> None:
    """Count a row that changes its parents, and one that contradicts a row of its own file."""
    counts["moved"] += outcome == "updated" and row.moved
    if outcome == "superseded":
        version = row.values.get("order_timestamp")
        rivals = [
            rival
            for rival in rows
            if rival.key == row.key
            and rival.delivery[:2] == row.delivery[:2]
            and rival.values.get("order_timestamp") == version
        ]
        first = max(rivals, key=lambda rival: rival.delivery, default=row)
        pairs = zip(row.values.values(), first.values.values(), strict=True)
        counts["conflicting"] += any(
            mine != its for mine, its in pairs if mine is not None and its is not None
        )


def count_rejected(counts: dict, reasons: list[str]) -> None:
    counts["rejected"] += 1
    for reason in reasons:
        counts["rejected_by_reason"][reason] = counts["rejected_by_reason"].get(reason, 0) + 1
