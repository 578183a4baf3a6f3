"""The crawler on one machine: reads Delta logs with `deltalake`, registers tables as Glue's native
Delta crawler does.

What AWS's crawler leaves in the catalog for a native Delta table: the columns of the log in Hive's
words, the partition keys apart from them, the location (also as the SerDe parameter `path`),
`table_type=DELTA`, the Delta version it saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError

HIVE_TYPES = {
    "long": "bigint",
    "integer": "int",
    "short": "smallint",
    "byte": "tinyint",
    "timestamp_ntz": "timestamp",
}


class GlueClient(Protocol):
    """The calls of boto3's Glue client that are needed here."""

    def get_paginator(self, operation_name: str) -> Any: ...
    def get_table(self, *, DatabaseName: str, Name: str) -> dict[str, Any]: ...
    def create_table(self, *, DatabaseName: str, TableInput: dict[str, Any]) -> Any: ...
    def update_table(self, *, DatabaseName: str, TableInput: dict[str, Any]) -> Any: ...


def crawl_tables(
    glue: GlueClient,
    database: str,
    locations: Iterable[str],
    storage_options: Mapping[str, str] | None = None,
) -> list[str]:
    """Register the Delta tables at these locations.

    Returns a sentence for each one that cannot be read.
    """
    failures = []
    for location in locations:
        try:
            table = table_input(location, storage_options)
        except TableNotFoundError:
            failures.append(f"no Delta log at {location}: no run has written this table yet")
        except (DeltaError, OSError, ValueError) as error:
            failures.append(f"cannot read the Delta log at {location}: {error}")
        else:
            register(glue, database, table)
    return failures


def catalog_tables(glue: GlueClient, database: str) -> dict[str, str]:
    """Name -> location of the Delta tables that the catalog knows: what Athena can query."""
    pages = glue.get_paginator("get_tables").paginate(DatabaseName=database)
    tables = [table for page in pages for table in page["TableList"]]
    return {
        t["Name"]: t["StorageDescriptor"]["Location"]
        for t in tables
        if t["Parameters"]["table_type"] == "DELTA"
    }


def table_input(location: str, storage_options: Mapping[str, str] | None) -> dict[str, Any]:
    """Glue's TableInput of the Delta table at the location, as of its newest version."""
    table = DeltaTable(location, storage_options=dict(storage_options or {}))
    partitions = table.metadata().partition_columns
    columns = hive_columns(table.schema())
    properties = {
        "classification": "delta",
        "table_type": "DELTA",
        "spark.sql.sources.provider": "delta",
        "EXTERNAL": "TRUE",
        "UPDATED_BY_CRAWLER": "delta-crawler",
        "CrawlerSchemaSerializerVersion": "1.0",
        "CrawlerSchemaDeserializerVersion": "1.0",
        # no commit time: DeltaTable.history() holds the GIL while it reads; a server in this
        # process would hang
        "delta.lastUpdateVersion": str(table.version()),
    }
    return {
        "Name": location.rstrip("/").rpartition("/")[2].lower(),
        "Owner": "owner",
        "TableType": "EXTERNAL_TABLE",
        "Parameters": properties,
        "PartitionKeys": [c for c in columns if c["Name"] in partitions],
        "StorageDescriptor": {
            "Columns": [c for c in columns if c["Name"] not in partitions],
            "Location": location,
            "InputFormat": "org.apache.hadoop.mapred.SequenceFileInputFormat",
            "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveSequenceFileOutputFormat",
            "Compressed": False,
            "NumberOfBuckets": -1,
            "StoredAsSubDirectories": False,
            "SerdeInfo": {
                "SerializationLibrary": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
                "Parameters": {"serialization.format": "1", "path": location},
            },
        },
    }


def hive_columns(schema: Schema) -> list[dict[str, str]]:
    """The columns in Hive's words, names in lower case as the catalog keeps them."""
    return [{"Name": field.name.lower(), "Type": hive_type(field.type)} for field in schema.fields]


def hive_type(kind: Any) -> str:
    """A Delta type in Hive's words: string, timestamp, array<string>, map<string,bigint>,
    struct<a:int>."""
    if kind.type == "array":
        return f"array<{hive_type(kind.element_type)}>"
    if kind.type == "map":
        return f"map<{hive_type(kind.key_type)},{hive_type(kind.value_type)}>"
    if kind.type == "struct":
        return "struct<" + ",".join(f"{f.name}:{hive_type(f.type)}" for f in kind.fields) + ">"
    return HIVE_TYPES.get(kind.type, kind.type)


def register(glue: GlueClient, database: str, table: dict[str, Any]) -> None:
    """Create the table in the catalog, or update it where it is there and differs."""
    try:
        registered = glue.get_table(DatabaseName=database, Name=table["Name"])["Table"]
    except Exception as error:
        if getattr(error, "response", {}).get("Error", {}).get("Code") != "EntityNotFoundException":
            raise
        glue.create_table(DatabaseName=database, TableInput=table)
        return
    if any(registered.get(key) != value for key, value in table.items()):
        glue.update_table(DatabaseName=database, TableInput=table)
