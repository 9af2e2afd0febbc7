"""Servers of a test's own, on this machine."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from daemon.settings import S3


class Loopback:
    """Serves at `url` while it is entered, in threads of its own."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def settings_for(url: str, folder: Path) -> S3:
    """How a server that takes any credentials is reached; these are put into `folder`."""
    file = folder / "credentials"
    file.write_text("[default]\naws_access_key_id=any\naws_secret_access_key=any\n")
    return S3(endpoint_url=url, credentials_file=str(file), addressing="path")
