"""Athena's types: their names, how one is coerced to another, and what DuckDB and Hive call
them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import pyarrow as pa

INTEGERS = ("tinyint", "smallint", "integer", "bigint")
DIGITS = {"tinyint": 3, "smallint": 5, "integer": 10, "bigint": 19}
NUMBERS = (*INTEGERS, "decimal", "real", "double")
DUCKDB = {
    "tinyint": "TINYINT",
    "smallint": "SMALLINT",
    "integer": "INTEGER",
    "bigint": "BIGINT",
    "real": "FLOAT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "varchar": "VARCHAR",
    "json": "VARCHAR",
    "varbinary": "BLOB",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "timestamp with time zone": "TIMESTAMPTZ",
    "interval day to second": "INTERVAL",
    "interval year to month": "INTERVAL",
    "uuid": "UUID",
    "unknown": "INTEGER",
}
SYNONYMS = {"int": "integer", "double precision": "double"}


@dataclass(frozen=True)
class Type:
    """One type. `parts` are the types inside an array, map or row, `names` a row's field names
    (None where a field has none), `numbers` a decimal's precision and scale or a time's precision.
    `zone` is the time zone that all values of a zoned timestamp show, which Athena keeps in each
    value."""

    name: str
    parts: tuple[Type, ...] = ()
    names: tuple[str | None, ...] = ()
    numbers: tuple[int, ...] = ()
    zone: str = field(default="UTC", compare=False)
    length: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        if self.name == "row":
            inner = (
                f"{n} {t}" if n else str(t) for n, t in zip(self.names, self.parts, strict=False)
            )
            return f"row({', '.join(inner)})"
        if self.parts:
            return f"{self.name}({', '.join(map(str, self.parts))})"
        if self.name == "decimal":
            return f"decimal({self.numbers[0]},{self.numbers[1]})"
        if self.numbers:
            head, _, tail = self.name.partition(" ")
            return f"{head}({self.numbers[0]})" + (f" {tail}" if tail else "")
        return self.name

    @property
    def duckdb(self) -> str:
        if self.name == "array":
            return f"{self.parts[0].duckdb}[]"
        if self.name == "map":
            return f"MAP({self.parts[0].duckdb}, {self.parts[1].duckdb})"
        if self.name == "row":
            inner = (f"f{i} {t.duckdb}" for i, t in enumerate(self.parts))
            return f"STRUCT({', '.join(inner)})"
        if self.name == "decimal":
            return f"DECIMAL({self.numbers[0]}, {self.numbers[1]})"
        return DUCKDB[self.name]

    @property
    def is_number(self) -> bool:
        return self.name in NUMBERS

    @property
    def is_integer(self) -> bool:
        return self.name in INTEGERS

    @property
    def precision(self) -> int:
        return self.numbers[0] if self.numbers else 3


def array(element: Type) -> Type:
    return Type("array", (element,))


def map_of(key: Type, value: Type) -> Type:
    return Type("map", (key, value))


def row(parts: tuple[Type, ...], names: tuple[str | None, ...] | None = None) -> Type:
    return Type("row", parts, names or (None,) * len(parts))


def decimal(precision: int, scale: int) -> Type:
    return Type("decimal", numbers=(min(precision, 38), min(scale, 38)))


def timestamp(precision: int = 3) -> Type:
    return Type("timestamp", numbers=(precision,))


def zoned(precision: int = 3, zone: str = "UTC") -> Type:
    return Type("timestamp with time zone", numbers=(precision,), zone=zone)


BIGINT, INTEGER, DOUBLE, BOOLEAN = Type("bigint"), Type("integer"), Type("double"), Type("boolean")
VARCHAR, UNKNOWN, DATE, JSON = Type("varchar"), Type("unknown"), Type("date"), Type("json")
VARBINARY = Type("varbinary")
DAYS, MONTHS = Type("interval day to second"), Type("interval year to month")


def as_decimal(kind: Type) -> Type:
    return kind if kind.name == "decimal" else decimal(DIGITS[kind.name], 0)


def common(left: Type, right: Type) -> Type | None:
    """The type to which Trino coerces both, None where there is none."""
    if left == right and left.name != "row":
        return replace(left, zone=left.zone if left.zone == right.zone else "")
    if left.name == "unknown" or right.name == "unknown":
        return right if left.name == "unknown" else left
    if left.is_number and right.is_number:
        return _common_number(left, right)
    if left.name == right.name and left.parts and len(left.parts) == len(right.parts):
        parts = tuple(common(a, b) for a, b in zip(left.parts, right.parts, strict=False))
        if any(part is None for part in parts):
            return None
        names = tuple(a if a == b else None for a, b in zip(left.names, right.names, strict=False))
        return Type(left.name, tuple(p for p in parts if p), names)
    times = ("date", "timestamp", "timestamp with time zone")
    if left.name in times and right.name in times:
        return _common_time(left, right)
    if left.name == right.name == "time":
        return max(left, right, key=lambda t: t.precision)
    return None


def _common_time(left: Type, right: Type) -> Type:
    digits = max(t.precision for t in (left, right) if t.numbers)
    zones = {t.zone for t in (left, right) if "zone" in t.name}
    if zones:
        return zoned(digits, zones.pop() if len(zones) == 1 else "")
    return timestamp(digits)


def _common_number(left: Type, right: Type) -> Type:
    low, high = sorted((left, right), key=lambda t: NUMBERS.index(t.name))
    if high.name != "decimal":
        return high
    a, b = as_decimal(low), as_decimal(high)
    scale = max(a.numbers[1], b.numbers[1])
    return decimal(max(a.numbers[0] - a.numbers[1], b.numbers[0] - b.numbers[1]) + scale, scale)


def coercible(source: Type, target: Type) -> bool:
    found = common(source, target)
    return found is not None and found.name == target.name and (not target.parts or found == target)


def from_arrow(kind: pa.DataType) -> Type:
    """The type of a Delta column, as `deltalake` gives it."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return array(from_arrow(kind.value_type))
    if pa.types.is_map(kind):
        return map_of(from_arrow(kind.key_type), from_arrow(kind.item_type))
    if pa.types.is_struct(kind):
        return row(tuple(from_arrow(f.type) for f in kind), tuple(f.name.lower() for f in kind))
    if pa.types.is_timestamp(kind):
        return zoned() if kind.tz else timestamp()
    if pa.types.is_decimal(kind):
        return decimal(kind.precision, kind.scale)
    names = {"int64": "bigint", "int32": "integer", "int16": "smallint", "int8": "tinyint"}
    names |= {"bool": "boolean", "float": "real", "date32[day]": "date", "binary": "varbinary"}
    names |= {"string": "varchar", "large_string": "varchar", "string_view": "varchar"}
    return Type(names.get(str(kind), str(kind)))


def hive_type(kind: Type | str) -> str:
    """The type as DESCRIBE and the Glue catalog write it: string, timestamp, array<string>."""
    text = re.sub(r"timestamp\(\d+\)( with time zone)?", "timestamp", str(kind))
    text = text.replace("timestamp with time zone", "timestamp")
    text = text.replace("varchar", "string").replace("integer", "int")
    text = re.sub(r"\b(array|map)\(", r"\1<", text).replace(", ", ",")
    return re.sub(r"\)(?=[,)>]|$)", ">", text) if "<" in text else text
