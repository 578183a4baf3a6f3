"""`template.yaml` as data: names and settings of every resource, with the intrinsic functions
worked out.

Only the functions that the template uses are known here; another one is an error. What
CloudFormation would make up (a queue's URL, an ARN) is built from the resource's name, as AWS
builds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from client import ROOT
from client.aws import REGION

ACCOUNT = "123456789012"


class _Loader(yaml.SafeLoader):
    """Reads `!Ref x` as {'Ref': 'x'}, as CloudFormation's long form has it."""


def _function(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    else:
        raise TypeError(f"!{suffix} before a {type(node).__name__} in the template")
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _function)


class Template:
    """The resources of one deployment: `template.properties('RawBucket')['BucketName']`."""

    def __init__(
        self,
        document: Mapping[str, Any],
        parameters: Mapping[str, Any] | None = None,
        account: str = ACCOUNT,
        region: str = REGION,
        endpoint: str = "https://sqs.us-east-1.amazonaws.com",
    ) -> None:
        declared = document.get("Parameters", {})
        unknown = set(parameters or {}) - set(declared)
        if unknown:
            raise ValueError(f"the template has no parameter {', '.join(sorted(unknown))}")
        self.document = document
        self.parameters = {name: declared[name].get("Default") for name in declared} | dict(
            parameters or {}
        )
        self.account, self.region, self.endpoint = account, region, endpoint
        # What only the service can name: logical id -> attribute -> value.
        self.physical: dict[str, dict[str, str]] = {}

    @classmethod
    def load(cls, path: Path = ROOT / "template.yaml", **options: Any) -> Template:
        return cls(yaml.load(path.read_text("utf-8"), _Loader), **options)

    def of_type(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Logical id and worked-out properties of every resource of a type whose condition
        holds."""
        for logical_id, resource in self.document["Resources"].items():
            if resource["Type"] == kind and self._holds(resource.get("Condition")):
                yield logical_id, self.properties(logical_id)

    def properties(self, logical_id: str) -> dict[str, Any]:
        return self.resolve(self.document["Resources"][logical_id].get("Properties", {}))

    def outputs(self) -> dict[str, str]:
        return {
            name: self.resolve(output["Value"])
            for name, output in self.document.get("Outputs", {}).items()
        }

    def definition(self) -> str:
        """The state machine's definition with its substitutions, as the deployment has it."""
        ((_, properties),) = self.of_type("AWS::StepFunctions::StateMachine")
        text = (ROOT / properties["DefinitionS3Location"]).read_text("utf-8")
        for name, value in properties["DefinitionSubstitutions"].items():
            text = text.replace("${" + name + "}", value)
        return text

    def resolve(self, value: Any) -> Any:
        """A value with all its functions worked out."""
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not _NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, argument),) = value.items()
            if name == "Ref":
                return self.ref(argument)
            if name == "Condition" and isinstance(argument, str):
                return self._holds(argument)
            if name.startswith("Fn::"):
                return self._call(name.removeprefix("Fn::"), argument)
        resolved = {key: self.resolve(inner) for key, inner in value.items()}
        return {key: inner for key, inner in resolved.items() if inner is not _NO_VALUE}

    def ref(self, name: str) -> Any:
        pseudo = {
            "AWS::AccountId": self.account,
            "AWS::Region": self.region,
            "AWS::Partition": "aws",
            "AWS::StackName": "delta-lake",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::NoValue": _NO_VALUE,
        }
        if name in pseudo:
            return pseudo[name]
        if name in self.parameters:
            return self._parameter(name)
        return self.attribute(name, "Ref")

    def _parameter(self, name: str) -> Any:
        """A parameter's value as its type has it."""
        value = self.parameters[name]
        if self.document["Parameters"][name]["Type"] == "CommaDelimitedList":
            return value.split(",")
        return value

    def attribute(self, logical_id: str, attribute: str) -> str:
        """Ref or GetAtt of a resource."""
        if attribute in self.physical.get(logical_id, {}):
            return self.physical[logical_id][attribute]
        resource = self.document["Resources"][logical_id]
        names = _NAMES.get(resource["Type"])
        if names is None:
            raise ValueError(
                f"{logical_id}: what {attribute} of a {resource['Type']} is, is not known here"
            )
        field, arn, reference = names
        value = resource.get("Properties", {})
        for part in field.split("."):
            value = value.get(part, {}) if isinstance(value, dict) else {}
        name: Any = self.resolve(value) if value else _NO_VALUE
        if name is _NO_VALUE:  # CloudFormation makes one up
            name = f"delta-lake-{logical_id}"
        parts = {
            "name": name,
            "account": self.account,
            "region": self.region,
            "endpoint": self.endpoint,
        }
        if attribute == "Arn":
            return arn.format(**parts)
        if attribute == "Ref":
            return {"name": name, "arn": arn.format(**parts)}.get(reference) or reference.format(
                **parts
            )
        if attribute == field:
            return name
        raise ValueError(f"{logical_id}.{attribute} is not known here")

    def _call(self, function: str, argument: Any) -> Any:
        if function == "Sub":
            return re.sub(r"\$\{([^}!]+)\}", lambda match: str(self._named(match[1])), argument)
        if function == "GetAtt":
            return self.attribute(*argument)
        if function == "If":
            condition, then, otherwise = argument
            return self.resolve(then if self._holds(condition) else otherwise)
        if function == "Equals":
            first, second = map(self.resolve, argument)
            return first == second
        if function == "Not":
            return not self.resolve(argument[0])
        if function == "And":
            return all(map(self.resolve, argument))
        if function == "Join":
            separator, words = argument
            return separator.join(map(str, self.resolve(words)))
        raise ValueError(f"Fn::{function} is not known here")

    def _named(self, name: str) -> Any:
        logical_id, _, attribute = name.partition(".")
        return self.attribute(logical_id, attribute) if attribute else self.ref(name)

    def _holds(self, condition: str | None) -> bool:
        return condition is None or bool(self.resolve(self.document["Conditions"][condition]))


