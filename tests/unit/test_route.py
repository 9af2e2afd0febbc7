"""Routing: which engines are tried, whose result counts, what is told of it."""

from __future__ import annotations

import os
import re
import sysconfig
import tarfile
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from functools import partial
from pathlib import Path

import pytest

from daemon.converters import REGISTRY, ROUTES, tessdata, tiff
from daemon.converters.base import Converted, Document, EngineError, Options
from daemon.converters.markdown import (
    fenced,
    first_heading,
    holds_text,
    metadata_title,
    without_anonymous_images,
    without_empty_fences,
)
from daemon.converters.route import Router
from daemon.errors import Kind
from tests import documents

HERE = __name__
SENTENCE = "The quick brown fox jumps\nover the lazy dog in Paris"


class Engine:
    """A test engine, plugged in by its dotted name."""

    name = "test"

    def version(self) -> str:
        return "1.0"

    def convert(self, document: Document, options: Options) -> Converted:
        raise NotImplementedError


class Fine(Engine):
    name = "fine"

    def convert(self, document: Document, options: Options) -> Converted:
        return Converted("# Fine\n\nfine words")


class Blank(Engine):
    name = "blank"

    def convert(self, document: Document, options: Options) -> Converted:
        return Converted("```text\n\n```\n")


class Corrupt(Engine):
    name = "corrupt"

    def convert(self, document: Document, options: Options) -> Converted:
        raise EngineError(Kind.CORRUPT, "bad bytes")


class Locked(Engine):
    name = "locked"

    def convert(self, document: Document, options: Options) -> Converted:
        raise EngineError(Kind.ENCRYPTED, "needs a password")


class Buggy(Engine):
    name = "buggy"

    def convert(self, document: Document, options: Options) -> Converted:
        raise KeyError("w:val")


class Greedy(Engine):
    name = "greedy"

    def convert(self, document: Document, options: Options) -> Converted:
        raise MemoryError


class PanicException(BaseException):
    """What libraries written in Rust raise when they panic; theirs cannot be imported by name."""


class Panicking(Engine):
    name = "panicking"

    def convert(self, document: Document, options: Options) -> Converted:
        raise PanicException("index out of bounds")


class Leaving(Engine):
    name = "leaving"

    def convert(self, document: Document, options: Options) -> Converted:
        raise SystemExit(3)


class NoOcr(Engine):
    name = "no-ocr"

    def convert(self, document: Document, options: Options) -> Converted:
        raise EngineError(Kind.CORRUPT, "no OCR today")


def router(engines: Mapping[str, tuple[type[Engine], ...]] | None = None, **options: object) -> Router:
    orders = {kind: tuple(f"{HERE}:{each.__name__}" for each in order) for kind, order in (engines or {}).items()}
    return Router(Options(engines=orders, **options))  # type: ignore[arg-type]


def tried(engines: tuple[type[Engine], ...]) -> tuple[list[str], str, tuple[str, ...]]:
    seen: list[str] = []
    routed = router({"text": engines}).convert("a.txt", b"words", seen.append)
    return [name.rpartition(":")[2] for name in seen], routed.converted.markdown, routed.warnings


def test_every_engine_of_a_route_is_registered_and_used() -> None:
    assert {name for order in ROUTES.values() for name in order} == set(REGISTRY)


def test_the_first_engine_with_text_wins_and_each_is_announced() -> None:
    assert tried((Fine, Corrupt)) == (["Fine"], "# Fine\n\nfine words", ())
    assert tried((Corrupt, Blank, Fine)) == (["Corrupt", "Blank", "Fine"], "# Fine\n\nfine words", ())


@pytest.mark.parametrize("failing", [Corrupt, Locked, Buggy, Greedy, Panicking])
def test_any_failure_of_an_engine_makes_the_next_one_try(failing: type[Engine]) -> None:
    assert tried((failing, Fine))[1] == "# Fine\n\nfine words"


