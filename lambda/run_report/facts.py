"""What page and mail are made of: the records of one run and the history of its execution."""

from __future__ import annotations

import datetime as dt
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Template
from typing import Any

from words import STEPS, hints, in_words, is_full_page, missing_data, order_day

SUCCEEDED, FAILED, CAUGHT, RUNNING = "succeeded", "failed", "caught", "running"
FAILURE = "IsFailureMailed"  # every failure passes this state
STATUS = {"SUCCEEDED": "Succeeded", "NOTHING_NEW": "Nothing new"}
OBJECTS = ("files", "datasets", "tables", "timings", "operation")
TEXTS = {"status": "FAILED", "started_at": "", "finished_at": "", "error": ""}
NO_SUMMARY = {**TEXTS, **{name: {} for name in OBJECTS}, "reject_examples": []}
FILES_SHOWN, CAUSE_CHARACTERS = 500, 2_000
NO_CAUSE = "The job wrote no summary: it did not start, or it was stopped."
Event = Mapping[str, Any]


@dataclass
class StateRun:
    """One state of an execution: how it ended, its last start, all its seconds, how often it was
    entered, its error, and the states that followed it."""

    status: str = RUNNING
    started: dt.datetime | None = None
    seconds: float = 0.0
    entered: int = 0
    error: str | None = None
    then: set[str] = field(default_factory=set)

    def enter(self, event: Event) -> None:
        self.status, self.error, self.started = RUNNING, None, event.get("timestamp")
        self.entered += 1

    def note(self, event: Event) -> None:
        """Keep the error of a call, and forget one that a retry has repaired."""
        if re.search("(Failed|TimedOut|Aborted)$", event["type"]):
            self.error = _error(event)
        elif event["type"].endswith("Succeeded"):
            self.error = None

    def leave(self, status: str, event: Event) -> None:
        self.status = status
        if self.started and event.get("timestamp"):
            self.seconds += max((event["timestamp"] - self.started).total_seconds(), 0.0)


def runs_of(history: Sequence[Event]) -> dict[str, StateRun]:
    """Return the states that an execution entered, in this order. `history` is oldest first; its
    first events may be missing."""
    runs: dict[str, StateRun] = {}
    state_of: dict[int, str] = {}  # event -> its state
    for event in history:
        before = state_of.get(event.get("previousEventId", 0), "")
        entered, left = event.get("stateEnteredEventDetails"), event.get("stateExitedEventDetails")
        name = state_of[event["id"]] = (entered or left or {"name": before})["name"]
        if event["type"].startswith("Execution"):
            _end(runs, event)
        elif entered:
            runs.setdefault(name, StateRun()).enter(event)
            if before in runs:
                runs[before].then.add(name)
        elif left and name in runs:
            runs[name].leave(CAUGHT if runs[name].error else SUCCEEDED, event)
        elif name in runs:
            runs[name].note(event)
    return runs


def _end(runs: Mapping[str, StateRun], event: Event) -> None:
    """End the states that still run with their execution."""
    for run in runs.values():
        if run.status == RUNNING and event["type"] != "ExecutionStarted":
            good = event["type"] == "ExecutionSucceeded"
            run.error = run.error if good else _error(event)
            run.leave(SUCCEEDED if good else FAILED, event)


def _error(event: Event) -> str:
    """Return error and cause of an event, or else its type."""
    details: Event = next(
        (value for key, value in event.items() if key.endswith("EventDetails")), {}
    )
    return ": ".join(filter(None, map(details.get, ("error", "cause")))) or event["type"]


def seconds_text(seconds: float) -> str:
    """Return 0.04 s, 3.2 s or 1 min 20 s."""
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"


@dataclass(frozen=True)
class Manifest:
    """The files of a run: the number of each outcome, the first FILES_SHOWN of each outcome in the
    order of the manifest, the days of the orders, and files that may be the first page of an
    export."""

    counts: Mapping[str, int] = field(default_factory=dict)
    shown: Sequence[Mapping[str, Any]] = ()
    order_days: frozenset[dt.date] = frozenset()
    full_pages: Sequence[str] = ()

    @classmethod
    def of(cls, entries: Iterable[Mapping[str, Any]]) -> Manifest:
        counts: Counter[str] = Counter()
        shown, days, full_pages = [], set[dt.date | None](), []
        for entry in entries:
            days.add(order_day(entry))
            if is_full_page(entry):
                full_pages.append(entry["path"])
            counts[entry["outcome"]] += 1
            if counts[entry["outcome"]] <= FILES_SHOWN:
                shown.append(entry)
        return cls(counts, shown, frozenset(filter(None, days)), full_pages)


