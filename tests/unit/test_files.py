"""One loader for the files that lie in no package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools.files import ROOT, load_job, load_module


def test_a_file_is_executed_anew_each_time_it_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "handler.py"
    file.write_text("value = []\n")
    first = load_module("one_file", file)
    try:
        first.value.append("a request before")
        assert load_module("one_file", file).value == []
    finally:
        del sys.modules["one_file"]


def test_dataclasses_of_a_loaded_file_find_their_module(tmp_path: Path) -> None:
    file = tmp_path / "handler.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Place:\n    key: str\n"
    )
    try:
        assert load_module("with_dataclass", file).Place("a").key == "a"
    finally:
        del sys.modules["with_dataclass"]


def test_the_job_is_the_same_module_for_all_who_ask() -> None:
    assert load_job() is load_job() is sys.modules["glue_etl"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no_handler.py"):
        load_module("missing", tmp_path / "no_handler.py")


def test_no_other_loader_has_grown_beside_it() -> None:
    loader = "spec_from_" + "file_location"
    folders = ("local", "deploy", "tools", "tests", "benchmarks")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = [path for path in sources if loader in path.read_text("utf-8")]
    assert found == [ROOT / "tools" / "files.py"]
