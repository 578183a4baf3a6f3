"""The check before an upload: the verdicts of the model, in words, quickly and without Spark."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

import glue_etl as etl
from client import ROOT, check
from client.lake import Lake
from local.commands import check as command
from rules import SetAside, open_file, reader, reasons, records, tables, values
from rules.paths import is_usable
from tests.any_file import a_file
from tests.corpus.cases import CASES, DELIVERED, S3_CASES, order, text
from tests.corpus.cases import ITEMS as ITEMS_HEADER
from tests.corpus.cases import ORDERS as ORDERS_HEADER
from tests.model import RawFile, read_file
from tests.scenario_files import read_scenario, scenario_names
from tests.small_lake import SmallLake

Verdict = tuple[str, str | None, int, list[tuple[int, list[str]]]]
FUZZED = 1500
KINDS = {"INT": "int", "DOUBLE": "double", "BOOLEAN": "boolean", "TIMESTAMP": "timestamp"}
KINDS |= {"DATE": "date", "STRING": "text"}


def all_files() -> Iterator[RawFile]:
    """The corpus, all files of the scenarios, and files that were drawn."""
    for case in (*CASES, *S3_CASES):
        yield RawFile(case.path, case.content, DELIVERED)
    for name in scenario_names():
        for run in read_scenario(name).runs:
            yield from run.files
    for seed in range(FUZZED):
        yield a_file(Random(seed), seed)


def by_the_model(file: RawFile) -> Verdict:
    """Every row through the whole parser."""
    try:
        read = read_file(file)
    except SetAside as error:
        return "set_aside", error.reason, 0, []
    bad = [(row.source.line, row.reasons) for row in read.rejected]
    return "good", None, read.rows_read, sorted(bad)


def by_the_check(file: RawFile) -> Verdict:
    checked = check.check_file(file.path, io.BytesIO(file.content), file.modified)
    if checked.outcome == "set_aside":
        return "set_aside", checked.reason, 0, []
    bad = [(row.line, [fault.reason for fault in row.faults]) for row in checked.rejected_rows]
    assert checked.rejected == len(bad)
    return checked.outcome, None, checked.rows, sorted(bad)


def differences(files: list[RawFile]) -> list[str]:
    """The files with two verdicts; markers of tools, which the check passes, are none."""
    pairs = ((file, by_the_model(file), by_the_check(file)) for file in files)
    return [
        f"{file.path!r} {file.content[:500]!r}: {model}, checked {checked}"
        for file, model, checked in pairs
        if checked[0] != "skipped" and model != checked
    ]


@pytest.fixture(scope="module")
def files() -> list[RawFile]:
    return list(all_files())


def test_the_check_has_the_verdicts_of_the_model(files: list[RawFile]) -> None:
    assert len(files) > FUZZED + 200
    assert differences(files) == []


def test_rows_judged_at_a_glance_have_the_verdicts_of_the_whole_parser(
    files: list[RawFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind the first 64 kB of a large file, where most lines are judged at a glance."""
    monkeypatch.setattr(reader, "HEAD", 0)
    skipped = []
    skip = records.Records.skip

    def counted(*arguments: Any) -> int:
        skipped.append(skip(*arguments))
        return skipped[-1]

    monkeypatch.setattr(records.Records, "skip", counted)
    assert differences(files) == []
    assert sum(skipped) > 1000


@pytest.mark.parametrize("size", [1, 7, 100])
def test_records_are_the_same_whatever_the_pieces_in_which_they_come(
    files: list[RawFile], size: int
) -> None:
    shapes = [records.Shape(sign, width) for sign, width in ((",", 6), (";", 4), ("\t", 9))]
    shapes.append(records.Shape(",", 4, returns=False))
    for place, file in enumerate(files):
        content, shape = file.content[:3000].decode("latin-1"), shapes[place % 4]
        pieces = [content[at : at + size] for at in range(0, len(content), size)]
        assert list(records.Records(pieces, shape)) == list(records.split_records(content, shape))


def first_look_of_the_job(file: RawFile) -> etl.RawFile:
    """What the job makes of a file by its path, its bytes and its header; it needs no Spark."""
    stored = etl.StoredObject(file.path, "", len(file.content), file.modified)
    raw = etl.RawFile(stored, etl.dataset_of(file.path))
    return etl.with_header(raw, iter([file.content]))


def test_the_jobs_first_look_at_a_file_finds_the_same_and_says_it_in_the_same_words(
    files: list[RawFile],
) -> None:
    """But for what zlib says of damaged files, which depends on the pieces that it is given."""
    by_rows = ("mostly_rejected", "mixed_headers")
    compared = 0
    for file in files:
        if check.is_marker(file.path) or not is_usable(file.path):
            continue
        job, check_result = first_look_of_the_job(file), checked(file.path, file.content)
        if job.outcome != "set_aside":
            assert check_result.outcome == "good" or check_result.reason in by_rows, file
            continue
        assert check_result.reason == job.reason, file
        if job.reason != "truncated_gzip":
            compared += 1
            assert f"{file.path}: {check_result.detail}"[: etl.TEXT_LIMIT] == job.detail, file
    assert compared > 300


