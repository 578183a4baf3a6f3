"""`python -m tests.images`: draws what `tests/pictures.py` names into docs/ and images/."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from client import ASL_FILE, ROOT, SetupError
from local.commands.run import play
from local.commands.up import console_server
from local.runtime import STATE
from tests.browser import browser
from tests.pictures import (
    IMAGES,
    documents,
    executed_svg,
    out_of_date,
)

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PATIENCE = 120_000  # milliseconds
CONSOLE_PAGES = {
    "home": "/",
    "run": "/run?run={run}",
    "rejects": "/rejects",
    "file": "/file?path=orders/2025-04-03.csv&line=194",
    "key": "/key?dataset=order_items&key=29",
    "sql": "/sql",
    "tables": "/tables?table=clean_orders",
}


def main(argv: Sequence[str]) -> int:
    """Draw what can be drawn from the given files; 1 where a check finds a picture out of date."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.images", description="Draw the pictures of the docs."
    )
    parser.add_argument(
        "--run", action="store_true", help="run the pipeline on this machine, and draw that run too"
    )
    parser.add_argument(
        "--history",
        type=Path,
        help="events of an execution (JSON of get-execution-history): draws executed.svg",
    )
    parser.add_argument("--out", type=Path, default=IMAGES, help="where to write them (images/)")
    parser.add_argument(
        "--check", action="store_true", help="draw nothing; tell which pictures are out of date"
    )
    options = parser.parse_args(argv)
    asl = json.loads(ASL_FILE.read_text("utf-8"))
    if options.check:
        old = out_of_date(ROOT, options.out, asl)
        print(
            "\n".join(f"{name} is out of date: make images" for name in old)
            or "the pictures are up to date"
        )
        return 1 if old else 0
    options.out.mkdir(parents=True, exist_ok=True)
    for path, page in documents(ROOT, asl).items():
        _write(path, page)
    if options.history:
        _write(options.out / "executed.svg", executed_svg(asl, events_of(options.history)))
    return draw_a_run(options.out, asl) if options.run else 0


def events_of(file: Path) -> list[dict[str, Any]]:
    """Return the events of a history as the AWS CLI writes it, which has its times as texts."""
    document = json.loads(file.read_text("utf-8"))
    events = document["events"] if isinstance(document, dict) else document
    return [{**event, "timestamp": _time(event["timestamp"])} for event in events]


def _time(value: str | float) -> dt.datetime:
    if isinstance(value, str):
        return dt.datetime.fromisoformat(value)
    return dt.datetime.fromtimestamp(value, dt.UTC)


def draw_a_run(out: Path, asl: Mapping[str, Any]) -> int:
    """Two deliveries of sample data through the pipeline; the first execution and the console
    become pictures. 1 where a run fails."""
    if browser() is None:
        raise SetupError(
            "The pictures of a run need Chromium: apt-get install chromium, then run this again"
        )
    with play() as (pipeline, succeeded):
        if not succeeded:
            return 1
        first = pipeline.aws.executions()[0]["executionArn"]
        _write(out / "executed.svg", executed_svg(asl, pipeline.aws.history(first)))
        console_pngs(pipeline.endpoint, pipeline.aws.executions()[-1]["name"], out)
    return 0


def console_pngs(endpoint: str, run_id: str, out: Path) -> None:
    """The console's pages, light and dark."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise SetupError(
            "The console's pictures need Playwright: make images installs it"
        ) from None
    with console_server(endpoint, 0) as console_line, sync_playwright() as started:
        url = console_line.rpartition(" ")[2]
        program = started.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        for scheme in SCHEMES:
            page = program.new_page(viewport={"width": 1360, "height": 860})
            page.emulate_media(color_scheme=scheme)
            page.set_default_timeout(PATIENCE)
            wait_for_server(url)
            for name, address in CONSOLE_PAGES.items():
                page.goto(url + address.format(run=run_id))
                page.wait_for_selector("#main h1")
                page.wait_for_function("() => !document.querySelector('.skeleton')")
                if name == "sql":
                    page.get_by_role("button", name="Run", exact=True).click()
                    page.wait_for_selector(".ag-cell")
                page.wait_for_timeout(500)  # fonts and images
                page.screenshot(path=out / f"console-{name}-{scheme}.png")
                print(out / f"console-{name}-{scheme}.png")
        program.close()


def wait_for_server(url: str) -> None:
    """Raises SetupError where nothing answers in time."""
    for _ in range(300):
        try:
            urllib.request.urlopen(url).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise SetupError(f"The console does not answer at {url}; see {STATE / 'console.log'}")


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    print(path)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SetupError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
