"""Operations, by what they promise: corrections, rollbacks, replays, maintenance."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import glue_etl as etl
import glue_operations
from tests.model import RawFile
from tests.spark.conftest import check_equation, csv_file
from tests.spark.kills import kill_in_process
from tests.spark.operations import OperatedLake
from tests.spark.test_guarantees import ITEMS, ORDERS, PRODUCTS, item, order


@pytest.fixture
def lake(spark: Any, tmp_path: Path) -> OperatedLake:
    return OperatedLake(tmp_path)


def deliveries() -> list[list[RawFile]]:
    """Ten small deliveries: news, corrections, ties, rejects, a file set aside, a late parent."""
    return [
        [
            csv_file("products.csv", PRODUCTS + "p1,1,Books,Pen\np2,1,Books,Ink\n", 1),
            csv_file("orders/1.csv", ORDERS + order("o1") + order("", "bad"), 2),
            csv_file("order_items/1.csv", ITEMS + item("i1", "o1") + item("i3", "o9"), 3),
        ],
        [csv_file("orders/2.csv", ORDERS + order("o1", amount="7") + order("o2"), 11)],
        [csv_file("order_items/2.csv", ITEMS + item("i2", "o2", "p2") + item("i1", "o1"), 21)],
        [csv_file("products.csv", PRODUCTS + "p1,1,Books,Pencil\n", 31)],
        [csv_file("letters.csv", "nothing of ours\n", 41)],
        [csv_file("orders/6.csv", ORDERS + order("o9"), 51)],
        [csv_file("orders/1.csv", ORDERS + order("o1", amount="8") + order("o3", "worse"), 61)],
        [csv_file("order_items/8.csv", ITEMS + item("i3", "o9", days="5"), 71)],
        [csv_file("products_9.csv", PRODUCTS + "p3,2,Food,Tea\np1,1,Books,Pen\n", 81)],
        [csv_file("order_items/10.csv", ITEMS + item("i4", "o1", "p3") + item("i5", "o5"), 91)],
    ]


def without_outcomes(state: dict[str, list[str]]) -> dict[str, list[str]]:
    """A state without what depends on which files are loaded together: whether a row was inserted
    and then updated by a later file, or at once superseded by it. The three tables do not."""
    outcome = "status='(admitted|superseded)'|(inserted|updated|unchanged|superseded)=[0-9]+"
    return {
        name: sorted(re.sub(outcome, "", row) for row in rows)
        if name in ("ingested_files", "rejected_records")
        else rows
        for name, rows in state.items()
    }


@pytest.mark.long
def test_a_rollback_to_each_earlier_run_is_the_state_of_that_time_and_replay_brings_all_back(
    lake: OperatedLake,
) -> None:
    states = []
    for files in deliveries():
        lake.load(files)
        states.append(lake.state())
    for number in range(9, 0, -1):
        lake.operate("rollback", to=f"run-{number}")
        assert lake.state() == states[number - 1], number
    summary = lake.operate("replay", archived={})
    assert without_outcomes(lake.state()) == without_outcomes(states[-1])
    check_equation(summary)
    assert summary["operation"]["plan"]["files"] == 9
    second = lake.operate("replay", archived={"paths": ["orders/*"]})
    assert second["operation"]["plan"]["files"] == 0


def test_a_dry_run_says_what_a_rollback_would_do_and_writes_nothing(lake: OperatedLake) -> None:
    for files in deliveries()[:2]:
        lake.load(files)
    before = lake.versions()
    summary = lake.operate("rollback", to="run-1", dry_run=True, author="ann")
    assert lake.versions() == before
    operation = summary["operation"]
    assert operation["plan"]["tables"]["clean_orders"] == {
        "from": 1, "to": 0, "rows": 2, "rows_then": 1,
    }  # fmt: skip
    assert operation["text"] == (
        "The tables would go back to the state after run-1: 1 run taken back. "
        "1 file can be replayed from the archive."
    )
    assert (operation["author"], operation["dry_run"], operation["effect"]) == ("ann", True, {})


def test_a_rollback_acts_on_the_versions_that_its_plan_saw_or_is_refused(
    lake: OperatedLake,
) -> None:
    def planned() -> dict[str, int]:
        plan = lake.operate("rollback", to="run-1", dry_run=True)["operation"]["plan"]
        return {name: table["from"] for name, table in plan["tables"].items()}

    for files in deliveries()[:2]:
        lake.load(files)
    seen = planned()
    lake.load(deliveries()[2])
    assert "changed since the plan was made" in lake.refusal("rollback", to="run-1", expected=seen)
    lake.operate("rollback", to="run-1", expected=planned())
    assert lake.state()["clean_orders"]


def first_load(lake: OperatedLake) -> None:
    lake.load(deliveries()[0])


CUSTOMERS_INSERT = """
INSERT INTO clean_orders (order_num, order_id, user_id, order_timestamp, total_amount, date)
SELECT * FROM (VALUES
  ('1', 'n1', 'u1', TIMESTAMP '2025-05-02 10:00:00', 10.5, DATE '2025-05-02'),
  ('2', 'n2', 'u2', TIMESTAMP '2025-05-02 11:00:00', 20.0, DATE '2025-05-02'),
  ('3', 'n3', 'u3', TIMESTAMP '2025-05-03 12:00:00', 30.25, DATE '2025-05-03')
) AS new (order_num, order_id, user_id, order_timestamp, total_amount, date)
WHERE NOT EXISTS (SELECT 1 FROM clean_orders o WHERE o.order_id = new.order_id)
"""


def test_the_customers_insert_where_not_exists_inserts_three_orders_once(
    lake: OperatedLake,
) -> None:
    first_load(lake)
    summary = lake.operate("sql", sql=CUSTOMERS_INSERT, author="ann")
    operation = summary["operation"]
    assert operation["text"] == "clean_orders: 3 rows were inserted."
    assert operation["effect"]["tables"]["clean_orders"]["inserted"] == 3
    rows = {row[1]: row[4] for row in lake.rows("clean_orders")}
    assert rows == {"o1": 5.0, "n1": 10.5, "n2": 20.0, "n3": 30.25}
    before = lake.versions()
    repeated = lake.operate("sql", sql=CUSTOMERS_INSERT, author="ann")
    assert repeated["operation"]["text"] == "clean_orders: no row changes."
    after = lake.versions()
    assert after == before | {"etl_runs": before["etl_runs"] + 1}
    corrections = sorted(lake.rows("corrections"), key=lambda row: row.record_key)
    assert [(row.record_key, row.operation, row.author) for row in corrections] == [
        ("n1", "insert", "ann"),
        ("n2", "insert", "ann"),
        ("n3", "insert", "ann"),
    ]
    assert corrections[0].before is None and corrections[0].after["total_amount"] == "10.5"
    assert corrections[0].statement == CUSTOMERS_INSERT
    runs = {row.run_id: row.operation for row in lake.rows("etl_runs")}
    assert runs == {"run-1": "load", "op-1": "sql", "op-2": "sql"}


REFUSED = {
    "INSERT INTO clean_products VALUES ('p1', '1', 'Books', 'Twin')": (
        "product_id 'p1' would occur twice in clean_products"
    ),
    "UPDATE clean_products SET product_id = 'p1' WHERE product_id = 'p2'": (
        "product_id 'p1' would occur twice in clean_products"
    ),
    "UPDATE clean_orders_items SET order_id = 'o9' WHERE id = 'i1'": (
        "clean_orders_items.order_id 'o9' is not in clean_orders"
    ),
    "DELETE FROM clean_orders WHERE order_id = 'o1'": (
        "clean_orders_items refers to order_id 'o1', which would be deleted from clean_orders"
    ),
    "UPDATE clean_orders SET total_amount = 'abc'": "'abc'",
    "UPDATE clean_orders_items SET add_to_cart_order = 3.7": (
        "clean_orders_items.add_to_cart_order is INT, but its value is DECIMAL(2,1)"
    ),
    "UPDATE clean_orders SET order_id = NULL": "order_id is NULL in clean_orders",
    "UPDATE clean_orders SET date = DATE '2025-04-09'": "date_mismatch in clean_orders",
    "UPDATE etl_runs SET status = 'x'": "only clean_products, clean_orders and clean_orders_items",
    "DROP TABLE clean_orders": "give one statement",
    "SELECT 1; SELECT 2": "give one statement",
    "SELECT * FROM nothing": "there is no table 'nothing'",
    "SELECT reflect('java.lang.System', 'exit')": "reflect is not allowed",
    "SELECT nonsense FROM clean_orders": "nonsense",
}


def test_a_correction_that_breaks_a_rule_is_refused_by_name_and_nothing_is_written(
    lake: OperatedLake,
) -> None:
    first_load(lake)
    for statement, reason in REFUSED.items():
        assert reason in lake.refusal("sql", sql=statement), statement
    assert lake.versions()["corrections"] == 0
    assert not list(lake.folder.glob("glue-temp/*"))


def test_corrections_are_read_again_and_undone(lake: OperatedLake) -> None:
    first_load(lake)
    state = lake.state()
    merge = (
        "MERGE INTO clean_products p USING (SELECT 'p1' AS id, 'Nib' AS name UNION ALL "
        "SELECT 'p7', 'Glue') n ON p.product_id = n.id "
        "WHEN MATCHED THEN UPDATE SET product_name = n.name "
        "WHEN NOT MATCHED THEN INSERT (product_id, department_id, department, product_name) "
        "VALUES (n.id, '1', 'Books', n.name)"
    )
    dry = lake.operate("sql", sql=merge, dry_run=True)
    assert dry["operation"]["plan"]["tables"]["clean_products"] == {
        "inserted": 1, "updated": 1, "deleted": 0,
    }  # fmt: skip
    assert lake.state() == state
    lake.operate("sql", sql=merge)
    selected = lake.operate(
        "sql", sql="SELECT product_name FROM clean_products ORDER BY product_id"
    )
    assert [dry["tables"], selected["tables"], selected["crawl_needed"]] == [{}, {}, False]
    names = [row["product_name"] for row in lake.result("op-3")["rows"]]
    assert names == ["Nib", "Ink", "Glue"]
    then = "SELECT product_name FROM clean_products FOR VERSION AS OF 0 ORDER BY product_id"
    lake.operate("sql", sql=then)
    assert [row["product_name"] for row in lake.result("op-4")["rows"]] == ["Pen", "Ink"]
    lake.operate("rollback", undo="op-2")
    assert lake.state() == state


def test_what_wins_against_a_correction_is_the_newer_timestamp_then_the_later_delivery(
    lake: OperatedLake,
) -> None:
    first_load(lake)
    lake.operate("sql", sql="UPDATE clean_orders SET total_amount = 99 WHERE order_id = 'o1'")
    older = ORDERS + order("o1", "2025-04-01T09:00:00", "1")
    lake.load([csv_file("orders/old.csv", older, 100)])
    assert lake.rows("clean_orders")[0][4] == 99.0
    lake.load([csv_file("orders/tie.csv", ORDERS + order("o1", amount="2"), 101)])
    assert lake.rows("clean_orders")[0][4] == 2.0


def test_a_correction_brings_a_parent_and_the_parked_row_is_admitted_by_replay(
    lake: OperatedLake,
) -> None:
    first_load(lake)
    insert = CUSTOMERS_INSERT.replace("'n1'", "'o9'")
    lake.operate("sql", sql=insert)
    summary = lake.operate("replay", statuses=["parked"])
    check_equation(summary)
    assert summary["datasets"]["order_items"]["inserted"] == 1
    assert {row[0] for row in lake.rows("clean_orders_items")} == {"i1", "i3"}
    record = next(row for row in lake.records() if row.record_key == "i3")
    assert (record.status, record.resolved_run_id) == ("admitted", "op-2")


def strict(lake: OperatedLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule too much: no order may be a refund."""
    rule = etl.Rule("refund_as_order", lambda text, value: value("total_amount") < 0)
    orders = replace(etl.ORDERS, rules=(*etl.ORDERS.rules, rule))
    monkeypatch.setattr(etl, "TABLES", (etl.PRODUCTS, orders, etl.ORDER_ITEMS))


