"""Lines that are good rows at a glance: most lines of most files.

Such a line has no value that could be read in two ways, and quotes only around whole values. The
reader takes all other lines, and would take these alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from rules.headers import Header
from rules.tables import COLUMNS, CUSTOM_RULES, REQUIRED
from rules.values import latest_time

VALID_DAY = (  # but for the 29th of February
    "(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    "|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
)
DAY = f"[1-9][0-9]{{3}}-{VALID_DAY}"
TIME = r"[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?Z?"
NAME = (  # with a digit, so that it is no word for nothing; in no scientific form
    "(?:[0-9]++(?:[a-df-zA-DF-Z_-][0-9A-Za-z_-]*+)?|[A-Za-z_][A-Za-z_-]*+[0-9][0-9A-Za-z_-]*+)"
)
KINDS = {
    "name": NAME,
    "int": r"-?[0-9]{1,9}(?:\.0{1,3})?",
    "boolean": "(?:[01]|[Tt]rue|TRUE|[Ff]alse|FALSE)",
}
DAYS = ("order_timestamp", "date")  # that must be the same day
UTF8 = (  # a character of two to four bytes
    "(?:[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    "|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}"
    "|\xf4[\x80-\x8f][\x80-\xbf]{2})"
)


@dataclass(frozen=True)
class Plain:
    """What good rows of a file look like.

    A line that fits `row` is one, unless `letters` (a cell without a digit) is found `header` times
    in it: then it may be the header once more.
    """

    row: re.Pattern[str]
    letters: re.Pattern[str] | None
    header: int

    def fits(self, line: str) -> bool:
        """Whether a line is a good row."""
        if not self.row.fullmatch(line):
            return False
        return not self.letters or len(self.letters.findall(line)) < self.header


def plain_rows(header: Header, delivered: datetime) -> Plain | None:
    """Return what good rows of a file look like; None if no line is judged at a glance."""
    columns = COLUMNS[header.dataset]
    if header.quote != '"' or CUSTOM_RULES[header.dataset]:
        return None
    if any(columns[name] == "text" for name in REQUIRED[header.dataset]):
        return None
    sign = re.escape(header.separator)
    text = f'(?:"{_text("")}"|{_text(sign)})'
    by_place = {place: name for name, place in header.places.items()}
    cells, day_seen = [], False
    for place in range(len(header.names)):
        name = by_place.get(place)
        if name is None or columns[name] == "text":
            cells.append(text)
            continue
        cell = _value(name, columns[name], header, day_seen)
        if name == "order_timestamp":
            cell = _before(latest_time(delivered)) + cell
        day_seen = day_seen or name in DAYS
        cell = cell if name in REQUIRED[header.dataset] else f"(?:{cell})?+"
        cells.append(f'(?P<quote{place}>")? *+{cell} *+(?(quote{place})")')
    end = f"(?:{sign})?+" if header.trailing else ""
    letters, free = None, len(header.names) - len(columns)
    free += sum(kind in ("name", "text") for kind in columns.values())
    if free >= header.letters:
        letters = re.compile(rf"(?:^|{sign})[^{sign}\r\n0-9]*+(?=[{sign}\r]|\Z)", re.MULTILINE)
    return Plain(re.compile(sign.join(cells) + end + r"\r?"), letters, header.letters)


def _text(sign: str) -> str:
    """The pattern of any text without quotes, backslashes and the separator."""
    ascii_text = rf'[^{sign}"\\\x00-\x1f\x7f-\xff]*+'
    return f"{ascii_text}(?:{UTF8}++{ascii_text})*+"


def _value(name: str, kind: str, header: Header, day_seen: bool) -> str:
    """The pattern of a value that is not blank; `day_seen` if one of DAYS stands before it."""
    if kind == "double":
        commas = header.separator == ","
        return "-?[0-9]{1,9}(?:\\.[0-9]{1,6})?" if commas else "-?[0-9]{1,9}(?:\\.[0-9]{1,2})?"
    day = f"(?:(?(day)(?P=day)|{DAY}))" if day_seen else f"(?P<day>{DAY})"
    day = day if name in DAYS else DAY
    return {**KINDS, "date": day, "timestamp": day + TIME}[kind]


def _before(latest: datetime) -> str:
    """The pattern that looks ahead for a day before that of a time."""
    text = latest.date().isoformat()
    places = [place for place, letter in enumerate(text) if letter > "0" and letter != "-"]
    return f"(?={'|'.join(f'{text[:at]}[0-{int(text[at]) - 1}]' for at in places)})"
