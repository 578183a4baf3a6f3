"""The archiver on S3 as moto plays it: what was read moves, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, IncompleteReadError
from botocore.response import StreamingBody
from moto import mock_aws
from moto.s3.models import s3_backends

import moves3objects.handler as archiver

RAW, LAKE, ARCHIVE = "raw-zone", "lake", "archive"
PREFIX = "land-folder/Data/"


class Zone:
    """Three buckets and a manifest under construction."""

    def __init__(self, s3: Any) -> None:
        self.s3 = s3
        self.lines: list[dict[str, Any]] = []

    def put(
        self,
        path: str,
        body: bytes = b"id\n1\n",
        destination: str = "archive",
        upload: dict[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Uploads a file and lists it, as the job does; `upload` are more parameters of the upload,
        `changes` of the manifest's line."""
        self.s3.put_object(Bucket=RAW, Key=PREFIX + path, Body=body, **(upload or {}))
        head = self.s3.head_object(Bucket=RAW, Key=PREFIX + path)
        line = {
            "bucket": RAW,
            "key": PREFIX + path,
            "path": path,
            "etag": head["ETag"].strip('"'),
            "size": len(body),
            "last_modified": head["LastModified"].strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "dataset": "orders",
            "outcome": "loaded",
            "reason": None,
            "destination": destination,
            **changes,
        }
        self.lines.append(line)
        return line

    def commit(self, run_id: str = "run-1") -> None:
        body = "".join(json.dumps(line) + "\n" for line in self.lines)
        self.s3.put_object(Bucket=LAKE, Key=f"runs/{run_id}/manifest.jsonl", Body=body.encode())

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zone]:
    settings = {
        "RAW_BUCKET": RAW,
        "RAW_PREFIX": PREFIX,
        "ARCHIVE_BUCKET": ARCHIVE,
        "LAKE_BUCKET": LAKE,
        "RESERVE_SECONDS": "0",
        "ARCHIVE_WORKERS": "8",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        s3 = boto3.client("s3")
        for bucket in (RAW, LAKE, ARCHIVE):
            s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket=ARCHIVE, VersioningConfiguration={"Status": "Enabled"})
        yield Zone(s3)


def context(seconds: float = 900) -> SimpleNamespace:
    return SimpleNamespace(get_remaining_time_in_millis=lambda: seconds * 1000)


def archive(
    cursor: dict[str, Any] | None = None, run_id: str = "run-1", seconds: float = 900
) -> dict[str, Any]:
    return archiver.handler({"run_id": run_id, "archive": cursor or {}}, context(seconds))


def counted(answer: dict[str, Any]) -> dict[str, int]:
    return {kind: answer[kind] for kind in archiver.COUNTED if answer[kind]}


def before_each_delete(
    monkeypatch: pytest.MonkeyPatch, action: Callable[[dict[str, Any]], None]
) -> None:
    """Lets `action` happen between the copy of an object and its deletion."""
    before_each(monkeypatch, "DeleteObject", action)


def before_each(
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    action: Callable[[dict[str, Any]], None],
) -> None:
    """Lets `action` happen just before the archiver sends a request."""
    create = archiver.s3_client

    def hook(params: dict[str, Any], **_: Any) -> None:
        action(params)

    def hooked(workers: int) -> Any:
        client = create(workers)
        client.meta.events.register(f"before-parameter-build.s3.{operation}", hook)
        return client

    monkeypatch.setattr(archiver, "s3_client", hooked)


def test_every_file_of_the_manifest_moves_to_the_archive_under_its_run(zone: Zone) -> None:
    zone.put("orders/2025-04-01.csv", b"order_id\n1\n")
    zone.put("products.csv")
    zone.commit()
    answer = archive()
    assert answer["isComplete"] and counted(answer) == {"archived": 2}
    assert zone.keys(RAW) == []
    assert zone.keys(ARCHIVE) == [
        "archived/run=run-1/orders/2025-04-01.csv",
        "archived/run=run-1/products.csv",
    ]
    copy = zone.s3.get_object(Bucket=ARCHIVE, Key="archived/run=run-1/orders/2025-04-01.csv")
    assert copy["Body"].read() == b"order_id\n1\n"


def test_a_quarantined_file_goes_whole_to_the_rejected_files(zone: Zone) -> None:
    zone.put("holiday.jpg", b"\xff\xd8", destination="rejected")
    zone.commit()
    assert counted(archive()) == {"rejected": 1}
    assert zone.keys(LAKE, "rejected/") == ["rejected/files/run=run-1/holiday.jpg"]
    assert zone.keys(RAW) == [] and zone.keys(ARCHIVE) == []


