"""Filling an empty environment: what is copied, what is refused, and the rebuild at its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from client.operations import Operations, Outcome
from deploy.__main__ import main
from deploy.restore import AUTHOR
from deploy.stack import outputs_of
from tests.unit.account import REGION, account

FILES = {
    "Archive": ["run=run-1/orders/1.csv", "run=run-2/products.csv"],
    "Lake": [
        "rejected/files/run=run-2/x.csv",
        "runs/run-1/manifest.jsonl",
        "runs/run-2/manifest.jsonl",
        "runs/run-2/summary.json",
        "runs/intent.json",
        "lakehouse-dwh/clean_orders/a.parquet",
    ],
}
COPIED = [
    "archived/run=run-1/orders/1.csv",
    "archived/run=run-2/products.csv",
    "rejected/files/run=run-2/x.csv",
    "runs/run-1/manifest.jsonl",
    "runs/run-2/manifest.jsonl",
]


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    """An account with two environments, of which `prod` has an archive."""
    with account():
        for words in (["bootstrap"], ["up"], ["up", "--environment", "new"]):
            assert main(words) == 0
        session = boto3.Session(region_name=REGION)
        for name, files in FILES.items():
            bucket, _, prefix = outputs_of(session, "prod")[name].partition("://")[2].partition("/")
            for key in files:
                session.client("s3").put_object(Bucket=bucket, Key=prefix + key, Body=key.encode())
        yield session


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The operations that are started; the last refuses."""
    operations: list[dict[str, Any]] = []

    def run(self: Operations, asked: dict[str, Any], say: Any, poll: float) -> Outcome:
        operations.append({**asked, "machine": self.machine})
        cause = "the archive holds none" if len(operations) > 1 else None
        return Outcome("rebuild-1", cause, {"text": "2 archived files were replayed."})

    monkeypatch.setattr(Operations, "run", run)
    return operations


def keys(session: Any, environment: str) -> list[str]:
    outputs = outputs_of(session, environment)
    buckets = {outputs[name].partition("://")[2].partition("/")[0] for name in ("Archive", "Lake")}
    pages = [session.client("s3").list_objects_v2(Bucket=bucket) for bucket in buckets]
    return sorted(item["Key"] for page in pages for item in page.get("Contents", []))


def test_an_empty_environment_gets_archive_and_manifests_and_is_rebuilt(
    session: Any, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    before = keys(session, "prod")
    assert main(["restore", "--environment", "new", "--from", "prod"]) == 0
    assert keys(session, "new") == COPIED and keys(session, "prod") == before
    machine = outputs_of(session, "new")["StateMachineArn"]
    assert asked == [{"operation": "rebuild", "author": AUTHOR, "machine": machine}]
    assert capsys.readouterr().out.splitlines() == [
        "Copied 2 archived files",
        "Copied 1 rejected files",
        "Copied 2 manifests",
        "2 archived files were replayed.",
    ]
    assert main(["restore", "--environment", "new", "--from", "prod"]) == 1
    assert "is not empty: restore into a new environment" in capsys.readouterr().err
    assert len(asked) == 1


def test_a_refused_rebuild_is_said(
    session: Any, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    asked.append({})
    assert main(["up", "--environment", "third"]) == 0
    assert main(["restore", "--environment", "third", "--from", "prod"]) == 1
    assert "rebuild failed: the archive holds none" in capsys.readouterr().err
