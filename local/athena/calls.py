"""Calls of functions: which signature fits, and those few whose form no table can say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from . import functions
from . import tree as t
from . import types as ty
from .casts import Typed, as_text, cast, coerce, local_time, quoted, zoned_time
from .errors import Refusal, not_here
from .functions import Signature, fill, signatures, split_types
from .scope import Scope
from .types import Type, common
from .values import iso_zone

FAMILIES = {
    "number": lambda kind: kind.is_number,
    "floating": lambda kind: kind.name in ("real", "double"),
    "integral": lambda kind: kind.is_integer,
    "interval": lambda kind: kind.name.startswith("interval"),
}
WHEN = ("date", "timestamp", "timestamp with time zone")
UNITS = ("millisecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year")
FIELDS = (
    "year quarter month week day day_of_month day_of_week dow day_of_year doy year_of_week yow hour minute "
    "second timezone_hour timezone_minute"
).split()
UNMOVED_BY_TWINS = ("min", "max", "bool_and", "bool_or", "every", "approx_distinct")
OVERLOADED = frozenset(  # where Trino cannot choose for an untyped NULL
    "upper lower substr trim ltrim rtrim lpad rpad reverse json_extract json_extract_scalar json_size "
    "json_array_length json_array_contains is_json_scalar".split()
)
ALIASES = {"substring": "substr"}
Bindings = dict[str, Type]


def bind(pattern: str, kind: Type, found: Bindings) -> bool:
    """Whether a value of the type may stand where the pattern is; binds the pattern's variables."""
    variable, _, family = pattern.partition(":")
    if len(variable) == 1:
        if family and kind.name != "unknown" and not FAMILIES[family](kind):
            return False
        both = common(found[variable], kind) if variable in found else kind
        if both is None:
            return False
        found[variable] = both
        return True
    if kind.name == "unknown":
        return True
    if pattern == "when":
        return kind.name in WHEN
    if pattern == "letter":
        return kind.length == 1
    name, _, inner = pattern.partition("(")
    if name in ("array", "map"):
        parts = split_types(inner[:-1])
        return kind.name == name and all(bind(p, k, found) for p, k in zip(parts, kind.parts))
    if name == "timestamp":
        found["timestamp"] = kind
        return kind.name == "timestamp"
    return ty.coercible(kind, resolve(pattern, found))


def resolve(pattern: str, found: Bindings) -> Type:
    """The type that the pattern is, with its variables bound."""
    variable = pattern.partition(":")[0]
    if len(variable) == 1:
        return found.get(variable, ty.UNKNOWN)
    name, _, inner = pattern.partition("(")
    if name in ("array", "map"):
        return Type(name, tuple(resolve(p, found) for p in split_types(inner[:-1])))
    if name == "letter":
        return ty.VARCHAR
    if name == "zoned":
        return ty.zoned()
    if name == "timestamp":
        return found.get("timestamp", ty.timestamp())
    return Type(name)


def replace_names(sql: str, names: dict[str, str]) -> str:
    """The SQL with lambda parameters replaced, whole words only."""
    return re.sub(r"\b[a-z]\d+\b", lambda found: names.get(found[0], found[0]), sql)


