"""Functions on values that DuckDB lacks or means otherwise, in Python: texts, patterns, dates,
numbers, JSON.

Each function here is called from SQL as `trino_<name>`, with the types of its annotations. A NULL
argument makes the result NULL. A value that Trino refuses raises ValueError with Trino's code in
front.
"""

from __future__ import annotations

import datetime as dt
import decimal
import inspect
import json
import math
import re
import struct
import unicodedata
import urllib.parse
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import duckdb

FUNCTIONS: list[Callable[..., Any]] = []
SQL_TYPES = {
    "str": "VARCHAR",
    "int": "BIGINT",
    "float": "DOUBLE",
    "bool": "BOOLEAN",
    "bytes": "BLOB",
    "dt.date": "DATE",
    "dt.datetime": "TIMESTAMP",
    "list[str]": "VARCHAR[]",
    "dict[str, str]": "MAP(VARCHAR, VARCHAR)",
}


def offered(function: Callable[..., Any]) -> Callable[..., Any]:
    FUNCTIONS.append(function)
    return function


def register(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the functions known to a connection."""
    create: Callable[..., Any] = connection.create_function
    for function in FUNCTIONS:
        signature = inspect.signature(function)
        kinds = [SQL_TYPES[str(p.annotation)] for p in signature.parameters.values()]
        result = SQL_TYPES[str(signature.return_annotation).removesuffix(" | None")]
        create(
            f"trino_{function.__name__}",
            _null_in_null_out(function),
            kinds,
            result,
            null_handling="special",
        )


def _null_in_null_out(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any) -> Any:
        return None if any(a is None for a in arguments) else function(*arguments)

    return call


def fail(code: str, message: str) -> NoReturn:
    raise ValueError(f"{code}: {message}")


# --------------------------------------------------------------------------------------------------
# Casts
# --------------------------------------------------------------------------------------------------
@offered
def failure(code: str, message: str) -> str | None:
    """For the branch of a CASE in which Trino fails."""
    fail(code, message)


LIMITS = {"tinyint": 7, "smallint": 15, "integer": 31, "bigint": 63}


@offered
def text_to_integer(text: str, kind: str) -> int | None:
    if (
        re.fullmatch(r"[+-]?\d+", text.strip())
        and -(2 ** LIMITS[kind]) <= int(text) < 2 ** LIMITS[kind]
    ):
        return int(text)
    fail(
        "INVALID_CAST_ARGUMENT",
        f"Cannot cast '{text}' to {'INT' if kind == 'integer' else kind.upper()}",
    )


@offered
def text_to_double(text: str, kind: str) -> float | None:
    plain = text.strip()
    if plain in ("NaN", "Infinity", "-Infinity", "+Infinity"):
        return float(plain.replace("Infinity", "inf"))
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[fFdD]?", plain):
        return float(plain.rstrip("fFdD"))
    fail("INVALID_CAST_ARGUMENT", f"Cannot cast '{text}' to {kind.upper()}")


@offered
def text_to_boolean(text: str) -> bool | None:
    word = text.lower()
    if word in ("t", "true", "1", "f", "false", "0"):
        return word in ("t", "true", "1")
    fail("INVALID_CAST_ARGUMENT", f"Cannot cast '{text}' to BOOLEAN")


@offered
def text_to_decimal(text: str, precision: int, scale: int) -> str | None:
    try:
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
            raise decimal.InvalidOperation
        with decimal.localcontext(decimal.Context(prec=80)):
            value = decimal.Decimal(text.strip())
            return _fitted(value, precision, scale)
    except decimal.InvalidOperation:
        fail(
            "INVALID_CAST_ARGUMENT",
            f"Cannot cast VARCHAR '{text}' to DECIMAL({precision}, {scale}). Value is not a "
            "number.",
        )


@offered
def double_to_decimal(value: float, precision: int, scale: int) -> str | None:
    if not math.isfinite(value):
        fail(
            "INVALID_CAST_ARGUMENT",
            f"Cannot cast DOUBLE '{value}' to DECIMAL({precision}, {scale})",
        )
    with decimal.localcontext(decimal.Context(prec=400)):
        return _fitted(decimal.Decimal(value), precision, scale)


def _fitted(value: decimal.Decimal, precision: int, scale: int) -> str:
    found = value.quantize(decimal.Decimal(1).scaleb(-scale), decimal.ROUND_HALF_UP)
    if abs(found) >= decimal.Decimal(10) ** (precision - scale):
        fail("INVALID_CAST_ARGUMENT", f"Cannot cast '{value}' to DECIMAL({precision}, {scale})")
    return format(found, "f")


@offered
def fit_decimal(text: str, precision: int, scale: int) -> str | None:
    with decimal.localcontext(decimal.Context(prec=80)):
        return _fitted(decimal.Decimal(text), precision, scale)


@offered
def double_to_integer(value: float, kind: str) -> int | None:
    if math.isfinite(value):
        found = int(decimal.Decimal(value).to_integral_value(decimal.ROUND_HALF_UP))
        if -(2 ** LIMITS[kind]) <= found < 2 ** LIMITS[kind]:
            return found
    code = (
        "INVALID_CAST_ARGUMENT"
        if kind == "bigint" or value != value
        else "NUMERIC_VALUE_OUT_OF_RANGE"
    )
    fail(code, f"Unable to cast {java_double(value)} to {kind}")


@offered
def double_to_text(value: float) -> str | None:
    """Trino's cast to varchar: always with an exponent."""
    if not math.isfinite(value):
        return java_double(value)
    if value == 0:
        return "-0E0" if math.copysign(1, value) < 0 else "0E0"
    return _scientific(repr(value))


@offered
def real_to_text(value: float) -> str | None:
    return (
        _scientific(_shortest_real(value))
        if math.isfinite(value) and value
        else double_to_text(value)
    )


def _shortest_real(value: float) -> str:
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if struct.pack("f", float(text)) == struct.pack("f", value):
            return text
    return repr(value)


def _scientific(text: str) -> str:
    sign, digits, exponent = decimal.Decimal(text).normalize().as_tuple()
    head, tail = str(digits[0]), "".join(map(str, digits[1:])) or "0"
    return f"{'-' * sign}{head}.{tail}E{int(exponent) + len(digits) - 1}"


def java_double(value: float, real: bool = False) -> str:
    """A double as Java prints it: 260.0, 1.0E7, NaN, Infinity."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    text = _shortest_real(value) if real else repr(value)
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        text = format(decimal.Decimal(text), "f")
        return text if "." in text else text + ".0"
    return _scientific(text)


# --------------------------------------------------------------------------------------------------
# Decimals
# --------------------------------------------------------------------------------------------------
@offered
def divide_decimals(left: str, right: str, scale: int) -> str | None:
    if decimal.Decimal(right) == 0:
        fail("DIVISION_BY_ZERO", "Division by zero")
    with decimal.localcontext(decimal.Context(prec=120)):
        found = decimal.Decimal(left) / decimal.Decimal(right)
        return format(found.quantize(decimal.Decimal(1).scaleb(-scale), decimal.ROUND_HALF_UP), "f")


@offered
def round_double(value: float, digits: int) -> float | None:
    if not math.isfinite(value):
        return value
    with decimal.localcontext(decimal.Context(prec=400)):
        unit = decimal.Decimal(1).scaleb(-digits)
        return float(decimal.Decimal(value).quantize(unit, decimal.ROUND_HALF_UP))


# --------------------------------------------------------------------------------------------------
# Texts
# --------------------------------------------------------------------------------------------------
@offered
def upper(text: str) -> str | None:
    """Letter by letter, as Java does: ß stays."""
    return "".join(c.upper() if len(c.upper()) == 1 else c for c in text)


@offered
def reverse(text: str) -> str | None:
    return text[::-1]


@offered
def split(text: str, separator: str) -> list[str] | None:
    if not separator:
        fail("INVALID_FUNCTION_ARGUMENT", "The delimiter may not be the empty string")
    return text.split(separator)


@offered
def split_limit(text: str, separator: str, limit: int) -> list[str] | None:
    if limit <= 0:
        fail("INVALID_FUNCTION_ARGUMENT", "Limit must be positive")
    if not separator:
        fail("INVALID_FUNCTION_ARGUMENT", "The delimiter may not be the empty string")
    return text.split(separator, limit - 1)


@offered
def split_part(text: str, separator: str, index: int) -> str | None:
    if index <= 0:
        fail("INVALID_FUNCTION_ARGUMENT", "Index must be greater than zero")
    parts = list(text) if not separator else text.split(separator)
    return parts[index - 1] if index <= len(parts) else None


@offered
def split_to_map(text: str, entries: str, pair: str) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for entry in text.split(entries) if text else []:
        key, separator, value = entry.partition(pair)
        if not separator or pair in value:
            fail(
                "INVALID_FUNCTION_ARGUMENT",
                "Key-value delimiter must appear exactly once in each entry",
            )
        if key in found:
            fail("INVALID_FUNCTION_ARGUMENT", f"Duplicate keys ({key}) are not allowed")
        found[key] = value
    return found


@offered
def strpos_nth(text: str, part: str, instance: int) -> int | None:
    if instance == 0:
        fail("INVALID_FUNCTION_ARGUMENT", "'instance' must not be a positive or negative number.")
    places = [i + 1 for i in range(len(text)) if text.startswith(part, i)]
    if instance < 0:
        places.reverse()
    return places[abs(instance) - 1] if abs(instance) <= len(places) else 0


@offered
def pad(text: str, size: int, fill: str, left: bool) -> str | None:
    if size < 0:
        fail("INVALID_FUNCTION_ARGUMENT", "Target length must be in the range [0..2147483647]")
    if not fill:
        fail("INVALID_FUNCTION_ARGUMENT", "Padding string must not be empty")
    missing = size - len(text)
    if missing <= 0:
        return text[:size]
    padding = (fill * (missing // len(fill) + 1))[:missing]
    return padding + text if left else text + padding


@offered
def translate(text: str, source: str, target: str) -> str | None:
    table: dict[int, str | None] = {}
    for i, letter in enumerate(source):
        table.setdefault(ord(letter), target[i] if i < len(target) else None)
    return text.translate(table)


@offered
def hamming_distance(left: str, right: str) -> int | None:
    if len(left) != len(right):
        fail(
            "INVALID_FUNCTION_ARGUMENT",
            "The input strings to hamming_distance function must have the same length",
        )
    return sum(a != b for a, b in zip(left, right, strict=False))


@offered
def soundex(text: str) -> str | None:
    codes = {
        c: str(n) for n, cs in enumerate(("BFPV", "CGJKQSXZ", "DT", "L", "MN", "R"), 1) for c in cs
    }
    letters = [c for c in text.upper() if c.isalpha()]
    if not letters:
        return ""
    found, last = letters[0], codes.get(letters[0], "")
    for letter in letters[1:]:
        code = codes.get(letter, "")
        if code and code != last:
            found += code
        if letter not in "HW":
            last = code
    return (found + "000")[:4]


@offered
def nfc(text: str) -> str | None:
    return unicodedata.normalize("NFC", text)


@offered
def url_part(url: str, part: str) -> str | None:
    if re.search(r'[\s<>"{}|\\^`]', url):
        return None
    found = urllib.parse.urlsplit(url)
    if part == "host":
        return found.hostname or ""
    return urllib.parse.unquote(found.path if part == "path" else found.query)


@offered
def url_parameter(url: str, name: str) -> str | None:
    pairs = urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query, keep_blank_values=True)
    return next((value for key, value in pairs if key == name), None)


@offered
def url_encode(text: str) -> str | None:
    return urllib.parse.quote_plus(text, safe="*-._")


@offered
def url_decode(text: str) -> str | None:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        fail("INVALID_FUNCTION_ARGUMENT", f"Illegal hex characters in escape (%) pattern: {text}")
    return urllib.parse.unquote_plus(text)


@offered
def human_seconds(value: float) -> str | None:
    left, parts = math.floor(value + 0.5), []
    for size, name in (
        (604800, "week"),
        (86400, "day"),
        (3600, "hour"),
        (60, "minute"),
        (1, "second"),
    ):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {name}{'s' if count != 1 else ''}")
    return ", ".join(parts) or "0 seconds"


@offered
def to_base(value: int, radix: int) -> str | None:
    digits, left, text = "0123456789abcdefghijklmnopqrstuvwxyz", abs(value), ""
    if not 2 <= radix <= 36:
        fail("INVALID_FUNCTION_ARGUMENT", "Radix must be between 2 and 36")
    while left or not text:
        left, digit = divmod(left, radix)
        text = digits[digit] + text
    return "-" + text if value < 0 else text


@offered
def from_base(text: str, radix: int) -> int | None:
    try:
        return int(text, radix)
    except ValueError:
        fail("INVALID_FUNCTION_ARGUMENT", f"Not a valid base-{radix} number: {text}")


@offered
def format_text(pattern: str, kinds: str, arguments: list[str]) -> str | None:
    """Java's String.format for %s, %d, %f, %x and %%; `kinds` has a letter for each argument."""
    values: list[Any] = []
    for kind, text in zip(kinds, arguments, strict=False):
        values.append({"i": int, "f": decimal.Decimal}.get(kind, str)(text))
    at = iter(values)

    def one(found: re.Match[str]) -> str:
        flags, width, digits, letter = found.groups()
        if letter == "%":
            return "%"
        value = next(at)
        if letter == "n" or letter in "dx" and not isinstance(value, int):
            fail("INVALID_FUNCTION_ARGUMENT", f"Invalid format string: {pattern}")
        spec = ("<" if "-" in flags else ">" if letter == "s" else "") + (
            "+" if "+" in flags else ""
        )
        spec += ("0" if "0" in flags else "") + (width or "") + ("," if "," in flags else "")
        spec += f".{digits or 6}f" if letter == "f" else letter
        if letter == "f":
            places = decimal.Decimal(1).scaleb(-int(digits or 6))
            value = decimal.Decimal(value).quantize(places, decimal.ROUND_HALF_UP)
        return format(value, spec) if letter != "s" else format(str(value), spec)

    return re.sub(r"%([-+0,]*)(\d+)?(?:\.(\d+))?([sdfxX%])", one, pattern)


# --------------------------------------------------------------------------------------------------
# Patterns
# --------------------------------------------------------------------------------------------------
@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    """Joni's syntax as Python reads it; what Python reads otherwise is refused."""
    plain = re.sub(r"\(\?<(?=[A-Za-z])", "(?P<", text)
    plain = re.sub(r"(?<!\\)((?:\\\\)*)\\([bB])", r"\1(?u:\\\2)", plain)
    if re.search(r"\\[pPhHRXGzZ]|\[\[|&&|\(\?[a-z]*[dxu]|\\k<|[*+?}]\+", plain):
        fail(
            "NOT_SUPPORTED",
            f"the pattern {text} is not part of this local console. On AWS, Athena runs it",
        )
    try:
        return re.compile(plain, re.ASCII)
    except re.error as error:
        fail("INVALID_FUNCTION_ARGUMENT", f"{error}: {text}")


@offered
def regexp_like(text: str, pattern: str) -> bool | None:
    return _pattern(pattern).search(text) is not None


@offered
def regexp_extract(text: str, pattern: str, group: int) -> str | None:
    compiled = _pattern(pattern)
    _check_group(compiled, group)
    found = compiled.search(text)
    return found[group] if found else None


def _check_group(pattern: re.Pattern[str], group: int) -> None:
    if group < 0:
        fail("INVALID_FUNCTION_ARGUMENT", "Group cannot be negative")
    if group > pattern.groups:
        fail(
            "INVALID_FUNCTION_ARGUMENT",
            f"Pattern has {pattern.groups} groups. Cannot access group {group}",
        )


@offered
def regexp_extract_all(text: str, pattern: str, group: int) -> list[str] | None:
    compiled = _pattern(pattern)
    _check_group(compiled, group)
    return [found[group] for found in compiled.finditer(text)]


@offered
def regexp_replace(text: str, pattern: str, replacement: str) -> str | None:
    compiled = _pattern(pattern)
    return compiled.sub(lambda found: _replaced(found, replacement), text)


def _replaced(found: re.Match[str], replacement: str) -> str:
    """`$1`, `${name}` and `\\$` in a replacement."""

    def one(part: re.Match[str]) -> str:
        if part[1]:
            return part[1]
        if part[2]:
            if part[2] not in found.re.groupindex:
                fail(
                    "INVALID_FUNCTION_ARGUMENT",
                    f"Illegal replacement sequence: unknown group {{ {part[2]} }}",
                )
            return found[part[2]] or ""
        digits = part[3]
        if not digits:
            fail("INVALID_FUNCTION_ARGUMENT", "Illegal replacement sequence")
        number, rest = int(digits[0]), digits[1:]
        if number > found.re.groups:
            fail(
                "INVALID_FUNCTION_ARGUMENT", f"Illegal replacement sequence: unknown group {number}"
            )
        while rest and number * 10 + int(rest[0]) <= found.re.groups:
            number, rest = number * 10 + int(rest[0]), rest[1:]
        return (found[number] or "") + rest

    return re.sub(r"\\(.)|\$(?:\{(\w+)\}|(\d*))", one, replacement, flags=re.S)


@offered
def regexp_split(text: str, pattern: str) -> list[str] | None:
    parts, last = [], 0
    for found in _pattern(pattern).finditer(text):
        parts.append(text[last : found.start()])
        last = found.end()
    return [*parts, text[last:]]


@offered
def regexp_count(text: str, pattern: str) -> int | None:
    return sum(1 for _ in _pattern(pattern).finditer(text))


@offered
def regexp_position(text: str, pattern: str, start: int, occurrence: int) -> int | None:
    if start < 1:
        fail("INVALID_FUNCTION_ARGUMENT", "start position cannot be smaller than 1")
    places = [found.start() + 1 for found in _pattern(pattern).finditer(text, start - 1)]
    return places[occurrence - 1] if occurrence <= len(places) else -1


# --------------------------------------------------------------------------------------------------
# Dates
# --------------------------------------------------------------------------------------------------
@offered
def text_to_date(text: str) -> dt.date | None:
    found = re.fullmatch(r"\s*([+-]?\d{4,})-(\d{1,2})-(\d{1,2})\s*", text)
    try:
        if found:
            return dt.date(*map(int, found.groups()))
    except ValueError:
        pass
    fail("INVALID_CAST_ARGUMENT", f"Value cannot be cast to date: {text}")


STAMP = re.compile(
    r"\s*(\d{4})-(\d{1,2})-(\d{1,2})(?: (\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d+))?)?)?\s*(.*?)\s*"
)


@offered
def text_to_stamp(text: str, precision: int) -> dt.datetime | None:
    """A timestamp without a zone, rounded to the precision."""
    found = STAMP.fullmatch(text)
    if found and not found[8]:
        if (value := _stamp(found, precision)) is not None:
            return value
    fail("INVALID_CAST_ARGUMENT", f"Value cannot be cast to timestamp: {text}")


@offered
def text_to_zoned(text: str, precision: int) -> dt.datetime | None:
    """A timestamp with a zone as its UTC time; without one it is UTC."""
    found = STAMP.fullmatch(text)
    value = _stamp(found, precision) if found else None
    if found and value is not None:
        utc, zone = to_utc(value, found[8] or "UTC"), found[8] or "UTC"
        if at_zone(utc, zone) == value:  # else the clocks of the zone never showed it
            return utc
    fail("INVALID_CAST_ARGUMENT", f"Value cannot be cast to timestamp: {text}")


def _stamp(found: re.Match[str], precision: int) -> dt.datetime | None:
    year, month, day, hour, minute, second, fraction, _ = found.groups()
    try:
        value = dt.datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0)
        )
    except ValueError:
        return None
    digits = decimal.Decimal(f"0.{fraction or 0}")
    digits = digits.quantize(decimal.Decimal(1).scaleb(-min(precision, 6)), decimal.ROUND_HALF_UP)
    return value + dt.timedelta(microseconds=int(digits * 1_000_000))


