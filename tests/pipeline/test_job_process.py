"""The job in a process of its own, with a real Spark."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from local import runtime
from local.aws import job
from local.aws.job import JobProcess, job_arguments

PRODUCTS = "product_id,department_id,department,product_name\n1,4,Dairy,Milk\n"


def processes_that_hold(file: Path) -> int:
    count = 0
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            count += str(file) in maps.read_text("utf-8", "replace")
        except OSError:  # it has ended, or is another's
            continue
    return count


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which files a process holds")
def test_a_brief_session_keeps_its_classes_and_the_next_one_uses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, raw = tmp_path / "kept" / "classes.jsa", tmp_path / "raw"
    for folder in (archive.parent, raw):
        folder.mkdir()
    (raw / "products.csv").write_text(PRODUCTS)
    for module in (runtime, job):
        monkeypatch.setattr(module, "class_archive", lambda: archive)

    with JobProcess(brief=True, warm=True) as first:
        assert first.keeps_classes
        assert first.run(job_arguments(raw, tmp_path / "first", "run-1")) == 0
    assert list(archive.parent.iterdir()) == [archive]

    lines: list[str] = []
    with JobProcess(warm=True) as second:
        assert not second.keeps_classes
        assert second.run(job_arguments(raw, tmp_path / "second", "run-1"), lines.append) == 0
        assert processes_that_hold(archive) == 1
    assert all("[run-1]" in line or line.startswith('{"run_id"') for line in lines)


@pytest.mark.long
def test_a_session_that_is_killed_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "classes.jsa"
    for module in (runtime, job):
        monkeypatch.setattr(module, "class_archive", lambda: archive)
    process = JobProcess(brief=True, warm=True)
    process.kill()
    process.close()
    assert not archive.exists()