class Calls:
    """The part of the compiler that reads calls."""

    counter = 0
    inside_aggregate = False
    no_aggregates: str | None = None
    expression: Callable[[t.Node, Scope], Typed]
    unify: Callable[..., Type]
    in_zone: Callable[..., Typed]
    concatenated: Callable[..., Typed]
    numeric: Callable[..., Typed]
    compared: Callable[..., str]
    boolean: Callable[..., str]
    over: Callable[..., str]
    sorting: Callable[..., str]

    def fresh(self, letter: str) -> str:
        self.counter += 1
        return f"{letter}{self.counter}"

    def on_call(self, node: t.Call, scope: Scope) -> Typed:
        name = ALIASES.get(node.name, node.name).replace(" ", "_")
        if name != node.name and " " not in node.name:
            node = replace(node, name=name)
        if special := getattr(self, f"call_{name}", None):
            return special(node, scope)
        if name.startswith("extract_"):
            return self.extract(node, scope)
        if node.window is None and name in signatures("window"):
            raise Refusal(
                "MISSING_OVER", f"Window function {name} requires an OVER clause", node.at
            )
        for kind in ("window", "aggregate", "scalar"):
            if name in signatures(kind):
                return self.from_table(kind, node, scope)
        if name in functions.KNOWN:
            raise not_here(f"The function {name}", node.at)
        raise Refusal("FUNCTION_NOT_FOUND", f"Function '{name}' not registered", node.at)

    def from_table(self, kind: str, node: t.Call, scope: Scope) -> Typed:
        if kind == "scalar":
            self.refuse_clauses(node)
        else:
            self.check_aggregate(node)
        stars = [a for a in node.arguments if isinstance(a, t.Star)]
        if stars:
            if node.name != "count" or len(node.arguments) > 1:
                raise Refusal(
                    "FUNCTION_NOT_FOUND",
                    f"Unexpected parameters (*) for function {node.name}",
                    node.at,
                )
            return Typed(f"count(*){self.tail(node, scope)}", ty.BIGINT)
        nested, self.inside_aggregate = (
            self.inside_aggregate,
            kind == "aggregate" and node.window is None,
        )
        try:
            plain = {
                i: self.expression(argument, scope)
                for i, argument in enumerate(node.arguments)
                if not isinstance(argument, t.Lambda)
            }
        finally:
            self.inside_aggregate = nested
        lambdas = len(plain) < len(node.arguments)
        if (lambdas or node.name in OVERLOADED) and any(
            v.type == ty.UNKNOWN for v in plain.values()
        ):
            raise not_here(f"{node.name} of an untyped NULL", node.at)
        signature, arguments, found = self.choose(kind, node, plain, scope)
        result = resolve(signature.result, found)
        template = signature.template.replace("{result}", result.duckdb)
        clauses = {} if kind == "scalar" else self.clauses(template, node, scope)
        sql = fill(template, arguments, len(signature.parameters) - 1, clauses)
        if (
            signature.result.startswith(("array(timestamp", "timestamp"))
            and "timestamp" not in found
        ):
            result = ty.timestamp()
        return Typed(f"({sql})" if sql.startswith("CASE") else sql, result)

    def refuse_clauses(self, node: t.Call) -> None:
        if node.window or node.where or node.distinct or node.order:
            raise Refusal(
                "FUNCTION_NOT_AGGREGATE", f"'{node.name}' is not an aggregation function", node.at
            )

    def check_aggregate(self, node: t.Call) -> None:
        if node.window is None and self.inside_aggregate:
            raise Refusal(
                "NESTED_AGGREGATION",
                f"Cannot nest aggregations inside aggregation '{node.name}'",
                node.at,
            )
        if self.no_aggregates:
            message = f"{self.no_aggregates} cannot contain aggregations, window functions or grouping operations"
            raise Refusal("EXPRESSION_NOT_SCALAR", message, node.at)
        if node.window and node.where:
            raise Refusal(
                "NOT_SUPPORTED", "FILTER is not yet supported for window functions", node.at
            )
        if node.window and node.distinct:
            raise not_here("DISTINCT in a window", node.at)

    def choose(
        self, kind: str, node: t.Call, plain: dict[int, Typed], scope: Scope
    ) -> tuple[Signature, list[str], Bindings]:
        """The first signature that the arguments fit, exactly or by coercion."""
        count = len(node.arguments)
        for signature in signatures(kind)[node.name]:
            wanted = list(signature.parameters)
            if signature.variadic and count >= len(wanted):
                wanted += [wanted[-1]] * (count - len(wanted))
            if len(wanted) != count or any(
                ("->" in w) == (i in plain) for i, w in enumerate(wanted)
            ):
                continue
            found: Bindings = {}
            if all(bind(wanted[i], value.type, found) for i, value in plain.items()):
                if signature.template == "-":
                    raise not_here(f"The function {node.name} with these types", node.at)
                return signature, self.filled(wanted, node, plain, found, scope), found
        listed = ", ".join(str(plain[i].type) if i in plain else "function" for i in range(count))
        others = signatures("other").get(node.name, [])
        if any(self.is_other(o, node, plain) for o in others):
            raise not_here(f"The function {node.name} with ({listed})", node.at)
        message = f"Unexpected parameters ({listed}) for function {node.name}"
        raise Refusal("FUNCTION_NOT_FOUND", message, node.at)

    def is_other(self, other: Signature, node: t.Call, plain: dict[int, Typed]) -> bool:
        found: Bindings = {}
        return len(other.parameters) == len(node.arguments) and all(
            bind(other.parameters[i], value.type, found) for i, value in plain.items()
        )

    def filled(
        self,
        wanted: list[str],
        node: t.Call,
        plain: dict[int, Typed],
        found: Bindings,
        scope: Scope,
    ) -> list[str]:
        arguments = []
        for i, (pattern, argument) in enumerate(zip(wanted, node.arguments)):
            if "->" in pattern:
                arguments.append(self.lambda_for(pattern, argument, found, scope))
            elif pattern == "when":
                value = (
                    plain[i] if plain[i].type.name != "unknown" else Typed("NULL", ty.timestamp())
                )
                arguments.append(local_time(value))
            else:
                arguments.append(coerce(plain[i], resolve(pattern, found)))
        return arguments

    def lambda_for(self, pattern: str, node: t.Node, found: Bindings, scope: Scope) -> str:
        assert isinstance(node, t.Lambda)
        head, result = pattern.rsplit("->", 1)
        kinds = [resolve(p, found) for p in split_types(head[1:-1])]
        names, body = self.lambda_body(node, kinds, scope)
        if len(result) == 1:
            found[result] = body.type
        elif not ty.coercible(body.type, resolve(result, found)):
            raise Refusal("TYPE_MISMATCH", f"Lambda must return {result}, not {body.type}", node.at)
        sql = coerce(body, resolve(result, found))
        return f"lambda {', '.join(names)}: {sql}"

    def lambda_body(
        self, node: t.Lambda, kinds: list[Type], scope: Scope
    ) -> tuple[list[str], Typed]:
        if len(node.parameters) != len(kinds):
            message = f"Expected a lambda that takes {len(kinds)} argument(s) but got {len(node.parameters)}"
            raise Refusal("INVALID_PARAMETER_USAGE", message, node.at)
        names = [self.fresh("p") for _ in kinds]
        values = {p: Typed(n, k) for p, n, k in zip(node.parameters, names, kinds)}
        return names, self.expression(node.body, Scope(parent=scope, aliases=values))

    def clauses(self, template: str, node: t.Call, scope: Scope) -> dict[str, str]:
        """What stands for the marks of an aggregate's template."""
        if node.distinct and "%" not in template and node.name not in UNMOVED_BY_TWINS:
            raise not_here(f"DISTINCT in {node.name}", node.at)
        if node.order and "~" not in template:
            raise not_here(f"ORDER BY in {node.name}", node.at)
        return {
            "%": "DISTINCT " if node.distinct else "",
            "~": f" ORDER BY {self.sorting(node.order, scope)}" if node.order else "",
            "^": " IGNORE NULLS" if node.ignore_nulls else "",
            "@": self.tail(node, scope),
        }

    def tail(self, node: t.Call, scope: Scope) -> str:
        """FILTER and OVER."""
        where = f" FILTER (WHERE {self.boolean(node.where, scope, 'FILTER')})" if node.where else ""
        return where + (f" OVER ({self.over(node.window, scope)})" if node.window else "")

    def arguments(self, node: t.Call, scope: Scope, *counts: int) -> list[Typed]:
        if counts and len(node.arguments) not in counts:
            self.misfit(node, [])
        return [self.expression(a, scope) for a in node.arguments]

    def misfit(self, node: t.Call, values: list[Typed]) -> Any:
        listed = ", ".join(str(v.type) for v in values)
        raise Refusal(
            "FUNCTION_NOT_FOUND",
            f"Unexpected parameters ({listed}) for function {node.name}",
            node.at,
        )

    # Conditionals
    def call_if(self, node: t.Call, scope: Scope) -> Typed:
        if len(node.arguments) not in (2, 3):
            raise Refusal("SYNTAX_ERROR", "Invalid number of arguments for 'if' function", node.at)
        condition, yes, *no = node.arguments
        return self.expression(
            t.Case(node.at, None, [(condition, yes)], no[0] if no else None), scope
        )

    def call_coalesce(self, node: t.Call, scope: Scope) -> Typed:
        values = self.arguments(node, scope)
        kind = self.unify(values, [a.at for a in node.arguments], "All COALESCE operands")
        return Typed(f"coalesce({', '.join(coerce(v, kind) for v in values)})", kind)

    def call_nullif(self, node: t.Call, scope: Scope) -> Typed:
        first, second = self.arguments(node, scope, 2)
        same = self.compared("=", first, second, node.at)
        return Typed(f"(CASE WHEN {same} THEN NULL ELSE {first.sql} END)", first.type)

    def call_try(self, node: t.Call, scope: Scope) -> Typed:
        (value,) = self.arguments(node, scope, 1)
        return Typed(f"TRY({value.sql})", value.type)

    def call_greatest(self, node: t.Call, scope: Scope) -> Typed:
        values = self.arguments(node, scope)
        kind = self.unify(values, [a.at for a in node.arguments], "All operands")
        listed = [coerce(v, kind) for v in values]
        nulls = " OR ".join(f"{sql} IS NULL" for sql in listed)
        if kind.name in ("double", "real"):
            nans = " OR ".join(f"isnan({sql})" for sql in listed)
            text = f"{node.name} of NaN is not part of this local console. On AWS, Athena runs it"
            fail = f"CAST(trino_failure('NOT_SUPPORTED', '{text}') AS {kind.duckdb})"
            nulls = f"{nulls} THEN NULL WHEN {nans} THEN {fail} WHEN false"
        return Typed(
            f"(CASE WHEN {nulls} THEN NULL ELSE {node.name}({', '.join(listed)}) END)", kind
        )

    call_least = call_greatest

    def call_typeof(self, node: t.Call, scope: Scope) -> Typed:
        (value,) = self.arguments(node, scope, 1)
        if "varchar" in str(value.type):
            raise not_here("typeof of a text", node.at)
        name = quoted(str(value.type))
        return Typed(f"(CASE WHEN {value.sql} IS NULL THEN {name} ELSE {name} END)", ty.VARCHAR)

    def call_concat(self, node: t.Call, scope: Scope) -> Typed:
        values = self.arguments(node, scope)
        if len(values) < 2:
            self.misfit(node, values)
        return self.concatenated(values, node.at)

    # Numbers
    def call_mod(self, node: t.Call, scope: Scope) -> Typed:
        left, right = self.arguments(node, scope, 2)
        if not (left.type.is_number and right.type.is_number):
            self.misfit(node, [left, right])
        return self.numeric("%", left, right)

    def _decimal(self, node: t.Call, scope: Scope) -> Typed | None:
        """The first argument where it is a decimal."""
        if (
            node.window
            or node.where
            or not node.arguments
            or isinstance(node.arguments[0], t.Star | t.Lambda)
        ):
            return None
        first = self.expression(node.arguments[0], scope)
        return first if first.type.name == "decimal" else None

    def call_round(self, node: t.Call, scope: Scope) -> Typed:
        value = self._decimal(node, scope)
        if value is None:
            return self.from_table("scalar", node, scope)
        precision, scale = value.type.numbers
        if len(node.arguments) == 1:
            kind = ty.decimal(precision - scale + min(1, scale), 0)
            return Typed(cast(value, kind), kind)
        digits = self.expression(node.arguments[1], scope)
        kind = ty.decimal(precision + 1, scale)
        return Typed(
            f"CAST(round({coerce(value, kind)}, CAST({digits.sql} AS INTEGER)) AS {kind.duckdb})",
            kind,
        )

    def call_truncate(self, node: t.Call, scope: Scope) -> Typed:
        value = self._decimal(node, scope)
        if value is None:
            return self.from_table("scalar", node, scope)
        precision, scale = value.type.numbers
        if len(node.arguments) == 1:
            kind = ty.decimal(max(precision - scale, 1), 0)
            return Typed(f"CAST(trunc({value.sql}) AS {kind.duckdb})", kind)
        digits = self.expression(node.arguments[1], scope)
        sql = f"trino_truncate_decimal(CAST({value.sql} AS VARCHAR), {digits.sql}, {scale})"
        return Typed(f"CAST({sql} AS {value.type.duckdb})", value.type)

    def call_floor(self, node: t.Call, scope: Scope) -> Typed:
        value = self._decimal(node, scope)
        if value is None:
            return self.from_table("scalar", node, scope)
        precision, scale = value.type.numbers
        kind = ty.decimal(precision - scale + min(scale, 1), 0)
        function = "floor" if node.name == "floor" else "ceil"
        return Typed(f"CAST({function}({value.sql}) AS {kind.duckdb})", kind)

    call_ceil = call_ceiling = call_floor

    def call_sign(self, node: t.Call, scope: Scope) -> Typed:
        value = self._decimal(node, scope)
        if value is None:
            return self.from_table("scalar", node, scope)
        return Typed(f"CAST(sign({value.sql}) AS DECIMAL(1, 0))", ty.decimal(1, 0))

    def call_sum(self, node: t.Call, scope: Scope) -> Typed:
        value = self._decimal_aggregate(node, scope)
        if value is None:
            return self.from_table("aggregate", node, scope)
        kind = ty.decimal(38, value.type.numbers[1])
        distinct = "DISTINCT " if node.distinct else ""
        return Typed(
            f"CAST(sum({distinct}{value.sql}){self.tail(node, scope)} AS {kind.duckdb})", kind
        )

    def call_avg(self, node: t.Call, scope: Scope) -> Typed:
        value = self._decimal_aggregate(node, scope)
        if value is None:
            return self.from_table("aggregate", node, scope)
        distinct, tail = "DISTINCT " if node.distinct else "", self.tail(node, scope)
        parts = [f"CAST({f}({distinct}{value.sql}){tail} AS VARCHAR)" for f in ("sum", "count")]
        divided = f"trino_divide_decimals({parts[0]}, {parts[1]}, {value.type.numbers[1]})"
        sql = f"CASE WHEN count({value.sql}){tail} > 0 THEN CAST({divided} AS {value.type.duckdb}) END"
        return Typed(f"({sql})", value.type)

    def _decimal_aggregate(self, node: t.Call, scope: Scope) -> Typed | None:
        if len(node.arguments) != 1 or isinstance(node.arguments[0], t.Star | t.Lambda):
            return None
        self.check_aggregate(node)
        nested, self.inside_aggregate = self.inside_aggregate, node.window is None
        try:
            value = self.expression(node.arguments[0], scope)
        finally:
            self.inside_aggregate = nested
        return value if value.type.name == "decimal" else None

    def call_grouping(self, node: t.Call, scope: Scope) -> Typed:
        listed = ", ".join(v.sql for v in self.arguments(node, scope))
        return Typed(f"CAST(grouping({listed}) AS INTEGER)", ty.INTEGER)

    # Dates
    def extract(self, node: t.Call, scope: Scope) -> Typed:
        field = node.name.removeprefix("extract ")
        if field not in FIELDS:
            raise Refusal("SYNTAX_ERROR", f"Invalid EXTRACT field {field}", node.at)
        return self.on_call(t.Call(node.at, field, node.arguments), scope)

    def unit(self, node: t.Call, unit: Typed, moment: Typed) -> str:
        """The literal unit of date_add, date_diff and date_trunc."""
        if unit.text is None:
            raise not_here(f"{node.name} with a unit that is no literal", node.at)
        word = unit.text.lower()
        allowed = UNITS[4:] if moment.type.name == "date" else UNITS
        if word not in allowed:
            name = moment.type.name.split()[0].upper()
            raise Refusal(
                "INVALID_FUNCTION_ARGUMENT", f"'{word}' is not a valid {name} field", None
            )
        return word

    def call_date_add(self, node: t.Call, scope: Scope) -> Typed:
        unit, count, moment = values = self.arguments(node, scope, 3)
        if not count.type.is_integer or moment.type.name not in WHEN or unit.type != ty.VARCHAR:
            self.misfit(node, values)
        word = self.unit(node, unit, moment)
        step = {"week": "to_days({} * 7)", "quarter": "to_months({} * 3)"}.get(
            word, f"to_{word}s({{}})"
        )
        if word == "day" and moment.type.name != "date":
            step = "to_hours({} * 24)" if "zone" in moment.type.name else step
        wide = count.sql if word == "millisecond" else f"CAST({count.sql} AS INTEGER)"
        by = step.format(wide)
        if moment.type.name == "date":
            return Typed(f"CAST({moment.sql} + {by} AS DATE)", moment.type)
        kind = (
            moment.type
            if word != "millisecond"
            else Type(
                moment.type.name, numbers=(max(moment.type.precision, 3),), zone=moment.type.zone
            )
        )
        if "zone" in kind.name and word not in ("millisecond", "second", "minute", "hour"):
            by = step.format(wide) if word != "day" else f"to_days({wide})"
            return Typed(zoned_time(f"({local_time(moment)} + {by})", kind.zone), kind)
        return Typed(f"({moment.sql} + {by})", kind)

    def call_date_diff(self, node: t.Call, scope: Scope) -> Typed:
        unit, start, end = values = self.arguments(node, scope, 3)
        kind = common(start.type, end.type)
        if unit.type != ty.VARCHAR or kind is None or kind.name not in (*WHEN, "unknown"):
            self.misfit(node, values)
        assert kind is not None
        word = self.unit(node, unit, Typed("", kind))
        times = [local_time(Typed(coerce(v, kind), kind)) for v in (start, end)]
        if "zone" in kind.name and word in ("millisecond", "second", "minute", "hour"):
            times = [f"CAST({coerce(v, kind)} AS TIMESTAMP)" for v in (start, end)]
        return Typed(f"date_sub('{word}', {times[0]}, {times[1]})", ty.BIGINT)

    def call_date_trunc(self, node: t.Call, scope: Scope) -> Typed:
        unit, moment = values = self.arguments(node, scope, 2)
        if unit.type != ty.VARCHAR or moment.type.name not in WHEN:
            self.misfit(node, values)
        word, kind = self.unit(node, unit, moment), moment.type
        cut = f"date_trunc('{word}', {local_time(moment)})"
        if kind.name == "timestamp with time zone":
            return Typed(zoned_time(cut, kind.zone), kind)
        return Typed(f"CAST({cut} AS {kind.duckdb})", kind)

    def call_format_datetime(self, node: t.Call, scope: Scope) -> Typed:
        moment, pattern = values = self.arguments(node, scope, 2)
        if moment.type.name not in WHEN or pattern.type != ty.VARCHAR:
            self.misfit(node, values)
        zone = moment.type.zone if "zone" in moment.type.name else "UTC"
        utc = f"CAST({moment.sql} AS TIMESTAMP)"
        offset = "0" if zone == "UTC" else f"trino_offset_minutes({utc}, {quoted(zone)})"
        sql = (
            f"trino_format_datetime({local_time(moment)}, {pattern.sql}, {offset}, {quoted(zone)})"
        )
        return Typed(sql, ty.VARCHAR)

    def call_parse_datetime(self, node: t.Call, scope: Scope) -> Typed:
        text, pattern = self.arguments(node, scope, 2)
        if pattern.text is None or "Z" in pattern.text or "z" in pattern.text:
            raise not_here("parse_datetime with a zone in its pattern", node.at)
        return self.from_table("scalar", node, scope)

    def call_from_iso8601_timestamp(self, node: t.Call, scope: Scope) -> Typed:
        (value,) = self.arguments(node, scope, 1)
        if value.type != ty.VARCHAR:
            self.misfit(node, [value])
        if value.text is None:
            raise not_here(
                "from_iso8601_timestamp of a column, whose zone may differ from row to row", node.at
            )
        sql = f"CAST(trino_iso_timestamp({value.sql}) AS TIMESTAMPTZ)"
        return Typed(sql, ty.zoned(3, iso_zone(value.text)))

    def call_to_iso8601(self, node: t.Call, scope: Scope) -> Typed:
        (value,) = self.arguments(node, scope, 1)
        if value.type.name not in WHEN:
            self.misfit(node, [value])
        if value.type.name == "date":
            return Typed(f"CAST({value.sql} AS VARCHAR)", ty.VARCHAR)
        text = as_text(
            Typed(f"CAST({local_time(value)} AS TIMESTAMP)", ty.timestamp(value.type.precision))
        )
        sql = f"replace({text}, ' ', 'T')"
        if "zone" in value.type.name:
            if value.type.zone != "UTC":
                raise not_here("to_iso8601 in another zone than UTC", node.at)
            sql = f"{sql} || 'Z'"
        return Typed(sql, ty.VARCHAR)

    def call_to_unixtime(self, node: t.Call, scope: Scope) -> Typed:
        (value,) = self.arguments(node, scope, 1)
        if value.type.name not in WHEN[1:]:
            self.misfit(node, [value])
        return Typed(f"(epoch_us({value.sql}) / 1000000e0)", ty.DOUBLE)

    def call_at_timezone(self, node: t.Call, scope: Scope) -> Typed:
        value, zone = self.arguments(node, scope, 2)
        return self.in_zone(value, zone, node.at)

    def call_with_timezone(self, node: t.Call, scope: Scope) -> Typed:
        value, zone = self.arguments(node, scope, 2)
        if value.type.name != "timestamp" or zone.text is None:
            raise not_here("with_timezone of this", node.at)
        self.in_zone(value, zone, node.at)
        return Typed(zoned_time(value.sql, zone.text), ty.zoned(value.type.precision, zone.text))

    def call_timezone_hour(self, node: t.Call, scope: Scope) -> Typed:
        (value,) = self.arguments(node, scope, 1)
        if "zone" not in value.type.name:
            self.misfit(node, [value])
        minutes = f"trino_offset_minutes(CAST({value.sql} AS TIMESTAMP), {quoted(value.type.zone)})"
        return Typed(f"({minutes} {'//' if node.name.endswith('hour') else '%'} 60)", ty.BIGINT)

    call_timezone_minute = call_timezone_hour

    def call_now(self, node: t.Call, scope: Scope) -> Typed:
        return Typed("date_trunc('millisecond', now())", ty.zoned())

    def call_current_timestamp(self, node: t.Call, scope: Scope) -> Typed:
        if node.arguments:
            raise not_here("A precision of the current time", node.at)
        return self.call_now(node, scope)

    def call_localtimestamp(self, node: t.Call, scope: Scope) -> Typed:
        if node.arguments:
            raise not_here("A precision of the current time", node.at)
        return Typed("CAST(date_trunc('millisecond', now()) AS TIMESTAMP)", ty.timestamp())

    def call_current_date(self, node: t.Call, scope: Scope) -> Typed:
        return Typed("CAST(now() AS DATE)", ty.DATE)

    def call_current_user(self, node: t.Call, scope: Scope) -> Typed:
        raise not_here(node.name, node.at)

    call_current_time = call_localtime = call_current_path = call_current_user
    call_current_catalog = call_current_schema = call_current_user

    # Arrays, maps, lambdas
    def call_array_join(self, node: t.Call, scope: Scope) -> Typed:
        listed, *texts = values = self.arguments(node, scope, 2, 3)
        if listed.type.name != "array" or any(x.type != ty.VARCHAR for x in texts):
            self.misfit(node, values)
        items = f"list_transform({listed.sql}, lambda a_: {cast(Typed('a_', listed.type.parts[0]), ty.VARCHAR)})"
        if len(texts) == 2:
            kept = f"list_transform({items}, lambda b_: coalesce(b_, {texts[1].sql}))"
        else:
            kept = f"list_filter({items}, lambda b_: b_ IS NOT NULL)"
        return Typed(f"array_to_string({kept}, {texts[0].sql})", ty.VARCHAR)

    def call_array_sort(self, node: t.Call, scope: Scope) -> Typed:
        """With a comparator: each element's place is the number of those before it."""
        if len(node.arguments) != 2 or not isinstance(node.arguments[1], t.Lambda):
            return self.from_table("scalar", node, scope)
        value = self.expression(node.arguments[0], scope)
        if value.type.name != "array":
            self.misfit(node, [value])
        element = value.type.parts[0]
        names, body = self.lambda_body(node.arguments[1], [element, element], scope)
        if not body.type.is_integer:
            self.misfit(node, [value])
        other, at, this, there, row = (self.fresh(letter) for letter in "yjxir")
        order = replace_names(body.sql, {names[0]: other, names[1]: this})
        text = "'Lambda comparator must return either -1, 0, or 1'"
        fail = f"CAST(trino_failure('INVALID_FUNCTION_ARGUMENT', {text}) AS INTEGER)"
        order = f"CASE WHEN {order} IN (-1, 0, 1) THEN {order} ELSE {fail} END"
        before = f"list_filter({value.sql}, lambda {other}, {at}: ({order}) < 0 OR ({order}) = 0 AND {at} < {there})"
        ranked = f"list_transform({value.sql}, lambda {this}, {there}: {{'r': len({before}), 'e': {this}}})"
        return Typed(f"list_transform(list_sort({ranked}), lambda {row}: {row}.e)", value.type)

    def call_map(self, node: t.Call, scope: Scope) -> Typed:
        if not node.arguments:
            return Typed("MAP {}", ty.map_of(ty.UNKNOWN, ty.UNKNOWN))
        keys, values = both = self.arguments(node, scope, 2)
        if keys.type.name != "array" or values.type.name != "array":
            self.misfit(node, both)
        kind = ty.map_of(keys.type.parts[0], values.type.parts[0])
        text = "'Key and value arrays must be the same length'"
        fail = f"CAST(trino_failure('INVALID_FUNCTION_ARGUMENT', {text}) AS {keys.type.duckdb})"
        checked = f"CASE WHEN len({keys.sql}) <> len({values.sql}) THEN {fail} ELSE {keys.sql} END"
        return Typed(f"map({checked}, {values.sql})", kind)

    def call_map_agg(self, node: t.Call, scope: Scope) -> Typed:
        key, value = self.arguments(node, scope, 2)
        self.check_aggregate(node)
        if node.order or node.distinct or node.where:
            raise not_here("map_agg with this", node.at)
        entries = f"list({{'k': {key.sql}, 'v': {value.sql}}}) FILTER (WHERE {key.sql} IS NOT NULL)"
        entries += f" OVER ({self.over(node.window, scope)})" if node.window else ""
        keys = f"list_transform({entries}, lambda e_: e_.k)"
        first = f"list_filter({entries}, lambda e_, i_: list_position({keys}, e_.k) = i_)"
        return Typed(f"map_from_entries({first})", ty.map_of(key.type, value.type))

    def call_map_from_entries(self, node: t.Call, scope: Scope) -> Typed:
        (value,) = self.arguments(node, scope, 1)
        if value.type.name != "array" or len(value.type.parts[0].parts) != 2:
            self.misfit(node, [value])
        key, other = value.type.parts[0].parts
        keys = f"list_transform({value.sql}, lambda e_: e_.f0)"
        values = f"list_transform({value.sql}, lambda e_: e_.f1)"
        return Typed(f"map({keys}, {values})", ty.map_of(key, other))

    def call_map_entries(self, node: t.Call, scope: Scope) -> Typed:
        (value,) = self.arguments(node, scope, 1)
        if value.type.name != "map":
            self.misfit(node, [value])
        sql = f"list_transform(map_entries({value.sql}), lambda e_: struct_pack(f0 := e_.key, f1 := e_.value))"
        return Typed(sql, ty.array(ty.row(value.type.parts)))

    def call_map_concat(self, node: t.Call, scope: Scope) -> Typed:
        values = self.arguments(node, scope)
        kind = self.unify(values, [a.at for a in node.arguments], "All maps")
        if kind.name != "map":
            self.misfit(node, values)
        return Typed(f"map_concat({', '.join(coerce(v, kind) for v in values)})", kind)

    def call_map_filter(self, node: t.Call, scope: Scope) -> Typed:
        return self._over_map(node, scope)

    call_transform_values = call_map_filter

    def _over_map(self, node: t.Call, scope: Scope) -> Typed:
        """map_filter and transform_values."""
        value = self.expression(node.arguments[0], scope)
        if (
            value.type.name != "map"
            or len(node.arguments) != 2
            or not isinstance(node.arguments[1], t.Lambda)
        ):
            self.misfit(node, [value])
        key, other = value.type.parts
        names, body = self.lambda_body(node.arguments[1], [key, other], scope)  # type: ignore[arg-type]
        inside = replace_names(body.sql, {names[0]: "e_.key", names[1]: "e_.value"})
        entries = f"map_entries({value.sql})"
        if node.name == "map_filter":
            kept = f"list_filter({entries}, lambda e_: {inside})"
            return Typed(f"map_from_entries({kept})", value.type)
        changed = f"list_transform({entries}, lambda e_: {{'key': e_.key, 'value': {inside}}})"
        return Typed(f"map_from_entries({changed})", ty.map_of(key, body.type))

    def call_zip_with(self, node: t.Call, scope: Scope) -> Typed:
        if len(node.arguments) != 3 or not isinstance(node.arguments[2], t.Lambda):
            self.misfit(node, [])
        left, right = (self.expression(a, scope) for a in node.arguments[:2])
        if left.type.name != "array" or right.type.name != "array":
            self.misfit(node, [left, right])
        kinds = [left.type.parts[0], right.type.parts[0]]
        names, body = self.lambda_body(node.arguments[2], kinds, scope)  # type: ignore[arg-type]
        z = self.fresh("z")
        pair = [f"list_extract({side.sql}, {z})" for side in (left, right)]
        inside = replace_names(body.sql, dict(zip(names, pair)))
        size = f"greatest(len({left.sql}), len({right.sql}))"
        sql = f"list_transform(range(1, {size} + 1), lambda {z}: {inside})"
        return Typed(sql, ty.array(body.type))

    def call_zip(self, node: t.Call, scope: Scope) -> Typed:
        values = self.arguments(node, scope)
        if len(values) < 2 or any(v.type.name != "array" for v in values):
            self.misfit(node, values)
        z = self.fresh("z")
        fields = ", ".join(f"f{i} := list_extract({v.sql}, {z})" for i, v in enumerate(values))
        size = f"greatest({', '.join(f'len({v.sql})' for v in values)})"
        sql = f"list_transform(range(1, {size} + 1), lambda {z}: struct_pack({fields}))"
        return Typed(sql, ty.array(ty.row(tuple(v.type.parts[0] for v in values))))

    def call_reduce(self, node: t.Call, scope: Scope) -> Typed:
        """The elements go in beside the state, in rows, since DuckDB's reduce knows one type only."""
        if len(node.arguments) != 4 or not all(isinstance(a, t.Lambda) for a in node.arguments[2:]):
            self.misfit(node, [])
        listed, start = (self.expression(a, scope) for a in node.arguments[:2])
        if listed.type.name != "array":
            self.misfit(node, [listed, start])
        element = listed.type.parts[0]
        state = start.type
        if state.name == "decimal":
            raise not_here("reduce with a decimal, whose type grows with each step", node.at)
        step_names, step = self.lambda_body(node.arguments[2], [state, element], scope)  # type: ignore[arg-type]
        if step.type != state:
            state = common(state, step.type) or self.misfit(node, [listed, start])
            step_names, step = self.lambda_body(node.arguments[2], [state, element], scope)  # type: ignore[arg-type]
        end_names, end = self.lambda_body(node.arguments[3], [state], scope)  # type: ignore[arg-type]
        s, x, e = self.fresh("s"), self.fresh("x"), self.fresh("e")
        inside = replace_names(step.sql, {step_names[0]: f"({s}).a", step_names[1]: f"({x}).e"})
        rows = f"list_transform({listed.sql}, lambda {e}: {{'a': CAST(NULL AS {state.duckdb}), 'e': {e}}})"
        first = f"{{'a': {coerce(start, state)}, 'e': CAST(NULL AS {element.duckdb})}}"
        new = f"{{'a': {coerce(Typed(inside, step.type), state)}, 'e': CAST(NULL AS {element.duckdb})}}"
        folded = f"(list_reduce({rows}, lambda {s}, {x}: {new}, {first})).a"
        return Typed(f"list_transform([{folded}], lambda {end_names[0]}: {end.sql})[1]", end.type)

    def call_json_array_get(self, node: t.Call, scope: Scope) -> Typed:
        raise not_here("json_array_get", node.at)

    def call_format(self, node: t.Call, scope: Scope) -> Typed:
        pattern, *values = self.arguments(node, scope)
        if pattern.text is None:
            raise not_here("format with a pattern that is no literal", node.at)
        kinds = "".join(
            "i" if v.type.is_integer else "f" if v.type.is_number else "s" for v in values
        )
        if any(v.type.name in ("double", "real") for v in values) and "%s" in pattern.text:
            raise not_here("format of a double with %s", node.at)
        if any(
            v.type.name.startswith(("timestamp", "interval", "boolean")) or v.type.parts
            for v in values
        ):
            raise not_here("format of this type", node.at)
        listed = ", ".join(f"CAST({v.sql} AS VARCHAR)" for v in values)
        return Typed(
            f"trino_format_text({pattern.sql}, '{kinds}', CAST([{listed}] AS VARCHAR[]))",
            ty.VARCHAR,
        )
