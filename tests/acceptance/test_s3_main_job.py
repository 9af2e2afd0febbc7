"""The main job with buckets as sources and sinks: what comes out is what comes out of folders."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from daemon import __version__
from daemon.buckets import Prefix
from daemon.errors import SourceChanged, TransientError
from daemon.model import Candidate, Disposal, Job
from daemon.payload import Payloads
from daemon.s3 import clients as s3_clients
from daemon.s3.clients import Clients
from daemon.sources.base import Surroundings
from daemon.sources.s3 import S3Source
from daemon.sources.s3_version import object_version
from tests import documents, servers
from tests.fault_proxy import Fault, FaultProxy
from tests.harness import Daemon, running, until
from tests.servers import Bucket, S3Server
from tests.watching import Everything, job_for

DOCUMENTS = {
    "report.pdf": documents.pdf(["a page of words", "another page"], title="Report"),
    "sub/letter.docx": documents.docx("dear reader"),
    "sub/deep/er/table.xlsx": documents.xlsx([["what", "how many"], ["rivers", "7"]]),
    "slides.pptx": documents.pptx(["one slide", "another slide"]),
    "page.html": documents.html("a page of the web"),
    "book.epub": documents.epub(["chapter one", "chapter two"]),
    "mail.eml": documents.eml("a letter by mail"),
    "ünï c+dé & 100%41.md": b"# Rivers\n\nThey flow.\n",
    "notes.txt": "plain words, schöne Wörter\n".encode(),
    "blank.txt": b" \n",
    "empty.txt": b"",
    "locked.pdf": documents.encrypted_pdf(),
}
DIFFERENT = ("source", "version", "attempts", "discovered_at", "started_at", "finished_at", "convert_seconds")
DIFFERENT_ERRORS = ("source", "version", "attempts", "failed_at", "retry_command")
MIB = 1 << 20


def watch(name: str, source: object, sink: object, endpoint_url: str, more: str = "") -> str:
    return f"""
