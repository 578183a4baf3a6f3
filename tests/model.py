"""The rules of the lakehouse, once more, in plain Python: slow, short, and to be trusted by reading.

It shares no line with the job. Tests give both the same deliveries and compare tables, counts and rejected rows.

What it takes for granted: runs come in the order of delivery, so a file that is new to a run was modified after every
file of the runs before it (`run` refuses others). Timestamps in its tables are UTC without a tzinfo.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import re
import zlib
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

Value = str | int | float | bool | date | datetime | None

# dataset -> its columns in the order of the table; "name" is an identifier: a text in which Excel may have added ".0"
COLUMNS: dict[str, dict[str, str]] = {
    "products": {
        "product_id": "name",
        "department_id": "name",
        "department": "text",
        "product_name": "text",
    },
    "orders": {
        "order_num": "name",
        "order_id": "name",
        "user_id": "name",
        "order_timestamp": "timestamp",
        "total_amount": "double",
        "date": "date",
    },
    "order_items": {
        "id": "name",
        "order_id": "name",
        "user_id": "name",
        "days_since_prior_order": "int",
        "product_id": "name",
        "add_to_cart_order": "int",
        "reordered": "boolean",
        "order_timestamp": "timestamp",
        "date": "date",
    },
}
KEY = {"products": "product_id", "orders": "order_id", "order_items": "id"}
REQUIRED = {
    "products": ["product_id"],
    "orders": ["order_id", "order_timestamp"],
    "order_items": ["id", "order_id", "product_id", "order_timestamp"],
}
PARENTS = {"order_id": ("orders", "orphan_order"), "product_id": ("products", "orphan_product")}
OUTCOMES = ("inserted", "updated", "unchanged", "superseded", "rejected", "parked")

BLANKS = " \t\u00a0"
BOM = b"\xef\xbb\xbf"
DATASET_PATH = re.compile(r"(order_items|orders|products)(?![a-z0-9]).*\.csv(\.gz)?", re.DOTALL)
LINE_END = re.compile(r"\r\n|\r|\n")
PHYSICAL_LINE = re.compile(r"[^\r\n]*")
PLAIN_FIELD = re.compile(r"[^,\r\n]*")
OPENING_QUOTE = re.compile(r'[ \t]*"')
QUOTED_FIELD = re.compile(r'[ \t]*"([^"]*(?:""[^"]*)*)"[ \t]*(?=[,\r\n]|\Z)')
TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"(?: ?(?:Z|([+-])([0-9]{2})(?::?([0-9]{2}))?))?"
)
DATE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]00:00(?::00(?:\.0{1,9})?)?)?")
AMBIGUOUS = re.compile(r"[0-9]{1,2}[/.-][0-9]{1,2}[/.-][0-9]{2,4}")
INTEGER = re.compile(r"([+-]?[0-9]+)(?:\.0+)?")
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
BOOLEANS = {
    "1": True,
    "true": True,
    "t": True,
    "yes": True,
    "y": True,
    "1.0": True,
    "0": False,
    "false": False,
    "f": False,
    "no": False,
    "n": False,
    "0.0": False,
}


@dataclass(frozen=True)
class RawFile:
    """A file of the raw zone: its path below the raw prefix, its bytes, and when it was delivered."""

    path: str
    content: bytes
    modified: datetime

    @property
    def version(self) -> tuple[str, str, int]:
        """Path, ETag and size: what the ledger knows a file by."""
        return self.path, hashlib.md5(self.content).hexdigest(), len(self.content)


@dataclass(frozen=True)
class Source:
    """Where a row comes from."""

    path: str
    etag: str
    size: int
    line: int


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

    @property
    def key(self) -> str:
        return self.values[KEY[self.dataset]]

    @property
    def precedence(self) -> tuple:
        """The greatest wins. A replayed row was delivered before anything else, so it never wins a tie."""
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


class SetAside(Exception):
    """The file cannot be read as a whole; the argument is the reason."""


# ---- text -> value
def parse_timestamp(text: str) -> datetime:
    """UTC; ValueError where it is no timestamp."""
    match = TIMESTAMP.fullmatch(text)
    if not match:
        raise ValueError(text)
    year, month, day, hour, minute, second, fraction, sign, offset_hours, offset_minutes = (
        match.groups()
    )
    micros = int((fraction or "0").ljust(6, "0")[:6])
    local = datetime(
        int(year), int(month), int(day), int(hour), int(minute), int(second or 0), micros
    )
    offset = timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0))
    if offset > timedelta(hours=18) or int(offset_minutes or 0) > 59:
        raise ValueError(text)
    try:
        return local + offset if sign == "-" else local - offset
    except OverflowError:
        raise ValueError(text) from None


def parse_date(text: str) -> date:
    match = DATE.fullmatch(text)
    if not match:
        raise ValueError(text)
    return date.fromisoformat(match.group(1))


def parse_int(text: str) -> int:
    match = INTEGER.fullmatch(text)
    if not match or not -(2**31) <= int(match.group(1)) < 2**31:
        raise ValueError(text)
    return int(match.group(1))


def parse_double(text: str) -> float:
    if not NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text) + 0.0  # -0.0 becomes 0.0


def parse_boolean(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise ValueError(text)
    return BOOLEANS[text.lower()]


def parse_name(text: str) -> str:
    return re.sub(r"\.0+", "", text) if re.fullmatch(r"[0-9]+\.0+", text) else text


PARSERS = {
    "name": parse_name,
    "text": str,
    "timestamp": parse_timestamp,
    "date": parse_date,
    "int": parse_int,
    "double": parse_double,
    "boolean": parse_boolean,
}


def check_row(dataset: str, texts: dict[str, str | None]) -> tuple[dict[str, Value], list[str]]:
    """The typed values of a row and all that is wrong with it."""
    values: dict[str, Value] = {}
    reasons: list[str] = []
    for column, kind in COLUMNS[dataset].items():
        text = texts[column]
        values[column] = None
        if text is None:
            if column in REQUIRED[dataset]:
                reasons.append(f"missing_{column}")
            continue
        try:
            values[column] = PARSERS[kind](text)
        except ValueError:
            ambiguous = kind in ("timestamp", "date") and AMBIGUOUS.match(text)
            reasons.append(f"ambiguous_{column}" if ambiguous else f"invalid_{column}")
    timestamp = values.get("order_timestamp")
    if timestamp and texts["date"] is None:
        values["date"] = timestamp.date()
    if timestamp and values["date"]:
        written = date.fromisoformat(texts["order_timestamp"][:10])
        if values["date"] not in (written, timestamp.date()):
            reasons.append("date_mismatch")
    return values, reasons


# ---- bytes -> records
@dataclass
class Split:
    """A record of a file: its first physical line, its text (one character per byte), its fields or None."""

    line: int
    raw: str
    fields: list[str] | None


def dataset_of(path: str) -> str | None:
    """By the start of the path; it ends with .csv or .csv.gz, and a file whose name starts with . or _ is nobody's."""
    match = DATASET_PATH.fullmatch(path.lower())
    hidden = path.split("/")[-1].startswith((".", "_"))
    return match.group(1) if match and not hidden else None


