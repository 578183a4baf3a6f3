"""The job `Lakehouse`: raw CSV exports become three trusted Delta tables.

Inputs    every file below RAW_PATH: products, orders and order items as `.csv` or `.csv.gz`, in any order, late, twice or broken.
Outputs   three Delta tables below LAKEHOUSE_PATH (`TABLES` declares them), the Delta tables `ingested_files` (the ledger) and
          `etl_runs` beside them, `rejected_records` below REJECTED_PATH, and RUNS_PATH/<run id>/{manifest.jsonl,summary.json}.

Guarantees
  Conservation   rows_read + admitted = inserted + updated + unchanged + superseded + rejected + parked, for every file; where it
                 does not hold the run fails before the ledger commits, and its files stay in the raw zone.
  Invariance     the tables depend on what was delivered and in which order, not on how deliveries fell into runs or were repeated.
  Late parents   an order item whose order or product has not come is parked, and admitted by itself in the run that brings it.
  Repetition     the success markers (ledger, then manifest and summary) are written last; every step before can be repeated.

Which row wins: a row's precedence is (order_timestamp, delivery), a delivery being (LastModified, path, position in the file). A
table holds for each key the row of highest precedence among those whose parents have come.

Arguments  --RAW_PATH --LAKEHOUSE_PATH --REJECTED_PATH --RUNS_PATH (each `s3://bucket/prefix/` or a folder) --RUN_ID [--FORCE true]
Exit codes 0 done, or nothing new (then no Spark is started); 1 failed, with the cause in summary.json; 2 a wrong argument.
"""

from __future__ import annotations

import argparse
import builtins
import concurrent.futures
import csv
import datetime as dt
import functools
import hashlib
import io
import json
import os
import re
import string
import sys
import time
import traceback
import urllib.parse
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

# ---------------------------------------------------------------------------------------------------------------------
# Reason codes: why a row, or a whole file, is not in a table
# ---------------------------------------------------------------------------------------------------------------------
ROW_REASONS = {
    "too_few_fields": "the row has fewer fields than the header of its file",
    "too_many_fields": "the row has more fields than the header of its file",
    "unclosed_quote": "a quoted field is not closed, or text follows its closing quote",
    "invalid_utf8": "the row holds bytes that are not UTF-8",
    "repeated_header": "the header of the file stands once more among its rows",
    "missing_<column>": "a key, a parent's key or the order timestamp is blank",
    "invalid_<column>": "the value cannot be read as the column's type, or does not fit in it",
    "ambiguous_<column>": "a date such as 01/04/2025, which could mean two days; write 2025-04-01",
    "date_mismatch": "the date is neither the timestamp's date as written nor its date in UTC",
    "orphan_order": "parked: the order of this item has not come yet",
    "orphan_product": "parked: the product of this item has not come yet",
}
FILE_REASONS = {
    "unknown_dataset": "the path names no dataset: start it with products, orders or order_items and end it with .csv or .csv.gz",
    "empty_file": "the file holds no text",
    "no_header": "the first line names no column of the dataset",
    "missing_column": "the header lacks a column",
    "duplicate_column": "the header names a column twice",
    "utf16": "the file is UTF-16 or UTF-32: save it as UTF-8",
    "binary": "the file is not text",
    "gzip_name": "Spark 3.5 unpacks files only whose names end with .gz in lower case: rename it, or use Glue 6.0",
    "truncated_gzip": "the gzip stream ends too early or is damaged: upload the file again",
}
INSERTED, UPDATED, UNCHANGED, SUPERSEDED, REJECTED, PARKED = OUTCOMES = (
    "inserted",
    "updated",
    "unchanged",
    "superseded",
    "rejected",
    "parked",
)


# ---------------------------------------------------------------------------------------------------------------------
# The tables: the customer's schema. A new column, rule or dataset is a few lines here and nowhere else
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Column:
    """One column of a table: its name, its Spark SQL type and what it means.

    required    a blank value rejects the row
    identifier  a text that names something: an integer that a spreadsheet wrote as `123.0` is `123`
    varied      most values are different: files get no dictionary of them
    """

    name: str
    type: str
    meaning: str
    required: bool = False
    identifier: bool = False
    varied: bool = False


@dataclass(frozen=True)
class Parent:
    """A reference: `column` holds a key of `dataset`; a row without it is parked with `reason`."""

    column: str
    dataset: str
    reason: str


@dataclass(frozen=True)
class Rule:
    """A check on a typed row; `broken(text_of, value_of)` is true where the row is to be rejected with `reason`."""

    reason: str
    broken: Callable[[Callable[[str], SparkColumn], Callable[[str], SparkColumn]], SparkColumn]


@dataclass(frozen=True)
class Table:
    """A Delta table and the dataset of raw files that feeds it; `version` orders the versions of one key."""

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
    def statistics(self) -> str:
        """Columns with file statistics, by which files are skipped."""
        return ",".join(name for name in (self.key, self.version) if name)

    @property
    def keys(self) -> list[str]:
        """The key and the columns that hold parents' keys."""
        return [self.key, *(parent.column for parent in self.parents)]


def _date_mismatch(
    text: Callable[[str], SparkColumn], value: Callable[[str], SparkColumn]
) -> SparkColumn:
    written = F.substring(text("order_timestamp"), 1, 10)
    other_text = ~text("order_timestamp").startswith(
        text("date")
    )  # nearly all rows end here, at little cost
    return (
        other_text
        & (value("date") != try_cast(written, "date"))
        & (value("date") != F.to_date(value("order_timestamp")))
    )


DATE_RULE = Rule("date_mismatch", _date_mismatch)

PRODUCTS = Table(
    dataset="products",
    name="clean_products",
    key="product_id",
    columns=(
        Column(
            "product_id",
            "STRING",
            "the shop's number of the product",
            required=True,
            identifier=True,
            varied=True,
        ),
        Column(
            "department_id",
            "STRING",
            "number of the department; independent of its name",
            identifier=True,
        ),
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
        Column("order_id", "STRING", "the order", required=True, identifier=True, varied=True),
        Column("user_id", "STRING", "the customer", identifier=True, varied=True),
        Column(
            "order_timestamp",
            "TIMESTAMP",
            "when the order was placed, UTC",
            required=True,
            varied=True,
        ),
        Column(
            "total_amount",
            "DOUBLE",
            "sum of the order in the shop's currency; negative for a refund",
        ),
        Column(
            "date", "DATE", "day of the order; taken from the timestamp in UTC where it is blank"
        ),
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
        Column("id", "STRING", "the line of an order", required=True, identifier=True, varied=True),
        Column(
            "order_id",
            "STRING",
            "the order it belongs to",
            required=True,
            identifier=True,
            varied=True,
        ),
        Column("user_id", "STRING", "the customer", identifier=True, varied=True),
        Column("days_since_prior_order", "INT", "days since the customer's order before"),
        Column("product_id", "STRING", "the product bought", required=True, identifier=True),
        Column("add_to_cart_order", "INT", "position in the cart, from 1"),
        Column("reordered", "BOOLEAN", "whether the customer had bought the product before"),
        Column(
            "order_timestamp",
            "TIMESTAMP",
            "when the order was placed, UTC",
            required=True,
            varied=True,
        ),
        Column(
            "date", "DATE", "day of the order; taken from the timestamp in UTC where it is blank"
        ),
    ),
    parents=(
        Parent("order_id", "orders", "orphan_order"),
        Parent("product_id", "products", "orphan_product"),
    ),
    rules=(DATE_RULE,),
)
TABLES = (PRODUCTS, ORDERS, ORDER_ITEMS)  # in the order in which they are loaded

REJECTED_DDL = (
    "run_id STRING, dataset STRING, status STRING, reasons ARRAY<STRING>, record_key STRING, order_id STRING, product_id STRING, "
    "file_path STRING, file_etag STRING, file_size BIGINT, file_modified TIMESTAMP, line BIGINT, raw STRING, "
    "fields MAP<STRING, STRING>, resolved_run_id STRING"
)
LEDGER_DDL = (
    "run_id STRING, dataset STRING, file_path STRING, file_etag STRING, file_size BIGINT, file_modified TIMESTAMP, outcome STRING, "
    "reason STRING, rows_read BIGINT, inserted BIGINT, updated BIGINT, unchanged BIGINT, superseded BIGINT, rejected BIGINT, "
    "parked BIGINT, ingested_at TIMESTAMP"
)
RUNS_DDL = (
    "run_id STRING, operation STRING, status STRING, started_at TIMESTAMP, finished_at TIMESTAMP, summary STRING, "
    "table_versions MAP<STRING, BIGINT>"
)

TABLE_PROPERTIES = {  # Delta reader 1 / writer 2: what Athena can always read
    "delta.autoOptimize.optimizeWrite": "true",
    "delta.autoOptimize.autoCompact": "true",
    "delta.enableDeletionVectors": "false",
}
LARGE_BYTES = (
    16 << 20
)  # a batch of more is not held in memory but read again, and first decided in bulk, by blocks of keys
INTERPRETED_BYTES = 32 << 20  # files and tables of less are read by interpreted plans
PACKED = 8  # what a byte of a gzip file counts for
FEW_ROWS = 200_000  # so many rows are joined by broadcast, and held as rows
HEAD_BYTES = 1 << 16  # what is read of a file to know its header
MOST_RANGES, MOST_DATES = 32, 400  # literals in a condition that prunes files
MOST_COMMITS = 200  # so long a log is read as JSON, a longer one by Delta


# ---------------------------------------------------------------------------------------------------------------------
# Errors and arguments
# ---------------------------------------------------------------------------------------------------------------------
class JobError(Exception):
    """The run cannot go on; the message says what happened and what to do."""


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
    force: bool = False

    @classmethod
    def from_argv(cls, argv: Sequence[str]) -> JobArguments:
        """Read the command line; unknown arguments (Glue adds its own) are ignored. Exits with 2 on a wrong one."""
        parser = argparse.ArgumentParser(prog="glue_etl.py", allow_abbrev=False, add_help=True)
        for name in ("RAW_PATH", "LAKEHOUSE_PATH", "REJECTED_PATH", "RUNS_PATH", "RUN_ID"):
            parser.add_argument(f"--{name}", required=True)
        parser.add_argument("--FORCE", nargs="?", const="true", default="false")
        parser.error = _one_line_error  # type: ignore[method-assign]
        known, _ = parser.parse_known_args(argv)
        if known.FORCE.lower() not in ("true", "false"):
            _one_line_error(f"--FORCE is {known.FORCE!r}: say true or false")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", known.RUN_ID):
            _one_line_error(
                f"--RUN_ID is {known.RUN_ID!r}: use letters, digits, '.', '_' and '-', 128 at most"
            )
        paths = [
            _folder(name, getattr(known, name))
            for name in ("RAW_PATH", "LAKEHOUSE_PATH", "REJECTED_PATH", "RUNS_PATH")
        ]
        return cls(*paths, run_id=known.RUN_ID, force=known.FORCE.lower() == "true")

    def path_of(self, table: str) -> str:
        """Where a table lies."""
        return (self.rejected_path if table == "rejected_records" else self.lakehouse_path) + table


