"""Trino in the place of DuckDB: its answers in Athena's text; what Athena refuses is refused."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from client import SetupError
from local import trino
from local.athena import AthenaError
from local.commands import sql
from local.trino import TrinoConsole

ADDRESS = "http://trino"


def kind(raw: str, *parts: Any) -> dict[str, Any]:
    return {"rawType": raw, "arguments": [{"value": part} for part in parts]}


BIGINT, VARCHAR = kind("bigint"), kind("varchar")
ROW = kind("row", {"fieldName": {"name": "a"}, "typeSignature": BIGINT})


class Pages:
    """Answers a statement page by page, as Trino's client protocol does."""

    def __init__(self, *pages: dict[str, Any]) -> None:
        self.pages, self.requests = list(pages), list[Any]()

    def __call__(self, request: urllib.request.Request) -> Any:
        self.requests.append(request)
        return Body(self.pages.pop(0))


class Body:
    def __init__(self, page: dict[str, Any]) -> None:
        self.page = page

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self) -> bytes:
        return json.dumps(self.page).encode()


def columns(**kinds: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "type": kind["rawType"], "typeSignature": kind}
        for name, kind in kinds.items()
    ]


def answer(monkeypatch: pytest.MonkeyPatch, *pages: dict[str, Any]) -> Pages:
    served = Pages(*pages)
    monkeypatch.setattr(urllib.request, "urlopen", served)
    return served


def test_an_answer_is_read_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    served = answer(
        monkeypatch,
        {"nextUri": f"{ADDRESS}/1"},
        {"columns": columns(x=BIGINT), "data": [[1]], "nextUri": f"{ADDRESS}/2"},
        {"data": [[2]]},
    )
    result = TrinoConsole({}, address=ADDRESS).query("SELECT x FROM t")
    assert (result.names, result.types, result.rows) == (["x"], ["bigint"], [(1,), (2,)])
    assert served.requests[0].data == b"SELECT x FROM t"
    assert served.requests[0].headers["X-trino-schema"] == "delta-lakehouse"


@pytest.mark.parametrize(
    ("of", "value", "text"),
    [
        (BIGINT, None, None),
        (kind("double"), 260.0, "260.0"),
        (kind("timestamp with time zone"), "2025-04-01 10:00:00.000 UTC", None),
        (kind("array", VARCHAR), ["a", None], "[a, null]"),
        (kind("map", VARCHAR, BIGINT), {"k": 1}, "{k=1}"),
        (ROW, [7], "{a=7}"),
        (kind("array", ROW), [[7], [8]], "[{a=7}, {a=8}]"),
        (kind("varbinary"), "aGU=", "68 65"),
    ],
)
def test_a_value_is_written_as_athena_writes_it(
    monkeypatch: pytest.MonkeyPatch, of: dict[str, Any], value: Any, text: str | None
) -> None:
    answer(monkeypatch, {"columns": columns(x=of), "data": [[value]]})
    expected = value if isinstance(value, str) and text is None else text
    assert TrinoConsole({}, address=ADDRESS).query("SELECT x").text_rows() == [[expected]]


def test_a_refusal_has_trinos_code_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    error = {"errorName": "COLUMN_NOT_FOUND", "message": "line 1:8: Column 'x' cannot be resolved"}
    place = {"errorLocation": {"lineNumber": 1, "columnNumber": 8}}
    answer(monkeypatch, {"error": error | place})
    with pytest.raises(AthenaError) as refused:
        TrinoConsole({}, address=ADDRESS).query("SELECT x")
    assert str(refused.value) == "COLUMN_NOT_FOUND: line 1:8: Column 'x' cannot be resolved"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM clean_orders", "Athena only reads Delta tables"),
        ("SELECT * FROM clean_orders FOR VERSION AS OF 3", "Athena has no time travel"),
    ],
)
def test_what_athena_refuses_does_not_reach_trino(
    monkeypatch: pytest.MonkeyPatch, statement: str, words: str
) -> None:
    served = answer(monkeypatch)
    with pytest.raises(AthenaError, match=words):
        TrinoConsole({}, address=ADDRESS).query(statement)
    assert served.requests == []


def test_trino_reads_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="leave out --lake"):
        sql.main(["SELECT 1", "--engine", "trino", "--lake", str(tmp_path)])


def test_a_server_with_other_bytes_is_not_unpacked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "package.tar.gz"
    package.write_bytes(b"not the server")
    for name, value in {
        "URL": package.as_uri(),
        "FOLDER": tmp_path,
        "HOME": tmp_path / "trino-server",
    }.items():
        monkeypatch.setattr(trino, name, value)
    with pytest.raises(SetupError, match="it was not unpacked"):
        trino.install()
    assert not (tmp_path / "trino-server.tar.gz").exists()
