"""Odd and broken files, and what becomes of each.

All can be delivered in one run: no path and no key appears twice.

A case says what the file holds and what is expected: the file's outcome, the rows of the table (the
columns that matter), and for each line that is not stored the reasons why. Line 1 is the header.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

DELIVERED = datetime(2025, 5, 1, 6, 0, 0)
PRODUCTS = "product_id,department_id,department,product_name"
ORDERS = "order_num,order_id,user_id,order_timestamp,total_amount,date"
ITEMS = (
    "id,order_id,user_id,days_since_prior_order,product_id,add_to_cart_order,reordered,"
    "order_timestamp,date"
)
BOM = b"\xef\xbb\xbf"
UNICODE_BLANKS = (
    "\x0b\x0c\x85\xa0\u1680\u2000\u2003\u2007\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
    "\u180e\u200b\u200c\u200d\u2060\ufeff"
)


@dataclass(frozen=True)
class Case:
    """One file and its outcome.

    outcome     as in the manifest, or `unmentioned` where the manifest must not name the file
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
        names = {"orderitem": "order_items", "ordersitem": "order_items", "order": "orders"}
        path = self.path.lower().replace("-", "").replace("_", "").replace(" ", "")
        names["product"] = "products"
        return next((name for start, name in names.items() if path.startswith(start)), None)


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
    reordered: str = "0",
    at: str = "2025-04-01T10:00:00",
    day: str = "",
) -> str:
    return f"{key},{order_id},u1,{days},{product_id},{cart},{reordered},{at},{day}"


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


def plain(name: str, path: str, lines: list[str], **expected: Any) -> Case:
    """A file of products of exactly these lines, the header among them."""
    return Case(name, f"products/{path}", text(*lines), **expected)


def spelled(name: str, column: str, make: Any, argument: str, good: dict[str, Any]) -> Case:
    """Spellings of a value that are understood: text -> value."""
    lines = [make(f"{name}-{place}", **{argument: spelling}) for place, spelling in enumerate(good)]
    stored = {f"{name}-{place}": {column: value} for place, value in enumerate(good.values())}
    return (items if make is item else orders)(name, *lines, stored=stored)


