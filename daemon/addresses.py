"""Parsers of configuration values that are addresses in a network (see `daemon.values`)."""

from __future__ import annotations

import re

from daemon.values import LONGEST_ADDRESS, Refusal, Secret, sound_host

LONGEST_URL = 2000
HIGHEST_PORT = 65535
PORTS = f"ports go from 1 to {HIGHEST_PORT}"

_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_HOST = rf"(?:{_LABEL}\.)*{_LABEL}\.?|\[[0-9A-Fa-f:.]+\]"
_LISTEN = rf"({_HOST}):([0-9]{{1,5}})"
_WEBHOOK = rf"(?i:https?)://({_HOST})(?::([0-9]{{1,5}}))?(?:[/?][!-\"$-~]*)?"


def listen(value: object) -> tuple[str, int]:
    """Where to listen: the host, without brackets, and the port."""
    allowed = 'an address and a port, such as "127.0.0.1:9464" or "[::1]:9464"'
    if not isinstance(value, str) or len(value) > LONGEST_ADDRESS:
        raise Refusal(allowed)
    found = re.fullmatch(_LISTEN, value)
    if found is None or not sound_host(found[1]):
        raise Refusal(allowed, 'all addresses are "0.0.0.0" or "[::]"' if value.startswith(":") else "")
    if not 1 <= int(found[2]) <= HIGHEST_PORT:
        raise Refusal(allowed, PORTS)
    return found[1].strip("[]"), int(found[2])


def webhook(value: object) -> str:
    """The URL of a receiver. Raises Secret for what may hold a secret, as the paths of webhooks often do."""
    allowed = 'the URL of a receiver, such as "https://HOST/PATH"'
    if not isinstance(value, str):
        raise Refusal(allowed)
    if "@" in value.partition("://")[2].partition("/")[0]:
        raise Secret("a URL with a user or a password", allowed, "secret_file is how a receiver knows who sends")
    found = re.fullmatch(_WEBHOOK, value) if len(value) <= LONGEST_URL else None
    if found is None or not sound_host(found[1]):
        raise Secret("what is no such URL", allowed, "")
    if found[2] is not None and not 1 <= int(found[2]) <= HIGHEST_PORT:
        raise Secret(f"a URL with port {found[2]}", allowed, PORTS)
    return value
