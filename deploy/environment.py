"""One environment of the lakehouse: deploy it, take it down with or without its data, take kept
data over again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from botocore.exceptions import ClientError

from client.aws import DENIED
from client.template import ROOT, Template
from deploy.package import Package, package, upload
from deploy.stack import POLL_SECONDS, DeployError, Say, Stack, stack_name

BOOTSTRAP = "lakehouse-bootstrap"
# What the template is told of bootstrap.yaml: its parameter -> the output.
FROM_BOOTSTRAP = {
    "PermissionsBoundary": "BoundaryArn",
    "DeployRoleArn": "DeployRoleArn",
    "RolePrefix": "RolePrefix",
}
KEY_DAYS = 30  # that a deleted key can be brought back
PROTECTED = "prod"  # the environment whose stack nobody deletes by mistake


class Environment:
    """The stack `delta-lake-<name>`.

    `session` is boto3's; clients are made where they are needed.
    """

    def __init__(
        self, session: Any, name: str, say: Say = print, poll: float = POLL_SECONDS
    ) -> None:
        self.session, self.name, self.say, self.poll = session, name, say, poll
        self.client = session.client("cloudformation")

    @cached_property
    def bootstrap(self) -> dict[str, str]:
        """The outputs of bootstrap.yaml; empty if it is not deployed."""
        stack = Stack(self.client, BOOTSTRAP)
        return stack.outputs() if stack.describe() else {}

    @cached_property
    def stack(self) -> Stack:
        """The environment's stack, changed by the role that bootstrap.yaml makes for it."""
        role = self.bootstrap.get("DeployRoleArn")
        return Stack(self.client, stack_name(self.name), self.say, role, self.poll)

    def template(self) -> Template:
        """The template as this account and region resolve it."""
        account = self.session.client("sts").get_caller_identity()["Account"]
        return Template.load(
            parameters={"EnvironmentName": self.name},
            account=account,
            region=self.session.region_name,
        )

    def artifact_bucket(self, name: str | None = None) -> str:
        """The bucket for packages: as given, or that of bootstrap.yaml."""
        bucket = name or self.bootstrap.get("ArtifactBucket")
        if bucket is None:
            raise DeployError(
                f"There is no stack {BOOTSTRAP} in {self.session.region_name}: run `make "
                "bootstrap` once in this account and region"
            )
        if not self._exists(bucket):
            raise DeployError(f"There is no bucket {bucket} for the package")
        return bucket

    def up(
        self,
        bucket: str,
        parameters: Mapping[str, str],
        execute: bool = True,
        tags: Mapping[str, str] | None = None,
    ) -> bool:
        """Packages, uploads and deploys; False where the stack was as it should be already.

        `tags` go to every resource, beside those of the deployment before; an empty value takes a
        tag away.
        """
        packaged = package(bucket)
        declared = packaged.template["Parameters"]
        unknown = sorted(set(parameters) - set(declared))
        if unknown:
            raise DeployError(
                f"The template has no parameter {', '.join(unknown)}; it has {', '.join(declared)}"
            )
        stack_parameters = {"EnvironmentName": self.name, **parameters}
        if bucket != self.bootstrap.get("ArtifactBucket"):
            stack_parameters["ArtifactBucket"] = bucket
        for name, output in FROM_BOOTSTRAP.items():
            if output in self.bootstrap:
                stack_parameters.setdefault(name, self.bootstrap[output])
        self.check_state_machine()
        url = self._uploaded(packaged)
        own = {"project": "delta-lake", "environment": self.name}
        self.tags = merged_tags(self.stack, own, tags or {})
        if self.stack.describe() is None:
            self._take_over(packaged, stack_parameters, execute)
        changed = self.stack.change(
            {"TemplateURL": url}, declared, stack_parameters, self.tags, execute
        )
        if execute and self.name == PROTECTED:
            self.stack.protect(True)
        return changed

    def check_state_machine(self) -> None:
        """AWS's own check of the definition, where the caller may ask for it.

        Raises DeployError where AWS would refuse it.
        """
        try:
            answer = self.session.client("stepfunctions").validate_state_machine_definition(
                definition=self.template().definition(), type="STANDARD"
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in DENIED:
                raise
            self.say("The state machine is not checked: states:ValidateStateMachineDefinition")
            return
        if answer["result"] != "OK":
            first = answer["diagnostics"][0]
            raise DeployError(
                f"Step Functions refuses the state machine: {first['code']} at "
                f"{first.get('location', '?')}: {first['message']}"
            )

    def down(self, delete_data: bool, unprotect: bool = False) -> None:
        """Deletes the stack; its buckets and its key stay, unless the data is to be deleted too.

        A protected stack is deleted only if its protection is to be taken away.
        """
        template = self.template()
        key = self._key(template)
        if self.stack.protected():
            if not unprotect:
                raise DeployError(
                    f"{self.stack.name} is protected from deletion: say make destroy "
                    f"ENV={self.name} UNPROTECT={self.name}"
                )
            self.stack.protect(False)
        if not self.stack.delete() and not delete_data:
            raise DeployError(
                f"There is no stack {self.stack.name} in {self.session.region_name}: nothing to "
                "destroy"
            )
        buckets = [bucket for bucket in self._buckets(template).values() if self._exists(bucket)]
        if not delete_data:
            self.say(
                f"Kept: {', '.join(buckets)} and the key {key}. The next deployment of {self.name} "
                "takes them over."
            )
            return
        for bucket in buckets:
            self._delete_bucket(bucket)
        if key and self._is_own(key):
            self.session.client("kms").schedule_key_deletion(
                KeyId=key, PendingWindowInDays=KEY_DAYS
            )
            self.say(f"The key {key} is deleted in {KEY_DAYS} days, unless that is cancelled")

    def _uploaded(self, packaged: Package) -> str:
        """Uploads the package; returns the template's address."""
        s3 = self.session.client("s3")
        new = upload(s3, packaged)
        self.say(
            f"{len(new)} of {len(packaged.artifacts) + 1} files were new in s3://{packaged.bucket}/"
        )
        return template_url(s3, packaged.bucket, packaged.template_artifact.key)

    def _take_over(self, packaged: Package, parameters: Mapping[str, str], execute: bool) -> None:
        """A new stack begins with the buckets and the key that a deleted one has left, where there
        are any."""
        template = self.template()
        key = self._key(template)
        existing = {
            logical_id: {"BucketName": name}
            for logical_id, name in self._buckets(template).items()
            if self._exists(name)
        }
        if not existing:
            return
        if not parameters.get("KeyArn"):
            if key is None:
                raise DeployError(
                    f"{', '.join(existing)} of {self.name} exist, but not the key that they were "
                    "encrypted with: remove them first"
                )
            existing["DataKey"] = {"KeyId": key}
        if not execute:
            raise DeployError(
                f"{self.name} has data from before ({', '.join(sorted(existing))}): a plan can be "
                "shown once a deployment took it over"
            )
        whole = packaged.template
        reduced = {
            name: whole[name] for name in ("AWSTemplateFormatVersion", "Parameters", "Conditions")
        }
        reduced["Resources"] = {
            logical_id: whole["Resources"][logical_id] for logical_id in existing
        }
        self.say(f"Taking over what an earlier deployment left: {', '.join(sorted(existing))}")
        imported = [
            {
                "ResourceType": whole["Resources"][logical_id]["Type"],
                "LogicalResourceId": logical_id,
                "ResourceIdentifier": identifier,
            }
            for logical_id, identifier in existing.items()
        ]
        url = self._uploaded(replace(packaged, template=reduced, artifacts=()))
        self.stack.change(
            {"TemplateURL": url}, whole["Parameters"], parameters, self.tags, imported=imported
        )

    @staticmethod
    def _buckets(template: Template) -> dict[str, str]:
        return {
            logical_id: bucket["BucketName"]
            for logical_id, bucket in template.of_type("AWS::S3::Bucket")
        }

    def _key(self, template: Template) -> str | None:
        """The key of the environment's data, as its lake bucket tells; None where there is no such
        bucket."""
        try:
            answer = self.session.client("s3").get_bucket_encryption(
                Bucket=self._buckets(template)["LakeBucket"]
            )
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        (rule,) = answer["ServerSideEncryptionConfiguration"]["Rules"]
        arn = rule["ApplyServerSideEncryptionByDefault"].get("KMSMasterKeyID")
        return arn.rpartition("/")[2] if arn else None

    def _is_own(self, key: str) -> bool:
        """Return whether a key was made for this environment, not given by the account."""
        tags = self.session.client("kms").list_resource_tags(KeyId=key)["Tags"]
        return {"TagKey": "environment", "TagValue": self.name} in tags

    def _exists(self, bucket: str) -> bool:
        try:
            self.session.client("s3").head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise
        return True

    def _delete_bucket(self, bucket: str) -> None:
        """Deletes a bucket with all versions of all its objects."""
        s3, count = self.session.client("s3"), 0
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            objects = [
                {"Key": item["Key"], "VersionId": item["VersionId"]}
                for item in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            ]
            if objects:
                failed = s3.delete_objects(
                    Bucket=bucket, Delete={"Objects": objects, "Quiet": True}
                ).get("Errors", [])
                if failed:
                    raise DeployError(
                        f"{bucket}: {failed[0]['Key']} cannot be deleted: "
                        f"{failed[0].get('Message')}"
                    )
                count += len(objects)
        s3.delete_bucket(Bucket=bucket)
        self.say(f"Deleted {bucket} with {count} object versions")


def merged_tags(
    stack: Stack, own: Mapping[str, str], requested: Mapping[str, str]
) -> dict[str, str]:
    """Return the tags of a deployment: those of the one before, those given, and our own."""
    ours = sorted(own.keys() & requested.keys())
    if ours:
        raise DeployError(f"The tag {ours[0]} is set by the deployment itself")
    before = (stack.describe() or {}).get("Tags", [])
    tags = {tag["Key"]: tag["Value"] for tag in before} | dict(requested) | dict(own)
    return {key: value for key, value in tags.items() if value}


def boundary_arn(session: Any, name: str) -> str:
    """Return the ARN of a policy of the account that is given by its name or its ARN."""
    if not name or name.startswith("arn:"):
        return name
    caller = session.client("sts").get_caller_identity()["Arn"].split(":")
    return f"arn:{caller[1]}:iam::{caller[4]}:policy/{name}"


def bootstrap(
    session: Any,
    parameters: Mapping[str, str],
    say: Say = print,
    poll: float = POLL_SECONDS,
    tags: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Deploys bootstrap.yaml: the artifact bucket and, where a subject is given, GitHub's role.

    Returns its outputs.
    """
    stack = Stack(session.client("cloudformation"), BOOTSTRAP, say, poll=poll)
    body = (ROOT / "bootstrap.yaml").read_text("utf-8")
    declared = Template.load(ROOT / "bootstrap.yaml").document["Parameters"]
    merged = merged_tags(stack, {"project": "delta-lake"}, tags or {})
    stack.change({"TemplateBody": body}, declared, parameters, merged)
    return stack.outputs()


def template_url(s3: Any, bucket: str, key: str) -> str:
    """An object's address as CloudFormation takes it; that of a local endpoint where there is
    one."""
    endpoint = s3.meta.endpoint_url
    if "amazonaws.com" not in endpoint:
        return f"{endpoint}/{bucket}/{key}"
    suffix = endpoint.partition("amazonaws.com")[2]
    return f"https://{bucket}.s3.{s3.meta.region_name}.amazonaws.com{suffix}/{key}"
