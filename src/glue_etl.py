"""The job `Lakehouse`: raw CSV exports become three trusted Delta tables.

Inputs    every file below RAW_PATH: products, orders and order items as `.csv` or `.csv.gz`, in any
          order, late, repeated or broken.
Outputs   three Delta tables below LAKEHOUSE_PATH (`TABLES` declares them), the Delta tables
          `ingested_files` (the ledger) and `etl_runs` beside them, `rejected_records` below
          REJECTED_PATH, and RUNS_PATH/<run id>/{manifest.jsonl,summary.json}.

A run has five steps. Each takes the result of the previous step and returns a frozen value.
  discover  list the raw zone once; read each object once for its digest and header; mark files
            whose bytes the ledger already holds, under any name, as duplicates
  stage     read the raw text once: each line becomes a typed row or a row with reasons; skip files
            that changed since the listing; no later step reads the raw zone
  resolve   assign exactly one outcome to each row; check conservation before anything is written
  publish   commit rejects -> products -> orders -> order items -> settled parked rows; reconcile
            each table commit with Delta's metrics
  finalize  write ledger -> `etl_runs` -> manifest -> summary

Guarantees
  Conservation   for each file: rows_read = inserted + updated + unchanged + superseded + rejected +
                 parked; otherwise the run fails before it writes.
  Invariance     the tables depend on the deliveries and their order, not on how deliveries are
                 grouped into runs or repeated.
  Late parents   an order item whose order or product has not arrived is parked; the run that loads
                 the parent admits it.
  Recovery       the success markers (ledger, then manifest and summary) are written last; every
                 earlier commit is repeatable, so the next run recovers from a crash.

Precedence: (order_timestamp, delivery); a delivery is (LastModified, path, number of values, line
in the file). Among rows of one file with equal key and time, the row with most values wins.
For each key a table holds the row of highest precedence whose parents have arrived.

Arguments   --RAW_PATH --LAKEHOUSE_PATH --REJECTED_PATH --RUNS_PATH (each `s3://bucket/prefix/` or a
            folder), --RUN_ID, and optionally
            --TempDir               scratch for large batches (`glue-temp/` beside the tables)
            --MAX_REJECTED_PERCENT  set aside files with a higher share of rejected rows (50)
            --FORCE true            load files that the ledger already holds
            --LOCAL true            plain Python on a laptop: fetch Delta's jars from Maven Central
Exit codes  0 done, or nothing new; 1 failed, cause in summary.json; 2 invalid argument.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import csv
import datetime as dt
import difflib
import functools
import gzip
import hashlib
import io
import itertools
import json
import logging
import os
import re
import shutil
import sys
import threading
import time
import unicodedata
import urllib.parse
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

# The names that glue_operations.py and the launchers may use
# fmt: off
__all__ = [
    "ADMITTED", "COMMIT_STAMP", "CONFLICTING", "FILE_COLUMNS", "FILE_DDL", "HEADER", "INSERTED",
    "INTENT", "LOG", "OUTCOMES", "PARKED", "PLACE", "RECORD", "REJECTED", "ROW_IDENTITY",
    "ROW_PLACE", "SUPERSEDED", "TABLES", "UPDATED", "VALID", "add_columns", "bare_path", "cause_of",
    "check_declarations", "commit", "dataset_of", "Discovered", "fields_of",
    "finish_killed_operation", "JobArguments", "JobError", "Lake", "LakeTable", "latest_times",
    "Layout", "local_frame", "log_to_stdout", "main", "map_concurrently", "mark_duplicates",
    "measures", "merge_clauses", "new_lake", "open_lake", "parse_lines", "progress", "publish",
    "RawFile", "read_intent", "reasons_of", "reasons_to_wait", "remove_intent", "resolve",
    "resolve_datasets", "Resolved", "RowCounts", "schemas", "Scratch", "session_settings",
    "settings", "settled_rows", "spark_session", "stage", "StagedDataset", "stamp", "storage",
    "StoredObject", "summary_of", "Table", "texts_of", "Timings", "try_cast", "union",
    "validate_texts", "value_count", "value_text", "with_header", "write_ledger", "write_run",
    "write_summary", "write_versions",
]
# fmt: on

# --------------------------------------------------------------------------------------------------
# Reason codes: why a row or a whole file is not loaded
# --------------------------------------------------------------------------------------------------
ROW_REASONS = {
    "too_few_fields": "the row has fewer fields than the header of its file",
    "too_many_fields": "the row has more fields than the header of its file; twice as many if the "
    "line break between two rows is lost",
    "unclosed_quote": "a quoted field is not closed, or text follows its closing quote",
    "invalid_utf8": "the row contains bytes that are not UTF-8",
    "control_character": "the row contains a control character such as NUL, or a key contains an "
    "invisible character",
    "broken_line": "an unquoted value contains a line break, so that the row continues on the next "
    "line: put the value in quotes",
    "swallowed_row": "a quoted field contains a line that is a complete row: a quote is missing",
    "repeated_header": "the header of the file is repeated among its rows",
    "missing_<column>": "a key, a parent's key or the order timestamp is blank",
    "invalid_<column>": "the value cannot be read as the column's type, has more digits than the "
    "column holds, or has lost digits like 2.02504E+11",
    "future_<column>": "the time is more than a day after the file was delivered",
    "ambiguous_<column>": "a date such as 01/04/2025, which could be two days (write 2025-04-01), "
    "or an amount such as 1,234 (1.234 if the delimiter is not a comma), which could be in "
    "thousands or have decimals",
    "date_mismatch": "the date is neither the timestamp's date as written nor its date in UTC",
    "orphan_order": "parked: the order of this item has not arrived yet",
    "orphan_product": "parked: the product of this item has not arrived yet",
}
FILE_REASONS = {
    "unusable_path": "Spark would read another object: rename it without //, /./, /../, in UTF-8",
    "unfinished_upload": "an upload that was not finished within a day: upload the file again",
    "unknown_dataset": "the path names no dataset: start it with products, orders or order_items "
    "and end it with .csv or .csv.gz",
    "empty_file": "the file contains no text",
    "no_header": "the first record names no column of the dataset, or a quote in it is broken",
    "missing_column": "columns are missing from the header",
    "duplicate_column": "the header names a column twice",
    "mixed_headers": "a second header has its columns in another order: split the file there",
    "mostly_rejected": "more rows are rejected than MaxRejectedPercent allows, so its format may "
    "have changed: fix it, or raise the limit, and upload it again",
    "keys_reused": "its keys belong to rows of other parents, which it would overwrite: give each "
    "row its own key, or upload it again and load it with --FORCE true",
    "utf16": "the file is UTF-16 or UTF-32: save it as UTF-8",
    "binary": "the file is not text",
    "wrong_format": "the file is not CSV",
    "truncated_gzip": "the gzip stream is truncated or damaged: compress and upload it again",
}
OUTCOMES = ("inserted", "updated", "unchanged", "superseded", "rejected", "parked")
INSERTED, UPDATED, UNCHANGED, SUPERSEDED, REJECTED, PARKED = OUTCOMES
ADMITTED = "admitted"  # status of a parked row once its table has it


# --------------------------------------------------------------------------------------------------
# The tables: the customer's schema, and the only place that declares columns, rules and datasets
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ColumnSpec:
    """One column of a table: its name, its Spark SQL type and its meaning.

    required    a blank value rejects the row
    identifier  a name stored as text: an integer that a spreadsheet wrote as `123.0` becomes `123`
    also        alternative header names, such as `Lineitem sku`; header names are compared by
                letters and digits only, ignoring case
    """

    name: str
    type: str
    meaning: str
    required: bool = False
    identifier: bool = False
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parent:
    """A foreign key: `column` refers to the key of `dataset`; rows without a parent are parked."""

    column: str
    dataset: str
    reason: str


ColumnOf = Callable[[str], SparkColumn]


@dataclass(frozen=True)
class Rule:
    """A check on a typed row: reject it with `reason` if `broken(text_of, value_of)` is true."""

    reason: str
    broken: Callable[[ColumnOf, ColumnOf], SparkColumn]


@dataclass(frozen=True)
class Table:
    """A Delta table and its dataset; `version` is the column that orders the versions of a key."""

    dataset: str
    name: str
    key: str
    columns: tuple[ColumnSpec, ...]
    version: str | None = None
    partition: str | None = None
    parents: tuple[Parent, ...] = ()
    rules: tuple[Rule, ...] = ()

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def ddl(self) -> str:
        return ", ".join(f"`{column.name}` {column.type}" for column in self.columns)

    @property
    def key_columns(self) -> list[str]:
        """Return the key column and the columns that refer to parents."""
        return [self.key, *(parent.column for parent in self.parents)]

    @property
    def statistics(self) -> str:
        """Return the columns with file statistics, which let Delta skip files."""
        return ",".join(name for name in (self.key, self.version) if name)


def _date_mismatch(text: ColumnOf, value: ColumnOf) -> SparkColumn:
    written = F.substring(text("order_timestamp"), 1, 10)
    other_text = ~text("order_timestamp").startswith(text("date"))
    other_day = value("date") != F.to_date(value("order_timestamp"))
    return other_text & (value("date") != try_cast(written, "date")) & other_day


DATE_RULE = Rule("date_mismatch", _date_mismatch)
DATE_MEANING = "day of the order; taken from the UTC timestamp if blank"

PRODUCTS = Table(
    dataset="products",
    name="clean_products",
    key="product_id",
    columns=(
        ColumnSpec("product_id", "STRING", "the shop's number of the product", True, True),
        ColumnSpec("department_id", "STRING", "the number of the department", False, True),
        ColumnSpec("department", "STRING", "name of the department"),
        ColumnSpec("product_name", "STRING", "name shown to customers"),
    ),
)
ORDERS = Table(
    dataset="orders",
    name="clean_orders",
    key="order_id",
    version="order_timestamp",
    partition="date",
    columns=(
        ColumnSpec(
            "order_num", "STRING", "a running number from 1 to 100; no key", identifier=True
        ),
        ColumnSpec("order_id", "STRING", "the order", required=True, identifier=True),
        ColumnSpec("user_id", "STRING", "the customer", identifier=True),
        ColumnSpec("order_timestamp", "TIMESTAMP", "when the order was placed, UTC", required=True),
        ColumnSpec("total_amount", "DOUBLE", "sum in the shop's currency; negative for a refund"),
        ColumnSpec("date", "DATE", DATE_MEANING),
    ),
    rules=(DATE_RULE,),
)
ORDER_ITEMS = Table(
    dataset="order_items",
    name="clean_orders_items",
    key="id",
    version="order_timestamp",
    partition="date",
    columns=(
        ColumnSpec("id", "STRING", "the line of an order", required=True, identifier=True),
        ColumnSpec("order_id", "STRING", "the order it belongs to", required=True, identifier=True),
        ColumnSpec("user_id", "STRING", "the customer", identifier=True),
        ColumnSpec("days_since_prior_order", "INT", "days since the customer's previous order"),
        ColumnSpec("product_id", "STRING", "the product bought", required=True, identifier=True),
        ColumnSpec("add_to_cart_order", "INT", "position in the cart, from 1"),
        ColumnSpec("reordered", "BOOLEAN", "whether the customer had bought the product before"),
        ColumnSpec("order_timestamp", "TIMESTAMP", "when the order was placed, UTC", required=True),
        ColumnSpec("date", "DATE", DATE_MEANING),
    ),
    parents=(
        Parent("order_id", "orders", "orphan_order"),
        Parent("product_id", "products", "orphan_product"),
    ),
    rules=(DATE_RULE,),
)
TABLES = (PRODUCTS, ORDERS, ORDER_ITEMS)  # in load order: parents first

# In front of the columns in a file of rejected rows to fix: why each was rejected, and the place of
# the row in rejected_records that it replaces. In such a file a leading ' is not part of a value
REJECT_COLUMNS = ("reasons", "where")

FILE_COLUMNS = ("file_path", "file_digest", "file_size", "file_modified")  # identify a delivery
FILE_DDL = "file_path STRING, file_digest STRING, file_size BIGINT, file_modified TIMESTAMP"
REJECTED_DDL = (
    "run_id STRING, dataset STRING, status STRING, reasons ARRAY<STRING>, record_key STRING, "
    f"order_id STRING, product_id STRING, {FILE_DDL}, line BIGINT, raw STRING, "
    "fields MAP<STRING, STRING>, resolved_run_id STRING, author STRING, why STRING"
)
LEDGER_DDL = (
    f"run_id STRING, dataset STRING, {FILE_DDL}, outcome STRING, reason STRING, rows_read BIGINT, "
    "inserted BIGINT, updated BIGINT, unchanged BIGINT, superseded BIGINT, rejected BIGINT, "
    "parked BIGINT, ingested_at TIMESTAMP"
)
RUNS_DDL = (
    "run_id STRING, operation STRING, status STRING, started_at TIMESTAMP, "
    "finished_at TIMESTAMP, summary STRING, table_versions MAP<STRING, BIGINT>"
)
CORRECTIONS_DDL = (
    "run_id STRING, author STRING, statement STRING, table_name STRING, record_key STRING, "
    "operation STRING, before MAP<STRING, STRING>, after MAP<STRING, STRING>, "
    "corrected_at TIMESTAMP"
)
JOB_TABLES = {
    "rejected_records": REJECTED_DDL,
    "ingested_files": LEDGER_DDL,
    "etl_runs": RUNS_DDL,
    "corrections": CORRECTIONS_DDL,  # written by the operation `sql` (glue_operations.py)
}
FILE_IDENTITY = ["dataset", "file_digest", "file_size"]  # a file is identified by its content
ROW_IDENTITY = [*FILE_IDENTITY, "line"]  # identifies a row of rejected_records
SAME_ROW = " AND ".join(f"t.{name} <=> s.{name}" for name in ROW_IDENTITY)
ROW_STATISTICS = "run_id,record_key,file_path"  # let Delta skip files of rejected_records

TABLE_PROPERTIES = {  # Delta reader 1 / writer 2, which every Athena engine can read
    "delta.autoOptimize.optimizeWrite": "true",
    "delta.autoOptimize.autoCompact": "true",
    "delta.enableDeletionVectors": "false",
    # The reach of a rollback; VACUUM removes older files
    "delta.logRetentionDuration": "interval 30 days",
    "delta.deletedFileRetentionDuration": "interval 30 days",
    "delta.setTransactionRetentionDuration": "interval 30 days",
}
SCHEMA_VERSION = 1  # of summary.json; the state machine checks it
LARGE_BYTES = 16 << 20  # larger batches are staged in scratch files instead of memory
BROADCAST_ROWS = 200_000  # up to this many keys are broadcast instead of shuffled
GZIP_RATIO = 8  # estimated text bytes per gzip byte
CHUNK_BYTES = 1 << 16  # read size
HEAD_BYTES = 1 << 16  # the part of a file that is searched for the header
MAX_DAYS = 400  # largest span of a split that counts as ordered by day
LOG_PREFIX = "_delta_log/"
S3_ATTEMPTS = 8  # per request, and per interrupted transfer
S3_TIMEOUT = 20  # seconds without a byte
LEASE = "lease.json"
LEASE_SECONDS = 30  # a lease expires this long after its last renewal
RENEWAL_SECONDS = 10
TEXT_LIMIT = 500  # characters of a text in the summary, which must fit a state machine payload
SUMMARY_SPANS = 500  # most spans of touched days that the summary lists
EXAMPLES = 30  # the summary shows a rejected row for this many of the commonest reasons


# --------------------------------------------------------------------------------------------------
# Errors, arguments, progress
# --------------------------------------------------------------------------------------------------
class JobError(Exception):
    """The run cannot continue; the message states the cause and the remedy."""


class AccessError(Exception):
    """An object exists but cannot be read."""


class ChangedError(Exception):
    """An object has changed since it was listed."""


class DamageError(JobError):
    """Files of the lake are lost or unreadable."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the lake is damaged: {what}. Restore the files (a bucket keeps earlier versions), "
            "or rebuild all tables from the archive with the operation `rebuild`"
        )


class LeaseError(JobError):
    """Another run holds the lease of the lake."""

    def __init__(self, lease: str) -> None:
        holder = json.loads(lease)
        super().__init__(
            f"the run {holder['run_id']} has been working on this lake since {holder['since']}: "
            "run again after it has finished"
        )


class ConservationError(JobError):
    """The rows of a file do not add up to their outcomes."""


@dataclass(frozen=True)
class JobArguments:
    """The job's arguments; every path ends with `/`."""

    raw_path: str
    lakehouse_path: str
    rejected_path: str
    runs_path: str
    run_id: str
    scratch_path: str
    force: bool
    local: bool
    max_rejected_percent: int

    @classmethod
    def from_argv(cls, argv: Sequence[str]) -> JobArguments:
        """Read the command line and ignore unknown arguments, since Glue adds its own.

        Exits with 2 on an invalid argument.
        """
        parser = _Parser(prog="glue_etl.py", allow_abbrev=False)
        for name in ("RAW_PATH", "LAKEHOUSE_PATH", "REJECTED_PATH", "RUNS_PATH"):
            parser.add_argument(f"--{name}", required=True, type=_folder)
        parser.add_argument("--RUN_ID", required=True, type=_run_id)
        parser.add_argument("--TempDir", type=_folder)
        parser.add_argument("--MAX_REJECTED_PERCENT", default=50, type=_percent)
        for name in ("FORCE", "LOCAL"):
            parser.add_argument(f"--{name}", nargs="?", const=True, default=False, type=_flag)
        parsed, _ = parser.parse_known_args(argv)
        scratch = parsed.TempDir or parsed.LAKEHOUSE_PATH[:-1].rpartition("/")[0] + "/glue-temp/"
        paths = (parsed.RAW_PATH, parsed.LAKEHOUSE_PATH, parsed.REJECTED_PATH, parsed.RUNS_PATH)
        percent = parsed.MAX_REJECTED_PERCENT
        return cls(*paths, parsed.RUN_ID, scratch, parsed.FORCE, parsed.LOCAL, percent)

    def path_of(self, table: str) -> str:
        """Return the path of a table."""
        root = self.rejected_path if table == "rejected_records" else self.lakehouse_path
        return root + table


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        print(f"glue_etl.py: {message}", file=sys.stderr)
        raise SystemExit(2)


def _folder(path: str) -> str:
    if "://" not in path and path:
        path = os.path.abspath(path)
    elif not re.match(r"s3://[^/]+", path):
        raise argparse.ArgumentTypeError(f"{path!r}: expected s3://bucket/prefix/ or a folder")
    return path.rstrip("/") + "/"


def _run_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", text):
        allowed = "use letters, digits, '.', '_' and '-', 128 at most"
        raise argparse.ArgumentTypeError(f"{text!r}: {allowed}")
    return text


