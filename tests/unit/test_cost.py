"""What a run costs is counted from the history of its execution, with prices that stand in one
place.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import cost
import page
from client.template import ROOT, Template
from local.commands.run import cost_on_aws
from tests.unit.test_report import ASL, GOOD, a_run, history


def answer(service: str, call: str, body: Any, failed: bool = False) -> dict[str, Any]:
    details = {"resourceType": service, "resource": call}
    if failed:
        return {"taskFailedEventDetails": {**details, "error": "States.TaskFailed", "cause": body}}
    return {"taskSucceededEventDetails": {**details, "output": json.dumps(body)}}


def glue_run(**changed: Any) -> dict[str, Any]:
    run = {
        "JobRunState": "SUCCEEDED",
        "GlueVersion": "6.0",
        "ExecutionTime": 180,
        "MaxCapacity": 2.0,
    }
    return answer("glue", "startJobRun.sync", run | changed)


def query(scanned: int) -> dict[str, Any]:
    body = {
        "QueryExecution": {
            "Status": {"State": "SUCCEEDED"},
            "Statistics": {"DataScannedInBytes": scanned},
        }
    }
    return answer("athena", "startQueryExecution.sync", body)


def of(*events: dict[str, Any], states: list[str] = GOOD) -> dict[str, Any]:
    entered = history(states)[:-1]  # the execution still runs when its cost is counted
    return cost.of_run([*entered, *events], ASL)


def test_glue_is_billed_by_its_dpu_seconds() -> None:
    assert of(glue_run(DPUSeconds=300.0))["glue"]["usd"] == pytest.approx(300 / 3600 * 0.308)
    assert of(glue_run(DPUSeconds=300.0, GlueVersion="5.1"))["glue"]["usd"] == pytest.approx(
        300 / 3600 * 0.44
    )


def test_without_dpu_seconds_all_workers_count_for_the_whole_time_and_a_minute_at_least() -> None:
    assert of(glue_run())["glue"]["dpu_seconds"] == 360
    assert of(glue_run(ExecutionTime=9))["glue"]["dpu_seconds"] == 120


def test_a_run_that_failed_costs_as_well() -> None:
    cause = json.dumps({"JobRunState": "FAILED", "GlueVersion": "6.0", "DPUSeconds": 100.0})
    failed = answer("glue", "startJobRun.sync", cause, failed=True)
    spent = of(failed)
    assert spent["glue"]["dpu_seconds"] == 100 and spent["glue"]["complete"]


def test_a_run_that_was_cut_off_before_it_told_its_seconds_is_said_to_be_missing() -> None:
    refused = answer("glue", "startJobRun.sync", "Rate exceeded", failed=True)
    spent = of(refused)
    assert spent["glue"]["usd"] == 0 and not spent["glue"]["complete"]
    assert cost.line(spent).endswith("A Glue run is missing in it.")


def test_a_query_is_billed_for_ten_megabytes_at_least_and_in_whole_ones() -> None:
    megabyte = 2**20
    assert [cost.billed(scanned) for scanned in (0, 10 * megabyte, 10 * megabyte + 1)] == [
        10 * megabyte,
        10 * megabyte,
        11 * megabyte,
    ]
    spent = of(query(0), query(2**40))["athena"]
    assert spent["usd"] == pytest.approx(5.0, abs=0.001) and spent["bytes_scanned"] == 2**40


def test_each_state_and_each_repetition_is_a_transition_and_those_to_come_are_counted() -> None:
    """Where WriteRunReport counts, three states are still to come."""
    states = [*GOOD, "WriteRunReport"]
    scheduled = [
        {"taskScheduledEventDetails": {}}
        for name in states
        if ASL["States"][name]["Type"] == "Task"
    ]
    to_come = ["CheckCrawlOwed", "CheckOutcome", "RunSucceeded"]
    once = of(*scheduled, states=states)["step_functions"]["transitions"]
    assert once == len(states + to_come)
    assert (
        of(*scheduled, *scheduled[:1], states=states)["step_functions"]["transitions"] == once + 1
    )


def test_states_of_a_loop_are_counted_once_to_come() -> None:
    """The archive is a loop; an execution whose history ends within it is counted all the same."""
    states = [*GOOD[:-1], "ArchiveProcessedFiles"]
    loop = ["CheckArchiveCompletion", "ContinueArchiveOperation", "ArchiveProcessedFiles"]
    inside = cost.of_run(history(states), ASL)["step_functions"]["transitions"]
    assert inside == len(states) + len(loop)


def test_a_crawl_is_an_estimate_and_said_to_be_one() -> None:
    spent = of(glue_run(), answer("aws-sdk:glue", "startCrawler", {}))
    assert spent["crawler"]["estimated"] and spent["crawler"]["usd"] == pytest.approx(
        0.1467, abs=1e-4
    )
    assert "about $0.1467 for a crawl" in cost.line(spent)
    assert "crawl" not in cost.line(of(glue_run()))


def test_the_line_of_the_message_adds_up() -> None:
    spent = of(glue_run(DPUSeconds=300.0), query(0), query(0))
    line = cost.line(spent)
    total, *parts = [float(text) for text in re.findall(r"\$([\d.]+)", line)]
    assert total == pytest.approx(sum(parts), abs=0.0002) and "300 DPU-seconds" in line


def test_the_page_shows_what_the_run_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_BUCKET", "lake")
    spent = of(glue_run(DPUSeconds=300.0), query(123))
    shown = page.render(a_run(spent=spent))
    assert "What it cost" in shown and "300 DPU-seconds" in shown
    assert f"${spent['usd']:,.4f}" in shown and cost.PRICES["read_on"] in shown


def test_the_sample_run_tells_what_its_runs_would_cost_on_aws(tmp_path: Path) -> None:
    for name, usd in (("a", 0.0125), ("b", 0.03)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "cost.json").write_text(json.dumps({"usd": usd}))
    assert "2 runs would cost $0.0425 on AWS" in cost_on_aws(tmp_path)


def test_every_glue_version_of_the_template_has_its_price() -> None:
    versions = Template.load().document["Parameters"]["GlueVersion"]["AllowedValues"]
    named = {name.removeprefix("glue_") for name in cost.PRICES["prices"] if "glue_" in name}
    assert named == set(versions)


def test_the_page_about_costs_has_the_prices_that_are_counted_with() -> None:
    text = (ROOT / "docs" / "costs.md").read_text("utf-8")
    assert cost.PRICES["read_on"] in text
    for name, price in cost.PRICES["prices"].items():
        row = next(line for line in text.splitlines() if f"`{name}`" in line)
        assert f"${price['usd']:g} per {price['per']}" in row, name
        assert price["source"] in row, name
