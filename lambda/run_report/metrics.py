"""A run in CloudWatch's embedded metric format: JSON lines in the function's log, of which
CloudWatch makes metrics by itself.

    namespace DeltaLake
    dimension Environment              RowsAccepted, RejectedPercent, RunCost, JobSeconds,
                                       DpuSeconds
    dimensions Environment, Dataset    RowsRead, RowsInserted, RowsUpdated, RowsRejected,
                                       RowsParked, HoursSinceGoodDelivery, OldestParkedHours

A metric is billed for each hour in which it gets a value, so a dataset that a run has not touched
gives no counts.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cost

NAMESPACE = "DeltaLake"
COUNTS = {
    "RowsRead": "rows_read",
    "RowsInserted": "inserted",
    "RowsUpdated": "updated",
    "RowsRejected": "rejected",
    "RowsParked": "parked",
}
UNITS = dict.fromkeys([*COUNTS, "RowsAccepted"], "Count") | {"RejectedPercent": "Percent"}
UNITS |= dict.fromkeys(["JobSeconds", "DpuSeconds"], "Seconds")
UNITS |= dict.fromkeys(["RunCost", "HoursSinceGoodDelivery", "OldestParkedHours"], "None")
Numbers = Mapping[str, Any]
Moments = Mapping[str, dt.datetime]
PARKED = "parked "  # how the query of the state machine marks the oldest parked row of a dataset


def lines(
    environment: str, summary: Numbers, moments: Moments, spent: Numbers, now: dt.datetime
) -> Iterator[str]:
    """Yield the log lines of a run. `moments` as freshness() gives them; `spent` has the
    known amounts of cost and time. A replay's rows were counted when they came."""
    delivered = summary.get("status") == "SUCCEEDED" and not summary.get("operation")
    datasets = summary.get("datasets", {}) if delivered else {}
    values = totals(datasets) | {name: round(value, 6) for name, value in spent.items()}
    if values:
        yield embedded({"Environment": environment}, values, summary.get("run_id"), now)
    for name in dict.fromkeys([*datasets, *(key.removeprefix(PARKED) for key in moments)]):
        dimensions = {"Environment": environment, "Dataset": name}
        if values := of_dataset(name, datasets.get(name, {}), moments, now):
            yield embedded(dimensions, values, summary.get("run_id"), now)


def embedded(
    dimensions: Mapping[str, str], values: Mapping[str, float], run_id: Any, now: dt.datetime
) -> str:
    """Return one line of the format."""
    units = [{"Name": name, "Unit": UNITS[name]} for name in values]
    directive = {"Namespace": NAMESPACE, "Dimensions": [list(dimensions)], "Metrics": units}
    stamp = {"Timestamp": int(now.timestamp() * 1000), "CloudWatchMetrics": [directive]}
    return json.dumps({"_aws": stamp, **dimensions, "RunId": run_id, **values})


def totals(datasets: Mapping[str, Numbers]) -> dict[str, float]:
    """Return the metrics over all datasets; none if no row was read."""
    read = sum(counts["rows_read"] for counts in datasets.values())
    rejected = sum(counts["rejected"] for counts in datasets.values())
    if not read:
        return {}
    return {"RowsAccepted": read - rejected, "RejectedPercent": round(100 * rejected / read, 3)}


def of_dataset(name: str, numbers: Numbers, moments: Moments, now: dt.datetime) -> dict[str, float]:
    """Return a dataset's counts, if the run has touched it, and the hours since its last good
    delivery and since its oldest parked row."""
    touched = numbers.get("rows_read", 0) or numbers.get("admitted", 0)
    counts = {metric: numbers[field] for metric, field in COUNTS.items()} if touched else {}
    keys = {"HoursSinceGoodDelivery": name, "OldestParkedHours": PARKED + name}
    return counts | {
        metric: round(max((now - moments[key]).total_seconds(), 0) / 3600, 3)
        for metric, key in keys.items()
        if key in moments
    }


def freshness(history: Sequence[Mapping[str, Any]]) -> dict[str, dt.datetime]:
    """Return what the state QueryFreshness found: dataset -> its last good delivery,
    `parked <dataset>` -> its oldest parked row. A time without a zone is in UTC."""
    for answer in cost.answers(history, "athena", "getQueryResults"):
        lists = [row["Data"] for row in answer["ResultSet"]["Rows"]]
        head, *rows = [[cell.get("VarCharValue") for cell in row] for row in lists]
        if head == ["what", "moment"]:
            moments = {what: dt.datetime.fromisoformat(text) for what, text in rows if text}
            return {
                what: at if at.tzinfo else at.replace(tzinfo=dt.UTC) for what, at in moments.items()
            }
    return {}
