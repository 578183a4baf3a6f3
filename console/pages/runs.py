"""Runs: loads and operations, failed runs or all executions, a page at a time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from client.declared import OUTCOMES
from console import look
from console.data import Lake
from console.data.runs import Run, newest_first
from console.data.source import PAGE
from console.look import Head, Row, div, span, tag

VIEWS = {"": "Loads and operations", "failed": "Failed", "all": "All executions"}
NOTES = {
    "": "What has changed the tables, and the runs that failed. A plan changes nothing and is no "
    "run; a sweep that found no file is none either.",
    "failed": "Runs that failed or were stopped, with their cause.",
    "all": "Every execution of the state machine: runs, plans, readings, and sweeps that found "
    "nothing.",
}


@dataclass(frozen=True)
class Listed:
    runs: Sequence[Run]
    token: str = ""
    total: int | None = None
    size: int = 0  # runs of etl_runs on the page


def read(lake: Lake, view: str = "", token: str = "", offset: int = 0) -> Listed:
    """Return a page of the list."""
    if view == "all":
        page, behind = lake.executions_page(PAGE, token)
        return Listed(lake.runs.described(page), behind)
    failed = lake.runs.failed()
    if view == "failed":
        return Listed(failed)
    running = lake.runs.running() if offset == 0 else []
    recorded = lake.runs.recorded(PAGE, offset)
    total = lake.runs.count()
    between = failed_between(failed, recorded, offset == 0, offset + PAGE >= total)
    runs = {run.run_id: run for run in [*recorded, *between, *running]}
    return Listed(newest_first(runs.values()), "", total, len(recorded))


def failed_between(
    failed: Sequence[Run], recorded: Sequence[Run], newest: bool, oldest: bool
) -> list[Run]:
    """Return the failed runs that belong between the runs of a page. The newest page has no end,
    the oldest page no begin."""
    times = [run.started for run in recorded if run.started]
    first = dt.datetime.min.replace(tzinfo=dt.UTC) if oldest or not times else min(times)
    last = dt.datetime.max.replace(tzinfo=dt.UTC) if newest or not times else max(times)
    return [run for run in failed if run.started and first <= run.started <= last]


def show(console: look.Console, view: str, token: str, offset: int) -> None:
    view = view if view in VIEWS else ""
    with look.frame(console, "Runs", "/runs"):
        look.heading("Runs", NOTES[view])
        with tag("nav", "acts pager", aria_label="Which runs"):
            for name, text in VIEWS.items():
                current = {"aria_current": "page"} if name == view else {}
                look.anchor(text, look.address("/runs", view=name), **current)
        with look.card():
            look.later(
                console,
                lambda: read(console.lake, view, token, offset),
                lambda listed: _listed(listed, view, offset),
            )


def _listed(listed: Listed, view: str, offset: int) -> None:
    if not listed.runs:
        look.empty("None.")
        return
    heads = [
        Head("run", "nowrap"),
        Head("", "nowrap"),
        Head("what", "nowrap"),
        Head("began (UTC)", "nowrap"),
        Head("took", "n"),
        Head("rows", "n"),
        Head("outcomes"),
        Head("in words", "path"),
    ]
    look.table(heads, [_row(run) for run in listed.runs], "Runs, newest first")
    look.glossary("outcomes")
    if listed.token:
        with tag("nav", "pager", aria_label="Pages of the list"):
            look.anchor("older →", look.address("/runs", view=view, token=listed.token))
    elif not view:
        look.pager("/runs", offset, listed.size, PAGE, listed.total)


def _row(run: Run) -> Row:
    numbers = {name: run.total(name) for name in OUTCOMES}

    def bar() -> None:
        if any(numbers.values()):
            look.outcome_bar(numbers)
        else:
            div()

    def words() -> None:
        span(look.outcome_text(run), "cause" if run.failed else "")

    return Row(
        (
            lambda: look.run_link(run.run_id),
            lambda: look.run_status(run),
            run.what,
            look.clock(run.started),
            look.lasting(run.seconds),
            run.total("rows_read"),
            bar,
            words,
        )
    )
