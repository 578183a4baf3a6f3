"""The job's second script: correct, undo, replay, maintain the lake that `glue_etl.py` loads.

It runs as the same Glue job (`--scriptLocation` names this file, `--extra-py-files` brings
`glue_etl.py`), so that MaxConcurrentRuns 1 guards every write. It takes the job's arguments and
  --OPERATION     JSON: {"operation": NAME, "author": WHO, "dry_run": BOOLEAN, ...}
  --ARCHIVE_PATH  where the archiver puts the files of a run: `s3://bucket/archived/` or a folder
                  that holds `run=<run id>/<path>`; only replays read it

Operations  sql       one INSERT, UPDATE, DELETE or MERGE on a table, or a SELECT on any
            rollback  all tables, ledger and rejects to the state after a run
            replay    rejected, parked rows or archived files through the rules as they are now
            optimize  compact partitions with many small files
            vacuum    remove data files that no rollback needs any more
`docs/operations.md` shows each; SPECS declares their fields.

Outputs     RUNS_PATH/<run id>/operation.json (the whole result), manifest.jsonl (empty: nothing is
            to be archived), summary.json; one row in `etl_runs`; rows of `corrections`. A dry run
            and a SELECT write the three files and nothing else.

A kill      Before its first change an operation writes RUNS_PATH/intent.json with the versions of
            all tables, and removes it after its row in `etl_runs`. Whoever writes next, the load
            included, finishes it first (`glue_etl.finish_killed_operation`): a rollback goes on to
            its end; what any other operation has written is taken back by RESTORE, as if it had
            never begun. Then the operation, started again, does its work anew. `optimize` and
            `vacuum` change no row and need no intent. The row in `etl_runs` closes an operation:
            if it is started again after that, it only writes its summary once more.
Precedence  A replayed row keeps the delivery of its file. Where it ties with the table's row, the
            delivery of that one is looked up in the archived files delivered since, and among the
            corrections, each of which counts as a delivery at its time (`outranked`).
Exit codes  0 done; 1 failed or refused, with the cause in summary.json; 2 a wrong argument.

sqlglot is imported by `sql` alone: all else runs where it is not installed. On Glue it comes as one
more file of `--extra-py-files` (it is plain Python).
"""

from __future__ import annotations

import argparse
import bisect
import datetime as dt
import fnmatch
import functools
import json
import re
import sys
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import glue_etl as etl
from glue_etl import JobArguments, JobError, Lake, LakeTable, Table, Timings

if TYPE_CHECKING:
    from sqlglot import exp

MAINTENANCE = ("optimize", "vacuum")
RESTORED = (*(table.name for table in etl.TABLES), "rejected_records", "ingested_files")
DISCARDED = "discarded"
OPEN_STATUSES = (etl.REJECTED, etl.PARKED)
SMALL_BYTES = 64 << 20  # a smaller data file is worth compacting
MAX_PARTITIONS = 400  # that one OPTIMIZE names
SHOWN_ROWS = 1_000  # of a SELECT in operation.json
TEXT_LIMIT = 1_000
OBJECT_LIMIT = 20_000  # bytes of plan and effect in the summary
NAMED = 3  # offending keys in an error


# --------------------------------------------------------------------------------------------------
# What is asked for
# --------------------------------------------------------------------------------------------------
def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(_text(one) for one in value)


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _places(value: object) -> bool:
    """Rows of rejected_records by their identity."""
    names = set(etl.ROW_IDENTITY)
    return isinstance(value, list) and all(
        isinstance(one, dict) and set(one) == names for one in value
    )


def _archived(value: object) -> bool:
    kinds = {"paths": _texts, "runs": _texts, "from": _day, "to": _day}
    return isinstance(value, dict) and all(
        name in kinds and kinds[name](one) for name, one in value.items()
    )


def _day(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value) is not None


Check = tuple[Callable[[object], bool], str]
TEXT: Check = (_text, "a text")
TEXTS: Check = (_texts, "a list of texts")
NUMBER: Check = (_number, "a whole number above 0")
FLAG: Check = (_flag, "true or false")
PLACES: Check = (_places, f"a list of objects with {', '.join(etl.ROW_IDENTITY)}")
ARCHIVED: Check = (_archived, "an object with any of paths, runs (lists), from, to (2025-04-30)")


@dataclass(frozen=True)
class FieldSpec:
    """A field of a request: what its value must be, and its meaning for people."""

    check: Check
    meaning: str


@dataclass(frozen=True)
class OperationSpec:
    """An operation for people and clients: its meaning and its own fields."""

    meaning: str
    fields: Mapping[str, FieldSpec]


# The only list of the operations: the CLI and the console read it as well
SPECS: Mapping[str, OperationSpec] = {
    "sql": OperationSpec(
        "correct rows with one statement, or read an earlier version of a table",
        {
            "sql": FieldSpec(
                TEXT, "one INSERT, UPDATE, DELETE or MERGE; or a SELECT, also of an earlier version"
            )
        },
    ),
    "rollback": OperationSpec(
        "restore all tables to their state after or before a run",
        {
            "to": FieldSpec(TEXT, "restore the state after this run"),
            "undo": FieldSpec(TEXT, "restore the state before this run, which must be the last"),
        },
    ),
    "replay": OperationSpec(
        "apply the current rules to rejected rows or archived files",
        {
            "datasets": FieldSpec(TEXTS, "only this dataset"),
            "reasons": FieldSpec(TEXTS, "only rows with this reason"),
            "statuses": FieldSpec(TEXTS, f"only {' or '.join(OPEN_STATUSES)} rows"),
            "runs": FieldSpec(TEXTS, "only what this run rejected or archived"),
            "files": FieldSpec(TEXTS, "only this file, as orders/2025-04-01.csv"),
            "rows": FieldSpec(PLACES, "only these rows of rejected_records"),
            "archived": FieldSpec(ARCHIVED, "whole files from the archive"),
            "discard": FieldSpec(FLAG, "close these rows for good"),
            "why": FieldSpec(TEXT, "the reason for the discard"),
        },
    ),
    "optimize": OperationSpec(
        "compact partitions with many small files",
        {
            "tables": FieldSpec(TEXTS, "only this table"),
            "min_files": FieldSpec(NUMBER, "only partitions with at least so many small files (5)"),
        },
    ),
    "vacuum": OperationSpec(
        "remove data files that no version within the tables' retention needs", {}
    ),
}
COMMON: Mapping[str, FieldSpec] = {
    "operation": FieldSpec(TEXT, "the name of the operation"),
    "author": FieldSpec(TEXT, "who requests it"),
    "dry_run": FieldSpec(FLAG, "report what would be done, and change nothing"),
}


@dataclass(frozen=True)
class Request:
    """The operation asked for: its name, who asks, and its own fields (SPECS)."""

    name: str
    author: str
    dry_run: bool
    options: Mapping[str, Any]

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Read and check the argument; JobError names the field that is wrong."""
        try:
            given = json.loads(text)
        except json.JSONDecodeError as error:
            raise JobError(f"--OPERATION is no JSON: {error}") from None
        if not isinstance(given, dict) or given.get("operation") not in SPECS:
            raise JobError(f'--OPERATION: say "operation": one of {", ".join(SPECS)}')
        name = given["operation"]
        fields = {**COMMON, **SPECS[name].fields}
        for key, value in given.items():
            if key not in fields:
                raise JobError(f"{name}: there is no field {key!r}; it takes {', '.join(fields)}")
            check, wanted = fields[key].check
            if not check(value):
                raise JobError(f"{name}: {key!r} is to be {wanted}, not {json.dumps(value)}")
        options = {key: value for key, value in given.items() if key in SPECS[name].fields}
        author, dry_run = given.get("author", "unknown"), given.get("dry_run", False)
        return cls(name, author, dry_run, options).checked()

    def checked(self) -> Request:
        """Itself, if its fields go together."""
        given = set(self.options)
        problems = {
            "sql": "sql" not in given and 'say "sql": one statement',
            "rollback": len(given) != 1 and 'say either "to" or "undo" with a run id',
            "replay": self._replay_problem(),
        }
        problem = problems.get(self.name)
        if problem:
            raise JobError(f"{self.name}: {problem}")
        return self

    def _replay_problem(self) -> str | None:
        if "archived" in self.options and len(self.options) > 1:
            return '"archived" stands alone: whole files are replayed, not chosen rows'
        if self.options.get("discard") and "why" not in self.options:
            return '"discard" closes rows for good: say "why"'
        strange = set(self.options.get("statuses", ())) - set(OPEN_STATUSES)
        return f'"statuses" are {" and ".join(OPEN_STATUSES)}' if strange else None

    def texts(self, name: str) -> list[str]:
        return list(self.options.get(name, ()))


@dataclass(frozen=True)
class OperationArguments:
    """The job's arguments and the two of this script."""

    job: JobArguments
    operation: str
    archive_path: str | None

    @classmethod
    def from_argv(cls, argv: Sequence[str]) -> OperationArguments:
        """Read the command line; exits with 2 on a wrong argument."""
        parser = argparse.ArgumentParser(prog="glue_operations.py", allow_abbrev=False)
        parser.add_argument("--OPERATION", required=True)
        parser.add_argument("--ARCHIVE_PATH")
        known, _ = parser.parse_known_args(argv)
        archive = known.ARCHIVE_PATH and known.ARCHIVE_PATH.rstrip("/") + "/"
        return cls(JobArguments.from_argv(argv), known.OPERATION, archive or None)


