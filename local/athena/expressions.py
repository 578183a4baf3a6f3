"""Translate sqlglot's expressions to DuckDB's SQL with Trino's types, by functions.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from sqlglot import exp

from . import functions as fn
from . import results as ty
from .results import UNKNOWN, Type, allow, common, refusal

Node = exp.Expr
OPERATORS: dict[type[Node], str] = {
    exp.And: "AND", exp.Or: "OR", exp.Not: "NOT", exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<",
    exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=", exp.NullSafeEQ: "IS NOT DISTINCT FROM",
    exp.NullSafeNEQ: "IS DISTINCT FROM", exp.Is: "IS", exp.Like: "LIKE", exp.Between: "BETWEEN",
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%", exp.DPipe: "||",
    exp.Neg: "-", exp.Bracket: "[]", exp.Array: "ARRAY", exp.Coalesce: "coalesce", exp.If: "if",
    exp.CurrentDate: "CURRENT_DATE", exp.CurrentTimestamp: "CURRENT_TIMESTAMP",
}  # fmt: skip
CLAUSES = {exp.Window: "window", exp.Filter: "where", exp.WithinGroup: "order"}
FIELDS = "year quarter month week day dow doy hour minute second".split()
SAME_IF_DISTINCT = ("min", "max", "bool_and", "bool_or", "every")
CHECKED = r"error\(|trino_"  # may raise NOT_SUPPORTED, which TRY must not hide
Clauses = dict[str, str]


@dataclass(frozen=True)
class Value:
    """An expression in DuckDB's SQL with Trino's type; `literal` is the text of a literal."""

    sql: str
    type: Type
    literal: str | None = None


Argument = Value | exp.Lambda


def read_call(node: Any) -> tuple[str, list[Node], dict[str, Any]]:
    """Return a call's name and arguments, and its clauses: window, where, order, distinct."""
    clauses: dict[str, Any] = {}
    while not isinstance(node, exp.Anonymous):
        clauses[CLAUSES[type(node)]] = node
        node = node.this
    arguments = list(node.expressions)
    if len(arguments) == 1 and isinstance(arguments[0], exp.Order):
        clauses["order"], arguments = arguments[0], [arguments[0].this]
    if arguments and isinstance(arguments[0], exp.Distinct):
        clauses["distinct"], arguments[:1] = True, arguments[0].expressions
    return node.name.lower(), arguments, clauses


def check_comparable(kinds: Iterable[Type]) -> None:
    """Reject comparisons of nested values: DuckDB treats their NULLs as equal, Trino does not."""
    for kind in kinds:
        allow(not kind.parts and kind != ty.JSON, f"A comparison of values of the type {kind}")


def coerce(value: Value, target: Type) -> str:
    """Return the SQL of a value, cast to a type to which Trino coerces it."""
    return value.sql if value.type == target else f"CAST({value.sql} AS {target.duckdb})"


def direction(sort: exp.Ordered) -> str:
    """Return the sort direction of an ORDER BY key; NULLs are last in both directions."""
    nulls = "FIRST" if sort.args.get("nulls_first") else "LAST"
    return f" {'DESC' if sort.args.get('desc') else 'ASC'} NULLS {nulls}"


