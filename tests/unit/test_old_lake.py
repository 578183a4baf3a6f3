"""The lake that tests and benchmarks age: valid rows, and a log of which only a checkpoint is
left."""

from __future__ import annotations

import datetime as dt
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

import glue_etl as etl
from tests import old_lake
from tests.arrow import TYPES, schema_of
from tests.old_lake import age

DAYS, COMMITS, FILES, REJECTS = 60, 50, 700, 200
FIRST_ORDER = dt.datetime(2025, 4, 1, 10, tzinfo=dt.UTC)
ORDERS = DAYS * old_lake.ORDERS_PER_DAY
ADDED = {
    "clean_products": old_lake.PRODUCTS,
    "clean_orders": ORDERS,
    "clean_orders_items": ORDERS * old_lake.ITEMS_PER_ORDER,
    "rejected_records": REJECTS,
    "ingested_files": FILES,
    "etl_runs": DAYS,
    "corrections": old_lake.CORRECTIONS,
}


@pytest.fixture(scope="module", autouse=True)
def short_year() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(old_lake, "DAYS", DAYS)
        yield


def declared_schemas(job: Any) -> dict[str, pa.Schema]:
    """Return the schema of each table as the job declares it."""
    tables = {
        table.name: pa.schema([(column.name, TYPES[column.type]) for column in table.columns])
        for table in job.TABLES
    }
    return tables | {name: schema_of(ddl) for name, ddl in job.JOB_TABLES.items()}


def first_delivery(folder: Path) -> Path:
    """Write a lake as the first delivery leaves it: an order, and a run that says so."""
    job = etl
    partitions = {table.name: table.partition for table in job.TABLES if table.partition}
    partitions["rejected_records"] = "status"
    values: dict[str, Any] = {
        "order_id": "1",
        "order_timestamp": FIRST_ORDER,
        "date": FIRST_ORDER.date(),
        "run_id": "first",
        "status": "SUCCEEDED",
        "summary": '{"schema_version": 1, "run_id": "first"}',
    }
    for name, schema in declared_schemas(job).items():
        filled = name in ("clean_orders", "etl_runs")
        rows = [{column: values.get(column) for column in schema.names}] if filled else []
        configuration = {"delta.enableDeletionVectors": "false"}
        if name == "clean_orders":
            configuration["delta.dataSkippingStatsColumns"] = "order_id,order_timestamp"
        write_deltalake(
            place(folder, name),
            pa.Table.from_pylist(rows, schema=schema),
            partition_by=partitions.get(name),
            configuration={**configuration, "delta.dataSkippingNumIndexedCols": "8"},
        )
    return folder


def place(folder: Path, table: str) -> Path:
    return folder / ("rejected" if table == "rejected_records" else "lakehouse-dwh") / table


def aged(folder: Path, **options: Any) -> Path:
    counts: dict[str, Any] = {"commits": COMMITS, "files": FILES, "rejects": REJECTS}
    age(folder / "lakehouse-dwh", folder / "rejected", **{**counts, **options})
    return folder


