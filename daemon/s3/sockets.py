"""Wakes whatever waits for an answer over the network: at a stop nobody waits for a server that has gone silent.

boto3 has no way to end a call under way. Its connections are therefore made by a subclass of its own connection class
that remembers the sockets; shutting those down makes the kernel end every read and write on them at once. Should a
later botocore be built otherwise, calls end by their time-outs instead.
"""

from __future__ import annotations

import socket
import threading
import weakref
from contextlib import suppress
from typing import Any

from daemon.errors import Stopped


class Sockets:
    """The open connections of some clients. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._interrupted = False

    @property
    def interrupted(self) -> bool:
        return self._interrupted

    def follow(self, client: Any) -> None:
        """Know of all connections that this client will make, and refuse its calls after `interrupt`."""
        client.meta.events.register("before-send", self._refuse)
        with suppress(AttributeError):
            manager = client._endpoint.http_session._manager
            manager.pool_classes_by_scheme = {
                scheme: type(pool.__name__, (pool,), {"ConnectionCls": self._following(pool.ConnectionCls)})
                for scheme, pool in manager.pool_classes_by_scheme.items()
            }

    def interrupt(self) -> None:
        """End all calls under way, now; later ones raise Stopped."""
        self._interrupted = True
        with self._lock:
            sockets = list(self._open)
        for connected in sockets:
            with suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)  # of TLS too: a reader may be inside of it

    def _refuse(self, **_: Any) -> None:
        if self._interrupted:
            raise Stopped("stopped while talking to the server")

    def _following(self, connection: Any) -> Any:
        def connect(self_: Any) -> None:
            connection.connect(self_)
            with self._lock:
                self._open.add(self_.sock)
            if self._interrupted:
                self.interrupt()

        return type(connection.__name__, (connection,), {"connect": connect})
