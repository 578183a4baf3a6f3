"""The report of a real execution of the state machine: the page and the cost lie next to the
summary, the metrics in the log.
"""

from __future__ import annotations

import json

from facts import SUCCEEDED, runs_of
from local.aws.server import LocalAws, Runners
from local.aws.stepfunctions import Pace
from tests import emf
from tests.pipeline.fakes import FakeCrawler, FakeJob, FakeQueries


class Queries(FakeQueries):
    """Knows the moments that the metrics ask for."""

    def __call__(self, sql: str, database: str) -> tuple[list[str], list[list[str]]]:
        if "TO_ISO8601" not in sql:
            return super().__call__(sql, database)
        rows = [
            ["orders", "2025-04-01T10:00:00.000Z"],
            ["parked order_items", "2025-04-01T09:00:00Z"],
        ]
        return ["what", "moment"], rows


def test_an_execution_leaves_its_page_and_its_history_can_be_drawn() -> None:
    runners = Runners(glue_job=FakeJob(), crawl=FakeCrawler(), query=Queries())
    aws = LocalAws(
        runners, pace=Pace(waits=0.01, retries=0.01, poll=0.05), batching_window=10_000
    ).start()
    try:
        aws.upload("orders/2025-04-01.csv", b"order_id\n1\n")
        execution = aws.wait_for(aws.sweep(), 60)
        key = f"runs/{execution['name']}/report.html"
        assert execution["status"] == "SUCCEEDED" and key in aws.keys("LakeBucket")
        response = aws.client("s3").get_object(Bucket=aws.name("LakeBucket"), Key=key)
        page = response["Body"].read().decode()
        spent = json.load(
            aws.client("s3").get_object(
                Bucket=aws.name("LakeBucket"), Key=f"runs/{execution['name']}/cost.json"
            )["Body"]
        )
        (message,) = aws.messages()
        entered = aws.states(execution["executionArn"])
        runs = runs_of(aws.history(execution["executionArn"]))
        arn = execution["executionArn"].replace(execution["name"], "nobody")
        failure = {"failure": {"Error": "Lost", "Cause": "the disk is full"}}
        event = {"run_id": "nobody", "execution_arn": arn, "mail": failure, "only": "mail"}
        unknown = aws.function("RunReport")(event, None)
    finally:
        aws.stop()
    assert response["ContentType"].startswith("text/html")
    assert execution["name"] in page and "Where every row went" in page and "The execution" in page
    after = {"WriteRunReport", "CheckCrawlOwed", "CheckOutcome", "RunSucceeded"}
    assert page.count('<td class="succeeded">succeeded</td>') == len(runs.keys() - after)
    link = f"#/v2/executions/details/{execution['executionArn']}"
    assert link in page and link in message["message"]
    assert spent["glue"]["dpu_seconds"] == 120, "two workers for a minute, the least that is billed"
    assert spent["step_functions"]["transitions"] == len(entered)
    assert (spent["athena"]["queries"], spent["crawler"]["crawls"]) == (4, 1)
    cost = f"${spent['usd']:.4f}"
    assert f"{cost} = Glue" in message["message"] and cost in page
    assert unknown["subject"] == "ETL Job Failure Alert: nobody", "history and records are gone"
    assert "the disk is full" in unknown["text"] and "Cost: not known" in unknown["text"]
    values = {
        (dict(metric.dimensions).get("Dataset"), metric.name): metric.value
        for line in aws.log
        for metric in emf.read(line)
    }
    assert values[None, "RowsAccepted"] == 1 and values["orders", "RowsRejected"] == 2
    assert abs(values[None, "RunCost"] - spent["usd"]) < 1e-6
    assert (
        values["order_items", "OldestParkedHours"] == values["orders", "HoursSinceGoodDelivery"] + 1
    )
    assert {run.status for run in runs.values()} == {SUCCEEDED}
    assert "AnyNewFiles" in runs["FindNewFiles"].then and "QueryProducts" in runs
    assert runs["ArchiveProcessedFiles"].then == {"CheckArchiveCompletion"}
