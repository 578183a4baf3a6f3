"""The job `Lakehouse`: raw CSV exports become three trusted Delta tables.

Inputs    every file below RAW_PATH: products, orders and order items as `.csv` or `.csv.gz`, in any
          order, late, twice or broken.
Outputs   three Delta tables below LAKEHOUSE_PATH (`TABLES` declares them), the Delta tables
          `ingested_files` (the ledger) and `etl_runs` beside them, `rejected_records` below
          REJECTED_PATH, and RUNS_PATH/<run id>/{manifest.jsonl,summary.json}.

The run is five steps. Each takes the result of the one before and returns a frozen value.
  discover  lists the raw zone once and reads each object once: its digest, its header; by the
            ledger a file whose bytes were loaded before is a duplicate, under whatever name
  stage     reads the raw text once: every line becomes a typed row, or a row with reasons; a file
            that has changed since the listing is left out whole; nobody reads the raw zone again
  resolve   gives every row exactly one outcome and checks conservation, before anything is written
  publish   rejects -> products -> orders -> order items -> settled parked rows, each held against
            Delta's own metrics
  record    ledger -> `etl_runs` -> manifest -> summary

Guarantees
  Conservation   rows_read + admitted = inserted + updated + unchanged + superseded + rejected +
                 parked, for every file; where it does not hold the run fails before it writes.
  Invariance     the tables depend on what was delivered and in which order, not on how deliveries
                 fell into runs or were repeated.
  Late parents   an order item whose order or product has not come is parked, and admitted by itself
                 in the run that brings it.
  Repetition     the success markers (ledger, then manifest and summary) are written last; every
                 commit before them can be repeated, so the next run heals a crash.

Precedence: (order_timestamp, delivery), a delivery being (LastModified, path, number of values,
line in the file): of one file's rows with the same key and time the one with most values wins.
A table holds for each key the row of highest precedence among those whose parents have come.

Arguments   --RAW_PATH --LAKEHOUSE_PATH --REJECTED_PATH --RUNS_PATH (each `s3://bucket/prefix/` or a
            folder), --RUN_ID, and optionally
            --TempDir               scratch of large batches (`glue-temp/` beside the tables)
            --MAX_REJECTED_PERCENT  a file with more rejected rows is set aside whole (50)
            --FORCE true            load files that the ledger knows
            --LOCAL true            plain Python on a laptop: fetch Delta's jars from Maven Central
Exit codes  0 done, or nothing new; 1 failed, with the cause in summary.json; 2 a wrong argument.
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
import time
import unicodedata
import urllib.parse
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

# What glue_operations.py may use, and what runs the job
# fmt: off
__all__ = [
    "ADMITTED", "COMMIT_STAMP", "CONFLICTING", "FILE_COLUMNS", "FILE_DDL", "HEADER", "INSERTED",
    "INTENT", "LOG", "OUTCOMES", "PARKED", "PLACE", "RECORD", "REJECTED", "ROW_IDENTITY",
    "SUPERSEDED", "TABLES", "UPDATED", "VALID", "add_columns", "bare_path", "cause_of",
    "check_declarations", "commit", "dataset_of", "Discovered", "fields_of", "finish",
    "finish_killed_operation", "JobArguments", "JobError", "judge_texts", "Lake", "LakeTable",
    "latest_times", "Layout", "local_frame", "log_to_stdout", "main", "map_concurrently",
    "mark_duplicates", "measures", "merge_clauses", "open_lake", "parse_lines", "progress",
    "publish", "RawFile", "read_intent", "reasons_of", "reasons_to_wait", "remove_intent",
    "resolve", "resolve_datasets", "Resolved", "RowCounts", "Scratch", "session_settings",
    "settings", "settled_rows", "spark_session", "stage", "StagedDataset", "stamp", "storage",
    "StoredObject", "summary_of", "Table", "texts_of", "Timings", "try_cast", "union",
    "value_count", "value_text", "with_header", "write_ledger", "write_run",
]
# fmt: on

# --------------------------------------------------------------------------------------------------
# Reason codes: why a row, or a whole file, is not in a table
# --------------------------------------------------------------------------------------------------
ROW_REASONS = {
    "too_few_fields": "the row has fewer fields than the header of its file",
    "too_many_fields": "the row has more fields than the header of its file; twice as many where "
    "the line break between two rows is lost",
    "unclosed_quote": "a quoted field is not closed, or text follows its closing quote",
    "invalid_utf8": "the row holds bytes that are not UTF-8",
    "control_character": "the row holds a NUL or another control character, or a key an invisible "
    "one",
    "broken_line": "a line break stands within a value without quotes, so that the row goes on in "
    "the next line: put the value in quotes",
    "swallowed_row": "a quoted field holds a line that is itself a whole row: a quote is missing",
    "repeated_header": "the header of the file stands once more among its rows",
    "missing_<column>": "a key, a parent's key or the order timestamp is blank",
    "invalid_<column>": "the value cannot be read as the column's type, has more digits than the "
    "column holds, or has lost some, as 2.02504E+11",
    "future_<column>": "the time is more than a day after the file was delivered",
    "ambiguous_<column>": "a date such as 01/04/2025, which could be two days (write 2025-04-01), "
    "or an amount such as 1,234 (1.234 where columns are not separated by commas), which could be "
    "a thousand or one and a bit",
    "date_mismatch": "the date is neither the timestamp's date as written nor its date in UTC",
    "orphan_order": "parked: the order of this item has not come yet",
    "orphan_product": "parked: the product of this item has not come yet",
}
FILE_REASONS = {
    "unusable_path": "Spark would read another object: rename it without //, /./, /../, in UTF-8",
    "unfinished_upload": "an upload that was not finished within a day: upload the file again",
    "unknown_dataset": "the path names no dataset: start it with products, orders or order_items "
    "and end it with .csv or .csv.gz",
    "empty_file": "the file holds no text",
    "no_header": "the first record names no column of the dataset, or a quote in it is broken",
    "missing_column": "the header lacks a column",
    "duplicate_column": "the header names a column twice",
    "mixed_headers": "a second header has its columns in another order: split the file there",
    "mostly_rejected": "more rows are rejected than MaxRejectedPercent allows, so its format may "
    "have changed: mend it, or raise the limit and upload it again",
    "keys_reused": "its keys are those of rows of other parents, which it would overwrite: give "
    "each row a key of its own, or upload it again and load it by --FORCE true",
    "utf16": "the file is UTF-16 or UTF-32: save it as UTF-8",
    "binary": "the file is not text",
    "wrong_format": "the file is no CSV",
    "truncated_gzip": "the gzip stream ends too early, or is damaged: pack and upload it again",
}
OUTCOMES = ("inserted", "updated", "unchanged", "superseded", "rejected", "parked")
INSERTED, UPDATED, UNCHANGED, SUPERSEDED, REJECTED, PARKED = OUTCOMES
ADMITTED = "admitted"  # what a parked row becomes once it is in its table


# --------------------------------------------------------------------------------------------------
# The tables: the customer's schema. A new column, rule or dataset is a few lines here, nowhere else
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Column:
    """One column of a table: its name, its Spark SQL type and what it means.

    required    a blank value rejects the row
    identifier  a text that names something: an integer written `123.0` by a spreadsheet is `123`
    also        further names in headers, such as `Lineitem sku`; of names only letters and digits
                are compared, whatever their case
    """

    name: str
    type: str
    meaning: str
    required: bool = False
    identifier: bool = False
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parent:
    """A reference: `column` holds a key of `dataset`; a row without it is parked with `reason`."""

    column: str
    dataset: str
    reason: str


ColumnOf = Callable[[str], SparkColumn]


@dataclass(frozen=True)
class Rule:
    """A check on a typed row: `broken(text_of, value_of)` is true where `reason` rejects it."""

    reason: str
    broken: Callable[[ColumnOf, ColumnOf], SparkColumn]


@dataclass(frozen=True)
class Table:
    """A Delta table and the dataset that feeds it; `version` orders the versions of one key."""

    dataset: str
    name: str
    key: str
    columns: tuple[Column, ...]
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
        """The key and the columns that hold parents' keys."""
        return [self.key, *(parent.column for parent in self.parents)]

    @property
    def statistics(self) -> str:
        """Columns with file statistics, by which files are skipped."""
        return ",".join(name for name in (self.key, self.version) if name)


def _date_mismatch(text: ColumnOf, value: ColumnOf) -> SparkColumn:
    written = F.substring(text("order_timestamp"), 1, 10)
    other_text = ~text("order_timestamp").startswith(text("date"))
    other_day = value("date") != F.to_date(value("order_timestamp"))
    return other_text & (value("date") != try_cast(written, "date")) & other_day


DATE_RULE = Rule("date_mismatch", _date_mismatch)
DATE_MEANING = "day of the order; taken from the timestamp in UTC where it is blank"

PRODUCTS = Table(
    dataset="products",
    name="clean_products",
    key="product_id",
    columns=(
        Column("product_id", "STRING", "the shop's number of the product", True, True),
        Column("department_id", "STRING", "number of the department, not of its name", False, True),
        Column("department", "STRING", "name of the department"),
        Column("product_name", "STRING", "name shown to customers"),
    ),
)
ORDERS = Table(
    dataset="orders",
    name="clean_orders",
    key="order_id",
    version="order_timestamp",
    partition="date",
    columns=(
        Column("order_num", "STRING", "a running number from 1 to 100; no key", identifier=True),
        Column("order_id", "STRING", "the order", required=True, identifier=True),
        Column("user_id", "STRING", "the customer", identifier=True),
        Column("order_timestamp", "TIMESTAMP", "when the order was placed, UTC", required=True),
        Column("total_amount", "DOUBLE", "sum in the shop's currency; negative for a refund"),
        Column("date", "DATE", DATE_MEANING),
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
        Column("id", "STRING", "the line of an order", required=True, identifier=True),
        Column("order_id", "STRING", "the order it belongs to", required=True, identifier=True),
        Column("user_id", "STRING", "the customer", identifier=True),
        Column("days_since_prior_order", "INT", "days since the customer's order before"),
        Column("product_id", "STRING", "the product bought", required=True, identifier=True),
        Column("add_to_cart_order", "INT", "position in the cart, from 1"),
        Column("reordered", "BOOLEAN", "whether the customer had bought the product before"),
        Column("order_timestamp", "TIMESTAMP", "when the order was placed, UTC", required=True),
        Column("date", "DATE", DATE_MEANING),
    ),
    parents=(
        Parent("order_id", "orders", "orphan_order"),
        Parent("product_id", "products", "orphan_product"),
    ),
    rules=(DATE_RULE,),
)
TABLES = (PRODUCTS, ORDERS, ORDER_ITEMS)  # in the order of loading: parents first

FILE_COLUMNS = ("file_path", "file_digest", "file_size", "file_modified")  # a delivery
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
RECORD_TABLES = {
    "rejected_records": REJECTED_DDL,
    "ingested_files": LEDGER_DDL,
    "etl_runs": RUNS_DDL,
    "corrections": CORRECTIONS_DDL,  # written by the operation `sql` (glue_operations.py)
}
FILE_IDENTITY = ["dataset", "file_digest", "file_size"]  # of a file: its content
ROW_IDENTITY = [*FILE_IDENTITY, "line"]  # of a row in rejected_records
SAME_ROW = " AND ".join(f"t.{name} <=> s.{name}" for name in ROW_IDENTITY)
ROW_STATISTICS = "run_id,record_key,file_path"  # by which files of rejected_records are skipped

TABLE_PROPERTIES = {  # Delta reader 1 / writer 2: what Athena can always read
    "delta.autoOptimize.optimizeWrite": "true",
    "delta.autoOptimize.autoCompact": "true",
    "delta.enableDeletionVectors": "false",
    # How far back a rollback reaches, and when VACUUM removes a file
    "delta.logRetentionDuration": "interval 30 days",
    "delta.deletedFileRetentionDuration": "interval 30 days",
    "delta.setTransactionRetentionDuration": "interval 30 days",
}
SCHEMA_VERSION = 1  # of summary.json; the state machine asks for it
LARGE_BYTES = 16 << 20  # a batch with more text is staged in scratch files instead of memory
BROADCAST_ROWS = 200_000  # so many keys are sent to every executor instead of shuffled
GZIP_RATIO = 8  # text bytes that a byte of a gzip file is taken for
CHUNK_BYTES = 1 << 16  # of an object that are read at once
HEAD_BYTES = 1 << 16  # in which a file's header is looked for
MAX_DAYS = 400  # in a split of a batch that comes by day
LOG_PREFIX = "_delta_log/"
TEXT_LIMIT = 500  # characters of a text in the summary, which the state machine reads whole
SUMMARY_SPANS = 500  # spans of touched days that the summary names
EXAMPLES = 30  # commonest reasons of which the summary shows a rejected row


# --------------------------------------------------------------------------------------------------
# Errors, arguments, progress
# --------------------------------------------------------------------------------------------------
class JobError(Exception):
    """The run cannot go on; the message says what happened and what to do."""


class AccessError(Exception):
    """An object is there, but its bytes are not given out."""


class ChangedError(Exception):
    """An object is no longer the one that was listed."""


class ConservationError(JobError):
    """The rows of a file are not the sum of their outcomes."""


@dataclass(frozen=True)
class JobArguments:
    """The job's arguments; paths end with `/`."""

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
        """Read the command line; ignores arguments it does not know (Glue adds its own).

        Exits with 2 on a wrong argument.
        """
        parser = _Parser(prog="glue_etl.py", allow_abbrev=False)
        for name in ("RAW_PATH", "LAKEHOUSE_PATH", "REJECTED_PATH", "RUNS_PATH"):
            parser.add_argument(f"--{name}", required=True, type=_folder)
        parser.add_argument("--RUN_ID", required=True, type=_run_id)
        parser.add_argument("--TempDir", type=_folder)
        parser.add_argument("--MAX_REJECTED_PERCENT", default=50, type=_percent)
        for name in ("FORCE", "LOCAL"):
            parser.add_argument(f"--{name}", nargs="?", const=True, default=False, type=_flag)
        known, _ = parser.parse_known_args(argv)
        scratch = known.TempDir or known.LAKEHOUSE_PATH[:-1].rpartition("/")[0] + "/glue-temp/"
        paths = (known.RAW_PATH, known.LAKEHOUSE_PATH, known.REJECTED_PATH, known.RUNS_PATH)
        percent = known.MAX_REJECTED_PERCENT
        return cls(*paths, known.RUN_ID, scratch, known.FORCE, known.LOCAL, percent)

    def path_of(self, table: str) -> str:
        """Where a table lies."""
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
        raise argparse.ArgumentTypeError(f"{path!r}: give s3://bucket/prefix/ or a folder")
    return path.rstrip("/") + "/"


def _run_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", text):
        allowed = "use letters, digits, '.', '_' and '-', 128 at most"
        raise argparse.ArgumentTypeError(f"{text!r}: {allowed}")
    return text


def _percent(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 0 to 100")
    return int(text)


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r}: say true or false")
    return text.lower() == "true"


LOG = logging.getLogger("glue_etl")


def progress(step: str) -> None:
    """Say which step is done; every commit of a run is followed by this call."""
    LOG.info(step)


def log_to_stdout(run_id: str) -> None:
    """One line for each step: time, run id, step."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(f"%(asctime)s [{run_id}] %(message)s", "%H:%M:%S"))
    LOG.handlers, LOG.propagate = [handler], False
    LOG.setLevel(logging.INFO)


Item = TypeVar("Item")
Result = TypeVar("Result")


def map_concurrently(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int = 16
) -> list[Result]:
    """`function` of each item, in threads; the results in the items' order."""
    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    with concurrent.futures.ThreadPoolExecutor(min(workers, len(items))) as pool:
        return list(pool.map(function, items))


