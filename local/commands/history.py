"""`python -m local history`: what changed the lake, a file or a key."""

from __future__ import annotations

from collections.abc import Sequence

import boto3
from botocore.exceptions import EndpointConnectionError

from local.commands import operate
from tools import SetupError, history
from tools.lake import Lake
from tools.template import REGION, Template


def main(argv: Sequence[str]) -> int:
    """Print the history; return 1 if it does not contain what the options name."""
    parser = history.parser("python -m local")
    operate.add_place(parser)
    options = parser.parse_args(argv)
    if options.lake:
        operate.check_folder(options.lake)
        lake = Lake.in_folder(options.lake, options.archive)
    else:
        lake = on_endpoint(options.endpoint)
    return history.show(lake, options, print, operate.complain)


def on_endpoint(endpoint: str) -> Lake:
    """Return the lake of a local AWS. Raises SetupError if nothing listens there."""
    session = boto3.Session("local", "local", region_name=REGION)
    try:
        session.client("s3", endpoint_url=endpoint).list_buckets()
    except EndpointConnectionError:
        raise SetupError(operate.NOT_RUNNING.format(endpoint)) from None
    return Lake.of_deployment(session, Template.load().outputs(), endpoint)