# --------------------------------------------------------------------------------------------------
# What an operation works on, and what it gives
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Run:
    """A row of etl_runs: a load or an operation that is done."""

    run_id: str
    operation: str
    started_at: dt.datetime
    finished_at: dt.datetime
    summary: Mapping[str, Any]
    versions: Mapping[str, int]

    @property
    def told(self) -> Mapping[str, Any]:
        """What the summary says of an operation; empty for a load."""
        found: Mapping[str, Any] = self.summary.get("operation") or {}
        return found


@dataclass(frozen=True)
class Work:
    """What an operation works on."""

    arguments: OperationArguments
    request: Request
    spark: SparkSession
    lake: Lake
    runs: tuple[Run, ...]
    timed: Timings

    @property
    def job(self) -> JobArguments:
        return self.arguments.job

    @property
    def stamp(self) -> str:
        return etl.stamp(self.job)

    def run_of(self, run_id: str) -> Run | None:
        return next((run for run in self.runs if run.run_id == run_id), None)

    def frame(self, name: str) -> DataFrame:
        """The rows of a table, which must be there."""
        if not self.lake[name].exists:
            raise JobError(f"{name} is not there yet: load something first")
        return self.lake[name].frame


@dataclass(frozen=True)
class Result:
    """What an operation found, or did.

    text      one or two sentences for people
    plan      what is to be done, by table
    effect    what was done; empty in a dry run
    datasets  the load's numbers, of replays
    rows      of SELECT
    recorded  whether the operation gets a row in etl_runs
    """

    text: str
    plan: Mapping[str, Any]
    effect: Mapping[str, Any] = field(default_factory=dict)
    datasets: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    recorded: bool = True


def runs_of(lake: Lake) -> tuple[Run, ...]:
    """The rows of etl_runs in the order in which they were done."""
    rows = lake["etl_runs"].frame.orderBy("finished_at", "run_id").collect()
    return tuple(
        Run(
            row["run_id"],
            row["operation"],
            row["started_at"],
            row["finished_at"],
            json.loads(row["summary"]),
            row["table_versions"],
        )
        for row in rows
    )


def standing_runs(runs: Sequence[Run]) -> list[Run]:
    """The runs whose work stands: without those that a rollback has taken back."""
    standing: list[Run] = []
    after: dict[str | None, list[Run]] = {None: []}
    for run in runs:
        if run.operation == "rollback":
            standing = after.get(run.told["plan"]["to_run"], [])
        else:
            standing = [*standing, run]
        after[run.run_id] = standing
    return standing


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def listed(words: Iterable[str]) -> str:
    """`a, b and c`."""
    *most, last = list(words) or ["nothing"]
    return f"{', '.join(most)} and {last}" if most else last


# --------------------------------------------------------------------------------------------------
# The intent
# --------------------------------------------------------------------------------------------------
def write_intent(work: Work, to: Mapping[str, int], **rollback: Any) -> None:
    """Write where the tables go back to if the operation is killed."""
    before = {name: work.lake[name].before for name in to}
    intent = {"run_id": work.job.run_id, "before": before, "to": dict(to), **rollback}
    runs = etl.storage(work.job.runs_path)
    runs.write(etl.INTENT, json.dumps(intent, ensure_ascii=False).encode("utf-8"))
    etl.progress("intent written")


def begin(work: Work) -> None:
    """Begin a change that is taken back unless it comes to its end."""
    names = (*RESTORED, "corrections")
    write_intent(work, {name: work.lake[name].before for name in names})
    etl.add_columns(work.lake, work.stamp)


# --------------------------------------------------------------------------------------------------
# rollback
# --------------------------------------------------------------------------------------------------
def rollback(work: Work) -> Result:
    """All tables, ledger and rejects to the state after a run, or before the last one."""
    target = rollback_target(work)
    to = {name: target.versions.get(name, -1) if target else -1 for name in RESTORED}
    to = {name: version for name, version in to.items() if work.lake[name].exists}
    check_reachable(work, target, to)
    plan = rollback_plan(work, target, to)
    result = Result(rollback_text(work, target, plan), plan)
    if work.request.dry_run:
        return result
    done = replace(result, effect={"tables": plan["tables"]})
    summary = etl.summary_of(work.job, work.timed, (), "SUCCEEDED")
    summary["operation"] = told_of(work.request, done)
    row = {"started_at": work.timed.started.isoformat(), "summary": summary}
    write_intent(work, to, run=row)
    etl.finish_killed_operation(work.job, work.spark, etl.read_intent(work.job))
    return done


def rollback_target(work: Work) -> Run | None:
    """The run to whose state the tables go back; None for the state before the first one."""
    wanted = work.request.options
    if "to" in wanted:
        target = work.run_of(wanted["to"])
        if target is None:
            raise JobError(
                f"rollback: no run {wanted['to']!r} has changed the tables; {latest_runs(work)}"
            )
        return target
    changed = [run for run in work.runs if run.operation not in MAINTENANCE]
    if not changed or changed[-1].run_id != wanted["undo"]:
        last = f"that is {changed[-1].run_id}" if changed else "there is none"
        raise JobError(
            f"rollback: {wanted['undo']!r} is not the last run that changed the tables, {last}; "
            'say "to" with the run to go back to'
        )
    place = work.runs.index(changed[-1])
    return work.runs[place - 1] if place else None


def latest_runs(work: Work) -> str:
    names = [run.run_id for run in work.runs[-5:]]
    return f"the latest that did are {listed(names)}" if names else "nothing was loaded yet"


def lost_files(table: LakeTable, version: int) -> str | None:
    """Why a version of a table cannot be reached any more, or None.

    Its log must tell it, and each of its data files must be there.
    """
    from pyspark.errors import AnalysisException

    if version < 0 or version >= table.before:
        return None
    try:
        needed = table.at(version).inputFiles()
    except AnalysisException:
        return "its log was cleaned since"
    stored = data_files(table)
    lost = [path for path in paths_below(table, needed) if path not in stored]
    return f"VACUUM has removed {plural(len(lost), 'data file')} of it" if lost else None


def reachable(work: Work, run: Run) -> bool:
    versions = [(name, run.versions.get(name, -1)) for name in RESTORED if work.lake[name].exists]
    return not any(lost_files(work.lake[name], version) for name, version in versions)


def reachable_from(work: Work, runs: Sequence[Run]) -> Sequence[Run]:
    """The runs from the oldest on whose state can be reached, by halving: VACUUM and Delta's
    cleaning of the log take the oldest first."""
    return runs[bisect.bisect_left(runs, True, key=functools.partial(reachable, work)) :]


def check_reachable(work: Work, target: Run | None, to: Mapping[str, int]) -> None:
    """Raise, with the oldest run that can be reached, where the target cannot."""
    reasons = {name: lost_files(work.lake[name], version) for name, version in to.items()}
    problems = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    if not problems:
        return
    offered = reachable_from(work, work.runs)
    none = "no run can be reached any more"
    advice = f"the oldest run that can be reached is {offered[0].run_id}" if offered else none
    name = target.run_id if target else "the first run"
    raise JobError(f"rollback: the state after {name} is gone ({problems[0]}); {advice}")


def rollback_plan(work: Work, target: Run | None, to: Mapping[str, int]) -> dict[str, Any]:
    """The run to go back to, the runs taken back, and by table its versions and rows."""
    place = work.runs.index(target) + 1 if target else 0
    taken_back = [run.run_id for run in work.runs[place:] if run.operation not in MAINTENANCE]
    tables = {}
    for name, version in to.items():
        table = work.lake[name]
        now, then = table.before, min(version, table.before)
        rows = table.rows_at(now)
        rows_then = rows if then == now else table.rows_at(then)
        tables[name] = {"from": now, "to": then, "rows": rows, "rows_then": rows_then}
    return {
        "to_run": target.run_id if target else None,
        "runs_taken_back": taken_back[-50:],
        "runs": len(taken_back),
        "tables": tables,
    }


def rollback_text(work: Work, target: Run | None, plan: Mapping[str, Any]) -> str:
    ledger = plan["tables"]["ingested_files"]
    files = ledger["rows"] - ledger["rows_then"]
    state = f"the state after {target.run_id}" if target else "the state before the first run"
    verb = "would go" if work.request.dry_run else "went"
    text = f"The tables {verb} back to {state}: {plural(plan['runs'], 'run')} taken back."
    if files > 0:
        text += f" {plural(files, 'file')} can be replayed from the archive."
    return text


# --------------------------------------------------------------------------------------------------
# sql
# --------------------------------------------------------------------------------------------------
FORBIDDEN_FUNCTIONS = ("reflect", "java_method", "try_reflect")  # they call any Java method
LOSSY = {  # what a column of a type does not take in silence, by the beginning of the type given
    "INT": ("double", "float", "decimal"),
    "STRING": ("double", "float", "decimal"),
    "BOOLEAN": ("tinyint", "smallint", "int", "bigint", "double", "float", "decimal"),
    "DATE": ("timestamp",),
}


