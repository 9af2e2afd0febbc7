"""Daemons of earlier commits, and the states that they leave: what an upgrade finds, and what a rollback goes back to.

An earlier daemon is the code of its commit, taken out of the history and run by this Python with its libraries.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from daemon.sources.version import file_version
from tests.harness import GIT, ROOT, Daemon, until

CONFIG = """
state_dir = "state"
workers = 1
[[watch]]
name = "inbox"
source = "inbox"
sink = "outbox"
"""
DONE = ("done0.txt", "done1.html", "deep/done2.md")
FAILED = "failed.bin"
MANY = 20
SLOW = "<p>The <b>river</b> takes its time</p>\n" * 8000


class Layout(NamedTuple):
    """A layout that the job table has had. `commit` has a daemon that makes it, and that stops with `exit_code`."""

    name: str
    version: int
    commit: str
    exit_code: int = 0


# Layouts were still changed under their number while they were being made: these are kept apart by a letter.
LAYOUTS = (
    Layout("1a", 1, "be0aaf48e8"),
    Layout("1", 1, "c4684090b0"),
    Layout("2a", 2, "2f9d692e43"),
    Layout("2b", 2, "2539103b62", exit_code=1),  # no daemon of this layout survives its own stop
)


def unavailable() -> str | None:
    """Why no earlier code can be had here. A history that is whole has every commit named above."""
    if not (ROOT / ".git").exists():
        return "this is no clone, but a copy without history"
    try:
        shallow = subprocess.run([*GIT, "rev-parse", "--is-shallow-repository"], capture_output=True, text=True)
    except FileNotFoundError:
        return "git is not installed"
    if shallow.returncode != 0:
        return f"git does not read the history: {shallow.stderr.strip()}"
    return "this clone is shallow: git fetch --unshallow" if shallow.stdout.strip() == "true" else None


def take_out(commit: str, folder: Path) -> Path:
    """The code of a commit in a new folder."""
    command = [*GIT, "archive", "--format=tar", commit, "daemon"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def daemon_of(code: Path, home: Path) -> Daemon:
    """A daemon of that code, and its commands."""
    return Daemon(home, CONFIG, env={"PYTHONPATH": str(code)})


def leave_state(daemon: Daemon) -> None:
    """Have a daemon end by a kill with documents in every state there is without an operator's help."""
    daemon.start()
    try:
        for name in DONE:
            daemon.drop(name, f"the river {name}\n".encode())
        daemon.drop(FAILED, b"\x7fELF\x02\x01\x01" + bytes(100))
        for name in DONE:
            assert daemon.outcome(name) == "converted"
        daemon.outcome(FAILED)
        changes, goes = _killed_amid(daemon, "first")[-2:]
        daemon.drop(changes, b"the river after it")
        (daemon.inbox / goes).unlink()
        daemon.start()
        until(lambda: {"superseded", "vanished"} <= set(_states(daemon)), "one has changed and one has gone")
        until(lambda: not {"pending", "processing"} & set(_states(daemon)), "all is done")
        _killed_amid(daemon, "last")
    finally:
        daemon.close()


def _killed_amid(daemon: Daemon, prefix: str) -> list[str]:
    """Documents that a daemon had no time to begin with, in the order in which it would have."""
    for number in range(MANY):
        daemon.drop(f"{prefix}{number:02}.html", SLOW.encode())
    until(lambda: _is_amid(_states(daemon)), "some are at work and some wait")
    daemon.kill()
    waiting = rows(daemon.state / "convertd.db", "SELECT source FROM jobs WHERE state = 'pending' ORDER BY id")
    assert len(waiting) > 2, "the daemon was too fast"
    return [os.fsdecode(source) for (source,) in waiting]


def _is_amid(states: list[str]) -> bool:
    """Found one by one they may be few: some are to be left when one more was finished before the kill."""
    return "processing" in states and states.count("pending") > 4


def _states(daemon: Daemon) -> list[str]:
    return [state for (state,) in rows(daemon.state / "convertd.db", "SELECT state FROM jobs")]


def rows(table: Path, sql: str) -> list[tuple[Any, ...]]:
    """What a query finds in a table of whatever layout."""
    connection = apsw.Connection(str(table), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_busy_timeout(10_000)
        return list(connection.execute(sql))
    finally:
        connection.close()


def pack(home: Path, target: Path) -> None:
    """Keep the folders of a daemon that has ended."""
    with tarfile.open(target, "w:xz") as tar:
        for name in ("inbox", "outbox", "state"):
            tar.add(home / name, name, filter=lambda entry: None if entry.name.endswith((".sock", "-shm")) else entry)


def unpack(source: Path, home: Path) -> None:
    """The folders as they were. The table is told the new inodes of its documents: nothing else in it is touched."""
    with tarfile.open(source) as tar:
        tar.extractall(home, filter="data")
    table = apsw.Connection(str(home / "state" / "convertd.db"))
    for path, version in list(table.execute("SELECT source, version FROM documents")):
        document = home / "inbox" / os.fsdecode(path)
        if version and document.exists():
            mtime_ns = int(version.split("-")[1])
            os.utime(document, ns=(mtime_ns, mtime_ns))
            now = file_version(document.stat())
            table.execute("UPDATE jobs SET version = ? WHERE source = ? AND version = ?", (now, path, version))
            table.execute("UPDATE documents SET converted_version = ?1 WHERE converted_version = ?2", (now, version))
            table.execute("UPDATE documents SET version = ?1 WHERE version = ?2", (now, version))
    table.close()
