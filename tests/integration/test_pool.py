"""The pool with real children behind their real sandbox, and engines that misbehave."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from daemon import keeper
from daemon.converters import talk, wire
from daemon.converters.base import Options
from daemon.errors import DocumentError, EnvironmentProblem, FatalError, Kind, Stopped, TransientError
from daemon.model import Conversion
from daemon.pool import ChildSettings, ConverterPool
from tests import documents
from tests.harness import ROOT, alive, children_of, environment, until

GIB = 1 << 30


class Pool(ConverterPool):
    """A pool that remembers its events, with a shorthand."""

    def __init__(self, engine: str | None = "Command", size: int = 1, spool: str = "", **settings: int) -> None:
        engines = {"text": (f"tests.engines_for_tests:{engine}",)} if engine else {}
        self.events: list[tuple[str, dict[str, object]]] = []
        memory_bytes = settings.pop("memory_bytes", GIB)
        super().__init__(
            ChildSettings(Options(engines=engines), memory_bytes, spool=spool, **settings),
            size,
            lambda *event: self.events.append(event),
        )

    def run(self, content: bytes | str, timeout_seconds: float = 60, name: str = "a.txt") -> Conversion:
        with (
            document(content.encode() if isinstance(content, str) else content) as fd,
            self.slot((0, 0), lambda: False) as slot,
        ):
            return slot.convert(fd, name, timeout_seconds)

    def members(self) -> list[dict[str, Any]]:
        children = self.facts()["children"]
        assert isinstance(children, list)
        return children

    def pids(self) -> set[int]:
        return {child["pid"] for child in self.members()}

    def quiet(self) -> bool:
        """Whether all that was said is that a child has served long."""
        relieved = [values["reason"] for event, values in self.events if event == "converter relieved"]
        return len(relieved) == len(self.events) > 0 and set(relieved) == {"long service"}

    def busy(self) -> int:
        return sum(child["state"] == "busy" for child in self.members())


@contextmanager
def running(pool: Pool) -> Iterator[Pool]:
    pool.start()
    try:
        yield pool
    finally:
        pool.close()


@contextmanager
def document(content: bytes) -> Iterator[int]:
    fd = os.memfd_create("document")
    try:
        os.write(fd, content)
        yield fd
    finally:
        os.close(fd)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """Two children that obey the document."""
    with running(Pool(size=2)) as pool:
        yield pool


def zombies() -> list[int]:
    return [pid for pid in children_of(os.getpid()) if not alive(pid)]


def descriptors() -> int:
    gc.collect()  # what another test has left to the collector is not ours
    return len(os.listdir("/proc/self/fd"))


def alone(check: Callable[[], None]) -> None:
    """Have a check done in a process of its own: the pool that tests share may start a child at any time."""
    command = [sys.executable, "-c", f"from {check.__module__} import {check.__name__} as check; check()"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stderr


# -- what comes back ---------------------------------------------------------------------------------------------


def test_a_conversion_carries_everything_about_it() -> None:
    content = documents.pdf(["A title line", "Second page"], title="The title")
    with running(Pool(None)) as pool:
        conversion = pool.run(content, name="report.pdf")
    assert b"A title line" in conversion.markdown
    assert conversion.sha256 == hashlib.sha256(content).hexdigest()
    assert (conversion.media_type, conversion.engine, conversion.pages) == ("application/pdf", "liteparse", 2)
    assert conversion.title == "The title"
    assert conversion.engine_version
    assert conversion.characters == len(bytes(conversion.markdown).decode())
    assert conversion.convert_seconds > 0


def test_ocr_works_behind_the_sandbox_within_one_gibibyte() -> None:
    with running(Pool(None)) as pool:
        conversion = pool.run(documents.png("The quick brown fox\njumps over the lazy dog"), name="scan.png")
    assert "quick brown" in bytes(conversion.markdown).decode()
    assert conversion.engine == "xberg-ocr"


def test_a_large_result_arrives_whole(pool: Pool) -> None:
    assert pool.run(f"Large {48 << 20}").markdown == b"x" * (48 << 20)


def test_a_large_result_takes_no_memory_of_the_daemon(tmp_path: Path) -> None:
    with running(Pool(spool=str(tmp_path))) as pool:
        small = pool.run("Echo a small one").markdown
        assert small == b"Echo a small one" and isinstance(small, bytes)
        before = anonymous_bytes()
        large = pool.run(f"Large {48 << 20}").markdown
        assert anonymous_bytes() - before < 16 << 20
        assert large == b"x" * (48 << 20)
        assert os.listdir(tmp_path) == [], "nothing of it has a name"


def test_a_result_that_the_spool_cannot_take_is_no_fault_of_the_document(tmp_path: Path) -> None:
    with running(Pool(spool=str(tmp_path / "gone"))) as pool:
        with pytest.raises(TransientError, match="gone"):
            pool.run(f"Large {48 << 20}")
        assert pool.run("Echo after").markdown == b"Echo after"


def test_a_full_spool_pauses_the_watch_however_often_it_is_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, size_bytes: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with running(Pool(spool=str(tmp_path))) as pool:
        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(EnvironmentProblem, match="No space left") as caught:
            pool.run(f"Large {48 << 20}")
        assert caught.value.certain, "what is doubtful is the document's after a few times"
        monkeypatch.undo()
        assert pool.run(f"Large {48 << 20}").markdown == b"x" * (48 << 20)


def anonymous_bytes() -> int:
    """Private memory of this process that belongs to no file."""
    status = Path("/proc/self/status").read_text()
    return sum(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem")))


def test_a_name_need_not_be_utf8(pool: Pool) -> None:
    assert pool.run("Echo", name=os.fsdecode(b"\xff\xfe.txt")).markdown == b"Echo"


def test_the_position_of_the_descriptor_is_left_alone(pool: Pool) -> None:
    with document(b"Echo this") as fd, pool.slot((0, 0), lambda: False) as slot:
        os.lseek(fd, 3, os.SEEK_SET)
        assert slot.convert(fd, "a.txt", 60).markdown == b"Echo this"
        assert os.lseek(fd, 0, os.SEEK_CUR) == 3


def test_a_child_sees_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with running(Pool()) as pool:
        folder, *names = bytes(pool.run("Environment").markdown).decode().split("\n")
    assert folder == "/"
    assert "PATH" in names and not any(name.startswith("AWS") for name in names)


# -- what documents do -------------------------------------------------------------------------------------------

ATTACKS = [
    ("Crash", Kind.CRASHED, "SIGSEGV"),
    ("Abort", Kind.CRASHED, "SIGABRT"),
    ("NativeMemory", Kind.OUT_OF_MEMORY, "memory allocation"),
    ("Memory", Kind.OUT_OF_MEMORY, "memory"),
    ("Killed", Kind.OUT_OF_MEMORY, "killed by the system"),
    ("Raise", Kind.CORRUPT, "unhappy"),
    ("Exit", Kind.CRASHED, "gave up"),
    ("Garbage", Kind.CRASHED, "broke the converter"),
    ("Truncated", Kind.CRASHED, "exit code 0"),
    ("HangUp", Kind.CRASHED, "closed the converter's connection"),
    ("Binary", Kind.CRASHED, "no text"),
    ("Impostor", Kind.CRASHED, "answer to no question"),
    ("Fork", Kind.CORRUPT, "Operation not permitted"),
    ("Program", Kind.CORRUPT, "Operation not permitted"),
    ("Connect", Kind.CORRUPT, "Operation not permitted"),
    ("KillParent", Kind.CORRUPT, "Operation not permitted"),
    ("Secret", Kind.CORRUPT, "Permission denied"),
    ("", Kind.EMPTY, "empty"),
]


@pytest.mark.parametrize(("attack", "kind", "said"), ATTACKS)
def test_each_attack_gets_its_error_and_leaves_the_others_alone(pool: Pool, attack: str, kind: Kind, said: str) -> None:
    with ThreadPoolExecutor(1) as threads:
        neighbour = threads.submit(pool.run, "Slow 0.2")
        with pytest.raises(DocumentError) as raised:
            pool.run(attack)
        assert (raised.value.kind, said in raised.value.message) == (kind, True), raised.value.message
        assert neighbour.result(60).markdown == b"Slow 0.2"
    assert pool.run("Echo after").markdown == b"Echo after"


def test_a_loop_is_killed_at_its_deadline_and_names_the_engine() -> None:
    with running(Pool("Loop", size=2)) as pool:
        with pytest.raises(DocumentError) as raised:
            pool.run("for ever", timeout_seconds=0.3)
        assert raised.value.kind is Kind.TIMEOUT
        assert "engines_for_tests:Loop did not finish within 0.3 s" in raised.value.message
        (replaced,) = [values for event, values in pool.events if event == "converter replaced"]
        assert replaced["reason"] == "time-out"
        until(lambda: not alive(int(str(replaced["pid"]))), "the looping child is dead")


def test_noise_neither_blocks_nor_breaks_a_conversion(pool: Pool) -> None:
    assert pool.run("Noise").markdown == b"noisy"
    assert pool.run("Echo after").markdown == b"Echo after"


def test_a_thread_left_behind_does_no_harm(pool: Pool) -> None:
    assert pool.run("Thread").markdown == b"Thread"
    assert pool.run("Echo after").markdown == b"Echo after"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_where_the_keeper_has_died_nothing_goes_on_and_no_document_is_to_blame() -> None:
    with ThreadPoolExecutor(1) as threads, running(Pool(size=2)) as pool:
        until(lambda: [member["state"] for member in pool.members()] == ["idle", "idle"], "both are ready")
        converting = threads.submit(pool.run, "Loop", 600)
        until(lambda: pool.busy() == 1, "the loop runs")
        pool.events = cast(Any, None)  # to add to it fails, in the keeper's thread
        (idle,) = [member["pid"] for member in pool.members() if member["state"] == "idle"]
        os.kill(idle, signal.SIGKILL)
        said = "the thread that keeps the converters has died: AttributeError"
        with pytest.raises(FatalError, match=said):
            converting.result(60)
        with pytest.raises(FatalError, match=said):
            pool.run("Echo")


def test_a_child_that_talks_unasked_is_replaced() -> None:
    with running(Pool()) as pool:
        talker = until(pool.pids, "a child")
        for content in ("Surplus", "Echo", "Echo"):
            try:
                assert pool.run(content).markdown == content.encode()
            except DocumentError as error:  # it spoke out of turn just while it had this document
                assert error.kind is Kind.CRASHED
        # What it says is found with the next document.
        until(lambda: pool.run("Echo") and not pool.pids() & talker, "the talking child is gone")
        assert pool.run("Echo after").markdown == b"Echo after"


def test_a_result_above_its_limit_is_too_large() -> None:
    with running(Pool(result_bytes=1000)) as pool:
        assert len(pool.run("Large 1000").markdown) == 1000
        with pytest.raises(DocumentError) as raised:
            pool.run("Large 1001")
        assert raised.value.kind is Kind.TOO_LARGE


def has_the_document(pool: Pool) -> bool:
    """Whether a child has mapped one. Where that may not be seen, whether one works."""
    try:
        return any("memfd:document" in Path(f"/proc/{pid}/maps").read_text() for pid in pool.pids())
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return False
    except PermissionError:
        return pool.busy() > 0


def test_a_document_cut_under_the_converters_hands_is_a_crash_not_a_hang() -> None:
    with running(Pool("Reread")) as pool, ThreadPoolExecutor(1) as threads:

        def cut() -> DocumentError | None:
            with document(b"x" * (1 << 20)) as fd, pool.slot((0, 0), lambda: False) as slot:
                converting = threads.submit(slot.convert, fd, "a.txt", 60)
                until(lambda: has_the_document(pool) or converting.done(), "the child has it before its eyes")
                os.ftruncate(fd, 1)
                error = converting.exception(60)  # none if the file was cut before the child looked at it
                return error if isinstance(error, DocumentError) else None

        error = until(cut, "a document is cut while it is read")
    assert error.kind is Kind.CRASHED
    assert "SIGBUS" in error.message


# -- slots -------------------------------------------------------------------------------------------------------


def test_looping_documents_do_not_delay_a_normal_one() -> None:
    with running(Pool(size=2)) as pool, ThreadPoolExecutor(1) as threads:
        looping: Future[Conversion] = threads.submit(pool.run, "Loop", 600)
        until(lambda: pool.busy() == 1, "the loop runs")
        assert pool.run("Echo beside").markdown == b"Echo beside"
        assert not looping.done()
        pool.kill()
        with pytest.raises(Stopped):
            looping.result(30)


def test_kill_stops_conversions_waiters_and_later_comers() -> None:
    with running(Pool(size=1)) as pool, ThreadPoolExecutor(2) as threads:
        converting = threads.submit(pool.run, "Loop", 600)
        until(lambda: pool.busy() == 1, "the loop runs")
        pids = pool.pids()
        waiting = threads.submit(pool.run, "Echo")
        pool.kill()
        for future in (converting, waiting):
            with pytest.raises(Stopped):
                future.result(30)
        with pytest.raises(Stopped):
            pool.run("Echo")
        until(lambda: not any(alive(pid) for pid in pids), "all children are dead")


def test_a_job_called_off_before_a_child_is_at_it_is_not_converted(pool: Pool) -> None:
    called_off = threading.Event()
    with document(b"Echo this") as fd, pool.slot((0, 7), lambda: False, called_off.is_set) as slot:
        called_off.set()
        with pytest.raises(Stopped):
            slot.convert(fd, "a.txt", 60)
    with document(b"Echo this") as fd, pool.slot((0, 8), lambda: False) as slot:
        assert slot.convert(fd, "a.txt", 60).markdown


def test_a_job_that_has_its_slot_is_converted_after_a_stop(pool: Pool) -> None:
    stop = threading.Event()
    with document(b"Echo this") as fd, pool.slot((0, 7), stop.is_set) as slot:
        stop.set()
        assert slot.convert(fd, "a.txt", 60).markdown


def test_a_slot_is_not_waited_for_after_a_stop() -> None:
    stop = threading.Event()
    with running(Pool(size=1)) as pool, ThreadPoolExecutor(1) as threads:

        def wait() -> None:
            with pool.slot((0, 2), stop.is_set):
                raise AssertionError("there was no free slot")

        with pool.slot((0, 1), lambda: False):
            waiting = threads.submit(wait)
            stop.set()
            with pytest.raises(Stopped):
                waiting.result(30)


# -- children come and go ----------------------------------------------------------------------------------------


def test_children_are_replaced_after_long_service() -> None:
    with running(Pool(size=1, documents_per_child=2)) as pool:
        pids = []
        for _ in range(5):
            pool.run("Echo")
            pids.append(until(lambda: pool.members() and pool.members()[-1], "a child")["pid"])
        until(lambda: pool.facts()["restarts"] == 2, "two replacements")
        assert pool.quiet()


def test_children_are_replaced_when_they_hold_too_much_memory() -> None:
    with running(Pool(size=1, rss_bytes=1)) as pool:
        pool.run("Echo")
        pool.run("Echo")
        until(lambda: pool.facts()["restarts"] == 2, "two replacements")


def test_a_child_collects_the_garbage_of_documents_and_does_not_look_through_what_it_has_loaded() -> None:
    with running(Pool("Collected")) as pool:
        assert pool.run("how?").markdown == b"True True"


def test_a_child_that_was_busy_when_another_was_replaced_is_watched_again() -> None:
    with running(Pool(size=2)) as pool, ThreadPoolExecutor(1) as threads:
        until(
            lambda: len(pool.members()) == 2 and all(one["state"] == "idle" for one in pool.members()), "two children"
        )
        slow = threads.submit(pool.run, "Slow 3")
        (pid,) = until(lambda: [one["pid"] for one in pool.members() if one["state"] == "busy"], "a busy child")
        with pytest.raises(DocumentError):
            pool.run("Crash")
        assert slow.result().markdown
        os.kill(pid, signal.SIGKILL)
        until(lambda: pid not in pool.pids(), "its end is noticed, though nothing is to be converted")
        assert ("converter replaced", {"pid": pid, "reason": "died while idle"}) in pool.events


def test_a_child_that_dies_after_its_answer_is_replaced_at_once() -> None:
    settings = wire.Settings(Options(), GIB, GIB, os.getpid())
    told: list[dict[str, object]] = []
    children = keeper.Keeper(settings, 1, lambda event, values: told.append(values))
    children.start()
    try:
        child = children.take()
        os.kill(child.pid, signal.SIGKILL)
        until(lambda: not alive(child.pid), "it is dead")
        until(lambda: child in children._hung_up, "the keeper has seen it")
        assert children.give_back(child) == "died while idle"
        (another,) = until(lambda: children.children()["idle"], "another one")
        assert another is not child
    finally:
        children.close()


def test_a_child_that_dies_idle_is_replaced_and_no_document_blamed() -> None:
    with running(Pool(size=1)) as pool:
        pool.run("Echo")
        (pid,) = pool.pids()
        os.kill(pid, signal.SIGKILL)
        assert pool.run("Echo again").markdown == b"Echo again"
        until(lambda: pid not in children_of(os.getpid()), "the dead child is reaped")
        assert ("converter replaced", {"pid": pid, "reason": "died while idle"}) in pool.events


def test_sigterm_and_sigint_are_the_parents_to_judge() -> None:
    with running(Pool(size=1)) as pool:
        pool.run("Echo")
        (pid,) = pool.pids()
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
        assert pool.run("Echo").markdown == b"Echo"
        assert pool.pids() == {pid}


@pytest.mark.parametrize(("engine", "said"), [("Broken", "libmissing.so.1"), ("Absent", "Absent")])
def test_a_converter_that_cannot_start_says_why_and_is_not_tried_for_ever(engine: str, said: str) -> None:
    with running(Pool(engine, size=2)) as pool:
        for _ in range(2):
            with pytest.raises(EnvironmentProblem) as raised:
                pool.run("Echo")
            assert said in raised.value.message
            assert raised.value.certain, "no document can be the cause"
        assert len([event for event, _ in pool.events if event == "converter did not start"]) <= 10
        assert zombies() == []


def test_from_when_no_converter_can_be_started_until_one_has_been_a_probe_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running(Pool(size=1)) as pool:
        pool.run("Echo")
        (pid,) = pool.pids()
        with monkeypatch.context() as upgraded:
            upgraded.setattr(sys, "executable", "/nonexistent/python")
            os.kill(pid, signal.SIGKILL)
            until(lambda: not pool.pids(), "its end is noticed")
            pool.probe()  # nobody has wanted one
            with pytest.raises(EnvironmentProblem, match="nonexistent"):
                pool.run("Echo")
            again_at = pool._keeper._again_at
            until(lambda: not startable(pool) and pool._keeper._again_at > again_at, "it is tried again")
            assert not startable(pool)
            assert len([event for event, _ in pool.events if event == "converter did not start"]) <= 6
        until(lambda: startable(pool), "one has been started, for nobody but who asks")
        assert pool.run("Echo again").markdown == b"Echo again"


def startable(pool: Pool) -> bool:
    try:
        pool.probe()
    except EnvironmentProblem as problem:
        assert "nonexistent" in problem.message
        return False
    return True


def test_where_no_other_can_be_started_those_that_live_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Pool(size=2)) as pool, ThreadPoolExecutor(1) as threads:
        until(lambda: [one["state"] for one in pool.members()] == ["idle", "idle"], "two children")
        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
        os.kill(pool.pids().pop(), signal.SIGKILL)
        until(lambda: len(pool.pids()) == 1, "its end is noticed")
        slow = threads.submit(pool.run, "Slow 3")
        until(lambda: pool.busy() == 1, "the other one is busy")
        assert pool.run("Echo").markdown == b"Echo"
        assert slow.result().markdown
        pool.probe()


def test_who_wants_a_fresh_one_does_not_wait_for_those_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Pool(size=2)) as pool, ThreadPoolExecutor(2) as threads:
        for first in [threads.submit(pool.run, "Slow 1") for _ in range(2)]:
            assert first.result().markdown
        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
        slow = threads.submit(pool.run, "Slow 3")
        until(lambda: pool.busy() == 1, "one is busy")
        with pytest.raises(EnvironmentProblem, match="no converter can be started"):
            pool.run("Crash")  # whose second attempt is to be in a fresh one
        assert not slow.done()
        pool.probe()  # one lives
        assert slow.result().markdown


def nothing_leaks() -> None:
    with running(Pool(size=2)) as pool:
        pool.run("Echo")
        until(lambda: {child["state"] for child in pool.members()} == {"idle"}, "both children are ready")
        before = descriptors()
        with ThreadPoolExecutor(2) as threads:
            for future in [threads.submit(pool.run, ("Echo", "Raise", "Echo")[n % 3]) for n in range(190)]:
                assert future.exception(60) is None or isinstance(future.exception(), DocumentError)
            for future in [threads.submit(pool.run, ("Crash", "Garbage")[n % 2]) for n in range(10)]:
                assert isinstance(future.exception(60), DocumentError)
        until(lambda: len(pool.members()) == 2 and not zombies(), "two children and no zombie")
        until(lambda: descriptors() <= before, "no descriptor more than before")
        assert 10 <= int(str(pool.facts()["restarts"])) <= 20, "a crash after other documents is asked for twice"
    assert not children_of(os.getpid())


def test_nothing_leaks_over_many_documents_and_crashes() -> None:
    alone(nothing_leaks)


def test_a_child_that_lost_its_address_space_is_replaced_before_the_next_document() -> None:
    with running(Pool()) as pool:
        pool.run("Leak it")
        assert pool.run("Echo words").markdown == b"Echo words"
        assert pool.facts()["restarts"] == 1


def test_a_document_is_not_blamed_for_what_an_earlier_one_does_to_its_child() -> None:
    with running(Pool()) as pool:
        pool.run("DieNext once")
        assert pool.run("Slow 1").markdown == b"Slow 1"


def test_a_document_is_not_blamed_for_a_child_that_hangs_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "BEGIN_SECONDS", 1.0)
    with running(Pool()) as pool:
        pool.run("Stuck once")
        pid = next(iter(pool.pids()))
        until(lambda: Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T", "it is stopped")
        assert pool.run("Echo words").markdown == b"Echo words"


def test_a_document_is_not_held_up_by_half_a_word_about_the_one_before() -> None:
    with running(Pool()) as pool, ThreadPoolExecutor(1) as threads:
        pool.run("HalfAWord once")
        (child,) = pool._keeper.children()["idle"]
        assert select.select([child], [], [], 60)[0], "it is said"
        following = threads.submit(pool.run, "Echo words")
        assert following.result(talk.BEGIN_SECONDS / 2).markdown == b"Echo words"
        assert [values["reason"] for _, values in pool.events] == ["garbage: half a message"]


def test_a_document_that_crashes_a_fresh_child_is_to_blame() -> None:
    with running(Pool()) as pool:
        pool.run("Echo words")
        with pytest.raises(DocumentError) as caught:
            pool.run("Crash it")
        assert caught.value.kind is Kind.CRASHED
        until(lambda: pool.facts()["restarts"] == 2, "the fresh one is replaced, too")


@pytest.mark.parametrize("how", ["crash", "memory"])
def test_a_second_child_is_a_fresh_one_however_many_have_served(how: str) -> None:
    with running(Pool(size=6)) as pool, ThreadPoolExecutor(6) as threads:

        def all_served() -> bool:
            list(threads.map(pool.run, ["Slow 0.2"] * 6))
            return len(pool.members()) == 6 and all(child["documents"] for child in pool.members())

        until(all_served, "all children have served")
        pids = pool.pids()
        pool.run("Spoil")
        assert pool.run(f"Suffer {how}").markdown == f"Suffer {how}".encode()
        assert len(pids & pool.pids()) >= 4, "at most one gave room beside the spoilt one"


def test_a_child_in_which_documents_leave_threads_is_replaced() -> None:
    with running(Pool()) as pool:
        pool.run("Threads")
        pool.run("Echo")
        assert pool.facts()["restarts"] == 1
        assert pool.quiet()


def test_words_of_a_document_cannot_steer_a_terminal(pool: Pool) -> None:
    with pytest.raises(DocumentError) as raised:
        pool.run("Escape")
    assert raised.value.message.startswith("bad") and raised.value.message.isprintable()


def close_leaves_nothing() -> None:
    threads, open_before = set(threading.enumerate()), descriptors()
    with running(Pool(size=2)) as pool:
        pool.run("Echo")
        until(lambda: len(pool.pids()) == 2, "two children")
    assert not children_of(os.getpid())
    assert set(threading.enumerate()) == threads
    assert descriptors() == open_before
    pool.close()


def test_close_leaves_no_process_thread_or_descriptor() -> None:
    alone(close_leaves_nothing)


OLD_KERNEL = """
import ctypes, platform, sys
from daemon import sandbox, seccomp
from tests import documents
from tests.integration.test_pool import Pool, running
missing = (sandbox.CREATE_RULESET, seccomp.SECCOMP_CALL[platform.machine()])[: int(sys.argv[1])]
code = [(seccomp.LOAD, 0, 0, seccomp.NUMBER_OFFSET)]
for number in missing:
    code += [(seccomp.EQUAL, 0, 1, number), seccomp.MISSING]
