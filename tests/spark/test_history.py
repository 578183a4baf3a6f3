"""The history of a lake that the real job has made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from client import history
from client.lake import Lake
from tests.spark.conftest import csv_file
from tests.spark.operations import OperatedLake
from tests.spark.test_guarantees import ORDERS, order
from tests.spark.test_operations import deliveries


def test_the_history_shows_runs_files_and_each_version_of_a_key(spark: Any, tmp_path: Path) -> None:
    lake, folder = OperatedLake(tmp_path), Lake.in_folder(tmp_path)
    lake.load(deliveries()[0])
    older = ORDERS + order("o1", "2025-03-31T10:00:00", "1") + order("o1", amount="7")
    lake.load([csv_file("orders/2.csv", older, 11)])
    lake.operate("sql", sql="UPDATE clean_orders SET total_amount = 9", author="ann")
    before = lake.versions()
    runs = history.of_lake(folder).plain()["rows"]
    assert [(run["run_id"], run["operation"], run["author"]) for run in runs] == [
        ("op-1", "sql", "ann"),
        ("run-2", "load", None),
        ("run-1", "load", None),
    ]
    assert runs[0]["versions"]["clean_orders"] == before["clean_orders"]

    answer = history.of_key(folder, "clean_orders", "o1").plain()
    assert answer["text"] == "clean_orders o1: 3 versions, 0 rejects."
    versions = [row for row in answer["rows"] if "version" in row]
    assert [(row["run_id"], row["row"]["total_amount"]) for row in versions] == [
        ("run-1", 5.0),
        ("run-2", 7.0),
        ("op-1", 9.0),
    ]
    assert (versions[0]["file"], versions[0]["line"]) == ("orders/1.csv", 2)
    assert (versions[1]["file"], versions[1]["line"]) == ("orders/2.csv", 3)
    assert versions[2]["why"].startswith("sql by ann")
    (lost,) = (row for row in answer["rows"] if "superseded" in row)
    assert (lost["file"], lost["line"]) == ("orders/2.csv", 2) and "older" in lost["why"]

    run, first, *others = history.of_run(folder, "op-1").plain()["rows"]
    assert run["stands"] and first["record_key"] == "o1" and others == []
    assert (first["before"]["total_amount"], first["after"]["total_amount"]) == ("7.0", "9.0")
    file = history.of_file(folder, "orders/2.csv")
    assert file.text.startswith("orders/2.csv: loaded by run-2; it lies at ")
    assert file.text.endswith(f"{tmp_path}/archived/run=run-2/orders/2.csv.")
    with pytest.raises(history.HistoryError, match="No run has seen"):
        history.of_file(folder, "orders/nothing.csv")
    assert lake.versions() == before


def test_a_parked_item_has_its_own_file_and_line_and_a_rollback_is_a_deletion(
    spark: Any, tmp_path: Path
) -> None:
    lake, folder = OperatedLake(tmp_path), Lake.in_folder(tmp_path)
    lake.load(deliveries()[0])
    lake.load(deliveries()[5])  # the order that item i3 waits for
    lake.operate("rollback", undo="run-2", author="ann")
    answer = history.of_key(folder, "order_items", "i3").plain()
    inserted, deleted, reject = answer["rows"]
    assert (inserted["change"], inserted["run_id"]) == ("inserted", "run-2")
    assert deleted["change"] == "deleted" and deleted["why"].startswith("rollback by ann")
    assert (reject["status"], reject["reasons"]) == ("parked", ["orphan_order"])
    stands = {run["run_id"]: run["stands"] for run in history.of_lake(folder).rows}
    assert stands == {"run-1": True, "run-2": False, "op-1": True}
    forgotten = history.of_file(folder, "orders/6.csv").text
    assert forgotten.startswith("orders/6.csv: loaded by run-2, which was undone; it lies at ")
    assert forgotten.endswith("No table contains rows of it.")
