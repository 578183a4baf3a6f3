"""Plans, effects and histories as tables of texts, the same on a terminal and in the console."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CELL = 60  # characters of a value on a terminal
LISTED = 5  # values of a list in a plan


@dataclass(frozen=True)
class TextTable:
    """Heads and rows; `str` gives it in columns, long values cut."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        cells = [[_cut(cell) for cell in row] for row in (self.heads, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        cells.insert(1, ["-" * width for width in widths])
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= CELL else line[: CELL - 1] + "…"


def of_rows(rows: Sequence[Mapping[str, Any]]) -> TextTable:
    """Return rows with a column for each name that has a value in some row."""
    names = list(dict.fromkeys(name for row in rows for name in row if value_text(row[name])))
    cells = [[value_text(row.get(name)) for name in names] for row in rows]
    return TextTable(names, cells)


def of_plan(plan: Mapping[str, Any]) -> list[TextTable]:
    """Return a plan or an effect: a table for its objects, one for each group of objects such as
    `tables`, and one for its numbers and words."""
    facts, loose, groups = {}, {}, {}
    for name, inner in plan.items():
        if not inner or not isinstance(inner, Mapping):
            facts[name] = inner
        elif all(isinstance(value, Mapping) for value in inner.values()):
            groups[name] = inner
        else:
            loose[name] = inner
    titled = {"": loose, **groups} if loose else groups
    tables = [_by_name(title, objects) for title, objects in titled.items()]
    rows = [[name.replace("_", " "), _amount(value)] for name, value in facts.items()]
    return [*tables, TextTable(["name", "value"], rows)] if rows else tables


def _by_name(title: str, objects: Mapping[str, Mapping[str, Any]]) -> TextTable:
    names = list(dict.fromkeys(name for value in objects.values() for name in value))
    heads = [title, *(name.replace("_", " ") for name in names)]
    rows = [
        [key, *(_amount(value[name]) if name in value else "" for name in names)]
        for key, value in objects.items()
    ]
    return TextTable(heads, rows)


def _amount(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and len(value) > LISTED:
        return f"{value_text(value[:LISTED])} and {len(value) - LISTED:,} more"
    return f"{value:,}" if isinstance(value, int) else value_text(value) or "–"


def value_text(value: Any) -> str:
    """Return a value of JSON as a person reads it: an object as `name: value` pairs."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {value_text(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(value_text, value))
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
