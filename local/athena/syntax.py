"""Trino's grammar of queries: text to a tree, or the refusal at the place where Trino refuses.

What is not written here is a syntax error, as it is on AWS: no `::`, no `ILIKE`, no `LIMIT` before
`OFFSET`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from . import tree as t
from .errors import Refusal, not_here

T = TypeVar("T")
RESERVED = frozenset(
    """
alter and as between by case cast constraint create cross cube current_catalog current_date current_path
current_role current_schema current_time current_timestamp current_user deallocate delete describe distinct drop
else end escape except execute exists extract false for from full group grouping having in inner insert intersect
into is join json_array json_exists json_object json_query json_table json_value left like listagg localtime
localtimestamp natural normalize not null on or order outer prepare recursive right rollup select skip table then
trim true uescape union unnest using values when where with
""".split()
)
NO_PARENTHESES = frozenset(
    "current_date current_time current_timestamp localtime localtimestamp current_user "
    "current_catalog "
    "current_schema current_path".split()
)
UNITS = ("year", "month", "week", "day", "hour", "minute", "second")
TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?\*/)
    |(?P<double>(?:\d+(?:\.\d*)?|\.\d+)[eE][+-]?\d+)
    |(?P<decimal>\d[\d_]*\.\d*|\.\d+)
    |(?P<integer>0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|\d+(?:_\d+)*)
    |(?P<binary>[xX]'[^']*')
    |(?P<unicode>[uU]&'(?:[^']|'')*')
    |(?P<string>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")*")
    |(?P<back>`)
    |(?P<name>[A-Za-z_][\w@]*)
    |(?P<operator><>|!=|<=|>=|\|\||->|=>|[-+*/%=<>(),.\[\]?;:])""",
    re.X | re.S,
)


@dataclass
class Token:
    kind: str
    text: str
    at: int

    @property
    def word(self) -> str:
        return self.text.lower() if self.kind in ("name", "operator") else ""


class Identifier(str):
    """A name: equal to others in any case, shown as it was written."""

    shown: str

    def __new__(cls, text: str) -> Identifier:
        found = super().__new__(cls, text.lower())
        found.shown = text
        return found


def tokenize(sql: str) -> list[Token]:
    tokens, at = [], 0
    while at < len(sql):
        found = TOKEN.match(sql, at)
        if not found:
            raise Refusal("SYNTAX_ERROR", f"mismatched input {sql[at]!r}", at)
        kind = str(found.lastgroup)
        if kind == "back":
            text = (
                "backquoted identifiers are not supported; use double quotes to quote identifiers"
            )
            raise Refusal("SYNTAX_ERROR", text, at)
        follows = sql[found.end() : found.end() + 1]
        if kind in ("integer", "decimal", "double") and (follows.isalpha() or follows == "_"):
            raise Refusal("SYNTAX_ERROR", "identifiers must not start with a digit", at)
        if kind != "space":
            tokens.append(Token(kind, found[0], at))
        at = found.end()
    return [*tokens, Token("end", "<EOF>", len(sql))]


def parse(sql: str, parameters: Sequence[t.Node] = ()) -> t.Query:
    """The tree of one query, with a value for each `?`."""
    parser = Parser(sql, parameters)
    query = parser.query()
    parser.accept(";")
    if parser.token.kind != "end":
        if parser.tokens[parser.index - 1].text == ";":
            raise Refusal("SYNTAX_ERROR", "Only one sql statement is allowed", parser.token.at)
        raise parser.mismatch()
    if parser.used != len(parameters):
        counts = f"expected {parser.used} but found {len(parameters)}"
        raise Refusal("INVALID_PARAMETER_USAGE", f"Incorrect number of parameters: {counts}", 0)
    return query


def parse_value(text: str) -> t.Node:
    """One value, as a client hands it over for a `?`."""
    return Parser(text).expression()


def parse_execute(sql: str) -> tuple[str, list[t.Node]]:
    """EXECUTE name USING a, b: the name and the values."""
    parser = Parser(sql)
    parser.expect("execute")
    name = parser.identifier()
    found = parser.list_of(parser.expression) if parser.accept("using") else []
    if parser.token.kind != "end":
        raise parser.mismatch()
    return name, found


