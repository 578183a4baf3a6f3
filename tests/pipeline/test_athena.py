"""The local Athena answers analysts' queries rightly, and refuses what Athena refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import boto3
import pytest

from local.athena import Athena, AthenaError, as_text
from local.aws import readers
from local.aws.crawler import crawl_tables
from local.aws.moto_server import MotoServer
from local.commands.sql import main
from local.runtime import SetupError
from tests.pipeline import lake

QUERIES = Path(__file__).with_name("queries.sql")


def read_queries() -> list[tuple[str, str, list[list[str | None]]]]:
    """(question, query, rows) of queries.sql."""
    queries = []
    for block in QUERIES.read_text("utf-8").split("\n\n")[1:]:
        lines = block.strip().splitlines()
        rows = [json.loads(line[3:]) for line in lines if line.startswith("--=")]
        queries.append(
            (lines[0][3:], "\n".join(line for line in lines if not line.startswith("--")), rows)
        )
    return queries


@pytest.fixture(scope="module")
def athena(tmp_path_factory: pytest.TempPathFactory) -> Athena:
    """The console on the small lake, with a history."""
    folder = tmp_path_factory.mktemp("lake")
    return Athena(lake.build(folder), history=folder / "history")


def refusal(athena: Athena, sql: str) -> str:
    """The text of the error that the query ends with."""
    with pytest.raises(AthenaError) as caught:
        athena.query(sql)
    return str(caught.value)


def test_there_are_twenty_queries() -> None:
    assert len(read_queries()) == 20


@pytest.mark.parametrize(
    "question, sql, rows",
    read_queries(),
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_an_analysts_query_gives_the_figures_worked_out_by_hand(
    athena: Athena, question: str, sql: str, rows: list[list[str]]
) -> None:
    assert athena.query(sql).text_rows() == rows


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO clean_orders VALUES ('1')",
        "update clean_orders set user_id = 'x'",
        "DELETE FROM clean_orders",
        "MERGE INTO clean_orders o USING clean_products p ON true WHEN MATCHED THEN DELETE",
        "vacuum clean_orders",
    ],
)
def test_a_change_is_refused_and_the_message_tells_the_way(athena: Athena, sql: str) -> None:
    text = refusal(athena, sql)
    assert (
        text.startswith("NOT_SUPPORTED")
        and "only reads Delta tables" in text
        and "operation `sql`" in text
    )


@pytest.mark.parametrize(
    "clause", ["FOR VERSION AS OF 1", "FOR TIMESTAMP AS OF TIMESTAMP '2025-04-01 00:00:00 UTC'"]
)
def test_time_travel_is_refused_and_the_message_tells_the_way(athena: Athena, clause: str) -> None:
    assert "no time travel on Delta Lake" in refusal(athena, f"SELECT * FROM clean_orders {clause}")


@pytest.mark.parametrize(
    "sql, message",
    [
        (
            "SELECT nope\nFROM clean_orders",
            "COLUMN_NOT_FOUND: line 1:8: Column 'nope' cannot be resolved",
        ),
        (
            "SELECT order_id\nFROM clean_orders\nWHERE amount > 1",
            "COLUMN_NOT_FOUND: line 3:7: Column 'amount' cannot be resolved",
        ),
        (
            "SELECT o.nope FROM clean_orders o",
            "COLUMN_NOT_FOUND: line 1:8: Column 'o.nope' cannot be resolved",
        ),
        (
            "SELECT substr(order_id, 1, 1) AS x, count(*) FROM clean_orders GROUP BY x",
            "COLUMN_NOT_FOUND: line 1:73: Column 'x'",
        ),
        (
            "SELECT *\nFROM nowhere",
            "TABLE_NOT_FOUND: line 2:6: Table 'awsdatacatalog.delta-lakehouse.nowhere' does not "
            "exist",
        ),
        (
            "SELECT * FROM other.clean_orders",
            "SCHEMA_NOT_FOUND: line 1:15: Schema 'other' does not exist",
        ),
        (
            "SELECT * FROM clean_orders WHERE date = '2025-04-01'",
            "TYPE_MISMATCH: line 1:34: Cannot apply operator: date = varchar",
        ),
        (
            "SELECT * FROM clean_orders WHERE order_id = 5",
            "TYPE_MISMATCH: line 1:34: Cannot apply operator: varchar = integer",
        ),
        (
            "SELECT user_id, count(*) FROM clean_orders",
            "EXPRESSION_NOT_AGGREGATE: line 1:8: 'user_id' must be an aggregate",
        ),
        (
            "SELECT strftime(date, '%Y') FROM clean_orders",
            "NOT_SUPPORTED: strftime(date, varchar) is not part of this local console",
        ),
        ("SELECT 1 / 0", "DIVISION_BY_ZERO"),
        (
            "SELECT cast(user_id AS bigint) FROM clean_orders",
            "INVALID_CAST_ARGUMENT: Cannot cast this varchar to bigint",
        ),
        ("SELECT order_id,\n  FROM WHERE", "SYNTAX_ERROR: line 2:"),
        ("selec 1", "SYNTAX_ERROR: line 1:"),
        ("SELECT 'abc", "SYNTAX_ERROR: "),
        ("SELECT 1; SELECT 2", "SYNTAX_ERROR: Expected one statement"),
        ("", "SYNTAX_ERROR"),
    ],
)
def test_a_mistake_gets_athenas_error_and_its_place(athena: Athena, sql: str, message: str) -> None:
    assert refusal(athena, sql).startswith(message)


def test_a_table_that_no_run_has_written_is_said_so(tmp_path: Path) -> None:
    assert "no run has written it" in refusal(
        Athena({"clean_orders": str(tmp_path / "none")}), "SELECT 1 FROM clean_orders"
    )


def test_a_database_and_catalog_may_stand_before_the_table(athena: Athena) -> None:
    sql = 'SELECT count(*) FROM "AwsDataCatalog"."delta-lakehouse"."clean_orders"'
    result = athena.query(sql)
    assert (result.names, result.types, result.rows) == (["_col0"], ["bigint"], [(5,)])


def test_timestamps_are_utc_with_time_zone(athena: Athena) -> None:
    result = athena.query("SELECT order_timestamp FROM clean_orders WHERE order_id = 'o5'")
    assert result.types == ["timestamp(3) with time zone"] and result.text_rows() == [
        ["2025-05-01 12:00:00.123 UTC"]
    ]


def test_show_and_describe(athena: Athena) -> None:
    assert ("clean_orders",) in athena.query('SHOW TABLES IN "delta-lakehouse"').rows
    assert athena.query("show tables 'clean*'").rows == [
        ("clean_orders",),
        ("clean_orders_items",),
        ("clean_products",),
    ]
    rows = athena.query("DESCRIBE clean_orders").rows
    assert ("order_timestamp", "timestamp", "") in rows and rows[-2:] == [
        ("# Partition Information", "", ""),
        ("date", "date", ""),
    ]
    assert ("fields", "map<string,string>", "") in athena.query(
        'DESCRIBE "delta-lakehouse".rejected_records'
    ).rows
    assert athena.query("SHOW COLUMNS IN clean_products").rows[0] == ("product_id",)
    assert "table_type'='DELTA'" in str(athena.query("SHOW CREATE TABLE clean_orders").rows)
    assert athena.query("SHOW DATABASES").rows == [("delta-lakehouse",)]
    assert refusal(athena, "SHOW PARTITIONS clean_orders").startswith("NOT_SUPPORTED")
    assert refusal(athena, "DESCRIBE nope").startswith("TABLE_NOT_FOUND")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT '1'::integer",
        "SELECT 'a' ILIKE 'A'",
        "SELECT 1 == 1",
        "SELECT 1 LIMIT 1 OFFSET 1",
        "SELECT true = 1",
        "SELECT DATE '2025-04-01' - 7",
        "SELECT 'a' || 1",
        "SELECT * EXCLUDE (order_id) FROM clean_orders",
        "SELECT strftime(DATE '2025-04-01', '%Y')",
    ],
)
def test_what_aws_refuses_is_refused_here(athena: Athena, sql: str) -> None:
    assert re.search("SYNTAX_ERROR|TYPE_MISMATCH|not part of this local", refusal(athena, sql))


def test_the_schema_can_be_asked(athena: Athena) -> None:
    tables = "SELECT table_name FROM information_schema.tables WHERE table_name LIKE 'clean%'"
    assert len(athena.query(tables).rows) == 3
    path = athena.query(
        "SELECT DISTINCT \"$path\" FROM clean_orders WHERE date = DATE '2025-05-01'"
    )
    assert "/clean_orders/date=2025-05-01/" in path.rows[0][0]
    assert "not part of this local console" in refusal(athena, "EXPLAIN SELECT 1")


def test_the_result_file_quotes_every_value_and_leaves_null_empty(athena: Athena) -> None:
    text = athena.query(
        "SELECT product_id, product_name, 1.5 AS n FROM clean_products ORDER BY 1"
    ).csv()
    assert (
        text == '"product_id","product_name","n"\n"p1","Milk","1.5"\n"p2","Bread, '
        '""white""","1.5"\n"p3",,"1.5"\n'
    )


