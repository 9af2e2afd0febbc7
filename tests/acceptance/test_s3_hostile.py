"""Keys are whatever somebody chose: none leads out of a sink, none is lost to another, none stops the daemon."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlsplit
from xml.sax.saxutils import escape

import botocore.exceptions
import pytest

from daemon.globs import Filter
from tests.harness import Daemon, until
from tests.servers import Bucket, S3Server

PREFIX_BYTES = len("in/")
KEYS = [
    # out of the sink
    *("../up.txt", "../../../../../../../../../../tmp/up.txt", "a/../../up.txt", "..", "a/..", "a/../b.txt"),
    *("./here.txt", "a/./b.txt", "/absolute.txt", "/etc/passwd", "//double.txt", "a//b.txt", "a///c.txt"),
    *("%2e%2e%2fup.txt", "%2e%2e/up.txt", "..%2fup.txt", "%2Fabsolute.txt", "%00.txt", "%", "%zz", "%25.txt"),
    *("back\\slash.txt", "..\\..\\up.txt", "C:\\up.txt", "\\\\host\\share.txt"),
    *("look\u2215alike.txt", "look\u2044alike.txt", "look\uff0falike.txt", "\uff0e\uff0e/up.txt", "\u2025/up.txt"),
    # into the terminal, the log or a shell
    *(
        "nul\0byte.txt",
        "red\x1b[31m.txt",
        "line\nbreak.txt",
        "car\rriage.txt",
        "tab\tbed.txt",
        "del\x7f.txt",
        "c1\x85.txt",
    ),
    *("\u202etxt.fdp", "\ufeffmark.txt", "zero\u200bwidth.txt", "line\u2028separator.txt", "smile\U0001f600.txt"),
    *("-rf", "--help", "-", "$(touch up).txt", "`touch up`.txt", "; touch up.txt", "'; DROP TABLE jobs; --.txt"),
    *(
        "{0} %s %n.txt",
        "<b>&amp;.txt",
        "]]>.txt",
        '"quoted".txt',
        "a?b=c.txt",
        "a#b.txt",
        "a+b c.txt",
        "*.txt",
        "[a].txt",
    ),
    # into the way of another, or too long
    *("a.txt", "A.TXT", "a.txt.md", "a.txt.json", "a.txt.error", "a.txt.error.json", "a.txt/b.txt", "a.txt.md/c.txt"),
    *("a.txt.json/d.txt", "a.txt.error.json/e.txt", "a.txt~0123456789ab", "\u00e9.txt", "e\u0301.txt"),
    *("con", "aux.txt", "nul", " ", "  lead.txt", "trail.txt ", "dot.", "x/", "in/", "out/", "Thumbs.db.txt"),
    *("n" * (1024 - PREFIX_BYTES), "\u65e5" * 340, "d/" * 510 + "f", "p" * 300 + "/" + "q" * 300 + "/r", "m" * 251),
    # never taken
    *(".md", ".error.json", ".hidden/a.txt", "a/.b.txt", "~$owner.docx", "half.part", "desktop.ini"),
]
MOST_OF_MOTO = 50  # it is slow, and refuses some
INVALID = [b"latin\xe9.txt", b"half\xe2\x88", b"\xff\xfe", b"../\xed\xa0\x80"]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]")
WATCH = """
[[watch]]
name = "{name}"
source = "s3://{bucket}/in/"
sink = "{sink}"
poll_interval = "100ms"
[watch.s3]
endpoint_url = "{endpoint_url}"
"""


def words(number: int) -> bytes:
    return f"these are the words of document {number}.".encode()


# ---------------------------------------------------------------- a server that takes any key


class AnyKeys(ThreadingHTTPServer):
    """The least of an object store: keys are bytes, none is normalised, and none is refused."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.objects: dict[bytes, bytes] = {}
        self.lock = threading.Lock()


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: AnyKeys

    def do_GET(self) -> None:
        if "list-type" in self._query():
            self._answer(200, self._listing(), "application/xml")
        elif self._key() is None:
            self._answer(200, b'<ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>')
        elif (content := self.server.objects.get(self._key() or b"")) is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>absent</Message></Error>")
        else:
            self._answer(200, content, etag=hashlib.md5(content).hexdigest())

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        content, copied = self.rfile.read(int(self.headers.get("Content-Length", 0))), b""
        with self.server.lock:
            if source := self.headers.get("x-amz-copy-source"):
                content = self.server.objects[unquote_to_bytes(source.removeprefix("/").partition("/")[2])]
                copied = b"<CopyObjectResult/>"
            self.server.objects[self._key() or b""] = content
        self._answer(200, copied, etag=hashlib.md5(content).hexdigest())

    def do_DELETE(self) -> None:
        with self.server.lock:
            self.server.objects.pop(self._key() or b"", None)
        self._answer(204, b"")

    def _query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

    def _key(self) -> bytes | None:
        _, _, key = self.path.partition("?")[0].removeprefix("/").partition("/")
        return unquote_to_bytes(key) if key else None

    def _listing(self) -> bytes:
        query = self._query()
        prefix, after = (unquote_to_bytes(query.get(name, [""])[0]) for name in ("prefix", "continuation-token"))
        with self.server.lock:
            keys = sorted(key for key in self.server.objects if key.startswith(prefix) and quote(key).encode() > after)
            page = sorted(keys, key=quote)[: int(query.get("max-keys", ["1000"])[0])]
            entries = "".join(map(self._entry, page))
        more = len(page) < len(keys)
        token = f"<NextContinuationToken>{quote(quote(page[-1]))}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}<EncodingType>url</EncodingType>{entries}"
            "</ListBucketResult>"
        ).encode()

    def _entry(self, key: bytes) -> str:
        content = self.server.objects[key]
        return (
            f"<Contents><Key>{escape(quote(key))}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
            f"<ETag>&quot;{hashlib.md5(content).hexdigest()}&quot;</ETag><Size>{len(content)}</Size></Contents>"
        )

    def _answer(self, status: int, body: bytes, content_type: str = "application/xml", etag: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", content_type)
        self.send_header("Last-Modified", "Fri, 02 Jan 2026 03:04:05 GMT")
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests print nothing."""


@dataclass
class Store:
    """A bucket with nasty keys, and how to look into it from outside."""

    name: str
    endpoint_url: str
    put: Any
    objects: Any


@contextlib.contextmanager
def any_keys() -> Iterator[Store]:
    with AnyKeys() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()

        def put(key: bytes, content: bytes) -> None:
            server.objects[key] = content

        def objects() -> dict[bytes, bytes]:
            with server.lock:
                return dict(server.objects)

        try:
            yield Store("any-keys", f"http://127.0.0.1:{server.server_port}", put, objects)
        finally:
            server.shutdown()
            thread.join()


def of_moto(bucket: Bucket) -> Store:
    def put(key: bytes, content: bytes) -> None:
        with contextlib.suppress(botocore.exceptions.ClientError):  # what it does not take is not there
            bucket.put(key.decode(), content)

    def objects() -> dict[bytes, bytes]:
        return {key.encode(): bucket.get(key) or b"" for key in bucket.keys("")}

    return Store(bucket.name, bucket.server.endpoint_url, put, objects)


@pytest.fixture(params=["any keys", "moto"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "moto":
        yield of_moto(request.getfixturevalue("moto_bucket"))
    else:
        with any_keys() as one:
            yield one


# ---------------------------------------------------------------- the test


def test_no_key_escapes_and_none_is_lost(tmp_path: Path, store: Store) -> None:
    """From one prefix into a folder and into a prefix at once."""
    keys = KEYS if store.name == "any-keys" else KEYS[:MOST_OF_MOTO]
    contents = {f"in/{key}".encode(): words(number) for number, key in enumerate(keys)}
    for key, content in contents.items():
        store.put(key, content)
    if store.name == "any-keys":
        for key in INVALID:
            store.put(b"in/" + key, b"nobody can name this")
    before = store.objects()
    assert len(before) >= 40
    wanted = {key[PREFIX_BYTES:]: content for key, content in before.items() if taken(key)}
    home = tmp_path / "a" / "b" / "c"
    home.mkdir(parents=True)
    daemon = Daemon(home, config(store, "outbox"), env=S3Server("").env())
    assert daemon.once() == 0, daemon.log.read_text()[-3000:]

    jobs = {name: [job for job in daemon.jobs() if job["watch"] == name] for name in ("folder", "bucket")}
    for name in jobs:
        assert {job["state"] for job in jobs[name]} == {"completed"}, name
        assert len(jobs[name]) == len(wanted), name
        assert len({job["output"] for job in jobs[name]}) == len(wanted), name

    outside = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(home)]
    assert outside == []
    known = {"inbox", "outbox", "state", "log", "convertd.toml"}
    assert {path.name for path in home.iterdir()} == known, "something was written beside the outbox"
    assert list((home / "inbox").iterdir()) == []
    assert list((home / "state" / "spool").iterdir()) == []

    after = store.objects()
    assert {key: content for key, content in after.items() if key in before} == before, "a source was changed"
    assert {key for key in after if key not in before and not key.startswith(b"out/")} == set()

    files = {str(path.relative_to(daemon.outbox)): path.read_bytes() for path in daemon.outbox.rglob("*.*")
             if path.is_file()}  # fmt: skip
    results_are_of(wanted, files)
    results_are_of(wanted, {key[4:].decode(): after[key] for key in after if key.startswith(b"out/")})
    for shown in (daemon.log.read_text(), daemon.command("jobs").stdout, daemon.command("status").stdout):
        assert CONTROL.search(shown) is None, "a key steers the terminal"


def taken(key: bytes) -> bool:
    """Whether it lies in the source and no rule is against it."""
    relative = key.removeprefix(b"in/")
    with contextlib.suppress(UnicodeDecodeError):
        relative.decode()
        return key.startswith(b"in/") and Filter(["**/*"], []).takes(relative)
    return False


def results_are_of(wanted: dict[bytes, bytes], files: dict[str, bytes]) -> None:
    """Every document has a result of its own, with its own words and under its own name."""
    assert len(files) == 2 * len(wanted)
    found = {}
    for name, content in files.items():
        assert CONTROL.search(name.replace("\u2028", "").replace("\u202e", "")) is None
        assert not {"..", ".", ""} & set(name.split("/"))
        if name.endswith(".json"):
            sidecar = json.loads(content)
            markdown = files[name.removesuffix(".json") + ".md"]
            assert sidecar["markdown_sha256"] == hashlib.sha256(markdown).hexdigest()
            found[sidecar["source"].encode()] = markdown
    assert found.keys() == wanted.keys()
    assert [source for source, words in wanted.items() if words not in found[source]] == []


def config(store: Store, outbox: str) -> str:
    where = {"bucket": store.name, "endpoint_url": store.endpoint_url}
    sinks: Sequence[tuple[str, str]] = (("folder", outbox), ("bucket", f"s3://{store.name}/out/"))
    return 'state_dir = "state"\nworkers = 2\n' + "".join(
        WATCH.format(name=name, sink=sink, **where) for name, sink in sinks
    )


def test_keys_that_nobody_can_name_are_told_of(tmp_path: Path) -> None:
    with any_keys() as store:
        for key in INVALID:
            store.put(b"in/" + key, b"words")
        store.put(b"in/good.txt", b"good words")
        daemon = Daemon(tmp_path, config(store, "outbox"), env=S3Server("").env())
        try:
            daemon.start()
            assert daemon.outcome("good.txt") == "converted"
            notes = until(lambda: [watch["error"] for watch in daemon.status()["watches"] if watch["error"]], "a note")
            assert f"{len(INVALID)} objects are passed over: their keys are not UTF-8" in notes
            assert {watch["state"] for watch in daemon.status()["watches"]} == {"running"}
            assert daemon.stop() == 0
        finally:
            daemon.close()


def test_a_move_leads_nowhere_else(tmp_path: Path) -> None:
    """Documents are moved to where they belong, whatever they are called; none over another."""
    with any_keys() as store:
        names = [key for key in KEYS if taken(f"in/{key}".encode())]
        for number, name in enumerate(names):
            store.put(f"in/{name}".encode(), words(number))
        move = f'on_success = "move:s3://{store.name}/done/"\n[watch.s3]'
        text = config(store, "outbox").split("[[watch]]")
        daemon = Daemon(tmp_path, text[0] + "[[watch]]" + text[1].replace("[watch.s3]", move), env=S3Server("").env())
        assert daemon.once() == 0, daemon.log.read_text()[-3000:]
        after = store.objects()
        assert {key.split(b"/")[0] for key in after} == {b"done"}
        assert sorted(after.values()) == sorted(words(number) for number in range(len(names)))
