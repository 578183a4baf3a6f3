"""SQL through Athena's API: answers, errors with their place, literals, and a memory of answers."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from console.places import Place

OWN = "/* console */ "  # begins the console's own queries, which its history leaves out
PAGE = 1000  # rows that GetQueryResults gives at most
PATIENCE = 120.0  # seconds
LOOKED_BACK = 2000  # queries among which the newest of a person are looked for
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
Value = TypeVar("Value")


class QueryError(Exception):
    """A statement that Athena refused or could not finish; where it told, with line and column,
    which count from 1."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        place = re.search(r"\bline (\d+):(\d+):", message)
        self.line = int(place[1]) if place else None
        self.column = int(place[2]) if place else None

    @property
    def no_table(self) -> bool:
        """Whether no run has written the table yet."""
        return "TABLE_NOT_FOUND" in str(self) or "does not exist" in str(self)


@dataclass(frozen=True)
class Answer:
    """What a query returned, all values as Athena's text, NULL as None."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    query_id: str = ""
    seconds: float = 0.0
    scanned: int = 0
    more: bool = False  # there are rows behind the limit

    def records(self) -> list[dict[str, str | None]]:
        """The rows by the columns' names."""
        return [dict(zip(self.names, row, strict=True)) for row in self.rows]


def literal(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def containing(column: str, text: str) -> str:
    """The condition that a column holds a text, whatever stands in it."""
    return f"strpos({column}, {literal(text)}) > 0"


def one_of(column: str, texts: Sequence[str]) -> str:
    return f"{column} IN ({', '.join(map(literal, texts))})"


class Athena:
    """Queries of one environment."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.client = place.clients["athena"]
        self.own: set[str] = set()  # the ids of the console's own queries

    def ask(self, sql: str, limit: int = PAGE) -> Answer:
        """The answer to one of the console's own queries. Raises QueryError."""
        return self.run(OWN + sql, limit)

    def run(self, sql: str, limit: int = PAGE) -> Answer:
        """The first `limit` rows of the answer to a statement. Raises QueryError."""
        query_id = self.start(sql)
        if sql.startswith(OWN):
            self.own.add(query_id)
        try:
            told = self._wait(query_id)
        except QueryError:
            self.client.stop_query_execution(QueryExecutionId=query_id)
            raise
        if told["Status"]["State"] != "SUCCEEDED":
            raise QueryError(told["Status"].get("StateChangeReason") or "the query was cancelled")
        return self.result(query_id, limit, told)

    def start(self, sql: str) -> str:
        try:
            return self.client.start_query_execution(
                QueryString=sql,
                QueryExecutionContext={"Database": self.place.database},
                WorkGroup=self.place.workgroup,
            )["QueryExecutionId"]
        except ClientError as error:  # AWS refuses some statements before they start
            raise QueryError(error.response["Error"].get("Message", str(error))) from error

    def _wait(self, query_id: str) -> dict[str, Any]:
        end, pause = time.monotonic() + PATIENCE, 0.02 if self.place.local else 0.2
        while True:
            told = self.client.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
            if told["Status"]["State"] in ENDED:
                return told
            if time.monotonic() > end:
                raise QueryError(f"no answer within {PATIENCE:.0f} seconds: the query was stopped")
            time.sleep(pause)
            pause = min(pause * 1.3, 1.0)

    def result(self, query_id: str, limit: int, told: dict[str, Any] | None = None) -> Answer:
        """The first rows of a query that has succeeded."""
        names: tuple[str, ...] = ()
        types: tuple[str, ...] = ()
        rows: list[tuple[str | None, ...]] = []
        more = False
        for number, page in enumerate(self._pages(query_id)):
            meta = page["ResultSet"]["ResultSetMetadata"].get("ColumnInfo", [])
            names = tuple(one["Name"] for one in meta)
            types = tuple(one["Type"] for one in meta)
            data = [
                tuple(cell.get("VarCharValue") for cell in row["Data"])
                for row in page["ResultSet"]["Rows"]
            ]
            rows += data[1:] if number == 0 and data and data[0] == names else data
            if len(rows) > limit:
                more = True
                break
        statistics = (told or {}).get("Statistics", {})
        milliseconds = statistics.get("TotalExecutionTimeInMillis", 0)
        scanned = statistics.get("DataScannedInBytes", 0)
        shown = tuple(rows[:limit])
        return Answer(names, types, shown, query_id, milliseconds / 1000, scanned, more)

    def past(self, limit: int) -> list[str]:
        """The statements asked before, newest first, without the console's own."""
        found: list[str] = []
        pages = self.client.get_paginator("list_query_executions").paginate(
            WorkGroup=self.place.workgroup
        )
        ids = [one for page in pages for one in page["QueryExecutionIds"]][:LOOKED_BACK]
        if self.place.local:  # moto lists the oldest first
            ids.reverse()
        for query_id in ids:
            if query_id in self.own:
                continue
            told = self.client.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
            if told["Query"].startswith(OWN.strip()):
                self.own.add(query_id)
            elif told["Query"] not in found:
                found.append(told["Query"])
            if len(found) == limit:
                break
        return found

    def _pages(self, query_id: str) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            page = self.client.get_query_results(
                QueryExecutionId=query_id, MaxResults=PAGE, **token
            )
            yield page
            if not page.get("NextToken"):
                return
            token = {"NextToken": page["NextToken"]}


class Memory:
    """Answers that are good while `stamp()` stays the same, each worked out once however many ask
    for it at a time. The newest `size` are held."""

    def __init__(self, stamp: Callable[[], Hashable], size: int = 256) -> None:
        self.stamp, self.size = stamp, size
        self._held: OrderedDict[Hashable, Any] = OrderedDict()
        self._busy: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, work: Callable[[], Value]) -> Value:
        """What `work` gives, or gave since the stamp changed."""
        whole = (self.stamp(), key)
        with self._lock:
            if whole in self._held:
                self._held.move_to_end(whole)
                return self._held[whole]
            busy = self._busy.setdefault(whole, threading.Lock())
        with busy:
            with self._lock:
                if whole in self._held:
                    return self._held[whole]
            try:
                value = work()
            finally:
                with self._lock:
                    self._busy.pop(whole, None)
            with self._lock:
                self._held[whole] = value
                while len(self._held) > self.size:
                    self._held.popitem(last=False)
            return value
