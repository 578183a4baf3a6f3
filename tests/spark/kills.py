"""A run that is killed after one of its steps: in this process, or by a real SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

import glue_etl as etl
from local.runtime import ROOT, spark_environment
from tests.spark.conftest import FAST

KILLER = """
import importlib, json, os, signal, sys
import glue_etl as etl
script, step, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
steps = etl.progress
def kill(name):
    steps(name)
    if name == step:
        os.kill(os.getpid(), signal.SIGKILL)
etl.progress = kill
importlib.import_module(script).main(arguments)
"""


Main = Callable[[Sequence[str]], int]  # of the load or of the operations


class Killed(BaseException):
    """In place of a SIGKILL: neither the job nor an operation catches it."""


def kill_in_process(main: Main, step: str, arguments: Sequence[str]) -> None:
    """Stop the script after a step. What is on disk then is what a SIGKILL leaves: the scratch too,
    which is not cleared on the way out."""
    with pytest.MonkeyPatch.context() as patch:

        def stop(name: str) -> None:
            if name == step:
                patch.setattr(etl.FolderStorage, "remove", lambda self, prefix: None)
                raise Killed

        patch.setattr(etl, "progress", stop)
        with pytest.raises(Killed):
            main(arguments)


def kill(main: Main, step: str, arguments: Sequence[str]) -> None:
    """Run the script in a process of its own, which kills itself after a step."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLER, main.__module__, step, json.dumps(arguments)],
        env={**os.environ, **spark_environment(settings=FAST), "PYTHONPATH": str(ROOT / "src")},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
