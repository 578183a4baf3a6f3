"""The words of page and mail, from words.json and templates/: what a step or a reason means, what
to look at, and errors as sentences."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

FOLDER = Path(__file__).parent
WORDS: dict[str, Any] = json.loads((FOLDER / "words.json").read_text("utf-8"))
OUTCOMES = tuple(WORDS["outcomes"])
STEPS: dict[str, dict[str, str]] = WORDS["steps"]

DAY = r"(?<!\d)(2\d{3})[-_]?([01]\d)[-_]?([0-3]\d)(?!\d)"  # in the name of a file
FULL_PAGES = (1_000, 10_000)  # rows
DAYS_NAMED = 31  # more missing days are a gap between two periods
NAMES_LISTED = 10


@cache
def template(name: str) -> Template:
    """Return a file of templates/."""
    return Template((FOLDER / "templates" / name).read_text("utf-8"))


def row_reason(code: str) -> str:
    """Return the meaning of a rejected row's reason; a rule of the shop speaks for itself."""
    kind, _, column = code.partition("_")
    text = WORDS["rows"].get(code) or WORDS["rows"].get(f"{kind}_<column>")
    return Template(text).substitute(column=column) if text else code.replace("_", " ")


def file_reason(entry: Mapping[str, Any]) -> str:
    """Return why a file of the manifest was not loaded, and what to do."""
    code = entry.get("reason") or entry["outcome"]
    why = (entry.get("detail") or code.replace("_", " ")).removeprefix(f"{entry['path']}: ")
    to_do = WORDS["files"].get(code)
    return f"{why}. To do: {to_do}" if to_do else why


def hints(summary: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each number that an operator should see though nothing failed."""
    datasets, files = summary.get("datasets") or {}, summary.get("files") or {}
    names = [(key, name) for name in datasets for key in ("conflicting", "moved")]
    counts = [(key, name, datasets[name].get(key)) for key, name in names]
    counts.append(("no_final_newline", "", files.get("no_final_newline")))
    return [
        Template(WORDS["hints"][key]).substitute(count=f"{count:,}", dataset=name.replace("_", " "))
        for key, name, count in counts
        if count
    ]


def missing_data(
    summary: Mapping[str, Any], order_days: Iterable[dt.date], full_pages: Sequence[str]
) -> list[str]:
    """Return a sentence for each sign that data did not come: days without orders, orders or items
    without the others of their day, files that may be the first page of an export."""
    days = list(map(_in_full, missing_days(summary, order_days)))
    signs = [("missing_days", "days", days)] if len(days) <= DAYS_NAMED else []
    signs += [("late_dataset", "newest", newest_days(summary))]
    signs += [("full_page", "files", list(full_pages))]
    return [
        Template(WORDS["hints"][key]).substitute({name: _listed(values)})
        for key, name, values in signs
        if values
    ]


def missing_days(summary: Mapping[str, Any], order_days: Iterable[dt.date]) -> list[dt.date]:
    """Return the days without orders between the first and the last day of a run.

    The days are those in the names of the files. Of a first load they are those of the rows: in a
    later one a day without new rows may be in the table already.
    """
    days = set(order_days)
    table = (summary.get("tables") or {}).get("clean_orders") or {}
    counts = (summary.get("datasets") or {}).get("orders") or {}
    if table.get("rows") and table["rows"] == counts.get("inserted"):
        for first, last in table["dates"]:
            ends = [dt.date.fromisoformat(day).toordinal() for day in (first, last)]
            days |= set(map(dt.date.fromordinal, range(ends[0], ends[1] + 1)))
    if not days:
        return []
    between = range(min(days).toordinal(), max(days).toordinal())
    return [day for day in map(dt.date.fromordinal, between) if day not in days]


def newest_days(summary: Mapping[str, Any]) -> list[str]:
    """Return the newest day of the orders and of the items that a run wrote, if they differ."""
    tables = summary.get("tables") or {}
    dates = {
        dataset: (tables.get(name) or {}).get("dates") or []
        for dataset, name in (("orders", "clean_orders"), ("order items", "clean_orders_items"))
    }
    if not all(dates.values()):
        return []
    newest = {dataset: max(last for _, last in ranges) for dataset, ranges in dates.items()}
    if len(set(newest.values())) == 1:
        return []
    return [
        f"{dataset} of {_in_full(dt.date.fromisoformat(day))}" for dataset, day in newest.items()
    ]


def order_day(entry: Mapping[str, Any]) -> dt.date | None:
    """Return the day in the name of a file of orders that was loaded or came before."""
    if entry.get("dataset") != "orders" or entry["outcome"] not in ("loaded", "duplicate"):
        return None
    match = re.search(DAY, entry["path"])
    try:
        return dt.date(*map(int, match.groups())) if match else None
    except ValueError:  # a number that is no date
        return None


def is_full_page(entry: Mapping[str, Any]) -> bool:
    """Return whether a file may be the first page of an export, by its number of rows."""
    return entry["outcome"] == "loaded" and entry["rows_read"] in FULL_PAGES


def _in_full(day: dt.date) -> str:
    return f"{day:%d %B %Y}".lstrip("0")


def _listed(names: Sequence[str]) -> str:
    unlisted = len(names) - NAMES_LISTED
    return ", ".join(names[:NAMES_LISTED]) + (f" and {unlisted:,} more" if unlisted > 0 else "")


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def in_words(cause: str) -> str:
    """Return a cause with a sentence in place of each JSON document in it."""
    decoder, text, at = json.JSONDecoder(), "", 0
    for start in (bracket.start() for bracket in re.finditer(r"[{\[]", cause)):
        if start >= at:
            try:
                value, end = decoder.raw_decode(cause, start)
            except ValueError:  # a bracket of a sentence
                continue
            text, at = text + cause[at:start] + _sentence(value), end
    return text + cause[at:]


def _sentence(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(map(_sentence, value))
    if not isinstance(value, dict):
        return in_words(str(value))
    message = next(filter(None, map(value.get, ("ErrorMessage", "errorMessage", "Cause"))), None)
    if "JobRunState" in value:
        return f"The Glue run {value.get('Id')} ended as {value['JobRunState']}: {message}"
    if message:
        return in_words(message)
    return ", ".join(f"{name} {_sentence(inner)}" for name, inner in value.items())
