"""The two roles for GitHub: one deploys, one checks. Each may make every call of its commands on
the resources that they are about, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from client.template import ROOT, Template
from tests.unit.test_deploy import SMOKE_ACTIONS
from tests.unit.test_deploy_role import read_by_cloudformation
from tests.unit.test_iam import ACTIONS, Use, actions_of, boto3_calls, covers, each, listed

SUBJECT, PROVIDER = "repo:o/r:environment:e", "arn:aws:iam::123456789012:oidc-provider/x"
BOOTSTRAP = Template.load(
    ROOT / "bootstrap.yaml",
    parameters={
        "GitHubSubjects": SUBJECT,
        "GitHubCheckSubjects": SUBJECT,
        "GitHubProviderArn": PROVIDER,
    },
)
THIS_STACK = "arn:aws:cloudformation:us-east-1:123456789012:stack/lakehouse-bootstrap/1"
BOOTSTRAP.physical["AWS::StackId"] = {"Ref": THIS_STACK}
ROLES = ("GitHubRole", "GitHubCheckRole")
# Source -> services of the clients that it is given.
SOURCES = {
    "deploy/environment.py": ["cloudformation", "kms", "s3", "stepfunctions"],
    "deploy/stack.py": ["cloudformation"],
    "deploy/package.py": ["s3"],
    "deploy/smoke.py": ["athena", "s3", "stepfunctions"],
    "deploy/drift.py": ["cloudformation"],
    "deploy/restore.py": ["s3", "stepfunctions"],
    "client/operations.py": ["s3", "stepfunctions"],
}
OWN_ACTIONS = {
    "s3.head_bucket": ["s3:ListBucket"],
    "s3.list_object_versions": ["s3:ListBucketVersions"],
    "s3.delete_objects": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
    "s3.get_bucket_encryption": ["s3:GetEncryptionConfiguration"],
}
UP = {
    *(
        f"cloudformation:{name}"
        for name in (
            "CreateChangeSet",
            "DescribeChangeSet",
            "ExecuteChangeSet",
            "DeleteChangeSet",
            "DescribeStacks",
            "DescribeStackEvents",
        )
    ),
    "s3:ListBucket",
    "s3:GetObject",
    "s3:PutObject",
    "s3:GetEncryptionConfiguration",
    "states:ValidateStateMachineDefinition",
}
PROTECT = {"cloudformation:UpdateTerminationProtection"}
DOWN = {
    "cloudformation:DeleteStack",
    "s3:ListBucketVersions",
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:DeleteBucket",
    "kms:ListResourceTags",
    "kms:ScheduleKeyDeletion",
}
DRIFT = {
    "cloudformation:DetectStackDrift",
    "cloudformation:DescribeStackDriftDetectionStatus",
    "cloudformation:DescribeStackResourceDrifts",
}


def arn(service: str, name: str, region: str = "us-east-1") -> str:
    return f"arn:aws:{service}:{region}:123456789012:{name}"


def stack(environment: str) -> str:
    return arn("cloudformation", f"stack/delta-lake-{environment}/1")


def bucket(environment: str, part: str) -> str:
    return f"arn:aws:s3:::delta-lake-{environment}-{part}-123456789012-us-east-1"


ARTIFACTS = BOOTSTRAP.attribute("ArtifactBucket", "Arn")
PACKAGE = f"{ARTIFACTS}/delta-lake/x.zip"
KEY = arn("kms", "key/1")
PASS = Use(
    "iam:PassRole",
    BOOTSTRAP.attribute("DeployRole", "Arn"),
    {"iam:PassedToService": "cloudformation.amazonaws.com"},
)


def deployment(environment: str) -> list[Use]:
    """What `up` asks for."""
    of_stacks = {action for action in UP if action.startswith("cloudformation:")}
    lake = bucket(environment, "lake")
    return [
        *each([*of_stacks, "cloudformation:TagResource"], [stack(environment)]),
        *each(["s3:GetObject", "s3:PutObject"], [PACKAGE]),
        *each(["s3:ListBucket"], [ARTIFACTS, lake]),
        Use("s3:GetEncryptionConfiguration", lake),
        Use("states:ValidateStateMachineDefinition", "*"),
        Use("cloudformation:DescribeStacks", THIS_STACK),
        PASS,
    ]


def smoke(environment: str) -> list[Use]:
    """What `smoke` asks for, and what Athena and S3 ask for on its behalf."""
    machine = f"delta-lake-{environment}"
    lake, results = bucket(environment, "lake"), bucket(environment, "results")
    database = f"delta-lakehouse-{environment}"
    workgroup = arn("athena", f"workgroup/delta-lake-{environment}")
    catalog = [f"database/{database}", f"table/{database}/clean_orders", "catalog"]
    key = {"aws:ResourceTag/environment": environment}
    return [
        Use("s3:PutObject", f"{bucket(environment, 'raw')}/land-folder/Data/products.csv"),
        *each(["s3:GetObject"], [f"{lake}/runs/x/operation.json", f"{lake}/lakehouse-dwh/x/y"]),
        *each(["s3:ListBucket", "s3:GetBucketLocation"], [lake, results]),
        Use("states:ListExecutions", arn("states", f"stateMachine:{machine}")),
        Use("states:StartExecution", arn("states", f"stateMachine:{machine}")),
        Use("states:DescribeExecution", arn("states", f"execution:{machine}:x")),
        *each(["athena:StartQueryExecution"], [workgroup]),
        *each(["athena:GetQueryExecution", "athena:GetQueryResults"], [workgroup]),
        Use("athena:GetDataCatalog", arn("athena", "datacatalog/AwsDataCatalog")),
        *each(
            ["glue:GetDatabase", "glue:GetTable", "glue:GetTables", "glue:GetPartitions"],
            [arn("glue", name) for name in catalog],
        ),
        Use("glue:GetDatabase", arn("glue", "database/default")),
        *each(
            [
                "s3:GetObject",
                "s3:PutObject",
                "s3:AbortMultipartUpload",
                "s3:ListMultipartUploadParts",
            ],
            [f"{results}/x.csv"],
        ),
        *(Use(action, KEY, key) for action in ("kms:GenerateDataKey", "kms:Decrypt")),
    ]


def removal(environment: str) -> list[Use]:
    """What `down --delete-data` asks for."""
    raw = bucket(environment, "raw")
    key = {"aws:ResourceTag/environment": environment}
    return [
        *each(["cloudformation:DeleteStack"], [stack(environment)]),
        *each(["s3:ListBucketVersions", "s3:DeleteBucket"], [raw]),
        *each(["s3:DeleteObject", "s3:DeleteObjectVersion"], [f"{raw}/land-folder/Data/a.csv"]),
        *(Use(action, KEY, key) for action in ("kms:ListResourceTags", "kms:ScheduleKeyDeletion")),
    ]


def drift(environment: str) -> list[Use]:
    """What `drift` asks for itself."""
    named = ["DetectStackDrift", "DetectStackResourceDrift", "DescribeStackResourceDrifts"]
    return [
        *each([f"cloudformation:{name}" for name in named], [stack(environment)]),
        Use("cloudformation:DescribeStackDriftDetectionStatus", "*"),
        Use("cloudformation:DescribeStacks", stack(environment)),
    ]


USES = {
    "GitHubRole": [*deployment("prod"), *each(PROTECT, [stack("prod")])],
    "GitHubCheckRole": [
        *deployment("smoke7"),
        *smoke("smoke7"),
        *removal("smoke7"),
        *drift("prod"),
    ],
}


def statements(role: str, policy: str = "") -> list[Mapping[str, Any]]:
    return [
        statement
        for role_policy in BOOTSTRAP.properties(role)["Policies"]
        if policy in ("", role_policy["PolicyName"])
        for statement in role_policy["PolicyDocument"]["Statement"]
    ]


def allowed(role: str, uses: Iterable[Use]) -> list[Use]:
    return [use for use in uses if any(covers(statement, use) for statement in statements(role))]


def test_every_call_of_the_deployer_belongs_to_a_command() -> None:
    calls = {
        call
        for path, services in SOURCES.items()
        for call in boto3_calls((ROOT / path).read_text("utf-8"), services)
    }
    actions = {action for call in calls for action in OWN_ACTIONS.get(call) or actions_of(call)}
    actions -= {"states:StopExecution"}  # `client/operations.py` stops for operators only
    assert actions == UP | PROTECT | DOWN | DRIFT | SMOKE_ACTIONS
    assert not OWN_ACTIONS.keys() & ACTIONS.keys()


def test_no_file_of_the_deployer_is_left_out() -> None:
    clients = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "deploy").glob("*.py")
        if ".client(" in path.read_text("utf-8")
    }
    assert clients - {"deploy/__main__.py"} <= SOURCES.keys(), "which only makes clients"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_for_github_allows_every_call_of_its_commands(role: str) -> None:
    assert [use for use in USES[role] if use not in allowed(role, USES[role])] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_for_github_allows_nothing_that_no_command_uses(role: str) -> None:
    """The reading of resources is held against CloudFormation's handlers below."""
    read = set(read_by_cloudformation())
    idle = [
        (action, resource)
        for policy in ("deploy", "smoke", "drift")
        for statement in statements(role, policy)
        for action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
        if not (policy == "drift" and action in read)
        if not any(
            covers({**statement, "Action": action, "Resource": resource}, use) for use in USES[role]
        )
    ]
    assert idle == []


