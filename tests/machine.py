"""A small Debian with a real systemd as its process 1, in a container of systemd-nspawn.

Its root is an overlay in memory over a tree that debootstrap made once: CONVERTD_TEST_ROOT, or /var/cache/
convertd-test-root. This Python and this checkout are bound in read-only where they are. It has no network.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.harness import DEADLINE_SECONDS, ROOT

TREE = Path(os.environ.get("CONVERTD_TEST_ROOT", "/var/cache/convertd-test-root"))
TOOLS = ("systemd-nspawn", "debootstrap", "nsenter", "unshare")
PACKAGES = "systemd,systemd-sysv,dbus,python3"  # the last for the libraries that the bound Python needs, too
BOOTSTRAP_SECONDS = 900
BOOT_SECONDS = 120
# In a mount namespace of its own: the root, and a hierarchy of control groups even where the host has the old ones.
# Arguments: the tree, an empty folder, and the command.
LAUNCH = """
tree=$1 work=$2; shift 2
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/work" "$work/root"
if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount -R -l /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
group=/sys/fs/cgroup/convertd-test-$$
mkdir "$group"
(echo $BASHPID >"$group/cgroup.procs"; exec "$@" --directory="$work/root") || status=$?
find "$group" -depth -type d -exec rmdir {} + || true
exit "${status:-0}"
"""


def unavailable() -> str | None:
    """Why this machine cannot boot one; None where it can, as far as that is to be seen without trying."""
    if os.geteuid() != 0:
        return "only root can boot a container"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if "debootstrap" in missing and TREE.is_dir():
        missing.remove("debootstrap")
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install debootstrap systemd-container)"
    if not TREE.is_dir() and debian_release() is None:
        return f"this is no Debian to be copied: put a tree into {TREE}"
    return None


def debian_release() -> str | None:
    """The name of the release that this machine has, if it is Debian: its libraries must fit the bound Python."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values.get("VERSION_CODENAME") if values.get("ID") == "debian" else None


def tree() -> Path:
    """The tree, made now if it is not there yet. Raises RuntimeError with the reason where that fails."""
    TREE.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{TREE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not TREE.is_dir():
            unfinished = Path(f"{TREE}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", str(debian_release())]
            try:
                subprocess.run(
                    [*command, str(unfinished)],
                    check=True,
                    timeout=BOOTSTRAP_SECONDS,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            except subprocess.SubprocessError as error:
                said = (getattr(error, "stdout", None) or b"").decode(errors="replace")
                raise RuntimeError(f"{error}: {said[-500:]}") from error
            unfinished.rename(TREE)
    return TREE


class Machine:
    """A booted container. `leader` is its process 1 as the host numbers it."""

    def __init__(self, leader: int) -> None:
        self.leader = leader
        self.root = Path(f"/proc/{leader}/root")

    def run(self, *command: str, check: bool = True, env: dict[str, str] | None = None) -> str:
        """Run a command in it, as its root; returns what it said on both outputs."""
        enter = ["nsenter", f"--target={self.leader}", "--all", "--root", "--wd"]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **(env or {})}
        result = subprocess.run(
            [*enter, *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: exit code {result.returncode}:\n{result.stdout}")
        return result.stdout

    def path(self, inside: str) -> Path:
        """Where the host finds a file of it."""
        return self.root / inside.lstrip("/")

    def write(self, inside: str, content: bytes | str) -> None:
        """A file that appears at once."""
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = target.parent / f".{target.name}.tmp"
        hidden.write_bytes(content if isinstance(content, bytes) else content.encode())
        hidden.rename(target)


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    """A machine that is up, and gone afterwards. Raises RuntimeError where it does not come up."""
    name = f"convertd-test-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix=name) as folder:
        told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        told.bind(f"{folder}/notify")
        log = Path(folder, "console")
        (work := Path(folder, "work")).mkdir()
        launch = ["unshare", "--mount", "--propagation=private", "bash", "-euc", LAUNCH, "launch"]
        with log.open("wb") as console:
            process = subprocess.Popen(
                [*launch, str(tree()), str(work), *_nspawn(name)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, "NOTIFY_SOCKET": f"{folder}/notify"},
            )
        leader = None
        try:
            with told:  # and no longer: what nobody reads would fill it, and whoever writes would wait
                leader = _ready(told, process, log)
            yield Machine(leader)
        finally:
            _end(process, leader)


def _nspawn(name: str) -> list[str]:
    bound = {str(ROOT), os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}
    return [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--keep-unit",
        "--register=no",
        "--notify-ready=yes",
        "--private-network",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        f"--machine={name}",
        # Its own list of allowed calls is older than these.
        "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self",
        *(f"--bind-ro={path}" for path in sorted(bound)),
    ]


def _ready(told: socket.socket, process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until process 1 says that it has booted; returns its number."""
    leader, deadline = 0, time.monotonic() + BOOT_SECONDS
    told.settimeout(1)
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            for line in told.recv(4096).decode().splitlines():
                if line.startswith("X_NSPAWN_LEADER_PID="):
                    leader = int(line.partition("=")[2])
                if line == "READY=1" and leader:
                    return leader
    raise RuntimeError(f"systemd does not boot in a container:\n{log.read_text(errors='replace')[-3000:]}")


def _end(process: subprocess.Popen[bytes], leader: int | None) -> None:
    """Processes of a container end with its process 1."""
    if leader is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(leader, signal.SIGKILL)
    else:
        process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(30)
