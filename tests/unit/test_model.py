"""The model itself: each rule by a small example worked out by hand, and the promise that batching
does not matter."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta

import pytest

from rules.paths import dataset_of
from rules.records import Shape, split_records
from rules.values import (
    parse_boolean,
    parse_date,
    parse_double,
    parse_int,
    parse_name,
    parse_timestamp,
)
from tests.model import Lakehouse, RawFile

START = datetime(2025, 5, 1)
PRODUCTS = "product_id,department_id,department,product_name\n"
ORDERS = "order_num,order_id,user_id,order_timestamp,total_amount,date\n"
ITEMS = (
    "id,order_id,user_id,days_since_prior_order,product_id,add_to_cart_order,reordered,"
    "order_timestamp,date\n"
)


def raw(path: str, text: str, at: int = 0) -> RawFile:
    return RawFile(path, text.encode(), START + timedelta(seconds=at))


def total(counts: dict) -> int:
    return sum(
        counts[name]
        for name in ("inserted", "updated", "unchanged", "superseded", "rejected", "parked")
    )


@pytest.mark.parametrize(
    ("path", "dataset"),
    [
        ("products.csv", "products"),
        ("orders.csv", "orders"),
        ("order_items.csv", "order_items"),
        ("orders_2025-04.csv", "orders"),
        ("orders/2025-04-01.csv", "orders"),
        ("order_items/2025/04/x.csv.gz", "order_items"),
        ("ORDERS/X.CSV", "orders"),
        ("orders/x.txt", None),
        ("stock/orders.csv", None),
        ("orders/x.csv.zip", None),
        ("ordersheet.csv", None),
        ("orders/.x.csv", None),
    ],
)
def test_the_path_tells_the_dataset(path: str, dataset: str | None) -> None:
    assert dataset_of(path) == dataset


def test_records_carry_their_physical_line_and_exact_text() -> None:
    records = split_records('a,b\n\n"x\r\ny",2\r"u""v" , w\n')
    assert [(record.line, record.raw, record.fields) for record in records] == [
        (1, "a,b", ["a", "b"]),
        (3, '"x\r\ny",2', ["x\r\ny", "2"]),
        (5, '"u""v" , w', ['u"v', " w"]),
    ]


def test_a_broken_quote_costs_one_line() -> None:
    records = split_records('1,"open\n2,"fine, too"\n3,"x"y\n4,"to the end\n')
    assert [(record.line, record.fields) for record in records] == [
        (1, None),
        (2, ["2", "fine, too"]),
        (3, None),
        (4, None),
    ]


def test_a_mark_is_no_text_and_blank_records_are_none() -> None:
    mark = "\xef\xbb\xbf"
    records = split_records(f'{mark}a;b\n;\n{mark}{mark}"c\n";2\nsep=;\n\x1a\n{mark}\n', Shape(";"))
    assert [(record.line, record.raw, record.fields) for record in records] == [
        (1, f"{mark}a;b", ["a", "b"]),
        (3, f'{mark}{mark}"c\n";2', ["c\n", "2"]),
    ]


def test_values_are_read_as_they_are_meant() -> None:
    assert parse_timestamp("2025-04-02T00:30:00+02:00") == datetime(2025, 4, 1, 22, 30)
    assert parse_timestamp("2025-04-02 00:30 -0530") == datetime(2025, 4, 2, 6, 0)
    assert parse_timestamp("2025-04-02T00:30:00.123456789Z") == datetime(
        2025, 4, 2, 0, 30, 0, 123_456
    )
    assert parse_date("2025-04-02 00:00:00") == date(2025, 4, 2)
    assert parse_int("-3.00") == -3
    assert str(parse_double("-0.0")) == "0.0"
    assert parse_boolean("Yes") is True
    written = ("12.0", "012.00", "12.5", "-1.0", '="00081"', "5E5")
    assert [parse_name(text) for text in written] == ["12", "012", "12.5", "-1.0", "00081", "5E5"]
    assert parse_timestamp("2025-04-02 00:30:00.000 UTC") == datetime(2025, 4, 2, 0, 30)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_timestamp, "2025-04-31T00:00:00"),
        (parse_timestamp, "2025-04-01"),
        (parse_timestamp, "2025-04-01T24:00:00"),
        (parse_timestamp, "0001-01-01T00:00:00+01:00"),
        (parse_date, "2025-04-02T00:00:01"),
        (parse_int, "3.5"),
        (parse_int, "2147483648"),
        (parse_double, "1e999"),
        (parse_double, "NaN"),
        (parse_double, "1,5"),
        (parse_boolean, "2"),
        (parse_name, "2.02504E+11"),
    ],
)
def test_what_is_no_value_is_refused(parse: object, text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_each_row_has_one_outcome_and_the_sum_holds() -> None:
    lakehouse = Lakehouse()
    orders = ORDERS + "1,o1,u,2025-04-01T10:00,5,\n1,o1,u,2025-04-01T10:00,6,\n1,o2,u,,5,\n"
    items = ITEMS + "i1,o1,u,1,p1,1,1,2025-04-01T10:00,\ni2,o1,u,x,p1,1,1,2025-04-01T10:00,\n"
    first = lakehouse.run([raw("orders.csv", orders), raw("order_items.csv", items)])["datasets"]
    assert first["orders"] == {
        "rows_read": 3,
        "admitted": 0,
        "inserted": 1,
        "updated": 0,
        "unchanged": 0,
        "superseded": 1,
        "rejected": 1,
        "parked": 0,
        "conflicting": 1,
        "moved": 0,
        "rejected_by_reason": {"missing_order_timestamp": 1},
    }
    assert first["order_items"]["parked"] == 1 and first["order_items"]["rejected"] == 1
    second = lakehouse.run([raw("products.csv", PRODUCTS + "p1,,,\n", at=9)])["datasets"][
        "order_items"
    ]
    assert (second["rows_read"], second["admitted"], second["inserted"]) == (0, 1, 1)
    assert lakehouse.tables["orders"] == {
        "o1": ("1", "o1", "u", datetime(2025, 4, 1, 10), 6.0, date(2025, 4, 1))
    }
    assert lakehouse.tables["order_items"] == {
        "i1": ("i1", "o1", "u", 1, "p1", 1, True, datetime(2025, 4, 1, 10), date(2025, 4, 1))
    }
    assert [record.status for record in lakehouse.records.values()] == [
        "rejected",
        "rejected",
        "admitted",
    ]


def test_a_run_out_of_the_order_of_deliveries_is_refused() -> None:
    lakehouse = Lakehouse()
    lakehouse.run([raw("orders/b.csv", ORDERS, at=5)])
    with pytest.raises(ValueError, match="in order"):
        lakehouse.run([raw("orders/a.csv", ORDERS + "\n", at=5)])


def random_deliveries(dice: random.Random) -> list[RawFile]:
    """A dozen small files, in which versions, ties, late parents and broken rows are common."""
    files = []
    for number in range(12):
        moment = f"2025-04-0{dice.randint(1, 2)}T1{dice.randint(0, 1)}:00"
        dataset = dice.choice(["products", "orders", "order_items", "order_items"])
        lines = []
        for _ in range(dice.randint(1, 4)):
            key, order, product, value = (dice.randint(1, 3) for _ in range(4))
            moment = dice.choice([moment, moment, "2025-04-02T10:00", ""])
            lines.append(
                {
                    "products": f"p{product},{value},,\n",
                    "orders": f"{value},o{order},u,{moment},1,\n",
                    "order_items": f"i{key},o{order},u,{value},p{product},1,1,{moment},\n",
                }[dataset]
            )
        header = {"products": PRODUCTS, "orders": ORDERS, "order_items": ITEMS}[dataset]
        files.append(raw(f"{dataset}/{number}.csv", header + "".join(lines), at=number // 2))
    return sorted(files, key=lambda file: (file.modified, file.path))


def best_rows_by_definition(files: list[RawFile]) -> dict[str, tuple]:
    """The order items by the definition of the winner: all deliveries at once, no parking, no
    runs."""
    rows, parents = [], {"orders": set(), "products": set()}
    for file in files:
        alone = Lakehouse()
        alone.run([file])
        for dataset, keys in parents.items():
            keys.update(alone.tables[dataset])
    for file in files:
        if file.path.startswith("order_items"):
            for place, line in enumerate(file.content.decode().splitlines()[1:]):
                cells = line.split(",")
                if cells[7] and cells[1] in parents["orders"] and cells[4] in parents["products"]:
                    rows.append((cells[7], file.modified, file.path, place, cells))
    return {row[-1][0]: (row[-1][1], row[-1][4], int(row[-1][3])) for row in sorted(rows)}


@pytest.mark.parametrize("seed", range(150))
def test_tables_depend_on_the_deliveries_and_not_on_how_they_fell_into_runs(seed: int) -> None:
    dice = random.Random(seed)
    files = random_deliveries(dice)
    at_once, in_runs = Lakehouse(), Lakehouse()
    at_once.run(files)
    undelivered, delivered = list(files), []
    while undelivered:
        size = dice.randint(1, 4)
        batch, undelivered = undelivered[:size], undelivered[size:]
        repeated = dice.sample(delivered, min(2, len(delivered)))
        replayed = [RawFile(file.path, file.content, batch[-1].modified) for file in repeated]
        summary = in_runs.run(batch + replayed, force=dice.random() < 0.5)
        delivered += batch
        for counts in summary["datasets"].values():
            assert counts["rows_read"] + counts["admitted"] == total(counts)
    assert in_runs.tables == at_once.tables
    assert {row.source for row in in_runs.parked} == {row.source for row in at_once.parked}
    best_rows = {
        key: (row[1], row[4], row[3]) for key, row in at_once.tables["order_items"].items()
    }
    assert best_rows == best_rows_by_definition(files)


def test_the_same_bytes_under_another_name_are_a_duplicate() -> None:
    lakehouse = Lakehouse()
    lakehouse.run([raw("orders/x.csv", ORDERS, at=1)])
    twins = [raw("orders/x (1).csv", ORDERS, at=2), raw("products/x.csv", ORDERS, at=3)]
    outcomes = [entry.outcome for entry in lakehouse.run(twins)["manifest"]]
    assert outcomes == ["duplicate", "set_aside"]
    both = [raw("orders/y.csv", ORDERS + "\n", at=4), raw("orders/z.csv", ORDERS + "\n", at=5)]
    outcomes = [entry.outcome for entry in lakehouse.run(both, force=True)["manifest"]]
    assert outcomes == ["loaded", "duplicate"]
