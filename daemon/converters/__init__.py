"""The engines and which of them convert what. A new engine is one file here and one line in REGISTRY."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def validate_engines(engines: Mapping[str, Sequence[str]]) -> list[str]:
    """The mistakes in the `[engines]` table of a configuration, a line each. Imports no engine.

    An engine is a name of REGISTRY or a dotted `package.module:Class`; whether the latter can be imported is seen
    only when the converter starts.
    """
    mistakes = []
    for kind, order in engines.items():
        if kind not in ROUTES:
            mistakes.append(f"engines.{kind}: there is no such kind; allowed: {', '.join(sorted(ROUTES))}")
            continue
        if not order:
            mistakes.append(f"engines.{kind}: is empty; name at least one engine of: {', '.join(REGISTRY)}")
        for position, name in enumerate(order):
            if name not in REGISTRY and not _is_dotted(name):
                mistakes.append(
                    f"engines.{kind}[{position}]: there is no engine {name!r}; "
                    f"allowed: {', '.join(REGISTRY)}, or package.module:Class"
                )
    return mistakes


def _is_dotted(name: str) -> bool:
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))
