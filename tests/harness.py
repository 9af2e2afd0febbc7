"""A real daemon in a process of its own, and ways to wait for it with a deadline."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from daemon.db import reader

ROOT = Path(__file__).resolve().parent.parent
GIT = ("git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT))
"""Whoever owns the clone: a CI's is often another's."""
DEADLINE_SECONDS = 90.0
_PAUSE = threading.Event()


def until(predicate: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """The first true value of `predicate`; fails, saying what was waited for, after the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        _PAUSE.wait(0.02)
    return value


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """Lines of JSON so far; one of which only the beginning is there yet is left for the next time."""
    lines, _, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in lines.split("\n") if line]


def convertd(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None, **kwargs: Any) -> Any:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "daemon", *arguments],
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        **kwargs,
    )


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a daemon under test: this checkout, and no configuration of the machine's."""
    env = {key: value for key, value in os.environ.items() if key != "CONVERTD_CONFIG"}
    return {**env, "PYTHONPATH": str(ROOT), **(extra or {})}


def children_of(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait(30)


class Daemon:
    """`convertd run` over `folder/inbox` and `folder/outbox`, or over a configuration written to `folder`.

    `config` is the text of a configuration; without one the two folders are given as arguments. The process's log
    goes to `folder/log`. `prefix` is a command that executes the daemon's, such as setpriv. `env` is added to the
    environment of the daemon and of its commands, such as the credentials of a bucket.
    """

    def __init__(
        self,
        folder: Path,
        config: str | None = None,
        entry: Sequence[str] = ("-m", "daemon"),
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.inbox, self.outbox, self.state = folder / "inbox", folder / "outbox", folder / "state"
        self.inbox.mkdir(exist_ok=True)
        self.entry = tuple(entry)
        self.prefix = tuple(prefix)
        self.env = dict(env or {})
        self.config = folder / "convertd.toml" if config is not None else None
        if self.config is not None:
            self.config.write_text(config or "")
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def where(self) -> list[str]:
        """The options by which a command finds this daemon."""
        return ["--config", str(self.config)] if self.config else ["--state-dir", str(self.state)]

    def launch(self, *options: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start the process without waiting for anything. It ends with this object at the latest."""
        folders = [] if self.config else [str(self.inbox), str(self.outbox)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, *self.entry, "run", *folders, *self.where, *options],
                cwd=self.folder,
                env=environment({**self.env, **(env or {})}),
                stdout=log,
                stderr=log,
            )
        weakref.finalize(self, _end, self.process)  # a test that fails leaves nothing for those after it
        return self.process

    def start(self, *options: str, env: Mapping[str, str] | None = None) -> Daemon:
        """Start and wait until the daemon answers."""
        process = self.launch(*options, env=env)

        def up() -> bool:
            assert process.poll() is None, f"the daemon ended with {process.returncode}:\n{self.log.read_text()}"
            return bool(self.status()["daemon"]["running"]) if self.state_exists() else False

        until(up, "the daemon runs")
        return self

    def state_exists(self) -> bool:
        """Whether a job table is there to be asked."""
        return (self.state / "convertd.db").exists()

    def rows(self, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
        """Of the job table itself, faster than a command; none where the table is not made yet."""
        try:
            with reader(str(self.state / "convertd.db")) as db:
                return list(db.execute(sql, bindings))
        except FileNotFoundError:
            return []

    def once(self, *options: str) -> int:
        """Drain and end; returns the exit code."""
        process = self.launch("--once", *options)
        return process.wait(DEADLINE_SECONDS * 4)

    def stop(self, seconds: float = 60) -> int:
        """SIGTERM, and wait."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def close(self) -> None:
        """Whatever the test left running ends."""
        if self.process is not None:
            _end(self.process)

    def command(self, *arguments: str) -> Any:
        """Run a command against this daemon."""
        return convertd(*arguments, *self.where, cwd=self.folder, env=self.env)

    def status(self) -> dict[str, Any]:
        """`convertd status --json`."""
        result = self.command("status", "--json")
        return json.loads(result.stdout) if result.returncode == 0 else {"daemon": {"running": False}, "jobs": {}}

    def jobs(self, *options: str) -> list[dict[str, Any]]:
        """`convertd jobs --json`."""
        result = self.command("jobs", "--json", "--limit", "100000", *options)
        return [json.loads(line) for line in result.stdout.split("\n") if line]

    def said(self) -> list[dict[str, Any]]:
        """Its log so far."""
        return whole_lines(self.log)

    def drop(self, name: str, content: bytes) -> Path:
        """A document that appears in the inbox by a rename."""
        target = self.inbox / name
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = target.parent / ".drop.tmp"
        hidden.write_bytes(content)
        hidden.rename(target)
        return target

    def markdown(self, name: str) -> Path:
        """Where the Markdown of a document appears."""
        return self.outbox / f"{name}.md"

    def error(self, name: str) -> Path:
        """Where the error file of a document appears."""
        return self.outbox / f"{name}.error.json"

    def outcome(self, name: str, seconds: float = DEADLINE_SECONDS) -> str:
        """Wait for the end of a document: 'converted', or the kind of its error."""

        def end() -> str | None:
            if self.markdown(name).exists():
                return "converted"
            if self.error(name).exists():
                return str(json.loads(self.error(name).read_bytes())["kind"])
            return None

        return str(until(end, f"{name} is converted or fails", seconds))


@contextlib.contextmanager
def running(folder: Path, config: str | None = None, **kwargs: Any) -> Iterator[Daemon]:
    """A daemon that is up, and gone afterwards."""
    daemon = Daemon(folder, config, **kwargs)
    try:
        yield daemon.start()
    finally:
        daemon.close()
