"""Bytes of unknown encoding to text."""

from __future__ import annotations

import codecs
import mmap
import re

from charset_normalizer import from_bytes

SAMPLE_BYTES = 64 << 10
EVIDENCE_BYTES = 6  # fewer bytes that are not ASCII say nothing about a language
ASCII = bytes(range(128))
CUT_OFF = "unexpected end of data"
"""What Python says of UTF-8 that ends within a character."""
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DECLARED = re.compile(rb"""(?:charset|encoding)\s{0,9}=\s{0,9}["']?\s{0,9}([A-Za-z][A-Za-z0-9_.:-]{1,40})""", re.I)
# What the web calls these is in truth their superset: bytes 0x80 to 0x9F hold quotes and dashes, not controls.
# The encodings that documents declare; Python has more, some of which interpret escapes instead of decoding.
OF_DOCUMENTS = re.compile(
    r"(ascii|utf-(8|16|32)|iso8859|iso2022|cp\d|koi8|mac|big5|gb|euc|shift_jis|johab|hz|tis|kz1048|ptcp154|hp-roman8).*"
)
SUPERSETS = {
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
}


def decode(data: mmap.mmap | bytes, *, markup: bool = False) -> str:
    """The text of a document: by BOM, then UTF-8 if it is valid, then what markup declares, then by statistics.

    Never raises: what cannot be decoded becomes U+FFFD. Line ends become LF, NUL characters go.
    """
    content = bytes(data)
    return _decoded(content, markup).replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def _decoded(content: bytes, markup: bool) -> str:
    for bom, encoding in BOMS:
        if content.startswith(bom):
            return content.decode(encoding, "replace")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return _legacy(content, markup, error)
    if markup and "\x1b" in text:  # ISO-2022 looks like ASCII
        return content.decode(_declared(content) or "utf-8", "replace")
    wide = _utf16_without_bom(content)
    return content.decode(wide, "replace") if wide else text


def _legacy(content: bytes, markup: bool, error: UnicodeDecodeError) -> str:
    if error.reason == CUT_OFF and not content[: error.start].isascii():  # UTF-8 but for its last character
        return content.decode("utf-8", "replace")
    wide = _utf16_without_bom(content)
    if wide:
        return content.decode(wide, "replace")
    declared = _declared(content) if markup else ""
    if declared and declared != "utf-8":
        return content.decode(declared, "replace")
    return content.decode(_guessed(content, error.start), "replace")


def _declared(content: bytes) -> str:
    match = DECLARED.search(content[:4096])
    return _python_name(match.group(1).decode("ascii")) if match else ""


def _python_name(label: str) -> str:
    try:
        name = codecs.lookup(label).name
    except (LookupError, ValueError):
        return ""
    return SUPERSETS.get(name, name) if OF_DOCUMENTS.fullmatch(name) else ""


def _utf16_without_bom(content: bytes) -> str:
    sample = content[:4096]
    if 4 * sample.count(0) < len(sample):
        return ""
    return "utf-16-le" if sample[1::2].count(0) > sample[::2].count(0) else "utf-16-be"


def _guessed(content: bytes, first_foreign: int) -> str:
    """The encoding that makes the most sense of what surrounds the first byte that is not ASCII."""
    start = max(0, first_foreign - SAMPLE_BYTES // 8)
    sample = content[start : start + SAMPLE_BYTES]
    if len(sample.translate(None, ASCII)) < EVIDENCE_BYTES:
        return "cp1252"
    best = from_bytes(sample).best()
    name = _python_name(best.encoding) if best is not None else ""
    if not name or name in ("utf-8", "utf-7"):
        return "cp1252"
    return name
