"""AWS's sessions and clients, and what AWS refuses in one sentence that says what to do."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

AWS_ERRORS = (ClientError, BotoCoreError)
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403")
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
UNKNOWN = (
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "AuthFailure",
)
THROTTLED = (
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "SlowDown",
)
NO_LOGIN = (
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
    CredentialRetrievalError,
    SSOError,
)

REGION = "us-east-1"  # of a local AWS
LOCAL = {"s3": {"addressing_style": "path"}}  # settings of clients for a local AWS


def session(profile: str | None = None, region: str | None = None) -> Any:
    """Return a session with the credentials and the region of the AWS command line."""
    return boto3.Session(profile_name=profile, region_name=region)


def local_session() -> Any:
    """Return a session for a local AWS, which takes any credentials."""
    return boto3.Session("local", "local", region_name=REGION)


def local_client(service: str, endpoint: str, **settings: Any) -> Any:
    """Return a client of the local AWS at an endpoint, with further settings of botocore's."""
    config = Config(**{**LOCAL, "max_pool_connections": 32, **settings})
    return local_session().client(service, endpoint_url=endpoint, config=config)


def code_of(error: Exception) -> str:
    """Return AWS's code of a refused call; empty for an error that AWS did not answer."""
    return str(error.response["Error"].get("Code", "")) if isinstance(error, ClientError) else ""


def needs_login(error: Exception) -> bool:
    """Return whether other credentials would help."""
    return isinstance(error, NO_LOGIN) or code_of(error) in (*EXPIRED, *UNKNOWN)


def explained(error: Exception, rights: str) -> str:
    """Return what went wrong with AWS, in a line; `rights` says where the needed rights stand."""
    if isinstance(error, NO_LOGIN):
        return (
            "No AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE, or log in with `aws sso login`"
        )
    if isinstance(error, NoRegionError):
        return "No AWS region: set AWS_REGION, or say --region eu-central-1"
    if isinstance(error, ProfileNotFound):
        return f"{error}: look into ~/.aws/config, or say another --profile"
    if isinstance(error, ConnectionError):
        return f"AWS cannot be reached: {error} Is the region right, and is there a network?"
    if isinstance(error, ClientError):
        return _answer(error, rights)
    return str(error)


def _answer(error: ClientError, rights: str) -> str:
    """Return what AWS answered to a call."""
    code, message = code_of(error), error.response["Error"].get("Message", "")
    if code in EXPIRED:
        return "The AWS credentials have expired: log in again"
    if code in UNKNOWN:
        return (
            f"AWS does not know these credentials ({code}): check AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )
    if code in THROTTLED:
        return f"AWS gets too many requests ({error.operation_name}): wait a moment"
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in DENIED or status == 403:
        return f"Not allowed ({error.operation_name}): {message or error}. {rights}"
    return f"AWS refused {error.operation_name}: {message or code}"