@pytest.mark.parametrize(
    ("engines", "kind", "says"),
    [
        ((Corrupt, Locked), Kind.ENCRYPTED, "password"),
        ((Buggy, Corrupt), Kind.CORRUPT, "w:val"),
        ((Greedy, Corrupt), Kind.OUT_OF_MEMORY, "memory"),
        ((Panicking,), Kind.CORRUPT, "failed"),
        ((Corrupt, Blank), Kind.CORRUPT, "bad bytes"),
        ((Blank, Locked), Kind.ENCRYPTED, "password"),
    ],
)
def test_the_error_that_says_most_is_the_one_told(engines: tuple[type[Engine], ...], kind: Kind, says: str) -> None:
    with pytest.raises(EngineError) as failed:
        tried(engines)
    assert failed.value.kind is kind
    assert says in failed.value.message


@pytest.mark.parametrize("engines", [(Blank,), (Blank, Blank), (Blank, Corrupt)])
def test_a_blank_document_is_converted_with_a_warning(engines: tuple[type[Engine], ...]) -> None:
    _, markdown, warnings = tried(engines)
    assert markdown == ""
    assert warnings == ("The document holds no text.",)


def test_an_exit_of_the_process_is_no_failure_of_the_engine() -> None:
    with pytest.raises(SystemExit):
        tried((Leaving, Fine))


def test_what_is_told_of_a_document() -> None:
    routed = router({"text": (Fine,)}).convert("a.txt", b"words", lambda engine: None)
    assert (routed.kind, routed.media_type, routed.engine, routed.engine_version) == (
        "text",
        "text/plain",
        "fine",
        "1.0",
    )
    assert routed.converted.title == "Fine"


def test_warm_survives_an_engine_that_dislikes_the_sample() -> None:
    plugged = router({"csv": (Corrupt,)})
    plugged.warm()
    assert plugged.convert("a.txt", b"words", lambda engine: None).converted.markdown == "words"


def test_warm_raises_where_an_engine_cannot_be_imported() -> None:
    with pytest.raises(ModuleNotFoundError):
        Router(Options(engines={"pdf": ("no_such_package:Engine",)})).warm()


# ---------------------------------------------------------------- PDF and OCR


@pytest.fixture(scope="module")
def real() -> Router:
    warm = Router(Options())
    warm.warm()
    return warm


def test_a_scan_is_read_by_ocr(real: Router) -> None:
    routed = real.convert("a.pdf", documents.scanned_pdf([SENTENCE]), lambda engine: None)
    assert "quick brown fox" in routed.converted.markdown
    assert (routed.engine, routed.kind, routed.converted.pages) == ("xberg-ocr", "pdf", 1)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_scan_that_lies_on_its_side_or_head_is_read(real: Router, degrees: int) -> None:
    content = documents.scanned_pdf([SENTENCE], turned_degrees=degrees)
    assert "quick brown fox" in real.convert("a.pdf", content, lambda engine: None).converted.markdown


def test_scans_among_text_pages_are_filled_in(real: Router) -> None:
    content = documents.mixed_pdf([("First typed page", False), (SENTENCE, True), ("Last typed page", False)])
    routed = real.convert("a.pdf", content, lambda engine: None)
    markdown = routed.converted.markdown
    assert markdown.index("First typed") < markdown.index("quick brown fox") < markdown.index("Last typed")
    assert routed.engine == "liteparse"
    assert any("Page 2" in warning and "OCR" in warning for warning in routed.warnings)


def test_ocr_that_fails_costs_only_the_scanned_pages() -> None:
    content = documents.mixed_pdf([("First typed page", False), (SENTENCE, True)])
    routed = router({"image": (NoOcr,)}).convert("a.pdf", content, lambda engine: None)
    assert "First typed" in routed.converted.markdown
    assert any("Page 2" in warning and "no OCR today" in warning for warning in routed.warnings)


def test_ocr_can_be_switched_off() -> None:
    off = router({"image": (NoOcr,)}, ocr_mode="off")
    for name, content in (("a.pdf", documents.scanned_pdf([SENTENCE])), ("a.png", documents.png(SENTENCE))):
        routed = off.convert(name, content, lambda engine: None)
        assert routed.converted.markdown == ""
        assert routed.warnings


