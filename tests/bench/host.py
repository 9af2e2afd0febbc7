"""The machine that figures were measured on, and the code."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from daemon.files import filesystem_type
from tests.harness import GIT, ROOT

MEMORY = ("tmpfs", "ramfs")
"""File systems where a sync costs nothing, so that durability cannot be measured."""

DIRTY = "-dirty"
"""What `code` adds where files differ from the commit."""


def machine(folder: str) -> dict[str, Any]:
    """Processor, cores, memory, kernel, load, the kind of disk that holds `folder`, and the commit, if any."""
    commit = code()
    return {
        "cpu": _first("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int((_first("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "disk": disk_kind(folder),
        "load": round(os.getloadavg()[0], 2),
        **({"code": commit} if commit else {}),
    }


def code(root: Path = ROOT) -> str | None:
    """The commit that is measured, with `DIRTY` where files differ from it; None outside a clone."""
    if not (root / ".git").exists():  # git would take the clone around it, if any
        return None
    try:
        described = subprocess.run(
            [*GIT, "-C", str(root), "describe", "--always", f"--dirty={DIRTY}", "--exclude=*"],
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return None
    return described.stdout.strip() or None


def in_memory(folder: str) -> bool:
    """Whether nothing is durable there."""
    return filesystem_type(os.fsencode(folder)) in MEMORY


def disk_kind(folder: str) -> str:
    """The file system, and what it lies on as far as the kernel tells."""
    device = os.stat(folder).st_dev
    place = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    filesystem = filesystem_type(os.fsencode(folder)) or "unknown file system"
    for queue in (place / "queue", place / ".." / "queue"):  # the latter of a partition
        if (queue / "rotational").exists():
            turns = (queue / "rotational").read_text().strip() == "1"
            name = place.resolve().name
            return f"{filesystem} on {name} ({'virtual disk' if name.startswith('vd') else _spins(turns)})"
    return filesystem


def _spins(turns: bool) -> str:
    return "rotating disk" if turns else "solid state"


def _first(path: str, key: str) -> str | None:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None
