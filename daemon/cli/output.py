"""Standard output, where commands print. Loaded by every command, so it imports nothing that takes time."""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from daemon.errors import OutputLost


@contextmanager
def watched() -> Iterator[None]:
    """Have commands print: what keeps them from it is raised as OutputLost, but for a reader that is gone (EPIPE).

    Where the encoding is not UTF-8, characters that it does not have are escaped.
    """
    _escape_what_it_lacks(sys.stdout)
    _escape_what_it_lacks(sys.stderr)
    output = _taken_over()
    try:
        yield
    except OSError as error:
        if output is None or error is not output.error:
            raise
        raise OutputLost(
            f"standard output cannot be written: {error.strerror}",
            "Free space on the disk that it goes to, or have it written elsewhere.",
        ) from error


def is_utf8(stream: TextIO | None) -> bool:
    """Whether it has all characters, as far as it says."""
    encoding = getattr(stream, "encoding", None)
    return encoding is None or codecs.lookup(encoding).name == "utf-8"


def _escape_what_it_lacks(stream: TextIO | None) -> None:
    if isinstance(stream, io.TextIOWrapper) and not is_utf8(stream):
        stream.reconfigure(errors="backslashreplace")


class _Output(io.FileIO):
    """Standard output, which remembers how it failed.

    By that its errors are told from those of other files. Once it has failed nothing is written any more: what is left
    in the buffers would fail again when the interpreter ends, which prints a traceback and changes the exit code.
    """

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        if self.error is not None:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def _taken_over() -> _Output | None:
    """What `sys.stdout` writes to from now on; None where it is closed, or somebody else's."""
    before = sys.__stdout__
    if before is None or sys.stdout is not before:
        return None
    output = _Output(before.fileno(), "wb", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )
    return output
