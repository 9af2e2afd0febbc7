"""The text of the units under which a service manager runs convertd.

Values that people write (paths, commands) go through `quoted` and `command_line`; everything else is ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from daemon.errors import UsageError

HOMES = ("/home", "/root", "/run/user")
TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 (named, not used)
HIDDEN = (*HOMES, *TEMPORARY)
"""Where a service finds nothing but what its unit puts there."""
USER = "convertd"
DESCRIPTION = "convertd: documents to Markdown"
USERS = f"""\
# The user that convertd runs as; see sysusers.d(5).
u {USER} - "Documents to Markdown" /var/lib/{USER}
"""
_TO_BE_FILLED_IN = """\
convertd under systemd, to be filled in; `convertd install` writes one that is made for a configuration.

Put this into /etc/systemd/system, convertd.sysusers.conf to /etc/sysusers.d/convertd.conf, and run systemd-sysusers.
{configuration}
Name the folders that convertd writes to (sinks, targets of moves, sources that it deletes from), and with a virtual
environment its command, with: systemctl edit {name}
    [Service]
    ReadWritePaths=-/srv/outbox
    ExecStart=
    ExecStart=/opt/convertd/bin/convertd run --config /etc/convertd/{file}.toml"""
RELOAD_BY_SIGNAL = """\
# Small systems have no program called kill.
ExecReload=/bin/sh -c "kill -HUP ${MAINPID}\""""
SHIPPED_HEAD = _TO_BE_FILLED_IN.format(
    name="convertd",
    file="config",
    configuration='The configuration is /etc/convertd/config.toml, with state_dir = "/var/lib/convertd".',
)
SHIPPED_TEMPLATE_HEAD = _TO_BE_FILLED_IN.format(
    name="convertd@",
    file="%i",
    configuration="""\
It is for several daemons on one machine: systemctl enable --now convertd@scans has /etc/convertd/scans.toml as its
configuration, with state_dir = "/var/lib/convertd/scans".""",
)


class Network(Enum):
    """Whom the daemon talks to: nobody, this machine, or whoever the network leads to."""

    NONE = "none"
    LOCAL = "local"
    ANY = "any"


@dataclass(frozen=True)
class Unit:
    """What tells one unit from another; the fields are text of the unit unless said otherwise.

    `user` is empty for a unit of a user's own service manager, which has not the rights for most of the hardening.
    `state_directory` is what lies below /var/lib, if the state does. `read` and `write` are paths as they are, without
    symbolic links. `told_of_reloads` is whether the manager knows Type=notify-reload (253 and later).
    """

    head: str
    command: str
    user: str = USER
    state_directory: str = ""
    read: Sequence[str] = ()
    write: Sequence[str] = ()
    network: Network = Network.ANY
    told_of_reloads: bool = False
    description: str = DESCRIPTION


def text(unit: Unit) -> str:
    """The unit file."""
    sections = [_comment(unit.head), _order(unit), _life(unit)]
    if unit.user:
        sections += [_secrets(), _rights(), _files(unit), _kernel()]
    sections += [_network(unit), _calls(), _install(unit)]
    return "\n".join(f"{section.strip()}\n" for section in sections)


def shipped() -> dict[str, str]:
    """The units in the project's folder `systemd`, by name: for those who would rather fill in one themselves."""
    one = Unit(SHIPPED_HEAD, "/usr/bin/env convertd run --config /etc/convertd/config.toml", state_directory=USER)
    many = Unit(
        SHIPPED_TEMPLATE_HEAD,
        "/usr/bin/env convertd run --config /etc/convertd/%i.toml",
        state_directory=f"{USER}/%i",
        description=f"{DESCRIPTION} (%i)",
    )
    return {"convertd.service": text(one), "convertd@.service": text(many), "convertd.sysusers.conf": USERS}


def quoted(path: str) -> str:
    """A path as a word of a setting. Raises UsageError for one that no unit can name."""
    if not path.isprintable():
        raise UsageError(f"a unit cannot name the path {path!r}", "Rename it: no line breaks or control characters.")
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if re.fullmatch(r"[\w%./+@,=-]+", escaped) else f'"{escaped}"'


def command_line(words: Iterable[str]) -> str:
    """A command as ExecStart= takes it."""
    return " ".join(quoted(word).replace("$", "$$") for word in words)


def below(path: str, folders: Iterable[str]) -> bool:
    """Whether a path is one of the folders or in one of them."""
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def outermost(paths: Iterable[str]) -> list[str]:
    """Without those that lie in others."""
    unique = sorted(set(paths))
    return [path for path in unique if not below(path, (other for other in unique if other != path))]


def _comment(head: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in head.splitlines())


