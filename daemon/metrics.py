"""Metrics for Prometheus. Only loaded where `[metrics]` is configured.

What happens is counted as it happens, under no lock but the client library's own. What merely is (queues, watches,
the outbox) is looked up when somebody asks, in the thread that asks: from memory and from the job table's own counters,
through a connection of its own that waits for nobody and that nobody waits for.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from daemon import __version__, queries
from daemon.converters import REGISTRY
from daemon.db import reader
from daemon.errors import ConvertdError
from daemon.model import State

STAGE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CAUSES = {
    "cancelled": "cancelled",
    "did not begin": "stuck",
    "did not start": "not_started",
    "died before its first document": "not_started",
    "died while idle": "died_idle",
    "long service": "long_service",
    "time-out": "time_out",
}
CRASHES = ("SIG", "signal ", "exit code ", "hung up")
OTHER = "other"


class Metrics:
    """A `meters.Meter`."""

    media_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series beside each, that nobody asks for
        self.registry = registry = CollectorRegistry()
        self._jobs = Counter(
            "convertd_jobs",
            "Jobs that have ended, by their final state; unchanged are those whose document holds what was converted"
            " before.",
            ["watch", "outcome"],
            registry=registry,
        )
        self._stages = Histogram(
            "convertd_stage_duration_seconds",
            "How long jobs were in a stage, whatever became of them; waiting for a free converter is none.",
            ["watch", "stage"],
            registry=registry,
            buckets=STAGE_SECONDS,
        )
        self._read = Counter(
            "convertd_read_bytes", "Bytes of documents fetched from their sources.", ["watch"], registry=registry
        )
        self._engines = Counter(
            "convertd_conversions",
            "Documents converted, by the engine that made the text.",
            ["engine"],
            registry=registry,
        )
        self._fallbacks = Counter(
            "convertd_engine_fallbacks",
            "Documents whose text was made by another engine than the one tried first, scans read by OCR included.",
            ["engine"],
            registry=registry,
        )
        self._restarts = Counter(
            "convertd_converter_restarts",
            "Converter processes replaced, or not started.",
            ["reason"],
            registry=registry,
        )
        self._commits = Histogram(
            "convertd_job_table_commit_duration_seconds",
            "How long the job table's writer took for one transaction, with the operations of all who wait for it.",
            registry=registry,
            buckets=COMMIT_SECONDS,
        )
        self._attempts = Counter(
            "convertd_notify_attempts",
            "Attempts to deliver an event, by target and result (delivered, failed).",
            ["target", "result"],
            registry=registry,
        )
        Info("convertd_build", "The version that runs.", registry=registry).info({"version": __version__})
        registry.register(Process())

    def ended(self, watch: str, outcome: str) -> None:
        self._jobs.labels(watch, outcome).inc()

    def staged(self, watch: str, stage: str, seconds: float) -> None:
        self._stages.labels(watch, stage).observe(seconds)

    def read(self, watch: str, size_bytes: int) -> None:
        self._read.labels(watch).inc(size_bytes)

    def converted(self, engine: str, first_engine: str) -> None:
        name = _engine(engine)
        self._engines.labels(name).inc()
        if name != _engine(first_engine):
            self._fallbacks.labels(name).inc()

    def replaced(self, reason: str) -> None:
        self._restarts.labels(_cause(reason)).inc()

    def committed(self, seconds: float) -> None:
        self._commits.observe(seconds)

    def notified(self, target: str, delivered: bool) -> None:
        self._attempts.labels(target, "delivered" if delivered else "failed").inc()

    def page(self) -> bytes:
        """All of it, in the format of `media_type`."""
        return generate_latest(self.registry)


class Process:
    """Collects what is told of any process. (The client library's own collector needs more of /proc than a hardened
    unit leaves.)"""

    def __init__(self) -> None:
        self._started_at = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - _start_after_boot_seconds())

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        with open("/proc/self/statm", "rb") as file:
            size, resident = (int(word) * resource.getpagesize() for word in file.read().split()[:2])
        yield CounterMetricFamily("process_cpu_seconds", "Processor time used.", usage.ru_utime + usage.ru_stime)
        yield GaugeMetricFamily("process_resident_memory_bytes", "Memory in use.", resident)
        yield GaugeMetricFamily("process_virtual_memory_bytes", "Address space in use.", size)
        yield GaugeMetricFamily("process_open_fds", "Descriptors open.", len(os.listdir("/proc/self/fd")))
        yield GaugeMetricFamily(
            "process_max_fds", "Descriptors allowed.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        )
        yield GaugeMetricFamily("process_start_time_seconds", "When it was started, as a Unix time.", self._started_at)


class Surroundings:
    """Collects what is looked up. `watches` gives those that are served: whether each is well, whether it is paused."""

    def __init__(
        self,
        database: str,
        watches: Callable[[], Mapping[str, tuple[bool, bool]]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._watches = watches
        self._clock = clock

    def describe(self) -> list[Metric]:
        """None of them beforehand: nothing is to be looked up at the start."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Called by the registry. Where the job table cannot be read, what is in memory is still told."""
        watches = self._watches()
        yield from _conditions(watches)
        with suppress(ConvertdError, FileNotFoundError), reader(self._database) as db:
            counts, oldest, outbox = queries.counts(db), queries.oldest_by_watch(db), queries.outbox(db)
            yield from self._queues(watches, counts, oldest)
            yield from self._outbox(outbox)

    def _queues(
        self, watches: Mapping[str, Any], counts: Mapping[str, Mapping[str, int]], oldest: Mapping[str, float]
    ) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("convertd_queue_jobs", "Jobs that have not ended.", labels=["watch", "state"])
        ages = GaugeMetricFamily(
            "convertd_queue_oldest_age_seconds",
            "For how long the job that was discovered first has been pending; 0 where none is.",
            labels=["watch"],
        )
        for name in watches:
            for state in (State.PENDING, State.PROCESSING):
                jobs.add_metric([name, state.value], counts.get(name, {}).get(state.value, 0))
            ages.add_metric([name], self._age(oldest.get(name)))
        yield jobs
        yield ages

    def _outbox(self, targets: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "convertd_notify_waiting_events", "Events that wait for their delivery.", labels=["target"]
        )
        ages = GaugeMetricFamily(
            "convertd_notify_oldest_age_seconds", "For how long the first of them has waited.", labels=["target"]
        )
        dropped = CounterMetricFamily(
            "convertd_notify_dropped_events", "Events given up because too many waited.", labels=["target"]
        )
        for name, target in targets.items():
            waiting.add_metric([name], target["waiting"])
            ages.add_metric([name], self._age(target["waiting_since"]))
            dropped.add_metric([name], target["dropped"])
        yield waiting
        yield ages
        yield dropped

    def _age(self, since: float | None) -> float:
        return 0.0 if since is None else max(0.0, self._clock() - since)


def _conditions(watches: Mapping[str, tuple[bool, bool]]) -> Iterator[Metric]:
    well = GaugeMetricFamily(
        "convertd_watch_healthy", "1 while the surroundings of the watch are in order, else 0.", labels=["watch"]
    )
    paused = GaugeMetricFamily(
        "convertd_watch_paused", "1 while the watch hands out no jobs, for whatever reason.", labels=["watch"]
    )
    for name, (is_well, is_paused) in watches.items():
        well.add_metric([name], float(is_well))
        paused.add_metric([name], float(is_paused))
    yield well
    yield paused


def _start_after_boot_seconds() -> float:
    with open("/proc/self/stat", "rb") as file:
        return int(file.read().rsplit(b")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")


def _engine(name: str) -> str:
    """Engines are named by converters, which documents may have taken over: only names that are known become labels."""
    return name if name in REGISTRY else OTHER


def _cause(reason: str) -> str:
    """What a converter died of, as one of a few words; the reason itself may be anything that a converter has said."""
    if reason.startswith(CRASHES):
        return "crashed"
    if reason.startswith("garbage"):
        return "garbage"
    return CAUSES.get(reason, OTHER)
