"""`convertd why` and `status` where sources are buckets and queues: which watch a URL belongs to, and its story."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from daemon import sources
from daemon.cli.common import Place
from daemon.cli.status import command as status
from daemon.cli.why import command as why
from daemon.db import Readers, Writer, reader
from daemon.errors import DocumentError, Kind, UsageError
from daemon.jobs import JobTable
from daemon.model import Candidate
from daemon.statedir import StateDir

CONFIG = """
state_dir = "state"
[[watch]]
name = "folder"
source = "inbox"
sink = "outbox"
[[watch]]
name = "bucket"
source = "s3://docs/in/"
sink = "s3://results/out/"
[watch.s3]
endpoint_url = "http://127.0.0.1:9"
region = "us-east-1"
[[watch]]
name = "queue"
source = "sqs://news"
prefix = "s3://docs/new/"
sink = "s3://results/new/"
[watch.s3]
endpoint_url = "http://127.0.0.1:9"
region = "us-east-1"
[[watch]]
name = "all"
source = "s3://everything"
sink = "all"
exclude = ["*.tmp"]
[watch.s3]
endpoint_url = "http://127.0.0.1:9"
region = "us-east-1"
"""


class Sentences:
    """A source that only says what it was asked."""

    def explain(self, source: bytes) -> Iterator[str]:
        yield f"asked for {source!r}"


@pytest.fixture(autouse=True)
def only_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "build", lambda *_: Sentences())


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobTable]:
    (tmp_path / "convertd.toml").write_text(CONFIG)
    (tmp_path / "inbox").mkdir()
    state = StateDir(str(tmp_path / "state"))
    state.create()
    with closing(Writer(state.database)) as writer:
        writer.start()
        jobs = JobTable(writer, Readers(state.database))
        jobs.register("folder", str(tmp_path / "inbox"), str(tmp_path / "outbox"))
        jobs.register("bucket", "s3://docs/in/", "s3://results/out/")
        jobs.register("queue", "sqs://news", "s3://results/new/")
        jobs.register("all", "s3://everything/", str(tmp_path / "all"))
        yield jobs


def ask(folder: Path, what: str) -> Result:
    return CliRunner().invoke(why, [what, "--config", str(folder / "convertd.toml")])


@pytest.mark.parametrize(
    ("url", "watch", "source"),
    [
        ("s3://docs/in/a/b.pdf", "bucket", b"a/b.pdf"),
        ("s3://docs/new/Müller.pdf", "queue", "Müller.pdf".encode()),
        ("s3://everything/a.pdf", "all", b"a.pdf"),
        ("s3://everything//a", "all", b"/a"),
        ("s3://docs/in/../out/a.pdf", "bucket", b"../out/a.pdf"),
        ("s3://docs/in//a//", "bucket", b"/a//"),
        ("s3://docs/in/a%20b+c.pdf", "bucket", b"a%20b+c.pdf"),
        ("s3://docs/in/s3://docs/in/a", "bucket", b"s3://docs/in/a"),
        ("s3://docs/in/caf\udce9", "bucket", b"caf\xe9"),
    ],
)
def test_a_url_belongs_to_the_watch_below_whose_prefix_it_lies(
    jobs: JobTable, tmp_path: Path, url: str, watch: str, source: bytes
) -> None:
    result = ask(tmp_path, url)
    assert result.exit_code == 0, result.exception
    assert f"(watch {watch})" in result.stdout
    assert f"asked for {source!r}" in result.stdout
    assert result.stdout.count("asked for") == 1
    assert "never queued" in result.stdout


@pytest.mark.parametrize(
    "url",
    ["s3://docs/in/", "s3://docs/in", "s3://docs", "s3://", "s3://docs/other/a", "s3://doc/in/a", "s3://everything/"],
)
def test_a_url_below_no_prefix_is_wrong_use(jobs: JobTable, tmp_path: Path, url: str) -> None:
    error = ask(tmp_path, url).exception
    assert isinstance(error, UsageError)
    assert error.message == f"{url} lies in no watched prefix"


def test_the_story_of_an_object(jobs: JobTable, tmp_path: Path) -> None:
    for version in ('"1"', '"2"'):
        new, _ = jobs.enqueue("bucket", [Candidate(b"a/b.pdf", version, 7)], 5)
    jobs.enqueue("queue", [Candidate(b"a/b.pdf", '"3"', 7)], 5)
    jobs.start(new[0])
    jobs.fail(new[0], DocumentError(Kind.CORRUPT, "no end"), attempts=1, dispose=False)
    lines = ask(tmp_path, "s3://docs/in/a/b.pdf").stdout.splitlines()
    assert lines[0] == "a/b.pdf (watch bucket)"
    assert lines[2] == '  job 2: failed, version "2", 7 bytes'
    assert '  job 1: superseded, version "1", 7 bytes' in lines
    assert "    corrupt: no end" in lines and "    try again: convertd retry 2" in lines
    assert not any("job 3" in line for line in lines)


def test_watches_of_buckets_do_not_disturb_the_search_for_a_path(jobs: JobTable, tmp_path: Path) -> None:
    assert "sub/a.pdf (watch folder)" in ask(tmp_path, str(tmp_path / "inbox" / "sub" / "a.pdf")).stdout
    error = ask(tmp_path, str(tmp_path / "elsewhere.pdf")).exception
    assert isinstance(error, UsageError) and "lies in no watched folder" in error.message


def test_without_the_configuration_only_folders_are_watched(jobs: JobTable, tmp_path: Path) -> None:
    jobs.register("to a bucket", str(tmp_path / "other"), "s3://results/other/")
    place = Place(None, StateDir(str(tmp_path / "state")))
    with reader(place.state.database) as db:
        watches = {watch.name: watch.source for watch in place.watches(db)}
    assert watches == {"folder": str(tmp_path / "inbox"), "to a bucket": str(tmp_path / "other")}


@pytest.mark.parametrize("where", ["--config", "--state-dir"])
def test_status_shows_urls_as_they_are_configured(jobs: JobTable, tmp_path: Path, where: str) -> None:
    options = [where, str(tmp_path / {"--config": "convertd.toml", "--state-dir": "state"}[where])]
    printed = CliRunner().invoke(status, options).stdout
    assert "s3://docs/in/ → s3://results/out/\n" in printed
    assert "sqs://news → s3://results/new/\n" in printed
    watches = json.loads(CliRunner().invoke(status, [*options, "--json"]).stdout)["watches"]
    assert [watch["source"] for watch in watches[1:]] == ["s3://docs/in/", "sqs://news", "s3://everything/"]
