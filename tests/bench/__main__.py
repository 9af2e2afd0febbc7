"""Everything that is promised of convertd's speed: `python -m tests.bench [--quick] [--only NAME]… [--corpus DIR]
[--rounds N] [--json FILE] [--chart FILE] [--folder DIR]`.

Every row is ours beside a baseline or a peer, in turn in the same run; printed is the median of the rounds with its
spread, and whether it reaches what is asked of it. Exit code 1 where one falls short or breaks, 2 for wrong use.
`--corpus` (or $CONVERTD_BENCH_CORPUS) names a folder of real documents, one folder a set, scans in the set `ocr`;
without it documents are made. Peers are installed by the extra `bench`. `--list` tells the names.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench import chart
from tests.bench.host import in_memory, machine
from tests.bench.registry import BENCHES
from tests.bench.rows import print_head, print_row
from tests.bench.s3_fetch import CREDENTIALS
from tests.bench.suite import ROUNDS, Bench, Setting, as_json, run

QUICK_ROUNDS = 2
QUICK = "QUICK RUN: little work, few rounds. These figures show that everything works, and nothing else."

IN_MEMORY = "lies in memory, where nothing is durable and nothing is written to a disk: name another --folder."


def main(arguments: Sequence[str] | None = None, benches: Sequence[Bench] = BENCHES) -> int:
    """Run what is asked for; returns the exit code."""
    options = _options(arguments, [bench.name for bench in benches])
    if options.list:
        for bench in benches:
            print(f"{bench.name:<14}{bench.work} / {bench.against}: {bench.to_reach}")
        return 0
    os.environ.update(CREDENTIALS)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    setting = Setting(rounds, str(options.folder or tempfile.gettempdir()), options.quick, options.corpus)
    chosen = [bench for bench in benches if not options.only or bench.name in options.only]
    here = machine(setting.folder)
    print(", ".join(f"{key} {value}" for key, value in here.items()) + f", {rounds} rounds")
    if in_memory(setting.folder):
        print(f"{setting.folder} {IN_MEMORY}")
    if options.quick:
        print(QUICK)
    print_head()
    results = run(chosen, setting, _announce, print_row)
    kept = as_json(results, chosen, setting, here)
    if options.json:
        options.json.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    if options.chart:
        options.chart.write_text(chart.drawn(kept))
    print()
    if options.quick:
        print(QUICK)
    for line in results.verdict():
        print(line)
    return results.exit_code


def _announce(bench: Bench) -> None:
    print(f"\n{bench.name}: {bench.work} / {bench.against}, {bench.to_reach}\n  {bench.feels}", flush=True)


def _options(arguments: Sequence[str] | None, names: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="little work, few rounds")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="may be given more than once")
    parser.add_argument("--rounds", type=_count, help=f"default: {ROUNDS}, with --quick {QUICK_ROUNDS}")
    parser.add_argument("--corpus", type=_folder, default=os.environ.get("CONVERTD_BENCH_CORPUS") or None)
    parser.add_argument(
        "--folder", type=_folder, help="where state, spools and documents lie; default: where temporary files do"
    )
    parser.add_argument("--json", type=_file)
    parser.add_argument("--chart", type=_file, help="an SVG")
    parser.add_argument("--list", action="store_true", help="tell what there is, and end")
    return parser.parse_args(arguments)


def _folder(path: str) -> Path:
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{path} is not a folder")
    return Path(path).absolute()  # some of what is started has a working folder of its own


def _file(path: str) -> Path:
    """Told before the run, which may take hours."""
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise argparse.ArgumentTypeError(f"there is no folder for {path}")
    return Path(path)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
