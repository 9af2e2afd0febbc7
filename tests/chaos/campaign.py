"""A campaign: rounds of actions, each brought to its end and judged, until the time is over."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from tests.chaos.actions import Action, script
from tests.chaos.checks import Findings, Watchman
from tests.chaos.commands import NEVER_SAID
from tests.chaos.documents_of import SKIPPED
from tests.chaos.making import world
from tests.chaos.model import Model
from tests.chaos.processes import Size
from tests.chaos.quiet import Quiet
from tests.chaos.soak import soak
from tests.chaos.world import World

ACTIONS_A_ROUND = 24
SOAKED_ROUNDS = 4
ENTRIES = ("internal error", "thread died", *NEVER_SAID)
"""What the daemon never says of itself, whatever befalls it."""


@dataclass
class Result:
    """What a campaign did and found."""

    seed: int
    plant: str
    seconds: float = 0.0
    rounds: int = 0
    documents: int = 0
    versions: int = 0
    jobs: int = 0
    looks: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)
    passed: list[str] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    largest: Size | None = None
    findings: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)


def run(
    seed: int,
    minutes: float,
    plant: str = "",
    *,
    actions_a_round: int = ACTIONS_A_ROUND,
    buckets: bool = True,
) -> Result:
    """Run until the time is over or something was found; a round that has begun is brought to its end."""
    result, began = Result(seed, plant), time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="convertd-chaos-") as folder,
        world(Path(folder), plant, buckets=buckets) as (surroundings, missing),
    ):
        result.missing = missing
        Campaign(surroundings, result).run(began + 60 * minutes, actions_a_round)
    result.seconds = time.monotonic() - began
    return result


class Campaign:
    """Acts on one world."""

    def __init__(self, surroundings: World, result: Result) -> None:
        self._world = surroundings
        self._result = result
        self._model = Model()
        self._findings = Findings()
        self._script = script(result.seed)

    def run(self, until: float, actions_a_round: int) -> None:
        """Rounds until this time, by the monotonic clock, or until something is found."""
        self._world.start()
        with Watchman(self._world, self._model, self._findings) as watchman:
            quiet = Quiet(self._world, self._model, self._findings, watchman)
            while not self._findings and (not self._result.rounds or time.monotonic() < until):
                self._act(actions_a_round, until)
                if quiet.reach() and self._result.rounds % SOAKED_ROUNDS == SOAKED_ROUNDS // 2:
                    chance = random.Random(f"soak {self._result.seed} {self._result.rounds}")
                    soak(self._world, self._model, chance, quiet, self._findings)
                self._read_log()
                self._result.rounds += 1
            self._result.looks = watchman.outputs.looks
            self._result.sizes, self._result.largest = quiet.sizes, watchman.largest
        self._sum_up()

    def _act(self, actions: int, until: float) -> None:
        for _ in range(actions):
            if self._findings or (self._result.rounds and time.monotonic() > until):
                return
            action = next(self._script)
            Event().wait(action.pause_seconds)
            if action.chance.random() < 0.9:  # else some things happen to a dead daemon
                self._world.ensure()
            self._findings.action = action.number
            done = self._done(action)
            self._result.log.append(f"{action.number:4} {action.name}: {done}")
            (self._result.skipped if done.startswith(SKIPPED) else self._result.actions)[action.name] += 1

    def _done(self, action: Action) -> str:
        try:
            return action.run(self._world, self._model)
        except Exception as error:
            if type(error).__module__.startswith(("botocore", "urllib3")):
                return f"{SKIPPED}the bucket does not answer: {error}"
            self._findings.add(f"the action failed: {error!r}")
            return repr(error)

    def _read_log(self) -> None:
        for line in self._world.daemon.log.read_text(errors="replace").splitlines():
            if any(entry in line for entry in ENTRIES):
                self._findings.add(f"the daemon says: {line[:1500]}")

    def _sum_up(self) -> None:
        result = self._result
        result.documents, result.versions = len(self._model), self._model.versions()
        result.jobs = len(self._world.rows("SELECT id FROM jobs"))
        result.fired = Counter(self._world.journal("fired"))
        result.passed = sorted(set(self._world.journal("passed")))
        result.deaths = self._world.deaths
        result.findings = self._findings.all
        if result.findings:
            result.log += ["", "the end of the daemon's log:", self._world.log_tail()]
