"""Text to value, and what is wrong with a row's texts."""

from __future__ import annotations

import functools
import itertools
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta

from rules.tables import COLUMNS, CUSTOM_RULES, REQUIRED, Value

# What Unicode takes for white space, and what is written with no width at all
BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"
BLANKS += "".join(map(chr, range(0x2000, 0x200B)))
UNSEEN = {
    chr(code)
    for code in itertools.chain(range(0x20000), range(0xE0000, 0xE0080))  # no others have any
    if unicodedata.category(chr(code)) == "Cf"
}
BLANKS += "".join(sorted(UNSEEN))
NO_VALUE = {"", "null", "\\n", "nan", "na", "n/a", "none", "nat", "undefined", "object object"}
NO_VALUE |= {"#n/a", "#ref!", "#name?", "#value!", "#div/0!", "#num!", "#null!"}
NO_TEXT = {"", "NULL", "\\N"}
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
WHOLE = re.compile(r"[0-9]+\.0+")
INTEGER = re.compile(r"([+-]?[0-9]+)(?:\.0+)?")
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
WRAPPED = re.compile(r'="([^"]*)"')
FEW_DIGITS = 15  # that a double always holds
MOST_DIGITS = 38  # of a decimal
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


def parse_timestamp(text: str) -> datetime:
    """Return the time in UTC; raise ValueError if the text is no timestamp."""
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
    if not sign:
        return local
    offset = timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0))
    if offset > timedelta(hours=18) or int(offset_minutes or 0) > 59:
        raise ValueError(text)
    try:
        return local + offset if sign == "-" else local - offset
    except OverflowError:
        raise ValueError(text) from None


@functools.lru_cache(4096)
def parse_date(text: str) -> date:
    """Return the day; raise ValueError if the text is no date."""
    match = DATE.fullmatch(text)
    if not match:
        raise ValueError(text)
    return date.fromisoformat(match.group(1))


def parse_int(text: str) -> int:
    """Return an integer of 32 bits, else raise ValueError."""
    match = INTEGER.fullmatch(text)
    if not match or not -(2**31) <= int(match.group(1)) < 2**31:
        raise ValueError(text)
    return int(match.group(1))


def parse_double(text: str) -> float:
    """Return a finite double that holds all digits of the text, else raise ValueError."""
    if not NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(text)
    value = float(text)
    written, held = significant_digits(text), significant_digits(repr(value))
    if (len(written) > FEW_DIGITS and written != held) or (value == 0) != (written == ""):
        raise ValueError(text)
    return value + 0.0  # -0.0 becomes 0.0


def significant_digits(number: str) -> str:
    """Return the digits of a number without sign, point, exponent and the zeros at both ends."""
    mantissa = number.lower().partition("e")[0]
    return mantissa.lstrip("+-").replace(".", "").strip("0")


def parse_boolean(text: str) -> bool:
    """Return the truth value of a word, else raise ValueError."""
    if text.lower() not in BOOLEANS:
        raise ValueError(text)
    return BOOLEANS[text.lower()]


def unwrapped(text: str) -> str:
    """Return the text in Excel's `="00081"`."""
    match = WRAPPED.fullmatch(text) if text[:1] == "=" else None
    return match.group(1).strip(BLANKS) if match else text


def parse_name(text: str) -> str:
    """Return an identifier; raise ValueError if a spreadsheet has lost digits, as in
    2.02504E+11."""
    if is_number(text):
        return text
    text = unwrapped(text)
    match = SCIENTIFIC.fullmatch(text)
    if match and match.group(4) == "E" and match.group(5) and not match.group(2):
        raise ValueError(text)
    if match and (match.group(2) or match.group(4) == "e"):
        before, point, behind, sign, exponent = match.group(1, 2, 3, 5, 6)
        return whole_number(before, point, behind, sign, exponent)
    return text.partition(".")[0] if WHOLE.fullmatch(text) else text


def whole_number(before: str, point: str | None, behind: str, sign: str, exponent: str) -> str:
    """Return the digits of a number in scientific form that is whole and all there."""
    shift = int(sign + exponent)
    if shift < 0 or (point and not len(behind.rstrip("0")) <= shift <= len(behind)):
        raise ValueError(before)
    digits = (before + (behind or "")[:shift]).lstrip("0")
    digits += "0" * min(shift, MOST_DIGITS) if digits and not point else ""
    if len(digits) > MOST_DIGITS:
        raise ValueError(before)
    return digits or "0"


PARSERS: dict[str, Callable[[str], Value]] = {
    "name": parse_name,
    "text": str,
    "timestamp": parse_timestamp,
    "date": parse_date,
    "int": parse_int,
    "double": parse_double,
    "boolean": parse_boolean,
}


def is_number(text: str) -> bool:
    """Whether a text consists of digits alone."""
    return text.isascii() and text.isdigit()


def text_in(cell: str, kind: str) -> str | None:
    """Return the text of a cell without the blanks around it; None if it says nothing."""
    if is_number(cell):
        return cell
    text = cell.strip(BLANKS)
    if kind == "text":
        return None if text in NO_TEXT else text
    inner = unwrapped(text) if kind == "name" else text
    word = inner.strip("[](){}<>").strip(BLANKS).lower()
    nothing = word in NO_VALUE or (kind == "date" and NO_DATE.fullmatch(text))
    return None if nothing or (word == "false" and kind != "boolean") else text


def check_row(
    dataset: str, texts: Mapping[str, str | None], delivered: datetime
) -> tuple[dict[str, Value], list[str]]:
    """Return the typed values of a row and all that is wrong with it."""
    values: dict[str, Value] = {}
    reasons: list[str] = []
    for column, kind in COLUMNS[dataset].items():
        text = texts[column]
        values[column] = None
        if text is None:
            if column in REQUIRED[dataset]:
                reasons.append(f"missing_{column}")
            continue
        if kind == "name" and is_hidden(text) and "control_character" not in reasons:
            reasons.append("control_character")
        try:
            values[column] = PARSERS[kind](text)
        except ValueError:
            reasons.append(f"ambiguous_{column}" if ambiguous(text, kind) else f"invalid_{column}")
    timestamp = values.get("order_timestamp")
    if isinstance(timestamp, datetime):
        if timestamp > latest_time(delivered):
            reasons.append("future_order_timestamp")
        if texts["date"] is None:
            values["date"] = timestamp.date()
        elif values["date"]:
            written = parse_date((texts["order_timestamp"] or "")[:10])
            if values["date"] not in (written, timestamp.date()):
                reasons.append("date_mismatch")
    broken = [name for name, rule in CUSTOM_RULES[dataset].items() if rule(values)]
    return values, reasons + broken


@functools.lru_cache(16)
def latest_time(delivered: datetime) -> datetime:
    """Return the latest time that a row may have: a day after the delivery of its file."""
    return (delivered + timedelta(days=1)).replace(microsecond=0)


def is_hidden(text: str) -> bool:
    """Whether an invisible character stands within a text."""
    return not text.isascii() and not UNSEEN.isdisjoint(text)


def ambiguous(text: str, kind: str) -> bool:
    """Whether a text that cannot be read could mean two days, or two amounts."""
    if kind in ("timestamp", "date"):
        return AMBIGUOUS_DATE.match(text) is not None
    return kind == "double" and AMBIGUOUS_NUMBER.fullmatch(text) is not None
