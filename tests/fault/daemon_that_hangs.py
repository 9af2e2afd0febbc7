"""`convertd` whose dispatcher hangs for good at a SIGUSR1: its lock is taken and never given back."""

from __future__ import annotations

import signal
from typing import Any

from daemon import app, cli
from daemon.dispatch import Dispatcher


class Hanging(Dispatcher):
    """Made, and told by the signal, in the main thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        signal.signal(signal.SIGUSR1, lambda *_: self._changed.acquire())


def main() -> None:
    vars(app)["Dispatcher"] = Hanging
    cli.main()


if __name__ == "__main__":
    main()
