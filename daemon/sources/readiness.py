"""Whether a file is complete, so that converting it makes sense: nobody writes it, it is quiet, it is not cut off."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from daemon.files import NotRegularFile, folder_beneath, open_regular, written_by_others
from daemon.sources.version import file_version

TICK_SECONDS = 0.01  # a change within the clock tick of the last one leaves no trace in ctime
UNLEASED_SETTLE_SECONDS = 2.0
TRUNCATED_SECONDS = 30.0
CLOCK_SKEW_SECONDS = 3600.0
FIRST_DELAY_SECONDS = 0.02
LONGEST_DELAY_SECONDS = 1.0

_MAGIC_BYTES = 8
_HEAD_BYTES = 1024
_PDF_TAIL_BYTES = 2048
_ZIP_END_BYTES = 22
_ZIP_TAIL_BYTES = 65536 + _ZIP_END_BYTES
_CONTAINER_EXTENSIONS = frozenset(
    b".pdf .docx .docm .xlsx .xlsm .pptx .pptm .odt .ods .odp .odg .epub .zip .doc .xls .ppt .msg".split()
)
_OURS_TO_BLAME = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@dataclass(frozen=True, slots=True)
class Ready:
    """The file may be taken in this version."""

    version: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Unready:
    """The file is to be looked at again in `seconds`. `since` is when (monotonic) `version` was first seen."""

    reason: str
    version: str
    since: float
    delay: float
    seconds: float


class Readiness:
    """Judges the files of one folder. Keeps nothing: what was seen before is handed in again.

    `network` says that changes made elsewhere are not seen by this kernel, and that the clock that stamps files is
    not ours: only watching the file tells then whether it is quiet.
    """

    def __init__(
        self, root: bytes, settle_seconds: float, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._root = root
        self._settle_seconds = max(settle_seconds, TICK_SECONDS)
        self._clock = clock
        self._monotonic = monotonic
        self.network = False

    def examine(self, source: bytes, before: Unready | None = None) -> Ready | Unready | None:
        """Judge one file, given the last judgement of it; None where there is no regular file."""
        *folders, name = source.split(b"/")
        try:
            with folder_beneath(self._root, folders) as folder:
                return self._examine(folder, name, before)
        except (FileNotFoundError, NotADirectoryError, NotRegularFile):
            return None
        except OSError as error:
            return Unready(f"it cannot be looked at: {error.strerror}", "", 0.0, 0.0, LONGEST_DELAY_SECONDS)

    def _examine(self, folder: int, name: bytes, before: Unready | None) -> Ready | Unready:
        try:
            fd = open_regular(name, dir_fd=folder)
        except OSError as error:
            if error.errno in (*_OURS_TO_BLAME, errno.ENOENT):
                raise
            # It cannot be read. The job that it becomes tells the user so.
            return self._judge(os.lstat(name, dir_fd=folder), name, None, before)
        try:
            return self._judge(os.fstat(fd), name, fd, before)
        finally:
            os.close(fd)

    def _judge(self, status: os.stat_result, name: bytes, fd: int | None, before: Unready | None) -> Ready | Unready:
        now = self._monotonic()
        version = file_version(status)
        unchanged = before is not None and before.version == version
        since = before.since if before is not None and unchanged else now
        delay = min(before.delay * 1.5, LONGEST_DELAY_SECONDS) if before and unchanged else FIRST_DELAY_SECONDS

        def wait(reason: str, seconds: float) -> Unready:
            return Unready(reason, version, since, delay, seconds)

        quiet_seconds = self.quiet_seconds(status, now - since)
        written = None if fd is None or self.network else written_by_others(fd)
        if written:
            return wait("another process has it open for writing", delay)
        settle_seconds = self._settle_seconds
        if written is None:
            settle_seconds = max(settle_seconds, UNLEASED_SETTLE_SECONDS)
        if quiet_seconds < settle_seconds:
            return wait("it has just changed", min(settle_seconds - quiet_seconds, LONGEST_DELAY_SECONDS))
        left_seconds = TRUNCATED_SECONDS - quiet_seconds
        if left_seconds > 0 and fd is not None and is_cut_off(fd, name, status.st_size):
            reason = "its end is missing, it may still be being written; it is taken as it is once quiet for 30 s"
            return wait(reason, min(max(delay, settle_seconds), left_seconds))
        return Ready(version, status.st_size)

    def quiet_seconds(self, status: os.stat_result, observed_seconds: float) -> float:
        """How long the file has not changed. The ctime tells, since nobody can set it, if clocks can be compared."""
        age = self._clock() - status.st_ctime
        comparable = age >= CLOCK_SKEW_SECONDS if self.network else age >= 0
        return age if comparable else observed_seconds


def is_cut_off(fd: int, name: bytes, size_bytes: int) -> bool:
    """Whether a PDF or a zip container (OOXML, ODF, EPUB) lacks its end, or a container its beginning."""
    if size_bytes < _MAGIC_BYTES:
        return os.path.splitext(name)[1].lower() in _CONTAINER_EXTENSIONS
    try:
        head = os.pread(fd, _HEAD_BYTES, 0)
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return not _has_zip_end(os.pread(fd, _ZIP_TAIL_BYTES, max(0, size_bytes - _ZIP_TAIL_BYTES)))
        if b"%PDF-" in head:
            tail = os.pread(fd, _PDF_TAIL_BYTES, max(0, size_bytes - _PDF_TAIL_BYTES))
            return b"%%EOF" not in tail and b"startxref" not in tail
    except OSError:
        return False  # reading it is the job's business, and its failure the job's
    return False


def _has_zip_end(tail: bytes) -> bool:
    """Whether the directory's end record, with its comment, ends the file: a document stored inside has one too."""
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        comment_bytes = int.from_bytes(tail[at + 20 : at + 22], "little")
        if at + _ZIP_END_BYTES + comment_bytes == len(tail):
            return True
        at = tail.rfind(b"PK\x05\x06", 0, at)
    return False
