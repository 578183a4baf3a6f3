"""What the job writes and what the state machine reads is one contract:
stepfunctions/summary.schema.json."""

from __future__ import annotations

import copy
import datetime as dt
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

import glue_etl as etl
from tests.pipeline.fakes import FakeJob

SCHEMA = json.loads(
    (Path(__file__).resolve().parents[2] / "stepfunctions" / "summary.schema.json").read_text()
)
CONTRACT = Draft202012Validator(SCHEMA)


def summary(**changed: Any) -> dict[str, Any]:
    return {**FakeJob().summary("run-1", [], 0), **changed}


def without(path: str) -> dict[str, Any]:
    """A summary that lacks one field."""
    made = copy.deepcopy(summary())
    *parents, name = path.split(".")
    inner = made
    for parent in parents:
        inner = inner[parent]
    del inner[name]
    return made


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_the_job_that_stands_in_for_the_real_one_keeps_the_contract() -> None:
    CONTRACT.validate(summary())
    CONTRACT.validate(summary(status="FAILED", error="ValueError: x", tables={}))
    CONTRACT.validate(summary(status="NOTHING_NEW", tables={}))


def test_an_operation_that_changed_nothing_names_no_tables() -> None:
    operation = {"name": "vacuum", "author": "Ann", "dry_run": True, "text": "", "plan": {}}
    CONTRACT.validate(summary(operation={**operation, "effect": {}}, tables={}))
    with pytest.raises(ValidationError):
        CONTRACT.validate(summary(operation=operation))
    with pytest.raises(ValidationError):
        CONTRACT.validate(summary(tables={}))


def test_a_field_more_is_no_breach() -> None:
    CONTRACT.validate(summary(later="added"))


@pytest.mark.parametrize(
    "path", ["schema_version", "files.changed", "datasets.orders.parked", "tables.clean_orders"]
)
def test_a_field_less_is_a_breach(path: str) -> None:
    with pytest.raises(ValidationError):
        CONTRACT.validate(without(path))


def test_another_version_is_a_breach() -> None:
    with pytest.raises(ValidationError):
        CONTRACT.validate(summary(schema_version=2))


# ---- its size, which the state machine limits


def day(number: int) -> str:
    return (dt.date(1800, 1, 1) + dt.timedelta(days=number)).isoformat()


def data_files(numbers: Iterable[int]) -> list[str]:
    return [f"date={day(number)}/part-{number}.parquet" for number in numbers]


def test_days_are_told_as_spans() -> None:
    days_of = etl._days
    assert days_of([]) == days_of(["part-0.parquet"]) == []
    april = [f"date=2025-04-{number}/x" for number in ("03", "01", "02", "02", "05")]
    assert days_of(april) == [["2025-04-01", "2025-04-03"], ["2025-04-05", "2025-04-05"]]
    assert days_of(data_files(range(100_000))) == [[day(0), day(99_999)]]
    assert days_of(["date=9999-12-31/x"]) == [["9999-12-31", "9999-12-31"]]


def test_more_spans_than_fit_become_one() -> None:
    days_of = etl._days
    assert len(days_of(data_files(range(0, 1000, 2)))) == 500
    assert days_of(data_files(range(0, 1002, 2))) == [[day(0), day(1000)]]
    assert days_of(data_files(range(0, 200_000, 2))) == [[day(0), day(199_998)]]


def test_a_hundred_thousand_files_and_days_fit_into_the_summary() -> None:
    """Texts of rejected rows are cut where they are born; the rest is counts."""
    paths = {f"--{name}": "x" for name in ("RAW_PATH", "LAKEHOUSE_PATH", "REJECTED_PATH")}
    words = [
        word for pair in {**paths, "--RUNS_PATH": "x", "--RUN_ID": "r"}.items() for word in pair
    ]
    now = dt.datetime(2025, 4, 1, tzinfo=dt.UTC)
    files = [
        etl.set_aside(etl.RawFile(etl.StoredObject(f"{n}" + "x" * 900, "", n, now)), reason)
        for n in range(100_000)
        for reason in [sorted(etl.FILE_REASONS)[n % len(etl.FILE_REASONS)]]
    ]
    arguments, timed = etl.JobArguments.from_argv(words), etl.Timings(now)
    made = etl.summary_of(
        arguments, timed, files, "FAILED", etl.cause_of(ValueError("x" * 100_000))
    )
    worst = {"dates": etl._days(data_files(range(0, 1000, 2)))}
    by_day = [table for table in etl.TABLES if table.partition]
    made["tables"] = {table.name: worst for table in by_day}
    examples = [
        {
            "dataset": "orders",
            "reason": f"reason_{n}",
            "rows": n,
            "file_path": "\U0001f4e6" * etl.TEXT_LIMIT,
            "line": n,
            "raw": "\U0001f4e6" * etl.TEXT_LIMIT,
        }
        for n in range(etl.EXAMPLES)
    ]
    made["reject_examples"] = examples
    text = json.dumps(made, indent=1, ensure_ascii=False)
    assert sum(made["files"]["set_aside_by_reason"].values()) == 100_000
    assert len(text.encode("utf-8")) < 200_000


def test_a_file_that_cannot_be_read_is_not_counted_as_set_aside() -> None:
    now = dt.datetime(2025, 4, 1, tzinfo=dt.UTC)
    raw = etl.unreadable(etl.RawFile(etl.StoredObject("orders/x.csv", "", 1, now)), "403")
    arguments = etl.JobArguments.from_argv(
        ["--RAW_PATH", "x", "--LAKEHOUSE_PATH", "x", "--REJECTED_PATH", "x", "--RUNS_PATH", "x"]
        + ["--RUN_ID", "run-1"]
    )
    files = etl.summary_of(arguments, etl.Timings(now), [raw], "SUCCEEDED")["files"]
    assert (files["unreadable"], files["set_aside"], files["set_aside_by_reason"]) == (1, 0, {})
