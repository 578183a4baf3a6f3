"""What people write by hand: read the three CSVs, dropDuplicates, MERGE into three tables.

For timing only; it loses rows.
"""

import os
import sys

from delta.tables import DeltaTable
from pyspark.sql import SparkSession

TABLES = {
    "products": (
        "product_id",
        None,
        "product_id STRING, department_id STRING, department STRING, product_name STRING",
    ),
    "orders": (
        "order_id",
        "date",
        "order_num STRING, order_id STRING, user_id STRING, order_timestamp TIMESTAMP, "
        "total_amount DOUBLE, date DATE",
    ),
    "order_items": (
        "id",
        "date",
        "id STRING, order_id STRING, user_id STRING, days_since_prior_order INT, "
        "product_id STRING, add_to_cart_order INT, reordered INT, "
        "order_timestamp TIMESTAMP, date DATE",
    ),
}


def main(raw: str, lake: str) -> None:
    spark = SparkSession.builder.appName("naive").getOrCreate()
    for name, (key, partition, ddl) in TABLES.items():
        files = [
            os.path.join(folder, file)
            for folder, _, names in os.walk(raw)
            for file in names
            if os.path.relpath(os.path.join(folder, file), raw).startswith(name)
            and file.endswith(".csv")
        ]
        if not files:
            continue
        rows = spark.read.schema(ddl).option("header", True).csv(files).dropDuplicates([key])
        path = os.path.join(lake, name)
        if not DeltaTable.isDeltaTable(spark, path):
            empty = spark.createDataFrame([], ddl).write.format("delta")
            (empty.partitionBy(partition) if partition else empty).save(path)
        merge = (
            DeltaTable.forPath(spark, path).alias("t").merge(rows.alias("s"), f"t.{key} = s.{key}")
        )
        merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()


main(*sys.argv[1:])
