"""A process that runs the job again and again in one Spark: one JSON list of arguments a line in,
progress and `exit N` lines out.

As Glue does, it runs the script that `--scriptLocation` names instead of the job's own.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, Protocol

import glue_etl
from client import ROOT
from local.aws.job import ENDED


class Script(Protocol):
    """The module of a script that Glue runs."""

    def main(self, argv: Sequence[str], /) -> int: ...


def warm_up() -> None:
    """Start Spark and let it write, merge and read a Delta table once: the first time takes seconds
    that no run should wait for."""
    with tempfile.TemporaryDirectory() as folder:
        spark = glue_etl.spark_session()
        rows = spark.range(2).selectExpr("string(id) AS id", "current_date() AS date")
        rows.write.format("delta").partitionBy("date").mode("append").save(folder)
        rows.createOrReplaceTempView("warm_up")
        spark.sql(
            f"MERGE INTO delta.`{folder}` t USING warm_up s ON t.id = s.id "
            "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
        )
        spark.read.format("delta").load(folder).count()
        spark.catalog.dropTempView("warm_up")


@functools.cache
def other_script(path: str) -> Script:
    """A script beside the job's own, which it may import as `glue_etl`. As where Python runs a
    script, its folder comes first on the path. Raises ModuleNotFoundError."""
    file = ROOT / path
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    script: Any = importlib.import_module(file.stem)
    return script


def script_of(words: Sequence[str]) -> Script:
    """The script that a run's arguments ask for."""
    arguments = dict(zip(words, words[1:], strict=False))
    path = arguments.get("--scriptLocation")
    if path is None:
        return glue_etl
    return other_script(path)


def java_has_ended() -> bool:
    """Whether the Java of this process's Spark has ended: no run can do anything any more."""
    from pyspark import SparkContext

    java = getattr(SparkContext._gateway, "proc", None)
    return java is not None and java.poll() is not None


def main() -> None:
    if "--warm" in sys.argv:
        warm_up()
    for line in sys.stdin:
        try:
            words = json.loads(line)
            code = script_of(words).main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
        ended = code != 0 and java_has_ended()
        print(f"exit {code}{ENDED if ended else ''}", flush=True)
        if ended:
            return  # the next run gets a new process, and with it a new Java


if __name__ == "__main__":
    main()
