"""The server: pages, guard, and nothing that is reached from elsewhere."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from nicegui import app, ui

from console import guard, look
from console.athena import QueryError
from console.data import OPEN, Lake
from console.pages import file, home, key, rejects, run, runs, sql, tables

STYLE = Path(__file__).parent / "style.css"
HOST = "127.0.0.1"
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<rect width="16" height="16" rx="4" fill="#0b62c4"/><path d="M4 4h4v8H4z" fill="#fff"/></svg>'
)


def register(console: look.Console) -> None:
    """Makes the pages of one environment."""
    ui.add_css(STYLE, shared=True)

    @ui.page("/")
    def _home() -> None:
        home.show(console)

    @ui.page("/runs")
    def _runs(view: str = "", token: str = "", offset: int = 0) -> None:
        runs.show(console, view, token, max(offset, 0))

    @ui.page("/run")
    def _run(run: str = "", offset: int = 0, outcome: str = "", dataset: str = "") -> None:
        _run_page(console, run, max(offset, 0), outcome, dataset)

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

    @ui.page("/sql")
    def _sql(query: str = "") -> None:
        sql.show(console, query)

    @ui.page("/tables")
    def _tables(table: str = "") -> None:
        tables.show(console, table)


def _run_page(console: look.Console, *asked: str | int) -> None:
    run.show(console, *asked)  # type: ignore[arg-type]


def _key_page(console: look.Console, dataset: str, text: str) -> None:
    key.show(console, dataset, text)


def look_ahead(lake: Lake) -> None:
    """Reads what Home, Runs and Rejects show, so that who opens them first need not wait for it.

    What fails here fails again, and is told, where a page reads it.
    """
    with suppress(QueryError, BotoCoreError, ClientError):
        home.read(lake)
        runs.read(lake)
        rejects.read(lake, rejects.Filters(status=OPEN))


def serve(console: look.Console, port: int) -> None:
    """Serves the console until it is interrupted."""
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
        reconnect_timeout=10.0,
    )
