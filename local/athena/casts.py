"""One value's type to another: where Trino casts, and how DuckDB is made to give the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import types as ty
from .errors import Refusal, not_here
from .types import Type


@dataclass(frozen=True)
class Typed:
    """An expression in DuckDB's SQL and its type in Trino; `text` is the value of a literal."""

    sql: str
    type: Type
    text: str | None = None


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def local_time(value: Typed) -> str:
    """A date or time as the local time that it shows: DuckDB's TIMESTAMP."""
    plain = f"CAST({value.sql} AS TIMESTAMP)"
    if value.type.name != "timestamp with time zone" or value.type.zone == "UTC":
        return plain
    if not value.type.zone:
        raise not_here("A value whose time zone differs from row to row")
    return f"trino_at_zone({plain}, {quoted(value.type.zone)})"


def zoned_time(local: str, zone: str) -> str:
    """A local time of a zone as DuckDB's TIMESTAMPTZ."""
    if zone == "UTC":
        return f"CAST({local} AS TIMESTAMPTZ)"
    return f"CAST(trino_from_zone({local}, {quoted(zone)}) AS TIMESTAMPTZ)"


def rounded(sql: str, precision: int) -> str:
    """A TIMESTAMP rounded half up to a precision below 6."""
    unit = 10 ** (6 - precision)
    return f"make_timestamp(((epoch_us({sql}) + {unit // 2}) // {unit}) * {unit})"


def coerce(value: Typed, target: Type) -> str:
    """The value where Trino takes it for the target by itself."""
    source = value.type
    if source == target and source.name != "row" or source.duckdb == target.duckdb and source.parts:
        return value.sql
    if source.name == "unknown":
        return f"CAST(NULL AS {target.duckdb})"
    if "time zone" in target.name and "time zone" not in source.name:
        return zoned_time(f"CAST({value.sql} AS TIMESTAMP)", "UTC")
    return f"CAST({value.sql} AS {target.duckdb})"


def cast(value: Typed, target: Type, at: int | None = None) -> str:
    """CAST(value AS target)."""
    source = value.type
    if source.name == "unknown":
        return f"CAST(NULL AS {target.duckdb})"
    if source == target and source.name not in ("row", "varchar"):
        return value.sql
    if source.parts or target.parts:
        return _cast_nested(value, target, at)
    rule = CASTS.get((_family(source), _family(target)))
    if rule is None:
        raise Refusal("TYPE_MISMATCH", f"Cannot cast {source} to {target}", at)
    return str(rule(value, target))


def _family(kind: Type) -> str:
    if kind.is_integer:
        return "integer"
    return {"real": "double"}.get(kind.name, kind.name)


def _cast_nested(value: Typed, target: Type, at: int | None) -> str:
    source = value.type
    if source.name == "json":
        return _from_json(value.sql, target, at)
    if target.name == "json":
        return _to_json(value, at)
    if source.name != target.name or len(source.parts) != len(target.parts):
        raise Refusal("TYPE_MISMATCH", f"Cannot cast {source} to {target}", at)
    if source.name == "array":
        if source.parts[0].name == "unknown":
            return f"CAST({value.sql} AS {target.duckdb})"
        inner = cast(Typed("e_", source.parts[0]), target.parts[0], at)
        return f"list_transform({value.sql}, lambda e_: {inner})"
    if source.name == "row":
        fields = (
            f"f{i} := {cast(Typed(f'({value.sql}).f{i}', a), b, at)}"
            for i, (a, b) in enumerate(zip(source.parts, target.parts, strict=False))
        )
        return f"CASE WHEN {value.sql} IS NULL THEN NULL ELSE struct_pack({', '.join(fields)}) END"
    keys = cast(
        Typed(f"map_keys({value.sql})", ty.array(source.parts[0])), ty.array(target.parts[0]), at
    )
    values = cast(
        Typed(f"map_values({value.sql})", ty.array(source.parts[1])), ty.array(target.parts[1]), at
    )
    return f"map({keys}, {values})"