# ---- declarations
def test_job_and_rules_declare_the_same_tables() -> None:
    declared = {table.dataset: table for table in etl.TABLES}
    assert {
        dataset: {
            column.name: "name" if column.identifier else KINDS[column.type]
            for column in table.columns
        }
        for dataset, table in declared.items()
    } == tables.COLUMNS
    assert {dataset: table.key for dataset, table in declared.items()} == tables.KEY
    assert {
        dataset: [column.name for column in table.columns if column.required]
        for dataset, table in declared.items()
    } == tables.REQUIRED
    assert {
        parent.column: (parent.dataset, parent.reason)
        for table in etl.TABLES
        for parent in table.parents
    } == tables.PARENTS
    assert {
        dataset: {column.name: column.also for column in table.columns if column.also}
        for dataset, table in declared.items()
    } == tables.OTHER_NAMES
    assert etl.REJECT_COLUMNS == tables.REJECT_COLUMNS
    assert {rule.reason for table in etl.TABLES for rule in table.rules} == {
        "date_mismatch",
        *(reason for rules in tables.CUSTOM_RULES.values() for reason in rules),
    }


def test_job_and_rules_give_the_same_words_for_a_file_that_is_set_aside() -> None:
    assert etl.FILE_REASONS == reasons.FILE_REASONS


