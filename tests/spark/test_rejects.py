"""The circle: rejected rows are written as CSV, fixed, uploaded, and closed."""

from __future__ import annotations

import csv
import datetime as dt
import io
from typing import Any

import pytest

import glue_etl as etl
from client import rejects
from client.lake import Lake as Reader
from tests.corpus.cases import DELIVERED, item, order, product, text
from tests.corpus.cases import ITEMS as ITEMS_HEADER
from tests.corpus.cases import ORDERS as ORDERS_HEADER
from tests.corpus.cases import PRODUCTS as PRODUCTS_HEADER
from tests.model import RawFile
from tests.spark.conftest import Lake, check_equation

Row = dict[str, str]
PRODUCTS = [product("p1"), product(""), "p3,1,Food", product("p4", "'s-Tea")]
ORDERS = [order("o1", amount="x"), order(""), "1,o3,u1", order("o4", at="01/04/2025")]
ITEMS = [item("i1", "o1", "p1", days="3.5"), item("", "o2", "p2"), item("i3", "o3", "p3", at="")]
FILES = {
    "products/may.csv": text(PRODUCTS_HEADER, *PRODUCTS),
    "orders/may.csv": text(ORDERS_HEADER, *ORDERS, ORDERS_HEADER),
    "order_items/may.csv": text(ITEMS_HEADER, *ITEMS),
}
FIXES: dict[str, Row] = {  # by dataset and line what a person writes
    "products 3": {"product_id": "p2", "product_name": "'Earl' Grey"},
    "products 4": {"product_id": "p3", "department_id": "1", "department": "Food"},
    "orders 2": {"total_amount": "-4.00"},
    "orders 3": {"order_id": "o2"},
    "orders 4": {
        "order_num": "1",
        "order_id": "o3",
        "user_id": "u1",
        "order_timestamp": "2025-04-01T10:00:00",
    },
    "orders 5": {"order_timestamp": "2025-04-01T10:00:00"},
    "order_items 2": {"days_since_prior_order": "3"},
    "order_items 3": {"id": "i2"},
    "order_items 4": {"order_timestamp": "2025-04-01T10:00:00"},
}


def fixed(lake: Lake, at: dt.datetime, fixes: dict[str, Row], quoting: Any) -> list[RawFile]:
    """The open rejects as files, with some fixes made; rows without one are left as they are."""
    files = []
    for dataset, rows in rejects.rows_to_fix(
        rejects.open_rejects(Reader.in_folder(lake.folder))
    ).items():
        written, saved = io.StringIO(newline=""), io.StringIO(newline="")
        rejects.write_csv(written, dataset, rows)
        header, *lines = csv.reader(io.StringIO(written.getvalue(), newline=""))
        writer = csv.writer(saved, quoting=quoting)
        writer.writerow(header)
        for line, row in zip(lines, rows, strict=True):
            fix = fixes.get(f"{dataset} {row['line']}", {})
            cells = dict(zip(header, line, strict=True))
            cells |= {name: rejects.escaped(value) for name, value in fix.items()}
            writer.writerow(cells.values())
        path = rejects.file_name(dataset, f"at-{at:%H%M%S}")
        files.append(RawFile(path, saved.getvalue().encode("utf-8-sig"), at))
    return files


def statuses(lake: Lake) -> dict[str, list[str]]:
    """File and line of each rejected row, by status."""
    by_status: dict[str, list[str]] = {}
    for row in lake.records():
        by_status.setdefault(row.status, []).append(f"{row.dataset} {row.line}")
    return {status: sorted(places) for status, places in by_status.items()}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
def test_rejected_rows_fixed_and_uploaded_are_in_the_tables_and_none_is_open(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, quoting: int, large: bool
) -> None:
    lake.run([RawFile(path, content, DELIVERED) for path, content in FILES.items()])
    assert statuses(lake) == {"rejected": sorted([*FIXES, "orders 6"])}
    monkeypatch.setattr(etl, "LARGE_BYTES", 0 if large else etl.LARGE_BYTES)
    summary = lake.run(fixed(lake, DELIVERED + dt.timedelta(days=1), FIXES, quoting))
    check_equation(summary)
    assert statuses(lake) == {"superseded": sorted(FIXES), "rejected": ["orders 6"]}
    tables = lake.tables()
    assert {dataset: sorted(rows) for dataset, rows in tables.items()} == {
        "products": ["p1", "p2", "p3", "p4"],
        "orders": ["o1", "o2", "o3", "o4"],
        "order_items": ["i1", "i2", "i3"],
    }
    assert tables["products"]["p2"][3] == "'Earl' Grey"
    assert tables["products"]["p4"][3] == "'s-Tea"
    assert tables["orders"]["o1"][4] == -4.0


def test_rows_that_are_still_wrong_take_the_place_of_their_rejects(lake: Lake) -> None:
    """So uploading the files half done doubles no reject, and they can be fixed later."""
    lake.run([RawFile(path, content, DELIVERED) for path, content in FILES.items()])
    half = {place: fix for place, fix in FIXES.items() if place.startswith("orders")}
    lake.run(fixed(lake, DELIVERED + dt.timedelta(days=1), half, csv.QUOTE_ALL))
    places = statuses(lake)
    assert places["superseded"] == sorted(FIXES)
    assert len(places["rejected"]) == len(FIXES) - len(half) + 1
    assert lake.tables()["orders"].keys() == {"o1", "o2", "o3", "o4"}
