"""Which paths a watch takes."""

from __future__ import annotations

import pytest

from daemon.globs import Filter, Globs


@pytest.mark.parametrize(
    ("pattern", "taken", "refused"),
    [
        ("**/*", ["a", "a/b/c.pdf", "a\nb", "x y/z"], []),
        ("**", ["a", "a/b/c.pdf"], []),
        ("*.pdf", ["a.pdf", "A.PDF", "a\nb.pdf"], ["b/a.pdf", "a.pdfx", "a.pdf\n"]),
        ("**/*.pdf", ["a.pdf", "b/a.pdf", "b/c/a.Pdf"], ["a.pdf/b", "apdf"]),
        ("in/*.pdf", ["in/a.pdf", "IN/a.pdf"], ["in/b/a.pdf", "x/in/a.pdf", "in.pdf"]),
        ("in/**", ["in/a", "in/b/c"], ["in", "inn/a"]),
        ("in/", ["in/a", "in/b/c"], ["in", "x/in/a"]),
        ("**/in/", ["in/a", "x/in/b/c"], ["in", "x/in"]),
        ("in/**/out/*", ["in/out/a", "in/x/y/out/a", "in/out/out/a"], ["in/out", "in/x/a"]),
        ("**/a/**/a/**/b", ["a/a/b", "x/a/y/a/z/b", "a/b/a/b/b"], ["a/b", "a/x/b", "a/a/b/c"]),
        ("**/**/a", ["a", "x/a"], ["a/x"]),
        ("a**b", ["ab", "axxb"], ["a/b"]),
        ("file?.txt", ["file1.txt", "fileä.txt"], ["file.txt", "file10.txt", "file/.txt"]),
        ("[a-c]x", ["ax", "Bx"], ["dx"]),
        ("[!a-c]x", ["dx", "éx"], ["ax"]),
        ("*.{pdf,docx}", ["a.pdf", "a.docx"], ["a.{pdf,docx}", "a.pdfdocx"]),
        ("{a,b/c}/*", ["a/x", "b/c/x"], ["b/x"]),
        ("{a,{b,c}d}{1,}", ["a", "a1", "bd", "cd1"], ["b", "d"]),
        ("{GUID}", ["{GUID}", "{guid}"], ["GUID"]),
        ("x[{]y", ["x{y"], ["xy"]),
        ("a,b", ["a,b"], ["a", "b"]),
        ("ÄRGER.pdf", ["ärger.pdf"], []),
        ("a+(b)|c.$", ["a+(b)|c.$"], ["aab"]),
    ],
)
def test_patterns(pattern: str, taken: list[str], refused: list[str]) -> None:
    chosen = Filter([pattern], [])
    for path in taken:
        assert chosen.takes(path.encode()), path
        assert chosen.why(path.encode()) is None
    for path in refused:
        assert not chosen.takes(path.encode()), path
        assert chosen.why(path.encode()) is not None


def test_names_that_are_not_utf8() -> None:
    chosen = Filter(["**/*.pdf"], ["**/?x.pdf"])
    assert chosen.takes(b"\xff\xfe/\xff.pdf")
    assert not chosen.takes(b"\xff\xfe/\xffx.pdf")


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        (b".a", 'starting with "."'),
        (b"x/.a", 'starting with "."'),
        (b".git/a", 'starting with "."'),
        (b"x/.git/y/a", 'starting with "."'),
        (b"~$letter.docx", 'starting with "~$"'),
        (b"x/~$letter.docx", 'starting with "~$"'),
        (b"a.part", 'ending in ".part"'),
        (b"x/a.pdf.PARTIAL", 'ending in ".partial"'),
        (b"a.tmp", 'ending in ".tmp"'),
        (b"a.crdownload", 'ending in ".crdownload"'),
        (b"a.filepart", 'ending in ".filepart"'),
        (b"a.swp", 'ending in ".swp"'),
        (b"x/Thumbs.db", 'called "thumbs.db"'),
        (b"desktop.ini", 'called "desktop.ini"'),
    ],
)
def test_names_that_are_never_taken(path: bytes, rule: str) -> None:
    chosen = Filter(["**/*"], [])
    assert not chosen.takes(path)
    assert rule in (chosen.why(path) or "")


@pytest.mark.parametrize("path", [b"a.b", b"x~$", b"a.tmp/b", b"a.part.pdf", b"MyThumbs.db", b"~/a", b"x/a~", b"tmp"])
def test_names_that_only_look_like_those(path: bytes) -> None:
    assert Filter(["**/*"], []).takes(path)


def test_why_names_the_pattern() -> None:
    chosen = Filter(["*.pdf", "in/**"], ["**/draft*", "in/old/"])
    assert chosen.why(b"x/a.pdf") == (
        'no pattern of include matches: "*.pdf", "in/**" ("**/*.pdf" would match in every folder)'
    )
    assert chosen.why(b"a.txt") == 'no pattern of include matches: "*.pdf", "in/**"'
    assert chosen.why(b"in/draft1.pdf") == 'exclude has "**/draft*"'
    assert chosen.why(b"in/old/a") == 'exclude has "in/old/"'
    assert chosen.why(b"in/new/a") is None


def test_exclude_goes_before_include() -> None:
    chosen = Filter(["**/*"], ["a/**"])
    assert not chosen.takes(b"a/b")
    assert chosen.takes(b"b/a")


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        ("", "not empty"),
        ("a\0b", "not empty"),
        ("/a", "relative to the source"),
        ("a//b", "relative to the source"),
        ("../a", "relative to the source"),
        ("./a", "relative to the source"),
        ("a/./b", "relative to the source"),
        ("/", "relative to the source"),
        ("{a,b", "closed by"),
        ("{a,{b,c}", "closed by"),
        ("{a,b}" * 12, "at most 1000 alternatives"),
        ("a" * 1001, "at most 1000 characters"),
    ],
)
def test_malformed_patterns_are_refused(pattern: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed):
        Globs([pattern])


def test_a_deep_and_repetitive_tree_costs_no_more_than_its_length() -> None:
    """Matching by one regular expression takes minutes here; this would run into the time-out of the test."""
    chosen = Filter(["**/a/**/a/**/a/**/*.pdf", "**/*a*a*a*a*a*.pdf"], [])
    deep = b"a/" * 2000
    assert chosen.takes(deep + b"x.pdf")
    for number in range(50):
        assert not chosen.takes(deep + b"x%d" % number)
        assert not chosen.takes(b"a" * 255 + b"%d" % number)
