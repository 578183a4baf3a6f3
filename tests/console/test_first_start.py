"""The console before anything was uploaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.places import on_endpoint
from console.data import Lake
from tests.console.world import Shop

pytest.importorskip("nicegui", reason="the console is not installed")
home = pytest.importorskip("console.pages.home")
runs = pytest.importorskip("console.pages.runs")


def test_a_lake_without_runs_has_a_home_page(tmp_path: Path) -> None:
    with Shop(tmp_path / "lake") as shop:
        lake = Lake(on_endpoint(shop.aws.endpoint))
        state, zone, listed = home.read(lake), home.read_zone(lake, None), runs.read(lake)
    assert [card["rows"] for card in state.tables] == [0, 0, 0]
    assert (list(state.runs), list(state.attention), list(listed.runs)) == ([], [], [])
    assert home.waiting_text(zone.waiting) == "Empty: all files were read."
