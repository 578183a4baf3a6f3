"""Helpers that use the console's pages in Chromium as a person does.

Importing this module skips the tests of a file if Playwright or Chromium is not installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.browser import browser
from tests.console.browser import Server

pytest.importorskip("nicegui", reason="the console is not installed: make test-console installs it")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: make test-console installs it"
)
if browser() is None:
    pytest.skip("there is no Chromium here: apt-get install chromium", allow_module_level=True)
expect = playwright.expect
PATIENCE = int(os.environ.get("PATIENCE", 60_000))  # milliseconds; the machine may be busy
expect.set_options(timeout=PATIENCE)

DROP = """(zone, [kind, files]) => {
  const data = new DataTransfer();
  for (const [name, text] of files) data.items.add(new File([text], name, {type: "text/csv"}));
  const how = {dataTransfer: data, bubbles: true, cancelable: true};
  zone.dispatchEvent(new DragEvent(kind, how));
}"""


@contextmanager
def started() -> Iterator[playwright.Browser]:
    """Start Chromium without a window."""
    with playwright.sync_playwright() as driver:
        program = driver.chromium.launch(
            executable_path=browser(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield program
        program.close()


def opened(program: playwright.Browser, server: Server, width: int = 1280) -> playwright.Page:
    """Return an empty page of a fresh profile; its `alerts` are the texts of scripts' dialogs."""
    context = program.new_context(
        base_url=server.url, viewport={"width": width, "height": 900}, accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.set_default_navigation_timeout(PATIENCE)
    alerts: list[str] = []
    page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    page.alerts = alerts  # type: ignore[attr-defined]
    return page


def go(page: playwright.Page, address: str) -> None:
    """Open a page and wait until all of it is shown."""
    page.goto(address)
    expect(page.locator("#main h1").first).to_be_visible()
    expect(page.locator(".skeleton")).to_have_count(0)


def drop(page: playwright.Page, files: list[list[str]]) -> None:
    """Drag files, as pairs of name and text, over the page and drop them."""
    page.locator(".zone").evaluate(DROP, ["dragover", files])
    page.locator(".zone").evaluate(DROP, ["drop", files])


def write(page: playwright.Page, sql: str) -> None:
    """Replace the statement in the editor."""
    page.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(sql)
    page.wait_for_timeout(300)  # the editor sends its text after a pause