def union(frames: Sequence[DataFrame]) -> DataFrame:
    """All rows of frames with the same columns."""
    return functools.reduce(DataFrame.unionByName, frames)


def any_of(conditions: Iterable[SparkColumn]) -> SparkColumn:
    return functools.reduce(lambda left, right: left | right, conditions)


def all_of(conditions: Iterable[SparkColumn]) -> SparkColumn:
    return functools.reduce(lambda left, right: left & right, conditions)


def text_map(texts: Mapping[str, SparkColumn]) -> SparkColumn:
    """A MAP of texts by column name."""
    return F.create_map(*[part for name, text in texts.items() for part in (F.lit(name), text)])


def fields_of(table: Table) -> list[SparkColumn]:
    """The table's columns from the texts in `fields`; NULL where a text is no value."""
    return [
        try_cast(F.col("fields").getItem(column.name), column.type).alias(column.name)
        for column in table.columns
    ]


def texts_of(table: Table, row: str = "") -> SparkColumn:
    """The table's columns as the texts that `fields` has; `row` is `struct.` where they stand in
    one."""
    return text_map({name: F.col(f"{row}{name}").cast("string") for name in table.column_names})


# --------------------------------------------------------------------------------------------------
# Column functions: text -> value, and what is wrong with it
# --------------------------------------------------------------------------------------------------
TIMESTAMP_SHAPE = (
    r"^\d{4}-\d\d-\d\d[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?"
    r" ?(Z|UTC|[+-]\d\d(:?\d\d)?)?$"
)
DATE_SHAPE = r"^\d{4}-\d\d-\d\d([T ]00:00(:00(\.0{1,9})?)?)?$"
NO_DATE_SHAPE = r"^0000-00-00([T ]00:00(:00(\.0{1,9})?)?)?$"  # how MySQL writes that there is none
AMBIGUOUS_DATE_SHAPE = r"^\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}"
INTEGER_SHAPE = r"^[+-]?\d+(\.0+)?$"
NUMBER_SHAPE = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
DECIMAL_COMMA_SHAPE = r"^[+-]?\d*,\d{1,2}$"
AMBIGUOUS_NUMBER_SHAPE = r"^[+-]?\d{1,3}(,\d{3})+$"  # one thousand, or one and a bit
POINT_THOUSANDS_SHAPE = r"^[+-]?\d{1,3}(\.\d{3})+$"  # the same where columns have no commas
POINTS_AND_COMMA_SHAPE = r"^[+-]?\d{1,3}(\.\d{3})+,\d+$"
# 1e+05, 1.0023456E7, 2.02504E+11; 5E5 is a code
SCIENTIFIC_SHAPE = r"^(?!\d+E\d+$)\d+([.,]\d*)?[eE][+-]?\d+$"
SAFE_DIGITS = 15  # that every double holds
TABLE_LINE = r"^[-=+:|,; \t]*$"  # a cell of a line that draws a table
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
INVISIBLE = "".join(  # soft hyphens, marks of direction, joiners, tags
    chr(code)
    for code in itertools.chain(range(0x20000), range(0xE0000, 0xE0080))  # the others have none
    if unicodedata.category(chr(code)) == "Cf"
)
BLANKS += INVISIBLE

SPARK_3 = not hasattr(SparkColumn, "try_cast")


def try_cast(column: SparkColumn, type_name: str) -> SparkColumn:
    """A cast that gives NULL where the text does not fit, on Spark 3.5 and 4.1 alike."""
    return column.cast(type_name) if SPARK_3 else column.try_cast(type_name)


def valid_utf8(text: SparkColumn) -> SparkColumn:
    """Whether the bytes of a text are UTF-8; Spark 3.5 has no function for it."""
    return F.encode(text, "UTF-8") == text.cast("binary") if SPARK_3 else F.is_valid_utf8(text)


def trimmed(text: SparkColumn) -> SparkColumn:
    """A text without blanks around it, all of Unicode's."""
    return F.btrim(text, F.lit(BLANKS))


def value_text(column: Column, cell: SparkColumn) -> SparkColumn:
    """The text of a cell as its column's parser takes it; NULL where it says nothing."""
    text = trimmed(cell)
    if column.identifier:  # ="00081" is how users of spreadsheets keep zeros
        unwrapped = trimmed(F.regexp_extract(text, '^="([^"]*)"$', 1))
        text = F.when(text.rlike('^="[^"]*"$'), unwrapped).otherwise(text)
    if column.type == "STRING" and not column.identifier:
        return F.when((text != "") & ~text.isin(*NULL_TEXTS), text)
    word = F.lower(trimmed(F.btrim(text, F.lit(BRACKETS))))
    nothing = (word == "") | word.isin(*NULL_WORDS)
    if column.type != "BOOLEAN":  # how Odoo writes that a cell is empty
        nothing |= word == "false"
    if column.type == "DATE" and not column.required:
        nothing |= text.rlike(NO_DATE_SHAPE)
    return F.when(~nothing, text)


def parse_identifier(text: SparkColumn) -> SparkColumn:
    """A name as text. A spreadsheet's `123.0` is `123`, R's 1e+05 is 100000 and Java's 1.0023456E7
    is 10023456; 2.02504E+11 and 2E+11, of which a spreadsheet shows the first digits only, are
    NULL."""
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
    """`3` and `3.0` are 3; `3.5`, `abc` and what leaves 32 bits are NULL."""
    return F.when(text.rlike(INTEGER_SHAPE), try_cast(F.regexp_replace(text, r"\.0+$", ""), "int"))


def parse_number(text: SparkColumn) -> SparkColumn:
    """A finite double that holds all digits of the text; -0.0 is 0.0, so that equal values have
    one form."""
    value = try_cast(text, "double") + F.lit(0.0)
    written, held = significant_digits(text), significant_digits(value.cast("string"))
    exact = (F.length(written) <= SAFE_DIGITS) | (written == held)
    exact &= (value != 0) | (written == "")
    return F.when(text.rlike(NUMBER_SHAPE) & exact & (F.abs(value) < F.lit(float("inf"))), value)


def significant_digits(number: SparkColumn) -> SparkColumn:
    """The digits of a number's text without sign, point, exponent and the zeros at both ends."""
    mantissa = F.translate(F.regexp_replace(number, "[eE].*$", ""), "+-.", "")
    return F.btrim(mantissa, F.lit("0"))


def parse_boolean(text: SparkColumn) -> SparkColumn:
    """0/1, true/false, yes/no, y/n, t/f in any case, and a spreadsheet's 0.0/1.0."""
    word = F.lower(text)
    return F.when(word.isin(*TRUE_WORDS), F.lit(True)).when(word.isin(*FALSE_WORDS), F.lit(False))


def parse_timestamp(text: SparkColumn) -> SparkColumn:
    """ISO with `T` or a blank, seconds and fractions optional, brought to UTC; year 1 to 9999."""
    tight = F.regexp_replace(F.regexp_replace(text, "UTC$", "Z"), r" (?=Z|[+-])", "")
    offset = F.regexp_replace(tight, r"([+-]\d\d)(\d\d)$", "$1:$2")
    with_seconds = F.regexp_replace(offset, r"([T ]\d\d:\d\d)(?=Z|[+-])", "$1:00")
    value = try_cast(with_seconds, "timestamp")  # the cast knows 11:27:00+02:00, not 11:27+0200
    in_range = ~text.startswith("0000") & F.year(value).between(1, 9999)
    return F.when(text.rlike(TIMESTAMP_SHAPE) & in_range, value)


def parse_date(text: SparkColumn) -> SparkColumn:
    """ISO, or a timestamp at midnight as databases export a day; year 1 to 9999."""
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


def parse(column: Column, text: SparkColumn) -> SparkColumn:
    """The typed value of a column's text; NULL where it is blank or does not fit."""
    return parse_identifier(text) if column.identifier else PARSERS[column.type](text)


def column_reasons(column: Column, text: SparkColumn, value: SparkColumn) -> dict[str, SparkColumn]:
    """What can be wrong with one column: reason code -> true where it is so."""
    found = {f"missing_{column.name}": text.isNull()} if column.required else {}
    unread = text.isNotNull() & value.isNull()
    shapes = {"DATE": AMBIGUOUS_DATE_SHAPE, "TIMESTAMP": AMBIGUOUS_DATE_SHAPE}
    shape = (shapes | {"DOUBLE": AMBIGUOUS_NUMBER_SHAPE}).get(column.type)
    if shape:
        found[f"ambiguous_{column.name}"] = unread & text.rlike(shape)
        unread &= ~text.rlike(shape)
    if column.identifier or column.type != "STRING":
        found[f"invalid_{column.name}"] = unread
    return found


def hidden_character(written: Mapping[str, SparkColumn], table: Table) -> SparkColumn:
    """Whether an invisible character stands within a name, which then looks like another."""
    names = [column.name for column in table.columns if column.identifier]
    return any_of(written[name].rlike(f"[{ranges(INVISIBLE)}]") for name in names)


def reasons_of(checks: Mapping[str, SparkColumn]) -> SparkColumn:
    """All reasons of a row as an array, NULL where there is none; a check that is NULL is none."""
    codes = F.array(*[F.when(broken, F.lit(reason)) for reason, broken in checks.items()])
    found = F.filter(codes, lambda code: code.isNotNull())
    return F.when(F.size(found) > 0, found)


# The fast path: what a value looks like that its type's plain cast reads as the parser above would:
# no blanks to trim, nothing to tidy up. A cast that still fails sends its line to the parser.
# Java looks single characters of a class up in a table and compares ranges, so classes are spelled
# out. A possessive quantifier keeps a long line from being tried again.
def one_of(characters: str) -> str:
    """A character class of a regular expression with each character named."""
    escaped = ("\\" + one if one in r"[]\^&-" else one for one in characters)
    return "[" + "".join(escaped) + "]"


def ranges(characters: Iterable[str]) -> str:
    """Characters for a class of a regular expression, neighbours as a range."""
    codes = {ord(one) for one in characters}
    first = sorted(code for code in codes if code - 1 not in codes)
    last = sorted(code for code in codes if code + 1 not in codes)
    return "".join(rf"\x{{{a:x}}}-\x{{{b:x}}}" for a, b in zip(first, last, strict=True))


PLAIN_DATE = r"[1-8]\d\d\d-\d\d-\d\d"
PLAIN_WORD = (
    r'[^,;|"\\\x00-\x20\x7f-\xa0' + ranges(one for one in BLANKS if one > "\xa0") + r"\ufffd]++"
)
PLAIN_VALUES = {
    "INT": one_of("-0123456789") + "{0,20}+",
    "DOUBLE": one_of("-.0123456789") + f"{{0,{SAFE_DIGITS}}}+",
    "BOOLEAN": one_of("01abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") + "{0,8}+",
    "TIMESTAMP": rf"(?:{PLAIN_DATE}[T ]\d\d:\d\d:\d\d)?+",
    "DATE": f"(?:{PLAIN_DATE})?+",
    "STRING": f"(?:{PLAIN_WORD}(?: {PLAIN_WORD})*+)?+",
}
_PRINTABLE = "".join(chr(code) for code in range(33, 127) if chr(code) not in '",;|.+=\\')
_LETTERS = "".join(one for one in _PRINTABLE if one.isalpha() and one not in "fnuFNU")
_NO_VALUE = r"(?!(?i:n(?:ull|an|a|/a|one|at)|undefined|false)(?:[,;|\t]|\z))"
PLAIN_IDENTIFIER = (  # neither a word for nothing nor a number in scientific form
    f"(?:{one_of(_LETTERS + '$_')}{one_of(_PRINTABLE)}*+"
    f"|[0-9]++(?:{one_of(''.join(one for one in _PRINTABLE if one not in 'eE0123456789'))}"
    f"{one_of(_PRINTABLE)}*+|(?![eE][0-9-][0-9]*+(?:[,;|\\t]|\\z))[eE]{one_of(_PRINTABLE)}*+)?+"
    f"|{_NO_VALUE}[fnuFNU]{one_of(_PRINTABLE)}*+)?+"
)
UNUSED_VALUE = r'[^,;|"\t\x00-\x08\x0b-\x1f\x{fffd}]*+'


def plain_value(column: Column, text: SparkColumn) -> SparkColumn:
    """The value of a text that looks as `PLAIN_VALUES` says; NULL where it does not fit at all."""
    value = text if column.type == "STRING" else try_cast(text, column.type)
    if column.type == "BOOLEAN":
        return F.when(text == "1", True).when(text == "0", False).otherwise(value)
    return value + F.lit(0.0) if column.type == "DOUBLE" else value  # -0.0 is 0.0


def integer_key(key: SparkColumn) -> SparkColumn:
    """A key's number where it is an integer of up to 18 digits without sign and leading zeros."""
    number = try_cast(key, "bigint")
    least = ", ".join(f"{10**digits if digits else 0}L" for digits in range(18))
    return F.when(number >= F.get(F.expr(f"array({least})"), F.octet_length(key) - 1), number)


def value_count(table: Table) -> SparkColumn:
    """How many columns of a row have a value."""
    counted = [F.col(name).isNotNull().cast("int") for name in table.column_names]
    return functools.reduce(lambda left, right: left + right, counted)


def same_values(table: Table, left: str, right: str) -> SparkColumn:
    """Whether two rows hold equal values, NULLs included."""
    names = table.column_names
    return all_of(F.col(f"{left}.{name}").eqNullSafe(F.col(f"{right}.{name}")) for name in names)


# --------------------------------------------------------------------------------------------------
# Storage: S3 or a folder, and the end of a Delta log as JSON; without Spark
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class StoredObject:
    """One object of a listing: its path below the listed prefix and what tells its version.

    delivered_as  the path under which an archived object was delivered; empty for one that still
                  lies where it was delivered
    """

    path: str
    etag: str
    size: int
    modified: dt.datetime
    delivered_as: str = ""

    @property
    def name(self) -> str:
        """Its path as delivered, as a text that can be written: on disk it may be no UTF-8."""
        path = self.delivered_as or self.path
        return path.encode("utf-8", "backslashreplace").decode("utf-8")

    @property
    def text_bytes(self) -> int:
        """The size of the text in it, as far as its name tells."""
        return self.size * (GZIP_RATIO if self.path.lower().endswith(".gz") else 1)