def test_ocr_can_be_had_always() -> None:
    seen: list[str] = []
    routed = router(ocr_mode="always").convert("a.pdf", documents.pdf([SENTENCE]), seen.append)
    assert seen == ["xberg-ocr"]
    assert "quick brown fox" in routed.converted.markdown


def test_a_page_that_cannot_be_loaded_is_told() -> None:
    content = documents.pdf(["first words", "second words"]).replace(b"[4 0 R 7 0 R]", b"[4 0 R 0 0 R]")
    last = Router(Options(engines={"pdf": ("pypdfium2",)}))
    routed = last.convert("a.pdf", content, lambda engine: None)
    assert routed.converted.markdown.strip() == "first words"
    assert routed.warnings == ("Page 2 could not be read.",)
    with pytest.raises(EngineError, match="No page"):
        last.convert("a.pdf", content.replace(b"[4 0 R 0 0 R]", b"[0 0 R 0 0 R]"), lambda engine: None)


def test_a_blank_pdf_needs_no_ocr(real: Router) -> None:
    seen: list[str] = []
    routed = real.convert("a.pdf", documents.pdf(["", ""]), seen.append)
    assert routed.converted.markdown == ""
    assert routed.converted.pages == 2
    assert "xberg-ocr" not in seen


def test_title_and_pages_of_a_pdf(real: Router) -> None:
    routed = real.convert("a.pdf", documents.pdf(["one", "two"], title="The Annual Report"), lambda engine: None)
    assert (routed.converted.title, routed.converted.pages) == ("The Annual Report", 2)


def test_pages_are_joined_without_rules_between(real: Router) -> None:
    routed = real.convert("a.pdf", documents.pdf(["one", "", "two"]), lambda engine: None)
    assert routed.converted.markdown.split() == ["one", "two"]


def test_a_letter_that_is_one_image_is_read_by_ocr(real: Router) -> None:
    seen: list[str] = []
    routed = real.convert("a.docx", documents.docx("", image=documents.png(SENTENCE)), seen.append)
    assert "quick brown fox" in routed.converted.markdown
    assert routed.engine == "xberg-ocr"
    typed = real.convert("a.docx", documents.docx("typed", image=documents.png(SENTENCE)), lambda engine: None)
    assert typed.converted.markdown.strip() == "typed"
    failing = router({"image": (NoOcr,)}).convert("a.docx", documents.docx(""), seen.append)
    assert failing.warnings == ("The document holds no text, and OCR of its images failed: no OCR today",)
    damaged = documents.docx("", image=documents.truncated(documents.png(SENTENCE)))
    assert "Image 0 OCR failed" in real.convert("a.docx", damaged, lambda engine: None).warnings[0]
    off = router({"image": (NoOcr,)}, ocr_mode="off")
    assert off.convert("a.docx", documents.docx("", image=documents.png("x")), seen.append).converted.markdown == ""


def test_a_scan_of_nothing_leaves_no_link_to_an_image(real: Router) -> None:
    routed = real.convert("a.pdf", documents.scanned_pdf([""]), lambda engine: None)
    assert routed.converted.markdown == ""
    assert routed.warnings == ("The document holds no text.",)


def test_every_page_of_a_fax_is_read(real: Router) -> None:
    routed = real.convert("a.tif", documents.tiff(["first page", "second page"]), lambda engine: None)
    assert routed.converted.markdown.split() == ["first", "page", "second", "page"]
    assert routed.converted.pages == 2


@pytest.mark.parametrize("name", ["a.png", "a.pdf", "a.tif"])
def test_lines_that_ocr_takes_for_noise_are_told(real: Router, name: str) -> None:
    text = f"Xqzvt brnkl wpqrs zzkvw hgtrf qwxzt\n{SENTENCE}"
    makers = {
        "a.png": documents.png(text),
        "a.pdf": documents.scanned_pdf([text]),
        "a.tif": documents.tiff(["x", text]),
    }
    routed = real.convert(name, makers[name], lambda engine: None)
    assert "quick brown fox" in routed.converted.markdown
    assert "Xqzvt" in routed.converted.markdown or any("removed 1 OCR line" in each for each in routed.warnings)


