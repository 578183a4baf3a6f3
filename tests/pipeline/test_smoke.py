"""The smoke test of a deployment, on the local AWS with the real job."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import boto3
import pytest

from client.lake import Lake
from client.template import REGION
from deploy.smoke import smoke
from local.aws.pipeline import Pipeline
from local.aws.stepfunctions import Pace


def smoked(endpoint: str, outputs: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The last summary, and what it says; in a process of its own, since `deltalake` holds Python's
    lock while it waits for the local S3."""
    session, lines = boto3.Session("local", "local", region_name=REGION), []
    lake = Lake.of_deployment(session, outputs, endpoint)
    last = smoke(session, outputs, lines.append, minutes=10, poll=0.5, lake=lake)
    return last, lines


@pytest.mark.slow
def test_the_smoke_test_of_a_deployment_passes_here() -> None:
    with (
        Pipeline(pace=Pace(waits=0.05, retries=0.01, poll=0.1), batching_window=2) as pipeline,
        ProcessPoolExecutor(1, get_context("spawn")) as pool,
    ):
        outputs = pipeline.aws.template.outputs()
        last, lines = pool.submit(smoked, pipeline.aws.endpoint, outputs).result()
        executions = {
            execution["name"].partition("-")[0] for execution in pipeline.aws.executions()
        }
    products = last["tables"]["clean_products"]["rows"]
    assert f"sql --dry-run: clean_products: {products:,} rows would be updated." in lines
    (vacuum,) = [line for line in lines if line.startswith("vacuum --dry-run: ")]
    assert "0 files of 0 bytes can be removed" in vacuum
    assert lines.count(next(line for line in lines if line.startswith("History: "))) == 2
    assert {"sql", "vacuum"} < executions
