"""The drop zone: checks files and folders, and uploads them in one batch."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import urllib.parse
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nicegui import events, ui
from nicegui.element import Element

from client import check
from client.aws import AWS_ERRORS
from client.lake import LAKE_ERRORS
from console import look, work
from console.look import div, span, tag
from console.operations import Batch
from words import plural

SHOWN = 30  # files of the list, those with faults first
FAULTS = 20  # rows with faults listed of a file
UNPACKED_BYTES = 1 << 30  # of a zip file, at most
NONE_LOADED = "No row of these files would be loaded: see below why."
CHIPS = {check.SET_ASIDE: "warn", check.DUPLICATE: "calm", check.SKIPPED: "calm"}
DROP = "(event) => lakehouseDrop(event, {})"
CHOOSE = "() => lakehouseChoose({}, {})"


@dataclass
class Staged:
    """A file before its upload.

    path     the path in the raw zone
    name     the name or path at the drop
    place    the copy on this machine
    verdict  what a run would do with the file
    trouble  why it could not be uploaded
    """

    path: str
    name: str
    place: Path
    size: int
    verdict: check.CheckedFile | None = None
    trouble: str = ""

    def check(self) -> None:
        with self.place.open("rb") as stream:
            self.verdict = check.check_file(self.path, stream, limit=FAULTS)

    @property
    def has_faults(self) -> bool:
        return bool(self.trouble) or self.verdict is None or not self.verdict.is_clean


def raw_path(path: str) -> str:
    """Return the path in the raw zone of a dropped file, without the folders above the dataset."""
    parts = path.split("/")
    below = ("/".join(parts[at:]) for at in range(len(parts)))
    return next((entry for entry in below if check.dataset_of(entry)), path)


def free_path(path: str, taken: set[str]) -> str:
    """Return the path, with a number before the ending if it is taken."""
    folder, slash, name = path.rpartition("/")
    stem, dot, ending = name.partition(".")
    numbered = (f"{folder}{slash}{stem}-{number}{dot}{ending}" for number in itertools.count(2))
    return path if path not in taken else next(entry for entry in numbered if entry not in taken)


class Uploads:
    """The drop zone of one page. `uploaded` is called when a batch has ended."""

    def __init__(self, console: look.Console, uploaded: Callable[[], None]) -> None:
        self.console, self.uploaded = console, uploaded
        self.staged: list[Staged] = []
        self.batch: Batch | None = None
        self.numbers = itertools.count()
        self.folder = tempfile.TemporaryDirectory(prefix="lakehouse-")
        ui.context.client.on_delete(self.left)
        with look.card(classes="drop") as zone:
            self.transport = ui.upload(
                multiple=True, auto_upload=True, on_multi_upload=self.came
            ).classes("transport")
            # Each file needs its own field name: of two fields of a name NiceGUI takes the last
            self.transport.props[":field-name"] = "() => `file-${Math.random()}`"
            self._zone(zone)
            self.list = div()

    def _zone(self, zone: Element) -> None:
        uploader = self.transport.id
        zone.on("dragover.prevent", js_handler="() => {}")
        zone.on("drop.prevent", js_handler=DROP.format(uploader))
        with div("zone"):
            ui.icon("upload_file").props["aria-hidden"] = "true"
            span("Drop CSV files or folders here. They are checked before anything is uploaded.")
            for text, icon, folder in (
                ("Choose files", "add", "false"),
                ("Choose a folder", "folder_open", "true"),
            ):
                button = look.button(self.console, text, lambda: None, icon)
                button.on("click", js_handler=CHOOSE.format(uploader, folder))

    def left(self) -> None:
        """Delete the files when the page is closed, unless a batch still uploads them."""
        if self.batch is None:
            self.folder.cleanup()

    # Staging and checks ---------------------------------------------------------------------------

    async def came(self, event: events.MultiUploadEventArguments) -> None:
        """Stage and check files. A drop may arrive in several parts."""
        new: list[Staged] = []
        for dropped in event.files:
            dropped_at = self._free_place()
            await dropped.save(dropped_at)
            dropped_as = urllib.parse.unquote(dropped.name)  # as encoded by drop.js
            files = await work.beside(self.console, self._unpacked, dropped_as, dropped_at)
            for name, place in files:
                path = free_path(raw_path(name), {entry.path for entry in [*self.staged, *new]})
                new.append(Staged(path, name, place, place.stat().st_size))
        self.transport.run_method("removeUploadedFiles")
        await work.acting(self.console, lambda: self._take(new))()

    def _free_place(self) -> Path:
        return Path(self.folder.name) / str(next(self.numbers))

    def _unpacked(self, name: str, place: Path) -> list[tuple[str, Path]]:
        """Return name and place of each file in a .zip file, such as that of the rejects to fix;
        the file itself if it is none, or one that cannot be unpacked here."""
        if not name.lower().endswith(".zip"):
            return [(name, place)]
        try:
            with zipfile.ZipFile(place) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
                if not 0 < sum(member.file_size for member in members) <= UNPACKED_BYTES:
                    return [(name, place)]
                files = [(member.filename, self._free_place()) for member in members]
                for member, (_, to) in zip(members, files, strict=True):
                    with archive.open(member) as packed, to.open("wb") as plain:
                        shutil.copyfileobj(packed, plain)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError):  # damaged, or a password
            return [(name, place)]
        return files

    async def _take(self, new: list[Staged]) -> None:
        if self.batch is None:
            self._say(f"Checking {plural(len(new), 'file')} …")
        await work.beside(self.console, self._check, new)
        self.staged += new
        if self.batch is None:  # else they are shown after the batch
            self._draw()

    def _check(self, files: list[Staged]) -> None:
        """Check files by the rules; mark duplicates of loaded files if the lake can be read."""
        for file in files:
            file.check()
        verdicts = [file.verdict for file in [*self.staged, *files] if file.verdict]
        try:
            lake = self.console.lake.place.lake()
            ledger = check.ledger_rows(lake, [entry.digest for entry in verdicts])
        except (*AWS_ERRORS, *LAKE_ERRORS):
            ledger = []  # the upload will report the error of AWS
        check.mark_duplicates(verdicts, ledger)

    # The list -------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        self.list.clear()
        with self.list:
            span(text, "soft", role="status")

    def _draw(self) -> None:
        self.list.clear()
        if not self.staged:
            return
        with self.list:
            verdicts = [entry.verdict for entry in self.staged if entry.verdict]
            tag("p", "verdict", f"{check.totals(verdicts)}.", role="status")
            if not any(
                file.outcome == check.GOOD and file.rows > file.rejected for file in verdicts
            ):
                look.problem(NONE_LOADED)
            with div("acts"):
                text = f"Upload {plural(len(self.staged), 'file')} to the raw zone"
                look.button(self.console, text, self.send, "upload", "main-act")
                look.button(self.console, "Clear", self.clear)
            shown = sorted(self.staged, key=lambda entry: not entry.has_faults)[:SHOWN]
            for entry in shown:
                self._row(entry)
            if len(shown) < len(self.staged):
                span(f"and {plural(len(self.staged) - len(shown), 'more file')}", "soft")
            tag("p", "soft", check.NOT_CHECKED)

    def clear(self) -> None:
        self.staged.clear()
        self._draw()

    def _row(self, entry: Staged) -> None:
        with div("staged") as row:
            field = ui.input(value=entry.path).props("dense outlined debounce=300")
            field.props["aria-label"] = f"Path of {entry.name} in the raw zone"
            chip = div()
            span(look.size(entry.size), "soft size")
            remove = ui.button(icon="close", color=None).props("flat round dense size=sm")
            remove.props["aria-label"] = f"Leave {entry.name} out"
        details = div("faults")

        async def renamed() -> None:
            entry.path, entry.trouble = str(field.value or ""), ""
            await work.beside(self.console, self._check, [entry])
            _verdict(entry, chip, details)

        def leave_out() -> None:
            self.staged.remove(entry)
            row.delete()
            details.delete()
            if not self.staged:
                self._draw()

        field.on_value_change(work.acting(self.console, renamed))
        remove.on_click(leave_out)
        _verdict(entry, chip, details)

    # Upload ---------------------------------------------------------------------------------------

    async def send(self) -> None:
        """Upload the list as one batch; files that fail stay in the list, with the reason."""
        twice = _twice(entry.path for entry in self.staged)
        for entry in self.staged:
            entry.trouble = "another file of the list has this name" if entry.path in twice else ""
        if twice:
            self._draw()
            return
        batch = self.batch = Batch({entry.path: entry.place for entry in self.staged})
        with self._progress(batch):
            await work.beside(self.console, self.console.operator.upload_all, batch)
        self.batch = None
        sent = set(batch.sent)
        self.staged = [entry for entry in self.staged if entry.path not in sent]
        await work.beside(self.console, self._explain, batch)
        self.console.last_upload = batch if batch.sent else self.console.last_upload
        if self.list.is_deleted:
            self.folder.cleanup()
            return
        self._draw()
        self._tell(batch)
        self.uploaded()

    def _explain(self, batch: Batch) -> None:
        for entry in self.staged:
            error = batch.failed.get(entry.path)
            entry.trouble = str(work.trouble_of(self.console, error)) if error else ""

    def _progress(self, batch: Batch) -> _Progress:
        self.list.clear()
        with self.list:
            return _Progress(self.console, batch)

    @staticmethod
    def _tell(batch: Batch) -> None:
        count = plural(len(batch.sent), "file")
        if batch.cancelled.is_set():
            work.say(f"Cancelled: {count} uploaded, the others stay in the list.", "warning")
        elif batch.failed:
            missing = plural(len(batch.failed), "file")
            work.say(f"{count} uploaded; {missing} not: the list says why.", "negative")
        else:
            work.say(f"{count} uploaded. The run begins by itself within the batching window.")


class _Progress:
    """A progress bar of a batch, with a button that cancels it."""

    def __init__(self, console: look.Console, batch: Batch) -> None:
        self.batch = batch
        self.label = ui.label().classes("soft").props("role=status")
        self.bar = ui.linear_progress(0, show_value=False)
        look.button(console, "Cancel", batch.cancelled.set, "close")

    def __enter__(self) -> None:
        self.timer = ui.timer(0.3, self._show)

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()

    def _show(self) -> None:
        done = len(self.batch.sent) + len(self.batch.failed)
        self.bar.value = done / max(len(self.batch.files), 1)
        self.label.set_text(f"{done:,} of {plural(len(self.batch.files), 'file')}")


def _twice(paths: Iterable[str]) -> set[str]:
    return {path for path, count in Counter(paths).items() if count > 1}


def _verdict(entry: Staged, chip: Element, details: Element) -> None:
    """Show what a run would do with a file, and the rows that it would reject."""
    chip.clear()
    details.clear()
    file = entry.verdict
    with chip:
        word = (file.dataset if file else None) or "no dataset"
        kind = CHIPS.get(file.outcome, "good") if file else "warn"
        span(word, f"status {kind if word != 'no dataset' else 'warn'}")
    with details:
        if entry.trouble:
            look.problem(entry.trouble)
        if file is None or (file.is_clean and file.outcome == check.GOOD):
            return
        first, *others = check.lines_of(file, FAULTS)
        span(first.removeprefix(f"{entry.path}: "), "soft")
        if file.dataset is None:
            name = Path(entry.path).name
            tag("p", "soft", f"Its path can be changed here, for example to orders/{name}.")
        if others:
            with tag("details"):
                tag("summary", "", "Show the rows")
                div("log", "\n".join(others))