class FolderStorage:
    """Objects in a folder; they have no ETag.

    Here as on S3 `chunks` raises FileNotFoundError if the object is not there.
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

    def chunks(self, path: str, etag: str = "") -> Generator[bytes]:
        with open(self.root + path, "rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk

    def write(self, path: str, content: bytes) -> None:
        target = Path(self.root + path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        part.write_bytes(content)
        part.replace(target)

    def remove(self, prefix: str) -> None:
        for path in Path(self.root).glob(f"{prefix}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class S3Storage:
    """Objects below an S3 prefix."""

    def __init__(self, root: str) -> None:
        import boto3

        self.bucket, _, self.prefix = root[len("s3://") :].partition("/")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self.client = boto3.client("s3", endpoint_url=endpoint)

    def key(self, path: str) -> str:
        return self.prefix + path

    def list(self, prefix: str = "", after: str = "") -> Sequence[StoredObject]:
        """Objects below a prefix, of which only those whose key is greater than `after`."""
        start = {"StartAfter": self.prefix + prefix + after} if after else {}
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + prefix, **start
        )
        below = len(self.prefix)
        return [
            StoredObject(
                item["Key"][below:], item["ETag"].strip('"'), item["Size"], item["LastModified"]
            )
            for page in pages
            for item in page.get("Contents", [])
            if not item["Key"].endswith("/")
        ]

    def chunks(self, path: str, etag: str = "") -> Generator[bytes]:
        """The bytes of an object in pieces; ChangedError if it has another ETag than the given."""
        condition = {"IfMatch": f'"{etag}"'} if etag else {}
        try:
            body = self.client.get_object(Bucket=self.bucket, Key=self.key(path), **condition)[
                "Body"
            ]
        except self.client.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ("NoSuchKey", "404"):
                where = f"s3://{self.bucket}/{self.key(path)}"
                raise FileNotFoundError(f"{where} is no longer there") from None
            if code in ("PreconditionFailed", "412"):
                raise ChangedError(path) from None
            if code in ("AccessDenied", "403", "InvalidObjectState"):
                raise AccessError(f"S3 does not give it out ({code})") from None
            raise
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        with closing(body):
            try:
                while chunk := body.read(CHUNK_BYTES):
                    yield chunk
            except (HTTPClientError, IncompleteReadError) as error:
                raise AccessError(f"S3 ended the transfer early ({error})") from None

    def write(self, path: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.key(path), Body=content)

    def remove(self, prefix: str) -> None:
        for stored in self.list(prefix):
            self.client.delete_object(Bucket=self.bucket, Key=self.key(stored.path))


Storage = FolderStorage | S3Storage


def storage(path: str) -> Storage:
    """The storage below a path that ends with `/`."""
    return S3Storage(path) if path.startswith("s3://") else FolderStorage(path)


@dataclass(frozen=True)
class LogCommit:
    """One commit of a Delta log, read from its JSON."""

    version: int
    operation: str
    run_id: str | None  # of the run that made it; None for a commit of somebody else
    added: tuple[str, ...]  # paths of data files
    removed: tuple[str, ...]
    metrics: Mapping[str, str]  # Delta's own

    def metric(self, *names: str) -> int:
        """The first of some metrics that the commit has, else 0."""
        return next((int(self.metrics[name]) for name in names if name in self.metrics), 0)

    @property
    def inserted(self) -> int:
        """Rows that a WRITE or MERGE has inserted."""
        return self.metric("numTargetRowsInserted", "numOutputRows")

    @property
    def deleted(self) -> int:
        return self.metric("numTargetRowsDeleted", "numDeletedRows")


class DeltaLog:
    """The end of a table's transaction log, behind its last checkpoint, without Spark."""

    def __init__(self, table_path: str) -> None:
        self.storage = storage(table_path.rstrip("/") + "/")

    def versions(self, after: int = -1) -> list[int]:
        """Versions later than `after` whose JSON is there, ascending."""
        start = f"{after:020d}.json" if after >= 0 else ""
        names = (stored.path.rsplit("/", 1)[-1] for stored in self.storage.list(LOG_PREFIX, start))
        return sorted(int(name[:20]) for name in names if re.fullmatch(r"\d{20}\.json", name))

    def latest(self) -> int:
        """The latest version, -1 for no table."""
        checkpoint = -1
        with suppress(FileNotFoundError, ValueError, KeyError):  # Delta does without it as well
            text = b"".join(self.storage.chunks(f"{LOG_PREFIX}_last_checkpoint"))
            checkpoint = int(json.loads(text)["version"])
        return max(self.versions(checkpoint), default=checkpoint)

    def commits(self, after: int) -> list[LogCommit]:
        return map_concurrently(self.commit, self.versions(after))

    def commit(self, version: int) -> LogCommit:
        text = b"".join(self.storage.chunks(f"{LOG_PREFIX}{version:020d}.json"))
        actions = [json.loads(line) for line in text.splitlines() if line]
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
# Step 1, discover: what is there, and what each file is
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Layout:
    """How the rows of a file are written, as its head tells.

    Files that differ in the text of their headers and above them alone have equal layouts.
    line     the header as it stands
    names    its names: the table's where they name a column, else as written, in lower case
    titles   its names as written, letters and digits only
    spare    whether the rows have one empty field more, for which a nameless column stands
    quote    what stands around values with delimiters in them
    points   whether a point in its amounts is known to be a decimal point
    returns  whether a carriage return alone ends a line
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


@dataclass(frozen=True)
class RawFile:
    """One file of the raw zone, and what became of it.

    digest     SHA-256 of its bytes; empty if they were not read
    outcome    loaded, duplicate, set_aside, changed or unreadable
    first_path  of a file that the ledger has: the path of its first delivery
    twin_of    path of an earlier file of this run with the same bytes
    repack     whether Spark would not unpack it: its name does not tell that it is a gzip file, or
               tells it of a text, or zeros stand behind the end of its stream
    cut        whether its last line has no line end
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
    def known(self) -> bool:
        return bool(self.first_path)

    @property
    def ledger_key(self) -> tuple[str, str, str, int, str]:
        """What the ledger knows the file by, in LEDGER_KEY: a loaded file by its content, whatever
        its name; another one by its path as well, since it is no duplicate but reported once."""
        path = "" if self.outcome == "loaded" else self.stored.name
        return self.outcome, self.dataset or "", self.digest, self.stored.size, path

    @property
    def source(self) -> dict[str, Any]:
        """The file's version, in FILE_COLUMNS."""
        stored = self.stored
        values = (stored.name, self.digest, stored.size, stored.modified.isoformat())
        return dict(zip(FILE_COLUMNS, values, strict=True))

    @property
    def destination(self) -> str:
        """Where the archiver moves it: archive, rejected, or not at all (raw)."""
        moves = {"loaded": "archive", "duplicate": "archive", "set_aside": "rejected"}
        return moves.get(self.outcome, "raw")


@dataclass(frozen=True)
class Discovered:
    """The files of a run in the order of delivery; archived ones are never overwritten."""

    files: tuple[RawFile, ...]
    archived: bool = False

    @property
    def to_load(self) -> dict[int, RawFile]:
        """The files to load by their number, which is their place among all."""
        return {place: raw for place, raw in enumerate(self.files) if raw.outcome == "loaded"}

    @property
    def text_bytes(self) -> int:
        return sum(raw.stored.text_bytes for raw in self.to_load.values())

    @property
    def large(self) -> bool:
        return self.text_bytes > LARGE_BYTES

    @property
    def anything_new(self) -> bool:
        return bool(self.to_load) or any(is_recorded(raw) and not raw.known for raw in self.files)


def is_recorded(raw: RawFile) -> bool:
    """Whether the ledger gets a row for a file."""
    return raw.outcome in ("loaded", "set_aside", "unreadable")


def discover(arguments: JobArguments) -> Discovered:
    """List the raw zone once and read each object once: its digest and its header."""
    store = storage(arguments.raw_path)
    now = dt.datetime.now(dt.UTC)
    listed = [stored for stored in store.list() if is_delivery(stored, now)]
    listed.sort(key=lambda stored: (stored.modified, stored.path))
    inspected = map_concurrently(functools.partial(inspect, store), listed)
    return Discovered(tuple(raw for raw in inspected if raw is not None))


def mark_duplicates(files: Discovered, ledger: LakeTable, force: bool) -> Discovered:
    """Mark the files that the ledger has, and those whose bytes come twice in this run."""
    recorded = recorded_files(ledger, files.files)
    first_paths: dict[tuple[str, str, str, int, str], str] = {}
    marked = []
    for raw in files.files:
        first = recorded.get(raw.ledger_key)
        raw = replace(raw, first_path=first["file_path"] if first else "")
        if raw.outcome == "loaded" and raw.ledger_key in first_paths:
            raw = replace(raw, twin_of=first_paths[raw.ledger_key])
            raw = duplicate(raw, f"are delivered as {raw.twin_of} in this run, too")
        elif raw.outcome == "loaded" and first and not force:
            day = first["ingested_at"].date().isoformat()
            raw = duplicate(raw, f"were loaded as {raw.first_path} by {first['run_id']} on {day}")
        elif raw.outcome == "loaded":
            first_paths[raw.ledger_key] = raw.stored.path
        marked.append(raw)
    return replace(files, files=tuple(marked))


def duplicate(raw: RawFile, where: str) -> RawFile:
    detail = f"{raw.stored.name}: the same bytes {where}"[:TEXT_LIMIT]
    return replace(raw, outcome="duplicate", detail=detail)


LEDGER_KEY = {
    "outcome": "outcome",
    "dataset": "coalesce(dataset, '')",
    "file_digest": "file_digest",
    "file_size": "file_size",
    "path": "CASE WHEN outcome = 'loaded' THEN '' ELSE file_path END",
}


def recorded_files(ledger: LakeTable, files: Iterable[RawFile]) -> dict[tuple[Any, ...], Any]:
    """The first delivery (ingested_at, run_id, file_path) of each file that the ledger has, by
    ledger_key. The ledger is asked as a table, so that its age and its size change nothing."""
    if not ledger.exists:
        return {}
    names = list(LEDGER_KEY)
    asked = [dict(zip(names, raw.ledger_key, strict=True)) for raw in files]
    ddl = "outcome STRING, dataset STRING, file_digest STRING, file_size BIGINT, path STRING"
    keys = F.broadcast(local_frame(ledger.spark, asked, ddl).distinct())
    rows = ledger.frame.select(
        *[F.expr(text).alias(name) for name, text in LEDGER_KEY.items()],
        F.struct("ingested_at", "run_id", "file_path").alias("delivery"),
    )
    matches = rows.join(keys, names, how="left_semi").collect()
    latest_first = sorted(matches, key=lambda row: row["delivery"], reverse=True)
    return {tuple(row[name] for name in names): row["delivery"] for row in latest_first}


UNFINISHED = r"(?i)(\.(filepart|part|partial|tmp|crdownload)|\._copying_)\Z|(^|/)_temporary(/|\Z)"
NO_NEWS = (  # what tools and desktops leave beside files
    r"(?i)((^|/)_success|_\$folder\$|\.crc|/)\Z|\A\Z"
    r"|(^|/)(\.ds_store|thumbs\.db|desktop\.ini|\._[^/]*|~\$[^/]*|\.~lock\.[^/]*#)\Z"
)
UNUSABLE_PATH = r"//|\A/|(^|/)\.{1,2}(/|\Z)|[\ud800-\udfff]"  # what Hadoop folds, or is no UTF-8


def is_delivery(stored: StoredObject, now: dt.datetime) -> bool:
    """Whether an object says anything; an unfinished upload does after a day."""
    if re.search(UNFINISHED, stored.path):
        return now - stored.modified > dt.timedelta(days=1)
    return not re.search(NO_NEWS, stored.path)