def zone_of(name: str) -> dt.tzinfo:
    """The zone with this name, or this offset."""
    if found := re.fullmatch(r"([+-])(\d{1,2}):?(\d{2})?", name):
        minutes = int(found[2]) * 60 + int(found[3] or 0)
        return dt.timezone(dt.timedelta(minutes=minutes * (-1 if found[1] == "-" else 1)))
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        fail("INVALID_FUNCTION_ARGUMENT", f"'{name}' is not a valid time zone")


def to_utc(local: dt.datetime, zone: str) -> dt.datetime:
    return local.replace(tzinfo=zone_of(zone)).astimezone(dt.UTC).replace(tzinfo=None)


@offered
def at_zone(stamp: dt.datetime, zone: str) -> dt.datetime | None:
    """What the clocks of the zone show at this UTC time."""
    return stamp.replace(tzinfo=dt.UTC).astimezone(zone_of(zone)).replace(tzinfo=None)


@offered
def from_zone(stamp: dt.datetime, zone: str) -> dt.datetime | None:
    return to_utc(stamp, zone)


@offered
def offset_minutes(stamp: dt.datetime, zone: str) -> int | None:
    offset = stamp.replace(tzinfo=dt.UTC).astimezone(zone_of(zone)).utcoffset()
    return int(offset.total_seconds() // 60) if offset is not None else 0


DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January February March April May June July August September October November December"
).split()


