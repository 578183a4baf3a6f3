"""Only this machine's browser, from the console's own pages, may talk to the console."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from console.guard import Guard, refusal

PORT = 8080


def request(*headers: tuple[str, str], upgrade: bool = False) -> str | None:
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    return refusal(encoded, PORT, upgrade)


OWN = ("host", "127.0.0.1:8080")


def test_the_consoles_own_pages_may_ask() -> None:
    assert request(OWN) is None
    assert request(("Host", "localhost:8080"), ("Origin", "http://localhost:8080")) is None
    assert (
        request(OWN, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")) is None
    )


@pytest.mark.parametrize(
    "host", ["evil.example:8080", "127.0.0.1", "127.0.0.1:9999", "127.0.0.1:8080.evil.example", ""]
)
def test_a_name_that_was_bound_to_this_machine_is_refused(host: str) -> None:
    assert request(("host", host)) is not None


def test_two_hosts_or_none_are_refused() -> None:
    assert request(OWN, ("host", "evil.example")) is not None
    assert request() is not None


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:8080", "http://127.0.0.1:9999"]
)
@pytest.mark.parametrize("upgrade", [False, True])
def test_another_sites_page_may_not_ask(origin: str, upgrade: bool) -> None:
    assert request(OWN, ("origin", origin), upgrade=upgrade) is not None


def test_another_sites_image_or_script_is_refused_but_a_link_is_followed() -> None:
    site = ("sec-fetch-site", "cross-site")
    assert request(OWN, site, ("sec-fetch-mode", "no-cors")) is not None
    assert request(OWN, site, ("sec-fetch-mode", "navigate")) is None
    assert request(OWN, site, ("sec-fetch-mode", "navigate"), upgrade=True) is not None
    form = (site, ("sec-fetch-mode", "navigate"), ("origin", "http://evil.example"))
    assert request(OWN, *form) is not None


def talk(kind: str, headers: list[tuple[bytes, bytes]]) -> list[dict[str, Any]]:
    """Return the messages that the guard sends; the application behind it answers with 200."""
    sent: list[dict[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(application, PORT)({"type": kind, "headers": headers}, receive, send))
    return sent


def test_a_refused_request_gets_403_and_a_refused_websocket_is_closed() -> None:
    evil = [(b"host", b"127.0.0.1:8080"), (b"origin", b"http://evil.example")]
    assert talk("http", evil)[0]["status"] == 403
    assert talk("websocket", evil) == [
        {"type": "websocket.close", "code": 1008, "reason": "the request comes from another site"}
    ]


def test_an_answer_may_not_be_framed_and_loads_nothing_from_elsewhere() -> None:
    headers = dict(talk("http", [(b"host", b"localhost:8080")])[0]["headers"])
    assert headers[b"x-frame-options"] == b"DENY"
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "https:" not in policy and "http:" not in policy
