"""The local crawler leaves in the Glue catalog what the native Delta crawler leaves there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from local.aws import crawler
from tests.pipeline import lake

DATABASE = "delta-lakehouse"


@pytest.fixture
def glue() -> Iterator[Any]:
    """A Glue with the database of the lakehouse."""
    with mock_aws():
        client = boto3.client("glue", region_name="us-east-1")
        client.create_database(DatabaseInput={"Name": DATABASE})
        yield client


def crawl(glue: Any, *locations: str) -> list[str]:
    return crawler.crawl_tables(glue, DATABASE, locations)


def test_a_crawl_registers_every_table_as_a_native_delta_table(glue: Any, tmp_path: Path) -> None:
    locations = lake.build(tmp_path)
    assert crawl(glue, *locations.values()) == []
    assert {t["Name"] for t in glue.get_tables(DatabaseName=DATABASE)["TableList"]} == set(
        locations
    )
    assert crawler.catalog_tables(glue, DATABASE) == locations
    orders = glue.get_table(DatabaseName=DATABASE, Name="clean_orders")["Table"]
    assert (
        orders["Parameters"]["table_type"] == "DELTA"
        and orders["Parameters"]["delta.lastUpdateVersion"] == "0"
    )
    assert orders["PartitionKeys"] == [{"Name": "date", "Type": "date"}]
    assert [(c["Name"], c["Type"]) for c in orders["StorageDescriptor"]["Columns"]] == [
        ("order_num", "string"),
        ("order_id", "string"),
        ("user_id", "string"),
        ("order_timestamp", "timestamp"),
        ("total_amount", "double"),
    ]
    assert orders["StorageDescriptor"]["Location"] == locations["clean_orders"]
    assert (
        orders["StorageDescriptor"]["SerdeInfo"]["Parameters"]["path"] == locations["clean_orders"]
    )


def test_nested_types_are_written_in_hives_words(glue: Any, tmp_path: Path) -> None:
    assert crawl(glue, lake.build(tmp_path)["rejected_records"]) == []
    table = glue.get_table(DatabaseName=DATABASE, Name="rejected_records")["Table"]
    types = {c["Name"]: c["Type"] for c in table["StorageDescriptor"]["Columns"]}
    assert (
        types["reasons"] == "array<string>"
        and types["fields"] == "map<string,string>"
        and types["line"] == "bigint"
    )
    assert [k["Name"] for k in table["PartitionKeys"]] == ["status"]


def test_a_second_crawl_brings_a_new_column_into_the_catalog(glue: Any, tmp_path: Path) -> None:
    location = lake.build(tmp_path)["clean_products"]
    assert crawl(glue, location) == []
    lake.write_deltalake(
        location,
        lake.pa.table({"product_id": ["p4"], "colour": ["red"]}),
        mode="append",
        schema_mode="merge",
    )
    assert crawl(glue, location) == []
    table = glue.get_table(DatabaseName=DATABASE, Name="clean_products")["Table"]
    assert table["StorageDescriptor"]["Columns"][-1] == {"Name": "colour", "Type": "string"}
    assert table["Parameters"]["delta.lastUpdateVersion"] == "1"


def test_a_table_that_is_not_there_fails_the_crawl_by_name_and_the_others_are_registered(
    glue: Any, tmp_path: Path
) -> None:
    locations = lake.build(tmp_path)
    (failure,) = crawl(glue, str(tmp_path / "nowhere"), locations["clean_products"])
    assert "nowhere" in failure
    assert glue.get_table(DatabaseName=DATABASE, Name="clean_products")
