"""One environment of the lakehouse: deploy it, take it down with or without its data, take kept
data over again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from botocore.exceptions import ClientError

from deploy.package import Package, package, upload
from deploy.stack import DENIED, POLL_SECONDS, DeployError, Say, Stack
from tools.template import ROOT, Template

BOOTSTRAP = "lakehouse-bootstrap"
# What the template is told of bootstrap.yaml: its parameter -> the output.
FROM_BOOTSTRAP = {"PermissionsBoundary": "BoundaryArn", "DeployRoleArn": "DeployRoleArn"}
KEY_DAYS = 30  # that a deleted key can be brought back


class Environment:
    """The stack `delta-lake-<name>`.

    `session` is boto3's; clients are made where they are needed.
    """

    def __init__(
        self, session: Any, name: str, say: Say = print, poll: float = POLL_SECONDS
    ) -> None:
        self.session, self.name, self.say = session, name, say
        self.client = session.client("cloudformation")
        self.bootstrap = (
            Stack(self.client, BOOTSTRAP).outputs()
            if Stack(self.client, BOOTSTRAP).describe()
            else {}
        )
        self.stack = Stack(
            self.client, f"delta-lake-{name}", say, self.bootstrap.get("DeployRoleArn"), poll
        )
        self.tags = {"project": "delta-lake", "environment": name}

    def template(self) -> Template:
        """The template as this account and region resolve it."""
        account = self.session.client("sts").get_caller_identity()["Account"]
        return Template.load(
            parameters={"EnvironmentName": self.name},
            account=account,
            region=self.session.region_name,
        )

    def artifact_bucket(self, given: str | None = None) -> str:
        """The bucket for packages: as given, or that of bootstrap.yaml."""
        bucket = given or self.bootstrap.get("ArtifactBucket")
        if bucket is None:
            raise DeployError(
                f"There is no stack {BOOTSTRAP} in {self.session.region_name}: run `make "
                "bootstrap` once in this account and region"
            )
        if not self._exists(bucket):
            raise DeployError(f"There is no bucket {bucket} for the package")
        return bucket

    def up(self, bucket: str, parameters: Mapping[str, str], execute: bool = True) -> bool:
        """Packages, uploads and deploys; False where the stack was as it should be already."""
        packaged = package(bucket)
        declared = packaged.template["Parameters"]
        unknown = sorted(set(parameters) - set(declared))
        if unknown:
            raise DeployError(
                f"The template has no parameter {', '.join(unknown)}; it has {', '.join(declared)}"
            )
        given = {"EnvironmentName": self.name, **parameters}
        if bucket != self.bootstrap.get("ArtifactBucket"):
            given["ArtifactBucket"] = bucket
        for name, output in FROM_BOOTSTRAP.items():
            if output in self.bootstrap:
                given.setdefault(name, self.bootstrap[output])
        self.check_state_machine()
        url = self._uploaded(packaged)
        if self.stack.describe() is None:
            self._take_over(packaged, given, execute)
        return self.stack.change({"TemplateURL": url}, declared, given, self.tags, execute)

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

    def down(self, delete_data: bool) -> None:
        """Deletes the stack; its buckets and its key stay, unless the data is to be deleted too."""
        template = self.template()
        key = self._key(template)
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
        if key:
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
        kept = {
            logical_id: {"BucketName": name}
            for logical_id, name in self._buckets(template).items()
            if self._exists(name)
        }
        if not kept:
            return
        if key is None:
            raise DeployError(
                f"{', '.join(kept)} of {self.name} exist, but not the key that they were encrypted "
                "with: remove them first"
            )
        kept["DataKey"] = {"KeyId": key}
        if not execute:
            raise DeployError(
                f"{self.name} has data from before ({', '.join(sorted(kept))}): a plan can be "
                "shown once a deployment took it over"
            )
        whole = packaged.template
        reduced = {
            name: whole[name] for name in ("AWSTemplateFormatVersion", "Parameters", "Conditions")
        }
        reduced["Resources"] = {logical_id: whole["Resources"][logical_id] for logical_id in kept}
        self.say(f"Taking over what an earlier deployment left: {', '.join(sorted(kept))}")
        imported = [
            {
                "ResourceType": whole["Resources"][logical_id]["Type"],
                "LogicalResourceId": logical_id,
                "ResourceIdentifier": identifier,
            }
            for logical_id, identifier in kept.items()
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


def bootstrap(
    session: Any, parameters: Mapping[str, str], say: Say = print, poll: float = POLL_SECONDS
) -> dict[str, str]:
    """Deploys bootstrap.yaml: the artifact bucket and, where a subject is given, GitHub's role.

    Returns its outputs.
    """
    stack = Stack(session.client("cloudformation"), BOOTSTRAP, say, poll=poll)
    body = (ROOT / "bootstrap.yaml").read_text("utf-8")
    declared = Template.load(ROOT / "bootstrap.yaml").document["Parameters"]
    stack.change({"TemplateBody": body}, declared, parameters, {"project": "delta-lake"})
    return stack.outputs()


def template_url(s3: Any, bucket: str, key: str) -> str:
    """An object's address as CloudFormation takes it; that of a local endpoint where there is
    one."""
    endpoint = s3.meta.endpoint_url
    if "amazonaws.com" not in endpoint:
        return f"{endpoint}/{bucket}/{key}"
    suffix = endpoint.partition("amazonaws.com")[2]
    return f"https://{bucket}.s3.{s3.meta.region_name}.amazonaws.com{suffix}/{key}"
