"""The campaign of faults: its script is that of its seed, it passes a sound daemon, and it finds a planted bug."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice, product
from pathlib import Path

import pytest

from daemon import events, logs
from daemon.batches import Batch
from daemon.db import Connection, open_for_writing
from daemon.manifests import Manifests
from daemon.sinks.folder import FolderSink
from tests.batching import CONVERSION, Bench
from tests.chaos import campaign, manifests, report
from tests.chaos.accounts import MISCOUNTED, Row, converted_twice, miscounted, put_back
from tests.chaos.actions import SUBJECTS, WEIGHTS, script
from tests.chaos.audit import Syncs
from tests.chaos.checks import Findings, Watchman, is_moved, too_large
from tests.chaos.commands import CHANGED, DONE, NOT_DONE, NOT_RUNNING, WRONG_USE, ask, complaints
from tests.chaos.faults_of import DEATHS, ERRORS
from tests.chaos.hooks import WAIT, Faults, Journal
from tests.chaos.making import world as made_world
from tests.chaos.model import SUBMITTED, Document, Model, Version, compose, compose_large
from tests.chaos.operators import BAD, go_on, hold, refuse
from tests.chaos.outputs import Outputs
from tests.chaos.pausing import EVERYTHING
from tests.chaos.places import DISPOSING, Folder, Prefix
from tests.chaos.plants import PLANTS
from tests.chaos.processes import Size, size_of
from tests.chaos.provoking import GIVE_BACK, PASSED_BY, REMOVE, provoke
from tests.chaos.quiet import Quiet, converters
from tests.chaos.soak import grown
from tests.chaos.world import CODE, World
from tests.chaos.writing import appear
from tests.fault_proxy import FaultProxy
from tests.harness import DEADLINE_SECONDS, ROOT, until
from tests.servers import Bucket, S3Server, weed_program

pytestmark = pytest.mark.chaos
SEED = 5
UNENDED = """SELECT 1 FROM jobs WHERE state IN ('pending', 'processing') OR disposal IS NOT NULL
             UNION ALL SELECT 1 FROM batches WHERE completed_at IS NULL"""
ACTIONS = 5
NOWHERE = "http://127.0.0.1:1"


def drawn(seed: int) -> list[tuple[str, float, float]]:
    return [(action.name, action.pause_seconds, action.chance.random()) for action in islice(script(seed), 500)]


def test_the_same_seed_has_the_same_actions() -> None:
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert {name for name, _, _ in drawn(1)} == set(WEIGHTS)


def test_every_fault_point_has_its_turn() -> None:
    piles = {name: len(subjects) for name, subjects in SUBJECTS.items()}
    seen: dict[str, list[str]] = {name: [] for name in SUBJECTS}
    for action in script(1):
        if action.subject and len(seen[action.name]) < piles[action.name]:
            seen[action.name] += action.subject
        if all(len(labels) == piles[name] for name, labels in seen.items()):
            break
    assert {name: sorted(labels) for name, labels in seen.items()} == {
        name: sorted(subjects) for name, subjects in SUBJECTS.items()
    }


def test_every_fault_that_may_be_armed_has_its_point() -> None:
    texts = [path.read_text() for path in (ROOT / "daemon").rglob("*.py")]
    points = {label for text in texts for label in re.findall(r'fault\("([^"]+)"\)', text)}
    steps = set(re.findall(r'step\(.*?"\w+", "([^"]+)", fault', (ROOT / "tests/chaos/daemon.py").read_text()))
    assert {*DEATHS, *ERRORS, *PASSED_BY} <= points | steps


def test_every_fault_point_is_met_where_it_is_provoked(tmp_path: Path) -> None:
    """One that is not would never be met in a campaign either: its method may have been left by the daemon."""
    disturbed = ["back off", GIVE_BACK, REMOVE]  # these arm, or wait for, what others are to meet
    with made_world(tmp_path, buckets=weed_program() is not None) as (world, missing):
        watches, known = world.watches.values(), {*DEATHS, *ERRORS}
        labels = {label for label in known if any(map(PASSED_BY.get(label, bool), watches))}
        assert missing or labels == known
        model, chance = Model(), random.Random(1)
        world.start()
        until(world.has_started, "the daemon has started", 60)
        for group in [sorted(labels.difference(disturbed)), *([label] for label in disturbed if label in labels)]:
            for label in group:
                world.arm(label, WAIT, 0, 1)
            for label in group:
                provoke(world, model, chance, label, 1)
            until(partial(is_met, world, frozenset(group)), f"all of {group} are met", 90)
            world.wait_for_writers()
            until(lambda: not world.rows(UNENDED), "all jobs and batches have ended, and sources are disposed of", 60)


def is_met(world: World, labels: frozenset[str]) -> bool:
    return labels <= {line.removeprefix(f"{WAIT} at ") for line in world.journal("fired")}


def test_there_is_a_watch_from_each_kind_of_place_to_each(tmp_path: Path) -> None:
    with FaultProxy(NOWHERE) as proxy:
        world = World(tmp_path, Bucket("bucket", S3Server(NOWHERE), None), proxy, "")
    kinds = {name: (type(watch.source), type(watch.sink)) for name, watch in world.watches.items()}
    assert set(kinds.values()) == set(product((Folder, Prefix), repeat=2))
    configured = tomllib.loads(world.configuration())["watch"]
    assert kinds == {watch["name"]: (kind_of(watch["source"]), kind_of(watch["sink"])) for watch in configured}


def kind_of(url: str) -> type:
    return Prefix if url.startswith("s3://") else Folder


def test_no_move_goes_across_where_nothing_can_be_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with made_world(tmp_path / "home", buckets=False) as (world, missing):
        assert [line for line in missing if line.startswith("no disk of its own for across/done: ")]
        assert not [watch for watch in world.watches.values() if PASSED_BY["copy across"](watch)]


def test_what_a_retry_moves_again_may_be_hidden_meanwhile(tmp_path: Path) -> None:
    watch = World(tmp_path, None, None, "").watches["move"]
    document = Document("move", "one/d1.txt", "txt")
    document.current = document.written(b"content", "content")
    assert isinstance(watch.done, Folder)
    watch.done.put(f"one/{DISPOSING}7-0123", b"another content")
    assert not is_moved(watch, document)
    watch.done.put(f"one/{DISPOSING}7-4567", b"content")
    assert is_moved(watch, document)


def test_what_failed_may_only_be_gone_to_where_it_is_moved_to(tmp_path: Path) -> None:
    world, model = World(tmp_path, None, None, ""), Model()
    watch, document = world.watches["extra"], model.new("extra", "txt")
    document.current = document.written(b"content", "content", hostile=True)
    watchman = Watchman(world, model, Findings())
    assert "is gone, of a watch that keeps" in str(watchman.missing(watch, document))
    assert watch.failed is not None
    watch.failed.put(document.name, b"content")
    assert "its job has not failed" in str(watchman.missing(watch, document))
    world.rows = lambda sql, *_: [(1, "failed")]  # type: ignore[method-assign]
    assert watchman.missing(watch, document) is None


def test_a_folder_has_a_manifest_where_it_is_a_batch(tmp_path: Path) -> None:
    world, model = World(tmp_path, None, None, ""), Model()
    found: list[str] = []
    outputs = Outputs(model, found.append)
    for name in ("move", "keep"):
        model.new(name, "txt", "one/d")
        world.watches[name].sink.put("one.manifest.jsonl", b"{}\n")
        outputs.look(world.watches[name])
    assert found == ["keep: nothing makes a one.manifest.jsonl"]


def test_faults_are_met_beside_one_another_each_as_often_as_it_is_to_be(tmp_path: Path) -> None:
    world = World(tmp_path, None, None, "")
    faults = Faults(world.control, Journal(world.control))
    world.arm("write", "EIO", 1, 2)
    world.arm("rename", "ENOSPC", 0, 1)
    world.arm("sync", "EIO", 0, 1)
    faults.look()
    faults("write")
    with pytest.raises(OSError, match="space"):
        faults("rename")
    faults("rename")
    for _ in range(2):
        faults.look()
        with pytest.raises(OSError, match="Input/output"):
            faults("write")
    faults("write")
    world.disarm()
    faults.look()
    faults("sync")
    assert world.journal("fired") == ["ENOSPC at rename", "EIO at write", "EIO at write"]
    world.arm("write", "EIO", 1, 2)
    faults.look()
    faults("write")
    with pytest.raises(OSError, match="Input/output"):
        faults("write")


@pytest.mark.parametrize(
    ("code", "stdout", "stderr"),
    [
        (NOT_RUNNING, "", "convertd: the daemon is not running"),
        (NOT_DONE, "", 'Traceback (most recent call last):\n  File "daemon/cli/retry.py", line 1'),
        (NOT_DONE, "", "convertd: the job table state/convertd.db failed: database is locked"),
        (NOT_DONE, "", "convertd: the daemon could not do that: BusyError('SQLITE_BUSY')"),
        (DONE, "Traceback (most recent call last):", ""),
    ],
)
def test_a_command_that_answers_what_it_may_not_is_found(code: int, stdout: str, stderr: str) -> None:
    told = subprocess.CompletedProcess([], code, stdout, stderr)
    (complaint,) = complaints(["retry", "1"], told, CHANGED)
    assert f"`convertd retry 1` ended with {code}" in complaint
    assert stdout + stderr in complaint


def test_a_command_that_does_or_refuses_what_it_may_is_not_found() -> None:
    for code, stderr in ((DONE, ""), (NOT_DONE, "not retried: job 1 is pending: nothing to retry")):
        assert not [*complaints(["retry", "1"], subprocess.CompletedProcess([], code, "", stderr), CHANGED)]


def test_a_real_command_is_judged_by_what_it_may_do_here(tmp_path: Path) -> None:
    world = World(tmp_path, None, None, "")
    assert ask(world, "pause", allowed=(WRONG_USE,)).returncode == WRONG_USE
    assert world.strange_ends == []
    ask(world, "pause")
    assert "nothing has run with state_dir" in world.strange_ends[0]


def test_a_rename_is_judged_by_what_was_synced_however_often_it_fails(tmp_path: Path) -> None:
    journal, sink, file = Journal(tmp_path), tmp_path / "out", tmp_path / "a.tmp"
    syncs, violations = Syncs(journal, [os.fsencode(sink)]), tmp_path / "violations"
    renamed = partial(syncs.see, "os.rename", (os.fsencode(file), os.fsencode(sink / "a.md"), -1, -1))
    with file.open("wb") as written:
        written.write(b"words")
        written.flush()
        syncs.after_sync(*syncs.before_sync(written.fileno()))
    renamed()  # its folder is not there: just taken away
    sink.mkdir()
    renamed()
    assert not violations.exists()
    assert syncs.is_unsafe(str(sink / "a.md"))
    file.write_bytes(b"other words")
    renamed()
    assert violations.read_text() == f"renamed into place before it was synced: {sink}/a.md\n"


def test_what_the_log_never_says_is_found(tmp_path: Path) -> None:
    world, result = World(tmp_path, None, None, ""), campaign.Result(1, "")
    world.daemon.log.write_text(
        '{"event": "failed"}\n{"event": "idle", "error": "apsw.BusyError: database is locked"}\n'
    )
    judged = campaign.Campaign(world, result)
    judged._read_log()
    assert [found for found in judged._findings.all if "BusyError" in found]
    assert len(judged._findings.all) == 1


def test_a_version_that_two_jobs_have_converted_is_found() -> None:
    first = Row(1, 1, b"a.txt", "v1", "completed")
    again = Row(4, 1, b"a.txt", "v1", "completed")
    other = Row(2, 1, b"a.txt", "v2", "superseded")
    assert [*converted_twice([first, again])] == ["jobs 1 and 4 have both converted a.txt as v1"]
    assert [*converted_twice([first, first._replace(id=3, state="failed"), again])]
    for sound in (
        [first, again._replace(version="v2")],
        [first, again._replace(source=b"b.txt")],
        [first, again._replace(watch=2)],
        [first._replace(state="superseded"), again],
        [first, other, again],
    ):
        assert not [*converted_twice(sound)]


@pytest.fixture
def settled(tmp_path: Path) -> Iterator[World]:
    """A daemon that has converted a document and has nothing else to do."""
    with planted(tmp_path, "") as world:
        yield world


@contextmanager
def planted(folder: Path, plant: str) -> Iterator[World]:
    """The same with a bug."""
    world = World(folder, None, None, plant)
    (folder / CODE).symlink_to(ROOT)
    document = Model().new("keep", "txt")
    appear(world, document, *compose(document, random.Random(1)))
    world.start()
    try:
        known = "SELECT 1 FROM documents WHERE converted_version = version"
        until(lambda: world.rows(known), "the document is converted")
        yield world
    finally:
        world.kill()


def test_a_file_that_is_put_back_is_converted_again_by_a_daemon_that_has_forgotten_its_bytes(settled: World) -> None:
    assert [*put_back(settled, DEADLINE_SECONDS)] == []
    settled.terminate()
    with closing(open_for_writing(str(settled.daemon.state / "convertd.db"))) as db:
        db.execute("UPDATE documents SET converted_sha256 = 'other'")
    settled.start()
    (complaint,) = put_back(settled, DEADLINE_SECONDS)
    assert "converted again: 1 jobs are 2" in complaint
    assert [*put_back(settled, DEADLINE_SECONDS)] == []


def test_a_daemon_that_has_no_job_table_yet_is_not_told_to_go_on(tmp_path: Path) -> None:
    world, model, findings = World(tmp_path, None, None, ""), Model(), Findings()
    (tmp_path / CODE).symlink_to(ROOT)
    try:
        Quiet(world, model, findings, Watchman(world, model, findings))._resume()
        assert not world.strange_ends and not findings
        assert world.pid
    finally:
        world.kill()


def test_a_counter_that_is_wrong_and_a_source_without_a_job_are_found(settled: World) -> None:
    findings, model = Findings(), Model()
    quiet = Quiet(settled, model, findings, Watchman(settled, model, findings))
    quiet._look_at_sources()
    assert not findings
    assert settled.rows(MISCOUNTED) == []
    settled.terminate()
    with closing(open_for_writing(str(settled.daemon.state / "convertd.db"))) as db:
        db.execute("DELETE FROM counts")
        db.execute("INSERT INTO counts VALUES (1, 'failed', 3)")
        (name,) = next(iter(db.execute("SELECT name FROM watches WHERE id = 1")))
    settled.watches["keep"].source.put("unknown.txt", b"words")
    quiet._look_at_sources()
    assert list(findings.all) == ["keep/unknown.txt lies there, and its newest job is missing"]
    assert sorted(settled.rows(MISCOUNTED)) == sorted([("keep", "completed", 0, 1), (name, "failed", 3, 0)])


class Batched:
    """A job table with a batch of the watch `move`, its manifests and who is told of them; no daemon is at work."""

    def __init__(self, folder: Path) -> None:
        self.world, self.model = World(folder, None, None, ""), Model()
        self.world.daemon.state.mkdir()
        self.bench = Bench(str(self.world.daemon.state / "convertd.db"))
        self.bench.jobs.register("move", "/in", "/out")
        sink = self.world.watches["move"].sink
        assert isinstance(sink, Folder)
        self.manifest = sink.path / "one.manifest.jsonl"
        log = logs.build("error", "json")
        self._manifests = Manifests(
            "move", FolderSink(str(sink.path)), self.bench.batches, str(folder), log, self._tell
        )

    def _tell(self, db: Connection, batch: Batch, jobs: Mapping[str, int], output: str) -> None:
        told = events.batch_complete(batch.watch, batch.name, jobs, output, self.bench.now)
        Journal(self.world.control).add("events", told)

    def known(self) -> Document:
        """A document of the batch as the campaign knows it."""
        document = self.model.new("move", "txt", "one/d")
        document.current = document.written(b"content", "content")
        return document

    def convert(self) -> None:
        job = self.bench.add(self.known().name, watch="move")
        self.bench.jobs.start(job)
        assert self.bench.jobs.complete(job, CONVERSION, f"/out/{job.id}.md", dispose=False)

    def complete(self) -> None:
        self.bench.later()
        self._manifests.look(lambda: False)

    def change(self, sql: str) -> None:
        self.bench.writer.call(lambda db: db.execute(sql))

    def wrong(self) -> list[str]:
        return [*manifests.wrong(self.world, self.model)]


@pytest.fixture
def batched(tmp_path: Path) -> Iterator[Batched]:
    batched = Batched(tmp_path)
    yield batched
    batched.bench.writer.close()


def test_a_batch_without_its_whole_manifest_is_found(batched: Batched) -> None:
    batched.convert()
    batched.convert()
    assert [*manifests.unwritten(batched.world)] == ["batch move/one has ended and waits for its manifest"]
    batched.complete()
    assert [*manifests.unwritten(batched.world)] == batched.wrong() == []
    whole = batched.manifest.read_text()
    first, last = whole.splitlines(keepends=True)
    for spoilt in ("", first, whole + last, first + last[:-9], whole.replace('"completed"', '"failed"')):
        batched.manifest.write_text(spoilt)
        assert "the manifest of move/one lacks" in batched.wrong()[0]
    batched.manifest.write_text(last + first)
    assert batched.wrong() == []
    batched.manifest.unlink()
    assert "the manifest of move/one lacks" in batched.wrong()[0]


def test_a_manifest_that_is_not_replaced_and_news_that_do_not_come_are_found(batched: Batched) -> None:
    batched.convert()
    batched.complete()
    batched.convert()
    assert [*manifests.unwritten(batched.world)]
    old = batched.manifest.read_text(), (batched.world.control / "events").read_text()
    batched.complete()
    assert batched.wrong() == []
    batched.manifest.write_text(old[0])
    (batched.world.control / "events").write_text(old[1])
    stale, untold, unnamed = batched.wrong()
    assert "the manifest of move/one lacks" in stale
    assert untold == "nobody was told that batch move/one is complete with {'completed': 2}"
    assert unnamed == "no manifest of move/one names one/d0001.txt"


def test_a_document_that_no_batch_has_is_found(batched: Batched) -> None:
    document = batched.known()
    assert batched.wrong() == [f"no manifest of move/one names {document.name}"]
    document.current = None  # deleted, or never taken
    assert batched.wrong() == []
    in_folders = [batched.model.new(name, "txt", "one/d") for name in ("move", "keep")]
    handed_in = batched.model.new("keep", "txt", f"{SUBMITTED}b0001/d")
    watches = batched.world.watches
    found = [manifests.batch_of(watches[one.watch], one) for one in (*in_folders, handed_in)]
    assert found == ["one", None, "b0001"]


def test_a_counter_of_a_batch_that_is_wrong_is_found(batched: Batched) -> None:
    batched.convert()
    batched.bench.add("one/waits.txt", watch="move")
    assert [*miscounted(batched.world)] == []
    batched.change("UPDATE batches SET unfinished = 0")
    batched.change("UPDATE batch_counts SET jobs = 2 WHERE state = 'completed'")
    batched.change("DELETE FROM batch_counts WHERE state = 'pending'")
    batched.change("INSERT INTO batch_counts VALUES (7, 'failed', 1)")
    assert sorted(miscounted(batched.world)) == [
        "the counter of batch 7, failed says 1, there are 0",
        "the counter of batch move/one, completed says 2, there are 1",
        "the counter of batch move/one, pending says 0, there are 1",
        "the counter of batch move/one, unfinished says 0, there are 1",
    ]


def test_what_is_begun_in_spite_of_a_pause_is_found(batched: Batched) -> None:
    bench, pauses = batched.bench, batched.world.pauses
    early = bench.add("early", watch="move")  # a worker may have it
    pauses.hold("move")
    late, waits, cancelled = (bench.add(name, watch="move") for name in ("late", "waits", "cancelled"))
    other = bench.add("other")
    for job in (early, late, other):
        bench.jobs.start(job)
    bench.jobs.cancel([cancelled.id])
    assert [*pauses.lift("move")] == [f"job {late.id} of move/late is processing, and was found while move was paused"]
    pauses.hold(EVERYTHING)
    pauses.hold("move")
    job = bench.done("anything")
    assert [*pauses.lift("move")] == []
    about = f"job {job.id} of inbox/anything is completed"
    assert [*pauses.lift(EVERYTHING)] == [f"{about}, and was found while everything was paused"]
    bench.jobs.start(waits)
    bench.jobs.retry([])  # durable, so all before it is written too
    assert [*pauses.lift("move")] == [*pauses.lift(EVERYTHING)] == []


def test_a_bad_configuration_that_is_not_refused_is_found(settled: World) -> None:
    for text in BAD:
        refuse(settled, text)
    assert settled.strange_ends == []
    assert settled.serving() == set(settled.watches)
    settled.hang_up = lambda: None  # type: ignore[method-assign]
    refuse(settled, BAD[0], 0.0)
    assert settled.strange_ends == [f"a bad configuration is not said to be refused: {BAD[0]!r}"]


def test_watches_that_are_lost_by_a_bad_configuration_are_found(tmp_path: Path) -> None:
    with planted(tmp_path, "obey-anything") as world:
        refuse(world, BAD[0])
        assert PLANTS["obey-anything"].found_among(world.strange_ends)


def pause_while_something_comes(world: World) -> None:
    assert hold(world, EVERYTHING).returncode == DONE
    document = Model().new("extra", "txt")
    appear(world, document, *compose(document, random.Random(1)))
    until(lambda: world.newest_job(document), "it is found all the same")


def test_a_daemon_that_heeds_a_pause_passes(settled: World) -> None:
    pause_while_something_comes(settled)
    settled.kill()
    settled.start()
    until(settled.has_started, "it has started again", 60)
    assert go_on(settled, EVERYTHING).returncode == DONE
    until(lambda: not settled.rows(UNENDED), "what came is converted")
    assert settled.strange_ends == []


def test_a_daemon_that_ignores_a_pause_is_found(tmp_path: Path) -> None:
    with planted(tmp_path, "ignore-pause") as world:
        pause_while_something_comes(world)
        until(lambda: not world.rows(UNENDED), "what came is converted")
        go_on(world, EVERYTHING)
        assert PLANTS["ignore-pause"].found_among(world.strange_ends)


def test_a_daemon_that_leaves_out_the_last_line_of_a_manifest_is_found(tmp_path: Path) -> None:
    with planted(tmp_path, "short-manifest") as world:
        model = Model()
        document = model.new("move", "txt", "one/d")
        appear(world, document, *compose(document, random.Random(1)))
        until(lambda: world.rows("SELECT 1 FROM batches WHERE completed_at IS NOT NULL"), "the batch is complete")
        assert PLANTS["short-manifest"].found_among(manifests.wrong(world, model))


@pytest.mark.parametrize("kind", ["txt", "html", "docx", "pdf"])
def test_an_output_is_of_one_version_and_whole(kind: str) -> None:
    document, chance = Document("keep", f"d1.{kind}", kind), random.Random(1)
    texts = []
    for _ in range(2):
        content, text = compose(document, chance)
        document.written(content, text)
        texts.append(text)
    for version, text in zip(document.versions, texts, strict=True):
        assert document.of_markdown(text.encode()) is version
        assert document.of_source(version.sha256) is version
    lines = texts[0].splitlines()
    for torn in ("", texts[0][:-1], "\n".join(lines[:-1]), "\n".join(lines[1:]), texts[0] + texts[1]):
        assert document.of_markdown(torn.encode()) is None


class Shown:
    """A sink of one watch, and what is said of what appears there."""

    def __init__(self, folder: Path, kind: str, watch: str = "keep") -> None:
        self.said: list[str] = []
        self.world, self.model = World(folder, None, None, ""), Model()
        self.watch = self.world.watches[watch]
        self.document = self.model.new(watch, kind)
        self._outputs = Outputs(self.model, self.said.append)
        for _ in range(2):
            self.document.written(*compose(self.document, random.Random(1)))

    def show(self, version: Version, markdown_sha256: str = "") -> None:
        """Both results of a version, the sidecar with this digest instead of the right one."""
        markdown = version.content
        right = hashlib.sha256(markdown).hexdigest()
        self.put("json", json.dumps({"sha256": version.sha256, "markdown_sha256": markdown_sha256 or right}).encode())
        self.put("md", markdown)

    def put(self, suffix: str, content: bytes) -> None:
        self.watch.sink.put(f"{self.document.name}.{suffix}", content)
        self.look()

    def look(self) -> None:
        self._outputs.look(self.watch)

    def failed(self) -> set[str]:
        return self._outputs.last(self.watch).failed

    def fits(self) -> bool:
        return self._outputs.last(self.watch).fits(self.document.name)


def test_a_sidecar_that_tells_of_another_markdown_is_found(tmp_path: Path) -> None:
    shown = Shown(tmp_path, "txt")
    first, second = shown.document.versions
    shown.show(first)
    shown.show(second)  # between the two the sidecar is of another version than the Markdown
    shown.show(second)
    assert shown.said == []
    assert shown.fits()
    shown.show(second, "0" * 64)
    assert shown.said[0] == f"keep: {shown.document.name}.md is not what its sidecar says"
    assert not shown.fits()


def test_an_older_result_in_the_place_of_a_newer_one_is_found(tmp_path: Path) -> None:
    shown = Shown(tmp_path, "txt")
    first, second = shown.document.versions
    shown.show(second)
    shown.show(first)
    name = shown.document.name
    assert shown.said == [f"keep: {name}.{suffix} of version 2 was replaced by that of 1" for suffix in ("json", "md")]


def test_older_results_that_are_put_back_with_their_folder_are_not_found(tmp_path: Path) -> None:
    shown = Shown(tmp_path, "txt")
    first, second = shown.document.versions
    assert isinstance(shown.watch.sink, Folder)
    path, away = shown.watch.sink.path, tmp_path / "away"
    shown.show(first)
    for file in path.iterdir():
        os.utime(file, (1, 1))  # clocks of files tick seldom
    path.rename(away)
    shown.look()
    shown.show(second)
    shutil.rmtree(path)
    away.rename(path)
    shown.look()
    assert shown.said == []


def test_results_that_are_gone_are_missed_as_long_as_they_are(tmp_path: Path) -> None:
    shown, findings = Shown(tmp_path, "txt", "delete"), Findings()
    watchman, watch, document = Watchman(shown.world, shown.model, findings), shown.watch, shown.document
    assert isinstance(watch.sink, Folder)
    path, away = watch.sink.path, tmp_path / "away"
    shown.world.rows = lambda sql, *_: [(1, "completed")]  # type: ignore[method-assign]
    document.current = document.versions[-1]
    shown.show(document.current)
    assert watchman.missing(watch, document) is None
    path.rename(away)
    assert "is gone without its result" in str(watchman.missing(watch, document))
    path.mkdir()
    assert "is gone without its result" in str(watchman.missing(watch, document))
    path.rmdir()
    away.rename(path)
    assert watchman.missing(watch, document) is None
    for suffix in ("json", "md"):
        shown.show(document.current)
        assert watchman.missing(watch, document) is None
        watch.sink.remove(f"{document.name}.{suffix}")
        assert "is gone without its result" in str(watchman.missing(watch, document))
    assert list(findings.all) == [
        f"delete: the result d0000.txt.{suffix} has been removed" for suffix in ("json", "md")
    ]


def test_an_error_file_is_forgotten_with_its_folder(tmp_path: Path) -> None:
    shown = Shown(tmp_path, "txt")
    assert isinstance(shown.watch.sink, Folder)
    path, away = shown.watch.sink.path, tmp_path / "away"
    shown.put("error.json", b"{}")
    assert shown.failed() == {shown.document.name}
    path.rename(away)
    shown.look()
    assert shown.failed() == set()
    away.rename(path)
    shown.look()
    assert shown.failed() == {shown.document.name}
    assert shown.said == []


def test_a_sink_that_was_emptied_is_found_at_the_end_of_a_round(settled: World) -> None:
    findings, model, sink = Findings(), Model(), settled.watches["keep"].sink
    document = model.new("keep", "txt")
    document.current = document.written(*compose(document, random.Random(1)))  # the one that is converted
    quiet = Quiet(settled, model, findings, Watchman(settled, model, findings))
    until(lambda: not [*quiet._unsettled()], "all is as it must be at the end")
    quiet._count()
    assert not findings
    for name in sink.names():
        sink.remove(name)
    (complaint,) = quiet._unsettled()
    assert "is completed, and there is no result of version 1" in complaint
    quiet._count()
    assert list(findings.all) == ["keep/d0000.txt is completed and has no result"]


def test_what_grows_and_what_is_too_large_is_found() -> None:
    before = [Size(1, 100, 64 << 20), Size(2, 22, 36 << 20)]
    assert not [*grown(before, [Size(1, 108, 76 << 20), Size(2, 22, 36 << 20), Size(3, 500, 900 << 20)])]
    (complaint,) = grown(before, [Size(1, 109, 76 << 20), before[1]])
    assert complaint == "100 descriptors of process 1 became 109"
    (complaint,) = grown(before, [before[0], Size(2, 22, 49 << 20)])
    assert complaint == "process 2 has grown by 13 MiB"
    assert not [*too_large(Size(1, 10, 10 << 20), 10, 10 << 20)]
    assert [*too_large(Size(1, 11, 11 << 20), 10, 10 << 20)] == ["has 11 descriptors open", "holds 11 MiB"]


def test_what_the_soak_looks_at_is_the_daemon_and_its_converters(settled: World) -> None:
    sizes = [size_of(settled.pid), *until(lambda: converters(settled), "there are converters")]
    assert len({size.pid for size in sizes}) == len(sizes) > 1
    assert all(size.descriptors for size in sizes)


def test_a_damaged_job_table_is_found_while_things_go_on(tmp_path: Path) -> None:
    world, findings = World(tmp_path, None, None, ""), Findings()
    watchman = Watchman(world, Model(), findings)
    watchman._look_at_table()  # there is none yet
    world.daemon.state.mkdir()
    path = world.daemon.state / "convertd.db"
    open_for_writing(str(path)).close()
    watchman._look_at_table()
    assert not findings
    with closing(open_for_writing(str(path))) as db:
        db.execute("INSERT INTO watches (name, source, sink) VALUES ('keep', '', '')")
        db.execute("INSERT INTO counts VALUES (1, 'failed', 3)")
    watchman._look_at_table()
    assert list(findings.all) == ["the counter of keep, failed says 3, there are 0"]
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(range(256)) * 64)
    watchman._look_at_table()
    assert "PRAGMA quick_check" in list(findings.all)[1]


def test_a_large_output_is_of_one_version_and_whole() -> None:
    document, chance = Document("bkeep", "d1.txt", "txt"), random.Random(1)
    (small, text), (large, other) = compose_large(chance, 10_000), compose_large(chance, 10_000, 1 << 20)
    versions = [document.written(small, text), document.written(large, other)]
    assert len(small) < 100
    assert (1 << 20) <= len(large) < (1 << 20) + 100
    assert [document.of_markdown(output.encode()) for output in (text, other)] == versions
    assert document.of_markdown(other[:-1].encode()) is None


def test_a_sound_daemon_passes(tmp_path: Path) -> None:
    result = campaign.run(SEED, 0, actions_a_round=ACTIONS, buckets=False)
    assert result.findings == {}, "\n".join(result.log)
    assert result.rounds == 1
    assert result.jobs
    report.write_json(result, tmp_path / "result.json")
    written = json.loads((tmp_path / "result.json").read_bytes())
    assert written["actions"] == dict(result.actions)
    assert written["sizes"][0]["descriptors"] == result.sizes[0].descriptors
    assert f"--seed {SEED}" not in report.table(result)


@pytest.mark.parametrize("name", ["no-sync", "no-folder-sync", "complete-nothing"])
def test_a_planted_bug_is_found_by_the_check_that_is_there_for_it(name: str) -> None:
    result = campaign.run(SEED, 0, name, actions_a_round=4 * ACTIONS, buckets=False)
    assert PLANTS[name].found_among(result.findings), report.table(result)
    assert f"--seed {SEED} --minutes 1 --plant {name}" in report.table(result)


@pytest.mark.parametrize("name", PLANTS)
def test_a_bug_is_not_found_by_what_else_goes_wrong(name: str) -> None:
    """One that cannot be planted any more ends the daemon at its start."""
    other = ("the daemon ended by itself with 1: AttributeError", "the action failed: x", "the watchman failed: y")
    assert PLANTS[name].found_among(other) is None


def test_every_plant_says_what_it_is() -> None:
    assert all(plant.what and plant.apply.__name__.startswith("_") for plant in PLANTS.values())
