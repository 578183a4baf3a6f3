"""What `make run` shows of an execution is what has happened, and the exit code tells whether all
went well."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from local.aws.server import JobFailed, LocalAws, Runners
from local.aws.stepfunctions import Pace
from local.commands import run
from local.commands.watch import Watch
from local.runtime import SetupError
from tests.pipeline.fakes import FakeCrawler, FakeJob, FakeQueries


class Stage:
    """A deployment with fakes behind it, and a console that keeps what was shown."""

    def __init__(self) -> None:
        self.job = FakeJob()
        runners = Runners(glue_job=self.job, crawl=FakeCrawler(), query=FakeQueries())
        self.aws = LocalAws(
            runners, pace=Pace(waits=0.01, retries=0.01, poll=0.05), batching_window=0.3
        ).start()
        self.screen = io.StringIO()
        self.watch = Watch(Console(file=self.screen, width=160))

    def deliver(self, folder: Path) -> bool:
        return run.deliver(self.aws, run.uploads(folder, folder)[0], self.watch)

    def shown(self) -> list[str]:
        return self.screen.getvalue().splitlines()


@pytest.fixture
def stage() -> Iterator[Stage]:
    built = Stage()
    yield built
    built.aws.stop()


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "1.csv").write_text("order_id\n1\n")
    return tmp_path


def test_each_state_of_an_execution_is_shown_in_the_order_of_its_end_and_then_the_message(
    stage: Stage, exports: Path
) -> None:
    assert stage.deliver(exports) is True
    shown = [line.split()[1] for line in stage.shown() if line.startswith("  ✓")]
    assert (
        shown[:4] == ["PrepareRun", "IsOperation", "FindNewFiles", "AnyNewFiles"]
        and shown[-1] == "RunSucceeded"
    )
    assert {
        "ArchiveProcessedFiles",
        "QueryProducts",
        "Parallel",
        "HandleValidationSuccess",
        "WriteRunReport",
    } < set(shown)
    assert any("✉ Delta Lake Run Succeed" in line for line in stage.shown())


def test_a_run_that_fails_is_shown_with_its_cause_and_is_no_success(
    stage: Stage, exports: Path
) -> None:
    stage.job.failures = [JobFailed("3 rows in the file, 2 accounted for")]
    assert stage.deliver(exports) is False
    assert any(line.startswith("  ! RunGlueJob") for line in stage.shown())
    assert any(line.startswith("  ✗ RunFailed") for line in stage.shown())
    assert any("3 rows in the file, 2 accounted for" in line for line in stage.shown())


def test_an_execution_that_failed_while_another_was_shown_is_not_overlooked(
    stage: Stage, exports: Path
) -> None:
    def too_late() -> None:
        stage.job.during = lambda: None
        stage.aws.client("stepfunctions").start_execution(
            stateMachineArn=stage.aws.name("StateMachine"), name="other"
        )
        stage.aws.client("stepfunctions").stop_execution(
            executionArn=stage.aws.executions()[-1]["executionArn"]
        )

    stage.job.during = too_late
    assert stage.deliver(exports) is False


def test_an_empty_folder_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="holds no files"):
        run.uploads(tmp_path, tmp_path)
