"""SQL through Athena's API: answers, errors with line and column, literals, a cache of answers."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from client.aws import code_of
from client.places import Place

# First words of the queries of the console and of the state machine; "asked before" skips them
OWN, PIPELINE = "/* console */ ", "/* pipeline */ "
PAGE = 1000  # rows that GetQueryResults returns at most
PATIENCE = 120.0  # seconds
REFUSED = "InvalidRequestException"  # AWS refuses some statements before they start
LOOKED_BACK = 2000  # queries to search for the newest ones of people
BATCH = 50  # queries of one call of BatchGetQueryExecution
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
ONLY_READING = (
    "Only SELECT, SHOW, DESCRIBE and EXPLAIN go to Athena. Tables are changed by INSERT, UPDATE, "
    "DELETE and MERGE, which show their plan first."
)
COMMENT = re.compile(r"--[^\r\n]*|/\*.*?\*/", re.DOTALL)
# EXPLAIN ANALYZE runs the statement
EXPLAIN = re.compile(
    r"\s*EXPLAIN\b(\s+ANALYZE\b)?(\s+VERBOSE\b)?(\s*\((\s*(TYPE|FORMAT)\s+\w+\s*,?)+\))?",
    re.IGNORECASE,
)
READS = re.compile(r"[\s(]*(SELECT|WITH|SHOW|DESCRIBE)\b", re.IGNORECASE)
Value = TypeVar("Value")


def reads(sql: str) -> bool:
    """Return whether a statement only reads."""
    text = COMMENT.sub(" ", sql)
    return READS.match(EXPLAIN.sub("", text, count=1)) is not None


class QueryError(Exception):
    """A statement that Athena refused or could not finish. `line` and `column` count from 1, and
    are None if the message names no place."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        place = re.search(r"\bline (\d+):(\d+):", message)
        self.line = int(place[1]) if place else None
        self.column = int(place[2]) if place else None

    @property
    def no_table(self) -> bool:
        """Return whether the table does not exist: no run has written it yet."""
        return "TABLE_NOT_FOUND" in str(self) or "does not exist" in str(self)


