"""The six steps of a load, with the rows and files that each passes to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from console.data.runs import Run
from facts import StateRun

NAMES = ("find", "read", "check", "write", "archive", "verify")
MEANING = {
    "find": "lists the raw zone and skips files that were loaded before",
    "read": "reads each file once, row by row",
    "check": "checks each row against the rules, its table and its parents",
    "write": "commits tables, rejects, ledger and the run",
    "archive": "moves each file that was read out of the raw zone",
    "verify": "queries Athena for rows that break a rule",
}
STATES = {  # of the state machine after the job -> their step
    "InitiateArchiveProcess": "archive",
    "CheckTablesExist": "verify",
    "PrepareChecks": "verify",
    "Parallel Athena Queries": "verify",
}
TIMINGS = {  # word of the job's log at the end of a step -> the step, in order
    "discovered": "find",
    "staged": "read",
    "resolved": "check",
    "committed etl_runs": "write",
}


@dataclass(frozen=True)
class Step:
    """A step. `status` is done, running, failed or not reached; `on` is what it passed on."""

    name: str
    status: str
    on: str = ""


def steps_of(run: Run, states: Mapping[str, StateRun], lines: Sequence[str]) -> list[Step]:
    """Return the six steps of a load."""
    reached, amounts = _reached(run, states, lines), _amounts(run)
    steps = []
    for at, name in enumerate(NAMES):
        status = "done" if at < reached else "not reached"
        if at == reached and (run.running or run.failed):
            status = "running" if run.running else "failed"
        steps.append(Step(name, status, amounts.get(name, "") if status == "done" else ""))
    return steps


def _reached(run: Run, states: Mapping[str, StateRun], lines: Sequence[str]) -> int:
    """Return the index of the step that a run is in or ended in; len(NAMES) if all are done."""
    if not run.running and not run.failed:
        nothing_new = states and "RunGlueJob" not in states and not run.summary
        return 1 if nothing_new else len(NAMES)
    timings = {*(run.summary.get("timings") or {})}
    timings |= {word for word in TIMINGS for line in lines if word in line}
    done = [NAMES.index(step) + 1 for word, step in TIMINGS.items() if word in timings]
    later = [NAMES.index(step) for state, step in STATES.items() if state in states]
    return max([0, *done, *later])


def _amounts(run: Run) -> dict[str, str]:
    """Return step -> what it passed to the next step, in words."""
    if not run.summary:
        return {}
    files: Mapping[str, Any] = run.summary.get("files") or {}
    out = [f"{count:,} {name}" for name in ("rejected", "parked") if (count := run.total(name))]
    good = sum(run.total(name) for name in ("inserted", "updated", "unchanged", "superseded"))
    written = run.total("inserted") + run.total("updated")
    came = run.total("rows_read") + run.total("admitted")
    return {
        "find": f"{int(files.get('listed') or 0):,} files",
        "read": f"{came:,} rows",
        "check": ", ".join([f"{good:,} good", *out]),
        "write": f"{written:,} written",
        "archive": f"{int(files.get('listed') or 0):,} files",
    }
