"""Run: the steps, rows and files of one run; the page of a failed run begins with its cause."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from nicegui import ui

import facts
from client import mermaid
from client.declared import DATASETS, OUTCOMES, column_of, meaning_of
from console import look, work
from console.data.rejects import ANY, Filters
from console.data.runs import MAINTENANCE, Run, causes, is_plan, messages, visits
from console.data.source import PAGE
from console.data.steps import MEANING, Step, steps_of
from console.look import Head, Row, div, span, tag
from console.operations import READS_ONLY
from console.pages import dialogs
from console.pages.rejects import DOWNLOAD, download, examples
from facts import CAUGHT, FAILED, RUNNING, SUCCEEDED, runs_of
from words import STEPS, hints, plural

UNDONE = "This run was undone: its changes to the tables were taken back."
MARKS = {
    SUCCEEDED: ("✓", "ok"),
    CAUGHT: ("!", "warn"),
    FAILED: ("✗", "bad"),
    RUNNING: ("•", "live"),
}


@dataclass(frozen=True)
class Picture:
    """The data of the page, read together."""

    run: Run | None
    history: Sequence[Mapping[str, Any]] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[str] = ()
    manifest: Sequence[Mapping[str, Any]] = ()
    cost: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    examples: Sequence[dict[str, Any]] = ()
    undone: Sequence[Mapping[str, Any]] = ()  # its files in the archive that can be loaded again
    can_be_undone: bool = False
    why_not: str = ""  # why no operation can be started
    refresh: Callable[[], None] = lambda: None  # reads and shows the run again

    @property
    def still_archived(self) -> set[str]:
        """Return the paths whose load was undone and that no run has loaded since."""
        return {str(line["path"]) for line in self.undone}


@dataclass(frozen=True)
class View:
    """The run and the part of its files that the address names, and the open folds."""

    run_id: str
    offset: int = 0
    outcome: str = ""
    dataset: str = ""
    folds: set[str] = field(default_factory=set)  # titles of the open folds

    def chosen(self, manifest: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the files of the manifest that the address names by dataset and outcome."""
        return [
            file
            for file in manifest
            if (not self.dataset or file.get("dataset") == self.dataset)
            and (not self.outcome or file.get("outcome") == self.outcome)
        ]


def show(console: look.Console, run_id: str, offset: int, outcome: str, dataset: str) -> None:
    view = View(run_id, offset, outcome, dataset)
    with look.frame(console, f"Run {look.short(run_id)}", "/runs"):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", run_id):
            look.heading("No such run")
            return
        part: list[look.Part[Picture]] = []
        part.append(
            look.Part(
                console,
                lambda: read(console, view),
                lambda picture: _show(console, replace(picture, refresh=part[0].refresh), view),
                goes_on=lambda picture: picture.run is not None and picture.run.running,
            )
        )


def _show(console: look.Console, picture: Picture, view: View) -> None:
    if picture.run is None:
        look.heading("No such run", f"{view.run_id} is not known here.")
        return
    _head(console, picture, picture.run)
    _body(console, picture, picture.run, view)


def read(console: look.Console, view: View) -> Picture:
    """Read the data of a run; while it runs, only its states and its log."""
    lake = console.lake
    run = lake.runs.get(view.run_id)
    if run is None:
        return Picture(None)
    history = lake.runs.history(view.run_id)
    if run.running:
        lines = lake.runs.job_lines(view.run_id, history)
        return Picture(run, history, lake.runs.machine, lines)
    manifest = lake.runs.manifest(view.run_id)
    page = view.chosen(manifest)[view.offset : view.offset + PAGE]
    return Picture(
        run,
        history,
        lake.runs.machine,
        lake.runs.job_lines(view.run_id, history),
        manifest,
        lake.runs.record(view.run_id, "cost.json") or {},
        lake.files.of_run(view.run_id, [file["path"] for file in page]),
        list(run.summary.get("reject_examples") or []),
        lake.files.undone(view.run_id) if run.undone else [],
        lake.runs.last_change() == view.run_id,
        console.operator.why_not(),
    )


