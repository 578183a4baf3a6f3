"""What changes something: uploads, and executions of the state machine by its input.

An operation is first run as a dry run, whose plan a person reads; then the same input without
`dry_run` does it. Nothing is remembered here: both are ordinary executions, and what they found and
did is in their run's records.
"""

from __future__ import annotations

import getpass
import json
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import glue_etl
import glue_operations
from console.data import ENDED_BADLY, Lake, causes

PATIENCE = 1800.0  # seconds
UPLOAD_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,900}\Z")


class Refused(Exception):
    """What was asked for may not be done; the message says why and what to do."""


@dataclass(frozen=True)
class Outcome:
    """How an operation, or its dry run, ended."""

    run_id: str
    succeeded: bool
    text: str
    error: str = ""
    plan: Mapping[str, Any] = field(default_factory=dict)
    effect: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)  # operation.json


def dataset_of(path: str) -> str | None:
    """The dataset that a path below the raw zone names, by the job's own rule."""
    return glue_etl.dataset_of(path)


class Operator:
    """What may be done to one environment. `allowed` is false where the console only reads."""

    def __init__(self, lake: Lake, allowed: bool) -> None:
        self.lake, self.allowed = lake, allowed
        self.author = getpass.getuser()

    def why_not(self) -> str:
        """Return why operations cannot be started; empty if they can."""
        if not self.allowed:
            return "This console only reads. Start it with --operate to change data."
        if not self.lake.knows_operations:
            return "This deployment's state machine does not know operations: deploy it anew."
        return ""

    # Uploads --------------------------------------------------------------------------------------

    def upload(self, path: str, stream: BinaryIO) -> None:
        """Puts a file into the raw zone; its event starts a run."""
        if not self.allowed:
            raise Refused("This console only reads. Start it with --operate to upload files.")
        if not UPLOAD_NAME.match(path) or path.startswith("/"):
            raise Refused(f"{path!r} is no name for a file in the raw zone")
        place = self.lake.place
        place.clients["s3"].upload_fileobj(stream, place.raw_bucket, place.raw_prefix + path)

    # Executions -----------------------------------------------------------------------------------

    def start(self, request: Mapping[str, Any], dry_run: bool) -> str:
        """Starts an operation; returns its run id. Raises Refused."""
        name = str(request.get("operation"))
        if name not in glue_operations.SPECS:
            raise Refused(f"There is no operation {name!r}")
        why = self.why_not()
        if why:
            raise Refused(why)
        asked = {**request, "author": self.author, "dry_run": dry_run}
        return self._execute(asked, f"{name}-{'plan-' if dry_run else ''}{uuid.uuid4()}")

    def load(self) -> str:
        """Starts a run as the hourly sweep does; returns its run id."""
        if not self.allowed:
            raise Refused("This console only reads. Start it with --operate to start runs.")
        return self._execute({}, f"load-{uuid.uuid4()}")

    def _execute(self, asked: Mapping[str, Any], run_id: str) -> str:
        self.lake.place.clients["stepfunctions"].start_execution(
            stateMachineArn=self.lake.place.state_machine,
            name=run_id,
            input=json.dumps(asked, ensure_ascii=False),
        )
        return run_id

    def outcome(self, run_id: str) -> Outcome | None:
        """How an execution ended; None while it runs."""
        run = self.lake.run(run_id)
        if run is None or run.running:
            return None
        told = run.summary.get("operation") or {}
        error = "\n".join(causes(run, self.lake.history(run_id))) if run.failed else ""
        return Outcome(
            run_id,
            run.status not in ENDED_BADLY and not run.summary.get("error"),
            str(told.get("text") or ""),
            error or str(run.summary.get("error") or ""),
            told.get("plan") or {},
            told.get("effect") or {},
            self.lake.record(run_id, "operation.json") or {},
        )

    def wait(self, run_id: str, patience: float = PATIENCE) -> Outcome:
        """The outcome, once there is one."""
        end = time.monotonic() + patience
        while (found := self.outcome(run_id)) is None:
            if time.monotonic() > end:
                raise Refused(f"{run_id} is still running: look at its page")
            time.sleep(0.3 if self.lake.place.local else 2)
        return found
