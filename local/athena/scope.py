"""What names mean at a place in a query."""

from __future__ import annotations

from dataclasses import dataclass, field

from .casts import Typed
from .errors import Refusal
from .types import Type


@dataclass(frozen=True)
class Column:
    """A column of a relation; `qualifier` is the alias, or the parts of the table's name."""

    name: str | None
    sql: str
    type: Type
    qualifier: tuple[str, ...] = ()


@dataclass
class Scope:
    """The columns of a FROM clause, those of the query around it, and aliases and lambda parameters
    before both."""

    columns: list[Column] = field(default_factory=list)
    parent: Scope | None = None
    aliases: dict[str, Typed] = field(default_factory=dict)
    hidden: dict[str, list[tuple[tuple[str, ...], str]]] = field(default_factory=dict)

    def find(self, name: str, qualifier: tuple[str, ...], at: int) -> Typed | None:
        """The column with this name, None where there is none. Refused where there are several."""
        if not qualifier and name in self.aliases:
            return self.aliases[name]
        found = [
            c
            for c in self.columns
            if c.name == name and (not qualifier or c.qualifier[-len(qualifier) :] == qualifier)
        ]
        if len(found) > 1:
            raise Refusal("AMBIGUOUS_NAME", f"Column '{name}' is ambiguous", at)
        if found:
            return Typed(found[0].sql, found[0].type)
        return self.parent.find(name, qualifier, at) if self.parent else None

    def of_relation(self, name: str) -> list[Column]:
        return [c for c in self.columns if c.qualifier and c.qualifier[-1] == name]