def refused(name: str, reason: str, make: Any, argument: str, bad: list[str]) -> Case:
    """Spellings of a value that are rejected for one reason; fewer than make a file bad as a
    whole."""
    assert len(bad) < 20, name
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
            "2025-04-01T11:27:00 UTC": datetime(2025, 4, 1, 11, 27),
            "2025-04-01 11:27:00.000 UTC": datetime(2025, 4, 1, 11, 27),
            "2025-04-01 11:27 UTC": datetime(2025, 4, 1, 11, 27),
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
        ],
    ),
    refused(
        "timestamps_that_are_almost_one",
        "invalid_order_timestamp",
        order,
        "at",
        [
            "0000-00-00 00:00:00",
            "2025-04-01 10:00:00 CET",
            "2025-04-01 10:00:00 UTC+2",
            "2025-04-01 10:00:00  UTC",
            "2025-04-01T10:00:00.",
            "2025-04-01T10:00:00.1234567890",
            "2025-04-01T10:00:00+2",
            "2025-04-01T10:00:00+25:00",
            "2025-04-01T10:00:00+02:60",
            "2025-04-01  10:00:00",
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
        },
        rejected={
            3: "future_order_timestamp",
            4: "invalid_order_timestamp",
            5: "invalid_order_timestamp",
        },
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
    orders(
        "a_date_of_zeros_is_no_date",
        order("zeros-1", day="0000-00-00"),
        order("zeros-2", day="0000-00-00 00:00:00"),
        order("zeros-3", day="0000-00-00T00:00"),
        order("zeros-4", day="0000-00-00 10:00:00"),
        stored={key: {"date": date(2025, 4, 1)} for key in ("zeros-1", "zeros-2", "zeros-3")},
        rejected={5: "invalid_date"},
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
            "0.30000000000000004": 0.30000000000000004,
            "123456789012345.00": 123456789012345.0,
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
        ],
    ),
    refused(
        "amounts_with_commas",
        "invalid_total_amount",
        order,
        "amount",
        ['"1,234.50"', '"12,50"', '"1.234,50"', '"1,23,456"', '","', '"12,"', '"0012,500"'],
    ),
    refused(
        "amounts_that_could_be_a_thousand_or_one_and_a_bit",
        "ambiguous_total_amount",
        order,
        "amount",
        ['"1,234"', '"-1,234"', '"+12,345"', '"999,999,999"'],
    ),
    refused(
        "amounts_that_are_not_finite",
        "invalid_total_amount",
        order,
        "amount",
        ["NaN0", "-NaN", "Infinity", "-Infinity", "inf", "+INF", "1e309", "-1e400"],
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
            "nil",
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
        "reordered",
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
        "reordered",
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
        product("null-1", "null"),
        product("null-2", "NA"),
        product("null-3", "None"),
        product("null-4", "nan"),
        product("null-5", "-"),
        product("null-6", '""'),
        product("null-7", '"  "'),
        product("null-8", "#N/A"),
        product("null-9", "\\n", department="Null"),
        stored={
            **names(
                null_1="null",
                null_2="NA",
                null_3="None",
                null_4="nan",
                null_5="-",
                null_6=None,
                null_7=None,
                null_8="#N/A",
            ),
            "null-9": {"product_name": "\\n", "department": "Null"},
        },
    ),
    products(
        "a_database_s_null_in_a_text_is_none",
        product("none-1", "NULL", department="\\N"),
        product("none-2", " NULL ", department='"NULL"'),
        product("none-3", '"\\N"'),
        stored={
            "none-1": {"product_name": None, "department": None},
            "none-2": {"product_name": None, "department": None},
            "none-3": {"product_name": None},
        },
    ),
    orders(
        "a_word_for_nothing_is_no_key",
        *[order(word) for word in ("NULL", "\\N", "nan", "#N/A", "None", "NaT", "<NA>", "null")],
        order('="NULL"'),
        order('=""'),
        order("NA"),
        order("nano"),
        order("0"),
        stored={"nano": {}, "0": {}},
        rejected={line: "missing_order_id" for line in range(2, 13)},
    ),
    items(
        "a_word_for_nothing_is_no_parent",
        item("no-parent-1", order_id="NULL"),
        item("no-parent-2", product_id="#N/A"),
        item("no-parent-3", at="NaT"),
        rejected={2: "missing_order_id", 3: "missing_product_id", 4: "missing_order_timestamp"},
    ),
    orders(
        "a_word_for_nothing_is_no_value",
        "nan,word-1,NULL,2025-04-01T10:00:00,NaN,\\N",
        "#N/A,word-2,<na>,2025-04-01T10:00:00,#n/a,nat",
        stored={
            key: {
                "order_num": None,
                "user_id": None,
                "total_amount": None,
                "date": date(2025, 4, 1),
            }
            for key in ("word-1", "word-2")
        },
    ),
    items(
        "a_word_for_nothing_is_no_number",
        item("word-item-1", days="NULL", cart="nan", reordered="None"),
        item("word-item-2", days="<NA>", cart="\\N", reordered="#N/A"),
        stored={
            key: {"days_since_prior_order": None, "add_to_cart_order": None, "reordered": None}
            for key in ("word-item-1", "word-item-2")
        },
    ),
    orders(
        "a_spreadsheet_has_lost_the_digits",
        order("2.02504E+11"),
        order("2E+11"),
        order("lost-user", number="2.02504E+11").replace("u1", "1.5E+15"),
        order("5E5"),
        order("2.5e+11"),
        order("12.5E+11"),
        order("A1E+11"),
        stored={"5E5": {}, "A1E+11": {}},
        rejected={
            2: "invalid_order_id",
            3: "invalid_order_id",
            4: "invalid_order_num invalid_user_id",
            6: "invalid_order_id",
            7: "invalid_order_id",
        },
    ),
    items(
        "a_spreadsheet_has_lost_the_digits_of_a_parent",
        item("lost-1", order_id="2.02504E+11", product_id="2.02504E+11"),
        item("3.3E+10"),
        rejected={2: "invalid_order_id invalid_product_id", 3: "invalid_id"},
    ),
    products(
        "zeros_that_excel_was_to_keep",
        product('="00081"'),
        product('"=""00082"""', department_id='="007"'),
        product('=" 00083 "'),
        product("formula", '="00081"'),
        stored={
            "00081": {},
            "00082": {"department_id": "007"},
            "00083": {},
            "formula": {"product_name": '="00081"'},
        },
    ),
    orders(
        "blanks_of_all_of_unicode",
        *[
            order(f"{blank}blank-{place}{blank}", at=f"{blank}2025-04-01T10:00:00{blank}")
            for place, blank in enumerate(UNICODE_BLANKS)
        ],
        order("".join(UNICODE_BLANKS)),
        order("in\u3000side\u200b", amount="\u30007.50\ufeff"),
        stored={
            **{
                f"blank-{place}": {"order_timestamp": datetime(2025, 4, 1, 10)}
                for place in range(len(UNICODE_BLANKS))
            },
            "in\u3000side": {"total_amount": 7.5},
        },
        rejected={len(UNICODE_BLANKS) + 2: "missing_order_id"},
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
        order("5.5e1"),
        order("99999999999999999999990.0"),
        stored={
            "550001": {},
            "550002": {"order_num": "7"},
            "00550003": {},
            "550004.50": {},
            "-550005.0": {},
            "55": {},
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
        product("~\u2028~"),
        product("!\u0085!"),
        stored={
            **names(sign_1="a\u2028b", sign_2="a\u0085b", sign_3="a\x0bb\x0cc"),
            "~\u2028~": {},
            "!\u0085!": {},
        },
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
            reordered="z",
            at="01/04/2025 10:00",
            day="2025-04-31",
        ),
        item("two-wrong", days="3.5", day="2025-04-09"),
        rejected={
            2: "missing_order_id invalid_days_since_prior_order invalid_add_to_cart_order "
            "invalid_reordered "
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
        ",,,,,,,1",
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
        "a_row_of_commas_is_a_blank_line",
        ",,,,,",
        order("commas-1"),
        ",",
        " , ,\u3000,\u200b,\t,",
        '"","",,,,',
        ",,,,,,,,",
        order("commas-2", amount="x"),
        ",,,,,",
        stored={"commas-1": {}},
        rejected={8: "invalid_total_amount"},
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
    orders(
        "the_header_once_more_in_another_spelling",
        order("spelling-1"),
        ORDERS.upper(),
        ",".join(f'"{name}"' for name in ORDERS.split(",")),
        ORDERS.replace(",", " , "),
        "\ufeff" + ORDERS,
        "\ufeff" + ",".join(f'"{name.title()}"' for name in ORDERS.split(",")),
        order("spelling-2"),
        stored={"spelling-1": {}, "spelling-2": {}},
        rejected={line: "repeated_header" for line in range(3, 8)},
    ),
    products(
        "the_header_of_products_once_more_is_no_product",
        PRODUCTS.upper(),
        product("after-header"),
        stored={"after-header": {}},
        rejected={2: "repeated_header"},
    ),
    Case(
        "files_joined_by_cat_with_their_marks",
        "products/joined.csv",
        b"".join(
            BOM + text(PRODUCTS, product(f"joined-{place}"), product(f"joined-{place}b"))
            for place in (1, 2, 3)
        ),
        stored={f"joined-{place}{copy}": {} for place in (1, 2, 3) for copy in ("", "b")},
        rejected={4: "repeated_header", 7: "repeated_header"},
    ),
    plain(
        "the_header_once_more_beside_other_names",
        "header_beside.csv",
        [
            PRODUCTS + ",price",
            product("beside-1") + ",2",
            PRODUCTS + ",cost",
            product("beside-2") + ",3",
        ],
        stored={"beside-1": {}, "beside-2": {}},
        rejected={3: "repeated_header"},
        ignored_columns=("price",),
    ),
    Case(
        "a_mark_at_the_start_of_any_line",
        "products/marks.csv",
        BOM * 2
        + text(PRODUCTS, "\ufeff" + product("c02-3"), "\ufeff\ufeff" + product("c02-4"))
        + text("\ufeff", "\ufeff" + product('"c02-5"', '"two\nlines"'), "\ufeff,1,Books,Tea"),
        stored=names(c02_3="Tea", c02_4="Tea", c02_5="two\nlines"),
        rejected={7: "missing_product_id"},
    ),
    products(
        "a_stray_quote_in_two_rows",
        product("stray-1"),
        product("stray-2", '"Tea'),
        product("stray-3", 'Coffee"'),
        product("stray-4"),
        'stray-5,1,"Food,Tea',
        'stray-6,1",Food,Coffee',
        product("stray-7"),
        stored=names(stray_1="Tea", stray_4="Tea", stray_7="Tea"),
        rejected={3: "swallowed_row", 6: "swallowed_row"},
        raw={
            3: 'stray-2,1,Groceries,"Tea\nstray-3,1,Groceries,Coffee"',
            6: 'stray-5,1,"Food,Tea\nstray-6,1",Food,Coffee',
        },
    ),
    products(
        "a_stray_quote_that_swallows_many_rows",
        product("many-1", '"Tea'),
        *[product(f"many-{place}") for place in range(2, 6)],
        product("many-6", 'Coffee"'),
        product("many-7"),
        stored={"many-7": {}},
        rejected={2: "swallowed_row"},
    ),
    Case(
        "a_stray_quote_with_windows_line_ends",
        "products/stray_crlf.csv",
        text(PRODUCTS, product("crlf-stray", '"Tea'), product("x", 'y"'), end="\r\n"),
        rejected={2: "swallowed_row"},
        raw={2: 'crlf-stray,1,Groceries,"Tea\r\nx,1,Groceries,y"'},
    ),
    products(
        "a_line_of_a_quoted_value_that_is_no_row",
        product("no-row-1", '"Tea\nwith milk, sugar"'),
        product("no-row-2", '"Tea\n,,,,"'),
        stored=names(no_row_1="Tea\nwith milk, sugar", no_row_2="Tea\n,,,,"),
    ),
    Case(
        "control_characters",
        "products/controls.csv",
        text(
            PRODUCTS,
            product("control-1"),
            product("control-2", "T\0ea"),
            product("control-3", "T\x01ea"),
            product("control-4", '"T\x1bea"'),
            product("control-5", "T\x7fea"),
            product("\0"),
            "\0\0\0",
            product("control-6", "T\tea"),
        ),
        stored=names(control_1="Tea", control_6="T\tea"),
        rejected={line: "control_character" for line in range(3, 9)},
        raw={3: "control-2,1,Groceries,T\0ea"},
    ),
    Case(
        "a_control_character_behind_64_kb",
        "products/controls_far.csv",
        text(PRODUCTS, product("far-1", "x" * 70_000), product("far-2", "T\0ea"), product("far-3")),
        stored={"far-1": {}, "far-3": {}},
        rejected={3: "control_character"},
    ),
    Case(
        "a_file_whose_end_was_filled_with_zeros",
        "products/filled.csv",
        text(PRODUCTS, product("filled")) + b"\0" * 150,
        stored={"filled": {}},
        rejected={3: "control_character"},
        raw={3: "\0" * 150},
    ),
    Case(
        "a_file_as_dos_ends_it",
        "products/ctrl_z.csv",
        text(PRODUCTS, product("ctrl-z"), end="\r\n") + b"\x1a",
        stored={"ctrl-z": {}},
    ),
    Case(
        "two_files_as_dos_ends_them",
        "products/ctrl_z_twice.csv",
        text(PRODUCTS, product("dos-1"), "\x1a", product("dos-2"), product("\x1a"), "\x1a"),
        stored={"dos-1": {}, "dos-2": {}},
        rejected={5: "control_character"},
    ),
    Case(
        "of_two_things_wrong_with_a_line_the_first_is_told",
        "products/both_wrong.csv",
        text(PRODUCTS)
        + b"both-1,1,Caf\xe9,\x01,,\n"
        + b'both-2,1,"open\x01\n'
        + b'both-3,"open,1,Tea,,,\n'
        + b'both-4,1,1,"a\nb",c,d,e\n',
        rejected={
            2: "invalid_utf8",
            3: "control_character",
            4: "unclosed_quote",
            5: "too_many_fields",
        },
    ),
    Case(
        "a_row_in_latin_1",
        "products/latin_1.csv",
        text(PRODUCTS, product("latin-1"))
        + "latin-2,1,Books,Crème\n".encode("latin-1")
        + text(product("latin-3", "Crème")),
        stored=names(latin_1="Tea", latin_3="Crème"),
        rejected={3: "invalid_utf8"},
        raw={3: "latin-2,1,Books,Crème"},
    ),
    Case(
        "a_row_in_latin_1_beside_a_value_on_two_lines",
        "products/latin_1_lines.csv",
        text(PRODUCTS, product("latin-4", '"two\nlines"'))
        + 'latin-5,1,Books,Crème\nlatin-6,1,"Bo\noks",Crème\nlatin-é,1,,\n'.encode("latin-1"),
        stored=names(latin_4="two\nlines"),
        rejected={4: "invalid_utf8", 5: "invalid_utf8", 7: "invalid_utf8"},
        raw={4: "latin-5,1,Books,Crème", 5: 'latin-6,1,"Bo\noks",Crème'},
    ),
    Case(
        "a_row_in_latin_1_with_old_macintosh_line_ends",
        "products/latin_1_cr.csv",
        f"{PRODUCTS}\rlatin-7,1,Books,Crème\rlatin-8,1,,\r,1,,\r".encode("latin-1"),
        stored={"latin-8": {}},
        rejected={2: "invalid_utf8", 4: "missing_product_id"},
        raw={2: "latin-7,1,Books,Crème"},
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
        order("good-twin", at="2025-04-02T10:00:00", amount="1e999"),
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
        "lines_that_end_with_a_return_too_many_count_as_two",
        "products/crcrlf.csv",
        text(PRODUCTS, product("crcrlf-1"), "crcrlf-2,1", end="\r\r\n"),
        stored=names(crcrlf_1="Tea"),
        rejected={5: "too_few_fields"},
        raw={5: "crcrlf-2,1"},
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
        text(PRODUCTS, product("cr-1"), product("cr-2"), ",1,,", end="\r"),
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
        "the_header_of_something_else",
        "orders/other_header.csv",
        text("sku,stock", "1,2"),
        "no_header",
    ),
    plain(
        "a_column_name_on_two_lines",
        "two_line_name.csv",
        [
            'product_id,"Note\n(internal)",department_id,department,product_name',
            "two-line,x,1,Books,Tea",
            ",x,1,Books,Tea",
        ],
        stored={"two-line": {"product_name": "Tea", "department": "Books"}},
        rejected={4: "missing_product_id"},
        ignored_columns=("note\n(internal)",),
    ),
    plain(
        "blank_lines_and_rows_of_commas_above_the_header",
        "above.csv",
        ["", ",,,", "  ", PRODUCTS, product("above"), ",1,,"],
        stored={"above": {}},
        rejected={6: "missing_product_id"},
    ),
    Case(
        "an_extra_column_whose_name_is_latin_1",
        "products/latin_name.csv",
        (PRODUCTS + ",größe").encode("latin-1")
        + b"\n"
        + text(product("latin-name") + ",2")
        + (PRODUCTS + ",Größe").encode("latin-1")
        + b"\n",
        stored={"latin-name": {}},
        rejected={3: "repeated_header"},
        ignored_columns=("gr\ufffd\ufffde",),
    ),
    plain(
        "one_field_more_than_names_and_always_empty",
        "one_more.csv",
        [PRODUCTS, product("one-more-1") + ",", "", product("one-more-2", '"a,b"') + ", ", ",1,,,"],
        stored=names(one_more_1="Tea", one_more_2="a,b"),
        rejected={5: "missing_product_id"},
    ),
    plain(
        "one_field_more_that_is_not_always_empty",
        "one_more_filled.csv",
        [PRODUCTS, product("more-filled-1") + ",", product("more-filled-2") + ",x"],
        rejected={2: "too_many_fields", 3: "too_many_fields"},
    ),
    plain(
        "one_field_more_in_some_rows_only",
        "one_more_some.csv",
        [PRODUCTS, product("more-some-1") + ",", product("more-some-2")],
        stored={"more-some-2": {}},
        rejected={2: "too_many_fields"},
    ),
    plain(
        "two_fields_more",
        "two_more.csv",
        [PRODUCTS, product("two-more") + ",,"],
        rejected={2: "too_many_fields"},
    ),
    plain(
        "one_field_more_that_is_filled_far_down",
        "one_more_far.csv",
        [
            PRODUCTS,
            product("one-far-1", "x" * 70_000) + ",",
            product("one-far-2") + ",told",
            product("one-far-3") + ",",
        ],
        rejected={line: "too_many_fields" for line in (2, 3, 4)},
    ),
    *[
        plain(
            f"columns_between_which_stands_{name}",
            f"{name}.csv",
            [
                PRODUCTS.replace(",", sign),
                product(f"{name}-1", "Tea, green").replace(",", sign, 3),
                f'"{name}-2"{sign}1{sign}"Books{sign} old"{sign}"a""b"',
                f"{name}-3{sign}1{sign}Books",
                f"{name}-4{sign}{sign}{sign}",
                f'{name}-5{sign}{sign}"Books"{sign}"Tea\nhot"',
                sign * 3,
            ],
            stored={
                f"{name}-1": {"product_name": "Tea, green"},
                f"{name}-2": {"department": f"Books{sign} old", "product_name": 'a"b'},
                f"{name}-4": {"department": None, "product_name": None},
                f"{name}-5": {
                    "department_id": None,
                    "department": "Books",
                    "product_name": "Tea\nhot",
                },
            },
            rejected={4: "too_few_fields"},
        )
        for name, sign in (("semicolon", ";"), ("tab", "\t"), ("bar", "|"))
    ],
    plain(
        "semicolons_in_a_file_of_commas",
        "semicolon_name.csv",
        [PRODUCTS + ",a;b;c;d;e;f", product("semicolon-name") + ",x;y"],
        stored={"semicolon-name": {}},
        ignored_columns=("a;b;c;d;e;f",),
    ),
    plain(
        "excel_s_own_first_line",
        "sep.csv",
        ["sep=;", PRODUCTS.replace(",", ";"), product("sep-1").replace(",", ";"), "sep=;"],
        stored={"sep-1": {}},
    ),
    Case(
        "excel_s_own_first_line_after_a_mark",
        "products/sep_bom.csv",
        BOM + text("SEP=,", PRODUCTS, product("sep-2"), "x", end="\r\n"),
        stored={"sep-2": {}},
        rejected={4: "too_few_fields"},
    ),
    Case(
        "decimal_commas_where_columns_stand_between_semicolons",
        "orders/decimal_commas.csv",
        text(
            ORDERS.replace(",", ";"),
            *[
                order(f"comma-{place}", amount="@").replace(",", ";").replace("@", amount)
                for place, amount in enumerate(
                    ["12,50", "-1,5", "12.50", '"7,25"', "1,234", "1,2345", "1.234,50", ",5", "12,"]
                )
            ],
        ),
        stored={
            "comma-0": {"total_amount": 12.5},
            "comma-1": {"total_amount": -1.5},
            "comma-2": {"total_amount": 12.5},
            "comma-3": {"total_amount": 7.25},
            "comma-6": {"total_amount": 1234.5},
            "comma-7": {"total_amount": 0.5},
        },
        rejected={
            6: "ambiguous_total_amount",
            7: "invalid_total_amount",
            10: "invalid_total_amount",
        },
    ),
    aside(
        "a_second_header_in_another_order",
        "products/mixed.csv",
        text(
            PRODUCTS,
            product("mixed-order"),
            "product_name,department,department_id,product_id",
            "Tea,Groceries,1,mixed-order-2",
        ),
        "mixed_headers",
    ),
    aside(
        "a_second_header_in_capitals_with_a_column_before_it",
        "orders/mixed_wide.csv",
        text(ORDERS, order("mixed-wide"), '"NOTE",' + ORDERS.upper(), "x," + order("mixed-wide-2")),
        "mixed_headers",
    ),
    aside(
        "columns_separated_by_something_else",
        "products/colons.csv",
        text(PRODUCTS.replace(",", ":"), product("colons").replace(",", ":")),
        "no_header",
    ),
    aside(
        "a_header_whose_last_quote_is_not_closed",
        "products/open_header.csv",
        b'"product_id";"department_id";"department";"product_name\r\r\n',
        "no_header",
    ),
    aside(
        "a_header_whose_quote_is_closed_by_a_row",
        "products/open_header_rows.csv",
        text(PRODUCTS.replace("product_name", '"product_name'), product("open-header")),
        "no_header",
    ),
    aside(
        "a_line_that_does_not_end",
        "orders/endless.csv",
        b"x" * 160_000,
        "no_header",
    ),
    aside(
        "a_quote_in_the_first_line_that_does_not_end",
        "orders/endless_quote.csv",
        b'"' + b"x" * 160_000,
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
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x10\x00\x00\x00\x10"
    b"\x08\x06\x00\x00\x00\x1f\xf3\xffaIDAT" + bytes(range(200, 256)) * 3
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
        "a_packed_file_with_zeros_behind_its_end",
        "products/padded.csv.gz",
        gzip.compress(text(PRODUCTS, product("padded"), ",1,,"), mtime=0) + b"\0" * 1000,
        stored={"padded": {}},
        rejected={3: "missing_product_id"},
    ),
    Case(
        "a_packed_file_with_a_byte_order_mark",
        "products/packed_bom.csv.gz",
        gzip.compress(BOM + text(PRODUCTS, product("packed-bom"), ",1,,", end="\r\n"), mtime=0),
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
    Case(
        "plain_text_that_claims_to_be_packed",
        "products/not_packed.csv.gz",
        text(PRODUCTS, product("not-packed")),
        stored=names(not_packed="Tea"),
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
    Case(
        "a_packed_file_without_its_ending",
        "products/no_ending.csv",
        gzip.compress(text(PRODUCTS, product("no-ending")), mtime=0),
        stored=names(no_ending="Tea"),
    ),
    aside(
        "a_workbook_that_was_only_renamed",
        "orders/workbook.csv",
        b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00[Content_Types].xml",
        "wrong_format",
    ),
    aside("commas_only", "orders/commas_only.csv", b",,,\n\x1a", "empty_file"),
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

# ---- what shops and their systems write
GERMAN = ORDERS.replace(",", ";")


def german(key: str, amount: str) -> str:
    return order(key, amount="@").replace(",", ";").replace("@", amount)


NOTHING = ("False", "[NULL]", "(null)", "<null>", "N/A", "NA", "undefined", "[object Object]")
NOTHING += ("#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!", "[NaN]", "{}")
SHOPS = [
    orders(
        "words_that_are_no_key",
        *[order(word) for word in NOTHING],
        order("falsework"),
        order("nail"),
        order("undefined-1"),
        stored={"falsework": {}, "nail": {}, "undefined-1": {}},
        rejected={line: "missing_order_id" for line in range(2, len(NOTHING) + 2)},
    ),
    orders(
        "words_for_nothing_in_typed_columns",
        order("typed-nothing", amount="FALSE", number="(null)"),
        stored={"typed-nothing": {"total_amount": None, "order_num": None}},
    ),
    items(
        "false_is_a_boolean",
        item("false-item", reordered="False"),
        stored={"false-item": {"reordered": False}},
    ),
    products(
        "false_is_free_text",
        product("free-text", "FALSE", department_id="FALSE"),
        stored={"free-text": {"product_name": "FALSE", "department_id": None}},
    ),
    orders(
        "keys_in_scientific_form",
        *map(order, ("1e+05", "3e3", "1.0023456E7", "60150001022e3", "1.50E2", "7E7", "8e-3")),
        order("2.02504e+11"),
        order("1e99"),
        stored={
            **{"100000": {}, "3000": {}, "10023456": {}, "60150001022000": {}, "150": {}},
            "7E7": {},
        },
        rejected={line: "invalid_order_id" for line in (8, 9, 10)},
    ),
    Case(
        "thousands_by_points",
        "orders/thousands.csv",
        text(
            GERMAN,
            *[
                german(f"points-{n}", amount)
                for n, amount in enumerate(["12,50", "1.234", "-3.000"])
            ],
            german("points-3", "1.234,50"),
            german("points-4", "110.7"),
        ),
        stored={
            "points-0": {"total_amount": 12.5},
            "points-3": {"total_amount": 1234.5},
            "points-4": {"total_amount": 110.7},
        },
        rejected={3: "ambiguous_total_amount", 4: "ambiguous_total_amount"},
    ),
    Case(
        "points_that_other_amounts_explain",
        "orders/decimal_points.csv",
        text(GERMAN, german("explained-0", "12.5"), german("explained-1", "1.234")),
        stored={"explained-0": {}, "explained-1": {"total_amount": 1.234}},
    ),
    refused(
        "digits_that_a_double_cannot_hold",
        "invalid_total_amount",
        order,
        "amount",
        ["12345678901234567", "9007199254740993", "1e-400", "0.1234567890123456789"],
    ),
    products(
        "invisible_signs_around_keys",
        *[
            product(f"{sign}unseen-{place}{sign}")
            for place, sign in enumerate("\u200e\u202a\u2066\u00ad\U000e0020")
        ],
        product("un\u00adseen"),
        product("seen", "so\u00adft"),
        stored={
            **{f"unseen-{place}": {} for place in range(5)},
            "seen": {"product_name": "so\u00adft"},
        },
        rejected={7: "control_character"},
    ),
    products(
        "lines_that_draw_a_table",
        "----------,-------------,----------,------------",
        "+----+----+----+----+",
        "|====|:---|---:|",
        product("drawn"),
        "-,--,=,:",
        "(1 rows affected)",
        stored={"drawn": {}},
        rejected={7: "too_few_fields"},
    ),
    products(
        "a_backslash_before_a_line_end",
        product("mysql-1", "green\\"),
        "tea",
        product("mysql-2", "C:\\"),
        product("mysql-3"),
        product("mysql-4", "end\\"),
        stored=names(mysql_2="C:\\", mysql_3="Tea", mysql_4="end\\"),
        rejected={2: "broken_line"},
        raw={2: "mysql-1,1,Groceries,green\\\ntea"},
    ),
    Case(
        "a_backslash_before_a_line_end_of_two_bytes",
        "products/two_byte_ends.csv",
        text(PRODUCTS, product("mysql-5", "D:\\"), product("mysql-6"), "few,1", end="\r\n"),
        stored=names(mysql_5="D:\\", mysql_6="Tea"),
        rejected={4: "too_few_fields"},
    ),
    products(
        "a_lone_carriage_return_in_a_value",
        product("return-1", "green\rtea"),
        product("return-2"),
        product("return-3") + "\r" + product("return-4"),
        stored=names(return_2="Tea", return_3="Tea", return_4="Tea"),
        rejected={2: "broken_line"},
        raw={2: "return-1,1,Groceries,green\rtea"},
    ),
    products(
        "a_lone_carriage_return_before_a_quote_that_is_never_closed",
        'return-5\r,"',
        product("return-6"),
        stored=names(return_6="Tea"),
        rejected={2: "too_few_fields", 3: "unclosed_quote"},
    ),
    products(
        "single_quotes_around_every_value",
        "'single-1','1','Food','Tea, green'",
        "'single-2','1','Food','O''Brien \"x\"'",
        stored=names(single_1="Tea, green", single_2='O\'Brien "x"'),
    ),
    products(
        "single_quotes_around_some_values",
        "'single-3',1,Food,'Tea'",
        stored=names(**{"'single_3'": "'Tea'"}),
    ),
    products(
        "a_line_break_behind_a_quoted_key",
        '"break-1\n",1,Food,Tea',
        stored=names(break_1="Tea"),
    ),
    plain(
        "a_line_break_in_the_first_column",
        "first_column.csv",
        ["product_name,department,department_id,product_id", '"Two\nlines",Dairy,4,first-1'],
        stored=names(first_1="Two\nlines"),
    ),
    orders(
        "a_day_after_the_delivery",
        order("future-1", at="2205-04-01T10:00:00"),
        order("future-2", at="2025-05-02T06:00:01"),
        order("future-3", at="2025-05-02T06:00:00"),
        stored={"future-3": {}},
        rejected={2: "future_order_timestamp", 3: "future_order_timestamp"},
    ),
    plain(
        "headers_in_other_spellings",
        "spellings.csv",
        ["Product ID,departmentId,DEPARTMENT,product-name ", product("spelled")],
        stored=names(spelled="Tea"),
    ),
    plain(
        "a_header_in_another_spelling_once_more",
        "spelled_again.csv",
        ["productId,departmentId,department,productName", product("once-more"), "ProductID,a,b,c"]
        + ["productid,departmentid,department,productname"],
        stored={"once-more": {}, "ProductID": {}},
        rejected={4: "repeated_header"},
    ),
    plain(
        "lines_above_the_header",
        "title.csv",
        ["# products of shop 1", "", "as of April", PRODUCTS, product("titled"), ",1,,"],
        stored=names(titled="Tea"),
        rejected={6: "missing_product_id"},
    ),
    plain(
        "a_line_of_commas_above_the_header_of_another_delimiter",
        "commas_above.csv",
        [",,,", PRODUCTS.replace(",", ";"), "commas-above;1;Food;Tea"],
        stored=names(commas_above="Tea"),
    ),
    plain(
        "a_nameless_first_column_between_tabs",
        "index.csv",
        ["\t" + PRODUCTS.replace(",", "\t"), "0\tindexed\t1\tFood\tTea"],
        stored=names(indexed="Tea"),
        ignored_columns=("",),
    ),
    plain(
        "excel_s_first_line_for_tabs",
        "sep_tab.csv",
        ["sep=\t", PRODUCTS.replace(",", "\t"), "sep-tab\t1\tFood\tTea"],
        stored=names(sep_tab="Tea"),
    ),
    products(
        "one_empty_field_more_and_a_blank_row",
        product("empty-more-1") + ",",
        product("empty-more-2") + ",",
        ",,,",
        stored=names(empty_more_1="Tea", empty_more_2="Tea"),
    ),
    Case(
        "a_record_in_two_encodings",
        "products/two_encodings.csv",
        f"{PRODUCTS}\ntwo-1,1,Getränke,".encode() + b'"a\nb\xff"\n' + product("two-2").encode(),
        stored=names(two_2="Tea"),
        rejected={2: "invalid_utf8"},
        raw={2: 'two-1,1,Getr\xc3\xa4nke,"a\nb\xff"'},
    ),
    Case(
        "a_path_in_another_spelling",
        "OrderItems_2025.csv",
        text(ITEMS, item("spelled-path")),
        stored={"spelled-path": {}},
    ),
    aside("a_zip_archive", "orders/zip.csv", b"PK\x03\x04" + b"\0" * 26 + b"a.csv", "wrong_format"),
    aside("a_pdf", "orders/pdf.csv", b"%PDF-1.7\n", "wrong_format"),
    aside(
        "an_error_of_s3",
        "orders/error.csv",
        b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
        "wrong_format",
    ),
    aside(
        "a_packed_file_within_another",
        "orders/twice.csv.gz",
        gzip.compress(gzip.compress(text(ORDERS, order("x"))), mtime=0),
        "wrong_format",
    ),
]

# ---- files that are bad as a whole
WHOLE = [
    orders(
        "half_of_twenty_rows_are_bad",
        *[order(f"half-{place}") for place in range(10)],
        *[order(f"half-bad-{place}", amount="x") for place in range(10)],
        stored={f"half-{place}": {} for place in range(10)},
        rejected={line: "invalid_total_amount" for line in range(12, 22)},
    ),
    aside(
        "more_than_half_of_twenty_rows_are_bad",
        "orders/mostly.csv",
        text(
            ORDERS,
            *[order(f"mostly-{place}") for place in range(9)],
            *[order(f"mostly-bad-{place}", amount="x") for place in range(11)],
        ),
        "mostly_rejected",
    ),
    aside(
        "an_export_of_another_format",
        "products/another_format.csv",
        text(PRODUCTS, *[f"{place}|1|Food|Tea" for place in range(40)]),
        "mostly_rejected",
    ),
    orders(
        "nineteen_bad_rows_are_too_few_to_tell",
        *[order(f"nineteen-{place}", amount="x") for place in range(19)],
        rejected={line: "invalid_total_amount" for line in range(2, 21)},
    ),
    items(
        "rows_that_wait_are_not_bad",
        *[item(f"waiting-{place}", order_id="never") for place in range(20)],
        parked={line: "orphan_order" for line in range(2, 22)},
    ),
    aside(
        "a_header_before_every_row",
        "products/header_each.csv",
        text(*[line for place in range(12) for line in (PRODUCTS, f",{place},,", "x")]),
        "mostly_rejected",
    ),
]

# ---- what is no delivery
UNFINISHED_PATHS = [
    "orders/x.csv.filepart",
    "orders/x.csv.part",
    "orders/x.csv.tmp",
    "orders/x.csv._COPYING_",
    "orders/x.CSV.PART",
    "orders/_temporary/0/part-0.csv",
]
NO_NEWS_PATHS = ["orders/_SUCCESS", "_SUCCESS", "orders_$folder$", "orders/.other.csv.crc"]
NO_NEWS_PATHS += [".DS_Store", "orders/._x.csv", "Thumbs.db", "desktop.ini", "~$x.csv"]
NO_NEWS_PATHS += ["orders/.~lock.x.csv#"]
NO_DELIVERIES = [
    aside(f"an_upload_not_finished_within_a_day {path}", path, text(ORDERS), "unfinished_upload")
    for path in UNFINISHED_PATHS
]
NO_DELIVERIES += [
    Case(f"what_a_tool_leaves_behind {path}", path, b"", "unmentioned") for path in NO_NEWS_PATHS
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

# ---- files of rejected rows that were fixed: two columns in front, apostrophes before values
IN_FRONT, QUOTE = "reasons,where,", "'"
FIXED = [
    Case(
        "rejected_rows_that_were_fixed_in_a_spreadsheet",
        "orders/rejects_fixed.csv",
        text(
            IN_FRONT + ORDERS,
            f"order_id is blank,orders/x.csv:3 (0a1b2c3d),{order('fixed-1', amount=QUOTE + '-5')}",
            f"'=1+1,,{order(QUOTE + '00081')}",
            f",,{order('fixed-2', at=QUOTE + '2025-04-01T11:27:00', day=QUOTE + '2025-04-01')}",
            f",,{order('fixed-3', amount=QUOTE + 'x')}",
            f",,{order('')}",
        ),
        stored={
            "fixed-1": {"total_amount": -5.0},
            "00081": {},
            "fixed-2": {
                "order_timestamp": datetime(2025, 4, 1, 11, 27),
                "date": date(2025, 4, 1),
            },
        },
        rejected={5: "invalid_total_amount", 6: "missing_order_id"},
    ),
    Case(
        "an_apostrophe_of_a_fixed_value_is_written_twice",
        "products/rejects_fixed.csv",
        text(IN_FRONT + PRODUCTS, ",,fixed-4,1,''s,'7up", ",,fixed-5,1,\"'a, b\",'=A1"),
        stored={
            "fixed-4": {"department": "'s", "product_name": "7up"},
            "fixed-5": {"department": "a, b", "product_name": "=A1"},
        },
    ),
    Case(
        "one_of_the_two_columns_alone_makes_no_file_of_fixed_rows",
        "products/where_alone.csv",
        text(f"where,{PRODUCTS}", f"shelf 1,{product('where-1', QUOTE + 's')}"),
        stored={"where-1": {"product_name": "'s"}},
        ignored_columns=("where",),
    ),
]

CASES: list[Case] = [
    *BASE,
    *VALUES,
    *ROWS,
    *QUOTES,
    *HEADERS,
    *FILES,
    *SHOPS,
    *WHOLE,
    *NO_DELIVERIES,
    *FILE_NAMES,
    *FIXED,
]

# ---- keys that only S3 can hold
FOLDED_PATHS = [
    "orders//dup.csv",
    "orders/./dup.csv",
    "orders/sub/../dup.csv",
    "/orders/dup.csv",
    "./orders/dup.csv",
    "orders/caf\udce9.csv",
]
S3_CASES: list[Case] = [
    *[
        aside(
            f"a_key_that_is_read_as_another {path!r}",
            path,
            text(ORDERS, order("x")),
            "unusable_path",
        )
        for path in FOLDED_PATHS
    ],
    Case(
        "the_key_that_the_others_are_read_as",
        "orders/dup.csv",
        text(ORDERS, order("dup")),
        stored={"dup": {}},
    ),
    Case("a_folder_made_in_the_console", "orders/", b"", "unmentioned"),
]
