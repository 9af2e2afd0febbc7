"""Process 1 of the machine whose power is cut: says what it finds on its disk, then lets convertd work there.

It says a line a fact on its console: FOUND with all that is there at the start, DROPPED and SUBMITTED when a document
is safe, CONVERTED when convertd says so, DRAINED with all that is there when nothing is left to do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import apsw

from tests.fault.outcome import torn
from tests.harness import until

HOME = Path("/mnt/home")
INBOX, OUTBOX, TABLE = HOME / "inbox", HOME / "outbox", HOME / "state" / "convertd.db"
CONFIG = """
state_dir = "state"
workers = 1
[[watch]]
name = "inbox"
source = "inbox"
sink = "outbox"
on_success = "delete"
"""
PATIENCE_SECONDS = 3600.0
"""The host has less, and pulls the plug."""
_console = threading.Lock()


def say(word: str, what: Any) -> None:
    """A line on the console, whole."""
    with _console:
        os.write(1, f"\n{word} {json.dumps(what)}\n".encode())


def found() -> dict[str, Any]:
    """All that is on the disk."""
    jobs: dict[str, str] = {}
    integrity = "none"
    if TABLE.exists():
        table = apsw.Connection(str(TABLE))
        integrity = str(next(iter(table.execute("PRAGMA integrity_check")))[0])
        jobs = {
            os.fsdecode(source): state for source, state in table.execute("SELECT source, state FROM jobs ORDER BY id")
        }
        table.close()
    outputs = [path for path in OUTBOX.rglob("*.md") if not path.name.startswith(".")] if OUTBOX.exists() else []
    return {
        "integrity": integrity,
        "jobs": jobs,
        "inbox": [path.name for path in INBOX.iterdir()] if INBOX.exists() else [],
        "outputs": [str(path.relative_to(OUTBOX)).removesuffix(".md") for path in outputs],
        "torn": [complaint for path in outputs if (complaint := torn(path))],
    }


def drop(name: str, text: str) -> None:
    """A document that is safe in the inbox, and old enough to be deleted once it is converted."""
    hidden = INBOX / f".{name}"
    with hidden.open("w") as file:
        file.write(text)
        file.flush()
        os.utime(file.fileno(), (1.7e9, 1.7e9))
        os.fsync(file.fileno())
    hidden.rename(INBOX / name)
    sync(INBOX)
    say("DROPPED", name)


def sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon", *arguments, "--config", "convertd.toml"],
        cwd=HOME,
        capture_output=True,
        text=True,
    )


def start(plant: str) -> subprocess.Popen[bytes]:
    """The daemon; what it says of converted documents goes on the console."""
    entry = "tests.fault.daemon_without_sync" if plant == "no-fsync" else "daemon"
    daemon = subprocess.Popen(
        [sys.executable, "-m", entry, "run", "--config", "convertd.toml"], cwd=HOME, stderr=subprocess.PIPE
    )

    def tell() -> None:
        assert daemon.stderr is not None
        for raw in daemon.stderr:
            try:
                line = json.loads(raw)
            except ValueError:
                say("DAEMON", raw.decode(errors="replace"))
                continue
            if line.get("event") == "converted":
                say("CONVERTED", line["source"])
            elif line.get("level") != "info":
                say("DAEMON", line)

    threading.Thread(target=tell, daemon=True).start()
    return daemon


def submit(boot: int, number: int) -> None:
    mine = Path(f"/tmp/s{boot}-{number}.txt")
    mine.write_text(f"the river that was submitted {boot} {number}\n")
    if command("submit", str(mine), "--batch", "b").returncode == 0:
        say("SUBMITTED", f"submitted/b/{mine.name}")


def work(boot: int, plant: str, documents: int) -> None:
    daemon = start(plant)
    for number in range(documents):
        drop(f"d{boot}-{number:03}.txt", f"the river {boot} {number}\n" * (1 + 40 * (number % 5)))
        if number == documents // 2:
            until(lambda: is_up(daemon), "the daemon is up", PATIENCE_SECONDS)
        if number >= documents // 2 and number % 3 == 0:
            submit(boot, number)
    say("DRAINED", until(drained, "all is converted", PATIENCE_SECONDS))


def is_up(daemon: subprocess.Popen[bytes]) -> bool:
    assert daemon.poll() is None, "the daemon has ended"
    return (HOME / "state" / "control.sock").is_socket()


def drained() -> dict[str, Any] | None:
    """What there is once nothing is left to be done."""
    if os.listdir(INBOX):
        return None
    now = found()
    return None if {"pending", "processing"} & set(now["jobs"].values()) else now


def main() -> None:
    boot, plant, documents = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    try:
        say("FOUND", found())
        INBOX.mkdir(parents=True, exist_ok=True)
        (HOME / "convertd.toml").write_text(CONFIG)
        for folder in (INBOX, HOME, HOME.parent):
            sync(folder)
        os.sync()
        work(boot, plant, documents)
    except BaseException:
        say("BROKEN", traceback.format_exc())
    threading.Event().wait()  # process 1 must not end


if __name__ == "__main__":
    main()
