"""Where documents and results lie, seen from outside the daemon: folders and prefixes of a bucket."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tests.servers import Bucket

Stamp = tuple[object, ...]
DISPOSING = ".convertd-disposing-"


def is_hidden(name: str) -> bool:
    """Whether the name, in whatever folder, is one that nobody is to see."""
    return starts(name, ".")


def starts(name: str, *beginnings: str) -> bool:
    """Whether the last part of the path begins so."""
    return name.rpartition("/")[2].startswith(beginnings)


class Place(Protocol):
    """Files of one folder, or objects of one prefix. May be used from any thread."""

    def names(self) -> dict[str, Stamp]:
        """What is there, hidden names too, each with what tells it from what comes after it."""
        ...

    def read(self, name: str) -> bytes | None: ...

    def put(self, name: str, content: bytes) -> None:
        """Appears at once, whole."""
        ...

    def remove(self, name: str) -> None: ...

    def has(self, name: str) -> bool:
        """Whether it is there, or hidden for a moment by a disposal."""
        ...


class Folder:
    """A folder, and the folders in it but for hidden ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def names(self) -> dict[str, Stamp]:
        return dict(self._below(""))

    def _below(self, folder: str) -> Iterator[tuple[str, Stamp]]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.path / folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        status = os.stat(entry.path)
                        yield folder + entry.name, (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
                    elif not is_hidden(entry.name):
                        yield from self._below(f"{folder}{entry.name}/")

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, name: str, content: bytes) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = target.with_name(f".{target.name}.tmp")
        hidden.write_bytes(content)
        hidden.rename(target)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        return (self.path / name).exists() or any(starts(other, DISPOSING) for other in self.names())


class Prefix:
    """The objects of a bucket below a prefix, reached past the proxy."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix

    def names(self) -> dict[str, Stamp]:
        pages = self.bucket.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket.name, Prefix=self.prefix
        )
        entries = [entry for page in pages for entry in page.get("Contents", [])]
        return {entry["Key"].removeprefix(self.prefix): (entry["ETag"], entry["LastModified"]) for entry in entries}

    def read(self, name: str) -> bytes | None:
        return self.bucket.get(self.prefix + name)

    def put(self, name: str, content: bytes) -> None:
        self.bucket.put(self.prefix + name, content)

    def remove(self, name: str) -> None:
        self.bucket.delete(self.prefix + name)

    def has(self, name: str) -> bool:
        return self.read(name) is not None