def _from_json(sql: str, target: Type, at: int | None) -> str:
    if target.name == "array":
        inner = _from_json("j_", target.parts[0], at)
        return f"list_transform(trino_json_items({sql}), lambda j_: {inner})"
    if target.name == "map" and target.parts[0].name == "varchar":
        members = f"trino_json_members({sql})"
        inner = _from_json("j_", target.parts[1], at)
        return (
            f"map(map_keys({members}), list_transform(map_values({members}), lambda j_: {inner}))"
        )
    if target.name == "row":
        members = f"trino_json_members({sql})"
        fields = (
            f"f{i} := {_from_json(f'map_extract_value({members}, {quoted(n or str(i))})', part, at)}"
            for i, (n, part) in enumerate(zip(target.names, target.parts, strict=False))
        )
        return f"struct_pack({', '.join(fields)})"
    if target.name == "json":
        return sql
    text = f"trino_json_scalar_text({sql}, {quoted(str(target))})"
    if target.is_integer:
        number = f"trino_double_to_integer(trino_text_to_double({text}, 'double'), '{target.name}')"
        return f"CAST({number} AS {target.duckdb})"
    return cast(Typed(text, ty.VARCHAR), target, at)


def _to_json(value: Typed, at: int | None) -> str:
    kind, sql = value.type, value.sql
    if kind.name == "array":
        inner = _to_json(Typed("j_", kind.parts[0]), at)
        listed = f"list_transform({sql}, lambda j_: coalesce({inner}, 'null'))"
        return (
            f"CASE WHEN {sql} IS NULL THEN NULL ELSE '[' || array_to_string({listed}, ',') || "
            "']' END"
        )
    if kind.name == "map" and kind.parts[0].name == "varchar":
        inner = _to_json(Typed("m_.value", kind.parts[1]), at)
        member = f"trino_json_string(m_.key) || ':' || coalesce({inner}, 'null')"
        entries = f"list_sort(list_transform(map_entries({sql}), lambda m_: {member}))"
        return (
            f"CASE WHEN {sql} IS NULL THEN NULL ELSE '{{' || array_to_string({entries}, ',') "
            f"|| "
            f"'}}' END"
        )
    if kind.name == "json":
        return sql
    if kind.parts:
        raise not_here(f"A cast of {kind} to json", at)
    if kind.name == "varchar":
        return f"trino_json_string({sql})"
    text = as_text(value, java=True)
    return text if kind.is_number or kind.name == "boolean" else f"trino_json_string({text})"


def as_text(value: Typed, java: bool = False) -> str:
    """The value as varchar, as CAST writes it; `java` for doubles as JSON has them."""
    kind, sql = value.type, value.sql
    if kind.name == "double":
        return f"trino_java_text({sql})" if java else f"trino_double_to_text({sql})"
    if kind.name == "real":
        return f"trino_real_to_text(CAST({sql} AS DOUBLE))"
    if kind.name in ("timestamp", "timestamp with time zone"):
        digits = min(kind.precision, 6)
        text = f"strftime({local_time(value)}, '%Y-%m-%d %H:%M:%S.%f')"
        text = f"left({text}, {20 + digits if digits else 19})"
        return f"{text} || {quoted(' ' + kind.zone)}" if "zone" in kind.name else text
    if kind.name == "interval day to second":
        return f"trino_days_text(epoch_ms({sql}))"
    if kind.name == "interval year to month":
        return f"trino_months_text({months(sql)})"
    return f"CAST({sql} AS VARCHAR)"


def months(sql: str) -> str:
    return f"(datepart('year', {sql}) * 12 + datepart('month', {sql}))"


def _to_varchar(value: Typed, target: Type) -> str:
    text = value.sql if value.type.name in ("varchar", "json") else as_text(value)
    if value.type.name == "json":
        text = f"trino_json_scalar_text({text}, 'varchar')"
    if target.length is None:
        return text
    if value.type.name == "varchar":
        return f"substring({text}, 1, {target.length})"
    return f"trino_fit_text({text}, {target.length})"


def _text_to_integer(value: Typed, target: Type) -> str:
    """Plain digits, too few to overflow, are left to DuckDB, which is far quicker than Python."""
    plain = f"regexp_full_match({value.sql}, '-?[0-9]{{1,{ty.DIGITS[target.name] - 1}}}')"
    other = f"CAST(trino_text_to_integer({value.sql}, '{target.name}') AS {target.duckdb})"
    return f"CASE WHEN {plain} THEN CAST({value.sql} AS {target.duckdb}) ELSE {other} END"