def _mysql(stamp: dt.datetime, letter: str) -> str:
    year, week, _ = stamp.isocalendar()
    found = {
        "a": DAYS[stamp.weekday()][:3],
        "b": MONTHS[stamp.month - 1][:3],
        "c": str(stamp.month),
        "d": f"{stamp.day:02}",
        "e": str(stamp.day),
        "f": f"{stamp.microsecond:06}",
        "H": f"{stamp.hour:02}",
        "h": f"{(stamp.hour + 11) % 12 + 1:02}",
        "I": f"{(stamp.hour + 11) % 12 + 1:02}",
        "i": f"{stamp.minute:02}",
        "j": f"{stamp.timetuple().tm_yday:03}",
        "k": str(stamp.hour),
        "l": str((stamp.hour + 11) % 12 + 1),
        "M": MONTHS[stamp.month - 1],
        "m": f"{stamp.month:02}",
        "p": "AM" if stamp.hour < 12 else "PM",
        "S": f"{stamp.second:02}",
        "s": f"{stamp.second:02}",
        "T": f"{stamp:%H:%M:%S}",
        "v": f"{week:02}",
        "W": DAYS[stamp.weekday()],
        "x": f"{year:04}",
        "Y": f"{stamp.year:04}",
        "y": f"{stamp.year % 100:02}",
        "%": "%",
    }
    found["r"] = f"{found['h']}:{stamp:%M:%S} {found['p']}"
    if letter in "DUuVwX":
        fail("INVALID_FUNCTION_ARGUMENT", f"%{letter} not supported in date format string")
    return found.get(letter, letter)


