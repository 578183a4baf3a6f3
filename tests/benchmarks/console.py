"""How long each page of the console takes on a large lake: `python -m tests.benchmarks.console`.

The lake is made here: as many runs and rejected rows as asked for, in Delta tables, an execution
for each run, on a local AWS without Spark. Each page is opened in Chromium, once after a start of
the console, when nothing is remembered yet, and once more. The time is that until all is shown. At
last 500 files are dropped and uploaded.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from client import SetupError
from local.aws.kept import StateFolder
from tests.browser import browser
from tests.console.browser import Server
from tests.console.world import OUTCOMES, Shop, order, orders

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ROWS = 2_000  # of the orders in the table
FILES = 500  # that are uploaded
PART = 100  # of the runs whose rows are written together
PAGES = {
    "home": "/",
    "runs": "/runs",
    "runs, page 10": "/runs?offset=450",
    "run": "/run?run={run}",
    "rejects": "/rejects",
    "rejects, page 1,000": "/rejects?status=any&offset=24975",
    "rejects of a reason": "/rejects?reason=invalid_date",
    "rejects with a text": "/rejects?text=order-4711",
    "files": "/files",
    "file": "/file?path=orders/500.csv",
    "key": "/key?dataset=orders&key=4711",
    "tables": "/tables?table=clean_orders",
    "sql": "/sql",
}


def run_id(number: int) -> str:
    return f"run-{number:05}"


def summary_of(number: int, rejected: int) -> dict[str, Any]:
    zero = {**dict.fromkeys(("rows_read", "admitted", *OUTCOMES), 0), "rejected_by_reason": {}}
    orders = {"rows_read": 1000 + rejected, "inserted": 1000, "rejected": rejected}
    table = {"version": number, "rows": 1000 * number, "schema_changed": False, "dates": []}
    return {
        "run_id": run_id(number),
        "status": "SUCCEEDED",
        "error": None,
        "files": {"listed": 1, "loaded": 1, "set_aside_by_reason": {}},
        "datasets": {"products": zero, "orders": zero | orders, "order_items": zero},
        "tables": {
            name: {**table, "files_added": 1, "files_removed": 0}
            for name in ("clean_products", "clean_orders", "clean_orders_items")
        },
        "timings": {},
    }


def fill(shop: Shop, runs: int, rejects: int) -> None:
    """The tables, a part of the runs at a time, as runs would have left them."""
    each = max(rejects // runs, 1)
    for first in range(0, runs, PART):
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in shop.schemas}
        for number in range(first, min(first + PART, runs)):
            when = START + dt.timedelta(hours=number)
            file = {
                "file_path": f"orders/{number}.csv",
                "file_digest": f"{number:064}",
                "file_size": 1000,
                "file_modified": when,
            }
            origin = {"run_id": run_id(number), "dataset": "orders", **file}
            counts = {**dict.fromkeys(OUTCOMES, 0), "inserted": 1000, "rejected": each}
            result = {"outcome": "loaded", "rows_read": 1000 + each, "ingested_at": when}
            rows["ingested_files"].append({**origin, **counts, **result})
            rows["rejected_records"] += [
                {**origin, **reject(number * each + line), "line": line} for line in range(each)
            ]
            record = {
                "run_id": run_id(number),
                "operation": "load",
                "status": "SUCCEEDED",
                "started_at": when,
                "finished_at": when + dt.timedelta(minutes=2),
                "summary": json.dumps(summary_of(number, each)),
            }
            rows["etl_runs"].append(record)
        for name, table_rows in rows.items():
            if table_rows:
                data = pa.Table.from_pylist(table_rows, shop.schemas[name])
                write_deltalake(shop.folder / shop.path_of(name), data, mode="append")
    orders = [
        {"order_id": str(key), "user_id": "1", "order_timestamp": START, "date": START.date()}
        for key in range(4000, 4000 + ROWS)
    ]
    data = pa.Table.from_pylist(orders, shop.schemas["clean_orders"])
    write_deltalake(shop.folder / shop.path_of("clean_orders"), data, mode="append")
    shop.copy()


def reject(number: int) -> dict[str, Any]:
    bad = "invalid_date" if number % 3 else "invalid_total_amount"
    key = f"order-{number}"
    fields = {"order_id": key, "total_amount": "abc", "date": "soon"}
    return {
        "status": "parked" if number % 50 == 0 else "rejected",
        "reasons": [bad],
        "record_key": key,
        "raw": f"1,{key},7,2025-04-01T10:00:00,abc,soon",
        "fields": list(fields.items()),
    }


def execute(shop: Shop, runs: int) -> None:
    """An execution for each run."""
    state_folder = StateFolder(shop.aws, shop.folder)
    machine = shop.aws.name("StateMachine").replace(":stateMachine:", ":execution:")
    for number in range(runs):
        when = START + dt.timedelta(hours=number)
        state_folder._restore_execution(
            {
                "name": run_id(number),
                "arn": f"{machine}:{run_id(number)}",
                "status": "SUCCEEDED",
                "startDate": when.isoformat(),
                "stopDate": (when + dt.timedelta(minutes=2)).isoformat(),
                "input": "[]",
                "output": {},
                "error": None,
                "cause": None,
                "events": [],
            }
        )
        shop.put(run_id(number), "summary.json", json.dumps(summary_of(number, 100)))


@contextmanager
def chromium_page(server: Server) -> Iterator[Any]:
    """Open Chromium at a page of the console, so that it has loaded the libraries."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        program = started.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        page = program.new_page(viewport={"width": 1360, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(server.url + "/key")
        page.wait_for_selector("#main h1")
        yield page
        program.close()


