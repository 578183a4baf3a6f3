"""What operations decide without Spark: requests, statements, which runs stand."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import glue_etl as etl
import glue_operations as operations
from client import ROOT
from client.template import Template
from local.aws.job import job_arguments
from words import WORDS

DAY = datetime(2025, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "request_or_text, words",
    [
        ("{", "is not valid JSON"),
        ({"operation": "erase"}, '"operation": one of sql, rollback, replay'),
        ({"operation": "sql"}, 'give "sql" with one statement'),
        ({"operation": "rollback"}, 'either "to" or "undo"'),
        ({"operation": "rollback", "to": "a", "undo": "b"}, 'either "to" or "undo"'),
        ({"operation": "rollback", "expected": {}}, 'either "to" or "undo"'),
        ({"operation": "rollback", "to": "a", "expected": {"t": "1"}}, "the versions of tables"),
        ({"operation": "rollback", "until": "a"}, "unknown field 'until'"),
        ({"operation": "replay", "reasons": "x"}, "'reasons' must be a list of texts"),
        ({"operation": "replay", "statuses": ["admitted"]}, "rejected and parked"),
        ({"operation": "replay", "discard": True}, 'give "why"'),
        ({"operation": "replay", "archived": {"since": "x"}}, "paths, runs (lists), from, to"),
        ({"operation": "replay", "archived": {}, "files": ["x"]}, "replays whole files"),
        (
            {"operation": "optimize", "min_files": "7"},
            "'min_files' must be a whole number above 0",
        ),
        ({"operation": "vacuum", "days": 7}, "unknown field 'days'"),
    ],
)
def test_a_wrong_request_is_refused_with_what_to_say(request_or_text: Any, words: str) -> None:
    text = request_or_text if isinstance(request_or_text, str) else json.dumps(request_or_text)
    with pytest.raises(operations.JobError) as refused:
        operations.Request.from_json(text)
    assert words in str(refused.value)


def test_a_rollback_is_refused_if_a_table_has_changed_since_its_plan() -> None:
    tables = {"clean_orders": {"from": 7, "to": 5}, "ingested_files": {"from": 3, "to": 2}}
    operations.check_expected({"tables": tables}, {"clean_orders": 7})
    operations.check_expected({"tables": tables}, {})
    with pytest.raises(operations.JobError, match="ingested_files and orders changed since"):
        expected = {"clean_orders": 7, "ingested_files": 2, "orders": 1}
        operations.check_expected({"tables": tables}, expected)


def test_a_request_may_leave_out_author_and_dry_run() -> None:
    request = operations.Request.from_json('{"operation": "optimize", "min_files": 9}')
    options = {"min_files": 9}
    assert (request.author, request.dry_run, request.options) == ("unknown", False, options)


def texts_of(value: Any, key: str) -> list[str]:
    """Return the texts that stand in a JSON value under a key, at any depth."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    own = value.get(key) if isinstance(value, dict) else None
    below = [text for item in inner for text in texts_of(item, key)]
    return [own, *below] if isinstance(own, str) else below


def rules_of(value: Any) -> list[dict[str, Any]]:
    """Return the rules of all choices of a state machine, those within others included."""
    if isinstance(value, list):
        return [rule for item in value for rule in rules_of(item)]
    if not isinstance(value, dict):
        return []
    own = [value] if "Variable" in value else []
    return own + [rule for inner in value.values() for rule in rules_of(inner)]


def test_every_declared_operation_is_implemented_and_no_other() -> None:
    assert operations.OPERATIONS.keys() == operations.SPECS.keys()


def test_state_machine_and_schedules_use_only_declared_operations_and_fields() -> None:
    machine = json.loads((ROOT / "stepfunctions" / "delta-lake.json").read_text("utf-8"))
    rules = rules_of(machine)
    input_path, name = "$$.Execution.Input.", "$.job.summary.operation.name"
    named = {
        rule["StringEquals"]
        for rule in rules
        if rule["Variable"] in (f"{input_path}operation", name) and "StringEquals" in rule
    }
    assert named <= operations.SPECS.keys()
    sentences = WORDS["operations"].keys() - {"dry_run"}
    assert sentences == operations.SPECS.keys(), "each has its sentence in the message"
    fields = {
        rule["Variable"].removeprefix(input_path)
        for rule in rules
        if rule["Variable"].startswith(input_path)
    }
    declared = {field for spec in operations.SPECS.values() for field in spec.fields}
    assert fields == {"operation", "dry_run", "sql", "startedBy"}  # the last: of the sweep
    assert fields - {"startedBy"} <= declared | operations.COMMON.keys()
    template = Template.load().document
    inputs = [text for text in texts_of(template, "Input") if "operation" in text]
    scheduled = [operations.Request.from_json(text) for text in inputs]
    assert [(request.name, request.author) for request in scheduled] == [
        ("optimize", "schedule"),
        ("vacuum", "schedule"),
    ]


def run(name: str, back_to: str | None = "load") -> Any:
    rollback = back_to != "load"
    summary = {"operation": {"plan": {"to_run": back_to}}} if rollback else {}
    kind = "rollback" if rollback else "load"
    return operations.Run(name, kind, DAY, DAY, summary, {})


def test_the_runs_that_a_rollback_has_taken_back_do_not_stand() -> None:
    runs = [run(name) for name in "ab"]
    runs += [run("back", "a"), run("c"), run("again", "b")]
    names = [standing.run_id for standing in operations.standing_runs(runs)]
    assert names == ["a", "b"]
    runs.append(run("none", None))
    assert operations.standing_runs(runs) == []


