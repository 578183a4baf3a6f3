"""The mail about a run: what happened in words, within the limits of SNS and of a state."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

import mail
import words
from client import ROOT
from client.template import Template
from tests.unit.test_report import MANIFEST, OPERATION, SUMMARY, VIOLATED, a_run, dataset, file

NESTED = json.dumps({"Error": "X", "Cause": json.dumps({"ErrorMessage": "no table"})})


@pytest.fixture(autouse=True)
def lake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_BUCKET", "lake")


def mailed(**changes: Any) -> str:
    """The text of the mail of the sample run, with some of its summary changed."""
    return mail.compose(a_run(SUMMARY | changes))["text"]


def test_the_first_sentence_and_the_subject_say_what_happened() -> None:
    composed = mail.compose(a_run())
    assert composed["subject"] == (
        "Delta Lake Run Succeed: 6,260 rows read, 11 rejected, 40 waiting, 1 file set aside"
    )
    assert composed["text"].splitlines()[0] == (
        "Run run-2025-04-16 succeeded: 3 files loaded, 1 file delivered before, 1 file set aside. "
        "Rows: 6,130 inserted, 86 updated, 6 unchanged, 12 superseded, 11 rejected, 40 waiting."
    )


def test_a_table_accounts_for_the_rows_of_each_dataset() -> None:
    assert (
        "dataset       read  inserted  updated  unchanged  superseded  rejected  waiting\n"
        "products        60        50        4          6           0         0        0\n"
        "orders       1,200     1,180        0          0          12         8        0\n"
        "order items  5,000     4,900       82          0           0         3       40\n"
        "Rows of earlier runs that no longer wait for an order or a product: 25.\n"
    ) in mailed()


def test_the_commonest_reasons_come_in_words_with_their_count_and_a_place() -> None:
    reasons = {f"invalid_{name}": 10 - at for at, name in enumerate("abcdefg")}
    text = mailed(datasets={"orders": dataset(60, inserted=11, rejected=49, reasons=reasons)})
    assert re.findall(r"^  (\d+) orders: (\w)", text, re.M) == [
        ("10", "a"),
        ("9", "b"),
        ("8", "c"),
        ("7", "d"),
        ("6", "e"),
    ]
    first = (
        "  7 orders: total_amount has a value that cannot be read (first: orders/2025-04-01.csv, "
    )
    assert first + "line 17)\n  3 order items: date has" in mailed()
    assert 'make operate ENV=prod ARGS="replay --run run-2025-04-16"' in mailed()
    assert "python -m local rejects --csv --run run-2025-04-16" in mailed()


def test_files_that_were_not_loaded_come_with_why_and_what_to_do() -> None:
    assert "  products.csv: the file is UTF-16 or UTF-32: save it as UTF-8\n" in mailed()
    folder = Template.load().properties("ArchiveFunction")["Environment"]["Variables"]
    prefix = folder["REJECTED_FILES_PREFIX"]
    assert f"are now in s3://lake/{prefix}run=run-2025-04-16/" in mailed()
    many = [file(f"x{n}.csv", "set_aside", reason="empty_file", detail="empty") for n in range(12)]
    lost = file("lost.csv", "unreadable", detail="lost.csv: AccessDenied; allow the job to read it")
    text = mail.compose(a_run(manifest=[lost, *many]))["text"]
    assert "  lost.csv: AccessDenied; allow the job to read it\n" in text
    assert "  x1.csv: empty. To do: export it again\n" in text
    assert "  and 3 more files, which the report names\n" in text


def test_hints_cost_and_links_are_in_it() -> None:
    text = mailed(files={**SUMMARY["files"], "no_final_newline": 2})
    assert "Loaded files that end without a line end, like an upload that was cut: 2." in text
    assert "Cost: not known" in text and "s3://lake/runs/run-2025-04-16/report.html" in text
    assert "https://eu-west-1.console.aws.amazon.com/states/home?region=eu-west-1#/v2/" in text


def test_a_run_without_new_rows_says_so() -> None:
    zeros = {name: dataset() for name in SUMMARY["datasets"]}
    nothing = {"status": "NOTHING_NEW", "files": {"duplicate": 2}, "datasets": zeros, "tables": {}}
    composed = mail.compose(a_run(SUMMARY | nothing | {"reject_examples": []}, MANIFEST[3:4]))
    assert composed["subject"] == "Delta Lake Run Succeed: no rows read"
    assert composed["text"].startswith(
        "Run run-2025-04-16 succeeded: 2 files delivered before.\n\nCost"
    )


@pytest.mark.parametrize(
    "states, subject, what",
    [
        (["PrepareRun", "RunGlueJob"], "ETL Job Failure Alert", "did not load the new files"),
        (["PrepareRun", "RunOperation"], "Operation Failure Alert", "the operation was refused"),
        (VIOLATED[:-2], "Archive Failure Alert", "not every file is archived"),
        (VIOLATED[:-1], "Crawler Failure Alert", "the catalog could not be updated"),
        (VIOLATED, "Validation Failure Alert", "a check of the tables in Athena"),
    ],
)
def test_a_failed_run_names_step_cause_and_remedy(
    states: list[str], subject: str, what: str
) -> None:
    failure = {"Error": "SomeError", "Cause": "the disk is full"}
    composed = mail.compose(a_run(states=[*states, "IsFailureMailed"], failure=failure))
    assert composed["subject"] == f"{subject}: run-2025-04-16"
    first, _, cause, _, remedy, *_ = composed["text"].splitlines()
    assert first.startswith("Run run-2025-04-16 failed: ") and what in first
    assert cause == "the disk is full" and remedy.startswith("What to do: ")
    assert ("rollback --undo" in composed["text"]) == (subject == "Validation Failure Alert")
    assert composed["failure"] == failure, "for the page, which is written later"


def test_the_jobs_own_words_are_the_cause() -> None:
    failed = {"status": "FAILED", "error": "3 rows in the file, 2 accounted for", "tables": {}}
    failure = {"Error": "States.TaskFailed", "Cause": "exit code 1"}
    text = mail.compose(a_run(SUMMARY | failed, failure=failure))["text"]
    assert text.splitlines()[2] == "3 rows in the file, 2 accounted for"
    assert "inserted" not in text, "what a failed job has counted is in no table"


@pytest.mark.parametrize(
    "cause, message",
    [
        ("plain [words] {here}", "plain [words] {here}"),
        ('{"errorMessage": "AccessDenied", "errorType": "X", "stackTrace": ["a"]}', "AccessDenied"),
        (
            '{"Id": "jr_1", "JobRunState": "TIMEOUT", "ErrorMessage": "too long", "Arguments": {}}',
            "The Glue run jr_1 ended as TIMEOUT: too long",
        ),
        ('not moved: ["a: denied","b: denied"]', "not moved: a: denied; b: denied"),
        (f"orders unknown ({NESTED})", "orders unknown (no table)"),
        ('ended: {"Status": "FAILED", "Tries": 2}', "ended: Status FAILED, Tries 2"),
    ],
)
def test_a_cause_has_no_json(cause: str, message: str) -> None:
    assert words.in_words(cause) == message


@pytest.mark.parametrize("name", ["sql", "rollback", "replay", "rebuild", "optimize", "vacuum"])
def test_each_operation_has_a_sentence_and_the_tables_after_it(name: str) -> None:
    operation = {**OPERATION, "name": name, "text": "It is done."}
    composed = mail.compose(a_run(SUMMARY | {"operation": operation}, []))
    assert composed["subject"] == f"Delta Lake Operation Succeed: {name}"
    first, second = composed["text"].splitlines()[:2]
    assert first == words.WORDS["operations"][name].splitlines()[0].replace(
        "$run_id", "run-2025-04-16"
    ).replace("$author", "Ann")
    assert second == "It is done."
    assert "clean_orders          7  4,180              3              0" in composed["text"]
    assert ("dataset" in composed["text"]) == (name in ("replay", "rebuild"))


def test_a_dry_run_and_the_weekly_maintenance_are_told_apart() -> None:
    dry = {**OPERATION, "name": "vacuum", "dry_run": True}
    composed = mail.compose(a_run(SUMMARY | {"operation": dry, "tables": {}}, []))
    assert composed["subject"] == "Delta Lake Operation Succeed: vacuum (dry run)"
    assert "Dry run of vacuum by Ann; nothing was changed.\n" in composed["text"]
    weekly = {**OPERATION, "name": "optimize", "author": "schedule"}
    text = mailed(operation=weekly)
    assert "The weekly maintenance compacted small files" in text


def test_the_subject_is_one_short_line_of_ascii() -> None:
    named = dataclasses.replace(a_run({}, [], []), run_id="größe\nx" * 40)
    subject = mail.compose(named)["subject"]
    assert len(subject) == 99 and re.fullmatch(r"[ -~]+", subject)


def test_a_very_long_mail_is_cut_before_its_links() -> None:
    files = [file("ä" * 5_000 + f"{n}.csv", "set_aside", reason="x", detail="y") for n in range(9)]
    text = mail.compose(a_run(manifest=files))["text"]
    assert len(text.encode()) <= 16_000 and "(The report has the rest.)" in text
    assert text.splitlines()[0].startswith("Run ") and "s3://lake/runs/" in text


def test_the_runbook_has_every_subject() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    plain = re.findall(
        r'"subject": "([^"]+)"', (ROOT / "stepfunctions" / "delta-lake.json").read_text("utf-8")
    )
    good = [mail.compose(a_run())["subject"].partition(":")[0], "Delta Lake Operation Succeed"]
    subjects = {*plain, *good, *(step["subject"] for step in words.STEPS.values())}
    assert len(plain) == 2
    assert subjects <= set(re.findall(r"^\| ([^|*]+?) \|", runbook, re.M))