def _text_to_date(value: Typed, target: Type) -> str:
    plain = f"regexp_full_match({value.sql}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}')"
    other = f"trino_text_to_date({value.sql})"
    quick = f"coalesce(TRY_CAST({value.sql} AS DATE), {other})"
    return f"CASE WHEN {plain} THEN {quick} ELSE {other} END"


def _double_to_integer(value: Typed, target: Type) -> str:
    sql = f"trino_double_to_integer(CAST({value.sql} AS DOUBLE), '{target.name}')"
    return f"CAST({sql} AS {target.duckdb})"


def _to_decimal(function: str) -> Any:
    def rule(value: Typed, target: Type) -> str:
        source = f"CAST({value.sql} AS {'DOUBLE' if 'double' in function else 'VARCHAR'})"
        precision, scale = target.numbers
        return f"CAST({function}({source}, {precision}, {scale}) AS {target.duckdb})"

    return rule


def _plain(value: Typed, target: Type) -> str:
    return f"CAST({value.sql} AS {target.duckdb})"


def _to_timestamp(value: Typed, target: Type) -> str:
    if value.type.name == "varchar":
        return f"trino_text_to_stamp({value.sql}, {target.precision})"
    local = local_time(value)
    shorter = value.type.numbers and target.precision < value.type.precision
    return rounded(local, target.precision) if shorter else local


def _to_zoned(value: Typed, target: Type) -> str:
    if value.type.name == "timestamp with time zone":
        local = f"CAST({value.sql} AS TIMESTAMP)"
        shorter = target.precision < value.type.precision
        return f"CAST({rounded(local, target.precision)} AS TIMESTAMPTZ)" if shorter else value.sql
    return zoned_time(f"CAST({value.sql} AS TIMESTAMP)", "UTC")


def zone_in_text(text: str) -> str:
    """The zone that the text of a timestamp names; "" where it names none."""
    from .values import STAMP

    found = STAMP.fullmatch(text)
    return found[8] if found else ""


CASTS = {
    ("varchar", "varchar"): _to_varchar,
    ("varchar", "integer"): _text_to_integer,
    ("varchar", "double"): lambda v, t: (
        f"CASE WHEN trim({v.sql}) = 'NaN' THEN 'nan'::{t.duckdb} "
        f"ELSE CAST(trino_text_to_double({v.sql}, '{t.name}') AS {t.duckdb}) END"
    ),
    ("varchar", "decimal"): _to_decimal("trino_text_to_decimal"),
    ("varchar", "boolean"): lambda v, t: f"trino_text_to_boolean({v.sql})",
    ("varchar", "date"): _text_to_date,
    ("varchar", "timestamp"): _to_timestamp,
    ("varchar", "timestamp with time zone"): lambda v, t: (
        f"CAST(trino_text_to_zoned({v.sql}, {t.precision}) AS TIMESTAMPTZ)"
    ),
    ("varchar", "varbinary"): lambda v, t: f"encode({v.sql})",
    ("varchar", "json"): lambda v, t: f"trino_json_string({v.sql})",
    ("integer", "varchar"): _to_varchar,
    ("integer", "integer"): _plain,
    ("integer", "double"): _plain,
    ("integer", "decimal"): _to_decimal("trino_fit_decimal"),
    ("integer", "boolean"): lambda v, t: f"({v.sql} <> 0)",
    ("integer", "json"): lambda v, t: f"CAST({v.sql} AS VARCHAR)",
    ("double", "varchar"): _to_varchar,
    ("double", "integer"): _double_to_integer,
    ("double", "double"): _plain,
    ("double", "decimal"): _to_decimal("trino_double_to_decimal"),
    ("double", "boolean"): lambda v, t: f"({v.sql} <> 0)",
    ("double", "json"): lambda v, t: as_text(v, java=True),
    ("decimal", "varchar"): _to_varchar,
    ("decimal", "integer"): _plain,
    ("decimal", "double"): _plain,
    ("decimal", "decimal"): _to_decimal("trino_fit_decimal"),
    ("decimal", "json"): lambda v, t: f"CAST({v.sql} AS VARCHAR)",
    ("timestamp", "json"): lambda v, t: f"trino_json_string({as_text(v)})",
    ("decimal", "boolean"): lambda v, t: f"({v.sql} <> 0)",
    ("boolean", "varchar"): _to_varchar,
    ("boolean", "integer"): _plain,
    ("boolean", "double"): lambda v, t: f"CAST(CAST({v.sql} AS INTEGER) AS {t.duckdb})",
    ("boolean", "decimal"): lambda v, t: f"CAST(CAST({v.sql} AS INTEGER) AS {t.duckdb})",
    ("boolean", "json"): lambda v, t: f"CAST({v.sql} AS VARCHAR)",
    ("date", "varchar"): _to_varchar,
    ("date", "timestamp"): _to_timestamp,
    ("date", "timestamp with time zone"): _to_zoned,
    ("date", "json"): lambda v, t: f"trino_json_string(CAST({v.sql} AS VARCHAR))",
    ("timestamp", "varchar"): _to_varchar,
    ("timestamp", "date"): lambda v, t: f"CAST({v.sql} AS DATE)",
    ("timestamp", "timestamp"): _to_timestamp,
    ("timestamp", "timestamp with time zone"): _to_zoned,
    ("timestamp with time zone", "varchar"): _to_varchar,
    ("timestamp with time zone", "date"): lambda v, t: f"CAST({local_time(v)} AS DATE)",
    ("timestamp with time zone", "timestamp"): _to_timestamp,
    ("timestamp with time zone", "timestamp with time zone"): _to_zoned,
    ("interval day to second", "varchar"): _to_varchar,
    ("interval year to month", "varchar"): _to_varchar,
    ("uuid", "varchar"): _to_varchar,
    ("json", "varchar"): _to_varchar,
    ("json", "integer"): lambda v, t: _from_json(v.sql, t, None),
    ("json", "double"): lambda v, t: _from_json(v.sql, t, None),
    ("json", "boolean"): lambda v, t: _from_json(v.sql, t, None),
    ("json", "decimal"): lambda v, t: _from_json(v.sql, t, None),
}


