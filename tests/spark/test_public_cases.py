"""Cases from public bug reports, which stand beside this project: the job, and the plain model.

Each is a folder with a raw zone, or with one for each run (`1/`, `2/`, ...).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

import glue_etl as etl
from local.runtime import ROOT
from tests.model import Lakehouse, RawFile
from tests.spark.conftest import Lake, check_equation

CASES = ROOT.parent / "shared" / "cases"
START = datetime(2025, 5, 1)
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside this project")


@dataclass(frozen=True)
class Right:
    """What is right after the last run.

    stored  dataset -> key -> the columns that the case is about
    open    (record key, reasons, status) of rejected_records
    files   path -> outcome and reason in the manifest of the last run
    counts  dataset -> numbers of the summary of the last run
    """

    stored: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    open: tuple[tuple[str | None, str, str], ...] = ()
    files: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)


def stored(**keys: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Keys by dataset, separated by blanks."""
    return {dataset: {key: {} for key in texts.split()} for dataset, texts in keys.items()}


def rejected(*reasons: str, key: str | None = None) -> tuple[tuple[str | None, str, str], ...]:
    return tuple((key, reason, "rejected") for reason in reasons)


RIGHT = {
    "01-shopify-order-lines": Right(
        {"orders": {"S1001": {"user_id": "u1", "total_amount": 49.9}, "S1002": {"user_id": "u2"}}},
        counts={"orders": {"inserted": 2, "superseded": 2, "conflicting": 0}},
    ),
    "04-false-for-empty": Right(
        {
            "orders": {"S3": {"user_id": None}},
            "products": {"P1": {"department_id": None, "department": "FALSE"}},
        },
        rejected("missing_order_id", "missing_order_id", "missing_product_id"),
    ),
    "07-old-copy-under-a-new-name": Right(files={"products (1).csv": ("duplicate", None)}),
    "09-timestamp-in-the-future": Right(
        {"orders": {"S1": {"order_timestamp": datetime(2025, 4, 1, 10)}, "S2": {}}},
        (("S1", "future_order_timestamp", "superseded"),),
    ),
    "11-r-keys-in-scientific-form": Right(
        stored(orders="99999 100000 100001 2999 3000 60150001022000"),
        counts={"order_items": {"inserted": 2}},
    ),
    "13-java-double-keys": Right(
        stored(orders="10023456 10023457"), counts={"order_items": {"inserted": 1}}
    ),
    "15-other-words-for-null-as-keys": Right(
        {"orders": {"S1": {"user_id": None}}}, rejected(*["missing_order_id"] * 8)
    ),
    "18-invisible-signs-around-keys": Right(
        stored(orders="S1 S2 S3 S4 S5"), counts={"order_items": {"inserted": 5}}
    ),
    "20-line-break-behind-a-key": Right(
        {
            "products": {"P1": {}},
            "orders": {"S1": {"total_amount": 12.5, "order_timestamp": datetime(2025, 4, 1, 10)}},
            "order_items": {"i1": {}},
        }
    ),
    "22-german-thousands": Right(
        {
            "orders": {
                key: {"total_amount": amount}
                for key, amount in {"S1": 12.5, "S5": 1234.5, "S6": 110.7, "S7": 7.5}.items()
            }
        },
        tuple((key, "ambiguous_total_amount", "rejected") for key in ("S2", "S3", "S4")),
    ),
    "26-dashes-under-the-header": Right(
        stored(orders="S1", products="P1 P2"), rejected("too_few_fields", "too_few_fields")
    ),
    "28-mysql-line-break-behind-a-backslash": Right(stored(products="P2"), rejected("broken_line")),
    "36-header-in-other-spellings": Right(stored(products="P1", orders="S1", order_items="i1")),
    "40-what-desktops-leave-behind": Right(files={"orders/2025-04-01.csv": ("loaded", None)}),
    "42-workbook-and-zip-named-csv": Right(
        open=((None, "orphan_order orphan_product", "parked"),),
        files={
            "orders/2025-04-01.csv": ("set_aside", "wrong_format"),
            "products.csv": ("set_aside", "wrong_format"),
            "order_items/2025-04-01.csv": ("loaded", None),
        },
    ),
    "43-plain-text-named-gz": Right(
        files={
            "products.csv.gz": ("loaded", None),
            "orders/2025-04-01.csv": ("loaded", None),
        },
        counts={"products": {"inserted": 1}, "orders": {"inserted": 1}},
    ),
    "51-tsv-with-index-column": Right(stored(products="p1")),
    "52-first-column-with-a-line-break": Right(
        {"products": {"P2": {"product_name": "Two\nlines"}, "P1": {}}}
    ),
    "53-trailing-delimiter-and-blank-row": Right(counts={"products": {"inserted": 2}}),
    "54-sep-tab": Right(stored(products="p1")),
    "55-raw-of-a-record-with-two-encodings": Right(stored(products="p2"), rejected("invalid_utf8")),
    "58-commas-above-another-delimiters-header": Right(
        stored(products="p1"), counts={"products": {"rows_read": 1}}
    ),
}


