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

PRICES: dict[str, Any] = json.loads((Path(__file__).parent / "prices.json").read_text("utf-8"))
MEGABYTE, TERABYTE = 2**20, 2**40
QUERY_MEGABYTES = 10  # that a query is billed at least
JOB_SECONDS = 60  # that a Glue run is billed at least
CRAWL_DPU_SECONDS = 2 * 600  # of a crawl: two DPUs for the ten minutes that are billed at least
Event = Mapping[str, Any]


def of_run(history: Sequence[Event], asl: Mapping[str, Any]) -> dict[str, Any]:
    """The amounts and what each costs in dollars, as cost.json has them. `asl` tells how many
    states are still to come.
    """
    parts = {
        "glue": _glue(history),
        "step_functions": _steps(entered(history) + left(history, asl)),
        "athena": _athena(list(scanned(history))),
        "crawler": _crawls(len(list(answers(history, "aws-sdk:glue", "startCrawler")))),
    }
    prices = {name: PRICES[name] for name in ("region", "currency", "read_on")}
    return {"usd": sum(part["usd"] for part in parts.values()), **parts, "prices": prices}


def _glue(history: Sequence[Event]) -> dict[str, Any]:
    """A run that was cut off before it told its seconds, or whose version has no price here, is
    missing in the sum.
    """
    answered = answers(history, "glue", "startJobRun")
    runs = [answer for answer in answered if "JobRunState" in answer]
    priced = [run for run in runs if glue_version(run) in PRICES["prices"]]
    dollars = [dpu_seconds(run) / 3600 * price(glue_version(run)) for run in priced]
    cut_off = not runs and bool({"RunGlueJob", "RunOperation"} & set(_names(history)))
    return {
        "usd": sum(dollars),
        "runs": len(runs),
        "dpu_seconds": sum(map(dpu_seconds, runs)),
        "complete": len(priced) == len(runs) and not cut_off,
    }


def _steps(transitions: int) -> dict[str, Any]:
    return {"usd": transitions / 1000 * price("step_functions"), "transitions": transitions}


def _athena(scans: Sequence[int]) -> dict[str, Any]:
    usd = sum(map(billed, scans)) / TERABYTE * price("athena")
    return {"usd": usd, "queries": len(scans), "bytes_scanned": sum(scans)}


def _crawls(crawls: int) -> dict[str, Any]:
    """No answer of Glue in the history tells a crawl's DPUs: this part is an estimate."""
    usd = crawls * CRAWL_DPU_SECONDS / 3600 * price("crawler")
    return {"usd": usd, "crawls": crawls, "estimated": True}


def line(spent: Mapping[str, Any]) -> str:
    """The cost in a line of a message."""
    glue, steps, athena = (spent[name] for name in ("glue", "step_functions", "athena"))
    parts = [
        f"Glue {dollars(glue['usd'])} ({glue['dpu_seconds']:,.0f} DPU-seconds)",
        f"Step Functions {dollars(steps['usd'])} ({steps['transitions']} transitions)",
        f"Athena {dollars(athena['usd'])} ({athena['queries']} queries, "
        f"{athena['bytes_scanned']:,} bytes)",
    ]
    if spent["crawler"]["crawls"]:
        parts.append(f"about {dollars(spent['crawler']['usd'])} for a crawl")
    missing = "" if glue["complete"] else " A Glue run is missing in it."
    return (
        f"cost by AWS's list prices of {spent['prices']['read_on']}: {dollars(spent['usd'])} = "
        f"{' + '.join(parts)}.{missing}"
    )


def dollars(amount: float) -> str:
    return f"${amount:,.4f}"


def price(name: str) -> float:
    return PRICES["prices"][name]["usd"]


def glue_version(run: Mapping[str, Any]) -> str:
    """The name of the price of a Glue run."""
    return f"glue_{run.get('GlueVersion')}"


def answers(history: Sequence[Event], service: str, call: str) -> Iterator[dict[str, Any]]:
    """What a service answered to each call, as JSON; a call that failed has its answer in the
    cause, where it has one.
    """
    for event in history:
        details = event.get("taskSucceededEventDetails") or event.get("taskFailedEventDetails")
        if not details or details.get("resourceType") != service:
            continue
        if details.get("resource", "").removesuffix(".sync") == call:
            try:
                answer = json.loads(details.get("output") or details.get("cause") or "")
            except ValueError:  # a sentence: the call itself was refused
                continue
            if isinstance(answer, dict):
                yield answer


def dpu_seconds(run: Mapping[str, Any]) -> float:
    """As Glue counts them under auto scaling; else all workers for the whole time, a minute at
    least.
    """
    if run.get("DPUSeconds"):
        return float(run["DPUSeconds"])
    return max(run.get("ExecutionTime", 0), JOB_SECONDS) * float(run.get("MaxCapacity", 0))


def scanned(history: Sequence[Event]) -> Iterator[int]:
    """The bytes that each query scanned. Athena does not bill a query that failed."""
    for answer in answers(history, "athena", "startQueryExecution"):
        query = answer.get("QueryExecution", answer)
        if query.get("Status", {}).get("State") != "FAILED":
            yield int(query.get("Statistics", {}).get("DataScannedInBytes", 0))


def billed(scanned_bytes: int) -> int:
    """Whole megabytes, ten at least."""
    return max(math.ceil(scanned_bytes / MEGABYTE), QUERY_MEGABYTES) * MEGABYTE


def entered(history: Sequence[Event]) -> int:
    """State transitions so far: each state that was entered, and each repetition of a task."""
    tasks = sum(event.get("type") == "TaskStateEntered" for event in history)
    calls = sum("taskScheduledEventDetails" in event for event in history)
    return len(_names(history)) + max(calls - tasks, 0)


def left(history: Sequence[Event], asl: Mapping[str, Any]) -> int:
    """The states that are still to come on the usual way, from the one that is running now to the
    end.
    """
    states, names = asl["States"], [name for name in _names(history) if name in asl["States"]]
    name, count = names[-1] if names else None, 0
    while name and (name := states[name].get("Next") or states[name].get("Default")):
        count += 1
    return count


def _names(history: Sequence[Event]) -> list[str]:
    return [
        event["stateEnteredEventDetails"]["name"]
        for event in history
        if "stateEnteredEventDetails" in event
    ]
