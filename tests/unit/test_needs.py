"""What a configuration needs of the machine, and who may use a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon import config as configuration
from daemon.needs import Needs, User, needs, program
from daemon.units import Network


def needed_by(folder: Path, watch: str, top: str = "") -> tuple[set[str], set[str], set[str], Network]:
    """The needs of a watch, relative to the folder of its configuration."""
    file = folder / "etc" / "config.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'state_dir = "{folder}/state"\n{top}\n[[watch]]\nname = "w"\n{watch}')
    found = needs(configuration.load(str(file)))
    sources, written, files = (
        {os.path.relpath(path, folder) for path in paths} for paths in (found.sources, found.written, found.files)
    )
    return sources, written, files, found.network


def test_a_source_that_is_kept_is_only_read(tmp_path: Path) -> None:
    watch = f'source = "{tmp_path}/in"\nsink = "{tmp_path}/out"\n'
    assert needed_by(tmp_path, watch) == ({"in"}, {"out", "state"}, {"etc/config.toml"}, Network.NONE)


def test_what_is_disposed_of_is_written(tmp_path: Path) -> None:
    watch = f'source = "{tmp_path}/in"\nsink = "{tmp_path}/out"\non_failure = "move:{tmp_path}/bad"\n'
    assert needed_by(tmp_path, watch)[:2] == (set(), {"in", "out", "bad", "state"})


def test_a_bucket_needs_the_network_and_the_files_that_it_names(tmp_path: Path) -> None:
    watch = f'source = "s3://bucket/in/"\nsink = "{tmp_path}/out"\n[watch.s3]\ncredentials_file = "{tmp_path}/aws/keys"'
    sources, written, files, network = needed_by(tmp_path, watch)
    assert (sources, written, network) == (set(), {"out", "state"}, Network.ANY)
    assert files == {"etc/config.toml", "aws/keys"}


@pytest.mark.parametrize(
    ("top", "network"),
    [
        ('[metrics]\nlisten = "127.0.0.1:9464"', Network.LOCAL),
        ('[metrics]\nlisten = "[::1]:9464"', Network.LOCAL),
        ('[metrics]\nlisten = "0.0.0.0:9464"', Network.ANY),
        ('[notify]\nwebhook = "https://example.org/"', Network.ANY),
        ('[notify]\ncommand = ["/bin/true"]', Network.ANY),
    ],
)
def test_who_is_told_or_asks_needs_a_network(tmp_path: Path, top: str, network: Network) -> None:
    watch = f'source = "{tmp_path}/in"\nsink = "{tmp_path}/out"\n'
    assert needed_by(tmp_path, watch, top)[3] is network


def test_the_folder_of_a_file_is_what_is_bound(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    files = (str(tmp_path / "etc" / "config.toml"), str(tmp_path / "data"))
    assert Needs((), (), files, Network.NONE).folders == (str(tmp_path / "data"), str(tmp_path / "etc"))


def test_a_symbolic_link_is_followed_to_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    watch = f'source = "{tmp_path}/in"\nsink = "{tmp_path}/link"\n'
    assert needed_by(tmp_path, watch)[1] == {"real", "state"}
    links = needs(configuration.load(str(tmp_path / "etc" / "config.toml"))).links
    assert links == ((f"{tmp_path}/link", f"{tmp_path}/real"),)


def test_a_hook_needs_its_program_and_what_that_is_given_to_run(tmp_path: Path) -> None:
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "tell.py").touch()
    command = ["python3", f"{tmp_path}/hooks/tell.py", f"{tmp_path}/hooks", f"{tmp_path}/log/not-there", "topic"]
    watch = f'source = "{tmp_path}/in"\nsink = "{tmp_path}/out"\n'
    assert needed_by(tmp_path, watch, f"[notify]\ncommand = {command}")[2] == {"etc/config.toml", "hooks/tell.py"}


def test_the_program_is_this_one() -> None:
    command, folders = program()
    assert os.access(command[0], os.X_OK)
    assert all(os.path.isdir(folder) for folder in folders)
    assert any(command[0].startswith(f"{folder}/") for folder in folders)


@pytest.mark.parametrize(("mode", "read", "write"), [(0o700, False, False), (0o755, True, False), (0o777, True, True)])
def test_whether_somebody_may_use_a_folder_is_told_by_its_mode(
    tmp_path: Path, mode: int, read: bool, write: bool
) -> None:
    stranger = User("stranger", None, frozenset())
    tmp_path.chmod(mode)
    assert stranger.may(str(tmp_path), alone=True) == read
    assert stranger.may(str(tmp_path), write=True, alone=True) == write


def test_the_folders_above_count_unless_it_stands_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    stranger = User("stranger", None, frozenset())
    assert not stranger.may(str(folder))
    assert stranger.may(str(folder), alone=True)


def test_a_file_is_read_without_being_entered(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("")
    stranger = User("stranger", None, frozenset())
    file.chmod(0o644)
    assert stranger.may(str(file), alone=True)
    file.chmod(0o640)
    assert not stranger.may(str(file), alone=True)


def test_owner_and_group_count(tmp_path: Path) -> None:
    status = tmp_path.stat()
    tmp_path.chmod(0o750)
    assert User("owner", status.st_uid + 1, frozenset({status.st_gid})).may(str(tmp_path), alone=True)
    assert not User("owner", status.st_uid + 1, frozenset({status.st_gid})).may(str(tmp_path), write=True, alone=True)
    assert not User("other", status.st_uid + 1, frozenset()).may(str(tmp_path), alone=True)
    assert not User("nobody", None, frozenset()).may(str(tmp_path / "missing"), alone=True)
