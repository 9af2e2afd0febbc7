"""What `doctor` finds out about buckets and queues, with real servers and with one that misbehaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from daemon.checks import remote
from daemon.checks.base import Finding, Level, Stopping
from daemon.s3 import trial
from daemon.settings import Watch
from daemon.words import Disposal
from tests.fault_proxy import Fault, FaultProxy
from tests.servers import Bucket, S3Server, queue_for, s3_settings

DELETE = Disposal("delete")


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.endpoint_url) as proxy:
        yield proxy


def watch(bucket: Bucket, folder: Path, *, endpoint_url: str | None = None, **more: Any) -> Watch:
    settings = s3_settings(bucket.server, folder, region="us-east-1", connect_timeout_seconds=1.0)
    if endpoint_url is not None:
        settings = settings._replace(endpoint_url=endpoint_url)
    places = {"source": f"s3://{bucket.name}/in/", "sink": f"s3://{bucket.name}/out/"}
    return Watch(**{"name": "bucket", **places, "s3": settings, **more})


def check(watch: Watch) -> list[Finding]:
    return list(remote.check_remote(watch, Stopping()))


def levels(findings: list[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


def text(findings: list[Finding]) -> str:
    return "\n".join(f"{finding.what} → {finding.remedy}" for finding in findings)


def is_conditional(headers: Mapping[str, str]) -> bool:
    return "if-none-match" in headers or "if-match" in headers


def test_a_round_trip_leaves_nothing(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("in/a.pdf", b"words")
    found = check(watch(bucket, tmp_path))
    assert levels(found) == [Level.OK, Level.OK], text(found)
    assert "listed, and a byte read" in found[0].what
    assert bucket.keys() == ["in/a.pdf"]


def test_an_empty_prefix_is_listed_only(bucket: Bucket, tmp_path: Path) -> None:
    assert "nothing in it to be read" in check(watch(bucket, tmp_path))[0].what


def test_a_source_that_is_kept_is_only_read(bucket: Bucket, tmp_path: Path, proxy: FaultProxy) -> None:
    bucket.put("in/a.pdf", b"words")
    check(watch(bucket, tmp_path, sink=str(tmp_path), endpoint_url=proxy.url))
    assert {request.method for request in proxy.seen} <= {"GET", "HEAD"}


def test_a_disposed_source_is_written_to_and_left_as_it_was(bucket: Bucket, tmp_path: Path) -> None:
    found = check(watch(bucket, tmp_path, sink=str(tmp_path), on_success=DELETE))
    assert levels(found) == [Level.OK, Level.OK], text(found)
    assert "only deleted if it is still the one" in found[1].what or "versions are kept" in found[1].what
    assert bucket.keys() == []


def test_a_race_that_remains_is_told_plainly(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a server that ignores the condition and keeps no versions."""
    neither = trial.Abilities(conditional_put=False, conditional_delete=False, versions=False, left=False)
    monkeypatch.setattr(trial, "write", lambda *_: neither)
    found = check(watch(bucket, tmp_path, on_success=DELETE))
    assert levels(found) == [Level.OK, Level.WARNING, Level.OK, Level.WARNING]
    assert "that race remains" in found[1].what and "put-bucket-versioning" in found[1].remedy
    assert "no conditional writes" in found[3].what


def test_versions_are_used_where_there_are_any(moto_bucket: Bucket, tmp_path: Path) -> None:
    moto_bucket.client.put_bucket_versioning(Bucket=moto_bucket.name, VersioningConfiguration={"Status": "Enabled"})
    found = check(watch(moto_bucket, tmp_path, on_success=DELETE))
    assert Level.PROBLEM not in levels(found), text(found)
    left = moto_bucket.client.list_object_versions(Bucket=moto_bucket.name)
    assert not left.get("Versions") and not left.get("DeleteMarkers"), "no version of a canary stays"


