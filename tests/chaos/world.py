"""The surroundings of a campaign: watches, a bucket behind a proxy that misbehaves, small disks, and the daemon."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from daemon import control
from daemon.errors import ConvertdError
from daemon.statedir import StateDir
from tests.chaos.hooks import ARMED
from tests.chaos.layout import TOP, watches
from tests.chaos.model import Document
from tests.chaos.pausing import Pauses
from tests.chaos.places import Folder
from tests.chaos.processes import started_at
from tests.fault.outcome import is_converter
from tests.fault_proxy import FaultProxy
from tests.harness import Daemon, children_of, convertd
from tests.servers import Bucket

ENTRY = ("-m", "tests.chaos.daemon")
STARTED = '"event": "started"'
CODE = "code"
"""Where the code lies that the daemon runs."""


class World:
    """All of it. `deaths` counts ends of the daemon by what they were."""

    def __init__(self, home: Path, bucket: Bucket | None, proxy: FaultProxy | None, plant: str) -> None:
        self.home, self.proxy = home, proxy
        self.control = home / "control"
        (self.control / ARMED).mkdir(parents=True)
        self._numbers = count(1)
        self.watches = {watch.name: watch for watch in watches(home, bucket, proxy)}
        self.served = set(self.watches)
        self.priority = 5
        self.deaths: Counter[str] = Counter()
        self.strange_ends: list[str] = []
        """Of the daemon and of commands, and what else these did that they may not."""
        self.pauses = Pauses(self.rows)
        self.writers: list[threading.Thread] = []
        self.converters: dict[int, str] = {}
        self.away: tuple[Path, Path] | None = None
        """What was taken away, and from where."""
        self._told_to_end = False
        self._log_bytes = 0
        sinks = [str(watch.sink.path) for watch in self.watches.values() if isinstance(watch.sink, Folder)]
        env = {
            "CHAOS_CONTROL": str(self.control),
            "CHAOS_SINKS": os.pathsep.join(sinks),
            "CHAOS_STATE": str(home / "state"),
            "CHAOS_PLANT": plant,
            "PYTHONPATH": str(home / CODE),
            **(bucket.server.env() if bucket is not None else {}),
        }
        self.daemon = Daemon(home, self.configuration(), ENTRY, env=env)

    # -- configuration -----------------------------------------------------------------------------------------

    def configuration(self) -> str:
        """Of the watches that are served now."""
        return TOP.format(events=self.control / "events") + "".join(
            watch.text.format(priority=self.priority) for name, watch in self.watches.items() if name in self.served
        )

    def configure(self, text: str | None = None) -> None:
        """Write this, or the good configuration: at once, since a daemon that starts may be reading it."""
        assert self.daemon.config is not None
        hidden = self.daemon.config.with_name(".configuration")
        hidden.write_text(self.configuration() if text is None else text)
        hidden.rename(self.daemon.config)

    # -- the daemon --------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        process = self.daemon.process
        return process.pid if process is not None and process.poll() is None else 0

    def start(self) -> None:
        """Start the daemon with a good configuration, waiting for nothing."""
        self.configure()
        self._told_to_end = False
        self._log_bytes = self.daemon.log.stat().st_size if self.daemon.log.exists() else 0
        self.daemon.launch()

    def has_started(self) -> bool:
        """Whether the daemon that runs has said that it has."""
        return bool(self.pid) and self.has_said(STARTED)

    def has_said(self, text: str) -> bool:
        """Whether the last daemon has written this to its log."""
        return self.times_said(text) > 0

    def times_said(self, text: str) -> int:
        """How often the last daemon has written this to its log."""
        with self.daemon.log.open("rb") as log:
            log.seek(self._log_bytes)
            return log.read().count(text.encode())

    def serving(self) -> set[str] | None:
        """The watches that the daemon says it serves; None where it does not answer."""
        try:
            return set(control.ask(StateDir(str(self.daemon.state)).socket, "status")["watches"])
        except ConvertdError:
            return None

    def ensure(self) -> bool:
        """Start the daemon if it has ended; whether it had. How it ended is noted."""
        process = self.daemon.process
        if process is not None and process.poll() is None:
            return False
        if process is not None:
            self.note_end(process.returncode)
        self.start()
        return True

    def note_end(self, code: int) -> None:
        """An end that nobody has caused is a finding."""
        self.deaths["killed" if code == -signal.SIGKILL else f"ended with {code}"] += 1
        told = self._told_to_end and code in (0, -signal.SIGTERM)  # the latter before it has caught the signal
        sick = code == 1 and not self.has_said(STARTED) and self.has_said("start it again")
        if code != -signal.SIGKILL and not told and not sick:
            self.strange_ends.append(f"the daemon ended by itself with {code}: {self.log_tail()}")

    def kill(self) -> None:
        if self.pid:
            self.daemon.kill()

    def terminate(self) -> None:
        """A stop by signal, to its end."""
        if self.pid:
            self._told_to_end = True
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemon.stop(60)
                return
            self.strange_ends.append("the daemon does not end within 60 s of a SIGTERM")
            self.daemon.kill()

    def signal(self, number: int) -> None:
        if self.pid:
            os.kill(self.pid, number)

    def hang_up(self) -> None:
        """SIGHUP, once the daemon can take one: before that it would end it."""
        if self.pid and self.listens():
            self.signal(signal.SIGHUP)

    def listens(self) -> bool:
        """Whether the daemon that runs has caught SIGHUP."""
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            caught = next(line for line in lines if line.startswith("SigCgt:")).split()[1]
            return bool(int(caught, 16) >> (signal.SIGHUP - 1) & 1)
        return False

    def children(self) -> list[int]:
        """The converters of the daemon that runs."""
        return [pid for pid in children_of(self.pid) if self.note_converter(pid)] if self.pid else []

    def note_converter(self, pid: int) -> bool:
        """Remember a converter, to see that it ends with its daemon."""
        if is_converter(pid):
            self.converters[pid] = started_at(pid)
            return True
        return False

    def survivors(self) -> list[int]:
        """Converters that were seen, are no children of the daemon that runs, and are still there."""
        own = set(children_of(self.pid)) if self.pid else set()
        left = {pid: since for pid, since in self.converters.items() if started_at(pid) == since}
        self.converters = left
        return [pid for pid in left if pid not in own]

    def command(self, *arguments: str) -> Any:
        """The real command, in a process of its own."""
        return convertd(*arguments, *self.daemon.where, cwd=self.home, env=self.daemon.env)

    def log_tail(self) -> str:
        return self.daemon.log.read_text(errors="replace")[-1500:]

    # -- what is known and told --------------------------------------------------------------------------------

    def rows(self, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
        """Of the job table; none where it cannot be read yet."""
        try:
            return self.daemon.rows(sql, *bindings)
        except (OSError, ConvertdError):
            return []

    def newest_job(self, document: Document) -> int:
        sql = "SELECT max(j.id) FROM jobs j JOIN watches w ON w.id = j.watch WHERE w.name = ? AND j.source = ?"
        rows = self.rows(sql, document.watch, os.fsencode(document.name))
        return int(rows[0][0] or 0) if rows else 0

    def journal(self, name: str) -> list[str]:
        """What has been written there: `violations`, `fired`, `poisoned` by the daemon, `events` by whom it tells."""
        try:
            return (self.control / name).read_text().splitlines()
        except FileNotFoundError:
            return []

    def events(self) -> list[dict[str, Any]]:
        """What somebody was told by now; he may have been killed with the daemon in the midst of a line."""
        events = []
        for line in self.journal("events"):
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
        return events

    def arm(self, label: str, kind: str, skip: int, times: int) -> None:
        """Let the daemon meet a fault there, beside those that are armed at other labels."""
        armed = {"kind": kind, "skip": skip, "times": times, "number": next(self._numbers)}
        self._tell(f"{ARMED}/{label}", json.dumps(armed))

    def is_armed(self, label: str = "*") -> bool:
        """Whether there is a fault that was not met yet, or not often enough: at this label, or at any."""
        return any((self.control / ARMED).glob(label))

    def disarm(self) -> None:
        """What was armed and not met yet is not to be met any more."""
        for path in (self.control / ARMED).iterdir():
            path.unlink(missing_ok=True)

    def jump(self, ahead_seconds: float) -> None:
        """Set the daemon's clock."""
        self._tell("clock", str(ahead_seconds))

    def _tell(self, name: str, text: str) -> None:
        hidden = self.control / ".told"
        hidden.write_text(text)
        hidden.rename(self.control / name)

    def later(self, work: Callable[[], None]) -> None:
        """Do this in a thread, which is waited for at the end of the round."""
        thread = threading.Thread(target=work, name="slow writer")
        self.writers = [*(writer for writer in self.writers if writer.is_alive()), thread]
        thread.start()

    def wait_for_writers(self) -> None:
        for writer in self.writers:
            writer.join()
