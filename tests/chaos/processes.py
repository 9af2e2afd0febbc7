"""What the kernel says of processes."""

from __future__ import annotations

from pathlib import Path


def started_at(pid: int) -> str:
    """What tells a process from a later one of its number; empty where it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
