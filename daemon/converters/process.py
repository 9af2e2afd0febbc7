"""A converter child as the daemon sees it: started, given one document at a time, killed, reaped."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import select
import signal
import site
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from daemon.converters import wire
from daemon.converters.talk import Talk
from daemon.converters.tessdata import packaged_dir
from daemon.errors import DocumentError, EnvironmentProblem, Kind, TransientError
from daemon.model import Conversion, printable

NOISE_BYTES = 1 << 20
READ_BYTES = 1 << 16
TAIL_BYTES = 4096
END_SECONDS = 5.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = "import sys; from daemon.converters.child import main; main(int(sys.argv[1]))"
NO_MEMORY = re.compile(rb"memory allocation of \d+ bytes failed|bad_alloc|MemoryError|[Cc]annot allocate memory")


class ChildGone(Exception):
    """The child died, hung or went mad before it began with the document: another one can take it."""


@dataclass(frozen=True)
class Footprint:
    """What a child holds of the machine; nothing where that cannot be told."""

    resident_bytes: int = 0
    address_space_bytes: int = 0
    threads: int = 0


class ChildProcess:
    """One converter process. Construct it in a thread that lives as long as the child may: it dies with that thread.

    One thread at a time calls `convert`; `kill` may be called from any. Raises OSError if no process can be started.
    Large results lie in the folder `spool`.
    """

    def __init__(self, settings: wire.Settings, spool: str = "") -> None:
        ours, theirs = wire.pair()
        self._noise, noise = _noise_pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=noise,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                env=environment(settings),
                start_new_session=True,  # no terminal, no Ctrl-C, and a group to be killed as one
            )
        except BaseException:
            ours.close()
            os.close(self._noise)
            raise
        finally:
            theirs.close()
            os.close(noise)
        self._channel = wire.Channel(ours, reads_ahead=True, send_seconds=wire.SEND_SECONDS)
        self._reaping = threading.Lock()
        self._killed = False
        self._settings = settings
        self._spool = spool
        self.pid = self._process.pid
        # Opened before the sandbox closes: where /proc hides processes it would not be found afterwards.
        self._statistics = _opened(f"/proc/{self.pid}/stat")
        self.started = time.monotonic()
        self.facts: wire.Ready | None = None
        self.footprint_when_ready = Footprint()
        self.documents = 0
        """How many it began with."""
        self.unfit = ""
        """Why this child must get no further document; empty while it may."""

    def fileno(self) -> int:
        """To poll: readable once it is ready, hung up once it is dead."""
        return self._channel.fileno()

    def introduce(self) -> None:
        """Tell a new child its settings. Raises OSError when it is dead already."""
        self._channel.send(self._settings)

    def become_ready(self) -> None:
        """Take the message that the child is ready, once readable. Raises `ChildGone` if it is something else."""
        try:
            reply = self._channel.receive(wire.TO_PARENT, time.monotonic() + END_SECONDS)
        except (OSError, EOFError, wire.ProtocolError) as error:
            raise ChildGone from error
        if not isinstance(reply, wire.Ready):
            raise ChildGone
        self.facts = reply
        self.footprint_when_ready = self.footprint()

    def convert(self, document: int, name: str, timeout_seconds: float) -> Conversion:
        """Convert the document behind the descriptor within the time.

        Raises `DocumentError`, `ChildGone` if the child never began with it, for which the document cannot be to
        blame, `EnvironmentProblem` and `TransientError` if the spool cannot take the result. Whatever the child did
        wrong is in `unfit` afterwards.
        """
        started = time.monotonic()
        token = self._hand_over(document, name)
        talk = Talk(self._channel, token, started + timeout_seconds, self._spool)
        try:
            result, markdown = talk.outcome(self._settings.result_bytes)
        except TimeoutError:
            if not talk.begun:  # hung since the document before
                self._end("did not begin")
                raise ChildGone from None
            self._end("time-out")
            message = f"{talk.engine or 'The converter'} did not finish within {timeout_seconds:g} s"
            raise DocumentError(Kind.TIMEOUT, message) from None
        except (OSError, EOFError) as error:
            if not talk.begun:
                raise ChildGone from error
            raise self._death(talk.engine) from error
        except wire.ProtocolError as error:
            self._end(f"garbage: {printable(str(error))}")
            if not talk.begun:
                raise ChildGone from error
            message = f"{talk.engine or 'The converter'} broke the converter: {printable(str(error))}"
            raise DocumentError(Kind.CRASHED, message) from error
        except (EnvironmentProblem, TransientError):
            self._end("its result could not be kept")
            raise
        except DocumentError as error:
            if talk.last:
                self.unfit = error.message
            raise
        finally:
            self.documents += talk.begun
        if self._channel.surplus:
            self.unfit = "garbage: it spoke without being asked"
        return Conversion(
            markdown=markdown,
            sha256=result.sha256,
            media_type=printable(result.media_type),
            engine=printable(result.engine),
            engine_version=printable(result.engine_version),
            pages=result.pages,
            title=None if result.title is None else printable(result.title),
            characters=result.characters,
            warnings=tuple(map(printable, result.warnings)),
            convert_seconds=time.monotonic() - started,
            first_engine=talk.first_engine,
        )

    def footprint(self) -> Footprint:
        """What it holds now."""
        try:  # fields 20, 23 and 24 of proc_pid_stat(5); the name before them may hold anything
            values = os.pread(self._statistics, 4096, 0).rpartition(b")")[2].split()
            threads, address_space_bytes, resident_pages = int(values[17]), int(values[20]), int(values[21])
        except (OSError, LookupError):
            return Footprint()
        return Footprint(resident_pages * PAGE_BYTES, address_space_bytes, threads)

    def kill(self) -> None:
        """End the process now, and what it may have started. Does not wait."""
        with self._reaping:  # until it is reaped its pid is nobody else's
            self._killed = True
            if self._process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)

    def reap(self, seconds: float = END_SECONDS) -> bool:
        """Wait for the end of a process that was killed, and free what it holds; False if it did not end in time."""
        deadline = time.monotonic() + seconds
        self._wait_for_hang_up(seconds)
        while True:
            with self._reaping:
                if self._process.poll() is not None:
                    return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.0005)  # between closing its files and its end there is next to nothing

    def close(self) -> None:
        """Free the descriptors. Idempotent."""
        self._channel.close()
        for fd in (self._noise, self._statistics):
            if fd >= 0:
                os.close(fd)
        self._noise = self._statistics = -1

    def last_words(self) -> bytes:
        """The end of what the child wrote to stderr since this was asked last, as far as the pipe had room for it."""
        tail = b""
        with suppress(OSError):  # nothing more
            for _ in range(4 * NOISE_BYTES // READ_BYTES):  # bounded: it may write as fast as this reads
                tail = (tail + os.read(self._noise, READ_BYTES))[-TAIL_BYTES:]
        return tail

    def last_line(self) -> str:
        """The last line of `last_words`, for people."""
        return _last_line(self.last_words())

    def _hand_over(self, document: int, name: str) -> int:
        self.last_words()
        token = secrets.randbits(47)  # what was said before, or is left to be said of another document, cannot fit
        try:
            self._channel.send(wire.Task(token=token, name=os.fsencode(name)), descriptor=document)
        except (ConnectionError, TimeoutError, BlockingIOError) as error:
            raise ChildGone from error
        return token

    def _end(self, why: str) -> None:
        self.unfit = why
        self.kill()

    def _death(self, engine: str) -> DocumentError:
        """Why the connection broke while this engine was at work."""
        who = engine or "The converter"
        if not self.reap(END_SECONDS if self._killed else 1.0):
            self._end("hung up")
            return DocumentError(Kind.CRASHED, f"{who} closed the converter's connection")
        words = self.last_words()
        code = self._process.returncode
        self.unfit = _signal_name(-code) if code < 0 else f"exit code {code}"
        said = _last_line(words)
        because = f": {said}" if said else ""
        if NO_MEMORY.search(words):
            return DocumentError(Kind.OUT_OF_MEMORY, f"{who} ran out of memory{because}")
        if code == -signal.SIGKILL:
            return DocumentError(Kind.OUT_OF_MEMORY, f"{who} was killed by the system, most likely for lack of memory")
        return DocumentError(Kind.CRASHED, f"{who} crashed ({self.unfit}){because}")

    def _wait_for_hang_up(self, seconds: float) -> None:
        """The socket is closed by the kernel with the process: waiting for that needs no polling in steps."""
        if self._process.poll() is None and self._channel.fileno() >= 0:
            poll = select.poll()
            poll.register(self._channel.fileno(), 0)
            poll.poll(int(seconds * 1000))


def environment(settings: wire.Settings) -> dict[str, str]:
    """All that a child gets of the environment: nothing of the daemon's own, which may hold credentials."""
    needed = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ}
    return needed | {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/nonexistent",
        "PYTHONPATH": os.pathsep.join(import_folders()),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TESSDATA_PREFIX": settings.options.tessdata_dir or packaged_dir(),
        # One document, one thread: the processors are shared out among children.
        "OMP_THREAD_LIMIT": "1",
        "OMP_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "TOKIO_WORKER_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",  # each reserves 64 MiB of the address space
    }


def import_folders() -> list[str]:
    """Where children may import from: what is installed, what PYTHONPATH names, and this package.

    Not the rest of `sys.path`: `python -m` puts the working folder there, which may be an inbox, and a document
    named like a module would then be run before the sandbox is closed.
    """
    trusted = {os.path.realpath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    installed = tuple(os.path.realpath(folder) + os.sep for folder in (sys.prefix, sys.base_prefix, *_site_folders()))
    real = {entry: os.path.realpath(entry) for entry in sys.path if entry}
    kept = [entry for entry, path in real.items() if path in trusted or (path + os.sep).startswith(installed)]
    return list(dict.fromkeys([*map(os.path.abspath, kept), PACKAGE_ROOT]))


def _site_folders() -> list[str]:
    return [*site.getsitepackages(), site.getusersitepackages()]


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _noise_pipe() -> tuple[int, int]:
    """A pipe that takes so much and no more: a writer is never held up."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, NOISE_BYTES)
    except OSError:
        pass  # the user has many pipes; this one stays smaller
    return reading, writing


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(words: bytes) -> str:
    lines = [line for line in words.decode("utf-8", "replace").splitlines() if line.strip()]
    return "".join(char for char in lines[-1] if char.isprintable())[:300] if lines else ""
