"""The tables: their columns, keys, parents and rules, as the files of a shop must fill them.

The job declares the same at the top of `src/glue_etl.py`; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime

Value = str | int | float | bool | date | datetime | None

# dataset -> its columns in the order of the table; "name" is an identifier: a text in which Excel
# may have added ".0"
COLUMNS: dict[str, dict[str, str]] = {
    "products": {
        "product_id": "name",
        "department_id": "name",
        "department": "text",
        "product_name": "text",
    },
    "orders": {
        "order_num": "name",
        "order_id": "name",
        "user_id": "name",
        "order_timestamp": "timestamp",
        "total_amount": "double",
        "date": "date",
    },
    "order_items": {
        "id": "name",
        "order_id": "name",
        "user_id": "name",
        "days_since_prior_order": "int",
        "product_id": "name",
        "add_to_cart_order": "int",
        "reordered": "boolean",
        "order_timestamp": "timestamp",
        "date": "date",
    },
}
KEY = {"products": "product_id", "orders": "order_id", "order_items": "id"}
REQUIRED = {
    "products": ["product_id"],
    "orders": ["order_id", "order_timestamp"],
    "order_items": ["id", "order_id", "product_id", "order_timestamp"],
}
PARENTS = {"order_id": ("orders", "orphan_order"), "product_id": ("products", "orphan_product")}
# dataset -> column -> further names that headers may use for it
OTHER_NAMES: dict[str, dict[str, tuple[str, ...]]] = {dataset: {} for dataset in COLUMNS}
# dataset -> reason -> whether a row's values break the rule: a shop's own rules
CUSTOM_RULES: dict[str, dict[str, Callable[[dict[str, Value]], bool]]] = {
    dataset: {} for dataset in COLUMNS
}
# In front of the columns in a file of rejected rows to fix: why each was rejected, and the place of
# the row that it replaces. In such a file a leading ' of a value is none of it
REJECT_COLUMNS = ("reasons", "where")
