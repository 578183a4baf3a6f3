"""Packaging and deploying, against a moto server: the deployer's own commands, and what it says
when something is missing."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from deploy.__main__ import explained, main
from deploy.environment import Environment
from deploy.package import package, zipped
from deploy.smoke import smoke
from deploy.stack import DeployError
from tests.unit.account import REGION, account
from tools.template import ROOT, Template

# What moto's CloudFormation does not know. `local/` makes or plays the job, crawler, database,
# workgroup, Pipe and schedule; policies of buckets, queues and the topic, the subscription and the
# alarms are held against the design by reading the template.
UNKNOWN_TO_MOTO = {
    "AWS::S3::BucketPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::SNS::Subscription",
    "AWS::CloudWatch::Alarm",
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
        assert (
            main(["bootstrap", "--github-subjects", "repo:shop@1/lake@2:environment:production"])
            == 0
        )
        yield boto3.Session(region_name=REGION)


def made(session: Any, stack: str = "delta-lake-prod") -> dict[str, str]:
    """Logical id -> type of what CloudFormation has made."""
    found = session.client("cloudformation").list_stack_resources(StackName=stack)[
        "StackResourceSummaries"
    ]
    return {
        resource["LogicalResourceId"]: resource["ResourceType"]
        for resource in found
        if resource.get("ResourceType")
    }


def kept(session: Any) -> list[str]:
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
    given = packaged.template["Resources"]["StateMachine"]["Properties"]["DefinitionSubstitutions"]
    names = {name: given[name].rpartition("/")[2] for name in ("OperationsScript", "LoadScript")}
    assert names == {"OperationsScript": "glue_operations.py", "LoadScript": "glue_etl.py"}
    job = packaged.template["Resources"]["GlueJob"]["Properties"]
    assert given["LoadScript"] == job["Command"]["ScriptLocation"]
    (parser,) = [one for one in packaged.artifacts if one.key.endswith("/sqlglot.zip")]
    assert given["SqlParser"] == f"s3://some-bucket/{parser.key}"
    names_in_zip = zipfile.ZipFile(io.BytesIO(parser.body)).namelist()
    assert "sqlglot/__init__.py" in names_in_zip
    assert all(name.startswith("sqlglot/") for name in names_in_zip)


def test_a_zip_holds_the_handlers_where_lambda_looks_for_them() -> None:
    assert zipfile.ZipFile(io.BytesIO(zipped(ROOT / "lambda" / "run_report"))).namelist() == [
        "cost.py",
        "handler.py",
        "hints.py",
        "metrics.py",
        "prices.json",
        "run_graph.py",
    ]


def test_the_templates_are_made_by_cloudformation_as_far_as_moto_knows_it(aws: Any) -> None:
    assert main(["up", "--parameter", "AlertEmail=shop@example.com"]) == 0
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
    }  # nor AWS::IAM::OIDCProvider


def test_github_may_deploy_with_the_exact_subject_only(aws: Any) -> None:
    role = next(
        role for role in aws.client("iam").list_roles()["Roles"] if "GitHubRole" in role["RoleName"]
    )
    condition = role["AssumeRolePolicyDocument"]["Statement"][0]["Condition"]
    assert condition == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": [
                "repo:shop@1/lake@2:environment:production"
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
    # moto hands the policy out as the template has it, not as text
    policy = kms.get_key_policy(KeyId=key["KeyId"], PolicyName="default")["Policy"]
    assert {"AWS": role} in [statement["Principal"] for statement in policy["Statement"]]


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
    environment, said = Environment(aws, "prod", poll=0), []
    environment.stack.say = said.append
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
        assert said == ["delta-lake-prod: nothing to change"]


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
    said: list[str] = []
    environment = Environment(aws, "prod", say=said.append)
    client, states = aws.client, aws.client("stepfunctions")

    def denied(**_: Any) -> None:
        answer = {"Error": {"Code": "AccessDeniedException"}}
        raise ClientError(answer, "ValidateStateMachineDefinition")

    monkeypatch.setattr(states, "validate_state_machine_definition", denied)
    monkeypatch.setattr(
        aws, "client", lambda name: states if name == "stepfunctions" else client(name)
    )
    environment.check_state_machine()
    assert said == ["The state machine is not checked: states:ValidateStateMachineDefinition"]


def test_what_is_uploaded_already_is_not_uploaded_again(
    aws: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up"]) == 0
    capsys.readouterr()
    assert main(["up"]) == 0
    assert "0 of 7 files were new" in capsys.readouterr().out


def test_a_plan_changes_nothing(aws: Any) -> None:
    assert main(["up", "--environment", "dev", "--plan"]) == 0
    assert kept(aws) == []


def test_two_environments_stand_side_by_side(aws: Any) -> None:
    assert main(["up"]) == 0 and main(["up", "--environment", "dev"]) == 0
    assert len(kept(aws)) == 8
    assert main(["down", "--environment", "dev", "--delete-data", "dev"]) == 0
    assert len(kept(aws)) == 4


def test_destroy_keeps_the_data_and_its_key(aws: Any) -> None:
    assert main(["up"]) == 0
    aws.client("s3").put_object(
        Bucket=f"delta-lake-prod-lake-123456789012-{REGION}", Key="lakehouse-dwh/x", Body=b"x"
    )
    assert main(["down"]) == 0
    assert len(kept(aws)) == 4
    kms = aws.client("kms")
    (key,) = kms.list_keys()["Keys"]
    assert kms.generate_data_key(KeyId=key["KeyId"], KeySpec="AES_256")["Plaintext"]


def test_destroy_deletes_all_versions_of_the_data_when_told_so(aws: Any) -> None:
    assert main(["up"]) == 0
    s3, bucket = aws.client("s3"), f"delta-lake-prod-lake-123456789012-{REGION}"
    s3.put_object(Bucket=bucket, Key="lakehouse-dwh/x", Body=b"1")
    s3.put_object(Bucket=bucket, Key="lakehouse-dwh/x", Body=b"2")
    s3.delete_object(Bucket=bucket, Key="lakehouse-dwh/x")
    assert main(["down", "--delete-data", "prod"]) == 0
    assert kept(aws) == []


def test_data_is_deleted_only_if_the_environment_is_said_twice(
    aws: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up"]) == 0
    assert main(["down", "--delete-data", "dev"]) == 1
    assert "nothing was done" in capsys.readouterr().err and len(kept(aws)) == 4


def test_the_next_deployment_takes_kept_data_over(
    aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto cannot import; so what is asked of CloudFormation is looked at, up to the import."""
    assert main(["up"]) == 0 and main(["down"]) == 0
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
    environment.up(environment.artifact_bucket(), {})
    (key,) = [key["KeyId"] for key in aws.client("kms").list_keys()["Keys"]]
    imported, updated = asked
    assert imported.pop("DataKey") == {"KeyId": key}
    assert (
        sorted(identifier["BucketName"] for identifier in imported.values()) == kept(aws)
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
        (["up", "--parameter", "AlertEmail"], {}, "write NAME=VALUE"),
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
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


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
    assert says in explained(error)


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


class SmokeAccount:
    """Stands for boto3's session: each delivery is followed by executions with these summaries;
    Athena counts `rows`."""

    def __init__(
        self, *deliveries: list[dict[str, Any]], status: str = "SUCCEEDED", rows: str = "7"
    ) -> None:
        self.deliveries, self.status, self.rows = list(deliveries), status, rows
        self.uploaded: list[str] = []
        self.runs: list[dict[str, Any]] = []
        self.refusals, self.new = 0, False
        self.called: set[str] = set()
        self.service = ""

    def client(self, service: str) -> SmokeAccount:
        self.service = service
        return self

    def __getattribute__(self, name: str) -> Any:
        """Notes the API calls, whose names are those of the methods below."""
        found = object.__getattribute__(self, name)
        if name in CALLS:
            self.called.add(f"{self.service}.{CALLS[name] or name}")
        return found

    def get_paginator(self, name: str) -> SmokeAccount:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        """Once files have come, the executions of their delivery have run."""
        if self.new and self.deliveries:
            self.runs += self.deliveries.pop(0)
        self.new = False
        names = [str(number) for number in range(len(self.runs))]
        found = [{"executionArn": n, "name": n, "status": self.status} for n in reversed(names)]
        return [{"executions": found}]

    def describe_execution(self, **_: Any) -> dict[str, str]:
        return {"cause": "the reason"}

    def put_object(self, **given: Any) -> None:
        if self.refusals:
            self.refusals -= 1
            answer = {
                "Error": {"Code": "AccessDenied"},
                "ResponseMetadata": {"HTTPStatusCode": 403},
            }
            raise ClientError(answer, "PutObject")
        self.uploaded.append(given["Key"])
        self.new = True

    def get_object(self, **given: Any) -> dict[str, Any]:
        summary = self.runs[int(given["Key"].split("/")[1])]
        return {"Body": io.BytesIO(json.dumps(summary).encode())}

    def start_query_execution(self, **given: Any) -> dict[str, str]:
        assert given["WorkGroup"] == OUTPUTS["WorkGroup"]
        assert given["QueryExecutionContext"] == {"Database": OUTPUTS["Database"]}
        return {"QueryExecutionId": given["QueryString"]}

    def get_query_execution(self, **_: Any) -> dict[str, Any]:
        return {"QueryExecution": {"Status": {"State": "SUCCEEDED"}}}

    def get_query_results(self, **_: Any) -> dict[str, Any]:
        rows = [[{"VarCharValue": "_col0"}], [{"VarCharValue": self.rows}]]
        return {"ResultSet": {"Rows": [{"Data": row} for row in rows]}}


# Method -> API call, where a paginator makes it
CALLS = {
    "paginate": "list_executions",
    "describe_execution": "",
    "put_object": "",
    "get_object": "",
    "start_query_execution": "",
    "get_query_execution": "",
    "get_query_results": "",
}
FIRST_FILES, SECOND_FILES = 25, 13  # of the sample


def summary_with(files: int, **changed: int) -> dict[str, Any]:
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
        "files": {"loaded": files - 2, "duplicate": 1, "set_aside": 1},
        "datasets": {"orders": numbers},
        "tables": {"clean_orders": {"rows": 7}, "etl_runs": {"rows": 2}},
    }


