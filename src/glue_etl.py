"""The job `Lakehouse`: raw CSV exports become three trusted Delta tables.

Inputs    every file below RAW_PATH: products, orders and order items as `.csv` or `.csv.gz`, in any
          order, late, twice or broken.
Outputs   three Delta tables below LAKEHOUSE_PATH (`TABLES` declares them), the Delta tables
          `ingested_files` (the ledger) and `etl_runs` beside them, `rejected_records` below
          REJECTED_PATH, and RUNS_PATH/<run id>/{manifest.jsonl,summary.json}.

The run is five steps. Each takes the result of the one before and returns a frozen value.
  discover  lists the raw zone once and looks at each file's header and at the ledger; no Spark
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

Precedence: (order_timestamp, delivery), a delivery being (LastModified, path, line in the file).
A table holds for each key the row of highest precedence among those whose parents have come.

Arguments   --RAW_PATH --LAKEHOUSE_PATH --REJECTED_PATH --RUNS_PATH (each `s3://bucket/prefix/` or a
            folder), --RUN_ID, and optionally
            --TempDir               scratch of large batches (`glue-temp/` beside the tables)
            --MAX_REJECTED_PERCENT  a file with more rejected rows is set aside whole (50)
            --FORCE true            load files that the ledger knows
            --LOCAL true            plain Python on a laptop: fetch Delta's jars from Maven Central
Exit codes  0 done, or nothing new (then no Spark is started); 1 failed, with the cause in
            summary.json; 2 a wrong argument.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import csv
import datetime as dt
import functools
import gzip
import hashlib
import io
import json
import logging
import os
import re
import shutil
import sys
import time
import urllib.parse
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

# --------------------------------------------------------------------------------------------------
# Reason codes: why a row, or a whole file, is not in a table
# --------------------------------------------------------------------------------------------------
ROW_REASONS = {
    "too_few_fields": "the row has fewer fields than the header of its file",
    "too_many_fields": "the row has more fields than the header of its file",
    "unclosed_quote": "a quoted field is not closed, or text follows its closing quote",
    "invalid_utf8": "the row holds bytes that are not UTF-8",
    "control_character": "the row holds a NUL or another control character",
    "swallowed_row": "a quoted field holds a line that is itself a whole row: a quote is missing",
    "repeated_header": "the header of the file stands once more among its rows",
    "missing_<column>": "a key, a parent's key or the order timestamp is blank",
    "invalid_<column>": "the value cannot be read as the column's type, or does not fit in it",
    "ambiguous_<column>": "a date such as 01/04/2025, which could be two days (write 2025-04-01), "
    "or an amount such as 1,234, which could be a thousand or one and a bit",
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
    "utf16": "the file is UTF-16 or UTF-32: save it as UTF-8",
    "binary": "the file is not text",
    "gzip_name": "Spark 3.5 unpacks files only whose names end with .gz in lower case: rename it, "
    "or use Glue 6.0",
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
    """

    name: str
    type: str
    meaning: str
    required: bool = False
    identifier: bool = False


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

