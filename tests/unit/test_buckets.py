"""What s3:// and sqs:// name, and what they may not."""

from __future__ import annotations

import pytest

from daemon.buckets import Prefix, Queue, is_url


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("s3://bucket", Prefix("bucket", "")),
        ("s3://bucket/", Prefix("bucket", "")),
        ("s3://bucket/a/b", Prefix("bucket", "a/b/")),
        ("s3://bucket/a/b/", Prefix("bucket", "a/b/")),
        ("s3://a.b-c.9/x", Prefix("a.b-c.9", "x/")),
        ("s3://Older_Bucket/x", Prefix("Older_Bucket", "x/")),
        (f"s3://{'b' * 255}", Prefix("b" * 255, "")),
        ("s3://bucket/a?b#c%2F d/...", Prefix("bucket", "a?b#c%2F d/.../")),
        ("s3://bucket/\u4e2d\u6587", Prefix("bucket", "\u4e2d\u6587/")),
        (f"s3://bucket/{'x' * 899}", Prefix("bucket", "x" * 899 + "/")),
        (f"s3://bucket/{'x' * 899}/", Prefix("bucket", "x" * 899 + "/")),
    ],
)
def test_a_prefix_and_its_one_url(url: str, prefix: Prefix) -> None:
    assert Prefix.parse(url) == prefix
    assert prefix.url == f"s3://{prefix.bucket}/{prefix.prefix}"
    assert Prefix.parse(prefix.url) == prefix


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "does not start with s3://"),
        ("S3://bucket", "does not start with s3://"),
        ("/srv/in", "does not start with s3://"),
        ("s3://", "names no bucket"),
        ("s3:///in", "names no bucket"),
        ("s3://ab", "the name of a bucket has 3 to 63"),
        (f"s3://{'b' * 256}", "the name of a bucket has 3 to 63"),
        ("s3://.bucket", "the name of a bucket has 3 to 63"),
        ("s3://buck et", "the name of a bucket has 3 to 63"),
        ("s3://bucket\n", "the name of a bucket has 3 to 63"),
        ("s3://b\u00fccket", "the name of a bucket has 3 to 63"),
        ("s3://bucket?x", "the name of a bucket has 3 to 63"),
        ("s3://key:secret@bucket", "the name of a bucket has 3 to 63"),
        ("s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/x", "access points are not understood"),
        ("s3://bucket//", "//"),
        ("s3://bucket//a", "//"),
        ("s3://bucket/a//", "//"),
        ("s3://bucket/a//b/", "//"),
        ("s3://bucket/..", ". or .."),
        ("s3://bucket/a/../b", ". or .."),
        ("s3://bucket/./", ". or .."),
        ("s3://bucket/a\x00b", "control characters"),
        ("s3://bucket/a\n/", "control characters"),
        ("s3://bucket/\x85", "control characters"),
        ("s3://bucket/\udcff", "UTF-8"),
        (f"s3://bucket/{'x' * 900}", "at most 900 bytes"),
        ("s3://bucket/" + "\u00e9" * 450, "at most 900 bytes"),
    ],
)
def test_what_is_no_prefix(url: str, reason: str) -> None:
    with pytest.raises(ValueError) as raised:
        Prefix.parse(url)
    assert reason in str(raised.value)
    assert "secret" not in str(raised.value)


def test_keys_below_a_prefix() -> None:
    prefix = Prefix("bucket", "in/")
    assert prefix.key("a/b.pdf") == "in/a/b.pdf"
    assert prefix.relative("in/a/b.pdf") == "a/b.pdf"
    assert prefix.relative("in//b.pdf") == "/b.pdf", "a key is not made nicer than it is"
    assert prefix.relative("in/in/b.pdf") == "in/b.pdf"
    assert prefix.relative("in2/b.pdf") is None
    assert prefix.relative("IN/b.pdf") is None
    assert prefix.relative("in/") is None, "the marker of the folder itself"
    assert prefix.relative("in") is None


def test_keys_of_a_whole_bucket() -> None:
    prefix = Prefix("bucket", "")
    assert prefix.key("a.pdf") == "a.pdf"
    assert prefix.relative("a.pdf") == "a.pdf"
    assert prefix.relative("") is None


@pytest.mark.parametrize(
    ("url", "queue"),
    [
        ("sqs://events", Queue("", "events")),
        ("sqs://123456789012/Events_2-x", Queue("123456789012", "Events_2-x")),
        ("sqs://events.fifo", Queue("", "events.fifo")),
        (f"sqs://{'q' * 80}", Queue("", "q" * 80)),
    ],
)
def test_a_queue_and_its_one_url(url: str, queue: Queue) -> None:
    assert Queue.parse(url) == queue
    assert queue.url == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("events", "does not start with sqs://"),
        ("sqs://", "the name of a queue has 1 to 80"),
        ("sqs://.fifo", "the name of a queue has 1 to 80"),
        ("sqs://a.b", "the name of a queue has 1 to 80"),
        ("sqs://events\n", "the name of a queue has 1 to 80"),
        (f"sqs://{'q' * 81}", "the name of a queue has 1 to 80"),
        (f"sqs://{'q' * 76}.fifo", "the name of a queue has 1 to 80"),
        ("sqs:///events", "12 digits"),
        ("sqs://events/", "12 digits"),
        ("sqs://12345678901/events", "12 digits"),
        ("sqs://1/123456789012/events", "12 digits"),
    ],
)
def test_what_is_no_queue(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Queue.parse(url)


def test_what_is_a_bucket_s_url() -> None:
    assert is_url("s3://bucket/in/")
    assert not is_url("/srv/s3://bucket")
    assert not is_url("sqs://queue")
