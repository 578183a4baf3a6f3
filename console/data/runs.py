"""Executions, the records of their jobs, and their histories."""

from __future__ import annotations

import datetime as dt
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

import glue_operations
from client.aws import code_of
from client.operations import changes_data
from client.places import RUNS
from console.athena import in_list
from console.data.source import PAGE, Source, moment, number
from facts import runs_of
from words import in_words

ENDED_BADLY = ("FAILED", "TIMED_OUT", "ABORTED")
MAINTENANCE = glue_operations.MAINTENANCE
READERS = 8  # threads that read executions
ALL_RUNS = 100_000  # rows read of etl_runs or ingested_files, at most
MANIFEST_BYTES, RECORD_BYTES = 4 << 20, 8 << 20  # of a run's files, at most
EVENTS, EVENTS_PAGE = 5000, 1000  # of a history: the last ones, and per call
HISTORIES = 32  # in the cache
LOG_LINES = 10_000  # the last ones of a job


@dataclass(frozen=True)
class Run:
    """An execution and the summary of its job, which is empty until the job ends.

    The times are those of the job; without a summary, those of the execution. `undone` if a
    rollback has taken the run back.
    """

    run_id: str
    status: str
    started: dt.datetime | None = None
    ended: dt.datetime | None = None
    operation: str = "load"
    summary: Mapping[str, Any] = field(default_factory=dict)
    cause: str = ""
    undone: bool = False

    @property
    def running(self) -> bool:
        return self.status == "RUNNING"

    @property
    def failed(self) -> bool:
        return self.status in ENDED_BADLY

    @property
    def seconds(self) -> float | None:
        if not self.started:
            return None
        return ((self.ended or dt.datetime.now(dt.UTC)) - self.started).total_seconds()

    @property
    def what(self) -> str:
        """Return the kind of run in a word or two."""
        operation_summary = self.summary.get("operation") or {}
        if operation_summary.get("dry_run") or is_plan(self.run_id):
            return f"plan: {self.operation}"
        if self.operation == "rollback":
            return "undo" if (operation_summary.get("plan") or {}).get("runs") == 1 else "go back"
        text = str(operation_summary.get("text", ""))
        if self.operation == "replay" and text.endswith("discarded."):
            return "discard"
        return {"sql": "correction", "rebuild": "rebuild"}.get(self.operation, self.operation)

    def total(self, name: str) -> int:
        """Return a number of the summary, such as `inserted`, over all datasets."""
        return sum(
            int(numbers.get(name) or 0) for numbers in self.summary.get("datasets", {}).values()
        )

    def repeats(self, failed: Run) -> bool:
        """Return whether the run, which began later, has done the work of a failed one: a load
        reads the same files again, and the maintenance works on all tables."""
        succeeded = self.status == "SUCCEEDED" and self.operation == failed.operation
        return succeeded and self.operation in ("load", *MAINTENANCE)

    def during_its_job(self) -> Run:
        """Return the run with the times of its job, if the summary has them."""
        if self.running or not self.summary.get("finished_at"):
            return self
        times = (moment(self.summary.get("started_at")), moment(self.summary["finished_at"]))
        return replace(self, started=times[0] or self.started, ended=times[1] or self.ended)


