"""What a configuration needs of the machine: files, folders to read and to write, a network. And who may use a path."""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from daemon.config import Config, Watch
from daemon.converters.process import import_folders
from daemon.units import Network, outermost


@dataclass(frozen=True)
class Needs:
    """Paths without symbolic links. `files` is what else is read, such as the configuration; `links` are the paths as
    they are configured, where a symbolic link leads from them to what is needed, each with that."""

    sources: tuple[str, ...]
    written: tuple[str, ...]
    files: tuple[str, ...]
    network: Network
    links: tuple[tuple[str, str], ...] = ()

    @property
    def folders(self) -> tuple[str, ...]:
        """Of the files. What is bound is a folder: editors replace files, and one that is bound stays the old one."""
        return tuple(sorted({path if os.path.isdir(path) else os.path.dirname(path) for path in self.files}))


def needs(config: Config) -> Needs:
    """What the daemon needs for this configuration."""
    sources: list[str] = []
    written = [config.state_dir]
    files = [config.path, config.ocr.tessdata_dir, config.notify.secret_file, *_of_hook(config)]
    for watch in config.watches:
        disposals = (watch.on_success, watch.on_failure)
        disposed = any(disposal.action != "keep" for disposal in disposals)
        (written if disposed else sources).append(watch.source)
        written += [watch.sink, *(disposal.target for disposal in disposals)]
        files += [watch.s3.credentials_file, watch.s3.ca_bundle]
    links = _links((*sources, *written, *files))
    return Needs(_absolute(sources), _absolute(written), _absolute(files), network(config), links)


def network(config: Config) -> Network:
    """Whom the daemon talks to. A hook's command may talk to anybody."""
    if any(map(_is_remote, config.watches)) or config.notify.command or config.notify.webhook:
        return Network.ANY
    if config.metrics.listen is None:
        return Network.NONE
    return Network.LOCAL if _is_this_machine(config.metrics.listen[0]) else Network.ANY


def program() -> tuple[list[str], list[str]]:
    """The command of this very installation, and the folders without which it does not run."""
    scripts = os.path.realpath(os.path.dirname(sys.executable))  # not of the executable: a venv's is a link out of it
    script = os.path.join(scripts, "convertd")
    python = os.path.join(scripts, os.path.basename(sys.executable))
    command = [script] if os.access(script, os.X_OK) else [python, "-m", "daemon"]
    interpreter = (scripts, sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(python)))
    return command, outermost(filter(os.path.isdir, _absolute([*interpreter, *import_folders()])))


@dataclass(frozen=True)
class User:
    """Whom the daemon is to run as; `uid` is None while there is no such user."""

    name: str
    uid: int | None
    groups: frozenset[int]

    @classmethod
    def named(cls, name: str) -> User:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return cls(name, None, frozenset())
        return cls(name, entry.pw_uid, frozenset(os.getgrouplist(name, entry.pw_gid)))

    def may(self, path: str, *, write: bool = False, alone: bool = False) -> bool:
        """Whether the user may read the file, or enter and list the folder, or write there too, as far as modes tell.

        What is above it counts too unless it stands alone, as where the unit puts it into an empty home.
        """
        try:
            bits = 0o4 | 0o2 * write | 0o1 * os.path.isdir(path)
            return self._has(path, bits) and all(self._has(parent, 0o1) for parent in ([] if alone else _above(path)))
        except OSError:
            return False

    def _has(self, path: str, bits: int) -> bool:
        if self.uid == 0:
            return True
        status = os.stat(path)
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid == self.uid:
            mode >>= 6
        elif status.st_gid in self.groups:
            mode >>= 3
        return mode & bits == bits


def owner_of(folder: str) -> str | None:
    """Who owns a folder, None where it is root's or does not exist."""
    try:
        uid = os.stat(folder).st_uid
        return pwd.getpwuid(uid).pw_name if uid else None
    except (OSError, KeyError):
        return None


def primary_group(user: str) -> str:
    """The group of a user; one that does not exist yet gets a group of the same name."""
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user


def _above(path: str) -> list[str]:
    parent = os.path.dirname(path)
    return [] if parent == path else [parent, *_above(parent)]


def _absolute(paths: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({os.path.realpath(path) for path in paths if path and os.path.isabs(path)}))


def _links(paths: Iterable[str | None]) -> tuple[tuple[str, str], ...]:
    absolute = sorted({path for path in paths if path and os.path.isabs(path)})
    return tuple((path, real) for path in absolute if (real := os.path.realpath(path)) != os.path.normpath(path))


def _of_hook(config: Config) -> list[str]:
    """The program, and what an interpreter is given to run."""
    program, arguments = config.notify.command[:1], config.notify.command[1:]
    return [*program, *filter(os.path.isfile, arguments)]


def _is_remote(watch: Watch) -> bool:
    places = (watch.source, watch.sink, watch.on_success.target, watch.on_failure.target)
    return any(place and not os.path.isabs(place) for place in places)


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
