"""Quality of the Markdown against reference documents, beside that of the bare libraries in the same run.

    python -m tests.bench.quality --corpus DIR --scorer score_quality.py [--only 'docling_*'] [--out DIR]

DIR holds `docs/<set>/FILE` and `truth/<set>/FILE.md` or `FILE.tests.json`. Converts every document with the router,
with the bare library that the router tries first, and with each library alone; scores all by the scorer; prints a
table per set and pooled. Exits 1 if a set is more than .005 below its bare library, or the pool below any library.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Any

import html_to_markdown
import liteparse
import pypdfium2
import undoc
import xberg

from daemon.converters import tessdata
from daemon.converters.base import EngineError, Options
from daemon.converters.route import Router

TOLERANCE = 0.005
OFFICE = (".docx", ".pptx", ".xlsx", ".xlsm", ".doc", ".ppt", ".xls")
OLD_OFFICE = (".doc", ".ppt", ".xls")
WEB = (".html", ".htm")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
Convert = Callable[[str, bytes], str]


class Bare:
    """The libraries as anybody would call them; none may use the network."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._pdf = liteparse.LiteParse(ocr_enabled=False, output_format="markdown", quiet=True, image_mode="off")
        limits = xberg.SecurityLimits(max_compression_ratio=2000)
        plain = {"use_cache": False, "output_format": "markdown", "security_limits": limits}
        self._text = xberg.ExtractionConfig(disable_ocr=True, **plain)
        tesseract = xberg.TesseractConfig(psm=3, use_cache=False)
        ocr = xberg.OcrConfig(tessdata_path=tessdata.packaged_dir(), tesseract_config=tesseract)
        self._ocr = xberg.ExtractionConfig(force_ocr=True, ocr=ocr, **plain)

    def liteparse(self, name: str, content: bytes) -> str:
        return str(self._pdf.parse(content).text)

    def pypdfium2(self, name: str, content: bytes) -> str:
        with pypdfium2.PdfDocument(content) as pdf:
            return "\n\n".join(page.get_textpage().get_text_bounded() for page in pdf)

    def undoc(self, name: str, content: bytes) -> str:
        return str(undoc.parse_bytes(content).to_markdown())

    def html_to_markdown(self, name: str, content: bytes) -> str:
        return html_to_markdown.convert(content.decode("utf-8", "replace")).content or ""

    def xberg(self, name: str, content: bytes) -> str:
        return self._extracted(name, content, self._text)

    def xberg_with_ocr(self, name: str, content: bytes) -> str:
        """What xberg alone makes of a document: text, else OCR."""
        text = "" if name.lower().endswith(IMAGES) else self.xberg(name, content)
        scan = not text.strip() and name.lower().endswith((".pdf", *IMAGES))
        return self._extracted(name, content, self._ocr) if scan else text

    def _extracted(self, name: str, content: bytes, config: Any) -> str:
        source = xberg.ExtractInput(kind="bytes", bytes=content, filename=name)
        result = self._loop.run_until_complete(xberg.extract(source, config)).results[0]
        if name.lower().endswith(".zip"):
            return "\n\n".join(child.result.content for child in result.children or [])
        return str(result.content)

    def routed(self, name: str, content: bytes) -> str:
        """The library that comes first in the route of such a document."""
        suffix = os.path.splitext(name)[1].lower()
        if suffix == ".pdf":
            text = self.liteparse(name, content)
            return text if text.replace("```text", "").strip("`\n- ") else self.xberg_with_ocr(name, content)
        if suffix in OLD_OFFICE:
            return self.undoc(name, content)
        if suffix in WEB:
            return self.html_to_markdown(name, content)
        return self.xberg_with_ocr(name, content)


def contenders() -> dict[str, tuple[Convert, tuple[str, ...]]]:
    """Label → how to convert, and which file names it takes (empty: all)."""
    bare, router = Bare(), Router(Options())
    router.warm()

    def ours(name: str, content: bytes) -> str:
        return router.convert(name, content, lambda engine: None).converted.markdown

    return {
        "convertd": (ours, ()),
        "bare": (bare.routed, ()),
        "liteparse": (bare.liteparse, (".pdf",)),
        "pypdfium2": (bare.pypdfium2, (".pdf",)),
        "undoc": (bare.undoc, OFFICE),
        "html-to-markdown": (bare.html_to_markdown, WEB),
        "xberg": (bare.xberg_with_ocr, ()),
    }


