"""`convertd` whose messages come back sooner after it died: no test needs to wait as long as a machine does."""

from __future__ import annotations

from functools import partialmethod

from daemon import cli
from daemon.sources.sqs import SqsSource

HIDDEN_SECONDS = 15


def main() -> None:
    SqsSource.__init__ = partialmethod(  # type: ignore[method-assign, assignment]
        SqsSource.__init__, hidden_seconds=HIDDEN_SECONDS
    )
    cli.main()


if __name__ == "__main__":
    main()
