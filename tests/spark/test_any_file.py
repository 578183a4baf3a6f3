"""Any file that a shop may send: no run fails, no row is lost, the good files beside are loaded.

The files are drawn in tests/any_file.py; a reader in plain Python, the model's, counts what is in
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import glue_etl as etl
from local.aws.job import job_arguments
from rules.paths import is_marker
from tests.any_file import DELIVERED, FILES, HEADERS, drawn_files
from tests.corpus.cases import CASES, item, order, product, text
from tests.model import OUTCOMES, RawFile, SetAside, read_file
from tests.spark.conftest import Lake, check_equation

BATCH = 500
GOOD = [
    RawFile("products.csv", text(HEADERS["products"], product("good-product")), DELIVERED),
    RawFile("orders.csv", text(HEADERS["orders"], order("good-order")), DELIVERED),
    RawFile(
        "order_items.csv",
        text(
            HEADERS["order_items"],
            item("good-item", order_id="good-order", product_id="good-product"),
        ),
        DELIVERED,
    ),
]


# ---- files that are bad as a whole
def test_a_file_that_was_set_aside_for_its_rows_is_no_duplicate_and_can_be_taken(
    lake: Lake,
) -> None:
    names = ("more_than_half_of_twenty_rows_are_bad", "a_second_header_in_another_order")
    mostly, mixed = (next(case for case in CASES if case.name == name) for name in names)
    files = [RawFile(case.path, case.content, DELIVERED) for case in (mostly, mixed)]
    raw = lake.write(files, lake.folder / "raw")
    for run_id in ("first", "again"):
        lake.run_on(raw, run_id)
        entries = lake.manifest(run_id)
        assert {file.path: entries[file.path]["outcome"] for file in files} == {
            file.path: "set_aside" for file in files
        }, run_id
        assert entries[mostly.path]["reason"] == "mostly_rejected"
        assert (lake.rows("clean_orders"), lake.records()) == ([], [])
    arguments = job_arguments(raw, lake.folder, "taken", force=True)
    assert etl.main([*arguments, "--MAX_REJECTED_PERCENT", "100"]) == 0
    assert (len(lake.rows("clean_orders")), len(lake.records())) == (9, 11)


# ---- runs
@dataclass
class Ran:
    """A batch, and what the job says of each of its files by path."""

    files: dict[str, RawFile]
    summary: dict[str, Any]
    manifest: dict[str, dict[str, Any]]
    ledger: dict[str, Any]
    rejected: dict[str, set[tuple[int, str]]]
    tables: dict[str, dict[str, tuple]]


BATCHES = range(0, FILES, BATCH)


@pytest.fixture(scope="module", params=BATCHES, ids=lambda first: f"from {first}")
def ran(request: Any, spark: Any, tmp_path_factory: Any) -> Ran:
    files = [*GOOD, *drawn_files()[request.param : request.param + BATCH]]
    lake = Lake(tmp_path_factory.mktemp("any"))
    summary = lake.run(files)
    rejected: dict[str, set[tuple[int, str]]] = {}
    for row in lake.records():
        if row.status != "parked":  # or closed by a good row of a later file
            line_reasons = (row.line, " ".join(sorted(row.reasons)))
            rejected.setdefault(row.file_path, set()).add(line_reasons)
    return Ran(
        {file.path: file for file in files},
        summary,
        lake.manifest("run-1"),
        {row.file_path: row for row in lake.rows("ingested_files")},
        rejected,
        lake.tables(),
    )


def smallest(ran: Ran, wrong: dict[str, Any]) -> str:
    """The smallest files of which something is wrong."""
    paths = sorted(wrong, key=lambda path: len(ran.files[path].content))
    examples = [f"{path!r}\n  {ran.files[path].content!r}\n  {wrong[path]}" for path in paths[:10]]
    return "\n".join([f"{len(wrong)} files", *examples])


def judged(file: RawFile) -> tuple[str, int, set[tuple[int, str]]]:
    """What the plain reader says: outcome, rows, and the rejected lines with their reasons."""
    try:
        read = read_file(file)
    except SetAside:
        return "set_aside", 0, set()
    bad = {(reject.source.line, " ".join(sorted(reject.reasons))) for reject in read.rejected}
    return "loaded", read.rows_read, bad


def test_enough_files_of_each_kind_are_drawn() -> None:
    files = drawn_files()
    outcomes = [judged(file)[0] for file in files]
    assert len({file.path for file in files}) == len(files) >= FILES * 0.9
    assert min(outcomes.count("loaded"), outcomes.count("set_aside")) > len(files) / 5


def test_the_run_succeeds_and_tells_of_every_file(ran: Ran) -> None:
    assert ran.summary["status"] == "SUCCEEDED"
    check_equation(ran.summary)
    assert ran.manifest.keys() == {path for path in ran.files if not is_marker(path)}


def test_the_good_files_beside_are_loaded(ran: Ran) -> None:
    assert {ran.manifest[file.path]["outcome"] for file in GOOD} == {"loaded"}
    for dataset, key in (("products", "product"), ("orders", "order"), ("order_items", "item")):
        assert f"good-{key}" in ran.tables[dataset]


def test_the_rows_of_every_file_are_its_outcomes(ran: Ran) -> None:
    wrong = {}
    for path, entry in ran.manifest.items():
        row = ran.ledger.get(path)
        if row is None:
            wrong[path] = "not in the ledger"
        elif (
            not entry["rows_read"] == row.rows_read == sum(getattr(row, name) for name in OUTCOMES)
        ):
            wrong[path] = f"{entry['rows_read']} rows in the manifest, {row} in the ledger"
    assert not wrong, smallest(ran, wrong)


def test_a_file_is_loaded_where_the_plain_reader_would_load_it(ran: Ran) -> None:
    wrong = {
        path: f"{entry['outcome']} {entry['reason']}"
        for path, entry in ran.manifest.items()
        if entry["outcome"] != judged(ran.files[path])[0]
    }
    assert not wrong, smallest(ran, wrong)


def test_a_loaded_file_has_the_rows_that_the_plain_reader_counts(ran: Ran) -> None:
    wrong = {}
    for path, entry in ran.manifest.items():
        outcome, rows, rejected = judged(ran.files[path])
        if entry["outcome"] != "loaded" or outcome != "loaded":
            continue
        in_spark = ran.rejected.get(path, set())
        if entry["rows_read"] != rows:
            wrong[path] = f"{entry['rows_read']} rows instead of {rows}"
        elif in_spark != rejected:
            wrong[path] = f"rejected {in_spark - rejected} instead of {rejected - in_spark}"
    assert not wrong, smallest(ran, wrong)
