"""What all pages look like and are made of.

Whatever comes from a file, a query or an error goes through `tag`, which makes it the text of an
element; no page writes HTML.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from nicegui import background_tasks, ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from console.athena import QueryError
from console.data import OUTCOMES, Lake, Run
from console.operations import Operator, Refused

NAVIGATION = (
    ("/", "Home", "home"),
    ("/runs", "Runs", "timeline"),
    ("/rejects", "Rejects", "rule"),
    ("/files", "Files", "description"),
    ("/key", "Keys", "key"),
    ("/sql", "SQL", "terminal"),
    ("/tables", "Tables", "table_chart"),
)
THEMES = {
    None: ("contrast", "as the system"),
    False: ("light_mode", "light"),
    True: ("dark_mode", "dark"),
}
STATUS = {
    "SUCCEEDED": ("succeeded", "good"),
    "RUNNING": ("running", "live"),
    "FAILED": ("failed", "bad"),
    "TIMED_OUT": ("timed out", "bad"),
    "ABORTED": ("aborted", "bad"),
    "NOTHING_NEW": ("nothing new", "calm"),
    "rejected": ("rejected", "bad"),
    "parked": ("parked", "warn"),
    "admitted": ("admitted", "good"),
    "superseded": ("superseded", "calm"),
    "discarded": ("discarded", "calm"),
    "loaded": ("loaded", "good"),
    "duplicate": ("duplicate", "calm"),
    "set_aside": ("set aside", "warn"),
    "unreadable": ("unreadable", "bad"),
    "changed": ("changed", "warn"),
}
Value = TypeVar("Value")


@dataclass
class Console:
    """What the pages share: the environment, what may be done to it, and the theme."""

    lake: Lake
    operator: Operator
    dark: bool | None = None


# --------------------------------------------------------------------------------------------------
# Elements
# --------------------------------------------------------------------------------------------------
def tag(name: str, classes: str = "", text: str = "", **attributes: str) -> Element:
    """An element with a text, shown as it is. `_` in the name of an attribute stands for `-`."""
    element = TextElement(tag=name, text=text) if text else ui.element(name)
    if classes:
        element.classes(classes)
    for key, value in attributes.items():
        element.props[key.rstrip("_").replace("_", "-")] = value
    return element


def div(classes: str = "", text: str = "", **attributes: str) -> Element:
    return tag("div", classes, text, **attributes)


def span(text: str, classes: str = "", **attributes: str) -> Element:
    return tag("span", classes, text, **attributes)


def address(page: str, **query: Any) -> str:
    """A page of the console with its query; what is empty is left out."""
    kept = {name: str(value) for name, value in query.items() if value not in ("", None, 0)}
    return page + ("?" + urllib.parse.urlencode(kept) if kept else "")


def anchor(text: str, href: str, classes: str = "", **attributes: str) -> Element:
    """A link within the console."""
    if not href.startswith("/"):
        raise ValueError(f"not an address of the console: {href!r}")
    return tag("a", classes, text, href=href, **attributes)


def status(word: str) -> Element:
    text, kind = STATUS.get(word, (word, "calm"))
    return span(text, f"status {kind}")


def button(
    text: str, act: Callable[[], Any], icon: str = "", kind: str = "", why_not: str = ""
) -> ui.button:
    """A button; where it may not be pressed it says why."""
    made = ui.button(text, icon=icon or None, on_click=act, color=None)
    made.props("no-caps unelevated dense")
    made.classes(f"act {kind}")
    if why_not:
        made.disable()
        made.tooltip(why_not)
        made.props["aria-label"] = f"{text}: not possible. {why_not}"
    return made


@contextmanager
def card(title: str = "", note: str = "", classes: str = "") -> Iterator[Element]:
    named = {"aria_label": title} if title else {}
    with tag("section" if title else "div", f"card {classes}", **named) as section:
        if title:
            with div("card-head"):
                tag("h2", "", title)
                if note:
                    span(note, "soft")
        yield section


def empty(text: str) -> None:
    """Said where a list has nothing in it."""
    tag("p", "empty", text)


def problem(text: str) -> None:
    tag("p", "problem", text, role="alert")


# --------------------------------------------------------------------------------------------------
# Tables
# --------------------------------------------------------------------------------------------------
Cell = str | int | None | Callable[[], Any]


@dataclass(frozen=True)
class Head:
    """A column's head; `kind` is its class: n for numbers, path for long texts, raw for code."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Row:
    cells: Sequence[Cell]
    classes: str = ""


def table(heads: Sequence[Head], rows: Sequence[Row], caption: str, classes: str = "") -> None:
    """A plain table. A cell is a text, a number or a function that makes its elements."""
    with div("wide", tabindex="0", role="region", aria_label=caption):
        with tag("table", classes):
            tag("caption", "hidden", caption)
            with tag("thead"), tag("tr"):
                for head in heads:
                    with tag("th", head.kind, scope="col"):
                        span(head.text) if head.text else span("state", "hidden")
            with tag("tbody"):
                for row in rows:
                    with tag("tr", row.classes):
                        for head, cell in zip(heads, row.cells, strict=True):
                            _cell(head, cell)


def _cell(head: Head, cell: Cell) -> None:
    if callable(cell):
        with tag("td", head.kind):
            cell()
    else:
        tag("td", head.kind, count(cell) if isinstance(cell, int) else cell or "")


