"""The history of a lake, by what it shows of runs, files and keys; on a lake without Spark."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

import deploy.__main__ as deployer
from client import SetupError, history
from client.lake import Lake
from local.commands import history as command
from tests.small_lake import NOON, SmallLake, order

HEADER = "order_num,order_id,user_id,order_timestamp,total_amount,date\n"


def line(key: str, amount: str, when: str = "2025-04-01T10:00:00") -> str:
    return f"1,{key},u1,{when},{amount},{when[:10]}\n"


@pytest.fixture
def lake(tmp_path: Path) -> SmallLake:
    return SmallLake(tmp_path)


def of_key(lake: SmallLake, key: str = "o1") -> tuple[str, list[dict[str, Any]]]:
    """Return text and rows of the history of an order."""
    answer = history.of_key(Lake.in_folder(lake.folder), "orders", key).plain()
    return answer["text"], answer["rows"]


# ---- runs
def three_runs(lake: SmallLake) -> None:
    """Two loads, the second of which is rolled back."""
    lake.run("run-1")
    lake.run("run-2")
    lake.operation("op-1", "rollback", "The tables went back.", to_run="run-1")


def test_runs_are_listed_with_author_rows_versions_and_whether_they_stand(lake: SmallLake) -> None:
    three_runs(lake)
    answer = history.of_lake(Lake.in_folder(lake.folder)).plain()
    assert answer["text"] == "3 runs changed the lake."
    rollback, second, first = answer["rows"]
    assert (rollback["run_id"], rollback["author"]) == ("op-1", "ann")
    assert rollback["text"] == "The tables went back." and rollback["files"] == 0
    assert [row["stands"] for row in answer["rows"]] == [True, False, True]
    assert first == {
        "run_id": "run-1",
        "operation": "load",
        "author": None,
        "text": None,
        "started_at": "2025-05-01 12:01:00+00:00",
        "finished_at": "2025-05-01 12:01:00+00:00",
        "stands": True,
        "files": 1,
        "rows": {"orders": {"inserted": 1}},
        "versions": {"clean_orders": 1},
    }


def test_a_folder_without_tables_has_no_runs(tmp_path: Path) -> None:
    assert history.of_lake(Lake.in_folder(tmp_path)).text == "0 runs changed the lake."
    with pytest.raises(history.HistoryError, match="nothing was loaded yet"):
        history.of_run(Lake.in_folder(tmp_path), "run-1")


def test_a_run_is_shown_with_its_files_and_corrections(lake: SmallLake) -> None:
    three_runs(lake)
    lake.file("run-1", "orders/1.csv", HEADER)
    lake.file("run-1", "x.txt", outcome="set_aside", destination="rejected", detail="no dataset")
    place = Lake.in_folder(lake.folder)
    answer = history.of_run(place, "run-1")
    assert answer.text == "run-1: A load of 2 files."
    assert answer.rows[0]["run_id"] == "run-1"
    assert list(answer.rows[1:]) == [
        {"file": "x.txt", "outcome": "set_aside", "detail": "no dataset"},
        {"file": "orders/1.csv", "outcome": "loaded", "detail": None},
    ]
    values = {"table_name": "clean_orders", "record_key": "o1", "after": [("total_amount", "9")]}
    lake.write("corrections", [{"run_id": "op-2", **values}, {"run_id": "op-3"}], "op-2")
    lake.operation("op-2", "sql", "1 row was updated.")
    answer = history.of_run(place, "op-2")
    assert answer.text == "op-2: 1 row was updated."
    _, correction = answer.rows
    assert (correction["record_key"], correction["after"]) == ("o1", {"total_amount": "9"})


def test_an_unknown_run_is_answered_with_the_latest_ones(lake: SmallLake) -> None:
    three_runs(lake)
    with pytest.raises(history.HistoryError) as unknown:
        history.of_run(Lake.in_folder(lake.folder), "run-9")
    words = "No run 'run-9' has changed the lake; the latest that did are run-1, run-2 and op-1"
    assert str(unknown.value) == words


# ---- files
def test_a_file_is_shown_with_each_run_its_place_ledger_and_rejects(lake: SmallLake) -> None:
    lake.file("run-1", "orders/1.csv", HEADER)
    lake.file("run-2", "orders/1.csv", HEADER, outcome="duplicate", ledger=False)
    lake.file("run-2", "orders/2.csv", HEADER)
    lake.reject("run-1", "orders/1.csv", 2, "o1")
    lake.reject("run-1", "orders/1.csv", 3, "o2", status="admitted")
    lake.reject("run-2", "orders/2.csv", 2, "o3")
    answer = history.of_file(Lake.in_folder(lake.folder), "orders/1.csv")
    home = f"{lake.folder}/archived/run=run-2/orders/1.csv"
    assert answer.text == f"orders/1.csv: duplicate by run-2; it lies at {home}."
    first, second, ledger, admitted, rejected = answer.rows
    assert (first["run_id"], first["outcome"], first["rows_read"]) == ("run-1", "loaded", 1)
    assert second["lies_at"] == home
    assert ledger["ledger"]["run_id"] == "run-1"
    assert admitted == {"rejects": "admitted", "rows": 1}
    assert rejected == {"rejects": "rejected", "rows": 1}


def test_a_file_that_is_not_in_the_ledger_is_shown_with_the_place_where_it_lies(
    lake: SmallLake,
) -> None:
    homes = {"rejected": "rejected/files/run=run-1/", "raw": "raw/"}
    for destination, home in homes.items():
        path = f"{destination}.csv"
        outcome = "unreadable" if destination == "raw" else "set_aside"
        lake.file("run-1", path, b"x", outcome, destination, ledger=False)
        text = history.of_file(Lake.in_folder(lake.folder), path).text
        assert text == (
            f"{path}: {outcome} by run-1; it lies at {lake.folder}/{home}{path}. "
            "No table contains rows of it."
        )


def test_a_file_of_an_undone_run_is_shown_as_undone(lake: SmallLake) -> None:
    lake.file("run-2", "orders/2.csv", HEADER, ledger=False)
    three_runs(lake)
    text = history.of_file(Lake.in_folder(lake.folder), "orders/2.csv").text
    assert text.startswith("orders/2.csv: loaded by run-2, which was undone; it lies at ")


def test_a_file_whose_manifest_is_gone_is_shown_by_the_ledger(lake: SmallLake) -> None:
    lake.ledger("run-1", "orders/1.csv", 10, NOON)
    answer = history.of_file(Lake.in_folder(lake.folder), "orders/1.csv")
    assert answer.text == "orders/1.csv: recorded by run-1; its manifest is gone."
    with pytest.raises(history.HistoryError, match="No run has seen a file 'orders/nothing.csv'"):
        history.of_file(Lake.in_folder(lake.folder), "orders/nothing.csv")


# ---- keys
def test_each_version_of_a_key_has_run_change_file_line_and_reason(lake: SmallLake) -> None:
    lake.orders("run-1", order("o1", 5.0))
    lake.file("run-1", "orders/1.csv", HEADER + line("o1", "5.0"))
    lake.run("run-1")
    lake.orders("run-2", order("o1", 7.0), order("o2", 1.0))
    older = line("o1", "1", "2025-03-31T10:00:00")
    lake.file("run-2", "orders/2.csv", HEADER + line("o2", "1") + older + line("o1", "7"))
    lake.run("run-2")
    lake.orders("run-3", order("o1", 7.0), order("o2", 2.0))  # no change of o1
    lake.orders("op-1", order("o1", 9.0), order("o2", 2.0))
    lake.operation("op-1", "sql", "clean_orders: 1 row was updated.")
    lake.orders("op-2", order("o2", 2.0))
    lake.operation("op-2", "sql", "clean_orders: 1 row was deleted.")
    lake.reject("run-1", "orders/1.csv", 9, "o1")
    lake.reject("run-1", "orders/1.csv", 10, "o2")
    text, rows = of_key(lake)
    assert text == "clean_orders o1: 4 versions, 1 reject."
    *versions, lost, reject = rows
    assert [(row["version"], row["run_id"], row["change"]) for row in versions] == [
        (0, "run-1", "inserted"),
        (1, "run-2", "updated"),
        (3, "op-1", "updated"),
        (4, "op-2", "deleted"),
    ]
    assert [row["row"] and row["row"]["total_amount"] for row in versions] == [5.0, 7.0, 9.0, None]
    assert versions[0]["row"]["date"] == "2025-04-01"
    assert [(row.get("file"), row.get("line")) for row in versions] == [
        ("orders/1.csv", 2),
        ("orders/2.csv", 4),
        (None, None),
        (None, None),
    ]
    newest = (
        "the newest order_timestamp of those delivered so far; at a tie the later delivery wins"
    )
    assert [row["why"] for row in versions] == [
        newest,
        newest,
        "sql by ann: clean_orders: 1 row was updated.",
        "sql by ann: clean_orders: 1 row was deleted.",
    ]
    assert [row["operation"] for row in versions] == ["load", "load", "sql", "sql"]
    assert (lost["file"], lost["line"]) == ("orders/2.csv", 3)
    assert lost["superseded"]["total_amount"] == "1"
    assert lost["why"] == "its order_timestamp is older than that of the row in the table"
    assert (reject["line"], reject["reasons"]) == (9, ["invalid_total_amount"])


def test_an_earlier_row_of_the_same_run_has_lost_and_a_rejected_one_has_not(
    lake: SmallLake,
) -> None:
    lake.orders("run-1", order("o1", 3.0))
    content = HEADER + line("o1", "2") + line("o1", "abc") + line("o1", "3")
    lake.file("run-1", "orders/1.csv", content)
    lake.reject("run-1", "orders/1.csv", 3, "o1")
    _, (version, lost, reject) = of_key(lake)
    assert (version["line"], lost["line"], reject["line"]) == (4, 2, 3)
    assert lost["why"] == "it was delivered before another row of the same run"


def test_a_replayed_row_has_the_file_and_line_of_its_delivery(lake: SmallLake) -> None:
    lake.orders("op-1", order("o1", 3.0))
    lake.operation("op-1", "replay", "1 row was replayed.")
    closed = {"status": "admitted", "resolved_run_id": "op-1"}
    lake.reject("run-1", "orders/1.csv", 7, "o1", **closed)
    _, (version, _) = of_key(lake)
    assert (version["operation"], version["file"], version["line"]) == ("replay", "orders/1.csv", 7)


def test_a_replayed_file_is_read_where_the_first_run_archived_it(lake: SmallLake) -> None:
    content = HEADER + line("o1", "3")
    lake.file("run-1", "orders/1.csv", content, ledger=False)
    modified = NOON + dt.timedelta(seconds=len("orders/1.csv"), milliseconds=500)
    lake.ledger("op-1", "orders/1.csv", len(content), modified)
    lake.orders("op-1", order("o1", 3.0))
    _, (version,) = of_key(lake)
    assert (version["run_id"], version["file"], version["line"]) == ("op-1", "orders/1.csv", 2)


@pytest.mark.parametrize(
    ("path", "encode"),
    [
        ("orders/1.csv", lambda text: b"\xef\xbb\xbf" + text.encode()),
        ("orders/1.csv.gz", lambda text: gzip.compress(text.encode())),
        ("orders/1.csv", lambda text: ("sep=;\r\n\r\n" + text.replace(",", ";")).encode()),
        ("orders/1.csv", lambda text: text.replace("order_id", " Order_ID ").encode()),
        ("orders/1.csv", lambda text: text.replace("o1", '"o\n2"', 1).encode()),
    ],
)
def test_files_are_read_with_their_own_delimiter_header_and_lines(
    lake: SmallLake, path: str, encode: Callable[[str], bytes]
) -> None:
    content = encode(HEADER + line("o1", "4") + line("o1", "3"))
    lake.file("run-1", path, content)
    lake.orders("run-1", order("o1", 3.0))
    _, rows = of_key(lake)
    before = content[: content.rfind(b"1,o1" if b"1,o1" in content else b"1;o1")]
    lines = 3 if path.endswith(".gz") else before.count(b"\n") + 1
    assert (rows[0]["file"], rows[0]["line"]) == (path, lines)


def test_a_version_that_came_twice_has_the_delivery_of_its_own_run(lake: SmallLake) -> None:
    for number, amount in enumerate((5, 7, 5), 1):
        lake.orders(f"run-{number}", order("o1", float(amount)))
        content = HEADER + "\n" * number + line("o1", str(amount))
        lake.file(f"run-{number}", f"orders/{number}.csv", content)
    _, rows = of_key(lake)
    places = [(row["run_id"], row["file"], row["line"]) for row in rows]
    assert places == [(f"run-{n}", f"orders/{n}.csv", n + 2) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    "content",
    [
        "reasons,where," + HEADER + ",orders/1.csv:2 (0a),1,'o1,u1,'2025-04-01T10:00:00,'12.50,\n",
        "Order-ID;User ID;order timestamp;total amount;order num;date\n"
        '="o1";u1;2025-04-01T12:00:00+0200;12,5;1;\n',
    ],
)
def test_a_delivered_row_is_read_as_the_job_reads_it(lake: SmallLake, content: str) -> None:
    lake.file("run-1", "orders/1.csv", content)
    lake.orders("run-1", order("o1", 12.5))
    _, (version,) = of_key(lake)
    assert (version["file"], version["line"]) == ("orders/1.csv", 2)


def test_a_key_written_with_an_exponent_is_recognized(lake: SmallLake) -> None:
    lake.file("run-1", "orders/1.csv", HEADER + line("1e+05", "5"))
    lake.orders("run-1", order("100000", 5.0))
    _, (version,) = of_key(lake, "100000")
    assert version["line"] == 2


def test_a_damaged_or_lost_file_leaves_file_and_line_open(lake: SmallLake) -> None:
    lake.file("run-1", "orders/1.csv.gz", b"\x1f\x8bnonsense")
    lake.file("run-1", "orders/2.csv", HEADER + line("o1", "3"))
    (lake.folder / "archived/run=run-1/orders/2.csv").unlink()
    lake.orders("run-1", order("o1", 3.0))
    _, (version,) = of_key(lake)
    assert "file" not in version and version["why"].startswith("the newest order_timestamp")


def test_where_the_log_was_cleaned_the_history_begins_at_the_oldest_checkpoint(
    lake: SmallLake,
) -> None:
    for number in range(4):
        lake.orders(f"run-{number}", order("o1", float(number)))
    DeltaTable(str(lake.path("clean_orders")), version=2).create_checkpoint()
    for version in range(2):
        lake.files_of("clean_orders", f"{version:020d}.json").popitem()[1].unlink()
    text, (oldest, updated) = of_key(lake)
    assert text.endswith("Versions of the table before 2 are gone: vacuum or Delta removed them.")
    assert (oldest["version"], oldest["change"], oldest["row"]["total_amount"]) == (
        2, "oldest known", 2.0,
    )  # fmt: skip
    assert oldest["operation"] is None and oldest["why"] == "the versions before it are gone"
    assert (updated["run_id"], updated["change"]) == ("run-3", "updated")


def test_where_data_files_were_removed_the_history_begins_at_the_first_whole_version(
    lake: SmallLake,
) -> None:
    for number in range(3):
        lake.orders(f"run-{number}", order("o1", float(number)))
    first = DeltaTable(str(lake.path("clean_orders")), version=0).file_uris()
    Path(first[0]).unlink()
    text, (oldest, updated) = of_key(lake)
    assert "before 1 are gone" in text
    assert (oldest["version"], oldest["change"], updated["version"]) == (1, "oldest known", 2)
    assert oldest["run_id"] == "" and "file" not in oldest


def test_a_log_without_begin_and_checkpoint_has_no_versions(lake: SmallLake) -> None:
    for number in range(2):
        lake.orders(f"run-{number}", order("o1", float(number)))
    (lake.path("clean_orders") / "_delta_log" / f"{0:020d}.json").unlink()
    assert Lake.in_folder(lake.folder).commits("clean_orders") == []


def test_a_key_needs_a_table_that_has_keys(lake: SmallLake) -> None:
    with pytest.raises(
        history.HistoryError, match="clean_products, clean_orders and clean_orders_"
    ):
        history.of_key(Lake.in_folder(lake.folder), "etl_runs", "1")


# ---- the command
def test_the_command_prints_a_table_or_json(
    lake: SmallLake, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.run("run-1")
    lake.file("run-1", "orders/1.csv", HEADER + line("o1", "5"))
    lake.orders("run-1", order("o1", 5.0))
    place = ["--lake", str(lake.folder)]
    assert command.main(place) == 0
    text, _, head, rule, row = capsys.readouterr().out.splitlines()
    assert text == "1 run changed the lake." and head.startswith("run_id  operation  started_at")
    assert rule.startswith("------") and row.startswith("run-1   load")
    asked = {"--run": "run-1", "--file": "orders/1.csv", "--order": "o1"}
    for option, value in asked.items():
        assert command.main([*place, option, value, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["text"].startswith(("run-1", "orders/1.csv", "clean_orders o1"))
        assert answer["rows"]
    assert command.main([*place, "--product", "7"]) == 0
    assert capsys.readouterr().out == "clean_products 7: 0 versions, 0 rejects.\n"
    assert command.main([*place, "--run", "run-9"]) == 1
    assert capsys.readouterr().err.startswith("No run 'run-9' has changed the lake")


def test_a_folder_or_endpoint_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="there is no such folder"):
        command.main(["--lake", str(tmp_path / "nothing")])
    with pytest.raises(SetupError, match="Nothing listens at http://127.0.0.1:9"):
        command.main(["--endpoint", "http://127.0.0.1:9"])


def test_only_one_subject_can_be_asked_for(lake: SmallLake) -> None:
    with pytest.raises(SystemExit):
        command.main(["--lake", str(lake.folder), "--run", "a", "--order", "b"])


def test_the_same_words_read_a_deployed_lake(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.run("run-1")
    outputs = {"Lake": "s3://lake/", "Archive": "s3://a/archived/", "RawZone": "s3://raw/data/"}

    def outputs_of(session: Any, name: str) -> dict[str, str]:
        assert (session, name) == ("session", "test")
        return outputs

    def of_deployment(session: Any, stack_outputs: Any) -> Lake:
        assert stack_outputs is outputs
        return Lake.in_folder(lake.folder)

    monkeypatch.setattr(deployer, "_session", lambda options: "session")
    monkeypatch.setattr(deployer, "outputs_of", outputs_of)
    monkeypatch.setattr(Lake, "of_deployment", of_deployment)
    assert deployer.main(["operate", "--environment", "test", "history", "--run", "run-1"]) == 0
    assert capsys.readouterr().out.startswith("run-1: A load of 0 files.")
