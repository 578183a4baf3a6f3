"""SQL: query the tables; a statement that changes data becomes the operation `sql`."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from typing import Any

from nicegui import ui

from client import ROOT
from client.declared import names_and_columns
from client.operations import changes_data
from console import look, work
from console.athena import Answer, QueryError
from console.look import div, span, tag
from console.pages import dialogs
from words import plural

FIRST = """SELECT date, count(*) AS orders, round(sum(total_amount), 2) AS revenue
FROM clean_orders GROUP BY date ORDER BY date DESC LIMIT 30"""
ROWS = 1000  # rows shown of an answer
PAST = 20
# Completes names, and colours the text by CSS variables of the page, because a theme of the editor
# is either light or dark
EDITOR = """
(async () => {
  const CM = await import("nicegui-codemirror");
  const words = %s;
  const source = (context) => {
    const word = context.matchBefore(/[\\w]*/);
    if (!word || (word.from === word.to && !context.explicit)) return null;
    return {from: word.from, options: words, validFor: /^\\w*$/};
  };
  const editor = await new Promise((resolve) => {
    const look = (tries) => {
      const element = getElement(%d);
      if (element && element.editor) resolve(element.editor);
      else if (tries) setTimeout(() => look(tries - 1), 50);
    };
    look(200);
  });
  const colours = {"#708": "superseded", "#a11": "ok", "#164": "accent", "#940": "soft"};
  const style = CM.HighlightStyle.define(CM.defaultHighlightStyle.specs.map((spec) =>
    ({...spec, color: `var(--${colours[spec.color] || "ink"}) !important`})));
  editor.dispatch({effects: CM.StateEffect.appendConfig.of([
    CM.Prec.highest(CM.syntaxHighlighting(style)),
    CM.EditorState.languageData.of(() => [{autocomplete: source}])])});
  editor.contentDOM.setAttribute("aria-label", "SQL statement");
})()
"""


def show(console: look.Console, query: str) -> None:
    with look.frame(console, "SQL", "/sql"):
        look.heading(
            "SQL", "Athena's SQL on the tables. A statement that changes data shows its plan first."
        )
        with div("sql-page"):
            with div():
                page = _Editor(console, query or FIRST)
            with div():
                page.side()


class _Editor:
    """The editor, its answer, and previous statements."""

    def __init__(self, console: look.Console, query: str) -> None:
        self.console, self.athena = console, console.lake.athena
        self.query_id = ""  # of the running query, or of the answer
        go = work.acting(console, self.go)
        with look.card(classes="editor"):
            self.editor = ui.codemirror(
                query, language="SQL", line_wrapping=True, keymap={"Mod-Enter": go}
            )
            with div("acts"):
                look.button(console, "Run", self.go, "play_arrow", "main-act")
                self.stop = look.button(console, "Stop", self.stop_query, "stop", "danger")
                self.csv = look.button(console, "All rows as CSV", self.download, "download")
                span("Ctrl+Enter runs · Ctrl+Space completes", "soft")
        self._buttons(running=False, answered=False)
        self.result = div("result", aria_live="polite")
        ui.run_javascript(EDITOR % (completions(), self.editor.id))

    def _buttons(self, running: bool, answered: bool) -> None:
        self.stop.set_visibility(running)
        self.csv.set_visibility(answered)

    async def go(self) -> None:
        sql = str(self.editor.value or "").strip().rstrip(";").rstrip()
        if not sql:
            return
        href = json.dumps(look.address("/sql", query=sql))
        ui.run_javascript(f"history.replaceState(history.state, '', {href})")
        self.editor.decorations = []
        self.result.clear()
        if changes_data(sql):
            self._buttons(running=False, answered=False)
            request = {"operation": "sql", "sql": sql}
            title = "A statement that changes data"
            dialogs.operation(self.console, request, title, "Change data", lambda: None, True)
            return
        with self.result:
            span("Running …", "soft", role="status")
        self._buttons(running=True, answered=False)
        try:
            self.query_id = await work.beside(self.console, self.athena.start, sql)
            answer = await work.beside(self.console, self.athena.answer, self.query_id, ROWS)
        except work.Trouble as trouble:
            self._buttons(running=False, answered=False)
            self._say(trouble)
            return
        self._buttons(running=False, answered=bool(answer.names))
        self.result.clear()
        with self.result:
            grid(answer)
        self.past.refresh()

    def _say(self, trouble: work.Trouble) -> None:
        """Show an error, and mark its place in the statement."""
        self.result.clear()
        with self.result:
            look.problem(str(trouble))
        if isinstance(trouble.__cause__, QueryError):
            self._mark(trouble.__cause__)

    def _mark(self, error: QueryError) -> None:
        text = str(self.editor.value or "")
        start, end = place_of(text, error)
        if end > start:
            self.editor.decorations = [
                {"kind": "mark", "from": start, "to": end, "class": "sql-error"}
            ]
            self.editor.reveal_line(error.line or 1)

    async def stop_query(self) -> None:
        if self.query_id:
            await work.beside(self.console, self.athena.stop, self.query_id)

    async def download(self) -> None:
        """Download the whole answer, including rows that the page does not show."""
        lines = await work.beside(self.console, lambda: list(self.athena.lines(self.query_id)))
        ui.download.content("".join(lines).encode(), "answer.csv", "text/csv")

    def side(self) -> None:
        with look.card("Tables"):
            for name, columns in names_and_columns().items():
                with tag("details", "names"):
                    tag("summary", "", name)
                    with tag("ul"):
                        for column, kind in columns:
                            with tag("li"):
                                span(column, "mono")
                                span(kind, "soft")
        with look.card("Examples"):
            for title, sql in examples():
                self._past(title, sql)
        with look.card("Earlier queries"):
            self.past = look.later(
                self.console, lambda: self.console.lake.athena.past(PAST), self._history
            )

    def _history(self, statements: Sequence[str]) -> None:
        if not statements:
            look.empty("Nothing yet.")
        for sql in statements:
            self._past(" ".join(sql.split())[:160], sql)

    def _past(self, text: str, sql: str) -> None:
        tag("button", "past", text, type="button").on("click", lambda: self.editor.set_value(sql))


def place_of(text: str, error: QueryError) -> tuple[int, int]:
    """Return start and end of the word at the line and column of an error; (0, 0) if unknown."""
    if error.line is None or error.column is None:
        return 0, 0
    lines = text.split("\n")
    if error.line > len(lines):
        return 0, 0
    start = sum(len(line) + 1 for line in lines[: error.line - 1]) + error.column - 1
    start = min(start, max(len(text) - 1, 0))
    word = re.match(r"\w+|.", text[start:], re.S)
    return start, start + (len(word[0]) if word else 0)


NUMERIC = ("bigint", "integer", "double", "decimal", "real", "smallint", "tinyint")
# Numbers are shown as Athena's text and sorted by value
BY_VALUE = "(a, b) => a == null || b == null ? (a == null) - (b == null) : Number(a) - Number(b)"
SHOWN = "(cell) => cell.value == null ? 'NULL' : cell.value"
NULL_CLASS = "(cell) => cell.value == null ? 'null' : ''"
NUMBER_CLASS = f"(cell) => ['ag-right-aligned-cell', ({NULL_CLASS})(cell)].filter(Boolean)"


def column_of(at: int, name: str, kind: str) -> dict[str, Any]:
    """Return a column of the grid; its field is numbered, since a name may contain anything."""
    column: dict[str, Any] = {
        "headerName": name,
        "field": f"c{at}",
        "headerTooltip": kind,
        "minWidth": 110,
        ":valueFormatter": SHOWN,
        ":cellClass": NULL_CLASS,
    }
    if kind not in NUMERIC:
        return column
    return column | {"type": "rightAligned", ":comparator": BY_VALUE, ":cellClass": NUMBER_CLASS}


def about(answer: Answer) -> str:
    """Return rows, duration and scanned bytes of an answer in words."""
    shown = f", the first {len(answer.rows):,} shown" if answer.truncated else ""
    engine = f"; answered by {answer.engine}" if answer.engine else ""
    rows = plural(len(answer.rows), "row")
    read = f", {look.size(answer.scanned)} read" if answer.scanned else ""
    return f"{rows}{shown} in {look.lasting(answer.seconds)}{read}{engine}"


def grid(answer: Answer) -> None:
    """Show an answer as a grid."""
    tag("p", "soft", about(answer))
    if not answer.names:
        return
    kinds = zip(answer.names, answer.types, strict=True)
    options = {
        "columnDefs": [column_of(at, name, kind) for at, (name, kind) in enumerate(kinds)],
        "rowData": [{f"c{at}": cell for at, cell in enumerate(row)} for row in answer.rows],
        "defaultColDef": {"sortable": True, "resizable": True, "wrapHeaderText": True},
        "rowHeight": 28,
        "headerHeight": 32,
        "enableCellTextSelection": True,
        "suppressFieldDotNotation": True,
    }
    height = min(90 + 28 * len(answer.rows), 520)
    ui.aggrid(options, theme="quartz").style(f"height: {height}px")


@functools.cache
def examples() -> list[tuple[str, str]]:
    """Return title and statement of the queries in docs/athena.md."""
    page = (ROOT / "docs" / "athena.md").read_text("utf-8")
    section = page.partition("## Queries to start with")[2].partition("\n## ")[0]
    text = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    queries = re.findall(r"-- ([^\n]*)\n((?:(?!--)[^\n]*\n?)+?[^;]*);", text)
    return [(title, sql.strip()) for title, sql in queries]


@functools.cache
def completions() -> str:
    """Return the names of tables and columns as completions for CodeMirror, in JSON."""
    options: list[dict[str, Any]] = []
    seen: set[str] = set()
    for table, columns in names_and_columns().items():
        options.append({"label": table, "type": "class", "detail": "table", "boost": 5})
        for name, kind in columns:
            if name not in seen:
                seen.add(name)
                options.append({"label": name, "type": "property", "detail": kind, "boost": 2})
    return json.dumps(options)
