"""Bytes to records: packed files, line ends, quotes, and lines that are no rows.

Text has one character per byte (Latin-1), so that line ends and quotes are found in any bytes.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from rules.reasons import SetAside
from rules.values import BLANKS

PIECE = 1 << 18  # bytes that are read at once
PACKED_PIECE = 1 << 14  # of a gzip file, which may become a thousand times as many
MARK = "\xef\xbb\xbf"  # a byte order mark
GZIP = b"\x1f\x8b"
SEPARATORS = [",", ";", "\t", "|"]
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
TABLE_DRAWING = set("-=+:|,; \t")
LINE_END = re.compile(r"\r\n|\r|\n")
PHYSICAL_LINE = re.compile(r"[^\r\n]*")
STATED_SEPARATOR = re.compile(r"sep=.?", re.IGNORECASE)
WORD = re.compile(r"[0-9A-Za-z]")
ESCAPED_BREAK = re.compile(r"\\(\r\n|\r|\n)")
LONE_RETURN = re.compile(r"\r(?!\n)")


def utf8(text: str, errors: str = "strict") -> str:
    """Return the text that the bytes are in UTF-8."""
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", errors)


def is_utf8(text: str) -> bool:
    """Whether the bytes are UTF-8."""
    try:
        utf8(text)
    except UnicodeDecodeError:
        return False
    return True


def without_marks(text: str) -> str:
    """Return a text without the byte order marks at its start."""
    while text.startswith(MARK):
        text = text[len(MARK) :]
    return text


# ---- bytes
def pieces_of(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of a stream, unpacked if it is a gzip file; SetAside if that is damaged."""
    stream.seek(0)
    packed = stream.read(len(GZIP)) == GZIP
    stream.seek(0)
    size = PACKED_PIECE if packed else PIECE
    pieces = iter(lambda: stream.read(size), b"")
    yield from unpacked(pieces) if packed else pieces


def unpacked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the text of all parts of a gzip file; zeros behind the last one are no text."""
    part, used = zlib.decompressobj(31), False
    for piece in pieces:
        while piece:
            if part.eof:
                part, used = zlib.decompressobj(31), False
            if not used:
                piece = piece.lstrip(b"\0")
            used = used or bool(piece)
            try:
                yield part.decompress(piece)
            except zlib.error as error:
                raise SetAside("truncated_gzip", str(error)) from None
            piece = part.unused_data
    if used and not part.eof:
        raise SetAside("truncated_gzip", "the gzip stream ends too early")


# ---- records
@dataclass
class Split:
    """A record of a file: its first physical line, its text, its fields or None.

    `end` is where the record ends in the text; `broken` says that a value without quotes goes over
    a line break.
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
        """Whether it is an empty line, blank cells only, the end of a DOS file, or Excel's
        `sep=;`."""
        if self.fields is not None and self.raw[:1] not in "sS\xef" and WORD.search(self.raw):
            return False
        text = utf8(without_marks(self.raw), "replace")
        if text == "\x1a" or STATED_SEPARATOR.fullmatch(text):
            return True
        return self.fields is not None and all(set(name) <= TABLE_DRAWING for name in self.names)

    @property
    def titles(self) -> list[str]:
        """The fields by their letters and digits."""
        return ["".join(filter(str.isalnum, name)) for name in self.names]


@dataclass(frozen=True)
class Shape:
    """How the records of a text are separated.

    `width` is the number of fields of a whole row, 0 before the header is known; `returns` says
    that a carriage return alone ends a line.
    """

    separator: str = ","
    width: int = 0
    returns: bool = True

    @functools.cached_property
    def patterns(self) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
        """A quoted field with what must follow it; one whatever follows; a field without quotes."""
        blank = "[ ]*+" if self.separator == "\t" else r"[ \t]*+"
        sign = re.escape(self.separator)
        quoted = rf'{blank}"([^"]*+(?:""[^"]*+)*+)"{blank}'
        plain = rf"(?:[^{sign}\r\n\\]|\\(?![\r\n]))*+"
        return (
            re.compile(rf"{quoted}(?=[{sign}\r\n]|\Z)"),
            re.compile(quoted),
            re.compile(plain),
        )

    @functools.cached_property
    def opening(self) -> re.Pattern[str]:
        return re.compile("[ ]*" + '"' if self.separator == "\t" else r'[ \t]*"')

    def goes_on(self, text: str, position: int) -> int:
        """Return how many characters of a line break at `position` are within a value."""
        if not self.width:
            return 0
        escaped = ESCAPED_BREAK.match(text, position)
        line_break = escaped or (None if self.returns else LONE_RETURN.match(text, position))
        if not line_break or line_break.end() == len(text):
            return 0
        following = line_at(text, line_break.end())
        return 0 if following.count(self.separator) + 1 == self.width else len(line_break.group())


