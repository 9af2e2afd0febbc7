"""What befalls a daemon, its documents and its surroundings: actions and how often they come.

Each action is given a source of chance of its own, made of the seed and its number: what it draws neither depends on
how the actions before it went nor changes which ones come after it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from tests.chaos import documents_of, faults_of, operators, uploads
from tests.chaos.model import Model
from tests.chaos.world import World

PAUSES_SECONDS = (0.0, 0.02, 0.1, 0.4)
Act = Callable[..., str]
"""Takes the world, the model, a source of chance and, where it has one, its subject."""

WEIGHTS: dict[str, tuple[int, Act]] = {
    "drop": (26, documents_of.drop),
    "drop a folder": (5, documents_of.drop_folder),
    "drop while the daemon is down": (4, documents_of.drop_while_down),
    "drop a large one": (2, documents_of.drop_large),
    "drop a hostile one": (4, documents_of.drop_hostile),
    "drop one that kills the daemon": (3, documents_of.drop_poison),
    "replace by a rename": (8, documents_of.replace),
    "rewrite in place, slowly": (9, documents_of.rewrite_in_place),
    "write a new one slowly": (4, documents_of.write_slowly),
    "break off while writing": (2, documents_of.break_off),
    "touch": (2, documents_of.touch),
    "delete": (3, documents_of.delete),
    "swap while it is fetched": (4, documents_of.swap_while_fetched),
    "kill the daemon": (4, faults_of.kill_daemon),
    "stop and continue the daemon": (2, faults_of.freeze_daemon),
    "terminate the daemon": (2, faults_of.terminate_daemon),
    "kill a converter": (4, faults_of.kill_converter),
    "stop and continue a converter": (2, faults_of.freeze_converter),
    "die at a fault point": (12, faults_of.die_at),
    "error at a fault point": (10, faults_of.fail_at),
    "fill the sink": (2, faults_of.fill_sink),
    "fill the state": (1, faults_of.fill_state),
    "take a folder away": (2, faults_of.take_away),
    "jump of the clock": (3, faults_of.jump_clock),
    "fault of the bucket": (10, faults_of.spoil_bucket),
    "start days after broken uploads": (1, uploads.give_up_uploads),
    "reload with other watches": (3, operators.reload_watches),
    "reload a bad configuration": (2, operators.reload_bad),
    "pause and resume": (3, operators.pause),
    "submit": (4, operators.submit),
    "retry": (3, operators.retry),
    "cancel": (3, operators.cancel),
}


SUBJECTS: dict[str, tuple[str, ...]] = {
    "die at a fault point": faults_of.DEATHS,
    "error at a fault point": faults_of.FAILING,
}


@dataclass(frozen=True)
class Action:
    """One of a script: `pause_seconds` is what is waited before it. `subject` has one entry, or none."""

    number: int
    name: str
    chance: random.Random
    pause_seconds: float
    subject: tuple[str, ...] = ()

    def run(self, world: World, model: Model) -> str:
        """Do it; returns what was done, or why it was skipped."""
        return WEIGHTS[self.name][1](world, model, self.chance, *self.subject)


def script(seed: int) -> Iterator[Action]:
    """The actions of a seed, without end: drawn from a shuffled pile in which each lies as often as its weight says,
    so that even the seldom ones are sure to come. So are their subjects."""
    chance = random.Random(f"script {seed}")
    names = _drawn([name for name, (weight, _) in WEIGHTS.items() for _ in range(weight)], chance)
    subjects = {name: _drawn(piled, random.Random(f"{name} {seed}")) for name, piled in SUBJECTS.items()}
    for number in count(1):
        name = next(names) if number > 1 else "drop"  # there is to be something, even in the shortest campaign
        subject = (next(subjects[name]),) if name in subjects else ()
        yield Action(number, name, random.Random(f"action {seed} {number}"), chance.choice(PAUSES_SECONDS), subject)


def _drawn(piled: Sequence[str], chance: random.Random) -> Iterator[str]:
    """One after the other from a shuffled pile, which is made anew whenever nothing is left of it."""
    while True:
        pile = list(piled)
        chance.shuffle(pile)
        yield from reversed(pile)
