"""A damaged lake: no run goes on with what is left, and a rebuild makes it whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import glue_etl as etl
import glue_operations
from local.aws.job import job_arguments
from tests.old_lake import age
from tests.spark.conftest import csv_file
from tests.spark.kills import kill_in_process
from tests.spark.operations import RESTORED, OperatedLake
from tests.spark.test_guarantees import ORDERS, first_delivery, order
from tests.spark.test_operations import deliveries

Damage = Callable[[Path], str]
ADVICE = "or rebuild all tables from the archive with the operation `rebuild`"
NAMES = ["clean_orders", "rejected_records", "ingested_files"]


def last_commit(table: Path) -> Path:
    return sorted((table / "_delta_log").glob("*.json"))[-1]


def cut(file: Path) -> str:
    """Leave the first half of a file; Hadoop's checksums of files know the whole one."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    for checksum in file.parent.glob(".*.crc"):
        checksum.unlink()
    return file.name


def remove(path: Path) -> str:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return path.name


def empty(file: Path) -> str:
    file.write_bytes(b"")
    return f"{file.name} is empty"


def data_file(table: Path) -> Path:
    return sorted(table.rglob("*.parquet"))[0]


def last_checkpoint(table: Path) -> Path:
    return sorted((table / "_delta_log").glob("*.checkpoint.parquet"))[-1]


def gone(version: int) -> str:
    return f"was left at version {version} by the run run-1 and is gone"


YOUNG: dict[str, Damage] = {
    "last commit gone": lambda table: remove(last_commit(table)) and gone(0),
    "last commit empty": lambda table: empty(last_commit(table)),
    "last commit half": lambda table: cut(last_commit(table)),
    "log gone": lambda table: remove(table / "_delta_log") and gone(0),
    "table gone": lambda table: remove(table) and gone(0),
    "data file gone": lambda table: remove(data_file(table)),
    "data file half": lambda table: cut(data_file(table)),
}
OLD: dict[str, Damage] = {
    "checkpoint half": lambda table: cut(last_checkpoint(table)),
    "checkpoint gone": lambda table: remove(last_checkpoint(table)) and table.name,
    "last commit gone": lambda table: (
        remove(last_commit(table))
        and "was left at version 31 by the run run-2 and is at version 30"
    ),
}


