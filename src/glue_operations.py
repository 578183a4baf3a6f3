"""The job's second script: correct, roll back, replay and maintain the lake of `glue_etl.py`.

It runs as the same Glue job (`--scriptLocation` selects this file, `--extra-py-files` adds
`glue_etl.py`), so that MaxConcurrentRuns 1 guards every write. It takes the job's arguments and
  --OPERATION     JSON: {"operation": NAME, "author": WHO, "dry_run": BOOLEAN, ...}
  --ARCHIVE_PATH  the archive, `s3://bucket/archived/` or a folder, with files at
                  `run=<run id>/<path>`; only `replay` and `rebuild` read it

Operations  sql       one INSERT, UPDATE, DELETE or MERGE on a table, or a SELECT on any
            rollback  restore all tables, the ledger and the rejects to the state after a run
            replay    apply the current rules to rejected or parked rows, or archived files
            rebuild   rebuild all tables of a damaged lake from the archive
            optimize  compact partitions with many small files
            vacuum    remove data files beyond the retention of the tables
`docs/operations.md` shows each; SPECS declares their fields.

Outputs     RUNS_PATH/<run id>/operation.json (the complete result), manifest.jsonl (empty: there is
            nothing to archive), summary.json; one row in `etl_runs`; rows of `corrections`. A dry
            run and a SELECT write the three files only.

Recovery    Before its first change an operation writes RUNS_PATH/intent.json with the versions of
            all tables; it removes it after its row in `etl_runs`. The next run, load or operation,
            first finishes a killed operation (`glue_etl.finish_killed_operation`): it completes a
            rollback, and reverts any other operation by RESTORE. The killed operation can then be
            started again. `optimize` and `vacuum` change no row and need no intent. The row in
            `etl_runs` completes an operation: started again, it only rewrites its summary.
Precedence  A replayed row keeps the delivery of its file. If it ties with the table's row, that
            row's delivery is looked up in the archived files delivered since and in the
            corrections, which count as deliveries at their time (`mark_outranked`).
Exit codes  0 done; 1 failed or refused, cause in summary.json; 2 invalid argument.

Only `sql` imports sqlglot; the other operations run without it. On Glue it is another file of
`--extra-py-files` (it is pure Python).
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
MAX_PARTITIONS = 400  # in the WHERE of one OPTIMIZE
SHOWN_ROWS = 1_000  # rows of a SELECT in operation.json
TEXT_LIMIT = 1_000
OBJECT_LIMIT = 20_000  # bytes of plan and effect in the summary
NAMED = 3  # offending keys quoted in an error


# --------------------------------------------------------------------------------------------------
# The request
# --------------------------------------------------------------------------------------------------
def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(_text(item) for item in value)


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _places(value: object) -> bool:
    """Return whether the value is a list of row identities of rejected_records."""
    names = set(etl.ROW_IDENTITY)
    return isinstance(value, list) and all(
        isinstance(place, dict) and set(place) == names for place in value
    )


def _versions(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(version, int) and not isinstance(version, bool) for version in value.values()
    )


def _archived(value: object) -> bool:
    kinds = {"paths": _texts, "runs": _texts, "from": _day, "to": _day}
    return isinstance(value, dict) and all(
        name in kinds and kinds[name](item) for name, item in value.items()
    )


def _day(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value) is not None


Check = tuple[Callable[[object], bool], str]
TEXT: Check = (_text, "a text")
TEXTS: Check = (_texts, "a list of texts")
NUMBER: Check = (_number, "a whole number above 0")
FLAG: Check = (_flag, "true or false")
PLACES: Check = (_places, f"a list of objects with {', '.join(etl.ROW_IDENTITY)}")
VERSIONS: Check = (_versions, "an object with the versions of tables")
ARCHIVED: Check = (_archived, "an object with any of paths, runs (lists), from, to (2025-04-30)")


@dataclass(frozen=True)
class FieldSpec:
    """A field of a request: the check of its value, and its meaning for people."""

    check: Check
    meaning: str


@dataclass(frozen=True)
class OperationSpec:
    """An operation: its meaning for people and its own fields."""

    meaning: str
    fields: Mapping[str, FieldSpec]


# The only list of operations; the CLI and the console use it too
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
            "expected": FieldSpec(VERSIONS, "only if the tables have these versions now"),
        },
    ),
    "replay": OperationSpec(
        "apply the current rules to rejected rows or archived files",
        {
            "datasets": FieldSpec(TEXTS, "only this dataset"),
            "reasons": FieldSpec(TEXTS, "only rows with this reason"),
            "statuses": FieldSpec(TEXTS, f"only {' or '.join(OPEN_STATUSES)} rows"),
            "runs": FieldSpec(TEXTS, "only what this run rejected or archived"),
            "files": FieldSpec(TEXTS, "only this file, such as orders/2025-04-01.csv"),
            "rows": FieldSpec(PLACES, "only these rows of rejected_records"),
            "archived": FieldSpec(ARCHIVED, "whole files from the archive"),
            "discard": FieldSpec(FLAG, "close these rows for good"),
            "why": FieldSpec(TEXT, "the reason for the discard"),
        },
    ),
    "rebuild": OperationSpec("move all tables aside and rebuild them from the archive", {}),
    "optimize": OperationSpec(
        "compact partitions with many small files",
        {
            "tables": FieldSpec(TEXTS, "only this table"),
            "min_files": FieldSpec(NUMBER, "only partitions with at least N small files (5)"),
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
    """The requested operation: its name, its author and its own fields (SPECS)."""

    name: str
    author: str
    dry_run: bool
    options: Mapping[str, Any]

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Parse and check the argument; JobError names the invalid field."""
        try:
            request = json.loads(text)
        except json.JSONDecodeError as error:
            raise JobError(f"--OPERATION is not valid JSON: {error}") from None
        if not isinstance(request, dict) or request.get("operation") not in SPECS:
            raise JobError(f'--OPERATION: expected "operation": one of {", ".join(SPECS)}')
        name = request["operation"]
        fields = {**COMMON, **SPECS[name].fields}
        for key, value in request.items():
            if key not in fields:
                raise JobError(f"{name}: unknown field {key!r}; the fields are {', '.join(fields)}")
            check, expected = fields[key].check
            if not check(value):
                raise JobError(f"{name}: {key!r} must be {expected}, not {json.dumps(value)}")
        options = {key: value for key, value in request.items() if key in SPECS[name].fields}
        author, dry_run = request.get("author", "unknown"), request.get("dry_run", False)
        return cls(name, author, dry_run, options).checked()

    def checked(self) -> Request:
        """Return self if the fields are consistent, else raise JobError."""
        fields = set(self.options)
        problems = {
            "sql": "sql" not in fields and 'give "sql" with one statement',
            "rollback": len(fields - {"expected"}) != 1
            and 'give either "to" or "undo" with a run id',
            "replay": self._replay_problem(),
        }
        problem = problems.get(self.name)
        if problem:
            raise JobError(f"{self.name}: {problem}")
        return self

    def _replay_problem(self) -> str | None:
        if "archived" in self.options and len(self.options) > 1:
            return '"archived" replays whole files: leave out all other fields'
        if self.options.get("discard") and "why" not in self.options:
            return '"discard" closes rows for good: give "why"'
        unknown = set(self.options.get("statuses", ())) - set(OPEN_STATUSES)
        return f'"statuses" must be among {" and ".join(OPEN_STATUSES)}' if unknown else None

    def texts(self, name: str) -> list[str]:
        return list(self.options.get(name, ()))


@dataclass(frozen=True)
class OperationArguments:
    """The job's arguments and this script's two."""

    job: JobArguments
    operation: str
    archive_path: str | None

    @classmethod
    def from_argv(cls, argv: Sequence[str]) -> OperationArguments:
        """Read the command line; exit with 2 on an invalid argument."""
        parser = argparse.ArgumentParser(prog="glue_operations.py", allow_abbrev=False)
        parser.add_argument("--OPERATION", required=True)
        parser.add_argument("--ARCHIVE_PATH")
        parsed, _ = parser.parse_known_args(argv)
        archive = parsed.ARCHIVE_PATH and parsed.ARCHIVE_PATH.rstrip("/") + "/"
        return cls(JobArguments.from_argv(argv), parsed.OPERATION, archive or None)


