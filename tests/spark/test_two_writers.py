"""Two writers past the lock, on a folder: no row is doubled or lost, and the loser says so.

The second writer begins and ends while the first one stands behind one of its steps.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

import glue_etl as etl
import glue_operations
from local.aws.job import job_arguments
from tests.spark.conftest import Lake, check_equation
from tests.spark.test_guarantees import COMMITS, first_delivery, second_delivery

STEPS = ["ledger asked", "resolved", *COMMITS[:-1]]  # etl_runs is written whoever else writes


def meanwhile(monkeypatch: pytest.MonkeyPatch, step: str, other: Callable[[], Any]) -> list[Any]:
    """Let the other writer do its work when the first one has said that a step is done."""
    done: list[Any] = []
    say = etl.progress

    def progress(text: str) -> None:
        say(text)
        if text == step and not done:
            done.append(None)
            done.append(other())

    monkeypatch.setattr(etl, "progress", progress)
    return done


@pytest.fixture(autouse=True)
def past_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etl.FolderStorage, "lease", lambda self, run_id: nullcontext())


def state(lake: Lake) -> tuple[Any, ...]:
    """All that must be there once: tables, rejects, the ledger's files."""
    records = sorted((str(row.record_key), row.line, row.status) for row in lake.records())
    return lake.tables(), records, sorted(row.file_path for row in lake.rows("ingested_files"))


@pytest.fixture(scope="module")
def loaded(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A lake with the first delivery, and what the second one makes of it."""
    first = Lake(tmp_path_factory.mktemp("first"))
    first.run(first_delivery())
    second = Lake(tmp_path_factory.mktemp("second"))
    shutil.copytree(first.folder, second.folder, dirs_exist_ok=True)
    second.run_on(second.write(second_delivery(), second.folder / "raw"), "alone")
    return {"folder": first.folder, "state": state(second)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step, marks=() if place % 2 else pytest.mark.long)
        for place, step in enumerate(STEPS)
    ],
)
def test_the_same_delivery_loaded_by_two_is_loaded_once(
    lake: Lake, loaded: dict[str, Any], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    shutil.copytree(loaded["folder"], lake.folder, dirs_exist_ok=True)
    raw = lake.write(second_delivery(), lake.folder / "raw")
    done = meanwhile(monkeypatch, step, lambda: lake.run_on(raw, "quick"))
    code = etl.main(job_arguments(raw, lake.folder, "slow"))
    assert len(done) == 2 and done[1]["status"] == "SUCCEEDED" or step == STEPS[-1]
    summary = json.loads((lake.folder / "runs" / "slow" / "summary.json").read_text())
    if step in STEPS[:-2]:
        assert (
            code == 1
            and "quick has written this table since the run slow began" in (summary["error"])
        )
        assert not (lake.folder / "runs" / "slow" / "manifest.jsonl").exists()
    check_equation(lake.run_on(raw, "after"))
    assert state(lake) == loaded["state"]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["ledger asked", "committed rejected_records"])
def test_two_first_loads_make_one_lake(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, step: str, new_lake: Callable[[str], Lake]
) -> None:
    alone = new_lake("alone")
    alone.run(first_delivery())
    raw = lake.write(first_delivery(), lake.folder / "raw")
    meanwhile(monkeypatch, step, lambda: lake.run_on(raw, "quick"))
    assert etl.main(job_arguments(raw, lake.folder, "slow")) == 1
    check_equation(lake.run_on(raw, "after"))
    assert state(lake) == state(alone)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["ledger asked", "committed clean_products"])
def test_a_load_beside_a_correction_says_who_was_quicker(
    lake: Lake, loaded: dict[str, Any], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    shutil.copytree(loaded["folder"], lake.folder, dirs_exist_ok=True)
    raw = lake.write(second_delivery(), lake.folder / "raw")
    sql = "UPDATE clean_orders SET user_id = 'corrected' WHERE order_id = 'o1'"
    asked = {"operation": "sql", "sql": sql, "author": "ann"}

    def correct() -> int:
        arguments = job_arguments(raw, lake.folder, "correction")
        return glue_operations.main([*arguments, "--OPERATION", json.dumps(asked)])

    done = meanwhile(monkeypatch, step, correct)
    assert etl.main(job_arguments(raw, lake.folder, "slow")) == 1 and done[1] == 0
    error = json.loads((lake.folder / "runs" / "slow" / "summary.json").read_text())["error"]
    assert "clean_orders: correction has written this table since the run slow began" in error
    lake.run_on(raw, "after")
    tables, _, files = state(lake)
    assert tables["order_items"] == loaded["state"][0]["order_items"]
    assert files == loaded["state"][2]


OPERATIONS: dict[str, dict[str, Any]] = {
    "sql": {"sql": "UPDATE clean_orders SET user_id = 'corrected' WHERE order_id = 'o1'"},
    "rollback": {"undo": "run-1"},
    "replay": {"discard": True, "why": "a test", "statuses": ["rejected"]},
    "optimize": {"min_files": 1},
    "vacuum": {},
}


class Beside:
    """A lake after its first load, with a second delivery in its raw zone."""

    def __init__(self, lake: Lake, loaded: dict[str, Any], operation: str) -> None:
        shutil.copytree(loaded["folder"], lake.folder, dirs_exist_ok=True)
        self.lake, self.raw = lake, lake.write(second_delivery(), lake.folder / "raw")
        self.request = {"operation": operation, "author": "ann", **OPERATIONS[operation]}

    def load(self, run_id: str = "load") -> int:
        return etl.main(job_arguments(self.raw, self.lake.folder, run_id))

    def operate(self) -> int:
        arguments = job_arguments(self.raw, self.lake.folder, "operation")
        return glue_operations.main([*arguments, "--OPERATION", json.dumps(self.request)])

    def end(self) -> tuple[Any, ...]:
        """What is there after one more load, which takes what a failed one has left."""
        assert self.load("after") == 0
        tables, records, files = state(self.lake)
        return tables, [record for record in records if record[2] != "superseded"], files


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_load_beside_an_operation_ends_as_one_after_the_other(
    lake: Lake,
    loaded: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    new_lake: Callable[[str], Lake],
    operation: str,
) -> None:
    right = []
    for number, actions in enumerate((("operate", "load"), ("load", "operate"), ("load",))):
        beside = Beside(new_lake(f"right-{number}"), loaded, operation)
        for action in actions:
            getattr(beside, action)()
        right.append(beside.end())
    steps = {
        "load": ["ledger asked", "committed rejected_records", "committed clean_orders_items"],
        "operate": ["tables opened", "intent written", "committed clean_orders"],
    }
    for slow, quick in (("load", "operate"), ("operate", "load")):
        for step in steps[slow]:
            beside = Beside(new_lake(f"{slow}-{step}"), loaded, operation)
            with monkeypatch.context() as patch:
                meanwhile(patch, step, getattr(beside, quick))
                getattr(beside, slow)()
            assert beside.end() in right, (operation, slow, step)
