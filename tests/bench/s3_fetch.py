"""One object to what a converter reads, in the ways that are compared; also as a process of its own, whose memory and
writes can be told from all else:

    python -m tests.bench.s3_fetch WAY URL FOLDER SIZE      (then a line on its standard input starts it)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from daemon.buckets import Prefix
from daemon.model import Candidate
from daemon.payload import Payloads
from daemon.s3.clients import Clients
from daemon.settings import S3
from daemon.sources.base import Surroundings
from daemon.sources.s3 import S3Source
from daemon.sources.s3_version import object_version
from tests.bench.measure import sampled
from tests.harness import ROOT, environment
from tests.watching import Everything, job_for

BUCKET, KEY = "bucket", "object-000000.bin"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_EC2_METADATA_DISABLED": "true"}
CONNECTIONS = 24
RAW_BUFFER_BYTES = 1 << 20
SPOOLED, IN_MEMORY, BY_BOTO, DOWNLOAD_FILE = "spooled", "in_memory", "by_boto", "download_file"
RAW_SPOOLED, RAW_IN_MEMORY = "raw_spooled", "raw_in_memory"


class Ways:
    """The ways to fetch the object of a `tests.bench.link` server, each with a connection that is open already.

    Each way gives the seconds from the request until a converter can be given the document. `folder` is where the
    spool and temporary files are.
    """

    def __init__(self, url: str, folder: str, size_bytes: int) -> None:
        self._folder = folder
        self._size_bytes = size_bytes
        self._address = urlsplit(url)
        self._settings = S3(endpoint_url=url)
        self._clients = Clients(CONNECTIONS)
        self._client = self._clients.s3(self._settings, reading=False)
        self._etag = self._client.head_object(Bucket=BUCKET, Key=KEY)["ETag"].strip('"')
        for reading in (False, True):  # what boto3 does once
            self._clients.s3(self._settings, reading=reading).get_object(Bucket=BUCKET, Key=KEY, Range="bytes=0-0")[
                "Body"
            ].read()
        version = object_version(self._etag, size_bytes)
        self._job = job_for(Candidate(KEY.encode(), version, size_bytes))
        self._sources = {above: self._source(above) for above in (0, size_bytes)}
        self.named: dict[str, Callable[[], float]] = {
            SPOOLED: lambda: self._ours(0),
            IN_MEMORY: lambda: self._ours(size_bytes),
            BY_BOTO: self._by_boto,
            DOWNLOAD_FILE: self._download_file,
            RAW_SPOOLED: lambda: self._raw(self._spool_file()),
            RAW_IN_MEMORY: lambda: self._raw(os.memfd_create("raw", os.MFD_CLOEXEC)),
        }

    def check(self) -> None:
        """Fail unless what comes is what the server has."""
        for source in self._sources.values():
            with source.fetch(self._job) as fetched, open(fetched.fd, "rb", closefd=False) as file:
                file.seek(0)
                md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
                assert md5.hexdigest() == self._etag, "other bytes came than were sent"

    def _source(self, spool_above_bytes: int) -> S3Source:
        payloads = Payloads(self._folder, max(1, spool_above_bytes), spool_above_bytes)
        surroundings = Surroundings(payloads, self._clients, threading.Event())
        return S3Source(Prefix(BUCKET, ""), self._settings, Everything(), surroundings)

    def _ours(self, spool_above_bytes: int) -> float:
        """As the daemon does it, up to the descriptor that a converter is handed."""
        begun = time.perf_counter()
        with self._sources[spool_above_bytes].fetch(self._job):
            return time.perf_counter() - begun

    def _by_boto(self) -> float:
        """Read the whole body, write it to a temporary file, read it back."""
        path = os.path.join(self._folder, "temporary")
        begun = time.perf_counter()
        body = self._client.get_object(Bucket=BUCKET, Key=KEY)["Body"].read()
        with open(path, "wb") as file:
            file.write(body)
        del body
        with open(path, "rb") as file:
            content = file.read()
        seconds = time.perf_counter() - begun
        assert len(content) == self._size_bytes
        os.unlink(path)
        return seconds

    def _download_file(self) -> float:
        """boto3's own parallel download, then opened."""
        path = os.path.join(self._folder, "downloaded")
        begun = time.perf_counter()
        self._client.download_file(BUCKET, KEY, path)
        fd = os.open(path, os.O_RDONLY)
        seconds = time.perf_counter() - begun
        os.close(fd)
        os.unlink(path)
        return seconds

    def _raw(self, fd: int) -> float:
        """What one connection and one file can do: no library, one reused buffer."""
        buffer = memoryview(bytearray(RAW_BUFFER_BYTES))
        begun = time.perf_counter()
        with socket.create_connection((self._address.hostname or "", self._address.port or 80)) as connected:
            connected.sendall(f"GET /{BUCKET}/{KEY} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            count = connected.recv_into(buffer)
            start = bytes(buffer[:count]).index(b"\r\n\r\n") + 4
            at = os.pwrite(fd, buffer[start:count], 0)
            while at < self._size_bytes:
                count = connected.recv_into(buffer)
                at += os.pwrite(fd, buffer[:count], at)
            seconds = time.perf_counter() - begun
        os.close(fd)
        return seconds

    def _spool_file(self) -> int:
        return os.open(self._folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)


@dataclass(frozen=True)
class Measured:
    """What one fetch in a process of its own took: memory is its `resident_bytes`, as they grew from before the request
    to their highest."""

    seconds: float
    memory_bytes: int
    written_bytes: int


def measured(way: str, url: str, folder: str, size_bytes: int) -> Measured:
    """Fetch once in a fresh process, watched from outside."""
    command = [sys.executable, "-m", "tests.bench.s3_fetch", way, url, folder, str(size_bytes)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        before = resident_bytes(process.pid)
        highest = [before]
        with sampled(lambda: resident_bytes(process.pid), highest):
            process.stdin.write("go\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
        process.stdin.close()
    return Measured(answer["seconds"], max(highest) - before, answer["written_bytes"])


def resident_bytes(pid: int, children: Iterable[int] = ()) -> int:
    """RssAnon of a process, plus what lies in the memfds that it and its children hold: what Shmem of the machine would
    show if nobody else used any."""
    held = dict(memfd for process in (pid, *children) for memfd in _memfds(process))
    return _anonymous_bytes(pid) + sum(held.values())


def _anonymous_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def _memfds(pid: int) -> Iterator[tuple[int, int]]:
    """Inode and size in memory of each."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{name}"
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(path).startswith("/memfd:"):
                    status = os.stat(path)
                    yield status.st_ino, status.st_blocks * 512


def _written_bytes() -> int:
    """What this process has caused to be written to disks; memfds and tmpfs do not count."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise AssertionError("this kernel does not count what is written")


def main() -> None:
    """Fetch once, when told to."""
    way, url, folder, size = sys.argv[1:]
    os.environ.update(CREDENTIALS)
    ways = Ways(url, folder, int(size))
    print("ready", flush=True)
    sys.stdin.readline()
    before = _written_bytes()
    seconds = ways.named[way]()
    result: dict[str, Any] = {"seconds": seconds, "written_bytes": 0}
    if way in (IN_MEMORY, BY_BOTO):
        os.sync()
        result["written_bytes"] = _written_bytes() - before
    print(json.dumps(result), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
