"""The ledger of files, the places of a file, and its lines."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from client.declared import OUTCOMES
from client.places import REJECTED
from console.athena import containing, in_list, literal
from console.data.runs import ALL_RUNS, Runs
from console.data.source import PAGE, Source, moment

PIECE = 1 << 16  # characters of a line read at a time
UNDONE_RUNS = 20  # whose manifests are read
LISTED = 1000  # files of the raw zone, at most
ASIDE = ("set_aside", "unreadable")  # outcomes of files without a row in a table
ASIDE_LISTED = 20
CLOCKS = dt.timedelta(seconds=5)  # largest difference between the clocks of two machines


@dataclass(frozen=True)
class Waiting:
    """The files in the raw zone: the first paths, their bytes, the time of the oldest, and whether
    the list was truncated."""

    paths: tuple[str, ...] = ()
    size: int = 0
    oldest: dt.datetime | None = None
    truncated: bool = False


@dataclass(frozen=True)
class Lines:
    """Successive lines of a file. `first` is the number of the first one; `has_next` if lines
    follow; `trouble` says why the file cannot be read to its end."""

    first: int
    texts: tuple[str, ...]
    has_next: bool = False
    trouble: str = ""


class Files:
    """The files that runs have taken, and those in the raw zone."""

    def __init__(self, source: Source, runs: Runs) -> None:
        self.source, self.runs = source, runs

    def waiting(self) -> Waiting:
        """Return the files in the raw zone."""
        place = self.source.place
        answer = place.clients["s3"].list_objects_v2(
            Bucket=place.raw_bucket, Prefix=place.raw_prefix, MaxKeys=LISTED
        )
        files = [file for file in answer.get("Contents", []) if not file["Key"].endswith("/")]
        return Waiting(
            tuple(file["Key"].removeprefix(place.raw_prefix) for file in files),
            sum(file["Size"] for file in files),
            min((file["LastModified"] for file in files), default=None),
            bool(answer.get("IsTruncated")),
        )

    def results(self, paths: Collection[str], since: dt.datetime) -> list[dict[str, str | None]]:
        """Return what runs did with these paths since their upload began: the ledger's rows, and
        for files without one, such as duplicates and undone files, run and outcome."""
        begin = f"{(since - CLOCKS).astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}"
        answer = self.source.ask(
            f"SELECT run_id, file_path, outcome, {', '.join(OUTCOMES)} FROM ingested_files "
            f"WHERE CAST(ingested_at AS varchar) >= {literal(begin)}",
            ALL_RUNS,
        )
        missing = set(paths)
        results = {row["file_path"]: row for row in answer.records() if row["file_path"] in missing}
        missing -= results.keys()
        undone = set(self.runs.undone()) if missing else set()
        zeros: dict[str, str | None] = dict.fromkeys(OUTCOMES, "0")
        for run_id in self._ended_runs(since - CLOCKS) if missing else []:
            for entry in self.source.memory.get(("manifest", run_id), self._manifest_of(run_id)):
                if entry["path"] in missing:
                    was_undone = entry["outcome"] == "loaded" and run_id in undone
                    outcome = "undone" if was_undone else entry["outcome"]
                    row = {"run_id": run_id, "file_path": entry["path"], "outcome": outcome}
                    results.setdefault(entry["path"], zeros | row)
        return list(results.values())

    def _manifest_of(self, run_id: str) -> Callable[[], list[dict[str, Any]]]:
        return lambda: self.runs.manifest(run_id)

    def _ended_runs(self, since: dt.datetime) -> list[str]:
        """Return the ids of the newest executions that have ended since a time, newest first."""
        return [
            execution["name"]
            for execution in self.source.executions(UNDONE_RUNS)
            if execution.get("stopDate") and execution["stopDate"] >= since
        ]

    def undone(self, run_id: str = "") -> list[dict[str, Any]]:
        """Return the manifest entries of files whose load was undone and that no run has loaded
        since, newest run first; of one undone run, or of the newest ones."""
        return [line for line in self.of_undone_runs(run_id) if line["outcome"] == "loaded"]

    def of_undone_runs(self, run_id: str = "") -> list[dict[str, Any]]:
        """Return the manifest entries of undone runs for files that no run has taken since, each
        with `came_again`: whether a newer file of its path was taken."""
        runs = [run_id] if run_id else self.runs.undone()[:UNDONE_RUNS]
        return self.source.memory.get(("undone", *runs), lambda: self._undone(runs)) if runs else []

    def _undone(self, runs: Sequence[str]) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(UNDONE_RUNS) as pool:
            manifests = list(pool.map(self.runs.manifest, runs))
        lines = [
            {**line, "run_id": run_id}
            for run_id, manifest in zip(runs, manifests, strict=True)
            for line in manifest
            if line.get("outcome") in (*ASIDE, "loaded")
        ]
        if not lines:
            return []
        answer = self.source.ask(
            "SELECT file_path, file_size, CAST(file_modified AS varchar) AS file_modified "
            f"FROM ingested_files WHERE {in_list('file_path', [line['path'] for line in lines])}",
            ALL_RUNS,
        )
        taken = {(path, int(size or 0), second(moment(at))) for path, size, at in answer.rows}
        newest = {path: at for path, _, at in sorted(taken, key=lambda version: version[2])}
        left = []
        for line in lines:
            path, modified = line["path"], second(moment(line["last_modified"]))
            if (path, line["size"], modified) not in taken:
                left.append({**line, "came_again": newest.get(path, "") > modified})
        return left

    def page(self, text: str = "", outcome: str = "", offset: int = 0) -> list[dict[str, Any]]:
        """Return a page of the ledger, newest first, and a row more if another page follows."""
        parts = [containing("file_path", text)] if text else []
        parts += [f"outcome = {literal(outcome)}"] if outcome else []
        answer = self.source.ask(
            "SELECT run_id, dataset, file_path, file_size, outcome, reason, rows_read, "
            f"{', '.join(OUTCOMES)}, CAST(ingested_at AS varchar) AS ingested_at "
            f"FROM ingested_files WHERE {' AND '.join(parts) or 'true'} "
            f"ORDER BY ingested_at DESC, file_path OFFSET {offset} LIMIT {PAGE + 1}"
        )
        return answer.records()

    def of_run(self, run_id: str, paths: Sequence[str]) -> dict[str, dict[str, str | None]]:
        """Return path -> the ledger's row, for files of a run."""
        if not paths:
            return {}
        answer = self.source.ask(
            f"SELECT file_path, outcome, reason, rows_read, {', '.join(OUTCOMES)} "
            f"FROM ingested_files WHERE run_id = {literal(run_id)} AND "
            f"{in_list('file_path', paths)}"
        )
        return {row["file_path"] or "": row for row in answer.records()}

    def versions(self, path: str) -> list[dict[str, str | None]]:
        """Return the ledger's rows of a path, newest first."""
        answer = self.source.ask(
            "SELECT run_id, dataset, file_path, file_digest, file_size, "
            "CAST(file_modified AS varchar) AS file_modified, outcome, reason, rows_read, "
            f"{', '.join(OUTCOMES)}, CAST(ingested_at AS varchar) AS ingested_at "
            f"FROM ingested_files WHERE file_path = {literal(path)} "
            f"ORDER BY ingested_at DESC LIMIT {PAGE}"
        )
        return answer.records()

    def aside(self) -> list[tuple[str, str, dt.datetime | None]]:
        """Return the newest files whose last delivery was set aside or unreadable, as (file_path,
        reason, since). The undo of its run makes none of them better."""
        answer = self.source.ask(
            "SELECT file_path, max_by(reason, ingested_at) AS reason, "
            "CAST(max(ingested_at) AS varchar) AS since FROM ingested_files GROUP BY file_path "
            f"HAVING {in_list('max_by(outcome, ingested_at)', ASIDE)} "
            f"ORDER BY since DESC LIMIT {ASIDE_LISTED}"
        )
        files = [(path or "", reason or "", moment(at)) for path, reason, at in answer.rows]
        files += [
            (line["path"], line["reason"] or line["outcome"], moment(line["last_modified"]))
            for line in self.of_undone_runs()
            if line["outcome"] in ASIDE and not line["came_again"]
        ]
        files.sort(key=lambda file: second(file[2]))
        newest = {file[0]: file for file in files}  # a path may have been set aside by several runs
        return list(reversed(newest.values()))[:ASIDE_LISTED]

    def places(self, path: str, run_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the copies of a file: in the raw zone, in the archive of a run, and among the
        files that were set aside."""
        place = self.source.place
        candidates = [("raw zone", place.raw_bucket, place.raw_prefix + path, "")]
        for run_id in run_ids:
            below = f"run={run_id}/{path}"
            candidates.append(
                ("archive", place.archive_bucket, place.archive_prefix + below, run_id)
            )
            candidates.append(("set aside", place.lake_bucket, f"{REJECTED}files/{below}", run_id))
        places = []
        for kind, bucket, key, run_id in candidates:
            head = self.source.head(bucket, key)
            if head:
                places.append({"kind": kind, "bucket": bucket, "key": key, "run_id": run_id} | head)
        return places

    def lines(self, bucket: str, key: str, last: int, count: int) -> Lines:
        """Return the `count` lines that end with line `last`, or with the end of a shorter file.
        Unpack a .gz file. Read no further than line `last`."""
        body = self.source.place.clients["s3"].get_object(Bucket=bucket, Key=key)["Body"]
        numbered_lines: deque[tuple[int, str]] = deque(maxlen=count)
        has_next, trouble = False, ""
        with body:
            packed = key.lower().endswith(".gz")
            raw: Any = gzip.GzipFile(fileobj=body) if packed else body
            stream = io.TextIOWrapper(io.BufferedReader(raw), "utf-8-sig", "replace")
            try:
                for number, text in numbered(stream):
                    if number > last:
                        has_next = True
                        break
                    numbered_lines.append((number, text))
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                trouble = f"This gzip file cannot be unpacked any further: {error}"
            finally:
                stream.detach()
        first = numbered_lines[0][0] if numbered_lines else 1
        return Lines(first, tuple(text for _, text in numbered_lines), has_next, trouble)


def numbered(stream: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line, cut after PIECE characters."""
    number, begins = 1, True
    while piece := stream.readline(PIECE):
        if begins:
            yield number, piece.rstrip("\n")
        begins = piece.endswith("\n")
        number += begins


def second(time: dt.datetime | None) -> str:
    """Return a time in UTC, to the second; empty if there is none."""
    return time.astimezone(dt.UTC).isoformat()[:19] if time else ""
