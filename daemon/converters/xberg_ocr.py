"""OCR by the Tesseract inside xberg: images, pages of a PDF and documents made of images only.

PDF pages are drawn by PDFium, one at a time: twice as fast as leaving that to xberg, and a page of any size makes
an image of bounded size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version

import pypdfium2
import xberg as library

from daemon.converters import pdfium, tessdata, tiff
from daemon.converters.base import Converted, Document, EngineError, Options
from daemon.converters.markdown import without_anonymous_images
from daemon.converters.xberg import Extraction, configuration, losses
from daemon.errors import Kind

SEGMENT = 3  # Tesseract's page segmentation mode: automatic
SEGMENT_AND_TURN = 1  # the same after finding out which way is up, from the `osd` data
RESOLUTION_DPI = 300
SIDE_LIMIT_PIXELS = 4096
UNSURE = 0.65  # mean confidence below which a page may lie on its head
FEW_WORDS = 25  # too few to tell by their shapes which way is up
VAIN_LIMIT = 3  # pages read twice for nothing, after which a document is taken to be upright and hard to read


@dataclass(frozen=True)
class Reading:
    """What OCR read, and what it could not. `confidence` is between 0 and 1."""

    text: str
    confidence: float
    words: int
    losses: tuple[str, ...] = ()

    def weight(self) -> float:
        """By which readings of the same page compare: text read upside down has few words, and doubtful ones."""
        return self.confidence * self.words


class XbergOcr:
    """Reads language data from the folder in the options, for each page; it keeps nothing of it."""

    name = "xberg-ocr"

    def __init__(self) -> None:
        self._extraction = Extraction()

    def version(self) -> str:
        return version("xberg")

    def convert(self, document: Document, options: Options) -> Converted:
        _refuse_missing_languages(options)
        if document.media_type == "application/pdf":
            return self._pages(document, options)
        if document.media_type == "image/tiff":
            return self._fax(document, options)
        reading = self._image(document, options)
        return Converted(reading.text, warnings=reading.losses)

    def _fax(self, document: Document, options: Options) -> Converted:
        offsets, trouble = tiff.page_offsets(document.content)
        pages = tiff.pages(document.content, offsets)
        readings = [self._image(replace(document, data=page), options) for page in pages]
        warnings = [warning for number, reading in enumerate(readings, 1) for warning in _losses(number, reading)]
        if trouble:
            warnings.append(f"Nothing after page {len(readings):,} was read: {trouble}.")
        texts = [reading.text for reading in readings]
        return Converted(_joined(texts), pages=len(texts), warnings=tuple(warnings))

    def _image(self, image: Document, options: Options) -> Reading:
        reading = self._read(image, options, SEGMENT)
        if reading.confidence < UNSURE and tessdata.knows_orientation(_folder(options)):
            reading = max(reading, self._read(image, options, SEGMENT_AND_TURN), key=Reading.weight)
        return reading

    def _pages(self, document: Document, options: Options) -> Converted:
        try:
            with pypdfium2.PdfDocument(document.content) as pdf:
                total = len(pdf)
                texts, warnings = self._texts(pdf, document.pages or tuple(range(1, total + 1)), options)
                title = pdfium.title(pdf)
        except pypdfium2.PdfiumError as error:
            raise pdfium.translated(error) from error
        return Converted(
            _joined(texts),
            pages=total,
            title=title,
            warnings=tuple(warnings),
            page_markdown=tuple(texts),
        )

    def _texts(
        self, pdf: pypdfium2.PdfDocument, numbers: tuple[int, ...], options: Options
    ) -> tuple[list[str], list[str]]:
        """The text of each page, and what could not be read. One bad page does not cost the others."""
        texts: list[str] = []
        warnings: list[str] = []
        failures: list[str] = []
        vain = 0
        for number in numbers:
            try:
                image = _drawn(pdf[number - 1], 0)
                reading = self._read(image, options, SEGMENT)
                if reading.confidence < UNSURE and vain < VAIN_LIMIT:
                    turned = self._turned(pdf[number - 1], image, reading, options)
                    vain += turned is reading
                    reading = turned
                texts.append(reading.text)
                warnings += _losses(number, reading)
            except (EngineError, pypdfium2.PdfiumError) as error:
                failures.append(str(error))
                warnings.append(f"Page {number} could not be read by OCR: {error}")
                texts.append("")
        if failures and len(failures) == len(numbers):
            raise EngineError(Kind.CORRUPT, f"No page could be read by OCR: {failures[0]}")
        return texts, warnings

    def _turned(self, page: pypdfium2.PdfPage, image: Document, reading: Reading, options: Options) -> Reading:
        """The best reading of a page that may lie on its side or its head."""
        readings = [reading]
        if tessdata.knows_orientation(_folder(options)):
            readings.append(self._read(image, options, SEGMENT_AND_TURN))
        if max(each.words for each in readings) < FEW_WORDS:
            readings.append(self._read(_drawn(page, 180), options, SEGMENT))
        return max(readings, key=Reading.weight)

    def _read(self, image: Document, options: Options, segmentation: int) -> Reading:
        languages = list(options.ocr_languages)
        ocr = library.OcrConfig(
            language=languages,
            tessdata_path=_folder(options),
            # xberg's own `auto_rotate` fetches a model from the network; Tesseract's way is `segmentation`.
            auto_rotate=False,
            tesseract_config=library.TesseractConfig(language=languages, psm=segmentation, use_cache=False),
        )
        config = configuration(
            ocr=ocr,
            force_ocr=True,
            ocr_embedded_images=True,
            images=library.ImageExtractionConfig(ocr_text_only=True),
            pages=library.PageConfig(extract_pages=True),
        )
        extracted = self._extraction.run(image, config)
        found = [page.ocr_confidence for page in extracted.pages or [] if page.ocr_confidence is not None]
        words = sum(confidence.word_count or 0 for confidence in found)
        doubt = sum((confidence.score or 0.0) * (confidence.word_count or 0) for confidence in found)
        text = without_anonymous_images(extracted.content)
        return Reading(text, doubt / words if words else 0.0, words, losses(extracted))


def _refuse_missing_languages(options: Options) -> None:
    """xberg would try to download what is not there."""
    try:
        tessdata.tessdata_dir_for(options.ocr_languages, options.tessdata_dir or None)
    except LookupError as error:
        raise EngineError(
            Kind.INTERNAL, f"The language data for OCR is gone from {_folder(options)}: {error.args[0]}."
        ) from error


def _losses(number: int, reading: Reading) -> list[str]:
    return [f"Page {number}: {loss}" for loss in reading.losses]


def _joined(pages: list[str]) -> str:
    return "\n\n".join(page.strip() for page in pages if page.strip())


def _folder(options: Options) -> str:
    return options.tessdata_dir or tessdata.packaged_dir()


def _drawn(page: pypdfium2.PdfPage, turned_degrees: int) -> Document:
    """The page as a grey image, in a format that needs no compression."""
    scale = min(RESOLUTION_DPI / 72, SIDE_LIMIT_PIXELS / max(1.0, *page.get_size()))
    bitmap = page.render(scale=scale, rotation=turned_degrees, grayscale=True)
    pixels = memoryview(bitmap.buffer)
    rows = (bytes(pixels[y * bitmap.stride :][: bitmap.width]) for y in range(bitmap.height))
    content = b"P5\n%d %d\n255\n" % (bitmap.width, bitmap.height) + b"".join(rows)
    return Document("page.pgm", content, "image", "image/x-portable-graymap")
