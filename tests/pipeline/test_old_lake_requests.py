"""A small delivery reads as little of Delta's logs on S3, however many commits the lake has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

import glue_etl as etl
from local.aws.job import job_arguments
from local.aws.moto_server import MotoServer
from local.aws.pipeline import SparkJob
from tests import old_lake
from tests.pipeline.s3_requests import S3Requests, record_s3

pytestmark = pytest.mark.slow

PRODUCTS = "product_id,department_id,department,product_name\n"
ORDERS = "order_num,order_id,user_id,order_timestamp,total_amount,date\n"
ITEMS = (
    "id,order_id,user_id,days_since_prior_order,product_id,add_to_cart_order,reordered,"
    "order_timestamp,date\n"
)
COMMITS = (60, 180)
OBJECTS = 20  # of a table's log that a small delivery lists or gets
REQUESTS = 20  # that list them, and that get them or parts of them; Spark asks more than once


def delivery(number: int) -> dict[str, str]:
    """Each dataset; a row is rejected, and an item waits for its order."""
    moment = f"2025-04-0{number}T10:00:00"
    row = f"{number},u1,3,p{number},1,0,{moment},\n"
    return {
        f"products-{number}.csv": f"{PRODUCTS}p{number},1,Books,Pen\n",
        f"orders/{number}.csv": f"{ORDERS}1,o{number},u1,{moment},5,\n1,bad,u1,{moment},bad,\n",
        f"order_items/{number}.csv": f"{ITEMS}i{number},o{row}j{number},q{row}",
    }


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    with MotoServer() as running:
        client(running).create_bucket(Bucket="lake")
        yield running


def client(server: MotoServer) -> Any:
    return boto3.client("s3", endpoint_url=server.endpoint)


@pytest.fixture(scope="module")
def job(server: MotoServer) -> Iterator[SparkJob]:
    running = SparkJob(server.endpoint)
    yield running
    running.close()


def run(job: SparkJob, raw: str, lake: str, run_id: str) -> None:
    words = job_arguments(Path("raw"), Path("lake"), run_id)
    arguments = dict(zip(words[::2], words[1::2], strict=True))
    folders = {"LAKEHOUSE": "lakehouse-dwh", "REJECTED": "rejected", "RUNS": "runs"}
    paths = {f"--{name}_PATH": f"{lake}/{folder}" for name, folder in folders.items()}
    job({**arguments, "--RAW_PATH": raw, **paths})


@pytest.fixture(scope="module")
def first(job: SparkJob, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake in a folder, as the first delivery leaves it."""
    folder = tmp_path_factory.mktemp("first")
    for path, text in delivery(1).items():
        (folder / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "raw" / path).write_text(text)
    run(job, str(folder / "raw"), str(folder / "lake"), "first")
    return folder / "lake"


@pytest.fixture(scope="module")
def deliveries(
    server: MotoServer, job: SparkJob, first: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, S3Requests]:
    """The requests of a small delivery, by the commits that each table has already."""
    for path, text in delivery(2).items():
        client(server).put_object(Bucket="lake", Key=f"raw/{path}", Body=text.encode())
    by_commits = {}
    for commits in COMMITS:
        folder = tmp_path_factory.mktemp("aged")
        shutil.copytree(first, folder, dirs_exist_ok=True)
        age(folder, commits)
        upload(server, folder, str(commits))
        with record_s3(server) as requests:
            run(job, "s3://lake/raw", f"s3://lake/{commits}", "second")
        by_commits[commits] = requests
    return by_commits


def age(lake: Path, commits: int) -> None:
    """Age a lake, with as few rows as give each table its commits."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"DAYS": 200, "ORDERS_PER_DAY": 2, "CORRECTIONS": 200}.items():
            patch.setattr(old_lake, name, value)
        old_lake.age(
            lake / "lakehouse-dwh", lake / "rejected", commits=commits, files=600, rejects=200
        )


def upload(server: MotoServer, folder: Path, prefix: str) -> None:
    s3 = client(server)
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            key = f"{prefix}/{path.relative_to(folder).as_posix()}"
            s3.put_object(Bucket="lake", Key=key, Body=path.read_bytes())


def listed(requests: S3Requests, table: str) -> int:
    """The most objects that a listing of a table's log has answered."""
    return max(request.objects for request in requests.on_log(table))


def got(requests: S3Requests, table: str) -> set[str]:
    """The objects of a table's log that were read, whole or in part."""
    return set(requests.fetched(table))


@pytest.mark.parametrize("table", etl.schemas())
def test_a_small_delivery_reads_few_objects_of_a_log(
    deliveries: dict[int, S3Requests], table: str
) -> None:
    for commits, requests in deliveries.items():
        assert f"{commits:020}.checkpoint.parquet" in got(requests, table)
        assert listed(requests, table) + len(got(requests, table)) <= OBJECTS


@pytest.mark.parametrize("table", etl.schemas())
def test_a_small_delivery_asks_for_a_log_as_often_however_many_commits_it_has(
    deliveries: dict[int, S3Requests], table: str
) -> None:
    few, many = (deliveries[commits].log_counts()[table] for commits in COMMITS)
    assert many.listings <= REQUESTS and many.fetched <= REQUESTS
    for kind in ("listings", "listed", "fetched", "headed", "written"):
        assert abs(getattr(many, kind) - getattr(few, kind)) <= 2, kind
