"""The converter process: shuts itself up in the sandbox, loads the engines, converts one document after the other.

Everything an engine does happens behind the sandbox, loading it included. The process ends when its parent does,
when it is asked nothing more, or when memory has run out; it leaves by `os._exit`, since some libraries crash on an
orderly exit. What is written to stdout is lost, stderr goes to the parent as far as there is room for it.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import importlib.util
import io
import itertools
import mmap
import os
import signal
import site
import socket
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from daemon import sandbox
from daemon.converters import REGISTRY, tessdata, wire
from daemon.converters.base import EngineError
from daemon.converters.route import Router
from daemon.errors import Kind

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRESS_TOLD = 10_000  # of the members of an archive; the parent does not listen for ever
OUT_OF_MEMORY = "the document needs more memory than a converter may use"


class WornOut(Exception):
    """This process is unfit for another document."""


def main(descriptor: int) -> None:
    """Run until the parent hangs up; `descriptor` is the child's end of the socketpair. Never returns."""
    status = 1
    try:
        sys.stderr = io.TextIOWrapper(Noise(), errors="backslashreplace", write_through=True)
        _serve(wire.Channel(socket.socket(fileno=descriptor)))
        status = 0
    except (EOFError, ConnectionError, WornOut):
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


class Noise(io.RawIOBase):
    """stderr: written as far as the pipe takes it, never waited for, never an error."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        content = memoryview(data)  # type: ignore[arg-type]
        try:
            os.write(2, content)
        except OSError:
            pass
        return content.nbytes


def _serve(channel: wire.Channel) -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the parent decides when to end
        signal.signal(ignored, signal.SIG_IGN)
    settings = channel.receive(wire.TO_CHILD)
    if not isinstance(settings, wire.Settings):
        raise wire.ProtocolError("the first message must be the settings")
    if not sandbox.die_with_parent(settings.parent):
        raise EOFError
    dotted = [name for names in settings.options.engines.values() for name in names if name not in REGISTRY]
    readable = [
        *library_paths(),
        *engine_paths(dotted),
        settings.options.tessdata_dir or tessdata.packaged_dir(),
    ]
    facts = sandbox.enter(readable, settings.memory_bytes)
    router = Router(settings.options)
    gc.disable()  # what is loaded stays: to look through it for garbage is in vain, now and for every document
    router.warm()
    gc.freeze()
    gc.enable()
    channel.send(wire.Ready(landlock_abi=facts.landlock_abi, seccomp=facts.seccomp))
    while True:
        task, document = channel.receive_with_descriptor(wire.TO_CHILD)
        if not isinstance(task, wire.Task) or document is None:
            raise wire.ProtocolError("a task needs a document")
        try:
            _convert(channel, router, settings.result_bytes, task, document)
        finally:
            os.close(document)


def library_paths() -> list[str]:
    """Folders that hold Python, what pip installed, and this package; not a checkout around it."""
    named = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = {sysconfig.get_path(name) for name in named}
    bases = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    paths.update(sysconfig.get_path(name, vars=bases) for name in named[:2])
    paths.update(site.getsitepackages())
    paths.update(folder for folder in sys.path if _holds_distributions(folder))
    paths.update(filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)))
    return sorted({PACKAGE, *paths})


def engine_paths(engines: Iterable[str]) -> list[str]:
    """Where the packages of engines lie that the configuration names as `package.module:Class`."""
    paths = []
    for engine in engines:
        spec = importlib.util.find_spec(engine.partition(":")[0].partition(".")[0])
        if spec is not None:
            paths += spec.submodule_search_locations or [spec.origin or ""]
    return paths


def _holds_distributions(folder: str) -> bool:
    """Whether packages are installed here; in the source tree of a project there is none."""
    try:
        return any(name.endswith(".dist-info") for name in os.listdir(folder))
    except OSError:
        return False


def _convert(channel: wire.Channel, router: Router, result_bytes: int, task: wire.Task, document: int) -> None:
    """Convert and answer. Raises `WornOut` after an answer that was its last."""
    try:
        result, markdown = _result(channel, router, task, document)
    except (ConnectionError, wire.ProtocolError):
        raise
    except Exception as error:
        if _exhausted(error):
            _fail(channel, task, Kind.OUT_OF_MEMORY, OUT_OF_MEMORY, last=True)
        if isinstance(error, EngineError):
            _fail(channel, task, error.kind, error.message)
            return
        _fail(channel, task, Kind.INTERNAL, f"convertd failed on the document: {error!r}")
    except BaseException as error:
        _fail(channel, task, Kind.CRASHED, f"the converter gave up: {error!r}", last=True)
    else:
        if len(markdown) > result_bytes:
            message = f"the Markdown has {len(markdown):,} bytes, more than the {result_bytes:,} allowed"
            _fail(channel, task, Kind.TOO_LARGE, message)
        else:
            channel.send_around(result, markdown, wire.End(token=task.token))


def _result(channel: wire.Channel, router: Router, task: wire.Task, document: int) -> tuple[wire.Result, bytes]:
    channel.send(wire.Progress(token=task.token, engine=""))  # begun: from here on the document is to blame
    size_bytes = os.fstat(document).st_size
    if not size_bytes:
        raise EngineError(Kind.EMPTY, "the file is empty")
    told = itertools.count()

    def tell(engine: str) -> None:
        if next(told) < PROGRESS_TOLD:
            channel.send(wire.Progress(token=task.token, engine=wire.clean(engine)))

    with mapped(document, size_bytes) as data:
        sha256 = hashlib.sha256(data).hexdigest()
        routed = router.convert(wire.file_name(task.name), data, tell)
    converted = routed.converted
    markdown = converted.markdown.encode("utf-8", "replace")
    result = wire.Result(
        token=task.token,
        size_bytes=len(markdown),
        sha256=sha256,
        media_type=wire.clean(routed.media_type),
        engine=wire.clean(routed.engine),
        engine_version=wire.clean(routed.engine_version),
        pages=converted.pages,
        title=None if converted.title is None else wire.clean(converted.title),
        characters=len(converted.markdown),
        warnings=wire.clean_warnings(routed.warnings),
    )
    return result, markdown


class Mapped(mmap.mmap):
    """A document in memory. Made into `bytes` it is read, since a map would have to be given each of its pages first:
    50 MB of the page cache take a tenth to a quarter less time (`python -m tests.bench --only reading`)."""

    descriptor: int

    def __bytes__(self) -> bytes:
        content = os.pread(self.descriptor, len(self), 0)
        return content if len(content) == len(self) else self[:]  # one call reads 2 GiB at most


@contextmanager
def mapped(document: int, size_bytes: int) -> Iterator[mmap.mmap]:
    """The document behind a descriptor, as engines are given it."""
    data = Mapped(document, size_bytes, access=mmap.ACCESS_READ)
    data.descriptor = document
    try:
        yield data
    finally:
        data.descriptor = -1  # soon another document's
        with suppress(BufferError):  # somebody still looks into it: unmapped when they are done
            data.close()


def _exhausted(error: BaseException | None) -> bool:
    """Whether this process is short of memory or descriptors, which an earlier document may have taken."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, EngineError) and error.kind is Kind.OUT_OF_MEMORY):
            return True
        if isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EMFILE):
            return True
        error = error.__cause__
    return False


def _fail(channel: wire.Channel, task: wire.Task, kind: Kind, message: str, *, last: bool = False) -> None:
    channel.send(wire.Failure(token=task.token, kind=kind, message=wire.clean(message), last=last))
    if last:
        raise WornOut
