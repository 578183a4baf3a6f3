"""The lease beside the tables, on S3 and in a folder: a second run ends before it works."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

import glue_etl as etl
from local.aws.moto_server import MotoServer


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with MotoServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        client = boto3.client("s3")
        client.create_bucket(Bucket="lake")
        yield client


def test_a_lease_keeps_others_off_until_it_is_given_back_or_runs_out(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etl, "RENEWAL_SECONDS", 0.2)
    first, second = (etl.storage("s3://lake/dwh/") for _ in range(2))
    with (
        first.lease("first"),
        pytest.raises(etl.LeaseError, match="the run first has been working on this lake since 2"),
        second.lease("second"),
    ):
        raise AssertionError("both have the lease")
    killed = etl.S3Lease(first.client, "lake", "dwh/lease.json", etl.lease_of("killed"))
    killed.take()
    monkeypatch.setattr(etl, "LEASE_SECONDS", 2)
    with second.lease("second"):
        assert json.loads(first.read("lease.json"))["run_id"] == "second"
        assert not killed._write({"IfMatch": killed.etag})
        killed.release()
        assert json.loads(first.read("lease.json"))["run_id"] == "second"
    with pytest.raises(FileNotFoundError):
        first.read("lease.json")


def test_a_lease_that_was_written_and_whose_answer_was_lost_is_its_writers(
    client: Any,
) -> None:
    lease = etl.S3Lease(client, "lake", "lease.json", etl.lease_of("run"))
    put = client.put_object

    def put_twice(**request: Any) -> Any:
        put(**request)
        return put(**request)

    client.put_object = put_twice
    lease.take()
    assert lease._write({"IfMatch": lease.etag})
    lease.release()
    assert "Contents" not in client.list_objects_v2(Bucket="lake")


def test_a_lease_of_a_folder_ends_with_its_holder(tmp_path: Path) -> None:
    first, second = (etl.storage(f"{tmp_path}/") for _ in range(2))
    with (
        first.lease("first"),
        pytest.raises(etl.LeaseError, match="the run first has been working"),
        second.lease("second"),
    ):
        raise AssertionError("both have the lease")
    with second.lease("second"):
        pass


def test_a_run_removes_no_scratch_files_of_another_run_that_may_be_alive(client: Any) -> None:
    scratch = etl.storage("s3://lake/glue-temp/")
    for name in ("run=a/orders/part.orc", "run=a-2/orders/part.orc", "run=b/part.orc"):
        scratch.write(name, b"rows")
    scratch.remove_scratch("a")
    left = client.list_objects_v2(Bucket="lake", Prefix="glue-temp/")["Contents"]
    assert [stored["Key"] for stored in left] == [
        "glue-temp/run=a-2/orders/part.orc",
        "glue-temp/run=b/part.orc",
    ]