def test_the_history_keeps_every_query_and_its_result(athena: Athena) -> None:
    done = athena.query("SELECT 1 AS one")
    refusal(athena, "SELECT nope FROM clean_orders")
    good, bad = athena.queries()[-2:]
    assert (good["query_id"], good["state"], good["rows"]) == (done.query_id, "SUCCEEDED", 1)
    assert bad["state"] == "FAILED" and "COLUMN_NOT_FOUND" in bad["error"]
    assert (
        athena.history
        and (athena.history / f"{done.query_id}.csv").read_text("utf-8") == '"one"\n"1"\n'
    )


def test_a_query_sees_the_newest_version(tmp_path: Path) -> None:
    console = Athena(lake.build(tmp_path))
    lake.write_deltalake(
        tmp_path / "clean_products",
        lake.pa.table(
            {c: ["new"] for c in ("product_id", "department_id", "department", "product_name")}
        ),
        mode="append",
    )
    assert console.query("SELECT count(*) FROM clean_products").rows == [(4,)]


@pytest.mark.parametrize(
    "sql, value",
    [
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("try(1 / 0)", None),
        ("every(true)", True),
        ("to_iso8601(DATE '2025-02-03')", "2025-02-03"),
        ("array_max(ARRAY[1, 3])", 3),
        ("cardinality(map(ARRAY['a'], ARRAY[1]))", 1),
        ("last_day_of_month(DATE '2025-02-03')", "2025-02-28"),
        ("filter(ARRAY[1, 2, 3], x -> x > 1)", [2, 3]),
        ("DATE '2025-04-01' + INTERVAL '1' DAY", "2025-04-02"),
        ("regexp_like('abc', 'b')", True),
        ("try_cast('x' AS bigint)", None),
        ("split_part('a,b', ',', 2)", "b"),
        ("json_array_length('[1, 2]')", 2),
    ],
)
def test_a_function_of_trino_means_what_it_means_there(
    athena: Athena, sql: str, value: object
) -> None:
    assert athena.query(f"SELECT {sql}").text_rows() == [[as_text(value)]]


