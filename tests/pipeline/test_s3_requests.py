"""The recorder of S3 requests, by which other tests count what a run reads of Delta's logs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError
from deltalake import DeltaTable, write_deltalake

from local.aws.moto_server import MotoServer
from local.aws.readers import s3_options
from local.aws.server import LocalAws
from tests.pipeline.s3_requests import record_s3

LAKE = "s3://lake/lakehouse-dwh"


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    with MotoServer() as running:
        client(running).create_bucket(Bucket="lake")
        for table, commits in {"clean_orders": 3, "ingested_files": 1}.items():
            for commit in range(commits):
                rows = pa.table({"order_id": [str(commit)]})
                options = s3_options(running.endpoint)
                write_deltalake(f"{LAKE}/{table}", rows, mode="append", storage_options=options)
        yield running


def client(server: MotoServer, service: str = "s3") -> Any:
    return boto3.client(service, endpoint_url=server.endpoint)


def names(version: int) -> str:
    return f"{version:020}.json"


def test_the_log_of_each_table_is_counted_by_itself(server: MotoServer) -> None:
    options = s3_options(server.endpoint)
    with record_s3(server) as requests:
        for table in ("clean_orders", "ingested_files"):
            assert DeltaTable(f"{LAKE}/{table}", storage_options=options).version() >= 0
    counts = requests.log_counts()
    assert list(counts) == ["clean_orders", "ingested_files"]
    assert set(requests.fetched("clean_orders", ".json")) == {names(0), names(1), names(2)}
    assert set(requests.fetched("ingested_files", ".json")) == {names(0)}
    assert counts["clean_orders"].listed >= 3 and counts["clean_orders"].listings >= 1
    assert counts["clean_orders"].written == counts["ingested_files"].written == 0


def test_each_kind_of_request_is_counted(server: MotoServer) -> None:
    s3, log = client(server), "lakehouse-dwh/clean_orders/_delta_log/"
    with record_s3(server) as requests:
        s3.list_objects_v2(Bucket="lake", Prefix=log, StartAfter=log + names(0))
        s3.list_objects_v2(Bucket="lake", Prefix=log, MaxKeys=1)
        s3.get_object(Bucket="lake", Key=log + names(1))
        s3.get_object(Bucket="lake", Key=log + names(1), Range="bytes=0-9")
        s3.head_object(Bucket="lake", Key=log + names(1))
        for request in (s3.get_object, s3.head_object):
            with pytest.raises(ClientError):
                request(Bucket="lake", Key=log + "_last_checkpoint")
        s3.put_object(Bucket="lake", Key=log + "new", Body=b"x")
        s3.delete_object(Bucket="lake", Key=log + "new")
        s3.get_object(Bucket="lake", Key=data_file(s3))
    counts = requests.log_counts()["clean_orders"]
    assert (counts.listings, counts.listed) == (2, 3)
    assert (counts.fetched, counts.headed, counts.absent) == (3, 2, 2)
    assert counts.written == 2
    assert requests.fetched("clean_orders", ".json") == [names(1)] * 2
    assert sum(request.log_table is None for request in requests) == 2  # a listing and a file


def data_file(s3: Any) -> str:
    """Return the key of one of the table's Parquet files."""
    page = s3.list_objects_v2(Bucket="lake", Prefix="lakehouse-dwh/clean_orders/part-")
    return page["Contents"][0]["Key"]


def test_keys_are_recorded_as_sent(server: MotoServer) -> None:
    key = "runs//a b/é?&=#.json"
    with record_s3(server) as requests:
        client(server).put_object(Bucket="lake", Key=key, Body=b"x")
    (request,) = requests
    assert (request.method, request.bucket, request.key) == ("PUT", "lake", key)
    assert str(request) == f"PUT /lake/{key} 200"


def test_a_copy_has_its_source_and_a_bulk_deletion_its_keys(server: MotoServer) -> None:
    s3 = client(server)
    s3.put_object(Bucket="lake", Key="a b&c", Body=b"x")
    with record_s3(server) as requests:
        s3.copy_object(Bucket="lake", Key="copy", CopySource={"Bucket": "lake", "Key": "a b&c"})
        objects = [{"Key": "a b&c"}, {"Key": "copy"}]
        s3.delete_objects(Bucket="lake", Delete={"Objects": objects})
    copied, removed = requests
    assert copied.source == "lake/a b&c" and copied.deleted == ()
    assert removed.deleted == ("a b&c", "copy") and removed.status == 200
    assert s3.list_objects_v2(Bucket="lake", Prefix="a b").get("Contents", []) == []


def test_only_requests_on_s3_within_the_block_are_recorded(server: MotoServer) -> None:
    s3, sqs = client(server), client(server, "sqs")
    with record_s3(server) as requests:
        sqs.create_queue(QueueName="uploads")
        client(server, "glue").get_databases()
        s3.list_buckets()
    s3.list_buckets()
    assert [(request.method, request.path) for request in requests] == [("GET", "")]


def test_the_whole_local_aws_can_be_recorded() -> None:
    with LocalAws(batching_window=10_000) as aws:
        with record_s3(aws) as requests:
            aws.client("s3").list_objects_v2(Bucket=aws.name("LakeBucket"), Prefix="runs/")
    assert [str(request) for request in requests] == [
        f"GET /{aws.name('LakeBucket')}/?encoding-type=url&list-type=2&prefix=runs/ 200"
    ]
