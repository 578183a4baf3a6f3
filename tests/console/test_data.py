"""The console's queries and operations, without a browser."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import json
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from client.declared import column_of, meaning_of
from client.operations import changes_data
from client.places import SERVICES
from client.template import Template
from console.athena import OWN, PIPELINE, Athena, Memory, QueryError, containing, literal
from console.data import Lake
from console.data.rejects import ANY, OPEN, Filters
from console.data.runs import EVENTS, Runs, causes, visits
from console.operations import Operator, Refused
from console.pages.file import digest_at
from tests.console.conftest import HOSTILE_CELL, HOSTILE_FILE
from tests.console.world import Shop


def test_the_newest_runs_come_first_with_their_outcomes(shop: Shop, lake: Lake) -> None:
    newest, failed, first = lake.runs.recent()[-3:]
    assert (newest.total("inserted"), newest.total("rejected")) == (1, 1)
    assert failed.failed and failed.status == "FAILED"
    assert (first.total("inserted"), first.total("rejected")) == (3, 2)


def test_a_failed_run_tells_the_jobs_own_cause_first(lake: Lake) -> None:
    failed = next(run for run in lake.runs.recent() if run.failed)
    run = lake.runs.get(failed.run_id)
    assert run is not None
    assert causes(run, lake.runs.history(run.run_id))[0] == "JobError: the double was told to fail"


def test_what_needs_attention_names_failures_files_and_reasons(lake: Lake) -> None:
    runs = lake.runs.recent()
    until_failure = runs[[run.failed for run in runs].index(True) :]
    attention = {(item.kind, item.title) for item in lake.attention(until_failure, {})}
    assert ("failed", "Load failed") in attention
    assert ("set_aside", "stock.csv: unknown_dataset") in attention
    assert ("rejected", "orders: invalid_total_amount") in attention


def test_rejects_are_filtered_by_all_that_a_page_offers(lake: Lake) -> None:
    everything = lake.rejects.page(Filters(status=ANY))
    assert len(everything) == 3 == lake.rejects.count(Filters(status=ANY))
    assert [row["line"] for row in lake.rejects.page(Filters(file="orders/2025-04-01.csv"))] == [4]
    run_id = everything[0]["run_id"]
    assert {row["run_id"] for row in lake.rejects.page(Filters(run=run_id))} == {run_id}
    assert lake.rejects.count(Filters(reason="invalid_total_amount", dataset="orders")) == 3
    assert lake.rejects.count(Filters(reason="missing_date")) == 0
    assert lake.rejects.count(Filters(text="' OR 1 = 1 --")) == 0
    assert lake.rejects.count(Filters(text="{{ 3 * 3 }}")) == 1


def test_pages_of_rejects_hold_each_row_once(lake: Lake) -> None:
    rows = [lake.rejects.page(Filters(status=OPEN), offset, 1)[0] for offset in range(3)]
    assert len({(row["file_path"], row["line"]) for row in rows}) == 3


def test_a_hostile_cell_comes_as_it_is(lake: Lake) -> None:
    (row,) = lake.rejects.page(Filters(file=HOSTILE_FILE))
    assert row["fields"]["total_amount"] == HOSTILE_CELL
    assert HOSTILE_CELL in row["raw"]


def test_a_file_has_its_versions_its_place_and_its_lines(lake: Lake) -> None:
    (version,) = lake.files.versions("orders/2025-04-01.csv")
    assert (version["rows_read"], version["inserted"], version["rejected"]) == ("3", "2", "1")
    (place,) = lake.files.places("orders/2025-04-01.csv", [version["run_id"] or ""])
    assert place["kind"] == "archive"
    lines = lake.files.lines(place["bucket"], place["key"], 200, 200)
    assert lines.texts[3].startswith("1,3,7,") and len(lines.texts) == 4
    digest = digest_at(place, lake.files.versions("orders/2025-04-01.csv"))
    reasons = {4: ["invalid_total_amount"]}
    assert lake.rejects.of_file("orders/2025-04-01.csv", digest, 1, 200) == reasons
    assert lake.rejects.of_file("orders/2025-04-01.csv", digest, 5, 200) == {}
    assert lake.rejects.of_file("orders/2025-04-01.csv", "0" * 64, 1, 200) == {}


def test_a_place_in_the_raw_zone_is_matched_with_a_version_by_size_and_time() -> None:
    modified = dt.datetime(2025, 4, 1, 12, tzinfo=dt.UTC)
    place = {"run_id": "", "size": 10, "modified": modified}
    version = {"run_id": "r", "file_size": "10", "file_digest": "abc"}
    version["file_modified"] = "2025-04-01 12:00:00.000 UTC"
    assert digest_at(place, [version]) == "abc"
    assert digest_at(place | {"size": 11}, [version]) == ""
    assert digest_at(place | {"run_id": "r", "size": 11}, [version]) == "abc"


def test_a_key_has_its_row_and_its_rejects(lake: Lake) -> None:
    row = lake.tables.row("orders", "1")
    assert row is not None and row["total_amount"] == "10.0"
    assert lake.tables.row("orders", "it's none") is None
    assert [reject["status"] for reject in lake.rejects.of_key("orders", "3")] == ["rejected"]


def test_partitions_have_rows_files_and_bytes(lake: Lake) -> None:
    (newest, first) = lake.tables.partitions("clean_orders")
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
    assert len(answer.rows) == 2 and answer.truncated


class Queries:
    """A double of Athena with these statements, newest first; it counts the calls."""

    def __init__(self, statements: list[str]) -> None:
        self.statements = statements
        self.pages, self.batches = 0, list[int]()

    def get_paginator(self, name: str) -> Queries:
        assert name == "list_query_executions"
        return self

    def paginate(self, PaginationConfig: dict[str, int], **_: Any) -> Iterator[dict[str, Any]]:
        size = PaginationConfig["PageSize"]
        for start in range(0, len(self.statements), size):
            self.pages += 1
            yield {"QueryExecutionIds": list(map(str, range(len(self.statements))))[start:][:size]}

    def batch_get_query_execution(self, QueryExecutionIds: list[str]) -> dict[str, Any]:
        self.batches.append(len(QueryExecutionIds))
        ids = reversed(QueryExecutionIds)  # AWS does not promise an order
        queries = [
            {"QueryExecutionId": query_id, "Query": self.statements[int(query_id)]}
            for query_id in ids
        ]
        return {"QueryExecutions": queries}


def test_what_was_asked_before_is_read_no_further_than_needed() -> None:
    checks = [f"{PIPELINE}SELECT {number}" for number in range(60)]
    people = ["SELECT 'a'", "SELECT 'b'", "SELECT 'a'", "SELECT 'c'"]
    queries = Queries([*checks, *people, *[f"{OWN}SELECT 1"] * 400])
    place: Any = SimpleNamespace(clients={"athena": queries}, workgroup="lake")
    assert Athena(place).past(3) == ["SELECT 'a'", "SELECT 'b'", "SELECT 'c'"]
    assert (queries.pages, queries.batches) == (2, [50, 50])


def test_the_queries_of_the_state_machine_say_whose_they_are() -> None:
    states = json.loads(Template.load().definition())["States"]
    statements = states["PrepareChecks"]["Result"].values()
    assert len(statements) == 5
    assert [sql for sql in statements if not sql.startswith(PIPELINE)] == []


def test_sweeps_that_found_nothing_hide_no_run(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four days after the last delivery, the newest hundred executions are empty sweeps."""
    before = [run.run_id for run in lake.runs.recent() if not run.failed]
    now = dt.datetime.now(dt.UTC)
    sweeps = [
        {"name": f"sweep-{n}", "executionArn": f"sweep-{n}", "status": "SUCCEEDED"}
        | {"startDate": now - dt.timedelta(hours=n), "stopDate": now - dt.timedelta(hours=n)}
        for n in range(100)
    ]

    def newest(lake: Lake, limit: int, token: str = "", status: str = "") -> Any:
        return ([] if status else sweeps[:limit], "")

    monkeypatch.setattr(Lake, "executions_page", newest)
    assert [run.run_id for run in lake.runs.recent()] == before
    cards = {card["table"]: card for card in lake.tables.cards()}
    orders = cards["clean_orders"]
    assert (orders["rows"], orders["run"] in before, bool(orders["changed"])) == (4, True, True)


