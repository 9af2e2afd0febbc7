"""Writes a run into the documentation: `python -m tests.bench.readme [FILE.json] [--into docs/benchmarks.md]`.

Between the markers `<!-- rows -->` and `<!-- /rows -->` goes the list of what is measured, from the registry; between
`<!-- figures -->` and `<!-- /figures -->` the tables of the run FILE.json and the machine that it was made on, and
beside the document its chart. Without FILE only the list is written. A quick run is refused: its figures mean nothing.
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
from tests.bench.registry import BENCHES
from tests.bench.rows import spread
from tests.bench.suite import Bench
from tests.harness import ROOT

DOCUMENT = ROOT / "docs" / "benchmarks.md"
ROWS, FIGURES = "rows", "figures"


def main(arguments: Sequence[str] | None = None, benches: Sequence[Bench] = BENCHES) -> int:
    """Write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--into", type=Path, default=DOCUMENT)
    options = parser.parse_args(arguments)
    text = replaced(options.into.read_text(), ROWS, rows_table(benches))
    if options.file is not None:
        run = json.loads(options.file.read_text())
        if run["quick"]:
            print(f"{options.file} is of a quick run, whose figures mean nothing: run without --quick", file=sys.stderr)
            return 2
        picture = options.into.with_suffix(".svg")
        picture.write_text(chart.drawn(run))
        text = replaced(text, FIGURES, "\n".join(figures(run, benches, picture.name)))
    options.into.write_text(text)
    return 0


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
    on = run["machine"]
    yield (
        f"Measured on {run['measured_at']}: {on['cpu']}, {on['cores']} cores, {on['memory_gib']} GiB of memory, Linux "
        f"{on['kernel']}, Python {on['python']}, {on['disk']}; load {on['load']} at the start; {run['rounds']} rounds; "
        f"documents: {run['documents']}."
    )
    yield f"\n![each row beside its target]({picture})"
    for bench in benches:
        rows = [row for row in run["rows"] if row["bench"] == bench.name]
        if not rows:
            continue
        yield f"\n### {bench.name}\n\n{bench.feels}\n"
        yield "| row | ours | baseline | median [lowest-highest] | to reach | reached |"
        yield "|---|---|---|---|---|---|"
        for row in rows:
            asked = row["target"] is not None
            target = f"{row['sense']} {row['target']:,.{row['digits']}f}" if asked else ""
            reached = ("yes" if row["reached"] else "**no**") if asked else ""
            value = spread(row["values"], row["digits"])
            yield _line(row["row"], row["ours"], row["baseline"], value, target, reached)
    missing = [bench.name for bench in benches if all(row["bench"] != bench.name for row in run["rows"])]
    if missing:
        yield f"\nNot in this run: {', '.join(missing)}."


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


if __name__ == "__main__":
    raise SystemExit(main())
