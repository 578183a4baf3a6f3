"""The tables' declarations as Arrow's schemas, for tables that tests write without Spark."""

from __future__ import annotations

import re

import pyarrow as pa

TYPES = {
    "STRING": pa.string(),
    "BIGINT": pa.int64(),
    "INT": pa.int32(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "ARRAY<STRING>": pa.list_(pa.string()),
    "MAP<STRING, STRING>": pa.map_(pa.string(), pa.string()),
    "MAP<STRING, BIGINT>": pa.map_(pa.string(), pa.int64()),
}


def schema_of(ddl: str) -> pa.Schema:
    """The columns of a declaration in Spark's words."""
    columns = re.findall(r"`?(\w+)`? ((?:MAP|ARRAY)<[^>]*>|\w+)", ddl)
    return pa.schema([(name, TYPES[kind]) for name, kind in columns])
