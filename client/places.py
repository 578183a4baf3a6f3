"""Where an environment's things lie, by the outputs of its stack, and its clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.config import Config
from botocore.exceptions import EndpointConnectionError

from client import SetupError, aws
from client.aws import AWS_ERRORS, explained
from client.lake import Lake
from client.operations import Operations
from client.template import Template

RUNS = "runs/"  # below the lake's bucket, as the template's RunsPrefix
REJECTED = "rejected/"
SERVICES = ("s3", "stepfunctions", "athena", "logs")
RIGHTS = "docs/iam.md names the policies for people"
# Seconds between two looks at what runs. Step Functions allows an account two ListExecutions a
# second in most regions.
AWS_PAUSE, LOCAL_PAUSE = 4.0, 0.5
CONFIG = {"max_pool_connections": 32, "retries": {"mode": "standard", "total_max_attempts": 5}}


class Clients:
    """boto3's clients by the name of the service, which can be made anew after a login."""

    def __init__(self, login: Callable[[], Any], config: Config, endpoint: str | None) -> None:
        self._login, self._options = login, {"config": config, "endpoint_url": endpoint}
        self.renew()

    def renew(self) -> None:
        """Read the credentials anew and make all clients with them."""
        self.session = self._login()
        self._made = {name: self.session.client(name, **self._options) for name in SERVICES}

    def __getitem__(self, service: str) -> Any:
        return self._made[service]


@dataclass(frozen=True)
class Place:
    """One environment: its names and its clients."""

    name: str
    region: str
    local: bool
    raw_bucket: str
    raw_prefix: str
    lake_bucket: str
    archive_bucket: str
    archive_prefix: str
    state_machine: str
    database: str
    workgroup: str
    job_log: str
    outputs: Mapping[str, str]
    endpoint: str | None
    clients: Clients

    @property
    def pause(self) -> float:
        """Seconds between two looks at what runs."""
        return LOCAL_PAUSE if self.local else AWS_PAUSE

    def operations(self) -> Operations:
        """Return the client of operations, with the credentials of now."""
        clients = self.clients["stepfunctions"], self.clients["s3"]
        return Operations(*clients, self.state_machine, self.lake_bucket, RUNS)

    def lake(self) -> Lake:
        """Return the lake as its files in S3, read with the credentials of now."""
        return Lake.of_deployment(self.clients.session, self.outputs, self.endpoint)

    @classmethod
    def of(
        cls,
        name: str,
        outputs: Mapping[str, str],
        login: Callable[[], Any],
        config: Config,
        endpoint: str | None = None,
    ) -> Place:
        """Return the environment with the outputs of its stack; `endpoint` is that of a local
        AWS, `login` makes boto3's session."""
        clients = Clients(login, config, endpoint)
        raw_bucket, _, raw_prefix = outputs["RawZone"].removeprefix("s3://").partition("/")
        archive, _, prefix = outputs["Archive"].removeprefix("s3://").partition("/")
        return cls(
            name=name,
            region=clients["s3"].meta.region_name,
            local=endpoint is not None,
            raw_bucket=raw_bucket,
            raw_prefix=raw_prefix,
            lake_bucket=outputs["Lake"].removeprefix("s3://").rstrip("/"),
            archive_bucket=archive,
            archive_prefix=prefix,
            state_machine=outputs["StateMachineArn"],
            database=outputs["Database"],
            workgroup=outputs["WorkGroup"],
            job_log=f"/aws-glue/delta-lake-{name}/output",
            outputs=outputs,
            endpoint=endpoint,
            clients=clients,
        )


def on_endpoint(endpoint: str) -> Place:
    """Return the environment that a local AWS plays. Raises SetupError if nothing listens there."""
    template = Template.load(endpoint=endpoint)
    name = template.parameters["EnvironmentName"]
    config = Config(**CONFIG, **aws.LOCAL)
    place = Place.of(name, template.outputs(), aws.local_session, config, endpoint)
    try:
        place.clients["s3"].list_buckets()
    except EndpointConnectionError:
        raise SetupError(
            f"Nothing listens at {endpoint}: start it with `make up`, or say --endpoint URL"
        ) from None
    return place


def on_aws(environment: str) -> Place:
    """Return a deployed environment, with the credentials and region of the AWS command line."""
    try:
        stacks = aws.session().client("cloudformation")
        stack = stacks.describe_stacks(StackName=f"delta-lake-{environment}")["Stacks"][0]
    except AWS_ERRORS as error:
        raise SetupError(
            f"The stack delta-lake-{environment} cannot be read. {explained(error, RIGHTS)}. Say "
            "the environment's name with --env"
        ) from None
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    return Place.of(environment, outputs, aws.session, Config(**CONFIG))
