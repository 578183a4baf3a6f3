"""Operations on the lake, from the command line to the answer: `python -m local rollback ...` and
`python -m deploy operate rollback ...` are the same words (docs/operations.md).

An operation is an execution of the state machine whose input names it. What it found and did is in
RUNS_PATH/<run id>/operation.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import json
import math
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

import glue_operations
from client import SetupError
from client.aws import AWS_ERRORS, THROTTLED, code_of
from client.render import of_plan, of_rows

Say = Callable[[str], None]
Request = dict[str, Any]
INPUT_BYTES = 100_000  # of an operation, which the job gets as one argument
FINISHED = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")
CHANGES = re.compile(r"\s*(INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Outcome:
    """How an operation ended. `result` is its operation.json, empty where it wrote none."""

    run_id: str
    cause: str | None
    result: Mapping[str, Any]


# --------------------------------------------------------------------------------------------------
# The request: the options are those that the job declares (glue_operations.SPECS)
# --------------------------------------------------------------------------------------------------
def parser(name: str, prog: str) -> argparse.ArgumentParser:
    """Return the parser of an operation's options, which sets only those that are given."""
    spec = glue_operations.SPECS[name]
    options = argparse.ArgumentParser(
        prog=f"{prog} {name}", description=spec.meaning, allow_abbrev=False
    )
    group: Any = options.add_mutually_exclusive_group(required=True) if name == "rollback" else None
    for field, declared in spec.fields.items():
        _add_option(group or options, field, declared)
    for field, default in (("author", ""), ("dry_run", False)):
        _add_option(options, field, glue_operations.COMMON[field])
        options.set_defaults(**{field: default})
    options.add_argument("--json", action="store_true", help="print operation.json")
    return options


def _add_option(options: Any, field: str, declared: Any) -> None:
    """Add the option of a field; `rows` and `expected` have none: only the console knows such
    places and versions."""
    check, meaning = declared.check, declared.meaning
    flag, absent = f"--{field.replace('_', '-')}", argparse.SUPPRESS
    if field == "sql":
        meaning = f"{meaning}; read from stdin if it is missing"
        options.add_argument("sql", nargs="?", default=None, help=meaning)
    elif check is glue_operations.TEXTS:
        name = "status" if field == "statuses" else field.removesuffix("s")
        choices = glue_operations.OPEN_STATUSES if field == "statuses" else None
        options.add_argument(
            f"--{name}",
            dest=field,
            action="append",
            default=absent,
            metavar=None if choices else name.upper(),
            choices=choices,
            help=f"{meaning}; may be repeated",
        )
    elif check is glue_operations.TEXT:
        metavar = "RUN" if field in ("to", "undo") else "TEXT"
        options.add_argument(flag, default=absent, metavar=metavar, help=meaning)
    elif check is glue_operations.NUMBER:
        options.add_argument(flag, default=absent, type=int, metavar="N", help=meaning)
    elif check in (glue_operations.FLAG, glue_operations.ARCHIVED):
        options.add_argument(flag, default=absent, action="store_true", help=meaning)
    if check is glue_operations.ARCHIVED:
        for day, limit in (("from", "on this day or later"), ("to", "on this day or earlier")):
            help_text = f"archived files that were delivered {limit}"
            options.add_argument(f"--{day}", default=absent, metavar="DATE", help=help_text)


def request(name: str, options: argparse.Namespace) -> Request:
    """Return the operation and its fields; without an author, the user of this machine."""
    values = vars(options)
    author = options.author or getpass.getuser()
    asked = {"operation": name, "author": author, "dry_run": options.dry_run}
    fields = {
        field: values[field] for field in glue_operations.SPECS[name].fields if field in values
    }
    if name == "sql":
        fields["sql"] = (sys.stdin.read() if options.sql is None else options.sql).strip()
    if name == "replay" and values.keys() & {"archived", "from", "to"}:
        fields["archived"] = {day: values[day] for day in ("from", "to") if day in values}
        for field, place in (("files", "paths"), ("runs", "runs")):
            if field in fields:
                fields["archived"][place] = fields.pop(field)
    return asked | fields


def changes_data(sql: str) -> bool:
    """Whether a statement is one that Athena refuses and the operation `sql` takes."""
    return CHANGES.match(COMMENT.sub(" ", sql)) is not None


def caller(sts: Any) -> str:
    """Return the caller's name in its AWS account: `ann`, or `Operator/ann` for a role."""
    name: str = sts.get_caller_identity()["Arn"].partition("/")[2]
    return name or "root"


def execution_input(asked: Mapping[str, Any]) -> str:
    """Return the input of an execution; raise SetupError if it is too long for the job."""
    text = json.dumps(asked, ensure_ascii=False)
    size = len(text.encode("utf-8"))
    if size > INPUT_BYTES:
        raise SetupError(
            f"The operation takes {size:,} bytes, and at most {INPUT_BYTES:,} are possible: split "
            "the statement, or choose fewer rows"
        )
    return text


