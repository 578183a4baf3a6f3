"""Tables: what a column means, what lies in each partition, and which run made which version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from console import look
from console.data import DATASETS, table_of
from console.look import Head, Row, div, span, tag
from console.pages import dialogs

SMALL = 4 << 20  # bytes of a file, below which it counts as small
SMALL_FILES = 5  # so many in a partition are worth an optimize
PARTITIONS = 60  # shown at first


def show(console: look.Console, name: str) -> None:
    names = {table_of(dataset).name: dataset for dataset in DATASETS}
    name = name if name in names else next(iter(names))
    lake, dataset = console.lake, names[name]
    with look.frame(console, name, "/tables"):
        with div("page-head head-line"):
            tag("h1", "", name)
            div("fill")
            asked = {"operation": "optimize", "tables": [name]}
            look.button(
                "Optimize",
                lambda: dialogs.operation(console, asked, f"Optimize {name}"),
                "compress",
                why_not=console.operator.why_not(),
            )
        with tag("nav", "acts pager", aria_label="Tables"):
            for one in names:
                current = {"aria_current": "page"} if one == name else {}
                look.anchor(one, look.address("/tables", table=one), "mono", **current)
        _columns(dataset)
        with div("grid2"):
            with look.card("Versions", "by the run that made them"):
                look.later(lambda: lake.versions(name), _versions)
            with look.card("Partitions", "newest first"):
                look.later(lambda: lake.partitions(dataset), _partitions)


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


def _versions(found: Sequence[Mapping[str, Any]]) -> None:
    if not found:
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
    rows = [_version_row(one) for one in found]
    look.table(heads, rows, "Versions of the table, newest first")


def _version_row(one: Mapping[str, Any]) -> Row:
    return Row(
        (
            "" if one["version"] is None else str(one["version"]),
            lambda: look.run_link(one["run"].run_id),
            one["run"].operation,
            look.clock(one["run"].ended),
            "" if one["rows"] is None else int(one["rows"]),
            int(one["files_added"]),
            int(one["files_removed"]),
            len(one["dates"]),
        )
    )


def _partitions(found: Sequence[Mapping[str, Any]]) -> None:
    if not found:
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
                one["part"] or "(whole table)",
                one["rows"],
                one["files"],
                look.size(one["bytes"]),
                "many small files" if _fragmented(one) else "",
            )
        )
        for one in found[:PARTITIONS]
    ]
    many = sum(map(_fragmented, found))
    totals = {name: sum(one[name] for one in found) for name in ("rows", "files", "bytes")}
    total = f"{len(found):,} partitions, {totals['files']:,} files, {look.size(totals['bytes'])}"
    tag("p", "soft", total + (f"; {many} worth an optimize" if many else ""))
    look.table(heads, rows, "Partitions of the table")


def _fragmented(one: Mapping[str, Any]) -> bool:
    return one["files"] >= SMALL_FILES and one["bytes"] / one["files"] < SMALL
