"""The console with the whole product: Chromium, the deployed state machine, and the real job."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from local.aws.pipeline import Pipeline
from local.aws.stepfunctions import Pace
from tests.console.browser import Server
from tests.console.chromium import drop, expect, go, opened, playwright, started, write
from tests.console.world import order, orders

ITEMS = "id,order_id,user_id,days_since_prior_order,product_id,add_to_cart_order,reordered,"
ITEMS += "order_timestamp,date\n"
FOLDER = {
    "products.csv": b"product_id,department_id,department,product_name\nP1,1,Food,Tea\n",
    "orders/2025-04-01.csv": orders(order(1), order(2, "abc"), order(3)),
    "order_items/2025-04-01.csv": (
        f"{ITEMS}i1,1,7,3,P1,1,0,2025-04-01T10:00:00,2025-04-01\n"
        "i2,2,7,3,P1,1,0,2025-04-01T10:00:00,2025-04-01\n"
        "i3,3,7,3,P1,1,perhaps,2025-04-01T10:00:00,2025-04-01\n"
    ).encode(),
}
FIXES = {("total_amount", "abc"): "12.50", ("reordered", "perhaps"): "1"}
RUN = 600_000  # milliseconds; Spark may be slow on a busy machine
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
    """A deployment whose loads have a rule that is too strict; its operations do not have it."""
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
        """Open an operation, check its plan, run it; only its result contains the text `done`."""
        page.get_by_role("button", name=button, exact=True).last.click()
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
    act("Replay", replayed.format("would be"), "Replay 2 rows", replayed.format("were"))
    assert amounts() == [("1", "10.0"), ("2", "1.5")]
    go(page, "/rejects")
    expect(page.get_by_role("article")).to_have_count(1)  # `abc` is still not an amount
    expect(page.get_by_role("article")).to_contain_text("abc")

    before = amounts()
    go(page, "/sql")
    write(page, "UPDATE clean_orders SET total_amount = 7 WHERE order_id = '1'")
    act("Run", "1 row would be updated.", "Change data", "1 row was updated.")
    assert amounts() == [("1", "7.0"), ("2", "1.5")]

    before = amounts()
    go(page, "/key?dataset=orders&key=1")
    page.get_by_role("button", name="Show each version").click()
    expect(page.locator("#main")).to_contain_text("10.0", timeout=RUN)
    corrected = pipeline.aws.executions()[-1]["name"]
    go(page, f"/run?run={corrected}")
    back = "The tables {} back to the state after"
    act("Undo this run", back.format("would go"), "Undo this run", back.format("went"))
    assert amounts() == [("1", "10.0"), ("2", "1.5")]


def fixed(content: bytes) -> str:
    """Fix a file of rejected rows as a person does in a spreadsheet."""
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({name: FIXES.get((name, value), value) for name, value in row.items()})
    return text.getvalue()


@pytest.mark.slow
def test_a_dirty_folder_is_checked_uploaded_and_fixed_until_no_reject_is_open(
    page: playwright.Page, pipeline: Pipeline, tmp_path: Path
) -> None:
    def rows(sql: str) -> list[tuple[str | None, ...]]:
        return [tuple(row) for row in pipeline.query(sql).text_rows()]

    main = page.locator("#main")
    for path, content in FOLDER.items():
        file = tmp_path / "export" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    go(page, "/")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(tmp_path / "export")
    upload = page.get_by_role("button", name="Upload 3 files")
    expect(upload).to_be_visible()
    expect(main).to_contain_text("7 rows, 2 would be rejected")
    assert pipeline.aws.executions() == []
    upload.click()
    expect(main).to_contain_text("Your last upload: 3 files: 3 loaded", timeout=RUN)

    page.locator(".raw-zone").get_by_role("link").first.click()
    expect(page.locator("#main h1 + .status")).to_have_text("succeeded", timeout=RUN)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download to fix").first.click()
    with zipfile.ZipFile(download.value.path()) as archive:
        files = [[name, fixed(archive.read(name))] for name in archive.namelist()]
    assert len(files) == 2

    go(page, "/")
    drop(page, files)
    expect(main).to_contain_text("2 rows, 0 would be rejected")
    page.get_by_role("button", name="Upload 2 files").click()
    expect(main).to_contain_text("Your last upload: 2 files: 2 loaded", timeout=RUN)
    go(page, "/rejects")
    expect(main).to_contain_text("No row is like this.", timeout=RUN)
    assert rows("SELECT order_id, total_amount FROM clean_orders ORDER BY 1") == [
        ("1", "10.0"),
        ("2", "12.5"),
        ("3", "10.0"),
    ]
    assert rows("SELECT id, reordered FROM clean_orders_items ORDER BY 1") == [
        ("i1", "false"),
        ("i2", "false"),
        ("i3", "true"),
    ]
    open_rows = "SELECT count(*) FROM rejected_records WHERE status IN ('rejected', 'parked')"
    assert rows(open_rows) == [("0",)]

    go(page, "/key?dataset=orders&key=2")
    page.get_by_role("button", name="Show each version").click()
    for text in ("abc", "12.5", "superseded"):
        expect(main).to_contain_text(text, timeout=RUN)
