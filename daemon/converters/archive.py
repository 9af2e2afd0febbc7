"""Archives and mailboxes: every member is converted by the rules for its own kind, under a heading with its name."""

from __future__ import annotations

import gzip
import io
import mmap
import os
import platform
import re
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, cast

from daemon.converters import zipped
from daemon.converters.base import Converted, Document, EngineError, Options
from daemon.converters.markdown import one_line
from daemon.errors import Kind

MEMBER_LIMIT_BYTES = 256 << 20
TOTAL_LIMIT_BYTES = 512 << 20
MEMBERS_LIMIT = 10_000
PIECE_BYTES = 1 << 20
IGNORED = re.compile(r"(^|/)(__MACOSX/|\.|~\$|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)
MESSAGE_START = re.compile(rb"^From [^\n]{1,500}\n(?=[A-Za-z][!-9;-~]{0,99}:)", re.MULTILINE)
DAMAGED = (tarfile.TarError, *zipped.UNREADABLE)


class Archive:
    """ZIP, tar, gzip and mbox. Members that cannot be converted are named in the warnings."""

    name = "archive"

    def version(self) -> str:
        return platform.python_version()

    def convert(self, document: Document, options: Options) -> Converted:
        if document.nested is None:
            raise EngineError(Kind.UNSUPPORTED_FORMAT, "Archives inside of archives are not opened here.")
        parts: list[str] = []
        warnings: list[str] = []
        unreadable: list[EngineError] = []
        title = None
        for name, content in _members(document):
            if isinstance(content, EngineError):
                warnings.append(f"{name}: {content.message}")
                unreadable.append(content)
                continue
            try:
                member = document.nested(name, content)
            except EngineError as error:
                warnings.append(f"{name}: {error.message}")
                continue
            warnings += [f"{name}: {warning}" for warning in member.warnings]
            if document.kind == "gzip":
                parts.append(member.markdown)
                title = member.title
            elif member.markdown.strip():
                parts.append(f"## {name}\n\n{member.markdown.strip()}\n")
        if unreadable and not parts:  # what cannot be read may hold the text
            raise unreadable[0]
        return Converted("\n\n".join(parts), title=title, warnings=tuple(warnings))


def _members(document: Document) -> Iterator[tuple[str, bytes | EngineError]]:
    """Name, printable, and content of each member worth converting, or why that cannot be read. Raises `EngineError`
    if the archive itself is damaged or beyond the limits.
    """
    readers = {"zip": _zip, "tar": _tar, "gzip": _gzip, "mbox": _mbox}
    total = 0
    try:
        for count, (name, content) in enumerate(readers[document.kind](document)):
            total += 0 if isinstance(content, EngineError) else len(content)
            if total > TOTAL_LIMIT_BYTES or count >= MEMBERS_LIMIT:
                raise EngineError(Kind.TOO_LARGE, "The archive unpacks to more than convertd converts at once.")
            yield one_line(name), content
    except DAMAGED as error:
        raise EngineError(Kind.CORRUPT, f"The archive is damaged: {error}") from error


def _zip(document: Document) -> Iterator[tuple[str, bytes | EngineError]]:
    with zipped.open_zip(document.data) as archive:
        for member in sorted(archive.infolist(), key=lambda member: member.filename):
            if zipped.is_folder(member) or not member.file_size or IGNORED.search(member.filename):
                continue
            if zipped.is_encrypted(member):
                yield member.filename, EngineError(Kind.ENCRYPTED, "The file is protected by a password.")
            else:
                yield member.filename, _read(partial(archive.open, member), member.file_size)


def _tar(document: Document) -> Iterator[tuple[str, bytes | EngineError]]:
    last = "the beginning"
    with tarfile.open(fileobj=io.BufferedReader(zipped.Window(document.data)), mode="r:") as archive:
        for member in archive:
            last = member.name
            if _is_without_content(member) or IGNORED.search(member.name):
                continue
            yield member.name, _read(partial(_extracted, archive, member), member.size)
        # To tarfile a damaged header is the end, and so are the zeros between two archives that were joined.
        if _holds_anything(document.data, archive.offset):
            message = "The archive is damaged or ends here, the rest of the file was not read."
            yield f"after {last}", EngineError(Kind.CORRUPT, message)


def _gzip(document: Document) -> Iterator[tuple[str, bytes]]:
    name, extension = os.path.splitext(os.path.basename(document.name))
    if extension.lower() == ".tgz":
        name += ".tar"
    with gzip.GzipFile(fileobj=io.BufferedReader(zipped.Window(document.data))) as reader:
        yield name, _bounded(cast(IO[bytes], reader))


def _mbox(document: Document) -> Iterator[tuple[str, bytes]]:
    content = document.content.replace(b"\r\n", b"\n").lstrip(b"\xef\xbb\xbf \t\n")
    later = [start for start in MESSAGE_START.finditer(content) if start.start()]
    begins = [
        content.find(b"\n") + 1,
        *(start.end() for start in later),
    ]
    ends = [*(start.start() for start in later), len(content)]
    for number, (begin, end) in enumerate(zip(begins, ends, strict=True), 1):
        yield f"Message {number}.eml", content[begin:end]


def _is_without_content(member: tarfile.TarInfo) -> bool:
    """Folders, devices, empty files, and links: what those lead to is a member itself, or no part of the archive."""
    return not member.size or member.isdir() or member.isdev() or member.issym() or member.islnk()


def _holds_anything(data: mmap.mmap | bytes, start: int) -> bool:
    """Whether anything but zeros stands there, or behind it."""
    for at in range(start, len(data), PIECE_BYTES):
        piece = data[at : at + PIECE_BYTES]
        if piece.count(0) < len(piece):
            return True
    return False


def _extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    reader = archive.extractfile(member)
    assert reader is not None, "a regular file"
    return reader


def _read(opened: Callable[[], IO[bytes]], size_bytes: int) -> bytes | EngineError:
    """The content of one member, or why it cannot be had: the other members may be fine."""
    try:
        _refuse_large(size_bytes)
        with opened() as reader:
            return _bounded(reader)
    except EngineError as error:
        return error
    except MemoryError:
        return EngineError(Kind.OUT_OF_MEMORY, "The file in the archive needs more memory than a converter may use.")
    except DAMAGED as error:
        return EngineError(Kind.CORRUPT, f"The file in the archive is damaged: {error}")


def _bounded(reader: IO[bytes]) -> bytes:
    content = reader.read(MEMBER_LIMIT_BYTES + 1)
    _refuse_large(len(content))
    return content


def _refuse_large(size_bytes: int) -> None:
    if size_bytes > MEMBER_LIMIT_BYTES:
        raise EngineError(Kind.TOO_LARGE, f"A file in the archive unpacks to more than {MEMBER_LIMIT_BYTES >> 20} MiB.")
