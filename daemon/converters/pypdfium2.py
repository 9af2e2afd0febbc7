"""The plain text of a PDF, by PDFium: the last resort, it reads what nothing else does."""

from __future__ import annotations

from importlib.metadata import version

import pypdfium2 as library

from daemon.converters import pdfium
from daemon.converters.base import Converted, Document, EngineError, Options
from daemon.errors import Kind


class Pypdfium2:
    name = "pypdfium2"

    def version(self) -> str:
        return version("pypdfium2")

    def convert(self, document: Document, options: Options) -> Converted:
        try:
            with library.PdfDocument(document.content) as pdf:
                numbers = document.pages or tuple(range(1, len(pdf) + 1))
                read = {number: _text(pdf, number) for number in numbers}
                scanned = tuple(
                    number for number, text in read.items() if text == "" and pdfium.shows_something(pdf, number)
                )
                title, total = pdfium.title(pdf), len(pdf)
        except library.PdfiumError as error:
            raise pdfium.translated(error) from error
        failed = [number for number, text in read.items() if text is None]
        if failed and len(failed) == len(read):
            raise EngineError(Kind.CORRUPT, "No page of the PDF can be read.")
        return Converted(
            "\n\n".join(text for text in read.values() if text),
            pages=total,
            title=title,
            warnings=tuple(f"Page {number} could not be read." for number in failed),
            page_markdown=tuple(text or "" for text in read.values()),
            scanned_pages=scanned,
        )


def _text(pdf: library.PdfDocument, number: int) -> str | None:
    """The text of a page, None for a page that cannot be loaded: the others count."""
    try:
        text: str = pdf[number - 1].get_textpage().get_text_bounded()
    except library.PdfiumError:
        return None
    return text.replace("\r\n", "\n").replace("\0", "").strip()