@dataclass
class Expressions:
    """Translates the expressions of one SELECT. `column` resolves a column, `subquery` returns the
    SQL and the types of a translated subquery, `fail` raises an error with its position."""

    column: Callable[[exp.Column], Value]
    subquery: Callable[[Node], tuple[str, list[Type]]]
    fail: Callable[[str, str, Node], NoReturn]
    parameters: dict[str, Value] = field(default_factory=dict)

    def value(self, node: Node) -> Value:
        """Translate a node to DuckDB's SQL with its type."""
        if type(node) in OPERATORS:
            operands = [self.value(child) for child in node.iter_expressions()]
            value = self.applied(OPERATORS[type(node)], operands, node)
            return self.applied("NOT", [value], node) if node.args.get("negate") else value
        allow(type(node) in RULES, f"{type(node).__name__.upper()} as a value")
        value = RULES[type(node)](self, node)
        allow(len(value.sql) < 100_000, "A statement so deep")
        return value

    def boolean(self, node: Node) -> str:
        """Translate a condition."""
        value = self.value(node)
        allow(value.type in (ty.BOOLEAN, UNKNOWN), f"A condition of type {value.type}")
        return coerce(value, ty.BOOLEAN)

    def literal(self, node: exp.Literal) -> Value:
        text = node.name
        if node.is_string:
            return Value(fn.quoted(text), ty.VARCHAR, text)
        if re.fullmatch(r"\d{1,19}", text) and int(text) < 2**63:
            kind = ty.INTEGER if int(text) < 2**31 else ty.BIGINT
        elif match := re.fullmatch(r"(0?|[1-9]\d{0,17})\.(\d{0,18})", text):
            digits = max(len(match[1].lstrip("0")) + len(match[2]), 1)
            kind = Type("decimal", (digits, len(match[2])))
        else:
            kind, written = ty.DOUBLE, r"(\d+\.?\d*|\.\d+)[eE][+-]?\d{1,3}"
            allow(re.fullmatch(written, text), f"The number {text}")
        return Value(f"CAST('{text}' AS {kind.duckdb})", kind, text if kind.is_integer else None)

    def interval(self, node: exp.Interval) -> Value:
        unit, count = node.args["unit"].name.lower(), node.this.name
        kind = ty.MONTHS if unit in ("year", "month") else ty.DAYS
        allow(unit in (*fn.UNITS[:4], "month", "year"), f"An interval of {unit}")
        allow(re.fullmatch(r"\d{1,6}", count), "This interval")
        return Value(f"to_{unit}s({int(count)})", kind, count if unit == "day" else None)

    def name(self, node: Node) -> Value:
        """Resolve a lambda's parameter or a column."""
        column = node if isinstance(node, exp.Column) else exp.column(node.copy())
        if not column.table and column.name.lower() in self.parameters:
            return self.parameters[column.name.lower()]
        return self.column(column)

    def in_(self, node: exp.In) -> Value:
        values = [self.value(item) for item in (node.this, *node.expressions)]
        if not node.args.get("query"):
            return self.applied("IN", values, node)
        sql, kinds = self.subquery(node.args["query"])
        check_comparable(kinds)
        listed = ", ".join(map(str, kinds))
        sure = kinds == [values[0].type] and kinds != [ty.DOUBLE]
        allow(sure, f"{values[0].type} IN with a subquery of {listed}")
        return Value(f"({values[0].sql} IN {sql})", ty.BOOLEAN)

    def query_value(self, node: Node) -> Value:
        sql, kinds = self.subquery(node if isinstance(node, exp.Subquery) else node.this)
        if isinstance(node, exp.Exists):
            return Value(f"EXISTS {sql}", ty.BOOLEAN)
        allow(len(kinds) == 1, "A subquery of several columns as a value")
        return Value(sql, kinds[0])

    def case(self, node: exp.Case) -> Value:
        """Translate CASE to nested ifs."""
        subject = self.value(node.this) if node.this else None
        branches = [self.value(node.args["default"])] if node.args.get("default") else []
        for branch in reversed(node.args["ifs"]):
            condition, result = self.value(branch.this), self.value(branch.args["true"])
            if subject is not None:
                condition = self.applied("=", [subject, condition], node)
            branches = [self.applied("if", [condition, result, *branches], node)]
        return branches[0]

    def cast(self, node: exp.Cast) -> Value:
        target, inner = _type_named(node.args["to"].sql("trino").lower()), node.this
        if node.meta.get("typed"):
            return _typed_literal(inner.name, target)
        value, safe = self.value(inner), isinstance(node, exp.TryCast)
        if value.type in (UNKNOWN, target):
            return Value(coerce(value, target), target)
        template = fn.CAST_TEMPLATES.get((value.type.family, target.family), "")
        sure = "{fail}" in template if safe else template
        sure = sure and (not target.is_time or value.type.numbers <= target.numbers)
        allow(sure, f"A cast from {value.type} to {target}")
        fail = f"<INVALID_CAST_ARGUMENT: Cannot cast this {value.type} to {target}>"
        template = template.replace("{fail}", f"CAST(NULL AS {target.duckdb})" if safe else fail)
        digits = [0, *value.type.numbers][-1]
        places = {"{limit}": "9e15" if target == ty.BIGINT else "2e9"}
        places["{whole}"] = str(max([*target.numbers, 0][0] - [0, *target.numbers][-1], 1))
        places["{size}"] = str(20 + digits if digits else 19)
        return _filled("CAST", template, [value.sql], target, places)

    def extract(self, node: exp.Extract) -> Value:
        allow(node.this.name.lower() in FIELDS, f"EXTRACT of {node.this.name}")
        return self.applied(node.this.name.lower(), [self.value(node.expression)], node)

    def call(self, node: Node) -> Value:
        name, arguments, clauses = read_call(node)
        if name == "count" and [type(argument) for argument in arguments] == [exp.Star]:
            arguments = []
        values = [a if isinstance(a, exp.Lambda) else self.value(a) for a in arguments]
        checked = [v for v in values if isinstance(v, Value) and re.search(CHECKED, v.sql)]
        allow(name != "try" or not checked, "TRY of this")
        window, order, where = (clauses.get(part) for part in ("window", "order", "where"))
        kind = fn.TABLE[name][0].kind if name in fn.TABLE else ""
        sure = not clauses if kind == "scalar" else kind != "window" or window
        sure = sure and (not window or len(clauses) == 1)
        within = isinstance(order, exp.WithinGroup)
        allow(sure and within == (name == "listagg"), f"{name} in this place")
        filter_clause = f" FILTER (WHERE {self.boolean(where.expression.this)})" if where else ""
        marks = {
            "%": "DISTINCT " if "distinct" in clauses else "",
            "~": f" ORDER BY {self.sorting(order)}" if order else "",
            "@": filter_clause + (self.over(window) if window else ""),
        }
        return self.applied(name, values, node, {} if kind == "scalar" else marks)

    def applied(
        self, name: str, values: Sequence[Argument], node: Node, marks: Clauses | None = None
    ) -> Value:
        """Apply the first signature in the tables that fits the arguments."""
        for signature in fn.TABLE.get(name, []):
            patterns = [pattern.removesuffix("...") for pattern in signature.parameters]
            if patterns and signature.parameters[-1].endswith("..."):
                patterns += patterns[-1:] * (len(values) - len(patterns))
            types: dict[str, Type] = {}
            pairs = list(zip(patterns, values, strict=False))
            fits = len(patterns) == len(values) and all(_fits(*pair, types) for pair in pairs)
            bound = all(k != UNKNOWN and fn.FAMILIES[letter](k) for letter, k in types.items())
            if not fits or not bound:
                continue
            texts = [self.argument(pattern, value, types) for pattern, value in pairs]
            result = _result(signature.result, types, values)
            if result is not None:
                check_comparable(types.values() if marks and marks["%"] else [])
                return _filled(name, signature.template, texts, result, marks or {})
        kinds = [value.type for value in values if isinstance(value, Value)]
        if len(kinds) == 2 and _is_sure_mismatch(name, *kinds):
            message = f"Cannot apply operator: {kinds[0]} {name} {kinds[1]}"
            self.fail("TYPE_MISMATCH", message, node)
        raise refusal(f"{name}({', '.join(map(str, kinds))})")

    def argument(self, pattern: str, value: Argument, types: dict[str, Type]) -> str:
        if isinstance(value, exp.Lambda):
            return self.lambda_(pattern, value, types)
        if pattern in fn.LITERALS:
            return str(fn.LITERALS[pattern](value.literal or ""))
        if pattern == "when":
            return f"CAST({value.sql} AS TIMESTAMP)"
        decimal = pattern == "decimal"
        return coerce(value, ty.as_decimal(value.type) if decimal else _resolve(pattern, types))

    def lambda_(self, pattern: str, node: exp.Lambda, types: dict[str, Type]) -> str:
        head, result = pattern.rsplit("->", 1)
        kinds = [_resolve(part, types) for part in fn.split_types(head[1:-1])]
        allow(len(node.expressions) == len(kinds), "A lambda of so many parameters")
        before = dict(self.parameters)
        names = [f"p{len(before) + i}" for i in range(len(kinds))]
        for parameter, name, kind in zip(node.expressions, names, kinds, strict=True):
            self.parameters[parameter.name.lower()] = Value(name, kind)
        body = self.value(node.this)
        self.parameters = before
        expected = types.setdefault(result, body.type) if result in fn.FAMILIES else Type(result)
        allow(body.type == expected, f"A lambda that returns {body.type}")
        return f"lambda {', '.join(names)}: {body.sql}"

    def sorting(self, order: Node) -> str:
        """Translate the keys of an ORDER BY in an aggregate or a window."""
        sorts = (order.expression if isinstance(order, exp.WithinGroup) else order).expressions
        values = [self.value(sort.this) for sort in sorts]
        check_comparable(value.type for value in values)
        return ", ".join(v.sql + direction(sort) for v, sort in zip(values, sorts, strict=True))

    def over(self, window: exp.Window) -> str:
        partition, order, spec = (window.args.get(p) for p in ("partition_by", "order", "spec"))
        values = [self.value(part) for part in partition or []]
        check_comparable(value.type for value in values)
        texts = [f"PARTITION BY {', '.join(value.sql for value in values)}"] if values else []
        texts += [f"ORDER BY {self.sorting(order)}"] if order else []
        return f" OVER ({' '.join([*texts, *([_frame(spec)] if spec else [])])})"