def pager(page: str, offset: int, shown: int, size: int, total: int | None, **query: Any) -> None:
    """Where one is in a list, and the ways to the pages before and behind."""
    more = offset + shown < total if total is not None else shown == size
    if offset == 0 and not more:
        return
    with tag("nav", "pager", aria_label="Pages of the list"):
        if offset:
            anchor(
                "← newer" if total is None else "← before",
                address(page, **query, offset=max(offset - size, 0)),
            )
        of = f" of {total:,}" if total is not None else ""
        span(f"{offset + 1:,}–{offset + shown:,}{of}", "soft")
        if more:
            anchor("next →", address(page, **query, offset=offset + size))


# --------------------------------------------------------------------------------------------------
# The frame around each page
# --------------------------------------------------------------------------------------------------
@contextmanager
def frame(console: Console, title: str, active: str = "") -> Iterator[None]:
    """The page's head, navigation and main part."""
    place = console.lake.place
    ui.page_title(f"{title} · lakehouse")
    ui.dark_mode(console.dark)
    with div("shell"):
        with tag("header", "side"):
            anchor("Skip to the content", "/" + "#main", "skip").on(
                "click",
                js_handler="(e) => {e.preventDefault(); document.getElementById('main').focus()}",
            )
            with tag("a", "brand", href="/"):
                span("◧", "mark", aria_hidden="true")
                span("lakehouse")
            with tag("nav", "menu", aria_label="Pages"):
                for href, text, icon in NAVIGATION:
                    current = {"aria_current": "page"} if href == active else {}
                    with tag("a", "", href=href, **current):
                        ui.icon(icon).props["aria-hidden"] = "true"
                        span(text)
            with div("place"):
                with div():
                    div("env", "this machine" if place.local else place.name)
                    div("mode", "may change data" if console.operator.allowed else "reads only")
                _theme(console)
        with div("main", id="main", tabindex="-1"):
            yield


def _theme(console: Console) -> None:
    icon, word = THEMES[console.dark]

    def turn() -> None:
        order = list(THEMES)
        console.dark = order[(order.index(console.dark) + 1) % len(order)]
        ui.navigate.reload()

    made = ui.button(icon=icon, on_click=turn, color=None).props("flat round dense size=sm")
    made.props["aria-label"] = f"Theme: {word}. Change it"


def heading(title: str, note: str = "", kind: str = "") -> None:
    with div("page-head"):
        tag("h1", kind, title)
        if note:
            tag("p", "soft", note)


def later(
    work: Callable[[], Value], show: Callable[[Value], Any], wait: str = "Reading …"
) -> Element:
    """Shows what `work` finds, as soon as it is found; `work` runs beside the page."""
    holder = div("later", aria_busy="true")
    with holder:
        div("skeleton", wait, role="status")

    async def load() -> None:
        try:
            value = await asyncio.to_thread(work)
        except (QueryError, Refused, ClientError, BotoCoreError) as error:
            told = str(error)
            _fill(holder, lambda: problem(told))
        else:
            _fill(holder, lambda: show(value))

    background_tasks.create(load(), context=holder)
    return holder


def _fill(holder: Element, show: Callable[[], Any]) -> None:
    if holder.is_deleted:
        return
    holder.clear()
    holder.props["aria-busy"] = "false"
    with holder:
        show()


# --------------------------------------------------------------------------------------------------
# Words and bars
# --------------------------------------------------------------------------------------------------
def count(value: Any) -> str:
    return f"{int(value or 0):,}"


def clock(moment: dt.datetime | None) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}" if moment else ""


def ago(moment: dt.datetime | None) -> str:
    """How long ago, roughly: 3 min, 5 h, 12 days."""
    if moment is None:
        return ""
    seconds = max((dt.datetime.now(dt.UTC) - moment).total_seconds(), 0)
    for size, word in ((86400, "day"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size or size == 1:
            many = int(seconds // size)
            return f"{many} {word}{'s' if word == 'day' and many != 1 else ''} ago"
    return ""


def lasting(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"


def size(byte_count: Any) -> str:
    value = float(byte_count or 0)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1024 or unit == "GB":
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1024
    return ""


def short(run_id: str) -> str:
    """A run's id as far as a list needs it."""
    head, _, tail = run_id.partition("-")
    return (
        run_id[:8]
        if len(head) == 8 and len(run_id) == 36
        else run_id[:22] + ("…" if len(run_id) > 22 else "")
    )


def run_link(run_id: str, classes: str = "mono") -> Element:
    return anchor(short(run_id), address("/run", run=run_id), classes, title=run_id)


def told(run_: Run) -> str:
    """A run's outcomes in words."""
    parts = [f"{count(run_.total(name))} {name}" for name in OUTCOMES if run_.total(name)]
    return ", ".join(parts) or ("no rows" if run_.summary else STATUS.get(run_.status, ("", ""))[0])


def outcome_bar(numbers: dict[str, int], label: str = "") -> None:
    """The shares of the outcomes in one line."""
    whole = sum(numbers.values())
    words = ", ".join(f"{count(value)} {name}" for name, value in numbers.items() if value)
    with div("bar", role="img", aria_label=(label + ": " if label else "") + (words or "no rows")):
        for name, value in numbers.items():
            if value:
                share = max(value / whole * 100, 0.8)
                div(f"seg {name}").style(f"flex: {share:.3f} 1 0")
