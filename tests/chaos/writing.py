"""How a version of a document appears: at once, or slowly in its place."""

from __future__ import annotations

from threading import Event

from tests.chaos.model import Document, Version
from tests.chaos.places import Folder
from tests.chaos.world import World

FETCHED_LOOKS, LOOK_SECONDS = 200, 0.01


def appear(world: World, document: Document, content: bytes, text: str, *, hostile: bool = False) -> bool:
    """A version that appears whole, at once. False where somebody is just writing the document."""
    if not document.lock.acquire(blocking=False):
        return False
    try:
        about_to_change(world, document, content, text, hostile)
        world.watches[document.watch].source.put(document.name, content)
    finally:
        document.lock.release()
    return True


def about_to_change(world: World, document: Document, content: bytes, text: str, hostile: bool = False) -> Version:
    """Note the version that comes now; to be called with the lock of the document."""
    document.floor = world.newest_job(document)
    document.current = document.written(content, text, hostile)
    return document.current


def wait_until_fetched(world: World, document: Document) -> None:
    """Wait for a moment in which the daemon has begun with the newest job of a document; not for long."""
    for _ in range(FETCHED_LOOKS):
        if world.rows("SELECT 1 FROM jobs WHERE id = ? AND state = 'processing'", world.newest_job(document)):
            return
        Event().wait(LOOK_SECONDS)


def write(
    world: World, document: Document, content: bytes, text: str, pauses: list[float], before_seconds: float
) -> None:
    """Write in place, in as many pieces as there are pauses and one more."""
    place = world.watches[document.watch].source
    assert isinstance(place, Folder)
    Event().wait(before_seconds)
    with document.lock:
        about_to_change(world, document, content, text)
        step = max(1, len(content) // (len(pauses) + 1))
        with (place.path / document.name).open("wb", buffering=0) as file:
            for at, seconds in enumerate(pauses):
                file.write(content[at * step : (at + 1) * step])
                Event().wait(seconds)
            file.write(content[len(pauses) * step :])