# --------------------------------------------------------------------------------------------------
# The input and the result of an operation
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Run:
    """A row of etl_runs: a completed load or operation."""

    run_id: str
    operation: str
    started_at: dt.datetime
    finished_at: dt.datetime
    summary: Mapping[str, Any]
    versions: Mapping[str, int]

    @classmethod
    def of(cls, row: Any) -> Run:
        """Return a row of etl_runs, from any reader, as a run."""
        times = row["started_at"], row["finished_at"]
        summary = json.loads(row["summary"])
        return cls(row["run_id"], row["operation"], *times, summary, row["table_versions"])

    @property
    def operation_summary(self) -> Mapping[str, Any]:
        """Return the summary's section on the operation; empty for a load."""
        section: Mapping[str, Any] = self.summary.get("operation") or {}
        return section


@dataclass(frozen=True)
class Work:
    """The input of an operation."""

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
        """Return the rows of a table; raise JobError if it does not exist."""
        if not self.lake[name].exists:
            raise JobError(f"{name} does not exist yet: load a file first")
        return self.lake[name].frame


@dataclass(frozen=True)
class Result:
    """The result of an operation.

    text      one or two sentences for people
    plan      the planned changes by table
    effect    the changes made; empty in a dry run
    datasets  of a replay: the numbers of a load
    rows      of a SELECT
    recorded  whether the operation gets a row in etl_runs
    """

    text: str
    plan: Mapping[str, Any]
    effect: Mapping[str, Any] = field(default_factory=dict)
    datasets: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    recorded: bool = True


def runs_of(lake: Lake) -> tuple[Run, ...]:
    """Return the rows of etl_runs in the order of completion."""
    rows = lake["etl_runs"].frame.orderBy("finished_at", "run_id").collect()
    return tuple(map(Run.of, rows))


