"""What is paused for certain, and that nothing of it is begun until somebody has it go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

EVERYTHING = ""
"""What is paused where no watch is named."""


class Pauses:
    """Those that commands said were done; they outlive the daemon. `rows` answers queries on the job table.

    What was found before a pause may be a worker's already, though its row still says pending. What is found later is
    nobody's: it may be cancelled, superseded or gone, but never begun.
    """

    def __init__(self, rows: Callable[..., list[tuple[Any, ...]]]) -> None:
        self._rows = rows
        self._newest: dict[str, int] = {}
        """The newest job that there was, by the watch that is paused."""

    def hold(self, watch: str) -> None:
        """A command has said that this is paused. Where the job table cannot be read nothing is judged."""
        if newest := self._rows("SELECT ifnull(max(id), 0) FROM jobs"):
            self._newest.setdefault(watch, int(newest[0][0]))

    def lift(self, watch: str) -> Iterator[str]:
        """What was begun meanwhile. To be called before a command is asked to have it go on: then all may be begun."""
        for paused in [watch] if watch else list(self._newest):
            newest = self._newest.pop(paused, None)
            if newest is not None:
                for job, name, source, state in self._rows(_BEGUN, newest, paused):
                    about = f"job {job} of {name}/{os.fsdecode(source)} is {state}"
                    yield f"{about}, and was found while {paused or 'everything'} was paused"


_BEGUN = f"""SELECT j.id, w.name, j.source, j.state FROM jobs j JOIN watches w ON w.id = j.watch
             WHERE j.id > ?1 AND ?2 IN ('{EVERYTHING}', w.name) AND j.state IN ('processing', 'completed')"""
