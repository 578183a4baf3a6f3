"""SQL: ask the tables; a statement that changes data becomes the operation `sql`."""

from __future__ import annotations

import asyncio
import csv
import functools
import io
import json
import re
from collections.abc import Sequence
from typing import Any

from nicegui import ui

from console import look
from console.athena import Answer, QueryError
from console.data import names_and_columns
from console.look import div, span, tag
from console.pages import dialogs
from tools import ROOT
from tools.operations import changes_data

FIRST = """SELECT date, count(*) AS orders, sum(total_amount) AS revenue
FROM clean_orders GROUP BY date ORDER BY date DESC LIMIT 30"""
ROWS = 1000  # shown of an answer
PAST = 20
# Completes names, and colours the text by the page's own variables: a theme of the editor knows
# either light or dark
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
    const look = (left) => {
      const element = getElement(%d);
      if (element && element.editor) resolve(element.editor);
      else if (left) setTimeout(() => look(left - 1), 50);
    };
    look(200);
  });
  const colours = {"#708": "superseded", "#a11": "ok", "#164": "accent", "#940": "soft"};
  const style = CM.HighlightStyle.define(CM.defaultHighlightStyle.specs.map((one) =>
    ({...one, color: `var(--${colours[one.color] || "ink"}) !important`})));
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
    """The editor, its answer, and what was asked before."""

    def __init__(self, console: look.Console, query: str) -> None:
        self.console = console
        self.answer: Answer | None = None
        with look.card(classes="editor"):
            self.editor = ui.codemirror(
                query, language="SQL", line_wrapping=True, keymap={"Mod-Enter": self.go}
            )
            with div("acts"):
                look.button("Run", self.go, "play_arrow", "main-act")
                self.csv = look.button("CSV", self.download, "download")
                self.csv.set_visibility(False)
                span("Ctrl+Enter runs · Ctrl+Space completes", "soft")
        self.result = div("result", aria_live="polite")
        ui.run_javascript(EDITOR % (completions(), self.editor.id))

    async def go(self) -> None:
        sql = str(self.editor.value or "").strip().rstrip(";").rstrip()
        if not sql:
            return
        self.editor.decorations = []
        self.csv.set_visibility(False)
        self.result.clear()
        if changes_data(sql):
            asked = {"operation": "sql", "sql": sql}
            dialogs.operation(self.console, asked, "A statement that changes data")
            return
        with self.result:
            span("Asking …", "soft", role="status")
        try:
            answer = await asyncio.to_thread(self.console.lake.athena.run, sql, ROWS)
        except QueryError as error:
            self.result.clear()
            with self.result:
                look.problem(str(error))
            self._mark(error)
            return
        self.answer = answer
        self.csv.set_visibility(bool(answer.names))
        self.result.clear()
        with self.result:
            grid(answer)

    def _mark(self, error: QueryError) -> None:
        """Shows the place of an error in the text."""
        text = str(self.editor.value or "")
        start, end = place_of(text, error)
        if end > start:
            self.editor.decorations = [
                {"kind": "mark", "from": start, "to": end, "class": "sql-error"}
            ]
            self.editor.reveal_line(error.line or 1)

    def download(self) -> None:
        if self.answer:
            ui.download.content(as_csv(self.answer), "answer.csv", "text/csv")

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
        with look.card("Asked before"):
            look.later(lambda: self.console.lake.athena.past(PAST), self._history)

    def _history(self, found: Sequence[str]) -> None:
        if not found:
            look.empty("Nothing yet.")
        for sql in found:
            self._past(" ".join(sql.split())[:160], sql)

    def _past(self, text: str, sql: str) -> None:
        tag("button", "past", text, type="button").on("click", lambda: self.editor.set_value(sql))


def place_of(text: str, error: QueryError) -> tuple[int, int]:
    """From where to where in the text an error points: the word at its line and column."""
    if error.line is None or error.column is None:
        return 0, 0
    lines = text.split("\n")
    if error.line > len(lines):
        return 0, 0
    start = sum(len(line) + 1 for line in lines[: error.line - 1]) + error.column - 1
    start = min(start, max(len(text) - 1, 0))
    word = re.match(r"\w+|.", text[start:], re.S)
    return start, start + (len(word[0]) if word else 0)


def grid(answer: Answer) -> None:
    """The answer's rows. Columns go by number, since a name may be anything."""
    more = f", the first {len(answer.rows):,} shown" if answer.more else ""
    rows = "row" if len(answer.rows) == 1 else "rows"
    tag("p", "soft", f"{len(answer.rows):,} {rows}{more}")
    if not answer.names:
        return
    numeric = ("bigint", "integer", "double", "decimal", "real", "smallint", "tinyint")
    columns = [
        {
            "headerName": name,
            "field": f"c{at}",
            "headerTooltip": kind,
            "type": "rightAligned" if kind in numeric else None,
            "minWidth": 110,
        }
        for at, (name, kind) in enumerate(zip(answer.names, answer.types, strict=True))
    ]
    data = [{f"c{at}": cell for at, cell in enumerate(row)} for row in answer.rows]
    options = {
        "columnDefs": columns,
        "rowData": data,
        "defaultColDef": {"sortable": True, "resizable": True, "wrapHeaderText": True},
        "rowHeight": 28,
        "headerHeight": 32,
        "enableCellTextSelection": True,
        "suppressFieldDotNotation": True,
    }
    height = min(90 + 28 * len(answer.rows), 520)
    ui.aggrid(options, theme="quartz").style(f"height: {height}px")


def as_csv(answer: Answer) -> bytes:
    """The shown rows as Athena writes its result files; NULL is nothing between the commas."""
    stream = io.StringIO(newline="")
    writer = csv.writer(
        stream, quoting=csv.QUOTE_NOTNULL if hasattr(csv, "QUOTE_NOTNULL") else csv.QUOTE_MINIMAL
    )
    writer.writerow(answer.names)
    writer.writerows(answer.rows)
    return stream.getvalue().encode()


@functools.cache
def examples() -> list[tuple[str, str]]:
    """Title and statement of the queries in docs/athena.md."""
    page = (ROOT / "docs" / "athena.md").read_text("utf-8")
    section = page.partition("## Queries to start with")[2].partition("\n## ")[0]
    text = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    found = re.findall(r"-- ([^\n]*)\n((?:(?!--)[^\n]*\n?)+?[^;]*);", text)
    return [(title, sql.strip()) for title, sql in found]


@functools.cache
def completions() -> str:
    """The names of tables and columns, as CodeMirror takes them."""
    options: list[dict[str, Any]] = []
    seen: set[str] = set()
    for table, columns in names_and_columns().items():
        options.append({"label": table, "type": "class", "detail": "table", "boost": 5})
        for name, kind in columns:
            if name not in seen:
                seen.add(name)
                options.append({"label": name, "type": "property", "detail": kind, "boost": 2})
    return json.dumps(options)
