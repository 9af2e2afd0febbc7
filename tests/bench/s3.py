"""Buckets: `python -m tests.bench.s3 [--only NAME]… [--rounds N] [--folder DIR] [--json FILE]`.

Every row is ours beside a baseline, in turn in the same run; printed is the median of the rounds with its spread, and
whether it reaches what is asked of it. Exit code 1 if a row does not. NAME is one of

    stream    objects of 100 MB and 1 GB to what a converter reads, over a link of 60 MB/s a connection and over the
              loopback: time, and growth of memory
    medium    an object of 50 MB, which touches no disk
    listing   200,000 keys of which nothing has changed, then one in a hundred
    uploads   small results to a server that takes 30 ms for each request
    memory    200 objects of 30 MB through a daemon that may hold 128 MiB

`--folder` is where spools, temporary files and state lie; it should be on a disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path

from tests.bench import s3_listing, s3_memory, s3_uploads
from tests.bench.rows import print_head, print_row
from tests.bench.s3_fetch import CREDENTIALS
from tests.bench.s3_stream import MEDIUM, STREAM
from tests.bench.suite import Setting

BENCHMARKS = {bench.name: bench for bench in (STREAM, MEDIUM, s3_listing.BENCH, s3_uploads.BENCH, s3_memory.BENCH)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="may be given more than once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="default: where temporary files lie")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.update(CREDENTIALS)
    rows = []
    load = os.getloadavg()[0]
    print(f"{len(os.sched_getaffinity(0))} processors, load {load:.1f}, {arguments.rounds} rounds")
    print_head()
    for name in arguments.only or BENCHMARKS:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            for row in BENCHMARKS[name].run(Setting(arguments.rounds, folder)):
                print_row(row)
                rows.append(row)
    if arguments.json:
        machine = {
            "cpus": len(os.sched_getaffinity(0)),
            "kernel": platform.release(),
            "rounds": arguments.rounds,
            "load": load,
        }
        arguments.json.write_text(json.dumps({"machine": machine, "rows": [row.as_json() for row in rows]}, indent=2))
    missed = [row.name for row in rows if not row.reached]
    print(f"\nnot reached: {'; '.join(missed)}" if missed else "\neverything is reached")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
