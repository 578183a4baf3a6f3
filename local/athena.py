"""Athena on one machine: its SQL dialect, its answers and its refusals, on the Delta tables as they lie in storage.

`deltalake` reads the Delta log, so this is a second reader, independent of Spark. `sqlglot` turns Athena's dialect into
DuckDB's, with the types of the columns known, so that `7 / 2` is 3 and `date = '2025-04-01'` is refused as Athena
refuses it.

Two estimates are exact here: `approx_distinct` counts, and `approx_percentile` returns the smallest value of the
data at or above the percentile (as Spark's `percentile_approx` does on small tables). Athena may differ from both by a
few per cent.
"""

from __future__ import annotations

import argparse
import datetime as dt
import decimal
import io
import json
import logging
import os
import re
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import duckdb
import pyarrow as pa
import sqlglot
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError, TokenError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.tokens import TokenType

DATABASE = "delta-lakehouse"
CATALOG = "awsdatacatalog"
READER_FEATURES = {
    "columnMapping",
    "timestampNtz",
    "deletionVectors",
}  # all that Athena's engine 3 reads, and reader 1

# Trino's functions (its documentation, without geometry, sketches and machine learning): Athena refuses others
FUNCTIONS = frozenset(
    """
abs acos all_match any_match any_value approx_distinct approx_most_frequent approx_percentile arbitrary array
array_agg array_distinct array_except array_intersect array_join array_max array_min array_position array_remove
array_sort array_union arrays_overlap asin at_timezone atan atan2 avg bit_count bitwise_and bitwise_and_agg
bitwise_left_shift bitwise_not bitwise_or bitwise_or_agg bitwise_right_shift bitwise_xor bool_and bool_or cardinality
cast cbrt ceil ceiling checksum chr coalesce codepoint combinations concat concat_ws contains contains_sequence corr
cos cosh cosine_similarity count count_if covar_pop covar_samp crc32 cube cume_dist current_date current_time
current_timestamp current_timezone current_user date date_add date_diff date_format date_parse date_trunc day
day_of_month day_of_week day_of_year degrees dense_rank dow doy e element_at every exists exp extract filter
first_value flatten floor format format_datetime format_number from_base from_base64 from_hex from_iso8601_date
from_iso8601_timestamp from_unixtime from_utf8 geometric_mean greatest grouping hamming_distance histogram hmac_sha256
hour human_readable_seconds if infinity is_finite is_infinite is_json_scalar is_nan json json_array
json_array_contains json_array_get json_array_length json_exists json_extract json_extract_scalar json_format
json_object json_parse json_query json_size json_value kurtosis lag last_day_of_month last_value lead least length
levenshtein_distance listagg ln localtime localtimestamp log log10 log2 lower lpad ltrim luhn_check map map_agg
map_concat map_entries map_filter map_from_entries map_keys map_union map_values map_zip_with max max_by md5
millisecond min min_by minute mod month multimap_agg murmur3 nan ngrams none_match normal_cdf normalize now nth_value
ntile nullif numeric_histogram parse_datetime parse_duration percent_rank pi position pow power quarter radians rand
random rank reduce reduce_agg regexp_count regexp_extract regexp_extract_all regexp_like regexp_position
regexp_replace regexp_split regr_intercept regr_slope repeat replace reverse rollup round row row_number rpad rtrim
second sequence sha1 sha256 sha512 shuffle sign sin sinh skewness slice soundex split split_part split_to_map sqrt
starts_with stddev stddev_pop stddev_samp strpos substr substring sum tan tanh timezone_hour timezone_minute to_base
to_base64 to_char to_date to_hex to_iso8601 to_milliseconds to_timestamp to_unixtime to_utf8 transform transform_keys
transform_values translate trim trim_array truncate try try_cast typeof unnest upper url_decode url_encode
url_extract_host url_extract_path uuid values var_pop var_samp variance version week week_of_year width_bucket
with_timezone word_stem xxhash64 year year_of_week yow zip zip_with
""".split()
)