def line_at(text: str, position: int) -> str:
    """Return the physical line that begins at a position, without its end."""
    match = PHYSICAL_LINE.match(text, position)
    return match.group() if match else ""


def split_fields(text: str, position: int, shape: Shape) -> tuple[list[str] | None, int, bool]:
    """Return the fields of a record, where it ends, and whether a value without quotes goes over a
    line break.

    None with the place of the field: a quote that is not closed, or text behind a closed one.
    """
    quoted, _, plain = shape.patterns
    fields, broken = [], False
    while True:
        if shape.opening.match(text, position):
            match = quoted.match(text, position)
            if not match:
                return None, position, False
            fields.append(match.group(1).replace('""', '"'))
            position = match.end()
        else:
            begin = position
            position = _end(plain, text, position)
            while length := shape.goes_on(text, position):
                position, broken = _end(plain, text, position + length), True
            if text[position : position + 1] == "\\":
                position += 1
            fields.append(text[begin:position])
        if text[position : position + 1] != shape.separator:
            return fields, position, broken
        position += 1


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


class Records:
    """All records of a text but blank ones; a record with a broken quote is one line.

    The text comes in pieces, of which as few are kept as the next record needs.
    """

    def __init__(self, pieces: Iterable[str], shape: Shape, line: int = 1) -> None:
        self.shape, self.line = shape, line
        self._pieces = iter(pieces)
        self._text, self._position, self._before = "", 0, 0
        self._whole = False  # the end of the text is in memory
        self._line_end = "\n"  # in a file of an old Mac "\r"

    def __iter__(self) -> Iterator[Split]:
        return self

    def __next__(self) -> Split:
        while self._position < len(self._text) or self._grow():
            record = self._simple() or self._any()
            if record and not record.is_blank:
                return record
        raise StopIteration

    def skip(self, row: re.Pattern[str], letters: re.Pattern[str] | None, header: int) -> int:
        """Pass the lines from here on that fit a row's pattern, and return how many there are.

        Stops at a line in which `letters` is found `header` times: it may be a header.
        """
        text, position, count = self._text, self._position, 0
        while True:
            end = text.find(self._line_end, position)
            if end < 0 or not row.fullmatch(text, position, end):
                break
            if letters and len(letters.findall(text, position, end)) >= header:
                break
            position, count = end + 1, count + 1
        self._position, self.line = position, self.line + count
        return count

    def _grow(self) -> bool:
        """Read on, at least as much as is kept; False at the end of the text."""
        parts, size = [self._text[self._position :]], 0
        min_size = max(len(parts[0]), 1)
        while size < min_size and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            size += len(piece)
        self._whole = size < min_size
        self._before += self._position
        self._text, self._position = "".join(parts), 0
        return size > 0

    def _simple(self) -> Split | None:
        """The record at this place, if it is a line without quotes and odd line breaks."""
        text, position = self._text, self._position
        stop = text.find(self._line_end, position)
        if stop < 0 and self._whole and self.shape.returns:
            self._line_end = "\r"
            stop = text.find(self._line_end, position)
        if stop < 0:
            return None
        raw = text[position:stop]
        if raw[-1:] == "\r":
            raw = raw[:-1]
        if '"' in raw or "\\" in raw or "\r" in raw:
            return None
        fields = without_marks(raw).split(self.shape.separator)
        record = Split(self.line, raw, fields, self._before + position + len(raw))
        self._position, self.line = stop + 1, self.line + 1
        return record

    def _any(self) -> Split | None:
        """The record at this place; None if more of the text was read."""
        text, position = self._text, self._position
        begin = position
        while text.startswith(MARK, begin):
            begin += len(MARK)
        fields, end, broken = split_fields(text, begin, self.shape)
        if not self._whole and not self._is_certain(fields, end, position):
            self._grow()
            return None
        if fields is None:
            end = _end(PHYSICAL_LINE, text, position)
            fields, _, _ = split_fields(text[:end], begin, self.shape)  # it may be in order alone
        record = Split(self.line, text[position:end], fields, self._before + end, broken)
        self.line += len(LINE_END.findall(record.raw)) + 1
        self._position = _end(LINE_END, text, end)
        return record

    def _is_certain(self, fields: list[str] | None, end: int, position: int) -> bool:
        """Whether the text behind what is in memory cannot change a record."""
        if fields is not None:  # its end depends on the next line
            return self._text.find("\n", end + 2) >= 0
        closed = self.shape.patterns[1].match(self._text, end)
        line = self._text.find("\n", position)
        return closed is not None and closed.end() < len(self._text) and line >= 0


def split_records(text: str, shape: Shape = Shape()) -> Iterator[Split]:
    """Yield all records of a text but blank lines."""
    return Records([text], shape)
