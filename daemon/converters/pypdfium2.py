"""The plain text of a PDF, by PDFium: the last resort, it reads what nothing else does."""

from __future__ import annotations

from importlib.metadata import version

import pypdfium2 as library

from daemon.converters import pdfium
from daemon.converters.base import Converted, Document, Options


class Pypdfium2:
    name = "pypdfium2"

    def version(self) -> str:
        return version("pypdfium2")

    def convert(self, document: Document, options: Options) -> Converted:
        try:
            with library.PdfDocument(document.content) as pdf:
                numbers = document.pages or tuple(range(1, len(pdf) + 1))
                pages = tuple(_text(pdf, number) for number in numbers)
                scanned = tuple(
                    number
                    for number, text in zip(numbers, pages, strict=True)
                    if not text and pdfium.shows_something(pdf, number)
                )
                title, total = pdfium.title(pdf), len(pdf)
        except library.PdfiumError as error:
            raise pdfium.translated(error) from error
        return Converted(
            "\n\n".join(text for text in pages if text),
            pages=total,
            title=title,
            page_markdown=pages,
            scanned_pages=scanned,
        )


def _text(pdf: library.PdfDocument, number: int) -> str:
    """The text of a page, nothing for a page that cannot be loaded: the others count."""
    try:
        text: str = pdf[number - 1].get_textpage().get_text_bounded()
    except library.PdfiumError:
        return ""
    return text.replace("\r\n", "\n").replace("\0", "").strip()
