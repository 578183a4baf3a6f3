"""Listed files before Spark: what each is, and what if it has gone. And what a failed run says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import boto3
from moto import mock_aws

from tools.files import load_job

PRODUCTS = b"product_id,department_id,department,product_name\n1,2,Food,Tea\n"


def test_a_file_that_the_archive_took_after_the_listing_is_left_out_on_disk(tmp_path: Path) -> None:
    job = load_job()
    for name in ("products.csv", "products_2.csv"):
        (tmp_path / name).write_bytes(PRODUCTS)
    store = job.storage(f"{tmp_path}/")
    listed = sorted(store.list(), key=lambda stored: stored.path)
    (tmp_path / "products.csv").unlink()
    assert job.inspect_if_there(store, listed[0]) is None
    assert job.inspect_if_there(store, listed[1]).outcome == "loaded"


@mock_aws
def test_a_file_that_the_archive_took_after_the_listing_is_left_out_on_s3() -> None:
    job, s3 = load_job(), boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket="raw")
    for name in ("products.csv", "products_2.csv"):
        s3.put_object(Bucket="raw", Key=f"land/{name}", Body=PRODUCTS)
    store = job.storage("s3://raw/land/")
    listed = sorted(store.list(), key=lambda stored: stored.path)
    s3.delete_object(Bucket="raw", Key="land/products.csv")
    assert job.inspect_if_there(store, listed[0]) is None
    assert job.inspect_if_there(store, listed[1]).outcome == "loaded"


class JavaError:
    """An error as py4j shows it."""

    def __init__(self, name: str, message: str | None, cause: JavaError | None = None) -> None:
        self.name, self.message, self.cause = name, message, cause

    def getClass(self) -> SimpleNamespace:
        return SimpleNamespace(getName=lambda: self.name)

    def getMessage(self) -> str | None:
        return self.message

    def getCause(self) -> JavaError | None:
        return self.cause


def test_the_summary_names_the_first_cause_of_an_error_in_java() -> None:
    job = load_job()
    error = Exception(
        "An error occurred while calling o1.save.\n: org.apache.spark.SparkException: ..."
    )
    error.java_exception = JavaError(
        "SparkException",
        "Task failed",
        JavaError("AccessDenied", "s3://lake/x: Forbidden\n\tat ..."),
    )
    assert job.cause_of(error) == "AccessDenied: s3://lake/x: Forbidden"
    error.java_exception = JavaError("java.lang.NullPointerException", None)
    assert job.cause_of(error) == "java.lang.NullPointerException: no message"
    assert job.cause_of(job.JobError("run again\nsoon")) == "JobError: run again"
    assert job.cause_of(ValueError()) == "ValueError: no message"