@pytest.mark.parametrize(
    "damage", [b"II*\0\x04\0\0\0", b"II*\0\x08\0\0\0\0\0\x08\0\0\0", b"MM\0*\xff\xff\xff\xff", b"II*"]
)
def test_a_damaged_fax_is_not_taken_apart_for_ever(damage: bytes) -> None:
    offsets, trouble = tiff.page_offsets(damage)
    assert list(tiff.pages(damage, offsets)) == [damage]
    assert bool(trouble) == (damage != b"II*")


def test_pages_that_a_damaged_fax_lacks_are_told(real: Router) -> None:
    content = documents.tiff(["first page", "second page"])
    cut = content[: tiff.page_offsets(content)[0][1]]
    routed = real.convert("a.tif", cut, lambda engine: None)
    assert routed.converted.markdown.split() == ["first", "page"]
    assert routed.warnings == ("Nothing after page 1 was read: the file is damaged.",)


def test_pages_above_the_limit_of_a_fax_are_told(real: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    content = documents.tiff(["first page", "second page"])
    monkeypatch.setattr(tiff, "PAGES_LIMIT", 2)
    assert real.convert("a.tif", content, lambda engine: None).warnings == ()
    monkeypatch.setattr(tiff, "PAGES_LIMIT", 1)
    assert "Nothing after page 1" in real.convert("a.tif", content, lambda engine: None).warnings[0]


@pytest.mark.parametrize(("password", "text"), [(b"secret", None), (b"", "secret words")])
def test_an_encrypted_pdf_is_refused_unless_its_password_is_empty(
    real: Router, password: bytes, text: str | None
) -> None:
    content = documents.encrypted_pdf("secret words", password)
    if text is not None:
        assert text in real.convert("a.pdf", content, lambda engine: None).converted.markdown
        return
    with pytest.raises(EngineError) as refused:
        real.convert("a.pdf", content, lambda engine: None)
    assert refused.value.kind is Kind.ENCRYPTED


# ---------------------------------------------------------------- archives, mails, bombs


def test_members_of_an_archive_are_converted_by_their_own_kind(real: Router) -> None:
    content = documents.zipped(
        {
            "notes/a.txt": "plain words",
            "b.pdf": documents.pdf(["typed words"]),
            "inner.zip": documents.zipped({"deep.csv": "a,b\n1,2\n"}),
            "tool.exe": b"MZ\x90\0\x03\0\0\0",
            "__MACOSX/._a.txt": b"resource fork",
        }
    )
    routed = real.convert("a.zip", content, lambda engine: None)
    for expected in ("## notes/a.txt", "plain words", "typed words", "## deep.csv", "| 1 | 2 |"):
        assert expected in routed.converted.markdown
    assert "resource fork" not in routed.converted.markdown
    assert [warning for warning in routed.warnings if warning.startswith("tool.exe: ")] == list(routed.warnings)


def test_an_archive_of_nothing_readable_tells_why(real: Router) -> None:
    routed = real.convert("a.zip", documents.zipped({"tool.exe": b"MZ\x90\0\x03\0\0\0"}), lambda engine: None)
    assert routed.converted.markdown == ""
    assert "tool.exe" in routed.warnings[0]


GOOD = {"a.txt": b"first words", "z.txt": b"last words"}


@pytest.mark.parametrize(
    "content",
    [
        documents.zip_with_wrong_checksum(GOOD),
        documents.zip_with_unknown_method(GOOD),
        documents.zip_with_huge_member(GOOD),
        documents.tar_with_huge_member(GOOD),
        documents.partly_encrypted(documents.zipped({**GOOD, "bad.txt": b"secret words"}), "bad.txt"),
    ],
)
def test_a_member_that_cannot_be_read_costs_only_itself(real: Router, content: bytes) -> None:
    routed = real.convert("a.bin", content, lambda engine: None)
    assert "first words" in routed.converted.markdown
    assert "last words" in routed.converted.markdown
    assert [warning.partition(":")[0] for warning in routed.warnings] == ["bad.txt"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (documents.zip_with_wrong_checksum({}), Kind.CORRUPT),
        (documents.lzma_zip(b"\xff" * 5), Kind.CORRUPT),
        (documents.zip_with_huge_member({}), Kind.TOO_LARGE),
        (documents.truncated(documents.tar({"a.txt": b"first words", "b.txt": bytes(90_000)})), Kind.CORRUPT),
        (documents.gzipped(b"words")[:-6] + bytes(6), Kind.CORRUPT),
    ],
)
def test_an_archive_of_which_nothing_can_be_read_is_an_error(real: Router, content: bytes, kind: Kind) -> None:
    with pytest.raises(EngineError) as failed:
        real.convert("a.bin", content, lambda engine: None)
    assert failed.value.kind is kind


