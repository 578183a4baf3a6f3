"""Rejects: rows that are in no table, why, and what can be done about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from nicegui import events, ui

import glue_etl
from console import look
from console.data import ANY, OPEN, Filters, Lake, column_of, meaning_of, table_of
from console.look import Head, Row, div, span, tag
from console.pages import dialogs

PAGE = 25
OPEN_STATUS = ("rejected", "parked")


@dataclass(frozen=True)
class Listed:
    rows: Sequence[dict[str, Any]]
    total: int
    choices: Mapping[str, Mapping[str, int]]


def read(lake: Lake, filters: Filters, offset: int = 0) -> Listed:
    with ThreadPoolExecutor(3) as pool:
        rows = pool.submit(lake.rejects, filters, offset, PAGE)
        total = pool.submit(lake.count_rejects, filters)
        choices = pool.submit(lake.reject_choices)
        return Listed(rows.result(), total.result(), choices.result())


def show(console: look.Console, filters: Filters, offset: int) -> None:
    with look.frame(console, "Rejects", "/rejects"):
        look.heading("Rejects", "Rows that are in no table: their raw text, place and all reasons.")
        look.later(
            lambda: read(console.lake, filters, offset),
            lambda found: _page(console, filters, offset, found),
        )


def _page(console: look.Console, filters: Filters, offset: int, found: Listed) -> None:
    _filters(filters, found.choices)
    chosen: set[int] = set()
    with look.card(f"{found.total:,} rows", classes="rejects"):
        if filters.reason:
            tag("p", "soft", meaning_of(filters.reason))
        if not found.rows:
            look.empty("No row is like this.")
            return
        _acts(console, filters, found, chosen)
        for at, one in enumerate(found.rows):
            _reject(one, at, chosen)
        query = dataclasses.asdict(filters)
        look.pager("/rejects", offset, len(found.rows), PAGE, found.total, **query)


# --------------------------------------------------------------------------------------------------
# Filters
# --------------------------------------------------------------------------------------------------
def _filters(filters: Filters, choices: Mapping[str, Mapping[str, int]]) -> None:
    def go(**changed: str) -> None:
        ui.navigate.to(look.address("/rejects", **{**dataclasses.asdict(filters), **changed}))

    texts: dict[str, ui.input] = {}

    def filter_texts() -> None:
        go(**{name: str(one.value or "") for name, one in texts.items()})

    form = tag("form", "filters", role="search", aria_label="Which rows")
    with form.on("submit.prevent", filter_texts):
        for name in ("dataset", "status", "reason"):
            _choice(name, getattr(filters, name), choices.get(name, {}), go)
        for name in ("run", "file", "text"):
            texts[name] = _text(name, getattr(filters, name))
        made = (
            ui.button("Filter", color=None)
            .props("no-caps unelevated dense type=submit")
            .classes("act")
        )
        made.props["aria-label"] = "Filter"
        look.anchor("clear", "/rejects")


def _choice(name: str, value: str, counts: Mapping[str, int], go: Any) -> None:
    words = {OPEN: "open", ANY: "any"} if name == "status" else {"": "any"}
    known = {**counts, **({value: 0} if value not in words and value not in counts else {})}
    ordered = sorted(known.items(), key=lambda item: -item[1])
    options = words | {text: f"{text} ({rows:,})" for text, rows in ordered}

    def picked(event: events.ValueChangeEventArguments) -> None:
        go(**{name: str(event.value or "")})

    made = ui.select(options, value=value, label=name, on_change=picked)
    made.props("dense outlined options-dense")


def _text(name: str, value: str) -> ui.input:
    labels = {"run": "run id", "file": "file", "text": "text in the row, or a key"}
    made = ui.input(labels[name], value=value).props("dense outlined clearable")
    return made.classes("grow") if name == "text" else made


# --------------------------------------------------------------------------------------------------
# What can be done
# --------------------------------------------------------------------------------------------------
def _acts(console: look.Console, filters: Filters, found: Listed, chosen: set[int]) -> None:
    def rows() -> dict[str, Any]:
        """The rows ticked, or all that the filters name."""
        if chosen:
            rows = [found.rows[at] for at in sorted(chosen)]
            sized = [{**row, "file_size": int(row["file_size"] or 0)} for row in rows]
            return {"rows": [{name: row[name] for name in glue_etl.ROW_IDENTITY} for row in sized]}
        return filters.request()

    why = console.operator.why_not()

    def start(discard: str = "") -> None:
        if not chosen and filters.text:
            ui.notify("Tick the rows: a text is no choice that a replay knows.", type="warning")
            return
        words = f"{len(chosen)} rows" if chosen else f"all {found.total:,} rows of the filter"
        verb = "Close" if discard else "Replay"
        asked = {"operation": "replay", **rows()}
        if discard:
            asked |= {"discard": True, "why": discard}
        dialogs.operation(console, asked, f"{verb} {words}", lambda _: ui.navigate.reload())

    with div("acts"):
        look.button("Replay", lambda: start(), "replay", why_not=why)
        look.button("Discard", lambda: _ask_why(start), "block", "danger", why)
        span("the rows that are ticked; where none is, all that the filters name", "soft")


def _ask_why(start: Any) -> None:
    """Rejects are closed for good with a reason, which is kept."""
    with ui.dialog() as dialog, ui.card().classes("plan"):
        tag("h2", "", "Close rejected rows for good")
        tag(
            "p",
            "soft",
            "They stay readable, with your name and this reason, and are never replayed.",
        )
        why = ui.input("Why").props("outlined dense autofocus").classes("full")

        def go() -> None:
            if str(why.value or "").strip():
                dialog.close()
                start(str(why.value).strip())

        with div("acts"):
            look.button("Show the plan", go, "", "main-act")
            look.button("Cancel", dialog.close)
    dialog.open()


# --------------------------------------------------------------------------------------------------
# A row
# --------------------------------------------------------------------------------------------------
def _reject(one: Mapping[str, Any], at: int, chosen: set[int]) -> None:
    place = f"{one['file_path']}:{one['line']}"
    with tag("article", "reject", aria_label=place):
        with div("head-line"):
            if one["status"] in OPEN_STATUS:
                tick = ui.checkbox(
                    on_change=lambda event: (chosen.add if event.value else chosen.discard)(at)
                ).props("dense size=sm")
                tick.props["aria-label"] = f"Choose {place}"
            look.status(str(one["status"]))
            with div("place-of"):
                look.anchor(place, look.address("/file", path=one["file_path"]), "mono")
                if one["record_key"]:
                    href = look.address("/key", dataset=one["dataset"], key=one["record_key"])
                    look.anchor(f"key {one['record_key']}", href)
                look.run_link(str(one["run_id"]))
                if one["resolved_run_id"]:
                    span("settled by", "soft")
                    look.run_link(str(one["resolved_run_id"]))
        for reason in one["reasons"]:
            with div("rules"):
                span(reason, "chip bad" if one["status"] == "rejected" else "chip")
                span(meaning_of(reason))
        raw(one)


def raw(one: Mapping[str, Any]) -> None:
    """The raw text below the header's names and values, the broken ones marked; the text alone
    where the row has not the header's fields."""
    broken = {column_of(reason) for reason in one["reasons"]}
    fields = one["fields"] or {}
    order = table_of(one["dataset"]).column_names if fields else []
    names = [name for name in order if name in fields] + [n for n in fields if n not in order]
    if names:
        with div("fields", tabindex="0", role="group", aria_label="The row by column"):
            for name in names:
                with div("broken" if name in broken else ""):
                    span(name, "name")
                    span("" if fields[name] is None else str(fields[name]), "value")
    tag("pre", "raw" if names else "raw alone", one["raw"] or "", tabindex="0")