def _percent(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0 to 100")
    return int(text)


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected true or false")
    return text.lower() == "true"


LOG = logging.getLogger("glue_etl")


def progress(step: str) -> None:
    """Log that a step is done; every commit of a run is followed by this call."""
    LOG.info(step)


def log_to_stdout(run_id: str) -> None:
    """Log each step to stdout: time, run id, step."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(f"%(asctime)s [{run_id}] %(message)s", "%H:%M:%S"))
    LOG.handlers, LOG.propagate = [handler], False
    LOG.setLevel(logging.INFO)


Item = TypeVar("Item")
Result = TypeVar("Result")


def map_concurrently(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int = 16
) -> list[Result]:
    """Apply a function to each item in threads; return the results in the order of the items."""
    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    with concurrent.futures.ThreadPoolExecutor(min(workers, len(items))) as pool:
        return list(pool.map(function, items))


def counts_text(counts: Mapping[str, int]) -> str:
    """Return counts for a message: `3 inserted, 1 updated`."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def union(frames: Sequence[DataFrame]) -> DataFrame:
    """Return all rows of frames that have the same columns."""
    return functools.reduce(DataFrame.unionByName, frames)


def any_of(conditions: Iterable[SparkColumn]) -> SparkColumn:
    return functools.reduce(lambda left, right: left | right, conditions)


def all_of(conditions: Iterable[SparkColumn]) -> SparkColumn:
    return functools.reduce(lambda left, right: left & right, conditions)


def text_map(texts: Mapping[str, SparkColumn]) -> SparkColumn:
    """Return a MAP from column name to text."""
    return F.create_map(*[part for name, text in texts.items() for part in (F.lit(name), text)])


def fields_of(table: Table) -> list[SparkColumn]:
    """Return the table's columns, cast from the texts in `fields`; NULL if a text does not fit."""
    return [
        try_cast(F.col("fields").getItem(column.name), column.type).alias(column.name)
        for column in table.columns
    ]


def texts_of(table: Table, row: str = "") -> SparkColumn:
    """Return the table's columns as a MAP of texts like `fields`; `row` is a prefix: `struct.`."""
    return text_map({name: F.col(f"{row}{name}").cast("string") for name in table.column_names})


# --------------------------------------------------------------------------------------------------
# Column functions: text -> typed value or reasons
# --------------------------------------------------------------------------------------------------
TIMESTAMP_SHAPE = (
    r"^\d{4}-\d\d-\d\d[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?"
    r" ?(Z|UTC|[+-]\d\d(:?\d\d)?)?$"
)
DATE_SHAPE = r"^\d{4}-\d\d-\d\d([T ]00:00(:00(\.0{1,9})?)?)?$"
NO_DATE_SHAPE = r"^0000-00-00([T ]00:00(:00(\.0{1,9})?)?)?$"  # MySQL's missing date
AMBIGUOUS_DATE_SHAPE = r"^\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}"
INTEGER_SHAPE = r"^[+-]?\d+(\.0+)?$"
NUMBER_SHAPE = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
DECIMAL_COMMA_SHAPE = r"^[+-]?\d*,\d{1,2}$"
AMBIGUOUS_NUMBER_SHAPE = r"^[+-]?\d{1,3}(,\d{3})+$"  # 1,234: thousands or decimals
POINT_THOUSANDS_SHAPE = r"^[+-]?\d{1,3}(\.\d{3})+$"  # the same with another delimiter: 1.234
POINTS_AND_COMMA_SHAPE = r"^[+-]?\d{1,3}(\.\d{3})+,\d+$"
# 1e+05, 1.0023456E7, 2.02504E+11; not 5E5, which is a code
SCIENTIFIC_SHAPE = r"^(?!\d+E\d+$)\d+([.,]\d*)?[eE][+-]?\d+$"
SAFE_DIGITS = 15  # every double holds this many
TABLE_LINE = r"^[-=+:|,; \t]*$"  # a cell of a line that draws a table's border
TRUE_WORDS = ("1", "true", "t", "yes", "y", "1.0")
FALSE_WORDS = ("0", "false", "f", "no", "n", "0.0")
NULL_WORDS = (  # in keys and typed columns, in any brackets
    *("null", "\\n", "nan", "na", "n/a", "none", "nat", "undefined", "object object", "#n/a"),
    *("#ref!", "#name?", "#value!", "#div/0!", "#num!", "#null!"),
)
BRACKETS = "[](){}<>"
NULL_TEXTS = ("NULL", "\\N")  # in free text
BLANKS = "".join(
    chr(code) for code in range(0x3001) if chr(code).isspace() and code not in range(28, 32)
)
INVISIBLE = "".join(  # soft hyphens, direction marks, joiners, tags
    chr(code)
    for code in itertools.chain(range(0x20000), range(0xE0000, 0xE0080))  # all others lie outside
    if unicodedata.category(chr(code)) == "Cf"
)
BLANKS += INVISIBLE

SPARK_3 = not hasattr(SparkColumn, "try_cast")


def try_cast(column: SparkColumn, type_name: str) -> SparkColumn:
    """Cast to a type, NULL if the text does not fit; the same on Spark 3.5 and 4.1."""
    return column.cast(type_name) if SPARK_3 else column.try_cast(type_name)


def valid_utf8(text: SparkColumn) -> SparkColumn:
    """Return whether the bytes of a text are UTF-8; Spark 3.5 has no function for it."""
    return F.encode(text, "UTF-8") == text.cast("binary") if SPARK_3 else F.is_valid_utf8(text)


def trimmed(text: SparkColumn) -> SparkColumn:
    """Strip leading and trailing Unicode whitespace and invisible characters."""
    return F.btrim(text, F.lit(BLANKS))


def value_text(column: ColumnSpec, cell: SparkColumn) -> SparkColumn:
    """Return a cell's text for the parser of its column; NULL if it is blank or a null word."""
    text = trimmed(cell)
    if column.identifier:  # spreadsheet users write ="00081" to keep the zeros
        unwrapped = trimmed(F.regexp_extract(text, '^="([^"]*)"$', 1))
        text = F.when(text.rlike('^="[^"]*"$'), unwrapped).otherwise(text)
    if column.type == "STRING" and not column.identifier:
        return F.when((text != "") & ~text.isin(*NULL_TEXTS), text)
    word = F.lower(trimmed(F.btrim(text, F.lit(BRACKETS))))
    is_null = (word == "") | word.isin(*NULL_WORDS)
    if column.type != "BOOLEAN":  # Odoo writes False for an empty cell
        is_null |= word == "false"
    if column.type == "DATE" and not column.required:
        is_null |= text.rlike(NO_DATE_SHAPE)
    return F.when(~is_null, text)


def parse_identifier(text: SparkColumn) -> SparkColumn:
    """Return an identifier as text; NULL if a spreadsheet truncated its digits.

    `123.0` is 123, R's 1e+05 is 100000, Java's 1.0023456E7 is 10023456. 2.02504E+11 and 2E+11 are
    NULL: a spreadsheet displays the first digits only.
    """
    whole = F.when(text.rlike(r"^\d+\.0+$"), F.regexp_replace(text, r"\.0+$", "")).otherwise(text)
    number = F.translate(text, ",", ".")
    fraction = F.length(F.regexp_extract(number, r"\.(\d*)", 1))
    digits = F.length(F.regexp_extract(number, r"\.(\d*?)0*[eE]", 1))
    exponent = try_cast(F.regexp_extract(text, r"[eE](.*)$", 1), "int")
    exact = text.contains("e") | number.contains(".")
    exact &= ~number.contains(".") | ((fraction >= exponent) & (digits <= exponent))
    exact_number = try_cast(number, "decimal(38,0)").cast("string")
    scientific = text.rlike(SCIENTIFIC_SHAPE)
    return F.when(~scientific, whole).when(exact & (exponent >= 0), exact_number)


def parse_integer(text: SparkColumn) -> SparkColumn:
    """`3` and `3.0` are 3; `3.5`, `abc` and out-of-range values are NULL."""
    return F.when(text.rlike(INTEGER_SHAPE), try_cast(F.regexp_replace(text, r"\.0+$", ""), "int"))


def parse_number(text: SparkColumn) -> SparkColumn:
    """Return a finite double that holds all digits of the text; -0.0 is normalized to 0.0."""
    value = try_cast(text, "double") + F.lit(0.0)
    text_digits, value_digits = significant_digits(text), significant_digits(value.cast("string"))
    exact = (F.length(text_digits) <= SAFE_DIGITS) | (text_digits == value_digits)
    exact &= (value != 0) | (text_digits == "")
    return F.when(text.rlike(NUMBER_SHAPE) & exact & (F.abs(value) < F.lit(float("inf"))), value)


def significant_digits(number: SparkColumn) -> SparkColumn:
    """Return a number's digits without sign, point, exponent, leading and trailing zeros."""
    mantissa = F.translate(F.regexp_replace(number, "[eE].*$", ""), "+-.", "")
    return F.btrim(mantissa, F.lit("0"))


def parse_boolean(text: SparkColumn) -> SparkColumn:
    """Accept 0/1, true/false, yes/no, y/n, t/f in any case, and a spreadsheet's 0.0/1.0."""
    word = F.lower(text)
    return F.when(word.isin(*TRUE_WORDS), F.lit(True)).when(word.isin(*FALSE_WORDS), F.lit(False))


def parse_timestamp(text: SparkColumn) -> SparkColumn:
    """Accept ISO 8601 with `T` or a space, seconds optional, years 1 to 9999; return UTC."""
    tight = F.regexp_replace(F.regexp_replace(text, "UTC$", "Z"), r" (?=Z|[+-])", "")
    offset = F.regexp_replace(tight, r"([+-]\d\d)(\d\d)$", "$1:$2")
    with_seconds = F.regexp_replace(offset, r"([T ]\d\d:\d\d)(?=Z|[+-])", "$1:00")
    value = try_cast(with_seconds, "timestamp")  # the cast takes 11:27:00+02:00, not 11:27+0200
    in_range = ~text.startswith("0000") & F.year(value).between(1, 9999)
    return F.when(text.rlike(TIMESTAMP_SHAPE) & in_range, value)


def parse_date(text: SparkColumn) -> SparkColumn:
    """Accept an ISO date, or a timestamp at midnight as databases export dates; years 1 to 9999."""
    day = try_cast(F.substring(text, 1, 10), "date")
    return F.when(text.rlike(DATE_SHAPE) & ~text.startswith("0000"), day)


PARSERS: dict[str, Callable[[SparkColumn], SparkColumn]] = {
    "INT": parse_integer,
    "DOUBLE": parse_number,
    "BOOLEAN": parse_boolean,
    "TIMESTAMP": parse_timestamp,
    "DATE": parse_date,
    "STRING": lambda text: text,
}


def parse(column: ColumnSpec, text: SparkColumn) -> SparkColumn:
    """Return the typed value of a column's text; NULL if it is blank or does not fit."""
    return parse_identifier(text) if column.identifier else PARSERS[column.type](text)


def column_reasons(
    column: ColumnSpec, text: SparkColumn, value: SparkColumn
) -> dict[str, SparkColumn]:
    """Return the checks of one column: reason code -> condition."""
    checks = {f"missing_{column.name}": text.isNull()} if column.required else {}
    unparsable = text.isNotNull() & value.isNull()
    shapes = {"DATE": AMBIGUOUS_DATE_SHAPE, "TIMESTAMP": AMBIGUOUS_DATE_SHAPE}
    shape = (shapes | {"DOUBLE": AMBIGUOUS_NUMBER_SHAPE}).get(column.type)
    if shape:
        checks[f"ambiguous_{column.name}"] = unparsable & text.rlike(shape)
        unparsable &= ~text.rlike(shape)
    if column.identifier or column.type != "STRING":
        checks[f"invalid_{column.name}"] = unparsable
    return checks


def has_invisible_character(written: Mapping[str, SparkColumn], table: Table) -> SparkColumn:
    """Return whether an identifier has an invisible character, which would make it a lookalike."""
    names = [column.name for column in table.columns if column.identifier]
    return any_of(written[name].rlike(f"[{ranges(INVISIBLE)}]") for name in names)


def reasons_of(checks: Mapping[str, SparkColumn]) -> SparkColumn:
    """Return a row's reason codes as an array, or NULL if there are none; a NULL check passes."""
    codes = F.array(*[F.when(broken, F.lit(reason)) for reason, broken in checks.items()])
    reasons = F.filter(codes, lambda code: code.isNotNull())
    return F.when(F.size(reasons) > 0, reasons)


# The fast path: patterns of values that a plain cast reads exactly as the parser above does. They
# need no trimming and no normalizing. If the cast fails, the line goes to the parser.
# Character classes list every character: Java looks those up in a table, but compares ranges.
# Possessive quantifiers prevent backtracking on long lines.
def character_class(characters: str) -> str:
    """Return a regex character class that lists each character."""
    escaped = (
        "\\" + character if character in r"[]\^&-" else character for character in characters
    )
    return "[" + "".join(escaped) + "]"


def ranges(characters: Iterable[str]) -> str:
    """Return the inside of a regex character class, adjacent characters as ranges."""
    codes = {ord(character) for character in characters}
    first = sorted(code for code in codes if code - 1 not in codes)
    last = sorted(code for code in codes if code + 1 not in codes)
    return "".join(rf"\x{{{a:x}}}-\x{{{b:x}}}" for a, b in zip(first, last, strict=True))


PLAIN_DATE = r"[1-8]\d\d\d-\d\d-\d\d"
PLAIN_WORD = (
    r'[^,;|"\\\x00-\x20\x7f-\xa0'
    + ranges(character for character in BLANKS if character > "\xa0")
    + r"\ufffd]++"
)
PLAIN_VALUES = {
    "INT": character_class("-0123456789") + "{0,20}+",
    "DOUBLE": character_class("-.0123456789") + f"{{0,{SAFE_DIGITS}}}+",
    "BOOLEAN": character_class("01abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") + "{0,8}+",
    "TIMESTAMP": rf"(?:{PLAIN_DATE}[T ]\d\d:\d\d:\d\d)?+",
    "DATE": f"(?:{PLAIN_DATE})?+",
    "STRING": f"(?:{PLAIN_WORD}(?: {PLAIN_WORD})*+)?+",
}
_PRINTABLE = "".join(chr(code) for code in range(33, 127) if chr(code) not in '",;|.+=\\')
_LETTERS = "".join(sign for sign in _PRINTABLE if sign.isalpha() and sign not in "fnuFNU")
_NO_NUMBER = "".join(sign for sign in _PRINTABLE if sign not in "eE0123456789")
_NO_VALUE = r"(?!(?i:n(?:ull|an|a|/a|one|at)|undefined|false)(?:[,;|\t]|\z))"
_SIGNS = character_class(_PRINTABLE) + "*+"
PLAIN_IDENTIFIER = (  # neither a null word nor a number in scientific notation
    f"(?:{character_class(_LETTERS + '$_')}{_SIGNS}|[0-9]++(?:{character_class(_NO_NUMBER)}{_SIGNS}"
    f"|(?![eE][0-9-][0-9]*+(?:[,;|\\t]|\\z))[eE]{_SIGNS})?+|{_NO_VALUE}[fnuFNU]{_SIGNS})?+"
)
UNUSED_VALUE = r'[^,;|"\t\x00-\x08\x0b-\x1f\x{fffd}]*+'


def plain_value(column: ColumnSpec, text: SparkColumn) -> SparkColumn:
    """Cast a text that matches `PLAIN_VALUES`; NULL if it does not fit."""
    value = text if column.type == "STRING" else try_cast(text, column.type)
    if column.type == "BOOLEAN":
        return F.when(text == "1", True).when(text == "0", False).otherwise(value)
    return value + F.lit(0.0) if column.type == "DOUBLE" else value  # -0.0 is 0.0


def integer_key(key: SparkColumn) -> SparkColumn:
    """Return a key's number if it is an integer of up to 18 digits, unsigned, no leading zeros."""
    number = try_cast(key, "bigint")
    thresholds = ", ".join(f"{10**digits if digits else 0}L" for digits in range(18))
    return F.when(number >= F.get(F.expr(f"array({thresholds})"), F.octet_length(key) - 1), number)


def value_count(table: Table) -> SparkColumn:
    """Return the number of non-NULL columns of a row."""
    counted = [F.col(name).isNotNull().cast("int") for name in table.column_names]
    return functools.reduce(lambda left, right: left + right, counted)


def same_values(table: Table, left: str, right: str) -> SparkColumn:
    """Return whether two rows hold equal values; NULL equals NULL."""
    names = table.column_names
    return all_of(F.col(f"{left}.{name}").eqNullSafe(F.col(f"{right}.{name}")) for name in names)


# --------------------------------------------------------------------------------------------------
# Storage without Spark: S3 or a folder, and the tail of a Delta log
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class StoredObject:
    """One object of a listing: its path below the listed prefix and the fields of its version.

    delivered_as  the path under which an archived object was delivered; empty for other objects
    """

    path: str
    etag: str
    size: int
    modified: dt.datetime
    delivered_as: str = ""

    @property
    def name(self) -> str:
        """Return the delivered path as writable text; a path on disk may not be UTF-8."""
        path = self.delivered_as or self.path
        return path.encode("utf-8", "backslashreplace").decode("utf-8")

    @property
    def text_bytes(self) -> int:
        """Return the size of the text, estimated for compressed files."""
        return self.size * (GZIP_RATIO if self.path.lower().endswith(".gz") else 1)


class FolderStorage:
    """Objects in a folder; they have no ETag.

    As on S3, `chunks` and `read` raise FileNotFoundError if the object is missing.
    """

    bucket: str | None = None

    def __init__(self, root: str) -> None:
        self.root = root

    def key(self, path: str) -> str:
        return self.root + path

    def list(self, prefix: str = "", after: str = "") -> Sequence[StoredObject]:
        objects = []
        for folder, _, names in os.walk(self.root + prefix):
            for name in names:
                full = os.path.join(folder, name)
                path = os.path.relpath(full, self.root).replace(os.sep, "/")
                if path > prefix + after:
                    stat = os.stat(full)
                    modified = dt.datetime.fromtimestamp(stat.st_mtime_ns // 1000 / 1e6, dt.UTC)
                    objects.append(StoredObject(path, "", stat.st_size, modified))
        return objects

    def chunks(self, path: str, etag: str = "", listed: bool = True) -> Generator[bytes]:
        with open(self.root + path, "rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk

    def read(self, path: str) -> bytes:
        return Path(self.root + path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        target = Path(self.root + path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        part.write_bytes(content)
        part.replace(target)

    def remove(self, prefix: str) -> None:
        for path in Path(self.root).glob(f"{prefix}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def remove_scratch(self, run_id: str) -> None:
        """Remove the scratch files of this run and of killed ones: while this run has the lock, no
        other one is alive."""
        self.remove("run=")

    def move(self, prefix: str, to: str) -> None:
        """Rename the prefix of objects; both prefixes end with `/`."""
        if os.path.exists(self.root + prefix):
            os.makedirs(os.path.dirname(self.root + to[:-1]), exist_ok=True)
            os.replace(self.root + prefix, self.root + to)

    @contextmanager
    def lease(self, run_id: str) -> Iterator[None]:
        """Lock the folder against other runs, or raise LeaseError. The operating system releases
        the lock when the process ends, even if it is killed."""
        import fcntl

        os.makedirs(self.root, exist_ok=True)
        with open(self.root + LEASE, "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)  # empty if the other process has locked but not yet written it
                lease = file.read() or json.dumps(lease_of("of another process"))
                raise LeaseError(lease) from None
            file.truncate(0)
            file.write(json.dumps(lease_of(run_id)))
            file.flush()
            yield


class S3Storage:
    """Objects below an S3 prefix."""

    def __init__(self, root: str) -> None:
        import boto3
        from botocore.config import Config

        self.bucket, _, self.prefix = root[len("s3://") :].partition("/")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        config = Config(
            retries={"mode": "standard", "total_max_attempts": S3_ATTEMPTS},
            connect_timeout=S3_TIMEOUT,
            read_timeout=S3_TIMEOUT,
        )
        self.client = boto3.client("s3", endpoint_url=endpoint, config=config)

    def key(self, path: str) -> str:
        return self.prefix + path

    def list(self, prefix: str = "", after: str = "") -> Sequence[StoredObject]:
        """Return the objects below a prefix whose key is greater than `after`."""
        start = {"StartAfter": self.prefix + prefix + after} if after else {}
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + prefix, **start
        )
        skipped = len(self.prefix)
        return [
            StoredObject(
                item["Key"][skipped:], item["ETag"].strip('"'), item["Size"], item["LastModified"]
            )
            for page in pages
            for item in page.get("Contents", [])
            if not item["Key"].endswith("/")
        ]

    def chunks(self, path: str, etag: str = "", listed: bool = True) -> Generator[bytes]:
        """Yield the bytes of an object; raise ChangedError if its ETag is not the given `etag`.

        An interrupted transfer resumes after the last byte, in the same version. A `listed` object
        is requested once more if S3 does not find it.
        """
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        offset = 0
        for attempt in range(1, S3_ATTEMPTS + 1):
            answer = self._get(path, etag, offset, listed)
            etag = answer["ETag"].strip('"')
            with closing(answer["Body"]) as body:
                try:
                    while chunk := body.read(CHUNK_BYTES):
                        offset += len(chunk)
                        yield chunk
                    return
                except (HTTPClientError, IncompleteReadError) as error:
                    if attempt == S3_ATTEMPTS:
                        raise AccessError(f"S3 ended the transfer early ({error})") from None
            time.sleep(0.1 * 2**attempt)

    def _get(self, path: str, etag: str, offset: int, listed: bool) -> Mapping[str, Any]:
        """Call GetObject from an offset; retry a missing listed object once."""
        condition = {"IfMatch": f'"{etag}"'} if etag else {}
        if offset:
            condition["Range"] = f"bytes={offset}-"
        try:
            answer: Mapping[str, Any] = self.client.get_object(
                Bucket=self.bucket, Key=self.key(path), **condition
            )
        except self.client.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ("NoSuchKey", "404") and listed:
                time.sleep(0.5)
                return self._get(path, etag, offset, listed=False)
            if code in ("NoSuchKey", "404"):
                url = f"s3://{self.bucket}/{self.key(path)}"
                raise FileNotFoundError(f"{url} no longer exists") from None
            if code in ("PreconditionFailed", "412"):
                raise ChangedError(path) from None
            if code in ("AccessDenied", "403", "InvalidObjectState"):
                raise AccessError(f"S3 does not return it ({code})") from None
            raise
        return answer

    def read(self, path: str) -> bytes:
        return b"".join(self.chunks(path, listed=False))

    def write(self, path: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.key(path), Body=content)

    def remove(self, prefix: str) -> None:
        for stored in self.list(prefix):
            self.client.delete_object(Bucket=self.bucket, Key=self.key(stored.path))

    def remove_scratch(self, run_id: str) -> None:
        """Remove the scratch files of this run. A lifecycle rule removes those of killed runs: a
        run that was paused until its lease ran out still needs its own."""
        self.remove(f"run={run_id}/")

    def move(self, prefix: str, to: str) -> None:
        """Rename the prefix of objects; both prefixes end with `/`."""

        def copy(stored: StoredObject) -> None:
            source = {"Bucket": self.bucket, "Key": self.key(stored.path)}
            target = self.key(to + stored.path.removeprefix(prefix))
            self.client.copy(source, self.bucket, target)

        map_concurrently(copy, self.list(prefix))
        self.remove(prefix)

    @contextmanager
    def lease(self, run_id: str) -> Iterator[None]:
        """Lock the prefix against other runs, or raise LeaseError. The lease of a killed run
        expires LEASE_SECONDS after its last renewal."""
        lease = S3Lease(self.client, self.bucket, self.key(LEASE), lease_of(run_id))
        lease.take()
        renewer = threading.Thread(target=lease.renew, daemon=True)
        renewer.start()
        try:
            yield
        finally:
            lease.ended.set()
            renewer.join()
            lease.release()


def lease_of(run_id: str) -> dict[str, str]:
    return {"run_id": run_id, "since": iso(dt.datetime.now(dt.UTC)), "token": uuid.uuid4().hex}


class S3Lease:
    """An object that one run creates, renews and removes by conditional requests.

    All times are S3's. `token` identifies the holder. After a lost response and the client's retry,
    it also shows whether the write was carried out.
    """

    def __init__(self, client: Any, bucket: str, key: str, holder: Mapping[str, str]) -> None:
        self.client, self.place, self.holder = client, {"Bucket": bucket, "Key": key}, holder
        self.etag, self.renewals = "", 0
        self.ended = threading.Event()

    def take(self) -> None:
        """Create the lease or replace an expired one; raise LeaseError if another run renews it."""
        condition, last_etag = {"IfNoneMatch": "*"}, ""
        while not self._write(condition):
            text, etag, age = self._read()
            expired = age >= LEASE_SECONDS
            condition = {"IfMatch": etag} if expired else {"IfNoneMatch": "*"}
            if last_etag and etag not in (last_etag, "") and not expired:  # renewed meanwhile
                raise LeaseError(text)
            if etag and not expired:  # the holder is running, or was killed a moment ago
                self.ended.wait(1)
            last_etag = etag

    def _write(self, condition: Mapping[str, str]) -> bool:
        """Write the lease on a condition; return whether this run holds it."""
        self.renewals += 1
        body = json.dumps({**self.holder, "renewals": self.renewals})
        try:
            self.etag = self.client.put_object(**self.place, Body=body, **condition)["ETag"]
            return True
        except self.client.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            if code not in ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"):
                raise
        text, etag, _ = self._read()
        if not text or json.loads(text)["token"] != self.holder["token"]:
            return False
        self.etag = etag
        return True

    def _read(self) -> tuple[str, str, float]:
        """Return the lease's text, ETag and age in seconds; empty if there is none."""
        try:
            answer = self.client.get_object(**self.place)
        except self.client.exceptions.NoSuchKey:
            return "", "", 0.0
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (now - answer["LastModified"]).total_seconds()
        return answer["Body"].read().decode("utf-8"), answer["ETag"], age

    def renew(self) -> None:
        """Renew the lease until it ends or another run takes it; Delta then refuses the commits."""
        from botocore.exceptions import BotoCoreError, ClientError

        while not self.ended.wait(RENEWAL_SECONDS):
            try:
                if not self._write({"IfMatch": self.etag}):
                    LOG.warning("another run has taken the lease")
                    return
            except (BotoCoreError, ClientError) as error:  # the next renewal may succeed
                LOG.warning("the lease could not be renewed: %s", error)

    def release(self) -> None:
        """Remove the lease if this run still holds it; otherwise it expires."""
        from botocore.exceptions import BotoCoreError, ClientError

        with suppress(BotoCoreError, ClientError):
            self.client.delete_object(**self.place, IfMatch=self.etag)


Storage = FolderStorage | S3Storage


def storage(path: str) -> Storage:
    """Return the storage below a path that ends with `/`."""
    return S3Storage(path) if path.startswith("s3://") else FolderStorage(path)


@dataclass(frozen=True)
class LogCommit:
    """One commit of a Delta log, read from its JSON."""

    version: int
    operation: str
    run_id: str | None  # None if no run of this job made it
    added: tuple[str, ...]  # paths of data files
    removed: tuple[str, ...]
    metrics: Mapping[str, str]  # Delta's operationMetrics

    def metric(self, *names: str) -> int:
        """Return the first of some metrics that the commit has, or 0."""
        return next((int(self.metrics[name]) for name in names if name in self.metrics), 0)

    @property
    def inserted(self) -> int:
        """Return the rows inserted by a WRITE or MERGE."""
        return self.metric("numTargetRowsInserted", "numOutputRows")

    @property
    def deleted(self) -> int:
        return self.metric("numTargetRowsDeleted", "numDeletedRows")


class DeltaLog:
    """The tail of a table's transaction log, after the last checkpoint, read without Spark."""

    def __init__(self, table_path: str) -> None:
        self.path = table_path.rstrip("/") + "/"
        self.storage = storage(self.path)

    def versions(self, after: int = -1) -> list[int]:
        """Return the versions after `after` that have a JSON file, ascending."""
        start = f"{after:020d}.json" if after >= 0 else ""
        versions = []
        for stored in self.storage.list(LOG_PREFIX, start):
            name = stored.path.rsplit("/", 1)[-1]
            if re.fullmatch(r"\d{20}\.json", name):
                if not stored.size:
                    raise DamageError(f"{self.path}{stored.path} is empty")
                versions.append(int(name[:20]))
        return sorted(versions)

    def latest(self) -> int:
        """Return the latest version, or -1 if there is no table."""
        checkpoint = -1
        with suppress(FileNotFoundError, ValueError, KeyError):  # the file is an optional hint
            text = self.storage.read(f"{LOG_PREFIX}_last_checkpoint")
            checkpoint = int(json.loads(text)["version"])
        return max(self.versions(checkpoint), default=checkpoint)

    def commits(self, after: int) -> list[LogCommit]:
        return map_concurrently(self.commit, self.versions(after))

    def commit(self, version: int) -> LogCommit:
        path = f"{LOG_PREFIX}{version:020d}.json"
        try:
            text = b"".join(self.storage.chunks(path))
            actions = [json.loads(line) for line in text.splitlines() if line]
        except (FileNotFoundError, ValueError) as error:
            raise DamageError(f"{self.path}{path} is not a complete Delta commit") from error
        info: dict[str, Any] = next(
            (action["commitInfo"] for action in actions if "commitInfo" in action), {}
        )
        return LogCommit(
            version,
            info.get("operation", ""),
            json.loads(info.get("userMetadata") or "{}").get("run_id"),
            tuple(action["add"]["path"] for action in actions if "add" in action),
            tuple(action["remove"]["path"] for action in actions if "remove" in action),
            info.get("operationMetrics", {}),
        )


# --------------------------------------------------------------------------------------------------
# Step 1, discover: list and classify the files
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Layout:
    """The format of a file's rows, detected from its first bytes.

    Layouts that differ only in `line` and `above` are equal.
    line     the header line as written
    names    column names: the table's name for a recognized column, else lower-case text
    titles   the names as written, letters and digits only
    spare    whether each row has an extra empty field, for which `names` has ''
    quote    the quote character
    points   whether a point in amounts is certainly a decimal point
    returns  whether a lone carriage return ends a line
    above    the lines above the header
    """

    line: str = field(compare=False)
    names: tuple[str, ...]
    titles: tuple[str, ...] = ()
    delimiter: str = ","
    spare: bool = False
    quote: str = '"'
    points: bool = True
    returns: bool = False
    above: tuple[str, ...] = field(default=(), compare=False)

    @property
    def fixes_rejects(self) -> bool:
        """Whether the file consists of rejected rows that were fixed."""
        return set(REJECT_COLUMNS) <= set(self.names)


@dataclass(frozen=True)
class RawFile:
    """One file of the raw zone with its outcome.

    digest      SHA-256 of its bytes; empty if they were not read
    outcome     loaded, duplicate, set_aside, changed or unreadable
    first_path  if the ledger has the file: the path of its first delivery
    twin_of     path of an earlier file of this run with the same bytes
    repack      whether Spark would misread its compression: the name and the gzip magic bytes
                disagree, or zeros follow the gzip stream
    cut         whether its last line has no line end
    """

    stored: StoredObject
    dataset: str | None = None
    digest: str = ""
    layout: Layout = Layout("", ())
    outcome: str = "loaded"
    reason: str | None = None
    detail: str | None = None
    ignored_columns: tuple[str, ...] = ()
    first_path: str = ""
    twin_of: str = ""
    repack: bool = False
    cut: bool = False

    @property
    def replayed(self) -> bool:
        return bool(self.first_path)

    @property
    def ledger_key(self) -> tuple[str, str, str, int, str]:
        """Return the file's key in the order of LEDGER_KEY: a loaded file is known by its content
        alone, other files by their path too, since each path is reported once."""
        path = "" if self.outcome == "loaded" else self.stored.name
        return self.outcome, self.dataset or "", self.digest, self.stored.size, path

    @property
    def source(self) -> dict[str, Any]:
        """Return the file's version as FILE_COLUMNS."""
        stored = self.stored
        values = (stored.name, self.digest, stored.size, stored.modified.isoformat())
        return dict(zip(FILE_COLUMNS, values, strict=True))

    @property
    def destination(self) -> str:
        """Return where the archiver moves the file: archive, rejected, or raw for not at all."""
        moves = {"loaded": "archive", "duplicate": "archive", "set_aside": "rejected"}
        return moves.get(self.outcome, "raw")


@dataclass(frozen=True)
class Discovered:
    """The files of a run in the order of delivery; `archived` files are never overwritten."""

    files: tuple[RawFile, ...]
    archived: bool = False

    @property
    def to_load(self) -> dict[int, RawFile]:
        """Return the files to load by number, which is their index in `files`."""
        return {place: raw for place, raw in enumerate(self.files) if raw.outcome == "loaded"}

    @property
    def text_bytes(self) -> int:
        return sum(raw.stored.text_bytes for raw in self.to_load.values())

    @property
    def large(self) -> bool:
        return self.text_bytes > LARGE_BYTES

    @property
    def anything_new(self) -> bool:
        return bool(self.to_load) or any(
            is_recorded(raw) and not raw.replayed for raw in self.files
        )


def is_recorded(raw: RawFile) -> bool:
    """Return whether the ledger gets a row for the file."""
    return raw.outcome in ("loaded", "set_aside", "unreadable")


def discover(arguments: JobArguments) -> Discovered:
    """List the raw zone once and read each object once for its digest and header."""
    store = storage(arguments.raw_path)
    now = dt.datetime.now(dt.UTC)
    listed = [stored for stored in store.list() if is_delivery(stored, now)]
    listed.sort(key=lambda stored: (stored.modified, stored.path))
    inspected = map_concurrently(functools.partial(inspect, store), listed)
    return Discovered(tuple(raw for raw in inspected if raw is not None))


def mark_duplicates(files: Discovered, ledger: LakeTable, force: bool) -> Discovered:
    """Mark files that the ledger has, and files whose bytes an earlier file of this run has."""
    recorded = recorded_files(ledger, files.files)
    first_paths: dict[tuple[str, str, str, int, str], str] = {}
    marked = []
    for raw in files.files:
        first = recorded.get(raw.ledger_key)
        raw = replace(raw, first_path=first["file_path"] if first else "")
        if raw.outcome == "loaded" and raw.ledger_key in first_paths:
            raw = replace(raw, twin_of=first_paths[raw.ledger_key])
            raw = duplicate(raw, f"are delivered as {raw.twin_of} in this run")
        elif raw.outcome == "loaded" and first and not force:
            day = first["ingested_at"].date().isoformat()
            raw = duplicate(raw, f"were loaded as {raw.first_path} by {first['run_id']} on {day}")
        elif raw.outcome == "loaded":
            first_paths[raw.ledger_key] = raw.stored.path
        marked.append(raw)
    return replace(files, files=tuple(marked))


def duplicate(raw: RawFile, evidence: str) -> RawFile:
    detail = f"{raw.stored.name}: the same bytes {evidence}"[:TEXT_LIMIT]
    return replace(raw, outcome="duplicate", detail=detail)


LEDGER_KEY = {
    "outcome": "outcome",
    "dataset": "coalesce(dataset, '')",
    "file_digest": "file_digest",
    "file_size": "file_size",
    "path": "CASE WHEN outcome = 'loaded' THEN '' ELSE file_path END",
}


def recorded_files(ledger: LakeTable, files: Iterable[RawFile]) -> dict[tuple[Any, ...], Any]:
    """Return the first delivery (ingested_at, run_id, file_path) of files in the ledger, by key.
    The semi-join keeps the cost independent of the ledger's size."""
    if not ledger.exists:
        return {}
    names = list(LEDGER_KEY)
    lookups = [dict(zip(names, raw.ledger_key, strict=True)) for raw in files]
    ddl = "outcome STRING, dataset STRING, file_digest STRING, file_size BIGINT, path STRING"
    keys = F.broadcast(local_frame(ledger.spark, lookups, ddl).distinct())
    rows = ledger.frame.select(
        *[F.expr(text).alias(name) for name, text in LEDGER_KEY.items()],
        F.struct("ingested_at", "run_id", "file_path").alias("delivery"),
    )
    matches = rows.join(keys, names, how="left_semi").collect()
    latest_first = sorted(matches, key=lambda row: row["delivery"], reverse=True)
    return {tuple(row[name] for name in names): row["delivery"] for row in latest_first}


UNFINISHED = r"(?i)(\.(filepart|part|partial|tmp|crdownload)|\._copying_)\Z|(^|/)_temporary(/|\Z)"
METADATA_FILES = (  # marker and metadata files of tools and desktops
    r"(?i)((^|/)_success|_\$folder\$|\.crc|/)\Z|\A\Z"
    r"|(^|/)(\.ds_store|thumbs\.db|desktop\.ini|\._[^/]*|~\$[^/]*|\.~lock\.[^/]*#)\Z"
)
UNUSABLE_PATH = r"//|\A/|(^|/)\.{1,2}(/|\Z)|[\ud800-\udfff]"  # Hadoop normalizes it, or no UTF-8


def is_delivery(stored: StoredObject, now: dt.datetime) -> bool:
    """Return whether an object is a delivery; an unfinished upload becomes one after a day."""
    if re.search(UNFINISHED, stored.path):
        return now - stored.modified > dt.timedelta(days=1)
    return not re.search(METADATA_FILES, stored.path)


class Digested:
    """Pass chunks through; after the last one, `sha256` and `size` are complete."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks, self.sha256, self.size = chunks, hashlib.sha256(), 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            self.sha256.update(chunk)
            self.size += len(chunk)
            yield chunk


def inspect(store: Storage, stored: StoredObject) -> RawFile | None:
    """Read an object to its end and classify it; None if it has gone since the listing, because the
    previous run is still being archived."""
    raw = RawFile(stored, dataset_of(stored.path))
    if re.search(UNUSABLE_PATH, stored.path):
        return set_aside(raw, "unusable_path")
    try:
        with closing(store.chunks(stored.path, stored.etag)) as chunks:
            content = Digested(chunks)
            pieces = iter(content)
            raw = with_header(raw, pieces)
            for _ in pieces:
                pass
    except FileNotFoundError:
        return None
    except ChangedError:
        return changed(raw)
    except (AccessError, PermissionError) as error:
        return unreadable(raw, str(error))
    raw = replace(raw, digest=content.sha256.hexdigest())
    return raw if content.size == stored.size else changed(raw)


def dataset_of(path: str) -> str | None:
    """Return the dataset of a path or None; `order-items` and `OrderItems_2025` match too."""
    name = path.lower()
    hidden = path.rsplit("/", 1)[-1].startswith(("_", "."))
    if hidden or not re.search(r"\.csv(\.gz)?\Z", name):
        return None
    for table in sorted(TABLES, key=lambda table: -len(table.dataset)):
        words = (re.escape(word.removesuffix("s")) + "s?" for word in table.dataset.split("_"))
        if re.match("[-_ ]?".join(words) + r"(?![a-z0-9])", name):
            return table.dataset
    return None


def set_aside(raw: RawFile, reason: str, evidence: str = "") -> RawFile:
    """Mark a file that cannot be loaded as a whole; `evidence` quotes the offending content."""
    detail = f"{raw.stored.name}: {FILE_REASONS[reason]}" + (f" ({evidence})" if evidence else "")
    return replace(raw, outcome="set_aside", reason=reason, detail=detail[:TEXT_LIMIT])


def unreadable(raw: RawFile, cause: str) -> RawFile:
    """Mark a file that cannot be read; it stays in place and is reported once."""
    remedy = "restore it, allow the job to read it, or delete it"
    detail = f"{raw.stored.name}: {cause}; {remedy}"[:TEXT_LIMIT]
    return replace(raw, outcome="unreadable", reason="unreadable", detail=detail)


def changed(raw: RawFile) -> RawFile:
    """Mark a file that has changed since it was listed."""
    detail = "overwritten or deleted while the run read it; it stays for the next run"
    return replace(raw, outcome="changed", detail=f"{raw.stored.name}: {detail}")


def with_header(raw: RawFile, chunks: Iterator[bytes]) -> RawFile:
    """Return a file with its layout, or set aside with a reason; may leave chunks unread."""
    if re.search(UNFINISHED, raw.stored.path):
        return set_aside(raw, "unfinished_upload")
    if raw.dataset is None:
        return set_aside(raw, "unknown_dataset")
    if not raw.stored.size:
        return set_aside(raw, "empty_file")
    try:
        content = FileText(chunks)
        head = content.head()
        for _ in content:
            pass
    except zlib.error as error:
        return set_aside(raw, "truncated_gzip", str(error))
    other = next((what for begin, what in OTHER_FORMATS if re.match(begin, head, re.DOTALL)), None)
    if other:
        return set_aside(raw, "wrong_format", other)
    first = head.split(b"\n", 1)[0]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or 0.3 < first.count(0) / max(len(first), 1) < 0.8:
        return set_aside(raw, "utf16")
    name = raw.stored.path if SPARK_3 else raw.stored.path.lower()  # Spark unpacks by this name
    repack = content.padded or content.packed != name.endswith(".gz")
    raw = replace(raw, repack=repack, cut=not content.ended)
    return with_layout(raw, head.decode("utf-8", errors="replace"))


SAVE_AS_CSV = "save it as CSV UTF-8"
OTHER_FORMATS = (  # first bytes of other formats, the format and the remedy
    (rb"PK\x03\x04.{,3000}?xl/", f"an Excel workbook: {SAVE_AS_CSV}"),
    (rb"PK\x03\x04.{26}mimetypeapplication/vnd\.oasis", f"an OpenDocument file: {SAVE_AS_CSV}"),
    (rb"PK\x03\x04.{26}\[Content_Types\]", f"an Office document: {SAVE_AS_CSV}"),
    (rb"PK\x03\x04", "a zip archive: unpack it and upload the CSV files in it"),
    (rb"\xd0\xcf\x11\xe0", f"an old Excel workbook: {SAVE_AS_CSV}"),
    (rb"%PDF", "a PDF: export the data as CSV"),
    (rb"\x1f\x8b", "a gzip file within a gzip file: unpack it once"),
    (rb".{257}ustar", "a tar archive: unpack it and upload the CSV files in it"),
    (rb"PAR1|ORC|Obj\x01", "a Parquet, ORC or Avro file: export the data as CSV"),
    (rb"BZh\d1AY|\x28\xb5\x2f\xfd|7z\xbc\xaf|\xfd7zXZ|Rar!", "packed, but not by gzip: unpack it"),
    (
        rb"(?i)(\xef\xbb\xbf)?\s*(<!doctype|<html|<\?xml|<error)",
        "a page of HTML or XML, perhaps an error of the server it came from: export it again",
    ),
)


class FileText:
    """The text of a file in chunks; a gzip stream is unpacked, all of its members.

    Raises zlib.error if the stream is damaged or truncated. After reading, `packed` is true for a
    gzip stream, `padded` if zeros follow it, and `ended` if the text ends with a line end.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.packed = self.padded = self.ended = False
        self._chunks = self._text(chunks)

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            if chunk:
                self.ended = chunk[-1:] in (b"\n", b"\r", b"\x1a")
                yield chunk

    def head(self) -> bytes:
        """Return the first HEAD_BYTES, without leading blank lines."""
        head = b""
        for chunk in self:
            head = re.sub(rb"\A[ \t\r\n]*[\r\n]", b"", head + chunk[:HEAD_BYTES])
            if len(head) >= HEAD_BYTES:
                break
        return head[:HEAD_BYTES]

    def _text(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        first = b""
        while len(first) < 2 and (chunk := next(chunks, b"")):
            first += chunk
        self.packed = first[:2] == b"\x1f\x8b"
        yield from (
            self._unpacked(first, chunks) if self.packed else itertools.chain([first], chunks)
        )

    def _unpacked(self, first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
        unpacker = zlib.decompressobj(31)
        for chunk in itertools.chain([first], chunks):
            while chunk:
                if unpacker.eof:
                    remaining = chunk.lstrip(b"\0")
                    self.padded |= remaining != chunk
                    if not remaining:
                        break
                    chunk, unpacker = remaining, zlib.decompressobj(31)
                yield unpacker.decompress(chunk)
                chunk = unpacker.unused_data
        if not unpacker.eof:
            raise zlib.error("the gzip stream is truncated")


def with_layout(raw: RawFile, text: str) -> RawFile:
    """Detect the header and its delimiter: the first record, or, if that names no column, the first
    complete header below at most ABOVE_HEADER lines that are not rows."""
    text = text.lstrip("\ufeff")
    table = next(table for table in TABLES if table.dataset == raw.dataset)
    starts = list(header_starts(text))
    if not starts:
        return set_aside(raw, "empty_file")
    columns = table.column_names
    start, layout = starts[0], best_layout(text[starts[0] :], table)
    if not set(columns) & set(layout.names):
        below = ((start, best_layout(text[start:], table)) for start in starts[1:])
        whole = (
            (start, candidate) for start, candidate in below if set(columns) <= set(candidate.names)
        )
        start, layout = next(whole, (start, layout))
    problem = header_problem(layout, columns, text[start:])
    above = [line for line in re.split(LINE_BREAK, text[:start]) if line.strip(BLANKS)]
    titles = [line for line in above if not is_blank_line(line)]
    lone_return = bool(titles) and not layout.returns and "\r" in text[:start].replace("\r\n", "")
    glued = lone_return or any(line.count('"') % 2 for line in above)
    wide = any((line.count(layout.delimiter) + 1) * 2 > len(layout.names) for line in titles)
    if not problem and (glued or wide):
        problem = (
            "no_header",
            "a quote or a lone carriage return stands above it" if glued else "rows stand above it",
        )
    if problem:
        return set_aside(raw, *problem)
    expected = {*columns, *(REJECT_COLUMNS if layout.fixes_rejects else ())}
    ignored = tuple(name for name in layout.names if name not in expected)
    layout = replace(with_rows(layout, table, text[start:]), above=tuple(above))
    skipped = f"{raw.stored.name}: {len(titles)} lines above the header are skipped"
    detail = skipped[:TEXT_LIMIT] if titles else None
    return replace(raw, layout=layout, ignored_columns=ignored, detail=detail)


ABOVE_HEADER = 20  # lines


def header_starts(text: str) -> Iterator[int]:
    """Yield the positions at which the header may start: the first lines that are not blank."""
    lines = itertools.islice(re.finditer(rf"([^\r\n]*)(?:{LINE_BREAK}|\Z)", text), 1000)
    starts = (line.start() for line in lines if not is_blank_line(line.group(1)))
    return itertools.islice(starts, ABOVE_HEADER + 1)


def is_blank_line(line: str) -> bool:
    """Return whether a line has no value, or only names the delimiter."""
    bare = line.strip(BLANKS + END_OF_FILE + '",;|')
    return not bare or bool(re.match(DELIMITER_LINE, line.strip()))


def with_rows(layout: Layout, table: Table, text: str) -> Layout:
    """Add what the first rows show: the quote, the spare column, the decimal point."""
    layout = replace(layout, quote="'" if quoted_singly(text, layout) else '"')
    rows = head_rows(text, layout)
    wide = len(layout.names) + 1
    if rows and all(len(row) == wide and not row[-1].strip() for row in rows):
        layout = replace(layout, names=(*layout.names, ""), spare=True)
    places = [
        layout.names.index(column.name) for column in table.columns if column.type == "DOUBLE"
    ]
    amounts = [row[place].strip() for row in rows for place in places if place < len(row)]
    return replace(layout, points=layout.delimiter == "," or points_are_decimal(amounts))


def head_rows(text: str, layout: Layout) -> list[Sequence[str]]:
    """Return the complete, non-blank records below the header in the head of a file."""
    if layout.quote != '"':
        text = text.translate(str.maketrans(SWAPPED_QUOTES, SWAPPED_QUOTES[::-1]))
    rows = [record for record, _ in csv_records(text, layout.delimiter)][1:]
    rows = rows if len(text) < HEAD_BYTES // 4 else rows[:-1]  # the last may be truncated
    return [row for row in rows if any(cell.strip(BLANKS) for cell in row)]


def quoted_singly(text: str, layout: Layout) -> bool:
    """Return whether every value in the head of a file is in single quotes."""
    value = r"[ \t]*'[^']*(?:''[^']*)*'[ \t]*"
    row = rf"{value}(?:{re.escape(layout.delimiter)}{value})*"
    lines = re.split(LINE_BREAK, text)[1:]
    lines = lines if len(text) < HEAD_BYTES // 4 else lines[:-1]  # the last may be truncated
    rows = [line for line in lines if not is_blank_line(line)]
    return bool(rows) and all(re.fullmatch(row, line) for line in rows)


def points_are_decimal(amounts: Iterable[str]) -> bool:
    """Return whether points are decimal: some amount has other than three digits behind its point,
    and no amount has a comma."""
    amounts = list(amounts)
    decimal = any(re.fullmatch(r"[+-]?\d+\.(\d{1,2}|\d{4,})", amount) for amount in amounts)
    return decimal and not any("," in amount for amount in amounts)


def header_problem(layout: Layout, columns: Sequence[str], text: str) -> tuple[str, str] | None:
    """Return the reason why a header is unusable, with evidence, or None."""
    missing = [name for name in columns if name not in layout.names]
    if len(missing) == len(columns):
        garbled = re.search("[\ufffd\0]", layout.line)
        return ("binary", "") if garbled else ("no_header", _header_evidence(text, columns))
    counts = Counter(layout.names)
    repeated = [name for name, count in counts.items() if count > 1 and name in columns]
    if missing:
        others = [name for name in layout.names if name and name not in columns]
        similar_names = [
            similar for name in missing for similar in difflib.get_close_matches(name, others, 1)
        ]
        hint = f"; did you mean {', '.join(map(repr, similar_names))}?" if similar_names else ""
        return "missing_column", ", ".join(missing) + hint
    return ("duplicate_column", ", ".join(repeated)) if repeated else None


DELIMITERS = (",", ";", "\t", "|")
SWAPPED_QUOTES = "'\""


def best_layout(text: str, table: Table) -> Layout:
    """Return the header at the start of a text, by the delimiter that yields most columns."""
    layouts = [read_header(text, delimiter, table) for delimiter in DELIMITERS]
    return max(layouts, key=lambda layout: len(set(table.column_names) & set(layout.names)))


def read_header(text: str, delimiter: str, table: Table) -> Layout:
    """Read the first record of a text by a delimiter; no names if a quote in it is unclosed."""
    names, lines = next(csv_records(text, delimiter), ((), 1))
    line = "".join(itertools.islice(io.StringIO(text, newline=""), lines))
    returns = line.endswith("\r")
    line = line.rstrip("\r\n")
    if not re.fullmatch(closed_pattern(delimiter).removesuffix(r"\z"), line):
        names = ()
    titles = tuple(title_of(name) for name in names)
    written = [name.strip(BLANKS + "'").lower() for name in names]
    return Layout(line, column_names(written, titles, table), titles, delimiter, returns=returns)


def title_of(name: str) -> str:
    """Return a name's letters and digits in lower case: `Order ID` and `order_id` are equal."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def column_names(written: Sequence[str], titles: Sequence[str], table: Table) -> tuple[str, ...]:
    """Return the names of a header, the table's for each recognized column. A name spelled like the
    column has precedence; other spellings must be unique."""
    names = list(written)
    for column in table.columns:
        if column.name in names:
            continue
        spellings = {title_of(name) for name in (column.name, *column.also)}
        places = [place for place, title in enumerate(titles) if title in spellings]
        if len(places) == 1 and names[places[0]] not in table.column_names:
            names[places[0]] = column.name
    return tuple(names)


def csv_records(text: str, delimiter: str) -> Iterator[tuple[Sequence[str], int]]:
    """Yield the records in the head of a file, each with the number of its last line."""
    blank = delimiter != "\t"
    source = io.StringIO(text, newline="")
    records = csv.reader(source, delimiter=delimiter, skipinitialspace=blank)
    with suppress(csv.Error):  # only a preview: the parser judges every record
        for record in records:
            yield record, records.line_num


def _header_evidence(text: str, columns: Sequence[str]) -> str:
    """Describe the text in place of a header."""
    line = re.split(LINE_BREAK, text, maxsplit=1)[0]
    for sign in (*":/~^!*-", *DELIMITERS):
        if set(columns) <= {name.strip(BLANKS + '"').lower() for name in line.split(sign)}:
            broken = sign in DELIMITERS
            return "a broken quote" if broken else f"its columns are separated by {sign!r}"
    cut = len(line.encode()) >= HEAD_BYTES
    return "it reads " + ("a line of more than 64 kB" if cut else repr(line[:80]))


# --------------------------------------------------------------------------------------------------
# Spark, and the tables at the versions that the run starts from
# --------------------------------------------------------------------------------------------------
SPARK_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "false",  # casts behave alike on Spark 3.5 and 4.1
    "spark.sql.parquet.compression.codec": "zstd",  # Athena bills bytes: half of snappy's
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # INT96 has no statistics
    "spark.sql.parquet.int96RebaseModeInWrite": "CORRECTED",  # Spark 3.5 fails on days before 1582
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.codegen.hugeMethodLimit": "8000",  # the JIT never compiles a longer method
    "spark.sql.adaptive.enabled": "false",  # re-planning costs more than it saves
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "16",  # tasks per listing
    # Each costs a query per commit, and nothing reads the result
    "spark.databricks.delta.allFilesInCrc.enabled": "false",
    "spark.databricks.delta.fileSizeHistogramMetrics.enabled": "false",
    # Compact by the threshold of small files; the default rewrites every modified partition
    "spark.databricks.delta.autoCompact.modifiedPartitionsOnly.enabled": "false",
    "spark.databricks.delta.properties.defaults.dataSkippingNumIndexedCols": "8",
}
DELTA_SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}
INTERPRETED = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}
COMMIT_STAMP = "spark.databricks.delta.commitInfo.userMetadata"
WRITE_SETTINGS = "spark.databricks.delta.write."
REWRITES = ("OPTIMIZE", "VACUUM START", "VACUUM END")  # commits that leave all rows unchanged


def spark_session(text_bytes: int = 0, local: bool = False) -> SparkSession:
    """Return the session of Glue or `spark-submit`; if `local`, one with Delta's jars from Maven.

    text_bytes  size of the batch, which determines the number of shuffle partitions
    """
    builder = SparkSession.builder.appName("Lakehouse").config(
        "spark.python.sql.dataFrameDebugging.enabled",
        "false",  # it costs six calls to Java per column
    )
    if local:
        from delta import configure_spark_with_delta_pip

        for name, value in DELTA_SETTINGS.items():
            builder = builder.config(name, value)
        builder = configure_spark_with_delta_pip(builder)
    spark = builder.getOrCreate()
    for name, value in SPARK_SETTINGS.items():
        spark.conf.set(name, value)
    cores = spark.sparkContext.defaultParallelism
    spark.conf.set("spark.sql.files.minPartitionNum", str(cores))
    partitions = max(cores, min(400, text_bytes // (48 << 20)))
    spark.conf.set("spark.sql.shuffle.partitions", str(partitions))
    return spark


def local_frame(spark: SparkSession, rows: Sequence[Mapping[str, Any]], ddl: str) -> DataFrame:
    """Return a few rows of the driver as a frame that needs no Python worker.

    `rows` hold JSON values, and times as ISO text.
    """
    texts = F.from_json(F.lit(json.dumps(rows)), f"ARRAY<STRUCT<{ddl}>>")
    frame = spark.sql("SELECT 1").select(F.inline(texts))
    return frame if rows else frame.where(F.lit(False))


@contextmanager
def settings(spark: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """Set Spark's configuration within a block and restore it afterwards."""
    before = {name: spark.conf.get(name, None) for name in values}
    for name, value in values.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, old)


@dataclass(frozen=True)
class LakeTable:
    """A Delta table at the version that the run starts from.

    before   that version, -1 if there is no table yet
    frame    its rows at that version, unaffected by later commits; NULL in missing columns
    missing  (name, type) of declared columns that the table lacks
    """

    spark: SparkSession
    path: str
    log: DeltaLog
    before: int
    frame: DataFrame
    missing: tuple[tuple[str, str], ...] = ()

    @property
    def exists(self) -> bool:
        return self.before >= 0

    def add_columns(self, stamp: str) -> None:
        """Add the missing columns in one commit."""
        if self.missing:
            added = ", ".join(f"`{name}` {kind}" for name, kind in self.missing)
            with settings(self.spark, {COMMIT_STAMP: stamp}):
                self.spark.sql(f"ALTER TABLE delta.`{self.path}` ADD COLUMNS ({added})")

    def append(
        self, rows: DataFrame, stamp: str, partition: str | None = None, **attributes: str
    ) -> None:
        """Append in one commit; the first append creates the table with its properties. A
        `txnAppId` in `attributes` makes the commit happen once, whichever run writes it."""
        options = {"userMetadata": stamp, **self.fence(1), **attributes}
        if not self.exists:
            options |= TABLE_PROPERTIES
        writer = rows.write.format("delta").mode("append").options(**options)
        with nullcontext() if "txnAppId" in attributes else self.sole_writer(stamp):
            (writer.partitionBy(partition) if partition else writer).save(self.path)

    def fence(self, nth: int) -> dict[str, str]:
        """Return the options that make Delta refuse this run's nth commit if another run has
        committed since this run opened the table: both use one txnVersion, which Delta accepts
        once."""
        return {"txnAppId": "lakehouse", "txnVersion": str(2 * (self.before + 1) + nth)}

    @contextmanager
    def sole_writer(self, stamp: str) -> Iterator[None]:
        """Raise JobError if another run has written the table since this run opened it."""
        failure: Exception | None = None
        try:
            yield
        except Exception as error:  # Delta's errors on concurrent writes, among others
            failure = error
        commits = [
            commit for commit in self.log.commits(self.before) if commit.operation not in REWRITES
        ]
        run_id = json.loads(stamp)["run_id"]
        # A RESTORE with this run's id comes from a run that considered this one killed
        foreign = [
            commit for commit in commits if commit.run_id != run_id or commit.operation == "RESTORE"
        ]
        others = sorted({commit.run_id or "another writer" for commit in foreign})
        if others or not (commits or failure):
            raise JobError(
                f"{self.path}: {', '.join(others) or 'another run'} has written this table since "
                f"the run {run_id} began. That run did not change it: run again"
            ) from failure
        if failure:
            raise failure

    def append_rows(
        self,
        rows: Sequence[Mapping[str, Any]],
        ddl: str,
        stamp: str,
        partition: str | None = None,
        **attributes: str,
    ) -> None:
        """Append a few rows of the driver, or none."""
        frame = local_frame(self.spark, rows, ddl)
        # No shuffle for a single file
        self.append(frame, stamp, partition, optimizeWrite="false", **attributes)

    def merge(
        self, rows: DataFrame, condition: str, clauses: str, stamp: str, nth: int = 1
    ) -> None:
        """MERGE rows (alias s) into the table (alias t), as this run's nth commit to the table."""
        rows.createOrReplaceTempView("lakehouse_merge_source")
        fence = {f"{WRITE_SETTINGS}{name}": value for name, value in self.fence(nth).items()}
        try:
            with settings(self.spark, {COMMIT_STAMP: stamp, **fence}), self.sole_writer(stamp):
                self.spark.sql(
                    f"MERGE INTO delta.`{self.path}` t USING lakehouse_merge_source s "
                    f"ON {condition} {clauses}"
                )
        finally:
            self.spark.catalog.dropTempView("lakehouse_merge_source")

    def rows_between(self, column: str, least: str, greatest: str) -> DataFrame:
        """Return the rows with a key in a range of text; Delta skips files by their statistics."""
        return self.frame.where(F.col(column).between(least, greatest))

    def summary(self) -> dict[str, Any]:
        """Return the run's changes to the table for the summary. The job's own tables have no row
        count, which would cost a query each."""
        commits = self.log.commits(after=self.before)
        version = max([self.before, *(commit.version for commit in commits)])
        added = [path for commit in commits for path in commit.added]
        rows = None
        if self.path.rsplit("/", 1)[-1] not in JOB_TABLES:
            # Delta counts by its statistics, and the log of `frame` is loaded already
            before = self.frame.count() if self.exists else 0
            rows = before + sum(commit.inserted - commit.deleted for commit in commits)
        return {
            "version": version if version >= 0 else None,
            "rows": rows,
            "schema_changed": version >= 0
            and (not self.exists or any(commit.operation == "ADD COLUMNS" for commit in commits)),
            "files_added": len(added),
            "files_removed": sum(len(commit.removed) for commit in commits),
            "dates": _days(added),
        }

    def rows_at(self, version: int) -> int:
        """Return the number of rows at a version, 0 for -1; Delta counts by its statistics."""
        return self.at(version).count() if version >= 0 else 0

    def at(self, version: int) -> DataFrame:
        return self.spark.read.format("delta").option("versionAsOf", version).load(self.path)


def _days(files: Iterable[str]) -> list[list[str]]:
    """Return the days of data files as spans [first, last], ascending; as one if too many."""
    days = {file.split("/")[0].removeprefix("date=") for file in files if file.startswith("date=")}
    spans: list[list[str]] = []
    for day in sorted(days):
        if spans and day == _day_after(spans[-1][1]):
            spans[-1][1] = day
        else:
            spans.append([day, day])
    return spans if len(spans) <= SUMMARY_SPANS else [[spans[0][0], spans[-1][1]]]


def _day_after(day: str) -> str | None:
    """Return the next day; None for the last date or a partition that is not a date."""
    try:
        return (dt.date.fromisoformat(day) + dt.timedelta(days=1)).isoformat()
    except (OverflowError, ValueError):
        return None


Lake = Mapping[str, LakeTable]


def schemas() -> dict[str, str]:
    """Return the DDL of each table, including the job's own tables."""
    return {table.name: table.ddl for table in TABLES} | JOB_TABLES


def open_lake(spark: SparkSession, arguments: JobArguments) -> Lake:
    """Open all tables at their current versions; raise DamageError if a table is older than the
    last run left it. Opening changes nothing."""
    names = list(schemas())
    logs = {name: DeltaLog(arguments.path_of(name)) for name in names}
    latest = map_concurrently(lambda name: logs[name].latest(), names)
    versions = dict(zip(names, latest, strict=True))
    check_versions(arguments, versions)

    def open_by_name(name: str) -> LakeTable:
        path = arguments.path_of(name)
        try:
            return open_table(spark, path, logs[name], versions[name])
        except (Py4JJavaError, PySparkException) as error:  # Delta's text does not name the table
            raise JobError(f"{path}: {cause_of(error)}") from error

    return dict(zip(names, map_concurrently(open_by_name, names), strict=True))


def new_lake(spark: SparkSession, arguments: JobArguments) -> Lake:
    """Return all tables as before the first run."""
    paths = {name: arguments.path_of(name) for name in schemas()}
    return {name: open_table(spark, path, DeltaLog(path), -1) for name, path in paths.items()}


def open_table(spark: SparkSession, path: str, log: DeltaLog, version: int) -> LakeTable:
    """Open a table at a version, or return an empty table if the version is -1."""
    empty = local_frame(spark, [], schemas()[os.path.basename(path)])
    table = LakeTable(spark, path, log, version, empty)
    if version < 0:
        return table
    check_protocol(spark, path)
    frame = table.at(version)
    missing = tuple((column, kind) for column, kind in empty.dtypes if column not in frame.columns)
    nulls = {column: F.lit(None).cast(kind) for column, kind in missing}
    return replace(table, frame=frame.withColumns(nulls), missing=missing)


VERSIONS = "versions.json"


def check_versions(arguments: JobArguments, current: Mapping[str, int]) -> None:
    """Raise DamageError if a table is gone, or older than the last run left it.

    The expected versions are stored outside the tables: a lost log cannot reveal its own loss.
    """
    try:
        expected = json.loads(storage(arguments.runs_path).read(VERSIONS))
    except FileNotFoundError:
        return
    lost = [
        f"{arguments.path_of(name)} was left at version {version} by the run {expected['run_id']} "
        + (f"and is at version {current[name]}" if current[name] >= 0 else "and is gone")
        for name, version in expected["versions"].items()
        if current[name] < version
    ]
    if lost:
        raise DamageError("; ".join(lost))


def write_versions(arguments: JobArguments, versions: Mapping[str, int]) -> None:
    """Write the versions of the tables for the next run's check."""
    text = json.dumps({"run_id": arguments.run_id, "versions": dict(versions)})
    storage(arguments.runs_path).write(VERSIONS, text.encode("utf-8"))


def check_protocol(spark: SparkSession, path: str) -> None:
    """Raise JobError if another engine has upgraded a table beyond Athena's protocol."""
    rows = spark.sql(f"SHOW TBLPROPERTIES delta.`{path}`").collect()
    properties: dict[str, str] = {row["key"]: row["value"] for row in rows}
    versions = [int(properties[f"delta.min{side}Version"]) for side in ("Reader", "Writer")]
    if versions[0] > 1 or versions[1] > 2:
        raise JobError(
            f"{path}: the table needs Delta reader {versions[0]} and writer {versions[1]}; this "
            "job and Athena work with reader 1 and writer 2. Another engine has changed its "
            "features: drop them (ALTER TABLE ... DROP FEATURE), or restore the table; nothing was "
            "written"
        )


def session_settings(large: bool) -> dict[str, str]:
    """Return the settings for a run's plans. A small batch is interpreted: compiling its plans,
    each of which runs once, would take a quarter of the time."""
    return {} if large else INTERPRETED


# --------------------------------------------------------------------------------------------------
# Step 2, stage: read the raw text once, as typed rows and rows with reasons
#
# Internal columns that functions pass on beside the table's columns:
#   _file      INT      the file's number, its index among the files of the run; NULL for a row that
#                       an earlier run parked
#   _split     BIGINT   offset of the input split in the file; 0 for records that span lines, and
#                       for rows of rejected_records
#   _mid       BIGINT   increases line by line within a split; the line in the file if _split is 0
#                       for these reasons
#   _raw       STRING   the unchanged line, or all lines of a record
#   _kind      INT      RECORD, BLANK, HEADER, OTHER_HEADER (same names in another order); on the
#                       fast path also UNPARSED, or OPEN for UNPARSED with an open quote
#   _reasons   ARRAY    reasons for rejection, NULL for a valid row; in resolve the parents that
#                       have not arrived, each as `reason:key`
#   _fields    MAP      a rejected row's texts by column; NULL if the line could not be split
#   _source    STRUCT   resolve: the file of a row that an earlier run parked: path, digest, size,
#                       modified (microseconds); NULL for a row of this run
#   _replayed  BOOLEAN  the row was delivered before the table's row, and so loses every tie with it
#   _standing  STRING   resolve: comparison with the table's row: absent, same, newer, moved (newer,
#                       with another parent) or older
#   _old_day   DATE     resolve: the partition that holds the key now
#   _outcome   STRING   resolve: one of OUTCOMES, or conflicting: superseded by a row of the same
#                       file that contradicts it
# --------------------------------------------------------------------------------------------------
RECORD, BLANK, HEADER, OTHER_HEADER, UNPARSED, OPEN = range(6)
VALID = f"_kind = {RECORD} AND _reasons IS NULL"
BAD = f"_kind = {RECORD} AND _reasons IS NOT NULL"
ROW_PLACE = ["_file", "_split", "_mid"]
PLACE = [*ROW_PLACE, "_raw"]
STAGED_DDL = (
    "_file INT, _split BIGINT, _mid BIGINT, _raw STRING, _kind INT, _reasons ARRAY<STRING>, "
    "_fields MAP<STRING, STRING>, "
)
# Take paths literally: no wildcards, and no partition columns from `date=...` folders
PLAIN_PATHS = {"__globPaths__": "false", "recursiveFileLookup": "true"}
# Without dictionaries and indexes ORC takes half the CPU of Parquet. Times are stored as numbers,
# because ORC would write them in the machine's time zone, where some hours occur twice.
SCRATCH_OPTIONS = {
    "compression": "lz4",
    "orc.dictionary.key.threshold": "0",
    "orc.create.index": "false",
}
TO_NUMBER = {"timestamp": F.unix_micros, "date": F.unix_date}
FROM_NUMBER = {"timestamp": F.timestamp_micros, "date": F.date_from_unix_date}
LINE_BREAK = r"\r\n|\n|\r"
CONTROL_CHARACTER = r"[\x00-\x08\x0e-\x1f\x7f]"
END_OF_FILE = "\x1a"  # Ctrl-Z, the end of a DOS file
DELIMITER_LINE = "^(?i:sep=).?$"  # Excel's first line
LATIN_1 = "".join(chr(byte) for byte in range(0x80, 0x100))
RAW_BYTES = "".join(chr(0xEF00 + byte) for byte in range(0x80, 0x100))  # private use characters
FEWEST_ROWS = 20  # fewer rows, or moved rows, never set a file aside


@dataclass(frozen=True)
class Scratch:
    """Storage for frames that are read more than once: memory, or ORC files if `on_disk`."""

    spark: SparkSession
    path: str
    on_disk: bool

    def materialize(self, frame: DataFrame, name: str) -> DataFrame:
        """Compute a frame once; in memory, when it is first read."""
        if not self.on_disk:
            return frame.localCheckpoint(eager=False)
        path, types = self.path + name, frame.dtypes
        numbers = frame.select(_converted(types, TO_NUMBER))
        numbers.write.mode("overwrite").options(**SCRATCH_OPTIONS).orc(path)
        stored = self.spark.read.schema(numbers.schema).orc(path)
        return stored.select(_converted(types, FROM_NUMBER))


def _converted(
    types: Sequence[tuple[str, str]], converters: Mapping[str, Callable[[str], SparkColumn]]
) -> list[SparkColumn]:
    """Return the columns of a frame (name, type), converting those of some types."""
    return [
        converters[kind](name).alias(name) if kind in converters else F.col(name)
        for name, kind in types
    ]


@dataclass(frozen=True)
class RowCounts:
    """The counts of one file: rows, rejected rows and headers."""

    rows: int = 0
    rejected: int = 0
    headers: int = 0
    other_headers: int = 0

    def mostly_rejected(self, percent: int) -> bool:
        return self.rows >= FEWEST_ROWS and self.rejected * 100 > self.rows * percent


@dataclass(frozen=True)
class ReadDataset:
    """All lines of a dataset's files, before files are set aside for their content.

    rows     a row per line: the columns above and the table's
    counts   file number -> its counts
    offsets  (file, split, offset that turns _mid into the line in the file)
    by_day   whether each split holds few days, so that writing by day needs no shuffle
    """

    table: Table
    scratch: Scratch
    rows: DataFrame
    counts: Mapping[int, RowCounts]
    offsets: tuple[tuple[int, int, int], ...]
    by_day: bool


@dataclass(frozen=True)
class StagedDataset:
    """The lines of the dataset's files that are loaded.

    rows     a row per line: the columns above (with _replayed) and the table's
    files    file number -> file
    counts   file number -> its counts
    offsets, by_day  as in ReadDataset
    """

    table: Table
    scratch: Scratch
    rows: DataFrame
    files: Mapping[int, RawFile]
    counts: Mapping[int, RowCounts]
    offsets: tuple[tuple[int, int, int], ...]
    by_day: bool

    @property
    def large(self) -> bool:
        return self.scratch.on_disk

    @property
    def valid(self) -> DataFrame:
        """Return the rows without reasons."""
        return self.rows.where(VALID)

    @property
    def sources(self) -> DataFrame:
        """Return the files by number: _file, FILE_COLUMNS."""
        rows = [{"_file": number, **raw.source} for number, raw in self.files.items()]
        return F.broadcast(local_frame(self.scratch.spark, rows, f"_file INT, {FILE_DDL}"))

    def with_place(self, rows: DataFrame) -> DataFrame:
        """Add the file of each row (FILE_COLUMNS) and `line`, its first line in the file."""
        names = ("_file", "_split", "_offset")
        offsets = [dict(zip(names, place, strict=True)) for place in self.offsets]
        ddl = "_file INT, _split BIGINT, _offset BIGINT"
        places = F.broadcast(local_frame(self.scratch.spark, offsets, ddl))
        placed = rows.join(places, ["_file", "_split"]).join(self.sources, "_file")
        return placed.withColumn("line", F.col("_mid") + F.col("_offset")).drop("_offset")


@dataclass(frozen=True)
class Staged:
    """The result of stage: all files with their outcomes, and the datasets by name."""

    files: tuple[RawFile, ...]
    datasets: Mapping[str, StagedDataset]

    @property
    def loaded(self) -> dict[int, RawFile]:
        return {n: raw for dataset in self.datasets.values() for n, raw in dataset.files.items()}


def stage(spark: SparkSession, arguments: JobArguments, discovered: Discovered) -> Staged:
    """Read every file to load once; skip files that changed, and set bad files aside."""

    def read(table: Table) -> ReadDataset:
        files = {n: raw for n, raw in discovered.to_load.items() if raw.dataset == table.dataset}
        path = f"{arguments.scratch_path}run={arguments.run_id}/{table.dataset}/"
        scratch = Scratch(spark, path, discovered.large and bool(files))
        return read_dataset(arguments, table, scratch, files)

    datasets = map_concurrently(read, TABLES)
    judged = dict(enumerate(discovered.files))
    for dataset in datasets:
        judged |= validate_content(dataset, judged, arguments.max_rejected_percent)
    if not discovered.archived:
        judged |= changed_files(arguments, discovered.to_load)
    files = tuple(follow_twin(raw, judged.values()) for raw in judged.values())
    staged = {dataset.table.dataset: admit_files(dataset, files) for dataset in datasets}
    return Staged(files, staged)


def admit_files(dataset: ReadDataset, files: Sequence[RawFile]) -> StagedDataset:
    """Return the dataset with only the rows of files that are still to be loaded."""
    loaded = {n: files[n] for n in dataset.counts if files[n].outcome == "loaded"}
    replayed_files = [number for number, raw in loaded.items() if raw.replayed]
    rows = dataset.rows
    if len(loaded) < len(dataset.counts):
        rows = rows.where(F.col("_file").isin(list(loaded)))
    replayed = F.col("_file").isin(replayed_files) if replayed_files else F.lit(False)
    return StagedDataset(
        dataset.table,
        dataset.scratch,
        rows.withColumn("_replayed", replayed),
        loaded,
        {number: dataset.counts[number] for number in loaded},
        dataset.offsets,
        dataset.by_day,
    )


def validate_content(
    read: ReadDataset, files: Mapping[int, RawFile], percent: int
) -> dict[int, RawFile]:
    """Return the files of a dataset, by number, that must not be loaded for their content."""
    bad = [number for number, counted in read.counts.items() if counted.mostly_rejected(percent)]
    reasons = reasons_by_file(read.rows, bad) if bad else {}
    judged = {}
    for number, counts in read.counts.items():
        raw = files[number]
        if not counts.headers:
            judged[number] = unreadable(raw, "not even its header came back when it was read")
        elif counts.other_headers:
            judged[number] = set_aside(raw, "mixed_headers")
        elif number in reasons:
            evidence = f"{counts.rejected} of {counts.rows} rows: {', '.join(reasons[number][:5])}"
            judged[number] = set_aside(raw, "mostly_rejected", evidence)
    return judged


def reasons_by_file(rows: DataFrame, numbers: Sequence[int]) -> dict[int, list[str]]:
    """Return each file's reasons with their row counts, the commonest first."""
    rows = rows.where(F.col("_file").isin(list(numbers)))
    reasons = rows.select("_file", F.explode("_reasons").alias("reason"))
    groups = reasons.groupBy("_file", "reason").count().orderBy(F.col("count").desc(), "reason")
    by_file: dict[int, list[str]] = {number: [] for number in numbers}
    for group in groups.collect():
        by_file[group["_file"]].append(f"{group['reason']} {group['count']}")
    return by_file


def follow_twin(raw: RawFile, files: Iterable[RawFile]) -> RawFile:
    """Return the twin of an earlier file: a duplicate if that is loaded, else with its outcome."""
    if not raw.twin_of:
        return raw
    first = next(file for file in files if file.stored.path == raw.twin_of)
    if first.outcome == "loaded":
        return raw
    detail = f"{raw.stored.name}: the same bytes as {first.detail}"[:TEXT_LIMIT]
    return replace(raw, outcome=first.outcome, reason=first.reason, detail=detail)


def changed_files(arguments: JobArguments, files: Mapping[int, RawFile]) -> dict[int, RawFile]:
    """Return the files, by number, that have changed since the listing."""
    now = {stored.path: stored for stored in storage(arguments.raw_path).list()}

    def is_unchanged(stored: StoredObject) -> bool:
        current = now.get(stored.path)
        if current is None or current.size != stored.size:
            return False
        return current.etag == stored.etag if current.etag else current.modified == stored.modified

    return {number: changed(raw) for number, raw in files.items() if not is_unchanged(raw.stored)}


# -- lines -----------------------------------------------------------------------------------------
def read_path(arguments: JobArguments, number: int, raw: RawFile) -> str:
    """Return the path for Spark; repack a file whose compression Spark would misread."""
    if not raw.repack:
        return arguments.raw_path + raw.stored.path
    path = f"run={arguments.run_id}/repacked/{number}.csv.gz"
    with closing(storage(arguments.raw_path).chunks(raw.stored.path)) as chunks:
        packed = gzip.compress(b"".join(FileText(chunks)), 1)
    storage(arguments.scratch_path).write(path, packed)
    return arguments.scratch_path + path


def read_dataset(
    arguments: JobArguments, table: Table, scratch: Scratch, files: Mapping[int, RawFile]
) -> ReadDataset:
    """Read the files of a dataset: large batches by the fast path and the parser for the remaining
    lines, small batches by the parser alone. Files of one layout are read together."""
    if not files:
        rows = local_frame(scratch.spark, [], STAGED_DDL + table.ddl)
        return ReadDataset(table, scratch, rows, {}, (), False)
    paths = {number: read_path(arguments, number, raw) for number, raw in files.items()}
    groups = by_layout(files, paths)
    latest = latest_times(files)
    if scratch.on_disk:
        headers = {raw.layout.line for raw in files.values()}
        parts = [
            fast_path(read_lines(scratch.spark, layout_paths), table, layout, headers, latest)
            for layout, layout_paths in groups.items()
        ]
    else:
        parts = [unparsed_lines(read_lines(scratch.spark, paths), table)]
    lines = scratch.materialize(union(parts), "lines")
    profiles = profile(lines, table).collect()
    multi_line = {row["_file"] for row in profiles if row["open"]}
    parsed = parse_remaining_lines(lines, table, groups, latest, profiles, multi_line)
    parts = [lines.where((F.col("_kind") < UNPARSED) & ~of_files(multi_line))]
    counted = [row for row in profiles if row["_file"] not in multi_line]
    if parsed:
        parts.append(scratch.materialize(union(parsed), "parsed"))
        counted += profile(parts[-1], table).collect()
    return ReadDataset(
        table,
        scratch,
        union(parts),
        row_counts(counted, files),
        line_offsets(profiles, multi_line),
        has_daily_splits(counted),
    )


def by_layout(
    files: Mapping[int, RawFile], paths: Mapping[int, str]
) -> dict[Layout, dict[int, str]]:
    """Group the paths of files, by number, by layout. In `above` each line becomes `number:line`,
    since a line above one header may be a row of another file."""
    groups: dict[Layout, dict[int, str]] = {}
    above: dict[Layout, list[str]] = {}
    for number, raw in files.items():
        groups.setdefault(raw.layout, {})[number] = paths[number]
        lines = [f"{number}:{line}" for line in raw.layout.above]
        above.setdefault(raw.layout, []).extend(lines)
    return {replace(layout, above=tuple(above[layout])): group for layout, group in groups.items()}


def parse_remaining_lines(
    lines: DataFrame,
    table: Table,
    groups: Mapping[Layout, Mapping[int, str]],
    latest: SparkColumn,
    profiles: Sequence[Any],
    multi_line: set[int],
) -> list[DataFrame]:
    """Parse the lines that the fast path left: line by line, or record by record in files with a
    line break in a quoted field."""
    unparsed = {row["_file"] for row in profiles if row["unparsed"]} - multi_line
    parsed = []
    for layout, numbers in groups.items():
        by_line, by_record = unparsed & set(numbers), multi_line & set(numbers)
        if by_line:
            remaining = lines.where((F.col("_kind") >= UNPARSED) & of_files(by_line)).select(PLACE)
            parsed.append(parse_lines(remaining, table, layout, latest))
        if by_record:
            records = join_quoted_lines(lines.where(of_files(by_record)).select(PLACE), layout)
            parsed.append(parse_lines(records, table, layout, latest))
    return parsed


def latest_times(files: Mapping[int, RawFile]) -> SparkColumn:
    """Return the latest plausible time of a row by file (`_file`): a day after its delivery."""
    days = {n: raw.stored.modified + dt.timedelta(days=1) for n, raw in files.items()}
    numbers = [
        int(days[n].timestamp()) if n in days else 0 for n in range(max(files, default=0) + 1)
    ]
    seconds = F.from_json(F.lit(json.dumps(numbers)), "array<bigint>")
    return F.timestamp_seconds(F.get(seconds, F.col("_file")))


def of_files(numbers: set[int]) -> SparkColumn:
    return F.col("_file").isin(sorted(numbers)) if numbers else F.lit(False)


def bare_path(path: str) -> str:
    """Return a path without scheme and leading slashes, which Spark writes in several forms."""
    return re.sub(r"^\w+:/*|^/+", "", path)


def read_lines(spark: SparkSession, paths: Mapping[int, str]) -> DataFrame:
    """Return a row (PLACE) for each line of the files, which are given by number and path."""
    text = spark.read.options(**PLAIN_PATHS).option("lineSep", "\n").text(list(paths.values()))
    numbers = {bare_path(path): number for number, path in paths.items()}
    files = []
    for name in text.inputFiles():  # as input_file_name() writes them
        number = numbers.get(bare_path(urllib.parse.unquote(name)))
        if number is None:
            raise JobError(f"Spark read {name}, which is not in the listing: run again")
        files.append({"_name": name, "_file": number})
    file_numbers = F.broadcast(local_frame(spark, files, "_name STRING, _file INT"))
    lines = text.selectExpr(
        "input_file_name() AS _name",
        "input_file_block_start() AS _split",
        "monotonically_increasing_id() AS _mid",
        "value AS _raw",
    )
    return lines.join(file_numbers, "_name").select(PLACE)


def line_text() -> SparkColumn:
    """Return `_raw` without the carriage return of a Windows line end; invalid UTF-8 is preserved.

    Only lines with a carriage return are trimmed, because trim copies each line.
    """
    raw = F.col("_raw")
    return F.when(raw.endswith("\r"), F.expr("trim(TRAILING '\\r' FROM _raw)")).otherwise(raw)


# -- the fast path ---------------------------------------------------------------------------------
def plain_line(layout: Layout, table: Table) -> str:
    """Return a regular expression for the lines of a layout that have only plain values."""
    values = {
        column.name: PLAIN_IDENTIFIER if column.identifier else PLAIN_VALUES[column.type]
        for column in table.columns
    }
    cells = [values.get(name, UNUSED_VALUE) for name in layout.names]
    if layout.fixes_rejects:
        cells = [f"(?!'){cell}" for cell in cells]
    if layout.spare:
        cells[-1] = ""
    return "^" + re.escape(layout.delimiter).join(cells) + r"\z"


def cells_of(table: Table, layout: Layout) -> dict[str, SparkColumn]:
    """Return each column's cell in `_cells`."""
    return {name: F.get("_cells", layout.names.index(name)) for name in table.column_names}


def unparsed_lines(lines: DataFrame, table: Table) -> DataFrame:
    """Return the lines of a small batch as staged columns, all unparsed: compiling the fast path
    would take longer than it saves."""
    kind = F.when(leaves_quote_open(F.col("_raw")), OPEN).otherwise(UNPARSED)
    values = [F.lit(None).cast(column.type).alias(column.name) for column in table.columns]
    return lines.select(*PLACE, kind.alias("_kind"), *no_reasons(), *values)


def no_reasons() -> list[SparkColumn]:
    """Return empty _reasons and _fields."""
    types = {"_reasons": "array<string>", "_fields": "map<string,string>"}
    return [F.lit(None).cast(kind).alias(name) for name, kind in types.items()]


def fast_path(
    lines: DataFrame, table: Table, layout: Layout, headers: Iterable[str], latest: SparkColumn
) -> DataFrame:
    """Return nearly all lines as staged columns, by one regular expression and plain casts.

    _kind is UNPARSED or OPEN if a value is not plain or a check may fail; these lines go to the
    parser. For all other lines the parser gives the same result.
    """
    text = F.col("_text")
    # Carriage returns before the last one end lines of their own, so the line is not plain
    plain_end = ~F.col("_raw").endswith("\r\r")
    lines = lines.select(*PLACE, F.when(plain_end, line_text()).alias("_text"))
    plain = text.rlike(plain_line(layout, table))
    cells = F.split(F.when(plain, text), re.escape(layout.delimiter), -1)
    lines = lines.select(*PLACE, text.isin(*headers).alias("_header"), cells.alias("_cells"))
    texts = [
        F.when((cell != "") & (cell != NULL_TEXTS[0]), cell).alias(f"_t_{name}")
        for name, cell in cells_of(table, layout).items()
    ]
    lines = lines.select(*PLACE, "_header", F.col("_cells").isNotNull().alias("_plain"), *texts)
    written = {column.name: F.col(f"_t_{column.name}") for column in table.columns}
    values = [plain_value(check, written[check.name]).alias(check.name) for check in table.columns]
    lines = lines.select("*", *values)
    conditions = parser_conditions(table, layout, latest)
    accepted = F.col("_plain") & ~any_of(F.coalesce(check, F.lit(False)) for check in conditions)
    kind = (
        F.when(F.col("_header"), HEADER)
        .when(accepted, RECORD)
        .when(leaves_quote_open(F.col("_raw")), OPEN)
        .otherwise(UNPARSED)
    )
    return lines.select(*PLACE, kind.alias("_kind"), *no_reasons(), *table_values(table))


def parser_conditions(table: Table, layout: Layout, latest: SparkColumn) -> list[SparkColumn]:
    """Return the conditions, on values and `_t_<column>`, that send a line to the parser."""
    written = {column.name: F.col(f"_t_{column.name}") for column in table.columns}
    checks = [
        F.col(column.name).isNull() & (F.lit(column.required) | written[column.name].isNotNull())
        for column in table.columns
        if column.required or column.type != "STRING"
    ]
    checks += [rule.broken(written.__getitem__, F.col) for rule in table.rules]
    checks += [F.col(table.version) > latest] if table.version else []
    if not layout.points:
        amounts = [column.name for column in table.columns if column.type == "DOUBLE"]
        checks += [written[name].rlike(POINT_THOUSANDS_SHAPE) for name in amounts]
    # A possible repeated header; the first, cheap comparison excludes most keys
    least = min(title.upper() for title in layout.titles if title)
    title = F.translate(F.lower(table.key), "_-", "")
    repeated_header = (F.col(table.key) >= least) & title.isin(*layout.titles)
    return [*checks, repeated_header]


def leaves_quote_open(line: SparkColumn) -> SparkColumn:
    """Return whether a line ends in quotes or with a backslash, or has an inner carriage return."""
    quotes = F.length(line) - F.length(F.replace(line, F.lit('"'), F.lit("")))
    returns = F.octet_length(line) - F.octet_length(F.replace(line, F.lit("\r"), F.lit("")))
    inner_return = returns > F.when(line.endswith("\r"), 1).otherwise(0)
    return (quotes % 2 == 1) | inner_return | line.endswith("\\") | line.endswith("\\\r")


def table_values(table: Table) -> list[SparkColumn]:
    """Return the typed columns; a missing partition is derived from the version's day."""
    columns = {name: F.col(name) for name in table.column_names}
    if table.partition and table.version:
        day = F.to_date(table.version)
        columns[table.partition] = F.coalesce(table.partition, day).alias(table.partition)
    return list(columns.values())


# -- the parser ------------------------------------------------------------------------------------
def blank_class(delimiter: str) -> str:
    return "[ ]" if delimiter == "\t" else r"[ \t]"


def quoted_field(delimiter: str) -> str:
    blank = blank_class(delimiter)
    return rf'{blank}*+"[^"]*+(?:""[^"]*+)*+"{blank}*+'


def record_pattern(layout: Layout) -> str:
    """Return a pattern for a record and its line end.

    Quoted fields may contain line breaks if all of them are closed; otherwise the record is one
    line. An unquoted value continues after a backslash at a line end, and after a carriage return
    that ends no line in this file, unless a complete row follows.
    """
    sign, blank = re.escape(layout.delimiter), blank_class(layout.delimiter)
    cell = rf"[^{sign}\r\n]*+"
    whole_row = rf"(?:{cell}{sign}){{{len(layout.names) - 1}}}{cell}(?:[\r\n]|\z)"
    breaks = rf"\\(?>{LINE_BREAK})" + ("" if layout.returns else r"|\r(?!\n)")
    going_on = rf"(?:{breaks})(?!\z|{whole_row})"
    bare = rf'(?!{blank}*")(?:[^{sign}\r\n\\]|{going_on}|\\)*+'
    field = rf"(?:{quoted_field(layout.delimiter)}|{bare})"
    return rf"({field}(?:{sign}{field})*+(?=[\r\n]|\z)|[^\r\n]*+)(?:{LINE_BREAK}|\z)"


def closed_pattern(delimiter: str) -> str:
    """Return a pattern for a record with all quotes closed and no text behind a closing quote."""
    sign, quoted = re.escape(delimiter), quoted_field(delimiter)
    field = rf'(?:{quoted}|(?!{blank_class(delimiter)}*")[^{sign}]*+)'
    return rf"^{field}(?:{sign}{field})*+\z"


def cell_pattern(delimiter: str) -> str:
    """Return a pattern for a field after its delimiter."""
    sign = re.escape(delimiter)
    return rf"{sign}({quoted_field(delimiter)}|[^{sign}]*+)"


def join_quoted_lines(lines: DataFrame, layout: Layout) -> DataFrame:
    """Return PLACE for each record of files that have a line break in a quoted field.

    `lines` are all lines of these files. A record with an unclosed quote is one line. Regular
    expressions would destroy invalid UTF-8, so non-ASCII bytes pass through as RAW_BYTES.
    """
    as_bytes = F.decode(F.col("_raw").cast("binary"), "ISO-8859-1")
    as_bytes = F.translate(F.regexp_replace(as_bytes, "^(\xef\xbb\xbf)+", ""), LATIN_1, RAW_BYTES)
    lines = lines.select(*ROW_PLACE, as_bytes.alias("_raw"))
    in_order = F.sort_array(F.collect_list(F.struct("_split", "_mid", "_raw")))
    text = F.concat_ws("\n", F.transform(in_order, lambda line: line["_raw"]))
    files = lines.groupBy("_file").agg(text.alias("_all"))
    matches = F.regexp_extract_all(F.col("_all"), F.lit(record_pattern(layout)), F.lit(1))
    records = files.select("_file", F.posexplode(matches).alias("_nth", "_raw"))
    original = F.encode(F.translate("_raw", RAW_BYTES, LATIN_1), "ISO-8859-1").cast("string")
    records = records.withColumn("_raw", original)
    before = Window.partitionBy("_file").orderBy("_nth").rowsBetween(Window.unboundedPreceding, -1)
    lines_before = F.sum(F.size(F.split("_raw", LINE_BREAK))).over(before)
    line = F.coalesce(lines_before, F.lit(0)) + 1
    split = F.lit(0).cast("bigint").alias("_split")
    return records.select("_file", split, line.alias("_mid"), "_raw")


def parse_lines(lines: DataFrame, table: Table, layout: Layout, latest: SparkColumn) -> DataFrame:
    """Parse lines or records (PLACE) into the staged columns."""
    rows = split_fields(lines, table, layout)
    texts = [_cell_text(column, layout).alias(f"_t_{column.name}") for column in table.columns]
    return validate_texts(rows.select(*PLACE, "_kind", "_broken", *texts), table, latest)


def validate_texts(rows: DataFrame, table: Table, latest: SparkColumn) -> DataFrame:
    """Parse and check records (PLACE, _kind, _broken, `_t_<column>`) into staged columns."""
    written = {column.name: F.col(f"_t_{column.name}") for column in table.columns}
    values = [parse(column, written[column.name]).alias(column.name) for column in table.columns]
    rows = rows.select("*", *values)
    checks: dict[str, SparkColumn] = {}
    for column in table.columns:
        checks |= column_reasons(column, written[column.name], F.col(column.name))
    checks["control_character"] = has_invisible_character(written, table)
    if table.version:
        checks[f"future_{table.version}"] = F.col(table.version) > latest
    checks |= {rule.reason: rule.broken(written.__getitem__, F.col) for rule in table.rules}
    broken = F.col("_broken").isNotNull()
    reasons = F.when(broken, F.array("_broken")).otherwise(reasons_of(checks))
    rows = rows.select("*", F.when(F.col("_kind") == RECORD, reasons).alias("_reasons"))
    fields = F.when(~broken & F.col("_reasons").isNotNull(), text_map(written))
    return rows.select(*PLACE, "_kind", "_reasons", fields.alias("_fields"), *table_values(table))


def _cell_text(column: ColumnSpec, layout: Layout) -> SparkColumn:
    """Return the text of a column. In files without commas as delimiter, amounts are normalized:
    `12,50` to 12.50 and `1.234,50` to 1234.50; `1.234` becomes the ambiguous `1,234` unless points
    are decimal."""
    text = value_text(column, F.col(f"_c_{column.name}"))
    if column.type != "DOUBLE" or layout.delimiter == ",":
        return text
    text = F.when(text.rlike(POINTS_AND_COMMA_SHAPE), F.translate(text, ".", "")).otherwise(text)
    text = F.when(text.rlike(DECIMAL_COMMA_SHAPE), F.translate(text, ",", ".")).otherwise(text)
    if layout.points:
        return text
    as_written = F.col(f"_c_{column.name}").rlike(POINT_THOUSANDS_SHAPE)
    return F.when(as_written, F.translate(text, ".", ",")).otherwise(text)


def split_fields(lines: DataFrame, table: Table, layout: Layout) -> DataFrame:
    """Add _kind, _broken (why the record is malformed, or NULL) and the texts `_c_<column>`; for a
    file of fixed rows also `_c_where`."""
    text = F.col("_text")
    bare = F.regexp_replace("_raw", "^\ufeff+|\r\\z", "")
    lines = lines.select(*PLACE, swap_quotes(bare, layout).alias("_text"))
    pattern = F.lit(cell_pattern(layout.delimiter))
    quoted = F.regexp_extract_all(F.concat(F.lit(layout.delimiter), text), pattern, F.lit(1))
    delimiter = re.escape(layout.delimiter)
    cells = F.when(~text.contains('"'), F.split(text, delimiter, -1))
    cells = cells.when(text.rlike(closed_pattern(layout.delimiter)), F.transform(quoted, _unquoted))
    bare_breaks = text.rlike("[\r\n]") & F.exists(
        quoted, lambda cell: ~cell.rlike('^[ \t]*"') & cell.rlike("[\r\n]")
    )
    cells = F.transform(cells, lambda cell: swap_quotes(cell, layout))
    lines = lines.select(*PLACE, "_text", cells.alias("_cells"), bare_breaks.alias("_bare_breaks"))
    wide, spare = len(layout.names), int(layout.spare)
    filled = F.lit(layout.spare) & (F.size("_cells") == wide)
    filled &= trimmed(F.element_at("_cells", -1)) != ""

    def is_row(line: SparkColumn) -> SparkColumn:
        within = F.substring_index(line, '"', 1)  # the part inside the quoted field
        return (F.size(F.split(line, delimiter, -1)) == wide) & within.contains(layout.delimiter)

    further = F.split(F.regexp_replace(text, rf"^[^\r\n]*+(?:{LINE_BREAK})?+", ""), LINE_BREAK)
    swallowed = F.exists(further, is_row)
    broken = (
        F.when(~valid_utf8(F.col("_raw")), "invalid_utf8")
        .when(text.rlike(CONTROL_CHARACTER), "control_character")
        .when(F.col("_cells").isNull(), "unclosed_quote")
        .when(F.col("_bare_breaks"), "broken_line")
        .when(text.rlike("[\r\n]") & swallowed, "swallowed_row")
        .when(F.size("_cells") < wide - spare, "too_few_fields")
        .when((F.size("_cells") > wide) | filled, "too_many_fields")
    )
    kind = kind_of_line(table, layout).alias("_kind")
    by_column = cells_of(table, layout)
    if layout.fixes_rejects:
        by_column["where"] = trimmed(F.get("_cells", layout.names.index("where")))
        by_column = {name: F.regexp_replace(cell, "^'", "") for name, cell in by_column.items()}
    texts = [cell.alias(f"_c_{name}") for name, cell in by_column.items()]
    return lines.select(*PLACE, kind, broken.alias("_broken"), *texts)


def swap_quotes(text: SparkColumn, layout: Layout) -> SparkColumn:
    """Swap the file's quote character and the double quote in a text; a second call undoes it."""
    return text if layout.quote == '"' else F.translate(text, SWAPPED_QUOTES, SWAPPED_QUOTES[::-1])


def kind_of_line(table: Table, layout: Layout) -> SparkColumn:
    """Return BLANK, HEADER, OTHER_HEADER or RECORD; lines above the header are BLANK."""
    text = F.col("_text")
    filled = F.filter("_cells", lambda cell: ~trimmed(cell).rlike(TABLE_LINE))
    blank = (F.size(filled) == 0) | (text == END_OF_FILE) | text.rlike(DELIMITER_LINE)
    if layout.above:
        blank |= F.concat_ws(":", "_file", text).isin(*layout.above)
    places = {name: layout.names.index(name) for name in table.column_names}
    expected_titles = [layout.titles[place] for place in places.values()]
    may_be_header = _letters(text).contains(layout.titles[places[table.key]])  # a cheap first test
    titles = F.transform("_cells", _letters)
    header = all_of(F.get(titles, place) == layout.titles[place] for place in places.values())
    other = F.size(F.array_except(F.array(*map(F.lit, expected_titles)), titles)) == 0
    return (
        F.when(blank, BLANK)
        .when(may_be_header & header, HEADER)
        .when(may_be_header & other, OTHER_HEADER)
        .otherwise(RECORD)
    )


def _letters(text: SparkColumn) -> SparkColumn:
    """Return a name's letters and digits, like `title_of`."""
    return F.regexp_replace(F.lower(text), r"[^\p{L}\p{N}]", "")


def _unquoted(cell: SparkColumn) -> SparkColumn:
    bare = F.btrim(cell, F.lit(" \t"))
    inner = F.substr(bare, F.lit(2), F.length(bare) - 2)
    plain = F.replace(inner, F.lit('""'), F.lit('"'))
    return F.when(bare.startswith('"'), plain).otherwise(cell)


# -- counts and places of lines --------------------------------------------------------------------
def profile(staged: DataFrame, table: Table) -> DataFrame:
    """Return the aggregates per file and split."""
    day = f"`{table.partition}`" if table.partition else "CAST(NULL AS DATE)"
    aggregates = {
        "lines": "count(*)",
        "first_mid": "min(_mid)",
        "unparsed": f"count_if(_kind >= {UNPARSED})",
        "open": f"bool_or(_kind = {OPEN})",
        "records": f"count_if(_kind = {RECORD})",
        "rejected": f"count_if({BAD})",
        "headers": f"count_if(_kind = {HEADER})",
        "other_headers": f"count_if(_kind = {OTHER_HEADER})",
        "low_day": f"min({day})",
        "high_day": f"max({day})",
    }
    totals = [F.expr(measure).alias(name) for name, measure in aggregates.items()]
    return staged.groupBy("_file", "_split").agg(*totals)


def row_counts(profiles: Iterable[Any], files: Mapping[int, RawFile]) -> dict[int, RowCounts]:
    """Return the counts of each file; each header after the first is a rejected row."""
    sums = {number: Counter[str]() for number in files}
    for row in profiles:
        for name in ("records", "rejected", "headers", "other_headers"):
            sums[row["_file"]][name] += row[name]
    counts = {}
    for number, file_sums in sums.items():
        repeated = max(file_sums["headers"] - 1, 0)
        rows, rejected = file_sums["records"] + repeated, file_sums["rejected"] + repeated
        counts[number] = RowCounts(rows, rejected, file_sums["headers"], file_sums["other_headers"])
    return counts


def line_offsets(profiles: Iterable[Any], multi_line: set[int]) -> tuple[tuple[int, int, int], ...]:
    """Return (file, split, offset): the line in the file is _mid plus the offset."""
    offsets = [(number, 0, 0) for number in multi_line]
    lines_before: Counter[int] = Counter()
    for row in sorted(profiles, key=lambda row: (row["_file"], row["_split"])):
        number = row["_file"]
        if number not in multi_line:
            offset = lines_before[number] + 1 - row["first_mid"]
            offsets.append((number, row["_split"], offset))
            lines_before[number] += row["lines"]
    return tuple(offsets)


def has_daily_splits(profiles: Sequence[Any]) -> bool:
    """Return whether each split holds few days, as in a series of daily exports.

    Delta can write such a batch without a shuffle, which saves a fifth of a first load's CPU.
    """
    spans = [(row["low_day"], row["high_day"]) for row in profiles if row["low_day"] is not None]
    lengths = [(high - low).days + 1 for low, high in spans]
    if not spans or max(lengths) > MAX_DAYS:
        return False
    days = {
        low + dt.timedelta(n)
        for (low, _), length in zip(spans, lengths, strict=True)
        for n in range(length)
    }
    return sum(lengths) <= 2 * len(days)


# --------------------------------------------------------------------------------------------------
# Step 3, resolve: assign exactly one outcome to each row
#
# The same algorithm serves every batch and table. Each row is compared with the table's row of its
# key, and missing parents are determined. If its key is unique in the batch and no parent is
# missing, the outcome follows. The remaining rows are ranked within their key by a window.
# `Keys`, `rows_with_keys`, `compare` and `split_doubtful` decide what a large batch materializes
# and broadcasts; they do not affect the result.
# --------------------------------------------------------------------------------------------------
SOURCE_DDL = "struct<path:string,digest:string,size:bigint,modified:bigint>"
ABSENT, SAME, NEWER, MOVED, OLDER = "absent", "same", "newer", "moved", "older"
BETTER = (ABSENT, NEWER, MOVED)  # the row beats the table's row, or there is none
CONFLICTING = "conflicting"


@dataclass(frozen=True)
class Resolved:
    """The outcomes of one dataset.

    rows      valid rows and the parked rows in question, with _outcome
    counts    file number -> rows by outcome, `rows_read`, `conflicting` (part of superseded) and
              `moved` (part of updated)
    admitted  outcomes of formerly parked rows
    old_days  first and last partition of the rows to update; empty if a row has none
    by_day    whether the rows may be written by day without a shuffle
    """

    table: Table
    rows: DataFrame
    counts: Mapping[int, Counter[str]]
    admitted: Counter[str]
    old_days: tuple[dt.date, ...]
    by_day: bool

    @property
    def totals(self) -> Counter[str]:
        """Return the rows by outcome, including admitted rows, and rows_read."""
        return sum(self.counts.values(), Counter(self.admitted))

    @property
    def changes(self) -> DataFrame:
        """Return the rows to write, in the table's columns."""
        written = F.col("_outcome").isin(INSERTED, UPDATED)
        return self.rows.where(written).select(self.table.column_names)

    @property
    def accepted(self) -> DataFrame:
        """Return the keys (column `key`) of these rows that the table holds after the run."""
        in_table = (F.col("_standing") != ABSENT) | (F.col("_outcome") == INSERTED)
        return self.rows.where(in_table).select(F.col(self.table.key).alias("key"))


def resolve(staged: Staged, lake: Lake, force: bool) -> tuple[Staged, dict[str, Resolved]]:
    """Resolve every dataset, parents first, and drop files whose keys belong to rows of other
    parents, unless `force` loads them; raise ConservationError if a row is lost."""
    rejected = lake["rejected_records"]
    while True:
        files = F.broadcast(loaded_files(rejected.spark, staged))
        parked = rejected.frame.where(F.col("status") == PARKED)
        parked = parked.join(files, FILE_IDENTITY, "left_anti")
        resolved = resolve_datasets(staged.datasets, lake, parked)
        reused = {} if force else files_with_reused_keys(staged, resolved.values())
        if not reused:
            return staged, resolved
        staged = without_files(staged, reused)


def files_with_reused_keys(staged: Staged, resolved: Iterable[Resolved]) -> dict[int, RawFile]:
    """Return files, set aside, most of whose updates would move a row of the table to another
    parent, as in exports that number their items anew each day."""
    reused = {}
    for number, counts in (pair for result in resolved for pair in result.counts.items()):
        moved, updated = counts[MOVED], counts[UPDATED]
        if moved >= FEWEST_ROWS and moved * 2 > updated:
            evidence = f"{moved} of {updated} updates"
            reused[number] = set_aside(staged.files[number], "keys_reused", evidence)
    return reused


def without_files(staged: Staged, bad: Mapping[int, RawFile]) -> Staged:
    """Return the staged files and rows without bad files."""
    files = [bad.get(number, raw) for number, raw in enumerate(staged.files)]
    datasets = {
        name: replace(
            dataset,
            rows=dataset.rows.where(~of_files(set(bad))),
            files={n: raw for n, raw in dataset.files.items() if n not in bad},
            counts={n: counts for n, counts in dataset.counts.items() if n not in bad},
        )
        for name, dataset in staged.datasets.items()
    }
    return Staged(tuple(follow_twin(raw, files) for raw in files), datasets)


def loaded_files(spark: SparkSession, staged: Staged) -> DataFrame:
    """Return the files that the run loads, by FILE_IDENTITY."""
    rows = [{"dataset": raw.dataset, **raw.source} for raw in staged.loaded.values()]
    return local_frame(spark, rows, f"dataset STRING, {FILE_DDL}").select(FILE_IDENTITY)


def resolve_datasets(
    datasets: Mapping[str, StagedDataset], lake: Lake, parked: DataFrame
) -> dict[str, Resolved]:
    """Resolve every dataset, parents first, given the parked rows."""
    parked = parked.localCheckpoint(eager=False)
    done: dict[str, Resolved] = {}

    def resolve_table(table: Table) -> Resolved:
        return resolve_dataset(datasets[table.dataset], lake, parked, done)

    while len(done) < len(TABLES):
        unresolved = [table for table in TABLES if table.dataset not in done]
        ready = [
            table for table in unresolved if all(parent.dataset in done for parent in table.parents)
        ]
        done |= {result.table.dataset: result for result in map_concurrently(resolve_table, ready)}
    for dataset, resolved in done.items():
        check_conservation(datasets[dataset], resolved)
    return {table.dataset: done[table.dataset] for table in TABLES}


def resolve_dataset(
    staged: StagedDataset, lake: Lake, parked: DataFrame, done: Mapping[str, Resolved]
) -> Resolved:
    """Resolve one dataset; `done` holds its parents' results."""
    table, large = staged.table, staged.large
    rows = candidates(staged).unionByName(late_rows(staged, parked, done))
    tables = {table.key: lake[table.name]} | {
        parent.column: lake[done[parent.dataset].table.name] for parent in table.parents
    }
    spans = key_spans(rows, [name for name, target in tables.items() if target.exists])
    rows = compare(rows, staged, tables[table.key], spans)
    missing = {
        parent.column: missing_parents(
            parent, rows, large, tables[parent.column], done[parent.dataset], spans
        )
        for parent in table.parents
    }
    settled, doubtful = split_doubtful(rows, staged, missing)
    parts = [frame.withColumn("_outcome", unranked_outcome()) for frame in settled]
    for frame in doubtful:
        decided = mark_superseded(mark_missing(frame, table, missing), staged)
        parts.append(staged.scratch.materialize(decided, "decided"))
    return count_outcomes(staged, union(parts))


def candidates(staged: StagedDataset) -> DataFrame:
    """Return the valid staged rows as candidates for their keys."""
    columns = [*ROW_PLACE, "_reasons", f"CAST(NULL AS {SOURCE_DDL}) AS _source", "_replayed"]
    return staged.valid.selectExpr(*columns, *[f"`{name}`" for name in staged.table.column_names])


# -- parked rows -----------------------------------------------------------------------------------
def late_rows(staged: StagedDataset, parked: DataFrame, done: Mapping[str, Resolved]) -> DataFrame:
    """Return, as candidates, the parked rows whose key or parent is in this batch."""
    table = staged.table
    source = F.struct("file_path", "file_digest", "file_size", F.unix_micros("file_modified"))
    waiting = parked.where(F.col("dataset") == table.dataset).select(
        F.lit(None).cast("int").alias("_file"),
        F.lit(0).cast("bigint").alias("_split"),
        F.col("line").alias("_mid"),
        F.lit(None).cast("array<string>").alias("_reasons"),
        source.cast(SOURCE_DDL).alias("_source"),
        F.lit(False).alias("_replayed"),
        *fields_of(table),
    )
    if not table.parents or waiting.isEmpty():
        return waiting.where(F.lit(False))
    arrivals = {table.key: staged.valid.select(table.key)}
    for parent in table.parents:
        accepted = done[parent.dataset].accepted
        arrivals[parent.column] = accepted.withColumnRenamed("key", parent.column)
    affected = union(
        [waiting.join(keys, name, "left_semi").select(table.key) for name, keys in arrivals.items()]
    )
    return waiting.join(affected.distinct(), table.key, "left_semi").localCheckpoint(eager=False)


# -- sets of keys ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Keys:
    """A set of keys: the only column of `frame`.

    small  whether the keys are few enough to broadcast
    empty  whether the set is known to be empty
    """

    frame: DataFrame
    small: bool
    empty: bool = False

    @property
    def for_join(self) -> DataFrame:
        """Return the keys as the right side of a join."""
        return F.broadcast(self.frame) if self.small else self.frame


def key_set(keys: DataFrame, large: bool) -> Keys:
    """Return a set of keys; the keys of a large batch are materialized and counted."""
    (name,) = keys.columns
    keys = keys.select(F.col(name).alias(name))  # a new column, for joins with its own source
    if not large:
        return Keys(keys, small=True)
    keys = keys.localCheckpoint(eager=False)
    count = keys.count()
    return Keys(keys, small=count <= BROADCAST_ROWS, empty=not count)


Spans = Mapping[str, tuple[str, str]]


def key_spans(rows: DataFrame, columns: Sequence[str]) -> Spans:
    """Return the least and greatest text in some columns; '' if there is none."""
    if not columns:
        return {}
    ends = [end(name) for name in columns for end in (F.min, F.max)]
    values = ["" if value is None else value for value in rows.agg(*ends).collect()[0]]
    return dict(zip(columns, zip(values[::2], values[1::2], strict=True), strict=True))


def rows_with_keys(target: LakeTable, key: str, keys: Keys, span: tuple[str, str]) -> DataFrame:
    """Return the table's rows with some keys, and possibly others. Delta skips files without keys
    in the span; the rows of few keys are broadcast."""
    rows = target.rows_between(key, *span)
    if not keys.small:
        return rows
    distinct_keys = F.broadcast(keys.frame.toDF(key).distinct())
    return F.broadcast(rows.join(distinct_keys, key, "left_semi"))


# -- comparison with the table ---------------------------------------------------------------------
def compare(rows: DataFrame, staged: StagedDataset, target: LakeTable, spans: Spans) -> DataFrame:
    """Add _standing and _old_day from the table's rows.

    Materialized only if that pays: there is a table, and the rows are read several times.
    """
    table, existing = staged.table, target.frame
    if target.exists:
        keys = Keys(rows.select(table.key), small=not staged.large)
        existing = rows_with_keys(target, table.key, keys, spans[table.key])
    same_key = F.col(f"s.{table.key}") == F.col(f"t.{table.key}")
    joined = rows.alias("s").join(existing.alias("t"), same_key, how="left")
    wins = ~F.col("s._replayed")
    if table.version:
        new, old = F.col(f"s.{table.version}"), F.col(f"t.{table.version}")
        wins = (new > old) | ((new == old) & wins)
    parents = [parent.column for parent in table.parents]
    moved = any_of(
        [F.lit(False), *(F.col(f"s.{parent}") != F.col(f"t.{parent}") for parent in parents)]
    )
    standing = (
        F.when(F.col(f"t.{table.key}").isNull(), ABSENT)
        .when(same_values(table, "s", "t"), SAME)
        .when(wins & moved, MOVED)
        .when(wins, NEWER)
        .otherwise(OLDER)
    )
    old_day = F.col(f"t.{table.partition}") if table.partition else F.lit(None).cast("date")
    compared = joined.select("s.*", standing.alias("_standing"), old_day.alias("_old_day"))
    if not target.exists:
        return compared
    if not (staged.large or table.parents):
        return compared
    return staged.scratch.materialize(compared, "compared")


# -- parents ---------------------------------------------------------------------------------------
def missing_parents(
    parent: Parent,
    rows: DataFrame,
    large: bool,
    target: LakeTable,
    parent_result: Resolved,
    spans: Spans,
) -> Keys:
    """Return, in the referring column, the missing parents of rows that may be written."""
    name, key = parent.column, parent_result.table.key
    written = rows.where(F.col("_standing").isin(*BETTER))
    referenced = Keys(written.select(name).distinct(), small=not large)
    if large and written.isEmpty():
        return replace(referenced, empty=True)
    existing_rows = target.frame
    if target.exists:
        existing_rows = rows_with_keys(target, key, referenced, spans[name])
    existing_keys = existing_rows.select(F.col(key).alias(name)).union(parent_result.accepted)
    existing = Keys(existing_keys, small=not large)
    return key_set(referenced.frame.join(existing.for_join, name, "left_anti"), large)


def mark_missing(rows: DataFrame, table: Table, missing: Mapping[str, Keys]) -> DataFrame:
    """Set _reasons to the missing parents of each row, as `reason:key`."""
    columns, codes = rows.columns, []
    for parent in table.parents:
        keys = missing[parent.column]
        if not keys.empty:
            flag = f"_no_{parent.column}"
            flagged = keys.for_join.withColumn(flag, F.lit(True))
            rows = rows.join(flagged, parent.column, how="left")
            code = F.concat_ws(":", F.lit(parent.reason), F.col(parent.column))
            codes.append(F.when(F.col(flag), code))
    reasons = F.filter(F.array(*codes), lambda code: code.isNotNull()) if codes else F.array()
    return rows.withColumn("_reasons", reasons.cast("array<string>")).select(columns)


# -- ranking within a batch ------------------------------------------------------------------------
def split_doubtful(
    rows: DataFrame, staged: StagedDataset, missing: Mapping[str, Keys]
) -> tuple[list[DataFrame], list[DataFrame]]:
    """Split rows into those with a unique key and no missing parent, and the others; each part is a
    list of at most one frame. A small batch is not split, since that costs more than it saves."""
    if not staged.large:
        return [], [rows]
    key = staged.table.key
    lacking = [
        rows.join(keys.for_join, name, "left_semi").select(key)
        for name, keys in missing.items()
        if not keys.empty
    ]
    keys = key_set(union([contested_keys(rows, staged.table), *lacking]).distinct(), staged.large)
    if keys.empty:
        return [rows], []
    listed = keys.for_join
    return [rows.join(listed, key, "left_anti")], [rows.join(listed, key, "left_semi")]


def contested_keys(rows: DataFrame, table: Table) -> DataFrame:
    """Return the keys of more than one row.

    If all keys are distinct integers, a bitmap proves it for a quarter of the CPU of a groupBy.
    """
    number = integer_key(F.col(table.key)).alias("_number")
    words = (
        rows.select(number)
        .selectExpr(
            "shiftright(_number, 6) AS word", "shiftleft(1L, CAST(_number & 63 AS INT)) AS bit"
        )
        .groupBy("word")
        .agg(F.bit_or("bit").alias("bits"), F.count(F.lit(1)).alias("rows"))
    )
    totals = words.selectExpr(
        "sum(bit_count(bits)) AS keys", "sum(rows) AS rows", "count_if(word IS NULL) AS texts"
    ).collect()[0]
    if totals["texts"] == 0 and totals["keys"] == totals["rows"]:
        return rows.select(table.key).where(F.lit(False))
    counted = rows.groupBy(table.key).agg(F.count(F.lit(1)).alias("_rows"))
    return counted.where("_rows > 1").select(table.key)


def mark_superseded(rows: DataFrame, staged: StagedDataset) -> DataFrame:
    """Add _outcome: a row is superseded if a row of its key has higher precedence and waits for no
    parent that this row has. Among rows of one file with equal key and version, the row with most
    values has precedence, so that a blank never replaces a value."""
    table, columns = staged.table, rows.columns
    names = table.column_names
    rows = rows.join(staged.sources, "_file", how="left")
    version = [F.col(table.version)] if table.version else []
    within_file = [value_count(table).desc(), F.col("_split").desc(), F.col("_mid").desc()]
    precedence = [column.desc() for column in (*version, ~F.col("_replayed"), *delivery())]
    of_key = Window.partitionBy(table.key).orderBy(*precedence, *within_file)
    better = of_key.rowsBetween(Window.unboundedPreceding, -1)
    of_file = Window.partitionBy(table.key, *version, *delivery()).orderBy(*within_file)
    rows = rows.withColumns(
        {
            "_better": F.collect_set("_reasons").over(better),
            "_first": F.first(F.struct(*names)).over(of_file),
        }
    )
    superseded = F.exists(
        "_better", lambda others: F.size(F.array_except(others, F.col("_reasons"))) == 0
    )
    contradicts = any_of(F.col(name) != F.col("_first").getField(name) for name in names)
    outcome = F.when(superseded & contradicts, CONFLICTING).when(superseded, SUPERSEDED)
    return rows.select(*columns, outcome.otherwise(unranked_outcome()).alias("_outcome"))


def delivery() -> list[SparkColumn]:
    """Return the time and path of a row's delivery, in this run or an earlier one."""
    modified = F.coalesce("_source.modified", F.unix_micros("file_modified"))
    return [modified, F.coalesce("_source.path", "file_path")]


def unranked_outcome() -> SparkColumn:
    """Return the outcome of a row that no other row of its batch supersedes."""
    standing = F.col("_standing")
    return (
        F.when(standing.isin(*BETTER) & (F.size("_reasons") > 0), PARKED)
        .when(standing == ABSENT, INSERTED)
        .when(standing == SAME, UNCHANGED)
        .when(standing.isin(NEWER, MOVED), UPDATED)
        .otherwise(SUPERSEDED)
    )


# -- counts ----------------------------------------------------------------------------------------
def count_outcomes(staged: StagedDataset, rows: DataFrame) -> Resolved:
    updated = F.col("_outcome") == UPDATED
    groups = (
        rows.groupBy("_file", "_outcome")
        .agg(
            F.count(F.lit(1)).alias("rows"),
            F.count(F.when(updated, F.col("_old_day"))).alias("with_day"),
            F.min(F.when(updated, F.col("_old_day"))).alias("first"),
            F.max(F.when(updated, F.col("_old_day"))).alias("last"),
            F.count(F.when(updated & (F.col("_standing") == MOVED), 1)).alias("moved"),
        )
        .collect()
    )
    counts = {
        number: Counter({"rows_read": read.rows, REJECTED: read.rejected})
        for number, read in staged.counts.items()
    }
    admitted = Counter[str]()
    for group in groups:
        outcome, conflicting = group["_outcome"], group["_outcome"] == CONFLICTING
        outcome = SUPERSEDED if conflicting else outcome
        if group["_file"] is not None:
            counted = {outcome: group["rows"], "moved": group["moved"]}
            counts[group["_file"]].update(counted)
            counts[group["_file"]][CONFLICTING] += group["rows"] * conflicting
        elif outcome != PARKED:
            admitted[outcome] += group["rows"]
    changed = [group for group in groups if group["_outcome"] == UPDATED]
    days = sorted(day for group in changed for day in (group["first"], group["last"]) if day)
    all_days = all(group["with_day"] == group["rows"] for group in changed)
    old_days = (days[0], days[-1]) if days and all_days else ()
    by_day = staged.by_day and staged.large
    return Resolved(staged.table, rows, counts, admitted, old_days, by_day)


def check_conservation(staged: StagedDataset, resolved: Resolved) -> None:
    """Raise ConservationError if the rows of a file are not the sum of their outcomes."""
    for number, raw in staged.files.items():
        counts = resolved.counts[number]
        outcomes = {name: counts[name] for name in OUTCOMES}
        if counts["rows_read"] != sum(outcomes.values()):
            raise ConservationError(
                f"{raw.stored.name}: {counts['rows_read']} rows were read, but their outcomes add "
                f"up to {sum(outcomes.values())} ({counts_text(outcomes)}). Nothing was written; "
                "the file stays in the raw zone. Run again; if this recurs, report it"
            )


# --------------------------------------------------------------------------------------------------
# Step 4, publish: commit in an order that makes a crash between any two commits harmless
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Published:
    """The rejected rows of the run: counts by dataset and reason, and an example of each."""

    reasons: Mapping[str, Mapping[str, int]]
    examples: tuple[Mapping[str, Any], ...]


def stamp(arguments: JobArguments) -> str:
    """Return the userMetadata of a commit, which identifies the run."""
    return json.dumps({"run_id": arguments.run_id})


def publish(
    arguments: JobArguments,
    staged: Staged,
    resolved: Mapping[str, Resolved],
    lake: Lake,
    timed: Timings,
) -> Published:
    """Commit rejects -> tables, parents first -> settled parked rows."""
    add_columns(lake, stamp(arguments))
    rejected = lake["rejected_records"]
    recorded = recorded_rejects(staged, rejected)
    rows = [
        frame
        for dataset, result in resolved.items()
        for frame in rejects_of(staged.datasets[dataset], result, arguments.run_id)
    ]
    rejects = union([local_frame(rejected.spark, [], REJECTED_DDL), *rows])
    rejects = rejects.localCheckpoint(eager=False)
    with timed("committed rejected_records"):
        published = write_rejects(arguments, rejects, recorded, rejected)
    for result in resolved.values():
        with timed(f"committed {result.table.name}"):
            commit(result, lake[result.table.name], stamp(arguments))
    with timed("settled rejected rows"):
        settle_rejects(arguments, staged, resolved, rejects, recorded, rejected)
    return published


def add_columns(lake: Lake, stamp_text: str) -> None:
    """Add the declared columns that tables lack."""
    for table in lake.values():
        table.add_columns(stamp_text)


# -- rejected rows ---------------------------------------------------------------------------------
def recorded_rejects(staged: Staged, rejected: LakeTable) -> DataFrame:
    """Return the rows of rejected_records (ROW_IDENTITY, status) from files of this run, written by
    a killed run or by an earlier load of the file. Delta skips files by their paths."""
    loaded = staged.loaded.values()
    paths = sorted({path for raw in loaded for path in (raw.stored.name, raw.first_path) if path})
    rows = rejected.rows_between("file_path", *(paths[0], paths[-1]) if paths else ("", ""))
    files = F.broadcast(loaded_files(rejected.spark, staged))
    rows = rows.join(files, FILE_IDENTITY, "left_semi").select(*ROW_IDENTITY, "status")
    return rows.localCheckpoint(eager=False)


def rejects_of(staged: StagedDataset, resolved: Resolved, run_id: str) -> list[DataFrame]:
    """Return the rejected and newly parked rows of a dataset in the columns of rejected_records."""
    table, frames = resolved.table, []
    if resolved.totals[REJECTED]:
        frames.append(reject_rows(staged, staged.rows.where(BAD), run_id, REJECTED))
    if any(counts.headers > 1 for counts in staged.counts.values()):
        nth = F.row_number().over(Window.partitionBy("_file").orderBy("_split", "_mid"))
        headers = staged.rows.where(F.col("_kind") == HEADER).withColumn("_nth", nth)
        reason = {"_reasons": F.array(F.lit("repeated_header")), table.key: F.lit(None)}
        repeated = headers.where("_nth > 1").withColumns(reason)
        frames.append(reject_rows(staged, repeated, run_id, REJECTED))
    if any(count[PARKED] for count in resolved.counts.values()):
        parked = (F.col("_outcome") == PARKED) & F.col("_file").isNotNull()
        texts = {"_fields": texts_of(table), "_reasons": reasons_to_wait()}
        waiting = resolved.rows.where(parked).withColumns(texts)
        is_small = sum(count[PARKED] for count in resolved.counts.values()) <= BROADCAST_ROWS
        lines = staged.rows.select(PLACE)
        waiting = lines.join(F.broadcast(waiting) if is_small else waiting, ROW_PLACE)
        frames.append(reject_rows(staged, waiting, run_id, PARKED))
    return frames


def reasons_to_wait() -> SparkColumn:
    """Return the reasons of a parked row, without the parents' keys."""
    return F.transform("_reasons", lambda reason: F.substring_index(reason, ":", 1))


def reject_rows(staged: StagedDataset, rows: DataFrame, run_id: str, status: str) -> DataFrame:
    """Return rows with _reasons and _fields in the columns of rejected_records."""
    table = staged.table

    def text_of(name: str) -> SparkColumn:
        declared = name in table.column_names
        return F.col("_fields").getItem(name) if declared else F.lit(None).cast("string")

    raw = line_text()
    as_bytes = F.decode(raw.cast("binary"), "ISO-8859-1")  # maps each byte to a character
    readable = F.when(valid_utf8(raw), raw).otherwise(as_bytes)
    null = F.lit(None).cast("string")
    key = F.coalesce(F.col(table.key), text_of(table.key))
    return staged.with_place(rows).select(
        F.lit(run_id).alias("run_id"),
        F.lit(table.dataset).alias("dataset"),
        F.lit(status).alias("status"),
        F.col("_reasons").alias("reasons"),
        F.when(F.col("_fields").isNotNull(), key).alias("record_key"),  # else cells may be shifted
        text_of("order_id").alias("order_id"),
        text_of("product_id").alias("product_id"),
        *FILE_COLUMNS,
        "line",
        readable.alias("raw"),
        F.col("_fields").alias("fields"),
        *[null.alias(name) for name in ("resolved_run_id", "author", "why")],
    )


def write_rejects(
    arguments: JobArguments, rows: DataFrame, recorded: DataFrame, rejected: LakeTable
) -> Published:
    """Append the rejected and newly parked rows that are not yet recorded; count their reasons."""
    published = count_reasons(rows)
    unrecorded = rows.join(recorded, ROW_IDENTITY, "left_anti").select(rows.columns)
    if not rejected.exists or not unrecorded.isEmpty():
        rejected.append(unrecorded, stamp(arguments), "status", **statistics(ROW_STATISTICS))
    return published


def count_reasons(rows: DataFrame) -> Published:
    """Count rejected rows by dataset and reason; return examples of the commonest reasons."""
    raw = F.substring("raw", 1, TEXT_LIMIT).alias("raw")
    place = F.struct("file_path", "line", raw).alias("place")
    groups = (
        rows.select("dataset", "status", F.explode("reasons").alias("reason"), place)
        .groupBy("dataset", "status", "reason")
        .agg(F.count(F.lit(1)).alias("rows"), F.min("place").alias("first"))
        .orderBy("dataset", "reason")
        .collect()
    )
    reasons: dict[str, dict[str, int]] = {}
    for group in groups:
        if group["status"] == REJECTED:
            reasons.setdefault(group["dataset"], {})[group["reason"]] = group["rows"]
    commonest = sorted(groups, key=lambda group: -group["rows"])[:EXAMPLES]
    examples = tuple(
        {
            "dataset": group["dataset"],
            "reason": group["reason"],
            "rows": group["rows"],
            "file_path": group["first"]["file_path"][:TEXT_LIMIT],
            "line": group["first"]["line"],
            "raw": group["first"]["raw"],
        }
        for group in groups
        if group in commonest
    )
    return Published(reasons, examples)


# -- the tables ------------------------------------------------------------------------------------
def commit(resolved: Resolved, target: LakeTable, stamp_text: str) -> None:
    """Commit the changes: an append if all rows are new, else a MERGE; nothing if there are
    none."""
    table, changes, totals = resolved.table, resolved.changes, resolved.totals
    inserted, updated = totals[INSERTED], totals[UPDATED]
    if updated:
        target.merge(changes, same_key(resolved), merge_clauses(table), stamp_text)
    elif inserted or not target.exists:
        options = {} if target.exists else statistics(table.statistics)
        if resolved.by_day or not inserted:
            options["optimizeWrite"] = "false"
        target.append(changes, stamp_text, table.partition, **options)
    reconcile(target, inserted, updated)


def statistics(columns: str) -> dict[str, str]:
    """Return the option that names the columns with file statistics, which let Delta skip files."""
    return {"delta.dataSkippingStatsColumns": columns}


def merge_clauses(table: Table) -> str:
    """Return the clauses to update or insert; columns no longer declared keep their values."""
    names = [f"`{name}`" for name in table.column_names]
    values = ", ".join(f"s.{name}" for name in names)
    updates = ", ".join(f"t.{name} = s.{name}" for name in names)
    return (
        f"WHEN MATCHED THEN UPDATE SET {updates} "
        f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) VALUES ({values})"
    )


def same_key(resolved: Resolved) -> str:
    """Return the condition of a MERGE; the literal days of the rows to update prune files."""
    table = resolved.table
    condition = f"t.`{table.key}` = s.`{table.key}`"
    if resolved.old_days:
        first, last = resolved.old_days
        condition += f" AND t.`{table.partition}` BETWEEN DATE '{first}' AND DATE '{last}'"
    return condition


def reconcile(target: LakeTable, inserted: int, updated: int) -> None:
    """Compare the commit's own metrics with the resolved counts; raise ConservationError."""
    commits = target.log.commits(after=target.before)
    own_commits = [commit for commit in commits if commit.operation in ("WRITE", "MERGE")]
    committed = (
        sum(commit.inserted for commit in own_commits),
        sum(commit.metric("numTargetRowsUpdated") for commit in own_commits),
    )
    if committed != (inserted, updated):
        raise ConservationError(
            f"{target.path}: expected {inserted} rows inserted and {updated} updated, but Delta "
            f"reports {committed[0]} and {committed[1]}"
        )


def settle_rejects(
    arguments: JobArguments,
    staged: Staged,
    resolved: Mapping[str, Resolved],
    rejects: DataFrame,
    recorded: DataFrame,
    rejected: LakeTable,
) -> None:
    """Update the status of recorded rows: parked rows that were admitted or superseded, parked rows
    that a reloaded file no longer parks, and rejected rows whose key this run loads.

    It follows the commits of the tables, so that a crash loses no row.
    """
    unparked = recorded.where(F.col("status") == PARKED).select(ROW_IDENTITY)
    parked = rejects.where(F.col("status") == PARKED).select(ROW_IDENTITY)
    unparked = unparked.join(parked, ROW_IDENTITY, "left_anti").withColumn(
        "status", F.lit(ADMITTED)
    )
    late = [settled_rows(result) for result in resolved.values() if result.admitted]
    mended = mended_rows(staged, resolved, rejects, rejected)
    settled = union([unparked, *late, *mended]).localCheckpoint(eager=False)
    if not settled.isEmpty():
        clauses = (
            "WHEN MATCHED THEN UPDATE SET t.status = s.status, "
            f"t.resolved_run_id = '{arguments.run_id}'"
        )
        is_open = f"t.status IN ('{PARKED}', '{REJECTED}')"
        rejected.merge(settled, f"{is_open} AND {SAME_ROW}", clauses, stamp(arguments), nth=2)


def mended_rows(
    staged: Staged, resolved: Mapping[str, Resolved], rejects: DataFrame, rejected: LakeTable
) -> list[DataFrame]:
    """Return the rejected rows, of this run or earlier, for whose key a later file of this run has
    a valid row, or which a row of a file of fixed rows replaces: ROW_IDENTITY and the new
    status."""
    columns = [*ROW_IDENTITY, "record_key", "file_modified", "file_path"]
    frames = [rejects, rejected.frame]
    closable = F.col("status") == REJECTED
    if not any(raw.layout.fixes_rejects for raw in staged.loaded.values()):
        closable &= F.col("record_key").isNotNull()
    still_open = union([frame.where(closable).select(columns) for frame in frames])
    still_open = still_open.localCheckpoint(eager=False)
    if still_open.isEmpty():
        return []
    still_open = F.broadcast(still_open.withColumn("status", F.lit(SUPERSEDED)))
    mended = []
    for dataset, outcome in resolved.items():
        good = outcome.rows.where(F.col("_outcome") != PARKED)
        good = good.join(staged.datasets[dataset].sources, "_file", "left")
        modified, path = delivery()
        latest = F.max(F.struct(modified.alias("modified"), path.alias("path"))).alias("latest")
        good = good.groupBy(F.col(outcome.table.key).alias("record_key")).agg(latest)
        mine = still_open.where(F.col("dataset") == dataset)
        rejected_at = F.unix_micros("file_modified").alias("modified")
        earlier = F.struct(rejected_at, F.col("file_path").alias("path")) < F.col("latest")
        pairs = [good.join(mine, "record_key").where(earlier)]
        place = F.concat_ws(":", "file_path", "line")
        place = F.concat(place, F.lit(" ("), F.substring("file_digest", 1, 8), F.lit(")"))
        pairs += [
            fixed.join(mine, fixed["where"] == place).where(earlier)
            for fixed in fixed_rows(staged.datasets[dataset])
        ]
        # Found by both, or after a crash in both frames
        mended.append(union([rows.select(*ROW_IDENTITY, "status") for rows in pairs]).distinct())
    return mended


def fixed_rows(staged: StagedDataset) -> Iterator[DataFrame]:
    """Yield the rows of files of fixed rows, good or rejected again: `where`, the place of the row
    that each replaces, and `latest`, its own delivery."""
    layouts: dict[Layout, set[int]] = {}
    for number, raw in staged.files.items():
        if raw.layout.fixes_rejects:
            layouts.setdefault(raw.layout, set()).add(number)
    for layout, numbers in layouts.items():
        lines = staged.rows.where((F.col("_kind") == RECORD) & of_files(numbers)).select(PLACE)
        rows = split_fields(lines, staged.table, layout).join(staged.sources, "_file")
        rows = rows.where(~F.col("_broken").eqNullSafe("invalid_utf8"))
        modified = F.unix_micros("file_modified").alias("modified")
        latest = F.struct(modified, F.col("file_path").alias("path")).alias("latest")
        yield rows.select(F.col("_c_where").alias("where"), latest)


def settled_rows(resolved: Resolved) -> DataFrame:
    """Return the rows that were parked and no longer are: ROW_IDENTITY and the new status."""
    rows = resolved.rows.where(F.col("_file").isNull() & (F.col("_outcome") != PARKED))
    beaten = F.col("_outcome").isin(SUPERSEDED, CONFLICTING)
    status = F.when(beaten, SUPERSEDED).otherwise(ADMITTED)
    return rows.select(
        F.lit(resolved.table.dataset).alias("dataset"),
        F.col("_source.digest").alias("file_digest"),
        F.col("_source.size").alias("file_size"),
        F.col("_mid").alias("line"),
        status.alias("status"),
    )


# --------------------------------------------------------------------------------------------------
# Step 5, finalize: write the ledger, the run, the manifest and, last, the summary
# --------------------------------------------------------------------------------------------------
@dataclass
class Timings:
    """Measures the seconds of each step and logs its completion."""

    started: dt.datetime
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.seconds[step] = round(time.monotonic() - begin, 2)
        progress(step)


def iso(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def finalize(
    arguments: JobArguments,
    staged: Staged,
    resolved: Mapping[str, Resolved],
    published: Published,
    lake: Lake,
    timed: Timings,
) -> dict[str, Any]:
    """Write the ledger, the run's row, the manifest and the summary; return the summary."""
    counts = {
        number: count for result in resolved.values() for number, count in result.counts.items()
    }
    if not lake["corrections"].exists:  # created empty, so that Athena can query it
        with timed("committed corrections"):
            lake["corrections"].append_rows([], CORRECTIONS_DDL, stamp(arguments))
    with timed("committed ingested_files"):
        write_ledger(arguments, staged.files, counts, lake["ingested_files"])
    summary = summary_of(arguments, timed, staged.files, "SUCCEEDED")
    for dataset, result in resolved.items():
        summary["datasets"][dataset] = measures(result, published.reasons.get(dataset, {}))
    summary["reject_examples"] = list(published.examples)
    names = [name for name in lake if name != "etl_runs"]
    with timed("tables counted"):
        numbers = map_concurrently(lambda name: lake[name].summary(), names)
        summary["tables"] = dict(zip(names, numbers, strict=True))
    with timed("committed etl_runs"):
        write_run(arguments, timed.started, summary, lake["etl_runs"])
    summary["tables"]["etl_runs"] = lake["etl_runs"].summary()
    changed = (numbers["schema_changed"] for numbers in summary["tables"].values())
    summary["crawl_needed"] = any(changed)
    return write_summary(arguments, summary, staged.files, counts)


def measures(resolved: Resolved, reasons: Mapping[str, int]) -> dict[str, Any]:
    """Return a dataset's numbers for the summary."""
    totals = resolved.totals
    numbers: dict[str, Any] = {
        "rows_read": totals["rows_read"],
        "admitted": sum(resolved.admitted.values()),
        **{name: totals[name] for name in (*OUTCOMES, CONFLICTING, MOVED)},
    }
    if numbers["rows_read"] + numbers["admitted"] != sum(numbers[name] for name in OUTCOMES):
        raise ConservationError(
            f"{resolved.table.dataset}: rows_read + admitted differ from the sum of the outcomes "
            f"({counts_text(numbers)})"
        )
    return {**numbers, "rejected_by_reason": dict(sorted(reasons.items()))}


FILE_OUTCOMES = ("loaded", "duplicate", "set_aside", "changed", "unreadable")


def write_ledger(
    arguments: JobArguments,
    files: Sequence[RawFile],
    counts: Mapping[int, Counter[str]],
    ledger: LakeTable,
) -> None:
    """Append the files of this run; from this commit on, redeliveries are duplicates."""
    now = dt.datetime.now(dt.UTC).isoformat()
    rows = [
        {
            "run_id": arguments.run_id,
            "dataset": raw.dataset,
            **raw.source,
            "outcome": raw.outcome,
            "reason": raw.reason,
            "ingested_at": now,
            **{name: counts.get(number, Counter())[name] for name in ("rows_read", *OUTCOMES)},
        }
        for number, raw in enumerate(files)
        if is_recorded(raw) and not raw.replayed
    ]
    if rows or not ledger.exists:
        ledger.append_rows(rows, LEDGER_DDL, stamp(arguments))


def write_run(
    arguments: JobArguments,
    started: dt.datetime,
    summary: Mapping[str, Any],
    runs: LakeTable,
    operation: str = "load",
) -> None:
    """Append one row to `etl_runs`, with the version of each table after the run.

    A run repeated under its id adds no second row: Delta recognizes the transaction.
    """
    tables = summary["tables"].items()
    versions = {name: table["version"] for name, table in tables if table["version"] is not None}
    row = {
        "run_id": arguments.run_id,
        "operation": operation,
        "status": "SUCCEEDED",
        "started_at": started.isoformat(),
        "finished_at": dt.datetime.now(dt.UTC).isoformat(),
        "summary": json.dumps(summary),
        "table_versions": versions,
    }
    transaction = {"txnAppId": f"lakehouse run {arguments.run_id}", "txnVersion": "1"}
    runs.append_rows([row], RUNS_DDL, stamp(arguments), **transaction)
    write_versions(arguments, {**versions, "etl_runs": runs.log.latest()})


def manifest(store: Storage, files: Sequence[RawFile], counts: Mapping[int, Counter[str]]) -> str:
    """Return one JSON line for each listed file, in the order of delivery."""
    lines = [
        {
            "bucket": store.bucket,
            "key": store.key(raw.stored.name),
            "path": raw.stored.name,
            "etag": raw.stored.etag,
            "digest": raw.digest,
            "size": raw.stored.size,
            "last_modified": iso(raw.stored.modified),
            "dataset": raw.dataset,
            "outcome": raw.outcome,
            "reason": raw.reason,
            "detail": raw.detail,
            "rows_read": counts.get(number, Counter())["rows_read"],
            "ignored_columns": list(raw.ignored_columns),
            "no_final_newline": raw.cut,
            "destination": raw.destination,
        }
        for number, raw in enumerate(files)
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def summary_of(
    arguments: JobArguments,
    timed: Timings,
    files: Sequence[RawFile],
    status: str,
    error: str | None = None,
) -> dict[str, Any]:
    """Return the summary as far as the files determine it; all other numbers are 0."""
    outcomes = Counter(raw.outcome for raw in files)
    reasons = Counter(raw.reason for raw in files if raw.outcome == "set_aside" and raw.reason)
    names = ("rows_read", "admitted", *OUTCOMES, CONFLICTING, MOVED)
    zero = {**dict.fromkeys(names, 0), "rejected_by_reason": {}}
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": arguments.run_id,
        "status": status,
        "started_at": iso(timed.started),
        "finished_at": iso(dt.datetime.now(dt.UTC)),
        "error": error,
        "files": {
            "listed": len(files),
            **{name: outcomes[name] for name in FILE_OUTCOMES},
            "set_aside_by_reason": dict(sorted(reasons.items())),
            "no_final_newline": sum(raw.cut for raw in files if raw.outcome == "loaded"),
        },
        "manifest_entries": len(files),
        "datasets": {table.dataset: dict(zero) for table in TABLES},
        "tables": {},
        "crawl_needed": False,
        "reject_examples": [],
        "timings": timed.seconds,
    }


def write_summary(
    arguments: JobArguments,
    summary: dict[str, Any],
    files: Sequence[RawFile] = (),
    counts: Mapping[int, Counter[str]] = {},
) -> dict[str, Any]:
    """Write the manifest, then the summary, which marks the run as done."""
    runs = storage(arguments.runs_path)
    if summary["status"] != "FAILED":
        text = manifest(storage(arguments.raw_path), files, counts)
        runs.write(f"{arguments.run_id}/manifest.jsonl", text.encode("utf-8"))
    text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    runs.write(f"{arguments.run_id}/summary.json", text.encode("utf-8"))
    return summary


# --------------------------------------------------------------------------------------------------
# Recovery of a killed operation of glue_operations.py: the next run finishes it before it writes
# --------------------------------------------------------------------------------------------------
INTENT = "intent.json"


def read_intent(arguments: JobArguments) -> dict[str, Any]:
    """Return the intent of a killed operation, or {}.

    An operation writes its intent before its first change and removes it after its row in
    `etl_runs`. Fields: `run_id`; `operation`; `before` and `to`, versions of the tables (-1 for no
    table); for a rollback also `run`, its row for `etl_runs`.
    """
    try:
        text = storage(arguments.runs_path).read(INTENT)
    except FileNotFoundError:
        return {}
    intent: dict[str, Any] = json.loads(text)
    return intent


def remove_intent(arguments: JobArguments) -> None:
    storage(arguments.runs_path).remove(INTENT)
    progress("intent removed")


def finish_killed_operation(
    arguments: JobArguments, spark: SparkSession, intent: Mapping[str, Any]
) -> None:
    """Complete a killed rollback, or revert another killed operation; every step is repeatable."""
    if intent.get("operation") == "rebuild":
        raise JobError(
            f"the rebuild {intent['run_id']} did not finish, so rows are missing: start `rebuild` "
            "again"
        )
    runs = open_lake(spark, arguments)["etl_runs"]
    if runs.frame.where(F.col("run_id") == intent["run_id"]).isEmpty():

        def restore_table(name: str) -> None:
            path, run_id = arguments.path_of(name), intent["run_id"]
            commits = DeltaLog(path).commits(after=intent["before"][name])
            if "run" in intent or any(commit.run_id == run_id for commit in commits):
                restore(spark, path, intent["to"][name], run_id)
            progress(f"restored {name}")

        map_concurrently(restore_table, intent["to"])
        if "run" in intent:
            record_rollback(arguments, spark, intent, runs)
    remove_intent(arguments)


def restore(spark: SparkSession, path: str, version: int, run_id: str) -> None:
    """RESTORE a table to a version (-1 empties it), in one commit stamped with the run.

    No-op if the table has that version or if the run has already restored it.
    """
    log = DeltaLog(path)
    latest = log.latest()
    if latest <= version:
        return
    last = log.commits(after=latest - 1)
    if any(
        commit.run_id == run_id and commit.operation in ("RESTORE", "DELETE") for commit in last
    ):
        return
    statement = f"RESTORE TABLE delta.`{path}` TO VERSION AS OF {version}"
    with settings(spark, {COMMIT_STAMP: json.dumps({"run_id": run_id})}):
        spark.sql(statement if version >= 0 else f"DELETE FROM delta.`{path}`")


def record_rollback(
    arguments: JobArguments, spark: SparkSession, intent: Mapping[str, Any], runs: LakeTable
) -> None:
    """Write the row of a rollback to `etl_runs`, which completes it."""
    run, before = intent["run"], intent["before"]
    summary = dict(run["summary"])
    lake = open_lake(spark, arguments)
    tables = {name: lake[name] for name in before}
    summary["tables"] = {
        name: {**replace(table, before=before[name]).summary(), "rows": table.frame.count()}
        for name, table in tables.items()
    }
    started = dt.datetime.fromisoformat(run["started_at"])
    write_run(replace(arguments, run_id=intent["run_id"]), started, summary, runs, "rollback")
    progress("committed etl_runs")


# --------------------------------------------------------------------------------------------------
# The run
# --------------------------------------------------------------------------------------------------
def check_declarations() -> None:
    """Raise JobError if a table is declared before its parents or refers to itself."""
    declared: set[str] = set()
    for table in TABLES:
        undeclared = [parent.dataset for parent in table.parents if parent.dataset not in declared]
        if undeclared:
            names = ", ".join(undeclared)
            raise JobError(f"{table.name} refers to {names}: declare that before it")
        declared.add(table.dataset)


def run(arguments: JobArguments, timed: Timings) -> dict[str, Any]:
    """Run the five steps; return the summary."""
    check_declarations()
    intent = read_intent(arguments)
    with timed("discovered"):
        discovered = discover(arguments)
    if not discovered.files and not intent:
        return nothing_new(arguments, timed, discovered)
    with timed("Spark started"):
        spark = spark_session(discovered.text_bytes, arguments.local)
    if intent:
        finish_killed_operation(arguments, spark, intent)
    with timed("tables opened"):
        lake = open_lake(spark, arguments)
    with timed("ledger asked"):
        discovered = mark_duplicates(discovered, lake["ingested_files"], arguments.force)
    if not discovered.anything_new:
        return nothing_new(arguments, timed, discovered)
    try:
        with settings(spark, session_settings(discovered.large)):
            with timed("staged"):
                staged = stage(spark, arguments, discovered)
            with timed("resolved"):
                staged, resolved = resolve(staged, lake, arguments.force)
        published = publish(arguments, staged, resolved, lake, timed)
    finally:
        storage(arguments.scratch_path).remove_scratch(arguments.run_id)
    return finalize(arguments, staged, resolved, published, lake, timed)


def nothing_new(arguments: JobArguments, timed: Timings, discovered: Discovered) -> dict[str, Any]:
    summary = summary_of(arguments, timed, discovered.files, "NOTHING_NEW")
    return write_summary(arguments, summary, discovered.files)


TABLE_FILE = r"(?:file:|s3a?:)/\S+\.(?:parquet|json)|Checkpoint file"
UNREADABLE = "FAILED_READ_FILE|FileNotFoundException|is not a Parquet file"
UNREACHABLE = r"AccessDenied|org\.apache\.http|software\.amazon\.awssdk|java\.net"
LOST_EXECUTOR = "ExecutorLostFailure|CHECKPOINT_RDD_BLOCK_ID_NOT_FOUND|Checkpoint block rdd_"


def cause_of(error: Exception) -> str:
    """Return the cause of an error in one line; for an error in Java, its root cause."""
    java = getattr(error, "java_exception", None)
    kind, text, chain = type(error).__name__, str(error), ""
    while java is not None:
        kind, text, java = java.getClass().getName(), java.getMessage() or "", java.getCause()
        chain += f"{kind}: {text}\n"
    cause = f"{kind}: {next(iter(text.strip().splitlines()), 'no message')}"
    file = re.search(TABLE_FILE, chain)
    if re.search(LOST_EXECUTOR, chain):
        cause = f"an executor was lost, and rows with it: run again ({cause})"
    elif file and re.search(UNREADABLE, chain) and not re.search(UNREACHABLE, chain):
        detail = cause if file.group() in cause else f"{file.group()} cannot be read ({cause})"
        scratch = f"scratch files of this run are gone: run again ({cause})"
        cause = scratch if "/run=" in file.group() else str(DamageError(detail))
    return cause[:2000]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return the exit code."""
    arguments = JobArguments.from_argv(sys.argv[1:] if argv is None else argv)
    log_to_stdout(arguments.run_id)
    timed = Timings(dt.datetime.now(dt.UTC))
    try:
        with storage(arguments.lakehouse_path).lease(arguments.run_id):
            summary = run(arguments, timed)
    except Exception as error:  # the job's boundary: every failure must reach the summary
        cause = cause_of(error)
        LOG.exception("failed: %s", cause)
        write_summary(arguments, summary_of(arguments, timed, (), "FAILED", cause))
        print(f"glue_etl.py: the run {arguments.run_id} failed: {cause}", file=sys.stderr)
        return 1
    printed = {name: summary[name] for name in ("run_id", "status", "datasets")}
    print(json.dumps(printed))
    return 0


if __name__ == "__main__":
    EXIT_CODE = main()
    if EXIT_CODE:  # Glue treats any SystemExit as a failure, even 0
        sys.exit(EXIT_CODE)
