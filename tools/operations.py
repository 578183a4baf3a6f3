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
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

Say = Callable[[str], None]
Request = dict[str, Any]
KEYS = {"order": "clean_orders", "item": "clean_orders_items", "product": "clean_products"}
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
# What is asked for
# --------------------------------------------------------------------------------------------------
def _sql(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sql",
        nargs="?",
        help="one INSERT, UPDATE, DELETE or MERGE; or a SELECT, which may read the past; read from "
        "stdin where it is missing",
    )


def _rollback(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--to", metavar="RUN", help="all tables as they were after this run")
    which.add_argument("--undo", metavar="RUN", help="all tables as they were before the last run")


def _replay(parser: argparse.ArgumentParser) -> None:
    several: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("--dataset", **several, help="only of it; may be said several times")
    parser.add_argument("--reason", **several, help="only rows with this reason")
    parser.add_argument("--status", **several, choices=("rejected", "parked"))
    parser.add_argument("--run", **several, help="only what this run refused or archived")
    parser.add_argument("--file", **several, help="only of this file, as orders/2025-04-01.csv")
    parser.add_argument("--archived", action="store_true", help="whole files from the archive")
    parser.add_argument(
        "--from", dest="first", metavar="DATE", help="delivered on this day or later"
    )
    parser.add_argument(
        "--to", dest="last", metavar="DATE", help="delivered on this day or earlier"
    )
    parser.add_argument("--discard", action="store_true", help="close these rows for good")
    parser.add_argument("--why", help="goes with --discard")


def _optimize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", action="append", default=[], help="only this table")
    parser.add_argument("--min-files", type=int, help="of partitions with so many small files (5)")


def _vacuum(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=int, help="keep what was in a table since then (30)")


def _history(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--run", help="of one run")
    which.add_argument("--file", help="the life of one file, as orders/2025-04-01.csv")
    for name in KEYS:
        which.add_argument(f"--{name}", metavar="ID", help=f"the life of one {name}")


FIELDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "sql": (_sql, "correct rows by one statement, or read the past"),
    "rollback": (_rollback, "take all tables back to the state after a run"),
    "replay": (_replay, "take rejected rows or archived files by the rules as they are now"),
    "optimize": (_optimize, "make many small files few"),
    "vacuum": (_vacuum, "remove files that no rollback needs"),
    "history": (_history, "who changed what when: runs, a file, a key"),
}


def parser(name: str, prog: str) -> argparse.ArgumentParser:
    """The options of one operation."""
    add, meaning = FIELDS[name]
    made = argparse.ArgumentParser(prog=f"{prog} {name}", description=meaning, allow_abbrev=False)
    add(made)
    made.add_argument("--dry-run", action="store_true", help="say what would be done, and do not")
    made.add_argument("--author", default=getpass.getuser(), help="who asks (your user's name)")
    made.add_argument("--json", action="store_true", help="print operation.json")
    return made


def request(name: str, options: argparse.Namespace) -> Request:
    """The input of the execution: the operation and what was said about it."""
    said = {"operation": name, "author": options.author, "dry_run": options.dry_run}
    if name == "sql":
        text = sys.stdin.read() if options.sql is None else options.sql
        return said | {"sql": text.strip()}
    if name == "replay":
        return said | _replay_request(options)
    if name == "history":
        return said | _history_request(options)
    fields = {
        "rollback": ("to", "undo"),
        "optimize": ("table", "min_files"),
        "vacuum": ("days",),
    }
    names = {"table": "tables"}
    given = {names.get(field, field): getattr(options, field) for field in fields[name]}
    return said | {field: value for field, value in given.items() if value not in (None, [])}


def _replay_request(options: argparse.Namespace) -> Request:
    """Rows of rejected_records, or archived files; what does not go together the job refuses."""
    days = {"from": options.first, "to": options.last}
    archived = options.archived or any(days.values())
    places = {"runs": options.run, "paths" if archived else "files": options.file}
    fields = {
        "datasets": options.dataset,
        "reasons": options.reason,
        "statuses": options.status,
        "discard": options.discard,
        "why": options.why,
    }
    if archived:
        return {**_given(fields), "archived": _given({**places, **days})}
    return _given({**fields, **places})


def _given(fields: Mapping[str, Any]) -> Request:
    return {field: value for field, value in fields.items() if value}


def _history_request(options: argparse.Namespace) -> Request:
    for field in ("run", "file"):
        if getattr(options, field):
            return {field: getattr(options, field)}
    for field, table in KEYS.items():
        if getattr(options, field):
            return {"table": table, "key": getattr(options, field)}
    return {}


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
