"""A run as a chart: a bar a row that has a target, as long as it is far above or below it; the target is the line.

Bars are on a logarithmic scale from a quarter of what is asked to sixteen times as good; what is longer is cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from tests.bench.rows import AT_MOST

_LEFT, _WIDTH, _RIGHT, _LINE, _TOP = 560, 420, 220, 22, 70
_WORST, _BEST = 1 / 4, 16.0
_GOOD, _BAD = "#2e7d32", "#c62828"


def drawn(run: Mapping[str, Any]) -> str:
    """The chart of a run as `tests.bench.suite.as_json` has it, as SVG."""
    rows = [row for row in run["rows"] if row["target"] is not None]
    height = _TOP + _LINE * len(rows) + 20
    title = f"convertd {'(quick run) ' if run['quick'] else ''}beside its targets, {run['machine']['cpu']}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + _RIGHT}" height="{height}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="100%" height="100%" fill="white"/><text x="12" y="24" font-size="16">{escape(title)}</text>',
            f'<text x="{_place(1.0):.0f}" y="52" text-anchor="middle">target</text>',
            *(_bar(row, _TOP + _LINE * number) for number, row in enumerate(rows)),
            f'<line x1="{_place(1.0):.0f}" x2="{_place(1.0):.0f}" y1="58" y2="{height - 16}" stroke="#333"/>',
            "</svg>\n",
        ]
    )


def _bar(row: Mapping[str, Any], top: int) -> str:
    good = _how_good(row)
    start, end = sorted((_place(1.0), _place(good)))
    sense, digits = row["sense"], row["digits"]
    words = f"{row['median']:,.{digits}f} (to reach: {sense} {row['target']:,.{digits}f})"
    return (
        f'<text x="{_LEFT - 10}" y="{top + 12}" text-anchor="end">{escape(row["row"])}</text>'
        f'<rect x="{start:.0f}" y="{top}" width="{max(2.0, end - start):.0f}" height="{_LINE - 8}" '
        f'fill="{_GOOD if row["reached"] else _BAD}"/>'
        f'<text x="{max(end, _place(1.0)) + 6:.0f}" y="{top + 12}">{escape(words)}</text>'
    )


def _how_good(row: Mapping[str, Any]) -> float:
    """How many times as good as asked."""
    value, target = float(row["median"]), float(row["target"])
    if row["sense"] == AT_MOST:
        value, target = target, value
    if target <= 0 or value <= 0:  # growth may be below nothing
        return _BEST if row["reached"] else _WORST
    return value / target


def _place(good: float) -> float:
    share = math.log(min(_BEST, max(_WORST, good)) / _WORST) / math.log(_BEST / _WORST)
    return _LEFT + share * _WIDTH
