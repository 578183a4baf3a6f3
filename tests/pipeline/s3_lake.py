"""A lake in a bucket of the stand-in's S3, and runs of the job on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from deltalake import DeltaTable

import glue_etl as etl
from local.aws.job import JobProcess, job_arguments
from local.aws.moto_server import MotoServer
from local.aws.readers import s3_options

FOLDERS = {"RAW": "raw", "LAKEHOUSE": "lakehouse-dwh", "REJECTED": "rejected", "RUNS": "runs"}


def ignore(line: str) -> None:
    """Do nothing with a line of progress."""


class S3Lake:
    """A bucket with the job's four prefixes."""

    def __init__(self, server: MotoServer, bucket: str) -> None:
        self.server, self.bucket = server, bucket
        self.s3 = boto3.client("s3", endpoint_url=server.endpoint)
        self.s3.create_bucket(Bucket=bucket)

    def upload(self, path: str, content: bytes) -> None:
        """Put a file into the raw zone; `path` is below it."""
        self.s3.put_object(Bucket=self.bucket, Key=f"raw/{path}", Body=content)

    def upload_folder(self, folder: Path) -> None:
        for path in sorted(folder.rglob("*.csv")):
            self.upload(path.relative_to(folder).as_posix(), path.read_bytes())

    def run(
        self,
        job: JobProcess,
        run_id: str,
        *options: str,
        show: Callable[[str], None] = ignore,
    ) -> int:
        """Run the job with further options; `show` gets each line of progress. Returns its exit
        code."""
        names = job_arguments(Path("raw"), Path("lake"), run_id)
        words = dict(zip(names[::2], names[1::2], strict=True))
        words |= {f"--{name}_PATH": f"s3://{self.bucket}/{at}/" for name, at in FOLDERS.items()}
        return job.run([*(word for pair in words.items() for word in pair), *options], show)

    def summary(self, run_id: str) -> dict[str, Any]:
        key = f"runs/{run_id}/summary.json"
        summary: dict[str, Any] = json.load(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"])
        return summary

    def rows(self, table: str) -> list[dict[str, Any]]:
        """A table's rows, by a reader that is not Spark."""
        folder = "rejected" if table == "rejected_records" else "lakehouse-dwh"
        delta = DeltaTable(
            f"s3://{self.bucket}/{folder}/{table}",
            storage_options=s3_options(self.server.endpoint),
        )
        return delta.to_pyarrow_table().to_pylist()

    def tables(self) -> dict[str, list[str]]:
        """Table -> its rows as text, sorted, so that lakes compare."""
        return {table.name: sorted(map(repr, self.rows(table.name))) for table in etl.TABLES}

    def state(self) -> tuple[Any, ...]:
        """All that must be there once: tables, rejected rows, files of the ledger."""
        rejected = sorted(
            (str(row["record_key"]), row["line"], row["status"])
            for row in self.rows("rejected_records")
        )
        files = sorted(row["file_path"] for row in self.rows("ingested_files"))
        return self.tables(), rejected, files
