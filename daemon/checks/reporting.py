"""Who is told of what happens: the address of the metrics, the hook and the webhook."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import ssl
import stat
from collections.abc import Iterator
from urllib.parse import urlsplit

from daemon.checks.base import Check, Finding, Group, Stopping, ok, problem, warning
from daemon.checks.remedies import quoted
from daemon.config import Config
from daemon.monitor import bound
from daemon.settings import Notify

CONNECT_SECONDS = 5.0
PORTS = {"http": 80, "https": 443}
CREDENTIALS = "/run/credentials/"


def wanted(config: Config) -> bool:
    """Whether anybody is."""
    return config.metrics.listen is not None or config.notify != Notify()


def group(config: Config, *, daemon_runs: bool) -> Group:
    """The checks of `[metrics]` and `[notify]`."""
    return Group("metrics and notify", _check(config, daemon_runs))


def _check(config: Config, daemon_runs: bool) -> Check:
    def check(stopping: Stopping) -> Iterator[Finding]:
        if config.metrics.listen is not None and not daemon_runs:
            yield _address(*config.metrics.listen)
        if config.notify.command:
            yield _program(config.notify.command[0])
        if config.notify.secret_file:
            yield _secret(config.notify.secret_file)
        if config.notify.webhook:
            yield _receiver(config.notify.webhook)

    return check


def _address(host: str, port: int) -> Finding:
    """Whether it can be listened at; nothing is answered there."""
    try:
        bound(host, port).close()
    except OSError as error:
        what = f"metrics: {host}:{port} cannot be listened at: {error.strerror}"
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            return problem(what, "Name an address of this machine in metrics.listen: ip -brief address")
        return problem(what, f"Give metrics.listen another port, or end who has it: ss -ltnp sport = :{port}")
    return ok(f"metrics: {host}:{port} is free")


def _program(program: str) -> Finding:
    if shutil.which(program) is None:
        what = f"notify.command: there is no program {program} to be run"
        return problem(what, f"chmod +x {quoted(program)}, or mend the path; without a slash it is looked for in PATH")
    return ok(f"notify.command: {program} can be run")


def _secret(path: str) -> Finding:
    if path.startswith(CREDENTIALS) and not os.path.lexists(path):
        name, _, credential = path.removeprefix(CREDENTIALS).partition("/")
        what = f"notify.secret_file is not there: systemd hands it over while {name} runs"
        return warning(what, f"See that the unit has LoadCredential={credential}:FILE, systemctl cat {quoted(name)}")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO might never be filled
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                return problem("notify.secret_file is no regular file", f"ls -l {quoted(path)}, and name another")
            empty = not os.read(fd, 1)
        finally:
            os.close(fd)
    except OSError as error:
        return problem(f"notify.secret_file cannot be read: {error.strerror}", f"ls -l {quoted(path)}")
    if empty:
        return problem("notify.secret_file is empty", f"head -c 32 /dev/urandom | base64 > {quoted(path)}")
    if mode & stat.S_IROTH:
        return warning("notify.secret_file can be read by everybody", f"chmod o-r {quoted(path)}")
    return ok("notify.secret_file can be read")


def _receiver(url: str) -> Finding:
    """Only connected to, and its certificate looked at: an event that is none would be somebody's alarm. Its path may
    be a secret."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme.lower()]
    try:
        with socket.create_connection((host, port), CONNECT_SECONDS) as end:
            if parts.scheme.lower() == "https":
                end.settimeout(CONNECT_SECONDS)
                ssl.create_default_context().wrap_socket(end, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        what = f"notify.webhook: the certificate of {host}:{port} is refused: {error.verify_message}"
        return problem(
            what, "Renew it, or name that of an authority of your own in the environment: SSL_CERT_FILE=FILE"
        )
    except OSError as error:
        what = f"notify.webhook: {host}:{port} cannot be reached: {error.strerror or error}"
        return warning(what, "Check name, network and receiver; events are kept until it answers")
    return ok(f"notify.webhook: {host}:{port} can be reached")
