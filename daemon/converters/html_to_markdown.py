"""HTML, by html-to-markdown."""

from __future__ import annotations

import html
import re
from importlib.metadata import version

import html_to_markdown as library

from daemon.converters.base import Converted, Document, EngineError, Options
from daemon.converters.charset import decode
from daemon.converters.markdown import metadata_title
from daemon.errors import Kind

LOSSES = {
    library.WarningKind.TRUNCATED_INPUT: "The page was cut off",
    library.WarningKind.DEPTH_LIMIT_EXCEEDED: "What is nested too deep was left out",
}
TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,1000})</title", re.IGNORECASE)


class HtmlToMarkdown:
    name = "html-to-markdown"

    def __init__(self) -> None:
        # An image inside a data: URL would put its bytes, as letters, into the text.
        # The metadata would stand before the text as YAML; the title goes where titles go.
        self._options = library.ConversionOptions(
            inline_data_media=library.InlineDataMedia.ALT_TEXT_ONLY, extract_metadata=False
        )

    def version(self) -> str:
        return version("html-to-markdown")

    def convert(self, document: Document, options: Options) -> Converted:
        try:
            text = decode(document.data, markup=True)
            result = library.convert(text, self._options)
        except library.InputTooLargeError as error:
            raise EngineError(Kind.TOO_LARGE, f"The page is too large: {error}") from error
        title = TITLE.search(text, 0, 256 << 10)
        return Converted(
            result.content or "",
            title=metadata_title(html.unescape(title.group(1))) if title else None,
            warnings=tuple(f"{LOSSES[loss.kind]}: {loss.message}" for loss in result.warnings if loss.kind in LOSSES),
        )
