"""Where a fetched document lies: in memory that is bounded and served by order, or in a spool without names."""

from __future__ import annotations

import errno
import mmap
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.errors import EnvironmentProblem, Stopped, TransientError
from daemon.payload import Budget, Payloads
from tests.harness import until

SECONDS = 20.0
FIRST, SECOND, THIRD = (-9, 3), (-5, 1), (-5, 2)
"""Orders: a higher priority goes first, then the older job."""


class Waiter:
    """A thread that reserves memory and holds it until it is let go."""

    def __init__(self, budget: Budget, name: str, size_bytes: int, order: tuple[int, int], held: queue.Queue[str]):
        self.waiting, self.let_go, self.stop = threading.Event(), threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self._arguments = (budget, name, size_bytes, order, held)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        budget, name, size_bytes, order, held = self._arguments
        try:
            with budget.reserved(size_bytes, order, self._stopped):
                held.put(name)
                self.let_go.wait(SECONDS)
        except Stopped as error:
            self.error = error

    def _stopped(self) -> bool:
        self.waiting.set()  # it is asked only by who has to wait
        return self.stop.is_set()

    def join(self) -> None:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()


class Queue:
    """Waiters of one budget, and the order in which they were served."""

    def __init__(self, total_bytes: int) -> None:
        self.budget = Budget(total_bytes)
        self.held: queue.Queue[str] = queue.Queue()
        self.waiters: list[Waiter] = []

    def served(self, name: str, size_bytes: int, order: tuple[int, int] = SECOND) -> Waiter:
        """One that is served at once."""
        waiter = self._new(name, size_bytes, order)
        assert self.next() == name
        return waiter

    def waits(self, name: str, size_bytes: int, order: tuple[int, int] = SECOND) -> Waiter:
        """One that has to wait."""
        waiter = self._new(name, size_bytes, order)
        assert waiter.waiting.wait(SECONDS)
        assert self.held.empty()
        return waiter

    def next(self) -> str:
        return self.held.get(timeout=SECONDS)

    def _new(self, name: str, size_bytes: int, order: tuple[int, int]) -> Waiter:
        self.waiters.append(Waiter(self.budget, name, size_bytes, order, self.held))
        return self.waiters[-1]


@contextmanager
def waiters_of(total_bytes: int) -> Iterator[Queue]:
    queued = Queue(total_bytes)
    yield queued
    for waiter in queued.waiters:
        waiter.let_go.set()
    for waiter in queued.waiters:
        waiter.join()


def test_who_fits_need_not_wait_and_the_sum_never_exceeds_the_total() -> None:
    with waiters_of(100) as queued:
        queued.served("a", 60)
        queued.served("b", 40)
        queued.waits("c", 1)
        queued.waiters[0].let_go.set()
        assert queued.next() == "c"
        queued.served("d", 59)
        queued.waits("e", 1)


def test_the_lowest_order_is_served_first() -> None:
    with waiters_of(100) as queued:
        holder = queued.served("holder", 100)
        third = queued.waits("third", 100, THIRD)
        second = queued.waits("second", 100, SECOND)
        first = queued.waits("first", 100, FIRST)
        for before, name in ((holder, "first"), (first, "second"), (second, "third")):
            before.let_go.set()
            assert queued.next() == name
        third.let_go.set()


def test_of_the_same_order_the_one_that_came_first_is_served_first() -> None:
    with waiters_of(100) as queued:
        holder = queued.served("holder", 100)
        names = [str(number) for number in range(5)]
        waiters = [queued.waits(name, 100) for name in names]
        for before, name in zip([holder, *waiters], names, strict=False):
            before.let_go.set()
            assert queued.next() == name


def test_nobody_is_overtaken_by_a_smaller_one() -> None:
    with waiters_of(100) as queued:
        queued.served("holder", 60)
        queued.waits("large", 80, FIRST)
        queued.waits("small", 10, SECOND)  # there is room for it, but it is not its turn
        queued.waiters[0].let_go.set()
        assert queued.next() == "large"
        assert queued.next() == "small"


def test_a_stop_ends_the_waiting_and_lets_the_next_one_in() -> None:
    with waiters_of(100) as queued:
        queued.served("holder", 60)
        large = queued.waits("large", 80, FIRST)
        queued.waits("small", 10, SECOND)
        large.stop.set()
        large.join()
        assert isinstance(large.error, Stopped)
        assert queued.next() == "small"


def test_memory_comes_back_when_its_holder_fails() -> None:
    budget = Budget(100)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), budget.reserved(100, SECOND, lambda: True):
            raise ZeroDivisionError


# ---------------------------------------------------------------- documents


@pytest.fixture
def payloads(tmp_path: Path) -> Iterator[Payloads]:
    """Room for 100 bytes in memory; what has more than 50 goes to the spool. No descriptor is left open."""
    before = sorted(os.listdir("/proc/self/fd"))
    yield Payloads(str(tmp_path), 100, 50)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("size_bytes", "in_memory"), [(0, True), (50, True), (51, False), (1 << 20, False)])