class Table:
    exists = True


def parsed(text: str) -> Any:
    names = ("clean_products", "clean_orders", "clean_orders_items", "etl_runs")
    return operations.parse_statement(text, {name: Table() for name in names})


PATHS = {"clean_products": "s3://l/p", "clean_orders": "s3://l/o", "clean_orders_items": "s3://l/i"}


@pytest.mark.parametrize(
    "athena, spark",
    [
        (
            'SELECT clean_orders.order_id FROM "delta-lake".clean_orders',
            "SELECT clean_orders.order_id FROM delta.`s3://l/o` AS clean_orders",
        ),
        (
            "SELECT CAST(a AS varchar) FROM clean_orders FOR VERSION AS OF 3 o",
            "SELECT CAST(a AS STRING) FROM delta.`s3://l/o` VERSION AS OF 3 AS o",
        ),
        (
            "WITH clean AS (SELECT 1 AS a) SELECT a FROM clean",
            "WITH clean AS (SELECT 1 AS a) SELECT a FROM clean",
        ),
        (
            "DELETE FROM clean_orders WHERE order_id = 'a'",
            "DELETE FROM delta.`s3://l/o` AS clean_orders WHERE order_id = 'a'",
        ),
        (
            "INSERT INTO clean_products (product_id) VALUES ('a')",
            "INSERT INTO delta.`s3://l/p` (product_id) VALUES ('a')",
        ),
        (
            "INSERT INTO clean_products SELECT product_id FROM clean_products",
            "INSERT INTO delta.`s3://l/p` SELECT product_id FROM delta.`s3://l/p` "
            "AS clean_products",
        ),
    ],
)
def test_a_statement_in_athenas_words_is_written_in_sparks(athena: str, spark: str) -> None:
    assert parsed(athena).text(PATHS) == spark


def test_the_values_of_a_statement_are_known_with_their_columns() -> None:
    merge = (
        "MERGE INTO clean_orders t USING clean_products s ON t.order_id = s.product_id "
        "WHEN MATCHED THEN UPDATE SET total_amount = 1 "
        "WHEN NOT MATCHED THEN INSERT (order_id, user_id) VALUES (s.product_id, 'u')"
    )
    statement = parsed(merge)
    assignments = [
        (names, statement.text(PATHS, query)) for names, query in statement.assignments()
    ]
    source = "FROM delta.`s3://l/o` AS t CROSS JOIN delta.`s3://l/p` AS s"
    assert assignments == [
        (["total_amount"], f"SELECT 1 {source}"),
        (["order_id", "user_id"], f"SELECT s.product_id, 'u' {source}"),
    ]


def test_archived_files_are_chosen_by_path_run_and_day() -> None:
    archived_file = operations.Archived("r1", "orders/1.csv", "e", 1, DAY, "archive")
    chosen = [
        {},
        {"paths": ["orders/*"]},
        {"runs": ["r1"]},
        {"from": "2025-05-01", "to": "2025-05-01"},
    ]
    others = [
        {"paths": ["products*"]},
        {"runs": ["r2"]},
        {"to": "2025-04-30"},
        {"from": "2025-05-02"},
    ]
    assert [operations.is_chosen(archived_file, selection) for selection in chosen] == [True] * 4
    assert [operations.is_chosen(archived_file, selection) for selection in others] == [False] * 4


def test_what_the_summary_says_of_an_operation_stays_small() -> None:
    request = operations.Request.from_json('{"operation": "vacuum"}')
    plan = {"paths": ["x" * 100] * 1000, "files": 3}
    result = operations.Result("t" * 2000, plan, {"tables": {}})
    summary_section = operations.operation_summary(request, result)
    assert len(summary_section["text"]) == 1000 and summary_section["plan"] == {"files": 3}


class OpenTable:
    """A table with another schema than before the run, as summary_of_result sees it."""

    log = SimpleNamespace(latest=lambda: 3)

    def summary(self) -> dict[str, Any]:
        return {"version": 3, "rows": 7, "schema_changed": True}


@pytest.mark.parametrize("recorded", [True, False])
def test_only_an_operation_that_is_recorded_names_tables_and_asks_for_a_crawl(
    tmp_path: Path, recorded: bool
) -> None:
    argv = [*job_arguments(tmp_path / "raw", tmp_path, "now"), "--OPERATION", "{}"]
    arguments = operations.OperationArguments.from_argv(argv)
    request = operations.Request.from_json('{"operation": "optimize"}')
    lake: Any = {name: OpenTable() for name in (*operations.RESTORED, "etl_runs")}
    spark: Any = None
    work = operations.Work(arguments, request, spark, lake, (), etl.Timings(DAY))
    summary = operations.summary_of_result(work, operations.Result("", {}, recorded=recorded))
    assert sorted(summary["tables"]) == (sorted(operations.RESTORED) if recorded else [])
    assert summary["crawl_needed"] is recorded


def test_an_intent_is_read_until_it_is_removed(tmp_path: Path) -> None:
    arguments = etl.JobArguments.from_argv(job_arguments(tmp_path / "raw", tmp_path, "now"))
    assert etl.read_intent(arguments) == {}
    intent = {"run_id": "op", "before": {"clean_orders": 3}, "to": {"clean_orders": -1}}
    etl.storage(arguments.runs_path).write(etl.INTENT, json.dumps(intent).encode())
    assert etl.read_intent(arguments) == intent
    etl.remove_intent(arguments)
    assert etl.read_intent(arguments) == {}
