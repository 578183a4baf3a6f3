"""A real Trino on the local AWS answers what DuckDB's part of the SQL leaves out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local import trino
from local.athena import Athena, AthenaError
from local.aws import readers
from tests.conformance import tables
from tests.conformance.record import local_lake

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not trino.installed(),
        reason="Trino is not installed: `make conformance` or `make up ENGINE=trino` fetches it",
    ),
]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with local_lake() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def console(endpoint: str) -> Iterator[Athena]:
    with trino.server(endpoint) as address:
        yield readers.console(endpoint, tables.DATABASE, trino=address)


def test_trino_reads_the_same_rows_as_duckdb(endpoint: str, console: Athena) -> None:
    duckdb = readers.console(endpoint, tables.DATABASE)
    sql = "SELECT order_id, order_timestamp, total_amount, date FROM clean_orders ORDER BY 1, 2, 3"
    actual, expected = console.query(sql), duckdb.query(sql)
    assert actual.rows and (actual.names, actual.types) == (expected.names, expected.types)
    assert actual.text_rows() == expected.text_rows()


def test_trino_answers_what_the_closed_subset_leaves_out(endpoint: str, console: Athena) -> None:
    sql = "SELECT reduce(ARRAY[1, 2], 0, (s, x) -> s + x, s -> s)"
    with pytest.raises(AthenaError, match="ENGINE=trino"):
        readers.console(endpoint, tables.DATABASE).query(sql)
    assert console.query(sql).rows == [(3,)]


def test_no_statement_writes_a_table(console: Athena) -> None:
    with pytest.raises(AthenaError, match="Access Denied|ACCESS_DENIED|PERMISSION_DENIED"):
        console.query("CREATE TABLE copy AS SELECT * FROM clean_orders")
