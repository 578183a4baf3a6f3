"""Read the history of a lake: all runs, one run, one file or one key.

Sources are the tables `etl_runs`, `ingested_files`, `rejected_records` and `corrections`, the
manifests of the runs, and for a key the log and data files of its table and the archived files.
Reading takes no lock and starts no execution.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.dataset as ds

import glue_etl
import glue_operations
from client.deliveries import Delivery, deliveries_of_key
from client.lake import Lake, Row
from client.operations import Say
from client.render import of_rows

KEYS = {"order": "clean_orders", "item": "clean_orders_items", "product": "clean_products"}
MEANING = "who changed what and when: all runs, or one run, file or key"
CORRECTIONS = 1_000  # shown of a run


class HistoryError(Exception):
    """The history does not contain what the question names; the message says what it contains."""


@dataclass(frozen=True)
class History:
    """The answer to a question: one or two sentences, and rows with columns of their own."""

    text: str
    rows: Sequence[Row]

    def plain(self) -> Row:
        """Return the answer as JSON values."""
        answer: Row = json.loads(json.dumps({"text": self.text, "rows": self.rows}, default=str))
        return answer


# --------------------------------------------------------------------------------------------------
# The question
# --------------------------------------------------------------------------------------------------
def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    options = argparse.ArgumentParser(
        prog=f"{prog} history", description=MEANING, allow_abbrev=False
    )
    subject = options.add_mutually_exclusive_group()
    subject.add_argument("--run", help="one run, its files and its corrections")
    subject.add_argument("--file", help="one file, as orders/2025-04-01.csv")
    for name in KEYS:
        subject.add_argument(f"--{name}", metavar="ID", help=f"each version of one {name}")
    options.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return options


def read(lake: Lake, options: argparse.Namespace) -> History:
    """Return the history that the command's options ask for."""
    if options.run:
        return of_run(lake, options.run)
    if options.file:
        return of_file(lake, options.file)
    for name, table_name in KEYS.items():
        if getattr(options, name):
            return of_key(lake, table_name, getattr(options, name))
    return of_lake(lake)


def show(lake: Lake, options: argparse.Namespace, say: Say, complain: Say) -> int:
    """Print the history that the command's options ask for; return the exit code."""
    try:
        answer = read(lake, options).plain()
    except HistoryError as error:
        complain(str(error))
        return 1
    if options.json:
        say(json.dumps(answer, indent=1, ensure_ascii=False))
    else:
        rows = [str(of_rows(answer["rows"]))] if answer["rows"] else []
        say("\n\n".join([answer["text"], *rows]))
    return 0


# --------------------------------------------------------------------------------------------------
# Runs and files
# --------------------------------------------------------------------------------------------------
def recorded_runs(lake: Lake) -> list[Any]:
    """Return the rows of etl_runs in the order in which the runs ended."""
    rows = sorted(lake.rows("etl_runs"), key=lambda row: (row["finished_at"], row["run_id"]))
    return list(map(glue_operations.Run.of, rows))


def run_line(run: Any, standing: set[str]) -> Row:
    """Return a run as one row; `stands` is false after a rollback has taken the run back."""
    operation = run.summary.get("operation") or {}
    counts = {
        dataset: {name: numbers[name] for name in glue_etl.OUTCOMES if numbers[name]}
        for dataset, numbers in run.summary["datasets"].items()
    }
    return {
        "run_id": run.run_id,
        "operation": run.operation,
        "author": operation.get("author"),
        "text": operation.get("text"),
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "stands": run.run_id in standing or run.operation == "rollback",
        "files": run.summary["files"].get("loaded", 0),
        "rows": {dataset: numbers for dataset, numbers in counts.items() if numbers},
        "versions": dict(run.versions),
    }


def standing_ids(runs: Sequence[Any]) -> set[str]:
    """Return the ids of the runs that no rollback has taken back."""
    return {run.run_id for run in glue_operations.standing_runs(runs)}


def of_lake(lake: Lake) -> History:
    """Return all runs that have changed the lake, the latest first."""
    runs = recorded_runs(lake)
    standing = standing_ids(runs)
    text = f"{glue_operations.plural(len(runs), 'run')} changed the lake."
    return History(text, [run_line(run, standing) for run in reversed(runs)])


def of_run(lake: Lake, run_id: str) -> History:
    """Return one run, its files and its corrections."""
    runs = recorded_runs(lake)
    run = next((run for run in runs if run.run_id == run_id), None)
    if run is None:
        latest = glue_operations.listed(run.run_id for run in runs[-5:])
        hint = f"the latest that did are {latest}" if runs else "nothing was loaded yet"
        raise HistoryError(f"No run {run_id!r} has changed the lake; {hint}")
    lines = lake.manifest(run_id)
    files = [
        {"file": line["path"], "outcome": line["outcome"], "detail": line["detail"]}
        for line in lines
    ]
    corrections = lake.rows("corrections", ds.field("run_id") == run_id, limit=CORRECTIONS)
    operation = run.summary.get("operation") or {}
    text = operation.get("text") or f"A load of {glue_operations.plural(len(lines), 'file')}."
    return History(f"{run_id}: {text}", [run_line(run, standing_ids(runs)), *files, *corrections])