class Digested:
    """Chunks handed on as they come; after the last, `sha256` and `size` are the content's."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks, self.sha256, self.size = chunks, hashlib.sha256(), 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            self.sha256.update(chunk)
            self.size += len(chunk)
            yield chunk


def inspect(store: Storage, stored: StoredObject) -> RawFile | None:
    """Read an object to its end: its digest, and by path and header what it is.

    None if it has gone since the listing: the archive of the run before is still at work.
    """
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
    """The dataset that a path names, in whatever spelling: `order-items`, `OrderItems_2025`,
    `orders_items`. `order_items` is tried before `orders`."""
    name = path.lower()
    hidden = path.rsplit("/", 1)[-1].startswith(("_", "."))
    if hidden or not re.search(r"\.csv(\.gz)?\Z", name):
        return None
    for table in sorted(TABLES, key=lambda table: -len(table.dataset)):
        words = (re.escape(word.removesuffix("s")) + "s?" for word in table.dataset.split("_"))
        if re.match("[-_ ]?".join(words) + r"(?![a-z0-9])", name):
            return table.dataset
    return None


def set_aside(raw: RawFile, reason: str, found: str = "") -> RawFile:
    """A file that cannot be loaded as a whole; `found` says what was seen in it."""
    detail = f"{raw.stored.name}: {FILE_REASONS[reason]}" + (f" ({found})" if found else "")
    return replace(raw, outcome="set_aside", reason=reason, detail=detail[:TEXT_LIMIT])


def unreadable(raw: RawFile, why: str) -> RawFile:
    """A file whose bytes cannot be had; it stays where it is, and is reported once."""
    todo = "restore it, allow the job to read it, or delete it"
    detail = f"{raw.stored.name}: {why}; {todo}"[:TEXT_LIMIT]
    return replace(raw, outcome="unreadable", reason="unreadable", detail=detail)


def changed(raw: RawFile) -> RawFile:
    """A file that is no longer the one that was listed."""
    detail = "overwritten or deleted while the run read it; it stays for the next run"
    return replace(raw, outcome="changed", detail=f"{raw.stored.name}: {detail}")


def with_header(raw: RawFile, chunks: Iterator[bytes]) -> RawFile:
    """A file with its layout, or set aside with the reason; reads no more than it needs."""
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
    name = raw.stored.path if SPARK_3 else raw.stored.path.lower()  # by which Spark unpacks it
    repack = content.padded or content.packed != name.endswith(".gz")
    raw = replace(raw, repack=repack, cut=not content.ended)
    return with_layout(raw, head.decode("utf-8", errors="replace"))


SAVE_AS_CSV = "save it as CSV UTF-8"
OTHER_FORMATS = (  # how the bytes of a file begin that is no CSV, what it is and what to do
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
    """The text of a file in chunks, that of all members of a gzip stream if it begins as one.

    Raises zlib.error where the stream is damaged or ends too early. Once read, `packed` tells
    whether it is a gzip stream, `padded` whether zeros stand behind its end, and `ended` whether
    the text ends with a line end.
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
        """The first HEAD_BYTES from the first line that is not blank on."""
        head = b""
        for chunk in self:
            head = re.sub(rb"\A[ \t\r\n]*[\r\n]", b"", head + chunk[:HEAD_BYTES])
            if len(head) >= HEAD_BYTES:
                break
        return head[:HEAD_BYTES]

    def _text(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        first = b""
        while len(first) < 2 and (more := next(chunks, b"")):
            first += more
        self.packed = first[:2] == b"\x1f\x8b"
        yield from (
            self._unpacked(first, chunks) if self.packed else itertools.chain([first], chunks)
        )

    def _unpacked(self, first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
        unpacker = zlib.decompressobj(31)
        for chunk in itertools.chain([first], chunks):
            while chunk:
                if unpacker.eof:
                    more = chunk.lstrip(b"\0")
                    self.padded |= more != chunk
                    if not more:
                        break
                    chunk, unpacker = more, zlib.decompressobj(31)
                yield unpacker.decompress(chunk)
                chunk = unpacker.unused_data
        if not unpacker.eof:
            raise zlib.error("the gzip stream ends too early")


def with_layout(raw: RawFile, text: str) -> RawFile:
    """Find the header and its delimiter: the first record, or, if that names no column, a whole
    header below at most ABOVE_HEADER lines that are no rows."""
    text = text.lstrip("\ufeff")
    table = next(table for table in TABLES if table.dataset == raw.dataset)
    starts = list(header_starts(text))
    if not starts:
        return set_aside(raw, "empty_file")
    wanted = table.column_names
    start, layout = starts[0], best_layout(text[starts[0] :], table)
    if not set(wanted) & set(layout.names):
        below = ((start, best_layout(text[start:], table)) for start in starts[1:])
        whole = ((start, one) for start, one in below if set(wanted) <= set(one.names))
        start, layout = next(whole, (start, layout))
    problem = header_problem(layout, wanted, text[start:])
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
    ignored = tuple(name for name in layout.names if name not in wanted)
    layout = replace(with_rows(layout, table, text[start:]), above=tuple(above))
    skipped = f"{raw.stored.name}: {len(titles)} lines above the header are skipped"
    detail = skipped[:TEXT_LIMIT] if titles else None
    return replace(raw, layout=layout, ignored_columns=ignored, detail=detail)


ABOVE_HEADER = 20  # lines


def header_starts(text: str) -> Iterator[int]:
    """Where the header may start: at the first lines that are not blank."""
    lines = itertools.islice(re.finditer(rf"([^\r\n]*)(?:{LINE_BREAK}|\Z)", text), 1000)
    starts = (line.start() for line in lines if not is_blank_line(line.group(1)))
    return itertools.islice(starts, ABOVE_HEADER + 1)


def is_blank_line(line: str) -> bool:
    """Whether a line says nothing, or names the delimiter."""
    bare = line.strip(BLANKS + END_OF_FILE + '",;|')
    return not bare or bool(re.match(DELIMITER_LINE, line.strip()))


def with_rows(layout: Layout, table: Table, text: str) -> Layout:
    """The layout with what the rows in the head of the file tell of all its rows."""
    layout = replace(layout, quote="'" if quoted_singly(text, layout) else '"')
    rows = head_rows(text, layout)
    wide = len(layout.names) + 1
    if rows and all(len(row) == wide and not row[-1].strip() for row in rows):
        layout = replace(layout, names=(*layout.names, ""), spare=True)
    places = [layout.names.index(one.name) for one in table.columns if one.type == "DOUBLE"]
    amounts = [row[place].strip() for row in rows for place in places if place < len(row)]
    return replace(layout, points=layout.delimiter == "," or points_are_decimal(amounts))


def head_rows(text: str, layout: Layout) -> list[Sequence[str]]:
    """The records behind the header in the head of a file, as far as they are whole and no blank
    ones."""
    if layout.quote != '"':
        text = text.translate(str.maketrans(SWAPPED_QUOTES, SWAPPED_QUOTES[::-1]))
    rows = [record for record, _ in csv_records(text, layout.delimiter)][1:]
    rows = rows if len(text) < HEAD_BYTES // 4 else rows[:-1]  # the last may be cut
    return [row for row in rows if any(cell.strip(BLANKS) for cell in row)]


def quoted_singly(text: str, layout: Layout) -> bool:
    """Whether every value of every row in the head of a file stands in single quotes."""
    value = r"[ \t]*'[^']*(?:''[^']*)*'[ \t]*"
    row = rf"{value}(?:{re.escape(layout.delimiter)}{value})*"
    lines = re.split(LINE_BREAK, text)[1:]
    lines = lines if len(text) < HEAD_BYTES // 4 else lines[:-1]  # the last may be cut
    rows = [line for line in lines if not is_blank_line(line)]
    return bool(rows) and all(re.fullmatch(row, line) for line in rows)


def points_are_decimal(amounts: Iterable[str]) -> bool:
    """Whether a point can only be a decimal point: one stands before other than three digits, and
    no comma is a decimal one."""
    amounts = list(amounts)
    decimal = any(re.fullmatch(r"[+-]?\d+\.(\d{1,2}|\d{4,})", amount) for amount in amounts)
    return decimal and not any("," in amount for amount in amounts)


def header_problem(layout: Layout, wanted: Sequence[str], text: str) -> tuple[str, str] | None:
    """Why a file cannot be loaded by its header, and what was found."""
    missing = [name for name in wanted if name not in layout.names]
    if len(missing) == len(wanted):
        garbled = re.search("[\ufffd\0]", layout.line)
        return ("binary", "") if garbled else ("no_header", _seen(text, wanted))
    twice = [name for name, count in Counter(layout.names).items() if count > 1 and name in wanted]
    if missing:
        others = [name for name in layout.names if name and name not in wanted]
        near = [one for name in missing for one in difflib.get_close_matches(name, others, 1)]
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        return "missing_column", "without " + ", ".join(missing) + hint
    return ("duplicate_column", ", ".join(twice)) if twice else None


DELIMITERS = (",", ";", "\t", "|")
SWAPPED_QUOTES = "'\""


def best_layout(text: str, table: Table) -> Layout:
    """The header at the start of a text, by the delimiter that gives most of the columns."""
    layouts = [read_header(text, delimiter, table) for delimiter in DELIMITERS]
    return max(layouts, key=lambda one: len(set(table.column_names) & set(one.names)))


def read_header(text: str, delimiter: str, table: Table) -> Layout:
    """The first record of a text, as if its columns were separated so; no names where a quote of it
    is not closed."""
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
    """A name by its letters and digits: `Order ID`, `orderId` and `order_id` are the same."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def column_names(written: Sequence[str], titles: Sequence[str], table: Table) -> tuple[str, ...]:
    """The names of a header, the table's where they name a column; one that is written as the
    column is called goes before other spellings, of which there may be only one."""
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
    """The records of the head of a file, each with the line at which it ends; as far as they go."""
    blank = delimiter != "\t"
    source = io.StringIO(text, newline="")
    records = csv.reader(source, delimiter=delimiter, skipinitialspace=blank)
    with suppress(csv.Error):  # the head is only a first look: the parser judges every record
        for record in records:
            yield record, records.line_num


def _seen(text: str, wanted: Sequence[str]) -> str:
    """What stands where the header should be."""
    line = re.split(LINE_BREAK, text, maxsplit=1)[0]
    for sign in (*":/~^!*-", *DELIMITERS):
        if set(wanted) <= {name.strip(BLANKS + '"').lower() for name in line.split(sign)}:
            broken = sign in DELIMITERS
            return "a broken quote" if broken else f"its columns are separated by {sign!r}"
    cut = len(line.encode()) >= HEAD_BYTES
    return "it reads " + ("a line of more than 64 kB" if cut else repr(line[:80]))


# --------------------------------------------------------------------------------------------------
# The edges: Spark, and the tables as the run finds them
# --------------------------------------------------------------------------------------------------
SPARK_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "false",  # one behaviour of casts on Spark 3.5 and 4.1
    "spark.sql.parquet.compression.codec": "zstd",  # half of snappy's bytes, which Athena bills
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # INT96 has no statistics
    "spark.sql.parquet.int96RebaseModeInWrite": "CORRECTED",  # Spark 3.5 stops at days before 1582
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.codegen.hugeMethodLimit": "8000",  # Java never compiles a longer method
    "spark.sql.adaptive.enabled": "false",  # planning again costs more than it finds
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "16",  # tasks of a listing
    # No list of all files, no histogram of sizes beside each commit: a query each for nobody
    "spark.databricks.delta.allFilesInCrc.enabled": "false",
    "spark.databricks.delta.fileSizeHistogramMetrics.enabled": "false",
    # autoCompact by its threshold of small files; its shortcut rewrites every partition touched
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
REWRITES = ("OPTIMIZE", "VACUUM START", "VACUUM END")  # commits that change no row


def spark_session(text_bytes: int = 0, local: bool = False) -> SparkSession:
    """The session of Glue or of `spark-submit`; with `local` one with Delta's jars from Maven.

    text_bytes  size of the batch, by which shuffles are partitioned
    """
    builder = SparkSession.builder.appName("Lakehouse").config(
        "spark.python.sql.dataFrameDebugging.enabled",
        "false",  # six calls to Java for each column
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
    """A few rows that this process knows, as a frame that needs no Python worker.

    `rows` hold what JSON can say, and times in ISO form.
    """
    texts = F.from_json(F.lit(json.dumps(rows)), f"ARRAY<STRUCT<{ddl}>>")
    frame = spark.sql("SELECT 1").select(F.inline(texts))
    return frame if rows else frame.where(F.lit(False))


@contextmanager
def settings(spark: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """Spark's settings as given, and as they were afterwards."""
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
    """A Delta table as the run finds it.

    before   its version, -1 if there is no table yet
    frame    its rows at that version, whatever is committed meanwhile; NULL in columns that are
             declared and not in the table yet
    missing  these columns
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
        """Add the missing columns, in one commit."""
        if self.missing:
            added = ", ".join(f"`{name}` {kind}" for name, kind in self.missing)
            with settings(self.spark, {COMMIT_STAMP: stamp}):
                self.spark.sql(f"ALTER TABLE delta.`{self.path}` ADD COLUMNS ({added})")

    def append(
        self, rows: DataFrame, stamp: str, partition: str | None = None, **more: str
    ) -> None:
        """Append in one commit; the first append creates the table with its properties. With a
        `txnAppId` of its own the commit is made once, whoever else writes."""
        options = {"userMetadata": stamp, **self.fence(1), **more}
        if not self.exists:
            options |= TABLE_PROPERTIES
        writer = rows.write.format("delta").mode("append").options(**options)
        with nullcontext() if "txnAppId" in more else self.alone(stamp):
            (writer.partitionBy(partition) if partition else writer).save(self.path)

    def fence(self, nth: int) -> dict[str, str]:
        """What lets Delta refuse the nth commit of a run to this table, if another run that found
        the same version has made its own: both have one number, which Delta takes once."""
        return {"txnAppId": "lakehouse", "txnVersion": str(2 * (self.before + 1) + nth)}

    @contextmanager
    def alone(self, stamp: str) -> Iterator[None]:
        """Raise JobError if another run has written the table since this one found it."""
        failure: Exception | None = None
        try:
            yield
        except Exception as error:  # of Delta's concurrent writers among others
            failure = error
        commits = [one for one in self.log.commits(self.before) if one.operation not in REWRITES]
        mine = json.loads(stamp)["run_id"]
        others = sorted({one.run_id or "another writer" for one in commits if one.run_id != mine})
        if others or not (commits or failure):
            raise JobError(
                f"{self.path}: {', '.join(others) or 'another run'} has written this table since "
                f"the run {mine} began, which has therefore left it as it is: run again"
            ) from failure
        if failure:
            raise failure

    def append_records(
        self,
        rows: Sequence[Mapping[str, Any]],
        ddl: str,
        stamp: str,
        partition: str | None = None,
        **more: str,
    ) -> None:
        """Append a few rows that this process knows, or none."""
        frame = local_frame(self.spark, rows, ddl)
        # One file needs no shuffle
        self.append(frame, stamp, partition, optimizeWrite="false", **more)

    def merge(
        self, rows: DataFrame, condition: str, clauses: str, stamp: str, nth: int = 1
    ) -> None:
        """MERGE rows (alias s) into the table (alias t) by SQL, in one commit: the nth that the run
        makes to this table."""
        rows.createOrReplaceTempView("lakehouse_merge_source")
        fence = {f"{WRITE_SETTINGS}{name}": value for name, value in self.fence(nth).items()}
        try:
            with settings(self.spark, {COMMIT_STAMP: stamp, **fence}), self.alone(stamp):
                self.spark.sql(
                    f"MERGE INTO delta.`{self.path}` t USING lakehouse_merge_source s "
                    f"ON {condition} {clauses}"
                )
        finally:
            self.spark.catalog.dropTempView("lakehouse_merge_source")

    def rows_between(self, column: str, least: str, greatest: str) -> DataFrame:
        """The rows with a key in a range of text; Delta skips the other files by statistics."""
        return self.frame.where(F.col(column).between(least, greatest))

    def summary(self) -> dict[str, Any]:
        """What the run did to the table, as the summary tells it. The rows of the job's own
        records are not counted: each count costs a query."""
        commits = self.log.commits(after=self.before)
        version = max([self.before, *(commit.version for commit in commits)])
        added = [path for commit in commits for path in commit.added]
        rows = None
        if self.path.rsplit("/", 1)[-1] not in RECORD_TABLES:
            # Of `frame` Spark has read the checkpoint already; Delta counts by its statistics
            before = self.frame.count() if self.exists else 0
            rows = before + sum(one.inserted - one.deleted for one in commits)
        return {
            "version": version if version >= 0 else None,
            "rows": rows,
            "schema_changed": version >= 0
            and (not self.exists or any(one.operation == "ADD COLUMNS" for one in commits)),
            "files_added": len(added),
            "files_removed": sum(len(commit.removed) for commit in commits),
            "dates": _days(added),
        }

    def rows_at(self, version: int) -> int:
        """Rows at a version, 0 before the first; Delta counts by its statistics."""
        return self.at(version).count() if version >= 0 else 0

    def at(self, version: int) -> DataFrame:
        """The rows at a version."""
        return self.spark.read.format("delta").option("versionAsOf", version).load(self.path)


def _days(files: Iterable[str]) -> list[list[str]]:
    """The days of data files as spans [first, last], ascending; of very many spans one over all."""
    found = {one.split("/")[0].removeprefix("date=") for one in files if one.startswith("date=")}
    spans: list[list[str]] = []
    for day in sorted(found):
        if spans and day == _day_after(spans[-1][1]):
            spans[-1][1] = day
        else:
            spans.append([day, day])
    return spans if len(spans) <= SUMMARY_SPANS else [[spans[0][0], spans[-1][1]]]


def _day_after(day: str) -> str | None:
    """None after the last day of all, and where a partition is named by no day."""
    try:
        return (dt.date.fromisoformat(day) + dt.timedelta(days=1)).isoformat()
    except (OverflowError, ValueError):
        return None


Lake = Mapping[str, LakeTable]


def schemas() -> dict[str, str]:
    """The columns of each table, the job's own records among them, as DDL."""
    return {table.name: table.ddl for table in TABLES} | RECORD_TABLES


def open_lake(spark: SparkSession, arguments: JobArguments) -> Lake:
    """All tables, pinned to their versions; nothing is changed."""
    names = list(schemas())
    tables = map_concurrently(lambda name: open_table(spark, arguments, name), names)
    return dict(zip(names, tables, strict=True))


def open_table(spark: SparkSession, arguments: JobArguments, name: str) -> LakeTable:
    path, empty = arguments.path_of(name), local_frame(spark, [], schemas()[name])
    table = LakeTable(spark, path, DeltaLog(path), -1, empty)
    before = table.log.latest()
    if before < 0:
        return table
    check_protocol(spark, path)
    frame = table.at(before)
    missing = tuple((column, kind) for column, kind in empty.dtypes if column not in frame.columns)
    nulls = {column: F.lit(None).cast(kind) for column, kind in missing}
    return replace(table, before=before, frame=frame.withColumns(nulls), missing=missing)


def check_protocol(spark: SparkSession, path: str) -> None:
    """Raise if another engine has raised a table beyond what Athena can always read."""
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
    """Settings for the plans of a run. Few rows go through those of a small batch, each of which
    runs once: to compile them to Java first takes a quarter of a small delivery."""
    return {} if large else INTERPRETED


# --------------------------------------------------------------------------------------------------
# Step 2, stage: the raw text, read once, as typed rows and rows with reasons
#
# Columns of the job's own that pass from function to function, beside the table's:
#   _file      INT      the file's number: its place among the files of the run; NULL for a row that
#                       was parked in an earlier run
#   _split     BIGINT   where the input split of the file starts that holds the line; 0 for records
#                       with line breaks in quotes, and for rows out of rejected_records
#   _mid       BIGINT   rises within a split, line by line; where _split is 0 for these reasons,
#                       the line in the file
#   _raw       STRING   stage: the line as it stands, or all lines of a record
#   _kind      INT      RECORD, BLANK, HEADER, OTHER_HEADER (the same names in another order), and
#                       of the fast path LEFT for the parser, or OPEN: left with a quote open
#   _reasons   ARRAY    why a record is rejected, NULL for a valid row; in resolve the parents that
#                       have not come, each `reason:key`
#   _fields    MAP      the texts of a rejected row by column; NULL where they could not be told
#   _source    STRUCT   resolve: of a row that was parked in an earlier run path, digest, size and
#                       modified (microseconds) of its file; NULL for a row of this run
#   _replayed  BOOLEAN  the row was delivered before the table's row of its key, so that it
#                       never wins a tie against it
#   _standing  STRING   resolve: against the table's row of the key: absent, same, newer, moved
#                       (newer, with another parent) or older
#   _old_day   DATE     resolve: the partition in which the table holds the key now
#   _outcome   STRING   resolve: one of OUTCOMES, or conflicting: superseded by a row of its file
#                       that contradicts it
# --------------------------------------------------------------------------------------------------
RECORD, BLANK, HEADER, OTHER_HEADER, LEFT, OPEN = range(6)
VALID = f"_kind = {RECORD} AND _reasons IS NULL"
BAD = f"_kind = {RECORD} AND _reasons IS NOT NULL"
ROW_PLACE = ["_file", "_split", "_mid"]
PLACE = [*ROW_PLACE, "_raw"]
STAGED_DDL = (
    "_file INT, _split BIGINT, _mid BIGINT, _raw STRING, _kind INT, _reasons ARRAY<STRING>, "
    "_fields MAP<STRING, STRING>, "
)
# A path is a path: no wildcards in names, and no partitions guessed from `date=...` folders
PLAIN_PATHS = {"__globPaths__": "false", "recursiveFileLookup": "true"}
# ORC takes half the CPU of Parquet where it need not build dictionaries and indexes. It would keep
# times in the time zone of the machine, in which some hours come twice: they go in as numbers
SCRATCH_OPTIONS = {
    "compression": "lz4",
    "orc.dictionary.key.threshold": "0",
    "orc.create.index": "false",
}
TO_NUMBER = {"timestamp": F.unix_micros, "date": F.unix_date}
FROM_NUMBER = {"timestamp": F.timestamp_micros, "date": F.date_from_unix_date}
LINE_BREAK = r"\r\n|\n|\r"
CONTROL_CHARACTER = r"[\x00-\x08\x0e-\x1f\x7f]"
END_OF_FILE = "\x1a"  # Ctrl-Z, as DOS ends a file
DELIMITER_LINE = "^(?i:sep=).?$"  # Excel's own first line
LATIN_1 = "".join(chr(byte) for byte in range(0x80, 0x100))
RAW_BYTES = "".join(chr(0xEF00 + byte) for byte in range(0x80, 0x100))  # of Unicode's private use
FEWEST_ROWS = 20  # of a file that can be mostly_rejected


@dataclass(frozen=True)
class Scratch:
    """Where a step keeps frames that are read more than once: in memory, or in ORC files."""

    spark: SparkSession
    path: str
    on_disk: bool

    def materialize(self, frame: DataFrame, name: str) -> DataFrame:
        """Compute a frame once. In memory that happens when it is first read."""
        if not self.on_disk:
            return frame.localCheckpoint(eager=False)
        path, types = self.path + name, frame.dtypes
        numbers = frame.select(_converted(types, TO_NUMBER))
        numbers.write.mode("overwrite").options(**SCRATCH_OPTIONS).orc(path)
        kept = self.spark.read.schema(numbers.schema).orc(path)
        return kept.select(_converted(types, FROM_NUMBER))


def _converted(
    types: Sequence[tuple[str, str]], converters: Mapping[str, Callable[[str], SparkColumn]]
) -> list[SparkColumn]:
    """The columns of a frame (name, type), those of some types converted."""
    return [
        converters[kind](name).alias(name) if kind in converters else F.col(name)
        for name, kind in types
    ]


@dataclass(frozen=True)
class RowCounts:
    """What was read of one file: its rows, how many of them are rejected, and its headers."""

    rows: int = 0
    rejected: int = 0
    headers: int = 0
    other_headers: int = 0

    def mostly_rejected(self, percent: int) -> bool:
        return self.rows >= FEWEST_ROWS and self.rejected * 100 > self.rows * percent


@dataclass(frozen=True)
class ReadDataset:
    """All lines of a dataset's files, before the files are judged by them.

    rows     a row for each line, columns as above and the table's
    counts   file number -> its rows
    offsets  (file, split, what to add to _mid for the line in the file)
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
    """The lines of the files of a dataset that are loaded.

    rows     a row for each line, columns as above (with _replayed) and the table's
    files    file number -> the file
    counts   file number -> its rows
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
        """The rows without a reason to reject them."""
        return self.rows.where(VALID)

    @property
    def sources(self) -> DataFrame:
        """The files by their number: _file, FILE_COLUMNS."""
        rows = [{"_file": number, **raw.source} for number, raw in self.files.items()]
        return F.broadcast(local_frame(self.scratch.spark, rows, f"_file INT, {FILE_DDL}"))

    def with_place(self, rows: DataFrame) -> DataFrame:
        """Rows with their file (FILE_COLUMNS) and `line`, the line in it at which they begin."""
        names = ("_file", "_split", "_offset")
        offsets = [dict(zip(names, place, strict=True)) for place in self.offsets]
        ddl = "_file INT, _split BIGINT, _offset BIGINT"
        known = F.broadcast(local_frame(self.scratch.spark, offsets, ddl))
        placed = rows.join(known, ["_file", "_split"]).join(self.sources, "_file")
        return placed.withColumn("line", F.col("_mid") + F.col("_offset")).drop("_offset")


@dataclass(frozen=True)
class Staged:
    """What the run has read: the datasets by name, and the files with what became of them."""

    files: tuple[RawFile, ...]
    datasets: Mapping[str, StagedDataset]

    @property
    def loaded(self) -> dict[int, RawFile]:
        return {n: raw for one in self.datasets.values() for n, raw in one.files.items()}


def stage(spark: SparkSession, arguments: JobArguments, found: Discovered) -> Staged:
    """Read every file to load once; leave out those that changed, or are bad as a whole."""

    def read(table: Table) -> ReadDataset:
        files = {n: raw for n, raw in found.to_load.items() if raw.dataset == table.dataset}
        path = f"{arguments.scratch_path}run={arguments.run_id}/{table.dataset}/"
        scratch = Scratch(spark, path, found.large and bool(files))
        return read_dataset(arguments, table, scratch, files)

    datasets = map_concurrently(read, TABLES)
    judged = dict(enumerate(found.files))
    for dataset in datasets:
        judged |= judge_content(dataset, judged, arguments.max_rejected_percent)
    if not found.archived:
        judged |= changed_files(arguments, found.to_load)
    files = tuple(follow_twin(raw, judged.values()) for raw in judged.values())
    staged = {dataset.table.dataset: admit_files(dataset, files) for dataset in datasets}
    return Staged(files, staged)


def admit_files(read: ReadDataset, files: Sequence[RawFile]) -> StagedDataset:
    """The dataset without the files that are not loaded after all."""
    loaded = {number: files[number] for number in read.counts if files[number].outcome == "loaded"}
    known = [number for number, raw in loaded.items() if raw.known]
    rows = read.rows
    if len(loaded) < len(read.counts):
        rows = rows.where(F.col("_file").isin(list(loaded)))
    replayed = F.col("_file").isin(known) if known else F.lit(False)
    return StagedDataset(
        read.table,
        read.scratch,
        rows.withColumn("_replayed", replayed),
        loaded,
        {number: read.counts[number] for number in loaded},
        read.offsets,
        read.by_day,
    )


def judge_content(
    read: ReadDataset, files: Mapping[int, RawFile], percent: int
) -> dict[int, RawFile]:
    """The files of a dataset by number; set aside those that are bad as a whole."""
    bad = [number for number, one in read.counts.items() if one.mostly_rejected(percent)]
    reasons = reasons_by_file(read.rows, bad) if bad else {}
    judged = {}
    for number, counts in read.counts.items():
        raw = files[number]
        if not counts.headers:
            judged[number] = unreadable(raw, "not even its header came back when it was read")
        elif counts.other_headers:
            judged[number] = set_aside(raw, "mixed_headers")
        elif number in reasons:
            found = f"{counts.rejected} of {counts.rows} rows: {', '.join(reasons[number][:5])}"
            judged[number] = set_aside(raw, "mostly_rejected", found)
    return judged


def reasons_by_file(rows: DataFrame, numbers: Sequence[int]) -> dict[int, list[str]]:
    """The reasons in some files with their rows, the commonest first."""
    rows = rows.where(F.col("_file").isin(list(numbers)))
    reasons = rows.select("_file", F.explode("_reasons").alias("reason"))
    groups = reasons.groupBy("_file", "reason").count().orderBy(F.col("count").desc(), "reason")
    found: dict[int, list[str]] = {number: [] for number in numbers}
    for group in groups.collect():
        found[group["_file"]].append(f"{group['reason']} {group['count']}")
    return found


def follow_twin(raw: RawFile, files: Iterable[RawFile]) -> RawFile:
    """A file whose bytes came twice in this run; it is a duplicate only if the first is loaded."""
    if not raw.twin_of:
        return raw
    first = next(one for one in files if one.stored.path == raw.twin_of)
    if first.outcome == "loaded":
        return raw
    detail = f"{raw.stored.name}: the same bytes as {first.detail}"[:TEXT_LIMIT]
    return replace(raw, outcome=first.outcome, reason=first.reason, detail=detail)


def changed_files(arguments: JobArguments, files: Mapping[int, RawFile]) -> dict[int, RawFile]:
    """The files that are no longer what was listed, by number."""
    now = {stored.path: stored for stored in storage(arguments.raw_path).list()}

    def same(stored: StoredObject) -> bool:
        other = now.get(stored.path)
        if other is None or other.size != stored.size:
            return False
        return other.etag == stored.etag if other.etag else other.modified == stored.modified

    return {number: changed(raw) for number, raw in files.items() if not same(raw.stored)}


# -- lines -----------------------------------------------------------------------------------------
def read_path(arguments: JobArguments, number: int, raw: RawFile) -> str:
    """The path that Spark reads. A file that it would not unpack is packed anew in the scratch."""
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
    """Read the files of one dataset: of a large batch the fast path first, then the parser what
    it leaves. Files with one header are read together."""
    if not files:
        rows = local_frame(scratch.spark, [], STAGED_DDL + table.ddl)
        return ReadDataset(table, scratch, rows, {}, (), False)
    paths = {number: read_path(arguments, number, raw) for number, raw in files.items()}
    groups = by_layout(files, paths)
    latest = latest_times(files)
    if scratch.on_disk:
        headers = {raw.layout.line for raw in files.values()}
        parts = [
            fast_path(read_lines(scratch.spark, some), table, layout, headers, latest)
            for layout, some in groups.items()
        ]
    else:
        parts = [first_look(read_lines(scratch.spark, paths), table)]
    lines = scratch.materialize(union(parts), "lines")
    profiles = profile(lines, table).collect()
    multi_line = {row["_file"] for row in profiles if row["open"]}
    parsed = parse_rest(lines, table, groups, latest, profiles, multi_line)
    parts = [lines.where((F.col("_kind") < LEFT) & ~of_files(multi_line))]
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
        comes_by_day(counted),
    )


def by_layout(
    files: Mapping[int, RawFile], paths: Mapping[int, str]
) -> dict[Layout, dict[int, str]]:
    """The paths of files by number, those with one layout together; the lines above their headers
    are `number:line`, since a line above one header may be a row of another file."""
    groups: dict[Layout, dict[int, str]] = {}
    above: dict[Layout, list[str]] = {}
    for number, raw in files.items():
        groups.setdefault(raw.layout, {})[number] = paths[number]
        lines = [f"{number}:{line}" for line in raw.layout.above]
        above.setdefault(raw.layout, []).extend(lines)
    return {replace(one, above=tuple(above[one])): some for one, some in groups.items()}


def parse_rest(
    lines: DataFrame,
    table: Table,
    groups: Mapping[Layout, Mapping[int, str]],
    latest: SparkColumn,
    profiles: Sequence[Any],
    multi_line: set[int],
) -> list[DataFrame]:
    """The lines that the fast path leaves, parsed: of usual files line by line, of those in which
    a quoted field holds a line break record by record."""
    left = {row["_file"] for row in profiles if row["left"]} - multi_line
    parsed = []
    for layout, numbers in groups.items():
        by_line, by_record = left & set(numbers), multi_line & set(numbers)
        if by_line:
            rest = lines.where((F.col("_kind") >= LEFT) & of_files(by_line)).select(PLACE)
            parsed.append(parse_lines(rest, table, layout, latest))
        if by_record:
            records = join_quoted_lines(lines.where(of_files(by_record)).select(PLACE), layout)
            parsed.append(parse_lines(records, table, layout, latest))
    return parsed


def latest_times(files: Mapping[int, RawFile]) -> SparkColumn:
    """The latest time that a row of each file (`_file`) can tell of: a day after its delivery."""
    days = {n: raw.stored.modified + dt.timedelta(days=1) for n, raw in files.items()}
    numbers = [
        int(days[n].timestamp()) if n in days else 0 for n in range(max(files, default=0) + 1)
    ]
    seconds = F.from_json(F.lit(json.dumps(numbers)), "array<bigint>")
    return F.timestamp_seconds(F.get(seconds, F.col("_file")))


def of_files(numbers: set[int]) -> SparkColumn:
    return F.col("_file").isin(sorted(numbers)) if numbers else F.lit(False)


def bare_path(path: str) -> str:
    """A path without its scheme and leading slashes: Spark writes them in several ways."""
    return re.sub(r"^\w+:/*|^/+", "", path)


def read_lines(spark: SparkSession, paths: Mapping[int, str]) -> DataFrame:
    """One row for each line of the files, which are given by their number and path: PLACE."""
    text = spark.read.options(**PLAIN_PATHS).option("lineSep", "\n").text(list(paths.values()))
    numbers = {bare_path(path): number for number, path in paths.items()}
    files = []
    for name in text.inputFiles():  # as input_file_name() writes them
        number = numbers.get(bare_path(urllib.parse.unquote(name)))
        if number is None:
            raise JobError(f"Spark read {name}, which the listing does not name; run again")
        files.append({"_name": name, "_file": number})
    known = F.broadcast(local_frame(spark, files, "_name STRING, _file INT"))
    lines = text.selectExpr(
        "input_file_name() AS _name",
        "input_file_block_start() AS _split",
        "monotonically_increasing_id() AS _mid",
        "value AS _raw",
    )
    return lines.join(known, "_name").select(PLACE)


def line_text() -> SparkColumn:
    """`_raw` without the carriage return of a Windows line end; bytes that are not UTF-8 stay.

    Only a line that has one is trimmed: trim copies every line that it is given.
    """
    raw = F.col("_raw")
    return F.when(raw.endswith("\r"), F.expr("trim(TRAILING '\\r' FROM _raw)")).otherwise(raw)


# -- the fast path ---------------------------------------------------------------------------------
def plain_line(layout: Layout, table: Table) -> str:
    """A regular expression for the lines of a layout all of whose values are plain."""
    values = {
        column.name: PLAIN_IDENTIFIER if column.identifier else PLAIN_VALUES[column.type]
        for column in table.columns
    }
    cells = [values.get(name, UNUSED_VALUE) for name in layout.names]
    if layout.spare:
        cells[-1] = ""
    return "^" + re.escape(layout.delimiter).join(cells) + r"\z"


def cells_of(table: Table, layout: Layout) -> dict[str, SparkColumn]:
    """Each column's cell among `_cells`."""
    return {name: F.get("_cells", layout.names.index(name)) for name in table.column_names}


def first_look(lines: DataFrame, table: Table) -> DataFrame:
    """The lines of a small batch, as the staged columns, all left to the parser: to compile the
    fast path takes longer than it spares."""
    kind = F.when(leaves_quote_open(F.col("_raw")), OPEN).otherwise(LEFT)
    values = [F.lit(None).cast(column.type).alias(column.name) for column in table.columns]
    return lines.select(*PLACE, kind.alias("_kind"), *no_reasons(), *values)


def no_reasons() -> list[SparkColumn]:
    """_reasons and _fields of a line with nothing against it."""
    types = {"_reasons": "array<string>", "_fields": "map<string,string>"}
    return [F.lit(None).cast(kind).alias(name) for name, kind in types.items()]


def fast_path(
    lines: DataFrame, table: Table, layout: Layout, headers: Iterable[str], latest: SparkColumn
) -> DataFrame:
    """Nearly all lines, by one regular expression and plain casts: the staged columns.

    _kind is LEFT or OPEN where a value is not plain or a check may fail; the parser takes those
    lines. What is taken here, the parser would read alike.
    """
    text = F.col("_text")
    # Of several carriage returns all but the last end lines of their own: such a line is not plain
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
    values = [plain_value(one, written[one.name]).alias(one.name) for one in table.columns]
    lines = lines.select("*", *values)
    doubtful = doubts(table, layout, latest)
    taken = F.col("_plain") & ~any_of(F.coalesce(one, F.lit(False)) for one in doubtful)
    kind = (
        F.when(F.col("_header"), HEADER)
        .when(taken, RECORD)
        .when(leaves_quote_open(F.col("_raw")), OPEN)
        .otherwise(LEFT)
    )
    return lines.select(*PLACE, kind.alias("_kind"), *no_reasons(), *table_values(table))


def doubts(table: Table, layout: Layout, latest: SparkColumn) -> list[SparkColumn]:
    """What leaves a plain line to the parser all the same, by its values and `_t_<column>`."""
    written = {column.name: F.col(f"_t_{column.name}") for column in table.columns}
    checks = [
        F.col(one.name).isNull() & (F.lit(one.required) | written[one.name].isNotNull())
        for one in table.columns
        if one.required or one.type != "STRING"
    ]
    checks += [rule.broken(written.__getitem__, F.col) for rule in table.rules]
    checks += [F.col(table.version) > latest] if table.version else []
    if not layout.points:
        amounts = [one.name for one in table.columns if one.type == "DOUBLE"]
        checks += [written[name].rlike(POINT_THOUSANDS_SHAPE) for name in amounts]
    # Perhaps a header once more; the first comparison, by bytes, spares most keys the second
    least = min(title.upper() for title in layout.titles if title)
    title = F.translate(F.lower(table.key), "_-", "")
    again = (F.col(table.key) >= least) & title.isin(*layout.titles)
    return [*checks, again]


def leaves_quote_open(line: SparkColumn) -> SparkColumn:
    """Whether a line ends within quotes or with a backslash, or holds a carriage return."""
    quotes = F.length(line) - F.length(F.replace(line, F.lit('"'), F.lit("")))
    returns = F.octet_length(line) - F.octet_length(F.replace(line, F.lit("\r"), F.lit("")))
    inner_return = returns > F.when(line.endswith("\r"), 1).otherwise(0)
    return (quotes % 2 == 1) | inner_return | line.endswith("\\") | line.endswith("\\\r")


def table_values(table: Table) -> list[SparkColumn]:
    """The typed columns; a missing partition is taken from the version's day."""
    columns = {name: F.col(name) for name in table.column_names}
    if table.partition and table.version:
        day = F.to_date(table.version)
        columns[table.partition] = F.coalesce(table.partition, day).alias(table.partition)
    return list(columns.values())


# -- the parser ------------------------------------------------------------------------------------
def blank_but(delimiter: str) -> str:
    return "[ ]" if delimiter == "\t" else r"[ \t]"


def quoted_field(delimiter: str) -> str:
    blank = blank_but(delimiter)
    return rf'{blank}*+"[^"]*+(?:""[^"]*+)*+"{blank}*+'


def record_pattern(layout: Layout) -> str:
    """A record and its line end: quoted fields may hold line breaks, where all of them are closed;
    else it is one line. A value without quotes goes on behind a backslash at the end of its line,
    and behind a carriage return that ends no line in this file, if no whole row follows."""
    sign, blank = re.escape(layout.delimiter), blank_but(layout.delimiter)
    cell = rf"[^{sign}\r\n]*+"
    whole_row = rf"(?:{cell}{sign}){{{len(layout.names) - 1}}}{cell}(?:[\r\n]|\z)"
    breaks = rf"\\(?:{LINE_BREAK})" + ("" if layout.returns else r"|\r(?!\n)")
    going_on = rf"(?:{breaks})(?!\z|{whole_row})"
    bare = rf'(?!{blank}*")(?:[^{sign}\r\n\\]|{going_on}|\\)*+'
    one = rf"(?:{quoted_field(layout.delimiter)}|{bare})"
    return rf"({one}(?:{sign}{one})*+(?=[\r\n]|\z)|[^\r\n]*+)(?:{LINE_BREAK}|\z)"


def closed_pattern(delimiter: str) -> str:
    """A record all of whose quoted fields are closed, with nothing behind their quotes."""
    sign, quoted = re.escape(delimiter), quoted_field(delimiter)
    one = rf'(?:{quoted}|(?!{blank_but(delimiter)}*")[^{sign}]*+)'
    return rf"^{one}(?:{sign}{one})*+\z"


def cell_pattern(delimiter: str) -> str:
    """A field behind its delimiter."""
    sign = re.escape(delimiter)
    return rf"{sign}({quoted_field(delimiter)}|[^{sign}]*+)"


def join_quoted_lines(lines: DataFrame, layout: Layout) -> DataFrame:
    """PLACE for each record of files in which a quoted field holds a line break.

    `lines` are all lines of these files. A record whose quotes do not close is one line. Patterns
    would lose bytes that are not UTF-8: all beyond ASCII go through as RAW_BYTES.
    """
    as_bytes = F.decode(F.col("_raw").cast("binary"), "ISO-8859-1")
    as_bytes = F.translate(F.regexp_replace(as_bytes, "^(\xef\xbb\xbf)+", ""), LATIN_1, RAW_BYTES)
    lines = lines.select(*ROW_PLACE, as_bytes.alias("_raw"))
    in_order = F.sort_array(F.collect_list(F.struct("_split", "_mid", "_raw")))
    text = F.concat_ws("\n", F.transform(in_order, lambda line: line["_raw"]))
    files = lines.groupBy("_file").agg(text.alias("_all"))
    found = F.regexp_extract_all(F.col("_all"), F.lit(record_pattern(layout)), F.lit(1))
    records = files.select("_file", F.posexplode(found).alias("_nth", "_raw"))
    back = F.encode(F.translate("_raw", RAW_BYTES, LATIN_1), "ISO-8859-1").cast("string")
    records = records.withColumn("_raw", back)
    before = Window.partitionBy("_file").orderBy("_nth").rowsBetween(Window.unboundedPreceding, -1)
    lines_before = F.sum(F.size(F.split("_raw", LINE_BREAK))).over(before)
    line = F.coalesce(lines_before, F.lit(0)) + 1
    split = F.lit(0).cast("bigint").alias("_split")
    return records.select("_file", split, line.alias("_mid"), "_raw")


def parse_lines(lines: DataFrame, table: Table, layout: Layout, latest: SparkColumn) -> DataFrame:
    """Every line (PLACE) as a typed row or a row with reasons: the staged columns."""
    rows = split_fields(lines, table, layout)
    texts = [_cell_text(one, layout).alias(f"_t_{one.name}") for one in table.columns]
    return judge_texts(rows.select(*PLACE, "_kind", "_broken", *texts), table, latest)


def judge_texts(rows: DataFrame, table: Table, latest: SparkColumn) -> DataFrame:
    """Records (PLACE, _kind, _broken and `_t_<column>`, the texts) as the staged columns."""
    written = {column.name: F.col(f"_t_{column.name}") for column in table.columns}
    values = [parse(one, written[one.name]).alias(one.name) for one in table.columns]
    rows = rows.select("*", *values)
    checks: dict[str, SparkColumn] = {}
    for column in table.columns:
        checks |= column_reasons(column, written[column.name], F.col(column.name))
    checks["control_character"] = hidden_character(written, table)
    if table.version:
        checks[f"future_{table.version}"] = F.col(table.version) > latest
    checks |= {rule.reason: rule.broken(written.__getitem__, F.col) for rule in table.rules}
    broken = F.col("_broken").isNotNull()
    reasons = F.when(broken, F.array("_broken")).otherwise(reasons_of(checks))
    rows = rows.select("*", F.when(F.col("_kind") == RECORD, reasons).alias("_reasons"))
    fields = F.when(~broken & F.col("_reasons").isNotNull(), text_map(written))
    return rows.select(*PLACE, "_kind", "_reasons", fields.alias("_fields"), *table_values(table))


def _cell_text(column: Column, layout: Layout) -> SparkColumn:
    """The text of a column. Amounts of a file without commas between its columns are brought to
    this notation: `12,50` is 12.50, `1.234,50` is 1234.50, and `1.234`, if nothing says that it is
    a decimal point, is the ambiguous `1,234`."""
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
    """Add _kind, _broken (what is wrong with the record's shape) and `_c_<column>`, its text."""
    text = F.col("_text")
    bare = F.regexp_replace("_raw", "^\ufeff+|\r\\z", "")
    lines = lines.select(*PLACE, swap_quotes(bare, layout).alias("_text"))
    one_cell = F.lit(cell_pattern(layout.delimiter))
    quoted = F.regexp_extract_all(F.concat(F.lit(layout.delimiter), text), one_cell, F.lit(1))
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
        within = F.substring_index(line, '"', 1)  # what of it stands in the quoted field
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
    texts = [cell.alias(f"_c_{name}") for name, cell in cells_of(table, layout).items()]
    return lines.select(*PLACE, kind, broken.alias("_broken"), *texts)


def swap_quotes(text: SparkColumn, layout: Layout) -> SparkColumn:
    """A text in which the file's quotes are double quotes, and back again."""
    return text if layout.quote == '"' else F.translate(text, SWAPPED_QUOTES, SWAPPED_QUOTES[::-1])


def kind_of_line(table: Table, layout: Layout) -> SparkColumn:
    """BLANK (the lines above the header among them), HEADER by its names in whatever spelling,
    OTHER_HEADER or RECORD."""
    text = F.col("_text")
    said = F.filter("_cells", lambda cell: ~trimmed(cell).rlike(TABLE_LINE))
    blank = (F.size(said) == 0) | (text == END_OF_FILE) | text.rlike(DELIMITER_LINE)
    if layout.above:
        blank |= F.concat_ws(":", "_file", text).isin(*layout.above)
    places = {name: layout.names.index(name) for name in table.column_names}
    wanted = [layout.titles[place] for place in places.values()]
    perhaps = _letters(text).contains(layout.titles[places[table.key]])  # before cells are compared
    titles = F.transform("_cells", _letters)
    header = all_of(F.get(titles, place) == layout.titles[place] for place in places.values())
    other = F.size(F.array_except(F.array(*map(F.lit, wanted)), titles)) == 0
    return (
        F.when(blank, BLANK)
        .when(perhaps & header, HEADER)
        .when(perhaps & other, OTHER_HEADER)
        .otherwise(RECORD)
    )


def _letters(text: SparkColumn) -> SparkColumn:
    """A name by its letters and digits, as `title_of` gives it."""
    return F.regexp_replace(F.lower(text), r"[^\p{L}\p{N}]", "")


def _unquoted(cell: SparkColumn) -> SparkColumn:
    bare = F.btrim(cell, F.lit(" \t"))
    inner = F.substr(bare, F.lit(2), F.length(bare) - 2)
    plain = F.replace(inner, F.lit('""'), F.lit('"'))
    return F.when(bare.startswith('"'), plain).otherwise(cell)


# -- what was read ---------------------------------------------------------------------------------
def profile(staged: DataFrame, table: Table) -> DataFrame:
    """Per file and split: lines, first_mid, left, open, records, rejected, headers, other_headers,
    low_day, high_day."""
    day = f"`{table.partition}`" if table.partition else "CAST(NULL AS DATE)"
    measures = {
        "lines": "count(*)",
        "first_mid": "min(_mid)",
        "left": f"count_if(_kind >= {LEFT})",
        "open": f"bool_or(_kind = {OPEN})",
        "records": f"count_if(_kind = {RECORD})",
        "rejected": f"count_if({BAD})",
        "headers": f"count_if(_kind = {HEADER})",
        "other_headers": f"count_if(_kind = {OTHER_HEADER})",
        "low_day": f"min({day})",
        "high_day": f"max({day})",
    }
    found = [F.expr(measure).alias(name) for name, measure in measures.items()]
    return staged.groupBy("_file", "_split").agg(*found)


def row_counts(profiles: Iterable[Any], files: Mapping[int, RawFile]) -> dict[int, RowCounts]:
    """The rows of each file; a header that stands once more is a rejected row."""
    sums = {number: Counter[str]() for number in files}
    for row in profiles:
        for name in ("records", "rejected", "headers", "other_headers"):
            sums[row["_file"]][name] += row[name]
    counts = {}
    for number, one in sums.items():
        again = max(one["headers"] - 1, 0)
        rows, rejected = one["records"] + again, one["rejected"] + again
        counts[number] = RowCounts(rows, rejected, one["headers"], one["other_headers"])
    return counts


def line_offsets(profiles: Iterable[Any], multi_line: set[int]) -> tuple[tuple[int, int, int], ...]:
    """What to add to _mid in each split for the line in the file; records know their line."""
    offsets = [(number, 0, 0) for number in multi_line]
    lines_before: Counter[int] = Counter()
    for row in sorted(profiles, key=lambda row: (row["_file"], row["_split"])):
        number = row["_file"]
        if number not in multi_line:
            offset = lines_before[number] + 1 - row["first_mid"]
            offsets.append((number, row["_split"], offset))
            lines_before[number] += row["lines"]
    return tuple(offsets)


def comes_by_day(profiles: Sequence[Any]) -> bool:
    """Whether the splits hold few days each, as one export a day does.

    Delta need not shuffle such a batch to write few files, a fifth of a first load's CPU.
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
# Step 3, resolve: exactly one outcome for each row
#
# One way for every batch and table: each row is compared with the table's row of its key, and the
# parents that have not come are found. A row whose key comes once and that lacks no parent has its
# outcome by that alone; the others are held against the rows of their key by a window. Settings of
# a large batch (what is computed once, what is broadcast) are in `Keys`, `narrowed`, `compare` and
# `split_doubtful`, and choose no result.
# --------------------------------------------------------------------------------------------------
SOURCE_DDL = "struct<path:string,digest:string,size:bigint,modified:bigint>"
ABSENT, SAME, NEWER, MOVED, OLDER = "absent", "same", "newer", "moved", "older"
BETTER = (ABSENT, NEWER, MOVED)  # than the table's row
CONFLICTING = "conflicting"


@dataclass(frozen=True)
class Resolved:
    """The outcomes of one dataset.

    rows      its valid rows and the parked ones that it concerns, with _outcome
    counts    file number -> rows by outcome, `rows_read`, and of the superseded the conflicting, of
              the updated the moved
    admitted  outcomes of the rows that were parked before
    old_days  first and last partition with rows to be updated; empty if not all are in one
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
        """Rows by outcome, those of the files and those admitted, and rows_read."""
        return sum(self.counts.values(), Counter(self.admitted))

    @property
    def changes(self) -> DataFrame:
        """The rows to write, with the table's columns."""
        written = F.col("_outcome").isin(INSERTED, UPDATED)
        return self.rows.where(written).select(self.table.column_names)

    @property
    def accepted(self) -> DataFrame:
        """The keys of these rows that are in the table after the run, in the column `key`."""
        there = (F.col("_standing") != ABSENT) | (F.col("_outcome") == INSERTED)
        return self.rows.where(there).select(F.col(self.table.key).alias("key"))


def resolve(staged: Staged, lake: Lake, force: bool) -> tuple[Staged, dict[str, Resolved]]:
    """Every dataset's outcomes, parents first, without the files whose keys belong to rows of other
    parents (with `force` they are loaded all the same); raises ConservationError where a row is
    lost."""
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
    """Files, set aside, most of whose updates would give a row of the table to another parent: as
    when an export numbers its items anew each day."""
    found = {}
    for number, counts in ((n, one) for table in resolved for n, one in table.counts.items()):
        moved, updated = counts[MOVED], counts[UPDATED]
        if moved >= FEWEST_ROWS and moved * 2 > updated:
            seen = f"{moved} of {updated} updates"
            found[number] = set_aside(staged.files[number], "keys_reused", seen)
    return found


def without_files(staged: Staged, bad: Mapping[int, RawFile]) -> Staged:
    """What was read, without some files."""
    files = [bad.get(number, raw) for number, raw in enumerate(staged.files)]
    datasets = {
        name: replace(
            one,
            rows=one.rows.where(~of_files(set(bad))),
            files={n: raw for n, raw in one.files.items() if n not in bad},
            counts={n: counts for n, counts in one.counts.items() if n not in bad},
        )
        for name, one in staged.datasets.items()
    }
    return Staged(tuple(follow_twin(raw, files) for raw in files), datasets)


def loaded_files(spark: SparkSession, staged: Staged) -> DataFrame:
    """The files that the run loads by FILE_IDENTITY."""
    rows = [{"dataset": raw.dataset, **raw.source} for raw in staged.loaded.values()]
    return local_frame(spark, rows, f"dataset STRING, {FILE_DDL}").select(FILE_IDENTITY)


def resolve_datasets(
    datasets: Mapping[str, StagedDataset], lake: Lake, parked: DataFrame
) -> dict[str, Resolved]:
    """The same, given the rows that wait for a parent."""
    parked = parked.localCheckpoint(eager=False)
    done: dict[str, Resolved] = {}

    def resolve_table(table: Table) -> Resolved:
        return resolve_dataset(datasets[table.dataset], lake, parked, done)

    while len(done) < len(TABLES):
        left = [table for table in TABLES if table.dataset not in done]
        ready = [table for table in left if all(one.dataset in done for one in table.parents)]
        done |= {one.table.dataset: one for one in map_concurrently(resolve_table, ready)}
    for dataset, resolved in done.items():
        check_conservation(datasets[dataset], resolved)
    return {table.dataset: done[table.dataset] for table in TABLES}


def resolve_dataset(
    staged: StagedDataset, lake: Lake, parked: DataFrame, done: Mapping[str, Resolved]
) -> Resolved:
    """One dataset's outcomes."""
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
    parts = [some.withColumn("_outcome", outcome_alone()) for some in settled]
    for some in doubtful:
        decided = mark_beaten(mark_missing(some, table, missing), staged)
        parts.append(staged.scratch.materialize(decided, "decided"))
    return count_outcomes(staged, union(parts))


def candidates(staged: StagedDataset) -> DataFrame:
    """The valid staged rows as candidates for their keys."""
    columns = [*ROW_PLACE, "_reasons", f"CAST(NULL AS {SOURCE_DDL}) AS _source", "_replayed"]
    return staged.valid.selectExpr(*columns, *[f"`{name}`" for name in staged.table.column_names])


# -- rows that wait for a parent -------------------------------------------------------------------
def late_rows(staged: StagedDataset, parked: DataFrame, done: Mapping[str, Resolved]) -> DataFrame:
    """Parked rows whose key, or whose parent, this batch brings, as candidates."""
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
    concerned = union(
        [waiting.join(keys, name, "left_semi").select(table.key) for name, keys in arrivals.items()]
    )
    return waiting.join(concerned.distinct(), table.key, "left_semi").localCheckpoint(eager=False)


# -- sets of keys ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Keys:
    """A set of keys, the one column of `frame`.

    few    so few that they are sent to every executor
    empty  known to be none
    """

    frame: DataFrame
    few: bool
    empty: bool = False

    @property
    def sent(self) -> DataFrame:
        """The keys as the right side of a join."""
        return F.broadcast(self.frame) if self.few else self.frame


def key_set(keys: DataFrame, large: bool) -> Keys:
    """A large batch's keys are computed once and counted; a small one's are few anyway."""
    (name,) = keys.columns
    keys = keys.select(F.col(name).alias(name))  # so that Spark can join it with its own source
    if not large:
        return Keys(keys, few=True)
    keys = keys.localCheckpoint(eager=False)
    count = keys.count()
    return Keys(keys, few=count <= BROADCAST_ROWS, empty=not count)


Spans = Mapping[str, tuple[str, str]]


def key_spans(rows: DataFrame, columns: Sequence[str]) -> Spans:
    """The least and the greatest text in some columns; '' if there is none."""
    if not columns:
        return {}
    ends = [end(name) for name in columns for end in (F.min, F.max)]
    values = ["" if value is None else value for value in rows.agg(*ends).collect()[0]]
    return dict(zip(columns, zip(values[::2], values[1::2], strict=True), strict=True))


def narrowed(target: LakeTable, key: str, keys: Keys, span: tuple[str, str]) -> DataFrame:
    """The table's rows with some keys, and perhaps others; files without a key in the span are
    skipped. Those of few keys are few themselves."""
    rows = target.rows_between(key, *span)
    if not keys.few:
        return rows
    few = F.broadcast(keys.frame.toDF(key).distinct())
    return F.broadcast(rows.join(few, key, "left_semi"))


# -- rows against the table ------------------------------------------------------------------------
def compare(rows: DataFrame, staged: StagedDataset, target: LakeTable, spans: Spans) -> DataFrame:
    """Add _standing and _old_day, by the table's rows.

    Computed once if that pays: there is a table, and the rows are read several times.
    """
    table, existing = staged.table, target.frame
    if target.exists:
        keys = Keys(rows.select(table.key), few=not staged.large)
        existing = narrowed(target, table.key, keys, spans[table.key])
    same_key = F.col(f"s.{table.key}") == F.col(f"t.{table.key}")
    joined = rows.alias("s").join(existing.alias("t"), same_key, how="left")
    wins = ~F.col("s._replayed")
    if table.version:
        new, old = F.col(f"s.{table.version}"), F.col(f"t.{table.version}")
        wins = (new > old) | ((new == old) & wins)
    parents = [parent.column for parent in table.parents]
    moved = any_of([F.lit(False), *(F.col(f"s.{one}") != F.col(f"t.{one}") for one in parents)])
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
    brought: Resolved,
    spans: Spans,
) -> Keys:
    """Parents that have not come, of the rows that may be written, in the column of the
    reference."""
    name, key = parent.column, brought.table.key
    written = rows.where(F.col("_standing").isin(*BETTER))
    referenced = Keys(written.select(name).distinct(), few=not large)
    if large and written.isEmpty():
        return replace(referenced, empty=True)
    there = target.frame
    if target.exists:
        there = narrowed(target, key, referenced, spans[name])
    existing = Keys(there.select(F.col(key).alias(name)).union(brought.accepted), few=not large)
    return key_set(referenced.frame.join(existing.sent, name, "left_anti"), large)