def test_a_file_that_was_never_read_stays(zone: Zone) -> None:
    zone.put("orders.csv")
    zone.commit()
    zone.s3.put_object(Bucket=RAW, Key=PREFIX + "orders_new.csv", Body=b"x")
    zone.s3.put_object(Bucket=RAW, Key="land-folder/Database/orders.csv", Body=b"x")
    archive()
    assert zone.keys(RAW) == [PREFIX + "orders_new.csv", "land-folder/Database/orders.csv"]


def test_a_file_that_the_job_found_changed_is_left_for_the_next_run(zone: Zone) -> None:
    zone.put("orders.csv", destination="raw", outcome="changed")
    zone.commit()
    assert counted(archive()) == {"left": 1}
    assert zone.keys(RAW) == [PREFIX + "orders.csv"]


@pytest.mark.parametrize("body", [b"id\n2\n", b"id\n1\n2\n"], ids=["same size", "other size"])
def test_a_file_overwritten_since_the_listing_is_left_and_reported(zone: Zone, body: bytes) -> None:
    zone.put("orders.csv")
    zone.commit()
    zone.s3.put_object(Bucket=RAW, Key=PREFIX + "orders.csv", Body=body)
    answer = archive()
    assert answer["isComplete"] and counted(answer) == {"changed": 1}
    assert "orders.csv: was overwritten" in answer["samples"][0]
    assert zone.keys(RAW) == [PREFIX + "orders.csv"] and zone.keys(ARCHIVE) == []


def test_the_same_bytes_delivered_again_since_the_listing_are_a_new_delivery(zone: Zone) -> None:
    zone.put("orders.csv", last_modified="2025-04-16T10:00:00.000Z")
    zone.commit()
    assert counted(archive()) == {"changed": 1}
    assert zone.keys(RAW) == [PREFIX + "orders.csv"]


