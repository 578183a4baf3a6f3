"""The guarantees, by name, on the job itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

import glue_etl as etl
from local.aws.job import job_arguments
from tests.model import RawFile
from tests.spark.conftest import Lake, check_equation, csv_file
from tests.spark.kills import Main, kill, kill_in_process

PRODUCTS = "product_id,department_id,department,product_name\n"
ORDERS = "order_num,order_id,user_id,order_timestamp,total_amount,date\n"
ITEMS = (
    "id,order_id,user_id,days_since_prior_order,product_id,add_to_cart_order,reordered,"
    "order_timestamp,date\n"
)


def order(key: str, moment: str = "2025-04-01T10:00:00", amount: str = "5", day: str = "") -> str:
    return f"1,{key},u1,{moment},{amount},{day}\n"


def item(
    key: str,
    order_id: str,
    product_id: str = "p1",
    moment: str = "2025-04-01T10:00:00",
    days: str = "3",
    day: str = "",
) -> str:
    return f"{key},{order_id},u1,{days},{product_id},1,0,{moment},{day}\n"


def first_delivery() -> list[RawFile]:
    return [
        csv_file("products.csv", PRODUCTS + "p1,1,Books,Pen\np2,1,Books,Ink\n", 1),
        csv_file(
            "orders/1.csv",
            ORDERS + order("o1") + order("o2", "2025-04-02T10:00:00") + order("", "bad"),
            2,
        ),
        csv_file(
            "order_items/1.csv",
            ITEMS
            + item("i1", "o1")
            + item("i2", "o2", "p2", "2025-04-02T10:00:00")
            + item("i3", "o9"),
            3,
        ),
    ]


def second_delivery() -> list[RawFile]:
    return [
        csv_file(
            "orders/2.csv",
            ORDERS + order("o9", "2025-04-03T10:00:00") + order("o1", amount="7"),
            11,
        ),
        csv_file(
            "order_items/2.csv",
            ITEMS + item("i4", "o9") + item("i1", "o1", days="4") + item("i5", "o1", "p9"),
            12,
        ),
    ]


def test_unchanged_rows_write_nothing_not_a_file_and_not_a_version(lake: Lake) -> None:
    lake.run(first_delivery())
    before = {
        table: (
            etl.DeltaLog(lake.path(table)).versions(),
            sorted(Path(lake.path(table)).rglob("*.parquet")),
        )
        for table in ("clean_products", "clean_orders", "clean_orders_items", "rejected_records")
    }
    summary = lake.run(first_delivery(), force=True)
    check_equation(summary)
    assert (
        summary["datasets"]["orders"]["unchanged"] == 2
        and summary["datasets"]["order_items"]["unchanged"] == 2
    )
    for table, (versions, files) in before.items():
        assert etl.DeltaLog(lake.path(table)).versions() == versions, table
        assert sorted(Path(lake.path(table)).rglob("*.parquet")) == files, table


def test_a_known_file_is_a_duplicate_and_nothing_is_written(lake: Lake) -> None:
    lake.run(first_delivery())
    before = {name: etl.DeltaLog(lake.path(name)).versions() for name in etl.schemas()}
    summary = lake.run(first_delivery())
    assert {name: etl.DeltaLog(lake.path(name)).versions() for name in etl.schemas()} == before
    assert summary["status"] == "NOTHING_NEW" and summary["files"]["duplicate"] == 3
    assert {line["destination"] for line in lake.manifest("run-2").values()} == {"archive"}


def test_an_empty_raw_zone_is_no_error_and_starts_no_spark(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_spark(*_: object) -> None:
        raise AssertionError("Spark was started for nothing new")

    monkeypatch.setattr(etl, "spark_session", no_spark)
    assert lake.run([])["status"] == "NOTHING_NEW"


def test_a_corrected_date_moves_the_row_and_leaves_no_twin(lake: Lake) -> None:
    lake.run([csv_file("orders/1.csv", ORDERS + order("o1") + order("o2"), 1)])
    lake.run([csv_file("orders/2.csv", ORDERS + order("o1", "2025-04-05T10:00:00"), 2)])
    rows = {row[1]: str(row[5]) for row in lake.rows("clean_orders")}
    assert rows == {"o1": "2025-04-05", "o2": "2025-04-01"} and len(lake.rows("clean_orders")) == 2


def test_a_header_in_another_order_does_not_load_into_wrong_columns(lake: Lake) -> None:
    text = "date,total_amount,order_timestamp,user_id,order_id,order_num\n"
    text += "2025-04-01,9,2025-04-01T10:00:00,u7,o1,4\n"
    lake.run([csv_file("orders/1.csv", ORDERS + order("o2"), 1), csv_file("orders/2.csv", text, 2)])
    assert next(row for row in lake.rows("clean_orders") if row[1] == "o1")[2:5:2] == ("u7", 9.0)


def test_every_table_stays_at_delta_reader_1_and_writer_2(lake: Lake) -> None:
    lake.run(first_delivery())
    lake.run(second_delivery())
    for table in [declared.name for declared in etl.TABLES] + list(etl.JOB_TABLES):
        protocol = DeltaTable(lake.path(table)).protocol()
        assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2), table
        properties = DeltaTable(lake.path(table)).metadata().configuration
        assert (
            properties["delta.autoOptimize.optimizeWrite"]
            == properties["delta.autoOptimize.autoCompact"]
            == "true"
        ), table


def test_a_table_that_another_engine_has_raised_fails_the_run_before_it_writes(lake: Lake) -> None:
    lake.run(first_delivery())
    spark = etl.SparkSession.getActiveSession()
    spark.sql(
        f"ALTER TABLE delta.`{lake.path('clean_orders')}` "
        "SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')"
    )
    before = {name: etl.DeltaLog(lake.path(name)).latest() for name in etl.schemas()}
    summary = lake.run(second_delivery(), expect=1)
    assert "needs Delta reader 3 and writer 7" in summary["error"]
    assert "clean_orders" in summary["error"] and "nothing was written" in summary["error"]
    assert {name: etl.DeltaLog(lake.path(name)).latest() for name in etl.schemas()} == before


def test_a_table_is_pinned_to_the_version_that_the_run_has_found(lake: Lake, spark: Any) -> None:
    lake.run(first_delivery())
    arguments = etl.JobArguments.from_argv(job_arguments(lake.folder, lake.folder, "look"))
    table = etl.open_lake(spark, arguments)["clean_products"]
    rows = table.frame.count()
    table.append(table.frame.limit(1), etl.stamp(arguments))
    assert table.frame.count() == rows == table.rows_at(table.before)
    assert table.summary()["rows"] == rows + 1


def test_the_same_bytes_under_another_name_are_a_duplicate_with_the_first_name(lake: Lake) -> None:
    text = ORDERS + order("o1") + order("bad", amount="x")
    lake.run([csv_file("orders/x.csv", text, 1)])
    second = [
        csv_file("orders/x (1).csv", text, 2),
        csv_file("orders/y.csv", ORDERS + order("o2"), 3),
    ]
    twins = [csv_file(f"orders/y ({n}).csv", ORDERS + order("o2"), 3 + n) for n in (1, 2)]
    summary = lake.run(second + twins)
    assert summary["files"]["duplicate"] == 3 and summary["files"]["loaded"] == 1
    manifest = lake.manifest("run-2")
    assert "were loaded as orders/x.csv by run-1" in manifest["orders/x (1).csv"]["detail"]
    assert "are delivered as orders/y.csv in this run" in manifest["orders/y (2).csv"]["detail"]
    loaded = sorted(row.file_path for row in lake.rows("ingested_files"))
    assert loaded == ["orders/x.csv", "orders/y.csv"]
    lake.run([csv_file("orders/x (2).csv", text, 9)], force=True)
    assert len(lake.records()) == 1  # the rejected row is recorded once, under its first name


def test_a_column_that_is_declared_later_is_added_by_the_next_load_and_by_no_look(
    lake: Lake, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.run(first_delivery())
    wide = {**etl.JOB_TABLES, "corrections": etl.CORRECTIONS_DDL + ", note STRING"}
    monkeypatch.setattr(etl, "JOB_TABLES", wide)
    arguments = etl.JobArguments.from_argv(job_arguments(lake.folder, lake.folder, "look"))
    table = etl.open_lake(spark, arguments)["corrections"]
    assert table.missing == (("note", "string"),) and "note" in table.frame.columns
    assert table.log.latest() == table.before
    lake.run(second_delivery())
    (added,) = table.log.commits(after=table.before)
    assert (added.operation, added.run_id) == ("ADD COLUMNS", "run-2")


def test_the_tables_have_exactly_the_customers_schema(lake: Lake) -> None:
    lake.run([])
    lake.run(first_delivery()[:1])  # products alone: the other two tables are there, empty
    assert lake.frame("clean_orders").dtypes == [
        ("order_num", "string"),
        ("order_id", "string"),
        ("user_id", "string"),
        ("order_timestamp", "timestamp"),
        ("total_amount", "double"),
        ("date", "date"),
    ]
    assert lake.frame("clean_orders_items").dtypes == [
        ("id", "string"),
        ("order_id", "string"),
        ("user_id", "string"),
        ("days_since_prior_order", "int"),
        ("product_id", "string"),
        ("add_to_cart_order", "int"),
        ("reordered", "boolean"),
        ("order_timestamp", "timestamp"),
        ("date", "date"),
    ]
    assert DeltaTable(lake.path("clean_orders_items")).metadata().partition_columns == ["date"]


def test_a_column_declared_later_is_added_to_the_table_and_asks_for_a_crawl(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.run([csv_file("products.csv", PRODUCTS + "1,2,Food,Tea\n3,2,Food,Rice\n", 0)])
    wider = replace(
        etl.PRODUCTS,
        columns=(*etl.PRODUCTS.columns, etl.ColumnSpec("brand", "STRING", "who makes it")),
    )
    monkeypatch.setattr(etl, "TABLES", (wider, etl.ORDERS, etl.ORDER_ITEMS))
    summary = lake.run(
        [
            csv_file(
                "products_2.csv",
                PRODUCTS[:-1] + ",brand\n1,2,Food,Tea,Twig\n2,2,Food,Milk,\n3,2,Food,Rice,\n",
                1,
            )
        ]
    )
    assert summary["crawl_needed"] and summary["tables"]["clean_products"]["schema_changed"]
    assert not summary["tables"]["clean_orders"]["schema_changed"]
    assert {row[0]: row[4] for row in lake.rows("clean_products")} == {
        "1": "Twig",
        "2": None,
        "3": None,
    }
    assert [
        summary["datasets"]["products"][outcome] for outcome in ("inserted", "updated", "unchanged")
    ] == [1, 1, 1]


def test_a_column_that_is_not_declared_any_more_stays_in_the_table(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    brand = etl.ColumnSpec("brand", "STRING", "who makes it")
    wider = replace(etl.PRODUCTS, columns=(*etl.PRODUCTS.columns, brand))
    narrow = etl.TABLES
    monkeypatch.setattr(etl, "TABLES", (wider, *narrow[1:]))
    header = PRODUCTS[:-1] + ",brand\n"
    lake.run([csv_file("products.csv", header + "1,2,Food,Tea,Twig\n2,2,Food,Rice,Bag\n", 0)])
    monkeypatch.setattr(etl, "TABLES", narrow)
    lake.run([csv_file("products_2.csv", PRODUCTS + "1,2,Food,Green tea\n3,2,Food,Oil\n", 1)])
    rows = {row[0]: (row[3], row[4]) for row in lake.rows("clean_products")}
    assert rows == {"1": ("Green tea", "Twig"), "2": ("Rice", "Bag"), "3": ("Oil", None)}


def test_a_new_dataset_with_another_parent_waits_for_it_and_for_the_parents_of_that(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Returns of order items: a parent that may wait itself, and a column no other dataset has."""
    returns = etl.Table(
        dataset="returns",
        name="clean_returns",
        key="return_id",
        columns=(
            etl.ColumnSpec("return_id", "STRING", "the return", required=True, identifier=True),
            etl.ColumnSpec("item", "STRING", "the item sent back", required=True, identifier=True),
        ),
        parents=(etl.Parent("item", "order_items", "orphan_item"),),
    )
    monkeypatch.setattr(etl, "TABLES", (*etl.TABLES, returns))
    first = [
        csv_file("products.csv", PRODUCTS + "p1,1,Books,Pen\n", 1),
        csv_file("order_items/1.csv", ITEMS + item("i1", "o1"), 2),
        csv_file("returns/1.csv", "return_id,item\nr1,i1\nr2,i9\n", 3),
    ]
    summary = lake.run(first)
    check_equation(summary)
    assert summary["datasets"]["returns"]["parked"] == 2 and lake.rows("clean_returns") == []
    summary = lake.run([csv_file("orders/1.csv", ORDERS + order("o1"), 4)])
    check_equation(summary)
    assert summary["datasets"]["returns"]["admitted"] == 1
    assert lake.rows("clean_returns") == [("r1", "i1")]


