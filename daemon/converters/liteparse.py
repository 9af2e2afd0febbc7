"""PDF with text, by liteparse. OCR stays off: it would look for language data on the network."""

from __future__ import annotations

from importlib.metadata import version

import liteparse as library
import pypdfium2

from daemon.converters import pdfium
from daemon.converters.base import Converted, Document, EngineError, Options
from daemon.converters.markdown import without_empty_fences
from daemon.errors import Kind

PAGES_LIMIT = 2**31 - 1  # none: a PDF cannot hold more. Left out it would be 1,000, and the rest cut off without a word
STAMP_CHARACTERS = 100  # a scan may bear a text of this length: a page number, the scanner's stamp


class LiteParse:
    name = "liteparse"

    def __init__(self) -> None:
        self._parser = library.LiteParse(
            ocr_enabled=False,
            output_format="markdown",
            image_mode="off",  # else there are links to images that nobody gets
            max_pages=PAGES_LIMIT,
            include_complexity=True,
            num_workers=1,
            quiet=True,
        )

    def version(self) -> str:
        return version("liteparse")

    def convert(self, document: Document, options: Options) -> Converted:
        try:
            parsed = self._parser.parse(document.content)
        except library.ParseError as error:
            raise _translated(error) from error
        _refuse_missing_pages(parsed)
        pages = tuple(without_empty_fences(page.markdown).strip() for page in parsed.pages)
        textless = [page.page_num for page in parsed.pages if _is_textless(page)]
        title, scanned = _second_look(document.content, textless)
        return Converted(
            "\n\n".join(page for page in pages if page),
            pages=parsed.total_pages or len(pages),
            title=title,
            warnings=tuple(f"Page {error.page_num} could not be read: {error.message}" for error in parsed.page_errors),
            page_markdown=pages,
            scanned_pages=scanned,
        )


def _refuse_missing_pages(parsed: library.ParseResult) -> None:
    """Another engine may read what liteparse left out without saying why."""
    read = len(parsed.pages) + len(parsed.page_errors)
    if read < parsed.total_pages:
        raise EngineError(Kind.CORRUPT, f"Only {read:,} of the {parsed.total_pages:,} pages of the PDF could be read.")


def _is_textless(page: library.ParsedPage) -> bool:
    found = page.complexity
    characters = len(page.text.strip()) if found is None else found.text_length
    if characters == 0:
        return True
    return found is not None and found.full_page_image and characters < STAMP_CHARACTERS


def _second_look(content: bytes, textless: list[int]) -> tuple[str | None, tuple[int, ...]]:
    """What liteparse does not tell: the title, and which of the pages without text show something at all."""
    try:
        with pypdfium2.PdfDocument(content) as pdf:
            return pdfium.title(pdf), tuple(number for number in textless if pdfium.shows_something(pdf, number))
    except (pypdfium2.PdfiumError, IndexError):
        return None, ()


def _translated(error: Exception) -> EngineError:
    message = str(error)
    if "password" in message.lower() or "encrypt" in message.lower():
        return EngineError(Kind.ENCRYPTED, "The PDF is protected by a password.")
    return EngineError(Kind.CORRUPT, f"The PDF cannot be read: {message}")
