"""A lake that is a year old keeps all guarantees: its logs are cleaned, so that only checkpoints
tell, and its ledger and rejects are long."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import glue_etl as etl
from tests.old_lake import age
from tests.spark.conftest import Lake, check_equation, csv_file
from tests.spark.kills import kill_in_process
from tests.spark.operations import OperatedLake
from tests.spark.test_guarantees import ORDERS, first_delivery, job_arguments, order

COMMITS, FILES, REJECTS = 120, 5_000, 2_000


def first_files() -> list[Any]:
    bad = csv_file("orders/bad.csv", ORDERS + order("bad", amount="x"), 5)
    return [*first_delivery(), bad]


@pytest.fixture(scope="module")
def aged(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first delivery, and a year of commits after it."""
    folder = tmp_path_factory.mktemp("aged")
    Lake(folder).run(first_files())
    age(
        folder / "lakehouse-dwh",
        folder / "rejected",
        commits=COMMITS,
        files=FILES,
        rejects=REJECTS,
    )
    return folder


@pytest.fixture
def lake(aged: Path, tmp_path: Path) -> OperatedLake:
    shutil.copytree(aged, tmp_path, dirs_exist_ok=True)
    lake = OperatedLake(tmp_path)
    lake.runs = 1
    return lake


def versions(lake: Lake) -> dict[str, int]:
    return {name: etl.DeltaLog(lake.path(name)).latest() for name in etl.schemas()}


def test_what_was_delivered_a_year_ago_is_a_duplicate_and_nothing_is_written(
    lake: OperatedLake,
) -> None:
    before = versions(lake)
    renamed = [replace(file, path=f"{file.path[:-4]} (1).csv") for file in first_files()]
    summary = lake.run(first_files() + renamed)
    assert summary["status"] == "NOTHING_NEW"
    assert summary["files"]["duplicate"] == len(renamed) * 2
    assert versions(lake) == before


def test_a_forced_file_does_not_double_its_rejects(lake: OperatedLake) -> None:
    before, tables = len(lake.records()), lake.tables()
    summary = lake.run(first_files(), force=True)
    check_equation(summary)
    assert len(lake.records()) == before
    assert lake.tables() == tables


def test_a_killed_load_is_healed_and_the_counts_are_right(lake: OperatedLake) -> None:
    rejects = len(lake.records())
    text = ORDERS + order("new") + order("o1", amount="77") + order("bad2", amount="x")
    raw = lake.write([csv_file("orders/new.csv", text, 200)], lake.folder / "raw-new")
    arguments = job_arguments(raw, lake.folder, "killed")
    kill_in_process(etl.main, "committed clean_orders", arguments)
    summary = lake.run_on(raw, "healed")
    check_equation(summary)
    assert len(lake.records()) == rejects + 1
    orders = lake.tables()["orders"]
    assert orders["new"] and orders["o1"][4] == 77.0
    assert summary["tables"]["clean_orders"]["rows"] == len(orders)


def test_a_rollback_goes_to_the_last_run_and_not_behind_the_cleaned_log(
    lake: OperatedLake,
) -> None:
    lake.run([csv_file("orders/new.csv", ORDERS + order("new"), 200)])
    tables = lake.tables()
    lake.run([csv_file("orders/newer.csv", ORDERS + order("newer"), 300)])
    assert "its log was cleaned" in lake.refusal("rollback", to="run-1")
    lake.operate("rollback", undo="run-3")
    assert lake.tables() == tables
