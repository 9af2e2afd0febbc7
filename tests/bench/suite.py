"""What a benchmark is, how the suite runs those that are asked for, and what it makes of their figures.

A benchmark is one file that ends in `BENCH = Bench(…)`, and one line in `tests.bench.registry`.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.bench.rows import Row

T = TypeVar("T")
ROUNDS = 5
"""Fewer are for trying out, and are not written into the documentation."""


@dataclass(frozen=True)
class Setting:
    """What a benchmark is run with. `folder` is its own, to be left as it likes, and should be on a disk. `corpus`
    holds real documents; without one they are made (`tests.bench.corpus`). `quick` asks for little work: its figures
    only show that everything works."""

    rounds: int
    folder: str
    quick: bool = False
    corpus: Path | None = None

    def sized(self, full: T, quick: T) -> T:
        """How much work to do."""
        return quick if self.quick else full


class Unmeasured(Exception):
    """A benchmark cannot be run here, in words for whoever runs it."""


@dataclass(frozen=True)
class Bench:
    """One benchmark: `work` is what is done, `against` what it is compared with, `to_reach` the target in words,
    `feels` what whoever uses convertd has of it. `run` yields its rows; each carries its own target. `needs` are the
    modules that the extra `bench` installs for it."""

    name: str
    work: str
    against: str
    to_reach: str
    feels: str
    run: Callable[[Setting], Iterator[Row]]
    needs: tuple[str, ...] = ()

    def rows(self, setting: Setting) -> Iterator[Row]:
        """Measure; raises Unmeasured, before it begins, where a peer is missing, and where there was nothing."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            raise Unmeasured(f"{', '.join(missing)} is not installed: pip install -e '.[bench]'")
        count = 0
        for row in self.run(setting):
            count += 1
            yield row
        if not count:
            raise Unmeasured("no row was measured")


@dataclass
class Results:
    """The rows of a run by benchmark, and the benchmarks that broke, each with its error."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def missed(self) -> list[str]:
        """The rows that fall short of their target."""
        return [row.name for rows in self.rows.values() for row in rows if not row.reached]

    @property
    def exit_code(self) -> int:
        """0 only if everything ran and reached its target."""
        return 1 if self.missed or self.broken else 0

    def verdict(self) -> Iterator[str]:
        """The last lines of the output."""
        for name, error in self.broken.items():
            yield f"broken: {name}: {error}"
        for name in self.missed:
            yield f"falls short: {name}"
        if not self.exit_code:
            yield "every target is reached"


def run(
    benches: Sequence[Bench],
    setting: Setting,
    begins: Callable[[Bench], None],
    tell: Callable[[Row], None],
) -> Results:
    """Run benchmarks one after the other, each in a fresh folder below that of `setting`. One that breaks is reported
    at the end; the others run all the same. At Ctrl-C what was measured till then is kept."""
    results = Results()
    for bench in benches:
        begins(bench)
        rows = results.rows.setdefault(bench.name, [])
        try:
            with tempfile.TemporaryDirectory(dir=setting.folder, ignore_cleanup_errors=True) as folder:
                for row in bench.rows(Setting(setting.rounds, folder, setting.quick, setting.corpus)):
                    rows.append(row)
                    tell(row)
        except Unmeasured as error:
            results.broken[bench.name] = str(error)
        except KeyboardInterrupt:
            results.broken[bench.name] = "interrupted, and the rest not run"
            break
        except Exception as error:
            traceback.print_exc()
            results.broken[bench.name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return results


def as_json(results: Results, benches: Sequence[Bench], setting: Setting, machine: dict[str, Any]) -> dict[str, Any]:
    """A run as it is kept; `tests.bench.readme` and the chart are made from it."""
    return {
        "machine": machine,
        "measured_at": time.strftime("%Y-%m-%d", time.gmtime()),
        "quick": setting.quick,
        "rounds": setting.rounds,
        "documents": "a corpus of real documents" if setting.corpus else "made by tests/documents.py",
        "rows": [
            {"bench": bench.name, "feels": bench.feels, **row.as_json()}
            for bench in benches
            for row in results.rows.get(bench.name, ())
        ],
        "broken": results.broken,
    }