# --------------------------------------------------------------------------------------------------
# Head: kind of run, status, buttons
# --------------------------------------------------------------------------------------------------
def _head(console: look.Console, picture: Picture, run: Run) -> None:
    with div("page-head"):
        with div("head-line"):
            tag("h1", "", f"{run.what.capitalize()} {look.short(run.run_id)}")
            look.run_status(run)
            div("fill")
            _acts(console, picture, run)
        tag("p", "soft mono", run.run_id)
    if run.failed:
        _cause(picture, run)
    if run.undone:
        tag("p", "card", f"{UNDONE} {files_of_undone(picture)}".strip())
    operation_summary = run.summary.get("operation") or {}
    if operation_summary.get("text"):
        by = f" By {operation_summary['author']}." if operation_summary.get("author") else ""
        tag("p", "card", f"{operation_summary['text']}{by}")
    with tag("dl", "figures card"):
        files = run.summary.get("files", {})
        for name, value in {
            "began (UTC)": look.clock(run.started),
            "took": look.lasting(run.seconds),
            "files": look.count(files.get("listed")) if files else "",
            "rows read": look.count(run.total("rows_read")) if run.summary else "",
            "admitted": look.count(run.total("admitted")) if run.total("admitted") else "",
            "cost": f"${picture.cost['usd']:.4f}" if "usd" in picture.cost else "",
        }.items():
            if value:
                with div():
                    tag("dt", "", name)
                    tag("dd", "", value)


def _acts(console: look.Console, picture: Picture, run: Run) -> None:
    with div("acts"):
        if run.running:
            look.button(
                console,
                "Stop",
                lambda: _ask_why_stop(console, picture, run),
                "stop",
                "danger",
                "" if console.operator.allowed else READS_ONLY.format("stop runs"),
            )
        elif run.undone:
            _load_archived_button(console, picture, run)
        elif not run.failed and run.summary and not is_plan(run.run_id):
            _acts_on_work(console, picture, run)


def _ask_why_stop(console: look.Console, picture: Picture, run: Run) -> None:
    async def stop(why: str) -> None:
        await work.beside(console, console.operator.stop, run.run_id, why)
        work.say("The run is being stopped.")
        picture.refresh()

    note = (
        "The next run finishes or takes back what this one has begun, and reads its files again. "
        "Others see your name and this reason."
    )
    dialogs.ask_why(console, f"Stop {look.short(run.run_id)}", note, "Stop the run", stop, True)


def files_of_undone(picture: Picture) -> str:
    """Return a sentence about the files that an undone run had loaded."""
    loaded = sum(file["outcome"] == "loaded" for file in picture.manifest)
    archived = len(picture.undone)
    if not loaded:
        return ""
    if not archived:
        return "Later runs have loaded its files again."
    others = "" if archived == loaded else "; later runs have loaded the others again"
    in_archive = f"{archived:,} can be loaded again from the archive"
    return f"Of its {plural(loaded, 'file')}, {in_archive}{others}."


def _load_archived_button(console: look.Console, picture: Picture, run: Run) -> None:
    if picture.undone:
        files = plural(len(picture.undone), "file")
        _operation_button(
            console, picture, f"Load its {files} again", load_archived(run.run_id), "history"
        )


def load_archived(run_id: str, *paths: str) -> dict[str, Any]:
    """Return the operation that loads files of a run from the archive, all by default."""
    chosen = {"paths": list(paths)} if paths else {}
    return {"operation": "replay", "archived": {"runs": [run_id], **chosen}}


def _acts_on_work(console: look.Console, picture: Picture, run: Run) -> None:
    """Show the buttons for the rows and tables of a finished run."""
    out = run.total("rejected") + run.total("parked")
    if out:
        fix = partial(download, console, Filters(run=run.run_id))
        look.button(console, DOWNLOAD, fix, "download")
        request = {"operation": "replay", "runs": [run.run_id], "statuses": ["rejected", "parked"]}
        _operation_button(console, picture, "Replay its open rejects", request, "replay")
    if run.operation in (*MAINTENANCE, "rollback"):
        return
    if picture.can_be_undone:
        undo = {"operation": "rollback", "undo": run.run_id}
        _operation_button(console, picture, "Undo this run", undo, "undo", danger=True)
    else:
        back = {"operation": "rollback", "to": run.run_id}
        _operation_button(console, picture, "Go back to this run", back, "history", danger=True)


def _operation_button(
    console: look.Console,
    picture: Picture,
    verb: str,
    request: Mapping[str, Any],
    icon: str,
    danger: bool = False,
) -> None:
    """Show a button that opens the plan of an operation; the plan's button has the same text."""

    def show_plan() -> None:
        dialogs.operation(console, request, verb, verb, picture.refresh, danger)

    look.button(console, verb, show_plan, icon, "danger" if danger else "", picture.why_not)


