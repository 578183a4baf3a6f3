"""Random schedules of loads, corrections, replays and rollbacks end as the plain model says.

What happens to the lake (load, correct, replay, roll back) is a sequence drawn at random; a hundred
and more schedules of deliveries, each with its own prefix of keys, go through it side by side.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import glue_etl as etl
from rules.tables import CUSTOM_RULES, KEY
from tests.model import Lakehouse, RawFile
from tests.spark.conftest import check_equation
from tests.spark.operations import OperatedLake
from tests.spark.test_random_schedules import HEADERS, csv_text, drawn_file

SEQUENCES, SCHEDULES, LOADS = 4, 30, 4
CORRECTIONS = {
    "orders": "UPDATE clean_orders SET total_amount = total_amount + 100 WHERE order_id LIKE '%1'",
    "order_items": "DELETE FROM clean_orders_items WHERE id LIKE '%2'",
    "products": "UPDATE clean_products SET product_name = 'Ink' WHERE product_id LIKE '%3'",
}
STEPS = ["load", "correct", "replay rows", "replay files", "roll back", "relax"]
STRICT = "amount_of_one_and_a_half"


def corrected(dataset: str, values: dict[str, Any]) -> dict[str, Any] | None:
    """What the statement of the dataset makes of a row."""
    last = values[KEY[dataset]][-1]
    if dataset == "orders" and last == "1":
        return values | {"total_amount": values["total_amount"] + 100}
    if dataset == "order_items" and last == "2":
        return None
    return values | ({"product_name": "Ink"} if (dataset, last) == ("products", "3") else {})


def drawn() -> list[tuple[list[str], list[list[list[tuple]]]]]:
    """Sequences of steps, each with its schedules: for each load the files of each schedule."""
    sequences: list[Any] = []
    steps = st.permutations(STEPS)
    files = st.lists(drawn_file(), max_size=2)
    schedules = st.lists(
        st.lists(files, min_size=LOADS, max_size=LOADS), min_size=SCHEDULES, max_size=SCHEDULES
    )

    @settings(
        max_examples=SEQUENCES + 1,  # the first is the least of all, and has no files
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(steps, schedules)
    def collect(steps: list[str], schedules: list[Any]) -> None:
        sequences.append((["load", "load", *steps], schedules))

    collect()
    return sequences[1:]


@dataclass
class Play:
    """A lake and the models of its schedules, taken through the same steps."""

    lake: OperatedLake
    schedules: list[list[list[tuple]]]
    models: list[Lakehouse]
    states: dict[str, list[Lakehouse]] = field(default_factory=dict)
    delivered: list[list[RawFile]] = field(default_factory=list)
    loads: int = 0

    def step(self, name: str, number: int) -> None:
        steps = {
            "load": self.load,
            "correct": self.correct,
            "replay rows": self.replay_rows,
            "replay files": self.replay_files,
            "roll back": self.roll_back,
            "relax": self.relax,
        }
        steps[name](number)
        self.check(f"{number} {name}")

    def load(self, number: int) -> None:
        """The next files of each schedule, delivered now."""
        now = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
        runs = []
        for place, schedule in enumerate(self.schedules):
            files = schedule[self.loads % LOADS]
            prefix = str(1000 + place) if place % 2 else f"s{place}-"
            runs.append(
                [
                    RawFile(
                        f"{dataset}/{prefix}-{self.loads}-{order}.csv",
                        csv_text(prefix, dataset, rows).encode(),
                        now - timedelta(seconds=order % 2),
                    )
                    for order, (dataset, rows) in enumerate(files)
                ]
            )
        self.loads += 1
        expected = [model.run(files) for model, files in zip(self.models, runs, strict=True)]
        self.delivered.append([file for files in runs for file in files])
        summary = self.lake.load(self.delivered[-1])
        self.compare(summary, expected)
        self.keep(f"run-{self.lake.runs}")

    def correct(self, number: int) -> None:
        dataset = list(CORRECTIONS)[number % 3]
        summary = self.lake.operate("sql", sql=CORRECTIONS[dataset])
        assert summary["status"] == "SUCCEEDED"
        now = datetime.now(UTC).replace(tzinfo=None)
        for model in self.models:
            model.correct(dataset, now, lambda values: corrected(dataset, values))
        self.keep(f"op-{self.lake.asked}")

    def replay_rows(self, number: int) -> None:
        expected = [model.replay(lambda record: True) for model in self.models]
        self.compare(self.lake.operate("replay"), expected)
        self.keep(f"op-{self.lake.asked}")

    def replay_files(self, number: int) -> None:
        files = [file for files in self.delivered for file in files]
        expected = []
        for place, model in enumerate(self.models):
            prefix = str(1000 + place) if place % 2 else f"s{place}-"
            mine = [file for file in files if f"/{prefix}-" in file.path]
            expected.append(model.run(mine, archived=True))
        self.compare(self.lake.operate("replay", archived={}), expected)
        self.keep(f"op-{self.lake.asked}")

    def roll_back(self, number: int) -> None:
        run_id = sorted(self.states)[number * 7 % len(self.states)]
        self.lake.operate("rollback", to=run_id)
        self.models = copy.deepcopy(self.states[run_id])
        self.keep(f"op-{self.lake.asked}")

    def relax(self, number: int) -> None:
        """From here on the strict rule holds no more."""
        CUSTOM_RULES["orders"].clear()
        etl.TABLES = (
            etl.PRODUCTS,
            etl.ORDERS,
            etl.ORDER_ITEMS,
        )

    def keep(self, run_id: str) -> None:
        self.states[run_id] = copy.deepcopy(self.models)

    def compare(self, summary: dict[str, Any], expected: list[dict[str, Any]]) -> None:
        """The row equation, and the numbers of all models together."""
        check_equation(summary)
        for dataset, numbers in summary["datasets"].items():
            for measure, value in numbers.items():
                if measure != "rejected_by_reason":
                    total = sum(counts["datasets"][dataset][measure] for counts in expected)
                    assert value == total, (dataset, measure)

    def check(self, step: str) -> None:
        tables = self.lake.tables()
        for dataset in HEADERS:
            expected = {
                key: row for model in self.models for key, row in model.tables[dataset].items()
            }
            assert tables[dataset] == expected, (step, dataset)
        statuses = {(row.file_path, row.line): row.status for row in self.lake.records()}
        records = [record for model in self.models for record in model.records.values()]
        assert statuses == {
            (record.source.path, record.source.line): record.status for record in records
        }, step


@pytest.mark.long
@pytest.mark.parametrize("sequence", range(SEQUENCES))
def test_random_operations_end_in_the_tables_of_the_model(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sequence: int
) -> None:
    steps, schedules = drawn()[sequence]
    rule = etl.Rule(STRICT, lambda text, value: value("total_amount") == 1.5)
    strict = replace(etl.ORDERS, rules=(*etl.ORDERS.rules, rule))
    monkeypatch.setattr(etl, "TABLES", (etl.PRODUCTS, strict, etl.ORDER_ITEMS))
    monkeypatch.setitem(
        CUSTOM_RULES, "orders", {STRICT: lambda values: values["total_amount"] == 1.5}
    )
    play = Play(OperatedLake(tmp_path), schedules, [Lakehouse() for _ in schedules])
    for number, step in enumerate(steps):
        play.step(step, number)