def test_a_file_overwritten_between_copy_and_delete_keeps_its_new_version(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone.put("orders.csv", b"old")
    zone.commit()
    before_each_delete(
        monkeypatch, lambda params: zone.s3.put_object(Bucket=RAW, Key=params["Key"], Body=b"new")
    )
    assert counted(archive()) == {"changed": 1}
    assert zone.s3.get_object(Bucket=RAW, Key=PREFIX + "orders.csv")["Body"].read() == b"new"
    copy = zone.s3.get_object(Bucket=ARCHIVE, Key="archived/run=run-1/orders.csv")
    assert copy["Body"].read() == b"old"


def test_a_file_that_another_run_takes_just_before_the_copy_is_no_failure(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone.put("orders.csv")
    zone.commit()
    before_each(
        monkeypatch,
        "CopyObject",
        lambda params: zone.s3.delete_object(Bucket=RAW, Key=PREFIX + "orders.csv"),
    )
    assert counted(archive()) == {"gone": 1}
    assert zone.keys(ARCHIVE) == []


def test_a_file_overwritten_just_before_the_copy_is_left_and_reported(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone.put("orders.csv")
    zone.commit()

    def refuse(
        params: dict[str, Any],
    ) -> None:  # as S3 does for CopySourceIfMatch, which moto does not look at
        response = {
            "Error": {"Code": "PreconditionFailed"},
            "ResponseMetadata": {"HTTPStatusCode": 412},
        }
        raise ClientError(response, "CopyObject")

    before_each(monkeypatch, "CopyObject", refuse)
    assert counted(archive()) == {"changed": 1}
    assert zone.keys(RAW) == [PREFIX + "orders.csv"]


def test_a_crash_between_copy_and_delete_is_healed_by_the_same_page_again(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        zone.put(f"orders/{number:02}.csv")
    zone.commit()

    def crash(params: dict[str, Any]) -> None:
        if params["Key"] >= PREFIX + "orders/07.csv":
            raise RuntimeError("the process is killed")

    with monkeypatch.context() as patch:
        before_each_delete(patch, crash)
        with pytest.raises(RuntimeError):
            archive()
    assert len(zone.keys(RAW)) == 13
    answer = archive()
    assert answer["isComplete"] and counted(answer) == {"archived": 20}
    assert zone.keys(RAW) == [] and len(zone.keys(ARCHIVE)) == 20


def test_one_refused_deletion_is_in_the_answer_and_does_not_stop_the_others(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        zone.put(f"orders_{name}.csv")
    zone.commit()

    def refuse(params: dict[str, Any]) -> None:
        if params["Key"].endswith("_b.csv"):
            raise EndpointConnectionError(endpoint_url="https://s3")

    before_each_delete(monkeypatch, refuse)
    answer = archive()
    assert answer["isComplete"] and counted(answer) == {"archived": 2, "failed": 1}
    assert "orders_b.csv: Could not connect" in answer["samples"][0]
    assert zone.keys(RAW) == [PREFIX + "orders_b.csv"]


@pytest.mark.parametrize("answer", ["lost and asked again", "lost and not asked again"])
def test_a_deletion_whose_answer_was_lost_keeps_its_copy(
    zone: Zone, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """The client asks again and hears 404: it may be the answer to its own first deletion."""
    zone.put("orders.csv")
    zone.commit()

    def lose_the_answer(params: dict[str, Any]) -> None:
        zone.s3.delete_object(Bucket=RAW, Key=params["Key"])
        if answer == "lost and not asked again":
            raise EndpointConnectionError(endpoint_url="https://s3")

    before_each_delete(monkeypatch, lose_the_answer)
    first = counted(archive())
    assert first == ({"failed": 1} if "not" in answer else {"archived": 1})
    assert counted(archive()) == {"archived": 1}
    assert zone.keys(ARCHIVE) == ["archived/run=run-1/orders.csv"]


def test_two_runs_that_archive_the_same_file_keep_a_copy_each(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone.put("orders.csv")
    zone.commit("run-1")
    zone.commit("run-2")
    other_run = []

    def the_other_is_quicker(params: dict[str, Any]) -> None:
        if not other_run and params["Bucket"] == RAW:
            other_run.append(None)
            other_run.append(archive(run_id="run-2"))

    before_each_delete(monkeypatch, the_other_is_quicker)
    assert counted(archive(run_id="run-1")) == counted(other_run[1]) == {"archived": 1}
    assert zone.keys(RAW) == []
    copies = [f"archived/run=run-{number}/orders.csv" for number in (1, 2)]
    assert zone.keys(ARCHIVE) == copies


def test_the_same_page_twice_does_no_harm(zone: Zone) -> None:
    zone.put("orders.csv")
    zone.put("notes.txt", destination="rejected")
    zone.commit()
    first = archive()
    assert archive() == first
    versions = zone.s3.list_object_versions(Bucket=ARCHIVE)["Versions"]
    assert len(versions) == 1


def test_a_file_that_somebody_removed_is_reported_and_is_no_failure(zone: Zone) -> None:
    zone.put("orders.csv")
    zone.commit()
    zone.s3.delete_object(Bucket=RAW, Key=PREFIX + "orders.csv")
    answer = archive()
    assert counted(answer) == {"gone": 1} and "no longer in the raw zone" in answer["samples"][0]


def test_a_missing_archive_is_a_failure_and_not_a_file_that_has_gone(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIVE_BUCKET", "no-such-bucket")
    zone.put("orders.csv")
    zone.commit()
    answer = archive()
    assert counted(answer) == {"failed": 1} and "NoSuchBucket" in answer["samples"][0]
    assert zone.keys(RAW) == [PREFIX + "orders.csv"]


@pytest.mark.parametrize(
    "where", [{"bucket": "another"}, {"bucket": None}, {"key": "land-folder/Database/x.csv"}]
)
def test_nothing_outside_the_raw_zone_is_touched(zone: Zone, where: dict[str, Any]) -> None:
    zone.put("orders.csv", **where)
    zone.commit()
    answer = archive()
    assert counted(answer) == {"failed": 1} and "not in the raw zone" in answer["samples"][0]
    assert zone.keys(RAW) == [PREFIX + "orders.csv"]


def test_a_run_without_files_is_complete_at_once(zone: Zone) -> None:
    zone.commit()
    assert archive()["isComplete"]


def test_a_missing_manifest_is_an_error_and_moves_nothing(zone: Zone) -> None:
    zone.put("orders.csv")
    with pytest.raises(Exception, match="NoSuchKey"):
        archive()
    assert zone.keys(RAW) == [PREFIX + "orders.csv"]


def test_a_manifest_whose_transfer_breaks_off_is_read_again(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone.put("orders/1.csv")
    zone.commit()
    read, broken = StreamingBody.read, []

    def read_half(body: StreamingBody, *size: Any, **named: Any) -> bytes:
        if len(broken) < 2:
            broken.append(body)
            raise IncompleteReadError(actual_bytes=1, expected_bytes=2)
        return read(body, *size, **named)

    monkeypatch.setattr(StreamingBody, "read", read_half)
    assert counted(archive()) == {"archived": 1} and len(broken) == 2


def test_a_run_id_that_is_no_execution_name_is_refused(zone: Zone) -> None:
    with pytest.raises(ValueError, match="run_id"):
        archive(run_id="../other")


def test_a_continuation_takes_up_where_the_time_ran_out(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANIFEST_PAGE_BYTES", "1000")
    monkeypatch.setenv("ARCHIVE_WORKERS", "1")
    for number in range(30):
        zone.put(f"orders/{number:02}.csv")
    zone.commit()
    ticks = iter(range(10_000))
    monkeypatch.setattr(archiver.time, "monotonic", lambda: 0)
    monkeypatch.setattr(archiver.Archiver.__init__, "__defaults__", (lambda: next(ticks),))
    answers = [archive(seconds=10)]
    while not answers[-1]["isComplete"]:
        ticks = iter(range(10_000))
        assert len(json.dumps(answers[-1])) < 10_000
        answers.append(archive(json.loads(json.dumps(answers[-1])), seconds=10))
    assert len(answers) > 3 and [answer["page"] for answer in answers] == list(
        range(1, len(answers) + 1)
    )
    assert counted(answers[-1]) == {"archived": 30}
    assert zone.keys(RAW) == [] and len(zone.keys(ARCHIVE)) == 30


def test_a_file_too_large_for_one_invocation_fails_instead_of_looping_for_ever(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone.put("orders.csv")
    zone.put("products.csv")
    zone.commit()
    answer = archive(seconds=0)
    assert counted(answer) == {"failed": 1} and not answer["isComplete"]
    assert counted(archive(answer)) == {"archived": 1, "failed": 1}


def test_a_large_file_is_copied_in_parts_with_its_metadata(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = 5 * 1024**2
    monkeypatch.setenv("MULTIPART_THRESHOLD", str(part))
    monkeypatch.setenv("MULTIPART_PART_SIZE", str(part))
    body = bytes(range(256)) * (2 * part // 256) + b"tail"
    zone.put("orders.csv", body, upload={"ContentType": "text/csv", "Metadata": {"shop": "7"}})
    zone.commit()
    assert counted(archive()) == {"archived": 1}
    copy = zone.s3.get_object(Bucket=ARCHIVE, Key="archived/run=run-1/orders.csv")
    assert copy["Body"].read() == body and copy["ETag"].endswith('-3"')
    assert copy["ContentType"] == "text/csv" and copy["Metadata"] == {"shop": "7"}
    assert zone.keys(RAW) == []


def test_a_copy_in_parts_that_fails_leaves_neither_parts_nor_a_hole(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIPART_THRESHOLD", "1")
    monkeypatch.setenv(
        "MULTIPART_PART_SIZE", "2"
    )  # smaller than S3 accepts, so that completing fails
    zone.put("orders.csv", b"12345")
    zone.commit()
    answer = archive()
    assert counted(answer) == {"failed": 1} and "EntityTooSmall" in answer["samples"][0]
    assert zone.keys(RAW) == [PREFIX + "orders.csv"] and zone.keys(ARCHIVE) == []
    assert "Uploads" not in zone.s3.list_multipart_uploads(Bucket=ARCHIVE)


FILES = 1_200  # more than S3 lists in a page


def test_more_files_than_a_page_move_each_once(zone: Zone) -> None:
    backend = s3_backends["123456789012"]["aws"]
    for number in range(FILES):
        path = f"orders/{number:05}.csv"
        key = backend.put_object(RAW, PREFIX + path, f"order_id\n{number}\n".encode())
        zone.lines.append(
            {
                "bucket": RAW,
                "key": PREFIX + path,
                "path": path,
                "etag": key.etag.strip('"'),
                "size": key.size,
                "last_modified": key.last_modified.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "destination": "archive",
            }
        )
    zone.commit()
    answer = archive()
    assert answer["isComplete"] and counted(answer) == {"archived": FILES}
    assert len(json.dumps(answer)) < 1_000
    assert zone.keys(RAW) == []
    versions = [
        version["Key"]
        for page in zone.s3.get_paginator("list_object_versions").paginate(Bucket=ARCHIVE)
        for version in page["Versions"]
    ]
    assert versions == [f"archived/run=run-1/orders/{number:05}.csv" for number in range(FILES)]
