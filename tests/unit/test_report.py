"""The page about a run says what the run did, shows nothing else, and stands on its own."""

from __future__ import annotations

import base64
import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import run_report.handler as report
from hints import hints
from tools import ROOT
from tools.browser import browser, measure, screenshot

ASL = json.loads((ROOT / "stepfunctions" / "delta-lake.json").read_text("utf-8"))
graph = report.run_graph


def dataset(
    read: int = 0, admitted: int = 0, reasons: dict[str, int] | None = None, **outcomes: int
) -> dict[str, Any]:
    """One dataset of a summary."""
    zeros = dict.fromkeys(report.OUTCOMES, 0)
    return (
        {"rows_read": read, "admitted": admitted, "rejected_by_reason": reasons or {}}
        | zeros
        | outcomes
    )


SUMMARY: dict[str, Any] = {
    "schema_version": 1,
    "run_id": "run-2025-04-16",
    "status": "SUCCEEDED",
    "error": None,
    "started_at": "2025-04-16T10:00:00Z",
    "finished_at": "2025-04-16T10:00:42.500Z",
    "files": {
        "listed": 5,
        "loaded": 3,
        "duplicate": 1,
        "set_aside": 1,
        "changed": 0,
        "set_aside_by_reason": {"utf16": 1},
    },
    "manifest_entries": 5,
    "datasets": {
        "products": dataset(60, inserted=50, updated=4, unchanged=6),
        "orders": dataset(
            1200,
            0,
            {"invalid_total_amount": 7, "missing_order_id": 2},
            inserted=1180,
            superseded=12,
            rejected=8,
        ),
        "order_items": dataset(
            5000,
            25,
            {"invalid_date": 3, "orphan_order": 40},
            inserted=4900,
            updated=82,
            rejected=3,
            parked=40,
        ),
    },
    "tables": {
        "clean_products": {
            "version": 4,
            "rows": 54,
            "schema_changed": False,
            "files_added": 1,
            "files_removed": 1,
            "dates": [],
        },
        "clean_orders": {
            "version": 7,
            "rows": 4180,
            "schema_changed": True,
            "files_added": 3,
            "files_removed": 0,
            "dates": [["2025-04-01", "2025-04-02"], ["2025-04-05", "2025-04-05"]],
        },
        "rejected_records": {
            "version": None,
            "rows": None,
            "schema_changed": False,
            "files_added": 0,
            "files_removed": 0,
            "dates": [],
        },
    },
    "crawl_needed": True,
    "timings": {"list": 0.4, "read": 6.5, "merge_orders": 12.25, "write_rejects": 3.0},
}
MANIFEST = [
    {
        "path": f"orders/2025-04-0{n}.csv",
        "outcome": "loaded",
        "rows_read": 400,
        "size": 20_000,
        "destination": "archive",
        "reason": None,
        "detail": None,
        "ignored_columns": ["note"],
    }
    for n in (1, 2, 3)
] + [
    {
        "path": "orders/2025-04-01 copy.csv",
        "outcome": "duplicate",
        "rows_read": 0,
        "size": 20_000,
        "destination": "archive",
    },
    {
        "path": "products.csv",
        "outcome": "set_aside",
        "rows_read": None,
        "size": 99,
        "destination": "rejected",
        "reason": "utf16",
        "detail": "the file is UTF-16: save it as UTF-8",
    },
]
EXAMPLES = [
    {
        "dataset": "orders",
        "reason": "invalid_total_amount",
        "file_path": "orders/2025-04-01.csv",
        "line": 17,
        "raw": "17,o17,u1,2025-04-01T10:00:00,<script>alert(1)</script>,2025-04-01",
    },
    {
        "dataset": "order_items",
        "reason": "orphan_order",
        "file_path": "order_items.csv",
        "line": 3,
        "raw": "i3,o99,u1",
    },
]


