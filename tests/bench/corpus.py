"""Documents to work on: those of a corpus of real ones, or made here, so that every benchmark can be run anywhere.

A corpus is a folder with a folder a set; scans are in the set `ocr`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests import documents
from tests.bench.measure import corpus_documents

SCANS = "ocr"
_WORDS = (
    "account agreement amount annual applies appendix because between board budget capital chapter clause committee "
    "company condition contract control council customer date delivery department director during effect employee "
    "estimate evidence example figure following general however income increase information interest invoice item "
    "letter level management market material meeting member method minutes month notice number office order "
    "paragraph party payment period person policy price procedure product project proposal provision public quarter "
    "quality rate receipt record reference report request result review revision rule sample schedule section "
    "service statement subject supplier supply system table term total under value within without work year"
)
VOCABULARY = _WORDS.split()


def originals(folder: Path, corpus: Path | None) -> list[Path]:
    """Documents that need no OCR: of the corpus, or made in `folder`."""
    return corpus_documents(corpus, without=(SCANS,)) if corpus else _made(folder, _texts)


def scans(folder: Path, corpus: Path | None) -> list[Path]:
    """Documents that need OCR."""
    return corpus_documents(corpus / SCANS) if corpus and (corpus / SCANS).is_dir() else _made(folder, _scanned)


def copies(found: list[Path], count: int, folder: Path) -> list[Path]:
    """So many documents under names of their own, those given in turn."""
    made = []
    for number in range(count):
        original = found[number % len(found)]
        copy = folder / f"{number:05}-{original.name}"
        shutil.copy(original, copy)
        made.append(copy)
    return made


def _made(folder: Path, make: Callable[[], Iterator[tuple[str, bytes]]]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in make():
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    return sorted(paths)


def _texts() -> Iterator[tuple[str, bytes]]:
    """About what an office keeps: most of it PDF and Word, pages by the dozen, the same in every run."""
    chance = random.Random(20260101)
    for number in range(24):
        pages = [_text(chance, 32) for _ in range(chance.choice((1, 2, 4, 8, 16, 32)))]
        yield f"report-{number:02}.pdf", documents.pdf(pages, title=f"Report {number}")
    for number in range(14):
        yield f"letter-{number:02}.docx", documents.docx(_text(chance, chance.choice((20, 80, 400))))
    for number in range(6):
        table = [[chance.choice(VOCABULARY), *(str(chance.randrange(10_000)) for _ in range(7))] for _ in range(200)]
        yield f"figures-{number:02}.xlsx", documents.xlsx(table)
        yield f"figures-{number:02}.csv", "\n".join(",".join(row) for row in table).encode()
    for number in range(4):
        yield f"talk-{number:02}.pptx", documents.pptx([_text(chance, 3) for _ in range(20)])
        yield f"mail-{number:02}.eml", documents.eml(_text(chance, 40), subject=f"Mail {number}")
        yield f"book-{number:02}.epub", documents.epub([_text(chance, 60) for _ in range(10)])
        yield f"note-{number:02}.rtf", documents.rtf(_text(chance, 60))
        yield f"text-{number:02}.odt", documents.odt(_text(chance, 60))
    for number in range(10):
        paragraphs = "</p><p>".join(_text(chance, 3) for _ in range(chance.choice((5, 50, 200))))
        yield f"page-{number:02}.html", documents.html(paragraphs, title=f"Page {number}")
    yield "analysis.ipynb", documents.ipynb([("markdown", _text(chance, 5)), ("code", json.dumps([1, 2, 3]))] * 10)


def _scanned() -> Iterator[tuple[str, bytes]]:
    chance = random.Random(20260102)
    for number in range(3):
        yield f"scan-{number}.pdf", documents.scanned_pdf([_text(chance, 12, words=6) for _ in range(2)])
        yield f"photo-{number}.png", documents.png(_text(chance, 12, words=6))


def _text(chance: random.Random, lines: int, words: int = 10) -> str:
    return "\n".join(" ".join(chance.choices(VOCABULARY, k=words)) + "." for _ in range(lines))


def small(folder: Path, count: int, per_folder: int = 1000) -> None:
    """So many files of a few bytes, a thousand to a folder."""
    for number in range(count):
        if number % per_folder == 0:
            place = folder / f"{number // per_folder:04}"
            place.mkdir(parents=True)
        fd = os.open(place / f"{number:07}.txt", os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, b"note %d" % number)
        os.close(fd)
