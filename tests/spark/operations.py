"""A lake on which operations are run, with an archive beside it, for the tests of operations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from jsonschema import validate

import glue_etl as etl
import glue_operations
from client import ROOT
from local.aws.job import job_arguments
from tests.model import RawFile
from tests.spark.conftest import Lake

SCHEMA = json.loads((ROOT / "stepfunctions" / "summary.schema.json").read_text("utf-8"))

RESTORED = (
    "clean_products",
    "clean_orders",
    "clean_orders_items",
    "rejected_records",
    "ingested_files",
)


class OperatedLake(Lake):
    """A lake in a folder, loads on it, whose files are archived, and operations."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked = 0

    def load(self, files: list[RawFile], expect: int = 0) -> dict[str, Any]:
        """A run of the load; then what it has read goes into the archive, as the Lambda does."""
        summary = self.run(files, expect=expect)
        self.archive(f"run-{self.runs}", self.folder / f"raw-{self.runs}")
        return summary

    def archive(self, run_id: str, raw: Path) -> None:
        homes = {"archive": "archived", "rejected": "rejected/files"}
        for path, line in self.manifest(run_id).items():
            if line["destination"] in homes:
                target = self.folder / homes[line["destination"]] / f"run={run_id}" / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(raw / path, target)

    def arguments(self, name: str, run_id: str, **options: Any) -> list[str]:
        request = json.dumps({"operation": name, **options})
        archive = str(self.folder / "archived")
        job = job_arguments(self.folder / "raw", self.folder, run_id)
        return [*job, "--OPERATION", request, "--ARCHIVE_PATH", archive]

    def operate(self, name: str, expect: int = 0, **options: Any) -> dict[str, Any]:
        """One operation; returns its summary."""
        self.asked += 1
        run_id = f"op-{self.asked}"
        assert glue_operations.main(self.arguments(name, run_id, **options)) == expect
        summary = self.summary(run_id)
        validate(summary, SCHEMA)
        return summary

    def summary(self, run_id: str) -> dict[str, Any]:
        return json.loads((self.folder / "runs" / run_id / "summary.json").read_text())

    def result(self, run_id: str) -> dict[str, Any]:
        """operation.json"""
        return json.loads((self.folder / "runs" / run_id / "operation.json").read_text())

    def refusal(self, name: str, **options: Any) -> str:
        """What a refused operation says; nothing may have been written."""
        before = self.versions()
        summary = self.operate(name, expect=1, **options)
        assert summary["status"] == "FAILED" and self.versions() == before
        return summary["error"]

    def versions(self) -> dict[str, int]:
        names = (*RESTORED, "etl_runs", "corrections")
        return {name: etl.DeltaLog(self.path(name)).latest() for name in names}

    def state(self) -> dict[str, list[str]]:
        """Every table that a rollback restores, row by row, without what a repetition changes."""
        changing = {"run_id", "resolved_run_id", "ingested_at"}
        state = {}
        for name in RESTORED:
            rows = [row._asdict().items() for row in self.rows(name)]
            state[name] = sorted(
                ", ".join(f"{column}={value!r}" for column, value in row if column not in changing)
                for row in rows
            )
        return state
