"""Large clean exports of the sample shop, to measure with.

write_bench(folder, items)    clean files for a first load
write_bench_delivery(...)     a small delivery that goes with them: new items and changed ones,
                              half and half
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from samples.shop import (
    CLOCK,
    FIRST_ORDER,
    ITEM_COLUMNS,
    ORDER_COLUMNS,
    PRODUCT_COLUMNS,
    PRODUCTS,
    Shop,
    item_line,
    item_lines,
    mix,
    order_row,
    product_row,
)


def write_bench(folder: Path, items: int, days: int = 15) -> list[Path]:
    """Clean exports: products.csv, and a file a day for orders and for order items.

    Gives the files written.
    """
    shop = Shop(items, days)
    files = [
        _write_lines(
            folder / "products.csv",
            PRODUCT_COLUMNS,
            (",".join(product_row(product)) + "\n" for product in range(1, PRODUCTS + 1)),
        )
    ]
    for day in range(days):
        name, span = (
            shop.date_of(day),
            range(shop.first_order_of(day), shop.first_order_of(day + 1)),
        )
        files.append(
            _write_lines(
                folder / "orders" / f"{name}.csv",
                ORDER_COLUMNS,
                (",".join(order_row(order, name)) + "\n" for order in span),
            )
        )
        files.append(
            _write_lines(
                folder / "order_items" / f"{name}.csv",
                ITEM_COLUMNS,
                (line for order in span for line in item_lines(shop, order, name, items)),
            )
        )
    return files


def write_bench_delivery(
    folder: Path,
    base_items: int,
    items: int,
    days: int = 15,
    share: float = 0.01,
    scattered: bool = False,
    newer: bool = False,
) -> list[Path]:
    """A delivery of `items * share` item rows for the tables that `write_bench(…, base_items,
    days)` fills.

    Half are new items of new orders on the day after the last, half are items of the base with
    another days_since_prior_order: from its last three days, or scattered over all of it. Their
    order_timestamp is the same, or 30 seconds later where `newer`. Keep `items` while `base_items`
    grows to see what the size of the table costs.
    """
    base, rows = Shop(base_items, days), round(items * share)
    day, first_new = base.date_of(days), base.first_item_of(base.orders)
    after = first_new + rows // 2
    new_orders = range(base.orders, base.order_of(after - 1) + 1)
    fresh = (line for order in new_orders for line in item_lines(base, order, day, after))
    first = 0 if scattered else base.first_item_of(base.first_order_of(max(days - 3, 0)))
    number = min(rows - rows // 2, base_items - first)
    chosen = (first + (base_items - first) * place // number for place in range(number))
    return [
        _write_lines(
            folder / "orders" / f"{day}.csv",
            ORDER_COLUMNS,
            (",".join(order_row(order, day)) + "\n" for order in new_orders),
        ),
        _write_lines(folder / "order_items" / f"{day}.csv", ITEM_COLUMNS, fresh),
        _write_lines(
            folder / "order_items" / f"corrections-{day}.csv",
            ITEM_COLUMNS,
            (_changed_item(base, item, newer) for item in chosen),
        ),
    ]


def _changed_item(shop: Shop, item: int, newer: bool) -> str:
    order = shop.order_of(item)
    day, clock = shop.date_of(shop.day_of(order)), CLOCK[mix(order, 3) % 1440]
    moment = clock[:-2] + "30" if newer else clock
    head = f"{FIRST_ORDER + order},{mix(order, 4) % 9000 + 1000}"
    return item_line(
        item,
        item - shop.first_item_of(order),
        head,
        f"{day}{moment},{day}\n",
        changed=1 + item % 30,
    )


def _write_lines(path: Path, columns: Sequence[str], lines: Iterator[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(columns) + "\n")
        file.writelines(lines)
    return path
