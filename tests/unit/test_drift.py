"""What runs on one machine is what the template says: each resource is asked for at the local AWS
and held against the template."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from client.template import Template
from local.aws.server import LocalAws

# What `local/` leaves out: nobody can tell the difference by looking at the data, or AWS alone can
# do it.
NOT_PLAYED = {
    "AWS::KMS::Alias": "a name of the key",
    "AWS::S3::BucketPolicy": "there is no TLS on one machine",
    "AWS::SQS::QueuePolicy": "policies are not enforced",
    "AWS::SNS::TopicPolicy": "policies are not enforced",
    "AWS::IAM::ManagedPolicy": "policies are not enforced",
    "AWS::Budgets::Budget": "nothing costs anything",
    "AWS::SNS::Subscription": "a queue plays the mailbox",
    "AWS::Logs::LogGroup": "logs are on the terminal",
    "AWS::CloudWatch::Alarm": "there are no metrics",
    "AWS::CloudWatch::Dashboard": "there are no metrics",
    "AWS::Scheduler::Schedule": "`sweep()` starts what the schedule starts",
    "AWS::Pipes::Pipe": "a thread plays it",
}


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAws]:
    with LocalAws() as deployed:
        yield deployed


def differences(declared: Any, actual: Any, path: str = "") -> list[str]:
    """Where something of the template is missing or other than it says; what the service adds does
    not count."""
    if isinstance(declared, Mapping) and isinstance(actual, Mapping):
        return [
            line
            for name, value in declared.items()
            for line in differences(value, actual.get(name), f"{path}.{name}")
        ]
    if isinstance(declared, list) and isinstance(actual, list) and len(declared) == len(actual):
        return [
            line
            for place, pair in enumerate(zip(declared, actual, strict=True))
            for line in differences(*pair, f"{path}[{place}]")
        ]
    same = (
        str(declared).lower() == str(actual).lower()
        if isinstance(declared, (bool, int))
        else declared == actual
    )
    return [] if same else [f"{path}: the template says {declared!r}, the local AWS {actual!r}"]


Properties = Mapping[str, Any]
# What the template says of a resource, as far as it is played; what the local AWS answers about it
Seen = tuple[Any, Any]


def bucket(aws: LocalAws, name: str, properties: Properties) -> Seen:
    # moto does not tell whether a bucket sends events; that uploads arrive is shown by the tests
    # of the pipeline.
    s3 = aws.client("s3")
    answer = {"VersioningConfiguration": s3.get_bucket_versioning(Bucket=name)}
    declared = {key: properties[key] for key in answer}
    (rule,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    encryption = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]
    declared["BucketEncryption"] = {
        "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
        "BucketKeyEnabled": rule["BucketKeyEnabled"],
    }
    return declared, answer | {"BucketEncryption": encryption["Rules"][0]}


def queue(aws: LocalAws, name: str, properties: Properties) -> Seen:
    asked = aws.client("sqs").get_queue_attributes(QueueUrl=name, AttributeNames=["All"])
    answer = asked["Attributes"]
    if "RedrivePolicy" in answer:
        answer["RedrivePolicy"] = json.loads(answer["RedrivePolicy"])
    return {key: value for key, value in properties.items() if key != "QueueName"}, answer


def topic(aws: LocalAws, name: str, properties: Properties) -> Seen:
    answer = aws.client("sns").get_topic_attributes(TopicArn=name)["Attributes"]
    return {"TopicArn": name, "DisplayName": properties["DisplayName"]}, answer


def rule(aws: LocalAws, name: str, properties: Properties) -> Seen:
    events = aws.client("events")
    answer = {
        "EventPattern": json.loads(events.describe_rule(Name=name)["EventPattern"]),
        "Targets": events.list_targets_by_rule(Rule=name)["Targets"],
    }
    return {key: properties[key] for key in answer}, answer


def state_machine(aws: LocalAws, name: str, properties: Properties) -> Seen:
    answer = aws.client("stepfunctions").describe_state_machine(stateMachineArn=name)
    declared = {
        "name": properties["StateMachineName"],
        "type": properties["StateMachineType"],
        "roleArn": properties["RoleArn"],
        "definition": json.loads(aws.template.definition()),
    }
    return declared, answer | {"definition": json.loads(answer["definition"])}


def function(aws: LocalAws, name: str, properties: Properties) -> Seen:
    played = (
        "FunctionName",
        "Description",
        "Role",
        "Handler",
        "Runtime",
        "MemorySize",
        "Timeout",
        "Environment",
    )
    answer = aws.client("lambda").get_function_configuration(FunctionName=name)
    return {key: properties[key] for key in played}, answer


def job(aws: LocalAws, name: str, properties: Properties) -> Seen:
    return properties, aws.client("glue").get_job(JobName=name)["Job"]


def crawler(aws: LocalAws, name: str, properties: Properties) -> Seen:
    return properties, aws.client("glue").get_crawler(Name=name)["Crawler"]


def database(aws: LocalAws, name: str, properties: Properties) -> Seen:
    return properties["DatabaseInput"], aws.client("glue").get_database(Name=name)["Database"]


def workgroup(aws: LocalAws, name: str, properties: Properties) -> Seen:
    answer = aws.client("athena").get_work_group(WorkGroup=name)["WorkGroup"]
    return {"Name": name, "Configuration": properties["WorkGroupConfiguration"]}, answer


def role(aws: LocalAws, name: str, properties: Properties) -> Seen:
    iam = aws.client("iam")
    inline = [
        {
            "PolicyName": policy["PolicyName"],
            "PolicyDocument": iam.get_role_policy(RoleName=name, PolicyName=policy["PolicyName"])[
                "PolicyDocument"
            ],
        }
        for policy in properties["Policies"]
    ]
    declared = {key: properties[key] for key in ("AssumeRolePolicyDocument", "Policies")}
    return declared, iam.get_role(RoleName=name)["Role"] | {"Policies": inline}


def key(aws: LocalAws, name: str, properties: Properties) -> Seen:
    return {"KeyId": name}, aws.client("kms").describe_key(KeyId=name)["KeyMetadata"]


LOOKS: dict[str, Callable[[LocalAws, str, Properties], Seen]] = {
    "AWS::S3::Bucket": bucket,
    "AWS::SQS::Queue": queue,
    "AWS::SNS::Topic": topic,
    "AWS::Events::Rule": rule,
    "AWS::StepFunctions::StateMachine": state_machine,
    "AWS::Lambda::Function": function,
    "AWS::Glue::Job": job,
    "AWS::Glue::Crawler": crawler,
    "AWS::Glue::Database": database,
    "AWS::Athena::WorkGroup": workgroup,
    "AWS::IAM::Role": role,
    "AWS::KMS::Key": key,
}


def deployed(aws: LocalAws, kind: str, logical_id: str) -> Seen:
    if kind not in LOOKS:
        raise ValueError(f"{logical_id}: say how a {kind} is looked at, or why it is not played")
    return LOOKS[kind](aws, aws.name(logical_id), aws.template.properties(logical_id))


RESOURCES = [
    (resource["Type"], logical_id)
    for logical_id, resource in Template.load().document["Resources"].items()
]


@pytest.mark.parametrize(
    ("kind", "logical_id"),
    [pair for pair in RESOURCES if pair[0] not in NOT_PLAYED],
    ids=lambda value: value,
)
def test_the_local_aws_has_what_the_template_says(
    aws: LocalAws, kind: str, logical_id: str
) -> None:
    declared, actual = deployed(aws, kind, logical_id)
    assert differences(declared, actual) == []


def test_the_local_aws_has_nothing_that_the_template_does_not_say(aws: LocalAws) -> None:
    machines = aws.client("stepfunctions").list_state_machines()["stateMachines"]
    names_by_type = {
        "AWS::S3::Bucket": [
            bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]
        ],
        "AWS::SQS::Queue": [
            url
            for url in aws.client("sqs").list_queues()["QueueUrls"]
            if not url.endswith("/local-operator-inbox")
        ],
        "AWS::SNS::Topic": [
            topic["TopicArn"] for topic in aws.client("sns").list_topics()["Topics"]
        ],
        "AWS::Glue::Job": aws.client("glue").list_jobs()["JobNames"],
        "AWS::Glue::Crawler": aws.client("glue").list_crawlers()["CrawlerNames"],
        "AWS::Lambda::Function": [
            function["FunctionName"]
            for function in aws.client("lambda").list_functions()["Functions"]
        ],
        "AWS::StepFunctions::StateMachine": [machine["stateMachineArn"] for machine in machines],
        "AWS::IAM::Role": [role["RoleName"] for role in aws.client("iam").list_roles()["Roles"]],
    }
    assert {kind: sorted(names) for kind, names in names_by_type.items()} == {
        kind: sorted(aws.name(logical_id) for logical_id, _ in aws.template.of_type(kind))
        for kind in names_by_type
    }


def test_the_pipe_and_the_schedule_play_by_the_template(aws: LocalAws) -> None:
    pipe = aws.template.properties("UploadPipe")
    source = pipe["SourceParameters"]["SqsQueueParameters"]
    assert (aws.pipe.window, aws.pipe.batch_size) == (
        source["MaximumBatchingWindowInSeconds"],
        source["BatchSize"],
    )
    assert (aws.pipe.target, aws.pipe.queue) == (pipe["Target"], aws.name("UploadQueue"))
    assert aws.pipe.input == json.loads(pipe["TargetParameters"]["InputTemplate"])
    assert aws.describe(aws.sweep())["input"] == aws.template.properties("Sweep")["Target"]["Input"]


def test_every_type_that_is_not_played_is_in_the_template_and_says_why() -> None:
    assert set(NOT_PLAYED) <= {kind for kind, _ in RESOURCES} and all(NOT_PLAYED.values())


def test_a_difference_is_found() -> None:
    assert differences({"a": {"b": 1}, "c": [1]}, {"a": {"b": 2}, "c": []}) == [
        ".a.b: the template says 1, the local AWS 2",
        ".c: the template says [1], the local AWS []",
    ]
