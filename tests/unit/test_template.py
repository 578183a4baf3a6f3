"""The template passes the linter with the state machine in it, and says what the design
promises."""

from __future__ import annotations

import fnmatch
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from client.template import ROOT, Template


def lint(path: Path) -> str:
    command = shutil.which("cfn-lint", path=str(Path(sys.executable).parent)) or shutil.which(
        "cfn-lint"
    )
    if command is None:
        pytest.skip("cfn-lint is not installed")
    finished = subprocess.run([command, str(path)], capture_output=True, text=True)
    return finished.stdout + finished.stderr


def test_the_template_has_no_findings() -> None:
    assert lint(ROOT / "template.yaml") == ""


def test_the_state_machine_has_no_findings_within_a_template(tmp_path: Path) -> None:
    definition = json.loads(Template.load().definition())
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": {
            "StateMachine": {
                "Type": "AWS::StepFunctions::StateMachine",
                "Properties": {
                    "RoleArn": "arn:aws:iam::123456789012:role/steps",
                    "Definition": definition,
                },
            }
        },
    }
    path = tmp_path / "template.json"
    path.write_text(json.dumps(template))
    assert lint(path) == ""


def test_every_placeholder_of_the_state_machine_is_filled_in_and_none_is_left_over() -> None:
    template = Template.load()
    assert "${" not in template.definition()
    source = (ROOT / "stepfunctions" / "delta-lake.json").read_text("utf-8")
    names = template.properties("StateMachine")["DefinitionSubstitutions"]
    assert [name for name in names if "${" + name + "}" not in source] == []


def test_operators_find_everything_under_its_name() -> None:
    template = Template.load()
    logical_ids = ("GlueJob", "Crawler", "Database", "ArchiveFunction")
    names = {logical_id: template.ref(logical_id) for logical_id in logical_ids}
    assert names == {
        "GlueJob": "Lakehouse",
        "Crawler": "delta-crawler",
        "Database": "delta-lakehouse",
        "ArchiveFunction": "Moves3Objects",
    }
    assert template.ref("Topic").endswith(":etl")
    assert template.outputs()["RawZone"].endswith("/land-folder/Data/")


def test_two_environments_share_no_name() -> None:
    prod, dev = Template.load(), Template.load(parameters={"EnvironmentName": "dev"})
    named = [
        "AWS::S3::Bucket",
        "AWS::SQS::Queue",
        "AWS::SNS::Topic",
        "AWS::Events::Rule",
        "AWS::Pipes::Pipe",
        "AWS::Scheduler::Schedule",
        "AWS::Lambda::Function",
        "AWS::StepFunctions::StateMachine",
        "AWS::Glue::Job",
        "AWS::Glue::Crawler",
        "AWS::Glue::Database",
        "AWS::Athena::WorkGroup",
        "AWS::Logs::LogGroup",
        "AWS::CloudWatch::Alarm",
    ]
    shared = [
        logical_id
        for kind in named
        for logical_id, _ in prod.of_type(kind)
        if prod.ref(logical_id) == dev.ref(logical_id)
    ]
    assert shared == []


def test_the_job_is_the_only_writer_and_never_repeated_behind_the_state_machines_back() -> None:
    job = Template.load().properties("GlueJob")
    assert job["ExecutionProperty"] == {"MaxConcurrentRuns": 1} and job["MaxRetries"] == 0
    assert job["GlueVersion"] == "6.0"


def test_no_lifecycle_rule_touches_what_belongs_to_delta() -> None:
    rules = Template.load().properties("LakeBucket")["LifecycleConfiguration"]["Rules"]
    removing = [rule for rule in rules if "ExpirationInDays" in rule or "Transitions" in rule]
    assert [rule["Prefix"] for rule in removing] == ["glue-temp/"]


def policies(template: Template, kind: str) -> list[dict[str, Any]]:
    """The statements of all policies of a type, each Principal's services as a list."""
    statements = [
        statement
        for _, properties in template.of_type(kind)
        for statement in properties["PolicyDocument"]["Statement"]
    ]
    return [dict(statement, Services=services(statement)) for statement in statements]


def services(statement: Mapping[str, Any]) -> list[str]:
    principal = statement.get("Principal", {})
    names = principal.get("Service", []) if isinstance(principal, dict) else []
    return [names] if isinstance(names, str) else names


