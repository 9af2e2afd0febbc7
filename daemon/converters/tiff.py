"""Takes multi-page TIFF images (faxes, scans) apart: decoders read the first page only."""

from __future__ import annotations

import struct
from collections.abc import Iterator

PAGES_LIMIT = 5_000


def page_offsets(content: bytes) -> tuple[list[int], str]:
    """Where the directory of each page lies, and what keeps from finding more, if not the end.

    There are none in what is no TIFF of the ordinary kind or is damaged.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    offsets: dict[int, None] = {}
    position = 4
    while order:
        if position + 4 > len(content):
            return list(offsets), "the file is cut off"
        offset = struct.unpack_from(f"{order}I", content, position)[0]
        if offset == 0:
            break
        if offset in offsets or offset + 2 > len(content):
            return list(offsets), "the file is damaged"
        if len(offsets) == PAGES_LIMIT:
            return list(offsets), "there are more than convertd reads"
        offsets[offset] = None
        position = offset + 2 + 12 * struct.unpack_from(f"{order}H", content, offset)[0]
    return list(offsets), ""


def pages(content: bytes, offsets: list[int]) -> Iterator[bytes]:
    """Each page as an image of its own: the whole file, with a header that points to that page."""
    if len(offsets) < 2:
        yield content
        return
    order = "<" if content[:2] == b"II" else ">"
    for offset in offsets:
        yield content[:4] + struct.pack(f"{order}I", offset) + content[8:]