def text_of(file: RawFile) -> str:
    """The file's text with one character per byte (Latin-1), so that line ends and quotes can be found in any bytes."""
    content = file.content
    if file.path.lower().endswith(".gz") and content:
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error):
            raise SetAside("truncated_gzip") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SetAside("utf16")
    content = content.removeprefix(BOM)
    if not content.strip():
        raise SetAside("empty_file")
    zeros = content[:65536].count(0)
    if zeros:
        raise SetAside("utf16" if 0.3 < zeros / len(content[:65536]) < 0.8 else "binary")
    return content.decode("latin-1")


def split_fields(text: str, position: int) -> tuple[list[str] | None, int]:
    """The fields of a record and where it ends. None: a quote that is not closed, or text behind a closed one."""
    fields = []
    while True:
        if OPENING_QUOTE.match(text, position):
            match = QUOTED_FIELD.match(text, position)
            if not match:
                return None, position
            fields.append(match.group(1).replace('""', '"'))
        else:
            match = PLAIN_FIELD.match(text, position)
            fields.append(match.group())
        position = match.end()
        if text[position : position + 1] != ",":
            return fields, position
        position += 1


def split_records(text: str) -> list[Split]:
    """All records but blank lines. A record with a broken quote is one line; reading goes on with the next line."""
    records, position, line = [], 0, 1
    while position < len(text):
        fields, end = split_fields(text, position)
        if fields is None:
            end = PHYSICAL_LINE.match(text, position).end()
        raw = text[position:end]
        if raw.strip(" \t"):
            records.append(Split(line, raw, fields))
        line += len(LINE_END.findall(raw)) + 1
        line_end = LINE_END.match(text, end)
        position = line_end.end() if line_end else len(text)
    return records


