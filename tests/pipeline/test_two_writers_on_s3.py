"""Two writers at the same time on one lake in S3: no row is doubled or lost, and the loser says so.

The second writer starts when the first one says that a step is done; both go on side by side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from local.aws.job import JobProcess
from local.aws.moto_server import MotoServer
from local.aws.pipeline import job_environment, s3a_settings
from tests.model import RawFile
from tests.pipeline.s3_lake import S3Lake
from tests.spark.test_guarantees import COMMITS, first_delivery, second_delivery

pytestmark = pytest.mark.slow
# What both writers run, so that no lease keeps them apart
PAST_THE_LEASE = ["--scriptLocation", "tests/pipeline/without_lease.py"]
OFFSETS = ["discovered", "tables opened", "ledger asked", "staged", "resolved", *COMMITS[:-1]]
CORRECTION = {
    "operation": "sql",
    "sql": "UPDATE clean_orders SET user_id = 'corrected' WHERE order_id = 'o1'",
    "author": "ann",
}


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    with MotoServer() as running:
        yield running


@pytest.fixture(scope="module")
def jobs(server: MotoServer) -> Iterator[list[JobProcess]]:
    settings, environment = s3a_settings(server.endpoint), job_environment(server.endpoint)
    with (
        JobProcess(settings=settings, environment=environment, warm=True) as first,
        JobProcess(settings=settings, environment=environment, warm=True) as second,
    ):
        yield [first, second]


def upload(lake: S3Lake, files: Sequence[RawFile]) -> None:
    for file in files:
        lake.upload(file.path, file.content)


def run_beside(lake: S3Lake, jobs: list[JobProcess], step: str, *options: str) -> tuple[int, int]:
    """Start a second run with these options when the first one says `step`; their exit codes."""
    started: list[Future[int]] = []
    with ThreadPoolExecutor(1) as pool:

        def show(line: str) -> None:
            if line.endswith(f"] {step}") and not started:
                quick = pool.submit(lake.run, jobs[1], "second", *PAST_THE_LEASE, *options)
                started.append(quick)

        slow = lake.run(jobs[0], "first", *PAST_THE_LEASE, show=show)
        assert started, f"the first run never said {step!r}"
        return slow, started[0].result()


def check_loser(lake: S3Lake, codes: Sequence[int]) -> None:
    """A run that failed says that another one has written."""
    assert 0 in codes
    for run_id, code in zip(("first", "second"), codes, strict=True):
        if code:
            assert "has written this table since the run" in lake.summary(run_id)["error"]


def loaded(server: MotoServer, jobs: list[JobProcess], bucket: str) -> S3Lake:
    """A lake with the first delivery, and the second one in its raw zone."""
    lake = S3Lake(server, bucket)
    upload(lake, first_delivery())
    assert lake.run(jobs[0], "zero") == 0
    upload(lake, second_delivery())
    return lake


@pytest.fixture(scope="module")
def right(server: MotoServer, jobs: list[JobProcess]) -> tuple[Any, ...]:
    """What one writer makes of both deliveries."""
    lake = loaded(server, jobs, "alone")
    assert lake.run(jobs[0], "alone") == 0
    return lake.state()


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step, marks=() if step == "ledger asked" else pytest.mark.long)
        for step in OFFSETS
    ],
)
def test_the_same_delivery_loaded_by_two_is_loaded_once(
    server: MotoServer, jobs: list[JobProcess], right: tuple[Any, ...], step: str
) -> None:
    lake = loaded(server, jobs, "load-" + step.replace(" ", "-").replace("_", "-"))
    check_loser(lake, run_beside(lake, jobs, step))
    assert lake.run(jobs[0], "after") == 0
    assert lake.state() == right


@pytest.mark.long
@pytest.mark.parametrize("step", ["discovered", "tables opened", "committed clean_products"])
def test_two_first_loads_make_one_lake(
    server: MotoServer, jobs: list[JobProcess], step: str
) -> None:
    alone = S3Lake(server, "alone-" + step.replace(" ", "-").replace("_", "-"))
    lake = S3Lake(server, "new-" + step.replace(" ", "-").replace("_", "-"))
    for bucket in (alone, lake):
        upload(bucket, first_delivery())
    assert alone.run(jobs[0], "alone") == 0
    check_loser(lake, run_beside(lake, jobs, step))
    assert lake.run(jobs[0], "after") == 0
    assert lake.state() == alone.state()


@pytest.mark.long
@pytest.mark.parametrize("step", ["ledger asked", "resolved", "committed clean_products"])
def test_a_correction_beside_a_load_is_kept_or_refused(
    server: MotoServer, jobs: list[JobProcess], right: tuple[Any, ...], step: str
) -> None:
    lake = loaded(server, jobs, "sql-" + step.replace(" ", "-").replace("_", "-"))
    check_loser(lake, run_beside(lake, jobs, step, "--OPERATION", json.dumps(CORRECTION)))
    assert lake.run(jobs[0], "after") == 0
    tables, rejected, files = lake.state()
    assert tables["clean_products"] == right[0]["clean_products"]
    assert tables["clean_orders_items"] == right[0]["clean_orders_items"]
    assert (rejected, files) == right[1:]
    orders = {row["order_id"]: row["user_id"] for row in lake.rows("clean_orders")}
    assert set(orders) == {"o1", "o2", "o9"} and orders["o1"] in ("u1", "corrected")
