"""`convertd` whose keeper of the converters dies as soon as one of them does while nothing is to be converted."""

from __future__ import annotations

from daemon import cli, pool
from daemon.converters.process import ChildProcess
from daemon.keeper import Keeper


class Mortal(Keeper):
    """Of an error that nobody has thought of."""

    def _died(self, child: ChildProcess) -> None:
        raise SystemError("nobody has thought of this")


def main() -> None:
    vars(pool)["Keeper"] = Mortal
    cli.main()


if __name__ == "__main__":
    main()
