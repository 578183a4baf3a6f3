"""Athena's types, and Athena's form of a result: as text and as a result file."""

from __future__ import annotations

import datetime as dt
import decimal
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

NOT_PART = "is not part of this local console; `make up ENGINE=trino` asks a real Trino"
DIGITS = {"integer": 10, "bigint": 19}


class AthenaError(Exception):
    """A failed query: Athena's error code, its message and the place, counted from 1."""

    def __init__(
        self, code: str, message: str, line: int | None = None, column: int | None = None
    ) -> None:
        self.code, self.message, self.line, self.column = code, message, line, column
        place = f"line {line}:{column}: " if line else ""
        super().__init__(f"{code}: {place}{message}")


def refusal(what: str) -> AthenaError:
    """Return the error for valid Athena SQL that this console does not support."""
    return AthenaError("NOT_SUPPORTED", f"{what} {NOT_PART}")


def allow(condition: object, what: str) -> None:
    """Raise that error unless the condition holds."""
    if not condition:
        raise refusal(what)


@dataclass(frozen=True)
class Type:
    """One of Athena's types. `numbers` are a decimal's precision and scale or a timestamp's
    precision, `parts` the element types of an array or map. All time zones are UTC."""

    name: str
    numbers: tuple[int, ...] = ()
    parts: tuple[Type, ...] = ()

    def __str__(self) -> str:
        if not self.numbers and not self.parts:
            return self.name
        head, _, tail = self.name.partition(" ")
        inside = ",".join(map(str, self.numbers)) or ", ".join(map(str, self.parts))
        return f"{head}({inside}) {tail}".rstrip()

    @property
    def duckdb(self) -> str:
        """The type's name in DuckDB."""
        parts = [part.duckdb for part in self.parts]
        if parts:
            return f"{parts[0]}[]" if self.name == "array" else f"MAP({', '.join(parts)})"
        if self.name == "decimal":
            return f"DECIMAL({self.numbers[0]}, {self.numbers[1]})"
        return {"json": "VARCHAR", "unknown": "INTEGER"}.get(
            self.name, "INTERVAL" if self.name.startswith("interval") else self.name.upper()
        )

    @property
    def family(self) -> str:
        """Return the type without its numbers; `integer` for all integers."""
        return str(self) if self.parts else "integer" if self.is_integer else self.name

    @property
    def is_integer(self) -> bool:
        return self.name in DIGITS

    @property
    def is_number(self) -> bool:
        return self.is_integer or self.name in ("decimal", "double")

    @property
    def is_time(self) -> bool:
        return self.name in ("date", "timestamp", "timestamp with time zone")


BIGINT, INTEGER, DOUBLE, BOOLEAN = map(Type, ("bigint", "integer", "double", "boolean"))
VARCHAR, UNKNOWN, DATE, JSON = map(Type, ("varchar", "unknown", "date", "json"))
DAYS, MONTHS = Type("interval day to second"), Type("interval year to month")
ZONED = Type("timestamp with time zone", (3,))
ARROW = {
    pa.int32(): INTEGER, pa.int64(): BIGINT, pa.float64(): DOUBLE, pa.bool_(): BOOLEAN,
    pa.date32(): DATE, pa.string(): VARCHAR, pa.large_string(): VARCHAR, pa.string_view(): VARCHAR,
}  # fmt: skip


def common(left: Type, right: Type) -> Type | None:
    """Return the type to which Trino coerces both, or None."""
    if left == right or right == UNKNOWN:
        return left
    if left == UNKNOWN:
        return right
    if left.is_number and right.is_number:
        return _common_number(left, right)
    if left.is_time and right.is_time:
        zoned = ZONED.name in (left.name, right.name)
        return Type(ZONED.name if zoned else "timestamp", max(left.numbers, right.numbers))
    if left.name == right.name and left.parts:
        parts = [common(a, b) for a, b in zip(left.parts, right.parts, strict=True)]
        coerced = tuple(part for part in parts if part)
        return Type(left.name, (), coerced) if len(coerced) == len(parts) else None
    return None


