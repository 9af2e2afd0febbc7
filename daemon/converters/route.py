"""Finds the kind of a document and tries the engines of its route until one returns text. Runs in the child."""

from __future__ import annotations

import importlib
import mmap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from daemon.converters import REGISTRY, ROUTES
from daemon.converters.base import Converted, Document, Engine, EngineError, Options
from daemon.converters.detect import Detected, detect
from daemon.converters.markdown import first_heading, holds_text, metadata_title
from daemon.errors import Kind

NESTING_LIMIT = 3
UNTITLED = frozenset({"zip", "tar", "gzip", "7z", "mbox", "xml", "svg"})  # their first heading is no title
ILLUSTRATED = frozenset({"docx", "pptx", "odf", "epub", "rtf"})  # may hold images and nothing else
NESTED_PAGE_BYTES = 3 << 10  # the least that it takes to nest HTML deeper than the engines look, 1000 elements
PAGE_BREAK = "\n\n"
NO_TEXT_IN_MARKUP = "No text was found. The page may be nested too deep, or its text may be made by scripts."
DEFINITE = (Kind.ENCRYPTED, Kind.TOO_LARGE, Kind.OUT_OF_MEMORY, Kind.CORRUPT)
"""Errors in the order of how much they tell; what is not named tells less than all of these."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Routed:
    """A converted document and what it was. `engine` made the text, or most of it."""

    converted: Converted
    kind: str
    media_type: str
    engine: str
    engine_version: str
    warnings: tuple[str, ...] = ()


class Router:
    """Converts documents of any kind. Used by one thread; an engine that crashes takes the process with it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._engines: dict[str, Engine] = {}
        self._versions: dict[str, str] = {}  # asking a package for its version reads its metadata from disk

    def warm(self) -> None:
        """Load the engines that come first in a route, and have them read their libraries and data.

        To be called while the process may still read what it likes. Raises whatever a broken engine raises.
        """
        for kind in ROUTES:
            self._engine(self._order(kind)[0])
        for kind, sample in SAMPLES.items():
            try:
                self.convert(f"sample.{kind}", sample, _unwatched)
            except EngineError:
                pass  # an engine of the configuration need not like the sample

    def convert(self, name: str, data: mmap.mmap | bytes, progress: Progress) -> Routed:
        """Convert; `name` is the file's, `progress` is called with the name of each engine before it starts.

        A document without any text is not an error: its Markdown is empty and a warning says so. Raises
        `EngineError`.
        """
        return self._convert(name, data, progress, NESTING_LIMIT)

    def _convert(self, name: str, data: mmap.mmap | bytes, progress: Progress, depth: int) -> Routed:
        detected = detect(name, data)
        document = Document(
            name,
            data[detected.offset :] if detected.offset else data,
            detected.kind,
            detected.media_type,
            nested=partial(self._nested, progress=progress, depth=depth - 1),
        )
        if detected.kind == "pdf":
            routed = self._pdf(document, detected, progress)
        elif detected.kind == "image" and self._options.ocr_mode == "off":
            unread = Converted("", warnings=("OCR is switched off: the image was not read.",))
            routed = self._routed(unread, detected, self._order("image")[0])
        else:
            routed = self._first_with_text(document, detected, progress)
            if detected.kind in ILLUSTRATED and not routed.converted.markdown and self._options.ocr_mode != "off":
                routed = self._pictures(routed, document, detected, progress)
        return _finished(routed, detected, len(data))

    def _nested(self, name: str, content: bytes, progress: Progress, depth: int) -> Converted:
        if depth <= 0:
            raise EngineError(Kind.TOO_LARGE, f"Archives are nested more than {NESTING_LIMIT} deep.")
        routed = self._convert(name, content, progress, depth)
        return replace(routed.converted, warnings=routed.warnings)

    def _first_with_text(self, document: Document, detected: Detected, progress: Progress) -> Routed:
        """Try the engines in order. One that returns nothing is believed only if no later one finds text."""
        errors: list[EngineError] = []
        blank: Routed | None = None
        for name in self._order(document.kind):
            try:
                routed = self._run(name, document, detected, progress)
            except EngineError as error:
                errors.append(error)
                continue
            if holds_text(routed.converted.markdown) or routed.converted.scanned_pages:
                return routed
            # Only an engine before which none failed: else what failed may hold the text.
            blank = blank or (None if errors else replace(routed, converted=replace(routed.converted, markdown="")))
        if blank is None or any(error.kind is Kind.ENCRYPTED for error in errors):
            raise _most_definite(errors)
        return blank

    def _pdf(self, document: Document, detected: Detected, progress: Progress) -> Routed:
        if self._options.ocr_mode == "always":
            return self._scan(document, detected, progress)
        routed = self._first_with_text(document, detected, progress)
        scanned = routed.converted.scanned_pages
        if not scanned or self._options.ocr_mode == "off":
            return routed
        if len(scanned) == len(routed.converted.page_markdown):
            ocr = self._scan(document, detected, progress)
            return ocr if holds_text(ocr.converted.markdown) else routed
        return self._filled(routed, document, detected, progress)

    def _scan(self, document: Document, detected: Detected, progress: Progress) -> Routed:
        """OCR of a whole PDF, through the route of images."""
        return self._first_with_text(replace(document, kind="image"), detected, progress)

    def _pictures(self, blank: Routed, document: Document, detected: Detected, progress: Progress) -> Routed:
        """OCR of the images in a document that holds nothing else, such as a scan pasted into a letter."""
        try:
            ocr = self._scan(document, detected, progress)
        except EngineError as error:
            return _warned(blank, f"The document holds no text, and OCR of its images failed: {error.message}")
        return ocr if holds_text(ocr.converted.markdown) else _warned(blank, *ocr.warnings)

    def _filled(self, routed: Routed, document: Document, detected: Detected, progress: Progress) -> Routed:
        """The text of `routed` with the pages that are scans filled in by OCR. A failure there costs only them."""
        scanned = routed.converted.scanned_pages
        try:
            ocr = self._scan(replace(document, pages=scanned), detected, progress)
        except EngineError as error:
            return _warned(routed, f"{_pages(scanned)} are images, and OCR failed: {error.message}")
        texts = list(routed.converted.page_markdown)
        for number, text in zip(scanned, ocr.converted.page_markdown, strict=False):
            if text.strip():
                texts[number - 1] = text
        markdown = PAGE_BREAK.join(text.strip() for text in texts if text.strip())
        merged = replace(routed, converted=replace(routed.converted, markdown=markdown))
        return _warned(merged, f"{_pages(scanned)}: read by OCR ({ocr.engine}).", *ocr.warnings)

    def _run(self, name: str, document: Document, detected: Detected, progress: Progress) -> Routed:
        """One engine; whatever it raises becomes an `EngineError`."""
        engine = self._engine(name)
        progress(name)
        try:
            converted = engine.convert(document, self._options)
        except EngineError:
            raise
        except MemoryError as error:
            raise EngineError(Kind.OUT_OF_MEMORY, "The document needs more memory than a converter may use.") from error
        except Exception as error:
            raise EngineError(Kind.CORRUPT, f"{name} failed on the document: {error}") from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # an engine in Rust gave up; it derives from BaseException
                raise
            raise EngineError(Kind.CORRUPT, f"{name} failed on the document.") from error
        return self._routed(converted, detected, name)

    def _routed(self, converted: Converted, detected: Detected, name: str) -> Routed:
        engine = self._engine(name)
        version = self._versions[name]
        return Routed(converted, detected.kind, detected.media_type, engine.name, version, converted.warnings)

    def _order(self, kind: str) -> tuple[str, ...]:
        return self._options.engines.get(kind) or ROUTES[kind]

    def _engine(self, name: str) -> Engine:
        if name not in self._engines:
            module, _, attribute = REGISTRY.get(name, name).partition(":")
            engine: Engine = getattr(importlib.import_module(module), attribute)()
            self._engines[name] = engine
            self._versions[name] = engine.version()
        return self._engines[name]


