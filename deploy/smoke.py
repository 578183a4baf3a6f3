"""The smoke test of a deployed environment: uploads the sample delivery and waits for the run that
loads it."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from deploy.stack import DeployError, Say
from tools.sample import write_sample

MEASURES = ("inserted", "updated", "unchanged", "superseded", "rejected", "parked")


def smoke(
    session: Any,
    outputs: Mapping[str, str],
    say: Say = print,
    minutes: float = 60,
    poll: float = 15.0,
) -> dict[str, Any]:
    """Uploads to the raw zone of an environment with these outputs; returns the summary of the run
    that took the files.

    Raises DeployError where an execution does not succeed, where the numbers do not add up, or
    after so many minutes.
    """
    states, arn = session.client("stepfunctions"), outputs["StateMachineArn"]
    before = {execution["executionArn"] for execution in _executions(states, arn)}
    with tempfile.TemporaryDirectory() as folder:
        first, _ = write_sample(Path(folder))
        for path in first.files:
            _put(
                session.client("s3"),
                outputs["RawZone"],
                path.relative_to(first.folder).as_posix(),
                path.read_bytes(),
            )
    say(f"Uploaded {len(first.files)} files to {outputs['RawZone']}")
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        for execution in _executions(states, arn):
            if execution["executionArn"] in before or execution["status"] == "RUNNING":
                continue
            if execution["status"] != "SUCCEEDED":
                cause = states.describe_execution(executionArn=execution["executionArn"]).get(
                    "cause", ""
                )
                raise DeployError(
                    f"Execution {execution['name']} ended {execution['status']}: {cause}"
                )
            summary = _summary(session.client("s3"), outputs["Lake"], execution["name"])
            if summary.get("files", {}).get("loaded"):
                return _checked(summary, say)
        time.sleep(poll)
    raise DeployError(
        f"No execution loaded the files within {minutes:g} minutes; look at the queue, the Pipe "
        f"and {arn}"
    )


def _executions(states: Any, arn: str) -> list[dict[str, Any]]:
    return [
        execution
        for page in states.get_paginator("list_executions").paginate(stateMachineArn=arn)
        for execution in page["executions"]
    ]


def _put(s3: Any, raw_zone: str, path: str, body: bytes) -> None:
    bucket, _, prefix = raw_zone.removeprefix("s3://").partition("/")
    s3.put_object(Bucket=bucket, Key=prefix + path, Body=body)


def _summary(s3: Any, lake: str, run_id: str) -> dict[str, Any]:
    """The run's summary; empty for an execution that found nothing new."""
    bucket = lake.removeprefix("s3://").rstrip("/")
    try:
        return json.loads(
            s3.get_object(Bucket=bucket, Key=f"runs/{run_id}/summary.json")["Body"].read()
        )
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in (
            403,
            404,
        ):  # 403 where the caller may not list the bucket
            return {}
        raise


def _checked(summary: dict[str, Any], say: Say) -> dict[str, Any]:
    for dataset, numbers in summary["datasets"].items():
        say(
            f"{dataset}: {numbers['rows_read']:,} rows read, "
            + ", ".join(f"{numbers[name]:,} {name}" for name in MEASURES)
        )
        if numbers["rows_read"] + numbers["admitted"] != sum(numbers[name] for name in MEASURES):
            raise DeployError(f"{dataset}: the rows read are not the sum of what became of them")
        if not numbers["inserted"]:
            raise DeployError(f"{dataset}: nothing was inserted")
    return summary
