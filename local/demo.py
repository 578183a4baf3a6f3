"""`make run`: two deliveries of a made-up shop through the job on this machine, and what became of every row."""
from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any, Optional, Sequence

import duckdb
from deltalake import DeltaTable

from local.job import JobProcess, format_summary, run_once
from local.runtime import STATE
from local.sample import write_sample

PEEK = {
    "clean_products": "SELECT * FROM t ORDER BY try_cast(product_id AS INT) LIMIT 3",
    "clean_orders": "SELECT * FROM t ORDER BY try_cast(order_id AS INT) LIMIT 3",
    "clean_orders_items": "SELECT * FROM t ORDER BY try_cast(id AS INT) LIMIT 3",
}
REJECTS = """SELECT status, reason, count(*) AS "rows", min(file_path || ':' || line) AS "first place",
                    any_value(replace(replace(left(raw, 44), chr(10), '␤'), chr(13), '')) AS example
             FROM (SELECT *, unnest(reasons) AS reason FROM t) GROUP BY ALL ORDER BY status, "rows" DESC, reason"""


def show_query(table: Path, query: str) -> None:
    """Print a query's result; the table is called `t`."""
    arrow = DeltaTable(str(table)).to_pyarrow_table()
    result = duckdb.connect().register("t", arrow).sql(query)
    rows = [tuple("" if value is None else str(value) for value in row) for row in result.fetchall()]
    widths = [max(len(text) for text in column) for column in zip(result.columns, *rows)]
    for row in (tuple(result.columns), tuple("-" * width for width in widths), *rows):
        print("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def run_delivery(process: JobProcess, raw: Path, lake: Path, run_id: str) -> Optional[dict[str, Any]]:
    print(f"\n== {run_id}: the files in {raw.name}")
    code, summary = run_once(process, raw, lake, run_id)
    if summary:
        print(format_summary(summary))
    return summary if code == 0 else None


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m local run", description="Two deliveries of sample data through the job.")
    parser.add_argument("--folder", type=Path, default=STATE / "demo", help="where sample and lake go (emptied first)")
    folder = parser.parse_args(argv).folder.resolve()
    raw, lake = folder / "raw", folder / "lake"
    for old in (raw, lake):
        shutil.rmtree(old, ignore_errors=True)
    print("Making up two deliveries of a shop: products, orders and order items, with dirt in them ...", flush=True)
    deliveries = write_sample(raw)
    with JobProcess() as process:
        for number, delivery in enumerate(deliveries, 1):
            if run_delivery(process, delivery.folder, lake, f"delivery-{number}") is None:
                print(f"The run failed; Spark's own words are in {process.log}")
                return 1
    print("\n== What the tables hold now")
    for table, query in PEEK.items():
        print(f"\n{table}")
        show_query(lake / "lakehouse-dwh" / table, query)
    print("\n== Why rows are not in the tables (parked: they wait for their order or product)\n")
    show_query(lake / "rejected" / "rejected_records", REJECTS)
    print(f"\nEverything is in {lake}: tables, rejected rows, and the records of each run.\n"
          "Next: put your own exports in a folder and say\n"
          "  .venv/bin/python -m local job --raw FOLDER --lake LAKE")
    return 0
