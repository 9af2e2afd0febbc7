"""The addresses of buckets and queues: what `s3://…` and `sqs://…` name. Nothing here asks a server."""

from __future__ import annotations

import re
from typing import NamedTuple

S3 = "s3://"
SQS = "sqs://"
LONGEST_PREFIX_BYTES = 900  # of the 1,024 that a key may have: the rest is for the names of results

# Compiled at their first use: every command loads this module, and few have buckets.
_BUCKET = r"[A-Za-z0-9_][A-Za-z0-9._-]{2,254}"
_ACCOUNT = r"[0-9]{12}"
_QUEUE = r"(?=.{1,80}\Z)[A-Za-z0-9_-]+(\.fifo)?"
_CONTROL = r"[\x00-\x1f\x7f-\x9f]"


class Prefix(NamedTuple):
    """All objects of a bucket whose keys start with `prefix`, which is empty or ends with "/"."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Prefix:
        """Of "s3://bucket" or "s3://bucket/prefix", each with or without a "/" at the end.

        Raises ValueError with a reason that never repeats a part of the URL.
        """
        if not is_url(url):
            raise ValueError("it does not start with s3://")
        bucket, _, prefix = url.removeprefix(S3).partition("/")
        if reason := _wrong_with_bucket(bucket) or _wrong_with_prefix(prefix):
            raise ValueError(reason)
        return cls(bucket, f"{prefix.removesuffix('/')}/" if prefix else "")

    @property
    def url(self) -> str:
        """As everybody writes it: "s3://bucket/prefix/"."""
        return f"{S3}{self.bucket}/{self.prefix}"

    def key(self, relative: str) -> str:
        """The key of what lies at `relative` below the prefix."""
        return self.prefix + relative

    def relative(self, key: str) -> str | None:
        """The part of a key behind the prefix; None where it does not lie below, which the prefix itself does not."""
        below = key.startswith(self.prefix) and len(key) > len(self.prefix)
        return key[len(self.prefix) :] if below else None


class Queue(NamedTuple):
    """A queue of SQS. `account` is empty where it belongs to the one whose credentials are used."""

    account: str
    name: str

    @classmethod
    def parse(cls, url: str) -> Queue:
        """Of "sqs://name" or "sqs://account/name". Raises ValueError with a reason that repeats no part of the URL."""
        if not url.startswith(SQS):
            raise ValueError("it does not start with sqs://")
        account, separator, name = url.removeprefix(SQS).rpartition("/")
        if separator and not re.fullmatch(_ACCOUNT, account):
            raise ValueError("the number of an account has 12 digits")
        if not re.fullmatch(_QUEUE, name):
            raise ValueError("the name of a queue has 1 to 80 letters, digits, hyphens and underscores")
        return cls(account, name)

    @property
    def url(self) -> str:
        """As the configuration writes it: "sqs://name" or "sqs://account/name"."""
        return f"{SQS}{self.account}/{self.name}" if self.account else f"{SQS}{self.name}"


def is_url(text: str) -> bool:
    """Whether a location is a bucket's and no folder."""
    return text.startswith(S3)


def _wrong_with_bucket(bucket: str) -> str:
    if not bucket:
        return "it names no bucket"
    if bucket.startswith("arn:"):
        return "access points are not understood: name a bucket"
    if not re.fullmatch(_BUCKET, bucket):
        return "the name of a bucket has 3 to 63 letters, digits, dots and hyphens"
    return ""


def _wrong_with_prefix(prefix: str) -> str:
    if "//" in f"/{prefix}":
        return "a prefix cannot have // in it"
    if not {".", ".."}.isdisjoint(prefix.split("/")):
        return "a prefix cannot have . or .. as a part"
    if re.search(_CONTROL, prefix):
        return "a prefix cannot have control characters"
    try:
        size = len(f"{prefix.removesuffix('/')}/".encode())
    except UnicodeEncodeError:
        return "a prefix must be UTF-8"
    return f"a prefix has at most {LONGEST_PREFIX_BYTES} bytes" if size > LONGEST_PREFIX_BYTES else ""
