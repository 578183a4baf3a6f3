"""The dialog of an operation: first the plan of its dry run, then the operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nicegui import background_tasks, ui

from client.operations import Outcome
from client.render import of_plan
from console import look, work
from console.look import div, span, tag

CLOSED = "the dialog of the plan was closed"  # why a plan is stopped
FOCUS = "getElement({}).$el.focus()"


@dataclass(frozen=True)
class Instead:
    """A button that replaces that of a replay without effect, and the reason."""

    why: str
    verb: str
    act: Callable[[], Any]


def operation(
    console: look.Console,
    request: Mapping[str, Any],
    title: str,
    verb: str,
    done: Callable[[], Any],
    danger: bool = False,
    instead: Instead | None = None,
) -> None:
    """Open a dialog that starts the dry run, shows its plan, and asks whether to go on.

    verb       the text of the main button, with its rows or its run: `Replay 3 rows`
    done       refreshes the page after the operation
    instead    replaces the main button if the plan of a replay changes nothing
    """
    _Dialog(console, request, title, verb, done, danger, instead)


def ask_why(
    console: look.Console,
    title: str,
    note: str,
    verb: str,
    go: Callable[[str], Any],
    danger: bool = False,
) -> None:
    """Open a dialog that asks for a reason, and call `go` with it."""
    with ui.dialog() as dialog, ui.card().classes("plan"):
        dialog.props["aria-label"] = title
        tag("h2", "", title)
        tag("p", "soft", note)
        with tag("form") as form:
            why = ui.input("Why").props("outlined dense autofocus").classes("full")
            with div("acts"):
                button = ui.button(verb, color=None)
                button.props("no-caps unelevated dense type=submit")
                button.classes(f"act {'danger' if danger else 'main'}-act")
                look.button(console, "Cancel", dialog.close)

    def submit() -> Any:
        text = str(why.value or "").strip()
        if not text:
            why.props["error"] = True
            why.props["error-message"] = "Say why: others will read it."
            return None
        dialog.close()
        return go(text)

    form.on("submit.prevent", work.acting(console, submit))
    dialog.on("hide", dialog.delete)
    dialog.open()


class _Dialog:
    """Escape closes the dialog and stops a plan in progress; a click beside it does neither."""

    def __init__(
        self,
        console: look.Console,
        request: Mapping[str, Any],
        title: str,
        verb: str,
        done: Callable[[], Any],
        danger: bool,
        instead: Instead | None,
    ) -> None:
        self.console, self.request, self.verb = console, request, verb
        self.done, self.danger, self.instead = done, danger, instead
        self.planning = ""  # the run id of the plan in progress
        self.acted = False
        with ui.dialog().props("no-backdrop-dismiss") as self.dialog, ui.card().classes("plan"):
            self.dialog.props["aria-label"] = title
            tag("h2", "", title)
            self.body = div("plan-body")
        self.dialog.on_value_change(work.acting(console, self.closed))
        self.dialog.on("hide", self.dialog.delete)
        self.dialog.open()
        background_tasks.create(self.plan(), context=self.body)

    async def closed(self) -> None:
        """Refresh the page after an operation; stop a plan in progress."""
        if self.dialog.value:
            return
        plan, self.planning = self.planning, ""
        if self.acted:
            self.done()
        if plan:
            await work.beside(self.console, self.console.operator.stop, plan, CLOSED)

    @property
    def closed_early(self) -> bool:
        """Return whether the dialog was closed."""
        return self.body.is_deleted or not self.dialog.value

    async def plan(self) -> None:
        outcome = await self._run(self.request, True, "Working out what it would do")
        if outcome is None:
            return
        instead = self.instead if changes_nothing(outcome) else None
        with self.body:
            _show(outcome, "plan")
            if instead:
                look.problem(instead.why)
            with div("acts"):
                if instead:
                    self._main(instead.verb, instead.act, False)
                elif outcome.cause is None:
                    request = as_planned(self.request, outcome)
                    self._main(self.verb, lambda: self.act(request), self.danger)
                word = "Close" if outcome.cause or instead else "Cancel"
                look.button(self.console, word, self.dialog.close)

    def _main(self, verb: str, act: Callable[[], Any], danger: bool) -> None:
        """Show the main button and focus it, so that Enter presses it."""
        kind = "danger-act" if danger else "main-act"
        button = look.button(self.console, verb, act, "", kind)
        ui.run_javascript(FOCUS.format(button.id))

    async def act(self, request: Mapping[str, Any]) -> None:
        self.acted = True
        outcome = await self._run(request, False, "Running. You can close this dialog")
        if self.closed_early:
            self.done()
        elif outcome is not None:
            with self.body:
                _show(outcome, "effect")
                with div("acts"):
                    self._link(outcome.run_id, "Its page")
                    look.button(self.console, "Close", self.dialog.close)

    async def _run(self, request: Mapping[str, Any], dry_run: bool, words: str) -> Outcome | None:
        """Return the outcome of an operation; None if it was refused or the dialog was closed."""
        self.body.clear()
        with self.body:
            with div("acts", role="status"):
                ui.spinner(size="sm")
                span(f"{words} …")
            link = div()
            if dry_run:
                look.button(self.console, "Cancel", self.dialog.close)
        run_id = ""
        try:
            run_id = await work.beside(self.console, self.console.operator.start, request, dry_run)
            if self.closed_early and dry_run:
                await work.beside(self.console, self.console.operator.stop, run_id, CLOSED)
                return None
            self.planning = run_id if dry_run else ""
            if not link.is_deleted:
                with link:
                    self._link(run_id, "Watch the execution")
            outcome = await work.beside(self.console, self.console.operator.wait, run_id)
        except work.Trouble as trouble:
            self._say(trouble, run_id)
            return None
        self.planning = ""
        if self.closed_early:
            return None
        self.body.clear()
        return outcome

    def _say(self, trouble: work.Trouble, run_id: str) -> None:
        if self.closed_early:
            return
        self.body.clear()
        with self.body:
            look.problem(str(trouble))
            with div("acts"):
                if run_id:
                    self._link(run_id, "Watch the execution")
                look.button(self.console, "Close", self.dialog.close)

    @staticmethod
    def _link(run_id: str, text: str) -> None:
        look.anchor(text, look.address("/run", run=run_id))


def as_planned(request: Mapping[str, Any], plan: Outcome) -> dict[str, Any]:
    """Return the request that executes a plan. A rollback gets the table versions of its plan, and
    is refused if they have changed."""
    tables = (plan.result.get("plan") or {}).get("tables") or {}
    if request.get("operation") != "rollback" or not tables:
        return dict(request)
    return {**request, "expected": {name: table["from"] for name, table in tables.items()}}


def changes_nothing(plan: Outcome) -> bool:
    """Return whether a replay would reject or park each of its rows as before."""
    datasets = (plan.result.get("plan") or {}).get("datasets")
    if plan.cause is not None or datasets is None:
        return False
    moved = ("admitted", "inserted", "updated", "unchanged", "superseded")
    return not any(numbers.get(name) for numbers in datasets.values() for name in moved)


def _show(outcome: Outcome, name: str) -> None:
    """Show the plan or the effect of an outcome: a sentence, then tables."""
    if outcome.cause is not None:
        look.problem(outcome.cause)
        return
    tag("p", "", str(outcome.result.get("text") or "Nothing to do."))
    for table in of_plan(outcome.result.get(name) or {}):
        look.text_table(table, "What happens", "n")
