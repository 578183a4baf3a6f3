"""The dialog of an operation: the dry run's plan first, then the act."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from nicegui import background_tasks, ui
from nicegui.element import Element

from console import look
from console.look import Head, Row, div, span, tag
from console.operations import Outcome, Refused
from tools.operations import sections

WORDS = {
    "sql": "Change data",
    "rollback": "Go back",
    "replay": "Replay",
    "optimize": "Optimize",
    "vacuum": "Vacuum",
}


def operation(
    console: look.Console,
    request: Mapping[str, Any],
    title: str,
    done: Callable[[Outcome], Any] | None = None,
) -> None:
    """Opens a dialog that runs the dry run, shows its plan, and asks whether to do it."""
    with ui.dialog().props("persistent") as dialog, ui.card().classes("plan"):
        dialog.props["aria-label"] = title
        tag("h2", "", title)
        body = div("plan-body")
    dialog.on("hide", dialog.delete)
    dialog.open()

    async def plan() -> None:
        outcome = await _run(console, request, True, body, "Working out what it would do")
        if outcome is not None:
            _show_plan(outcome)

    def _show_plan(outcome: Outcome) -> None:
        with body:
            _told(outcome, outcome.plan)
            with div("acts"):
                if outcome.succeeded:
                    word = WORDS.get(str(request["operation"]), "Do it")
                    look.button(word, lambda: act(), "", "main-act")
                look.button("Cancel" if outcome.succeeded else "Close", dialog.close)

    async def act() -> None:
        outcome = await _run(console, request, False, body, "Doing it")
        if outcome is None:
            return
        with body:
            _told(outcome, outcome.effect)
            with div("acts"):
                look.anchor("Its page", look.address("/run", run=outcome.run_id))
                look.button("Close", dialog.close)
        if done and outcome.succeeded:
            done(outcome)

    background_tasks.create(plan(), context=body)


async def _run(
    console: look.Console, request: Mapping[str, Any], dry_run: bool, body: Element, words: str
) -> Outcome | None:
    """The outcome of an operation, whose way is told meanwhile; None where it was refused."""
    body.clear()
    with body:
        with div("acts", role="status"):
            ui.spinner(size="sm")
            span(f"{words} …")
        link = div()
    try:
        run_id = await asyncio.to_thread(console.operator.start, request, dry_run)
        with link:
            look.anchor("Watch the execution", look.address("/run", run=run_id))
        outcome = await asyncio.to_thread(console.operator.wait, run_id)
    except (Refused, ClientError, BotoCoreError) as error:
        body.clear()
        with body:
            look.problem(str(error))
            look.button("Close", lambda: _close(body))
        return None
    body.clear()
    return outcome


def _close(body: Element) -> None:
    for one in body.ancestors():
        if isinstance(one, ui.dialog):
            one.close()
            return


def _told(outcome: Outcome, numbers: Mapping[str, Any]) -> None:
    """What it would do, or did: the sentence, then the numbers of each table."""
    if not outcome.succeeded:
        look.problem(outcome.error or "It failed; its page has the cause.")
        return
    tag("p", "", outcome.text or "Nothing to do.")
    facts, titled = sections(numbers)
    for title, objects in titled.items():
        _by_name(title, objects)
    if facts:
        rows = [Row((key.replace("_", " "), _plain(one))) for key, one in facts.items()]
        look.table([Head("what"), Head("how many", "path")], rows, "What happens")


def _by_name(title: str, objects: Mapping[str, Mapping[str, Any]]) -> None:
    """Numbers of each table or dataset: a line for each."""
    columns = list(dict.fromkeys(key for one in objects.values() for key in one))
    heads = [Head(title), *(Head(key.replace("_", " "), "n") for key in columns)]
    rows = [
        Row((name, *(_plain(one[key]) if key in one else "" for key in columns)))
        for name, one in objects.items()
    ]
    look.table(heads, rows, f"What happens to {title}" if title else "What happens")


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | Mapping) and not value:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
