"""`python -m local check`: what a run would reject, before anything is uploaded."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client import check

SHOWN = 20  # rejected rows of a file


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m local check",
        description="Check files before they are uploaded. Exit code 0: all good; 1: a row would "
        "be rejected or a file set aside; 2: wrong usage.",
    )
    made.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    made.add_argument("--json", action="store_true", help="print JSON, with all rejected rows")
    made.add_argument(
        "--limit", type=int, default=SHOWN, help=f"rejected rows shown of a file ({SHOWN}; 0: all)"
    )
    made.add_argument(
        "--max-rejected-percent", type=int, default=50, help="as the parameter MaxRejectedPercent"
    )
    made.add_argument("--lake", type=Path, help="folder of a lake whose ledger names known files")
    made.add_argument("--endpoint", help="a local AWS whose ledger names known files")
    return made


def main(argv: Sequence[str]) -> int:
    """Return 0 if all files are good, 1 if not."""
    made = parser()
    options = made.parse_args(argv)
    for path in (*options.paths, *filter(None, [options.lake])):
        if not path.exists():
            made.error(f"{path}: there is no such file or folder")
    limit = None if options.json or not options.limit else options.limit
    files = []
    for place in options.paths:
        for path, file in check.paths_below(place):
            with file.open("rb") as stream:
                percent = options.max_rejected_percent
                files.append(check.check_file(path, stream, None, percent, limit))
    lake = _lake(options)
    ledger = check.ledger_rows(lake, (file.digest for file in files)) if lake else []
    check.mark_duplicates(files, ledger)
    if options.json:
        print(json.dumps(_document(files), ensure_ascii=False, default=vars))
    else:
        for checked in files:
            print("\n".join(check.lines_of(checked, options.limit)))
        print(f"\n{check.totals(files)}\n{check.NOT_CHECKED}")
    return 0 if all(file.is_clean for file in files) else 1


def _document(files: Sequence[check.CheckedFile]) -> dict[str, Any]:
    return {
        "clean": all(file.is_clean for file in files),
        "files": files,
        "not_checked": check.NOT_CHECKED,
    }


def _lake(options: argparse.Namespace) -> Any:
    """The lake whose ledger is asked; None if none is named."""
    if options.lake:
        from client.lake import Lake  # loads pyarrow, which takes longer than a check

        return Lake.in_folder(options.lake)
    if options.endpoint:
        from client.places import on_endpoint

        return on_endpoint(options.endpoint).lake()
    return None
