"""What the local AWS holds survives its end: objects, catalog, executions, queries."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from local.aws.server import LocalAws, Runners
from local.aws.stepfunctions import Pace

MACHINE = {
    "StartAt": "Load",
    "States": {
        "Load": {
            "Type": "Task",
            "Resource": "arn:aws:states:::glue:startJobRun.sync",
            "Parameters": {"JobName": "Lakehouse"},
            "End": True,
        }
    },
}
TABLE = {
    "Name": "clean_orders",
    "StorageDescriptor": {
        "Location": "s3://lake/orders",
        "Columns": [{"Name": "a", "Type": "int"}],
    },
    "Parameters": {"table_type": "DELTA"},
}


def start(folder: Path, job: Any = lambda arguments: None) -> LocalAws:
    def machine(definition: dict[str, Any]) -> None:
        definition.clear()
        definition.update(copy.deepcopy(MACHINE))

    answer = (["x"], [["1"]], ["integer"])
    runners = Runners(glue_job=job, query=lambda sql, database: answer)
    options: dict[str, Any] = {"batching_window": 0.1, "change_definition": machine}
    return LocalAws(runners, pace=Pace(0.05, 0.1, 0.05), keep=folder, **options)


def objects(aws: LocalAws, bucket: str) -> dict[str, tuple[Any, ...]]:
    """Key -> what a listing and a read say of it."""
    s3, name = aws.client("s3"), aws.name(bucket)
    listed = s3.list_objects_v2(Bucket=name).get("Contents", [])
    return {
        entry["Key"]: (
            entry["ETag"],
            entry["Size"],
            entry["LastModified"],
            s3.get_object(Bucket=name, Key=entry["Key"])["Body"].read(),
        )
        for entry in listed
    }


def fill(aws: LocalAws) -> None:
    s3, lake = aws.client("s3"), aws.name("LakeBucket")
    for key in ("a//b", "runs/1/summary.json", "runs/2/gone"):
        s3.put_object(Bucket=lake, Key=key, Body=key.encode())
    s3.delete_object(Bucket=lake, Key="runs/2/gone")
    s3.put_object(Bucket=aws.name("ArchiveBucket"), Key="same bytes", Body=b"a//b")
    aws.client("glue").create_table(DatabaseName=aws.name("Database"), TableInput=TABLE)


def test_objects_catalog_executions_and_queries_are_there_again(tmp_path: Path) -> None:
    with start(tmp_path) as aws:
        fill(aws)
        arn = aws.sweep()
        ended, history = aws.wait_for(arn), aws.history(arn)
        asked = aws.client("athena").start_query_execution(
            QueryString="SELECT 1", WorkGroup=aws.name("WorkGroup")
        )["QueryExecutionId"]
        before = {name: objects(aws, name) for name in ("LakeBucket", "ArchiveBucket")}
    with start(tmp_path) as aws:
        assert {name: objects(aws, name) for name in before} == before
        assert list(before["LakeBucket"]) == ["a//b", "runs/1/summary.json"]
        (table,) = aws.client("glue").get_tables(DatabaseName=aws.name("Database"))["TableList"]
        assert {name: table[name] for name in TABLE} == TABLE
        restored = aws.describe(arn)
        for name in ("name", "status", "startDate", "stopDate", "input"):
            assert restored[name] == ended[name], name
        assert aws.history(arn) == history
        query = aws.client("athena").get_query_execution(QueryExecutionId=asked)["QueryExecution"]
        assert query["Query"] == "SELECT 1"
        assert (
            asked
            in aws.client("athena").list_query_executions(WorkGroup=aws.name("WorkGroup"))[
                "QueryExecutionIds"
            ]
        )
        assert aws.wait_for(aws.sweep())["status"] == "SUCCEEDED"  # it still works
        assert len(aws.executions()) == 2


def test_a_restart_retains_the_etags_under_kms_and_conditions_on_them(tmp_path: Path) -> None:
    with start(tmp_path) as aws:
        s3, lake = aws.client("s3"), aws.name("LakeBucket")
        etags = [s3.put_object(Bucket=lake, Key=key, Body=b"x")["ETag"] for key in ("a", "b")]
        assert etags[0] != etags[1]
        upload = s3.create_multipart_upload(Bucket=lake, Key="c")["UploadId"]
        named = {"Bucket": lake, "Key": "c", "UploadId": upload}
        part = s3.upload_part(**named, PartNumber=1, Body=b"x")["ETag"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
        etags.append(s3.complete_multipart_upload(**named, MultipartUpload=parts)["ETag"])
    with start(tmp_path) as aws:
        s3 = aws.client("s3")
        assert [entry[0] for entry in objects(aws, "LakeBucket").values()] == etags
        for key, etag in zip("abc", etags, strict=True):
            assert s3.get_object(Bucket=lake, Key=key, IfMatch=etag)["ETag"] == etag
        assert s3.put_object(Bucket=lake, Key="d", Body=b"x")["ETag"] not in etags


def test_files_that_no_run_has_taken_are_swept_at_the_next_start(tmp_path: Path) -> None:
    with start(tmp_path) as aws:
        aws.client("s3").put_object(
            Bucket=aws.name("RawBucket"), Key="land-folder/elsewhere.csv", Body=b"x"
        )
        assert aws.executions() == []
    with start(tmp_path) as aws:
        assert len(aws.executions()) == 1


def test_an_execution_that_was_cut_off_is_kept_as_aborted(tmp_path: Path) -> None:
    hold = threading.Event()

    def job(arguments: Mapping[str, str]) -> None:
        hold.wait(30)

    with start(tmp_path, job) as aws:
        arn = aws.sweep()
        while not aws.states(arn):
            time.sleep(0.05)
    hold.set()
    with start(tmp_path) as aws:
        assert aws.describe(arn)["status"] == "ABORTED"


def test_a_save_that_was_cut_off_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(tmp_path) as aws:
        fill(aws)
        aws.save()
        before = objects(aws, "LakeBucket")
        aws.client("s3").put_object(Bucket=aws.name("LakeBucket"), Key="later", Body=b"x")
        assert aws.state_folder

        def killed(name: str, value: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(aws.state_folder, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            aws.save()
        aws.state_folder = None
    with start(tmp_path) as aws:
        assert objects(aws, "LakeBucket") == before


def test_equal_bytes_are_kept_once_and_a_foreign_state_is_refused(tmp_path: Path) -> None:
    with start(tmp_path) as aws:
        fill(aws)
    assert len(list((tmp_path / "objects").iterdir())) == 2
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(ValueError, match="--fresh"):
        start(tmp_path).start()
