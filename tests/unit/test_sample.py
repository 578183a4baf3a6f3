"""The made-up exports are what the demonstration and the benchmarks take them for."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import pytest

from samples.shop import Delivery, write_sample
from tests.benchmarks.exports import write_bench, write_bench_delivery
from tests.model import Lakehouse, RawFile


def raw_files(delivery: Delivery) -> list[RawFile]:
    """A delivery as the job sees it."""
    return [
        RawFile(
            path.relative_to(delivery.folder).as_posix(),
            path.read_bytes(),
            datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(tzinfo=None),
        )
        for path in delivery.files
    ]


@pytest.fixture(scope="module")
def sample_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lakehouse, list[dict]]:
    deliveries = write_sample(tmp_path_factory.mktemp("sample"))
    lakehouse = Lakehouse()
    return lakehouse, [lakehouse.run(raw_files(delivery)) for delivery in deliveries]


def test_both_deliveries_together_fill_the_tables_to_the_promised_size(
    sample_runs: tuple[Lakehouse, list[dict]],
) -> None:
    tables = sample_runs[0].tables
    assert {name: len(rows) for name, rows in tables.items()} == {
        "products": 1000,
        "orders": 7500,
        "order_items": 40_000,
    }
    assert {row[-1].isoformat() for row in tables["orders"].values()} == {
        f"2025-04-{day:02d}" for day in range(1, 16)
    }


def test_the_sample_holds_every_kind_of_row_and_file_trouble(
    sample_runs: tuple[Lakehouse, list[dict]],
) -> None:
    lakehouse, runs = sample_runs
    reasons = {reason for record in lakehouse.records.values() for reason in record.reasons}
    assert reasons == {
        "too_few_fields",
        "too_many_fields",
        "unclosed_quote",
        "invalid_utf8",
        "repeated_header",
        "date_mismatch",
        "missing_product_id",
        "missing_order_id",
        "missing_id",
        "missing_order_timestamp",
        "invalid_order_timestamp",
        "invalid_date",
        "invalid_total_amount",
        "invalid_days_since_prior_order",
        "invalid_add_to_cart_order",
        "invalid_reordered",
        "ambiguous_date",
        "ambiguous_order_timestamp",
        "orphan_order",
        "orphan_product",
    }
    assert {"loaded": 10, "duplicate": 1, "set_aside": 2}.items() <= runs[1]["files"].items()
    assert {entry.reason for entry in runs[1]["manifest"]} == {
        None,
        "truncated_gzip",
        "unknown_dataset",
    }


def test_late_items_are_admitted_and_corrections_replace_in_the_second_delivery(
    sample_runs: tuple[Lakehouse, list[dict]],
) -> None:
    lakehouse, (first, second) = sample_runs
    assert first["datasets"]["order_items"]["parked"] > 1000
    assert (
        second["datasets"]["order_items"]["admitted"]
        == first["datasets"]["order_items"]["parked"] - 4
    )
    assert len(lakehouse.parked) == 4
    assert second["datasets"]["orders"]["updated"] == 50
    assert second["datasets"]["products"]["updated"] == 10


def test_the_same_call_writes_the_same_bytes_and_times(tmp_path: Path) -> None:
    first_call, second_call = (write_sample(tmp_path / name) for name in ("one", "two"))
    assert [raw_files(delivery) for delivery in first_call] == [
        raw_files(delivery) for delivery in second_call
    ]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("items", [5_000, 4_999, 641])
def test_a_benchmark_has_the_items_asked_for_each_with_its_order_and_product(
    tmp_path: Path, items: int
) -> None:
    write_bench(tmp_path, items, days=5)
    orders = [row for path in sorted((tmp_path / "orders").iterdir()) for row in rows_of(path)]
    item_rows = [
        row for path in sorted((tmp_path / "order_items").iterdir()) for row in rows_of(path)
    ]
    assert [int(row["id"]) for row in item_rows] == list(range(1, items + 1))
    assert len(list((tmp_path / "orders").iterdir())) == 5
    by_id = {row["order_id"]: row for row in orders}
    assert len(by_id) == len(orders) and sorted(by_id) == list(by_id)
    products = {row["product_id"] for row in rows_of(tmp_path / "products.csv")}
    for row in item_rows:
        order = by_id[row["order_id"]]
        assert (row["order_timestamp"], row["date"], row["user_id"]) == (
            order["order_timestamp"],
            order["date"],
            order["user_id"],
        )
        assert row["product_id"] in products


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("base_items", [3_200, 3_001])
def test_a_benchmark_delivery_is_half_new_and_half_changed(
    tmp_path: Path, base_items: int, newer: bool, scattered: bool
) -> None:
    base = write_bench(tmp_path / "base", base_items, days=10)
    files = write_bench_delivery(
        tmp_path / "more", base_items, 10_000, days=10, scattered=scattered, newer=newer
    )
    lakehouse = Lakehouse()
    for number, (folder, paths) in enumerate(
        [(tmp_path / "base", base), (tmp_path / "more", files)]
    ):
        moment = datetime(2025, 5, 1 + number)
        raw = [
            RawFile(path.relative_to(folder).as_posix(), path.read_bytes(), moment)
            for path in paths
        ]
        counts = lakehouse.run(raw)
    assert counts["datasets"]["order_items"] | {"rejected_by_reason": 0} == {
        "rows_read": 100,
        "admitted": 0,
        "inserted": 50,
        "updated": 50,
        "unchanged": 0,
        "superseded": 0,
        "rejected": 0,
        "parked": 0,
        "conflicting": 0,
        "moved": 0,
        "rejected_by_reason": 0,
    }
    changed_days = {row["date"] for row in rows_of(files[2])}
    assert len(changed_days) == (10 if scattered else 3)
    assert {row["date"] for row in rows_of(files[1])} == {"2025-04-11"}
