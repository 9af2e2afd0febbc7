"""A process that is sent documents the usual way, through multiprocessing, for comparison."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection


class Pickled:
    """A child that says so when it has a document, as a converter child does."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def seconds(self, name: str, content: bytes) -> float:
        """From sending the document to hearing that the child has begun with it."""
        begun = time.perf_counter()
        self._pipe.send((name, content))
        assert self._pipe.recv() == len(content)
        return time.perf_counter() - begun


@contextmanager
def pickled() -> Iterator[Pickled]:
    """Such a child, started afresh and not forked."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_serve, args=(theirs,), daemon=True)
    child.start()
    theirs.close()
    try:
        yield Pickled(ours)
    finally:
        ours.close()
        child.join(10)
        child.kill()


def _serve(pipe: Connection) -> None:
    try:
        while True:
            _, content = pipe.recv()
            pipe.send(len(content))
    except EOFError:
        pass
