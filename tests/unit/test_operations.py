"""Operations from the command line: what is asked for, where it runs, how the answer looks."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import deploy.__main__ as deployer
import glue_etl as etl
import glue_operations
from local.aws import worker
from local.commands import operate, sql
from tools import operations
from tools.operations import Lakehouse, Outcome

LIKE_ME = {"author": "me", "dry_run": False}


def asked(name: str, *words: str) -> dict[str, Any]:
    options = operations.parser(name, "test").parse_args(["--author", "me", *words])
    return operations.request(name, options)


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["sql", " UPDATE t SET x = 1\n"], {"sql": "UPDATE t SET x = 1"}),
        (["rollback", "--to", "run-1"], {"to": "run-1"}),
        (["rollback", "--undo", "run-2"], {"undo": "run-2"}),
        (["replay"], {}),
        (
            ["replay", "--reason", "a", "--reason", "b", "--dataset", "orders", "--run", "r"],
            {"reasons": ["a", "b"], "datasets": ["orders"], "runs": ["r"]},
        ),
        (
            ["replay", "--status", "parked", "--file", "orders/x.csv"],
            {"statuses": ["parked"], "files": ["orders/x.csv"]},
        ),
        (
            ["replay", "--archived", "--file", "orders/x.csv", "--run", "r"],
            {"archived": {"paths": ["orders/x.csv"], "runs": ["r"]}},
        ),
        (
            ["replay", "--from", "2025-04-01", "--to", "2025-04-03"],
            {"archived": {"from": "2025-04-01", "to": "2025-04-03"}},
        ),
        (
            ["replay", "--discard", "--why", "test data", "--run", "r"],
            {"discard": True, "why": "test data", "runs": ["r"]},
        ),
        (["optimize"], {}),
        (
            ["optimize", "--table", "clean_orders", "--min-files", "9"],
            {"tables": ["clean_orders"], "min_files": 9},
        ),
        (["optimize", "--min-files", "60"], {"min_files": 60}),
        (["optimize", "--min-files", "0"], {"min_files": 0}),
        (["vacuum"], {}),
    ],
)
def test_words_become_the_input_of_an_execution(words: list[str], given: dict[str, Any]) -> None:
    assert asked(*words) == {"operation": words[0], **LIKE_ME, **given}


def test_what_does_not_go_together_is_left_to_the_job_to_refuse() -> None:
    assert asked("replay", "--archived", "--discard", "--why", "x") == {
        "operation": "replay",
        **LIKE_ME,
        "archived": {},
        "discard": True,
        "why": "x",
    }


@pytest.mark.parametrize("words", [["rollback"], ["rollback", "--to", "a", "--undo", "b"]])
def test_a_rollback_says_where_to(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        asked(*words)


def test_every_declared_field_has_an_option_except_the_places_of_rows() -> None:
    for name, spec in glue_operations.SPECS.items():
        options = {action.dest for action in operations.parser(name, "test")._actions}
        assert spec.fields.keys() - options == ({"rows"} if name == "replay" else set())


def test_a_statement_may_come_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("DELETE FROM clean_orders\n"))
    assert asked("sql", "--dry-run") == {
        "operation": "sql",
        "author": "me",
        "dry_run": True,
        "sql": "DELETE FROM clean_orders",
    }


# ---- which of the two answers a statement
@pytest.mark.parametrize(
    ("statement", "operation"),
    [
        ("SELECT 1", False),
        ("insert into clean_orders values (1)", True),
        ("-- once more\n/* and */ MERGE INTO clean_orders", True),
        ("SELECT * FROM clean_orders VERSION AS OF 3", True),
        ("SELECT * FROM clean_orders timestamp as of '2025-04-01'", True),
        ("SELECT 'VERSION AS OF', 'it''s', 'DELETE'", False),
        ("SHOW TABLES", False),
        ("DROP TABLE clean_orders", False),
    ],
)
def test_what_athena_cannot_do_is_an_operation(statement: str, operation: bool) -> None:
    assert sql.is_operation(statement) is operation


def test_a_query_goes_to_the_console_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("local.athena.main", lambda argv: seen.append(list(argv)) or 0)
    monkeypatch.setattr(operate, "run", lambda asked, options: seen.append(asked["sql"]) or 0)
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 2"))
    for argv in (["SELECT 1", "--csv"], ["--past"], ["--lake", "x"], ["DELETE FROM t"]):
        assert sql.main(argv) == 0
    assert seen == [["SELECT 1", "--csv"], ["--past"], ["--lake", "x", "SELECT 2"], "DELETE FROM t"]


# ---- an execution
class FakeStates:
    """Runs nothing: the execution has ended as it was told to when it is looked at again."""

    def __init__(self, **ended: str) -> None:
        self.ended, self.started, self.looks = {"status": "SUCCEEDED", **ended}, [{}], 0

    def start_execution(self, **given: Any) -> dict[str, str]:
        self.started = [given]
        return {"executionArn": "arn"}

    def describe_execution(self, executionArn: str) -> dict[str, str]:
        self.looks += 1
        return self.ended if self.looks > 1 else {"status": "RUNNING"}


class FakeS3:
    def __init__(self, code: str | None = None) -> None:
        self.code, self.keys = code, list[str]()

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self.keys.append(Key)
        if self.code:
            raise ClientError({"Error": {"Code": self.code}}, "GetObject")
        return {"Body": io.BytesIO(b'{"text": "done"}')}


def test_an_operation_is_waited_for_and_its_result_is_read() -> None:
    states, s3, said = FakeStates(), FakeS3(), list[str]()
    outcome = Lakehouse(states, s3, "machine", "lake").run(
        {"operation": "vacuum"}, said.append, poll=0
    )
    (given,) = states.started
    assert given["name"].startswith("vacuum-") and given["name"] == outcome.run_id
    assert json.loads(given["input"]) == {"operation": "vacuum"}
    assert s3.keys == [f"runs/{outcome.run_id}/operation.json"]
    assert outcome.cause is None and outcome.result == {"text": "done"}
    assert said == [f"Execution {outcome.run_id} started"]


@pytest.mark.parametrize(
    ("ended", "cause"),
    [
        ({"cause": '{"Error": "States.TaskFailed", "Cause": "twin key 7"}'}, "twin key 7"),
        ({"cause": "a sentence"}, "a sentence"),
        ({"error": "States.Timeout"}, "States.Timeout"),
        ({}, "FAILED"),
    ],
)
def test_a_failure_has_the_words_of_the_job(ended: dict[str, str], cause: str) -> None:
    place = Lakehouse(FakeStates(status="FAILED", **ended), FakeS3("NoSuchKey"), "m", "lake")
    outcome = place.run({"operation": "sql"}, lambda line: None, poll=0)
    assert outcome.cause == cause and outcome.result == {}


def test_a_result_that_may_not_be_read_is_an_error() -> None:
    place = Lakehouse(FakeStates(), FakeS3("AccessDenied"), "m", "lake")
    with pytest.raises(ClientError):
        place.run({"operation": "sql"}, lambda line: None, poll=0)


# ---- the answer
RESULT = {
    "text": "The tables would go back.",
    "plan": {"runs": 2, "clean_orders": {"from": 7, "to": 5}, "clean_products": {"from": 3}},
    "effect": {},
    "rows": [{"run": "run-1", "text": "x" * 100}, {"run": "run-2", "text": None}],
}


def test_an_answer_is_text_and_tables() -> None:
    assert operations.told(Outcome("r", None, RESULT)).splitlines() == [
        "The tables would go back.",
        "",
        "plan",
        "  runs: 2",
        "                from  to",
        "--------------  ----  --",
        "clean_orders    7     5",
        "clean_products  3",
        "",
        "run    text",
        "-----  " + "-" * 60,
        "run-1  " + "x" * 59 + "…",
        "run-2",
    ]


def test_tables_by_name_are_rows_of_a_table() -> None:
    plan = {"files": 3, "tables": {"clean_orders": {"from": 7, "to": 5}}}
    assert operations.told(Outcome("r", None, {"plan": plan})).splitlines() == [
        "plan",
        "  files: 3",
        "tables        from  to",
        "------------  ----  --",
        "clean_orders  7     5",
    ]


def test_an_answer_for_programs_is_the_file_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert operations.show(Outcome("r", None, RESULT), True, print, operate.complain) == 0
    assert json.loads(capsys.readouterr().out) == RESULT


def test_a_refusal_is_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert operations.show(Outcome("r", "twin key", {}), False, print, operate.complain) == 1
    assert capsys.readouterr() == ("", "twin key\n")


# ---- on folders
class FakeProcess:
    """Stands for the job's process: writes what the script for operations would."""

    log = Path("spark.log")

    def __init__(self, code: int) -> None:
        self.code, self.arguments = code, list[str]()

    def __enter__(self) -> FakeProcess:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, arguments: list[str], show: Any) -> int:
        self.arguments = arguments
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        folder = Path(given["--RUNS_PATH"]) / given["--RUN_ID"]
        folder.mkdir(parents=True)
        show("12:00:00 tables opened")
        if not self.code:
            (folder / "operation.json").write_text('{"text": "done"}')
        (folder / "summary.json").write_text('{"error": "too strict"}')
        return self.code


