"""The engines and which of them convert what. A new engine is one file here and one line in REGISTRY."""

from __future__ import annotations

REGISTRY: dict[str, str] = {
    "archive": "daemon.converters.archive:Archive",
    "html-to-markdown": "daemon.converters.html_to_markdown:HtmlToMarkdown",
    "liteparse": "daemon.converters.liteparse:LiteParse",
    "pypdfium2": "daemon.converters.pypdfium2:Pypdfium2",
    "text": "daemon.converters.text:Text",
    "undoc": "daemon.converters.undoc:Undoc",
    "xberg": "daemon.converters.xberg:Xberg",
    "xberg-ocr": "daemon.converters.xberg_ocr:XbergOcr",
}
"""Name → `module:Class`. Imported when first needed, so that reading this costs nothing."""

ROUTES: dict[str, tuple[str, ...]] = {
    "pdf": ("liteparse", "xberg", "pypdfium2"),
    "image": ("xberg-ocr",),  # pages of a PDF that hold no text go this way too
    "docx": ("xberg", "undoc"),
    "pptx": ("xberg", "undoc"),
    "xlsx": ("xberg", "undoc"),
    "doc": ("undoc", "xberg"),
    "ppt": ("undoc", "xberg"),
    "xls": ("undoc", "xberg"),
    "html": ("html-to-markdown", "xberg"),
    "epub": ("xberg",),
    "odf": ("xberg",),
    "iwork": ("xberg",),
    "hwp": ("xberg",),
    "wordperfect": ("xberg",),
    "rtf": ("xberg",),
    "msg": ("xberg",),
    "pst": ("xberg",),
    "eml": ("xberg", "text"),
    "csv": ("xberg", "text"),
    "ipynb": ("xberg", "text"),
    "xml": ("xberg", "text"),
    "svg": ("xberg", "text"),
    "markup": ("xberg", "text"),  # reStructuredText, LaTeX, Org, AsciiDoc and the like
    "mbox": ("archive", "text"),
    "zip": ("archive",),
    "tar": ("archive",),
    "gzip": ("archive",),
    "7z": ("xberg",),
    "markdown": ("text",),
    "text": ("text",),
    "code": ("text",),
}
"""What detection finds → the engines to try, in this order, until one returns text."""
