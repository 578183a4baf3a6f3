"""Everything that the pages read of an environment, by subject. No page in here.

    source.py   answers of Athena, executions, objects
    steps.py    the six steps of a run
    runs.py     executions, the records of their jobs, histories
    files.py    the ledger, the places of a file, its lines
    rejects.py  rejected and parked rows
    tables.py   rows, versions and partitions

Every list is read a page at a time. Every query names its columns and conditions.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from client.places import RUNS, Place
from console.data.files import Files
from console.data.rejects import Rejects
from console.data.runs import Run, Runs
from console.data.source import Source, moment
from console.data.tables import Tables

DISMISSED = "dismissed.json"  # beside the runs; shared by all users
DISMISSED_BYTES = 1 << 20
KINDS = ("failed", "rejected", "parked", "set_aside")  # the heaviest first


@dataclass(frozen=True)
class Attention:
    """A failed run, a reason of rejects or a file that a person should look at.

    count      failed runs, rows or files
    since      the oldest of them
    link       `page` and its query
    share      part of the rows of the dataset, 0 to 1
    dismissed  why, by whom and when it was dismissed; empty if it was not
    """

    kind: str
    title: str
    count: int
    since: dt.datetime | None
    link: Mapping[str, str]
    share: float = 0.0
    dismissed: str = ""

    @property
    def name(self) -> str:
        """Return the key of its dismissal: the kind, and a run, a file or a reason of a dataset."""
        return f"{self.kind}: {self.link.get('run') or self.title}"

    @property
    def weight(self) -> tuple[int, float, int]:
        """Return the sort key, smallest for the heaviest item."""
        return KINDS.index(self.kind), -self.share, -self.count


class Lake(Source):
    """One environment, as the pages read it."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.runs, self.rejects = Runs(self), Rejects(self)
        self.files = Files(self, self.runs)
        self.tables = Tables(self, self.runs)

    def attention(self, runs: Sequence[Run], rows: Mapping[str, int]) -> list[Attention]:
        """Return everything that needs a person, the heaviest first. `runs` are the newest runs,
        `rows` the number of rows by dataset."""
        items = [*self._failures(runs), *self._open_rows(rows), *self._files_aside()]
        dismissals = self.dismissals()
        marked = [replace(item, dismissed=dismissal(item, dismissals)) for item in items]
        return sorted(marked, key=lambda item: item.weight)

    @staticmethod
    def _failures(runs: Sequence[Run]) -> list[Attention]:
        """Return the failed runs whose work no later run has done. `runs` are newest first."""
        return [
            Attention(
                "failed",
                f"{run.what.capitalize()} {run.status.replace('_', ' ').lower()}",
                1,
                run.started,
                {"page": "/run", "run": run.run_id},
            )
            for at, run in enumerate(runs)
            if run.failed and not any(newer.repeats(run) for newer in runs[:at])
        ]

    def _files_aside(self) -> list[Attention]:
        return [
            Attention(
                "set_aside",
                f"{path}: {reason}",
                1,
                since,
                {"page": "/file", "path": path},
            )
            for path, reason, since in self.files.aside()
        ]

    def _open_rows(self, rows: Mapping[str, int]) -> list[Attention]:
        """Return the rejected and parked rows by reason, with their share of all rows."""
        items = []
        for group in self.rejects.open_by_reason():
            count = int(group["n"] or 0)
            dataset = str(group["dataset"])
            link = {name: group[name] or "" for name in ("status", "dataset", "reason")}
            items.append(
                Attention(
                    group["status"] or "",
                    f"{dataset}: {group['reason']}",
                    count,
                    moment(group["since"]),
                    {"page": "/rejects", **link},
                    count / max(rows.get(dataset, 0) + count, 1),
                )
            )
        return items

    def dismissals(self) -> dict[str, dict[str, Any]]:
        """Return name -> count, reason, author and day of each dismissal."""
        body = self.object(self.place.lake_bucket, f"{RUNS}{DISMISSED}", DISMISSED_BYTES)
        dismissals: dict[str, dict[str, Any]] = json.loads(body) if body else {}
        return dismissals

    def dismiss(self, item: Attention, why: str, author: str) -> None:
        """Record that an item needs no attention, until its count grows."""
        dismissals = self.dismissals()
        day = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"
        dismissals[item.name] = {"count": item.count, "why": why, "author": author, "day": day}
        self.place.operations().write_note(DISMISSED, dismissals)


def dismissal(item: Attention, dismissals: Mapping[str, Mapping[str, Any]]) -> str:
    """Return why, by whom and when an item was dismissed; empty if it was not or its count grew."""
    entry = dismissals.get(item.name)
    if entry is None or item.count > entry["count"]:
        return ""
    return f"{entry['why']} ({entry['author']}, {entry['day']})"
