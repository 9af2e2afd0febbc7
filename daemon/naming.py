"""Where the results of a document and of a batch go: one output name for every source path, decided by the path alone.

No two source paths share an output file, no output file is in the way of a folder another document needs, and
nothing leaves the sink. How that is kept:

- Percent-encoding is reversible: what is encoded are control characters, bytes that are not UTF-8, the parts `.`,
  `..` and the empty one (`%2F`, which no other part can become), and a `%` that would read as an encoded byte.
- A folder that ends in `.md` or `.json` could be the result of a file beside it, one that ends in `.manifest.jsonl` the
  manifest of a batch, `a.error` would have the error file of `a` as its sidecar, and a name that ends in `~` and 12 hex
  digits could be that of a marked one. These, and whatever is too long, are marked: `~` and 12 hex digits of the sha256
  of the path up to there.
- Where a sink takes names that differ in case only for one, two of these names may be the same file: such a sink
  refuses to replace the results of another document.
- The name of a batch is that of its folder, encoded; its manifest lies in the sink under it. No result ends like a
  manifest, so none is in its way.
"""

from __future__ import annotations

import hashlib
import re

LONGEST_SUFFIX = ".error.json"
MANIFEST = ".manifest.jsonl"
PART_BYTES = 255
PATH_BYTES = 3500
"""Of the 4,096 that a path may have, the rest is for that of the sink."""
FEWEST_PATH_BYTES = 64
BATCH_BYTES = 200
TEMPORARY_PREFIX = ".convertd-"
"""Sinks keep their unfinished files under names that start like this, so no output name does."""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\udc80-\udcff]|%(?=[0-9A-Fa-f]{2})")
_UNIT = re.compile(r"%[0-9A-F]{2}|.", re.DOTALL)
_MARKED = re.compile(r"~[0-9a-f]{12}\Z")
_FOLDER_IN_THE_WAY = (".md", ".json", MANIFEST)
_FILE_IN_THE_WAY = (".error",)


def output_name(source: bytes, path_bytes: int = PATH_BYTES) -> str:
    """The name, relative to the sink, to which `.md`, `.json` and `.error.json` are added for this source path.

    Deterministic and without I/O. The name is valid UTF-8 without control characters; with the longest suffix its
    parts have at most 255 bytes and all of it at most `path_bytes`, which must be the same for all names of a sink
    and at least 64. Two paths whose names had to be cut to the same beginning are told apart by 48 bits of their
    digest.
    """
    assert path_bytes >= FEWEST_PATH_BYTES
    *folders, name = map(_encode, source.split(b"/"))
    output: list[str] = []
    for depth, folder in enumerate(folders, start=1):
        if _in_the_way(folder, _FOLDER_IN_THE_WAY, PART_BYTES):
            folder = _marked(folder, b"/".join(source.split(b"/", depth)[:depth]), PART_BYTES)
        output.append(folder)
    file_bytes = PART_BYTES - len(LONGEST_SUFFIX)
    file = _marked(name, source, file_bytes) if _in_the_way(name, _FILE_IN_THE_WAY, file_bytes) else name
    full = "/".join([*output, file])
    if _bytes(full) + len(LONGEST_SUFFIX) <= path_bytes:
        return full
    return _shortened(output, name, source, path_bytes - len(LONGEST_SUFFIX))


def batch_of(source: bytes) -> str | None:
    """The batch of a document where each first-level folder is one; None for what lies in no folder."""
    folder, slash, _ = source.partition(b"/")
    return _encode(folder) if slash and folder else None


def no_batch(source: bytes) -> str | None:
    """For who keeps no batches."""
    return None


def is_batch_name(name: str) -> bool:
    """Whether this is the name of a batch as it stands: a part of a path with nothing to be encoded, and not long."""
    try:
        part = name.encode()
    except UnicodeEncodeError:
        return False
    return b"/" not in part and 0 < len(part) <= BATCH_BYTES and _encode(part) == name


def manifest_name(batch: str, path_bytes: int = PATH_BYTES) -> str:
    """The name, relative to the sink, to which `MANIFEST` is added for this batch. Bounded like an output name."""
    allowed = min(path_bytes, PART_BYTES) - len(MANIFEST)
    return _marked(batch, batch.encode(), allowed) if _in_the_way(batch, (), allowed) else batch


def _in_the_way(encoded: str, endings: tuple[str, ...], allowed: int) -> bool:
    return encoded.endswith(endings) or _MARKED.search(encoded) is not None or _bytes(encoded) > allowed


def _shortened(folders: list[str], name: str, source: bytes, allowed: int) -> str:
    """As many of the outermost folders as there is room for, and a marked name, which is unlike any other there."""
    marked = _marked(name, source, min(allowed, PART_BYTES - len(LONGEST_SUFFIX)))
    left = allowed - _bytes(marked)
    kept: list[str] = []
    for folder in folders:
        left -= _bytes(folder) + 1
        if left < 0:
            break
        kept.append(folder)
    return "/".join([*kept, marked])


def _marked(encoded: str, path: bytes, allowed: int) -> str:
    mark = "~" + hashlib.sha256(path).hexdigest()[:12]
    return _cut(encoded, allowed - len(mark)) + mark


def _cut(encoded: str, allowed: int) -> str:
    """At most so many bytes of it, cut neither within a character nor within an encoded byte."""
    if _bytes(encoded) <= allowed:
        return encoded
    end = 0
    for unit in _UNIT.finditer(encoded):
        allowed -= _bytes(unit[0])
        if allowed < 0:
            break
        end = unit.end()
    return encoded[:end]


def _encode(part: bytes) -> str:
    if not part:
        return "%2F"
    if part in (b".", b".."):
        return "%2E" * len(part)
    text = _UNSAFE.sub(_percent, part.decode("utf-8", "surrogateescape"))
    return "%2E" + text[1:] if text.startswith(TEMPORARY_PREFIX) else text


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))


def _bytes(text: str) -> int:
    return len(text.encode())