def test_a_history_is_read_from_its_end_and_only_what_is_new(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, read = list(range(1, 11)), list[int]()

    def newest(runs: Runs, run_id: str) -> Iterator[dict[str, Any]]:
        for number in reversed(ids):
            read.append(number)
            yield {"id": number}

    monkeypatch.setattr(Runs, "_newest_events", newest)
    assert [event["id"] for event in lake.runs.history("followed")] == ids
    ids += [11, 12]
    read.clear()
    assert [event["id"] for event in lake.runs.history("followed")] == ids
    assert read == [12, 11, 10]
    ids += range(13, EVENTS + 100)
    assert [event["id"] for event in lake.runs.history("another")] == ids[-EVENTS:]


def test_on_aws_the_console_looks_every_few_seconds_with_standard_retries(lake: Lake) -> None:
    local, aws = lake.place, dataclasses.replace(lake.place, local=False)
    assert local.pause < 1 and 3 <= aws.pause <= 5
    for service in SERVICES:
        retries = local.clients[service].meta.config.retries
        assert (retries["mode"], retries["total_max_attempts"]) == ("standard", 5)


def test_what_may_not_be_read_is_not_called_missing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject")

    monkeypatch.setattr(lake.place.clients["s3"], "get_object", denied)
    with pytest.raises(ClientError):
        lake.runs.get("no-such-run")


def test_the_lines_of_a_job_are_read_from_the_stream_of_its_driver(shop: Shop, lake: Lake) -> None:
    logs, group = shop.aws.client("logs"), lake.place.job_log
    logs.create_log_group(logGroupName=group)
    for stream, text in (("jr_1-driver", "[run-1] rows"), ("jr_2-driver", "[run-2] others")):
        event = {"timestamp": int(time.time() * 1000), "message": text}
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[event])
    submitted = {"resourceType": "glue", "output": '{"JobRunId": "jr_1"}'}
    history = [{"taskSubmittedEventDetails": submitted}]
    assert lake.runs.job_lines("run-1", history) == ["[run-1] rows"]
    assert lake.runs.job_lines("run-1", []) == []


