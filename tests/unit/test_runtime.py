"""Spark's classes, which Java keeps from one session for the next."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from local import runtime


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runtime, "STATE", tmp_path)
    monkeypatch.setattr(runtime, "jars", list)
    runtime.class_archive().parent.mkdir()
    return tmp_path


def test_each_java_has_an_archive_of_its_own(
    state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = set()
    for release in ("17.0.9", "17.0.15"):
        home = tmp_path / "java"
        home.mkdir(exist_ok=True)
        (home / "release").write_text(release)
        monkeypatch.setattr(runtime, "java_home", lambda home=home: str(home))
        names.add(runtime.class_archive())
    monkeypatch.setattr(runtime, "java_home", lambda: str(tmp_path / "another"))
    assert len(names | {runtime.class_archive()}) == 3


def test_spark_gets_the_archive_once_there_is_one(state: Path) -> None:
    assert ".jsa" not in runtime.spark_environment()["PYSPARK_SUBMIT_ARGS"]
    runtime.class_archive().touch()
    option = f"-XX:SharedArchiveFile={runtime.class_archive()}"
    assert option in runtime.spark_environment()["PYSPARK_SUBMIT_ARGS"]
    without = runtime.spark_environment(use_class_archive=False)
    assert option not in without["PYSPARK_SUBMIT_ARGS"]


def test_what_java_has_written_takes_the_place_of_older_archives(state: Path) -> None:
    archive = runtime.class_archive()
    written, old = archive.with_suffix(".written"), archive.with_name("classes-of-an-old-java.jsa")
    for file in (written, old):
        file.write_text(file.name)
    runtime.keep_classes(written)
    assert list(archive.parent.iterdir()) == [archive]
    assert archive.read_text() == written.name

    runtime.keep_classes(archive.with_suffix(".never-written"))
    assert archive.exists()


def test_java_starts_without_an_archive_that_does_not_fit_and_says_nothing(state: Path) -> None:
    runtime.class_archive().write_bytes(b"of another Java" * 1000)
    java = [
        f"{runtime.java_home()}/bin/java",
        *runtime._class_options().split(),
        "-Xinternalversion",
    ]
    started = subprocess.run(java, capture_output=True, text=True)
    assert started.returncode == 0
    assert len(started.stdout.splitlines()) == 1


def test_an_archive_is_only_kept_where_java_has_one_of_its_own_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def java_without(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        asked.append(command[1])
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(runtime.subprocess, "run", java_without)
    assert not runtime.can_keep_classes()
    assert asked == ["-Xshare:on", "-Xshare:dump"]
