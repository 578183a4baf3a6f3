"""Reads the scenarios in `tests/scenarios` (its README says how a scenario is written)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.model import COLUMNS, KEY, RawFile

FOLDER = Path(__file__).parent / "scenarios"
TABLES = {
    "products": "clean_products",
    "orders": "clean_orders",
    "order_items": "clean_orders_items",
}
FIRST_DELIVERY = datetime(2025, 5, 1, 6)
READ: dict[str, Callable[[str], Any]] = {
    "name": str,
    "text": str,
    "int": int,
    "double": float,
    "boolean": {"true": True, "false": False}.__getitem__,
    "timestamp": datetime.fromisoformat,
    "date": date.fromisoformat,
}


@dataclass(frozen=True)
class Run:
    """One run: its number in the summary (0 is `given`), its files, and whether it is forced."""

    number: int
    files: list[RawFile]
    force: bool


@dataclass(frozen=True)
class Scenario:
    """A story: its runs, and what holds after the last.

    tables    dataset -> key -> typed values in the order of the columns
    summary   (run, dataset or "files", measure) -> value
    rejected  sorted (dataset, record key or None, status, reasons in alphabetical order), or None
              if nothing is said
    """

    name: str
    runs: list[Run]
    tables: dict[str, dict[str, tuple]]
    summary: dict[tuple[int, str, str], int]
    rejected: list[tuple[str, str | None, str, tuple[str, ...]]] | None


def scenario_names() -> list[str]:
    return sorted(folder.name for folder in FOLDER.iterdir() if (folder / "then").is_dir())


def read_scenario(name: str) -> Scenario:
    then = FOLDER / name / "then"
    figures = {
        (int(row["run"]), row["dataset"], row["measure"]): int(row["value"])
        for row in _rows(then / "summary.csv")
    }
    return Scenario(
        name,
        list(_runs(FOLDER / name)),
        {dataset: _table(then, dataset) for dataset in TABLES},
        figures,
        _rejected(then / "rejected_records.csv"),
    )


def figure(summary: dict[str, Any], dataset: str, measure: str) -> int:
    """A figure of a run's summary.json (or of the model's, which has the same shape)."""
    numbers = summary["files"] if dataset == "files" else summary["datasets"][dataset]
    name, _, reason = measure.partition(".")
    return numbers[name].get(reason, 0) if reason else numbers[name]


def comparable(dataset: str, key: str | None, status: str, reasons: list[str]) -> tuple:
    """A row of rejected_records in the form of `Scenario.rejected`."""
    return dataset, key, status, tuple(sorted(reasons))


def in_order(rejected: list[tuple]) -> list[tuple]:
    return sorted(rejected, key=lambda row: (row[0], row[1] or "", *row[2:]))


def _runs(folder: Path) -> Iterator[Run]:
    if (folder / "given").is_dir():
        yield Run(0, _raw_files(folder / "given", 0), force=False)
    by_number = {int(when.name.split("-")[0]): when for when in (folder / "when").iterdir()}
    for number, when in sorted(by_number.items()):
        yield Run(number, _raw_files(when, number), force=when.name.endswith("-force"))


def _raw_files(folder: Path, number: int) -> list[RawFile]:
    modified = FIRST_DELIVERY + timedelta(days=number)
    return [
        RawFile(path.relative_to(folder).as_posix(), path.read_bytes(), modified)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _table(then: Path, dataset: str) -> dict[str, tuple]:
    kinds, rows = COLUMNS[dataset], _rows(then / f"{TABLES[dataset]}.csv")
    table = {
        row[KEY[dataset]]: tuple(
            READ[kind](row[name]) if row[name] else None for name, kind in kinds.items()
        )
        for row in rows
    }
    assert len(table) == len(rows), f"{then}: a key appears twice in {TABLES[dataset]}.csv"
    return table


def _rejected(path: Path) -> list[tuple] | None:
    if not path.exists():
        return None
    return in_order(
        [
            comparable(
                row["dataset"], row["record_key"] or None, row["status"], row["reasons"].split()
            )
            for row in _rows(path)
        ]
    )