@dataclass(frozen=True)
class Statement:
    """One statement, parsed in Athena's dialect; `target` is the table that it changes."""

    tree: exp.Expr
    target: Table | None

    def text(self, paths: Mapping[str, str], tree: exp.Expr | None = None) -> str:
        """The statement, or another tree of its tables, in Spark's dialect, on Delta paths."""
        from sqlglot import exp

        written = (tree or self.tree).copy()
        inserted = written.this if isinstance(written, exp.Insert) else None
        for node in table_nodes(written):
            name = node.name.lower()
            if not node.alias and node is not inserted and node.parent is not inserted:
                node.set("alias", exp.TableAlias(this=exp.to_identifier(name)))
            node.set("this", exp.to_identifier(paths[name], quoted=True))
            node.set("db", exp.to_identifier("delta"))
            node.set("catalog", None)
        return written.sql(dialect="spark")

    def assignments(self) -> list[tuple[list[str], exp.Expr]]:
        """Columns that get values, each list with a query of these values, for their types."""
        from sqlglot import exp

        tree, target = self.tree, self.tree.this
        if isinstance(tree, exp.Insert) and self.target is not None:
            names = [one.name for one in target.expressions]
            return [(names or self.target.column_names, tree.expression)]
        if isinstance(tree, exp.Update):
            return [_assigned(tree.expressions, exp.select().from_(target.copy()))]
        return _merged(tree) if isinstance(tree, exp.Merge) else []


def _assigned(pairs: Sequence[exp.Expr], source: exp.Select) -> tuple[list[str], exp.Expr]:
    """`SET column = value, ...` as the columns and a query of the values."""
    return [one.this.name for one in pairs], source.select(*[one.expression for one in pairs])


def _merged(tree: exp.Merge) -> list[tuple[list[str], exp.Expr]]:
    """The columns and values of a MERGE; not of `*`, which takes columns of the same name."""
    from sqlglot import exp

    using = tree.args["using"].copy()
    source = exp.select().from_(tree.this.copy()).join(using, join_type="cross")
    found = []
    for then in (when.args["then"] for when in tree.args["whens"].expressions):
        if isinstance(then, exp.Update) and then.expressions:
            found.append(_assigned(then.expressions, source.copy()))
        elif isinstance(then, exp.Insert) and isinstance(then.expression, exp.Tuple):
            names = [one.name for one in then.this.expressions]
            found.append((names, source.copy().select(*then.expression.expressions)))
    return found


def table_nodes(tree: exp.Expr) -> list[exp.Table]:
    """The tables that a statement names, without those that it makes itself by WITH."""
    from sqlglot import exp

    made = {one.alias.lower() for one in tree.find_all(exp.CTE)}
    nodes = list(tree.find_all(exp.Table))
    return [one for one in nodes if one.db or one.name.lower() not in made]


def parse_statement(text: str, lake: Lake) -> Statement:
    """Read one statement; JobError where it is another kind, or names what is not there."""
    try:
        import sqlglot
        from sqlglot import exp
    except ImportError:
        raise JobError("sql: the Python package sqlglot is missing: add it to the job") from None
    try:
        trees = [one for one in sqlglot.parse(text, read="athena") if one is not None]
    except sqlglot.errors.SqlglotError as error:
        raise JobError(f"sql: {str(error).splitlines()[0]}") from None
    kinds = (exp.Query, exp.Insert, exp.Update, exp.Delete, exp.Merge)
    if len(trees) != 1 or not isinstance(trees[0], kinds):
        raise JobError("sql: give one statement: INSERT, UPDATE, DELETE, MERGE or SELECT")
    tree = trees[0]
    check_names(tree, lake)
    return Statement(tree, None if isinstance(tree, exp.Query) else changed_table(tree))


def check_names(tree: exp.Expr, lake: Lake) -> None:
    """Raise where a statement names a table that is not there, or a function of Java's."""
    from sqlglot import exp

    called = {one.name.lower() for one in tree.find_all(exp.Anonymous)}
    forbidden = sorted(called & set(FORBIDDEN_FUNCTIONS))
    if forbidden:
        raise JobError(f"sql: {listed(forbidden)} is not allowed")
    there = [name for name, table in lake.items() if table.exists]
    for node in table_nodes(tree):
        if node.name.lower() not in there:
            raise JobError(
                f"sql: there is no table {node.name!r}; there are {listed(sorted(there))}"
            )


def changed_table(tree: exp.Expr) -> Table:
    """The declared table that a statement changes."""
    from sqlglot import exp

    node = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    found = next((one for one in etl.TABLES if one.name == node.name.lower()), None)
    if found is None:
        names = listed(table.name for table in etl.TABLES)
        raise JobError(f"sql: only {names} can be changed, not {node.name}")
    return found


def sql(work: Work) -> Result:
    """Read by a SELECT, or correct a table by one statement."""
    statement = parse_statement(work.request.options["sql"], work.lake)
    paths = {name: table.path for name, table in work.lake.items()}
    with refused_by_spark():
        if statement.target is None:
            return select(work, statement.text(paths))
        table = statement.target
        candidate = f"{work.job.scratch_path}run={work.job.run_id}/candidate"
        check_types(work, statement, table, paths)
        changes = changes_of(work, statement, table, paths, candidate)
    counts = Counter({row["_operation"]: row["count"] for row in counted(changes, "_operation")})
    plan = {"tables": {table.name: {name: counts[name] for name in CHANGES}}}
    done = "would be " if work.request.dry_run else ""
    parts = [f"{counts[name]:,} {done}{name}" for name in CHANGES if counts[name]]
    text = f"{table.name}: {'rows: ' + listed(parts) if parts else 'no row changes'}."
    result = Result(text, plan)
    check_candidate(work, table, changes)
    if work.request.dry_run or not parts:
        return result
    begin(work)
    effect = commit_correction(work, table, changes, counts)
    return replace(result, effect={"tables": {table.name: effect}})


@contextmanager
def refused_by_spark() -> Iterator[None]:
    """Spark's words for a statement that it cannot run, as a refusal."""
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        raise JobError(f"sql: {etl.cause_of(error).partition(': ')[2]}") from error


def select(work: Work, text: str) -> Result:
    """The rows of a SELECT, the first SHOWN_ROWS of them."""
    rows = work.spark.sql(text).limit(SHOWN_ROWS + 1).collect()
    found = [row.asDict(recursive=True) for row in rows[:SHOWN_ROWS]]
    more = len(rows) > SHOWN_ROWS
    count = (
        f"more than {SHOWN_ROWS:,} rows; the first are shown" if more else plural(len(rows), "row")
    )
    return Result(f"The query gave {count}.", {}, rows=found, recorded=False)


CHANGES = ("inserted", "updated", "deleted")
CHANGED, GONE = "after", "before"  # columns of `changes`: the row as a struct, NULL for none


def counted(frame: DataFrame, *names: str) -> list[Any]:
    """Rows by some columns, each with `count`."""
    return frame.groupBy(*names).count().collect()


def check_types(work: Work, statement: Statement, table: Table, paths: Mapping[str, str]) -> None:
    """Raise where a value would lose something in its column without an error of Spark's."""
    types = {column.name: column.type for column in table.columns}
    for names, query in statement.assignments():
        given = work.spark.sql(statement.text(paths, query)).schema.fields
        if len(names) != len(given):
            raise JobError(f"sql: {len(given)} values for {len(names)} columns of {table.name}")
        for name, value in zip(names, given, strict=True):
            wanted, kind = types.get(name.lower(), ""), value.dataType.simpleString()
            whole = re.fullmatch(r"decimal\(\d+,0\)", kind)
            if kind.startswith(LOSSY.get(wanted, ("\0",))) and not whole:
                raise JobError(
                    f"sql: {table.name}.{name} is {wanted}, but its value is {kind.upper()}: "
                    f"write CAST(... AS {wanted}) if that is meant"
                )


def changes_of(
    work: Work, statement: Statement, table: Table, paths: Mapping[str, str], candidate: str
) -> DataFrame:
    """What a statement changes, found on a shallow clone: `key`, _operation, before, after.

    The table itself is only read. A twin key has a row for each of its rows.
    """
    spark = work.spark
    spark.sql(f"CREATE TABLE delta.`{candidate}` SHALLOW CLONE delta.`{paths[table.name]}`")
    with etl.settings(spark, {"spark.sql.ansi.enabled": "true"}):  # what does not fit is an error
        spark.sql(statement.text({**paths, table.name: candidate}))
    before = work.frame(table.name).select(table.column_names)
    after = spark.read.format("delta").load(candidate).select(table.column_names)
    values = F.struct(*table.column_names)
    gone = before.exceptAll(after).select(F.col(table.key).alias("key"), values.alias(GONE))
    new = after.exceptAll(before).select(F.col(table.key).alias("key"), values.alias(CHANGED))
    changes = gone.join(new, gone["key"].eqNullSafe(new["key"]), how="full")
    operation = (
        F.when(F.col(GONE).isNull(), "inserted")
        .when(F.col(CHANGED).isNull(), "deleted")
        .otherwise("updated")
    )
    key = F.coalesce(gone["key"], new["key"]).alias("key")
    return changes.select(key, operation.alias("_operation"), GONE, CHANGED).localCheckpoint()