def _one_line_error(message: str) -> None:
    print(f"glue_etl.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def _folder(name: str, path: str) -> str:
    if path.startswith("s3://"):
        if not re.match(r"s3://[^/]+", path):
            _one_line_error(f"--{name} is {path!r}: write s3://bucket/prefix/")
    elif "://" in path or not path:
        _one_line_error(f"--{name} is {path!r}: give s3://bucket/prefix/ or a folder")
    else:
        path = os.path.abspath(path)
    return path.rstrip("/") + "/"


# ---------------------------------------------------------------------------------------------------------------------
# Column functions: text -> (value, what is wrong with it)
# ---------------------------------------------------------------------------------------------------------------------
TIMESTAMP_SHAPE = (
    r"^\d{4}-\d\d-\d\d[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)? ?(Z|[+-]\d\d(:?\d\d)?)?$"
)
DATE_SHAPE = r"^\d{4}-\d\d-\d\d$"
MIDNIGHT_SHAPE = r"^\d{4}-\d\d-\d\d[T ]00:00(:00(\.0{1,9})?)?$"
AMBIGUOUS_SHAPE = r"^\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}"
INTEGER_SHAPE = r"^[+-]?\d+(\.0+)?$"
NUMBER_SHAPE = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
TRUE_WORDS, FALSE_WORDS = (
    ("1", "true", "t", "yes", "y", "1.0"),
    ("0", "false", "f", "no", "n", "0.0"),
)


SPARK_3 = not hasattr(SparkColumn, "try_cast")


def try_cast(column: SparkColumn, type_name: str) -> SparkColumn:
    """A cast that gives NULL where the text does not fit, with ANSI mode (Spark 4) and without (Spark 3)."""
    return column.cast(type_name) if SPARK_3 else column.try_cast(type_name)


def valid_utf8(text: SparkColumn) -> SparkColumn:
    """Whether the bytes of a text are UTF-8; Spark 3.5 has no function for it."""
    return F.encode(text, "UTF-8") == text.cast("binary") if SPARK_3 else F.is_valid_utf8(text)


def parse_identifier(text: SparkColumn) -> SparkColumn:
    """A name as text; `123.0`, as a spreadsheet writes an integer, is `123`."""
    spreadsheet = text.contains(".0") & text.rlike(r"^\d+\.0+$")
    return F.when(spreadsheet, F.regexp_replace(text, r"\.0+$", "")).otherwise(text)


def parse_integer(text: SparkColumn) -> SparkColumn:
    """`3` and `3.0` are 3; `3.5`, `abc` and what leaves 32 bits are NULL."""
    plain = try_cast(text, "int")
    shaped = F.when(
        text.rlike(INTEGER_SHAPE), try_cast(F.regexp_replace(text, r"\.0+$", ""), "int")
    )
    return F.when(plain.cast("string") == text, plain).otherwise(shaped)


def parse_number(text: SparkColumn) -> SparkColumn:
    """A finite double; -0.0 is 0.0, so that equal values have one form."""
    value = try_cast(text, "double") + F.lit(0.0)
    return F.when(text.rlike(NUMBER_SHAPE) & (F.abs(value) < F.lit(float("inf"))), value)


def parse_boolean(text: SparkColumn) -> SparkColumn:
    """0/1, true/false, yes/no, y/n, t/f in any case, and a spreadsheet's 0.0/1.0."""
    word = F.lower(text)
    return F.when(word.isin(*TRUE_WORDS), F.lit(True)).when(word.isin(*FALSE_WORDS), F.lit(False))


def parse_timestamp(text: SparkColumn) -> SparkColumn:
    """ISO with `T` or a blank, seconds and fractions optional; an offset or `Z` is brought to UTC; year 1 to 9999."""
    offset = F.regexp_replace(
        F.regexp_replace(text, r" (?=Z|[+-])", ""), r"([+-]\d\d)(\d\d)$", "$1:$2"
    )
    with_seconds = F.regexp_replace(
        offset, r"([T ]\d\d:\d\d)(?=Z|[+-])", "$1:00"
    )  # the cast knows 11:27:00+02:00 only
    plain = F.length(text).isin(16, 19) & (
        (F.length(text) == 16) | (F.substring(text, 17, 1) == ":")
    )
    tight = F.when(plain, text).otherwise(with_seconds)
    value = try_cast(tight, "timestamp")
    in_range = ~text.startswith("0000") & F.year(value).between(1, 9999)
    return F.when(
        text.rlike(TIMESTAMP_SHAPE),
        F.when(text.startswith("0") | text.startswith("9999"), F.when(in_range, value)).otherwise(
            value
        ),
    )


def parse_date(text: SparkColumn) -> SparkColumn:
    """ISO, or a timestamp at midnight as databases export a day; year 1 to 9999."""
    day = try_cast(F.substring(text, 1, 10), "date")
    return F.when(
        (text.rlike(DATE_SHAPE) | text.rlike(MIDNIGHT_SHAPE)) & ~text.startswith("0000"), day
    )


PARSERS: dict[str, Callable[[SparkColumn], SparkColumn]] = {
    "INT": parse_integer,
    "DOUBLE": parse_number,
    "BOOLEAN": parse_boolean,
    "TIMESTAMP": parse_timestamp,
    "DATE": parse_date,
    "STRING": lambda text: text,
}


def one_of(characters: str) -> str:
    """A class of a regular expression with every character by name: Java looks those up in a table, and a range it compares."""
    return (
        "["
        + "".join(
            "\\" + character if character in r"[]\^&-" else character for character in characters
        )
        + "]"
    )


# What a value looks like that its type's plain cast reads as the parser above would: no blanks to trim, nothing to tidy up. A cast that
# still fails sends its line to the parsers. A plain `*` is Java's fastest loop; the comma behind it keeps it from going back far
PLAIN_DATE = r"[1-8]\d\d\d-\d\d-\d\d"
PLAIN_WORD = r'[^,"\x00-\x20\x7f-\xa0\x{fffd}]++'
PLAIN_VALUES = {
    "INT": one_of("-0123456789") + "*",
    "DOUBLE": one_of("-.0123456789") + "{0,40}+",
    "BOOLEAN": one_of("01" + string.ascii_letters) + "*",
    "TIMESTAMP": rf"(?:{PLAIN_DATE}[T ]\d\d:\d\d:\d\d)?+",
    "DATE": f"(?:{PLAIN_DATE})?+",
    "STRING": rf"(?:{PLAIN_WORD}(?: {PLAIN_WORD})*+)?+",
}
PLAIN_IDENTIFIER = (
    one_of("".join(chr(code) for code in range(33, 127) if chr(code) not in '",.')) + "*"
)
UNUSED_VALUE = r'[^,"\x{fffd}]*'


def plain_value(column: Column, text: SparkColumn) -> SparkColumn:
    """The typed value of a text that looks as `PLAIN_VALUES` says; NULL where it does not fit after all."""
    value = text if column.type == "STRING" else try_cast(text, column.type)
    if column.type == "BOOLEAN":
        return (
            F.when(text == "1", True).when(text == "0", False).otherwise(value)
        )  # the cast looks a text up in two sets
    return value + F.lit(0.0) if column.type == "DOUBLE" else value  # -0.0 is 0.0


def parse(column: Column, text: SparkColumn) -> SparkColumn:
    """The typed value of a column's text; NULL where it is blank or does not fit."""
    return parse_identifier(text) if column.identifier else PARSERS[column.type](text)


def column_reasons(
    column: Column, text: SparkColumn, value: SparkColumn
) -> list[tuple[str, SparkColumn]]:
    """What can be wrong with one column: (reason code, true where it is so)."""
    found: list[tuple[str, SparkColumn]] = []
    if column.required:
        found.append((f"missing_{column.name}", text.isNull()))
    if column.type in ("TIMESTAMP", "DATE"):
        ambiguous = text.rlike(AMBIGUOUS_SHAPE)
        found.append((f"ambiguous_{column.name}", text.isNotNull() & value.isNull() & ambiguous))
        found.append((f"invalid_{column.name}", text.isNotNull() & value.isNull() & ~ambiguous))
    elif column.type != "STRING":
        found.append((f"invalid_{column.name}", text.isNotNull() & value.isNull()))
    return found


def reasons_of(checks: Sequence[tuple[str, SparkColumn]]) -> SparkColumn:
    """All reasons of a row as an array, or NULL where there is none; a check that is NULL is no reason."""
    checks = [(reason, F.coalesce(broken, F.lit(False))) for reason, broken in checks]
    bad = functools.reduce(lambda left, right: left | right, (broken for _, broken in checks))
    codes = F.array(*[F.when(broken, F.lit(reason)) for reason, broken in checks])
    return F.when(bad, F.filter(codes, lambda code: code.isNotNull()))


def key_number(key: SparkColumn, value: SparkColumn | None = None) -> SparkColumn:
    """A number for a key: its own value where it is an integer of up to 18 digits without sign or leading zeros, so one to one, else a
    negative one, a hash of 63 bits. `value` is the key's cast to BIGINT where it is at hand."""
    number = try_cast(key, "bigint") if value is None else value
    least = F.get(
        F.expr(f"array({', '.join(f'{10**digits if digits else 0}L' for digits in range(18))})"),
        F.octet_length(key) - 1,
    )
    return F.when(number >= least, number).otherwise(F.xxhash64(key).bitwiseOR(F.lit(-(2**63))))


def key_place(number: SparkColumn) -> tuple[SparkColumn, SparkColumn]:
    """The block of 64 neighbouring key numbers that holds a number, and the number's place in it as one bit of 64."""
    bit = F.call_function(
        "shiftleft", F.lit(1).cast("bigint"), number.bitwiseAND(F.lit(63)).cast("int")
    )
    return F.shiftright(number, 6).alias("_b"), bit.alias("_bit")


def row_hash(table: Table) -> SparkColumn:
    """64 bits over all values of a row; NULL counts by its place (xxhash64 alone skips it, so (NULL, 5) would equal (5, NULL))."""
    values = [F.col(name) for name in table.column_names]
    nulls = functools.reduce(
        lambda left, right: left + right,
        (
            F.when(value.isNull(), F.lit(1 << place)).otherwise(F.lit(0))
            for place, value in enumerate(values)
        ),
    )
    return F.xxhash64(nulls, *values)


def same_values(table: Table, left: str, right: str) -> SparkColumn:
    """Whether two rows hold equal values, NULLs included."""
    equal = (
        F.col(f"{left}.{name}").eqNullSafe(F.col(f"{right}.{name}")) for name in table.column_names
    )
    return functools.reduce(lambda one, other: one & other, equal)


# ---------------------------------------------------------------------------------------------------------------------
# Storage: S3 or a folder, without Spark
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class StoredObject:
    """One object of a listing: its path below the listed prefix and what tells its version."""

    path: str
    etag: str
    size: int
    modified: dt.datetime

    @property
    def text_bytes(self) -> int:
        """The size of the text in it, as far as its name tells."""
        return self.size * (PACKED if self.path.lower().endswith(".gz") else 1)


class FolderStorage:
    """Objects in a folder; the ETag is the SHA-1 of the bytes."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.bucket: str | None = None

    def key(self, path: str) -> str:
        return self.root + path

    def list(self, prefix: str = "") -> builtins.list[StoredObject]:
        found = []
        for folder, _, names in os.walk(self.root + prefix):
            for name in names:
                full = os.path.join(folder, name)
                stat = os.stat(full)
                modified = dt.datetime.fromtimestamp(stat.st_mtime_ns // 1000 / 1e6, dt.UTC)
                found.append(
                    StoredObject(
                        os.path.relpath(full, self.root).replace(os.sep, "/"),
                        "",
                        stat.st_size,
                        modified,
                    )
                )
        return found

    def with_etag(self, stored: StoredObject) -> StoredObject:
        digest = hashlib.sha1(usedforsecurity=False)
        for chunk in self.chunks(stored.path):
            digest.update(chunk)
        return replace(stored, etag=digest.hexdigest())

    def chunks(self, path: str, size: int = 1 << 20) -> Iterator[bytes]:
        with open(self.root + path, "rb") as stream:
            while chunk := stream.read(size):
                yield chunk

    def write_text(self, path: str, text: str) -> None:
        target = Path(self.root + path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(target)


class S3Storage:
    """Objects below an S3 prefix."""

    def __init__(self, root: str) -> None:
        import boto3

        self.bucket, _, self.prefix = root[len("s3://") :].partition("/")
        self.client = boto3.client(
            "s3",
            endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL"),
        )

    def key(self, path: str) -> str:
        return self.prefix + path

    def list(self, prefix: str = "") -> builtins.list[StoredObject]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + prefix
        )
        return [
            StoredObject(
                item["Key"][len(self.prefix) :],
                item["ETag"].strip('"'),
                item["Size"],
                item["LastModified"],
            )
            for page in pages
            for item in page.get("Contents", [])
            if not item["Key"].endswith("/")
        ]

    def with_etag(self, stored: StoredObject) -> StoredObject:
        return stored

    def chunks(self, path: str, size: int = 1 << 20) -> Iterator[bytes]:
        try:
            body = self.client.get_object(Bucket=self.bucket, Key=self.key(path))["Body"]
        except self.client.exceptions.NoSuchKey:
            raise FileNotFoundError(
                f"s3://{self.bucket}/{self.key(path)} is no longer there"
            ) from None
        try:
            while chunk := body.read(size):
                yield chunk
        finally:
            body.close()

    def write_text(self, path: str, text: str) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.key(path), Body=text.encode("utf-8"))


def storage(path: str) -> Any:
    """The storage below a path that ends with `/`."""
    return S3Storage(path) if path.startswith("s3://") else FolderStorage(path)


def in_threads(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int = 16
) -> list[Any]:
    """`function` of each item, side by side, in the items' order."""
    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    with concurrent.futures.ThreadPoolExecutor(min(workers, len(items))) as pool:
        return list(pool.map(function, items))


@dataclass(frozen=True)
class LogCommit:
    """One commit of a Delta log, read from its JSON."""

    version: int
    operation: str
    user_metadata: str | None
    added: dict[str, int | None]  # path of a data file, and its rows where the log has statistics
    removed: tuple[str, ...]
    metrics: dict[str, str]

    @property
    def stamp(self) -> dict[str, Any]:
        """What the run that made it wrote into it; empty where it wrote nothing."""
        return json.loads(self.user_metadata or "{}")


class DeltaLog:
    """The transaction log of one table, read as JSON without Spark."""

    def __init__(self, table_path: str) -> None:
        self.storage = storage(table_path.rstrip("/") + "/")
        self._commits: dict[int, LogCommit] = {}

    def versions(self) -> list[int]:
        """Versions whose JSON is still there, ascending; empty where there is no table."""
        names = (stored.path.rsplit("/", 1)[-1] for stored in self.storage.list("_delta_log/"))
        return sorted(int(name[:20]) for name in names if re.fullmatch(r"\d{20}\.json", name))

    def table_bytes(self) -> int:
        """Size of the table's data, by the checksum file that Delta writes beside each commit; boundless where the last one is missing."""
        version = max(self.versions(), default=-1)
        if version < 0:
            return 0
        try:
            return int(
                json.loads(b"".join(self.storage.chunks(f"_delta_log/{version:020d}.crc")))[
                    "tableSizeBytes"
                ]
            )
        except (FileNotFoundError, ValueError, KeyError):
            return sys.maxsize

    def commit(self, version: int) -> LogCommit:
        if version not in self._commits:
            lines = (
                b"".join(self.storage.chunks(f"_delta_log/{version:020d}.json"))
                .decode("utf-8")
                .splitlines()
            )
            actions = [json.loads(line) for line in lines if line]
            info = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
            self._commits[version] = LogCommit(
                version,
                info.get("operation", ""),
                info.get("userMetadata"),
                {
                    action["add"]["path"]: json.loads(action["add"].get("stats") or "{}").get(
                        "numRecords"
                    )
                    for action in actions
                    if "add" in action
                },
                tuple(action["remove"]["path"] for action in actions if "remove" in action),
                info.get("operationMetrics", {}),
            )
        return self._commits[version]

    def commits(self, after: int = -1) -> list[LogCommit]:
        return in_threads(self.commit, [version for version in self.versions() if version > after])

    def run_ids(self, latest: int) -> set:
        """Ids of the runs that made the latest commits."""
        commits = in_threads(self.commit, self.versions()[-latest:])
        return {commit.stamp.get("run_id") for commit in commits}

    def file_ids(self) -> tuple[set, bool]:
        """Ids of the files named in the commits, and whether the log is whole and nothing but appends, so that no id is missing."""
        commits = self.commits()
        ids = set()
        for commit in commits:
            ids.update(commit.stamp.get("files", ()))
        whole = [commit.version for commit in commits] == list(range(len(commits)))
        return ids, whole and all(
            commit.operation in ("WRITE", "OPTIMIZE", "MERGE") for commit in commits
        )


# ---------------------------------------------------------------------------------------------------------------------
# Raw files: listing, dataset, header
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Layout:
    """The first line of a file and the column names in it, in lower case."""

    line: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class RawFile:
    """One file of the raw zone, and what became of it."""

    stored: StoredObject
    dataset: str | None = None
    layout: Layout = Layout("", ())
    outcome: str = "loaded"
    reason: str | None = None
    detail: str | None = None
    ignored_columns: tuple[str, ...] = ()
    known: bool = False
    rows_read: int = 0

    @property
    def id(self) -> str:
        """The file's identity in the ledger: path, content and size."""
        return hashlib.sha256(
            f"{self.stored.path}\n{self.stored.etag}\n{self.stored.size}".encode()
        ).hexdigest()[:24]

    @property
    def destination(self) -> str:
        return {"loaded": "archive", "duplicate": "archive", "set_aside": "rejected"}.get(
            self.outcome, "raw"
        )


def dataset_of(path: str) -> str | None:
    """The dataset that a path below the raw prefix names; `order_items` is tried before `orders`."""
    name = path.lower()
    if not re.search(r"\.csv(\.gz)?$", name) or path.rsplit("/", 1)[-1].startswith(("_", ".")):
        return None
    for table in sorted(TABLES, key=lambda table: -len(table.dataset)):
        if re.match(re.escape(table.dataset) + r"(?![a-z0-9])", name):
            return table.dataset
    return None


def read_head(store: Any, stored: StoredObject) -> bytes:
    """The first bytes of a file, unpacked, at least its first line. A gzip stream is read whole, so that a broken one is known."""
    chunks = store.chunks(stored.path, HEAD_BYTES)
    if not stored.path.lower().endswith(".gz"):
        return _until_line(chunks)
    unpacked = _gunzip(chunks)
    head = _until_line(unpacked)
    for _ in unpacked:
        pass
    return head


def _until_line(chunks: Iterator[bytes]) -> bytes:
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= HEAD_BYTES and re.search(rb"[^\s\xef\xbb\xbf][^\r\n]*[\r\n]", head):
            break
    return head


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack all members of a gzip stream; zlib.error where it is damaged or ends too early."""
    unpacker = zlib.decompressobj(31)
    for chunk in chunks:
        while chunk:
            yield unpacker.decompress(chunk)
            chunk = unpacker.unused_data
            if unpacker.eof and chunk:
                unpacker = zlib.decompressobj(31)
            elif not unpacker.eof:
                break
    if not unpacker.eof:
        raise zlib.error("the gzip stream ends too early")


def inspect(store: Any, stored: StoredObject) -> RawFile:
    """What a file is by its path and first line: a file to load with its header, or one to set aside with the reason."""
    stored = store.with_etag(stored)
    dataset = dataset_of(stored.path)

    def aside(reason: str, detail: str = "") -> RawFile:
        said = f"{stored.path}: {FILE_REASONS[reason]}" + (f" ({detail})" if detail else "")
        return RawFile(stored, dataset, outcome="set_aside", reason=reason, detail=said)

    if dataset is None:
        return aside("unknown_dataset")
    if SPARK_3 and stored.path.lower().endswith(".gz") and not stored.path.endswith(".gz"):
        return aside("gzip_name")
    try:
        head = read_head(store, stored)
    except zlib.error as error:
        return aside("truncated_gzip", str(error))
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return aside("utf16")
    if b"\0" in head[:HEAD_BYTES]:
        zeros = head[:HEAD_BYTES].count(b"\0") / len(head[:HEAD_BYTES])
        return aside("utf16" if 0.3 < zeros < 0.8 else "binary")
    return _with_header(RawFile(stored, dataset), head, aside)


def inspect_if_there(store: Any, stored: StoredObject) -> RawFile | None:
    """What a listed file is; None where it has gone since: the archive of the run before may still be at work."""
    try:
        return inspect(store, stored)
    except FileNotFoundError:
        return None


def _with_header(raw: RawFile, head: bytes, aside: Callable[..., RawFile]) -> RawFile:
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff")
    line = next((line for line in re.split(r"\r\n|\n|\r", text) if line.strip()), None)
    if line is None:
        return aside("empty_file")
    names = tuple(
        name.strip().lower() for name in next(csv.reader(io.StringIO(line), skipinitialspace=True))
    )
    wanted = next(table for table in TABLES if table.dataset == raw.dataset).column_names
    missing = [name for name in wanted if name not in names]
    if len(missing) == len(wanted):
        return (
            aside("binary") if "\ufffd" in line else aside("no_header", f"it reads {line[:80]!r}")
        )
    if missing:
        return aside("missing_column", "without " + ", ".join(missing))
    twice = [name for name, count in Counter(names).items() if count > 1 and name in wanted]
    if twice:
        return aside("duplicate_column", ", ".join(twice))
    return replace(
        raw,
        layout=Layout(line, names),
        ignored_columns=tuple(name for name in names if name not in wanted),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Pure transforms, in the order in which they run. Columns of the job's own start with `_`:
#   _file BIGINT hash of the path, _layout INT which header its file has, _block BIGINT and _mid BIGINT the place in the file,
#   _line BIGINT (files read record by record)
#   _kind INT 0 record, 1 blank line, 2 header line, NULL not read yet; _reasons ARRAY<STRING> NULL for a valid row; _raw STRING;
#   _fields MAP; _odd BOOLEAN
# ---------------------------------------------------------------------------------------------------------------------
RECORD, BLANK, HEADER, FAULTY = 0, 1, 2, 3
QUOTED_FIELD = r'[ \t]*+"[^"]*+(?:""[^"]*+)*+"'
CLOSED_FIELD = rf"{QUOTED_FIELD}[ \t]*+(?=[,\r\n]|\z)"
RECORD_PATTERN = (
    rf"((?:{CLOSED_FIELD}|[^,\r\n]*+)(?:,(?:{CLOSED_FIELD}|[^,\r\n]*+))*+)(?:\r\n|\n|\r|\z)"
)
CLOSED_PATTERN = rf'^(?:{QUOTED_FIELD}[ \t]*+|(?![ \t]*")[^,]*+)(?:,(?:{QUOTED_FIELD}[ \t]*+|(?![ \t]*")[^,]*+))*+$'
# A path is a path: no wildcards in names, and no partitions guessed from `date=…` folders (which reads every other file several times)
PLAIN_PATHS = {"__globPaths__": "false", "recursiveFileLookup": "true"}
MOST_COLUMNS = 20_000  # the CSV parser's limit; a longer quoted row has too many fields anyway


def physical_lines(spark: SparkSession, paths: Sequence[str]) -> DataFrame:
    """One row for each line of plain files: _text, _file, _block, _mid, _line (NULL)."""
    reader = spark.read.options(**PLAIN_PATHS)
    return reader.text(list(paths)).select(
        F.col("value").alias("_text"),
        F.xxhash64(F.input_file_name()).alias("_file"),
        F.input_file_block_start().alias("_block"),
        F.monotonically_increasing_id().alias("_mid"),
        F.lit(None).cast("bigint").alias("_line"),
    )


def quoted_records(spark: SparkSession, paths: Sequence[str]) -> DataFrame:
    """One row for each record of files in which a quoted field holds a line break: as `physical_lines`, with _line."""
    reader = spark.read.options(**PLAIN_PATHS)
    files = reader.text(list(paths), wholetext=True).select(
        F.xxhash64(F.input_file_name()).alias("_file"),
        F.regexp_replace("value", "^\ufeff", "").alias("_all"),
    )
    records = files.select(
        "_file",
        F.posexplode(F.regexp_extract_all("_all", F.lit(f"(?s){RECORD_PATTERN}"), F.lit(1))).alias(
            "_mid", "_text"
        ),
    )
    breaks = F.size(F.split("_text", r"\r\n|\n|\r")).cast("bigint")
    before = Window.partitionBy("_file").orderBy("_mid").rowsBetween(Window.unboundedPreceding, -1)
    return records.select(
        "_text",
        "_file",
        F.lit(0).cast("bigint").alias("_block"),
        F.col("_mid").cast("bigint").alias("_mid"),
        (F.coalesce(F.sum(breaks).over(before), F.lit(0)) + 1).alias("_line"),
    )


def by_layout(values: Sequence[Any]) -> SparkColumn:
    """The value that belongs to a row's layout: a literal where all are equal, so that the usual case costs nothing."""
    if len(set(values)) == 1:
        return F.lit(values[0])
    return F.element_at(F.array(*[F.lit(value) for value in values]), F.col("_layout") + 1)


def split_fields(lines: DataFrame, layouts: Sequence[Layout], table: Table) -> DataFrame:
    """Add _kind, _odd, _broken (why the record has not the header's shape, or NULL) and `_c_<column>`, the text of each column.

    `lines` holds _layout INT, the place of its file's layout among `layouts`: all files of a dataset go one way, whatever their headers.
    """
    wide, widest = (
        by_layout([len(layout.names) for layout in layouts]),
        max(len(layout.names) for layout in layouts),
    )
    schema = ", ".join(f"c{place} STRING" for place in range(widest)) + ", _corrupt STRING"
    options = {
        "columnNameOfCorruptRecord": "_corrupt",
        "escape": '"',
        "mode": "PERMISSIVE",
        "ignoreLeadingWhiteSpace": "true",
        "ignoreTrailingWhiteSpace": "true",
        "maxColumns": str(max(MOST_COLUMNS, widest) + 1),
    }
    text = F.col("_text")
    commas = F.length(text) - F.length(F.replace(text, F.lit(","), F.lit("")))
    lines = lines.select("*", text.contains('"').alias("_quoted"))
    lines = lines.select(
        "*",
        F.when(F.col("_quoted") & (commas < MOST_COLUMNS), F.from_csv(text, schema, options)).alias(
            "_parsed"
        ),
        F.when(~F.col("_quoted"), F.split(text, ",", -1)).alias("_split"),
    )
    header_line = by_layout([layout.line for layout in layouts])
    kind = (
        F.when(~text.contains(",") & ~text.rlike(r"[^ \t\r\x{a0}]"), BLANK)
        .when(text == header_line, HEADER)
        .otherwise(RECORD)
    )
    outside = F.regexp_replace(text, r'"[^"]*"?', "")
    fields = F.when(
        F.col("_quoted"),
        F.length(outside) - F.length(F.replace(outside, F.lit(","), F.lit(""))) + 1,
    ).otherwise(F.size("_split"))
    quotes = F.length(text) - F.length(F.replace(text, F.lit('"'), F.lit("")))
    unread = F.col("_quoted") & (
        F.col("_parsed").isNull() | (F.col("_parsed._corrupt").isNotNull() & (wide == widest))
    )
    broken = (
        F.when(~valid_utf8(text), "invalid_utf8")
        .when(F.col("_quoted") & ~text.rlike(f"(?s){CLOSED_PATTERN}"), "unclosed_quote")
        .when(fields < wide, "too_few_fields")
        .when((fields > wide) | unread, "too_many_fields")
    )
    parsed = F.array(*[F.col(f"_parsed.c{place}") for place in range(widest)])
    lines = lines.select(
        "*",
        kind.alias("_kind"),
        (F.col("_quoted") & (quotes % 2 == 1)).alias("_odd"),
        broken.alias("_broken"),
        F.when(F.col("_quoted"), parsed).otherwise(F.col("_split")).alias("_cells"),
    )
    odd_blank = (text.contains("\t") | text.contains("\u00a0")).alias("_odd_blank")
    cells = [
        F.get("_cells", by_layout([layout.names.index(name) for layout in layouts])).alias(
            f"_c_{name}"
        )
        for name in table.column_names
    ]
    return lines.select(
        "_file", "_block", "_mid", "_line", "_text", "_kind", "_odd", "_broken", odd_blank, *cells
    )


def typed(
    rows: DataFrame,
    table: Table,
    text: dict[str, SparkColumn],
    keep: Sequence[SparkColumn],
    broken: SparkColumn,
) -> DataFrame:
    """Parse and check the columns of a table: `keep`, the typed columns, _reasons, and _fields, the texts of a row that has reasons.

    text    for each column of the table its trimmed text, NULL where blank
    broken  the reason for which the whole record could not be read, or NULL
    """
    rows = rows.select(
        *keep,
        broken.alias("_broken"),
        *[text[name].alias(f"_t_{name}") for name in table.column_names],
    )
    written = {column.name: F.col(f"_t_{column.name}") for column in table.columns}
    values = {column.name: parse(column, written[column.name]) for column in table.columns}
    rows = rows.select("*", *[value.alias(name) for name, value in values.items()])
    checks = [
        check
        for column in table.columns
        for check in column_reasons(column, written[column.name], F.col(column.name))
    ]
    checks += [
        (rule.reason, rule.broken(lambda name: written[name], F.col)) for rule in table.rules
    ]
    reasons = F.when(F.col("_broken").isNotNull(), F.array("_broken")).otherwise(reasons_of(checks))
    kept = [
        name
        for name in rows.columns
        if name.startswith("_") and not name.startswith("_t_") and name != "_broken"
    ]
    rows = rows.select("*", reasons.alias("_reasons"))
    fields = F.create_map(
        *[part for name in table.column_names for part in (F.lit(name), written[name])]
    )
    fields = F.when(F.col("_broken").isNull() & F.col("_reasons").isNotNull(), fields)
    return rows.select(*kept, "_reasons", fields.alias("_fields"), *table_values(table))


def stage(lines: DataFrame, table: Table, layouts: Sequence[Layout]) -> DataFrame:
    """Every line as a typed row; `_raw` if rejected or perhaps to be parked, `_fields` if rejected."""
    rows = split_fields(lines, layouts, table)
    cells = {name: F.col(f"_c_{name}") for name in table.column_names}
    text = {
        name: F.when(F.col("_odd_blank"), F.btrim(cell, F.lit(" \t\u00a0"))).otherwise(F.trim(cell))
        for name, cell in cells.items()
    }
    text = {name: F.when(cell != "", cell) for name, cell in text.items()}
    keep = [F.col(name) for name in ("_file", "_block", "_mid", "_line", "_text", "_kind", "_odd")]
    rows = typed(rows, table, text, keep, F.col("_broken"))
    is_record = F.col("_kind") == RECORD
    wanted = F.lit(bool(table.parents)) | F.col("_reasons").isNotNull() | (F.col("_kind") == HEADER)
    as_bytes = F.decode(
        F.col("_text").cast("binary"), "ISO-8859-1"
    )  # one character a byte: nothing is lost, and every reader can read it
    readable = F.when(F.element_at("_reasons", 1) == "invalid_utf8", as_bytes).otherwise(
        F.col("_text")
    )
    return rows.select(
        "_file",
        "_block",
        "_mid",
        "_line",
        "_kind",
        "_odd",
        F.when(is_record, F.col("_reasons")).alias("_reasons"),
        F.when(wanted, readable).alias("_raw"),
        F.when(is_record, F.col("_fields")).alias("_fields"),
        *table.column_names,
    )


def plain_line(layout: Layout, table: Table) -> str:
    """A regular expression for the lines of a layout all of whose values are plain."""
    values = {
        column.name: PLAIN_IDENTIFIER if column.identifier else PLAIN_VALUES[column.type]
        for column in table.columns
    }
    return "^" + ",".join(values.get(name, UNUSED_VALUE) for name in layout.names) + r"\z"


def once(column: SparkColumn) -> SparkColumn:
    """A column that Spark computes once, where it stands: what is not deterministic is never copied into the filters and columns above it."""
    return F.when(F.monotonically_increasing_id() >= 0, column)


def stage_plain(
    lines: DataFrame, table: Table, layouts: Sequence[Layout], trusted: bool = False
) -> DataFrame:
    """Nearly all lines by a short way, as `stage`: _kind is NULL where a line needs that, for it is not plain, or a check may fail; _raw is the
    text of every line. `trusted` lines have all been found plain before. With one layout `lines` need no _layout.
    """
    text, keep = (
        F.col("_text"),
        ["_file", "_block", "_mid", "_text", *(["_layout"] if len(layouts) > 1 else [])],
    )
    taken = text
    if not trusted:
        plain = text.rlike(plain_line(layouts[0], table))
        for place, layout in enumerate(layouts[1:], 1):
            plain = F.when(
                F.col("_layout") == place, text.rlike(plain_line(layout, table))
            ).otherwise(plain)
        taken = F.when(plain, text)
    header = text == by_layout([layout.line for layout in layouts])
    lines = lines.select(*keep, header.alias("_header"), F.split(taken, ",", -1).alias("_cells"))
    cells = {
        name: F.get("_cells", by_layout([layout.names.index(name) for layout in layouts]))
        for name in table.column_names
    }
    lines = lines.select(
        "_file",
        "_block",
        "_mid",
        "_text",
        "_header",
        F.col("_cells").isNotNull().alias("_plain"),
        *[F.when(cell != "", cell).alias(f"_t_{name}") for name, cell in cells.items()],
    )
    written = {column.name: F.col(f"_t_{column.name}") for column in table.columns}
    lines = lines.select(
        "*",
        *[plain_value(column, written[column.name]).alias(column.name) for column in table.columns],
    )
    good = F.col("_plain")
    if not trusted:
        doubts = [
            F.col(column.name).isNull()
            & (F.lit(column.required) | written[column.name].isNotNull())
            for column in table.columns
            if column.required or column.type != "STRING"
        ]
        doubts += [
            F.coalesce(rule.broken(lambda name: written[name], F.col), F.lit(False))
            for rule in table.rules
        ]
        good = functools.reduce(lambda left, right: left & ~right, doubts, good)
    kind = F.when(F.col("_header"), HEADER).when(good, RECORD)
    empty = [
        F.expr(f"CAST(NULL AS {type_name}) AS {name}")
        for name, type_name in (
            ("_line", "BIGINT"),
            ("_reasons", "ARRAY<STRING>"),
            ("_fields", "MAP<STRING, STRING>"),
        )
    ]
    return lines.select(
        "_file",
        "_block",
        "_mid",
        once(kind).alias("_kind"),
        F.lit(False).alias("_odd"),
        F.col("_text").alias("_raw"),
        *empty,
        *table_values(table),
    )


def table_values(table: Table) -> list[SparkColumn]:
    """The typed columns, a missing partition taken from the version's day."""
    columns = [F.col(name) for name in table.column_names]
    if table.partition and table.version:
        columns[table.column_names.index(table.partition)] = F.coalesce(
            F.col(table.partition), F.to_date(table.version)
        ).alias(table.partition)
    return columns


def valid_rows(staged: DataFrame) -> DataFrame:
    """The records without a reason to reject them."""
    return staged.where((F.col("_kind") == RECORD) & F.col("_reasons").isNull())


def tally(staged: DataFrame, table: Table, with_hash: bool) -> DataFrame:
    """One row for each line and key column of the table (`Table.keys`), to be counted by `profile` or `key_blocks`: _file, _block, _mid,
    _odd, _column INT, _class (_kind, or FAULTY for a rejected record), _b and _bit of a valid row's key, _day its partition, _hash of its values."""
    row_class = F.when(
        (F.col("_kind") == RECORD) & F.col("_reasons").isNotNull(), FAULTY
    ).otherwise(F.col("_kind"))
    values = [
        try_cast(F.col(name), "bigint").alias(f"_v{place}") for place, name in enumerate(table.keys)
    ]
    rows = staged.select("*", row_class.alias("_class"), *values)
    valid = F.col("_class") == RECORD
    day = F.col(table.partition) if table.partition else F.lit(None).cast("date")
    numbers = [
        F.when(valid, key_number(F.col(name), F.col(f"_v{place}"))).alias(f"_n{place}")
        for place, name in enumerate(table.keys)
    ]
    kept = ("_file", "_block", "_mid", "_odd", "_class", "_day", "_hash")
    rows = rows.select(
        "_file",
        "_block",
        "_mid",
        "_odd",
        "_class",
        F.when(valid, day).alias("_day"),
        (row_hash(table) if with_hash else F.expr("0L")).alias("_hash"),
        *numbers,
    )
    stack = ", ".join(f"{place}, _n{place}" for place in range(len(numbers)))
    rows = rows.select(*kept, F.expr(f"stack({len(numbers)}, {stack})").alias("_column", "_n"))
    return rows.select(*kept, "_column", *key_place(F.col("_n")))


PROFILE = ["_file", "_block", "_column", "_class"]


def profile(tallied: DataFrame) -> DataFrame:
    """Per file, block of the file, key column and class: _n rows, _first _mid, _odds, _low_b and _high_b, _low_day and _high_day."""
    return tallied.groupBy(*PROFILE).agg(
        F.count(F.lit(1)).alias("_n"),
        F.min("_mid").alias("_first"),
        F.count(F.when(F.col("_odd"), 1)).alias("_odds"),
        F.min("_b").alias("_low_b"),
        F.max("_b").alias("_high_b"),
        F.min("_day").alias("_low_day"),
        F.max("_day").alias("_high_day"),
    )


def key_blocks(tallied: DataFrame) -> DataFrame:
    """The same by block of keys (_b) as well, with _bits, the keys of the block, and _xor, the XOR of the rows' hashes."""
    return tallied.groupBy(*PROFILE, "_b").agg(
        F.count(F.lit(1)).alias("_n"),
        F.min("_mid").alias("_first"),
        F.count(F.when(F.col("_odd"), 1)).alias("_odds"),
        F.min("_day").alias("_low_day"),
        F.max("_day").alias("_high_day"),
        F.bit_or("_bit").alias("_bits"),
        F.bit_xor("_hash").alias("_xor"),
    )


def profile_of_blocks(blocks: DataFrame) -> DataFrame:
    """`profile` of rows that `key_blocks` has counted, and _keys, how many different keys they have, with the _low and the _high one."""
    zeros = (
        F.expr("bit_count((_bits & -_bits) - 1)"),
        F.expr("64 - length(bin(_bits))"),
    )  # behind the last bit, and before the first
    return blocks.groupBy(*PROFILE).agg(
        F.sum("_n").alias("_n"),
        F.min("_first").alias("_first"),
        F.sum("_odds").alias("_odds"),
        F.min("_b").alias("_low_b"),
        F.max("_b").alias("_high_b"),
        F.min("_low_day").alias("_low_day"),
        F.max("_high_day").alias("_high_day"),
        F.sum(F.bit_count("_bits")).alias("_keys"),
        F.min(F.shiftleft("_b", 6) + zeros[0]).alias("_low"),
        F.max(F.shiftleft("_b", 6) + 63 - zeros[1]).alias("_high"),
    )


@dataclass
class Block:
    """What is known of one block of a file: its lines by class, and the spans of its valid rows' keys and days."""

    file: int
    block: int
    first: int = 2**63 - 1  # _mid of its first line
    odd: int = 0  # records with an odd number of quotes
    classes: Counter = field(default_factory=Counter)
    keys: dict[str, tuple[int, int]] = field(
        default_factory=dict
    )  # a column's lowest and highest _b, below 0 where keys are no plain integers
    days: tuple[dt.date, dt.date] | None = None
    spans: list[tuple[int, int, bool]] = field(
        default_factory=list
    )  # its valid rows' lowest and highest `key_number`, and whether all differ

    @property
    def lines(self) -> int:
        return sum(self.classes.values())

    @property
    def records(self) -> int:
        return self.classes[RECORD] + self.classes[FAULTY]


def blocks_of(profiled: Iterable[Any], table: Table) -> list[Block]:
    """The blocks of files by the rows of `profile`."""
    blocks: dict[tuple[int, int], Block] = {}
    for row in profiled:
        block = blocks.setdefault((row["_file"], row["_block"]), Block(row["_file"], row["_block"]))
        if row["_low_b"] is not None:
            name = table.keys[row["_column"]]
            block.keys[name] = span(block.keys.get(name), (row["_low_b"], row["_high_b"]))
        if row["_column"] == 0:
            block.classes[row["_class"]] += row["_n"]
            block.first, block.odd = min(block.first, row["_first"]), block.odd + row["_odds"]
            block.days = (
                block.days
                if row["_low_day"] is None
                else span(block.days, (row["_low_day"], row["_high_day"]))
            )
            if row["_class"] == RECORD and "_keys" in row:
                block.spans.append((row["_low"], row["_high"], row["_keys"] == row["_n"]))
    return list(blocks.values())


def all_different(blocks: Iterable[Block]) -> bool:
    """Whether it is certain that no key comes twice: none within one span of rows, and the spans, of plain integers, do not overlap."""
    spans = sorted(one for block in blocks for one in block.spans)
    return all(low >= 0 and differ for low, _, differ in spans) and all(
        one[1] < other[0] for one, other in zip(spans, spans[1:])
    )


def span(one: tuple[Any, Any] | None, other: tuple[Any, Any]) -> tuple[Any, Any]:
    """The least span that holds two others."""
    return other if one is None else (min(one[0], other[0]), max(one[1], other[1]))


def number_ranges(spans: Iterable[tuple[int, int]]) -> list[tuple[str, str]]:
    """Text ranges that hold every plain integer of the spans: numbers of equal length sort as their text does."""
    texts = []
    for low, high in spans:
        for digits in range(len(str(low)), len(str(high)) + 1):
            texts.append(
                (
                    str(max(low, 10 ** (digits - 1) if digits > 1 else 0)),
                    str(min(high, 10**digits - 1)),
                )
            )
    merged: list[tuple[str, str]] = []
    for low_text, high_text in sorted(texts):
        if merged and low_text <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high_text))
        else:
            merged.append((low_text, high_text))
    return (
        merged if len(merged) <= MOST_RANGES else [(merged[0][0], max(high for _, high in merged))]
    )


