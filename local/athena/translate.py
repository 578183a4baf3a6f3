"""Translate Athena's SQL to DuckDB's, for a closed subset with equal results in both.

`sqlglot` parses the statement, resolves its names and writes it for DuckDB. Nodes and their parts
must be listed in NODES, expressions in functions.py; anything else raises NOT_SUPPORTED.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NoReturn

from sqlglot import exp
from sqlglot.dialects.trino import Trino
from sqlglot.errors import OptimizeError, ParseError, TokenError
from sqlglot.generators.trino import TrinoGenerator
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, traverse_scope
from sqlglot.parsers.trino import TrinoParser
from sqlglot.tokens import TokenType

from .expressions import Expressions, Node, Value, check_comparable, coerce, direction
from .functions import TABLE
from .results import BIGINT, NOT_PART, UNKNOWN, AthenaError, Type, allow, common, refusal

# The supported nodes of sqlglot with their supported parts
PLAIN = frozenset(
    "this expression expressions typed negate nested alias columns to safe unit low high ifs "
    "default true false desc nulls_first table quoted is_string query".split()
)
NODES = dict.fromkeys(
    "Add Alias And Anonymous Array Between Boolean Bracket CTE Case Cast Column CurrentDate "
    "CurrentTimestamp DPipe DataType DataTypeParam Distinct Div EQ Exists Extract Filter From GT "
    "GTE Group Having Identifier If In Interval Is LT LTE Lambda Like Limit Literal Mod Mul "
    "NEQ Neg Not Null NullSafeEQ NullSafeNEQ Offset Or Order Ordered Paren Star Sub TableAlias "
    "TryCast Tuple Values Var Where With WithinGroup".split(),
    PLAIN,
)
NODES |= dict.fromkeys(
    ("Union", "Intersect", "Except"), PLAIN | set("with_ distinct order limit offset".split())
)
for _parts in (
    "Join this kind side on using",
    "Select with_ expressions from_ joins where group having order limit offset distinct",
    "Subquery this alias with_ order limit offset",
    "Table this db catalog alias",
    "Unnest expressions alias offset",
    "Window this partition_by order spec over",
    "WindowSpec kind start start_side end end_side",
):
    NODES[_parts.split()[0]] = frozenset(_parts.split()[1:])
CONDITIONS = (exp.And, exp.Or, exp.Not, exp.Predicate)
OPERANDS = (exp.Binary, exp.Between, exp.In, exp.Neg)  # their operands must not be bare conditions
JOINS = "|INNER|CROSS|LEFT|LEFT OUTER|RIGHT|RIGHT OUTER|FULL|FULL OUTER".split("|")
# Trino's reserved words that sqlglot does not reserve
RESERVED = frozenset(
    "cube current_catalog current_date current_path current_role current_schema current_user "
    "grouping json_array json_exists json_object json_query json_table json_value listagg "
    "localtime localtimestamp normalize recursive rollup skip trim uescape unnest".split()
)
UNNAMED = "?"  # prefix of internal names, for unnamed columns and ORDER BY positions


def _type_literal(parser: TrinoParser, this: Node, kind: exp.DataType) -> Node:
    """Read `DATE '…'` as a cast that is marked as a literal."""
    literal = exp.Cast(this=this, to=kind)
    literal.meta["typed"] = True
    return literal


class Closed(Trino):
    """Trino's dialect without sqlglot's own functions: every call stays a plain call."""

    INDEX_OFFSET = 0
    PSEUDOCOLUMNS = {"$PATH"}
    EXCLUDES_PSEUDOCOLUMNS_FROM_STAR = True

    class Parser(TrinoParser):
        FUNCTIONS: ClassVar[dict[str, Callable[..., Node]]] = {}
        OPTIONAL_ALIAS_TOKEN_CTE = False
        FUNCTION_PARSERS = {
            n: TrinoParser.FUNCTION_PARSERS[n] for n in ("CAST", "TRY_CAST", "EXTRACT")
        }
        TYPE_LITERAL_PARSERS = dict.fromkeys(exp.DataType.Type, _type_literal)
        COLUMN_OPERATORS = {TokenType.DOT: TrinoParser.COLUMN_OPERATORS[TokenType.DOT]}

    class Generator(TrinoGenerator):
        MULTI_ARG_DISTINCT = True

        def cast_sql(self, expression: exp.Cast, safe_prefix: str | None = None) -> str:
            if expression.meta.get("typed"):
                return f"{self.sql(expression, 'to')} {self.sql(expression, 'this')}"
            return super().cast_sql(expression, safe_prefix)


DIALECT = Closed()


def parse(sql: str) -> Node:
    """Return the tree of one query of supported nodes; sqlglot must reproduce the text."""
    try:
        trees = DIALECT.parse(sql)
    except (ParseError, TokenError) as error:
        place = (getattr(error, "errors", None) or [{"description": str(error)}])[0]
        message = f"{place['description']} If Athena takes it, it {NOT_PART}"
        raise AthenaError("SYNTAX_ERROR", message, place.get("line"), place.get("col")) from error
    if len(trees) != 1 or trees[0] is None:
        raise AthenaError("SYNTAX_ERROR", "Expected one statement")
    for node in trees[0].walk():
        _check_node(node)
    written = trees[0].copy()
    for row in [row for values in written.find_all(exp.Values) for row in values.expressions]:
        row.replace(row.expressions[0] if len(row.expressions) == 1 else row)
    text = written.sql(DIALECT, normalize_functions=False, comments=False)
    allow(_spelling(sql) == _spelling(text), "This way to write the statement")
    return trees[0]


def _check_node(node: Node) -> None:
    name = type(node).__name__
    allow(name in NODES, f"{name.upper()} in a statement")
    for part, value in node.args.items():
        supported = value in (None, False, []) or part in NODES[name]
        allow(supported, f"{part.strip('_').upper()} of {name.upper()}")
    if isinstance(node, exp.Identifier):
        plain = re.fullmatch(r"(?a)[A-Za-z_]\w*", node.name) and node.name.lower() not in RESERVED
        quoted = node.args.get("quoted") and not node.name.startswith(UNNAMED)
        allow(plain or quoted, f"The name {node.name}")
    if isinstance(node, OPERANDS) and not isinstance(node, exp.Connector):
        bare = any(isinstance(operand, CONDITIONS) for operand in node.iter_expressions())
        allow(not bare, "A condition as an operand without parentheses")
    if isinstance(node, exp.Limit | exp.Offset):
        whole = re.fullmatch(r"\d{1,18}", node.expression.name) and not node.expression.is_string
        allow(whole, "A number of rows that is no whole number")
    if isinstance(node, exp.TableAlias) and isinstance(node.parent, exp.Subquery | exp.CTE):
        allow(not node.columns, "New names for the columns of a query")
    if isinstance(node, exp.Lambda):
        plain = not node.find(exp.Query, exp.Window) and not any(map(is_aggregate, node.walk()))
        allow(plain, "A query or an aggregate in a lambda")


def _spelling(sql: str) -> list[object]:
    """Return the significant tokens, and the count of NOT, which sqlglot may move."""
    short = r"(?i)\b(ROWS|RANGE) (UNBOUNDED|\d+) PRECEDING(?! AND)"
    tokens = DIALECT.tokenize(re.sub(short, r"\1 BETWEEN \2 PRECEDING AND CURRENT ROW", sql))
    for number, word in zip(tokens, tokens[1:], strict=False):
        joined = number.token_type == TokenType.NUMBER and number.end + 1 == word.start
        allow(not joined or not re.match(r"\w", word.text), "A number joined to a word")
    quoted = (TokenType.STRING, TokenType.IDENTIFIER)
    same = {"!=": "<>", "INT": "INTEGER"}
    words = [
        f"{t.token_type} {t.text}" if t.token_type in quoted else t.text.upper() for t in tokens
    ]
    plain = [same.get(word, word) for word in words if word not in ("AS", "NOT")]
    return [*plain, words.count("NOT")]


def is_aggregate(node: Node) -> bool:
    """Return whether a node calls an aggregate, and not as a window function."""
    signatures = TABLE.get(node.name.lower()) if isinstance(node, exp.Anonymous) else None
    if not signatures or signatures[0].kind != "aggregate":
        return False
    top = node.parent
    while isinstance(top, exp.Filter | exp.WithinGroup):
        top = top.parent
    return not isinstance(top, exp.Window)


Outputs = list[tuple[str, Type]]  # the columns of a query, with their written names
Schema = Callable[[Sequence[str]], tuple[str, dict[str, Type]]]


@dataclass
class Translator:
    """Translates one statement; it changes the tree in place, innermost query first."""

    sql: str
    schema_of: Schema
    tables: dict[str, dict[str, Type]] = field(default_factory=dict)
    outputs: dict[int, Outputs] = field(default_factory=dict)

    def translate(self) -> tuple[str, Outputs]:
        """Return DuckDB's SQL, and the names and types of the result; raise AthenaError."""
        tree = parse(self.sql)
        self.find_tables(tree)
        for identifier in tree.find_all(exp.Identifier):
            identifier.meta["written"] = identifier.name
        for select in tree.find_all(exp.Select):
            _name_columns(select)
        tree = self.qualified(tree)
        for scope in traverse_scope(tree):
            self.outputs[id(scope.expression)] = self.rewrite(scope)
        allow(isinstance(tree, exp.Query), "A statement that is no SELECT")
        return _duckdb(tree), self.outputs[id(tree)]

    def fail(self, code: str, message: str, node: Node) -> NoReturn:
        """Raise Athena's error with the position of the node's first word."""
        starts = [n.meta["start"] for n in node.walk() if "start" in n.meta]
        before = self.sql[: min(starts, default=0)]
        column = len(before) - (before.rfind("\n") + 1) + 1
        line = before.count("\n") + 1 if starts else None
        raise AthenaError(code, message, line, column)

    def find_tables(self, tree: Node) -> None:
        """Rename each table to DuckDB's name, except the queries of WITH."""
        queries = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
        for table in tree.find_all(exp.Table):
            allow(isinstance(table.this, exp.Identifier), "A function as a table")
            parts = [part.name.lower() for part in table.parts]
            if parts[-1] in queries and len(parts) == 1:
                continue
            try:
                name, columns = self.schema_of(parts)
            except AthenaError as error:
                self.fail(error.code, error.message, table)
            allow(name not in queries, f"The name {name} for a table and a query")
            self.tables[name] = columns
            alias = table.args.get("alias") or exp.TableAlias(this=_quoted(parts[-1]))
            allow(len(alias.columns) in (0, len(columns) - 1), "A list of some of the columns")
            table.replace(exp.Table(this=_quoted(name), alias=alias))

    def qualified(self, tree: Node) -> Node:
        """Qualify each column with its relation where that is unambiguous, and expand stars."""
        schema: dict[str, object] = {t: dict.fromkeys(c, "unknown") for t, c in self.tables.items()}
        options: dict[str, Any] = {"expand_alias_refs": False, "validate_qualify_columns": False}
        try:
            return qualify(tree, schema=schema, dialect=DIALECT, **options)
        except OptimizeError as error:
            what, _, name = str(error).partition(": ")
            for column in tree.find_all(exp.Column):
                if what == "Unknown column" and column.table and column.name.lower() == name:
                    self.unknown(column)
            raise refusal(f"This statement ({error})") from None

    def rewrite(self, scope: Scope) -> Outputs:
        """Translate one query after its subqueries."""
        node = scope.expression
        if isinstance(node, exp.Select):
            return self.select(node, scope)
        if isinstance(node, exp.SetOperation):
            return self.set_operation(node)
        if isinstance(node, exp.Subquery):
            return self.order_by_name(node, self.outputs[id(node.unnest())])
        return self.values(node) if isinstance(node, exp.Values) else []

    def subquery(self, node: Node) -> tuple[str, list[Type]]:
        outputs = self.outputs[id(node.unnest())]
        return f"({_duckdb(node.unnest())})", [kind for _, kind in outputs]

    def values(self, node: exp.Values) -> Outputs:
        own = Expressions(self.unknown, self.subquery, self.fail)
        rows = [[own.value(item) for item in row.expressions] for row in node.expressions]
        allow(len({len(row) for row in rows}) == 1, "VALUES of different lengths")
        kinds = [_unified(value.type for value in column) for column in zip(*rows, strict=True)]
        for row, items in zip(node.expressions, rows, strict=True):
            row.set("expressions", [_raw(coerce(v, k)) for v, k in zip(items, kinds, strict=True)])
        names = _written_columns(node)
        allow(len(names) == len(kinds), "VALUES without a name for each column")
        return list(zip(names, kinds, strict=True))

    def set_operation(self, node: exp.SetOperation) -> Outputs:
        sides = [node.this.unnest(), node.expression.unnest()]
        left, right = (self.outputs[id(side)] for side in sides)
        allow(len(left) == len(right), "A set operation of different numbers of columns")
        kinds = [_unified((a, b)) for (_, a), (_, b) in zip(left, right, strict=True)]
        if node.args.get("distinct") or not isinstance(node, exp.Union):
            check_comparable(kinds)
        for side, outputs in zip(sides, (left, right), strict=True):
            if [kind for _, kind in outputs] == kinds:
                continue
            plain = isinstance(side, exp.Select) and not side.args.get("distinct")
            allow(plain and not side.args.get("order"), "A set operation of these types")
            for item, (_, own), kind in zip(side.expressions, outputs, kinds, strict=True):
                item.set("this", _raw(coerce(Value(item.this.name, own), kind)))
        return self.order_by_name(node, [(n, k) for (n, _), k in zip(left, kinds, strict=True)])

    def order_by_name(self, node: exp.Query, outputs: Outputs) -> Outputs:
        """Translate ORDER BY after a set operation; only the left side's columns are in scope."""
        order = node.args.get("order")
        names = [item.alias.lower() for item in node.selects]
        for sort in order.expressions if order else []:
            key = sort.this
            sure = isinstance(key, exp.Column) and not key.table
            allow(sure and names.count(key.name.lower()) == 1, "This ORDER BY of a set operation")
            at = names.index(key.name.lower())
            check_comparable([outputs[at][1]])
            sort.replace(_raw(f"{at + 1}{direction(sort)}"))
        return outputs

    def select(self, node: exp.Select, scope: Scope) -> Outputs:
        aliases: dict[str, Value] = {}
        own = Expressions(partial(self.column, scope, aliases), self.subquery, self.fail)
        _check_correlation(node, scope)
        for holder in (node.args.get("from_"), *(node.args.get("joins") or [])):
            self.source(holder, own)
        items = [own.value(item.unalias()) for item in node.expressions]
        group = node.args.get("group") or exp.Group()
        keys = [own.value(key) for key in group.expressions]
        self.check_groups(node)
        for part in ("where", "having"):
            if clause := node.args.get(part):
                clause.set("this", _raw(own.boolean(clause.this)))
        check_comparable(
            value.type for value in keys + (items if node.args.get("distinct") else [])
        )
        group.set("expressions", [_raw(key.sql) for key in keys])
        pairs = list(zip(node.expressions, items, strict=True))
        outputs = [(_written_name(item), value.type) for item, value in pairs]
        self.order_by(node, own, aliases, items)
        for item, value in pairs:
            item.set("this", _raw(value.sql))
        return outputs

    def column(self, scope: Scope, aliases: dict[str, Value], node: exp.Column) -> Value:
        """Resolve a column to an alias, or to a column of a source, here or in an outer query."""
        name = node.name.lower()
        if not node.table and name in aliases:
            return aliases[name]
        if not node.table:
            tables = [table for table, source in scope.sources.items() if self.find(source, name)]
            allow(len(tables) < 2, f"The name {name}, which is ambiguous,")
            node.set("table", _quoted(tables[0]) if tables else None)
        around: Scope | None = scope
        while around and node.table not in around.sources:
            around = around.parent
        source = around.sources[node.table] if around else self.unknown(node)
        matches = self.find(source, name)
        allow(len(matches) < 2, f"The name {name}, which is ambiguous,")
        if not matches:
            self.unknown(node)
        written, kind = matches[0]
        node.this.meta.setdefault("written", written)
        sql = node.sql("duckdb", identify=True)
        if isinstance(source, exp.Table) and kind.name == "timestamp with time zone":
            # Athena rounds Delta's microseconds to milliseconds
            sql = f"date_trunc('millisecond', {sql} + INTERVAL 500 MICROSECONDS)"
        return Value(sql, kind)

    def unknown(self, column: exp.Column) -> NoReturn:
        name = ".".join(part.name.lower() for part in column.parts if "written" in part.meta)
        self.fail("COLUMN_NOT_FOUND", f"Column '{name}' cannot be resolved", column)

    def find(self, source: exp.Table | Scope, name: str) -> Outputs:
        """Return the columns of a source with this name."""
        if isinstance(source, Scope):
            columns = self.outputs[id(source.expression)]
        else:
            allow(source.name in self.tables, f"The name {source.name} for a table and a query")
            own = self.tables[source.name]
            names = _written_columns(source) or list(own)
            columns = list(zip(names, own.values(), strict=False))
        return [(written, kind) for written, kind in columns if written.lower() == name]

    def source(self, holder: Node | None, own: Expressions) -> None:
        """Translate the condition of a join, and UNNEST."""
        if holder is None:
            return
        join = holder if isinstance(holder, exp.Join) else None
        on, side = holder.args.get("on"), holder.args.get("side") or ""
        if join:
            supported = f"{side} {join.kind}".strip() in JOINS and (on is not None or not side)
            allow(supported, f"{side} {join.kind} JOIN without a condition")
        if isinstance(holder.this, exp.Unnest):
            sure = on is None or (side == "LEFT" and isinstance(on, exp.Boolean) and on.this)
            allow(sure and side in ("", "LEFT"), "This join of UNNEST")
            holder.set("this", _raw(("LATERAL " if join else "") + self.unnest(holder.this, own)))
        if on is not None:
            allow(not on.find(exp.Query), "A subquery in the condition of a join")
            holder.set("on", _raw(own.boolean(on)))

    def unnest(self, node: exp.Unnest, own: Expressions) -> str:
        """Return UNNEST of arrays and maps side by side; shorter ones are padded with NULL."""
        texts, sizes = [], []
        kinds: list[Type] = []
        for value in map(own.value, node.expressions):
            is_map, sql = value.type.name == "map", value.sql
            typed = value.type.parts and UNKNOWN not in value.type.parts
            allow(typed, f"UNNEST of {value.type}")
            parts = ("map_keys", "map_values") if is_map else ("",)
            texts += [f"unnest({part}({sql}))" for part in parts]
            sizes.append(f"coalesce({'cardinality' if is_map else 'len'}({sql}), 0)")
            kinds += value.type.parts
        offset = node.args.get("offset")
        names = _written_columns(node)
        if offset:
            texts.append(f"unnest(range(1, CAST(greatest(0, {', '.join(sizes)}) AS BIGINT) + 1))")
            kinds.append(BIGINT)
            names.append(offset.meta.get("written", offset.name))
        allow(len(names) == len(kinds), "UNNEST without a name for each column")
        self.outputs[id(node)] = list(zip(names, kinds, strict=True))
        listed = ", ".join(f'{text} AS "{name}"' for text, name in zip(texts, names, strict=True))
        return f'(SELECT {listed}) AS "{node.alias}"'

    # GROUP BY and ORDER BY
    def check_groups(self, node: exp.Select) -> None:
        """Reject expressions that are neither grouped nor aggregated, comparing their text."""
        group, having, order = (node.args.get(part) for part in ("group", "having", "order"))
        tops = [item.unalias() for item in node.expressions]
        tops += [having.this] if having else []
        tops += [sort.this for sort in order.expressions] if order else []
        own = [n for top in tops for n in top.walk(prune=lambda n: isinstance(n, exp.Query))]
        if group or having or any(map(is_aggregate, own)):
            keys = [_shape(key) for key in group.expressions] if group else []
            for top in tops:
                self.check_grouped(top, keys)

    def check_grouped(self, node: Node, keys: list[Node]) -> None:
        call = node.find(exp.Anonymous) if isinstance(node, exp.Filter | exp.WithinGroup) else node
        assert call is not None
        if isinstance(node, exp.Query | exp.Exists) or is_aggregate(call) or _shape(node) in keys:
            return
        if isinstance(node, exp.Column) and node.table:
            message = f"'{node.name}' must be an aggregate expression or appear in GROUP BY clause"
            self.fail("EXPRESSION_NOT_AGGREGATE", message, node)
        for child in node.iter_expressions():
            self.check_grouped(child, keys)

    def order_by(
        self, node: exp.Select, own: Expressions, aliases: dict[str, Value], items: list[Value]
    ) -> None:
        """Translate ORDER BY; names resolve to output columns first, then to those of FROM."""
        order = node.args.get("order")
        names = [item.alias.lower() for item in node.expressions]
        aliases |= dict(zip(names, items, strict=True))
        for sort in order.expressions if order else []:
            twice = isinstance(sort.this, exp.Column) and names.count(sort.this.name.lower()) > 1
            allow(not twice, "ORDER BY a name of several columns")
            at = int(sort.this.expressions[0].name) if sort.this.name == UNNAMED else 0
            allow(at <= len(items), f"ORDER BY position {at}, which is not in the list,")
            value = items[at - 1] if at else own.value(sort.this)
            check_comparable([value.type])
            same = [str(i) for i, item in enumerate(items, 1) if item.sql == value.sql]
            listed = same or not node.args.get("distinct")
            allow(listed, "ORDER BY of what SELECT DISTINCT does not list")
            sort.replace(_raw((same or [value.sql])[0] + direction(sort)))