def examples(found: Sequence[Mapping[str, Any]], column: str | None) -> None:
    """Rows as a summary quotes them: file, line and raw text."""
    for one in found:
        place = f"{one.get('file_path')}:{one.get('line')}"
        with div("head-line"):
            look.anchor(place, look.address("/file", path=one.get("file_path")), "mono")
            if column:
                span(column, "chip bad")
        tag("pre", "raw", str(one.get("raw") or ""))


def listing(found: Sequence[Mapping[str, Any]], caption: str) -> None:
    """Rejected rows as a short table."""
    heads = [
        Head("", "nowrap"),
        Head("reasons", "path"),
        Head("place", "path"),
        Head("raw", "raw"),
        Head("settled by", "nowrap"),
    ]
    rows = [_short_row(one) for one in found]
    look.table(heads, rows, caption)


def _short_row(one: Mapping[str, Any]) -> Row:
    return Row(
        (
            lambda: look.status(str(one["status"])),
            ", ".join(one["reasons"]),
            lambda: look.anchor(
                f"{one['file_path']}:{one['line']}",
                look.address("/file", path=one["file_path"]),
                "mono",
            ),
            str(one["raw"] or ""),
            lambda: look.run_link(one["resolved_run_id"]) if one["resolved_run_id"] else span(""),
        )
    )
