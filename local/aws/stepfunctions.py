"""Where moto's interpreter of the Amazon States Language stops short of AWS; `install()` puts it
right in this process.

- `glue:startJobRun.sync` waits for the job run (moto fails on it),
  `athena:startQueryExecution.sync` for the query.
- `aws-sdk` calls hand on the text of a body and ISO timestamps, and name their errors as AWS does
  (`Glue.…`).
- A path that names one place gives what is there; moto wraps a field behind an index into a list.
- An execution gets a name where its caller gave none.
- Waits, retries and the polling can be shortened, so that a test of a three-hour wait takes a
  second.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import logging
import random
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from moto.stepfunctions.parser.api import HistoryEventType, TaskFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import (
    CustomErrorName,
)
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
    FailureEvent,
    FailureEventException,
)
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import (
    StatesErrorName,
)
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import (
    StatesErrorNameType,
)
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.common.string import (
    string_expression as expression_module,
)
from moto.stepfunctions.parser.asl.component.intrinsic.argument import argument as argument_module
from moto.stepfunctions.parser.asl.component.state.exec.state_task import state_task_factory
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_aws_sdk as aws_sdk_module,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_callback as callback_module,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_factory as service_factory,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_glue as glue_module,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.resource import (
    ResourceCondition,
)
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import (
    WaitFunction,
)
from moto.stepfunctions.parser.asl.eval import states as states_module
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.asl.parse.preprocessor import Preprocessor
from moto.stepfunctions.parser.asl.utils import boto_client as boto_client_module
from moto.stepfunctions.parser.asl.utils.boto_client import boto_client_for
from moto.stepfunctions.parser.models import StepFunctionsParserBackend

from client.aws import local_client


@dataclass
class Pace:
    """How long waits are: `waits` and `retries` are factors, `poll` is in seconds."""

    waits: float = 1.0
    retries: float = 1.0
    poll: float = 0.25


PACE = Pace()
_CLIENT_LOCK = threading.Lock()
_START = StepFunctionsParserBackend.start_execution
_EXTRACT = expression_module.extract_json
_PARSE = AmazonStateLanguageParser.parse
_SINGLE_PLACE = re.compile(r"\$(\.[A-Za-z_]\w*|\[\d+\])*\Z")


def replace(owner: Any, **attributes: Any) -> None:
    """Puts something else in the place of attributes of one of moto's classes or modules."""
    for name, value in attributes.items():
        setattr(owner, name, value)


def install(pace: Pace | None = None) -> None:
    """Extends moto's interpreter; calling it again only changes the pace."""
    chosen = pace or Pace()
    PACE.waits, PACE.retries, PACE.poll = chosen.waits, chosen.retries, chosen.poll
    replace(state_task_factory, state_task_service_for=service_for)
    aws_sdk_module._SERVICE_ERROR_NAMES.update({"s3": "S3", "glue": "Glue"})
    replace(WaitFunction, _wait_interval=_wait)
    replace(StepFunctionsParserBackend, start_execution=_start_named)
    replace(AmazonStateLanguageParser, parse=staticmethod(_parse))
    for module in (expression_module, argument_module, states_module):
        replace(module, extract_json=_extract)
    replace(boto_client_module, boto3=SimpleNamespace(client=_client))
    # The interpreter logs every failure that a state catches as an error with a dump of its tree.
    logging.getLogger("moto.stepfunctions").setLevel(logging.CRITICAL)
    pause = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds * PACE.retries))
    replace(retrier_decl, time=pause)


def _extract(path: str, data: Any) -> Any:
    """What a JSONPath finds; moto's own way where it may find several things."""
    matches = _EXTRACT(path, data)
    if not _SINGLE_PLACE.match(path):
        return matches
    for step in re.findall(r"\w+", path):
        data = data[int(step) if isinstance(data, list) else step]
    return data


@functools.lru_cache(maxsize=8)
def _syntax_tree(definition: str) -> Any:
    return _PARSE(definition)[1]


def _parse(definition: str) -> tuple[Any, Any]:
    """moto reads a definition again for each execution, which is a quarter of its work: here once,
    and only what evaluates it is made anew."""
    tree = _syntax_tree(definition)
    return Preprocessor().visit(tree), tree


@functools.lru_cache(maxsize=64)
def _cached_client(service: str, endpoint: str) -> Any:
    retries = {"total_max_attempts": 1}
    return local_client(
        service, endpoint, parameter_validation=False, retries=retries, read_timeout=1000
    )


def _client(service_name: str, endpoint_url: str | None = None, **_: Any) -> Any:
    """moto makes a client for every task, which takes longer than the task."""
    with _CLIENT_LOCK:
        return _cached_client(service_name, endpoint_url or "")


def _start_named(
    self: StepFunctionsParserBackend,
    state_machine_arn: str,
    name: str | None = None,
    *positional: Any,
    **named: Any,
) -> Any:
    """AWS names an execution that its caller has not named; moto calls it None."""
    return _START(self, state_machine_arn, name or str(uuid.uuid4()), *positional, **named)


def service_for(service_name: str) -> Any:
    own: dict[str, Callable[[], Any]] = {
        "glue": GlueService,
        "athena": AthenaService,
        "aws-sdk": AwsSdkService,
    }
    return (
        own[service_name]()
        if service_name in own
        else service_factory.state_task_service_for(service_name)
    )


def _wait(self: WaitFunction, env: Environment, wait_seconds: int) -> None:
    """Waits until the time is over or the execution is."""
    end = time.monotonic() + wait_seconds * PACE.waits
    while env.is_running() and (left := end - time.monotonic()) > 0:
        env.program_state_event.wait(min(left, 1))


