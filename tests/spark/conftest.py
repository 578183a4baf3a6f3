"""One Spark for all tests of this folder: the deployed script, run in this process on folders."""

from __future__ import annotations

import json
import os
from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

import glue_etl as etl
from local.aws.job import job_arguments
from local.runtime import spark_environment
from tests.model import RawFile

FAST = {
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
    # hundreds of lakes in one session: it must not keep what it knows of each
    "spark.databricks.delta.delta.log.cacheSize": "20",
    "spark.sql.ui.retainedExecutions": "10",
    "spark.ui.retainedJobs": "10",
    "spark.ui.retainedStages": "10",
}


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """The job's Spark, with its variables set before it starts."""
    os.environ.update(spark_environment(settings=FAST))
    yield etl.spark_session()
    active = etl.SparkSession.getActiveSession()
    if active is not None:
        active.stop()


class Lake:
    """A lake in a folder, and runs of the job on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, 0

    def write(self, files: list[RawFile], raw: Path) -> Path:
        """Lay files out as a raw zone, with their times of delivery."""
        for file in files:
            path = raw / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
            moment = file.modified.replace(tzinfo=UTC).timestamp()
            os.utime(path, (moment, moment))
        raw.mkdir(parents=True, exist_ok=True)
        return raw

    def run(self, files: list[RawFile], force: bool = False, expect: int = 0) -> dict[str, Any]:
        """One run on exactly these files; returns the summary."""
        self.runs += 1
        raw = self.write(files, self.folder / f"raw-{self.runs}")
        return self.run_on(raw, f"run-{self.runs}", force, expect)

    def run_on(
        self, raw: Path, run_id: str, force: bool = False, expect: int = 0
    ) -> dict[str, Any]:
        assert etl.main(job_arguments(raw, self.folder, run_id, force)) == expect
        return json.loads((self.folder / "runs" / run_id / "summary.json").read_text())

    def manifest(self, run_id: str) -> dict[str, dict[str, Any]]:
        lines = (self.folder / "runs" / run_id / "manifest.jsonl").read_bytes().splitlines()
        return {line["path"]: line for line in map(json.loads, lines)}

    def path(self, table: str) -> str:
        return str(
            self.folder / ("rejected" if table == "rejected_records" else "lakehouse-dwh") / table
        )

    def frame(self, table: str) -> Any:
        return etl.SparkSession.getActiveSession().read.format("delta").load(self.path(table))

    def rows(self, table: str) -> list[Any]:
        """The rows as named tuples in Python's types, by a reader that is not Spark."""
        arrow = DeltaTable(self.path(table)).to_pyarrow_table()
        row_type = namedtuple("Row", arrow.column_names)
        columns = [
            [python_value(value) for value in column.to_pylist(maps_as_pydicts="strict")]
            for column in arrow.columns
        ]
        return [row_type(*values) for values in zip(*columns, strict=True)]

    def tables(self) -> dict[str, dict[str, tuple]]:
        """dataset -> key -> row, in the shape of the model's."""
        tables = {}
        for table in etl.TABLES:
            at = table.column_names.index(table.key)
            rows = self.rows(table.name)
            tables[table.dataset] = {row[at]: row for row in rows}
            assert len(tables[table.dataset]) == len(rows), f"{table.name} holds a key twice"
        return tables

    def records(self) -> list[Any]:
        return self.rows("rejected_records")


def python_value(value: Any) -> Any:
    """A moment without its zone, which is UTC; anything else as it is."""
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


@pytest.fixture
def lake(spark: Any, tmp_path: Path) -> Lake:
    return Lake(tmp_path)


@pytest.fixture
def new_lake(spark: Any, tmp_path: Path) -> Callable[[str], Lake]:
    return lambda name: Lake(tmp_path / name)


def csv_file(path: str, text: str, at: int) -> RawFile:
    """A file delivered `at` seconds after the first of May 2025."""
    return RawFile(
        path, text.encode("utf-8"), datetime(2025, 5, 1, at // 3600, at // 60 % 60, at % 60)
    )


def check_equation(summary: dict[str, Any]) -> None:
    """The conservation of rows, for each dataset."""
    for dataset, numbers in summary["datasets"].items():
        outcomes = sum(
            numbers[name]
            for name in ("inserted", "updated", "unchanged", "superseded", "rejected", "parked")
        )
        assert numbers["rows_read"] + numbers["admitted"] == outcomes, (dataset, numbers)