def new_run_id(name: str) -> str:
    """Names the execution; what starts later sorts later."""
    return f"{name}-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


# --------------------------------------------------------------------------------------------------
# An execution
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Operations:
    """Where operations run: boto3's clients, the state machine's ARN and the lake's bucket."""

    states: Any
    s3: Any
    machine: str
    bucket: str
    runs_prefix: str = "runs/"

    def start(self, asked: Request) -> str:
        """Start an operation, or a load if none is asked for; return its run id."""
        plan = "-plan" if asked.get("dry_run") else ""
        run_id = new_run_id(asked.get("operation", "load") + plan)
        self.states.start_execution(
            stateMachineArn=self.machine, name=run_id, input=execution_input(asked)
        )
        return run_id

    def arn(self, run_id: str) -> str:
        """Return the execution that a run is named after."""
        return self.machine.replace(":stateMachine:", ":execution:") + f":{run_id}"

    def stop(self, run_id: str, author: str, why: str) -> None:
        """Stop an execution and the job that it waits for. The next run finishes or takes back
        what the job has begun."""
        cause = f"Stopped by {author}: {why}"
        self.states.stop_execution(executionArn=self.arn(run_id), cause=cause)

    def write_note(self, name: str, document: Mapping[str, Any]) -> None:
        """Write what operators tell each other into an object beside the runs."""
        body = json.dumps(document, ensure_ascii=False).encode()
        self.s3.put_object(Bucket=self.bucket, Key=f"{self.runs_prefix}{name}", Body=body)

    def outcome(self, run_id: str) -> Outcome | None:
        """Return how an execution ended, or None while it runs."""
        ended = self.states.describe_execution(executionArn=self.arn(run_id))
        if ended["status"] not in FINISHED:
            return None
        if ended["status"] == "SUCCEEDED":
            return Outcome(run_id, None, self._record(run_id, "operation.json", ("NoSuchKey",)))
        # Without ListBucket S3 answers 403 for a missing key, and a refused operation writes none
        missing = ("NoSuchKey", "AccessDenied")
        cause = self._record(run_id, "summary.json", missing).get("error") or sentence(ended)
        return Outcome(run_id, cause, self._record(run_id, "operation.json", missing))

    def wait(self, run_id: str, poll: float, patience: float = math.inf) -> Outcome:
        """Return the outcome once there is one; too many requests only take longer. Raises
        SetupError after `patience` seconds."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            try:
                outcome = self.outcome(run_id)
            except AWS_ERRORS as error:
                if code_of(error) not in THROTTLED:
                    raise
                outcome = None
            if outcome is not None:
                return outcome
            time.sleep(poll)
        raise SetupError(f"{run_id} is still running: look at its page")

    def run(self, asked: Request, say: Say, poll: float) -> Outcome:
        """Start an operation and wait for its end."""
        run_id = self.start(asked)
        say(f"Execution {run_id} started")
        return self.wait(run_id, poll)

    def _record(self, run_id: str, name: str, missing: Sequence[str]) -> Mapping[str, Any]:
        """Return a record of the run; empty if S3 answers with one of the codes `missing`."""
        key = f"{self.runs_prefix}{run_id}/{name}"
        try:
            body = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except ClientError as error:
            if code_of(error) not in missing:
                raise
            return {}
        return json.loads(body)


def sentence(ended: Mapping[str, Any]) -> str:
    """Return why an execution did not succeed, in the job's own words if the state machine has
    them."""
    text = ended.get("cause") or ended.get("error") or ended["status"]
    try:
        failure = json.loads(text)
    except ValueError:
        return text
    cause = failure.get("Cause") if isinstance(failure, dict) else None
    return cause or text


# --------------------------------------------------------------------------------------------------
# The answer
# --------------------------------------------------------------------------------------------------
def answer_text(outcome: Outcome) -> str:
    """Return the result as a person reads it: its text, then plan, effect and rows as tables."""
    result = outcome.result
    parts = [str(result["text"])] if result.get("text") else []
    for name in ("plan", "effect"):
        parts += [f"{name}\n{table}" for table in of_plan(result.get(name) or {})]
    if result.get("rows"):
        parts.append(str(of_rows(result["rows"])))
    return "\n\n".join(parts) or f"The run {outcome.run_id} left no operation.json"


def show(outcome: Outcome, as_json: bool, say: Say, complain: Say) -> int:
    """Print the outcome; return the exit code."""
    if as_json and outcome.result:
        say(json.dumps(outcome.result, indent=1, ensure_ascii=False))
    elif outcome.result or outcome.cause is None:
        say(answer_text(outcome))
    if outcome.cause is not None:
        complain(outcome.cause)
    return 0 if outcome.cause is None else 1
