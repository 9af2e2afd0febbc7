"""Plain text, Markdown and program text: nothing to convert but the character encoding."""

from __future__ import annotations

import os
import platform

from daemon.converters.base import Converted, Document, Options
from daemon.converters.charset import decode
from daemon.converters.formats import LANGUAGES
from daemon.converters.markdown import fenced

FENCED_KINDS = frozenset({"code", "xml", "svg", "ipynb", "markup"})
LANGUAGES_BY_MEDIA_TYPE = {"application/json": "json"}


class Text:
    """Markdown and plain text pass as they are; code, data and markup become a fenced code block."""

    name = "text"

    def version(self) -> str:
        return platform.python_version()

    def convert(self, document: Document, options: Options) -> Converted:
        text = decode(document.data, markup=document.kind in ("xml", "svg"))
        if document.kind not in FENCED_KINDS or not text.strip():
            return Converted(text)
        extension = os.path.splitext(document.name)[1].lower().lstrip(".")
        language = LANGUAGES_BY_MEDIA_TYPE.get(document.media_type) or LANGUAGES.get(extension, "")
        return Converted(fenced(text, language))