def mark_missing(rows: DataFrame, table: Table, missing: Mapping[str, Keys]) -> DataFrame:
    """Set _reasons to the parents of a row that have not come, each as `reason:key`."""
    columns, codes = rows.columns, []
    for parent in table.parents:
        keys = missing[parent.column]
        if not keys.empty:
            flag = f"_no_{parent.column}"
            flagged = keys.sent.withColumn(flag, F.lit(True))
            rows = rows.join(flagged, parent.column, how="left")
            code = F.concat_ws(":", F.lit(parent.reason), F.col(parent.column))
            codes.append(F.when(F.col(flag), code))
    lacks = F.filter(F.array(*codes), lambda code: code.isNotNull()) if codes else F.array()
    return rows.withColumn("_reasons", lacks.cast("array<string>")).select(columns)


# -- rows of one batch against each other ----------------------------------------------------------
def split_doubtful(
    rows: DataFrame, staged: StagedDataset, missing: Mapping[str, Keys]
) -> tuple[list[DataFrame], list[DataFrame]]:
    """The rows whose key comes once and that lack no parent, and the others, each as no or one
    frame.

    A small batch's are all held against each other: to look for these costs more than it spares.
    """
    if not staged.large:
        return [], [rows]
    key = staged.table.key
    lacking = [
        rows.join(keys.sent, name, "left_semi").select(key)
        for name, keys in missing.items()
        if not keys.empty
    ]
    keys = key_set(union([contested_keys(rows, staged.table), *lacking]).distinct(), staged.large)
    if keys.empty:
        return [rows], []
    return [rows.join(keys.sent, key, "left_anti")], [rows.join(keys.sent, key, "left_semi")]


