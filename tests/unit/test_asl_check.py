"""The check of the state machine finds what it is there to find, and nothing in the machine that is
deployed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.asl_check import CONTRACT, check, main, problems

FILE = Path(__file__).resolve().parents[2] / "stepfunctions" / "delta-lake.json"
NAMED_STATES = [
    "FindNewFiles",
    "RunGlueJob",
    "CheckGlueJobStatus",
    "InitiateArchiveProcess",
    "ArchiveProcessedFiles",
    "CheckArchiveCompletion",
    "ContinueArchiveOperation",
    "RunGlueCrawler",
    "WaitForCrawlerToFinish",
    "CheckCrawlerStatus",
    "Parallel Athena Queries",
    "HandleValidationSuccess",
    "HandleGlueJobFailure",
    "HandleArchiveFailure",
    "HandleCrawlerFailure",
    "HandleValidationFailure",
]


def test_what_stands_below_a_path_that_is_taken_over_whole_is_there() -> None:
    machine = {
        "TimeoutSeconds": 60,
        "StartAt": "Begin",
        "States": {
            "Begin": {"Type": "Pass", "Result": {"count": {"so_far": 0}}, "Next": "Take"},
            "Take": {"Type": "Pass", "Parameters": {"counted.$": "$.count"}, "Next": "Read"},
            "Read": {"Type": "Pass", "Parameters": {"n.$": "$.counted.so_far"}, "End": True},
        },
    }
    assert problems(machine) == []
    machine["States"]["Read"]["Parameters"] = {"n.$": "$.counted.other"}
    assert problems(machine) == ["Read: $.counted.other may be missing"]


@pytest.fixture
def machine() -> dict[str, Any]:
    return json.loads(FILE.read_text("utf-8"))


@pytest.fixture
def contract() -> dict[str, Any]:
    return json.loads(FILE.with_name(CONTRACT).read_text("utf-8"))


def small_machine(**states: dict[str, Any]) -> dict[str, Any]:
    return {"StartAt": next(iter(states)), "TimeoutSeconds": 60, "States": states}


def task(**fields: Any) -> dict[str, Any]:
    retrier = {
        "ErrorEquals": ["States.TaskFailed"],
        "IntervalSeconds": 1,
        "BackoffRate": 2,
        "MaxAttempts": 2,
        "MaxDelaySeconds": 9,
        "JitterStrategy": "FULL",
    }
    catcher = {"ErrorEquals": ["States.ALL"], "ResultPath": "$.failure", "Next": "Done"}
    return {
        "Type": "Task",
        "Resource": "x",
        "TimeoutSeconds": 9,
        "Retry": [retrier],
        "ResultPath": "$.answer",
        "Catch": [catcher],
        "Next": "Done",
        **fields,
    }


DONE = {"Type": "Succeed"}


def test_the_deployed_state_machine_has_no_findings() -> None:
    assert check(FILE) == []


def test_operators_find_every_state_under_its_name(machine: dict[str, Any]) -> None:
    assert [name for name in NAMED_STATES if name not in machine["States"]] == []


def test_the_machine_stays_small(machine: dict[str, Any]) -> None:
    states = list(machine["States"].values())
    inner = [branch["States"] for state in states for branch in state.get("Branches", [])]
    assert len(states) + sum(map(len, inner)) <= 82


def test_each_handler_sends_the_message_that_was_composed(machine: dict[str, Any]) -> None:
    for name in NAMED_STATES:
        if name.startswith("Handle"):
            sent = machine["States"][name]["Parameters"]
            assert (sent["Subject.$"], sent["Message.$"]) == ("$.mail.subject", "$.mail.text")


def test_a_dangling_next_is_found() -> None:
    assert "First: 'Nowhere' does not exist" in problems(
        small_machine(First={"Type": "Pass", "Next": "Nowhere"})
    )


def test_a_state_that_nothing_leads_to_is_found() -> None:
    assert "Island: cannot be reached" in problems(small_machine(First=DONE, Island=DONE))


@pytest.mark.parametrize("field", ["TimeoutSeconds", "Retry", "Catch"])
def test_a_task_without_timeout_retry_or_catch_is_found(field: str) -> None:
    state = task()
    del state[field]
    assert any(field in finding for finding in problems(small_machine(First=state, Done=DONE)))


def test_a_retry_without_jitter_is_found() -> None:
    state = task()
    del state["Retry"][0]["JitterStrategy"]
    assert "First: Retry for States.TaskFailed has no JitterStrategy" in problems(
        small_machine(First=state, Done=DONE)
    )


@pytest.mark.parametrize(
    ("resource", "name"),
    [
        ("glue:startJobRun.sync", "Glue.AWSGlueException"),
        ("athena:startQueryExecution.sync", "Athena.AmazonAthenaException"),
        ("aws-sdk:glue:startCrawler", "Glue.GlueException"),
    ],
)
def test_a_call_that_is_throttled_is_repeated_under_the_name_that_arrives(
    resource: str, name: str
) -> None:
    state = task(Resource=f"arn:aws:states:::{resource}")
    assert problems(small_machine(First=state, Done=DONE)) == []
    state["Retry"][0]["ErrorEquals"] = ["Glue.ThrottlingException", name]
    assert problems(small_machine(First=state, Done=DONE)) == []
    state["Retry"][0]["ErrorEquals"] = [
        "Glue.ThrottlingException",
        "Athena.TooManyRequestsException",
    ]
    (finding,) = problems(small_machine(First=state, Done=DONE))
    assert f"no Retry for {name}" in finding


def test_a_catch_that_replaces_the_input_is_found() -> None:
    state = task()
    del state["Catch"][0]["ResultPath"]
    assert "First: Catch to Done replaces the state's input" in problems(
        small_machine(First=state, Done=DONE)
    )


def test_a_loop_without_a_counter_is_found(machine: dict[str, Any]) -> None:
    rules = machine["States"]["CheckCrawlerStatus"]["Choices"]
    machine["States"]["CheckCrawlerStatus"]["Choices"] = [
        r for r in rules if r["Next"] != "CrawlerTakesTooLong"
    ]
    assert any(
        "WaitForCrawlerToFinish" in finding and "no counter" in finding
        for finding in problems(machine)
    )


def test_a_loop_within_a_loop_needs_a_counter_of_its_own(machine: dict[str, Any]) -> None:
    rules = machine["States"]["AnyNewFiles"]["Choices"]
    machine["States"]["AnyNewFiles"]["Choices"] = [
        rule for rule in rules if "NumericGreaterThan" not in rule
    ]
    assert any("PassOver" in finding and "no counter" in finding for finding in problems(machine))


def test_what_the_rules_before_have_ruled_out_is_known() -> None:
    first = {
        "Type": "Choice",
        "Choices": [
            {"Not": {"Variable": "$.a", "IsPresent": True}, "Next": "Done"},
            {"Variable": "$.a", "StringEquals": "x", "Next": "Reads"},
        ],
        "Default": "Reads",
    }
    reads = {"Type": "Pass", "InputPath": "$.a", "End": True}
    assert problems(small_machine(First=first, Reads=reads, Done=DONE)) == []
    first["Choices"].reverse()
    assert problems(small_machine(First=first, Reads=reads, Done=DONE)) == [
        "First: $.a may be missing"
    ]


def test_a_choice_without_default_is_found(machine: dict[str, Any]) -> None:
    del machine["States"]["CheckGlueJobStatus"]["Default"]
    assert "CheckGlueJobStatus: no Default" in problems(machine)


def findings_about(path: str, findings: list[str]) -> list[str]:
    return [finding for finding in findings if path in finding]


def test_a_path_of_the_summary_is_sure_only_behind_its_schema_version(
    machine: dict[str, Any], contract: dict[str, Any]
) -> None:
    for rule in machine["States"]["CheckRunSummary"]["Choices"]:
        rule["And"] = [part for part in rule["And"] if "NumericEquals" not in part]
    findings = problems(machine, contract)
    assert "CheckRunSummary: $.job.summary.status may be missing" in findings
    assert "CheckCrawlNeeded: $.job.summary.crawl_needed may be missing" in findings


def test_a_path_that_the_schema_of_the_summary_does_not_promise_is_found(
    machine: dict[str, Any], contract: dict[str, Any]
) -> None:
    contract["$defs"]["table"]["required"].remove("rows")
    assert problems(machine, contract) == [
        f"QueryRowCounts: $.job.summary.tables.{table}.rows may be missing"
        for table in ("clean_orders", "clean_orders_items", "clean_products")
    ]


def test_another_version_of_the_summary_promises_nothing(
    machine: dict[str, Any], contract: dict[str, Any]
) -> None:
    contract["properties"]["schema_version"]["const"] = 2
    assert findings_about("$.job.summary.files.duplicate", problems(machine, contract))


def test_tables_are_promised_only_of_a_run_that_loaded(
    machine: dict[str, Any], contract: dict[str, Any]
) -> None:
    (rule,) = machine["States"]["CheckTablesExist"]["Choices"]
    rule["And"] = [part for part in rule["And"] if "StringEquals" not in part]
    assert findings_about("CheckTablesExist", problems(machine, contract)) == [
        "CheckTablesExist: $.job.summary.tables.clean_orders.version may be missing",
        "CheckTablesExist: $.job.summary.tables.clean_orders_items.version may be missing",
        "CheckTablesExist: $.job.summary.tables.clean_products.version may be missing",
    ]


def test_a_version_that_was_replaced_since_promises_nothing(
    machine: dict[str, Any], contract: dict[str, Any]
) -> None:
    machine["States"]["InitiateArchiveProcess"]["ResultPath"] = "$.job"
    assert findings_about("$.job.summary.crawl_needed", problems(machine, contract))


def test_a_path_that_an_earlier_result_replaced_is_found(machine: dict[str, Any]) -> None:
    del machine["States"]["ArchiveProcessedFiles"]["ResultPath"]
    assert any("$.run_id may be missing" in finding for finding in problems(machine))


def test_a_path_that_only_one_way_defines_is_found() -> None:
    first = {
        "Type": "Choice",
        "Choices": [{"Variable": "$", "IsPresent": True, "Next": "Sets"}],
        "Default": "Reads",
    }
    sets = {"Type": "Pass", "Result": 1, "ResultPath": "$.number", "Next": "Reads"}
    reads = {"Type": "Pass", "InputPath": "$.number", "End": True}
    assert problems(small_machine(First=first, Sets=sets, Reads=reads)) == [
        "Reads: $.number may be missing"
    ]


def test_a_name_used_in_two_branches_is_found(machine: dict[str, Any]) -> None:
    branches = machine["States"]["Parallel Athena Queries"]["Branches"]
    branches[1] = copy.deepcopy(branches[0])
    assert "QueryProducts: the name is used twice" in problems(machine)


def test_the_command_fails_where_there_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(small_machine(First={"Type": "Pass", "Next": "Nowhere"})))
    assert main([str(FILE)]) == 0 and main([str(broken)]) == 1
    assert "'Nowhere' does not exist" in capsys.readouterr().out
