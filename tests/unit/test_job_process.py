"""The job's process: Ctrl-C ends a run and its Java, and a Spark that died is started anew."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from local.aws import job, worker
from local.aws.job import ENDED, JobProcess
from local.aws.pipeline import SparkJob
from local.aws.server import JobFailed

# Plays the worker: a child process that lives on plays Java
WORKER = f"""
import json, subprocess, sys
java = subprocess.Popen(["sleep", "600"], stdout=sys.stdout)
print("java", java.pid, flush=True)
for line in sys.stdin:
    if "forever" in json.loads(line):
        print("going on", flush=True)
        java.wait()
    if "died" in json.loads(line):
        java.kill()
        print("exit 1{ENDED}", flush=True)
        break
    print("exit 0", flush=True)
java.kill()
"""


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobProcess:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    monkeypatch.setattr(job, "STATE", tmp_path)
    monkeypatch.setattr(job, "spark_environment", lambda memory, settings: {})
    monkeypatch.setattr(job, "WORKER", [str(script)])
    return JobProcess()


def ended(pid: int) -> bool:
    """Whether a process is gone, or is only waited for by nobody."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def wait_until_ended(pid: int) -> None:
    """Wait until a process that was killed is gone."""
    while not ended(pid):
        time.sleep(0.01)


def java_of(process: JobProcess) -> int:
    lines: list[str] = []
    assert process.run(["ok"], lines.append) == 0
    return int(lines[0].split()[1])


def test_the_end_of_a_run_is_not_waited_for_and_no_java_is_left(process: JobProcess) -> None:
    java, begun = java_of(process), threading.Event()
    codes: list[int] = []
    run = threading.Thread(
        target=lambda: codes.append(process.run(["forever"], lambda line: begun.set()))
    )
    run.start()
    begun.wait()
    process.close()
    run.join()
    wait_until_ended(java)
    assert codes != [0]


def test_a_process_without_work_ends_by_itself(process: JobProcess) -> None:
    java = java_of(process)
    process.close()
    wait_until_ended(java)
    assert not process.alive()


def test_a_stopped_execution_ends_its_own_run_and_the_next_one_gets_a_new_spark(
    process: JobProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SparkJob, "_start", lambda self: JobProcess())
    monkeypatch.setattr(SparkJob, "_cause", lambda self, arguments: None)
    begun = threading.Event()
    spark_job = SparkJob("http://localhost", lambda line: begun.set())
    failures: list[Exception] = []

    def run() -> None:
        try:
            spark_job({"--RUN_ID": "long", "--WORK": "forever"})
        except JobFailed as failure:
            failures.append(failure)

    running = threading.Thread(target=run)
    running.start()
    begun.wait()
    spark_job.stop("another")
    assert running.is_alive()
    spark_job.stop("long")
    running.join()
    assert len(failures) == 1
    spark_job({"--RUN_ID": "next", "--WORK": "ok"})
    spark_job.close()


def test_a_process_whose_java_died_is_gone_when_the_run_has_ended(process: JobProcess) -> None:
    assert process.run(["died"]) == 1
    assert not process.alive()
    process.close()


@pytest.mark.parametrize(("code", "gone"), [(None, False), (137, True)])
def test_a_dead_java_is_seen(code: int | None, gone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pyspark = pytest.importorskip("pyspark")
    java = SimpleNamespace(proc=SimpleNamespace(poll=lambda: code))
    monkeypatch.setattr(pyspark.SparkContext, "_gateway", java)
    assert worker.java_has_ended() is gone
