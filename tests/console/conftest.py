"""Fixtures: a shop with two deliveries, one failed run, and names and cells that hold HTML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.places import on_endpoint
from console.data import Lake
from tests.console.world import Shop, order, orders

HOSTILE = "<img src=x onerror=alert(1)>"
HOSTILE_FILE = f"orders/{HOSTILE}.csv"
HOSTILE_CELL = "<script>alert(2)</script>{{ 3 * 3 }}"


def deliver(shop: Shop, files: dict[str, bytes]) -> str:
    """Upload files; return the id of the run that took them."""
    before = {execution["name"] for execution in shop.aws.executions()}
    for path, body in files.items():
        shop.aws.upload(path, body)
    new = [
        execution["name"]
        for execution in shop.aws.wait_until_idle(120)
        if execution["name"] not in before
    ]
    return new[-1]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Shop(tmp_path_factory.mktemp("lake")) as shop:
        deliver(
            shop,
            {
                "orders/2025-04-01.csv": orders(order(1), order(2), order(3, "abc")),
                HOSTILE_FILE: orders(order(4), order(5, HOSTILE_CELL)),
                "stock.csv": b"a,b\n1,2\n",
            },
        )
        deliver(shop, {"orders/bad.csv": b"fail the run"})
        shop.aws.client("s3").delete_object(
            Bucket=shop.aws.name("RawBucket"), Key="land-folder/Data/orders/bad.csv"
        )
        deliver(shop, {"orders/2025-04-02.csv": orders(order(6, day=2), order(7, "abc", 2))})
        yield shop


@pytest.fixture(scope="module")
def lake(shop: Shop) -> Lake:
    return Lake(on_endpoint(shop.aws.endpoint))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
