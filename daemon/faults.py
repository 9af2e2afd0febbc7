"""Fault points: places that call a hook with a label, so that a test can break the process exactly there."""

from __future__ import annotations

from collections.abc import Callable

Fault = Callable[[str], None]


def no_fault(label: str) -> None:
    """The hook of a process that is not under test."""
