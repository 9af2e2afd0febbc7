"""A prefix of a bucket as a sink.

An object appears whole or not at all, so nothing is renamed. What remains to be kept apart are daemons: several may
share a prefix, and one that has read an older version of a document may be slower than another with the newer one.
So a result replaces only what was there before its document was last found unchanged (If-Match, If-None-Match).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from daemon import __version__
from daemon.buckets import Prefix
from daemon.errors import ConvertdError, EnvironmentProblem, Kind, Stopped, TransientError
from daemon.s3.problems import CredentialsProblem
from daemon.s3.writing import ALWAYS, Condition, Overtaken, WritableBucket
from daemon.settings import S3
from daemon.sinks.base import UNKNOWN, Content, Origin, Surroundings

KEY_BYTES = 1024
CANARY = ".convertd-canary-"
CANARY_BYTES = 64 * 1024
TRIES = 3
METADATA_BYTES = 1000
_TYPES = {".md": "text/markdown; charset=utf-8", ".json": "application/json", ".jsonl": "application/jsonl"}


class S3Sink:
    """Results below one prefix. All methods may be called from any thread.

    What is asked of the bucket for one result is one of the uploads that `surroundings.uploads` counts, one request
    after the other.
    """

    remote = True

    def __init__(self, place: Prefix, surroundings: Surroundings, settings: S3) -> None:
        self._place = place
        self._clients = surroundings.clients
        self._uploads = surroundings.uploads
        self._fault = surroundings.fault
        self._settings = settings
        self._bucket = WritableBucket(
            place.bucket, lambda: self._clients.s3(settings, reading=False), surroundings.fault
        )
        self._canary = f"{place.prefix}{CANARY}{secrets.token_hex(8)}"  # one: it may not be allowed to delete it
        self.name_bytes = KEY_BYTES - len(place.prefix.encode())

    @classmethod
    def at(cls, location: str, surroundings: Surroundings, settings: S3) -> S3Sink:
        """The sink at this URL."""
        return cls(Prefix.parse(location), surroundings, settings)

    def publish(self, name: str, files: Mapping[str, Content], origin: Origin = UNKNOWN) -> str:
        keys = [self._key(name) + suffix for suffix in files]
        size_bytes = sum(map(len, files.values()))
        before: dict[str, Condition] = {}
        for _ in range(TRIES):
            conditions = self._guard(keys, origin)
            if conditions == before:  # nobody has written, and yet it was refused: this server's etags match nothing
                conditions = dict.fromkeys(keys, ALWAYS)
            try:
                with self._uploads:
                    for key, content in zip(keys, files.values(), strict=True):
                        self._bucket.put(key, content, _about(key, origin), conditions[key], size_bytes)
            except Overtaken:
                before = conditions
                continue
            self._fault("published")
            return self._bucket.url(keys[-1])
        raise TransientError(
            Kind.INTERNAL, f"the output {self._bucket.url(keys[-1])} is changed by others all the time"
        )

    def remove(self, name: str, suffixes: tuple[str, ...], origin: Origin = UNKNOWN) -> None:
        with self._uploads:
            for suffix in suffixes:
                self._bucket.remove(self._key(name) + suffix)

    def folds(self) -> bool:
        return False

    def read(self, name: str, suffix: str) -> bytes | None:
        return self._bucket.read(self._key(name) + suffix)

    def probe(self, size_bytes: int) -> None:
        """A bucket does not get full, so the canary's size does not matter."""
        try:
            client = self._clients.s3(self._settings, reading=True)  # at a stop nobody waits for it
            self._bucket.try_out(self._canary, CANARY_BYTES, client)
        except CredentialsProblem:
            self._clients.renew(self._settings)
            raise
        except ConvertdError as error:
            raise _problem(error) from error

    def sweep(self) -> None:
        """Remove canaries, and uploads in parts that nobody has gone on with for a day. Raises EnvironmentProblem."""
        try:
            self._bucket.sweep(self._place.prefix, self._place.prefix + CANARY)
        except ConvertdError as error:
            raise _problem(error) from error

    def close(self) -> None:
        pass

    def _guard(self, keys: list[str], origin: Origin) -> dict[str, Condition]:
        """The condition on which each key may be written, so that no older result replaces a newer one.

        Looked at first and only then verified: whoever writes in between makes the condition fail.
        """
        if origin.verify is None:
            return dict.fromkeys(keys, ALWAYS)
        with self._uploads:
            conditions = {key: self._bucket.unchanged(key) for key in keys}
        origin.verify()  # of another server, which must not hold up what is uploaded to this one
        return conditions

    def _key(self, name: str) -> str:
        if ".." in name.split("/") or name.startswith("/"):
            raise ValueError(f"not a name below the sink: {name!r}")
        return self._place.key(name)


def _problem(error: ConvertdError) -> ConvertdError:
    """What a probe met is sick surroundings, unless it was a stop."""
    if isinstance(error, (EnvironmentProblem, Stopped)):
        return error
    return EnvironmentProblem(error.message, error.hint)


def _about(key: str, origin: Origin) -> dict[str, Any]:
    """What goes beside an object. Metadata are header values, so ASCII and short; the sidecar has all of it."""
    metadata = {"convertd-version": __version__}
    for name, value in (("source", quote(origin.source)), ("source-version", quote(origin.version))):
        if value and len(value) <= METADATA_BYTES:
            metadata[name] = value
    return {"ContentType": _TYPES[key[key.rindex(".") :]], "Metadata": metadata}
