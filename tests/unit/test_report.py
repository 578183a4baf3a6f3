"""The page about a run says what the run did, shows nothing else, and stands on its own."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import facts
import glue_etl
import page
import words
from client import ROOT
from client.template import Template
from run_report import handler
from tests.browser import browser, measure, screenshot

ASL = json.loads((ROOT / "stepfunctions" / "delta-lake.json").read_text("utf-8"))
ARN = "arn:aws:states:eu-west-1:123456789012:execution:delta-lake:run-2025-04-16"


def dataset(
    read: int = 0, admitted: int = 0, reasons: dict[str, int] | None = None, **outcomes: int
) -> dict[str, Any]:
    """One dataset of a summary."""
    zeros = dict.fromkeys((*words.OUTCOMES, "conflicting", "moved"), 0)
    numbers = {"rows_read": read, "admitted": admitted, "rejected_by_reason": reasons or {}}
    return numbers | zeros | outcomes


def table(version: int | None, rows: int | None, **changes: Any) -> dict[str, Any]:
    """One table of a summary."""
    plain = {"schema_changed": False, "files_added": 1, "files_removed": 0, "dates": []}
    return {"version": version, "rows": rows, **plain, **changes}


def file(path: str, outcome: str = "loaded", **changes: Any) -> dict[str, Any]:
    """One line of a manifest."""
    plain = {"rows_read": 400, "size": 20_000, "destination": "archive", "reason": None}
    details = {"detail": None, "ignored_columns": [], "no_final_newline": False}
    return {"path": path, "outcome": outcome, **plain, **details, **changes}


SUMMARY: dict[str, Any] = {
    "schema_version": 1,
    "run_id": "run-2025-04-16",
    "status": "SUCCEEDED",
    "error": None,
    "started_at": "2025-04-16T10:00:00.000Z",
    "finished_at": "2025-04-16T10:00:42.500Z",
    "files": {
        "listed": 5,
        "loaded": 3,
        "duplicate": 1,
        "set_aside": 1,
        "changed": 0,
        "unreadable": 0,
        "set_aside_by_reason": {"utf16": 1},
        "no_final_newline": 0,
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
            5000, 25, {"invalid_date": 3}, inserted=4900, updated=82, rejected=3, parked=40
        ),
    },
    "tables": {
        "clean_products": table(4, 54, files_removed=1),
        "clean_orders": table(
            7,
            4180,
            schema_changed=True,
            files_added=3,
            dates=[["2025-04-01", "2025-04-02"], ["2025-04-05", "2025-04-05"]],
        ),
        "rejected_records": table(None, None),
    },
    "crawl_needed": True,
    "timings": {"list": 0.4, "read": 6.5, "merge_orders": 12.25, "write_rejects": 3.0},
    "reject_examples": [
        {
            "dataset": "orders",
            "reason": "invalid_total_amount",
            "rows": 7,
            "file_path": "orders/2025-04-01.csv",
            "line": 17,
            "raw": "17,o17,u1,2025-04-01T10:00:00,<script>alert(1)</script>,2025-04-01",
        },
        {
            "dataset": "order_items",
            "reason": "orphan_order",
            "rows": 40,
            "file_path": "order_items.csv",
            "line": 3,
            "raw": "i3,o99,u1",
        },
    ],
}
UTF16 = f"products.csv: {glue_etl.FILE_REASONS['utf16']}"
MANIFEST = [
    *(file(f"orders/2025-04-0{n}.csv", ignored_columns=["note"]) for n in (1, 2, 3)),
    file("orders/2025-04-01 copy.csv", "duplicate", rows_read=0),
    file("products.csv", "set_aside", reason="utf16", detail=UTF16, destination="rejected"),
]


def history(
    steps: list[str], fail_at: str | None = None, end: str = "ExecutionSucceeded"
) -> list[dict[str, Any]]:
    """Events of an execution that went through these states, a second each; `fail_at` had its error
    caught."""
    began = dt.datetime(2025, 4, 16, 10, tzinfo=dt.UTC)
    started = {"id": 1, "previousEventId": 0, "type": "ExecutionStarted", "timestamp": began}
    events: list[dict[str, Any]] = [started]

    def add(kind: str, **details: Any) -> None:
        seconds = len([e for e in events if e["type"].endswith("Entered")])
        place = {"id": len(events) + 1, "previousEventId": len(events), "type": kind}
        events.append(place | {"timestamp": began + dt.timedelta(seconds=seconds)} | details)

    for name in steps:
        kind = ASL["States"][name]["Type"]
        add(f"{kind}StateEntered", stateEnteredEventDetails={"name": name})
        if name == fail_at:
            error = {"error": "Glue.Boom", "cause": "the <driver> died"}
            add("TaskFailed", taskFailedEventDetails=error)
        if kind != "Fail":
            add(f"{kind}StateExited", stateExitedEventDetails={"name": name})
    failed = {"executionFailedEventDetails": {"error": "RunFailed", "cause": "see above"}}
    add(end, **(failed if end == "ExecutionFailed" else {}))
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
    "IsFailureMailed",
    "HandleGlueJobFailure",
    "RunFailed",
]
VIOLATED = [*GOOD[:-1], "ArchiveProcessedFiles", "ReadCatalog", "Parallel Athena Queries"]
OPERATION = {
    "name": "rollback",
    "author": "Ann",
    "dry_run": False,
    "text": "The tables went back to run-3.",
    "plan": {"runs": ["run-4", "run-5"], "clean_orders": {"from": 7, "to": 5, "rows": 1200}},
    "effect": {},
}


def a_run(
    summary: dict[str, Any] = SUMMARY,
    manifest: list[dict[str, Any]] = MANIFEST,
    states: list[str] = GOOD,
    **fields: Any,
) -> facts.Run:
    """The run above, or another one."""
    state_runs = facts.runs_of(history(states))
    place = {"arn": ARN, "folder": "runs/run-2025-04-16/"}
    full = {**facts.NO_SUMMARY, **summary}
    return facts.Run(
        "run-2025-04-16", full, facts.Manifest.of(manifest), state_runs, **place, **fields
    )


@pytest.fixture(autouse=True)
def lake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_BUCKET", "lake")


def shown(**changes: Any) -> str:
    """The page of the run above, with some of its summary changed."""
    return page.render(a_run(SUMMARY | changes))


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
        links = {"a": "href"}  # followed by a click, not fetched
        self.fetched += [
            str(v)
            for k, v in attrs
            if k in ("src", "href", "xlink:href", "srcset", "data") and links.get(tag) != k
        ]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing() -> None:
    checker = Checker()
    checker.feed(shown())
    assert checker.open == [] and checker.fetched == []
    assert "script" not in checker.tags and not re.search(r"@import|url\(", shown())


def test_the_page_holds_the_run_in_numbers() -> None:
    text = shown()
    for expected_text in (
        "run-2025-04-16",
        "Succeeded",
        "6,130",
        "4,900",
        "invalid_total_amount",
        "total_amount has a value that cannot be read",
        "save it as UTF-8",
        "12.2 s",
        "2025-04-16 10:00:42",
        "3 days, 2025-04-01 to 2025-04-05",
        "column ignored: note",
    ):
        assert expected_text in text, expected_text
    assert text.count("✓ balanced") == 3 and "not accounted for" not in text


def test_a_row_that_is_not_accounted_for_is_shown() -> None:
    datasets = copy.deepcopy(SUMMARY["datasets"])
    datasets["orders"]["inserted"] -= 5
    assert "✗ +5 rows not accounted for" in shown(datasets=datasets)


def test_the_page_of_an_operation_has_its_text_and_its_plan_and_no_rows() -> None:
    text = page.render(a_run(SUMMARY | {"operation": OPERATION}, []))
    assert "rollback" in text and "Ann" in text and "The tables went back to run-3." in text
    assert "run-4, run-5" in text and "1,200" in text and "plan: clean_orders: rows" in text
    assert "Where every row went" not in text and "rows read" not in text
    assert "Tables after the run" in text


def test_the_page_of_a_replay_has_the_account_of_its_rows() -> None:
    assert "Where every row went" in shown(operation={**OPERATION, "name": "replay"})


def test_a_refused_operation_is_no_failure_of_the_job() -> None:
    failed = {**SUMMARY, "operation": OPERATION, "status": "FAILED", "error": "twin key 7"}
    text = page.render(a_run(failed, states=["PrepareRun", "RunOperation", "IsFailureMailed"]))
    assert "Failed: the operation" in text and "twin key 7" in text
    assert "Failed: the operation" in page.render(a_run(failed, states=[]))


def test_rejected_rows_and_a_failed_check_come_with_the_operation_that_helps() -> None:
    run_id = SUMMARY["run_id"]
    assert f"make operate ENV=prod ARGS=&quot;replay --run {run_id}&quot;" in shown()
    assert "rollback --undo" not in shown()
    text = page.render(a_run(states=[*VIOLATED, "IsFailureMailed"]))
    assert f"python -m local rollback --undo {run_id} --dry-run" in text


def test_text_of_files_and_errors_is_never_html() -> None:
    hostile = "\"><script>alert(1)</script>'"
    example = {"dataset": hostile, "reason": hostile, "file_path": hostile, "raw": hostile}
    load = {
        "status": "SUCCEEDED",
        "error": hostile,
        "datasets": {hostile: dataset(1, inserted=1, reasons={hostile: 1})},
        "tables": {hostile: table(1, 1)},
        "timings": {hostile: 1},
        "started_at": hostile,
        "reject_examples": [{**example, "line": hostile}],
    }
    lost = file(hostile, "set_aside", reason=hostile, detail=hostile, ignored_columns=[hostile])
    operation = {
        "name": hostile,
        "author": hostile,
        "text": hostile,
        "plan": {hostile: {hostile: hostile}},
        "effect": {hostile: [hostile], "x": [{hostile: 1}]},
    }
    failure = {"Error": hostile, "Cause": hostile}
    for run in (
        a_run(load, [lost], failure=failure),
        a_run({"operation": operation}, []),
    ):
        text = page.render(run)
        assert "<script" not in text and "&lt;script&gt;" in text


@pytest.mark.parametrize(
    "changes, expected_text",
    [
        ({"status": "NOTHING_NEW"}, "Nothing new"),
        ({"status": "FAILED", "error": "no such bucket"}, "no such bucket"),
    ],
)
def test_other_ends_are_said(changes: dict[str, Any], expected_text: str) -> None:
    assert expected_text in shown(**changes)


def test_a_failed_execution_is_shown_as_failed_even_where_the_job_succeeded() -> None:
    states = [*GOOD[:-1], "ArchiveProcessedFiles", "IsFailureMailed"]
    assert "Failed: the archive" in page.render(a_run(states=states))


def test_the_cause_of_a_failure_stands_at_the_top_of_the_page() -> None:
    states = facts.runs_of(history(BAD, "RunGlueJob", "ExecutionFailed"))
    text = page.render(facts.Run("r", facts.NO_SUMMARY, states=states))
    assert text.index("RunGlueJob: Glue.Boom: the &lt;driver&gt; died") < text.index(
        "The execution"
    )
    assert "Where every row went" not in text


def test_a_page_can_be_made_of_almost_nothing() -> None:
    text = page.render(facts.Run("r", facts.NO_SUMMARY))
    assert "wrote no summary" in text and "Failed: the job" in text


def test_one_rejected_row_among_a_million_is_seen_among_the_shares() -> None:
    text = shown(datasets={"orders": dataset(1_000_001, inserted=1_000_000, rejected=1)})
    assert '<span class="rejected" style="flex-grow:1"' in text
    assert re.search(r"\.shares span \{[^}]*min-width: 3px", text)


def test_a_history_becomes_each_states_result_seconds_and_error() -> None:
    runs = facts.runs_of(history(BAD, fail_at="RunGlueJob", end="ExecutionFailed"))
    assert runs["FindNewFiles"].status == "succeeded" and runs["FindNewFiles"].seconds == 1
    assert runs["RunGlueJob"].status == "caught"
    assert runs["RunGlueJob"].error == "Glue.Boom: the <driver> died"
    assert runs["RunFailed"].status == "failed" and "RunFailed" in str(runs["RunFailed"].error)
    assert runs["FindNewFiles"].then == {"AnyNewFiles"}


def test_a_state_entered_twice_sums_its_seconds() -> None:
    steps = ["PrepareRun", "FindNewFiles", "AnyNewFiles", "FindNewFiles"]
    run = facts.runs_of(history(steps))["FindNewFiles"]
    assert (run.entered, run.seconds) == (2, 2)


@pytest.mark.parametrize("missing", range(1, 9))
def test_a_history_may_lack_its_first_events(missing: int) -> None:
    events = history(BAD, fail_at="RunGlueJob", end="ExecutionFailed")
    runs = facts.runs_of(events[missing:])
    assert runs["ReadJobError"].status == "succeeded" and runs["RunFailed"].status == "failed"


def test_a_call_that_a_retry_repaired_is_no_error() -> None:
    events = history(["FindNewFiles"], fail_at="FindNewFiles")
    repaired = {"id": 90, "previousEventId": 3, "type": "TaskSucceeded"}
    assert facts.runs_of([*events[:3], repaired, *events[3:]])["FindNewFiles"].error is None


def test_of_a_hundred_thousand_files_as_many_are_kept_as_a_page_shows() -> None:
    outcomes = ("loaded", "set_aside", "loaded", "changed")
    entries = (file(f"{n}.csv", outcomes[n % 4]) for n in range(100_000))
    manifest = facts.Manifest.of(entries)
    assert manifest.counts == {"loaded": 50_000, "set_aside": 25_000, "changed": 25_000}
    assert len(manifest.shown) == 3 * facts.FILES_SHOWN
    assert [entry["path"] for entry in manifest.shown[:4]] == ["0.csv", "1.csv", "2.csv", "3.csv"]


def test_of_an_event_only_what_is_shown_or_billed_is_kept() -> None:
    data = {"input": "x", "output": "y", "parameters": "z"}
    failed = {"resourceType": "lambda", "error": "E", "cause": "C", **data}
    assert handler.lean({"id": 1, "taskFailedEventDetails": failed}) == {
        "id": 1,
        "taskFailedEventDetails": {"resourceType": "lambda", "error": "E", "cause": "C"},
    }
    billed = {"resourceType": "athena", **data}
    assert handler.lean({"taskSucceededEventDetails": billed}) == {
        "taskSucceededEventDetails": {"resourceType": "athena", "input": "x", "output": "y"}
    }
    entered = {"stateEnteredEventDetails": {"name": "FindNewFiles", "input": "x"}}
    assert handler.lean(entered) == {"stateEnteredEventDetails": {"name": "FindNewFiles"}}


def test_the_largest_report_takes_half_of_the_functions_memory() -> None:
    """A hundred thousand files, five thousand events, and states as large as they may become."""
    size = Template.load().properties("ReportFunction")["MemorySize"]
    case = ["--case", "100000", "5000", "200"]
    finished = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.report", *case],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(finished.stdout)["megabytes"] < size / 2


def test_every_reason_has_words_and_every_file_a_remedy() -> None:
    assert words.WORDS["rows"].keys() == glue_etl.ROW_REASONS.keys()
    without = {code for code, message in glue_etl.FILE_REASONS.items() if ": " not in message}
    assert words.WORDS["files"].keys() == without - {"wrong_format"}, (
        "the job's own detail tells what to do with a format"
    )
    assert set(words.OUTCOMES) == set(glue_etl.OUTCOMES)


def test_a_step_that_fails_is_named_by_states_that_there_are() -> None:
    assert {step["from"] for step in words.STEPS.values()} <= ASL["States"].keys()
    assert facts.FAILURE in ASL["States"]


@pytest.mark.skipif(browser() is None, reason="no Chromium here: apt-get install chromium")
def test_a_browser_shows_the_page_without_an_error(tmp_path: Path) -> None:
    file, shot = tmp_path / "report.html", tmp_path / "report.png"
    file.write_text(shown(), "utf-8")
    script = (
        "[document.querySelectorAll('section').length, "
        "[...document.querySelectorAll('.shares span')].every(one => one.offsetWidth > 2)]"
    )
    assert measure(file, script) == [8, True]
    screenshot(file, shot, 1280, 1600, scale=1)
    assert shot.read_bytes()[:8] == base64.b64decode("iVBORw0KGgo=")
    assert shot.stat().st_size > 40_000


@pytest.mark.skipif(browser() is None, reason="no Chromium here: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 768, 500])  # Chromium's window is never narrower than 500
def test_nobody_has_to_scroll_the_page_sideways(tmp_path: Path, width: int) -> None:
    file = tmp_path / "report.html"
    file.write_text(shown(), "utf-8")
    assert measure(file, "document.documentElement.scrollWidth - innerWidth", width) <= 0


def test_what_did_not_fail_but_should_be_looked_at_is_said_in_sentences() -> None:
    odd = dataset(read=9, superseded=9) | {"conflicting": 1200, "moved": 3}
    summary = {"datasets": {"order_items": odd}, "files": {"no_final_newline": 2}}
    sentences = " ".join(words.hints(summary))
    assert "contradict a row of their own file with the same key and time: 1,200." in sentences
    assert "Updated order items that now belong to another order or product: 3." in sentences
    assert "Loaded files that end without a line end, like an upload that was cut: 2." in sentences
    assert words.hints({"datasets": {"orders": dataset(read=1, inserted=1)}, "files": {}}) == []


def missing(summary: dict[str, Any], files: list[dict[str, Any]]) -> list[str]:
    manifest = facts.Manifest.of(files)
    return words.missing_data(summary, manifest.order_days, manifest.full_pages)


def came(*paths: str, **changes: Any) -> list[dict[str, Any]]:
    return [{"dataset": "orders", **file(path, **changes)} for path in paths]


def test_days_without_orders_between_the_first_and_the_last_are_named() -> None:
    names = ["orders/2025-04-28.csv", "orders/orders_20250501.csv.gz", "orders/2025-04-29.csv"]
    sentences = missing({}, came(*names, "orders/1234567890.csv", "orders/2025-13-01.csv"))
    assert sentences == [
        "No orders came for 30 April 2025, between the first and the last day of this run. "
        "Is an export missing?"
    ]
    assert missing({}, came(*names, "orders/2025-04-30 again.csv")) == []
    assert missing({}, came("orders/2020-01-01.csv", "orders/2025-01-01.csv")) == []
    aside = came("orders/2025-04-27.csv", outcome="set_aside")
    assert missing({}, [*aside, *came(*names[:1])]) == []


def test_of_a_first_load_the_rows_tell_the_days_and_of_a_later_one_they_do_not() -> None:
    days = [["2025-04-01", "2025-04-02"], ["2025-04-05", "2025-04-05"]]
    summary = {
        "datasets": {"orders": dataset(9, inserted=9)},
        "tables": {"clean_orders": table(0, 9, dates=days)},
    }
    (sentence,) = missing(summary, came("orders.csv"))
    assert sentence.startswith("No orders came for 3 April 2025, 4 April 2025, between")
    summary["tables"]["clean_orders"]["rows"] = 10
    assert missing(summary, came("orders.csv")) == []


def test_orders_and_items_that_end_on_different_days_are_named() -> None:
    tables = {
        "clean_orders": table(0, 9, dates=[["2025-04-01", "2025-04-05"]]),
        "clean_orders_items": table(0, 9, dates=[["2025-04-01", "2025-04-03"]]),
    }
    assert missing({"tables": tables}, []) == [
        "The newest rows that this run wrote are orders of 5 April 2025, order items of "
        "3 April 2025. Is an export late?"
    ]
    tables["clean_orders_items"]["dates"].append(["2025-04-05", "2025-04-05"])
    assert missing({"tables": tables}, []) == []
    tables["clean_orders_items"]["dates"] = []
    assert missing({"tables": tables}, []) == []


def test_files_that_may_be_the_first_page_of_an_export_are_named_unless_that_is_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages = came(*[f"orders/p{n}.csv" for n in range(12)], rows_read=1000)
    run = a_run(manifest=[*pages, *came("orders/more.csv", rows_read=1001)])
    assert run.hints == [
        "Files of exactly 1,000 or 10,000 rows: orders/p0.csv, orders/p1.csv, orders/p2.csv, "
        "orders/p3.csv, orders/p4.csv, orders/p5.csv, orders/p6.csv, orders/p7.csv, "
        "orders/p8.csv, orders/p9.csv and 2 more. Was it only the first page of an export?"
    ]
    assert "Was it only the first page of an export?" in page.render(run)
    monkeypatch.setenv("MISSING_DATA_HINTS", "false")
    assert run.hints == []


def test_a_failed_run_has_no_hints_about_its_data() -> None:
    pages = came("orders/p.csv", rows_read=1000)
    assert a_run({**SUMMARY, "status": "FAILED"}, manifest=pages).hints == []