def within(column: str, ranges: Sequence[tuple[str, str]]) -> SparkColumn:
    """A condition with literals, by which Delta skips files; always true where there are no ranges."""
    if not ranges:
        return F.lit(True)
    return functools.reduce(
        lambda left, right: left | right, (F.col(column).between(low, high) for low, high in ranges)
    )


def key_bits(rows: DataFrame, key: SparkColumn, *more: SparkColumn) -> DataFrame:
    """Rows with `_b` and `_bit` of a key, see `key_place`."""
    numbered = rows.select(key_number(key).alias("_n"), *more)
    return numbered.select(
        *key_place(F.col("_n")), *[name for name in numbered.columns if name != "_n"]
    )


DOUBTFUL = "doubtful"


def classify_blocks(blocks: DataFrame, target: DataFrame | None, table: Table) -> DataFrame:
    """Decide whole blocks of keys at once: _b, _rows (an array of _file and _n, its rows) and _class inserted, unchanged or doubtful.

    `blocks` are the batch's `key_blocks`. One of them is inserted where its keys are all different and none is in the table (exact: the
    bits of two different keys differ), unchanged where keys and the XOR of the 64-bit row hashes equal the table's (a false one has the
    odds 1 in 2^64), and doubtful otherwise: its rows are decided one by one. Neighbouring keys come together, so that little is shuffled.
    """
    new = blocks.where((F.col("_column") == 0) & (F.col("_class") == RECORD))
    sides = new.select(
        "_b",
        F.struct("_file", "_n").alias("_rows"),
        "_bits",
        "_n",
        "_xor",
        F.lit(True).alias("_new"),
    )
    if target is not None:
        old = (
            key_bits(target, F.col(table.key), row_hash(table).alias("_hash"))
            .groupBy("_b")
            .agg(
                F.bit_or("_bit").alias("_bits"),
                F.count(F.lit(1)).alias("_n"),
                F.bit_xor("_hash").alias("_xor"),
            )
        )
        none = F.lit(None).cast("struct<_file:bigint,_n:bigint>")
        sides = sides.unionByName(
            old.select("_b", none.alias("_rows"), "_bits", "_n", "_xor", F.lit(False).alias("_new"))
        )

    def of(side: bool, measure: Callable[[SparkColumn], SparkColumn], name: str) -> SparkColumn:
        return measure(F.when(F.col("_new") == side, F.col(name))).alias(
            f"{name}_{'new' if side else 'old'}"
        )

    both = sides.groupBy("_b").agg(
        F.collect_list("_rows").alias("_rows"),
        *[
            of(side, measure, name)
            for side in (True, False)
            for measure, name in ((F.bit_or, "_bits"), (F.sum, "_n"), (F.bit_xor, "_xor"))
        ],
    )
    distinct = F.bit_count("_bits_new") == F.col("_n_new")
    absent = F.coalesce(F.col("_bits_old").bitwiseAND(F.col("_bits_new")) == 0, F.lit(True))
    equal = (
        (F.col("_bits_old") == F.col("_bits_new"))
        & (F.col("_n_old") == F.col("_n_new"))
        & (F.col("_xor_old") == F.col("_xor_new"))
    )
    verdict = (
        F.when(~distinct, DOUBTFUL)
        .when(absent, INSERTED)
        .when(F.coalesce(equal, F.lit(False)), UNCHANGED)
        .otherwise(DOUBTFUL)
    )
    return both.where("_n_new > 0").select("_b", "_rows", verdict.alias("_class"))


