"""What helps against an error of the system: a command to be typed."""

from __future__ import annotations

import errno
import os
import pwd
import shlex

from daemon.words import display


def remedy_for(error: OSError, path: str) -> str:
    """For something that could not be done in this folder."""
    shown = quoted(path)
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"sudo chown {user()} {shown} && chmod u+rwx {shown} (and x for {user()} on the folders above it)"
    if error.errno == errno.EROFS:
        return f"Mount it writable: sudo mount -o remount,rw $(findmnt -no TARGET -T {shown})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"Free space, or raise the quota: df -h {shown}; df -i {shown}; quota -s"
    if error.errno == errno.ENOTDIR:
        return f"Mend the path in the configuration, as a part of it is a file: namei -l {shown}"
    if error.errno == errno.ENAMETOOLONG:
        return "Mend the path in the configuration: a name has at most 255 bytes, a path 4095"
    if error.errno == errno.ENOENT:
        return f"mkdir -p {shown}, or mount the disk that it lies on, or mend the path in the configuration"
    if error.errno in (errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT):
        return f"Mount it again: sudo umount -l {shown}; sudo mount {shown}"
    return f"Look for what is wrong with the disk: dmesg | tail; findmnt -T {shown}"


def user() -> str:
    """The name of who runs this."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"#{os.geteuid()}"


def quoted(path: str) -> str:
    """A path to be put into a shell command, as far as it can be typed at all."""
    shown = display(os.fsencode(path))
    return shlex.quote(shown)
