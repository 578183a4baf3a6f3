"""Odd and broken files, and what becomes of each. All can be delivered in one run: no path and no key appears twice.

A case says what the file holds and what is expected: the file's outcome, the rows of the table (the columns that
matter), and for each line that is not stored the reasons why. Line 1 is the header.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

DELIVERED = datetime(2025, 5, 1, 6, 0, 0)
PRODUCTS = "product_id,department_id,department,product_name"
ORDERS = "order_num,order_id,user_id,order_timestamp,total_amount,date"
ITEMS = "id,order_id,user_id,days_since_prior_order,product_id,add_to_cart_order,reordered,order_timestamp,date"
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Case:
    """One file and its outcome.

    stored      key -> the columns that the case is about, with the values that the table holds
    rejected    line -> reason codes, separated by blanks; parked likewise
    superseded  how many valid rows lose to a better one of their key
    raw         line -> the exact text kept of a rejected row, where that is the point
    """

    name: str
    path: str
    content: bytes
    outcome: str = "loaded"
    reason: str | None = None
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)
    parked: dict[int, str] = field(default_factory=dict)
    superseded: int = 0
    ignored_columns: tuple[str, ...] = ()
    raw: dict[int, str] = field(default_factory=dict)

    @property
    def rows_read(self) -> int:
        return len(self.stored) + len(self.rejected) + len(self.parked) + self.superseded

    @property
    def dataset(self) -> str | None:
        names = ("order_items", "orders", "products")
        return next((name for name in names if self.path.lower().startswith(name)), None)


def text(*lines: str, end: str = "\n") -> bytes:
    return (end.join(lines) + end).encode("utf-8")


def product(
    key: str, name: str = "Tea", department_id: str = "1", department: str = "Groceries"
) -> str:
    return f"{key},{department_id},{department},{name}"


def order(
    key: str,
    at: str = "2025-04-01T10:00:00",
    amount: str = "12.50",
    day: str = "",
    number: str = "1",
) -> str:
    return f"{number},{key},u1,{at},{amount},{day}"


def item(
    key: str,
    order_id: str = "base-order",
    product_id: str = "base-product",
    days: str = "3",
    cart: str = "1",
    again: str = "0",
    at: str = "2025-04-01T10:00:00",
    day: str = "",
) -> str:
    return f"{key},{order_id},u1,{days},{product_id},{cart},{again},{at},{day}"


def products(name: str, *lines: str, **expected: Any) -> Case:
    return Case(name, f"products/{name}.csv", text(PRODUCTS, *lines), **expected)


def orders(name: str, *lines: str, **expected: Any) -> Case:
    return Case(name, f"orders/{name}.csv", text(ORDERS, *lines), **expected)


def items(name: str, *lines: str, **expected: Any) -> Case:
    return Case(name, f"order_items/{name}.csv", text(ITEMS, *lines), **expected)


def names(**of_keys: str | None) -> dict[str, dict[str, Any]]:
    """Stored products by key (`_` stands for `-`) with their names."""
    return {key.replace("_", "-"): {"product_name": name} for key, name in of_keys.items()}


def aside(name: str, path: str, content: bytes, reason: str) -> Case:
    return Case(name, path, content, "set_aside", reason)


def spelled(name: str, column: str, make: Any, argument: str, good: dict[str, Any]) -> Case:
    """Spellings of a value that are understood: text -> value."""
    lines = [make(f"{name}-{place}", **{argument: spelling}) for place, spelling in enumerate(good)]
    stored = {f"{name}-{place}": {column: value} for place, value in enumerate(good.values())}
    return (items if make is item else orders)(name, *lines, stored=stored)


def refused(name: str, reason: str, make: Any, argument: str, bad: list[str]) -> Case:
    """Spellings of a value that are rejected for one reason."""
    lines = [make(f"{name}-{place}", **{argument: spelling}) for place, spelling in enumerate(bad)]
    return (items if make is item else orders)(
        name, *lines, rejected={line: reason for line in range(2, len(bad) + 2)}
    )


# ---- what the other cases lean on: an order and a product that are there
BASE = [
    products(
        "base_products",
        product("base-product"),
        product("660001"),
        stored={"base-product": {"department": "Groceries"}, "660001": {}},
    ),
    orders(
        "base_orders",
        order("base-order"),
        order("770001"),
        stored={"base-order": {"date": date(2025, 4, 1)}, "770001": {}},
    ),
]

# ---- values
VALUES = [
    spelled(
        "timestamps_that_are_understood",
        "order_timestamp",
        order,
        "at",
        {
            "2025-04-01T11:27:00": datetime(2025, 4, 1, 11, 27),
            "2025-04-01 11:27:00": datetime(2025, 4, 1, 11, 27),
            "2025-04-01T11:27": datetime(2025, 4, 1, 11, 27),
            "2025-04-01T11:27:08.5": datetime(2025, 4, 1, 11, 27, 8, 500_000),
            "2025-04-01T11:27:08.123456": datetime(2025, 4, 1, 11, 27, 8, 123_456),
            "2025-04-01T11:27:08.123456789": datetime(2025, 4, 1, 11, 27, 8, 123_456),
            "2025-04-01T11:27:00Z": datetime(2025, 4, 1, 11, 27),
            "2025-04-01 11:27:00 Z": datetime(2025, 4, 1, 11, 27),
            "2025-04-01T11:27:00+02:00": datetime(2025, 4, 1, 9, 27),
            "2025-04-01T11:27:00 +0200": datetime(2025, 4, 1, 9, 27),
            "2025-04-01T11:27-05": datetime(2025, 4, 1, 16, 27),
            "2025-04-01T11:27:00.25-05:30": datetime(2025, 4, 1, 16, 57, 0, 250_000),
            "2025-04-01T00:00:00": datetime(2025, 4, 1),
            "2025-04-01T23:59:59.999999": datetime(2025, 4, 1, 23, 59, 59, 999_999),
            "2024-02-29T12:00:00": datetime(2024, 2, 29, 12),
            "2000-02-29T12:00:00": datetime(2000, 2, 29, 12),
        },
    ),
    refused(
        "timestamps_that_are_none",
        "invalid_order_timestamp",
        order,
        "at",
        [
            "yesterday",
            "2025-04-01",
            "2025-04-31T10:00:00",
            "2025-02-29T10:00:00",
            "1900-02-29T10:00:00",
            "2025-13-01T10:00:00",
            "2025-04-01T24:00:00",
            "2025-04-01T10:60:00",
            "2025-04-01T10:00:60",
            "2025-04-01T10",
            "2025-4-1T10:00:00",
            "20250401T100000",
            "2025/04/01 10:00:00",
            "2025-04-01T10:00:00.",
            "2025-04-01T10:00:00.1234567890",
            "2025-04-01T10:00:00+2",
            "2025-04-01T10:00:00+25:00",
            "2025-04-01T10:00:00+02:60",
            "2025-04-01  10:00:00",
            "2025-04-01T10:00:00 UTC",
            "0000-01-01T10:00:00",
            "10000-01-01T10:00:00",
            "10:00:00",
            "1743501600",
            "45748.41667",
            "2025-04-01T10:00:00 PM",
            "２０２５-04-01T10:00:00",
            "-2025-04-01T10:00:00",
        ],
    ),
    orders(
        "years_at_both_ends_of_the_calendar",
        order("first-year", at="0001-01-01T00:00:00"),
        order("last-year", at="9999-12-31T23:59:59"),
        order("before-it", at="0001-01-01T00:00:00+01:00"),
        order("after-it", at="9999-12-31T23:59:59-01:00"),
        stored={
            "first-year": {"order_timestamp": datetime(1, 1, 1), "date": date(1, 1, 1)},
            "last-year": {"date": date(9999, 12, 31)},
        },
        rejected={4: "invalid_order_timestamp", 5: "invalid_order_timestamp"},
    ),
    refused(
        "timestamps_that_could_mean_two_days",
        "ambiguous_order_timestamp",
        order,
        "at",
        [
            "01/04/2025 11:27",
            "1/4/25",
            "13/04/2025 11:27",
            "01.04.2025 11:27:00",
            "01-04-2025T11:27:00",
        ],
    ),
    orders(
        "dates_that_are_understood",
        order("date-iso", day="2025-04-01"),
        order("date-midnight", day="2025-04-01T00:00:00"),
        order("date-blank-midnight", day="2025-04-01 00:00:00"),
        order("date-missing", day=""),
        stored={
            key: {"date": date(2025, 4, 1)}
            for key in ("date-iso", "date-midnight", "date-blank-midnight", "date-missing")
        },
    ),
    refused(
        "dates_that_are_none",
        "invalid_date",
        order,
        "day",
        [
            "2025-04-31",
            "2025-02-29",
            "2025-04-01T10:00:00",
            "2025-04-01T00:00:00Z",
            "April 1st",
            "20250401",
            "2025/04/01",
            "2025-4-1",
            "45748",
            "0000-04-01",
            "2025-04-01T",
        ],
    ),
    refused(
        "dates_that_could_mean_two_days",
        "ambiguous_date",
        order,
        "day",
        ["01/04/2025", "1/4/25", "1.4.2025", "01-04-2025", "13/04/2025", "01/04/2025 00:00:00"],
    ),
    orders(
        "offsets_that_cross_midnight",
        order("offset-as-written", at="2025-04-02T00:30:00+02:00", day="2025-04-02"),
        order("offset-in-utc", at="2025-04-02T00:30:00+02:00", day="2025-04-01"),
        order("offset-missing", at="2025-04-02T00:30:00+02:00"),
        order("offset-west", at="2025-04-01T23:30:00-05:00"),
        order("offset-wrong", at="2025-04-02T00:30:00+02:00", day="2025-04-03"),
        stored={
            "offset-as-written": {
                "order_timestamp": datetime(2025, 4, 1, 22, 30),
                "date": date(2025, 4, 2),
            },
            "offset-in-utc": {"date": date(2025, 4, 1)},
            "offset-missing": {"date": date(2025, 4, 1)},
            "offset-west": {"date": date(2025, 4, 2)},
        },
        rejected={6: "date_mismatch"},
    ),
    orders(
        "a_date_of_another_day_than_the_timestamp",
        order("day-before", day="2025-03-31"),
        order("day-after", day="2025-04-02"),
        order("year-before", day="2024-04-01"),
        rejected={2: "date_mismatch", 3: "date_mismatch", 4: "date_mismatch"},
    ),
    spelled(
        "amounts_that_are_understood",
        "total_amount",
        order,
        "amount",
        {
            "260": 260.0,
            "260.0": 260.0,
            "0": 0.0,
            "-0.0": 0.0,
            "-12.50": -12.5,
            "+3.1": 3.1,
            ".5": 0.5,
            "5.": 5.0,
            "1e3": 1000.0,
            "1.5E-2": 0.015,
            "0012.50": 12.5,
            "1.7976931348623157e308": 1.7976931348623157e308,
            "0.1234567890123456789": 0.12345678901234568,
            "": None,
            "   ": None,
        },
    ),
    refused(
        "amounts_that_are_none",
        "invalid_total_amount",
        order,
        "amount",
        [
            "ten",
            "$12",
            "12 EUR",
            "1 234",
            "12.5.0",
            "--1",
            "1e",
            "e5",
            ".",
            "-",
            "0x1F",
            "12d",
            "12f",
            "1_000",
            "12%",
            "(12.50)",
            "١٢",
            '"1,234.50"',
            '"12,50"',
        ],
    ),
    refused(
        "amounts_that_are_not_finite",
        "invalid_total_amount",
        order,
        "amount",
        ["NaN", "nan", "Infinity", "-Infinity", "inf", "+INF", "1e309", "-1e400"],
    ),
    orders(
        "a_refund_is_an_amount_below_zero",
        order("refund", amount="-49.90"),
        stored={"refund": {"total_amount": -49.9}},
    ),
    spelled(
        "integers_that_are_understood",
        "days_since_prior_order",
        item,
        "days",
        {
            "3": 3,
            "3.0": 3,
            "3.000": 3,
            "+3": 3,
            "-3": -3,
            "007": 7,
            "0": 0,
            "-0": 0,
            "2147483647": 2147483647,
            "-2147483648": -2147483648,
            "2147483647.0": 2147483647,
            "": None,
        },
    ),
    refused(
        "integers_that_are_none",
        "invalid_days_since_prior_order",
        item,
        "days",
        [
            "3.5",
            "3.",
            "abc",
            "1e2",
            "2147483648",
            "-2147483649",
            "99999999999",
            "0x10",
            "3 days",
            "NaN",
            "NULL",
            "٣",
            "--3",
            "3.01",
            "99999999999999999999999",
        ],
    ),
    refused(
        "places_in_the_cart_that_are_none",
        "invalid_add_to_cart_order",
        item,
        "cart",
        ["first", "1.5", "4294967297"],
    ),
    spelled(
        "yes_and_no_in_all_spellings",
        "reordered",
        item,
        "again",
        {
            "1": True,
            "true": True,
            "TRUE": True,
            "True": True,
            "yes": True,
            "Y": True,
            "t": True,
            "1.0": True,
            "0": False,
            "false": False,
            "FALSE": False,
            "no": False,
            "N": False,
            "f": False,
            "0.0": False,
            "": None,
        },
    ),
    refused(
        "neither_yes_nor_no",
        "invalid_reordered",
        item,
        "again",
        ["2", "-1", "maybe", "on", "oui", "10", "1.5", "truee"],
    ),
    orders(
        "blanks_around_a_value_do_not_count",
        " 1 ,  blanks ,\tu1\t, 2025-04-01T10:00:00 ,\u00a012.50 , 2025-04-01 ",
        stored={
            "blanks": {
                "order_num": "1",
                "user_id": "u1",
                "total_amount": 12.5,
                "date": date(2025, 4, 1),
            }
        },
    ),
    products(
        "words_such_as_null_are_text",
        product("null-1", "NULL"),
        product("null-2", "NA"),
        product("null-3", "None"),
        product("null-4", "nan"),
        product("null-5", "-"),
        product("null-6", '""'),
        product("null-7", '"  "'),
        stored=names(
            null_1="NULL",
            null_2="NA",
            null_3="None",
            null_4="nan",
            null_5="-",
            null_6=None,
            null_7=None,
        ),
    ),
    products(
        "only_the_key_is_needed",
        "bare-1,,,",
        'bare-2,"","",""',
        stored={
            key: {"department_id": None, "department": None, "product_name": None}
            for key in ("bare-1", "bare-2")
        },
    ),
    orders(
        "a_key_that_excel_made_a_decimal",
        order("550001.0"),
        order("550002.000", number="7.0"),
        order("00550003"),
        order("550004.50"),
        order("-550005.0"),
        order("5.5e5"),
        order("99999999999999999999990.0"),
        stored={
            "550001": {},
            "550002": {"order_num": "7"},
            "00550003": {},
            "550004.50": {},
            "-550005.0": {},
            "5.5e5": {},
            "99999999999999999999990": {},
        },
    ),
    products(
        "a_decimal_in_a_name_stays",
        product("decimal-name", "2.0", department="3.0", department_id="4.0"),
        stored={"decimal-name": {"product_name": "2.0", "department": "3.0", "department_id": "4"}},
    ),
    products(
        "keys_differ_by_case_zeros_and_accents",
        product("Key-A"),
        product("key-a"),
        product("0880007"),
        product("880007"),
        product("caf\u00e9"),
        product("cafe\u0301"),
        stored={
            key: {} for key in ("Key-A", "key-a", "0880007", "880007", "caf\u00e9", "cafe\u0301")
        },
    ),
    products(
        "any_letter_of_the_world",
        product("letter-1", "Crème brûlée"),
        product("letter-2", "日本茶"),
        product("letter-3", "🫖 teapot"),
        product("letter-4", "شاي"),
        product("letter-5", "a replacement \ufffd sign"),
        stored=names(
            letter_1="Crème brûlée",
            letter_2="日本茶",
            letter_3="🫖 teapot",
            letter_4="شاي",
            letter_5="a replacement \ufffd sign",
        ),
    ),
    products(
        "signs_that_some_programs_take_for_a_line_end",
        product("sign-1", "a\u2028b"),
        product("sign-2", "a\u0085b"),
        product("sign-3", "a\x0bb\x0cc"),
        stored=names(sign_1="a\u2028b", sign_2="a\u0085b", sign_3="a\x0bb\x0cc"),
    ),
    products(
        "signs_that_mean_nothing_here",
        product("#comment", "# tea"),
        product("back-1", "C:\\"),
        product("back-2", '"C:\\"'),
        product("back-3", "a\\nb"),
        product("back-4", "it's"),
        product("back-5", "=1+2"),
        product("back-6", "a;b|c"),
        stored={
            "#comment": {"product_name": "# tea"},
            **names(
                back_1="C:\\",
                back_2="C:\\",
                back_3="a\\nb",
                back_4="it's",
                back_5="=1+2",
                back_6="a;b|c",
            ),
        },
    ),
    products(
        "a_very_long_value",
        product("long", "x" * 200_000),
        stored={"long": {"product_name": "x" * 200_000}},
    ),
]

# ---- rows
ROWS = [
    products(
        "a_product_without_its_number",
        ",1,Books,Tea",
        "  ,1,Books,Tea",
        '"",1,Books,Tea',
        rejected={2: "missing_product_id", 3: "missing_product_id", 4: "missing_product_id"},
    ),
    orders(
        "an_order_without_number_or_time",
        order(""),
        order("no-time", at=""),
        order("", at="  "),
        rejected={
            2: "missing_order_id",
            3: "missing_order_timestamp",
            4: "missing_order_id missing_order_timestamp",
        },
    ),
    items(
        "an_item_without_its_keys",
        item(""),
        item("no-order", order_id=""),
        item("no-product", product_id=" "),
        item("no-time-item", at=""),
        item("", order_id="", product_id="", at=""),
        rejected={
            2: "missing_id",
            3: "missing_order_id",
            4: "missing_product_id",
            5: "missing_order_timestamp",
            6: "missing_id missing_order_id missing_product_id missing_order_timestamp",
        },
    ),
    items(
        "a_row_keeps_all_its_reasons",
        item(
            "all-wrong",
            order_id="",
            days="x",
            cart="y",
            again="z",
            at="01/04/2025 10:00",
            day="2025-04-31",
        ),
        item("two-wrong", days="3.5", day="2025-04-09"),
        rejected={
            2: "missing_order_id invalid_days_since_prior_order invalid_add_to_cart_order invalid_reordered "
            "ambiguous_order_timestamp invalid_date",
            3: "invalid_days_since_prior_order date_mismatch",
        },
        raw={3: "two-wrong,base-order,u1,3.5,base-product,1,0,2025-04-01T10:00:00,2025-04-09"},
    ),
    orders(
        "too_few_and_too_many_fields",
        order("fields-ok"),
        "1,few,u1,2025-04-01T10:00:00,12.50",
        order("many") + ",",
        "1,many,u1,2025-04-01T10:00:00,12,50,",
        "one",
        ",,,,,,,",
        "1,,,bad,bad",
        stored={"fields-ok": {"total_amount": 12.5}},
        rejected={
            3: "too_few_fields",
            4: "too_many_fields",
            5: "too_many_fields",
            6: "too_few_fields",
            7: "too_many_fields",
            8: "too_few_fields",
        },
        raw={5: "1,many,u1,2025-04-01T10:00:00,12,50,"},
    ),
    orders(
        "a_row_of_commas_is_a_record",
        ",,,,,",
        rejected={2: "missing_order_id missing_order_timestamp"},
    ),
    Case(
        "blank_lines_are_no_records",
        "orders/blank_lines_are_no_records.csv",
        text(ORDERS, "", order("gap-1"), "", "   ", " \t ", order("gap-2", amount="x"), "", ""),
        stored={"gap-1": {}},
        rejected={7: "invalid_total_amount"},
    ),
    orders(
        "the_header_once_more",
        order("header-1"),
        ORDERS,
        order("header-2"),
        ORDERS,
        stored={"header-1": {}, "header-2": {}},
        rejected={3: "repeated_header", 5: "repeated_header"},
    ),
    Case(
        "two_exports_glued_together",
        "orders/glued.csv",
        BOM + text(ORDERS, order("glued-1"), ORDERS, order("glued-2")),
        stored={"glued-1": {}, "glued-2": {}},
        rejected={3: "repeated_header"},
    ),
    Case(
        "a_row_in_latin_1",
        "products/latin_1.csv",
        text(PRODUCTS, product("latin-1"))
        + "latin-2,1,Books,Crème\n".encode("latin-1")
        + text(product("latin-3", "Crème")),
        stored=names(latin_1="Tea", latin_3="Crème"),
        rejected={3: "invalid_utf8"},
    ),
    Case(
        "a_letter_cut_in_two",
        "products/cut_letter.csv",
        text(PRODUCTS, product("cut-1")) + "cut-2,1,Books,日".encode()[:-1],
        stored={"cut-1": {}},
        rejected={3: "invalid_utf8"},
    ),
    Case(
        "utf8_that_is_not_allowed",
        "products/overlong.csv",
        text(PRODUCTS)
        + b"overlong,1,Books,\xc0\xaf\nsurrogate,1,Books,\xed\xa0\x80\n"
        + text(product("fine-utf8")),
        stored={"fine-utf8": {}},
        rejected={2: "invalid_utf8", 3: "invalid_utf8"},
    ),
    orders(
        "the_newest_version_in_a_file_wins",
        order("newest", at="2025-04-01T12:00:00", amount="2"),
        order("newest", at="2025-04-01T13:00:00+02:00", amount="1"),
        order("newest", at="2025-04-01T09:30:00", amount="3"),
        stored={"newest": {"total_amount": 2.0}},
        superseded=2,
    ),
    orders(
        "of_two_versions_of_one_moment_the_later_row_wins",
        order("tie", amount="1"),
        order("tie", amount="3"),
        order("tie", amount="2"),
        stored={"tie": {"total_amount": 2.0}},
        superseded=2,
    ),
    products(
        "of_two_products_the_later_row_wins",
        product("twin", "old"),
        product("twin.", "other"),
        product("twin", "new"),
        stored={"twin": {"product_name": "new"}, "twin.": {"product_name": "other"}},
        superseded=1,
    ),
    orders(
        "a_broken_twin_does_not_push_out_the_good_row",
        order("good-twin", amount="7"),
        order("good-twin", at="2025-04-02T10:00:00", amount="NaN"),
        stored={"good-twin": {"total_amount": 7.0}},
        rejected={3: "invalid_total_amount"},
    ),
    items(
        "items_whose_parents_have_not_come",
        item("orphan-1", order_id="never"),
        item("orphan-2", product_id="never"),
        item("orphan-3", order_id="never", product_id="never"),
        item("no-orphan"),
        stored={"no-orphan": {"order_id": "base-order"}},
        parked={2: "orphan_order", 3: "orphan_product", 4: "orphan_order orphan_product"},
    ),
    items(
        "an_item_of_an_order_that_was_rejected",
        item("of-rejected", order_id="fields-none"),
        parked={2: "orphan_order"},
    ),
]

# ---- quotes and line ends
QUOTES = [
    products(
        "quoted_commas_quotes_and_empty_cells",
        product("quote-1", '"Tea, green"'),
        product("quote-2", '"the ""best"" tea"'),
        product("quote-3", '""""'),
        '"quote-4","1","Books","Tea"',
        product("quote-5", '""'),
        stored=names(
            quote_1="Tea, green", quote_2='the "best" tea', quote_3='"', quote_4="Tea", quote_5=None
        ),
    ),
    products(
        "a_quote_inside_a_plain_value",
        product("inch-1", 'Nail 5"'),
        product("inch-2", 'a "b" c'),
        product("inch-3", "plain"),
        stored=names(inch_1='Nail 5"', inch_2='a "b" c', inch_3="plain"),
    ),
    products(
        "blanks_around_a_quoted_value",
        'around-1, "2" ,\t"Books, old"\t, "Tea, green" ',
        stored={
            "around-1": {
                "department_id": "2",
                "department": "Books, old",
                "product_name": "Tea, green",
            }
        },
    ),
    products(
        "a_quoted_value_on_several_lines",
        product("lines-1", '"Tea\ngreen\n\nfine"'),
        product("lines-2", '"a\n,""b"""'),
        ",1,Books,nameless",
        product("lines-3"),
        stored=names(lines_1="Tea\ngreen\n\nfine", lines_2='a\n,"b"', lines_3="Tea"),
        rejected={8: "missing_product_id"},
    ),
    orders(
        "a_bad_row_on_several_lines",
        order('"on\ntwo"', amount="ten"),
        order("after-two", amount="x"),
        rejected={2: "invalid_total_amount", 4: "invalid_total_amount"},
        raw={2: '1,"on\ntwo",u1,2025-04-01T10:00:00,ten,'},
    ),
    Case(
        "windows_line_ends",
        "products/crlf.csv",
        text(PRODUCTS, product("crlf-1"), product("crlf-2", '"a\r\nb"'), "crlf-3,1", end="\r\n"),
        stored=names(crlf_1="Tea", crlf_2="a\r\nb"),
        rejected={5: "too_few_fields"},
        raw={5: "crlf-3,1"},
    ),
    Case(
        "old_macintosh_line_ends",
        "products/cr.csv",
        text(PRODUCTS, product("cr-1"), product("cr-2"), ",,,", end="\r"),
        stored=names(cr_1="Tea", cr_2="Tea"),
        rejected={4: "missing_product_id"},
    ),
    Case(
        "line_ends_of_all_kinds_and_none_at_the_end",
        "products/mixed_ends.csv",
        f"{PRODUCTS}\r\n{product('mixed-1')}\n{product('mixed-2')}\r{product('mixed-3')}".encode(),
        stored=names(mixed_1="Tea", mixed_2="Tea", mixed_3="Tea"),
    ),
    products(
        "text_behind_a_closing_quote",
        product("behind-1", '"Tea" green'),
        product("behind-2"),
        product("behind-3", '"a"b"'),
        product("behind-4"),
        stored=names(behind_2="Tea", behind_4="Tea"),
        rejected={2: "unclosed_quote", 4: "unclosed_quote"},
        raw={2: 'behind-1,1,Groceries,"Tea" green'},
    ),
    products(
        "an_unclosed_quote_costs_its_own_line_only",
        product("open-1"),
        product("open-2", '"Tea'),
        product("open-3"),
        product("open-4"),
        stored=names(open_1="Tea", open_3="Tea", open_4="Tea"),
        rejected={3: "unclosed_quote"},
        raw={3: 'open-2,1,Groceries,"Tea'},
    ),
    products(
        "an_unclosed_quote_before_good_quotes",
        product("before-1", '"Tea'),
        product("before-2"),
        product("before-3", '"Tea, green"'),
        product("before-4"),
        stored=names(before_2="Tea", before_3="Tea, green", before_4="Tea"),
        rejected={2: "unclosed_quote"},
    ),
    Case(
        "the_export_stopped_inside_quotes",
        "products/cut_off.csv",
        text(PRODUCTS, product("stop-1")) + b'stop-2,1,Books,"Te',
        stored={"stop-1": {}},
        rejected={3: "unclosed_quote"},
        raw={3: 'stop-2,1,Books,"Te'},
    ),
]

