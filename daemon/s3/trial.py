"""Finds out what a server, and the policy on it, allow: by looking, or with a canary that is taken away again."""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from daemon.buckets import Prefix
from daemon.errors import ConvertdError, Kind, SourceVanished, TransientError
from daemon.s3.clients import Clients
from daemon.s3.listing import entries_of
from daemon.s3.objects import Bucket
from daemon.s3.problems import BODY_ERRORS, code_of, translated
from daemon.settings import S3

CANARY = ".convertd-canary-"
CANARY_BYTES = 4096
LOOKED_AT = 5
OTHER_ETAG = '"00000000000000000000000000000000"'
_NOT_NOW = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_UNSUPPORTED = {"NotImplemented", "501", "MethodNotAllowed", "405", "InvalidArgument", "InvalidRequest"}


class Reading(NamedTuple):
    """`read` tells whether there was an object of which a byte could be read. `skew_seconds` is how far the server's
    clock is ahead of ours; None where it does not say."""

    read: bool
    skew_seconds: float | None


class Abilities(NamedTuple):
    """What the server knows besides reading, writing and deleting. `left` says that older versions of the canary
    could not be deleted from a bucket that keeps versions."""

    conditional_put: bool
    conditional_delete: bool
    versions: bool
    left: bool


def read(clients: Clients, settings: S3, place: Prefix) -> Reading:
    """List a prefix, and look at and into one of its objects. Raises the errors of `daemon.s3.problems`."""
    client = clients.s3(settings, reading=True)
    with translated(f"listing {place.url}", right="s3:ListBucket"):
        reply = client.list_objects_v2(Bucket=place.bucket, Prefix=place.prefix, MaxKeys=LOOKED_AT, EncodingType="url")
    skew_seconds = _skew(reply)
    bucket = Bucket(place.bucket, lambda: client)
    entries, _ = entries_of(reply)
    for key, _, size_bytes in entries:
        if size_bytes:
            with suppress(SourceVanished):  # gone meanwhile
                bucket.head(key)
                bucket.read_a_byte(key)
                return Reading(True, skew_seconds)
    return Reading(False, skew_seconds)


def write(clients: Clients, settings: S3, place: Prefix) -> Abilities:
    """Put, get and delete a canary below a prefix. Raises like `read`; takes the canary away either way.

    Where a server does not let it, the error's hint says what is left.
    """
    key = place.key(f"{CANARY}{secrets.token_hex(8)}")
    # Not by the reading client, whose calls are ended where nobody wants to wait.
    cleaner = clients.s3(settings, reading=False)
    trial = _Trial(clients.s3(settings, reading=True), place.bucket, key)
    try:
        trial.put()
        conditional_put = trial.knows_conditional_put()
        conditional_delete = trial.knows_conditional_delete()
        trial.delete()
    except ConvertdError as error:
        if _take_away(cleaner, place.bucket, key, trial):
            error.hint = (
                f"{error.hint} Then remove what is left: aws s3 rm {shlex.quote(f's3://{place.bucket}/{key}')}".strip()
            )
        raise
    except BaseException:
        _take_away(cleaner, place.bucket, key, trial)
        raise
    left = _take_away(cleaner, place.bucket, key, trial)
    return Abilities(conditional_put, conditional_delete, trial.versions, left)


class _Trial:
    """One canary. `versions` says that the bucket keeps versions, `there` that the canary may be in it."""

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        self._client = client
        self._at = {"Bucket": bucket, "Key": key}
        self._url = f"s3://{bucket}/{key}"
        self.versions = self.there = False

    def put(self) -> None:
        content = secrets.token_bytes(CANARY_BYTES)
        with translated(f"writing {self._url}", Kind.INTERNAL, right="s3:PutObject"):
            self.there = True
            try:
                reply = self._client.put_object(**self._at, Body=content)
            except ClientError:
                self.there = False
                raise
        self.versions = reply.get("VersionId", "null") != "null"
        with translated(f"reading {self._url}", Kind.INTERNAL):
            body = self._client.get_object(**self._at)["Body"]
            with closing(body):
                same = body.read() == content
        if not same:
            what = f"reading {self._url}: other bytes came back than were written"
            raise TransientError(Kind.INTERNAL, what, "Check the server's disks, and what lies between.")

    def knows_conditional_put(self) -> bool:
        """Whether what is there is kept where the condition is that there is nothing."""
        with translated(f"writing {self._url}", Kind.INTERNAL, right="s3:PutObject"):
            return self._refused(lambda: self._client.put_object(**self._at, Body=b"", IfNoneMatch="*"))

    def knows_conditional_delete(self) -> bool:
        """Whether what is there is kept where the condition is that it is something else."""
        with translated(f"deleting {self._url}", Kind.INTERNAL, right="s3:DeleteObject"):
            return self._refused(lambda: self._client.delete_object(**self._at, IfMatch=OTHER_ETAG))

    def delete(self) -> None:
        with translated(f"deleting {self._url}", Kind.INTERNAL, right="s3:DeleteObject"):
            self._client.delete_object(**self._at)
        self.there = self.versions

    def _refused(self, request: Any) -> bool:
        try:
            request()
        except ClientError as error:
            if code_of(error) in _NOT_NOW:
                return True
            if code_of(error) in _UNSUPPORTED:
                return False
            raise
        return False


def _take_away(client: Any, bucket: str, key: str, trial: _Trial) -> bool:
    """Delete the canary and, where versions are kept, what is behind it; says whether something of it may stay."""
    if not trial.there:
        return False
    try:
        client.delete_object(Bucket=bucket, Key=key)
        if not trial.versions:
            return False
        found = client.list_object_versions(Bucket=bucket, Prefix=key)
        for version in (*found.get("Versions", ()), *found.get("DeleteMarkers", ())):
            client.delete_object(Bucket=bucket, Key=key, VersionId=version["VersionId"])
    except (BotoCoreError, ClientError, *BODY_ERRORS):
        return True
    return False


def _skew(reply: Mapping[str, Any]) -> float | None:
    stamp = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return parsedate_to_datetime(stamp).timestamp() - time.time()
    except ValueError:
        return None