@pytest.fixture(scope="module")
def whole(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A lake after its first run, and one with 30 commits a table whose logs were cleaned."""
    young = OperatedLake(tmp_path_factory.mktemp("young"))
    young.run(first_delivery())
    old = OperatedLake(tmp_path_factory.mktemp("old"))
    shutil.copytree(young.folder, old.folder, dirs_exist_ok=True)
    age(old.folder / "lakehouse-dwh", old.folder / "rejected", commits=30)
    old.runs = 1
    old.run([csv_file("orders/9.csv", ORDERS + order("o8") + order("", "bad"), 900)])
    return {"young": young.folder, "old": old.folder}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("base", "damage"),
    [
        pytest.param(base, damage, id=f"{base} lake, {kind}")
        for base, kinds in (("young", YOUNG), ("old", OLD))
        for kind, damage in kinds.items()
    ],
)
def test_a_load_into_a_damaged_lake_fails_and_names_what_is_lost(
    whole: dict[str, Path], tmp_path: Path, base: str, damage: Damage, name: str
) -> None:
    lake = OperatedLake(tmp_path / "lake")
    shutil.copytree(whole[base], lake.folder)
    named = damage(Path(lake.path(name)))
    before = {name: sorted(Path(lake.path(name)).rglob("*.json")) for name in RESTORED}
    lake.runs = 2
    next_file = csv_file("orders/1.csv", ORDERS + order("o1", amount="9") + order("", "bad"), 999)
    error = lake.run([next_file], expect=1)["error"]
    assert named in error and ADVICE in error, error
    assert {name: sorted(Path(lake.path(name)).rglob("*.json")) for name in RESTORED} == before


def test_an_operation_on_a_damaged_lake_is_refused(lake: OperatedLake) -> None:
    lake.load(first_delivery())
    remove(Path(lake.path("clean_products")))
    for name, options in (
        ("sql", {"sql": "SELECT * FROM clean_orders"}),
        ("rollback", {"undo": "run-1"}),
        ("optimize", {}),
        ("vacuum", {}),
        ("replay", {"archived": {}}),
    ):
        assert gone(0) in lake.refusal(name, **options)


@pytest.fixture
def lake(spark: Any, tmp_path: Path) -> OperatedLake:
    return OperatedLake(tmp_path / "lake")


def open_rows(lake: OperatedLake) -> list[tuple[str, int, str]]:
    rows = [(row.file_path, row.line, row.status) for row in lake.records()]
    return sorted(row for row in rows if row[2] in ("rejected", "parked"))


def test_a_lake_without_its_tables_is_rebuilt_from_the_archive(lake: OperatedLake) -> None:
    for files in deliveries():
        lake.load(files)
    tables, still_open = lake.tables(), open_rows(lake)
    shutil.rmtree(lake.folder / "lakehouse-dwh")
    next_file = csv_file(
        "products/11.csv", "product_id,department_id,department,product_name\n", 200
    )
    assert "clean_orders was left at version" in lake.run([next_file], expect=1)["error"]
    plan = lake.operate("rebuild", dry_run=True)["operation"]["plan"]
    assert not Path(lake.path("clean_orders")).exists()
    operation = lake.operate("rebuild")["operation"]
    assert operation["plan"]["files"] == plan["files"] == 12
    assert "Corrections by `sql`, discarded rows and rollbacks" in operation["text"]
    assert lake.tables() == tables and open_rows(lake) == still_open
    (aside,) = (lake.folder / "rejected" / "damaged").iterdir()
    assert (aside / "rejected_records" / "_delta_log").is_dir()
    assert lake.run([next_file])["status"] == "SUCCEEDED"


def test_an_empty_environment_is_filled_from_the_archive_of_ten_deliveries(
    lake: OperatedLake, tmp_path: Path
) -> None:
    """With what `make restore` copies: archived and rejected files, the manifests of the runs."""
    assert len(deliveries()) == 10
    for files in deliveries():
        lake.load(files)
    new = OperatedLake(tmp_path / "new")
    for folder, files in (("archived", "*"), ("rejected/files", "*"), ("runs", "manifest.jsonl")):
        for path in (lake.folder / folder).rglob(files):
            if path.is_file():
                target = new.folder / path.relative_to(lake.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    assert not (new.folder / "lakehouse-dwh").exists()
    new.operate("rebuild")
    assert new.tables() == lake.tables() and open_rows(new) == open_rows(lake)
    assert lake.tables()["orders"]
    header = csv_file("products/11.csv", "product_id,department_id,department,product_name\n", 200)
    assert new.run([header])["status"] == "SUCCEEDED"


def test_a_killed_rebuild_lets_no_run_go_on_but_a_rebuild(lake: OperatedLake) -> None:
    for files in deliveries()[:3]:
        lake.load(files)
    tables = lake.tables()
    remove(Path(lake.path("clean_orders")))
    kill_in_process(
        glue_operations.main, "committed clean_products", lake.arguments("rebuild", "killed")
    )
    raw = lake.folder / "raw-none"
    raw.mkdir()
    assert etl.main(job_arguments(raw, lake.folder, "load")) == 1
    assert "start `rebuild` again" in lake.summary("load")["error"]
    assert "start `rebuild` again" in lake.operate("optimize", expect=1)["error"]
    lake.operate("rebuild")
    assert lake.tables() == tables and not (lake.folder / "runs" / etl.INTENT).exists()


def test_a_rebuild_without_an_archive_leaves_the_tables(lake: OperatedLake) -> None:
    lake.run(first_delivery())
    assert "the archive holds none" in lake.refusal("rebuild")
