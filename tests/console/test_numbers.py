"""The console's numbers agree with the tables, and its texts with the operations."""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import gzip
import io
from typing import Any

import pytest

from client.operations import Operations, Outcome
from console.athena import QueryError, csv_line, reads
from console.data import Attention, Lake, dismissal
from console.data.rejects import CORRECTED, OPEN, Filters
from console.data.runs import Run, causes, changes_something, is_plan
from console.data.steps import NAMES, steps_of
from console.operations import Operator
from tests.console.conftest import deliver
from tests.console.world import Shop, order, orders

testing = pytest.importorskip("nicegui.testing", reason="the console is not installed")
dialogs = pytest.importorskip("console.pages.dialogs")
home = pytest.importorskip("console.pages.home")
look = pytest.importorskip("console.look")
rejects_page = pytest.importorskip("console.pages.rejects")
run_page = pytest.importorskip("console.pages.run")
runs_page = pytest.importorskip("console.pages.runs")
sql = pytest.importorskip("console.pages.sql")
tables = pytest.importorskip("console.pages.tables")
upload = pytest.importorskip("console.pages.upload")


def operate(lake: Lake, **request: Any) -> Outcome:
    operator = Operator(lake, allowed=True)
    outcome = operator.wait(operator.start(request, dry_run=False), 60)
    lake.forget()
    return outcome


# --------------------------------------------------------------------------------------------------
# Runs
# --------------------------------------------------------------------------------------------------
def test_mistyped_statements_are_no_runs_and_hide_no_run(shop: Shop, lake: Lake) -> None:
    before = [run.run_id for run in lake.runs.recent()]
    operator = Operator(lake, allowed=True)
    for _ in range(3):
        operator.wait(operator.start({"operation": "sql", "sql": "INSERT refuse"}, True), 60)
        reading = {"operation": "sql", "sql": "SELECT refuse"}
        operator.wait(operator.start(reading, dry_run=False), 60)
    lake.forget()
    assert [run.run_id for run in lake.runs.recent()] == before
    card = next(card for card in lake.tables.cards() if card["table"] == "clean_orders")
    rows = lake.athena.run("SELECT count(*) FROM clean_orders").rows[0][0]
    assert (str(card["rows"]), bool(card["changed"])) == (rows, True)


def test_a_failed_statement_that_changes_data_is_a_failed_run_with_its_cause(lake: Lake) -> None:
    failed = operate(lake, operation="sql", sql="INSERT refuse")
    run = lake.runs.recent()[0]
    assert (run.run_id, run.what) == (failed.run_id, "correction")
    assert "two rows with the key 1" in run.cause
    listed = runs_page.read(lake).runs
    assert listed[0].cause == run.cause


@pytest.mark.parametrize(
    ("execution_input", "changes"),
    [
        ("[]", True),
        ("{}", True),
        ('{"operation": "sql", "sql": "SELECT 1"}', False),
        ('{"operation": "sql", "sql": "DELETE FROM t"}', True),
        ('{"operation": "sql", "sql": "DELETE FROM t", "dry_run": true}', False),
        ('{"operation": "replay", "dry_run": false}', True),
    ],
)
def test_plans_and_readings_change_nothing(execution_input: str, changes: bool) -> None:
    assert changes_something(execution_input) is changes


def test_the_name_of_an_execution_says_that_it_is_a_plan(lake: Lake) -> None:
    plan = Operator(lake, allowed=True).start({"operation": "optimize"}, dry_run=True)
    done = Operator(lake, allowed=True).start({"operation": "optimize"}, dry_run=False)
    assert is_plan(plan) and not is_plan(done)


def test_a_run_lasts_as_long_on_each_page(lake: Lake) -> None:
    (recorded,) = lake.runs.recorded(1)
    shown = lake.runs.get(recorded.run_id)
    executions = [
        execution for execution in lake.executions(50) if execution["name"] == recorded.run_id
    ]
    (described,) = lake.runs.described(executions)
    assert shown is not None
    assert shown.seconds == recorded.seconds == described.seconds


