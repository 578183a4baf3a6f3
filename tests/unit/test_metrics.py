"""A run's metrics: CloudWatch can read them, and alarms and dashboard look at metrics that there
are.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

import metrics
import run_report.handler as handler
from client.template import ROOT, Template
from tests import emf
from tests.unit.test_report import SUMMARY, a_run

NOW = dt.datetime(2025, 4, 16, 12, tzinfo=dt.UTC)
SPENT = {"RunCost": 0.05, "DpuSeconds": 360, "JobSeconds": 42.5}
MOMENTS = {
    "products": NOW - dt.timedelta(days=3),
    "orders": NOW,
    "order_items": NOW,
    "parked order_items": NOW - dt.timedelta(hours=30),
}


def emitted_metrics(summary: dict[str, Any] = SUMMARY, usd: float = 0.05) -> list[emf.Metric]:
    spent = {**SPENT, "RunCost": usd}
    lines = metrics.lines("prod", summary, MOMENTS, spent, NOW)
    return [metric for line in lines for metric in emf.read(line)]


def values(emitted: list[emf.Metric]) -> dict[tuple[str, str], float]:
    """(dataset or '', metric) -> value."""
    return {(dict(m.dimensions).get("Dataset", ""), m.name): m.value for m in emitted}


def test_each_dataset_tells_what_became_of_its_rows() -> None:
    measured = values(emitted_metrics())
    assert {name: measured["order_items", name] for name in metrics.COUNTS} == {
        "RowsRead": 5000,
        "RowsInserted": 4900,
        "RowsUpdated": 82,
        "RowsRejected": 3,
        "RowsParked": 40,
    }
    assert measured["", "RowsAccepted"] == 60 + 1200 + 5000 - 8 - 3
    assert measured["", "RejectedPercent"] == pytest.approx(100 * 11 / 6260, abs=0.001)
    assert measured["", "RunCost"] == 0.05


def test_each_dataset_tells_how_long_ago_its_last_good_delivery_was() -> None:
    measured = values(emitted_metrics())
    assert measured["products", "HoursSinceGoodDelivery"] == 72
    assert measured["orders", "HoursSinceGoodDelivery"] == 0
    assert measured["order_items", "OldestParkedHours"] == 30
    assert ("orders", "OldestParkedHours") not in measured


def test_a_failed_job_tells_its_cost_and_no_rows() -> None:
    measured = values(emitted_metrics(SUMMARY | {"status": "FAILED"}))
    assert ("", "RunCost") in measured and ("", "RowsAccepted") not in measured
    assert not [name for dataset, name in measured if name in metrics.COUNTS]


def test_a_dataset_that_the_run_did_not_touch_is_not_billed_for_its_counts() -> None:
    untouched = dict.fromkeys(SUMMARY["datasets"]["products"], 0)
    datasets = {**SUMMARY["datasets"], "products": untouched}
    measured = values(emitted_metrics(SUMMARY | {"datasets": datasets}))
    assert [name for dataset, name in measured if dataset == "products"] == [
        "HoursSinceGoodDelivery"
    ]


def test_a_redriven_run_counts_its_rows_once_and_adds_only_what_it_cost_more() -> None:

    def measured(before: dict[str, Any]) -> dict[tuple[str, str], float]:
        spent = {"usd": 0.08, "glue": {"dpu_seconds": 360}}
        lines = handler.measures(a_run(spent=spent), [], before)
        return values([metric for line in lines for metric in emf.read(line)])

    first = measured({})
    assert first["", "RowsAccepted"] == 6249 and first["", "RunCost"] == 0.08
    old = {"usd": 0.05, "glue": {"dpu_seconds": 300}}
    spent_since = {("", "RunCost"): 0.03, ("", "DpuSeconds"): 60, ("", "JobSeconds"): 42.5}
    assert measured({**old, "rows_told": True}) == spent_since
    after_a_failed_job = measured({**old, "rows_told": False})
    assert after_a_failed_job == first | spent_since


def test_the_moments_are_read_from_the_answer_of_the_query_in_the_history() -> None:
    rows = [
        ("what", "moment"),
        ("orders", "2025-04-16T12:00:00.000Z"),
        ("parked order_items", None),
    ]
    data = [{"Data": [{"VarCharValue": value} if value else {} for value in row]} for row in rows]
    details = {
        "resourceType": "athena",
        "resource": "getQueryResults",
        "output": json.dumps({"ResultSet": {"Rows": data}}),
    }
    assert metrics.freshness([{"taskSucceededEventDetails": details}]) == {"orders": NOW}


def watched(template: Template) -> set[tuple[str, str, frozenset[tuple[str, str]]]]:
    """What the template's alarms and dashboard look at in the run's namespace: namespace, metric,
    dimensions.
    """
    looked_at = {
        (
            alarm["Namespace"],
            alarm["MetricName"],
            frozenset((dimension["Name"], dimension["Value"]) for dimension in alarm["Dimensions"]),
        )
        for _, alarm in template.of_type("AWS::CloudWatch::Alarm")
    }
    body = json.loads(template.properties("Dashboard")["DashboardBody"])
    for widget in body["widgets"]:
        before: list[str] = []
        for metric in widget["properties"].get("metrics", []):
            words = written_out([word for word in metric if isinstance(word, str)], before)
            before = words
            if len(words) > 1:
                pairs = zip(words[2::2], words[3::2], strict=True)
                looked_at.add((words[0], words[1], frozenset(pairs)))
    return {metric for metric in looked_at if metric[0] == metrics.NAMESPACE}


def written_out(words: list[str], before: list[str]) -> list[str]:
    """CloudWatch's short forms: `.` repeats a word of the metric before, `...` all but the last
    ones.
    """
    if words[:1] == ["..."]:
        return before[: len(before) - len(words) + 1] + words[1:]
    return [before[place] if word == "." else word for place, word in enumerate(words)]


@pytest.mark.parametrize("environment", ["prod", "dev"])
def test_alarms_and_dashboard_look_at_metrics_that_a_run_tells(environment: str) -> None:
    """A wrong name or dimension is no error to CloudWatch: the alarm would never ring, or
    always."""
    lines = metrics.lines(environment, SUMMARY, MOMENTS, SPENT, NOW)
    emitted = {(m.namespace, m.name, m.dimensions) for line in lines for m in emf.read(line)}
    looked = watched(Template.load(parameters={"EnvironmentName": environment}))
    assert {name for _, name, _ in looked} >= {"RejectedPercent", "RowsAccepted", "RunCost"}
    assert looked - emitted == set()


def test_the_alarms_follow_their_parameters() -> None:
    parameters = {"RejectedPercentLimit": 12, "FreshnessHours": 24}
    template = Template.load(parameters=parameters)
    alarms = dict(template.of_type("AWS::CloudWatch::Alarm"))
    assert alarms["RejectedShareAlarm"]["Threshold"] == 12
    fresh = alarms["FreshnessAlarm"]
    assert fresh["EvaluationPeriods"] * fresh["Period"] == 24 * 3600
    assert fresh["TreatMissingData"] == "breaching", "no run at all is not fresh either"
    longest = template.document["Parameters"]["FreshnessHours"]["MaxValue"] * fresh["Period"]
    assert longest <= 7 * 86_400, "CloudWatch looks back no further"


def test_the_docs_name_every_metric_and_ask_for_the_months_sum_by_its_name() -> None:
    runbook, costs = (
        (ROOT / "docs" / name).read_text("utf-8") for name in ("runbook.md", "costs.md")
    )
    assert [name for name in metrics.UNITS if f"`{name}`" not in runbook] == []
    asked = f"--namespace {metrics.NAMESPACE} --metric-name RunCost --dimensions Name=Environment,"
    assert asked in costs and "RunCost" in metrics.UNITS


@pytest.mark.parametrize(
    "change",
    [
        {"Environment": 7},
        {"RowsAccepted": "many"},
        {"_aws": {"Timestamp": 1, "CloudWatchMetrics": []}},
    ],
)
def test_the_reader_refuses_what_cloudwatch_would_drop(change: dict[str, Any]) -> None:
    line = next(iter(metrics.lines("prod", SUMMARY, {}, {}, NOW)))
    with pytest.raises(ValueError):
        emf.read(json.dumps(json.loads(line) | change))


def test_rows_that_are_replayed_were_counted_when_they_came() -> None:
    replay = {**SUMMARY, "operation": {"name": "replay"}}
    lines = list(metrics.lines("prod", replay, {}, {"RunCost": 0.5}, NOW))
    assert len(lines) == 1 and "RunCost" in lines[0] and "RowsAccepted" not in lines[0]
