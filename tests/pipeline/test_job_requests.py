"""How recorded requests become permissions; recording them is a command, since it takes long."""

from __future__ import annotations

import pytest

from tests.pipeline.job_requests import lines_of, refused, unused
from tests.pipeline.s3_requests import S3Request

BUCKETS = {"a": "archive", "l": "lake", "r": "raw"}
DAMAGED = "rejected/damaged/1/rejected_records/y.parquet"
REQUESTS = {
    "GET lake/lakehouse-dwh/clean_orders/date=X/x.snappy.parquet": S3Request(
        "GET", "l", "lakehouse-dwh/clean_orders/date=2025-04-01/part-00.snappy.parquet", {}, 200
    ),
    "LIST lake/runs/": S3Request("GET", "l", "", {"list-type": "2", "prefix": "runs/"}, 200),
    "UPLOADS lake/": S3Request("GET", "l", "", {"uploads": ""}, 200),
    "WHERE raw/": S3Request("GET", "r", "", {"location": ""}, 200),
    "PART lake/glue-temp/run=X/x": S3Request(
        "POST", "l", "glue-temp/run=1/y", {"uploads": ""}, 200
    ),
    "ABORT lake/glue-temp/run=X/x": S3Request(
        "DELETE", "l", "glue-temp/run=1/y", {"uploadId": "1"}, 204
    ),
}


@pytest.mark.parametrize("line", REQUESTS)
def test_a_request_is_a_line_that_the_role_allows(line: str) -> None:
    assert lines_of([REQUESTS[line]], BUCKETS) == [line]
    assert refused([line]) == []


def test_a_copy_reads_and_writes_and_a_bulk_deletion_deletes_each_key() -> None:
    copy = S3Request("PUT", "l", DAMAGED, {}, 200, source="l/rejected/rejected_records/y.parquet")
    removal = S3Request("POST", "l", "", {"delete": ""}, 200, deleted=("glue-temp/run=a/b.csv",))
    lines = lines_of([copy, removal], BUCKETS)
    assert lines == [
        "DELETE lake/glue-temp/run=X/x.csv",
        "GET lake/rejected/rejected_records/x.parquet",
        "PUT lake/rejected/damaged/X/rejected_records/x.parquet",
    ]
    assert refused(lines) == []


@pytest.mark.parametrize(
    "line", ["PUT archive/archived/x", "DELETE raw/land-folder/Data/x.csv", "LIST raw/other/"]
)
def test_a_request_that_the_job_may_not_make_is_refused(line: str) -> None:
    assert refused([line]) == [line]


def test_a_right_that_no_request_took_is_listed() -> None:
    idle = unused(["LIST raw/land-folder/Data/", "PUT lake/runs/X/x.json"])
    assert "WriteRuns: s3:PutObject" not in idle and "ListRawZone: s3:ListBucket" not in idle
    assert {"ReadArchive: s3:GetObject", "RemoveIntent: s3:DeleteObject"} < set(idle)
