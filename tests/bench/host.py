"""The machine that figures were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from daemon.files import filesystem_type


def machine(folder: str) -> dict[str, Any]:
    """Processor, cores, memory, kernel, load, and the kind of disk that holds `folder`."""
    return {
        "cpu": _first("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int((_first("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "disk": disk_kind(folder),
        "load": round(os.getloadavg()[0], 2),
    }


def in_memory(folder: str) -> bool:
    """Whether a sync there costs nothing, so that durability cannot be measured."""
    return filesystem_type(os.fsencode(folder)) in ("tmpfs", "ramfs")


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