def plain(value: Any, moment: Callable[[dt.datetime], Any]) -> Any:
    """A service's answer as JSON: bodies as text, times as `moment` writes them."""
    if isinstance(value, dict):
        return {key: plain(inner, moment) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner, moment) for inner in value]
    if isinstance(value, StreamingBody):
        return value.read().decode("utf-8")
    return moment(value) if isinstance(value, dt.datetime) else value


def iso(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(moment: dt.datetime) -> int:
    return int(moment.timestamp() * 1000)


class _Sync(callback_module.StateTaskServiceCallback):
    """Waits for what was started. moto's own way ends with a callback that `.sync` does not
    have."""

    def _eval_integration_pattern(
        self,
        env: Environment,
        resource_runtime_part: Any,
        normalised_parameters: dict[str, Any],
        state_credentials: Any,
    ) -> None:
        finished = self._build_sync_resolver(
            env=env,
            resource_runtime_part=resource_runtime_part,
            normalised_parameters=normalised_parameters,
            state_credentials=state_credentials,
        )
        assert finished is not None
        while env.is_running():
            result = finished()
            if result is not None:
                env.stack.append(plain(result, milliseconds))
                return
            time.sleep(PACE.poll * random.uniform(0.5, 1))

    def failed(
        self, env: Environment, error: StatesErrorName | CustomErrorName, cause: str
    ) -> FailureEvent:
        details = TaskFailedEventDetails(
            error=error.error_name,
            cause=cause,
            resource=self._get_sfn_resource(),
            resourceType=self._get_sfn_resource_type(),
        )
        event_details: Any = {
            "taskFailedEventDetails": details
        }  # moto's type asks for every event's details
        return FailureEvent(
            env=env,
            error_name=error,
            event_type=HistoryEventType.TaskFailed,
            event_details=event_details,
        )


class GlueService(_Sync, glue_module.StateTaskServiceGlue):
    """`glue:startJobRun.sync`"""

    def _sync_to_start_job_run(self, env: Environment, *arguments: Any) -> Callable[[], Any]:
        resolver = super()._sync_to_start_job_run(env, *arguments)
        assert resolver is not None

        def resolve() -> Any:
            run = resolver()
            # On AWS a stopped run fails the task as a failed one does.
            if run is not None and run["JobRunState"] == "STOPPED":
                error = StatesErrorName(typ=StatesErrorNameType.StatesTaskFailed)
                raise FailureEventException(
                    self.failed(env, error, json.dumps(plain(run, milliseconds)))
                )
            return run

        return resolve


class AthenaService(_Sync):
    """`athena:startQueryExecution.sync` and `athena:getQueryResults`"""

    _PARAMETERS = {
        "startqueryexecution": {
            "ClientRequestToken",
            "ExecutionParameters",
            "QueryExecutionContext",
            "QueryString",
            "ResultConfiguration",
            "WorkGroup",
            "ResultReuseConfiguration",
        },
        "getqueryresults": {"MaxResults", "NextToken", "QueryExecutionId"},
    }

    def __init__(self) -> None:
        patterns: set[Any] = {ResourceCondition.Sync}
        super().__init__(supported_integration_patterns=patterns)

    def _get_supported_parameters(self) -> set[str] | None:
        return self._PARAMETERS.get(self.resource.api_action.lower())

    def _eval_service_task(
        self,
        env: Environment,
        resource_runtime_part: Any,
        normalised_parameters: dict[str, Any],
        state_credentials: Any,
    ) -> None:
        client = boto_client_for(
            service="athena",
            region=resource_runtime_part.region,
            state_credentials=state_credentials,
        )
        response = getattr(client, self._get_boto_service_action())(**normalised_parameters)
        response.pop("ResponseMetadata", None)
        env.stack.append(plain(response, milliseconds))

    def _build_sync_resolver(
        self,
        env: Environment,
        resource_runtime_part: Any,
        normalised_parameters: dict[str, Any],
        state_credentials: Any,
    ) -> Callable[[], Any]:
        client = boto_client_for(
            service="athena",
            region=resource_runtime_part.region,
            state_credentials=state_credentials,
        )
        query_id = env.stack.pop()["QueryExecutionId"]

        def resolve() -> Any:
            execution = client.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
            state = execution["Status"]["State"]
            if state in ("FAILED", "CANCELLED"):
                error = StatesErrorName(typ=StatesErrorNameType.StatesTaskFailed)
                raise FailureEventException(
                    self.failed(env, error, json.dumps(plain(execution, milliseconds)))
                )
            return {"QueryExecution": execution} if state == "SUCCEEDED" else None

        return resolve

    def _from_error(self, env: Environment, ex: Exception) -> FailureEvent:
        if isinstance(ex, ClientError):
            error = CustomErrorName(f"Athena.{ex.response['Error']['Code']}")
            return self.failed(env, error, ex.response["Error"]["Message"])
        return super()._from_error(env=env, ex=ex)


class AwsSdkService(aws_sdk_module.StateTaskServiceAwsSdk):
    """`aws-sdk:…` with answers as AWS hands them on."""

    def _eval_service_task(
        self,
        env: Environment,
        resource_runtime_part: Any,
        normalised_parameters: dict[str, Any],
        state_credentials: Any,
    ) -> None:
        super()._eval_service_task(
            env, resource_runtime_part, normalised_parameters, state_credentials
        )
        env.stack.append(plain(env.stack.pop(), iso))