@pytest.mark.parametrize(("code", "cause"), [(0, None), (1, "too strict")])
def test_an_operation_on_folders_needs_no_aws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, cause: str | None
) -> None:
    process = FakeProcess(code)
    monkeypatch.setattr(operate, "JobProcess", lambda: process)
    said: list[str] = []
    outcome = operate.on_folders({"operation": "optimize"}, tmp_path, None, said.append)
    assert outcome.cause == cause and said == ["  12:00:00 tables opened"]
    assert outcome.result == ({} if code else {"text": "done"})
    given = dict(zip(process.arguments[::2], process.arguments[1::2], strict=True))
    assert given["--scriptLocation"] == "src/glue_operations.py"
    assert given["--ARCHIVE_PATH"] == str(tmp_path / "archived")
    assert json.loads(given["--OPERATION"]) == {"operation": "optimize"}


# ---- on AWS
class FakeAccount:
    """Stands for boto3's session in a deployed account."""

    region_name = "us-east-1"

    def __init__(self) -> None:
        self.clients = {"stepfunctions": FakeStates(), "s3": FakeS3()}

    def client(self, service: str) -> Any:
        return self.clients[service]


def test_the_same_words_run_on_aws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    account = FakeAccount()

    class Deployed:
        def __init__(self, session: Any, name: str) -> None:
            outputs = {"StateMachineArn": f"machine-{name}", "Lake": "s3://lake/"}
            self.stack = type("Stack", (), {"outputs": lambda _: outputs})()

    monkeypatch.setattr(deployer, "_session", lambda options: account)
    monkeypatch.setattr(deployer, "Environment", Deployed)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    words = ["operate", "--environment", "test", "rollback", "--undo", "run-9", "--author", "me"]
    assert deployer.main(words) == 0
    (given,) = account.clients["stepfunctions"].started
    assert given["stateMachineArn"] == "machine-test"
    assert json.loads(given["input"]) == {"operation": "rollback", **LIKE_ME, "undo": "run-9"}
    assert capsys.readouterr().out == "done\n"


def test_an_unknown_operation_is_refused_before_aws_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert deployer.main(["operate", "explode"]) == 1
    assert "'explode' is no operation: say sql, rollback" in capsys.readouterr().err


# ---- the script
def test_a_run_takes_the_script_that_it_names_which_may_import_the_job(tmp_path: Path) -> None:
    assert worker.script_of(["--RUN_ID", "x"]) is etl
    script = tmp_path / "another_script.py"
    script.write_text("import glue_etl\n\n\ndef main(words):\n    return glue_etl, words\n")
    words = ["--scriptLocation", str(script)]
    assert worker.script_of(words).main(words) == (etl, words)