class Parser:
    """Recursive descent, a method for each rule of the grammar."""

    def __init__(self, sql: str, parameters: Sequence[t.Node] = ()) -> None:
        self.sql, self.tokens, self.index = sql, tokenize(sql), 0
        self.parameters, self.used = parameters, 0

    # Tokens
    @property
    def token(self) -> Token:
        return self.tokens[self.index]

    def ahead(self, n: int = 1) -> Token:
        return self.tokens[min(self.index + n, len(self.tokens) - 1)]

    def mismatch(self, expecting: str = "") -> Refusal:
        hint = f". Expecting: {expecting}" if expecting else ""
        return Refusal("SYNTAX_ERROR", f"mismatched input '{self.token.text}'{hint}", self.token.at)

    def next(self) -> Token:
        self.index += 1
        return self.tokens[self.index - 1]

    def at_words(self, *words: str) -> bool:
        return all(self.ahead(i).word == word for i, word in enumerate(words))

    def accept(self, *words: str) -> bool:
        """Take the words where they come next."""
        if not self.at_words(*words):
            return False
        self.index += len(words)
        return True

    def expect(self, *words: str) -> int:
        at = self.token.at
        for word in words:
            if not self.accept(word):
                raise self.mismatch(f"'{word.upper()}'")
        return at

    def identifier(self) -> str:
        token = self.next()
        if token.kind == "quoted":
            return Identifier(token.text[1:-1].replace('""', '"'))
        if token.kind == "name" and token.word not in RESERVED:
            return Identifier(token.text)
        self.index -= 1
        raise self.mismatch("<identifier>")

    def at_identifier(self) -> bool:
        token = self.token
        return token.kind == "quoted" or token.kind == "name" and token.word not in RESERVED

    def list_of(self, rule: Callable[[], T]) -> list[T]:
        found = [rule()]
        while self.accept(","):
            found.append(rule())
        return found

    def parenthesized(self, rule: Callable[[], T]) -> list[T]:
        self.expect("(")
        found = self.list_of(rule)
        self.expect(")")
        return found

    # Queries
    def query(self) -> t.Query:
        at, ctes, recursive = self.token.at, [], False
        if self.accept("with"):
            recursive = self.accept("recursive")
            ctes = self.list_of(self.cte)
        query = self.query_without_with()
        query.at, query.ctes, query.recursive = at, ctes, recursive
        return query

    def cte(self) -> t.With:
        at, name = self.token.at, self.identifier()
        columns = self.parenthesized(self.identifier) if self.at_words("(") else []
        self.expect("as", "(")
        query = self.query()
        self.expect(")")
        return t.With(at, name, columns, query)

    def query_without_with(self) -> t.Query:
        query = t.Query(self.token.at, self.set_operation())
        if self.accept("order", "by"):
            query.order = self.list_of(self.sort)
        if self.accept("offset"):
            query.offset = self.count()
            self.accept("row") or self.accept("rows")
        if self.accept("limit"):
            query.limit = None if self.accept("all") else self.count()
        elif self.accept("fetch"):
            self.fetch(query)
        return query

    def fetch(self, query: t.Query) -> None:
        if not (self.accept("first") or self.accept("next")):
            raise self.mismatch("'FIRST', 'NEXT'")
        at_count = self.token.kind == "integer"
        query.limit = self.count() if at_count else t.Literal(self.token.at, "integer", "1")
        if not (self.accept("row") or self.accept("rows")):
            raise self.mismatch("'ROW', 'ROWS'")
        if self.accept("with", "ties"):
            query.ties = True
        else:
            self.expect("only")

    def count(self) -> t.Node:
        token = self.next()
        if token.kind == "integer":
            return t.Literal(token.at, "integer", token.text)
        if token.text == "?":
            return self.parameter(token)
        self.index -= 1
        raise self.mismatch("'ALL', <integer>")

    def set_operation(self) -> t.Node:
        left = self.intersection()
        while self.at_words("union") or self.at_words("except"):
            token = self.next()
            every = self.quantifier()
            left = t.SetOperation(token.at, token.word, every, left, self.intersection())
        return left

    def intersection(self) -> t.Node:
        left = self.query_primary()
        while self.at_words("intersect"):
            at = self.next().at
            every = self.quantifier()
            left = t.SetOperation(at, "intersect", every, left, self.query_primary())
        return left

    def quantifier(self) -> bool:
        every = self.accept("all")
        if not every:
            self.accept("distinct")
        return every

    def query_primary(self) -> t.Node:
        at = self.token.at
        if self.at_words("select"):
            return self.select()
        if self.accept("values"):
            return t.Values(at, self.list_of(self.expression))
        if self.accept("table"):
            table = t.Table(self.token.at, self.qualified_name())
            item = t.Item(at, t.Star(at), None)
            return t.Select(at, False, [item], table, None, [], None, {})
        if self.accept("("):
            query = self.query_without_with()
            self.expect(")")
            return query
        raise self.mismatch("'(', 'SELECT', 'TABLE', 'VALUES', 'WITH'")

    def select(self) -> t.Select:
        at = self.expect("select")
        distinct = self.accept("distinct")
        if not distinct:
            self.accept("all")
        items = self.list_of(self.item)
        source = self.relations() if self.accept("from") else None
        where = self.expression() if self.accept("where") else None
        group = self.grouping() if self.accept("group", "by") else []
        having = self.expression() if self.accept("having") else None
        windows = dict(self.list_of(self.named_window)) if self.accept("window") else {}
        return t.Select(at, distinct, items, source, where, group, having, windows)

    def item(self) -> t.Item:
        at = self.token.at
        if self.accept("*"):
            return t.Item(at, t.Star(at), None)
        value = self.expression(star=True)
        if isinstance(value, t.Star):
            return t.Item(at, value, None)
        if self.accept("as"):
            return t.Item(at, value, self.identifier())
        return t.Item(at, value, self.identifier() if self.at_alias() else None)

    def named_window(self) -> tuple[str, t.Window]:
        name = self.identifier()
        self.expect("as", "(")
        window = self.window()
        return name, window

    def grouping(self) -> list[tuple[str, list[list[t.Node]]]]:
        ends = self.ahead().kind == "end" or self.ahead().word in (",", ")", "having", "order")
        if not self.accept("distinct") and not ends:
            self.accept("all")
        return self.list_of(self.grouping_element)

    def grouping_element(self) -> tuple[str, list[list[t.Node]]]:
        if self.accept("grouping", "sets"):
            return "sets", self.parenthesized(self.grouping_set)
        for kind in ("rollup", "cube"):
            if self.accept(kind):
                return kind, self.parenthesized(self.grouping_set)
        if self.at_words("auto"):
            raise self.mismatch()
        return "plain", [self.grouping_set()]

    def grouping_set(self) -> list[t.Node]:
        if not self.at_words("("):
            return [self.expression()]
        if self.accept("(", ")"):
            return []
        value = self.expression()
        return value.items if isinstance(value, t.Row) else [value]

    def sort(self) -> t.Sort:
        at, value = self.token.at, self.expression()
        descending = self.accept("desc")
        if not descending:
            self.accept("asc")
        first = self.accept("nulls", "first")
        if not first:
            self.accept("nulls", "last")
        return t.Sort(at, value, descending, first)

    # Relations
    def relations(self) -> t.Node:
        left = self.relation()
        while self.at_words(","):
            at = self.next().at
            left = t.Join(at, "cross", left, self.relation())
        return left

    def relation(self) -> t.Node:
        left = self.sampled()
        while True:
            at = self.token.at
            if self.accept("cross", "join"):
                left = t.Join(at, "cross", left, self.sampled())
            elif self.accept("natural"):
                raise not_here("NATURAL JOIN", at)
            elif kind := self.join_kind():
                left = self.joined(at, kind, left)
            else:
                return left

    def join_kind(self) -> str | None:
        for kind in ("left", "right", "full"):
            if self.at_words(kind, "join") or self.at_words(kind, "outer", "join"):
                self.next()
                self.accept("outer")
                self.next()
                return kind
        return "inner" if self.accept("inner", "join") or self.accept("join") else None

    def joined(self, at: int, kind: str, left: t.Node) -> t.Join:
        right = self.relation()
        if self.accept("on"):
            return t.Join(at, kind, left, right, self.expression())
        self.expect("using")
        return t.Join(at, kind, left, right, using=self.parenthesized(self.identifier))

    def sampled(self) -> t.Node:
        relation = self.aliased()
        if self.at_words("tablesample"):
            raise not_here("TABLESAMPLE", self.token.at)
        if self.at_words("match_recognize"):
            raise not_here("MATCH_RECOGNIZE", self.token.at)
        return relation

    def aliased(self) -> t.Node:
        at, relation = self.token.at, self.relation_primary()
        explicit = self.accept("as")
        if not explicit and not self.at_alias():
            return relation
        name = self.identifier()
        columns = self.parenthesized(self.identifier) if self.at_words("(") else []
        return t.Aliased(at, relation, name, columns)

    def at_alias(self) -> bool:
        """A name, which is not the start of a clause that may come here: LIMIT 1, WINDOW w AS."""
        word, following = self.token.word, self.ahead()
        if word in ("offset", "limit", "fetch"):
            starts = following.kind == "integer" or following.word in ("all", "first", "next", "?")
        else:
            starts = word in ("tablesample", "match_recognize") or (
                word == "window" and following.kind == "name" and self.ahead(2).word == "as"
            )
        return self.at_identifier() and not starts

    def relation_primary(self) -> t.Node:
        at = self.token.at
        if self.accept("unnest"):
            items = self.parenthesized(self.expression)
            return t.Unnest(at, items, self.accept("with", "ordinality"))
        if self.accept("lateral"):
            self.expect("(")
            query = self.query()
            self.expect(")")
            return t.Lateral(at, query)
        if self.at_words("table", "(") or self.at_words("json_table"):
            raise not_here("A table function", at)
        if self.at_words("("):
            return self.parenthesized_relation()
        table = t.Table(at, self.qualified_name())
        if self.at_words("for"):
            self.next()
            kind = self.next().word.upper()
            raise Refusal("TIME_TRAVEL", kind, at)
        return table

    def parenthesized_relation(self) -> t.Node:
        """A query, or a join in parentheses: tried in this order."""
        at, start = self.expect("("), self.index
        if self.at_words("("):
            try:
                query: t.Node = t.Subquery(at, self.query())
                self.expect(")")
                return query
            except Refusal as refusal:
                if refusal.code != "SYNTAX_ERROR":
                    raise
                self.index = start
        elif any(self.at_words(w) for w in ("select", "with", "values", "table")):
            query = t.Subquery(at, self.query())
            self.expect(")")
            return query
        relation = self.relation()
        self.expect(")")
        return relation

    def qualified_name(self) -> list[str]:
        parts = [self.identifier()]
        while self.accept("."):
            parts.append(self.identifier())
        return parts

    # Expressions
    def expression(self, star: bool = False) -> t.Node:
        left = self.conjunction(star)
        while self.at_words("or"):
            at = self.next().at
            left = t.Binary(at, "or", left, self.conjunction())
        return left

    def conjunction(self, star: bool = False) -> t.Node:
        left = self.negation(star)
        while self.at_words("and"):
            at = self.next().at
            left = t.Binary(at, "and", left, self.negation())
        return left

    def negation(self, star: bool = False) -> t.Node:
        if self.at_words("not"):
            at = self.next().at
            return t.Unary(at, "not", self.negation())
        value = self.value(star)
        return value if isinstance(value, t.Star) else self.predicate(value)

    def predicate(self, left: t.Node) -> t.Node:
        token = self.token
        if token.text in ("=", "<>", "!=", "<", "<=", ">", ">="):
            self.next()
            operator = "<>" if token.text == "!=" else token.text
            if any(self.at_words(w, "(") for w in ("all", "any", "some")):
                return self.quantified(token.at, operator, left)
            return t.Binary(token.at, operator, left, self.value())
        if self.accept("is"):
            return self.is_predicate(token.at, left)
        negative = self.at_words("not")
        if negative and self.ahead().word in ("between", "in", "like"):
            self.next()
        found = self.between_in_like(token.at, left)
        if found is None:
            return left
        return t.Unary(token.at, "not", found) if negative else found

    def quantified(self, at: int, operator: str, left: t.Node) -> t.Node:
        every = self.next().word == "all"
        self.expect("(")
        query = self.query()
        self.expect(")")
        return t.Quantified(at, operator, left, every, query)

    def is_predicate(self, at: int, left: t.Node) -> t.Node:
        negative = self.accept("not")
        if self.accept("null"):
            found: t.Node = t.IsNull(at, left)
        else:
            self.expect("distinct", "from")
            found = t.IsDistinct(at, left, self.value())
        return t.Unary(at, "not", found) if negative else found

    def between_in_like(self, at: int, left: t.Node) -> t.Node | None:
        if self.accept("between"):
            low = self.value()
            self.expect("and")
            return t.Between(at, left, low, self.value())
        if self.accept("in"):
            self.expect("(")
            items: list[t.Node] | t.Query
            is_query = any(self.at_words(w) for w in ("select", "with", "values", "table"))
            items = self.query() if is_query else self.list_of(self.expression)
            self.expect(")")
            return t.In(at, left, items)
        if self.accept("like"):
            pattern = self.value()
            return t.Like(at, left, pattern, self.value() if self.accept("escape") else None)
        return None

    def value(self, star: bool = False) -> t.Node:
        left = self.sum(star)
        while self.at_words("||"):
            at = self.next().at
            left = t.Binary(at, "||", left, self.sum())
        return left

    def sum(self, star: bool = False) -> t.Node:
        left = self.product(star)
        while self.token.text in ("+", "-") and self.token.kind == "operator":
            token = self.next()
            left = t.Binary(token.at, token.text, left, self.product())
        return left

    def product(self, star: bool = False) -> t.Node:
        left = self.unary(star)
        while self.token.text in ("*", "/", "%") and self.token.kind == "operator":
            token = self.next()
            left = t.Binary(token.at, token.text, left, self.unary())
        return left

    def unary(self, star: bool = False) -> t.Node:
        if self.token.text in ("+", "-") and self.token.kind == "operator":
            token = self.next()
            return t.Unary(token.at, token.text, self.unary())
        value = self.primary(star)
        while self.at_words("at", "time", "zone"):
            at = self.next().at
            self.index += 2
            value = t.AtZone(at, value, self.primary())
        return value

    def primary(self, star: bool = False) -> t.Node:
        value = self.atom()
        while True:
            at = self.token.at
            if self.accept("["):
                value = t.Index(at, value, self.value())
                self.expect("]")
            elif star and self.at_words(".", "*") and isinstance(value, t.Name):
                self.index += 2
                return t.Star(value.at, value.name)
            elif self.accept("."):
                value = t.Dot(value.at, value, self.identifier())
            else:
                return value

    LITERALS = {"integer": "integer", "decimal": "decimal", "double": "double", "string": "varchar"}

    def atom(self) -> t.Node:
        token = self.token
        if token.kind in self.LITERALS:
            self.next()
            text = token.text[1:-1].replace("''", "'") if token.kind == "string" else token.text
            return t.Literal(token.at, self.LITERALS[token.kind], text)
        if token.kind == "binary":
            self.next()
            return t.Literal(token.at, "varbinary", token.text[2:-1].replace(" ", ""))
        if token.kind == "unicode":
            self.next()
            text = re.sub(
                r"\\(?:\+([0-9a-fA-F]{6})|([0-9a-fA-F]{4})|\\)",
                lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else "\\",
                token.text[3:-1].replace("''", "'"),
            )
            return t.Literal(token.at, "varchar", text)
        if token.text == "?":
            return self.parameter(self.next())
        if token.text == "(" and token.kind == "operator":
            return self.parentheses()
        if token.text == "[":
            return self.items(token.at)
        rule = getattr(self, f"word_{token.word}", None)
        if rule and token.kind == "name" and not self.at_words(token.word, "."):
            found = rule()
            if found is not None:
                return found
        return self.named()

    def parameter(self, token: Token) -> t.Node:
        self.used += 1
        if self.used > len(self.parameters):
            counts = f"expected {self.sql.count('?')} but found {len(self.parameters)}"
            message = f"Incorrect number of parameters: {counts}"
            raise Refusal("INVALID_PARAMETER_USAGE", message, token.at)
        return self.parameters[self.used - 1]

    def named(self) -> t.Node:
        """A column, a function, a typed literal (`DATE '…'`), a lambda with one parameter."""
        token = self.token
        if token.word in NO_PARENTHESES:
            self.next()
            if self.accept("("):
                precision = self.count()
                self.expect(")")
                return t.Call(token.at, token.word, [precision])
            return t.Call(token.at, token.word, [])
        if self.ahead().text == "->":
            name = self.identifier()
            self.next()
            return t.Lambda(token.at, [name], self.expression())
        if self.ahead().text == "(" and token.kind != "quoted":
            if token.word in RESERVED and token.word not in ("left", "right"):
                raise self.mismatch()
            if token.word in RESERVED:
                raise self.mismatch()
            return self.call(self.next())
        if self.ahead().kind == "string" and token.kind == "name" and token.word not in RESERVED:
            name = self.identifier()
            return t.Literal(token.at, name, self.next().text[1:-1].replace("''", "'"))
        return t.Name(token.at, self.identifier())

    def call(self, token: Token) -> t.Call:
        call = t.Call(token.at, token.word, [])
        self.expect("(")
        if self.accept("*"):
            call.arguments.append(t.Star(token.at))
        elif not self.at_words(")") and not self.at_words("order", "by"):
            call.distinct = self.accept("distinct")
            if not call.distinct:
                self.accept("all")
            call.arguments = self.list_of(self.expression)
        if self.accept("order", "by"):
            call.order = self.list_of(self.sort)
        self.expect(")")
        return self.call_tail(call)

    def call_tail(self, call: t.Call) -> t.Call:
        if self.accept("filter", "("):
            self.expect("where")
            call.where = self.expression()
            self.expect(")")
        if self.accept("ignore", "nulls"):
            call.ignore_nulls = True
        else:
            self.accept("respect", "nulls")
        if self.accept("over"):
            if self.accept("("):
                call.window = self.window()
            else:
                call.window = t.Window(self.token.at, self.identifier())
        return call

    def window(self) -> t.Window:
        window = t.Window(self.token.at)
        if self.at_identifier() and self.token.word not in ("partition", "rows", "range", "groups"):
            window.base = self.identifier()
        if self.accept("partition", "by"):
            window.partition = self.list_of(self.expression)
        if self.accept("order", "by"):
            window.order = self.list_of(self.sort)
        if self.token.word in ("rows", "range", "groups"):
            kind = self.next().word
            if self.accept("between"):
                low = self.bound()
                self.expect("and")
                window.frame = (kind, low, self.bound())
            else:
                window.frame = (kind, self.bound(), None)
        self.expect(")")
        return window

    def bound(self) -> t.Bound:
        at = self.token.at
        if self.accept("current", "row"):
            return t.Bound(at, "CURRENT ROW")
        value = None if self.accept("unbounded") else self.value()
        if not (self.at_words("preceding") or self.at_words("following")):
            raise self.mismatch("'PRECEDING', 'FOLLOWING'")
        direction = self.next().word.upper()
        return t.Bound(at, f"UNBOUNDED {direction}" if value is None else direction, value)

    def parentheses(self) -> t.Node:
        at = self.token.at
        if names := self.lambda_parameters():
            return t.Lambda(at, names[0], self.expression())
        self.next()
        if any(self.at_words(w) for w in ("select", "with", "values", "table")):
            query = self.query()
            self.expect(")")
            return t.Subquery(at, query)
        items = self.list_of(self.expression)
        self.expect(")")
        return items[0] if len(items) == 1 else t.Row(at, items)

    def lambda_parameters(self) -> tuple[list[str]] | None:
        """`(a, b) ->`: the names, in a tuple since there may be none."""
        at = 1
        while self.ahead(at).kind in ("name", "quoted") or self.ahead(at).text == ",":
            at += 1
        if self.ahead(at).text != ")" or self.ahead(at + 1).text != "->":
            return None
        self.next()
        names = [] if self.at_words(")") else self.list_of(self.identifier)
        self.index += 2
        return (names,)

    # Words that begin something of their own
    def word_null(self) -> t.Node:
        return t.Literal(self.next().at, "unknown", "NULL")

    def word_true(self) -> t.Node:
        return t.Literal(self.next().at, "boolean", "true")

    def word_false(self) -> t.Node:
        return t.Literal(self.next().at, "boolean", "false")

    def word_double(self) -> t.Node | None:
        if self.ahead().word == "precision" and self.ahead(2).kind == "string":
            at = self.next().at
            self.next()
            return t.Literal(at, "double", self.next().text[1:-1])
        return None

    def word_interval(self) -> t.Node | None:
        sign = self.ahead().text in ("+", "-")
        if self.ahead(2 if sign else 1).kind != "string":
            if self.ahead().kind == "integer":
                self.next()
                raise self.mismatch("'+', '-', <string>")
            return None
        at = self.next().at
        negative = sign and self.next().text == "-"
        text = self.next().text[1:-1]
        if self.token.kind != "name":
            raise Refusal("TYPE_NOT_FOUND", "Unknown type: interval", at)
        unit = self.unit()
        return t.Interval(at, text, negative, unit, self.unit() if self.accept("to") else None)

    def unit(self) -> str:
        if self.token.word not in UNITS:
            raise self.mismatch("'DAY', 'HOUR', 'MINUTE', 'MONTH', 'SECOND', 'YEAR'")
        return self.next().word

    def word_array(self) -> t.Node | None:
        if self.ahead().text != "[":
            return None
        return self.items(self.next().at)

    def items(self, at: int) -> t.Array:
        self.expect("[")
        items = [] if self.at_words("]") else self.list_of(self.expression)
        self.expect("]")
        return t.Array(at, items)

    def word_row(self) -> t.Node | None:
        if self.ahead().text != "(":
            return None
        at = self.next().at
        return t.Row(at, self.parenthesized(self.expression))

    def word_case(self) -> t.Node:
        at = self.next().at
        operand = None if self.at_words("when") else self.expression()
        whens = []
        while self.accept("when"):
            condition = self.expression()
            self.expect("then")
            whens.append((condition, self.expression()))
        if not whens:
            raise self.mismatch("'WHEN'")
        default = self.expression() if self.accept("else") else None
        self.expect("end")
        return t.Case(at, operand, whens, default)

    def word_cast(self) -> t.Node:
        return self.cast(safe=False)

    def word_try_cast(self) -> t.Node | None:
        return self.cast(safe=True) if self.ahead().text == "(" else None

    def cast(self, safe: bool) -> t.Node:
        at = self.next().at
        self.expect("(")
        value = self.expression()
        self.expect("as")
        start = self.index
        self.skip_type()
        words = [token.text for token in self.tokens[start : self.index]]
        self.expect(")")
        return t.Cast(at, value, words, safe)

    def skip_type(self) -> None:
        """To the parenthesis that closes the cast."""
        depth = 0
        while self.token.kind != "end" and (depth or self.token.text != ")"):
            depth += (self.token.text == "(") - (self.token.text == ")")
            self.next()

    def word_exists(self) -> t.Node:
        at = self.next().at
        self.expect("(")
        query = self.query()
        self.expect(")")
        return t.Exists(at, query)

    def word_position(self) -> t.Node | None:
        if self.ahead().text != "(":
            return None
        at = self.next().at
        self.expect("(")
        needle = self.value()
        self.expect("in")
        haystack = self.value()
        self.expect(")")
        return t.Call(at, "strpos", [haystack, needle])

    def word_substring(self) -> t.Node | None:
        start = self.index
        at = self.next().at
        if not self.accept("("):
            self.index = start
            return None
        arguments = [self.value()]
        if not self.accept("from"):
            self.index = start
            return None
        arguments.append(self.value())
        if self.accept("for"):
            arguments.append(self.value())
        self.expect(")")
        return t.Call(at, "substr", arguments)

    def word_trim(self) -> t.Node:
        at = self.next().at
        self.expect("(")
        side = self.next().word if self.token.word in ("both", "leading", "trailing") else "both"
        name = {"both": "trim", "leading": "ltrim", "trailing": "rtrim"}[side]
        first = [] if self.at_words("from") else [self.value()]
        if self.accept("from"):
            arguments = [self.value(), *first]
        elif self.accept(","):
            arguments = [*first, self.value()]
        else:
            arguments = first
        self.expect(")")
        return t.Call(at, name, arguments)

    def word_extract(self) -> t.Node:
        at = self.next().at
        self.expect("(")
        field = self.identifier()
        self.expect("from")
        value = self.value()
        self.expect(")")
        return t.Call(at, f"extract {field}", [value])

    def word_grouping(self) -> t.Node:
        at = self.next().at
        return t.Call(at, "grouping", self.parenthesized(self.expression))

    def word_normalize(self) -> t.Node:
        at = self.next().at
        return t.Call(at, "normalize", self.parenthesized(self.expression))

    def word_listagg(self) -> t.Node:
        at = self.next().at
        self.expect("(")
        distinct = self.accept("distinct")
        arguments = self.list_of(self.expression)
        if self.at_words("on"):
            raise not_here("LISTAGG ON OVERFLOW", self.token.at)
        self.expect(")", "within", "group", "(", "order", "by")
        call = t.Call(at, "listagg", arguments, distinct, self.list_of(self.sort))
        self.expect(")")
        return self.call_tail(call)

    def word_json_exists(self) -> t.Node:
        raise not_here(f"{self.token.text} with SQL/JSON paths", self.token.at)

    word_json_value = word_json_query = word_json_object = word_json_array = word_json_exists