def _frame(spec: exp.WindowSpec) -> str:
    """Translate a window frame: ROWS with numbers, or RANGE with whole frames."""
    kind, bounds = spec.args["kind"].upper(), []
    for part in ("start", "end"):
        bound, side = spec.args.get(part) or "CURRENT ROW", spec.args.get(f"{part}_side") or ""
        if isinstance(bound, exp.Literal) and kind == "ROWS" and bound.name.isdigit():
            bounds.append(f"{bound.name} {side}")
        else:
            sure = bound in ("UNBOUNDED", "CURRENT ROW") and kind in ("ROWS", "RANGE")
            allow(sure, "This frame of a window")
            bounds.append(f"{bound} {side}".strip())
    return f"{kind} BETWEEN {bounds[0]} AND {bounds[1]}"


def _is_sure_mismatch(name: str, left: Type, right: Type) -> bool:
    """Return whether Trino certainly has no such operator."""
    if UNKNOWN in (left, right) or any(k in (ty.DAYS, ty.MONTHS) for k in (left, right)):
        return False
    if name in ("=", "<>", "<", "<=", ">", ">="):
        return common(left, right) is None
    texts = any(kind in (ty.VARCHAR, ty.BOOLEAN) for kind in (left, right))
    return name in ("+", "-", "*", "/", "%") and (texts or left.is_number != right.is_number)


