"""Spark as a second opinion: `python -m tests.pipeline.spark_queries LAKE < queries.json`, a list
of statements in Spark's SQL.

Prints a JSON list: for each statement its rows, with the values written as Athena writes them.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from local.athena import as_text


def text(value: Any) -> str | None:
    """PySpark hands a timestamp over in the process's own time zone, without saying so."""
    return as_text(value.astimezone(dt.UTC) if isinstance(value, dt.datetime) else value)


def main() -> None:
    spark = SparkSession.builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()
    for log in Path(sys.argv[1]).glob("*/_delta_log"):
        spark.read.format("delta").load(str(log.parent)).createOrReplaceTempView(log.parent.name)
    answers = [
        [[text(value) for value in row] for row in spark.sql(sql).collect()]
        for sql in json.load(sys.stdin)
    ]
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
