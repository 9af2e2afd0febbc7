"""Files as the kernel sees them: opened safely, changed atomically and durably, asked who else writes.

Paths are bytes, because names on Linux need not be UTF-8. Everything raises `OSError` unless it says otherwise.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import signal
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from daemon.errors import EnvironmentProblem
from daemon.ground import is_mount_point
from daemon.model import display

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
_NETWORK_TYPE = re.compile(
    r"9p|afs|beegfs|ceph|cifs|coda|fuse(\..*)?|gfs2|glusterfs|gpfs|lustre|ncpfs|nfs4?|ocfs2|orangefs|prl_fs|pvfs2|smb[23]"
    r"|smbfs|vboxsf|virtiofs|vmhgfs"
)
_READ_ONLY = (
    "Mount it writable. Where systemd runs convertd, a folder that is new in the configuration needs a new unit:"
    " convertd install, then systemctl daemon-reload and a restart."
)
READ_BYTES = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)


class NotRegularFile(Exception):
    """The path names something else than a regular file: a folder, a symbolic link, a FIFO, a device, a socket."""


# -- opening ---------------------------------------------------------------------------------------------------


def open_regular(path: bytes, *, dir_fd: int | None = None) -> int:
    """A read-only descriptor of a regular file. Never blocks on a FIFO, never touches a device, follows no link.

    Raises NotRegularFile for anything else.
    """
    if not stat.S_ISREG(os.lstat(path, dir_fd=dir_fd).st_mode):
        raise NotRegularFile("it is not a regular file")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotRegularFile("it is not a regular file") from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotRegularFile("it is not a regular file")
    return fd


@contextmanager
def folder_beneath(root: bytes, parts: Iterable[bytes]) -> Iterator[int]:
    """A descriptor (O_PATH: for `dir_fd` only) of the folder `parts` below `root`.

    No symbolic link below `root` is followed, so nobody who can write there leads the daemon elsewhere; one raises
    ENOTDIR.
    """
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            if part in (b"", b".", b".."):
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), part)
            inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


# -- who else writes -------------------------------------------------------------------------------------------


def written_by_others(fd: int) -> bool | None:
    """Whether anybody has the file of this read-only descriptor open for writing; None where that cannot be told.

    Asked by a read lease, given back at once. It can be had by the file's owner and with CAP_LEASE, on local file
    systems. Who opens the file for writing in these microseconds is not refused but waits for their end.
    """
    try:
        # Who breaks a lease makes the kernel send a signal, by default the deadly SIGIO; SIGURG does nothing.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    with suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def ignore_lease_breaks() -> None:
    """Ignore SIGIO, should a kernel send it in spite of F_SETSIG. To be called at start, from the main thread."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


# -- atomic and durable changes --------------------------------------------------------------------------------


