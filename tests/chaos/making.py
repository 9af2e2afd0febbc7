"""Makes the world of a campaign, as far as this machine allows, and takes it away again."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests import servers
from tests.chaos.world import CODE, World
from tests.fault_proxy import FaultProxy
from tests.harness import ROOT, until

MOUNTED = {"keep/out": "24m", "state": "160m", "across/done": "512m"}
"""What lies on a disk of its own, and how large that is: the first two small, to be filled; the last one another file
system than the folder from which documents are moved there."""


@contextlib.contextmanager
def world(home: Path, plant: str = "", *, buckets: bool = True) -> Iterator[tuple[World, list[str]]]:
    """A world without a daemon yet, and what this machine does not allow."""
    missing: list[str] = []
    with contextlib.ExitStack() as stack:
        for name, size in MOUNTED.items():
            (home / name).mkdir(parents=True)
            if (reason := _mount(home / name, size)) is not None:
                missing.append(f"no disk of its own for {name}: {reason}")
            else:
                stack.callback(subprocess.run, ["umount", "-l", str(home / name)], check=True)
        _copy_code(home / CODE)
        bucket = proxy = None
        if buckets and servers.weed_program() is not None:
            server = stack.enter_context(servers.seaweedfs(home / "weed"))
            bucket = stack.enter_context(servers.new_bucket(server))
            proxy = stack.enter_context(FaultProxy(server.endpoint_url))
        else:
            missing.append("no buckets: SeaweedFS is not installed" if buckets else "no buckets: not asked for")
        made = World(home, bucket, proxy, plant)
        try:
            yield made, missing
        finally:
            made.kill()
            until(lambda: not made.survivors(), "all converters have ended", 30)


def _copy_code(path: Path) -> None:
    """The daemon is started again and again: it must be the same, whatever is edited meanwhile."""
    for package in ("daemon", "tests"):
        shutil.copytree(ROOT / package, path / package)


def _mount(path: Path, size: str) -> str | None:
    """Why a small file system cannot be mounted there, or None."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except FileNotFoundError as error:
        return str(error)
    return None if result.returncode == 0 else result.stderr.strip().partition("\n")[0]
