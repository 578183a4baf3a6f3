"""Packages the template: what it names by a local path is uploaded under the hash of its content.

The same content always has the same key, so a deployment changes exactly what changed, and an
upload that is there already is not repeated. The packaged template is JSON with CloudFormation's
long forms.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from client.template import ROOT, Template
from deploy.stack import DeployError

PREFIX = "delta-lake/"
MODULES = ("SqlParser",)  # substitutions of the state machine that name a package of Python's


@dataclass(frozen=True)
class Artifact:
    """One file to upload; `key` is made of its content's hash. What Python imports keeps its name:
    its suffix is `/<name>`."""

    name: str
    body: bytes
    suffix: str

    @property
    def key(self) -> str:
        return f"{PREFIX}{hashlib.sha256(self.body).hexdigest()[:32]}{self.suffix}"


@dataclass(frozen=True)
class Package:
    """A template whose paths point into the bucket, and what has to lie there."""

    bucket: str
    template: dict[str, Any]
    artifacts: tuple[Artifact, ...]

    @property
    def body(self) -> str:
        return json.dumps(self.template, indent=1)

    @property
    def template_artifact(self) -> Artifact:
        return Artifact("template", self.body.encode(), ".template.json")


def zipped(folder: Path, within: str = "") -> bytes:
    """A folder of Python files as a zip, where they lie below `within`; the same for the same
    content, whenever and wherever it is made."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = within + path.relative_to(folder).as_posix()
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def package(bucket: str, path: Path = ROOT / "template.yaml") -> Package:
    """The template at a path, packaged for a bucket; nothing is uploaded yet."""
    document = copy.deepcopy(dict(Template.load(path).document))
    artifacts = dict.fromkeys(_artifacts(document, bucket, path.parent))  # one may be named twice
    return Package(bucket, document, tuple(artifacts))


def _artifacts(document: dict[str, Any], bucket: str, root: Path) -> Iterator[Artifact]:
    """Replaces each local path in the document, and yields what it stands for."""
    for logical_id, resource in document["Resources"].items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Glue::Job":
            yield (artifact := _script(root / properties["Command"]["ScriptLocation"]))
            properties["Command"]["ScriptLocation"] = f"s3://{bucket}/{artifact.key}"
        elif resource["Type"] == "AWS::Lambda::Function":
            yield (artifact := Artifact(logical_id, zipped(root / properties["Code"]), ".zip"))
            properties["Code"] = {"S3Bucket": bucket, "S3Key": artifact.key}
        elif resource["Type"] == "AWS::StepFunctions::StateMachine":
            yield (
                artifact := Artifact(
                    logical_id, (root / properties["DefinitionS3Location"]).read_bytes(), ".json"
                )
            )
            properties["DefinitionS3Location"] = {"Bucket": bucket, "Key": artifact.key}
            substitutions = properties["DefinitionSubstitutions"]
            for name, artifact in _imported(substitutions, root):
                yield artifact
                substitutions[name] = f"s3://{bucket}/{artifact.key}"


def _script(path: Path) -> Artifact:
    return Artifact(path.name, path.read_bytes(), f"/{path.name}")


def _imported(substitutions: dict[str, Any], root: Path) -> Iterator[tuple[str, Artifact]]:
    """The scripts and packages that the state machine hands to the job, by their substitution."""
    for name, value in list(substitutions.items()):
        if isinstance(value, str) and value.endswith(".py"):
            yield name, _script(root / value)
        elif name in MODULES:
            body = zipped(_package_folder(value), f"{value}/")
            yield name, Artifact(value, body, f"/{value}.zip")


def _package_folder(name: str) -> Path:
    """Where a package of requirements.txt lies."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise DeployError(f"The package {name} is missing: pip install -r requirements.txt")
    return Path(spec.origin).parent


def upload(s3: Any, packaged: Package) -> list[str]:
    """Uploads what the bucket lacks; returns the keys that were new."""
    new = []
    for artifact in (*packaged.artifacts, packaged.template_artifact):
        try:
            s3.head_object(Bucket=packaged.bucket, Key=artifact.key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            s3.put_object(Bucket=packaged.bucket, Key=artifact.key, Body=artifact.body)
            new.append(artifact.key)
    return new