FIRST, SECOND = summary_with(FIRST_FILES), summary_with(SECOND_FILES)


@pytest.mark.parametrize(
    ("session", "says"),
    [
        (SmokeAccount([FIRST], status="FAILED"), "Execution 0 ended FAILED: the reason"),
        (SmokeAccount([summary_with(FIRST_FILES, rows_read=4)]), "not the sum"),
        (SmokeAccount([summary_with(FIRST_FILES, inserted=0, rejected=2)]), "nothing was inserted"),
        (SmokeAccount([{}]), "not all loaded in time"),
        (SmokeAccount([summary_with(FIRST_FILES - 1)]), "not all loaded in time"),
        (
            SmokeAccount([FIRST], [summary_with(SECOND_FILES, updated=0, unchanged=1)]),
            "nothing was merged",
        ),
        (SmokeAccount([FIRST], [SECOND], rows="6"), "Athena counts 6 rows, the run 7"),
    ],
)
def test_the_smoke_test_fails_where_a_run_does(session: SmokeAccount, says: str) -> None:
    with pytest.raises(DeployError, match=says):
        smoke(session, OUTPUTS, say=lambda line: None, minutes=0.005, poll=0.05)


def test_the_smoke_test_loads_both_deliveries_and_reads_the_tables_by_athena() -> None:
    """The second may be taken by two runs, of which the last finds only what was delivered
    before."""
    parts = [
        summary_with(SECOND_FILES - 2),
        {"files": {"duplicate": 2}, "datasets": {}, "tables": {}},
    ]
    session, said = SmokeAccount([FIRST], parts), []
    assert smoke(session, OUTPUTS, say=said.append, poll=0.01) == parts[0]
    assert len(session.uploaded) == FIRST_FILES + SECOND_FILES
    assert "land-folder/Data/products.csv" in session.uploaded
    assert said[-1] == "clean_orders: Athena counts 7 rows, as the run did"


def test_an_upload_waits_until_the_right_to_a_new_key_counts() -> None:
    session = SmokeAccount([FIRST], [SECOND])
    session.refusals = 2
    assert smoke(session, OUTPUTS, say=lambda line: None, poll=0.01) == SECOND


def test_github_may_make_every_call_of_the_smoke_test() -> None:
    session = SmokeAccount([FIRST], [SECOND])
    smoke(session, OUTPUTS, say=lambda line: None, poll=0.01)
    with pytest.raises(DeployError):
        smoke(SmokeAccount([FIRST], status="FAILED"), OUTPUTS, say=lambda line: None)
    allowed = {
        action.lower()
        for policy in resources("bootstrap.yaml")["GitHubRole"]["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in listed(statement["Action"])
    }
    made = {
        call.replace("stepfunctions.", "states.").replace(".", ":").replace("_", "")
        for call in session.called | {"stepfunctions.describe_execution"}
    }
    assert len(made) == 7 and made - allowed == set()
