"""What the kernel says of processes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


def started_at(pid: int) -> str:
    """What tells a process from a later one of its number; empty where it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


class Size(NamedTuple):
    """What a process holds."""

    pid: int
    descriptors: int
    resident_bytes: int


def size_of(pid: int) -> Size:
    """Raises OSError where there is no such process."""
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kibibytes = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))]
    return Size(pid, descriptors, sum(kibibytes) << 10)
