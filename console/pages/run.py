"""Run: what one run did, step by step and row by row; a failed one begins with its cause."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nicegui import background_tasks, ui

from console import look
from console.data import (
    ANY,
    DATASETS,
    OUTCOMES,
    PAGE,
    Run,
    causes,
    column_of,
    graph,
    meaning_of,
    messages,
    visits,
)
from console.look import Head, Row, div, span, tag
from console.pages import dialogs
from console.pages.rejects import examples
from hints import hints

LOOK_AGAIN = 1.0  # seconds
ADVICE = {
    "HandleGlueJobFailure": "Nothing was archived. The next run takes the same files again "
    "and repairs what this one left.",
    "HandleArchiveFailure": "The tables are written. The next run takes the files left over as "
    "duplicates and archives them.",
    "HandleCrawlerFailure": "The tables are written; the catalog does not know a new column yet. "
    "The next run crawls again.",
    "HandleValidationFailure": "The rows are in the tables. Run the failed check in SQL; going "
    "back to the run before is possible.",
}
MARKS = {
    graph.SUCCEEDED: ("✓", "ok"),
    graph.CAUGHT: ("!", "warn"),
    graph.FAILED: ("✗", "bad"),
    graph.RUNNING: ("•", "live"),
}


@dataclass(frozen=True)
class Picture:
    """All that is shown of a run, read at one time."""

    run: Run | None
    history: Sequence[Mapping[str, Any]] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[str] = ()
    manifest: Sequence[Mapping[str, Any]] = ()
    cost: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    examples: Sequence[dict[str, Any]] = ()
    last_changed: str = ""  # the newest run that changed the tables


@dataclass(frozen=True)
class Asked:
    run_id: str
    offset: int = 0
    outcome: str = ""
    dataset: str = ""

    def chosen(self, manifest: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The files of the manifest that are asked for."""
        return [
            one
            for one in manifest
            if (not self.dataset or one.get("dataset") == self.dataset)
            and (not self.outcome or one.get("outcome") == self.outcome)
        ]


def show(console: look.Console, run_id: str, offset: int, outcome: str, dataset: str) -> None:
    asked = Asked(run_id, offset, outcome, dataset)
    with look.frame(console, f"Run {look.short(run_id)}", "/runs"):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", run_id):
            look.heading("No such run")
            return
        _Page(console, asked)


class _Page:
    """The page of one run, which follows it while it runs."""

    def __init__(self, console: look.Console, asked: Asked) -> None:
        self.console, self.asked = console, asked
        self.live = div()
        self.rest = div()
        self.timer: ui.timer | None = None
        with self.live:
            div("skeleton", "Reading …", role="status")
        background_tasks.create(self._first(), context=self.live)

    async def _first(self) -> None:
        picture = await asyncio.to_thread(read, self.console, self.asked)
        self._draw(picture)
        if picture.run is not None and picture.run.running:
            with self.live.parent_slot.parent:
                self.timer = ui.timer(LOOK_AGAIN, self._again)

    async def _again(self) -> None:
        picture = await asyncio.to_thread(read, self.console, self.asked)
        self._draw(picture)
        if self.timer and not (picture.run and picture.run.running):
            self.timer.deactivate()

    def _draw(self, picture: Picture) -> None:
        self.live.clear()
        self.rest.clear()
        with self.live:
            if picture.run is None:
                look.heading("No such run", f"{self.asked.run_id} is not known here.")
                return
            _head(self.console, picture, picture.run)
        with self.rest:
            _body(self.console, picture, picture.run, self.asked)


