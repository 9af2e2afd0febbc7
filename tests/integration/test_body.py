"""A body gets whole into any file, and leaves its connection to the next request."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import TransientError
from daemon.s3 import body
from daemon.s3.body import Body
from tests.bench.link import content_pieces, serving
from tests.servers import S3Server

SIZE_BYTES = 3_000_000
CONTENT = b"".join(content_pieces(SIZE_BYTES))


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with serving("--size", str(SIZE_BYTES)) as url:
        client = S3Server(url).client()
        yield client
        client.close()


def move_all(client: Any, fd: int) -> list[int]:
    """Fetch the object into a file; what each step moved."""
    raw = client.get_object(Bucket="b", Key="k")["Body"]._raw_stream
    coming, steps, at = Body(raw, SIZE_BYTES), [1], 0
    try:
        while steps[-1] and at < SIZE_BYTES:
            steps.append(coming.move(fd, at))
            at += steps[-1]
    except TransientError:
        coming.close()
        raise
    coming.finish()
    return steps[1:]


def connections(client: Any) -> int:
    pools = client._endpoint.http_session._manager.pools
    return sum(pools[key].num_connections for key in list(pools.keys()))


@pytest.mark.parametrize("how", ["by the kernel", "read and written", "into a file that the kernel does not fill"])
def test_it_is_moved_whole(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    read: list[int] = []

    def pwrite(fd: int, chunk: bytes, at: int, write: Callable[[int, bytes, int], int] = os.pwrite) -> int:
        read.append(len(chunk))
        return write(fd, chunk, at)

    if how == "read and written":
        monkeypatch.setattr(body, "_plain_socket", lambda raw, size_bytes: None)
    flags = os.O_APPEND if how == "into a file that the kernel does not fill" else 0  # splice refuses those
    monkeypatch.setattr(os, "pwrite", pwrite)
    used_before = connections(client)
    for number in range(3):
        path = tmp_path / str(number)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
        assert sum(move_all(client, fd)) == SIZE_BYTES
        os.close(fd)
        assert path.read_bytes() == CONTENT
    assert connections(client) - used_before <= 1
    assert (sum(read) < SIZE_BYTES / 2) == (how == "by the kernel")


def test_a_file_that_cannot_be_written_is_not_the_networks_fault(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(TransientError, match="cannot be kept"):
        move_all(client, fd)
    os.close(fd)
