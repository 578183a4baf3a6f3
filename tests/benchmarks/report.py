"""Memory and time of the function RunReport on a large run: `make bench-report`.

Each case is a process of its own: the deployed handler with boto3's own clients, whose answers come
from here, so that parsing them counts. The manifest has one line for each file; half of the events
enter or leave a state and carry its data, as GetExecutionHistory gives them. The memory of the
process is its peak, Python and boto3 included, which is what Lambda counts.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from client.template import ROOT, Template

RUN = "run-2025-04-16"
MACHINE = json.loads((ROOT / "stepfunctions" / "delta-lake.json").read_text("utf-8"))
CASES = ((100, 100, 30), (100_000, 100, 30), (100, 5_000, 30), (100_000, 5_000, 30))
LARGEST = (100_000, 25_000, 200)  # all that Step Functions and the state machine allow
GOOD = ("loaded", "duplicate")
OUTCOMES = ("loaded", "loaded", "loaded", "duplicate", "set_aside", "unreadable", "changed")


class Manifest(io.RawIOBase):
    """The manifest of a run with so many files, made while it is read."""

    def __init__(self, files: int) -> None:
        self.lines, self.buffer = (self.line(number) for number in range(files)), b""

    def line(self, number: int) -> bytes:
        outcome = OUTCOMES[number % len(OUTCOMES)]
        path = f"orders/2025/04/01/shop-{number:06}/orders_2025-04-01T10-00-00_{number:06}.csv"
        good = outcome in GOOD
        entry = {
            "bucket": "delta-lake-prod-raw-123456789012-eu-central-1",
            "key": f"land-folder/Data/{path}",
            "path": path,
            "etag": f"{number:032x}",
            "digest": f"{number:064x}",
            "size": 20_000,
            "last_modified": "2025-04-01T10:00:00+00:00",
            "dataset": "orders",
            "outcome": outcome,
            "reason": None if good else "no_header",
            "detail": None if good else f"{path}: it has no header that a dataset knows",
            "rows_read": 400,
            "ignored_columns": [],
            "destination": "archive" if good else "rejected",
        }
        return json.dumps(entry).encode() + b"\n"

    def read(self, size: int = -1) -> bytes:
        while len(self.buffer) < size and (line := next(self.lines, b"")):
            self.buffer += line
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken


class Answers:
    """AWS's answers to the calls of one report."""

    def __init__(self, files: int, events: int, state_kb: int) -> None:
        self.files, self.events = files, events
        self.data = json.dumps({"summary": "x" * (state_kb << 10)})

    def __call__(self, request: Any, **_: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        body: io.RawIOBase | io.BytesIO
        if "X-Amz-Target" in request.headers:
            call = request.headers["X-Amz-Target"].decode().rpartition(".")[2]
            asked = json.loads(request.body)
            body = io.BytesIO(json.dumps(self.of_steps(call, asked)).encode())
        elif request.method == "GET" and request.url.endswith("manifest.jsonl"):
            body = Manifest(self.files)
        elif request.method == "GET" and request.url.endswith("summary.json"):
            body = io.BytesIO(json.dumps(self.summary()).encode())
        elif request.method == "GET":
            xml = b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>"
            return AWSResponse(request.url, 404, {}, Body(io.BytesIO(xml)))
        else:
            body = io.BytesIO()
        return AWSResponse(request.url, 200, {}, Body(body))

    def of_steps(self, call: str, asked: dict[str, Any]) -> dict[str, Any]:
        if call == "DescribeStateMachineForExecution":
            return {"definition": json.dumps(MACHINE), "name": "delta-lake"}
        first = int(asked.get("nextToken", 0))
        last = min(first + asked["maxResults"], self.events)
        page = {"events": [self.event(number) for number in range(first, last)]}
        return page | ({"nextToken": str(last)} if last < self.events else {})

    def event(self, number: int) -> dict[str, Any]:
        """One of a loop over the archive: enter, call, answer, leave."""
        place = {"id": number + 1, "previousEventId": number, "timestamp": 1744797600 + number}
        task = {"resourceType": "lambda", "resource": "invoke", "output": '{"page": 1}'}
        name = {"name": "ArchiveProcessedFiles"}
        kinds = (
            ("TaskStateEntered", "stateEnteredEventDetails", name | {"input": self.data}),
            ("TaskScheduled", "taskScheduledEventDetails", task | {"parameters": "{}"}),
            ("TaskSucceeded", "taskSucceededEventDetails", task),
            ("TaskStateExited", "stateExitedEventDetails", name | {"output": self.data}),
        )
        kind, key, details = kinds[number % len(kinds)]
        if number == self.events - 1:
            kind, key, details = "TaskStateEntered", kinds[0][1], {"name": "ComposeMail"}
        return place | {"type": kind, key: details}

    def summary(self) -> dict[str, Any]:
        counts = {name: self.files // len(OUTCOMES) for name in OUTCOMES}
        zeros = dict.fromkeys(("rows_read", "admitted", "inserted", "updated", "unchanged"), 0)
        zeros |= dict.fromkeys(("superseded", "rejected", "parked", "conflicting", "moved"), 0)
        return {
            "run_id": RUN,
            "status": "SUCCEEDED",
            "error": None,
            "started_at": "2025-04-16T10:00:00.000Z",
            "finished_at": "2025-04-16T10:10:00.000Z",
            "files": {"listed": self.files, **counts, "no_final_newline": 0},
            "datasets": {"orders": zeros | {"rejected_by_reason": {}}},
            "tables": {},
            "timings": {},
            "reject_examples": [],
        }


class Body:
    """The body of an answer, as botocore reads it: whole, or as a stream."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def read(self, size: int = -1) -> bytes:
        taken: bytes = self.content.read() if size is None or size < 0 else self.content.read(size)
        return taken

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.content.read()

    def close(self) -> None:
        self.content.close()


def report(files: int, events: int, state_kb: int) -> dict[str, float]:
    """Compose mail and page of a run in this process; return seconds and MB."""
    os.environ |= {
        "LAKE_BUCKET": "lake",
        "RUNS_PREFIX": "runs/",
        "ENVIRONMENT": "prod",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    import boto3

    boto3.setup_default_session()
    boto3.DEFAULT_SESSION.events.register("before-send.*", Answers(files, events, state_kb))
    sys.path.insert(0, str(ROOT / Template.load().properties("ReportFunction")["Code"]))
    from handler import handler

    arn = f"arn:aws:states:eu-central-1:123456789012:execution:delta-lake:{RUN}"
    event = {"run_id": RUN, "execution_arn": arn, "mail": {"subject": "", "text": ""}}
    begun, out = time.process_time(), sys.stdout
    sys.stdout = io.StringIO()  # the metrics
    try:
        mail = handler({**event, "only": "mail"})
        handler(event)
    finally:
        sys.stdout = out
    # Not getrusage's peak, which a process inherits from the one that started it
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]
    odd = sum(OUTCOMES[n % len(OUTCOMES)] not in GOOD for n in range(files))
    if f"and {odd - 10:,} more files" not in mail["text"]:
        raise SystemExit("the mail does not count the files that were not loaded")
    return {"seconds": time.process_time() - begun, "megabytes": peak}


def measured(files: int, events: int, state_kb: int) -> dict[str, float]:
    """Report in a process of its own."""
    words = [str(number) for number in (files, events, state_kb)]
    command = [sys.executable, "-m", "tests.benchmarks.report", "--case", *words]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(finished.stdout)
    return figures


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.report")
    parser.add_argument("--case", nargs=3, type=int, metavar=("FILES", "EVENTS", "STATE_KB"))
    options = parser.parse_args(argv)
    if options.case:
        print(json.dumps(report(*options.case)))
        return 0
    size = Template.load().properties("ReportFunction")["MemorySize"]
    print(f"RunReport, mail and page of one run; the template gives it {size} MB")
    print(f"{'files':>9}{'events':>9}{'state':>9}{'CPU':>9}{'memory':>10}")
    for case in (*CASES, LARGEST):
        figures = measured(*case)
        files, events, state_kb = case
        line = f"{files:9,}{events:9,}{state_kb:6} kB{figures['seconds']:7.1f} s"
        print(f"{line}{figures['megabytes']:7.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
