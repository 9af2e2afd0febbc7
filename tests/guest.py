"""A virtual machine of qemu that sees the files of this one, read-only, and one disk of its own at /mnt.

Its kernel and a busybox are packages of Debian, fetched once into CONVERTD_TEST_KERNEL, or
/var/cache/convertd-test-kernel. It has no network.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gzip
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.harness import ROOT, until

CACHE = Path(os.environ.get("CONVERTD_TEST_KERNEL", "/var/cache/convertd-test-kernel"))
VIRTIOFSD_PATH = "/usr/lib/qemu:/usr/libexec"
"""Of Debian 12, where it comes with qemu, and of later ones, where it is a package."""
PROBE_SECONDS = 20
MODULES = ("virtio_pci", "virtio_blk", "virtiofs")
FETCH = """
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \\(linux-image-[0-9].*\\)/\\1/p' | head -n 1)
apt-get download -qq "$kernel" busybox-static
for package in *.deb; do dpkg -x "$package" .; done
rm -- *.deb
"""
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
for module in /modules/*; do /bin/busybox insmod "$module"; done
/bin/busybox mount -t virtiofs -o ro files /root || exec /bin/busybox poweroff -f
/bin/busybox mount -t devtmpfs dev /root/dev
/bin/busybox mkdir -p /root/dev/shm 2>/dev/null
/bin/busybox mount -t proc proc /root/proc
/bin/busybox mount -t sysfs sys /root/sys
/bin/busybox mount -t tmpfs tmp /root/tmp
/bin/busybox mount -t tmpfs run /root/run
/bin/busybox mount -t tmpfs shm /root/dev/shm
/bin/busybox mount -t ext4 -o {options} /root/dev/vda /root/mnt || echo "GUEST cannot mount"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 PYTHONPATH={root} PYTHONDONTWRITEBYTECODE=1
cd /
exec /bin/busybox switch_root -c /dev/console /root {command}
"""


def unavailable() -> str | None:
    """Why this machine cannot have one; None where it can, as far as that is to be seen without trying."""
    if os.geteuid() != 0:
        return "only root can share its files with a virtual machine"
    missing = [tool for tool in ("qemu-system-x86_64", "mke2fs") if shutil.which(tool) is None]
    if _virtiofsd() is None:
        missing.append("virtiofsd")
    if missing:
        remedy = "apt-get install qemu-system-x86 e2fsprogs, and after Debian 12 virtiofsd"
        return f"not installed: {', '.join(missing)} ({remedy})"
    if not CACHE.is_dir() and shutil.which("apt-get") is None:
        return f"this is no Debian to fetch a kernel with: unpack one, and a busybox, into {CACHE}"
    return None


def _virtiofsd() -> str | None:
    return shutil.which("virtiofsd", path=VIRTIOFSD_PATH)


