"""What a statement consists of: the nodes that syntax.py makes and compiler.py reads.

`at` is the offset in the text.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Node:
    at: int


# Expressions
@dataclass
class Literal(Node):
    """`kind` is a type's name; NULL has the kind `unknown`."""

    kind: str
    value: str


@dataclass
class Name(Node):
    name: str


@dataclass
class Dot(Node):
    base: Node
    name: str


@dataclass
class Star(Node):
    base: str | None = None


@dataclass
class Sort(Node):
    value: Node
    descending: bool
    nulls_first: bool


@dataclass
class Window(Node):
    base: str | None = None
    partition: list[Node] = field(default_factory=list)
    order: list[Sort] = field(default_factory=list)
    frame: tuple[str, Bound, Bound | None] | None = None


@dataclass
class Bound(Node):
    """UNBOUNDED PRECEDING, CURRENT ROW, 2 FOLLOWING: the words, and the value where there is
    one."""

    words: str
    value: Node | None = None


@dataclass
class Call(Node):
    name: str
    arguments: list[Node]
    distinct: bool = False
    order: list[Sort] = field(default_factory=list)
    where: Node | None = None
    window: Window | None = None
    ignore_nulls: bool = False


@dataclass
class Lambda(Node):
    parameters: list[str]
    body: Node


@dataclass
class Subquery(Node):
    query: Query


@dataclass
class Exists(Node):
    query: Query


@dataclass
class Case(Node):
    operand: Node | None
    whens: list[tuple[Node, Node]]
    default: Node | None


@dataclass
class Cast(Node):
    value: Node
    type_text: list[str]
    safe: bool


@dataclass
class Array(Node):
    items: list[Node]


@dataclass
class Row(Node):
    items: list[Node]


@dataclass
class Index(Node):
    base: Node
    index: Node


@dataclass
class Unary(Node):
    operator: str
    value: Node


@dataclass
class Binary(Node):
    """Arithmetic, `||`, comparisons, AND, OR."""

    operator: str
    left: Node
    right: Node


@dataclass
class Between(Node):
    value: Node
    low: Node
    high: Node


@dataclass
class In(Node):
    value: Node
    items: list[Node] | Query


@dataclass
class Like(Node):
    value: Node
    pattern: Node
    escape: Node | None


@dataclass
class IsNull(Node):
    value: Node


@dataclass
class IsDistinct(Node):
    left: Node
    right: Node


@dataclass
class Quantified(Node):
    operator: str
    value: Node
    every: bool
    query: Query


@dataclass
class Interval(Node):
    text: str
    negative: bool
    unit: str
    to: str | None


@dataclass
class AtZone(Node):
    value: Node
    zone: Node


# Queries
@dataclass
class Item(Node):
    value: Node
    alias: str | None


@dataclass
class Select(Node):
    distinct: bool
    items: list[Item]
    source: Node | None
    where: Node | None
    group: list[tuple[str, list[list[Node]]]]
    having: Node | None
    windows: dict[str, Window]


@dataclass
class SetOperation(Node):
    operator: str
    every: bool
    left: Node
    right: Node


@dataclass
class Values(Node):
    rows: list[Node]


@dataclass
class With(Node):
    name: str
    columns: list[str]
    query: Query


@dataclass
class Query(Node):
    body: Node
    ctes: list[With] = field(default_factory=list)
    recursive: bool = False
    order: list[Sort] = field(default_factory=list)
    offset: Node | None = None
    limit: Node | None = None
    ties: bool = False


# Relations
@dataclass
class Table(Node):
    parts: list[str]


@dataclass
class Unnest(Node):
    items: list[Node]
    ordinality: bool


@dataclass
class Lateral(Node):
    query: Query


@dataclass
class Aliased(Node):
    relation: Node
    name: str
    columns: list[str]


@dataclass
class Join(Node):
    kind: str
    left: Node
    right: Node
    on: Node | None = None
    using: list[str] = field(default_factory=list)
