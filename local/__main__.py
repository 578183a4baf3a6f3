"""`python -m local COMMAND`: the product on one machine."""

from __future__ import annotations

import importlib
import sys

from tools import SetupError, operations

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
    "job": ("local.commands.job", "run the job alone, on folders"),
    "sql": (
        "local.commands.sql",
        "Athena's console for a lake: SELECTs in its dialect, its refusals, history, CSV; "
        "INSERT, UPDATE, DELETE and MERGE correct rows",
    ),
    **{
        name: (OPERATE, meaning)
        for name, (_, meaning) in operations.FIELDS.items()
        if name != "sql"
    },
    "images": (
        "local.commands.images",
        "draw the pictures in images/ from the files that they show",
    ),
    "jars": ("local.commands.jars", "fetch what Spark needs, once"),
}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print("python -m local COMMAND [--help]")
        for name, (_, meaning) in COMMANDS.items():
            print(f"  {name:8} {meaning}")
        return 0 if len(sys.argv) == 2 and sys.argv[1] in ("-h", "--help") else 2
    try:
        module, _ = COMMANDS[sys.argv[1]]
        words = sys.argv[1:] if module == OPERATE else sys.argv[2:]
        return importlib.import_module(module).main(words)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
