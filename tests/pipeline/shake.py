"""`make shake SEED=7 RATE=0.05`: the whole pipeline while S3 fails, by one seed.

A seed draws deliveries and operations, and what goes wrong with them: requests of the job, of the
archiver and of the state machine that S3 refuses, carries out without an answer, or answers with
half of the object; events that come twice; a clock that jumps; a Spark that is killed. After each
step an auditor holds the lake against the plain model of tests/model.py. At the end S3 works again,
and everything that was delivered must be in the tables, once.

Every choice depends on the seed alone; a fault depends on the seed, on the request and on how often
it was made before. Names that Spark draws at random are left out.
"""

from __future__ import annotations

import hashlib
import random
import re
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NoReturn

from moto.s3.models import s3_backends

import glue_etl as etl
from client.operations import sentence
from local.aws.pipeline import Pipeline
from local.aws.stepfunctions import Pace
from tests.model import Lakehouse, RawFile

PREFIX = "land-folder/Data/"
RANDOM_NAMES = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}|[a-z]+-\d{8}T\d+-[0-9a-f]+")
RATES = (0.01, 0.05, 0.2)  # of requests that fail
FAULTS = ("refused", "unavailable", "answer lost", "cut", "not found")
HEADERS = {
    "products": "product_id,department_id,department,product_name",
    "orders": "order_num,order_id,user_id,order_timestamp,total_amount,date",
    "order_items": "id,order_id,user_id,days_since_prior_order,product_id,add_to_cart_order,"
    "reordered,order_timestamp,date",
}
MOMENTS = ("2025-04-01T10:00:00", "2025-04-01T12:00:00", "2025-04-02T00:30:00", "01/04/2025 10:00")