# Trino's functions that DuckDB knows under no name, or under another one
MACROS = """
every(x) AS bool_and(x); geometric_mean(x) AS exp(avg(ln(x))); map_agg(k, v) AS map_from_entries(list((k, v)));
array_max(x) AS list_max(x); array_min(x) AS list_min(x); codepoint(x) AS unicode(x); year_of_week(x) AS isoyear(x);
yow(x) AS isoyear(x); is_nan(x) AS isnan(x); is_finite(x) AS isfinite(x); is_infinite(x) AS isinf(x);
nan() AS 'nan'::DOUBLE; infinity() AS 'inf'::DOUBLE; e() AS exp(1.0::DOUBLE); rand() AS random();
from_iso8601_date(x) AS cast(x AS DATE); day_of_month(x) AS day(x); current_timezone() AS 'UTC';
json_array_get(j, i) AS json_extract(j, '$[' || i || ']');
to_iso8601(x) AS CASE typeof(x) WHEN 'DATE' THEN strftime(x, '%Y-%m-%d') ELSE strftime(x, '%Y-%m-%dT%H:%M:%S.%gZ') END
"""

READ_ONLY = (
    "{verb} is not supported on a Delta Lake table: Athena only reads Delta tables. Change the data through the job "
    "instead, which keeps one writer on the tables: run the Glue job Lakehouse with its operation `sql` and "
    "this statement, or upload a corrected CSV to the raw zone"
)
TIME_TRAVEL = (
    "Athena has no time travel on Delta Lake tables (FOR {kind} AS OF works on Iceberg tables only). To see or "
    "restore an earlier state use the Glue job Lakehouse: its operation `sql` reads `table VERSION AS OF n`, "
    "`rollback` goes back to a run"
)
NOT_HERE = "{verb} is not part of this local console, which runs SELECT, SHOW and DESCRIBE. On AWS, Athena runs it"
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
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "EXPLAIN",
    "SET",
    "USE",
    "GRANT",
    "REVOKE",
}


class AthenaError(Exception):
    """A query that Athena would refuse, or fail. `code` is Athena's name of the error, `line` and `column` count
    from 1."""

    def __init__(
        self, code: str, message: str, line: int | None = None, column: int | None = None
    ) -> None:
        self.code, self.line, self.column = code, line, column
        where = f"line {line}:{column}: " if line else ""
        super().__init__(f"{code}: {where}{message}")


@dataclass(frozen=True)
class Result:
    """What a query returned: names, Athena's type names, and rows of Python values (timestamps carry UTC)."""

    names: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]
    query_id: str = ""
    seconds: float = 0.0

    def text_rows(self) -> list[list[str | None]]:
        """The rows as Athena writes them; NULL stays None."""
        return [[as_text(value) for value in row] for row in self.rows]

    def csv(self) -> str:
        """The text of the result file, with Athena's line ends."""
        stream = io.StringIO(newline="")
        for row in [list(self.names), *self.text_rows()]:
            stream.write(
                ",".join("" if v is None else '"' + v.replace('"', '""') + '"' for v in row) + "\n"
            )
        return stream.getvalue()

    def table(self) -> str:
        """The rows as a table for a terminal, numbers to the right, NULL as an empty cell."""
        cells = [[(v or "").replace("\n", "⏎") for v in row] for row in self.text_rows()]
        widths = [max(map(len, column)) for column in zip(self.names, *cells)]
        right = [
            re.match("bigint|integer|double|decimal|real", kind) is not None for kind in self.types
        ]

        def line(row: Sequence[str]) -> str:
            return "  ".join(
                v.rjust(w) if r else v.ljust(w) for v, w, r in zip(row, widths, right)
            ).rstrip()

        rule = "  ".join("-" * w for w in widths)
        return "\n".join(
            [
                line(self.names),
                rule,
                *map(line, cells),
                f"({len(cells)} rows, {self.seconds:.2f} s)",
            ]
        )

    def result_set(self) -> dict[str, Any]:
        """The `ResultSet` of GetQueryResults: all values as text, the first row holds the names."""

        def row(values: Iterable[str | None]) -> dict[str, Any]:
            return {"Data": [{} if v is None else {"VarCharValue": v} for v in values]}

        info = [
            {"Name": n, "Label": n, "Type": t.split("(")[0]} for n, t in zip(self.names, self.types)
        ]
        return {
            "Rows": [row(self.names), *map(row, self.text_rows())],
            "ResultSetMetadata": {"ColumnInfo": info},
        }


