"""What a document is: by its content, whatever its name says."""

from __future__ import annotations

import resource
import tracemalloc
from collections.abc import Callable

import pytest

from daemon.converters import ROUTES
from daemon.converters.base import EngineError
from daemon.converters.charset import decode
from daemon.converters.detect import detect
from daemon.converters.formats import IMAGES, TEXT_KINDS
from daemon.converters.markdown import first_heading
from daemon.errors import Kind
from tests import documents

PDF = documents.pdf(["words"])
DOCX = documents.docx("words")


@pytest.mark.parametrize(
    ("name", "content", "kind", "media_type"),
    [
        ("a.pdf", PDF, "pdf", "application/pdf"),
        ("lies.txt", PDF, "pdf", "application/pdf"),
        ("a.docx", DOCX, "docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("lies.xlsx", DOCX, "docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("a", documents.xlsx([["a"]]), "xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (
            "a",
            documents.pptx(["a"]),
            "pptx",
            "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        ),
        ("a", documents.odt("a"), "odf", "application/vnd.oasis.opendocument.text"),
        ("a.zip", documents.epub(["a"]), "epub", "application/epub+zip"),
        ("a.docx", documents.zipped({"a.txt": "words"}), "zip", "application/zip"),
        ("a.png", documents.png("words"), "image", "image/png"),
        ("a.doc", documents.compound_file({"WordDocument": b"\xec\xa5" + bytes(600)}), "doc", "application/msword"),
        ("a.bin", documents.compound_file({"Workbook": bytes(600)}), "xls", "application/vnd.ms-excel"),
        ("a.xls", documents.compound_file({"PowerPoint Document": b"x"}), "ppt", "application/vnd.ms-powerpoint"),
        ("a", documents.compound_file({"__properties_version1.0": b"x"}), "msg", "application/vnd.ms-outlook"),
        ("a", documents.html("words"), "html", "text/html"),
        ("a.pdf", documents.html("the server is busy"), "html", "text/html"),
        ("a.xml", b'<?xml version="1.0"?><html><body>x</body></html>', "html", "text/html"),
        ("a.xml", documents.svg("words"), "svg", "image/svg+xml"),
        ("a.xml", b"<?xml version='1.0'?><!-- <svg> --><report/>", "xml", "application/xml"),
        ("a.xml", b"<?xml version='1.0'?><opml/>", "xml", "application/xml+opml"),
        ("a.txt", documents.rtf("words"), "rtf", "application/rtf"),
        ("a.eml", documents.eml("words"), "eml", "message/rfc822"),
        ("a", documents.eml("words"), "eml", "message/rfc822"),
        ("a", documents.mbox(["words"]), "mbox", "application/mbox"),
        ("a", documents.ipynb([("markdown", "words")]), "ipynb", "application/x-ipynb+json"),
        ("a.tar", documents.tar({"a.txt": b"words"}), "tar", "application/x-tar"),
        ("a", documents.gzipped(b"words"), "gzip", "application/gzip"),
        ("a.csv", b"a,b\n1,2\n", "csv", "text/csv"),
        ("a.tsv", b"a\tb\n", "csv", "text/tab-separated-values"),
        ("a.md", b"<div>words</div>", "markdown", "text/markdown"),
        ("a.rst", b"Title\n=====\n", "markup", "text/prs.fallenstein.rst"),
        ("a.json", b'{"a": 1}', "code", "application/json"),
        ("a", b'[{"a": 1}]', "code", "application/json"),
        ("a.py", b"import os\n", "code", "text/plain"),
        ("a.php", b"<html><?php ?>", "code", "text/plain"),
        ("README", b"Note: words\n", "text", "text/plain"),
        ("a.txt", b"BM stands for benchmark", "text", "text/plain"),
        ("a.txt", "wide words".encode("utf-16"), "text", "text/plain"),
        ("a.txt", "wide words".encode("utf-16-le"), "text", "text/plain"),
    ],
)
def test_kind_follows_from_content(name: str, content: bytes, kind: str, media_type: str) -> None:
    detected = detect(name, content)
    assert (detected.kind, detected.media_type) == (kind, media_type)


def test_junk_before_a_pdf_is_skipped() -> None:
    detected = detect("a.pdf", b"HTTP/1.1 200 OK\r\n\r\n" + PDF)
    assert detected.kind == "pdf"
    assert detected.offset == 19


def test_a_text_that_speaks_of_pdf_is_text() -> None:
    assert detect("a.txt", b"A PDF begins with %PDF-1.4 and ends with %%EOF.").kind == "text"


def test_text_under_the_name_of_a_pdf_is_converted_with_a_warning() -> None:
    detected = detect("a.pdf", b"not found\n")
    assert detected.kind == "text"
    assert ".pdf" in detected.warning


@pytest.mark.parametrize(
    ("name", "content", "kind", "says"),
    [
        ("a.pdf", b"", Kind.EMPTY, "empty"),
        ("a.exe", b"MZ\x90\0\x03\0\0\0", Kind.UNSUPPORTED_FORMAT, "program"),
        ("a.docx", b"\x7fELF\x02\x01\x01\0", Kind.UNSUPPORTED_FORMAT, "ELF"),
        ("a.mp4", b"\0\0\0\x18ftypisom\0\0\0\0", Kind.UNSUPPORTED_FORMAT, "MP4"),
        ("a", bytes(5000), Kind.UNSUPPORTED_FORMAT, "zero bytes"),
        ("a", bytes(range(256)) * 9, Kind.UNSUPPORTED_FORMAT, "unknown"),
        ("a.docx", documents.truncated(DOCX), Kind.CORRUPT, "incomplete"),
        ("a.zip", documents.encrypted_zip(), Kind.ENCRYPTED, "password"),
        ("a.docx", documents.partly_encrypted(DOCX, "word/document.xml"), Kind.ENCRYPTED, "document"),
        ("a.epub", documents.partly_encrypted(documents.epub(["a"]), "chapter1.xhtml"), Kind.ENCRYPTED, "document"),
        ("a.docx", documents.compound_file({"EncryptedPackage": b"x", "EncryptionInfo": b"x"}), Kind.ENCRYPTED, "pass"),
        ("a.doc", documents.compound_file({"WordDocument": b"\xec\xa5" + bytes(9) + b"\x01"}), Kind.ENCRYPTED, "pass"),
        ("a.xls", documents.compound_file({"Workbook": b"\x09\x08\x02\0\0\0\x2f\0\0\0"}), Kind.ENCRYPTED, "password"),
        ("a.ppt", documents.compound_file({"EncryptedSummary": b"x"}), Kind.ENCRYPTED, "password"),
        ("a.vsd", documents.compound_file({"VisioDocument": b"x"}), Kind.UNSUPPORTED_FORMAT, "Visio"),
        ("a.bin", documents.truncated(documents.compound_file({"x": b"x"}), 0.2), Kind.CORRUPT, "damaged"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_its_reason(name: str, content: bytes, kind: Kind, says: str) -> None:
    with pytest.raises(EngineError) as refused:
        detect(name, content)
    assert refused.value.kind is kind
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("bomb", "kind", "says"),
    [
        (documents.zip_bomb_docx, Kind.TOO_LARGE, "3072 MiB"),
        (documents.lying_zip_bomb_docx, Kind.CORRUPT, "lies"),
    ],
)
def test_zip_bombs_are_refused(bomb: Callable[[], bytes], kind: Kind, says: str) -> None:
    with pytest.raises(EngineError) as refused:
        detect("a.docx", bomb())
    assert refused.value.kind is kind
    assert says in refused.value.message


def test_an_encrypted_openoffice_document_is_refused() -> None:
    manifest = "<manifest:encryption-data/>"
    content = documents.zipped(
        {"mimetype": "application/vnd.oasis.opendocument.text", "META-INF/manifest.xml": manifest}
    )
    with pytest.raises(EngineError) as refused:
        detect("a.odt", content)
    assert refused.value.kind is Kind.ENCRYPTED


def test_an_archive_of_which_only_a_part_is_encrypted_is_an_archive() -> None:
    content = documents.partly_encrypted(documents.zipped({"a.txt": "words", "b.txt": "secret words"}), "b.txt")
    assert detect("a.zip", content).kind == "zip"


def test_a_container_with_a_damaged_lzma_member_is_an_archive() -> None:
    assert detect("a.zip", documents.lzma_zip(b"\xff" * 5)).kind == "zip"


def test_a_member_that_asks_for_all_memory_is_not_read() -> None:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        used_bytes = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + (1 << 30), limits[1]))
    try:
        assert detect("a.zip", documents.lzma_zip(b"\x5d\xff\xff\xff\xff")).kind == "zip"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_a_member_without_a_name_is_one_like_others() -> None:
    assert detect("a.zip", documents.zip_with_nameless_member({"a.txt": "words"})).kind == "zip"


def test_a_directory_of_too_many_members_is_refused_before_it_is_taken_apart() -> None:
    content = documents.crowded_zip(200_000)
    tracemalloc.start()
    try:
        with pytest.raises(EngineError) as refused:
            detect("a.zip", content)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.kind is Kind.TOO_LARGE
    assert peak_bytes < 3 * len(content), "an object for each member takes ten times as much"


def test_a_directory_of_many_members_is_fine() -> None:
    assert detect("a.zip", documents.crowded_zip(2000)).kind == "zip"


def test_damaged_compound_file_is_named_by_its_extension() -> None:
    content = documents.truncated(documents.compound_file({"WordDocument": bytes(9000)}))
    assert detect("a.doc", content).kind == "doc"


@pytest.mark.parametrize("content", [PDF, DOCX, documents.epub(["a"]), documents.compound_file({"Book": b"x" * 5000})])
def test_truncated_and_scrambled_documents_never_raise_anything_else(content: bytes) -> None:
    for size in range(0, len(content), max(1, len(content) // 60)):
        for damaged in (content[:size], content[:size] + b"\xff" * 40 + content[size + 40 :]):
            try:
                assert detect("a.bin", damaged).kind in ROUTES
            except EngineError as error:
                assert error.message


def test_every_kind_that_can_be_found_has_a_route() -> None:
    assert {kind for _, _, kind, _ in IMAGES} <= set(ROUTES)
    assert {kind for kind, _ in TEXT_KINDS.values()} <= set(ROUTES)


@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_deeply_nested_json_is_just_text(bracket: str) -> None:
    assert detect("a", (bracket * 10_000).encode()).kind == "text"


@pytest.mark.parametrize("text", ["", " ", "ok", "100", "four"])
def test_a_text_of_a_few_letters_is_no_utf16(text: str) -> None:
    assert decode(text.encode()) == text


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "iso8859-15"]
)
def test_western_text_is_decoded(encoding: str) -> None:
    text = "Füße in Köln, größer als üblich: Öl, Ärger und Übermut.\n" * 3
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("shift_jis", "これは日本語の文章です。東京は日本の首都であり、世界最大の都市の一つです。"),
        ("euc_jp", "これは日本語の文章です。東京は日本の首都であり、世界最大の都市の一つです。"),
        ("gb18030", "这是一个中文文档。北京是中华人民共和国的首都,也是全国的政治中心。"),
        ("cp1251", "Это русский текст. Москва является столицей Российской Федерации."),
    ],
)
def test_other_scripts_are_decoded(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_markup_may_declare_its_encoding() -> None:
    content = '<?xml version="1.0" encoding="iso-8859-2"?><p>Łódź</p>'.encode("iso-8859-2")
    assert "Łódź" in decode(content, markup=True)
    assert "Łódź" in decode(documents.html("Łódź", charset="iso-8859-2"), markup=True)


def test_a_wrong_declaration_does_not_spoil_utf8() -> None:
    assert "Łódź" in decode(b'<meta charset="iso-8859-1">' + "Łódź".encode(), markup=True)
    assert decode(b'<meta charset="hex">\xfcber', markup=True).endswith("über")


def test_a_cut_character_does_not_change_the_encoding_of_the_rest() -> None:
    assert decode("Grüße ü".encode()[:-1]) == "Grüße \ufffd"


@pytest.mark.parametrize("text", ["Total: 99 €\n", "Menu du Café\n", "Viele Grüße", "Menu du Café"])
def test_the_last_letter_of_an_old_text_is_no_utf_8_that_is_cut_off(text: str) -> None:
    assert decode(text.encode("cp1252")) == text


def test_a_declared_codec_that_is_no_encoding_of_documents_is_not_used() -> None:
    for codec in ("idna", "unicode_escape", "punycode", "utf-7", "rot13", "zlib"):
        assert r"\x41" in decode(f'<?xml encoding="{codec}"?>'.encode() + rb"\x41 \xff" + b"\xff", markup=True)


def test_line_ends_and_nul_characters_are_cleaned() -> None:
    assert decode(b"a\r\nb\rc\0d\n") == "a\nb\ncd\n"


def test_the_first_heading_is_found_in_time_that_grows_with_its_length() -> None:
    assert first_heading("text\n## A *title* ##\n# B") == "A title"
    assert first_heading("```\n# no\n```\n# C#") == "C#"
    assert first_heading("# a" + " " * 19_000 + "x") is None, "and not in hours, as backtracking would take"


@pytest.mark.parametrize("extension", ["eml", "txt"])
def test_a_mail_is_one_wherever_its_head_is_cut_off(extension: str) -> None:
    """Only the beginning is looked at, which may end within the name of a field."""
    first = b"Received: by a\nFrom: a@example.com\nTo: b@example.com\nSubject: words\nDate: now\n"
    rest = b"X-Organization-AuthSource: abc\nMIME-Version: 1.0\nContent-Type: text/plain\n\nwords\n"
    for length in range(4000, 4110, 3):
        folded = b"X-Seal: " + b"\n ".join(b"z" * 90 for _ in range(50))
        mail = (first + folded)[: length - 1].rstrip() + b"\n" + rest
        assert detect(f"a.{extension}", mail).kind == "eml", length