def deliveries(case: str) -> list[list[RawFile]]:
    """The files of each run, a day apart."""
    folder = CASES / case
    numbered = sorted(path for path in folder.iterdir() if path.name.isdecimal())
    return [
        [
            RawFile(
                path.relative_to(raw).as_posix(), path.read_bytes(), START + timedelta(days=number)
            )
            for path in sorted(raw.rglob("*"))
            if path.is_file() and path.name != "EXPECT.txt"
        ]
        for number, raw in enumerate(numbered or [folder])
    ]


def test_each_case_that_is_there_is_known() -> None:
    assert {path.name for path in CASES.iterdir() if path.is_dir()} == RIGHT.keys()


@pytest.mark.parametrize("case", RIGHT)
def test_a_public_case_ends_as_is_right(lake: Lake, case: str) -> None:
    right, model = RIGHT[case], Lakehouse()
    for files in deliveries(case):
        summary = lake.run(files)
        check_equation(summary)
        expected = model.run(files)
        assert {
            dataset: {name: summary["datasets"][dataset][name] for name in numbers}
            for dataset, numbers in expected["datasets"].items()
        } == expected["datasets"]
    assert lake.tables() == model.tables
    manifest = lake.manifest(f"run-{lake.runs}")
    for path, outcome_and_reason in right.files.items():
        assert (manifest[path]["outcome"], manifest[path]["reason"]) == outcome_and_reason
    if right.files:
        assert manifest.keys() == right.files.keys()
    for dataset, numbers in right.counts.items():
        counts = summary["datasets"][dataset]
        assert {name: counts[name] for name in numbers} == numbers
    check_rows(lake, right)


def check_rows(lake: Lake, right: Right) -> None:
    """The stored keys are these and no others, and so are the rows of rejected_records."""
    tables = lake.tables()
    for table in etl.TABLES:
        stored = right.stored.get(table.dataset)
        if stored is None:
            continue
        assert tables[table.dataset].keys() == stored.keys()
        for key, columns in stored.items():
            row = dict(zip(table.column_names, tables[table.dataset][key], strict=True))
            assert {name: row[name] for name in columns} == columns
    keys = {key for key, _, _ in right.open}
    rejects = Counter(
        (
            row.record_key if row.record_key in keys else None,
            " ".join(sorted(row.reasons)),
            row.status,
        )
        for row in lake.records()
    )
    assert rejects == Counter(right.open)


def test_the_bytes_of_a_record_in_two_encodings_are_kept(lake: Lake) -> None:
    lake.run(deliveries("55-raw-of-a-record-with-two-encodings")[0])
    (row,) = lake.records()
    content = (CASES / "55-raw-of-a-record-with-two-encodings" / "products.csv").read_bytes()
    assert row.raw.encode("latin-1") in content and row.raw.endswith('"a\nb\xff"')


def test_a_file_of_the_wrong_format_is_told_as_what_it_is(lake: Lake) -> None:
    lake.run(deliveries("42-workbook-and-zip-named-csv")[0])
    details = " ".join(str(line["detail"]) for line in lake.manifest("run-1").values())
    assert "zip archive" in details and "Excel workbook: save it as CSV UTF-8" in details