# -- what a load guarantees ------------------------------------------------------------------------
def check_candidate(work: Work, table: Table, changes: DataFrame) -> None:
    """Raise, naming rule and keys, where a correction would break what a load guarantees."""
    new = changes.where(F.col(CHANGED).isNotNull()).select(f"{CHANGED}.*").localCheckpoint()
    gone = changes.where(F.col("_operation") == "deleted").select("key")
    broken = [
        *broken_values(table, new),
        *twin_keys(work, table, changes, new),
        *missing_parents(work, table, new),
        *orphaned_rows(work, table, gone),
    ]
    if broken:
        raise JobError(f"sql: refused, nothing was written: {'; '.join(broken)}")


def keys_of(frame: DataFrame, name: str) -> list[str]:
    """A few values of a column, as an error names them."""
    rows = frame.select(F.col(name).cast("string").alias("one")).distinct().orderBy("one")
    return [repr(row["one"]) for row in rows.limit(NAMED).collect()]


def broken_values(table: Table, new: DataFrame) -> list[str]:
    """Blank values where the load wants one, numbers that are none, rules."""

    def text_of(name: str) -> SparkColumn:
        return F.col(name).cast("string")

    checks = {
        f"{column.name} is NULL": F.col(column.name).isNull()
        for column in table.columns
        if column.required or column.name == table.partition
    }
    for column in table.columns:
        if column.type == "DOUBLE":
            limit = F.abs(F.col(column.name)) < F.lit(float("inf"))
            checks[f"{column.name} is no finite number"] = ~limit
    checks |= {rule.reason: rule.broken(text_of, F.col) for rule in table.rules}
    found = new.select(F.col(table.key), F.explode(etl.reasons_of(checks)).alias("reason"))
    rows = found.groupBy("reason").agg(F.collect_set(table.key).alias("keys")).collect()
    return [
        f"{row['reason']} in {table.name}" + _named(table.key, sorted(row["keys"])) for row in rows
    ]


def _named(column: str, keys: Sequence[str]) -> str:
    names = ", ".join(repr(key) for key in keys[:NAMED])
    return f" ({column} {names})" if names else ""


def twin_keys(work: Work, table: Table, changes: DataFrame, new: DataFrame) -> list[str]:
    """Keys that would stand twice: among the new rows, or beside a row that stays."""
    keys = new.groupBy(table.key).count()
    replaced = changes.where(F.col(GONE).isNotNull()).select(F.col("key").alias(table.key))
    stays = (
        work.frame(table.name).select(table.key).join(new.select(table.key), table.key, "left_semi")
    )
    stays = stays.join(replaced, table.key, how="left_anti")
    twins = keys_of(keys.where("count > 1").select(table.key).union(stays), table.key)
    return [f"{table.key} {', '.join(twins)} would stand twice in {table.name}"] if twins else []


def missing_parents(work: Work, table: Table, new: DataFrame) -> list[str]:
    """References to rows that are not there."""
    broken = []
    for parent in table.parents:
        other = table_of(parent.dataset)
        there = work.frame(other.name).select(F.col(other.key).alias(parent.column))
        keys = keys_of(new.join(there, parent.column, how="left_anti"), parent.column)
        if keys:
            broken.append(f"{table.name}.{parent.column} {', '.join(keys)} is not in {other.name}")
    return broken


def orphaned_rows(work: Work, table: Table, gone: DataFrame) -> list[str]:
    """Rows of other tables that refer to a key that would go."""
    broken = []
    for child in etl.TABLES:
        for parent in child.parents:
            if parent.dataset == table.dataset and work.lake[child.name].frame is not None:
                rows = work.frame(child.name).select(F.col(parent.column).alias("key"))
                keys = keys_of(gone.join(rows, "key", how="left_semi"), "key")
                if keys:
                    refers = f"{child.name} refers to {parent.column} {', '.join(keys)}"
                    broken.append(f"{refers}, which would go from {table.name}")
    return broken


def table_of(dataset: str) -> Table:
    return next(table for table in etl.TABLES if table.dataset == dataset)


# -- the commits -----------------------------------------------------------------------------------
def commit_correction(
    work: Work, table: Table, changes: DataFrame, counts: Counter[str]
) -> dict[str, Any]:
    """The table, the parked rows that the correction beats, `corrections`."""
    target = work.lake[table.name]
    rows = changes.select("key", "_operation", f"{CHANGED}.*")
    with work.timed(f"committed {table.name}"):
        if not counts["updated"] and not counts["deleted"]:
            target.append(rows.select(table.column_names), work.stamp, table.partition)
        else:
            delete = "WHEN MATCHED AND s._operation = 'deleted' THEN DELETE"
            clauses = f"{delete} {etl.merge_clauses(table)}"
            target.merge(rows, f"t.`{table.key}` = s.key", clauses, work.stamp)
    with work.timed("settled parked rows"):
        beaten = supersede_parked(work, table, rows)
    texts = {
        part: F.when(F.col(part).isNotNull(), etl.texts_of(table, f"{part}.")).alias(part)
        for part in (GONE, CHANGED)
    }
    corrections = changes.select(
        F.lit(work.job.run_id).alias("run_id"),
        F.lit(work.request.author).alias("author"),
        F.lit(work.request.options["sql"]).alias("statement"),
        F.lit(table.name).alias("table_name"),
        F.col("key").alias("record_key"),
        F.regexp_replace("_operation", "^(insert)ed$|d$", "$1").alias("operation"),
        texts[GONE],
        texts[CHANGED],
        F.lit(dt.datetime.now(dt.UTC).isoformat()).cast("timestamp").alias("corrected_at"),
    )
    with work.timed("committed corrections"):
        work.lake["corrections"].append(corrections, work.stamp)
    return {**{name: counts[name] for name in CHANGES}, "parked_rows_superseded": beaten}


def supersede_parked(work: Work, table: Table, rows: DataFrame) -> int:
    """Parked rows that are no newer than a correction of their key: at a tie it wins, since it
    came later."""
    if not table.parents or not table.version:
        return 0
    version = etl.try_cast(F.col("fields").getItem(table.version), "timestamp")
    parked = work.frame("rejected_records").where(
        (F.col("status") == etl.PARKED) & (F.col("dataset") == table.dataset)
    )
    parked = parked.select(
        *etl.ROW_IDENTITY, F.col("record_key").alias("key"), version.alias("_at")
    )
    new = rows.where("_operation <> 'deleted'").select("key", F.col(table.version).alias("_to"))
    beaten = parked.join(F.broadcast(new), "key").where("_at <= _to").select(etl.ROW_IDENTITY)
    beaten = beaten.localCheckpoint()
    count = beaten.count()
    if count:
        settled = beaten.withColumn("status", F.lit(etl.SUPERSEDED))
        settle(work, settled, f"t.status = s.status, {resolved_by(work)}")
    return count


def settle(work: Work, rows: DataFrame, updates: str) -> None:
    """Change open rows of rejected_records by their identity."""
    same = " AND ".join(f"t.{name} = s.{name}" for name in etl.ROW_IDENTITY)
    statuses = ", ".join(f"'{status}'" for status in OPEN_STATUSES)
    clauses = f"WHEN MATCHED THEN UPDATE SET {updates}"
    rejected = work.lake["rejected_records"]
    rejected.merge(rows, f"t.status IN ({statuses}) AND {same}", clauses, work.stamp, nth=2)


# --------------------------------------------------------------------------------------------------
# Archived files: what the loads have read, by their manifests
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Archived:
    """A file that a run has read, and where the archiver has put it: archive or rejected."""

    run_id: str
    path: str
    digest: str
    size: int
    modified: dt.datetime
    destination: str

    @property
    def place(self) -> str:
        return f"run={self.run_id}/{self.path}"

    @property
    def delivery(self) -> tuple[dt.datetime, str]:
        return self.modified, self.path


def manifest_lines(job: JobArguments) -> list[dict[str, Any]]:
    """The lines of all manifests, with the run id, in the order of delivery."""
    runs = etl.storage(job.runs_path)
    stored = runs.list()
    manifests = [one.path for one in stored if one.path.endswith("/manifest.jsonl")]

    def read(manifest: str) -> list[dict[str, Any]]:
        lines = b"".join(runs.chunks(manifest)).splitlines()
        return [{"run_id": manifest.rsplit("/", 1)[0], **json.loads(line)} for line in lines]

    found = [line for lines in etl.map_concurrently(read, manifests) for line in lines]
    return sorted(found, key=lambda line: (line["last_modified"], line["path"], line["run_id"]))


def archived_files(job: JobArguments) -> list[Archived]:
    """Every file that the archiver has moved, in the order of delivery, once for each content
    under a path."""
    first: dict[tuple[str, str], Archived] = {}
    for line in manifest_lines(job):
        if line["destination"] != "raw":
            modified = dt.datetime.fromisoformat(line["last_modified"].replace("Z", "+00:00"))
            names = ("run_id", "path", "digest", "size")
            run_id, path, digest, size = (line[name] for name in names)
            one = Archived(run_id, path, digest, size, modified, line["destination"])
            first.setdefault((one.path, one.digest), one)
    return list(first.values())


def look_at(root: str, files: Sequence[Archived]) -> list[tuple[Archived, etl.RawFile | None]]:
    """Archived files, each with its header, as it was delivered; None where it is not there."""
    store = etl.storage(root)

    def with_header(one: Archived) -> etl.RawFile | None:
        stored = etl.StoredObject(one.place, "", one.size, one.modified, one.path)
        raw = etl.RawFile(stored, etl.dataset_of(one.path), one.digest)
        try:
            with closing(store.chunks(one.place)) as chunks:
                return etl.with_header(raw, chunks)
        except FileNotFoundError:
            return None

    return list(zip(files, etl.map_concurrently(with_header, files), strict=True))