def _finished(routed: Routed, detected: Detected, size_bytes: int) -> Routed:
    converted = routed.converted
    markdown = converted.markdown if converted.markdown.strip() else ""
    warnings = [detected.warning] if detected.warning else []
    warnings += routed.warnings
    if not markdown and not warnings:
        nested = detected.kind == "html" and size_bytes >= NESTED_PAGE_BYTES
        warnings.append(NO_TEXT_IN_MARKUP if nested else "The document holds no text.")
    title = converted.title
    if title is None and detected.kind not in UNTITLED:
        title = metadata_title(first_heading(markdown))
    return replace(routed, converted=replace(converted, markdown=markdown, title=title), warnings=tuple(warnings))


def _warned(routed: Routed, *warnings: str) -> Routed:
    return replace(routed, warnings=(*routed.warnings, *warnings))


def _most_definite(errors: list[EngineError]) -> EngineError:
    ranks = {kind: rank for rank, kind in enumerate(DEFINITE)}
    return min(errors, key=lambda error: ranks.get(error.kind, len(ranks)))


def _pages(numbers: Iterable[int]) -> str:
    listed = [str(number) for number in numbers]
    shown = ", ".join(listed[:20]) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")
    return f"{'Page' if len(listed) == 1 else 'Pages'} {shown}"


def _unwatched(engine: str) -> None:
    """Nobody wants to know."""


SAMPLES = {
    "pdf": b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R/Resources<</Font<</F<</Type/Font"
    b"/Subtype/Type1/BaseFont/Helvetica>>>>>>>>endobj\n4 0 obj<</Length 37>>stream\nBT/F 9 Tf 9 50 Td(warming up)Tj ET"
    b"\nendstream endobj\ntrailer<</Root 1 0 R>>",
    "csv": b"warming,up\n1,2\n",
    "html": b"<!doctype html><p>warming up</p>",
    "txt": b"warming up \xe4\xf6\xfc",
}
"""Tiny documents that make the engines load what they load late."""
