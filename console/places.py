"""Where an environment's things lie, by the outputs of its stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from tools import SetupError
from tools.template import REGION, Template

RUNS = "runs/"  # below the lake's bucket, as the template's RunsPrefix
DWH, REJECTED = "lakehouse-dwh/", "rejected/"
SERVICES = ("s3", "stepfunctions", "athena", "logs")


@dataclass(frozen=True)
class Place:
    """One environment: names, and boto3's clients by the name of the service."""

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
    session: Any
    endpoint: str | None
    clients: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        name: str,
        outputs: Mapping[str, str],
        session: Any,
        config: Config,
        endpoint: str | None = None,
    ) -> Place:
        """Return the environment with the outputs of its stack; `endpoint` is that of a local
        AWS."""
        clients = {
            service: session.client(service, endpoint_url=endpoint, config=config)
            for service in SERVICES
        }
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
            session=session,
            endpoint=endpoint,
            clients=clients,
        )


def on_endpoint(endpoint: str) -> Place:
    """The environment that a local AWS plays."""
    config = Config(max_pool_connections=32, s3={"addressing_style": "path"})
    session = boto3.Session("local", "local", region_name=REGION)
    template = Template.load(endpoint=endpoint)
    name = template.parameters["EnvironmentName"]
    return Place.of(name, template.outputs(), session, config, endpoint)


def on_aws(environment: str) -> Place:
    """A deployed environment, with the credentials and the region of the AWS command line."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        session = boto3.Session()
        stack = f"delta-lake-{environment}"
        found = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    except (ClientError, BotoCoreError) as error:
        raise SetupError(
            f"The stack delta-lake-{environment} cannot be read: {error}. Say the environment's "
            "name with --env, and credentials and region as for the AWS command line"
        ) from None
    outputs = {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}
    return Place.of(environment, outputs, session, Config(max_pool_connections=32))