def _name_columns(select: exp.Select) -> None:
    """Name unnamed columns and the positions of ORDER BY, before sqlglot does."""
    joins = select.args.get("joins") or []
    using = [name.name.lower() for join in joins for name in join.args.get("using") or []]
    bare = not any(c.table and c.name.lower() in using for c in select.find_all(exp.Column))
    allow(not using or (bare and not select.is_star), "A star or a table's column beside USING")
    allow(select.expressions, "SELECT without columns")
    for i, item in enumerate(list(select.expressions)):
        while isinstance(item, exp.Paren):
            item = item.replace(item.this)
        if not isinstance(item, exp.Alias | exp.Column | exp.Star):
            item.replace(exp.Alias(this=item.copy(), alias=_quoted(f"{UNNAMED}{i}")))
    order = select.args.get("order")
    for sort in order.expressions if order else []:
        if isinstance(sort.this, exp.Literal) and sort.this.name.isdigit():
            sort.set("this", exp.Anonymous(this=UNNAMED, expressions=[sort.this.copy()]))


def _written_columns(source: Node) -> list[str]:
    """Return the columns that an alias names."""
    alias = source.args.get("alias")
    return [c.meta.get("written", c.name) for c in alias.columns] if alias else []


def _written_name(item: Node) -> str:
    """Return a column's name with its original case."""
    places = [p for p in (item.args["alias"], item.unalias().this) if isinstance(p, Node)]
    written = [place.meta.get("written", "") for place in places]
    return next((name for name in written if name.lower() == item.alias.lower()), item.alias)


