"""What the engines for PDF share: PDFium tells the title, why a PDF does not open, and whether a page is blank."""

from __future__ import annotations

import pypdfium2
from pypdfium2 import raw

from daemon.converters.base import EngineError
from daemon.converters.markdown import metadata_title
from daemon.errors import Kind

OUTLINE_PATHS = 20  # a page without text that draws more shapes than this may hold text as outlines


def title(pdf: pypdfium2.PdfDocument) -> str | None:
    """The title from the document's metadata, if it is one."""
    return metadata_title(pdf.get_metadata_value("Title"))


def shows_something(pdf: pypdfium2.PdfDocument, number: int) -> bool:
    """Whether a page, counted from 1, shows an image, text or shapes enough to be worth reading by OCR."""
    paths = 0
    for item in pdf[number - 1].get_objects(max_depth=3):
        paths += item.type in (raw.FPDF_PAGEOBJ_PATH, raw.FPDF_PAGEOBJ_SHADING)
        if item.type in (raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_TEXT) or paths > OUTLINE_PATHS:
            return True
    return False


def translated(error: pypdfium2.PdfiumError) -> EngineError:
    """PDFium's error in convertd's terms."""
    if getattr(error, "err_code", None) == raw.FPDF_ERR_PASSWORD:
        return EngineError(Kind.ENCRYPTED, "The PDF is protected by a password.")
    return EngineError(Kind.CORRUPT, f"The PDF cannot be read: {error}")