@offered
def date_format(stamp: dt.datetime, pattern: str) -> str | None:
    return re.sub(r"%(.)", lambda found: _mysql(stamp, found[1]), pattern, flags=re.S)


PARSED = {
    "Y": r"(?P<Y>\d{4})", "y": r"(?P<y>\d{2})", "m": r"(?P<m>\d{1,2})", "c": r"(?P<m>\d{1,2})",
    "d": r"(?P<d>\d{1,2})", "e": r"(?P<d>\d{1,2})", "H": r"(?P<H>\d{1,2})", "k": r"(?P<H>\d{1,2})",
    "h": r"(?P<I>\d{1,2})", "I": r"(?P<I>\d{1,2})", "l": r"(?P<I>\d{1,2})", "i": r"(?P<i>\d{1,2})",
    "s": r"(?P<s>\d{1,2})", "S": r"(?P<s>\d{1,2})", "p": r"(?P<p>[AaPp][Mm])", "f": r"(?P<f>\d{1,9})",
    "b": r"(?P<b>[A-Za-z]{3})", "M": r"(?P<M>[A-Za-z]+)", "a": r"[A-Za-z]{3}", "W": r"[A-Za-z]+",
    "T": r"(?P<H>\d{1,2}):(?P<i>\d{1,2}):(?P<s>\d{1,2})", "j": r"(?P<j>\d{1,3})", "%": "%",
}  # fmt: skip


