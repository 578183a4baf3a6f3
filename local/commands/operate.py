"""`python -m local sql|rollback|replay|rebuild|optimize|vacuum`: operations on the lake.

By default on the AWS that `make up` keeps running; with --lake on the folders of `python -m local
job`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client import SetupError, places
from client.operations import Outcome, Request, Say, new_run_id, parser, request, show
from local.aws.job import JobProcess, job_arguments

ENDPOINT = os.environ.get("AWS_ENDPOINT_URL", "http://localhost:5000")


def complain(line: str) -> None:
    print(line, file=sys.stderr)


def add_place(made: argparse.ArgumentParser) -> None:
    """Where the operation runs."""
    made.add_argument("--endpoint", default=ENDPOINT, help="of the local AWS")
    made.add_argument("--lake", type=Path, help="a folder of `local job`, instead of a local AWS")
    made.add_argument(
        "--archive", type=Path, help="with --lake: folder with run=<run id>/<path> (LAKE/archived)"
    )


def check_folder(lake: Path) -> None:
    """Raise SetupError if the folder of --lake does not exist."""
    if not lake.is_dir():
        raise SetupError(f"--lake {lake}: there is no such folder")


def main(words: Sequence[str]) -> int:
    """0 when the operation was done, or answered; 1 where it was refused or failed."""
    name, *argv = words
    made = parser(name, "python -m local")
    add_place(made)
    options = made.parse_args(argv)
    return run(request(name, options), options)


def run(asked: Request, options: argparse.Namespace) -> int:
    """Runs the operation where the options say, and prints what came of it."""
    # What is printed for a program to read has no progress in it
    say = complain if options.json else print
    if options.lake:
        check_folder(options.lake)
        outcome = on_folders(asked, options.lake.resolve(), options.archive, say)
    else:
        operations = places.on_endpoint(options.endpoint).operations()
        outcome = operations.run(asked, say, poll=0.3)
    return show(outcome, options.json, print, complain)


def on_folders(asked: Request, lake: Path, archive: Path | None, say: Say) -> Outcome:
    """In a Spark of its own, without an AWS."""
    run_id = new_run_id(asked["operation"])
    arguments = [
        *job_arguments(lake / "raw", lake, run_id),
        "--ARCHIVE_PATH",
        str(archive.resolve() if archive else lake / "archived"),
        "--scriptLocation",
        "src/glue_operations.py",
        "--OPERATION",
        json.dumps(asked),
    ]
    with JobProcess() as process:
        code = process.run(arguments, lambda line: None if line[:1] == "{" else say("  " + line))
    folder = lake / "runs" / run_id
    result = _json(folder / "operation.json")
    if not code:
        return Outcome(run_id, None, result)
    cause = _json(folder / "summary.json").get("error")
    return Outcome(run_id, cause or f"It failed; Spark's own words are in {process.log}", result)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}
