"""`python -m console`: the console in a browser, for a local AWS or a deployed environment."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tools import SetupError

PORT = 8080
NOT_INSTALLED = (
    "The console needs NiceGUI, which is not installed: say `make console` or `make up`, which "
    "install it, or pip install -r requirements-console.txt"
)


def options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m console", description="The lakehouse in a browser, on this machine only."
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--endpoint",
        default=os.environ.get("AWS_ENDPOINT_URL", "http://localhost:5000"),
        help="of a local AWS (that of `make up`); there everything may be changed",
    )
    where.add_argument("--env", help="a deployed environment, such as prod")
    parser.add_argument(
        "--operate",
        action="store_true",
        help="with --env: uploads and operations are allowed; without it the console only reads",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"of the console ({PORT})")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    asked = options(argv)
    try:
        import nicegui  # noqa: F401  # asked first: it may not be there
    except ModuleNotFoundError:
        raise SetupError(NOT_INSTALLED) from None
    from console import app, look, places
    from console.data import Lake
    from console.operations import Operator

    place = places.on_aws(asked.env) if asked.env else places.on_endpoint(asked.endpoint)
    lake = Lake(place)
    console = look.Console(lake, Operator(lake, place.local or asked.operate))
    print(f"The console: http://127.0.0.1:{asked.port}", flush=True)
    app.serve(console, asked.port)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SetupError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
