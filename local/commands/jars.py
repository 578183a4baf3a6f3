"""`python -m local jars`: fetch Delta's and S3A's jars before anything is timed or tested."""

from __future__ import annotations

from collections.abc import Sequence

from local.runtime import jars


def main(argv: Sequence[str]) -> int:
    print(f"{len(jars())} jars ready")
    return 0