def header_of(dataset: str, records: list[Split]) -> list[str]:
    """Names of the file's columns: trimmed, lower case."""
    if records[0].fields is None:
        raise SetAside("no_header")
    names = [utf8(name, errors="replace").strip(BLANKS).lower() for name in records[0].fields]
    needed = [name for name in names if name in COLUMNS[dataset]]
    if not needed:
        raise SetAside("binary" if any("\ufffd" in name for name in names) else "no_header")
    if set(needed) != set(COLUMNS[dataset]):
        raise SetAside("missing_column")
    if len(needed) != len(set(needed)):
        raise SetAside("duplicate_column")
    return names


def utf8(text: str, errors: str = "strict") -> str:
    return text.encode("latin-1").decode("utf-8", errors)


def shape_problem(record: Split, header: list[str]) -> str | None:
    """Why a record cannot be laid on its header, if so."""
    try:
        utf8(record.raw)
    except UnicodeDecodeError:
        return "invalid_utf8"
    if record.fields is None:
        return "unclosed_quote"
    if [utf8(text).strip(BLANKS).lower() for text in record.fields] == header:
        return "repeated_header"
    if len(record.fields) != len(header):
        return "too_few_fields" if len(record.fields) < len(header) else "too_many_fields"
    return None


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
        "rejected_by_reason": {},
    }


