"""Actions against the daemon and its surroundings: processes, fault points, disks, clock and bucket."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
from pathlib import Path
from threading import Event

from tests.chaos.documents_of import SKIPPED
from tests.chaos.hooks import DIE
from tests.chaos.model import Model
from tests.chaos.places import Folder, is_hidden
from tests.chaos.provoking import is_of_submission, provoke
from tests.chaos.waiting import within
from tests.chaos.world import World
from tests.fault_proxy import Fault, Kind

DEATHS = (
    *("list folder", "enqueue", "enqueued", "start", "open source", "download", "downloaded", "convert", "converted"),
    *("verify", "deliver", "delivered", "write", "rename", "rename", "sync"),
    *("put", "put", "part", "published", "remove"),
    *("complete", "completed", "fail", "back off", "before-commit", "before-commit", "after-commit", "after-commit"),
    *("intake copy", "intake copied", "intake rename", "intake sync", "submit record", "submit", "submitted"),
    *("submit recorded", "submit answer", "give back"),
    *("dispose", "hide", "hidden", "unlink", "sync source", "disposed", "disposed", "make target", "move"),
    *("copy across", "copied across", "sync target", "moved", "delete", "deleted", "copy", "copied"),
    *("record disposal", "disposal recorded"),
)
"""Where the daemon may die: at every step from discovery to disposal."""
DISK = ("EIO", "ENOSPC", "EACCES")
TABLE = ("FullError", "IOError")
ERRORS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("list folder", "look at folder", "open source"), ("EIO", "EACCES")),
    **dict.fromkeys(("write", "rename", "sync"), DISK),
    **dict.fromkeys(("hide", "unlink", "sync source", "make target", "move"), DISK),
    **dict.fromkeys(("copy across", "sync target"), DISK),
    "before-commit": TABLE,
}
"""Where an error may be met, as the kernel or SQLite would give it."""
FAILING = (*sorted(ERRORS), *("open source", "write", "rename") * 3)
"""How often each: the errors of single documents make attempts that are repeated."""
TIMES = (1, 1, 2, 3)
"""Less often in a row than the daemon tries to write an error file."""
CONVERTERS_SECONDS = 5.0
JUMPS_SECONDS = (-86400.0, -3600.0, -60.0, -2.0, 2.0, 60.0, 3600.0, 86400.0)


def kill_daemon(world: World, model: Model, chance: random.Random) -> str:
    running = world.pid
    world.kill()
    return f"process {'killed' if running else 'was dead already'}"


def terminate_daemon(world: World, model: Model, chance: random.Random) -> str:
    world.terminate()
    return "SIGTERM"


def freeze_daemon(world: World, model: Model, chance: random.Random) -> str:
    return _freeze(world.pid, chance)


def freeze_converter(world: World, model: Model, chance: random.Random) -> str:
    children = _converters(world)
    return _freeze(chance.choice(children), chance) if children else SKIPPED + "no converter"


def _freeze(pid: int, chance: random.Random) -> str:
    seconds = chance.uniform(0.05, 1.5)
    if not pid:
        return SKIPPED + "it does not run"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        Event().wait(seconds)
        os.kill(pid, signal.SIGCONT)
    return f"for {seconds:.2f} s"


def kill_converter(world: World, model: Model, chance: random.Random) -> str:
    children = _converters(world)
    if not children:
        return SKIPPED + "no converter"
    with contextlib.suppress(ProcessLookupError):
        os.kill(chance.choice(children), signal.SIGKILL)
    return "one of " + str(len(children))


def _converters(world: World) -> list[int]:
    """Those of a daemon that runs; one that has just been started is given some time to have them."""
    within(CONVERTERS_SECONDS, lambda: world.children() or not world.pid)
    return world.children()


def die_at(world: World, model: Model, chance: random.Random, label: str) -> str:
    skip = chance.choice((0, 0, 1, 3)) if not is_of_submission(label) else 0  # which is made once
    world.arm(label, DIE, skip, 1)
    return f"{label}, after {skip}; {provoke(world, model, chance, label, 1 + skip)}"


def fail_at(world: World, model: Model, chance: random.Random, label: str) -> str:
    kind, skip, times = chance.choice(ERRORS[label]), chance.choice((0, 2)), chance.choice(TIMES)
    world.arm(label, kind, skip, times)
    return f"{kind} at {label}, {times} times; {provoke(world, model, chance, label, 1 + skip)}"


def fill_sink(world: World, model: Model, chance: random.Random) -> str:
    return _fill(world, world.home / "keep" / "out", chance)


def fill_state(world: World, model: Model, chance: random.Random) -> str:
    return _fill(world, world.home / "state", chance)


def _fill(world: World, disk: Path, chance: random.Random) -> str:
    """Nearly full, which some documents feel, or quite; for a while."""
    leave, seconds = chance.choice((0, 0, 4096, 65536)), chance.uniform(0.2, 3.0)
    if not os.path.ismount(disk):
        return SKIPPED + "no small disk"

    def fill() -> None:
        filler = disk / ".filler"
        with filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC
            file.truncate(max(0, file.tell() - leave))
        Event().wait(seconds)
        filler.unlink(missing_ok=True)

    world.later(fill)
    return f"{disk.name} up to {leave} bytes, for {seconds:.1f} s"


def take_away(world: World, model: Model, chance: random.Random) -> str:
    """A folder of the daemon is gone for a while, and its documents with it."""
    watch = chance.choice([watch for watch in world.watches.values() if watch.in_folder])
    place = chance.choice([place for place in (watch.source, watch.sink) if isinstance(place, Folder)])
    seconds = chance.uniform(0.1, 2.0)
    locked = [document for document in model.of(watch.name) if document.lock.acquire(blocking=False)]
    try:
        if len(locked) < len(model.of(watch.name)) or os.path.ismount(place.path):
            return SKIPPED + "it is in use"
        if not world.has_started():
            return SKIPPED + "a daemon that starts would make it anew"
        away = place.path.with_name(place.path.name + " away")
        world.away = (away, place.path)
        place.path.rename(away)
        Event().wait(seconds)
        back(world)
    finally:
        for document in locked:
            document.lock.release()
    return f"{watch.name}/{place.path.name} for {seconds:.1f} s"


def back(world: World) -> None:
    """Put back what was taken away. A daemon that was started meanwhile may have made another: what it has put there
    since is newer."""
    if world.away is None:
        return
    away, path = world.away
    anew = path.with_name(path.name + " anew")
    with contextlib.suppress(FileNotFoundError):
        path.rename(anew)
    away.rename(path)
    world.away = None
    if anew.is_dir():
        for name in Folder(anew).names():
            if not is_hidden(name):
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (anew / name).rename(path / name)
        shutil.rmtree(anew)


def jump_clock(world: World, model: Model, chance: random.Random) -> str:
    seconds = chance.choice(JUMPS_SECONDS)
    world.jump(seconds)
    return f"{seconds:+.0f} s"


def spoil_bucket(world: World, model: Model, chance: random.Random) -> str:
    """A few requests, of one kind or of any, are answered badly or not at all."""
    method = chance.choice((None, "GET", "GET", "PUT", "PUT", "HEAD", "DELETE"))
    kind: Kind = chance.choice(
        ("cut", "reset", "stall", "stall_before_headers", "truncate", "long", "status", "refuse")
    )
    if chance.random() < 0.1:
        kind, method = "wrong_etag", "GET"
    if kind in ("truncate", "long") and method in (None, "HEAD"):
        method = "GET"  # a HEAD that lies, of the etag or the size, makes a daemon keep a source that is to be deleted
    times, reaches = chance.choice((1, 2, 4, 8)), chance.random() < 0.3
    status, code = chance.choice(((500, "InternalError"), (503, "SlowDown"), (429, "TooManyRequests")))
    after = chance.choice((0, 10, 500))
    if world.proxy is None:
        return SKIPPED + "no buckets"
    world.proxy.inject(
        Fault(kind, method=method, times=times, after_bytes=after, status=status, code=code, reaches_server=reaches)
    )
    return f"{kind} of {method or 'any request'}, {times} times"
