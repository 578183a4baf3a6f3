"""The elements of all pages: layout, tables, parts that read beside the page, texts and bars.

Values from files, queries and errors become the text of an element in `tag`. No page writes HTML.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import urllib.parse
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nicegui import background_tasks, ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

import words
from client.declared import OUTCOMES
from client.render import TextTable
from console import work
from console.data import Lake
from console.data.runs import Run
from console.operations import Batch, Operator

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
    "undone": ("undone", "warn"),
    "undone_file": ("undone, in the archive", "warn"),
    "waiting": ("waiting", "warn"),
}
CAUSE = 160  # characters shown of a cause in a list
# Glossary at the foot of a list: subject -> word -> meaning
WORDS = {
    "outcomes": {name: words.WORDS["outcomes"][name] for name in OUTCOMES},
    "statuses": {
        "rejected": "breaks a rule; stored as delivered, and can be corrected",
        "parked": "an item whose order or product has not arrived; it is loaded when that arrives",
        "admitted": "was rejected or parked, and is in its table now",
        "superseded": "replaced by a later row of the same key",
        "discarded": "closed for good by a person, with a reason",
    },
    "files": {
        "loaded": "read; its rows have the outcomes shown",
        "duplicate": "the same bytes were loaded before; skipped",
        "set aside": "no row was loaded; the reason says what to do",
        "unreadable": "S3 refused to read it; it stays in the raw zone",
        "changed": "replaced during the run; the next run reads it",
        "undone, in the archive": "its rows were removed with its run; it can be loaded again",
    },
}
Value = TypeVar("Value")


@dataclass
class Console:
    """The state that all pages share: environment, permitted operations, theme, last upload."""

    lake: Lake
    operator: Operator
    dark: bool | None = None
    last_upload: Batch | None = None


# --------------------------------------------------------------------------------------------------
# Elements
# --------------------------------------------------------------------------------------------------
def tag(name: str, classes: str = "", text: str = "", **attributes: str) -> Element:
    """Return an element with a plain text. `_` in the name of an attribute stands for `-`."""
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
    """Return the address of a page with its query, without empty values."""
    parameters = {name: str(value) for name, value in query.items() if value not in ("", None, 0)}
    return page + ("?" + urllib.parse.urlencode(parameters) if parameters else "")


def anchor(text: str, href: str, classes: str = "", **attributes: str) -> Element:
    """Return a link within the console."""
    if not href.startswith("/"):
        raise ValueError(f"not an address of the console: {href!r}")
    return tag("a", classes, text, href=href, **attributes)


def status(word: str) -> Element:
    text, kind = STATUS.get(word, (word, "calm"))
    return span(text, f"status {kind}")


def run_status(run: Run) -> Element:
    """Return the status of a run; `undone` if it was taken back."""
    return status("undone" if run.undone else run.status)


def button(
    console: Console,
    text: str,
    act: Callable[[], Any],
    icon: str = "",
    kind: str = "",
    why_not: str = "",
) -> ui.button:
    """Return a button. If there is a reason `why_not`, it is disabled and shows the reason."""
    pressed = work.acting(console, act)
    element = ui.button(text, icon=icon or None, on_click=pressed, color=None)
    element.props("no-caps unelevated dense")
    element.classes(f"act {kind}")
    if why_not:
        element.disable()
        element.tooltip(why_not)
        element.props["aria-label"] = f"{text}: not possible. {why_not}"
    return element


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
    """Show a text in the place of an empty list."""
    tag("p", "empty", text)


def problem(text: str) -> None:
    tag("p", "problem", text, role="alert")


# --------------------------------------------------------------------------------------------------
# Tables
# --------------------------------------------------------------------------------------------------
Cell = str | int | None | Callable[[], Any]


@dataclass(frozen=True)
class Head:
    """The head of a column; `kind` is its CSS class: n (number), path (long text) or raw (code)."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Row:
    cells: Sequence[Cell]
    classes: str = ""


def table(heads: Sequence[Head], rows: Sequence[Row], caption: str, classes: str = "") -> None:
    """Show a plain table. A cell is a text, a number or a function that makes its elements."""
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


def text_table(texts: TextTable, caption: str, kind: str) -> None:
    """Show a plan, an effect or a history; `kind` is that of all columns but the first."""
    heads = [
        Head(text.replace("_", " "), kind if at else "") for at, text in enumerate(texts.heads)
    ]
    table(heads, [Row(tuple(row)) for row in texts.rows], caption)


def pager(page: str, offset: int, shown: int, size: int, total: int | None, **query: Any) -> None:
    """Show the position in a list, and links to the previous and the next page."""
    has_next = offset + shown < total if total is not None else shown == size
    if offset == 0 and not has_next:
        return
    with tag("nav", "pager", aria_label="Pages of the list"):
        if offset:
            anchor(
                "← newer" if total is None else "← before",
                address(page, **query, offset=max(offset - size, 0)),
            )
        of = f" of {total:,}" if total is not None else ""
        span(f"{offset + 1:,}–{offset + shown:,}{of}", "soft")
        if has_next:
            anchor("next →", address(page, **query, offset=offset + size))


