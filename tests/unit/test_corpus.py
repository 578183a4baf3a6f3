"""The corpus of odd files says the same as the model, and covers what it has to."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from tests.corpus.cases import CASES as DISK_CASES
from tests.corpus.cases import DELIVERED, S3_CASES, UNFINISHED_PATHS, Case
from tests.corpus.compare import RejectedRow, Results, differences, rows_of_no_case
from tests.model import COLUMNS, Lakehouse, RawFile

CASES = [*DISK_CASES, *S3_CASES]
ROW_REASONS = {
    "too_few_fields",
    "too_many_fields",
    "unclosed_quote",
    "invalid_utf8",
    "repeated_header",
    "control_character",
    "swallowed_row",
    "broken_line",
    "future_order_timestamp",
    "date_mismatch",
    "missing_product_id",
    "missing_order_id",
    "missing_id",
    "missing_order_timestamp",
    "invalid_order_timestamp",
    "invalid_order_num",
    "invalid_order_id",
    "invalid_product_id",
    "invalid_id",
    "invalid_user_id",
    "invalid_date",
    "invalid_total_amount",
    "invalid_days_since_prior_order",
    "invalid_add_to_cart_order",
    "invalid_reordered",
    "ambiguous_date",
    "ambiguous_order_timestamp",
    "ambiguous_total_amount",
    "orphan_order",
    "orphan_product",
}
FILE_REASONS = {
    "unknown_dataset",
    "empty_file",
    "no_header",
    "missing_column",
    "duplicate_column",
    "utf16",
    "binary",
    "wrong_format",
    "truncated_gzip",
    "unusable_path",
    "unfinished_upload",
    "mixed_headers",
    "mostly_rejected",
}


@pytest.fixture(scope="module")
def results() -> Results:
    """All cases in one run of the model."""
    lakehouse = Lakehouse()
    summary = lakehouse.run([RawFile(case.path, case.content, DELIVERED) for case in CASES])
    tables = {
        dataset: {key: dict(zip(COLUMNS[dataset], row, strict=True)) for key, row in rows.items()}
        for dataset, rows in lakehouse.tables.items()
    }
    rejected = [
        RejectedRow(source.path, source.line, record.status, tuple(record.reasons), record.raw)
        for source, record in lakehouse.records.items()
    ]
    return Results({entry.path: vars(entry) for entry in summary["manifest"]}, tables, rejected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_model_treats_an_odd_file_as_its_case_says(case: Case, results: Results) -> None:
    assert differences(case, results) == []


def test_no_row_is_stored_that_no_case_expects(results: Results) -> None:
    assert rows_of_no_case(results, CASES) == []


def test_all_cases_can_share_one_run() -> None:
    paths = Counter(case.path for case in CASES)
    names = Counter(case.name for case in CASES)
    keys = Counter((case.dataset, key) for case in CASES for key in case.stored)
    assert [each for each, times in (paths + names + keys).items() if times > 1] == []


def test_every_reason_has_a_case() -> None:
    codes = {
        code
        for case in CASES
        for reasons in (*case.rejected.values(), *case.parked.values())
        for code in reasons.split()
    }
    assert codes == ROW_REASONS
    assert {case.reason for case in CASES if case.reason} == FILE_REASONS


@pytest.mark.parametrize("path", UNFINISHED_PATHS)
def test_an_unfinished_upload_is_spoken_of_after_a_day(path: str) -> None:
    file = RawFile(path, b"", DELIVERED)
    for age, listed in ((timedelta(0), 0), (timedelta(hours=23), 0), (timedelta(hours=25), 1)):
        assert Lakehouse().run([file], now=DELIVERED + age)["files"]["listed"] == listed


def test_a_file_that_was_mostly_rejected_can_be_taken_after_all() -> None:
    case = next(case for case in CASES if case.name == "more_than_half_of_twenty_rows_are_bad")
    file, lakehouse = RawFile(case.path, case.content, DELIVERED), Lakehouse()
    for _ in range(2):
        summary = lakehouse.run([file])
        assert summary["files"]["set_aside"] == 1
        assert summary["datasets"]["orders"]["rows_read"] == 0
        assert (lakehouse.tables["orders"], lakehouse.records) == ({}, {})
    numbers = lakehouse.run([file], max_rejected_percent=100)["datasets"]["orders"]
    assert (numbers["rows_read"], numbers["inserted"], numbers["rejected"]) == (20, 9, 11)


def test_a_wrong_expectation_is_noticed(results: Results) -> None:
    good = next(case for case in CASES if case.name == "a_row_keeps_all_its_reasons")
    for wrong in (
        {"outcome": "set_aside"},
        {"reason": "binary"},
        {"stored": {"not-there": {}}},
        {"rejected": {}},
        {"rejected": {**good.rejected, 3: "date_mismatch"}},
        {"parked": {2: "orphan_order"}},
        {"raw": {3: "another text"}},
        {"ignored_columns": ("x",)},
        {"superseded": 1},
    ):
        assert differences(Case(**{**vars(good), **wrong}), results) != [], wrong
    assert differences(Case("not delivered", "orders/not_delivered.csv", b""), results) != []
