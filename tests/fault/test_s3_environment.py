"""Whatever is wrong with the way to a bucket pauses its watch alone, blames no document, and heals by itself."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from daemon.control import ask
from daemon.statedir import StateDir
from tests.fault.outcome import is_converter
from tests.fault_proxy import Fault, FaultProxy
from tests.harness import Daemon, children_of, until
from tests.servers import ACCESS_KEY, DAEMON_ACCESS_KEY, SECRET_KEY, Bucket

WRONG_SECRET = f"wrong-{uuid.uuid4().hex}"
SECRETS = (ACCESS_KEY, DAEMON_ACCESS_KEY, SECRET_KEY, WRONG_SECRET)
DOCUMENTS = 6
HEAD = """
state_dir = "state"
workers = 2
[log]
level = "debug"
[retry]
attempts = 3
backoff = ["50ms"]
"""
FOLDER_WATCH = """
[[watch]]
name = "folder"
source = "inbox"
sink = "outbox"
"""
WATCH = """
[[watch]]
name = "{name}"
source = "s3://{bucket}/{name}/in/"
sink = "s3://{bucket}/{name}/out/"
poll_interval = "100ms"
[watch.s3]
endpoint_url = "{endpoint_url}"
connect_timeout = "2s"
read_timeout = "1s"
{more}
"""


@dataclass
class Sickness:
    """A watch whose way to its bucket is barred, what `status` must say of it, and what mends it."""

    name: str
    endpoint_url: str
    says: str
    mend: Callable[[], Any] | None = None
    bucket: str = ""
    more: str = ""
    documents: list[str] = field(default_factory=list)

    def watch(self) -> str:
        where = {"name": self.name, "bucket": self.bucket, "endpoint_url": self.endpoint_url}
        return WATCH.format(more=self.more, **where)


class Ward:
    """A daemon whose watches are sick, each in its own way, but for one."""

    def __init__(self, folder: Path, bucket: Bucket, stack: ExitStack) -> None:
        self.folder = folder
        self.bucket = bucket
        self.stack = stack
        self.sick: list[Sickness] = []

    def behind_proxy(self, name: str, says: str, **fault: Any) -> FaultProxy:
        """Every request meets this fault, until the proxy is cleared."""
        proxy = self.stack.enter_context(FaultProxy(self.bucket.server.endpoint_url))
        proxy.inject(Fault(times=None, **fault))
        self.add(name, says, proxy.clear, endpoint_url=proxy.url)
        return proxy

    def with_credentials(self, name: str, says: str, content: str | None) -> None:
        """A file with credentials that are of no use, though the environment has better ones."""
        path = self.folder / f"{name}.credentials"
        right = f"[default]\naws_access_key_id={DAEMON_ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n"
        if content is not None:
            path.write_text(content)
        self.add(name, says, lambda: path.write_text(right), more=f'credentials_file = "{path}"')

    def add(self, name: str, says: str, mend: Callable[[], Any] | None = None, **how: Any) -> None:
        where = {"endpoint_url": self.bucket.server.endpoint_url, "bucket": self.bucket.name}
        self.sick.append(Sickness(name, says=says, mend=mend, **{**where, **how}))

    def daemon(self, engines: str = "") -> Daemon:
        config = HEAD + engines + FOLDER_WATCH + "".join(sickness.watch() for sickness in self.sick)
        daemon = Daemon(self.folder, config, env=self.bucket.server.env())
        self.stack.callback(daemon.close)
        return daemon


@pytest.fixture
def ward(tmp_path: Path, bucket: Bucket) -> Iterator[Ward]:
    with ExitStack() as stack:
        yield Ward(tmp_path, bucket, stack)


def conditions(daemon: Daemon) -> dict[str, tuple[str, str | None]]:
    """What the daemon says of its watches. Faster than `convertd status`, which shows the same."""
    watches = ask(StateDir(str(daemon.state)).socket, "status")["watches"]
    return {name: (watch["state"], watch["error"]) for name, watch in watches.items()}


def all_paused(daemon: Daemon, ward: Ward) -> dict[str, str]:
    """Wait until every sick watch is paused; what `status` says of each."""
    names = [sickness.name for sickness in ward.sick]

    def paused() -> dict[str, str] | None:
        now = conditions(daemon)
        return {name: str(now[name][1]) for name in names} if all(now[name][0] == "paused" for name in names) else None

    found: dict[str, str] = until(paused, f"all are paused but {conditions(daemon)}")
    return found


def converted(daemon: Daemon) -> list[str]:
    """The watch of each completed job."""
    rows = daemon.rows("SELECT name FROM jobs JOIN watches ON watches.id = watch WHERE state = 'completed'")
    return [str(name) for (name,) in rows]


def nothing_blamed(daemon: Daemon) -> None:
    """No document has failed, gone or lost an attempt."""
    for job in daemon.jobs():
        assert job["state"] in ("pending", "processing", "completed"), job
        assert job["state"] == "completed" or job["attempts"] == 0, job


def test_every_sickness_at_once(ward: Ward, bucket: Bucket) -> None:
    server = bucket.server.endpoint_url
    ward.with_credentials("absent", "no usable credentials", None)
    ward.with_credentials("empty", "no usable credentials: Unable to locate credentials", "[default]\nregion=x\n")
    wrong = f"[default]\naws_access_key_id={DAEMON_ACCESS_KEY}\naws_secret_access_key={WRONG_SECRET}\n"
    ward.with_credentials("wrong", "SignatureDoesNotMatch.*Renew or correct the credentials", wrong)
    missing = f"{bucket.name}-later"
    ward.add(
        "missing", "NoSuchBucket.*Check bucket", lambda: bucket.client.create_bucket(Bucket=missing), bucket=missing
    )
    ward.stack.callback(Bucket(missing, bucket.server, bucket.client).drop)
    ward.behind_proxy("forbidden", "AccessDenied.*policy allows", kind="status", status=403, code="AccessDenied")
    ward.behind_proxy("skewed", "timedatectl", kind="status", status=403, code="RequestTimeTooSkewed")
    ward.behind_proxy("throttled", "throttled.*Nothing is lost", kind="status", status=503, code="SlowDown")
    ward.behind_proxy("broken", "InternalError", kind="status", status=500, code="InternalError")
    ward.behind_proxy("down", "connection failed.*endpoint_url", kind="refuse")
    ward.behind_proxy("silent", "connection failed.*endpoint_url", kind="stall_before_headers")
    ward.add("dns", "nonexistent.invalid.*name resolution", endpoint_url="http://nonexistent.invalid")
    ward.add("tls", "TLS failed.*ca_bundle", endpoint_url=server.replace("http://", "https://"))
    for sickness in ward.sick:
        if sickness.bucket == bucket.name:
            bucket.put(f"{sickness.name}/in/a.txt", b"words of a")
    daemon = ward.daemon().start()

    said = all_paused(daemon, ward)
    for sickness in ward.sick:
        assert re.search(sickness.says, said[sickness.name]), (sickness.name, said[sickness.name])
        assert "Traceback" not in said[sickness.name] and "botocore" not in said[sickness.name]
    daemon.drop("well.txt", b"words of the well")
    assert daemon.outcome("well.txt") == "converted"
    assert conditions(daemon)["folder"] == ("running", None)
    nothing_blamed(daemon)
    assert "is paused" in daemon.command("why", f"s3://{bucket.name}/down/in/a.txt").stdout
    shown = {watch["name"]: watch["state"] for watch in daemon.status()["watches"] if watch["error"]}
    assert shown == dict.fromkeys(said, "paused")
    tells_no_secret(daemon, bucket)

    for sickness in ward.sick:
        if sickness.mend is not None:
            sickness.mend()
    Bucket(missing, bucket.server, bucket.client).put("missing/in/a.txt", b"words of a")
    mended = {sickness.name for sickness in ward.sick if sickness.mend is not None}
    until(lambda: set(converted(daemon)) == {*mended, "folder"}, "the mended watches have converted their documents")
    until(lambda: all(conditions(daemon)[name] == ("running", None) for name in mended), "they are running again")
    assert {conditions(daemon)[name][0] for name in ("dns", "tls")} == {"paused"}
    jobs = daemon.jobs()
    assert {(job["state"], job["attempts"]) for job in jobs} == {("completed", 1)}
    assert len(jobs) == len(mended) + 1
    assert not [key for key in bucket.keys("") if key.endswith(".error.json")]
    tells_no_secret(daemon, bucket)
    assert daemon.stop() == 0


def test_sicknesses_that_strike_while_documents_are_converted(ward: Ward, bucket: Bucket) -> None:
    faults: dict[str, dict[str, Any]] = {
        "forbidden": {"kind": "status", "status": 403, "code": "AccessDenied"},
        "throttled": {"kind": "status", "status": 503, "code": "SlowDown"},
        "broken": {"kind": "status", "status": 500, "code": "InternalError"},
        "down": {"kind": "refuse"},
    }
    proxies = {}
    for name, fault in faults.items():
        proxies[name] = ward.behind_proxy(name, "", **fault)
        proxies[name].clear()
        for number in range(DOCUMENTS):
            bucket.put(f"{name}/in/{number}.txt", b"the river takes 0.1")
    daemon = ward.daemon('[engines]\ntext = ["tests.engines_for_tests:Slow"]\n').start()
    until(lambda: len(converted(daemon)) >= 3, "conversions have begun")
    for name, fault in faults.items():
        proxies[name].inject(Fault(times=None, **fault))
    all_paused(daemon, ward)
    nothing_blamed(daemon)
    daemon.drop("well.txt", b"the river takes 0")
    assert daemon.outcome("well.txt") == "converted"
    for proxy in proxies.values():
        proxy.clear()
    until(lambda: len(converted(daemon)) == DOCUMENTS * len(faults) + 1, "all are converted")
    jobs = daemon.jobs()
    assert {job["state"] for job in jobs} == {"completed"}
    # Who fails in the very moment of the mending finds the surroundings well when it looks: that is an attempt.
    assert max(job["attempts"] for job in jobs) <= 2
    assert len(jobs) == DOCUMENTS * len(faults) + 1
    assert not [key for key in bucket.keys("") if key.endswith(".error.json")]
    assert daemon.stop() == 0


def test_one_object_that_may_not_be_read_fails_and_the_others_go_on(ward: Ward, bucket: Bucket) -> None:
    """Nothing is wrong with the surroundings when only one document is refused."""
    proxy = ward.behind_proxy(
        "box", "", kind="status", method="GET", path=r"/in/secret\.txt", status=403, code="AccessDenied"
    )
    for name in ("secret", "a", "b", "c"):
        bucket.put(f"box/in/{name}.txt", b"words of " + name.encode())
    daemon = ward.daemon().start()
    until(lambda: bucket.get("box/out/secret.txt.error.json"), "the refused document fails")
    error = json.loads(bucket.get("box/out/secret.txt.error.json") or b"")
    assert (error["kind"], error["attempts"]) == ("unreadable", 3)
    assert "s3:GetObject" in error["hint"]
    until(lambda: len(converted(daemon)) == 3, "the others are converted")
    assert conditions(daemon)["box"] == ("running", None)
    assert proxy.requests("GET", "secret")
    tells_no_secret(daemon, bucket)
    assert daemon.stop() == 0


def tells_no_secret(daemon: Daemon, bucket: Bucket) -> None:
    """Neither files nor commands nor converters know of a credential."""
    shown = {
        "status": daemon.command("status").stdout + daemon.command("status", "--json").stdout,
        "jobs": daemon.command("jobs").stdout + daemon.command("jobs", "--json").stdout,
        "log": daemon.log.read_text(),
    }
    for path in [*daemon.state.rglob("*"), *daemon.outbox.rglob("*")]:
        if path.is_file():
            shown[str(path)] = path.read_bytes().decode("latin-1")
    for key in bucket.keys(""):
        shown[key] = (bucket.get(key) or b"").decode("latin-1")
    assert daemon.process is not None
    converters = [pid for pid in descendants(daemon.process.pid) if is_converter(pid)]
    assert converters
    for pid in converters:
        shown[f"environment of {pid}"] = environment_of(pid)
    for what, content in shown.items():
        assert not [secret for secret in SECRETS if secret in content], f"{what} tells a credential"


def descendants(pid: int) -> list[int]:
    children = children_of(pid)
    return [*children, *(below for child in children for below in descendants(child))]


def environment_of(pid: int) -> str:
    """What its first memory shows of the environment; nothing where nobody may look."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode("latin-1")
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return ""
