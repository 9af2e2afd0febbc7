"""The daemon dies between a copy and its answer, or between a result and the end of the copy: nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fault.outcome import integrity, leftovers, torn
from tests.fault.test_fault_points import CONFIG, WITH_FAULTS, at_each_time
from tests.harness import DEADLINE_SECONDS, Daemon, until

CONTENT = b"the river is long"
NAME = "submitted/x/a.txt"


class Mortal(Daemon):
    """A daemon that a document is submitted to and that dies at a fault point."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        super().__init__(folder, CONFIG.format(on_success="keep"), WITH_FAULTS)
        self.mine = folder / "a.txt"
        self.mine.write_bytes(CONTENT)

    def submit(self, *options: str) -> int:
        return int(self.command("submit", str(self.mine), "--batch", "x", *options).returncode)

    def copies(self) -> list[str]:
        return os.listdir(self.state / "submitted")

    def ends_well(self) -> None:
        """A run without faults completes what was submitted, and leaves nothing behind."""
        assert torn(self.markdown(NAME)) is None
        assert "is long" in self.markdown(NAME).read_text()
        assert [(job["source"], job["state"]) for job in self.jobs()] == [(NAME, "completed")]
        until(lambda: not self.copies(), "no copy is left")
        assert self.mine.read_bytes() == CONTENT
        self.stop()
        assert leftovers(self.outbox) == []
        assert integrity(self) == "ok"


STEPS = {
    "intake copy": False,
    "intake copied": False,
    "intake rename": False,
    "intake sync": False,
    "submit record": False,
    "submit recorded": True,
    "submit answer": True,
}


@pytest.mark.parametrize("label", STEPS)
def test_dies_before_the_answer(tmp_path: Path, label: str) -> None:
    """The command says that it got no answer; asked again it hands over the same document, and not a second one."""
    mortal = Mortal(tmp_path / "home")
    try:
        process = mortal.start(env={"CONVERTD_DIE_AT": f"{label}:1"}).process
        assert process is not None
        assert mortal.submit() == 1
        process.wait(DEADLINE_SECONDS)
        assert len(mortal.jobs()) == STEPS[label]
        mortal.entry = ("-m", "daemon")
        mortal.start()
        assert len(mortal.copies()) <= STEPS[label], "what has no job is swept"
        assert mortal.submit("--wait") == 0
        mortal.ends_well()
    finally:
        mortal.close()


@pytest.mark.parametrize("label", ["before-commit", "after-commit"])
def test_dies_at_each_commit(tmp_path: Path, label: str) -> None:
    """From the copy to its end; whoever had an answer finds the document converted, whoever had none asks again."""

    def case(times: int) -> bool:
        mortal = Mortal(tmp_path / str(times))
        try:
            process = mortal.launch(env={"CONVERTD_DIE_AT": f"{label}:{times}"})
            until(lambda: process.poll() is not None or (mortal.state / "control.sock").exists(), "it runs, or died")
            answered = mortal.submit() == 0
            died = dies(mortal)
            if not died:
                mortal.stop()
            mortal.entry = ("-m", "daemon")
            mortal.start()
            if not answered:
                assert mortal.submit() == 0
            until(lambda: [job for job in mortal.jobs() if job["state"] == "completed"], "the document is converted")
            mortal.ends_well()
            return died
        finally:
            mortal.close()

    at_each_time(case)


def dies(mortal: Mortal) -> bool:
    """Wait until the daemon has died or has nothing more to do."""
    assert mortal.process is not None
    process = mortal.process

    def over() -> bool:
        done = any(job["state"] == "completed" for job in mortal.jobs()) and not mortal.copies()
        return process.poll() is not None or done

    until(over, "the daemon died, or it is at its end")
    return process.poll() is not None
