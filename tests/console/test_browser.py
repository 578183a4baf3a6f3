"""The console in Chromium: uploads, operations, queries, hostile input, accessibility."""

from __future__ import annotations

import os
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import ROOT
from console.data import Lake
from console.data.rejects import Filters
from tests.console.browser import Server
from tests.console.chromium import drop, expect, go, opened, playwright, started, write
from tests.console.conftest import HOSTILE, HOSTILE_CELL, HOSTILE_FILE, deliver
from tests.console.world import Shop, order, orders


@pytest.fixture(scope="module")
def server(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(shop.aws.endpoint, tmp_path_factory.mktemp("console") / "console.log").start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with started() as program:
        yield program


@pytest.fixture
def page(browser: playwright.Browser, server: Server) -> Iterator[playwright.Page]:
    page = opened(browser, server)
    yield page
    assert page.alerts == [], "a script from a file has run"  # type: ignore[attr-defined]
    page.context.close()


# --------------------------------------------------------------------------------------------------
# Tasks of a person
# --------------------------------------------------------------------------------------------------
def test_from_a_dropped_file_to_a_replayed_row(
    page: playwright.Page, shop: Shop, lake: Lake
) -> None:
    go(page, "/")
    drop(page, [["orders_new.csv", orders(order(50), order(51, "abc")).decode()]])
    staged = page.locator(".staged")
    expect(staged.locator(".status")).to_have_text("orders")  # before anything is uploaded
    expect(page.locator(".faults")).to_contain_text("2 rows, of which 1 would be rejected")
    name = page.get_by_label("Path of orders_new.csv in the raw zone")
    name.fill("prices.csv")
    expect(staged.locator(".status")).to_have_text("no dataset")
    name.fill("orders/new.csv")
    expect(staged.locator(".status")).to_have_text("orders")

    shop.hold.clear()
    try:
        page.get_by_role("button", name="Upload 1 file").click()
        running = page.locator("tr", has_text="running").get_by_role("link")
        running.first.click()
        expect(page.locator("#main .status.live")).to_be_visible()
        expect(page.locator(".six-steps .running")).to_contain_text("find")
    finally:
        shop.hold.set()
    expect(page.locator("#main h1 + .status")).to_have_text("succeeded")
    row = page.locator("tr", has_text="orders/new.csv")
    expect(row).to_contain_text("loaded")

    row.get_by_role("link").last.click()  # the number of rejected rows
    reject = page.get_by_role("article")
    expect(reject).to_have_count(1)
    expect(reject).to_contain_text("the value cannot be read as the column's type")
    expect(reject.locator(".fields .broken")).to_have_text(re.compile("total_amount\\s*abc"))
    reject.get_by_role("checkbox").click()
    page.locator(".rejects").get_by_role("button", name="Replay").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1 rejected rows would be admitted.")
    assert lake.tables.row("orders", "51") is None  # the plan has changed nothing
    expect(dialog.get_by_role("button", name="Replay 1 row")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("1 rejected rows were admitted.")
    assert lake.tables.row("orders", "51") is not None
    page.keyboard.press("Escape")
    expect(reject).to_contain_text("admitted")  # the page shows it


def test_a_folder_that_is_chosen_keeps_its_paths(page: playwright.Page, folder: Path) -> None:
    for path in ("orders/2025-04-01.csv", "order_items/2025-04-01.csv"):
        file = folder / "export" / path
        file.parent.mkdir(parents=True)
        file.write_bytes(orders(order(900)))
    go(page, "/")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(folder / "export")
    for path in ("orders/2025-04-01.csv", "order_items/2025-04-01.csv"):
        name = f"Path of export/{path} in the raw zone"
        expect(page.get_by_label(name)).to_have_value(path)


def test_a_run_shows_its_path_and_all_states_on_a_click(page: playwright.Page, lake: Lake) -> None:
    failed = next(run for run in lake.runs.recent() if run.failed)
    go(page, f"/run?run={failed.run_id}")
    page.get_by_text("The states of the execution").click()
    drawings = page.locator(".graph svg")
    expect(drawings.first.locator(".failed").first).to_contain_text("RunGlueJob")
    expect(drawings).to_have_count(1)
    page.get_by_text("All states").click()
    expect(drawings.nth(1).locator(".done")).to_contain_text("HandleGlueJobFailure")
    expect(drawings.nth(1).locator(".skipped")).to_contain_text("Done")


def test_a_run_is_undone_after_its_plan_was_seen(
    page: playwright.Page, shop: Shop, lake: Lake
) -> None:
    run_id = deliver(shop, {"orders/undo.csv": orders(order(60), order(61))})
    go(page, f"/run?run={run_id}")
    page.get_by_role("button", name="Undo this run").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("The tables would go back by one run.")
    assert lake.tables.row("orders", "60") is not None
    dialog.get_by_role("button", name="Undo this run").click()
    expect(dialog).to_contain_text("The tables went back by one run.")
    assert lake.tables.row("orders", "60") is None


def test_sql_shows_an_error_at_its_place_then_an_answer(page: playwright.Page) -> None:
    go(page, "/sql")
    write(page, "SELECT order_id,\n  amuont FROM clean_orders")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("line 2:3")
    expect(page.locator(".sql-error")).to_have_text("amuont")
    write(page, "SELECT order_id, total_amount FROM clean_orders WHERE order_id = '1'")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".ag-cell").first).to_have_text("1")
    expect(page.locator(".ag-right-aligned-cell")).to_have_text("10.0")
    expect(page.locator(".past", has_text="order_id = '1'")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="All rows as CSV").click()
    text = Path(download.value.path()).read_text()
    assert text.splitlines() == ['"order_id","total_amount"', '"1","10.0"']
    assert "query=SELECT+order_id" in page.url