@pytest.mark.parametrize(
    "value, text",
    [
        (None, None),
        (True, "true"),
        (260.0, "260.0"),
        (0.1, "0.1"),
        (1e7, "1.0E7"),
        (-1.25e-5, "-1.25E-5"),
        (float("nan"), "NaN"),
        (["a", None], "[a, null]"),
        ({"k": 1.0}, "{k=1.0}"),
        (12345678.9, "1.23456789E7"),
    ],
)
def test_values_are_written_as_athena_writes_them(value: object, text: str | None) -> None:
    assert as_text(value) == text


def test_every_query_of_the_file_ends_with_its_rows() -> None:
    assert all(rows and re.match(r"(?s)(SELECT|WITH).*;$", sql) for _, sql, rows in read_queries())


def test_the_command_prints_a_table_a_result_file_an_error_and_the_past(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.build(tmp_path)
    place = ["--lake", str(tmp_path), "--history", str(tmp_path / "history")]
    assert main(["SELECT order_id, total_amount FROM clean_orders ORDER BY 1 LIMIT 2", *place]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "order_id  total_amount",
        "--------  ------------",
        "o1               260.0",
        "o2                40.0",
    ]
    assert (
        main(["SELECT 1 AS one", "--csv", *place]) == 0
        and capsys.readouterr().out == '"one"\n"1"\n'
    )
    assert (
        main(["ALTER TABLE clean_orders DROP COLUMN date", *place]) == 1
        and "only reads Delta tables" in capsys.readouterr().err
    )
    assert main(["--past", *place]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
        "SUCCEEDED",
        "SUCCEEDED",
        "FAILED",
    ]


def test_tables_in_s3_are_known_once_they_are_crawled() -> None:
    with MotoServer() as server:
        endpoint = server.endpoint
        clients = {name: boto3.client(name, endpoint_url=endpoint) for name in ("s3", "glue")}
        clients["s3"].create_bucket(Bucket="lake")
        clients["glue"].create_database(DatabaseInput={"Name": "delta-lakehouse"})
        locations = lake.build("s3://lake/lakehouse-dwh", readers.s3_options(endpoint))
        assert refusal(readers.console(endpoint), "SELECT 1 FROM clean_orders").startswith(
            "TABLE_NOT_FOUND"
        )
        assert (
            crawl_tables(
                clients["glue"], "delta-lakehouse", locations.values(), readers.s3_options(endpoint)
            )
            == []
        )
        console = readers.console(endpoint)
        for _, sql, rows in read_queries():
            assert console.query(sql).text_rows() == rows
        assert len(console.query("DESCRIBE clean_orders").rows) == 8


def test_without_an_aws_on_this_machine_the_console_says_how_to_start_one() -> None:
    with pytest.raises(SetupError, match="make up"):
        main(["SELECT 1", "--endpoint", "http://localhost:9"])
