"""`convertd plan`: what would be taken and where it would go, found out without a trace."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from daemon import plan
from daemon.cli.plan import command
from daemon.converters.formats import CODE, NO_DOCUMENTS, TEXT_KINDS
from daemon.db import Readers, Writer
from daemon.errors import Kind, UsageError
from daemon.jobs import JobTable
from daemon.model import Candidate
from daemon.sources.base import PassOver
from daemon.sources.version import file_version
from daemon.statedir import StateDir

CONFIG = """
state_dir = "state"
limits.file_size = "1KiB"
[[watch]]
name = "inbox"
source = "inbox"
sink = "outbox"
exclude = ["drafts/"]
"""
QUEUE = """
[[watch]]
name = "queue"
source = "sqs://news"
prefix = "s3://docs/new/"
sink = "s3://docs/out/"
"""


class Given:
    """A source that holds what it is given."""

    def __init__(self, batches: Sequence[list[Candidate]]) -> None:
        self._batches = batches

    def survey(self, pass_over: PassOver) -> Iterator[list[Candidate]]:
        pass_over(b"drafts/a", "a rule")
        yield from self._batches


def forecast(*candidates: Candidate, known: dict[bytes, str] | None = None, folds: bool = False) -> plan.Forecast:
    source: Any = Given([list(candidates)])
    return plan.Forecast(source, lambda _: known or {}, name_bytes=3500, file_size_bytes=1000, folds=folds)


def ask(folder: Path, *options: str, config: str = CONFIG) -> Result:
    (folder / "convertd.toml").write_text(config)
    return CliRunner().invoke(command, ["--config", str(folder / "convertd.toml"), *options])


def facts(folder: Path, *options: str, config: str = CONFIG) -> Any:
    return json.loads(ask(folder, "--json", *options, config=config).stdout)["watches"][0]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def test_new_changed_and_known_documents_are_told_apart() -> None:
    looked = forecast(
        Candidate(b"a", "1", 1),
        Candidate(b"b", "2", 2),
        Candidate(b"c", "1", 4),
        known={b"b": "1", b"c": "1"},
    )
    assert [(entry.source, entry.news) for entry in looked.entries()] == [(b"a", "new"), (b"b", "changed")]
    assert (looked.news, looked.known, looked.size_bytes) == ({"new": 1, "changed": 1}, 1, 3)
    assert (looked.passed_over, looked.examples) == ({"a rule": 1}, {"a rule": b"drafts/a"})


@pytest.mark.parametrize(
    ("name", "size_bytes", "kind"),
    [
        (b"a.pdf", 1000, None),
        (b"a.pdf", 1001, Kind.TOO_LARGE),
        (b"a.pdf", 0, Kind.EMPTY),
        (b"b/a.MP4", 1, Kind.UNSUPPORTED_FORMAT),
        (b"mp4", 1, None),
        (b"a.mp4/b", 1, None),
        (b"\xff.exe", 1, Kind.UNSUPPORTED_FORMAT),
    ],
)
def test_what_is_sure_to_fail(name: bytes, size_bytes: int, kind: Kind | None) -> None:
    looked = forecast(Candidate(name, "1", size_bytes))
    assert [entry.fails for entry in looked.entries()] == [kind]
    assert looked.failing == ({kind: 1} if kind else {})


def test_nothing_that_is_read_counts_as_no_document() -> None:
    assert NO_DOCUMENTS.isdisjoint(b"." + extension.encode() for extension in (*TEXT_KINDS, *CODE))


def test_names_that_cannot_be_kept_are_counted() -> None:
    looked = forecast(Candidate(b"a.pdf", "1", 1), Candidate(b"x.md/a.pdf", "1", 1), Candidate(b"caf\xe9", "1", 1))
    assert [entry.output.partition("~")[0] for entry in looked.entries()] == ["a.pdf.md", "x.md", "caf%E9.md"]
    assert looked.renamed == 2 and not looked.collisions


def test_two_documents_with_one_output_are_a_collision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "output_name", lambda source, _: "same" if source != b"c" else "c")
    looked = forecast(*(Candidate(name, "1", 1) for name in (b"a", b"b", b"c")))
    assert len(list(looked.entries())) == 3
    assert looked.collisions == [("same", b"a", b"b")]


def test_in_a_sink_that_folds_names_they_collide_whatever_their_case() -> None:
    documents = [Candidate(name, "1", 1) for name in (b"A/x.pdf", b"b.pdf", "É.pdf".encode(), b"a/X.pdf")]
    documents += [Candidate("é.pdf".encode(), "1", 1)]
    looked = forecast(*documents, known={b"A/x.pdf": "1"}, folds=True)
    assert len(list(looked.entries())) == 4
    assert looked.collisions == [
        ("a/X.pdf", b"A/x.pdf", b"a/X.pdf"),
        ("é.pdf", "É.pdf".encode(), "é.pdf".encode()),
    ]
    looked = forecast(*documents)
    assert len(list(looked.entries())) == 5 and not looked.collisions


def test_a_sink_that_folds_names_is_found_out(tmp_path: Path, inbox: Path) -> None:
    """As after a first run: its hidden folder is found under another name, too."""
    for name in ("A.pdf", "a.pdf"):
        (inbox / name).write_bytes(b"words")
    assert facts(tmp_path)["collisions"] == []
    (tmp_path / "outbox" / ".convertd-tmp").mkdir(parents=True)
    (tmp_path / "outbox" / ".CONVERTD-TMP").symlink_to(".convertd-tmp")
    (collision,) = facts(tmp_path)["collisions"]
    assert sorted(collision["sources"]) == ["A.pdf", "a.pdf"]
    assert "A.pdf" in ask(tmp_path).stdout and ": rename one of them" in ask(tmp_path).stdout


def test_nothing_is_kept_of_a_document_that_is_only_counted() -> None:
    documents = [Candidate(b"folder/%d.pdf" % number, "1", 1) for number in range(10_000)]
    looked = forecast(*documents)
    assert sum(1 for _ in looked.entries()) == 10_000
    kept = [value for value in vars(looked).values() if isinstance(value, (dict, list))]
    assert sum(map(len, kept)) <= 3


def test_a_folder_is_looked_through_without_a_job_table(tmp_path: Path, inbox: Path) -> None:
    (inbox / "drafts").mkdir()
    (inbox / "drafts" / "x.pdf").write_bytes(b"x")
    (inbox / "a.pdf").write_bytes(b"words")
    (inbox / "large.pdf").write_bytes(bytes(1025))
    (inbox / ".hidden").write_bytes(b"x")
    result = ask(tmp_path)
    assert result.exit_code == 0, result.exception
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "new                  5  a.pdf → a.pdf.md" in lines
    assert "new              1,025  large.pdf → large.pdf.md   fails: larger than limits.file_size" in lines
    assert "takes 2 documents of 1,030 bytes: 2 new, 0 changed; 0 are known and stay as they are" in lines
    assert '1 passed over: exclude has "drafts/"; such as drafts/x.pdf' in lines
    assert '1 passed over: names starting with "." are never taken; such as .hidden' in lines
    assert "1 would fail: larger than limits.file_size, such as large.pdf" in lines


def test_the_job_table_tells_what_is_known(tmp_path: Path, inbox: Path) -> None:
    state = StateDir(str(tmp_path / "state"))
    state.create()
    for name in ("known.pdf", "changed.pdf"):
        (inbox / name).write_bytes(b"words")
    candidates = [Candidate(os.fsencode(name), file_version(os.stat(inbox / name)), 5) for name in os.listdir(inbox)]
    with closing(Writer(state.database)) as writer:
        writer.start()
        jobs = JobTable(writer, Readers(state.database))
        jobs.register("inbox", str(inbox), str(tmp_path / "outbox"))
        jobs.enqueue("inbox", candidates, 5)
    (inbox / "changed.pdf").write_bytes(b"other words")
    found = facts(tmp_path)
    assert (found["new"], found["changed"], found["known"]) == (0, 1, 1)
    assert [document["source"] for document in found["documents"]] == ["changed.pdf"]


def test_nothing_is_changed(tmp_path: Path, inbox: Path) -> None:
    (inbox / "a.pdf").write_bytes(b"words")
    before = os.stat(inbox / "a.pdf"), os.stat(inbox)
    assert ask(tmp_path).exit_code == 0
    assert (os.stat(inbox / "a.pdf"), os.stat(inbox)) == before
    assert sorted(os.listdir(tmp_path)) == ["convertd.toml", "inbox"]


def test_rows_are_limited_and_counted(tmp_path: Path, inbox: Path) -> None:
    for number in range(5):
        (inbox / f"{number}.txt").write_bytes(b"x")
    result = ask(tmp_path, "--limit", "2")
    assert result.stdout.count("  new ") == 2
    assert "… and 3 more (--limit)" in result.stdout
    found = facts(tmp_path, "--limit", "0")
    assert (found["documents"], found["new"]) == ([], 5)


def test_no_name_steers_the_terminal(tmp_path: Path, inbox: Path) -> None:
    (inbox / "gpj.\u202etxt.txt").write_bytes(b"x")
    said = ask(tmp_path).stdout
    assert r"gpj.\u202etxt.txt → gpj.\u202etxt.txt.md" in said and "\u202e" not in said


def test_a_source_that_is_to_be_made_is_no_failure(tmp_path: Path) -> None:
    result = ask(tmp_path)
    assert result.exit_code == 0
    assert "the folder is not there yet" in result.stdout
    assert not (tmp_path / "inbox").exists()


def test_a_source_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    result = ask(tmp_path, config=CONFIG.replace('source = "inbox"', 'source = "no/such"'))
    assert result.exit_code == 1
    assert "cannot be read: No such file or directory" in result.stdout and "→" in result.stdout


def test_a_queue_cannot_be_looked_into(tmp_path: Path) -> None:
    result = ask(tmp_path, "--name", "queue", config=CONFIG + QUEUE)
    assert result.exit_code == 0
    assert "a queue cannot be looked into ahead" in result.stdout
    assert facts(tmp_path, "--name", "queue", config=CONFIG + QUEUE)["note"]


def test_an_unknown_watch_is_wrong_use(tmp_path: Path) -> None:
    error = ask(tmp_path, "--name", "outbox").exception
    assert isinstance(error, UsageError) and "outbox" in error.message