def test_every_bucket_is_private_encrypted_with_the_key_versioned_and_kept() -> None:
    template = Template.load()
    for logical_id, bucket in template.of_type("AWS::S3::Bucket"):
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}, logical_id
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["BucketKeyEnabled"] and rule["ServerSideEncryptionByDefault"] == {
            "SSEAlgorithm": "aws:kms",
            "KMSMasterKeyID": template.attribute("DataKey", "Arn"),
        }, logical_id
        assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}, logical_id
        assert any(
            "NoncurrentVersionExpiration" in rule
            for rule in bucket["LifecycleConfiguration"]["Rules"]
        ), logical_id
        resource = template.document["Resources"][logical_id]
        assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Retain", logical_id
    assert template.document["Resources"]["DataKey"]["DeletionPolicy"] == "Retain"


def test_every_bucket_queue_and_topic_speaks_tls_only() -> None:
    template = Template.load()
    refused = [
        resource
        for kind in ("AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy")
        for statement in policies(template, kind)
        if statement["Effect"] == "Deny"
        and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        for resource in (
            [statement["Resource"]]
            if isinstance(statement["Resource"], str)
            else statement["Resource"]
        )
    ]
    expected = [
        template.attribute(logical_id, "Arn")
        for kind in ("AWS::S3::Bucket", "AWS::SQS::Queue", "AWS::SNS::Topic")
        for logical_id, _ in template.of_type(kind)
    ]
    assert set(expected) <= set(refused)


def test_a_service_may_use_a_queue_or_the_topic_for_this_deployment_only() -> None:
    template = Template.load()
    for kind in ("AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy"):
        for statement in policies(template, kind):
            to_topic = (kind, statement["Services"]) == (
                "AWS::SNS::TopicPolicy",
                ["events.amazonaws.com"],
            )
            if statement["Services"] and not to_topic:
                named = {key for test in statement["Condition"].values() for key in test}
                assert "aws:SourceArn" in named, statement["Sid"]


def test_eventbridge_can_publish_to_the_encrypted_topic() -> None:
    """EventBridge supports no condition in a topic's policy, and no source in its key's: each alert
    would be lost in silence."""
    template = Template.load()
    (allowed,) = [
        statement
        for statement in policies(template, "AWS::SNS::TopicPolicy")
        if statement["Services"] == ["events.amazonaws.com"]
    ]
    assert "Condition" not in allowed and allowed["Resource"] == template.ref("Topic")
    statements = template.properties("DataKey")["KeyPolicy"]["Statement"]
    (statement,) = [
        statement for statement in statements if services(statement) == ["events.amazonaws.com"]
    ]
    assert statement["Condition"] == {
        "StringEquals": {"kms:EncryptionContext:aws:sns:topicArn": template.ref("Topic")}
    }


def test_the_deployer_may_use_the_key_before_its_tags_count() -> None:
    """CloudFormation calls EnableKeyRotation at once; what hangs on a tag may take five minutes.

    So the key's own policy lets it in.
    """
    role = "arn:aws:iam::123456789012:role/lakehouse-bootstrap-DeployRole-1"
    deployed = Template.load(parameters={"DeployRoleArn": role}).properties("DataKey")
    (statement,) = [
        statement
        for statement in deployed["KeyPolicy"]["Statement"]
        if statement["Principal"] == {"AWS": role}
    ]
    bootstrap = Template.load(ROOT / "bootstrap.yaml").document["Resources"]
    by_tag = [
        action
        for policy in bootstrap["DeployRole"]["Properties"]["Policies"]
        for rule in policy["PolicyDocument"]["Statement"]
        if "aws:ResourceTag/project" in rule.get("Condition", {}).get("StringEquals", {})
        for action in rule["Action"]
    ]
    assert "kms:EnableKeyRotation" in by_tag and set(by_tag) <= set(statement["Action"])
    assert (statement["Effect"], statement.get("Condition")) == ("Allow", None)


def test_without_a_deploy_role_the_key_names_none() -> None:
    statements = Template.load().properties("DataKey")["KeyPolicy"]["Statement"]
    assert "TheDeployerMayAtOnce" not in [statement["Sid"] for statement in statements]


def test_auto_scaling_never_takes_away_rows_that_the_job_holds() -> None:
    """localCheckpoint keeps rows in executors only: they must outlive the longest run."""
    template = Template.load()
    settings = dict(
        word.split("=", 1)
        for word in template.properties("GlueJob")["DefaultArguments"]["--conf"].split()
        if "=" in word
    )
    hours = settings["spark.dynamicAllocation.cachedExecutorIdleTimeout"]
    longest = template.document["Parameters"]["JobTimeoutMinutes"]["MaxValue"]
    assert hours.endswith("h") and int(hours[:-1]) * 60 > longest


