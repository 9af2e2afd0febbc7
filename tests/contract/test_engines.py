"""What every engine owes, whichever library is behind it."""

from __future__ import annotations

import importlib
import random

import liteparse as library
import pytest

from daemon.converters import REGISTRY, ROUTES
from daemon.converters.base import Converted, Document, Engine, EngineError, Options
from daemon.converters.detect import detect
from daemon.converters.route import Router
from tests import documents

TEXT = "The quick brown fox jumps\nover the lazy dog in Paris"
SAMPLES: dict[str, tuple[str, bytes]] = {
    "pdf": ("a.pdf", documents.pdf([TEXT])),
    "image": ("a.png", documents.png(TEXT)),
    "docx": ("a.docx", documents.docx(TEXT)),
    "pptx": ("a.pptx", documents.pptx([TEXT])),
    "xlsx": ("a.xlsx", documents.xlsx([["subject", "where"], ["quick brown fox", "Paris"]])),
    "html": ("a.html", documents.html(TEXT)),
    "epub": ("a.epub", documents.epub([TEXT])),
    "odf": ("a.odt", documents.odt(TEXT)),
    "rtf": ("a.rtf", documents.rtf(TEXT)),
    "eml": ("a.eml", documents.eml(TEXT)),
    "mbox": ("a.mbox", documents.mbox([TEXT])),
    "csv": ("a.csv", b"subject,where\nquick brown fox,Paris\n"),
    "ipynb": ("a.ipynb", documents.ipynb([("markdown", TEXT), ("code", "print(1)")])),
    "xml": ("a.xml", f"<?xml version='1.0'?><report><p>{TEXT}</p></report>".encode()),
    "svg": ("a.svg", documents.svg(TEXT)),
    "markup": ("a.rst", f"Title\n=====\n\n{TEXT}\n".encode()),
    "zip": ("a.zip", documents.zipped({"a.txt": TEXT})),
    "tar": ("a.tar", documents.tar({"a.txt": TEXT.encode()})),
    "gzip": ("a.txt.gz", documents.gzipped(TEXT.encode())),
    "markdown": ("a.md", TEXT.encode()),
    "text": ("a.txt", TEXT.encode()),
    "code": ("a.py", f"# {TEXT.splitlines()[0]}\nprint('Paris')\n".encode()),
}
"""Kinds without one here (doc, xls, msg …) have no sample that a test could make; the corpus holds some."""
FOUND = ("quick brown fox", "Paris")


def pairs() -> list[tuple[str, str]]:
    """Each engine with each kind it is routed for and that a sample exists of."""
    return [(name, kind) for kind, order in ROUTES.items() for name in order if kind in SAMPLES]


@pytest.fixture(scope="module")
def engines() -> dict[str, Engine]:
    loaded = {}
    for name, place in REGISTRY.items():
        module, _, attribute = place.partition(":")
        loaded[name] = getattr(importlib.import_module(module), attribute)()
    return loaded


def nested(name: str, content: bytes) -> Converted:
    return Router(Options()).convert(name, content, lambda engine: None).converted


def document(kind: str, content: bytes | None = None) -> Document:
    name, sample = SAMPLES[kind]
    return Document(name, sample if content is None else content, kind, detect(name, sample).media_type, nested=nested)


@pytest.mark.parametrize("name", REGISTRY)
def test_tells_its_name_and_version(engines: dict[str, Engine], name: str) -> None:
    assert engines[name].name == name
    assert engines[name].version()[0].isdigit()


def test_every_engine_is_routed_for_something_here() -> None:
    assert {name for name, _ in pairs()} == set(REGISTRY)


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples_are_what_they_are_said_to_be(kind: str) -> None:
    assert detect(*SAMPLES[kind]).kind == kind


@pytest.mark.parametrize(("name", "kind"), pairs())
def test_converts_what_it_is_routed_for(engines: dict[str, Engine], name: str, kind: str) -> None:
    converted = engines[name].convert(document(kind), Options())
    text = " ".join(converted.markdown.split())
    assert all(words in text for words in FOUND), text