def of_file(lake: Lake, path: str) -> History:
    """Return each run that saw a file, its place now, its ledger rows and its rejects."""
    columns = ("run_id", "last_modified", "outcome", "reason", "detail", "rows_read")
    rows: list[Row] = [
        {name: line.get(name) for name in columns}
        | {"lies_at": lake.scheme + lake.destination(line)}
        for line in lake.manifest()
        if line["path"] == path
    ]
    this_file = ds.field("file_path") == path
    ledger = lake.rows("ingested_files", this_file)
    if not rows and not ledger:
        raise HistoryError(f"No run has seen a file {path!r}; write its path below the raw zone")
    rejects = Counter(row["status"] for row in lake.rows("rejected_records", this_file, ["status"]))
    last = rows[-1] if rows else {"outcome": "recorded", "run_id": ledger[-1]["run_id"]}
    text = f"{path}: {last['outcome']} by {last['run_id']}"
    if last["outcome"] == "loaded" and last["run_id"] not in standing_ids(recorded_runs(lake)):
        text += ", which was undone"
    text += f"; it lies at {last['lies_at']}." if rows else "; its manifest is gone."
    if not ledger:
        text += " No table contains rows of it."
    groups = [{"rejects": status, "rows": count} for status, count in sorted(rejects.items())]
    return History(text, [*rows, *({"ledger": row} for row in ledger), *groups])


# --------------------------------------------------------------------------------------------------
# Keys
# --------------------------------------------------------------------------------------------------
def of_key(lake: Lake, name: str, key: str) -> History:
    """Return each version of a key, the delivered rows that lost against it, and its rejects."""
    table = next(
        (table for table in glue_operations.etl.TABLES if name in (table.name, table.dataset)), None
    )
    if table is None:
        names = glue_operations.listed(table.name for table in glue_operations.etl.TABLES)
        raise HistoryError(f"{name!r} is no table with keys; there are {names}")
    versions, oldest = versions_of_key(lake, table, key)
    this_key = (ds.field("dataset") == table.dataset) & (ds.field("record_key") == key)
    rejects = lake.rows("rejected_records", this_key)
    delivered = deliveries_of_key(lake, table.dataset, key, {row["run_id"] for row in versions})
    runs = {run.run_id: run for run in recorded_runs(lake)}
    for version in versions:
        version |= origin(table, version, runs.get(version["run_id"]), delivered, rejects)
    columns = ("run_id", "status", "reasons", "file_path", "line", "raw", "resolved_run_id")
    refused = [{name: row[name] for name in columns} for row in rejects]
    lost = lost_deliveries(table, versions, delivered, rejects)
    counts = [
        glue_operations.plural(len(versions), "version"),
        glue_operations.plural(len(refused), "reject"),
    ]
    text = f"{table.name} {key}: {', '.join(counts)}."
    if oldest:
        text += f" Versions of the table before {oldest} are gone: vacuum or Delta removed them."
    return History(text, [*versions, *lost, *refused])


def versions_of_key(lake: Lake, table: Any, key: str) -> tuple[list[Row], int]:
    """Return the rows that the table held for a key, version by version, and its oldest version
    that can be read."""
    commits = lake.commits(table.name)
    oldest = commits[0].version if commits else 0
    paths = {path for commit in commits for path in commit.added}
    rows = lake.rows_by_file(table.name, sorted(paths), ds.field(table.key) == key)
    versions: list[Row] = []
    files: set[str] = set()
    last: Row | None = None
    for commit in commits:
        files = (files - commit.removed) | (commit.added & rows.keys())
        row = next((rows[path] for path in files), None)
        if row == last:
            continue
        change = "deleted" if row is None else "inserted" if last is None else "updated"
        run_id = commit.run_id
        if oldest and commit.version == oldest:  # an earlier run may have written the row
            change, run_id = "oldest known", ""
        versions.append({"version": commit.version, "run_id": run_id, "change": change, "row": row})
        last = row
    return versions, oldest


def origin(
    table: Any,
    version: Row,
    run: Any,
    delivered: Sequence[Delivery],
    rejects: Sequence[Mapping[str, Any]],
) -> Row:
    """Return who made a version of a key, from which file and line, and why it won."""
    operation = {"operation": run.operation if run else "load"}
    if version["change"] == "oldest known":
        return {"operation": None, "why": "the versions before it are gone"}
    if run and run.operation in ("sql", "rollback"):
        made = run.summary["operation"]
        return {**operation, "why": f"{run.operation} by {made['author']}: {made['text']}"}
    newest = f"the newest {table.version}" if table.version else "the latest delivery"
    why = f"{newest} of those delivered so far; at a tie the later delivery wins"
    same = [row for row in delivered if row.equals(version["row"])]
    own = [row for row in same if row.run_id == version["run_id"]]
    places = [(row.file, row.line) for row in own or same]
    if not places:  # a parked or replayed row
        places = [
            (row["file_path"], row["line"])
            for row in rejects
            if row["status"] == "admitted" and row["resolved_run_id"] == version["run_id"]
        ]
    place = dict(zip(("file", "line"), places[-1], strict=True)) if places else {}
    return {**operation, **place, "why": why}


def lost_deliveries(
    table: Any,
    versions: Sequence[Row],
    delivered: Sequence[Delivery],
    rejects: Sequence[Mapping[str, Any]],
) -> list[Row]:
    """Return the delivered rows that were never in the table, with the reason."""
    rows = [version["row"] for version in versions if version["row"]]
    refused = {(row["file_path"], row["line"]) for row in rejects}
    lost = []
    for delivery in delivered:
        if (delivery.file, delivery.line) in refused or any(delivery.equals(row) for row in rows):
            continue
        why = "it was delivered before another row of the same run"
        if table.version and any(
            row[table.version] > delivery.values[table.version] for row in rows
        ):
            why = f"its {table.version} is older than that of the row in the table"
        place = {"file": delivery.file, "line": delivery.line}
        lost.append({**place, "superseded": dict(delivery.texts), "why": why})
    return lost
