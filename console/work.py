"""Run the work of pages in a thread, and turn its errors into sentences."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from nicegui import ui

from client import SetupError
from client.aws import AWS_ERRORS, explained, needs_login
from client.history import HistoryError
from client.lake import LAKE_ERRORS
from client.places import RIGHTS
from console.athena import QueryError
from console.data import Lake
from console.operations import Refused

LOG = logging.getLogger(__name__)
EXPLAINED = (QueryError, Refused, SetupError, HistoryError)  # whose messages are for people
RETRY_NOTE = "This page tries again by itself."
Value = TypeVar("Value")


class Environment(Protocol):
    """An object that has a lake, such as the console."""

    lake: Lake


class Trouble(Exception):
    """Work that failed; the message says why and what to do. `passes` if a retry may succeed
    without a person."""

    def __init__(self, text: str, passes: bool = False) -> None:
        super().__init__(text)
        self.passes = passes


def trouble_of(environment: Environment, error: Exception) -> Trouble:
    """Return an error as a sentence.

    If a login would help, read the credentials again, so that the next try uses those of a new
    login. Log an unexpected error: it is a fault of the console.
    """
    if isinstance(error, Trouble):
        return error
    if isinstance(error, EXPLAINED):
        return Trouble(str(error))
    if isinstance(error, (*AWS_ERRORS, *LAKE_ERRORS)):
        if needs_login(error):
            try:
                environment.lake.place.clients.renew()
            except AWS_ERRORS as worse:  # no profile or no region: the login needs repair
                return Trouble(f"{explained(worse, RIGHTS)}.", passes=True)
        return Trouble(f"{explained(error, RIGHTS)}.", passes=True)
    LOG.error("a fault of the console", exc_info=error)
    return Trouble(
        f"The console made a mistake ({type(error).__name__}: {error}). Reload the page; the "
        "console's log has the details."
    )


async def beside(environment: Environment, work: Callable[..., Value], *arguments: Any) -> Value:
    """Run `work` in a thread; return its result. Raises Trouble."""
    try:
        return await asyncio.to_thread(work, *arguments)
    except Exception as error:
        raise await asyncio.to_thread(trouble_of, environment, error) from error


def acting(environment: Environment, act: Callable[[], Any]) -> Callable[[], Awaitable[None]]:
    """Return the handler of a button, a form or a key: it calls `act` and reports an error.

    It runs in the context of the page, since the button may be gone before the work is done.
    """

    async def handler() -> None:
        client = ui.context.client
        with client:
            try:
                result = act()
                if inspect.iscoroutine(result):
                    await result
            except Exception as error:
                trouble = await asyncio.to_thread(trouble_of, environment, error)
                if not client.is_deleted:
                    say(str(trouble), "negative")

    return handler


def say(text: str, kind: str = "positive") -> None:
    """Show a notification: what was done, or why it was not."""
    if kind == "positive":
        ui.notify(text, type="positive")
    else:
        ui.notify(text, type=kind, multi_line=True, close_button="Close", timeout=0)