def history(
    steps: list[str], fail_at: str | None = None, end: str = "ExecutionSucceeded"
) -> list[dict[str, Any]]:
    """Events of an execution that went through these states, a second each; `fail_at` had its error
    caught."""
    events: list[dict[str, Any]] = [
        {
            "id": 1,
            "previousEventId": 0,
            "type": "ExecutionStarted",
            "timestamp": "2025-04-16T10:00:00Z",
        }
    ]

    def add(kind: str, **details: Any) -> None:
        seconds = len([e for e in events if e["type"].endswith("Entered")])
        time = f"2025-04-16T10:{seconds // 60:02d}:{seconds % 60:02d}Z"
        events.append(
            {"id": len(events) + 1, "previousEventId": len(events), "type": kind, "timestamp": time}
            | details
        )

    for name in steps:
        kind = ASL["States"][name]["Type"]
        add(f"{kind}StateEntered", stateEnteredEventDetails={"name": name})
        if name == fail_at:
            add(
                "TaskFailed",
                taskFailedEventDetails={"error": "Glue.Boom", "cause": "the <driver> died"},
            )
        if kind != "Fail":
            add(f"{kind}StateExited", stateExitedEventDetails={"name": name})
    add(
        end,
        **(
            {"executionFailedEventDetails": {"error": "RunFailed", "cause": "see above"}}
            if end == "ExecutionFailed"
            else {}
        ),
    )
    return events


GOOD = [
    "PrepareRun",
    "FindNewFiles",
    "AnyNewFiles",
    "RunGlueJob",
    "CheckGlueJobStatus",
    "ReadRunSummary",
    "HandleValidationSuccess",
]
BAD = [
    "PrepareRun",
    "FindNewFiles",
    "AnyNewFiles",
    "RunGlueJob",
    "ReadJobError",
    "HandleGlueJobFailure",
    "RunFailed",
]


def page(**changes: Any) -> str:
    """The page of the run above, with some of its summary changed."""
    return report.render(SUMMARY | changes, MANIFEST, history(GOOD), ASL, EXAMPLES)


