"""Operations from the command line: what is asked for, where it runs, how the answer looks."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

import deploy.__main__ as deployer
import glue_etl as etl
import glue_operations
from client import SetupError, operations
from client.operations import Operations, Outcome
from local.aws import worker
from local.commands import operate, sql

LIKE_ME = {"author": "me", "dry_run": False}


def asked(name: str, *words: str) -> dict[str, Any]:
    options = operations.parser(name, "test").parse_args(["--author", "me", *words])
    return operations.request(name, options)


@pytest.mark.parametrize(
    ("words", "options"),
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
def test_words_become_the_input_of_an_execution(words: list[str], options: dict[str, Any]) -> None:
    assert asked(*words) == {"operation": words[0], **LIKE_ME, **options}


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


def test_every_declared_field_has_an_option_except_what_only_the_console_knows() -> None:
    unnamed = {"replay": {"rows"}, "rollback": {"expected"}}
    for name, spec in glue_operations.SPECS.items():
        options = {action.dest for action in operations.parser(name, "test")._actions}
        assert spec.fields.keys() - options == unnamed.get(name, set())


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


def test_a_query_goes_to_the_console_with_its_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sql, "answer", lambda athena, options: seen.append(options.sql) or 0)
    monkeypatch.setattr(sql, "show_past", lambda athena: seen.append(athena.history) or 0)
    monkeypatch.setattr(operate, "run", lambda asked, options: seen.append(asked["sql"]) or 0)
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 2"))
    place = ["--lake", str(tmp_path)]
    for argv in (["SELECT 1"], ["--past", "--history", "x"], [], ["DELETE FROM t"]):
        assert sql.main([*argv, *place]) == 0
    assert seen == ["SELECT 1", Path("x"), "SELECT 2", "DELETE FROM t"]


# ---- an execution
class FakeStates:
    """Runs nothing: the execution has ended as it was told to when it is looked at again."""

    def __init__(self, **ended: str) -> None:
        self.ended, self.started, self.looks = {"status": "SUCCEEDED", **ended}, [{}], 0

    def start_execution(self, **request: Any) -> dict[str, str]:
        self.started = [request]
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
    states, s3, lines = FakeStates(), FakeS3(), list[str]()
    outcome = Operations(states, s3, "machine", "lake").run(
        {"operation": "vacuum"}, lines.append, poll=0
    )
    (request,) = states.started
    assert request["name"].startswith("vacuum-") and request["name"] == outcome.run_id
    assert json.loads(request["input"]) == {"operation": "vacuum"}
    assert s3.keys == [f"runs/{outcome.run_id}/operation.json"]
    assert outcome.cause is None and outcome.result == {"text": "done"}
    assert lines == [f"Execution {outcome.run_id} started"]


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
    place = Operations(FakeStates(status="FAILED", **ended), FakeS3("NoSuchKey"), "m", "lake")
    outcome = place.run({"operation": "sql"}, lambda line: None, poll=0)
    assert outcome.cause == cause and outcome.result == {}


def test_a_refused_operation_tells_why_though_its_result_may_not_be_listed() -> None:
    """S3 answers 403 for a missing key to a caller without ListBucket."""
    states = FakeStates(status="FAILED", cause="twin key 7")
    outcome = Operations(states, FakeS3("AccessDenied"), "m", "lake").run(
        {"operation": "sql"}, lambda line: None, poll=0
    )
    assert (outcome.cause, outcome.result) == ("twin key 7", {})


def test_an_operation_that_is_too_long_for_the_job_is_not_started() -> None:
    states = FakeStates()
    asked = {"operation": "sql", "sql": "é" * 50_000}
    with pytest.raises(SetupError, match="100,031 bytes, and at most 100,000"):
        Operations(states, FakeS3(), "m", "lake").run(asked, lambda line: None, poll=0)
    assert states.started == [{}]


def test_a_result_that_may_not_be_read_is_an_error() -> None:
    place = Operations(FakeStates(), FakeS3("AccessDenied"), "m", "lake")
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
    assert operations.answer_text(Outcome("r", None, RESULT)).splitlines() == [
        "The tables would go back.",
        "",
        "plan",
        "                from  to",
        "--------------  ----  --",
        "clean_orders    7     5",
        "clean_products  3",
        "",
        "plan",
        "name  value",
        "----  -----",
        "runs  2",
        "",
        "run    text",
        "-----  " + "-" * 60,
        "run-1  " + "x" * 59 + "…",
        "run-2",
    ]


def test_tables_by_name_are_rows_of_a_table() -> None:
    plan = {"files": 3, "tables": {"clean_orders": {"from": 7, "to": 5}}}
    assert operations.answer_text(Outcome("r", None, {"plan": plan})).splitlines() == [
        "plan",
        "tables        from  to",
        "------------  ----  --",
        "clean_orders  7     5",
        "",
        "plan",
        "name   value",
        "-----  -----",
        "files  3",
    ]


def test_a_long_list_is_cut_so_that_the_other_values_are_seen() -> None:
    plan = {"files": [f"{at}.csv" for at in range(12)], "runs": ["a", "b"]}
    assert operations.answer_text(Outcome("r", None, {"plan": plan})).splitlines()[3:] == [
        "files  0.csv, 1.csv, 2.csv, 3.csv, 4.csv and 7 more",
        "runs   a, b",
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
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        folder = Path(options["--RUNS_PATH"]) / options["--RUN_ID"]
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
    lines: list[str] = []
    outcome = operate.on_folders({"operation": "optimize"}, tmp_path, None, lines.append)
    assert outcome.cause == cause and lines == ["  12:00:00 tables opened"]
    assert outcome.result == ({} if code else {"text": "done"})
    options = dict(zip(process.arguments[::2], process.arguments[1::2], strict=True))
    assert options["--scriptLocation"] == "src/glue_operations.py"
    assert options["--ARCHIVE_PATH"] == str(tmp_path / "archived")
    assert json.loads(options["--OPERATION"]) == {"operation": "optimize"}


# ---- on AWS
class FakeStacks:
    """The stacks of an account in which the caller may describe the environment's alone."""

    meta = SimpleNamespace(region_name="us-east-1")

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        if StackName != "delta-lake-test":
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "DescribeStacks")
        outputs = {"StateMachineArn": "machine-test", "Lake": "s3://lake/"}
        pairs = [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()]
        return {"Stacks": [{"StackStatus": "CREATE_COMPLETE", "Outputs": pairs}]}