def rename_noreplace(old: bytes, new: bytes, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
    """Rename, unless `new` exists (FileExistsError). Atomic where the file system knows how.

    Where it does not, a hard link and an unlink do it; a crash between them leaves both names.
    """
    source_fd = _AT_FDCWD if src_dir_fd is None else src_dir_fd
    target_fd = _AT_FDCWD if dst_dir_fd is None else dst_dir_fd
    if _libc.renameat2(source_fd, old, target_fd, new, _RENAME_NOREPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number not in _UNSUPPORTED:
        raise OSError(number, os.strerror(number), old, None, new)
    try:
        os.link(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # No hard links either: an empty file holds the name until the rename replaces it.
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, dir_fd=dst_dir_fd))
        os.rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
    else:
        os.unlink(old, dir_fd=src_dir_fd)


def fsync_directory(path: bytes, *, dir_fd: int | None = None) -> None:
    """Make the names in a folder durable. Does nothing on file systems that cannot sync folders."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(fd)


def make_directories(path: bytes) -> None:
    """Make a folder (absolute path) and its missing parents, all durable on return."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        parent = os.path.dirname(path)
        if parent == path:
            break
        path = parent
    for folder in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(folder)
        fsync_directory(os.path.dirname(folder))


def write_durably(path: bytes, chunks: Iterable[bytes | memoryview], *, dir_fd: int | None = None) -> None:
    """Make a new file (FileExistsError) with this content, synced. On an error nothing is left."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=dir_fd)
    try:
        for chunk in chunks:
            write_all(fd, chunk)
        os.fsync(fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(path, dir_fd=dir_fd)
        raise
    finally:
        os.close(fd)


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Write all of `content`, in as many calls as the kernel wants."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


# -- reading ---------------------------------------------------------------------------------------------------


def pieces(fd: int) -> Iterator[memoryview]:
    """The content of a file from its start, whatever the position: one buffer, which holds the next piece after it."""
    buffer = memoryview(bytearray(READ_BYTES))
    offset = 0
    while (count := os.preadv(fd, [buffer], offset)) > 0:
        yield buffer[:count]
        offset += count


# -- where a file lies -----------------------------------------------------------------------------------------


def filesystem_type(path: bytes) -> str:
    """The type of the file system that holds `path`, as mount(8) names it; empty where that cannot be told."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            mount_id = next((line.split()[1] for line in file if line.startswith(b"mnt_id:")), b"")
        with open("/proc/self/mountinfo", "rb") as file:
            for line in file:
                mount, _, details = line.partition(b" - ")
                if mount.split()[0] == mount_id:
                    return details.split()[0].decode("ascii", "replace")
    except FileNotFoundError:
        return ""  # no /proc here
    finally:
        os.close(fd)
    return ""


def found_in_other_case(path: bytes, *, dir_fd: int | None = None) -> bool:
    """Whether an existing file is found under its name in other case, too, as where its folder folds names."""
    folder, name = os.path.split(path)
    other = name.swapcase()
    if other == name:
        return False
    try:
        os.lstat(os.path.join(folder, other), dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    return True


def hint_for(error: OSError, otherwise: str) -> str:
    """What helps where something could not be written: a hint for people."""
    return _READ_ONLY if error.errno == errno.EROFS else otherwise


def is_network_type(filesystem: str) -> bool:
    """Whether others can change files of such a file system without this kernel's knowing."""
    return _NETWORK_TYPE.fullmatch(filesystem) is not None


def is_network_path(path: bytes) -> bool:
    """Whether `path` lies on a network file system."""
    return is_network_type(filesystem_type(path))


class RootFolder:
    """The folder of a source or sink. Made at its first use if only it is missing, but for who only looks; never again
    after that.

    A folder that disappears, or loses the disk that was mounted on it, was taken away: a new empty one in its place
    would make documents look gone and fill the wrong disk. With `silent`, it does not answer just now: then it is one
    that has been there, with what is mounted at it. Thread-safe.
    """

    def __init__(self, path: bytes, *, silent: bool = False) -> None:
        self.path = os.path.abspath(path)
        self._lock = threading.Lock()
        self._known = silent
        self._was_mount = silent and is_mount_point(self.path)

    def check(self) -> os.stat_result:
        """Its status. Raises EnvironmentProblem where it is not there, not a folder, or no longer mounted."""
        return self._checked(make=True)

    def look(self) -> os.stat_result:
        """The same for those who only look: it is never made."""
        return self._checked(make=False)

    def _checked(self, *, make: bool) -> os.stat_result:
        try:
            with self._lock:
                if make and not self._known and not os.path.lexists(self.path):
                    os.mkdir(self.path)
                    fsync_directory(os.path.dirname(self.path))
                return self._check()
        except OSError as error:
            raise EnvironmentProblem(
                f"the folder {display(self.path)} cannot be used: {error.strerror}",
                "Make the folder, mount its disk or mend its permissions; convertd goes on by itself.",
            ) from error

    def _check(self) -> os.stat_result:
        status = os.stat(self.path)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.path)
        # The parent as the kernel knows it, in one call: os.path.ismount asks for every folder on the way, and this is
        # asked for every document.
        parent = os.stat(os.path.join(self.path, b".."))
        mounted = parent.st_dev != status.st_dev or parent.st_ino == status.st_ino
        if self._was_mount and not mounted:
            raise OSError(errno.ENODEV, "the disk is no longer mounted", self.path)
        self._known, self._was_mount = True, mounted
        return status