@pytest.mark.parametrize("other", [{"tool.exe": b"MZ\x90\0\x03\0\0\0"}, {"a.txt": b" "}])
def test_an_archive_whose_text_is_encrypted_is_an_error(real: Router, other: dict[str, bytes]) -> None:
    content = documents.partly_encrypted(documents.zipped({"secret.txt": b"secret words", **other}), "secret.txt")
    with pytest.raises(EngineError) as failed:
        real.convert("a.zip", content, lambda engine: None)
    assert failed.value.kind is Kind.ENCRYPTED


def _tar_with_damaged_header() -> bytes:
    content = bytearray(documents.tar(GOOD))
    content[content.index(b"z.txt")] ^= 1  # which the checksum of the header no longer fits
    return bytes(content)


def _tar_cut_inside_a_header() -> bytes:
    content = documents.tar(GOOD)
    return content[: content.index(b"z.txt") + 300]


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (documents.tar(GOOD), True),
        (documents.tar(GOOD)[: 2048 + 512], True),
        (documents.tar(GOOD)[:2048], True),  # no block of zeros at the end
        (_tar_with_damaged_header(), False),
        (_tar_cut_inside_a_header(), False),
        (documents.tar({"a.txt": b"first words"}) + documents.tar({"z.txt": b"last words"}), False),
    ],
)
def test_what_is_missing_at_the_end_of_a_tar_is_told(real: Router, content: bytes, whole: bool) -> None:
    routed = real.convert("a.tar", content, lambda engine: None)
    assert "first words" in routed.converted.markdown
    assert ("last words" in routed.converted.markdown) == whole
    assert [warning.partition(":")[0] for warning in routed.warnings] == ([] if whole else ["after a.txt"])


def test_a_damaged_tar_of_nothing_readable_is_an_error(real: Router) -> None:
    content = documents.tar({"tool.exe": b"MZ\x90\0\x03\0\0\0"})[:1024] + b"garbage"
    with pytest.raises(EngineError) as failed:
        real.convert("a.tar", content, lambda engine: None)
    assert failed.value.kind is Kind.CORRUPT


def test_a_member_of_a_tar_that_is_of_an_unknown_type_is_read(real: Router) -> None:
    content = documents.tar({"a.txt": b"first words"}, kinds={"a.txt": b"M"})
    assert "first words" in real.convert("a.tar", content, lambda engine: None).converted.markdown


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_what_holds_nothing_of_its_own_is_passed_over(real: Router, kind: bytes) -> None:
    content = documents.tar({"other": b"", **GOOD}, kinds={"other": kind})
    routed = real.convert("a.tar", content, lambda engine: None)
    assert "last words" in routed.converted.markdown
    assert routed.warnings == ()


def test_a_member_without_a_name_is_converted(real: Router) -> None:
    content = documents.zip_with_nameless_member({"a.txt": "first"})
    assert real.convert("a.zip", content, lambda engine: None).converted.markdown.split()[-1] == "first"


@pytest.mark.parametrize("pack", [documents.zipped, documents.tar])
def test_names_of_members_cannot_forge_lines_nor_command_a_terminal(
    real: Router, pack: Callable[[Mapping[str, bytes]], bytes]
) -> None:
    content = pack({"a\x1b[31m\n# forged.txt": b"words", "b\x1b[0m\r\nforged: line.exe": b"MZ\x90\0\x03\0\0\0"})
    routed = real.convert("a.bin", content, lambda engine: None)
    assert routed.converted.markdown.split("\n")[0] == "## a [31m # forged.txt"
    assert routed.warnings
    assert all(warning.isprintable() for warning in routed.warnings)