@offered
def date_parse(text: str, pattern: str) -> dt.datetime | None:
    regexp, letters = "", iter(pattern)
    for letter in letters:
        if letter != "%":
            regexp += re.escape(letter)
            continue
        unit = next(letters, "")
        if unit in "DUuVwX" or unit not in PARSED:
            fail("INVALID_FUNCTION_ARGUMENT", f"%{unit} not supported in date format string")
        regexp += PARSED[unit]
    found = re.fullmatch(regexp, text)
    value = _from_parts(found.groupdict()) if found else None
    return value or fail("INVALID_FUNCTION_ARGUMENT", f'Invalid format: "{text}"')


def _from_parts(parts: dict[str, str]) -> dt.datetime | None:
    def number(*names: str, otherwise: int) -> int:
        return next((int(parts[n]) for n in names if parts.get(n)), otherwise)

    year = number("Y", otherwise=1970)
    if parts.get("y"):
        year = int(parts["y"]) + (2000 if int(parts["y"]) < 70 else 1900)
    month = number("m", otherwise=1)
    if name := parts.get("b") or parts.get("M"):
        names = [m.lower()[: 3 if parts.get("b") else None] for m in MONTHS]
        if name.lower() not in names:
            return None
        month = names.index(name.lower()) + 1
    hour = number("H", otherwise=0)
    if parts.get("I"):
        hour = int(parts["I"]) % 12 + (12 if (parts.get("p") or "").lower() == "pm" else 0)
    micros = int((parts.get("f") or "0")[:6].ljust(6, "0"))
    try:
        value = dt.datetime(
            year, month, number("d", otherwise=1), hour,
            number("i", otherwise=0), number("s", otherwise=0), micros,
        )  # fmt: skip
    except ValueError:
        return None
    return (
        value.replace(month=1, day=1) + dt.timedelta(int(parts["j"]) - 1)
        if parts.get("j")
        else value
    )


