"""What must be true: every version of every document that the campaign has made, and what an output may look like.

The words of each version name the document, the version and the place of each line, so that an output tells by itself
which version it is of and whether that is all of it.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests import documents

WORDS = re.compile(r"[A-Za-z0-9]+")
KINDS = ("txt", "txt", "txt", "html", "docx", "pdf")
PAGE_LINES = 30
"""So many lines a page of a PDF has room for."""
HOSTILE = ("Crash", "Abort", "NativeMemory", "Killed", "Raise", "Loop", "Memory")
"""Classes of tests/engines_for_tests.py; what hangs or hoards takes its time and comes seldom."""
HOSTILE_WEIGHTS = (5, 4, 4, 4, 4, 1, 1)
HOSTILE_FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "torn PDF": ("pdf", lambda: documents.truncated(documents.pdf(["torn"])) + b"\n%%EOF\n"),
    "no PDF": ("pdf", lambda: b"%PDF-1.7\n" + bytes(10_000) + b"\n%%EOF\n"),
    "zip bomb": ("docx", lambda: documents.zip_bomb_docx(600)),
    "lying zip bomb": ("docx", lambda: documents.lying_zip_bomb_docx(600)),
}
"""What no real engine converts: its kind, and what makes it. All of them are seen to be what they are at once."""
SUBMITTED = "submitted/"
POISON = "poison"
"""Documents with this in their name kill the daemon itself while they are converted."""


@dataclass(frozen=True, slots=True)
class Version:
    """A content that a document has had, whole. `hostile` are those that no engine converts."""

    number: int
    content: bytes
    sha256: str
    digest: str
    hostile: bool


@dataclass
class Document:
    """One name in one watch. Whoever changes its source holds `lock`; `current` is None once the campaign removed it.

    `floor` is the newest job that it had before its current version came.
    """

    watch: str
    name: str
    kind: str
    versions: list[Version] = field(default_factory=list)
    current: Version | None = None
    floor: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def poison(self) -> bool:
        return POISON in self.name

    @property
    def submitted(self) -> bool:
        """Whether it was handed in, and has no place in the source."""
        return self.name.startswith(SUBMITTED)

    def fails(self) -> bool:
        """Whether its current version is one that cannot be converted."""
        return self.poison or (self.current is not None and self.current.hostile)

    def of_source(self, sha256: str) -> Version | None:
        """The version of this content."""
        return next((version for version in reversed(self.versions) if version.sha256 == sha256), None)

    def of_markdown(self, markdown: bytes) -> Version | None:
        """The version of which this is the whole output."""
        found = digest(markdown.decode("utf-8", "replace"))
        return next((version for version in reversed(self.versions) if version.digest == found), None)

    def written(self, content: bytes, text: str, hostile: bool = False) -> Version:
        """Note a version that is about to appear."""
        number = len(self.versions) + 1
        version = Version(number, content, hashlib.sha256(content).hexdigest(), digest(text), hostile)
        self.versions.append(version)
        return version


def digest(text: str) -> str:
    """Of the words of a text: Markdown may break and mark them in other ways."""
    return hashlib.sha256(" ".join(WORDS.findall(text)).encode()).hexdigest()


def compose(
    document: Document, chance: random.Random, *, hostile: str = "", lines: int = 0, slow: bool = False
) -> tuple[bytes, str]:
    """The next version of a document: its bytes, and its text. A slow one takes half a second to be converted."""
    number = len(document.versions) + 1
    token = re.sub(r"\W", "", f"{document.watch}x{document.name.rpartition('.')[0]}xv{number}")
    count = lines or chance.randint(2, PAGE_LINES if document.kind == "pdf" else 40)
    body = [f"{token} line {at} of {count} tells of rivers {chance.randrange(10**6)}" for at in range(count)]
    if document.kind != "txt":
        text = "\n".join(body)
        if document.kind == "html":
            return documents.html(text, title="A page"), f"A page\n{text}"
        return (documents.pdf([text]) if document.kind == "pdf" else documents.docx(text)), text
    tenths = 5 if slow else 0 if hostile or lines else max(0, chance.randint(-9, 5))
    last = [f"seconds 0.{tenths}"] if tenths else [f"{token} end"]
    text = "\n".join([hostile or ("Slow" if tenths else "Echo"), *body, *last])
    return text.encode(), text


def compose_large(chance: random.Random, result_bytes: int, source_bytes: int = 0) -> tuple[bytes, str]:
    """A text document whose result has about so many bytes, and by whose length alone its version is told; itself it
    is about as large as `source_bytes`, with no two parts alike."""
    result_bytes += chance.randrange(result_bytes // 8)
    padding = chance.randbytes(source_bytes // 2).hex()
    return f"Large {padding} {result_bytes}".encode(), "x" * result_bytes


class Model:
    """All documents. The order in which they were made is the order in which they are drawn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._documents: dict[tuple[str, str], Document] = {}
        self.retried: set[int] = set()
        """Jobs that an operator was asked to try again: only these may leave a final state."""

    def new(self, watch: str, kind: str, prefix: str = "d") -> Document:
        """A document of a name that was never used; `prefix` may have folders in it."""
        with self._lock:
            name = f"{prefix}{len(self._documents):04}.{kind}"
            document = Document(watch, name, kind)
            self._documents[watch, name] = document
        return document

    def find(self, watch: str, name: str) -> Document | None:
        return self._documents.get((watch, name))

    def of(self, watch: str) -> list[Document]:
        return [document for document in self if document.watch == watch]

    def __iter__(self) -> Iterator[Document]:
        with self._lock:
            return iter(list(self._documents.values()))

    def __len__(self) -> int:
        return len(self._documents)

    def versions(self) -> int:
        """How many there were in all."""
        return sum(len(document.versions) for document in self)
