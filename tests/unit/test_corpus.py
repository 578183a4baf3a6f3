"""The corpus of odd files says the same as the model, and covers what it has to."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.corpus.cases import CASES, DELIVERED, Case
from tests.corpus.compare import RejectedRow, Results, differences, rows_of_no_case
from tests.model import COLUMNS, Lakehouse, RawFile

ROW_REASONS = {
    "too_few_fields",
    "too_many_fields",
    "unclosed_quote",
    "invalid_utf8",
    "repeated_header",
    "date_mismatch",
    "missing_product_id",
    "missing_order_id",
    "missing_id",
    "missing_order_timestamp",
    "invalid_order_timestamp",
    "invalid_date",
    "invalid_total_amount",
    "invalid_days_since_prior_order",
    "invalid_add_to_cart_order",
    "invalid_reordered",
    "ambiguous_date",
    "ambiguous_order_timestamp",
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
    "truncated_gzip",
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
    return Results({one.path: vars(one) for one in summary["manifest"]}, tables, rejected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_model_treats_an_odd_file_as_its_case_says(case: Case, results: Results) -> None:
    assert differences(case, results) == []


def test_no_row_is_stored_that_no_case_expects(results: Results) -> None:
    assert rows_of_no_case(results) == []


def test_all_cases_can_share_one_run() -> None:
    paths = Counter(case.path for case in CASES)
    names = Counter(case.name for case in CASES)
    keys = Counter((case.dataset, key) for case in CASES for key in case.stored)
    assert [each for each, times in (paths + names + keys).items() if times > 1] == []


def test_every_reason_has_a_case() -> None:
    codes = {
        code
        for case in CASES
        for said in (*case.rejected.values(), *case.parked.values())
        for code in said.split()
    }
    assert codes == ROW_REASONS
    assert {case.reason for case in CASES if case.reason} == FILE_REASONS


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
