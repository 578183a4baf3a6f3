"""The console over the whole product: Chromium, the deployed state machine, and the real job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from local.aws.pipeline import Pipeline
from local.aws.stepfunctions import Pace
from tests.console.browser import Server
from tests.console.chromium import drop, expect, go, opened, playwright, started, write
from tests.console.world import order, orders

RUN = 600_000  # milliseconds for Spark, on whatever machine
STRICT_JOB = """
from dataclasses import replace
import glue_etl as etl

def main(words):
    rule = etl.Rule("date_mismatch", lambda text, value: value("total_amount") == 1.5)
    orders = replace(etl.ORDERS, rules=(*etl.ORDERS.rules, rule))
    tables, etl.TABLES = etl.TABLES, (etl.PRODUCTS, orders, etl.ORDER_ITEMS)
    try:
        return etl.main(words)
    finally:
        etl.TABLES = tables
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    """A deployment whose loads have a rule that is too strict; operations have it no more."""
    script = tmp_path / "strict_job.py"
    script.write_text(STRICT_JOB)
    pace = Pace(waits=0.05, retries=0.01, poll=0.1)
    with Pipeline(pace=pace, brief=True, batching_window=0.5) as pipeline:
        job = pipeline.aws.runners.glue_job

        def strict(arguments: Mapping[str, str]) -> None:
            job({"--scriptLocation": str(script), **arguments})

        pipeline.aws.runners.glue_job = strict
        yield pipeline


@pytest.fixture
def page(pipeline: Pipeline, tmp_path: Path) -> Iterator[playwright.Page]:
    server = Server(pipeline.endpoint, tmp_path / "console.log").start()
    try:
        with started() as program:
            page = opened(program, server)
            yield page
            page.context.close()
    finally:
        server.stop()


@pytest.mark.slow
def test_upload_reject_replay_undo_and_correction_by_the_real_job(
    page: playwright.Page, pipeline: Pipeline
) -> None:
    def amounts() -> list[tuple[str | None, ...]]:
        sql = "SELECT order_id, total_amount FROM clean_orders ORDER BY 1"
        return [tuple(row) for row in pipeline.query(sql).text_rows()]

    def act(button: str, plan: str, go_ahead: str, done: str) -> None:
        """Asks for an operation, reads its plan, lets it run; `done` is what only its end says."""
        page.get_by_role("button", name=button, exact=True).click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(plan, timeout=RUN)
        assert amounts() == before, "the plan has changed something"
        dialog.get_by_role("button", name=go_ahead, exact=True).click()
        expect(dialog).to_contain_text(done, timeout=RUN)

    go(page, "/")
    drop(page, [["orders.csv", orders(order(1), order(2, "1.5"), order(3, "abc")).decode()]])
    page.get_by_role("button", name="Upload 1 file").click()
    page.locator("tr", has_text="running").get_by_role("link").first.click()
    expect(page.locator("#main h1 + .status")).to_have_text("succeeded", timeout=RUN)
    before = amounts()
    assert before == [("1", "10.0")]

    page.locator("tr", has_text="orders.csv").get_by_role("link").last.click()
    expect(page.get_by_role("article")).to_have_count(2)
    reject = page.get_by_role("article").filter(has_text="1.5")
    expect(reject).to_contain_text("the date is neither the timestamp's date as written")
    for box in page.get_by_role("article").get_by_role("checkbox").all():
        box.click()
    replayed = "2 rows {} replayed: 1 inserted and 1 rejected."
    act("Replay", replayed.format("would be"), "Replay", replayed.format("were"))
    assert amounts() == [("1", "10.0"), ("2", "1.5")]
    go(page, "/rejects")
    expect(page.get_by_role("article")).to_have_count(1)  # abc is no amount, now as before
    expect(page.get_by_role("article")).to_contain_text("abc")

    before = amounts()
    go(page, "/sql")
    write(page, "UPDATE clean_orders SET total_amount = 7 WHERE order_id = '1'")
    act("Run", "rows: 1 would be updated.", "Change data", "rows: 1 updated.")
    assert amounts() == [("1", "7.0"), ("2", "1.5")]

    before = amounts()
    go(page, "/key?dataset=orders&key=1")
    page.get_by_role("button", name="Show each version").click()
    expect(page.locator("#main")).to_contain_text("10.0", timeout=RUN)
    corrected = pipeline.aws.executions()[-1]["name"]
    go(page, f"/run?run={corrected}")
    back = "The tables {} back to the state after"
    act("Undo this run", back.format("would go"), "Go back", back.format("went"))
    assert amounts() == [("1", "10.0"), ("2", "1.5")]
