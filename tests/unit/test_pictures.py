"""The pictures show the state machine and the template as they are now."""

from __future__ import annotations

import copy
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from local.athena import Athena
from local.commands import images
from tests.pipeline import lake
from tools import pictures
from tools.browser import browser
from tools.template import Template

ASL = json.loads(pictures.ASL_FILE.read_text("utf-8"))
EVENTS = [
    {
        "id": 1,
        "previousEventId": 0,
        "type": "ExecutionStarted",
        "timestamp": "2025-04-16T10:00:00Z",
    },
    {
        "id": 2,
        "previousEventId": 0,
        "type": "TaskStateEntered",
        "timestamp": "2025-04-16T10:00:00Z",
        "stateEnteredEventDetails": {"name": "FindNewFiles"},
    },
    {
        "id": 3,
        "previousEventId": 2,
        "type": "TaskFailed",
        "taskFailedEventDetails": {"error": "S3.SlowDown"},
    },
    {"id": 4, "previousEventId": 3, "type": "TaskSucceeded"},
    {
        "id": 5,
        "previousEventId": 4,
        "type": "TaskStateExited",
        "timestamp": "2025-04-16T10:00:02.500Z",
        "stateExitedEventDetails": {"name": "FindNewFiles"},
    },
    {
        "id": 6,
        "previousEventId": 5,
        "type": "ChoiceStateEntered",
        "timestamp": "2025-04-16T10:00:02.500Z",
        "stateEnteredEventDetails": {"name": "AnyNewFiles"},
    },
    {
        "id": 7,
        "previousEventId": 6,
        "type": "ExecutionFailed",
        "timestamp": "2025-04-16T10:00:03Z",
        "executionFailedEventDetails": {"error": "X", "cause": "why"},
    },
]


def test_no_picture_in_images_is_out_of_date() -> None:
    assert pictures.out_of_date(pictures.IMAGES, ASL) == [], "run: make images"


def test_a_new_state_or_another_way_makes_the_pictures_out_of_date(tmp_path: Path) -> None:
    for name, svg in pictures.drawings(ASL).items():
        (tmp_path / name).write_text(svg, "utf-8")
    (tmp_path / "executed.svg").write_text(pictures.executed_svg(ASL, EVENTS), "utf-8")
    assert pictures.out_of_date(tmp_path, ASL) == []
    changed = copy.deepcopy(ASL)
    changed["States"]["FindNewFiles"]["Next"] = "RunGlueJob"
    assert pictures.out_of_date(tmp_path, changed) == ["delta-lake-steps.svg", "executed.svg"]


def test_pictures_are_well_formed_and_the_same_each_time() -> None:
    for name, svg in pictures.drawings(ASL).items():
        ET.fromstring(svg)
        assert svg == pictures.drawings(ASL)[name] and "http" not in svg.replace(
            "http://www.w3.org/2000/svg", ""
        )


def test_the_executed_graph_shows_results_seconds_and_the_way_taken() -> None:
    svg = pictures.executed_svg(ASL, EVENTS)
    ET.fromstring(svg)
    assert "failed after 3.0 s, 2 states entered" in svg and "s3 · 2.5 s" in svg
    assert svg.count('class="edge took"') == 1, "only FindNewFiles to AnyNewFiles"
    assert svg.count('class="caught"') == 1, "the key only: the retry went well"


def test_the_architecture_names_what_the_template_names() -> None:
    svg = pictures.architecture_svg(Template.load())
    for name in (
        "Lakehouse",
        "delta-crawler",
        "delta-lakehouse",
        "Moves3Objects",
        "etl",
        "delta-lake",
    ):
        assert f">{name}<" in svg
    assert "123456789012" not in "".join(part.split("<")[0] for part in svg.split('class="n"')[1:])


def test_a_resource_that_left_the_template_is_named() -> None:
    document = copy.deepcopy(Template.load().document)
    del document["Resources"]["Sweep"]
    with pytest.raises(ValueError, match="no resource Sweep"):
        pictures.architecture_svg(Template(document))


def test_the_check_tells_which_picture_is_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert images.main(["--out", str(tmp_path), "--check"]) == 1
    assert "architecture.svg is out of date: make images" in capsys.readouterr().out
    history = tmp_path / "history.json"
    history.write_text(json.dumps({"events": EVENTS}), "utf-8")
    assert images.main(["--out", str(tmp_path), "--history", str(history)]) == 0
    assert images.main(["--out", str(tmp_path), "--check"]) == 0


@pytest.mark.skipif(browser() is None, reason="no Chromium here: apt-get install chromium")
def test_the_queries_become_a_picture(tmp_path: Path) -> None:
    pictures.queries_png(Athena(lake.build(tmp_path / "lake")).query, tmp_path / "queries.png")
    assert (tmp_path / "queries.png").stat().st_size > 40_000
