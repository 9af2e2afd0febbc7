"""`convertd install`: the unit for a configuration, shown or written, and nobody else's overwritten."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon import config as configuration
from daemon import install as module
from tests.harness import convertd

Install = Callable[..., Any]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Runs the command for a configuration below a folder with an odd name, with a home of its own."""
    folder = tmp_path / "my docs 100%"
    folder.mkdir()
    config = folder / "scans.toml"
    config.write_text(
        'state_dir = "state"\n[[watch]]\nname = "in"\nsource = "in"\nsink = "out"\non_success = "move:done"\n'
    )

    def run(*options: str) -> Any:
        env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "home config")}
        return convertd("install", "--config", str(config), *options, cwd=tmp_path, env=env)

    return run


def unit_path(tmp_path: Path) -> Path:
    return tmp_path / "home config" / "systemd" / "user" / "convertd-scans.service"


def test_a_dry_run_prints_the_unit_and_changes_nothing(install: Install, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = install("--dry-run")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("# Written by `convertd install`")
    for name in ("in", "out", "done", "state"):
        assert f'Paths=-"{tmp_path}/my docs 100%%/{name}"' in result.stdout
    assert re.search(r'^ExecStart=/.* run --config ".*/my docs 100%%/scans.toml"$', result.stdout, re.MULTILINE)
    assert "systemctl enable --now convertd-scans" in result.stderr
    assert "no network" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_that_the_service_will_not_see_is_told(tmp_path: Path) -> None:
    hidden = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        (tmp_path / "real").mkdir()
        (hidden / "inbox").symlink_to(tmp_path / "real")
        config = tmp_path / "config.toml"
        config.write_text(f'[[watch]]\nname = "in"\nsource = "{hidden}/inbox"\nsink = "{tmp_path}/out"\n')
        said = convertd("install", "--dry-run", "--config", str(config), cwd=tmp_path).stderr
        assert f"note: {hidden}/inbox is not there for the service" in said
        assert f"write {tmp_path.resolve()}/real instead" in said
    finally:
        shutil.rmtree(hidden)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("options", [(), ("--user",)])
def test_what_is_printed_is_clean(install: Install, tmp_path: Path, options: tuple[str, ...]) -> None:
    unit = tmp_path / "convertd.service"
    result = install("--dry-run", *options)
    unit.write_text(result.stdout)
    scope = ["--user"] if options else []
    verified = subprocess.run(
        ["systemd-analyze", *scope, "verify", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    assert "exposure: " in result.stderr


def test_a_users_unit_is_written_once(install: Install, tmp_path: Path) -> None:
    first, second = install("--user"), install("--user")
    unit = unit_path(tmp_path)
    assert first.returncode == second.returncode == 0, first.stderr
    assert f"{unit}: written" in first.stdout
    assert f"{unit}: unchanged" in second.stdout
    assert "systemctl --user enable --now convertd-scans" in first.stdout
    assert [path.name for path in unit.parent.iterdir()] == [unit.name]


def test_a_unit_that_has_changed_takes_a_restart(install: Install, tmp_path: Path) -> None:
    install("--user")
    unit = unit_path(tmp_path)
    unit.write_text(unit.read_text() + "# of an older configuration\n")
    dry, written, again = install("--user", "--dry-run"), install("--user"), install("--user")
    commands = [f"  systemctl --user {what}" for what in ("daemon-reload", "enable convertd-scans")]
    commands.append("  systemctl --user restart convertd-scans")
    for said in (dry.stderr, written.stdout):
        assert said.partition("now run:\n")[2].splitlines() == commands
    assert "restart" not in again.stdout


def test_a_unit_of_the_system_that_has_changed_takes_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "scans.toml"
    config.write_text('[[watch]]\nname = "in"\nsource = "in"\nsink = "out"\n')
    monkeypatch.setattr(module, "SYSTEM_UNITS", str(tmp_path))
    loaded = configuration.load(str(config))
    new = module.plan(loaded, for_user=False)
    assert new.commands[-2:] == ("systemctl daemon-reload", "systemctl enable --now convertd-scans")
    Path(new.unit).write_text(new.text)
    assert module.plan(loaded, for_user=False).commands == new.commands
    Path(new.unit).write_text(new.text + "# of an older configuration\n")
    changed = ("systemctl daemon-reload", "systemctl enable convertd-scans", "systemctl restart convertd-scans")
    assert module.plan(loaded, for_user=False).commands == (*new.commands[:-2], *changed)


def test_a_unit_of_somebody_else_is_not_overwritten(install: Install, tmp_path: Path) -> None:
    unit = unit_path(tmp_path)
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    result = install("--user")
    assert result.returncode == 2
    assert "--dry-run" in result.stderr
    assert unit.read_text() == "[Service]\nExecStart=/bin/true\n"


def test_it_needs_a_configuration_without_mistakes(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("mistaken = true\n")
    result = convertd("install", "--dry-run", "--config", str(config), cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "mistaken" in result.stderr
