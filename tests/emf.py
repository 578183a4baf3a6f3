"""A reader of CloudWatch's embedded metric format, by its specification: it refuses what CloudWatch
would drop in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

MOST_METRICS, MOST_DIMENSIONS, MOST_CHARACTERS, MOST_BYTES = 100, 30, 1024, 256 * 1024
UNITS = {"Seconds", "Milliseconds", "Bytes", "Megabytes", "Percent", "Count", "None"}


@dataclass(frozen=True)
class Metric:
    """One value of a metric; `dimensions` are pairs of name and value."""

    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]]
    unit: str
    value: float


def read(line: str) -> list[Metric]:
    """The metrics of a log line. Raises ValueError where the line breaks the format."""
    if len(line.encode()) > MOST_BYTES:
        raise ValueError("the line is longer than a log event")
    members = json.loads(line)
    stamp = members["_aws"]
    if not isinstance(stamp["Timestamp"], int) or stamp["Timestamp"] < 10**12:
        raise ValueError("Timestamp is no number of milliseconds")
    return [
        metric
        for directive in stamp["CloudWatchMetrics"]
        for metric in _directive(directive, members)
    ]


def _directive(directive: dict[str, object], members: dict[str, object]) -> Iterator[Metric]:
    namespace, sets, metrics = (directive[key] for key in ("Namespace", "Dimensions", "Metrics"))
    if not 0 < len(namespace) <= MOST_CHARACTERS:
        raise ValueError(f"{namespace!r} is no namespace")
    if len(metrics) > MOST_METRICS:
        raise ValueError(f"{len(metrics)} metrics in one directive")
    for names in sets:
        if len(names) > MOST_DIMENSIONS:
            raise ValueError(f"{len(names)} dimensions")
        dimensions = frozenset((name, _text(members, name)) for name in names)
        for metric in metrics:
            unit = metric.get("Unit", "None")
            if unit not in UNITS:
                raise ValueError(f"{unit!r} is no unit")
            value = _number(members, metric["Name"])
            yield Metric(namespace, metric["Name"], dimensions, unit, value)


def _text(members: dict[str, object], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MOST_CHARACTERS:
        raise ValueError(f"the dimension {name} points to {value!r}")
    return value


def _number(members: dict[str, object], name: str) -> float:
    value = members.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"the metric {name} points to {value!r}")
    return value
