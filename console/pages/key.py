"""Key: one row's life: what its table holds, what was refused, and each version that came."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import background_tasks, ui

from console import look
from console.data import DATASETS, table_of
from console.look import Head, Row, div, span, tag
from console.operations import Refused
from console.pages import rejects


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
    with look.card(
        "Each version that came", "read from the archived files by the operation history"
    ):
        _history(console, table.name, key)


def _history(console: look.Console, table: str, key: str) -> None:
    why = console.operator.why_not("history")
    holder = div()

    async def ask() -> None:
        holder.clear()
        with holder:
            span(
                "Reading the archive. It is an execution, and takes a moment …",
                "soft",
                role="status",
            )
        asked = {"operation": "history", "table": table, "key": key}
        try:
            run_id = await asyncio.to_thread(console.operator.start, asked, False)
            outcome = await asyncio.to_thread(console.operator.wait, run_id)
        except Refused as error:
            holder.clear()
            with holder:
                look.problem(str(error))
            return
        holder.clear()
        with holder:
            if outcome.succeeded:
                result(outcome.result)
            else:
                look.problem(outcome.error)

    look.button(
        "Show each version",
        lambda: background_tasks.create(ask(), context=holder),
        "history",
        why_not=why,
    )


def result(found: Mapping[str, Any]) -> None:
    """The rows of an operation that reads, whatever their columns."""
    rows = found.get("rows") or []
    if not rows:
        look.empty("Nothing is known.")
        return
    if isinstance(rows[0], Mapping):
        names = list(dict.fromkeys(name for one in rows for name in one))
        cells = [[one.get(name) for name in names] for one in rows]
    else:
        names = [str(name) for name in found.get("columns") or range(len(rows[0]))]
        cells = rows
    heads = [Head(name.replace("_", " "), "raw") for name in names]
    shown = [Row(tuple("" if cell is None else str(cell) for cell in one)) for one in cells]
    look.table(heads, shown, "What the operation found")
