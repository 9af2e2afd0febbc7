"""Errors of boto3 as those of convertd: what happened, to which object, what to do."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from daemon.errors import (
    ConvertdError,
    DocumentError,
    EnvironmentProblem,
    Kind,
    SourceChanged,
    SourceVanished,
    TransientError,
)
from daemon.model import printable

GOES_ON = "convertd goes on by itself."
NO_S3 = "Check that endpoint_url is that of an S3 server, and what lies between; then retry."
_CONNECTION = (boto.BotoCoreError, HTTPError, http.client.HTTPException, OSError)
BODY_ERRORS = (*_CONNECTION, ResponseParserError, ValueError, TypeError, LookupError, AttributeError)
"""What boto3 lets through: the errors of the stream that it hands over, and what its parsers make of nonsense."""

_NO_KEY = {"NoSuchKey", "404", "NotFound", "NoSuchVersion"}
_CHANGED = {"PreconditionFailed", "412"}
_THROTTLED = {"SlowDown", "Throttling", "ThrottlingException", "RequestThrottled", "RequestLimitExceeded"}
_THROTTLED |= {"TooManyRequests", "TooManyRequestsException", "429", "BandwidthLimitExceeded"}
_SKEWED = {"RequestTimeTooSkewed", "RequestExpired"}
_REFUSED_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "AuthFailure",
    "InvalidSignatureException",
}
_NO_PLACE = {"NoSuchBucket", "InvalidBucketName", "PermanentRedirect", "AuthorizationHeaderMalformed"}
_NO_QUEUE = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
_FORBIDDEN = {"AccessDenied", "AccessDeniedException"}
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.ProfileNotFound,
    boto.TokenRetrievalError,
    boto.SSOError,
)


_USER = re.compile(r"//[^/@\s]*@")
"""Name and password in a URL, which may come from the environment."""


class CredentialsProblem(EnvironmentProblem):
    """The credentials are missing, expired or refused: others may be there at the next look."""


@contextmanager
def translated(
    what: str, kind: Kind = Kind.UNREADABLE, size_bytes: int = 0, *, right: str = "s3:GetObject"
) -> Iterator[None]:
    """Turn what boto3 raises inside into our errors.

    `what` names what was to be done and to which place; `kind` is what a job fails with whose attempts all meet this;
    `right` is what a policy must allow for it.
    """
    try:
        yield
    except (boto.BotoCoreError, boto.ClientError, *BODY_ERRORS) as error:
        raise translate(error, what, kind, size_bytes, right=right) from error


def translate(
    error: Exception, what: str, kind: Kind, size_bytes: int = 0, *, right: str = "s3:GetObject"
) -> ConvertdError:
    """The error of convertd for one of boto3's; never holds more of it than its code and its message."""
    if isinstance(error, boto.ClientError):
        return _of_answer(error, what, kind, size_bytes, right)
    if isinstance(error, _NO_CREDENTIALS):
        return CredentialsProblem(
            f"{what}: no usable credentials: {_text(error)}",
            f"Set AWS_PROFILE, the watch's profile or credentials_file, or an instance role; {GOES_ON}",
        )
    if isinstance(error, (boto.SSLError,)):
        return TransientError(kind, f"{what}: TLS failed: {_text(error)}", "Check endpoint_url and ca_bundle.")
    if isinstance(error, boto.ParamValidationError):
        return DocumentError(kind, f"{what}: S3 has no such name: {_text(error)}", "Rename the object.")
    if not isinstance(error, _CONNECTION):  # its text may be all of the answer
        said = f"{what}: the answer makes no sense ({type(error).__name__})"
        return TransientError(kind, said, NO_S3, size_bytes=size_bytes)
    return TransientError(
        kind,
        f"{what}: the connection failed: {_text(error)}",
        "Check that endpoint_url, name resolution and the network are in order; then retry.",
        size_bytes=size_bytes,
    )


def code_of(error: boto.ClientError) -> str:
    """The error code of an answer, such as NoSuchKey; the HTTP status where it has none."""
    response: dict[str, Any] = error.response
    return str(response.get("Error", {}).get("Code") or _status(error))


def forbids(error: ConvertdError) -> bool:
    """Whether a translated error is a server's answer that this may not be done."""
    return isinstance(error.__cause__, boto.ClientError) and _is_refusal(error.__cause__)


def about_the_request(error: ConvertdError) -> bool:
    """Whether a translated error is a server's answer that it cannot do just this, which says that it works."""
    return isinstance(error.__cause__, boto.ClientError) and 400 <= _status(error.__cause__) < 500


def cannot_be_done(error: ConvertdError) -> bool:
    """Whether a translated error is a server's answer that it does not do this, however often it is asked."""
    return about_the_request(error) or (
        isinstance(error.__cause__, boto.ClientError) and _status(error.__cause__) == 501
    )


def _of_answer(error: boto.ClientError, what: str, kind: Kind, size_bytes: int, right: str) -> ConvertdError:
    code, status = code_of(error), _status(error)
    said = f"{what}: {_said(error)}"
    if code in _NO_PLACE:
        return EnvironmentProblem(said, f"Check bucket, region and endpoint_url of the watch; {GOES_ON}")
    if code in _NO_QUEUE:
        return EnvironmentProblem(said, f"Check the queue's name, region and sqs_endpoint_url; {GOES_ON}")
    if code in _NO_KEY:
        return SourceVanished(said)
    if code in _CHANGED:
        return SourceChanged(said)
    if code in _THROTTLED or status == 429:
        return EnvironmentProblem(f"{said} (throttled)", f"Nothing is lost; {GOES_ON}", certain=True)
    if code in _SKEWED:
        return EnvironmentProblem(said, f"Set this machine's clock (timedatectl); {GOES_ON}")
    if code in _REFUSED_CREDENTIALS:
        return CredentialsProblem(said, f"Renew or correct the credentials of the watch; {GOES_ON}")
    if code == "InvalidObjectState":
        return DocumentError(Kind.UNREADABLE, said, "It is archived: restore it, then retry.")
    if _is_refusal(error):
        hint = f"Check that the policy allows {right} there, and the server's log; then retry."
        return TransientError(kind, said, hint, size_bytes=size_bytes)
    return TransientError(kind, said, "Check the server's log; then retry.", size_bytes=size_bytes)


def _is_refusal(error: boto.ClientError) -> bool:
    return code_of(error) in _FORBIDDEN or _status(error) in (401, 403)


def _status(error: boto.ClientError) -> int:
    response: dict[str, Any] = error.response
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _said(error: boto.ClientError) -> str:
    response: dict[str, Any] = error.response
    message = response.get("Error", {}).get("Message") or ""
    code = code_of(error)
    return printable(f"{code}: {message}" if message and message != code else code)[:500]


def _text(error: Exception) -> str:
    return printable(_USER.sub("//", str(error) or type(error).__name__))[:500]
