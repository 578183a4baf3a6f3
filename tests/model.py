"""The rules of the lakehouse, once more, in plain Python: slow, short, and to be trusted by
reading.

It shares no line with the job. Tests give both the same deliveries and compare tables, counts and
rejected rows.

What it takes for granted: runs come in the order of delivery, so a file that is new to a run was
modified after every file of the runs before it (`run` refuses others). Timestamps in its tables are
UTC without a tzinfo.
"""

from __future__ import annotations

import copy
import functools
import math
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal

Value = str | int | float | bool | date | datetime | None

# dataset -> its columns in the order of the table; "name" is an identifier: a text in which Excel
# may have added ".0"
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
# dataset -> reason -> whether a row's values break it: rules that a test adds, and takes away again
MORE_RULES: dict[str, dict[str, Callable[[dict[str, Value]], bool]]] = {
    dataset: {} for dataset in COLUMNS
}
OUTCOMES = ("inserted", "updated", "unchanged", "superseded", "rejected", "parked")

# What Unicode takes for white space, and what is written with no width at all
BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"
BLANKS += "".join(map(chr, range(0x2000, 0x200B)))
UNSEEN = {chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Cf"}
BLANKS += "".join(UNSEEN)
MARK = "\xef\xbb\xbf"  # a byte order mark, one character per byte
SEPARATORS = [",", ";", "\t", "|"]
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
HEAD = 65536  # bytes from the header on, by which a field too many is judged
CONTROLS = {chr(code) for code in (*range(9), *range(14, 32), 127)}
NO_VALUE = {"", "null", "\\n", "nan", "na", "n/a", "none", "nat", "undefined", "object object"}
NO_VALUE |= {"#n/a", "#ref!", "#name?", "#value!", "#div/0!", "#num!", "#null!"}
TABLE_DRAWING = set("-=+:|,; \t")
NO_TEXT = {"", "NULL", "\\N"}
DATASET_PATHS = {
    "order_items": re.compile(r"orders?[-_ ]?items?(?![a-z0-9]).*\.csv(\.gz)?", re.DOTALL),
    "orders": re.compile(r"orders?(?![a-z0-9]).*\.csv(\.gz)?", re.DOTALL),
    "products": re.compile(r"products?(?![a-z0-9]).*\.csv(\.gz)?", re.DOTALL),
}
MARKERS = re.compile(r"\.ds_store|thumbs\.db|desktop\.ini|\._.*|~\$.*|\.~lock\..*#", re.DOTALL)
FORMATS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"%PDF", b"\x1f\x8b", b"PAR1")
PAGE = re.compile(rb"(?i)(?:\xef\xbb\xbf)?\s*(?:<!doctype|<html|<\?xml|<error)")
UNFINISHED_ENDINGS = (".filepart", ".part", ".partial", ".tmp", ".crdownload", "._copying_")
LINE_END = re.compile(r"\r\n|\r|\n")
PHYSICAL_LINE = re.compile(r"[^\r\n]*")
STATED_SEPARATOR = re.compile(r"sep=.?", re.IGNORECASE)
TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"(?: ?(?:Z|UTC|([+-])([0-9]{2})(?::?([0-9]{2}))?))?"
)
DATE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]00:00(?::00(?:\.0{1,9})?)?)?")
NO_DATE = re.compile(r"0000-00-00(?:[T ]00:00(?::00(?:\.0{1,9})?)?)?")
AMBIGUOUS_DATE = re.compile(r"[0-9]{1,2}[/.-][0-9]{1,2}[/.-][0-9]{2,4}")
AMBIGUOUS_NUMBER = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+")
COMMA_NUMBER = re.compile(r"[+-]?[0-9]*,[0-9]{1,2}")
GERMAN_NUMBER = re.compile(r"[+-]?[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+")
POINT_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:\.[0-9]{3})+")
POINT_DECIMAL = re.compile(r"[+-]?[0-9]+\.(?:[0-9]{1,2}|[0-9]{4,})")
SCIENTIFIC = re.compile(r"([0-9]+)(?:([.,])([0-9]*))?([eE])([+-]?)([0-9]+)")
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
    value = float(text)
    digits = Decimal(text).normalize().as_tuple().digits
    lost = len(digits) > 15 and digits != Decimal(repr(value)).normalize().as_tuple().digits
    if lost or (value == 0) != (Decimal(text) == 0):
        raise ValueError(text)
    return value + 0.0  # -0.0 becomes 0.0