# ---------------------------------------------------------------------------------------------------------------------
# Values and types as Athena writes them
# ---------------------------------------------------------------------------------------------------------------------
def as_text(value: Any) -> str | None:
    """One value in Athena's text: `2025-04-01 10:00:00.000 UTC`, `260.0`, `[a, b]`, `{k=v}`."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _double(value)
    if isinstance(value, dt.datetime):
        text = value.strftime("%Y-%m-%d %H:%M:%S.") + f"{value.microsecond // 1000:03d}"
        return text.rjust(23, "0") + (" UTC" if value.tzinfo else "")
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex(" ")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_text(k)}={_inner(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_inner(v) for v in value) + "]"
    return format(value, "f") if isinstance(value, decimal.Decimal) else str(value)


def _inner(value: Any) -> str:
    return "null" if value is None else str(as_text(value))


def _double(value: float) -> str:
    """A double as Java prints it: 260.0, 1.0E7, NaN, Infinity."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        text = format(decimal.Decimal(repr(value)), "f")
        return text if "." in text else text + ".0"
    sign, digits, exponent = decimal.Decimal(repr(value)).normalize().as_tuple()
    head, tail = str(digits[0]), "".join(map(str, digits[1:])) or "0"
    return f"{'-' * sign}{head}.{tail}E{int(exponent) + len(digits) - 1}"


def athena_type(name: str) -> str:
    """DuckDB's type name in Athena's words, nested types included."""
    name = name.strip()
    if name.endswith("[]"):
        return f"array({athena_type(name[:-2])})"
    if name.startswith("MAP("):
        key, value = _split_types(name[4:-1])
        return f"map({athena_type(key)}, {athena_type(value)})"
    if name.startswith("STRUCT("):
        return "row(" + ", ".join(_field(part) for part in _split_types(name[7:-1])) + ")"
    plain = {
        "HUGEINT": "bigint",
        "UBIGINT": "bigint",
        "UHUGEINT": "bigint",
        "UINTEGER": "bigint",
        "FLOAT": "real",
        "BLOB": "varbinary",
        "TIMESTAMP WITH TIME ZONE": "timestamp(3) with time zone",
        "TIMESTAMP": "timestamp(3)",
        '"NULL"': "unknown",
        "TIMESTAMP_S": "timestamp(3)",
        "TIMESTAMP_MS": "timestamp(3)",
        "TIMESTAMP_NS": "timestamp(3)",
    }
    return plain.get(name, name.lower())


def _field(text: str) -> str:
    name, _, kind = text.strip().partition(" ")
    return f"{name} {athena_type(kind)}" if kind else athena_type(name)


