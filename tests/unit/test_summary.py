"""What the job writes and what the state machine reads is one contract:
stepfunctions/summary.schema.json."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tests.pipeline.fakes import FakeJob

SCHEMA = json.loads(
    (Path(__file__).resolve().parents[2] / "stepfunctions" / "summary.schema.json").read_text()
)
CONTRACT = Draft202012Validator(SCHEMA)


def summary(**changed: Any) -> dict[str, Any]:
    return {**FakeJob().summary("run-1", [], 0), **changed}


def without(path: str) -> dict[str, Any]:
    """A summary that lacks one field."""
    made = copy.deepcopy(summary())
    *parents, name = path.split(".")
    inner = made
    for parent in parents:
        inner = inner[parent]
    del inner[name]
    return made


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_the_job_that_stands_in_for_the_real_one_keeps_the_contract() -> None:
    CONTRACT.validate(summary())
    CONTRACT.validate(summary(status="FAILED", error="ValueError: x", tables={}))
    CONTRACT.validate(summary(status="NOTHING_NEW", tables={}))


def test_a_field_more_is_no_breach() -> None:
    CONTRACT.validate(summary(later="added"))


@pytest.mark.parametrize(
    "path", ["schema_version", "files.changed", "datasets.orders.parked", "tables.clean_orders"]
)
def test_a_field_less_is_a_breach(path: str) -> None:
    with pytest.raises(ValidationError):
        CONTRACT.validate(without(path))


def test_another_version_is_a_breach() -> None:
    with pytest.raises(ValidationError):
        CONTRACT.validate(summary(schema_version=2))
