"""Makes convertd a service: the unit for a configuration, where it goes, and what is left to be done by hand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from daemon.config import Config
from daemon.errors import UsageError
from daemon.files import fsync_directory
from daemon.needs import Needs, User, needs, owner_of, primary_group, program
from daemon.units import HIDDEN, HOMES, TEMPORARY, USER, USERS, Network, Unit, below, command_line, text

SYSTEM_UNITS = "/etc/systemd/system"
SYSUSERS = "/etc/sysusers.d/convertd.conf"
STATE_ROOT = "/var/lib"
MARK = "Written by `convertd install`"
NOTIFY_RELOAD_SINCE = 253
TOOL_SECONDS = 30.0


@dataclass(frozen=True)
class Plan:
    """What `convertd install` is about to do: files by path, commands to run afterwards, things worth knowing."""

    unit: str
    files: dict[str, str]
    commands: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """Of the unit."""
        return self.files[self.unit]


def plan(config: Config, *, for_user: bool) -> Plan:
    """What there is to do for a configuration that came from a file. Changes nothing."""
    assert config.path is not None
    return _for_user(config, config.path) if for_user else _for_system(config, config.path)


def carry_out(plan: Plan) -> list[str]:
    """Write the files, each at once and durably; returns the paths of those that were not there like that already.

    Raises UsageError, with nothing written, where a file of somebody else is in the way.
    """
    for path, content in plan.files.items():
        _refuse_foreign(path, content)
    return [path for path, content in plan.files.items() if _write(path, content)]


def exposure(unit: str) -> str | None:
    """What `systemd-analyze security` says of a unit's text, such as "1.2 OK"; None where it cannot be asked."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "convertd.service")
        with open(path, "w") as file:
            file.write(unit)
        said = _ask("systemd-analyze", "security", "--offline=true", "--no-pager", path)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+ \w+)", said)
    return found[1] if found else None


def unit_name(path: str) -> str:
    """The name of the service for a configuration file: one for each file that is not called like the default."""
    stem = re.sub(r"[^\w.-]", "-", os.path.basename(path).removesuffix(".toml"), flags=re.ASCII)
    return USER if stem in ("config", "convertd", "") else f"convertd-{stem}"


# -- for the system --------------------------------------------------------------------------------------------------


def _for_system(config: Config, path: str) -> Plan:
    needed, (command, folders) = needs(config), program()
    user = User.named(owner_of(config.state_dir) or USER)
    state_dir = os.path.realpath(config.state_dir)
    state_directory = _below_state_root(state_dir)
    hidden = tuple(folder for folder in (*folders, *needed.folders) if below(folder, HIDDEN))
    written = tuple(folder for folder in needed.written if not (state_directory and folder == state_dir))
    unit = Unit(
        head=_head(path),
        command=command_line([*command, "run", "--config", path]),
        user=user.name,
        state_directory=state_directory,
        read=(*needed.sources, *hidden),
        write=written,
        network=needed.network,
        told_of_reloads=_manager_version() >= NOTIFY_RELOAD_SINCE,
    )
    name = unit_name(path)
    target = os.path.join(SYSTEM_UNITS, f"{name}.service")
    files = {target: text(unit)}
    commands = []
    if user.uid is None:
        files[SYSUSERS] = USERS
        commands.append(f"systemd-sysusers {SYSUSERS}")
    commands += _missing(needed.sources, written, user.name)
    commands += _start("systemctl", name, target, files[target])
    notes = [*_on_places(hidden, needed), *_on_moves(config, user), *_on_network(needed), *_on_hook(config)]
    notes += _on_rights(user, folders, needed, written)
    return Plan(target, files, tuple(commands), tuple(notes))


def _below_state_root(state_dir: str) -> str:
    relative = os.path.relpath(state_dir, STATE_ROOT)
    plain = re.fullmatch(r"[\w@+=-][\w@+=./-]*", relative, re.ASCII)
    return relative if plain and relative != os.curdir else ""


def _missing(sources: Sequence[str], written: Sequence[str], user: str) -> list[str]:
    owner = f"-o {shlex.quote(user)} -g {shlex.quote(primary_group(user))}"
    missing = [folder for folder in (*sources, *written) if not os.path.isdir(folder)]
    return [f"install -d {owner} {shlex.quote(folder)}" for folder in missing]


