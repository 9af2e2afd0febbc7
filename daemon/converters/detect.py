"""Finds out what a document is from its content; the extension decides only between kinds of text.

Looks at a bounded prefix and at container directories, so the time does not grow with the document.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from dataclasses import dataclass

from daemon.converters import ole, zipped
from daemon.converters.base import EngineError
from daemon.converters.formats import BINARIES, CODE, IMAGES, TEXT_KINDS, XML_ROOTS
from daemon.errors import Kind

PREFIX_BYTES = 64 << 10
PDF_JUNK_BYTES = 8 << 10
HEAD_BYTES = 4096
EMAIL_HEADERS = frozenset(
    b"from to cc subject date received message-id mime-version return-path delivered-to content-type reply-to".split()
)
XML_ROOT = re.compile(rb"<([A-Za-z_][\w.-]{0,60}:)?([A-Za-z_][\w.-]{0,60})[\s/>]")
HTML_STARTS = (b"<!doctype html", b"<html", b"<head", b"<body", b"<title", b"<meta", b"<div", b"<table", b"<p>")


@dataclass(frozen=True)
class Detected:
    """What a document is. `offset` is where it begins (junk may precede); `warning` is for its user or empty."""

    kind: str
    media_type: str
    offset: int = 0
    warning: str = ""


def detect(name: str, data: mmap.mmap | bytes) -> Detected:
    """Raises `EngineError`: EMPTY, UNSUPPORTED_FORMAT, ENCRYPTED, TOO_LARGE (a bomb) or CORRUPT."""
    if len(data) == 0:
        raise EngineError(Kind.EMPTY, "The file is empty.")
    extension = os.path.splitext(name)[1].lower().lstrip(".")
    prefix = data[:PREFIX_BYTES]
    detected = _binary(prefix, data, extension) or _text(prefix, data, extension)
    if detected is None:
        raise EngineError(Kind.UNSUPPORTED_FORMAT, f"The file is {_looks_like(prefix)}, which convertd does not read.")
    return detected


def _binary(prefix: bytes, data: mmap.mmap | bytes, extension: str) -> Detected | None:
    if prefix.startswith(b"%PDF-"):
        return Detected("pdf", "application/pdf")
    if prefix.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(data)
    if prefix.startswith(ole.MAGIC):
        return _ole(data, extension)
    for offset, magic, kind, media_type in IMAGES:
        if prefix.startswith(magic, offset) and not (magic == b"BM" and any(prefix[6:10])):
            return Detected(kind, media_type)
    at = prefix.find(b"%PDF-", 0, PDF_JUNK_BYTES if extension == "pdf" else 1024)
    if at > 0 and (extension == "pdf" or not _is_text(prefix[:at])):
        return Detected("pdf", "application/pdf", at)
    return None


def _zip(data: mmap.mmap | bytes) -> Detected:
    with zipped.open_zip(data) as archive:
        kind = zipped.office_kind(archive)
        zipped.refuse_encrypted(archive, is_document=kind is not None)
        if kind is None:
            return Detected("zip", "application/zip")
        zipped.refuse_bomb(archive, len(data))
        return Detected(*kind)


def _ole(data: mmap.mmap | bytes, extension: str) -> Detected:
    found = ole.ole_kind(data)
    if found is None:  # the directory is damaged: what the name says is the best guess left
        found = next(((kind, media) for _, kind, media in ole.KINDS if kind == extension), None)
    if found is None:
        raise EngineError(Kind.CORRUPT, "The file is an Office document of the old kind, but its directory is damaged.")
    return Detected(*found)


def _text(prefix: bytes, data: mmap.mmap | bytes, extension: str) -> Detected | None:
    if not _is_text(prefix):
        return None
    text = prefix.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").replace(b"\0", b"")
    head = text[:HEAD_BYTES]
    lowered = head.lower()
    if lowered.startswith(b"{\\rtf"):
        return Detected("rtf", "application/rtf")
    if lowered.startswith((b"<?xml", b"<")):
        markup = _markup(head, lowered, extension)
        if markup is not None:
            return markup
    lines = head if len(text) <= HEAD_BYTES else head[: head.rfind(b"\n") + 1]  # whole ones: half a field is none
    if lowered.startswith(b"from ") and _email_headers(lines.partition(b"\n")[2]) >= 2:
        return Detected("mbox", "application/mbox")
    if _email_headers(lines) >= (2 if extension in ("eml", "mht", "mhtml") else 3):
        return Detected("eml", "message/rfc822")
    if extension in TEXT_KINDS:
        return Detected(*TEXT_KINDS[extension])
    return _structured(head, data, extension)


def _markup(head: bytes, lowered: bytes, extension: str) -> Detected | None:
    plain = re.sub(rb"<!--.{0,2000}?-->|<\?.{0,500}?\?>", b"", lowered[:4096], flags=re.S).lstrip()
    if extension in CODE or extension in ("md", "markdown"):
        return None
    if plain.startswith(HTML_STARTS) or (extension in ("html", "htm", "xhtml") and not lowered.startswith(b"<?xml")):
        return Detected("html", "text/html")
    root = XML_ROOT.search(re.sub(rb"<!--.{0,2000}?-->", b"", head, flags=re.S))
    if root is None or not (lowered.startswith((b"<?xml", b"<!doctype")) or extension in ("xml", "svg")):
        return None
    name = root.group(2).decode("ascii", "replace").lower()
    if name == "html":
        return Detected("html", "application/xhtml+xml")
    if name == "svg":
        return Detected("svg", "image/svg+xml")
    return Detected("xml", XML_ROOTS.get(name, "application/xml"))


def _structured(head: bytes, data: mmap.mmap | bytes, extension: str) -> Detected:
    if head[:1] in (b"{", b"["):
        tail = data[max(0, len(data) - 4096) :]
        if head[:1] == b"{" and b'"nbformat"' in head + tail and b'"cells"' in head + tail:
            return Detected("ipynb", "application/x-ipynb+json")
        if len(data) <= PREFIX_BYTES and _is_json(bytes(data)):
            return Detected("code", "application/json")
    if extension in CODE:
        return Detected("code", "text/plain")
    expected = extension in ("pdf", "docx", "xlsx", "pptx", "doc", "xls", "ppt", "odt", "epub", "zip", "png", "jpg")
    warning = f"The name ends in .{extension}, but the content is plain text." if expected else ""
    return Detected("text", "text/plain", 0, warning)


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _email_headers(head: bytes) -> int:
    """How many well-known header fields the text begins with; 0 if something else stands among them."""
    known = 0
    for line in head.split(b"\n")[:60]:
        field, colon, _ = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            continue
        if not colon or not field or b" " in field:
            return 0 if line.strip() else known
        known += field.lower() in EMAIL_HEADERS
    return known


def _is_text(prefix: bytes) -> bool:
    if prefix.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        return True
    zeros = prefix.count(0)
    if zeros:  # UTF-16 of a Western language has them at every other place, and nowhere else
        even, odd = prefix[::2].count(0), prefix[1::2].count(0)
        return max(even, odd) > 0.4 * len(prefix) and min(even, odd) <= 0.02 * len(prefix)
    controls = len(prefix) - len(prefix.translate(None, bytes(set(range(32)) - {8, 9, 10, 12, 13, 27})))
    return controls <= len(prefix) // 100


def _looks_like(prefix: bytes) -> str:
    for offset, magic, meaning in BINARIES:
        if prefix.startswith(magic, offset):
            return meaning
    if not prefix.strip(b"\0"):
        return "nothing but zero bytes"
    return "binary data of an unknown kind"
