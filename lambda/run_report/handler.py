"""The run report: a page about a run (report.html), its cost (cost.json), its metrics, its mail.

The event is {"run_id", "execution_arn", "mail"}, and `mail` has the `failure` of a failed run. Page
and cost are written beside the run's summary.json, and the metrics of the environment named by
ENVIRONMENT go into the log. With {"only": "mail"} nothing is written: the answer is the mail.
Memory does not grow with the files of a run: the manifest is read line by line, and of an event
only what page, mail and cost show is kept. `make bench-report` measures it.
LAKE_BUCKET and RUNS_PREFIX name the place of the run's records.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

import cost
import mail
import metrics
import page
from facts import NO_SUMMARY, Manifest, Run, runs_of

LOG = logging.getLogger(__name__)
EVENTS_PAGE = 200  # at once: with their data, up to 256 KiB each, they lie in memory
HTML = "text/html; charset=utf-8"
CHUNK = 1 << 16  # bytes of the manifest that are read at once
DATA = ("input", "output", "parameters")  # of an event, up to 256 KiB each
ANSWERS = ("glue", "athena", "aws-sdk:glue")  # services whose answers tell the cost
History = Sequence[Mapping[str, Any]]


def handler(event: Mapping[str, Any], context: Any = None) -> dict[str, Any]:
    """Return the mail of a run, or write its page and cost and return the folder of both and the
    cause of a failure."""
    s3, arn = boto3.client("s3"), event.get("execution_arn", "")
    folder = f"{os.environ.get('RUNS_PREFIX', 'runs/')}{event['run_id']}/"
    history, asl = execution(boto3.client("stepfunctions"), arn)
    run = Run(
        event["run_id"],
        NO_SUMMARY | json.loads(read(s3, folder + "summary.json") or "{}"),
        Manifest.of(map(json.loads, lines(s3, folder + "manifest.jsonl"))),
        runs_of(history),
        cost.of_run(history, asl) if asl else None,
        event["mail"].get("failure"),
        arn,
        folder,
    )
    if event.get("only") == "mail":
        return mail.compose(run)
    lake, body = os.environ["LAKE_BUCKET"], page.render(run).encode()
    s3.put_object(Bucket=lake, Key=folder + "report.html", Body=body, ContentType=HTML)
    before = json.loads(read(s3, folder + "cost.json") or "{}")
    if run.spent:
        rows_measured = bool(before.get("rows_told")) or run.summary["status"] == "SUCCEEDED"
        record = {"run_id": run.run_id, **run.spent, "rows_told": rows_measured}
        body = json.dumps(record, indent=1).encode()
        s3.put_object(Bucket=lake, Key=folder + "cost.json", Body=body)
    for line in measures(run, history, before):
        print(line)
    return {"folder": run.folder, "cause": run.short_cause if run.step else ""}


def measures(run: Run, history: History, before: Mapping[str, Any]) -> list[str]:
    """Return the run as metrics. `before` is the cost.json of the run before it was redriven, which
    says whether its rows have been counted: they count once, and the cost is what was added."""
    environment, now = os.environ.get("ENVIRONMENT", "prod"), dt.datetime.now(dt.UTC)
    seconds = run.seconds
    spent = {} if seconds is None else {"JobSeconds": seconds}
    if run.spent:
        old = before.get("glue", {}).get("dpu_seconds", 0)
        spent["RunCost"] = run.spent["usd"] - before.get("usd", 0)
        spent["DpuSeconds"] = run.spent["glue"]["dpu_seconds"] - old
    summary = {"run_id": run.run_id} if before.get("rows_told") else run.summary
    return list(metrics.lines(environment, summary, metrics.freshness(history), spent, now))


def read(s3: Any, key: str) -> str:
    """Return a record of the run; empty if it does not exist."""
    body = stream(s3, key)
    return body.read().decode() if body else ""


def lines(s3: Any, key: str) -> Iterator[bytes]:
    """Yield the lines of a record that are not blank; none if it does not exist."""
    body = stream(s3, key)
    return filter(None, body.iter_lines(CHUNK)) if body else iter(())


def stream(s3: Any, key: str) -> Any:
    """Return the body of a record of the run; None if it does not exist."""
    try:
        return s3.get_object(Bucket=os.environ["LAKE_BUCKET"], Key=key)["Body"]
    except s3.exceptions.NoSuchKey:
        return None


def execution(states: Any, arn: str) -> tuple[History, dict[str, Any] | None]:
    """Return all events (25,000 at most) and the definition of the execution; none if they cannot
    be read, since a report without them is better than no report."""
    if not arn:
        return [], None
    options = {"executionArn": arn, "includeExecutionData": True}
    try:
        machine = states.describe_state_machine_for_execution(executionArn=arn)
        pages = states.get_paginator("get_execution_history").paginate(
            **options, PaginationConfig={"PageSize": EVENTS_PAGE}
        )
        events = [lean(event) for history_page in pages for event in history_page["events"]]
    except (BotoCoreError, ClientError, NotImplementedError) as error:
        LOG.warning("the execution cannot be read: %s", error)
        return [], None
    return events, json.loads(machine["definition"])


def lean(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event without its data, which repeats the summary; the answers that tell the cost
    stay, and so do errors."""
    return {key: _lean(value) if isinstance(value, dict) else value for key, value in event.items()}


def _lean(details: Mapping[str, Any]) -> dict[str, Any]:
    if details.get("resourceType") in ANSWERS:
        return {key: value for key, value in details.items() if key != "parameters"}
    return {key: value for key, value in details.items() if key not in DATA}