def test_a_relaxed_rule_admits_exactly_its_rows_and_a_second_replay_none(
    lake: OperatedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        strict(lake, patch)
        rows = order("o1", amount="-5") + order("o2") + order("o3", "bad", "-1") + "1,o4\n"
        lake.load(
            [
                csv_file("products.csv", PRODUCTS + "p1,1,Books,Pen\n", 1),
                csv_file("orders/1.csv", ORDERS + rows, 2),
                csv_file("order_items/1.csv", ITEMS + item("i1", "o1"), 3),
            ]
        )
    dry = lake.operate("replay", reasons=["refund_as_order"], dry_run=True)
    assert dry["operation"]["plan"]["datasets"]["orders"]["inserted"] == 1
    summary = lake.operate("replay", reasons=["refund_as_order"], author="ann")
    check_equation(summary)
    numbers = summary["datasets"]["orders"]
    assert (numbers["rows_read"], numbers["inserted"], numbers["rejected"]) == (2, 1, 1)
    assert summary["datasets"]["order_items"]["admitted"] == 1
    assert {row[1]: row[4] for row in lake.rows("clean_orders")} == {"o1": -5.0, "o2": 5.0}
    records = {row.line: row for row in lake.records() if row.dataset == "orders"}
    assert (records[2].status, records[2].resolved_run_id) == ("admitted", "op-2")
    assert (records[4].status, records[4].reasons) == ("rejected", ["invalid_order_timestamp"])
    before = lake.versions()
    second = lake.operate("replay")
    check_equation(second)
    assert second["datasets"]["orders"]["rejected"] == 2  # one of them needs its file's header
    assert lake.versions() == before | {"etl_runs": before["etl_runs"] + 1}


def test_a_replayed_row_keeps_its_place_in_the_order_of_deliveries(
    lake: OperatedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        strict(lake, patch)
        lake.load([csv_file("orders/1.csv", ORDERS + order("k1", amount="1"), 5)])
        refunds = "".join(order(key, amount="-5") for key in ("k1", "k2", "k3"))
        late = refunds + order("k3", amount="8")
        lake.load([csv_file("orders/2.csv", ORDERS + late, 10)])
        lake.load([csv_file("orders/3.csv", ORDERS + order("k2", amount="7"), 20)])
    summary = lake.operate("replay", statuses=["rejected"])
    check_equation(summary)
    assert {row[1]: row[4] for row in lake.rows("clean_orders")} == {
        "k1": -5.0,
        "k2": 7.0,
        "k3": 8.0,
    }
    statuses = {row.record_key: row.status for row in lake.records()}
    assert statuses == {"k1": "admitted", "k2": "superseded", "k3": "superseded"}


def test_a_row_never_wins_a_tie_against_what_a_lost_file_may_have_brought(
    lake: OperatedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        strict(lake, patch)
        lake.load([csv_file("orders/1.csv", ORDERS + order("k1", amount="-5"), 10)])
        lake.load([csv_file("orders/2.csv", ORDERS + order("k1", amount="7"), 20)])
    (lake.folder / "archived" / "run=run-2" / "orders" / "2.csv").unlink()
    check_equation(lake.operate("replay"))
    assert [row[4] for row in lake.rows("clean_orders")] == [7.0]
    assert [row.status for row in lake.records()] == ["superseded"]
    options = lake.arguments("replay", "no-archive", statuses=["rejected"])[:-2]
    assert glue_operations.main(options) == 0  # nothing is chosen, so nothing is asked for


def test_discarded_rows_are_closed_for_good_with_author_and_why(lake: OperatedLake) -> None:
    first_load(lake)
    lake.operate("replay", statuses=["rejected"], discard=True, why="a test shop", author="ann")
    record = next(row for row in lake.records() if row.status == "discarded")
    assert (record.author, record.why, record.resolved_run_id) == ("ann", "a test shop", "op-1")
    assert lake.operate("replay", statuses=["rejected"])["datasets"]["orders"]["rows_read"] == 0
    lake.load(deliveries()[5])  # a load still writes and settles rows beside the new columns
    assert {row.record_key: row.status for row in lake.records()} == {
        None: "discarded",
        "i3": "admitted",
    }


def test_files_replayed_after_a_later_load_lose_their_ties_against_it(lake: OperatedLake) -> None:
    first_load(lake)
    lake.load(deliveries()[1])
    lake.operate("rollback", to="run-1")
    lake.load([csv_file("orders/3.csv", ORDERS + order("o1", amount="9"), 31)])
    summary = lake.operate("replay", archived={"runs": ["run-2"]})
    check_equation(summary)
    assert {row[1]: row[4] for row in lake.rows("clean_orders")} == {"o1": 9.0, "o2": 5.0}
    assert summary["datasets"]["orders"]["superseded"] == 1
    ledger = [row.file_path for row in lake.rows("ingested_files")]
    assert sorted(ledger) == sorted(
        ["products.csv", "orders/1.csv", "order_items/1.csv", "orders/3.csv", "orders/2.csv"]
    )


def partitions_of(lake: OperatedLake, table: str) -> list[int]:
    """How many data files each partition of a table has."""
    files = lake.frame(table).inputFiles()
    return list(Counter(file.rpartition("/")[0] for file in files).values())


def test_after_many_small_deliveries_optimize_leaves_two_files_a_partition_at_most(
    lake: OperatedLake,
) -> None:
    first_load(lake)
    etl.SparkSession.getActiveSession().conf.set(
        "spark.databricks.delta.autoCompact.enabled", "false"
    )
    for number in range(6):
        text = ORDERS + order(f"n{number}")
        lake.load([csv_file(f"orders/n{number}.csv", text, 100 + number)])
    etl.SparkSession.getActiveSession().conf.unset("spark.databricks.delta.autoCompact.enabled")
    state = lake.state()
    assert max(partitions_of(lake, "clean_orders")) > 2
    summary = lake.operate("optimize", tables=["clean_orders", "ingested_files"], min_files=3)
    assert max(partitions_of(lake, "clean_orders")) <= 2
    operation = summary["operation"]
    assert operation["effect"]["tables"]["clean_orders"]["files"] == 1
    assert operation["plan"]["tables"]["clean_orders"]["files"] == 7
    assert lake.state() == state
    assert lake.run_on(lake.folder / "raw-1", "again")["status"] == "NOTHING_NEW"
    lake.operate("rollback", to="run-3")
    assert len(lake.rows("clean_orders")) == 3


def age(lake: OperatedLake, days: int) -> None:
    """Make every data file that much older."""
    for file in lake.folder.rglob("*.parquet"):
        past = file.stat().st_mtime - days * 86400
        os.utime(file, (past, past))


def test_vacuum_removes_old_files_but_none_that_an_offered_rollback_needs(
    lake: OperatedLake,
) -> None:
    first_load(lake)
    lake.load(deliveries()[1])
    state = lake.state()
    lake.load([csv_file("orders/3.csv", ORDERS + order("o1", amount="11"), 31)])
    assert "unknown field 'days'" in lake.refusal("vacuum", days=6)
    day = next(Path(lake.path("clean_orders")).glob("date=*"))
    shutil.copy(next(day.glob("*.parquet")), day / "left-by-a-crash.parquet")
    age(lake, 40)
    dry = lake.operate("vacuum", dry_run=True)["operation"]
    assert dry["plan"]["tables"]["clean_orders"]["removable"] == 1 and dry["effect"] == {}
    operation = lake.operate("vacuum")["operation"]
    assert operation["plan"]["tables"]["corrections"]["removable"] == 1  # made without a row
    assert operation["text"].startswith("2 files of ")
    assert operation["text"].endswith("a rollback reaches back to run-1.")
    assert not (day / "left-by-a-crash.parquet").exists()
    lake.operate("rollback", to="run-2")
    assert lake.state() == state


def test_a_rollback_behind_a_vacuum_is_refused_with_the_oldest_run_that_can_be_reached(
    lake: OperatedLake,
) -> None:
    first_load(lake)
    lake.load([csv_file("orders/2.csv", ORDERS + order("o1", amount="7"), 11)])
    lake.load([csv_file("orders/3.csv", ORDERS + order("o1", amount="11"), 31)])
    table = etl.DeltaLog(lake.path("clean_orders"))
    for path in table.commit(1).removed:  # what the state after the first run needs
        (Path(lake.path("clean_orders")) / path).unlink()
    refused = lake.refusal("rollback", to="run-1")
    assert "the state after run-1 is gone (clean_orders: VACUUM has removed 1 data file" in refused
    assert refused.endswith("the oldest run that can be reached is run-2")
    assert "no run 'run-9' has changed the tables" in lake.refusal("rollback", to="run-9")
    assert "'run-2' is not the last run" in lake.refusal("rollback", undo="run-2")


def test_a_dry_run_reports_a_killed_operation_and_leaves_its_intent(lake: OperatedLake) -> None:
    first_load(lake)
    statement = {"sql": "UPDATE clean_orders SET total_amount = 9 WHERE order_id = 'o1'"}
    killed = lake.arguments("sql", "killed", **statement)
    kill_in_process(glue_operations.main, "committed clean_orders", killed)
    intent = lake.folder / "runs" / etl.INTENT
    operation = lake.operate("vacuum", dry_run=True)["operation"]
    assert "The next run first completes or reverts killed, which was killed" in operation["text"]
    assert intent.exists()
    lake.operate("vacuum")
    assert not intent.exists()
    assert "killed" not in [row.run_id for row in lake.rows("etl_runs")]
