"""Imports point down, and what must stay light stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import ROOT, environment

LAYERS = (
    {"errors", "faults", "words", "meters", "memory", "inflow", "ground"},
    {"model", "buckets", "schema", "overlaps", "seccomp", "globs", "configfile"},
    {"values", "repeats", "files", "spool", "statedir", "sandbox", "turnstile", "systemd", "units"} | {"tally"},
    {"migration", "tables", "converters", "addresses", "logs", "monitor"},
    {"settings", "payload", "intake"},
    {"config", "naming", "results", "db", "keeper", "s3"},
    {"batches", "events", "outbox"},
    {"targets"},
    {"needs", "sources", "sinks", "jobs", "queries", "pool", "dispatch", "switches", "cancellations"},
    {"health", "disposal", "pipeline", "operations", "control", "plan", "install", "pulse"}
    | {"vitals", "notify", "metrics"},
    {"manifests", "submissions", "discovery", "endings", "service", "departures"},
    {"worker", "roster"},
    {"live", "reload", "once"},
    {"supervisor"},
    {"builder"},
    {"app"},
    {"checks"},
    {"cli"},
    {"__main__"},
)
HEAVY = {"msgspec", "structlog", "rich", "boto3", "watchfiles", "liteparse", "xberg", "undoc", "html_to_markdown"}
HEAVY |= {"prometheus_client"}
QUICK = {"cli", "configfile", "control", "db", "errors", "faults", "meters", "queries", "schema", "statedir"}
QUICK |= {"inflow", "migration", "switches", "words"}


def modules() -> list[Path]:
    return sorted((ROOT / "daemon").rglob("*.py"))


def unit_of(path: Path) -> str:
    return path.relative_to(ROOT / "daemon").parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """The top-level units of the project that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("daemon.")}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    level = {unit: number for number, layer in enumerate(LAYERS) for unit in layer}
    unit = unit_of(path)
    if unit == "__init__":
        return
    assert unit in level, f"{unit} has no place in the layers"
    for imported in imports_of(path) - {unit, "__version__"}:
        assert level[imported] < level[unit], f"{unit} imports {imported}, which stands no lower"


@pytest.mark.parametrize(
    ("package", "importer"),
    [("apsw", "db"), ("boto3", "s3"), ("botocore", "s3"), ("prometheus_client", "metrics")],
)
def test_a_package_is_known_to_one_alone(package: str, importer: str) -> None:
    imported = re.compile(rf"^\s*(import|from) {package}\b", re.MULTILINE)
    assert {unit_of(path) for path in modules() if imported.search(path.read_text())} == {importer}


def test_status_imports_nothing_heavy() -> None:
    code = "import sys; from daemon.cli import cli; cli.get_command(None, 'status'); print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT, check=True
    )
    loaded = result.stdout.split()
    assert {name.split(".")[0] for name in loaded} & HEAVY == set()
    # Of ours only what it takes to ask the daemon: the configuration is understood where none answers.
    assert {name.split(".")[1] for name in loaded if name.startswith("daemon.")} <= QUICK
