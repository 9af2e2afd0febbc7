"""Engines that misbehave, to be plugged in as `tests.engines_for_tests:Loop` for the kind "text".

Each leaves the samples alone by which a child warms up. `Command` does what the document's first word names, so that
one pool can be shown every misbehaviour.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import mmap
import os
import signal
import socket
import sys
import threading
import time

from daemon.converters import wire
from daemon.converters.base import Converted, Document, EngineError, Options
from daemon.errors import Kind


class Echo:
    """Returns the text of the document."""

    name = "test-engine"

    def version(self) -> str:
        return "1"

    def convert(self, document: Document, options: Options) -> Converted:
        text = document.content.decode("utf-8", "replace")
        return Converted(text if text.startswith("warming") else self.work(text))

    def work(self, text: str) -> str:
        return text


class Slow(Echo):
    """Takes as many seconds as the document's last word says."""

    def work(self, text: str) -> str:
        time.sleep(float(text.split()[-1]))
        return text


class Collected(Echo):
    """Tells how garbage is collected in the child."""

    def work(self, text: str) -> str:
        return f"{gc.isenabled()} {gc.get_freeze_count() > sum(map(len, map(gc.get_objects, range(3))))}"


class Loop(Echo):
    def work(self, text: str) -> str:
        while True:
            pass


class Crash(Echo):
    def work(self, text: str) -> str:
        ctypes.string_at(0)
        return text


class Abort(Echo):
    def work(self, text: str) -> str:
        os.abort()


class NativeMemory(Echo):
    """Runs out of memory the way libraries in Rust do."""

    def work(self, text: str) -> str:
        os.write(2, b"memory allocation of 1099511627776 bytes failed\n")
        os.abort()


class Memory(Echo):
    """Eats memory until there is none."""

    def work(self, text: str) -> str:
        hoard = []
        while True:
            hoard.append(bytearray(b"x") * (1 << 24))


class Killed(Echo):
    """Ends as if the system had killed it."""

    def work(self, text: str) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return text


class Raise(Echo):
    def work(self, text: str) -> str:
        raise RuntimeError("the engine is unhappy")


class Exit(Echo):
    def work(self, text: str) -> str:
        sys.exit(3)


class Noise(Echo):
    """Writes 2 GiB to stdout and stderr, by Python and past it."""

    def work(self, text: str) -> str:
        piece = "noise" * (1 << 18)
        content = piece.encode()
        for _ in range(800):
            os.write(1, content)
            try:
                os.write(2, content)
            except BlockingIOError:
                pass
        print(piece)
        print(piece, file=sys.stderr)
        return "noisy"


class Reread(Echo):
    """Reads the end of a long document again and again."""

    def convert(self, document: Document, options: Options) -> Converted:
        size_bytes = len(document.data)
        while size_bytes >= 1 << 20:
            document.data[size_bytes - 1]
        return Converted("too short to be read again")


class Garbage(Echo):
    """Writes to the socket by which the child talks to its parent."""

    def work(self, text: str) -> str:
        os.write(protocol_descriptor(), b"\xff" * 100)
        return text


class Truncated(Echo):
    """Claims a result that never comes whole."""

    def work(self, text: str) -> str:
        os.write(protocol_descriptor(), wire.LENGTH.pack(1000) + b"half")
        os._exit(0)


class HangUp(Echo):
    """Leaves the parent, but goes on."""

    def work(self, text: str) -> str:
        os.close(protocol_descriptor())
        while True:
            pass


class Impostor(Echo):
    """Sends answers to questions that nobody asked."""

    def work(self, text: str) -> str:
        with socket.socket(fileno=os.dup(protocol_descriptor())) as end:
            wire.Channel(end).send(wire.Progress(token=1, engine="impostor"))
        return text


class Surplus(Echo):
    """Goes on talking after its result."""

    def work(self, text: str) -> str:
        threading.Thread(target=self._later, daemon=True).start()
        return text

    def _later(self) -> None:
        os.set_blocking(protocol_descriptor(), True)
        while True:
            os.write(protocol_descriptor(), wire.LENGTH.pack(4))
            time.sleep(0.05)


