"""Power cuts while convertd works: `python -m tests.fault.power_cut [--cuts N] [--seed S] [--plant no-fsync]`.

A virtual machine works on a disk that loses what was not flushed. Its power is cut at a moment of chance; it boots
again on what is left; what it had been told to be safe must be there. Ends with 1 if anything is not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import guest
from tests.volatile_disk import VolatileDisk

DISK_BYTES = 192 << 20
DOCUMENTS = 30
BOOT_SECONDS = 240.0
DRAIN_SECONDS = 400.0
MOST_WRITES = 600
LATEST_SECONDS = 40.0
"""The power fails at one of so many writes after the first conversion, and not later than that."""


@dataclass
class Promises:
    """What the machine was told to be safe, by all its boots."""

    dropped: set[str] = field(default_factory=set)
    submitted: set[str] = field(default_factory=set)
    converted: set[str] = field(default_factory=set)

    def hear(self, line: str) -> None:
        word, _, what = line.partition(" ")
        kept = {"DROPPED": self.dropped, "SUBMITTED": self.submitted, "CONVERTED": self.converted}.get(word)
        if kept is not None:
            kept.add(json.loads(what))

    def broken(self, found: dict[str, Any]) -> list[str]:
        """What of it does not hold on a disk on which this was found."""
        jobs, outputs, inbox = found["jobs"], set(found["outputs"]), set(found["inbox"])
        said = [] if found["integrity"] in ("ok", "none") else [f"the job table: {found['integrity']}"]
        said += found["torn"]
        said += [f"{name}: converted, and has no output" for name in sorted(self.converted - outputs)]
        said += [
            f"{name}: converted, and its job is {jobs.get(name)}"
            for name in sorted(self.converted)
            if jobs.get(name) != "completed"
        ]
        for name in sorted(self.dropped - inbox):
            if not _hidden(name, inbox) and (name not in outputs or jobs.get(name) != "completed"):
                said.append(f"{name}: its source is gone without a result")
        said += [f"{name}: submitted, and has no job" for name in sorted(self.submitted - jobs.keys())]
        return said

    def undone(self, found: dict[str, Any]) -> list[str]:
        """What is not done when nothing is left to do."""
        jobs, outputs = found["jobs"], set(found["outputs"])
        wanted = self.dropped | self.submitted
        said = [f"{name}: never converted" for name in sorted(wanted - outputs)]
        said += [f"{name}: its job is {state}" for name, state in jobs.items() if state != "completed"]
        return said + [f"{name}: its source is left" for name in found["inbox"]]


def _hidden(name: str, inbox: set[str]) -> bool:
    """Whether a source is about to be deleted under a private name."""
    return any(other.startswith(".") and name in other for other in inbox)


class Trial:
    """One disk and what becomes of it."""

    def __init__(self, disk: VolatileDisk, chance: random.Random, plant: str, documents: int) -> None:
        self.promises = Promises()
        self.complaints: list[str] = []
        self._disk = disk
        self._chance = chance
        self._plant = plant
        self._documents = documents
        self._boots = 0

    def cut(self) -> None:
        """Boot, look, work, and cut the power."""
        with self._boot(self._documents) as machine:
            self._listen(machine, "CONVERTED", BOOT_SECONDS)
            writes = self._chance.randint(1, MOST_WRITES)
            self._disk.fail_at(writes)
            deadline = time.monotonic() + LATEST_SECONDS
            while not self._disk.failed.is_set() and time.monotonic() < deadline:
                self._listen(machine, None, 0.1)
            machine.kill()
            self._hear_rest(machine)
        fate = self._disk.cut(self._chance)
        print(
            f"cut {self._boots}: {writes} writes after the first conversion; "
            f"unflushed writes: {fate.kept} kept, {fate.torn} torn, {fate.lost} lost; so far "
            f"{len(self.promises.dropped)} dropped, {len(self.promises.submitted)} submitted, "
            f"{len(self.promises.converted)} converted",
            flush=True,
        )

    def drain(self) -> None:
        """Boot a last time and let it finish."""
        with self._boot(0) as machine:
            found = self._listen(machine, "DRAINED", DRAIN_SECONDS)
            for complaint in self.promises.broken(found) + self.promises.undone(found):
                self._complain("in the end", complaint)
        print(f"drained: {len(found['jobs'])} jobs, {len(found['outputs'])} outputs", flush=True)

    @contextlib.contextmanager
    def _boot(self, documents: int) -> Iterator[guest.Guest]:
        """A machine that has said what it found, and found what it was promised."""
        self._boots += 1
        arguments = f"-m tests.fault.power_cut_guest {self._boots} {self._plant} {documents}"
        with guest.running(self._disk.path, arguments) as machine:
            found = self._listen(machine, "FOUND", BOOT_SECONDS)
            for complaint in self.promises.broken(found):
                self._complain(f"boot {self._boots}", complaint)
            yield machine

    def _listen(self, machine: guest.Guest, word: str | None, seconds: float) -> Any:
        """Hear what is promised until it says this word (or nothing, for so long); what it says with it."""
        deadline = time.monotonic() + seconds
        while (line := machine.next_line(deadline)) is not None:
            self.promises.hear(line)
            said, _, what = line.partition(" ")
            if said == "BROKEN":
                self._complain(f"boot {self._boots}", line)
            elif said == "DAEMON":
                print(f"boot {self._boots}: {line[:300]}", flush=True)
            if said == word:
                return json.loads(what)
        if word is not None:
            raise AssertionError(f"the machine never said {word}:\n" + "\n".join(machine.said[-60:]))
        return None

    def _hear_rest(self, machine: guest.Guest) -> None:
        """What it had said when it was cut; but for the last line, which may be torn itself."""
        rest = []
        while (line := machine.next_line(time.monotonic())) is not None:
            rest.append(line)
        for line in rest[:-1]:
            self.promises.hear(line)

    def _complain(self, when: str, what: str) -> None:
        self.complaints.append(f"{when}: {what}")
        print(f"LOSS {when}: {what[:300]}", flush=True)


def run(cuts: int, seed: int, plant: str = "none", documents: int = DOCUMENTS) -> list[str]:
    """So many cuts on one disk, then a drain; returns all that was promised and did not hold."""
    print(f"seed {seed}", flush=True)
    chance = random.Random(seed)
    with (
        tempfile.TemporaryDirectory(prefix="convertd-power-") as folder,
        VolatileDisk(guest.formatted(DISK_BYTES), Path(folder, "disk.sock")) as disk,
    ):
        trial = Trial(disk, chance, plant, documents)
        for _ in range(cuts):
            trial.cut()
            if trial.complaints and plant != "none":
                return trial.complaints
        trial.drain()
        return trial.complaints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=5)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--plant", choices=("none", "no-fsync"), default="none")
    options = parser.parse_args()
    if reason := guest.unavailable():
        sys.exit(reason)
    began = time.monotonic()
    complaints = run(options.cuts, options.seed, options.plant)
    print(f"{options.cuts} cuts in {time.monotonic() - began:.0f} s: {len(complaints)} complaints")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
