"""`python -m local job`: the deployed job on folders, with the run in numbers as a table at the end."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from local.runtime import ROOT, STATE, spark_environment

MEASURES = (
    "rows_read",
    "admitted",
    "inserted",
    "updated",
    "unchanged",
    "superseded",
    "rejected",
    "parked",
)


class JobProcess:
    """The job in a process of its own that keeps its Spark between runs; Spark's own words go to a log file."""

    def __init__(
        self,
        memory: str = "2g",
        settings: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        warm: bool = False,
    ) -> None:
        """`warm` starts Spark at once, not in the first run that has something to load."""
        STATE.mkdir(parents=True, exist_ok=True)
        self.log = STATE / "spark.log"
        self._errors = self.log.open("a")
        variables = {
            **os.environ,
            **spark_environment(memory, settings),
            **(environment or {}),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "local.worker", *(["--warm"] if warm else [])]
        self._process = subprocess.Popen(
            command,
            env=variables,
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )

    def run(self, arguments: Sequence[str], show: Callable[[str], None] = lambda line: None) -> int:
        """Run the job once; `show` gets each line of progress. Returns its exit code."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(list(arguments)) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("exit "):
                return int(line.split()[1])
            show(line.rstrip("\n"))
        return self._process.wait() or 1

    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process and its Spark at once, without a chance to tidy up."""
        os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()
        self._errors.close()

    def __enter__(self) -> JobProcess:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def job_arguments(raw: Path, lake: Path, run_id: str, force: bool = False) -> list[str]:
    """The job's arguments for folders."""
    return [
        "--RAW_PATH",
        str(raw),
        "--LAKEHOUSE_PATH",
        str(lake / "lakehouse-dwh"),
        "--REJECTED_PATH",
        str(lake / "rejected"),
        "--RUNS_PATH",
        str(lake / "runs"),
        "--RUN_ID",
        run_id,
        "--FORCE",
        str(force).lower(),
    ]


def new_run_id() -> str:
    return f"local-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S%f}"


def format_summary(summary: dict[str, Any]) -> str:
    """The run in numbers, as a person reads it."""
    files = summary["files"]
    lines = [
        f"Run {summary['run_id']}: {summary['status']}"
        + (f" ({summary['error']})" if summary["error"] else ""),
        "Files: "
        + ", ".join(
            f"{files[name]} {name.replace('_', ' ')}"
            for name in ("listed", "loaded", "duplicate", "set_aside", "changed")
        ),
    ]
    lines += [
        f"  set aside: {count} {reason}" for reason, count in files["set_aside_by_reason"].items()
    ]
    lines.append(f"{'':12}" + "".join(f"{name.replace('_', ' '):>12}" for name in MEASURES))
    for dataset, numbers in summary["datasets"].items():
        lines.append(f"{dataset:12}" + "".join(f"{numbers[name]:>12,}" for name in MEASURES))
    reasons = [
        f"  {count:>6,} {dataset}: {reason}"
        for dataset, numbers in summary["datasets"].items()
        for reason, count in numbers["rejected_by_reason"].items()
    ]
    lines += ["Rejected because of", *reasons] if reasons else []
    for name, table in summary["tables"].items():
        if name.startswith("clean_"):
            lines.append(
                f"{name}: {table['rows']:,} rows, version {table['version']}, {table['files_added']} data files written, "
                f"{table['files_removed']} replaced"
            )
    return "\n".join(lines)


def run_once(
    process: JobProcess, raw: Path, lake: Path, run_id: str, force: bool = False
) -> tuple[int, dict[str, Any]]:
    """One run on folders: exit code and summary."""
    steps = []

    def show(line: str) -> None:
        if not line.startswith("{"):
            steps.append(line)
            print("  " + line, flush=True)

    code = process.run(job_arguments(raw, lake, run_id, force), show)
    path = lake / "runs" / run_id / "summary.json"
    return code, json.loads(path.read_text()) if path.exists() else {}


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m local job", description="Run the job on folders."
    )
    parser.add_argument("--raw", type=Path, required=True, help="folder with the CSV exports")
    parser.add_argument(
        "--lake", type=Path, required=True, help="folder for tables, rejects and run records"
    )
    parser.add_argument("--run-id", default=new_run_id())
    parser.add_argument(
        "--force", action="store_true", help="process files again that the ledger knows"
    )
    parser.add_argument("--memory", default="2g", help="Spark's driver heap (2g)")
    options = parser.parse_args(argv)
    if not options.raw.is_dir():
        parser.error(f"--raw {options.raw}: there is no such folder")
    with JobProcess(options.memory) as process:
        code, summary = run_once(
            process, options.raw.resolve(), options.lake.resolve(), options.run_id, options.force
        )
    if summary:
        print(format_summary(summary))
        print(f"Records of the run: {options.lake / 'runs' / options.run_id}")
    if code:
        print(f"The run failed; Spark's own words are in {process.log}", file=sys.stderr)
    return code
