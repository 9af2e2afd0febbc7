"""The composition root: turns a configuration into running objects. Nothing else constructs more than its own parts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from daemon import config as configuration
from daemon.batches import Batches
from daemon.builder import Builder, probe_spool
from daemon.cancellations import Cancellations
from daemon.config import Config, check_engines, check_languages
from daemon.control import ControlServer
from daemon.converters import REGISTRY, ROUTES
from daemon.converters.base import Options
from daemon.converters.tessdata import available_languages, tessdata_dir_for
from daemon.db import Readers, Writer
from daemon.departures import departing
from daemon.dispatch import Dispatcher
from daemon.disposal import Janitor
from daemon.endings import Endings
from daemon.errors import EnvironmentProblem
from daemon.faults import Fault, no_fault
from daemon.files import ignore_lease_breaks
from daemon.intake import Intake
from daemon.jobs import JobTable
from daemon.live import Live
from daemon.logs import Log
from daemon.memory import share_arenas
from daemon.meters import UNMETERED, Meter
from daemon.model import Disposal, Job
from daemon.monitor import MonitorServer, Page, health
from daemon.notify import Messenger
from daemon.operations import Operations
from daemon.outbox import Outbox
from daemon.pipeline import DELETE, Pipeline, Policy
from daemon.pool import ChildSettings, ConverterPool
from daemon.pulse import Pulse
from daemon.reload import Reload
from daemon.roster import Roster
from daemon.s3.clients import Clients
from daemon.service import Service, status_line
from daemon.sources.base import Documents
from daemon.sources.submitted import SubmittedSource
from daemon.statedir import StateDir
from daemon.submissions import Submissions
from daemon.supervisor import Parts, Stops, Supervisor
from daemon.switches import Switches
from daemon.systemd import Notifier, watchdog_seconds
from daemon.tally import Tally
from daemon.vitals import Vitals
from daemon.worker import Worker

LOCK_WAIT_SECONDS = 5.0
SPARE_WORKERS = 8
DOWNLOAD_THREADS = 16


def installed(config: Config) -> list[str]:
    """What the configuration asks for and this machine lacks, as mistakes: engines, OCR languages."""
    mistakes = check_engines(config, REGISTRY, ROUTES)
    if config.ocr.mode != "off":
        mistakes += check_languages(config, available_languages(config.ocr.tessdata_dir))
    return mistakes


def converter_pool(
    config: Config, *, size: int, on_event: Callable[[str, dict[str, object]], None], spool: str = ""
) -> ConverterPool:
    """A pool of `size` converters as the configuration, which must have passed `installed`, wants them; large results
    lie in `spool`."""
    options = Options(
        ocr_mode=config.ocr.mode,
        ocr_languages=config.ocr.languages,
        tessdata_dir=""
        if config.ocr.mode == "off"
        else tessdata_dir_for(config.ocr.languages, config.ocr.tessdata_dir),
        engines=dict(config.engines),
    )
    return ConverterPool(ChildSettings(options, config.limits.converter_memory_bytes, spool=spool), size, on_event)


@contextmanager
def running(config: Config, log: Log, *, once: bool, fault: Fault = no_fault) -> Iterator[Supervisor]:
    """A supervisor ready to `run`, holding the lock of its state_dir.

    Raises AlreadyRunning, UsageError and, where the disk of the job table is sick, EnvironmentProblem. `fault` is
    called with a label at each step that a test may want to break.
    """
    ignore_lease_breaks()
    share_arenas()
    state = StateDir(config.state_dir)
    meter = _meter(config)
    pool = converter_pool(config, size=config.workers, on_event=_about_converters(log, meter), spool=state.spool)
    with state.lock(LOCK_WAIT_SECONDS):
        with _starting():
            writer = Writer(state.database, fault, meter)
        writer.start()
        try:
            with _starting():
                supervisor = _assemble(config, state, writer, pool, log, meter, once=once, fault=fault)
            yield supervisor
        finally:
            writer.close()


@contextmanager
def _starting() -> Iterator[None]:
    """A daemon that runs waits until its disk is well again; one that does not come up has to be told otherwise."""
    try:
        yield
    except EnvironmentProblem as problem:
        hint = "Free space or mend the permissions of state_dir, and start it again; a service manager does that."
        raise EnvironmentProblem(problem.message, hint) from problem


def _meter(config: Config) -> Meter:
    if config.metrics.listen is None:
        return UNMETERED
    from daemon.metrics import Metrics

    return Metrics()


def _about_converters(log: Log, meter: Meter) -> Callable[[str, dict[str, object]], None]:
    def tell(event: str, values: dict[str, object]) -> None:
        if event != "converter sandbox incomplete":
            meter.replaced("did not start" if event == "converter did not start" else str(values["reason"]))
        say = log.debug if event == "converter relieved" else log.warning
        say(event, **values)

    return tell


def _assemble(
    config: Config,
    state: StateDir,
    writer: Writer,
    pool: ConverterPool,
    log: Log,
    meter: Meter,
    *,
    once: bool,
    fault: Fault,
) -> Supervisor:
    _sweep_spool(state.spool)
    outbox = Outbox(writer, Readers(state.database))
    messenger = Messenger(outbox, log, meter)
    messenger.configure(config.notify)
    jobs = JobTable(writer, Readers(state.database), outbox=outbox, meter=meter)
    intake = Intake(state.submitted, fault)
    submitted = SubmittedSource(intake)
    switches = Switches(writer, Readers(state.database))
    interrupted = jobs.recover()
    if interrupted:
        log.warning("recovered", interrupted_jobs=interrupted)
    intake.sweep(jobs.history.spooled)
    stops = Stops()
    workers = 2 * config.workers + SPARE_WORKERS
    clients = Clients(workers + DOWNLOAD_THREADS)
    policy = Policy(config.limits, config.retry)
    tally = Tally(time.monotonic)
    dispatcher = Dispatcher(
        (),
        jobs.pending,
        time.time,
        time.monotonic,
        1.2 * max(config.retry.backoff_seconds, default=0.0),
        running_per_watch=workers - SPARE_WORKERS // 2,
        longest_run_seconds=policy.longest_run_seconds,
    )
    batches = Batches(writer, Readers(state.database))
    builder = Builder(
        config, state, clients, jobs, batches, outbox, submitted, dispatcher, pool.probe, stops, log, fault
    )
    janitor: Janitor
    roster = Roster(builder.post, jobs, dispatcher, switches, lambda sources: departing(jobs, janitor.held, sources))
    janitor = Janitor(partial(_errand, roster, submitted), jobs, log, roster.note, tally.note_change)
    roster.serve(config.watches)
    take_up = partial(_take_up_disposals, jobs, roster, janitor)
    take_up([watch.name for watch in config.watches], submitted=True)
    cancellations = Cancellations(pool.interrupt)
    pipeline = Pipeline(jobs, pool, policy, cancellations, stops.slots.is_set, time.time, meter)
    endings = Endings(
        roster.routes, roster.health, jobs, dispatcher, janitor, tally.add, pipeline.left, stops.halt, log
    )
    worker = Worker(
        roster.routes,
        roster.health,
        jobs,
        dispatcher,
        pipeline,
        endings,
        janitor,
        policy,
        _retry_command(config),
        log,
        time.time,
    )
    supervisor: Supervisor
    operations = Operations(
        state.database, jobs, switches, roster.served, Live(dispatcher, janitor, roster, cancellations), intake.remove
    )
    submissions = Submissions(intake, jobs, dispatcher, roster.watches, policy, fault)
    control = ControlServer(
        state.socket,
        {"status": lambda request: supervisor.status() | {"pid": os.getpid()}, **operations.handlers()},
        {"submit": submissions.submit},
    )
    parts = Parts(
        dispatcher=dispatcher,
        jobs=jobs,
        pool=pool,
        roster=roster,
        workers=[worker] * workers,
        endings=endings,
        janitor=janitor,
        control=control,
        writer_alive=writer.alive,
        stop_fetching=clients.stop,
        stops=stops,
        reload=Reload(
            config, policy, roster, messenger.configure, take_up, log, partial(configuration.load, checks=[installed])
        ),
        messenger=messenger,
        monitor=_monitor(config, state, roster, dispatcher, Vitals(writer, dispatcher), meter),
        service=Service(
            Notifier(),
            watchdog_seconds(),
            Pulse(writer, dispatcher, partial(probe_spool, state.spool)),
            lambda: status_line(supervisor.status(), dispatcher.census()),
        ),
    )
    supervisor = Supervisor(parts, tally, log, once=once)
    return supervisor


def _monitor(
    config: Config, state: StateDir, roster: Roster, dispatcher: Dispatcher, vitals: Vitals, meter: Meter
) -> MonitorServer | None:
    if config.metrics.listen is None:
        return None
    from daemon.metrics import Metrics, Surroundings

    def watches() -> dict[str, tuple[bool, bool]]:
        return {
            post.route.watch.name: (
                post.health.condition().state == "running",
                dispatcher.holds_back(post.route.watch.name),
            )
            for post in roster.posts()
        }

    assert isinstance(meter, Metrics)
    metrics = meter
    metrics.registry.register(Surroundings(state.database, watches))
    pages = {
        "/metrics": lambda: Page(metrics.page(), media_type=metrics.media_type),
        "/healthz": lambda: health(vitals.trouble()),
    }
    return MonitorServer(*config.metrics.listen, pages)


def _sweep_spool(spool: str) -> None:
    """What a dead daemon left in its spool belongs to nobody."""
    for entry in os.scandir(spool):
        with suppress(OSError):
            os.unlink(entry.path)


def _take_up_disposals(
    jobs: JobTable, roster: Roster, janitor: Janitor, watches: Collection[str], *, submitted: bool = False
) -> None:
    """What an earlier run, or an earlier service of these watches, has left to be disposed of; with `submitted` the
    copies of documents that were handed in, too, whose watches need not be served. Raises EnvironmentProblem."""
    for job, _ in jobs.disposals.due():
        if submitted if job.submitted else job.watch in watches:
            janitor.add(job)


def _errand(roster: Roster, submitted: Documents, job: Job, reason: str) -> tuple[Documents, Disposal]:
    """What is to be disposed of, and how, as things are now: a copy goes whatever its watch, which may not be served,
    does with documents of its own source."""
    if job.submitted:
        return submitted, DELETE
    route = roster.routes[job.watch]
    return route.source, route.on_success(job) if reason == "success" else route.on_failure(job)


def _retry_command(config: Config) -> list[str]:
    where = ["--config", config.path] if config.path else ["--state-dir", config.state_dir]
    return ["convertd", "retry", *where]
