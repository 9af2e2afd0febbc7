"""A disk that does not answer: the daemon waits for it, and its service manager is told that it lives."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.harness import DEADLINE_SECONDS, Daemon, until

CONFIG = 'state_dir = "disk/state"\n[[watch]]\nname = "inbox"\nsource = "inbox"\nsink = "outbox"\n'
TOOLS = ("mkfs.ext4", "mount", "umount", "fsfreeze")
WATCHDOG_SECONDS = 2


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, for the state."""
    if os.geteuid() != 0 or any(shutil.which(tool) is None for tool in TOOLS):
        pytest.skip("a disk to freeze needs root and mkfs.ext4, mount, fsfreeze")
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, folder]).returncode != 0:
        pytest.skip("no loop devices here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def frozen(disk: Path) -> Iterator[None]:
    """Whoever writes waits."""
    subprocess.run(["fsfreeze", "--freeze", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", disk], check=True)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(DEADLINE_SECONDS)
        yield channel


def hear(manager: socket.socket, what: bytes) -> None:
    """Wait for a message that has this in it."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while what not in manager.recv(1 << 16):
        assert time.monotonic() < deadline, f"the manager does not hear {what!r}"


def forget(manager: socket.socket) -> None:
    """What was said until now."""
    manager.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            manager.recv(1 << 16)
    manager.settimeout(DEADLINE_SECONDS)


def test_a_daemon_whose_disk_does_not_answer_is_not_restarted(
    disk: Path, manager: socket.socket, tmp_path: Path
) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(WATCHDOG_SECONDS * 1_000_000)}
    daemon = Daemon(tmp_path, CONFIG, env=env)
    daemon.state = disk / "state"
    try:
        daemon.start()
        hear(manager, b"READY=1")
        with frozen(disk):
            request = threading.Thread(target=daemon.command, args=("pause",))
            request.start()
            hear(manager, b"state_dir does not answer")
            forget(manager)
            for _ in range(3):
                hear(manager, b"WATCHDOG=1")
        request.join(DEADLINE_SECONDS)
        assert daemon.command("resume").returncode == 0
        daemon.drop("a.txt", b"words")
        until(daemon.markdown("a.txt").exists, "it goes on by itself")
        assert daemon.stop() == 0
    finally:
        daemon.close()
