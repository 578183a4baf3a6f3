"""The whole pipeline with the real job: an upload starts it, Spark loads, Athena reads; faults, and
a storm of uploads."""

from __future__ import annotations

import itertools
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import glue_etl as etl
from local.aws.pipeline import Pipeline
from local.aws.server import CrawlFailed, JobFailed, LocalAws, QueryFailed
from local.aws.stepfunctions import Pace
from tests import emf
from tests.unit.test_summary import CONTRACT

PRODUCTS = "product_id,department_id,department,product_name\n"
ORDERS = "order_num,order_id,user_id,order_timestamp,total_amount,date\n"
ITEMS = (
    "id,order_id,user_id,days_since_prior_order,product_id,add_to_cart_order,reordered,"
    "order_timestamp,date\n"
)
ENVIRONMENTS = (f"test{number}" for number in itertools.count())


def order(key: str, amount: str = "5", moment: str = "2025-04-01T10:00:00") -> str:
    return f"1,{key},u1,{moment},{amount},\n"


def item(key: str, order_id: str) -> str:
    return f"{key},{order_id},u1,3,p1,1,0,2025-04-01T10:00:00,\n"


def kinds(messages: list[dict[str, str]]) -> list[str]:
    """What stands before the colon of each subject."""
    return [message["subject"].partition(":")[0] for message in messages]