class Thread(Echo):
    """Leaves a thread behind that never ends."""

    def work(self, text: str) -> str:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return text


class Fork(Echo):
    def work(self, text: str) -> str:
        if os.fork() == 0:
            time.sleep(3600)
        return "forked"


class Program(Echo):
    def work(self, text: str) -> str:
        os.execv("/bin/true", ["true"])


class Secret(Echo):
    def work(self, text: str) -> str:
        with open("/etc/passwd") as file:
            return file.read()


class Connect(Echo):
    def work(self, text: str) -> str:
        with socket.create_connection(("127.0.0.1", 9)):
            return "connected"


class KillParent(Echo):
    def work(self, text: str) -> str:
        os.kill(os.getppid(), signal.SIGKILL)
        return "killed"


class Large(Echo):
    """Returns so many characters as the document's last word says."""

    def work(self, text: str) -> str:
        return "x" * int(text.split()[-1])


class Environment(Echo):
    """Tells what it sees of the daemon's environment."""

    def work(self, text: str) -> str:
        return "\n".join([os.getcwd(), *sorted(os.environ)])


class Leak(Echo):
    """Leaves nearly all of the address space taken, hardly any of it resident."""

    def work(self, text: str) -> str:
        piece = 64 << 20
        try:
            while True:
                LEAKED.append(mmap.mmap(-1, piece))
        except OSError:
            LEAKED.pop()
        return text


LEAKED: list[mmap.mmap] = []


class DieNext(Echo):
    """Converts its document, and takes the process down a moment later."""

    def work(self, text: str) -> str:
        threading.Timer(0.3, os.abort).start()
        return text


class HalfAWord(Echo):
    """Converts its document, and a moment later begins to say something that never ends."""

    def work(self, text: str) -> str:
        threading.Timer(0.3, lambda: os.write(protocol_descriptor(), wire.LENGTH.pack(1000))).start()
        return text


class Stuck(Echo):
    """Converts its document, and stops the process a moment later."""

    def work(self, text: str) -> str:
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGSTOP)).start()
        return text


class Spoil(Echo):
    """Leaves something behind by which `Suffer` can tell."""

    def work(self, text: str) -> str:
        SPOILT.set()
        return text


SPOILT = threading.Event()


class Suffer(Echo):
    """Does what its last word says where another document has spoilt the process, and converts elsewhere."""

    def work(self, text: str) -> str:
        if SPOILT.is_set():
            if text.split()[-1] == "crash":
                os.abort()
            raise OSError(errno.ENOMEM, "nothing can be mapped")
        return text


class Threads(Echo):
    """Leaves many threads behind that take hardly any memory."""

    def work(self, text: str) -> str:
        threading.stack_size(1 << 16)
        for _ in range(20):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        return text


class Escape(Echo):
    """Quotes a document that means the terminal."""

    def work(self, text: str) -> str:
        raise EngineError(Kind.CORRUPT, "bad\x1b[2J\nforged: line\x9b")


class Binary(Echo):
    """Forges a result that is no text."""

    def work(self, text: str) -> str:
        frame = sys._getframe()
        while "task" not in frame.f_locals and frame.f_back:
            frame = frame.f_back
        body = b"\xff\xfe"
        result = wire.Result(frame.f_locals["task"].token, len(body), "0" * 64, "", "", "", None, None, 0, ())
        with socket.socket(fileno=os.dup(protocol_descriptor())) as end:
            wire.Channel(end).send_around(result, body, wire.End(result.token))
        return text


class Command(Echo):
    """Does what the first word of the document names: one of the classes above."""

    def work(self, text: str) -> str:
        engine: Echo = globals()[text.split()[0]]()
        return engine.work(text)


class Broken(Echo):
    """Cannot be loaded."""

    def __init__(self) -> None:
        raise ImportError("libmissing.so.1: cannot open shared object file")


def protocol_descriptor() -> int:
    """The child's end of the socketpair, which its command line names."""
    return int(sys.argv[1])