def contested_keys(rows: DataFrame, table: Table) -> DataFrame:
    """Keys that more than one row has.

    Integer keys that are all different are known as such by one bit for each, a quarter of the CPU
    of a groupBy by key.
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
    found = words.selectExpr(
        "sum(bit_count(bits)) AS keys", "sum(rows) AS rows", "count_if(word IS NULL) AS texts"
    ).collect()[0]
    if found["texts"] == 0 and found["keys"] == found["rows"]:
        return rows.select(table.key).where(F.lit(False))
    counted = rows.groupBy(table.key).agg(F.count(F.lit(1)).alias("_rows"))
    return counted.where("_rows > 1").select(table.key)


def mark_beaten(rows: DataFrame, staged: StagedDataset) -> DataFrame:
    """Add _outcome. A row is superseded if its key has a row of higher precedence that waits for no
    other parent. Of one file's rows with the same key and version the one with most values goes
    first, so that a blank beats no value."""
    table, columns = staged.table, rows.columns
    names = table.column_names
    rows = rows.join(staged.sources, "_file", how="left")
    version = [F.col(table.version)] if table.version else []
    within_file = [value_count(table).desc(), F.col("_split").desc(), F.col("_mid").desc()]
    precedence = [one.desc() for one in (*version, ~F.col("_replayed"), *delivery())]
    of_key = Window.partitionBy(table.key).orderBy(*precedence, *within_file)
    better = of_key.rowsBetween(Window.unboundedPreceding, -1)
    of_file = Window.partitionBy(table.key, *version, *delivery()).orderBy(*within_file)
    rows = rows.withColumns(
        {
            "_better": F.collect_set("_reasons").over(better),
            "_first": F.first(F.struct(*names)).over(of_file),
        }
    )
    beaten = F.exists("_better", lambda one: F.size(F.array_except(one, F.col("_reasons"))) == 0)
    contradicts = any_of(F.col(name) != F.col("_first").getField(name) for name in names)
    outcome = F.when(beaten & contradicts, CONFLICTING).when(beaten, SUPERSEDED)
    return rows.select(*columns, outcome.otherwise(outcome_alone()).alias("_outcome"))


def delivery() -> list[SparkColumn]:
    """The time and the path by which a row's file was delivered, this run's or an earlier one's."""
    modified = F.coalesce("_source.modified", F.unix_micros("file_modified"))
    return [modified, F.coalesce("_source.path", "file_path")]