# Matching of the patterns in functions.py
def _fits(pattern: str, value: Argument, types: dict[str, Type]) -> bool:
    """Return whether a value matches the pattern; bind the pattern's letters."""
    if isinstance(value, exp.Lambda):
        return "->" in pattern
    if pattern in fn.LITERALS:
        is_literal = value.literal is not None and (pattern != "'days'" or value.type == ty.DAYS)
        return is_literal and fn.LITERALS[pattern](value.literal or "") is not None
    if value.type == UNKNOWN and pattern not in (*fn.FAMILIES, "boolean", "unknown"):
        return False
    return _fits_type(pattern, value.type, types)


def _fits_type(pattern: str, kind: Type, types: dict[str, Type]) -> bool:
    if pattern in fn.FAMILIES:
        both = common(types.get(pattern, UNKNOWN), kind)
        if both is None or (pattern == "E" and types.get("E", both) != both):
            return False
        types[pattern] = both
        return True
    name, _, inner = pattern.partition("(")
    if inner:
        pairs = zip(fn.split_types(inner[:-1]), kind.parts, strict=False)
        return kind.name == name and all(_fits_type(part, own, types) for part, own in pairs)
    if kind.name == name or kind == UNKNOWN:
        return True
    taken = {"when": kind.is_time, "double": kind.is_number}
    return taken.get(name, name in ("bigint", "decimal") and kind.is_integer)


