"""Whether memory and descriptors of the daemon grow with what it does: the same again and again, with no fault."""

from __future__ import annotations

import random

from tests.chaos.checks import Findings
from tests.chaos.model import Model, compose
from tests.chaos.processes import size_of
from tests.chaos.quiet import Quiet
from tests.chaos.world import World
from tests.chaos.writing import appear

TIMES, DOCUMENTS = 3, 50
MOST_DESCRIPTORS, MOST_BYTES = 25, 64 << 20
"""How much more there may be after as many documents again; the first time threads open what they need."""


def soak(world: World, model: Model, chance: random.Random, quiet: Quiet, findings: Findings) -> None:
    """Convert some documents a few times, and compare."""
    sizes = []
    for _ in range(TIMES):
        for _ in range(DOCUMENTS):
            document = model.new(chance.choice(["keep", "extra", "bkeep"] if world.proxy else ["keep", "extra"]), "txt")
            appear(world, document, *compose(document, chance, lines=5))
        if not quiet.reach():
            return
        sizes.append(size_of(world.pid))
    *_, before, after = sizes
    if before.pid != after.pid:
        findings.add("the daemon has ended with nobody's doing")
    elif after.descriptors - before.descriptors > MOST_DESCRIPTORS:
        findings.add(f"{DOCUMENTS} documents: {before.descriptors} descriptors became {after.descriptors}")
    elif after.resident_bytes - before.resident_bytes > MOST_BYTES:
        grown = (after.resident_bytes - before.resident_bytes) >> 20
        findings.add(f"{DOCUMENTS} documents: the daemon has grown by {grown} MiB")
