"""moto as a server in this process."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

Application = TypeVar("Application")
HOST = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")
SAME_SITE = ("none", "same-origin")
POLL = 0.02  # seconds after which it is seen that it shall end; moto's own server takes 0.5


class OwnOrigin:
    """Stands before moto: a browser of this machine also shows pages of other origins, and those
    may neither write nor read here. Programs send no `Origin`."""

    def __init__(self, app: Any, port: int) -> None:
        self.app, self.port = app, port

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if self.is_foreign(environ):
            body = b"Refused: the request comes from a page of another origin\n"
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [body]
        return self.app(environ, start_response)

    def is_foreign(self, environ: dict[str, Any]) -> bool:
        """Whether a request comes from a page of another origin, or by a name that such a page has
        bound to this machine."""
        host = environ.get("HTTP_HOST", "").partition(":")[0].lower()
        if host not in NAMES and not host.endswith(".localhost"):  # of a bucket
            return True
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and origin not in [f"http://{name}:{self.port}" for name in NAMES]:
            return True
        link = environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        link = link and environ.get("REQUEST_METHOD") == "GET" and origin is None
        return environ.get("HTTP_SEC_FETCH_SITE", "none") not in SAME_SITE and not link


class MotoServer:
    """Answers on the loopback from `start` to `stop`, on the given port or on any.

    moto's state belongs to the process: each server begins without that of the one before.
    """

    def __init__(self, port: int = 0) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line for each request
        app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(
            HOST, port, app, threaded=True, request_handler=MotoRequestHandler
        )
        self._server.app = OwnOrigin(app, self._server.server_port)
        self._thread = Thread(target=self._server.serve_forever, args=(POLL,), daemon=True)
        self.port = self._server.server_port

    @property
    def endpoint(self) -> str:
        return f"http://localhost:{self.port}"

    def start(self) -> MotoServer:
        self._thread.start()
        urllib.request.urlopen(f"{self.endpoint}/moto-api/reset", data=b"").close()
        return self

    @contextmanager
    def wrapped(self, middleware: Callable[[Any], Application]) -> Iterator[Application]:
        """Send all requests through a WSGI application in front of moto's while the block runs."""
        behind = self._server.app
        application = middleware(behind)
        self._server.app = application  # type: ignore[assignment]
        try:
            yield application
        finally:
            self._server.app = behind

    def stop(self) -> None:
        """Returns once the port is free."""
        self._server.shutdown()
        self._thread.join()

    def __enter__(self) -> MotoServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
