"""The job gives what each scenario in `tests/scenarios` says."""

from __future__ import annotations

import pytest

from tests.scenario_files import comparable, figure, in_order, read_scenario, scenario_names
from tests.spark.conftest import Lake, check_equation


@pytest.mark.slow
@pytest.mark.parametrize("name", scenario_names())
def test_the_job_gives_what_the_scenario_says(lake: Lake, name: str) -> None:
    scenario = read_scenario(name)
    summaries = {run.number: lake.run(run.files, run.force) for run in scenario.runs}
    for summary in summaries.values():
        check_equation(summary)
    assert lake.tables() == scenario.tables
    assert scenario.summary == {
        (run, dataset, measure): figure(summaries[run], dataset, measure)
        for run, dataset, measure in scenario.summary
    }
    if scenario.rejected is not None:
        assert scenario.rejected == in_order(
            [
                comparable(row.dataset, row.record_key, row.status, row.reasons)
                for row in lake.records()
            ]
        )