class Checker(HTMLParser):
    """Finds tags that are not closed, and everything that would be fetched."""

    VOID = {"meta", "br", "link", "img"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [
            str(v) for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data")
        ]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing() -> None:
    checker = Checker()
    checker.feed(page())
    assert checker.open == [] and checker.fetched == []
    assert "script" not in checker.tags and not re.search(r"@import|url\(", page())


def test_the_page_holds_the_run_in_numbers() -> None:
    text = page()
    for said in (
        "run-2025-04-16",
        "Succeeded",
        "6,260",
        "4,900",
        "invalid_total_amount",
        "the file is UTF-16: save it as UTF-8",
        "12.2 s",
        "42.5 s",
        "3 days, 2025-04-01 to 2025-04-05",
        "columns ignored: note",
    ):
        assert said in text, said
    assert text.count("✓ balanced") == 3 and "not accounted for" not in text


def test_a_row_that_is_not_accounted_for_is_shown() -> None:
    datasets = copy.deepcopy(SUMMARY["datasets"])
    datasets["orders"]["inserted"] -= 5
    assert "✗ +5 rows not accounted for" in page(datasets=datasets)


OPERATION = {
    "name": "rollback",
    "author": "Ann",
    "dry_run": False,
    "text": "The tables went back to run-3.",
    "plan": {"runs": ["run-4", "run-5"], "clean_orders": {"from": 7, "to": 5, "rows": 1200}},
    "effect": {},
}


def test_the_page_of_an_operation_has_its_text_and_its_plan_and_no_rows() -> None:
    text = page(operation=OPERATION)
    assert "Operation rollback, by Ann" in text and "The tables went back to run-3." in text
    assert "run-4, run-5" in text and "1,200" in text
    assert "Where every row went" not in text and "rows read" not in text
    assert "Tables after the run" in text
    nested = page(operation={**OPERATION, "effect": {"tables": {"clean_orders": {"rows": -1200}}}})
    assert ">tables</th>" in nested and "-1,200" in nested
    assert "nothing was changed" in page(operation={**OPERATION, "dry_run": True})


def test_the_page_of_a_replay_has_the_account_of_its_rows() -> None:
    assert "Where every row went" in page(operation={**OPERATION, "name": "replay"})


def test_a_refused_operation_is_no_failure_of_the_job() -> None:
    failed = {**SUMMARY, "operation": OPERATION, "status": "FAILED", "error": "twin key 7"}
    text = report.render(failed, [], history(["RunOperation", "HandleOperationFailure"]), ASL, None)
    assert "Failed: the operation" in text and "twin key 7" in text
    assert "Failed: the operation" in report.render(failed, [], None, None, None)


def test_rejected_rows_and_a_failed_check_come_with_the_operation_that_helps() -> None:
    run_id = SUMMARY["run_id"]
    assert f"make operate ENV=prod ARGS=&quot;replay --run {run_id}&quot;" in page()
    assert "rollback --undo" not in page()
    text = report.render(SUMMARY, [], history([*GOOD[:-1], "HandleValidationFailure"]), ASL, None)
    assert f"python -m local rollback --undo {run_id} --dry-run" in text


def test_text_of_files_and_errors_is_never_html() -> None:
    text = page(run_id="<b>x</b>", error="bad <img src=x onerror=alert(1)>", status="FAILED")
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text
    assert "<img" not in text and "<b>x</b>" not in text
    hostile = "\"><script>alert(1)</script>'"
    for text in (
        report.render(
            {
                "run_id": hostile,
                "status": hostile,
                "error": hostile,
                "datasets": {hostile: dataset(1, inserted=1, reasons={hostile: 1})},
                "tables": {hostile: {"version": hostile, "dates": [hostile]}},
                "timings": {hostile: 1},
                "started_at": hostile,
            },
            [
                {
                    "path": hostile,
                    "outcome": hostile,
                    "reason": hostile,
                    "detail": hostile,
                    "destination": hostile,
                    "ignored_columns": [hostile],
                }
            ],
            None,
            {"StartAt": hostile, "States": {hostile: {"Type": "Succeed", "Comment": hostile}}},
            [
                {
                    "dataset": hostile,
                    "reason": hostile,
                    "file_path": hostile,
                    "line": hostile,
                    "raw": hostile,
                }
            ],
        ),
        report.render(
            {
                "operation": {
                    "name": hostile,
                    "author": hostile,
                    "text": hostile,
                    "plan": {hostile: {hostile: hostile}},
                    "effect": {hostile: [hostile], "x": [{hostile: 1}]},
                },
            },
            [],
            None,
            None,
            None,
        ),
    ):
        assert "<script" not in text


def test_the_days_that_a_run_touched_are_counted_over_all_spans() -> None:
    assert "3 days, 2025-04-01 to 2025-04-05" in page()
    one = {"clean_orders": {"version": 1, "dates": [["2025-04-01", "2025-04-01"]]}}
    assert "<td>2025-04-01</td>" in page(tables=one)


def test_files_that_cannot_be_read_are_counted_with_what_to_do() -> None:
    text = page(files={**SUMMARY["files"], "unreadable": 2})
    assert "2 unreadable" in text and "restore what lies in Glacier" in text
    assert "lies in Glacier, give" not in page()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"status": "NOTHING_NEW", "datasets": {}}, "Nothing new"),
        ({"status": "FAILED", "error": "no such bucket"}, "no such bucket"),
    ],
)
def test_other_ends_are_said(changes: dict[str, Any], words: str) -> None:
    assert words in page(**changes)


def test_a_failed_execution_is_shown_as_failed_even_where_the_job_succeeded() -> None:
    text = report.render(SUMMARY, [], history([*GOOD[:-1], "HandleArchiveFailure"]), ASL, None)
    assert "Failed: the archive" in text


def test_the_cause_of_a_failure_stands_at_the_top_of_the_page() -> None:
    text = report.render(
        report.no_summary("r"), [], history(BAD, "RunGlueJob", "ExecutionFailed"), ASL, None
    )
    head = text.split("</header>")[0]
    assert "RunGlueJob: Glue.Boom: the &lt;driver&gt; died" in head and "wrote no summary" in head
    assert "rows read" not in head


def test_a_page_can_be_made_of_almost_nothing() -> None:
    assert "wrote no summary" in report.render(report.no_summary("r"), [], None, None, None)
    assert "Unknown" in report.render({}, [], None, None, None)


def test_one_rejected_row_among_a_million_is_seen_in_the_flow() -> None:
    picture = report.flow({"orders": dataset(1_000_001, inserted=1_000_000, rejected=1)})
    assert "orders: 1 rejected" in picture and "v3.0" in picture


def test_a_history_becomes_each_states_result_seconds_and_error() -> None:
    runs = graph.runs_of(history(BAD, fail_at="RunGlueJob", end="ExecutionFailed"))
    assert runs["FindNewFiles"].status == "succeeded" and runs["FindNewFiles"].seconds == 1
    assert (
        runs["RunGlueJob"].status == "caught"
        and runs["RunGlueJob"].error == "Glue.Boom: the <driver> died"
    )
    assert runs["RunFailed"].status == "failed" and "RunFailed" in runs["RunFailed"].error