def _joda_tokens(pattern: str) -> list[tuple[str, bool]]:
    """The pattern's parts, each with True where it is letters that mean a field."""
    found = []
    for part in re.finditer(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']+", pattern):
        if part[0].startswith("'"):
            found.append((part[1].replace("''", "'") or "'", False))
        else:
            found.append((part[0], part[2] is not None))
    return found


def _joda(local: dt.datetime, letters: str, offset: int, zone: str) -> str:
    letter, size = letters[0], len(letters)
    year, week, day = local.isocalendar()
    numbers = {
        "d": local.day,
        "H": local.hour,
        "m": local.minute,
        "s": local.second,
        "w": week,
        "e": day,
    }
    numbers |= {
        "D": local.timetuple().tm_yday,
        "h": (local.hour + 11) % 12 + 1,
        "K": local.hour % 12,
    }
    numbers |= {"k": local.hour or 24}
    if letter in numbers:
        return f"{numbers[letter]:0{size}}"
    if letter in "yYx":
        value = year if letter == "x" else local.year
        return f"{value % 100:02}" if size == 2 else f"{value:0{size}}"
    if letter == "M":
        name = MONTHS[local.month - 1]
        return f"{local.month:0{size}}" if size < 3 else name[:3] if size == 3 else name
    if letter == "E":
        return DAYS[local.weekday()][: None if size > 3 else 3]
    if letter == "S":
        return f"{local.microsecond // 1000:03}".ljust(size, "0")[:size]
    if letter == "a":
        return "AM" if local.hour < 12 else "PM"
    if letter == "Z":
        sign = "-" if offset < 0 else "+"
        colon = ":" if size == 2 else ""
        return zone if size > 2 else f"{sign}{abs(offset) // 60:02}{colon}{abs(offset) % 60:02}"
    fail(
        "NOT_SUPPORTED",
        f"the pattern letter {letter} is not part of this local console. On AWS, Athena runs it",
    )


@offered
def format_datetime(local: dt.datetime, pattern: str, offset: int, zone: str) -> str | None:
    parts = _joda_tokens(pattern)
    return "".join(_joda(local, text, offset, zone) if field else text for text, field in parts)


JODA = {
    "y": "Y",
    "Y": "Y",
    "M": "m",
    "d": "d",
    "H": "H",
    "h": "I",
    "m": "i",
    "s": "s",
    "a": "p",
    "S": "f",
}


@offered
def parse_datetime(text: str, pattern: str) -> dt.datetime | None:
    """The time that the text says, with its own offset applied where the pattern has one: UTC."""
    regexp = ""
    for part, field in _joda_tokens(pattern):
        name = JODA.get(part[0]) if field else None
        if not field:
            regexp += re.escape(part)
        elif part[0] == "M" and len(part) > 2:
            regexp += PARSED["b" if len(part) == 3 else "M"]
        elif part[0] == "Z":
            regexp += r"(?P<Z>Z|[+-]\d{2}:?\d{2})"
        elif name == "Y":
            regexp += r"(?P<y>\d{2})" if len(part) == 2 else r"(?P<Y>\d{4,9})"
        elif name:
            regexp += PARSED[name]
        else:
            fail(
                "NOT_SUPPORTED",
                f"the pattern {pattern} is not part of this local console. On AWS, Athena runs it",
            )
    found = re.fullmatch(regexp, text)
    value = _from_parts(found.groupdict()) if found else None
    if not found or value is None:
        fail("INVALID_FUNCTION_ARGUMENT", f'Invalid format: "{text}"')
    zone = found.groupdict().get("Z")
    return to_utc(value, zone) if zone and zone != "Z" else value


@offered
def iso_date(text: str) -> dt.date | None:
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}|\d{4}-W\d{2}-\d|\d{4}-\d{3}|\d{4}-\d{2}|\d{4}", text):
        try:
            if re.fullmatch(r"\d{4}-\d{3}", text):
                return dt.datetime.strptime(text, "%Y-%j").date()
            return dt.date.fromisoformat(text + {4: "-01-01", 7: "-01"}.get(len(text), ""))
        except ValueError:
            pass
    fail("INVALID_FUNCTION_ARGUMENT", f'Invalid format: "{text}"')


