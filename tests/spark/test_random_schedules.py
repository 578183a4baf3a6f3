"""Random schedules of deliveries end in exactly the tables of the plain model, however they fall
into runs, come late or are repeated.

A hundred and more schedules, drawn by hypothesis, share a few runs of the job: each has its own
prefix of keys and of paths.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import glue_etl as etl
from tests.model import Lakehouse, RawFile
from tests.spark.conftest import Lake, check_equation

SCHEDULES, RUNS = 120, 4
HEADERS = {
    "products": "product_id,department_id,department,product_name",
    "orders": "order_num,order_id,user_id,order_timestamp,total_amount,date",
    "order_items": "id,order_id,user_id,days_since_prior_order,product_id,add_to_cart_order,"
    "reordered,order_timestamp,date",
}
TIMES = [
    "2025-04-01T10:00:00",
    "2025-04-01T12:00:00",
    "2025-04-02T00:30:00",
    "2025-04-02T00:30:00+02:00",
    "",
    "01/04/2025 10:00",
]
few = st.integers(1, 3)


@st.composite
def drawn_file(draw: Callable) -> tuple[str, list[tuple]]:
    """A dataset and abstract rows: small numbers for keys, parents and values, so that versions and
    ties are common."""
    dataset = draw(
        st.sampled_from(
            ["products", "orders", "orders", "order_items", "order_items", "order_items"]
        )
    )
    rows = draw(
        st.lists(
            st.tuples(few, few, few, st.sampled_from(TIMES[:3] * 4 + TIMES), st.integers(0, 2)),
            min_size=1,
            max_size=4,
        )
    )
    return dataset, rows


@st.composite
def schedule(draw: Callable) -> list[tuple[int, int | None, tuple[str, list[tuple]]]]:
    """Files as (run of first delivery, run of a repetition or None, content)."""
    files = draw(
        st.lists(
            st.tuples(st.integers(0, RUNS - 1), st.none() | st.integers(0, RUNS - 1), drawn_file()),
            min_size=1,
            max_size=6,
        )
    )
    return files


def csv_text(prefix: str, dataset: str, rows: list[tuple]) -> str:
    """Rows as CSV with keys of this schedule."""
    lines = [HEADERS[dataset]]
    for key, parent, other, moment, value in rows:
        day = "" if value == 2 else moment[:10] if moment[:2] == "20" else ""
        if dataset == "products":
            lines.append(f"{prefix}{key},{parent},Books {value},Name {other}")
        elif dataset == "orders":
            lines.append(f"{value},{prefix}{key},u{other},{moment},{value}.50,{day}")
        else:
            keys = f"{prefix}{key},{prefix}{parent},u,{value},{prefix}{other}"
            lines.append(f"{keys},1,{value % 2},{moment},{day}")
    return "\n".join(lines) + "\n"


def drawn_schedules() -> list[Any]:
    """The schedules that hypothesis draws, the same in every session."""
    drawn: list[Any] = []

    @settings(
        max_examples=SCHEDULES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(st.lists(schedule(), min_size=2, max_size=2))
    def collect(schedules: list[Any]) -> None:
        drawn.extend(schedules)

    collect()
    return drawn


def as_runs(number: int, files: list[Any], numeric: bool) -> list[list[RawFile]]:
    """The files of each run: first deliveries in the order of the runs, and repetitions."""
    prefix = str(1000 + number) if numeric else f"s{number}-"
    runs: list[list[RawFile]] = [[] for _ in range(RUNS)]
    for place, (first, repeated, (dataset, rows)) in enumerate(files):
        path = f"{dataset}/{prefix}-{place}.csv"
        moment = datetime(2025, 5, 1 + first, 8) + timedelta(seconds=place * 7 % 5)
        file = RawFile(path, csv_text(prefix, dataset, rows).encode(), moment)
        runs[first].append(file)
        if repeated is not None and repeated > first:
            runs[repeated].append(file)
    return runs


def test_random_schedules_end_in_the_tables_of_the_model(lake: Lake) -> None:
    schedules = drawn_schedules()
    assert len(schedules) >= SCHEDULES
    plans = [
        as_runs(number, files, numeric=number % 2 == 0) for number, files in enumerate(schedules)
    ]
    assert sum(len(run) for plan in plans for run in plan) > 400
    models = [Lakehouse() for _ in plans]
    for run in range(RUNS):
        force = run == RUNS - 1
        expected = [
            model.run(plan[run], force=force) for model, plan in zip(models, plans, strict=False)
        ]
        summary = lake.run([file for plan in plans for file in plan[run]], force=force)
        check_equation(summary)
        if not force:
            for dataset, numbers in summary["datasets"].items():
                for measure, value in numbers.items():
                    if measure != "rejected_by_reason":
                        assert value == sum(
                            counts["datasets"][dataset][measure] for counts in expected
                        ), (run, dataset, measure)
        tables = lake.tables()
        for dataset in HEADERS:
            expected_rows = {
                key: row for model in models for key, row in model.tables[dataset].items()
            }
            assert tables[dataset] == expected_rows, f"{dataset} after run {run + 1}"
        records = lake.records()
        waiting = {(row.file_path, row.line) for row in records if row.status == "parked"}
        assert waiting == {
            (row.source.path, row.source.line) for model in models for row in model.parked
        }
        assert {
            (row.file_path, row.line, row.status)
            for row in records
            if "orphan" not in row.reasons[0]
        } == {
            (source.path, source.line, record.status)
            for model in models
            for source, record in model.records.items()
            if "orphan" not in record.reasons[0]
        }


@pytest.mark.parametrize("large_bytes", [16 << 20, 0], ids=["in memory", "in scratch files"])
def test_the_tables_do_not_depend_on_how_deliveries_fell_into_runs(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, large_bytes: int
) -> None:
    monkeypatch.setattr(etl, "LARGE_BYTES", large_bytes)
    plans = [
        as_runs(number, files, numeric=number % 2 == 0)
        for number, files in enumerate(drawn_schedules())
    ]
    files = {file.path: file for plan in plans for run in plan for file in run}
    summary = lake.run(list(files.values()))
    check_equation(summary)
    batched = [Lakehouse() for _ in plans]
    for model, plan in zip(batched, plans, strict=False):
        for run in plan:
            model.run(run)
    for dataset, rows in lake.tables().items():
        assert rows == {
            key: row for model in batched for key, row in model.tables[dataset].items()
        }, dataset
