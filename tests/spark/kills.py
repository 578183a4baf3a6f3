"""A run that is killed after one of its steps: in this process, or by a real SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import ModuleType

import pytest

from local.runtime import ROOT, spark_environment
from tests.spark.conftest import FAST
from tools.files import load_job

KILLER = """
import json, os, signal, sys
from tools.files import load_job, load_operations
job, operations = load_job(), load_operations()
script, step, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
steps = job.progress
def kill(name):
    steps(name)
    if name == step:
        os.kill(os.getpid(), signal.SIGKILL)
job.progress = kill
{"glue_etl": job, "glue_operations": operations}[script].main(arguments)
"""


class Killed(BaseException):
    """In place of a SIGKILL: neither the job nor an operation catches it."""


def kill_in_process(script: ModuleType, step: str, arguments: Sequence[str]) -> None:
    """Stop the script after a step. What is on disk then is what a SIGKILL leaves: the scratch too,
    which is not cleared on the way out."""
    job = load_job()
    with pytest.MonkeyPatch.context() as patch:

        def stop(name: str) -> None:
            if name == step:
                patch.setattr(job.FolderStorage, "remove", lambda self, prefix: None)
                raise Killed

        patch.setattr(job, "progress", stop)
        with pytest.raises(Killed):
            script.main(arguments)


def kill(script: ModuleType, step: str, arguments: Sequence[str]) -> None:
    """Run the script in a process of its own, which kills itself after a step."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLER, script.__name__, step, json.dumps(arguments)],
        env={**os.environ, **spark_environment(settings=FAST), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
