"""Whether the daemon and its converters grow with what they do: the same again and again, with no fault."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.chaos.checks import Findings
from tests.chaos.model import Model, compose
from tests.chaos.processes import Size, size_of
from tests.chaos.quiet import Quiet, converters
from tests.chaos.world import World
from tests.chaos.writing import appear

TIMES, MOST_TIMES, DOCUMENTS = 3, 5, 50
MOST_DESCRIPTORS, MOST_BYTES = 8, 12 << 20
"""How much more there may be after as many documents again: none and less than 1 MiB is normal. What grows but once is
no leak: threads open what they need when they first need it. So only what grows each time is a finding."""


def soak(world: World, model: Model, chance: random.Random, quiet: Quiet, findings: Findings) -> None:
    """Convert some documents a few times, and compare."""
    before: list[Size] = []
    for times in range(1, MOST_TIMES + 1):
        for _ in range(DOCUMENTS):
            document = model.new(chance.choice(["keep", "extra", "bkeep"] if world.proxy else ["keep", "extra"]), "txt")
            appear(world, document, *compose(document, chance, lines=5))
        if not quiet.reach():
            return
        after = [size_of(world.pid), *converters(world)]
        if before and before[0].pid != after[0].pid:
            findings.add("the daemon has ended with nobody's doing")
            return
        complaints = list(grown(before, after))
        if times >= TIMES and not complaints:
            return
        before = after
    for complaint in complaints:
        findings.add(f"{DOCUMENTS} documents: {complaint}")


def grown(before: list[Size], after: list[Size]) -> Iterator[str]:
    """What is much larger than it was, of processes that were there before."""
    known = {size.pid: size for size in before}
    for size in after:
        earlier = known.get(size.pid, size)
        if size.descriptors - earlier.descriptors > MOST_DESCRIPTORS:
            yield f"{earlier.descriptors} descriptors of process {size.pid} became {size.descriptors}"
        if size.resident_bytes - earlier.resident_bytes > MOST_BYTES:
            yield f"process {size.pid} has grown by {(size.resident_bytes - earlier.resident_bytes) >> 20} MiB"