FILE_COLUMNS = ("file_path", "file_etag", "file_size", "file_modified")  # a file's version
FILE_DDL = "file_path STRING, file_etag STRING, file_size BIGINT, file_modified TIMESTAMP"
REJECTED_DDL = (
    "run_id STRING, dataset STRING, status STRING, reasons ARRAY<STRING>, record_key STRING, "
    f"order_id STRING, product_id STRING, {FILE_DDL}, line BIGINT, raw STRING, "
    "fields MAP<STRING, STRING>, resolved_run_id STRING"
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
FILE_IDENTITY = FILE_COLUMNS[:3]
ROW_IDENTITY = [*FILE_IDENTITY, "line"]  # of a row in rejected_records

TABLE_PROPERTIES = {  # Delta reader 1 / writer 2: what Athena can always read
    "delta.autoOptimize.optimizeWrite": "true",
    "delta.autoOptimize.autoCompact": "true",
    "delta.enableDeletionVectors": "false",
}
SCHEMA_VERSION = 1  # of summary.json; the state machine asks for it
LARGE_BYTES = 16 << 20  # a batch with more text is staged in scratch files instead of memory
COMPILED_BYTES = 32 << 20  # of the tables; with more in them, plans are compiled to Java
BROADCAST_ROWS = 200_000  # so many keys are sent to every executor instead of shuffled
GZIP_RATIO = 8  # text bytes that a byte of a gzip file is taken for
HEAD_BYTES = 1 << 16  # what is read of a file to find its header
MAX_DATES = 400  # literals in a condition that prunes files
TEXT_LIMIT = 500  # characters of a text in the summary, which the state machine reads whole
SUMMARY_SPANS = 500  # spans of touched days that the summary names
EXAMPLE_BYTES = 80_000  # of rejected rows in the summary
MAX_LOG_COMMITS = 200  # a longer log is read by Delta instead of as JSON


# --------------------------------------------------------------------------------------------------
# Errors, arguments, progress
# --------------------------------------------------------------------------------------------------
class JobError(Exception):
    """The run cannot go on; the message says what happened and what to do."""


class AccessError(Exception):
    """An object is there, but its bytes are not given out."""


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


def keep_values(rows: DataFrame, table: Table, where: SparkColumn) -> DataFrame:
    """Rows with the table's columns only where something will be written of them."""
    return rows.withColumns({name: F.when(where, F.col(name)) for name in table.column_names})


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
LOST_DIGITS_SHAPE = r"^\d([.,]\d+)?E\+\d+$"  # a spreadsheet's 2.02504E+11
TRUE_WORDS = ("1", "true", "t", "yes", "y", "1.0")
FALSE_WORDS = ("0", "false", "f", "no", "n", "0.0")
NULL_WORDS = ("null", "\\n", "nan", "#n/a", "none", "nat", "<na>")  # in keys and typed columns
NULL_TEXTS = ("NULL", "\\N")  # in free text
ZERO_WIDTH = "\u180e\u200b\u200c\u200d\u2060\ufeff"
BLANKS = "".join(
    chr(code) for code in range(0x3001) if chr(code).isspace() and code not in range(28, 32)
)
BLANKS += ZERO_WIDTH

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
    nothing = (text == "") | F.lower(text).isin(*NULL_WORDS)
    if column.type == "DATE" and not column.required:
        nothing |= text.rlike(NO_DATE_SHAPE)
    return F.when(~nothing, text)


def parse_identifier(text: SparkColumn) -> SparkColumn:
    """A name as text; a spreadsheet's `123.0` is `123`, and 2.02504E+11, where it has lost the
    digits, is NULL."""
    whole = F.when(text.rlike(r"^\d+\.0+$"), F.regexp_replace(text, r"\.0+$", "")).otherwise(text)
    return F.when(~text.rlike(LOST_DIGITS_SHAPE), whole)


def parse_integer(text: SparkColumn) -> SparkColumn:
    """`3` and `3.0` are 3; `3.5`, `abc` and what leaves 32 bits are NULL."""
    return F.when(text.rlike(INTEGER_SHAPE), try_cast(F.regexp_replace(text, r"\.0+$", ""), "int"))


def parse_number(text: SparkColumn) -> SparkColumn:
    """A finite double; -0.0 is 0.0, so that equal values have one form."""
    value = try_cast(text, "double") + F.lit(0.0)
    return F.when(text.rlike(NUMBER_SHAPE) & (F.abs(value) < F.lit(float("inf"))), value)


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


PLAIN_DATE = r"[1-8]\d\d\d-\d\d-\d\d"
PLAIN_WORD = (
    r'[^,;|"\\\x00-\x20\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f\u2060\u3000\ufeff\ufffd]++'
)
PLAIN_VALUES = {
    "INT": one_of("-0123456789") + "{0,20}+",
    "DOUBLE": one_of("-.0123456789") + "{0,40}+",
    "BOOLEAN": one_of("01abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") + "{0,8}+",
    "TIMESTAMP": rf"(?:{PLAIN_DATE}[T ]\d\d:\d\d:\d\d)?+",
    "DATE": f"(?:{PLAIN_DATE})?+",
    "STRING": f"(?:{PLAIN_WORD}(?: {PLAIN_WORD})*+)?+",
}
_PRINTABLE = [chr(code) for code in range(33, 127) if chr(code) not in '",;|.+=\\']
PLAIN_IDENTIFIER = (  # one that starts as NULL, nan or #N/A may be none
    f"(?:{one_of(''.join(one for one in _PRINTABLE if one not in 'nN#<'))}"
    f"{one_of(''.join(_PRINTABLE))}*+)?+"
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


def same_values(table: Table, left: str, right: str) -> SparkColumn:
    """Whether two rows hold equal values, NULLs included."""
    names = table.column_names
    return all_of(F.col(f"{left}.{name}").eqNullSafe(F.col(f"{right}.{name}")) for name in names)


# --------------------------------------------------------------------------------------------------
# Storage: S3 or a folder, and Delta's log as JSON; without Spark
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
    def delivered_path(self) -> str:
        return self.delivered_as or self.path

    @property
    def name(self) -> str:
        """Its path as delivered, as a text that can be written: on disk it may be no UTF-8."""
        return self.delivered_path.encode("utf-8", "backslashreplace").decode("utf-8")

    @property
    def text_bytes(self) -> int:
        """The size of the text in it, as far as its name tells."""
        return self.size * (GZIP_RATIO if self.path.lower().endswith(".gz") else 1)


class FolderStorage:
    """Objects in a folder; the ETag is the SHA-1 of the bytes, which `with_etag` reads.

    Here as on S3 `chunks` raises FileNotFoundError where the object is not there.
    """

    bucket: str | None = None

    def __init__(self, root: str) -> None:
        self.root = root

    def key(self, path: str) -> str:
        return self.root + path

    def list(self, prefix: str = "") -> Sequence[StoredObject]:
        found = []
        for folder, _, names in os.walk(self.root + prefix):
            for name in names:
                full = os.path.join(folder, name)
                stat = os.stat(full)
                modified = dt.datetime.fromtimestamp(stat.st_mtime_ns // 1000 / 1e6, dt.UTC)
                path = os.path.relpath(full, self.root).replace(os.sep, "/")
                found.append(StoredObject(path, "", stat.st_size, modified))
        return found

    def with_etag(self, stored: StoredObject) -> StoredObject:
        digest = hashlib.sha1(usedforsecurity=False)
        for chunk in self.chunks(stored.path):
            digest.update(chunk)
        return replace(stored, etag=digest.hexdigest())

    def chunks(self, path: str, size: int = 1 << 20) -> Generator[bytes]:
        with open(self.root + path, "rb") as stream:
            while chunk := stream.read(size):
                yield chunk

    def write(self, path: str, content: bytes) -> None:
        target = Path(self.root + path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        part.write_bytes(content)
        part.replace(target)

    def remove(self, prefix: str) -> None:
        for path in Path(self.root).glob(f"{prefix}*"):
            shutil.rmtree(path)


class S3Storage:
    """Objects below an S3 prefix."""

    def __init__(self, root: str) -> None:
        import boto3

        self.bucket, _, self.prefix = root[len("s3://") :].partition("/")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self.client = boto3.client("s3", endpoint_url=endpoint)

    def key(self, path: str) -> str:
        return self.prefix + path

    def list(self, prefix: str = "") -> Sequence[StoredObject]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + prefix
        )
        start = len(self.prefix)
        return [
            StoredObject(
                one["Key"][start:], one["ETag"].strip('"'), one["Size"], one["LastModified"]
            )
            for page in pages
            for one in page.get("Contents", [])
            if not one["Key"].endswith("/")
        ]

    def with_etag(self, stored: StoredObject) -> StoredObject:
        return stored

    def chunks(self, path: str, size: int = 1 << 20) -> Generator[bytes]:
        try:
            body = self.client.get_object(Bucket=self.bucket, Key=self.key(path))["Body"]
        except self.client.exceptions.ClientError as error:
            where = f"s3://{self.bucket}/{self.key(path)}"
            code = error.response["Error"]["Code"]
            if code in ("NoSuchKey", "404"):
                raise FileNotFoundError(f"{where} is no longer there") from None
            if code in ("AccessDenied", "403", "InvalidObjectState"):
                raise AccessError(f"S3 does not give it out ({code})") from None
            raise
        with closing(body):
            while chunk := body.read(size):
                yield chunk

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
    stamp: dict[str, Any]  # what the run that made it wrote into it; empty where it wrote nothing
    added: dict[str, int | None]  # path of a data file, and its rows where the log has statistics
    removed: tuple[str, ...]
    metrics: dict[str, str]
    restored: int | None = None  # to which version a RESTORE went back; -1 where that is unknown


# What the job and Delta's maintenance commit besides RESTORE: no row of the ledger is lost in it
KEEPS_ROWS = ("WRITE", "MERGE", "OPTIMIZE", "ADD COLUMNS", "VACUUM START", "VACUUM END")


class DeltaLog:
    """The transaction log of one table, read as JSON without Spark."""

    def __init__(self, table_path: str) -> None:
        self.storage = storage(table_path.rstrip("/") + "/")
        self._commits: dict[int, LogCommit] = {}

    def versions(self) -> list[int]:
        """Versions whose JSON is still there, ascending; empty where there is no table."""
        names = (stored.path.rsplit("/", 1)[-1] for stored in self.storage.list("_delta_log/"))
        return sorted(int(name[:20]) for name in names if re.fullmatch(r"\d{20}\.json", name))

    def latest(self) -> int:
        """The latest version, -1 where there is no table."""
        return max(self.versions(), default=-1)

    def commit(self, version: int) -> LogCommit:
        if version not in self._commits:
            text = b"".join(self.storage.chunks(f"_delta_log/{version:020d}.json"))
            self._commits[version] = _log_commit(version, text)
        return self._commits[version]

    def data_bytes(self, version: int) -> int | None:
        """Bytes of the table's data files, by Delta's checksum file; None where it does not say."""
        with suppress(FileNotFoundError, ValueError, KeyError):  # a killed writer may leave half
            text = b"".join(self.storage.chunks(f"_delta_log/{version:020d}.crc"))
            return int(json.loads(text)["tableSizeBytes"])
        return None

    def commits(self, after: int = -1) -> list[LogCommit]:
        return map_concurrently(self.commit, [one for one in self.versions() if one > after])

    def run_ids(self, latest: int) -> set[str]:
        """Ids of the runs that appended in the latest commits."""
        commits = map_concurrently(self.commit, self.versions()[-latest:])
        return {one.stamp.get("run_id", "") for one in commits if one.operation == "WRITE"}

    def file_ids(self) -> tuple[set[str], bool]:
        """Ids of the files named in the commits, and whether the log is whole, so none is missing.

        A log is whole if no commit was cleaned away and nobody but the job has written to it. A
        RESTORE brings back the ids of its version.
        """
        commits = self.commits()
        whole = [commit.version for commit in commits] == list(range(len(commits)))
        ids: set[str] = set()
        then: dict[int, set[str]] = {}
        for commit in commits:
            if commit.restored is not None:
                whole = whole and commit.restored in then
                ids = then.get(commit.restored, set())
            elif commit.operation not in KEEPS_ROWS:
                whole, ids = False, set()
            named = commit.stamp.get("files", ())
            ids = then[commit.version] = ids.union(named) if named else ids
        return ids, whole

    def files(self, version: int | None = None) -> dict[str, int | None] | None:
        """The data files at a version, or now, and their rows; None where the log is long or not
        whole."""
        versions = [one for one in self.versions() if version is None or one <= version]
        if len(versions) > MAX_LOG_COMMITS or versions != list(range(len(versions))):
            return None
        files: dict[str, int | None] = {}
        for commit in map_concurrently(self.commit, versions):
            files.update(commit.added)
            for path in commit.removed:
                files.pop(path, None)
        return files


def _log_commit(version: int, text: bytes) -> LogCommit:
    actions = [json.loads(line) for line in text.splitlines() if line]
    info: dict[str, Any] = next(
        (action["commitInfo"] for action in actions if "commitInfo" in action), {}
    )
    added = {
        action["add"]["path"]: json.loads(action["add"].get("stats") or "{}").get("numRecords")
        for action in actions
        if "add" in action
    }
    return LogCommit(
        version,
        info.get("operation", ""),
        json.loads(info.get("userMetadata") or "{}"),
        added,
        tuple(action["remove"]["path"] for action in actions if "remove" in action),
        info.get("operationMetrics", {}),
        _restored_version(info),
    )


def _restored_version(info: Mapping[str, Any]) -> int | None:
    """The version to which a commit went back; -1 where somebody restored by timestamp."""
    if info.get("operation") != "RESTORE":
        return None
    version = info["operationParameters"].get("version")
    return -1 if version is None else int(version)


# --------------------------------------------------------------------------------------------------
# Step 1, discover: what is there, and what each file is
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Layout:
    """The header of a file: its text as it stands, its names in lower case, the delimiter.

    spare  whether the rows have one empty field more, for which a nameless column stands
    """

    line: str
    names: tuple[str, ...]
    delimiter: str = ","
    spare: bool = False


@dataclass(frozen=True)
class RawFile:
    """One file of the raw zone, and what became of it.

    outcome  loaded, duplicate, set_aside, changed or unreadable
    known    whether the ledger has it
    padded   whether zeros stand behind the end of its gzip stream, at which Hadoop fails
    """

    stored: StoredObject
    dataset: str | None = None
    layout: Layout = Layout("", ())
    outcome: str = "loaded"
    reason: str | None = None
    detail: str | None = None
    ignored_columns: tuple[str, ...] = ()
    known: bool = False
    padded: bool = False

    @property
    def id(self) -> str:
        """The file's identity in the ledger: path, content and size.

        One that was not loaded is no duplicate when it comes again, but is told only once.
        """
        text = f"{self.stored.delivered_path}\n{self.stored.etag}\n{self.stored.size}"
        told = f"\n{self.outcome}" if self.outcome in ("set_aside", "unreadable") else ""
        return hashlib.sha256((text + told).encode("utf-8", "surrogatepass")).hexdigest()[:24]

    @property
    def source(self) -> dict[str, Any]:
        """The file's version, in FILE_COLUMNS."""
        one = self.stored
        values = (one.name, one.etag, one.size, one.modified.isoformat())
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
    def to_load(self) -> tuple[RawFile, ...]:
        return tuple(raw for raw in self.files if raw.outcome == "loaded")

    @property
    def text_bytes(self) -> int:
        return sum(raw.stored.text_bytes for raw in self.to_load)

    @property
    def large(self) -> bool:
        return self.text_bytes > LARGE_BYTES

    @property
    def anything_new(self) -> bool:
        return any(raw.outcome == "loaded" or not raw.known for raw in self.files)


def discover(arguments: JobArguments, session: Callable[[], SparkSession]) -> Discovered:
    """List the raw zone once, look at each file's header and at the ledger.

    `session` is called only where the ledger's log is not whole any more, so that the table itself
    has to be asked.
    """
    store = storage(arguments.raw_path)
    now = dt.datetime.now(dt.UTC)
    listed = [one for one in store.list() if is_delivery(one, now)]
    listed.sort(key=lambda stored: (stored.modified, stored.path))
    looked_at = map_concurrently(functools.partial(inspect, store), listed)
    files = [raw for raw in looked_at if raw is not None]
    known = known_files(arguments, session, {raw.id for raw in files}) if files else set()
    return Discovered(tuple(_judge(raw, raw.id in known, arguments.force) for raw in files))


def _judge(raw: RawFile, known: bool, force: bool) -> RawFile:
    """A file with what the ledger says of it."""
    if known and raw.outcome == "loaded" and not force:
        detail = f"{raw.stored.name}: these bytes were loaded before"
        return replace(raw, known=True, outcome="duplicate", detail=detail)
    return replace(raw, known=known)


def known_files(
    arguments: JobArguments, session: Callable[[], SparkSession], ids: set[str]
) -> set[str]:
    """Which of the files are in the ledger."""
    path = arguments.path_of("ingested_files")
    found, whole = DeltaLog(path).file_ids()
    if whole or ids <= found:
        return found & ids
    ledger = session().read.format("delta").load(path)
    rows = ledger.select(*FILE_IDENTITY, "outcome").distinct().toLocalIterator()
    epoch = dt.datetime.fromtimestamp(0, dt.UTC)
    return ids & {
        RawFile(StoredObject(path, etag, size, epoch), outcome=outcome).id
        for path, etag, size, outcome in rows
    }


UNFINISHED = r"(?i)(\.(filepart|part|partial|tmp|crdownload)|\._copying_)\Z|(^|/)_temporary(/|\Z)"
NO_NEWS = r"(?i)((^|/)_success|_\$folder\$|\.crc|/)\Z|\A\Z"  # what tools leave beside files
UNUSABLE_PATH = r"//|\A/|(^|/)\.{1,2}(/|\Z)|[\ud800-\udfff]"  # what Hadoop folds, or is no UTF-8


def is_delivery(stored: StoredObject, now: dt.datetime) -> bool:
    """Whether an object says anything; an unfinished upload does after a day."""
    if re.search(UNFINISHED, stored.path):
        return now - stored.modified > dt.timedelta(days=1)
    return not re.search(NO_NEWS, stored.path)


def inspect(store: Storage, stored: StoredObject) -> RawFile | None:
    """What a file is by its path and header; None where it has gone since the listing.

    It goes if the archive of the run before is still at work.
    """
    raw = RawFile(stored, dataset_of(stored.path))
    if re.search(UNUSABLE_PATH, stored.path):
        return set_aside(raw, "unusable_path")
    try:
        raw = replace(raw, stored=store.with_etag(stored))
        return with_header(store, raw)
    except FileNotFoundError:
        return None
    except (AccessError, PermissionError) as error:
        return unreadable(raw, str(error))


def dataset_of(path: str) -> str | None:
    """The dataset that a path names; `order_items` is tried before `orders`."""
    name = path.lower()
    hidden = path.rsplit("/", 1)[-1].startswith(("_", "."))
    if hidden or not re.search(r"\.csv(\.gz)?\Z", name):
        return None
    for table in sorted(TABLES, key=lambda table: -len(table.dataset)):
        if re.match(re.escape(table.dataset) + r"(?![a-z0-9])", name):
            return table.dataset
    return None


def set_aside(raw: RawFile, reason: str, found: str = "") -> RawFile:
    """A file that cannot be loaded as a whole; `found` says what was seen in it."""
    detail = f"{raw.stored.name}: {FILE_REASONS[reason]}" + (f" ({found})" if found else "")
    return replace(raw, outcome="set_aside", reason=reason, detail=detail[:TEXT_LIMIT])


def unreadable(raw: RawFile, why: str) -> RawFile:
    """A file whose bytes cannot be had; it stays where it is, and is told once."""
    todo = "restore it, allow the job to read it, or delete it"
    detail = f"{raw.stored.name}: {why}; {todo}"[:TEXT_LIMIT]
    return replace(raw, outcome="unreadable", reason="unreadable", detail=detail)


def with_header(store: Storage, raw: RawFile) -> RawFile:
    """A file with its layout, or set aside with the reason."""
    name = raw.stored.path
    if re.search(UNFINISHED, name):
        return set_aside(raw, "unfinished_upload")
    if raw.dataset is None:
        return set_aside(raw, "unknown_dataset")
    if not raw.stored.size:
        return set_aside(raw, "empty_file")
    if SPARK_3 and name.lower().endswith(".gz") and not name.endswith(".gz"):
        return set_aside(raw, "gzip_name")
    try:
        head, padded = read_head(store, raw.stored)
    except zlib.error as error:
        return set_aside(raw, "truncated_gzip", str(error))
    first = head.split(b"\n", 1)[0]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or 0.3 < first.count(0) / max(len(first), 1) < 0.8:
        return set_aside(raw, "utf16")
    return with_layout(replace(raw, padded=padded), head.decode("utf-8", errors="replace"))


def read_head(store: Storage, stored: StoredObject) -> tuple[bytes, bool]:
    """The first HEAD_BYTES from the first line that is not blank on, unpacked, and whether zeros
    stand behind a gzip stream, which is read whole, so that a broken one is known."""
    with closing(store.chunks(stored.path, HEAD_BYTES)) as chunks:
        if not stored.path.lower().endswith(".gz"):
            return _first_text(chunks), False
        text = GzipText(chunks)
        unpacked = iter(text)
        head = _first_text(unpacked)
        for _ in unpacked:
            pass
        return head, text.padded


def _first_text(chunks: Iterator[bytes]) -> bytes:
    head = b""
    for chunk in chunks:
        head = (head + chunk[:HEAD_BYTES]).lstrip(b" \t\r\n")
        if len(head) >= HEAD_BYTES:
            break
    return head[:HEAD_BYTES]


class GzipText:
    """The unpacked text of all members of a gzip stream, in chunks.

    Raises zlib.error where the stream is damaged or ends too early. Once read, `padded` says
    whether zeros stand behind its end.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.padded = False

    def __iter__(self) -> Iterator[bytes]:
        unpacker = zlib.decompressobj(31)
        for chunk in self.chunks:
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
    """Find the header, which is the first record, and its delimiter."""
    text = _from_header(text)
    if not text:
        return set_aside(raw, "empty_file")
    wanted = next(table for table in TABLES if table.dataset == raw.dataset).column_names
    layouts = [read_header(text, delimiter) for delimiter in DELIMITERS]
    layout = max(layouts, key=lambda one: len(set(wanted) & set(one.names)))
    problem = header_problem(layout, wanted, text)
    if problem:
        return set_aside(raw, *problem)
    ignored = tuple(name for name in layout.names if name not in wanted)
    if one_field_more(text, layout):
        layout = replace(layout, names=(*layout.names, ""), spare=True)
    return replace(raw, layout=layout, ignored_columns=ignored)


def _from_header(text: str) -> str:
    """The text from its header on, without blank lines and a line that names the delimiter."""
    text = text.lstrip(BLANKS)
    while match := re.match(rf"([^\r\n]*)({LINE_BREAK}|\Z)", text):
        line = match.group(1)
        blank = not line.strip(BLANKS + END_OF_FILE + '",;|')
        if not text or not (blank or re.match(DELIMITER_LINE, line.strip())):
            break
        text = text[match.end() :].lstrip(BLANKS)
    return text


def header_problem(layout: Layout, wanted: Sequence[str], text: str) -> tuple[str, str] | None:
    """Why a file cannot be loaded by its header, and what was found."""
    missing = [name for name in wanted if name not in layout.names]
    if len(missing) == len(wanted):
        garbled = re.search("[\ufffd\0]", layout.line)
        return ("binary", "") if garbled else ("no_header", _seen(text, wanted))
    if missing:
        return "missing_column", "without " + ", ".join(missing)
    twice = [name for name, count in Counter(layout.names).items() if count > 1 and name in wanted]
    return ("duplicate_column", ", ".join(twice)) if twice else None


DELIMITERS = (",", ";", "\t", "|")


def read_header(text: str, delimiter: str) -> Layout:
    """The first record of a text, as if its columns were separated so; no names where a quote of it
    is not closed."""
    names, lines = next(csv_records(text, delimiter), ((), 1))
    line = "".join(io.StringIO(text, newline="").readlines()[:lines]).rstrip("\r\n")
    if not re.fullmatch(closed_pattern(delimiter).removesuffix(r"\z"), line):
        names = ()
    return Layout(line, tuple(name.strip(BLANKS).lower() for name in names), delimiter)


def csv_records(text: str, delimiter: str) -> Iterator[tuple[Sequence[str], int]]:
    """The records of the head of a file, each with the line at which it ends; as far as they go."""
    blank = delimiter != "\t"
    source = io.StringIO(text, newline="")
    records = csv.reader(source, delimiter=delimiter, skipinitialspace=blank)
    with suppress(csv.Error):  # the head is only a first look: the parser judges every record
        for record in records:
            yield record, records.line_num


def one_field_more(text: str, layout: Layout) -> bool:
    """Whether every row in the head of a file ends with one empty field more than the header."""
    rows = [record for record, _ in csv_records(text, layout.delimiter)][1:]
    rows = rows if len(text) < HEAD_BYTES // 4 else rows[:-1]  # the last may be cut
    wide = len(layout.names) + 1
    return bool(rows) and all(len(row) == wide and not row[-1].strip() for row in rows if row)


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
    # VACUUM keeps what a rollback needs (glue_operations.py); Delta 4 would stop after 7 days
    "spark.databricks.delta.vacuum.enforceTimeTravelWithinDeletedFileRetentionDuration": "false",
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
# Few rows go through the plans of a small batch, each of which runs once: to compile them to Java
# first takes a tenth of a small delivery in a cold process; at LARGE_BYTES it begins to pay
INTERPRETED = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}
COMMIT_STAMP = "spark.databricks.delta.commitInfo.userMetadata"


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
    """A Delta table as the run finds it: its version (-1 for none) and its rows at that version."""

    spark: SparkSession
    path: str
    log: DeltaLog
    before: int
    frame: DataFrame | None

    @property
    def exists(self) -> bool:
        return self.before >= 0

    def append(
        self, rows: DataFrame, stamp: str, partition: str | None = None, **more: str
    ) -> None:
        """Append in one commit; the first append creates the table with its properties."""
        options = {"userMetadata": stamp, **more}
        if not self.exists:
            options |= TABLE_PROPERTIES
        writer = rows.write.format("delta").mode("append").options(**options)
        (writer.partitionBy(partition) if partition else writer).save(self.path)

    def append_records(
        self,
        rows: Sequence[Mapping[str, Any]],
        ddl: str,
        stamp: str,
        partition: str | None = None,
    ) -> None:
        """Append a few rows that this process knows, or none."""
        frame = local_frame(self.spark, rows, ddl)
        self.append(frame, stamp, partition, optimizeWrite="false")  # one file needs no shuffle

    def append_nothing(self, ddl: str, stamp: str) -> None:
        """A commit without rows, for what its stamp says."""
        with settings(self.spark, {"spark.databricks.delta.skipRecordingEmptyCommits": "false"}):
            self.append_records([], ddl, stamp)

    def merge(self, rows: DataFrame, condition: str, clauses: str, stamp: str) -> None:
        """MERGE rows (alias s) into the table (alias t) by SQL, in one commit."""
        rows.createOrReplaceTempView("lakehouse_merge_source")
        try:
            with settings(self.spark, {COMMIT_STAMP: stamp}):
                self.spark.sql(
                    f"MERGE INTO delta.`{self.path}` t USING lakehouse_merge_source s "
                    f"ON {condition} {clauses}"
                )
        finally:
            self.spark.catalog.dropTempView("lakehouse_merge_source")

    def go_back(self, version: int) -> None:
        """RESTORE the table to a version (-1 empties it), in one commit with the session's stamp.

        Nothing is written where no data file has changed since.
        """
        latest, commits = self.log.latest(), self.log.commits(after=version)
        changed = any(one.added or one.removed for one in commits)
        if latest <= version or (len(commits) == latest - version and not changed):
            return
        to = f"RESTORE TABLE delta.`{self.path}` TO VERSION AS OF {version}"
        self.spark.sql(to if version >= 0 else f"DELETE FROM delta.`{self.path}`")

    def summary(self) -> dict[str, Any]:
        """What the run did to the table, as the summary tells it."""
        commits = self.log.commits(after=self.before)
        version = max([self.before, *(commit.version for commit in commits)])
        added = [path for commit in commits for path in commit.added]
        return {
            "version": version if version >= 0 else None,
            "rows": self.rows_at(version),
            "schema_changed": version >= 0
            and (not self.exists or any(one.operation == "ADD COLUMNS" for one in commits)),
            "files_added": len(added),
            "files_removed": sum(len(commit.removed) for commit in commits),
            "dates": _days(added),
        }

    def rows_at(self, version: int) -> int:
        """Rows at a version, 0 before the first: by the log's statistics where it has them, else
        Delta counts."""
        files = self.log.files(version)
        if files is None or None in files.values():
            reader = self.spark.read.format("delta").option("versionAsOf", version)
            return reader.load(self.path).count()
        return sum(count or 0 for count in files.values())


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


def plans(lake: Lake, large: bool) -> dict[str, str]:
    """Settings for the plans of a run: INTERPRETED, unless its batch is large, or much stands in
    the tables, or how much is not known."""
    tables = [] if large else [one for one in lake.values() if one.exists]
    sizes = map_concurrently(lambda one: one.log.data_bytes(one.before), tables)
    compiled = large or None in sizes or sum(size or 0 for size in sizes) > COMPILED_BYTES
    return {} if compiled else INTERPRETED


def open_lake(spark: SparkSession, arguments: JobArguments) -> Lake:
    """All tables; columns that are declared but not in a table yet are added to it."""
    declared: dict[str, Table | None] = {table.name: table for table in TABLES}
    declared |= dict.fromkeys(RECORD_TABLES)

    def open_table(name: str) -> LakeTable:
        path = arguments.path_of(name)
        log = DeltaLog(path)
        before = log.latest()
        if before < 0:
            return LakeTable(spark, path, log, before, None)
        frame = spark.read.format("delta").load(path)
        table = declared[name]
        missing = [one for one in table.columns if one.name not in frame.columns] if table else []
        if missing:
            added = ", ".join(f"`{column.name}` {column.type}" for column in missing)
            spark.sql(f"ALTER TABLE delta.`{path}` ADD COLUMNS ({added})")
            frame = spark.read.format("delta").load(path)
        return LakeTable(spark, path, log, before, frame)

    return dict(zip(declared, map_concurrently(open_table, declared), strict=True))


# --------------------------------------------------------------------------------------------------
# Step 2, stage: the raw text, read once, as typed rows and rows with reasons
#
# Columns of the job's own, beside the table's:
#   _file      STRING   the file, as Spark names it; later its place among the batch's files, INT
#   _split     BIGINT   where the input split of the file starts that holds the line
#   _mid       BIGINT   monotonically_increasing_id: rises within a split, line by line
#   _line      BIGINT   the line in the file; before `numbered` known of quoted records only
#   _layout    INT      which of the batch's layouts the file has
#   _raw       STRING   the line as it stands, or all lines of a quoted record
#   _kind      INT      RECORD, BLANK, HEADER or OTHER_HEADER (the same names in another order);
#                       NULL where the fast path leaves the line to the parser
#   _open      BOOLEAN  whether such a line leaves a quoted field open; of the fast path only
#   _reasons   ARRAY    why a record is rejected; NULL for a valid row
#   _fields    MAP      the texts of a rejected row by column; NULL where they could not be told
# --------------------------------------------------------------------------------------------------
RECORD, BLANK, HEADER, OTHER_HEADER = 0, 1, 2, 3
VALID = f"_kind = {RECORD} AND _reasons IS NULL"
PLACE = ["_file", "_split", "_mid", "_line", "_layout", "_raw"]
STAGED_DDL = (
    "_file STRING, _split BIGINT, _mid BIGINT, _line BIGINT, _layout INT, _raw STRING, _kind INT, "
    "_reasons ARRAY<STRING>, _fields MAP<STRING, STRING>, "
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
FAST_LAYOUTS = 4  # so many layouts of a batch have a fast path
LINE_BREAK = r"\r\n|\n|\r"
CONTROL_CHARACTER = r"[\x00-\x08\x0e-\x1f\x7f]"
END_OF_FILE = "\x1a"  # Ctrl-Z, as DOS ends a file
DELIMITER_LINE = "^(?i:sep=).$"  # Excel's own first line
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
class Split:
    """One input split of a file and its lines: SPLIT_FACTS."""

    file: str
    start: int
    first_mid: int
    lines: int


SPLIT_FACTS = ("_file", "_split", "first_mid", "lines")


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
class StagedDataset:
    """All lines of a dataset's files.

    rows      a row for each line, columns as above and the table's; None where no file has come
    files     Spark's name of a file -> the file; a file's place here is its number in `_file`
    left_out  numbers of files that are not loaded after all
    counts    file id -> its rows
    key_span  key column -> lowest and highest key as numbers; only where all are integers, and of
              small batches, which prune the tables by it
    by_day    whether each split holds few days, so that writing by day needs no shuffle
    outranked rows (_file, _line) that were delivered before the table's row of their key; only of
              archived files and replayed rows, which come out of their turn
    """

    table: Table
    scratch: Scratch
    rows: DataFrame | None = None
    files: Mapping[str, RawFile] = field(default_factory=dict)
    left_out: frozenset[int] = frozenset()
    splits: tuple[Split, ...] = ()
    counts: Mapping[str, RowCounts] = field(default_factory=dict)
    key_span: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    by_day: bool = False
    outranked: DataFrame | None = None

    @property
    def large(self) -> bool:
        return self.scratch.on_disk

    @property
    def loaded(self) -> dict[int, RawFile]:
        """The files to load by their number."""
        return {n: raw for n, raw in enumerate(self.files.values()) if n not in self.left_out}

    @property
    def valid_rows(self) -> int:
        return sum(one.rows - one.rejected for one in self.counts.values())

    @functools.cached_property
    def numbered(self) -> DataFrame:
        """The lines of the files to load, with the file's number and the line in the file."""
        numbers = {name: number for number, name in enumerate(self.files)}
        before: Counter[str] = Counter()
        places = []
        for split in sorted(self.splits, key=lambda one: (one.file, one.start)):
            offset = before[split.file] + 1 - split.first_mid
            before[split.file] += split.lines
            place = {"_file": split.file, "_split": split.start, "_offset": offset}
            if numbers[split.file] not in self.left_out:
                places.append(place | {"_number": numbers[split.file]})
        ddl = "_file STRING, _split BIGINT, _offset BIGINT, _number INT"
        known = F.broadcast(local_frame(self.scratch.spark, places, ddl))
        rows = self.rows
        if rows is None:
            rows = local_frame(self.scratch.spark, [], STAGED_DDL + self.table.ddl)
        line = F.coalesce("_line", F.col("_mid") + F.col("_offset"))
        placed = rows.join(known, ["_file", "_split"]).withColumn("_line", line)
        staged = ["_line", "_raw", "_kind", "_reasons", "_fields", *self.table.column_names]
        return placed.select(F.col("_number").alias("_file"), *staged)

    @functools.cached_property
    def sources(self) -> DataFrame:
        """The files to load by their number: _file, FILE_COLUMNS."""
        rows = [{"_file": number, **raw.source} for number, raw in self.loaded.items()]
        return F.broadcast(local_frame(self.scratch.spark, rows, f"_file INT, {FILE_DDL}"))

    @property
    def valid(self) -> DataFrame:
        """The rows of `numbered` without a reason to reject them."""
        return self.numbered.where(VALID)

    @property
    def valid_values(self) -> DataFrame:
        """The table's columns of the valid rows."""
        if self.rows is None or self.left_out:
            return self.valid.select(self.table.column_names)
        return self.rows.where(VALID).select(self.table.column_names)


@dataclass(frozen=True)
class Staged:
    """What the run has read: the datasets by name, and the files with what became of them."""

    files: tuple[RawFile, ...]
    datasets: Mapping[str, StagedDataset]


def stage(spark: SparkSession, arguments: JobArguments, found: Discovered) -> Staged:
    """Read every file to load once; leave out those that changed, or are bad as a whole."""
    paths = readable_paths(arguments, found.to_load)

    def stage_table(table: Table) -> StagedDataset:
        path = f"{arguments.scratch_path}run={arguments.run_id}/{table.dataset}/"
        files = {place: raw for place, raw in paths.items() if raw.dataset == table.dataset}
        empty = StagedDataset(table, Scratch(spark, path, found.large and bool(files)))
        return stage_files(empty, files) if files else empty

    datasets = map_concurrently(stage_table, TABLES)
    gone = set() if found.archived else changed_files(arguments, found.to_load)
    judged: dict[str, RawFile] = {}
    for dataset in datasets:
        judged |= judge_content(dataset, arguments.max_rejected_percent)
    judged |= {raw.id: _mark_changed(raw) for raw in found.to_load if raw.id in gone}
    left_out = {file for file, raw in judged.items() if raw.outcome != "loaded"}
    files = tuple(judged.get(raw.id, raw) for raw in found.files)
    return Staged(files, {one.table.dataset: leave_out(one, left_out) for one in datasets})


def leave_out(staged: StagedDataset, ids: set[str]) -> StagedDataset:
    """The same without some files."""
    numbers = frozenset(n for n, raw in enumerate(staged.files.values()) if raw.id in ids)
    counts = {file: count for file, count in staged.counts.items() if file not in ids}
    return replace(staged, left_out=numbers, counts=counts)


def judge_content(staged: StagedDataset, percent: int) -> dict[str, RawFile]:
    """The files that were read, by id; set aside those that are bad as a whole."""
    bad = [
        number
        for number, raw in staged.loaded.items()
        if staged.counts[raw.id].mostly_rejected(percent)
    ]
    reasons = reasons_by_file(staged, bad) if bad else {}
    judged = {}
    for number, raw in staged.loaded.items():
        counts = staged.counts[raw.id]
        if not counts.headers:
            judged[raw.id] = unreadable(raw, "not even its header came back when it was read")
        elif counts.other_headers:
            judged[raw.id] = set_aside(raw, "mixed_headers")
        elif number in reasons:
            found = f"{counts.rejected} of {counts.rows} rows: {', '.join(reasons[number][:5])}"
            judged[raw.id] = set_aside(raw, "mostly_rejected", found)
        else:
            judged[raw.id] = raw
    return judged


def reasons_by_file(staged: StagedDataset, numbers: Sequence[int]) -> dict[int, list[str]]:
    """The reasons in some files with their rows, the commonest first."""
    rows = staged.numbered.where(F.col("_file").isin(list(numbers)))
    reasons = rows.select("_file", F.explode("_reasons").alias("reason"))
    groups = reasons.groupBy("_file", "reason").count().orderBy(F.col("count").desc(), "reason")
    found: dict[int, list[str]] = {number: [] for number in numbers}
    for group in groups.collect():
        found[group["_file"]].append(f"{group['reason']} {group['count']}")
    return found


def _mark_changed(raw: RawFile) -> RawFile:
    detail = "overwritten or deleted while the run read it; it stays for the next run"
    return replace(raw, outcome="changed", detail=f"{raw.stored.name}: {detail}")


def changed_files(arguments: JobArguments, raws: Iterable[RawFile]) -> set[str]:
    """Ids of files that are no longer what was listed."""
    now = {stored.path: stored for stored in storage(arguments.raw_path).list()}

    def same(raw: RawFile) -> bool:
        other = now.get(raw.stored.path)
        if other is None or other.size != raw.stored.size:
            return False
        same_bytes = other.etag == raw.stored.etag
        return same_bytes if other.etag else other.modified == raw.stored.modified

    return {raw.id for raw in raws if not same(raw)}


# -- lines -----------------------------------------------------------------------------------------
def readable_paths(arguments: JobArguments, files: Sequence[RawFile]) -> dict[str, RawFile]:
    """The files by the path that Spark reads; padded ones are packed again in the scratch."""
    return {
        repacked(arguments, raw) if raw.padded else arguments.raw_path + raw.stored.path: raw
        for raw in files
    }


def repacked(arguments: JobArguments, raw: RawFile) -> str:
    """The path of a copy of a gzip file in the scratch, without the zeros behind its end."""
    path = f"run={arguments.run_id}/padded/{raw.id}.csv.gz"
    with closing(storage(arguments.raw_path).chunks(raw.stored.path)) as chunks:
        packed = gzip.compress(b"".join(GzipText(chunks)), 1)
    storage(arguments.scratch_path).write(path, packed)
    return arguments.scratch_path + path


def stage_files(empty: StagedDataset, files: Mapping[str, RawFile]) -> StagedDataset:
    """Stage the files of one dataset, which are given by the path to read: the fast path first,
    the parser for what it leaves."""
    table, scratch = empty.table, empty.scratch
    layouts = [one for one, _ in Counter(raw.layout for raw in files.values()).most_common()]
    lines = read_lines(scratch.spark, files, layouts)
    fast = scratch.materialize(fast_path(lines, table, layouts), "fast")
    profiles = profile(fast, table, scratch).collect()
    splits = tuple(Split(*(row[name] for name in SPLIT_FACTS)) for row in profiles)
    multi_line = {row["_file"] for row in profiles if row["multi_line"]}
    parsed = parse_rest(empty, fast, profiles, multi_line, layouts)
    profiles = [row for row in profiles if row["_file"] not in multi_line]
    taken = F.col("_kind").isNotNull() & ~one_of_files(multi_line)
    profiles += [row for part in parsed for row in profile(part, table, scratch).collect()]
    names = _file_names(files, {split.file for split in splits})
    return replace(
        empty,
        rows=union([fast.where(taken).drop("_open"), *parsed]),
        files=names,
        splits=splits,
        counts=_row_counts(profiles, names),
        key_span=key_span(profiles, table),
        by_day=comes_by_day(profiles),
    )


def parse_rest(
    empty: StagedDataset,
    fast: DataFrame,
    profiles: Sequence[Any],
    multi_line: set[str],
    layouts: Sequence[Layout],
) -> list[DataFrame]:
    """The lines that the fast path leaves, parsed: of usual files line by line, of those in which
    a quoted field holds a line break record by record."""
    quoted, parts = one_of_files(multi_line), {}
    if any(row["unparsed"] and row["_file"] not in multi_line for row in profiles):
        parts["parsed"] = fast.where(F.col("_kind").isNull() & ~quoted).select(PLACE)
    if multi_line:
        parts["records"] = join_quoted_lines(fast.where(quoted).select(PLACE), layouts)
    return [
        empty.scratch.materialize(parse_lines(lines, empty.table, layouts), name)
        for name, lines in parts.items()
    ]


def one_of_files(names: set[str]) -> SparkColumn:
    return F.col("_file").isin(sorted(names)) if names else F.lit(False)


SCHEME = r"^\w+:/*|^/+"  # and leading slashes: Spark writes them in several ways


def bare_path(path: str) -> str:
    """A path without its scheme and leading slashes."""
    return re.sub(SCHEME, "", path)


def _file_names(files: Mapping[str, RawFile], names: set[str]) -> dict[str, RawFile]:
    """The files by the names that Spark has for them, which are URL-encoded.

    A file of which no line came back keeps its path as its name.
    """
    by_path = {bare_path(path): raw for path, raw in files.items()}
    found = {name: by_path.pop(bare_path(urllib.parse.unquote(name)), None) for name in names}
    strange = [name for name, raw in found.items() if raw is None]
    if strange:
        raise JobError(f"Spark read {strange[0]}, which the listing does not name; run again")
    return by_path | {name: raw for name, raw in found.items() if raw is not None}


def _row_counts(profiles: Iterable[Any], names: Mapping[str, RawFile]) -> dict[str, RowCounts]:
    """The rows of each file; a header that stands once more is a rejected row."""
    sums = {raw.id: Counter[str]() for raw in names.values()}
    for row in profiles:
        for name in ("records", "rejected", "headers", "other_headers"):
            sums[names[row["_file"]].id][name] += row[name]
    counts = {}
    for file, one in sums.items():
        again = max(one["headers"] - 1, 0)
        rows, rejected = one["records"] + again, one["rejected"] + again
        counts[file] = RowCounts(rows, rejected, one["headers"], one["other_headers"])
    return counts


def read_lines(
    spark: SparkSession, files: Mapping[str, RawFile], layouts: Sequence[Layout]
) -> DataFrame:
    """One row for each line of the files, which are given by their path: PLACE."""
    lines = spark.read.options(**PLAIN_PATHS).option("lineSep", "\n").text(list(files))
    lines = lines.selectExpr(
        "input_file_name() AS _file",
        "input_file_block_start() AS _split",
        "monotonically_increasing_id() AS _mid",
        "CAST(NULL AS BIGINT) AS _line",
        "0 AS _layout",
        "value AS _raw",
    )
    if len(layouts) == 1:
        return lines
    of_file = [
        {"path": bare_path(path), "place": layouts.index(raw.layout)} for path, raw in files.items()
    ]
    places = F.broadcast(local_frame(spark, of_file, "path STRING, place INT"))
    decoded = F.url_decode(F.replace(F.col("_file"), F.lit("+"), F.lit("%2B")))
    lines = lines.withColumn("path", F.regexp_replace(decoded, SCHEME, ""))
    return (
        lines.join(places, "path", how="left").withColumn("_layout", F.col("place")).select(PLACE)
    )


def by_layout(values: Sequence[Any]) -> SparkColumn:
    """The value of a row's layout; a literal where all are equal."""
    if len(set(values)) == 1:
        return F.lit(values[0])
    return F.element_at(F.array(*[F.lit(value) for value in values]), F.col("_layout") + 1)


def cell_of(table: Table, layouts: Sequence[Layout]) -> dict[str, SparkColumn]:
    """Each column's cell among `_cells`, wherever the row's layout has it."""
    return {
        name: F.get("_cells", by_layout([one.names.index(name) for one in layouts]))
        for name in table.column_names
    }


def split_by(text: SparkColumn, layouts: Sequence[Layout]) -> SparkColumn:
    delimiter = by_layout([re.escape(one.delimiter) for one in layouts])
    return F.call_function("split", text, delimiter, F.lit(-1))


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


def fast_path(lines: DataFrame, table: Table, layouts: Sequence[Layout]) -> DataFrame:
    """Nearly all lines, by one regular expression and plain casts: the staged columns and _open.

    _kind is NULL where a value is not plain or a check may fail; the parser takes those lines. What
    is taken here, the parser would read alike.
    """
    text = F.col("_text")
    # Of several carriage returns all but the last end lines of their own: such a line is not plain
    plain_end = ~F.col("_raw").endswith("\r\r")
    lines = lines.select(*PLACE, F.when(plain_end, line_text()).alias("_text"))
    plain = text.rlike(plain_line(layouts[0], table))
    if len(layouts) > 1:
        plain = F.when(F.col("_layout") == 0, plain)
        for place, layout in enumerate(layouts[1:FAST_LAYOUTS], 1):
            plain = plain.when(F.col("_layout") == place, text.rlike(plain_line(layout, table)))
    header = text == by_layout([layout.line for layout in layouts])
    cells = split_by(F.when(plain, text), layouts)
    lines = lines.select(*PLACE, header.alias("_header"), cells.alias("_cells"))
    texts = [
        F.when((cell != "") & (cell != NULL_TEXTS[0]), cell).alias(f"_t_{name}")
        for name, cell in cell_of(table, layouts).items()
    ]
    lines = lines.select(*PLACE, "_header", F.col("_cells").isNotNull().alias("_plain"), *texts)
    written = {column.name: F.col(f"_t_{column.name}") for column in table.columns}
    values = [plain_value(one, written[one.name]).alias(one.name) for one in table.columns]
    lines = lines.select("*", *values)
    doubts = [
        F.col(one.name).isNull() & (F.lit(one.required) | written[one.name].isNotNull())
        for one in table.columns
        if one.required or one.type != "STRING"
    ]
    doubts += [rule.broken(written.__getitem__, F.col) for rule in table.rules]
    # Perhaps a header once more; the first comparison, by bytes, spares most keys the second
    least = min(name.upper() for name in table.column_names)
    doubts.append((F.col(table.key) >= least) & F.lower(table.key).isin(table.column_names))
    doubt = any_of(F.coalesce(one, F.lit(False)) for one in doubts)
    kind = F.when(F.col("_header"), HEADER).when(F.col("_plain") & ~doubt, RECORD)
    none = [
        F.expr("CAST(NULL AS ARRAY<STRING>) AS _reasons"),
        F.expr("CAST(NULL AS MAP<STRING, STRING>) AS _fields"),
    ]
    opened = F.when(kind.isNull(), leaves_quote_open(F.col("_raw"))).otherwise(False)
    found = [kind.alias("_kind"), opened.alias("_open")]
    return lines.select(*PLACE, *found, *none, *table_values(table))


def leaves_quote_open(line: SparkColumn) -> SparkColumn:
    """Whether a line ends within quotes, or a carriage return in it ends a line as well."""
    quotes = F.length(line) - F.length(F.replace(line, F.lit('"'), F.lit("")))
    returns = F.octet_length(line) - F.octet_length(F.replace(line, F.lit("\r"), F.lit("")))
    return (quotes % 2 == 1) | (returns > F.when(line.endswith("\r"), 1).otherwise(0))


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


def record_pattern(delimiter: str) -> str:
    """A record and its line end: quoted fields may hold line breaks, where all of them are closed;
    else it is one line."""
    sign, blank = re.escape(delimiter), blank_but(delimiter)
    one = rf'(?:{quoted_field(delimiter)}|(?!{blank}*")[^{sign}\r\n]*+)'
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


def join_quoted_lines(lines: DataFrame, layouts: Sequence[Layout]) -> DataFrame:
    """PLACE for each record of files in which a quoted field holds a line break.

    `lines` are all lines of these files. A record whose quotes do not close is one line. Patterns
    would lose the bytes of lines that are not UTF-8: they go through as RAW_BYTES.
    """
    raw = F.regexp_replace("_raw", "^\ufeff+", "")
    as_bytes = F.translate(F.decode(F.col("_raw").cast("binary"), "ISO-8859-1"), LATIN_1, RAW_BYTES)
    kept = F.when(valid_utf8(F.col("_raw")), raw).otherwise(as_bytes).alias("_raw")
    lines = lines.select("_file", "_split", "_mid", "_layout", kept)
    in_order = F.sort_array(F.collect_list(F.struct("_split", "_mid", "_raw")))
    text = F.concat_ws("\n", F.transform(in_order, lambda line: line["_raw"]))
    files = lines.groupBy("_file", "_layout").agg(text.alias("_all"))
    pattern = by_layout([record_pattern(layout.delimiter) for layout in layouts])
    found = F.regexp_extract_all(F.col("_all"), pattern, F.lit(1))
    records = files.select("_file", "_layout", F.posexplode(found).alias("_mid", "_raw"))
    back = F.encode(F.translate("_raw", RAW_BYTES, LATIN_1), "ISO-8859-1").cast("string")
    marked = F.col("_raw").rlike(f"[{RAW_BYTES}]")
    marked &= ~F.col("_raw").rlike(rf"[^\x00-\x7f{RAW_BYTES}]")  # all of it can go back
    records = records.withColumn("_raw", F.when(marked, back).otherwise(F.col("_raw")))
    before = Window.partitionBy("_file").orderBy("_mid").rowsBetween(Window.unboundedPreceding, -1)
    lines_before = F.sum(F.size(F.split("_raw", LINE_BREAK))).over(before)
    return records.withColumn("_before", F.coalesce(lines_before, F.lit(0))).selectExpr(
        "_file",
        "0L AS _split",
        "CAST(_mid AS BIGINT) AS _mid",
        "CAST(_before + 1 AS BIGINT) AS _line",
        "_layout",
        "_raw",
    )


def parse_lines(lines: DataFrame, table: Table, layouts: Sequence[Layout]) -> DataFrame:
    """Every line (PLACE) as a typed row or a row with reasons: the staged columns."""
    rows = split_fields(lines, table, layouts)
    texts = [_cell_text(one, layouts).alias(f"_t_{one.name}") for one in table.columns]
    return judge_texts(rows.select(*PLACE, "_kind", "_broken", *texts), table)


def judge_texts(rows: DataFrame, table: Table) -> DataFrame:
    """Records (PLACE, _kind, _broken and `_t_<column>`, the texts) as the staged columns."""
    written = {column.name: F.col(f"_t_{column.name}") for column in table.columns}
    values = [parse(one, written[one.name]).alias(one.name) for one in table.columns]
    rows = rows.select("*", *values)
    checks: dict[str, SparkColumn] = {}
    for column in table.columns:
        checks |= column_reasons(column, written[column.name], F.col(column.name))
    checks |= {rule.reason: rule.broken(written.__getitem__, F.col) for rule in table.rules}
    broken = F.col("_broken").isNotNull()
    reasons = F.when(broken, F.array("_broken")).otherwise(reasons_of(checks))
    rows = rows.select("*", F.when(F.col("_kind") == RECORD, reasons).alias("_reasons"))
    fields = F.when(~broken & F.col("_reasons").isNotNull(), text_map(written))
    return rows.select(*PLACE, "_kind", "_reasons", fields.alias("_fields"), *table_values(table))


def _cell_text(column: Column, layouts: Sequence[Layout]) -> SparkColumn:
    """The text of a column; a file without commas between its columns may have them in numbers."""
    text = value_text(column, F.col(f"_c_{column.name}"))
    commas = [layout.delimiter != "," for layout in layouts]
    if column.type != "DOUBLE" or not any(commas):
        return text
    decimal_comma = by_layout(commas) & text.rlike(DECIMAL_COMMA_SHAPE)
    return F.when(decimal_comma, F.translate(text, ",", ".")).otherwise(text)


def split_fields(lines: DataFrame, table: Table, layouts: Sequence[Layout]) -> DataFrame:
    """Add _kind, _broken (what is wrong with the record's shape) and `_c_<column>`, its text."""
    text = F.col("_text")
    lines = lines.select(*PLACE, F.regexp_replace("_raw", "^\ufeff+|\r\\z", "").alias("_text"))
    delimiter = by_layout([layout.delimiter for layout in layouts])
    one_cell = by_layout([cell_pattern(layout.delimiter) for layout in layouts])
    quoted = F.regexp_extract_all(F.concat(delimiter, text), one_cell, F.lit(1))
    closed = F.regexp_like(text, by_layout([closed_pattern(one.delimiter) for one in layouts]))
    cells = F.when(~text.contains('"'), split_by(text, layouts))
    cells = cells.when(closed, F.transform(quoted, _unquoted))
    lines = lines.select(*PLACE, "_text", cells.alias("_cells"))
    wide = by_layout([len(layout.names) for layout in layouts])
    spare = by_layout([int(layout.spare) for layout in layouts])
    filled = (spare == 1) & (trimmed(F.element_at("_cells", -1)) != "") & (F.size("_cells") == wide)
    further = F.slice(F.split("_text", LINE_BREAK), F.lit(2), F.size(F.split("_text", LINE_BREAK)))
    swallowed = F.exists(further, lambda line: F.size(split_by(line, layouts)) == wide)
    broken = (
        F.when(~valid_utf8(F.col("_raw")) | text.rlike(f"[{RAW_BYTES}]"), "invalid_utf8")
        .when(text.rlike(CONTROL_CHARACTER), "control_character")
        .when(F.col("_cells").isNull(), "unclosed_quote")
        .when(text.rlike("[\r\n]") & swallowed, "swallowed_row")
        .when(F.size("_cells") < wide - spare, "too_few_fields")
        .when((F.size("_cells") > wide) | filled, "too_many_fields")
    )
    kind = kind_of_line(table, layouts).alias("_kind")
    texts = [cell.alias(f"_c_{name}") for name, cell in cell_of(table, layouts).items()]
    return lines.select(*PLACE, kind, broken.alias("_broken"), *texts)


def kind_of_line(table: Table, layouts: Sequence[Layout]) -> SparkColumn:
    """BLANK, HEADER by its names in whatever spelling, OTHER_HEADER or RECORD."""
    text = F.col("_text")
    said = F.filter("_cells", lambda cell: trimmed(cell) != "")
    blank = (F.size(said) == 0) | (text == END_OF_FILE) | text.rlike(DELIMITER_LINE)
    perhaps = F.lower(text).contains(table.key)  # a cheap sign, before names are compared
    names = F.transform("_cells", lambda cell: F.lower(trimmed(cell)))
    cells = cell_of(table, layouts)
    header = all_of(F.lower(trimmed(cell)) == name for name, cell in cells.items())
    wanted = F.array(*[F.lit(name) for name in table.column_names])
    other = F.size(F.array_except(wanted, names)) == 0
    return (
        F.when(blank, BLANK)
        .when(perhaps & header, HEADER)
        .when(perhaps & other, OTHER_HEADER)
        .otherwise(RECORD)
    )


def _unquoted(cell: SparkColumn) -> SparkColumn:
    bare = F.btrim(cell, F.lit(" \t"))
    inner = F.substr(bare, F.lit(2), F.length(bare) - 2)
    plain = F.replace(inner, F.lit('""'), F.lit('"'))
    return F.when(bare.startswith('"'), plain).otherwise(cell)


# -- what was read ---------------------------------------------------------------------------------
def profile(staged: DataFrame, table: Table, scratch: Scratch) -> DataFrame:
    """Per file and split: SPLIT_FACTS, unparsed, multi_line, records, rejected, headers,
    other_headers, low_day, high_day, and of a small batch for each key column low_, high_ (its
    numbers) and texts_ (other keys)."""
    day = f"`{table.partition}`" if table.partition else "CAST(NULL AS DATE)"
    measures = {
        "lines": "count(*)",
        "first_mid": "min(_mid)",
        "unparsed": "count_if(_kind IS NULL)",
        "multi_line": "bool_or(_open)" if "_open" in staged.columns else "false",
        "records": f"count_if(_kind = {RECORD})",
        "rejected": f"count_if(_kind = {RECORD} AND _reasons IS NOT NULL)",
        "headers": f"count_if(_kind = {HEADER})",
        "other_headers": f"count_if(_kind = {OTHER_HEADER})",
        "low_day": f"min({day})",
        "high_day": f"max({day})",
    }
    numbers = []
    for name in [] if scratch.on_disk else table.key_columns:
        numbers.append(F.when(F.expr(VALID), integer_key(F.col(name))).alias(f"_n_{name}"))
        measures[f"low_{name}"] = f"min(`_n_{name}`)"
        measures[f"high_{name}"] = f"max(`_n_{name}`)"
        measures[f"texts_{name}"] = f"count_if({VALID} AND `_n_{name}` IS NULL)"
    lines = staged.select("*", *numbers)
    found = [F.expr(measure).alias(name) for name, measure in measures.items()]
    return lines.groupBy("_file", "_split").agg(*found)


def key_span(profiles: Sequence[Any], table: Table) -> dict[str, tuple[int, int]]:
    """Lowest and highest key of each key column whose keys are all plain integers."""
    spans = {}
    measured = [name for name in table.key_columns if profiles and f"low_{name}" in profiles[0]]
    for name in measured:
        counted = [row for row in profiles if row[f"low_{name}"] is not None]
        if counted and not any(row[f"texts_{name}"] for row in profiles):
            low = min(row[f"low_{name}"] for row in counted)
            spans[name] = (low, max(row[f"high_{name}"] for row in counted))
    return spans


def comes_by_day(profiles: Sequence[Any]) -> bool:
    """Whether the splits hold few days each, as one export a day does.

    Delta need not shuffle such a batch to write few files, a fifth of a first load's CPU.
    """
    spans = [(row["low_day"], row["high_day"]) for row in profiles if row["low_day"] is not None]
    lengths = [(high - low).days + 1 for low, high in spans]
    if not spans or max(lengths) > MAX_DATES:
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
# More columns of the job's own:
#   _late      BOOLEAN  a row that was parked in an earlier run; its _file is NULL
#   _source    STRUCT   of a late row: path, etag, size, modified (microseconds); NULL for a
#                       staged one
#   _replayed  BOOLEAN  from a file that the ledger knows, or outranked: it never wins a tie
#                       against the table
#   _standing  STRING   against the table's row of the key: absent, same, newer or older
#   _old_day   DATE     the partition in which the table holds the key now
#   _lacks     ARRAY    the parents that have not come, each `reason:key`
#   _beaten    BOOLEAN  a better row of the batch has the key
#   _outcome   STRING   one of OUTCOMES
# --------------------------------------------------------------------------------------------------
SOURCE_DDL = "struct<path:string,etag:string,size:bigint,modified:bigint>"
ABSENT, SAME, NEWER, OLDER = "absent", "same", "newer", "older"


@dataclass(frozen=True)
class Resolved:
    """The outcomes of one dataset.

    decided    rows with _outcome; the table's columns hold values where something is written
    appended   the table's columns of rows that are all inserted, and not in `decided`
    counts     file id -> rows by outcome, and `rows_read`
    admitted   outcomes of the rows that were parked before
    old_days   partitions that hold rows to be updated, '' for none
    accepted   keys (column `key`) that are in the table after the run, beside those before it
    """

    table: Table
    staged: StagedDataset
    decided: DataFrame | None
    appended: DataFrame | None
    counts: Mapping[str, Counter[str]]
    admitted: Counter[str]
    old_days: frozenset[str]
    accepted: DataFrame

    @property
    def totals(self) -> Counter[str]:
        """Rows by outcome, those of the files and those admitted, and rows_read."""
        return sum(self.counts.values(), Counter(self.admitted))

    @property
    def changes(self) -> DataFrame | None:
        """The rows to write, with the table's columns."""
        frames = [] if self.appended is None else [self.appended]
        if self.decided is not None:
            written = F.col("_outcome").isin(INSERTED, UPDATED)
            frames.append(self.decided.where(written).select(self.table.column_names))
        return union(frames) if frames else None


def resolve(staged: Staged, lake: Lake) -> dict[str, Resolved]:
    """Every dataset's outcomes, parents first; raises ConservationError where a row is lost."""
    return resolve_datasets(staged.datasets, lake, parked_rows(staged, lake["rejected_records"]))


def resolve_datasets(
    datasets: Mapping[str, StagedDataset], lake: Lake, parked: DataFrame | None
) -> dict[str, Resolved]:
    """The same, given the rows that wait for a parent."""
    done: dict[str, Resolved] = {}

    def resolve_table(table: Table) -> Resolved:
        return resolve_dataset(datasets[table.dataset], lake, parked, done)

    while len(done) < len(TABLES):
        left = [table for table in TABLES if table.dataset not in done]
        ready = [table for table in left if all(one.dataset in done for one in table.parents)]
        done |= {one.table.dataset: one for one in map_concurrently(resolve_table, ready)}
    for one in done.values():
        check_conservation(one)
    return {table.dataset: done[table.dataset] for table in TABLES}


def resolve_dataset(
    staged: StagedDataset, lake: Lake, parked: DataFrame | None, done: Mapping[str, Resolved]
) -> Resolved:
    """One dataset's outcomes.

    Of a large batch, most rows are certain: all new for a new table, or the same as in the table.
    Only the others are looked at one by one.
    """
    table, target = staged.table, lake[staged.table.name]
    late = late_rows(staged, parked, done)
    if staged.rows is None and late is None:
        return count_outcomes(staged, None, None, None)
    rows = candidates(staged, late)
    contested = contested_keys(rows, staged)
    referring = rows  # whose parents are asked for: all, or those of a large batch that are new
    rows = compare(rows, table, existing_rows(staged, rows, target, prune=late is None))
    certain = None
    if staged.large and target.exists:
        rows, certain = set_same_apart(rows, staged, contested)
        if sum(row["count"] for row in certain) == staged.valid_rows and late is None:
            return count_outcomes(staged, None, None, certain)
        referring = rows
    missing = {
        parent.column: missing_parents(parent, referring, staged, lake, done, late is None)
        for parent in table.parents
    }
    appended = None
    if staged.large and not target.exists:
        doubtful, appended = split_certain(rows, table, missing, contested, late)
        if doubtful is None:
            return count_outcomes(staged, None, staged.valid_values, None)
        rows, certain = doubtful, appended.groupBy("_file").count().collect()
    marked = mark_beaten(mark_missing(rows, table, missing), staged, contested)
    decided = staged.scratch.materialize(with_outcome(marked, table), "decided")
    return count_outcomes(staged, decided, appended, certain)


def candidates(staged: StagedDataset, late: DataFrame | None) -> DataFrame:
    """The valid staged rows and the late ones, as candidates for their keys."""
    known = [number for number, raw in staged.loaded.items() if raw.known]
    rows = staged.valid.select(
        "_file",
        "_line",
        F.lit(False).alias("_late"),
        F.lit(None).cast(SOURCE_DDL).alias("_source"),
        (F.col("_file").isin(known) if known else F.lit(False)).alias("_replayed"),
        *staged.table.column_names,
    )
    if staged.outranked is not None:
        earlier = F.broadcast(staged.outranked.withColumn("_earlier", F.lit(True)))
        rows = rows.join(earlier, ["_file", "_line"], how="left")
        lost = F.col("_replayed") | F.col("_earlier").isNotNull()
        rows = rows.withColumn("_replayed", lost).drop("_earlier")
    rows = rows if late is None else rows.unionByName(late)
    return rows if staged.large else staged.scratch.materialize(rows, "candidates")


# -- rows that wait for a parent -------------------------------------------------------------------
def parked_rows(staged: Staged, rejected: LakeTable) -> DataFrame | None:
    """Rows that wait for a parent, without those that this batch reads again; None for none."""
    files = rejected.log.files()
    partition = f"status={PARKED}/"
    if rejected.frame is None or (files is not None and not any(partition in one for one in files)):
        return None
    waiting = rejected.frame.where(F.col("status") == PARKED)
    return waiting.where(~in_batch(staged)).localCheckpoint(eager=False)


def in_batch(staged: Staged) -> SparkColumn:
    """Whether a row of rejected_records comes from a file of this batch."""
    loaded = [raw.stored for raw in staged.files if raw.outcome == "loaded"]
    place = F.concat_ws("\n", "file_path", "file_etag")
    return place.isin([f"{one.name}\n{one.etag}" for one in loaded]) if loaded else F.lit(False)


def late_rows(
    staged: StagedDataset, parked: DataFrame | None, done: Mapping[str, Resolved]
) -> DataFrame | None:
    """Parked rows whose key, or whose parent, this batch brings, as candidates; None for none."""
    table = staged.table
    if not table.parents or parked is None:
        return None
    source = F.struct(*FILE_IDENTITY, F.unix_micros("file_modified"))
    waiting = parked.where(F.col("dataset") == table.dataset).select(
        F.lit(None).cast("int").alias("_file"),
        F.col("line").alias("_line"),
        F.lit(True).alias("_late"),
        source.cast(SOURCE_DDL).alias("_source"),
        F.lit(False).alias("_replayed"),
        *fields_of(table),
    )
    arrivals = {table.key: staged.valid_values.select(table.key)}
    for parent in table.parents:
        arrivals[parent.column] = done[parent.dataset].accepted.withColumnRenamed(
            "key", parent.column
        )
    concerned = union(
        [
            waiting.join(keys, name, how="left_semi").select(table.key)
            for name, keys in arrivals.items()
        ]
    )
    late = waiting.join(concerned.distinct(), table.key, how="left_semi")
    late = late.localCheckpoint(eager=False)
    return None if late.isEmpty() else late


# -- parents ---------------------------------------------------------------------------------------
def missing_parents(
    parent: Parent,
    rows: DataFrame,
    staged: StagedDataset,
    lake: Lake,
    done: Mapping[str, Resolved],
    prune: bool,
) -> DataFrame | None:
    """Parents' keys, in the column of the reference, that rows refer to and that have not come.

    None where a large batch is known to lack none.
    """
    name, brought = parent.column, done[parent.dataset]
    key = brought.table.key
    referenced = rows.select(name).distinct()
    existing = brought.accepted.select(F.col("key").alias(name))
    table = lake[brought.table.name].frame
    if table is not None:
        pruned = table.where(within(key, staged.key_span.get(name) if prune else None))
        existing = existing.unionByName(pruned.select(F.col(key).alias(name)))
    if not staged.large:
        existing = F.broadcast(existing.join(F.broadcast(referenced), name, how="left_semi"))
        return F.broadcast(referenced.join(existing, name, how="left_anti"))
    return few_or_none(referenced.join(existing, name, how="left_anti"))


def few_or_none(keys: DataFrame) -> DataFrame | None:
    """Keys computed once: None where there are none, to be broadcast where there are few."""
    keys = keys.localCheckpoint(eager=False)
    count = keys.count()
    return (F.broadcast(keys) if count <= BROADCAST_ROWS else keys) if count else None


def within(column: str, span: tuple[int, int] | None) -> SparkColumn:
    """A condition with literals, by which Delta skips files; true where the span is not known.

    Numbers of equal length sort as their text does, so it takes one range of text for each length.
    """
    if span is None:
        return F.lit(True)
    low, high = span
    ranges = []
    for digits in range(len(str(low)), len(str(high)) + 1):
        least = 10 ** (digits - 1) if digits > 1 else 0
        ranges.append((str(max(low, least)), str(min(high, 10**digits - 1))))
    return any_of(F.col(column).between(*one) for one in ranges)


def mark_missing(
    rows: DataFrame, table: Table, missing: Mapping[str, DataFrame | None]
) -> DataFrame:
    """Add _lacks: the parents of a row that have not come, each as `reason:key`."""
    kept, codes = rows.columns, []
    for parent in table.parents:
        keys = missing[parent.column]
        if keys is not None:
            flag = f"_no_{parent.column}"
            rows = rows.join(keys.withColumn(flag, F.lit(True)), parent.column, how="left")
            code = F.concat_ws(":", F.lit(parent.reason), F.col(parent.column))
            codes.append(F.when(F.col(flag), code))
    lacks = F.filter(F.array(*codes), lambda code: code.isNotNull()) if codes else F.array()
    return rows.select(*kept, lacks.cast("array<string>").alias("_lacks"))


# -- rows of one batch against each other ----------------------------------------------------------
def contested_keys(rows: DataFrame, staged: StagedDataset) -> DataFrame | None:
    """Keys that more than one row of a large batch has; None where there is none."""
    table = staged.table
    if not staged.large or all_different(rows, table):
        return None
    counted = rows.groupBy(table.key).agg(F.count(F.lit(1)).alias("_rows"))
    return few_or_none(counted.where("_rows > 1").select(table.key))


def all_different(rows: DataFrame, table: Table) -> bool:
    """Whether integer keys are all different, by one bit for each: a quarter of a groupBy's CPU.

    False where a key is no integer, or comes twice.
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
    )
    told = found.first()
    return told is not None and told["texts"] == 0 and told["keys"] == told["rows"]


def split_certain(
    rows: DataFrame,
    table: Table,
    missing: Mapping[str, DataFrame | None],
    contested: DataFrame | None,
    late: DataFrame | None,
) -> tuple[DataFrame | None, DataFrame]:
    """Of a large batch for a table that does not exist yet: rows to decide, rows all inserted.

    A row is certain where its key comes once and its parents are there.
    """
    doubtful = [one.select(table.key) for one in (contested, late) if one is not None]
    for parent in table.parents:
        keys = missing[parent.column]
        if keys is not None:
            doubtful.append(rows.join(keys, parent.column, how="left_semi").select(table.key))
    found = few_or_none(union(doubtful).distinct()) if doubtful else None
    if found is None:
        return None, rows
    certain = rows.join(found, table.key, how="left_anti")
    return rows.join(found, table.key, how="left_semi"), certain


def mark_beaten(rows: DataFrame, staged: StagedDataset, contested: DataFrame | None) -> DataFrame:
    """Add _beaten: a row of higher precedence has the key, and waits for no other parent."""
    table, kept, apart = staged.table, rows.columns, None
    if staged.large:
        apart = rows.withColumn("_beaten", F.lit(False))
        if contested is None:
            return apart
        apart = apart.join(contested, table.key, how="left_anti")
        rows = rows.join(contested, table.key, how="left_semi")
    order = [F.col(table.version).desc()] if table.version else []
    order += [
        F.col("_replayed").asc(),
        F.coalesce("_source.modified", F.unix_micros("file_modified")).desc(),
        F.coalesce("_source.path", "file_path").desc(),
        F.col("_line").desc(),
    ]
    versions = Window.partitionBy(table.key).orderBy(*order)
    rows = rows.join(staged.sources, "_file", how="left")
    if table.parents:
        better = versions.rowsBetween(Window.unboundedPreceding, -1)
        rows = rows.withColumn("_better", F.collect_set("_lacks").over(better))
        covered = F.exists("_better", lambda one: F.size(F.array_except(one, F.col("_lacks"))) == 0)
        rows = rows.withColumn("_beaten", covered)
    else:
        rows = rows.withColumn("_beaten", F.row_number().over(versions) > 1)
    rows = rows.select(*kept, "_beaten")
    return rows if apart is None else rows.unionByName(apart)


# -- rows against the table ------------------------------------------------------------------------
def existing_rows(
    staged: StagedDataset, rows: DataFrame, target: LakeTable, prune: bool
) -> DataFrame | None:
    """The table's rows with the keys of the batch, and perhaps others; None without a table."""
    if target.frame is None:
        return None
    key = staged.table.key
    existing = target.frame.where(within(key, staged.key_span.get(key) if prune else None))
    if staged.large:
        return existing
    keys = F.broadcast(rows.select(key).distinct())
    return F.broadcast(existing.join(keys, key, how="left_semi"))


def compare(rows: DataFrame, table: Table, existing: DataFrame | None) -> DataFrame:
    """Add _standing and _old_day, by the table's rows."""
    if existing is None:
        no_day = F.lit(None).cast("date").alias("_old_day")
        return rows.select("*", F.lit(ABSENT).alias("_standing"), no_day)
    same_key = F.col(f"s.{table.key}") == F.col(f"t.{table.key}")
    joined = rows.alias("s").join(existing.alias("t"), same_key, how="left")
    wins = ~F.col("s._replayed")
    if table.version:
        new, old = F.col(f"s.{table.version}"), F.col(f"t.{table.version}")
        wins = (new > old) | ((new == old) & wins)
    standing = (
        F.when(F.col(f"t.{table.key}").isNull(), ABSENT)
        .when(same_values(table, "s", "t"), SAME)
        .when(wins, NEWER)
        .otherwise(OLDER)
    )
    old_day = F.col(f"t.{table.partition}") if table.partition else F.lit(None).cast("date")
    return joined.select("s.*", standing.alias("_standing"), old_day.alias("_old_day"))


def set_same_apart(
    rows: DataFrame, staged: StagedDataset, contested: DataFrame | None
) -> tuple[DataFrame, list[Any]]:
    """Of a large batch's compared rows those to decide, and `count` by `_file` of the others.

    The others are as in the table, and no other row of the batch has their key. Their values are
    left out of what is kept, since nothing will be written.
    """
    key = staged.table.key
    certain = (F.col("_standing") == SAME) & ~F.col("_late")
    if contested is not None:
        rows = rows.join(contested.withColumn("_twice", F.lit(True)), key, how="left")
        certain &= F.col("_twice").isNull()
    rows = rows.withColumn("_certain", certain).drop("_twice")
    rows = keep_values(rows, staged.table, ~F.col("_certain"))
    rows = staged.scratch.materialize(rows, "compared")
    counts = rows.where("_certain").groupBy("_file").count().collect()
    return rows.where("NOT _certain").drop("_certain"), counts


def with_outcome(rows: DataFrame, table: Table) -> DataFrame:
    """Add _outcome; the values are left out of rows for which nothing is written."""
    parked, standing = F.size("_lacks") > 0, F.col("_standing")
    outcome = (
        F.when(F.col("_beaten"), SUPERSEDED)
        .when(parked & standing.isin(ABSENT, NEWER), PARKED)
        .when(standing == ABSENT, INSERTED)
        .when(standing == SAME, UNCHANGED)
        .when(standing == NEWER, UPDATED)
        .otherwise(SUPERSEDED)
    )
    rows = rows.withColumn("_outcome", outcome)
    return keep_values(rows, table, F.col("_outcome").isin(INSERTED, UPDATED, PARKED))


# -- counts ----------------------------------------------------------------------------------------
def count_outcomes(
    staged: StagedDataset,
    decided: DataFrame | None,
    appended: DataFrame | None,
    certain: Sequence[Any] | None,
) -> Resolved:
    """Count the outcomes by file.

    appended  rows that are all inserted
    certain   `count` of the appended rows by `_file`, or without those of the unchanged ones; None
              where all valid rows are appended
    """
    table, loaded = staged.table, staged.loaded
    counts = {
        file: Counter({"rows_read": one.rows, REJECTED: one.rejected})
        for file, one in staged.counts.items()
    }
    if appended is not None and certain is None:
        for file, one in staged.counts.items():
            counts[file][INSERTED] = one.rows - one.rejected
    for row in certain or ():
        outcome = UNCHANGED if appended is None else INSERTED
        counts[loaded[row["_file"]].id][outcome] += row["count"]
    admitted, old_days = Counter[str](), set()
    for row in _groups(decided):
        old_days |= set(row["old_days"])
        if not row["_late"]:
            counts[loaded[row["_file"]].id][row["_outcome"]] += row["rows"]
        elif row["_outcome"] != PARKED:
            admitted[row["_outcome"]] += row["rows"]
    keys = accepted_keys(staged, decided, appended)
    names = table.column_names
    appended = None if appended is None else appended.select(names)
    return Resolved(table, staged, decided, appended, counts, admitted, frozenset(old_days), keys)


def accepted_keys(
    staged: StagedDataset, decided: DataFrame | None, appended: DataFrame | None
) -> DataFrame:
    """Keys (column `key`) that the batch brings into the table, or that are there already."""
    key = F.col(staged.table.key).alias("key")
    frames = [staged.valid_values.select(key)]
    if staged.table.parents:  # a row may still wait for its own
        frames = [] if appended is None else [appended.select(key)]
        if decided is not None:
            frames.append(decided.where(F.col("_outcome").isin(INSERTED, UPDATED)).select(key))
    return union(frames) if frames else staged.valid_values.select(key).limit(0)


def _groups(decided: DataFrame | None) -> list[Any]:
    """Rows by file, _late and outcome, and the days in which the table holds those to update."""
    if decided is None:
        return []
    day = F.coalesce(F.col("_old_day").cast("string"), F.lit(""))
    old_days = F.collect_set(F.when(F.col("_outcome") == UPDATED, day)).alias("old_days")
    groups = decided.groupBy("_file", "_late", "_outcome")
    return groups.agg(F.count(F.lit(1)).alias("rows"), old_days).collect()


def check_conservation(resolved: Resolved) -> None:
    """Raise where the rows of a file are not the sum of their outcomes."""
    for raw in resolved.staged.loaded.values():
        counts = resolved.counts[raw.id]
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


def stamp(arguments: JobArguments, **more: Any) -> str:
    """What a commit's userMetadata says of the run that made it."""
    return json.dumps({"run_id": arguments.run_id, **more})


def publish(
    arguments: JobArguments,
    staged: Staged,
    resolved: Mapping[str, Resolved],
    lake: Lake,
    timed: Timings,
) -> Published:
    """rejects -> the tables, parents first -> settled parked rows."""
    ids = [raw.id for raw in staged.files if raw.outcome == "loaded"]
    seen = seen_before(staged, lake["rejected_records"], ids)
    with timed("committed rejected_records"):
        published = write_rejects(arguments, staged, resolved, lake["rejected_records"], seen, ids)
    for one in resolved.values():
        with timed(f"committed {one.table.name}"):
            commit(one, lake[one.table.name], stamp(arguments))
    with timed("settled parked rows"):
        settle_parked(arguments, staged, resolved, lake["rejected_records"], seen)
    return published


def seen_before(staged: Staged, rejected: LakeTable, ids: Sequence[str]) -> bool:
    """Whether a file of this batch may have rows in rejected_records from an earlier run."""
    recorded, whole = rejected.log.file_ids()
    again = bool(recorded & set(ids)) or any(
        raw.known for raw in staged.files if raw.outcome == "loaded"
    )
    return rejected.exists and (not whole or again)


# -- rejected rows ---------------------------------------------------------------------------------
def rejects_of(resolved: Resolved, run_id: str) -> list[DataFrame]:
    """Rejected and newly parked rows of a dataset, in the shape of rejected_records."""
    staged, table, frames = resolved.staged, resolved.table, []
    if resolved.totals[REJECTED]:
        bad = (F.col("_kind") == RECORD) & F.col("_reasons").isNotNull()
        frames.append(reject_rows(staged.numbered.where(bad), resolved, run_id, REJECTED))
    if any(staged.counts[raw.id].headers > 1 for raw in staged.loaded.values()):
        nth = F.row_number().over(Window.partitionBy("_file").orderBy("_line"))
        headers = staged.numbered.where(F.col("_kind") == HEADER).withColumn("_nth", nth)
        told = {"_reasons": F.array(F.lit("repeated_header")), table.key: F.lit(None)}
        again = headers.where("_nth > 1").withColumns(told)
        frames.append(reject_rows(again, resolved, run_id, REJECTED))
    if any(count[PARKED] for count in resolved.counts.values()) and resolved.decided is not None:
        waiting = resolved.decided.where((F.col("_outcome") == PARKED) & ~F.col("_late"))
        waiting = waiting if staged.large else F.broadcast(waiting)
        waiting = staged.valid.select("_file", "_line", "_raw").join(waiting, ["_file", "_line"])
        waiting = waiting.withColumns({"_fields": texts_of(table), "_reasons": reasons_to_wait()})
        frames.append(reject_rows(waiting, resolved, run_id, PARKED))
    return frames


def reasons_to_wait() -> SparkColumn:
    """The reasons in _lacks, without the keys of the parents."""
    return F.transform("_lacks", lambda one: F.substring_index(one, ":", 1))


def reject_rows(rows: DataFrame, resolved: Resolved, run_id: str, status: str) -> DataFrame:
    """Rows with _reasons and _fields in the shape of rejected_records."""
    table = resolved.table

    def text_of(name: str) -> SparkColumn:
        known = name in table.column_names
        return F.col("_fields").getItem(name) if known else F.lit(None).cast("string")

    raw = line_text()
    as_bytes = F.decode(raw.cast("binary"), "ISO-8859-1")  # a character for each byte
    readable = F.when(valid_utf8(raw), raw).otherwise(as_bytes)
    return rows.join(resolved.staged.sources, "_file").select(
        F.lit(run_id).alias("run_id"),
        F.lit(table.dataset).alias("dataset"),
        F.lit(status).alias("status"),
        F.col("_reasons").alias("reasons"),
        F.coalesce(F.col(table.key), text_of(table.key)).alias("record_key"),
        text_of("order_id").alias("order_id"),
        text_of("product_id").alias("product_id"),
        *FILE_COLUMNS,
        F.col("_line").alias("line"),
        readable.alias("raw"),
        F.col("_fields").alias("fields"),
        F.lit(None).cast("string").alias("resolved_run_id"),
    )


def write_rejects(
    arguments: JobArguments,
    staged: Staged,
    resolved: Mapping[str, Resolved],
    rejected: LakeTable,
    seen: bool,
    ids: Sequence[str],
) -> Published:
    """Append the rejected and newly parked rows that are not recorded yet; count their reasons."""
    frames = [frame for one in resolved.values() for frame in rejects_of(one, arguments.run_id)]
    if not frames:
        if not rejected.exists:
            rejected.append_records([], REJECTED_DDL, stamp(arguments), "status")
        return Published({}, ())
    rows = union(frames).localCheckpoint(eager=False)
    published = count_reasons(rows)
    if seen and rejected.frame is not None:
        recorded = rejected.frame.where(in_batch(staged)).select(*ROW_IDENTITY)
        rows = rows.join(recorded, ROW_IDENTITY, how="left_anti").select(rows.columns)
        rows = rows.localCheckpoint(eager=False)
        if rows.isEmpty():
            return published
    rejected.append(rows, stamp(arguments, files=ids), "status")
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
    examples = [
        {
            "dataset": group["dataset"],
            "reason": group["reason"],
            "rows": group["rows"],
            "file_path": group["first"]["file_path"][:TEXT_LIMIT],
            "line": group["first"]["line"],
            "raw": group["first"]["raw"],
        }
        for group in groups
    ]
    return Published(reasons, shown_examples(examples))


def shown_examples(examples: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The examples of the commonest reasons, in their order, as many as EXAMPLE_BYTES hold."""
    common, left = set(), EXAMPLE_BYTES
    for place, one in sorted(enumerate(examples), key=lambda pair: -pair[1]["rows"]):
        left -= len(json.dumps(one, ensure_ascii=False).encode("utf-8"))
        if left >= 0:
            common.add(place)
    return tuple(one for place, one in enumerate(examples) if place in common)


# -- the tables ------------------------------------------------------------------------------------
def commit(resolved: Resolved, target: LakeTable, stamp_text: str) -> None:
    """Write what changed in one commit: an append where all rows are new, else a MERGE; nothing
    where nothing changed."""
    table, changes, totals = resolved.table, resolved.changes, resolved.totals
    inserted, updated = totals[INSERTED], totals[UPDATED]
    if changes is None or not (inserted or updated):
        if not target.exists:
            empty = local_frame(target.spark, [], table.ddl)
            target.append(empty, stamp_text, table.partition, **first_options(table))
    elif updated:
        target.merge(changes, same_key(resolved), merge_clauses(table), stamp_text)
    else:
        options = {} if target.exists else first_options(table)
        if resolved.staged.by_day and resolved.decided is None:
            options["optimizeWrite"] = "false"
        target.append(changes, stamp_text, table.partition, **options)
    reconcile(target, inserted, updated)


def first_options(table: Table) -> dict[str, str]:
    return {"delta.dataSkippingStatsColumns": table.statistics}


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
    table, days = resolved.table, resolved.old_days
    condition = f"t.`{table.key}` = s.`{table.key}`"
    if table.partition and "" not in days and len(days) <= MAX_DATES:
        literals = ", ".join(f"DATE '{day}'" for day in sorted(days))
        condition += f" AND t.`{table.partition}` IN ({literals})"
    return condition


def reconcile(target: LakeTable, inserted: int, updated: int) -> None:
    """Hold the commit's own metrics against the resolved counts."""
    commits = target.log.commits(after=target.before)
    writes = [one for one in commits if one.operation in ("WRITE", "MERGE")]
    metrics = writes[0].metrics if writes else {}
    new_rows = metrics.get("numTargetRowsInserted", metrics.get("numOutputRows", 0))
    wrote = (int(new_rows), int(metrics.get("numTargetRowsUpdated", 0)))
    if wrote != (inserted, updated):
        raise ConservationError(
            f"{target.path}: {inserted} rows were to be inserted and {updated} updated, but Delta "
            f"wrote {wrote[0]} and {wrote[1]}"
        )


def settle_parked(
    arguments: JobArguments,
    staged: Staged,
    resolved: Mapping[str, Resolved],
    rejected: LakeTable,
    seen: bool,
) -> None:
    """Mark the parked rows that were admitted or superseded.

    It comes after the commits of their tables, so that none can be lost.
    """
    frames = []
    for one in resolved.values():
        if one.admitted and one.decided is not None:
            left = one.decided.where(F.col("_late") & (F.col("_outcome") != PARKED))
            status = F.when(F.col("_outcome") == SUPERSEDED, SUPERSEDED).otherwise(ADMITTED)
            identity = ("_source.path", "_source.etag", "_source.size", "_line")
            named = [F.col(n).alias(to) for n, to in zip(identity, ROW_IDENTITY, strict=True)]
            frames.append(left.select(*named, status.alias("status")))
    if seen and rejected.frame is not None:
        frames.append(_read_again(staged, resolved, rejected.frame))
    settled = union(frames).localCheckpoint(eager=False) if frames else None
    if settled is None or settled.isEmpty():
        return
    same = " AND ".join(f"t.{name} = s.{name}" for name in ROW_IDENTITY)
    clauses = (
        "WHEN MATCHED THEN UPDATE SET t.status = s.status, "
        f"t.resolved_run_id = '{arguments.run_id}'"
    )
    rejected.merge(settled, f"t.status = '{PARKED}' AND {same}", clauses, stamp(arguments))


def _read_again(staged: Staged, resolved: Mapping[str, Resolved], recorded: DataFrame) -> DataFrame:
    """Parked rows of files that this batch reads again and that are not parked once more."""
    rows = recorded.where((F.col("status") == PARKED) & in_batch(staged)).select(*ROW_IDENTITY)
    for one in resolved.values():
        if one.table.parents and one.decided is not None:
            again = one.decided.where((F.col("_outcome") == PARKED) & ~F.col("_late"))
            again = again.join(one.staged.sources, "_file")
            places = again.select("file_path", F.col("_line").alias("line"))
            rows = rows.join(places, ["file_path", "line"], how="left_anti")
    return rows.select(*ROW_IDENTITY, F.lit(ADMITTED).alias("status"))


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
    counts = {file: count for one in resolved.values() for file, count in one.counts.items()}
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
        told = map_concurrently(lambda name: lake[name].summary(), names)
        summary["tables"] = dict(zip(names, told, strict=True))
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
        **{name: totals[name] for name in OUTCOMES},
    }
    if numbers["rows_read"] + numbers["admitted"] != sum(numbers[name] for name in OUTCOMES):
        raise ConservationError(
            f"{resolved.table.dataset}: rows_read + admitted differ from the sum of the outcomes: "
            f"{numbers}"
        )
    return {**numbers, "rejected_by_reason": dict(sorted(reasons.items()))}


FILE_OUTCOMES = ("loaded", "duplicate", "set_aside", "changed", "unreadable")
RECORDED = ("loaded", "set_aside", "unreadable")  # what the ledger has of files


def write_ledger(
    arguments: JobArguments,
    files: Sequence[RawFile],
    counts: Mapping[str, Counter[str]],
    ledger: LakeTable,
) -> None:
    """The files of this run by path, content and size: from here on they are known."""
    now = dt.datetime.now(dt.UTC).isoformat()
    new = [raw for raw in files if not raw.known and raw.outcome in RECORDED]
    rows = [
        {
            "run_id": arguments.run_id,
            "dataset": raw.dataset,
            **raw.source,
            "outcome": raw.outcome,
            "reason": raw.reason,
            "ingested_at": now,
            **{name: counts.get(raw.id, Counter())[name] for name in ("rows_read", *OUTCOMES)},
        }
        for raw in new
    ]
    if rows or not ledger.exists:
        ids = [raw.id for raw in new]
        ledger.append_records(rows, LEDGER_DDL, stamp(arguments, files=ids))


def write_run(
    arguments: JobArguments,
    started: dt.datetime,
    summary: Mapping[str, Any],
    runs: LakeTable,
    operation: str = "load",
) -> None:
    """One row of `etl_runs`, with the version of each table after the run.

    None where a run of this id has written its row already.
    """
    if arguments.run_id in runs.log.run_ids(MAX_LOG_COMMITS):
        return
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
    runs.append_records([row], RUNS_DDL, stamp(arguments))


def manifest(store: Storage, files: Sequence[RawFile], counts: Mapping[str, Counter[str]]) -> str:
    """One JSON line for each file listed, in the order of delivery."""
    lines = [
        {
            "bucket": store.bucket,
            "key": store.key(raw.stored.name),
            "path": raw.stored.name,
            "etag": raw.stored.etag,
            "size": raw.stored.size,
            "last_modified": iso(raw.stored.modified),
            "dataset": raw.dataset,
            "outcome": raw.outcome,
            "reason": raw.reason,
            "detail": raw.detail,
            "rows_read": counts.get(raw.id, Counter())["rows_read"],
            "ignored_columns": list(raw.ignored_columns),
            "destination": raw.destination,
        }
        for raw in files
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
    zero = {"rows_read": 0, "admitted": 0, **dict.fromkeys(OUTCOMES, 0), "rejected_by_reason": {}}
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
    counts: Mapping[str, Counter[str]] = {},
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
def intent_of_killed(arguments: JobArguments) -> dict[str, Any] | None:
    """The intent that an operation has left in the ledger's log; None where none was killed.

    An intent is a commit without rows whose stamp says `before` and `to`, the versions of the
    tables (-1 where there was none), and of a rollback `run`, its row for `etl_runs`. It holds
    until that row is written or a later commit says `closed`.
    """
    log = DeltaLog(arguments.path_of("ingested_files"))
    latest = None
    for version in reversed(log.versions()):
        said = log.commit(version).stamp
        latest = latest or said.get("run_id")
        if said and (said.get("run_id") != latest or "closed" in said):
            return None
        if "to" in said:
            done = DeltaLog(arguments.path_of("etl_runs")).run_ids(MAX_LOG_COMMITS)
            return None if latest in done else said
    return None


def bare_table(spark: SparkSession, path: str) -> LakeTable:
    """A table by its log alone, its rows not looked at."""
    log = DeltaLog(path)
    return LakeTable(spark, path, log, log.latest(), None)


def finish_killed_operation(arguments: JobArguments, session: Callable[[], SparkSession]) -> None:
    """Finish a killed rollback, or take back what another operation has written.

    Every step can be repeated.
    """
    intent = intent_of_killed(arguments)
    if intent is None:
        return
    spark, rollback = session(), intent.get("run")
    tables = {name: bare_table(spark, arguments.path_of(name)) for name in intent["to"]}

    def go_back(name: str) -> None:
        tables[name].go_back(intent["to"][name])
        progress(f"restored {name}")

    with settings(spark, {COMMIT_STAMP: json.dumps({"run_id": intent["run_id"]})}):
        map_concurrently(go_back, tables)
    if rollback:
        finish_rollback(arguments, spark, intent)
        return
    closed = json.dumps({"run_id": intent["run_id"], "closed": True})
    tables["ingested_files"].append_nothing(LEDGER_DDL, closed)
    progress("closed the operation")


def finish_rollback(
    arguments: JobArguments, spark: SparkSession, intent: Mapping[str, Any]
) -> None:
    """The row of a rollback in `etl_runs`: from here on it is done."""
    run, before = intent["run"], intent["before"]
    summary = dict(run["summary"])
    paths = {name: arguments.path_of(name) for name in before}
    summary["tables"] = {
        name: LakeTable(spark, path, DeltaLog(path), before[name], None).summary()
        for name, path in paths.items()
    }
    runs = bare_table(spark, arguments.path_of("etl_runs"))
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
    with timed("discovered"):
        finish_killed_operation(arguments, lambda: spark_session(local=arguments.local))
        found = discover(arguments, lambda: spark_session(local=arguments.local))
    if not found.anything_new:
        summary = summary_of(arguments, timed, found.files, "NOTHING_NEW")
        return finish(arguments, summary, found.files)
    with timed("Spark started"):
        spark = spark_session(found.text_bytes, arguments.local)
    with timed("tables opened"):
        lake = open_lake(spark, arguments)
    try:
        with settings(spark, plans(lake, found.large)):
            with timed("staged"):
                staged = stage(spark, arguments, found)
            with timed("resolved"):
                resolved = resolve(staged, lake)
        published = publish(arguments, staged, resolved, lake, timed)
    finally:
        storage(arguments.scratch_path).remove("run=")  # and what a killed run has left
    return record(arguments, staged, resolved, published, lake, timed)


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