@dataclass(frozen=True)
class Answer:
    """The result of a query: all values as Athena's text, NULL as None."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    query_id: str = ""
    seconds: float = 0.0
    scanned: int = 0
    truncated: bool = False  # there are rows beyond the limit
    engine: str = ""

    def records(self) -> list[dict[str, str | None]]:
        """Return each row as column name -> value."""
        return [dict(zip(self.names, row, strict=True)) for row in self.rows]


def csv_line(cells: Sequence[str | None]) -> str:
    """Return a row as a line of CSV: values in quotes, NULL as an empty field without quotes."""
    quoted = ("" if cell is None else '"' + cell.replace('"', '""') + '"' for cell in cells)
    return ",".join(quoted) + "\n"


def literal(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def containing(column: str, text: str) -> str:
    """Return the condition that a column contains a text. No character of it is a wildcard."""
    return f"strpos({column}, {literal(text)}) > 0"


def in_list(column: str, texts: Sequence[str]) -> str:
    """Return the condition that a column equals one of some texts."""
    return f"{column} IN ({', '.join(map(literal, texts))})"


class Athena:
    """Queries of one environment."""

    def __init__(self, place: Place) -> None:
        self.place = place

    @property
    def client(self) -> Any:
        return self.place.clients["athena"]

    def ask(self, sql: str, limit: int = PAGE) -> Answer:
        """Return the answer to a query of the console. Raises QueryError."""
        return self.run(OWN + sql, limit)

    def run(self, sql: str, limit: int = PAGE) -> Answer:
        """Run a statement; return the first `limit` rows of its answer. Raises QueryError."""
        return self.answer(self.start(sql), limit)

    def answer(self, query_id: str, limit: int = PAGE) -> Answer:
        """Wait for the end of a query; return the first `limit` rows of its answer. Raises
        QueryError."""
        try:
            execution = self._wait(query_id)
        except QueryError:
            self.stop(query_id)
            raise
        if execution["Status"]["State"] == "CANCELLED":
            raise QueryError("The query was stopped.")
        if execution["Status"]["State"] != "SUCCEEDED":
            raise QueryError(execution["Status"].get("StateChangeReason") or "The query failed.")
        return self.result(query_id, limit, execution)

    def stop(self, query_id: str) -> None:
        self.client.stop_query_execution(QueryExecutionId=query_id)

    def start(self, sql: str) -> str:
        """Start a statement that only reads; return the query's id. Raises QueryError."""
        if not reads(sql):
            raise QueryError(ONLY_READING)
        try:
            return self.client.start_query_execution(
                QueryString=sql,
                QueryExecutionContext={"Database": self.place.database},
                WorkGroup=self.place.workgroup,
            )["QueryExecutionId"]
        except ClientError as error:
            if code_of(error) != REFUSED:
                raise
            raise QueryError(error.response["Error"].get("Message", str(error))) from error

    def _wait(self, query_id: str) -> dict[str, Any]:
        end, pause = time.monotonic() + PATIENCE, 0.02 if self.place.local else 0.2
        while True:
            execution = self.client.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
            if execution["Status"]["State"] in ENDED:
                return execution
            if time.monotonic() > end:
                raise QueryError(f"no answer within {PATIENCE:.0f} seconds: the query was stopped")
            time.sleep(pause)
            pause = min(pause * 1.3, 1.0)

    def result(self, query_id: str, limit: int, execution: dict[str, Any]) -> Answer:
        """Return the first `limit` rows of a query that has succeeded."""
        names: tuple[str, ...] = ()
        types: tuple[str, ...] = ()
        rows: list[tuple[str | None, ...]] = []
        truncated = False
        for number, page in enumerate(self._pages(query_id)):
            columns = page["ResultSet"]["ResultSetMetadata"].get("ColumnInfo", [])
            names = tuple(column["Name"] for column in columns)
            types = tuple(column["Type"] for column in columns)
            data = [
                tuple(cell.get("VarCharValue") for cell in row["Data"])
                for row in page["ResultSet"]["Rows"]
            ]
            rows += data[1:] if number == 0 and data and data[0] == names else data
            if len(rows) > limit:
                truncated = True
                break
        statistics = execution.get("Statistics", {})
        milliseconds = statistics.get("TotalExecutionTimeInMillis") or milliseconds_of(execution)
        scanned = statistics.get("DataScannedInBytes", 0)
        shown = tuple(rows[:limit])
        engine = execution.get("EngineVersion", {}).get("EffectiveEngineVersion", "")
        return Answer(
            names, types, shown, query_id, milliseconds / 1000, scanned, truncated, engine
        )

    def past(self, limit: int) -> list[str]:
        """Return the last `limit` statements of people, newest first, each once."""
        statements: dict[str, None] = {}
        for sql in self._statements():
            if not sql.startswith((OWN, PIPELINE)):
                statements[sql] = None
            if len(statements) == limit:
                break
        return list(statements)

    def _statements(self) -> Iterator[str]:
        """Yield the statements of the workgroup, newest first, a batch at a time."""
        pages = self.client.get_paginator("list_query_executions").paginate(
            WorkGroup=self.place.workgroup,
            PaginationConfig={"MaxItems": LOOKED_BACK, "PageSize": BATCH},
        )
        for page in pages:
            for ids in batched(page["QueryExecutionIds"]):
                response = self.client.batch_get_query_execution(QueryExecutionIds=ids)
                queries = {
                    query["QueryExecutionId"]: query for query in response["QueryExecutions"]
                }
                yield from (queries[query_id]["Query"] for query_id in ids if query_id in queries)

    def lines(self, query_id: str) -> Iterator[str]:
        """Yield all rows of a query that has succeeded as lines of CSV in Athena's own form: every
        value in quotes, NULL as an empty field without quotes."""
        for number, page in enumerate(self._pages(query_id)):
            names = [
                column["Name"] for column in page["ResultSet"]["ResultSetMetadata"]["ColumnInfo"]
            ]
            rows = [
                [cell.get("VarCharValue") for cell in row["Data"]]
                for row in page["ResultSet"]["Rows"]
            ]
            if number == 0:
                yield csv_line(names)
                rows = rows[1:] if rows and rows[0] == names else rows
            yield from map(csv_line, rows)

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


def milliseconds_of(execution: dict[str, Any]) -> float:
    """Return how long a query took by its start and end: a local AWS has no statistics."""
    status = execution.get("Status", {})
    if not {"SubmissionDateTime", "CompletionDateTime"} <= status.keys():
        return 0.0
    taken = status["CompletionDateTime"] - status["SubmissionDateTime"]
    return max(taken.total_seconds(), 0.0) * 1000


def batched(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the ids in batches of one call."""
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


class Memory:
    """A cache of the `size` last used answers, valid while `stamp()` returns the same value.
    Threads that need the same answer at a time wait for a single computation."""

    def __init__(self, stamp: Callable[[], Hashable], size: int = 256) -> None:
        self.stamp, self.size = stamp, size
        self._held: OrderedDict[Hashable, Any] = OrderedDict()
        self._busy: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, work: Callable[[], Value]) -> Value:
        """Return the cached answer; if there is none for this stamp, call `work`."""
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
