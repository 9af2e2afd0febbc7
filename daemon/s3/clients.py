"""boto3's clients, one for all who reach the same place in the same way."""

from __future__ import annotations

import os
import threading
from typing import Any

from daemon.s3.sockets import Sockets
from daemon.settings import S3

TRIES = 4
SPARE_CONNECTIONS = 8
DATA = "data_loader"


class Clients:
    """Makes clients at their first use and keeps them. Thread-safe, as clients are.

    `threads` is how many threads may use one at a time. A `reading` client is for what a stop ends at once (`stop`
    makes its calls raise Stopped), the others for what is brought to its end.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._sockets = Sockets()
        self._lock = threading.Lock()
        self._clients: dict[tuple[S3, str, bool], Any] = {}
        self._shared: dict[str, Any] = {}
        self._making: dict[tuple[S3, str, bool], threading.Lock] = {}

    def s3(self, settings: S3, *, reading: bool) -> Any:
        """A client for buckets. Raises EnvironmentProblem where the settings name a profile that is not there."""
        return self._client(settings, "s3", reading)

    def sqs(self, settings: S3, *, reading: bool) -> Any:
        """A client for queues. Raises like `s3`."""
        return self._client(settings, "sqs", reading)

    def renew(self, settings: S3) -> None:
        """Look for credentials again at the next use: boto3 looks once, and an operator may have put them there."""
        for key in [key for key in list(self._clients) if key[0] == settings]:
            self._clients.pop(key, None)

    def stop(self) -> None:
        """End what reading clients are doing; they raise Stopped from now on."""
        self._sockets.interrupt()

    @property
    def stopped(self) -> bool:
        return self._sockets.interrupted

    def _client(self, settings: S3, service: str, reading: bool) -> Any:
        from daemon.s3.problems import translated  # with botocore, which only who has a bucket should pay for

        key = (settings, service, reading)
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:  # a program that gives credentials may take its time, which is no reason for others to wait
            client = self._clients.get(key)
            if client is None:
                with translated("the way to the buckets cannot be set up"):
                    client = _make(settings, service, self._threads + SPARE_CONNECTIONS, self._shared)
                if reading:
                    self._sockets.follow(client)
                self._clients[key] = client
        return client


def _make(settings: S3, service: str, connections: int, shared: dict[str, Any]) -> Any:
    import boto3
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    if settings.credentials_file is None:
        session = botocore.session.Session(profile=settings.profile)
    else:  # a profile that is asked for by name goes before keys in the environment
        session = botocore.session.Session(profile=settings.profile or "default")
        session.set_config_variable("credentials_file", settings.credentials_file)  # before anything reads it
    # What boto3 knows of the services is read once, and held once: it takes more memory than all else of a client.
    shared.setdefault(DATA, session.get_component(DATA))
    session.register_component(DATA, shared[DATA])
    endpoint_url = settings.queue_endpoint_url if service == "sqs" else settings.endpoint_url
    options: dict[str, Any] = {}
    if settings.anonymous:
        options["signature_version"] = UNSIGNED
    elsewhere = endpoint_url is not None or any(name.startswith("AWS_ENDPOINT_URL") for name in os.environ)
    if elsewhere:  # servers other than AWS know little of the newer checksums
        options["request_checksum_calculation"] = "when_required"
        options["response_checksum_validation"] = "when_required"
    region = settings.region or session.get_config_variable("region")
    return boto3.session.Session(botocore_session=session).client(
        service,
        endpoint_url=endpoint_url,
        region_name=region or "us-east-1",
        verify=settings.ca_bundle,
        config=Config(
            max_pool_connections=connections,
            connect_timeout=settings.connect_timeout_seconds,
            read_timeout=settings.read_timeout_seconds,
            retries={"mode": "standard", "total_max_attempts": TRIES},
            s3={"addressing_style": settings.addressing},
            user_agent_extra="convertd",
            **options,
        ),
    )
