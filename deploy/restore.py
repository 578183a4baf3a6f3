"""Fill an empty environment from the archive of another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.config import Config

from deploy.stack import POLL_SECONDS, DeployError, Say

THREADS = 16
AUTHOR = "restore"
MANIFEST = "/manifest.jsonl"  # of each run: which archived file was delivered when
Place = tuple[str, str]  # bucket, prefix


def restore(
    session: Any,
    source: Mapping[str, str],
    target: Mapping[str, str],
    say: Say = print,
    poll: float = POLL_SECONDS,
) -> str:
    """Copy archived and rejected files and the manifests of the runs, then rebuild the tables.

    `source` and `target` are the outputs of two environments; the source is only read. Return what
    the rebuild reports. Raises DeployError if the target has tables or files, or if it fails.
    """
    s3 = session.client("s3", config=Config(max_pool_connections=THREADS))
    for place in (*places(target).values(), (place_of(target["Lake"])[0], "lakehouse-dwh/")):
        if next(keys(s3, place), None) is not None:
            raise DeployError(
                f"s3://{'/'.join(place)} is not empty: restore into a new environment"
            )
    for name, place in places(source).items():
        is_included = (
            (lambda key: key.endswith(MANIFEST)) if name == "manifests" else (lambda key: True)
        )
        count = copy(s3, place, places(target)[name], is_included)
        say(f"Copied {count:,} {name}")
    return rebuild(session, s3, target, say, poll)


def place_of(uri: str) -> Place:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return bucket, prefix


def places(outputs: Mapping[str, str]) -> dict[str, Place]:
    """Return where an environment keeps what its tables can be built from."""
    lake = place_of(outputs["Lake"])[0]
    return {
        "archived files": place_of(outputs["Archive"]),
        "rejected files": (lake, "rejected/files/"),
        "manifests": (lake, "runs/"),
    }


def keys(s3: Any, place: Place) -> Iterator[str]:
    """Yield the keys below a place, without its prefix."""
    bucket, prefix = place
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for item in page.get("Contents", []):
            yield item["Key"].removeprefix(prefix)


def copy(s3: Any, source: Place, target: Place, is_included: Callable[[str], bool]) -> int:
    """Copy the objects with an included key within S3; return how many there were."""

    def copy_object(key: str) -> None:
        copy_source = {"Bucket": source[0], "Key": source[1] + key}
        s3.copy(copy_source, Bucket=target[0], Key=target[1] + key)

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(1 for _ in pool.map(copy_object, filter(is_included, keys(s3, source))))


def rebuild(session: Any, s3: Any, target: Mapping[str, str], say: Say, poll: float) -> str:
    """Run the operation `rebuild` and return its text."""
    from client.operations import Operations  # it imports pyspark

    bucket = place_of(target["Lake"])[0]
    steps = session.client("stepfunctions")
    lakehouse = Operations(steps, s3, target["StateMachineArn"], bucket)
    outcome = lakehouse.run({"operation": "rebuild", "author": AUTHOR}, say, poll)
    if outcome.cause is not None:
        raise DeployError(f"rebuild failed: {outcome.cause}")
    text = str(outcome.result["text"])
    say(text)
    return text
