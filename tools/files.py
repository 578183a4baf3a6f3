"""The files of this repository that lie in no package: the job's script and the Lambda functions,
loaded by their path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
JOB_SCRIPT = ROOT / "src" / "glue_etl.py"
OPERATIONS_SCRIPT = ROOT / "src" / "glue_operations.py"


def load_module(name: str, path: Path) -> ModuleType:
    """The file executed anew, as the module `name`. Raises FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such module to load")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by its name
    spec.loader.exec_module(module)
    return module


def load_job() -> ModuleType:
    """The deployed script as a module, the same one for all who ask."""
    return sys.modules.get("glue_etl") or load_module("glue_etl", JOB_SCRIPT)


def load_operations() -> ModuleType:
    """The script of the operations, on the same module of the job, which it imports."""
    load_job()
    loaded = sys.modules.get("glue_operations")
    return loaded or load_module("glue_operations", OPERATIONS_SCRIPT)
