"""Files: the ledger, and for one file its versions, its places and its lines."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nicegui import ui

from client.declared import DATASETS, OUTCOMES, meaning_of, table_of
from console import look, work
from console.data.files import Lines
from console.data.rejects import ANY
from console.data.source import PAGE
from console.look import Head, Row, div, span, tag
from console.operations import Refused
from console.pages import dialogs

LINES = 200  # lines shown of a file
CONTEXT = 20  # lines shown before and after the line of the address
LONG = 400  # characters shown of a line
DOWNLOAD_BYTES = 64 << 20  # size of the largest file that can be downloaded here
RUN_IDS = 5  # newest versions whose copies are searched


@dataclass(frozen=True)
class Life:
    versions: Sequence[Mapping[str, str | None]]
    places: Sequence[Mapping[str, Any]]
    undone: Sequence[Mapping[str, Any]] = ()
    lines: Lines | None = None
    reasons: Mapping[int, Sequence[str]] = field(default_factory=dict)
    why_not: str = ""  # why no operation can be started


# --------------------------------------------------------------------------------------------------
# The ledger
# --------------------------------------------------------------------------------------------------
def show_list(console: look.Console, text: str, outcome: str, offset: int) -> None:
    lake = console.lake
    with look.frame(console, "Files", "/files"):
        look.heading("Files", "Every file that a run has taken, by its path below the raw zone.")
        _find(text, outcome)
        look.later(
            console,
            lambda: (lake.files.undone(), console.operator.why_not()),
            lambda undone: _undone(console, *undone),
        )
        with look.card():
            look.later(
                console,
                lambda: lake.files.page(text, outcome, offset),
                lambda rows: _listed(rows, text, outcome, offset),
            )


def _undone(console: look.Console, lines: Sequence[Mapping[str, Any]], why_not: str) -> None:
    """Show the files whose run was undone, each with a button that loads it again."""
    if not lines:
        return
    with look.card("Undone, in the archive", "their rows were taken back with their run"):
        rows = [_undone_row(console, line, why_not) for line in lines[:PAGE]]
        heads = [Head("file", "path"), Head("", "nowrap"), Head("rows", "n"), Head("run"), Head("")]
        look.table(heads, rows, "Files whose run was undone")
        if len(lines) > PAGE:
            span(f"{len(lines) - PAGE:,} more: open the run to load all of its files", "soft")


def _undone_row(console: look.Console, line: Mapping[str, Any], why_not: str) -> Row:
    path, run_id = str(line["path"]), str(line["run_id"])
    return Row(
        (
            lambda: look.anchor(path, look.address("/file", path=path)),
            lambda: look.status("undone_file"),
            int(line.get("rows_read") or 0),
            lambda: look.run_link(run_id),
            lambda: _load_archived_button(console, path, run_id, why_not),
        )
    )


def _load_archived_button(console: look.Console, path: str, run_id: str, why_not: str) -> None:
    verb = f"Load {path} again"
    request = {"operation": "replay", "archived": {"runs": [run_id], "paths": [path]}}

    def show_plan() -> None:
        dialogs.operation(console, request, verb, verb, ui.navigate.reload)

    look.button(console, "Load again", show_plan, "history", why_not=why_not)


def _find(text: str, outcome: str) -> None:
    choices = {"": "any", "loaded": "loaded", "duplicate": "duplicate", "set_aside": "set aside"}
    with tag("form", "filters", role="search", aria_label="Which files") as form:
        field = ui.input("part of the path, or path:line", value=text).props(
            "dense outlined clearable"
        )
        field.classes("grow")
        picked = ui.select(choices, value=outcome if outcome in choices else "", label="outcome")
        picked.props("dense outlined options-dense")
        ui.button("Find", color=None).props("no-caps unelevated dense type=submit").classes("act")

    def go() -> None:
        path, _, line = str(field.value or "").strip().rpartition(":")
        if path and line.isdecimal():
            ui.navigate.to(look.address("/file", path=path, line=line))
            return
        ui.navigate.to(look.address("/files", text=field.value or "", outcome=picked.value or ""))

    form.on("submit.prevent", go)
    picked.on_value_change(go)


def _listed(rows: Sequence[Mapping[str, Any]], text: str, outcome: str, offset: int) -> None:
    if not rows:
        look.empty("No file is like this.")
        return
    heads = [
        Head("file", "path"),
        Head("", "nowrap"),
        Head("dataset", "nowrap"),
        Head("rows", "n"),
        Head("outcomes"),
        Head("size", "n"),
        Head("taken (UTC)", "nowrap"),
        Head("by run", "nowrap"),
    ]
    page = rows[:PAGE]
    look.table(heads, [_listed_row(row) for row in page], "Files, newest first")
    look.glossary("files", "outcomes")
    total = None if len(rows) > PAGE else offset + len(page)
    look.pager("/files", offset, len(page), PAGE, total, text=text, outcome=outcome)


def _listed_row(row: Mapping[str, Any]) -> Row:
    path = str(row["file_path"] or "")
    numbers = {name: int(row[name] or 0) for name in OUTCOMES}
    return Row(
        (
            lambda: look.anchor(path, look.address("/file", path=path)),
            lambda: look.status(str(row["outcome"])),
            str(row["dataset"] or "none"),
            int(row["rows_read"] or 0),
            lambda: look.outcome_bar(numbers) if any(numbers.values()) else div(),
            look.size(row["file_size"]),
            (row["ingested_at"] or "")[:19],
            lambda: look.run_link(str(row["run_id"])),
        )
    )


# --------------------------------------------------------------------------------------------------
# One file
# --------------------------------------------------------------------------------------------------
def show(console: look.Console, path: str, line: int = 1) -> None:
    line = max(line, 1)
    with look.frame(console, path or "File", "/files"):
        look.heading(path or "File", "", "mono")
        look.later(
            console,
            lambda: _read(console, path, line),
            lambda life: _life(console, life, path, line),
        )


def _read(console: look.Console, path: str, line: int) -> Life:
    files, rejects = console.lake.files, console.lake.rejects
    versions = files.versions(path)
    taken_back = [entry for entry in files.of_undone_runs() if entry["path"] == path]
    undone = [entry for entry in taken_back if entry["outcome"] == "loaded"]
    runs = [version["run_id"] or "" for version in versions[:RUN_IDS]]
    places = files.places(path, [*runs, *(entry["run_id"] for entry in taken_back)])
    why_not = console.operator.why_not()
    if not places:
        return Life(versions, places, undone, why_not=why_not)
    first = places[0]
    last = line + CONTEXT if line > 1 else LINES
    lines = files.lines(first["bucket"], first["key"], last, 2 * CONTEXT + 1 if line > 1 else LINES)
    digest = digest_at(first, versions)
    reasons = rejects.of_file(path, digest, lines.first, last) if digest else {}
    return Life(versions, places, undone, lines, reasons, why_not)


def digest_at(place: Mapping[str, Any], versions: Sequence[Mapping[str, str | None]]) -> str:
    """Return the digest of the version at a place; empty if no run has taken it.

    A place in the archive names its run. In the raw zone, size and time identify the version.
    """
    modified = place["modified"].astimezone(dt.UTC).isoformat(" ")[:19]
    for version in versions:
        delivered = (version["file_size"], (version["file_modified"] or "")[:19])
        in_raw = not place["run_id"] and delivered == (str(place["size"]), modified)
        if in_raw or version["run_id"] == place["run_id"]:
            return version["file_digest"] or ""
    return ""


def _life(console: look.Console, life: Life, path: str, line: int) -> None:
    if not life.versions and not life.places:
        look.empty("No run has taken a file of this path, and none lies in the raw zone.")
        return
    _undone(console, life.undone, life.why_not)
    with look.card("Its versions", "a version is path, content and size"):
        _versions(life.versions)
    with look.card("Where it is now"):
        _places(console, life.places)
    if life.lines and life.lines.texts:
        last = life.lines.first + len(life.lines.texts) - 1
        note = f"lines {life.lines.first:,} to {last:,}; rows that were not taken are marked"
        with look.card("What is in it", note):
            _expected(life.versions)
            with div("acts pager"):
                _turn(path, life.lines, last)
                look.anchor(
                    "all its rejected rows", look.address("/rejects", file=path, status=ANY)
                )
            if line > last:
                look.problem(f"The file ends with line {last:,}; line {line:,} is not in it.")
            _lines(life.lines, life.reasons, line)
    if life.lines and life.lines.trouble:
        look.problem(life.lines.trouble)


def _expected(versions: Sequence[Mapping[str, str | None]]) -> None:
    """Show the columns that a file should have, if its newest version was set aside."""
    newest = versions[0] if versions else {}
    if newest.get("outcome") == "set_aside" and newest.get("dataset") in DATASETS:
        columns = ", ".join(table_of(str(newest["dataset"])).column_names)
        tag("p", "soft", f"A file of {newest['dataset']} has the columns {columns}.")


def _turn(path: str, lines: Lines, last: int) -> None:
    """Show links to the previous and the next lines."""
    if lines.first > 1:
        before = max(lines.first - CONTEXT - 1, 1)
        look.anchor("← earlier lines", look.address("/file", path=path, line=before))
    if lines.has_next:
        look.anchor("later lines →", look.address("/file", path=path, line=last + CONTEXT))


def _versions(versions: Sequence[Mapping[str, str | None]]) -> None:
    if not versions:
        look.empty("No run has taken it, or the run was undone.")
        return
    heads = [
        Head("taken (UTC)", "nowrap"),
        Head("run", "nowrap"),
        Head("", "nowrap"),
        Head("rows", "n"),
        *(Head(name, "n") for name in OUTCOMES),
        Head("reason", "path"),
    ]
    rows = [_version_row(version) for version in versions]
    look.table(heads, rows, "The versions of this file, newest first")


def _version_row(version: Mapping[str, str | None]) -> Row:
    return Row(
        (
            (version["ingested_at"] or "")[:19],
            lambda: look.run_link(str(version["run_id"])),
            lambda: look.status(str(version["outcome"])),
            int(version["rows_read"] or 0),
            *(int(version[name] or 0) for name in OUTCOMES),
            f"{version['reason']}: {meaning_of(version['reason'])}" if version["reason"] else "",
        )
    )


def _places(console: look.Console, places: Sequence[Mapping[str, Any]]) -> None:
    if not places:
        look.empty("Neither in the raw zone nor in an archive of its last runs.")
        return
    heads = [
        Head("", "nowrap"),
        Head("address", "path"),
        Head("size", "n"),
        Head("modified", "nowrap"),
        Head("", "nowrap"),
    ]
    rows = [_place_row(console, place) for place in places]
    look.table(heads, rows, "Where the file is")


def _place_row(console: look.Console, place: Mapping[str, Any]) -> Row:
    def button() -> None:
        if place["size"] <= DOWNLOAD_BYTES:
            look.button(console, "Download", partial(_download, console, place), "download")

    return Row(
        (
            lambda: look.status(place["kind"]),
            f"s3://{place['bucket']}/{place['key']}",
            look.size(place["size"]),
            look.clock(place["modified"]),
            button,
        )
    )


async def _download(console: look.Console, place: Mapping[str, Any]) -> None:
    """Download a copy of the file as it is; another program may have moved it meanwhile."""
    bucket, key = place["bucket"], place["key"]
    content = await work.beside(console, console.lake.object, bucket, key, DOWNLOAD_BYTES)
    if content is None:
        raise Refused(f"s3://{bucket}/{key} is not there any more: reload the page")
    ui.download.content(content, key.rpartition("/")[2])


def _lines(lines: Lines, reasons: Mapping[int, Sequence[str]], asked_line: int) -> None:
    with div("lines", tabindex="0", role="region", aria_label="The lines of the file"):
        for at, text in enumerate(lines.texts, lines.first):
            why = reasons.get(at, ())
            marks = [
                name for name, holds in (("out", why), ("asked", at == asked_line > 1)) if holds
            ]
            with div(" ".join(marks)):
                span(f"{at}", "no")
                span(text[:LONG] + ("…" if len(text) > LONG else "") or "\u00a0")
                if why:
                    span(", ".join(why), "why")
