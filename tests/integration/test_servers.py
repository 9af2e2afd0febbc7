"""The servers that other tests rely on do what those tests take for granted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.bench import link, listing_server
from tests.harness import until
from tests.servers import Bucket, S3Server, queue_for

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


@contextlib.contextmanager
def client_of(url: str) -> Iterator[Any]:
    with contextlib.closing(S3Server(url).client()) as client:
        yield client


def test_the_link_serves_whole_objects_and_ranges_of_them() -> None:
    size = 300_000
    whole = b"".join(link.content_pieces(size))
    with link.serving("--size", str(size), "--rate", "50000000", "--objects", "3") as url, client_of(url) as client:

        def get(**conditions: str) -> tuple[int, bytes]:
            answer = client.get_object(Bucket="b", Key="any/key", **conditions)
            with contextlib.closing(answer["Body"]) as body:
                return answer["ResponseMetadata"]["HTTPStatusCode"], body.read()

        etag = client.head_object(Bucket="b", Key="any/key")["ETag"]
        assert etag == f'"{hashlib.md5(whole).hexdigest()}"'
        assert get(IfMatch=etag) == (200, whole)
        assert get(Range="bytes=1000-1999", IfMatch=etag) == (206, whole[1000:2000])
        assert get(Range="bytes=299000-") == (206, whole[299_000:])
        assert get(Range="bytes=-10") == (206, whole[-10:])
        with pytest.raises(ClientError, match="InvalidRange"):
            get(Range="bytes=300000-300001")
        with pytest.raises(ClientError, match="PreconditionFailed"):
            get(IfMatch='"other"')
        listed = client.list_objects_v2(Bucket="b")["Contents"]
        assert [(entry["ETag"], entry["Size"]) for entry in listed] == [(etag, size)] * 3


def test_the_link_serves_at_full_speed_and_counts_what_is_put_at_once() -> None:
    options = ("--size", "3000000", "--put-latency", "0.2", "--absent", "out/")
    with link.serving(*options) as url, client_of(url) as client, ThreadPoolExecutor(4) as pool:
        with contextlib.closing(client.get_object(Bucket="b", Key="key")["Body"]) as body:
            assert body.read() == b"".join(link.content_pieces(3_000_000))
        together = threading.Barrier(4)

        def put(number: int) -> None:
            together.wait(10)
            answer = client.put_object(Bucket="b", Key=f"out/{number}", Body=b"words")
            assert answer["ETag"] == f'"{hashlib.md5(b"words").hexdigest()}"'

        list(pool.map(put, range(4)))
        counted = link.stats(url)
        assert counted["puts"] == 4 and 1 < counted["put_in_flight_max"] <= 4
        link.reset(url)
        assert link.stats(url)["puts"] == link.stats(url)["put_in_flight_max"] == 0
        with pytest.raises(ClientError, match="404"):
            client.head_object(Bucket="b", Key="out/1")


def test_the_listing_server_shows_every_key_once_and_in_order() -> None:
    with listing_server.serving("--keys", "2500", "--prefix", "in/box") as url, client_of(url) as client:

        def listed(prefix: str = "in/", **options: Any) -> dict[str, str]:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket="b", Prefix=prefix, **options)
            return {entry["Key"]: entry["ETag"] for page in pages for entry in page.get("Contents", [])}

        before = listed()
        assert list(before) == sorted(before) == [f"in/box/{n // 1000:06d}/doc-{n:07d}.pdf" for n in range(2500)]
        assert listed(PaginationConfig={"PageSize": 333}) == before
        assert list(listed("in/box/000002/doc-00024")) == list(before)[2400:]
        assert list(listed(StartAfter="in/box/000002/doc-0002498.pdf")) == list(before)[2499:]
        assert listed("other") == {}
        listing_server.change(url, every=100)
        after = listed()
        assert list(after) == list(before)
        assert [key for key in after if after[key] != before[key]] == list(before)[::100]
        with pytest.raises(ClientError, match="NoSuchKey"):
            client.get_object(Bucket="b", Key="in/box/000000/doc-0000000.pdf")
