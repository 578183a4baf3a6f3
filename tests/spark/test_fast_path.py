"""The fast path must read what it takes as the parser does, and take what usual exports hold."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest

import glue_etl as etl

USUAL = {
    "identifier": ["1", "007", "x-9", "A/B#1", "u1", "nano", "falsework", "3e-x", "1e2x", "n/a1"],
    "STRING": ["", "Pen", "Red pen", "Füller 2", "日本"],
    "INT": ["3", "-3", "0", "", "007"],
    "DOUBLE": ["5", "-5.25", "", "-0", "-0.0", ".5", "1.", "260.0"],
    "BOOLEAN": ["0", "1", "true", "FALSE", "Yes", "n", "", "T"],
    "TIMESTAMP": ["2025-04-01T11:27:00", "2025-04-01 23:59:59", "2024-02-29T00:00:00"],
    "DATE": ["2025-04-01", "", "2024-02-29"],
}
ODD = {
    "identifier": [
        *[
            "null",
            "NaN",
            "na",
            "N/A",
            "False",
            "undefined",
            "[x]",
            "#REF!",
            "-",
            "--",
            "3e3",
            "3E3",
        ],
        *["1e+05", "1e-2", "5e", "e5", "un\u00addone"],
        *["", " 12 ", "12.0", "a b", "ü", "1.5", "\u00a05", "\ufffd", '"7"', "a\tb"],
    ],
    "STRING": [
        " Pen",
        "\u200ePen",
        "P\u00aden",
        "Pen\U000e0020",
        "Pen\\\\",
        "Pen ",
        "Pen  and ink",
        "\u00a0Pen",
        "\ufffd",
        '"Pen, red"',
        'a"b',
        "a\tb",
        "Pen,red",
    ],
    "INT": ["3.0", "3.5", "99999999999", "-", "--1", "1-2", "+5", " 5", "abc"],
    "DOUBLE": [
        "1e3",
        "12345678901234567",
        "0.1000000000000000",
        "NaN",
        "Infinity",
        "9" * 45,
        "1-5",
        "-",
        ".",
        "1.2.3",
        "5 ",
        "+5",
    ],
    "BOOLEAN": ["1.0", "2", "tr", " 1", "01", "nein"],
    "TIMESTAMP": [
        "",
        "2025-04-31T00:00:00",
        "2025-04-01T24:00:00",
        "2025-04-01T11:60:00",
        "2025-04-01T11:27",
        "0999-01-01T00:00:00",
        "9999-12-31T23:59:59",
        "2030-01-02T00:00:00",
        "2030-01-02T00:00:01",
        "2025-04-01T11:27:00Z",
        "2025-04-01T23:27:00-05:00",
        "2025-04-01T11:27:00.123",
        "01/04/2025 11:27",
        "2025-4-1T1:2:3",
        "2025-04-01",
    ],
    "DATE": [
        "2025-02-30",
        "2025-04-02",
        "2025-04-01 00:00:00",
        "01/04/2025",
        "0000-01-01",
        "9999-01-01",
        "2025-4-1",
        "2025-04-01x",
    ],
}


def kind_of(column: Any) -> str:
    return "identifier" if column.identifier else column.type


def line_of(values: dict[str, str]) -> str:
    return ",".join(values.values())


def usual_row(table: Any) -> dict[str, str]:
    return {column.name: USUAL[kind_of(column)][0] for column in table.columns}


def lines_of(table: Any) -> list[str]:
    """The usual row with each value of each column once, rows at random, and lines with too few and
    too many fields."""
    rows = [
        {**usual_row(table), column.name: value}
        for column in table.columns
        for value in USUAL[kind_of(column)] + ODD[kind_of(column)]
    ]
    chance = random.Random(4)
    for _ in range(300):
        rows.append(
            {
                column.name: chance.choice(USUAL[kind_of(column)] * 4 + ODD[kind_of(column)])
                for column in table.columns
            }
        )
    usual = line_of(usual_row(table))
    return [line_of(row) for row in rows] + [
        "",
        "  ",
        usual + ",",
        usual + ",x",
        usual.rsplit(",", 1)[0],
        ",".join(table.column_names),
    ]


def lines_frame(spark: Any, texts: list[str]) -> Any:
    """Lines as the raw text gives them."""
    rows = [
        {"_file": 0, "_split": 0, "_mid": number, "_raw": text} for number, text in enumerate(texts)
    ]
    ddl = "_file INT, _split BIGINT, _mid BIGINT, _raw STRING"
    return etl.local_frame(spark, rows, ddl).localCheckpoint()


def layout_of(table: Any) -> Any:
    return etl.read_header(",".join(table.column_names), ",", table)


def latest() -> Any:
    """The latest time of a file that was delivered on 1 January 2030."""
    stored = etl.StoredObject("x.csv", "", 1, datetime(2030, 1, 1, tzinfo=UTC))
    return etl.latest_times({0: etl.RawFile(stored)})


@pytest.mark.parametrize("table", etl.TABLES, ids=lambda table: table.dataset)
def test_what_the_fast_path_takes_the_parser_reads_alike(spark: Any, table: Any) -> None:
    texts = lines_of(table)
    lines = lines_frame(spark, texts)
    layout = layout_of(table)
    shown = ["_mid", "_kind", "_raw", "_reasons"]
    shown += [f"cast(`{column.name}` AS string) AS `{column.name}`" for column in table.columns]
    fast_rows = (
        etl.fast_path(lines, table, layout, {layout.line}, latest()).selectExpr(*shown).collect()
    )
    parsed_rows = etl.parse_lines(lines, table, layout, latest()).selectExpr(*shown).collect()
    fast = {row["_mid"]: row for row in fast_rows}
    parsed = {row["_mid"]: row for row in parsed_rows}
    assert len(fast) == len(parsed) == len(texts)
    taken = {number for number, row in fast.items() if row["_kind"] < etl.UNPARSED}
    for number in taken:
        if fast[number]["_kind"] == etl.RECORD:
            assert fast[number] == parsed[number], texts[number]
        assert fast[number]["_kind"] == parsed[number]["_kind"], texts[number]
    assert {number: row["_raw"] for number, row in fast.items()} == dict(enumerate(texts))
    usual = {
        line_of({**usual_row(table), column.name: value})
        for column in table.columns
        for value in USUAL[kind_of(column)]
        if not (column.required and value == "")
        and not (kind_of(column) in ("TIMESTAMP", "DATE") and value.startswith("2024"))
    }
    missed = usual - {texts[number] for number in taken}
    assert not missed


def test_a_file_with_columns_in_another_order_and_more_of_them_takes_the_fast_path_too(
    spark: Any,
) -> None:
    names = ("extra", *reversed(etl.PRODUCTS.column_names))
    for layout, line in (
        (layout_of(etl.PRODUCTS), "7,1,Books,Pen"),
        (etl.read_header(",".join(names), ",", etl.PRODUCTS), "what ever,Pen,Books,1,7"),
    ):
        lines = lines_frame(spark, [layout.line, line])
        headers = {"x", layout.line}
        header, row = etl.fast_path(lines, etl.PRODUCTS, layout, headers, latest()).collect()
        assert (header["_kind"], row["_kind"]) == (etl.HEADER, etl.RECORD)
        assert [row[name] for name in etl.PRODUCTS.column_names] == ["7", "1", "Books", "Pen"]


def test_headers_that_differ_in_their_text_alone_are_read_together() -> None:
    table = etl.PRODUCTS
    names = [name.upper() for name in table.column_names]
    assert layout_of(table) == etl.read_header(" , ".join(names), ",", table)
    assert layout_of(table) != etl.read_header(";".join(names), ";", table)


def test_only_a_plain_integer_is_a_number_among_keys(spark: Any) -> None:
    keys = "0 5 05 +5 -5 5.0 5. 10 010 999999999999999999 1234567890123456789 x 5x 00 5e3".split()
    frame = etl.local_frame(spark, [{"key": key} for key in [*keys, " 5"]], "key STRING")
    rows = frame.select("key", etl.integer_key(etl.F.col("key")).alias("number")).collect()
    numbers = {row["key"]: row["number"] for row in rows if row["number"] is not None}
    assert numbers == {"0": 0, "5": 5, "10": 10, "999999999999999999": 999999999999999999}


def test_a_span_of_keys_prunes_by_text_and_never_loses_one(spark: Any, tmp_path: Any) -> None:
    table = etl.LakeTable(
        spark, "", etl.DeltaLog(str(tmp_path)), 0, keys_frame(spark, "A-17 A-2 9 10 a")
    )
    spans = etl.key_spans(keys_frame(spark, "A-2 A-17 10"), ["key"])
    assert spans == {"key": ("10", "A-2")}
    pruned = [row["key"] for row in table.rows_between("key", *spans["key"]).collect()]
    assert pruned == ["A-17", "A-2", "9", "10"]
    assert etl.key_spans(keys_frame(spark, ""), ["key"]) == {"key": ("", "")}
    assert table.rows_between("key", "", "").count() == 0


def keys_frame(spark: Any, keys: str) -> Any:
    return etl.local_frame(spark, [{"key": key} for key in keys.split()], "key STRING")
