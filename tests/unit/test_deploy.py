"""Packaging and deploying, against a moto server: the deployer's own commands, and what it says
when something is missing."""

from __future__ import annotations

import datetime as dt
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from botocore.exceptions import ClientError

import glue_operations
from client.aws import explained
from client.lake import Lake
from client.template import ROOT, Template
from deploy.__main__ import RIGHTS, main
from deploy.environment import Environment, boundary_arn, merged_tags
from deploy.package import package, zipped
from deploy.smoke import CORRECTION, smoke
from deploy.stack import DeployError
from tests.unit.account import REGION, account

# What moto's CloudFormation does not know. `local/` makes or plays the job, crawler, database,
# workgroup, Pipe and schedule; policies of buckets, queues and the topic, the subscription and the
# alarms are held against the design by reading the template.
UNKNOWN_TO_MOTO = {
    "AWS::S3::BucketPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::SNS::Subscription",
    "AWS::CloudWatch::Alarm",
    "AWS::Budgets::Budget",
    "AWS::Pipes::Pipe",
    "AWS::Scheduler::Schedule",
    "AWS::Glue::Job",
    "AWS::Glue::Crawler",
    "AWS::Glue::Database",
    "AWS::Athena::WorkGroup",
}


@pytest.fixture
def aws() -> Iterator[Any]:
    """An account after `make bootstrap`."""
    with account():
        subjects = [f"repo:shop@1/lake@2:environment:{name}" for name in ("production", "staging")]
        options = ["--github-subjects", subjects[0], "--github-check-subjects", subjects[1]]
        assert main(["bootstrap", *options]) == 0
        yield boto3.Session(region_name=REGION)


def made(session: Any, stack: str = "delta-lake-prod") -> dict[str, str]:
    """Logical id -> type of what CloudFormation has made."""
    summaries = session.client("cloudformation").list_stack_resources(StackName=stack)[
        "StackResourceSummaries"
    ]
    return {
        resource["LogicalResourceId"]: resource["ResourceType"]
        for resource in summaries
        if resource.get("ResourceType")
    }


def data_buckets(session: Any) -> list[str]:
    return sorted(
        bucket["Name"]
        for bucket in session.client("s3").list_buckets()["Buckets"]
        if "artifacts" not in bucket["Name"]
    )


