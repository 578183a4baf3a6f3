"""The pages as a person uses them, without a browser: each page shows the result of an operation,
reports an error in a sentence, and loses no staged file."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
import zipfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nicegui import ui

from console.data import Lake
from console.operations import UPLOADS, Operator
from tests.console.conftest import deliver
from tests.console.test_trouble import LOOKS, TROUBLES, StandIn, app, look, see, testing
from tests.console.world import Shop, order, orders

uploads = pytest.importorskip("nicegui.elements.upload_files")
upload = pytest.importorskip("console.pages.upload")
interaction = pytest.importorskip("nicegui.testing.user_interaction")
Steps = Callable[[Any], Awaitable[None]]


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def console(shop: Shop, stand_in: StandIn) -> Any:
    lake = Lake(stand_in.place(shop))
    return look.Console(lake, Operator(lake, allowed=True, author="ann"))


def visit(console: Any, steps: Steps) -> None:
    async def run() -> None:
        async with testing.user_simulation() as user:
            app.register(console)
            await steps(user)

    asyncio.run(run())


def button(user: Any, text: str) -> Any:
    """Return the newest button with this text or label."""
    buttons = [
        element
        for element in user.find(ui.button).elements
        if text in (element.text, element.props.get("aria-label"))
    ]
    return interaction.UserInteraction(user, {max(buttons, key=lambda element: element.id)}, None)


async def submit(user: Any, field: str, text: str) -> None:
    """Write to the field of a form, and press Enter."""
    user.find(field).type(text)
    (element,) = user.find(field).elements
    (form,) = [ancestor for ancestor in element.ancestors() if ancestor.tag == "form"]
    interaction.UserInteraction(user, {form}, None).trigger("submit.prevent")


async def taken(user: Any, *files: tuple[str, bytes]) -> None:
    """Pass files to the drop zone, as the browser does."""
    (zone,) = user.find(ui.upload).elements
    await zone.handle_uploads(
        [uploads.SmallFileUpload(name, "text/csv", body) for name, body in files]
    )


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the logged errors, except those of tasks that end with their page."""
    texts = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    return [text for text in texts if not text.startswith("Could not cancel")]


