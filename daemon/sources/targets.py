"""The folders that documents are moved to: whether what they lie on is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from daemon.errors import EnvironmentProblem
from daemon.files import RootFolder

AWAITED_SECONDS = 60.0


class Targets:
    """Those of one source, each guarded as the source is: one that has lost its disk is not filled, and what lies on
    that disk is not gone.

    `silent` are those that do not answer just now. All methods may be called from any thread.
    """

    def __init__(
        self, paths: Iterable[bytes], monotonic: Callable[[], float], *, silent: Collection[bytes] = ()
    ) -> None:
        self._monotonic = monotonic
        self._targets = {path: _Target(path, silent=path in silent) for path in paths}
        self._silent = silent
        self._awaited: dict[bytes, float] = {}

    def get_to_know(self) -> None:
        """Look at those that answer: else a disk that goes before the first document is moved would not be missed."""
        for path, target in list(self._targets.items()):
            if path not in self._silent:
                with suppress(EnvironmentProblem):
                    target.check()

    def check(self, path: bytes) -> None:
        """Raise EnvironmentProblem where this target was taken away. It need not have been heard of before."""
        self._targets.setdefault(path, _Target(path)).check()

    def check_around(self, location: bytes | None, *, to_read: bool = False) -> None:
        """The same for the target in which a moved document lies; None for one that was not moved."""
        for path, target in list(self._targets.items()):
            if location is not None and location.startswith(os.path.join(path, b"")):
                try:
                    target.check()
                except EnvironmentProblem:
                    if to_read:
                        self._awaited[path] = self._monotonic()
                    raise

    def probe(self) -> None:
        """Raise EnvironmentProblem while a target is away in which a document was to be read not long ago.

        Only that needs it, so it holds up the watch for no longer: a job that waits for it asks again by then, one that
        an operator has called off does not.
        """
        for path, since in list(self._awaited.items()):
            if self._monotonic() - since < AWAITED_SECONDS:
                self._targets[path].check()
            self._awaited.pop(path, None)


class _Target:
    """A `RootFolder` that anybody may remove, as long as its disk stays: it is made again for the next document."""

    def __init__(self, path: bytes, *, silent: bool = False) -> None:
        self._folder = RootFolder(path, silent=silent)
        self._known = silent
        self._device: int | None = None

    def check(self) -> None:
        """Raises EnvironmentProblem where it was there and was taken away. It is not made here."""
        try:
            self._device = self._folder.look().st_dev
            self._known = True
        except EnvironmentProblem:
            if self._known and not self._was_removed():
                raise

    def _was_removed(self) -> bool:
        """Whether it is missing, and what it would be made on is the disk that it was on."""
        path = self._folder.path
        try:
            while not _is_there(path):
                path = os.path.dirname(path)
            return path != self._folder.path and os.stat(path).st_dev == self._device
        except OSError:
            return False


def _is_there(path: bytes) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True
