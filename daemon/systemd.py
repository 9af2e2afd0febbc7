"""Talks to the service manager that has started the process, if one has: the protocol of sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

SEND_SECONDS = 5.0
LONGEST_STATUS = 1000


class Notifier:
    """Sends to the socket that $NOTIFY_SOCKET names, and says nothing where there is none.

    Thread-safe. A manager that cannot be reached is no error: the daemon works without one.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))

    @property
    def present(self) -> bool:
        """Whether anybody listens."""
        return bool(self._address)

    def send(self, **values: str | int) -> None:
        """One message, such as `send(READY=1, STATUS="…")`."""
        if not self._address:
            return
        lines = [f"{key}={_one_line(str(value))}" for key, value in values.items()]
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(SEND_SECONDS)
            channel.sendto("\n".join(lines).encode("utf-8", "backslashreplace"), self._address)


def watchdog_seconds(environ: Mapping[str, str] = os.environ) -> float | None:
    """How long the manager puts up with hearing nothing from this process; None where it does not care."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isascii() and microseconds.isdigit() and int(microseconds) else None


def _address(name: str) -> str:
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:LONGEST_STATUS]
