"""Tables: columns with their meaning, partitions, and versions with the runs that wrote them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from nicegui import ui

from client.declared import DATASETS, names_and_columns, table_of
from console import look
from console.data.runs import Run
from console.look import Head, Row, div, span, tag
from console.pages import dialogs

SMALL = 4 << 20  # bytes; a file below is small
SMALL_FILES = 5  # small files of a partition that make an optimize worthwhile
PARTITIONS = 60  # partitions shown
RECORDS = {
    "rejected_records": "rows that are in no table, and what became of them",
    "ingested_files": "the ledger: every file that a run has taken",
    "etl_runs": "every load and operation that changed the tables",
    "corrections": "each row that the operation sql has changed, before and after",
}


def show(console: look.Console, name: str) -> None:
    name = name if name in names_and_columns() else table_of("products").name
    lake, dataset = console.lake, next((d for d in DATASETS if table_of(d).name == name), "")
    with look.frame(console, name, "/tables"):
        with div("page-head head-line"):
            tag("h1", "", name)
            div("fill")
            look.anchor("Query it", look.address("/sql", query=f"SELECT * FROM {name} LIMIT 100"))
            if dataset:
                look.later(
                    console, console.operator.why_not, lambda why: _optimize(console, name, why)
                )
        with tag("nav", "acts pager", aria_label="Tables"):
            for table_name in names_and_columns():
                current = {"aria_current": "page"} if table_name == name else {}
                look.anchor(
                    table_name, look.address("/tables", table=table_name), "mono", **current
                )
        if dataset:
            _columns(dataset)
        else:
            _record_columns(name)
        with div("grid2"):
            with look.card("Versions", "by the runs that changed it"):
                look.later(console, lambda: lake.tables.versions(name), _versions)
            with look.card("Partitions", "newest first"):
                look.later(console, lambda: lake.tables.partitions(name), _partitions)


def _optimize(console: look.Console, name: str, why_not: str) -> None:
    request, verb = {"operation": "optimize", "tables": [name]}, f"Optimize {name}"

    def show_plan() -> None:
        dialogs.operation(console, request, verb, verb, ui.navigate.reload)

    look.button(console, "Optimize", show_plan, "compress", why_not=why_not)


def _record_columns(name: str) -> None:
    rows = [
        Row((partial(span, column, "mono"), kind)) for column, kind in names_and_columns()[name]
    ]
    with look.card("Columns", RECORDS.get(name, "")):
        look.table([Head("column"), Head("type", "path")], rows, "The columns of the table")


def _columns(dataset: str) -> None:
    table = table_of(dataset)
    parents = {parent.column: parent for parent in table.parents}
    heads = [
        Head("column", "nowrap"),
        Head("type", "nowrap"),
        Head("meaning", "path"),
        Head("rule", "path"),
    ]
    rows = [_column_row(table, column, parents.get(column.name)) for column in table.columns]
    with look.card("Columns", f"fed by files of {dataset}; as the job declares them"):
        look.table(heads, rows, "The columns of the table")


def _column_row(table: Any, column: Any, parent: Any) -> Row:
    rules = {
        "the key": column.name == table.key,
        "not blank": column.required,
        "partition": column.name == table.partition,
        "the newest wins": column.name == table.version,
    }
    words = [word for word, holds in rules.items() if holds]
    words += [f"refers to {table_of(parent.dataset).name}"] if parent else []
    return Row(
        (
            lambda: span(column.name, "mono"),
            column.type.lower(),
            column.meaning,
            ", ".join(words),
        )
    )


def _versions(versions: Sequence[Mapping[str, Any]]) -> None:
    if not versions:
        look.empty("No run has written it yet.")
        return
    heads = [
        Head("version", "n"),
        Head("run", "nowrap"),
        Head("what", "nowrap"),
        Head("when (UTC)", "nowrap"),
        Head("rows", "n"),
        Head("files +", "n"),
        Head("−", "n"),
        Head("days touched", "n"),
    ]
    rows = [_version_row(version) for version in versions]
    look.table(heads, rows, "Versions of the table, newest first")


def _version_row(version: Mapping[str, Any]) -> Row:
    return Row(
        (
            "" if version["version"] is None else str(version["version"]),
            lambda: _run(version["run"]),
            version["run"].what,
            look.clock(version["run"].ended),
            "" if version["rows"] is None else int(version["rows"]),
            int(version["files_added"]),
            int(version["files_removed"]),
            days_in(version.get("dates") or []),
        )
    )


def _run(run: Run) -> None:
    look.run_link(run.run_id)
    if run.undone:
        look.run_status(run)


def days_in(spans: Sequence[Sequence[str]]) -> int:
    """Return the number of days in spans [first, last]; a span without dates counts as one day."""
    days = 0
    for first, last in spans:
        try:
            days += (dt.date.fromisoformat(last) - dt.date.fromisoformat(first)).days + 1
        except ValueError:
            days += 1
    return days


def _partitions(partitions: Sequence[Mapping[str, Any]]) -> None:
    if not partitions:
        look.empty("It holds nothing yet.")
        return
    heads = [
        Head("partition", "nowrap"),
        Head("rows", "n"),
        Head("files", "n"),
        Head("size", "n"),
        Head(""),
    ]
    rows = [
        Row(
            (
                partition["part"] or "(whole table)",
                partition["rows"],
                partition["files"],
                look.size(partition["bytes"]),
                "many small files" if _fragmented(partition) else "",
            )
        )
        for partition in partitions[:PARTITIONS]
    ]
    many = sum(map(_fragmented, partitions))
    totals = {
        name: sum(partition[name] for partition in partitions)
        for name in ("rows", "files", "bytes")
    }
    total = (
        f"{len(partitions):,} partitions, {totals['files']:,} files, {look.size(totals['bytes'])}"
    )
    tag("p", "soft", total + (f"; {many} worth an optimize" if many else ""))
    look.table(heads, rows, "Partitions of the table")


def _fragmented(partition: Mapping[str, Any]) -> bool:
    return partition["files"] >= SMALL_FILES and partition["bytes"] / partition["files"] < SMALL