def _cause(picture: Picture, run: Run) -> None:
    run_causes = causes(run, picture.history)
    look.problem("\n".join(run_causes) or "The execution names no cause; its steps are below.")
    summary = {**facts.NO_SUMMARY, **run.summary}
    report = facts.Run(run.run_id, summary, states=facts.runs_of(picture.history))
    if report.step:
        tag("p", "card", STEPS[report.step]["to_do"])


# --------------------------------------------------------------------------------------------------
# Body
# --------------------------------------------------------------------------------------------------
def _body(console: look.Console, picture: Picture, run: Run, view: View) -> None:
    if run.operation == "load":
        _six_steps(steps_of(run, runs_of(picture.history), picture.lines))
    if run.summary:
        _equation(run)
    if picture.manifest:
        _files(console, picture, view)
    with div("grid2"):
        with div():
            if picture.examples:
                _reasons(run, picture.examples)
            if run.summary:
                _tables(run)
            for message in messages(picture.history):
                with look.card(message["subject"], "the message to the operators"):
                    div("log", message["message"])
        with div():
            if picture.lines:
                _log(picture.lines)
            if run.summary:
                _timings(run)
            if picture.cost:
                _cost(picture.cost)
    _states(picture, view)


def _six_steps(steps: Sequence[Step]) -> None:
    """Show the steps in a row, with the rows or files that each passed to the next."""
    with look.card("How it went"), tag("ol", "six-steps"):
        for step in steps:
            with tag("li", step.status.replace(" ", "-"), title=MEANING[step.name]):
                span(step.name, "step-name")
                span(MEANING[step.name], "soft step-meaning")
                span(step.status, "step-status")
                if step.on:
                    span(f"{step.on} →", "on")


def _equation(run: Run) -> None:
    """Show that rows read + admitted = sum of the outcomes; each number links to its rows."""
    heads = [
        Head("dataset"),
        Head("read", "n"),
        Head("+ admitted", "n"),
        *(Head(("= " if not at else "+ ") + name, "n") for at, name in enumerate(OUTCOMES)),
        Head("shares"),
        Head("", "nowrap"),
    ]
    rows = [_equation_row(run, dataset) for dataset in DATASETS]
    note = "rows read + admitted = inserted + updated + unchanged + superseded + rejected + parked"
    with look.card("Where every row went", note):
        look.table(heads, rows, "Rows of each dataset by outcome")
        for sentence in hints(run.summary):
            tag("p", "soft", sentence)


def _equation_row(run: Run, dataset: str) -> Row:
    numbers = run.summary.get("datasets", {}).get(dataset, {})
    came = int(numbers.get("rows_read") or 0) + int(numbers.get("admitted") or 0)
    outcomes = {name: int(numbers.get(name) or 0) for name in OUTCOMES}
    balanced = came == sum(outcomes.values())

    def number(name: str, value: int) -> Any:
        if not value:
            return 0
        return lambda: look.anchor(look.count(value), _rows_of(run.run_id, dataset, name), "n")

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
    """Return the address of the rows behind a number."""
    if name in ("rejected", "parked"):
        return look.address("/rejects", dataset=dataset, run=run_id, file=path, status=ANY)
    if name == "admitted":
        return look.address("/rejects", dataset=dataset, status="admitted")
    if path:
        return look.address("/file", path=path)
    return look.address("/run", run=run_id, dataset=dataset, outcome="loaded") + "#files"


def _reasons(run: Run, reject_examples: Sequence[dict[str, Any]]) -> None:
    with look.card("Why rows were not taken", "an example of each reason"):
        for dataset in DATASETS:
            reasons = run.summary["datasets"].get(dataset, {}).get("rejected_by_reason", {})
            for reason, rows in sorted(reasons.items(), key=lambda item: -int(item[1])):
                href = look.address(
                    "/rejects", dataset=dataset, run=run.run_id, reason=reason, status=ANY
                )
                with div("reason"):
                    with div("head-line"):
                        look.anchor(f"{dataset}: {reason}", href)
                        span(look.count(rows), "status bad")
                    tag("p", "soft", meaning_of(reason))
                    shown = [
                        e
                        for e in reject_examples
                        if e["dataset"] == dataset and e["reason"] == reason
                    ]
                    examples(shown[:1], column_of(reason))