class Faults:
    """A WSGI application in front of S3 that lets requests fail, as many as `rate` says."""

    def __init__(self, behind: Callable[..., Iterable[bytes]], seed: int, rate: float) -> None:
        self.behind, self.seed, self.rate = behind, seed, rate
        self.calm = 0
        self.requests: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()

    def fault(self, environ: dict[str, Any]) -> str | None:
        """What happens to a request, or None."""
        if "/s3/aws4_request" not in environ.get("HTTP_AUTHORIZATION", "") or self.calm:
            return None
        method = environ["REQUEST_METHOD"]
        place = f"{method} {environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
        request = RANDOM_NAMES.sub("*", place)
        with self._lock:
            self._seen[request] += 1
            self.requests[method] += 1
            text = f"{self.seed} {request} {self._seen[request]}"
        chance = random.Random(hashlib.sha256(text.encode()).digest())
        if chance.random() >= self.rate:
            return None
        reads = method == "GET" and environ["PATH_INFO"].count("/") > 1
        kinds = FAULTS[: 4 if reads else 3]
        if reads and "Boto3" in environ.get("HTTP_USER_AGENT", ""):
            kinds = FAULTS  # Spark takes S3's word that an object is not there
        kind = chance.choice(kinds)
        with self._lock:
            self.made[kind] += 1
        return kind

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        fault = self.fault(environ)
        if fault == "refused":
            self._hang_up(environ)
        if fault == "unavailable":
            return error(start, "503 Slow Down", "SlowDown")
        if fault == "not found":
            return error(start, "404 Not Found", "NoSuchKey")
        if fault == "answer lost":
            list(self.behind(environ, lambda *_: None))
            self._hang_up(environ)
        if fault == "cut":
            return self._cut(environ, start)
        return self.behind(environ, start)

    def _hang_up(self, environ: dict[str, Any]) -> NoReturn:
        """Close the connection; the server passes over what it takes for a lost client."""
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError

    def _cut(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
        """Give half of the body, and hang up."""
        body = b"".join(self.behind(environ, start))
        yield body[: len(body) // 2]
        self._hang_up(environ)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Let every request through while the block runs."""
        self.calm += 1
        try:
            yield
        finally:
            self.calm -= 1


def error(start: Callable[..., Any], status: str, code: str) -> Iterable[bytes]:
    headers = {"Content-Type": "application/xml", "Connection": "close"}  # its body is not read
    start(status, list(headers.items()))
    text = f"<Error><Code>{code}</Code><Message>{status}</Message><RequestId>1</RequestId></Error>"
    return [text.encode()]


@dataclass
class Tally:
    """What happened under one seed, or several."""

    requests: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    rows: int = 0

    def add(self, other: Tally) -> None:
        for name in ("requests", "faults", "runs"):
            getattr(self, name).update(getattr(other, name))
        self.rows += other.rows

    def __str__(self) -> str:
        parts = [
            f"{sum(self.requests.values()):,} requests",
            f"{sum(self.faults.values()):,} faults ({dict(sorted(self.faults.items()))})",
            f"runs {dict(sorted(self.runs.items()))}",
            f"{self.rows:,} rows compared",
        ]
        return ", ".join(parts)


class Shake:
    """One seed on a fresh deployment of the pipeline."""

    def __init__(self, pipeline: Pipeline, seed: int, rate: float) -> None:
        self.pipeline, self.aws, self.seed = pipeline, pipeline.aws, seed
        self.chance = random.Random(seed)
        self.delivered: dict[str, RawFile] = {}
        self.clock = datetime(2026, 5, 1)
        self.tally = Tally()
        self.rate = rate
        self.faults: Faults

    def run(self, steps: int = 6) -> Tally:
        """Go through the steps; AssertionError names the seed and the step."""
        self.aws.stop()
        self.aws.parameters = {"EnvironmentName": f"seed{self.seed}"}
        self.aws.start()
        with self.aws.server.wrapped(lambda app: Faults(app, self.seed, self.rate)) as faults:
            self.faults = faults
            for number in range(steps):
                step = self.chance.choice(
                    (self.deliver, self.deliver, self.deliver, self.twice, self.kill, self.operate)
                )
                step()
                where = f"seed {self.seed}, step {number + 1} ({step.__name__})"
                print(where, file=sys.stderr, flush=True)
                self.audit(where)
            faults.rate = 0.0
            for _ in range(3):
                self.execute()
            self.replay_archive()
            self.audit(f"seed {self.seed}, at the end", end=True)
        self.tally.requests, self.tally.faults = faults.requests, faults.made
        return self.tally

    # -- what happens ------------------------------------------------------------------------------
    def upload(self) -> None:
        """One to three files; S3's clock may jump by hours between them, though never back."""
        for _ in range(self.chance.randint(1, 3)):
            dataset = self.chance.choice(("products", "orders", "order_items", "order_items"))
            path = f"{dataset}/{len(self.delivered):03}.csv"
            text = "\n".join([HEADERS[dataset], *(self.row(dataset) for _ in range(4))]) + "\n"
            with self.faults.quiet():
                self.aws.upload(path, text.encode())
            self.clock += timedelta(seconds=1, hours=self.chance.choice((0, 0, 5, 20)))
            self.set_clock(path)
            self.delivered[path] = RawFile(path, text.encode(), self.clock)

    def set_clock(self, path: str) -> None:
        """What S3 says of when the file was delivered."""
        bucket, key = self.aws.name("RawBucket"), PREFIX + path
        for account in s3_backends.values():
            for backend in account.values():
                if bucket in backend.buckets:
                    stored = backend.buckets[bucket].keys[key]
                    stored.last_modified = self.clock

    def row(self, dataset: str) -> str:
        key, parent, product, value = (self.chance.randint(1, 4) for _ in range(4))
        moment = self.chance.choice(MOMENTS)
        if dataset == "products":
            return f"p{key},{parent},Books {value},Name {product}"
        if dataset == "orders":
            return f"{value},o{key},u{product},{moment},{value}.50,"
        return f"i{key},o{parent},u,{value},p{product},1,{value % 2},{moment},"

    def execute(self, **operation: Any) -> dict[str, Any]:
        """One execution of the state machine, and how it ended."""
        if operation:
            arn = self.aws.client("stepfunctions").start_execution(
                stateMachineArn=self.aws.name("StateMachine"), input=etl.json.dumps(operation)
            )["executionArn"]
        else:
            arn = self.aws.sweep()
        return self.ended(arn)

    def ended(self, arn: str) -> dict[str, Any]:
        """How an execution ended; what made it fail goes to stderr."""
        ended = self.aws.wait_for(arn, 1200)
        self.tally.runs[ended["status"]] += 1
        if ended["status"] != "SUCCEEDED":
            print(f"  {sentence(ended)[:1000]}", file=sys.stderr, flush=True)
        return ended

    def deliver(self) -> None:
        self.upload()
        self.execute()

    def twice(self) -> None:
        """An event that comes twice: two executions at once."""
        self.upload()
        arns = [self.aws.sweep(), self.aws.sweep()]
        for arn in arns:
            self.ended(arn)

    def kill(self) -> None:
        """Spark is killed behind one of its steps, as with its machine."""
        self.upload()
        step = self.chance.choice(("staged", "committed clean_orders", "committed ingested_files"))
        job = self.pipeline.job
        job.show = lambda line: job.kill() if line.endswith(step) else None
        try:
            self.execute()
        finally:
            job.show = lambda line: None

    def operate(self) -> None:
        """Maintenance, or the last run undone; its files come back at the end."""
        with self.faults.quiet():
            loads = [run for run in self.rows("etl_runs") if run["operation"] == "load"]
            loads.sort(key=lambda run: run["finished_at"])
        asked = [{"operation": "optimize", "min_files": 2}, {"operation": "vacuum"}]
        if loads:
            asked.append({"operation": "rollback", "undo": loads[-1]["run_id"]})
            asked.append({"operation": "replay", "statuses": ["parked"]})
        self.execute(**self.chance.choice(asked), author="shake")

    def replay_archive(self) -> None:
        """Load what a rollback has undone."""
        ended = self.execute(operation="replay", archived={}, author="shake")
        assert ended["status"] == "SUCCEEDED", (self.seed, ended.get("cause"))

    # -- the auditor -------------------------------------------------------------------------------
    def audit(self, where: str, end: bool = False) -> None:
        """Hold raw zone, archive, ledger and tables against what was delivered."""
        with self.faults.quiet():
            waiting = {key.removeprefix(PREFIX) for key in self.aws.keys("RawBucket")}
            archived = {key.split("/", 2)[2] for key in self.aws.keys("ArchiveBucket")}
            ledger = {row["file_path"] for row in self.rows("ingested_files")}
            assert waiting | archived == self.delivered.keys(), f"{where}: a file is lost"
            tables = {table.dataset: self.table(table, where) for table in etl.TABLES}
            if end:
                assert not waiting and ledger == self.delivered.keys(), f"{where}: {waiting}"
        model = Lakehouse()
        model.run(list(self.delivered.values()))
        for dataset, rows in tables.items():
            if end:
                assert rows == model.tables[dataset], f"{where}: {dataset}"
            self.tally.rows += len(rows)
        if end:
            parked = {(row.source.path, row.source.line) for row in model.parked}
            with self.faults.quiet():
                records = self.rows("rejected_records")
            places = [(row["file_path"], row["line"]) for row in records]
            assert len(places) == len(set(places)), f"{where}: a reject is there twice"
            open_rows = {
                (row["file_path"], row["line"]) for row in records if row["status"] == "parked"
            }
            assert open_rows == parked, f"{where}: waiting rows"
            self.tally.rows += len(records)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """A table's rows by a reader that is not Spark; none if there is no table yet."""
        folder = "rejected" if name == "rejected_records" else "lakehouse-dwh"
        return self.pipeline.readers.submit(
            rows_of, self.aws.endpoint, f"s3://{self.aws.name('LakeBucket')}/{folder}/{name}"
        ).result()

    def table(self, table: Any, where: str) -> dict[str, tuple[Any, ...]]:
        """key -> row, in the shape of the model's."""
        rows = self.rows(table.name)
        by_key = {row[table.key]: tuple(row[name] for name in table.column_names) for row in rows}
        assert len(by_key) == len(rows), f"{where}: {table.name} holds a key twice"
        return by_key


def rows_of(endpoint: str, location: str) -> list[dict[str, Any]]:
    """Rows of a Delta table; moments without their zone, which is UTC."""
    from deltalake import DeltaTable

    from local.aws.readers import s3_options

    options = s3_options(endpoint)
    if not DeltaTable.is_deltatable(location, storage_options=options):
        return []
    table = DeltaTable(location, storage_options=options).to_pyarrow_table()
    return [
        {
            name: value.replace(tzinfo=None) if isinstance(value, datetime) else value
            for name, value in row.items()
        }
        for row in table.to_pylist()
    ]


@contextmanager
def pipeline() -> Iterator[Pipeline]:
    """A pipeline whose job needs no waiting; only sweeps start it."""
    pace = Pace(waits=0.05, retries=0.01, poll=0.1)
    with Pipeline(pace=pace, batching_window=10_000) as running:
        yield running


def main(words: list[str]) -> int:
    """`python -m tests.pipeline.shake FIRST [COUNT [RATE]]`"""
    first, count = int(words[0]), int(words[1]) if len(words) > 1 else 1
    total = Tally()
    with pipeline() as running:
        for seed in range(first, first + count):
            rate = float(words[2]) if len(words) > 2 else RATES[seed % 3]
            tally = Shake(running, seed, rate).run()
            print(f"seed {seed} at {rate:.0%}: {tally}", flush=True)
            total.add(tally)
    print(f"{count} seeds: {total}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