@pytest.mark.parametrize(
    ("operation", "operation_summary", "what"),
    [
        ("load", {}, "load"),
        ("sql", {"text": "x"}, "correction"),
        ("rollback", {"plan": {"runs": 1}}, "undo"),
        ("rollback", {"plan": {"runs": 3}}, "go back"),
        ("replay", {"text": "2 rows were discarded."}, "discard"),
        ("replay", {"text": "2 rows were replayed."}, "replay"),
        ("optimize", {"dry_run": True}, "plan: optimize"),
    ],
)
def test_an_operation_is_named_as_what_it_is(
    operation: str, operation_summary: Any, what: str
) -> None:
    run = Run("r", "SUCCEEDED", operation=operation, summary={"operation": operation_summary})
    assert run.what == what


def test_an_undone_run_says_so_and_its_files_can_be_loaded_again(shop: Shop, lake: Lake) -> None:
    run_id = deliver(shop, {"orders/gone.csv": orders(order(600), order(601))})
    lake.forget()
    assert lake.runs.last_change() == run_id
    operate(lake, operation="rollback", undo=run_id)
    assert lake.runs.undone() == [run_id]
    assert next(run for run in lake.runs.recorded() if run.run_id == run_id).undone
    shown = lake.runs.get(run_id)
    assert shown is not None and shown.undone
    assert lake.runs.last_change() != run_id
    (file,) = lake.files.undone()
    assert (file["path"], file["run_id"]) == ("orders/gone.csv", run_id)


def test_a_rollback_acts_on_the_versions_that_its_plan_saw() -> None:
    plan = {"tables": {"clean_orders": {"from": 7, "to": 5}, "ingested_files": {"from": 3}}}
    request = {"operation": "rollback", "to": "r"}
    planned = dialogs.as_planned(request, Outcome("p", None, {"plan": plan}))
    assert planned == {**request, "expected": {"clean_orders": 7, "ingested_files": 3}}
    replay = {"operation": "replay"}
    assert dialogs.as_planned(replay, Outcome("p", None, {"plan": plan})) == replay


def test_failed_runs_stand_between_the_runs_of_their_page() -> None:
    def at(hour: int, status: str = "SUCCEEDED") -> Run:
        return Run(f"{hour}", status, dt.datetime(2025, 4, 1, hour, tzinfo=dt.UTC))

    failed = [at(9, "FAILED"), at(5, "FAILED"), at(1, "FAILED")]
    page = [at(8), at(6), at(4)]
    between = runs_page.failed_between
    assert [run.run_id for run in between(failed, page, True, False)] == ["9", "5"]
    assert [run.run_id for run in between(failed, page, False, True)] == ["5", "1"]
    assert len(between(failed, [], True, True)) == 3


def test_touched_days_are_counted_not_their_spans() -> None:
    assert tables.days_in([["2025-04-01", "2025-04-03"], ["2025-05-01", "2025-05-01"]]) == 4
    assert tables.days_in([["__HIVE_DEFAULT_PARTITION__", "__HIVE_DEFAULT_PARTITION__"]]) == 1


SUMMARY = {
    "files": {"listed": 45},
    "datasets": {"orders": {"rows_read": 10, "inserted": 7, "unchanged": 1, "rejected": 2}},
    "timings": {"discovered": 1, "staged": 2},
}


def test_a_run_is_six_steps_with_what_went_from_one_to_the_next() -> None:
    steps = steps_of(Run("r", "SUCCEEDED", summary=SUMMARY), {}, [])
    assert [step.name for step in steps] == list(NAMES)
    assert {step.status for step in steps} == {"done"}
    amounts = [step.on for step in steps]
    assert amounts[:4] == ["45 files", "10 rows", "8 good, 2 rejected", "7 written"]


