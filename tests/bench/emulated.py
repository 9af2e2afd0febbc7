"""Two other ways to watch a folder, emulated: `python -m tests.bench.emulated WAY INBOX OUTBOX`.

    defaults    watchfiles with its defaults (debounce 1600 ms, step 50 ms)
    settle      a file is taken once it has not changed for 5 s, as paperless-ngx 3 waits for by default

Each converts in its own process with the engines of convertd and writes without any sync, so that nothing but the
watching can make the difference. Prints `ready` once it watches.
"""

from __future__ import annotations

import os
import sys
import time

import watchfiles

from daemon.converters.base import Options
from daemon.converters.route import Router
from daemon.converters.tessdata import tessdata_dir_for

DEFAULTS, SETTLE = "defaults", "settle"
SETTLE_SECONDS = 5.0
HIDDEN = "."


class Converting:
    """Makes the output of a file."""

    def __init__(self, outbox: str) -> None:
        self._outbox = outbox
        self._router = Router(Options(tessdata_dir=tessdata_dir_for(("eng",), None)))
        self._router.warm()

    def convert(self, path: str) -> None:
        """Convert a file, if it is there still."""
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return
        name = os.path.basename(path)
        markdown = self._router.convert(name, content, lambda engine: None).converted.markdown
        hidden = os.path.join(self._outbox, f".{name}.tmp")
        with open(hidden, "w", encoding="utf-8") as file:
            file.write(markdown)
        os.rename(hidden, os.path.join(self._outbox, f"{name}.md"))


def defaults(inbox: str, converting: Converting) -> None:
    """Convert whatever is reported, when it is reported."""
    for changes in watchfiles.watch(inbox):
        for path in sorted({path for _, path in changes if _is_wanted(path)}):
            converting.convert(path)


def settle(inbox: str, converting: Converting) -> None:
    """Convert what has been quiet for long enough; the watching itself is as quick as it can be."""
    changed: dict[str, float] = {}
    watch = watchfiles.watch(inbox, debounce=50, step=10, rust_timeout=20, yield_on_timeout=True)
    for changes in watch:
        now = time.monotonic()
        changed.update({path: now for _, path in changes if _is_wanted(path)})
        for path in [path for path, since in changed.items() if now - since >= SETTLE_SECONDS]:
            del changed[path]
            converting.convert(path)


def _is_wanted(path: str) -> bool:
    return not os.path.basename(path).startswith(HIDDEN)


def main() -> None:
    """Watch until killed."""
    way, inbox, outbox = sys.argv[1:]
    converting = Converting(outbox)
    print("ready", flush=True)
    {DEFAULTS: defaults, SETTLE: settle}[way](inbox, converting)


if __name__ == "__main__":
    main()
