"""Every odd or broken input has its outcome: the whole corpus in one run, and again after it."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any

import pytest

import glue_etl as etl
from client import check
from tests.corpus.cases import CASES, DELIVERED, Case
from tests.corpus.compare import RejectedRow, Results, differences, rows_of_no_case
from tests.model import RawFile
from tests.spark.conftest import Lake, check_equation


def stored_rows(lake: Lake, table: Any) -> list[dict[str, Any]]:
    """A table's rows; timestamps by way of their text, because Python cannot make the first day of
    year 1 from a number."""
    kinds = {column.name: column.type for column in table.columns}
    frame = lake.frame(table.name).selectExpr(
        *[
            f"cast(`{name}` AS string) AS `{name}`" if kind == "TIMESTAMP" else f"`{name}`"
            for name, kind in kinds.items()
        ]
    )
    return [
        {
            name: datetime.fromisoformat(value) if kinds[name] == "TIMESTAMP" and value else value
            for name, value in row.asDict().items()
        }
        for row in frame.collect()
    ]


@pytest.fixture(scope="module")
def ran(spark: Any, tmp_path_factory: Any) -> tuple[Lake, dict[str, Any], Results]:
    lake = Lake(tmp_path_factory.mktemp("corpus"))
    summary = lake.run([RawFile(case.path, case.content, DELIVERED) for case in CASES])
    tables = {
        table.dataset: {row[table.key]: row for row in stored_rows(lake, table)}
        for table in etl.TABLES
    }
    rejected = [
        RejectedRow(row.file_path, row.line, row.status, tuple(row.reasons), row.raw)
        for row in lake.records()
    ]
    return lake, summary, Results(lake.manifest("run-1"), tables, rejected)


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_case_has_its_outcome(ran: tuple, case: Case) -> None:
    assert differences(case, ran[2]) == []


def test_the_check_before_the_upload_has_said_the_same(ran: tuple) -> None:
    """The same verdict for each file and row, and the same words for a file that is set aside."""
    lake, _, results = ran
    for case in CASES:
        checked = check.check_file(case.path, io.BytesIO(case.content), DELIVERED)
        entry = results.manifest.get(case.path)
        assert (entry is None) == (checked.outcome == "skipped"), case.name
        if entry is None or entry["outcome"] == "duplicate":
            continue
        aside = entry["outcome"] == "set_aside"
        assert checked.outcome == ("set_aside" if aside else "good"), case.name
        assert checked.reason == entry["reason"], case.name
        if aside and checked.reason != "truncated_gzip":  # zlib's own words depend on the pieces
            assert f"{case.path}: {checked.detail}" == entry["detail"], case.name
        elif not aside:
            reasons = {
                row.line: {fault.reason for fault in row.faults} for row in checked.rejected_rows
            }
            rejected = {
                row.line: set(row.reasons)
                for row in results.rejected
                if row.path == case.path and row.status != "parked"
            }
            assert (checked.rows, reasons) == (entry["rows_read"], rejected), case.name
            assert checked.ignored_columns == (entry["ignored_columns"] or []), case.name


def test_nothing_else_is_in_the_tables(ran: tuple) -> None:
    assert rows_of_no_case(ran[2], CASES) == []


def test_no_row_of_the_corpus_is_lost(ran: tuple) -> None:
    check_equation(ran[1])
    assert sum(numbers["rows_read"] for numbers in ran[1]["datasets"].values()) == sum(
        case.rows_read for case in CASES if case.outcome == "loaded"
    )
    assert sum(numbers["superseded"] for numbers in ran[1]["datasets"].values()) == sum(
        case.superseded for case in CASES
    )


def test_the_corpus_once_more_by_force_and_compiled_plans_changes_nothing(
    ran: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, _, results = ran
    monkeypatch.setattr(etl, "session_settings", lambda large: {})
    before = etl.DeltaLog(lake.path("rejected_records")).versions()
    summary = lake.run_on(lake.folder / "raw-1", "again", force=True)
    check_equation(summary)
    assert (
        sum(numbers["inserted"] + numbers["updated"] for numbers in summary["datasets"].values())
        == 0
    )
    assert etl.DeltaLog(lake.path("rejected_records")).versions() == before
