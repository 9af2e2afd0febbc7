"""What must hold after whatever befell a daemon: nothing lost, nothing torn, nothing left behind."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

from tests.harness import Daemon, alive, until


def is_converter(pid: int) -> bool:
    """Whether the process is a converter."""
    try:
        return alive(pid) and b"daemon.converters.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def orphans() -> list[int]:
    """Converters that have survived their daemon, whichever that was: what hides its environment is hard to tell.

    They are children of init or of another reaper then, and of no Python: tests beside this one have theirs as well.
    """
    pids = [int(process.name) for process in Path("/proc").iterdir() if process.name.isdigit()]
    return [pid for pid in pids if is_converter(pid) and not _has_parent(pid)]


def _has_parent(pid: int) -> bool:
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        return parent > 1 and b"python" in Path(f"/proc/{parent}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return alive(pid) is False


def no_orphans() -> None:
    """Wait until every converter without a daemon is gone."""
    until(lambda: not orphans(), "no converter survives its daemon", 30)


def leftovers(outbox: Path) -> list[str]:
    """What unfinished publishes have left in a sink."""
    return sorted(str(path) for path in outbox.rglob(".convertd-*") if not path.is_dir()) + sorted(
        str(path) for path in outbox.rglob("*.tmp")
    )


def integrity(daemon: Daemon) -> str:
    """What SQLite thinks of the job table: 'ok'."""
    return str(daemon.rows("PRAGMA integrity_check")[0][0])


def states(daemon: Daemon) -> dict[str, str]:
    """Document → state of its newest job. Faster than the command."""
    return {os.fsdecode(source): state for source, state in daemon.rows("SELECT source, state FROM jobs ORDER BY id")}


def interruptions(daemon: Daemon) -> dict[str, int]:
    """How often each document's conversion was interrupted by the death of the daemon."""
    return {os.fsdecode(source): count for source, count in daemon.rows("SELECT source, interruptions FROM jobs")}


def torn(markdown: Path) -> str | None:
    """Why this output is not whole, if it is not: it must be what the sidecar published before it says."""
    content = markdown.read_bytes()
    if not content:
        return f"{markdown} is empty"
    try:
        sidecar = json.loads(markdown.with_suffix(".json").read_bytes())
    except (OSError, ValueError) as error:
        return f"{markdown} has no whole sidecar: {error!r}"
    if sidecar["markdown_sha256"] != hashlib.sha256(content).hexdigest():
        return f"{markdown} is not what its sidecar says"
    return None


class Reader:
    """A reader of the sink that looks at every output as soon as it appears, and again whenever it is replaced."""

    def __init__(self, outbox: Path) -> None:
        self.looks = 0
        self.complaints: list[str] = []
        self._outbox = outbox
        self._seen: dict[str, tuple[int, int]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.002):
            try:
                self._look()
            except FileNotFoundError:
                continue  # the sink is not there yet
            except BaseException as error:
                self.complaints.append(repr(error))
                raise

    def _look(self) -> None:
        with os.scandir(self._outbox) as entries:
            for entry in entries:
                if entry.name.endswith(".md"):
                    status = os.stat(entry.path)
                    identity = (status.st_ino, status.st_mtime_ns)
                    if self._seen.get(entry.name) != identity:
                        self._seen[entry.name] = identity
                        self.looks += 1
                        if complaint := torn(Path(entry.path)):
                            self.complaints.append(complaint)