def test_archives_nested_too_deep_are_not_opened(real: Router) -> None:
    content = documents.zipped({"a.txt": "words at the bottom"})
    for _ in range(6):
        content = documents.zipped({"a.zip": content})
    routed = real.convert("a.zip", content, lambda engine: None)
    assert "words at the bottom" not in routed.converted.markdown
    assert any("nested" in warning for warning in routed.warnings)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tar", documents.tar({"a.txt": b"packed words"})),
        ("a.tar.gz", documents.gzipped(documents.tar({"a.txt": b"packed words"}))),
        ("a.txt.gz", documents.gzipped(b"packed words")),
        ("a.mbox", documents.mbox(["packed words", "other words"])),
    ],
)
def test_other_archives_and_mailboxes(real: Router, name: str, content: bytes) -> None:
    assert "packed words" in real.convert(name, content, lambda engine: None).converted.markdown


@pytest.mark.parametrize("field", [b"X400-Received: by a", b"X_Spam: no", b"Subject: One"])
@pytest.mark.parametrize("place", [0, 1])
def test_no_message_of_a_mailbox_is_lost_for_its_first_field(real: Router, field: bytes, place: int) -> None:
    start = b"From ann@example.com Mon Jan  1 10:00:00 2024\n"
    messages = [b"From: a@example.com\nTo: b@example.com\n\nwords %d\n\n" % number for number in range(2)]
    messages[place] = field + b"\n" + messages[place]
    routed = real.convert("a.mbox", b"".join(start + message for message in messages), lambda engine: None)
    assert all(f"words {number}" in routed.converted.markdown for number in range(2))
    assert routed.converted.markdown.count("## Message") == 2


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.rst", "Grüße\n=====\n\nVon Müller aus Köln.\n"),
        ("a.org", "* Grüße\n\nVon Müller aus Köln.\n"),
        ("a.bib", "@book{a,\n  author = {Müller, Jörg},\n  title = {Grüße aus Köln},\n  year = {2001}\n}\n"),
        ("a.ris", "TY  - BOOK\nAU  - Müller, Jörg\nTI  - Grüße aus Köln\nER  - \n"),
    ],
)
def test_markup_in_old_encodings_keeps_its_letters(real: Router, name: str, text: str, encoding: str) -> None:
    markdown = real.convert(name, text.encode(encoding), lambda engine: None).converted.markdown
    assert "Müller" in markdown
    assert "Grüße" in markdown
    assert "\ufffd" not in markdown


def test_a_mail_is_converted_with_its_attachments_once(real: Router) -> None:
    content = documents.eml("mail words", subject="Minutes", attachments={"note.txt": b"attached words"})
    routed = real.convert("a.eml", content, lambda engine: None)
    assert routed.converted.title == "Minutes"
    assert "mail words" in routed.converted.markdown
    assert routed.converted.markdown.count("attached words") == 1


@pytest.mark.parametrize("members", [{"a.txt": "first words\n"}, {"a.txt": "first words\n", "b.log": "other words\n"}])
def test_the_texts_in_a_7z_are_there_once(real: Router, members: dict[str, str]) -> None:
    routed = real.convert("a.7z", documents.sevenz(members), lambda engine: None)
    assert routed.warnings == ()
    for name, text in members.items():
        assert routed.converted.markdown.count(f"## {name}\n\n{text.strip()}") == 1
        assert routed.converted.markdown.count(text.strip()) == 1


def test_the_members_of_a_7z_stand_in_the_same_order_each_time(real: Router) -> None:
    names = [f"{letter}.txt" for letter in "hcafbegd"]
    content = documents.sevenz({name: f"words of {name}\n" for name in names})
    markdown = real.convert("a.7z", content, lambda engine: None).converted.markdown
    assert re.findall(r"^## (\S+)$", markdown, re.MULTILINE) == sorted(names)