def _common_number(left: Type, right: Type) -> Type:
    if DOUBLE in (left, right):
        return DOUBLE
    if left.is_integer and right.is_integer:
        return BIGINT
    (p, s), (q, r) = (as_decimal(kind).numbers for kind in (left, right))
    return Type("decimal", (min(38, max(p - s, q - r) + max(s, r)), max(s, r)))


def as_decimal(kind: Type) -> Type:
    """Return the decimal type that holds an integer type."""
    return Type("decimal", (DIGITS[kind.name], 0)) if kind.is_integer else kind


def from_arrow(kind: pa.DataType) -> Type:
    """Return the type of a Delta column; raise AthenaError if it is not supported."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return Type("array", (), (from_arrow(kind.value_type),))
    if pa.types.is_map(kind):
        return Type("map", (), (from_arrow(kind.key_type), from_arrow(kind.item_type)))
    if pa.types.is_decimal(kind):
        return Type("decimal", (kind.precision, kind.scale))
    if pa.types.is_timestamp(kind) and kind.tz:
        return ZONED
    allow(kind in ARROW, f"A column of the type {kind}")
    return ARROW[kind]


@dataclass(frozen=True)
class Result:
    """The result of a query: names, Athena's type names, and rows of Python values."""

    names: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]
    query_id: str = ""
    seconds: float = 0.0
    kinds: list[Type] = field(default_factory=list, repr=False, compare=False)

    def text_rows(self) -> list[list[str | None]]:
        """Return the rows as Athena's text; NULL is None."""
        kinds: Sequence[Type | None] = self.kinds or [None] * len(self.names)
        return [[as_text(v, k) for v, k in zip(row, kinds, strict=True)] for row in self.rows]

    def csv(self) -> str:
        """Return the text of the result file, with Athena's line ends."""
        stream = io.StringIO(newline="")
        rows: list[list[str | None]] = [list(self.names), *self.text_rows()]
        for row in rows:
            cells = ("" if v is None else '"' + v.replace('"', '""') + '"' for v in row)
            stream.write(",".join(cells) + "\n")
        return stream.getvalue()


def as_text(value: Any, kind: Type | None = None) -> str | None:
    """Return a value as Athena's text: `2025-04-01 10:00:00.000 UTC`, `260.0`, `[a, b]`."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return java_double(value)
    if isinstance(value, dt.datetime):
        digits = kind.numbers[0] if kind else 3
        fraction = f".{value.microsecond:06}"[: digits + 1] if digits else ""
        whole = f"{value:%Y-%m-%d %H:%M:%S}".rjust(19, "0")
        return f"{whole}{fraction} UTC" if value.tzinfo else whole + fraction
    part = kind.parts[-1] if kind and kind.parts else None
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_text(k)}={_inner(v, part)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inner(v, part) for v in value) + "]"
    return format(value, "f") if isinstance(value, decimal.Decimal) else str(value)


def _inner(value: Any, kind: Type | None) -> str:
    return "null" if value is None else str(as_text(value, kind))


def java_double(value: float) -> str:
    """Return a double as Java prints it: 260.0, 1.0E7, NaN, Infinity."""
    text = repr(value)
    if text in ("nan", "inf", "-inf"):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[text]
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        plain = format(decimal.Decimal(text), "f")
        return plain if "." in plain else plain + ".0"
    return scientific(value)


def scientific(value: float) -> str:
    """Return a finite double that is not 0 with an exponent: 2.6E2."""
    sign, digits, exponent = decimal.Decimal(repr(value)).normalize().as_tuple()
    head, tail = str(digits[0]), "".join(map(str, digits[1:])) or "0"
    return f"{'-' * sign}{head}.{tail}E{int(exponent) + len(digits) - 1}"
