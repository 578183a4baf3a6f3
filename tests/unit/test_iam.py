"""Every API call of a component is allowed by its role, and no role allows what nothing uses. The
same holds for people: what console and commands call is allowed by the policies for them.

What a component calls is read from its source: boto3 calls by the syntax tree, a state machine's
Tasks by their resource and parameters. What cannot be read there, because AWS, Spark or pyarrow
makes the call, stands in `BY_AWS`, with who makes it. Where the calls of a Lambda, the job, the
console or a command go is in `PLACES`; a call that stands in no line of it fails the test.
"""

from __future__ import annotations

import ast
import fnmatch
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

from client import places
from client.template import ROOT, Template

TEMPLATE = Template.load()


@dataclass(frozen=True)
class Use:
    """One API call: the action, the resource's ARN and the condition keys that go with it."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


# boto3 method -> IAM actions, where they differ from the method's own name. An object's copy
# carries its tags along.
ACTIONS = {
    "s3.list_objects_v2": ["s3:ListBucket"],
    "s3.head_object": ["s3:GetObject"],
    "s3.copy_object": [
        "s3:GetObject",
        "s3:GetObjectTagging",
        "s3:PutObject",
        "s3:PutObjectTagging",
    ],
    "s3.create_multipart_upload": ["s3:PutObject"],
    "s3.complete_multipart_upload": ["s3:PutObject"],
    "s3.upload_part_copy": ["s3:GetObject", "s3:PutObject"],
    "s3.delete_object+VersionId": ["s3:DeleteObjectVersion"],
}
PREFIXES = {"stepfunctions": "states"}


def bucket(logical_id: str) -> str:
    return TEMPLATE.attribute(logical_id, "Arn")


RAW, LAKE, ARCHIVE = bucket("RawBucket"), bucket("LakeBucket"), bucket("ArchiveBucket")
RAW_FILE, RUN_FILE = f"{RAW}/land-folder/Data/orders/a.csv", f"{LAKE}/runs/x/summary.json"
ARCHIVED, SET_ASIDE = f"{ARCHIVE}/archived/run=x/a.csv", f"{LAKE}/rejected/files/run=x/a.csv"
KEY = TEMPLATE.attribute("DataKey", "Arn")
EXECUTION = TEMPLATE.ref("StateMachine").replace(":stateMachine:", ":execution:") + ":x"
TABLES = [
    f"{LAKE}/lakehouse-dwh/clean_orders/date=2025-04-01/a.parquet",
    f"{LAKE}/rejected/rejected_records/_delta_log/0.json",
]
CATALOG = [
    f"arn:aws:glue:us-east-1:123456789012:{name}"
    for name in (
        "catalog",
        f"database/{TEMPLATE.ref('Database')}",
        f"table/{TEMPLATE.ref('Database')}/clean_orders",
    )
]
WORKGROUP = f"arn:aws:athena:us-east-1:123456789012:workgroup/{TEMPLATE.ref('WorkGroup')}"


RESULTS = bucket("AthenaResultsBucket")
RESULT = f"{RESULTS}/x.csv"
STACK = "arn:aws:cloudformation:us-east-1:123456789012:stack/delta-lake-prod/1"
MACHINE = TEMPLATE.ref("StateMachine")


def stream(log_group: str) -> str:
    return TEMPLATE.attribute(log_group, "Arn").removesuffix("*") + "log-stream:x"


def each(actions: Iterable[str], resources: Iterable[str], **context: str) -> list[Use]:
    named = {name.replace("__", ":"): value for name, value in context.items()}
    return [Use(action, resource, named) for resource in resources for action in actions]


# Where the calls that stand in the source go.
PLACES = {
    "GlueJobRole": [
        Use("s3:ListBucket", RAW, {"s3:prefix": "land-folder/Data/"}),
        Use("s3:GetObject", RAW_FILE),
        *each(["s3:GetObject"], TABLES),
        Use("s3:ListBucket", LAKE, {"s3:prefix": "lakehouse-dwh/clean_orders/_delta_log/"}),
        Use("s3:ListBucket", LAKE, {"s3:prefix": "glue-temp/run=a/orders/"}),
        Use("s3:DeleteObject", f"{LAKE}/glue-temp/run=a/orders/fast/part-0.parquet"),
        Use("s3:PutObject", f"{LAKE}/glue-temp/run=a/repacked/b.csv.gz"),
        *each(
            ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
            [f"{LAKE}/lakehouse-dwh/lease.json"],
        ),
        Use("s3:PutObject", RUN_FILE),
        *each(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], [f"{LAKE}/runs/intent.json"]),
        *each(["s3:GetObject"], [ARCHIVED, RUN_FILE, SET_ASIDE]),
        Use("s3:ListBucket", LAKE, {"s3:prefix": "runs/"}),
        Use("s3:ListBucket", ARCHIVE, {"s3:prefix": "archived/run=x/"}),
    ],
    "ArchiveFunctionRole": [
        *each(["s3:GetObject"], [RUN_FILE, RAW_FILE, ARCHIVED, SET_ASIDE]),
        Use("s3:GetObjectTagging", RAW_FILE),
        Use("s3:DeleteObject", RAW_FILE),
        *each(
            [
                "s3:PutObject",
                "s3:PutObjectTagging",
                "s3:AbortMultipartUpload",
            ],
            [ARCHIVED, SET_ASIDE],
        ),
    ],
    "ReportFunctionRole": [
        *each(["s3:GetObject", "s3:PutObject"], [RUN_FILE]),
        *each(
            ["states:GetExecutionHistory", "states:DescribeStateMachineForExecution"], [EXECUTION]
        ),
    ],
    "ReaderPolicy": [
        Use("cloudformation:DescribeStacks", STACK),
        *each(["states:ListExecutions", "states:DescribeStateMachine"], [MACHINE]),
        *each(["states:DescribeExecution", "states:GetExecutionHistory"], [EXECUTION]),
        *each(["logs:DescribeLogStreams", "logs:GetLogEvents"], [stream("GlueJobOutput")]),
        *each(["s3:GetObject"], [RAW_FILE, ARCHIVED, SET_ASIDE, RUN_FILE]),
        Use("s3:ListBucket", RAW, {"s3:prefix": "land-folder/Data/"}),
        *each(
            [
                "athena:StartQueryExecution",
                "athena:StopQueryExecution",
                "athena:GetQueryExecution",
                "athena:BatchGetQueryExecution",
                "athena:GetQueryResults",
                "athena:ListQueryExecutions",
            ],
            [WORKGROUP],
        ),
    ],
    "OperatorPolicy": [
        Use("cloudformation:DescribeStacks", STACK),
        Use("states:StartExecution", MACHINE),
        *each(["states:DescribeExecution", "states:StopExecution"], [EXECUTION]),
        Use("s3:GetObject", f"{LAKE}/runs/x/operation.json"),
        Use("s3:PutObject", f"{LAKE}/runs/dismissed.json"),
    ],
    "UploaderPolicy": each(["s3:PutObject"], [RAW_FILE]),
}
SOURCES = {
    "GlueJobRole": ["src/glue_etl.py", "src/glue_operations.py"],
    "ArchiveFunctionRole": ["lambda/moves3objects/handler.py"],
    "ReportFunctionRole": [
        f"lambda/run_report/{name}.py"
        for name in ("handler", "cost", "facts", "mail", "metrics", "page", "words")
    ],
    "ReaderPolicy": [
        "client/places.py",
        "console/athena.py",
        "console/data/source.py",
        "console/data/runs.py",
        "console/data/files.py",
    ],
    "OperatorPolicy": ["client/operations.py"],
    "UploaderPolicy": ["console/operations.py"],
}
# The services of clients that a source is given and does not make itself.
SERVICES = {
    "client/places.py": ["cloudformation"],
    "console/data/source.py": ["s3", "stepfunctions"],
    "console/data/runs.py": ["stepfunctions", "logs"],
    "console/data/files.py": ["s3"],
    "console/athena.py": ["athena"],
    "console/operations.py": ["s3"],
    "client/operations.py": ["s3", "stepfunctions"],
}
# The command that starts operations finds the environment by a function of the deployer.
BY_THE_DEPLOYER = {"OperatorPolicy": {"cloudformation:DescribeStacks"}}

WRITE_LOGS = ["logs:CreateLogStream", "logs:PutLogEvents"]
USE_KEY = ["kms:Decrypt", "kms:GenerateDataKey"]
TRACE = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
# Before each query Athena looks for the data source, and for the database `default`, whatever the
# query is about.
ATHENA_AS_CALLER = [
    *each(["glue:GetDatabase", "glue:GetTable", "glue:GetTables", "glue:GetPartitions"], CATALOG),
    *each(["s3:ListBucket", "s3:GetBucketLocation"], [LAKE, RESULTS]),
    Use("glue:GetDatabase", "arn:aws:glue:us-east-1:123456789012:database/default"),
    Use(
        "athena:GetDataCatalog",
        "arn:aws:athena:us-east-1:123456789012:datacatalog/AwsDataCatalog",
    ),
    Use("s3:GetObject", TABLES[0]),
    *each(
        [
            "s3:GetObject",
            "s3:PutObject",
            "s3:AbortMultipartUpload",
            "s3:ListMultipartUploadParts",
        ],
        [RESULT],
    ),
]
# Calls that no line of this repository makes, by role, each group with who makes it.
BY_AWS: dict[str, dict[str, list[Use]]] = {
    "GlueJobRole": {
        "S3A, for Spark: tables": [
            *each(
                ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
                TABLES,
            ),
            Use("s3:ListBucket", LAKE, {"s3:prefix": "lakehouse-dwh/clean_orders/"}),
            Use("s3:ListBucketMultipartUploads", LAKE),
        ],
        "S3A, before it makes a folder: is a parent a file?": each(
            ["s3:GetObject"],
            [
                f"{LAKE}/lakehouse-dwh",
                f"{LAKE}/rejected",
                f"{LAKE}/rejected/rejected_records",
                f"{LAKE}/glue-temp",
            ],
        ),
        "S3A, for Spark: raw files": [
            Use("s3:ListBucket", RAW, {"s3:prefix": "land-folder/Data/a.csv/"})
        ],
        "boto3: a managed copy, which may be in parts": each(
            ["s3:PutObject", "s3:AbortMultipartUpload"],
            [f"{LAKE}/rejected/damaged/a/rejected_records/b.parquet"],
        ),
        "Glue and S3A: where a bucket is": each(["s3:GetBucketLocation"], [RAW, LAKE, ARCHIVE]),
        "Glue: the folder of --TempDir": each(
            ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            [f"{LAKE}/glue-temp/x"],
        ),
        "Glue: the script": [
            Use(
                "s3:GetObject",
                "arn:aws:s3:::delta-lake-artifacts-123456789012-us-east-1/delta-lake/x/y.py",
            )
        ],
        "Glue: logs": each(
            ["logs:CreateLogGroup", *WRITE_LOGS],
            [stream("GlueJobOutput"), stream("GlueJobErrors")],
        ),
        "S3: encrypted objects": each(USE_KEY, [KEY]),
    },
    "CrawlerRole": {
        "Glue: reads the Delta logs, and asks for the right to write beside them": [
            *each(["s3:GetObject", "s3:PutObject"], TABLES),
            *each(["s3:ListBucket", "s3:GetBucketLocation"], [LAKE]),
            *each(USE_KEY, [KEY]),
        ],
        "Glue: registers tables": [
            *each(
                [
                    "glue:GetDatabase",
                    "glue:GetTable",
                    "glue:GetTables",
                    "glue:CreateTable",
                    "glue:UpdateTable",
                    "glue:BatchGetPartition",
                ],
                CATALOG,
            )
        ],
        "Glue: logs": each(
            ["logs:CreateLogGroup", *WRITE_LOGS],
            [
                "arn:aws:logs:us-east-1:123456789012:log-group:/aws-glue/crawlers",
                "arn:aws:logs:us-east-1:123456789012:log-group:/aws-glue/crawlers:log-stream:x",
            ],
        ),
    },
    "ArchiveFunctionRole": {
        "Lambda: logs and traces": [
            *each(WRITE_LOGS, [stream("ArchiveFunctionLogs")]),
            *each(TRACE, ["*"]),
        ],
        "S3: says 404, not 403, for what is not there": each(
            ["s3:ListBucket"], [RAW, LAKE, ARCHIVE]
        ),
        "S3 and Lambda: encrypted objects and variables": each(USE_KEY, [KEY]),
    },
    "ReportFunctionRole": {
        "Lambda: logs and traces": [
            *each(WRITE_LOGS, [stream("ReportFunctionLogs")]),
            *each(TRACE, ["*"]),
        ],
        "S3: says 404, not 403, for what is not there": each(["s3:ListBucket"], [LAKE]),
        "S3 and Lambda: encrypted objects and variables": each(USE_KEY, [KEY]),
    },
    "StateMachineRole": {
        "Athena, for a query: the catalog, the tables, the result": ATHENA_AS_CALLER,
        "S3 and SNS: encrypted objects and topic": each(USE_KEY, [KEY]),
        "Step Functions: its log group; these actions know no resources": each(
            [
                "logs:CreateLogDelivery",
                "logs:GetLogDelivery",
                "logs:UpdateLogDelivery",
                "logs:DeleteLogDelivery",
                "logs:ListLogDeliveries",
                "logs:PutResourcePolicy",
                "logs:DescribeResourcePolicies",
                "logs:DescribeLogGroups",
            ],
            ["*"],
        ),
        "Step Functions: traces; these actions know no resources": each(
            [*TRACE, "xray:GetSamplingRules", "xray:GetSamplingTargets"], ["*"]
        ),
    },
    "ReaderPolicy": {
        "pyarrow and deltalake, for histories and partitions": [
            *each(["s3:GetObject"], [*TABLES, ARCHIVED, RUN_FILE]),
            Use("s3:ListBucket", RAW),
            Use("s3:ListBucket", LAKE, {"s3:prefix": "runs/"}),
            Use("s3:ListBucket", LAKE, {"s3:prefix": "lakehouse-dwh/clean_orders/_delta_log/"}),
            Use("s3:ListBucket", ARCHIVE, {"s3:prefix": "archived/"}),
        ],
        "Athena, as the caller: the catalog, the tables, the result": ATHENA_AS_CALLER,
        "Athena, as the caller: where a bucket is": each(
            ["s3:GetBucketLocation"], [RAW, LAKE, ARCHIVE, RESULTS]
        ),
        "S3: encrypted objects": each(USE_KEY, [KEY]),
    },
    "OperatorPolicy": {
        "S3: says 404, not 403, for what is not there": [
            Use("s3:ListBucket", LAKE, {"s3:prefix": "runs/x/operation.json"})
        ],
        "S3: encrypted objects": each(USE_KEY, [KEY]),
    },
    "UploaderPolicy": {
        "the AWS command line, which uploads in parts and resumes": each(
            ["s3:ListMultipartUploadParts", "s3:AbortMultipartUpload"], [RAW_FILE]
        ),
        "S3: encrypted objects, and parts that become one object": each(USE_KEY, [KEY]),
    },
    "PipeRole": {},
    "SweepRole": {
        "Scheduler: its encrypted input": [Use("kms:Decrypt", KEY)],
        "Scheduler: a start that failed": [
            Use("sqs:SendMessage", TEMPLATE.attribute("DeadLetterQueue", "Arn"))
        ],
    },
}
# What an integration that waits (.sync) calls besides the action in its name, as Step Functions'
# guide lists it.
SYNC = {
    "glue:StartJobRun": ["glue:GetJobRun", "glue:GetJobRuns", "glue:BatchStopJobRun"],
    "athena:StartQueryExecution": ["athena:GetQueryExecution", "athena:StopQueryExecution"],
}


# From source to calls -----------------------------------------------------------------------------


@lru_cache
def operations(service: str) -> dict[str, str]:
    """boto3 method -> API operation of a service."""
    names = botocore.session.get_session().get_service_model(service).operation_names
    return {xform_name(name): name for name in names}


def boto3_calls(source: str, extra_services: Iterable[str] = ()) -> set[str]:
    """Return `service.method` for each call of a client's method: of the clients that the source
    makes and of `extra_services`; a paginator counts as its method."""
    tree = ast.parse(source)
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    services = [
        call.args[0].value
        for call in calls
        if call.func.attr in ("client", "resource")
        and ast.unparse(call.func.value) == "boto3"
        and isinstance(call.args[0], ast.Constant)
    ] + list(extra_services)
    called = set()
    for call in calls:
        method = call.func.attr
        if method in ("get_paginator", "get_waiter") and isinstance(call.args[0], ast.Constant):
            method = call.args[0].value
        versioned = any(keyword.arg == "VersionId" for keyword in call.keywords)
        for service in services:
            if f"{service}.{method}" in ACTIONS or method in operations(service):
                special = f"{service}.{method}+VersionId"
                called.add(special if versioned and special in ACTIONS else f"{service}.{method}")
    return called


def actions_of(call: str) -> list[str]:
    service, _, method = call.partition(".")
    return ACTIONS.get(call) or [f"{PREFIXES.get(service, service)}:{operations(service)[method]}"]


def tasks(scope: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, state in scope["States"].items():
        if state["Type"] == "Task":
            yield name, state
        for inner in [
            *state.get("Branches", []),
            *[state[key] for key in ("ItemProcessor", "Iterator") if key in state],
        ]:
            yield from tasks(inner)


def task_uses(state: Mapping[str, Any]) -> list[Use]:
    """The API calls of a Task: the action by its resource, what it acts on by its parameters."""
    parameters = state["Parameters"]
    _, _, integration = state["Resource"].partition(":states:::")
    service, _, operation = integration.removeprefix("aws-sdk:").partition(":")
    call, _, pattern = operation.partition(".")
    action = {"s3:listObjectsV2": "s3:ListBucket", "lambda:invoke": "lambda:InvokeFunction"}.get(
        f"{service}:{call}", f"{service}:{call[0].upper()}{call[1:]}"
    )
    if service == "s3":
        key = parameters.get("Key") or re.sub(
            r"^States\.Format\('([^']*)'.*$", r"\1", parameters.get("Key.$", "")
        ).replace("{}", "x")
        target = (
            Use(action, f"arn:aws:s3:::{parameters['Bucket']}/{key}")
            if key
            else Use(
                action,
                f"arn:aws:s3:::{parameters['Bucket']}",
                {"s3:prefix": parameters.get("Prefix", "")},
            )
        )
    elif service == "glue" and "DatabaseName" in parameters:
        return each([action], CATALOG)
    elif service == "glue":
        kind, name = (
            ("job", parameters["JobName"])
            if "JobName" in parameters
            else ("crawler", parameters["Name"])
        )
        target = Use(action, f"arn:aws:glue:us-east-1:123456789012:{kind}/{name}")
    elif service == "lambda":
        target = Use(action, parameters["FunctionName"])
    elif service == "sns":
        target = Use(action, parameters["TopicArn"])
    elif service == "athena":
        target = Use(action, WORKGROUP)
    else:
        raise ValueError(f"{integration}: say here what it acts on")
    return [
        target,
        *[
            Use(sync_action, target.resource)
            for sync_action in (SYNC[action] if pattern == "sync" else [])
        ],
    ]


def derived(role: str) -> list[Use]:
    """The calls that the sources of a role's component make."""
    if role in SOURCES:
        return PLACES[role]
    if role == "StateMachineRole":
        return [
            use for _, state in tasks(json.loads(TEMPLATE.definition())) for use in task_uses(state)
        ]
    if role == "PipeRole":
        pipe = TEMPLATE.properties("UploadPipe")
        return [
            *each(
                ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"],
                [pipe["Source"]],
            ),
            Use("states:StartExecution", pipe["Target"]),
        ]
    if role == "SweepRole":
        targets = [
            schedule["Target"] for _, schedule in TEMPLATE.of_type("AWS::Scheduler::Schedule")
        ]
        assert {target["RoleArn"] for target in targets} == {TEMPLATE.attribute(role, "Arn")}
        return [Use("states:StartExecution", target["Arn"]) for target in targets]
    return []


