"""Make a young lake a year old, without a run of the job for each of its commits.

    tables, rejected = folder / "lakehouse-dwh", folder / "rejected"
    age(tables, rejected)                            a year old
    age(tables, rejected, commits=3, cleaned=False)  the same rows, and a young log

`age` appends commits to the tables of a lake that a first delivery has made. It writes Parquet
files and Delta's log itself, so that a year takes seconds:

| table                             | rows added                                                   |
|-----------------------------------|--------------------------------------------------------------|
| clean_products                    | `PRODUCTS`                                                   |
| clean_orders, clean_orders_items  | `ORDERS_PER_DAY` a day, `ITEMS_PER_ORDER` an order           |
| ingested_files                    | `files`, each with a random digest                           |
| rejected_records                  | `rejects`, see `STATUSES`; parked rows wait for ever         |
| etl_runs, corrections             | one a day; `CORRECTIONS`                                     |

The rows are valid and fit together: an item has its order and its product, a rejected row has its
file in the ledger, whose counts add up. All keys are above `FIRST_KEY`. All days are in the year
before the lake's first order, so a later delivery touches none of their partitions. The same
arguments give the same rows, except for `etl_runs.table_versions`, which follows the commits.

The log looks as Spark would have left it: each file has the statistics that the table's properties
ask for, and small files of unpartitioned tables are compacted now and then. Protocol, properties
and schema of the tables stay as they are. If `cleaned`, each log ends with a checkpoint, and the
older part of the log is deleted, as Delta does after 30 days: older versions cannot be read.

Columns are filled by name from the table's own schema. A new column of a record table needs its
values here; `age` fails until it has them.
"""

from __future__ import annotations

import bisect
import datetime as dt
import itertools
import json
import os
import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

DAYS = 365
PRODUCTS = 600
ORDERS_PER_DAY = 40
ITEMS_PER_ORDER = 3
CORRECTIONS = 100
FIRST_KEY = 7_000_000_000  # of products, orders and items; deliveries have shorter keys
ABSENT_KEY = 8_000_000_000  # of rows that are in no table, and of parents that never come
COMPACT_AFTER = 40  # appends; Delta's auto compaction starts at 50 files
STAT_CHARACTERS = 32  # of a text in a file's statistics
SEED = 2025

DATASETS = ("orders", "order_items", "products")
DEPARTMENTS = ("Books", "Clothing", "Electronics", "Garden", "Groceries", "Health", "Home", "Toys")
STATUSES = {"parked": 1, "admitted": 1, "superseded": 2, "rejected": 16}  # of 20 rejected rows
STATUS_CYCLE = [status for status, share in STATUSES.items() for _ in range(share)]
KEY_COLUMNS = {"products": "product_id", "orders": "order_id", "order_items": "id"}
INVALID_CELLS = {  # dataset -> reason, column, text
    "products": ("missing_product_id", "product_id", ""),
    "orders": ("invalid_total_amount", "total_amount", "ten"),
    "order_items": ("invalid_order_timestamp", "order_timestamp", "yesterday"),
}

Row = dict[str, Any]


def age(
    lakehouse: Path,
    rejected: Path,
    *,
    commits: int = 300,
    files: int = 100_000,
    rejects: int = 50_000,
    cleaned: bool = True,
) -> None:
    """Append a year of commits to each table of a lake.

    lakehouse  folder of the tables but `rejected_records`
    rejected   folder of `rejected_records`
    commits    commits for each table, fewer if a table gets fewer rows than that
    files      rows added to `ingested_files`
    rejects    rows added to `rejected_records`
    cleaned    write a checkpoint and delete the log before it; otherwise the log stays whole
    """
    year = _Year(_first_day(lakehouse / "clean_orders"), files, rejects)
    rows = year.rows()
    folders = {
        name: (rejected if name == "rejected_records" else lakehouse) / name for name in rows
    }
    tables = {
        name: _AgingTable(folder, rows[name], commits, cleaned)
        for name, folder in folders.items()
        if (folder / "_delta_log").is_dir()
    }
    if "etl_runs" in tables:
        summary = _latest_summary(folders["etl_runs"])
        for number, run in enumerate(rows["etl_runs"], 1):
            run["summary"] = json.dumps({**summary, "run_id": run["run_id"]})
            run["table_versions"] = {
                name: table.version_at(number / DAYS) for name, table in tables.items()
            }
    for table in tables.values():
        table.append()


