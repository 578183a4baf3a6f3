"""The header of a file: where it is, how it separates columns, and which column is which."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from rules.reasons import SetAside
from rules.records import (
    LINE_END,
    LONE_RETURN,
    SEPARATORS,
    STATED_SEPARATOR,
    Shape,
    Split,
    line_at,
    split_records,
    utf8,
    without_marks,
)
from rules.tables import COLUMNS, OTHER_NAMES, REJECT_COLUMNS
from rules.values import BLANKS, POINT_DECIMAL

HEAD = 65536  # bytes from the header on, by which a field too many is judged
ABOVE_HEADER = 20  # lines
DIGIT = re.compile("[0-9]")


@dataclass
class Header:
    """The columns of a file, in lower case, and what separates them.

    `titles` are its names as written, letters and digits only; `above` the lines above it;
    `trailing`: every row in the head of the file ends with one empty field more; `points`: a point
    in an amount is a decimal point; `quote` is what stands around values.
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
    quote: str = '"'

    @functools.cached_property
    def places(self) -> dict[str, int]:
        """Where the columns of the table are."""
        return {column: self.names.index(column) for column in COLUMNS[self.dataset]}

    @functools.cached_property
    def titles_by_place(self) -> dict[int, str]:
        """The titles of the table's columns by their places."""
        return {place: self.titles[place] for place in self.places.values()}

    @functools.cached_property
    def letters(self) -> int:
        """How many columns of the table have no digit in their names."""
        return sum(not DIGIT.search(title) for title in self.titles_by_place.values())

    @property
    def shape(self) -> Shape:
        return Shape(self.separator, len(self.names), self.returns)

    @functools.cached_property
    def fixes_rejects(self) -> bool:
        """Whether it is that of a file of rejected rows, mended."""
        return set(REJECT_COLUMNS) <= set(self.names)

    @property
    def ignored(self) -> list[str]:
        """The names of columns that are none of the table's."""
        expected = {*COLUMNS[self.dataset], *(REJECT_COLUMNS if self.fixes_rejects else ())}
        return [name for name in self.names if name not in expected]


def header_of(dataset: str, text: str) -> Header:
    """Return the header in the head of a file: its first line that says something, or one of the
    twenty below."""
    columns = set(COLUMNS[dataset])
    lines = [line for line in re.finditer(r"[^\r\n]+", text[: 2 * HEAD]) if says(line.group())]
    if not lines:
        raise SetAside("empty_file")
    first = header_at(dataset, text, lines[0].start())
    header = first
    if not columns & set(first.names):
        others = islice(lines, 1, ABOVE_HEADER + 1)
        below = (header_at(dataset, text, line.start()) for line in others)
        header = next((candidate for candidate in below if columns <= set(candidate.names)), first)
    _check_names(header, text)
    header.above = [line.group() for line in lines if line.start() < header.start]
    _check_above(header, text)
    return header


def _check_names(header: Header, text: str) -> None:
    """Raise SetAside if the header does not name each column once."""
    columns = COLUMNS[header.dataset]
    needed = [name for name in header.names if name in columns]
    if not needed:
        line = utf8(without_marks(line_at(text, header.start)), "replace")
        garbled = "\ufffd" in line or "\0" in line
        raise SetAside("binary") if garbled else SetAside("no_header", _seen(line, list(columns)))
    missing = [name for name in columns if name not in needed]
    if missing:
        others = [name for name in header.names if name and name not in columns]
        near = [
            similar for name in missing for similar in difflib.get_close_matches(name, others, 1)
        ]
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        raise SetAside("missing_column", ", ".join(missing) + hint)
    if len(needed) != len(set(needed)):
        twice = dict.fromkeys(name for name in needed if needed.count(name) > 1)
        raise SetAside("duplicate_column", ", ".join(twice))


