"""Files: the ledger, and one file's life: its versions, where it is, its lines."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from console import look
from console.data import ANY, OUTCOMES, PAGE, meaning_of
from console.look import Head, Row, div, span, tag

LINES = 200  # shown of a file
CONTEXT = 20  # of them before the line that is asked for
LONG = 400  # characters shown of a line
RUN_IDS = 5  # of the newest versions, whose copies are looked for


@dataclass(frozen=True)
class Life:
    versions: Sequence[Mapping[str, str | None]]
    places: Sequence[Mapping[str, Any]]
    lines: Sequence[str]
    reasons: Mapping[int, Sequence[str]]


# --------------------------------------------------------------------------------------------------
# The ledger
# --------------------------------------------------------------------------------------------------
def show_list(console: look.Console, text: str, outcome: str, offset: int) -> None:
    lake = console.lake
    with look.frame(console, "Files", "/files"):
        look.heading("Files", "Every file that a run has taken, by its path below the raw zone.")
        _find(text, outcome)
        with look.card():
            look.later(
                lambda: lake.files(text, outcome, offset),
                lambda found: _listed(found, text, outcome, offset),
            )


def _find(text: str, outcome: str) -> None:
    choices = {"": "any", "loaded": "loaded", "duplicate": "duplicate", "set_aside": "set aside"}
    with tag("form", "filters", role="search", aria_label="Which files") as form:
        field = ui.input("part of the path", value=text).props("dense outlined clearable")
        field.classes("grow")
        picked = ui.select(choices, value=outcome if outcome in choices else "", label="outcome")
        picked.props("dense outlined options-dense")
        ui.button("Find", color=None).props("no-caps unelevated dense type=submit").classes("act")

    def go() -> None:
        ui.navigate.to(look.address("/files", text=field.value or "", outcome=picked.value or ""))

    form.on("submit.prevent", go)
    picked.on_value_change(go)


def _listed(found: Sequence[Mapping[str, Any]], text: str, outcome: str, offset: int) -> None:
    if not found:
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
    page = found[:PAGE]
    look.table(heads, [_listed_row(one) for one in page], "Files, newest first")
    total = None if len(found) > PAGE else offset + len(page)
    look.pager("/files", offset, len(page), PAGE, total, text=text, outcome=outcome)


def _listed_row(one: Mapping[str, Any]) -> Row:
    path = str(one["file_path"] or "")
    numbers = {name: int(one[name] or 0) for name in OUTCOMES}
    return Row(
        (
            lambda: look.anchor(path, look.address("/file", path=path)),
            lambda: look.status(str(one["outcome"])),
            str(one["dataset"] or "none"),
            int(one["rows_read"] or 0),
            lambda: look.outcome_bar(numbers) if any(numbers.values()) else div(),
            look.size(one["file_size"]),
            (one["ingested_at"] or "")[:19],
            lambda: look.run_link(str(one["run_id"])),
        )
    )


# --------------------------------------------------------------------------------------------------
# One file
# --------------------------------------------------------------------------------------------------
def show(console: look.Console, path: str, line: int = 1) -> None:
    lake = console.lake

    def read() -> Life:
        versions = lake.file_versions(path)
        runs = [one["run_id"] or "" for one in versions[:RUN_IDS]]
        places = lake.places_of(path, runs)
        if not places:
            return Life(versions, places, [], {})
        first = places[0]
        lines = lake.preview(first["bucket"], first["key"])
        digest = digest_at(first, versions)
        return Life(versions, places, lines, lake.rejected_lines(path, digest) if digest else {})

    with look.frame(console, path or "File", "/files"):
        look.heading(path or "File", "", "mono")
        look.later(read, lambda life: _life(life, path, line))


def digest_at(place: Mapping[str, Any], versions: Sequence[Mapping[str, str | None]]) -> str:
    """Return the digest of the version that lies at a place; empty if no run has taken it.

    A place in the archive is that of a run. In the raw zone only size and time tell the version.
    """
    modified = place["modified"].astimezone(dt.UTC).isoformat(" ")[:19]
    for version in versions:
        delivered = (version["file_size"], (version["file_modified"] or "")[:19])
        in_raw = not place["run_id"] and delivered == (str(place["size"]), modified)
        if in_raw or version["run_id"] == place["run_id"]:
            return version["file_digest"] or ""
    return ""


def _life(life: Life, path: str, line: int) -> None:
    if not life.versions and not life.places:
        look.empty("No run has taken a file of this path, and none lies in the raw zone.")
        return
    with look.card("Its versions", "a version is path, content and size"):
        _versions(life.versions)
    with look.card("Where it is now"):
        _places(life.places)
    if life.lines:
        first = max(min(line - CONTEXT, len(life.lines) - LINES), 1)
        last = min(first + LINES - 1, len(life.lines))
        note = f"lines {first:,} to {last:,}; rows that were not taken are marked"
        with look.card("What is in it", note):
            look.anchor("all its rejected rows", look.address("/rejects", file=path, status=ANY))
            _lines(life, first, last)


def _versions(versions: Sequence[Mapping[str, str | None]]) -> None:
    if not versions:
        look.empty("No run has taken it yet.")
        return
    heads = [
        Head("taken (UTC)", "nowrap"),
        Head("run", "nowrap"),
        Head("", "nowrap"),
        Head("rows", "n"),
        *(Head(name, "n") for name in OUTCOMES),
        Head("reason", "path"),
    ]
    rows = [_version_row(one) for one in versions]
    look.table(heads, rows, "The versions of this file, newest first")


def _version_row(one: Mapping[str, str | None]) -> Row:
    return Row(
        (
            (one["ingested_at"] or "")[:19],
            lambda: look.run_link(str(one["run_id"])),
            lambda: look.status(str(one["outcome"])),
            int(one["rows_read"] or 0),
            *(int(one[name] or 0) for name in OUTCOMES),
            f"{one['reason']}: {meaning_of(one['reason'])}" if one["reason"] else "",
        )
    )


def _places(places: Sequence[Mapping[str, Any]]) -> None:
    if not places:
        look.empty("Neither in the raw zone nor in an archive of its last runs.")
        return
    heads = [
        Head("", "nowrap"),
        Head("address", "path"),
        Head("size", "n"),
        Head("modified", "nowrap"),
    ]
    rows = [_place_row(one) for one in places]
    look.table(heads, rows, "Where the file is")


def _place_row(one: Mapping[str, Any]) -> Row:
    return Row(
        (
            lambda: look.status(one["kind"]),
            f"s3://{one['bucket']}/{one['key']}",
            look.size(one["size"]),
            look.clock(one["modified"]),
        )
    )


def _lines(life: Life, first: int, last: int) -> None:
    with div("lines", tabindex="0", role="region", aria_label="The lines of the file"):
        for at in range(first, last + 1):
            line, reasons = life.lines[at - 1], life.reasons.get(at, ())
            with div("out" if reasons else ""):
                span(f"{at}", "no")
                span(line[:LONG] + ("…" if len(line) > LONG else "") or "\u00a0")
                if reasons:
                    span(", ".join(reasons), "why")
