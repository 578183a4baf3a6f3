"""The sources of all subjects: answers of Athena, executions, objects.

Answers of Athena are cached until an execution starts or ends.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Hashable
from typing import Any

from botocore.exceptions import ClientError

from client.aws import code_of
from client.places import Place
from console.athena import Answer, Athena, Memory, QueryError

PAGE = 50  # rows of a list
ROWS = 1000  # of an answer, by default
MISSING = ("NoSuchKey", "404", "NoSuchBucket", "NotFound")


class Source:
    """The services of one environment, behind a cache."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.athena = Athena(place)
        self.memory = Memory(self.stamp)
        self._stamp: tuple[float, Hashable] = (0.0, None)
        self._stamp_lock = threading.Lock()

    def stamp(self) -> Hashable:
        """Return a value that changes when an execution starts or ends."""
        with self._stamp_lock:
            read_at, stamp = self._stamp
            if not read_at or time.monotonic() - read_at > self.place.pause:
                newest = self.executions(10)
                stamp = tuple(
                    (execution["executionArn"], execution["status"]) for execution in newest
                )
                self._stamp = (time.monotonic(), stamp)
            return stamp

    def forget(self) -> None:
        """Read the executions again before the next answer, because a person has changed something
        or refreshes the page."""
        with self._stamp_lock:
            self._stamp = (0.0, None)

    def ask(self, sql: str, limit: int = ROWS) -> Answer:
        """Return a query's answer, cached if nothing has run since; without rows if no run has
        written the table yet."""
        try:
            return self.memory.get(sql, lambda: self.athena.ask(sql, limit))
        except QueryError as error:
            if error.no_table:
                return Answer((), (), ())
            raise

    def executions(self, limit: int, status: str = "") -> list[dict[str, Any]]:
        """Return the newest executions."""
        newest, _ = self.executions_page(limit, "", status)
        return newest

    def executions_page(
        self, limit: int, token: str = "", status: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        """Return a page of executions, newest first, and the token of the next page."""
        options: dict[str, Any] = {"nextToken": token} if token else {}
        if status:
            options["statusFilter"] = status
        page = self.place.clients["stepfunctions"].list_executions(
            stateMachineArn=self.place.state_machine, maxResults=limit, **options
        )
        return page["executions"][:limit], page.get("nextToken") or ""

    def object(self, bucket: str, key: str, limit: int) -> bytes | None:
        """Return the first `limit` bytes of an object, or None if it does not exist."""
        try:
            body = self.place.clients["s3"].get_object(Bucket=bucket, Key=key)["Body"]
        except ClientError as error:
            if code_of(error) not in MISSING:
                raise
            return None
        with body:
            return body.read(limit)

    def head(self, bucket: str, key: str) -> dict[str, Any] | None:
        """Return size and time of an object, or None if it does not exist."""
        try:
            head = self.place.clients["s3"].head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if code_of(error) not in MISSING:
                raise
            return None
        return {"size": head["ContentLength"], "modified": head["LastModified"]}


def number(answer: Answer) -> int:
    """Return the only number of an answer; 0 if its table does not exist."""
    return int(answer.rows[0][0] or 0) if answer.rows else 0


def moment(text: str | None) -> dt.datetime | None:
    """Parse a time of Athena (`2025-04-01 10:00:00.000 UTC`) or of a summary; None if invalid."""
    if not text:
        return None
    plain = text.replace(" UTC", "+00:00").replace("Z", "+00:00")
    try:
        read = dt.datetime.fromisoformat(plain)
    except ValueError:
        return None
    return read if read.tzinfo else read.replace(tzinfo=dt.UTC)
