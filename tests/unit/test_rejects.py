"""Rejected rows as files to fix: what is written comes back as it was, by csv and by a
spreadsheet."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import rejects
from client.lake import Lake
from deploy import __main__ as deployer
from local.commands import rejects as command
from rules import SetAside, open_file
from rules.paths import dataset_of
from rules.tables import COLUMNS, KEY
from tests.any_file import WORDS
from tests.corpus.cases import CASES, DELIVERED, S3_CASES, order, text
from tests.corpus.cases import ORDERS as ORDERS_HEADER
from tests.model import Lakehouse, RawFile
from tests.small_lake import SmallLake

Row = dict[str, Any]
SPREADSHEET = shutil.which("soffice") or shutil.which("libreoffice")
LATER = DELIVERED + dt.timedelta(days=1)


def rejected_by(file: RawFile, run_id: str = "run-1") -> Iterator[Row]:
    """The rows of rejected_records of a file, as the job writes them."""
    lakehouse = Lakehouse()
    lakehouse.run([file])
    for source, record in lakehouse.records.items():
        if record.status == "rejected":
            yield {
                "run_id": run_id,
                "dataset": record.dataset,
                "status": record.status,
                "reasons": record.reasons,
                "record_key": record.record_key,
                "file_path": source.path,
                "file_digest": hashlib.sha256(source.content).hexdigest(),
                "file_size": len(source.content),
                "file_modified": file.modified.replace(tzinfo=dt.UTC),
                "line": source.line,
                "raw": record.raw,
                "fields": record.fields,
            }


def written(dataset: str, rows: list[Row]) -> str:
    stream = io.StringIO(newline="")
    rejects.write_csv(stream, dataset, rows)
    return stream.getvalue()


def read_back(content: str) -> list[dict[str, str]]:
    rows = csv.DictReader(io.StringIO(content, newline=""))
    return [{name: rejects.unescaped(cell) for name, cell in row.items()} for row in rows]


@pytest.fixture(scope="module")
def corpus() -> list[Row]:
    """The rejected rows of the whole corpus."""
    cases = [case for case in (*CASES, *S3_CASES) if case.outcome == "loaded"]
    files = [RawFile(case.path, case.content, DELIVERED) for case in cases]
    return [row for file in files for row in rejected_by(file)]


@given(st.text())
def test_a_value_comes_back_as_it_was_and_begins_no_formula(value: str) -> None:
    cell = rejects.escaped(value)
    assert rejects.unescaped(cell) == value
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize("value", ["", "7", "1001", "Tea, green", "O'Brien", "a-1", "Ärmel"])
def test_a_value_that_a_spreadsheet_leaves_alone_is_written_as_it_is(value: str) -> None:
    assert rejects.escaped(value) == value


@pytest.mark.parametrize(
    "value",
    ["=1+1", "-5", "+49", "@x", "\tx", "\rx", "007", "12.50", "2025-04-01", "1/2", "MAR1", "1e5"]
    + ["12345678901234567", "'s", "Dec 25", "50%", "False"],
)
def test_a_value_that_a_spreadsheet_would_write_in_another_way_begins_with_an_apostrophe(
    value: str,
) -> None:
    assert rejects.escaped(value) == f"'{value}"


def test_every_value_of_the_corpus_comes_back(corpus: list[Row]) -> None:
    for dataset, rows in rejects.rows_to_fix(corpus).items():
        back = read_back(written(dataset, rows))
        assert len(back) == len(rows) > 5
        for row, cells in zip(rows, back, strict=True):
            assert cells["where"] == (
                f"{row['file_path']}:{row['line']} ({row['file_digest'][:8]})"
            )
            if row["fields"] is not None:
                values = {name: row["fields"][name] or "" for name in COLUMNS[dataset]}
                assert {name: cells[name] for name in COLUMNS[dataset]} == values


def test_rows_that_were_not_fixed_are_rejected_again_for_the_same_reasons(
    corpus: list[Row],
) -> None:
    """Even those whose fields could not be told apart: none is loaded as it is by chance."""
    for dataset, rows in rejects.rows_to_fix(corpus).items():
        content = written(dataset, rows).encode("utf-8-sig")
        path = rejects.file_name(dataset)
        assert dataset_of(path) == dataset
        reading = open_file(path, io.BytesIO(content), DELIVERED)
        assert reading.header.ignored == []
        checked_rows = list(reading.rows())
        assert [checked.where for checked in checked_rows] == [
            rejects.place_of(row) for row in rows
        ]
        for checked, row in zip(checked_rows, rows, strict=True):
            if row["fields"] is not None:
                assert (checked.reasons, checked.texts) == (row["reasons"], row["fields"])
            else:
                assert f"missing_{KEY[dataset]}" in checked.reasons or checked.texts is None
        with pytest.raises(SetAside, match="mostly_rejected"):
            reading.finish()


def test_reasons_are_in_words_and_repeated_headers_are_left_out(corpus: list[Row]) -> None:
    assert rejects.reasons_text(["invalid_total_amount", "missing_order_id"]) == (
        "total_amount has a value that cannot be read; order_id is blank"
    )
    rows = [row for some in rejects.rows_to_fix(corpus).values() for row in some]
    assert any("repeated_header" in row["reasons"] for row in corpus)
    assert not any("repeated_header" in row["reasons"] for row in rows)


def test_rows_fixed_and_uploaded_close_every_reject() -> None:
    lines = [order("1", amount="x"), order(""), "1,o3", order("4", at="01/04/2025"), order("5")]
    first = RawFile("orders/may.csv", text(ORDERS_HEADER, *lines), DELIVERED)
    lakehouse = Lakehouse()
    lakehouse.run([first])
    rows = read_back(written("orders", list(rejected_by(first))))
    assert len(rows) == 4
    for number, row in enumerate(rows, 1):
        row |= {"order_num": "1", "order_id": str(number), "total_amount": "-5"}
        row["order_timestamp"] = "2025-04-01T10:00:00"
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(rows[0])
    writer.writerows([rejects.escaped(cell) for cell in row.values()] for row in rows)
    fixed = RawFile("orders-rejects.csv", stream.getvalue().encode(), LATER)
    assert lakehouse.run([fixed])["datasets"]["orders"]["inserted"] == 4
    assert [record.status for record in lakehouse.records.values()] == ["superseded"] * 4
    assert lakehouse.tables["orders"].keys() == {"1", "2", "3", "4", "5"}


# ---- through a spreadsheet
@pytest.mark.skipif(SPREADSHEET is None, reason="no LibreOffice here")
def test_the_file_goes_through_libreoffice_and_back_unchanged(
    corpus: list[Row], tmp_path: Path
) -> None:
    """Opened and saved with the settings that LibreOffice begins with."""
    odd = {name: None for name in COLUMNS["orders"]}
    rows = [row for row in corpus if row["dataset"] == "orders" and row["fields"]]
    rows += [{**rows[0], "fields": odd | {"user_id": word}} for word in WORDS if "\r" not in word]
    (tmp_path / "orders.csv").write_text(written("orders", rows), encoding="utf-8-sig", newline="")
    profile = f"-env:UserInstallation=file://{tmp_path / 'profile'}"
    call = [
        str(SPREADSHEET),
        profile,
        "--headless",
        "--convert-to",
        "csv:Text - txt - csv (StarCalc)",
    ]
    call[-1] += ":44,34,76,1,,0,false,true,false,false,false,-1"
    call += ["--infilter=CSV:44,34,76,1", "--outdir", str(tmp_path / "out"), "orders.csv"]
    subprocess.run(call, cwd=tmp_path, check=True, capture_output=True)
    (saved,) = (tmp_path / "out").iterdir()
    content = saved.read_text("utf-8-sig")
    assert read_back(content) == read_back(written("orders", rows))


# ---- the command
@pytest.fixture
def lake(tmp_path: Path) -> Path:
    files = [
        RawFile("orders/a.csv", text(ORDERS_HEADER, order("1", amount="x")), DELIVERED),
        RawFile("orders/b.csv", text(ORDERS_HEADER, order("2", at="")), DELIVERED),
    ]
    rows = [row for number, file in enumerate(files) for row in rejected_by(file, f"run-{number}")]
    rows += [
        {**rows[0], "status": "superseded", "line": 9},
        {**rows[0], "reasons": ["repeated_header"]},
    ]
    for row in rows:
        row["fields"] = list((row["fields"] or {}).items())
    SmallLake(tmp_path / "lake").write("rejected_records", rows, "run-1")
    return tmp_path / "lake"


def test_the_command_writes_a_file_for_each_dataset_of_the_open_rows(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--csv", "--lake", str(lake), "--out", str(out)]
    assert command.main([*words, "--run", "run-1"]) == 0
    (path,) = out.iterdir()
    assert path.name == "orders-rejects-run-1.csv"
    assert capsys.readouterr().out == f"{path}: 1 row\n"
    (row,) = read_back(path.read_text("utf-8-sig"))
    assert (row["order_id"], row["reasons"]) == ("2", "order_timestamp is blank")
    assert path.read_bytes().startswith(b'\xef\xbb\xbf"reasons","where","order_num"')
    assert command.main(["--lake", str(lake)]) == 0
    assert capsys.readouterr().out == (
        "orders: 2 rejected rows\nLeft out, since they hold no data: 1 repeated header\n"
    )
    assert command.main([*words, "--dataset", "products"]) == 0
    assert capsys.readouterr().out == "No rejected row is open\n"


def test_the_rejects_of_a_deployed_environment_are_read_by_the_caller(
    lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deployer, "_session", lambda options: "session")
    monkeypatch.setattr(deployer, "outputs_of", lambda session, name: {"of": name})
    places: list[Any] = []

    def of_deployment(session: Any, outputs: Any) -> Lake:
        places.append((session, outputs))
        return Lake.in_folder(lake)

    monkeypatch.setattr(Lake, "of_deployment", of_deployment)
    words = ["operate", "--environment", "test", "rejects", "--run", "run-1"]
    assert deployer.main(words) == 0
    assert places == [("session", {"of": "test"})]
    assert capsys.readouterr().out == "orders: 1 rejected row\n"