def offer() -> EmailMessage:
    """A mail that holds what a mail can: headers, two forms of its text, a table and an archive."""
    mail = EmailMessage()
    mail["Subject"] = "Offer"
    mail["From"] = "ann@example.com"
    mail.set_content("plain")
    mail.add_alternative("<p>We accept the price of 900 euros.</p>", subtype="html")
    mail.add_attachment(b"article,price\nscrew,17\n", maintype="text", subtype="csv", filename="c.csv")
    archive = documents.zipped({"z.docx": documents.docx("packed words")})
    mail.add_attachment(archive, maintype="application", subtype="zip", filename="z.zip")
    return mail


def test_an_attached_mail_with_attachments_keeps_its_own_text(real: Router) -> None:
    outer = EmailMessage()
    outer["Subject"] = "Forwarded"
    outer["From"] = "bob@example.com"
    outer.set_content("outer words")
    outer.add_attachment(offer())
    markdown = real.convert("a.eml", bytes(outer), lambda engine: None).converted.markdown
    for text in ("outer words", "**Subject**: Offer", "900 euros", "screw,17", "packed words"):
        assert markdown.count(text) == 1, text
    packed = real.convert("a.7z", documents.sevenz({"a.eml": bytes(offer())}), lambda engine: None).converted.markdown
    for text in ("## a.eml\n", "**Subject**: Offer", "900 euros", "screw,17", "packed words"):
        assert packed.count(text) == 1, text


def test_attachments_that_are_not_read_are_told(real: Router) -> None:
    attachments = {
        "broken.docx": documents.truncated(documents.docx("words")),
        "tool.exe": b"MZ\x90\0\x03\0\0\0",
        "scan.pdf": documents.scanned_pdf(["scanned words"]),
        "note.txt": b"attached words",
    }
    routed = real.convert("a.eml", documents.eml("mail words", attachments=attachments), lambda engine: None)
    assert "attached words" in routed.converted.markdown
    for name in ("broken.docx", "tool.exe", "scan.pdf"):
        assert any(name in warning for warning in routed.warnings), routed.warnings
    assert not any("note.txt" in warning for warning in routed.warnings)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.pptx",
            documents.without(documents.pptx(["first words", "second words"]), "ppt/slides/slide2.xml"),
            "slide 2",
        ),
        ("a.epub", documents.without(documents.epub(["first words", "second words"]), "chapter2.xhtml"), "chapter2"),
        ("a.xlsx", documents.sparse_xlsx([f"first words {row}" for row in range(1100)]), "truncated to 1000"),
    ],
)
def test_parts_of_a_document_that_are_left_out_are_told(real: Router, name: str, content: bytes, says: str) -> None:
    routed = real.convert(name, content, lambda engine: None)
    assert "first words" in routed.converted.markdown
    assert [says in warning for warning in routed.warnings] == [True]


@pytest.mark.parametrize(
    ("name", "bomb"),
    [
        ("a.svg", documents.entity_bomb_svg),
        ("a.html", documents.entity_bomb_html),
        ("a.xml", documents.entity_bomb_xml),
        ("a.docx", documents.entity_bomb_docx),
        ("a.docx", partial(documents.zip_bomb_docx, 400)),
        ("a.docx", partial(documents.lying_zip_bomb_docx, 300)),
        ("a.zip", lambda: documents.zipped({"zeros.txt": bytes(300 << 20)})),
        ("a.gz", lambda: documents.gzipped(bytes(300 << 20))),
    ],
)
def test_bombs_end_in_an_error_or_in_little_output(real: Router, name: str, bomb: Callable[[], bytes]) -> None:
    try:
        routed = real.convert(name, bomb(), lambda engine: None)
    except EngineError as error:
        assert error.kind in (Kind.CORRUPT, Kind.TOO_LARGE)
    else:
        assert len(routed.converted.markdown) < 100_000


def test_an_image_of_too_many_pixels_is_too_large(real: Router) -> None:
    with pytest.raises(EngineError) as refused:
        real.convert("a.png", documents.huge_png(), lambda engine: None)
    assert refused.value.kind is Kind.TOO_LARGE


