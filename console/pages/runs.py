"""Runs: all of them, or those that failed, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from console import look
from console.data import ENDED_BADLY, OUTCOMES, PAGE, Lake, Run
from console.look import Head, Row, div, tag

VIEWS = {"": "Loads and operations", "failed": "Failed", "all": "All executions"}


@dataclass(frozen=True)
class Listed:
    runs: Sequence[Run]
    token: str = ""
    total: int | None = None


def read(lake: Lake, view: str = "", token: str = "", offset: int = 0) -> Listed:
    """A page of the list."""
    if not view:
        return Listed(lake.recorded(PAGE, offset), "", lake.runs_recorded())
    if view == "all":
        page, behind = lake.executions_page(PAGE, token)
        return Listed(lake.described(page), behind)
    found = [one for word in ENDED_BADLY for one in lake.executions(PAGE, word)]
    newest = sorted(found, key=lambda one: one["startDate"], reverse=True)[:PAGE]
    return Listed(lake.described(newest))


def show(console: look.Console, view: str, token: str, offset: int) -> None:
    view = view if view in VIEWS else ""
    with look.frame(console, "Runs", "/runs"):
        look.heading("Runs")
        with tag("nav", "acts pager", aria_label="Which runs"):
            for name, text in VIEWS.items():
                current = {"aria_current": "page"} if name == view else {}
                look.anchor(text, look.address("/runs", view=name), **current)
        with look.card():
            look.later(
                lambda: read(console.lake, view, token, offset),
                lambda found: _listed(found, view, offset),
            )


def _listed(found: Listed, view: str, offset: int) -> None:
    if not found.runs:
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
    look.table(heads, [_row(one) for one in found.runs], "Runs, newest first")
    if found.token:
        with tag("nav", "pager", aria_label="Pages of the list"):
            look.anchor("older →", look.address("/runs", view=view, token=found.token))
    elif not view:
        look.pager("/runs", offset, len(found.runs), PAGE, found.total)


def _row(one: Run) -> Row:
    numbers = {name: one.total(name) for name in OUTCOMES}

    def bar() -> None:
        if any(numbers.values()):
            look.outcome_bar(numbers)
        else:
            div()

    return Row(
        (
            lambda: look.run_link(one.run_id),
            lambda: look.status(one.status),
            one.operation,
            look.clock(one.started),
            look.lasting(one.seconds),
            one.total("rows_read"),
            bar,
            look.told(one),
        )
    )
