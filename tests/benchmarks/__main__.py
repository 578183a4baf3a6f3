"""`python -m tests.benchmarks [--items N]`: what the job costs, as ratios to plain Spark in one
session.

The floor is plain Spark: the three CSVs with their types, written as Parquet, partitioned by date.
Wall and CPU seconds (driver and Java) are the best of three rounds after one to warm up, in which
all steps take their turn. Small deliveries are timed in cold processes beside a naive job, and
3,000 files of three rows beside plain Spark that reads the same files. `--only maintenance` tells
what a query reads after 100 small deliveries, before and after `optimize`; `--only old` compares a
small delivery into a lake that is a year old with one into a young lake of the same rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

import glue_etl
import glue_operations
from local.athena import Athena
from local.aws.job import job_arguments
from local.runtime import ROOT, STATE, spark_environment
from samples.shop import ORDER_COLUMNS, write_sample
from tests.benchmarks.exports import write_bench, write_bench_delivery
from tests.old_lake import age

FLOOR = "floor: plain Spark, CSV to partitioned Parquet"
MANY_FLOOR = "floor of many files: plain Spark"
NAIVE = ROOT / "tests" / "benchmarks" / "naive.py"


def cpu_seconds(pids: list[int]) -> float:
    """User and system seconds of processes so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += sum(int(value) for value in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


class Bench:
    """One session, one folder, and the figures."""

    def __init__(self, folder: Path, items: int, repeats: int) -> None:
        self.folder, self.items, self.repeats = folder, items, repeats
        self.figures: dict[str, dict[str, float]] = {}
        self.spark = glue_etl.spark_session()
        java = self.spark._jvm.java.lang.ProcessHandle.current().pid()
        self.pids = [os.getpid(), int(java)]
        self.plain = self.spark.newSession()  # with none of the job's settings

    def measure(self, *steps: tuple[str, Callable[[], Any], Callable[[], Any]]) -> None:
        """Best wall and CPU seconds of (name, action, what prepares it and is not timed).

        All steps take their turn in a round; the first round warms up.
        """
        for attempt in range(1 + self.repeats):
            for name, action, prepare in steps:
                prepare()
                wall, cpu = time.monotonic(), cpu_seconds(self.pids)
                action()
                wall, cpu = time.monotonic() - wall, cpu_seconds(self.pids) - cpu
                best = self.figures.get(name)
                if attempt and (best is None or cpu < best["cpu"]):
                    self.figures[name] = {"wall": round(wall, 2), "cpu": round(cpu, 2)}
        for name, _, _ in steps:
            best = self.figures[name]
            seconds = f"wall {best['wall']:8.2f} s   cpu {best['cpu']:8.2f} s"
            print(f"{name:58} {seconds}", file=sys.stderr, flush=True)

    def load(self, raw: Path, lake: Path, run_id: str, force: bool = False) -> None:
        if glue_etl.main(job_arguments(raw, lake, run_id, force)):
            raise SystemExit(f"the run {run_id} failed; see {lake / 'runs' / run_id}")

    def floor(self, raw: Path) -> None:
        for table in glue_etl.TABLES:
            paths = [
                str(path)
                for path in raw.rglob("*.csv")
                if glue_etl.dataset_of(path.relative_to(raw).as_posix()) == table.dataset
            ]
            if not paths:
                continue
            ddl = table.ddl.replace("`reordered` BOOLEAN", "`reordered` INT")
            writer = self.plain.read.schema(ddl).csv(paths, header=True).write.mode("overwrite")
            (writer.partitionBy(table.partition) if table.partition else writer).parquet(
                str(self.folder / "floor" / table.name)
            )

    def large(self) -> None:
        """The figures in one warm session."""
        raw, lake = self.folder / "base", self.folder / "lake"
        write_bench(raw, self.items)
        loaded: list[dict[str, list[int]]] = []
        self.measure(
            (FLOOR, lambda: self.floor(raw), nothing),
            (
                "first load",
                lambda: self.load(raw, lake, "first"),
                lambda: shutil.rmtree(lake, ignore_errors=True),
            ),
            (
                "the same files again, by the ledger",
                lambda: self.load(raw, lake, "again"),
                lambda: loaded.append(versions(lake)),
            ),
            ("the same files again, forced", lambda: self.load(raw, lake, "forced", True), nothing),
        )
        if versions(lake) != loaded[-1]:
            raise SystemExit("a re-load of the same files wrote a table version")

    def many_files(self, files: int = 3_000) -> None:
        """A first load of many files of three rows, beside plain Spark that reads the same."""
        raw, lake = self.folder / "many", self.folder / "lake-many"
        row = 0
        for number in range(files):
            day = f"2025-04-{number % 15 + 1:02}"
            lines = [f"1,{row + n},u{row % 97},{day}T10:00:0{n},{n}.5,{day}" for n in range(3)]
            write_orders(raw / "orders" / f"{number:05}.csv", lines)
            row += 3
        self.measure(
            (MANY_FLOOR, lambda: self.floor(raw), nothing),
            (
                f"{files:,} files of three rows",
                lambda: self.load(raw, lake, "first"),
                lambda: shutil.rmtree(lake, ignore_errors=True),
            ),
        )

    def maintenance(self, deliveries: int = 100) -> None:
        """Files, bytes and the time of a query by day, before and after `optimize`."""
        lake = self.folder / "lake-maintained"
        for number in range(deliveries):
            lines = [
                f"1,{number * 40 + n},u{n},2025-04-{n % 8 + 1:02}T10:00:{n:02},{number}.5,"
                for n in range(40)
            ]
            raw = self.folder / f"delivery-{number}"
            write_orders(raw / "orders" / f"{number}.csv", lines)
            self.load(raw, lake, f"run-{number:03}")
        self.print_query_time(lake, f"after {deliveries} deliveries")
        request = json.dumps({"operation": "optimize"})
        arguments = [*job_arguments(self.folder / "none", lake, "optimize"), "--OPERATION", request]
        if glue_operations.main(arguments):
            raise SystemExit("optimize failed")
        self.print_query_time(lake, "after optimize")

    def print_query_time(self, lake: Path, when: str) -> None:
        """One line: the files of clean_orders and what a query of the local Athena takes."""
        location = lake / "lakehouse-dwh" / "clean_orders"
        uris = DeltaTable(str(location)).file_uris()
        files = [Path(uri.removeprefix("file://")) for uri in uris]
        by_day = Counter(path.parent for path in files)
        athena = Athena({"clean_orders": str(location)})
        seconds = []
        for _ in range(1 + self.repeats):
            begin = time.monotonic()
            athena.query("SELECT date, count(*), sum(total_amount) FROM clean_orders GROUP BY date")
            seconds.append(time.monotonic() - begin)
        size = sum(path.stat().st_size for path in files)
        print(
            f"{when}: {len(files)} files, at most {max(by_day.values())} a day, {size:,} bytes; "
            f"a query by day {min(seconds[1:]):.2f} s",
            flush=True,
        )

    def old_lake(self) -> None:
        """A small delivery into a lake with a year of commits behind it, logs cleaned, and into
        one with the same rows and a young log."""
        first, second = write_sample(self.folder / "sample-old")
        base = self.folder / "lake-first"
        self.load(first.folder, base, "first")
        steps = []
        for kind, how in (("young", {"commits": 3, "cleaned": False}), ("old", {})):
            made, lake = self.folder / f"made-{kind}", self.folder / f"lake-{kind}"
            shutil.copytree(base, made)
            age(made / "lakehouse-dwh", made / "rejected", **how)

            def restore(made: Path = made, lake: Path = lake) -> None:
                shutil.rmtree(lake, ignore_errors=True)
                shutil.copytree(made, lake)

            def deliver(lake: Path = lake) -> None:
                self.load(second.folder, lake, "second")

            steps.append((f"small delivery into the {kind} lake", deliver, restore))
        self.measure(*steps)

    def deliveries(self) -> None:
        """A 1 % delivery into tables of one and of ten times the size."""
        for scattered in (False, True):
            steps = []
            for factor in (1, 10):
                base, lake = self.folder / f"base-{factor}", self.folder / f"lake-{factor}"
                if not lake.exists():
                    write_bench(base, self.items * factor, days=15 * factor)
                    self.load(base, lake, "base")
                    shutil.copytree(lake, self.folder / f"kept-{factor}")
                delivery = self.folder / f"delivery-{factor}-{scattered}"
                write_bench_delivery(
                    delivery, self.items * factor, self.items, days=15 * factor, scattered=scattered
                )

                def restore(lake: Path = lake, factor: int = factor) -> None:
                    shutil.rmtree(lake)
                    shutil.copytree(self.folder / f"kept-{factor}", lake)

                def deliver(lake: Path = lake, delivery: Path = delivery) -> None:
                    self.load(delivery, lake, "delivery")

                steps.append(
                    (
                        f"1 % delivery into {factor}x, {'scattered' if scattered else 'recent'}",
                        deliver,
                        restore,
                    )
                )
            self.measure(*steps)


def write_orders(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([",".join(ORDER_COLUMNS), *lines]) + "\n")


def nothing() -> None:
    """What prepares a step that needs no preparation."""


def versions(lake: Path) -> dict[str, list[int]]:
    return {
        table.name: glue_etl.DeltaLog(str(lake / "lakehouse-dwh" / table.name)).versions()
        for table in glue_etl.TABLES
    }


def cold(folder: Path, repeats: int) -> dict[str, float]:
    """Wall seconds of cold processes on the sample: the job and the naive job in turn; medians.

    Neither gets the class archive, in which the job's own classes are and not the naive job's.
    """
    deliveries = write_sample(folder / "sample")
    spark = spark_environment(use_class_archive=False)
    environment = {**os.environ, **spark, "PYTHONPATH": str(ROOT)}
    times: dict[str, list[float]] = {}
    for attempt in range(repeats + 1):
        for kind in ("job", "naive"):
            lake = folder / f"cold-{kind}"
            shutil.rmtree(lake, ignore_errors=True)
            steps = [
                ("first delivery", deliveries[0].folder),
                ("second delivery", deliveries[1].folder),
                ("nothing new", deliveries[1].folder),
            ]
            for number, (step, raw) in enumerate(steps):
                if kind == "naive" and step == "nothing new":
                    continue
                command = (
                    [
                        sys.executable,
                        str(ROOT / "src" / "glue_etl.py"),
                        *job_arguments(raw, lake, f"run-{number}"),
                    ]
                    if kind == "job"
                    else [sys.executable, str(NAIVE), str(raw), str(lake)]
                )
                begin = time.monotonic()
                subprocess.run(command, env=environment, check=True, capture_output=True)
                if attempt:
                    times.setdefault(f"{kind}, {step}", []).append(time.monotonic() - begin)
    return {name: round(sorted(values)[len(values) // 2], 2) for name, values in times.items()}


def report(bench: Bench, small: dict[str, float]) -> dict[str, Any]:
    """Print the ratios and give everything as JSON."""
    floor = bench.figures.get(FLOOR, {}).get("cpu")
    print(
        f"\n{bench.items:,} items; {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, Spark {bench.spark.version}, Python {platform.python_version()}\n"
    )
    for name, best in bench.figures.items():
        ratio = f"{best['cpu'] / floor:6.2f}x floor (cpu)" if floor else ""
        print(f"{name:58} wall {best['wall']:8.2f} s   cpu {best['cpu']:8.2f} s   {ratio}")
    if MANY_FLOOR in bench.figures:
        ours = next(best for name, best in bench.figures.items() if "files of three rows" in name)
        ratio = ours["cpu"] / bench.figures[MANY_FLOOR]["cpu"]
        print(f"many files: {ratio:.2f}x plain Spark (cpu)")
    ages = [bench.figures.get(f"small delivery into the {kind} lake") for kind in ("young", "old")]
    if all(ages):
        print(f"old lake: {ages[1]['cpu'] / ages[0]['cpu']:.2f}x the young one (cpu)")
    for name in ("recent", "scattered"):
        pair = [bench.figures.get(f"1 % delivery into {factor}x, {name}") for factor in (1, 10)]
        if all(pair):
            cpu, wall = (pair[1][kind] / pair[0][kind] for kind in ("cpu", "wall"))
            print(f"1 % {name}: into 10x costs {cpu:.2f}x that into 1x (cpu), {wall:.2f}x (wall)")
    for step in ("first delivery", "second delivery"):
        if f"naive, {step}" in small:
            ours, naive = small[f"job, {step}"], small[f"naive, {step}"]
            print(f"cold process, {step}: job {ours} s, naive {naive} s: {ours / naive:.2f}x")
    if "job, nothing new" in small:
        print(f"cold process, nothing new: job {small['job, nothing new']} s")
    return {
        "items": bench.items,
        "cores": os.cpu_count(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "spark": bench.spark.version,
        "seconds": bench.figures,
        "cold_wall_seconds": small,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--items", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--only",
        choices=("large", "deliveries", "many", "cold", "maintenance", "old"),
        action="append",
        help="one part; can be said again",
    )
    parser.add_argument("--memory", default="2g", help="Spark's driver heap")
    options = parser.parse_args()
    parts = options.only or ["large", "many", "deliveries", "cold", "maintenance", "old"]
    folder = STATE / "bench"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    small = cold(folder, options.repeats) if "cold" in parts else {}
    os.environ.update(spark_environment(options.memory))
    bench = Bench(folder, options.items, options.repeats)
    if "large" in parts:
        bench.large()
    if "many" in parts:
        bench.many_files()
    if "deliveries" in parts:
        bench.deliveries()
    if "maintenance" in parts:
        bench.maintenance()
    if "old" in parts:
        bench.old_lake()
    result = report(bench, small)
    (ROOT / "tests" / "benchmarks" / "last.json").write_text(json.dumps(result, indent=1) + "\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
