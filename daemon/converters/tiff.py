"""Takes multi-page TIFF images (faxes, scans) apart: decoders read the first page only."""

from __future__ import annotations

import struct
from collections.abc import Iterator

PAGES_LIMIT = 5_000


def page_offsets(content: bytes) -> list[int]:
    """Where the directory of each page lies. Empty for what is no TIFF of the ordinary kind or is damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    offsets: list[int] = []
    position = 4
    while order and len(offsets) < PAGES_LIMIT and position + 4 <= len(content):
        offset = struct.unpack_from(f"{order}I", content, position)[0]
        if offset == 0 or offset in offsets or offset + 2 > len(content):
            break
        offsets.append(offset)
        position = offset + 2 + 12 * struct.unpack_from(f"{order}H", content, offset)[0]
    return offsets


def pages(content: bytes) -> Iterator[bytes]:
    """Each page as an image of its own: the whole file, with a header that points to that page."""
    offsets = page_offsets(content)
    if len(offsets) < 2:
        yield content
        return
    order = "<" if content[:2] == b"II" else ">"
    for offset in offsets:
        yield content[:4] + struct.pack(f"{order}I", offset) + content[8:]