class Shop:
    """A fresh deployment of the pipeline, and what people do with it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.aws = pipeline, pipeline.aws
        self.runners = self.aws.runners = pipeline.runners()
        self.glue_runs: list[str] = []
        self.after_the_job: Callable[[], None] = lambda: None
        job = self.runners.glue_job

        def counted(arguments: Mapping[str, str]) -> None:
            self.glue_runs.append(arguments["--RUN_ID"])
            job(arguments)
            self.after_the_job()

        self.runners.glue_job = counted

    def upload(self, path: str, *lines: str) -> None:
        self.aws.upload(path, "".join(lines).encode())

    def upload_in_parts(self, path: str, *lines: str) -> None:
        """A multipart upload; of a single part, since only the last may be this small."""
        s3 = self.aws.client("s3")
        target = {"Bucket": self.aws.name("RawBucket"), "Key": f"land-folder/Data/{path}"}
        target["UploadId"] = s3.create_multipart_upload(**target)["UploadId"]
        part = {"PartNumber": 1, "Body": "".join(lines).encode()}
        etag = s3.upload_part(**target, **part)["ETag"]
        parts = [{"PartNumber": 1, "ETag": etag}]
        s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})

    def run(self) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """One execution by the sweep, and the messages that it sent."""
        return self.aws.wait_for(self.aws.sweep(), 600), self.aws.messages()

    def start(self, **asked: Any) -> str:
        """Starts an execution with this input, as the commands for operations do."""
        return self.aws.client("stepfunctions").start_execution(
            stateMachineArn=self.aws.name("StateMachine"), input=json.dumps(asked)
        )["executionArn"]

    def operate(self, **asked: Any) -> tuple[str, dict[str, str]]:
        """One operation; its status, and the message that it sent."""
        status = self.aws.wait_for(self.start(author="Ann", **asked), 600)["status"]
        (message,) = self.aws.messages()
        return status, message

    def assert_succeeds(self) -> None:
        execution, messages = self.run()
        assert execution["status"] == "SUCCEEDED", execution
        assert kinds(messages) == ["Delta Lake Run Succeed"]

    def raw(self) -> list[str]:
        return [key.removeprefix("land-folder/Data/") for key in self.aws.keys("RawBucket")]

    def archived(self) -> list[str]:
        return sorted(key.split("/", 2)[2] for key in self.aws.keys("ArchiveBucket"))

    def manifest(self, run_id: str) -> list[dict[str, Any]]:
        body = self.aws.client("s3").get_object(
            Bucket=self.aws.name("LakeBucket"), Key=f"runs/{run_id}/manifest.jsonl"
        )["Body"]
        return [json.loads(line) for line in body.read().splitlines()]

    def versions(self) -> dict[str, int]:
        """The latest version of each table."""
        bucket = f"s3://{self.aws.name('LakeBucket')}"
        folders = {name: "lakehouse-dwh" for name in etl.schemas()} | {
            "rejected_records": "rejected"
        }
        return {
            name: etl.DeltaLog(f"{bucket}/{folder}/{name}").latest()
            for name, folder in folders.items()
        }

    def query_count(self) -> int:
        """Return the number of queries that Athena was asked in this environment."""
        pages = self.aws.client("athena").get_paginator("list_query_executions")
        queries = pages.paginate(WorkGroup=self.aws.name("WorkGroup"))
        return sum(len(page["QueryExecutionIds"]) for page in queries)

    def column(self, sql: str) -> list[str | None]:
        return [row[0] for row in self.pipeline.query(sql).text_rows()]

    def orders(self) -> list[str]:
        result = self.pipeline.query("SELECT order_id, total_amount FROM clean_orders ORDER BY 1")
        return [f"{order_id} {amount}" for order_id, amount in result.text_rows()]


@pytest.fixture(scope="module")
def machine() -> Iterator[Pipeline]:
    """One Spark for all tests of this file."""
    with Pipeline(pace=Pace(waits=0.05, retries=0.01, poll=0.1)) as pipeline:
        yield pipeline


@pytest.fixture
def deploy(machine: Pipeline) -> Callable[..., Shop]:
    """Deploys an environment with names of its own.

    Without a batching window only the sweep starts runs.
    """

    def fresh(batching_window: float = 10_000) -> Shop:
        machine.aws.stop()
        machine.aws.parameters, machine.aws.batching_window = (
            {"EnvironmentName": next(ENVIRONMENTS)},
            batching_window,
        )
        machine.aws.start()
        return Shop(machine)

    return fresh


@pytest.fixture
def shop(deploy: Callable[..., Shop]) -> Shop:
    """A shop with one product, whose first delivery waits in the raw zone."""
    fresh = deploy()
    fresh.upload("products.csv", PRODUCTS, "p1,1,Books,Pen\n")
    fresh.upload("orders/1.csv", ORDERS, order("o1"), order("o2"), order("", "bad"))
    fresh.upload("order_items/1.csv", ITEMS, item("i1", "o1"), item("i9", "o9"))
    return fresh


def assert_metrics_are_those_that_the_alarms_watch(shop: Shop) -> None:
    """The run of an_upload_alone: of five rows one is rejected, one is parked."""
    environment = ("Environment", shop.aws.parameters["EnvironmentName"])
    metrics = [metric for line in shop.aws.log for metric in emf.read(line)]
    values = {(m.name, m.dimensions): m.value for m in metrics if environment in m.dimensions}
    items = frozenset({environment, ("Dataset", "order_items")})
    assert values["RowsParked", items] == 1 and 0 <= values["OldestParkedHours", items] < 1
    assert 0 <= values["HoursSinceGoodDelivery", items] < 1
    assert values["RowsAccepted", frozenset({environment})] == 4
    assert values["RejectedPercent", frozenset({environment})] == 20
    for _, alarm in shop.aws.template.of_type("AWS::CloudWatch::Alarm"):
        if alarm["Namespace"] == "DeltaLake":
            dimensions = frozenset(
                (dimension["Name"], dimension["Value"]) for dimension in alarm["Dimensions"]
            )
            assert (alarm["MetricName"], dimensions) in values


def test_an_upload_alone_ends_in_tables_that_athena_reads(deploy: Callable[..., Shop]) -> None:
    shop = deploy(batching_window=2)
    shop.upload("products.csv", PRODUCTS, "p1,1,Books,Pen\n")
    shop.upload("orders/1.csv", ORDERS, order("o1"), order("", "bad"))
    shop.upload("order_items/1.csv", ITEMS, item("i1", "o1"), item("i9", "o9"))
    started = False
    while not started:
        idle = (
            shop.aws.pipe.idle()
        )  # asked first: what has left the queue by now is in the list below
        started = bool(shop.aws.executions())
        assert started or not idle, "the events are gone and nothing was started"
    (execution,) = shop.aws.wait_until_idle(600)
    (message,) = shop.aws.messages()
    assert execution["status"] == "SUCCEEDED"
    assert message["subject"].startswith("Delta Lake Run Succeed: ")
    assert re.search(r"^orders +2 +1 ", message["message"], re.M), message["message"]
    assert shop.orders() == ["o1 5.0"] and shop.column("SELECT id FROM clean_orders_items") == [
        "i1"
    ]
    assert sorted(shop.column("SELECT status FROM rejected_records")) == ["parked", "rejected"]
    assert (
        shop.archived() == ["order_items/1.csv", "orders/1.csv", "products.csv"]
        and shop.raw() == []
    )
    records = set(shop.aws.keys("LakeBucket", f"runs/{execution['name']}/"))
    assert records == {
        f"runs/{execution['name']}/{name}"
        for name in ("manifest.jsonl", "summary.json", "report.html", "cost.json")
    }
    assert_metrics_are_those_that_the_alarms_watch(shop)
    assert f"runs/{execution['name']}/report.html" in message["message"]
    summary = shop.aws.client("s3").get_object(
        Bucket=shop.aws.name("LakeBucket"), Key=f"runs/{execution['name']}/summary.json"
    )
    CONTRACT.validate(json.loads(summary["Body"].read()))


def test_files_that_come_or_change_between_the_listing_and_the_archive_stay_for_the_next_run(
    shop: Shop,
) -> None:
    def meanwhile() -> None:
        shop.upload("orders/late.csv", ORDERS, order("o9", "9"))
        shop.upload("orders/1.csv", ORDERS, order("o1", "7"))

    shop.after_the_job = meanwhile
    shop.assert_succeeds()
    assert shop.raw() == ["orders/1.csv", "orders/late.csv"] and shop.orders() == [
        "o1 5.0",
        "o2 5.0",
    ]
    assert shop.archived() == ["order_items/1.csv", "products.csv"], (
        "the new orders/1.csv has not been read"
    )
    shop.after_the_job = lambda: None
    shop.assert_succeeds()
    assert shop.raw() == [] and shop.orders() == ["o1 7.0", "o2 5.0", "o9 9.0"]
    assert shop.column("SELECT id FROM clean_orders_items ORDER BY 1") == ["i1", "i9"], (
        "the waiting item came with its order"
    )
    assert shop.archived() == [
        "order_items/1.csv",
        "orders/1.csv",
        "orders/late.csv",
        "products.csv",
    ]


@pytest.mark.slow
def test_a_job_that_is_killed_in_the_middle_is_started_again_by_the_next_run(
    shop: Shop, machine: Pipeline
) -> None:
    machine.job.show = lambda line: (
        machine.job.kill() if line.endswith("committed clean_orders") else None
    )
    execution, messages = shop.run()
    machine.job.show = lambda line: None
    assert execution["status"] == "FAILED" and kinds(messages) == ["ETL Job Failure Alert"]
    assert "exit code" in messages[0]["message"] and len(shop.raw()) == 3 and shop.archived() == []
    shop.assert_succeeds()
    assert shop.raw() == [] and shop.orders() == ["o1 5.0", "o2 5.0"]
    assert shop.column("SELECT id FROM clean_orders_items") == ["i1"]
    assert shop.column("SELECT count(*) FROM rejected_records") == ["2"], "rejects are not doubled"


# Faults: what breaks, the subject of the message, and a word of the cause -------------------------


def job_ends(state: str) -> Callable[[Shop], None]:
    def install(shop: Shop) -> None:
        def ended(arguments: Mapping[str, str]) -> None:
            raise JobFailed("the run was ended", state)

        shop.runners.glue_job = ended

    return install


def job_cannot_write(shop: Shop) -> None:
    job = shop.runners.glue_job

    def misled(arguments: Mapping[str, str]) -> None:
        job({**arguments, "--LAKEHOUSE_PATH": "s3://no-such-bucket/dwh/"})

    shop.runners.glue_job = misled


def archiver_raises(shop: Shop) -> None:
    def broken(event: Any, context: Any) -> Any:
        raise RuntimeError("AccessDenied on the manifest")

    shop.runners.functions[shop.aws.name("ArchiveFunction")] = broken


def archiver_loses_a_bucket(shop: Shop) -> None:
    shop.runners.functions[shop.aws.name("ArchiveFunction")] = original = shop.aws.function(
        shop.aws.name("ArchiveFunction")
    )

    def to_nowhere(event: Any, context: Any) -> Any:
        original.__globals__["os"].environ["ARCHIVE_BUCKET"] = "no-such-bucket"
        return original(event, context)

    shop.runners.functions[shop.aws.name("ArchiveFunction")] = to_nowhere


def crawler_fails(shop: Shop) -> None:
    def broken(database: str, targets: Any) -> None:
        raise CrawlFailed("no permission for the table")

    shop.runners.crawl = broken
    shop.aws.client("glue").delete_table(DatabaseName=shop.aws.name("Database"), Name="etl_runs")


def query_fails(shop: Shop) -> None:
    def broken(sql: str, database: str) -> Any:
        raise QueryFailed("HIVE_CURSOR_ERROR: slow down")

    shop.runners.query = broken


def table_is_damaged(shop: Shop) -> None:
    """A stranger writes an order a second time, past the job."""
    query = shop.runners.query

    def with_a_twin(sql: str, database: str) -> Any:
        return query(
            sql.replace(
                "FROM touched GROUP BY",
                "FROM (SELECT * FROM touched UNION ALL SELECT * FROM touched) GROUP BY",
            ),
            database,
        )

    shop.runners.query = with_a_twin


FAULTS = [
    ("the job fails", job_cannot_write, "ETL Job Failure Alert", "NoSuchBucket"),
    ("the job times out", job_ends("TIMEOUT"), "ETL Job Failure Alert", "TIMEOUT"),
    (
        "the archiver raises",
        archiver_raises,
        "Archive Failure Alert",
        "AccessDenied on the manifest",
    ),
    (
        "the archive stays incomplete",
        archiver_loses_a_bucket,
        "Archive Failure Alert",
        "Files not moved",
    ),
    ("the crawler fails", crawler_fails, "Crawler Failure Alert", "no permission for the table"),
    ("a query fails", query_fails, "Validation Failure Alert", "slow down"),
    (
        "a check finds a violation",
        table_is_damaged,
        "Validation Failure Alert",
        "duplicate order_id: 1",
    ),
]


@pytest.mark.slow
def test_after_each_fault_one_message_names_the_cause_and_the_next_run_ends_with_the_right_tables(
    shop: Shop,
) -> None:
    shop.assert_succeeds()
    expected = ["o1 5.0", "o2 5.0"]
    sound = dict(vars(shop.runners))
    for number, (fault, install, subject, words) in enumerate(FAULTS):
        shop.upload(f"orders/fault-{number}.csv", ORDERS, order(f"x{number}", str(number + 1)))
        install(shop)
        execution, messages = shop.run()
        assert execution["status"] == "FAILED" and kinds(messages) == [subject], fault
        assert words in messages[0]["message"]
        assert set(shop.raw()) | set(shop.archived()) >= {f"orders/fault-{number}.csv"}, (
            f"{fault}: the file is lost"
        )
        vars(shop.runners).update({**sound, "functions": {}})
        shop.aws.set_environment({"ARCHIVE_BUCKET": shop.aws.name("ArchiveBucket")})
        shop.upload(f"orders/after-{number}.csv", ORDERS, order(f"y{number}"))
        shop.assert_succeeds()
        expected += [f"x{number} {number + 1}.0", f"y{number} 5.0"]
        assert shop.orders() == sorted(expected) and shop.raw() == [], fault
    names = {path for path in shop.archived()}
    assert len(names) == len(shop.archived()) == 3 + 2 * len(FAULTS), "each file once"


# A storm ------------------------------------------------------------------------------------------


SET_AMOUNT = "UPDATE clean_orders SET total_amount = 7 WHERE order_id = 'o1'"


@pytest.mark.slow
def test_operations_correct_undo_and_replay_through_the_state_machine(shop: Shop) -> None:
    shop.assert_succeeds()
    first = shop.aws.executions()[-1]["name"]

    status, message = shop.operate(operation="sql", sql=SET_AMOUNT)
    assert (status, message["subject"]) == ("SUCCEEDED", "Delta Lake Operation Succeed: sql")
    assert "clean_orders: 1 row was updated." in message["message"]
    assert shop.orders() == ["o1 7.0", "o2 5.0"]

    status, message = shop.operate(operation="sql", sql="DELETE FROM clean_orders")
    assert (status, message["subject"]) == ("FAILED", "Operation Failure Alert: sql")
    assert "clean_orders_items refers to order_id 'o1'" in message["message"]
    assert shop.orders() == ["o1 7.0", "o2 5.0"]

    status, message = shop.operate(operation="rollback", to=first)
    assert status == "SUCCEEDED" and f"the state after {first}" in message["message"]
    assert shop.orders() == ["o1 5.0", "o2 5.0"]

    why = {"discard": True, "why": "a test", "statuses": ["rejected"]}
    status, message = shop.operate(operation="replay", **why)
    assert status == "SUCCEEDED", message
    assert sorted(shop.column("SELECT status FROM rejected_records")) == ["discarded", "parked"]
    runs = shop.column("SELECT operation FROM etl_runs ORDER BY finished_at")
    assert runs == ["load", "sql", "rollback", "replay"]
    reports = [key for key in shop.aws.keys("LakeBucket", "runs/") if key.endswith("report.html")]
    assert len(reports) == 5, "a page for each, the refused one too"


def test_a_dry_run_and_a_select_run_no_query_and_send_no_mail(shop: Shop) -> None:
    shop.assert_succeeds()
    versions, queries = shop.versions(), shop.query_count()
    for asked in (
        {"operation": "optimize", "dry_run": True},
        {"operation": "sql", "sql": "SELECT * FROM clean_orders"},
    ):
        execution = shop.aws.wait_for(shop.start(**asked), 600)
        assert execution["status"] == "SUCCEEDED" and shop.aws.messages() == []
        states = shop.aws.states(execution["executionArn"])
        assert states[states.index("CheckRunSummary") + 1] == "WriteRunReport"
    assert (shop.versions(), shop.query_count()) == (versions, queries)
    status, message = shop.operate(operation="sql", sql="DELETE FROM clean_orders")
    subject = message["subject"].partition(":")[0]
    assert (status, subject) == ("FAILED", "Operation Failure Alert"), message
    assert shop.query_count() == queries


@pytest.mark.slow
def test_the_same_bytes_uploaded_again_are_a_duplicate_and_a_correction_stays(shop: Shop) -> None:
    shop.assert_succeeds()
    first = shop.aws.executions()[-1]["name"]
    (delivered,) = [line for line in shop.manifest(first) if line["path"] == "orders/1.csv"]
    status, _ = shop.operate(operation="sql", sql=SET_AMOUNT)
    assert status == "SUCCEEDED"
    corrected = shop.versions()
    assert min(corrected.values()) >= 0
    archived, etags = shop.archived(), {delivered["etag"]}
    rejects = "SELECT file_path || ' ' || status FROM rejected_records ORDER BY 1"

    for path, upload in (
        ("orders/1.csv", shop.upload),
        ("orders/1.csv", shop.upload_in_parts),
        ("orders/x (1).csv", shop.upload),
    ):
        upload(path, ORDERS, order("o1"), order("o2"), order("", "bad"))
        execution, messages = shop.run()
        assert execution["status"] == "SUCCEEDED"
        assert "1 file delivered before" in messages[0]["message"] and len(messages) == 1
        (copy,) = shop.manifest(execution["name"])
        assert (copy["path"], copy["outcome"]) == (path, "duplicate")
        assert f"{path}: the same bytes were loaded as orders/1.csv by {first} " in copy["detail"]
        assert copy["digest"] == delivered["digest"]
        etags.add(copy["etag"])
        assert shop.versions() == corrected, "nothing is written, the records neither"
        assert shop.column(rejects) == ["order_items/1.csv parked", "orders/1.csv rejected"]
        assert shop.orders() == ["o1 7.0", "o2 5.0"]
        archived.append(path)
        assert (shop.raw(), shop.archived()) == ([], sorted(archived))

    assert len(etags) == 4, "each upload has an ETag of its own"
    assert sum(etag.endswith("-1") for etag in etags) == 1, "that of the parts"


@pytest.mark.slow
def test_a_load_a_correction_and_a_rollback_at_once_end_as_if_one_after_another(
    shop: Shop,
) -> None:
    shop.assert_succeeds()
    first = shop.aws.executions()[-1]["name"]
    shop.upload("orders/2.csv", ORDERS, order("o9"))
    together = [
        shop.aws.sweep(),
        shop.start(operation="sql", sql=SET_AMOUNT),
        shop.start(operation="rollback", to=first),
    ]
    assert {shop.aws.wait_for(arn, 900)["status"] for arn in together} == {"SUCCEEDED"}
    before = ["o1 5.0", "o2 5.0"]
    corrected = ["o1 7.0", "o2 5.0"]
    assert shop.orders() in (before, corrected, [*before, "o9 5.0"], [*corrected, "o9 5.0"])
    items = ["i1", "i9"] if "o9 5.0" in shop.orders() else ["i1"]  # i9 waited for the order o9
    assert shop.column("SELECT id FROM clean_orders_items ORDER BY 1") == items
    assert shop.raw() == [] and "orders/2.csv" in shop.archived()
    runs = shop.column("SELECT operation FROM etl_runs")
    assert sorted(filter(None, runs)) == ["load", "load", "rollback", "sql"]


@pytest.mark.slow
@pytest.mark.parametrize("burst", [300, pytest.param(1000, marks=pytest.mark.long)])
def test_a_burst_of_files_is_loaded_by_a_few_runs_and_none_is_lost(
    deploy: Callable[..., Shop], burst: int
) -> None:
    orders, items = burst * 4 // 10, burst * 6 // 10 - 1
    window = 15.0  # a quarter of the deployed one
    shop = deploy(batching_window=window)
    rng = random.Random(7)
    files = {"products.csv": PRODUCTS + "p1,1,Books,Pen\n"}
    files |= {f"orders/{n:03}.csv": ORDERS + order(f"o{n}") for n in range(orders)}
    files |= {
        f"order_items/{n:03}.csv": ITEMS + item(f"i{n}", f"o{n % orders}") for n in range(items)
    }
    names = rng.sample(sorted(files), len(files))
    shop.upload("orders/first.csv", ORDERS, order("first"))
    shop.aws.sweep()

    def upload(name: str) -> None:
        shop.upload(name, files[name])
        if rng.random() < 0.2:  # events come twice, late, and for files long gone
            send_event(shop.aws, rng.choice(names))

    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upload, names))
    windows = int((time.monotonic() - began) / window)  # a slow machine uploads for longer
    executions = shop.aws.wait_until_idle(1800)
    assert [
        shop.aws.describe(execution["executionArn"])["cause"]
        for execution in executions
        if execution["status"] != "SUCCEEDED"
    ] == []
    assert len(shop.glue_runs) <= max(5, windows + 3), (
        f"{len(shop.glue_runs)} Glue runs in {len(executions)} executions"
    )
    assert shop.archived() == sorted(["orders/first.csv", *names]) and shop.raw() == []
    assert sorted(shop.column("SELECT order_id FROM clean_orders")) == sorted(
        ["first", *(f"o{n}" for n in range(orders))]
    )
    assert sorted(shop.column("SELECT id FROM clean_orders_items")) == sorted(
        f"i{n}" for n in range(items)
    )
    assert shop.column("SELECT count(*) FROM rejected_records WHERE status = 'parked'") == ["0"]


def send_event(aws: LocalAws, path: str) -> None:
    event = {"detail": {"object": {"key": path}}}
    aws.client("sqs").send_message(QueueUrl=aws.name("UploadQueue"), MessageBody=json.dumps(event))