def _files(console: look.Console, picture: Picture, view: View) -> None:
    chosen = view.chosen(picture.manifest)
    page = chosen[view.offset : view.offset + PAGE]
    words = [word for word in (view.dataset, view.outcome) if word]
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
            look.anchor("all files", look.address("/run", run=view.run_id))
        rows = [_file_row(view.run_id, file, picture) for file in page]
        look.table(heads, rows, "The files of this run")
        look.glossary("files", "outcomes")
        look.pager("/run", view.offset, len(page), PAGE, len(chosen), run=view.run_id)


def _file_row(run_id: str, file: Mapping[str, Any], picture: Picture) -> Row:
    path, dataset = str(file["path"]), str(file.get("dataset") or "")
    counts = picture.counts.get(path, {})
    status = "undone_file" if path in picture.still_archived else str(file["outcome"])

    def name() -> None:
        look.anchor(path, look.address("/file", path=path))
        if file.get("detail"):
            span(str(file["detail"]).removeprefix(f"{path}: "), "file-note")

    def number(outcome: str) -> Any:
        value = int(counts.get(outcome) or 0)
        if not value:
            return 0
        return lambda: look.anchor(look.count(value), _rows_of(run_id, dataset, outcome, path), "n")

    return Row(
        (
            name,
            lambda: look.status(status),
            int(file.get("rows_read") or 0),
            *(number(outcome) for outcome in OUTCOMES),
        )
    )


def _states(picture: Picture, view: View) -> None:
    """Show the states of the execution, folded until a click: the path that it took, how long each
    state lasted, and the whole state machine. Labels contain no markup characters, and Mermaid
    sanitizes its drawings."""
    runs = runs_of(picture.history)

    def path() -> None:
        if picture.machine:
            with div("graph"):
                ui.mermaid(mermaid.path_taken(picture.machine, runs))
        _visits(picture)
        if picture.machine:
            _fold("All states", view.folds, whole)

    def whole() -> None:
        with div("graph"):
            ui.mermaid(mermaid.whole(picture.machine, runs))

    _fold("The states of the execution", view.folds, path)


def _fold(title: str, folds: set[str], draw: Callable[[], None]) -> None:
    """Show a fold that draws its content when it opens. `folds` are the titles of open folds."""
    with ui.expansion(title, value=title in folds).classes("card full") as fold:
        place = div()

    def changed() -> None:
        (folds.add if fold.value else folds.discard)(title)
        if fold.value and not place.default_slot.children:
            with place:
                draw()

    fold.on_value_change(changed)
    changed()


def _visits(picture: Picture) -> None:
    states = runs_of(picture.history)
    if not states:
        look.empty("AWS has forgotten this execution; its records are kept.")
        return
    with tag("ul", "steps"):
        for visit in visits(picture.history):
            word = states[visit["name"]].status if visit["name"] in states else SUCCEEDED
            if word == RUNNING and visit["seconds"] is not None:
                word = SUCCEEDED
            sign, kind = MARKS.get(word, MARKS[SUCCEEDED])
            with tag("li"):
                span(sign, kind, aria_hidden="true")
                span(visit["name"])
                running = visit["seconds"] is None and word == RUNNING
                span("…" if running else look.lasting(visit["seconds"]), "soft")


def _log(lines: Sequence[str]) -> None:
    with look.card("Log of the job"):
        div("log", "\n".join(lines[-200:]))


def _tables(run: Run) -> None:
    heads = [
        Head("table"),
        Head("version", "n"),
        Head("rows", "n"),
        Head("files +", "n"),
        Head("−", "n"),
    ]
    rows = [_table_row(name, state) for name, state in run.summary.get("tables", {}).items()]
    if rows:
        with look.card("Tables after it"):
            look.table(heads, rows, "The tables after this run")


def _table_row(name: str, state: Mapping[str, Any]) -> Row:
    return Row(
        (
            lambda: look.anchor(name, look.address("/tables", table=name)),
            "" if state.get("version") is None else str(state["version"]),
            "–" if state.get("rows") is None else int(state["rows"]),
            int(state.get("files_added") or 0),
            int(state.get("files_removed") or 0),
        )
    )


def _timings(run: Run) -> None:
    timings = run.summary.get("timings") or {}
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
