"""The page about a run: one HTML file that needs nothing else, filled in from templates/.

SECTIONS names a function that yields the rows of each section, as values of <name>_row.html. A
section that has rows is shown. Values are escaped, but what is Html already.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

import cost
from facts import FILES_SHOWN, Run, seconds_text
from words import OUTCOMES, STEPS, WORDS, file_reason, plural, row_reason, template

TIMES = ("started_at", "finished_at")
ODD_FILES_FIRST = ("unreadable", "set_aside", "changed", "duplicate", "loaded")
Rows = Iterator[Mapping[str, object]]


class Html(str):
    """Text that is HTML already."""


def fill(name: str, values: Mapping[str, object]) -> Html:
    """Return a template with its values."""
    return Html(template(name).substitute({key: _html(value) for key, value in values.items()}))


def _html(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, Html) else escape("" if value is None else str(value))


def each(name: str, rows: Iterable[Mapping[str, object]]) -> Html:
    """Return a template for each row of values."""
    return Html("".join(fill(name, row) for row in rows))


def _word(name: str) -> str:
    return "waiting" if name == "parked" else name.replace("_", " ")


def render(run: Run) -> str:
    """Return the page."""
    began, ended = (run.summary[name][:19].replace("T", " ") for name in TIMES)
    values = {
        "style": Html(template("page.css").template),
        **run.places,
        "color": "bad" if run.step else "good",
        "status": f"Failed: {STEPS[run.step]['name']}" if run.step else run.status,
        "times": f"{began} to {ended} UTC" if began else "",
        "cost": cost.line(run.spent),
        "hints": "\n".join(run.hints),
        "csv": run.command(f"rejects --csv --run {run.run_id}"),
        "replay": run.command(f"replay --run {run.run_id}"),
    }
    sections = ((name, each(f"{name}_row.html", rows(run))) for name, rows in SECTIONS.items())
    shown = (fill(f"{name}.html", {**values, "rows": rows}) for name, rows in sections if rows)
    return fill("page.html", {**values, "sections": Html("".join(shown))})


def _failure(run: Run) -> Rows:
    if run.step:
        yield {"cause": run.cause, "to_do": run.to_do}


def _operation(run: Run) -> Rows:
    for name, value in _flat(run.operation):
        yield {"name": name, "value": value}


def _flat(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    """Yield each fact of nested objects with the names that lead to it."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{above}{name}: ")
        elif isinstance(inner, list) and all(isinstance(element, str) for element in inner):
            yield above + name, ", ".join(inner)
        else:
            plain = isinstance(inner, (str, int)) and not isinstance(inner, bool)
            yield above + name, inner if plain else json.dumps(inner)


def _figures(run: Run) -> Rows:
    if not run.datasets:
        return
    for name in ("listed", *reversed(ODD_FILES_FIRST)) if run.manifest.counts else ():
        count = run.summary["files"].get(name, 0)
        yield {"name": "files", "count": count, "word": f"files {_word(name)}", "meaning": ""}
    for name, meaning in WORDS["outcomes"].items():
        yield {"name": name, "count": run.total(name), "word": _word(name), "meaning": meaning}


def _accounts(run: Run) -> Rows:
    for dataset, counts in run.datasets.items():
        shares = [{"name": name, "share": str(counts[name])} for name in OUTCOMES if counts[name]]
        bar = each("share.html", shares)
        missing = counts["rows_read"] + counts["admitted"] - sum(counts[name] for name in OUTCOMES)
        account = f"✗ {missing:+,} rows not accounted for" if missing else "✓ balanced"
        yield {**counts, "dataset": dataset, "shares": bar, "account": account}


def _rejects(run: Run) -> Rows:
    for rows, dataset, code in run.reasons:
        yield {"dataset": dataset, "code": code, "meaning": row_reason(code), "rows": rows}


def _examples(run: Run) -> Rows:
    for example in run.summary["reject_examples"]:
        yield {**example, "meaning": row_reason(example["reason"])}


def _files(run: Run) -> Rows:
    files = sorted(run.manifest.shown, key=lambda file: ODD_FILES_FIRST.index(file["outcome"]))
    for file in files[:FILES_SHOWN]:
        good = file["outcome"] in ("loaded", "duplicate")
        ignored = [f"column ignored: {name}" for name in file["ignored_columns"]]
        notes = "; ".join(filter(None, [file["detail"] if good else file_reason(file), *ignored]))
        yield {**file, "outcome": _word(file["outcome"]), "notes": notes}


def _tables(run: Run) -> Rows:
    for name, table in run.summary["tables"].items():
        schema = "new or changed" if table["schema_changed"] else ""
        yield {**table, "name": name, "schema": schema, "days": days(table["dates"])}


def days(spans: Sequence[Sequence[str]]) -> str:
    """Return spans of days, [first, last] each and ascending, in words."""
    dates = [list(map(dt.date.fromisoformat, span)) for span in spans]
    count = sum((last - first).days + 1 for first, last in dates)
    return f"{plural(count, 'day')}, {dates[0][0]} to {dates[-1][1]}" if dates else ""


def _timings(run: Run) -> Rows:
    timings = run.summary["timings"]
    for name, took in timings.items():
        width = 100 * took / max(*timings.values(), 0.01)
        yield {"name": _word(name), "took": seconds_text(took), "width": f"{width:.1f}"}


def _states(run: Run) -> Rows:
    for name, state in run.states.items():
        took = seconds_text(state.seconds)
        yield {**vars(state), "name": name, "at": f"{state.started:%H:%M:%S}", "took": took}


SECTIONS: Mapping[str, Callable[[Run], Rows]] = {
    "failure": _failure,
    "operation": _operation,
    "figures": _figures,
    "accounts": _accounts,
    "rejects": _rejects,
    "examples": _examples,
    "files": _files,
    "tables": _tables,
    "timings": _timings,
    "states": _states,
}