def _on_places(hidden: Sequence[str], needed: Needs) -> list[str]:
    places = sorted({*hidden, *needed.sources, *needed.written})
    notes = []
    if bound := [folder for folder in places if below(folder, HOMES)]:
        notes.append(f"homes are hidden from the service (ProtectHome=tmpfs) but for: {', '.join(bound)}")
    if temporary := [folder for folder in places if below(folder, TEMPORARY)]:
        notes.append(f"no place to stay, as it is cleaned now and then: {', '.join(temporary)}")
    notes += [
        f"{link} is not there for the service, which sees no links in {' and '.join(HIDDEN)}: write {real} instead"
        for link, real in needed.links
        if below(link, HIDDEN) and not below(link, places)
    ]
    return notes


def _on_moves(config: Config, user: User) -> list[str]:
    disposals = [disposal for watch in config.watches for disposal in (watch.on_success, watch.on_failure)]
    targets = sorted({disposal.target for disposal in disposals if os.path.isabs(disposal.target)})
    if not targets:
        return []
    # Each folder that may be written is a mount of its own in the service, and no rename leads from one to another.
    return [f"what is moved is copied, and belongs to {user.name} then: {', '.join(targets)}"]


def _on_network(needed: Needs) -> list[str]:
    if needed.network is Network.ANY:
        return []
    what = "no network" if needed.network is Network.NONE else "this machine only"
    return [f"the service gets {what}, as the configuration needs no more; run this again once it does"]


def _on_hook(config: Config) -> list[str]:
    if not config.notify.command:
        return []
    return [
        "notify.command runs within the limits of the unit; one that compiles at run time (Java, JavaScript) needs"
        " MemoryDenyWriteExecute=no, by `systemctl edit`"
    ]


def _on_rights(user: User, folders: Sequence[str], needed: Needs, written: Sequence[str]) -> list[str]:
    """What the user may not do as things stand; what does not exist yet is made for it."""
    notes = [
        f"{user.name} may not read {folder}: convertd is installed where others may not look"
        for folder in folders
        if not _may(user, folder)
    ]
    for verb, paths in (("read", (*needed.files, *needed.sources)), ("write to", written)):
        for path in paths:
            if os.path.exists(path) and not _may(user, path, write=verb != "read"):
                notes.append(f"{user.name} may not {verb} {path}: give it the right, for example by a group")
    return notes


def _may(user: User, path: str, *, write: bool = False) -> bool:
    return user.may(path, write=write, alone=below(path, HIDDEN))


# -- for one user ----------------------------------------------------------------------------------------------------


def _for_user(config: Config, path: str) -> Plan:
    command, _ = program()
    unit = Unit(
        head=f"{_head(path)}\nA user's service manager has not the rights for the rest of the hardening.",
        command=command_line([*command, "run", "--config", path]),
        user="",
        network=needs(config).network,
        told_of_reloads=_manager_version() >= NOTIFY_RELOAD_SINCE,
    )
    name = unit_name(path)
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    target = os.path.join(folder, "systemd", "user", f"{name}.service")
    content = text(unit)
    commands = _start("systemctl --user", name, target, content)
    notes = ("it runs while you are logged in; to have it run always: loginctl enable-linger",)
    return Plan(target, {target: content}, tuple(commands), notes)


# -- what both have in common ----------------------------------------------------------------------------------------


def _head(path: str) -> str:
    printed = path if path.isprintable() else repr(path)
    return f"{MARK} for {printed}\nIt is written anew by the next one: put changes into `systemctl edit`."


def _start(systemctl: str, name: str, path: str, content: str) -> list[str]:
    """The commands that have the service run under its unit: one that runs already takes up a new unit at a restart."""
    if _text(path) in (None, content):
        return [f"{systemctl} daemon-reload", f"{systemctl} enable --now {name}"]
    return [f"{systemctl} daemon-reload", f"{systemctl} enable {name}", f"{systemctl} restart {name}"]


def _text(path: str) -> str | None:
    """Of a file that is there and can be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _refuse_foreign(path: str, content: str) -> None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            there = file.read()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "Run it as root, or with --user.") from error
    if there.partition("\n")[0] != content.partition("\n")[0]:
        raise UsageError(
            f"{path} is there already, and not by an earlier `convertd install` of this configuration",
            "Move it away, or see with --dry-run what would be written and merge the two.",
        )


def _write(path: str, content: str) -> bool:
    """False where the file was like that already."""
    if _text(path) == content:
        return False
    temporary = f"{path}.tmp"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
        fsync_directory(os.fsencode(os.path.dirname(path)))
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise UsageError(f"{path} cannot be written: {error.strerror}", "Run it as root, or with --user.") from error
    return True


def _manager_version() -> int:
    """Of systemd; 0 where there is none."""
    found = re.match(r"systemd (\d+)", _ask("systemctl", "--version"))
    return int(found[1]) if found else 0


def _ask(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
