"""What operators ask by commands, and what no command may answer, whatever befalls the daemon meanwhile."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterator
from typing import Any

from tests.chaos.world import World

DONE, NOT_DONE, WRONG_USE, NOT_RUNNING, HELD = range(5)
CHANGED = (DONE, NOT_DONE, HELD)
"""Of commands that change something: whoever holds the state may be about to answer, or about to be gone."""
NEVER_SAID = ("Traceback", "database is locked", "SQLITE_BUSY", "BusyError", "the daemon could not do that")
"""By a command or in the daemon's log: what nobody has thought of, and two who write the job table at once."""


def ask(world: World, *arguments: str, allowed: Collection[int] = CHANGED) -> Any:
    """Run a command; what it may not answer is noted as an end that nobody has caused."""
    try:
        told = world.command(*arguments)
    except subprocess.TimeoutExpired as error:
        told = subprocess.CompletedProcess(error.cmd, NOT_DONE, "", "")
        world.strange_ends.append(f"`convertd {' '.join(arguments)}` has not ended within {error.timeout:.0f} s")
    world.strange_ends += complaints(arguments, told, allowed)
    return told


def complaints(arguments: Collection[str], told: Any, allowed: Collection[int]) -> Iterator[str]:
    """What is wrong with an answer."""
    if told.returncode not in allowed or any(word in told.stdout + told.stderr for word in NEVER_SAID):
        said = f"{told.stdout[-500:]}{told.stderr[-1500:]}"
        yield f"`convertd {' '.join(arguments)}` ended with {told.returncode}: {said}"
