"""An AWS account for deployments: a moto server that is mended where it stops short."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from moto.cloudformation.models import CloudFormationBackend
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.config import default_user_config
from moto.core.responses import ActionResult
from moto.stepfunctions.responses import StepFunctionResponse

from local.aws.moto_server import MotoServer

REGION = "us-east-1"


def _execute(original: Any) -> Any:
    """moto leaves out the outputs of a stack that a change set has made, would create what is to be
    imported, keeps the tags of the deployment before, and takes each parameter that keeps its value
    for a changed one."""

    def execute(
        backend: CloudFormationBackend, change_set_name: str, stack_name: str | None = None
    ) -> None:
        change_set = next(
            candidate
            for candidate in backend.change_sets.values()
            if change_set_name in (candidate.change_set_name, candidate.change_set_id)
        )
        stack = backend.stacks[change_set.stack_id]
        if change_set.change_set_type == "IMPORT":
            change_set.template_dict["Resources"] = {}
        original(backend, change_set_name, stack_name)
        stack._parse_template()
        stack.output_map = stack._create_output_map()
        stack.tags = change_set.tags
        resources = stack.resource_map
        resources.resolved_parameters = {
            name: ",".join(value) if isinstance(value, list) else value
            for name, value in resources.resolved_parameters.items()
        }
        resources.input_parameters = dict(resources.resolved_parameters)

    return execute


def _validate(response: StepFunctionResponse) -> str:
    """moto does not know the call; of all that AWS checks, this only asks for a first state."""
    if "StartAt" in json.loads(response._get_param("definition")):
        return json.dumps({"result": "OK", "diagnostics": []})
    problem = {"code": "SCHEMA_VALIDATION_FAILED", "message": "no StartAt", "severity": "ERROR"}
    return json.dumps({"result": "FAIL", "diagnostics": [problem]})


def _protect(response: CloudFormationResponse) -> ActionResult:
    """moto lacks the call; DescribeStacks tells what it has set."""
    stack = response.cloudformation_backend.get_stack(response._get_param("StackName"))
    stack.enable_termination_protection = response._get_bool_param("EnableTerminationProtection")
    return ActionResult({"StackId": stack.stack_id})


@contextmanager
def account(**environment: str) -> Iterator[Mapping[str, str]]:
    """Runs the server, with the process's environment pointing to it."""
    default_user_config["lambda"] = {"use_docker": False}
    server = MotoServer()
    values = {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": "deployer",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        **environment,
    }
    with (
        patch.dict("os.environ", values),
        warnings.catch_warnings(),
        patch.object(
            CloudFormationBackend,
            "execute_change_set",
            _execute(CloudFormationBackend.execute_change_set),
        ),
        patch.object(
            StepFunctionResponse, "validate_state_machine_definition", _validate, create=True
        ),
        patch.object(
            CloudFormationResponse, "update_termination_protection", _protect, create=True
        ),
    ):
        warnings.simplefilter("ignore")
        with server:
            yield values
