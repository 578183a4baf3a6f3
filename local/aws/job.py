"""The deployed job in a process of its own, and its arguments for folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from local.runtime import (
    BRIEF,
    JAVA_OPTIONS,
    ROOT,
    STATE,
    can_keep_classes,
    class_archive,
    keep_classes,
    spark_environment,
)

WORKER = ["-m", "local.aws.worker"]
ENDED = " and Java has ended"  # said behind the exit code of a run
PATIENCE = 5  # seconds in which a Spark without work ends


class JobProcess:
    """The job in a process of its own that keeps its Spark between runs; Spark's own words go to a
    log file."""

    _running = False  # a run goes on

    def __init__(
        self,
        memory: str = "2g",
        settings: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        warm: bool = False,
        brief: bool = False,
    ) -> None:
        """
        warm   start Spark at once, not in the first run that has something to load
        brief  little is loaded and Spark does not live long; as it ends, Java keeps the classes for
               the next time, where there are none yet
        """
        STATE.mkdir(parents=True, exist_ok=True)
        self.log = STATE / "spark.log"
        self._errors = self.log.open("a")
        self._classes: Path | None = None
        if brief:
            settings = {**(settings or {}), **BRIEF}
            archive = class_archive()
            if not archive.exists() and can_keep_classes():
                self._classes = archive.with_suffix(f".{uuid.uuid4()}")
                settings[JAVA_OPTIONS] += f" -XX:ArchiveClassesAtExit={self._classes}"
        variables = {
            **os.environ,
            **spark_environment(memory, settings),
            **(environment or {}),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, *WORKER, *(["--warm"] if warm else [])]
        self._process = subprocess.Popen(
            command,
            env=variables,
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )

    def run(self, arguments: Sequence[str], show: Callable[[str], None] = lambda line: None) -> int:
        """Run the job once; `show` gets each line of progress. Returns its exit code."""
        assert self._process.stdin and self._process.stdout
        self._running = True
        try:
            self._process.stdin.write(json.dumps(list(arguments)) + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                if line.startswith("exit "):
                    if line.rstrip("\n").endswith(ENDED):
                        self._process.wait()
                    return int(line.split()[1])
                show(line.rstrip("\n"))
            return self._process.wait() or 1
        finally:
            self._running = False

    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process and its Spark at once, without a chance to tidy up."""
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def keeps_classes(self) -> bool:
        """Whether its end takes a quarter of a minute, since Java writes the archive."""
        return self._classes is not None

    def close(self) -> None:
        """End the process and its Spark. A run is not waited for: the next one finishes or takes
        back what it has begun."""
        if self._running:
            self.kill()
            self._process.wait()
        else:
            self._end()
        self._errors.close()

    def _end(self) -> None:
        """Wait until Python and its Java have ended; both hold stdout."""
        try:
            self._process.communicate(timeout=None if self._classes else PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        if self._classes is not None:
            keep_classes(self._classes)

    def __enter__(self) -> JobProcess:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def job_arguments(raw: Path, lake: Path, run_id: str, force: bool = False) -> list[str]:
    """The job's arguments for folders."""
    return [
        "--RAW_PATH",
        str(raw),
        "--LAKEHOUSE_PATH",
        str(lake / "lakehouse-dwh"),
        "--REJECTED_PATH",
        str(lake / "rejected"),
        "--RUNS_PATH",
        str(lake / "runs"),
        "--RUN_ID",
        run_id,
        "--FORCE",
        str(force).lower(),
    ]