def _resolve(pattern: str, types: dict[str, Type]) -> Type:
    """Return the type of a pattern with its letters bound."""
    if pattern in fn.FAMILIES:
        return types[pattern]
    name, _, inner = pattern.partition("(")
    parts = tuple(_resolve(part, types) for part in fn.split_types(inner[:-1]))
    return ty.ZONED if name == "zoned" else Type(name, (), parts)


def _result(pattern: str, types: dict[str, Type], values: Sequence[Argument]) -> Type | None:
    if pattern not in fn.RESULTS:
        return _resolve(pattern, types)
    kinds = [v.type for v in values if isinstance(v, Value) and v.type.is_number]
    if pattern == "longer":
        kinds = kinds[:1]
    numbers = fn.RESULTS[pattern](*(n for kind in kinds for n in ty.as_decimal(kind).numbers))
    return Type("decimal", numbers) if numbers[0] <= 38 else None


def _filled(name: str, template: str, texts: list[str], result: Type, marks: Clauses) -> Value:
    """Fill the arguments and clauses into the template, in one pass."""
    missing = [mark for mark in "%~" if marks.get(mark) and mark not in template]
    allow(missing in ([], ["%"][: name in SAME_IF_DISTINCT]), f"{name} with these clauses")
    places = {f"{{{i}}}": text for i, text in enumerate(texts)} | marks
    places |= {"{list}": ", ".join(texts), "{rest}": ", ".join(texts[1:])}
    places |= {"{result}": result.duckdb, "{scale}": str([0, *result.numbers][-1])}
    template = fn.failing(template, f"This value in {name}", result)
    sql = re.sub(r"\{\w+\}|[%~@]", lambda place: places.get(place[0], place[0]), template)
    return Value(f"({sql})" if sql.startswith("CASE") else sql, result)


def _type_named(text: str) -> Type:
    """Return the target type of a cast."""
    if match := re.fullmatch(r"decimal\((\d+), (\d+)\)", text):
        return Type("decimal", (int(match[1]), int(match[2])))
    if match := re.fullmatch(r"array\((.*)\)", text):
        return Type("array", (), (_type_named(match[1]),))
    if match := re.fullmatch(r"(timestamp)(?:\(3\))?( with time zone)?", text):
        return Type(match[1] + (match[2] or ""), (3,))
    plain = ("integer", "bigint", "double", "boolean", "varchar", "date", "json")
    allow(text in plain, f"The type {text}")
    return Type(text)


def _typed_literal(text: str, kind: Type) -> Value:
    """Translate DATE '…' or TIMESTAMP '…'."""
    day, clock = r"[12]\d{3}-\d\d-\d\d", r" (?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?( UTC)?"
    if kind == ty.DATE and re.fullmatch(day, text):
        return Value(f"DATE '{text}'", kind)
    match = re.fullmatch(day + clock, text)
    if match and kind.name == (ty.ZONED.name if match[2] else "timestamp"):
        sql = f"CAST('{text.removesuffix(' UTC')}' AS {kind.duckdb})"
        return Value(sql, Type(kind.name, (max(len(match[1] or "") - 1, 0),)))
    raise refusal(f"The literal {kind} '{text}'")


RULES: dict[type[Node], Callable[[Expressions, Any], Value]] = {
    **dict.fromkeys((exp.Column, exp.Pseudocolumn, exp.Identifier), Expressions.name),
    **dict.fromkeys((*CLAUSES, exp.Anonymous), Expressions.call),
    **dict.fromkeys((exp.Exists, exp.Subquery), Expressions.query_value),
    **dict.fromkeys((exp.Cast, exp.TryCast), Expressions.cast),
    exp.Literal: Expressions.literal,
    exp.Null: lambda self, node: Value("NULL", UNKNOWN),
    exp.Boolean: lambda self, node: Value("true" if node.this else "false", ty.BOOLEAN),
    exp.Paren: lambda self, node: self.value(node.this),
    exp.Interval: Expressions.interval,
    exp.In: Expressions.in_,
    exp.Case: Expressions.case,
    exp.Extract: Expressions.extract,
}
