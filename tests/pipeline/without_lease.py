"""The scripts as writers run them whom no lease keeps apart."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import glue_etl
import glue_operations


def main(argv: Sequence[str]) -> int:
    storage: Any = glue_etl.S3Storage
    storage.lease = lambda self, run_id: nullcontext()
    script = glue_operations if "--OPERATION" in argv else glue_etl
    return script.main(argv)
