"""What the console asks of AWS, without a browser."""

from __future__ import annotations

import datetime as dt
import io
import threading

import pytest

from console.athena import Memory, QueryError, containing, literal
from console.data import ANY, OPEN, Filters, Lake, causes, column_of, meaning_of, visits
from console.operations import Operator, Refused, dataset_of
from console.pages.file import digest_at
from tests.console.conftest import HOSTILE_CELL, HOSTILE_FILE
from tests.console.world import Shop
from tools.operations import changes_data


def test_the_newest_runs_come_first_with_their_outcomes(shop: Shop, lake: Lake) -> None:
    newest, failed, first = lake.recent()[:3] if len(lake.recent()) == 3 else lake.recent()[-3:]
    assert (newest.total("inserted"), newest.total("rejected")) == (1, 1)
    assert failed.failed and failed.status == "FAILED"
    assert (first.total("inserted"), first.total("rejected")) == (3, 2)


def test_a_failed_run_tells_the_jobs_own_cause_first(lake: Lake) -> None:
    failed = next(run for run in lake.recent() if run.failed)
    run = lake.run(failed.run_id)
    assert run is not None
    assert causes(run, lake.history(run.run_id))[0] == "JobError: the double was told to fail"


def test_what_needs_attention_names_failures_files_and_reasons(lake: Lake) -> None:
    found = {(one.kind, one.title) for one in lake.attention(lake.recent())}
    assert ("failed", "Run failed") in found
    assert ("set_aside", "stock.csv: unknown_dataset") in found
    assert ("rejected", "orders: invalid_total_amount") in found


def test_rejects_are_filtered_by_all_that_a_page_offers(lake: Lake) -> None:
    everything = lake.rejects(Filters(status=ANY))
    assert len(everything) == 3 == lake.count_rejects(Filters(status=ANY))
    assert [one["line"] for one in lake.rejects(Filters(file="orders/2025-04-01.csv"))] == [4]
    run_id = everything[0]["run_id"]
    assert {one["run_id"] for one in lake.rejects(Filters(run=run_id))} == {run_id}
    assert lake.count_rejects(Filters(reason="invalid_total_amount", dataset="orders")) == 3
    assert lake.count_rejects(Filters(reason="missing_date")) == 0
    assert lake.count_rejects(Filters(text="' OR 1 = 1 --")) == 0
    assert lake.count_rejects(Filters(text="{{ 3 * 3 }}")) == 1


def test_pages_of_rejects_hold_each_row_once(lake: Lake) -> None:
    rows = [lake.rejects(Filters(status=OPEN), offset, 1)[0] for offset in range(3)]
    assert len({(one["file_path"], one["line"]) for one in rows}) == 3


def test_a_hostile_cell_comes_as_it_is(lake: Lake) -> None:
    (row,) = lake.rejects(Filters(file=HOSTILE_FILE))
    assert row["fields"]["total_amount"] == HOSTILE_CELL
    assert HOSTILE_CELL in row["raw"]


def test_a_file_has_its_versions_its_place_and_its_lines(lake: Lake) -> None:
    (version,) = lake.file_versions("orders/2025-04-01.csv")
    assert (version["rows_read"], version["inserted"], version["rejected"]) == ("3", "2", "1")
    (place,) = lake.places_of("orders/2025-04-01.csv", [version["run_id"] or ""])
    assert place["kind"] == "archive"
    lines = lake.preview(place["bucket"], place["key"])
    assert lines[3].startswith("1,3,7,") and len(lines) == 4
    assert lake.rejected_lines("orders/2025-04-01.csv") == {4: ["invalid_total_amount"]}
    digest = digest_at(place, lake.file_versions("orders/2025-04-01.csv"))
    assert lake.rejected_lines("orders/2025-04-01.csv", digest) == {4: ["invalid_total_amount"]}
    assert lake.rejected_lines("orders/2025-04-01.csv", "0" * 64) == {}


def test_a_place_in_the_raw_zone_is_matched_with_a_version_by_size_and_time() -> None:
    modified = dt.datetime(2025, 4, 1, 12, tzinfo=dt.UTC)
    place = {"run_id": "", "size": 10, "modified": modified}
    version = {"run_id": "r", "file_size": "10", "file_digest": "abc"}
    version["file_modified"] = "2025-04-01 12:00:00.000 UTC"
    assert digest_at(place, [version]) == "abc"
    assert digest_at(place | {"size": 11}, [version]) == ""
    assert digest_at(place | {"run_id": "r", "size": 11}, [version]) == "abc"


def test_a_key_has_its_row_and_its_rejects(lake: Lake) -> None:
    row = lake.row_of("orders", "1")
    assert row is not None and row["total_amount"] == "10.0"
    assert lake.row_of("orders", "it's none") is None
    assert [one["status"] for one in lake.rejects_of_key("orders", "3")] == ["rejected"]


def test_partitions_have_rows_files_and_bytes(lake: Lake) -> None:
    (newest, first) = lake.partitions("orders")
    assert (newest["part"], newest["rows"]) == ("2025-04-02", 1)
    assert first["rows"] == 3 and first["files"] >= 1 and first["bytes"] > 0


def test_a_table_that_no_run_has_written_is_empty_not_an_error(lake: Lake) -> None:
    assert lake.ask("SELECT * FROM no_such_table").rows == ()
    with pytest.raises(QueryError):
        lake.ask("SELECT nothing_like_this FROM clean_orders")


def test_an_error_has_its_line_and_column(lake: Lake) -> None:
    with pytest.raises(QueryError) as refused:
        lake.athena.run("SELECT order_id,\n  amount FROM clean_orders")
    assert (refused.value.line, refused.value.column) == (2, 3)


