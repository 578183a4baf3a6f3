"""The console: a statement is read, compiled, run on the tables, and remembered."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from . import casts, syntax, values
from .compiler import Compiler, Output
from .errors import AthenaError, Refusal, not_here
from .results import Result, present
from .tree import Node
from .types import VARCHAR, Type, from_arrow, hive_type

DATABASE = "delta-lakehouse"
CATALOG = "awsdatacatalog"
READER_FEATURES = {
    "columnMapping",
    "timestampNtz",
    "deletionVectors",
}  # all that Athena's engine 3 reads, and reader 1

READ_ONLY = (
    "{verb} is not supported on a Delta Lake table: Athena only reads Delta tables. Change the "
    "data through the job "
    "instead, which keeps one writer on the tables: run the Glue job Lakehouse with its operation "
    "`sql` and "
    "this statement, or upload a corrected CSV to the raw zone"
)
TIME_TRAVEL = (
    "Athena has no time travel on Delta Lake tables (FOR {kind} AS OF works on Iceberg tables "
    "only). To see or "
    "restore an earlier state use the Glue job Lakehouse: its operation `sql` reads `table VERSION "
    "AS OF n`, "
    "`rollback` goes back to a run"
)
NOT_HERE = (
    "{verb} is not part of this local console, which runs SELECT, SHOW, DESCRIBE and prepared "
    "statements. "
    "On AWS, Athena runs it"
)
WRITES = {
    "INSERT",
    "UPDATE",
    "DELETE",
    "MERGE",
    "TRUNCATE",
    "OPTIMIZE",
    "VACUUM",
    "ALTER",
    "DROP",
    "MSCK",
    "REPAIR",
}
LATER = {
    "CREATE",
    "UNLOAD",
    "EXPLAIN",
    "SET",
    "USE",
    "GRANT",
    "REVOKE",
}


@dataclass
class Athena:
    """Queries on Delta tables given by name and location (a folder or `s3://…`). Each query sees
    the newest version.

    `storage_options` go to `deltalake` (endpoint, region, keys). With `history`, a folder, each
    query leaves a line in history.jsonl and its result as <query id>.csv there.
    """

    tables: Mapping[str, str]
    storage_options: Mapping[str, str] | None = None
    database: str = DATABASE
    history: Path | None = None
    _prepared: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _connection: duckdb.DuckDBPyConnection = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._connection = duckdb.connect()
        self._connection.execute(
            "SET TimeZone = 'UTC'; SET ieee_floating_point_ops = true; SET default_null_order = "
            "'nulls_last'"
        )
        values.register(self._connection)

    def query(self, sql: str, parameters: Sequence[str] = ()) -> Result:
        """Run one statement, with the text of a value for each `?` (the API's ExecutionParameters).
        Raises AthenaError where Athena would refuse it or fail."""
        started, query_id = time.monotonic(), str(uuid.uuid4())
        try:
            result = self._run(sql, parameters)
        except AthenaError as error:
            self._remember(query_id, sql, time.monotonic() - started, error=str(error))
            raise
        seconds = time.monotonic() - started
        result = replace(result, query_id=query_id, seconds=round(seconds, 3))
        self._remember(query_id, sql, seconds, result=result)
        return result

    def queries(self) -> list[dict[str, Any]]:
        """The history, oldest first: query_id, submitted_at, sql, state, seconds, rows or error."""
        log = self.history / "history.jsonl" if self.history else None
        return (
            [json.loads(line) for line in log.read_text("utf-8").splitlines()]
            if log and log.exists()
            else []
        )

    def _remember(
        self,
        query_id: str,
        sql: str,
        seconds: float,
        result: Result | None = None,
        error: str | None = None,
    ) -> None:
        if self.history is None:
            return
        self.history.mkdir(parents=True, exist_ok=True)
        line: dict[str, Any] = {
            "query_id": query_id,
            "submitted_at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            "sql": sql,
            "state": "FAILED" if error else "SUCCEEDED",
            "seconds": round(seconds, 3),
        }
        line |= {"error": error} if result is None else {"rows": len(result.rows)}
        with (self.history / "history.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        if result is not None:
            (self.history / f"{query_id}.csv").write_text(result.csv(), "utf-8", newline="")

    def _run(self, sql: str, parameters: Sequence[str]) -> Result:
        text = sql.strip().rstrip(";").rstrip()
        verb = (
            re.sub(r"^(\s|--[^\n]*\n|/\*.*?\*/|\()+", "", text, flags=re.S)
            .partition(" ")[0]
            .split("\n")[0]
            .upper()
        )
        if verb in ("SHOW", "DESCRIBE", "DESC"):
            return self._metadata(text)
        if verb in WRITES:
            raise AthenaError("NOT_SUPPORTED", READ_ONLY.format(verb=verb))
        if verb in LATER:
            raise AthenaError("NOT_SUPPORTED", NOT_HERE.format(verb=verb))
        if verb in ("PREPARE", "EXECUTE", "DEALLOCATE"):
            return self._prepare(verb, text)
        try:
            return self._select(text, [syntax.parse_value(value) for value in parameters])
        except Refusal as refusal:
            raise refusal.in_statement(" ".join(parameters)) from refusal

    def _prepare(self, verb: str, text: str) -> Result:
        """PREPARE name FROM query, EXECUTE name USING values, DEALLOCATE PREPARE name."""
        if verb == "EXECUTE":
            try:
                name, values = syntax.parse_execute(text)
            except Refusal as refusal:
                raise refusal.in_statement(text) from refusal
            return self._select(self._prepared_sql(name), values)
        found = re.fullmatch(
            r"(?is)PREPARE\s+(\w+)\s+FROM\s+(.*)|DEALLOCATE\s+PREPARE\s+(\w+)", text
        )
        if found is None:
            raise AthenaError("SYNTAX_ERROR", f"mismatched input '{text.split()[-1]}'", 1, 1)
        if found[3]:
            self._prepared_sql(found[3])
            del self._prepared[found[3].lower()]
        else:
            self._prepared[found[1].lower()] = found[2]
        return Result([], [], [])

    def _prepared_sql(self, name: str) -> str:
        if name.lower() not in self._prepared:
            raise AthenaError("NOT_FOUND", f"Prepared statement not found: {name}")
        return self._prepared[name.lower()]

    def _select(self, sql: str, parameters: Sequence[Node] = ()) -> Result:
        session = Session(self)
        try:
            tree = syntax.parse(sql, parameters)
            translated, columns = Compiler(session.schema_of).compile(tree)
            refuse_mixed_zones([column.type for column in columns])
        except Refusal as refusal:
            raise self._refused(refusal, sql) from refusal
        cursor = self._connection.cursor()
        try:
            for name, data in session.data(translated).items():
                cursor.register(name, data)
            cursor.execute(shown(translated, columns))
            rows = cursor.fetchall()
        except duckdb.Error as error:
            raise explain(error, sql) from error
        finally:
            cursor.close()
        kinds = [column.type for column in columns]
        names = [shown_name(column, i) for i, column in enumerate(columns)]
        found = [tuple(present(v, k) for v, k in zip(row, kinds, strict=False)) for row in rows]
        return Result(names, [str(kind) for kind in kinds], found, kinds=kinds)

    def _refused(self, refusal: Refusal, sql: str) -> AthenaError:
        if refusal.code == "TIME_TRAVEL":
            kind = TIME_TRAVEL.format(kind=refusal.message)
            refusal = Refusal("NOT_SUPPORTED", kind, refusal.offset)
        return refusal.in_statement(sql)

    def open(self, name: str) -> DeltaTable:
        """The newest version of a table; refused where its protocol is above what Athena reads."""
        try:
            table = DeltaTable(self.tables[name], storage_options=dict(self.storage_options or {}))
        except TableNotFoundError as error:
            raise AthenaError(
                "TABLE_NOT_FOUND",
                f"Table '{CATALOG}.{self.database}.{name}' has no Delta log at {self.tables[name]} "
                "yet: "
                "no run has written it",
            ) from error
        except (DeltaError, OSError) as error:
            raise AthenaError(
                "GENERIC_INTERNAL_ERROR",
                f"cannot read the Delta log at {self.tables[name]}: {error}",
            ) from error
        features = set(table.protocol().reader_features or []) - READER_FEATURES
        if features:
            raise AthenaError(
                "DELTA_LAKE_INVALID_TABLE",
                f"{name} uses Delta features that Athena cannot read: "
                f"{', '.join(sorted(features))}",
            )
        return table

    def _metadata(self, text: str) -> Result:
        words = text.replace('"', "").replace("`", "").split()
        head = " ".join(words[:2]).upper()
        if words[0].upper() in ("DESCRIBE", "DESC") and len(words) > 1:
            return self._describe(
                [w for w in words[1:] if w.upper() not in ("FORMATTED", "EXTENDED")][-1]
            )
        if head == "SHOW TABLES":
            return self._show_tables(words[2:])
        if head in ("SHOW DATABASES", "SHOW SCHEMAS"):
            return Result(["database_name"], ["string"], [(self.database,)])
        if head == "SHOW COLUMNS" and len(words) > 3:
            return Result(["field"], ["string"], [(f.name,) for f in self._schema(words[3])[1]])
        if " ".join(words[:3]).upper() == "SHOW CREATE TABLE" and len(words) > 3:
            name, _ = self._schema(words[3])
            ddl = (
                f"CREATE EXTERNAL TABLE `{self.database}`.`{name}`\nLOCATION '{self.tables[name]}'"
            )
            ddl += "\nTBLPROPERTIES ('table_type'='DELTA')"
            return Result(["createtab_stmt"], ["string"], [(line,) for line in ddl.split("\n")])
        raise AthenaError(
            "NOT_SUPPORTED",
            f"{head} is not supported on Delta Lake tables here; "
            "try SHOW TABLES, SHOW COLUMNS IN <table>, SHOW CREATE TABLE <table> or DESCRIBE "
            "<table>",
        )

    def _show_tables(self, words: Sequence[str]) -> Result:
        rest = list(words)
        if rest and rest[0].upper() in ("IN", "FROM"):
            if rest[1].lower() != self.database:
                raise AthenaError("SCHEMA_NOT_FOUND", f"Schema '{rest[1]}' does not exist")
            rest = rest[2:]
        pattern = rest[-1].strip("'").replace("*", ".*") if rest else ".*"
        return Result(
            ["tab_name"],
            ["string"],
            [(n,) for n in sorted(self.tables) if re.fullmatch(pattern, n, re.I)],
        )

    def _schema(self, name: str) -> tuple[str, pa.Schema]:
        *database, table = name.lower().split(".")
        names = {n.lower(): n for n in self.tables}
        if table not in names or (database and database[-1] != self.database):
            raise AthenaError(
                "TABLE_NOT_FOUND",
                f"Table '{CATALOG}.{'.'.join(database) or self.database}.{table}' does not exist",
            )
        return names[table], self.open(names[table]).to_pyarrow_dataset().schema

    def _describe(self, name: str) -> Result:
        table, schema = self._schema(name)
        kinds = {f.name: hive_type(from_arrow(f.type)) for f in schema}
        partitions = self.open(table).metadata().partition_columns
        rows: list[tuple[str, str, str]] = [(n, kind, "") for n, kind in kinds.items()]
        if partitions:
            rows += [("# Partition Information", "", ""), *((p, kinds[p], "") for p in partitions)]
        return Result(["col_name", "data_type", "comment"], ["string"] * 3, rows)


@dataclass
class Session:
    """The tables of one statement: their schemas while it is compiled, their data when it runs."""

    console: Athena
    datasets: dict[str, Any] = field(default_factory=dict)

    def schema_of(
        self, parts: list[str], at: int
    ) -> tuple[str, tuple[str, ...], list[tuple[str, Type]]]:
        """DuckDB's name of a table, its qualifier, its columns."""
        console, table = self.console, parts[-1]
        database = parts[-2] if len(parts) > 1 else console.database
        if len(parts) > 2 and parts[0] != CATALOG:
            raise Refusal("CATALOG_NOT_FOUND", f"Catalog '{parts[0]}' not found", at)
        if database == "information_schema":
            return self._information(table, at)
        if database != console.database:
            raise Refusal("SCHEMA_NOT_FOUND", f"Schema '{database}' does not exist", at)
        name = {n.lower(): n for n in console.tables}.get(table)
        if name is None:
            message = f"Table '{CATALOG}.{database}.{table}' does not exist"
            raise Refusal("TABLE_NOT_FOUND", message, at)
        if name not in self.datasets:
            self.datasets[name] = console.open(name).to_pyarrow_dataset()
        columns = [(f.name.lower(), from_arrow(f.type)) for f in self.datasets[name].schema]
        return name, (CATALOG, database, table), [*columns, ("$path", VARCHAR)]

    def _information(
        self, table: str, at: int
    ) -> tuple[str, tuple[str, ...], list[tuple[str, Type]]]:
        if table not in INFORMATION:
            raise Refusal(
                "TABLE_NOT_FOUND", f"Table 'information_schema.{table}' does not exist", at
            )
        data = INFORMATION[table](self.console)
        name = f"information_schema_{table}"
        self.datasets[name] = data
        columns = [(f.name, from_arrow(f.type)) for f in data.schema]
        return name, (CATALOG, "information_schema", table), columns

    def data(self, translated: str) -> dict[str, Any]:
        """The tables by DuckDB's name; with the path of each row's file where the statement asks
        for it."""
        if '."$path"' not in translated:
            return self.datasets
        return {name: self._with_path(name, data) for name, data in self.datasets.items()}

    def _with_path(self, name: str, data: Any) -> Any:
        if isinstance(data, pa.Table):
            return data
        found = data.scanner(columns=[*data.schema.names, "__filename"]).to_table()
        folder = self.console.tables[name].rstrip("/")
        paths = [f"{folder}/{path}" for path in found["__filename"].to_pylist()]
        return found.drop_columns("__filename").append_column("$path", pa.array(paths, pa.string()))


def _tables(console: Athena) -> pa.Table:
    names = sorted(n.lower() for n in console.tables)
    rows = [(CATALOG, console.database, name, "BASE TABLE") for name in names]
    return _table("table_catalog table_schema table_name table_type", rows)


def _schemata(console: Athena) -> pa.Table:
    rows = [(CATALOG, name) for name in (console.database, "information_schema")]
    return _table("catalog_name schema_name", rows)


def _columns(console: Athena) -> pa.Table:
    rows = []
    for name in sorted(console.tables):
        schema = console.open(name).to_pyarrow_dataset().schema
        for at, column in enumerate(schema, 1):
            where = (CATALOG, console.database, name.lower(), column.name.lower())
            rows.append((*where, at, None, "YES", str(from_arrow(column.type))))
    names = "table_catalog table_schema table_name column_name ordinal_position column_default "
    return _table(names + "is_nullable data_type", rows)


def _table(names: str, rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    return pa.table(
        {
            name: pa.array(
                [row[i] for row in rows], pa.int64() if name == "ordinal_position" else pa.string()
            )
            for i, name in enumerate(names.split())
        }
    )


INFORMATION = {"tables": _tables, "schemata": _schemata, "columns": _columns}


def shown_name(column: Output, at: int) -> str:
    """The name as it was written; `_col<n>` where there is none."""
    return getattr(column.name, "shown", column.name) or f"_col{at}"


def refuse_mixed_zones(kinds: Sequence[Type]) -> None:
    for kind in kinds:
        if not kind.zone:
            raise not_here("A value whose time zone differs from row to row")
        refuse_mixed_zones(kind.parts)


def shown(sql: str, columns: Sequence[Output]) -> str:
    """The query with intervals as text: DuckDB's own text differs, and Python's timedelta has no
    months."""
    if not any(column.type.name.startswith("interval") for column in columns):
        return sql
    items = (
        casts.as_text(casts.Typed(f"i.c{i}", c.type))
        if c.type.name.startswith("interval")
        else f"i.c{i}"
        for i, c in enumerate(columns)
    )
    return f"SELECT {', '.join(items)} FROM ({sql}) AS i"


def explain(error: duckdb.Error, sql: str) -> AthenaError:
    """DuckDB's complaint in Athena's words."""
    text = str(error)
    if found := re.search(r"ValueError: ([A-Z_]+): (.*)", text):
        return AthenaError(found[1], found[2])
    if found := re.search(r'column "?([^" ]+)"? must appear in the GROUP BY', text):
        name = found[1].rpartition(".")[2]
        message = f"'{name}' must be an aggregate expression or appear in GROUP BY clause"
        place = re.search(rf"\b{re.escape(name)}\b", sql, re.I)
        return Refusal(
            "EXPRESSION_NOT_AGGREGATE", message, place.start() if place else 0
        ).in_statement(sql)
    for pattern, code, message in COMPLAINTS:
        if re.search(pattern, text):
            return AthenaError(code, message or text.partition(": ")[2].split("\n")[0])
    if isinstance(error, duckdb.ProgrammingError | duckdb.NotSupportedError):
        limit = not_here(f"This statement ({text.splitlines()[0]})")
        return limit.in_statement(sql)
    return AthenaError("GENERIC_INTERNAL_ERROR", text.split("\n")[0])


COMPLAINTS = (
    ("ivision by zero", "DIVISION_BY_ZERO", "Division by zero"),
    ("Map keys must be unique", "INVALID_FUNCTION_ARGUMENT", "Duplicate map keys are not allowed"),
    (
        "[Mm]ore than one row returned",
        "SUBQUERY_MULTIPLE_ROWS",
        "Scalar sub-query has returned multiple rows",
    ),
    ("must not end with escape character", "INVALID_FUNCTION_ARGUMENT", ""),
    ("Invalid input for hex digit|Invalid UTF8 Codepoint", "INVALID_FUNCTION_ARGUMENT", ""),
    ("Out of Range Error|out of range|[Oo]verflow", "NUMERIC_VALUE_OUT_OF_RANGE", ""),
    ("SELECT DISTINCT, ORDER BY", "EXPRESSION_NOT_IN_DISTINCT", ""),
)
