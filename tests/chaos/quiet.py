"""The end of a round: everything is mended, and all that was begun must come to its right end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from threading import Event
from typing import Any

from tests.chaos import manifests
from tests.chaos.accounts import miscounted, put_back
from tests.chaos.checks import FINAL, Findings, Watchman, too_large
from tests.chaos.commands import DONE
from tests.chaos.documents_of import swap_while_fetched
from tests.chaos.faults_of import back
from tests.chaos.layout import Watch
from tests.chaos.model import Document, Model, compose
from tests.chaos.operators import BAD, go_on, hold, refuse, retry_jobs
from tests.chaos.pausing import EVERYTHING
from tests.chaos.places import DISPOSING, Folder, is_hidden, starts
from tests.chaos.processes import Size, size_of
from tests.chaos.waiting import within
from tests.chaos.world import World
from tests.chaos.writing import appear
from tests.fault.outcome import integrity

STALLED_SECONDS = 75.0
"""Without anything moving. However slow a machine is, something moves."""
SWAP_SECONDS = 30.0
LOOK_SECONDS, MEET_SECONDS, PAUSED_SECONDS = 0.3, 10.0, 0.5
MOST_DESCRIPTORS, MOST_RESIDENT_BYTES = 160, 200 << 20
"""Of a daemon at rest: 66 to 112, and 75 MiB, are normal."""
MOST_CONVERTER_DESCRIPTORS, MOST_CONVERTER_BYTES = 48, (768 + 64) << 20
"""Of a converter at rest: it is replaced above 768 MiB; 22 and 35 MiB are normal."""
BLAMELESS = frozenset({"crashed", "timeout", "unreadable", "internal", "out_of_memory"})
"""What a sound document may fail with where converters are killed and stopped, and disks and servers are sick."""
OLDER = "is about an older version of its document"
"""Why a job may be refused to be tried again."""
LEFT = (".convertd-canary-", DISPOSING)
LEFT_SECONDS = 10.0
"""How long what is unfinished may be seen at most."""


class Quiet:
    """Brings a round to its end and judges it. Findings of a healed world are no race: nothing is going on any more."""

    def __init__(self, world: World, model: Model, findings: Findings, watchman: Watchman) -> None:
        self._world, self._model, self._findings, self._watchman = world, model, findings, watchman
        self.sizes: list[Size] = []

    def reach(self) -> bool:
        """Mend all, wait, judge. False where it was never reached."""
        self._go_on()
        self._heal()
        for _ in range(3):
            if not self._settled():
                return False
            if not (again := self._to_retry()):
                break
            self._retry(again)
        if not (self._repeats() and self._is_operated() and self._is_swapped() and self._refuses()):
            return False
        for complaint in put_back(self._world, STALLED_SECONDS):
            self._findings.add(complaint)
        self._judge()
        return True

    def _repeats(self) -> bool:
        """An attempt that fails is made again by the same daemon: one that is started again would make it anyway."""
        document = self._model.new("keep", "txt")
        self._world.arm("write", "EIO", 0, 1)
        appear(self._world, document, *compose(document, random.Random(document.name)))
        return self._settled()

    def _is_operated(self) -> bool:
        """A bad configuration is refused; while all is paused, documents are found and none is begun. This one comes to
        a batch that may be complete, and makes it another manifest."""
        document = self._model.new("move", "txt", "one/d")
        chance = random.Random(document.name)
        refuse(self._world, chance.choice(BAD))
        paused = hold(self._world, EVERYTHING)
        appear(self._world, document, *compose(document, chance))
        if not within(STALLED_SECONDS, lambda: not self._world.ensure() and self._world.newest_job(document)):
            self._findings.add(f"{document.name} is not found while all is paused")
        Event().wait(PAUSED_SECONDS)
        if paused.returncode != DONE:
            self._findings.add(f"a sound daemon does not pause: {paused.stderr[:500]}")
        self._resume()
        return self._settled()

    def _is_swapped(self) -> bool:
        """An object is swapped while it is fetched. Amid faults it may not be fetched in time; here there is time."""
        swap_while_fetched(self._world, self._model, random.Random(len(self._model)), SWAP_SECONDS)
        return self._settled()

    def _refuses(self) -> bool:
        """What no engine converts goes where its watch wants it: few of them come to the watch that moves it."""
        document = self._model.new("extra", "txt", "hostile")
        content = compose(document, random.Random(document.name), hostile="Raise")
        appear(self._world, document, *content, hostile=True)
        return self._settled()

    def _go_on(self) -> None:
        """Most of what a round has begun is done only now: what is armed is given some time to be met."""
        if self._world.proxy is not None:
            self._world.proxy.clear()
        until = time.monotonic() + MEET_SECONDS
        while self._world.is_armed() and not self._findings and time.monotonic() < until:
            self._world.ensure()
            Event().wait(LOOK_SECONDS)

    def _heal(self) -> None:
        world = self._world
        world.disarm()
        world.wait_for_writers()
        back(world)
        world.ensure()
        world.signal(signal.SIGCONT)
        for child in world.children():
            os.kill(child, signal.SIGCONT)
        world.served = set(world.watches)
        world.configure()
        self._wait_until_it_listens()
        world.hang_up()
        self._resume()

    def _wait_until_it_listens(self) -> None:
        until = time.monotonic() + STALLED_SECONDS
        while not self._world.listens() and time.monotonic() < until:
            self._world.ensure()
            Event().wait(0.05)

    def _resume(self) -> None:
        """Lift all pauses, until that is said to be done: a document may kill the daemon right under the command.

        Where a daemon was killed before it had a job table, and the next has none yet, there is nothing to tell.
        """
        within(STALLED_SECONDS, lambda: not self._world.ensure() and self._world.rows("SELECT 1 FROM watches"))
        until = time.monotonic() + STALLED_SECONDS
        while (told := go_on(self._world, EVERYTHING)).returncode != DONE:
            if time.monotonic() > until:
                self._findings.add(f"a sound daemon does not resume: {told.stderr[:500]}")
                return
            self._world.ensure()
            Event().wait(LOOK_SECONDS)
        if paused := self._world.rows(_PAUSED):
            self._findings.add(f"all is said to go on, and paused are {paused}")

    def _retry(self, ids: list[int]) -> None:
        """Nothing stands in the way any more, but that a newer version has been found just now."""
        told = retry_jobs(self._world, self._model, ids)
        refused = [line for line in told.stderr.splitlines() if OLDER not in line]
        if told.returncode != DONE and (refused or not told.stderr):
            self._findings.add(f"a sound daemon does not retry {ids}: {told.returncode}, {refused}")

    # -- waiting -------------------------------------------------------------------------------------------------

    def _settled(self) -> bool:
        """Wait until nothing is left to be done, as long as something moves; no longer once something is found."""
        moved, last = time.monotonic(), None
        while complaints := list(self._unsettled()):
            if self._findings:
                return False
            self._world.ensure()
            signs = (self._signs(), len(complaints))
            if signs != last:
                moved, last = time.monotonic(), signs
            if time.monotonic() - moved > STALLED_SECONDS:
                for complaint in complaints[:10]:
                    self._findings.add(f"never came to its end: {complaint}")
                return False
            Event().wait(LOOK_SECONDS)
        return True

    def _signs(self) -> object:
        return tuple(self._world.rows(_SIGNS)), sum(self._world.deaths.values())

    def _unsettled(self) -> Iterator[str]:
        rows = self._world.rows(
            """SELECT j.id, w.name, j.source, j.state, j.disposal FROM jobs j JOIN watches w ON w.id = j.watch
               WHERE j.state IN ('pending', 'processing') OR j.disposal IS NOT NULL"""
        )
        for job_id, watch, source, state, disposal in rows:
            yield f"job {job_id} of {watch}/{os.fsdecode(source)} is {state}{', to be disposed of' if disposal else ''}"
        yield from manifests.unwritten(self._world)
        if waiting := self._world.rows(_UNTOLD):
            yield f"{waiting[0][0]} events are not delivered"
        if rows:
            return
        newest = self._newest()
        for watch in self._world.watches.values():
            self._watchman.outputs.look(watch)
            present = watch.source.names()
            for document in self._model.of(watch.name):
                complaint = self._expected(watch, document, newest.get((watch.name, document.name)), present)
                if complaint is not None:
                    yield f"{watch.name}/{document.name}: {complaint}"

    def _newest(self) -> dict[tuple[str, str], tuple[int, str, str]]:
        rows = self._world.rows(
            """SELECT w.name, j.source, j.id, j.state, j.error_kind FROM jobs j JOIN watches w ON w.id = j.watch
               ORDER BY j.id"""
        )
        return {(name, os.fsdecode(source)): (job, state, kind) for name, source, job, state, kind in rows}

    def _expected(
        self, watch: Watch, document: Document, job: tuple[int, str, str] | None, present: dict[str, Any]
    ) -> str | None:
        """What is not yet as it must be at the end."""
        version = document.current
        if version is None:
            return None
        if job is None:
            return "it has no job"
        if job[1] in ("cancelled", "failed"):  # judged, and tried again
            stays = job[1] == "failed" and watch.failed is not None and document.name in present
            return f"job {job[0]} has failed, and the source is still there" if stays else None
        seen = self._watchman.outputs.last(watch)
        found, about = seen.markdown.get(document.name), seen.sidecar.get(document.name)
        if found != version or about != version:
            return f"job {job[0]} is {job[1]}, and there is no result of version {version.number}"
        if document.name in seen.failed:
            return "it has an error file beside its result"
        if not seen.fits(document.name):
            return "its Markdown is not what its sidecar says"
        if document.submitted:
            return None
        if watch.action != "keep" and document.name in present:
            return f"job {job[0]} is {job[1]}, and the source is still there"
        if watch.action == "keep" and watch.failed is None and document.name not in present:
            return "the source is gone"
        return self._watchman.missing(watch, document)

    # -- judging -------------------------------------------------------------------------------------------------

    def _to_retry(self) -> list[int]:
        """Jobs that operators have called off, or that failed for what the campaign has done."""
        again = []
        for (watch, name), (job, state, kind) in self._newest().items():
            document = self._model.find(watch, name)
            if document is None or document.current is None or state not in ("failed", "cancelled"):
                continue
            if state == "cancelled":
                if not document.poison:
                    again.append(job)
            elif not document.fails():
                if kind not in BLAMELESS:
                    self._findings.add(f"{watch}/{name} is sound and failed as {kind}")
                again.append(job)
            elif name not in self._watchman.outputs.look(self._world.watches[watch]).failed:
                self._findings.add(f"{watch}/{name} has failed without an error file")
        return again

    def _judge(self) -> None:
        if (said := integrity(self._world.daemon)) != "ok":
            self._findings.add(f"PRAGMA integrity_check: {said}")
        self._count()
        self._look_at_sources()
        self._look_at_events()
        for complaint in manifests.wrong(self._world, self._model):
            self._findings.add(complaint)
        for watch in self._world.watches.values():
            self._look_for_leftovers(watch)
        wanted = {os.fsdecode(row[0]) for row in self._world.rows(_COPIES)}
        copies = {path.name for path in (self._world.home / "state" / "submitted").iterdir()}
        if copies != wanted:
            self._findings.add(f"copies of submitted documents: {sorted(copies)}, jobs have {sorted(wanted)}")
        spool = [path.name for path in (self._world.home / "state" / "spool").iterdir()]
        if spool:
            self._findings.add(f"left in the spool: {spool}")
        self._look_at_size()

    def _count(self) -> None:
        """The counters are right, and every job that says it has a result has one."""
        for complaint in miscounted(self._world):
            self._findings.add(complaint)
        rows = self._world.rows(_WITH_RESULT)
        sinks = {name: self._watchman.outputs.look(watch) for name, watch in self._world.watches.items()}
        for name, source in rows:
            document = os.fsdecode(source)
            if document not in sinks[name].markdown or document not in sinks[name].sidecar:
                self._findings.add(f"{name}/{document} is completed and has no result")

    def _look_at_sources(self) -> None:
        """Each document that lies in a source has a job, the newest of which has ended."""
        newest = self._newest()
        for watch in self._world.watches.values():
            for name in watch.source.names():
                if is_hidden(name):
                    continue
                _, state, _ = newest.get((watch.name, name), (0, "missing", ""))
                if state not in FINAL:
                    self._findings.add(f"{watch.name}/{name} lies there, and its newest job is {state}")

    def _look_at_events(self) -> None:
        """Of every job that has been completed, or has failed, somebody was told."""
        told = {(event["job"], event["kind"]) for event in self._world.events()}
        ended = {(int(job), str(state)) for job, state in self._world.rows(_ENDED)}
        if untold := sorted(ended - told):
            self._findings.add(f"nobody was told of {untold[:5]}")

    def _look_for_leftovers(self, watch: Watch) -> None:
        """What stays: a probe may be under way just now."""
        left, until = _left_by(watch), time.monotonic() + LEFT_SECONDS
        while left and time.monotonic() < until:
            Event().wait(LOOK_SECONDS)
            left &= _left_by(watch)
        if left:
            self._findings.add(f"left by {watch.name}: {sorted(left)[:5]}")

    def _look_at_size(self) -> None:
        try:
            size = size_of(self._world.pid)
        except OSError:
            return
        self.sizes.append(size)
        for complaint in too_large(size, MOST_DESCRIPTORS, MOST_RESIDENT_BYTES):
            self._findings.add(f"the daemon, at rest, {complaint}")
        for converter in converters(self._world):
            for complaint in too_large(converter, MOST_CONVERTER_DESCRIPTORS, MOST_CONVERTER_BYTES):
                self._findings.add(f"converter {converter.pid}, at rest, {complaint}")


_PAUSED = "SELECT name FROM watches WHERE paused UNION ALL SELECT 'all' FROM dispatch WHERE paused"
_SIGNS = """SELECT state, count(*), max(id), sum(attempts), sum(interruptions), sum(disposal IS NULL) FROM jobs
            GROUP BY 1"""
_UNTOLD = "SELECT count(*) FROM events WHERE id > (SELECT min(delivered) FROM targets) HAVING count(*) > 0"
_ENDED = "SELECT id, state FROM jobs WHERE state IN ('completed', 'failed')"
_COPIES = "SELECT location FROM jobs WHERE submitted = 1 AND location IS NOT NULL"
_WITH_RESULT = """SELECT DISTINCT w.name, j.source FROM jobs j JOIN watches w ON w.id = j.watch
                  WHERE j.state = 'completed'"""


def converters(world: World) -> list[Size]:
    """What those of the daemon that runs hold; one that has just been replaced is left out."""
    sizes = []
    for pid in world.children():
        with contextlib.suppress(OSError):
            sizes.append(size_of(pid))
    return sizes


def _left_by(watch: Watch) -> set[str]:
    """The names of unfinished files in all its places."""
    left: set[str] = set()
    for place in (watch.source, watch.sink, watch.done, watch.failed):
        if place is not None:
            left.update(name for name in place.names() if starts(name, *LEFT))
            if isinstance(place, Folder):
                left.update(path.name for path in place.path.glob(".convertd-tmp/*"))
    return left