class Lakehouse:
    """Tables and parked rows after the runs so far.

    `rows[dataset][key]` is the table's row; `tables[dataset][key]` its values as a tuple in the order of the columns.
    `records[source]` are the rejected, parked, admitted and superseded rows of rejected_records.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Row]] = {dataset: {} for dataset in COLUMNS}
        self.records: dict[Source, Record] = {}
        self.parked: list[Row] = []
        self.ledger: set[tuple[str, str, int]] = set()
        self.last_delivery: tuple = (datetime.min, "")

    @property
    def tables(self) -> dict[str, dict[str, tuple]]:
        return {
            dataset: {key: tuple(row.values.values()) for key, row in rows.items()}
            for dataset, rows in self.rows.items()
        }

    def run(self, files: list[RawFile], force: bool = False) -> dict:
        """Take in the files of one run; gives `files` (counts), `datasets` (as the summary) and `manifest`."""
        counts = {dataset: no_counts() for dataset in COLUMNS}
        arrived: dict[str, list[Row]] = {dataset: [] for dataset in COLUMNS}
        manifest, new = [], []
        for file in sorted(files, key=lambda each: (each.modified, each.path)):
            known = file.version in self.ledger
            result = FileResult(file.path, dataset_of(file.path), "loaded")
            manifest.append(result)
            try:
                if result.dataset is None:
                    raise SetAside("unknown_dataset")
                if known and not force:
                    result.outcome = "duplicate"
                else:
                    self.read_file(
                        file, known, result, arrived[result.dataset], counts[result.dataset]
                    )
                    self.ledger.add(file.version)
                    new += [] if known else [(file.modified, file.path)]
            except SetAside as reason:
                result.outcome, result.reason = "set_aside", str(reason)
        for dataset in ("products", "orders"):
            self.load(arrived[dataset], counts[dataset])
        self.load_items(arrived["order_items"], counts["order_items"])
        self.last_delivery = max([self.last_delivery, *new])
        outcomes = [result.outcome for result in manifest]
        counted = {name: outcomes.count(name) for name in ("loaded", "duplicate", "set_aside")}
        return {
            "files": {"listed": len(manifest), **counted},
            "datasets": counts,
            "manifest": manifest,
        }

    def read_file(
        self, file: RawFile, replayed: bool, result: FileResult, arrived: list[Row], counts: dict
    ) -> None:
        """Add the file's valid rows to `arrived`, and keep the others as rejected."""
        records = split_records(text_of(file))
        header, version = header_of(result.dataset, records), file.version
        if not replayed and (file.modified, file.path) <= self.last_delivery:
            raise ValueError(
                f"{file.path} was delivered before {self.last_delivery}: give the model its runs in order"
            )
        result.ignored_columns = [name for name in header if name not in COLUMNS[result.dataset]]
        for record in records[1:]:
            result.rows_read += 1
            source = Source(*version, record.line)
            problem = shape_problem(record, header)
            texts, values, reasons = None, {}, [problem]
            if not problem:
                cells = {
                    name: utf8(cell).strip(BLANKS) or None
                    for name, cell in zip(header, record.fields)
                }
                texts = {name: cells[name] for name in COLUMNS[result.dataset]}
                values, reasons = check_row(result.dataset, texts)
            raw = utf8(record.raw, errors="replace")
            if reasons:
                count_rejected(counts, reasons)
                key = values.get(KEY[result.dataset])
                self.records[source] = Record(
                    result.dataset, "rejected", reasons, key, source, raw, texts
                )
            else:
                delivery = (file.modified, file.path, record.line)
                arrived.append(Row(result.dataset, values, source, delivery, replayed, texts, raw))
        counts["rows_read"] += result.rows_read

    def load(self, rows: list[Row], counts: dict) -> None:
        """Rows that may all stand in the table: the best of each key does, if it beats the table's row."""
        for row, outcome in self.settle(rows):
            counts[outcome] += 1

    def settle(self, rows: list[Row]) -> list[tuple[Row, str]]:
        """Put the winner of each key into its table. Gives each row with its outcome."""
        best: dict[str, Row] = {}
        for row in rows:
            if row.key not in best or row.precedence > best[row.key].precedence:
                best[row.key] = row
        return [(row, self.put(row) if row is best[row.key] else "superseded") for row in rows]

    def put(self, row: Row) -> str:
        table = self.rows[row.dataset]
        old = table.get(row.key)
        same = old is not None and old.values == row.values
        if old is not None and old.precedence > row.precedence:
            return "unchanged" if same else "superseded"
        table[row.key] = row
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

    def load_items(self, arrived: list[Row], counts: dict) -> None:
        """Items whose parents have come go to the table, the others wait, together with those that waited before."""
        waited = {row.source: row for row in self.parked}
        again = [
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
            (row, "parked" if row.source in still_waiting else "superseded") for row in again
        ]
        for row, outcome in outcomes:
            self.note(row, outcome, waited.get(row.source) is row, counts)

    def is_beaten(self, row: Row, rivals: list[Row]) -> bool:
        """Whether a waiting row can never win: a better one is in the table, or will be when this one could be."""
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
        elif outcome == "parked" and row.source not in self.records:
            reasons = sorted(self.missing(row).values())
            self.records[row.source] = Record(
                row.dataset, "parked", reasons, row.key, row.source, row.raw, row.fields
            )


def count_rejected(counts: dict, reasons: list[str]) -> None:
    counts["rejected"] += 1
    for reason in reasons:
        counts["rejected_by_reason"][reason] = counts["rejected_by_reason"].get(reason, 0) + 1
