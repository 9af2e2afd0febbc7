"""Office documents, those before 2007 included, by undoc."""

from __future__ import annotations

import undoc as library

from daemon.converters.base import Converted, Document, EngineError, Options
from daemon.converters.markdown import metadata_title
from daemon.errors import Kind

KINDS = {
    library.ErrorKind.ENCRYPTED: Kind.ENCRYPTED,
    library.ErrorKind.UNKNOWN_FORMAT: Kind.UNSUPPORTED_FORMAT,
    library.ErrorKind.UNSUPPORTED_FORMAT: Kind.UNSUPPORTED_FORMAT,
}
PAGED_KINDS = frozenset({"pptx", "ppt", "xlsx", "xls"})


class Undoc:
    name = "undoc"

    def version(self) -> str:
        return str(library.version())

    def convert(self, document: Document, options: Options) -> Converted:
        try:
            with library.parse_bytes(document.content) as parsed:
                # A text document's sections are no pages; slides and sheets are.
                pages = parsed.section_count if document.kind in PAGED_KINDS else None
                return Converted(
                    parsed.to_markdown(include_images=False), pages=pages, title=metadata_title(parsed.title)
                )
        except library.UndocError as error:
            kind = KINDS.get(error.kind, Kind.CORRUPT)
            raise EngineError(kind, f"The document cannot be read: {error}") from error
