"""The unit that `convertd install` has once written, against what the configuration needs by now."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import suppress

from daemon import install, units
from daemon.checks.base import Check, Finding, Group, Stopping, ok, warning
from daemon.checks.remedies import quoted
from daemon.config import Config
from daemon.needs import program

READABLE, BOUND = "BindReadOnlyPaths=", "BindPaths="
FOLDERS = (READABLE, BOUND, "ReadWritePaths=")
ALONE = {"PrivateNetwork=yes", "IPAddressDeny=any"}


def group(config: Config, folder: str = install.SYSTEM_UNITS) -> Group | None:
    """The check of the unit for this configuration; None where none was written for it."""
    if config.path is None:
        return None
    path = os.path.join(folder, f"{install.unit_name(config.path)}.service")
    if not os.path.exists(path):
        return None
    return Group(f"unit {path}", _check(config, path))


def _check(config: Config, path: str) -> Check:
    def check(stopping: Stopping) -> Iterator[Finding]:
        wanted, there = install.plan(config, for_user=False).text, _text(path)
        if there.partition("\n")[0] != wanted.partition("\n")[0]:
            yield ok(f"{path} is not by `convertd install` for this configuration, and not looked at")
            return
        lacking = list(_lacking(_settings(wanted) - _of_the_program(), _settings(there)))
        if lacking:
            name = os.path.basename(path).removesuffix(".service")
            command = f"sudo convertd install --config {quoted(str(config.path))}"
            yield warning(
                f"{path} is of an older configuration, the service lacks: {', '.join(lacking)}",
                f"{command} && sudo systemctl daemon-reload && sudo systemctl restart {name}",
            )
        else:
            yield ok(f"{path} gives the service what this configuration needs")

    return check


def _lacking(wanted: set[str], there: set[str]) -> Iterator[str]:
    """What may be written can be read, too."""
    for line in sorted(wanted):
        if line.startswith(FOLDERS) and there.isdisjoint((line, line.replace(READABLE, BOUND, 1))):
            yield line
    if there & ALONE - wanted:
        yield "a network"


def _of_the_program() -> set[str]:
    """The lines for the installation that runs this check: the service may be started from another one."""
    return {f"{READABLE}{text}" for text in map(units.quoted, program()[1])}


def _settings(text: str) -> set[str]:
    """The lines, whether what they name may be missing (-) or not."""
    return {line.strip().replace("=-", "=", 1) for line in text.splitlines()}


def _text(path: str) -> str:
    """Of the unit and of what `systemctl edit` has added to it."""
    found = []
    for part in (path, *sorted(glob.glob(f"{glob.escape(path)}.d/*.conf"))):
        with suppress(OSError), open(part, encoding="utf-8", errors="replace") as file:
            found.append(file.read())
    return "\n".join(found)
