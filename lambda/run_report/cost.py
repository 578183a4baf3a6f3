"""What a run costs by AWS's list prices, counted from the history of its execution.

The history must hold the data of its events (`includeExecutionData`): the answer of a Glue run
names its DPU-seconds, that of a query the bytes that it scanned. The prices, with their date and
source, are in prices.json alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from words import WORDS

PRICES: dict[str, Any] = json.loads((Path(__file__).parent / "prices.json").read_text("utf-8"))
USD: dict[str, float] = {name: price["usd"] for name, price in PRICES["prices"].items()}
MEGABYTE, TERABYTE = 2**20, 2**40
QUERY_MEGABYTES, JOB_SECONDS = 10, 60  # the least that a query and a Glue run are billed
NO_COST = "Cost: not known, since the history of the execution cannot be read."
CRAWL_DPU_SECONDS = 2 * 600  # of a crawl: two DPUs for the ten minutes that are billed at least
Event = Mapping[str, Any]


def of_run(history: Sequence[Event], asl: Mapping[str, Any]) -> dict[str, Any]:
    """Return the amounts and what each costs in dollars, as cost.json has them. `asl` tells how
    many states are still to come. A crawl's DPUs are in no answer, so that part is an estimate."""
    steps = transitions_of(history, asl)
    scans = list(scanned(history))
    crawls = len(list(answers(history, "aws-sdk:glue", "startCrawler")))
    athena = sum(map(billed, scans)) / TERABYTE * USD["athena"]
    crawl = CRAWL_DPU_SECONDS / 3600 * USD["crawler"]
    parts = {
        "glue": _glue(history),
        "step_functions": {"usd": USD["step_functions"] * steps / 1000, "transitions": steps},
        "athena": {"usd": athena, "queries": len(scans), "bytes_scanned": sum(scans)},
        "crawler": {"usd": crawls * crawl, "crawls": crawls, "estimated": True},
    }
    prices = {name: PRICES[name] for name in ("region", "currency", "read_on")}
    return {"usd": sum(part["usd"] for part in parts.values()), **parts, "prices": prices}


def _glue(history: Sequence[Event]) -> dict[str, Any]:
    """Return the part of Glue. A run that was cut off before it told its seconds, or whose version
    has no price here, is missing in the sum."""
    runs = [answer for answer in answers(history, "glue", "startJobRun") if "JobRunState" in answer]
    versions = [(run, f"glue_{run.get('GlueVersion')}") for run in runs]
    priced = [(run, version) for run, version in versions if version in USD]
    cut_off = not runs and bool({"RunGlueJob", "RunOperation"} & set(_names(history)))
    return {
        "usd": sum(dpu_seconds(run) / 3600 * USD[version] for run, version in priced),
        "runs": len(runs),
        "dpu_seconds": sum(map(dpu_seconds, runs)),
        "complete": len(priced) == len(runs) and not cut_off,
    }


def line(spent: Mapping[str, Any] | None) -> str:
    """Return the cost in a line."""
    if spent is None:
        return NO_COST
    parts = [
        text.format(**{**spent[name], "usd": f"${spent[name]['usd']:,.4f}"})
        for name, text in WORDS["cost"].items()
        if spent[name]["usd"]
    ]
    equation = " = ".join(filter(None, [f"${spent['usd']:,.4f}", " + ".join(parts)]))
    missing = "" if spent["glue"]["complete"] else " A Glue run is missing in it."
    return f"Cost by AWS's list prices of {spent['prices']['read_on']}: {equation}.{missing}"


def answers(history: Sequence[Event], service: str, call: str) -> Iterator[dict[str, Any]]:
    """Yield what a service answered to each call, as JSON; a call that failed may have its answer
    in the cause."""
    for event in history:
        details = event.get("taskSucceededEventDetails") or event.get("taskFailedEventDetails", {})
        called = (details.get("resourceType"), details.get("resource", "").removesuffix(".sync"))
        if called == (service, call):
            try:
                answer = json.loads(details.get("output") or details.get("cause") or "")
            except ValueError:  # a sentence: the call itself was refused
                continue
            if isinstance(answer, dict):
                yield answer


def dpu_seconds(run: Mapping[str, Any]) -> float:
    """Return Glue's own count under auto scaling; else all workers for the whole time."""
    if run.get("DPUSeconds"):
        return float(run["DPUSeconds"])
    return max(run.get("ExecutionTime", 0), JOB_SECONDS) * float(run.get("MaxCapacity", 0))


def scanned(history: Sequence[Event]) -> Iterator[int]:
    """Yield the bytes that each query scanned. Athena does not bill a query that failed."""
    for answer in answers(history, "athena", "startQueryExecution"):
        query = answer.get("QueryExecution", answer)
        if query.get("Status", {}).get("State") != "FAILED":
            yield int(query.get("Statistics", {}).get("DataScannedInBytes", 0))


def billed(scanned_bytes: int) -> int:
    """Return whole megabytes, ten at least."""
    return max(math.ceil(scanned_bytes / MEGABYTE), QUERY_MEGABYTES) * MEGABYTE


def transitions_of(history: Sequence[Event], asl: Mapping[str, Any]) -> int:
    """Count each state entered, each repetition of a task, and the states still to come on the
    usual way, from the one that is running to the end."""
    tasks = sum(event.get("type") == "TaskStateEntered" for event in history)
    calls = sum("taskScheduledEventDetails" in event for event in history)
    names, states = _names(history), asl["States"]
    name = next((state for state in reversed(names) if state in states), None)
    left: list[str] = []
    while name and (name := states[name].get("Next") or states[name].get("Default")):
        if name in left:  # a loop, whose rounds to come are not known
            break
        left.append(name)
    return len(names) + max(calls - tasks, 0) + len(left)


def _names(history: Sequence[Event]) -> list[str]:
    key = "stateEnteredEventDetails"
    return [event[key]["name"] for event in history if key in event]