def test_a_step_that_failed_is_the_one_behind_the_last_that_was_done() -> None:
    failed = steps_of(Run("r", "FAILED", summary=SUMMARY), {}, [])
    assert [step.status for step in failed][:4] == ["done", "done", "failed", "not reached"]
    running = steps_of(Run("r", "RUNNING"), {}, ["[r] discovered"])
    assert [step.status for step in running][:3] == ["done", "running", "not reached"]


# --------------------------------------------------------------------------------------------------
# SQL
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "-- note\n select 1",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "SHOW TABLES",
        "DESCRIBE clean_orders",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "EXPLAIN (TYPE LOGICAL, FORMAT JSON) SELECT 1",
    ],
)
def test_what_reads_goes_to_athena(statement: str) -> None:
    assert reads(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE clean_orders",
        "CREATE TABLE x AS SELECT 1",
        "UNLOAD (SELECT 1) TO 's3://bucket/'",
        "EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1",
        "MSCK REPAIR TABLE clean_orders",
        "/* SELECT */ DROP TABLE clean_orders",
        "-- SELECT 1\rDROP TABLE clean_orders\n SELECT 1",
        "",
    ],
)
def test_nothing_else_goes_to_athena(lake: Lake, statement: str) -> None:
    before = len(lake.athena.past(100))
    with pytest.raises(QueryError, match="Only SELECT, SHOW, DESCRIBE and EXPLAIN"):
        lake.athena.run(statement)
    assert len(lake.athena.past(100)) == before


def test_the_whole_answer_is_csv_and_null_is_not_an_empty_text(lake: Lake) -> None:
    query = "SELECT * FROM (VALUES (1, ''), (2, NULL), (10, 'a \"b\"')) AS t (n, x)"
    answer = lake.athena.run(query, 1)
    assert answer.truncated
    lines = "".join(lake.athena.lines(answer.query_id)).splitlines()
    assert lines == ['"n","x"', '"1",""', '"2",', '"10","a ""b"""']
    assert csv_line([None, ""]) == ',""\n'


def test_numbers_are_sorted_as_numbers_and_null_can_be_seen() -> None:
    number, text = sql.column_of(0, "n", "bigint"), sql.column_of(1, "x", "varchar")
    assert "Number(a) - Number(b)" in number[":comparator"] and ":comparator" not in text
    assert "'NULL'" in number[":valueFormatter"]


def test_an_answer_says_how_long_it_took_and_what_it_read(lake: Lake) -> None:
    answer = lake.athena.run("SELECT order_id FROM clean_orders", 2)
    assert sql.about(answer).startswith("2 rows, the first 2 shown in ")
    on_aws = dataclasses.replace(answer, seconds=1.5, scanned=2048, engine="", truncated=False)
    assert sql.about(on_aws) == "2 rows in 1.5 s, 2.0 KB read"


