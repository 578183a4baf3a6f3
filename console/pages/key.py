"""Key: one row's life: what its table holds, what was refused, and each version that came."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError
from deltalake.exceptions import DeltaError
from nicegui import background_tasks, ui

from console import look
from console.data import DATASETS, table_of
from console.look import Head, Row, div, span, tag
from console.pages import rejects
from tools.history import History


@dataclass(frozen=True)
class Found:
    row: Mapping[str, str | None] | None
    rejects: Sequence[dict[str, Any]]


def show(console: look.Console, dataset: str, key: str) -> None:
    dataset = dataset if dataset in DATASETS else "orders"
    lake = console.lake
    with look.frame(console, f"Key {key}" if key else "Keys", "/key"):
        look.heading(f"{dataset} {key}" if key else "Keys", "The life of one row.")
        _ask(dataset, key)
        if key:
            look.later(
                lambda: Found(lake.row_of(dataset, key), lake.rejects_of_key(dataset, key)),
                lambda found: _found(console, dataset, key, found),
            )


def _ask(dataset: str, key: str) -> None:
    with tag("form", "filters", role="search", aria_label="Which row") as form:
        kind = ui.select(list(DATASETS), value=dataset, label="dataset")
        kind.props("dense outlined options-dense")
        field = ui.input("key", value=key).props("dense outlined clearable").classes("grow")
        ui.button("Find", color=None).props("no-caps unelevated dense type=submit").classes("act")
    form.on(
        "submit.prevent",
        lambda: ui.navigate.to(look.address("/key", dataset=kind.value, key=field.value or "")),
    )


def _found(console: look.Console, dataset: str, key: str, found: Found) -> None:
    table = table_of(dataset)
    with look.card(f"In {table.name} now", f"by its key {table.key}"):
        if found.row is None:
            look.empty("The table holds no row with this key.")
        else:
            columns = {column.name: column.meaning for column in table.columns}
            rows = [Row((name, value, columns[name])) for name, value in found.row.items()]
            heads = [Head("column", "nowrap"), Head("value", "raw"), Head("meaning", "path")]
            look.table(heads, rows, "The row by column")
    with look.card("Not taken, or not at once"):
        if found.rejects:
            rejects.listing(found.rejects, "Rejected and parked rows of this key")
        else:
            look.empty("No row of this key was ever rejected or parked.")
    with look.card("Each version that came", "read from the table's log and the archived files"):
        _history(console, table.name, key)


def _history(console: look.Console, table: str, key: str) -> None:
    holder = div()

    async def read() -> None:
        holder.clear()
        with holder:
            span("Reading the table's log and the archive …", "soft", role="status")
        try:
            answer = await asyncio.to_thread(console.lake.history_of_key, table, key)
        except (OSError, DeltaError, BotoCoreError) as error:
            holder.clear()
            with holder:
                look.problem(f"The history cannot be read: {error}")
            return
        holder.clear()
        with holder:
            result(answer)

    look.button(
        "Show each version", lambda: background_tasks.create(read(), context=holder), "history"
    )


def result(history: History) -> None:
    """Show a history: its sentence, and its rows with a column for each name that occurs."""
    answer = history.plain()
    tag("p", "soft", answer["text"])
    if not answer["rows"]:
        look.empty("The table never contained this key, and no row of it was rejected.")
        return
    names = list(dict.fromkeys(name for row in answer["rows"] for name in row))
    heads = [Head(name.replace("_", " "), "raw") for name in names]
    rows = [Row(tuple(cell_text(row.get(name)) for name in names)) for row in answer["rows"]]
    look.table(heads, rows, "Each version, what lost against it, and what was rejected")


def cell_text(value: Any) -> str:
    """Return a value as text; a row of the table as `column: value` pairs."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {cell_text(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(cell_text, value))
    return "" if value is None else str(value)