# ---- headers
HEADERS = [
    Case(
        "columns_in_another_order",
        "orders/reordered_columns.csv",
        text(
            "date,total_amount,order_timestamp,user_id,order_id,order_num",
            "2025-04-01,9.5,2025-04-01T10:00:00,u9,reordered,4",
        ),
        stored={
            "reordered": {
                "order_num": "4",
                "user_id": "u9",
                "total_amount": 9.5,
                "date": date(2025, 4, 1),
            }
        },
    ),
    Case(
        "column_names_in_capitals_with_blanks",
        "products/capitals.csv",
        text(" PRODUCT_ID , Department_Id,DEPARTMENT,\tProduct_Name ", product("capitals")),
        stored={"capitals": {"product_name": "Tea"}},
    ),
    Case(
        "column_names_in_quotes",
        "products/quoted_header.csv",
        text('"product_id","department_id","department","product_name"', product("quoted-header")),
        stored={"quoted-header": {}},
    ),
    Case(
        "more_columns_than_needed",
        "products/more_columns.csv",
        text(
            "note,product_id,price,department_id,department,product_name",
            'x,more-1,"1,50",1,Books,Tea',
            ",more-2,,1,Books,Tea",
        ),
        stored=names(more_1="Tea", more_2="Tea"),
        ignored_columns=("note", "price"),
    ),
    Case(
        "a_nameless_column_at_the_end",
        "products/trailing_comma.csv",
        text(PRODUCTS + ",", product("nameless-1") + ",", product("nameless-2")),
        stored={"nameless-1": {"product_name": "Tea"}},
        rejected={3: "too_few_fields"},
        ignored_columns=("",),
    ),
    Case(
        "a_column_that_is_not_needed_twice",
        "products/extra_twice.csv",
        text("note,note," + PRODUCTS, "a,b," + product("extra-twice")),
        stored={"extra-twice": {}},
        ignored_columns=("note", "note"),
    ),
    Case(
        "three_thousand_columns",
        "products/three_thousand_columns.csv",
        text(
            ",".join(f"c{place}" for place in range(2996)) + "," + PRODUCTS,
            "v," * 2996 + product("wide-1"),
            "v," * 2995 + product("wide-2"),
            '"v",' * 2996 + product("wide-3", '"a, b"'),
        ),
        stored=names(wide_1="Tea", wide_3="a, b"),
        rejected={3: "too_few_fields"},
        ignored_columns=tuple(f"c{place}" for place in range(2996)),
    ),
    Case(
        "a_byte_order_mark",
        "products/bom.csv",
        BOM + text(PRODUCTS, product("bom-1")),
        stored={"bom-1": {}},
    ),
    Case(
        "a_byte_order_mark_before_a_quote",
        "products/bom_quote.csv",
        BOM
        + text('"product_id",department_id,department,product_name', product("bom-2", '"a\nb"')),
        stored=names(bom_2="a\nb"),
    ),
    Case("a_header_and_nothing_else", "orders/header_only.csv", text(ORDERS)),
    Case("a_header_without_a_line_end", "orders/header_no_end.csv", ORDERS.encode()),
    aside(
        "a_column_is_missing",
        "orders/missing_column.csv",
        text(ORDERS.replace(",total_amount", ""), "1,x,u,2025-04-01T10:00:00,"),
        "missing_column",
    ),
    aside(
        "the_date_column_is_missing",
        "orders/no_date_column.csv",
        text(ORDERS.replace(",date", "")),
        "missing_column",
    ),
    aside(
        "a_needed_column_twice", "orders/twice.csv", text(ORDERS + ",Order_ID"), "duplicate_column"
    ),
    aside(
        "no_header_at_all",
        "orders/no_header.csv",
        text(order("headless"), order("headless-2")),
        "no_header",
    ),
    aside(
        "semicolons_instead_of_commas",
        "products/semicolons.csv",
        text(PRODUCTS.replace(",", ";"), product("x").replace(",", ";")),
        "no_header",
    ),
    aside(
        "the_header_of_something_else",
        "orders/other_header.csv",
        text("sku,stock", "1,2"),
        "no_header",
    ),
]

