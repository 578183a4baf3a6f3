"""The role that CloudFormation works as: it may read all that CloudFormation's handlers read, and
its policies fit into IAM.

What a handler needs stands in the schema of its resource type, which cfn-lint brings along.
"""

from __future__ import annotations

import fnmatch
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import cfnlint
import pytest

from client.template import ROOT, Template

SCHEMAS = Path(cfnlint.__file__).parent / "data" / "schemas" / "resources"
TEMPLATES = {name: Template.load(ROOT / name) for name in ("template.yaml", "bootstrap.yaml")}
# Listed by the handlers, and asked for only where a template sets what it is about; ours do not.
NOT_ASKED_FOR = {
    "s3:GetObjectVersion": "a package with a version's id",
    "ec2:Describe*": "a function in a VPC",
    "elasticfilesystem:DescribeMountTargets": "a function with a file system",
    "s3files:ListMountTargets": "a function with a file system",
    "lambda:GetCodeSigningConfig": "signed code",
    "lambda:GetLayerVersion": "layers",
    "s3tables:Get*": "tables of a bucket's metadata",
    "s3:List*Multipart*": "a query's answer, which no deployment writes",
}
# Changes that these templates can ask for, besides what the names above match.
CHANGES = ["glue:StopCrawler", "sns:SetSubscriptionAttributes"]
ROLE_CHARACTERS, POLICY_CHARACTERS = 10_240, 6_144  # of IAM, blanks not counted


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def allowed() -> set[str]:
    """The actions of the deploy role."""
    policies = TEMPLATES["bootstrap.yaml"].document["Resources"]["DeployRole"]["Properties"][
        "Policies"
    ]
    return {
        action
        for policy in policies
        for statement in policy["PolicyDocument"]["Statement"]
        for action in listed(statement["Action"])
    }


@cache
def handlers_of_types() -> dict[str, dict[str, set[str]]]:
    """Resource type of template.yaml -> handler -> the actions that it lists."""
    types = {
        resource["Type"] for resource in TEMPLATES["template.yaml"].document["Resources"].values()
    }
    by_type: dict[str, dict[str, set[str]]] = {kind: {} for kind in types}
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text("utf-8"))
        if schema["typeName"] in types:
            for name, handler in schema.get("handlers", {}).items():
                by_type[schema["typeName"]][name] = set(handler["permissions"])
    return by_type


def read_by_cloudformation() -> list[str]:
    """The actions by which CloudFormation reads the resources, as it does to find drift; a handler
    that lists PassRole needs it to write."""
    read = {
        action for of_type in handlers_of_types().values() for action in of_type.get("read", ())
    }
    return sorted(read - {"iam:PassRole"})


@pytest.fixture(scope="module")
def handlers() -> dict[str, set[str]]:
    """Resource type of template.yaml -> all actions that its handlers list."""
    return {
        kind: {action for name, actions in of_type.items() if name != "list" for action in actions}
        for kind, of_type in handlers_of_types().items()
    }


def test_every_type_of_the_template_has_handlers_to_be_held_against(
    handlers: dict[str, set[str]],
) -> None:
    assert [kind for kind, actions in handlers.items() if not actions] == []


def test_cloudformation_may_read_and_tag_all_that_its_handlers_do(
    handlers: dict[str, set[str]],
) -> None:
    may = {action.lower() for action in allowed()}
    reads = re.compile(r"\w+:(Get|List|Describe|TagResource$|UntagResource$)")
    missing = {
        (kind, action)
        for kind, actions in handlers.items()
        for action in actions
        if (reads.match(action) or action in CHANGES)
        and action.lower() not in may
        and not any(fnmatch.fnmatchcase(action, pattern) for pattern in NOT_ASKED_FOR)
    }
    assert missing == set()


def test_an_action_that_is_left_out_is_one_that_a_handler_lists(
    handlers: dict[str, set[str]],
) -> None:
    actions = set().union(*handlers.values())
    assert [p for p in NOT_ASKED_FOR if not fnmatch.filter(actions, p)] == []


def written_out(value: Any) -> Any:
    """A policy with names as long as they may become: a function of CloudFormation stands for 60
    characters.
    """
    if isinstance(value, dict) and len(value) == 1:
        ((name, argument),) = value.items()
        if name == "Fn::Sub":
            short = {"Partition": "aws-us-gov", "Region": "ap-southeast-1", "AccountId": "1" * 12}
            return re.sub(
                r"\$\{([^}]+)\}",
                lambda match: short.get(match[1].removeprefix("AWS::"), "x" * 60),
                argument,
            )
        if name == "Ref" or name.startswith("Fn::"):
            return "x" * 60
    if isinstance(value, dict):
        return {key: written_out(inner) for key, inner in value.items()}
    return [written_out(inner) for inner in value] if isinstance(value, list) else value


def size(document: Any) -> int:
    return len(json.dumps(written_out(document), separators=(",", ":")))


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_every_role_and_policy_is_short_enough_for_iam(name: str) -> None:
    for logical_id, resource in TEMPLATES[name].document["Resources"].items():
        if resource["Type"] == "AWS::IAM::Role":
            policies = resource["Properties"].get("Policies", [])
            assert sum(size(p["PolicyDocument"]) for p in policies) <= ROLE_CHARACTERS, logical_id
        if resource["Type"] == "AWS::IAM::ManagedPolicy":
            assert size(resource["Properties"]["PolicyDocument"]) <= POLICY_CHARACTERS, logical_id
