"""The console: parse and translate a statement, run it on the tables, keep it in the history."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from local.aws.crawler import hive_columns

from .functions import register
from .results import DAYS, MONTHS, VARCHAR, AthenaError, Result, Type, allow, from_arrow, refusal
from .translate import UNNAMED, Translator

DATABASE = "delta-lakehouse"
CATALOG = "awsdatacatalog"
READER_FEATURES = {"columnMapping", "timestampNtz", "deletionVectors"}  # supported besides reader 1
READ_ONLY = (
    "{} is not supported on a Delta Lake table: Athena only reads Delta tables. Change the data "
    "through the job instead, which keeps one writer on the tables: run the Glue job Lakehouse "
    "with its operation `sql` and this statement, or upload a corrected CSV to the raw zone"
)
TIME_TRAVEL = (
    "Athena has no time travel on Delta Lake tables (FOR {} AS OF works on Iceberg tables only). "
    "To see or restore an earlier state use the Glue job Lakehouse: its operation `sql` reads `table "
    "VERSION AS OF n`, `rollback` goes back to a run"
)
INFORMATION = ("tables", "schemata", "columns")
WRITES = "INSERT UPDATE DELETE MERGE TRUNCATE OPTIMIZE VACUUM ALTER DROP MSCK REPAIR".split()
REMARK = r"--[^\n]*\n|/\*.*?\*/"
# DuckDB's message -> Trino's error code, for queries that fail in both
COMPLAINTS = {
    "Division by zero": "DIVISION_BY_ZERO",
    "More than one row returned by a subquery": "SUBQUERY_MULTIPLE_ROWS",
    "Overflow in": "NUMERIC_VALUE_OUT_OF_RANGE",
}


@dataclass
class Athena:
    """Query Delta tables, given by name and location (a folder or `s3://…`), at their newest
    versions.

    `storage_options` go to `deltalake` (endpoint, region, keys). Each query adds a line to
    history.jsonl in the folder `history`, if given, and writes its result to <query id>.csv.
    """

    tables: Mapping[str, str]
    storage_options: Mapping[str, str] | None = None
    database: str = DATABASE
    history: Path | None = None
    _connection: duckdb.DuckDBPyConnection = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._connection = duckdb.connect()
        self._connection.execute(
            "SET TimeZone = 'UTC'; SET ieee_floating_point_ops = true; "
            "SET default_null_order = 'nulls_last'"
        )
        register(self._connection)

    def query(self, sql: str) -> Result:
        """Run one statement; raise AthenaError if it fails."""
        started, query_id = time.monotonic(), str(uuid.uuid4())
        outcome: Result | AthenaError
        try:
            outcome = replace(self._run(sql), query_id=query_id)
        except AthenaError as error:
            outcome = error
        seconds = round(time.monotonic() - started, 3)
        self._remember(query_id, sql, seconds, outcome)
        if isinstance(outcome, AthenaError):
            raise outcome
        return replace(outcome, seconds=seconds)

    def queries(self) -> list[dict[str, Any]]:
        """Return the lines of the history, oldest first."""
        log = self.history / "history.jsonl" if self.history else None
        lines = log.read_text("utf-8").splitlines() if log and log.exists() else []
        return [json.loads(line) for line in lines]

    def _remember(
        self, query_id: str, sql: str, seconds: float, outcome: Result | AthenaError
    ) -> None:
        if self.history is None:
            return
        self.history.mkdir(parents=True, exist_ok=True)
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"query_id": query_id, "submitted_at": now, "sql": sql}
        if isinstance(outcome, AthenaError):
            line |= {"state": "FAILED", "seconds": seconds, "error": str(outcome)}
        else:
            line |= {"state": "SUCCEEDED", "seconds": seconds, "rows": len(outcome.rows)}
            result = self.history / f"{query_id}.csv"
            result.write_text(outcome.csv(), "utf-8", newline="")
        with (self.history / "history.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def _run(self, sql: str) -> Result:
        text = sql.strip().rstrip(";").rstrip()
        verb = (re.sub(rf"(?s)^(\s|{REMARK}|\()+", "", text).split() or [""])[0].upper()
        if verb in WRITES:
            raise AthenaError("NOT_SUPPORTED", READ_ONLY.format(verb))
        if verb in ("SHOW", "DESCRIBE", "DESC"):
            return self._metadata(text.replace('"', "").replace("`", "").split())
        plain = re.sub(rf"(?s)'(?:''|[^'])*'|\"[^\"]*\"|{REMARK}", " ", text)
        if travel := re.search(r"(?i)\bFOR\s+(\w+)\s+AS\s+OF\b", plain):
            raise AthenaError("NOT_SUPPORTED", TIME_TRAVEL.format(travel[1].upper()))
        return self._select(text)

    def _select(self, sql: str) -> Result:
        data: dict[str, Any] = {}
        schema_of = partial(self._schema_of, data)
        translated, columns = Translator(sql, schema_of).translate()
        kinds = [kind for _, kind in columns]
        allow(DAYS not in kinds and MONTHS not in kinds, "An interval in the answer")
        cursor = self._connection.cursor()
        try:
            for name, table in data.items():
                cursor.register(name, self._with_path(name, table, translated))
            rows = cursor.execute(translated).fetchall()
        except duckdb.Error as error:
            raise explain(error) from error
        finally:
            cursor.close()
        times = [i for i, kind in enumerate(kinds) if kind.is_time]
        early = any(isinstance(row[i], str) for row in rows for i in times)
        allow(not early, "A date outside the years 1 to 9999")
        names = [
            f"_col{i}" if name.startswith(UNNAMED) else name for i, (name, _) in enumerate(columns)
        ]
        return Result(names, [str(kind) for kind in kinds], rows, kinds=kinds)

    def open(self, name: str) -> DeltaTable:
        """Return the newest version of a table that Athena can read."""
        location = self.tables[name]
        try:
            table = DeltaTable(location, storage_options=dict(self.storage_options or {}))
        except TableNotFoundError as error:
            message = f"Table '{CATALOG}.{self.database}.{name}' has no Delta log at {location} yet"
            raise AthenaError("TABLE_NOT_FOUND", f"{message}: no run has written it") from error
        except (DeltaError, OSError) as error:
            message = f"cannot read the Delta log at {location}: {error}"
            raise AthenaError("GENERIC_INTERNAL_ERROR", message) from error
        features = set(table.protocol().reader_features or []) - READER_FEATURES
        if features:
            message = f"{name} uses Delta features that Athena cannot read: "
            raise AthenaError("DELTA_LAKE_INVALID_TABLE", message + ", ".join(sorted(features)))
        return table

    def _find(self, parts: Sequence[str]) -> str:
        """Return the name of a table as spelled in `tables`."""
        database = parts[-2] if len(parts) > 1 else self.database
        if len(parts) > 2 and parts[0] != CATALOG:
            raise AthenaError("CATALOG_NOT_FOUND", f"Catalog '{parts[0]}' not found")
        if database not in (self.database, "information_schema"):
            raise AthenaError("SCHEMA_NOT_FOUND", f"Schema '{database}' does not exist")
        names = {name.lower(): name for name in self.tables}
        if parts[-1] not in names or database != self.database:
            message = f"Table '{CATALOG}.{database}.{parts[-1]}' does not exist"
            raise AthenaError("TABLE_NOT_FOUND", message)
        return names[parts[-1]]

    def _schema_of(self, data: dict[str, Any], parts: Sequence[str]) -> tuple[str, dict[str, Type]]:
        """Return DuckDB's name of a table and its columns; add the table to `data`."""
        if parts[-2:-1] == ["information_schema"] and parts[-1] in INFORMATION:
            name = f"information_schema_{parts[-1]}"
            data[name] = _information(self, parts[-1])
        else:
            name = self._find(parts)
            data[name] = self.open(name).to_pyarrow_dataset()
        columns = {f.name.lower(): from_arrow(f.type) for f in data[name].schema}
        return name, columns | {"$path": VARCHAR}

    def _with_path(self, name: str, data: Any, translated: str) -> Any:
        """Return a table with the file path of each row if the statement uses it."""
        if isinstance(data, pa.Table) or '"$path"' not in translated:
            return data
        table = data.scanner(columns=[*data.schema.names, "__filename"]).to_table()
        folder = self.tables[name].rstrip("/")
        paths = [f"{folder}/{path}" for path in table["__filename"].to_pylist()]
        return table.drop_columns("__filename").append_column("$path", pa.array(paths, pa.string()))

    def _metadata(self, words: list[str]) -> Result:
        """Answer SHOW and DESCRIBE as Athena does."""
        head = " ".join(words[:2]).upper()
        if words[0].upper() in ("DESCRIBE", "DESC") and len(words) > 1:
            return self._describe(words[-1])
        if head == "SHOW TABLES":
            return self._show_tables(words[2:])
        if head in ("SHOW DATABASES", "SHOW SCHEMAS"):
            return Result(["database_name"], ["string"], [(self.database,)])
        if head == "SHOW COLUMNS" and len(words) > 3:
            table = self.open(self._find(words[3].lower().split(".")))
            names = [column["Name"] for column in hive_columns(table.schema())]
            return Result(["field"], ["string"], [(name,) for name in names])
        if head == "SHOW CREATE" and len(words) > 3:
            name = self._find(words[3].lower().split("."))
            ddl = (
                f"CREATE EXTERNAL TABLE `{self.database}`.`{name}`\nLOCATION '{self.tables[name]}'"
            )
            lines = f"{ddl}\nTBLPROPERTIES ('table_type'='DELTA')".split("\n")
            return Result(["createtab_stmt"], ["string"], [(line,) for line in lines])
        supported = "SHOW TABLES, SHOW COLUMNS IN, SHOW CREATE TABLE and DESCRIBE <table> are"
        raise AthenaError("NOT_SUPPORTED", f"{head} is not supported on Delta tables; {supported}")

    def _show_tables(self, words: list[str]) -> Result:
        if words and words[0].upper() in ("IN", "FROM"):
            if words[1].lower() != self.database:
                raise AthenaError("SCHEMA_NOT_FOUND", f"Schema '{words[1]}' does not exist")
            words = words[2:]
        pattern = words[-1].strip("'").replace("*", ".*") if words else ".*"
        names = [name for name in sorted(self.tables) if re.fullmatch(pattern, name, re.I)]
        return Result(["tab_name"], ["string"], [(name,) for name in names])

    def _describe(self, name: str) -> Result:
        table = self.open(self._find(name.lower().split(".")))
        rows = [(c["Name"], c["Type"], "") for c in hive_columns(table.schema())]
        partitions = table.metadata().partition_columns
        if partitions:
            partition_rows = [row for row in rows if row[0] in partitions]
            rows += [("# Partition Information", "", ""), *partition_rows]
        return Result(["col_name", "data_type", "comment"], ["string"] * 3, rows)