def _seen(line: str, columns: Sequence[str]) -> str:
    """What stands where the header should be."""
    for sign in (*":/~^!*-", *SEPARATORS):
        if set(columns) <= {name.strip(BLANKS + '"').lower() for name in line.split(sign)}:
            broken = sign in SEPARATORS
            return "a broken quote" if broken else f"its columns are separated by {sign!r}"
    return "it reads " + ("a line of more than 64 kB" if len(line) >= HEAD else repr(line[:80]))


def _check_above(header: Header, text: str) -> None:
    """Raise SetAside if what stands above the header may be rows."""
    before = text[: header.start]
    glued = any(line.count('"') % 2 for line in LINE_END.split(before))
    if header.above and not header.returns and LONE_RETURN.search(before):
        glued = True
    if glued:
        raise SetAside("no_header", "a quote or a lone carriage return stands above it")
    width = len(header.names)
    if any(line.count(header.separator) + 1 > width / 2 for line in header.above):
        raise SetAside("no_header", "rows stand above it")


def says(line: str) -> bool:
    """Whether a line is neither blank nor Excel's `sep=;`."""
    text = utf8(without_marks(line), "replace")
    bare = text.strip(BLANKS + "\x1a" + '",;|')
    return bool(bare) and not STATED_SEPARATOR.fullmatch(text.strip())


def header_at(dataset: str, text: str, start: int) -> Header:
    """Return the record that begins there, split at the sign by which most columns are found."""
    headers, text = [], text[start:]
    for sign in SEPARATORS:
        first = next(split_records(text, Shape(sign)), Split(1, "", []))
        first = first if first.line == 1 else Split(1, "", [])
        names = column_names(dataset, first)
        end = text[first.end : first.end + 2]
        returns = end[:1] == "\r" and end != "\r\n"
        headers.append(Header(dataset, names, sign, first.titles, start, returns))
    return max(headers, key=lambda header: len(set(COLUMNS[dataset]) & set(header.names)))


def column_names(dataset: str, first: Split) -> list[str]:
    """Return the names of a header; another spelling of a column's name is that column, if there is
    only one such spelling."""
    names = [name.strip("'") for name in first.names]
    for column in COLUMNS[dataset]:
        others = OTHER_NAMES[dataset].get(column, ())
        spellings = {"".join(filter(str.isalnum, name.lower())) for name in (column, *others)}
        places = [place for place, title in enumerate(first.titles) if title in spellings]
        if column not in names and len(places) == 1 and names[places[0]] not in COLUMNS[dataset]:
            names[places[0]] = column
    return names


def swap_quotes(text: str) -> str:
    """Return a text with single quotes for double ones, and the other way round."""
    return text.translate({ord("'"): '"', ord('"'): "'"})


def quoted_singly(text: str, header: Header) -> bool:
    """Whether every value of every row in the head of a file stands in single quotes."""
    sign, value = re.escape(header.separator), r"[ \t]*'[^']*+(?:''[^']*+)*+'[ \t]*"
    row = re.compile(f"{value}(?:{sign}{value})*")
    lines = LINE_END.split(text[header.start :][:HEAD])[1:]
    rows = [line for line in (lines if len(text) < HEAD // 4 else lines[:-1]) if says(line)]
    return bool(rows) and all(row.fullmatch(line) for line in rows)


def judge_head(header: Header, head: Sequence[Split]) -> None:
    """Set in a header what the rows in the head of its file tell of all rows."""
    width = len(header.names)
    header.trailing = bool(head) and all(ends_with_empty_field(record, width) for record in head)
    header.points = header.separator == "," or points_are_decimal(header, head)


def ends_with_empty_field(record: Split, width: int) -> bool:
    """Whether a record has one field more than the header, and nothing in it."""
    return len(record.fields or ()) == width + 1 and record.names[-1] == ""


def points_are_decimal(header: Header, head: Sequence[Split]) -> bool:
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
    return any(map(POINT_DECIMAL.fullmatch, amounts)) and not any(
        "," in amount for amount in amounts
    )
