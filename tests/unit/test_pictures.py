"""The pictures show the state machine and the template as they are now."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

import facts
from client import ROOT, mermaid
from client.template import Template
from tests import images, pictures
from tests.browser import browser
from tests.unit.test_report import ASL, BAD, GOOD, history

DRAWS = browser() is not None and importlib.util.find_spec("nicegui") is not None
needs_chromium = pytest.mark.skipif(
    not DRAWS, reason="Mermaid is drawn by Chromium (apt-get install chromium) and NiceGUI"
)


def names_in(text: str) -> list[str]:
    """The first line of each box that is drawn for a state."""
    return re.findall(r'^s\d+\W*"(\w+)<br/>', text, re.M)


def edges_in(text: str) -> set[tuple[str, str]]:
    """The names at both ends of each line that is drawn."""
    names = dict(re.findall(r'^(?:subgraph )?(s\d+)\W*"([\w ]+)', text, re.M))
    ends = re.findall(r"^(s\d+) -.?->? ?(s\d+)$", text.replace("-.->", "-->"), re.M)
    return {(names[a], names[b]) for a, b in ends}


def test_no_picture_is_out_of_date() -> None:
    assert pictures.out_of_date(ROOT, pictures.IMAGES, ASL) == [], "run: make images"


def test_a_new_way_makes_pictures_out_of_date(tmp_path: Path) -> None:
    changed = copy.deepcopy(ASL)
    changed["States"]["FindNewFiles"]["Next"] = "RunGlueJob"
    old = pictures.out_of_date(ROOT, pictures.IMAGES, changed)
    assert old == ["state-machine.md", "executed.svg"]
    assert "executed.svg" in pictures.out_of_date(ROOT, tmp_path, ASL)


def test_the_whole_machine_has_every_state_once_and_folds_what_many_catch() -> None:
    text = mermaid.whole(ASL)
    names = [name for scope in mermaid.scopes(ASL) for name in scope["States"]]
    assert sorted([*names_in(text), "Parallel Athena Queries"]) == sorted(names)
    edges = edges_in(text)
    assert ("RunGlueJob", "CountGlueWait") in edges and ("FindNewFiles", "AnyNewFiles") in edges
    assert ("FindNewFiles", "IsFailureMailed") not in edges
    caught = sum(
        "IsFailureMailed" in json.dumps(s.get("Catch", "")) for s in ASL["States"].values()
    )
    assert f"an error in one of {caught} states" in text


def test_an_execution_shows_what_it_did_and_folds_the_rest() -> None:
    runs = facts.runs_of(history(BAD, fail_at="RunGlueJob", end="ExecutionFailed"))
    text = mermaid.path_taken(ASL, runs)
    assert names_in(text) == [
        "FindNewFiles",
        "RunGlueJob",
        "ReadJobError",
        "HandleGlueJobFailure",
        "RunFailed",
    ]
    assert edges_in(text) == {
        ("FindNewFiles", "RunGlueJob"),
        ("RunGlueJob", "ReadJobError"),
        ("ReadJobError", "HandleGlueJobFailure"),
        ("HandleGlueJobFailure", "RunFailed"),
    }
    assert 's3:listObjectsV2, 1.0 s"]:::done' in text
    assert 'glue:startJobRun, 1.0 s"]:::failed' in text
    states = sum(len(scope["States"]) for scope in mermaid.scopes(ASL))
    assert f"deciding or preparing: 3<br/>not reached: {states - len(BAD)}" in text


def test_classes_tell_done_running_failed_and_skipped() -> None:
    events = history(GOOD[:4])
    running = facts.runs_of(events[:-2])
    text = mermaid.whole(ASL, running)
    classes = {name: kind for name, kind in re.findall(r'"(\w+)<br/>[^"]*"\W+(\w+)$', text, re.M)}
    assert (classes["FindNewFiles"], classes["RunGlueJob"]) == ("done", "running")
    assert classes["ReadCatalog"] == "skipped"
    assert set(mermaid.CLASSES.values()) | {mermaid.SKIPPED} <= set(
        re.findall(r"^classDef (\w+)", text, re.M)
    )


def test_names_that_hold_markup_are_written_in_codes() -> None:
    hostile = '"] --> x; <script>alert(1)</script> `%%{init}%%`'
    machine: dict[str, Any] = {"StartAt": hostile, "States": {hostile: {"Type": "Succeed"}}}
    (line,) = [line for line in mermaid.whole(machine).splitlines() if line.startswith("s0")]
    assert re.fullmatch(r's0\(\["[\w .,:()#;-]*<br/>Succeed"\]\)', line), line


@needs_chromium
def test_mermaid_draws_an_execution_as_text_without_html(tmp_path: Path) -> None:
    events = history(BAD, fail_at="RunGlueJob", end="ExecutionFailed")
    svg = pictures.executed_svg(ASL, events)
    ET.fromstring(svg)
    assert (
        "RunGlueJob" in svg
        and "foreignObject" not in svg
        and "http" not in svg.replace("http://www.w3.org/", "")
    )
    (tmp_path / "executed.svg").write_text(svg, "utf-8")
    assert "executed.svg" not in pictures.out_of_date(ROOT, tmp_path, ASL)


@needs_chromium
@pytest.mark.parametrize("text", [mermaid.whole(ASL), pictures.architecture(Template.load())])
def test_mermaid_can_draw_what_the_docs_hold(text: str) -> None:
    assert "Syntax error" not in pictures.svg(text)


@needs_chromium
def test_what_is_no_diagram_is_an_error() -> None:
    with pytest.raises(ValueError, match="could not draw"):
        pictures.svg("flowchart TB\nthis is [no diagram")


def test_the_architecture_names_what_the_template_names() -> None:
    text = pictures.architecture(Template.load())
    for name in (
        "Lakehouse",
        "delta-crawler",
        "delta-lakehouse",
        "Moves3Objects",
        "etl",
        "delta-lake",
    ):
        assert f"<br/>{name}<br/>" in text
    assert "123456789012" not in text


def test_a_resource_that_left_the_template_is_named() -> None:
    document = copy.deepcopy(Template.load().document)
    del document["Resources"]["Sweep"]
    with pytest.raises(ValueError, match="no resource Sweep"):
        pictures.architecture(Template(document))


def test_a_history_of_the_aws_cli_is_read_with_its_times(tmp_path: Path) -> None:
    events = history(GOOD)
    for form in (lambda at: at.isoformat(), lambda at: at.timestamp()):
        cli_events = [{**event, "timestamp": form(event["timestamp"])} for event in events]
        (tmp_path / "h.json").write_text(json.dumps({"events": cli_events}), "utf-8")
        assert images.events_of(tmp_path / "h.json") == events


def test_the_check_tells_which_picture_is_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert images.main(["--out", str(tmp_path), "--check"]) == 1
    assert "executed.svg is out of date: make images" in capsys.readouterr().out
