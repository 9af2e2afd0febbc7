"""`python -m daemon` is the `convertd` command."""

import os
import sys


def _forget_working_folder() -> None:
    """`python -m` lets the working folder be imported from, which may be an inbox: what is dropped there is no code."""
    package_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:] = [
        entry
        for entry in sys.path
        if os.path.realpath(entry) != os.path.realpath(os.getcwd()) or os.path.samefile(entry or ".", package_root)
    ]


if __name__ == "__main__":
    _forget_working_folder()

    from daemon.cli import main

    main()
