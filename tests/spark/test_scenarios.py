"""The job gives what each scenario in `tests/scenarios` says."""

from __future__ import annotations

import io

import pytest

from client import check
from tests.model import RawFile
from tests.scenario_files import comparable, figure, in_order, read_scenario, scenario_names
from tests.spark.conftest import Lake, check_equation


def checked(files: list[RawFile]) -> dict[str, tuple[bool, str | None, int]]:
    """Of each file what the check before the upload says: whether it is set aside, why, its
    rows."""
    verdicts = {}
    for file in files:
        verdict = check.check_file(file.path, io.BytesIO(file.content), file.modified)
        aside = verdict.outcome == check.SET_ASIDE
        verdicts[file.path] = (aside, verdict.reason, 0 if aside else verdict.rows)
    return verdicts


@pytest.mark.slow
@pytest.mark.parametrize("name", scenario_names())
def test_the_job_gives_what_the_scenario_says(lake: Lake, name: str) -> None:
    scenario = read_scenario(name)
    summaries = {run.number: lake.run(run.files, run.force) for run in scenario.runs}
    for place, run in enumerate(scenario.runs, 1):
        check_equation(summaries[run.number])
        expected = {
            path: (entry["outcome"] == "set_aside", entry["reason"], entry["rows_read"])
            for path, entry in lake.manifest(f"run-{place}").items()
            if entry["outcome"] in ("loaded", "set_aside")
            and entry["reason"] != "keys_reused"  # which only the tables tell
        }
        assert {
            path: verdict for path, verdict in checked(run.files).items() if path in expected
        } == expected
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
