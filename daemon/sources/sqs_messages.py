"""What a message of a queue says: which objects of which buckets have been created.

It is understood as S3 sends it, as SNS wraps it and as EventBridge tells it. Anybody who may send to the queue chooses
every byte of it, so nothing of it is taken for granted; what is no such message is refused as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from daemon.model import printable

LARGEST_BYTES = 1 << 50  # no object comes near; what is larger is no size
LONGEST_ETAG = 200
_TOLD_BY_EVENTBRIDGE = {"Object Created", "Object Restore Completed"}
_TOLD_BY_CLOUDTRAIL = ("PutObject", "PostObject", "CopyObject", "CompleteMultipartUpload", "RestoreObject")
"""Calls that create objects, which a rule for those has EventBridge tell in another form."""
LONGEST_KIND = 100
_TEST = "s3:TestEvent"


class Unreadable(Exception):
    """The message is none that a bucket sends; the text says why."""


@dataclass(frozen=True, slots=True)
class Created:
    """An object that has been created, or brought back from an archive.

    `etag` and `size_bytes` are what it was then, None where the message does not say so.
    """

    bucket: str
    key: str
    etag: str | None = None
    size_bytes: int | None = None


def created(body: str) -> list[Created]:
    """The objects that a message tells of; none for a test event and for what else may happen to objects.

    Raises Unreadable.
    """
    content = _object(body)
    if content.get("Type") == "Notification" and isinstance(content.get("Message"), str):
        content = _object(content["Message"])
    if "Records" in content:
        return list(_records(content["Records"]))
    if content.get("Event") == _TEST:
        return []
    if "detail-type" in content:
        return _told(content)
    raise Unreadable("it has no Records and is no event of a bucket")


def _object(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable("it is no JSON") from error
    if not isinstance(content, dict):
        raise Unreadable("it is no JSON object")
    return content


def _records(records: Any) -> Iterator[Created]:
    if not isinstance(records, list):
        raise Unreadable("its Records are no list")
    for record in records:
        name, content = _get(record, "eventName", str), _get(record, "s3", dict)
        # Some servers write "s3:" before the name.
        if name.removeprefix("s3:").startswith("ObjectCreated:") or name.endswith("ObjectRestore:Completed"):
            item = _get(content, "object", dict)
            bucket = _get(_get(content, "bucket", dict), "name", str)
            yield Created(bucket, _decoded(_get(item, "key", str)), *_version(item, "eTag"))


def _told(content: dict[str, Any]) -> list[Created]:
    """EventBridge does not encode keys."""
    kind = _get(content, "detail-type", str)
    if kind in _TOLD_BY_EVENTBRIDGE:
        detail = _get(content, "detail", dict)
        item = _get(detail, "object", dict)
        bucket = _get(_get(detail, "bucket", dict), "name", str)
        return [Created(bucket, _encodable(_get(item, "key", str)), *_version(item, "etag"))]
    if content.get("source") != "aws.s3":
        raise Unreadable("it is an event of something else than a bucket")
    detail = content.get("detail")
    if isinstance(detail, dict) and detail.get("eventName") in _TOLD_BY_CLOUDTRAIL:
        named = printable(kind[:LONGEST_KIND])
        raise Unreadable(f'it is an event of the type "{named}", and the rule has to send those of "Object Created"')
    return []


def _get(content: Any, name: str, kind: type) -> Any:
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, kind):
        raise Unreadable(f"its {name} is missing or of another kind")
    return value


def _decoded(key: str) -> str:
    try:
        return unquote_to_bytes(_encodable(key).replace("+", " ")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable("its key is not UTF-8") from error


def _encodable(key: str) -> str:
    try:
        key.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Unreadable("its key is not UTF-8") from error
    return key


def _version(item: dict[str, Any], etag_name: str) -> tuple[str, int] | tuple[None, None]:
    etag, size = item.get(etag_name), item.get("size")
    if not isinstance(etag, str) or not 0 < len(etag) <= LONGEST_ETAG or not etag.isascii() or not etag.isprintable():
        return None, None
    if type(size) is not int or not 0 <= size < LARGEST_BYTES:
        return None, None
    return etag.strip('"'), size