def standing_runs(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that no rollback has undone."""
    standing: list[Run] = []
    after: dict[str | None, list[Run]] = {None: []}
    for run in runs:
        if run.operation == "rollback":
            standing = after.get(run.operation_summary["plan"]["to_run"], [])
        else:
            standing = [*standing, run]
        after[run.run_id] = standing
    return standing


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def passive(work: Work, count: int, noun: str, participle: str) -> str:
    """Return a count and what was done, or would be done by a dry run: `1 row was replayed`."""
    verb = "would be" if work.request.dry_run else "was" if count == 1 else "were"
    return f"{plural(count, noun)} {verb} {participle}"


def listed(words: Iterable[str]) -> str:
    """Join words: `a, b and c`."""
    *most, last = list(words) or ["nothing"]
    return f"{', '.join(most)} and {last}" if most else last


# --------------------------------------------------------------------------------------------------
# The intent
# --------------------------------------------------------------------------------------------------
def write_intent(work: Work, to: Mapping[str, int], **rollback: Any) -> None:
    """Write the versions to which the tables return if the operation is killed."""
    before = {name: work.lake[name].before for name in to}
    request = {"run_id": work.job.run_id, "operation": work.request.name}
    intent = {**request, "before": before, "to": dict(to), **rollback}
    runs = etl.storage(work.job.runs_path)
    runs.write(etl.INTENT, json.dumps(intent, ensure_ascii=False).encode("utf-8"))
    etl.progress("intent written")


def check_intent(work: Work) -> None:
    """Raise JobError if another run considered this one killed and has reverted its changes."""
    if work.request.name in MAINTENANCE or not any(
        commit.run_id == work.job.run_id
        for table in work.lake.values()
        for commit in table.log.commits(table.before)
    ):
        return
    if etl.read_intent(work.job).get("run_id") != work.job.run_id:
        raise JobError(f"another run has reverted the changes of {work.job.run_id}: start it again")


def begin(work: Work) -> None:
    """Begin a change that is reverted if the operation is killed."""
    names = (*RESTORED, "corrections")
    write_intent(work, {name: work.lake[name].before for name in names})
    etl.add_columns(work.lake, work.stamp)


# --------------------------------------------------------------------------------------------------
# rollback
# --------------------------------------------------------------------------------------------------
def rollback(work: Work) -> Result:
    """Restore all tables, ledger and rejects to the state after a run, or before the last."""
    target = rollback_target(work)
    to = {name: target.versions.get(name, -1) if target else -1 for name in RESTORED}
    to = {name: version for name, version in to.items() if work.lake[name].exists}
    check_reachable(work, target, to)
    plan = rollback_plan(work, target, to)
    check_expected(plan, work.request.options.get("expected", {}))
    result = Result(rollback_text(work, target, plan), plan)
    if work.request.dry_run:
        return result
    done = replace(result, effect={"tables": plan["tables"]})
    summary = etl.summary_of(work.job, work.timed, (), "SUCCEEDED")
    summary["operation"] = operation_summary(work.request, done)
    row = {"started_at": work.timed.started.isoformat(), "summary": summary}
    write_intent(work, to, run=row)
    etl.finish_killed_operation(work.job, work.spark, etl.read_intent(work.job))
    return done


def rollback_target(work: Work) -> Run | None:
    """Return the run to whose state the tables return; None for the state before the first run."""
    options = work.request.options
    if "to" in options:
        target = work.run_of(options["to"])
        if target is None:
            raise JobError(
                f"rollback: no run {options['to']!r} has changed the tables; {latest_runs(work)}"
            )
        return target
    changed = [run for run in work.runs if run.operation not in MAINTENANCE]
    if not changed or changed[-1].run_id != options["undo"]:
        last = f"that is {changed[-1].run_id}" if changed else "there is none"
        raise JobError(
            f"rollback: {options['undo']!r} is not the last run that changed the tables, {last}; "
            "go back to the state after an earlier run instead (--to RUN)"
        )
    index = work.runs.index(changed[-1])
    return work.runs[index - 1] if index else None


def latest_runs(work: Work) -> str:
    names = [run.run_id for run in work.runs[-5:]]
    return f"the latest that did are {listed(names)}" if names else "nothing was loaded yet"


def lost_files(table: LakeTable, version: int) -> str | None:
    """Return why a version of a table cannot be restored, or None.

    Its log must still describe it, and each of its data files must exist.
    """
    from pyspark.errors import AnalysisException

    if version < 0 or version >= table.before:
        return None
    try:
        needed = table.at(version).inputFiles()
    except AnalysisException:
        return "its log was cleaned"
    stored = data_files(table)
    lost = [path for path in paths_below(table, needed) if path not in stored]
    return f"VACUUM has removed {plural(len(lost), 'data file')} of it" if lost else None


def reachable(work: Work, run: Run) -> bool:
    versions = [(name, run.versions.get(name, -1)) for name in RESTORED if work.lake[name].exists]
    return not any(lost_files(work.lake[name], version) for name, version in versions)


def reachable_from(work: Work, runs: Sequence[Run]) -> Sequence[Run]:
    """Return the runs whose state can be restored, by bisection: VACUUM and the cleaning of Delta's
    log remove the oldest first."""
    return runs[bisect.bisect_left(runs, True, key=functools.partial(reachable, work)) :]


def check_reachable(work: Work, target: Run | None, to: Mapping[str, int]) -> None:
    """Raise JobError, naming the oldest reachable run, if the target cannot be restored."""
    reasons = {name: lost_files(work.lake[name], version) for name, version in to.items()}
    problems = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    if not problems:
        return
    offered = reachable_from(work, work.runs)
    no_run = "no run can be reached any more"
    advice = f"the oldest run that can be reached is {offered[0].run_id}" if offered else no_run
    name = target.run_id if target else "the first run"
    raise JobError(f"rollback: the state after {name} is gone ({problems[0]}); {advice}")


def rollback_plan(work: Work, target: Run | None, to: Mapping[str, int]) -> dict[str, Any]:
    """Return the target run, the runs to undo, and each table's versions and rows."""
    index = work.runs.index(target) + 1 if target else 0
    taken_back = [run.run_id for run in work.runs[index:] if run.operation not in MAINTENANCE]
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


def check_expected(plan: Mapping[str, Any], expected: Mapping[str, int]) -> None:
    """Raise if a table has changed since the versions that a person has seen."""
    now = {name: table["from"] for name, table in plan["tables"].items()}
    changed = [name for name, version in expected.items() if now.get(name) != version]
    if changed:
        raise JobError(
            f"rollback: {listed(changed)} changed since the plan was made: look at a new plan"
        )


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
FORBIDDEN_FUNCTIONS = ("reflect", "java_method", "try_reflect")  # can call any Java method
LOSSY = {  # column type -> prefixes of value types that Spark would cast with silent loss
    "INT": ("double", "float", "decimal"),
    "STRING": ("double", "float", "decimal"),
    "BOOLEAN": ("tinyint", "smallint", "int", "bigint", "double", "float", "decimal"),
    "DATE": ("timestamp",),
}


@dataclass(frozen=True)
class Statement:
    """A statement parsed in Athena's dialect; `target` is the table that it changes, if any."""

    tree: exp.Expr
    target: Table | None

    def text(self, paths: Mapping[str, str], tree: exp.Expr | None = None) -> str:
        """Return the statement, or another tree, in Spark's dialect on Delta paths."""
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
        """Return the assigned columns, each list with a query of its values, for type checks."""
        from sqlglot import exp

        tree, target = self.tree, self.tree.this
        if isinstance(tree, exp.Insert) and self.target is not None:
            names = [column.name for column in target.expressions]
            return [(names or self.target.column_names, tree.expression)]
        if isinstance(tree, exp.Update):
            return [_assigned(tree.expressions, exp.select().from_(target.copy()))]
        return _merged(tree) if isinstance(tree, exp.Merge) else []


def _assigned(pairs: Sequence[exp.Expr], source: exp.Select) -> tuple[list[str], exp.Expr]:
    """Return the columns of `SET column = value, ...` and a query of the values."""
    return [pair.this.name for pair in pairs], source.select(*[pair.expression for pair in pairs])


def _merged(tree: exp.Merge) -> list[tuple[list[str], exp.Expr]]:
    """Return the columns and values of a MERGE, except of `*`, which assigns equal names."""
    from sqlglot import exp

    using = tree.args["using"].copy()
    source = exp.select().from_(tree.this.copy()).join(using, join_type="cross")
    assignments = []
    for then in (when.args["then"] for when in tree.args["whens"].expressions):
        if isinstance(then, exp.Update) and then.expressions:
            assignments.append(_assigned(then.expressions, source.copy()))
        elif isinstance(then, exp.Insert) and isinstance(then.expression, exp.Tuple):
            names = [column.name for column in then.this.expressions]
            assignments.append((names, source.copy().select(*then.expression.expressions)))
    return assignments


def table_nodes(tree: exp.Expr) -> list[exp.Table]:
    """Return the tables that a statement names, except those that its WITH defines."""
    from sqlglot import exp

    cte_names = {node.alias.lower() for node in tree.find_all(exp.CTE)}
    nodes = list(tree.find_all(exp.Table))
    return [node for node in nodes if node.db or node.name.lower() not in cte_names]


def parse_statement(text: str, lake: Lake) -> Statement:
    """Parse one statement; raise JobError if it is of another kind or a table does not exist."""
    try:
        import sqlglot
        from sqlglot import exp
    except ImportError:
        raise JobError("sql: the Python package sqlglot is missing: add it to the job") from None
    try:
        trees = [
            statement for statement in sqlglot.parse(text, read="athena") if statement is not None
        ]
    except sqlglot.errors.SqlglotError as error:
        raise JobError(f"sql: {str(error).splitlines()[0]}") from None
    kinds = (exp.Query, exp.Insert, exp.Update, exp.Delete, exp.Merge)
    if len(trees) != 1 or not isinstance(trees[0], kinds):
        raise JobError("sql: give one statement: INSERT, UPDATE, DELETE, MERGE or SELECT")
    tree = trees[0]
    check_names(tree, lake)
    return Statement(tree, None if isinstance(tree, exp.Query) else changed_table(tree))


def check_names(tree: exp.Expr, lake: Lake) -> None:
    """Raise JobError if a statement names a table that does not exist, or a forbidden function."""
    from sqlglot import exp

    called = {call.name.lower() for call in tree.find_all(exp.Anonymous)}
    forbidden = sorted(called & set(FORBIDDEN_FUNCTIONS))
    if forbidden:
        raise JobError(f"sql: {listed(forbidden)} is not allowed")
    existing = [name for name, table in lake.items() if table.exists]
    for node in table_nodes(tree):
        if node.name.lower() not in existing:
            raise JobError(
                f"sql: there is no table {node.name!r}; the tables are {listed(sorted(existing))}"
            )


def changed_table(tree: exp.Expr) -> Table:
    """Return the declared table that a statement changes."""
    from sqlglot import exp

    node = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    table = next(
        (candidate for candidate in etl.TABLES if candidate.name == node.name.lower()), None
    )
    if table is None:
        names = listed(table.name for table in etl.TABLES)
        raise JobError(f"sql: only {names} can be changed, not {node.name}")
    return table


def sql(work: Work) -> Result:
    """Run a SELECT, or correct a table by one statement."""
    statement = parse_statement(work.request.options["sql"], work.lake)
    paths = {name: table.path for name, table in work.lake.items()}
    with refused_by_spark():
        if statement.target is None:
            return select(work, statement.text(paths))
        table = statement.target
        candidate = f"{work.job.scratch_path}run={work.job.run_id}/candidate"
        check_types(work, statement, table, paths)
        changes = changes_of(work, statement, table, paths, candidate)
    counts = Counter({row["_operation"]: row["count"] for row in count_by(changes, "_operation")})
    plan = {"tables": {table.name: {name: counts[name] for name in CHANGES}}}
    parts = [passive(work, counts[name], "row", name) for name in CHANGES if counts[name]]
    text = f"{table.name}: {listed(parts) if parts else 'no row changes'}."
    result = Result(text, plan)
    check_correction(work, table, changes)
    if work.request.dry_run or not parts:
        return result
    begin(work)
    effect = commit_correction(work, table, changes, counts)
    return replace(result, effect={"tables": {table.name: effect}})


@contextmanager
def refused_by_spark() -> Iterator[None]:
    """Turn Spark's error on a statement into a JobError."""
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        raise JobError(f"sql: {etl.cause_of(error).partition(': ')[2]}") from error


def select(work: Work, text: str) -> Result:
    """Return the first SHOWN_ROWS rows of a SELECT."""
    rows = work.spark.sql(text).limit(SHOWN_ROWS + 1).collect()
    shown = [row.asDict(recursive=True) for row in rows[:SHOWN_ROWS]]
    is_cut = len(rows) > SHOWN_ROWS
    count = (
        f"more than {SHOWN_ROWS:,} rows; the first are shown"
        if is_cut
        else plural(len(rows), "row")
    )
    return Result(f"The query returned {count}.", {}, rows=shown, recorded=False)


CHANGES = ("inserted", "updated", "deleted")
AFTER, BEFORE = "after", "before"  # columns of `changes`: the row as a struct, or NULL


def count_by(frame: DataFrame, *names: str) -> list[Any]:
    """Count rows by some columns, as `count`."""
    return frame.groupBy(*names).count().collect()


def check_types(work: Work, statement: Statement, table: Table, paths: Mapping[str, str]) -> None:
    """Raise JobError if Spark would cast a value to its column with silent loss."""
    types = {column.name: column.type for column in table.columns}
    for names, query in statement.assignments():
        values = work.spark.sql(statement.text(paths, query)).schema.fields
        if len(names) != len(values):
            raise JobError(f"sql: {len(values)} values for {len(names)} columns of {table.name}")
        for name, value in zip(names, values, strict=True):
            column_type, kind = types.get(name.lower(), ""), value.dataType.simpleString()
            whole = re.fullmatch(r"decimal\(\d+,0\)", kind)
            if kind.startswith(LOSSY.get(column_type, ("\0",))) and not whole:
                raise JobError(
                    f"sql: {table.name}.{name} is {column_type}, but its value is {kind.upper()}: "
                    f"write CAST(... AS {column_type}) if that is intended"
                )


def changes_of(
    work: Work, statement: Statement, table: Table, paths: Mapping[str, str], candidate: str
) -> DataFrame:
    """Return the changes of a statement on a shallow clone: `key`, _operation, before, after.

    The table itself is only read. A duplicate key has a row for each of its rows.
    """
    spark = work.spark
    spark.sql(f"CREATE TABLE delta.`{candidate}` SHALLOW CLONE delta.`{paths[table.name]}`")
    with etl.settings(spark, {"spark.sql.ansi.enabled": "true"}):  # a bad cast is an error
        spark.sql(statement.text({**paths, table.name: candidate}))
    before = work.frame(table.name).select(table.column_names)
    after = spark.read.format("delta").load(candidate).select(table.column_names)
    values = F.struct(*table.column_names)
    removed = before.exceptAll(after).select(F.col(table.key).alias("key"), values.alias(BEFORE))
    added = after.exceptAll(before).select(F.col(table.key).alias("key"), values.alias(AFTER))
    changes = removed.join(added, removed["key"].eqNullSafe(added["key"]), how="full")
    operation = (
        F.when(F.col(BEFORE).isNull(), "inserted")
        .when(F.col(AFTER).isNull(), "deleted")
        .otherwise("updated")
    )
    key = F.coalesce(removed["key"], added["key"]).alias("key")
    return changes.select(key, operation.alias("_operation"), BEFORE, AFTER).localCheckpoint()


# -- checks of a correction ------------------------------------------------------------------------
def check_correction(work: Work, table: Table, changes: DataFrame) -> None:
    """Raise JobError, naming rule and keys, if a correction would break a guarantee of the load."""
    new = changes.where(F.col(AFTER).isNotNull()).select(f"{AFTER}.*").localCheckpoint()
    deleted = changes.where(F.col("_operation") == "deleted").select("key")
    violations = [
        *invalid_values(table, new),
        *duplicate_keys(work, table, changes, new),
        *missing_parents(work, table, new),
        *orphaned_rows(work, table, deleted),
    ]
    if violations:
        raise JobError(f"sql: refused, nothing was written: {'; '.join(violations)}")


def keys_of(frame: DataFrame, name: str) -> list[str]:
    """Return a few values of a column, quoted for an error."""
    rows = frame.select(F.col(name).cast("string").alias("key")).distinct().orderBy("key")
    return [repr(row["key"]) for row in rows.limit(NAMED).collect()]


def invalid_values(table: Table, new: DataFrame) -> list[str]:
    """Return the violations of required columns, finite numbers and rules."""

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
            checks[f"{column.name} is not a finite number"] = ~limit
    checks |= {rule.reason: rule.broken(text_of, F.col) for rule in table.rules}
    reasons = new.select(F.col(table.key), F.explode(etl.reasons_of(checks)).alias("reason"))
    rows = reasons.groupBy("reason").agg(F.collect_set(table.key).alias("keys")).collect()
    return [
        f"{row['reason']} in {table.name}{_keys_text(table.key, sorted(row['keys']))}"
        for row in rows
    ]


def _keys_text(column: str, keys: Sequence[str]) -> str:
    names = ", ".join(repr(key) for key in keys[:NAMED])
    return f" ({column} {names})" if names else ""


def duplicate_keys(work: Work, table: Table, changes: DataFrame, new: DataFrame) -> list[str]:
    """Return the violation of unique keys, among the new rows or with a row that stays."""
    keys = new.groupBy(table.key).count()
    replaced = changes.where(F.col(BEFORE).isNotNull()).select(F.col("key").alias(table.key))
    staying = (
        work.frame(table.name).select(table.key).join(new.select(table.key), table.key, "left_semi")
    )
    staying = staying.join(replaced, table.key, how="left_anti")
    twins = keys_of(keys.where("count > 1").select(table.key).union(staying), table.key)
    return [f"{table.key} {', '.join(twins)} would occur twice in {table.name}"] if twins else []


def missing_parents(work: Work, table: Table, new: DataFrame) -> list[str]:
    """Return the references to rows that do not exist."""
    violations = []
    for parent in table.parents:
        other = table_of(parent.dataset)
        existing = work.frame(other.name).select(F.col(other.key).alias(parent.column))
        keys = keys_of(new.join(existing, parent.column, how="left_anti"), parent.column)
        if keys:
            reference = f"{table.name}.{parent.column} {', '.join(keys)}"
            violations.append(f"{reference} is not in {other.name}")
    return violations


def orphaned_rows(work: Work, table: Table, deleted: DataFrame) -> list[str]:
    """Return the references of other tables to keys that would be deleted."""
    violations = []
    for child in etl.TABLES:
        for parent in child.parents:
            if parent.dataset == table.dataset and work.lake[child.name].exists:
                rows = work.frame(child.name).select(F.col(parent.column).alias("key"))
                keys = keys_of(deleted.join(rows, "key", how="left_semi"), "key")
                if keys:
                    refers = f"{child.name} refers to {parent.column} {', '.join(keys)}"
                    violations.append(f"{refers}, which would be deleted from {table.name}")
    return violations


def table_of(dataset: str) -> Table:
    return next(table for table in etl.TABLES if table.dataset == dataset)


# -- the commits -----------------------------------------------------------------------------------
def commit_correction(
    work: Work, table: Table, changes: DataFrame, counts: Counter[str]
) -> dict[str, Any]:
    """Commit the table, then parked rows that the correction supersedes, then `corrections`."""
    target = work.lake[table.name]
    rows = changes.select("key", "_operation", f"{AFTER}.*")
    with work.timed(f"committed {table.name}"):
        if not counts["updated"] and not counts["deleted"]:
            target.append(rows.select(table.column_names), work.stamp, table.partition)
        else:
            delete = "WHEN MATCHED AND s._operation = 'deleted' THEN DELETE"
            clauses = f"{delete} {etl.merge_clauses(table)}"
            target.merge(rows, f"t.`{table.key}` = s.key", clauses, work.stamp)
    with work.timed("settled parked rows"):
        superseded = supersede_parked(work, table, rows)
    texts = {
        part: F.when(F.col(part).isNotNull(), etl.texts_of(table, f"{part}.")).alias(part)
        for part in (BEFORE, AFTER)
    }
    corrections = changes.select(
        F.lit(work.job.run_id).alias("run_id"),
        F.lit(work.request.author).alias("author"),
        F.lit(work.request.options["sql"]).alias("statement"),
        F.lit(table.name).alias("table_name"),
        F.col("key").alias("record_key"),
        F.regexp_replace("_operation", "^(insert)ed$|d$", "$1").alias("operation"),
        texts[BEFORE],
        texts[AFTER],
        F.lit(dt.datetime.now(dt.UTC).isoformat()).cast("timestamp").alias("corrected_at"),
    )
    with work.timed("committed corrections"):
        work.lake["corrections"].append(corrections, work.stamp)
    return {**{name: counts[name] for name in CHANGES}, "parked_rows_superseded": superseded}


def supersede_parked(work: Work, table: Table, rows: DataFrame) -> int:
    """Supersede and count parked rows that are no newer than a correction of their key."""
    if not table.parents or not table.version:
        return 0
    version = etl.try_cast(F.col("fields").getItem(table.version), "timestamp")
    parked = work.frame("rejected_records").where(
        (F.col("status") == etl.PARKED) & (F.col("dataset") == table.dataset)
    )
    # The correction is the later delivery, so it wins a tie
    parked = parked.select(
        *etl.ROW_IDENTITY, F.col("record_key").alias("key"), version.alias("_at")
    )
    new = rows.where("_operation <> 'deleted'").select("key", F.col(table.version).alias("_to"))
    superseded = parked.join(F.broadcast(new), "key").where("_at <= _to").select(etl.ROW_IDENTITY)
    superseded = superseded.localCheckpoint()
    count = superseded.count()
    if count:
        settled = superseded.withColumn("status", F.lit(etl.SUPERSEDED))
        settle(work, settled, f"t.status = s.status, {resolved_by(work)}")
    return count


def settle(work: Work, rows: DataFrame, updates: str) -> None:
    """Update open rows of rejected_records by their identity."""
    same = " AND ".join(f"t.{name} = s.{name}" for name in etl.ROW_IDENTITY)
    statuses = ", ".join(f"'{status}'" for status in OPEN_STATUSES)
    clauses = f"WHEN MATCHED THEN UPDATE SET {updates}"
    rejected = work.lake["rejected_records"]
    rejected.merge(rows, f"t.status IN ({statuses}) AND {same}", clauses, work.stamp, nth=2)


# --------------------------------------------------------------------------------------------------
# Archived files, by the manifests of the runs
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Archived:
    """A file that a run has read and the archiver has moved to `destination`."""

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
    """Return the lines of all manifests, each with its run id, in the order of delivery."""
    runs = etl.storage(job.runs_path)
    stored = runs.list()
    manifests = [
        stored_object.path
        for stored_object in stored
        if stored_object.path.endswith("/manifest.jsonl")
    ]

    def read(manifest: str) -> list[dict[str, Any]]:
        lines = runs.read(manifest).splitlines()
        return [{"run_id": manifest.rsplit("/", 1)[0], **json.loads(line)} for line in lines]

    all_lines = [line for lines in etl.map_concurrently(read, manifests) for line in lines]
    return sorted(all_lines, key=lambda line: (line["last_modified"], line["path"], line["run_id"]))


def archived_files(job: JobArguments) -> list[Archived]:
    """Return the archived files in the order of delivery, once for each path and content."""
    first: dict[tuple[str, str], Archived] = {}
    for line in manifest_lines(job):
        if line["destination"] != "raw":
            modified = dt.datetime.fromisoformat(line["last_modified"].replace("Z", "+00:00"))
            names = ("run_id", "path", "digest", "size")
            run_id, path, digest, size = (line[name] for name in names)
            file = Archived(run_id, path, digest, size, modified, line["destination"])
            first.setdefault((file.path, file.digest), file)
    return list(first.values())


def read_headers(root: str, files: Sequence[Archived]) -> list[tuple[Archived, etl.RawFile | None]]:
    """Read the header of each archived file as delivered; None for a file that is missing."""
    store = etl.storage(root)

    def with_header(file: Archived) -> etl.RawFile | None:
        stored = etl.StoredObject(file.place, "", file.size, file.modified, file.path)
        raw = etl.RawFile(stored, etl.dataset_of(file.path), file.digest)
        try:
            with closing(store.chunks(file.place)) as chunks:
                return etl.with_header(raw, chunks)
        except FileNotFoundError:
            return None

    return list(zip(files, etl.map_concurrently(with_header, files), strict=True))


def archive_root(work: Work, purpose: str) -> str:
    """Return the archive's path; raise JobError, stating its purpose, if it was not passed."""
    if work.arguments.archive_path is None:
        raise JobError(f"{work.request.name}: {purpose}: set --ARCHIVE_PATH to the archive")
    return work.arguments.archive_path


# --------------------------------------------------------------------------------------------------
# Ties between a replayed row and the table's row: which was delivered later?
# --------------------------------------------------------------------------------------------------
def mark_outranked(work: Work, staged: etl.StagedDataset) -> etl.StagedDataset:
    """Mark rows as _replayed if they tie with the table's row of their key and were delivered
    before it.

    The tables hold no deliveries. The table's row is later if a file of the ledger or a correction,
    both since the replayed row's delivery, contains that row.
    """
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
        *etl.ROW_PLACE,
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
    deliveries, lost = deliveries_since(work, staged, tied.select("_key"), since)
    rows = tied.join(deliveries, ["_key", "_row"]).where("_delivered > _at")
    if lost:  # each lost file may have delivered the table's row
        last = max(file.delivery for file in lost)
        moment = F.lit(last[0].isoformat()).cast("timestamp").alias("file_modified")
        lost_delivery = F.struct(moment, F.lit(last[1]).alias("file_path"))
        before = F.struct("_at.file_modified", "_at.file_path") < lost_delivery
        rows = rows.select(etl.ROW_PLACE).union(tied.where(before).select(etl.ROW_PLACE))
    earlier = (
        rows.select(etl.ROW_PLACE).distinct().withColumn("_earlier", F.lit(True)).localCheckpoint()
    )
    marked = staged.rows.join(F.broadcast(earlier), etl.ROW_PLACE, how="left")
    replayed = F.col("_replayed") | F.col("_earlier").isNotNull()
    columns = staged.rows.columns
    return replace(staged, rows=marked.withColumn("_replayed", replayed).select(columns))


def delivered_at(table: Table) -> SparkColumn:
    """Return a row's place in the order of deliveries; in a file, most values come last."""
    values = etl.value_count(table).alias("values")
    return F.struct("file_modified", "file_path", values, "line")


def deliveries_since(
    work: Work, staged: etl.StagedDataset, keys: DataFrame, since: dt.datetime
) -> tuple[DataFrame, list[Archived]]:
    """Return later rows of some keys (_key, _row, _delivered), and the lost files."""
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
        root = archive_root(work, f"rows tie with rows of {table.name} whose delivery is in it")
        files = [
            file
            for file in archived_files(work.job)
            if file.digest in digests and etl.dataset_of(file.path) == table.dataset
        ]
        rows, lost = archived_rows(work, table, root, files)
        frames.append(without_rejects(work, rows))
    named = ["_key", "_row", "_delivered"]
    frames = [frame.join(F.broadcast(keys.distinct()), "_key").select(named) for frame in frames]
    return etl.union(frames), lost


def archived_rows(
    work: Work, table: Table, root: str, files: Sequence[Archived]
) -> tuple[DataFrame, list[Archived]]:
    """Return valid rows of files (_key, _row, _delivered, identity), and the lost files."""
    headers = read_headers(root, files)
    lost = [file for file, raw in headers if raw is None]
    present = tuple(raw for _, raw in headers if raw is not None)
    discovered = etl.Discovered(present, archived=True)
    scratch = f"{work.job.scratch_path}run={work.job.run_id}/ties-{table.dataset}/"
    job = replace(work.job, raw_path=root, scratch_path=scratch, max_rejected_percent=100)
    staged = etl.stage(work.spark, job, discovered).datasets[table.dataset]
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
    """Return the rows without those that their table never received."""
    excluded = work.frame("rejected_records").where(F.col("status") != etl.ADMITTED)
    return rows.join(excluded.select(etl.ROW_IDENTITY), etl.ROW_IDENTITY, how="left_anti")


def corrections_of(work: Work, table: Table) -> DataFrame:
    """Return the rows that standing corrections wrote: _key, _row, their time as _delivered."""
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
    is_standing = (F.col("table_name") == table.name) & F.col("run_id").isin(standing)
    return frame.where(is_standing & F.col("after").isNotNull()).select(
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
    """Apply the current rules to rejected and parked rows, or to archived files."""
    if "archived" in work.request.options:
        return replay_files(work)
    chosen = chosen_rows(work)
    return (
        discard(work, chosen) if work.request.options.get("discard") else replay_rows(work, chosen)
    )


def chosen_rows(work: Work) -> DataFrame:
    """Return the rejected and parked rows that the request selects."""
    request = work.request
    statuses = request.texts("statuses") or list(OPEN_STATUSES)
    rows = work.frame("rejected_records").where(F.col("status").isin(statuses))
    for name, column in (("datasets", "dataset"), ("runs", "run_id"), ("files", "file_path")):
        if name in request.options:
            rows = rows.where(F.col(column).isin(request.texts(name)))
    if "reasons" in request.options:
        reasons = F.array(*[F.lit(reason) for reason in request.texts("reasons")])
        rows = rows.where(F.arrays_overlap("reasons", reasons))
    if "rows" in request.options:
        ddl = "dataset STRING, file_digest STRING, file_size BIGINT, line BIGINT"
        places = etl.local_frame(work.spark, request.options["rows"], ddl).distinct()
        rows = rows.join(F.broadcast(places), etl.ROW_IDENTITY, how="left_semi")
    return rows.localCheckpoint()


def discard(work: Work, chosen: DataFrame) -> Result:
    """Close rows for good, with author and reason."""
    counts = {row["status"]: row["count"] for row in count_by(chosen, "status")}
    total = sum(counts.values())
    result = Result(f"{passive(work, total, 'row', 'discarded')}.", {"rows": counts})
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
    """Apply the current rules to rows of rejected_records and load those that pass."""
    headers = headers_of(work, chosen)
    staged = {table.dataset: stage_rows(work, table, chosen, headers) for table in etl.TABLES}
    staged = {name: mark_outranked(work, dataset) for name, dataset in staged.items()}
    resolved = resolve_rows(work, staged, chosen)
    settled = settled_rows(work, staged, resolved, chosen).localCheckpoint()
    reasons = remaining_reasons(staged)
    datasets = {
        name: etl.measures(table, reasons.get(name, {})) for name, table in resolved.items()
    }
    result = Result(replay_text(work, datasets), replay_plan(datasets), datasets=datasets)
    if work.request.dry_run or settled.isEmpty():
        return result
    begin(work)
    for dataset in resolved.values():
        if dataset.totals[etl.INSERTED] or dataset.totals[etl.UPDATED]:
            with work.timed(f"committed {dataset.table.name}"):
                etl.commit(dataset, work.lake[dataset.table.name], work.stamp)
    names = ("status", "reasons", "fields", "record_key", "order_id", "product_id")
    updates = ", ".join(f"t.{name} = coalesce(s.{name}, t.{name})" for name in names)
    with work.timed("settled rows"):
        settle(work, settled, f"{updates}, t.resolved_run_id = s.resolved_run_id")
    return replace(result, effect=result.plan)


def replay_plan(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    measures = ("rows_read", "admitted", *etl.OUTCOMES)
    return {
        "datasets": {
            name: {measure: numbers[measure] for measure in measures}
            for name, numbers in datasets.items()
            if numbers["rows_read"] or numbers["admitted"]
        }
    }


def replay_text(work: Work, datasets: Mapping[str, Mapping[str, Any]]) -> str:
    sums = Counter[str]()
    for numbers in datasets.values():
        sums.update({name: numbers[name] for name in ("rows_read", "admitted", *etl.OUTCOMES)})
    parts = [f"{sums[name]:,} {name}" for name in etl.OUTCOMES if sums[name]]
    text = passive(work, sums["rows_read"], "row", "replayed")
    if sums["admitted"]:
        text += f", and {plural(sums['admitted'], 'parked row')} had waited for them"
    return f"{text}: {listed(parts)}." if parts else f"{text}."


def headers_of(work: Work, chosen: DataFrame) -> dict[str, etl.Layout]:
    """Return layouts by digest, from the archive, for rows that could not be split into fields."""
    unsplit = chosen.where(_lacks_fields()).select("file_digest").distinct()
    digests = {row["file_digest"] for row in unsplit.collect()}
    if not digests:
        return {}
    root = archive_root(work, "malformed rows need the header of their file")
    files = [file for file in archived_files(work.job) if file.digest in digests]
    return {
        file.digest: raw.layout
        for file, raw in read_headers(root, files)
        if raw is not None and raw.outcome == "loaded"
    }


def _lacks_fields() -> SparkColumn:
    """Return the condition for rejected rows without texts by column, except repeated headers."""
    header = F.array_contains("reasons", "repeated_header")
    return F.col("fields").isNull() & ~header & (F.col("status") == etl.REJECTED)


def stage_rows(
    work: Work, table: Table, chosen: DataFrame, headers: Mapping[str, etl.Layout]
) -> etl.StagedDataset:
    """Stage rows of rejected_records: validate rejected rows again, take parked rows unchanged."""
    rows = chosen.where(F.col("dataset") == table.dataset)
    files = {}
    for number, row in enumerate(rows.select(*etl.FILE_COLUMNS).distinct().collect()):
        path, digest, size, modified = row
        stored = etl.StoredObject(path, "", size, modified.astimezone(dt.UTC))
        layout = headers.get(digest, etl.Layout("", ()))
        files[number] = etl.RawFile(stored, table.dataset, digest, layout)
    sources = [{"_file": number, **raw.source} for number, raw in files.items()]
    file_numbers = etl.local_frame(work.spark, sources, f"_file INT, {etl.FILE_DDL}")
    lines = rows.join(F.broadcast(file_numbers), [*etl.FILE_COLUMNS]).select("*", *_place())
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
    """Return the other columns of PLACE for rejected rows; restore invalid UTF-8 bytes."""
    as_bytes = F.encode("raw", "ISO-8859-1").cast("string")
    raw = F.when(F.array_contains("reasons", "invalid_utf8"), as_bytes).otherwise(F.col("raw"))
    return [
        F.lit(0).cast("bigint").alias("_split"),
        F.col("line").alias("_mid"),
        raw.alias("_raw"),
    ]


def row_parts(lines: DataFrame, table: Table, files: Mapping[int, etl.RawFile]) -> list[DataFrame]:
    """Return the staged columns of rows in parts: parked rows and repeated headers as they are,
    rows with texts by column, and rows with only their line."""
    parked = F.col("status") == etl.PARKED
    has_fields = ~parked & F.col("fields").isNotNull()
    headers: dict[etl.Layout, list[int]] = {}
    for number, raw in files.items():
        if raw.layout.names:
            headers.setdefault(raw.layout, []).append(number)
    with_header = [number for numbers in headers.values() for number in numbers]
    by_line = _lacks_fields() & F.col("_file").isin(with_header) if with_header else F.lit(False)
    nulls = [
        F.lit(None).cast("array<string>").alias("_reasons"),
        F.lit(None).cast("map<string,string>").alias("_fields"),
    ]
    kind = F.when(parked, etl.RECORD).otherwise(etl.HEADER).alias("_kind")
    texts = [
        etl.value_text(column, F.col("fields").getItem(column.name)).alias(f"_t_{column.name}")
        for column in table.columns
    ]
    record_columns = [F.lit(etl.RECORD).alias("_kind"), F.lit(None).cast("string").alias("_broken")]
    latest = etl.latest_times(files)
    parts = [
        lines.where(~has_fields & ~by_line).select(*etl.PLACE, kind, *nulls, *etl.fields_of(table)),
        etl.validate_texts(
            lines.where(has_fields).select(*etl.PLACE, *record_columns, *texts), table, latest
        ),
    ]
    for layout, numbers in headers.items():
        broken = lines.where(_lacks_fields() & F.col("_file").isin(numbers))
        parts.append(etl.parse_lines(broken.select(etl.PLACE), table, layout, latest))
    return parts


def resolve_rows(
    work: Work, staged: Mapping[str, etl.StagedDataset], chosen: DataFrame
) -> dict[str, etl.Resolved]:
    """Resolve the chosen rows; the other parked rows wait as in a load."""
    parked = work.frame("rejected_records").where(F.col("status") == etl.PARKED)
    waiting = parked.join(chosen.select(etl.ROW_IDENTITY), etl.ROW_IDENTITY, how="left_anti")
    return etl.resolve_datasets(staged, work.lake, waiting.localCheckpoint())


def settled_rows(
    work: Work,
    staged: Mapping[str, etl.StagedDataset],
    resolved: Mapping[str, etl.Resolved],
    chosen: DataFrame,
) -> DataFrame:
    """Return the changes to rejected_records: ROW_IDENTITY, new values, NULL for no change."""
    frames = [
        frame
        for name, dataset in resolved.items()
        for frame in settled_of(work, staged[name], dataset)
    ]
    rows = etl.union(frames)
    current = chosen.select(
        *etl.ROW_IDENTITY, F.col("status").alias("_status"), F.col("reasons").alias("_was")
    )
    rows = rows.join(current, etl.ROW_IDENTITY, how="left")
    same_reasons = F.coalesce(F.sort_array("reasons") == F.sort_array("_was"), F.lit(True))
    same = (F.col("status") == F.col("_status")) & same_reasons
    return rows.where(~F.coalesce(same, F.lit(False))).drop("_status", "_was")


def settled_of(work: Work, staged: etl.StagedDataset, resolved: etl.Resolved) -> list[DataFrame]:
    """Return the new values of a dataset's rows in rejected_records: rows that pass, rows that
    still fail, and parked rows that wait no longer."""
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
    null = F.lit(None)
    late = etl.settled_rows(resolved).withColumns({"_run": F.lit(work.job.run_id)})
    rejected = F.lit(etl.REJECTED)
    return [
        _settled(late, table, F.col("status"), F.col("_run"), null, null),
        _settled(passed, table, status, run, reasons, fields),
        _settled(
            staged.with_place(failing),
            table,
            rejected,
            null,
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
    """Return rows with ROW_IDENTITY and their new values; keys come from the texts."""
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


def remaining_reasons(staged: Mapping[str, etl.StagedDataset]) -> dict[str, dict[str, int]]:
    """Count rows that still fail, by dataset and reason."""
    remaining: dict[str, dict[str, int]] = {}
    for name, dataset in staged.items():
        reasons = dataset.rows.select(F.explode("_reasons").alias("reason"))
        remaining[name] = {row["reason"]: row["count"] for row in count_by(reasons, "reason")}
    return remaining


# -- whole files -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class ArchivedFiles:
    """Selected archived files: new files by location, and the numbers of loaded and lost files."""

    new: Mapping[str, Sequence[etl.RawFile]]
    loaded: int
    lost: int

    @property
    def paths(self) -> list[str]:
        return [raw.stored.name for raws in self.new.values() for raw in raws]


def replay_files(work: Work) -> Result:
    """Load archived files at their place in the order of deliveries; skip files in the ledger."""
    return load_archived(work, choose_files(work, work.request.options["archived"]), begin)


def rebuild(work: Work) -> Result:
    """Load all archived files into new tables; the damaged tables are moved below `damaged/`."""
    files = choose_files(work, {})
    if not files.paths:
        raise JobError("rebuild: the archive holds none of the files that the runs have read")
    result = load_archived(work, files, set_tables_aside)
    note = "Corrections by `sql`, discarded rows and rollbacks are not in the archive."
    return replace(result, text=f"{result.text} {note}")


def set_tables_aside(work: Work) -> None:
    """Move the tables away; the intent then blocks every run but a rebuild."""
    begin(work)
    etl.write_versions(work.job, {})
    now = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S.%f")
    for name in etl.schemas():
        root = work.job.path_of(name).removesuffix(name)
        etl.storage(root).move(f"{name}/", f"damaged/{now}/{name}/")
        etl.progress(f"moved {name}")


def load_archived(work: Work, files: ArchivedFiles, prepare: Callable[[Work], None]) -> Result:
    """Load archived files, after calling `prepare`; a dry run only reports."""
    plan = {
        "files": len(files.paths),
        "loaded_before": files.loaded,
        "missing": files.lost,
        "paths": files.paths[:50],
    }
    if work.request.dry_run or not files.paths:
        planned = [raw for raws in files.new.values() for raw in raws]
        return Result(files_text(work, files, planned), plan)
    prepare(work)
    datasets: dict[str, dict[str, Any]] = {}
    read: list[etl.RawFile] = []
    for root, raws in files.new.items():
        if raws:
            numbers, staged_files = replay_batch(work, root, raws)
            add_numbers(datasets, numbers)
            read += staged_files
    report = f"{files_text(work, files, read)} {replay_text(work, datasets)}"
    return Result(report, plan, replay_plan(datasets), datasets)


def choose_files(work: Work, options: Mapping[str, Any]) -> ArchivedFiles:
    """Select files, in the archive and among those set aside."""
    archive = archive_root(work, "whole files are replayed from the archive")
    roots = {"archive": archive, "rejected": f"{work.job.rejected_path}files/"}
    chosen = [file for file in archived_files(work.job) if is_chosen(file, options)]
    by_root = {
        root: with_headers(root, [file for file in chosen if file.destination == destination])
        for destination, root in roots.items()
    }
    present = [raw for raws in by_root.values() for raw in raws]
    ledger = work.lake["ingested_files"]
    marked = {root: mark_duplicates(ledger, raws) for root, raws in by_root.items()}
    new = {
        root: [raw for raw in raws if raw.outcome != "duplicate"] for root, raws in marked.items()
    }
    count = sum(len(raws) for raws in new.values())
    return ArchivedFiles(new, len(present) - count, len(chosen) - len(present))


def with_headers(root: str, files: Sequence[Archived]) -> list[etl.RawFile]:
    """Return archived files with their headers, without missing files."""
    return [raw for _, raw in read_headers(root, files) if raw is not None]


def mark_duplicates(ledger: LakeTable, raws: Sequence[etl.RawFile]) -> Sequence[etl.RawFile]:
    """Mark archived files that the ledger has as duplicates."""
    return etl.mark_duplicates(etl.Discovered(tuple(raws), archived=True), ledger, False).files


def files_text(work: Work, files: ArchivedFiles, raws: Sequence[etl.RawFile]) -> str:
    """Return what became of the files that were read (`raws`) and of the others."""
    aside = [f"{raw.stored.name} ({raw.reason})" for raw in raws if raw.outcome == "set_aside"]
    text = passive(work, len(raws) - len(aside), "archived file", "replayed")
    if aside:
        text += f"; {plural(len(aside), 'file')} set aside again: {listed(aside[:5])}"
    if files.loaded:
        text += f"; {plural(files.loaded, 'file')} already in the ledger"
    if files.lost:
        text += f"; {plural(files.lost, 'file')} missing from the archive"
    return f"{text}."


def is_chosen(file: Archived, options: Mapping[str, Any]) -> bool:
    """Return whether a file matches the given paths (with wildcards), runs and days."""
    day = file.modified.date().isoformat()
    paths, runs = options.get("paths"), options.get("runs")
    by_path = paths is None or any(fnmatch.fnmatchcase(file.path, path) for path in paths)
    by_run = runs is None or file.run_id in runs
    return by_path and by_run and options.get("from", "") <= day <= options.get("to", "9999")


def replay_batch(
    work: Work, root: str, raws: Sequence[etl.RawFile]
) -> tuple[dict[str, dict[str, Any]], Sequence[etl.RawFile]]:
    """Load archived files by the steps of a load; return the numbers by dataset, and the files with
    their outcomes."""
    work = replace(work, lake=etl.open_lake(work.spark, work.job))
    job = replace(work.job, raw_path=root)
    staged = etl.stage(work.spark, job, etl.Discovered(tuple(raws), archived=True))
    datasets = {name: mark_outranked(work, dataset) for name, dataset in staged.datasets.items()}
    staged = replace(staged, datasets=datasets)
    _, resolved = etl.resolve(staged, work.lake, force=True)
    published = etl.publish(job, staged, resolved, work.lake, work.timed)
    counts = {
        number: count for result in resolved.values() for number, count in result.counts.items()
    }
    with work.timed("committed ingested_files"):
        etl.write_ledger(job, staged.files, counts, work.lake["ingested_files"])
    numbers = {
        name: etl.measures(result, published.reasons.get(name, {}))
        for name, result in resolved.items()
    }
    return numbers, staged.files


def add_numbers(sums: dict[str, dict[str, Any]], batch: Mapping[str, Mapping[str, Any]]) -> None:
    """Add a batch's numbers by dataset to those of earlier batches."""
    for name, numbers in batch.items():
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
    """Return every data file in a table's folder, live or not, with its bytes."""
    files = table.log.storage.list()
    return {file.path: file.size for file in files if not file.path.startswith("_")}


def live_files(table: LakeTable) -> dict[str, int]:
    """Return the data files of a table's current version with their bytes."""
    names = table.spark.read.format("delta").load(table.path).inputFiles()
    stored = data_files(table)
    return {path: stored[path] for path in paths_below(table, names)}


def paths_below(table: LakeTable, names: Iterable[str]) -> list[str]:
    """Return the paths of data files within the table's folder, from Spark's names."""
    root = etl.bare_path(table.path) + "/"
    return [etl.bare_path(urllib.parse.unquote(name)).removeprefix(root) for name in names]


def chosen_tables(work: Work) -> list[str]:
    """Return the existing tables that the request selects, or all."""
    existing = [name for name, table in work.lake.items() if table.exists]
    chosen = work.request.texts("tables") or existing
    unknown = [name for name in chosen if name not in existing]
    if unknown:
        names = listed(existing)
        raise JobError(
            f"{work.request.name}: there is no table {unknown[0]!r}; the tables are {names}"
        )
    return chosen


def optimize(work: Work) -> Result:
    """Compact the partitions with many small files."""
    min_files = work.request.options.get("min_files", 5)
    plan: dict[str, Any] = {}
    chosen: dict[str, list[str]] = {}
    for name in chosen_tables(work):
        files = live_files(work.lake[name])
        small = Counter(
            path.rpartition("/")[0] for path, size in files.items() if size < SMALL_BYTES
        )
        chosen[name] = sorted(partition for partition, count in small.items() if count >= min_files)
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
        return "No partition has enough small files to compact."
    before = sum(table["files"] for table in plan.values())
    partitions = sum(table["partitions"] for table in plan.values())
    text = passive(work, partitions, "partition", "compacted")
    if not effect:
        return f"{text}; the tables have {plural(before, 'file')} now."
    after = sum(table["files"] for table in effect.values())
    sizes = [sum(table["bytes"] for table in part.values()) for part in (plan, effect)]
    return f"{text}: {before:,} files are {after:,} now, {sizes[0]:,} bytes are {sizes[1]:,}."


def compact(work: Work, name: str, partitions: Sequence[str]) -> None:
    """OPTIMIZE partitions of a table (`column=value`); '' if the table is unpartitioned."""
    where = ""
    if all("=" in partition for partition in partitions) and len(partitions) <= MAX_PARTITIONS:
        column = partitions[0].partition("=")[0]
        values = [urllib.parse.unquote(partition.partition("=")[2]) for partition in partitions]
        where = f" WHERE `{column}` IN ({', '.join(repr(value) for value in values)})"
    with etl.settings(work.spark, {etl.COMMIT_STAMP: work.stamp}):
        work.spark.sql(f"OPTIMIZE delta.`{work.lake[name].path}`{where}")


def vacuum(work: Work) -> Result:
    """Run Delta's VACUUM: remove data files that no version within the retention needs."""
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
            remaining = data_files(table)
            effect[name] = {"files": len(remaining), "bytes": sum(remaining.values())}
    done = {"tables": effect} if effect else {}
    return Result(vacuum_text(work, plan, effect), {"tables": plan}, done)


def run_vacuum(table: LakeTable, dry_run: bool) -> list[str]:
    """VACUUM a table by its own retention; a dry run returns the removable files."""
    rows = table.spark.sql(f"VACUUM delta.`{table.path}`{' DRY RUN' if dry_run else ''}").collect()
    return [row["path"] for row in rows]


def vacuum_text(work: Work, plan: Mapping[str, Any], effect: Mapping[str, Any]) -> str:
    offered = reachable_from(work, work.runs)
    oldest = f"; a rollback reaches back to {offered[0].run_id}" if offered else ""
    if work.request.dry_run or not effect:
        count, size = (
            sum(table[name] for table in plan.values()) for name in ("removable", "removable_bytes")
        )
        return f"{plural(count, 'file')} of {size:,} bytes can be removed{oldest}."
    removed = sum(plan[name]["files"] - table["files"] for name, table in effect.items())
    size = sum(plan[name]["bytes"] - table["bytes"] for name, table in effect.items())
    return f"{plural(removed, 'file')} of {size:,} bytes removed{oldest}."


# --------------------------------------------------------------------------------------------------
# Summary and run
# --------------------------------------------------------------------------------------------------
def request_text(request: Request) -> dict[str, Any]:
    return {"name": request.name, "author": request.author, "dry_run": request.dry_run}


def operation_summary(request: Request, result: Result) -> dict[str, Any]:
    """Return the summary's section `operation`, small enough for the state machine."""
    section = {
        **request_text(request),
        "text": result.text[:TEXT_LIMIT],
        "plan": dict(result.plan),
        "effect": dict(result.effect),
    }
    for part in ("plan", "effect"):
        while (
            len(json.dumps([section["plan"], section["effect"]])) > OBJECT_LIMIT and section[part]
        ):
            longest = max(section[part], key=lambda name: len(json.dumps(section[part][name])))
            del section[part][longest]
    return section


def summary_of_result(work: Work, result: Result) -> dict[str, Any]:
    """Return the summary of an operation, with its effect on each table.

    A SELECT or dry run has changed nothing: no tables, no crawl.
    """
    summary = etl.summary_of(work.job, work.timed, (), "SUCCEEDED")
    summary["datasets"] |= result.datasets
    summary["operation"] = operation_summary(work.request, result)
    if not result.recorded:
        return summary
    existing = {name for name, table in work.lake.items() if table.log.latest() >= 0}
    names = sorted((existing | set(RESTORED)) - {"etl_runs"})
    tables = etl.map_concurrently(lambda name: work.lake[name].summary(), names)
    summary["tables"] = dict(zip(names, tables, strict=True))
    summary["crawl_needed"] = any(table["schema_changed"] for table in tables)
    return summary


def write_result(work: Work, result: Result) -> None:
    """Write RUNS_PATH/<run id>/operation.json."""
    document = {
        "run_id": work.job.run_id,
        "operation": {**request_text(work.request), **work.request.options},
        "text": result.text,
        "plan": result.plan,
        "effect": result.effect,
        "rows": list(result.rows)[:SHOWN_ROWS],
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n"
    runs = etl.storage(work.job.runs_path)
    runs.write(f"{work.job.run_id}/operation.json", text.encode("utf-8"))


def finalize(work: Work, result: Result) -> dict[str, Any]:
    """Write the row in etl_runs, operation.json, the manifest and, last, the summary."""
    result = replace(result, recorded=result.recorded and not work.request.dry_run)
    summary = summary_of_result(work, result)
    if result.recorded:
        check_intent(work)
        with work.timed("committed etl_runs"):
            etl.write_run(
                work.job, work.timed.started, summary, work.lake["etl_runs"], work.request.name
            )
        if etl.read_intent(work.job):  # this run's; a killed run's was finished before
            etl.remove_intent(work.job)
    write_result(work, result)
    return etl.write_summary(work.job, summary)


def rewrite_files(work: Work, run: Run) -> dict[str, Any]:
    """Write the files of a run in etl_runs again: it was killed before, or is repeated."""
    section = run.operation_summary
    result = Result(section.get("text", ""), section.get("plan", {}), section.get("effect", {}))
    write_result(work, result)
    return etl.write_summary(work.job, {**run.summary, "timings": work.timed.seconds})


OPERATIONS: Mapping[str, Callable[[Work], Result]] = {
    "sql": sql,
    "rollback": rollback,
    "replay": replay,
    "rebuild": rebuild,
    "optimize": optimize,
    "vacuum": vacuum,
}


def run(arguments: OperationArguments, request: Request, timed: Timings) -> dict[str, Any]:
    """Run one operation; return the summary."""
    etl.check_declarations()
    job = arguments.job
    with timed("Spark started"):
        spark = etl.spark_session(local=job.local)
    with timed("tables opened"):
        intent, is_rebuild = etl.read_intent(job), request.name == "rebuild"
        if intent and not request.dry_run and not is_rebuild:
            etl.finish_killed_operation(job, spark, intent)
        lake = etl.new_lake(spark, job) if is_rebuild else etl.open_lake(spark, job)
        work = Work(arguments, request, spark, lake, runs_of(lake), timed)
    completed = work.run_of(job.run_id)
    if completed is not None:
        return rewrite_files(work, completed)
    scratch = etl.storage(job.scratch_path)
    scratch.remove(f"run={job.run_id}")  # left by an earlier, killed attempt of this run
    reads_files = request.name in ("replay", "rebuild")  # of any size
    try:
        with etl.settings(spark, etl.session_settings(large=reads_files)):
            result = OPERATIONS[request.name](work)
    finally:
        scratch.remove_scratch(job.run_id)
    if request.name == "rollback" and not request.dry_run:
        written = {run.run_id: run for run in runs_of(etl.open_lake(spark, job))}
        return rewrite_files(work, written[job.run_id])
    if intent and request.dry_run:
        note = f"The next run first completes or reverts {intent['run_id']}, which was killed."
        result = replace(result, text=f"{result.text} {note}")
    return finalize(work, result)


def failed(
    arguments: OperationArguments, request: Request | None, timed: Timings, cause: str
) -> None:
    """Write the summary of an operation that failed or was refused."""
    summary = etl.summary_of(arguments.job, timed, (), "FAILED", cause)
    if request is not None:
        summary["operation"] = operation_summary(request, Result(cause, {}))
    etl.write_summary(arguments.job, summary)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the operation; return the exit code."""
    arguments = OperationArguments.from_argv(sys.argv[1:] if argv is None else argv)
    run_id = arguments.job.run_id
    etl.log_to_stdout(run_id)
    timed, request = Timings(dt.datetime.now(dt.UTC)), None
    try:
        request = Request.from_json(arguments.operation)
        with etl.storage(arguments.job.lakehouse_path).lease(run_id):
            summary = run(arguments, request, timed)
    except Exception as error:  # the job's boundary: every failure must reach the summary
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
    if EXIT_CODE:  # Glue treats any SystemExit as a failure, even 0
        sys.exit(EXIT_CODE)
