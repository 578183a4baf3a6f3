"""The mail about a run: a subject of one ASCII line, and a text within what a state may hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import Template
from typing import Any

import cost
from facts import Run
from words import OUTCOMES, STEPS, WORDS, file_reason, plural, row_reason, template

SUBJECT_CHARACTERS = 99  # SNS wants fewer than 100, of printable ASCII
TEXT_BYTES = 16_000  # the state holds the summary too, and 256 KiB are the limit
REASONS, FILES = 5, 10
ROW_HEADS = ("dataset", "read", *OUTCOMES[:-1], "waiting")
TABLE_HEADS = ("table", "version", "rows", "files written", "files removed")


def compose(run: Run) -> dict[str, Any]:
    """Return subject and text, and the failure as it came."""
    text = template("mail.txt").substitute(
        sentence=_failed(run) if run.step else _succeeded(run),
        rows=_rows(run),
        reasons=_reasons(run),
        files=_files(run),
        hints="\n".join(run.hints),
        tables=_tables(run),
        cost=cost.line(run.spent),
        **run.places,
    )
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    line = re.sub(r"[^ -~]+", "?", _subject(run))[:SUBJECT_CHARACTERS]
    return {"subject": line, "text": _cut(text), "failure": run.failure}


def _subject(run: Run) -> str:
    name = run.operation.get("name")
    if run.step:
        return f"{STEPS[run.step]['subject']}: {name or run.run_id}"
    if name:
        return f"Delta Lake Operation Succeed: {name}" + " (dry run)" * run.operation["dry_run"]
    read = run.total("rows_read")
    counts = [f"{plural(read, 'row')} read"] if read else []
    for key, word in (("rejected", "rejected"), ("parked", "waiting")):
        counts += [f"{run.total(key):,} {word}"] if run.total(key) else []
    counts = counts or ["no rows read"]
    for key, word in (("set_aside", "set aside"), ("unreadable", "unreadable")):
        files = run.summary["files"].get(key)
        counts += [f"{plural(files, 'file')} {word}"] if files else []
    return f"Delta Lake Run Succeed: {', '.join(counts)}"


def _cut(text: str) -> str:
    """Return the text within its bytes; the links at its end stay."""
    if len(text.encode()) <= TEXT_BYTES:
        return text
    head, _, links = text.rpartition("\n\n")
    links = f"\n(The report has the rest.)\n\n{links}"
    room = max(TEXT_BYTES - len(links.encode()), 0)
    return head.encode()[:room].decode("utf-8", "ignore").rpartition("\n")[0] + links


def _failed(run: Run) -> str:
    """Return which step failed, why, and what to do."""
    values = {"run_id": run.run_id, "cause": run.short_cause, "to_do": run.to_do}
    return template("mail_failed.txt").substitute({**STEPS[run.step], **values})


def _succeeded(run: Run) -> str:
    """Return what happened in a sentence; an operation has its own."""
    if run.operation:
        name = "dry_run" if run.operation["dry_run"] else run.operation["name"]
        text = WORDS["operations"][name]
        author = WORDS["authors"].get(run.operation["author"], run.operation["author"])
        return Template(text).substitute(run.operation, author=author, run_id=run.run_id)
    files = [(run.summary["files"].get(name), text) for name, text in WORDS["file_counts"].items()]
    parts = [
        Template(text).substitute(files=plural(count, "file")) for count, text in files if count
    ]
    counts = [f"{run.total(name):,} {name}" for name in OUTCOMES if run.total(name)]
    rows = f" Rows: {', '.join(counts)}.".replace(" parked", " waiting") if counts else ""
    return f"Run {run.run_id} succeeded: {', '.join(parts) or 'no file was new'}.{rows}"


def _rows(run: Run) -> str:
    """Return the account of the rows, a line for each dataset, and what it does not say."""
    if not run.total("rows_read") + run.total("admitted"):
        return ""
    rows = [
        (dataset.replace("_", " "), *(counts[name] for name in ("rows_read", *OUTCOMES)))
        for dataset, counts in run.datasets.items()
    ]
    counts = [(run.total(name), text) for name, text in WORDS["notes"].items()]
    notes = [Template(text).substitute(count=f"{count:,}") for count, text in counts if count]
    return "\n".join([_table([ROW_HEADS, *rows]), *notes])


def _table(rows: Sequence[Sequence[str | int]]) -> str:
    """Return text in columns: names to the left, numbers to the right."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    first, *number_widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ([row[0].ljust(first), *map(str.rjust, row[1:], number_widths)] for row in cells)
    return "\n".join(map("  ".join, lines))


def _reasons(run: Run) -> str:
    """Return the commonest reasons, each with its count and the place of a row."""
    if not run.reasons:
        return ""
    places = {
        (row["dataset"], row["reason"]): f" (first: {row['file_path']}, line {row['line']})"
        for row in run.summary["reject_examples"]
    }
    lines = [
        f"  {rows:,} {name.replace('_', ' ')}: {row_reason(code)}{places.get((name, code), '')}"
        for rows, name, code in run.reasons[:REASONS]
    ]
    command = run.command(f"replay --run {run.run_id}")
    csv = run.command(f"rejects --csv --run {run.run_id}")
    text = template("mail_reasons.txt")
    return text.substitute(lines="\n".join(lines), csv=csv, command=command)


def _files(run: Run) -> str:
    """Return the files that were not loaded: why, and what to do."""
    good = ("loaded", "duplicate")
    odd = [file for file in run.manifest.shown if file["outcome"] not in good]
    if not odd:
        return ""
    lines = [f"  {file['path']}: {file_reason(file)}" for file in odd[:FILES]]
    count = sum(number for name, number in run.manifest.counts.items() if name not in good)
    if count > FILES:
        lines.append(f"  and {plural(count - FILES, 'more file')}, which the report names")
    return template("mail_files.txt").substitute(run.places, lines="\n".join(lines))


def _tables(run: Run) -> str:
    """Return the tables after an operation."""
    measures = ("version", "rows", "files_added", "files_removed")
    tables = run.summary["tables"] if run.operation else {}
    rows = [(name, *map(table.get, measures)) for name, table in tables.items() if table["rows"]]
    return _table([TABLE_HEADS, *rows]) if rows else ""
