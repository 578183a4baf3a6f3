"""Stacks: a change set is made, shown and executed; what happens is told as it happens; what failed
is told in a line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

Say = Callable[[str], None]
ENDED = ("_COMPLETE", "_FAILED")
POLL_SECONDS = 5.0


class DeployError(Exception):
    """What stands in the way, in one line that says what to do."""


def stack_name(environment: str) -> str:
    """Return the name of an environment's stack."""
    return f"delta-lake-{environment}"


def outputs_of(session: Any, environment: str) -> dict[str, str]:
    """Return the outputs of an environment's stack; no other stack is read."""
    return Stack(session.client("cloudformation"), stack_name(environment)).outputs()


class Stack:
    """One CloudFormation stack.

    `role` is what CloudFormation works as; without it, as the caller.
    """

    def __init__(
        self,
        client: Any,
        name: str,
        say: Say = print,
        role: str | None = None,
        poll: float = POLL_SECONDS,
    ) -> None:
        self.client, self.name, self.say, self.poll = client, name, say, poll
        self.options = {"RoleARN": role} if role else {}

    def describe(self) -> dict[str, Any] | None:
        """The stack; None where there is none, or only a change set that was never executed."""
        try:
            stack = self.client.describe_stacks(StackName=self.name)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise
        return None if stack["StackStatus"] == "REVIEW_IN_PROGRESS" else stack

    def outputs(self) -> dict[str, str]:
        stack = self.describe()
        if stack is None:
            raise DeployError(
                f"There is no stack {self.name} in {self.client.meta.region_name}: deploy it, or "
                "say another environment or region"
            )
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}

    def change(
        self,
        template: Mapping[str, str],
        declared: Mapping[str, Any],
        parameters: Mapping[str, str],
        tags: Mapping[str, str],
        execute: bool = True,
        imported: Sequence[Mapping[str, Any]] = (),
    ) -> bool:
        """Creates or updates the stack by a change set; False where there was nothing to change.

        `template` is {'TemplateURL': ...} or {'TemplateBody': ...}. A parameter that is not given
        keeps its value; `imported` are resources that exist and that a new stack takes over.
        """
        existing = self.describe()
        if existing and existing["StackStatus"] == "ROLLBACK_COMPLETE":
            raise DeployError(
                f"The first deployment of {self.name} failed and left an empty stack: destroy it, "
                "then deploy again"
            )
        kind = "IMPORT" if imported else "UPDATE" if existing else "CREATE"
        current_names = {
            parameter["ParameterKey"] for parameter in (existing or {}).get("Parameters", [])
        }
        keep = [name for name in declared if name not in parameters and name in current_names]
        name = f"deploy-{time.time_ns()}"
        self.client.create_change_set(
            StackName=self.name,
            ChangeSetName=name,
            ChangeSetType=kind,
            **template,
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[
                *(
                    {"ParameterKey": key, "ParameterValue": value}
                    for key, value in parameters.items()
                ),
                *({"ParameterKey": key, "UsePreviousValue": True} for key in keep),
            ],
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            **({"ResourcesToImport": list(imported)} if imported else {}),
            **self.options,
        )
        changes = self._changes(name)
        if changes is None:
            self.say(f"{self.name}: nothing to change")
            return False
        for line in changes:
            self.say(line)
        if execute:
            self._execute(name)
        else:
            self.client.delete_change_set(StackName=self.name, ChangeSetName=name)
        return True

    def _changes(self, change_set: str) -> list[str] | None:
        """What the change set would do, a line for each resource; None where it would do
        nothing."""
        while True:
            described = self.client.describe_change_set(
                StackName=self.name, ChangeSetName=change_set
            )
            if described["Status"] in ("CREATE_COMPLETE", "FAILED"):
                break
            time.sleep(self.poll)
        if described["Status"] == "FAILED":
            reason = described.get("StatusReason", "")
            self.client.delete_change_set(StackName=self.name, ChangeSetName=change_set)
            if "didn't contain changes" in reason or "No updates" in reason:
                return None
            raise DeployError(f"CloudFormation refuses the change of {self.name}: {reason}")
        return [
            _change_line(change["ResourceChange"])
            for change in described.get("Changes", [])
            if "ResourceChange" in change
        ]

    def _execute(self, change_set: str) -> None:
        seen = {event["EventId"] for event in self._events()}
        self.client.execute_change_set(StackName=self.name, ChangeSetName=change_set)
        self._wait(seen, good=("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"))

    def protected(self) -> bool:
        """Return whether the stack is protected from deletion."""
        return bool((self.describe() or {}).get("EnableTerminationProtection"))

    def protect(self, on: bool) -> None:
        """Protect the stack from deletion, or no longer."""
        self.client.update_termination_protection(
            StackName=self.name, EnableTerminationProtection=on
        )

    def delete(self) -> bool:
        """Deletes the stack; False where there is none. What the template retains stays."""
        stack = self.describe()
        if stack is None:
            return False
        self.name, seen = (
            stack["StackId"],
            {event["EventId"] for event in self._events()},
        )  # a deleted stack is found by its id only
        self.client.delete_stack(StackName=self.name, **self.options)
        self._wait(seen, good=("DELETE_COMPLETE",))
        return True

    def _wait(self, seen: set[str], good: Sequence[str]) -> None:
        """Follows the stack until it rests; tells failures as they come."""
        failures = []
        while True:
            for event in self._events():
                if event["EventId"] not in seen:
                    seen.add(event["EventId"])
                    line = f"{event['ResourceStatus']:28} {event['LogicalResourceId']}"
                    reason = event.get("ResourceStatusReason", "")
                    if event["ResourceStatus"].endswith("_FAILED") and "cancelled" not in reason:
                        failures.append(f"{event['LogicalResourceId']}: {reason}")
                    self.say(line)
            stack = self.describe()
            status = stack["StackStatus"] if stack else "DELETE_COMPLETE"
            if status.endswith(ENDED) and not status.endswith("CLEANUP_IN_PROGRESS"):
                break
            time.sleep(self.poll)
        if status not in good:
            first = (
                failures[0]
                if failures
                else (stack or {}).get("StackStatusReason", "see its events in the console")
            )
            raise DeployError(f"{self.name} ended as {status}. {first}")

    def _events(self) -> Iterator[dict[str, Any]]:
        """All events, oldest first."""
        try:
            pages = self.client.get_paginator("describe_stack_events").paginate(StackName=self.name)
            yield from reversed([event for page in pages for event in page["StackEvents"]])
        except ClientError as error:
            if "does not exist" not in str(error):
                raise


def _change_line(change: Mapping[str, Any]) -> str:
    replaced = " (REPLACED)" if change.get("Replacement") == "True" else ""
    return (
        f"{change['Action']:8} {change['ResourceType']:36} {change['LogicalResourceId']}{replaced}"
    )
