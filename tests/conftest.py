"""Which tests share a process when pytest runs them side by side: those of a file, and those of
`tests/spark`, which share one Spark.

The scenarios are a share of their own, so that both processes end at about the same time.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling


class ByFile(LoadScopeScheduling):
    """A scope is a file; all of `tests/spark` but the scenarios is one."""

    def _split_scope(self, nodeid: str) -> str:
        place = nodeid.split("::", 1)[0]
        return (
            "tests/spark"
            if place.startswith("tests/spark/") and not place.endswith("test_scenarios.py")
            else place
        )


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    return ByFile(config, log)