def test_a_stopped_query_says_so(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    query_id = lake.athena.start("SELECT 1")
    cancelled = {"QueryExecution": {"Status": {"State": "CANCELLED"}}}
    monkeypatch.setattr(lake.athena.client, "get_query_execution", lambda **_: cancelled)
    with pytest.raises(QueryError, match="was stopped"):
        lake.athena.answer(query_id)


# --------------------------------------------------------------------------------------------------
# Files and rejects
# --------------------------------------------------------------------------------------------------
def put(shop: Shop, name: str, body: bytes) -> tuple[str, str]:
    shop.aws.client("s3").put_object(Bucket=shop.aws.name("LakeBucket"), Key=name, Body=body)
    return shop.aws.name("LakeBucket"), name


@pytest.mark.parametrize("packed", [False, True])
def test_a_line_far_down_a_long_file_is_read_with_its_neighbours(
    shop: Shop, lake: Lake, packed: bool
) -> None:
    text = "".join(f"line {number}{',' * 60}\n" for number in range(1, 30_001)).encode()
    name = f"preview/long.csv{'.gz' if packed else ''}"
    place = put(shop, name, gzip.compress(text) if packed else text)
    lines = lake.files.lines(*place, 20_014, 41)
    assert (lines.first, len(lines.texts), lines.has_next) == (19_974, 41, True)
    assert lines.texts[20].startswith("line 19994,")
    end = lake.files.lines(*place, 99_999, 41)
    assert (end.first + len(end.texts) - 1, end.has_next) == (30_000, False)


def test_lines_are_counted_as_the_job_counts_them(shop: Shop, lake: Lake) -> None:
    place = put(shop, "preview/ends.csv", "a\u2028b\x0bc\r\nd\re\n".encode())
    assert lake.files.lines(*place, 9, 9).texts == ("a\u2028b\x0bc", "d", "e")


def test_a_damaged_gzip_file_shows_what_can_be_read(shop: Shop, lake: Lake) -> None:
    packed = gzip.compress(b"".join(b"%d\n" % number for number in range(50_000)))
    place = put(shop, "preview/cut.csv.gz", packed[: len(packed) // 2])
    lines = lake.files.lines(*place, 100_000, 10)
    assert "cannot be unpacked" in lines.trouble


def test_rejects_are_grouped_with_their_files_and_two_examples(lake: Lake) -> None:
    (group,) = lake.rejects.groups(Filters(status=OPEN))
    assert (group["dataset"], group["reason"]) == ("orders", "invalid_total_amount")
    assert (group["n"], group["files"]) == (3, 3)
    assert group["first"] != group["last"]


def test_rejects_are_handed_out_as_a_file_to_fix(lake: Lake) -> None:
    name, content = rejects_page.to_fix(lake, Filters(file="orders/2025-04-01.csv", status=OPEN))
    assert name.startswith("orders-rejects-") and name.endswith(".csv")
    (row,) = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    assert (row["order_id"], row["total_amount"]) == ("3", "abc")
    assert row["where"].startswith("orders/2025-04-01.csv:4")
    with pytest.raises(Exception, match="can be fixed"):
        rejects_page.to_fix(lake, Filters(file="no/such.csv"))


def test_rows_that_were_corrected_since_can_be_asked_for(lake: Lake) -> None:
    filters = Filters(status=CORRECTED)
    assert "superseded" in filters.where() and "admitted" in filters.where()
    assert filters.request() == {}


@pytest.mark.parametrize(
    ("numbers", "nothing"),
    [({"rejected": 2}, True), ({"rejected": 1, "inserted": 1}, False), ({"superseded": 1}, False)],
)
def test_a_replay_that_changes_nothing_is_seen_in_its_plan(numbers: Any, nothing: bool) -> None:
    plan = {"datasets": {"orders": {"rows_read": 2, **numbers}}}
    assert dialogs.changes_nothing(Outcome("r", None, {"plan": plan})) is nothing
    assert not dialogs.changes_nothing(Outcome("r", "refused", {}))


# --------------------------------------------------------------------------------------------------
# Attention
# --------------------------------------------------------------------------------------------------
def item(kind: str, count: int = 1, share: float = 0.0) -> Attention:
    return Attention(kind, f"{kind} {share}", count, None, {"page": "/"}, share)


def test_what_needs_attention_is_sorted_by_weight() -> None:
    items = [item("set_aside"), item("parked"), item("rejected", 9, 0.1), item("rejected", 1, 0.4)]
    attention = sorted([*items, item("failed")], key=lambda entry: entry.weight)
    assert [(entry.kind, entry.share) for entry in attention] == [
        ("failed", 0.0),
        ("rejected", 0.4),
        ("rejected", 0.1),
        ("parked", 0.0),
        ("set_aside", 0.0),
    ]


@pytest.mark.parametrize(
    ("operation", "newer", "open_runs"),
    [
        ("load", ("load", "SUCCEEDED"), []),
        ("load", ("load", "FAILED"), ["newer", "failed"]),
        ("load", ("sql", "SUCCEEDED"), ["failed"]),
        ("vacuum", ("vacuum", "SUCCEEDED"), []),
        ("sql", ("sql", "SUCCEEDED"), ["failed"]),
    ],
)
def test_a_failed_run_needs_attention_until_a_later_one_has_done_its_work(
    lake: Lake, operation: str, newer: tuple[str, str], open_runs: list[str]
) -> None:
    runs = [
        Run("newer", newer[1], operation=newer[0]),
        Run("failed", "FAILED", operation=operation),
        Run("older", "SUCCEEDED", operation=operation),
    ]
    failures = [entry for entry in lake.attention(runs, {}) if entry.kind == "failed"]
    assert [entry.link["run"] for entry in failures] == open_runs


def test_a_file_that_was_set_aside_still_needs_attention_when_its_run_is_undone(
    shop: Shop, lake: Lake
) -> None:
    files = {"orders/with.csv": orders(order(650)), "stock-2.csv": b"a,b\n1,3\n"}
    run_id = deliver(shop, files)
    operate(lake, operation="rollback", undo=run_id)
    assert ("stock-2.csv", "unknown_dataset") in [file[:2] for file in lake.files.aside()]
    assert [file["path"] for file in lake.files.undone() if file["run_id"] == run_id] == [
        "orders/with.csv"
    ]
    deliver(shop, {"stock-2.csv": b"a,b\n1,4\n"})
    lake.forget()
    assert [file[0] for file in lake.files.aside()].count("stock-2.csv") == 1
    undone = deliver(shop, {"stock-2.csv": b"a,b\n1,5\n"})
    operate(lake, operation="rollback", undo=undone)
    assert [file[0] for file in lake.files.aside()].count("stock-2.csv") == 1


@pytest.mark.parametrize(
    ("files", "archived", "sentence"),
    [
        (0, 0, ""),
        (3, 3, "Of its 3 files, 3 can be loaded again from the archive."),
        (3, 0, "Later runs have loaded its files again."),
        (
            3,
            1,
            "Of its 3 files, 1 can be loaded again from the archive; later runs have loaded the "
            "others again.",
        ),
    ],
)
def test_an_undone_run_says_what_has_become_of_its_files(
    files: int, archived: int, sentence: str
) -> None:
    manifest = [{"path": f"{at}.csv", "outcome": "loaded"} for at in range(files)]
    manifest.append({"path": "other.csv", "outcome": "set_aside"})
    picture = run_page.Picture(None, manifest=manifest, undone=manifest[:archived])
    assert run_page.files_of_undone(picture) == sentence


def test_what_is_dismissed_stays_so_until_it_becomes_more(lake: Lake) -> None:
    attention = lake.attention(lake.runs.recent(), {})
    file = next(entry for entry in attention if entry.kind == "set_aside")
    Operator(lake, allowed=True, author="ann").dismiss(file, "a test of the supplier")
    attention_afterwards = {entry.name: entry for entry in lake.attention(lake.runs.recent(), {})}
    assert attention_afterwards[file.name].dismissed.startswith("a test of the supplier (ann, ")
    entry = {"count": 2, "why": "known", "author": "ann", "day": "2025-04-01"}
    assert dismissal(item("parked", 2), {item("parked").name: entry})
    assert not dismissal(item("parked", 3), {item("parked").name: entry})


# --------------------------------------------------------------------------------------------------
# Uploads
# --------------------------------------------------------------------------------------------------
def test_a_file_of_the_raw_zone_is_not_overwritten(shop: Shop, lake: Lake) -> None:
    operator = Operator(lake, allowed=True)
    shop.hold.clear()
    try:
        operator.upload("orders/once.csv", io.BytesIO(orders(order(700))))
        with pytest.raises(Exception, match="lies in the raw zone already"):
            operator.upload("orders/once.csv", io.BytesIO(orders(order(701))))
        assert lake.files.waiting().paths == ("orders/once.csv",)
    finally:
        shop.hold.set()
        shop.aws.wait_until_idle(120)
    assert lake.files.waiting().paths == ()


def test_a_running_execution_is_stopped(shop: Shop, lake: Lake) -> None:
    operator = Operator(lake, allowed=True, author="ann")
    shop.hold.clear()
    try:
        run_id = operator.load()
        operator.stop(run_id, "the wrong files")
        operations: Operations = lake.place.operations()
        outcome = operations.wait(run_id, 0.1, 60)
        assert outcome.cause == "Stopped by ann: the wrong files"
        lake.forget()
        run = lake.runs.get(run_id)
        assert run is not None and run.status == "ABORTED"
        assert causes(run, lake.runs.history(run_id))[-1].endswith("by ann: the wrong files")
        listed = next(listed for listed in lake.runs.recent() if listed.run_id == run_id)
        assert look.outcome_text(listed) == "Stopped by ann: the wrong files"
    finally:
        shop.hold.set()
        shop.aws.wait_until_idle(120)


@pytest.mark.parametrize(
    ("dropped", "path"),
    [
        ("shop/orders/2025-04-01.csv", "orders/2025-04-01.csv"),
        ("orders/2025-04-01.csv", "orders/2025-04-01.csv"),
        ("a/b/order_items_1.csv.gz", "order_items_1.csv.gz"),
        ("april/readme.txt", "april/readme.txt"),
        ("products.csv", "products.csv"),
    ],
)
def test_a_folder_keeps_its_paths_below_the_dataset(dropped: str, path: str) -> None:
    assert upload.raw_path(dropped) == path


def test_a_second_file_of_a_name_gets_another_name() -> None:
    taken = {"orders/a.csv.gz", "orders/a-2.csv.gz"}
    assert upload.free_path("orders/a.csv.gz", taken) == "orders/a-3.csv.gz"
    assert upload.free_path("orders/b.csv", taken) == "orders/b.csv"


def test_duplicates_and_undone_files_are_results_of_an_upload(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = {
        "second": [
            {"path": "a.csv", "outcome": "loaded"},
            {"path": "d.csv", "outcome": "set_aside"},
        ],
        "first": [{"path": name, "outcome": "duplicate"} for name in ("a.csv", "b.csv")],
    }
    monkeypatch.setattr(type(lake.runs), "undone", lambda self: ["second"])
    monkeypatch.setattr(type(lake.runs), "manifest", lambda self, run_id: manifests[run_id])
    monkeypatch.setattr(type(lake.files), "_ended_runs", lambda self, since: ["second", "first"])
    results = lake.files.results(["a.csv", "b.csv", "c.csv", "d.csv"], dt.datetime.now(dt.UTC))
    assert {row["file_path"]: (row["run_id"], row["outcome"]) for row in results} == {
        "a.csv": ("second", "undone"),
        "b.csv": ("first", "duplicate"),
        "d.csv": ("second", "set_aside"),
    }
    assert home.result_text(results, 4, is_running=True) == (
        "4 files: 1 delivered before, 1 set aside, 1 loaded and undone, 1 not read yet."
    )
    assert home.result_text([], 3, is_running=True) == "3 files; a run is at work."


def test_a_load_that_is_running_is_in_the_list_of_runs(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Run("live", "RUNNING", dt.datetime.now(dt.UTC), None, "load", {})
    monkeypatch.setattr(type(lake.runs), "running", lambda self: [live])
    assert runs_page.read(lake).runs[0] == live


def line(outcome: str, **rows: str) -> dict[str, str]:
    return {"outcome": outcome, "run_id": "r", **dict.fromkeys(home.OUTCOMES, "0"), **rows}


@pytest.mark.parametrize(
    ("ledger", "sent", "text"),
    [
        ([], 2, "2 files; no run has read them yet."),
        ([line("duplicate")] * 45, 45, "45 files, all delivered before."),
        (
            [line("loaded", inserted="7", rejected="2"), line("set_aside"), line("duplicate")],
            4,
            "4 files: 1 loaded (7 inserted, 2 rejected), 1 delivered before, 1 set aside, "
            "1 not read yet.",
        ),
    ],
)
def test_the_result_of_an_upload_is_one_sentence(ledger: Any, sent: int, text: str) -> None:
    assert home.result_text(ledger, sent, is_running=False) == text
