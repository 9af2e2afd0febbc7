"""A document from a worker to a converter child that has begun with it, over the real wire to the real child."""

from __future__ import annotations

import os
import select
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from daemon.converters import wire
from daemon.converters.base import Options
from daemon.converters.process import ChildProcess
from daemon.converters.talk import Talk
from daemon.converters.tessdata import packaged_dir
from daemon.errors import DocumentError
from tests.bench.pickling import pickled
from tests.bench.rows import Row, microseconds, ratios
from tests.bench.suite import Bench, Setting

SIZES = {"10 KB": (10_000, 50), "1 MB": (1_000_000, 200), "100 MB": (100_000_000, 3)}
"""How large, and how often a round; the median of them is the round's."""
TARGETS = {"1 MB": 5.0}
START_SECONDS = 60.0
CONVERT_SECONDS = 60.0


class Child(ChildProcess):
    """A converter child that is watched at its beginning with a document."""

    def seconds_to_begin(self, document: int, name: str) -> float:
        """From handing a document over to hearing that the child has begun with it; then waits for its end."""
        begun = time.perf_counter()
        token = self._hand_over(document, name)
        reply = self._channel.receive(wire.TO_PARENT, time.monotonic() + CONVERT_SECONDS)
        seconds = time.perf_counter() - begun
        assert isinstance(reply, wire.Progress), reply
        try:
            Talk(self._channel, token, time.monotonic() + CONVERT_SECONDS).outcome(1 << 30)
        except DocumentError:
            pass  # it is no document of any kind, so that what follows is short
        return seconds


def messages(setting: Setting) -> Iterator[Row]:
    """What the child does afterwards, hashing and converting, is not measured; nor is the reading of the file by which
    the other way would have to begin."""
    with _converter() as child, pickled() as other:
        for label, (size, times) in SIZES.items():
            content = os.urandom(size)
            path = os.path.join(setting.folder, "document")
            with open(path, "wb") as file:
                file.write(content)
            fd = os.open(path, os.O_RDONLY)
            ours, theirs = [], []
            for _ in range(setting.rounds):
                ours.append(statistics.median(child.seconds_to_begin(fd, "document.bin") for _ in range(times)))
                theirs.append(statistics.median(other.seconds("document.bin", content) for _ in range(times)))
            os.close(fd)
            yield Row(
                f"message: {label} to a converter child that has begun / pickled through multiprocessing",
                microseconds(ours),
                microseconds(theirs),
                ratios(theirs, ours),
                target=TARGETS.get(label),
            )


@contextmanager
def _converter() -> Iterator[Child]:
    settings = wire.Settings(Options(tessdata_dir=packaged_dir()), 4 << 30, 256 << 20, os.getpid())
    with closing(Child(settings)) as child:
        try:
            child.introduce()
            assert select.select([child], [], [], START_SECONDS)[0], "the converter child does not start"
            child.become_ready()
            yield child
        finally:
            child.kill()
            child.reap()


BENCH = Bench(
    name="message",
    work="a document of 10 KB, 1 MB and 100 MB to a converter child that has begun with it",
    against="pickled through a pipe of multiprocessing",
    to_reach="≥ 5 times as fast at 1 MB",
    feels="That documents are converted in a process of their own, shut up, costs next to nothing.",
    run=messages,
)
