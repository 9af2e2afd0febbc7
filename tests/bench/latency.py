"""Drop to output on an idle daemon: `python -m tests.bench.latency [--documents N] [--json FILE]`.

Small documents are renamed into the inbox one at a time. Printed is the time from the rename to the moment the
Markdown can be opened, and the same minus the time the converter itself took (from the sidecar).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

from tests.bench.measure import percentile
from tests.harness import running


def measure(documents: int) -> dict[str, float]:
    """Milliseconds: p50, p90 and p99, whole and without the conversion."""
    whole, beside = [], []
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as daemon:
        daemon.drop("warm-up.html", b"<h1>warm</h1>")
        daemon.outcome("warm-up.html")
        pause = threading.Event()
        for number in range(documents):
            name = f"{number:05}.html"
            text = f"<html><body><h1>Document {number}</h1><p>Some words to convert.</p></body></html>".encode()
            hidden = daemon.inbox / ".next.tmp"
            hidden.write_bytes(text)
            pause.wait(0.1 + (number * 37 % 50) / 1000)  # idle, and out of step with any polling
            target, output = str(daemon.inbox / name), str(daemon.markdown(name))
            started = time.perf_counter()
            os.rename(hidden, target)
            while not os.path.exists(output):
                pause.wait(0.0005)
            seconds = time.perf_counter() - started
            whole.append(seconds * 1000)
            sidecar = json.loads((daemon.outbox / f"{name}.json").read_bytes())
            beside.append((seconds - sidecar["convert_seconds"]) * 1000)
        daemon.stop()
    return {
        f"{label}_p{share}": round(percentile(values, share / 100), 1)
        for label, values in (("whole_ms", whole), ("without_conversion_ms", beside))
        for share in (50, 90, 99)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments.documents)
    for key, value in result.items():
        print(f"{key:<32}{value:>8}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
