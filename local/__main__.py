"""`python -m local COMMAND`: the product on one machine."""

from __future__ import annotations

import importlib
import sys

from client import SetupError

OPERATE = "local.commands.operate"
COMMANDS = {
    "run": (
        "local.commands.run",
        "uploads go the whole way to Athena: two deliveries of sample data, or your own",
    ),
    "up": (
        "local.commands.up",
        "the same, kept running: upload with the AWS CLI, query, look at each run",
    ),
    "check": (
        "local.commands.check",
        "before an upload: what would be rejected, and why; without Spark",
    ),
    "rejects": ("local.commands.rejects", "rejected rows as CSV files to fix and upload again"),
    "job": ("local.commands.job", "run the job alone, on folders"),
    "sql": (
        "local.commands.sql",
        "Athena's console for a lake: SELECTs in its dialect, its refusals, history, CSV; "
        "INSERT, UPDATE, DELETE and MERGE correct rows",
    ),
    "history": (
        "local.commands.history",
        "who changed what and when: all runs, or one run, file or key",
    ),
    "jars": ("local.commands.jars", "fetch what Spark needs, once"),
}


def commands() -> dict[str, tuple[str, str]]:
    """Return all commands: module and meaning. The job declares the operations."""
    import glue_operations  # loads pyspark; `check` needs none

    operate = {name: (OPERATE, spec.meaning) for name, spec in glue_operations.SPECS.items()}
    return COMMANDS | {name: command for name, command in operate.items() if name not in COMMANDS}


def main() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS and name not in commands():
        print("python -m local COMMAND [--help]")
        for command, (_, meaning) in commands().items():
            print(f"  {command:8} {meaning}")
        return 0 if len(sys.argv) == 2 and name in ("-h", "--help") else 2
    try:
        module, _ = COMMANDS.get(name) or commands()[name]
        words = sys.argv[1:] if module == OPERATE else sys.argv[2:]
        return importlib.import_module(module).main(words)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
