"""A process that runs the job again and again in one Spark: one JSON list of arguments a line in, progress and `exit N` lines out."""
from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).resolve().parent.parent / "src" / "glue_etl.py"


def load_job() -> ModuleType:
    """The deployed script as a module."""
    if "glue_etl" not in sys.modules:
        spec = importlib.util.spec_from_file_location("glue_etl", SCRIPT)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules["glue_etl"] = module
        spec.loader.exec_module(module)
    return sys.modules["glue_etl"]


def main() -> None:
    job = load_job()
    for line in sys.stdin:
        try:
            code = job.main(json.loads(line))
        except SystemExit as stop:
            code = int(stop.code or 0)
        print(f"exit {code}", flush=True)


if __name__ == "__main__":
    main()
