"""Moves3Objects: archive exactly the files that a run has read.

The job writes `runs/<run id>/manifest.jsonl` with a line for each listed object version. Lines have
one of three destinations:

    archive   -> s3://<archive bucket>/archived/run=<run id>/<path>
    rejected  -> s3://<lake bucket>/rejected/files/run=<run id>/<path>
    raw       -> stays in place, for the next run

The function copies an object, verifies the copy, and deletes the source only if it is still the
version of the manifest. It leaves and reports objects that were overwritten. Every step is
idempotent, so a page can be processed twice. Copies are never deleted: after a lost response the
function cannot know which run deleted the source. Two runs that archive the same file at the same
time leave a copy each.

Event   {"run_id": "...", "archive": {"offset": 0, "page": 0, ...}}
        `archive` is the cursor: the answer of the previous call
Answer  {"isComplete": bool, "offset": byte in the manifest, "page": n,
         "samples": ["key: what happened", ...],
         "archived": n, "rejected": n, "left": n, "changed": n, "gone": n, "failed": n}
        counted over all pages

The answer stays small, since Step Functions passes at most 256 KiB. A failure of one object is
counted and sampled in the answer; only an unreadable manifest raises.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
)

LOG = logging.getLogger(__name__)
LOG.setLevel(logging.INFO)

COUNTED = ("archived", "rejected", "left", "changed", "gone", "failed")
MAX_SAMPLES = 10
MAX_SAMPLE_LENGTH = 300
RUN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,80}")
GIB = 1024**3
ATTEMPTS = 6  # per request, and per interrupted transfer


@dataclass(frozen=True)
class Settings:
    """The locations and limits; only `from_environ` reads the environment."""

    raw_bucket: str
    raw_prefix: str
    archive_bucket: str
    archive_prefix: str
    lake_bucket: str
    rejected_prefix: str
    runs_prefix: str
    workers: int = 32
    page_bytes: int = 256 * 1024
    files_per_call: int = 50_000
    multipart_threshold: int = 5 * GIB
    part_size: int = 512 * 1024**2
    reserve_seconds: float = 60.0

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        return cls(
            raw_bucket=environ["RAW_BUCKET"],
            raw_prefix=environ["RAW_PREFIX"],
            archive_bucket=environ["ARCHIVE_BUCKET"],
            archive_prefix=environ.get("ARCHIVE_PREFIX", "archived/"),
            lake_bucket=environ["LAKE_BUCKET"],
            rejected_prefix=environ.get("REJECTED_FILES_PREFIX", "rejected/files/"),
            runs_prefix=environ.get("RUNS_PREFIX", "runs/"),
            workers=int(environ.get("ARCHIVE_WORKERS", cls.workers)),
            page_bytes=int(environ.get("MANIFEST_PAGE_BYTES", cls.page_bytes)),
            files_per_call=int(environ.get("FILES_PER_CALL", cls.files_per_call)),
            multipart_threshold=int(environ.get("MULTIPART_THRESHOLD", cls.multipart_threshold)),
            part_size=int(environ.get("MULTIPART_PART_SIZE", cls.part_size)),
            reserve_seconds=float(environ.get("RESERVE_SECONDS", cls.reserve_seconds)),
        )


@dataclass(frozen=True)
class Entry:
    """One line of the manifest; `end` is the offset of the next line."""

    bucket: str | None
    key: str
    path: str
    etag: str
    size: int
    last_modified: datetime
    destination: str
    end: int

    @classmethod
    def from_line(cls, line: bytes, end: int) -> Entry:
        fields = json.loads(line)
        modified = datetime.fromisoformat(fields["last_modified"].replace("Z", "+00:00"))
        return cls(
            bucket=fields["bucket"],
            key=fields["key"],
            path=fields["path"],
            etag=fields["etag"].strip('"'),
            size=fields["size"],
            last_modified=modified,
            destination=fields["destination"],
            end=end,
        )

    def is_version(self, head: Mapping[str, Any]) -> bool:
        """Return whether an object's head matches the version in the manifest.

        HTTP dates have whole seconds only.
        """
        modified = head["LastModified"].astimezone(UTC).replace(microsecond=0)
        return (
            head["ETag"].strip('"') == self.etag
            and head["ContentLength"] == self.size
            and modified == self.last_modified.astimezone(UTC).replace(microsecond=0)
        )


@dataclass(frozen=True)
class Outcome:
    """The result for an entry: one of COUNTED, with a detail if a person should see it."""

    kind: str
    detail: str | None = None


OVERWRITTEN = Outcome(
    "changed", "was overwritten after the run had listed it; left for the next run"
)


def s3_client(workers: int) -> Any:
    """Return an S3 client for this many threads, and for the threads that copy parts of large
    objects on the same connections. S3 may take boto3's 60 seconds to copy gigabytes in one
    request."""
    retries = {"mode": "standard", "total_max_attempts": ATTEMPTS}
    return boto3.client("s3", config=Config(max_pool_connections=workers * 2, retries=retries))


class OutOfTime(Exception):
    """The invocation must stop before this entry is archived; the next one continues with it."""


class CopyMismatch(Exception):
    """The copy is missing or incomplete; the source stays."""


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Archive the manifest's entries from the cursor on, as far as the time allows."""
    settings = Settings.from_environ(os.environ)
    run_id = event["run_id"]
    if not RUN_ID.fullmatch(run_id):
        raise ValueError(f"run_id {run_id!r} is not the name of an execution")
    budget = context.get_remaining_time_in_millis() / 1000 - settings.reserve_seconds
    archiver = Archiver(
        s3_client(settings.workers), settings, run_id, deadline=time.monotonic() + budget
    )
    answer = archiver.run(event.get("archive") or {})
    LOG.info(json.dumps({"run_id": run_id, **answer}))
    return answer