def test_the_drift_check_may_read_what_cloudformation_reads_and_no_more() -> None:
    may = {
        action
        for statement in statements("GitHubCheckRole", "drift")
        for action in listed(statement["Action"])
    }
    own = {use.action for use in drift("prod")}
    assert may - own == set(read_by_cloudformation())


def test_the_checks_change_and_read_nothing_of_another_environment() -> None:
    lake = bucket("prod", "lake")
    others = [
        *each(
            [
                "cloudformation:CreateChangeSet",
                "cloudformation:ExecuteChangeSet",
                "cloudformation:DeleteChangeSet",
            ],
            [stack("prod")],
        ),
        *each([*PROTECT, "cloudformation:DeleteStack"], [stack("prod")]),
        *(use for use in removal("prod")),
        Use("s3:PutObject", f"{bucket('prod', 'raw')}/land-folder/Data/a.csv"),
        Use("s3:GetObject", f"{lake}/lakehouse-dwh/clean_orders/a.parquet"),
        Use("states:StartExecution", arn("states", "stateMachine:delta-lake")),
        Use("athena:StartQueryExecution", arn("athena", "workgroup/delta-lake-prod")),
        Use("kms:Decrypt", KEY, {"aws:ResourceTag/environment": "prod"}),
        Use(
            "kms:Decrypt",
            KEY,
            {
                "aws:ResourceTag/project": "delta-lake",
                "aws:ResourceTag/environment": "prod",
                "kms:ViaService": "s3.us-east-1.amazonaws.com",
            },
        ),
    ]
    assert allowed("GitHubCheckRole", others) == []


def test_the_deploying_role_uploads_queries_and_deletes_nothing() -> None:
    assert allowed("GitHubRole", [*removal("smoke7"), *smoke("smoke7")]) == each(
        ["s3:ListBucket"], [bucket("smoke7", "lake"), bucket("smoke7", "results")]
    )
