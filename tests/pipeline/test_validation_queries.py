"""The state machine's own checks, run by a reader of the tables that is not Spark: each finds what
it looks for."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

import glue_etl as etl
from local.athena import Athena

DEFINITION = Path(__file__).resolve().parents[2] / "stepfunctions" / "delta-lake.json"
SQL = json.loads(DEFINITION.read_text("utf-8"))["States"]["PrepareChecks"]["Result"]
DAY, OTHER_DAY = "2025-04-01", "2025-04-02"


def columns_of(
    names: tuple[str, ...], rows: list[tuple[str | None, ...]]
) -> dict[str, tuple[str | None, ...]]:
    return dict(zip(names, zip(*rows, strict=True), strict=True))


class Lake:
    """Three tables with few columns, to be broken by a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.products: list[str | None] = ["p1", "p2"]
        self.orders: list[tuple[str | None, ...]] = [("o1", DAY), ("o2", OTHER_DAY)]
        self.items: list[tuple[str | None, ...]] = [
            ("i1", "o1", "p1", DAY),
            ("i2", "o2", "p2", OTHER_DAY),
        ]

    def check(
        self, name: str, *dates: str, rows: tuple[int, int, int] = (2, 2, 2)
    ) -> tuple[int, str]:
        """Violations and detail of one of the state machine's queries."""
        values = (
            rows
            if name == "row_counts"
            else (
                dates[0],
                dates[-1],
                json.dumps(etl._days(f"date={day}/x" for day in dates)),
            )
            if dates
            else ()
        )
        result = Athena(self.write()).query(SQL[name].format(*values))
        assert result.names == ["violations", "detail"]
        ((violations, detail),) = result.rows
        return int(violations), detail

    def write(self) -> dict[str, str]:
        columns = {
            "clean_products": {"product_id": self.products},
            "clean_orders": columns_of(("order_id", "date"), self.orders),
            "clean_orders_items": columns_of(("id", "order_id", "product_id", "date"), self.items),
        }
        for name, by_column in columns.items():
            table = pa.table(
                {
                    column: pa.array(list(values), pa.string())
                    for column, values in by_column.items()
                }
            )
            if "date" in by_column:
                table = table.set_column(
                    table.schema.get_field_index("date"), "date", table["date"].cast(pa.date32())
                )
            write_deltalake(
                str(self.folder / name),
                table,
                mode="overwrite",
                partition_by=["date"] if "date" in by_column else None,
            )
        return {name: str(self.folder / name) for name in columns}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


@pytest.mark.parametrize(
    "name, dates",
    [("products", ()), ("orders", (DAY,)), ("order_items", (DAY, OTHER_DAY)), ("row_counts", ())],
)
def test_sound_tables_have_no_violation(lake: Lake, name: str, dates: tuple[str, ...]) -> None:
    assert lake.check(name, *dates)[0] == 0


def test_a_product_that_is_there_twice_is_found(lake: Lake) -> None:
    lake.products += ["p1", None]
    violations, detail = lake.check("products")
    assert (
        violations == 2 and "duplicate product_id: 1" in detail and "null product_id: 1" in detail
    )


def test_an_order_that_is_there_twice_is_found_where_the_run_touched_its_partition(
    lake: Lake,
) -> None:
    lake.orders.append(("o2", OTHER_DAY))
    assert lake.check("orders", DAY)[0] == 0
    assert lake.check("orders", DAY, OTHER_DAY) == (1, "duplicate order_id: 1, null order_id: 0")


def test_a_twin_in_another_touched_partition_is_found(lake: Lake) -> None:
    lake.orders.append(("o1", OTHER_DAY))
    assert lake.check("orders", DAY, OTHER_DAY)[0] == 1


def test_a_partition_between_two_touched_ones_is_not_read(lake: Lake) -> None:
    lake.orders += [("o3", "2025-04-03"), ("o2", OTHER_DAY)]
    assert lake.check("orders", DAY, "2025-04-03")[0] == 0


def test_an_item_without_its_order_or_product_is_found(lake: Lake) -> None:
    lake.items += [("i3", "o9", "p1", DAY), ("i4", "o1", "p9", DAY)]
    violations, detail = lake.check("order_items", DAY)
    assert violations == 2
    assert "order_id without a row in clean_orders: 1" in detail
    assert "product_id without a row in clean_products: 1" in detail


def test_an_item_without_a_key_is_found_once(lake: Lake) -> None:
    lake.items.append(("i3", None, "p1", DAY))
    assert lake.check("order_items", DAY)[0] == 1


def test_rows_that_were_lost_since_the_run_are_counted_and_rows_of_a_later_run_are_not(
    lake: Lake,
) -> None:
    violations, detail = lake.check("row_counts", rows=(2, 5, 1))
    assert violations == 3 and "rows lost from clean_orders: 3" in detail


def test_the_last_good_delivery_and_the_oldest_waiting_row_of_each_dataset_are_found(
    tmp_path: Path,
) -> None:
    """A file of which every row was rejected is no good delivery, and a rejected row does not
    wait."""
    noon = dt.datetime(2025, 4, 1, 12, tzinfo=dt.UTC)
    hours = [noon + dt.timedelta(hours=number) for number in range(4)]
    stamp = pa.timestamp("us", "UTC")
    ledger = {
        "dataset": ["orders", "orders", "products"],
        "rows_read": [3, 2, 4],
        "rejected": [1, 0, 4],
        "ingested_at": pa.array([hours[0], hours[1], hours[3]], stamp),
    }
    records = {
        "dataset": ["order_items", "order_items", "orders"],
        "status": ["parked", "parked", "rejected"],
        "file_modified": pa.array([hours[2], hours[1], hours[0]], stamp),
    }
    tables = {"ingested_files": ledger, "rejected_records": records}
    for name, columns in tables.items():
        write_deltalake(str(tmp_path / name), pa.table(columns))
    answer = Athena({name: str(tmp_path / name) for name in tables}).query(SQL["freshness"])
    assert answer.names == ["what", "moment"]
    assert sorted(answer.text_rows()) == [
        ["orders", "2025-04-01T13:00:00.000Z"],
        ["parked order_items", "2025-04-01T13:00:00.000Z"],
    ]