def archive_root(work: Work, why: str) -> str:
    """Where the archive is; JobError, saying what it is needed for, where nobody said."""
    if work.arguments.archive_path is None:
        raise JobError(f"{work.request.name}: {why}: say --ARCHIVE_PATH, where the archive is")
    return work.arguments.archive_path


# --------------------------------------------------------------------------------------------------
# Ties: was the table's row delivered after a row that is replayed?
# --------------------------------------------------------------------------------------------------
def mark_outranked(work: Work, staged: etl.StagedDataset) -> etl.StagedDataset:
    """Mark as _replayed the rows that tie with the table's row of their key and were delivered
    before it.

    The tables hold no deliveries. The row was delivered later if a file of the ledger, delivered
    since, or a correction since then holds exactly it.
    """
    place = ["_file", "_split", "_mid"]
    table, target = staged.table, work.lake[staged.table.name]
    if not staged.files or not target.exists:
        return staged
    values = F.struct(*table.column_names)
    version = F.col(table.version) if table.version else F.lit(None).cast("timestamp")
    new = staged.with_place(staged.valid).select(
        F.col(table.key).alias("_key"),
        version.alias("_version"),
        values.alias("_new"),
        delivered_at(table).alias("_at"),
        *place,
    )
    old = target.frame.select(
        F.col(table.key).alias("_key"), version.alias("_old_version"), values.alias("_row")
    )
    same_version = F.col("_version").eqNullSafe(F.col("_old_version"))
    tied = new.join(old, "_key").where(same_version & ~F.col("_row").eqNullSafe(F.col("_new")))
    tied = tied.localCheckpoint()
    first = tied.agg(F.min("_at").alias("first")).collect()[0]["first"]
    if first is None:
        return staged
    since = first["file_modified"].astimezone(dt.UTC)
    deliveries, unknown = deliveries_since(work, staged, tied.select("_key"), since)
    rows = tied.join(deliveries, ["_key", "_row"]).where("_delivered > _at")
    if unknown:  # any of the files that are lost may have brought the table's row
        last = max(one.delivery for one in unknown)
        moment = F.lit(last[0].isoformat()).cast("timestamp").alias("file_modified")
        lost = F.struct(moment, F.lit(last[1]).alias("file_path"))
        before = F.struct("_at.file_modified", "_at.file_path") < lost
        rows = rows.select(place).union(tied.where(before).select(place))
    earlier = rows.select(place).distinct().withColumn("_earlier", F.lit(True)).localCheckpoint()
    marked = staged.rows.join(F.broadcast(earlier), place, how="left")
    replayed = F.col("_replayed") | F.col("_earlier").isNotNull()
    columns = staged.rows.columns
    return replace(staged, rows=marked.withColumn("_replayed", replayed).select(columns))


def delivered_at(table: Table) -> SparkColumn:
    """A row's place in the order of deliveries; of one file the row with most values is last."""
    values = etl.value_count(table).alias("values")
    return F.struct("file_modified", "file_path", values, "line")


def deliveries_since(
    work: Work, staged: etl.StagedDataset, keys: DataFrame, since: dt.datetime
) -> tuple[DataFrame, list[Archived]]:
    """Rows with some keys that were delivered since: _key, _row, _delivered; and lost files."""
    table = staged.table
    ledger = work.frame("ingested_files").where(
        (F.col("dataset") == table.dataset)
        & (F.col("outcome") == "loaded")
        & (F.col("file_modified") >= F.lit(since.isoformat()).cast("timestamp"))
    )
    digests = {row["file_digest"] for row in ledger.select("file_digest").collect()}
    frames = [corrections_of(work, table)]
    lost: list[Archived] = []
    if digests:
        root = archive_root(work, f"rows tie with rows of {table.name} whose delivery it tells")
        files = [
            one
            for one in archived_files(work.job)
            if one.digest in digests and etl.dataset_of(one.path) == table.dataset
        ]
        rows, lost = archived_rows(work, table, root, files)
        frames.append(without_rejects(work, rows))
    named = ["_key", "_row", "_delivered"]
    frames = [frame.join(F.broadcast(keys.distinct()), "_key").select(named) for frame in frames]
    return etl.union(frames), lost


def archived_rows(
    work: Work, table: Table, root: str, files: Sequence[Archived]
) -> tuple[DataFrame, list[Archived]]:
    """The valid rows of archived files: _key, _row, _delivered, and their identity."""
    looked_at = look_at(root, files)
    lost = [one for one, raw in looked_at if raw is None]
    there = tuple(raw for _, raw in looked_at if raw is not None)
    found = etl.Discovered(there, archived=True)
    scratch = f"{work.job.scratch_path}run={work.job.run_id}/ties-{table.dataset}/"
    job = replace(work.job, raw_path=root, scratch_path=scratch, max_rejected_percent=100)
    staged = etl.stage(work.spark, job, found).datasets[table.dataset]
    rows = staged.with_place(staged.valid).select(
        F.col(table.key).alias("_key"),
        F.struct(*table.column_names).alias("_row"),
        delivered_at(table).alias("_delivered"),
        F.lit(table.dataset).alias("dataset"),
        *etl.FILE_COLUMNS,
        "line",
    )
    return rows, lost


def without_rejects(work: Work, rows: DataFrame) -> DataFrame:
    """Rows without those that have not come into their table."""
    out = work.frame("rejected_records").where(F.col("status") != etl.ADMITTED)
    return rows.join(out.select(etl.ROW_IDENTITY), etl.ROW_IDENTITY, how="left_anti")


def corrections_of(work: Work, table: Table) -> DataFrame:
    """What standing corrections have written: _key, _row, and as _delivered their time."""
    ddl = f"_key STRING, _row STRUCT<{table.ddl}>, " + (
        "_delivered STRUCT<file_modified: TIMESTAMP, file_path: STRING, values: INT, line: BIGINT>"
    )
    frame = work.lake["corrections"].frame
    standing = [run.run_id for run in standing_runs(work.runs) if run.operation == "sql"]
    if not standing:
        return etl.local_frame(work.spark, [], ddl)
    values = [
        etl.try_cast(F.col("after").getItem(column.name), column.type).alias(column.name)
        for column in table.columns
    ]
    mine = (F.col("table_name") == table.name) & F.col("run_id").isin(standing)
    return frame.where(mine & F.col("after").isNotNull()).select(
        F.col("record_key").alias("_key"),
        F.struct(*values).alias("_row"),
        F.struct(
            F.col("corrected_at").alias("file_modified"),
            F.lit("").alias("file_path"),
            F.lit(0).alias("values"),
            F.lit(0).cast("bigint").alias("line"),
        ).alias("_delivered"),
    )


# --------------------------------------------------------------------------------------------------
# replay
# --------------------------------------------------------------------------------------------------
def replay(work: Work) -> Result:
    """Rejected and parked rows, or archived files, through the rules as they are now."""
    if "archived" in work.request.options:
        return replay_files(work)
    chosen = chosen_rows(work)
    return (
        discard(work, chosen) if work.request.options.get("discard") else replay_rows(work, chosen)
    )


def chosen_rows(work: Work) -> DataFrame:
    """The rejected and parked rows that the request names."""
    request = work.request
    statuses = request.texts("statuses") or list(OPEN_STATUSES)
    rows = work.frame("rejected_records").where(F.col("status").isin(statuses))
    for name, column in (("datasets", "dataset"), ("runs", "run_id"), ("files", "file_path")):
        if name in request.options:
            rows = rows.where(F.col(column).isin(request.texts(name)))
    if "reasons" in request.options:
        wanted = F.array(*[F.lit(one) for one in request.texts("reasons")])
        rows = rows.where(F.arrays_overlap("reasons", wanted))
    if "rows" in request.options:
        ddl = "dataset STRING, file_digest STRING, file_size BIGINT, line BIGINT"
        places = etl.local_frame(work.spark, request.options["rows"], ddl).distinct()
        rows = rows.join(F.broadcast(places), etl.ROW_IDENTITY, how="left_semi")
    return rows.localCheckpoint()


def discard(work: Work, chosen: DataFrame) -> Result:
    """Close rows for good, with author and why."""
    counts = {row["status"]: row["count"] for row in counted(chosen, "status")}
    total = sum(counts.values())
    verb = "would be" if work.request.dry_run else "were"
    result = Result(f"{plural(total, 'row')} {verb} discarded.", {"rows": counts})
    if work.request.dry_run or not total:
        return result
    begin(work)
    rows = chosen.select(
        *etl.ROW_IDENTITY,
        F.lit(DISCARDED).alias("status"),
        F.lit(work.request.author).alias("author"),
        F.lit(work.request.options["why"]).alias("why"),
    )
    updates = f"t.status = s.status, t.author = s.author, t.why = s.why, {resolved_by(work)}"
    with work.timed("settled rows"):
        settle(work, rows, updates)
    return replace(result, effect={"rows": counts})


def resolved_by(work: Work) -> str:
    return f"t.resolved_run_id = '{work.job.run_id}'"