class Archiver:
    """Archives the entries of one run's manifest.

    `clock` is a parameter for tests of the deadline.
    """

    def __init__(
        self,
        s3: Any,
        settings: Settings,
        run_id: str,
        deadline: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.s3 = s3
        self.settings = settings
        self.run_id = run_id
        self.deadline = deadline
        self.clock = clock

    def run(self, cursor: Mapping[str, Any]) -> dict[str, Any]:
        """Process pages of the manifest until it ends, the time is up, or a call's limit of files
        is reached."""
        offset, remaining_files = cursor.get("offset", 0), self.settings.files_per_call
        counts = {kind: cursor.get(kind, 0) for kind in COUNTED}
        samples = list(cursor.get("samples", []))
        progress = False
        complete = False
        with ThreadPoolExecutor(self.settings.workers) as pool:
            while not complete:
                entries, total = self._read_page(offset)
                entries = entries[:remaining_files]
                for entry, outcome in zip(
                    entries, pool.map(self._archive_in_time, entries), strict=True
                ):
                    if outcome is None and progress:
                        break
                    # Otherwise an entry that needs more than an invocation would be retried forever
                    outcome = outcome or Outcome(
                        "failed", "takes longer than one invocation may last"
                    )
                    progress = True
                    offset, remaining_files = entry.end, remaining_files - 1
                    counts[outcome.kind] += 1
                    if outcome.detail and len(samples) < MAX_SAMPLES:
                        samples.append(f"{entry.key}: {outcome.detail}"[:MAX_SAMPLE_LENGTH])
                complete = offset >= total
                if self.clock() >= self.deadline or remaining_files <= 0:
                    break
        page = cursor.get("page", 0) + 1
        return {
            "isComplete": complete,
            "offset": offset,
            "page": page,
            "samples": samples,
            **counts,
        }

    def _read_page(self, offset: int) -> tuple[list[Entry], int]:
        """Return the complete lines in the next bytes of the manifest, and the manifest's size."""
        key = f"{self.settings.runs_prefix}{self.run_id}/manifest.jsonl"
        length = self.settings.page_bytes
        while True:
            try:
                body, total = self._read_range(key, f"bytes={offset}-{offset + length - 1}")
            except ClientError as error:
                if _status(error) == 416:  # the manifest is empty, or ends at the offset
                    return [], 0
                raise
            lines = (
                body.splitlines(keepends=True)
                if offset + len(body) >= total
                else _whole_lines(body)
            )
            if lines:
                return _parse(lines, offset), total
            length *= 2  # a line longer than a page

    def _read_range(self, key: str, byte_range: str, attempts: int = ATTEMPTS) -> tuple[bytes, int]:
        """Return some bytes of an object of the lake, and its size; retry an interrupted
        transfer."""
        bucket = self.settings.lake_bucket
        response = self.s3.get_object(Bucket=bucket, Key=key, Range=byte_range)
        try:
            return response["Body"].read(), int(response["ContentRange"].rpartition("/")[2])
        except (HTTPClientError, IncompleteReadError):
            if attempts == 1:
                raise
        time.sleep(0.2 * (ATTEMPTS - attempts))
        return self._read_range(key, byte_range, attempts - 1)

    def _archive_in_time(self, entry: Entry) -> Outcome | None:
        if self.clock() >= self.deadline:
            return None
        try:
            return self._archive(entry)
        except OutOfTime:
            return None
        except (ClientError, BotoCoreError, CopyMismatch) as error:
            LOG.warning("%s: %s", entry.key, error)
            return Outcome("failed", str(error))

    def _archive(self, entry: Entry) -> Outcome:
        if entry.destination == "raw":
            return Outcome("left")
        if entry.bucket != self.settings.raw_bucket or not entry.key.startswith(
            self.settings.raw_prefix
        ):
            return Outcome("failed", "is not in the raw zone")
        bucket, key, kind = self._destination(entry)
        source = self._head(entry.bucket, entry.key)
        if source is None:
            return self._already_gone(entry, bucket, key, kind)
        if not entry.is_version(source):
            return OVERWRITTEN
        try:
            self._copy(entry, source, bucket, key)
        except ClientError as error:  # the source may have been deleted or overwritten meanwhile
            # A 404 may also mean that the archive bucket is missing
            if _status(error) == 404 and self._head(entry.bucket, entry.key) is None:
                return self._already_gone(entry, bucket, key, kind)
            if _status(error) == 412:
                return OVERWRITTEN
            raise
        copy = self._head(bucket, key)
        if copy is None or copy["ContentLength"] != entry.size:
            raise CopyMismatch(f"the copy s3://{bucket}/{key} is not complete; the source stays")
        return self._delete(entry, kind)

    def _destination(self, entry: Entry) -> tuple[str, str, str]:
        if entry.destination == "rejected":
            bucket, prefix, kind = (
                self.settings.lake_bucket,
                self.settings.rejected_prefix,
                "rejected",
            )
        else:
            bucket, prefix, kind = (
                self.settings.archive_bucket,
                self.settings.archive_prefix,
                "archived",
            )
        return bucket, f"{prefix}run={self.run_id}/{entry.path}", kind

    def _already_gone(self, entry: Entry, bucket: str, key: str, kind: str) -> Outcome:
        """Return the outcome for a missing source: archived by an earlier call if a complete copy
        exists, otherwise taken by another run or a person."""
        copy = self._head(bucket, key)
        if copy is not None and copy["ContentLength"] == entry.size:
            return Outcome(kind)
        return Outcome(
            "gone", "is no longer in the raw zone; another run archived it, or somebody removed it"
        )

    def _delete(self, entry: Entry, kind: str) -> Outcome:
        """Delete the source if it is still the version that was copied."""
        try:
            self.s3.delete_object(Bucket=entry.bucket, Key=entry.key, IfMatch=f'"{entry.etag}"')
        except ClientError as error:
            if _status(error) not in (404, 412):
                raise
            if self._head(self.settings.raw_bucket, entry.key) is not None:
                return Outcome(
                    "changed",
                    "was overwritten while it was archived; the version that was read is in the "
                    "archive, the new one is left for the next run",
                )
        return Outcome(kind)  # deleted, by this request or an earlier one

    def _copy(self, entry: Entry, source: Mapping[str, Any], bucket: str, key: str) -> None:
        """Copy the version of the manifest."""
        if entry.size > self.settings.multipart_threshold:
            self._copy_in_parts(entry, source, bucket, key)
            return
        self.s3.copy_object(
            Bucket=bucket,
            Key=key,
            CopySource={"Bucket": entry.bucket, "Key": entry.key},
            CopySourceIfMatch=entry.etag,
        )

    def _copy_in_parts(
        self, entry: Entry, source: Mapping[str, Any], bucket: str, key: str
    ) -> None:
        properties = {
            name: source[name]
            for name in ("ContentType", "ContentEncoding", "Metadata")
            if source.get(name)
        }
        upload_id = self.s3.create_multipart_upload(Bucket=bucket, Key=key, **properties)[
            "UploadId"
        ]
        target = {"Bucket": bucket, "Key": key, "UploadId": upload_id}
        starts = range(0, entry.size, self.settings.part_size)
        try:
            with ThreadPoolExecutor(8) as pool:
                parts = list(pool.map(lambda start: self._copy_part(entry, target, start), starts))
            self.s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
        except (ClientError, BotoCoreError, OutOfTime):
            self.s3.abort_multipart_upload(**target)
            raise

    def _copy_part(self, entry: Entry, target: Mapping[str, str], start: int) -> dict[str, Any]:
        if self.clock() >= self.deadline:
            raise OutOfTime
        number = start // self.settings.part_size + 1
        last = min(start + self.settings.part_size, entry.size) - 1
        response = self.s3.upload_part_copy(
            **target,
            PartNumber=number,
            CopySourceIfMatch=entry.etag,
            CopySource={"Bucket": entry.bucket, "Key": entry.key},
            CopySourceRange=f"bytes={start}-{last}",
        )
        return {"PartNumber": number, "ETag": response["CopyPartResult"]["ETag"]}

    def _head(self, bucket: str, key: str) -> Mapping[str, Any] | None:
        try:
            return self.s3.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if _status(error) == 404:
                return None
            raise


def _status(error: ClientError | BotoCoreError) -> int:
    """Return the HTTP status of the response, or 0 if there is none."""
    response = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _whole_lines(body: bytes) -> list[bytes]:
    return body[: body.rfind(b"\n") + 1].splitlines(keepends=True)


def _parse(lines: list[bytes], offset: int) -> list[Entry]:
    entries = []
    for line in lines:
        offset += len(line)
        entries.append(Entry.from_line(line, offset))
    return entries