def test_a_pipe_waits_at_least_a_second_for_its_batch() -> None:
    """A batch of more than ten messages needs a batching window of one second at least."""
    template = Template.load()
    source = template.properties("UploadPipe")["SourceParameters"]["SqsQueueParameters"]
    assert source["BatchSize"] > 10
    assert template.document["Parameters"]["BatchingWindowSeconds"]["MinValue"] == 1


def test_every_log_group_is_encrypted_and_forgets() -> None:
    template = Template.load()
    groups = dict(template.of_type("AWS::Logs::LogGroup"))
    key = template.attribute("DataKey", "Arn")
    assert [
        name
        for name, group in groups.items()
        if group["KmsKeyId"] != key or group["RetentionInDays"] != 90
    ] == []
    pattern = next(
        statement["Condition"]["ArnLike"]["kms:EncryptionContext:aws:logs:arn"]
        for statement in template.properties("DataKey")["KeyPolicy"]["Statement"]
        if statement["Sid"] == "LogsAreEncrypted"
    )
    arns = [template.attribute(name, "Arn").removesuffix(":*") for name in groups]
    assert [arn for arn in arns if not fnmatch.fnmatchcase(arn, pattern)] == []


def test_the_job_writes_its_logs_where_a_log_group_waits_for_them() -> None:
    template = Template.load()
    prefix = template.properties("GlueJob")["DefaultArguments"]["--custom-logGroup-prefix"]
    assert {template.ref(name) for name in ("GlueJobOutput", "GlueJobErrors")} == {
        f"{prefix}/output",
        f"{prefix}/error",
    }


def test_there_is_an_alarm_for_each_way_to_fail() -> None:
    template = Template.load()
    watched = {
        (alarm["Namespace"], alarm["MetricName"], alarm["Dimensions"][0]["Value"])
        for _, alarm in template.of_type("AWS::CloudWatch::Alarm")
    }
    machine = template.ref("StateMachine")
    queue, dead = (
        template.properties(logical_id)["QueueName"]
        for logical_id in ("UploadQueue", "DeadLetterQueue")
    )
    assert watched == {
        ("AWS/States", "ExecutionsFailed", machine),
        ("AWS/States", "ExecutionsTimedOut", machine),
        ("AWS/States", "ExecutionsAborted", machine),
        ("AWS/States", "ExecutionsSucceeded", machine),
        ("AWS/SQS", "ApproximateNumberOfMessagesVisible", dead),
        ("AWS/SQS", "ApproximateAgeOfOldestMessage", queue),
        ("AWS/Lambda", "Errors", template.ref("ArchiveFunction")),
        ("AWS/Lambda", "Errors", template.ref("ReportFunction")),
        ("DeltaLake", "RejectedPercent", "prod"),
        ("DeltaLake", "RowsAccepted", "prod"),
    }


def test_an_alarm_is_silent_only_if_the_run_itself_sends_a_message() -> None:
    """A run that died sends none, and the event that tells of it is delivered on a best effort."""
    silent = {
        logical_id
        for logical_id, alarm in Template.load().of_type("AWS::CloudWatch::Alarm")
        if "AlarmActions" not in alarm
    }
    assert silent == {"FailedAlarm", "ArchiveErrorAlarm"}


def test_an_alarm_about_missing_values_looks_at_periods_of_an_hour() -> None:
    """CloudWatch looks back a few periods more for values: with periods of a day, for days."""
    template = Template.load(parameters={"FreshnessHours": 30})
    alarms = dict(template.of_type("AWS::CloudWatch::Alarm"))
    looks = {
        logical_id: (alarm["Period"], alarm["EvaluationPeriods"])
        for logical_id, alarm in alarms.items()
        if alarm["TreatMissingData"] == "breaching"
    }
    assert looks == {"NoSuccessAlarm": (3600, 24), "FreshnessAlarm": (3600, 30)}


def test_no_metric_of_glue_is_paid_for_that_nobody_gets() -> None:
    """Without a GlueContext Glue's job metrics stay empty; observability metrics are billed."""
    template = Template.load()
    arguments = template.properties("GlueJob")["DefaultArguments"]
    assert [name for name in arguments if "metrics" in name] == []
    assert '"Glue"' not in template.properties("Dashboard")["DashboardBody"]