[[watch]]
name = "{name}"
source = "{source}"
sink = "{sink}"
poll_interval = "100ms"
{more}
[watch.s3]
endpoint_url = "{endpoint_url}"
"""


def configuration(*watches: str, limits: str = "", workers: int = 1) -> str:
    return f'state_dir = "state"\nworkers = {workers}\n{limits}\n{"".join(watches)}'


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def objects_in(bucket: Bucket, prefix: str) -> dict[str, bytes]:
    return {key.removeprefix(prefix): bucket.get(key) or b"" for key in bucket.keys(prefix)}


def told(outputs: Mapping[str, bytes]) -> dict[str, Any]:
    """Outputs as they must be, wherever the documents came from and whenever."""

    def what(name: str, content: bytes) -> Any:
        if not name.endswith(".json"):
            return content
        different = DIFFERENT_ERRORS if name.endswith(".error.json") else DIFFERENT
        return {key: value for key, value in json.loads(content).items() if key not in different}

    return {name: what(name, content) for name, content in outputs.items()}


def settled(daemon: Daemon, completed: int, failed: int) -> None:
    """Wait until no job is left to do. Asks the job table itself: the command takes time that the daemon needs."""
    wanted = {"completed": completed, "failed": failed}
    until(lambda: counts(daemon) == {state: count for state, count in wanted.items() if count}, str(wanted))


def counts(daemon: Daemon) -> dict[str, int]:
    return {
        str(state): int(count)
        for state, count in daemon.rows("SELECT state, count(*) FROM jobs WHERE state <> 'vanished' GROUP BY state")
    }


# ---------------------------------------------------------------- from here to there


@pytest.fixture(scope="module")
def of_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a folder watch makes of the documents."""
    daemon = Daemon(tmp_path_factory.mktemp("folders"))
    for name, content in DOCUMENTS.items():
        daemon.drop(name, content)
    assert daemon.once() == 1
    return told(files_in(daemon.outbox))


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A way to the server that remembers what is asked for."""
    with FaultProxy(s3_server.endpoint_url) as one:
        yield one


@pytest.mark.parametrize(("source", "sink"), [("s3", "s3"), ("s3", "folder"), ("folder", "s3")])
def test_outputs_are_those_of_a_folder_and_nothing_is_converted_twice(
    tmp_path: Path, bucket: Bucket, proxy: FaultProxy, of_folders: dict[str, Any], source: str, sink: str
) -> None:
    places = {"s3": (f"s3://{bucket.name}/in/", f"s3://{bucket.name}/out"), "folder": ("inbox", "outbox")}
    config = configuration(watch("box", places[source][0], places[sink][1], proxy.url))
    daemon = Daemon(tmp_path, config, env=bucket.server.env())
    for name, content in DOCUMENTS.items():
        bucket.put(f"in/{name}", content) if source == "s3" else daemon.drop(name, content)
    bucket.put("in/sub/", b"")  # what some tools put where a folder would be
    bucket.put("input.txt", b"beside the prefix")

    def outputs() -> dict[str, bytes]:
        return objects_in(bucket, "out/") if sink == "s3" else files_in(daemon.outbox)

    assert daemon.once() == 1
    first, jobs = outputs(), daemon.jobs()
    assert told(first) == of_folders
    assert sorted(job["source"] for job in jobs) == sorted(DOCUMENTS)
    if source == "s3":
        version = json.loads(first["notes.txt.json"])["version"]
        assert version == f"{len(DOCUMENTS['notes.txt'])}-{hashlib.md5(DOCUMENTS['notes.txt']).hexdigest()}"
    assert not list((daemon.state / "spool").iterdir())

    seen = len(proxy.requests())
    assert daemon.once() == 0
    assert daemon.jobs() == jobs
    assert outputs() == first
    assert [one for one in proxy.requests()[seen:] if "list-type=2" not in one.path and "uploads" not in one.path] == []


def test_results_carry_their_type_and_where_they_are_from(tmp_path: Path, bucket: Bucket) -> None:
    config = configuration(
        watch("box", f"s3://{bucket.name}/in", f"s3://{bucket.name}/out", bucket.server.endpoint_url)
    )
    etag = bucket.put("in/a/ü b.txt", b"words").strip('"')
    bucket.put("in/a/empty.txt", b"")
    assert Daemon(tmp_path, config, env=bucket.server.env()).once() == 1

    def about(name: str) -> tuple[str, dict[str, str]]:
        head = bucket.client.head_object(Bucket=bucket.name, Key=f"out/a/{name}")
        return head["ContentType"], head["Metadata"]

    metadata = {"convertd-version": __version__, "source": "a/%C3%BC%20b.txt", "source-version": f"5-{etag}"}
    assert about("ü b.txt.md") == ("text/markdown; charset=utf-8", metadata)
    assert about("ü b.txt.json") == ("application/json", metadata)
    content_type, metadata = about("empty.txt.error.json")
    assert (content_type, metadata["source"]) == ("application/json", "a/empty.txt")


def test_large_documents_arrive_whole_in_memory_and_by_the_spool(tmp_path: Path, bucket: Bucket) -> None:
    limits = '[limits]\nin_flight = "48MiB"\nspool_above = "40MiB"\n'
    here = configuration(watch("box", f"s3://{bucket.name}/in", "outbox", bucket.server.endpoint_url), limits=limits)
    large = {"memory.txt": text_of(33 * MIB), "spool.txt": text_of(41 * MIB)}
    for name, content in large.items():
        bucket.put(f"in/{name}", content)
    daemon = Daemon(tmp_path, here, env=bucket.server.env())
    assert daemon.once() == 0, daemon.log.read_text()[-3000:]
    for name, content in large.items():
        sidecar = json.loads((daemon.outbox / f"{name}.json").read_bytes())
        assert sidecar["sha256"] == hashlib.sha256(content).hexdigest()
        assert sidecar["size_bytes"] == len(content)
        assert daemon.markdown(name).read_bytes().strip() == content.strip()
    assert not list((daemon.state / "spool").iterdir())


def text_of(size_bytes: int) -> bytes:
    """Lines that all differ, so that no part of it can stand for another."""
    chance = random.Random(size_bytes)
    line = b" ".join(b"%x" % chance.getrandbits(64) for _ in range(200))
    lines = (b"%d %b\n" % (number, line) for number in range(size_bytes // len(line) + 1))
    return b"".join(lines)[:size_bytes]


# ---------------------------------------------------------------- as time goes by


def test_what_comes_changes_and_goes(tmp_path: Path, bucket: Bucket) -> None:
    source = f"s3://{bucket.name}/in/"
    rules = 'include = ["**/*.txt", "**/*.pdf"]\nexclude = ["drafts/"]'
    config = configuration(watch("box", source, f"s3://{bucket.name}/out/", bucket.server.endpoint_url, rules))
    with running(tmp_path, config, env=bucket.server.env()) as daemon:

        def output(name: str) -> Callable[[], bytes | None]:
            return partial(bucket.get, f"out/{name}")

        def why(key: str) -> str:
            result = daemon.command("why", source + key)
            assert result.returncode == 0, result.stderr
            return str(result.stdout)

        for name, content in {"note.txt": b"first words", "gone.txt": b"soon gone", "empty.txt": b""}.items():
            bucket.put(f"in/{name}", content)
        for name in ("drafts/a.txt", "b.doc", ".hidden.txt", "upload.txt.part"):
            bucket.put(f"in/{name}", b"words")
        bucket.put("in/locked.pdf", documents.encrypted_pdf())
        settled(daemon, 2, 2)
        assert sorted(bucket.keys("out/")) == [
            "out/empty.txt.error.json",
            *("out/gone.txt.json", "out/gone.txt.md"),
            "out/locked.pdf.error.json",
            *("out/note.txt.json", "out/note.txt.md"),
        ]
        assert json.loads(output("empty.txt.error.json")() or b"")["kind"] == "empty"
        assert json.loads(output("locked.pdf.error.json")() or b"")["kind"] == "encrypted"

        bucket.delete("in/gone.txt")
        bucket.put("in/note.txt", b"other words")
        bucket.put("in/locked.pdf", documents.pdf(["open words"]))
        until(lambda: b"open words" in (output("locked.pdf.md")() or b""), "the mended document is converted")
        settled(daemon, 4, 2)
        assert (output("note.txt.md")() or b"").strip() == b"other words"
        assert output("locked.pdf.error.json")() is None
        assert (output("gone.txt.md")() or b"").strip() == b"soon gone"
        assert [job["state"] for job in daemon.jobs() if job["source"] == "gone.txt"] == ["completed"]

        bucket.put("in/locked.pdf", documents.encrypted_pdf())
        settled(daemon, 4, 3)
        assert "earlier version" in json.loads(output("locked.pdf.error.json")() or b"")["message"]
        assert b"open words" in (output("locked.pdf.md")() or b"")

        [shown] = daemon.status()["watches"]
        assert (shown["source"], shown["state"]) == (source, "running")
        assert "completed" in why("note.txt")
        assert f"output s3://{bucket.name}/out/note.txt.md" in why("note.txt")
        assert "empty" in why("empty.txt")
        assert 'exclude has "drafts/"' in why("drafts/a.txt")
        assert "no pattern of include matches" in why("b.doc")
        assert ".part" in why("upload.txt.part")
        assert "not there now" in why("gone.txt")
        assert "never queued" in why("absent.txt")
        assert daemon.command("why", f"s3://{bucket.name}/elsewhere/a.txt").returncode == 2
        assert daemon.stop() == 0


def test_a_document_deleted_before_its_turn_is_no_error(tmp_path: Path, bucket: Bucket) -> None:
    """It was listed and is gone when it is to be read."""
    engines = '[engines]\ntext = ["tests.engines_for_tests:Slow"]\n'
    here = watch("box", f"s3://{bucket.name}/in", f"s3://{bucket.name}/out", bucket.server.endpoint_url)
    for number in range(24):
        bucket.put(f"in/{number:02}.txt", b"the river takes 0.4")
    with running(tmp_path, configuration(here, limits=engines, workers=2), env=bucket.server.env()) as daemon:
        until(lambda: sum(counts(daemon).values()) == 24, "all are queued")
        pending = [job["source"] for job in daemon.jobs("--state", "pending")][:6]
        for name in pending:
            bucket.delete(f"in/{name}")
        until(lambda: not {"pending", "processing"} & counts(daemon).keys(), "all have their turn")
        assert daemon.stop() == 0
    states = {job["source"]: job["state"] for job in daemon.jobs()}
    assert {state for name, state in states.items() if name not in pending} <= {"completed", "pending"}
    assert "vanished" in {states[name] for name in pending}
    assert {states[name] for name in pending} <= {"vanished", "completed"}
    assert not [key for key in bucket.keys("out/") if key.endswith(".error.json")]


# ---------------------------------------------------------------- what becomes of the source


def test_sources_are_deleted_and_moved(tmp_path: Path, bucket: Bucket) -> None:
    with servers.new_bucket(bucket.server) as other:
        deleting = 'on_success = "delete"\n' + f'on_failure = "move:s3://{bucket.name}/bad"'
        moving = f'on_success = "move:s3://{other.name}/done/"'
        at, end = f"s3://{bucket.name}", bucket.server.endpoint_url
        config = configuration(
            watch("delete", f"{at}/a", f"{at}/out-a", end, deleting),
            watch("move", f"{at}/b", f"{at}/out-b", end, moving),
        )
        locked = documents.encrypted_pdf()
        with running(tmp_path, config, env=bucket.server.env()) as daemon:
            bucket.put("a/sub/good.txt", b"good words")
            bucket.put("a/locked.pdf", locked)
            bucket.put("b/sub/note.txt", b"the first")
            until(lambda: not bucket.keys("a/") + bucket.keys("b/"), "all sources are disposed of")
            assert objects_in(bucket, "bad/") == {"locked.pdf": locked}
            assert objects_in(other, "done/") == {"sub/note.txt": b"the first"}
            settled(daemon, 2, 1)

            bucket.put("a/sub/good.txt", b"good words")  # the same bytes again are a new document
            bucket.put("b/sub/note.txt", b"the other")  # and another with the name of one that was moved
            until(lambda: not bucket.keys("a/") + bucket.keys("b/"), "all sources are disposed of again")
            settled(daemon, 4, 1)
            assert objects_in(other, "done/") == {"sub/note.txt": b"the first", "sub/note~1.txt": b"the other"}
            assert bucket.keys("out-a/") == ["out-a/locked.pdf.error.json", *both("out-a/sub/good.txt")]
            assert bucket.keys("out-b/") == both("out-b/sub/note.txt")

            by_source = {job["source"]: job["id"] for job in daemon.jobs("--state", "failed")}
            failed = json.loads(bucket.get("out-a/locked.pdf.error.json") or b"")["failed_at"]
            assert daemon.command("retry", str(by_source["locked.pdf"])).returncode == 0
            until(
                lambda: json.loads(bucket.get("out-a/locked.pdf.error.json") or b"")["failed_at"] != failed,
                "retry finds the failed document in its new place",
            )
            newest = max(job["id"] for job in daemon.jobs() if job["source"] == "sub/note.txt")
            bucket.delete("out-b/sub/note.txt.md")
            assert daemon.command("retry", str(newest)).returncode == 0
            until(lambda: bucket.get("out-b/sub/note.txt.md"), "retry finds the converted document in its new place")
            settled(daemon, 4, 1)
            assert (bucket.get("out-b/sub/note.txt.md") or b"").strip() == b"the other"
            assert sorted(objects_in(other, "done/")) == ["sub/note.txt", "sub/note~1.txt"]
            assert "moved to" in daemon.command("why", str(newest)).stdout
            assert daemon.stop() == 0


def both(name: str) -> list[str]:
    return [f"{name}.json", f"{name}.md"]


# ---------------------------------------------------------------- buckets that keep versions


class Racing:
    """A source in a bucket with versions, whose document is replaced at the last moment before it is deleted."""

    def __init__(
        self, bucket: Bucket, folder: Path, *, conditions: bool, race: bool = True, endpoint_url: str = ""
    ) -> None:
        self.bucket = bucket
        status = {"Status": "Enabled"}
        bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration=status)
        clients = Clients(2)
        settings = servers.s3_settings(S3Server(endpoint_url or bucket.server.endpoint_url), folder)
        if not conditions:  # as with a server that does not know of them
            events = clients.s3(settings, reading=False).meta.events
            events.register("before-sign.s3.DeleteObject", lambda request, **_: request.headers.__delitem__("If-Match"))
        surroundings = Surroundings(Payloads("", 0, 0), clients, fault=self._replace if race else lambda label: None)
        self.source = S3Source(
            Prefix(bucket.name, "in/"), settings, Everything(), surroundings, age_seconds=lambda reply: 10.0
        )
        etag = bucket.put("in/a.txt", b"older").strip('"')
        self.job: Job = job_for(Candidate(b"a.txt", object_version(etag, 5), 5))

    def _replace(self, label: str) -> None:
        if label == "delete":
            self.bucket.put("in/a.txt", b"newer")

    def versions(self) -> list[bytes]:
        """The contents of all versions, newest first."""
        listed = self.bucket.client.list_object_versions(Bucket=self.bucket.name, Prefix="in/a.txt")["Versions"]
        where = {"Bucket": self.bucket.name, "Key": "in/a.txt"}
        return [
            self.bucket.client.get_object(**where, VersionId=version["VersionId"])["Body"].read() for version in listed
        ]


@pytest.mark.parametrize("conditions", [True, False], ids=["with If-Match", "without If-Match"])
@pytest.mark.parametrize("action", ["delete", "move"])
def test_a_newer_version_that_comes_at_the_last_moment_is_not_lost(
    tmp_path: Path, bucket: Bucket, conditions: bool, action: str
) -> None:
    racing = Racing(bucket, tmp_path, conditions=conditions)
    with pytest.raises(SourceChanged):
        racing.source.dispose(racing.job, Disposal(action, f"s3://{bucket.name}/done/"))
    assert bucket.get("in/a.txt") == b"newer"
    assert bucket.keys("in/") == ["in/a.txt"]
    assert racing.versions() == [b"newer", b"older"]


@pytest.mark.parametrize("conditions", [True, False], ids=["with If-Match", "without If-Match"])
def test_a_document_of_a_bucket_with_versions_is_deleted(tmp_path: Path, bucket: Bucket, conditions: bool) -> None:
    racing = Racing(bucket, tmp_path, conditions=conditions, race=False)
    assert racing.source.dispose(racing.job, Disposal("delete")) is None
    assert bucket.get("in/a.txt") is None
    assert racing.source.dispose(racing.job, Disposal("delete")) is None, "again, as after a crash"
    assert racing.versions() == [b"older"]


VERSIONS = r"[?&]versions\b"
FAILED = {"status": 500, "code": "InternalError"}
LATER: dict[str, dict[str, Any]] = {
    "the versions cannot be listed": {"kind": "refuse", "method": "GET", "path": VERSIONS},
    "the server fails to list them": {"kind": "status", "method": "GET", "path": VERSIONS, **FAILED},
    "the marker cannot be removed": {"kind": "status", "method": "DELETE", "path": "versionId=", **FAILED},
    "its removal is not answered": {"kind": "refuse", "method": "DELETE", "path": "versionId=", "reaches_server": True},
}


@pytest.mark.parametrize("action", ["delete", "move", "keep"])
@pytest.mark.parametrize("what", sorted(LATER))
def test_a_newer_version_that_is_hidden_comes_back_once_the_server_lets_it(
    tmp_path: Path, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, what: str, action: str
) -> None:
    """Also where the document is to be kept by then."""
    monkeypatch.setattr(s3_clients, "TRIES", 1)
    racing = Racing(bucket, tmp_path, conditions=False, endpoint_url=proxy.url)
    target = f"s3://{bucket.name}/done/"
    proxy.inject(Fault(**LATER[what]))
    with pytest.raises(TransientError):
        racing.source.dispose(racing.job, Disposal("delete" if action == "keep" else action, target))
    assert racing.source.has_begun(racing.job)
    with pytest.raises(SourceChanged):
        racing.source.dispose(racing.job, Disposal(action, target))
    assert bucket.get("in/a.txt") == b"newer"
    assert bucket.keys("in/") == ["in/a.txt"]
    assert not racing.source.has_begun(racing.job)


@pytest.mark.parametrize("action", ["delete", "move"])
def test_a_deletion_is_done_although_its_versions_could_not_be_listed_at_once(
    tmp_path: Path, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setattr(s3_clients, "TRIES", 1)
    racing = Racing(bucket, tmp_path, conditions=False, race=False, endpoint_url=proxy.url)
    disposal = Disposal(action, f"s3://{bucket.name}/done/")
    proxy.inject(Fault("refuse", method="GET", path=VERSIONS))
    with pytest.raises(TransientError):
        racing.source.dispose(racing.job, disposal)
    location = f"s3://{bucket.name}/done/a.txt".encode() if action == "move" else None
    assert racing.source.dispose(racing.job, disposal) == location
    assert bucket.get("in/a.txt") is None
    assert not racing.source.has_begun(racing.job)


@pytest.mark.parametrize(
    ("status", "code"), [(403, "AccessDenied"), (405, "MethodNotAllowed"), (501, "NotImplemented")]
)
def test_who_may_not_list_versions_deletes_all_the_same(
    status: int, code: str, tmp_path: Path, bucket: Bucket, proxy: FaultProxy
) -> None:
    racing = Racing(bucket, tmp_path, conditions=False, race=False, endpoint_url=proxy.url)
    proxy.inject(Fault("status", method="GET", path=VERSIONS, status=status, code=code, times=None))
    assert racing.source.dispose(racing.job, Disposal("delete")) is None
    assert not racing.source.has_begun(racing.job)
    assert racing.versions() == [b"older"]
