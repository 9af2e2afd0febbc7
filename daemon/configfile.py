"""The configuration file before it is understood: where it is, and that it is TOML.

Apart from `daemon.config`, because a command that finds the daemon running needs no more of it than the state_dir.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from daemon.errors import ConfigError
from daemon.words import printable, show

FILE_NAME = "convertd.toml"
SYSTEM_FILE = "/etc/convertd/config.toml"
FILE_VARIABLE = "CONVERTD_CONFIG"
LARGEST_FILE_BYTES = 1 << 20


def find(explicit: str | None, environ: Mapping[str, str]) -> str | None:
    """The file to load: --config, $CONVERTD_CONFIG, ./convertd.toml, /etc/convertd/config.toml; None if there is none.

    Raises ConfigError where the first two name a file that does not exist.
    """
    for key, path in (("--config", explicit), (f"${FILE_VARIABLE}", environ.get(FILE_VARIABLE))):
        if path and not os.path.lexists(path):
            raise ConfigError([printable(f"{key}: found {show(path)}, which does not exist; allowed: a TOML file")])
        if path:
            return os.path.abspath(path)
    return next((os.path.abspath(path) for path in (FILE_NAME, SYSTEM_FILE) if os.path.lexists(path)), None)


def state_dir_of(path: str) -> str | None:
    """The state_dir that a file names, whatever mistakes it has besides; None where that cannot be told."""
    try:
        raw = parse(os.path.abspath(path)).get("state_dir", "state")
    except ConfigError:
        return None
    if not isinstance(raw, str) or not raw.strip():
        return None
    return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(path)), raw))


def parse(path: str) -> dict[str, object]:
    """The tables of a file. Raises ConfigError where it cannot be read or is no TOML."""
    import tomllib

    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError([printable(f"{path}: cannot be read: {error.strerror}; allowed: a TOML file")]) from error
    if len(content) > LARGEST_FILE_BYTES:
        raise ConfigError([printable(f"{path}: found more than 1MiB; allowed: a configuration file")])
    line, reason = 0, ""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line, reason = content.count(b"\n", 0, error.start) + 1, "bytes that are not UTF-8"
    except ValueError as error:
        line, reason = _position(str(error), content)
    except RecursionError:
        line, reason = 1, "values nested too deeply"
    raise ConfigError([printable(f"{path}: line {line}: found {reason}; allowed: TOML, https://toml.io")])


def _position(message: str, content: bytes) -> tuple[int, str]:
    """The line a message of tomllib is about, and the message without it."""
    found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = int(found[1]) if found and found[1] else content.rstrip().count(b"\n") + 1
    reason = message[: found.start()] if found else message
    return line, f"a syntax error ({reason})"
