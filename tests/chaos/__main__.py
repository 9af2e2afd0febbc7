"""`python -m tests.chaos`: a campaign of faults against the real daemon, reproducible by its seed.

Exit codes: 0 nothing was found, 1 something was, 2 wrong use. With `--plants`: 0 if each planted bug was found.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
from pathlib import Path

from tests.chaos import campaign, report
from tests.chaos.plants import PLANTS


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was mounted and started is not left behind
    if options.list:
        for name, plant in PLANTS.items():
            print(f"{name:<22} {plant.what}")
        return 0
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    if options.plants:
        return _all_plants(seed, options.minutes)
    print(f"seed {seed}", flush=True)
    result = campaign.run(seed, options.minutes, options.plant or "")
    print(report.table(result))
    if options.json is not None:
        report.write_json(result, options.json)
    return 1 if result.findings else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long, but for the end of the last round")
    parser.add_argument("--seed", type=int, help="what is done, and in which order; default: drawn, and printed")
    parser.add_argument("--plant", choices=PLANTS, metavar="NAME", help="plant this bug in the daemon under test")
    parser.add_argument("--plants", action="store_true", help="plant one after the other; each must be found")
    parser.add_argument("--list", action="store_true", help="list the bugs that can be planted")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was done and found there, too")
    return parser.parse_args()


def _all_plants(seed: int, minutes: float) -> int:
    missed = 0
    lacking: set[str] = set()
    print(f"seed {seed}\n{'plant':<22}{'seconds':>8}  what was found of it first", flush=True)
    for name, plant in PLANTS.items():
        result = campaign.run(seed, minutes, name)
        found = plant.found_among(result.findings)
        missed += found is None
        print(f"{name:<22}{result.seconds:>8.0f}  {found or 'NOTHING'}", flush=True)
        for other in () if found else result.findings:  # what it was instead is to be looked into
            print(f"{'':<32}and yet: {other}", flush=True)
        for what in sorted({*result.missing} - lacking):  # a bug in what cannot be done here is not found here
            print(f"{'':<32}not done: {what}", flush=True)
        lacking.update(result.missing)
    print(f"{len(PLANTS) - missed} of {len(PLANTS)} were found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
