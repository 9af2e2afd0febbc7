"""The daemon dies exactly at a commit, at a step of a publish or of a disposal; the next run finishes the work."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import documents
from tests.fault.outcome import integrity, leftovers, no_orphans, states, torn
from tests.harness import DEADLINE_SECONDS, Daemon

WITH_FAULTS = ("-m", "tests.fault.daemon_with_faults")
MOST_DEATHS = 25
SIDE_BY_SIDE = 2  # runs, to use the time in which one waits
SOURCES = {
    "a.txt": b"the river a is long",
    "deep/er/b.docx": documents.docx("the river b is long"),
}
CONFIG = """
state_dir = "state"
workers = 1
[[watch]]
name = "inbox"
source = "inbox"
sink = "outbox"
on_success = "{on_success}"
"""


class Mortal(Daemon):
    """A daemon with a few documents that dies at a fault point."""

    def __init__(self, folder: Path, on_success: str = "keep", sources: Sequence[str] = tuple(SOURCES)) -> None:
        folder.mkdir()
        super().__init__(folder, CONFIG.format(on_success=on_success), WITH_FAULTS)
        self.sources = {name: SOURCES[name] for name in sources}
        for name, content in self.sources.items():
            self.drop(name, content)

    def dies_at(self, label: str, times: int) -> bool:
        """Run `--once`; False where it got through because the fault point was not reached so often."""
        process = self.launch("--once", env={"CONVERTD_DIE_AT": f"{label}:{times}"})
        code = process.wait(DEADLINE_SECONDS)
        assert code in (0, -signal.SIGKILL), self.log.read_text()[-3000:]
        return code != 0

    def finish(self) -> None:
        """A run without faults gets through and leaves every document with its whole output, and nothing else."""
        self.entry = ("-m", "daemon")
        assert self.once() == 0, self.log.read_text()[-3000:]
        for name in self.sources:
            assert torn(self.markdown(name)) is None
            assert "is long" in self.markdown(name).read_text()
        assert not list(self.outbox.rglob("*.error.json"))
        assert states(self) == dict.fromkeys(self.sources, "completed")
        assert leftovers(self.outbox) == []
        assert integrity(self) == "ok"
        no_orphans()


def at_each_time(case: Callable[[int], bool]) -> None:
    """Call `case` with 1, 2, 3 … until it says that nothing died, as the fault point was not reached so often."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for first in range(1, MOST_DEATHS, SIDE_BY_SIDE):
            died = list(pool.map(case, range(first, first + SIDE_BY_SIDE)))
            assert died[0] or first > 1, "the fault point was never reached"
            if not all(died):
                return
    raise AssertionError(f"it is reached more than {MOST_DEATHS} times: take fewer documents")


def for_each(labels: Sequence[str], case: Callable[[str], None]) -> None:
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(case, labels))


@pytest.mark.parametrize("label", ["before-commit", "after-commit"])
def test_dies_at_each_commit(tmp_path: Path, label: str) -> None:
    def case(times: int) -> bool:
        mortal = Mortal(tmp_path / str(times))
        died = mortal.dies_at(label, times)
        for name in mortal.sources:
            assert not mortal.markdown(name).exists() or torn(mortal.markdown(name)) is None
        mortal.finish()
        assert contents(mortal.inbox) == mortal.sources
        return died

    at_each_time(case)


@pytest.mark.parametrize("label", ["write", "rename", "sync"])
def test_dies_at_each_step_of_a_publish(tmp_path: Path, label: str) -> None:
    def case(times: int) -> bool:
        mortal = Mortal(tmp_path / str(times), sources=("deep/er/b.docx",))
        died = mortal.dies_at(label, times)
        mortal.finish()
        assert contents(mortal.inbox) == mortal.sources
        return died

    at_each_time(case)


MOVES = ("hide", "hidden", "make target", "move", "sync target", "moved", "sync source", "disposed")
COPIES = ("copy across", "copied across", "sync target", "moved")
DELETES = ("hide", "hidden", "unlink", "sync source", "disposed")


def test_dies_at_each_step_of_a_deletion(tmp_path: Path) -> None:
    mortals = {label: Mortal(tmp_path / label, "delete") for label in DELETES}

    def case(label: str) -> None:
        mortal = mortals[label]
        assert mortal.dies_at(label, 1), f"{label} was not reached"
        nothing_lost(mortal)
        mortal.finish()
        assert contents(mortal.inbox) == {}

    for_each(DELETES, case)


@pytest.mark.parametrize("label", ["before-commit", "after-commit"])
def test_dies_at_each_commit_of_a_deletion(tmp_path: Path, label: str) -> None:
    """All are made first: a source is not deleted within 5 s of its last change, and so that passes only once."""
    mortals = [Mortal(tmp_path / str(times), "delete", ("a.txt",)) for times in range(MOST_DEATHS + 1)]

    def case(times: int) -> bool:
        mortal = mortals[times]
        died = mortal.dies_at(label, times)
        nothing_lost(mortal)
        mortal.finish()
        assert contents(mortal.inbox) == {}
        return died

    at_each_time(case)


def test_dies_at_each_step_of_a_move(tmp_path: Path) -> None:
    die_moving(tmp_path, tmp_path, MOVES)


def test_dies_at_each_step_of_a_move_to_another_file_system(tmp_path: Path, other_file_system: Path) -> None:
    die_moving(tmp_path, other_file_system, COPIES)


def die_moving(home: Path, target: Path, labels: Sequence[str]) -> None:
    mortals = {label: Mortal(home / label, f"move:{target / ('done ' + label)}") for label in labels}

    def case(label: str) -> None:
        mortal, done = mortals[label], target / f"done {label}"
        assert mortal.dies_at(label, 1), f"{label} was not reached"
        nothing_lost(mortal, done)
        mortal.finish()
        assert contents(mortal.inbox) == {}
        assert contents(done) == mortal.sources

    for_each(labels, case)


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`."""
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no /dev/shm of another file system")
    with tempfile.TemporaryDirectory(dir=shared_memory) as folder:
        yield Path(folder)


def nothing_lost(mortal: Mortal, done: Path | None = None) -> None:
    """Right after the death: a source is still there, under whatever name, or else its outputs are there and whole."""
    there = [*contents(mortal.inbox).values(), *(contents(done).values() if done else ())]
    for name, content in mortal.sources.items():
        if content not in there:
            assert done is None, f"{name} is neither here nor there"
            assert states(mortal)[name] == "completed"
        if content not in contents(mortal.inbox).values():
            assert torn(mortal.markdown(name)) is None


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    paths = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
