"""What an engine is: the contract every file in this package fulfils. Runs inside the converter child only.

An engine turns the bytes of one document into Markdown. It may use any amount of time and memory (the parent
kills the child at its limits), may crash, and never touches the network or any file: the sandbox refuses both.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from daemon.errors import Kind


@dataclass(frozen=True)
class Document:
    """The document in the child: `data` is mapped read-only, never copied unless an engine asks for `content`.

    `name` is the file name, of which only the extension means anything. `kind` and `media_type` are what detection
    found. `pages` are the pages wanted, counted from 1; empty means all. `nested` converts a document found inside
    this one (a member of an archive) by the same rules; it raises `EngineError`.
    """

    name: str
    data: mmap.mmap | bytes
    kind: str
    media_type: str = ""
    pages: tuple[int, ...] = ()
    nested: Callable[[str, bytes], Converted] | None = None

    @cached_property
    def content(self) -> bytes:
        """The document as `bytes`, copied once, for engines that take nothing else."""
        return bytes(self.data)


@dataclass(frozen=True)
class Options:
    """What the configuration tells the engines. `tessdata_dir` holds the data of all `ocr_languages`."""

    ocr_mode: str = "auto"
    ocr_languages: tuple[str, ...] = ("eng",)
    tessdata_dir: str = ""
    engines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Converted:
    """What an engine returns. An empty `markdown` (after strip) makes the next engine of the route try.

    `pages` is how many the document has. Engines that see pages also give each one's Markdown in `page_markdown`
    (of the wanted pages, in order), and those that show something but hold no text in `scanned_pages`, counted
    from 1, so that these can be read by OCR.
    """

    markdown: str
    pages: int | None = None
    title: str | None = None
    warnings: tuple[str, ...] = ()
    page_markdown: tuple[str, ...] = ()
    scanned_pages: tuple[int, ...] = ()


class EngineError(Exception):
    """The engine could not convert the document; the next engine of the route is tried.

    When none is left the first error that says something definite (`encrypted` before `corrupt`) is the job's.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Engine(Protocol):
    """One conversion library. Constructed once in a child, before the sandbox closes; used by one thread."""

    name: str

    def version(self) -> str:
        """The library's version, as it goes into the sidecar."""
        ...

    def convert(self, document: Document, options: Options) -> Converted:
        """Convert, or raise `EngineError`. Any other exception counts as `EngineError(CORRUPT)`."""
        ...
