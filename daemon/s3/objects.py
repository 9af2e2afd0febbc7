"""What is done to single objects of a bucket, with translated errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from daemon.errors import EnvironmentProblem, SourceVanished, TransientError
from daemon.s3.etags import bare_etag, if_match
from daemon.s3.problems import GOES_ON, code_of, translated

COPY_BYTES = 5 << 30
"""The largest object that one request copies."""
READ_BYTES = 1 << 20
_UNSUPPORTED = {"NotImplemented", "501"}
_UNSUPPORTED_COPY = _UNSUPPORTED | {"InvalidArgument", "InvalidRequest", "400"}
"""Of a copy, too, what says less: asked for without the condition it is refused again if that was not the reason."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a bucket says of an object. `reply` is the answer as boto3 has it."""

    etag: str
    size_bytes: int
    reply: Mapping[str, Any]


class Bucket:
    """One bucket. Thread-safe; `client` gives boto3's client at each use.

    Raises SourceVanished where there is no such object, SourceChanged where a condition does not hold, and else what
    `problems.translate` makes of boto3's errors.
    """

    def __init__(self, name: str, client: Callable[[], Any]) -> None:
        self.name = name
        self._client = client

    def elsewhere(self, name: str) -> Bucket:
        """Another bucket, reached in the same way."""
        return self if name == self.name else Bucket(name, self._client)

    def require(self) -> None:
        """Raise EnvironmentProblem where there is no such bucket: for an answer that an object is missing does not
        say why."""
        try:
            with translated(f"looking at the bucket {self.name}"):
                self._client().head_bucket(Bucket=self.name)
        except SourceVanished as error:
            raise EnvironmentProblem(
                f"there is no bucket {self.name}", f"Check bucket, region and endpoint_url of the watch; {GOES_ON}"
            ) from error
        except TransientError:
            return  # not allowed to ask; what asks next finds out

    @contextmanager
    def present(self) -> Iterator[None]:
        """In a bucket that is gone every object looks gone: within this that is not the object's end."""
        try:
            yield
        except SourceVanished:
            self.require()
            raise

    def head(self, key: str) -> Head:
        """Etag and size of an object."""
        with translated(f"looking at {self._url(key)}"):
            reply = self._client().head_object(Bucket=self.name, Key=key)
        return Head(bare_etag(reply.get("ETag", "")), int(reply.get("ContentLength", 0)), reply)

    def read_a_byte(self, key: str) -> None:
        """Find out whether objects can be read."""
        with translated(f"reading {self._url(key)}"):
            body = self._client().get_object(Bucket=self.name, Key=key, Range="bytes=0-0")["Body"]
            with closing(body):
                body.read(1)  # a server may send all of it

    def delete(self, key: str, etag: str) -> str | None:
        """Delete the object unless it has another etag by now.

        Where the bucket keeps versions this hides the object behind a marker, whose version is returned. A server
        that knows no conditional deletion deletes whatever is there.
        """
        with translated(f"deleting {self._url(key)}", right="s3:DeleteObject"):
            delete = partial(self._client().delete_object, Bucket=self.name, Key=key)
            reply = _where_known(if_match(etag), delete, _UNSUPPORTED)
        marker = str(reply.get("VersionId") or "null")
        # Where versions are suspended the marker has taken the object's place: nothing of it is left behind it.
        return marker if reply.get("DeleteMarker") and marker != "null" else None

    def remove_marker(self, key: str, marker: str) -> None:
        """Bring back what `delete` has hidden."""
        with translated(f"restoring {self._url(key)}", right="s3:DeleteObjectVersion"):
            self._client().delete_object(Bucket=self.name, Key=key, VersionId=marker)

    def newest_version(self, key: str) -> str | None:
        """The id of the newest version that is no marker, hidden or not; None where there is none."""
        with translated(f"looking at the versions of {self._url(key)}", right="s3:ListBucketVersions"):
            reply = self._client().list_object_versions(Bucket=self.name, Prefix=key, MaxKeys=20)
        versions = [version for version in reply.get("Versions", ()) if version.get("Key") == key]
        return str(versions[0]["VersionId"]) if versions else None

    def holds_the_same(self, key: str, etag: str, other: Bucket, other_key: str, other_etag: str) -> bool:
        """Whether two objects of one size hold the same bytes, which is found out by reading both."""
        with translated(f"comparing {self._url(key)} with {other._url(other_key)}"), ExitStack() as bodies:
            first, second = (
                bodies.enter_context(closing(bucket._body(name, version)))
                for bucket, name, version in ((self, key, etag), (other, other_key, other_etag))
            )
            return all(second.read(len(chunk)) == chunk for chunk in first.iter_chunks(READ_BYTES))

    def _body(self, key: str, etag: str) -> Any:
        return self._client().get_object(Bucket=self.name, Key=key, **if_match(etag))["Body"]

    def copy(self, key: str, etag: str, size_bytes: int, target: str, target_key: str) -> None:
        """Copy the object, if it still has this etag and nothing is there, within the server.

        Raises SourceChanged for either. A server that knows no conditional copying replaces what is there, and so does
        a copy in parts, for which boto3 has no such condition.
        """
        source = {"Bucket": self.name, "Key": key}
        unchanged = {f"CopySource{name}": value for name, value in if_match(etag).items()}
        with translated(f"copying {self._url(key)} to s3://{target}/{target_key}", right="s3:PutObject"):
            if size_bytes > COPY_BYTES:
                self._client().copy(source, target, target_key, ExtraArgs=unchanged)
                return
            copy = partial(self._client().copy_object, Bucket=target, Key=target_key, CopySource=source, **unchanged)
            _where_known({"IfNoneMatch": "*"}, copy, _UNSUPPORTED_COPY)

    def _url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"


def _where_known(condition: Mapping[str, str], request: Callable[..., Any], unsupported: Collection[str]) -> Any:
    """Make a request on a condition, or without it where the server answers that it does not support that."""
    try:
        return request(**condition)
    except ClientError as error:
        if not condition or code_of(error) not in unsupported:
            raise
    return request()


def server_age_seconds(reply: Mapping[str, Any]) -> float:
    """How long ago the object of an answer was changed, by the clock of the server that answered; no time at all where
    it does not say."""
    if "LastModified" not in reply:
        return 0.0
    changed = reply["LastModified"].timestamp()
    stamp = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        now = parsedate_to_datetime(stamp).timestamp()
    except ValueError:
        now = time.time()
    return float(now - changed)
