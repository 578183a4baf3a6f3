"""Operations on the lake, from the command line to the answer: `python -m local rollback ...` and
`python -m deploy operate rollback ...` are the same words (docs/glue_operations.md).

An operation is an execution of the state machine whose input names it. What it found and did is in
RUNS_PATH/<run id>/operation.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import json
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

import glue_operations

Say = Callable[[str], None]
Request = dict[str, Any]
CELL = 60  # characters of a value in a table
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
    for field, default in (("author", getpass.getuser()), ("dry_run", False)):
        _add_option(options, field, glue_operations.COMMON[field])
        options.set_defaults(**{field: default})
    options.add_argument("--json", action="store_true", help="print operation.json")
    return options


def _add_option(options: Any, field: str, declared: Any) -> None:
    """Add the option of a field; `rows` has none, since only the console knows such places."""
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
    """Return the input of the execution: the operation and its fields."""
    given = vars(options)
    asked = {"operation": name, "author": options.author, "dry_run": options.dry_run}
    fields = {field: given[field] for field in glue_operations.SPECS[name].fields if field in given}
    if name == "sql":
        fields["sql"] = (sys.stdin.read() if options.sql is None else options.sql).strip()
    if name == "replay" and given.keys() & {"archived", "from", "to"}:
        fields["archived"] = {day: given[day] for day in ("from", "to") if day in given}
        for field, place in (("files", "paths"), ("runs", "runs")):
            if field in fields:
                fields["archived"][place] = fields.pop(field)
    return asked | fields


def changes_data(sql: str) -> bool:
    """Whether a statement is one that Athena refuses and the operation `sql` takes."""
    return CHANGES.match(COMMENT.sub(" ", sql)) is not None


def new_run_id(name: str) -> str:
    """Names the execution; what starts later sorts later."""
    return f"{name}-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


# --------------------------------------------------------------------------------------------------
# An execution
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Lakehouse:
    """Where operations run: boto3's clients, the state machine's ARN and the lake's bucket."""

    states: Any
    s3: Any
    machine: str
    bucket: str
    runs_prefix: str = "runs/"

    def run(self, asked: Request, say: Say, poll: float) -> Outcome:
        """Starts the operation and waits for its end."""
        run_id = new_run_id(asked["operation"])
        arn = self.states.start_execution(
            stateMachineArn=self.machine, name=run_id, input=json.dumps(asked)
        )["executionArn"]
        say(f"Execution {run_id} started")
        while (ended := self.states.describe_execution(executionArn=arn))["status"] not in FINISHED:
            time.sleep(poll)
        cause = None if ended["status"] == "SUCCEEDED" else sentence(ended)
        return Outcome(run_id, cause, self._result(run_id))

    def _result(self, run_id: str) -> Mapping[str, Any]:
        key = f"{self.runs_prefix}{run_id}/operation.json"
        try:
            body = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                raise
            return {}
        return json.loads(body)


def sentence(ended: Mapping[str, Any]) -> str:
    """Why an execution did not succeed; the job's own words where the state machine has them."""
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
def told(outcome: Outcome) -> str:
    """The result as a person reads it: its text, then plan, effect and rows as tables."""
    result = outcome.result
    parts = [str(result["text"])] if result.get("text") else []
    parts += [f"{name}\n{_object(result[name])}" for name in ("plan", "effect") if result.get(name)]
    if result.get("rows"):
        parts.append(table(result["rows"]))
    return "\n\n".join(parts) or f"The run {outcome.run_id} left no operation.json"


def sections(
    value: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Mapping[str, Mapping[str, Any]]]]:
    """What a plan or an effect says: numbers and words by name, and by title objects that have
    names: those in `tables` or another one that holds nothing but objects; others under ''."""
    facts, loose, nested = {}, {}, {}
    for name, inner in value.items():
        if not inner or not isinstance(inner, Mapping):
            facts[name] = inner
        elif all(isinstance(one, Mapping) for one in inner.values()):
            nested[name] = inner
        else:
            loose[name] = inner
    return facts, {"": loose, **nested} if loose else nested


def _object(value: Mapping[str, Any]) -> str:
    """Facts a line each, then a table for each title."""
    facts, titled = sections(value)
    lines = [f"  {name}: {_cell(inner)}" for name, inner in facts.items()]
    return "\n".join([*lines, *(_by_name(title, rows) for title, rows in titled.items())])


def _by_name(title: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    return table([{title: name, **row} for name, row in rows.items()])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same or other names, in columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cell(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    line = " ".join(text.split())
    return line if len(line) <= CELL else line[: CELL - 1] + "…"


def show(outcome: Outcome, as_json: bool, say: Say, complain: Say) -> int:
    """Prints the outcome; the exit code."""
    if as_json and outcome.result:
        say(json.dumps(outcome.result, indent=1, ensure_ascii=False))
    elif outcome.result or outcome.cause is None:
        say(told(outcome))
    if outcome.cause is not None:
        complain(outcome.cause)
    return 0 if outcome.cause is None else 1
