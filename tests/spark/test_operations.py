"""Operations, by what they promise: corrections, rollbacks, replays, maintenance, history."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.model import RawFile
from tests.spark.conftest import csv_file
from tests.spark.operations import OperatedLake
from tests.spark.test_guarantees import ITEMS, ORDERS, PRODUCTS, item, order


@pytest.fixture
def lake(job: ModuleType, spark: Any, tmp_path: Path) -> OperatedLake:
    return OperatedLake(job, tmp_path)


def deliveries() -> list[list[RawFile]]:
    """Ten small deliveries: news, corrections, ties, rejects, a file set aside, a late parent."""
    return [
        [
            csv_file("products.csv", PRODUCTS + "p1,1,Books,Pen\np2,1,Books,Ink\n", 1),
            csv_file("orders/1.csv", ORDERS + order("o1") + order("", "bad"), 2),
            csv_file("order_items/1.csv", ITEMS + item("i1", "o1") + item("i3", "o9"), 3),
        ],
        [csv_file("orders/2.csv", ORDERS + order("o1", amount="7") + order("o2"), 11)],
        [csv_file("order_items/2.csv", ITEMS + item("i2", "o2", "p2") + item("i1", "o1"), 21)],
        [csv_file("products.csv", PRODUCTS + "p1,1,Books,Pencil\n", 31)],
        [csv_file("letters.csv", "nothing of ours\n", 41)],
        [csv_file("orders/6.csv", ORDERS + order("o9"), 51)],
        [csv_file("orders/1.csv", ORDERS + order("o1", amount="8") + order("o3", "worse"), 61)],
        [csv_file("order_items/8.csv", ITEMS + item("i3", "o9", days="5"), 71)],
        [csv_file("products_9.csv", PRODUCTS + "p3,2,Food,Tea\np1,1,Books,Pen\n", 81)],
        [csv_file("order_items/10.csv", ITEMS + item("i4", "o1", "p3") + item("i5", "o5"), 91)],
    ]


def test_a_rollback_to_each_earlier_run_is_the_state_of_that_time_and_replay_brings_all_back(
    lake: OperatedLake,
) -> None:
    states = []
    for files in deliveries():
        lake.load(files)
        states.append(lake.state())
    for number in (9, 7, 3, 1):
        lake.operate("rollback", to=f"run-{number}")
        assert lake.state() == states[number - 1], number


def test_a_dry_run_says_what_a_rollback_would_do_and_writes_nothing(lake: OperatedLake) -> None:
    for files in deliveries()[:2]:
        lake.load(files)
    before = lake.versions()
    summary = lake.operate("rollback", to="run-1", dry_run=True, author="ann")
    assert lake.versions() == before
    told = summary["operation"]
    assert told["plan"]["tables"]["clean_orders"] == {
        "from": 1, "to": 0, "rows": 2, "rows_then": 1,
    }  # fmt: skip
    assert told["text"] == (
        "The tables would go back to the state after run-1: 1 run taken back. "
        "1 file can be replayed from the archive."
    )
    assert (told["author"], told["dry_run"], told["effect"]) == ("ann", True, {})
