"""What benchmarks print: a row is ours beside a baseline, their ratio, and what was to be reached."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

AT_LEAST, AT_MOST, EXACTLY = "≥", "≤", "="
_HOLDS: dict[str, Callable[[float, float], bool]] = {
    AT_LEAST: lambda value, target: value >= target,
    AT_MOST: lambda value, target: value <= target,
    EXACTLY: lambda value, target: value == target,
}
_WIDTHS = (90, 10, 10, 24, 9, 7)


@dataclass(frozen=True)
class Row:
    """One figure. `ours` and `baseline` are medians with their unit, `values` what is compared with the target, one a
    round: most often a ratio. Without a target the row is for information."""

    name: str
    ours: str
    baseline: str
    values: Sequence[float]
    sense: str = AT_LEAST
    target: float | None = None
    digits: int = 2

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def reached(self) -> bool:
        """True where nothing was to be reached. What is to be exact, as a count of what must never happen, is to be so
        in every round; of all else the median counts."""
        if self.target is None:
            return True
        judged = self.values if self.sense == EXACTLY else [self.median]
        return all(_HOLDS[self.sense](value, self.target) for value in judged)

    def cells(self) -> tuple[str, ...]:
        """As it is printed."""
        value = spread(self.values, self.digits)
        target = "" if self.target is None else f"{self.sense} {_number(self.target, self.digits)}"
        return self.name, self.ours, self.baseline, value, target, "" if self.target is None else _yes(self.reached)

    def as_json(self) -> dict[str, Any]:
        return {
            "row": self.name,
            "ours": self.ours,
            "baseline": self.baseline,
            "median": self.median,
            "values": list(self.values),
            "sense": self.sense,
            "target": self.target,
            "digits": self.digits,
            "reached": self.reached,
        }


def spread(values: Sequence[float], digits: int) -> str:
    """The median with the lowest and the highest."""
    low, high = (_number(value, digits) for value in (min(values), max(values)))
    return f"{_number(statistics.median(values), digits)} [{low}-{high}]"


def print_head() -> None:
    """The first line of the table."""
    _print(("row", "ours", "baseline", "median [min-max]", "to reach", "reached"))


def print_row(row: Row) -> None:
    """One line of the table, at once."""
    _print(row.cells())


def ratios(over: Iterable[float], under: Iterable[float]) -> list[float]:
    """Round by round."""
    return [above / below for above, below in zip(over, under, strict=True)]


def milliseconds(seconds: Iterable[float]) -> str:
    """The median, as text."""
    value = statistics.median(seconds) * 1000
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"


def microseconds(seconds: Iterable[float]) -> str:
    """The median, as text."""
    return f"{statistics.median(seconds) * 1e6:,.0f} µs"


def megabytes(sizes: Iterable[float]) -> str:
    """The median, as text."""
    return f"{statistics.median(sizes) / 1e6:,.1f} MB"


def _print(cells: Sequence[str]) -> None:
    padded = [
        cells[0].ljust(_WIDTHS[0]),
        *(cell.rjust(width) for cell, width in zip(cells[1:], _WIDTHS[1:], strict=True)),
    ]
    print(" ".join(padded).rstrip(), flush=True)


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _yes(reached: bool) -> str:
    return "yes" if reached else "NO"
