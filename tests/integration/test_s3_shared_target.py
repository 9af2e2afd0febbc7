"""Several watches, of one daemon or of many, that move documents of one name to one prefix: none is lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.buckets import Prefix
from daemon.errors import NotYet, SourceChanged
from daemon.model import Candidate, Disposal, Job
from daemon.payload import Payloads
from daemon.s3.clients import Clients
from daemon.sources.base import Surroundings
from daemon.sources.s3 import S3Source
from daemon.sources.s3_version import object_version
from tests.fault_proxy import Fault, FaultProxy
from tests.servers import Bucket, S3Server, s3_settings
from tests.watching import Everything, job_for

SALES, HR = b"what was sold", b"who was paid what"


class Watch:
    """A prefix with a report.pdf that is to be moved to done/."""

    def __init__(
        self, bucket: Bucket, folder: Path, prefix: str, content: bytes, surroundings: Surroundings, url: str = ""
    ) -> None:
        etag = bucket.put(f"{prefix}report.pdf", content).strip('"')
        self._target = f"s3://{bucket.name}/done/"
        self._job: Job = job_for(Candidate(b"report.pdf", object_version(etag, len(content)), len(content)))
        self._source = S3Source(
            Prefix(bucket.name, prefix),
            s3_settings(S3Server(url or bucket.server.endpoint_url), folder),
            Everything(),
            surroundings,
            age_seconds=lambda reply: 10.0,
        )

    def move(self) -> str:
        """Returns the name that the document has now."""
        location = self._source.dispose(self._job, Disposal("move", self._target))
        assert location is not None
        return location.decode().removeprefix(self._target)


def daemon() -> Surroundings:
    return Surroundings(Payloads("", 0, 0), Clients(4))


def at_the_copy(surroundings: Surroundings, act: Callable[[], object]) -> Surroundings:
    """Something happens once a name has been found free."""

    def fault(label: str) -> None:
        if label == "copy":
            act()

    return replace(surroundings, fault=fault)


def contents(bucket: Bucket) -> dict[str, bytes | None]:
    return {key: bucket.get(key) for key in bucket.keys("")}


def test_watches_of_one_daemon_take_different_names(tmp_path: Path, moto_bucket: Bucket) -> None:
    """Whatever the server: this one copies over what is there."""
    ours = daemon()
    hr = Watch(moto_bucket, tmp_path, "hr/", HR, ours)

    def meanwhile() -> None:
        with suppress(NotYet):
            hr.move()

    sales = Watch(moto_bucket, tmp_path, "sales/", SALES, at_the_copy(ours, meanwhile))
    assert sales.move() == "report.pdf"
    assert hr.move() == "report~1.pdf"
    assert contents(moto_bucket) == {"done/report.pdf": SALES, "done/report~1.pdf": HR}


def test_two_daemons_take_different_names(tmp_path: Path, bucket: Bucket) -> None:
    """The server sees to it."""
    hr = Watch(bucket, tmp_path, "hr/", HR, daemon())
    sales = Watch(bucket, tmp_path, "sales/", SALES, at_the_copy(daemon(), hr.move))
    assert sales.move() == "report~1.pdf"
    assert contents(bucket) == {"done/report.pdf": HR, "done/report~1.pdf": SALES}


@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument"), (400, "InvalidRequest")]
)
def test_a_server_that_refuses_the_condition_copies_without(
    tmp_path: Path, bucket: Bucket, status: int, code: str
) -> None:
    with FaultProxy(bucket.server.endpoint_url) as proxy:
        refused = proxy.inject(
            Fault(
                "status",
                method="PUT",
                headers=lambda headers: "if-none-match" in headers,
                times=None,
                status=status,
                code=code,
            )
        )
        assert Watch(bucket, tmp_path, "sales/", SALES, daemon(), proxy.url).move() == "report.pdf"
    assert refused.count == 1
    assert contents(bucket) == {"done/report.pdf": SALES}


def test_a_document_that_changes_at_the_last_moment_is_not_moved(tmp_path: Path, bucket: Bucket) -> None:
    """The server's answer is that of a name that is taken."""
    sales = Watch(bucket, tmp_path, "sales/", SALES, at_the_copy(daemon(), lambda: bucket.put("sales/report.pdf", HR)))
    with pytest.raises(SourceChanged):
        sales.move()
    assert contents(bucket) == {"sales/report.pdf": HR}
