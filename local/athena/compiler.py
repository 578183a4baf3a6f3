"""Queries: a tree to DuckDB's SQL. Each relation gets an alias of its own and columns c0, c1, …, so
that what a name means is decided here, by Trino's rules, and never by DuckDB."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from . import tree as t
from . import types as ty
from .casts import Typed, coerce
from .errors import Refusal, not_here
from .expressions import Expressions, dotted
from .scope import Column, Scope
from .types import Type, common


@dataclass(frozen=True)
class Output:
    """A column that a query returns."""

    name: str | None
    type: Type


@dataclass
class Compiler(Expressions):
    """`schema_of(name parts, offset)` gives DuckDB's name of a table, its qualifier and its
    columns, or refuses."""

    schema_of: Callable[[list[str], int], tuple[str, tuple[str, ...], list[tuple[str, Type]]]]
    ctes: dict[str, tuple[str, list[Output]]] = field(default_factory=dict)
    windows: dict[str, t.Window] = field(default_factory=dict)

    def compile(self, query: t.Query) -> tuple[str, list[Output]]:
        return self.query(query, Scope())

    # Queries
    def query(self, node: t.Query, scope: Scope) -> tuple[str, list[Output]]:
        before, heads = dict(self.ctes), []
        for cte in node.ctes:
            heads.append(self.cte(cte, node.recursive))
        sql, columns = self.ordered(node, scope)
        self.ctes = before
        head = f"WITH {'RECURSIVE ' if node.recursive else ''}{', '.join(heads)} " if heads else ""
        return head + sql, columns

    def cte(self, cte: t.With, recursive: bool) -> str:
        name = self.fresh("q")
        body = cte.query.body
        if recursive and isinstance(body, t.SetOperation) and body.operator == "union":
            _, columns = self.body(body.left, Scope())
            self.ctes[cte.name] = (name, self.renamed(columns, cte.columns, cte.at))
        sql, columns = self.query(cte.query, Scope())
        columns = self.renamed(columns, cte.columns, cte.at)
        self.ctes[cte.name] = (name, columns)
        return f"{name}({', '.join(f'c{i}' for i in range(len(columns)))}) AS ({sql})"

    def renamed(self, columns: list[Output], names: list[str], at: int) -> list[Output]:
        if names and len(names) != len(columns):
            message = (
                f"Column alias list has {len(names)} entries but relation has "
                f"{len(columns)} "
                "columns"
            )
            raise Refusal("MISMATCHED_COLUMN_ALIASES", message, at)
        return (
            [Output(n, c.type) for n, c in zip(names, columns, strict=False)] if names else columns
        )

    def ordered(self, node: t.Query, scope: Scope) -> tuple[str, list[Output]]:
        if node.ties:
            raise not_here("WITH TIES", node.at)
        if isinstance(node.body, t.Select):
            sql, columns = self.select(node.body, scope, node.order)
        else:
            sql, columns = self.body(node.body, scope)
            if node.order or node.limit or node.offset:
                sql = self.sorted_body(sql, columns, node)
        if isinstance(node.limit, t.Literal):
            sql += f" LIMIT {int(node.limit.value)}"
        if isinstance(node.offset, t.Literal):
            sql += f" OFFSET {int(node.offset.value)}"
        return sql, columns

    def sorted_body(self, sql: str, columns: list[Output], node: t.Query) -> str:
        alias = self.fresh("r")
        own = [Column(c.name, f"{alias}.c{i}", c.type) for i, c in enumerate(columns)]
        items = [Typed(c.sql, c.type) for c in own]
        order = self.order_by(node.order, Scope(own), items)
        return f"SELECT * FROM ({sql}) AS {alias}{order}"

    def body(self, node: t.Node, scope: Scope) -> tuple[str, list[Output]]:
        if isinstance(node, t.Select):
            return self.select(node, scope, [])
        if isinstance(node, t.Values):
            return self.values(node, scope)
        if isinstance(node, t.SetOperation):
            return self.set_operation(node, scope)
        assert isinstance(node, t.Query)
        return self.query(node, scope)

    def values(self, node: t.Values, scope: Scope) -> tuple[str, list[Output]]:
        rows = [r.items if isinstance(r, t.Row) else [r] for r in node.rows]
        sizes = {len(row) for row in rows}
        if len(sizes) > 1:
            raise Refusal("TYPE_MISMATCH", "Values rows have mismatched sizes", node.at)
        typed = [[self.expression(item, scope) for item in row] for row in rows]
        kinds = [
            self.unify(list(c), [node.at] * len(c), "Values") for c in zip(*typed, strict=False)
        ]
        listed = ", ".join(
            f"({', '.join(coerce(item, kind) for item, kind in zip(row, kinds, strict=False))})"
            for row in typed
        )
        names = ", ".join(f"c{i}" for i in range(len(kinds)))
        sql = f"SELECT * FROM (VALUES {listed}) AS {self.fresh('r')}({names})"
        return sql, [Output(f"_col{i}", kind) for i, kind in enumerate(kinds)]

    def set_operation(self, node: t.SetOperation, scope: Scope) -> tuple[str, list[Output]]:
        sides = [self.body(side, scope) for side in (node.left, node.right)]
        (_, left), (_, right) = sides
        word = node.operator.upper()
        if len(left) != len(right):
            message = f"{word} query has different number of fields: {len(left)}, {len(right)}"
            raise Refusal("TYPE_MISMATCH", message, node.at)
        kinds = []
        for i, (a, b) in enumerate(zip(left, right, strict=False)):
            kind = common(a.type, b.type)
            if kind is None:
                message = (
                    f"column {i + 1} in {word} query has incompatible types: {a.type}, {b.type}"
                )
                raise Refusal("TYPE_MISMATCH", message, node.at)
            kinds.append(kind)
        texts = [f"({self.recast(sql, columns, kinds)})" for sql, columns in sides]
        sql = f" {word}{' ALL' if node.every else ''} ".join(texts)
        return sql, [Output(a.name, kind) for a, kind in zip(left, kinds, strict=False)]

    def recast(self, sql: str, columns: list[Output], kinds: list[Type]) -> str:
        """The query with its columns coerced."""
        if all(c.type == k and c.type.name != "row" for c, k in zip(columns, kinds, strict=False)):
            return sql
        alias = self.fresh("r")
        items = ", ".join(
            f"{coerce(Typed(f'{alias}.c{i}', c.type), k)} AS c{i}"
            for i, (c, k) in enumerate(zip(columns, kinds, strict=False))
        )
        return f"SELECT {items} FROM ({sql}) AS {alias}"

    # SELECT
    def select(
        self, node: t.Select, parent: Scope, order: list[t.Sort]
    ) -> tuple[str, list[Output]]:
        windows, self.windows = self.windows, node.windows
        outer = self.inside_aggregate, self.no_aggregates
        self.inside_aggregate, self.no_aggregates = False, None
        scope = Scope(parent=parent)
        source = f" FROM {self.relation(node.source, scope)}" if node.source else ""
        where = self.clause(node.where, scope, "WHERE")
        values, outputs = self.items(node.items, scope)
        group = self.group_by(node, scope, values)
        having = (
            f" HAVING {self.boolean(node.having, scope, 'HAVING clause')}" if node.having else ""
        )
        aliases = self.with_aliases(scope, values, outputs)
        sorting = self.order_by(order, aliases, values, node if node.distinct else None)
        listed = ", ".join(f"{value.sql} AS c{i}" for i, value in enumerate(values))
        self.windows, (self.inside_aggregate, self.no_aggregates) = windows, outer
        distinct = "DISTINCT " if node.distinct else ""
        return f"SELECT {distinct}{listed}{source}{where}{group}{having}{sorting}", outputs

    def clause(self, node: t.Node | None, scope: Scope, word: str) -> str:
        if node is None:
            return ""
        before, self.no_aggregates = self.no_aggregates, f"{word} clause"
        try:
            return f" {word} {self.boolean(node, scope, f'{word} clause')}"
        finally:
            self.no_aggregates = before

    def items(self, items: list[t.Item], scope: Scope) -> tuple[list[Typed], list[Output]]:
        values: list[Typed] = []
        outputs: list[Output] = []
        for item in items:
            if isinstance(item.value, t.Star):
                for column in self.starred(item.value, scope):
                    values.append(Typed(column.sql, column.type))
                    outputs.append(Output(column.name, column.type))
                continue
            value = self.expression(item.value, scope)
            path = dotted(item.value)
            name = item.alias or (path[-1] if path else None)
            values.append(value)
            outputs.append(Output(name, value.type))
        return values, outputs

    def starred(self, star: t.Star, scope: Scope) -> list[Column]:
        found = scope.of_relation(star.base) if star.base else scope.columns
        found = [c for c in found if c.name != "$path"]
        if star.base and not found:
            raise Refusal("TABLE_NOT_FOUND", f"Unable to resolve reference {star.base}", star.at)
        if not found:
            raise Refusal(
                "COLUMN_NOT_FOUND", "SELECT * not allowed in queries without FROM clause", star.at
            )
        return found

    def with_aliases(self, scope: Scope, values: list[Typed], outputs: list[Output]) -> Scope:
        """What ORDER BY sees: the columns that are returned, then those of the FROM clause."""
        aliases: dict[str, Typed] = {}
        for value, output in zip(values, outputs, strict=False):
            if output.name:
                aliases.setdefault(output.name, value)
        return Scope(parent=scope, aliases=aliases)

    def group_by(self, node: t.Select, scope: Scope, values: list[Typed]) -> str:
        parts = []
        before, self.no_aggregates = self.no_aggregates, "GROUP BY clause"
        for kind, sets in node.group:
            if kind != "plain":
                self.check_grouping(sets)
            texts = [
                [self.group_item(item, scope, values, before) for item in group] for group in sets
            ]
            if kind == "plain":
                parts.append(", ".join(texts[0]) or "()")
                continue
            listed = ", ".join(f"({', '.join(text)})" for text in texts)
            parts.append(f"{'GROUPING SETS' if kind == 'sets' else kind.upper()} ({listed})")
        self.no_aggregates = before
        return f" GROUP BY {', '.join(parts)}" if parts else ""

    def check_grouping(self, sets: list[list[t.Node]]) -> None:
        for item in (item for group in sets for item in group):
            if dotted(item) is None and not isinstance(item, t.Literal):
                message = "GROUP BY expression must be a column reference"
                raise Refusal("INVALID_COLUMN_REFERENCE", message, item.at)

    def group_item(
        self, item: t.Node, scope: Scope, values: list[Typed], before: str | None
    ) -> str:
        if not isinstance(item, t.Literal) or item.kind != "integer":
            return self.expression(item, scope).sql
        at = int(item.value)
        if not 1 <= at <= len(values):
            message = f"GROUP BY position {at} is not in select list"
            raise Refusal("INVALID_COLUMN_REFERENCE", message, item.at)
        return values[at - 1].sql

    def order_by(
        self, order: list[t.Sort], scope: Scope, values: list[Typed], distinct: t.Node | None = None
    ) -> str:
        keys = []
        for sort in order:
            key = sort.value
            if isinstance(key, t.Literal) and key.kind == "integer":
                position = int(key.value)
                if not 1 <= position <= len(values):
                    message = f"ORDER BY position {position} is not in select list"
                    raise Refusal("INVALID_COLUMN_REFERENCE", message, key.at)
                text = str(position)
            else:
                sql = self.expression(key, scope).sql
                same = [i for i, value in enumerate(values) if value.sql == sql]
                if distinct and not same:
                    message = "For SELECT DISTINCT, ORDER BY expressions must appear in select list"
                    raise Refusal("EXPRESSION_NOT_IN_DISTINCT", message, distinct.at)
                text = str(same[0] + 1) if same else sql
            keys.append(text + self.direction(sort))
        return f" ORDER BY {', '.join(keys)}" if keys else ""

    def direction(self, sort: t.Sort) -> str:
        nulls = "FIRST" if sort.nulls_first else "LAST"
        return f" {'DESC' if sort.descending else 'ASC'} NULLS {nulls}"

    def sorting(self, order: list[t.Sort], scope: Scope) -> str:
        """The keys of an ORDER BY inside an aggregate or a window."""
        return ", ".join(self.expression(s.value, scope).sql + self.direction(s) for s in order)

    def over(self, window: t.Window, scope: Scope) -> str:
        if window.base:
            if window.base not in self.windows:
                raise Refusal(
                    "INVALID_WINDOW_REFERENCE",
                    f"Cannot resolve WINDOW name {window.base}",
                    window.at,
                )
            base = self.windows[window.base]
            window = replace(
                base, order=window.order or base.order, frame=window.frame or base.frame
            )
        parts = []
        if window.partition:
            listed = ", ".join(self.expression(p, scope).sql for p in window.partition)
            parts.append(f"PARTITION BY {listed}")
        if window.order:
            parts.append(f"ORDER BY {self.sorting(window.order, scope)}")
        if window.frame:
            kind, low, high = window.frame
            bounds = [self.bound(b, scope) for b in (low, high or t.Bound(low.at, "CURRENT ROW"))]
            parts.append(f"{kind.upper()} BETWEEN {bounds[0]} AND {bounds[1]}")
        return " ".join(parts)

    def bound(self, bound: t.Bound, scope: Scope) -> str:
        if bound.value is None:
            return bound.words
        return f"{self.expression(bound.value, scope).sql} {bound.words}"

    # Relations
    def relation(self, node: t.Node, scope: Scope) -> str:
        """The relation's SQL; its columns are added to the scope."""
        if isinstance(node, t.Join):
            return self.join(node, scope)
        return self.simple(node, scope, "")[0]

    def simple(self, node: t.Node, scope: Scope, lateral: str) -> tuple[str, str]:
        names: list[str] = []
        qualifier: tuple[str, ...] | None = None
        if isinstance(node, t.Aliased):
            qualifier, names, inner = (node.name,), node.columns, node.relation
        else:
            inner = node
        if isinstance(inner, t.Join):
            return self.aliased_join(node, inner, scope, qualifier, names)
        alias = self.fresh("r")
        sql, own, columns = self.source(inner, scope, alias, lateral)
        shown = [Output(c.name, c.type) for c in columns if c.name != "$path"]
        named = self.renamed(shown, names, node.at) if names else shown
        for i, column in enumerate(columns):
            name = named[i].name if i < len(named) else column.name
            scope.columns.append(
                replace(column, name=name, qualifier=own if qualifier is None else qualifier)
            )
        return sql, alias

    def aliased_join(
        self,
        node: t.Node,
        join: t.Join,
        scope: Scope,
        qualifier: tuple[str, ...] | None,
        names: list[str],
    ) -> tuple[str, str]:
        if qualifier is not None:
            raise not_here("A join in parentheses with an alias", node.at)
        return f"({self.join(join, scope)})", ""

    def source(
        self, node: t.Node, scope: Scope, alias: str, lateral: str
    ) -> tuple[str, tuple[str, ...], list[Column]]:
        """SQL, qualifier and columns of a table, a query or an UNNEST."""
        if isinstance(node, t.Table):
            return self.table(node, alias)
        if isinstance(node, t.Unnest):
            return self.unnest(node, scope, alias, lateral)
        if isinstance(node, t.Lateral):
            sql, outputs = self.query(node.query, scope)
            text = f"LATERAL ({sql}) AS {alias}"
        else:
            assert isinstance(node, t.Subquery)
            sql, outputs = self.query(node.query, scope.parent or Scope())
            text = f"({sql}) AS {alias}"
        return text, (), self.columns(alias, outputs)

    def columns(self, alias: str, outputs: Iterable[Output]) -> list[Column]:
        return [Column(o.name, f"{alias}.c{i}", o.type) for i, o in enumerate(outputs)]

    def table(self, node: t.Table, alias: str) -> tuple[str, tuple[str, ...], list[Column]]:
        if len(node.parts) == 1 and node.parts[0] in self.ctes:
            name, outputs = self.ctes[node.parts[0]]
            return f"{name} AS {alias}", (node.parts[0],), self.columns(alias, outputs)
        name, qualifier, schema = self.schema_of(node.parts, node.at)
        columns = [Column(n, f'{alias}."{n}"', kind) for n, kind in schema]
        return f'"{name}" AS {alias}', qualifier, columns

    def unnest(
        self, node: t.Unnest, scope: Scope, alias: str, lateral: str
    ) -> tuple[str, tuple[str, ...], list[Column]]:
        texts: list[tuple[str, Type]] = []
        sizes = []
        for item in node.items:
            value = self.expression(item, scope)
            texts += self.unnested(value, item.at)
            sizes.append(
                f"coalesce({'cardinality' if value.type.name == 'map' else 'len'}({value.sql}), 0)"
            )
        if node.ordinality:
            size = f"greatest({', '.join(sizes)})" if len(sizes) > 1 else sizes[0]
            texts.append(
                (f"CAST(unnest(range(1, CAST({size} AS BIGINT) + 1)) AS BIGINT)", ty.BIGINT)
            )
        listed = ", ".join(f"{sql} AS c{i}" for i, (sql, _) in enumerate(texts))
        outputs = [Output(None, kind) for _, kind in texts]
        return f"{lateral}(SELECT {listed}) AS {alias}", (), self.columns(alias, outputs)

    def unnested(self, value: Typed, at: int) -> list[tuple[str, Type]]:
        kind = value.type
        if kind.name == "map":
            return [
                (f"unnest(map_{part}({value.sql}))", k)
                for part, k in zip(("keys", "values"), kind.parts, strict=False)
            ]
        if kind.name != "array":
            raise Refusal("TYPE_MISMATCH", f"Cannot unnest type: {kind}", at)
        (element,) = kind.parts
        if element.name != "row":
            return [(f"unnest({value.sql})", element)]
        return [
            (f"unnest(list_transform({value.sql}, lambda u_: u_.f{i}))", part)
            for i, part in enumerate(element.parts)
        ]

    # Joins
    def join(self, node: t.Join, scope: Scope) -> str:
        left = self.relation(node.left, scope)
        middle = len(scope.columns)
        if isinstance(node.right, t.Join):
            right = f"({self.join(node.right, scope)})"
        else:
            right = self.simple(node.right, scope, "LATERAL ")[0]
        if node.kind == "cross":
            return f"{left} CROSS JOIN {right}"
        word = f"{node.kind.upper()} JOIN"
        if node.on is not None:
            before, self.no_aggregates = self.no_aggregates, "JOIN clause"
            condition = self.boolean(node.on, scope, "JOIN ON clause")
            self.no_aggregates = before
            return f"{left} {word} {right} ON {condition}"
        return f"{left} {word} {right} ON {self.using(node, scope, middle)}"

    def using(self, node: t.Join, scope: Scope, middle: int) -> str:
        left, right = Scope(scope.columns[:middle]), Scope(scope.columns[middle:])
        merged, conditions = [], []
        for name in node.using:
            a, b = left.find(name, (), node.at), right.find(name, (), node.at)
            if a is None or b is None:
                raise Refusal(
                    "COLUMN_NOT_FOUND",
                    f"Column '{name}' is missing from a side of the join",
                    node.at,
                )
            kind = common(a.type, b.type)
            if kind is None:
                raise Refusal("TYPE_MISMATCH", f"Column types of {name} do not match", node.at)
            sides = [coerce(a, kind), coerce(b, kind)]
            conditions.append(f"{sides[0]} = {sides[1]}")
            sql = {"right": sides[1], "full": f"coalesce({sides[0]}, {sides[1]})"}.get(
                node.kind, sides[0]
            )
            merged.append(Column(name, sql, kind))
        rest = [c for c in scope.columns if c.name not in node.using]
        scope.columns[:] = [*merged, *rest]
        return " AND ".join(conditions)
