"""The file primitives on the real file system."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import files
from daemon.errors import EnvironmentProblem
from daemon.files import (
    NotRegularFile,
    RootFolder,
    filesystem_type,
    folder_beneath,
    found_in_other_case,
    is_network_type,
    make_directories,
    open_regular,
    pieces,
    rename_noreplace,
    write_durably,
    written_by_others,
)
from tests.harness import environment


def test_a_regular_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    fd = open_regular(os.fsencode(tmp_path / "a"))
    try:
        assert os.read(fd, 10) == b"hello"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_a_file_is_read_piece_by_piece_wherever_its_position_is(tmp_path: Path) -> None:
    content = os.urandom(files.READ_BYTES * 2 + 5)
    (tmp_path / "file").write_bytes(content)
    with open(tmp_path / "file", "rb") as file:
        file.seek(7)
        assert b"".join(bytes(piece) for piece in pieces(file.fileno())) == content


def test_an_empty_file_has_no_pieces(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with open(tmp_path / "file", "rb") as file:
        assert not list(pieces(file.fileno()))


def test_what_is_no_regular_file_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("fifo", "link", "folder", "socket"):
            with pytest.raises(NotRegularFile):
                open_regular(os.fsencode(tmp_path / name))
    with pytest.raises(NotRegularFile):
        open_regular(b"/dev/null")
    with pytest.raises(FileNotFoundError):
        open_regular(os.fsencode(tmp_path / "absent"))


def test_a_linked_folder_does_not_lead_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    root = os.fsencode(tmp_path / "root")
    with folder_beneath(root, [b"a"]) as folder:
        assert os.path.samestat(os.fstat(folder), (tmp_path / "root" / "a").stat())
    with pytest.raises(NotADirectoryError), folder_beneath(root, [b"link"]):
        pass
    for part in (b"..", b".", b""):
        with pytest.raises(FileNotFoundError), folder_beneath(root, [part]):
            pass


def test_a_writer_is_seen_as_long_as_it_has_the_file_open(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    fd = open_regular(os.fsencode(path))
    try:
        assert written_by_others(fd) is False
        with path.open("ab"):
            assert written_by_others(fd) is True
        assert written_by_others(fd) is False
        with path.open("rb"):
            assert written_by_others(fd) is False
    finally:
        os.close(fd)


def test_whoever_breaks_a_lease_does_not_kill_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    script = f"""
import fcntl, os, subprocess, sys
from daemon.files import open_regular
import daemon.files
fd = open_regular({os.fsencode(path)!r})
unlease, kept = fcntl.F_UNLCK, []
def slow(fd, command, argument):
    if argument == unlease and command == fcntl.F_SETLEASE:
        opening = "import os; os.open({str(path)!r}, os.O_WRONLY | os.O_NONBLOCK)"
        writer = subprocess.run([sys.executable, "-c", opening], stderr=subprocess.DEVNULL)
        kept.append(writer.returncode)
    return fcntl.fcntl(fd, command, argument)
class Slow:
    def __getattr__(self, name): return slow if name == "fcntl" else getattr(fcntl, name)
daemon.files.fcntl = Slow()
assert daemon.files.written_by_others(fd) is False
assert kept == [1], kept
print("alive")
"""
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())
    assert (result.returncode, result.stdout) == (0, "alive\n"), result.stderr


def test_lease_breaks_can_be_ignored() -> None:
    before = signal.getsignal(signal.SIGIO)
    try:
        files.ignore_lease_breaks()
        os.kill(os.getpid(), signal.SIGIO)
    finally:
        signal.signal(signal.SIGIO, before)


@pytest.mark.parametrize("native", [True, False])
def test_a_rename_replaces_nothing(tmp_path: Path, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not native:

        class OldKernel:
            def renameat2(self, *arguments: object) -> int:
                return -1

        monkeypatch.setattr(files, "_libc", OldKernel())
        monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EINVAL)
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        rename_noreplace(os.fsencode(tmp_path / "a"), os.fsencode(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == b"b"
    rename_noreplace(os.fsencode(tmp_path / "a"), os.fsencode(tmp_path / "c"))
    assert (tmp_path / "c").read_bytes() == b"a"
    assert not (tmp_path / "a").exists()


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    make_directories(os.fsencode(tmp_path / "a" / "b" / "c"))
    make_directories(os.fsencode(tmp_path / "a" / "b" / "c"))
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"some"
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_durably(os.fsencode(tmp_path / "a"), chunks())
    assert list(tmp_path.iterdir()) == []
    write_durably(os.fsencode(tmp_path / "a"), [b"some", memoryview(b"more")])
    with pytest.raises(FileExistsError):
        write_durably(os.fsencode(tmp_path / "a"), [b"other"])
    assert (tmp_path / "a").read_bytes() == b"somemore"


def test_a_name_in_other_case_is_looked_for(tmp_path: Path) -> None:
    for name in ("both", "BOTH", "one", "1"):
        (tmp_path / name).touch()
    found = {name for name in os.listdir(tmp_path) if found_in_other_case(os.fsencode(tmp_path / name))}
    assert found == {"both", "BOTH"}


def test_the_file_system_is_told(tmp_path: Path) -> None:
    assert filesystem_type(b"/proc") == "proc"
    assert not files.is_network_path(os.fsencode(tmp_path))
    for name in ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "fuse.sshfs"):
        assert is_network_type(name), name
    for name in ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuseblk", ""):
        assert not is_network_type(name), name


def test_a_root_folder_is_made_once_and_never_again(tmp_path: Path) -> None:
    root = RootFolder(os.fsencode(tmp_path / "inbox"))
    root.check()
    assert (tmp_path / "inbox").is_dir()
    (tmp_path / "inbox").rmdir()
    with pytest.raises(EnvironmentProblem, match="inbox cannot be used: No such file"):
        root.check()
    assert not (tmp_path / "inbox").exists()
    (tmp_path / "inbox").mkdir()
    root.check()


def test_who_only_looks_makes_no_root_folder(tmp_path: Path) -> None:
    root = RootFolder(os.fsencode(tmp_path / "inbox"))
    with pytest.raises(EnvironmentProblem, match="inbox cannot be used: No such file"):
        root.look()
    assert not (tmp_path / "inbox").exists()
    root.check()
    root.look()
    (tmp_path / "inbox").rmdir()
    with pytest.raises(EnvironmentProblem, match="No such file"):
        root.look()


def test_a_root_folder_that_was_looked_at_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    root = RootFolder(os.fsencode(tmp_path / "inbox"))
    root.look()
    (tmp_path / "inbox").rmdir()
    with pytest.raises(EnvironmentProblem, match="No such file"):
        root.check()


def test_a_root_folder_is_not_made_without_its_parent(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="No such file"):
        RootFolder(os.fsencode(tmp_path / "disk" / "inbox")).check()
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentProblem, match="Not a directory"):
        RootFolder(os.fsencode(tmp_path / "file")).check()


def test_a_root_folder_notices_that_its_disk_is_gone(tmp_path: Path) -> None:
    mount, disk, linked = ("mount", "-t", "tmpfs", "tmpfs", str(tmp_path)), os.fsencode(tmp_path), tmp_path.parent / "l"
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount")
    linked.symlink_to(tmp_path)
    roots = [RootFolder(disk), RootFolder(os.fsencode(linked))]
    try:
        for root in roots:
            root.check()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    for root in roots:
        with pytest.raises(EnvironmentProblem, match="no longer mounted"):
            root.check()
    subprocess.run(mount, check=True)
    try:
        for root in roots:
            root.check()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
