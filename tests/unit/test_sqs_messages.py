"""What messages say, in all forms in which a bucket's events come, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from daemon.sources.sqs_messages import Created, Unreadable, created

KEY = "in/a b+c/ü.pdf"
ENCODED = "in%2Fa+b%2Bc%2F%C3%BC.pdf"


def record(key: Any = ENCODED, name: Any = "ObjectCreated:Put", bucket: Any = "docs", **item: Any) -> dict[str, Any]:
    return {"eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key, **item}}}


def records(*several: Any) -> str:
    return json.dumps({"Records": several})


def by_sns(body: str) -> str:
    return json.dumps({"Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:x", "Message": body})


def by_eventbridge(kind: str = "Object Created", key: Any = KEY, **item: Any) -> str:
    detail = {"version": "0", "bucket": {"name": "docs"}, "object": {"key": key, **item}, "reason": "PutObject"}
    return json.dumps({"version": "0", "detail-type": kind, "source": "aws.s3", "detail": detail})


TEST_EVENT = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-01-01", "Bucket": "docs"})


@pytest.mark.parametrize(
    "body",
    [
        records(record()),
        records(record(name="s3:ObjectCreated:Put")),
        records(record(name="ObjectCreated:CompleteMultipartUpload")),
        records(record(name="ObjectRestore:Completed")),
        records(record(key="in/a%20b%2Bc/ü.pdf")),
        json.dumps({"EventName": "s3:ObjectCreated:Put", "Key": "docs/" + KEY, "Records": [record()]}),
        by_sns(records(record())),
        by_eventbridge(),
        by_eventbridge("Object Restore Completed"),
        by_sns(by_eventbridge()),
    ],
)
def test_a_creation_is_understood_in_every_form(body: str) -> None:
    assert created(body) == [Created("docs", KEY)]


def test_a_message_may_tell_of_several_objects() -> None:
    removed = record("gone", "ObjectRemoved:Delete")
    body = records(record("a", eTag="e1", size=1), removed, record("b", bucket="other"), record("a", eTag="e2", size=2))
    assert created(body) == [Created("docs", "a", "e1", 1), Created("other", "b"), Created("docs", "a", "e2", 2)]


@pytest.mark.parametrize(
    "body",
    [
        TEST_EVENT,
        by_sns(TEST_EVENT),
        records(),
        records(record(name="ObjectRemoved:Delete")),
        records(record(name="ObjectRemoved:DeleteMarkerCreated")),
        records(record(name="s3:ObjectRemoved:Delete")),
        records(record(name="ObjectRestore:Post")),
        records(record(name="ObjectTagging:Put"), record(name="LifecycleExpiration:Delete", key=7)),
        records(record(name="ReducedRedundancyLostObject")),
        by_eventbridge("Object Deleted"),
        by_eventbridge("Object Tags Added", key=None),
        by_eventbridge("Object Storage Class Changed"),
    ],
)
def test_what_creates_nothing_tells_of_nothing(body: str) -> None:
    assert created(body) == []


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        "\x00",
        "{",
        "null",
        "[]",
        "{}",
        "7",
        '"Records"',
        "[" * 100_000,
        '{"Records":' * 50_000 + "1" + "}" * 50_000,
        '{"Records": ' + "9" * 10_000 + "}",
        '{"Records": null}',
        '{"Records": {"0": 1}}',
        '{"Event": "other:TestEvent"}',
        '{"Type": "SubscriptionConfirmation", "Message": "{}"}',
        by_sns("words"),
        by_sns(by_sns(records(record()))),
        json.dumps({"Type": "Notification", "Message": {"Records": []}}),
        json.dumps({"detail-type": "Object Created", "source": "aws.s3"}),
        json.dumps({"detail-type": "EC2 Instance State-change Notification", "source": "aws.ec2", "detail": {}}),
        json.dumps({"detail-type": ["Object Created"], "source": "aws.s3"}),
        by_eventbridge(key=None),
        records(None),
        records([record()]),
        records("ObjectCreated:Put"),
        records({}),
        records({"eventName": "INSERT", "dynamodb": {}}),
        records({"eventName": "ObjectCreated:Put", "s3": []}),
        records({"eventName": "ObjectCreated:Put", "s3": {"bucket": "docs", "object": {"key": "a"}}}),
        records({"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "docs"}}}),
        records(record(name=None)),
        records(record(name=["ObjectCreated:Put"])),
        records(record(key=None)),
        records(record(key=7)),
        records(record(key=["a"])),
        records(record(bucket=None)),
        records(record("%FF%FE")),
        records(record("\ud800")),
        by_eventbridge(key="\udcff"),
        records(record(), record(key=None)),
    ],
    ids=lambda body: repr(body[:60]),
)
def test_what_no_bucket_says_is_refused(body: str) -> None:
    with pytest.raises(Unreadable) as refused:
        created(body)
    assert "it" in str(refused.value)


@pytest.mark.parametrize("wrap", [str, by_sns])
def test_what_cloudtrail_says_of_a_creation_is_not_thrown_away(wrap: Callable[[str], str]) -> None:
    """It is a creation in another form; the rule, which is not the one that is meant, can be mended."""
    detail = {"eventName": "PutObject", "requestParameters": {"bucketName": "docs", "key": KEY}}
    event = {"detail-type": "AWS API Call via CloudTrail", "source": "aws.s3", "detail": detail}
    with pytest.raises(Unreadable, match=r'type "AWS API Call via CloudTrail".* "Object Created"'):
        created(wrap(json.dumps(event)))


def test_what_cloudtrail_says_of_anything_else_tells_of_nothing() -> None:
    """Else what convertd itself reads would fill the dead-letter queue."""
    names: list[Any] = ["GetObject", "HeadObject", "DeleteObject", None, 7, []]
    for name in names:
        event = {"detail-type": "AWS API Call via CloudTrail", "source": "aws.s3", "detail": {"eventName": name}}
        assert created(json.dumps(event)) == []


def test_a_hostile_type_of_event_is_told_in_short() -> None:
    kind = "\x1b[2J\n" + "x" * 100_000
    with pytest.raises(Unreadable) as refused:
        created(json.dumps({"detail-type": kind, "source": "aws.s3", "detail": {"eventName": "PutObject"}}))
    assert str(refused.value).isprintable() and len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "/absolute", "a//b", "a\x00b", "a\nb", "x" * 5000, "", "\u202egpj.exe"]
)
def test_a_hostile_key_is_only_a_key(key: str) -> None:
    assert created(by_eventbridge(key=key)) == [Created("docs", key)]


@pytest.mark.parametrize("size", [-1, True, 1.5, "12", None, 10**30, float("inf"), float("nan"), [1]])
def test_a_size_that_is_none_is_not_told(size: Any) -> None:
    assert created(records(record("a", eTag="abc", size=size))) == [Created("docs", "a")]


@pytest.mark.parametrize("etag", ["", "a" * 300, "a\nb", "é", None, 7, {}])
def test_an_etag_that_is_none_is_not_told(etag: Any) -> None:
    assert created(records(record("a", eTag=etag, size=3))) == [Created("docs", "a")]


def test_the_version_is_told_as_the_bucket_tells_it() -> None:
    assert created(records(record("a", eTag="0123-2", size=0))) == [Created("docs", "a", "0123-2", 0)]
    assert created(by_eventbridge(key="a", etag='"0123"', size=5)) == [Created("docs", "a", "0123", 5)]
