"""An operation that is killed after any of its commits is finished, or taken back, by who comes
next: the same operation again, or a load."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import glue_operations
from tests.model import RawFile
from tests.spark.conftest import check_equation, csv_file
from tests.spark.kills import kill, kill_in_process
from tests.spark.operations import OperatedLake
from tests.spark.test_guarantees import ORDERS, order
from tests.spark.test_operations import deliveries

SQL = {"sql": "UPDATE clean_orders SET total_amount = 99 WHERE order_id = 'o1'"}
PARENT = {
    "sql": "INSERT INTO clean_orders SELECT '1', 'o9', 'u1', TIMESTAMP '2025-04-01 10:00:00', 5.0, "
    "DATE '2025-04-01'"
}
OPERATIONS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "rollback": (
        "rollback",
        {"to": "run-1"},
        ["intent written", "restored clean_orders", "committed etl_runs"],
    ),
    "correction": (
        "sql",
        SQL,
        [
            "intent written",
            "committed clean_orders",
            "committed corrections",
            "committed etl_runs",
        ],
    ),
    "replay of rows": (
        "replay",
        {"statuses": ["parked"]},
        [
            "intent written",
            "committed clean_orders_items",
            "settled rows",
            "committed etl_runs",
        ],
    ),
    "replay of files": (
        "replay",
        {"archived": {}},
        [
            "intent written",
            "committed rejected_records",
            "committed clean_orders",
            "settled rejected rows",
            "committed ingested_files",
            "committed etl_runs",
        ],
    ),
    "discard": (
        "replay",
        {"discard": True, "why": "tests of the shop", "statuses": ["rejected"], "author": "ann"},
        ["intent written", "settled rows", "committed etl_runs"],
    ),
    "optimize": (
        "optimize",
        {"tables": ["clean_orders", "ingested_files"], "min_files": 2},
        ["optimized clean_orders", "optimized ingested_files", "committed etl_runs"],
    ),
    "vacuum": (
        "vacuum",
        {},
        ["vacuumed clean_products", "vacuumed clean_orders", "committed etl_runs"],
    ),
}
CASES = [(name, step) for name, (_, _, steps) in OPERATIONS.items() for step in steps]


def prepared(folder: Path, name: str) -> OperatedLake:
    """A lake on which the operation has something to do."""
    lake = OperatedLake(folder)
    for files in deliveries()[:2]:
        lake.load(files)
    if name == "replay of rows":
        lake.operate("sql", **PARENT)
    if name == "replay of files":
        lake.operate("rollback", to="run-1")
    if name == "optimize":
        lake.load([csv_file("orders/8.csv", ORDERS + order("o8"), 150)])  # a second small file
    if name == "vacuum":
        leave_files(lake, "clean_products", "clean_orders")
    return lake


def leave_files(lake: OperatedLake, *tables: str) -> None:
    """Data files of a killed run, old enough to be removed."""
    for table in tables:
        file = next(Path(lake.path(table)).rglob("*.parquet"))
        shutil.copy(file, file.with_name("left-by-a-crash.parquet"))
        os.utime(file.with_name("left-by-a-crash.parquet"), (0, 0))


def next_delivery() -> list[RawFile]:
    return [csv_file("orders/7.csv", ORDERS + order("o7") + order("o2", amount="6"), 200)]


@dataclass(frozen=True)
class Template:
    """A lake before an operation, and states: after it, after it and a load, after a load alone."""

    before: OperatedLake
    done: dict[str, list[str]]
    done_and_load: dict[str, list[str]]
    load_alone: dict[str, list[str]]


Templates = Callable[[str], Template]


@pytest.fixture(scope="module")
def templates(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Templates:
    """The template of an operation by its name, made once."""
    return functools.cache(functools.partial(template, tmp_path_factory.mktemp))


def template(folder: Callable[[str], Path], name: str) -> Template:
    operation, options, _ = OPERATIONS[name]
    before = prepared(folder("before"), name)
    after = copied(before, folder("after"))
    assert glue_operations.main(after.arguments(operation, "killed", **options)) == 0
    done = after.state()
    after.load(next_delivery())
    alone = copied(before, folder("alone"))
    alone.load(next_delivery())
    return Template(before, done, after.state(), alone.state())


def copied(lake: OperatedLake, folder: Path) -> OperatedLake:
    shutil.copytree(lake.folder, folder, dirs_exist_ok=True)
    other = OperatedLake(folder)
    other.runs, other.asked = lake.runs, lake.asked
    return other


def check_killed(folder: Path, templates: Templates, name: str, step: str, hard: bool) -> None:
    """Kill, then a load on one copy, and the operation again on another."""
    expected = templates(name)
    operation, options, _ = OPERATIONS[name]
    lake = copied(expected.before, folder / "lake")
    arguments = lake.arguments(operation, "killed", **options)
    (kill if hard else kill_in_process)(glue_operations.main, step, arguments)
    assert not (lake.folder / "runs" / "killed" / "summary.json").exists()
    other = copied(lake, folder / "other")

    assert glue_operations.main(arguments) == 0
    summary = lake.summary("killed")
    check_equation(summary)
    assert summary["status"] == "SUCCEEDED" and summary["operation"]["name"] == operation
    assert lake.state() == expected.done
    assert not list(lake.folder.rglob("left-by-a-crash.parquet"))
    runs = [row.run_id for row in lake.rows("etl_runs")]
    assert runs.count("killed") == 1

    check_equation(other.load(next_delivery()))
    stands = name == "rollback" or step == "committed etl_runs"
    assert other.state() == (expected.done_and_load if stands else expected.load_alone)
    rows = [row.run_id for row in other.rows("etl_runs")]
    assert rows.count("killed") == int(stands)
    corrections = [row.run_id for row in other.rows("corrections")]
    assert corrections.count("killed") == int(stands and operation == "sql")


@pytest.mark.long
@pytest.mark.parametrize("name, step", CASES, ids=[f"{name}, {step}" for name, step in CASES])
def test_a_killed_operation_is_finished_or_taken_back_by_who_comes_next(
    tmp_path: Path, templates: Templates, name: str, step: str
) -> None:
    check_killed(tmp_path, templates, name, step, hard=False)


HARD = [("rollback", "restored clean_orders"), ("correction", "committed clean_orders")]


@pytest.mark.long
@pytest.mark.parametrize("name, step", HARD, ids=[name for name, _ in HARD])
def test_a_sigkill_leaves_what_the_tests_above_stop_at(
    tmp_path: Path, templates: Templates, name: str, step: str
) -> None:
    check_killed(tmp_path, templates, name, step, hard=True)
