"""A run in CloudWatch's embedded metric format: JSON lines in the function's log, of which
CloudWatch makes metrics by itself.

    namespace DeltaLake
    dimension Environment              RowsAccepted, RejectedPercent, RunCost
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
UNITS = {
    "RowsAccepted": "Count",
    "RejectedPercent": "Percent",
    "RunCost": "None",
    "RowsRead": "Count",
    "RowsInserted": "Count",
    "RowsUpdated": "Count",
    "RowsRejected": "Count",
    "RowsParked": "Count",
    "HoursSinceGoodDelivery": "None",
    "OldestParkedHours": "None",
}
COUNTS = {
    "RowsRead": "rows_read",
    "RowsInserted": "inserted",
    "RowsUpdated": "updated",
    "RowsRejected": "rejected",
    "RowsParked": "parked",
}
PARKED = "parked "  # how the query of the state machine marks the oldest parked row of a dataset


def lines(
    environment: str,
    summary: Mapping[str, Any],
    moments: Mapping[str, dt.datetime],
    usd: float | None,
    now: dt.datetime,
) -> Iterator[str]:
    """The log lines of a run. `moments` as freshness() gives them; without `usd` the cost is not
    told. Rows are those of deliveries: a replay's were counted when they came.
    """
    delivered = summary.get("status") == "SUCCEEDED" and "operation" not in summary
    datasets = summary.get("datasets", {}) if delivered else {}
    whole = totals(datasets) | ({} if usd is None else {"RunCost": round(usd, 6)})
    names = [*datasets, *(name.removeprefix(PARKED) for name in moments)]
    parts = [({"Environment": environment}, whole)] + [
        (
            {"Environment": environment, "Dataset": name},
            counts(datasets.get(name, {})) | ages(name, moments, now),
        )
        for name in dict.fromkeys(names)
    ]
    for dimensions, values in parts:
        if values:
            yield embedded(dimensions, values, {"RunId": summary.get("run_id")}, now)


def embedded(
    dimensions: Mapping[str, str],
    values: Mapping[str, float],
    properties: Mapping[str, Any],
    now: dt.datetime,
) -> str:
    """One line of the format."""
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": UNITS[name]} for name in values],
    }
    stamp = {"Timestamp": int(now.timestamp() * 1000), "CloudWatchMetrics": [directive]}
    return json.dumps({"_aws": stamp, **dimensions, **properties, **values})


def totals(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Over all datasets; nothing where no row was read."""
    read = sum(numbers["rows_read"] for numbers in datasets.values())
    rejected = sum(numbers["rejected"] for numbers in datasets.values())
    if not read:
        return {}
    return {"RowsAccepted": read - rejected, "RejectedPercent": round(100 * rejected / read, 3)}


def counts(numbers: Mapping[str, Any]) -> dict[str, float]:
    touched = numbers.get("rows_read", 0) or numbers.get("admitted", 0)
    return {metric: numbers[name] for metric, name in COUNTS.items()} if touched else {}


def ages(name: str, moments: Mapping[str, dt.datetime], now: dt.datetime) -> dict[str, float]:
    """Hours since the dataset's last good delivery, and since its oldest parked row came."""
    keys = {"HoursSinceGoodDelivery": name, "OldestParkedHours": PARKED + name}
    return {
        metric: round(max((now - moments[key]).total_seconds(), 0) / 3600, 3)
        for metric, key in keys.items()
        if key in moments
    }


def freshness(history: Sequence[Mapping[str, Any]]) -> dict[str, dt.datetime]:
    """What the state QueryFreshness found: dataset -> its last good delivery, `parked <dataset>` ->
    its oldest parked row.
    """
    found = {}
    for answer in cost.answers(history, "athena", "getQueryResults"):
        head, *rows = [
            [value.get("VarCharValue") for value in row["Data"]]
            for row in answer["ResultSet"]["Rows"]
        ]
        if head == ["what", "moment"]:
            found = {what: _moment(text) for what, text in rows if what and text}
    return found


def _moment(text: str) -> dt.datetime:
    """ISO 8601 as Athena writes it."""
    moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