def test_all_of_unicodes_invisible_characters_are_known() -> None:
    every = {chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Cf"}
    assert every == values.UNSEEN


# ---- a file, in words
def checked(path: str, content: bytes, **options: Any) -> check.CheckedFile:
    return check.check_file(path, io.BytesIO(content), DELIVERED, **options)


def test_a_rejected_row_names_its_line_column_value_and_reason() -> None:
    content = text(
        ORDERS_HEADER, order("1"), order("2", amount="1;234"), order("3", at="yesterday")
    )
    file = checked("orders.csv", content)
    assert (file.rows, file.rejected, file.outcome) == (3, 2, "good")
    assert list(check.lines_of(file, 20)) == [
        "orders.csv: orders, 3 rows, of which 2 would be rejected",
        "  line 3: total_amount has a value that cannot be read: '1;234' (invalid_total_amount)",
        "  line 4: order_timestamp has a value that cannot be read: 'yesterday' "
        "(invalid_order_timestamp)",
    ]
    fault = file.rejected_rows[0].faults[0]
    assert (fault.reason, fault.column, fault.value) == (
        "invalid_total_amount",
        "total_amount",
        "1;234",
    )


def test_a_row_of_the_wrong_shape_is_shown_as_it_is() -> None:
    file = checked("orders.csv", text(ORDERS_HEADER, "1,o1,u1", order("2")))
    assert list(check.lines_of(file, 20))[1:] == [
        "  line 2: fewer fields than the header (too_few_fields)",
        "    '1,o1,u1'",
    ]


def test_a_file_that_would_be_set_aside_says_why() -> None:
    header = ORDERS_HEADER.replace("total_amount", "total amounts")
    file = checked("orders.csv", text(header, order("1")))
    assert list(check.lines_of(file, 20)) == [
        "orders.csv: would be set aside, no row loaded: columns are missing from the header "
        "(total_amount; did you mean 'total amounts'?)"
    ]
    assert not file.is_clean


def test_a_file_with_mostly_rejected_rows_lists_them_all_the_same() -> None:
    rows = [order(str(place), amount="x") for place in range(30)]
    file = checked("orders.csv", text(ORDERS_HEADER, *rows), limit=5)
    assert (file.outcome, file.reason) == ("set_aside", "mostly_rejected")
    assert (len(file.rejected_rows), file.rejected) == (5, 30)
    assert list(check.lines_of(file, 5))[-1] == "  … and 25 more"
    assert checked("orders.csv", text(ORDERS_HEADER, *rows), max_rejected_percent=100).is_clean is (
        False
    )


def test_hints_tell_of_a_cut_file_ignored_columns_and_lines_above_the_header() -> None:
    content = f"Orders of May\n{ORDERS_HEADER},colour\n{order('1')},red".encode()
    lines = list(check.lines_of(checked("orders.csv.gz", gzip.compress(content)), 20))
    assert lines == [
        "orders.csv.gz: orders, 1 row, all good",
        "  1 line above the header would be skipped",
        "  columns of no table, ignored: colour",
        "  the last line has no line end: compare the file with the export if it may be cut",
    ]


@pytest.mark.parametrize(("path", "name"), [("a/.DS_Store", "skipped"), ("x.txt", "set_aside")])
def test_what_is_no_delivery_is_told(path: str, name: str) -> None:
    assert checked(path, b"x").outcome == name


# ---- files that were loaded before
def ledger_row(content: bytes, dataset: str, path: str) -> dict[str, Any]:
    digest = etl.hashlib.sha256(content).hexdigest()
    return {
        "run_id": "run-1",
        "dataset": dataset,
        "file_path": path,
        "file_digest": digest,
        "file_size": len(content),
        "outcome": "loaded",
        "ingested_at": datetime(2025, 5, 3, 8, tzinfo=dt.UTC),
    }


def test_a_file_whose_bytes_were_loaded_is_known_under_any_name(tmp_path: Path) -> None:
    content = text(ORDERS_HEADER, order("1"))
    SmallLake(tmp_path).write(
        "ingested_files", [ledger_row(content, "orders", "orders/a.csv")], "r"
    )
    files = [
        checked("orders_copy.csv", content),
        checked("orders_new.csv", content + b"\n"),
        checked("orders_new (1).csv", content + b"\n"),
    ]
    lake = Lake.in_folder(tmp_path)
    check.mark_duplicates(files, check.ledger_rows(lake, [file.digest for file in files]))
    assert [file.outcome for file in files] == ["known", "good", "known"]
    assert files[0].detail == (
        "these bytes were loaded on 3 May 2025 as orders/a.csv; a run skips it"
    )
    assert files[2].detail == "the same bytes as orders_new.csv; a run loads them once"


# ---- the command
def written(folder: Path, **contents: bytes) -> Path:
    for name, content in contents.items():
        path = folder / f"{name.replace('__', '/')}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_the_exit_code_tells_scripts_whether_all_is_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = text(ORDERS_HEADER, order("1")), text(ORDERS_HEADER, order("1", at=""))
    folder = written(tmp_path / "good", orders__may=good)
    assert command.main([str(folder)]) == 0
    assert capsys.readouterr().out.startswith("orders/may.csv: orders, 1 row, all good\n\n1 file, ")
    written(folder, orders__june=bad)
    assert command.main([str(folder)]) == 1
    assert (
        "  line 2: order_timestamp is blank (missing_order_timestamp)\n" in capsys.readouterr().out
    )
    assert command.main([str(written(tmp_path / "none", customers=good))]) == 1
    for wrong in ([], [str(tmp_path / "absent")], ["--nonsense"]):
        with pytest.raises(SystemExit) as error:
            command.main(wrong)
        assert error.value.code == 2
    assert "there is no such file or folder" in capsys.readouterr().err


def test_json_has_every_rejected_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [order(str(place), amount="x" if place < 30 else "1") for place in range(90)]
    written(tmp_path, orders=text(ORDERS_HEADER, *rows))
    assert command.main(["--json", str(tmp_path)]) == 1
    document = json.loads(capsys.readouterr().out)
    (file,) = document["files"]
    assert (document["clean"], file["rejected"], len(file["rejected_rows"])) == (False, 30, 30)
    assert file["rejected_rows"][0] == {
        "line": 2,
        "raw": order("0", amount="x"),
        "faults": [
            {
                "reason": "invalid_total_amount",
                "text": "total_amount has a value that cannot be read",
                "column": "total_amount",
                "value": "x",
            }
        ],
    }


def test_the_folders_above_a_file_tell_its_dataset_as_below_the_raw_prefix(tmp_path: Path) -> None:
    written(tmp_path / "exports", orders__x=b"", stock__orders=b"", y=b"")
    exports = tmp_path / "exports"

    def paths(place: Path) -> list[str]:
        return [path for path, _ in check.paths_below(place)]

    assert paths(exports) == ["orders/x.csv", "stock/orders.csv", "y.csv"]
    assert paths(exports / "orders") == ["orders/x.csv"]
    assert paths(exports / "orders" / "x.csv") == ["orders/x.csv"]
    assert paths(exports / "stock" / "orders.csv") == ["orders.csv"]
    assert paths(exports / "y.csv") == ["y.csv"]


def test_the_check_takes_neither_spark_nor_aws(tmp_path: Path) -> None:
    written(tmp_path, order_items=text(ITEMS_HEADER))
    code = (
        "import runpy, sys; sys.argv = ['local', 'check', sys.argv[1]]\n"
        "try: runpy.run_module('local', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(sorted({'pyspark', 'boto3', 'pyarrow', 'deltalake'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_a_large_file_is_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f"{order(f'o{place}')}\n" for place in range(20_000))
    reading = open_file("orders.csv", io.BytesIO(f"{ORDERS_HEADER}\n{rows}".encode()), DELIVERED)
    most, grow = [0], records.Records._grow

    def watched(self: records.Records) -> bool:
        grown = grow(self)
        most[0] = max(most[0], len(self._text))
        return grown

    monkeypatch.setattr(records.Records, "_grow", watched)
    assert list(reading.bad_rows()) == []
    assert reading.read == 20_000
    assert 0 < most[0] <= 2 * records.PIECE