def kernel() -> Path:
    """The folder with kernel, modules and busybox, filled now if it is not. Raises RuntimeError where that fails."""
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{CACHE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not CACHE.is_dir():
            unfinished = Path(f"{CACHE}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            fetched = subprocess.run(["sh", "-ec", FETCH], cwd=unfinished, capture_output=True, text=True, timeout=600)
            if fetched.returncode != 0:
                raise RuntimeError(f"no kernel could be fetched: {fetched.stderr[-500:]}")
            unfinished.rename(CACHE)
    return CACHE


@functools.cache
def accelerated() -> bool:
    """Whether /dev/kvm boots this kernel: some that are there do not. Without it all takes some ten times as long."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-machine", "q35,accel=kvm"]
    image = str(next(kernel().glob("boot/vmlinuz-*")))
    command += ["-cpu", "host", "-m", "512M", "-kernel", image, "-append", "panic=-1"]
    try:  # it finds no root, and gives up
        return subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def initramfs(command: str, options: str) -> bytes:
    """What the kernel starts: it mounts the files and the disk, then runs the command as process 1."""
    home = kernel()
    entries: dict[str, bytes | None] = dict.fromkeys(("bin", "proc", "root", "modules", "dev"))
    entries["bin/busybox"] = (home / "bin" / "busybox").read_bytes()
    for number, module in enumerate(_in_order(home)):
        entries[f"modules/{number:02}-{module.name}"] = module.read_bytes()
    entries["init"] = INIT.format(root=ROOT, command=command, options=options).encode()
    archive = b"".join(_entry(name, content) for name, content in entries.items())
    return gzip.compress(archive + _entry("TRAILER!!!", b""), 1)


def _in_order(home: Path) -> list[Path]:
    """The modules with those that they need before them."""
    files = {path.stem.replace("-", "_"): path for path in home.glob("lib/modules/*/kernel/**/*.ko")}
    found: list[Path] = []

    def add(name: str) -> None:
        path = files[name]
        if path not in found:
            for needed in re.findall(rb"depends=([^\0]+)\0", path.read_bytes()):
                for one in needed.decode().split(","):
                    add(one.replace("-", "_"))
            found.append(path)

    for name in MODULES:
        add(name)
    return found


def _entry(name: str, content: bytes | None) -> bytes:
    """A file, or a folder, of a cpio archive."""
    mode = 0o040755 if content is None else 0o100755
    body = content or b""
    fields = (0, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + body + bytes(-len(body) % 4)


def formatted(size_bytes: int) -> bytes:
    """A disk with an empty ext4."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(size_bytes)
        command = ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", file.name]
        subprocess.run(command, check=True, capture_output=True)
        return Path(file.name).read_bytes()


class Guest:
    """A machine that runs. `lines` has what it says on its console."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.said: list[str] = []
        self._process = process
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def next_line(self, deadline: float) -> str | None:
        """What it says next; None after the deadline (monotonic)."""
        with contextlib.suppress(queue.Empty):
            return self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
        return None

    def kill(self) -> None:
        """Gone at once, its memory and all."""
        self._process.kill()
        self._process.wait(30)
        self._thread.join(30)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            line = raw.decode(errors="replace").strip()
            self.said.append(line)
            self.lines.put(line)


@contextlib.contextmanager
def running(disk: Path, arguments: str, *, memory: str = "2G", options: str = "data=ordered") -> Iterator[Guest]:
    """A machine with the NBD disk of that socket, whose process 1 is this Python with these arguments."""
    with tempfile.TemporaryDirectory(prefix="convertd-guest-") as folder, contextlib.ExitStack() as stack:
        (image := Path(folder, "initramfs")).write_bytes(initramfs(f"{sys.executable} {arguments}", options))
        files = Path(folder, "files.sock")
        program = _virtiofsd() or "virtiofsd"
        share = [program, "-f", f"--socket-path={files}", "-o", "source=/,sandbox=chroot,cache=always"]
        with Path(folder, "virtiofsd.log").open("wb") as log:
            sharing = subprocess.Popen(share, stdout=log, stderr=log)
        stack.callback(sharing.wait, 30)
        stack.callback(sharing.kill)
        until(files.exists, "the files are shared", 30)
        process = subprocess.Popen(
            _qemu(image, files, disk, memory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        guest = Guest(process)
        stack.callback(guest.kill)
        yield guest


def _qemu(image: Path, files: Path, disk: Path, memory: str) -> list[str]:
    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", f"q35,accel={'kvm' if accelerated() else 'tcg'},memory-backend=memory"),
        *("-cpu", "host" if accelerated() else "max", "-smp", "2", "-m", memory),
        *("-object", f"memory-backend-memfd,id=memory,size={memory},share=on"),
        *("-kernel", str(next(kernel().glob("boot/vmlinuz-*"))), "-initrd", str(image)),
        *("-append", "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off"),
        *("-serial", "stdio"),
        *("-chardev", f"socket,id=files,path={files}", "-device", "vhost-user-fs-pci,chardev=files,tag=files"),
        *("-drive", f"file=nbd+unix:///?socket={disk},format=raw,if=none,id=disk,cache=writeback"),
        *("-device", "virtio-blk-pci,drive=disk"),
    ]
