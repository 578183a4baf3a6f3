"""The deployed state machine, from the upload to the message, with faults put into every step."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

import glue_etl
import glue_operations
from local.aws.server import CrawlFailed, JobFailed, LocalAws, QueryFailed, Runners
from local.aws.stepfunctions import Pace
from local.commands import operate
from tests.pipeline.fakes import FakeCrawler, FakeJob, FakeQueries

FAST = Pace(waits=0.01, retries=0.01, poll=0.05)
HAPPY_PATH = [
    "PrepareRun",
    "IsOperation",
    "FindNewFiles",
    "AnyNewFiles",
    "RunGlueJob",
    "CheckGlueJobStatus",
    "ReadRunSummary",
    "CheckRunSummary",
    "InitiateArchiveProcess",
    "ArchiveProcessedFiles",
    "CheckArchiveCompletion",
    "CheckTablesExist",
    "ReadCatalog",
    "ReadCrawler",
    "CheckCrawlNeeded",
    "CheckCrawlerReady",
    "RunGlueCrawler",
    "WaitForCrawlerToFinish",
    "CountCrawlerCheck",
    "ReadCrawlerStatus",
    "CheckCrawlerStatus",
    "PrepareChecks",
    "Parallel Athena Queries",
    "CheckViolations",
    "ComposeMail",
    "ChooseHandler",
    "HandleValidationSuccess",
    "WriteRunReport",
    "CheckCrawlOwed",
    "CheckOutcome",
    "RunSucceeded",
]

HANDLERS = {
    "ETL Job Failure Alert": "HandleGlueJobFailure",
    "Operation Failure Alert": "HandleGlueJobFailure",
    "Archive Failure Alert": "HandleArchiveFailure",
    "Crawler Failure Alert": "HandleCrawlerFailure",
    "Validation Failure Alert": "HandleValidationFailure",
}


@dataclass
class Pipeline:
    """A deployment with fakes behind it."""

    aws: LocalAws
    job: FakeJob
    crawler: FakeCrawler
    queries: FakeQueries

    def run(self, seconds: float = 60) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """One execution by the sweep, and the messages that it sent."""
        execution = self.aws.wait_for(self.aws.sweep(), seconds)
        return execution, self.aws.messages()

    def start(
        self, execution_input: Any, seconds: float = 60
    ) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """One execution with an input, and the messages that it sent."""
        started = self.aws.client("stepfunctions").start_execution(
            stateMachineArn=self.aws.name("StateMachine"), input=json.dumps(execution_input)
        )
        return self.aws.wait_for(started["executionArn"], seconds), self.aws.messages()

    def start_busy(self, until: Callable[[], bool]) -> str:
        """Start a load whose job works until `until` is true; return it as soon as it works."""
        works = threading.Event()

        def work() -> None:
            works.set()
            end = time.monotonic() + 60
            while not until() and time.monotonic() < end:
                time.sleep(0.05)

        self.job.during = work
        started = self.aws.sweep()
        assert works.wait(60)
        self.job.during = lambda: None
        return started

    def waits_for_the_job(self) -> bool:
        """Whether an execution waits until the job of another one has ended."""
        return any("WaitForGlueJob" in self.states(run) for run in self.aws.executions("RUNNING"))

    def freeze(self, path: str, storage: str) -> None:
        """Puts a file of another storage class into the raw zone."""
        self.aws.client("s3").put_object(
            Bucket=self.aws.name("RawBucket"),
            Key=f"land-folder/Data/{path}",
            Body=b"x",
            StorageClass=storage,
        )

    def assert_failed(self, subject: str, *words: str) -> dict[str, Any]:
        """Runs once; the execution has failed, and one message names the cause."""
        execution, messages = self.run()
        assert execution["status"] == "FAILED", self.aws.states(execution["executionArn"])
        assert [message["subject"].partition(":")[0] for message in messages] == [subject]
        assert "{" not in messages[0]["message"], "a mail has sentences, no JSON"
        for word in words:
            assert word in messages[0]["message"], messages[0]["message"]
            assert word in execution["cause"], execution["cause"]
        assert execution["name"] in messages[0]["message"]
        assert HANDLERS[subject] in self.states(execution)
        return execution

    def assert_heals(self) -> None:
        """The next run succeeds, and every file is loaded once and archived."""
        execution, messages = self.run()
        assert execution["status"] == "SUCCEEDED", (execution, self.states(execution))
        (message,) = messages
        assert message["subject"].startswith("Delta Lake Run Succeed: ")
        assert self.aws.keys("RawBucket") == []
        assert sorted(self.job.loaded) == sorted(set(self.job.loaded))
        assert self.archived() == sorted(self.job.loaded)

    def break_archive(self) -> None:
        def broken(event: Any, context: Any) -> Any:
            raise RuntimeError("AccessDenied on the manifest")

        self.aws.runners.functions["Moves3Objects"] = broken

    def mend_archive(self) -> None:
        del self.aws.runners.functions["Moves3Objects"]

    def archived(self) -> list[str]:
        """The paths in the archive, below their runs."""
        return sorted(key.split("/", 2)[2] for key in self.aws.keys("ArchiveBucket"))

    def states(self, execution: dict[str, Any]) -> list[str]:
        return self.aws.states(execution["executionArn"])


def deploy(**options: Any) -> Pipeline:
    job, crawler, queries = FakeJob(), FakeCrawler(), FakeQueries()
    runners = Runners(glue_job=job, crawl=crawler, query=queries)
    aws = LocalAws(runners, pace=FAST, **options).start()
    return Pipeline(aws, job, crawler, queries)


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    """Uploads start nothing by themselves here, so that a test decides when a run begins."""
    deployed = deploy(batching_window=10_000)
    yield deployed
    deployed.aws.stop()


@pytest.fixture
def single_file(pipeline: Pipeline) -> Pipeline:
    pipeline.aws.upload("orders/2025-04-01.csv", b"order_id\n1\n")
    return pipeline


def shorten(state: str, seconds: int) -> Callable[[dict[str, Any]], None]:
    def change(definition: dict[str, Any]) -> None:
        definition["States"][state]["TimeoutSeconds"] = seconds

    return change


# The way through ----------------------------------------------------------------------------------


def test_an_upload_alone_goes_the_whole_way() -> None:
    pipeline = deploy(batching_window=0.5)
    try:
        pipeline.aws.upload("orders/2025-04-01.csv", b"order_id\n1\n")
        time.sleep(0.2)
        (execution,) = pipeline.aws.wait_until_idle()
        assert execution["status"] == "SUCCEEDED"
        # The branches run side by side; the others keep their order. A slow crawl is looked at
        # again.
        entered = dict.fromkeys(pipeline.states(execution))
        assert [name for name in entered if name in HAPPY_PATH] == HAPPY_PATH
        assert {"QueryProducts", "ReadOrdersResult", "OrderItemsUntouched", "QueryRowCounts"} < set(
            entered
        )
        (message,) = pipeline.aws.messages()
    finally:
        pipeline.aws.stop()
    assert message["subject"] == "Delta Lake Run Succeed: 3 rows read, 2 rejected"
    lines = message["message"].splitlines()
    assert lines[0].endswith("succeeded: 1 file loaded. Rows: 1 inserted, 2 rejected.")
    assert (
        "orders".ljust(11) + "     3         1        0          0           0         2        0"
        in lines
    )
    assert "  2 orders: order_timestamp is blank" in lines
    assert "1 transitions" not in message["message"] and "Glue $0.0103" in message["message"]
    assert f"runs/{execution['name']}/summary.json" in message["message"]


def test_without_new_files_no_glue_run_is_paid_for_and_nobody_is_mailed(pipeline: Pipeline) -> None:
    execution, messages = pipeline.run()
    assert execution["status"] == "SUCCEEDED" and messages == [] and pipeline.job.runs == []
    assert pipeline.states(execution) == [
        "PrepareRun",
        "IsOperation",
        "FindNewFiles",
        "AnyNewFiles",
        "NothingNew",
    ]


@pytest.mark.parametrize(
    "keys",
    [
        [""],
        ["orders/", "orders/2025/", "products/"],
        ["_SUCCESS", "orders/_SUCCESS", "orders/.x.csv.crc", "orders_$folder$"],
    ],
)
def test_folders_and_markers_start_no_glue_run(pipeline: Pipeline, keys: list[str]) -> None:
    for key in keys:
        pipeline.aws.upload(key, b"")
    assert "NothingNew" in pipeline.states(pipeline.run()[0]) and pipeline.job.runs == []


@pytest.mark.parametrize("name", ["orders/empty.csv", "stock.txt", "orders/_SUCCESS.csv"])
def test_a_file_behind_folders_is_seen_though_it_may_be_empty(
    pipeline: Pipeline, name: str
) -> None:
    for key in ("orders/", "orders/.a/", "products/", name):
        pipeline.aws.upload(key, b"")
    pipeline.run()
    assert len(pipeline.job.runs) == 1


def test_more_markers_than_are_looked_at_start_the_job(pipeline: Pipeline) -> None:
    for number in range(51):
        pipeline.aws.upload(f"{number:03}/", b"")
    execution, _ = pipeline.run()
    assert len(pipeline.job.runs) == 1 and pipeline.states(execution).count("PassOver") == 50


@pytest.mark.parametrize("storage", ["GLACIER", "DEEP_ARCHIVE"])
def test_a_frozen_file_is_told_by_its_upload_and_passed_over_by_the_sweep(
    pipeline: Pipeline, storage: str
) -> None:
    pipeline.freeze("orders/old.csv", storage)
    assert "NothingNew" in pipeline.states(pipeline.run()[0]) and pipeline.job.runs == []
    pipeline.start([{"startedBy": "upload"}])
    assert len(pipeline.job.runs) == 1
    pipeline.freeze("orders/ir.csv", "GLACIER_IR")
    pipeline.run()
    assert len(pipeline.job.runs) == 2, "that class is read at once"


def test_files_that_were_not_loaded_are_in_the_message_with_what_to_do(
    single_file: Pipeline,
) -> None:
    assert "Files that were not loaded" not in single_file.run()[1][0]["message"]
    single_file.aws.upload("orders/2025-04-02.csv", b"order_id\n2\n")
    single_file.aws.upload("stock.txt", b"1")
    single_file.job.change_summary = lambda summary: summary["files"].update(unreadable=3)
    (message,) = single_file.run()[1]
    assert "1 file loaded, 1 file set aside, 3 files unreadable" in message["message"]
    assert "  stock.txt: the path names no dataset: rename it\n" in message["message"]


def test_the_checks_are_limited_to_the_partitions_that_the_run_touched(
    single_file: Pipeline,
) -> None:
    single_file.run()
    (orders,) = [sql for sql in single_file.queries.asked if "FROM clean_orders WHERE" in sql]
    assert "date BETWEEN DATE '2025-04-01' AND DATE '2025-04-04'" in orders
    spans = orders.partition("JSON_PARSE('")[2].partition("')")[0]
    assert json.loads(spans) == [["2025-04-01", "2025-04-01"], ["2025-04-03", "2025-04-04"]]
    assert len([sql for sql in single_file.queries.asked if "violations" in sql]) == 3, (
        "no order item was touched"
    )


def test_the_crawler_runs_only_where_the_catalog_is_behind(single_file: Pipeline) -> None:
    single_file.run()
    single_file.aws.upload("orders/2025-04-02.csv", b"order_id\n2\n")
    execution, _ = single_file.run()
    assert len(single_file.crawler.crawls) == 1 and "RunGlueCrawler" not in single_file.states(
        execution
    )


def test_files_that_were_delivered_before_are_archived_without_a_look_at_the_tables(
    single_file: Pipeline,
) -> None:
    single_file.run()
    single_file.aws.upload("orders/2025-04-01.csv", b"order_id\n1\n")
    single_file.job.change_summary = lambda summary: summary.update(status="NOTHING_NEW", tables={})
    execution, messages = single_file.run()
    assert (
        execution["status"] == "SUCCEEDED" and "1 file delivered before" in messages[0]["message"]
    )
    assert single_file.aws.keys("RawBucket") == []
    assert "Parallel Athena Queries" not in single_file.states(execution)


def test_the_archive_loop_pages_through_the_manifest(pipeline: Pipeline) -> None:
    pipeline.aws.set_environment({"MANIFEST_PAGE_BYTES": "1500", "FILES_PER_CALL": "7"})
    for number in range(30):
        pipeline.aws.upload(f"orders/{number:02}.csv", str(number).encode())
    execution, _ = pipeline.run()
    assert execution["status"] == "SUCCEEDED"
    assert (
        pipeline.states(execution).count("ContinueArchiveOperation") == 4
    )  # after 7, 14, 21 and 28 files
    assert len(pipeline.archived()) == 30 and pipeline.aws.keys("RawBucket") == []


def test_a_file_that_is_no_datasets_goes_to_the_rejected_files(single_file: Pipeline) -> None:
    single_file.aws.upload("holiday.jpg", b"\xff")
    execution, _ = single_file.run()
    assert single_file.aws.keys("LakeBucket", "rejected/") == [
        f"rejected/files/run={execution['name']}/holiday.jpg"
    ]


def test_a_file_uploaded_while_the_job_runs_waits_for_the_next_run(single_file: Pipeline) -> None:
    single_file.job.during = lambda: single_file.aws.upload("orders/late.csv", b"order_id\n9\n")
    single_file.run()
    assert single_file.aws.keys("RawBucket") == ["land-folder/Data/orders/late.csv"]
    single_file.job.during = lambda: None
    single_file.assert_heals()


def test_a_file_overwritten_while_the_job_runs_waits_for_the_next_run(
    single_file: Pipeline,
) -> None:
    single_file.job.during = lambda: single_file.aws.upload(
        "orders/2025-04-01.csv", b"order_id\n1\n2\n"
    )
    execution, _ = single_file.run()
    assert execution["status"] == "SUCCEEDED"
    assert single_file.aws.keys("RawBucket") == ["land-folder/Data/orders/2025-04-01.csv"]
    single_file.job.during = lambda: None
    single_file.run()
    assert (
        single_file.aws.keys("RawBucket") == []
        and single_file.job.loaded == ["orders/2025-04-01.csv"] * 2
    )


def test_a_file_that_stays_unreadable_is_told_once(single_file: Pipeline) -> None:
    counts = {"loaded": 0, "duplicate": 0, "set_aside": 0, "unreadable": 1}

    def make_unreadable(summary: dict[str, Any]) -> None:
        summary.update(status="NOTHING_NEW", tables={}, files={**summary["files"], **counts})

    single_file.job.change_summary = make_unreadable
    execution, messages = single_file.run()
    assert "NothingNew" in single_file.states(execution) and messages == []
    assert len(single_file.job.runs) == 1


# Operations ---------------------------------------------------------------------------------------


def test_an_operation_runs_its_script_as_the_same_job_and_tells_what_it_did(
    single_file: Pipeline,
) -> None:
    single_file.run()
    asked = {"operation": "rollback", "to": "run-1", "author": "Ann"}
    execution, (message,) = single_file.start(asked)
    assert execution["status"] == "SUCCEEDED"
    (arguments,) = single_file.job.asked
    assert json.loads(arguments["--OPERATION"]) == asked
    assert arguments["--RUN_ID"] == execution["name"]
    assert arguments["--scriptLocation"].endswith("glue_operations.py")
    assert "glue_etl.py" in arguments["--extra-py-files"]
    assert arguments["--ARCHIVE_PATH"] == f"s3://{single_file.aws.name('ArchiveBucket')}/archived/"
    states = single_file.states(execution)
    assert "FindNewFiles" not in states
    assert {"ArchiveProcessedFiles", "Parallel Athena Queries", "WriteRunReport"} < set(states)
    assert message["subject"] == "Delta Lake Operation Succeed: rollback"
    first = f"Run {execution['name']}: Ann took runs back.\nThe rollback is done.\n"
    assert message["message"].startswith(first)
    assert "clean_orders              1     1              1              0" in message["message"]
    assert "Cost by AWS's list prices" in message["message"] and "dataset" not in message["message"]


def test_a_command_starts_an_operation_waits_and_shows_its_result(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--endpoint", pipeline.aws.endpoint]
    assert operate.main(["vacuum", "--dry-run", *place]) == 0
    assert "The vacuum is done." in (output := capsys.readouterr().out) and "run-1" in output
    pipeline.job.failures = [JobFailed("there is no run run-9")]
    assert operate.main(["rollback", "--to", "run-9", *place]) == 1
    assert "there is no run run-9" in capsys.readouterr().err


def test_a_replay_tells_the_account_of_its_rows(single_file: Pipeline) -> None:
    single_file.run()
    _, (message,) = single_file.start({"operation": "replay", "reasons": ["invalid_date"]})
    assert (
        "orders".ljust(11) + "     2         0        0          0           0         2"
        in message["message"]
    )


@pytest.mark.parametrize(
    "asked",
    [
        {"operation": "vacuum", "dry_run": True},
        {"operation": "sql", "sql": "SELECT * FROM clean_orders VERSION AS OF 3"},
        {"operation": "sql", "sql": "WITH t AS (SELECT 1) SELECT * FROM t"},
    ],
)
def test_what_only_reads_is_answered_and_nobody_is_mailed(
    single_file: Pipeline, asked: dict[str, Any]
) -> None:
    execution, messages = single_file.start(asked)
    assert execution["status"] == "SUCCEEDED" and messages == []
    states = single_file.states(execution)
    assert "WriteRunReport" in states and "ArchiveProcessedFiles" not in states


@pytest.mark.parametrize(
    "asked",
    [
        {"operation": "rollback", "to": "run-1", "dry_run": True},
        {"operation": "sql", "sql": "SELECT * FROM clean_orders"},
    ],
)
def test_a_reading_is_neither_checked_nor_mailed_whatever_its_summary_names(
    single_file: Pipeline, asked: dict[str, Any]
) -> None:
    """A job of an earlier release names all tables in the summary of a dry run."""
    single_file.run()
    queries, summary = len(single_file.queries.asked), single_file.job.summary("x", [], 0)
    single_file.job.change_summary = lambda written: written.update(tables=summary["tables"])
    execution, messages = single_file.start(asked)
    assert execution["status"] == "SUCCEEDED" and messages == []
    assert len(single_file.queries.asked) == queries
    assert single_file.states(execution)[-5:] == [
        "CheckRunSummary",
        "WriteRunReport",
        "CheckCrawlOwed",
        "CheckOutcome",
        "RunSucceeded",
    ]


BEGIN = ["PrepareRun", "IsOperation"]
READ_SUMMARY = ["CheckGlueJobStatus", "ReadRunSummary", "CheckRunSummary"]
REPORT = ["WriteRunReport", "CheckCrawlOwed", "CheckOutcome"]
READING = [*BEGIN, "PrepareReading", "RunOperation", *READ_SUMMARY, *REPORT, "RunSucceeded"]
REFUSED = [
    *BEGIN,
    "RunOperation",
    "ReadJobError",
    "CheckJobError",
    "UseJobError",
    "IsFailureMailed",
    "PrepareFailureMail",
    "ComposeMail",
    "ChooseHandler",
    "HandleGlueJobFailure",
    *REPORT,
    "RunFailed",
]
LOAD = [
    *BEGIN,
    "FindNewFiles",
    "AnyNewFiles",
    "RunGlueJob",
    *READ_SUMMARY,
    "InitiateArchiveProcess",
    "ArchiveProcessedFiles",
    "CheckArchiveCompletion",
    "CheckTablesExist",
    "ReadCatalog",
    "ReadCrawler",
    "CheckCrawlNeeded",
    "PrepareChecks",
    "Parallel Athena Queries",
    "CheckViolations",
    "ComposeMail",
    "ChooseHandler",
    "HandleValidationSuccess",
    *REPORT,
    "RunSucceeded",
]


def test_a_reading_asks_and_mails_nothing_a_refusal_mails_once_and_a_load_is_checked(
    single_file: Pipeline,
) -> None:
    """What is run: its end, the subjects of its mails, the queries that Athena was asked, and the
    states that it entered, without those of the parallel queries. No items were loaded, so that one
    of the five queries is left out."""
    single_file.run()
    states = json.loads(single_file.aws.template.definition())["States"]
    asked: dict[str, dict[str, Any]] = {
        "dry run": {"operation": "optimize", "dry_run": True},
        "SELECT": {"operation": "sql", "sql": "SELECT * FROM clean_orders"},
        "refused operation": {"operation": "sql", "sql": "DELETE FROM clean_orders"},
        "load": {},
    }
    runs = {}
    for name, operation in asked.items():
        queries = len(single_file.queries.asked)
        if name == "refused operation":
            single_file.job.failures = [JobFailed("clean_orders_items refers to order_id 'o1'")]
        if name == "load":
            single_file.aws.upload("orders/2025-04-02.csv", b"order_id\n2\n")
        execution, messages = single_file.start(operation)
        subjects = [message["subject"].partition(":")[0] for message in messages]
        count = len(single_file.queries.asked) - queries
        entered = [state for state in single_file.states(execution) if state in states]
        runs[name] = (execution["status"], subjects, count, entered)
    assert runs == {
        "dry run": ("SUCCEEDED", [], 0, READING),
        "SELECT": ("SUCCEEDED", [], 0, READING),
        "refused operation": ("FAILED", ["Operation Failure Alert"], 0, REFUSED),
        "load": ("SUCCEEDED", ["Delta Lake Run Succeed"], 4, LOAD),
    }


def test_a_refused_operation_is_told_in_its_own_words(single_file: Pipeline) -> None:
    single_file.job.failures = [JobFailed("order 7 would stand twice in clean_orders")]
    execution, (message,) = single_file.start({"operation": "sql", "sql": "INSERT INTO x"})
    assert execution["status"] == "FAILED" and "order 7 would stand twice" in execution["cause"]
    assert message["subject"] == "Operation Failure Alert: sql"
    assert "the operation was refused" in message["message"]
    assert "order 7 would stand twice" in message["message"]
    assert "did not load" not in message["message"]


@pytest.mark.parametrize("name", ["vacum", 7, None])
def test_a_misspelt_operation_ends_before_glue(single_file: Pipeline, name: Any) -> None:
    execution, messages = single_file.start({"operation": name})
    assert (execution["status"], execution["error"]) == ("FAILED", "UnknownOperation")
    assert all(name in execution["cause"] for name in glue_operations.SPECS)
    assert messages == [] and single_file.job.asked == [] == single_file.job.runs


def test_the_state_machine_knows_every_operation_of_the_job(pipeline: Pipeline) -> None:
    states = json.loads(pipeline.aws.template.definition())["States"]
    (unknown,) = [
        choice
        for choice in states["IsOperation"]["Choices"]
        if choice["Next"] == "UnknownOperation"
    ]
    named = {rule["StringEquals"] for rule in unknown["Not"]["Or"]}
    assert named == glue_operations.SPECS.keys()


def test_a_refused_question_fails_without_a_mail(single_file: Pipeline) -> None:
    single_file.job.failures = [JobFailed("there is no table clean_order")]
    execution, messages = single_file.start(
        {"operation": "sql", "sql": "SELECT * FROM clean_order"}
    )
    assert execution["status"] == "FAILED" and "no table clean_order" in execution["cause"]
    assert messages == []


def test_an_operation_waits_for_a_load_and_is_done_then(single_file: Pipeline) -> None:
    load = single_file.start_busy(single_file.waits_for_the_job)
    execution, _ = single_file.start({"operation": "optimize"})
    assert execution["status"] == "SUCCEEDED"
    assert "WaitForGlueJob" in single_file.states(execution) and len(single_file.job.asked) == 1
    assert single_file.aws.wait_for(load)["status"] == "SUCCEEDED"


def test_rejected_rows_and_failed_checks_come_with_the_operation_that_helps(
    single_file: Pipeline,
) -> None:
    execution, (message,) = single_file.run()
    words = f"replay --run {execution['name']}"
    assert f"  .venv/bin/python -m local {words}\n" in message["message"]
    assert f'make operate ENV=prod ARGS="{words}"' in message["message"]
    single_file.aws.upload("orders/2025-04-02.csv", b"order_id\n2\n")
    single_file.queries.violations = {"rows lost": 1}
    execution, (message,) = single_file.run()
    words = f"rollback --undo {execution['name']} --dry-run"
    assert f'make operate ENV=prod ARGS="{words}"' in message["message"]


# Faults -------------------------------------------------------------------------------------------


def test_a_job_that_fails_tells_its_own_cause(single_file: Pipeline) -> None:
    single_file.job.failures = [
        JobFailed("orders/2025-04-01.csv: 3 rows in the file, 2 accounted for")
    ]
    single_file.assert_failed("ETL Job Failure Alert", "3 rows in the file, 2 accounted for")
    assert single_file.aws.keys("RawBucket") == ["land-folder/Data/orders/2025-04-01.csv"]
    single_file.assert_heals()


def test_a_run_that_has_lost_an_executor_is_tried_once_more(single_file: Pipeline) -> None:
    error = Exception("An error occurred while calling o1.save.")
    java = SimpleNamespace(
        getClass=lambda: SimpleNamespace(getName=lambda: "SparkException"),
        getMessage=lambda: "Checkpoint block rdd_7_0 not found!",
        getCause=lambda: None,
    )
    error.java_exception = java  # type: ignore[attr-defined]
    cause = glue_etl.cause_of(error)
    single_file.job.failures = [JobFailed(cause)]
    single_file.assert_heals()
    assert len(single_file.job.runs) == 2
    single_file.aws.upload("orders/2025-04-02.csv", b"order_id\n2\n")
    single_file.job.failures = [JobFailed(cause), JobFailed(cause)]
    single_file.assert_failed("ETL Job Failure Alert", "an executor was lost")


@pytest.mark.parametrize("state", ["TIMEOUT", "STOPPED"])
def test_a_job_that_is_ended_before_it_could_write_a_summary_fails_the_run(
    single_file: Pipeline, state: str
) -> None:
    single_file.job.failures = [JobFailed("the job run has exceeded its time", state)]
    single_file.assert_failed("ETL Job Failure Alert", state)
    assert single_file.aws.keys("RawBucket") != []
    single_file.assert_heals()


def test_a_job_that_hangs_longer_than_the_state_machine_waits_fails_the_run() -> None:
    pipeline = deploy(batching_window=10_000, change_definition=shorten("RunGlueJob", 1))
    may_end = threading.Event()
    pipeline.job.during = lambda: may_end.wait(60)
    try:
        pipeline.aws.upload("orders.csv", b"x")
        pipeline.assert_failed("ETL Job Failure Alert", "States.Timeout")
    finally:
        may_end.set()
        with pipeline.job.running:  # the job has ended
            pipeline.aws.stop()


def test_a_busy_job_is_waited_for_and_its_run_may_have_done_the_work(single_file: Pipeline) -> None:
    first = single_file.start_busy(single_file.waits_for_the_job)
    second = single_file.aws.sweep()
    assert single_file.aws.wait_for(first)["status"] == "SUCCEEDED"
    assert single_file.aws.wait_for(second)["status"] == "SUCCEEDED"
    states = single_file.aws.states(second)
    assert states.count("WaitForGlueJob") >= 1 and states.count("FindNewFiles") >= 2
    assert single_file.archived() == ["orders/2025-04-01.csv"]


def test_a_job_that_stays_busy_fails_the_run_in_the_end() -> None:
    def impatient(definition: dict[str, Any]) -> None:
        definition["States"]["CheckGlueWaits"]["Choices"][0]["NumericGreaterThan"] = 2
        definition["States"]["WaitForGlueJob"]["Seconds"] = 1

    pipeline = deploy(batching_window=10_000, change_definition=impatient)
    try:
        pipeline.aws.upload("orders.csv", b"x")
        first = pipeline.start_busy(lambda: bool(pipeline.aws.executions("FAILED")))
        pipeline.assert_failed("ETL Job Failure Alert", "was busy for three hours")
        assert pipeline.aws.wait_for(first)["status"] == "SUCCEEDED"
    finally:
        pipeline.aws.stop()


@pytest.mark.parametrize("version", [None, 0, 2, "1", True])
def test_a_summary_of_another_release_fails_the_run_instead_of_dying_silently(
    single_file: Pipeline, version: Any
) -> None:
    def change(summary: dict[str, Any]) -> None:
        summary["schema_version"] = version
        if version is None:
            del summary["schema_version"]

    single_file.job.change_summary = change
    single_file.assert_failed("ETL Job Failure Alert", "must have schema_version 1")
    assert single_file.aws.keys("RawBucket") != []


def test_a_job_that_succeeds_with_the_summary_of_a_failure_moves_nothing(
    single_file: Pipeline,
) -> None:
    single_file.job.change_summary = lambda summary: summary.update(status="FAILED", tables={})
    single_file.assert_failed("ETL Job Failure Alert", "the status SUCCEEDED or NOTHING_NEW")
    assert single_file.aws.keys("RawBucket") != []


def test_a_function_that_raises_fails_the_run_and_nothing_moves(single_file: Pipeline) -> None:
    single_file.break_archive()
    single_file.assert_failed("Archive Failure Alert", "AccessDenied on the manifest")
    assert single_file.aws.keys("RawBucket") != []
    single_file.mend_archive()
    single_file.assert_heals()


def test_an_archive_that_is_only_partly_done_fails_the_run(single_file: Pipeline) -> None:
    single_file.aws.upload("orders/2025-04-02.csv", b"order_id\n2\n")
    s3, archive = single_file.aws.client("s3"), single_file.aws.name("ArchiveBucket")
    original = single_file.aws.function("Moves3Objects")

    def refuse_file(event: Any, context: Any) -> Any:
        answer = original(event, context)
        s3.put_object(
            Bucket=single_file.aws.name("RawBucket"),
            Key="land-folder/Data/orders/2025-04-02.csv",
            Body=b"order_id\n2\n",
        )
        s3.delete_object(
            Bucket=archive, Key=f"archived/run={event['run_id']}/orders/2025-04-02.csv"
        )
        sample = "land-folder/Data/orders/2025-04-02.csv: AccessDenied"
        return {**answer, "archived": 1, "failed": 1, "samples": [sample]}

    single_file.aws.runners.functions["Moves3Objects"] = refuse_file
    single_file.assert_failed(
        "Archive Failure Alert", "Files not moved: 1;", "2025-04-02.csv: AccessDenied"
    )
    single_file.aws.runners.functions["Moves3Objects"] = original
    single_file.assert_heals()


def test_a_crawl_that_fails_fails_the_run_and_is_made_good_by_the_next(
    single_file: Pipeline,
) -> None:
    single_file.crawler.failures = [CrawlFailed("no permission for the table")]
    single_file.assert_failed("Crawler Failure Alert", "no permission for the table")
    single_file.aws.upload("orders/2025-04-02.csv", b"order_id\n2\n")
    single_file.assert_heals()
    assert len(single_file.crawler.crawls) == 2


def test_a_crawl_that_a_failed_run_owed_is_made_good(single_file: Pipeline) -> None:
    single_file.aws.upload("orders/2025-04-02.csv", b"order_id\n2\n")
    single_file.break_archive()
    single_file.assert_failed("Archive Failure Alert", "AccessDenied")
    single_file.mend_archive()
    single_file.assert_heals()
    assert len(single_file.crawler.crawls) == 1, "started by the run that failed"


def test_a_table_that_is_missing_in_the_catalog_is_crawled_though_no_run_asks_for_it(
    single_file: Pipeline,
) -> None:
    single_file.run()
    single_file.aws.client("glue").delete_table(
        DatabaseName=single_file.aws.name("Database"), Name="rejected_records"
    )
    single_file.aws.upload("orders/2025-04-02.csv", b"order_id\n2\n")
    single_file.assert_heals()
    assert len(single_file.crawler.crawls) == 2


def test_a_crawler_that_is_already_running_is_waited_for_and_then_ours_runs(
    single_file: Pipeline,
) -> None:
    may_end = threading.Event()
    single_file.crawler.during = lambda: may_end.wait(60)
    single_file.aws.client("glue").start_crawler(Name=single_file.aws.name("Crawler"))
    run = single_file.aws.sweep()
    while (
        "WaitForOtherCrawl" not in single_file.aws.states(run)
        and single_file.aws.describe(run)["status"] == "RUNNING"
    ):
        time.sleep(0.1)
    may_end.set()
    execution = single_file.aws.wait_for(run)
    assert execution["status"] == "SUCCEEDED"
    assert (
        "WaitForOtherCrawl" in single_file.states(execution)
        and len(single_file.crawler.crawls) == 2
    )


def test_the_success_of_an_older_crawl_does_not_hide_the_failure_of_ours(
    single_file: Pipeline,
) -> None:
    single_file.run()
    single_file.aws.upload("orders/2025-04-02.csv", b"order_id\n2\n")
    single_file.job.change_summary = lambda summary: summary.update(crawl_needed=True)
    single_file.crawler.failures = [CrawlFailed("the log is broken")]
    single_file.assert_failed("Crawler Failure Alert", "the log is broken")


@pytest.mark.parametrize("word", ["clean_products WHERE", "FROM clean_orders WHERE", "rows lost"])
def test_a_violation_in_athena_fails_the_run(single_file: Pipeline, word: str) -> None:
    single_file.queries.violations = {word: 3}
    single_file.assert_failed("Validation Failure Alert", "broken: 3")
    single_file.queries.violations = {}
    single_file.aws.upload("orders/2025-04-02.csv", b"order_id\n2\n")
    single_file.assert_heals()


def test_a_query_that_athena_cannot_run_fails_the_run(single_file: Pipeline) -> None:
    single_file.queries.failures = {
        "clean_orders": QueryFailed("TABLE_NOT_FOUND: clean_orders does not exist")
    }
    single_file.assert_failed("Validation Failure Alert", "TABLE_NOT_FOUND")
    single_file.queries.failures = {}
    single_file.aws.upload("orders/2025-04-02.csv", b"order_id\n2\n")
    single_file.assert_heals()


def test_a_run_whose_message_cannot_be_sent_does_not_end_green(single_file: Pipeline) -> None:
    single_file.aws.client("sns").delete_topic(TopicArn=single_file.aws.name("Topic"))
    execution, messages = single_file.run()
    assert (
        execution["status"] == "FAILED"
        and execution["error"] == "NotificationFailed"
        and messages == []
    )
    assert single_file.archived() == ["orders/2025-04-01.csv"]


def test_a_failed_run_whose_message_cannot_be_sent_names_both_causes(single_file: Pipeline) -> None:
    single_file.aws.client("sns").delete_topic(TopicArn=single_file.aws.name("Topic"))
    single_file.job.failures = [JobFailed("rows do not add up")]
    execution, _ = single_file.run()
    assert execution["error"] == "RunFailedUnnoticed"
    assert "rows do not add up" in execution["cause"] and "SNS." in execution["cause"]


def without_report(pipeline: Pipeline) -> None:
    def broken(event: Any, context: Any) -> Any:
        raise RuntimeError("no report today")

    pipeline.aws.runners.functions["RunReport"] = broken


def test_without_the_function_a_good_run_is_mailed_in_plain_words(single_file: Pipeline) -> None:
    without_report(single_file)
    execution, (message,) = single_file.run()
    assert execution["status"] == "SUCCEEDED" and message["subject"] == "Delta Lake Run Succeed"
    assert message["message"].startswith(f"Run {execution['name']} succeeded. ")
    assert f"runs/{execution['name']}/summary.json" in message["message"]
    assert execution["executionArn"] in message["message"]


def test_without_the_function_a_failed_run_is_mailed_with_its_cause(single_file: Pipeline) -> None:
    without_report(single_file)
    single_file.job.failures = [JobFailed("order 7 twice")]
    execution, (message,) = single_file.run()
    assert message["subject"] == "Delta Lake Run Failure Alert"
    assert message["message"].startswith(f"Run {execution['name']} failed. ")
    assert "order 7 twice" in message["message"]
    assert "HandleGlueJobFailure" in single_file.states(execution)


def test_a_function_that_takes_too_long_does_not_hold_back_the_mail() -> None:
    pipeline = deploy(batching_window=10_000, change_definition=shorten("ComposeMail", 1))
    try:
        pipeline.aws.upload("orders.csv", b"x")
        pipeline.aws.runners.functions["RunReport"] = lambda event, context: time.sleep(3)
        execution, (message,) = pipeline.run()
    finally:
        pipeline.aws.stop()
    assert execution["status"] == "SUCCEEDED" and message["subject"] == "Delta Lake Run Succeed"


def test_a_message_keeps_the_limits_of_sns_and_of_a_state(single_file: Pipeline) -> None:
    single_file.job.failures = [JobFailed("word " * 6_000, "TIMEOUT")]  # a cause has 32,768 at most
    execution, (message,) = single_file.run()
    assert execution["status"] == "FAILED" and "word word" in message["message"]
    assert len(message["message"].encode()) <= 16_000
    assert len(message["subject"]) <= 100 and message["subject"].isascii()


GLUES_CAUSE = json.dumps({"ErrorMessage": '"quoted" ' * 3_000, "JobRunState": "FAILED", "Id": "jr"})


@pytest.mark.parametrize("break_it", ["job", "checks", "function", "question"])
def test_the_cause_of_an_execution_keeps_the_limits_of_step_functions(
    single_file: Pipeline, break_it: str
) -> None:
    """A cause has 32,768 characters at most, an error 256. A check that fails has a cause of its
    own, and four of them make one; JSON within JSON doubles its quotes."""
    long = JobFailed(GLUES_CAUSE, "TIMEOUT")
    if break_it == "job":
        single_file.job.failures = [long]
    if break_it == "checks":
        single_file.queries.failures = {"SELECT": QueryFailed("word " * 1_700)}
    if break_it == "function":
        without_report(single_file)
        single_file.queries.failures = {"SELECT": QueryFailed("word " * 1_700)}
    if break_it == "question":
        single_file.job.failures = [JobFailed("word " * 6_000)]
        execution, _ = single_file.start({"operation": "sql", "sql": "SELECT 1"})
    else:
        execution, _ = single_file.run()
    assert (execution["status"], execution["error"]) == ("FAILED", "RunFailed")
    words = {"job": "quoted", "checks": "word word", "function": "history", "question": "word word"}
    assert words[break_it] in execution["cause"] and len(execution["cause"]) <= 2_100


def test_every_error_that_the_state_machine_names_is_short(pipeline: Pipeline) -> None:
    states = json.loads(pipeline.aws.template.definition())["States"]
    ends = {name: state for name, state in states.items() if state["Type"] == "Fail"}
    assert ends and all(len(state["Error"]) <= 256 for state in ends.values())
    fixed = [state["Cause"] for state in ends.values() if "Cause" in state]
    assert all(len(cause) <= 2_000 for cause in fixed)


def test_metrics_that_athena_cannot_tell_fail_no_run(single_file: Pipeline) -> None:
    single_file.queries.failures = {"TO_ISO8601": QueryFailed("TABLE_NOT_FOUND: ingested_files")}
    assert "FreshnessUnknown" in single_file.states(single_file.run()[0])
    single_file.aws.upload("orders/2025-04-02.csv", b"order_id\n2\n")
    single_file.assert_heals()


# A storm ------------------------------------------------------------------------------------------


def test_hundreds_of_files_in_a_burst_become_a_few_runs_and_each_is_archived_once() -> None:
    window = 15  # a quarter of the deployed one
    pipeline = deploy(batching_window=window)
    sqs, queue = pipeline.aws.client("sqs"), pipeline.aws.name("UploadQueue")
    rng = random.Random(7)
    names = [f"orders/{number:04}.csv" for number in range(300)]
    rng.shuffle(names)
    try:
        pipeline.job.seconds = 3
        pipeline.aws.upload("orders/first.csv", b"0")
        first = pipeline.aws.sweep()

        def upload(name: str) -> None:
            pipeline.aws.upload(name, name.encode())
            if rng.random() < 0.2:  # events come twice, and for files long gone
                event = {"detail": {"object": {"key": rng.choice(names)}}}
                sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(event))

        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(upload, names))
        windows = int((time.monotonic() - began) / window)  # a slow machine uploads for longer
        executions = pipeline.aws.wait_until_idle(240)
        assert {execution["status"] for execution in executions} == {"SUCCEEDED"}
        assert pipeline.aws.describe(first)["status"] == "SUCCEEDED"
        assert len(pipeline.job.runs) <= max(5, windows + 3), (
            f"{len(pipeline.job.runs)} Glue runs in {len(executions)} executions"
        )
        everything = sorted(["orders/first.csv", *names])
        assert sorted(pipeline.job.loaded) == everything
        assert pipeline.archived() == everything
        assert pipeline.aws.keys("RawBucket") == []
    finally:
        pipeline.aws.stop()