def test_the_consoles_own_queries_are_not_in_the_history(lake: Lake) -> None:
    lake.athena.run("SELECT 'asked by a person' AS x")
    lake.athena.ask("SELECT 'asked by the console' AS x")
    past = lake.athena.past(50)
    assert past[0] == "SELECT 'asked by a person' AS x"
    assert not any("asked by the console" in sql for sql in past)


def test_steps_are_told_in_their_order(lake: Lake) -> None:
    run = next(run for run in lake.runs.recent() if not run.failed)
    steps = visits(lake.runs.history(run.run_id))
    assert [visit["name"] for visit in steps] == ["RunGlueJob", "Done"]
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
    monkeypatch.setattr(Runs, "machine", {"StartAt": "RunGlueJob"})
    assert "deploy it anew" in Operator(lake, allowed=True).why_not()


def test_a_dry_run_tells_its_plan_and_changes_nothing(lake: Lake) -> None:
    operator = Operator(lake, allowed=True)
    outcome = operator.wait(operator.start({"operation": "replay"}, dry_run=True), 60)
    assert outcome.cause is None
    assert outcome.result["text"] == "3 rejected rows would be admitted."
    assert outcome.result["plan"] == {"datasets": {"orders": {"rows_read": 3, "inserted": 3}}}
    assert lake.rejects.count(Filters(status="rejected")) == 3


def test_a_refused_operation_tells_why(lake: Lake) -> None:
    operator = Operator(lake, allowed=True)
    request = {"operation": "sql", "sql": "INSERT refuse"}
    outcome = operator.wait(operator.start(request, dry_run=False), 60)
    assert outcome.cause is not None and "two rows with the key 1" in outcome.cause


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
    before = [execution["name"] for execution in lake.executions(50)]
    answer = lake.tables.history_of_key("clean_orders", "2")
    assert answer.text == "clean_orders 2: 1 version, 0 rejects."
    version, _ = answer.rows  # the double writes a user_id that is not that of the file
    first = lake.files.versions("orders/2025-04-01.csv")[-1]["run_id"]
    assert (version["run_id"], version["change"]) == (first, "inserted")
    assert version["row"]["total_amount"] == 10.0
    (reject,) = (
        row for row in lake.tables.history_of_key("clean_orders", "3").rows if "line" in row
    )
    assert (reject["file_path"], reject["line"]) == ("orders/2025-04-01.csv", 4)
    assert [execution["name"] for execution in lake.executions(50)] == before
