"""Pages in a real browser without a window: Debian's Chromium, for pictures and for tests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

from client import SetupError

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def browser() -> str | None:
    """Path of the browser; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def open_page(page: Path, flags: Sequence[str]) -> str:
    """Opens a file in the browser with further flags; returns what it prints.

    Raises SetupError where there is no browser.
    """
    program = browser()
    if program is None:
        raise SetupError("This needs Chromium: apt-get install chromium, then run it again")
    with tempfile.TemporaryDirectory() as profile:
        command = [program, *FLAGS, f"--user-data-dir={profile}", *flags, page.resolve().as_uri()]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=120
        ).stdout


def screenshot(page: Path, target: Path, width: int, height: int, scale: int = 2) -> None:
    """A PNG of the page, `scale` pixels to a CSS pixel."""
    open_page(
        page,
        [
            f"--window-size={width},{height}",
            f"--force-device-scale-factor={scale}",
            f"--screenshot={target.resolve()}",
        ],
    )


def measure(page: Path, expression: str, width: int = 1280) -> Any:
    """The value of a JavaScript expression on the page, opened at a width; a policy of the page
    against scripts is lifted."""
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "page.html"
        copy.write_text(
            f'{html}<script>document.title = "=" + JSON.stringify({expression})</script>', "utf-8"
        )
        shown = open_page(copy, [f"--window-size={width},900", "--dump-dom"])
    title = re.search(r"<title>=(.*?)</title>", shown, re.S)
    if title is None:
        raise ValueError(f"{page}: the browser could not work out {expression}")
    return json.loads(unescape(title[1]))