def _order(unit: Unit) -> str:
    after = "local-fs.target remote-fs.target"
    network = ""
    if unit.network is Network.ANY:
        after += " network-online.target nss-lookup.target"
        network = "Wants=network-online.target\n"
    return f"""
[Unit]
Description={unit.description}
Documentation=https://pypi.org/project/convertd/
{f"After={after}{chr(10)}{network}" if unit.user else ""}\
# However often it ends, it is started again: what ended it may be a disk that somebody mends.
StartLimitIntervalSec=0
"""


def _life(unit: Unit) -> str:
    kind = "Type=notify-reload" if unit.told_of_reloads else f"Type=notify\n{RELOAD_BY_SIGNAL}"
    user = f"User={unit.user}\n" if unit.user else ""
    state = f"StateDirectory={unit.state_directory}\nStateDirectoryMode=0700\n" if unit.state_directory else ""
    return f"""
[Service]
{kind}
ExecStart={unit.command}
{user}{state}\
# Before it is ready it may migrate its state, and tidy large outboxes.
TimeoutStartSec=15min
# A stop drains for 25 s, then gives running jobs back. SIGTERM goes to the daemon alone, which ends its converters.
KillMode=mixed
TimeoutStopSec=60
# Fed by jobs being handed out and by the job table's writer; a disk or a server that does not answer starves nothing.
WatchdogSec=2min
Restart=on-failure
RestartSec=5
# 2: a mistake in the configuration; 4: another daemon holds the state. A restart would change neither.
RestartPreventExitStatus=2 4
# A converter that takes all memory is one failed document.
OOMPolicy=continue
TasksMax=4096
LimitNOFILE=8192
LimitCORE=0
UMask=0027
"""


def _secrets() -> str:
    return """
# Secrets that root alone can read, handed over under %d:
#LoadCredential=aws:/etc/convertd/aws-credentials
#Environment=AWS_SHARED_CREDENTIALS_FILE=%d/aws
#LoadCredential=notify:/etc/convertd/notify-secret
# the latter with secret_file = "/run/credentials/NAME-OF-THIS-UNIT.service/notify" in the configuration.
"""


def _rights() -> str:
    return """
# One privilege: to see of files that it does not own whether somebody still writes them. (No PrivateUsers=: it would
# be worth nothing in there.)
AmbientCapabilities=CAP_LEASE
CapabilityBoundingSet=CAP_LEASE
"""


def _files(unit: Unit) -> str:
    write = outermost(unit.write)
    read = [path for path in outermost(unit.read) if path not in write]
    paths = (*read, *write)
    lines = [
        "# Everything is read-only but what is named here. A folder that is missing (-) does not hinder the others.",
        "ProtectSystem=strict",
        # What is bound into an empty home is all there is of it.
        f"ProtectHome={'tmpfs' if any(below(path, HOMES) for path in paths) else 'yes'}",
        # An empty /root that others than root may look into: since systemd 257 ProtectHome= makes it otherwise.
        *(["TemporaryFileSystem=/root:ro"] if any(below(path, ("/root",)) for path in paths) else []),
        "PrivateTmp=yes",
        *(f"ReadOnlyPaths=-{quoted(path)}" for path in read if not below(path, HIDDEN)),
        *(f"ReadWritePaths=-{quoted(path)}" for path in write if not below(path, HIDDEN)),
        *(f"BindReadOnlyPaths=-{quoted(path)}" for path in read if below(path, HIDDEN)),
        *(f"BindPaths=-{quoted(path)}" for path in write if below(path, HIDDEN)),
    ]
    return "\n".join(lines)


def _kernel() -> str:
    return """
PrivateMounts=yes
PrivateDevices=yes
DevicePolicy=closed
PrivateIPC=yes
RemoveIPC=yes
KeyringMode=private
ProtectProc=invisible
ProcSubset=pid
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
"""


def _network(unit: Unit) -> str:
    if unit.network is Network.ANY:
        return "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
    if unit.network is Network.LOCAL:
        families = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
        return f"# Only this machine is talked to.\n{families}\nIPAddressAllow=localhost\nIPAddressDeny=any"
    private = "PrivateNetwork=yes\n" if unit.user else ""
    return (
        f"# Nothing in the configuration needs a network.\n{private}RestrictAddressFamilies=AF_UNIX\nIPAddressDeny=any"
    )


def _calls() -> str:
    return """
NoNewPrivileges=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
# With the calls by which converters shut themselves up.
SystemCallFilter=@system-service landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
"""


def _install(unit: Unit) -> str:
    return f"[Install]\nWantedBy={'multi-user' if unit.user else 'default'}.target"
