"""ETags of the local S3: random under SSE-KMS, MD5 otherwise, and the same in every answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.aws.server import LocalAws

BODY = b"product_id\n1\n"
MD5 = f'"{hashlib.md5(BODY).hexdigest()}"'
PART = 5 * 1024**2  # the smallest part that S3 accepts before the last
LARGE = b"x" * PART + b"tail"
PLAIN = "plain-bucket"
RANDOM = re.compile(r'"[0-9a-f]{32}"')
RANDOM_IN_PARTS = re.compile(r'"[0-9a-f]{32}-2"')


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAws]:
    with LocalAws(batching_window=10_000) as deployed:
        deployed.client("s3").create_bucket(Bucket=PLAIN)
        yield deployed


@pytest.fixture(scope="module")
def s3(aws: LocalAws) -> Any:
    return aws.client("s3")


@pytest.fixture(scope="module")
def lake(aws: LocalAws) -> str:
    return aws.name("LakeBucket")


def put(s3: Any, bucket: str, key: str, **options: Any) -> str:
    return s3.put_object(Bucket=bucket, Key=key, Body=BODY, **options)["ETag"]


def copy(s3: Any, bucket: str, key: str) -> str:
    """Copy a new object of another bucket."""
    put(s3, PLAIN, "source")
    source = {"Bucket": PLAIN, "Key": "source"}
    answer = s3.copy_object(Bucket=bucket, Key=key, CopySource=source)
    return answer["CopyObjectResult"]["ETag"]


def copy_in_place(s3: Any, bucket: str, key: str) -> str:
    put(s3, bucket, key)
    source = {"Bucket": bucket, "Key": key}
    answer = s3.copy_object(
        Bucket=bucket, Key=key, CopySource=source, MetadataDirective="REPLACE", Metadata={"a": "b"}
    )
    return answer["CopyObjectResult"]["ETag"]


def put_in_parts(s3: Any, bucket: str, key: str) -> str:
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    target = {"Bucket": bucket, "Key": key, "UploadId": upload}
    bodies = LARGE[:PART], LARGE[PART:]
    etags = [
        s3.upload_part(**target, PartNumber=number, Body=body)["ETag"]
        for number, body in enumerate(bodies, 1)
    ]
    return complete(s3, target, etags)


def copy_in_parts(s3: Any, bucket: str, key: str) -> str:
    s3.put_object(Bucket=PLAIN, Key="large", Body=LARGE)
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    target = {"Bucket": bucket, "Key": key, "UploadId": upload}
    ranges = f"bytes=0-{PART - 1}", f"bytes={PART}-{len(LARGE) - 1}"
    etags = [
        s3.upload_part_copy(
            **target,
            PartNumber=number,
            CopySource={"Bucket": PLAIN, "Key": "large"},
            CopySourceRange=span,
        )["CopyPartResult"]["ETag"]
        for number, span in enumerate(ranges, 1)
    ]
    return complete(s3, target, etags)


def complete(s3: Any, target: dict[str, str], etags: list[str]) -> str:
    """Complete an upload; its parts must have the ETags with which they were answered."""
    listed = [part["ETag"] for part in s3.list_parts(**target)["Parts"]]
    assert listed == etags
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    return s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})["ETag"]


def status_of(request: Callable[..., Any], **options: Any) -> int:
    """Return the HTTP status of a request that may fail."""
    try:
        return request(**options)["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]


Write = Callable[[Any, str, str], str]
WRITES: list[tuple[Write, re.Pattern[str]]] = [
    (put, RANDOM),
    (copy, RANDOM),
    (copy_in_place, RANDOM),
    (put_in_parts, RANDOM_IN_PARTS),
    (copy_in_parts, RANDOM_IN_PARTS),
]


@pytest.mark.parametrize(("write", "shape"), WRITES)
def test_the_same_bytes_get_another_etag_at_each_write_under_kms(
    s3: Any, lake: str, write: Write, shape: re.Pattern[str]
) -> None:
    etags = [write(s3, lake, key) for key in ("same", "same", "other")]
    assert len(set(etags)) == 3
    assert all(shape.fullmatch(etag) for etag in etags), etags
    assert MD5 not in etags


@pytest.mark.parametrize(("write", "shape"), WRITES)
def test_every_answer_has_the_etag_of_the_write(
    s3: Any, lake: str, write: Write, shape: re.Pattern[str]
) -> None:
    key = f"answers/{write.__name__}"
    etag, named = write(s3, lake, key), {"Bucket": lake, "Key": key}
    versions = s3.list_object_versions(Bucket=lake, Prefix=key)["Versions"]
    (latest,) = [version for version in versions if version["IsLatest"]]
    attributes = s3.get_object_attributes(**named, ObjectAttributes=["ETag"])
    assert [
        s3.head_object(**named)["ETag"],
        s3.get_object(**named)["ETag"],
        s3.list_objects_v2(Bucket=lake, Prefix=key)["Contents"][0]["ETag"],
        s3.list_objects(Bucket=lake, Prefix=key)["Contents"][0]["ETag"],
        latest["ETag"],
        f'"{attributes["ETag"]}"',
    ] == [etag] * 6


def test_each_version_of_an_object_retains_its_etag(s3: Any, lake: str) -> None:
    written = [put(s3, lake, "versions") for _ in range(3)]
    versions = s3.list_object_versions(Bucket=lake, Prefix="versions")["Versions"]
    assert {version["ETag"] for version in versions} == set(written)
    for version in versions:
        head = s3.head_object(Bucket=lake, Key="versions", VersionId=version["VersionId"])
        assert head["ETag"] == version["ETag"]


@pytest.mark.parametrize(("write", "shape"), WRITES)
def test_conditions_accept_the_right_etag_alone(
    s3: Any, lake: str, write: Write, shape: re.Pattern[str]
) -> None:
    outdated, key = write(s3, lake, "conditions"), "conditions"
    etag, named = write(s3, lake, key), {"Bucket": lake, "Key": key}
    for wrong in (outdated, MD5):
        assert status_of(s3.get_object, **named, IfMatch=wrong) == 412
        assert status_of(s3.head_object, **named, IfMatch=wrong) == 412
        assert status_of(s3.put_object, **named, IfMatch=wrong, Body=BODY) == 412
        assert status_of(s3.delete_object, **named, IfMatch=wrong) == 412
    assert status_of(s3.get_object, **named, IfMatch=etag) == 200
    assert status_of(s3.head_object, **named, IfMatch=etag) == 200
    assert status_of(s3.get_object, **named, IfNoneMatch=etag) == 304
    assert status_of(s3.get_object, **named, IfNoneMatch=outdated) == 200
    assert status_of(s3.delete_object, **named, IfMatch=etag) == 204
    assert status_of(s3.head_object, **named) == 404


def test_the_upload_event_has_the_etag_of_the_object(aws: LocalAws, s3: Any) -> None:
    sqs, raw = aws.client("sqs"), aws.name("RawBucket")
    url = sqs.create_queue(QueueName="events")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    events = aws.client("events")
    events.put_rule(Name="events", EventPattern='{"source": ["aws.s3"]}')
    events.put_targets(Rule="events", Targets=[{"Id": "events", "Arn": arn}])
    etag = put(s3, raw, "elsewhere/products.csv")
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    uploaded = json.loads(message["Body"])["detail"]["object"]
    assert uploaded["eTag"] == etag.strip('"')  # moto's spelling; EventBridge says etag


def test_buckets_of_the_template_say_that_they_encrypt_with_its_key(
    aws: LocalAws, s3: Any, lake: str
) -> None:
    put(s3, lake, "encrypted")
    head = s3.head_object(Bucket=lake, Key="encrypted")
    assert head["ServerSideEncryption"] == "aws:kms" and head["BucketKeyEnabled"]
    assert head["SSEKMSKeyId"] == aws.template.physical["DataKey"]["Arn"]


def test_objects_without_kms_retain_the_digest(s3: Any, lake: str) -> None:
    assert put(s3, PLAIN, "a") == put(s3, PLAIN, "b") == copy(s3, PLAIN, "c") == MD5
    assert copy_in_place(s3, PLAIN, "a") == MD5
    assert put_in_parts(s3, PLAIN, "d") == copy_in_parts(s3, PLAIN, "e")
    assert put(s3, lake, "a", ServerSideEncryption="AES256") == MD5


def test_the_encryption_of_the_request_comes_before_that_of_the_bucket(s3: Any) -> None:
    etags = {put(s3, PLAIN, "a", ServerSideEncryption="aws:kms") for _ in range(2)}
    assert len(etags) == 2 and MD5 not in etags
