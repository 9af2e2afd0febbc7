"""`convertd doctor`: whether everything is in order, and what to do where it is not."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

import click

from daemon.checks.base import Finding, Level
from daemon.checks.examination import examine
from daemon.checks.subject import subject
from daemon.cli.common import Place, place_options, print_json
from daemon.errors import UsageError
from daemon.statedir import StateDir

SIGNS = {Level.OK: "ok      ", Level.WARNING: "warning ", Level.PROBLEM: "PROBLEM "}


@click.command("doctor")
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(config_path: str | None, state_dir: str | None, as_json: bool) -> None:
    """Check configuration, folders, buckets, converters and this machine; say what to do where something is wrong.

    Writes, reads and removes small files in each sink, and in each source that documents are taken away from. Works
    beside a running daemon. Exit code 1 if there is a problem, 0 if there are at most warnings.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):  # like Ctrl-C, nothing may be left behind
        with suppress(ValueError):  # in a thread, which has no signals
            signal.signal(number, signal.default_int_handler)
    examined = subject(config_path, state_dir, os.environ)
    live: dict[str, Any] | None = None
    if examined.state is not None:
        _require_owner(examined.state, examined.findings, as_json)
        live = Place(None, examined.state).live()
    found: list[tuple[str, Finding]] = []
    with closing(examine(examined, live)) as groups:
        for title, findings in groups:
            found += [(title, finding) for finding in findings]
            if not as_json:
                _print(title, findings)
    levels = _levels(found)
    if as_json:
        _print_json(found, levels)
    else:
        click.echo(f"\n{_number(levels[Level.PROBLEM], 'problem')}, {_number(levels[Level.WARNING], 'warning')}")
    if levels[Level.PROBLEM]:
        raise SystemExit(1)


def _require_owner(state: StateDir, findings: Sequence[Finding], as_json: bool) -> None:
    """Raise UsageError where the state is another user's; mistakes of the configuration are told all the same."""
    try:
        state.require_owner()
    except UsageError:
        found = [("configuration", finding) for finding in findings]
        levels = _levels(found)
        if levels[Level.PROBLEM] and as_json:
            _print_json(found, levels)
        elif levels[Level.PROBLEM]:
            _print("configuration", findings)
        raise


def _levels(found: Sequence[tuple[str, Finding]]) -> Counter[Level]:
    return Counter(finding.level for _, finding in found)


def _print(title: str, findings: Sequence[Finding]) -> None:
    click.echo(title)
    for finding in findings:
        click.echo(f"  {SIGNS[finding.level]} {finding.what}")
        if finding.remedy:
            click.echo(f"            → {finding.remedy}")


def _print_json(found: Sequence[tuple[str, Finding]], levels: Counter[Level]) -> None:
    findings = [{"subject": title, **finding._asdict()} for title, finding in found]
    print_json({"problems": levels[Level.PROBLEM], "warnings": levels[Level.WARNING], "findings": findings}, indent=2)


def _number(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