@pytest.mark.parametrize(
    ("fault", "said", "remedy"),
    [
        (Fault("status", status=403, code="AccessDenied", method="PUT", times=None), "AccessDenied", "s3:PutObject"),
        (Fault("status", status=403, code="AccessDenied", method="DELETE", times=None), "AccessDenied", "s3:Delete"),
        (Fault("status", status=403, code="AccessDenied", path="list-type", times=None), "AccessDenied", "s3:List"),
        (Fault("status", status=403, code="RequestTimeTooSkewed", times=None), "RequestTimeTooSkewed", "timedatectl"),
        (Fault("refuse", times=None), "connection failed", "endpoint_url"),
    ],
)
def test_what_the_server_refuses_is_a_problem_with_its_remedy(
    bucket: Bucket, tmp_path: Path, proxy: FaultProxy, fault: Fault, said: str, remedy: str
) -> None:
    proxy.inject(fault)
    found = check(watch(bucket, tmp_path, endpoint_url=proxy.url))
    problems = [finding for finding in found if finding.level is Level.PROBLEM]
    assert problems, text(found)
    assert said in problems[0].what and remedy in problems[0].remedy
    left = bucket.keys()
    assert bool(left) == (fault.method == "DELETE"), "only where nothing may be deleted can something be left"
    assert all(f"aws s3 rm s3://{bucket.name}/{key}" in text(found) for key in left)


def test_a_server_without_conditions_is_found_out(bucket: Bucket, tmp_path: Path, proxy: FaultProxy) -> None:
    proxy.inject(Fault("status", status=501, code="NotImplemented", headers=is_conditional, times=None))
    found = check(watch(bucket, tmp_path, endpoint_url=proxy.url, on_success=DELETE))
    assert "that race remains" in text(found) and "no conditional writes" in text(found)
    assert bucket.keys() == []


def test_a_bucket_that_is_not_there(bucket: Bucket, tmp_path: Path) -> None:
    found = check(watch(bucket, tmp_path, source="s3://no-such-bucket-1/", sink="s3://no-such-bucket-2/"))
    assert levels(found) == [Level.PROBLEM, Level.PROBLEM], text(found)
    assert all(finding.remedy for finding in found)


@pytest.mark.parametrize(("seconds", "level"), [(30, None), (-70, Level.WARNING), (1000, Level.PROBLEM)])
def test_a_server_s_clock(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, level: Level | None
) -> None:
    monkeypatch.setattr(trial, "read", lambda *_: trial.Reading(True, seconds))
    found = check(watch(bucket, tmp_path))
    told = [finding for finding in found if "clock" in finding.what]
    assert [finding.level for finding in told] == ([level] if level else [])


def test_a_queue_and_what_it_lacks(moto_bucket: Bucket, tmp_path: Path) -> None:
    with queue_for(moto_bucket, prefix="in/") as queue:
        before = queue.counts()
        name = queue.url.rsplit("/", 1)[1]
        found = check(watch(moto_bucket, tmp_path, source=f"sqs://{name}", prefix=f"s3://{moto_bucket.name}/in/"))
        assert found[0].level is Level.OK and "messages wait" in found[0].what
        assert found[1].level is Level.WARNING and "dead-letter queue" in found[1].what
        assert queue.counts() == before, "no message was taken"
    with queue_for(moto_bucket, prefix="in/", max_receive_count=5) as queue:
        name = queue.url.rsplit("/", 1)[1]
        found = check(watch(moto_bucket, tmp_path, source=f"sqs://{name}", prefix=f"s3://{moto_bucket.name}/in/"))
        assert "dead-letter" not in text(found)


def test_a_queue_that_is_not_there(moto_bucket: Bucket, tmp_path: Path) -> None:
    found = check(watch(moto_bucket, tmp_path, source="sqs://no-such-queue", prefix=f"s3://{moto_bucket.name}/in/"))
    assert found[0].level is Level.PROBLEM and "no-such-queue" in found[0].what and found[0].remedy
    assert found[1].level is Level.OK, "the bucket is looked at all the same"