ISO_STAMP = r"\d{4}-\d{2}-\d{2}(T\d{2}(:\d{2}(:\d{2}([.,]\d+)?)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?"


@offered
def iso_timestamp(text: str) -> dt.datetime | None:
    """The UTC time of an ISO 8601 text."""
    if re.fullmatch(ISO_STAMP, text):
        try:
            found = dt.datetime.fromisoformat(text)
            return found.astimezone(dt.UTC).replace(tzinfo=None) if found.tzinfo else found
        except ValueError:
            pass
    fail("INVALID_FUNCTION_ARGUMENT", f'Invalid format: "{text}"')


def iso_zone(text: str) -> str:
    """The zone that a timestamp of this text shows."""
    found = re.search(r"T.*?(Z|[+-]\d{2}:?\d{2})$", text)
    if not found or found[1] == "Z":
        return "UTC"
    return found[1] if ":" in found[1] else found[1][:3] + ":" + found[1][3:]


# --------------------------------------------------------------------------------------------------
# JSON
# --------------------------------------------------------------------------------------------------
class Number(str):
    """A number as it is written."""


def _loads(text: str) -> Any:
    return json.loads(text, parse_int=Number, parse_float=Number, parse_constant=_no_constant)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(text)


def _dumps(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{_dumps(v)}" for k, v in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(_dumps, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        found.setdefault(key, value)
    return found


FIRST_MEMBERS = json.JSONDecoder(
    object_pairs_hook=_first,
    parse_int=Number,
    parse_float=Number,
    parse_constant=_no_constant,
)
MISSING = object()


@lru_cache(maxsize=256)
def _path(path: str) -> list[str | int]:
    steps: list[str | int] = []
    rest = path[1:]
    if path[:1] != "$":
        fail("INVALID_FUNCTION_ARGUMENT", f"Invalid JSON path: '{path}'")
    while rest:
        found = re.match(r"\.(\w+)|\[(\d+)\]|\[\"((?:[^\"\\]|\\.)*)\"\]", rest)
        if not found:
            fail("NOT_SUPPORTED" if ".." in path or "*" in path else "INVALID_FUNCTION_ARGUMENT",
                 f"Invalid JSON path: '{path}'")  # fmt: skip
        steps.append(int(found[2]) if found[2] else found[1] or found[3])
        rest = rest[found.end() :]
    return steps


def _walk(text: str, path: str) -> Any:
    steps = _path(path)
    try:
        value, _ = FIRST_MEMBERS.raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        if text.lstrip()[:1] in ("{", "["):  # Trino reads no further than to what it looks for
            fail("NOT_SUPPORTED", f"broken JSON is not part of this local console: {text[:80]}")
        return MISSING
    for step in steps:
        if isinstance(value, list) and str(step).isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and str(step) in value:
            value = value[str(step)]
        else:
            return MISSING
    return value


@offered
def json_extract(text: str, path: str) -> str | None:
    value = _walk(text, path)
    return None if value is MISSING else _dumps(_canonical(value))


@offered
def json_extract_scalar(text: str, path: str) -> str | None:
    value = _walk(text, path)
    if value is MISSING or value is None or isinstance(value, (dict, list)):
        return None
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(v) for v in value] if isinstance(value, list) else value