def parse_type(words: list[str], at: int) -> Type:
    """The type that a cast names."""
    kind, rest = _type(words, at)
    if rest:
        raise Refusal("SYNTAX_ERROR", f"mismatched input '{rest[0]}'", at)
    return kind


def _type(words: list[str], at: int) -> tuple[Type, list[str]]:
    if not words:
        raise Refusal("SYNTAX_ERROR", "mismatched input ')'. Expecting: <type>", at)
    name, rest = words[0].lower(), words[1:]
    if name == "double" and rest[:1] and rest[0].lower() == "precision":
        rest = rest[1:]
    if name in ("array", "map", "row") and rest[:1] == ["("]:
        return _nested(name, rest[1:], at)
    numbers: list[int] = []
    if rest[:1] == ["("]:
        end = rest.index(")")
        numbers = [int(w) for w in rest[1:end] if w.isdigit()]
        rest = rest[end + 1 :]
    if name in ("timestamp", "time") and [w.lower() for w in rest[:3]] == ["with", "time", "zone"]:
        name, rest = f"{name} with time zone", rest[3:]
    return _simple(ty.SYNONYMS.get(name, name), numbers, at), rest


def _simple(name: str, numbers: list[int], at: int) -> Type:
    if name == "decimal":
        return ty.decimal(numbers[0] if numbers else 38, numbers[1] if len(numbers) > 1 else 0)
    if name == "varchar":
        return Type("varchar", length=numbers[0] if numbers else None)
    if name in ("timestamp", "timestamp with time zone"):
        if numbers and numbers[0] > 6:
            raise not_here("A precision below a microsecond", at)
        return Type(name, numbers=(numbers[0] if numbers else 3,))
    if name in ("char", "time", "time with time zone", "ipaddress", "hyperloglog"):
        raise not_here(f"The type {name}", at)
    if name not in ty.DUCKDB or name == "unknown":
        raise Refusal("TYPE_MISMATCH", f"Unknown type: {name}", at)
    return Type(name)


def _nested(name: str, rest: list[str], at: int) -> tuple[Type, list[str]]:
    parts: list[Type] = []
    names: list[str | None] = []
    while True:
        label = None
        if name == "row" and len(rest) > 1 and rest[1] not in (",", ")", "("):
            label, rest = rest[0].strip('"').lower(), rest[1:]
        part, rest = _type(rest, at)
        parts.append(part)
        names.append(label)
        if not rest or rest[0] not in (",", ")"):
            raise Refusal("SYNTAX_ERROR", "mismatched input in a type", at)
        closing, rest = rest[0], rest[1:]
        if closing == ")":
            return Type(name, tuple(parts), tuple(names) if name == "row" else ()), rest