def test_a_page_nested_deeper_than_engines_look_is_not_said_to_hold_no_text(real: Router) -> None:
    routed = real.convert("a.html", documents.deep_html("words at the bottom"), lambda engine: None)
    assert "words at the bottom" in routed.converted.markdown or "nested too deep" in routed.warnings[0]
    started = documents.html("words at the top") + documents.deep_html("words at the bottom")
    routed = real.convert("a.html", started, lambda engine: None)
    assert "words at the top" in routed.converted.markdown
    assert "words at the bottom" in routed.converted.markdown or "nested too deep" in routed.warnings[0]
    small = real.convert("a.html", b"<!doctype html><p> </p>", lambda engine: None)
    assert small.warnings == ("The document holds no text.",)


def test_no_link_to_an_image_is_left_where_no_image_is(real: Router) -> None:
    page = documents.html('<img alt="a chart" src="data:image/png;base64,AAAABBBB"> words')
    markdown = real.convert("a.html", page, lambda engine: None).converted.markdown
    assert "base64" not in markdown
    assert "words" in markdown


# ---------------------------------------------------------------- language data


def test_languages_of_this_environment() -> None:
    assert "eng" in tessdata.available_languages(None)
    assert "osd" not in tessdata.available_languages(None)
    assert tessdata.tessdata_dir_for(("eng",), None) == os.path.join(sysconfig.get_path("data"), "share", "tessdata")


def test_a_language_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "deu.traineddata").touch()
    assert tessdata.available_languages(str(tmp_path)) == {"deu"}
    assert tessdata.tessdata_dir_for(("deu",), str(tmp_path)) == str(tmp_path)
    with pytest.raises(LookupError, match="eng, fra"):
        tessdata.tessdata_dir_for(("fra", "deu", "eng"), str(tmp_path))
    assert tessdata.available_languages(str(tmp_path / "gone")) == set()


def test_language_data_that_vanished_is_told_and_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as failed:
        router(tessdata_dir=str(tmp_path)).convert("a.png", documents.png(SENTENCE), lambda engine: None)
    assert failed.value.kind is Kind.INTERNAL
    assert str(tmp_path) in failed.value.message


def test_ocr_without_orientation_data_reads_upright_pages(tmp_path: Path) -> None:
    (tmp_path / "eng.traineddata").symlink_to(os.path.join(tessdata.packaged_dir(), "eng.traineddata"))
    plain = router(tessdata_dir=str(tmp_path))
    assert "quick brown fox" in plain.convert("a.png", documents.png(SENTENCE), lambda engine: None).converted.markdown


# ---------------------------------------------------------------- Markdown


def test_a_page_of_empty_fences_holds_no_text() -> None:
    assert not holds_text("```text\n\n```\n\n-----\n\n```\n```\n")
    assert holds_text("```text\nx\n```")
    assert without_empty_fences("a\n\n```text\n\n```\nb") == "a\n\nb"


def test_a_fence_is_longer_than_those_inside() -> None:
    assert fenced("a\n````\nb\n", "py") == "`````py\na\n````\nb\n`````\n"


def test_images_that_nobody_described_are_left_out() -> None:
    described = "![A chart of sales](media/image1.png)\n"
    remote = "![](https://example.com/x.png)\n"
    assert without_anonymous_images(f"a\n\n![Picture 3](media/image1.png)\n\n![](x)\n{described}{remote}") == (
        f"a\n\n\n{described}{remote}"
    )


@pytest.mark.parametrize(
    ("markdown", "title"),
    [
        ("words\n\n## The **main** [thing](http://x) \\# 1 ##\n", "The main thing # 1"),
        ("```\n# comment\n```\n# Real", "Real"),
        ("#hashtag\n", None),
        ("", None),
    ],
)
def test_the_first_heading(markdown: str, title: str | None) -> None:
    assert first_heading(markdown) == title


@pytest.mark.parametrize("made_up", ["Microsoft Word - x.doc", "untitled", "Slide 1", "report.pdf", " ", "123", None])
def test_titles_made_up_by_programs_are_none(made_up: str | None) -> None:
    assert metadata_title(made_up) is None
    assert metadata_title("  A real\n title ") == "A real title"