def _check_correlation(node: exp.Select, scope: Scope) -> None:
    """Allow outer references only in WHERE, in EXISTS or a subquery with one aggregated row."""
    outer = [c for c in scope.external_columns if c.table and c.table not in scope.sources]
    parts = ("group", "having", "order", "limit", "distinct", "offset")
    single = len(node.expressions) == 1 and any(map(is_aggregate, node.expressions[0].walk()))
    taken = isinstance(node.parent, (exp.Exists, exp.Subquery) if single else exp.Exists)
    for column in outer:
        where = column.find_ancestor(exp.Where, exp.Select)
        inside = isinstance(where, exp.Where) and where.parent is node
        near = scope.parent is not None and column.table in scope.parent.sources
        sure = inside and near and taken and not any(node.args.get(part) for part in parts)
        allow(sure, "A subquery that refers to the query around it in this way")


def _shape(node: Node) -> Node:
    """Return an expression without parentheses, which Trino ignores."""
    return node.copy().transform(lambda n: n.this if isinstance(n, exp.Paren) else n)


def _unified(kinds: Iterable[Type]) -> Type:
    first, *others = kinds
    for kind in others:
        both = common(first, kind)
        allow(both, f"A column that is both {first} and {kind}")
        first = both or first
    return first


def _raw(sql: str) -> exp.Var:
    return exp.Var(this=sql)


def _quoted(name: str) -> exp.Identifier:
    return exp.to_identifier(name, quoted=True)


def _duckdb(node: Node) -> str:
    return node.sql("duckdb", normalize_functions=False, comments=False)