def outcome_alone() -> SparkColumn:
    """The outcome of a row that no other row of its batch beats."""
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
    """Count the outcomes by file."""
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
        number: Counter({"rows_read": one.rows, REJECTED: one.rejected})
        for number, one in staged.counts.items()
    }
    admitted = Counter[str]()
    for group in groups:
        outcome, conflicting = group["_outcome"], group["_outcome"] == CONFLICTING
        outcome = SUPERSEDED if conflicting else outcome
        if group["_file"] is not None:
            found = {outcome: group["rows"], "moved": group["moved"]}
            counts[group["_file"]].update(found)
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
    """Raise where the rows of a file are not the sum of their outcomes."""
    for number, raw in staged.files.items():
        counts = resolved.counts[number]
        outcomes = {name: counts[name] for name in OUTCOMES}
        if counts["rows_read"] != sum(outcomes.values()):
            raise ConservationError(
                f"{raw.stored.name}: {counts['rows_read']} rows were read, but their outcomes add "
                f"up to {sum(outcomes.values())}: {outcomes}. Nothing of this run is written, and "
                "the file stays in the raw zone; run again, and report this if it comes back"
            )


# --------------------------------------------------------------------------------------------------
# Step 4, publish: the commits, in the order that makes a crash between any two harmless
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Published:
    """What the commits of rejects tell: rows by dataset and reason, and an example of each."""

    reasons: Mapping[str, Mapping[str, int]]
    examples: tuple[Mapping[str, Any], ...]


def stamp(arguments: JobArguments) -> str:
    """What a commit's userMetadata says of the run that made it."""
    return json.dumps({"run_id": arguments.run_id})


def publish(
    arguments: JobArguments,
    staged: Staged,
    resolved: Mapping[str, Resolved],
    lake: Lake,
    timed: Timings,
) -> Published:
    """rejects -> the tables, parents first -> settled parked rows."""
    add_columns(lake, stamp(arguments))
    rejected = lake["rejected_records"]
    recorded = recorded_rejects(staged, rejected)
    rows = [
        frame
        for dataset, one in resolved.items()
        for frame in rejects_of(staged.datasets[dataset], one, arguments.run_id)
    ]
    rejects = union([local_frame(rejected.spark, [], REJECTED_DDL), *rows])
    rejects = rejects.localCheckpoint(eager=False)
    with timed("committed rejected_records"):
        published = write_rejects(arguments, rejects, recorded, rejected)
    for one in resolved.values():
        with timed(f"committed {one.table.name}"):
            commit(one, lake[one.table.name], stamp(arguments))
    with timed("settled rejected rows"):
        settle_rejects(arguments, staged, resolved, rejects, recorded, rejected)
    return published


def add_columns(lake: Lake, stamp_text: str) -> None:
    """Add the columns that are declared and not in a table yet."""
    for table in lake.values():
        table.add_columns(stamp_text)


# -- rejected rows ---------------------------------------------------------------------------------
def recorded_rejects(staged: Staged, rejected: LakeTable) -> DataFrame:
    """The rows of rejected_records (ROW_IDENTITY, status) from files of this run: of an earlier
    run that was killed, or of files that are loaded again. Delta skips files by their paths."""
    loaded = staged.loaded.values()
    paths = sorted({path for raw in loaded for path in (raw.stored.name, raw.first_path) if path})
    rows = rejected.rows_between("file_path", *(paths[0], paths[-1]) if paths else ("", ""))
    files = F.broadcast(loaded_files(rejected.spark, staged))
    rows = rows.join(files, FILE_IDENTITY, "left_semi").select(*ROW_IDENTITY, "status")
    return rows.localCheckpoint(eager=False)


def rejects_of(staged: StagedDataset, resolved: Resolved, run_id: str) -> list[DataFrame]:
    """Rejected and newly parked rows of a dataset, in the shape of rejected_records."""
    table, frames = resolved.table, []
    if resolved.totals[REJECTED]:
        frames.append(reject_rows(staged, staged.rows.where(BAD), run_id, REJECTED))
    if any(counts.headers > 1 for counts in staged.counts.values()):
        nth = F.row_number().over(Window.partitionBy("_file").orderBy("_split", "_mid"))
        headers = staged.rows.where(F.col("_kind") == HEADER).withColumn("_nth", nth)
        reason = {"_reasons": F.array(F.lit("repeated_header")), table.key: F.lit(None)}
        again = headers.where("_nth > 1").withColumns(reason)
        frames.append(reject_rows(staged, again, run_id, REJECTED))
    if any(count[PARKED] for count in resolved.counts.values()):
        parked = (F.col("_outcome") == PARKED) & F.col("_file").isNotNull()
        texts = {"_fields": texts_of(table), "_reasons": reasons_to_wait()}
        waiting = resolved.rows.where(parked).withColumns(texts)
        few = sum(count[PARKED] for count in resolved.counts.values()) <= BROADCAST_ROWS
        lines = staged.rows.select(PLACE)
        waiting = lines.join(F.broadcast(waiting) if few else waiting, ROW_PLACE)
        frames.append(reject_rows(staged, waiting, run_id, PARKED))
    return frames


