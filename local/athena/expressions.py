"""Expressions: a tree and a scope to DuckDB's SQL and Trino's type."""

from __future__ import annotations

import decimal
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from . import tree as t
from . import types as ty
from .calls import Calls
from .casts import (
    Typed,
    cast,
    coerce,
    local_time,
    months,
    parse_type,
    quoted,
    zone_in_text,
    zoned_time,
)
from .errors import Refusal, not_here
from .scope import Scope
from .types import Type, common
from .values import STAMP, text_to_date, text_to_stamp, text_to_zoned, zone_of

COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")
MILLIS = {"day": 86_400_000, "hour": 3_600_000, "minute": 60_000, "second": 1000}


class Expressions(Calls):
    """One method for each node of the tree."""

    def expression(self, node: t.Node, scope: Scope) -> Typed:
        rule: Callable[[Any, Scope], Typed] = getattr(self, f"on_{type(node).__name__.lower()}")
        return rule(node, scope)

    def boolean(self, node: t.Node, scope: Scope, what: str) -> str:
        value = self.expression(node, scope)
        if value.type.name not in ("boolean", "unknown"):
            message = f"{what} must evaluate to a boolean: actual type {value.type}"
            raise Refusal("TYPE_MISMATCH", message, node.at)
        return coerce(value, ty.BOOLEAN)

    # Names
    def on_name(self, node: t.Name, scope: Scope) -> Typed:
        found = scope.find(node.name, (), node.at)
        if found is None:
            raise Refusal("COLUMN_NOT_FOUND", f"Column '{node.name}' cannot be resolved", node.at)
        return found

    def on_dot(self, node: t.Dot, scope: Scope) -> Typed:
        path = dotted(node)
        if path and (found := scope.find(path[-1], tuple(path[:-1]), node.at)):
            return found
        try:
            base = self.expression(node.base, scope)
        except Refusal as refusal:
            if path and refusal.code == "COLUMN_NOT_FOUND":
                message = f"Column '{'.'.join(path)}' cannot be resolved"
                raise Refusal("COLUMN_NOT_FOUND", message, node.at) from refusal
            raise
        if base.type.name != "row" or node.name not in base.type.names:
            message = f"Expression is not of type ROW, or has no field {node.name}"
            raise Refusal("TYPE_MISMATCH", message, node.at)
        at = base.type.names.index(node.name)
        return Typed(f"({base.sql}).f{at}", base.type.parts[at])

    def on_star(self, node: t.Star, scope: Scope) -> Typed:
        raise Refusal("SYNTAX_ERROR", "mismatched input '*'", node.at)

    def on_lambda(self, node: t.Lambda, scope: Scope) -> Typed:
        message = "Lambda expression should always be used inside a function"
        raise Refusal("TYPE_MISMATCH", message, node.at)

    # Literals
    def on_literal(self, node: t.Literal, scope: Scope) -> Typed:
        rule = getattr(self, f"literal_{node.kind}", None)
        if rule is None:
            raise not_here(f"A literal of type {node.kind}", node.at)
        return rule(node)

    def literal_unknown(self, node: t.Literal) -> Typed:
        return Typed("CAST(NULL AS INTEGER)", ty.UNKNOWN)

    def literal_varchar(self, node: t.Literal) -> Typed:
        kind = Type("varchar", length=len(node.value))
        return Typed(quoted(node.value), kind, node.value)

    def literal_varbinary(self, node: t.Literal) -> Typed:
        if not re.fullmatch(r"([0-9a-fA-F]{2})*", node.value):
            raise Refusal(
                "INVALID_LITERAL", "Binary literal must contain hexadecimal digits", node.at
            )
        return Typed(f"unhex('{node.value}')", ty.VARBINARY)

    def literal_boolean(self, node: t.Literal) -> Typed:
        if node.value.lower() not in ("true", "false"):
            raise Refusal(
                "INVALID_LITERAL", f"'{node.value}' is not a valid BOOLEAN literal", node.at
            )
        return Typed(node.value.lower(), ty.BOOLEAN)

    def literal_integer(self, node: t.Literal) -> Typed:
        text = node.value.replace("_", "")
        value = (
            int(text, 0) if text[:1] == "0" and text.isalnum() and not text.isdigit() else int(text)
        )
        if value >= 2**63:
            raise Refusal("SYNTAX_ERROR", f"Invalid numeric literal: {node.value}", node.at)
        kind = ty.INTEGER if value < 2**31 else ty.BIGINT
        return Typed(str(value), kind, str(value))

    literal_int = literal_integer

    def _sized(self, node: t.Literal) -> Typed:
        kind = Type(node.kind)
        return Typed(cast(self.literal_varchar(node), kind), kind)

    literal_bigint = literal_smallint = literal_tinyint = literal_double = literal_real = _sized

    def literal_decimal(self, node: t.Literal) -> Typed:
        text = node.value.replace("_", "").strip()
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", text):
            raise Refusal("INVALID_LITERAL", f"'{text}' is not a valid DECIMAL literal", node.at)
        whole, _, fraction = text.lstrip("+-").partition(".")
        digits = max(len(whole.lstrip("0")) + len(fraction), 1)
        if digits > 38:
            raise Refusal("INVALID_LITERAL", f"Decimal literal too long: {text}", node.at)
        kind = ty.decimal(digits, len(fraction))
        return Typed(f"CAST('{decimal.Decimal(text):f}' AS {kind.duckdb})", kind)

    def literal_date(self, node: t.Literal) -> Typed:
        try:
            return Typed(f"DATE '{text_to_date(node.value)}'", ty.DATE)
        except ValueError:
            message = f"'{node.value}' is not a valid DATE literal"
            raise Refusal("INVALID_LITERAL", message, node.at) from None

    def literal_timestamp(self, node: t.Literal) -> Typed:
        found = STAMP.fullmatch(node.value)
        zone = zone_in_text(node.value)
        digits = len(found[7] or "") if found else 0
        if digits > 6:
            raise not_here("A precision below a microsecond", node.at)
        try:
            if zone:
                zone_of(zone)
                value = text_to_zoned(node.value, 6)
                return Typed(f"TIMESTAMPTZ '{value}+00'", ty.zoned(digits, zone))
            return Typed(f"TIMESTAMP '{text_to_stamp(node.value, 6)}'", ty.timestamp(digits))
        except ValueError:
            message = f"'{node.value}' is not a valid TIMESTAMP literal"
            raise Refusal("INVALID_LITERAL", message, node.at) from None

    def literal_json(self, node: t.Literal) -> Typed:
        return Typed(f"trino_json_parse({quoted(node.value)})", ty.JSON)

    def on_interval(self, node: t.Interval, scope: Scope) -> Typed:
        sign = -1 if node.negative else 1
        text = node.text
        if text.startswith("-"):
            sign, text = -sign, text[1:]
        if node.unit == "week" or node.to == "week":
            raise Refusal("TYPE_NOT_FOUND", "Unknown resolvedType: interval week", node.at)
        if node.unit in ("year", "month"):
            return Typed(f"to_months({sign * self._months(node, text)})", ty.MONTHS)
        return Typed(f"to_milliseconds({sign * self._millis(node, text)})", ty.DAYS)

    def _months(self, node: t.Interval, text: str) -> int:
        if node.to == "month" and (found := re.fullmatch(r"(\d+)-(\d+)", text)):
            return int(found[1]) * 12 + int(found[2])
        if node.to is None and text.isdigit():
            return int(text) * (12 if node.unit == "year" else 1)
        raise Refusal("INVALID_LITERAL", f"Invalid INTERVAL value: {node.text}", node.at)

    def _millis(self, node: t.Interval, text: str) -> int:
        units = list(MILLIS)
        last = node.to or node.unit
        wanted = units[units.index(node.unit) : units.index(last) + 1]
        parts = re.split(r"[ :]", text)
        if len(parts) != len(wanted) or not all(re.fullmatch(r"\d+(\.\d{1,3})?", p) for p in parts):
            raise Refusal("INVALID_LITERAL", f"Invalid INTERVAL value: {node.text}", node.at)
        return int(
            sum(decimal.Decimal(p) * MILLIS[unit] for p, unit in zip(parts, wanted, strict=False))
        )

    # Collections
    def on_array(self, node: t.Array, scope: Scope) -> Typed:
        items = [self.expression(item, scope) for item in node.items]
        kind = self.unify(items, [i.at for i in node.items], "All ARRAY elements")
        inner = ", ".join(coerce(item, kind) for item in items)
        return Typed(f"CAST([{inner}] AS {kind.duckdb}[])", ty.array(kind))

    def on_row(self, node: t.Row, scope: Scope) -> Typed:
        items = [self.expression(item, scope) for item in node.items]
        inner = ", ".join(f"f{i} := {item.sql}" for i, item in enumerate(items))
        return Typed(f"struct_pack({inner})", ty.row(tuple(i.type for i in items)))

    def unify(self, items: list[Typed], places: list[int], what: str) -> Type:
        kind = ty.UNKNOWN
        for item, at in zip(items, places, strict=False):
            found = common(kind, item.type)
            if found is None:
                message = (
                    f"{what} must be the same type or coercible to a common type: {kind}, "
                    f"{item.type}"
                )
                raise Refusal("TYPE_MISMATCH", message, at)
            kind = found
        return replace(kind, length=None)

    def on_index(self, node: t.Index, scope: Scope) -> Typed:
        base, index = self.expression(node.base, scope), self.expression(node.index, scope)
        if base.type.name == "array" and index.type.is_integer:
            element = base.type.parts[0]
            number = f"CAST({index.sql} AS BIGINT)"
            too_high = (
                "'Array subscript must be less than or equal to array length: ' || "
                f"{number} || ' > ' || len({base.sql})"
            )
            fail = "CAST(trino_failure('INVALID_FUNCTION_ARGUMENT', {}) AS " + element.duckdb + ")"
            return Typed(
                f"CASE WHEN {number} = 0 THEN "
                f"{fail.format(quoted('SQL array indices start at 1'))} "
                f"WHEN {number} < 0 THEN {fail.format(quoted('Array subscript is negative'))} "
                f"WHEN {number} > len({base.sql}) THEN {fail.format(too_high)} "
                f"ELSE list_extract({base.sql}, {number}) END",
                element,
            )
        if base.type.name == "map" and ty.coercible(index.type, base.type.parts[0]):
            key, value = coerce(index, base.type.parts[0]), base.type.parts[1]
            fail = (
                f"trino_failure('INVALID_FUNCTION_ARGUMENT', 'Key not present in map: ' || {key})"
            )
            return Typed(
                f"CASE WHEN NOT list_contains(map_keys({base.sql}), {key}) "
                f"THEN CAST({fail} AS {value.duckdb}) ELSE map_extract_value({base.sql}, {key}) "
                "END",
                value,
            )
        if base.type.name == "row" and index.text and 0 < int(index.text) <= len(base.type.parts):
            at = int(index.text) - 1
            return Typed(f"({base.sql}).f{at}", base.type.parts[at])
        raise Refusal("TYPE_MISMATCH", f"Cannot apply operator: {base.type}[{index.type}]", node.at)

    # Operators
    def on_unary(self, node: t.Unary, scope: Scope) -> Typed:
        if node.operator == "not":
            negated = self.boolean(node.value, scope, "Value of logical NOT expression")
            return Typed(f"(NOT {negated})", ty.BOOLEAN)
        value = self.expression(node.value, scope)
        if not value.type.is_number and not value.type.name.startswith("interval"):
            message = f"Cannot negate {value.type}"
            raise Refusal("TYPE_MISMATCH", message, node.at)
        if node.operator == "+" and value.type.name == "decimal":
            message = f"Unary '+' operator cannot be applied to {value.type} type"
            raise Refusal("TYPE_MISMATCH", message, node.at)
        return value if node.operator == "+" else Typed(f"(- {value.sql})", value.type)

    def on_binary(self, node: t.Binary, scope: Scope) -> Typed:
        if node.operator in ("and", "or"):
            sides = [
                self.boolean(n, scope, "Logical expression term") for n in (node.left, node.right)
            ]
            return Typed(f"({sides[0]} {node.operator.upper()} {sides[1]})", ty.BOOLEAN)
        if node.operator in COMPARISONS:
            return self.comparison(node, scope)
        left, right = self.expression(node.left, scope), self.expression(node.right, scope)
        if node.operator == "||":
            return self.concatenated([left, right], node.at)
        return self.arithmetic(node, left, right)

    def concatenated(self, items: list[Typed], at: int) -> Typed:
        if any(i.type.name == "unknown" for i in items) and items:
            raise not_here("A concatenation with an untyped NULL", at)
        names = {item.type.name for item in items}
        if names <= {"varchar"}:
            return Typed(f"({' || '.join(i.sql for i in items)})", ty.VARCHAR)
        if names == {"varbinary"}:
            return Typed(f"({' || '.join(i.sql for i in items)})", ty.VARBINARY)
        if "array" in names:
            arrays = [
                i if i.type.name == "array" else Typed(f"[{i.sql}]", ty.array(i.type))
                for i in items
            ]
            kind = self.unify(arrays, [at] * len(arrays), "All arrays")
            joined = arrays[0]
            for other in arrays[1:]:
                sql = f"list_concat({coerce(joined, kind)}, {coerce(other, kind)})"
                both = (
                    f"CASE WHEN {joined.sql} IS NULL OR {other.sql} IS NULL THEN NULL ELSE "
                    f"{sql} END"
                )
                joined = Typed(both, kind)
            return joined
        listed = ", ".join(str(item.type) for item in items)
        raise Refusal(
            "FUNCTION_NOT_FOUND", f"Unexpected parameters ({listed}) for function concat", at
        )

    def arithmetic(self, node: t.Binary, left: Typed, right: Typed) -> Typed:
        kinds = (left.type, right.type)
        if all(k.is_number for k in kinds):
            return self.numeric(node.operator, left, right)
        if "unknown" in (left.type.name, right.type.name):
            if all(k.is_number or k.name == "unknown" for k in kinds) and left.type != right.type:
                kind = left.type if left.type.is_number else right.type
                sides = [
                    s if s.type.is_number else Typed(coerce(s, kind), kind) for s in (left, right)
                ]
                return self.numeric(node.operator, *sides)
            message = (
                "Could not choose a best candidate operator. Explicit type casts must be added."
            )
            raise Refusal("AMBIGUOUS_FUNCTION_CALL", message, node.at)
        found = self.moved(node, left, right)
        if found is None:
            message = f"Cannot apply operator: {left.type} {node.operator} {right.type}"
            raise Refusal("TYPE_MISMATCH", message, node.at)
        return found

    def numeric(self, operator: str, left: Typed, right: Typed) -> Typed:
        kind = common(left.type, right.type)
        assert kind is not None
        if kind.name == "decimal":
            return self.decimals(operator, left, right)
        sides = [coerce(side, kind) for side in (left, right)]
        if operator in "+-*":
            return Typed(f"({sides[0]} {operator} {sides[1]})", kind)
        if kind.is_integer:
            sql = f"({sides[0]} {'//' if operator == '/' else '%'} {sides[1]})"
            return Typed(sql, kind)
        if operator == "/":
            return Typed(f"({sides[0]} / {sides[1]})", kind)
        return Typed(f"({sides[0]} % {sides[1]})", kind)

    def decimals(self, operator: str, left: Typed, right: Typed) -> Typed:
        (p1, s1), (p2, s2) = (ty.as_decimal(side.type).numbers for side in (left, right))
        scale = max(s1, s2)
        if operator == "*":
            kind = ty.decimal(p1 + p2, s1 + s2)
        elif operator == "/":
            kind = ty.decimal(p1 + s2 + max(s2 - s1, 0), scale)
        elif operator == "%":
            kind = ty.decimal(min(p1 - s1, p2 - s2) + scale, scale)
        else:
            kind = ty.decimal(max(p1 - s1, p2 - s2) + scale + 1, scale)
        texts = [f"CAST({side.sql} AS VARCHAR)" for side in (left, right)]
        if operator == "/":
            return Typed(
                f"CAST(trino_divide_decimals({texts[0]}, {texts[1]}, {scale}) AS {kind.duckdb})",
                kind,
            )
        if operator == "*" and p1 + p2 > 38:
            sql = f"trino_multiply_decimals({texts[0]}, {texts[1]}, {kind.numbers[1]})"
            return Typed(f"CAST({sql} AS {kind.duckdb})", kind)
        if operator == "*":
            own = [coerce(side, ty.as_decimal(side.type)) for side in (left, right)]
            return Typed(f"CAST({own[0]} * {own[1]} AS {kind.duckdb})", kind)
        if operator == "%":
            wide = ty.decimal(max(p1 - s1, p2 - s2) + scale, scale)
            own = [coerce(side, wide) for side in (left, right)]
            return Typed(f"CAST({own[0]} % {own[1]} AS {kind.duckdb})", kind)
        own = [coerce(side, kind) for side in (left, right)]
        return Typed(f"CAST({own[0]} {operator} {own[1]} AS {kind.duckdb})", kind)

    def moved(self, node: t.Binary, left: Typed, right: Typed) -> Typed | None:
        """Dates, times and intervals with + and -, intervals with * and /."""
        a, b, operator = left.type, right.type, node.operator
        if (
            b.name.startswith("interval")
            and operator in "+-"
            and a.name in ("date", "timestamp", "timestamp with time zone")
        ):
            return self.shifted(left, right, operator)
        if (
            a.name.startswith("interval")
            and operator == "+"
            and b.name in ("date", "timestamp", "timestamp with time zone")
        ):
            return self.shifted(right, left, operator)
        if a == b and a.name.startswith("interval") and operator in "+-":
            return Typed(f"({left.sql} {operator} {right.sql})", a)
        if operator == "-" and "date" == a.name == b.name:
            return Typed(f"to_milliseconds(({left.sql} - {right.sql}) * 86400000)", ty.DAYS)
        if operator == "-" and a.numbers and b.numbers and a.name == b.name and a.name != "decimal":
            millis = f"(epoch_us({left.sql}) - epoch_us({right.sql})) // 1000"
            return Typed(f"to_milliseconds({millis})", ty.DAYS)
        if operator == "*" and a.is_number and b.name.startswith("interval"):
            return self.scaled(right, left, operator)
        if operator in "*/" and b.is_number and a.name.startswith("interval"):
            return self.scaled(left, right, operator)
        return None

    def shifted(self, moment: Typed, by: Typed, operator: str) -> Typed:
        kind = moment.type
        if kind.name == "date" and by.type == ty.DAYS:
            message = "Cannot add hour, minutes or seconds to a date"
            fail = f"trino_failure('INVALID_FUNCTION_ARGUMENT', '{message}')"
            guard = f"CASE WHEN epoch_ms({by.sql}) % 86400000 <> 0 THEN CAST({fail} AS DATE)"
            return Typed(f"{guard} ELSE CAST({moment.sql} {operator} {by.sql} AS DATE) END", kind)
        if kind.name == "date":
            return Typed(f"CAST({moment.sql} {operator} {by.sql} AS DATE)", kind)
        if by.type == ty.DAYS:
            kind = replace(kind, numbers=(max(kind.precision, 3),))
        elif "zone" in kind.name and kind.zone != "UTC":
            moved = f"({local_time(moment)} {operator} {by.sql})"
            return Typed(zoned_time(moved, kind.zone), kind)
        return Typed(f"({moment.sql} {operator} {by.sql})", kind)

    def scaled(self, interval: Typed, number: Typed, operator: str) -> Typed:
        if number.type.name == "decimal":
            number = Typed(f"CAST({number.sql} AS DOUBLE)", ty.DOUBLE)
        divide = "//" if operator == "/" and number.type.is_integer else operator
        if interval.type == ty.DAYS:
            sql = f"CAST(trunc(epoch_ms({interval.sql}) {divide} {number.sql}) AS BIGINT)"
            return Typed(f"to_milliseconds({sql})", ty.DAYS)
        sql = f"CAST(trunc({months(interval.sql)} {divide} {number.sql}) AS INTEGER)"
        return Typed(f"to_months({sql})", ty.MONTHS)

    # Predicates
    def comparison(self, node: t.Binary, scope: Scope) -> Typed:
        if isinstance(node.left, t.Row) and isinstance(node.right, t.Row):
            return self.row_comparison(node, scope)
        left, right = self.expression(node.left, scope), self.expression(node.right, scope)
        return Typed(self.compared(node.operator, left, right, node.at), ty.BOOLEAN)

    def row_comparison(self, node: t.Binary, scope: Scope) -> Typed:
        left, right = node.left.items, node.right.items  # type: ignore[attr-defined]
        if len(left) != len(right) or node.operator != "=":
            raise not_here("This comparison of rows", node.at)
        parts = [t.Binary(node.at, "=", a, b) for a, b in zip(left, right, strict=False)]
        return Typed(f"({' AND '.join(self.expression(p, scope).sql for p in parts)})", ty.BOOLEAN)

    def compared(self, operator: str, left: Typed, right: Typed, at: int) -> str:
        kind = common(left.type, right.type)
        if kind is None:
            message = f"Cannot apply operator: {left.type} {operator} {right.type}"
            raise Refusal("TYPE_MISMATCH", message, at)
        self.refuse_nested(kind, at)
        sides = [coerce(side, kind) for side in (left, right)]
        plain = f"({sides[0]} {operator} {sides[1]})"
        unsure = [
            s
            for s, v in zip(sides, (left, right), strict=False)
            if kind.name in ("double", "real") and v.text is None
        ]
        if not unsure:
            return plain
        some_nan = " OR ".join(f"isnan({s})" for s in unsure)
        return (
            f"(CASE WHEN {some_nan} THEN {'true' if operator == '<>' else 'false'} ELSE "
            f"{plain} "
            "END)"
        )

    def refuse_nested(self, kind: Type, at: int) -> None:
        """DuckDB takes NULLs in arrays, maps and rows for equal; Trino does not."""
        if kind.parts:
            raise not_here(f"A comparison of {kind.name}s", at)

    def on_between(self, node: t.Between, scope: Scope) -> Typed:
        value, low, high = (self.expression(n, scope) for n in (node.value, node.low, node.high))
        if common(value.type, low.type) is None or common(value.type, high.type) is None:
            message = f"Cannot check if {value.type} is BETWEEN {low.type} and {high.type}"
            raise Refusal("TYPE_MISMATCH", message, node.at)
        above = self.compared(">=", value, low, node.at)
        return Typed(f"({above} AND {self.compared('<=', value, high, node.at)})", ty.BOOLEAN)

    def on_in(self, node: t.In, scope: Scope) -> Typed:
        if isinstance(node.items, t.Query):
            return self.in_query(node, node.items, scope)
        if isinstance(node.value, t.Row):
            tests = [
                self.comparison(t.Binary(node.at, "=", node.value, item), scope)
                for item in node.items
            ]
            return Typed(f"({' OR '.join(test.sql for test in tests)})", ty.BOOLEAN)
        value = self.expression(node.value, scope)
        items = [self.expression(item, scope) for item in node.items]
        places = [node.at, *(item.at for item in node.items)]
        kind = self.unify([value, *items], places, "IN value and list items")
        self.refuse_nested(kind, node.at)
        if kind.name in ("double", "real"):  # DuckDB finds NaN in a list, Trino does not
            equal = [self.compared("=", value, item, node.at) for item in items]
            return Typed(f"({' OR '.join(equal)})", ty.BOOLEAN)
        listed = ", ".join(coerce(item, kind) for item in items)
        return Typed(f"({coerce(value, kind)} IN ({listed}))", ty.BOOLEAN)

    def in_query(self, node: t.In, query: t.Query, scope: Scope) -> Typed:
        values = node.value.items if isinstance(node.value, t.Row) else [node.value]
        left = [self.expression(value, scope) for value in values]
        sql, columns = self.query(query, scope)
        if len(columns) != len(left):
            raise Refusal(
                "TYPE_MISMATCH", "Multiple columns returned by subquery are not allowed", node.at
            )
        kinds = [
            common(value.type, column.type) for value, column in zip(left, columns, strict=False)
        ]
        if any(kind is None for kind in kinds):
            message = (
                f"value and result of subquery must be of the same type for IN: {left[0].type}"
            )
            raise Refusal("TYPE_MISMATCH", message, node.at)
        listed = ", ".join(coerce(v, k) for v, k in zip(left, kinds, strict=False) if k)
        found = self.recast(sql, columns, [k for k in kinds if k])
        return Typed(f"({f'({listed})' if len(left) > 1 else listed} IN ({found}))", ty.BOOLEAN)

    def on_quantified(self, node: t.Quantified, scope: Scope) -> Typed:
        value = self.expression(node.value, scope)
        sql, columns = self.query(node.query, scope)
        kind = common(value.type, columns[0].type) if len(columns) == 1 else None
        if kind is None:
            raise Refusal(
                "TYPE_MISMATCH", "value and result of subquery must be of the same type", node.at
            )
        word = "ALL" if node.every else "ANY"
        found = self.recast(sql, columns, [kind])
        return Typed(f"({coerce(value, kind)} {node.operator} {word} ({found}))", ty.BOOLEAN)

    def on_like(self, node: t.Like, scope: Scope) -> Typed:
        parts = [self.expression(n, scope) for n in (node.value, node.pattern, node.escape) if n]
        for part in parts:
            if part.type.name not in ("varchar", "unknown"):
                message = (
                    f"Left side of LIKE expression must evaluate to a varchar (actual: {part.type})"
                )
                raise Refusal("TYPE_MISMATCH", message, node.at)
        if node.escape and len(parts[2].text or "") != 1:
            message = "Escape string must be a single character"
            raise Refusal("INVALID_FUNCTION_ARGUMENT", message, node.at)
        value, pattern, *escape = (coerce(part, ty.VARCHAR) for part in parts)
        tail = f" ESCAPE {escape[0]}" if escape else ""
        return Typed(f"({value} LIKE {pattern}{tail})", ty.BOOLEAN)

    def on_isnull(self, node: t.IsNull, scope: Scope) -> Typed:
        return Typed(f"({self.expression(node.value, scope).sql} IS NULL)", ty.BOOLEAN)

    def on_isdistinct(self, node: t.IsDistinct, scope: Scope) -> Typed:
        sides = [self.expression(n, scope) for n in (node.left, node.right)]
        kind = self.unify(sides, [node.at] * 2, "Operands of IS DISTINCT FROM")
        left, right = (coerce(side, kind) for side in sides)
        return Typed(f"({left} IS DISTINCT FROM {right})", ty.BOOLEAN)

    # Conditionals and casts
    def on_case(self, node: t.Case, scope: Scope) -> Typed:
        results = [r for _, r in node.whens] + ([node.default] if node.default else [])
        values = [self.expression(r, scope) for r in results]
        kind = self.unify(values, [r.at for r in results], "All CASE results")
        conditions = []
        for condition, _ in node.whens:
            if node.operand is None:
                conditions.append(self.boolean(condition, scope, "CASE WHEN clause"))
            else:
                left, right = (
                    self.expression(node.operand, scope),
                    self.expression(condition, scope),
                )
                conditions.append(self.compared("=", left, right, condition.at))
        whens = " ".join(
            f"WHEN {c} THEN {coerce(v, kind)}" for c, v in zip(conditions, values, strict=False)
        )
        default = f" ELSE {coerce(values[-1], kind)}" if node.default else ""
        return Typed(f"(CASE {whens}{default} END)", kind)

    def on_cast(self, node: t.Cast, scope: Scope) -> Typed:
        value, kind = self.expression(node.value, scope), parse_type(node.type_text, node.at)
        if kind.name == "timestamp with time zone":
            if value.text is not None:
                kind = replace(kind, zone=zone_in_text(value.text) or "UTC")
            elif value.type.name == "varchar":
                raise not_here("A cast of a column's text to a time with its own zone", node.at)
            else:
                kind = replace(kind, zone=value.type.zone)
        sql = cast(value, kind, node.at)
        return Typed(f"TRY({sql})" if node.safe and sql != value.sql else sql, kind)

    def on_atzone(self, node: t.AtZone, scope: Scope) -> Typed:
        value, zone = self.expression(node.value, scope), self.expression(node.zone, scope)
        return self.in_zone(value, zone, node.at)

    def in_zone(self, value: Typed, zone: Typed, at: int) -> Typed:
        if zone.text is None or value.type.name not in ("timestamp", "timestamp with time zone"):
            raise not_here("AT TIME ZONE with a zone that is no literal, or of no timestamp", at)
        try:
            zone_of(zone.text)
        except ValueError as error:
            raise Refusal("INVALID_FUNCTION_ARGUMENT", str(error).partition(": ")[2], at) from None
        return Typed(coerce(value, ty.zoned()), ty.zoned(value.type.precision, zone.text))

    # Subqueries
    def on_subquery(self, node: t.Subquery, scope: Scope) -> Typed:
        sql, columns = self.query(node.query, scope)
        if len(columns) != 1:
            raise not_here("A subquery of several columns as a value", node.at)
        return Typed(f"({sql})", columns[0].type)

    def on_exists(self, node: t.Exists, scope: Scope) -> Typed:
        return Typed(f"EXISTS ({self.query(node.query, scope)[0]})", ty.BOOLEAN)

    def query(self, node: t.Query, scope: Scope) -> tuple[str, list[Any]]:
        raise NotImplementedError

    def recast(self, sql: str, columns: list[Any], kinds: list[Type]) -> str:
        raise NotImplementedError


def dotted(node: t.Node) -> list[str] | None:
    """a.b.c as its parts, None where it is more than names."""
    if isinstance(node, t.Name):
        return [node.name]
    if isinstance(node, t.Dot) and (base := dotted(node.base)):
        return [*base, node.name]
    return None
