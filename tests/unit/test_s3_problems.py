"""What becomes of each error of boto3: who is to blame, and what an operator is told."""

from __future__ import annotations

import http.client
import ssl
from typing import Any

import pytest
import urllib3.exceptions
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from daemon.errors import (
    ConvertdError,
    DocumentError,
    EnvironmentProblem,
    Kind,
    SourceChanged,
    SourceVanished,
    Stopped,
    TransientError,
)
from daemon.s3.problems import BODY_ERRORS, CredentialsProblem, code_of, translate, translated

WHAT = "reading s3://b/in/a.pdf"
ENDPOINT = "http://127.0.0.1:1"


def answer(code: str, status: int, message: str = "as the server says it") -> boto.ClientError:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": {}, "RequestId": "1"}
    return boto.ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, "GetObject")


def fate(error: Exception) -> ConvertdError:
    return translate(error, WHAT, Kind.UNREADABLE)


ANSWERS = [
    ("NoSuchBucket", 404, EnvironmentProblem, "bucket, region and endpoint_url"),
    ("InvalidBucketName", 400, EnvironmentProblem, "bucket, region and endpoint_url"),
    ("PermanentRedirect", 301, EnvironmentProblem, "region"),
    ("AuthorizationHeaderMalformed", 400, EnvironmentProblem, "region"),
    ("AWS.SimpleQueueService.NonExistentQueue", 400, EnvironmentProblem, "queue's name"),
    ("QueueDoesNotExist", 400, EnvironmentProblem, "queue's name"),
    ("NoSuchKey", 404, SourceVanished, ""),
    ("404", 404, SourceVanished, ""),
    ("NoSuchVersion", 404, SourceVanished, ""),
    ("PreconditionFailed", 412, SourceChanged, ""),
    ("412", 412, SourceChanged, ""),
    ("SlowDown", 503, EnvironmentProblem, "Nothing is lost"),
    ("Throttling", 400, EnvironmentProblem, "Nothing is lost"),
    ("RequestLimitExceeded", 503, EnvironmentProblem, "Nothing is lost"),
    ("429", 429, EnvironmentProblem, "Nothing is lost"),
    ("Anything", 429, EnvironmentProblem, "Nothing is lost"),
    ("RequestTimeTooSkewed", 403, EnvironmentProblem, "clock"),
    ("RequestExpired", 403, EnvironmentProblem, "clock"),
    ("InvalidAccessKeyId", 403, CredentialsProblem, "credentials"),
    ("SignatureDoesNotMatch", 403, CredentialsProblem, "credentials"),
    ("ExpiredToken", 400, CredentialsProblem, "credentials"),
    ("InvalidClientTokenId", 403, CredentialsProblem, "credentials"),
    ("InvalidObjectState", 403, DocumentError, "restore it"),
    ("AccessDenied", 403, TransientError, "s3:GetObject"),
    ("403", 403, TransientError, "s3:GetObject"),
    ("Unauthorized", 401, TransientError, "s3:GetObject"),
    ("InternalError", 500, TransientError, "server's log"),
    ("ServiceUnavailable", 503, TransientError, "server's log"),
    ("502", 502, TransientError, "server's log"),
    ("SomethingNew", 400, TransientError, "server's log"),
]


@pytest.mark.parametrize(("code", "status", "kind", "hint"), ANSWERS)
def test_answers(code: str, status: int, kind: type[ConvertdError], hint: str) -> None:
    error = fate(answer(code, status))
    assert type(error) is kind
    assert error.message.startswith(f"{WHAT}: {code}: as the server says it")
    assert hint in error.hint
    if isinstance(error, EnvironmentProblem):
        assert error.hint.endswith("convertd goes on by itself.")
    if isinstance(error, (TransientError, DocumentError)):
        assert error.kind is Kind.UNREADABLE


@pytest.mark.parametrize("code", ["NoSuchKey", "412", "SlowDown", "ExpiredToken", "InvalidObjectState", "AccessDenied"])
def test_an_answer_without_a_message_is_told_by_its_code(code: str) -> None:
    assert fate(answer(code, 400, "")).message.startswith(f"{WHAT}: {code}")
    assert "None" not in fate(answer(code, 400, "")).message


def test_an_answer_without_a_code_is_told_by_its_status() -> None:
    error = boto.ClientError({"ResponseMetadata": {"HTTPStatusCode": 412}}, "HeadObject")
    assert code_of(error) == "412"
    assert type(fate(error)) is SourceChanged
    nothing = boto.ClientError({}, "HeadObject")
    assert code_of(nothing) == "0"
    assert type(fate(nothing)) is TransientError


