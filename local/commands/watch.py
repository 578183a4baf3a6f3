"""Shows an execution as it goes: a line for each state that has ended, and on a terminal what is
running just now."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from client import ASL_FILE
from client.mermaid import subtitle
from facts import CAUGHT, FAILED, RUNNING, SUCCEEDED, runs_of
from local.aws.server import FINISHED, LocalAws

MARKS = {SUCCEEDED: ("✓", "green"), CAUGHT: ("!", "yellow"), FAILED: ("✗", "red")}


def all_states(machine: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Name -> state, of all branches too."""
    inner = [branch for state in machine["States"].values() for branch in state.get("Branches", [])]
    return {name: state for part in (machine, *inner) for name, state in part["States"].items()}


def visits(history: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """State and seconds of each visit that has ended, in the order of their ends.

    A Fail or Succeed state takes none.
    """
    since: dict[str, Any] = {}
    for event in history:
        if entered := event.get("stateEnteredEventDetails"):
            since[entered["name"]] = event["timestamp"]
            if event["type"] in ("FailStateEntered", "SucceedStateEntered"):
                yield entered["name"], 0.0
        elif (left := event.get("stateExitedEventDetails")) and not event["type"].startswith(
            "Succeed"
        ):
            yield left["name"], (event["timestamp"] - since[left["name"]]).total_seconds()


class Watch:
    """Follows executions on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.step = ""
        self._states = all_states(json.loads(ASL_FILE.read_text("utf-8")))

    def job_says(self, line: str) -> None:
        """A line of the job's progress, `12:00:00 rows read and checked`."""
        if not line.startswith("{"):
            self.step = line.partition(" ")[2]
            self.console.print(f"      {self.step}", style="dim", highlight=False)

    def follow(self, aws: LocalAws, execution_arn: str) -> dict[str, Any]:
        """Shows the execution until it has ended; returns its description."""
        started, shown = time.monotonic(), 0
        with Live(console=self.console, transient=True, refresh_per_second=4) as live:
            while True:
                execution, history = aws.describe(execution_arn), aws.history(execution_arn)
                runs = runs_of(history)
                ended = list(visits(history))
                for name, seconds in ended[shown:]:
                    self.console.print(self.line(name, seconds, runs[name]))
                shown = len(ended)
                if execution["status"] in FINISHED:
                    return execution
                running = [name for name, run in runs.items() if run.status == RUNNING]
                live.update(
                    Text(f"  … {', '.join(running)} ({time.monotonic() - started:.0f} s)", "blue")
                )
                time.sleep(0.25)

    def line(self, name: str, seconds: float, run: Any) -> Text:
        mark, colour = MARKS[
            SUCCEEDED if run.status == RUNNING else run.status
        ]  # running: once more by now
        text = Text(f"  {mark} ", colour)
        text.append(
            f"{name:28}", "bold" if self._states[name]["Type"] in ("Task", "Parallel") else ""
        )
        text.append(f"{seconds:7.1f} s" if seconds >= 0.05 else " " * 9)
        text.append(f"  {subtitle(self._states[name])}", "dim")
        if run.error and run.status != RUNNING:
            text.append(f"\n      {run.error[:300]}", colour)
        return text
