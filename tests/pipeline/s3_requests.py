"""The S3 requests that clients send to the local AWS while a block runs.

    with record_s3(aws) as requests:
        run_the_job()
    assert requests.log_counts()["clean_orders"].fetched <= 3

`aws` is a running `LocalAws` or `MotoServer` of this process. Requests of other processes are
recorded too, such as those of a Spark that runs the job.
"""

from __future__ import annotations

import io
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import unescape

from local.aws.moto_server import MotoServer
from local.aws.server import LocalAws

LOG_FOLDER = re.compile(r"(?:^|/)([^/]+)/_delta_log(?:/|$)")


@dataclass(frozen=True)
class S3Request:
    """A request and its answer.

    key      of the object; empty for a request on the bucket, such as a listing
    query    the parameters, `list-type` and `prefix` of a listing among them
    status   of the answer
    objects  number of objects in the page that a listing answers
    source   bucket and key that a copy reads
    deleted  keys that a bulk deletion names
    """

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    status: int
    objects: int = 0
    source: str = ""
    deleted: tuple[str, ...] = ()

    @property
    def is_listing(self) -> bool:
        """Whether it asks for a page of the bucket's objects."""
        return self.method == "GET" and not self.key and ("prefix" in self.query or not self.query)

    @property
    def path(self) -> str:
        """The key, or the prefix of a listing."""
        return self.key or self.query.get("prefix", "")

    @property
    def log_table(self) -> str | None:
        """Name of the table whose `_delta_log` it concerns, or None."""
        match = LOG_FOLDER.search(self.path)
        return match[1] if match else None

    def __str__(self) -> str:
        parameters = "&".join(f"{name}={value}" for name, value in sorted(self.query.items()))
        target = f"/{self.bucket}/{self.key}" + (f"?{parameters}" if parameters else "")
        return f"{self.method} {target} {self.status}"


@dataclass(frozen=True)
class LogCounts:
    """Requests on the `_delta_log` of a table.

    listings  pages listed
    listed    objects in these pages
    fetched   GET of objects, each range by itself
    headed    HEAD of objects
    written   PUT, POST and DELETE; a bulk deletion names its keys in the body and is not counted
    absent    GET and HEAD of objects that do not exist; they are also in `fetched` and `headed`
    """

    listings: int = 0
    listed: int = 0
    fetched: int = 0
    headed: int = 0
    written: int = 0
    absent: int = 0


class S3Requests(list[S3Request]):
    """Recorded requests in the order of their answers."""

    def on_log(self, table: str) -> list[S3Request]:
        """Return the requests on the `_delta_log` of a table."""
        return [request for request in self if request.log_table == table]

    def fetched(self, table: str, suffix: str = "") -> list[str]:
        """Return the names of log objects read by GET, with repetitions, e.g. those of JSON."""
        keys = [request.key for request in self.on_log(table) if request.method == "GET"]
        return [key.rpartition("/")[2] for key in keys if key and key.endswith(suffix)]

    def log_counts(self) -> dict[str, LogCounts]:
        """Return the counts of each table whose log was asked for."""
        tables = sorted({request.log_table for request in self if request.log_table})
        return {table: self._counts(self.on_log(table)) for table in tables}

    @staticmethod
    def _counts(requests: list[S3Request]) -> LogCounts:
        kinds: Counter[str] = Counter()
        for request in requests:
            if request.is_listing:
                kinds["listings"] += 1
                kinds["listed"] += request.objects
                continue
            kind = {"GET": "fetched", "HEAD": "headed"}.get(request.method, "written")
            kinds[kind] += 1
            kinds["absent"] += kind != "written" and request.status == 404
        return LogCounts(**kinds)


Start = Callable[..., Any]
Application = Callable[[dict[str, Any], Start], Iterable[bytes]]


class _Recorder:
    """A WSGI application in front of moto's that records requests on S3."""

    def __init__(self, application: Application) -> None:
        self.application, self.requests = application, S3Requests()
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        if not _is_s3(environ):
            return self.application(environ, start_response)
        status = 0

        def start(line: str, *arguments: Any) -> Any:
            nonlocal status
            status = int(line.split()[0])
            return start_response(line, *arguments)

        bucket, _, key = _path(environ).lstrip("/").partition("/")
        query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        deleted = _deleted(environ) if "delete" in query and not key else ()
        answer = self.application(environ, start)
        source = unquote(environ.get("HTTP_X_AMZ_COPY_SOURCE", "")).lstrip("/")
        request = S3Request(
            environ["REQUEST_METHOD"], bucket, key, query, status, 0, source, deleted
        )
        if request.is_listing:
            body = b"".join(answer)
            if hasattr(answer, "close"):
                answer.close()
            answer = [body]
            request = replace(request, objects=body.count(b"<Contents>"))
        with self.lock:
            self.requests.append(request)
        return answer


def _is_s3(environ: dict[str, Any]) -> bool:
    """Return whether a request is signed for S3; without a signature moto takes it for S3."""
    signed = environ.get("HTTP_AUTHORIZATION", "")
    match = re.search(r"/([a-z0-9-]+)/aws4_request", signed)
    return match[1] == "s3" if match else not environ["PATH_INFO"].startswith("/moto-api")


def _deleted(environ: dict[str, Any]) -> tuple[str, ...]:
    """Return the keys of a bulk deletion; the application reads the body again."""
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    environ["wsgi.input"] = io.BytesIO(body)
    return tuple(unescape(key) for key in re.findall("<Key>(.*?)</Key>", body.decode()))


def _path(environ: dict[str, Any]) -> str:
    """Return the request's path as sent; WSGI's own folds `//` and decodes as Latin-1."""
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    return unquote(raw.partition("?")[0]) if raw else environ["PATH_INFO"]


@contextmanager
def record_s3(aws: LocalAws | MotoServer) -> Iterator[S3Requests]:
    """Record the S3 requests that a server answers while the block runs."""
    server = aws if isinstance(aws, MotoServer) else aws.server
    with server.wrapped(_Recorder) as recorder:
        yield recorder.requests
