"""A process that runs the job again and again in one Spark: one JSON list of arguments a line in, progress and `exit N` lines out."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).resolve().parent.parent / "src" / "glue_etl.py"


def load_job() -> ModuleType:
    """The deployed script as a module."""
    if "glue_etl" not in sys.modules:
        spec = importlib.util.spec_from_file_location("glue_etl", SCRIPT)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules["glue_etl"] = module
        spec.loader.exec_module(module)
    return sys.modules["glue_etl"]


def warm_up(job: ModuleType) -> None:
    """Start Spark and let it write, merge and read a Delta table once: the first time takes seconds that no run should wait for."""
    from delta.tables import DeltaTable

    with tempfile.TemporaryDirectory() as folder:
        spark = job.spark_session(0, 0)
        rows = spark.range(2).selectExpr("string(id) AS id", "current_date() AS date")
        rows.write.format("delta").partitionBy("date").mode("append").save(folder)
        table = DeltaTable.forPath(spark, folder).alias("t")
        table.merge(
            rows.alias("s"), "t.id = s.id"
        ).whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
        table.toDF().count()


def main() -> None:
    job = load_job()
    if "--warm" in sys.argv:
        warm_up(job)
    for line in sys.stdin:
        try:
            code = job.main(json.loads(line))
        except SystemExit as stop:
            code = int(stop.code or 0)
        print(f"exit {code}", flush=True)


if __name__ == "__main__":
    main()
