"""Which tests share a process when pytest runs them side by side: those of a file, and all that use the one Spark of `tests/spark`."""
from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling


class ByFile(LoadScopeScheduling):
    """A scope is a file; the folder with the one Spark is one scope."""

    def _split_scope(self, nodeid: str) -> str:
        place = nodeid.split("::", 1)[0]
        return "tests/spark" if place.startswith("tests/spark/") else place


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    return ByFile(config, log)