def _split_types(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def trino_type(kind: pa.DataType) -> str:
    """An Arrow type of a Delta column in Trino's words, for sqlglot's typing."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"array({trino_type(kind.value_type)})"
    if pa.types.is_map(kind):
        return f"map({trino_type(kind.key_type)}, {trino_type(kind.item_type)})"
    if pa.types.is_struct(kind):
        return "row(" + ", ".join(f'"{f.name}" {trino_type(f.type)}' for f in kind) + ")"
    if pa.types.is_timestamp(kind):
        return "timestamp with time zone" if kind.tz else "timestamp"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision}, {kind.scale})"
    names = {
        "string": "varchar",
        "large_string": "varchar",
        "string_view": "varchar",
        "int64": "bigint",
        "int32": "integer",
        "int16": "smallint",
        "int8": "tinyint",
        "bool": "boolean",
        "float": "real",
        "date32[day]": "date",
    }
    return names.get(str(kind), str(kind))


def hive_type(trino: str) -> str:
    """The type as DESCRIBE and the Glue catalog write it: string, timestamp, array<string>."""
    text = (
        trino.replace("timestamp with time zone", "timestamp")
        .replace("varchar", "string")
        .replace("integer", "int")
    )
    text = re.sub(r"\b(array|map)\(", r"\1<", text).replace(", ", ",")
    return re.sub(r"\)(?=[,)>]|$)", ">", text) if "<" in text else text


# ---------------------------------------------------------------------------------------------------------------------
# From Athena's dialect to DuckDB's
# ---------------------------------------------------------------------------------------------------------------------
class Query:
    """One SELECT: parsed, typed by the tables' schemas, and refused where Athena would refuse it."""

    def __init__(self, sql: str, tree: exp.Expression, known: Iterable[str], database: str) -> None:
        self.sql, self.tree, self.known, self.database = (
            sql,
            tree,
            {k.lower(): k for k in known},
            database,
        )
        self.ctes = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
        self._check_functions()
        self.tables = self._resolve_tables()

    def fail(self, code: str, message: str, node: exp.Expression | None = None) -> NoReturn:
        """Refuse the query, pointing at the place where the node begins."""
        raise AthenaError(code, message, *self.place(node))

    def place(self, node: exp.Expression | None) -> tuple[int, int]:
        """Line and column of the first known token in the node, from 1; the start of the query where none is known."""
        starts = [n.meta["start"] for n in (node.walk() if node else ()) if "start" in n.meta]
        before = self.sql[: min(starts)] if starts else ""
        return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1

    def column(self, name: str) -> exp.Expression | None:
        """The first place that names the column."""
        return next(
            (c for c in self.tree.find_all(exp.Column) if c.name.lower() == name.lower()), None
        )

    def _check_functions(self) -> None:
        tokens = sqlglot.tokenize(self.sql, read="athena")
        for last, token, following in zip([None, *tokens], tokens, tokens[1:]):
            called = token.token_type == TokenType.VAR and following.token_type == TokenType.L_PAREN
            alias = last is not None and last.token_type in (
                TokenType.ALIAS,
                TokenType.VAR,
                TokenType.R_PAREN,
                TokenType.IDENTIFIER,
            )
            name = token.text.lower()
            if called and not alias and name not in FUNCTIONS | self.ctes:
                before = self.sql[: token.start]
                raise AthenaError(
                    "FUNCTION_NOT_FOUND",
                    f"Function '{name}' not registered",
                    before.count("\n") + 1,
                    len(before) - before.rfind("\n"),
                )

    def _resolve_tables(self) -> set[str]:
        found = set()
        for table in self.tree.find_all(exp.Table):
            version = table.args.get("version")
            if version:
                self.fail(
                    "NOT_SUPPORTED", TIME_TRAVEL.format(kind=str(version.this).upper()), table
                )
            if (
                not table.db
                and table.name.lower() in self.ctes
                or not isinstance(table.this, exp.Identifier)
            ):
                continue
            self._check_database(table)
            name = self.known.get(table.name.lower())
            if name is None:
                self.fail(
                    "TABLE_NOT_FOUND",
                    f"Table '{CATALOG}.{table.db or self.database}.{table.name}' does not exist",
                    table,
                )
            found.add(name)
            table.set("catalog", None)
            table.set("db", None)
        return found

    def _check_database(self, table: exp.Table) -> None:
        if table.catalog and table.catalog.lower() != CATALOG:
            self.fail("CATALOG_NOT_FOUND", f"Catalog '{table.catalog}' not found", table)
        if table.db and table.db.lower() != self.database:
            self.fail("SCHEMA_NOT_FOUND", f"Schema '{table.db}' does not exist", table)

    def translate(self, schemas: Mapping[str, Mapping[str, str]]) -> str:
        """The query in DuckDB's SQL; `schemas` gives each table's columns with their Trino types."""
        for select in self.tree.find_all(exp.Select):
            _name_columns(select)
        try:
            tree = qualify(
                self.tree,
                schema=schemas,
                dialect="athena",
                expand_alias_refs=False,
                validate_qualify_columns=False,
                quote_identifiers=False,
            )
            tree = annotate_types(tree, schema=schemas, dialect="athena")
        except SqlglotError as error:
            found = re.search(r"Unknown column: (\S+)|Column '\"?([^'\"]+)\"?'", str(error))
            if found:
                self.fail(
                    "COLUMN_NOT_FOUND",
                    f"Column '{found[1] or found[2]}' cannot be resolved",
                    self.column(found[1] or found[2]),
                )
            self.fail("SYNTAX_ERROR", str(error).splitlines()[0])
        self.tree = tree
        self._refuse_alias_references()
        self._refuse_mixed_comparisons()
        return tree.transform(_to_duckdb).sql(
            dialect="duckdb", unsupported_level=sqlglot.ErrorLevel.IGNORE
        )

    def _refuse_alias_references(self) -> None:
        """Trino knows a column's alias in ORDER BY only; DuckDB would take it everywhere."""
        for select in self.tree.find_all(exp.Select):
            aliases = {e.alias.lower() for e in select.expressions if isinstance(e, exp.Alias)}
            parts = [
                *select.expressions,
                *(select.args.get(k) for k in ("where", "group", "having")),
            ]
            for column in (c for part in parts if part for c in part.find_all(exp.Column)):
                inner = column.parent_select is select and not column.find_ancestor(exp.Lambda)
                if inner and not column.table and column.name.lower() in aliases:
                    self.fail(
                        "COLUMN_NOT_FOUND", f"Column '{column.name}' cannot be resolved", column
                    )

    def _refuse_mixed_comparisons(self) -> None:
        """`date = '2025-04-01'`: Trino compares no text with a date, a number or a boolean."""
        for node in self.tree.find_all(
            exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Between, exp.In
        ):
            others = [
                node.args.get("expression"),
                node.args.get("low"),
                node.args.get("high"),
                *node.expressions,
            ]
            for other in filter(None, others):
                left, right = _family(node.this), _family(other)
                if left and right and left != right and "varchar" in (left, right):
                    operator = {
                        exp.EQ: "=",
                        exp.NEQ: "<>",
                        exp.GT: ">",
                        exp.GTE: ">=",
                        exp.LT: "<",
                        exp.LTE: "<=",
                    }.get(type(node), "IN")
                    self.fail(
                        "TYPE_MISMATCH",
                        f"Cannot apply operator: {left} {operator} {right}; write the value as the column's type, "
                        "for example DATE '2025-04-01', or cast it",
                        node,
                    )


CAST_TYPES = {"INT64": "bigint", "INT32": "integer", "INT16": "smallint", "INT8": "tinyint"}
FAMILIES = {
    "varchar": exp.DataType.TEXT_TYPES,
    "number": exp.DataType.NUMERIC_TYPES,
    "boolean": {exp.DataType.Type.BOOLEAN},
    "date": {exp.DataType.Type.DATE},
    "timestamp": exp.DataType.TEMPORAL_TYPES - {exp.DataType.Type.DATE},
}


def _family(node: exp.Expression) -> str | None:
    kind = node.type.this if node.type else None
    return next((name for name, types in FAMILIES.items() if kind in types), None)


def _name_columns(select: exp.Select) -> None:
    """Athena calls the n-th column without a name `_col<n>`."""
    for i, item in enumerate(select.expressions):
        if (
            not isinstance(item, (exp.Column, exp.Alias, exp.Star, exp.Aliases))
            and not item.is_star
        ):
            name = item.name if isinstance(item, exp.Dot) else f"_col{i}"
            select.expressions[i].replace(exp.alias_(item.copy(), name))


def _to_duckdb(node: exp.Expression) -> exp.Expression:
    """Where both dialects say the same word and mean different things."""
    if isinstance(node, exp.ApproxDistinct):
        return exp.Count(this=exp.Distinct(expressions=[node.this]))
    if isinstance(node, exp.ApproxQuantile):
        return exp.Anonymous(this="QUANTILE_DISC", expressions=[node.this, node.args["quantile"]])
    if isinstance(
        node, exp.DateDiff
    ):  # Trino counts whole units, DuckDB's date_diff the borders crossed
        unit = exp.Literal.string(node.unit.name.lower() if node.unit else "day")
        return exp.Anonymous(this="DATE_SUB", expressions=[unit, node.expression, node.this])
    if isinstance(node, exp.Div):
        scale = _decimal_scale(node)
        return (
            node
            if not scale
            else exp.cast(
                exp.func("ROUND", node.copy(), exp.Literal.number(scale)), f"DECIMAL(38, {scale})"
            )
        )
    if isinstance(
        node, (exp.DateAdd, exp.DateSub, exp.Add, exp.Sub, exp.TimestampTrunc, exp.DateTrunc)
    ):
        return _keep_date(node)
    if isinstance(node, exp.GenerateSeries):
        start = node.args["start"]
        return exp.cast(node.copy(), "DATE[]") if start.is_type("date") else node
    if isinstance(node, exp.ArraySize) and node.this.is_type("map"):
        return exp.Anonymous(this="CARDINALITY", expressions=[node.this])
    if (
        isinstance(node, exp.Anonymous)
        and node.name.upper() == "FORMAT"
        or isinstance(node, exp.Format)
    ):
        return exp.Anonymous(
            this="PRINTF",
            expressions=[node.this, *node.expressions]
            if isinstance(node, exp.Format)
            else node.expressions,
        )
    if isinstance(node, exp.Unnest) and node.expressions and node.expressions[0].is_type("map"):
        return _unnest_map(node)
    return node


def _keep_date(node: exp.Expression) -> exp.Expression:
    """A date plus days, or cut to its month, stays a date in Trino; DuckDB makes a timestamp of it."""
    is_date = node.this.is_type("date")
    moved = isinstance(
        node, (exp.DateAdd, exp.DateSub, exp.TimestampTrunc, exp.DateTrunc)
    ) or isinstance(node.expression, exp.Interval)
    return exp.cast(node.copy(), "DATE") if is_date and moved else node


def _decimal_scale(node: exp.Expression) -> int | None:
    """Digits after the point that Trino's decimal arithmetic keeps; 0 for integers, None where the value is no
    decimal."""
    if isinstance(node, exp.Literal) and not node.is_string:
        return None if "e" in node.name.lower() else len(node.name.partition(".")[2])
    if isinstance(node, (exp.Paren, exp.Neg)):
        return _decimal_scale(node.this)
    if isinstance(node, (exp.Mul, exp.Add, exp.Sub, exp.Div)):
        scales = [_decimal_scale(node.left), _decimal_scale(node.right)]
        if None in scales:
            return None
        return sum(scales) if isinstance(node, exp.Mul) else max(scales)  # type: ignore[arg-type,type-var]
    if isinstance(node, exp.Cast) and node.to.is_type("decimal"):
        return int(node.to.expressions[1].name) if len(node.to.expressions) > 1 else 0
    return 0 if node.is_type(*exp.DataType.INTEGER_TYPES) else None


def _unnest_map(node: exp.Unnest) -> exp.Expression:
    """UNNEST(map) AS t(k, v): DuckDB unnests lists only."""
    alias, source = node.args.get("alias"), node.expressions[0]
    names = [c.name for c in alias.args.get("columns") or []] if alias else []
    columns = [
        exp.alias_(exp.func("UNNEST", exp.func(f, source.copy(), dialect="duckdb")), name)
        for f, name in zip(("MAP_KEYS", "MAP_VALUES"), names or ("key", "value"))
    ]
    name = exp.TableAlias(this=exp.to_identifier(alias.name if alias else "t"))
    return exp.Lateral(this=exp.Subquery(this=exp.select(*columns)), alias=name)


# ---------------------------------------------------------------------------------------------------------------------
# The console
# ---------------------------------------------------------------------------------------------------------------------
@dataclass
class Athena:
    """Queries on Delta tables given by name and location (a folder or `s3://…`). Each query sees the newest version.

    `storage_options` go to `deltalake` (endpoint, region, keys). With `history`, a folder, each query leaves a line in
    history.jsonl and its result as <query id>.csv there.
    """

    tables: Mapping[str, str]
    storage_options: Mapping[str, str] | None = None
    database: str = DATABASE
    history: Path | None = None
    _connection: duckdb.DuckDBPyConnection = field(init=False, repr=False)

    def __post_init__(self) -> None:
        logging.getLogger("sqlglot").setLevel(logging.ERROR)
        self._connection = duckdb.connect()
        self._connection.execute(
            "SET TimeZone = 'UTC'; SET ieee_floating_point_ops = true; SET default_null_order = 'nulls_last'"
        )
        for macro in filter(None, map(str.strip, MACROS.split(";"))):
            self._connection.execute(f"CREATE OR REPLACE MACRO {macro}")

    def query(self, sql: str) -> Result:
        """Run one statement. Raises AthenaError where Athena would refuse it or fail."""
        started, query_id = time.monotonic(), str(uuid.uuid4())
        try:
            result = self._run(sql)
        except AthenaError as error:
            self._remember(query_id, sql, time.monotonic() - started, error=str(error))
            raise
        seconds = time.monotonic() - started
        result = Result(result.names, result.types, result.rows, query_id, round(seconds, 3))
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
        line = {
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

    def _run(self, sql: str) -> Result:
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
        return self._select(text, parse(text))

    def _select(self, sql: str, tree: exp.Expression) -> Result:
        query = Query(sql, tree, self.tables, self.database)
        data = {name: self.open(name).to_pyarrow_dataset() for name in query.tables}
        schemas = {
            n: {f.name.lower(): trino_type(f.type) for f in d.schema} for n, d in data.items()
        }
        translated = query.translate(schemas or {"none": {"none": "varchar"}})
        cursor = self._connection.cursor()
        try:
            for name, dataset in data.items():
                cursor.register(name, dataset)
            cursor.execute(translated)
            rows = cursor.fetchall()
            columns = cursor.description or []
        except duckdb.Error as error:
            raise explain(error, query) from error
        finally:
            cursor.close()
        return Result([c[0] for c in columns], [athena_type(str(c[1])) for c in columns], rows)

    def open(self, name: str) -> DeltaTable:
        """The newest version of a table; refused where its protocol is above what Athena reads."""
        try:
            table = DeltaTable(self.tables[name], storage_options=dict(self.storage_options or {}))
        except TableNotFoundError as error:
            raise AthenaError(
                "TABLE_NOT_FOUND",
                f"Table '{CATALOG}.{self.database}.{name}' has no Delta log at {self.tables[name]} yet: "
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
                f"{name} uses Delta features that Athena cannot read: {', '.join(sorted(features))}",
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
            "try SHOW TABLES, SHOW COLUMNS IN <table>, SHOW CREATE TABLE <table> or DESCRIBE <table>",
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
        kinds = {f.name: hive_type(trino_type(f.type)) for f in schema}
        partitions = self.open(table).metadata().partition_columns
        rows: list[tuple[str, str, str]] = [(n, kind, "") for n, kind in kinds.items()]
        if partitions:
            rows += [("# Partition Information", "", ""), *((p, kinds[p], "") for p in partitions)]
        return Result(["col_name", "data_type", "comment"], ["string"] * 3, rows)


def parse(sql: str) -> exp.Expression:
    """The tree of one query in Athena's dialect; a syntax error tells line and column."""
    try:
        trees = [t for t in sqlglot.parse(sql, read="athena") if t is not None]
    except ParseError as error:
        first = error.errors[0]
        near = (first.get("highlight") or "").strip()
        about = re.sub(r"<Token.*|<class.*?>|but got.*", "", first["description"]).strip(" .")
        text = f"mismatched input near '{near}': {about}"
        raise AthenaError(
            "SYNTAX_ERROR", text, first["line"], max(first["col"] - len(near) + 1, 1)
        ) from error
    except TokenError as error:
        raise AthenaError(
            "SYNTAX_ERROR",
            "a quote is not closed",
            sql.count("\n") + 1,
            len(sql) - (sql.rfind("\n") + 1) + 1,
        ) from error
    if not trees:
        raise AthenaError("SYNTAX_ERROR", "the query is empty", 1, 1)
    if len(trees) > 1:
        raise AthenaError("SYNTAX_ERROR", "Only one sql statement is allowed", 1, 1)
    if not isinstance(trees[0], exp.Query | exp.Values):
        raise AthenaError(
            "SYNTAX_ERROR",
            f"mismatched input '{sql.split()[0]}'. Expecting: 'SELECT', 'SHOW', 'DESCRIBE', 'WITH'",
            1,
            1,
        )
    return trees[0]


def explain(error: duckdb.Error, query: Query) -> AthenaError:
    """DuckDB's complaint in Athena's words."""
    text = str(error)

    if found := re.search(
        r'Referenced (?:column|table) "([^"]+)" not found|does not have a column named "([^"]+)"',
        text,
    ):
        name = found[1] or found[2]
        return AthenaError(
            "COLUMN_NOT_FOUND",
            f"Column '{name}' cannot be resolved",
            *query.place(query.column(name)),
        )
    if found := re.search(r'column "([^"]+)" must appear in the GROUP BY', text):
        return AthenaError(
            "EXPRESSION_NOT_AGGREGATE",
            f"'{found[1]}' must be an aggregate expression or appear in GROUP BY clause",
            *query.place(query.column(found[1])),
        )
    if found := re.search(r"Could not convert string '(.*)' to (\w+)", text, re.S):
        return AthenaError(
            "INVALID_CAST_ARGUMENT",
            f"Cannot cast '{found[1]}' to {CAST_TYPES.get(found[2], found[2].lower())}",
        )
    if "ivision by zero" in text or re.search("value (inf|-inf|nan) can't be cast", text):
        return AthenaError("DIVISION_BY_ZERO", "Division by zero")
    code = {
        "BinderException": "TYPE_MISMATCH",
        "CatalogException": "FUNCTION_NOT_FOUND",
        "ParserException": "SYNTAX_ERROR",
    }
    return AthenaError(
        code.get(type(error).__name__, "GENERIC_USER_ERROR"), text.partition(": ")[2].split("\n")[0]
    )


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------
def s3_options(endpoint: str, region: str = "us-east-1") -> dict[str, str]:
    """`deltalake`'s options for an S3 that is stood in for on this machine."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": region,
        "AWS_ACCESS_KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID", "testing"),
        "AWS_SECRET_ACCESS_KEY": os.environ.get("AWS_SECRET_ACCESS_KEY", "testing"),
    }


def glue_client(endpoint: str) -> Any:
    """The Glue of a local AWS, with the credentials of `s3_options`."""
    import boto3

    options = s3_options(endpoint)
    return boto3.client(
        "glue",
        endpoint_url=endpoint,
        region_name=options["AWS_REGION"],
        aws_access_key_id=options["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=options["AWS_SECRET_ACCESS_KEY"],
    )


def on_endpoint(endpoint: str, database: str = DATABASE, history: Path | None = None) -> Athena:
    """The console of a local AWS: it knows the tables that the crawler has registered in the catalog."""
    from botocore.exceptions import EndpointConnectionError

    from local.aws.crawler import catalog_tables
    from local.runtime import SetupError

    try:
        return Athena(
            catalog_tables(glue_client(endpoint), database), s3_options(endpoint), database, history
        )
    except EndpointConnectionError:
        raise SetupError(
            f"Nothing listens at {endpoint}: start it with `make up`, or say --endpoint URL"
        ) from None


def main(argv: Sequence[str]) -> int:
    """`python -m local sql "SELECT …"`: 0 with the answer on stdout, 1 with Athena's error on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m local sql", description="Query the lakehouse in Athena's SQL."
    )
    parser.add_argument("sql", nargs="?", help="one statement; read from stdin where it is missing")
    parser.add_argument(
        "--csv", action="store_true", help="write Athena's result file instead of a table"
    )
    parser.add_argument("--past", action="store_true", help="show the queries of the past")
    parser.add_argument(
        "--lake", type=Path, help="a folder with Delta tables, instead of the local AWS"
    )
    parser.add_argument(
        "--endpoint", default=os.environ.get("AWS_ENDPOINT_URL", "http://localhost:5000")
    )
    parser.add_argument(
        "--history", type=Path, default=Path(".local/athena"), help="folder of the past queries"
    )
    options = parser.parse_args(argv)
    if options.lake:
        tables = {
            log.parent.name: str(log.parent) for log in sorted(options.lake.rglob("_delta_log"))
        }
        athena = Athena(tables, history=options.history)
    elif options.past:
        athena = Athena({}, history=options.history)
    else:
        athena = on_endpoint(options.endpoint, history=options.history)
    if options.past:
        for query in athena.queries():
            text = " ".join(query["sql"].split())
            print(f"{query['submitted_at']}  {query['state']:9}  {query['seconds']:6.2f} s  {text}")
        return 0
    try:
        result = athena.query(options.sql or sys.stdin.read())
    except AthenaError as error:
        print(error, file=sys.stderr)
        return 1
    print(result.csv() if options.csv else result.table(), end="" if options.csv else "\n")
    return 0
