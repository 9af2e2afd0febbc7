"""`convertd` that syncs nothing: a power cut must be seen to harm it, or the test of power cuts tests nothing."""

from __future__ import annotations

import os

import apsw

from daemon import cli, db
from daemon.faults import Fault, no_fault


def nothing(fd: int) -> None:
    """Instead of fsync."""


def main() -> None:
    os.fsync = os.fdatasync = nothing  # type: ignore[assignment]
    opened = db.open_for_writing

    def open_without_sync(path: str, fault: Fault = no_fault) -> apsw.Connection:
        connection = opened(path, fault)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    db.open_for_writing = open_without_sync
    cli.main()


if __name__ == "__main__":
    main()
