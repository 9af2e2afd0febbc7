"""Looks into ZIP containers without unpacking them: what they hold, whether they are bombs or encrypted."""

from __future__ import annotations

import io
import lzma
import mmap
import re
import zipfile
import zlib
from typing import IO, cast

from daemon.converters.base import EngineError
from daemon.errors import Kind

UNPACKED_LIMIT_BYTES = 2 << 30
MARKUP_LIMIT_BYTES = 512 << 20
MEMBERS_LIMIT = 100_000
ENTRY = b"PK\x01\x02"  # what each entry of a directory begins with
PEEK_BYTES = 256 << 10
MARKUP_SUFFIXES = (".xml", ".rels", ".xhtml", ".html", ".htm", ".opf", ".ncx", ".vml")
DEFLATE_MAX_RATIO = 1032  # no deflate stream can expand by more

ODF_KINDS = re.compile(r"application/(?:vnd\.oasis\.opendocument|vnd\.sun\.xml)\.[a-z-]+$")

UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, OSError)
"""What reading a damaged member raises; NotImplementedError, for an unknown method, is a RuntimeError."""


class Window(io.RawIOBase):
    """A mapped file as a file object with a position of its own; nothing is copied but what is read."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data = data
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = len(self._data) if size is None or size < 0 else self._position + size
        part = self._data[self._position : end]
        self._position += len(part)
        return part

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        part = self.read(len(view))
        view[: len(part)] = part
        return len(part)


class _Directory(Window):
    """What `zipfile` sees while it opens a container: it reads the directory at once, then makes an object of each
    entry, which takes time and ten times the memory. Raises `EngineError` before that if there are too many.
    """

    def read(self, size: int = -1) -> bytes:
        part = super().read(size)
        if part.count(ENTRY) > MEMBERS_LIMIT:
            raise EngineError(Kind.TOO_LARGE, f"The container holds more than {MEMBERS_LIMIT:,} files.")
        return part


def open_zip(data: mmap.mmap | bytes) -> zipfile.ZipFile:
    """Open a container whose directory is sane. Raises `EngineError`."""
    try:
        archive = zipfile.ZipFile(_Directory(data))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, OSError) as error:
        raise EngineError(
            Kind.CORRUPT, "The file is a ZIP container without a readable directory; it seems to be incomplete."
        ) from error
    archive.fp = cast(IO[bytes], Window(data))  # a member may hold a container with entries of its own
    return archive


def is_folder(member: zipfile.ZipInfo) -> bool:
    """As `ZipInfo.is_dir`, which fails on an empty name."""
    return member.filename.endswith("/")


def is_encrypted(member: zipfile.ZipInfo) -> bool:
    """Whether a password is needed to read it."""
    return bool(member.flag_bits & 1)


def peek(archive: zipfile.ZipFile, name: str, limit: int = PEEK_BYTES) -> bytes:
    """The first bytes of a member, or nothing if it is missing or cannot be read."""
    try:
        with archive.open(name) as member:
            return member.read(limit)
    except (KeyError, MemoryError, *UNREADABLE):  # a header of LZMA may ask for any amount of memory
        return b""


def office_kind(archive: zipfile.ZipFile) -> tuple[str, str] | None:
    """The kind and media type of a document that is a ZIP container, or None if it is just an archive."""
    names = set(archive.namelist())
    mimetype = peek(archive, "mimetype", 128).decode("ascii", "replace").strip()
    if ODF_KINDS.match(mimetype):
        return "odf", mimetype.removesuffix("-template")
    if mimetype == "application/hwp+zip":
        return "hwp", "application/haansofthwpx"
    if mimetype == "application/epub+zip" or "META-INF/container.xml" in names:
        return "epub", "application/epub+zip"
    if "[Content_Types].xml" in names:
        return _ooxml_kind(archive, names)
    if "Index/Document.iwa" in names or "Index.zip" in names:
        return _iwork_kind(names)
    return None


def _ooxml_kind(archive: zipfile.ZipFile, names: set[str]) -> tuple[str, str] | None:
    types = peek(archive, "[Content_Types].xml").lower()
    vendor = "application/vnd.openxmlformats-officedocument."
    folders = {name.partition("/")[0].lower() for name in names}
    if b"wordprocessingml" in types or b"ms-word" in types or "word" in folders:
        return "docx", vendor + "wordprocessingml.document"
    if b"ms-excel.sheet.binary" in types:
        return "xlsx", "application/vnd.ms-excel.sheet.binary.macroEnabled.12"
    # A presentation or a text may embed workbooks, a workbook nothing of the like: it comes last.
    if "ppt" in folders or b"presentationml.presentation.main" in types:
        return "pptx", vendor + "presentationml.presentation"
    if "xl" in folders or b"spreadsheetml.sheet.main" in types:
        return "xlsx", vendor + "spreadsheetml.sheet"
    return None


def _iwork_kind(names: set[str]) -> tuple[str, str]:
    if any(name.startswith("Index/Tables/") for name in names) and "Index/CalculationEngine.iwa" in names:
        return "iwork", "application/x-iwork-numbers-sffnumbers"
    if any(name.startswith("Index/Slide") for name in names):
        return "iwork", "application/x-iwork-keynote-sffkey"
    return "iwork", "application/x-iwork-pages-sffpages"


def refuse_encrypted(archive: zipfile.ZipFile, *, is_document: bool) -> None:
    """Raise `EngineError(ENCRYPTED)` if the content needs a password or a licence.

    A document needs all its parts; of an archive those members are read that can be.
    """
    encrypted = [is_encrypted(member) for member in archive.infolist() if not is_folder(member)]
    if is_document and any(encrypted):
        raise EngineError(Kind.ENCRYPTED, "The document is protected by a password.")
    if encrypted and all(encrypted):
        raise EngineError(Kind.ENCRYPTED, "The archive is protected by a password.")
    if b"encryption-data" in peek(archive, "META-INF/manifest.xml"):
        raise EngineError(Kind.ENCRYPTED, "The document is protected by a password.")
    if "META-INF/rights.xml" in archive.namelist() or "META-INF/sinf.xml" in archive.namelist():
        raise EngineError(Kind.ENCRYPTED, "The book is protected by digital rights management.")


def refuse_bomb(archive: zipfile.ZipFile, size_bytes: int) -> None:
    """Raise `EngineError(TOO_LARGE)` if the container unpacks to more than an engine can hold.

    Markup is parsed into memory, so its limit is lower. What the directory declares may be a lie: a member that
    could unpack to more than its share of the limit is counted for real, as far as the limit.
    """
    members = archive.infolist()
    declared = sum(member.file_size for member in members)
    markup = sum(member.file_size for member in members if member.filename.lower().endswith(MARKUP_SUFFIXES))
    if declared > UNPACKED_LIMIT_BYTES or markup > MARKUP_LIMIT_BYTES:
        raise _bomb(size_bytes, max(declared, markup))
    if sum(member.compress_size for member in members) > 2 * size_bytes + 1024:
        raise EngineError(Kind.CORRUPT, "The container's files overlap; it was made to exhaust memory.")
    for member in members:
        if member.compress_size * DEFLATE_MAX_RATIO > MARKUP_LIMIT_BYTES and member.filename.lower().endswith(
            MARKUP_SUFFIXES
        ):
            _refuse_lie(archive, member)


def _refuse_lie(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Inflate without keeping anything: reading through `zipfile` would stop at the declared size."""
    if member.compress_type != zipfile.ZIP_DEFLATED:
        return
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    window = archive.fp
    assert window is not None
    window.seek(member.header_offset + 26)
    header = window.read(4)
    window.seek(int.from_bytes(header[:2], "little") + int.from_bytes(header[2:], "little"), io.SEEK_CUR)
    left, real, pending = member.compress_size, 0, b""
    try:
        while not inflate.eof:
            if not pending:
                pending = window.read(min(left, 1 << 16))
                left -= len(pending)
            if not pending:
                break
            real += len(inflate.decompress(pending, 1 << 20))
            pending = inflate.unconsumed_tail
            if real > member.file_size + (1 << 20):
                raise EngineError(
                    Kind.CORRUPT, "The container lies about the size of its content; it was made to exhaust memory."
                )
    except zlib.error:
        return  # a damaged member: for the engine to judge


def _bomb(size_bytes: int, unpacked: int) -> EngineError:
    return EngineError(
        Kind.TOO_LARGE,
        f"The document unpacks from {size_bytes / 2**20:.1f} MiB to {unpacked / 2**20:.0f} MiB, "
        "more than a converter can hold.",
    )