def resources(name: str) -> dict[str, Any]:
    return Template.load(ROOT / name).document["Resources"]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def copied(tmp_path: Path) -> Path:
    """The files that a package is made of, to be changed."""
    for name in ("src", "lambda", "stepfunctions"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return Path(shutil.copy(ROOT / "template.yaml", tmp_path))


def test_the_same_content_makes_the_same_package_wherever_it_lies(tmp_path: Path) -> None:
    path = copied(tmp_path)
    (path.parent / "lambda" / "moves3objects" / "__pycache__").mkdir()
    (path.parent / "lambda" / "moves3objects" / "__pycache__" / "handler.pyc").write_bytes(b"x")
    assert package("some-bucket", path).body == package("some-bucket").body


@pytest.mark.parametrize(
    ("changed", "changes"),
    [
        ("src/glue_etl.py", ["StateMachine", "GlueJob"]),
        ("src/glue_operations.py", ["StateMachine"]),
        ("lambda/moves3objects/handler.py", ["ArchiveFunction"]),
        ("stepfunctions/delta-lake.json", ["StateMachine"]),
    ],
)
def test_a_changed_file_changes_its_resources_and_no_other(
    tmp_path: Path, changed: str, changes: list[str]
) -> None:
    path = copied(tmp_path)
    with (path.parent / changed).open("a") as file:
        file.write("\n")
    before, after = (
        package("some-bucket").template["Resources"],
        package("some-bucket", path).template["Resources"],
    )
    assert [name for name in before if before[name] != after[name]] == changes


def test_what_operations_import_keeps_its_name() -> None:
    packaged = package("some-bucket")
    substitutions = packaged.template["Resources"]["StateMachine"]["Properties"][
        "DefinitionSubstitutions"
    ]
    names = {
        name: substitutions[name].rpartition("/")[2] for name in ("OperationsScript", "LoadScript")
    }
    assert names == {"OperationsScript": "glue_operations.py", "LoadScript": "glue_etl.py"}
    job = packaged.template["Resources"]["GlueJob"]["Properties"]
    assert substitutions["LoadScript"] == job["Command"]["ScriptLocation"]
    (parser,) = [
        artifact for artifact in packaged.artifacts if artifact.key.endswith("/sqlglot.zip")
    ]
    assert substitutions["SqlParser"] == f"s3://some-bucket/{parser.key}"
    names_in_zip = zipfile.ZipFile(io.BytesIO(parser.body)).namelist()
    assert "sqlglot/__init__.py" in names_in_zip
    assert all(name.startswith("sqlglot/") for name in names_in_zip)


def test_a_zip_holds_the_handlers_where_lambda_looks_for_them() -> None:
    names = zipfile.ZipFile(io.BytesIO(zipped(ROOT / "lambda" / "run_report"))).namelist()
    assert [name for name in names if "/" not in name] == [
        "cost.py",
        "facts.py",
        "handler.py",
        "mail.py",
        "metrics.py",
        "page.py",
        "prices.json",
        "words.json",
        "words.py",
    ]
    assert {"templates/mail.txt", "templates/page.html", "templates/page.css"} <= set(names)


def test_the_templates_are_made_by_cloudformation_as_far_as_moto_knows_it(aws: Any) -> None:
    assert main(["up", "--parameters", "AlertEmail=shop@example.com"]) == 0
    template = Template.load(parameters={"AlertEmail": "shop@example.com"})
    declared = {
        logical_id: resource["Type"]
        for logical_id, resource in template.document["Resources"].items()
    }
    assert {kind for kind in declared.values()} >= UNKNOWN_TO_MOTO
    assert made(aws) == {
        logical_id: kind for logical_id, kind in declared.items() if kind not in UNKNOWN_TO_MOTO
    }
    assert made(aws, "lakehouse-bootstrap").keys() == {
        "ArtifactBucket",
        "Boundary",
        "DeployRole",
        "GitHubRole",
        "GitHubCheckRole",
    }  # nor AWS::IAM::OIDCProvider


@pytest.mark.parametrize(
    "name, environment", [("GitHubRole", "production"), ("GitHubCheckRole", "staging")]
)
def test_a_role_for_github_is_taken_with_the_exact_subject_only(
    aws: Any, name: str, environment: str
) -> None:
    role = next(
        role for role in aws.client("iam").list_roles()["Roles"] if name in role["RoleName"]
    )
    condition = role["AssumeRolePolicyDocument"]["Statement"][0]["Condition"]
    assert condition == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": [
                f"repo:shop@1/lake@2:environment:{environment}"
            ],
        }
    }


def test_every_role_of_a_deployment_has_the_boundary(aws: Any) -> None:
    assert main(["up"]) == 0
    roles = [
        role
        for role in aws.client("iam").list_roles()["Roles"]
        if role["RoleName"].startswith("delta-lake-prod-")
    ]
    iam = aws.client("iam")
    without = [
        role["RoleName"]
        for role in roles
        if "Boundary"
        not in str(iam.get_role(RoleName=role["RoleName"])["Role"].get("PermissionsBoundary"))
    ]
    assert roles and without == []


def test_the_key_of_a_deployment_lets_the_role_in_that_cloudformation_works_as(aws: Any) -> None:
    assert main(["up"]) == 0
    role = Environment(aws, "prod").bootstrap["DeployRoleArn"]
    kms = aws.client("kms")
    (key,) = kms.list_keys()["Keys"]
    # moto hands the policy out as the template has it, not as text, with nothing for NoValue
    policy = kms.get_key_policy(KeyId=key["KeyId"], PolicyName="default")["Policy"]
    statements = [statement for statement in policy["Statement"] if statement]
    assert {"AWS": role} in [statement["Principal"] for statement in statements]


@pytest.mark.parametrize(
    ("reason", "refused"),
    [
        ("The submitted information didn't contain changes.", False),
        ("No updates are to be performed.", False),
        ("Parameter X is invalid", True),
    ],
)
def test_a_change_set_without_changes_is_no_failure(
    aws: Any, monkeypatch: pytest.MonkeyPatch, reason: str, refused: bool
) -> None:
    """moto finds a change where there is none; so CloudFormation's own answer is put in its
    place."""
    assert main(["up"]) == 0
    environment, lines = Environment(aws, "prod", poll=0), []
    environment.stack.say = lines.append
    monkeypatch.setattr(
        environment.client,
        "describe_change_set",
        lambda **_: {"Status": "FAILED", "StatusReason": reason},
    )
    if refused:
        with pytest.raises(DeployError, match="Parameter X is invalid"):
            environment.up(environment.artifact_bucket(), {})
    else:
        assert not environment.up(environment.artifact_bucket(), {})
        assert lines == ["delta-lake-prod: nothing to change"]


