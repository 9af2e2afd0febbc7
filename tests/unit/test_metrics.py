"""Metrics: what is counted, what is looked up, and that it is all as Prometheus wants it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from daemon.db import Readers, Writer
from daemon.errors import DocumentError, Kind
from daemon.jobs import JobTable
from daemon.metrics import Metrics, Surroundings
from daemon.model import Conversion, State
from daemon.outbox import Outbox
from tests.harness import ROOT, environment
from tests.unit.test_jobs import candidate, enqueue

BY_OCR = Conversion(b"", "ab" * 32, "application/pdf", "xberg-ocr", "1", first_engine="liteparse")
PLAIN = Conversion(b"", "ab" * 32, "text/html", "html-to-markdown", "1", first_engine="html-to-markdown")
UNITS = ("_seconds", "_bytes", "_jobs", "_events", "_info", "_healthy", "_paused")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def families(metrics: Metrics) -> dict[str, Metric]:
    found = list(text_string_to_metric_families(metrics.page().decode()))
    assert len({family.name for family in found}) == len(found), "each family once"
    return {family.name: family for family in found}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    samples = [sample for family in families(metrics).values() for sample in family.samples]
    return next((sample.value for sample in samples if sample.name == name and sample.labels == labels), None)


@pytest.fixture
def full(metrics: Metrics, tmp_path: Path) -> Iterator[Metrics]:
    """Everything has happened once."""
    path = str(tmp_path / "convertd.db")
    writer = Writer(path, meter=metrics)
    writer.start()
    outbox = Outbox(writer, Readers(path), clock=lambda: 900.0)
    outbox.join("webhook")
    jobs = JobTable(writer, Readers(path), lambda: 900.0, outbox, metrics)
    jobs.register("inbox", "/in", "/out")
    jobs.register("retired", "/old", "/out")
    jobs.complete(enqueue(jobs, "a"), BY_OCR, "/out/a.md", dispose=False)
    jobs.complete(enqueue(jobs, "b"), PLAIN, "/out/b.md", dispose=False)
    jobs.fail(enqueue(jobs, "c"), DocumentError(Kind.CORRUPT, "no"), attempts=1, dispose=False)
    jobs.end(enqueue(jobs, "d"), State.VANISHED)
    jobs.fold(enqueue(jobs, "e"))
    jobs.enqueue("inbox", [candidate("f", "1")], 5)
    jobs.enqueue("inbox", [candidate("f", "2")], 5)
    jobs.cancel([enqueue(jobs, "g").id])
    jobs.start(enqueue(jobs, "h"))
    metrics.staged("inbox", "convert", 0.3)
    metrics.read("inbox", 4096)
    metrics.replaced("SIGSEGV")
    metrics.notified("webhook", True)
    metrics.notified("webhook", False)
    writer.call(lambda db: db.execute("UPDATE targets SET dropped = 5"))
    watches = {"inbox": (True, False), "new": (False, True)}
    metrics.registry.register(Surroundings(path, lambda: watches, lambda: 1000.0))
    yield metrics
    writer.close()


def test_ends_of_jobs(full: Metrics) -> None:
    for outcome, number in (
        ("completed", 2),
        ("failed", 1),
        ("vanished", 1),
        ("unchanged", 1),
        ("superseded", 1),
        ("cancelled", 1),
    ):
        assert value(full, "convertd_jobs_total", watch="inbox", outcome=outcome) == number, outcome


def test_conversions_and_fallbacks(full: Metrics) -> None:
    assert value(full, "convertd_conversions_total", engine="html-to-markdown") == 1
    assert value(full, "convertd_conversions_total", engine="xberg-ocr") == 1
    assert value(full, "convertd_engine_fallbacks_total", engine="xberg-ocr") == 1
    assert value(full, "convertd_engine_fallbacks_total", engine="html-to-markdown") is None


def test_durations_and_bytes(full: Metrics) -> None:
    stage = {"watch": "inbox", "stage": "convert"}
    assert value(full, "convertd_stage_duration_seconds_count", **stage) == 1
    assert value(full, "convertd_stage_duration_seconds_bucket", **stage, le="0.25") == 0
    assert value(full, "convertd_stage_duration_seconds_bucket", **stage, le="0.5") == 1
    assert value(full, "convertd_read_bytes_total", watch="inbox") == 4096
    commits = value(full, "convertd_job_table_commit_duration_seconds_count")
    assert commits is not None and commits > 10


def test_what_is_looked_up(full: Metrics) -> None:
    assert value(full, "convertd_queue_jobs", watch="inbox", state="pending") == 1
    assert value(full, "convertd_queue_jobs", watch="inbox", state="processing") == 1
    assert value(full, "convertd_queue_jobs", watch="new", state="pending") == 0
    assert value(full, "convertd_queue_jobs", watch="retired", state="pending") is None
    assert value(full, "convertd_queue_oldest_age_seconds", watch="inbox") == 100
    assert value(full, "convertd_queue_oldest_age_seconds", watch="new") == 0
    assert value(full, "convertd_watch_healthy", watch="inbox") == 1
    assert value(full, "convertd_watch_healthy", watch="new") == 0
    assert value(full, "convertd_watch_paused", watch="new") == 1
    assert value(full, "convertd_notify_waiting_events", target="webhook") == 3
    assert value(full, "convertd_notify_oldest_age_seconds", target="webhook") == 100
    assert value(full, "convertd_notify_dropped_events_total", target="webhook") == 5
    assert value(full, "convertd_notify_attempts_total", target="webhook", result="failed") == 1


def test_names_are_as_prometheus_wants_them(full: Metrics) -> None:
    found = families(full)
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "convertd_build_info"} <= set(found)
    for name, family in found.items():
        assert family.documentation, name
        assert family.type in ("counter", "gauge", "histogram"), name
        assert re.fullmatch(r"(convertd|process)_[a-z_]+", name)
        assert not name.endswith(("_created", "_total")), name
        if name.startswith("convertd_") and family.type != "counter":
            assert name.endswith(UNITS), name
        for sample in family.samples:
            if family.type == "counter":
                assert sample.name == f"{name}_total"
            assert all(re.fullmatch(r"[a-z]+", label) for label in sample.labels)


def test_the_process(metrics: Metrics) -> None:
    started, memory = value(metrics, "process_start_time_seconds"), value(metrics, "process_resident_memory_bytes")
    assert started is not None and 0 < time.time() - started < 3600
    assert memory is not None and memory > 1 << 20
    assert value(metrics, "process_open_fds") in range(3, 1000)
    cpu = value(metrics, "process_cpu_seconds_total")
    assert cpu is not None and cpu > 0


def test_labels_are_never_what_a_document_says(metrics: Metrics) -> None:
    for number in range(1000):
        metrics.converted(f"engine {number}", "liteparse")
        metrics.replaced(f"garbage: {number}")
        metrics.replaced(f"exit code {number}")
        metrics.replaced(f"it said {number}")
    samples = [sample for family in families(metrics).values() for sample in family.samples if sample.labels]
    assert len(samples) < 50
    assert value(metrics, "convertd_conversions_total", engine="other") == 1000
    for reason in ("garbage", "crashed", "other"):
        assert value(metrics, "convertd_converter_restarts_total", reason=reason) == 1000


def test_two_daemons_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.ended("inbox", "completed")
    assert value(second, "convertd_jobs_total", watch="inbox", outcome="completed") is None


def test_what_is_in_memory_is_told_though_the_table_cannot_be_read(metrics: Metrics, tmp_path: Path) -> None:
    metrics.registry.register(Surroundings(str(tmp_path / "none.db"), lambda: {"inbox": (True, False)}))
    assert value(metrics, "convertd_watch_healthy", watch="inbox") == 1
    (tmp_path / "none.db").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    assert value(metrics, "convertd_watch_healthy", watch="inbox") == 1


def test_the_readme_has_every_metric(full: Metrics) -> None:
    readme = (ROOT / "README.md").read_text()
    for name, family in families(full).items():
        shown = f"{name}_total" if family.type == "counter" else name
        assert name.startswith("process_") or f"`{shown}`" in readme, shown


def test_nothing_of_it_is_loaded_before_it_is_wanted() -> None:
    code = "import sys; import daemon.app; print('prometheus_client' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT, check=True
    )
    assert result.stdout.strip() == "False"
