"""Home: upload files, see the state of the lake, and what needs a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from client.declared import DATASETS, OUTCOMES, table_of
from console import look, work
from console.data import KINDS, Attention, Lake
from console.data.files import Waiting
from console.data.runs import Run
from console.look import Head, Row, div, span, tag
from console.operations import READS_ONLY, Batch
from console.pages import dialogs
from console.pages.upload import Uploads
from facts import Manifest
from words import hints, missing_data, plural

BARS = 20
NEEDS = {"failed": 4, "rejected": 8, "parked": 4, "set_aside": 4}  # items shown of each kind


@dataclass(frozen=True)
class State:
    """The data of the page below the raw zone, read together."""

    runs: Sequence[Run]
    tables: Sequence[dict[str, Any]]
    attention: Sequence[Attention]
    hints: Sequence[str] = ()


@dataclass(frozen=True)
class Zone:
    """The files in the raw zone, and the ledger's rows of the last upload."""

    waiting: Waiting
    results: Sequence[Mapping[str, Any]] = ()
    sent: int = 0
    is_running: bool = False


def read(lake: Lake) -> State:
    runs, cards = lake.runs.recent(BARS), lake.tables.cards()
    counts = {card["table"]: card["rows"] for card in cards}
    rows = {dataset: counts[table_of(dataset).name] for dataset in DATASETS}
    return State(runs, cards, lake.attention(runs, rows), read_hints(lake, runs))


def read_hints(lake: Lake, runs: Sequence[Run]) -> list[str]:
    """Return the hints of the newest load's e-mail: data that may be missing."""
    load = next((run for run in runs if run.operation == "load" and run.summary), None)
    if load is None:
        return []
    manifest = lake.memory.get(("manifest", load.run_id), lambda: lake.runs.manifest(load.run_id))
    signs = Manifest.of(manifest)
    missing = missing_data(load.summary, signs.order_days, signs.full_pages)
    return [*hints(load.summary), *missing]


def read_zone(lake: Lake, batch: Batch | None) -> Zone:
    waiting = lake.files.waiting()
    if batch is None:
        return Zone(waiting)
    results = lake.files.results(batch.sent, batch.started)
    return Zone(waiting, results, len(batch.sent), bool(lake.runs.running()))


def show(console: look.Console) -> None:
    lake = console.lake
    with look.frame(console, "Home", "/"):
        look.heading("Lakehouse")
        parts: list[look.Part[Any]] = []

        def refresh() -> None:
            for part in parts:
                part.refresh()

        if console.operator.allowed:
            Uploads(console, refresh)
        parts.append(
            look.Part(
                console,
                lambda: read_zone(lake, console.last_upload),
                lambda zone: _zone(console, zone, refresh),
                goes_on=lambda _: True,
            )
        )
        parts.append(
            look.Part(
                console,
                lambda: read(lake),
                lambda state: _state(console, state, refresh),
                goes_on=lambda _: True,
                stamp=lake.stamp,
            )
        )


def _state(console: look.Console, state: State, refresh: Any) -> None:
    _tables(state.tables)
    with div("grid2"):
        with div():
            _bars(state.runs)
            _runs(state.runs)
        with div():
            _Needs(console, state.attention, refresh)
            if state.hints:
                with look.card("Hints", "about the newest load"):
                    for sentence in state.hints:
                        tag("p", "", sentence)


# --------------------------------------------------------------------------------------------------
# The raw zone
# --------------------------------------------------------------------------------------------------
def _zone(console: look.Console, zone: Zone, refresh: Any) -> None:
    """Show the files in the raw zone, and the result of the last upload in a sentence."""
    with look.card("Raw zone", classes="raw-zone"):
        with div("head-line"):
            span(waiting_text(zone.waiting))
            div("fill")
            why = "" if console.operator.allowed else READS_ONLY.format("start runs")
            look.button(
                console, "Run now", partial(_run_now, console, refresh), "play_arrow", "", why
            )
        if zone.sent:
            with div("head-line", role="status"):
                text = result_text(zone.results, zone.sent, zone.is_running)
                span(f"Your last upload: {text}")
                for run_id in dict.fromkeys(str(line["run_id"]) for line in zone.results):
                    look.run_link(run_id)


async def _run_now(console: look.Console, refresh: Any) -> None:
    run_id = await work.beside(console, console.operator.load)
    work.say(f"Run {look.short(run_id)} has started.")
    refresh()


def waiting_text(waiting: Waiting) -> str:
    """Return a sentence about the files in the raw zone."""
    if not waiting.paths:
        return "Empty: all files were read."
    prefix = "more than " if waiting.truncated else ""
    files = plural(len(waiting.paths), "file")
    names = ", ".join(waiting.paths[:3]) + (" …" if len(waiting.paths) > 3 else "")
    since = f", the oldest arrived {look.ago(waiting.oldest)}"
    return f"{prefix}{files} ({look.size(waiting.size)}){since}: {names}"