libc = ctypes.CDLL(None)
libc.prctl(sandbox.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
assert seccomp.attach(libc, [*code, seccomp.ALLOW])
with running(Pool(None, size=2)) as pool:
    assert pool.run("Echo").markdown == b"Echo"
    scan = documents.png("The quick brown fox\\njumps over the lazy dog")
    assert b"quick brown" in pool.run(scan, name="scan.png").markdown
print([values for event, values in pool.events if event == "converter sandbox incomplete"])
"""


@pytest.mark.parametrize("missing", [1, 2])
def test_an_old_kernel_is_reported_and_lived_with(missing: int) -> None:
    command = [sys.executable, "-c", OLD_KERNEL, str(missing)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == f"[{{'landlock_abi': 0, 'seccomp': {missing == 1}}}]", done.stderr


PARENT = """
import os, sys, threading
from tests.integration.test_pool import Pool
pool = Pool("Command", size=2)
pool.start()
for _ in range(2):
    threading.Thread(target=pool.run, args=("Loop", 600), daemon=True).start()
while pool.busy() < 2:
    threading.Event().wait(0.01)
print(*pool.pids(), flush=True)
threading.Event().wait()
"""


def test_no_child_survives_a_kill_of_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(alive(pid) for pid in pids)
        parent.kill()
    until(lambda: not any(alive(pid) for pid in pids), "the children die with their parent")


def test_processes_that_cannot_be_started_are_told_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the user may have no more of them: there is no child then whose end would wake anybody."""

    def refuse(settings: object, spool: str) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(keeper, "ChildProcess", refuse)
    pool = Pool()
    pool.start()
    try:
        with pytest.raises(EnvironmentProblem, match="Resource temporarily unavailable"):
            pool.run("words")
    finally:
        pool.close()
    assert len(pool.events) >= keeper.START_ATTEMPTS