def test_a_table_that_is_declared_before_its_parent_is_an_error_not_a_run_without_end(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    products, orders, items = etl.TABLES
    circle = replace(orders, parents=(etl.Parent("order_id", "order_items", "orphan"),))
    monkeypatch.setattr(etl, "TABLES", (products, circle, items))
    summary = lake.run(first_delivery(), expect=1)
    assert "declare that before it" in summary["error"]


def test_what_the_driver_knows_reaches_spark_character_by_character(spark: Any) -> None:
    rows = [
        {
            "text": text,
            "number": -(2**63),
            "seen": "2025-04-01T10:00:00.123456+02:00",
            "versions": {"a": 1},
        }
        for text in ('a "quoted" \\ path/ü/\u2028\t😀', "", None)
    ]
    frame = etl.local_frame(
        spark, rows, "text STRING, number BIGINT, seen TIMESTAMP, versions MAP<STRING, BIGINT>"
    )
    shown = frame.select("text", "number", etl.F.col("seen").cast("string"), "versions").collect()
    assert [tuple(row) for row in shown] == [
        (row["text"], -(2**63), "2025-04-01 08:00:00.123456", {"a": 1}) for row in rows
    ]
    assert etl.local_frame(spark, [], "text STRING").collect() == []


def test_two_independent_readers_see_the_same_rows(lake: Lake) -> None:
    lake.run(first_delivery())
    lake.run(second_delivery())
    for table in etl.TABLES:
        arrow = DeltaTable(lake.path(table.name)).to_pyarrow_table()
        assert arrow.num_rows > 0
        columns = ", ".join(
            f'CAST("{name}" AS VARCHAR)' if column.type != "TIMESTAMP" else f'epoch_us("{name}")'
            for name, column in zip(table.column_names, table.columns, strict=False)
        )
        read = duckdb.sql(f"SELECT {columns} FROM arrow").fetchall()
        frame = lake.frame(table.name).selectExpr(
            *[
                f"unix_micros(`{column.name}`)"
                if column.type == "TIMESTAMP"
                else f"cast(`{column.name}` AS string)"
                for column in table.columns
            ]
        )
        assert sorted(map(str, read)) == sorted(str(tuple(row)) for row in frame.collect()), (
            table.name
        )


def test_a_file_that_changes_while_it_is_read_stays_for_the_next_run(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = lake.write(first_delivery(), lake.folder / "raw")
    real, done = etl.profile, []

    def overwrite_once(*arguments: object) -> object:
        if not done:
            done.append(True)
            (raw / "orders/1.csv").write_text(ORDERS + order("o1", amount="100") + order("o3"))
        return real(*arguments)

    monkeypatch.setattr(etl, "profile", overwrite_once)
    summary = lake.run_on(raw, "a")
    assert (
        summary["files"]["changed"] == 1
        and lake.manifest("a")["orders/1.csv"]["destination"] == "raw"
    )
    assert lake.rows("clean_orders") == [] and summary["datasets"]["order_items"]["parked"] == 3
    summary = lake.run_on(raw, "b")
    check_equation(summary)
    assert {row[1]: row[4] for row in lake.rows("clean_orders")} == {"o1": 100.0, "o3": 5.0}
    assert {row[0] for row in lake.rows("clean_orders_items")} == {"i1"}


@pytest.mark.parametrize("large_bytes", [16 << 20, 0], ids=["in memory", "in scratch files"])
def test_what_was_staged_is_loaded_whatever_becomes_of_the_raw_zone(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, large_bytes: int
) -> None:
    """The raw text is read once: nothing that happens to it after that can reach a table."""
    monkeypatch.setattr(etl, "LARGE_BYTES", large_bytes)
    raw = lake.write(first_delivery(), lake.folder / "raw")
    real, done = etl.resolve, []

    def overwrite_and_delete(*arguments: Any) -> Any:
        done.append(True)
        (raw / "orders/1.csv").write_text(ORDERS + order("o7") + order("", "bad") * 2)
        (raw / "order_items/1.csv").unlink()
        return real(*arguments)

    monkeypatch.setattr(etl, "resolve", overwrite_and_delete)
    summary = lake.run_on(raw, "a")
    check_equation(summary)
    assert done and {row[1] for row in lake.rows("clean_orders")} == {"o1", "o2"}
    assert {row[0] for row in lake.rows("clean_orders_items")} == {"i1", "i2"}
    assert [row.raw for row in lake.records() if row.status == "rejected"] == ["1,,u1,bad,5,"]
    assert not [path for path in (lake.folder / "glue-temp").rglob("*") if path.is_file()]
    monkeypatch.setattr(etl, "resolve", real)
    assert lake.run_on(raw, "b")["datasets"]["orders"]["inserted"] == 1


def test_scratch_files_of_a_killed_run_are_removed_by_the_next_one(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etl, "LARGE_BYTES", 0)
    left = lake.folder / "glue-temp" / "run=killed" / "orders"
    left.mkdir(parents=True)
    (left / "part.orc").write_bytes(b"half")
    lake.run(first_delivery())
    assert not left.exists()


def test_scratch_files_keep_every_moment_whatever_the_time_zone_of_the_machine(
    spark: Any, tmp_path: Path
) -> None:
    """Files that keep times as a clock on the wall shows them have two hours of one name in autumn,
    and days before 1582 in another calendar."""
    zones = spark._jvm.java.util.TimeZone
    before = zones.getDefault()
    zones.setDefault(zones.getTimeZone("Europe/Berlin"))
    try:
        frame = spark.createDataFrame(
            [
                (moment, moment[:10], ["a", "b"], {"x": "1", "y": None}, 1.5, True)
                for moment in (
                    "2025-10-26 00:30:00.000001",
                    "2025-10-26 01:30:00.000001",
                    "2025-03-30 01:00:00",
                    "1582-10-04 12:00:00",
                    "1582-10-10 12:00:00",
                    "0001-01-01 00:00:00",
                    "9999-12-31 23:59:59.999999",
                )
            ],
            "moment string, day string, reasons array<string>, fields map<string, string>, "
            "amount double, flag boolean",
        )
        frame = frame.withColumns(
            {
                name: frame[name].cast(kind)
                for name, kind in (("moment", "timestamp"), ("day", "date"))
            }
        )
        scratch = etl.Scratch(spark, f"{tmp_path}/", on_disk=True).materialize(frame, "rows")
        assert scratch.dtypes == frame.dtypes
        as_texts = [f"cast({name} AS string)" for name in frame.columns]
        texts = [tuple(row) for row in scratch.selectExpr(*as_texts).collect()]
        assert sorted(texts) == sorted(tuple(row) for row in frame.selectExpr(*as_texts).collect())
        assert len({text[0] for text in texts}) == 7
    finally:
        zones.setDefault(before)


def test_a_large_batch_need_not_hold_every_dataset(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etl, "LARGE_BYTES", 0)
    products = csv_file("products.csv", PRODUCTS + "p1,1,Books,Pen\n", 1)
    lake.run([csv_file("order_items/1.csv", ITEMS + item("i1", "o1"), 1)])
    assert lake.rows("clean_orders_items") == []
    summary = lake.run([products, csv_file("orders/1.csv", ORDERS + order("o1"), 2)])
    check_equation(summary)
    assert summary["datasets"]["order_items"]["admitted"] == 1
    check_equation(lake.run([csv_file("order_items/2.csv", ITEMS + item("i2", "o1"), 3)]))
    assert {row[0] for row in lake.rows("clean_orders_items")} == {"i1", "i2"}


def test_a_lost_row_fails_the_run_before_the_ledger(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = etl.mark_superseded
    monkeypatch.setattr(etl, "mark_superseded", lambda *arguments: real(*arguments).limit(1))
    summary = lake.run(first_delivery(), expect=1)
    assert (
        summary["status"] == "FAILED"
        and "ConservationError" in summary["error"]
        and "products.csv: 2 rows" in summary["error"]
    )
    monkeypatch.setattr(etl, "mark_superseded", real)
    assert not Path(lake.path("ingested_files")).exists()
    assert lake.run(first_delivery())["datasets"]["orders"]["inserted"] == 2


def test_a_large_batch_is_resolved_with_the_same_result(
    new_lake: Callable[[str], Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scratch files and joins by shuffle, or memory and broadcasts: numbers, texts, twins, orphans,
    late parents and corrections end alike."""

    def delivery(part: int) -> list[RawFile]:
        orders = "".join(
            order(
                str(key), f"2025-04-0{1 + key % 5}T10:00:00", str(key % 7 + part * (key % 11 == 0))
            )
            for key in range(200 * part, 300 + 200 * part)
        )
        items = "".join(
            item(
                f"{'x' if key % 50 == 0 else ''}{key}",
                str(key % 300 + (250 * part if key >= 700 else 0)),
                f"p{key % 3}",
                f"2025-04-0{1 + key % 5}T10:00:00",
                str(key % 9 + part * (key % 13 == 0)),
            )
            for key in range(400 * part, 700 + 400 * part)
        )
        return [
            csv_file(
                f"products/{part}.csv",
                PRODUCTS + f"p{part},1,Books,Pen\np2,1,Books,Ink {part}\n",
                1 + 10 * part,
            ),
            csv_file(f"orders/{part}.csv", ORDERS + orders, 2 + 10 * part),
            csv_file(
                f"order_items/{part}.csv",
                ITEMS + items + item("401", "299", "p2", days="8"),
                3 + 10 * part,
            ),
        ]

    results = []
    for name, large_bytes, few in (("small", 1 << 20, 200_000), ("large", 0, 10)):
        lake = new_lake(name)
        monkeypatch.setattr(etl, "LARGE_BYTES", large_bytes)
        monkeypatch.setattr(etl, "BROADCAST_ROWS", few)
        summaries = [
            lake.run(delivery(0)),
            lake.run(delivery(1)),
            lake.run(delivery(0) + delivery(1), force=True),
        ]
        parked = sorted(
            (row.record_key, row.line, row.status, tuple(row.reasons), row.raw)
            for row in lake.records()
        )
        results.append((lake.tables(), [summary["datasets"] for summary in summaries], parked))
    assert results[0][0] == results[1][0]
    assert results[0][1] == results[1][1]
    assert results[0][2] == results[1][2]
    assert (
        results[0][1][1]["order_items"]["admitted"] > 0
        and results[0][1][1]["order_items"]["updated"] > 0
    )


@pytest.mark.parametrize(
    "second_file, looked_at, inserted, superseded, parked",
    [
        # every key comes once, and every parent is there
        (item("67", "2") + item("66", "1"), [], 6, 0, 0),
        # twice in one file, once by the fast path and once by the parser
        (item("66", "2") + item("66", "1", days='"8"'), ["clean_orders_items"], 5, 1, 0),
        # no order 9
        (item("66", "9") + item("67", "1"), ["clean_orders_items"], 5, 0, 1),
    ],
)
def test_a_large_first_delivery_is_taken_whole_only_where_every_key_is_new_and_every_parent_there(
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
    second_file: str,
    looked_at: list[str],
    inserted: int,
    superseded: int,
    parked: int,
) -> None:
    monkeypatch.setattr(etl, "LARGE_BYTES", 0)
    real, looked = etl.mark_superseded, []

    def mark_superseded(rows: Any, staged: Any) -> Any:
        looked.extend([staged.table.name] * (not rows.isEmpty()))
        return real(rows, staged)

    monkeypatch.setattr(etl, "mark_superseded", mark_superseded)
    first_file = "".join(item(key, "1") for key in ("3", "1", "64", "65"))
    summary = lake.run(
        [
            csv_file("products.csv", PRODUCTS + "p1,1,Books,Pen\n", 1),
            csv_file("orders/1.csv", ORDERS + order("1") + order("2"), 2),
            csv_file("order_items/1.csv", ITEMS + first_file, 3),
            csv_file("order_items/2.csv", ITEMS + second_file, 4),
        ]
    )
    check_equation(summary)
    numbers = summary["datasets"]["order_items"]
    outcomes = (numbers["inserted"], numbers["superseded"], numbers["parked"])
    assert outcomes == (inserted, superseded, parked) and looked == looked_at
    rows = {row[0]: row[3] for row in lake.rows("clean_orders_items")}
    expected = {key: 8 if superseded and key == "66" else 3 for key in rows}
    assert len(rows) == inserted and rows == expected


def test_a_run_that_is_forced_again_under_its_name_has_one_row(lake: Lake) -> None:
    raw = lake.write(first_delivery(), lake.folder / "raw")
    for run_id in ("a", "a", "b"):
        lake.run_on(raw, run_id, force=True)
    assert sorted(row.run_id for row in lake.rows("etl_runs")) == ["a", "b"]


COMMITS = [
    "committed rejected_records",
    "committed clean_products",
    "committed clean_orders",
    "committed clean_orders_items",
    "settled rejected rows",
    "committed ingested_files",
    "committed etl_runs",
]


@pytest.fixture(scope="module")
def loaded_once(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with the first delivery, to be copied."""
    loaded = Lake(tmp_path_factory.mktemp("loaded"))
    loaded.run(first_delivery())
    return loaded.folder


@pytest.mark.slow
@pytest.mark.parametrize("step", COMMITS)
def test_a_killed_run_is_healed_by_the_next_one(lake: Lake, loaded_once: Path, step: str) -> None:
    check_healed(lake, loaded_once, step, kill_in_process)


def test_a_killed_run_that_closes_a_reject_of_its_own_is_healed(lake: Lake) -> None:
    files = [
        csv_file("orders/1.csv", ORDERS + order("o1", amount="abc"), 1),
        csv_file("orders/2.csv", ORDERS + order("o1"), 2),
    ]
    raw = lake.write(files, lake.folder / "raw")
    arguments = job_arguments(raw, lake.folder, "killed")
    kill_in_process(etl.main, "committed rejected_records", arguments)
    lake.run_on(raw, "after")
    assert [(row.line, row.status) for row in lake.records()] == [(2, "superseded")]
    assert list(lake.tables()["orders"]) == ["o1"]


@pytest.mark.long
@pytest.mark.parametrize("step", COMMITS)
def test_a_sigkill_leaves_what_the_test_above_stops_at(
    lake: Lake, loaded_once: Path, step: str
) -> None:
    check_healed(lake, loaded_once, step, kill)


Kill = Callable[[Main, str, Sequence[str]], None]


def check_healed(lake: Lake, loaded_once: Path, step: str, kill_behind: Kill) -> None:
    """Kill the second delivery behind a step; the next run ends with all of it, once."""
    shutil.copytree(loaded_once, lake.folder, dirs_exist_ok=True)
    raw = lake.write(second_delivery(), lake.folder / "raw")
    kill_behind(etl.main, step, job_arguments(raw, lake.folder, "killed"))
    assert not (lake.folder / "runs" / "killed" / "summary.json").exists()
    summary = lake.run_on(raw, "after")
    check_equation(summary)
    assert {row[0]: row[3] for row in lake.rows("clean_orders_items")} == {
        "i1": 4,
        "i2": 3,
        "i3": 3,
        "i4": 3,
    }
    assert {row[1]: row[4] for row in lake.rows("clean_orders")} == {
        "o1": 7.0,
        "o2": 5.0,
        "o9": 5.0,
    }
    records = sorted(
        (row.record_key or "", row.status, tuple(row.reasons)) for row in lake.records()
    )
    assert records == [
        ("", "rejected", ("missing_order_id", "invalid_order_timestamp")),
        ("i3", "admitted", ("orphan_order",)),
        ("i5", "parked", ("orphan_product",)),
    ]
    paths = [row.file_path for row in lake.rows("ingested_files")]
    assert sorted(paths) == [
        "order_items/1.csv",
        "order_items/2.csv",
        "orders/1.csv",
        "orders/2.csv",
        "products.csv",
    ]


def test_a_rejected_row_of_300_kb_is_kept_whole_and_cut_in_the_summary(lake: Lake) -> None:
    long = ORDERS + order("o1", amount="x" * 300_000)
    summary = lake.run([csv_file("orders/1.csv", long, 1)])
    check_equation(summary)
    (raw,) = [row.raw for row in lake.records() if row.status == "rejected"]
    assert raw == long.splitlines()[1]
    (shown,) = summary["reject_examples"]
    assert raw.startswith(shown["raw"]) and len(shown["raw"]) == etl.TEXT_LIMIT