def lacking_parents(wanted: DataFrame, held: DataFrame) -> DataFrame:
    """The parents' keys that are wanted and not held: _column, _b and the bits _lacking; both frames hold _column, _b and _bits, any number
    of times."""
    sides = wanted.withColumn("_held", F.lit(False)).unionByName(
        held.withColumn("_held", F.lit(True))
    )
    bits = [
        F.coalesce(
            F.bit_or(F.when(F.col("_held") == side, F.col("_bits"))), F.lit(0).cast("bigint")
        )
        for side in (False, True)
    ]
    return (
        sides.groupBy("_column", "_b")
        .agg(bits[0].bitwiseAND(F.bitwise_not(bits[1])).alias("_lacking"))
        .where("_lacking <> 0")
    )


def decide(
    rows: DataFrame, table: Table, parents: dict[str, DataFrame], target: DataFrame | None
) -> DataFrame:
    """Give every row its one outcome by the rule of precedence.

    rows     typed rows with _file, _block, _mid, _late (BOOLEAN, a parked row), _replayed (BOOLEAN), _modified, _path, _line
    parents  for each parent's dataset the keys (column `key`, distinct) that have come
    target   the table's rows with these keys, or None where there is no table
    Adds _lacks ARRAY<STRING> (missing parents), _outcome, and _old_partition (where the table holds the key now).
    """
    lacks = []
    for parent in table.parents:
        known = parents[parent.dataset].select(
            F.col("key").alias(parent.column), F.lit(True).alias(f"_has_{parent.dataset}")
        )
        rows = rows.join(known, parent.column, how="left")
        lacks.append(
            F.when(
                F.col(f"_has_{parent.dataset}").isNull(),
                F.concat_ws(":", F.lit(parent.reason), F.col(parent.column)),
            )
        )
    missing = (
        F.filter(F.array(*lacks), lambda name: name.isNotNull())
        if lacks
        else F.array().cast("array<string>")
    )
    rows = rows.select("*", missing.alias("_lacks"))
    order = [F.col(table.version).desc()] if table.version else []
    order += [
        F.col("_replayed").asc(),
        F.col("_modified").desc(),
        F.col("_path").desc(),
        F.col("_block").desc(),
        F.col("_mid").desc(),
    ]
    better = F.collect_list("_lacks").over(
        Window.partitionBy(table.key).orderBy(*order).rowsBetween(Window.unboundedPreceding, -1)
    )
    rows = rows.select("*", better.alias("_better"))
    beaten = F.exists("_better", lambda other: F.size(F.array_except(other, F.col("_lacks"))) == 0)
    rows = rows.select("*", beaten.alias("_beaten")).alias("s")
    parked = F.size("_lacks") > 0
    if target is None:
        outcome = F.when(F.col("_beaten"), SUPERSEDED).when(parked, PARKED).otherwise(INSERTED)
        return rows.select(
            "s.*", outcome.alias("_outcome"), F.lit(None).cast("date").alias("_old_partition")
        )
    joined = rows.join(
        target.alias("t"), F.col(f"s.{table.key}") == F.col(f"t.{table.key}"), how="left"
    )
    absent = F.col(f"t.{table.key}").isNull()
    wins = ~F.col("s._replayed")
    if table.version:
        new, old = F.col(f"s.{table.version}"), F.col(f"t.{table.version}")
        wins = (new > old) | ((new == old) & wins)
    outcome = (
        F.when(F.col("_beaten"), SUPERSEDED)
        .when(parked & (absent | wins), PARKED)
        .when(parked, SUPERSEDED)
        .when(absent, INSERTED)
        .when(same_values(table, "s", "t"), UNCHANGED)
        .when(wins, UPDATED)
        .otherwise(SUPERSEDED)
    )
    old_partition = F.col(f"t.{table.partition}") if table.partition else F.lit(None).cast("date")
    return joined.select("s.*", outcome.alias("_outcome"), old_partition.alias("_old_partition"))