def test_scratch_and_results_are_not_kept_as_old_versions() -> None:
    template = Template.load()
    rules = {
        logical_id: bucket["LifecycleConfiguration"]["Rules"]
        for logical_id, bucket in template.of_type("AWS::S3::Bucket")
    }
    (scratch,) = [rule for rule in rules["LakeBucket"] if rule.get("Prefix") == "glue-temp/"]
    old = [
        rule["NoncurrentVersionExpiration"]
        for rule in (scratch, *rules["AthenaResultsBucket"])
        if "NoncurrentVersionExpiration" in rule
    ]
    assert old == [{"NoncurrentDays": 1}] * 2


def test_a_schedule_that_cannot_start_a_run_and_a_pipe_that_fails_leave_a_trace() -> None:
    template = Template.load()
    dead_letters = template.attribute("DeadLetterQueue", "Arn")
    assert {
        schedule["Target"]["DeadLetterConfig"]["Arn"]
        for _, schedule in template.of_type("AWS::Scheduler::Schedule")
    } == {dead_letters}
    logs = template.properties("UploadPipe")["LogConfiguration"]
    place = template.attribute("PipeLogs", "Arn")
    assert logs == {"Level": "ERROR", "CloudwatchLogsLogDestination": {"LogGroupArn": place}}


def test_a_query_scans_ten_gibibytes_at_most_unless_somebody_allows_more() -> None:
    limit = Template.load().properties("WorkGroup")["WorkGroupConfiguration"]
    assert limit["BytesScannedCutoffPerQuery"] == 10 * 2**30


def matching_rules(template: Template, detail: Mapping[str, str]) -> list[str]:
    """The alert rules that match the end of an execution; understands the filters that they use."""

    def matches(filters: list[Any], name: str) -> bool:
        for condition in filters:
            if not isinstance(condition, dict):
                if detail.get(name) == condition:
                    return True
            elif "exists" in condition:
                if (name in detail) == condition["exists"]:
                    return True
            elif name in detail and detail[name] not in condition["anything-but"]:
                return True
        return False

    rules = [
        (logical_id, template.properties(logical_id)["EventPattern"]["detail"])
        for logical_id in ("DiedRule", "FailedUnseenRule")
    ]
    return [
        logical_id
        for logical_id, pattern in rules
        if all(matches(filters, name) for name, filters in pattern.items())
    ]


def test_one_failure_gives_one_message() -> None:
    template = Template.load()
    end = {"stateMachineArn": template.ref("StateMachine")}
    states = json.loads(template.definition())["States"]
    errors = [state["Error"] for state in states.values() if state["Type"] == "Fail"]
    for error in [*errors, "States.Runtime", "States.DataLimitExceeded"]:
        alerts = matching_rules(template, {**end, "status": "FAILED", "error": error})
        seen = error in ("RunFailed", "UnknownOperation")  # mailed, or told to the caller
        assert alerts == ([] if seen else ["FailedUnseenRule"]), error
    assert matching_rules(template, {**end, "status": "TIMED_OUT"}) == ["DiedRule"]
    assert matching_rules(template, {**end, "status": "ABORTED"}) == ["DiedRule"]
    assert matching_rules(template, {**end, "status": "SUCCEEDED"}) == []


def test_the_dashboard_shows_every_alarm() -> None:
    template = Template.load()
    widgets = json.loads(template.properties("Dashboard")["DashboardBody"])["widgets"]
    (shown,) = [widget["properties"]["alarms"] for widget in widgets if widget["type"] == "alarm"]
    assert sorted(shown) == sorted(
        template.attribute(logical_id, "Arn")
        for logical_id, _ in template.of_type("AWS::CloudWatch::Alarm")
    )


def test_a_skipped_finding_says_why() -> None:
    skips = [
        skip
        for resource in Template.load().document["Resources"].values()
        for skip in resource.get("Metadata", {}).get("checkov", {}).get("skip", [])
    ]
    assert skips and [skip for skip in skips if len(skip["comment"].split()) < 8] == []


def test_checkov_has_no_findings() -> None:
    command = shutil.which("checkov", path=str(Path(sys.executable).parent)) or shutil.which(
        "checkov"
    )
    if command is None:
        pytest.skip("checkov is not installed: make validate installs it")
    finished = subprocess.run(
        [
            command,
            "--framework",
            "cloudformation",
            "--compact",
            "--quiet",
            "--file",
            str(ROOT / "template.yaml"),
        ],
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout
