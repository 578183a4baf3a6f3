"""Plain lines take a short way through one regular expression: it must give what the long way gives, and take what usual exports hold."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

import pytest

from tools.files import load_job

job_module = load_job()
USUAL = {
    "identifier": ["1", "007", "x-9", "A/B#1"],
    "STRING": ["", "Pen", "Red pen", "Füller 2", "日本"],
    "INT": ["3", "-3", "0", "", "007"],
    "DOUBLE": ["5", "-5.25", "", "-0", "-0.0", ".5", "1.", "260.0"],
    "BOOLEAN": ["0", "1", "true", "FALSE", "Yes", "n", "", "T"],
    "TIMESTAMP": ["2025-04-01T11:27:00", "2025-04-01 23:59:59", "2024-02-29T00:00:00"],
    "DATE": ["2025-04-01", "", "2024-02-29"],
}
ODD = {
    "identifier": ["", " 12 ", "12.0", "a b", "ü", "1.5", "\u00a05", "\ufffd", '"7"', "a\tb"],
    "STRING": [
        " Pen",
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
    "DOUBLE": ["1e3", "NaN", "Infinity", "9" * 45, "1-5", "-", ".", "1.2.3", "5 ", "+5"],
    "BOOLEAN": ["1.0", "2", "tr", " 1", "01", "nein"],
    "TIMESTAMP": [
        "",
        "2025-04-31T00:00:00",
        "2025-04-01T24:00:00",
        "2025-04-01T11:60:00",
        "2025-04-01T11:27",
        "0999-01-01T00:00:00",
        "9999-12-31T23:59:59",
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
    """The usual row with each value of each column once, rows at random, and lines with too few and too many fields."""
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


@pytest.mark.parametrize("table", job_module.TABLES, ids=lambda table: table.dataset)
def test_what_the_short_way_reads_the_long_way_reads_alike(
    job: Any, spark: Any, table: Any
) -> None:
    texts = lines_of(table)
    lines = job.local_frame(
        spark,
        [
            {"_text": text, "_file": 1, "_block": 0, "_mid": number, "_line": None, "_layout": 0}
            for number, text in enumerate(texts)
        ],
        "_text STRING, _file BIGINT, _block BIGINT, _mid BIGINT, _line BIGINT, _layout INT",
    ).localCheckpoint()
    layouts = [job.Layout(",".join(table.column_names), tuple(table.column_names))]
    days = [f"cast(`{column.name}` AS string) AS `{column.name}`" for column in table.columns]
    short = {
        row["_mid"]: row
        for row in job.stage_plain(lines, table, layouts)
        .selectExpr("_mid", "_kind", "_raw", *days)
        .collect()
    }
    long = {
        row["_mid"]: row
        for row in job.stage(lines, table, layouts)
        .selectExpr("_mid", "_kind", "_reasons", *days)
        .collect()
    }
    assert len(short) == len(long) == len(texts)
    taken = {number for number, row in short.items() if row["_kind"] is not None}
    for number in taken:
        assert (
            short[number]["_kind"] == long[number]["_kind"] and long[number]["_reasons"] is None
        ), texts[number]
        if short[number]["_kind"] == job.RECORD:
            assert [short[number][name] for name in table.column_names] == [
                long[number][name] for name in table.column_names
            ], texts[number]
    assert {number: row["_raw"] for number, row in short.items()} == dict(enumerate(texts))
    usual = {
        line_of({**usual_row(table), column.name: value})
        for column in table.columns
        for value in USUAL[kind_of(column)]
        if not (column.required and value == "")
        and not (kind_of(column) in ("TIMESTAMP", "DATE") and value.startswith("2024"))
    }
    assert usual <= {texts[number] for number in taken}, usual - {texts[number] for number in taken}


def test_a_file_with_columns_in_another_order_and_more_of_them_takes_the_short_way_too(
    job: Any, spark: Any
) -> None:
    names = ("extra", *reversed(job.PRODUCTS.column_names))
    layouts = [
        job.Layout(",".join(job.PRODUCTS.column_names), tuple(job.PRODUCTS.column_names)),
        job.Layout(",".join(names), names),
    ]
    lines = job.local_frame(
        spark,
        [
            {"_text": "7,1,Books,Pen", "_layout": 0},
            {"_text": "what ever,Pen,Books,1,7", "_layout": 1},
        ],
        "_text STRING, _layout INT",
    ).selectExpr("_text", "1L AS _file", "0L AS _block", "1L AS _mid", "_layout")
    rows = job.stage_plain(lines, job.PRODUCTS, layouts).collect()
    assert [[row[name] for name in job.PRODUCTS.column_names] for row in rows] == [
        ["7", "1", "Books", "Pen"]
    ] * 2
    assert [row["_kind"] for row in rows] == [job.RECORD] * 2


def test_two_keys_never_share_a_number_unless_their_hashes_do(job: Any, spark: Any) -> None:
    keys = [
        "0",
        "5",
        "05",
        "+5",
        "-5",
        "5.0",
        "5.",
        " 5",
        "10",
        "010",
        "999999999999999999",
        "1234567890123456789",
        "x",
        "5x",
        "00",
    ]
    frame = job.local_frame(spark, [{"key": key} for key in keys], "key STRING")
    numbers = {
        row["key"]: row["number"]
        for row in frame.select("key", job.key_number(job.F.col("key")).alias("number")).collect()
    }
    assert {key: number for key, number in numbers.items() if number >= 0} == {
        "0": 0,
        "5": 5,
        "10": 10,
        "999999999999999999": 999999999999999999,
    }
    assert len(set(numbers.values())) == len(keys)


@pytest.mark.parametrize(
    "spans, certain",
    [
        ([], True),
        ([[(0, 63, True)], [(64, 64, True)]], True),
        ([[(64, 70, True)], [(0, 63, True)]], True),
        ([[(0, 63, True)], [(63, 70, True)]], False),  # they touch
        ([[(0, 9, True), (5, 5, True)]], False),  # two ways of reading in one block of a file
        ([[(0, 9, True)], [(10, 19, False)]], False),  # a key twice within a span
        ([[(-(2**63), -(2**63), True)], [(10, 19, True)]], False),
    ],
)  # a hash, which two keys may share
def test_keys_are_certainly_different_only_in_spans_that_do_not_overlap(
    job: Any, spans: list[Any], certain: bool
) -> None:
    assert (
        job.all_different(
            [job.Block(file, 0, spans=of_block) for file, of_block in enumerate(spans)]
        )
        is certain
    )


def test_the_span_of_a_large_batch_s_keys_is_exact(job: Any, spark: Any) -> None:
    keys = {1: [0], 2: [63, 62], 3: [5, 64, 127, 5], 4: [10**18 - 1, 7], 5: list(range(128, 192))}
    rows = [{"_file": file, "key": str(key)} for file, of_file in keys.items() for key in of_file]
    frame = job.local_frame(spark, rows, "_file BIGINT, key STRING").select(
        "_file", job.key_number(job.F.col("key")).alias("_n")
    )
    tallied = frame.selectExpr(
        "_file",
        "0L AS _block",
        "1L AS _mid",
        "false AS _odd",
        "0 AS _column",
        "0 AS _class",
        "CAST(NULL AS DATE) AS _day",
        "0L AS _hash",
        "_n",
    )
    tallied = tallied.select("*", *job.key_place(job.F.col("_n")))
    found = {
        row["_file"]: (row["_low"], row["_high"], row["_keys"], row["_n"])
        for row in job.profile_of_blocks(job.key_blocks(tallied)).collect()
    }
    assert found == {
        file: (min(of_file), max(of_file), len(set(of_file)), len(of_file))
        for file, of_file in keys.items()
    }


def block(first: int, last: int) -> Any:
    start = date(2025, 4, 1)
    return job_module.Block(
        1, first, days=(start + timedelta(days=first), start + timedelta(days=last))
    )


@pytest.mark.parametrize(
    "blocks, by_day",
    [
        ([block(day, day) for day in range(15)], True),
        ([block(day, day + 1) for day in range(15)], True),
        ([block(0, 0)] * 1000, False),
        ([block(0, 14)] * 15, False),
        ([job_module.Block(1, 0), block(0, 0)], True),
    ],
)
def test_a_large_batch_is_shuffled_by_day_only_where_it_does_not_come_by_day(
    job: Any, blocks: list[Any], by_day: bool
) -> None:
    load = job.Load(None, job.ORDERS, [], bulk=object(), blocks=blocks)
    assert load._comes_by_partition() is by_day