def measure(server: Server, last: str) -> list[tuple[str, float]]:
    """Return the seconds until all of a page is shown, for each page."""
    seconds = []
    with chromium_page(server) as page:
        for name, address in PAGES.items():
            begun = time.monotonic()
            page.goto(server.url + address.format(run=last), wait_until="commit")
            page.wait_for_selector("#main h1")
            page.wait_for_function("() => !document.querySelector('.skeleton')")
            seconds.append((name, time.monotonic() - begun))
    return seconds


def measure_upload(server: Server) -> tuple[float, float]:
    """Return the seconds from the drop of FILES files until they are checked, and from the click
    until all are in the raw zone."""
    from tests.console.chromium import drop

    files = [[f"orders_{n}.csv", orders(order(20_000 + n)).decode()] for n in range(FILES)]
    with chromium_page(server) as page:
        page.goto(server.url + "/")
        page.wait_for_selector(".zone")
        begun = time.monotonic()
        drop(page, files)
        page.get_by_role("button", name=f"Upload {FILES} files").wait_for()
        checked = time.monotonic()
        page.get_by_role("button", name=f"Upload {FILES} files").click()
        page.get_by_text(f"{FILES} files uploaded.").first.wait_for()
        return checked - begun, time.monotonic() - checked


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.console")
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--rejects", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args(argv)
    if browser() is None:
        raise SetupError("This needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, Shop(Path(folder) / "lake") as shop:
        fill(shop, options.runs, options.rejects)
        execute(shop, options.runs)
        begun = time.monotonic()
        server = Server(shop.aws.endpoint, Path(folder) / "console.log").start()
        start = time.monotonic() - begun
        last = run_id(options.runs - 1)
        try:
            first, second = measure(server, last), measure(server, last)
            checked, sent = measure_upload(server)
            while any(execution["status"] == "RUNNING" for execution in shop.aws.executions()):
                time.sleep(0.1)
        finally:
            server.stop()
    print(f"{options.runs:,} runs, {options.rejects:,} rejected rows; started in {start:.1f} s")
    print(f"{'page':24}{'first':>8}{'again':>8}")
    for (name, first_seconds), (_, second_seconds) in zip(first, second, strict=True):
        print(f"{name:24}{first_seconds:7.2f}s{second_seconds:7.2f}s")
    print(f"{FILES} files: checked in {checked:.2f} s, uploaded in {sent:.2f} s")
    if options.out:
        report = {
            "start": start,
            "checked": checked,
            "sent": sent,
            "first": dict(first),
            "again": dict(second),
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SetupError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