_NO_VALUE = object()

# Type: the property that holds the name, the ARN, and what Ref gives (name, arn or a pattern).
_NAMES = {
    "AWS::S3::Bucket": ("BucketName", "arn:aws:s3:::{name}", "name"),
    "AWS::SQS::Queue": (
        "QueueName",
        "arn:aws:sqs:{region}:{account}:{name}",
        "{endpoint}/{account}/{name}",
    ),
    "AWS::SNS::Topic": ("TopicName", "arn:aws:sns:{region}:{account}:{name}", "arn"),
    "AWS::Events::Rule": ("Name", "arn:aws:events:{region}:{account}:rule/{name}", "name"),
    "AWS::Pipes::Pipe": ("Name", "arn:aws:pipes:{region}:{account}:pipe/{name}", "name"),
    "AWS::Scheduler::Schedule": (
        "Name",
        "arn:aws:scheduler:{region}:{account}:schedule/default/{name}",
        "name",
    ),
    "AWS::Lambda::Function": (
        "FunctionName",
        "arn:aws:lambda:{region}:{account}:function:{name}",
        "name",
    ),
    "AWS::StepFunctions::StateMachine": (
        "StateMachineName",
        "arn:aws:states:{region}:{account}:stateMachine:{name}",
        "arn",
    ),
    "AWS::Glue::Job": ("Name", "arn:aws:glue:{region}:{account}:job/{name}", "name"),
    "AWS::Glue::Crawler": ("Name", "arn:aws:glue:{region}:{account}:crawler/{name}", "name"),
    "AWS::Glue::Database": (
        "DatabaseInput.Name",
        "arn:aws:glue:{region}:{account}:database/{name}",
        "name",
    ),
    "AWS::Athena::WorkGroup": (
        "Name",
        "arn:aws:athena:{region}:{account}:workgroup/{name}",
        "name",
    ),
    "AWS::Logs::LogGroup": (
        "LogGroupName",
        "arn:aws:logs:{region}:{account}:log-group:{name}:*",
        "name",
    ),
    "AWS::IAM::Role": ("RoleName", "arn:aws:iam::{account}:role/{name}", "name"),
    "AWS::IAM::ManagedPolicy": ("ManagedPolicyName", "arn:aws:iam::{account}:policy/{name}", "arn"),
    "AWS::KMS::Key": ("KeyId", "arn:aws:kms:{region}:{account}:key/{name}", "name"),
    "AWS::CloudWatch::Alarm": (
        "AlarmName",
        "arn:aws:cloudwatch:{region}:{account}:alarm:{name}",
        "name",
    ),
}