def rejected_frame(
    rows: DataFrame, table: Table, run_id: str, status: str, reasons: SparkColumn
) -> DataFrame:
    """Rows in the shape of `rejected_records`; `rows` joined with their file (_path, _etag, _size, _modified) and `_line`."""

    def of(name: str) -> SparkColumn:
        return (
            F.col("_fields").getItem(name)
            if name in table.column_names
            else F.lit(None).cast("string")
        )

    return rows.select(
        F.lit(run_id).alias("run_id"),
        F.lit(table.dataset).alias("dataset"),
        F.lit(status).alias("status"),
        reasons.alias("reasons"),
        F.coalesce(F.col(table.key), of(table.key)).alias("record_key"),
        of("order_id").alias("order_id"),
        of("product_id").alias("product_id"),
        F.col("_path").alias("file_path"),
        F.col("_etag").alias("file_etag"),
        F.col("_size").alias("file_size"),
        F.col("_modified").alias("file_modified"),
        F.col("_line").cast("bigint").alias("line"),
        F.col("_raw").alias("raw"),
        F.col("_fields").alias("fields"),
        F.lit(None).cast("string").alias("resolved_run_id"),
    )


# ---------------------------------------------------------------------------------------------------------------------
# The edges: Spark session, tables
# ---------------------------------------------------------------------------------------------------------------------
SPARK_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "false",  # one behaviour of casts on Spark 3.5 and 4.1
    "spark.sql.inMemoryColumnarStorage.compressed": "false",  # the staged rows are read twice: packing them costs more than it saves
    "spark.sql.parquet.compression.codec": "zstd",  # half of snappy's bytes, which Athena bills, in the same time
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # 8 bytes with statistics; INT96 is what Spark writes for old Hive
    "spark.sql.parquet.int96RebaseModeInWrite": "CORRECTED",  # days before 1582 as they are; Spark 3.5 would stop at one
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.codegen.hugeMethodLimit": "8000",  # Java never compiles a longer method, so a long plan does better in parts
    "spark.sql.adaptive.enabled": "false",  # to plan a query again after each of its stages costs more than it finds
    "spark.sql.lightweightPlanChangeValidation": "false",  # Spark's check on its own optimizer, after each of its steps
    "spark.sql.ui.explainMode": "simple",  # how Spark's UI shows a plan, written out for every query
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.databricks.delta.allFilesInCrc.enabled": "false",  # a list of all files beside each commit, which takes a query and nobody reads
    "spark.databricks.delta.fileSizeHistogramMetrics.enabled": "false",  # nor a histogram of their sizes
    # autoCompact by its documented threshold of small files; its shortcut takes every partition that a fresh driver touches for one to rewrite
    "spark.databricks.delta.autoCompact.modifiedPartitionsOnly.enabled": "false",
    "spark.databricks.delta.properties.defaults.dataSkippingNumIndexedCols": "8",
}
DELTA_SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}


COMPILED = {"spark.sql.codegen.wholeStage": "true", "spark.sql.codegen.factoryMode": "FALLBACK"}
INTERPRETED = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


