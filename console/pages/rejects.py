"""Rejects: rows that are in no table, the reasons, and buttons to replay, discard or fix them."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from nicegui import events, ui

import glue_etl
from client import rejects as fixes
from client.declared import column_of, meaning_of, table_of
from console import look, work
from console.data import Lake
from console.data.rejects import ANY, CORRECTED, OPEN, STATUSES, Filters
from console.look import Head, Row, div, span, tag
from console.operations import Refused
from console.pages import dialogs
from words import plural

PAGE = 25
EXAMPLE = 200  # characters shown of an example
STATUS_WORDS = {OPEN: "open", CORRECTED: "corrected since", ANY: "any"}
DOWNLOAD = "Download to fix"
NO_EFFECT = (
    "The rules are as they were when these rows were rejected, and so are the rows: a replay "
    "changes nothing. Correct the rows and upload them again."
)


@dataclass(frozen=True)
class Listed:
    groups: Sequence[Mapping[str, Any]]
    rows: Sequence[dict[str, Any]]
    total: int
    choices: Mapping[str, Mapping[str, int]]
    why_not: str = ""  # why no operation can be started


def read(lake: Lake, filters: Filters, offset: int = 0) -> Listed:
    """Return the groups, and the rows if the filters are narrow or the rows few."""
    with ThreadPoolExecutor(3) as pool:
        groups = pool.submit(lake.rejects.groups, filters)
        total = pool.submit(lake.rejects.count, filters)
        choices = pool.submit(lake.rejects.choices)
        shown = filters.narrow or total.result() <= PAGE
        rows = lake.rejects.page(filters, offset, PAGE) if shown else []
        return Listed(groups.result(), rows, total.result(), choices.result())


def show(console: look.Console, filters: Filters, offset: int) -> None:
    with look.frame(console, "Rejects", "/rejects"):
        look.heading("Rejects", "Rows that are in no table: their raw text, place and all reasons.")
        parts: list[look.Part[Listed]] = []

        def read_listed() -> Listed:
            listed = read(console.lake, filters, offset)
            return dataclasses.replace(listed, why_not=console.operator.why_not())

        def refresh() -> None:
            parts[0].refresh()

        parts.append(
            look.later(
                console,
                read_listed,
                lambda listed: _Page(console, filters, offset, listed, refresh),
            )
        )


# --------------------------------------------------------------------------------------------------
# Filters
# --------------------------------------------------------------------------------------------------
def _filters(filters: Filters, choices: Mapping[str, Mapping[str, int]]) -> None:
    def go(**changed: str) -> None:
        ui.navigate.to(look.address("/rejects", **{**dataclasses.asdict(filters), **changed}))

    texts: dict[str, ui.input] = {}

    def filter_texts() -> None:
        go(**{name: str(field.value or "") for name, field in texts.items()})

    form = tag("form", "filters", role="search", aria_label="Which rows")
    with form.on("submit.prevent", filter_texts):
        for name in ("dataset", "status", "reason"):
            _choice(name, getattr(filters, name), choices.get(name, {}), go)
        for name in ("run", "file", "text"):
            texts[name] = _text(name, getattr(filters, name))
        submit = (
            ui.button("Filter", color=None)
            .props("no-caps unelevated dense type=submit")
            .classes("act")
        )
        submit.props["aria-label"] = "Filter"
        look.anchor("clear", "/rejects")


def _choice(name: str, value: str, counts: Mapping[str, int], go: Any) -> None:
    words = STATUS_WORDS if name == "status" else {"": "any"}
    all_counts = {**counts, **({value: 0} if value not in words and value not in counts else {})}
    ordered = sorted(all_counts.items(), key=lambda item: -item[1])
    options = words | {text: f"{text} ({rows:,})" for text, rows in ordered}

    def picked(event: events.ValueChangeEventArguments) -> None:
        go(**{name: str(event.value or "")})

    select = ui.select(options, value=value, label=name, on_change=picked)
    select.props("dense outlined options-dense")


def _text(name: str, value: str) -> ui.input:
    labels = {"run": "run id", "file": "file", "text": "text in the row, or a key"}
    field = ui.input(labels[name], value=value).props("dense outlined clearable")
    return field.classes("grow") if name == "text" else field


# --------------------------------------------------------------------------------------------------
# Groups and rows, and what can be done with them
# --------------------------------------------------------------------------------------------------
class _Page:
    """The page behind the filters: groups first, then rows."""

    def __init__(
        self,
        console: look.Console,
        filters: Filters,
        offset: int,
        listed: Listed,
        refresh: Callable[[], None],
    ) -> None:
        self.console, self.filters, self.listed, self.refresh = console, filters, listed, refresh
        self.chosen: set[int] = set()
        _filters(filters, listed.choices)
        if not listed.total:
            look.empty("No row is like this.")
            return
        if not filters.reason:
            self._groups()
        if listed.rows:
            self._rows(offset)
        else:
            look.empty("Open a group to see its rows.")
        look.glossary("statuses")

    def _groups(self) -> None:
        heads = [
            Head("dataset", "nowrap"),
            Head("reason", "path"),
            Head("column", "nowrap"),
            Head("rows", "n"),
            Head("files", "n"),
            Head("examples", "raw"),
            Head(""),
        ]
        groups = plural(len(self.listed.groups), "group")
        with look.card("By reason", f"{plural(self.listed.total, 'row')} in {groups}"):
            rows = [self._group_row(group) for group in self.listed.groups]
            look.table(heads, rows, "Rows by dataset and reason")

    def _group_row(self, group: Mapping[str, Any]) -> Row:
        reason, dataset = str(group["reason"]), str(group["dataset"])
        filters = dataclasses.replace(self.filters, dataset=dataset, reason=reason)

        def link() -> None:
            href = look.address("/rejects", **dataclasses.asdict(filters))
            look.anchor(reason, href)
            span(meaning_of(reason), "file-note")

        def examples() -> None:
            for text in dict.fromkeys((group["first"], group["last"])):
                div("", str(text or "")[:EXAMPLE])

        return Row(
            (
                dataset,
                link,
                column_of(reason) or "",
                group["n"],
                group["files"],
                examples,
                lambda: self._acts(filters, group["n"]),
            )
        )

    def _rows(self, offset: int) -> None:
        with look.card(plural(self.listed.total, "row"), classes="rejects"):
            if self.filters.reason:
                tag("p", "soft", meaning_of(self.filters.reason))
                look.anchor("all groups", "/rejects")
            self._acts(self.filters, self.listed.total, self.chosen)
            span(
                "applies to the ticked rows, or to all rows of the filters if none is ticked",
                "soft",
            )
            for at, row in enumerate(self.listed.rows):
                _reject(row, at, self.chosen)
            query = dataclasses.asdict(self.filters)
            look.pager("/rejects", offset, len(self.listed.rows), PAGE, self.listed.total, **query)

    def _acts(self, filters: Filters, total: int, chosen: set[int] | None = None) -> None:
        console, why = self.console, self.listed.why_not
        if filters.status == CORRECTED:
            why = "These rows are closed."
        elif filters.text and chosen is None:
            why = "A text is no choice that a replay knows: open the group and tick its rows."
        ticked: set[int] = set() if chosen is None else chosen
        with div("acts"):
            replay = partial(self._start, filters, total, ticked)
            discard = partial(self._ask_why, filters, total, ticked)
            look.button(console, "Replay", replay, "replay", why_not=why)
            look.button(console, "Discard", discard, "block", "danger", why)
            look.button(console, DOWNLOAD, partial(download, console, filters), "download")

    def _start(self, filters: Filters, total: int, chosen: set[int], why: str = "") -> None:
        """Show the plan for the ticked rows, or for all rows of the filters if none is ticked."""
        if not chosen and filters.text:
            raise Refused("Tick the rows: a text is no choice that a replay knows.")
        rows = self._identities(chosen) if chosen else filters.request()
        request = {"operation": "replay", **rows}
        if why:
            request |= {"discard": True, "why": why}
        fix = partial(download, self.console, filters)
        instead = dialogs.Instead(NO_EFFECT, DOWNLOAD, fix)
        verb = f"{'Discard' if why else 'Replay'} {plural(len(chosen) or total, 'row')}"
        dialogs.operation(
            self.console, request, verb, verb, self.refresh, bool(why), None if why else instead
        )

    def _identities(self, chosen: set[int]) -> dict[str, Any]:
        rows = [self.listed.rows[at] for at in sorted(chosen)]
        sized = [{**row, "file_size": int(row["file_size"] or 0)} for row in rows]
        return {"rows": [{name: row[name] for name in glue_etl.ROW_IDENTITY} for row in sized]}

    def _ask_why(self, filters: Filters, total: int, chosen: set[int]) -> None:
        """Ask for the reason of a discard, which is stored with the rows."""
        count = plural(len(chosen) or total, "row")

        def go(why: str) -> None:
            self._start(filters, total, chosen, why)

        dialogs.ask_why(
            self.console,
            f"Discard {count}",
            "They stay readable, with your name and this reason, and are never replayed.",
            "Show the plan",
            go,
        )


async def download(console: look.Console, filters: Filters) -> None:
    """Download the rejected rows as a file that a person fixes and uploads again."""
    name, content = await work.beside(console, to_fix, console.lake, filters)
    ui.download.content(content, name)
    work.say("Fix the rows in a spreadsheet, and drop the file on Home: good rows close these.")


def to_fix(lake: Lake, filters: Filters) -> tuple[str, bytes]:
    """Return name and content of a CSV file with the rows; for several datasets, of a zip file with
    a CSV file for each. Raises Refused if there is nothing to fix."""
    by_dataset = fixes.rows_to_fix(lake.rejects.to_fix(filters))
    if not by_dataset:
        raise Refused("No rejected row of these can be fixed: they are closed, or hold no data.")
    contents = {}
    for dataset, rows in by_dataset.items():
        text = io.StringIO(newline="")
        fixes.write_csv(text, dataset, rows)
        contents[fixes.file_name(dataset, filters.run)] = text.getvalue().encode("utf-8-sig")
    if len(contents) == 1:
        return next(iter(contents.items()))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return "rejects-to-fix.zip", packed.getvalue()


# --------------------------------------------------------------------------------------------------
# A row
# --------------------------------------------------------------------------------------------------
def _reject(row: Mapping[str, Any], at: int, chosen: set[int]) -> None:
    place = f"{row['file_path']}:{row['line']}"
    with tag("article", "reject", aria_label=place):
        with div("head-line"):
            if row["status"] in STATUSES[OPEN]:
                tick = ui.checkbox(
                    on_change=lambda event: (chosen.add if event.value else chosen.discard)(at)
                ).props("dense size=sm")
                tick.props["aria-label"] = f"Choose {place}"
            look.status(str(row["status"]))
            with div("place-of"):
                look.anchor(place, place_of(row), "mono")
                if row["record_key"]:
                    href = look.address("/key", dataset=row["dataset"], key=row["record_key"])
                    look.anchor(f"key {row['record_key']}", href)
                look.run_link(str(row["run_id"]))
                if row["resolved_run_id"]:
                    span("settled by", "soft")
                    look.run_link(str(row["resolved_run_id"]))
        if row["why"]:
            tag("p", "soft", f"Discarded by {row['author']}: {row['why']}")
        for reason in row["reasons"]:
            with div("rules"):
                span(reason, "chip bad" if row["status"] == "rejected" else "chip")
                span(meaning_of(reason))
        raw(row)


def place_of(row: Mapping[str, Any]) -> str:
    """Return the address of a row in its file."""
    return look.address("/file", path=row.get("file_path"), line=row.get("line"))


def raw(row: Mapping[str, Any]) -> None:
    """Show the values of a row by column, broken ones marked, then its raw text; the text alone if
    the number of fields differs from the header's."""
    broken = {column_of(reason) for reason in row["reasons"]}
    fields = row["fields"] or {}
    order = table_of(row["dataset"]).column_names if fields else []
    names = [name for name in order if name in fields] + [n for n in fields if n not in order]
    if names:
        with div("fields", tabindex="0", role="group", aria_label="The row by column"):
            for name in names:
                with div("broken" if name in broken else ""):
                    span(name, "name")
                    span("" if fields[name] is None else str(fields[name]), "value")
    tag("pre", "raw" if names else "raw alone", row["raw"] or "", tabindex="0")


def examples(rows: Sequence[Mapping[str, Any]], column: str | None) -> None:
    """Show examples of a summary: file, line and raw text."""
    for row in rows:
        place = f"{row.get('file_path')}:{row.get('line')}"
        with div("head-line"):
            look.anchor(place, place_of(row), "mono")
            if column:
                span(column, "chip bad")
        tag("pre", "raw", str(row.get("raw") or ""))


def listing(rejected_rows: Sequence[Mapping[str, Any]], caption: str) -> None:
    """Show rejected rows as a short table."""
    heads = [
        Head("", "nowrap"),
        Head("reasons", "path"),
        Head("place", "path"),
        Head("raw", "raw"),
        Head("settled by", "nowrap"),
    ]
    rows = [_short_row(row) for row in rejected_rows]
    look.table(heads, rows, caption)


def _short_row(row: Mapping[str, Any]) -> Row:
    return Row(
        (
            lambda: look.status(str(row["status"])),
            ", ".join(row["reasons"]),
            lambda: look.anchor(f"{row['file_path']}:{row['line']}", place_of(row), "mono"),
            str(row["raw"] or ""),
            lambda: look.run_link(row["resolved_run_id"]) if row["resolved_run_id"] else span(""),
        )
    )