# ---- files
SPREADSHEET = [
    "990001.0,770001.0,1001.0,3.0,660001.0,1.0,TRUE,2025-04-01 11:27:00,2025-04-01",
    "990002.0,770001.0,1001.0,,660001.0,2.0,FALSE,2025-04-01 11:27,2025-04-01 00:00:00",
    "990003.0,770001.0,1001.0,3.0,660001.0,3.0,FALSE,01/04/2025 11:27,01/04/2025",
]
PACKED = gzip.compress(text(PRODUCTS, product("packed-1"), product("packed-2", '"a\nb"')), mtime=0)
PICTURE = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x10\x00\x00\x00\x10\x08\x06\x00\x00\x00\x1f\xf3\xffaIDAT"
    + bytes(range(200, 256)) * 3
)
FILES = [
    Case(
        "a_file_that_went_through_excel",
        "order_items/excel.csv",
        BOM + text(ITEMS, *SPREADSHEET, end="\r\n"),
        stored={
            "990001": {
                "order_id": "770001",
                "user_id": "1001",
                "days_since_prior_order": 3,
                "product_id": "660001",
                "add_to_cart_order": 1,
                "reordered": True,
                "order_timestamp": datetime(2025, 4, 1, 11, 27),
            },
            "990002": {
                "days_since_prior_order": None,
                "reordered": False,
                "date": date(2025, 4, 1),
            },
        },
        rejected={4: "ambiguous_order_timestamp ambiguous_date"},
    ),
    Case(
        "a_packed_file",
        "products/packed.csv.gz",
        PACKED,
        stored=names(packed_1="Tea", packed_2="a\nb"),
    ),
    Case(
        "a_packed_file_in_two_parts",
        "products/two_parts.csv.gz",
        gzip.compress(text(PRODUCTS, product("part-1")), mtime=0)
        + gzip.compress(text(product("part-2")), mtime=0),
        stored=names(part_1="Tea", part_2="Tea"),
    ),
    Case(
        "a_packed_file_with_a_byte_order_mark",
        "products/packed_bom.csv.gz",
        gzip.compress(BOM + text(PRODUCTS, product("packed-bom"), ",,,", end="\r\n"), mtime=0),
        stored={"packed-bom": {}},
        rejected={3: "missing_product_id"},
    ),
    Case(
        "a_packed_file_with_its_name_in_capitals",
        "products/CAPITALS.CSV.GZ",
        gzip.compress(text(PRODUCTS, product("capitals-gz")), mtime=0),
        stored={"capitals-gz": {}},
    ),
    aside(
        "a_packed_file_cut_short",
        "products/cut_short.csv.gz",
        PACKED[: len(PACKED) // 2],
        "truncated_gzip",
    ),
    aside(
        "a_packed_file_without_its_last_bytes",
        "products/last_bytes.csv.gz",
        PACKED[:-4],
        "truncated_gzip",
    ),
    aside(
        "a_packed_file_with_a_wrong_sum",
        "products/wrong_sum.csv.gz",
        PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:],
        "truncated_gzip",
    ),
    aside(
        "plain_text_that_claims_to_be_packed",
        "products/not_packed.csv.gz",
        text(PRODUCTS, product("x")),
        "truncated_gzip",
    ),
    aside(
        "nothing_in_a_packed_file",
        "products/packed_nothing.csv.gz",
        gzip.compress(b"", mtime=0),
        "empty_file",
    ),
    aside("an_empty_file", "orders/empty.csv", b"", "empty_file"),
    aside("blank_lines_only", "orders/blank_lines.csv", b"\n\r\n  \n", "empty_file"),
    aside("a_byte_order_mark_only", "orders/bom_only.csv", BOM, "empty_file"),
    aside(
        "utf_16_as_excel_writes_unicode_text",
        "orders/utf16_le.csv",
        b"\xff\xfe" + text(ORDERS, order("x")).decode().encode("utf-16-le"),
        "utf16",
    ),
    aside(
        "utf_16_the_other_way_round",
        "orders/utf16_be.csv",
        b"\xfe\xff" + text(ORDERS, order("x")).decode().encode("utf-16-be"),
        "utf16",
    ),
    aside(
        "utf_16_without_its_mark",
        "orders/utf16_bare.csv",
        text(ORDERS, order("x")).decode().encode("utf-16-le"),
        "utf16",
    ),
    aside("a_picture", "orders/picture.csv", PICTURE, "binary"),
    aside("a_packed_file_without_its_ending", "products/no_ending.csv", PACKED, "binary"),
    aside(
        "a_workbook_that_was_only_renamed",
        "orders/workbook.csv",
        b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00[Content_Types].xml",
        "binary",
    ),
    aside("a_note_to_the_reader", "readme.txt", b"Exports of April", "unknown_dataset"),
    aside("a_file_of_no_dataset", "customers/2025-04.csv", b"id,name\n1,Ann\n", "unknown_dataset"),
    aside("a_workbook", "orders/april.xlsx", b"PK\x03\x04", "unknown_dataset"),
    aside(
        "an_orders_file_in_a_strange_folder",
        "old/orders/2025.csv",
        text(ORDERS, order("strange-folder")),
        "unknown_dataset",
    ),
]

