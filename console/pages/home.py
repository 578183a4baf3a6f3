"""Home: bring files, see how it stands, and what needs a person."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nicegui import events, ui

from console import look
from console.data import OUTCOMES, Attention, Lake, Run
from console.look import Head, Row, div, span, tag
from console.operations import Refused, dataset_of

BARS = 20
LOOK_AGAIN = 2.0  # seconds
NEEDS = {"failed": 4, "set_aside": 4, "rejected": 8, "parked": 4}  # so many of each are shown


@dataclass
class Staged:
    """A file that is chosen and not uploaded yet."""

    path: str
    file: ui.upload.FileUpload


@dataclass(frozen=True)
class State:
    """What the page shows, read at one time."""

    runs: Sequence[Run]
    tables: Sequence[dict[str, Any]]
    attention: Sequence[Attention]


def read(lake: Lake) -> State:
    runs = lake.recent(BARS)
    return State(runs, lake.table_cards(runs), lake.attention(runs))


def show(console: look.Console) -> None:
    lake = console.lake
    with look.frame(console, "Home", "/"):
        look.heading("Lakehouse")
        _upload(console)
        seen: dict[str, Any] = {}

        def read_now() -> State:
            seen["stamp"] = lake.stamp()
            return read(lake)

        holder = div()

        def refresh() -> None:
            holder.clear()
            with holder:
                look.later(read_now, _state)

        async def look_again() -> None:
            if "stamp" not in seen or await asyncio.to_thread(lake.stamp) == seen["stamp"]:
                return
            del seen["stamp"]
            state = await asyncio.to_thread(read_now)
            if not holder.is_deleted:
                holder.clear()
                with holder:
                    _state(state)

        refresh()
        ui.timer(LOOK_AGAIN, look_again)


def _state(state: State) -> None:
    _tables(state.tables)
    with div("grid2"):
        with div():
            _bars(state.runs)
            _runs(state.runs)
        _attention(state.attention)


# --------------------------------------------------------------------------------------------------
# Uploads
# --------------------------------------------------------------------------------------------------
def _upload(console: look.Console) -> None:
    if not console.operator.allowed:
        return
    staged: list[Staged] = []

    @ui.refreshable
    def listed() -> None:
        for one in staged:
            _staged_row(one, staged, listed.refresh)
        if staged:
            word = "file" if len(staged) == 1 else "files"
            text = f"Upload {len(staged)} {word} to the raw zone"
            with div("acts"):
                look.button(
                    text, lambda: _send(console, staged, listed.refresh), "upload", "main-act"
                )
                look.button("Clear", clear)

    def clear() -> None:
        staged.clear()
        listed.refresh()

    async def came(event: events.MultiUploadEventArguments) -> None:
        staged.extend(Staged(file.name, file) for file in event.files)
        listed.refresh()
        made.reset()

    with look.card(classes="drop"):
        made = ui.upload(
            label="Drop CSV files here",
            multiple=True,
            auto_upload=True,
            on_multi_upload=came,
        ).props("flat")
        pick = look.button("Choose files", lambda: None, "add")
        pick.on("click", js_handler=f"() => getElement({made.id}).$refs.qRef.pickFiles()")
        listed()


def _staged_row(one: Staged, staged: list[Staged], changed: Any) -> None:
    with div("staged"):
        field = ui.input(value=one.path).props("dense outlined")
        field.props["aria-label"] = f"Path of {one.file.name} in the raw zone"
        with div() as told:
            _dataset(one.path)

        def renamed(event: events.ValueChangeEventArguments) -> None:
            one.path = str(event.value or "")
            told.clear()
            with told:
                _dataset(one.path)

        field.on_value_change(renamed)
        span(look.size(one.file.size()), "soft size")

        def leave_out() -> None:
            staged.remove(one)
            changed()

        gone = ui.button(icon="close", on_click=leave_out, color=None)
        gone.props("flat round dense size=sm")
        gone.props["aria-label"] = f"Leave {one.file.name} out"


def _dataset(path: str) -> None:
    """The dataset that the job will take the file for."""
    found = dataset_of(path)
    if found:
        span(found, "status good")
    else:
        word = span("no dataset", "status warn")
        word.props["title"] = "begin the name with products, orders or order_items"


async def _send(console: look.Console, staged: list[Staged], changed: Any) -> None:
    for one in list(staged):
        try:
            await _send_one(console, one)
        except Refused as error:
            ui.notify(str(error), type="negative")
            return
        staged.remove(one)
        changed()
    ui.notify("Uploaded. The run begins by itself within the batching window.", type="positive")


async def _send_one(console: look.Console, one: Staged) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        await one.file.save(path)

        def work() -> None:
            with path.open("rb") as stream:
                console.operator.upload(one.path, stream)

        await asyncio.to_thread(work)


# --------------------------------------------------------------------------------------------------
# How it stands
# --------------------------------------------------------------------------------------------------
def _tables(cards: Sequence[dict[str, Any]]) -> None:
    with div("grid3"):
        for card in cards:
            with look.card(classes="table-card"):
                with div("card-head"):
                    with tag("h2"):
                        look.anchor(card["table"], look.address("/tables", table=card["table"]))
                with tag("dl", "figures"):
                    with div():
                        tag("dt", "", "rows")
                        tag("dd", "", look.count(card["rows"]))
                    with div():
                        tag("dt", "", "last changed")
                        tag("dd", "small", look.ago(card["changed"]) or "never")
                    with div():
                        tag("dt", "", "by run")
                        with tag("dd", "small"):
                            if card["run"]:
                                look.run_link(card["run"])


def _bars(runs: Sequence[Run]) -> None:
    with look.card("The last runs", "rows by outcome, newest to the right", "bars"):
        if not runs:
            look.empty("No run yet. Drop files above: the upload starts one.")
            return
        most = max((sum(run.total(name) for name in OUTCOMES) for run in runs), default=0) or 1
        with div("runs", role="list"):
            for one in reversed(runs):
                with div("", role="listitem").style("display:contents"):
                    _bar(one, most)
        with div("legend"):
            for name in OUTCOMES:
                span(name, name)


def _bar(one: Run, most: int) -> None:
    words = (
        f"{look.short(one.run_id)}, {one.operation}, {look.clock(one.started)}: {look.told(one)}"
    )
    href = look.address("/run", run=one.run_id)
    with look.anchor("", href, aria_label=words, title=words):
        rows = sum(one.total(name) for name in OUTCOMES)
        if one.running or one.failed or not rows:
            div("running" if one.running else "failed" if one.failed else "none")
            return
        height = max((rows / most) ** 0.5 * 100, 4)  # a small run beside a large one can be seen
        for name in reversed(OUTCOMES):
            if one.total(name):
                div(f"seg {name}").style(f"height: {one.total(name) / rows * height:.2f}%")


def _runs(runs: Sequence[Run]) -> None:
    with look.card("Runs"):
        heads = [
            Head("run"),
            Head("", "nowrap"),
            Head("what", "nowrap"),
            Head("began", "nowrap"),
            Head("took", "n"),
            Head("outcome"),
        ]
        rows = [_run_row(one) for one in runs[:8]]
        if rows:
            look.table(heads, rows, "The newest runs")
        look.anchor("All runs", "/runs")


def _attention(found: Sequence[Attention]) -> None:
    with look.card("Needs attention", f"{len(found)} open" if found else ""):
        if not found:
            look.empty("Nothing. Every row that came is in its table.")
            return
        shown = [one for kind in NEEDS for one in _first(found, kind)]
        rows = [_attention_row(one) for one in shown]
        heads = [
            Head("", "nowrap"),
            Head("what", "path"),
            Head("rows", "n"),
            Head("oldest", "nowrap"),
        ]
        look.table(heads, rows, "What needs attention")
        if len(shown) < len(found):
            look.anchor(f"{len(found) - len(shown)} more reasons", "/rejects")


def _first(found: Sequence[Attention], kind: str) -> Sequence[Attention]:
    return [one for one in found if one.kind == kind][: NEEDS[kind]]


def _attention_row(one: Attention) -> Row:
    query = {name: value for name, value in one.link.items() if name != "page"}
    return Row(
        (
            lambda: look.status("FAILED" if one.kind == "failed" else one.kind),
            lambda: look.anchor(one.title, look.address(one.link["page"], **query)),
            one.count,
            look.ago(one.since),
        )
    )


def _run_row(one: Run) -> Row:
    return Row(
        (
            lambda: look.run_link(one.run_id),
            lambda: look.status(one.status),
            one.operation,
            look.ago(one.started),
            look.lasting(one.seconds),
            look.told(one),
        )
    )
