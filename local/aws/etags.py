"""ETags of objects under SSE-KMS.

S3 gives an object that it encrypts with a KMS key an ETag that is no digest of its bytes: each
upload of the same bytes gets another ETag. moto always answers the MD5 digest. `install` makes
moto's S3 do as S3 does:

| write                         | ETag under SSE-KMS                                     |
|-------------------------------|--------------------------------------------------------|
| PutObject, CopyObject         | 32 random hexadecimal characters                       |
| UploadPart, UploadPartCopy    | 32 random hexadecimal characters                       |
| CompleteMultipartUpload       | digest of the parts' random ETags, then `-<parts>`     |

The request's encryption decides; without it the bucket's default encryption. Objects under SSE-S3
keep their MD5 ETag. The ETag is stored with the object, so HEAD, GET, List, events and conditions
all see the same value.
"""

from __future__ import annotations

import secrets
from typing import Any

from moto.s3.models import FakeKey, S3Backend

from local.aws.stepfunctions import replace

KMS = ("aws:kms", "aws:kms:dsse")
_installed = False


def install() -> None:
    """Patch moto's S3; a repeated call is a no-op."""
    global _installed
    if _installed:
        return
    _installed = True
    put_object, copy_object = S3Backend.put_object, S3Backend.copy_object
    upload_part, upload_part_copy = S3Backend.upload_part, S3Backend.upload_part_copy

    def put_with_etag(
        backend: S3Backend, bucket_name: str, key_name: str, value: bytes, **options: Any
    ) -> FakeKey:
        if options.get("etag") is None:
            if uses_kms(backend, bucket_name, options.get("encryption")):
                options["etag"] = new_etag()
        return put_object(backend, bucket_name, key_name, value, **options)

    def copy_with_default_encryption(
        backend: S3Backend, source: FakeKey, bucket_name: str, key_name: str, **options: Any
    ) -> None:
        # moto would give a copy of an object onto itself SSE-S3; S3 uses the bucket's default
        encryption = options.get("encryption") or default_encryption(backend, bucket_name)
        copy_object(backend, source, bucket_name, key_name, **{**options, "encryption": encryption})

    def upload_part_with_etag(
        backend: S3Backend, bucket_name: str, upload_id: str, *arguments: Any, **options: Any
    ) -> FakeKey:
        part = upload_part(backend, bucket_name, upload_id, *arguments, **options)
        return _part_with_etag(backend, bucket_name, upload_id, part)

    def upload_part_copy_with_etag(
        backend: S3Backend, bucket_name: str, upload_id: str, *arguments: Any, **options: Any
    ) -> FakeKey:
        part = upload_part_copy(backend, bucket_name, upload_id, *arguments, **options)
        return _part_with_etag(backend, bucket_name, upload_id, part)

    replace(
        S3Backend,
        put_object=put_with_etag,
        copy_object=copy_with_default_encryption,
        upload_part=upload_part_with_etag,
        upload_part_copy=upload_part_copy_with_etag,
    )


def new_etag() -> str:
    """Return an ETag that no other object has."""
    return secrets.token_hex(16)


def default_encryption(backend: S3Backend, bucket_name: str) -> str | None:
    """Return the algorithm of the bucket's default encryption, or None."""
    encryption = backend.get_bucket(bucket_name).encryption
    if not encryption:
        return None
    return encryption["Rule"]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"]


def uses_kms(backend: S3Backend, bucket_name: str, encryption: str | None) -> bool:
    """Return whether an object written with this encryption, or the bucket's, is under SSE-KMS."""
    return (encryption or default_encryption(backend, bucket_name)) in KMS


def _part_with_etag(backend: S3Backend, bucket_name: str, upload_id: str, part: FakeKey) -> FakeKey:
    """Give an uploaded part a random ETag if its upload is under SSE-KMS."""
    upload = backend.get_bucket(bucket_name).multiparts[upload_id]
    if uses_kms(backend, bucket_name, upload.sse_encryption):
        part._etag = new_etag()
    return part
