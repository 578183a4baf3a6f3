"""The six tables of the recording: small, the same on every machine, with NULLs, ties, odd texts
and reused keys."""

from __future__ import annotations

import datetime as dt
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

DATABASE = "delta-lakehouse"
STAMP = pa.timestamp("us", tz="UTC")
KINDS = {
    "string": pa.string(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": STAMP,
    "array<string>": pa.list_(pa.string()),
    "map<string,string>": pa.map_(pa.string(), pa.string()),
    "map<string,bigint>": pa.map_(pa.string(), pa.int64()),
}
COLUMNS = {
    "clean_products": "product_id string, department_id string, department string, product_name "
    "string",
    "clean_orders": "order_num string, order_id string, user_id string, order_timestamp timestamp, "
    "total_amount double, date date",
    "clean_orders_items": "id string, order_id string, user_id string, days_since_prior_order int, "
    "product_id string, add_to_cart_order int, reordered boolean, order_timestamp timestamp, date "
    "date",
    "rejected_records": "run_id string, dataset string, status string, reasons array<string>, "
    "record_key string, order_id string, product_id string, file_path string, file_etag string, "
    "file_size bigint, file_modified timestamp, line bigint, raw string, fields "
    "map<string,string>, "
    "resolved_run_id string",
    "ingested_files": "run_id string, dataset string, file_path string, file_etag string, "
    "file_size bigint, "
    "file_modified timestamp, outcome string, reason string, rows_read bigint, inserted bigint, "
    "updated bigint, unchanged bigint, superseded bigint, rejected bigint, parked bigint, "
    "ingested_at timestamp",
    "etl_runs": "run_id string, operation string, status string, started_at timestamp, "
    "finished_at timestamp, summary string, table_versions map<string,bigint>",
}
PARTITIONS = {
    "clean_orders": ["date"],
    "clean_orders_items": ["date"],
    "rejected_records": ["status"],
}
START = dt.datetime(2025, 4, 1, tzinfo=dt.UTC)
DEPARTMENTS = ["Dairy", "Bakery", "Fruit & Veg", "Café", None]
NAMES = ["Milk 1l", 'Bread, "white"', "Äpfel", "50% off", "a_b", "", None, "Tea\tbag", "  oats "]


def _products() -> list[list[Any]]:
    return [
        [f"p{n}", f"d{n % 4}", DEPARTMENTS[n % 5], NAMES[n % 9] and f"{NAMES[n % 9]} {n}"]
        for n in range(1, 31)
    ]


def _order_time(n: int) -> dt.datetime:
    return START + dt.timedelta(hours=7 * n, minutes=13 * n % 60, milliseconds=n * 37 % 1000)


def _orders() -> list[list[Any]]:
    return [
        [
            str(n % 100),
            f"o{n}",
            f"u{n * 7 % 13}",
            _order_time(n),
            None if n % 17 == 0 else n * 37 % 400 / 4 + 10,
            _order_time(n).date(),
        ]
        for n in range(1, 121)
    ]


def _items() -> list[list[Any]]:
    rows: list[list[Any]] = []
    for n in range(1, 301):
        order = n * 11 % 118 + 1
        time = _order_time(order)
        days = None if n % 5 == 0 else n * 3 % 31
        product = f"p{n * n % 29 + 1}"
        rows.append(
            [f"i{n}", f"o{order}", f"u{order * 7 % 13}", days, product, n % 4 + 1, n % 3 == 0]
            + [time, time.date()]
        )
    return rows


def _rejected() -> list[list[Any]]:
    reasons = [["invalid_date"], ["missing_id", "invalid_date"], ["orphan_order"]]
    reasons += [["orphan_order", "orphan_product"], ["too_few_fields"], []]
    rows = []
    for n in range(1, 25):
        fields = None if n % 6 == 4 else [("id", f"i{n}"), ("order_id", f"o{n + 500}")]
        status = "parked" if n % 6 in (2, 3) else "rejected"
        rows.append(
            [f"run-{n % 4}", ["orders", "order_items", "products"][n % 3], status, reasons[n % 6]]
            + [f"k{n}", f"o{n + 500}" if n % 2 else None, f"p{n + 90}" if n % 3 else None]
            + [f"order_items/2025-04-{n:02}.csv", f"{n:032x}", n * 100, START, n]
            + [f"{n},o{n + 500},u1,,p1,1,0,soon", fields, None if n % 5 else "run-3"]
        )
    return rows


def _files() -> list[list[Any]]:
    rows = []
    for n in range(1, 21):
        read = n * 10
        rows.append(
            [f"run-{n % 4}", ["orders", "order_items", "products"][n % 3]]
            + [f"data/2025-04-{n:02}.csv", f"{n:032x}", n * 1000, START + dt.timedelta(days=n)]
            + ["duplicate" if n % 10 == 0 else "loaded", None if n % 10 else "same bytes", read]
            + [read - n % 4, n % 2, 0, 0, n % 3, 0, START + dt.timedelta(days=n, seconds=n)]
        )
    return rows


def _runs() -> list[list[Any]]:
    rows = []
    for n in range(4):
        summary = {
            "run_id": f"run-{n}",
            "datasets": {"orders": {"rows_read": n * 4, "dates": ["2025-04-01", "2025-04-02"]}},
            "timings": {"read": 1.5 * n, "merge": 4.25},
            "first": n == 0,
            "note": None,
        }
        started = START + dt.timedelta(days=n, hours=12)
        rows.append(
            [f"run-{n}", "rollback" if n == 3 else "load", "FAILED" if n == 2 else "SUCCEEDED"]
            + [started, None if n == 2 else started + dt.timedelta(seconds=90 + n)]
            + [json.dumps(summary), [("clean_orders", n), ("clean_products", 1)]]
        )
    return rows


ROWS = {
    "clean_products": _products,
    "clean_orders": _orders,
    "clean_orders_items": _items,
    "rejected_records": _rejected,
    "ingested_files": _files,
    "etl_runs": _runs,
}


def build(
    folder: Path | str, storage_options: dict[str, str] | None = None, shuffled: bool = False
) -> dict[str, str]:
    """Write the tables below a folder, or below an S3 prefix; table name -> location.

    shuffled  lay the rows in another order, which no answer may depend on
    """
    for name, columns in COLUMNS.items():
        fields = [tuple(text.split(" ")) for text in columns.split(", ")]
        rows = ROWS[name]()
        if shuffled:
            random.Random(name).shuffle(rows)
        data = pa.table(
            {
                n: pa.array([row[i] for row in rows], KINDS[kind])
                for i, (n, kind) in enumerate(fields)
            }
        )
        write_deltalake(
            f"{folder}/{name}",
            data,
            partition_by=PARTITIONS.get(name),
            configuration={"delta.minReaderVersion": "1", "delta.minWriterVersion": "2"},
            storage_options=storage_options,
        )
    return {name: f"{folder}/{name}" for name in COLUMNS}