def read(console: look.Console, asked: Asked) -> Picture:
    """Reads what there is of a run."""
    lake = console.lake
    found = lake.run(asked.run_id)
    if found is None:
        return Picture(None)
    history = lake.history(asked.run_id)
    if found.running:
        lines = lake.job_lines(asked.run_id, history)
        return Picture(found, history, lake.machine, lines)
    manifest = lake.manifest(asked.run_id)
    page = asked.chosen(manifest)[asked.offset : asked.offset + PAGE]
    newest = next((one.run_id for one in lake.recorded(1)), "")
    return Picture(
        found,
        history,
        lake.machine,
        lake.job_lines(asked.run_id, history),
        manifest,
        lake.record(asked.run_id, "cost.json") or {},
        lake.files_of(asked.run_id, [one["path"] for one in page]),
        list(found.summary.get("reject_examples") or []),
        newest,
    )


# --------------------------------------------------------------------------------------------------
# Head: what it is, how it ended, what can be done
# --------------------------------------------------------------------------------------------------
def _head(console: look.Console, picture: Picture, one: Run) -> None:
    with div("page-head"):
        with div("head-line"):
            tag("h1", "", f"{one.operation.capitalize()} {look.short(one.run_id)}")
            look.status(one.status)
            div("fill")
            _acts(console, picture, one)
        tag("p", "soft mono", one.run_id)
    if one.failed:
        _cause(picture, one)
    text = (one.summary.get("operation") or {}).get("text")
    if text:
        tag("p", "card", str(text))
    with tag("dl", "figures card"):
        files = one.summary.get("files", {})
        for name, value in {
            "began (UTC)": look.clock(one.started),
            "took": look.lasting(one.seconds),
            "files": look.count(files.get("listed")) if files else "",
            "rows read": look.count(one.total("rows_read")) if one.summary else "",
            "admitted": look.count(one.total("admitted")) if one.total("admitted") else "",
            "cost": f"${picture.cost['usd']:.4f}" if "usd" in picture.cost else "",
        }.items():
            if value:
                with div():
                    tag("dt", "", name)
                    tag("dd", "", value)


def _acts(console: look.Console, picture: Picture, one: Run) -> None:
    if one.running or one.failed or not one.summary:
        return
    with div("acts"):
        why = console.operator.why_not()
        if one.total("rejected") + one.total("parked"):
            asked = {
                "operation": "replay",
                "runs": [one.run_id],
                "statuses": ["rejected", "parked"],
            }
            look.button(
                "Replay its rejects",
                lambda: dialogs.operation(console, asked, "Replay the rejected rows of this run"),
                "replay",
                why_not=why,
            )
        if not why and picture.last_changed != one.run_id:
            why = "Only the last run that changed tables can be undone; go back to an earlier one."
        undo = {"operation": "rollback", "undo": one.run_id}
        look.button(
            "Undo this run",
            lambda: dialogs.operation(console, undo, "Undo this run"),
            "undo",
            "danger",
            why,
        )
        back = {"operation": "rollback", "to": one.run_id}
        if picture.last_changed != one.run_id:
            look.button(
                "Go back to it",
                lambda: dialogs.operation(console, back, "Go back to the state after this run"),
                "history",
                "danger",
                console.operator.why_not(),
            )


def _cause(picture: Picture, one: Run) -> None:
    found = causes(one, picture.history)
    look.problem("\n".join(found) or "The execution names no cause; its steps are below.")
    entered = graph.runs_of(picture.history)
    advice = next((text for name, text in ADVICE.items() if name in entered), "")
    if advice:
        tag("p", "card", advice)


# --------------------------------------------------------------------------------------------------
# Body
# --------------------------------------------------------------------------------------------------
def _body(console: look.Console, picture: Picture, one: Run, asked: Asked) -> None:
    if one.summary:
        _equation(one)
    if picture.manifest:
        _files(picture, asked)
    with div("grid2"):
        with div():
            if one.running:
                _graph(console, picture)
            if picture.examples:
                _reasons(one, picture.examples)
            if one.summary:
                _tables(one)
            for message in messages(picture.history):
                with look.card(message["subject"], "the message to the operators"):
                    div("log", message["message"])
        with div():
            if picture.lines:
                _log(picture.lines)
            _steps(picture)
            if one.summary:
                _timings(one)
            if picture.cost:
                _cost(picture.cost)
    if not one.running:
        _graph(console, picture)


