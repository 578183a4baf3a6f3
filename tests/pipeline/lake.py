"""A small fixed lake, whose figures can be checked by hand: five orders, six items, three products,
five rejected rows."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

import glue_etl as etl
from tests.arrow import schema_of

STAMP = pa.timestamp("us", tz="UTC")
TEXTS = pa.list_(pa.string())
FIELDS = pa.map_(pa.string(), pa.string())
WRITER_2 = {"delta.minReaderVersion": "1", "delta.minWriterVersion": "2"}


def ts(text: str) -> dt.datetime:
    """A UTC time from ISO text."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def _order(num: str, user: str, time: str, amount: float | None) -> tuple[object, ...]:
    return num, f"o{num}", user, ts(time), amount, ts(time).date()


def _item(
    n: int,
    order: str,
    user: str,
    days: int | None,
    product: str,
    cart: int,
    reordered: bool,
    time: str,
) -> tuple[object, ...]:
    return f"i{n}", order, user, days, product, cart, reordered, ts(time), ts(time).date()


def _reject(
    run: str,
    dataset: str,
    status: str,
    reasons: list[str],
    line: int,
    raw: str,
    fields: dict[str, str] | None,
) -> tuple[object, ...]:
    return (
        run,
        dataset,
        status,
        reasons,
        f"{dataset}.csv",
        line,
        raw,
        list(fields.items()) if fields else None,
    )


def _run(run: str, day: int, orders: dict[str, int]) -> tuple[object, ...]:
    summary = {
        "run_id": run,
        "datasets": {"orders": orders},
        "timings": {"read": 1.5, "merge": 4.25},
    }
    return (
        run,
        "load",
        "SUCCEEDED",
        ts(f"2025-04-0{day}T12:00:00"),
        ts(f"2025-04-0{day}T12:01:30"),
        json.dumps(summary),
        [("clean_orders", day)],
    )


ORDERS = [
    _order("1", "u1", "2025-04-01T10:00:00", 260.0),
    _order("2", "u2", "2025-04-01T23:30:00", 40.0),
    _order("3", "u1", "2025-04-02T08:15:00", 100.0),
    _order("4", "u3", "2025-04-03T00:00:00", None),
    _order("5", "u2", "2025-05-01T12:00:00.123456", 10.5),
]
ITEMS = [
    _item(1, "o1", "u1", None, "p1", 1, False, "2025-04-01T10:00:00"),
    _item(2, "o1", "u1", None, "p2", 2, False, "2025-04-01T10:00:00"),
    _item(3, "o2", "u2", None, "p1", 1, True, "2025-04-01T23:30:00"),
    _item(4, "o3", "u1", 1, "p1", 1, True, "2025-04-02T08:15:00"),
    _item(5, "o3", "u1", 1, "p3", 2, False, "2025-04-02T08:15:00"),
    _item(6, "o5", "u2", 30, "p2", 1, True, "2025-05-01T12:00:00.123456"),
]
PRODUCTS = [
    ("p1", "d1", "Dairy", "Milk"),
    ("p2", "d2", "Bakery", 'Bread, "white"'),
    ("p3", "d1", "Dairy", None),
]
REJECTS = [
    _reject(
        "run-1",
        "orders",
        "rejected",
        ["invalid_total_amount"],
        3,
        "9,o9,u9,2025-04-01T10:00:00,abc,2025-04-01",
        {"order_id": "o9", "total_amount": "abc"},
    ),
    _reject(
        "run-1",
        "order_items",
        "rejected",
        ["missing_id", "invalid_date"],
        7,
        ",o1,u1,,p1,1,0,2025-04-01T10:00:00,soon",
        {"id": "", "date": "soon"},
    ),
    _reject(
        "run-1",
        "order_items",
        "parked",
        ["orphan_order"],
        8,
        "i7,o7,u1,,p1,1,0,2025-04-01T10:00:00,2025-04-01",
        {"id": "i7", "order_id": "o7"},
    ),
    _reject(
        "run-2",
        "order_items",
        "parked",
        ["orphan_order", "orphan_product"],
        2,
        "i8,o8,u1,,p8,1,0,2025-04-01T10:00:00,2025-04-01",
        {"id": "i8", "order_id": "o8"},
    ),
    _reject("run-2", "products", "rejected", ["too_few_fields"], 4, "p9,d9", None),
]
RUNS = [
    _run("run-1", 1, {"rows_read": 4, "inserted": 3, "rejected": 1}),
    _run("run-2", 2, {"rows_read": 2, "inserted": 2, "rejected": 0}),
]
TABLES: dict[str, tuple[list[tuple[str, pa.DataType]], list[tuple[object, ...]], list[str]]] = {
    "clean_products": (
        [(c, pa.string()) for c in ("product_id", "department_id", "department", "product_name")],
        PRODUCTS,
        [],
    ),
    "clean_orders": (
        [
            ("order_num", pa.string()),
            ("order_id", pa.string()),
            ("user_id", pa.string()),
            ("order_timestamp", STAMP),
            ("total_amount", pa.float64()),
            ("date", pa.date32()),
        ],
        ORDERS,
        ["date"],
    ),
    "clean_orders_items": (
        [
            ("id", pa.string()),
            ("order_id", pa.string()),
            ("user_id", pa.string()),
            ("days_since_prior_order", pa.int32()),
            ("product_id", pa.string()),
            ("add_to_cart_order", pa.int32()),
            ("reordered", pa.bool_()),
            ("order_timestamp", STAMP),
            ("date", pa.date32()),
        ],
        ITEMS,
        ["date"],
    ),
    "rejected_records": (
        [
            ("run_id", pa.string()),
            ("dataset", pa.string()),
            ("status", pa.string()),
            ("reasons", TEXTS),
            ("file_path", pa.string()),
            ("line", pa.int64()),
            ("raw", pa.string()),
            ("fields", FIELDS),
        ],
        REJECTS,
        ["status"],
    ),
    "etl_runs": (
        [
            ("run_id", pa.string()),
            ("operation", pa.string()),
            ("status", pa.string()),
            ("started_at", STAMP),
            ("finished_at", STAMP),
            ("summary", pa.string()),
            ("table_versions", pa.map_(pa.string(), pa.int64())),
        ],
        RUNS,
        [],
    ),
    "corrections": (
        [(field.name, field.type) for field in schema_of(etl.CORRECTIONS_DDL)],
        [],
        [],
    ),
}


def build(folder: Path | str, storage_options: dict[str, str] | None = None) -> dict[str, str]:
    """Write the lake below the folder, or below an S3 prefix; table name -> location."""
    for name, (columns, rows, partitions) in TABLES.items():
        schema = pa.schema([pa.field(n, kind) for n, kind in columns])
        data = pa.table(
            {
                n: pa.array([row[i] for row in rows], type=kind)
                for i, (n, kind) in enumerate(columns)
            },
            schema=schema,
        )
        write_deltalake(
            f"{folder}/{name}",
            data,
            partition_by=partitions or None,
            configuration=WRITER_2,
            storage_options=storage_options,
        )
    return {name: f"{folder}/{name}" for name in TABLES}