@offered
def json_parse(text: str) -> str | None:
    try:
        return _dumps(_canonical(_sorted(_loads(text))))
    except (ValueError, RecursionError):
        fail("INVALID_FUNCTION_ARGUMENT", f"Cannot convert value to JSON: '{text}'")


def _canonical(value: Any) -> Any:
    """Numbers as Trino's JSON type keeps them: doubles in Java's text."""
    if isinstance(value, Number):
        whole = re.fullmatch(r"-?\d+", value)
        return Number(int(value) if whole else java_double(float(value)))
    if isinstance(value, dict):
        return {k: _canonical(v) for k, v in value.items()}
    return [_canonical(v) for v in value] if isinstance(value, list) else value


@offered
def json_array_length(text: str) -> int | None:
    value = _walk(text, "$")
    return len(value) if isinstance(value, list) else None


@offered
def json_size(text: str, path: str) -> int | None:
    value = _walk(text, path)
    return None if value is MISSING else len(value) if isinstance(value, (list, dict)) else 0


@offered
def json_array_contains(text: str, wanted: str) -> bool | None:
    """`wanted` is the JSON text of the value."""
    value = _walk(text, "$")
    if not isinstance(value, list):
        return None
    other = _loads(wanted)
    return any(type(v) is type(other) and v == other for v in value)


@offered
def is_json_scalar(text: str) -> bool | None:
    value = _walk(text, "$")
    if value is MISSING:
        fail("INVALID_FUNCTION_ARGUMENT", f"Invalid JSON value: {text}")
    return not isinstance(value, (list, dict))


@offered
def json_string(text: str) -> str | None:
    return json.dumps(text, ensure_ascii=False)


@offered
def json_scalar_text(text: str, kind: str) -> str | None:
    """A JSON scalar on its way to varchar or a number."""
    value = _loads(text)
    if value is None:
        return None
    if isinstance(value, (dict, list)):
        fail("INVALID_CAST_ARGUMENT", f"Cannot cast '{text}' to {kind}")
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


@offered
def json_items(text: str) -> list[str] | None:
    """The items of a JSON array, each as JSON."""
    value = _loads(text)
    if value is None:
        return None
    if not isinstance(value, list):
        fail(
            "INVALID_CAST_ARGUMENT", f"Cannot cast to array. Expected a json array, but got {text}"
        )
    return [_dumps(v) for v in value]


@offered
def json_members(text: str) -> dict[str, str] | None:
    """The members of a JSON object, each value as JSON."""
    value = _loads(text)
    if value is None:
        return None
    if not isinstance(value, dict):
        fail("INVALID_CAST_ARGUMENT", f"Cannot cast to map. Expected a json object, but got {text}")
    return {k: _dumps(v) for k, v in value.items()}


@offered
def java_text(value: float) -> str | None:
    return java_double(value)


@offered
def fit_text(text: str, length: int) -> str | None:
    if len(text) > length:
        fail("INVALID_CAST_ARGUMENT", f"Value {text} cannot be represented as varchar({length})")
    return text


@offered
def days_text(millis: int) -> str | None:
    """An interval of days and time as Trino writes it: 2 03:04:05.000."""
    sign, left = ("-" if millis < 0 else ""), abs(millis)
    days, left = divmod(left, 86_400_000)
    hours, left = divmod(left, 3_600_000)
    minutes, left = divmod(left, 60_000)
    return f"{sign}{days} {hours:02}:{minutes:02}:{left // 1000:02}.{left % 1000:03}"


@offered
def months_text(months: int) -> str | None:
    """An interval of years and months as Trino writes it: 1-2."""
    return f"{'-' if months < 0 else ''}{abs(months) // 12}-{abs(months) % 12}"


@offered
def truncate_decimal(text: str, digits: int, scale: int) -> str | None:
    unit = decimal.Decimal(1).scaleb(-min(digits, scale))
    return format(decimal.Decimal(text).quantize(unit, decimal.ROUND_DOWN), "f")


@offered
def from_utf8(data: bytes) -> str | None:
    return data.decode("utf-8", "replace")


@offered
def multiply_decimals(left: str, right: str, scale: int) -> str | None:
    with decimal.localcontext(decimal.Context(prec=120)):
        return _fitted(decimal.Decimal(left) * decimal.Decimal(right), 38, scale)
