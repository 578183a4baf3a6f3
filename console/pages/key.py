"""Key: the row that a table holds for a key, its rejects, and each delivered version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from client.declared import DATASETS, table_of
from client.history import History
from client.render import of_rows
from console import look
from console.look import Head, Row, div, tag
from console.pages import rejects


@dataclass(frozen=True)
class Life:
    row: Mapping[str, str | None] | None
    rejects: Sequence[dict[str, Any]]


def show(console: look.Console, dataset: str, key: str) -> None:
    dataset = dataset if dataset in DATASETS else "orders"
    lake = console.lake
    with look.frame(console, f"Key {key}" if key else "Keys", "/key"):
        look.heading(
            f"{dataset} {key}" if key else "Keys",
            "What the table holds for a key, and where it came from.",
        )
        _ask(dataset, key)
        if key:
            look.later(
                console,
                lambda: Life(lake.tables.row(dataset, key), lake.rejects.of_key(dataset, key)),
                lambda life: _life(console, dataset, key, life),
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


def _life(console: look.Console, dataset: str, key: str, life: Life) -> None:
    table = table_of(dataset)
    with look.card(f"In {table.name} now", f"by its key {table.key}"):
        if life.row is None:
            look.empty("The table holds no row with this key.")
        else:
            columns = {column.name: column.meaning for column in table.columns}
            rows = [Row((name, value, columns[name])) for name, value in life.row.items()]
            heads = [Head("column", "nowrap"), Head("value", "raw"), Head("meaning", "path")]
            look.table(heads, rows, "The row by column")
    with look.card("Rejected or parked"):
        if life.rejects:
            rejects.listing(life.rejects, "Rejected and parked rows of this key")
            look.glossary("statuses")
        else:
            look.empty("No row of this key was ever rejected or parked.")
    with look.card("Every delivered version", "read from the table's log and the archived files"):
        _history(console, table.name, key)


def _history(console: look.Console, table: str, key: str) -> None:
    holder = div()

    def read() -> None:
        holder.clear()
        with holder:
            look.later(console, lambda: console.lake.tables.history_of_key(table, key), result)

    look.button(console, "Show each version", read, "history")


def result(history: History) -> None:
    """Show a history: its sentence, then its rows with a column for each name."""
    answer = history.plain()
    tag("p", "soft", answer["text"])
    if not answer["rows"]:
        look.empty("The table never contained this key, and no row of it was rejected.")
        return
    caption = "Each version, what lost against it, and what was rejected"
    look.text_table(of_rows(answer["rows"]), caption, "raw")