def test_sql_completes_the_names_of_tables(page: playwright.Page) -> None:
    go(page, "/sql")
    write(page, "SELECT 1 FROM clean_ord")
    page.keyboard.press("Control+Space")
    expect(page.locator(".cm-tooltip-autocomplete")).to_contain_text("clean_orders_items")


def test_a_statement_that_changes_data_shows_its_plan_and_may_be_refused(
    page: playwright.Page, shop: Shop
) -> None:
    go(page, "/sql")
    write(page, "DELETE FROM clean_orders WHERE order_id = '1'")
    page.get_by_role("button", name="Run", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("sql: 1 row")
    dialog.get_by_role("button", name="Cancel").click()
    write(page, "DELETE FROM clean_orders -- refuse")
    page.get_by_role("button", name="Run", exact=True).click()
    refused = page.get_by_role("dialog").filter(has_text="two rows with the key 1")
    expect(refused).to_be_visible()
    expect(refused.get_by_role("button", name="Change data")).to_have_count(0)


def test_a_failed_run_begins_with_its_cause(page: playwright.Page, shop: Shop, lake: Lake) -> None:
    failed = next(run for run in lake.runs.recent() if run.failed and "-" in run.run_id)
    cause = "JobError: the double was told to fail"
    failures = [run for run in lake.runs.recent() if run.failed]
    run = next(
        run for run in failures if cause in str(lake.runs.record(run.run_id, "summary.json"))
    )
    go(page, f"/run?run={run.run_id}")
    expect(page.get_by_role("alert")).to_contain_text(cause)
    expect(page.locator("#main")).to_contain_text("Nothing was archived")
    assert failed


def test_the_life_of_a_key_is_read_without_an_execution(page: playwright.Page, lake: Lake) -> None:
    before = [execution["name"] for execution in lake.executions(50)]
    go(page, "/key?dataset=orders&key=1")
    expect(page.locator("#main")).to_contain_text("when the order was placed, UTC")
    page.get_by_role("button", name="Show each version").click()
    expect(page.locator("#main")).to_contain_text("clean_orders 1: 1 version, 0 rejects.")
    expect(page.locator("#main")).to_contain_text("inserted")
    assert [execution["name"] for execution in lake.executions(50)] == before


# --------------------------------------------------------------------------------------------------
# Hostile input
# --------------------------------------------------------------------------------------------------
def test_names_and_cells_that_hold_html_are_shown_as_text(
    page: playwright.Page, lake: Lake
) -> None:
    for address in ("/", "/runs?view=all", "/rejects?status=any", "/files"):
        go(page, address)
    (row,) = lake.rejects.page(Filters(file=HOSTILE_FILE, status="any"))
    file = urllib.parse.quote(HOSTILE_FILE)
    for address in (f"/run?run={row['run_id']}", f"/rejects?file={file}&status=any"):
        go(page, address)
        expect(page.locator("#main")).to_contain_text(HOSTILE)
        expect(page.locator("#main")).to_contain_text(HOSTILE_CELL)
    go(page, f"/file?path={file}")
    expect(page.locator("h1")).to_have_text(HOSTILE_FILE)
    expect(page.locator(".lines")).to_contain_text(HOSTILE_CELL)
    assert page.locator("#main img:not([src^=data])").count() == 0
    assert page.locator("#main script").count() == 0


def test_columns_of_an_answer_may_have_any_name(page: playwright.Page) -> None:
    go(page, "/sql")
    write(page, f'SELECT \'alert(3)\' AS ":onload", \'{HOSTILE}\' AS "<b>x</b>", 1 AS "a.b"')
    page.get_by_role("button", name="Run", exact=True).click()
    cells = page.locator(".ag-cell")
    expect(cells.nth(0)).to_have_text("alert(3)")
    expect(cells.nth(1)).to_have_text(HOSTILE)
    expect(cells.nth(2)).to_have_text("1")
    expect(page.locator(".ag-header")).to_contain_text("<b>x</b>")


def test_addresses_that_hold_scripts_or_quotes_are_texts(page: playwright.Page) -> None:
    go(page, "/rejects?text=' OR 1=1 --&run=<script>alert(4)</script>")
    expect(page.locator("#main")).to_contain_text("No row is like this.")
    page.goto("/run?run=../../x<script>alert(5)</script>")
    expect(page.locator("h1")).to_have_text("No such run")


# --------------------------------------------------------------------------------------------------
# The server
# --------------------------------------------------------------------------------------------------
def test_requests_of_other_sites_are_refused(server: Server) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(server.url, headers=headers))
        assert refused.value.code == 403


