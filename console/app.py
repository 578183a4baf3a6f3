"""The server: registers the pages, puts the guard before them, and listens on this machine."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from nicegui import app, ui

from client.aws import AWS_ERRORS
from client.lake import LAKE_ERRORS
from console import guard, look
from console.athena import QueryError
from console.data import Lake
from console.data.rejects import OPEN
from console.pages import file, home, key, rejects, run, runs, sql, tables

STYLE = Path(__file__).parent / "style.css"
DROP = Path(__file__).parent / "drop.js"
HOST = "127.0.0.1"
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<rect width="16" height="16" rx="4" fill="#0b62c4"/><path d="M4 4h4v8H4z" fill="#fff"/></svg>'
)


def register(console: look.Console) -> None:
    """Register the pages of one environment."""
    ui.add_css(STYLE, shared=True)
    ui.add_body_html(f"<script>{DROP.read_text('utf-8')}</script>", shared=True)
    _pages_of_rows(console)

    @ui.page("/")
    def _home() -> None:
        home.show(console)

    @ui.page("/runs")
    def _runs(view: str = "", token: str = "", offset: int = 0) -> None:
        runs.show(console, view, token, max(offset, 0))

    @ui.page("/run")
    def _run(run: str = "", offset: int = 0, outcome: str = "", dataset: str = "") -> None:
        _run_page(console, run, max(offset, 0), outcome, dataset)

    @ui.page("/sql")
    def _sql(query: str = "") -> None:
        sql.show(console, query)

    @ui.page("/tables")
    def _tables(table: str = "") -> None:
        tables.show(console, table)


def _pages_of_rows(console: look.Console) -> None:
    """Register the pages of rejected rows, files and keys."""

    @ui.page("/rejects")
    def _rejects(
        dataset: str = "",
        status: str = OPEN,
        reason: str = "",
        run: str = "",
        file: str = "",
        text: str = "",
        offset: int = 0,
    ) -> None:
        filters = rejects.Filters(dataset, status, reason, run, file, text)
        rejects.show(console, filters, max(offset, 0))

    @ui.page("/files")
    def _files(text: str = "", outcome: str = "", offset: int = 0) -> None:
        file.show_list(console, text, outcome, max(offset, 0))

    @ui.page("/file")
    def _file(path: str = "", line: int = 1) -> None:
        file.show(console, path, line)

    @ui.page("/key")
    def _key(dataset: str = "orders", key: str = "") -> None:
        _key_page(console, dataset, key)


def _run_page(console: look.Console, *arguments: str | int) -> None:
    run.show(console, *arguments)  # type: ignore[arg-type]


def _key_page(console: look.Console, dataset: str, text: str) -> None:
    key.show(console, dataset, text)


def look_ahead(lake: Lake) -> None:
    """Read the data of Home, Runs and Rejects into the cache, so that they open without a wait.

    Ignore errors: the page that needs the data reads it again and reports them.
    """
    with suppress(QueryError, *AWS_ERRORS, *LAKE_ERRORS):
        home.read(lake)
        runs.read(lake)
        rejects.read(lake, rejects.Filters(status=OPEN))


def serve(console: look.Console, port: int) -> None:
    """Serve the console until it is interrupted."""
    register(console)
    threading.Thread(target=look_ahead, args=(console.lake,), daemon=True).start()
    app.add_middleware(guard.Guard, port=port)
    ui.run(
        host=HOST,
        port=port,
        title="lakehouse",
        favicon=ICON,
        dark=None,
        language="en-US",
        reload=False,
        show=False,
        show_welcome_message=False,
        tailwind=False,
        reconnect_timeout=30.0,  # a busy machine answers late, and a reload loses staged files
        message_history_length=10_000,
    )