# ---- names of files
NAMES = [
    "orders/a name with blanks.csv",
    "orders/größe-日本.csv",
    "orders/100% sure.csv",
    "orders/a%20b.csv",
    "orders/a+b.csv",
    "orders/date=2025-04-01/part.csv",
    "orders/a&b;c,d.csv",
    "orders/[1] {2}*.csv",
    "orders/a#b?c.csv",
    "orders/it's.csv",
    "orders/deep/er/and/deeper.csv",
    "ORDERS/Capitals.CSV",
    "orders.csv",
    "orders_2025-04.csv",
    "Orders-2025.csv",
]
FILE_NAMES = [
    Case(
        f"a_file_named {path}",
        path,
        text(ORDERS, order(f"named-{place}"), order(f"bad-name-{place}", amount="x")),
        stored={f"named-{place}": {}},
        rejected={3: "invalid_total_amount"},
    )
    for place, path in enumerate(NAMES)
]
FILE_NAMES += [
    Case(
        "items_at_the_top_are_no_orders",
        "order_items.csv",
        text(ITEMS, item("top-item")),
        stored={"top-item": {}},
    ),
    Case(
        "items_with_a_day_in_the_name",
        "order_items_2025-04-01.csv",
        text(ITEMS, item("day-item")),
        stored={"day-item": {}},
    ),
    Case(
        "products_at_the_top",
        "products.csv",
        text(PRODUCTS, product("top-product")),
        stored={"top-product": {}},
    ),
]

CASES: list[Case] = [*BASE, *VALUES, *ROWS, *QUOTES, *HEADERS, *FILES, *FILE_NAMES]
