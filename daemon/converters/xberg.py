"""Office documents, books, mails, tables, markup and what else xberg reads. Its OCR is in `xberg_ocr`."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import xberg as library

from daemon.converters.base import Converted, Document, EngineError, Options
from daemon.converters.charset import decode
from daemon.converters.markdown import holds_text, metadata_title, one_line, without_anonymous_images
from daemon.errors import Kind

# Ordinary workbooks compress by 1000 and more; what a container unpacks to is limited before an engine sees it.
LIMITS = library.SecurityLimits(
    max_compression_ratio=2000,
    max_archive_size=2 << 30,
    max_content_size=512 << 20,
    max_table_cells=5_000_000,
)
EMBEDDED_LIMIT_BYTES = 256 << 20  # an attachment of a mail, as long as a member of an archive may be
SINGLE_THREADED = library.ConcurrencyConfig(max_threads=1, max_concurrent_ocr=1)
PAGED_KINDS = frozenset({"docx", "pptx", "xlsx", "doc", "ppt", "xls", "odf", "iwork", "pdf"})
ILLUSTRATED_KINDS = PAGED_KINDS | {"epub", "rtf", "hwp", "wordperfect"}
MAILS = frozenset({"eml", "msg"})
CONTAINERS = MAILS | {"pst", "7z"}
NO_TEXT = "No text was found in it; images and scans in here are not read by OCR."
HARMLESS = frozenset({"exif"})
"""Sources of warnings that are not about text: almost no image has EXIF data."""
ERROR_KINDS = (
    ("UnsupportedFormat", Kind.UNSUPPORTED_FORMAT),
    ("Security", Kind.TOO_LARGE),
    ("MissingDependency", Kind.UNSUPPORTED_FORMAT),
)


class Extraction:
    """Runs xberg, which is asynchronous only, from synchronous code. The loop lives as long as the engine."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        weakref.finalize(self, self._loop.close)

    def run(self, document: Document, config: Any) -> Any:
        """The one `ExtractedDocument`. Raises `EngineError`."""
        source = library.ExtractInput(
            kind="bytes",
            bytes=document.content,
            filename=document.name,
            mime_type=document.media_type or None,
        )
        try:
            result = self._loop.run_until_complete(library.extract(source, config))
        except (library.XbergError, RuntimeError, ValueError) as error:
            raise translated(type(error).__name__, str(error)) from error
        if not result.results:
            first = result.errors[0] if result.errors else None
            raise translated(getattr(first, "error_type", ""), getattr(first, "message", "no result"))
        return result.results[0]


def translated(error_type: str, message: str) -> EngineError:
    """xberg's error in convertd's terms."""
    lowered = message.lower()
    if "password" in lowered or "encrypt" in lowered:
        return EngineError(Kind.ENCRYPTED, "The document is protected by a password.")
    if "invalid zip" in lowered or "failed to read zip" in lowered:  # which it counts among its limits
        return EngineError(Kind.CORRUPT, f"The container is damaged: {message}")
    if "security limit" in lowered or "security_limits" in lowered:
        return EngineError(Kind.TOO_LARGE, f"The document was refused: {message}")
    squeezed = error_type.replace("_", "").lower()
    for name, kind in ERROR_KINDS:
        if squeezed.startswith(name.lower()):
            return EngineError(kind, f"The document was refused: {message}")
    return EngineError(Kind.CORRUPT, f"The document cannot be read: {message}")


def configuration(**changes: Any) -> Any:
    """xberg's configuration for a process that has no cache folder, no network and one thread."""
    return library.ExtractionConfig(
        use_cache=False,
        output_format="markdown",
        security_limits=LIMITS,
        concurrency=SINGLE_THREADED,
        extraction_timeout_secs=None,
        max_embedded_file_bytes=EMBEDDED_LIMIT_BYTES,
        **changes,
    )


class Xberg:
    name = "xberg"

    def __init__(self) -> None:
        self._extraction = Extraction()
        self._config = configuration(disable_ocr=True)

    def version(self) -> str:
        return version("xberg")

    def convert(self, document: Document, options: Options) -> Converted:
        extracted = self._extraction.run(_in_utf8(document), self._config)
        # An archive's own content is a listing; that of a mail or a report stands before what is embedded in it.
        own = [] if document.kind == "7z" else [extracted.content]
        markdown = "\n\n".join([*own, *_embedded(extracted, "".join(own))])
        if document.kind in ILLUSTRATED_KINDS:
            markdown = without_anonymous_images(markdown)
        warnings = losses(extracted)
        if document.kind in CONTAINERS:
            warnings += tuple(_blank_members(extracted.children or [], ""))
        return Converted(
            markdown,
            pages=(extracted.counts.pages or None) if document.kind in PAGED_KINDS else None,
            title=metadata_title(extracted.metadata.title)
            or (metadata_title(extracted.metadata.subject) if document.kind in MAILS else None),
            warnings=warnings,
        )


def _in_utf8(document: Document) -> Document:
    """Markup as xberg takes it, which looks for no other encoding."""
    return replace(document, data=decode(document.data).encode()) if document.kind == "markup" else document


def losses(extracted: Any) -> tuple[str, ...]:
    """What xberg says that it left out: rows above its limits, parts that it cannot read, large attachments."""
    return tuple(dict.fromkeys(_losses(extracted, "")))


def _losses(extracted: Any, path: str) -> Iterator[str]:
    for warning in extracted.processing_warnings:
        if warning.source not in HARMLESS:
            yield one_line(f"{path}{warning.message}")
    for child in extracted.children or []:
        yield from _losses(child.result, f"{path}{child.path}: ")


def _blank_members(entries: Iterable[Any], path: str) -> Iterator[str]:
    """The files in a mail or an archive, at any depth, in which nothing was found."""
    for entry in entries:
        nested = entry.result.children or []
        if not nested and not holds_text(without_anonymous_images(entry.result.content)):
            yield one_line(f"{path}{entry.path}: {NO_TEXT}")
        yield from _blank_members(nested, f"{path}{entry.path}/")


def _embedded(extracted: Any, kept: str, path: str = "") -> Iterator[str]:
    """What is embedded in a document, at any depth, each under its path.

    `kept` is the document's own text. Some formats, mails among them, have in it what is embedded, too; that is not
    repeated.
    """
    entries = extracted.children or []
    if _is_archive(extracted):
        entries = sorted(entries, key=lambda entry: entry.path)  # they come in any order, each time in another
    for entry in entries:
        entry_path = f"{path}{entry.path}"
        is_listing = _is_archive(entry.result) and entry.result.children
        content = "" if is_listing else entry.result.content.strip()
        if content not in kept:
            yield f"## {one_line(entry_path)}\n\n{content}"
        yield from _embedded(entry.result, content, f"{entry_path}/")


def _is_archive(extracted: Any) -> bool:
    """Whether its content is a listing, which says no more than its members do."""
    kind = extracted.metadata.format
    return kind is not None and kind.archive is not None