def _first_day(orders: Path) -> dt.date:
    """Return the day a year before the lake's first order, or before today without orders."""
    days = [
        dt.date.fromisoformat(partition["date"])
        for partition in (DeltaTable(orders).partitions() if orders.is_dir() else [])
        if partition["date"]
    ]
    return min(days, default=dt.date.today()) - dt.timedelta(days=DAYS)


def _latest_summary(runs: Path) -> dict[str, Any]:
    """Return the summary of a run in the lake, as a model for those of the year."""
    summaries = DeltaTable(runs).to_pyarrow_table(columns=["summary"])["summary"].to_pylist()
    return json.loads(summaries[-1]) if summaries and summaries[-1] else {}


# ---- rows ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _RawFile:
    """A file that was loaded in the year."""

    run_id: str
    dataset: str
    columns: Row  # its path, digest, size and time
    loaded_at: dt.datetime
    counts: dict[str, int] = field(default_factory=lambda: {"rejected": 0, "parked": 0})


class _Year:
    """The rows of a year; each table's rows are in the order of their commits."""

    def __init__(self, first_day: dt.date, files: int, rejects: int) -> None:
        self.first_day, self.files, self.rejects = first_day, files, rejects
        self.random = random.Random(SEED)

    def rows(self) -> dict[str, list[Row]]:
        """Return the rows of each table by column name."""
        # With a small ledger the rejected rows need files too, one of each dataset
        raw_files = [self._raw_file(number) for number in range(max(self.files, len(DATASETS)))]
        rejected = [self._reject(number, raw_files) for number in range(self.rejects)]
        orders = DAYS * ORDERS_PER_DAY
        return {
            "rejected_records": rejected,
            "clean_products": [self._product(number) for number in range(PRODUCTS)],
            "clean_orders": [self._order(number) for number in range(orders)],
            "clean_orders_items": [
                self._item(number) for number in range(orders * ITEMS_PER_ORDER)
            ],
            "ingested_files": [self._ledger_row(file) for file in raw_files[: self.files]],
            "etl_runs": [self._run(number) for number in range(DAYS)],
            "corrections": [self._correction(number) for number in range(CORRECTIONS)],
        }

    def _moment(self, day: int, hour: int, second: int = 0) -> dt.datetime:
        midnight = dt.datetime.combine(self.first_day, dt.time(), dt.UTC)
        return midnight + dt.timedelta(days=day, hours=hour, seconds=second)

    def _raw_file(self, number: int) -> _RawFile:
        day = number * DAYS // max(self.files, len(DATASETS))
        dataset, digest = DATASETS[number % len(DATASETS)], self.random.randbytes(32).hex()
        date = self.first_day + dt.timedelta(days=day)
        columns = {
            "file_path": f"{dataset}/{date}_{number:06}.csv",
            "file_etag": digest,
            "file_digest": digest,
            "file_size": 20_000 + number % 50_000,
            "file_modified": self._moment(day, 3, number % 7_200),
        }
        return _RawFile(_run_id(day), dataset, columns, self._moment(day, 6))

    def _ledger_row(self, file: _RawFile) -> Row:
        zeros = dict.fromkeys(("updated", "unchanged", "superseded"), 0)
        return {
            **file.columns,
            **zeros,
            **file.counts,
            "run_id": file.run_id,
            "dataset": file.dataset,
            "outcome": "loaded",
            "reason": None,
            "rows_read": 100 + sum(file.counts.values()),
            "inserted": 100,
            "ingested_at": file.loaded_at,
        }

    def _product(self, number: int) -> Row:
        department = number % len(DEPARTMENTS)
        return {
            "product_id": str(FIRST_KEY + number),
            "department_id": str(department + 1),
            "department": DEPARTMENTS[department],
            "product_name": f"Product of last year {number}",
        }

    def _order(self, number: int) -> Row:
        day, position = divmod(number, ORDERS_PER_DAY)
        moment = self._moment(day, 0, position * 86_400 // ORDERS_PER_DAY)
        return {
            "order_num": str(number % 100 + 1),
            "order_id": str(FIRST_KEY + number),
            "user_id": str(1_000 + number % 5_000),
            "order_timestamp": moment,
            "total_amount": 5 + number % 20_000 / 100,
            "date": moment.date(),
        }

    def _item(self, number: int) -> Row:
        order, position = divmod(number, ITEMS_PER_ORDER)
        return {
            **self._order(order),
            "id": str(FIRST_KEY + number),
            "days_since_prior_order": number % 31 or None,
            "product_id": str(FIRST_KEY + number % PRODUCTS),
            "add_to_cart_order": position + 1,
            "reordered": number % 2 == 0,
        }

    def _reject(self, number: int, raw_files: Sequence[_RawFile]) -> Row:
        """Return a rejected row of a file, and count it there."""
        status = STATUS_CYCLE[number % len(STATUS_CYCLE)]
        place = number * len(raw_files) // self.rejects
        if status in ("parked", "admitted"):  # only items wait for parents
            items = DATASETS.index("order_items")
            place = min(place // 3 * 3, (len(raw_files) - items - 1) // 3 * 3) + items
        file = raw_files[place]
        file.counts["parked" if status in ("parked", "admitted") else "rejected"] += 1
        in_table = status in ("admitted", "superseded")
        valid = self._valid_row(file.dataset, number)
        if not in_table:
            valid[KEY_COLUMNS[file.dataset]] = str(ABSENT_KEY + number)
        if status in ("parked", "admitted"):
            reasons = ["orphan_order"]
            valid["order_id"] = valid["order_id"] if in_table else str(ABSENT_KEY + number)
            texts = _texts(valid)
        else:
            reason, column, text = INVALID_CELLS[file.dataset]
            reasons, texts = [reason], {**_texts(valid), column: text}
        return {
            **file.columns,
            "run_id": file.run_id,
            "dataset": file.dataset,
            "status": status,
            "reasons": reasons,
            "record_key": texts[KEY_COLUMNS[file.dataset]] or None,
            "order_id": texts.get("order_id"),
            "product_id": texts.get("product_id") or None,
            "line": 1 + sum(file.counts.values()),
            "raw": ",".join(texts.values()),
            "fields": texts,
            "resolved_run_id": file.run_id if in_table else None,
            "author": None,
            "why": None,
        }

    def _valid_row(self, dataset: str, number: int) -> Row:
        """Return a row of the dataset's table that the year has."""
        if dataset == "products":
            return self._product(number % PRODUCTS)
        if dataset == "orders":
            return self._order(number % (DAYS * ORDERS_PER_DAY))
        item = self._item(number % (DAYS * ORDERS_PER_DAY * ITEMS_PER_ORDER))
        return {name: item[name] for name in item if name not in ("order_num", "total_amount")}

    def _run(self, day: int) -> Row:
        """Return a day's run; `age` fills in its summary and the tables' versions."""
        return {
            "run_id": _run_id(day),
            "operation": "load",
            "status": "SUCCEEDED",
            "started_at": self._moment(day, 6),
            "finished_at": self._moment(day, 6, 120),
            "summary": "",
            "table_versions": {},
        }

    def _correction(self, number: int) -> Row:
        day, order = number * DAYS // CORRECTIONS, self._order(number)
        key = order["order_id"]
        texts = _texts(order)
        return {
            "run_id": f"correction-{number:03}",
            "author": "an operator",
            "statement": f"UPDATE clean_orders SET user_id = '1' WHERE order_id = '{key}'",
            "table_name": "clean_orders",
            "record_key": key,
            "operation": "update",
            "before": {**texts, "user_id": "1"},
            "after": texts,
            "corrected_at": self._moment(day, 12),
        }


def _run_id(day: int) -> str:
    return f"last-year-{day:03}"


def _texts(row: Row) -> dict[str, str]:
    """Return a row's values as the job writes them into `fields`."""
    return {name: _text(value) for name, value in row.items()}


def _text(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


# ---- commits -------------------------------------------------------------------------------------
@dataclass
class _DataFile:
    """A file of the table, and its rows."""

    path: str
    partition_values: dict[str, str]
    size: int
    rows: pa.Table


class _AgingTable:
    """A Delta table in a folder, to which commits are appended by hand."""

    def __init__(self, folder: Path, rows: Sequence[Row], commits: int, cleaned: bool) -> None:
        table = DeltaTable(folder)
        metadata = table.metadata()
        self.folder, self.rows, self.cleaned = folder, rows, cleaned
        self.log = folder / "_delta_log"
        self.version = table.version()
        self.schema = pa.schema(table.schema().to_arrow())
        self.partition_columns = metadata.partition_columns
        self.stat_columns = _stat_columns(
            metadata.configuration,
            [name for name in self.schema.names if name not in self.partition_columns],
        )
        unknown = [name for name in self.schema.names if rows and name not in rows[0]]
        if unknown:
            raise ValueError(f"{folder.name}: add values of {unknown} to tests/old_lake.py")
        if "date" in self.partition_columns:  # a day is a commit's, so its partition stays small
            self.bounds = _bounds_of_days([row["date"] for row in rows], commits)
            self.compactions = [False] * (len(self.bounds) - 1)
        else:
            self.compactions = [
                number % (COMPACT_AFTER + 1) == COMPACT_AFTER
                for number in range(min(commits, len(rows)))
            ]
            self.bounds = _bounds(len(rows), self.compactions.count(False))
        self.files: list[_DataFile] = []  # added by this and not compacted yet
        self.vacuumed = False  # whether files of the current commit are gone at the end

    def version_at(self, share: float) -> int:
        """Return the table's version after a share of the commits."""
        return self.version + round(share * len(self.compactions))

    def append(self) -> None:
        """Write the commits, and clean the log if asked to."""
        batches = itertools.pairwise(self.bounds)
        for number, compaction in enumerate(self.compactions):
            # VACUUM has deleted what a later commit of an old lake compacts: it is never written
            self.vacuumed = self.cleaned and any(self.compactions[number + 1 :])
            moment = self._moment_of(number)
            if compaction:
                self._commit("OPTIMIZE", self._compact(moment), moment)
            else:
                rows = self._arrow(self.rows[slice(*next(batches))])
                self._commit("WRITE", self._add(rows, moment), moment)
        if self.cleaned:
            self._clean()

    def _moment_of(self, number: int) -> int:
        """Return the time of a commit in milliseconds: now, or spread over the year before now."""
        now = dt.datetime.now(dt.UTC)
        days = DAYS * (1 - (number + 1) / (len(self.compactions) + 1)) if self.cleaned else 0
        return int((now - dt.timedelta(days=days)).timestamp() * 1000)

    def _arrow(self, rows: Sequence[Row]) -> pa.Table:
        """Return rows with the table's columns."""
        columns = {name: [row[name] for row in rows] for name in self.schema.names}
        for column in self.schema:
            if pa.types.is_map(column.type):
                maps = columns[column.name]
                columns[column.name] = [entries and list(entries.items()) for entries in maps]
        return pa.table(columns, schema=self.schema)

    def _add(self, rows: pa.Table, moment: int) -> Iterator[Row]:
        """Write rows as a file for each partition; yield the actions."""
        for values, part in self._partitions(rows):
            yield self._write(values, part, moment, data_change=True)

    def _partitions(self, rows: pa.Table) -> Iterator[tuple[dict[str, str], pa.Table]]:
        """Split rows by partition."""
        if not self.partition_columns:
            yield {}, rows
            return
        (column,) = self.partition_columns
        for value in rows[column].unique():
            yield {column: str(value)}, rows.filter(pc.equal(rows[column], value))

    def _write(self, values: dict[str, str], rows: pa.Table, moment: int, data_change: bool) -> Row:
        """Write a data file, unless it is vacuumed; return its action."""
        folder = "".join(f"{column}={value}/" for column, value in values.items())
        path = f"{folder}part-00000-{uuid.uuid4()}.c000.zstd.parquet"
        target, size = self.folder / path, rows.nbytes
        if not self.vacuumed:
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(rows.drop_columns(self.partition_columns), target, compression="zstd")
            size = target.stat().st_size
        self.files.append(_DataFile(path, values, size, rows))
        return {
            "add": {
                "path": path,
                "partitionValues": values,
                "size": size,
                "modificationTime": moment,
                "dataChange": data_change,
                "stats": json.dumps(_statistics(rows, self.stat_columns)),
            }
        }

    def _compact(self, moment: int) -> Iterator[Row]:
        """Replace the files of each partition by a single file; yield the actions."""
        partitions: dict[str, list[_DataFile]] = {}
        for file in self.files:
            partitions.setdefault(str(file.partition_values), []).append(file)
        self.files = []
        for files in partitions.values():
            for file in files:
                yield {
                    "remove": {
                        "path": file.path,
                        "deletionTimestamp": moment,
                        "dataChange": False,
                        "extendedFileMetadata": True,
                        "partitionValues": file.partition_values,
                        "size": file.size,
                    }
                }
            rows = pa.concat_tables([file.rows for file in files])
            yield self._write(files[0].partition_values, rows, moment, data_change=False)

    def _commit(self, operation: str, actions: Iterator[Row], moment: int) -> None:
        """Write the next version into the log."""
        self.version += 1
        information = {
            "timestamp": moment,
            "operation": operation,
            "operationParameters": {"mode": "Append"} if operation == "WRITE" else {},
            "isolationLevel": "Serializable" if operation == "WRITE" else "SnapshotIsolation",
            "isBlindAppend": operation == "WRITE",
            "operationMetrics": {},
            "userMetadata": json.dumps({"run_id": f"last-year-commit-{self.version}"}),
            "engineInfo": "Apache-Spark/4.1.1 Delta-Lake/4.2.0",
            "txnId": str(uuid.uuid4()),
        }
        lines = [{"commitInfo": information}, *actions]
        path = self.log / f"{self.version:020}.json"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        os.utime(path, (moment / 1000, moment / 1000))

    def _clean(self) -> None:
        """Write a checkpoint and delete the older part of the log."""
        DeltaTable(self.folder).create_checkpoint()
        for path in self.log.iterdir():
            if path.is_file() and path.name[:20].isdecimal():
                if int(path.name[:20]) < self.version:
                    path.unlink()


def _bounds(rows: int, commits: int) -> list[int]:
    """Return where the rows of each commit begin, and the number of rows."""
    return [number * rows // commits for number in range(commits)] + [rows]


def _bounds_of_days(days: Sequence[dt.date], commits: int) -> list[int]:
    """Return bounds between sorted days, for as many commits or fewer."""
    bounds = _bounds(len(days), min(commits, len(days)))
    return sorted({bisect.bisect_left(days, days[bound]) for bound in bounds[:-1]} | {len(days)})


def _stat_columns(configuration: Mapping[str, str | None], columns: Sequence[str]) -> list[str]:
    """Return the columns that have statistics by the table's properties."""
    named = configuration.get("delta.dataSkippingStatsColumns")
    if named:
        return [name.strip() for name in named.split(",")]
    return list(columns[: int(configuration.get("delta.dataSkippingNumIndexedCols") or 32)])


def _statistics(rows: pa.Table, columns: Sequence[str]) -> Row:
    """Return a file's statistics as Delta writes them."""
    least: Row = {}
    greatest: Row = {}
    for name in columns:
        kind = rows.schema.field(name).type
        if pa.types.is_nested(kind) or pa.types.is_boolean(kind):
            continue  # they have a count of NULLs alone
        extremes = pc.min_max(rows[name]).as_py()
        if extremes["min"] is not None:
            least[name] = _stat_value(extremes["min"], "")
            greatest[name] = _stat_value(extremes["max"], "\x7f")
    nulls = {name: rows[name].null_count for name in columns}
    return {
        "numRecords": rows.num_rows,
        "minValues": least,
        "maxValues": greatest,
        "nullCount": nulls,
    }


def _stat_value(value: Any, suffix: str) -> Any:
    """Return a value as statistics have it; a long text is cut, and the suffix put behind it."""
    if isinstance(value, dt.datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S.000Z}"
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, str) and len(value) > STAT_CHARACTERS:
        return value[:STAT_CHARACTERS] + suffix
    return value