def _columns(console: Athena) -> list[tuple[Any, ...]]:
    return [
        (CATALOG, console.database, name.lower(), column.name.lower(), at, None, "YES")
        + (str(from_arrow(column.type)),)
        for name in sorted(console.tables)
        for at, column in enumerate(console.open(name).to_pyarrow_dataset().schema, 1)
    ]


def _information(console: Athena, table: str) -> pa.Table:
    """Return a table of information_schema."""
    database = console.database
    names = {
        "tables": "table_catalog table_schema table_name table_type",
        "schemata": "catalog_name schema_name",
        "columns": "table_catalog table_schema table_name column_name ordinal_position "
        "column_default is_nullable data_type",
    }[table].split()
    tables = [(CATALOG, database, n.lower(), "BASE TABLE") for n in sorted(console.tables)]
    schemata = [(CATALOG, name) for name in (database, "information_schema")]
    rows: list[Any] = tables if table == "tables" else schemata
    rows = _columns(console) if table == "columns" else rows
    kinds = [pa.int64() if name == "ordinal_position" else pa.string() for name in names]
    arrays = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(kinds)]
    return pa.table(arrays, names)


def explain(error: duckdb.Error) -> AthenaError:
    """Return DuckDB's error as Athena's."""
    text = str(error)
    if match := re.search(r"(?:Invalid Input Error|ValueError): ([A-Z_]+): ([^\n]*)", text):
        return AthenaError(match[1], match[2])
    for complaint, code in COMPLAINTS.items():
        if complaint in text:
            return AthenaError(code, complaint)
    return refusal(f"This statement ({text.splitlines()[0]})")
