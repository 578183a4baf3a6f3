"""What was changed in an environment's stack by other means than a deployment."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from deploy.stack import POLL_SECONDS, DeployError, Say, stack_name

DRIFTED = ["MODIFIED", "DELETED"]


def drift(client: Any, environment: str, say: Say = print, poll: float = POLL_SECONDS) -> bool:
    """Compare the resources of an environment with its template; return whether they are alike.

    Each difference is a line. Raises DeployError if CloudFormation cannot compare them.
    """
    name = stack_name(environment)
    detection = client.detect_stack_drift(StackName=name)["StackDriftDetectionId"]
    while True:
        status = client.describe_stack_drift_detection_status(StackDriftDetectionId=detection)
        if status["DetectionStatus"] != "DETECTION_IN_PROGRESS":
            break
        time.sleep(poll)
    lines = list(_differences(client, name))
    for line in lines:
        say(line)
    if status["DetectionStatus"] == "DETECTION_FAILED":
        reason = status.get("DetectionStatusReason", "no reason is given")
        raise DeployError(f"CloudFormation could not look at all of {name}: {reason}")
    if status["StackDriftStatus"] == "DRIFTED":
        say(f"{name}: {status['DriftedStackResourceCount']} resources differ from the template")
        return False
    say(f"{name}: no resource differs from the template")
    return True


def _differences(client: Any, name: str) -> Iterator[str]:
    """Yield a line for each deleted resource and for each property that differs."""
    options: dict[str, str] = {}
    while True:
        page = client.describe_stack_resource_drifts(
            StackName=name, StackResourceDriftStatusFilters=DRIFTED, **options
        )
        for resource in page["StackResourceDrifts"]:
            yield from _lines(resource)
        if "NextToken" not in page:
            return
        options = {"NextToken": page["NextToken"]}


def _lines(resource: Mapping[str, Any]) -> Iterator[str]:
    place = f"{resource['ResourceType']} {resource['LogicalResourceId']}"
    if resource["StackResourceDriftStatus"] == "DELETED":
        yield f"{place}: deleted"
    for difference in resource.get("PropertyDifferences", []):
        yield (
            f"{place}: {difference['PropertyPath']} is {difference['ActualValue']}, "
            f"the template says {difference['ExpectedValue']}"
        )