@pytest.mark.parametrize(("name", "kind"), pairs())
def test_converts_the_same_to_the_same(engines: dict[str, Engine], name: str, kind: str) -> None:
    assert engines[name].convert(document(kind), Options()) == engines[name].convert(document(kind), Options())


@pytest.mark.parametrize(("name", "kind"), pairs())
def test_raises_nothing_but_its_own_error_on_damaged_documents(
    engines: dict[str, Engine], name: str, kind: str
) -> None:
    """Through the router, which turns whatever an engine raises into `EngineError`."""
    router = Router(Options(engines={kind: (name,)}))
    content = SAMPLES[kind][1]
    chance = random.Random(f"{name} {kind}")
    damaged = [documents.truncated(content, share) for share in (0.1, 0.5, 0.95)]
    for _ in range(5):
        scrambled = bytearray(content)
        for _ in range(20):
            scrambled[chance.randrange(min(len(content), 20_000))] = chance.randrange(256)
        damaged.append(bytes(scrambled))
    damaged.append(content[:16] + chance.randbytes(2000))
    for each in damaged:
        try:
            routed = router.convert(SAMPLES[kind][0], each, lambda engine: None)
        except EngineError as error:
            assert error.message
        else:
            assert isinstance(routed.converted.markdown, str)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_foreign_document_is_an_engine_error_or_empty_but_no_crash(engines: dict[str, Engine], name: str) -> None:
    foreign = Document("a.bin", bytes(range(256)) * 8, next(kind for each, kind in pairs() if each == name))
    try:
        converted = engines[name].convert(foreign, Options())
    except EngineError as error:
        assert error.message
    else:
        assert isinstance(converted.markdown, str)


@pytest.mark.parametrize("name", ["liteparse", "xberg", "pypdfium2", "xberg-ocr"])
def test_the_pages_of_a_pdf_are_told(engines: dict[str, Engine], name: str) -> None:
    content = documents.pdf(["first words", "second words"])
    converted = engines[name].convert(Document("a.pdf", content, "pdf", "application/pdf"), Options())
    assert converted.pages == 2
    if converted.page_markdown:
        assert [words in page for words, page in zip(("first", "second"), converted.page_markdown, strict=True)] == [
            True,
            True,
        ]


@pytest.mark.parametrize("name", ROUTES["pdf"])
def test_no_page_of_a_long_pdf_is_left_out(engines: dict[str, Engine], name: str) -> None:
    """Libraries have limits of their own, such as 1,000 pages, which they keep without a word."""
    content = documents.pdf(["\n" * 10 + f"page {number}" for number in range(1, 1002)])  # no running header
    converted = engines[name].convert(Document("a.pdf", content, "pdf", "application/pdf"), Options())
    assert converted.pages == 1001
    assert [word for word in converted.markdown.split() if word.isdigit()] == [str(n) for n in range(1, 1002)]


def test_pages_that_liteparse_leaves_out_without_a_word_are_left_to_the_next_engine(
    engines: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines["liteparse"], "_parser", library.LiteParse(max_pages=1, ocr_enabled=False, quiet=True))
    with pytest.raises(EngineError, match="1 of the 2 pages"):
        engines["liteparse"].convert(document("pdf", documents.pdf(["first words", "second words"])), Options())


@pytest.mark.parametrize("name", ["liteparse", "pypdfium2"])
def test_pages_without_text_are_told_unless_they_are_blank(engines: dict[str, Engine], name: str) -> None:
    content = documents.mixed_pdf([("typed words", False), ("scanned words", True), ("", False)])
    converted = engines[name].convert(Document("a.pdf", content, "pdf", "application/pdf"), Options())
    assert converted.scanned_pages == (2,)


def test_ocr_reads_only_the_wanted_pages(engines: dict[str, Engine]) -> None:
    content = documents.scanned_pdf(["first words", "second words", "third words"])
    wanted = Document("a.pdf", content, "image", "application/pdf", pages=(3, 1))
    converted = engines["xberg-ocr"].convert(wanted, Options())
    assert [page.split()[0] for page in converted.page_markdown] == ["third", "first"]
