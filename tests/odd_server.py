"""An object store in memory that can be as odd as servers are: for what no real server at hand does.

with OddServer() as server:
    server.put("in/a.txt", b"words")
    server.etag = lambda key, content: 'W/"weak"'
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from xml.sax.saxutils import escape

from tests.loopback import Loopback

BUCKET = "odd-bucket"
LONG_AGO = formatdate(1_700_000_000, usegmt=True)

Answer = tuple[int, str]


def strong(key: str, content: bytes) -> str:
    """What most servers give."""
    return f'"{hashlib.md5(content).hexdigest()}"'


class OddServer(Loopback):
    """One bucket. What it does otherwise than others is set on it: `etag` of an object (and `listed_etag` where the
    listing says another), `matches(condition, etag)`, `refuse(method, key)` for an error in place of an answer, and
    whether it sends `ranges`. `asked` counts requests by method, "LIST" too; `conditions` are those of writes."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.etag: Callable[[str, bytes], str] = strong
        self.listed_etag: Callable[[str, bytes], str] | None = None
        self.matches: Callable[[str, str], bool] = lambda condition, etag: condition == etag
        self.refuse: Callable[[str, str], Answer | None] = lambda method, key: None
        self.ranges = True
        self.asked: Counter[str] = Counter()
        self.conditions: list[str] = []
        super().__init__(self._handler())

    def put(self, key: str, content: bytes) -> None:
        self.objects[key] = content

    def listing(self, prefix: str) -> str:
        etag = self.listed_etag or self.etag
        contents = "".join(
            f"<Contents><Key>{urllib.parse.quote(key)}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{escape(etag(key, content))}</ETag><Size>{len(content)}</Size></Contents>"
            for key, content in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        head = "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
        return f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>{head}{contents}</ListBucketResult>'

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def answer(self) -> None:
                path, _, query = self.path.partition("?")
                _, _, key = path.lstrip("/").partition("/")
                _Request(self, server, urllib.parse.unquote(key), urllib.parse.parse_qs(query)).answer()

            do_GET = do_HEAD = do_PUT = do_DELETE = answer

        return Handler


class _Request:
    def __init__(
        self, handler: BaseHTTPRequestHandler, server: OddServer, key: str, query: dict[str, list[str]]
    ) -> None:
        self._handler = handler
        self._server = server
        self._key = key
        self._query = query
        self._method = "LIST" if not key and handler.command == "GET" else handler.command
        self._body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))

    def answer(self) -> None:
        server = self._server
        server.asked[self._method] += 1
        refused = server.refuse(self._method, self._key)
        if refused is not None:
            self._refuse(*refused)
        elif self._method == "LIST":
            uploads = "uploads" in self._handler.path.partition("?")[2]
            empty = "<ListMultipartUploadsResult></ListMultipartUploadsResult>"
            text = empty if uploads else server.listing(self._query.get("prefix", [""])[0])
            self._send(200, text.encode())
        elif not self._key:
            self._send(200)
        elif self._method in ("GET", "HEAD"):
            self._read()
        else:
            self._write()

    def _read(self) -> None:
        content = self._server.objects.get(self._key)
        if content is None:
            self._refuse(404, "NoSuchKey")
        elif not self._condition_holds(content):
            self._refuse(412, "PreconditionFailed")
        else:
            head = {"ETag": self._server.etag(self._key, content), "Last-Modified": LONG_AGO}
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self._handler.headers.get("Range", ""))
            if wanted and self._server.ranges:
                start, end = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
                head["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
                self._send(206, content[start:end], head)
            else:
                self._send(200, content, head)

    def _write(self) -> None:
        content = self._server.objects.get(self._key)
        condition = self._handler.headers.get("If-Match") or self._handler.headers.get("If-None-Match")
        self._server.conditions.append(condition or "")
        if not self._condition_holds(content):
            self._refuse(412, "PreconditionFailed")
        elif self._method == "DELETE":
            self._server.objects.pop(self._key, None)
            self._send(204)
        else:
            self._server.put(self._key, self._body)
            self._send(200, head={"ETag": self._server.etag(self._key, self._body)})

    def _condition_holds(self, content: bytes | None) -> bool:
        if self._handler.headers.get("If-None-Match") and content is not None:
            return False
        wanted = self._handler.headers.get("If-Match")
        if not wanted:
            return True
        return content is not None and self._server.matches(wanted, self._server.etag(self._key, content))

    def _refuse(self, status: int, code: str) -> None:
        text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>as it pleases</Message></Error>'
        self._send(status, text.encode())

    def _send(self, status: int, body: bytes = b"", head: dict[str, str] | None = None) -> None:
        self._handler.send_response(status)
        for name, value in (head or {}).items():
            self._handler.send_header(name, value)
        self._handler.send_header("Content-Length", str(len(body)))
        self._handler.end_headers()
        if self._method != "HEAD":
            self._handler.wfile.write(body)