def test_answers_are_cut_at_the_limit_and_say_so(lake: Lake) -> None:
    answer = lake.athena.run("SELECT order_id FROM clean_orders", 2)
    assert len(answer.rows) == 2 and answer.more


def test_the_consoles_own_queries_are_not_in_the_history(lake: Lake) -> None:
    lake.athena.run("SELECT 'asked by a person' AS x")
    lake.athena.ask("SELECT 'asked by the console' AS x")
    past = lake.athena.past(50)
    assert past[0] == "SELECT 'asked by a person' AS x"
    assert not any("asked by the console" in sql for sql in past)


def test_steps_are_told_in_their_order(lake: Lake) -> None:
    run = next(run for run in lake.recent() if not run.failed)
    steps = visits(lake.history(run.run_id))
    assert [one["name"] for one in steps] == ["RunGlueJob", "Done"]
    assert steps[0]["seconds"] > 0


def test_texts_are_quoted_whatever_stands_in_them() -> None:
    assert literal("it's") == "'it''s'"
    assert containing("raw", "100%_'") == "strpos(raw, '100%_''') > 0"


@pytest.mark.parametrize(
    ("reason", "column"),
    [
        ("invalid_date", "date"),
        ("orphan_order", "order_id"),
        ("date_mismatch", "date"),
        ("unclosed_quote", None),
    ],
)
def test_a_reason_blames_a_column_and_has_a_meaning(reason: str, column: str | None) -> None:
    assert column_of(reason) == column
    assert meaning_of(reason)


def test_a_dataset_is_told_by_the_jobs_own_rule() -> None:
    assert dataset_of("order_items/2025-04-01.csv.gz") == "order_items"
    assert dataset_of("Orders_2025.csv") == "orders"
    assert dataset_of("stock.csv") is None


@pytest.mark.parametrize(
    ("sql", "changes"),
    [
        ("SELECT 1", False),
        ("-- DELETE\nSELECT 1", False),
        ("/* x */ delete FROM clean_orders", True),
        ("\n MERGE INTO clean_orders", True),
        ("WITH a AS (SELECT 1) SELECT * FROM a", False),
    ],
)
def test_a_statement_that_changes_data_is_known(sql: str, changes: bool) -> None:
    assert changes_data(sql) is changes


def test_a_console_that_only_reads_uploads_and_starts_nothing(shop: Shop, lake: Lake) -> None:
    reader, before = Operator(lake, allowed=False), len(shop.aws.executions())
    with pytest.raises(Refused, match="--operate"):
        reader.upload("orders.csv", io.BytesIO(b"x"))
    for name in ("replay", "rollback", "sql", "optimize", "vacuum"):
        with pytest.raises(Refused, match="--operate"):
            reader.start({"operation": name}, dry_run=True)
    with pytest.raises(Refused, match="--operate"):
        reader.load()
    with pytest.raises(Refused, match="no operation"):
        Operator(lake, allowed=True).start({"operation": "drop"}, dry_run=False)
    assert len(shop.aws.executions()) == before


@pytest.mark.parametrize("path", ["", "/orders.csv", "a\nb.csv", "x" * 1000])
def test_an_upload_needs_a_name(lake: Lake, path: str) -> None:
    with pytest.raises(Refused):
        Operator(lake, allowed=True).upload(path, io.BytesIO(b"x"))


def test_a_deployment_without_operations_is_told_apart(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lake, "machine", {"StartAt": "RunGlueJob"})
    assert "deploy it anew" in Operator(lake, allowed=True).why_not()


def test_a_dry_run_tells_its_plan_and_changes_nothing(lake: Lake) -> None:
    operator = Operator(lake, allowed=True)
    outcome = operator.wait(operator.start({"operation": "replay"}, dry_run=True), 60)
    assert outcome.succeeded and outcome.text == "3 rejected rows would be admitted."
    assert outcome.plan == {"datasets": {"orders": {"rows_read": 3, "inserted": 3}}}
    assert lake.count_rejects(Filters(status="rejected")) == 3


def test_a_refused_operation_tells_why(lake: Lake) -> None:
    operator = Operator(lake, allowed=True)
    asked = {"operation": "sql", "sql": "INSERT refuse"}
    outcome = operator.wait(operator.start(asked, dry_run=False), 60)
    assert not outcome.succeeded and "two rows with the key 1" in outcome.error


def test_an_answer_is_worked_out_once_however_many_ask() -> None:
    calls, stamp = [], [1]
    memory = Memory(lambda: stamp[0])

    def work() -> int:
        calls.append(1)
        return len(calls)

    threads = [threading.Thread(target=memory.get, args=("key", work)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    stamp[0] = 2
    assert memory.get("key", work) == 2


def test_the_history_of_a_key_is_read_without_an_execution(lake: Lake) -> None:
    before = [one["name"] for one in lake.executions(50)]
    answer = lake.history_of_key("clean_orders", "2")
    assert answer.text == "clean_orders 2: 1 version, 0 rejects."
    version, _ = answer.rows  # the double writes another customer than the file has
    first = lake.file_versions("orders/2025-04-01.csv")[-1]["run_id"]
    assert (version["run_id"], version["change"]) == (first, "inserted")
    assert version["row"]["total_amount"] == 10.0
    (reject,) = (row for row in lake.history_of_key("clean_orders", "3").rows if "line" in row)
    assert (reject["file_path"], reject["line"]) == ("orders/2025-04-01.csv", 4)
    assert [one["name"] for one in lake.executions(50)] == before