class Runs:
    """The runs of an environment."""

    def __init__(self, source: Source) -> None:
        self.source, self.place = source, source.place
        self._histories: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()
        self._ended_badly: dict[str, Run | None] = {}

    def recent(self, limit: int = 20) -> list[Run]:
        """Return the newest runs, newest first: those in etl_runs, running ones and failed ones.

        Most executions are sweeps that find nothing; they are skipped.
        """
        live, failed = self.running(limit), self.failed(limit)
        runs = {run.run_id: run for run in [*self.recorded(limit), *live, *failed]}
        return newest_first(runs.values())[:limit]

    def running(self, limit: int = PAGE) -> list[Run]:
        """Return the running loads and operations, newest first. Plans are skipped."""
        runs = self.described(self.source.executions(limit, "RUNNING"))
        return [run for run in runs if not is_plan(run.run_id)]

    def failed(self, limit: int = PAGE) -> list[Run]:
        """Return the newest failed runs with their causes, newest first.

        A plan or a query that failed is not a failed run.
        """
        executions = [
            execution
            for status in ENDED_BADLY
            for execution in self.source.executions(limit, status)
        ]
        ids = [execution["name"] for execution in executions if not is_plan(execution["name"])]
        new = [run_id for run_id in ids if run_id not in self._ended_badly]
        with ThreadPoolExecutor(READERS) as pool:
            self._ended_badly |= zip(new, pool.map(self._failed_run, new), strict=True)
        runs = [run for run_id in ids if (run := self._ended_badly[run_id])]
        return newest_first(runs)[:limit]

    def _failed_run(self, run_id: str) -> Run | None:
        """Return a failed run; None if it was a plan or a query. The result can be cached."""
        execution = self._execution(run_id)
        if execution is None or not changes_something(execution.get("input") or "{}"):
            return None
        return self._described(execution, self.record(run_id, "summary.json") or {})

    def described(self, executions: Sequence[Mapping[str, Any]]) -> list[Run]:
        """Return the runs of executions, with the records of their jobs."""
        ended = [execution["name"] for execution in executions if execution["status"] != "RUNNING"]
        recorded = {run.run_id: run for run in self._recorded(ended)} if ended else {}
        return [
            recorded.get(
                execution["name"],
                Run(
                    execution["name"],
                    execution["status"],
                    execution["startDate"],
                    execution.get("stopDate"),
                    named_operation(execution["name"]),
                ),
            )
            for execution in executions
        ]

    def recorded(self, limit: int = PAGE, offset: int = 0) -> list[Run]:
        """Return a page of etl_runs, newest first."""
        return self._runs(f"ORDER BY started_at DESC OFFSET {offset} LIMIT {limit}")

    def _recorded(self, run_ids: Sequence[str]) -> list[Run]:
        return self._runs(f"WHERE {in_list('run_id', run_ids)}")

    def _runs(self, clauses: str) -> list[Run]:
        answer = self.source.ask(
            "SELECT run_id, operation, status, CAST(started_at AS varchar) AS started_at, "
            f"CAST(finished_at AS varchar) AS finished_at, summary FROM etl_runs {clauses}"
        )
        undone = self.undone()
        return [
            Run(
                row["run_id"] or "",
                row["status"] or "",
                moment(row["started_at"]),
                moment(row["finished_at"]),
                row["operation"] or "load",
                json.loads(row["summary"] or "{}"),
                undone=row["run_id"] in undone,
            ).during_its_job()
            for row in answer.records()
        ]

    def undone(self) -> list[str]:
        """Return the runs that a rollback has taken back, by the rule of the job, newest first."""
        rollbacks = self.source.ask(
            "SELECT run_id FROM etl_runs WHERE operation = 'rollback' LIMIT 1"
        )
        if not rollbacks.rows:
            return []
        answer = self.source.ask(
            "SELECT run_id, operation, "
            "json_extract_scalar(summary, '$.operation.plan.to_run') AS to_run "
            "FROM etl_runs ORDER BY finished_at, run_id",
            ALL_RUNS,
        )
        runs = [
            SimpleNamespace(
                run_id=run_id, operation=name, operation_summary={"plan": {"to_run": to_run}}
            )
            for run_id, name, to_run in answer.rows
        ]
        valid_runs = glue_operations.standing_runs(runs)  # type: ignore[arg-type]
        standing = {run.run_id for run in valid_runs}
        taken_back = [run for run in runs if run.run_id not in standing]
        return [run.run_id for run in reversed(taken_back) if run.operation != "rollback"]

    def last_change(self) -> str:
        """Return the last run that changed the tables and was not undone: only it can be undone."""
        others = (*MAINTENANCE, "rollback")
        runs = (run for run in self.recorded(PAGE) if run.operation not in others)
        return next((run.run_id for run in runs if not run.undone), "")

    def count(self) -> int:
        """Return the number of rows of etl_runs."""
        return number(self.source.ask("SELECT count(*) AS n FROM etl_runs"))

    def get(self, run_id: str) -> Run | None:
        """Return a run by its id; None if it has neither an execution nor a summary."""
        summary = self.record(run_id, "summary.json") or {}
        execution = self._execution(run_id)
        if execution is not None:
            run = self._described(execution, summary)
        elif summary:
            run = Run(run_id, str(summary.get("status")), None, None, operation_of(summary, {}))
            run = replace(run, summary=summary).during_its_job()
        else:
            return None
        return replace(run, undone=not run.running and run_id in self.undone())

    def _execution(self, run_id: str) -> dict[str, Any] | None:
        """Return an execution; None if it does not exist, or no longer."""
        try:
            return self.place.clients["stepfunctions"].describe_execution(
                executionArn=self.arn(run_id)
            )
        except ClientError as error:
            if code_of(error) not in ("ExecutionDoesNotExist", "InvalidArn"):
                raise
            return None

    @staticmethod
    def _described(execution: Mapping[str, Any], summary: Mapping[str, Any]) -> Run:
        request = json.loads(execution.get("input") or "{}")
        name = operation_of(summary, request if isinstance(request, dict) else {})
        times = (execution["startDate"], execution.get("stopDate"))
        cause = summary.get("error") or execution.get("cause") or execution.get("error") or ""
        run = Run(execution["name"], execution["status"], *times, name, summary)
        return replace(run, cause=in_words(str(cause))).during_its_job()

    def record(self, run_id: str, name: str) -> Any:
        """Return a JSON file of a run (summary.json, cost.json, operation.json), or None."""
        body = self.source.object(self.place.lake_bucket, f"{RUNS}{run_id}/{name}", RECORD_BYTES)
        return None if body is None else json.loads(body)

    def manifest(self, run_id: str) -> list[dict[str, Any]]:
        """Return the manifest of a run, an entry for each file; the first MANIFEST_BYTES of it."""
        key = f"{RUNS}{run_id}/manifest.jsonl"
        body = self.source.object(self.place.lake_bucket, key, MANIFEST_BYTES)
        lines = (body or b"").decode("utf-8", "replace").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def history(self, run_id: str) -> list[dict[str, Any]]:
        """Return the last events of a run's execution, oldest first; none if it no longer exists.

        Events are cached: only new ones are read.
        """
        cached = self._histories.get(run_id, [])
        last = cached[-1]["id"] if cached else 0
        new: list[dict[str, Any]] = []
        try:
            for event in self._newest_events(run_id):
                if event["id"] <= last or len(new) == EVENTS:
                    break
                new.append(event)
        except ClientError as error:
            if code_of(error) != "ExecutionDoesNotExist":
                raise
            return []
        events = [*cached, *reversed(new)][-EVENTS:]
        self._histories[run_id] = events
        while len(self._histories) > HISTORIES:
            self._histories.popitem(last=False)
        return events

    def _newest_events(self, run_id: str) -> Iterator[dict[str, Any]]:
        """Yield the events of a run's execution, newest first."""
        pages = (
            self.place.clients["stepfunctions"]
            .get_paginator("get_execution_history")
            .paginate(
                executionArn=self.arn(run_id),
                includeExecutionData=True,
                reverseOrder=True,
                PaginationConfig={"PageSize": EVENTS_PAGE},
            )
        )
        for page in pages:
            yield from page["events"]

    @property
    def machine(self) -> dict[str, Any]:
        """Return the state machine's definition."""
        return self.source.memory.get("machine", self._machine)

    def _machine(self) -> dict[str, Any]:
        machine = self.place.clients["stepfunctions"].describe_state_machine(
            stateMachineArn=self.place.state_machine
        )
        return json.loads(machine["definition"])

    @property
    def knows_operations(self) -> bool:
        """Return whether the state machine passes operations to the job; an older one loads."""
        return "--OPERATION" in json.dumps(self.machine)

    def job_lines(self, run_id: str, history: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the last lines of a run in the job's log; none if there is no log.

        The driver of a job run writes to the stream `<id>-driver`.
        """
        glue_run = next(
            (job_run_id for event in history if (job_run_id := job_run_of(event))), None
        )
        if glue_run is None:
            return []
        logs, group = self.place.clients["logs"], self.place.job_log
        try:
            streams = logs.describe_log_streams(
                logGroupName=group, logStreamNamePrefix=f"{glue_run}-driver"
            )
            pages = [
                logs.get_log_events(
                    logGroupName=group,
                    logStreamName=stream["logStreamName"],
                    startFromHead=False,
                    limit=LOG_LINES,
                )
                for stream in streams["logStreams"]
            ]
        except ClientError as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
            return []
        lines = [event["message"].rstrip() for page in pages for event in page["events"]]
        return [line for line in lines if f"[{run_id}]" in line]

    def arn(self, run_id: str) -> str:
        """Return the ARN of the execution of a run."""
        return self.place.state_machine.replace(":stateMachine:", ":execution:") + f":{run_id}"


def is_plan(run_id: str) -> bool:
    """Return whether an execution is the dry run of an operation, by its name."""
    return any(run_id.startswith(f"{name}-plan-") for name in glue_operations.SPECS)


def named_operation(run_id: str) -> str:
    """Return the operation that an execution's name begins with, else `load`."""
    name = run_id.partition("-")[0]
    return name if name in glue_operations.SPECS else "load"


def operation_of(summary: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """Return the operation of a run by its summary, else by the input of its execution."""
    operation_summary = summary.get("operation") or {}
    return str(operation_summary.get("name") or request.get("operation") or "load")


def changes_something(text: str) -> bool:
    """Return whether the input of an execution starts neither a plan nor a query."""
    request = json.loads(text)
    if not isinstance(request, dict):
        return True
    reads = request.get("operation") == "sql" and not changes_data(str(request.get("sql", "")))
    return not request.get("dry_run") and not reads


def newest_first(runs: Iterable[Run]) -> list[Run]:
    began = dt.datetime.min.replace(tzinfo=dt.UTC)
    return sorted(runs, key=lambda run: run.started or began, reverse=True)


def messages(history: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return subject and text of each message of a run to the operators."""
    sent = []
    for event in history:
        task = event.get("taskScheduledEventDetails") or {}
        if task.get("resourceType") == "sns":
            parameters = json.loads(task.get("parameters") or "{}")
            sent.append(
                {
                    "subject": str(parameters.get("Subject", "")),
                    "message": str(parameters.get("Message", "")),
                }
            )
    return sent


def causes(run: Run, history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return why a run failed: the job's own message first, then the errors of states; for a
    stopped run, who stopped it and why."""
    errors = [str(run.summary["error"])] if run.summary.get("error") else []
    for name, state in runs_of(history).items():
        if state.error and not any(error in state.error for error in errors):
            errors.append(f"{name}: {in_words(state.error)}")
    return errors or ([run.cause] if run.cause else [])


def job_run_of(event: Mapping[str, Any]) -> str | None:
    """Return the id of the Glue job run that an event submitted, or None."""
    task = event.get("taskSubmittedEventDetails") or {}
    if task.get("resourceType") != "glue":
        return None
    output = json.loads(task.get("output") or "{}")
    return output.get("JobRunId")


def visits(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the visits of states in order: name, start, and seconds, which are None until the
    state exits."""
    visited: list[dict[str, Any]] = []
    for event in history:
        entered = event.get("stateEnteredEventDetails")
        exited = event.get("stateExitedEventDetails")
        if entered:
            visited.append({"name": entered["name"], "start": event["timestamp"], "seconds": None})
        elif exited:
            for visit in reversed(visited):
                if visit["name"] == exited["name"] and visit["seconds"] is None:
                    visit["seconds"] = (event["timestamp"] - visit["start"]).total_seconds()
                    break
    return visited