def test_what_was_written_can_be_read_and_has_a_name_nowhere(
    payloads: Payloads, tmp_path: Path, size_bytes: int, in_memory: bool
) -> None:
    content = os.urandom(size_bytes)
    with payloads.new(size_bytes, SECOND) as payload:
        assert payload.in_memory is in_memory
        assert os.fstat(payload.fd).st_size == size_bytes
        assert os.pwrite(payload.fd, content, 0) == size_bytes
        assert os.listdir(tmp_path) == []
        payload.seal()
        assert os.pread(payload.fd, size_bytes + 1, 0) == content
        assert os.fstat(payload.fd).st_nlink == 0
        assert not os.get_inheritable(payload.fd)


def test_a_sealed_document_in_memory_cannot_be_changed(payloads: Payloads) -> None:
    with payloads.new(50, SECOND) as payload:
        os.pwrite(payload.fd, b"x" * 50, 0)
        payload.seal()
        again = os.open(f"/proc/self/fd/{payload.fd}", os.O_RDWR)  # as a process may that is handed the descriptor
        try:
            for fd in (payload.fd, again):
                with pytest.raises(PermissionError):
                    os.pwrite(fd, b"y", 0)
                with pytest.raises(PermissionError):
                    os.pwrite(fd, b"y", 50)
                with pytest.raises(PermissionError):
                    os.ftruncate(fd, 51)
                with pytest.raises(PermissionError):
                    os.ftruncate(fd, 49)
                with pytest.raises(PermissionError):
                    mmap.mmap(fd, 50)
        finally:
            os.close(again)
        with mmap.mmap(payload.fd, 50, access=mmap.ACCESS_READ) as mapped:
            assert mapped[:] == b"x" * 50


def test_a_sealed_document_of_the_spool_is_open_for_reading_only(payloads: Payloads) -> None:
    with payloads.new(51, SECOND) as payload:
        os.pwrite(payload.fd, b"x" * 51, 0)
        payload.seal()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(payload.fd, b"y", 0)
        with pytest.raises(OSError, match=r"Invalid argument|Bad file descriptor"):
            os.ftruncate(payload.fd, 52)
        with pytest.raises(PermissionError):
            mmap.mmap(payload.fd, 51)
        assert os.pread(payload.fd, 100, 0) == b"x" * 51


def test_documents_in_memory_share_the_budget_and_those_of_the_spool_need_none(tmp_path: Path) -> None:
    stop, served = threading.Event(), threading.Event()
    payloads = Payloads(str(tmp_path), 100, 50, stop.is_set)

    def third() -> None:
        with payloads.new(50, SECOND):
            served.set()

    with payloads.new(50, FIRST), payloads.new(50, FIRST), payloads.new(1000, FIRST):
        thread = threading.Thread(target=third)
        thread.start()
        assert not served.wait(0.1)
    assert served.wait(SECONDS)
    thread.join(SECONDS)
    with payloads.new(50, FIRST), payloads.new(50, FIRST):
        stop.set()
        with pytest.raises(Stopped), payloads.new(50, SECOND):
            pass


def test_room_is_given_back_when_the_document_fails(payloads: Payloads) -> None:
    for size_bytes in (50, 50, 50, 51):
        with pytest.raises(ZeroDivisionError), payloads.new(size_bytes, SECOND):
            raise ZeroDivisionError


def test_a_full_disk_is_the_surroundings_and_any_other_error_an_attempt(
    payloads: Payloads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(error: int) -> None:
        def raise_it(*_: object) -> None:
            raise OSError(error, os.strerror(error))

        monkeypatch.setattr(os, "posix_fallocate", raise_it)

    for error in (errno.ENOSPC, errno.EDQUOT):
        refuse(error)
        with pytest.raises(EnvironmentProblem, match="no room for 51 bytes"), payloads.new(51, SECOND):
            pass
    refuse(errno.EIO)
    with pytest.raises(TransientError, match="Input/output error"), payloads.new(51, SECOND):
        pass
    with payloads.new(50, SECOND):
        pass  # what lies in memory does not care


def test_a_spool_that_is_gone_is_an_attempt_that_failed(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="No such file"), Payloads(str(tmp_path / "gone"), 100, 50).new(51, SECOND):
        pass


def test_a_file_system_without_unnamed_files_will_do(
    payloads: Payloads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def without(path: str, flags: int, *arguments: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *arguments)

    monkeypatch.setattr(os, "open", without)
    with payloads.new(51, SECOND) as payload:
        assert os.listdir(tmp_path) == []
        os.pwrite(payload.fd, b"x" * 51, 0)
        payload.seal()
        assert os.pread(payload.fd, 100, 0) == b"x" * 51


def test_a_thousand_documents_on_many_threads_end(tmp_path: Path) -> None:
    """Nobody waits for ever, whatever the sizes and the orders are."""
    payloads, numbers, done = Payloads(str(tmp_path), 100, 100), iter(range(1000)), []
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            with payloads.new(number * 37 % 101, (-(number % 10), number)) as payload:
                os.pwrite(payload.fd, b"x", 0) if payload.fd and number * 37 % 101 else None
            done.append(number)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(done) == 1000, "all documents are through", 60)
    for thread in threads:
        thread.join(SECONDS)
