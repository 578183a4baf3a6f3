"""What a query returned, and how Athena writes it: as text, as a result file, as
GetQueryResults."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .types import DIGITS, Type
from .values import java_double, zone_of


@dataclass(frozen=True)
class Result:
    """What a query returned: names, Athena's type names, and rows of Python values (timestamps
    carry UTC)."""

    names: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]
    query_id: str = ""
    seconds: float = 0.0
    kinds: list[Type] = field(default_factory=list, repr=False, compare=False)

    def text_rows(self) -> list[list[str | None]]:
        """The rows as Athena writes them; NULL stays None."""
        kinds: Sequence[Type | None] = self.kinds or [None] * len(self.names)
        return [
            [as_text(value, kind) for value, kind in zip(row, kinds, strict=False)]
            for row in self.rows
        ]

    def csv(self) -> str:
        """The text of the result file, with Athena's line ends."""
        stream = io.StringIO(newline="")
        rows: list[list[str | None]] = [list(self.names), *self.text_rows()]
        for row in rows:
            stream.write(
                ",".join("" if v is None else '"' + v.replace('"', '""') + '"' for v in row) + "\n"
            )
        return stream.getvalue()

    def table(self) -> str:
        """The rows as a table for a terminal, numbers to the right, NULL as an empty cell."""
        cells = [[(v or "").replace("\n", "⏎") for v in row] for row in self.text_rows()]
        widths = [max(map(len, column)) for column in zip(self.names, *cells, strict=False)]
        right = [
            re.match("bigint|integer|double|decimal|real", kind) is not None for kind in self.types
        ]

        def line(row: Sequence[str]) -> str:
            return "  ".join(
                v.rjust(w) if r else v.ljust(w) for v, w, r in zip(row, widths, right, strict=False)
            ).rstrip()

        rule = "  ".join("-" * w for w in widths)
        return "\n".join(
            [
                line(self.names),
                rule,
                *map(line, cells),
                f"({len(cells)} rows, {self.seconds:.2f} s)",
            ]
        )

    def result_set(self) -> dict[str, Any]:
        """The `ResultSet` of GetQueryResults: all values as text, the first row holds the names."""

        def row(values: Iterable[str | None]) -> dict[str, Any]:
            return {"Data": [{} if v is None else {"VarCharValue": v} for v in values]}

        info = [column_info(name, kind) for name, kind in zip(self.names, self.types, strict=False)]
        return {
            "Rows": [row(self.names), *map(row, self.text_rows())],
            "ResultSetMetadata": {"ColumnInfo": info},
        }


PRECISIONS = {"double": 17, "real": 24, "varchar": 2147483647, **DIGITS}


def column_info(name: str, kind: str) -> dict[str, Any]:
    """One column in GetQueryResults: the type's name without what stands in parentheses, which come
    apart."""
    base = re.sub(r"\(.*\)", "", kind)
    numbers = [int(n) for n in re.findall(r"\d+", kind)] if base != kind and "," not in base else []
    nested = base in ("array", "map", "row")
    precision = 0 if nested else numbers[0] if numbers else PRECISIONS.get(base, 0)
    scale = numbers[1] if base == "decimal" else 0
    shared = {"CatalogName": "hive", "SchemaName": "", "TableName": "", "Nullable": "UNKNOWN"}
    own = {"Name": name, "Label": name, "Type": base, "Precision": precision, "Scale": scale}
    return {**shared, **own, "CaseSensitive": base == "varchar"}


def as_text(value: Any, kind: Type | None = None) -> str | None:
    """One value in Athena's text: `2025-04-01 10:00:00.000 UTC`, `260.0`, `[a, b]`, `{k=v}`."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return java_double(value, real=kind is not None and kind.name == "real")
    if isinstance(value, dt.datetime):
        return _moment(value, kind)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex(" ")
    parts: Sequence[Type | None] = kind.parts if kind else ()
    if isinstance(value, dict):
        kinds = parts if kind and kind.name == "row" else [parts[1] if parts else None] * len(value)
        listed = (
            f"{as_text(k)}={_inner(v, part)}"
            for (k, v), part in zip(value.items(), kinds, strict=False)
        )
        return "{" + ", ".join(listed) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_inner(v, parts[0] if parts else None) for v in value) + "]"
    return format(value, "f") if isinstance(value, decimal.Decimal) else str(value)


def _inner(value: Any, kind: Type | None) -> str:
    return "null" if value is None else str(as_text(value, kind))


def _moment(value: dt.datetime, kind: Type | None) -> str:
    digits = min(kind.precision, 6) if kind else 3
    fraction = f".{value.microsecond:06}"[: digits + 1] if digits else ""
    zone = (kind.zone if kind else "UTC") if value.tzinfo else ""
    return f"{value:%Y-%m-%d %H:%M:%S}".rjust(19, "0") + fraction + (f" {zone}" if zone else "")


def present(value: Any, kind: Type) -> Any:
    """A value as DuckDB hands it over, as this package gives it out: rows by their names, times in
    their zones."""
    if value is None:
        return None
    if kind.name == "array":
        return [present(v, kind.parts[0]) for v in value]
    if kind.name == "map":
        return {k: present(v, kind.parts[1]) for k, v in value.items()}
    if kind.name == "row":
        names = (name or f"field{i}" for i, name in enumerate(kind.names))
        values = value.values() if isinstance(value, dict) else value
        return {n: present(v, k) for n, v, k in zip(names, values, kind.parts, strict=False)}
    if kind.name == "timestamp with time zone":
        return value.astimezone(zone_of(kind.zone or "UTC"))
    if kind.name == "uuid":
        return str(value)
    return value
