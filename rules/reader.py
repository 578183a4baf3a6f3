"""Files to rows: each row with its values, or with all that is wrong with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from typing import BinaryIO

from rules.headers import (
    DIGIT,
    HEAD,
    Header,
    ends_with_empty_field,
    header_of,
    judge_head,
    quoted_singly,
    swap_quotes,
)
from rules.paths import dataset_or_aside
from rules.plain import plain_rows
from rules.reasons import SetAside
from rules.records import CONTROL, LINE_END, Records, Split, is_utf8, pieces_of, utf8
from rules.tables import COLUMNS, Value
from rules.values import (
    BLANKS,
    COMMA_NUMBER,
    GERMAN_NUMBER,
    POINT_THOUSANDS,
    check_row,
    text_in,
)

FIRST = 4 * HEAD  # bytes in which the header is looked for
FEWEST_ROWS = 20  # of a file that can be mostly_rejected
SAVE_AS_CSV = "save it as CSV UTF-8"
FORMATS = (  # how the bytes of a file begin that is no CSV, what it is and what to do
    (rb"PK\x03\x04.{,3000}?xl/", f"an Excel workbook: {SAVE_AS_CSV}"),
    (rb"PK\x03\x04.{26}mimetypeapplication/vnd\.oasis", f"an OpenDocument file: {SAVE_AS_CSV}"),
    (rb"PK\x03\x04.{26}\[Content_Types\]", f"an Office document: {SAVE_AS_CSV}"),
    (rb"PK\x03\x04", "a zip archive: unpack it and upload the CSV files in it"),
    (rb"\xd0\xcf\x11\xe0", f"an old Excel workbook: {SAVE_AS_CSV}"),
    (rb"%PDF", "a PDF: export the data as CSV"),
    (rb"\x1f\x8b", "a gzip file within a gzip file: unpack it once"),
    (rb".{257}ustar", "a tar archive: unpack it and upload the CSV files in it"),
    (rb"PAR1|ORC|Obj\x01", "a Parquet, ORC or Avro file: export the data as CSV"),
    (rb"BZh\d1AY|\x28\xb5\x2f\xfd|7z\xbc\xaf|\xfd7zXZ|Rar!", "packed, but not by gzip: unpack it"),
    (
        rb"(?i)(?:\xef\xbb\xbf)?\s*(?:<!doctype|<html|<\?xml|<error)",
        "a page of HTML or XML, perhaps an error of the server it came from: export it again",
    ),
)
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(slots=True)
class CheckedRow:
    """A row of a file.

    line     the line at which it begins
    raw      its text; one character per byte if it is not UTF-8
    values   the typed values by column; empty if its fields cannot be laid on the header
    texts    what the values were read from; None likewise
    reasons  why it is rejected; empty for a good row
    where    in a file of rejected rows, mended: the place of the row that it comes from
    """

    line: int
    raw: str
    values: dict[str, Value]
    texts: dict[str, str | None] | None
    reasons: list[str]
    where: str = ""


@dataclass
class Reading:
    """A file while it is read: its header, whether its last line has no line end, and how many rows
    have been read and rejected."""

    header: Header
    cut: bool
    delivered: datetime
    records: Iterator[Split]
    source: Records
    read: int = 0
    rejected: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)

    def rows(self, is_chosen: Callable[[str], bool] | None = None) -> Iterator[CheckedRow]:
        """Yield every row, or only those whose raw text, as Latin-1, passes a test."""
        for record in self.records:
            if is_chosen is None or is_chosen(record.raw):
                yield self._judge(record)

    def bad_rows(self) -> Iterator[CheckedRow]:
        """Yield the rejected rows alone; the others are counted."""
        plain = plain_rows(self.header, self.delivered)
        for record in self.records:
            if plain and plain.fits(record.raw):
                self.read += 1
            else:
                row = self._judge(record)
                if row.reasons:
                    yield row
            if plain:
                self.read += self.source.skip(plain.row, plain.letters, plain.header)

    def _judge(self, record: Split) -> CheckedRow:
        row = read_record(record, self.header, self.delivered)
        self.read += 1
        if row.reasons:
            self.rejected += 1
            self.by_reason.update(row.reasons)
        return row

    def finish(self, max_rejected_percent: int = 50) -> None:
        """Raise SetAside if too many of the rows read are rejected."""
        if self.read >= FEWEST_ROWS and self.rejected * 100 > self.read * max_rejected_percent:
            counts = [item for item in self.by_reason.items() if item[0] != "repeated_header"]
            commonest = sorted(counts, key=lambda item: (-item[1], item[0]))[:5]
            reasons = ", ".join(f"{reason} {count}" for reason, count in commonest)
            seen = f"{self.rejected} of {self.read} rows: {reasons}"
            raise SetAside("mostly_rejected", seen)


def open_file(path: str, stream: BinaryIO, delivered: datetime) -> Reading:
    """Read the header of a file, given its path below the raw prefix and its bytes.

    Raises SetAside, as the rows may do, if the file cannot be taken as a whole. `delivered` is in
    UTC without a time zone.
    """
    dataset = dataset_or_aside(path)
    last = b""
    for piece in pieces_of(stream):  # to its end: a damaged gzip file is nothing else
        last = piece[-1:] or last
    pieces = pieces_of(stream)
    first = b""
    for piece in pieces:
        first += piece
        if len(first) >= FIRST:
            break
    check_format(first)
    text = first.decode("latin-1")
    header = header_of(dataset, text)
    header.quote = "'" if quoted_singly(text, header) else '"'
    later_texts = (piece.decode("latin-1") for piece in pieces)
    texts: Iterable[str] = chain([text[header.start :]], later_texts)
    if header.quote == "'":
        texts = map(swap_quotes, texts)
    above = len(LINE_END.findall(text[: header.start]))
    source = Records(texts, header.shape, above + 1)
    records = _rows_of(source, header)
    head = []
    for record in records:
        head.append(record)
        if record.end > HEAD:
            break
    judge_head(header, [record for record in head if record.end <= HEAD])
    all_records: Iterator[Split] = chain(head, records)
    if header.quote == "'":
        all_records = map(unswapped, all_records)
    cut = last not in (b"\n", b"\r", b"\x1a")
    return Reading(header, cut, delivered, all_records, source)


def _rows_of(source: Records, header: Header) -> Iterator[Split]:
    """Yield the records behind the header that do not repeat a line above it."""
    next(source, None)
    for record in source:
        if record.raw.rstrip("\r") not in header.above:
            yield record


def check_format(first: bytes) -> None:
    """Raise SetAside if the first bytes of a file are not those of a text in one-byte steps."""
    what = next((what for begin, what in FORMATS if re.match(begin, first, re.DOTALL)), None)
    if what:
        raise SetAside("wrong_format", what)
    line = first.lstrip(b" \t\r\n").split(b"\n")[0]
    if first.startswith(UTF16_MARKS) or 0.3 < line.count(0) / max(len(line), 1) < 0.8:
        raise SetAside("utf16")


def unswapped(record: Split) -> Split:
    """Return a record whose quotes were swapped as it stands in its file."""
    fields = None if record.fields is None else [swap_quotes(value) for value in record.fields]
    return replace(record, raw=swap_quotes(record.raw), fields=fields)


def read_record(record: Split, header: Header, delivered: datetime) -> CheckedRow:
    """Return a record as a row with its values or with all its reasons."""
    problem = shape_problem(record, header)
    whole = is_utf8(record.raw)
    raw = utf8(record.raw) if whole else record.raw
    where = where_of(record, header) if whole else ""
    if problem:
        return CheckedRow(record.line, raw, {}, None, [problem], where)
    texts = texts_of(record, header)
    values, reasons = check_row(header.dataset, texts, delivered)
    return CheckedRow(record.line, raw, values, texts, reasons, where)


def texts_of(record: Split, header: Header) -> dict[str, str | None]:
    """Return the texts of a row by column."""
    fields, texts, escaped = record.fields or [], {}, header.fixes_rejects
    plain, places = record.raw.isascii(), header.places
    for name, kind in COLUMNS[header.dataset].items():
        cell = fields[places[name]] if plain else utf8(fields[places[name]])
        text = text_in(cell.removeprefix("'") if escaped else cell, kind)
        texts[name] = amount_text(text, header) if kind == "double" else text
    return texts


def amount_text(text: str | None, header: Header) -> str | None:
    """Return an amount of a file without commas between columns in the notation with a point."""
    if text is None or header.separator == ",":
        return text
    if GERMAN_NUMBER.fullmatch(text):
        return text.replace(".", "").replace(",", ".")
    if COMMA_NUMBER.fullmatch(text):
        return text.replace(",", ".")
    ambiguous = not header.points and POINT_THOUSANDS.fullmatch(text)
    return text.replace(".", ",") if ambiguous else text


def where_of(record: Split, header: Header) -> str:
    """Return the place of the row that a row of a mended file comes from; empty in other files."""
    place = header.names.index("where") if header.fixes_rejects else 0
    if not header.fixes_rejects or len(record.fields or ()) <= place:
        return ""
    return utf8((record.fields or [])[place]).strip(BLANKS).removeprefix("'")


def shape_problem(record: Split, header: Header) -> str | None:
    """Return why a record cannot be laid on its header, if so; SetAside if it is another header."""
    reason = repeated_header(record, header)
    if reason:
        return reason
    if not is_utf8(record.raw):
        return "invalid_utf8"
    if CONTROL.search(record.raw):
        return "control_character"
    if record.fields is None:
        return "unclosed_quote"
    width = len(header.names)
    if "\n" in record.raw or "\r" in record.raw:
        if record.broken and LINE_END.search(record.raw.removesuffix("\r")):
            return "broken_line"
        for line in LINE_END.split(record.raw)[1:]:
            within = line.split('"')[0]
            if line.count(header.separator) == width - 1 and header.separator in within:
                return "swallowed_row"
    if len(record.fields) == width:
        return None
    if header.trailing and ends_with_empty_field(record, width):
        return None
    return "too_few_fields" if len(record.fields) < width else "too_many_fields"


def repeated_header(record: Split, header: Header) -> str | None:
    """Return the reason of a record that is the header once more."""
    digits = [cell for cell in record.fields or () if DIGIT.search(cell)]
    if len(record.fields or ()) - len(digits) < header.letters:
        return None
    titles = record.titles
    if not set(header.titles_by_place.values()) <= set(titles):
        return None
    if any(titles[place : place + 1] != [title] for place, title in header.titles_by_place.items()):
        raise SetAside("mixed_headers")
    return "repeated_header"