def reasons_to_wait() -> SparkColumn:
    """The reasons of a parked row, without the keys of the parents."""
    return F.transform("_reasons", lambda one: F.substring_index(one, ":", 1))


def reject_rows(staged: StagedDataset, rows: DataFrame, run_id: str, status: str) -> DataFrame:
    """Rows with _reasons and _fields in the shape of rejected_records."""
    table = staged.table

    def text_of(name: str) -> SparkColumn:
        known = name in table.column_names
        return F.col("_fields").getItem(name) if known else F.lit(None).cast("string")

    raw = line_text()
    as_bytes = F.decode(raw.cast("binary"), "ISO-8859-1")  # a character for each byte
    readable = F.when(valid_utf8(raw), raw).otherwise(as_bytes)
    nothing = F.lit(None).cast("string")
    return staged.with_place(rows).select(
        F.lit(run_id).alias("run_id"),
        F.lit(table.dataset).alias("dataset"),
        F.lit(status).alias("status"),
        F.col("_reasons").alias("reasons"),
        F.coalesce(F.col(table.key), text_of(table.key)).alias("record_key"),
        text_of("order_id").alias("order_id"),
        text_of("product_id").alias("product_id"),
        *FILE_COLUMNS,
        "line",
        readable.alias("raw"),
        F.col("_fields").alias("fields"),
        *[nothing.alias(name) for name in ("resolved_run_id", "author", "why")],
    )


def write_rejects(
    arguments: JobArguments, rows: DataFrame, recorded: DataFrame, rejected: LakeTable
) -> Published:
    """Append the rejected and newly parked rows that are not recorded yet; count their reasons."""
    published = count_reasons(rows)
    new = rows.join(recorded, ROW_IDENTITY, "left_anti").select(rows.columns)
    if not rejected.exists or not new.isEmpty():
        rejected.append(new, stamp(arguments), "status", **statistics(ROW_STATISTICS))
    return published


def count_reasons(rows: DataFrame) -> Published:
    """Rows of rejected_records by dataset, status and reason, each with its first row."""
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
    """Write what changed in one commit: an append where all rows are new, else a MERGE; nothing
    where nothing changed."""
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
    """The option that names the columns with file statistics, by which files are skipped."""
    return {"delta.dataSkippingStatsColumns": columns}


def merge_clauses(table: Table) -> str:
    """Update or insert; a column that is in the table but not declared any more is left alone."""
    names = [f"`{name}`" for name in table.column_names]
    values = ", ".join(f"s.{name}" for name in names)
    updates = ", ".join(f"t.{name} = s.{name}" for name in names)
    return (
        f"WHEN MATCHED THEN UPDATE SET {updates} "
        f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) VALUES ({values})"
    )


def same_key(resolved: Resolved) -> str:
    """The condition of a MERGE; the days of the rows to update are literals, which prune files."""
    table = resolved.table
    condition = f"t.`{table.key}` = s.`{table.key}`"
    if resolved.old_days:
        first, last = resolved.old_days
        condition += f" AND t.`{table.partition}` BETWEEN DATE '{first}' AND DATE '{last}'"
    return condition


def reconcile(target: LakeTable, inserted: int, updated: int) -> None:
    """Hold the commit's own metrics against the resolved counts."""
    commits = target.log.commits(after=target.before)
    mine = [one for one in commits if one.operation in ("WRITE", "MERGE")]
    wrote = (
        sum(one.inserted for one in mine),
        sum(one.metric("numTargetRowsUpdated") for one in mine),
    )
    if wrote != (inserted, updated):
        raise ConservationError(
            f"{target.path}: {inserted} rows were to be inserted and {updated} updated, but Delta "
            f"wrote {wrote[0]} and {wrote[1]}"
        )


def settle_rejects(
    arguments: JobArguments,
    staged: Staged,
    resolved: Mapping[str, Resolved],
    rejects: DataFrame,
    recorded: DataFrame,
    rejected: LakeTable,
) -> None:
    """Mark the parked rows that were admitted or superseded, those of files that were read again
    and are parked no more, and the rejected rows of whose key this run brings a good one.

    It comes after the commits of their tables, so that none can be lost.
    """
    again = recorded.where(F.col("status") == PARKED).select(ROW_IDENTITY)
    parked = rejects.where(F.col("status") == PARKED).select(ROW_IDENTITY)
    again = again.join(parked, ROW_IDENTITY, "left_anti").withColumn("status", F.lit(ADMITTED))
    late = [settled_rows(one) for one in resolved.values() if one.admitted]
    mended = mended_rows(staged, resolved, rejects, rejected)
    settled = union([again, *late, *mended]).localCheckpoint(eager=False)
    if not settled.isEmpty():
        clauses = (
            "WHEN MATCHED THEN UPDATE SET t.status = s.status, "
            f"t.resolved_run_id = '{arguments.run_id}'"
        )
        still_open = f"t.status IN ('{PARKED}', '{REJECTED}')"
        rejected.merge(settled, f"{still_open} AND {SAME_ROW}", clauses, stamp(arguments), nth=2)


def mended_rows(
    staged: Staged, resolved: Mapping[str, Resolved], rejects: DataFrame, rejected: LakeTable
) -> list[DataFrame]:
    """The rejected rows, of this run and before, of whose key a later file of this run has a good
    row: ROW_IDENTITY and the new status."""
    columns = [*ROW_IDENTITY, "record_key", "file_modified", "file_path"]
    frames = [rejects, rejected.frame]
    known = (F.col("status") == REJECTED) & F.col("record_key").isNotNull()
    still_open = union([one.where(known).select(columns) for one in frames])
    still_open = still_open.localCheckpoint(eager=False)
    if still_open.isEmpty():
        return []
    still_open = F.broadcast(still_open.withColumn("status", F.lit(SUPERSEDED)))
    found = []
    for dataset, one in resolved.items():
        good = one.rows.where(F.col("_outcome") != PARKED)
        good = good.join(staged.datasets[dataset].sources, "_file", "left")
        modified, path = delivery()
        latest = F.max(F.struct(modified.alias("modified"), path.alias("path"))).alias("latest")
        good = good.groupBy(F.col(one.table.key).alias("record_key")).agg(latest)
        mine = still_open.where(F.col("dataset") == dataset)
        rejected_at = F.unix_micros("file_modified").alias("modified")
        earlier = F.struct(rejected_at, F.col("file_path").alias("path")) < F.col("latest")
        pairs = good.join(mine, "record_key").where(earlier)
        found.append(pairs.select(*ROW_IDENTITY, "status"))
    return found


def settled_rows(resolved: Resolved) -> DataFrame:
    """The rows that were parked before and are no more: ROW_IDENTITY and the new status."""
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
# Step 5, record: ledger, run, manifest and, last of all, the summary
# --------------------------------------------------------------------------------------------------
@dataclass
class Timings:
    """Seconds of each step of the run; saying that a step is done belongs to it."""

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


def record(
    arguments: JobArguments,
    staged: Staged,
    resolved: Mapping[str, Resolved],
    published: Published,
    lake: Lake,
    timed: Timings,
) -> dict[str, Any]:
    """Write the ledger, the run's row, the manifest and the summary; returns the summary."""
    counts = {number: count for one in resolved.values() for number, count in one.counts.items()}
    if not lake["corrections"].exists:  # so that it can be queried before there is a correction
        with timed("committed corrections"):
            lake["corrections"].append_records([], CORRECTIONS_DDL, stamp(arguments))
    with timed("committed ingested_files"):
        write_ledger(arguments, staged.files, counts, lake["ingested_files"])
    summary = summary_of(arguments, timed, staged.files, "SUCCEEDED")
    for dataset, one in resolved.items():
        summary["datasets"][dataset] = measures(one, published.reasons.get(dataset, {}))
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
    return finish(arguments, summary, staged.files, counts)


def measures(resolved: Resolved, reasons: Mapping[str, int]) -> dict[str, Any]:
    """A dataset's numbers for the summary."""
    totals = resolved.totals
    numbers: dict[str, Any] = {
        "rows_read": totals["rows_read"],
        "admitted": sum(resolved.admitted.values()),
        **{name: totals[name] for name in (*OUTCOMES, CONFLICTING, MOVED)},
    }
    if numbers["rows_read"] + numbers["admitted"] != sum(numbers[name] for name in OUTCOMES):
        raise ConservationError(
            f"{resolved.table.dataset}: rows_read + admitted differ from the sum of the outcomes: "
            f"{numbers}"
        )
    return {**numbers, "rejected_by_reason": dict(sorted(reasons.items()))}


FILE_OUTCOMES = ("loaded", "duplicate", "set_aside", "changed", "unreadable")


def write_ledger(
    arguments: JobArguments,
    files: Sequence[RawFile],
    counts: Mapping[int, Counter[str]],
    ledger: LakeTable,
) -> None:
    """Append the files of this run by their content: from here on they are known."""
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
        if is_recorded(raw) and not raw.known
    ]
    if rows or not ledger.exists:
        ledger.append_records(rows, LEDGER_DDL, stamp(arguments))


def write_run(
    arguments: JobArguments,
    started: dt.datetime,
    summary: Mapping[str, Any],
    runs: LakeTable,
    operation: str = "load",
) -> None:
    """Append one row to `etl_runs`, with the version of each table after the run.

    A run that is started again under its id writes no second row: Delta knows its transaction.
    """
    versions = {name: numbers["version"] for name, numbers in summary["tables"].items()}
    row = {
        "run_id": arguments.run_id,
        "operation": operation,
        "status": "SUCCEEDED",
        "started_at": started.isoformat(),
        "finished_at": dt.datetime.now(dt.UTC).isoformat(),
        "summary": json.dumps(summary),
        "table_versions": {
            name: version for name, version in versions.items() if version is not None
        },
    }
    once = {"txnAppId": f"lakehouse run {arguments.run_id}", "txnVersion": "1"}
    runs.append_records([row], RUNS_DDL, stamp(arguments), **once)


def manifest(store: Storage, files: Sequence[RawFile], counts: Mapping[int, Counter[str]]) -> str:
    """One JSON line for each file listed, in the order of delivery."""
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
    """The run in numbers, as far as files tell it; the README explains each name."""
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


def finish(
    arguments: JobArguments,
    summary: dict[str, Any],
    files: Sequence[RawFile] = (),
    counts: Mapping[int, Counter[str]] = {},
) -> dict[str, Any]:
    """Write manifest and summary, the summary last: it says that the run is done."""
    runs = storage(arguments.runs_path)
    if summary["status"] != "FAILED":
        text = manifest(storage(arguments.raw_path), files, counts)
        runs.write(f"{arguments.run_id}/manifest.jsonl", text.encode("utf-8"))
    text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    runs.write(f"{arguments.run_id}/summary.json", text.encode("utf-8"))
    return summary


# --------------------------------------------------------------------------------------------------
# What a killed operation of glue_operations.py has left: whoever writes next finishes it first
# --------------------------------------------------------------------------------------------------
INTENT = "intent.json"


def read_intent(arguments: JobArguments) -> dict[str, Any]:
    """The intent that a killed operation has left; empty for none.

    An operation writes it before its first change and removes it after its row in `etl_runs`. It
    says `run_id`, `before` and `to`, the versions of the tables (-1 for no table), and of a
    rollback `run`, its row for `etl_runs`.
    """
    try:
        text = b"".join(storage(arguments.runs_path).chunks(INTENT))
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
    """Finish a killed rollback, or take back what another operation has written.

    Every step can be repeated.
    """
    runs = open_table(spark, arguments, "etl_runs")
    if runs.frame.where(F.col("run_id") == intent["run_id"]).isEmpty():

        def go_back(name: str) -> None:
            restore(spark, arguments.path_of(name), intent["to"][name], intent["run_id"])
            progress(f"restored {name}")

        map_concurrently(go_back, intent["to"])
        if "run" in intent:
            record_rollback(arguments, spark, intent, runs)
    remove_intent(arguments)


def restore(spark: SparkSession, path: str, version: int, run_id: str) -> None:
    """RESTORE a table to a version (-1 empties it), in one commit that the run has stamped.

    No commit if the table has that version, or if the run has restored it already.
    """
    log = DeltaLog(path)
    latest = log.latest()
    if latest <= version:
        return
    last = log.commits(after=latest - 1)
    if any(one.run_id == run_id and one.operation in ("RESTORE", "DELETE") for one in last):
        return
    to = f"RESTORE TABLE delta.`{path}` TO VERSION AS OF {version}"
    with settings(spark, {COMMIT_STAMP: json.dumps({"run_id": run_id})}):
        spark.sql(to if version >= 0 else f"DELETE FROM delta.`{path}`")


def record_rollback(
    arguments: JobArguments, spark: SparkSession, intent: Mapping[str, Any], runs: LakeTable
) -> None:
    """The row of a rollback in `etl_runs`: from here on it is done."""
    run, before = intent["run"], intent["before"]
    summary = dict(run["summary"])
    tables = {name: open_table(spark, arguments, name) for name in before}
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
    """Raise where a table is declared before its parents, or refers to itself."""
    declared: set[str] = set()
    for table in TABLES:
        late = [one.dataset for one in table.parents if one.dataset not in declared]
        if late:
            raise JobError(f"{table.name} refers to {', '.join(late)}: declare that before it")
        declared.add(table.dataset)


def run(arguments: JobArguments, timed: Timings) -> dict[str, Any]:
    """The five steps; returns the summary."""
    check_declarations()
    intent = read_intent(arguments)
    with timed("discovered"):
        found = discover(arguments)
    if not found.files and not intent:
        return nothing_new(arguments, timed, found)
    with timed("Spark started"):
        spark = spark_session(found.text_bytes, arguments.local)
    if intent:
        finish_killed_operation(arguments, spark, intent)
    with timed("tables opened"):
        lake = open_lake(spark, arguments)
    with timed("ledger asked"):
        found = mark_duplicates(found, lake["ingested_files"], arguments.force)
    if not found.anything_new:
        return nothing_new(arguments, timed, found)
    try:
        with settings(spark, session_settings(found.large)):
            with timed("staged"):
                staged = stage(spark, arguments, found)
            with timed("resolved"):
                staged, resolved = resolve(staged, lake, arguments.force)
        published = publish(arguments, staged, resolved, lake, timed)
    finally:
        storage(arguments.scratch_path).remove("run=")  # and what a killed run has left
    return record(arguments, staged, resolved, published, lake, timed)


def nothing_new(arguments: JobArguments, timed: Timings, found: Discovered) -> dict[str, Any]:
    summary = summary_of(arguments, timed, found.files, "NOTHING_NEW")
    return finish(arguments, summary, found.files)


def cause_of(error: Exception) -> str:
    """What went wrong in one line; of an error in Java its first cause, not that a call failed."""
    java = getattr(error, "java_exception", None)
    kind, text = type(error).__name__, str(error)
    while java is not None:
        kind, text, java = java.getClass().getName(), java.getMessage() or "", java.getCause()
    return f"{kind}: {next(iter(text.strip().splitlines()), 'no message')}"[:2000]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    arguments = JobArguments.from_argv(sys.argv[1:] if argv is None else argv)
    log_to_stdout(arguments.run_id)
    timed = Timings(dt.datetime.now(dt.UTC))
    try:
        summary = run(arguments, timed)
    except Exception as error:  # the edge of the job: whatever failed must be in the summary
        cause = cause_of(error)
        LOG.exception("failed: %s", cause)
        finish(arguments, summary_of(arguments, timed, (), "FAILED", cause))
        print(f"glue_etl.py: the run {arguments.run_id} failed: {cause}", file=sys.stderr)
        return 1
    told = {name: summary[name] for name in ("run_id", "status", "datasets")}
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    EXIT_CODE = main()
    if EXIT_CODE:  # Glue takes any SystemExit for a failure, 0 included
        sys.exit(EXIT_CODE)