@pytest.fixture(scope="module")
def young(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first delivery."""
    return first_delivery(tmp_path_factory.mktemp("young"))


@pytest.fixture(scope="module")
def old(young: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return aged(shutil.copytree(young, tmp_path_factory.mktemp("old") / "lake"))


@pytest.fixture(scope="module")
def whole(young: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of `old` in three commits."""
    folder = shutil.copytree(young, tmp_path_factory.mktemp("whole") / "lake")
    return aged(folder, commits=3, cleaned=False)


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    arrow = DeltaTable(place(folder, table)).to_pyarrow_table()
    return arrow.to_pylist(maps_as_pydicts="strict")


def added_rows(folder: Path, table: str) -> list[dict[str, Any]]:
    """Return the rows that the first delivery does not have."""
    first = {"order_id": "1", "run_id": "first"}
    return [
        row
        for row in rows(folder, table)
        if all(row.get(name) != value for name, value in first.items())
    ]


@pytest.mark.parametrize("table", ADDED)
def test_each_table_has_the_rows_that_were_asked_for(young: Path, old: Path, table: str) -> None:
    before = DeltaTable(place(young, table)).to_pyarrow_table().num_rows
    assert len(rows(old, table)) == before + ADDED[table]


@pytest.mark.parametrize("table", ADDED)
def test_only_the_checkpoint_tells_of_the_past(old: Path, table: str) -> None:
    version = DeltaTable(place(old, table)).version()
    assert version == COMMITS
    log = place(old, table) / "_delta_log"
    assert {path.name for path in log.iterdir() if path.is_file()} == {
        f"{version:020}.checkpoint.parquet",
        f"{version:020}.json",
        "_last_checkpoint",
    }
    with pytest.raises(DeltaError):
        DeltaTable(place(old, table), version=version - 1).file_uris()


@pytest.mark.parametrize("table", ADDED)
def test_protocol_properties_and_schema_stay(young: Path, old: Path, table: str) -> None:
    before, after = DeltaTable(place(young, table)), DeltaTable(place(old, table))
    protocol = after.protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
    assert after.metadata().configuration == before.metadata().configuration
    assert after.metadata().partition_columns == before.metadata().partition_columns
    assert after.schema() == before.schema()
    checkpoint = pq.read_table(next(place(old, table).glob("_delta_log/*.checkpoint.parquet")))
    for action in ("sidecar", "checkpointMetadata"):  # of v2 checkpoints
        assert action not in checkpoint.column_names or checkpoint[action].null_count == len(
            checkpoint
        )


@pytest.mark.parametrize("table", ADDED)
def test_a_whole_log_has_the_same_rows_in_few_commits(whole: Path, old: Path, table: str) -> None:
    log = place(whole, table) / "_delta_log"
    assert {path.name for path in log.iterdir() if path.is_file()} == {
        f"{version:020}.json" for version in range(4)
    }
    before = DeltaTable(place(whole, table), version=0).to_pyarrow_table().num_rows
    assert before in (0, 1)

    def comparable(folder: Path) -> Counter[str]:
        records = rows(folder, table)
        for record in records:
            record.pop("table_versions", None)  # they count commits
        return Counter(map(str, records))

    assert comparable(whole) == comparable(old)


@pytest.mark.parametrize("table", ADDED)
def test_statistics_of_files_hold(old: Path, table: str) -> None:
    delta = DeltaTable(place(old, table))
    actions = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
    assert sum(action["num_records"] for action in actions) == len(rows(old, table))
    columns = {name.removeprefix("min.") for name in actions[0] if name.startswith("min.")}
    for action in actions:
        data = pq.ParquetFile(place(old, table) / action["path"]).read()
        assert data.num_rows == action["num_records"]
        for name in columns & set(data.column_names):
            values = [value for value in data[name].to_pylist() if value is not None]
            if action[f"min.{name}"] is not None:
                assert action[f"min.{name}"] <= min(values), name
                assert action[f"max.{name}"] >= max(values), name
            assert action[f"null_count.{name}"] in (None, data.num_rows - len(values))


def test_statistics_are_of_the_columns_that_the_table_names(old: Path) -> None:
    for table, columns in {
        "clean_orders": {"order_id", "order_timestamp"},
        "clean_products": {"product_id", "department_id", "department", "product_name"},
    }.items():
        actions = pa.table(DeltaTable(place(old, table)).get_add_actions(flatten=True))
        named = {name.removeprefix("min.") for name in actions.column_names if "min." in name}
        assert named == columns


def test_rows_of_the_year_fit_together(old: Path) -> None:
    orders = {row["order_id"]: row for row in added_rows(old, "clean_orders")}
    products = {row["product_id"] for row in rows(old, "clean_products")}
    items = {row["id"]: row for row in rows(old, "clean_orders_items")}
    assert len(orders) == ADDED["clean_orders"] and len(products) == ADDED["clean_products"]
    assert len(items) == ADDED["clean_orders_items"]
    for item in items.values():
        order = orders[item["order_id"]]
        assert item["product_id"] in products
        assert all(item[name] == order[name] for name in ("user_id", "order_timestamp", "date"))
    days = {order["date"] for order in orders.values()}
    first_day = FIRST_ORDER.date()
    assert len(days) == DAYS and max(days) == first_day - dt.timedelta(days=1)
    assert all(order["date"] == order["order_timestamp"].date() for order in orders.values())
    assert all(int(key) >= old_lake.FIRST_KEY for key in [*orders, *products, *items])


def test_the_ledger_knows_each_file_once_and_counts_its_rejected_rows(old: Path) -> None:
    digest = next(name for name in ("file_digest", "file_etag") if name in columns_of(old))
    files = {row[digest]: row for row in rows(old, "ingested_files")}
    assert len(files) == FILES
    assert all(len(key) == 64 and int(key, 16) >= 0 for key in files)
    counted: Counter[tuple[str, str]] = Counter()
    lines = set()
    for row in rows(old, "rejected_records"):
        file = files[row[digest]]
        assert all(row[name] == file[name] for name in ("dataset", "file_path", "file_size"))
        waited = row["status"] in ("parked", "admitted")
        counted[row[digest], "parked" if waited else "rejected"] += 1
        lines.add((row[digest], row["line"]))
    assert len(lines) == REJECTS
    for key, file in files.items():
        outcomes = ("inserted", "updated", "unchanged", "superseded", "rejected", "parked")
        assert file["rows_read"] == sum(file[name] for name in outcomes)
        assert all(file[name] == counted[key, name] for name in ("rejected", "parked"))


def columns_of(folder: Path) -> list[str]:
    return pa.schema(DeltaTable(place(folder, "ingested_files")).schema().to_arrow()).names


def test_rejected_rows_have_each_status_and_only_parked_ones_wait(old: Path) -> None:
    records = rows(old, "rejected_records")
    shares = {status: share * REJECTS // 20 for status, share in old_lake.STATUSES.items()}
    assert Counter(record["status"] for record in records) == shares
    orders = {row["order_id"] for row in rows(old, "clean_orders")}
    items = {row["id"] for row in rows(old, "clean_orders_items")}
    for record in records:
        assert record["reasons"] and record["raw"] and record["fields"]
        closed = record["status"] in ("admitted", "superseded")
        assert (record["resolved_run_id"] is not None) == closed
        if record["status"] in ("parked", "admitted"):
            assert record["dataset"] == "order_items"
            assert (record["order_id"] in orders) == closed
            assert (record["record_key"] in items) == closed


def test_the_last_run_names_the_versions_of_the_tables(old: Path) -> None:
    runs = sorted(added_rows(old, "etl_runs"), key=lambda run: run["started_at"])
    assert len({run["run_id"] for run in runs}) == DAYS
    for table, version in runs[-1]["table_versions"].items():
        assert version == DeltaTable(place(old, table)).version()


def test_an_old_lake_is_written_to_as_any_other(old: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(old, tmp_path / "lake")
    for table in ADDED:
        delta = DeltaTable(place(folder, table))
        schema = pa.schema(delta.schema().to_arrow())
        row = {name: "parked" if name == "status" else None for name in schema.names}
        write_deltalake(delta, pa.Table.from_pylist([row], schema=schema), mode="append")
        assert DeltaTable(place(folder, table)).version() == COMMITS + 1
        assert len(rows(folder, table)) == len(rows(old, table)) + 1


def test_a_table_without_rows_to_add_is_only_cleaned(young: Path, tmp_path: Path) -> None:
    folder = aged(shutil.copytree(young, tmp_path / "lake"), files=0, rejects=0)
    for table in ("ingested_files", "rejected_records"):
        assert rows(folder, table) == [] and DeltaTable(place(folder, table)).version() == 0


def test_a_column_without_values_is_refused(young: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(young, tmp_path / "lake")
    path = place(folder, "ingested_files")
    schema = pa.schema([("run_id", pa.string()), ("colour", pa.string())])
    write_deltalake(path, schema.empty_table(), mode="overwrite", schema_mode="overwrite")
    with pytest.raises(ValueError, match=r"ingested_files: add values of \['colour'\]"):
        aged(folder)