# --------------------------------------------------------------------------------------------------
# Uploads
# --------------------------------------------------------------------------------------------------
def test_a_folder_is_checked_then_uploaded_and_its_result_is_a_sentence(
    shop: Shop, console: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def steps(user: Any) -> None:
        await user.open("/")
        await see(user, "Needs attention")
        body = orders(order(800), order(801, "abc"))
        await taken(
            user,
            ("shop/orders/a.csv", body),
            ("orders/a.csv", orders(order(802))),
            ("readme.txt", b"hello"),
        )
        await see(user, "3 files, 1 would be set aside; 3 rows, 1 would be rejected.")
        await user.should_see("orders, 2 rows, of which 1 would be rejected")
        await user.should_see("Its path can be changed here, for example to orders/readme.txt.")
        values = [field.value for field in user.find(ui.input).elements]
        assert sorted(values) == ["orders/a-2.csv", "orders/a.csv", "readme.txt"]
        button(user, "Upload 3 files to the raw zone").click()
        await see(user, "Your last upload: 3 files: 2 loaded (2 inserted, 1 rejected)")
        await user.should_see("1 set aside")
        await see(user, "Empty: all files were read.")

    visit(console, steps)
    assert console.lake.tables.row("orders", "802") is not None
    assert errors(caplog) == []


def test_a_file_whose_name_is_taken_stays_in_the_list_with_the_reason(
    shop: Shop, console: Any
) -> None:
    async def steps(user: Any) -> None:
        await user.open("/")
        await see(user, "1 file (")
        await taken(user, ("orders/waits.csv", orders(order(811))))
        await see(user, "Upload 1 file to the raw zone")
        button(user, "Upload 1 file to the raw zone").click()
        await see(user, "orders/waits.csv lies in the raw zone already")
        await user.should_see("Upload 1 file to the raw zone")

    shop.hold.clear()
    try:
        shop.aws.upload("orders/waits.csv", orders(order(810)))
        visit(console, steps)
    finally:
        shop.hold.set()
        shop.aws.wait_until_idle(120)
    console.lake.forget()
    assert console.lake.tables.row("orders", "810") is not None
    assert console.lake.tables.row("orders", "811") is None


def test_many_files_are_one_batch_and_all_arrive(shop: Shop, console: Any) -> None:
    async def steps(user: Any) -> None:
        await user.open("/")
        await see(user, "Needs attention")
        files = [(f"orders/many-{at}.csv", orders(order(1000 + at))) for at in range(60)]
        await taken(user, *files[:30])
        await see(user, "Upload 30 files to the raw zone")
        await taken(user, *files[30:])
        await see(user, "Upload 60 files to the raw zone")
        button(user, "Upload 60 files to the raw zone").click()
        await see(user, "Your last upload: 60 files: 60 loaded")

    visit(console, steps)
    console.lake.forget()
    rows = console.lake.athena.run(
        "SELECT count(*) FROM clean_orders WHERE CAST(order_id AS bigint) BETWEEN 1000 AND 1059"
    ).rows
    assert rows == (("60",),)


def test_a_zip_file_is_unpacked_and_files_without_a_good_row_are_told(console: Any) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("orders-to-fix.csv", orders(order(830)))
        archive.writestr("folder/order_items_1.csv", b"no header\n")

    async def steps(user: Any) -> None:
        await user.open("/")
        await see(user, "Needs attention")
        await taken(user, ("damaged.zip", b"PK\x03\x04"), ("orders/x.csv", orders(order(1, "abc"))))
        await see(user, upload.NONE_LOADED)
        await taken(user, ("rejects-to-fix.zip", packed.getvalue()))
        await see(user, "Upload 4 files to the raw zone")
        await user.should_not_see(upload.NONE_LOADED)
        values = [field.value for field in user.find(ui.input).elements]
        assert sorted(values) == [
            "damaged.zip",
            "order_items_1.csv",
            "orders-to-fix.csv",
            "orders/x.csv",
        ]

    visit(console, steps)


def test_an_upload_shows_its_progress_and_what_is_cancelled_stays_in_the_list(
    shop: Shop, console: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = threading.Event(), threading.Event()
    send = console.operator.upload

    def slow(path: str, stream: Any) -> None:
        begun.set()
        assert goes_on.wait(60)
        send(path, stream)

    monkeypatch.setattr(console.operator, "upload", slow)

    async def steps(user: Any) -> None:
        await user.open("/")
        await see(user, "Needs attention")
        files = [(f"orders/c-{at}.csv", orders(order(1200 + at))) for at in range(UPLOADS + 4)]
        await taken(user, *files)
        await see(user, f"Upload {UPLOADS + 4} files to the raw zone")
        button(user, f"Upload {UPLOADS + 4} files to the raw zone").click()
        await see(user, f"0 of {UPLOADS + 4} files")
        await asyncio.to_thread(begun.wait, 60)
        button(user, "Cancel").click()
        goes_on.set()
        await see(user, "Upload 4 files to the raw zone")

    try:
        visit(console, steps)
    finally:
        goes_on.set()
        shop.aws.wait_until_idle(120)


# --------------------------------------------------------------------------------------------------
# Operations
# --------------------------------------------------------------------------------------------------
def test_a_discard_names_its_rows_and_the_page_shows_it_with_author_and_reason(
    shop: Shop, console: Any, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(shop, {"orders/discard.csv": orders(order(820, "abc"))})

    async def steps(user: Any) -> None:
        await user.open("/rejects?file=orders/discard.csv")
        await see(user, "orders/discard.csv:2")
        button(user, "Discard").click()
        await see(user, "Discard 1 row")
        await submit(user, "Why", "a test of the supplier")
        await see(user, "1 row would be discarded.")
        button(user, "Discard 1 row").click()
        await see(user, "1 row were discarded.")
        button(user, "Close").click()
        await see(user, "No row is like this.")
        await user.open("/rejects?file=orders/discard.csv&status=any")
        await see(user, "Discarded by ann: a test of the supplier")

    visit(console, steps)
    assert errors(caplog) == []


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_aws_refuses_to_a_button_is_a_sentence(
    console: Any, stand_in: StandIn, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def steps(user: Any) -> None:
        await user.open("/tables?table=clean_orders")
        await see(user, "2025-04-02")
        await see(user, "Optimize")
        stand_in.trouble = trouble
        button(user, "Optimize").click()
        await see(user, TROUBLES[trouble][2])
        stand_in.trouble = ""
        await user.should_see("Close")

    visit(console, steps)
    assert errors(caplog) == []


def test_a_mistake_of_the_console_is_a_sentence_and_in_its_log(
    console: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> str:
        raise ZeroDivisionError("one by nothing")

    async def steps(user: Any) -> None:
        await user.open("/")
        await see(user, "Run now")
        button(user, "Run now").click()
        for _ in range(LOOKS):
            if user.notify.messages:
                break
            await asyncio.sleep(0.1)
        assert "The console made a mistake" in user.notify.messages[0]
        await see(user, "Needs attention")

    monkeypatch.setattr(console.operator, "load", broken)
    visit(console, steps)
    assert errors(caplog) == ["a fault of the console"]


def test_a_long_plan_is_stopped_as_soon_as_nobody_waits_for_it(shop: Shop, console: Any) -> None:
    async def steps(user: Any) -> None:
        await user.open("/tables?table=clean_orders")
        await see(user, "Optimize")
        button(user, "Optimize").click()
        await see(user, "Watch the execution")
        for dialog in user.find(ui.dialog).elements:
            dialog.close()  # as Escape does
        for _ in range(LOOKS):
            if not console.lake.executions(10, "RUNNING"):
                return
            await asyncio.sleep(0.1)
        raise AssertionError("the plan is still running")

    shop.hold.clear()
    try:
        visit(console, steps)
    finally:
        shop.hold.set()
        shop.aws.wait_until_idle(120)


# --------------------------------------------------------------------------------------------------
# What pages show
# --------------------------------------------------------------------------------------------------
def test_a_place_opens_its_line(console: Any) -> None:
    async def steps(user: Any) -> None:
        await user.open("/file?path=orders/2025-04-01.csv&line=4")
        await see(user, "invalid_total_amount")
        (marked,) = [
            element for element in user.find(ui.element).elements if "asked" in element.classes
        ]
        assert "out" in marked.classes

    visit(console, steps)


def test_rejects_link_to_their_line(console: Any) -> None:
    async def steps(user: Any) -> None:
        await user.open("/rejects?file=orders/2025-04-01.csv")
        await see(user, "orders/2025-04-01.csv:4")
        (link,) = user.find("orders/2025-04-01.csv:4").elements
        assert link.props["href"] == "/file?path=orders%2F2025-04-01.csv&line=4"

    visit(console, steps)


def test_each_table_has_a_page_the_records_too(console: Any) -> None:
    async def steps(user: Any) -> None:
        await user.open("/tables?table=etl_runs")
        await see(user, "every load and operation that changed the tables")
        await see(user, "table_versions")
        for name in ("rejected_records", "ingested_files", "corrections"):
            await user.should_see(name)

    visit(console, steps)


def test_what_needs_attention_is_dismissed_with_a_reason(console: Any) -> None:
    async def steps(user: Any) -> None:
        await user.open("/")
        await see(user, "stock.csv: unknown_dataset")
        button(user, "Dismiss stock.csv: unknown_dataset").click()
        await see(user, "It returns when the number grows.")
        await submit(user, "Why", "no file of ours")
        await see(user, "stock.csv: unknown_dataset: no file of ours (ann, ")

    visit(console, steps)