def parse_boolean(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise ValueError(text)
    return BOOLEANS[text.lower()]


def unwrapped(text: str) -> str:
    """The text in Excel's `="00081"`."""
    match = re.fullmatch(r'="([^"]*)"', text)
    return match.group(1).strip(BLANKS) if match else text


def parse_name(text: str) -> str:
    """An identifier; ValueError where a spreadsheet has lost its digits, as in 2.02504E+11."""
    text = unwrapped(text)
    match = SCIENTIFIC.fullmatch(text)
    if match and match.group(4) == "E" and match.group(5) and not match.group(2):
        raise ValueError(text)
    if match and (match.group(2) or match.group(4) == "e"):
        return whole_number(*match.group(1, 2, 3, 5, 6))
    return re.sub(r"\.0+", "", text) if re.fullmatch(r"[0-9]+\.0+", text) else text


def whole_number(before: str, point: str | None, behind: str, sign: str, exponent: str) -> str:
    """The digits of a number in scientific form that is whole and all there."""
    shift = int(sign + exponent)
    if shift < 0 or (point and not len(behind.rstrip("0")) <= shift <= len(behind)):
        raise ValueError(before)
    number = int(before + (behind or "")[:shift]) * (1 if point else 10**shift)
    if number >= 10**38:
        raise ValueError(before)
    return str(number)


PARSERS = {
    "name": parse_name,
    "text": str,
    "timestamp": parse_timestamp,
    "date": parse_date,
    "int": parse_int,
    "double": parse_double,
    "boolean": parse_boolean,
}


def text_in(cell: str, kind: str) -> str | None:
    """The text of a cell without the blanks around it; None where it says nothing."""
    text = cell.strip(BLANKS)
    if kind == "text":
        return None if text in NO_TEXT else text
    said = unwrapped(text) if kind == "name" else text
    word = said.strip("[](){}<>").strip(BLANKS).lower()
    nothing = word in NO_VALUE or (kind == "date" and NO_DATE.fullmatch(text))
    return None if nothing or (word == "false" and kind != "boolean") else text


def check_row(
    dataset: str, texts: dict[str, str | None], delivered: datetime
) -> tuple[dict[str, Value], list[str]]:
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
        if kind == "name" and UNSEEN & set(text) and "control_character" not in reasons:
            reasons.append("control_character")
        try:
            values[column] = PARSERS[kind](text)
        except ValueError:
            reasons.append(f"ambiguous_{column}" if ambiguous(text, kind) else f"invalid_{column}")
    timestamp = values.get("order_timestamp")
    if timestamp and timestamp > (delivered + timedelta(days=1)).replace(microsecond=0):
        reasons.append("future_order_timestamp")
    if timestamp and texts["date"] is None:
        values["date"] = timestamp.date()
    if timestamp and values["date"]:
        written = date.fromisoformat(texts["order_timestamp"][:10])
        if values["date"] not in (written, timestamp.date()):
            reasons.append("date_mismatch")
    return values, reasons + [
        name for name, broken in MORE_RULES[dataset].items() if broken(values)
    ]


def ambiguous(text: str, kind: str) -> bool:
    """Whether a text that cannot be read could mean two days, or two amounts."""
    if kind in ("timestamp", "date"):
        return AMBIGUOUS_DATE.match(text) is not None
    return kind == "double" and AMBIGUOUS_NUMBER.fullmatch(text) is not None


# ---- paths
def is_news(file: RawFile, now: datetime) -> bool:
    """Whether a file is to be spoken of: no marker of a tool, no upload that may still go on."""
    if is_unfinished(file.path):
        return now - file.modified > timedelta(days=1)
    name = file.path.lower().split("/")[-1]
    if name in ("", "_success") or MARKERS.fullmatch(name):
        return False
    return not name.endswith(("_$folder$", ".crc"))


def is_unfinished(path: str) -> bool:
    path = path.lower()
    return path.endswith(UNFINISHED_ENDINGS) or "_temporary" in path.split("/")


def is_usable(path: str) -> bool:
    """Whether a reader that folds paths finds this one, and whether it can be written down."""
    folded = {"", ".", ".."} & set(path.split("/"))
    return not folded and not any("\ud800" <= letter <= "\udfff" for letter in path)


def dataset_of(path: str) -> str | None:
    """By the start of the path; it ends with .csv or .csv.gz, and a file whose name starts with .
    or _ is nobody's."""
    if path.split("/")[-1].startswith((".", "_")):
        return None
    named = (name for name, shape in DATASET_PATHS.items() if shape.fullmatch(path.lower()))
    return next(named, None)


def dataset_or_aside(path: str) -> str:
    """The dataset of a path that can be read and names one."""
    if not is_usable(path):
        raise SetAside("unusable_path")
    if is_unfinished(path):
        raise SetAside("unfinished_upload")
    dataset = dataset_of(path)
    if dataset is None:
        raise SetAside("unknown_dataset")
    return dataset


# ---- bytes -> records
@dataclass
class Split:
    """A record of a file: its first physical line, its text (one character per byte), its fields or
    None.

    `end` is where the record ends in the file's text; `broken` says that a value without quotes
    goes over a line break.
    """

    line: int
    raw: str
    fields: list[str] | None
    end: int = 0
    broken: bool = False

    @functools.cached_property
    def names(self) -> list[str]:
        """The fields as names of columns: trimmed, lower case."""
        return [utf8(field, "replace").strip(BLANKS).lower() for field in self.fields or []]

    @property
    def is_blank(self) -> bool:
        """An empty line, blank cells only, the end of a DOS file, or Excel's line `sep=;`."""
        text = utf8(without_marks(self.raw), "replace")
        if text == "\x1a" or STATED_SEPARATOR.fullmatch(text):
            return True
        return self.fields is not None and all(set(name) <= TABLE_DRAWING for name in self.names)

    @property
    def titles(self) -> list[str]:
        """The fields by their letters and digits."""
        return ["".join(filter(str.isalnum, name)) for name in self.names]


def without_marks(text: str) -> str:
    while text.startswith(MARK):
        text = text[len(MARK) :]
    return text


def unpacked(content: bytes) -> bytes:
    """All parts of a gzip file; zeros behind the last one are no text."""
    text = b""
    while content:
        part = zlib.decompressobj(31)
        try:
            text += part.decompress(content)
        except zlib.error:
            raise SetAside("truncated_gzip") from None
        if not part.eof:
            raise SetAside("truncated_gzip")
        content = part.unused_data.lstrip(b"\0")
    return text


def text_of(file: RawFile) -> str:
    """The file's text with one character per byte (Latin-1), so that line ends and quotes can be
    found in any bytes."""
    content = file.content
    if content.startswith(b"\x1f\x8b"):
        content = unpacked(content)
    if content.startswith(FORMATS) or content[257:262] == b"ustar" or PAGE.match(content):
        raise SetAside("wrong_format")
    first_line = content.lstrip(b" \t\r\n").split(b"\n")[0]
    if content.startswith(UTF16_MARKS) or 0.3 < share_of_zeros(first_line) < 0.8:
        raise SetAside("utf16")
    return content.decode("latin-1")


def share_of_zeros(content: bytes) -> float:
    return content.count(0) / max(len(content), 1)


@dataclass(frozen=True)
class Shape:
    """How the records of a text are separated.

    `width` is the number of fields of a whole row, 0 before the header is known; `returns` says
    that a carriage return alone ends a line.
    """

    separator: str = ","
    width: int = 0
    returns: bool = True

    def goes_on(self, text: str, position: int) -> int:
        """How many characters of a line break at `position` are within a value, not behind it."""
        if not self.width:
            return 0
        escaped = re.compile(r"\\(\r\n|\r|\n)").match(text, position)
        bare = re.compile(r"\r(?!\n)").match(text, position)
        found = escaped or (None if self.returns else bare)
        if not found or found.end() == len(text):
            return 0
        following = PHYSICAL_LINE.match(text, found.end()).group()
        return 0 if following.count(self.separator) + 1 == self.width else len(found.group())


def split_fields(text: str, position: int, shape: Shape) -> tuple[list[str] | None, int, bool]:
    """The fields of a record, where it ends, and whether a value without quotes goes over a break.

    None: a quote that is not closed, or text behind a closed one.
    """
    blank = "[ ]*" if shape.separator == "\t" else r"[ \t]*"
    sign = re.escape(shape.separator)
    opening = re.compile(blank + '"')
    quoted = re.compile(rf'{blank}"([^"]*(?:""[^"]*)*)"{blank}(?=[{sign}\r\n]|\Z)')
    plain = re.compile(rf"(?:[^{sign}\r\n\\]|\\(?![\r\n]))*")
    fields, broken = [], False
    while True:
        if opening.match(text, position):
            match = quoted.match(text, position)
            if not match:
                return None, position, False
            fields.append(match.group(1).replace('""', '"'))
            position = match.end()
        else:
            begin = position
            position = plain.match(text, position).end()
            while more := shape.goes_on(text, position):
                position, broken = plain.match(text, position + more).end(), True
            if text[position : position + 1] == "\\":
                position += 1
            fields.append(text[begin:position])
        if text[position : position + 1] != shape.separator:
            return fields, position, broken
        position += 1


def split_records(text: str, shape: Shape = Shape()) -> Iterator[Split]:
    """All records but blank lines.

    A record with a broken quote is one line; reading goes on with the next line.
    """
    position, line = 0, 1
    while position < len(text):
        begin = position
        while text.startswith(MARK, begin):
            begin += len(MARK)
        fields, end, broken = split_fields(text, begin, shape)
        if fields is None:
            end = PHYSICAL_LINE.match(text, position).end()
        record = Split(line, text[position:end], fields, end, broken)
        if not record.is_blank:
            yield record
        line += len(LINE_END.findall(record.raw)) + 1
        line_end = LINE_END.match(text, end)
        position = line_end.end() if line_end else len(text)


@dataclass
class Header:
    """The columns of a file, in lower case, and what separates them.

    `above`: the lines above it. `trailing`: every row in the head of the file ends with one empty
    field more. `points`: a point in an amount is a decimal point.
    """

    dataset: str
    names: list[str]
    separator: str
    titles: list[str] = field(default_factory=list)
    start: int = 0
    returns: bool = False
    above: list[str] = field(default_factory=list)
    trailing: bool = False
    points: bool = True

    @property
    def places(self) -> dict[str, int]:
        """Where the columns of the table are."""
        return {column: self.names.index(column) for column in COLUMNS[self.dataset]}

    @property
    def shape(self) -> Shape:
        return Shape(self.separator, len(self.names), self.returns)


def header_of(dataset: str, text: str) -> Header:
    """The header of a file: its first line that says something, or one of the twenty below."""
    wanted = set(COLUMNS[dataset])
    lines = [line for line in re.finditer(r"[^\r\n]+", text[: 2 * HEAD]) if says(line.group())]
    if not lines:
        raise SetAside("empty_file")
    found = (header_at(dataset, text, line.start()) for line in lines[:21])
    first = header_at(dataset, text, lines[0].start())
    whole = (one for one in found if wanted <= set(one.names))
    header = first if wanted & set(first.names) else next(whole, first)
    needed = [name for name in header.names if name in wanted]
    if not needed:
        first = PHYSICAL_LINE.match(text, header.start).group()
        raise SetAside(
            "binary" if "\ufffd" in utf8(first, "replace") or "\0" in first else "no_header"
        )
    if set(needed) != wanted:
        raise SetAside("missing_column")
    if len(needed) != len(set(needed)):
        raise SetAside("duplicate_column")
    header.above = [line.group() for line in lines if line.start() < header.start]
    width = len(header.names)
    if any(one.count(header.separator) + 1 > width / 2 for one in header.above):
        raise SetAside("no_header")
    if any(one.count('"') % 2 for one in LINE_END.split(text[: header.start])):
        raise SetAside("no_header")
    if header.above and not header.returns and re.search(r"\r(?!\n)", text[: header.start]):
        raise SetAside("no_header")
    return header


def says(line: str) -> bool:
    """Whether a line is no blank one, and not Excel's `sep=;`."""
    text = utf8(without_marks(line), "replace")
    bare = text.strip(BLANKS + "\x1a" + '",;|')
    return bool(bare) and not STATED_SEPARATOR.fullmatch(text.strip())


def header_at(dataset: str, text: str, start: int) -> Header:
    """The record that begins there, split at the sign by which most columns are found in it."""
    headers = []
    for sign in SEPARATORS:
        first = next(split_records(text[start:], Shape(sign)), Split(1, "", []))
        first = first if first.line == 1 else Split(1, "", [])
        names = column_names(dataset, first)
        end = text[start + first.end : start + first.end + 2]
        returns = end[:1] == "\r" and end != "\r\n"
        headers.append(Header(dataset, names, sign, first.titles, start, returns))
    return max(headers, key=lambda one: len(set(COLUMNS[dataset]) & set(one.names)))


def column_names(dataset: str, first: Split) -> list[str]:
    """The names of a header; another spelling of a column's name is that column, if there is one
    such spelling only."""
    names = [name.strip("'") for name in first.names]
    for column in COLUMNS[dataset]:
        title = column.replace("_", "")
        places = [place for place, one in enumerate(first.titles) if one == title]
        if column not in names and len(places) == 1:
            names[places[0]] = column
    return names


def ends_with_empty_field(record: Split, width: int) -> bool:
    return len(record.names) == width + 1 and record.names[-1] == ""


def utf8(text: str, errors: str = "strict") -> str:
    return text.encode("latin-1").decode("utf-8", errors)


def is_utf8(text: str) -> bool:
    try:
        utf8(text)
    except UnicodeDecodeError:
        return False
    return True


def shape_problem(record: Split, header: Header) -> str | None:
    """Why a record cannot be laid on its header, if so."""
    titles, width = record.titles, len(header.names)
    wanted = {place: header.titles[place] for place in header.places.values()}
    if set(wanted.values()) <= set(titles):
        if any(titles[place : place + 1] != [title] for place, title in wanted.items()):
            raise SetAside("mixed_headers")
        return "repeated_header"
    if not is_utf8(record.raw):
        return "invalid_utf8"
    if CONTROLS & set(record.raw):
        return "control_character"
    if record.fields is None:
        return "unclosed_quote"
    if record.broken and LINE_END.search(record.raw.removesuffix("\r")):
        return "broken_line"
    for line in LINE_END.split(record.raw)[1:]:
        within = line.split('"')[0]
        if line.count(header.separator) == width - 1 and header.separator in within:
            return "swallowed_row"
    if header.trailing and ends_with_empty_field(record, width):
        return None
    if len(record.fields) != width:
        return "too_few_fields" if len(record.fields) < width else "too_many_fields"
    return None


@dataclass
class ReadFile:
    """A file that was read: its header, the valid rows and the rejected ones."""

    header: Header
    rows: list[Row] = field(default_factory=list)
    rejected: list[Record] = field(default_factory=list)

    @property
    def rows_read(self) -> int:
        return len(self.rows) + len(self.rejected)


def read_file(file: RawFile, replayed: bool = False, max_rejected_percent: int = 50) -> ReadFile:
    """All rows of a file; SetAside where it cannot be taken as a whole."""
    dataset = dataset_or_aside(file.path)
    text = text_of(file)
    header = header_of(dataset, text)
    read = ReadFile(header)
    swapped = quoted_singly(text, header)
    records = records_of(swap_quotes(text) if swapped else text, header)
    head = [record for record in records if record.end <= HEAD]
    width = len(header.names)
    header.trailing = bool(head) and all(ends_with_empty_field(one, width) for one in head)
    header.points = header.separator == "," or points_are_decimal(head, header)
    for record in records:
        row = read_record(file, unswapped(record) if swapped else record, header, replayed)
        (read.rows if isinstance(row, Row) else read.rejected).append(row)
    bad, all_rows = len(read.rejected), read.rows_read
    if all_rows >= 20 and bad / all_rows > max_rejected_percent / 100:
        raise SetAside("mostly_rejected")
    return read


def records_of(text: str, header: Header) -> list[Split]:
    """The records behind the header."""
    before = len(LINE_END.findall(text[: header.start]))
    records = list(split_records(text[header.start :], header.shape))[1:]
    lines = [replace(record, line=record.line + before) for record in records]
    return [record for record in lines if record.raw.rstrip("\r") not in header.above]


def swap_quotes(text: str) -> str:
    """A text with single quotes for double ones, and the other way round."""
    return text.translate({ord("'"): '"', ord('"'): "'"})


def unswapped(record: Split) -> Split:
    fields = None if record.fields is None else [swap_quotes(one) for one in record.fields]
    return replace(record, raw=swap_quotes(record.raw), fields=fields)


def quoted_singly(text: str, header: Header) -> bool:
    """Whether every value of every row in the head of a file stands in single quotes."""
    sign, value = re.escape(header.separator), r"[ \t]*'(?:[^']|'')*'[ \t]*"
    lines = LINE_END.split(text[header.start :][:HEAD])[1:]
    rows = [line for line in (lines if len(text) < HEAD // 4 else lines[:-1]) if says(line)]
    return bool(rows) and all(re.fullmatch(f"{value}({sign}{value})*", line) for line in rows)


def points_are_decimal(head: list[Split], header: Header) -> bool:
    """Whether other amounts tell that 1.234 is one and a bit."""
    places = [
        header.places[name] for name, kind in COLUMNS[header.dataset].items() if kind == "double"
    ]
    amounts = [
        record.fields[place].strip()
        for record in head
        for place in places
        if record.fields and place < len(record.fields)
    ]
    return any(map(POINT_DECIMAL.fullmatch, amounts)) and not any("," in one for one in amounts)


def amount_text(text: str | None, header: Header) -> str | None:
    """An amount of a file without commas between its columns, in the notation with a point."""
    if text is None or header.separator == ",":
        return text
    if GERMAN_NUMBER.fullmatch(text):
        return text.replace(".", "").replace(",", ".")
    if COMMA_NUMBER.fullmatch(text):
        return text.replace(",", ".")
    ambiguous = POINT_THOUSANDS.fullmatch(text) and not header.points
    return text.replace(".", ",") if ambiguous else text


def read_record(file: RawFile, record: Split, header: Header, replayed: bool) -> Row | Record:
    """A record as a valid row, or as a rejected one with all its reasons."""
    dataset, source = header.dataset, Source(file.path, file.content, record.line)
    problem = shape_problem(record, header)
    texts, values, reasons = None, {}, [problem]
    if not problem:
        cells = {name: utf8(record.fields[place]) for name, place in header.places.items()}
        texts = {name: text_in(cells[name], kind) for name, kind in COLUMNS[dataset].items()}
        if "total_amount" in texts:
            texts["total_amount"] = amount_text(texts["total_amount"], header)
        values, reasons = check_row(dataset, texts, file.modified)
    raw = utf8(record.raw) if is_utf8(record.raw) else record.raw
    said = sum(value is not None for value in values.values())
    delivery = (file.modified, file.path, said, record.line)
    if reasons:
        key = values.get(KEY[dataset])
        return Record(dataset, "rejected", reasons, key, source, raw, texts, delivery)
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
        manifest, new, taken = [], [], set()
        listed = [file for file in files if is_news(file, now)]
        for file in sorted(listed, key=lambda each: (each.modified, each.path)):
            known = file.identity in self.ledger
            result = FileResult(file.path, dataset_of(file.path), "loaded")
            manifest.append(result)
            if file.identity in taken or (known and not force):
                result.outcome = "duplicate"
                continue
            try:
                read = read_file(file, known, max_rejected_percent)
            except SetAside as reason:
                result.outcome, result.reason = "set_aside", str(reason)
                continue
            if file.path in reused:
                result.outcome, result.reason = "set_aside", "keys_reused"
                continue
            in_turn = (file.modified, file.path) > self.last_delivery
            if not (known or archived or in_turn):
                raise ValueError(
                    f"{file.path} was delivered before {self.last_delivery}: give the model its "
                    "runs in order"
                )
            taken.add(file.identity)
            self.take_in(file, read, result, counts[result.dataset])
            arrived[result.dataset] += read.rows
            new += [] if known else [(file.modified, file.path)]
        for dataset in ("products", "orders"):
            self.load(arrived[dataset], counts[dataset])
        late = self.load_items(arrived["order_items"], counts["order_items"])
        worse = (
            set() if force else {row.source.path for row in self.reusing(arrived["order_items"])}
        )
        if worse:
            self.__dict__.update(before)
            return self.run(files, force, max_rejected_percent, now, archived, reused | worse)
        self.close_rejects([*(row for rows in arrived.values() for row in rows), *late])
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
        wanted = COLUMNS[read.header.dataset]
        result.ignored_columns = [name for name in read.header.names if name not in wanted]
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
        bad = {one for one, moved in outcomes.items() if sum(moved) >= max(20, len(moved) // 2 + 1)}
        return [row for row in rows if row.source.path in bad]

    def close_rejects(self, rows: list[Row]) -> None:
        """A rejected row is superseded when a later file brings a good one of its key."""
        waiting = {id(row) for row in self.parked}
        good: dict[tuple[str, str], tuple] = {}
        for row in rows:
            if id(row) not in waiting and row.outcome != "parked":
                place = row.dataset, row.key
                good[place] = max(good.get(place, ()), row.delivery[:2])
        for record in self.records.values():
            latest = good.get((record.dataset, record.record_key), ())
            if record.status == "rejected" and latest > record.delivery[:2]:
                record.status = "superseded"

    def mark(self, row: Row, outcome: str) -> None:
        """Keep the record of a row that was rejected or parked, and is replayed, in step."""
        record = self.records.get(row.source)
        if record is not None and record.status in ("rejected", "parked"):
            kept = outcome in ("parked", "superseded")
            record.status = outcome if kept else "admitted"
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
            row = waiting.get(record.source) or self.judged_again(record, counts[record.dataset])
            arrived[record.dataset] += [] if row is None else [row]
        self.parked = [row for row in self.parked if row not in arrived["order_items"]]
        for dataset in ("products", "orders"):
            self.load(arrived[dataset], counts[dataset])
        self.load_items(arrived["order_items"], counts["order_items"])
        return {"datasets": counts}

    def judged_again(self, record: Record, counts: dict) -> Row | None:
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
                beaten = [one for one in self.parked if one.key == key and dataset == one.dataset]
                for one in (one for one in beaten if one.precedence < new.precedence):
                    self.parked.remove(one)
                    self.records[one.source].status = "superseded"

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
            one
            for one in rows
            if one.key == row.key
            and one.delivery[:2] == row.delivery[:2]
            and one.values.get("order_timestamp") == version
        ]
        first = max(rivals, key=lambda one: one.delivery, default=row)
        pairs = zip(row.values.values(), first.values.values(), strict=True)
        counts["conflicting"] += any(
            mine != its for mine, its in pairs if mine is not None and its is not None
        )


def count_rejected(counts: dict, reasons: list[str]) -> None:
    counts["rejected"] += 1
    for reason in reasons:
        counts["rejected_by_reason"][reason] = counts["rejected_by_reason"].get(reason, 0) + 1
