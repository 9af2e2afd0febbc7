"""The text of units: what is written into them, and how paths and commands are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.errors import UsageError
from daemon.units import Network, Unit, command_line, outermost, quoted, shipped, text
from tests.harness import ROOT

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
WORST_EXPOSURE = 1.5
ODD = '/srv/a b%c"d\\e$f:g'


def settings(unit: Unit, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text(unit), re.MULTILINE)


def analyzed(
    folder: Path, unit: str, *arguments: str, name: str = "convertd.service"
) -> subprocess.CompletedProcess[str]:
    path = folder / name
    # verify wants the command and the user to be there, which is not what is asked here
    path.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit, flags=re.MULTILINE))
    return subprocess.run([str(ANALYZE), *arguments, str(path)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", ["convertd.service", "convertd@.service", "convertd.sysusers.conf"])
def test_the_shipped_files_are_what_the_code_makes(name: str) -> None:
    assert (ROOT / "systemd" / name).read_text() == shipped()[name], (
        'write them anew: python -c "from daemon.units import shipped; '
        "[open(f'systemd/{name}', 'w').write(text) for name, text in shipped().items()]\""
    )


@needs_systemd
@pytest.mark.parametrize("network", Network)
def test_a_unit_is_clean_and_little_exposed(tmp_path: Path, network: Network) -> None:
    unit = text(Unit("", "/bin/true", read=[ODD, "/home/a/in"], write=["/srv/out", "/root/state"], network=network))
    verified = analyzed(tmp_path, unit, "verify")
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    said = analyzed(tmp_path, unit, "security", "--offline=true", "--no-pager").stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found is not None and float(found[1]) <= WORST_EXPOSURE, said


@needs_systemd
@pytest.mark.parametrize("name", ["convertd.service", "convertd@.service"])
def test_a_shipped_unit_is_clean_and_little_exposed(tmp_path: Path, name: str) -> None:
    verified = analyzed(tmp_path, shipped()[name], "verify", name=name)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    said = analyzed(tmp_path, shipped()[name], "security", "--offline=true", "--no-pager", name=name).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found is not None and float(found[1]) <= WORST_EXPOSURE, said


def test_paths_are_escaped() -> None:
    assert quoted("/srv/in-box_1/ä.b+c@d") == "/srv/in-box_1/ä.b+c@d"
    assert quoted(ODD) == '"/srv/a b%%c\\"d\\\\e$f:g"'
    assert quoted("/srv/it's") == '"/srv/it\'s"'
    assert command_line(["/opt/my $x/convertd", "run"]) == '"/opt/my $$x/convertd" run'


@pytest.mark.parametrize("path", ["/srv/a\nExecStart=/bin/sh", "/srv/\x07", "/srv/\udcff"])
def test_what_cannot_be_written_into_a_unit_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        quoted(path)


def test_only_what_is_named_can_be_written() -> None:
    unit = Unit("", "/bin/true", read=["/srv/in"], write=["/srv/out", "/srv/out/deeper", "/srv/done"])
    assert settings(unit, "ProtectSystem") == ["strict"]
    assert settings(unit, "ReadOnlyPaths") == ["-/srv/in"]
    assert settings(unit, "ReadWritePaths") == ["-/srv/done", "-/srv/out"]
    assert settings(unit, "ProtectHome") == ["yes"]


def test_what_lies_in_a_hidden_place_is_bound_into_an_empty_one() -> None:
    unit = Unit("", "/bin/true", read=["/home/a/in", "/opt/x"], write=["/root/out", "/tmp/state"])
    assert settings(unit, "ProtectHome") == ["tmpfs"]
    assert settings(unit, "TemporaryFileSystem") == ["/root:ro"]
    assert settings(unit, "PrivateTmp") == ["yes"]
    assert settings(unit, "BindReadOnlyPaths") == ["-/home/a/in"]
    assert settings(unit, "BindPaths") == ["-/root/out", "-/tmp/state"]
    assert settings(unit, "ReadOnlyPaths") == ["-/opt/x"]


def test_a_folder_both_read_and_written_is_written() -> None:
    unit = Unit("", "/bin/true", read=["/srv/a"], write=["/srv/a"])
    assert (settings(unit, "ReadOnlyPaths"), settings(unit, "ReadWritePaths")) == ([], ["-/srv/a"])


def test_a_network_is_given_to_those_that_need_one() -> None:
    none, local, anybody = (Unit("", "/bin/true", network=network) for network in Network)
    assert settings(none, "PrivateNetwork") == ["yes"]
    assert settings(none, "RestrictAddressFamilies") == ["AF_UNIX"]
    assert (settings(local, "IPAddressAllow"), settings(local, "IPAddressDeny")) == (["localhost"], ["any"])
    assert settings(anybody, "PrivateNetwork") == settings(anybody, "IPAddressDeny") == []
    assert settings(anybody, "Wants") == ["network-online.target"]


def test_the_manager_is_told_how_to_reload() -> None:
    assert settings(Unit("", "/bin/true"), "Type") == ["notify"]
    assert settings(Unit("", "/bin/true"), "ExecReload") == ['/bin/sh -c "kill -HUP ${MAINPID}"']
    newer = Unit("", "/bin/true", told_of_reloads=True)
    assert (settings(newer, "Type"), settings(newer, "ExecReload")) == (["notify-reload"], [])


def test_a_users_unit_asks_for_nothing_that_only_root_may_give() -> None:
    unit = Unit("", "/bin/true", user="", write=["/srv/out"], network=Network.NONE)
    for key in ("User", "StateDirectory", "CapabilityBoundingSet", "ProtectSystem", "ReadWritePaths", "PrivateNetwork"):
        assert settings(unit, key) == []
    assert settings(unit, "WantedBy") == ["default.target"]
    assert settings(unit, "SystemCallFilter")


def test_outermost_folders() -> None:
    assert outermost(["/a/b", "/a", "/ab", "/c", "/c"]) == ["/a", "/ab", "/c"]