@pytest.mark.parametrize(
    ("origin", "status"), [("http://evil.example", b"403"), (None, b"101"), ("null", b"403")]
)
def test_websockets_of_other_sites_are_refused(
    server: Server, origin: str | None, status: bytes
) -> None:
    lines = [
        "GET /_nicegui_ws/socket.io/?EIO=4&transport=websocket HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        f"Origin: {origin or server.url}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        assert connection.recv(64).split()[1] == status


def test_the_server_is_not_reached_from_other_machines(server: Server) -> None:
    with socket.socket() as probe:
        probe.settimeout(5)
        assert probe.connect_ex(("127.0.0.2", server.port)) != 0


def test_two_browsers_see_the_same_run(
    browser: playwright.Browser, server: Server, shop: Shop
) -> None:
    pages = [opened(browser, server) for _ in range(2)]
    for page in pages:
        go(page, "/")
    run_id = deliver(shop, {"orders/both.csv": orders(order(70))})
    for page in pages:
        expect(page.locator(f"tr a[href='/run?run={run_id}']")).to_be_visible()
        page.context.close()


def test_a_page_goes_on_after_the_server_was_restarted(
    page: playwright.Page, server: Server, shop: Shop
) -> None:
    go(page, "/")
    server.stop()
    run_id = deliver(shop, {"orders/restart.csv": orders(order(80))})
    server.start()
    expect(page.locator(f"tr a[href='/run?run={run_id}']")).to_be_visible()


# --------------------------------------------------------------------------------------------------
# Accessibility and privacy
# --------------------------------------------------------------------------------------------------
PAGES = (
    "/",
    "/runs",
    "/rejects?status=any",
    "/files",
    "/key?dataset=orders&key=1",
    "/sql",
    "/tables",
)


@pytest.mark.parametrize("address", [*PAGES, "run", "/file?path=orders/2025-04-01.csv"])
def test_pages_are_readable_at_400_pixels(
    browser: playwright.Browser, server: Server, lake: Lake, address: str
) -> None:
    page = opened(browser, server, 400)
    go(page, f"/run?run={lake.runs.recorded(1)[0].run_id}" if address == "run" else address)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.context.close()


AXE = Path(
    os.environ.get("AXE", ROOT / ".local" / "axe" / "node_modules" / "axe-core" / "axe.min.js")
)


@pytest.mark.skipif(
    not AXE.exists(), reason="axe-core is not here: make test-console fetches it by npm"
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", [*PAGES, "run", "/file?path=orders/2025-04-01.csv"])
def test_axe_finds_nothing_serious(
    browser: playwright.Browser, server: Server, lake: Lake, address: str, scheme: str
) -> None:
    page = opened(browser, server)
    page.emulate_media(color_scheme=scheme)
    go(page, f"/run?run={lake.runs.recorded(1)[0].run_id}" if address == "run" else address)
    page.evaluate(AXE.read_text("utf-8"))
    violations = page.evaluate("async () => (await axe.run()).violations")
    serious = [
        (
            violation["id"],
            [(node["target"], node["failureSummary"]) for node in violation["nodes"]][:2],
        )
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []
    page.context.close()


def test_a_reject_is_chosen_and_replayed_by_the_keyboard_alone(page: playwright.Page) -> None:
    go(page, "/rejects")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    checkbox = page.get_by_role("checkbox").first
    for _ in range(40):
        page.keyboard.press("Tab")
        if checkbox.evaluate("element => element === document.activeElement"):
            break
    page.keyboard.press("Space")
    expect(checkbox).to_be_checked()
    replay = page.locator(".rejects").get_by_role("button", name="Replay")
    for _ in range(10):
        page.keyboard.press("Shift+Tab")
        if replay.evaluate("element => element === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("rejected rows would be admitted")


def test_everything_comes_from_the_machine_itself(page: playwright.Page, server: Server) -> None:
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    for address in PAGES:
        go(page, address)
    outside = [url for url in urls if not url.startswith((server.url, "data:", "blob:"))]
    assert outside == []


def test_a_place_that_is_typed_opens_its_line(page: playwright.Page) -> None:
    go(page, "/files")
    page.get_by_label("part of the path, or path:line").fill("orders/2025-04-01.csv:4")
    page.keyboard.press("Enter")
    expect(page.locator(".asked")).to_contain_text("invalid_total_amount")


# The last test: its runs hide those of the others
def test_five_hundred_files_are_one_batch_and_all_arrive(page: playwright.Page, shop: Shop) -> None:
    names = [f"orders_{n}.csv" for n in range(498)]
    go(page, "/")
    all_names = [*names, "orders.csv", "orders.csv"]
    drop(page, [[name, orders(order(20_000 + n)).decode()] for n, name in enumerate(all_names)])
    page.get_by_role("button", name="Upload 500 files").click()
    expect(page.locator(".raw-zone")).to_contain_text("Your last upload: 500 files")
    expect(page.locator(".staged")).to_have_count(0)
    # A run may have read a part of them
    paths = [*shop.aws.keys("RawBucket"), *shop.aws.keys("ArchiveBucket")]
    assert {*names, "orders.csv", "orders-2.csv"} <= {path.split("/")[-1] for path in paths}
