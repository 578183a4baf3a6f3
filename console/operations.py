"""Everything that changes data: uploads, and executions of the state machine.

An operation runs twice: as a dry run, whose plan a person reads, then with the same input without
`dry_run`. Both are ordinary executions; nothing is stored in between.
"""

from __future__ import annotations

import datetime as dt
import getpass
import re
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from botocore.exceptions import ClientError

import glue_operations
from client import SetupError
from client.aws import AWS_ERRORS, code_of
from client.operations import Operations, Outcome
from console.data import Attention, Lake

PATIENCE = 1800.0  # seconds
UPLOADS = 16  # files uploaded at a time
NO_OPERATIONS = "This deployment's state machine does not know operations: deploy it anew."
READS_ONLY = "This console only reads. Start it with --operate to {}."
UPLOAD_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,900}\Z")


class Refused(Exception):
    """A request that is not permitted; the message says why and what to do."""


@dataclass
class Batch:
    """An upload into the raw zone.

    files   path in the raw zone -> file on this machine
    sent    paths that were uploaded
    failed  path -> error
    """

    files: Mapping[str, Path]
    sent: list[str] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)
    cancelled: threading.Event = field(default_factory=threading.Event)
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))


class Operator:
    """Uploads and operations on one environment. `allowed` is false if the console only reads.
    `author` is the person who acts, by default the user of this machine."""

    def __init__(self, lake: Lake, allowed: bool, author: str = "") -> None:
        self.lake, self.allowed = lake, allowed
        self.author = author or getpass.getuser()

    def why_not(self) -> str:
        """Return why operations cannot be started; empty if they can, or if AWS does not answer:
        start() checks again."""
        try:
            return self._obstacle()
        except AWS_ERRORS:
            return ""

    def _obstacle(self) -> str:
        if not self.allowed:
            return READS_ONLY.format("change data")
        return "" if self.lake.runs.knows_operations else NO_OPERATIONS

    def upload(self, path: str, stream: BinaryIO) -> None:
        """Put a file into the raw zone; its event starts a run. Raises Refused if a file with this
        name is there already: it is not overwritten."""
        if not self.allowed:
            raise Refused(READS_ONLY.format("upload files"))
        if not UPLOAD_NAME.match(path) or path.startswith("/"):
            raise Refused(f"{path!r} is no name for a file in the raw zone")
        place = self.lake.place
        try:
            place.clients["s3"].put_object(
                Bucket=place.raw_bucket, Key=place.raw_prefix + path, Body=stream, IfNoneMatch="*"
            )
        except ClientError as error:
            if code_of(error) != "PreconditionFailed":
                raise
            raise Refused(
                f"{path} lies in the raw zone already: rename it, or wait for a run"
            ) from None

    def upload_all(self, batch: Batch) -> None:
        """Upload the files of a batch, several at a time, until it is cancelled."""

        def send(path: str) -> None:
            if batch.cancelled.is_set():
                return
            try:
                with batch.files[path].open("rb") as stream:
                    self.upload(path, stream)
            except Exception as error:  # shown beside the file; the others are still uploaded
                batch.failed[path] = error
            else:
                batch.sent.append(path)

        with ThreadPoolExecutor(UPLOADS) as pool:
            list(pool.map(send, batch.files))

    def stop(self, run_id: str, why: str) -> None:
        """Stop an execution and the job that it waits for. The next run finishes or takes back what
        the job has begun."""
        if not self.allowed:
            raise Refused(READS_ONLY.format("stop runs"))
        self._operations().stop(run_id, self.author, why)

    def dismiss(self, item: Attention, why: str) -> None:
        """Hide an item for all users until its count grows. Raises Refused."""
        if not self.allowed:
            raise Refused(READS_ONLY.format("dismiss anything"))
        self.lake.dismiss(item, why, self.author)

    def start(self, request: Mapping[str, Any], dry_run: bool) -> str:
        """Start an operation; return its run id. Raises Refused."""
        name = str(request.get("operation"))
        if name not in glue_operations.SPECS:
            raise Refused(f"There is no operation {name!r}")
        why = self._obstacle()
        if why:
            raise Refused(why)
        try:
            return self._operations().start({**request, "author": self.author, "dry_run": dry_run})
        except SetupError as error:
            raise Refused(str(error)) from None

    def load(self) -> str:
        """Start a run as the hourly sweep does; return its run id."""
        if not self.allowed:
            raise Refused(READS_ONLY.format("start runs"))
        return self._operations().start({})

    def wait(self, run_id: str, patience: float = PATIENCE) -> Outcome:
        """Wait for the end of an operation; return its outcome. Raises Refused."""
        try:
            return self._operations().wait(run_id, self.lake.place.pause, patience)
        except SetupError as error:
            raise Refused(str(error)) from None

    def _operations(self) -> Operations:
        """Return a client of operations with the current credentials."""
        return self.lake.place.operations()