@dataclass(frozen=True)
class Run:
    """One run. `summary` is summary.json upon NO_SUMMARY, `manifest` the files; `states` and
    `spent` are empty if the execution cannot be read; `failure` is what the state machine caught:
    Error and, mostly, Cause; `folder` is the prefix of the records."""

    run_id: str
    summary: Mapping[str, Any]
    manifest: Manifest = Manifest()
    states: Mapping[str, StateRun] = field(default_factory=dict)
    spent: Mapping[str, Any] | None = None
    failure: Mapping[str, Any] | None = None
    arn: str = ""
    folder: str = ""

    @property
    def status(self) -> str:
        """How the job ended, in words; empty if it failed."""
        return STATUS.get(self.summary["status"], "")

    @property
    def step(self) -> str:
        """The step that failed, a name of STEPS; empty if none did."""
        if self.status and self.failure is None and FAILURE not in self.states:
            return ""
        reached = [step for step, sources in STEPS.items() if sources["from"] in self.states]
        return (reached or ["operation" if self.operation else "job"])[-1]

    @property
    def cause(self) -> str:
        """Why the run failed, in the job's own words if it had any."""
        error, cause = ((self.failure or {}).get(name, "") for name in ("Error", "Cause"))
        caught = f"{in_words(cause)} ({error})" if cause and "." in error else cause or error
        errors = [f"{name}: {state.error}" for name, state in self.states.items() if state.error]
        return next(
            filter(None, (self.summary["error"], *map(in_words, [caught, *errors]), NO_CAUSE))
        )

    @property
    def short_cause(self) -> str:
        """The cause within the limits of a mail and of an execution's cause."""
        return textwrap.shorten(self.cause, CAUSE_CHARACTERS, placeholder=" …")

    @property
    def to_do(self) -> str:
        """What to do about the step that failed."""
        command, step = f"rollback --undo {self.run_id} --dry-run", STEPS[self.step]
        undo = Template(step.get("undo", "")).substitute(command=self.command(command))
        return f"{step['to_do']} {undo}".strip()

    @property
    def seconds(self) -> float | None:
        """How long the job worked; None if it wrote no summary."""
        if not self.summary["finished_at"]:
            return None
        times = (self.summary[name] for name in ("started_at", "finished_at"))
        began, ended = map(dt.datetime.fromisoformat, times)
        return (ended - began).total_seconds()

    @property
    def operation(self) -> Mapping[str, Any]:
        """The operation's name, author, dry_run, text, plan and effect; empty for a load."""
        return self.summary["operation"]

    @property
    def datasets(self) -> Mapping[str, Mapping[str, Any]]:
        """The counts of a load, a replay or a rebuild by dataset; empty if the job failed."""
        read = self.operation.get("name") in (None, "replay", "rebuild")
        return self.summary["datasets"] if self.status and read else {}

    def total(self, measure: str) -> int:
        return sum(counts[measure] for counts in self.datasets.values())

    @property
    def reasons(self) -> list[tuple[int, str, str]]:
        """Rows, dataset and reason of the rejected rows, the commonest first."""
        counts = [
            (name, counters["rejected_by_reason"].items())
            for name, counters in self.datasets.items()
        ]
        rows_by_reason = ((rows, name, code) for name, reasons in counts for code, rows in reasons)
        return sorted(rows_by_reason, key=lambda reason: -reason[0])

    @property
    def hints(self) -> list[str]:
        """Sentences about what did not fail and should be looked at; about data that may not have
        come, unless MISSING_DATA_HINTS is false."""
        sentences = hints(self.summary)
        if self.datasets and os.environ.get("MISSING_DATA_HINTS", "true") == "true":
            sentences += missing_data(
                self.summary, self.manifest.order_days, self.manifest.full_pages
            )
        return sentences

    @property
    def places(self) -> Mapping[str, str]:
        """What addresses are made of: the run's id, its execution, its bucket and its folder."""
        region = self.arn.split(":")[3] if self.arn else ""
        place = {"bucket": os.environ["LAKE_BUCKET"], "folder": self.folder, "region": region}
        return {**place, "run_id": self.run_id, "arn": self.arn}

    def command(self, words: str) -> str:
        """Return an operation that may help, as it is typed on AWS and on one machine."""
        environment = os.environ.get("ENVIRONMENT", "prod")
        return (
            f'  make operate ENV={environment} ARGS="{words}"\n  .venv/bin/python -m local {words}'
        )