class FakeIdentity:
    def __init__(self, arn: str) -> None:
        self.arn = arn

    def get_caller_identity(self) -> dict[str, str]:
        return {"Arn": self.arn}


class FakeAccount:
    """Stands for boto3's session in a deployed account."""

    region_name = "us-east-1"

    def __init__(self) -> None:
        self.clients = {
            "stepfunctions": FakeStates(),
            "s3": FakeS3(),
            "cloudformation": FakeStacks(),
            "sts": FakeIdentity("arn:aws:sts::123456789012:assumed-role/Operator/ann"),
        }

    def client(self, service: str) -> Any:
        return self.clients[service]


def test_the_same_words_run_on_aws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The caller may not describe the bootstrap stack, which operations need not."""
    account = FakeAccount()
    monkeypatch.setattr(deployer, "_session", lambda options: account)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    words = ["operate", "--environment", "test", "rollback", "--undo", "run-9"]
    assert deployer.main([*words, "--author", "me"]) == 0
    (request,) = account.clients["stepfunctions"].started
    assert request["stateMachineArn"] == "machine-test"
    assert json.loads(request["input"]) == {"operation": "rollback", **LIKE_ME, "undo": "run-9"}
    assert capsys.readouterr().out == "done\n"


def test_the_author_of_an_operation_on_aws_is_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    account = FakeAccount()
    monkeypatch.setattr(deployer, "_session", lambda options: account)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert deployer.main(["operate", "--environment", "test", "vacuum"]) == 0
    (request,) = account.clients["stepfunctions"].started
    assert json.loads(request["input"])["author"] == "Operator/ann"


@pytest.mark.parametrize(
    ("arn", "name"),
    [
        ("arn:aws:iam::123456789012:user/ann", "ann"),
        ("arn:aws:sts::123456789012:assumed-role/Operator/ann", "Operator/ann"),
        ("arn:aws:iam::123456789012:root", "root"),
    ],
)
def test_a_caller_is_called_by_its_name_in_the_account(arn: str, name: str) -> None:
    assert operations.caller(FakeIdentity(arn)) == name


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
