"""Admit only requests of a browser on this machine, from the console's own pages.

The server listens on 127.0.0.1, which keeps other machines out, but not the pages of other sites in
a browser on this machine. Two checks keep those out:

- `Host` must be the console's own. This refuses a name that an attacker has bound to 127.0.0.1
  (DNS rebinding).
- `Origin` must be the console's own. Browsers send it with each request that could change
  something and with each websocket. `Sec-Fetch-Site` must not name another site, except if a
  person follows a link.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

NAMES = ("127.0.0.1", "localhost")
# Pages need Vue's compiler (eval) and NiceGUI's inline scripts; nothing comes from elsewhere
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self' ws://127.0.0.1:* ws://localhost:*; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def refusal(headers: list[tuple[bytes, bytes]], port: int, upgrade: bool) -> str | None:
    """Return why a request with these headers is refused; None if it is admitted."""
    hosts = [f"{name}:{port}" for name in NAMES]
    requested_hosts = values(headers, b"host")
    if len(requested_hosts) != 1 or requested_hosts[0].lower() not in hosts:
        return "this console answers only as " + " or ".join(hosts)
    origins = values(headers, b"origin")
    if any(origin.lower() not in [f"http://{host}" for host in hosts] for origin in origins):
        return "the request comes from another site"
    site = values(headers, b"sec-fetch-site")
    link = values(headers, b"sec-fetch-mode") == ["navigate"] and not origins and not upgrade
    if any(value not in ("same-origin", "none") for value in site) and not link:
        return "the request comes from another site"
    return None


def values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


class Guard:
    """Middleware that refuses requests of other sites, websockets included."""

    def __init__(self, app: Application, port: int) -> None:
        self.app, self.port = app, port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        upgrade = scope["type"] == "websocket"
        reason = refusal(scope["headers"], self.port, upgrade)
        if reason is None:
            await self.app(scope, receive, send if upgrade else _with_headers(send))
        elif upgrade:
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": f"Refused: {reason}\n".encode()})


def _with_headers(send: Send) -> Send:
    """Return `send` with security headers, so that no page can be framed or sniffed."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *HEADERS]
        await send(message)

    return sending
