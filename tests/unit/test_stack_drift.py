"""The drift check lists what differs from the template, and fails then."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from deploy.drift import DRIFTED, drift
from deploy.stack import DeployError

STACK_ID = "arn:aws:cloudformation:us-east-1:123456789012:stack/delta-lake-prod/1"
DETECTION = {"StackDriftDetectionId": "detection"}
TIMESTAMP = "2025-04-01T00:00:00Z"


def resource(name: str, status: str, differences: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "StackId": STACK_ID,
        "LogicalResourceId": name,
        "ResourceType": "AWS::S3::Bucket",
        "StackResourceDriftStatus": status,
        "PropertyDifferences": differences,
        "Timestamp": TIMESTAMP,
    }


VERSIONING = {
    "PropertyPath": "/VersioningConfiguration/Status",
    "ExpectedValue": "Enabled",
    "ActualValue": "Suspended",
    "DifferenceType": "NOT_EQUAL",
}


def drift_result(
    statuses: list[dict[str, Any]], pages: list[list[dict[str, Any]]]
) -> tuple[Any, list[str]]:
    """The result of a check for which CloudFormation answers so, and its lines."""
    client, lines = boto3.client("cloudformation", region_name="us-east-1"), []
    with Stubber(client) as stub:
        stub.add_response("detect_stack_drift", DETECTION, {"StackName": "delta-lake-prod"})
        for status in statuses:
            answer = {"StackId": STACK_ID, **DETECTION, "Timestamp": TIMESTAMP, **status}
            stub.add_response("describe_stack_drift_detection_status", answer, DETECTION)
        for number, page in enumerate(pages):
            asked = {"StackName": "delta-lake-prod", "StackResourceDriftStatusFilters": DRIFTED}
            token = {"NextToken": str(number)} if number else {}
            next_token = {"NextToken": str(number + 1)} if number < len(pages) - 1 else {}
            answer = {"StackResourceDrifts": page, **next_token}
            stub.add_response("describe_stack_resource_drifts", answer, asked | token)
        try:
            same: Any = drift(client, "prod", lines.append, poll=0)
        except DeployError as error:
            same = str(error)
        stub.assert_no_pending_responses()
    return same, lines


def test_an_unchanged_stack_passes() -> None:
    statuses = [
        {"DetectionStatus": "DETECTION_IN_PROGRESS"},
        {"DetectionStatus": "DETECTION_COMPLETE", "StackDriftStatus": "IN_SYNC"},
    ]
    assert drift_result(statuses, [[]]) == (
        True,
        ["delta-lake-prod: no resource differs from the template"],
    )


def test_each_difference_is_a_line_and_fails_the_check() -> None:
    drifted = {"StackDriftStatus": "DRIFTED", "DriftedStackResourceCount": 2}
    pages = [[resource("RawBucket", "MODIFIED", [VERSIONING])], [resource("Sweep", "DELETED", [])]]
    assert drift_result([{"DetectionStatus": "DETECTION_COMPLETE", **drifted}], pages) == (
        False,
        [
            "AWS::S3::Bucket RawBucket: /VersioningConfiguration/Status is Suspended, the template "
            "says Enabled",
            "AWS::S3::Bucket Sweep: deleted",
            "delta-lake-prod: 2 resources differ from the template",
        ],
    )


def test_a_resource_that_cannot_be_looked_at_fails_the_check_after_the_lines() -> None:
    failed = {"DetectionStatus": "DETECTION_FAILED", "DetectionStatusReason": "AccessDenied on X"}
    same, lines = drift_result([failed], [[resource("RawBucket", "MODIFIED", [VERSIONING])]])
    assert same == "CloudFormation could not look at all of delta-lake-prod: AccessDenied on X"
    assert len(lines) == 1


@pytest.mark.parametrize("same", [True, False])
def test_the_command_ends_as_the_check_does(monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    from deploy import __main__ as command

    monkeypatch.setattr(command, "drift", lambda client, environment: same)
    monkeypatch.setattr(command, "_session", lambda options: boto3.Session(region_name="us-east-1"))
    assert command.main(["drift", "--environment", "prod"]) == (0 if same else 1)
