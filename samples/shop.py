"""Made-up exports of a shop, with every kind of dirt: two deliveries that end in 1,000 products,
7,500 orders and 40,000 items.

Every value is a function of its row's number (and of a fixed seed), so the same call always writes
the same bytes.
"""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

SEED = 2025
FIRST_DAY = date(2025, 4, 1)
PRODUCTS = 1000
DEPARTMENTS = ("Books", "Clothing", "Electronics", "Garden", "Groceries", "Health", "Home", "Toys")
FIRST_ORDER = 10_000
PRODUCT_COLUMNS = ("product_id", "department_id", "department", "product_name")
ORDER_COLUMNS = ("order_num", "order_id", "user_id", "order_timestamp", "total_amount", "date")
ITEM_COLUMNS = (
    "id",
    "order_id",
    "user_id",
    "days_since_prior_order",
    "product_id",
    "add_to_cart_order",
    "reordered",
    "order_timestamp",
    "date",
)

Row = tuple[str, ...]


# ---- the clean shop: orders in blocks by day, items in the order of their orders
BASKETS = (1, 2, 3, 4, 5, 5, 6, 6, 7, 8, 8, 9)  # items of twelve orders in a row: 64
BASKET_STARTS = tuple(sum(BASKETS[:place]) for place in range(len(BASKETS)))
BASKET_OF_ITEM = tuple(place for place, size in enumerate(BASKETS) for _ in range(size))
CLOCK = tuple(f"T{minute // 60:02d}:{minute % 60:02d}:00" for minute in range(1440))


def mix(number: int, salt: int) -> int:
    """A number that looks random, the same for the same arguments."""
    mixed = (number * 2_654_435_761 + salt * 40_503) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 2_246_822_519) & 0xFFFFFFFF
    return mixed ^ (mixed >> 13)