def uses(role: str) -> list[Use]:
    return [*derived(role), *[use for group in BY_AWS[role].values() for use in group]]


# From role to permission --------------------------------------------------------------------------


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(role: str) -> list[dict[str, Any]]:
    properties = TEMPLATE.properties(role)
    policy_statements = [
        statement
        for policy in properties.get("Policies", [properties])
        for statement in policy["PolicyDocument"]["Statement"]
    ]
    assert all(statement["Effect"] == "Allow" for statement in policy_statements)
    return policy_statements


def holds(conditions: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    tests = {
        "StringEquals": lambda value, expected: value == expected,
        "StringLike": fnmatch.fnmatchcase,
    }
    return all(
        name in context and any(tests[test](context[name], expected) for expected in listed(values))
        for test, keys in conditions.items()
        for name, values in keys.items()
    )


def covers(statement: Mapping[str, Any], use: Use) -> bool:
    return (
        use.action in listed(statement["Action"])
        and any(
            fnmatch.fnmatchcase(use.resource, pattern) for pattern in listed(statement["Resource"])
        )
        and holds(statement.get("Condition", {}), use.context)
    )


POLICIES = sorted(logical_id for logical_id, _ in TEMPLATE.of_type("AWS::IAM::ManagedPolicy"))
ROLES = sorted(BY_AWS.keys() - set(POLICIES))


def test_every_role_and_policy_of_the_template_is_looked_at() -> None:
    assert ROLES == sorted(logical_id for logical_id, _ in TEMPLATE.of_type("AWS::IAM::Role"))
    assert POLICIES == ["OperatorPolicy", "ReaderPolicy", "UploaderPolicy"]


def test_a_policy_for_people_is_attached_to_nobody_and_its_arn_is_an_output() -> None:
    for policy in POLICIES:
        assert TEMPLATE.properties(policy).keys() == {"Description", "PolicyDocument"}
        assert TEMPLATE.outputs()[f"{policy}Arn"] == TEMPLATE.ref(policy)


@pytest.mark.parametrize("role", sorted(SOURCES))
def test_every_boto3_call_of_a_component_has_its_place_and_every_place_its_call(role: str) -> None:
    calls = {
        call
        for path in SOURCES[role]
        for call in boto3_calls((ROOT / path).read_text("utf-8"), SERVICES.get(path, ()))
    }
    actions = {action for call in calls for action in actions_of(call)}
    actions |= BY_THE_DEPLOYER.get(role, set())
    assert actions == {use.action for use in PLACES[role]}


def test_no_service_that_the_console_asks_is_left_out() -> None:
    declared = {service for services in SERVICES.values() for service in services}
    assert declared == {"cloudformation", *places.SERVICES}


@pytest.mark.parametrize("role", [*ROLES, *POLICIES])
def test_a_role_allows_every_call_of_its_component(role: str) -> None:
    assert [
        use
        for use in uses(role)
        if not any(covers(statement, use) for statement in statements(role))
    ] == []


@pytest.mark.parametrize("role", [*ROLES, *POLICIES])
def test_a_role_allows_nothing_that_nothing_uses(role: str) -> None:
    """Each action on each resource of each statement is there for some call."""
    idle = [
        (action, resource)
        for statement in statements(role)
        for action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
        if not any(
            covers({**statement, "Action": action, "Resource": resource}, use) for use in uses(role)
        )
    ]
    assert idle == []


@pytest.mark.parametrize("role", ROLES)
def test_the_boundary_of_bootstrap_leaves_room_for_every_call(role: str) -> None:
    boundary = Template.load(ROOT / "bootstrap.yaml").properties("Boundary")["PolicyDocument"][
        "Statement"
    ]
    tagged = [
        Use(use.action, use.resource, {**use.context, "aws:ResourceTag/project": "delta-lake"})
        for use in uses(role)
    ]
    assert [
        use for use in tagged if not any(covers(statement, use) for statement in boundary)
    ] == []


@pytest.mark.parametrize("role", [*ROLES, *POLICIES])
def test_a_role_names_what_it_may_act_on(role: str) -> None:
    """A bare `*` stands only where the action knows no resources, and never in an action."""
    nameless = ("xray:", "logs:")
    for statement in statements(role):
        assert not any("*" in action for action in listed(statement["Action"])), statement
        if "*" in listed(statement["Resource"]):
            assert all(action.startswith(nameless) for action in listed(statement["Action"])), (
                statement
            )


def test_a_role_is_taken_by_its_own_service_for_this_account_only() -> None:
    for logical_id, role in TEMPLATE.of_type("AWS::IAM::Role"):
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert isinstance(statement["Principal"]["Service"], str), logical_id
        if (
            statement["Principal"]["Service"] != "lambda.amazonaws.com"
        ):  # which sends no source account
            assert statement["Condition"] == {
                "StringEquals": {"aws:SourceAccount": "123456789012"}
            }, logical_id


def test_a_call_is_found_in_the_source() -> None:
    source = (
        's3 = boto3.client("s3")\ns3.delete_object(Key=k)\ns3.delete_object(Key=k, '
        'VersionId=v)\ns3.get_paginator("list_objects_v2")\n'
    )
    assert {action for call in boto3_calls(source) for action in actions_of(call)} == {
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
        "s3:ListBucket",
    }


def test_a_call_outside_the_named_resource_is_not_allowed() -> None:
    allowed = [
        use
        for use in (
            Use("s3:DeleteObject", f"{LAKE}/lakehouse-dwh/clean_orders/a.parquet"),
            Use("s3:PutObject", f"{ARCHIVE}/elsewhere/a.csv"),
            Use("s3:GetObject", f"{RAW}/land-folder/Database/a.csv"),
        )
        if any(covers(statement, use) for statement in statements("ArchiveFunctionRole"))
    ]
    assert allowed == []


def recorded(line: str) -> list[Use]:
    """The permissions that one of S3A's requests takes; `lake` and `raw` stand for the buckets."""
    method, _, path = line.partition(" ")
    name, _, key = path.partition("/")
    arn = {"lake": LAKE, "raw": RAW}[name]
    if method == "LIST":
        return [Use("s3:ListBucket", arn, {"s3:prefix": key})]
    actions = {
        "HEAD": ["s3:GetObject"],
        "GET": ["s3:GetObject"],
        "PUT": ["s3:PutObject"],
        "COPY": ["s3:GetObject", "s3:PutObject"],
        "DELETE": ["s3:DeleteObject"],
    }[method]
    return each(actions, [f"{arn}/{key}"])


@pytest.mark.parametrize(
    "line", (Path(__file__).parent / "s3a_requests.txt").read_text("utf-8").splitlines()
)
def test_the_job_may_make_each_request_that_s3a_made_in_a_real_run(line: str) -> None:
    """Recorded at the server while Spark 4.1.1 loaded two deliveries over S3A; names that differ
    from run to run are shortened."""
    assert [
        use
        for use in recorded(line)
        if not any(covers(statement, use) for statement in statements("GlueJobRole"))
    ] == []
