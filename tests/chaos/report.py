"""What a campaign says at its end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.campaign import Result
from tests.chaos.faults_of import DEATHS, ERRORS

ACTIONS_SHOWN = 200
ARMED = {*DEATHS, *ERRORS}


def table(result: Result) -> str:
    """For people: what was done, what befell, what was found and how to do it again."""
    return "\n".join(_lines(result))


def _lines(result: Result) -> Iterator[str]:
    yield f"seed {result.seed}, {result.seconds / 60:.1f} minutes, {result.rounds} rounds"
    documents = f"{result.documents} documents in {result.versions} versions"
    yield f"{documents}, {result.jobs} jobs, {result.looks} results judged"
    yield f"restarts: {_counted(result.deaths)}"
    yield from (f"not done: {what}" for what in result.missing)
    if result.sizes:
        descriptors = max(size.descriptors for size in result.sizes)
        resident = max(size.resident_bytes for size in result.sizes)
        yield f"daemon at rest: at most {descriptors} descriptors and {resident >> 20} MiB"
    yield ""
    yield f"{'action':<36}{'done':>6}{'skipped':>9}"
    for name in sorted(result.actions | result.skipped):
        yield f"{name:<36}{result.actions[name]:>6}{result.skipped[name]:>9}"
    yield ""
    yield f"{'fault met':<36}{'times':>6}"
    for name, count in sorted(result.fired.items()):
        yield f"{name:<36}{count:>6}"
    points = {name.partition(" at ")[2] for name in result.fired}
    yield f"{len(points & ARMED)} of {len(ARMED)} fault points were met"
    if unpassed := ARMED.difference(result.passed):
        yield f"never passed: {', '.join(sorted(unpassed))}"
    yield ""
    if not result.findings:
        yield "nothing was found"
        return
    yield f"found {len(result.findings)}:"
    yield from (f"  after action {action}: {what}" for what, action in result.findings.items())
    yield ""
    yield "what was done:"
    yield from result.log[-ACTIONS_SHOWN:]
    yield ""
    plant = f" --plant {result.plant}" if result.plant else ""
    minutes = max(1, round(result.seconds / 60 + 0.5))
    yield f"again: python -m tests.chaos --seed {result.seed} --minutes {minutes}{plant}"


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counter.items())) or "none"


def write_json(result: Result, path: Path) -> None:
    """All of it, for programs."""
    sizes = [size._asdict() for size in result.sizes]
    path.write_text(json.dumps({**vars(result), "sizes": sizes}, indent=2) + "\n")