@dataclass(frozen=True)
class Shop:
    """Numbers of a shop with `items` item rows; orders and items count from 0."""

    items: int
    days: int
    first_day: date = FIRST_DAY

    @property
    def orders(self) -> int:
        return self.order_of(self.items - 1) + 1 if self.items else 0

    @staticmethod
    def order_of(item: int) -> int:
        return item // 64 * 12 + BASKET_OF_ITEM[item % 64]

    @staticmethod
    def first_item_of(order: int) -> int:
        return order // 12 * 64 + BASKET_STARTS[order % 12]

    def first_order_of(self, day: int) -> int:
        """The first order of a day; the day after the last gets the orders that come then."""
        return -(-self.orders * day // self.days)

    def day_of(self, order: int) -> int:
        return min(order * self.days // self.orders, self.days)

    def date_of(self, day: int) -> str:
        return (self.first_day + timedelta(days=day)).isoformat()


def product_row(product: int) -> Row:
    """Product 1, 2, …: its department and the department's number have nothing to do with each
    other."""
    return (
        str(product),
        str(mix(product, 1) % 20 + 1),
        DEPARTMENTS[mix(product, 2) % len(DEPARTMENTS)],
        f"Product_{product}",
    )


def order_row(order: int, day: str) -> Row:
    number = mix(order, 3)
    return (
        str(number % 100 + 1),
        str(FIRST_ORDER + order),
        str(mix(order, 4) % 9000 + 1000),
        day + CLOCK[number % 1440],
        f"{mix(order, 5) % 50_000 / 100:g}",
        day,
    )


def item_lines(shop: Shop, order: int, day: str, last: int) -> Iterator[str]:
    """The items of an order as CSV lines, up to item `last` (exclusive)."""
    head = f"{FIRST_ORDER + order},{mix(order, 4) % 9000 + 1000}"
    tail = f"{day}{CLOCK[mix(order, 3) % 1440]},{day}\n"
    start = shop.first_item_of(order)
    for place in range(BASKETS[order % 12]):
        item = start + place
        if item >= last:
            return
        yield item_line(item, place, head, tail)


def item_line(item: int, place: int, head: str, tail: str, changed: int = 0) -> str:
    """One item: `changed` days are added to days_since_prior_order (0 to 30, counted in a ring)."""
    mixed = (item * 2_654_435_761 + 97) & 0xFFFFFFFF
    mixed ^= mixed >> 15
    days, product, reordered = (mixed + changed) % 31, (mixed >> 5) % 1000 + 1, mixed >> 9 & 1
    return f"{item + 1},{head},{days},{product},{place + 1},{reordered},{tail}"


# ---- the sample: two deliveries with dirt
SAMPLE_DAYS, SAMPLE_ITEMS = 15, 40_000
FIRST_DELIVERY_DAYS = 12
DELIVERED = (datetime(2025, 4, 13, 6, tzinfo=UTC), datetime(2025, 4, 16, 6, tzinfo=UTC))
LATE_PRODUCTS = range(961, 1001)  # they come with the second delivery
LATE_ORDERS = range(40, 6000, 150)  # 40 orders that come with the second delivery
LATE_ARRIVALS = "orders/2025-04-12_late.csv"
# Counted from 0: the 10th comes again with other amounts, the 3rd as it was; the 7th's file holds
# some orders twice; items of the 8th are revised later
CORRECTED_DAY, REPEATED_DAY, DOUBLED_DAY, REVISED_DAY = 9, 2, 6, 7
RENAMED_PRODUCTS = range(100, 1000, 90)
TRADE_NAMES = {  # names that need quotes, or look as if they were something else
    7: "Notebook, ruled",
    11: 'Nail 5" long',
    19: "Tea towel\nset of two",
    23: "Crème brûlée",
    31: "NULL",
    42: '"The Answer", a novel',
    57: "日本茶",
    64: "C:\\tools\\",
    77: "#1 seller",
}


@dataclass(frozen=True)
class Delivery:
    """A folder laid out as the raw zone, what it holds, and when it was delivered."""

    folder: Path
    files: tuple[Path, ...]
    delivered_at: datetime
    story: str


class _Files:
    """Collects the text of a delivery's files, then writes them with their times of delivery, one
    second apart."""

    def __init__(self, folder: Path, delivered_at: datetime, story: str) -> None:
        self.folder, self.delivered_at, self.story = folder, delivered_at, story
        self.contents: dict[str, bytes] = {}

    def write(self) -> Delivery:
        paths = []
        for place, (name, content) in enumerate(self.contents.items()):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            moment = (self.delivered_at + timedelta(seconds=place)).timestamp()
            os.utime(path, (moment, moment))
            paths.append(path)
        return Delivery(self.folder, tuple(paths), self.delivered_at, self.story)


def sample_shop() -> Shop:
    """7,500 orders with 40,000 items on 15 days."""
    return Shop(SAMPLE_ITEMS, SAMPLE_DAYS)


def write_sample(folder: Path) -> list[Delivery]:
    """Write `delivery-1` and `delivery-2` below a folder.

    Loaded one after the other they leave 1,000 products, 7,500 orders and 40,000 items in the
    tables, some fifty rejected rows, four items that wait for ever, and two files set aside.
    """
    return [_first_delivery(Path(folder)).write(), _second_delivery(Path(folder)).write()]


def _first_delivery(folder: Path) -> _Files:
    shop = sample_shop()
    files = _Files(
        folder / "delivery-1",
        DELIVERED[0],
        "the first twelve days; some orders and products are late",
    )
    products = [
        _named(product_row(product))
        for product in range(1, PRODUCTS + 1)
        if product not in LATE_PRODUCTS
    ]
    files.contents["products.csv"] = csv_bytes(PRODUCT_COLUMNS, products + BAD_PRODUCTS)
    for day in range(FIRST_DELIVERY_DAYS):
        files.contents.update(_day_files(shop, day))
    return files


def _second_delivery(folder: Path) -> _Files:
    shop = sample_shop()
    files = _Files(
        folder / "delivery-2",
        DELIVERED[1],
        "three more days, what was late, corrections, a file twice, a broken file and a stray one",
    )
    renamed = [
        (*product_row(product)[:3], f"Product_{product} (new)") for product in RENAMED_PRODUCTS
    ]
    products = [product_row(product) for product in LATE_PRODUCTS] + renamed
    late = [order_row(order, shop.date_of(shop.day_of(order))) for order in LATE_ORDERS]
    repeated, last = (
        _day_file("orders", shop, REPEATED_DAY),
        _day_file("order_items", shop, SAMPLE_DAYS - 1),
    )
    files.contents["products/new.csv"] = csv_bytes(PRODUCT_COLUMNS, products)
    files.contents[LATE_ARRIVALS] = csv_bytes(ORDER_COLUMNS, late)
    files.contents[_day_file("orders", shop, CORRECTED_DAY)] = csv_bytes(
        ORDER_COLUMNS, _corrected(shop)
    )
    files.contents["order_items/2025-04-08_revised.csv"] = csv_bytes(ITEM_COLUMNS, _revised(shop))
    files.contents[repeated] = _day_files(shop, REPEATED_DAY)[repeated]
    for day in range(FIRST_DELIVERY_DAYS, SAMPLE_DAYS):
        files.contents.update(_day_files(shop, day))
    broken = gzip.compress(files.contents[last], mtime=0)
    files.contents["order_items/2025-04-15_again.csv.gz"] = broken[: len(broken) // 2]
    files.contents["stock/2025-04-15.csv"] = b"product_id,in_stock\n1,12\n2,0\n"
    return files


def csv_bytes(columns: Sequence[str], rows: Sequence[Row], line_end: str = "\n") -> bytes:
    """RFC 4180, quotes where they are needed; a row with a lone cell that is a whole line is
    written as it is."""
    lines = [",".join(columns)] + [
        row[0] if len(row) == 1 else ",".join(map(_quoted, row)) for row in rows
    ]
    return (line_end.join(lines) + line_end).encode("utf-8")


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(sign in cell for sign in ',"\n\r') else cell


def _named(row: Row) -> Row:
    return (*row[:3], TRADE_NAMES.get(int(row[0]), row[3]))


def _day_file(dataset: str, shop: Shop, day: int) -> str:
    return f"{dataset}/{shop.date_of(day)}.csv"


def _orders_of(shop: Shop, day: int) -> list[Row]:
    span = range(shop.first_order_of(day), shop.first_order_of(day + 1))
    return [order_row(order, shop.date_of(day)) for order in span if order not in LATE_ORDERS]


def _items_of(shop: Shop, day: int) -> list[Row]:
    span = range(shop.first_order_of(day), shop.first_order_of(day + 1))
    lines = (
        line for order in span for line in item_lines(shop, order, shop.date_of(day), shop.items)
    )
    return [tuple(line.rstrip("\n").split(",")) for line in lines]


def _corrected(shop: Shop) -> list[Row]:
    """A day's orders once more, every tenth with a dollar less and the same timestamp."""
    rows = _orders_of(shop, CORRECTED_DAY)
    return [
        (*row[:4], f"{float(row[4]) - 1:g}", row[5]) if place % 10 == 0 else row
        for place, row in enumerate(rows)
    ]


def _revised(shop: Shop) -> list[Row]:
    """Thirty items in a later version, and ten in an earlier one, which must not win."""
    rows = _items_of(shop, REVISED_DAY)[:400:10]
    later = [(*row[:3], "0", *row[4:7], row[7][:-2] + "45", row[8]) for row in rows[:30]]
    return later + [(*row[:3], "0", *row[4:7], row[8] + "T00:00:00", row[8]) for row in rows[30:]]


def _day_files(shop: Shop, day: int) -> dict[str, bytes]:
    """A day's two files: bad rows strewn in, then written in the manner of that day."""
    contents = {}
    for dataset, columns, rows, bad in (
        ("orders", ORDER_COLUMNS, _orders_of(shop, day), BAD_ORDERS),
        ("order_items", ITEM_COLUMNS, _items_of(shop, day), BAD_ITEMS),
    ):
        name, dirt = _day_file(dataset, shop, day), random.Random(f"{SEED} {dataset} {day}")
        doubled = rows[:5] if (dataset, day) == ("orders", DOUBLED_DAY) else []
        for row in (*bad.get(day, ()), *doubled):
            rows.insert(dirt.randrange(10, len(rows)), row)
        manner = MANNERS.get((dataset, day), csv_bytes)
        contents[name + ".gz" if manner is _packed else name] = manner(columns, rows)
    return contents


# ---- manners of writing a file
def _with_bom(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    return b"\xef\xbb\xbf" + csv_bytes(columns, rows)


def _with_crlf(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    return csv_bytes(columns, rows, line_end="\r\n")


def _packed(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    return gzip.compress(csv_bytes(columns, rows), mtime=0)


def _reversed(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    return csv_bytes(
        [name.upper() for name in reversed(columns)], [tuple(reversed(row)) for row in rows]
    )


def _with_extra_columns(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    return csv_bytes(["exported_by", *columns, "note"], [("till 4", *row, "") for row in rows])


def _with_blanks(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    return csv_bytes(
        [f" {name} " for name in columns], [tuple(f"{cell} " for cell in row) for row in rows]
    )


def _from_excel(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    """As a spreadsheet gives a file back: a byte order mark, CRLF, integers with `.0`, TRUE and
    FALSE."""
    decimals = {"id", "order_id", "days_since_prior_order", "add_to_cart_order", "product_id"}
    places = [name in decimals for name in columns]
    flag = columns.index("reordered")
    spread = [
        tuple(
            cell + ".0" if cell.isdigit() and decimal else cell
            for cell, decimal in zip(row, places, strict=True)
        )
        for row in rows
    ]
    words = {"0": "FALSE", "1": "TRUE"}
    flagged = [(*row[:flag], words[row[flag]], *row[flag + 1 :]) for row in spread]
    return b"\xef\xbb\xbf" + csv_bytes(columns, flagged, line_end="\r\n")


def _latin_1(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    """UTF-8 but for three rows, which another program added."""
    odd = [
        "5,9999001,Zo\xeb,2025-04-05T10:00:00,12.50,2025-04-05",
        "6,9999002,Ren\xe9,2025-04-05T11:00:00,13,2025-04-05",
        "7,9999003,J\xfcrgen,2025-04-05T12:00:00,14,2025-04-05",
    ]
    return csv_bytes(columns, rows) + "".join(line + "\n" for line in odd).encode("latin-1")


def _cut_off(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    """The export stopped in the middle of a quoted field."""
    return csv_bytes(columns, rows) + b'8,9999004,"12'


MANNERS: dict[tuple[str, int], Callable[[Sequence[str], Sequence[Row]], bytes]] = {
    ("orders", 1): _with_bom,
    ("orders", 3): _cut_off,
    ("orders", 4): _latin_1,
    ("orders", 5): _with_crlf,
    ("orders", 8): _with_extra_columns,
    ("orders", 10): _with_blanks,
    ("order_items", 5): _from_excel,
    ("order_items", 6): _packed,
    ("order_items", 7): _reversed,
    ("order_items", 12): _with_bom,
}

# ---- rows that are wrong, each in its own way. A row of one cell is a line as it is.
BAD_PRODUCTS: list[Row] = [
    ("", "4", "Books", "A product without a number"),
    ("  ", "4", "Toys", "Another one"),
    ("990001,3,Garden",),
    ("990002,3,Garden,Hose,green,long",),
    (",".join(PRODUCT_COLUMNS),),
    ('990003,3,"Garden"s,Rake',),
]
BAD_ORDERS: dict[int, list[Row]] = {  # day -> rows
    0: [
        ("1", "", "1001", "2025-04-01T10:00:00", "10", "2025-04-01"),
        ("1", "9990001", "1001", "", "10", "2025-04-01"),
        ("1", "9990002", "1001", "01/04/2025 11:27", "10", "01/04/2025"),
        ("1", "9990003", "1001", "2025-04-31T10:00:00", "10", ""),
    ],
    1: [
        ("1", "9990004", "1001", "2025-04-02", "10", "2025-04-02"),
        ("1", "9990005", "1001", "2025-04-02T25:00:00", "10", ""),
        ("1", "9990006", "1001", "yesterday", "ten", "2025-04-02"),
    ],
    2: [
        ("1", "9990007", "1001", "2025-04-03T10:00:00", "1,234.50", "2025-04-03"),
        ("1", "9990008", "1001", "2025-04-03T10:00:00", "$12", "2025-04-03"),
        ("1", "9990009", "1001", "2025-04-03T10:00:00", "-Infinity", "2025-04-03"),
        ("1", "9990010", "1001", "2025-04-03T10:00:00", "Infinity", "2025-04-03"),
        ("1", "9990011", "1001", "2025-04-03T10:00:00", "1e999", "2025-04-03"),
    ],
    5: [
        ("1", "9990012", "1001", "2025-04-06T10:00:00", "10", "2025-04-09"),
        ("1", "9990013", "1001", "2025-04-06T10:00:00+02:00", "10", "2025-04-05"),
        ("1", "9990014", "1001", "2025-04-06T10:00:00", "10", "6.4.2025"),
    ],
    6: [
        (",".join(ORDER_COLUMNS),),
        ("1,9990015,1001,2025-04-07T10:00:00,12,50,2025-04-07",),
        ("1,9990016,1001",),
    ],
    12: [
        ("", "", "", "", "", ""),
        ("1", "9990017", "1001", "2025-04-14 10:00:00", "10", "2025-04-33"),
    ],
    13: [("1", "9990018", "1001", "13/04/2025", "10", "14-04-2025")],
}


def _bad_item(number: int, day: str, **cells: str) -> Row:
    """A good item of the shop's first order and product, with some cells replaced."""
    good = dict(
        zip(
            ITEM_COLUMNS,
            (str(number), "10000", "1001", "3", "1", "1", "0", f"{day}T09:00:00", day),
            strict=True,
        )
    )
    return tuple({**good, **cells}.values())


BAD_ITEMS: dict[int, list[Row]] = {  # day -> rows
    0: [
        _bad_item(9990101, "2025-04-01", days_since_prior_order="3.5"),
        _bad_item(9990102, "2025-04-01", days_since_prior_order="99999999999"),
        _bad_item(9990103, "2025-04-01", days_since_prior_order="abc", add_to_cart_order="first"),
        _bad_item(9990104, "2025-04-01", reordered="maybe"),
        _bad_item(9990105, "2025-04-01", reordered="2"),
    ],
    1: [
        _bad_item(0, "2025-04-02", id=""),
        _bad_item(9990106, "2025-04-02", order_id=""),
        _bad_item(9990107, "2025-04-02", product_id=" "),
        _bad_item(9990108, "2025-04-02", order_id="", product_id=""),
        _bad_item(9990109, "2025-04-02", order_timestamp=""),
    ],
    2: [
        _bad_item(9990110, "2025-04-03", order_timestamp="03/04/2025 09:00"),
        _bad_item(9990111, "2025-04-03", order_timestamp="2025-04-03T09:60:00"),
        _bad_item(9990112, "2025-04-03", date="2025-04-04"),
        _bad_item(9990113, "2025-04-03", date="April 3rd"),
        _bad_item(9990114, "2025-04-03", date="3/4/25", add_to_cart_order="1,5"),
    ],
    8: [
        (",".join(ITEM_COLUMNS),),
        ("9990115,10000,1001,3,1,1,0,2025-04-09T09:00:00",),
        ("9990116,10000,1001,3,1,1,0,2025-04-09T09:00:00,2025-04-09,,",),
        ('9990117,10000,1001,3,1,1,"0"0,2025-04-09T09:00:00,',),
    ],
    9: [
        _bad_item(9990118, "2025-04-10", order_id="7777777"),
        _bad_item(9990119, "2025-04-10", product_id="88888"),
        _bad_item(9990120, "2025-04-10", order_id="7777777", product_id="88888"),
        _bad_item(9990121, "2025-04-10", order_id="7777778"),
    ],
    12: [
        _bad_item(9990122, "2025-04-13", days_since_prior_order="-2147483649"),
        _bad_item(9990123, "2025-04-13", reordered="10"),
    ],
    14: [
        _bad_item(
            9990124,
            "2025-04-15",
            id="",
            order_id="",
            product_id="",
            order_timestamp="",
            reordered="?",
        )
    ],
}