# -- rows ------------------------------------------------------------------------------------------
def replay_rows(work: Work, chosen: DataFrame) -> Result:
    """Rows of rejected_records through today's rules; those that pass go to their tables."""
    headers = headers_of(work, chosen)
    staged = {table.dataset: stage_rows(work, table, chosen, headers) for table in etl.TABLES}
    staged = {name: mark_outranked(work, one) for name, one in staged.items()}
    resolved = resolve_rows(work, staged, chosen)
    settled = settled_rows(work, staged, resolved, chosen).localCheckpoint()
    reasons = reasons_left(staged)
    datasets = {name: etl.measures(one, reasons.get(name, {})) for name, one in resolved.items()}
    result = Result(replay_text(work, datasets), replay_plan(datasets), datasets=datasets)
    if work.request.dry_run or settled.isEmpty():
        return result
    begin(work)
    for one in resolved.values():
        if one.totals[etl.INSERTED] or one.totals[etl.UPDATED]:
            with work.timed(f"committed {one.table.name}"):
                etl.commit(one, work.lake[one.table.name], work.stamp)
    names = ("status", "reasons", "fields", "record_key", "order_id", "product_id")
    updates = ", ".join(f"t.{name} = coalesce(s.{name}, t.{name})" for name in names)
    with work.timed("settled rows"):
        settle(work, settled, f"{updates}, t.resolved_run_id = s.resolved_run_id")
    return replace(result, effect=result.plan)


