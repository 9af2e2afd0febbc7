"""Whatever is dropped into the inbox ends within the daemon's limits, reads nothing else and opens no connection."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import documents
from tests.harness import Daemon, running, until

SECRET = "the-secret-that-must-not-leak"
LIMITS = """
state_dir = "state"
workers = 2
[limits]
convert_time = "3s"
converter_memory = "1GiB"
[[watch]]
name = "inbox"
source = "inbox"
sink = "outbox"
"""


def broken(container: bytes) -> bytes:
    """A container whose directory is whole, and everything before it zeros."""
    directory = container.index(b"PK\x01\x02")
    return container[:4] + bytes(directory - 4) + container[directory:]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all tests of this file: each drops its own names, and what one did must not hurt the next."""
    with running(tmp_path_factory.mktemp("hostile"), LIMITS) as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def goes_on(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test a normal document still converts, by the same process."""
    assert daemon.process is not None
    pid = daemon.process.pid
    yield
    name = f"afterwards-{abs(hash(request.node.name))}.pdf"
    daemon.drop(name, documents.pdf(["all is well"]))
    assert daemon.outcome(name) == "converted"
    assert "all is well" in daemon.markdown(name).read_text()
    assert daemon.status()["daemon"]["pid"] == pid
    assert not temporary_files(daemon)


def error(daemon: Daemon, name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(daemon.error(name).read_bytes())
    return result


def temporary_files(daemon: Daemon) -> list[Path]:
    """What publishing has left behind in the sink."""
    return [path for path in daemon.outbox.rglob("*") if path.is_file() and ".convertd-" in str(path)]


def names_taken(daemon: Daemon) -> set[str]:
    return {job["source"] for job in daemon.jobs()}


# ---------------------------------------------------------------- what is no document


def test_fifo_is_never_opened(daemon: Daemon) -> None:
    os.mkfifo(daemon.inbox / "fifo.pdf")
    daemon.drop("beside-the-fifo.txt", b"words")
    assert daemon.outcome("beside-the-fifo.txt") == "converted"
    with pytest.raises(OSError, match="No such device or address"):  # nobody reads from it
        os.open(daemon.inbox / "fifo.pdf", os.O_WRONLY | os.O_NONBLOCK)
    assert "fifo.pdf" not in names_taken(daemon)
    told = daemon.command("why", str(daemon.inbox / "fifo.pdf")).stdout
    assert "no regular file" in told
    assert "never queued" in told


def test_symlinks_are_not_followed(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for secret in (tmp_path / "secret.txt", tmp_path / "folder" / "secret.txt"):
        secret.write_text(SECRET)
    (daemon.inbox / "link.txt").symlink_to(tmp_path / "secret.txt")
    (daemon.inbox / "relative.txt").symlink_to(os.path.relpath(tmp_path / "secret.txt", daemon.inbox))
    (daemon.inbox / "linked-folder").symlink_to(tmp_path / "folder")
    (daemon.inbox / "loop").symlink_to(".")
    daemon.drop("beside-the-links.txt", b"words")
    assert daemon.outcome("beside-the-links.txt") == "converted"
    assert not [
        name for name in names_taken(daemon) if "link" in name.replace("beside-the-links", "") or "loop" in name
    ]
    assert not [path for path in daemon.outbox.rglob("*") if path.is_file() and SECRET in path.read_text()]
    for link in ("link.txt", "relative.txt", "linked-folder", "loop"):
        (daemon.inbox / link).unlink()


def test_device_is_never_opened(daemon: Daemon) -> None:
    try:
        os.mknod(daemon.inbox / "device.pdf", stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("making a device needs more rights")
    daemon.drop("beside-the-device.txt", b"words")
    assert daemon.outcome("beside-the-device.txt") == "converted"
    assert "device.pdf" not in names_taken(daemon)


def test_socket_is_never_opened(daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(daemon.inbox)  # the path of a socket is limited to 108 bytes
        try:
            server.bind("socket.pdf")
        finally:
            os.chdir(here)
        daemon.drop("beside-the-socket.txt", b"words")
        assert daemon.outcome("beside-the-socket.txt") == "converted"
    assert "socket.pdf" not in names_taken(daemon)


# ---------------------------------------------------------------- documents that go wrong


@pytest.mark.parametrize(
    ("name", "content", "kinds"),
    [
        ("empty.txt", b"", {"empty"}),
        ("encrypted.pdf", documents.encrypted_pdf(), {"encrypted"}),
        ("encrypted.zip", documents.encrypted_zip(), {"encrypted"}),
        ("bomb.docx", documents.zip_bomb_docx(), {"too_large", "corrupt", "out_of_memory"}),
        ("lying-bomb.docx", documents.lying_zip_bomb_docx(), {"converted", "too_large", "corrupt", "out_of_memory"}),
        ("broken.docx", broken(documents.docx("words " * 100)), {"corrupt"}),
        ("broken.pdf", b"%PDF-1.4\n" + bytes(5000) + b"\n%%EOF\n", {"corrupt"}),
        ("noise.bin", bytes(range(256)) * 40, {"unsupported_format"}),
    ],
)
def test_ends_with_its_error(daemon: Daemon, name: str, content: bytes, kinds: set[str]) -> None:
    daemon.drop(name, content)
    outcome = daemon.outcome(name)
    assert outcome in kinds
    if outcome != "converted":
        found = error(daemon, name)
        assert found["source"] == name
        assert found["message"]
        assert found["hint"]
        assert found["attempts"] == 1
        assert found["retry_command"].startswith("convertd retry")


def test_sparse_file_of_two_gigabytes_is_not_read(daemon: Daemon) -> None:
    hidden = daemon.inbox / ".sparse.tmp"
    with hidden.open("wb") as file:
        file.truncate(2 << 30)
    hidden.rename(daemon.inbox / "sparse.pdf")
    assert daemon.outcome("sparse.pdf") == "too_large"
    assert "limits.file_size" in error(daemon, "sparse.pdf")["hint"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("entities.docx", documents.entity_bomb_docx()),
        ("entities.svg", documents.entity_bomb_svg()),
        ("entities.html", documents.entity_bomb_html()),
        ("entities.xml", documents.entity_bomb_xml()),
    ],
)
def test_entity_bombs_do_not_go_off(daemon: Daemon, name: str, content: bytes) -> None:
    daemon.drop(name, content)
    outcome = daemon.outcome(name)
    assert outcome in {"converted", "corrupt", "too_large"}
    if outcome == "converted":
        assert daemon.markdown(name).stat().st_size < 100_000


def test_truncated_pdf_waits_and_then_ends(daemon: Daemon) -> None:
    """It might still be being written: it is taken as it is only after 30 s without a change."""
    daemon.drop("truncated.pdf", documents.truncated(documents.pdf(["first words"] * 20)))
    waits = until(
        lambda: (
            (told := daemon.command("why", str(daemon.inbox / "truncated.pdf")).stdout) and "waits:" in told and told
        ),
        "why tells that the file waits",
    )
    assert "its end is missing" in waits
    assert daemon.outcome("truncated.pdf") in {"converted", "corrupt"}


# ---------------------------------------------------------------- documents that refer to what is not theirs


def test_documents_reach_neither_files_nor_the_network(daemon: Daemon, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    account = Path("/etc/passwd").read_text().splitlines()[0]
    connections: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server, connections), daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        dropped = referring(address, ["file:///etc/passwd", f"file://{secret}"])
        for name, content in dropped.items():
            daemon.drop(name, content)
        for name in dropped:
            daemon.outcome(name)
        # The door is open: one connection of the test's own arrives, so those before it would have, too.
        with socket.create_connection(server.getsockname()):
            until(lambda: connections, "the server accepts")
        assert len(connections) == 1
        server.shutdown(socket.SHUT_RDWR)
    for path in daemon.outbox.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert SECRET not in text, path
            assert account not in text, path


def _accept(server: socket.socket, connections: list[Any]) -> None:
    while True:
        try:
            connection, peer = server.accept()
        except OSError:
            return
        connection.close()
        connections.append(peer)


def referring(address: str, files: list[str]) -> dict[str, bytes]:
    """Documents that want the address and the files to be read while they are converted."""
    wanted = [*files, f"{address}/page"]
    tags = "".join(
        f'<img src="{url}"><iframe src="{url}"></iframe><link rel="stylesheet" href="{url}"><object data="{url}">'
        f'</object><script src="{url}"></script><embed src="{url}">'
        for url in wanted
    )
    images = "".join(
        f'<image href="{url}" xlink:href="{url}" width="9" height="9"/><use xlink:href="{url}#a"/>' for url in wanted
    )
    entities = "".join(f'<!ENTITY e{number} SYSTEM "{url}">' for number, url in enumerate(wanted))
    used = "".join(f"&e{number};" for number in range(len(wanted)))
    doctype = f'<!DOCTYPE svg SYSTEM "{address}/dtd" [{entities}]>'
    xlink = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    markdown = "".join(f"![picture]({url})\n\n.. include:: {url}\n\n" for url in wanted)
    return {
        "refers.html": f"<html><head><base href='{address}/'></head><body><p>words</p>{tags}</body></html>".encode(),
        "refers.svg": f"<svg {xlink}><text>words</text>{images}</svg>".encode(),
        "external.svg": f'<?xml version="1.0"?>{doctype}<svg {xlink}><text>words {used}</text></svg>'.encode(),
        "external.html": f'<?xml version="1.0"?>{doctype}<html><body><p>words {used}</p></body></html>'.encode(),
        "external.xml": f'<?xml version="1.0"?>{doctype}<r>words {used}</r>'.encode(),
        "external.docx": documents.docx(
            "", body=f"<w:p><w:r><w:t>words {used}</w:t></w:r></w:p>", prologue=doctype.replace("svg", "w:document")
        ),
        "refers.md": markdown.encode(),
        "refers.rst": f"Title\n=====\n\n{markdown}".encode(),
        "refers.tex": (
            rb"\documentclass{article}\begin{document}words \input{/etc/passwd} \include{/etc/passwd}\end{document}"
        ),
        "refers.eml": documents.eml("words", attachments={"refers.html": f"<html><body>{tags}</body></html>".encode()}),
        "refers.zip": documents.zipped(
            {"../../escaped.txt": "words", "page.html": f"<html><body>{tags}</body></html>"}
        ),
    }


# ---------------------------------------------------------------- names


ODD_NAMES = [
    b"new\nline.txt",
    b"tab\tand\x1bescape\x7f.txt",
    b"x" * 251 + b".txt",
    b"y" * 255,
    b"a..",
    b"%2e%2e",
    b"%2e%2e%2fescaped.txt",
    b"a\\..\\..\\windows.txt",
    b"invalid-\xff\xfe.txt",
    b"\xc3\x28.txt",
    b" ",
    b"-rf",
    b"--config",
    b"$(touch pwned);`id`.txt",
    b"report.txt.md",
    b"report.txt.json",
    b"report.txt.error.json",
    "\uff41\u202etxt.exe.txt".encode(),
    b"folder\n/a../%2e%2e/x.txt",
    b"f" * 255 + b"/" + b"g" * 255 + b"/h.txt",
    b"a.md/x.txt",
    b"a.error/x.txt",
    b"invalid-\xff/x.txt",
]
CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")


def test_odd_names(daemon: Daemon) -> None:
    """The words of each document, unlike all others, end in exactly one output inside the sink."""
    words = {name: f"words of document {number}." for number, name in enumerate(ODD_NAMES)}
    for name, text in words.items():
        put(daemon, name, text)

    def outputs(text: str) -> list[Path]:
        return [path for path in daemon.outbox.rglob("*.md") if path.is_file() and text in path.read_text()]

    for name, text in words.items():
        [output] = until(partial(outputs, text), f"{name!r} is converted")
        assert os.path.realpath(output).startswith(os.path.realpath(daemon.outbox) + "/")
        assert not CONTROL.search(str(output.relative_to(daemon.outbox)))
        sidecar = json.loads(output.with_name(output.name.removesuffix(".md") + ".json").read_bytes())
        encoded = sidecar.get("source_base64")
        assert name == (base64.b64decode(encoded) if encoded else sidecar["source"].encode())
    for name in (ODD_NAMES[0], ODD_NAMES[-1]):
        told = daemon.command("why", os.fsdecode(os.path.join(os.fsencode(daemon.inbox), name)))
        assert told.returncode == 0
        assert "completed" in told.stdout


def test_some_names_are_never_taken(daemon: Daemon) -> None:
    ignored = [b"..b", b"....", b"..a/x.txt", b".../x.txt", b".hidden/x.txt", b"~$lock.docx", b"x.part", b"Thumbs.db"]
    for name in ignored:
        put(daemon, name, "words")
    daemon.drop("beside-the-ignored.txt", b"words")
    assert daemon.outcome("beside-the-ignored.txt") == "converted"
    taken = names_taken(daemon)
    for name in ignored:
        assert name.decode() not in taken
        told = daemon.command("why", str(daemon.inbox / name.decode())).stdout
        assert "not taken" in told
        assert "never queued" in told


def put(daemon: Daemon, name: bytes, text: str) -> None:
    """Drop a document by its name in bytes."""
    target = os.path.join(os.fsencode(daemon.inbox), name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    hidden = daemon.inbox / ".put.tmp"
    hidden.write_text(text)
    os.rename(hidden, target)
