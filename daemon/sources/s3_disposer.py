"""Deletes or moves an object whose job is done, if it is still the version that was converted.

The server decides that at the very moment of the deletion (If-Match). Where it does not know that condition but keeps
versions, the object that the deletion has hidden is looked at, and brought back if it is a newer one. Where the server
cannot do that at the moment, the next call goes on with it. This is remembered in memory only: if the daemon ends just
then, or the watch is changed by a reload, a newer object stays hidden, among the versions of its key. Every other step
can be the last before a crash: the next call finds out how far it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from daemon.buckets import Prefix
from daemon.errors import NotYet, SourceChanged, SourceVanished, TransientError
from daemon.faults import Fault
from daemon.model import Disposal, Job
from daemon.naming import output_name
from daemon.s3.objects import Bucket, Head
from daemon.s3.problems import cannot_be_done
from daemon.sources.claims import Claims
from daemon.sources.mover import numbered
from daemon.sources.s3_version import is_version, may_hold_the_same, object_version

QUIET_SECONDS = 5.0
NUMBER_BYTES = 8  # for the ~N of a name that is taken
LONGEST_KEY_BYTES = 1024


class Deletion(NamedTuple):
    """A deletion of this version, which may have hidden a newer one behind its marker."""

    bucket: Bucket
    key: str
    version: str
    marker: str


class S3Disposer:
    """Disposals of one prefix; see `Source.dispose`."""

    def __init__(
        self,
        place: Prefix,
        bucket: Bucket,
        age_seconds: Callable[[Mapping[str, Any]], float],
        claims: Claims,
        fault: Fault,
    ) -> None:
        self._place = place
        self._bucket = bucket
        self._age_seconds = age_seconds
        self._claims = claims
        self._fault = fault
        self._deletions: dict[int, Deletion] = {}  # by job, until it is known what they have hidden

    def where(self, job: Job) -> tuple[str, str]:
        """Bucket and key of the job's document, where it lies now."""
        if job.location is None:
            return self._place.bucket, self._place.key(job.source.decode("utf-8", "surrogateescape"))
        bucket, _, key = job.location.decode("utf-8", "surrogateescape").removeprefix("s3://").partition("/")
        return bucket, key

    def has_begun(self, job: Job) -> bool:
        """Whether a deletion for this job may have hidden a newer version."""
        return job.id in self._deletions

    def dispose(self, job: Job, disposal: Disposal) -> bytes | None:
        """Delete or move the document of a finished job; for a move returns where it lies now. Idempotent."""
        self._restore_newer(job)
        if disposal.action == "keep":
            raise SourceChanged("it is not to be disposed of any more")
        bucket_name, key = self.where(job)
        bucket = self._bucket.elsewhere(bucket_name)
        try:
            head = bucket.head(key)
        except SourceVanished:
            bucket.require()
            return self._already_gone(job, disposal)
        if not is_version(job, head.etag, head.size_bytes):
            raise SourceChanged("a newer version has taken the document's place")
        quiet = self._age_seconds(head.reply)
        if quiet < QUIET_SECONDS:
            raise NotYet("the document has just changed", QUIET_SECONDS - max(0.0, quiet))
        location = self._copy(bucket, key, head, job, disposal) if disposal.action == "move" else None
        if location is not None and location == job.location:
            return location  # it is there already
        self._fault("delete")
        self._delete(job, bucket, key, head)
        self._fault("deleted")
        return location

    def _delete(self, job: Job, bucket: Bucket, key: str, head: Head) -> None:
        try:
            marker = bucket.delete(key, head.etag)
        except SourceVanished:
            return
        except SourceChanged:
            if _look(bucket, key) is None:
                return  # the answer was lost, and the deletion asked for again
            raise
        version = head.reply.get("VersionId")
        if marker is not None and version is not None:
            self._deletions[job.id] = Deletion(bucket, key, version, marker)
            self._restore_newer(job)

    def _restore_newer(self, job: Job) -> None:
        """Bring back what the deletion for this job has hidden unless it is the version that was to be deleted."""
        if job.id not in self._deletions:
            return
        bucket, key, version, marker = self._deletions[job.id]
        newer = _newest(bucket, key) not in (None, version)
        if newer:
            with suppress(SourceVanished):  # it was removed before, and the answer lost
                bucket.remove_marker(key, marker)
        del self._deletions[job.id]
        if newer:
            raise SourceChanged("a newer version came while the document was deleted")

    def _already_gone(self, job: Job, disposal: Disposal) -> bytes | None:
        """This was done before, or somebody else did it."""
        if disposal.action != "move":
            return None
        target = Prefix.parse(disposal.target)
        with suppress(SourceVanished):
            for name in self._names(target, job):
                head = self._bucket.elsewhere(target.bucket).head(name)
                if may_be_copy(head, job):
                    return f"s3://{target.bucket}/{name}".encode("utf-8", "surrogateescape")
        raise SourceVanished("the document was removed by somebody else")

    def _copy(self, bucket: Bucket, key: str, head: Head, job: Job, disposal: Disposal) -> bytes:
        """Copy to the first free name, never over something else. A copy that a crash left is not made twice.

        Others may be about to take the same name. Those of this daemon are told by a claim, those elsewhere by the
        server, where it knows the condition; else they are left the moment between looking and copying.
        """
        target = Prefix.parse(disposal.target)
        elsewhere = self._bucket.elsewhere(target.bucket)
        for name in self._names(target, job):
            location = f"s3://{target.bucket}/{name}".encode("utf-8", "surrogateescape")
            if location == job.location:
                return location
            with self._claims.of(location):
                if self._take(elsewhere, name, job, bucket, key, head):
                    return location
        raise AssertionError("numbers do not end")

    def _take(self, elsewhere: Bucket, name: str, job: Job, bucket: Bucket, key: str, head: Head) -> bool:
        """Copy the document to this name if it is free; says whether the document lies there now."""
        there = _look(elsewhere, name)
        if there is None:
            self._fault("copy")
            try:
                bucket.copy(key, head.etag, head.size_bytes, elsewhere.name, name)
            except SourceChanged:
                # The document has changed, or the name is taken by now: by somebody else, or by this very copy, whose
                # answer was lost before it was asked for again. The server does not say which.
                there = _look(elsewhere, name)
                if there is None:
                    raise
            else:
                self._fault("copied")
                return True
        return self._is_copy(there, job, elsewhere, name, bucket, key, head)

    def _is_copy(
        self, there: Head, job: Job, elsewhere: Bucket, name: str, bucket: Bucket, key: str, head: Head
    ) -> bool:
        """Whether this is what a move of the document made before a crash. Where the etags cannot tell, the bytes do:
        what is taken for a copy is the only one left when the document is deleted."""
        if object_version(there.etag, there.size_bytes) == job.version:
            return True
        return may_be_copy(there, job) and elsewhere.holds_the_same(name, there.etag, bucket, key, head.etag)

    def _names(self, target: Prefix, job: Job) -> Any:
        """The keys to try, one after the other."""
        source, room = job.source, LONGEST_KEY_BYTES - NUMBER_BYTES - len(target.prefix.encode())
        if len(source) > room:  # the names that results of such a document have
            source = output_name(source, room).encode()
        folder, separator, name = source.rpartition(b"/")
        for number in numbered(name):
            relative = (folder + separator + number).decode("utf-8", "surrogateescape")
            yield target.key(relative)


def _newest(bucket: Bucket, key: str) -> str | None:
    """The newest version, hidden or not; None, too, where versions may not or cannot be listed: then the server's
    condition must do."""
    try:
        return bucket.newest_version(key)
    except TransientError as error:
        if not cannot_be_done(error):
            raise
    return None


def _look(bucket: Bucket, key: str) -> Head | None:
    """The object as it is now; None where there is none."""
    try:
        return bucket.head(key)
    except SourceVanished:
        return None


def may_be_copy(head: Head, job: Job) -> bool:
    """Whether this object is what a move of the job's document made: copying can change the etag of large ones."""
    version = object_version(head.etag, head.size_bytes)
    return version == job.version or may_hold_the_same(version, job.version)
