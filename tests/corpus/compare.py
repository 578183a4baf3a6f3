"""Compares what became of the corpus with what its cases say.

The caller says where the results come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.corpus.cases import CASES, Case


@dataclass(frozen=True)
class RejectedRow:
    """A row of rejected_records."""

    path: str
    line: int
    status: str
    reasons: tuple[str, ...]
    raw: str


@dataclass
class Results:
    """manifest: path -> an entry as in manifest.jsonl; tables: dataset -> key -> column ->
    value."""

    manifest: dict[str, dict[str, Any]]
    tables: dict[str, dict[str, dict[str, Any]]]
    rejected: list[RejectedRow] = field(default_factory=list)


def differences(case: Case, results: Results) -> list[str]:
    """Where the results differ from the case, a sentence each; empty if they agree."""
    entry = results.manifest.get(case.path)
    if case.outcome == "unmentioned":
        return [] if entry is None else [f"{case.path} is in the manifest"]
    if entry is None:
        return [f"{case.path} is not in the manifest"]
    expected = {
        "outcome": case.outcome,
        "reason": case.reason,
        "rows_read": case.rows_read,
        "ignored_columns": list(case.ignored_columns),
    }
    actual = {
        "outcome": entry["outcome"],
        "reason": entry["reason"],
        "rows_read": entry["rows_read"] or 0,
        "ignored_columns": list(entry["ignored_columns"] or []),
    }
    sentences = [
        f"{name}: expected {expected[name]!r}, found {actual[name]!r}"
        for name in expected
        if actual[name] != expected[name]
    ]
    return sentences + _rows_not_as_stored(case, results) + _rows_not_as_rejected(case, results)


def _rows_not_as_stored(case: Case, results: Results) -> list[str]:
    sentences = []
    for key, columns in case.stored.items():
        row = results.tables[case.dataset].get(key)
        if row is None:
            sentences.append(f"{case.dataset} {key!r} is not stored")
            continue
        sentences += [
            f"{case.dataset} {key!r}: {column} is {row[column]!r}, expected {value!r}"
            for column, value in columns.items()
            if repr(row[column]) != repr(value)
        ]
    return sentences


def _rows_not_as_rejected(case: Case, results: Results) -> list[str]:
    mine = [row for row in results.rejected if row.path == case.path]
    sentences = [
        f"line {row.line} appears more than once"
        for row in mine
        if [other.line for other in mine].count(row.line) > 1
    ]
    for status, reasons in (("rejected", case.rejected), ("parked", case.parked)):
        rows = {row.line: row for row in mine if row.status == status}
        for line in sorted(reasons.keys() | rows.keys()):
            codes = set(rows[line].reasons) if line in rows else None
            expected = set(reasons[line].split()) if line in reasons else None
            if codes != expected:
                sentences.append(f"line {line}: expected {status} {expected}, found {codes}")
    raw_lines = {row.line: row.raw for row in mine}
    return sentences + [
        f"line {line}: kept {raw_lines.get(line)!r}, expected {raw!r}"
        for line, raw in case.raw.items()
        if raw_lines.get(line) != raw
    ]


def rows_of_no_case(results: Results, cases: Iterable[Case] = CASES) -> list[str]:
    """Rows in the tables, and lines of the manifest, that no case speaks of."""
    cases = list(cases)
    sentences = [
        f"{path} is in the manifest"
        for path in sorted(results.manifest.keys() - {case.path for case in cases})
    ]
    for dataset, rows in results.tables.items():
        expected_keys = {key for case in cases if case.dataset == dataset for key in case.stored}
        sentences += [f"{dataset} {key!r} is stored" for key in sorted(rows.keys() - expected_keys)]
    return sentences
