"""What the engines share about Markdown."""

from __future__ import annotations

import re

HEADING_START = re.compile(r" {0,3}#{1,6}[ \t]+(?=\S)")
HEADING_CHARACTERS = 500
EMPTY_FENCE = re.compile(r"^(`{3,}|~{3,})[a-z]*\n\s*\1[ \t]*$\n?", re.MULTILINE)
RULE = re.compile(r"^-{3,}$", re.MULTILINE)
INLINE = re.compile(r"!?\[([^\]\[]{0,300})\]\([^()\s]{0,2000}\)|[*_`]{1,3}|<[^<>]{0,200}>")
ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
IMAGE = re.compile(r"!\[((?:\\.|[^\]\\\n]){0,2000})\]\(([^()\n]{0,2000})\)[ \t]*\n?")
MADE_UP_CAPTION = re.compile(
    r"((picture|image|img|photo|graphic|grafik|bild|imagen|immagine|afbeelding|obraz"
    r"|shape|object|content placeholder|google shape)?[\s_:;-]*\d*|\S+\.(png|jpe?g|gif|emf|wmf|bmp|tiff?|svg|webp))",
    re.IGNORECASE,
)
NO_TITLE = re.compile(
    r"(microsoft (word|powerpoint|excel)\b.*|(untitled|document|slide|title|presentation|book|sheet)\s?\d*"
    r"|.*\.(docx?|xlsx?|pptx?|pdf|tex|dvi|indd|qxd|rtf|odt|html?|fm|pages)|[\W\d_]*|<.*>)",
    re.IGNORECASE,
)


def without_empty_fences(markdown: str) -> str:
    """Without code blocks that hold nothing: some engines write one for a page without text."""
    return EMPTY_FENCE.sub("", markdown)


def holds_text(markdown: str) -> bool:
    """Whether anything is there but empty code blocks, rules and white space."""
    return bool(RULE.sub("", without_empty_fences(markdown)).strip())


def without_anonymous_images(markdown: str) -> str:
    """Without references to images inside a document, which are not delivered, unless a person described them."""

    def kept(match: re.Match[str]) -> str:
        caption, target = match.group(1), match.group(2)
        return match.group(0) if "://" in target or not MADE_UP_CAPTION.fullmatch(caption.strip()) else ""

    return IMAGE.sub(kept, markdown) if "![" in markdown else markdown


def one_line(text: str) -> str:
    """A name out of a document: a space for each character that ends a line or that a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)


def fenced(text: str, language: str) -> str:
    """The text as a code block; the fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}\n"


def metadata_title(title: object) -> str | None:
    """A title from a document's metadata, unless it is one that a program made up (`Microsoft Word - x.doc`)."""
    if not isinstance(title, str):
        return None
    title = " ".join(title.replace("\0", "").split())[:500]
    return None if not title or NO_TITLE.fullmatch(title) else title


def first_heading(markdown: str) -> str | None:
    """The text of the first heading among the first lines, without markup."""
    fence = ""
    for line in markdown[:20_000].split("\n"):
        mark = line.lstrip()[:3]
        if mark in ("```", "~~~"):
            fence = "" if fence == mark else (fence or mark)
        heading = "" if fence else _heading(line)
        text = ESCAPE.sub(r"\1", INLINE.sub(lambda part: part.group(1) or "", heading))
        if text.strip():
            return " ".join(text.split())
    return None


def _heading(line: str) -> str:
    """The text of a heading line, "" for any other. No backtracking: the line may be hostile."""
    start = HEADING_START.match(line)
    if start is None:
        return ""
    text = line[start.end() :].rstrip()
    opened = text.rstrip("#")
    text = opened.rstrip() if opened[-1:] in ("", " ", "\t") else text
    return text if len(text) <= HEADING_CHARACTERS else ""