def spark_session(raw_bytes: int, lake_bytes: int) -> SparkSession:
    """The session of Glue or of `spark-submit`; under plain Python one with Delta's jars from Maven Central.

    Where files and tables are small, plans are interpreted: to compile them takes longer than to run them.
    """
    builder = SparkSession.builder.appName("Lakehouse").config(
        "spark.python.sql.dataFrameDebugging.enabled", "false"
    )  # the place in this script of every column costs six calls to Java
    if (
        "PYSPARK_GATEWAY_PORT" not in os.environ
        and "PYSPARK_SUBMIT_ARGS" not in os.environ
        and SparkSession.getActiveSession() is None
    ):
        from delta import configure_spark_with_delta_pip

        for name, value in DELTA_SETTINGS.items():
            builder = builder.config(name, value)
        builder = configure_spark_with_delta_pip(builder)
    spark = builder.getOrCreate()
    plans = COMPILED if raw_bytes + lake_bytes > INTERPRETED_BYTES else INTERPRETED
    for name, value in {**SPARK_SETTINGS, **plans, **without_dictionary()}.items():
        spark.conf.set(name, value)
    cores = spark.sparkContext.defaultParallelism
    spark.conf.set(
        "spark.sql.files.minPartitionNum", str(cores)
    )  # a second look at a file finds its lines at the same places
    spark.conf.set(
        "spark.sql.shuffle.partitions", str(max(cores, min(400, raw_bytes // (48 << 20))))
    )
    java = spark.sparkContext._jvm
    for name in (
        "functions",
        "org.apache.spark.sql.functions",
        "PythonUtils",
    ):  # looked up by name for every column that is built
        if not isinstance(getattr(java, name), Remembered):
            setattr(java, name, Remembered(getattr(java, name)))
    return spark


class Remembered:
    """A Java class whose members are asked for once: Java searches all jars for a class, and all its methods for a member, each time."""

    def __init__(self, java_class: Any) -> None:
        self._java_class = java_class

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._java_class, name)
        setattr(self, name, member)
        return member


def without_dictionary() -> dict[str, str]:
    """Settings that spare Parquet a dictionary of columns whose values hardly repeat in any table."""
    columns = [column for table in TABLES for column in table.columns]
    varied = {column.name for column in columns} - {
        column.name for column in columns if not column.varied
    }
    return {f"parquet.enable.dictionary#{name}": "false" for name in sorted(varied)}


def hold(frame: DataFrame, small: bool = True) -> DataFrame:
    """Keep a frame that is read several times. A small one forgets how it was made, so that what follows has a short plan to compile;
    a large one is cached by columns, and made again where a worker is lost (a small one then fails the run, and the next run heals it)."""
    return frame.localCheckpoint(eager=False) if small else frame.persist()


def local_frame(spark: SparkSession, rows: Sequence[dict[str, Any]], ddl: str) -> DataFrame:
    """A few rows that this process knows, as a frame that needs no Python worker; `rows` hold what JSON can say, and times in ISO form."""
    texts = F.from_json(F.lit(json.dumps(rows)), f"ARRAY<STRUCT<{ddl}>>")
    frame = spark.sql("SELECT 1").select(F.inline(texts))
    return frame if rows else frame.where(F.lit(False))


@dataclass
class LakeTable:
    """A Delta table as this run finds and leaves it."""

    spark: SparkSession
    path: str
    log: DeltaLog = field(init=False)
    before: int = field(init=False)
    dates: list[str] = field(default_factory=list)
    widened: bool = False
    _frame: DataFrame | None = None

    def __post_init__(self) -> None:
        self.log = DeltaLog(self.path)
        self.before = max(self.log.versions(), default=-1)

    @property
    def exists(self) -> bool:
        return self.before >= 0

    def read(self) -> DataFrame | None:
        """The table as this run finds it."""
        if self.exists and self._frame is None:
            self._frame = self.spark.read.format("delta").load(self.path)
        return self._frame

    def files(self) -> dict[str, int | None] | None:
        """The table's data files now and their rows, by its log; None where the log is not whole or long, so that Delta has to say it."""
        versions = self.log.versions()
        if len(versions) > MOST_COMMITS or versions != list(range(len(versions))):
            return None
        files: dict[str, int | None] = {}
        for commit in self.log.commits():
            files = {
                path: rows
                for path, rows in {**files, **commit.added}.items()
                if path not in commit.removed
            }
        return files

    def append(
        self, frame: DataFrame, partition: str | None = None, statistics: str = "", **options: str
    ) -> None:
        """Append rows in one commit; the first append creates the table with its properties and the columns that get statistics."""
        if not self.exists:
            options.update(
                TABLE_PROPERTIES,
                **({"delta.dataSkippingStatsColumns": statistics} if statistics else {}),
            )
        writer = frame.write.format("delta").mode("append").options(**options)
        (writer.partitionBy(partition) if partition else writer).save(self.path)

    def note(
        self, rows: Sequence[dict[str, Any]], ddl: str, partition: str | None = None, **options: str
    ) -> None:
        """Append a few rows that this process knows, or none: one file needs no shuffle to be written."""
        self.append(local_frame(self.spark, rows, ddl), partition, optimizeWrite="false", **options)

    def take_back(self) -> None:
        """Bring the table back to what this run found. Nobody else writes to it: the job runs once at a time."""
        from delta.tables import DeltaTable

        table = DeltaTable.forPath(self.spark, self.path)
        table.restoreToVersion(self.before) if self.exists else table.delete()

    def widen(self, table: Table) -> None:
        """Add the columns that are declared but not in the table yet; rows from before have NULL there."""
        found = self.read()
        missing = [
            column
            for column in table.columns
            if found is not None and column.name not in found.columns
        ]
        if missing:
            self.spark.sql(
                f"ALTER TABLE delta.`{self.path}` ADD COLUMNS ({', '.join(f'`{one.name}` {one.type}' for one in missing)})"
            )
            self.widened, self._frame = True, None

    def _rows(self) -> int:
        """Rows of the table: by the log's own statistics where it has them, else Delta counts."""
        files = self.files()
        if files is None or None in files.values():
            return self.spark.read.format("delta").load(self.path).count()
        return sum(files.values())

    def summary(self) -> dict[str, Any]:
        """What this run did to the table, as the summary tells it."""
        commits = self.log.commits(after=self.before)
        version = max([self.before, *(commit.version for commit in commits)])
        return {
            "version": version if version >= 0 else None,
            "rows": self._rows() if version >= 0 else 0,
            "schema_changed": self.widened or (not self.exists and version >= 0),
            "files_added": sum(len(commit.added) for commit in commits),
            "files_removed": sum(len(commit.removed) for commit in commits),
            "dates": self.dates,
        }


# ---------------------------------------------------------------------------------------------------------------------
# One dataset in one run
# ---------------------------------------------------------------------------------------------------------------------
@dataclass
class Part:
    """Lines of one dataset that were read in one way; `keys` are their `key_blocks` where the batch is large."""

    staged: DataFrame
    keys: DataFrame | None


@dataclass
class Load:
    """The way of one dataset through one run: staged, decided, committed. Counts are by file (id of the RawFile).

    large  whether there are files, of a batch that is too much to be held
    """

    run: Run
    table: Table
    files: list[RawFile]
    large: bool = False
    parts: list[Part] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    by_hash: dict[int, RawFile] = field(default_factory=dict)
    decided: DataFrame | None = None
    bulk: DataFrame | None = None
    late: DataFrame | None = None
    counts: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    admitted: Counter = field(default_factory=Counter)
    still_parked: int = 0
    old_dates: list[dt.date] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)

    @functools.cached_property
    def text_bytes(self) -> int:
        return sum(raw.stored.text_bytes for raw in self.files)

    def stage(self) -> None:
        """Read, type and count every line; only files with quoted line breaks are read again, record by record.

        Before that the table gets the columns that are declared and not in it: while others stage, and before anything reads a table.
        """
        self.run.lake[self.table.name].widen(self.table)
        if not self.files:
            return
        self._read(self.files, quoted=False)
        odd = {self.by_hash[block.file].id for block in self.blocks if block.odd}
        if odd:
            self._drop(odd)
            self._read([raw for raw in self.files if raw.id in odd], quoted=True)
        gone = self.run.changed(self.files)
        if gone:
            self._drop(gone)
            self.files = [raw for raw in self.files if raw.id not in gone]

    def _read(self, raws: list[RawFile], quoted: bool) -> None:
        """Stage files, line by line or record by record, and count their lines."""
        spark, paths = self.run.spark, [self.run.raw_path(raw) for raw in raws]
        lines = quoted_records(spark, paths) if quoted else physical_lines(spark, paths)
        by_hash = self.run.by_hash(raws)
        layouts = list(dict.fromkeys(raw.layout for raw in raws))
        which = F.lit(0)
        for place, layout in enumerate(layouts[1:], 1):
            of_layout = [number for number, raw in by_hash.items() if raw.layout == layout]
            which = F.when(F.col("_file").isin(of_layout), place).otherwise(which)
        if quoted:
            profiled = self._add(
                hold(stage(lines.withColumn("_layout", which), self.table, layouts), not self.large)
            )
        else:
            profiled = self._read_lines(lines, layouts, which)
        blocks = blocks_of(profiled, self.table)
        if {block.file for block in blocks} - set(by_hash):
            raise JobError(
                f"Spark read files of {self.table.dataset} that the listing does not name; run again"
            )
        self.by_hash.update(by_hash)
        self.blocks += blocks

    def _read_lines(self, lines: DataFrame, layouts: list[Layout], which: SparkColumn) -> list[Any]:
        """Stage lines: all by the short way, and those that are not plain by the long one; returns the rows of their profiles."""
        if len(layouts) > 1:
            lines = lines.withColumn("_layout", which)
        plain = stage_plain(lines, self.table, layouts)
        plain = plain if self.large else hold(plain)
        profiled = self._add(plain)
        unread = sum(row["_n"] for row in profiled if row["_class"] is None and row["_column"] == 0)
        if not unread:
            if self.large:
                self.parts[-1].staged = stage_plain(lines, self.table, layouts, trusted=True)
            return profiled
        self.parts[-1].staged = plain.where(F.col("_kind").isNotNull())
        rest = plain.where(F.col("_kind").isNull()).select(
            "_file", "_block", "_mid", "_line", F.col("_raw").alias("_text"), which.alias("_layout")
        )
        return [row for row in profiled if row["_class"] is not None] + self._add(
            hold(stage(rest, self.table, layouts), unread < FEW_ROWS)
        )

    def _add(self, staged: DataFrame) -> list[Any]:
        """Take a part of the staged lines; returns the rows of its profile."""
        tallied = tally(
            staged, self.table, with_hash=self.large and self.run.lake[self.table.name].exists
        )
        keys = key_blocks(tallied).persist() if self.large else None
        self.parts.append(Part(staged, keys))
        return (profile(tallied) if keys is None else profile_of_blocks(keys)).collect()

    def _drop(self, ids: set) -> None:
        """Forget the rows of some files."""
        self.blocks = [block for block in self.blocks if self.by_hash[block.file].id not in ids]
        others = ~F.col("_file").isin(
            [number for number, raw in self.by_hash.items() if raw.id in ids]
        )
        self.parts = [
            Part(part.staged.where(others), None if part.keys is None else part.keys.where(others))
            for part in self.parts
        ]

    # -- what is staged ------------------------------------------------------------------------------------------------
    @property
    def staged(self) -> DataFrame:
        """All lines."""
        return functools.reduce(DataFrame.unionByName, (part.staged for part in self.parts))

    @property
    def valid(self) -> DataFrame:
        """The rows without a reason to reject them."""
        return (
            functools.reduce(
                DataFrame.unionByName, (valid_rows(part.staged) for part in self.parts)
            )
            if self.parts
            else self.run.empty_stage(self.table)
        )

    @property
    def keys(self) -> DataFrame:
        """The `key_blocks` of a large batch."""
        return functools.reduce(DataFrame.unionByName, (part.keys for part in self.parts))

    def total(self, row_class: int) -> int:
        return sum(block.classes[row_class] for block in self.blocks)

    def ranges(self, column: str) -> list[tuple[str, str]]:
        """Text ranges that hold the batch's keys in `column`; none where a key is no plain integer, or the batch is larger than all tables."""
        spans = [block.keys[column] for block in self.blocks if column in block.keys]
        if (
            self.late is not None
            or any(low < 0 for low, _ in spans)
            or self.text_bytes > self.run.lake_bytes
        ):
            return []
        return number_ranges((low << 6, (high << 6) + 63) for low, high in spans)

    @functools.cached_property
    def places(self) -> DataFrame:
        """For each file and block what its rows need to know: _path, _etag, _size, _modified, _replayed, _first, _before (lines)."""
        rows, before = [], Counter()
        for block in sorted(self.blocks, key=lambda block: (block.file, block.block)):
            raw = self.by_hash[block.file]
            rows.append(
                {
                    "_file": block.file,
                    "_block": block.block,
                    "_path": raw.stored.path,
                    "_etag": raw.stored.etag,
                    "_size": raw.stored.size,
                    "_modified": raw.stored.modified.isoformat(),
                    "_replayed": raw.known,
                    "_first": block.first,
                    "_before": before[raw.id],
                }
            )
            before[raw.id] += block.lines
        ddl = (
            "_file BIGINT, _block BIGINT, _path STRING, _etag STRING, _size BIGINT, _modified TIMESTAMP, _replayed BOOLEAN, "
            "_first BIGINT, _before BIGINT"
        )
        return F.broadcast(local_frame(self.run.spark, rows, ddl))

    def placed(self, rows: DataFrame) -> DataFrame:
        """Rows with their file and physical line."""
        line = F.coalesce("_line", F.col("_mid") - F.col("_first") + F.col("_before") + 1)
        return (
            rows.join(self.places, ["_file", "_block"])
            .withColumn("_line", line)
            .drop("_first", "_before")
        )

    # -- deciding ------------------------------------------------------------------------------------------------------
    def decide(self) -> None:
        """Find the outcome of every valid row, and of the parked rows that this batch may concern."""
        self.late = self.run.parked_rows(self)
        if not self.blocks and self.late is None:
            return
        target = self.run.lake[self.table.name].read()
        rows, few = self._decide_in_bulk(target) if self.large else (self.valid, True)
        if rows is None and self.late is None:
            return
        candidates = self.placed(
            rows if rows is not None else self.run.empty_stage(self.table)
        ).withColumn("_late", F.lit(False))
        if self.late is not None:
            candidates = candidates.unionByName(self.late)
        if target is not None:
            keys = candidates.select(self.table.key).distinct()
            target = target.where(within(self.table.key, self.ranges(self.table.key)))
            target = target.join(
                F.broadcast(keys) if few else keys, self.table.key, how="left_semi"
            )
        parents = {
            parent.dataset: self.run.parent_keys(parent, candidates, self)
            for parent in self.table.parents
        }
        self.decided = hold(decide(candidates, self.table, parents, target), few)
        self._count_decided()

    def _count_decided(self) -> None:
        groups = (
            self.decided.groupBy("_file", "_late", "_outcome")
            .agg(
                F.count(F.lit(1)).alias("rows"),
                F.collect_set(F.when(F.col("_outcome") == UPDATED, F.col("_old_partition"))).alias(
                    "old"
                ),
            )
            .collect()
        )
        for group in groups:
            if group["_late"] and group["_outcome"] == PARKED:
                self.still_parked += group["rows"]
            elif group["_late"]:
                self.admitted[group["_outcome"]] += group["rows"]
            else:
                self.counts[self.by_hash[group["_file"]].id][group["_outcome"]] += group["rows"]
            self.old_dates += group["old"]

    def _decide_in_bulk(self, target: DataFrame | None) -> tuple[DataFrame | None, bool]:
        """Decide by blocks of keys what needs no closer look; returns the rows that do, or None, and whether they are few."""
        if (
            target is None
            and self.late is None
            and all_different(self.blocks)
            and not self.orphan_blocks
        ):
            for block in self.blocks:
                self.counts[self.by_hash[block.file].id][INSERTED] += block.classes[RECORD]
            self.bulk = self.valid if self.total(RECORD) else None
            return None, True
        if target is not None:
            target = target.where(within(self.table.key, self.ranges(self.table.key)))
        blocks = classify_blocks(self.keys, target, self.table).persist()
        counts = self._verdicts(blocks)
        doubtful = [self._late_blocks()] if self.late is not None else []
        if any(
            verdict != UNCHANGED for _, verdict in counts
        ):  # what the table holds already came with its parents
            doubtful += self.orphan_blocks
        if doubtful:
            found = (
                functools.reduce(DataFrame.unionByName, doubtful)
                .distinct()
                .withColumn("_doubt", F.lit(True))
            )
            verdict = F.when(F.col("_doubt"), DOUBTFUL).otherwise(F.col("_class"))
            blocks = (
                blocks.join(found, "_b", how="left")
                .select("_b", "_rows", verdict.alias("_class"))
                .persist()
            )
            counts = self._verdicts(blocks)
        verdicts: Counter = Counter()
        for (file, verdict), rows in counts.items():
            verdicts[verdict] += rows
            if verdict != DOUBTFUL:
                self.counts[self.by_hash[file].id][verdict] += rows
        if verdicts[INSERTED]:
            self.bulk = self._in_blocks(blocks, INSERTED, verdicts)
        return self._in_blocks(blocks, DOUBTFUL, verdicts) if verdicts[
            DOUBTFUL
        ] else None, verdicts[DOUBTFUL] < FEW_ROWS

    @staticmethod
    def _verdicts(blocks: DataFrame) -> dict[tuple[int, str], int]:
        """Rows by file and verdict."""
        groups = (
            blocks.select("_class", F.inline("_rows"))
            .groupBy("_file", "_class")
            .agg(F.sum("_n").alias("rows"))
            .collect()
        )
        return {(group["_file"], group["_class"]): group["rows"] for group in groups}

    def _in_blocks(self, blocks: DataFrame, verdict: str, verdicts: Counter) -> DataFrame:
        """The valid rows of the blocks with a verdict."""
        if verdicts[verdict] == sum(verdicts.values()):
            return self.valid
        keep = verdicts[verdict] * 2 <= sum(verdicts.values())
        chosen = blocks.where((F.col("_class") == verdict) == F.lit(keep)).select("_b")
        numbered = self.valid.withColumn("_b", F.shiftright(key_number(F.col(self.table.key)), 6))
        return numbered.join(chosen, "_b", how="left_semi" if keep else "left_anti").drop("_b")

    @functools.cached_property
    def orphan_blocks(self) -> list[DataFrame]:
        """Blocks of keys (_b) that hold a row whose parent has not come; none where all parents have."""
        parents = self.table.parents
        if not parents:
            return []
        wanted = self.keys.where((F.col("_column") > 0) & (F.col("_class") == RECORD)).select(
            "_column", "_b", "_bits"
        )
        held = [
            self.run.parent_bits(parent, self).select(F.lit(place).alias("_column"), "_b", "_bits")
            for place, parent in enumerate(parents, 1)
        ]
        lacking = lacking_parents(wanted, functools.reduce(DataFrame.unionByName, held)).persist()
        return [
            self._blocks_that_name(
                parents[row["_column"] - 1], lacking.where(F.col("_column") == row["_column"])
            )
            for row in lacking.select("_column").distinct().collect()
        ]

    def _blocks_that_name(self, parent: Parent, lacking: DataFrame) -> DataFrame:
        """Blocks of keys that hold a row with a parent's key which is lacking."""
        named = (
            key_bits(self.valid, F.col(parent.column), F.col(self.table.key))
            .join(lacking, "_b")
            .where("(_bit & _lacking) <> 0")
        )
        return key_bits(named, F.col(self.table.key)).select("_b").distinct()

    def _late_blocks(self) -> DataFrame:
        return key_bits(self.late, F.col(self.table.key)).select("_b").distinct()

    def bits(self) -> DataFrame:
        """The keys of the batch as blocks (_b) of _bits."""
        if self.large:
            return self.keys.where((F.col("_column") == 0) & (F.col("_class") == RECORD)).select(
                "_b", "_bits"
            )
        return key_bits(self.valid, F.col(self.table.key)).select(
            "_b", F.col("_bit").alias("_bits")
        )

    # -- outcomes --------------------------------------------------------------------------------------------------
    def check_conservation(self) -> None:
        """Raise where the rows of a file are not the sum of their outcomes."""
        records, rejected, headers = Counter(), Counter(), Counter()
        for block in self.blocks:
            file = self.by_hash[block.file].id
            records[file] += block.records
            rejected[file] += block.classes[FAULTY]
            headers[file] += block.classes[HEADER]
        for file, count in headers.items():
            records[file], rejected[file] = (
                records[file] + count - 1,
                rejected[file] + count - 1,
            )  # a header that stands once more is a row
        for raw in self.files:
            self.counts[raw.id][REJECTED] = rejected[raw.id]
            outcomes = {name: self.counts[raw.id][name] for name in OUTCOMES}
            if records[raw.id] != sum(outcomes.values()):
                raise ConservationError(
                    f"{raw.stored.path}: {records[raw.id]} rows were read, but their outcomes add up to {sum(outcomes.values())}: {outcomes}. "
                    "Nothing of this run is in the ledger, and the file stays in the raw zone; run again, and report this if it comes back"
                )
            self.counts[raw.id]["rows_read"] = records[raw.id]

    @property
    def totals(self) -> Counter:
        """Rows by outcome, those of the files and those admitted, and rows_read."""
        return functools.reduce(
            lambda total, counter: total + counter, self.counts.values(), Counter(self.admitted)
        )

    def measures(self) -> dict[str, Any]:
        """The dataset's numbers for the summary."""
        total = self.totals
        numbers: dict[str, Any] = {
            "rows_read": total["rows_read"],
            "admitted": sum(self.admitted.values()),
        }
        numbers.update({name: total[name] for name in OUTCOMES})
        numbers["rejected_by_reason"] = dict(sorted(self.reasons.items()))
        if numbers["rows_read"] + numbers["admitted"] != sum(numbers[name] for name in OUTCOMES):
            raise ConservationError(
                f"{self.table.dataset}: rows_read + admitted differ from the sum of the outcomes: {numbers}"
            )
        return numbers

    def rejects(self) -> DataFrame | None:
        """Rejected and newly parked rows in the shape of `rejected_records`."""
        frames, run_id = [], self.run.arguments.run_id
        if self.total(FAULTY):
            bad = self.staged.where((F.col("_kind") == RECORD) & F.col("_reasons").isNotNull())
            frames.append(
                rejected_frame(self.placed(bad), self.table, run_id, REJECTED, F.col("_reasons"))
            )
        if self.total(HEADER) > len({block.file for block in self.blocks}):
            order = Window.partitionBy("_file").orderBy("_block", "_mid")
            again = (
                self.staged.where(F.col("_kind") == HEADER)
                .withColumn("_nth", F.row_number().over(order))
                .where("_nth > 1")
                .drop("_nth")
            )
            frames.append(
                rejected_frame(
                    self.placed(again),
                    self.table,
                    run_id,
                    REJECTED,
                    F.array(F.lit("repeated_header")),
                )
            )
        if any(counter[PARKED] for counter in self.counts.values()):
            fields = F.create_map(
                *[
                    part
                    for name in self.table.column_names
                    for part in (F.lit(name), F.col(name).cast("string"))
                ]
            )
            waiting = self.decided.where(
                (F.col("_outcome") == PARKED) & ~F.col("_late")
            ).withColumn("_fields", fields)
            reasons = F.transform("_lacks", lambda name: F.substring_index(name, ":", 1))
            frames.append(rejected_frame(waiting, self.table, run_id, PARKED, reasons))
        return functools.reduce(DataFrame.unionByName, frames) if frames else None

    def changes(self) -> tuple[DataFrame | None, int, int]:
        """Rows to write with the table's columns, and how many are inserted and updated."""
        total = self.totals
        frames = [self.bulk.select(self.table.column_names)] if self.bulk is not None else []
        if self.decided is not None:
            winners = self.decided.where(F.col("_outcome").isin(INSERTED, UPDATED))
            frames.append(winners.select(self.table.column_names))
        return (
            (functools.reduce(DataFrame.unionByName, frames) if frames else None),
            total[INSERTED],
            total[UPDATED],
        )

    def commit(self) -> None:
        """Write what changed in one commit: an append where all rows are new, else a MERGE; nothing where nothing changed."""
        lake = self.run.lake[self.table.name]
        changes, inserted, updated = self.changes()
        if not lake.exists or (inserted and not updated):
            frame = changes if inserted else local_frame(self.run.spark, [], self.table.ddl)
            shuffle = {"optimizeWrite": "false"} if self._comes_by_partition() else {}
            lake.append(
                frame,
                self.table.partition,
                self.table.statistics,
                userMetadata=self.run.stamp(),
                **shuffle,
            )
        elif updated:
            self._merge(lake, changes)
        self._check_commit(lake, inserted, updated)
        if self.large and (inserted or updated):
            self._check_files_again(lake)
        if self.table.partition and (inserted or updated):
            lake.dates = sorted(
                {
                    path.split("=", 1)[1].split("/", 1)[0]
                    for commit in lake.log.commits(after=lake.before)
                    for path in commit.added
                    if path.startswith(f"{self.table.partition}=")
                }
            )

    def _comes_by_partition(self) -> bool:
        """Whether a large batch lies by days already, so that Delta need not shuffle it to write few files: each block of a file holds few."""
        if self.bulk is None or self.decided is not None or not self.table.partition:
            return False
        spans = [block.days for block in self.blocks if block.days is not None]
        days = {
            low + dt.timedelta(days=number)
            for low, high in spans
            for number in range(min((high - low).days, MOST_DATES) + 1)
        }
        return sum((high - low).days + 1 for low, high in spans) <= 2 * len(days)

    def _merge(self, lake: LakeTable, changes: DataFrame) -> None:
        from delta.tables import DeltaTable

        condition = f"t.`{self.table.key}` = s.`{self.table.key}`"
        dates = sorted({date for date in self.old_dates if date is not None})
        if self.table.partition and None not in self.old_dates and len(dates) <= MOST_DATES:
            condition += f" AND t.`{self.table.partition}` IN ({', '.join(f'''DATE '{date}' ''' for date in dates)})"
        values = {f"`{name}`": f"s.`{name}`" for name in self.table.column_names}
        self.run.spark.conf.set("spark.databricks.delta.commitInfo.userMetadata", self.run.stamp())
        try:
            merge = (
                DeltaTable.forPath(self.run.spark, lake.path)
                .alias("t")
                .merge(changes.alias("s"), condition)
            )
            merge.whenMatchedUpdate(set=values).whenNotMatchedInsert(values=values).execute()
        finally:
            self.run.spark.conf.unset("spark.databricks.delta.commitInfo.userMetadata")

    def _check_files_again(self, lake: LakeTable) -> None:
        """A large batch was read once to decide and once to write: where a file has changed in between, take the commit back and fail."""
        changed = self.run.changed(self.files)
        if changed:
            lake.take_back()
            names = ", ".join(raw.stored.path for raw in self.files if raw.id in changed)
            raise JobError(
                f"{names}: overwritten or deleted while {self.table.name} was written; the table is as it was before. Run again"
            )

    def _check_commit(self, lake: LakeTable, inserted: int, updated: int) -> None:
        """Hold the commit's own metrics against the decided counts."""
        commits = [
            commit
            for commit in lake.log.commits(after=lake.before)
            if commit.operation in ("WRITE", "MERGE")
        ]
        metrics = commits[0].metrics if commits else {}
        wrote = (
            int(metrics.get("numTargetRowsInserted", metrics.get("numOutputRows", 0))),
            int(metrics.get("numTargetRowsUpdated", 0)),
        )
        if wrote != (inserted, updated):
            raise ConservationError(
                f"{self.table.name}: {inserted} rows were to be inserted and {updated} updated, but Delta wrote {wrote}"
            )


# ---------------------------------------------------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------------------------------------------------
RECORD_TABLES = ("rejected_records", "ingested_files", "etl_runs")
ROW_IDENTITY = ("file_path", "file_etag", "file_size", "line")


def progress(step: str) -> None:
    """Say which step is done; every commit of a run is followed by this call."""
    print(f"{dt.datetime.now(dt.UTC):%H:%M:%S} {step}", flush=True)


@dataclass
class Run:
    """One execution of the job."""

    arguments: JobArguments
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    files: list[RawFile] = field(default_factory=list)
    loads: dict[str, Load] = field(default_factory=dict)
    lake: dict[str, LakeTable] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    spark: Any = None
    lake_bytes: int = 0  # size of all tables when Spark was started
    crossed: bool = (
        False  # whether a file of this batch may have rows in rejected_records from before
    )

    # -- before Spark --------------------------------------------------------------------------------------------------
    def claim(self) -> bool:
        """List the raw zone once, look at each file's first line and at the ledger; true where there is something to do."""
        self.store = storage(self.arguments.raw_path)
        listed = sorted(self.store.list(), key=lambda stored: (stored.modified, stored.path))
        self.files = [
            raw
            for raw in in_threads(functools.partial(inspect_if_there, self.store), listed)
            if raw is not None
        ]
        known = self._known([raw.id for raw in self.files]) if self.files else set()
        self.files = [self._judged(raw, raw.id in known) for raw in self.files]
        return any(raw.outcome == "loaded" or not raw.known for raw in self.files)

    def _judged(self, raw: RawFile, known: bool) -> RawFile:
        """A file with what the ledger says of it."""
        if known and raw.outcome == "loaded" and not self.arguments.force:
            return replace(
                raw,
                known=True,
                outcome="duplicate",
                detail=f"{raw.stored.path}: these bytes were loaded before",
            )
        return replace(raw, known=known)

    def _known(self, ids: list[str]) -> set:
        """Which of the files are in the ledger: by its log where that is whole, else by the table itself."""
        path = self.arguments.path_of("ingested_files")
        found, whole = DeltaLog(path).file_ids()
        if whole or set(ids) <= found:
            return found & set(ids)
        self.start_spark()
        ledger = (
            self.spark.read.format("delta")
            .load(path)
            .select("file_path", "file_etag", "file_size")
            .distinct()
        )
        stored = (
            StoredObject(row[0], row[1], row[2], self.started) for row in ledger.toLocalIterator()
        )
        return {RawFile(one).id for one in stored} & set(ids)

    def changed(self, raws: list[RawFile]) -> set:
        """Ids of files that are no more what was listed; they stay in the raw zone for the next run."""
        now = {stored.path: stored for stored in self.store.list()}

        def differs(raw: RawFile) -> bool:
            other = now.get(raw.stored.path)
            if other is None or other.size != raw.stored.size:
                return True
            return (
                other.etag != raw.stored.etag
                if other.etag
                else other.modified != raw.stored.modified
            )

        gone = {raw.id for raw in raws if differs(raw)}
        detail = "overwritten or deleted while the run read it; it stays for the next run"
        self.files = [
            replace(raw, outcome="changed", detail=f"{raw.stored.path}: {detail}")
            if raw.id in gone
            else raw
            for raw in self.files
        ]
        return gone

    # -- Spark ---------------------------------------------------------------------------------------------------------
    def start_spark(self) -> None:
        if self.spark is None:
            logs = [
                DeltaLog(self.arguments.path_of(name))
                for name in (*(table.name for table in TABLES), "rejected_records")
            ]
            self.lake_bytes = sum(in_threads(DeltaLog.table_bytes, logs))
            self.spark = spark_session(
                sum(raw.stored.text_bytes for raw in self.files), self.lake_bytes
            )

    def raw_path(self, raw: RawFile) -> str:
        return self.arguments.raw_path + raw.stored.path

    def by_hash(self, raws: list[RawFile]) -> dict[int, RawFile]:
        """Which file a value of `_file` means."""
        return {number: raw for raw in raws for number in self.hashes[raw.stored.path]}

    @functools.cached_property
    def hashes(self) -> dict[str, list[int]]:
        """The values of `_file` of each file to load; Spark's own names for them are URL-encoded."""

        def bare(path: str) -> str:
            return re.sub(r"^\w+:/*|^/+", "", path)

        by_path = {bare(self.raw_path(raw)): raw.stored.path for raw in self.loaded}
        names = (
            physical_lines(self.spark, [self.raw_path(raw) for raw in self.loaded]).inputFiles()
            if self.loaded
            else []
        )
        spellings = {
            spelling for name in names for spelling in (name, re.sub("^file:///", "file:/", name))
        }
        frame = local_frame(
            self.spark, [{"name": name} for name in sorted(spellings)], "name STRING"
        )
        found: dict[str, list[int]] = defaultdict(list)
        for row in frame.select("name", F.xxhash64("name").alias("hash")).collect():
            found[by_path[bare(urllib.parse.unquote(row["name"]))]].append(row["hash"])
        return found

    def empty_stage(self, table: Table) -> DataFrame:
        ddl = (
            "_file BIGINT, _block BIGINT, _mid BIGINT, _line BIGINT, _kind INT, _odd BOOLEAN, _reasons ARRAY<STRING>, _raw STRING, "
            "_fields MAP<STRING, STRING>, "
        )
        return local_frame(self.spark, [], ddl + table.ddl)

    def stamp(self, **more: Any) -> str:
        """What a commit's userMetadata says of the run that made it."""
        return json.dumps({"run_id": self.arguments.run_id, **more})

    @property
    def loaded(self) -> list[RawFile]:
        return [raw for raw in self.files if raw.outcome == "loaded"]

    # -- late parents --------------------------------------------------------------------------------------------------
    @functools.cached_property
    def parked(self) -> DataFrame | None:
        """All rows that wait for a parent, or None where none does."""
        table, files = self.lake["rejected_records"].read(), self.lake["rejected_records"].files()
        if (
            table is None
            or files is not None
            and not any(path.startswith(f"status={PARKED}/") for path in files)
        ):
            return None
        rows = hold(table.where(F.col("status") == PARKED))
        return None if rows.isEmpty() else rows

    def in_batch(self, rows: DataFrame) -> SparkColumn:
        raws = [raw.stored for raw in self.loaded]
        return F.concat_ws("\n", "file_path", "file_etag").isin(
            [f"{one.path}\n{one.etag}" for one in raws]
        )

    def parked_rows(self, load: Load) -> DataFrame | None:
        """Parked rows whose key, or whose parent, this batch brings; in the shape of candidates for `decide`."""
        table = load.table
        if not table.parents or self.parked is None:
            return None
        waiting = self.parked.where(
            (F.col("dataset") == table.dataset) & ~self.in_batch(self.parked)
        )
        keys = [
            waiting.join(
                load.valid.select(F.col(table.key).alias("record_key")),
                "record_key",
                how="left_semi",
            )
        ]
        for parent in table.parents:
            brought = self.loads[parent.dataset]
            arrived = brought.valid.select(F.col(brought.table.key).alias(parent.column))
            keys.append(waiting.join(arrived, parent.column, how="left_semi"))
        concerned = functools.reduce(
            DataFrame.unionByName, [frame.select("record_key") for frame in keys]
        ).distinct()
        rows = waiting.join(concerned, "record_key", how="left_semi")
        text = {name: F.col("fields").getItem(name) for name in table.column_names}
        keep = [
            F.lit(None).cast("bigint").alias("_file"),
            F.lit(0).cast("bigint").alias("_block"),
            F.col("line").alias("_mid"),
            F.col("line").alias("_line"),
            F.lit(RECORD).alias("_kind"),
            F.lit(False).alias("_odd"),
            F.col("raw").alias("_raw"),
            F.col("file_path").alias("_path"),
            F.col("file_etag").alias("_etag"),
            F.col("file_size").alias("_size"),
            F.col("file_modified").alias("_modified"),
            F.lit(False).alias("_replayed"),
            F.lit(True).alias("_late"),
        ]
        late = hold(typed(rows, table, text, keep, F.lit(None).cast("string")))
        return None if late.isEmpty() else late

    def keys_in_table(self, parent: Parent, load: Load) -> DataFrame | None:
        """The keys (column `key`) of a parent's table, or None where there is none; at least those that the batch names."""
        key, table = (
            self.loads[parent.dataset].table.key,
            self.lake[self.loads[parent.dataset].table.name].read(),
        )
        return (
            None
            if table is None
            else table.where(within(key, load.ranges(parent.column))).select(
                F.col(key).alias("key")
            )
        )

    def parent_keys(self, parent: Parent, rows: DataFrame, load: Load) -> DataFrame:
        """The distinct parents' keys, among those that rows name, that have come."""
        brought, held = self.loads[parent.dataset], self.keys_in_table(parent, load)
        known = brought.valid.select(F.col(brought.table.key).alias("key"))
        known = known if held is None else known.unionByName(held)
        return known.join(
            rows.select(F.col(parent.column).alias("key")).distinct(), "key", how="left_semi"
        ).distinct()

    def parent_bits(self, parent: Parent, load: Load) -> DataFrame:
        """The parents' keys that have come as blocks (_b) of _bits, any number of times."""
        brought, held = self.loads[parent.dataset].bits(), self.keys_in_table(parent, load)
        return (
            brought
            if held is None
            else brought.unionByName(
                key_bits(held, F.col("key")).select("_b", F.col("_bit").alias("_bits"))
            )
        )

    # -- commits -------------------------------------------------------------------------------------------------------
    def write_rejects(self) -> None:
        """Append the rejected and newly parked rows that are not recorded yet, and count their reasons."""
        frames = [
            frame for frame in (load.rejects() for load in self.loads.values()) if frame is not None
        ]
        table, ids = self.lake["rejected_records"], [raw.id for raw in self.loaded]
        recorded, whole = table.log.file_ids()
        self.crossed = table.exists and (
            not whole or any(raw.known for raw in self.loaded) or bool(recorded & set(ids))
        )
        if not frames:
            if not table.exists:
                table.note([], REJECTED_DDL, "status")
            return
        rows = hold(functools.reduce(DataFrame.unionByName, frames))
        place = F.struct("file_path", "line", "raw")
        groups = (
            rows.select(
                "dataset", "status", F.explode("reasons").alias("reason"), place.alias("place")
            )
            .groupBy("dataset", "status", "reason")
            .agg(F.count(F.lit(1)).alias("rows"), F.min("place").alias("first"))
            .collect()
        )
        for group in groups:
            if group["status"] == REJECTED:
                self.loads[group["dataset"]].reasons[group["reason"]] = group["rows"]
            self.examples.append(
                {
                    "dataset": group["dataset"],
                    "reason": group["reason"],
                    "rows": group["rows"],
                    **group["first"].asDict(),
                }
            )
        if self.crossed:
            recorded_rows = table.read().where(self.in_batch(rows)).select(*ROW_IDENTITY)
            rows = hold(
                rows.join(recorded_rows, list(ROW_IDENTITY), how="left_anti").select(rows.columns)
            )
            if rows.isEmpty():
                return
        table.append(rows, "status", userMetadata=self.stamp(files=ids))

    def settle_parked(self) -> None:
        """Mark the parked rows that were admitted or superseded; after their tables are committed, so that none can be lost."""
        frames = []
        for load in self.loads.values():
            if load.admitted:
                left = load.decided.where(F.col("_late") & (F.col("_outcome") != PARKED))
                status = F.when(F.col("_outcome") == SUPERSEDED, SUPERSEDED).otherwise("admitted")
                frames.append(
                    left.select(
                        F.col("_path").alias("file_path"),
                        F.col("_etag").alias("file_etag"),
                        F.col("_size").alias("file_size"),
                        F.col("_line").alias("line"),
                        status.alias("status"),
                    )
                )
            if load.table.parents and self.crossed and self.parked is not None:
                reread = self.parked.where(
                    (F.col("dataset") == load.table.dataset) & self.in_batch(self.parked)
                ).select(*ROW_IDENTITY)
                if load.decided is not None:
                    again = load.decided.where((F.col("_outcome") == PARKED) & ~F.col("_late"))
                    again = again.select(
                        F.col("_path").alias("file_path"), F.col("_line").alias("line")
                    )
                    reread = reread.join(again, ["file_path", "line"], how="left_anti")
                frames.append(reread.select(*ROW_IDENTITY, F.lit("admitted").alias("status")))
        if not frames:
            return
        settled = hold(functools.reduce(DataFrame.unionByName, frames))
        if settled.isEmpty():
            return
        from delta.tables import DeltaTable

        same = " AND ".join(f"t.{name} = s.{name}" for name in ROW_IDENTITY)
        records = DeltaTable.forPath(self.spark, self.lake["rejected_records"].path).alias("t")
        merge = records.merge(settled.alias("s"), f"t.status = 'parked' AND {same}")
        merge.whenMatchedUpdate(
            set={"status": "s.status", "resolved_run_id": F.lit(self.arguments.run_id)}
        ).execute()

    def write_ledger(self) -> None:
        """The files of this run by path, content and size: from here on they are known."""
        now, rows, ids = dt.datetime.now(dt.UTC), [], []
        for raw in self.files:
            if raw.known or raw.outcome not in ("loaded", "set_aside"):
                continue
            counts = (
                self.loads[raw.dataset].counts[raw.id] if raw.outcome == "loaded" else Counter()
            )
            ids.append(raw.id)
            rows.append(
                {
                    "run_id": self.arguments.run_id,
                    "dataset": raw.dataset,
                    "file_path": raw.stored.path,
                    "file_etag": raw.stored.etag,
                    "file_size": raw.stored.size,
                    "file_modified": raw.stored.modified.isoformat(),
                    "outcome": raw.outcome,
                    "reason": raw.reason,
                    "ingested_at": now.isoformat(),
                    **{name: counts[name] for name in ("rows_read", *OUTCOMES)},
                }
            )
        table = self.lake["ingested_files"]
        if rows or not table.exists:
            table.note(rows, LEDGER_DDL, userMetadata=self.stamp(files=ids))

    def write_run(self, summary: dict[str, Any]) -> None:
        """One row of `etl_runs`, with the version of each table after the run; none where a run of this id has written its row already."""
        if self.arguments.run_id in self.lake["etl_runs"].log.run_ids(MOST_COMMITS):
            return
        versions = {
            name: numbers["version"]
            for name, numbers in summary["tables"].items()
            if numbers["version"] is not None
        }
        row = {
            "run_id": self.arguments.run_id,
            "operation": "load",
            "status": "SUCCEEDED",
            "started_at": self.started.isoformat(),
            "finished_at": dt.datetime.now(dt.UTC).isoformat(),
            "summary": json.dumps(summary),
            "table_versions": versions,
        }
        self.lake["etl_runs"].note([row], RUNS_DDL, userMetadata=self.stamp())

    def manifest(self) -> str:
        """One JSON line for each file listed, in the order of delivery."""
        lines = []
        for raw in self.files:
            rows = (
                self.loads[raw.dataset].counts[raw.id]["rows_read"]
                if raw.outcome == "loaded" and raw.dataset in self.loads
                else 0
            )
            lines.append(
                json.dumps(
                    {
                        "bucket": self.store.bucket,
                        "key": self.store.key(raw.stored.path),
                        "path": raw.stored.path,
                        "etag": raw.stored.etag,
                        "size": raw.stored.size,
                        "last_modified": iso(raw.stored.modified),
                        "dataset": raw.dataset,
                        "outcome": raw.outcome,
                        "reason": raw.reason,
                        "detail": raw.detail,
                        "rows_read": rows,
                        "ignored_columns": list(raw.ignored_columns),
                        "destination": raw.destination,
                    },
                    ensure_ascii=False,
                )
            )
        return "".join(line + "\n" for line in lines)

    def summary(self, status: str, error: str | None = None) -> dict[str, Any]:
        """The run in numbers; see the README for each name."""
        outcomes = Counter(raw.outcome for raw in self.files)
        files: dict[str, Any] = {"listed": len(self.files)}
        files.update(
            {name: outcomes[name] for name in ("loaded", "duplicate", "set_aside", "changed")}
        )
        files["set_aside_by_reason"] = dict(
            sorted(Counter(raw.reason for raw in self.files if raw.reason).items())
        )
        zero = {
            "rows_read": 0,
            "admitted": 0,
            **{name: 0 for name in OUTCOMES},
            "rejected_by_reason": {},
        }
        datasets = {
            table.dataset: self.loads[table.dataset].measures()
            if status == "SUCCEEDED"
            else dict(zero)
            for table in TABLES
        }
        return {
            "run_id": self.arguments.run_id,
            "status": status,
            "started_at": iso(self.started),
            "finished_at": iso(dt.datetime.now(dt.UTC)),
            "error": error,
            "files": files,
            "manifest_entries": len(self.files),
            "datasets": datasets,
            "tables": {},
            "crawl_needed": False,
            "reject_examples": sorted(
                self.examples, key=lambda one: (one["dataset"], one["reason"])
            ),
            "timings": {phase: round(seconds, 2) for phase, seconds in self.timings.items()},
        }

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Write manifest and summary, the summary last: it says that the run is done."""
        runs = storage(self.arguments.runs_path)
        if summary["status"] != "FAILED":
            runs.write_text(f"{self.arguments.run_id}/manifest.jsonl", self.manifest())
        runs.write_text(
            f"{self.arguments.run_id}/summary.json",
            json.dumps(summary, indent=1, ensure_ascii=False) + "\n",
        )
        return summary

    def timed(self, phase: str, step: Callable[[], Any]) -> Any:
        begin = time.monotonic()
        result = step()
        self.timings[phase] = self.timings.get(phase, 0.0) + time.monotonic() - begin
        progress(phase)
        return result


def iso(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def execute(run: Run) -> dict[str, Any]:
    """One run from listing to summary; the order of the commits is what makes a crash between any two of them harmless."""
    if not run.timed("files listed", run.claim):
        return run.finish(run.summary("NOTHING_NEW"))
    run.timed("Spark started", run.start_spark)
    names = [table.name for table in TABLES] + list(RECORD_TABLES)
    run.lake = dict(
        zip(
            names, in_threads(lambda name: LakeTable(run.spark, run.arguments.path_of(name)), names)
        )
    )
    large = sum(raw.stored.text_bytes for raw in run.loaded) > LARGE_BYTES
    for table in TABLES:
        files = [raw for raw in run.loaded if raw.dataset == table.dataset]
        run.loads[table.dataset] = Load(run, table, files, large and bool(files))
    loads = list(run.loads.values())
    run.timed("files named", lambda: run.hashes)
    run.timed("rows read and checked", lambda: in_threads(Load.stage, loads))
    run.timed("outcomes decided", lambda: in_threads(Load.decide, loads))
    for load in loads:
        load.check_conservation()
    run.timed("committed rejected_records", run.write_rejects)
    for load in loads:
        run.timed(f"committed {load.table.name}", load.commit)
    run.timed("settled parked rows", run.settle_parked)
    run.timed("committed ingested_files", run.write_ledger)
    summary = run.summary("SUCCEEDED")
    run.timed(
        "tables counted",
        lambda: summary["tables"].update(
            zip(names, in_threads(lambda name: run.lake[name].summary(), names[:-1]))
        ),
    )
    summary["crawl_needed"] = any(
        numbers["schema_changed"] for numbers in summary["tables"].values()
    )
    run.timed("committed etl_runs", lambda: run.write_run(summary))
    summary["tables"]["etl_runs"] = run.lake["etl_runs"].summary()
    summary["crawl_needed"] = (
        summary["crawl_needed"] or summary["tables"]["etl_runs"]["schema_changed"]
    )
    summary["timings"] = {phase: round(seconds, 2) for phase, seconds in run.timings.items()}
    return run.finish(summary)


def cause_of(error: Exception) -> str:
    """What went wrong in one line; of an error in Java its first cause, since the last only says that a call has failed."""
    java, kind, text = getattr(error, "java_exception", None), type(error).__name__, str(error)
    while java is not None:
        kind, text, java = java.getClass().getName(), java.getMessage() or "", java.getCause()
    return f"{kind}: {next(iter(text.strip().splitlines()), 'no message')}"[:2000]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    run = Run(JobArguments.from_argv(sys.argv[1:] if argv is None else argv))
    try:
        summary = execute(run)
    except (
        Exception
    ) as error:  # the edge of the job: whatever failed must be in the summary and fail the run
        traceback.print_exc()
        cause = cause_of(error)
        run.finish(run.summary("FAILED", cause))
        print(f"glue_etl.py: the run {run.arguments.run_id} failed: {cause}", file=sys.stderr)
        return 1
    finally:
        if run.spark is not None:
            run.spark.catalog.clearCache()
    print(
        json.dumps(
            {
                "run_id": summary["run_id"],
                "status": summary["status"],
                "datasets": summary["datasets"],
            }
        )
    )
    return 0


if __name__ == "__main__":
    EXIT_CODE = main()
    if EXIT_CODE:  # Glue takes any SystemExit for a failure, 0 included
        sys.exit(EXIT_CODE)
