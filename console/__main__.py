"""Start the console for a local AWS or a deployed environment: `python -m console`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from client import SetupError

PORT = 8080
NOT_INSTALLED = (
    "The console needs NiceGUI, which is not installed: run `make console` or `make up`, which "
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
    arguments = options(argv)
    try:
        import nicegui  # noqa: F401  # imported first: it may not be installed
    except ModuleNotFoundError:
        raise SetupError(NOT_INSTALLED) from None
    from client import places
    from client.operations import caller
    from console import app, look
    from console.data import Lake
    from console.operations import Operator

    place = (
        places.on_aws(arguments.env) if arguments.env else places.on_endpoint(arguments.endpoint)
    )
    lake = Lake(place)
    author = "" if place.local else caller(place.clients.session.client("sts"))
    console = look.Console(lake, Operator(lake, place.local or arguments.operate, author))
    print(f"The console: http://127.0.0.1:{arguments.port}", flush=True)
    app.serve(console, arguments.port)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SetupError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