def result_text(results: Sequence[Mapping[str, Any]], sent: int, is_running: bool) -> str:
    """Return a sentence about the outcomes of an upload."""
    files = plural(sent, "file")
    outcomes = [str(line["outcome"]) for line in results]
    if not outcomes:
        return f"{files}; {'a run is at work' if is_running else 'no run has read them yet'}."
    if outcomes == ["duplicate"] * sent:
        return f"{files}, all delivered before."
    loaded = outcomes.count("loaded")
    rows = {name: sum(int(line[name] or 0) for line in results) for name in OUTCOMES}
    row_counts = ", ".join(f"{count:,} {name}" for name, count in rows.items() if count)
    parts = [f"{loaded:,} loaded ({row_counts or 'no rows'})"] if loaded else []
    parts += [
        f"{outcomes.count(outcome):,} {words}"
        for outcome, words in (
            ("duplicate", "delivered before"),
            ("set_aside", "set aside"),
            ("unreadable", "unreadable"),
            ("undone", "loaded and undone"),
        )
        if outcome in outcomes
    ]
    pending = sent - len(outcomes)
    parts += [f"{pending:,} not read yet"] if pending > 0 else []
    return f"{files}: {', '.join(parts)}."


# --------------------------------------------------------------------------------------------------
# State of the lake
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
            for run in reversed(runs):
                with div("", role="listitem").style("display:contents"):
                    _bar(run, most)
        with div("legend"):
            for name in OUTCOMES:
                span(name, name)
        look.glossary("outcomes")


def _bar(run: Run, most: int) -> None:
    words = (
        f"{look.short(run.run_id)}, {run.what}, {look.clock(run.started)}: {look.outcome_text(run)}"
    )
    href = look.address("/run", run=run.run_id)
    with look.anchor("", href, aria_label=words, title=words):
        rows = sum(run.total(name) for name in OUTCOMES)
        if run.running or run.failed or not rows:
            div("running" if run.running else "failed" if run.failed else "none")
            return
        height = max((rows / most) ** 0.5 * 100, 4)  # so that a small run is visible
        for name in reversed(OUTCOMES):
            if run.total(name):
                div(f"seg {name}").style(f"height: {run.total(name) / rows * height:.2f}%")


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
        rows = [_run_row(run) for run in runs[:8]]
        if rows:
            look.table(heads, rows, "The newest runs")
        look.anchor("All runs", "/runs")


class _Needs:
    """The card of everything that needs a person, the heaviest first, with buttons to dismiss."""

    def __init__(self, console: look.Console, attention: Sequence[Attention], refresh: Any) -> None:
        self.console, self.refresh = console, refresh
        items = [item for item in attention if not item.dismissed]
        dismissed = [item for item in attention if item.dismissed]
        with look.card("Needs attention", f"{len(items)} open" if items else ""):
            if not items:
                look.empty("Nothing. Every delivered row is in its table.")
            else:
                self._listed(items)
            if dismissed:
                with tag("details", "glossary"):
                    tag("summary", "", f"{len(dismissed)} dismissed")
                    for item in dismissed:
                        tag("p", "soft", f"{item.title}: {item.dismissed}")

    def _listed(self, items: Sequence[Attention]) -> None:
        shown = [item for kind in KINDS for item in _first(items, kind)]
        heads = [
            Head("", "nowrap"),
            Head("what", "path"),
            Head("rows", "n"),
            Head("of all", "n"),
            Head("oldest", "nowrap"),
            Head("", "nowrap"),
        ]
        look.table(heads, [self._row(item) for item in shown], "What needs attention")
        if len(shown) < len(items):
            look.anchor(f"{len(items) - len(shown)} more reasons", "/rejects")

    def _row(self, item: Attention) -> Row:
        query = {name: value for name, value in item.link.items() if name != "page"}
        return Row(
            (
                lambda: look.status("FAILED" if item.kind == "failed" else item.kind),
                lambda: look.anchor(item.title, look.address(item.link["page"], **query)),
                item.count,
                f"{item.share:.1%}" if item.share else "",
                look.ago(item.since),
                lambda: self._dismiss_button(item),
            )
        )

    def _dismiss_button(self, item: Attention) -> None:
        console = self.console

        async def dismiss(why: str) -> None:
            await work.beside(console, console.operator.dismiss, item, why)
            self.refresh()

        def ask() -> None:
            note = "It returns when the number grows. Others see your name and this reason."
            dialogs.ask_why(console, f"Dismiss: {item.title}", note, "Dismiss", dismiss)

        why_not = "" if console.operator.allowed else READS_ONLY.format("dismiss anything")
        button = look.button(console, "", ask, "close", why_not=why_not)
        button.props["aria-label"] = f"Dismiss {item.title}"


def _first(items: Sequence[Attention], kind: str) -> Sequence[Attention]:
    return [item for item in items if item.kind == kind][: NEEDS[kind]]


def _run_row(run: Run) -> Row:
    return Row(
        (
            lambda: look.run_link(run.run_id),
            lambda: look.run_status(run),
            run.what,
            look.ago(run.started),
            look.lasting(run.seconds),
            look.outcome_text(run),
        )
    )