def replay_plan(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    kept = ("rows_read", "admitted", *etl.OUTCOMES)
    return {
        "datasets": {
            name: {one: numbers[one] for one in kept}
            for name, numbers in datasets.items()
            if numbers["rows_read"] or numbers["admitted"]
        }
    }


def replay_text(work: Work, datasets: Mapping[str, Mapping[str, Any]]) -> str:
    sums = Counter[str]()
    for numbers in datasets.values():
        sums.update({name: numbers[name] for name in ("rows_read", "admitted", *etl.OUTCOMES)})
    parts = [f"{sums[name]:,} {name}" for name in etl.OUTCOMES if sums[name]]
    verb = "would be" if work.request.dry_run else "were"
    text = f"{plural(sums['rows_read'], 'row')} {verb} replayed"
    if sums["admitted"]:
        text += f", and {plural(sums['admitted'], 'parked row')} had waited for them"
    return f"{text}: {listed(parts)}." if parts else f"{text}."


def headers_of(work: Work, chosen: DataFrame) -> dict[str, etl.Layout]:
    """The layouts of files whose rows could not be cut into fields, from the archive, by digest."""
    shapeless = chosen.where(_shapeless()).select("file_digest").distinct()
    wanted = {row["file_digest"] for row in shapeless.collect()}
    if not wanted:
        return {}
    root = archive_root(work, "rows with a broken shape need the header of their file")
    files = [one for one in archived_files(work.job) if one.digest in wanted]
    return {
        one.digest: raw.layout
        for one, raw in look_at(root, files)
        if raw is not None and raw.outcome == "loaded"
    }


def _shapeless() -> SparkColumn:
    """Rows without texts by column, but for a header that stands once more."""
    header = F.array_contains("reasons", "repeated_header")
    return F.col("fields").isNull() & ~header & (F.col("status") == etl.REJECTED)


def stage_rows(
    work: Work, table: Table, chosen: DataFrame, headers: Mapping[str, etl.Layout]
) -> etl.StagedDataset:
    """Rows of rejected_records as a staged dataset: each judged anew, a parked one as it is."""
    rows = chosen.where(F.col("dataset") == table.dataset)
    files = {}
    for number, row in enumerate(rows.select(*etl.FILE_COLUMNS).distinct().collect()):
        path, digest, size, modified = row
        stored = etl.StoredObject(path, "", size, modified.astimezone(dt.UTC))
        layout = headers.get(digest, etl.Layout("", ()))
        files[number] = etl.RawFile(stored, table.dataset, digest, layout)
    sources = [{"_file": number, **raw.source} for number, raw in files.items()]
    known = etl.local_frame(work.spark, sources, f"_file INT, {etl.FILE_DDL}")
    lines = rows.join(F.broadcast(known), [*etl.FILE_COLUMNS]).select("*", *_place())
    staged = etl.union(row_parts(lines, table, files)).localCheckpoint()
    counts = staged.groupBy("_file").agg(
        F.count(F.lit(1)).alias("rows"), F.expr(f"count_if(NOT ({etl.VALID}))").alias("rejected")
    )
    numbers = {row["_file"]: (row["rows"], row["rejected"]) for row in counts.collect()}
    return etl.StagedDataset(
        table,
        etl.Scratch(work.spark, "", on_disk=False),
        staged.withColumn("_replayed", F.lit(False)),
        files,
        {number: etl.RowCounts(*numbers[number], headers=1) for number in files},
        tuple((number, 0, 0) for number in files),
        by_day=False,
    )


def _place() -> list[SparkColumn]:
    """The rest of PLACE for rows of rejected_records; bytes that are no UTF-8 go back."""
    as_bytes = F.encode("raw", "ISO-8859-1").cast("string")
    raw = F.when(F.array_contains("reasons", "invalid_utf8"), as_bytes).otherwise(F.col("raw"))
    return [
        F.lit(0).cast("bigint").alias("_split"),
        F.col("line").alias("_mid"),
        raw.alias("_raw"),
    ]


def row_parts(lines: DataFrame, table: Table, files: Mapping[int, etl.RawFile]) -> list[DataFrame]:
    """The staged columns of rows, by what is known of them: parked ones are typed already, others
    have texts by column, or only their line; a repeated header stays one."""
    parked = F.col("status") == etl.PARKED
    cut = ~parked & F.col("fields").isNotNull()
    headers: dict[etl.Layout, list[int]] = {}
    for number, raw in files.items():
        if raw.layout.names:
            headers.setdefault(raw.layout, []).append(number)
    with_header = [number for numbers in headers.values() for number in numbers]
    by_line = _shapeless() & F.col("_file").isin(with_header) if with_header else F.lit(False)
    none = [
        F.lit(None).cast("array<string>").alias("_reasons"),
        F.lit(None).cast("map<string,string>").alias("_fields"),
    ]
    kind = F.when(parked, etl.RECORD).otherwise(etl.HEADER).alias("_kind")
    texts = [
        etl.value_text(column, F.col("fields").getItem(column.name)).alias(f"_t_{column.name}")
        for column in table.columns
    ]
    record = [F.lit(etl.RECORD).alias("_kind"), F.lit(None).cast("string").alias("_broken")]
    latest = etl.latest_times(files)
    parts = [
        lines.where(~cut & ~by_line).select(*etl.PLACE, kind, *none, *etl.fields_of(table)),
        etl.judge_texts(lines.where(cut).select(*etl.PLACE, *record, *texts), table, latest),
    ]
    for layout, numbers in headers.items():
        broken = lines.where(_shapeless() & F.col("_file").isin(numbers))
        parts.append(etl.parse_lines(broken.select(etl.PLACE), table, layout, latest))
    return parts


def resolve_rows(
    work: Work, staged: Mapping[str, etl.StagedDataset], chosen: DataFrame
) -> dict[str, etl.Resolved]:
    """Every chosen row's outcome; the other parked rows wait as in a load."""
    parked = work.frame("rejected_records").where(F.col("status") == etl.PARKED)
    waiting = parked.join(chosen.select(etl.ROW_IDENTITY), etl.ROW_IDENTITY, how="left_anti")
    return etl.resolve_datasets(staged, work.lake, waiting.localCheckpoint())


def settled_rows(
    work: Work,
    staged: Mapping[str, etl.StagedDataset],
    resolved: Mapping[str, etl.Resolved],
    chosen: DataFrame,
) -> DataFrame:
    """What changes in rejected_records: ROW_IDENTITY and the new values, NULL where one stays."""
    frames = [
        frame for name, one in resolved.items() for frame in settled_of(work, staged[name], one)
    ]
    rows = etl.union(frames)
    was = chosen.select(
        *etl.ROW_IDENTITY, F.col("status").alias("_status"), F.col("reasons").alias("_was")
    )
    rows = rows.join(was, etl.ROW_IDENTITY, how="left")
    same_reasons = F.coalesce(F.sort_array("reasons") == F.sort_array("_was"), F.lit(True))
    same = (F.col("status") == F.col("_status")) & same_reasons
    return rows.where(~F.coalesce(same, F.lit(False))).drop("_status", "_was")


def settled_of(work: Work, staged: etl.StagedDataset, resolved: etl.Resolved) -> list[DataFrame]:
    """The new values of a dataset's rows in rejected_records: staged ones that pass, those that
    still fail, and parked ones that waited and do no more."""
    table, outcome = staged.table, F.col("_outcome")
    status = (
        F.when(outcome == etl.PARKED, etl.PARKED)
        .when(outcome.isin(etl.SUPERSEDED, etl.CONFLICTING), etl.SUPERSEDED)
        .otherwise(etl.ADMITTED)
    )
    run = F.when(outcome != etl.PARKED, F.lit(work.job.run_id))
    parked = outcome == etl.PARKED
    reasons = F.when(parked, etl.reasons_to_wait())
    fields = F.when(parked, etl.texts_of(table))
    passed = staged.with_place(resolved.rows.where(F.col("_file").isNotNull()))
    failing = staged.rows.where(~F.coalesce(F.expr(etl.VALID), F.lit(False)))
    nothing = F.lit(None)
    late = etl.settled_rows(resolved).withColumns({"_run": F.lit(work.job.run_id)})
    rejected = F.lit(etl.REJECTED)
    return [
        _settled(late, table, F.col("status"), F.col("_run"), nothing, nothing),
        _settled(passed, table, status, run, reasons, fields),
        _settled(
            staged.with_place(failing),
            table,
            rejected,
            nothing,
            F.col("_reasons"),
            F.col("_fields"),
        ),
    ]


def _settled(
    rows: DataFrame,
    table: Table,
    status: SparkColumn,
    run: SparkColumn,
    reasons: SparkColumn,
    fields: SparkColumn,
) -> DataFrame:
    """Rows with their place as ROW_IDENTITY and the new values; keys are among the texts."""
    names = {"record_key": table.key, "order_id": "order_id", "product_id": "product_id"}
    keys = [
        F.col("fields").getItem(column).alias(name)
        if column in table.column_names
        else F.lit(None).cast("string").alias(name)
        for name, column in names.items()
    ]
    names_of_file = [F.col(name) for name in ("file_digest", "file_size", "line")]
    identity = [F.lit(table.dataset).alias("dataset"), *names_of_file]
    values = rows.select(
        *identity,
        status.alias("status"),
        reasons.cast("array<string>").alias("reasons"),
        fields.cast("map<string,string>").alias("fields"),
        run.alias("resolved_run_id"),
    )
    return values.select("*", *keys)


def reasons_left(staged: Mapping[str, etl.StagedDataset]) -> dict[str, dict[str, int]]:
    """Rows that still fail by dataset and reason."""
    found: dict[str, dict[str, int]] = {}
    for name, one in staged.items():
        reasons = one.rows.select(F.explode("_reasons").alias("reason"))
        found[name] = {row["reason"]: row["count"] for row in counted(reasons, "reason")}
    return found


# -- whole files -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class FoundFiles:
    """Chosen archived files: by where they lie the new ones, those the ledger knows, those lost."""

    new: Mapping[str, Sequence[etl.RawFile]]
    known: int
    lost: int

    @property
    def paths(self) -> list[str]:
        return [raw.stored.name for raws in self.new.values() for raw in raws]


def replay_files(work: Work) -> Result:
    """Archived files as if they were delivered now for the first time, but in their old place in
    the order of deliveries. Files that the ledger knows are left out."""
    found = find_files(work)
    text, paths = files_text(work, found), found.paths
    plan = {"files": len(paths), "known": found.known, "not_there": found.lost, "paths": paths[:50]}
    if work.request.dry_run or not paths:
        return Result(text, plan)
    begin(work)
    datasets: dict[str, dict[str, Any]] = {}
    for root, raws in found.new.items():
        if raws:
            add_numbers(datasets, replay_batch(work, root, raws))
    told = f"{text} {replay_text(work, datasets)}"
    return Result(told, plan, replay_plan(datasets), datasets)


def find_files(work: Work) -> FoundFiles:
    """The files that the request names, in the archive and among those set aside."""
    archive = archive_root(work, "whole files are replayed from the archive")
    roots = {"archive": archive, "rejected": f"{work.job.rejected_path}files/"}
    wanted = work.request.options["archived"]
    chosen = [one for one in archived_files(work.job) if is_chosen(one, wanted)]
    found = {
        root: headed(root, [one for one in chosen if one.destination == destination])
        for destination, root in roots.items()
    }
    there = [raw for raws in found.values() for raw in raws]
    ledger = work.lake["ingested_files"]
    marked = {root: mark_known(ledger, raws) for root, raws in found.items()}
    new = {
        root: [raw for raw in raws if raw.outcome != "duplicate"] for root, raws in marked.items()
    }
    count = sum(len(raws) for raws in new.values())
    return FoundFiles(new, len(there) - count, len(chosen) - len(there))


def headed(root: str, files: Sequence[Archived]) -> list[etl.RawFile]:
    """Archived files with their headers, without those that are not there any more."""
    return [raw for _, raw in look_at(root, files) if raw is not None]


def mark_known(ledger: LakeTable, raws: Sequence[etl.RawFile]) -> Sequence[etl.RawFile]:
    """Archived files, those that the ledger has as duplicates."""
    return etl.mark_duplicates(etl.Discovered(tuple(raws), archived=True), ledger, False).files


def files_text(work: Work, found: FoundFiles) -> str:
    verb = "would be" if work.request.dry_run else "were"
    text = f"{plural(len(found.paths), 'archived file')} {verb} replayed"
    if found.known:
        text += f"; {plural(found.known, 'file')} the ledger knows"
    if found.lost:
        text += f"; {plural(found.lost, 'file')} could not be found in the archive"
    return f"{text}."


def is_chosen(one: Archived, wanted: Mapping[str, Any]) -> bool:
    """By path (wildcards allowed), run and day of delivery; all of them where none is named."""
    day = one.modified.date().isoformat()
    paths, runs = wanted.get("paths"), wanted.get("runs")
    by_path = paths is None or any(fnmatch.fnmatchcase(one.path, path) for path in paths)
    by_run = runs is None or one.run_id in runs
    return by_path and by_run and wanted.get("from", "") <= day <= wanted.get("to", "9999")


def replay_batch(work: Work, root: str, raws: Sequence[etl.RawFile]) -> dict[str, dict[str, Any]]:
    """The five steps of a load on archived files; returns the numbers by dataset."""
    work = replace(work, lake=etl.open_lake(work.spark, work.job))
    job = replace(work.job, raw_path=root)
    staged = etl.stage(work.spark, job, etl.Discovered(tuple(raws), archived=True))
    datasets = {name: mark_outranked(work, one) for name, one in staged.datasets.items()}
    staged = replace(staged, datasets=datasets)
    _, resolved = etl.resolve(staged, work.lake, force=True)
    published = etl.publish(job, staged, resolved, work.lake, work.timed)
    counts = {number: count for one in resolved.values() for number, count in one.counts.items()}
    with work.timed("committed ingested_files"):
        etl.write_ledger(job, staged.files, counts, work.lake["ingested_files"])
    return {
        name: etl.measures(one, published.reasons.get(name, {})) for name, one in resolved.items()
    }


def add_numbers(sums: dict[str, dict[str, Any]], more: Mapping[str, Mapping[str, Any]]) -> None:
    """Add a batch's numbers by dataset to those of the batches before."""
    for name, numbers in more.items():
        before = sums.setdefault(name, {})
        reasons = Counter(before.get("rejected_by_reason", {})) + Counter(
            numbers["rejected_by_reason"]
        )
        for measure, value in numbers.items():
            if measure != "rejected_by_reason":
                before[measure] = before.get(measure, 0) + value
        before["rejected_by_reason"] = dict(sorted(reasons.items()))


# --------------------------------------------------------------------------------------------------
# optimize and vacuum
# --------------------------------------------------------------------------------------------------
def data_files(table: LakeTable) -> dict[str, int]:
    """Every data file in a table's folder, whether the table needs it or not, and its bytes."""
    files = table.log.storage.list()
    return {one.path: one.size for one in files if not one.path.startswith("_")}


def live_files(table: LakeTable) -> dict[str, int]:
    """The data files of a table as it is now, and their bytes."""
    names = table.spark.read.format("delta").load(table.path).inputFiles()
    stored = data_files(table)
    return {path: stored[path] for path in paths_below(table, names)}


def paths_below(table: LakeTable, names: Iterable[str]) -> list[str]:
    """Data files as Spark names them, by their path in the table's folder."""
    root = etl.bare_path(table.path) + "/"
    return [etl.bare_path(urllib.parse.unquote(name)).removeprefix(root) for name in names]


def chosen_tables(work: Work) -> list[str]:
    """The tables that are there and, where the request names some, among them."""
    there = [name for name, table in work.lake.items() if table.exists]
    wanted = work.request.texts("tables") or there
    strange = [name for name in wanted if name not in there]
    if strange:
        raise JobError(f"{work.request.name}: no table {strange[0]!r}; there are {listed(there)}")
    return wanted


def optimize(work: Work) -> Result:
    """Compact the partitions that have many small files."""
    least = work.request.options.get("min_files", 5)
    plan: dict[str, Any] = {}
    chosen: dict[str, list[str]] = {}
    for name in chosen_tables(work):
        files = live_files(work.lake[name])
        small = Counter(
            path.rpartition("/")[0] for path, size in files.items() if size < SMALL_BYTES
        )
        chosen[name] = sorted(partition for partition, count in small.items() if count >= least)
        if chosen[name]:
            size = sum(files.values())
            plan[name] = {"partitions": len(chosen[name]), "files": len(files), "bytes": size}
    if work.request.dry_run or not plan:
        return Result(optimize_text(work, plan, {}), {"tables": plan})
    effect = {}
    for name in plan:
        with work.timed(f"optimized {name}"):
            compact(work, name, chosen[name])
        files = live_files(work.lake[name])
        effect[name] = {"files": len(files), "bytes": sum(files.values())}
    return Result(optimize_text(work, plan, effect), {"tables": plan}, {"tables": effect})


def optimize_text(work: Work, plan: Mapping[str, Any], effect: Mapping[str, Any]) -> str:
    if not plan:
        return "No partition has so many small files that it is worth compacting."
    before = sum(one["files"] for one in plan.values())
    verb = "would be compacted" if work.request.dry_run else "were compacted"
    text = f"{plural(sum(one['partitions'] for one in plan.values()), 'partition')} {verb}"
    if not effect:
        return f"{text}; the tables have {plural(before, 'file')} now."
    after = sum(one["files"] for one in effect.values())
    sizes = [sum(one["bytes"] for one in part.values()) for part in (plan, effect)]
    return f"{text}: {before:,} files are {after:,} now, {sizes[0]:,} bytes are {sizes[1]:,}."


def compact(work: Work, name: str, partitions: Sequence[str]) -> None:
    """OPTIMIZE some partitions of a table (`column=value`); '' for a table that has none."""
    where = ""
    if all("=" in one for one in partitions) and len(partitions) <= MAX_PARTITIONS:
        column = partitions[0].partition("=")[0]
        values = [urllib.parse.unquote(one.partition("=")[2]) for one in partitions]
        where = f" WHERE `{column}` IN ({', '.join(repr(value) for value in values)})"
    with etl.settings(work.spark, {etl.COMMIT_STAMP: work.stamp}):
        work.spark.sql(f"OPTIMIZE delta.`{work.lake[name].path}`{where}")


def vacuum(work: Work) -> Result:
    """Remove the data files that no version within the tables' retention needs: Delta's VACUUM."""
    plan, effect = {}, {}
    for name in chosen_tables(work):
        table = work.lake[name]
        stored = data_files(table)
        removable = paths_below(table, run_vacuum(table, dry_run=True))
        plan[name] = {
            "files": len(stored),
            "bytes": sum(stored.values()),
            "removable": len(removable),
            "removable_bytes": sum(stored.get(path, 0) for path in removable),
        }
        if removable and not work.request.dry_run:
            with (
                work.timed(f"vacuumed {name}"),
                etl.settings(work.spark, {etl.COMMIT_STAMP: work.stamp}),
            ):
                run_vacuum(table, dry_run=False)
            left = data_files(table)
            effect[name] = {"files": len(left), "bytes": sum(left.values())}
    return Result(vacuum_text(work, plan, effect), {"tables": plan}, {"tables": effect})


def run_vacuum(table: LakeTable, dry_run: bool) -> list[str]:
    """VACUUM a table by its own retention; a dry run gives the files that would be removed."""
    rows = table.spark.sql(f"VACUUM delta.`{table.path}`{' DRY RUN' if dry_run else ''}").collect()
    return [row["path"] for row in rows]


def vacuum_text(work: Work, plan: Mapping[str, Any], effect: Mapping[str, Any]) -> str:
    offered = reachable_from(work, work.runs)
    oldest = f"; a rollback reaches back to {offered[0].run_id}" if offered else ""
    if work.request.dry_run or not effect:
        count, size = (
            sum(one[name] for one in plan.values()) for name in ("removable", "removable_bytes")
        )
        return f"{plural(count, 'file')} of {size:,} bytes can be removed{oldest}."
    gone = sum(plan[name]["files"] - one["files"] for name, one in effect.items())
    size = sum(plan[name]["bytes"] - one["bytes"] for name, one in effect.items())
    return f"{plural(gone, 'file')} of {size:,} bytes removed{oldest}."


# --------------------------------------------------------------------------------------------------
# The record and the run
# --------------------------------------------------------------------------------------------------
def request_text(request: Request) -> dict[str, Any]:
    return {"name": request.name, "author": request.author, "dry_run": request.dry_run}


def told_of(request: Request, result: Result) -> dict[str, Any]:
    """`operation` of the summary, small enough for the state machine."""
    told = {
        **request_text(request),
        "text": result.text[:TEXT_LIMIT],
        "plan": dict(result.plan),
        "effect": dict(result.effect),
    }
    for part in ("plan", "effect"):
        while len(json.dumps([told["plan"], told["effect"]])) > OBJECT_LIMIT and told[part]:
            longest = max(told[part], key=lambda name: len(json.dumps(told[part][name])))
            del told[part][longest]
    return told


def summary_of_result(work: Work, result: Result) -> dict[str, Any]:
    """The summary of an operation, with what it did to each table."""
    summary = etl.summary_of(work.job, work.timed, (), "SUCCEEDED")
    summary["datasets"] |= result.datasets
    summary["operation"] = told_of(work.request, result)
    seen = {name for name, table in work.lake.items() if table.log.latest() >= 0}
    names = sorted((seen | set(RESTORED)) - {"etl_runs"})
    told = etl.map_concurrently(lambda name: work.lake[name].summary(), names)
    summary["tables"] = dict(zip(names, told, strict=True))
    summary["crawl_needed"] = any(one["schema_changed"] for one in told)
    return summary


def write_result(work: Work, result: Result) -> None:
    """RUNS_PATH/<run id>/operation.json."""
    found = {
        "run_id": work.job.run_id,
        "operation": {**request_text(work.request), **work.request.options},
        "text": result.text,
        "plan": result.plan,
        "effect": result.effect,
        "rows": list(result.rows)[:SHOWN_ROWS],
    }
    text = json.dumps(found, indent=1, ensure_ascii=False, default=str) + "\n"
    runs = etl.storage(work.job.runs_path)
    runs.write(f"{work.job.run_id}/operation.json", text.encode("utf-8"))


def record(work: Work, result: Result) -> dict[str, Any]:
    """The row in etl_runs, operation.json, manifest and, last of all, the summary."""
    result = replace(result, recorded=result.recorded and not work.request.dry_run)
    summary = summary_of_result(work, result)
    if result.recorded:
        with work.timed("committed etl_runs"):
            etl.write_run(
                work.job, work.timed.started, summary, work.lake["etl_runs"], work.request.name
            )
        if etl.read_intent(work.job):  # its own; a killed one's was finished before
            etl.remove_intent(work.job)
    write_result(work, result)
    return etl.finish(work.job, summary)


def finish_again(work: Work, run: Run) -> dict[str, Any]:
    """The files of a run that is in etl_runs already: it was killed before it wrote them, or is
    started again."""
    told = run.told
    result = Result(told.get("text", ""), told.get("plan", {}), told.get("effect", {}))
    write_result(work, result)
    return etl.finish(work.job, {**run.summary, "timings": work.timed.seconds})


OPERATIONS: Mapping[str, Callable[[Work], Result]] = {
    "sql": sql,
    "rollback": rollback,
    "replay": replay,
    "optimize": optimize,
    "vacuum": vacuum,
}


def run(arguments: OperationArguments, request: Request, timed: Timings) -> dict[str, Any]:
    """One operation from request to summary."""
    etl.check_declarations()
    job = arguments.job
    with timed("Spark started"):
        spark = etl.spark_session(local=job.local)
    with timed("tables opened"):
        intent = etl.read_intent(job)
        if intent and not request.dry_run:
            etl.finish_killed_operation(job, spark, intent)
        lake = etl.open_lake(spark, job)
        work = Work(arguments, request, spark, lake, runs_of(lake), timed)
    done = work.run_of(job.run_id)
    if done is not None:
        return finish_again(work, done)
    scratch = etl.storage(job.scratch_path)
    scratch.remove(f"run={job.run_id}")  # left where this very run was killed before
    reads_files = request.name == "replay"  # of any size
    try:
        with etl.settings(spark, etl.session_settings(large=reads_files)):
            result = OPERATIONS[request.name](work)
    finally:
        scratch.remove("run=")
    if request.name == "rollback" and not request.dry_run:
        written = {run.run_id: run for run in runs_of(etl.open_lake(spark, job))}
        return finish_again(work, written[job.run_id])
    if intent and request.dry_run:
        note = (
            f"The next run first finishes {intent['run_id']}, which was killed, or takes it back."
        )
        result = replace(result, text=f"{result.text} {note}")
    return record(work, result)


def failed(
    arguments: OperationArguments, request: Request | None, timed: Timings, cause: str
) -> None:
    """The summary of an operation that failed or was refused."""
    summary = etl.summary_of(arguments.job, timed, (), "FAILED", cause)
    if request is not None:
        summary["operation"] = told_of(request, Result(cause, {}))
    etl.finish(arguments.job, summary)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the operation; returns the exit code."""
    arguments = OperationArguments.from_argv(sys.argv[1:] if argv is None else argv)
    run_id = arguments.job.run_id
    etl.log_to_stdout(run_id)
    timed, request = Timings(dt.datetime.now(dt.UTC)), None
    try:
        request = Request.from_json(arguments.operation)
        summary = run(arguments, request, timed)
    except Exception as error:  # the edge of the job: whatever failed must be in the summary
        refused = isinstance(error, JobError)
        cause = str(error) if refused else etl.cause_of(error)
        etl.LOG.error("failed: %s", cause, exc_info=not refused)
        failed(arguments, request, timed, cause)
        print(f"glue_operations.py: the run {run_id} failed: {cause}", file=sys.stderr)
        return 1
    print(json.dumps({name: summary.get(name) for name in ("run_id", "status", "operation")}))
    return 0


if __name__ == "__main__":
    EXIT_CODE = main()
    if EXIT_CODE:  # Glue takes any SystemExit for a failure, 0 included
        sys.exit(EXIT_CODE)
