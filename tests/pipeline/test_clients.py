"""A real client of Athena understands the answers: PyAthena, and SQLAlchemy through it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyathena import connect
from pyathena.error import OperationalError
from sqlalchemy import create_engine, text

from local.athena import Athena, AthenaError
from local.aws.server import LocalAws, QueryFailed, Runners
from tests.pipeline import lake


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Athena:
    return Athena(lake.build(tmp_path_factory.mktemp("lake")))


@pytest.fixture(scope="module")
def endpoint(console: Athena) -> Iterator[str]:
    """The local AWS, with the console behind its Athena."""

    def query(sql: str, database: str) -> tuple[Any, ...]:
        try:
            result = console.query(sql)
        except AthenaError as error:
            raise QueryFailed(str(error)) from None
        return result.names, result.text_rows(), result.types

    aws = LocalAws(Runners(query=query), batching_window=10_000).start()
    yield aws.endpoint
    aws.stop()


@pytest.fixture
def cursor(endpoint: str) -> Any:
    return connect(
        s3_staging_dir="s3://results/",
        region_name="us-east-1",
        schema_name="delta-lakehouse",
        endpoint_url=endpoint,
        poll_interval=0.01,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    ).cursor()


def test_values_come_in_their_types(cursor: Any) -> None:
    cursor.execute(
        "SELECT order_id, total_amount, date, count(*) OVER (), 1.50 AS n, true, NULL, ARRAY[1, 2] "
        "FROM clean_orders WHERE order_id = 'o1'"
    )
    assert [column[:2] for column in cursor.description][:5] == [
        ("order_id", "varchar"),
        ("total_amount", "double"),
        ("date", "date"),
        ("_col3", "bigint"),
        ("n", "decimal"),
    ]
    row = cursor.fetchone()
    assert row[:7] == ("o1", 260.0, dt.date(2025, 4, 1), 1, Decimal("1.50"), True, None)
    assert list(row[7]) == [1, 2]


def test_parameters_are_put_in_by_the_client(cursor: Any) -> None:
    cursor.execute(
        "SELECT order_id FROM clean_orders WHERE user_id = %(user)s AND date = %(day)s",
        {"user": "u1", "day": dt.date(2025, 4, 2)},
    )
    assert cursor.fetchall() == [("o3",)]


def test_a_refusal_reaches_the_client_with_its_place(cursor: Any) -> None:
    with pytest.raises(OperationalError, match="COLUMN_NOT_FOUND: line 1:8: Column 'nope'"):
        cursor.execute("SELECT nope FROM clean_orders")


def test_sqlalchemy_counts(endpoint: str, tmp_path: Path) -> None:
    engine = create_engine(
        "awsathena+rest://testing:testing@athena.us-east-1.amazonaws.com:443/delta-lakehouse"
        f"?s3_staging_dir=s3://results/&endpoint_url={endpoint}&poll_interval=0.01"
    )
    with engine.connect() as connection:
        result = connection.execute(
            text(
                "SELECT user_id, sum(total_amount) AS spent FROM clean_orders GROUP BY 1 ORDER BY 1"
            )
        )
        assert [tuple(row) for row in result] == [("u1", 360.0), ("u2", 50.5), ("u3", None)]
