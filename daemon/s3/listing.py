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
from daemon.s3.etags import bare_etag
from daemon.s3.problems import NO_S3, translated

OPERATION = "before-parse.*.ListObjectsV2"  # comes before botocore's own look at the whole body, at before-parse.s3.*
FAST = "ConvertdEntries"
PAGE_KEYS = 1000

_OTHER = r"(?:<(?!(?:Key|ETag|Size|Contents)>)\w++>[^<]*+(?:<\w++>[^<]*+</\w++>[^<]*+)*+</\w++>\s*+)*+"
_OBJECT = re.compile(  # whatever is written, it never goes back, and never from one object into the next
    rf"<Contents>\s*+{_OTHER}<Key>([^<]*+)</Key>\s*+{_OTHER}<ETag>([^<]*+)</ETag>\s*+{_OTHER}"
    rf"<Size>(\d{{1,18}}+)</Size>\s*+{_OTHER}</Contents>(?=\s*+(?:<Contents>|\Z))",
    re.ASCII,
)
_END = "</Contents>"
_OTHER_ENCODING = re.compile(r"<\?xml[^>]*encoding=[\"'](?!utf-8[\"'])", re.IGNORECASE)
_URL_ENCODED = "<EncodingType>url</EncodingType>"
_ENTITY = re.compile(r"&(?:#(\d{1,7})|#x([0-9A-Fa-f]{1,6})|(quot|apos|amp|lt|gt));", re.ASCII)
_NAMED = {"quot": '"', "apos": "'", "amp": "&", "lt": "<", "gt": ">"}


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
            key = _decoded(key)
        if key is None:
            unnamed += 1
        else:
            entries.append((key, bare_etag(str(item.get("ETag", ""))), int(item.get("Size", 0))))
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
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return None
    start, end = text.find("<Contents>"), text.rfind(_END)
    if start < 0 or end < 0:
        return None
    end += len(_END)
    # Comments and CDATA, instructions; XML reads a bare CR as another character.
    if "<!" in text or "\r" in text or text.find("<?", 1) > 0 or _OTHER_ENCODING.match(text):
        return None
    found = _OBJECT.findall(text, start, end)
    if text.count("<Contents") != len(found) or text.count("Contents>") != 2 * len(found):
        return None  # one that is written otherwise
    rest = text[:start] + text[end:]
    try:
        return _entries(found, _URL_ENCODED in rest), rest.encode()
    except ValueError:  # a character that there is not
        return None


def _entries(found: list[tuple[str, str, str]], encoded: bool) -> tuple[list[tuple[str, str, int]], int]:
    entries, unnamed = [], 0
    for raw, quoted, size in found:
        plain = _resolved(raw) if "&" in raw else raw
        key = _decoded(plain) if encoded and ("%" in plain or "+" in plain) else plain
        if key is None:
            unnamed += 1
            continue
        etag = quoted[6:-6] if quoted[:6] == "&quot;" == quoted[-6:] else quoted
        if '"' in etag or "&" in etag:
            etag = bare_etag(_resolved(etag))
        entries.append((key, etag, int(size)))
    return entries, unnamed


def _decoded(key: str) -> str | None:
    try:
        return unquote_to_bytes(key.replace("+", " ")).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _resolved(text: str) -> str:
    """Raises ValueError for what is no entity."""
    plain, count = _ENTITY.subn(_entity, text)
    if count != text.count("&"):
        raise ValueError("an unknown entity")
    return plain


def _entity(found: re.Match[str]) -> str:
    if found[3]:
        return _NAMED[found[3]]
    number = int(found[1]) if found[1] else int(found[2], 16)
    if (number < 32 and number not in (9, 10, 13)) or 0xD800 <= number < 0xE000:
        raise ValueError("a character that XML does not allow")
    return chr(number)
