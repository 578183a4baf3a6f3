"""`python -m tests.benchmarks.check [--rows N]`: what the check before an upload takes.

A file of order items in four forms, each checked in a process of its own: plain, with quotes around
all values, with a plus before a count (no line is judged at a glance), and with a tenth of the rows
rejected. Wall and CPU seconds, and the peak of memory.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from client import ROOT
from rules.tables import COLUMNS

START = dt.datetime(2025, 4, 1)


def items(rows: int, sign: str = "", rejected: float = 0.0) -> Iterator[list[str]]:
    """Yield the header and rows of order items: with a sign before a count, and some with a value
    that is no number."""
    dice = random.Random(rows)
    yield list(COLUMNS["order_items"])
    for number in range(1, rows + 1):
        moment = START + dt.timedelta(seconds=20 * number)
        counts = [dice.randint(0, 30), dice.randint(1, 40_000), f"{sign}{number % 5}", number % 2]
        cells = [number, 1000 + number // 5, dice.randint(1, 50_000), *counts]
        row = [*map(str, cells), moment.isoformat(), moment.date().isoformat()]
        if dice.random() < rejected:
            row[3] = "abc"
        yield row


def forms(rows: int) -> dict[str, tuple[Iterator[list[str]], int]]:
    """Return the rows of each form, and how their values are quoted."""
    return {
        "plain": (items(rows), csv.QUOTE_MINIMAL),
        "quoted": (items(rows), csv.QUOTE_ALL),
        "none plain": (items(rows, sign="+"), csv.QUOTE_MINIMAL),
        "10 % rejected": (items(rows, rejected=0.1), csv.QUOTE_MINIMAL),
    }


def measure(path: Path) -> dict[str, float]:
    """Return seconds and megabytes of a check in a process of its own."""
    began = time.monotonic()
    command = [sys.executable, "-m", "local", "check", "--json", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    wall, cpu = time.monotonic() - began, usage.ru_utime + usage.ru_stime
    return {"wall": round(wall, 2), "cpu": round(cpu, 2), "mb": usage.ru_maxrss // 1024}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "order_items.csv"
        for name, (lines, quoting) in forms(rows).items():
            with path.open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream, quoting=quoting, lineterminator="\n").writerows(lines)
            figures[name] = measure(path)
    print(json.dumps({"rows": rows, "forms": figures}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
