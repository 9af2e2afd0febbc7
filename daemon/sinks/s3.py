"""A prefix of a bucket as a sink.

An object appears whole or not at all, so nothing is renamed. What remains to be kept apart are daemons: several may
share a prefix, and one that has read an older version of a document may be slower than another with the newer one.
So a result replaces only what was there before its document was last found unchanged (If-Match, If-None-Match).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from daemon import __version__
from daemon.buckets import Prefix
from daemon.errors import ConvertdError, EnvironmentProblem, Kind, SourceChanged, SourceVanished, TransientError
from daemon.s3.problems import CredentialsProblem, code_of, translated
from daemon.settings import S3
from daemon.sinks.base import UNKNOWN, Origin, Surroundings

KEY_BYTES = 1024
CANARY = ".convertd-canary-"
CANARY_BYTES = 64 * 1024
PARTS_ABOVE_BYTES = 64 << 20
PART_BYTES = 16 << 20
TRIES = 3
STALE_SECONDS = 86400.0
METADATA_BYTES = 1000
_TYPES = {".md": "text/markdown; charset=utf-8", ".json": "application/json"}
_NOT_NOW = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_UNSUPPORTED = {"NotImplemented", "501"}
_FORBIDDEN = {"AccessDenied", "403"}


class S3Sink:
    """Results below one prefix. All methods may be called from any thread.

    Each publish is one of the uploads that `surroundings.uploads` counts; its requests are made one after the other.
    """

    remote = True

    def __init__(self, place: Prefix, surroundings: Surroundings, settings: S3) -> None:
        self._place = place
        self._clients = surroundings.clients
        self._uploads = surroundings.uploads
        self._fault = surroundings.fault
        self._settings = settings
        self._conditional = True
        self.name_bytes = KEY_BYTES - len(place.prefix.encode())

    @classmethod
    def at(cls, location: str, surroundings: Surroundings, settings: S3) -> S3Sink:
        """The sink at this URL."""
        return cls(Prefix.parse(location), surroundings, settings)

    def publish(self, name: str, files: Mapping[str, bytes], origin: Origin = UNKNOWN) -> str:
        keys = {suffix: self._key(name) + suffix for suffix in files}
        size_bytes = sum(map(len, files.values()))
        metadata = _metadata(origin)
        with self._uploads:
            for _ in range(TRIES):
                guard = self._guard(list(keys.values()), origin)
                if all(
                    self._put(keys[suffix], content, metadata, guard.get(keys[suffix], {}), size_bytes)
                    for suffix, content in files.items()
                ):
                    self._fault("published")
                    return self._url(list(keys.values())[-1])
        raise TransientError(Kind.INTERNAL, f"the output {self._url(name)} is changed by others all the time")

    def remove(self, name: str, suffixes: tuple[str, ...]) -> None:
        keys = [self._key(name) + suffix for suffix in suffixes]
        with self._uploads:
            for key in keys:
                with translated(f"removing {self._url(key)}", Kind.INTERNAL, right="s3:DeleteObject"):
                    if self._etag(key) is not None:  # else a bucket with versions would be littered with markers
                        self._fault("remove")
                        self._client().delete_object(Bucket=self._place.bucket, Key=key)

    def probe(self, size_bytes: int) -> None:
        """A bucket does not get full, so the canary's size does not matter."""
        key = f"{self._place.prefix}{CANARY}{secrets.token_hex(8)}"
        try:
            what = f"the sink {self._place.url} cannot be written"
            with self._uploads, translated(what, Kind.INTERNAL, right="s3:PutObject and s3:DeleteObject"):
                client = self._clients.s3(self._settings, reading=True)  # at a stop nobody waits for it
                client.put_object(Bucket=self._place.bucket, Key=key, Body=bytes(CANARY_BYTES))
                client.delete_object(Bucket=self._place.bucket, Key=key)
        except CredentialsProblem:
            self._clients.renew(self._settings)
            raise
        except EnvironmentProblem:
            raise
        except ConvertdError as error:
            raise EnvironmentProblem(error.message, error.hint) from error

    def sweep(self) -> None:
        """Remove canaries, and uploads in parts that nobody has gone on with for a day. Raises EnvironmentProblem."""
        try:
            with translated(f"the sink {self._place.url} cannot be swept", Kind.INTERNAL):
                self._sweep()
        except EnvironmentProblem:
            raise
        except ConvertdError as error:
            raise EnvironmentProblem(error.message, error.hint) from error

    def close(self) -> None:
        pass

    # -- writing -----------------------------------------------------------------------------------------------

    def _guard(self, keys: list[str], origin: Origin) -> dict[str, dict[str, str]]:
        """The condition on which each key may be written, so that no older result replaces a newer one.

        Seen first and only then verified: who writes in between makes the condition fail.
        """
        if origin.verify is None:
            return {}
        conditions = {}
        if self._conditional:
            with translated(f"looking at {self._url(keys[-1])}", Kind.INTERNAL):
                etags = {key: self._etag(key) for key in keys}
            conditions = {key: {"IfMatch": etag} if etag else {"IfNoneMatch": "*"} for key, etag in etags.items()}
        origin.verify()
        return conditions

    def _etag(self, key: str) -> str | None:
        """As the server quotes it; None where there is no such object, or none that may be looked at."""
        try:
            return str(self._client().head_object(Bucket=self._place.bucket, Key=key)["ETag"])
        except ClientError as error:
            if code_of(error) in ("404", "NoSuchKey"):
                return None
            if code_of(error) in _FORBIDDEN:
                self._conditional = False  # a policy that only allows to write: then nothing can be compared
                return None
            raise

    def _put(
        self, key: str, content: bytes, metadata: dict[str, str], condition: dict[str, str], size_bytes: int
    ) -> bool:
        """False where the condition does not hold."""
        about = {"ContentType": _TYPES[key[key.rindex(".") :]], "Metadata": metadata}
        try:
            with translated(f"writing {self._url(key)}", Kind.INTERNAL, size_bytes, right="s3:PutObject"):
                self._fault("put")
                try:
                    self._upload(key, content, about, condition)
                except ClientError as error:
                    if condition and code_of(error) in _NOT_NOW:
                        return False
                    if not condition or code_of(error) not in _UNSUPPORTED:
                        raise
                    self._conditional = False
                    self._upload(key, content, about, {})
        except (SourceVanished, SourceChanged) as error:  # the words of `translate` for what is about a sink here
            raise TransientError(Kind.INTERNAL, error.message) from error
        return True

    def _upload(self, key: str, content: bytes, about: dict[str, Any], condition: dict[str, str]) -> None:
        bucket, client = self._place.bucket, self._client()
        if len(content) <= PARTS_ABOVE_BYTES:
            client.put_object(Bucket=bucket, Key=key, Body=content, **about, **condition)
            return
        upload = client.create_multipart_upload(Bucket=bucket, Key=key, **about)["UploadId"]
        try:
            parts = []
            for number, start in enumerate(range(0, len(content), PART_BYTES), start=1):
                self._fault("part")
                body = content[start : start + PART_BYTES]
                part = client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)
                parts.append({"PartNumber": number, "ETag": part["ETag"]})
            client.complete_multipart_upload(
                Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
            )
        except BaseException:
            with suppress(BotoCoreError, ClientError):  # else it is swept one day
                client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
            raise

    def _sweep(self) -> None:
        bucket, client = self._place.bucket, self._client()
        try:
            canaries = client.list_objects_v2(Bucket=bucket, Prefix=self._place.prefix + CANARY)
            for canary in canaries.get("Contents", ()):
                client.delete_object(Bucket=bucket, Key=canary["Key"])
            uploads = client.list_multipart_uploads(Bucket=bucket, Prefix=self._place.prefix)
        except ClientError as error:
            if code_of(error) in _FORBIDDEN | _UNSUPPORTED:
                return  # a policy that only allows to write is no sickness
            raise
        for upload in uploads.get("Uploads", ()):
            if time.time() - upload["Initiated"].timestamp() > STALE_SECONDS:
                client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    # -- names -------------------------------------------------------------------------------------------------

    def _client(self) -> Any:
        return self._clients.s3(self._settings, reading=False)

    def _key(self, name: str) -> str:
        if ".." in name.split("/") or name.startswith("/"):
            raise ValueError(f"not a name below the sink: {name!r}")
        return self._place.key(name)

    def _url(self, key: str) -> str:
        return f"s3://{self._place.bucket}/{key}"


def _metadata(origin: Origin) -> dict[str, str]:
    """What goes beside an object: header values, so ASCII and short. The sidecar has all of it."""
    metadata = {"convertd-version": __version__}
    for name, value in (("source", quote(origin.source)), ("source-version", quote(origin.version))):
        if value and len(value) <= METADATA_BYTES:
            metadata[name] = value
    return metadata
