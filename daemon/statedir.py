"""The private folder of one daemon: where its job table, lock, control socket and spool lie, and who holds it."""

from __future__ import annotations

import fcntl
import os
import pwd
import time
from contextlib import suppress
from typing import NamedTuple

from daemon.errors import AlreadyRunning, EnvironmentProblem, UsageError


class StateDir(NamedTuple):
    """Paths below `state_dir`. Nothing is created but by `create` and `lock`."""

    path: str

    @property
    def database(self) -> str:
        return os.path.join(self.path, "convertd.db")

    @property
    def socket(self) -> str:
        return os.path.join(self.path, "control.sock")

    @property
    def spool(self) -> str:
        return os.path.join(self.path, "spool")

    @property
    def submitted(self) -> str:
        return os.path.join(self.path, "submitted")

    def create(self) -> None:
        """Make the folder and those in it, for the owner alone. Raises UsageError where that is not possible."""
        try:
            for folder in (self.path, self.spool, self.submitted):
                os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"state_dir {self.path} cannot be made: {error.strerror}",
                "Give state_dir a folder that this user may write.",
            ) from error

    def require_owner(self) -> None:
        """Raise UsageError, naming the owner, where another user's state_dir would be used."""
        try:
            owner = os.stat(self.path).st_uid
        except OSError:
            return
        if os.geteuid() in (0, owner):
            return
        name = _user_name(owner)
        raise UsageError(f"state_dir {self.path} belongs to {name}", f"Run the command as that user: sudo -u {name} …")

    def holder(self) -> int | None:
        """The process that holds the lock or held it last, as far as it is known."""
        try:
            with open(os.path.join(self.path, "lock"), "rb") as file:
                return int(file.read(32))
        except (OSError, ValueError):
            return None

    def lock(self, wait_seconds: float) -> Lock:
        """Become the only process that changes this state_dir. Raises AlreadyRunning after `wait_seconds`, and
        EnvironmentProblem where its disk is sick."""
        self.create()
        try:
            fd = os.open(os.path.join(self.path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EnvironmentProblem(
                f"state_dir {self.path} cannot be written: {error.strerror}",
                "Free space or mend its permissions, and start it again.",
            ) from error
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                os.close(fd)
                raise AlreadyRunning(
                    f"another convertd (pid {self.holder() or 'unknown'}) holds state_dir {self.path}",
                    "Stop that one first, or give this one another state_dir.",
                ) from None
            with suppress(OSError):  # a full disk: who holds it is then not known, and the job table says the rest
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            return Lock(fd)


class Lock:
    """The held lock of a state_dir; the kernel releases it when the process dies."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """Let others in. Call once."""
        os.close(self._fd)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"
