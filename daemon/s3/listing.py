"""Listing a prefix page by page, as fast as a page can be read.

boto3's parser builds a tree and a dictionary for each object, in Python, with the interpreter locked; a bucket of a
million objects that is looked at every half minute would hold up every thread. A page is therefore cut up by one
regular expression, and boto3 gets what is left of it. Where the reply is not exactly what the expression knows, boto3's
own parser reads all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from daemon.errors import Kind, TransientError
from daemon.s3.problems import NO_S3, translated

OPERATION = "before-parse.s3.ListObjectsV2"
FAST = "ConvertdEntries"
PAGE_KEYS = 1000

_OBJECT = re.compile(
    rb"^\s*<Contents>.*?<Key>([^<]*)</Key>.*?<ETag>([^<]*)</ETag>.*?<Size>(\d{1,18})</Size>.*", re.DOTALL
)
_END = b"</Contents>"
_ONCE_EACH = (b"<Key>", b"<ETag>", b"<Size>", b"<Contents>", b"<Key", b"<ETag", b"<Size", b"<Contents")
_OTHER_ENCODING = re.compile(rb"<\?xml[^>]*encoding=[\"'](?!utf-8[\"'])", re.IGNORECASE)
_URL_ENCODED = b"<EncodingType>url</EncodingType>"
_ENTITY = re.compile(rb"&(?:#(\d{1,7})|#x([0-9A-Fa-f]{1,6})|(quot|apos|amp|lt|gt));")
_NAMED = {b"quot": b'"', b"apos": b"'", b"amp": b"&", b"lt": b"<", b"gt": b">"}
_QUOTES = (b"&quot;", b"&#34;")


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing: key, etag without quotes and size of each object, and where the next page begins.

    `unnamed` counts objects whose keys are not UTF-8, which boto3 cannot name.
    """

    entries: list[tuple[str, str, int]]
    next_token: str | None
    unnamed: int = 0


def read_fast(client: Any) -> None:
    """Have this client read pages the fast way. Idempotent."""
    client.meta.events.register(OPERATION, _take_objects, unique_id="convertd-fast-listing")


def pages(client: Any, bucket: str, prefix: str, token: str | None = None, most: int = PAGE_KEYS) -> Iterator[Page]:
    """The pages of a prefix from `token` on, one request each. A page that cannot be had raises a translated error:
    an end is only ever where the server says so. Nothing is promised of the order of keys."""
    while True:
        arguments = {"ContinuationToken": token} if token is not None else {}
        with translated(f"listing s3://{bucket}/{prefix}", right="s3:ListBucket"):
            reply = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=most, EncodingType="url", **arguments)
        page = _page(reply)
        if page is None:
            raise TransientError(Kind.UNREADABLE, f"listing s3://{bucket}/{prefix}: the answer is no listing", NO_S3)
        if page.next_token is not None and page.next_token == token:
            raise TransientError(Kind.UNREADABLE, f"listing s3://{bucket}/{prefix}: it goes in circles", NO_S3)
        yield page
        if page.next_token is None:
            return
        token = page.next_token


def _page(reply: dict[str, Any]) -> Page | None:
    """None where the reply does not say whether and where the listing goes on, which every server does: boto3 takes
    an answer without a body for an empty one."""
    token = reply.get("NextContinuationToken") if reply.get("IsTruncated") else None
    if "IsTruncated" not in reply or (reply["IsTruncated"] and not token):
        return None
    if FAST in reply:
        entries, unnamed = reply[FAST]
    else:
        entries, unnamed = entries_of(reply)
    return Page(entries, token, unnamed)


def entries_of(reply: dict[str, Any]) -> tuple[list[tuple[str, str, int]], int]:
    """The objects of a reply that boto3 has read, and how many have no name."""
    encoded = reply.get("EncodingType") == "url"
    entries, unnamed = [], 0
    for item in reply.get("Contents", ()):
        key: str | None = item.get("Key")
        if key is not None and encoded:
            key = _decoded(key.encode())
        if key is None:
            unnamed += 1
        else:
            entries.append((key, str(item.get("ETag", "")).strip('"'), int(item.get("Size", 0))))
    return entries, unnamed


def _take_objects(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Take the objects out of a reply before boto3 reads it; all or none of them."""
    body = response_dict.get("body")
    if response_dict.get("status_code") != 200 or not isinstance(body, bytes):
        return
    taken = _objects(body)
    if taken is not None:
        customized_response_dict[FAST], response_dict["body"] = taken


def _objects(body: bytes) -> tuple[tuple[list[tuple[str, str, int]], int], bytes] | None:
    start, end = body.find(b"<Contents>"), body.rfind(_END)
    if start < 0 or end < 0:
        return None
    end += len(_END)
    # Each object by itself: no match can cross from one to the next, so that what is missing is found out at once.
    *pieces, last = body[start:end].split(_END)
    if last or any(body.count(tag, start, end) != len(pieces) for tag in _ONCE_EACH):
        return None
    if body.count(b"Contents>") != 2 * len(pieces) or body.count(b"<Contents") != len(pieces):
        return None  # one whose tag is written otherwise
    # Comments and CDATA, instructions; XML reads a bare CR as another character.
    if b"<!" in body or b"\r" in body or b"<?" in body[1:] or _OTHER_ENCODING.match(body):
        return None
    found: list[tuple[bytes, bytes, bytes]] = [groups for piece in pieces for groups in _OBJECT.findall(piece)]
    if len(found) != len(pieces):
        return None
    rest = body[:start] + body[end:]
    try:
        return _entries(found, _URL_ENCODED in rest), rest
    except ValueError:  # a character that there is not
        return None


def _entries(found: list[tuple[bytes, bytes, bytes]], encoded: bool) -> tuple[list[tuple[str, str, int]], int]:
    entries, unnamed = [], 0
    for raw, etag, size in found:
        key = raw
        if b"&" in key:
            key = _resolved(key)
        if not encoded:
            name: str | None = _text(key)
        elif b"%" in key or b"+" in key or not key.isascii():
            name = _decoded(key)
        else:
            name = key.decode("ascii")
        if name is None:
            unnamed += 1
        else:
            entries.append((name, _bare(etag), int(size)))
    return entries, unnamed


def _decoded(key: bytes) -> str | None:
    return _text(unquote_to_bytes(key.replace(b"+", b" ")))


def _text(key: bytes) -> str | None:
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _bare(etag: bytes) -> str:
    for quote in _QUOTES:
        if etag.startswith(quote) and etag.endswith(quote):
            etag = etag[len(quote) : -len(quote)]
            break
    if b"&" in etag:
        etag = _resolved(etag)
    return etag.strip(b'"').decode("utf-8", "replace")


def _resolved(text: bytes) -> bytes:
    """Raises ValueError for what is no entity."""
    plain, count = _ENTITY.subn(_entity, text)
    if count != text.count(b"&"):
        raise ValueError("an unknown entity")
    return plain


def _entity(found: re.Match[bytes]) -> bytes:
    if found[3]:
        return _NAMED[found[3]]
    number = int(found[1]) if found[1] else int(found[2], 16)
    if number < 32 and number not in (9, 10, 13):
        raise ValueError("a character that XML does not allow")
    return chr(number).encode("utf-8")
