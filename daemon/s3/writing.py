"""Writing objects, on conditions where the server knows them, and reading them back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from daemon.errors import Kind, SourceChanged, SourceVanished, TransientError
from daemon.faults import Fault
from daemon.s3.problems import code_of, translated

PARTS_ABOVE_BYTES = 64 << 20
PART_BYTES = 16 << 20
STALE_SECONDS = 86400.0
OUR_ENDINGS = (".md", ".json")

_NOT_THERE = {"404", "NoSuchKey"}
_NOT_NOW = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey"}
_UNSUPPORTED = {"NotImplemented", "501"}
_FORBIDDEN = {"AccessDenied", "403"}

Condition = Mapping[str, str]
ALWAYS: Condition = {}


class Overtaken(Exception):
    """Somebody else has written the object since it was looked at."""


class WritableBucket:
    """One bucket to write to. Thread-safe; `client` gives boto3's client at each use.

    Raises TransientError and EnvironmentProblem for all that goes wrong. Whether conditions can be used is found out:
    neither a server that does not know them nor a policy that only allows to write is an error.
    """

    def __init__(self, name: str, client: Callable[[], Any], fault: Fault) -> None:
        self.name = name
        self._client = client
        self._fault = fault
        self._conditional = True

    def unchanged(self, key: str) -> Condition:
        """The condition that the object, or its absence, is still what it is now."""
        if not self._conditional:
            return ALWAYS
        with translated(f"looking at {self.url(key)}", Kind.INTERNAL):
            try:
                etag = self._etag(key)
            except ClientError as error:
                if code_of(error) not in _FORBIDDEN:
                    raise
                return ALWAYS
        if etag is None:
            return {"IfNoneMatch": "*"}
        return {"IfMatch": etag} if etag.startswith('"') else ALWAYS  # no server matches on a weak one

    def put(
        self, key: str, content: bytes | memoryview, about: Mapping[str, Any], condition: Condition, size_bytes: int
    ) -> None:
        """Write an object, durable on return. Raises Overtaken where the condition does not hold.

        `about` are further arguments of boto3's, `size_bytes` what an error says was to be written.
        """
        try:
            with translated(f"writing {self.url(key)}", Kind.INTERNAL, size_bytes, right="s3:PutObject"):
                self._fault("put")
                self._put(key, content, about, condition)
        except (SourceVanished, SourceChanged) as error:  # words for documents; this is a result
            raise TransientError(Kind.INTERNAL, error.message) from error

    def read(self, key: str) -> bytes | None:
        """The content of an object; None where there is no such object."""
        try:
            with translated(f"reading {self.url(key)}", Kind.INTERNAL):
                return bytes(self._client().get_object(Bucket=self.name, Key=key)["Body"].read())
        except SourceVanished:
            return None

    def remove(self, key: str) -> None:
        """Remove the object if there is one: a bucket with versions is not littered with markers for nothing."""
        with translated(f"removing {self.url(key)}", Kind.INTERNAL, right="s3:DeleteObject"):
            try:
                there = self._etag(key) is not None
            except ClientError as error:
                if code_of(error) not in _FORBIDDEN:
                    raise
                there = True  # or not: it may not be looked at
            if there:
                self._fault("remove")
                self._delete(key)

    def try_out(self, key: str, size_bytes: int, client: Any) -> None:
        """Write and delete an object of so many bytes."""
        what, right = f"{self.url(key)} cannot be written", "s3:PutObject and s3:DeleteObject"
        with translated(what, Kind.INTERNAL, right=right):
            client.put_object(Bucket=self.name, Key=key, Body=bytes(size_bytes))
            client.delete_object(Bucket=self.name, Key=key)

    def sweep(self, prefix: str, canaries: str) -> None:
        """Delete what starts with `canaries`, and give up uploads in parts that have lain below `prefix` for a day."""
        with translated(f"{self.url(prefix)} cannot be swept", Kind.INTERNAL):
            try:
                self._sweep(prefix, canaries)
            except ClientError as error:
                if code_of(error) not in _FORBIDDEN | _UNSUPPORTED:
                    raise

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def _etag(self, key: str) -> str | None:
        """As the server quotes it; None where there is no such object."""
        try:
            return str(self._client().head_object(Bucket=self.name, Key=key).get("ETag", ""))
        except ClientError as error:
            if code_of(error) in _NOT_THERE:
                return None
            raise

    def _delete(self, key: str) -> None:
        try:
            self._client().delete_object(Bucket=self.name, Key=key)
        except ClientError as error:
            if code_of(error) not in _NOT_THERE:
                raise

    def _put(self, key: str, content: bytes | memoryview, about: Mapping[str, Any], condition: Condition) -> None:
        try:
            self._upload(key, content, about, condition)
        except ClientError as error:
            if condition and code_of(error) in _NOT_NOW:
                raise Overtaken from error
            if not condition or code_of(error) not in _UNSUPPORTED:
                raise
            self._conditional = False
            self._upload(key, content, about, ALWAYS)

    def _upload(self, key: str, content: bytes | memoryview, about: Mapping[str, Any], condition: Condition) -> None:
        client = self._client()
        if len(content) <= PARTS_ABOVE_BYTES:
            client.put_object(Bucket=self.name, Key=key, Body=bytes(content), **about, **condition)
            return
        upload = client.create_multipart_upload(Bucket=self.name, Key=key, **about)["UploadId"]
        try:
            parts = []
            for number, start in enumerate(range(0, len(content), PART_BYTES), start=1):
                self._fault("part")
                body = bytes(content[start : start + PART_BYTES])
                part = client.upload_part(Bucket=self.name, Key=key, UploadId=upload, PartNumber=number, Body=body)
                parts.append({"PartNumber": number, "ETag": part["ETag"]})
            client.complete_multipart_upload(
                Bucket=self.name, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
            )
        except BaseException:
            with suppress(BotoCoreError, ClientError):  # else it is swept one day
                client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)
            raise

    def _sweep(self, prefix: str, canaries: str) -> None:
        client = self._client()
        found = client.list_objects_v2(Bucket=self.name, Prefix=canaries)
        for canary in found.get("Contents", ()):
            client.delete_object(Bucket=self.name, Key=canary["Key"])
        uploads = client.list_multipart_uploads(Bucket=self.name, Prefix=prefix)
        for upload in uploads.get("Uploads", ()):
            ours = upload["Key"].endswith(OUR_ENDINGS)
            if ours and time.time() - upload["Initiated"].timestamp() > STALE_SECONDS:
                client.abort_multipart_upload(Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"])