# --------------------------------------------------------------------------------------------------
# The frame around each page
# --------------------------------------------------------------------------------------------------
@contextmanager
def frame(console: Console, title: str, active: str = "") -> Iterator[None]:
    """Show head and navigation of a page; the body fills its main part."""
    place = console.lake.place
    ui.page_title(f"{title} · lakehouse")
    ui.on_exception(lambda error: work.say(str(work.trouble_of(console, error)), "negative"))
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

    toggle = ui.button(icon=icon, on_click=turn, color=None).props("flat round dense size=sm")
    toggle.props["aria-label"] = f"Theme: {word}. Change it"


def heading(title: str, note: str = "", kind: str = "") -> None:
    with div("page-head"):
        tag("h1", kind, title)
        if note:
            tag("p", "soft", note)


class Part(Generic[Value]):
    """A part of a page that shows the value of `read`, which runs in a thread.

    An error is shown above the last value. If it may pass, `read` is retried.
    goes_on  whether to read again after a pause, by the value; by default never
    stamp    returns a cheap value that changes with that of `read`; unchanged, it saves a `read`
    """

    def __init__(
        self,
        console: Console,
        read: Callable[[], Value],
        show: Callable[[Value], Any],
        goes_on: Callable[[Value], bool] | None = None,
        stamp: Callable[[], Hashable] | None = None,
    ) -> None:
        self.console, self.read, self.show = console, read, show
        self.goes_on, self.stamp = goes_on, stamp
        self._seen: list[Any] = []  # stamp and value of the last reading
        with div("later", aria_busy="true") as self.holder:
            self._note, self._body = div(), div()
        with self._body:
            div("skeleton", "Reading …", role="status")
        self._task = background_tasks.create(self._follow(), context=self.holder)

    def refresh(self) -> None:
        """Read and show the value now."""
        self._task.cancel()
        self._seen.clear()
        self.console.lake.forget()
        self._task = background_tasks.create(self._follow(), context=self.holder)

    async def _follow(self) -> None:
        while not self.holder.is_deleted and await self._look():
            await asyncio.sleep(self.console.lake.place.pause)

    async def _look(self) -> bool:
        """Read once; return whether to read again."""
        try:
            stamp = await work.beside(self.console, self.stamp) if self.stamp else None
            if self._seen and self.stamp and stamp == self._seen[0]:
                value = self._seen[1]
            else:
                value = await work.beside(self.console, self.read)
        except work.Trouble as trouble:
            return self._say(trouble)
        if self.holder.is_deleted:
            return False
        self._note.clear()
        if not self._seen or value != self._seen[1]:
            self._draw(value)
        self._seen[:] = [stamp, value]
        return self.goes_on is not None and self.goes_on(value)

    def _say(self, trouble: work.Trouble) -> bool:
        """Show an error; return whether to read again."""
        if self.holder.is_deleted:
            return False
        will_retry = trouble.passes or self.goes_on is not None
        self._note.clear()
        with self._note:
            problem(f"{trouble} {work.RETRY_NOTE}" if will_retry else str(trouble))
        if not self._seen:
            self._body.clear()
        return will_retry

    def _draw(self, value: Value) -> None:
        self._body.clear()
        self.holder.props["aria-busy"] = "false"
        with self._body:
            self.show(value)


def later(console: Console, read: Callable[[], Value], show: Callable[[Value], Any]) -> Part[Value]:
    """Show the value of `read` as soon as it has returned."""
    return Part(console, read, show)


# --------------------------------------------------------------------------------------------------
# Words and bars
# --------------------------------------------------------------------------------------------------
def count(value: Any) -> str:
    return f"{int(value or 0):,}"


def clock(moment: dt.datetime | None) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}" if moment else ""


def ago(moment: dt.datetime | None) -> str:
    """Return the time since a moment, rounded down: `3 min ago`, `5 h ago`, `12 days ago`."""
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
    """Return the id of a run, shortened for lists."""
    head, _, tail = run_id.partition("-")
    return (
        run_id[:8]
        if len(head) == 8 and len(run_id) == 36
        else run_id[:22] + ("…" if len(run_id) > 22 else "")
    )


def run_link(run_id: str, classes: str = "mono") -> Element:
    return anchor(short(run_id), address("/run", run=run_id), classes, title=run_id)


def outcome_text(run: Run) -> str:
    """Return the outcomes of a run in words, or why it failed."""
    if run.failed:
        cause = " ".join(run.cause.split())
        return cause[:CAUSE] + ("…" if len(cause) > CAUSE else "")
    text = (run.summary.get("operation") or {}).get("text")
    if text:
        return str(text)
    parts = [f"{count(run.total(name))} {name}" for name in OUTCOMES if run.total(name)]
    return ", ".join(parts) or ("no rows" if run.summary else STATUS.get(run.status, ("", ""))[0])


def glossary(*subjects: str) -> None:
    """Show the meanings of words, folded until a click."""
    with tag("details", "glossary"):
        tag("summary", "", "Terms")
        with tag("dl"):
            for subject in subjects:
                for word, meaning in WORDS[subject].items():
                    tag("dt", "", word)
                    tag("dd", "", meaning)


def outcome_bar(numbers: dict[str, int], label: str = "") -> None:
    """Show the shares of the outcomes as a bar."""
    whole = sum(numbers.values())
    words = ", ".join(f"{count(value)} {name}" for name, value in numbers.items() if value)
    with div("bar", role="img", aria_label=(label + ": " if label else "") + (words or "no rows")):
        for name, value in numbers.items():
            if value:
                share = max(value / whole * 100, 0.8)
                div(f"seg {name}").style(f"flex: {share:.3f} 1 0")
