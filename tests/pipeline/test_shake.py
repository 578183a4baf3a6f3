"""The whole pipeline while S3 fails: a few seeds each time, many where there is time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.aws.pipeline import Pipeline
from tests.pipeline import shake


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    with shake.pipeline() as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("rate", shake.RATES)
def test_whatever_fails_every_row_is_there_once_in_the_end(pipeline: Pipeline, rate: float) -> None:
    tally = shake.Shake(pipeline, seed=int(rate * 1000), rate=rate).run(steps=3)
    assert tally.faults.total() > 0 and tally.runs["SUCCEEDED"] > 0 and tally.rows > 0


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 51))
def test_fifty_seeds_end_with_every_row_once(pipeline: Pipeline, seed: int) -> None:
    shake.Shake(pipeline, seed, shake.RATES[seed % 3]).run()
