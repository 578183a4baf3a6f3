"""The local AWS answers programs and its own pages, and no page of another origin."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from local.aws.moto_server import MotoServer, OwnOrigin


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


def ask(server: MotoServer, method: str = "GET", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/raw", b"x" if method == "PUT" else None, named
    )
    request.method = method
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_another_origins_page_may_not_put_into_the_raw_zone(server: MotoServer) -> None:
    assert ask(server, "PUT", Origin="http://evil.example") == 403
    assert ask(server, "PUT", Origin="null") == 403
    assert ask(server, "OPTIONS", Origin="http://evil.example") == 403
    assert ask(server) == 404  # no bucket has been made


def test_programs_and_own_pages_are_answered(server: MotoServer) -> None:
    assert ask(server, "PUT") == 200
    own = f"http://localhost:{server.port}"
    assert ask(server, "GET", Origin=own, Sec_Fetch_Site="same-origin") == 200


@pytest.mark.parametrize(
    ("environ", "foreign"),
    [
        ({"HTTP_HOST": "localhost:5000"}, False),
        ({"HTTP_HOST": "bucket.localhost:5000"}, False),
        ({"HTTP_HOST": "evil.example:5000"}, True),
        ({"HTTP_HOST": "localhost:5000", "HTTP_SEC_FETCH_SITE": "cross-site"}, True),
        (
            {
                "HTTP_HOST": "localhost:5000",
                "HTTP_SEC_FETCH_SITE": "cross-site",
                "HTTP_SEC_FETCH_MODE": "navigate",
                "REQUEST_METHOD": "GET",
            },
            False,
        ),
    ],
)
def test_a_foreign_request_is_known_by_its_headers(environ: dict[str, str], foreign: bool) -> None:
    assert OwnOrigin(None, 5000).is_foreign(environ) is foreign
