"""Writes a run into the documentation: `python -m tests.bench.readme [FILE.json] [--into docs/benchmarks.md]
[--readme README.md]`.

Between the markers `<!-- rows -->` and `<!-- /rows -->` goes the list of what is measured, from the registry; between
`<!-- figures -->` and `<!-- /figures -->` the tables of the run FILE.json and the machine that it was made on, and
beside the document its chart and the run itself, so that anybody can compare. In the README the first figure of each
benchmark goes between `<!-- performance -->` and `<!-- /performance -->`, with how many of all its figures reach their
target. Without FILE all is written anew from the run that is kept beside the document, or the list alone.
Refused, with exit code 2, is a run whose figures mean nothing: a quick one, one of fewer than five rounds or in memory;
one of code that is no commit; and one that is not whole. A benchmark that broke is written as such.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench import chart
from tests.bench.host import DIRTY, MEMORY
from tests.bench.registry import BENCHES
from tests.bench.rows import spread
from tests.bench.suite import ROUNDS, Bench
from tests.harness import ROOT

DOCUMENT, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
ROWS, FIGURES, PERFORMANCE = "rows", "figures", "performance"


def main(arguments: Sequence[str] | None = None, benches: Sequence[Bench] = BENCHES) -> int:
    """Write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--into", type=Path, default=DOCUMENT)
    parser.add_argument("--readme", type=Path, default=README)
    options = parser.parse_args(arguments)
    kept = options.into.with_suffix(".json")
    if options.file is not None:
        run = json.loads(options.file.read_text())
        if refusal := _refusal(run, benches):
            print(f"{options.file} {refusal}", file=sys.stderr)
            return 2
    else:
        run = json.loads(kept.read_text()) if kept.exists() else None
    for path, text in written(run, benches, options.into, options.readme).items():
        path.write_text(text)
    return 0


def written(run: Mapping[str, Any] | None, benches: Sequence[Bench], document: Path, summary: Path) -> dict[Path, str]:
    """What each file is to hold."""
    text = replaced(document.read_text(), ROWS, rows_table(benches))
    if run is None:
        return {document: text}
    picture = document.with_suffix(".svg")
    return {
        document: replaced(text, FIGURES, "\n".join(figures(run, benches, picture.name))),
        summary: replaced(summary.read_text(), PERFORMANCE, "\n".join(performance(run, benches))),
        picture: chart.drawn(run),
        document.with_suffix(".json"): json.dumps(run, ensure_ascii=False, separators=(",", ":")) + "\n",
    }


def _refusal(run: Mapping[str, Any], benches: Sequence[Bench]) -> str:
    if missing := _missing(run, benches):
        return f"lacks {', '.join(missing)}: run without --only, to the end"
    if run["machine"]["disk"] in MEMORY:
        return "was made in memory, where nothing is durable: run with --folder on a disk"
    if run["machine"].get("code", DIRTY).endswith(DIRTY):
        return "is of code that is no commit: run in a clone where nothing is changed"
    if run["quick"]:
        return "is of a quick run, whose figures mean nothing: run without --quick"
    if run["rounds"] < ROUNDS:
        return f"is of {run['rounds']} rounds, which is too few: run without --rounds"
    return ""


def _missing(run: Mapping[str, Any], benches: Sequence[Bench]) -> list[str]:
    """What was not even begun."""
    begun = {row["bench"] for row in run["rows"]} | run["broken"].keys()
    return [bench.name for bench in benches if bench.name not in begun]


def replaced(text: str, marker: str, content: str) -> str:
    """The text with other content between two markers."""
    pattern = re.compile(f"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)", re.DOTALL)
    assert pattern.search(text), f"there are no markers for {marker}"
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)


def rows_table(benches: Sequence[Bench]) -> str:
    """What is measured."""
    lines = ["| name | work | against | to reach | what one has of it |", "|---|---|---|---|---|"]
    lines += [_line(f"`{one.name}`", one.work, one.against, one.to_reach, one.feels) for one in benches]
    return "\n".join(lines)


def figures(run: Mapping[str, Any], benches: Sequence[Bench], picture: str) -> Iterator[str]:
    """The tables of a run, one a benchmark."""
    yield _where(run)
    yield f"\n![each row beside its target]({picture})"
    for bench in benches:
        rows = [row for row in run["rows"] if row["bench"] == bench.name]
        if not rows:
            continue
        yield f"\n### {bench.name}\n\n{bench.feels}\n"
        yield "| row | ours | baseline | median [lowest-highest] | to reach | reached |"
        yield "|---|---|---|---|---|---|"
        for row in rows:
            reached = "" if row["target"] is None else "yes" if row["reached"] else "**no**"
            figure, target = _figure(row)
            count = len(row["values"])
            values = "" if count == run["rounds"] else f" of {count}"
            yield _line(row["row"], row["ours"], row["baseline"], f"{figure}{values}", target, reached)
    if missing := _missing(run, benches):  # added since
        yield f"\nNot in this run: {', '.join(missing)}."
    for name, error in run["broken"].items():
        yield f"\n**Broken in this run**: {name}: {error}"


def performance(run: Mapping[str, Any], benches: Sequence[Bench]) -> Iterator[str]:
    """The table of the README: of each benchmark the first figure that has a target."""
    yield f"{_where(run)}\n"
    yield "| measured | median [lowest-highest] | to reach | figures that reach their target |"
    yield "|---|---|---|---|"
    for bench in benches:
        rows = [row for row in run["rows"] if row["bench"] == bench.name and row["target"] is not None]
        if rows:
            good = sum(row["reached"] for row in rows)
            of_all = f"{good} of {len(rows)}" if good == len(rows) else f"**{good} of {len(rows)}**"
            broken = ", broken" if bench.name in run["broken"] else ""
            yield _line(rows[0]["row"], *_figure(rows[0]), f"{of_all}{broken}")
        elif bench.name in run["broken"]:
            yield _line(f"{bench.name}: {bench.work}", "", bench.to_reach, "**none**, broken")


def _where(run: Mapping[str, Any]) -> str:
    on = run["machine"]
    code = f" with the code of {on['code']}" if "code" in on else ""
    return (
        f"Measured on {run['measured_at']}{code}: {on['cpu']}, {on['cores']} cores, {on['memory_gib']} GiB of memory, "
        f"Linux {on['kernel']}, Python {on['python']}, {on['disk']}; load {on['load']} at the start; "
        f"{run['rounds']} rounds; documents: {run['documents']}."
    )


def _figure(row: Mapping[str, Any]) -> tuple[str, str]:
    """The median with its spread, and what was to be reached."""
    target = "" if row["target"] is None else f"{row['sense']} {row['target']:,.{row['digits']}f}"
    return spread(row["values"], row["digits"]), target


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


if __name__ == "__main__":
    raise SystemExit(main())
