"""`python -m local job`: the deployed job on folders, with the run in numbers as a table at the
end."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client.declared import COUNTS
from local.aws.job import JobProcess, job_arguments


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
            for name in ("listed", "loaded", "duplicate", "set_aside", "changed", "unreadable")
        ),
    ]
    lines += [
        f"  set aside: {count} {reason}" for reason, count in files["set_aside_by_reason"].items()
    ]
    lines.append(f"{'':12}" + "".join(f"{name.replace('_', ' '):>12}" for name in COUNTS))
    for dataset, numbers in summary["datasets"].items():
        lines.append(f"{dataset:12}" + "".join(f"{numbers[name]:>12,}" for name in COUNTS))
    reasons = [
        f"  {count:>6,} {dataset}: {reason}"
        for dataset, numbers in summary["datasets"].items()
        for reason, count in numbers["rejected_by_reason"].items()
    ]
    lines += ["Rejected because of", *reasons] if reasons else []
    for name, table in summary["tables"].items():
        if name.startswith("clean_"):
            lines.append(
                f"{name}: {table['rows']:,} rows, version {table['version']}, "
                f"{table['files_added']} data files written, "
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