def broken_state_machine(environment: Environment) -> None:
    """Gives the environment a state machine without its first state."""
    template = environment.template()
    definition = json.loads(template.definition())
    del definition["StartAt"]
    template.definition = lambda: json.dumps(definition)
    environment.template = lambda: template


def test_a_state_machine_that_aws_refuses_is_not_deployed(aws: Any) -> None:
    environment = Environment(aws, "prod", say=lambda line: None)
    broken_state_machine(environment)
    with pytest.raises(DeployError, match="Step Functions refuses the state machine"):
        environment.up(environment.artifact_bucket(), {})
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket=environment.artifact_bucket())


def test_who_may_not_ask_aws_about_the_state_machine_may_deploy_all_the_same(
    aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    environment = Environment(aws, "prod", say=lines.append)
    client, states = aws.client, aws.client("stepfunctions")

    def denied(**_: Any) -> None:
        answer = {"Error": {"Code": "AccessDeniedException"}}
        raise ClientError(answer, "ValidateStateMachineDefinition")

    monkeypatch.setattr(states, "validate_state_machine_definition", denied)
    monkeypatch.setattr(
        aws, "client", lambda name: states if name == "stepfunctions" else client(name)
    )
    environment.check_state_machine()
    assert lines == ["The state machine is not checked: states:ValidateStateMachineDefinition"]


def test_what_is_uploaded_already_is_not_uploaded_again(
    aws: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up"]) == 0
    capsys.readouterr()
    assert main(["up"]) == 0
    assert "0 of 7 files were new" in capsys.readouterr().out


def test_a_plan_changes_nothing(aws: Any) -> None:
    assert main(["up", "--environment", "dev", "--plan"]) == 0
    assert data_buckets(aws) == []


def test_two_environments_stand_side_by_side(aws: Any) -> None:
    assert main(["up"]) == 0 and main(["up", "--environment", "dev"]) == 0
    assert len(data_buckets(aws)) == 8
    assert main(["down", "--environment", "dev", "--delete-data", "dev"]) == 0
    assert len(data_buckets(aws)) == 4


def test_destroy_keeps_the_data_and_its_key(aws: Any) -> None:
    assert main(["up"]) == 0
    aws.client("s3").put_object(
        Bucket=f"delta-lake-prod-lake-123456789012-{REGION}", Key="lakehouse-dwh/x", Body=b"x"
    )
    assert main(["down", "--unprotect", "prod"]) == 0
    assert len(data_buckets(aws)) == 4
    kms = aws.client("kms")
    (key,) = kms.list_keys()["Keys"]
    assert kms.generate_data_key(KeyId=key["KeyId"], KeySpec="AES_256")["Plaintext"]


def test_destroy_deletes_all_versions_of_the_data_when_told_so(aws: Any) -> None:
    assert main(["up"]) == 0
    s3, bucket = aws.client("s3"), f"delta-lake-prod-lake-123456789012-{REGION}"
    s3.put_object(Bucket=bucket, Key="lakehouse-dwh/x", Body=b"1")
    s3.put_object(Bucket=bucket, Key="lakehouse-dwh/x", Body=b"2")
    s3.delete_object(Bucket=bucket, Key="lakehouse-dwh/x")
    assert main(["down", "--unprotect", "prod", "--delete-data", "prod"]) == 0
    assert data_buckets(aws) == []


def test_data_is_deleted_only_if_the_environment_is_said_twice(
    aws: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up"]) == 0
    assert main(["down", "--delete-data", "dev"]) == 1
    assert "nothing was done" in capsys.readouterr().err and len(data_buckets(aws)) == 4


def test_the_next_deployment_takes_kept_data_over(
    aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto cannot import; so what is asked of CloudFormation is looked at, up to the import."""
    assert main(["up"]) == 0 and main(["down", "--unprotect", "prod"]) == 0
    environment, asked = Environment(aws, "prod", say=lambda line: None), []

    def change(
        template: Any,
        declared: Any,
        parameters: Any,
        tags: Any,
        execute: bool = True,
        imported: Any = (),
    ) -> bool:
        asked.append({item["LogicalResourceId"]: item["ResourceIdentifier"] for item in imported})
        return True

    monkeypatch.setattr(environment.stack, "change", change)
    monkeypatch.setattr(environment.stack, "protect", lambda on: None)
    environment.up(environment.artifact_bucket(), {})
    (key,) = [key["KeyId"] for key in aws.client("kms").list_keys()["Keys"]]
    imported, updated = asked
    assert imported.pop("DataKey") == {"KeyId": key}
    assert (
        sorted(identifier["BucketName"] for identifier in imported.values()) == data_buckets(aws)
        and updated == {}
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["up"], {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "No AWS credentials"),
        (["up"], {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, "No AWS region"),
        (["--profile", "nobody", "up"], {}, "nobody"),
        (["up"], {}, "make bootstrap"),
        (["down"], {}, "There is no stack delta-lake-prod in us-east-1"),
        (["smoke", "--environment", "dev"], {}, "There is no stack delta-lake-dev in us-east-1"),
        (["up", "--parameters", "AlertEmail"], {}, "write NAME=VALUE"),
        (["up", "--tags", "owner='data"], {}, "No closing quotation"),
        (["up"], {"AWS_ENDPOINT_URL": "http://localhost:1"}, "AWS cannot be reached"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    arguments: list[str],
    environment: dict[str, str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with (
        account(),
        monkeypatch.context() as changed,
    ):  # undone before the account's own variables are
        for name, value in {"HOME": str(tmp_path), **environment}.items():
            changed.setenv(name, value) if value else changed.delenv(name, raising=False)
        assert main(arguments) == 1
    message = capsys.readouterr().err
    assert says in message and message.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("ExpiredToken", "expired"),
        ("InvalidClientTokenId", "does not know these credentials"),
        ("AccessDenied", "docs/iam.md"),
    ],
)
def test_a_refusal_says_what_to_do(code: str, says: str) -> None:
    error = ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": 400}},
        "CreateChangeSet",
    )
    assert says in explained(error, RIGHTS)


def test_an_unknown_parameter_is_refused_before_anything_is_uploaded(aws: Any) -> None:
    environment = Environment(aws, "prod", say=lambda line: None)
    with pytest.raises(DeployError, match="no parameter Workers; it has EnvironmentName"):
        environment.up(environment.artifact_bucket(), {"Workers": "3"})
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket=environment.artifact_bucket())


def test_what_the_template_points_to_lies_in_the_bucket(aws: Any) -> None:
    assert main(["up"]) == 0
    environment = Environment(aws, "prod")
    resources = package(environment.artifact_bucket()).template["Resources"]
    definition = resources["StateMachine"]["Properties"]["DefinitionS3Location"]
    script = (
        resources["GlueJob"]["Properties"]["Command"]["ScriptLocation"]
        .removeprefix("s3://")
        .partition("/")
    )
    lies = [
        (definition["Bucket"], definition["Key"], "stepfunctions/delta-lake.json"),
        (script[0], script[2], "src/glue_etl.py"),
    ]
    for bucket, key, path in lies:
        assert (
            aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
            == (ROOT / path).read_bytes()
        )


OUTPUTS = {
    "StateMachineArn": "machine",
    "RawZone": "s3://raw/land-folder/Data/",
    "Lake": "s3://lake/",
    "WorkGroup": "delta-lake-smoke1",
    "Database": "delta-lakehouse-smoke1",
}


PLANS: dict[str, Any] = {
    "sql": {"clean_products": {"inserted": 0, "updated": 7, "deleted": 0}},
    "vacuum": {"clean_products": {"files": 1, "removable": 0}},
}


class SmokeAccount:
    """Stands for boto3's session: each delivery is followed by executions with these summaries;
    Athena counts `rows`; a dry run ends as `ended`, with its `plans` and this effect."""

    def __init__(
        self,
        *deliveries: list[dict[str, Any]],
        status: str = "SUCCEEDED",
        rows: str = "7",
        ended: str = "SUCCEEDED",
        plans: Mapping[str, Any] | None = None,
        effect: Mapping[str, Any] | None = None,
    ) -> None:
        self.deliveries, self.status, self.rows = list(deliveries), status, rows
        self.ended, self.plans, self.effect = ended, {**PLANS, **(plans or {})}, effect or {}
        self.operations: list[dict[str, Any]] = []
        self.uploaded: list[str] = []
        self.runs: list[dict[str, Any]] = []
        self.refusals, self.new = 0, False
        self.called: set[str] = set()

    def client(self, service: str) -> SmokeAccount:
        return self

    def __getattribute__(self, name: str) -> Any:
        """Notes the API calls, whose names are those of the methods below."""
        attribute = object.__getattribute__(self, name)
        if name in CALLS:
            self.called.add(CALLS[name])
        return attribute

    def get_paginator(self, name: str) -> SmokeAccount:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        """Once files have come, the executions of their delivery have run."""
        if self.new and self.deliveries:
            self.runs += self.deliveries.pop(0)
        self.new = False
        names = [run.get("run_id", str(number)) for number, run in enumerate(self.runs)]
        executions = [
            {"executionArn": n, "name": n, "status": self.status} for n in reversed(names)
        ]
        return [{"executions": executions}]

    def start_execution(self, **request: Any) -> dict[str, str]:
        assert request["stateMachineArn"] == OUTPUTS["StateMachineArn"]
        self.operations.append(json.loads(request["input"]))
        return {"executionArn": request["name"]}

    def describe_execution(self, **_: Any) -> dict[str, str]:
        return {"status": self.ended, "cause": "the reason"}

    def put_object(self, **request: Any) -> None:
        if self.refusals:
            self.refusals -= 1
            answer = {
                "Error": {"Code": "AccessDenied"},
                "ResponseMetadata": {"HTTPStatusCode": 403},
            }
            raise ClientError(answer, "PutObject")
        self.uploaded.append(request["Key"])
        self.new = True

    def get_object(self, **request: Any) -> dict[str, Any]:
        run_id, name = request["Key"].split("/")[1:]
        if name == "operation.json":
            operation = run_id.partition("-")[0]
            plan = {"tables": self.plans[operation]}
            answer = {"text": f"The {operation} is dry.", "plan": plan, "effect": self.effect}
        else:
            names = [run.get("run_id", str(number)) for number, run in enumerate(self.runs)]
            if run_id not in names:  # a refused operation writes no summary
                missing = {"Error": {"Code": "NoSuchKey", "Message": "no such key"}}
                raise ClientError(missing, "GetObject")
            answer = self.runs[names.index(run_id)]
        return {"Body": io.BytesIO(json.dumps(answer).encode())}

    def start_query_execution(self, **request: Any) -> dict[str, str]:
        assert request["WorkGroup"] == OUTPUTS["WorkGroup"]
        assert request["QueryExecutionContext"] == {"Database": OUTPUTS["Database"]}
        return {"QueryExecutionId": request["QueryString"]}

    def get_query_execution(self, **_: Any) -> dict[str, Any]:
        return {"QueryExecution": {"Status": {"State": "SUCCEEDED"}}}

    def get_query_results(self, **_: Any) -> dict[str, Any]:
        rows = [[{"VarCharValue": "_col0"}], [{"VarCharValue": self.rows}]]
        return {"ResultSet": {"Rows": [{"Data": row} for row in rows]}}


# Method -> the action that its API call takes
CALLS = {
    "paginate": "states:ListExecutions",
    "start_execution": "states:StartExecution",
    "describe_execution": "states:DescribeExecution",
    "put_object": "s3:PutObject",
    "get_object": "s3:GetObject",
    "start_query_execution": "athena:StartQueryExecution",
    "get_query_execution": "athena:GetQueryExecution",
    "get_query_results": "athena:GetQueryResults",
}
SMOKE_ACTIONS = set(CALLS.values())
FIRST_FILES, SECOND_FILES = 25, 13  # of the sample


class SmokeLake:
    """Stands for the lake: its history has these runs."""

    def __init__(self, *runs: str, operation: str = "load") -> None:
        self.runs, self.operation = runs, operation

    def rows(self, name: str) -> list[dict[str, Any]]:
        assert name == "etl_runs"
        moment = dt.datetime(2025, 4, 1, tzinfo=dt.UTC)
        plain = {"started_at": moment, "finished_at": moment, "table_versions": {}}
        summary = json.dumps({"files": {}, "datasets": {}, "operation": None})
        run = {"operation": self.operation, "summary": summary, **plain}
        return [{"run_id": run_id, **run} for run_id in self.runs]


LAKE = SmokeLake("first", "second")


def smoked(session: SmokeAccount, lake: SmokeLake = LAKE, **options: Any) -> dict[str, Any]:
    options = {"say": lambda line: None, "poll": 0.01, **options}
    return smoke(session, OUTPUTS, lake=cast(Lake, lake), **options)


def summary_with(files: int, run_id: str = "first", **changed: int) -> dict[str, Any]:
    numbers = {
        "rows_read": 3,
        "admitted": 0,
        "inserted": 1,
        "updated": 1,
        "unchanged": 0,
        "superseded": 0,
        "rejected": 1,
        "parked": 0,
    } | changed
    return {
        "run_id": run_id,
        "status": "SUCCEEDED",
        "files": {"loaded": files - 2, "duplicate": 1, "set_aside": 1},
        "datasets": {"orders": numbers},
        "tables": {"clean_products": {"rows": 7}, "etl_runs": {"rows": 2}},
    }


FIRST, SECOND = summary_with(FIRST_FILES), summary_with(SECOND_FILES, "second")


@pytest.mark.parametrize(
    ("session", "says"),
    [
        (SmokeAccount([FIRST], status="FAILED"), "Execution first ended FAILED: the reason"),
        (SmokeAccount([summary_with(FIRST_FILES, rows_read=4)]), "not the sum"),
        (SmokeAccount([summary_with(FIRST_FILES, inserted=0, rejected=2)]), "nothing was inserted"),
        (SmokeAccount([{}]), "not all loaded in time"),
        (SmokeAccount([summary_with(FIRST_FILES - 1)]), "not all loaded in time"),
        (
            SmokeAccount([FIRST], [summary_with(SECOND_FILES, "second", updated=0, unchanged=1)]),
            "nothing was merged",
        ),
        (SmokeAccount([FIRST], [SECOND], rows="6"), "Athena counts 6 rows, the run 7"),
        (SmokeAccount([FIRST], [SECOND], ended="FAILED"), "sql --dry-run failed: the reason"),
        (SmokeAccount([FIRST], [SECOND], effect={"rows": 1}), "sql --dry-run reports an effect"),
        (
            SmokeAccount([FIRST], [SECOND], plans={"sql": {"clean_products": {"updated": 6}}}),
            "sql --dry-run would update 6 of 7 products",
        ),
        (
            SmokeAccount([FIRST], [SECOND], plans={"vacuum": {}}),
            "vacuum --dry-run finds no file of clean_products",
        ),
        (
            SmokeAccount(
                [FIRST],
                [SECOND],
                plans={"vacuum": {"clean_products": {"files": 2, "removable": 1}}},
            ),
            "vacuum --dry-run would remove 1 files",
        ),
    ],
)
def test_the_smoke_test_fails_where_a_run_does(session: SmokeAccount, says: str) -> None:
    with pytest.raises(DeployError, match=says):
        smoked(session, minutes=0.005, poll=0.05)


@pytest.mark.parametrize(
    "lake",
    [
        SmokeLake("first"),
        SmokeLake("first", "second", "sql-1"),
        SmokeLake("first", "second", operation="sql"),
    ],
)
def test_the_smoke_test_fails_if_the_history_has_other_runs(lake: SmokeLake) -> None:
    with pytest.raises(DeployError, match="The history has .*first.*, expected .*second"):
        smoked(SmokeAccount([FIRST], [SECOND]), lake)


def test_the_smoke_test_loads_both_deliveries_reads_them_and_runs_operations_dry() -> None:
    """The second may be taken by two runs, of which the last finds only what was delivered
    before."""
    parts = [
        summary_with(SECOND_FILES - 2, "second"),
        {"run_id": "third", "files": {"duplicate": 2}, "datasets": {}, "tables": {}},
    ]
    session, lines = SmokeAccount([FIRST], parts), []
    assert smoked(session, say=lines.append) == parts[0]
    assert len(session.uploaded) == FIRST_FILES + SECOND_FILES
    assert "land-folder/Data/products.csv" in session.uploaded
    assert [line for line in lines if not line.startswith(("Execution", "Uploaded", "orders"))] == [
        "clean_products: Athena counts 7 rows, as the run did",
        "History: 2 runs changed the lake.",
        "sql --dry-run: The sql is dry.",
        "vacuum --dry-run: The vacuum is dry.",
        "History: 2 runs changed the lake.",
    ]
    assert [operation["operation"] for operation in session.operations] == ["sql", "vacuum"]
    assert all(operation["dry_run"] is True for operation in session.operations)


def test_the_correction_of_the_smoke_test_is_one_that_the_job_takes() -> None:
    lake: Any = dict.fromkeys(glue_operations.etl.schemas(), SimpleNamespace(exists=True))
    statement = glue_operations.parse_statement(CORRECTION, lake)
    assert statement.target is not None and statement.target.name == "clean_products"


def test_an_upload_waits_until_the_right_to_a_new_key_counts() -> None:
    session = SmokeAccount([FIRST], [SECOND])
    session.refusals = 2
    assert smoked(session) == SECOND


def test_the_calls_of_the_smoke_test_are_those_that_its_role_is_held_against() -> None:
    """A test that succeeds, and one that asks why an execution failed."""
    session, failing = SmokeAccount([FIRST], [SECOND]), SmokeAccount([FIRST], status="FAILED")
    smoked(session)
    with pytest.raises(DeployError):
        smoked(failing)
    assert session.called | failing.called == SMOKE_ACTIONS


def tags_of(session: Any, stack: str = "delta-lake-prod") -> dict[str, str]:
    (description,) = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {tag["Key"]: tag["Value"] for tag in description["Tags"]}


def test_own_tags_go_to_every_resource_and_stay_until_they_are_taken_away(aws: Any) -> None:
    assert main(["up", "--tags", "cost-centre=42 owner='data team'"]) == 0
    own = {"project": "delta-lake", "environment": "prod"}
    assert tags_of(aws) == {**own, "cost-centre": "42", "owner": "data team"}
    assert main(["up", "--tags", "cost-centre=43"]) == 0
    assert tags_of(aws) == {**own, "cost-centre": "43", "owner": "data team"}


def test_a_tag_with_an_empty_value_is_taken_away_and_ours_are_ours(aws: Any) -> None:
    stack = Environment(aws, "prod").stack
    before = [{"Key": "owner", "Value": "data"}, {"Key": "project", "Value": "delta-lake"}]
    stack.describe = lambda: {"Tags": before}  # type: ignore[method-assign]
    assert merged_tags(stack, {"project": "delta-lake"}, {"owner": ""}) == {"project": "delta-lake"}
    with pytest.raises(DeployError, match="The tag project is set by the deployment itself"):
        merged_tags(stack, {"project": "delta-lake"}, {"project": "mine"})


def test_prod_is_protected_from_deletion_and_other_environments_are_not(
    aws: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up"]) == 0 and main(["up", "--environment", "dev"]) == 0
    assert main(["down"]) == 1
    assert "say make destroy ENV=prod UNPROTECT=prod" in capsys.readouterr().err
    assert main(["down", "--unprotect", "prod"]) == 0
    assert main(["down", "--environment", "dev"]) == 0


def test_a_boundary_of_the_account_is_given_by_its_name(aws: Any) -> None:
    arn = "arn:aws:iam::123456789012:policy/company"
    assert boundary_arn(aws, "company") == boundary_arn(aws, arn) == arn
    assert boundary_arn(aws, "") == ""
    parameters = {"PermissionsBoundary": arn, "RolePrefix": "app-"}
    bootstrap = Template.load(ROOT / "bootstrap.yaml", parameters=parameters)
    role = bootstrap.properties("DeployRole")
    assert role["PermissionsBoundary"] == arn == bootstrap.outputs()["BoundaryArn"]
    assert role["RoleName"].startswith("app-") and bootstrap.outputs()["RolePrefix"] == "app-"
    statements = role["Policies"][0]["PolicyDocument"]["Statement"]
    (making,) = [
        statement for statement in statements if statement["Sid"] == "RolesWithinTheBoundary"
    ]
    assert making["Condition"] == {"StringEquals": {"iam:PermissionsBoundary": arn}}
    assert making["Resource"].endswith(":role/app-delta-lake-*")


def test_a_key_of_the_account_is_not_deleted_with_the_data(aws: Any) -> None:
    kms, environment = aws.client("kms"), Environment(aws, "prod")
    tags = [{"TagKey": "project", "TagValue": "delta-lake"}]
    company = kms.create_key(Tags=tags)["KeyMetadata"]["KeyId"]
    own = [*tags, {"TagKey": "environment", "TagValue": "prod"}]
    made = kms.create_key(Tags=own)["KeyMetadata"]["KeyId"]
    assert not environment._is_own(company) and environment._is_own(made)