def _equation(one: Run) -> None:
    """Rows read + admitted = the outcomes; each number leads to its rows."""
    heads = [
        Head("dataset"),
        Head("read", "n"),
        Head("+ admitted", "n"),
        *(Head(("= " if not at else "+ ") + name, "n") for at, name in enumerate(OUTCOMES)),
        Head("shares"),
        Head("", "nowrap"),
    ]
    rows = [_equation_row(one, dataset) for dataset in DATASETS]
    note = "rows read + admitted = inserted + updated + unchanged + superseded + rejected + parked"
    with look.card("Where every row went", note):
        look.table(heads, rows, "Rows of each dataset by outcome")
        for sentence in hints(one.summary):
            tag("p", "soft", sentence)


def _equation_row(one: Run, dataset: str) -> Row:
    numbers = one.summary.get("datasets", {}).get(dataset, {})
    came = int(numbers.get("rows_read") or 0) + int(numbers.get("admitted") or 0)
    outcomes = {name: int(numbers.get(name) or 0) for name in OUTCOMES}
    balanced = came == sum(outcomes.values())

    def number(name: str, value: int) -> Any:
        if not value:
            return 0
        return lambda: look.anchor(look.count(value), _rows_of(one.run_id, dataset, name), "n")

    return Row(
        (
            dataset,
            number("rows_read", int(numbers.get("rows_read") or 0)),
            number("admitted", int(numbers.get("admitted") or 0)),
            *(number(name, value) for name, value in outcomes.items()),
            lambda: look.outcome_bar(outcomes, dataset) if came else div(),
            lambda: span("balanced", "soft") if balanced else span("not balanced", "status bad"),
        )
    )


def _rows_of(run_id: str, dataset: str, name: str, path: str = "") -> str:
    """Where the rows behind a number are."""
    if name in ("rejected", "parked"):
        return look.address("/rejects", dataset=dataset, run=run_id, file=path, status=ANY)
    if name == "admitted":
        return look.address("/rejects", dataset=dataset, status="admitted")
    if path:
        return look.address("/file", path=path)
    return look.address("/run", run=run_id, dataset=dataset, outcome="loaded") + "#files"


def _reasons(one: Run, found: Sequence[dict[str, Any]]) -> None:
    with look.card("Why rows were not taken", "an example of each reason"):
        for dataset in DATASETS:
            reasons = one.summary["datasets"].get(dataset, {}).get("rejected_by_reason", {})
            for reason, rows in sorted(reasons.items(), key=lambda item: -int(item[1])):
                href = look.address(
                    "/rejects", dataset=dataset, run=one.run_id, reason=reason, status=ANY
                )
                with div("reason"):
                    with div("head-line"):
                        look.anchor(f"{dataset}: {reason}", href)
                        span(look.count(rows), "status bad")
                    tag("p", "soft", meaning_of(reason))
                    shown = [e for e in found if e["dataset"] == dataset and e["reason"] == reason]
                    examples(shown[:1], column_of(reason))


def _files(picture: Picture, asked: Asked) -> None:
    chosen = asked.chosen(picture.manifest)
    page = chosen[asked.offset : asked.offset + PAGE]
    words = [word for word in (asked.dataset, asked.outcome) if word]
    note = f"{len(chosen):,} of {len(picture.manifest):,}" + (
        f": {', '.join(words)}" if words else ""
    )
    heads = [
        Head("file", "path"),
        Head("", "nowrap"),
        Head("rows", "n"),
        *(Head(name, "n") for name in OUTCOMES),
    ]
    with look.card("Files", note) as section:
        section.props["id"] = "files"
        if words:
            look.anchor("all files", look.address("/run", run=asked.run_id))
        rows = [_file_row(asked.run_id, one, picture.counts.get(one["path"], {})) for one in page]
        look.table(heads, rows, "The files of this run")
        look.pager("/run", asked.offset, len(page), PAGE, len(chosen), run=asked.run_id)


