"""Executors in processes of their own: the same tables, and no row lost with one that dies."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from local.aws.job import JobProcess
from local.aws.moto_server import MotoServer
from local.aws.pipeline import job_environment, s3a_settings
from samples.shop import write_sample
from tests.benchmarks.exports import write_bench, write_bench_delivery
from tests.pipeline.s3_lake import S3Lake

pytestmark = [pytest.mark.slow, pytest.mark.long]
LARGE_ITEMS = 300_000  # some 20 MB in each delivery: staged in scratch files
CLUSTER = {"spark.master": "local-cluster[2,1,1024]", "spark.executor.memory": "1g"}


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    with MotoServer() as running:
        yield running


@pytest.fixture(scope="module")
def cluster(server: MotoServer) -> Iterator[JobProcess]:
    settings = {**s3a_settings(server.endpoint), **CLUSTER}
    with JobProcess(settings=settings, environment=job_environment(server.endpoint)) as process:
        yield process


def executors(process: JobProcess) -> list[int]:
    """The processes of the executors of this job's Spark."""
    session = os.getsid(process._process.pid)
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,sess,args"], capture_output=True, text=True)
    return [
        int(line.split()[0])
        for line in listed.stdout.splitlines()
        if "CoarseGrainedExecutorBackend" in line and int(line.split()[1]) == session
    ]


@dataclass(frozen=True)
class Deliveries:
    """Two deliveries, and the tables that executors within the driver make of them."""

    size: str
    folders: list[Path]
    tables: dict[str, list[str]]


@pytest.fixture(scope="module", params=["small", "large"])
def right(
    request: pytest.FixtureRequest, server: MotoServer, tmp_path_factory: pytest.TempPathFactory
) -> Deliveries:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "small":
        folders = [delivery.folder for delivery in write_sample(folder)]
    else:  # staged in scratch files
        folders = [folder / "first", folder / "second"]
        write_bench(folders[0], LARGE_ITEMS, days=5)
        write_bench_delivery(folders[1], LARGE_ITEMS, LARGE_ITEMS, days=5, share=1.0)
    lake = S3Lake(server, f"right-{request.param}")
    with JobProcess(
        settings=s3a_settings(server.endpoint), environment=job_environment(server.endpoint)
    ) as process:
        for number, delivery in enumerate(folders):
            lake.upload_folder(delivery)
            assert lake.run(process, f"run-{number}") == 0
    return Deliveries(request.param, folders, lake.tables())


@pytest.mark.parametrize(
    "step", ["none", "tables opened", "staged", "resolved", "committed clean_orders"]
)
def test_no_row_is_lost_with_an_executor(
    server: MotoServer,
    cluster: JobProcess,
    right: Deliveries,
    step: str,
) -> None:
    lake = S3Lake(server, f"{right.size}-{step}".replace(" ", "-").replace("_", "-"))
    killed: list[int] = []

    def kill_executor(line: str) -> None:
        if line.endswith(f"] {step}") and not killed:
            killed.append(executors(cluster)[0])
            os.kill(killed[0], signal.SIGKILL)

    lake.upload_folder(right.folders[0])
    assert lake.run(cluster, "run-0") == 0
    lake.upload_folder(right.folders[1])
    code = lake.run(cluster, "run-1", show=kill_executor)
    assert len(killed) == (step != "none")
    if code:
        error = lake.summary("run-1")["error"]
        assert "an executor was lost, and rows with it: run again" in error
        assert lake.run(cluster, "run-1") == 0
    assert lake.tables() == right.tables
