"""The servers that other tests rely on do what those tests take for granted."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from tests.harness import until
from tests.servers import Bucket, queue_for

NASTY_KEYS = [
    "a b/ü+&=%2F.pdf",
    "deep/er/x.y/z",
    "日本/語.txt",
    "quote'\"<>.txt",
    "trailing ",
    "-x",
    "/".join(["a" * 200] * 4),
]


def test_an_object_makes_the_round_trip_through_a_real_server(bucket: Bucket) -> None:
    etag = bucket.put("folder/a.txt", b"words")
    assert bucket.get("folder/a.txt") == b"words"
    assert bucket.client.head_object(Bucket=bucket.name, Key="folder/a.txt")["ETag"] == etag
    assert bucket.keys("folder/") == ["folder/a.txt"]
    bucket.delete("folder/a.txt")
    assert bucket.get("folder/a.txt") is None
    assert bucket.keys() == []


@pytest.mark.parametrize("key", NASTY_KEYS)
def test_a_nasty_key_comes_back_as_it_was_put(bucket: Bucket, key: str) -> None:
    bucket.put(key, key.encode())
    assert bucket.keys() == [key]
    assert bucket.get(key) == key.encode()


def test_the_real_server_honours_conditions(bucket: Bucket) -> None:
    old = bucket.put("a", b"one")
    bucket.put("a", b"two")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        bucket.client.get_object(Bucket=bucket.name, Key="a", IfMatch=old)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        bucket.put("a", b"three", IfNoneMatch="*")
    assert bucket.get("a") == b"two"


def test_a_queue_hears_of_what_is_created_and_removed(moto_bucket: Bucket) -> None:
    with queue_for(moto_bucket, max_receive_count=3, prefix="in/") as queue:
        moto_bucket.put("in/ü b.pdf", b"words")
        moto_bucket.put("elsewhere", b"words")
        moto_bucket.delete("in/ü b.pdf")
        bodies: list[str] = []

        def three_came() -> bool:
            bodies.extend(queue.receive())
            return len(bodies) >= 3

        until(three_came, "three messages", 10)
        test_event, *events = (json.loads(body) for body in bodies)
        assert test_event["Event"] == "s3:TestEvent"
        records = [event["Records"][0] for event in events]
        assert [record["eventName"] for record in records] == ["ObjectCreated:Put", "ObjectRemoved:Delete"]
        assert records[0]["s3"]["bucket"]["name"] == moto_bucket.name
        assert queue.counts() == (0, 0) and queue.counts(queue.dead_letter_url) == (0, 0)
