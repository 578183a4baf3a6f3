"""The report of a real execution of the state machine: the page lies next to the summary and shows
what happened."""

from __future__ import annotations

from local.aws.server import LocalAws, Runners
from local.aws.stepfunctions import Pace
from tests.pipeline.fakes import FakeCrawler, FakeJob, FakeQueries
from tools.pictures import graph


def test_an_execution_leaves_its_page_and_its_history_can_be_drawn() -> None:
    runners = Runners(glue_job=FakeJob(), crawl=FakeCrawler(), query=FakeQueries())
    aws = LocalAws(
        runners, pace=Pace(waits=0.01, retries=0.01, poll=0.05), batching_window=10_000
    ).start()
    try:
        aws.upload("orders/2025-04-01.csv", b"order_id\n1\n")
        execution = aws.wait_for(aws.sweep(), 60)
        key = f"runs/{execution['name']}/report.html"
        assert execution["status"] == "SUCCEEDED" and key in aws.keys("LakeBucket")
        found = aws.client("s3").get_object(Bucket=aws.name("LakeBucket"), Key=key)
        page = found["Body"].read().decode()
        runs = graph.runs_of(aws.history(execution["executionArn"]))
    finally:
        aws.stop()
    assert found["ContentType"].startswith("text/html")
    assert execution["name"] in page and "Where every row went" in page and "The execution" in page
    assert 'class="succeeded"' in page
    assert {run.status for run in runs.values()} == {graph.SUCCEEDED}
    assert "AnyNewFiles" in runs["FindNewFiles"].then and "QueryProducts" in runs
    assert runs["ArchiveProcessedFiles"].then == {"CheckArchiveCompletion"}
