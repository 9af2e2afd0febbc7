"""Waiting for what need not come: the campaign goes on without it."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

LOOK_SECONDS = 0.1
T = TypeVar("T")


def within(seconds: float, wanted: Callable[[], T]) -> T:
    """The first true value that comes in that time, else the last one, which is false."""
    until = time.monotonic() + seconds
    while not (value := wanted()) and time.monotonic() < until:
        Event().wait(LOOK_SECONDS)
    return value