def _file_row(run_id: str, one: Mapping[str, Any], counts: Mapping[str, str | None]) -> Row:
    path, dataset = str(one["path"]), str(one.get("dataset") or "")

    def name() -> None:
        look.anchor(path, look.address("/file", path=path))
        if one.get("detail"):
            span(str(one["detail"]).removeprefix(f"{path}: "), "file-note")

    def number(outcome: str) -> Any:
        value = int(counts.get(outcome) or 0)
        if not value:
            return 0
        return lambda: look.anchor(look.count(value), _rows_of(run_id, dataset, outcome, path), "n")

    return Row(
        (
            name,
            lambda: look.status(str(one["outcome"])),
            int(one.get("rows_read") or 0),
            *(number(outcome) for outcome in OUTCOMES),
        )
    )


def _graph(console: look.Console, picture: Picture) -> None:
    """The state machine with the way that the execution took, as an image: a picture runs no
    script, whatever stands in the names and errors that it holds."""
    if not picture.machine:
        return
    with look.card("The state machine"), div("graph"):
        runs = graph.runs_of(picture.history)
        svg = themed(graph.draw(picture.machine, runs), console.dark)
        entered = ", ".join(runs) or "none"
        tag("img", src=data_url(svg), alt=f"State machine; states entered: {entered}")


def themed(svg: str, dark: bool | None) -> str:
    """A picture in the theme of the page, not of the system, where they differ."""
    query = "@media (prefers-color-scheme: dark)"
    if dark is None:
        return svg
    return svg.replace(query, "@media all" if dark else "@media not all")


def data_url(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _steps(picture: Picture) -> None:
    states = graph.runs_of(picture.history)
    with look.card("Steps", "as the execution took them"):
        if not states:
            look.empty("AWS has forgotten this execution; its records are kept.")
            return
        with tag("ul", "steps"):
            for one in visits(picture.history):
                word = states[one["name"]].status if one["name"] in states else graph.SUCCEEDED
                if word == graph.RUNNING and one["seconds"] is not None:
                    word = graph.SUCCEEDED
                sign, kind = MARKS.get(word, MARKS[graph.SUCCEEDED])
                with tag("li"):
                    span(sign, kind, aria_hidden="true")
                    span(one["name"])
                    running = one["seconds"] is None and word == graph.RUNNING
                    span("…" if running else look.lasting(one["seconds"]), "soft")


def _log(lines: Sequence[str]) -> None:
    with look.card("The job", "its own words"):
        div("log", "\n".join(lines[-200:]))


def _tables(one: Run) -> None:
    heads = [
        Head("table"),
        Head("version", "n"),
        Head("rows", "n"),
        Head("files +", "n"),
        Head("−", "n"),
    ]
    rows = [_table_row(name, state) for name, state in one.summary.get("tables", {}).items()]
    if rows:
        with look.card("Tables after it"):
            look.table(heads, rows, "The tables after this run")


def _table_row(name: str, state: Mapping[str, Any]) -> Row:
    return Row(
        (
            lambda: look.anchor(name, look.address("/tables", table=name)),
            "" if state.get("version") is None else str(state["version"]),
            int(state.get("rows") or 0),
            int(state.get("files_added") or 0),
            int(state.get("files_removed") or 0),
        )
    )


def _timings(one: Run) -> None:
    timings = one.summary.get("timings") or {}
    if not timings:
        return
    with look.card("Where the job's time went"):
        rows = [Row((name, look.lasting(float(value)))) for name, value in timings.items()]
        look.table([Head("step"), Head("took", "n")], rows, "Seconds of each step of the job")


def _cost(cost: Mapping[str, Any]) -> None:
    with look.card("Cost", f"by AWS's list prices of {cost.get('prices', {}).get('read_on', '')}"):
        rows = [
            Row((name.replace("_", " "), f"${part['usd']:.5f}"))
            for name, part in cost.items()
            if isinstance(part, Mapping) and "usd" in part
        ]
        look.table([Head("what"), Head("US$", "n")], rows, "What the run cost")