def test_a_state_entered_twice_sums_its_seconds() -> None:
    assert (
        graph.runs_of(history(["PrepareRun", "FindNewFiles", "AnyNewFiles", "FindNewFiles"]))[
            "FindNewFiles"
        ].entered
        == 2
    )


def boxes(
    layout: Any, left: float = 0, top: float = 0
) -> list[tuple[str, float, float, float, float]]:
    """Every state's name and rectangle, without the frames of parallel states."""
    found = []
    for node in layout.nodes.values():
        if not node.branches:
            found.append(
                (node.name, left + node.x - node.width / 2, top + node.y, node.width, node.height)
            )
        across = left + node.x - node.width / 2
        across += (
            node.width
            - sum(b.width for b in node.branches)
            - graph.GAP_X * (len(node.branches) - 1)
        ) / 2
        for branch in node.branches:
            found += boxes(branch, across, top + node.y + 46)
            across += branch.width + graph.GAP_X
    return found


def test_the_picture_holds_every_state_once_and_none_covers_another() -> None:
    found = boxes(graph.lay_out(ASL))
    names = [name for name, *_ in found]
    expected = [n for n, s in ASL["States"].items() if s["Type"] != "Parallel"]
    expected += [
        n for s in ASL["States"].values() for b in s.get("Branches", []) for n in b["States"]
    ]
    assert sorted(names) == sorted(expected)
    for i, (a, ax, ay, aw, ah) in enumerate(found):
        for b, bx, by, bw, bh in found[slice(i + 1, None)]:
            assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay, (
                f"{a} covers {b}"
            )


def test_no_line_passes_behind_a_state() -> None:
    layout = graph.lay_out(ASL)
    rows = {}
    for path, _, _ in layout.edges:
        for lane in path[1:-1]:
            rows.setdefault(lane.layer, {})[id(lane)] = lane
    for node in layout.nodes.values():
        for lane in rows.get(node.layer, {}).values():
            assert abs(node.x - lane.x) >= node.width / 2, f"a line passes behind {node.name}"


def test_the_executed_graph_marks_what_ran_and_what_did_not() -> None:
    svg = graph.draw(ASL, graph.runs_of(history(BAD, fail_at="RunGlueJob", end="ExecutionFailed")))
    assert (
        svg.count('class="caught"') == 1 + 1 and "the &lt;driver&gt; died" in svg
    )  # the state and the key
    assert 'class="idle"' in svg


@pytest.mark.skipif(browser() is None, reason="no Chromium here: apt-get install chromium")
def test_a_browser_shows_the_page_without_an_error(tmp_path: Path) -> None:
    file, shot = tmp_path / "report.html", tmp_path / "report.png"
    file.write_text(page(), "utf-8")
    shown = (
        "[document.querySelectorAll('section').length, "
        "[...document.querySelectorAll('svg')].every(one => one.getBBox().height > 50)]"
    )
    assert measure(file, shown) == [6, True]
    screenshot(file, shot, 1280, 1600, scale=1)
    assert (
        shot.read_bytes()[:8] == base64.b64decode("iVBORw0KGgo=") and shot.stat().st_size > 40_000
    )


@pytest.mark.skipif(browser() is None, reason="no Chromium here: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 768, 500])  # Chromium's window is never narrower than 500
def test_nobody_has_to_scroll_the_page_sideways(tmp_path: Path, width: int) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(), "utf-8")
    assert measure(file, "document.documentElement.scrollWidth - innerWidth", width) <= 0


def test_what_did_not_fail_but_should_be_looked_at_is_said_in_sentences() -> None:
    odd = dataset(read=9, superseded=9) | {"conflicting": 1200, "moved": 3}
    summary = {"datasets": {"order_items": odd}, "files": {"no_final_newline": 2}}
    said = " ".join(hints(summary))
    assert "1,200 superseded order items contradict a row of their own file" in said
    assert "3 updated order items belong to another order or product" in said
    assert "2 loaded files end without a line end" in said
    assert hints({"datasets": {"orders": dataset(read=1, inserted=1)}, "files": {}}) == []