def convert_all(corpus: str, only: str, out: str) -> dict[str, dict[str, Any]]:
    """Write every contender's Markdown to `OUT/<label>/<set>/<file>.md`; tells seconds, documents and failures."""
    documents = sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(os.path.join(corpus, "docs"))
        for name in names
        if fnmatch.fnmatch(os.path.relpath(os.path.join(folder, name), os.path.join(corpus, "docs")), only)
    )
    if not documents:
        raise SystemExit(f"no documents in {corpus}/docs match {only!r}")
    spent: dict[str, dict[str, Any]] = {}
    for label, (convert, suffixes) in contenders().items():
        spent[label] = {"seconds": 0.0, "documents": [], "failed": []}
        for path in documents:
            if suffixes and not path.lower().endswith(suffixes):
                continue
            relative = os.path.relpath(path, os.path.join(corpus, "docs"))
            with open(path, "rb") as file:
                content = file.read()
            begun = time.perf_counter()
            try:
                markdown = convert(os.path.basename(path), content)
            except (EngineError, liteparse.ParseError, undoc.UndocError, xberg.XbergError, RuntimeError) as error:
                spent[label]["failed"].append(f"{relative}: {error}")
                continue
            spent[label]["seconds"] += time.perf_counter() - begun
            spent[label]["documents"].append(relative)
            target = os.path.join(out, label, relative + ".md")
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w", encoding="utf-8") as file:
                file.write(markdown)
    return spent


def figures(corpus: str, scorer: str, out: str, only: str, labels: Iterable[str]) -> dict[str, dict[str, float]]:
    """Label → document → its figure: the scorer's `overall`, or the share of assertions that hold."""
    report = os.path.join(out, "scores.json")
    command = [sys.executable, scorer, "--truth", os.path.join(corpus, "truth"), "--json", report, "--only", only]
    for label in labels:
        os.makedirs(os.path.join(out, label), exist_ok=True)
        command += ["--pred", f"{label}={os.path.join(out, label)}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(report, encoding="utf-8") as file:
        scores = json.load(file)
    return {
        label: {name: _figure(document) for name, document in scores[label]["documents"].items()} for label in labels
    }


def _figure(document: dict[str, Any]) -> float:
    if "score" in document:
        return float(document["score"]["overall"])
    return fmean(float(test["ok"]) for test in document["tests"]) if document.get("tests") else 0.0


def report(scored: dict[str, dict[str, float]], spent: dict[str, dict[str, Any]]) -> list[str]:
    """Print the tables; returns what falls short."""
    sets: dict[str, list[str]] = defaultdict(list)
    for name in scored["convertd"]:
        sets[name.partition("/")[0]].append(name)
    labels = list(scored)
    print(f"{'set':18s} docs " + " ".join(f"{label:>16s}" for label in labels))
    short = []
    for group, names in [*sorted(sets.items()), ("pooled", list(scored["convertd"]))]:
        means = {label: fmean(scored[label].get(name, 0.0) for name in names) for label in labels}
        print(f"{group:18s} {len(names):4d} " + " ".join(f"{means[label]:16.4f}" for label in labels))
        if group != "pooled" and means["convertd"] < means["bare"] - TOLERANCE:
            short.append(f"{group}: convertd {means['convertd']:.4f} is below the bare library {means['bare']:.4f}")
        if group == "pooled":
            better = [label for label in labels[2:] if means[label] > means["convertd"]]
            short += [f"pooled: {label} alone is better than convertd" for label in better]
    print("\non the documents each reads:")
    for label in labels[1:]:
        names = [name for name in spent[label]["documents"] if name in scored[label]]
        if names:
            theirs = fmean(scored[label][name] for name in names)
            ours = fmean(scored["convertd"][name] for name in names)
            print(f"{label:18s} {len(names):4d} {theirs:.4f}   convertd {ours:.4f}   {spent[label]['seconds']:.1f} s")
    print(f"{'convertd':18s} {len(spent['convertd']['documents']):4d}   {spent['convertd']['seconds']:.1f} s")
    for label in labels:
        for failure in spent[label]["failed"]:
            print(f"failed: {label}: {failure[:160]}")
    return short


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--scorer", required=True)
    parser.add_argument("--only", default="*", help="glob on <set>/<file>")
    parser.add_argument("--out", help="keep the Markdown here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = arguments.out or scratch
        spent = convert_all(arguments.corpus, arguments.only, out)
        scored = figures(arguments.corpus, arguments.scorer, out, arguments.only, list(spent))
        short = report(scored, spent)
    for line in short:
        print("SHORT:", line)
    return 1 if short else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # xberg was seen to crash at interpreter exit after OCR
