"""The model gives what each scenario says; so does a check of the scenarios themselves."""

from __future__ import annotations

import pytest

from tests.model import Lakehouse
from tests.scenario_files import comparable, figure, in_order, read_scenario, scenario_names


def test_there_are_scenarios() -> None:
    assert len(scenario_names()) >= 25


@pytest.mark.parametrize("name", scenario_names())
def test_the_model_gives_what_the_scenario_says(name: str) -> None:
    scenario, lakehouse = read_scenario(name), Lakehouse()
    summaries = {run.number: lakehouse.run(run.files, run.force) for run in scenario.runs}
    assert lakehouse.tables == scenario.tables
    assert scenario.summary == {
        (run, dataset, measure): figure(summaries[run], dataset, measure)
        for run, dataset, measure in scenario.summary
    }
    if scenario.rejected is not None:
        assert scenario.rejected == in_order(
            [
                comparable(record.dataset, record.record_key, record.status, record.reasons)
                for record in lakehouse.records.values()
            ]
        )


@pytest.mark.parametrize("name", scenario_names())
def test_a_scenario_states_figures_of_each_story(name: str) -> None:
    scenario = read_scenario(name)
    assert scenario.summary, "then/summary.csv says nothing"
    assert {run for run, _, _ in scenario.summary} <= {run.number for run in scenario.runs}