def test_a_refusal_names_the_right_that_is_missing() -> None:
    error = translate(answer("AccessDenied", 403), WHAT, Kind.INTERNAL, 4711, right="s3:PutObject")
    assert isinstance(error, TransientError)
    assert (error.kind, error.size_bytes) == (Kind.INTERNAL, 4711)
    assert "s3:PutObject" in error.hint


@pytest.mark.parametrize(
    "error",
    [
        boto.NoCredentialsError(),
        boto.PartialCredentialsError(provider="env", cred_var="aws_secret_access_key"),
        boto.CredentialRetrievalError(provider="process", error_msg="exit 1"),
        boto.ProfileNotFound(profile="work"),
        boto.TokenRetrievalError(provider="sso", error_msg="expired"),
        boto.UnauthorizedSSOTokenError(),
    ],
)
def test_missing_credentials_are_the_surroundings_and_looked_for_again(error: Exception) -> None:
    found = fate(error)
    assert type(found) is CredentialsProblem
    assert "no usable credentials" in found.message
    assert "AWS_PROFILE" in found.hint


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (boto.EndpointConnectionError(endpoint_url=ENDPOINT, error="refused"), "endpoint_url"),
        (boto.ConnectTimeoutError(endpoint_url=ENDPOINT, error="slow"), "endpoint_url"),
        (boto.ReadTimeoutError(endpoint_url=ENDPOINT, error="slow"), "endpoint_url"),
        (boto.ConnectionClosedError(endpoint_url=ENDPOINT), "endpoint_url"),
        (boto.SSLError(endpoint_url=ENDPOINT, error="no"), "ca_bundle"),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), "endpoint_url"),
        (boto.NoRegionError(), "endpoint_url"),
        (urllib3.exceptions.ProtocolError("reset"), "endpoint_url"),
        (urllib3.exceptions.ReadTimeoutError(Any, "/", "slow"), "endpoint_url"),
        (http.client.IncompleteRead(b"", 5), "endpoint_url"),
        (ConnectionResetError(104, "Connection reset by peer"), "endpoint_url"),
        (TimeoutError("timed out"), "endpoint_url"),
        (ssl.SSLError("no"), "endpoint_url"),
    ],
)
def test_what_befalls_a_connection_is_an_attempt(error: Exception, hint: str) -> None:
    found = translate(error, WHAT, Kind.UNREADABLE, 4711)
    assert type(found) is TransientError
    assert found.message.startswith(f"{WHAT}: ")
    assert hint in found.hint


@pytest.mark.parametrize("error", [ResponseParserError("<a secret>"), ValueError("<a secret>"), KeyError("<a secret>")])
def test_an_answer_that_makes_no_sense_is_an_attempt_and_not_shown(error: Exception) -> None:
    found = fate(error)
    assert type(found) is TransientError
    assert "secret" not in found.message + found.hint
    assert "makes no sense" in found.message


def test_a_name_that_boto3_refuses_is_the_documents_fault() -> None:
    found = fate(boto.ParamValidationError(report="Invalid length for parameter Key"))
    assert isinstance(found, DocumentError)
    assert found.kind is Kind.UNREADABLE


def test_what_a_server_says_is_one_short_line() -> None:
    for error in (
        answer("Odd\n\x1b[31m", 500, "first\nsecond\x1b[2J\u202e" + "x" * 5000),
        OSError("a\nb" + "x" * 5000),
    ):
        message = fate(error).message
        assert message.isprintable()
        assert len(message) < 700


def test_translated_turns_everything_that_boto3_raises_and_nothing_else() -> None:
    for error in (answer("NoSuchKey", 404), boto.NoCredentialsError(), OSError(5, "I/O"), *(e("x") for e in _SIMPLE)):
        with pytest.raises(ConvertdError) as found, translated(WHAT):
            raise error
        assert found.value.__cause__ is error
    for ours in (Stopped("stopped"), SourceChanged("changed"), EnvironmentProblem("sick")):
        with pytest.raises(type(ours)) as same, translated(WHAT):
            raise ours
        assert same.value is ours
    with pytest.raises(MemoryError), translated(WHAT):
        raise MemoryError


_SIMPLE: list[type[Exception]] = [
    error for error in BODY_ERRORS if not issubclass(error, (boto.BotoCoreError, OSError))
]
