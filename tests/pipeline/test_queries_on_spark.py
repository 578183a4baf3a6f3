"""Twenty queries of analysts give the same on Athena's stand-in and on Spark, which share no line
of code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import glue_etl as etl
from local.athena import Athena
from local.runtime import BRIEF, ROOT, spark_environment
from tests.pipeline import lake
from tests.pipeline.test_athena import QUERIES, read_queries


def in_sparks_words() -> list[str]:
    """The queries, each in Spark's dialect where queries.sql has one (`--spark` lines)."""
    queries = []
    for block, (_, athena_sql, _) in zip(
        QUERIES.read_text("utf-8").split("\n\n")[1:], read_queries(), strict=True
    ):
        own = [
            line.removeprefix("--spark ")
            for line in block.splitlines()
            if line.startswith("--spark ")
        ]
        queries.append((" ".join(own) or athena_sql).rstrip(";"))
    return queries


def ask_spark(folder: Path, statements: list[str]) -> list[list[list[str | None]]]:
    """The answers of a Spark in a process of its own."""
    few_rows = {**BRIEF, **etl.INTERPRETED, "spark.sql.shuffle.partitions": "2"}
    environment = {**os.environ, **spark_environment("1g", few_rows)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.spark_queries", str(folder)],
        cwd=ROOT,
        env=environment,
        input=json.dumps(statements),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_spark_and_athena_agree_on_every_query(tmp_path: Path) -> None:
    athena = Athena(lake.build(tmp_path))
    expected = {question: athena.query(sql).text_rows() for question, sql, _ in read_queries()}
    assert dict(zip(expected, ask_spark(tmp_path, in_sparks_words()), strict=True)) == expected
