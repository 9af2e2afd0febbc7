"""Looks into OLE2 compound files (Word, Excel, PowerPoint before 2007, Outlook messages) for kind and encryption."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

from daemon.converters.base import EngineError
from daemon.errors import Kind

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
END = 0xFFFFFFFA  # this and above are marks, not sectors
DIRECTORY_LIMIT_BYTES = 4 << 20
SMALL_STREAM_BYTES = 4096

KINDS = (
    ("worddocument", "doc", "application/msword"),
    ("workbook", "xls", "application/vnd.ms-excel"),
    ("book", "xls", "application/vnd.ms-excel"),
    ("powerpoint document", "ppt", "application/vnd.ms-powerpoint"),
    ("__properties_version1.0", "msg", "application/vnd.ms-outlook"),
    ("fileheader", "hwp", "application/x-hwp"),
)
OTHERS = (("visiodocument", "a Visio drawing"), ("quill", "a Publisher document"), ("__attach", "an Outlook item"))


class CompoundFile:
    """The streams of an OLE2 file by lower-case name. Broken chains end early, they never raise or loop."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data = data
        header = data[:512].ljust(512, b"\0")
        self._sector_bytes = 1 << min(max(struct.unpack_from("<H", header, 30)[0], 7), 16)
        self._fat_sectors = self._difat(header)
        directory_start = struct.unpack_from("<I", header, 48)[0]
        self.streams: dict[str, tuple[int, int]] = {}
        directory = b"".join(self._sectors(directory_start, DIRECTORY_LIMIT_BYTES))
        for offset in range(0, len(directory) - 127, 128):
            name_bytes = min(struct.unpack_from("<H", directory, offset + 64)[0], 64)
            name = directory[offset : offset + max(0, name_bytes - 2)].decode("utf-16-le", "replace").lower()
            start, size = struct.unpack_from("<II", directory, offset + 116)
            if name:
                self.streams.setdefault(name, (start, size))

    def _difat(self, header: bytes) -> list[int]:
        sectors = [number for number in struct.unpack_from("<109I", header, 76) if number < END]
        following, count = struct.unpack_from("<II", header, 68)
        for _ in range(min(count, 1024)):
            if following >= END:
                break
            block = self._sector(following)
            if len(block) < self._sector_bytes:
                break
            numbers = struct.unpack(f"<{len(block) // 4}I", block)
            sectors += [number for number in numbers[:-1] if number < END]
            following = numbers[-1]
        return sectors

    def _sector(self, number: int) -> bytes:
        start = (number + 1) * self._sector_bytes
        return self._data[start : start + self._sector_bytes]

    def _next(self, number: int) -> int:
        index, position = divmod(number, self._sector_bytes // 4)
        if index >= len(self._fat_sectors):
            return END
        entry = self._sector(self._fat_sectors[index])[position * 4 : position * 4 + 4]
        return struct.unpack("<I", entry)[0] if len(entry) == 4 else END

    def _sectors(self, start: int, limit_bytes: int) -> Iterator[bytes]:
        number = start
        for _ in range(limit_bytes // self._sector_bytes + 1):
            block = self._sector(number) if number < END else b""
            if not block:
                return
            yield block
            number = self._next(number)

    def head(self, name: str, limit_bytes: int = 4096) -> bytes:
        """The first bytes of a stream that lies in ordinary sectors (all document streams do), else nothing."""
        start, size = self.streams.get(name, (END, 0))
        if size < SMALL_STREAM_BYTES:
            return b""
        return b"".join(self._sectors(start, limit_bytes))[: min(size, limit_bytes)]


def ole_kind(data: mmap.mmap | bytes) -> tuple[str, str] | None:
    """The kind and media type of an OLE2 file, or None if its directory says nothing. Raises `EngineError`."""
    compound = CompoundFile(data)
    streams = compound.streams
    if "encryptedpackage" in streams or "encryptioninfo" in streams or _encrypted(compound):
        raise EngineError(Kind.ENCRYPTED, "The document is protected by a password.")
    for stream, kind, media_type in KINDS:
        if stream in streams:
            return kind, media_type
    for stream, meaning in OTHERS:
        if any(name.startswith(stream) for name in streams):
            raise EngineError(Kind.UNSUPPORTED_FORMAT, f"This is {meaning}, which convertd does not read.")
    return None


def _encrypted(compound: CompoundFile) -> bool:
    if "encryptedsummary" in compound.streams:  # PowerPoint
        return True
    word = compound.head("worddocument", 512)
    if len(word) > 12 and word[:2] == b"\xec\xa5" and word[11] & 1:  # FibBase.fEncrypted
        return True
    book = compound.head("workbook") or compound.head("book")
    offset = 0
    while offset + 4 <= len(book):  # records: number, length; FILEPASS comes among the first
        number, length = struct.unpack_from("<HH", book, offset)
        if number == 0x002F:
            return True
        if number == 0x000A:
            return False
        offset += 4 + length
    return False
