"""A queue as a source, on a real protocol and a real job table: the test is the worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from daemon import buckets
from daemon.buckets import Prefix
from daemon.db import Readers, Writer
from daemon.discovery import Discovery
from daemon.dispatch import Dispatcher
from daemon.errors import DocumentError, EnvironmentProblem, Kind, Stopped, TransientError
from daemon.health import Health
from daemon.jobs import JobTable
from daemon.logs import Log
from daemon.model import Candidate, Conversion, Job, State
from daemon.payload import Payloads
from daemon.pipeline import Route
from daemon.s3.clients import Clients
from daemon.s3.objects import Bucket as S3Objects
from daemon.s3.problems import translated
from daemon.s3.queues import Message, MessageQueue
from daemon.settings import S3, Watch
from daemon.sinks.base import Sink
from daemon.sources import sqs_keeper, sqs_receiving
from daemon.sources.base import Documents, Surroundings
from daemon.sources.sqs import SqsSource, longest_wait
from tests.harness import until
from tests.servers import Bucket, Queue, S3Server, created_event, queue_for, s3_settings
from tests.unit.test_health import Lines
from tests.watching import Clock, Everything

CONVERSION = Conversion(b"# hi", "ab" * 32, "text/plain", "text", "1.0")
WATCH = "events"


@pytest.fixture(scope="module")
def settings(moto_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> S3:
    return s3_settings(moto_server, tmp_path_factory.mktemp("credentials"))


@pytest.fixture(scope="module")
def clients() -> Clients:
    return Clients(8)


@pytest.fixture
def queue(moto_bucket: Bucket) -> Iterator[Queue]:
    with queue_for(moto_bucket, max_receive_count=2, prefix="in/") as queue:
        yield queue


class Counting(Discovery):
    """Counts how often the source has asked for room: once a round. `meanwhile` is called once, when it has queued
    something and is about to ask which of it has not ended yet."""

    rounds = 0
    meanwhile: Callable[[], object] | None = None

    def room(self) -> int:
        self.rounds += 1
        return super().room()

    def unfinished(self, sources: list[bytes]) -> set[bytes]:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().unfinished(sources)


class Rig:
    """A daemon's discovery and job table around a source; what its workers would do is left to the test."""

    def __init__(self, source: SqsSource, folder: Path, slots: int) -> None:
        self.source = source
        self.writer = Writer(str(folder / "convertd.db"))
        self.writer.start()
        self.jobs = JobTable(self.writer, Readers(str(folder / "convertd.db")))
        self.jobs.register(WATCH, "sqs://q", "/out")
        self.jobs.recover()
        self.dispatcher = Dispatcher([WATCH], self.jobs.pending, time.time, time.monotonic)
        self.dispatcher.fill()
        self.lines = Lines()
        self.health = Health(WATCH, lambda size: source.probe(), self.dispatcher, cast(Log, self.lines))
        self.stop = threading.Event()
        route = Route(Watch(WATCH, "sqs://q", "/out"), source, cast(Sink, None), cast(Documents, None))
        self.discovery = Counting(route, self.jobs, self.dispatcher, self.health, self.stop, slots)
        self.errors: list[BaseException] = []
        self.thread = threading.Thread(target=self._run)
        self.takers = ThreadPoolExecutor(1)

    def _run(self) -> None:
        try:
            self.discovery.run()
        except BaseException as error:
            self.errors.append(error)

    def take(self) -> Job:
        """The next job, as a worker gets it."""
        job = self.takers.submit(self.dispatcher.take).result(30)
        assert job is not None
        self.jobs.start(job)
        return job

    def finish(self, job: Job, state: State = State.COMPLETED, between: Callable[[], object] = lambda: None) -> None:
        """End a job as a worker does; `between` happens after the end is recorded and before anybody is told."""
        if state is State.COMPLETED:
            assert self.jobs.complete(job, CONVERSION, "out.md", dispose=False)
        elif state is State.FAILED:
            assert self.jobs.fail(job, DocumentError(Kind.CORRUPT, "it is"), attempts=1, dispose=False)
        else:
            assert self.jobs.end(job, state)
        between()
        if state is State.SUPERSEDED:
            self.source.recheck(job.source)
        self.source.settled(job, state)
        self.dispatcher.done(job)

    def pending(self, size_bytes: int) -> None:
        """Wait until one job is pending, and it is of this size."""
        until(lambda: [job.size_bytes for job, _ in self.jobs.pending(WATCH, 10)] == [size_bytes], "it is queued")

    def no_more_jobs(self) -> None:
        """Wait until the source has gone round some more; nothing has been queued."""
        self.rounds(3)
        assert self.jobs.pending(WATCH, 10) == []

    def rounds(self, number: int) -> None:
        wanted = self.discovery.rounds + number
        until(lambda: self.discovery.rounds >= wanted, f"{number} more rounds")

    def drained(self) -> None:
        until(lambda: self.discovery.left == 0, "the source is drained")

    def end(self) -> float:
        """Stop discovery; returns how long that took."""
        since = time.monotonic()
        self.stop.set()
        self.dispatcher.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()
        return time.monotonic() - since


Start = Callable[..., Rig]


@pytest.fixture
def start(moto_bucket: Bucket, queue: Queue, settings: S3, clients: Clients, tmp_path: Path) -> Iterator[Start]:
    """Starts a source and what surrounds it; all of a test share one job table, as after a restart."""
    started: list[Rig] = []

    def start_one(
        *, slots: int = 10, address: buckets.Queue | None = None, clients: Clients = clients, **options: Any
    ) -> Rig:
        source = SqsSource(
            address or queue.address,
            Prefix(moto_bucket.name, "in/"),
            settings,
            Everything(),
            Surroundings(Payloads(str(tmp_path), 1 << 20, 1 << 10), clients),
            **{"wait_seconds": 0, **options},
        )
        rig = Rig(source, tmp_path, slots)
        started.append(rig)
        rig.thread.start()
        return rig

    yield start_one
    for rig in started:
        rig.end()
        rig.takers.shutdown()
        rig.writer.close()
        assert rig.errors == []


def empty(queue: Queue) -> None:
    until(lambda: queue.counts() == (0, 0), "the queue is empty")


def in_hand(queue: Queue, number: int) -> None:
    until(lambda: queue.counts() == (0, number), f"{number} messages are in hand")


# -- what is queued ------------------------------------------------------------------------------------------------


def test_a_message_is_deleted_when_its_job_has_ended(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    rig = start()
    empty(queue)  # the test event is consumed
    moto_bucket.put("in/a.txt", b"hello")
    job = rig.take()
    assert (job.source, job.size_bytes) == (b"a.txt", 5)
    rig.rounds(3)
    assert queue.counts() == (0, 1)
    assert rig.discovery.left
    rig.finish(job)
    empty(queue)
    rig.drained()
    assert rig.health.condition().state == "running"


@pytest.mark.parametrize("state", [State.FAILED, State.VANISHED, State.CANCELLED])
def test_every_end_is_an_end(start: Start, queue: Queue, moto_bucket: Bucket, state: State) -> None:
    rig = start()
    moto_bucket.put("in/a.txt", b"hello")
    rig.finish(rig.take(), state)
    empty(queue)


def test_the_records_of_a_message_are_taken_one_by_one(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    keys = ["in/ü b+c.txt", "in/100%.txt", "in/sub/folder/d&e=f.txt"]
    rig = start()
    for key in keys:
        moto_bucket.put(key, b"hello")
    jobs = [rig.take() for _ in keys]
    assert sorted(job.source for job in jobs) == sorted(key.removeprefix("in/").encode() for key in keys)
    for job in jobs:
        rig.finish(job, State.FAILED)
    empty(queue)
    for key in keys:
        moto_bucket.client.put_object(Bucket=moto_bucket.name, Key=key, Body=b"other")
    queue.send(created_event(moto_bucket.name, *keys, "in/absent", "in/.hidden", "out/elsewhere"))
    jobs = [rig.take() for _ in keys]
    in_hand(queue, 4)
    for job in jobs:
        rig.finish(job)
    empty(queue)
    rig.no_more_jobs()


def test_what_is_none_of_its_business_is_consumed(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    rig = start()
    queue.send(created_event("another-bucket", "in/a.txt"))
    queue.send(created_event(moto_bucket.name, "elsewhere/a.txt", "in/", "in"))
    queue.send('{"Event": "s3:TestEvent"}')
    queue.send('{"Records": []}')
    moto_bucket.put("in/folder/", b"")
    moto_bucket.put("in/.hidden", b"hidden")
    moto_bucket.delete("in/never-there")
    empty(queue)
    rig.drained()
    rig.no_more_jobs()
    assert rig.lines.events == []


def test_an_object_that_is_gone_again_is_no_document(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    moto_bucket.put("in/a.txt", b"hello")
    moto_bucket.delete("in/a.txt")
    rig = start()
    empty(queue)
    rig.no_more_jobs()


def test_a_duplicate_of_a_message_changes_nothing(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    rig = start()
    moto_bucket.put("in/a.txt", b"hello")
    job = rig.take()
    queue.send(created_event(moto_bucket.name, "in/a.txt", "in/a.txt"))
    in_hand(queue, 2)
    rig.finish(job)
    empty(queue)
    queue.send(created_event(moto_bucket.name, "in/a.txt"))
    empty(queue)
    rig.no_more_jobs()


def test_late_messages_bring_back_no_older_version(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    moto_bucket.put("in/a.txt", b"older")
    moto_bucket.put("in/a.txt", b"newest")
    rig = start()
    job = rig.take()
    assert job.size_bytes == len(b"newest")
    rig.finish(job)
    empty(queue)
    queue.send(created_event(moto_bucket.name, "in/a.txt", eTag="0" * 32, size=5, sequencer="00"))
    empty(queue)
    rig.no_more_jobs()


# -- newer versions ------------------------------------------------------------------------------------------------


def test_messages_wait_for_the_newest_version(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    """A pending job that is superseded is heard of no more; one that runs ends as superseded, or even well."""
    rig = start()
    moto_bucket.put("in/a.txt", b"1")
    running = rig.take()
    for content in (b"22", b"333"):
        moto_bucket.put("in/a.txt", content)
        rig.pending(len(content))
    in_hand(queue, 3)
    rig.finish(running)
    newest = rig.take()
    rig.rounds(3)
    assert queue.counts() == (0, 3)
    rig.finish(newest)
    empty(queue)


def test_a_document_found_changed_is_looked_at_again(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    rig = start()
    empty(queue)
    moto_bucket.put("in/a.txt", b"older")
    older = rig.take()
    unannounced(moto_bucket, lambda: moto_bucket.put("in/a.txt", b"newest"))
    rig.finish(older, State.SUPERSEDED, between=lambda: rig.rounds(3))
    newest = rig.take()
    assert (newest.source, newest.size_bytes) == (b"a.txt", 6)
    rig.rounds(3)
    in_hand(queue, 1)
    rig.finish(newest)
    empty(queue)


def test_a_version_that_comes_back_is_waited_for_anew(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    """The first job of the version ends as superseded, as the pipeline ends what is no longer the newest job."""
    rig = start()
    moto_bucket.put("in/a.txt", b"one")
    first = rig.take()
    for content in (b"other", b"one"):
        moto_bucket.put("in/a.txt", content)
        rig.pending(len(content))
    rig.jobs.end(first, State.SUPERSEDED)
    rig.source.settled(first, State.SUPERSEDED)
    rig.dispatcher.done(first)
    last = rig.take()
    assert (last.version, last.id > first.id) == (first.version, True)
    rig.rounds(3)
    in_hand(queue, 3)
    rig.finish(last)
    empty(queue)


@pytest.mark.parametrize("told", ["in time", "late"])
def test_a_job_may_end_before_the_source_knows_of_it(
    start: Start, queue: Queue, moto_bucket: Bucket, told: str
) -> None:
    """The end as superseded is recorded already, and perhaps nobody has been told, when the source asks."""
    rig = start()
    empty(queue)
    jobs: list[Job] = []

    def be_quick() -> None:
        jobs.append(rig.take())
        unannounced(moto_bucket, lambda: moto_bucket.put("in/a.txt", b"newest"))
        if told == "in time":
            rig.finish(jobs[0], State.SUPERSEDED)
        else:
            rig.jobs.end(jobs[0], State.SUPERSEDED)

    rig.discovery.meanwhile = be_quick
    moto_bucket.put("in/a.txt", b"older")
    until(
        lambda: jobs and any(job.id != jobs[0].id for job, _ in rig.jobs.pending(WATCH, 10)),
        "the newer version is queued, and not only the older one",
    )
    if told == "late":
        rig.source.settled(jobs[0], State.SUPERSEDED)
        rig.dispatcher.done(jobs[0])
    newest = rig.take()
    assert newest.size_bytes == 6
    rig.rounds(3)
    in_hand(queue, 1)
    rig.finish(newest)
    empty(queue)


def test_a_document_found_changed_may_be_gone_when_looked_at(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    rig = start()
    moto_bucket.put("in/a.txt", b"older")
    older = rig.take()
    unannounced(moto_bucket, lambda: moto_bucket.delete("in/a.txt"))
    rig.finish(older, State.SUPERSEDED)
    empty(queue)


def unannounced(bucket: Bucket, change: Callable[[], object]) -> None:
    """Change a bucket while it tells nobody."""
    rules = bucket.client.get_bucket_notification_configuration(Bucket=bucket.name)["QueueConfigurations"]
    bucket.client.put_bucket_notification_configuration(Bucket=bucket.name, NotificationConfiguration={})
    change()
    for rule in rules:
        rule["Events"] = ["s3:ObjectRemoved:*"]  # making a rule sends a test event, which does not matter
    bucket.client.put_bucket_notification_configuration(
        Bucket=bucket.name, NotificationConfiguration={"QueueConfigurations": rules}
    )


def test_an_end_that_nobody_told_of_is_found(
    start: Start, queue: Queue, moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqs_receiving, "CHECK_SECONDS", 0.1)
    rig = start()
    moto_bucket.put("in/a.txt", b"hello")
    assert rig.jobs.end(rig.take(), State.CANCELLED)
    empty(queue)


def test_the_job_table_knows_which_documents_are_not_finished(start: Start) -> None:
    jobs = start().jobs
    names = [b"%d" % number for number in range(2000)]
    new, _ = jobs.enqueue(WATCH, [Candidate(name, "1", 1) for name in names], 5)
    jobs.start(new[0])
    jobs.end(new[1], State.CANCELLED)
    assert jobs.known.unfinished(WATCH, [*names, b"unheard of"]) == {*names} - {names[1]}
    assert jobs.known.unfinished(WATCH, []) == jobs.known.unfinished("another", names) == set()


# -- messages that cannot be read ----------------------------------------------------------------------------------


def test_what_cannot_be_read_is_left_to_the_dead_letter_queue(
    start: Start, queue: Queue, moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqs_receiving, "UNREADABLE_AGAIN_SECONDS", 1)
    bodies = ["no JSON", '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {}}]}']
    rig = start()
    for body in bodies:
        queue.send(body)
    moto_bucket.put("in/a.txt", b"hello")
    rig.finish(rig.take())
    until(lambda: queue.counts(queue.dead_letter_url) == (2, 0), "both are dead letters")
    assert sorted(queue.receive(queue.dead_letter_url)) == sorted(bodies)
    empty(queue)
    assert rig.lines.events == ["watch note"], "one is noted, once"
    assert "dead-letter policy" in str(rig.health.condition().error)
    assert rig.health.condition().state == "running"


def test_what_cannot_be_read_does_not_come_in_a_hot_loop(start: Start, queue: Queue) -> None:
    rig = start()
    queue.send("no JSON")
    in_hand(queue, 1)
    rig.rounds(5)
    assert queue.counts() == (0, 1)
    rig.drained()


# -- room, pauses, stops -------------------------------------------------------------------------------------------


def test_no_more_is_received_than_there_are_slots(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    rig = start(slots=2)
    empty(queue)
    for number in range(4):
        moto_bucket.put(f"in/{number}.txt", b"hello")
    first = rig.take()
    until(lambda: queue.counts() == (2, 2), "two are in hand")
    rig.rounds(5)
    assert queue.counts() == (2, 2)
    rig.finish(first)
    until(lambda: queue.counts() == (1, 2), "one more is in hand")
    for _ in range(3):
        rig.finish(rig.take())
    empty(queue)


def test_nothing_is_received_while_paused(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    rig = start()
    empty(queue)
    rig.dispatcher.pause(WATCH, "operator")
    rig.rounds(2)
    moto_bucket.put("in/a.txt", b"hello")
    rig.rounds(5)
    assert queue.counts() == (1, 0)
    rig.dispatcher.resume(WATCH, "operator")
    rig.finish(rig.take())
    empty(queue)


def test_a_message_stays_hidden_as_long_as_its_job_takes(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    rig = start(hidden_seconds=2)
    moto_bucket.put("in/a.txt", b"hello")
    job = rig.take()
    in_hand(queue, 1)
    for_seconds(6, lambda: queue.counts() == (0, 1))
    rig.finish(job)
    empty(queue)


def for_seconds(seconds: float, holds: Callable[[], bool]) -> None:
    """Something has to hold all the time."""
    end = time.monotonic() + seconds

    def over() -> bool:
        assert holds()
        return time.monotonic() > end

    until(over, "the time is over")


def test_while_paused_others_get_what_has_not_begun(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    rig = start(hidden_seconds=2)
    empty(queue)
    moto_bucket.put("in/running.txt", b"hello")
    running = rig.take()
    moto_bucket.put("in/waiting.txt", b"hello")
    in_hand(queue, 2)
    rig.dispatcher.pause(WATCH, "environment")
    until(lambda: queue.counts() == (1, 1), "one message shows itself")
    (body,) = queue.receive()
    assert "waiting" in body
    rig.dispatcher.resume(WATCH, "environment")
    rig.finish(rig.take())
    rig.finish(running)
    empty(queue)
    rig.drained()  # a message that somebody else has deleted is no error
    assert rig.lines.events == []


def test_no_message_is_held_for_longer_than_the_queue_allows(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    clock = Clock()
    rig = start(monotonic=clock.monotonic, slots=1)
    moto_bucket.put("in/a.txt", b"hello")
    job = rig.take()
    in_hand(queue, 1)
    clock.ahead_seconds = sqs_keeper.LONGEST_HOLD_SECONDS + 1
    until(lambda: queue.counts() == (1, 0), "the message is shown again")
    rig.finish(job)
    empty(queue)  # it has come again, and the job had ended


def test_at_a_stop_others_get_what_has_not_begun(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    rig = start()
    empty(queue)
    for number in range(3):
        moto_bucket.put(f"in/{number}.txt", b"hello")
    ends_well, ends_not = rig.take(), rig.take()
    in_hand(queue, 3)
    assert rig.end() < 5
    assert queue.counts() == (1, 2), "what is worked on is not shown"
    rig.finish(ends_well)
    assert queue.counts() == (1, 1), "deleted when the job has ended, though nobody receives any more"
    rig.finish(ends_not, State.SUPERSEDED)
    assert queue.counts() == (2, 0), "somebody else finds out what is there now"


def test_what_comes_while_it_is_stopped_is_left_to_others(
    start: Start, queue: Queue, moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request may wait for long, and be answered after the configuration has been read again: this source would take
    no such document, the next one may."""
    receive = MessageQueue.receive

    def receive_at_a_stop(self: MessageQueue, *args: int) -> list[Message]:
        messages = receive(self, *args)
        if messages:
            rig.stop.set()
        return messages

    rig = start()
    empty(queue)
    monkeypatch.setattr(MessageQueue, "receive", receive_at_a_stop)
    queue.send(created_event(moto_bucket.name, "in/.hidden", "elsewhere/a.txt"))
    rig.thread.join(30)
    assert rig.stop.is_set() and not rig.thread.is_alive()
    until(lambda: queue.counts() == (1, 0), "it is shown to others")


def test_at_a_stop_what_was_being_fetched_is_given_back(
    start: Start, queue: Queue, moto_bucket: Bucket, tmp_path: Path
) -> None:
    clients = Clients(4)
    rig = start(clients=clients)
    moto_bucket.put("in/a.txt", b"hello")
    job = rig.take()
    in_hand(queue, 1)
    clients.stop()
    assert rig.end() < 5
    assert queue.counts() == (0, 1)
    with pytest.raises(Exception, match="stopped"), rig.source.fetch(job):
        pass
    assert queue.counts() == (1, 0)


def test_at_a_stop_a_newer_version_of_what_was_called_off_is_not_shown(
    start: Start, queue: Queue, moto_bucket: Bucket
) -> None:
    rig = start()
    moto_bucket.put("in/a.txt", b"hello")
    job = rig.take()
    with pytest.raises(Stopped), rig.source.fetch(job):
        raise Stopped("the conversion was stopped")
    rig.finish(job, State.CANCELLED)
    empty(queue)
    moto_bucket.put("in/a.txt", b"hello again")
    newer = rig.take()
    in_hand(queue, 1)
    rig.end()
    assert queue.counts() == (0, 1), "it is worked on"
    rig.finish(newer)
    assert queue.counts() == (0, 0)


def test_a_stop_ends_the_waiting_for_messages(start: Start, queue: Queue) -> None:
    clients = Clients(4)
    rig = start(wait_seconds=None, clients=clients)
    rig.drained()  # from now on it waits for long
    clients.stop()
    assert rig.end() < 5
    assert rig.lines.events == []


def test_who_tells_of_an_end_after_the_stop_does_not_wait_for_a_queue_that_does_not_answer(
    start: Start, queue: Queue, moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = start()
    moto_bucket.put("in/a.txt", b"hello")
    job = rig.take()
    rig.end()
    asked, answer = threading.Event(), threading.Event()

    def delete(self: MessageQueue, messages: object) -> list[Message]:
        asked.set()
        assert answer.wait(60)
        return []

    monkeypatch.setattr(MessageQueue, "delete", delete)
    teller = threading.Thread(target=rig.finish, args=(job,), daemon=True)
    teller.start()
    assert asked.wait(30)
    teller.join(30)
    assert not teller.is_alive(), "other watches' jobs end in this thread, too"
    answer.set()


def test_after_a_restart_a_message_waits_for_the_job_that_is_there(
    start: Start, queue: Queue, moto_bucket: Bucket
) -> None:
    rig = start()
    moto_bucket.put("in/a.txt", b"hello")
    in_hand(queue, 1)
    rig.end()
    assert queue.counts() == (1, 0)
    rig.writer.close()
    rig = start()
    job = rig.take()
    in_hand(queue, 1)
    rig.rounds(3)
    assert queue.counts() == (0, 1)
    rig.finish(job)
    empty(queue)
    rig.no_more_jobs()


# -- sick surroundings ---------------------------------------------------------------------------------------------


def recovers(rig: Rig) -> None:
    def well() -> bool:
        rig.health.check_recovery()  # as the supervisor does
        return not rig.health.sick

    until(well, "the watch is well again")


def test_a_queue_that_is_made_later_is_found(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    address = buckets.Queue("", f"{queue.address.name}-later")
    rig = start(address=address)
    until(lambda: rig.health.sick, "the watch is sick")
    condition = rig.health.condition()
    assert condition.state == "paused" and condition.error is not None
    assert address.name in condition.error and "name, region" in condition.error
    with pytest.raises(EnvironmentProblem):
        rig.source.probe()
    url = queue.client.create_queue(QueueName=address.name)["QueueUrl"]
    moto_bucket.put("in/a.txt", b"hello")
    queue.client.send_message(QueueUrl=url, MessageBody=created_event(moto_bucket.name, "in/a.txt"))
    recovers(rig)
    rig.finish(rig.take())
    until(lambda: queue.counts(url) == (0, 0), "the queue is empty")


def test_a_queue_of_another_account_is_found(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    rig = start(address=buckets.Queue("123456789012", queue.address.name))
    moto_bucket.put("in/a.txt", b"hello")
    rig.finish(rig.take())
    empty(queue)


def test_in_a_bucket_that_is_gone_no_document_is(start: Start, queue: Queue, moto_bucket: Bucket) -> None:
    rig = start()
    empty(queue)
    queue.send(created_event(moto_bucket.name, "in/a.txt"))
    moto_bucket.client.delete_bucket(Bucket=moto_bucket.name)
    until(lambda: rig.health.sick, "the watch is sick")
    with pytest.raises(EnvironmentProblem, match="NoSuchBucket"):
        rig.source.probe()
    assert queue.counts() == (0, 1)
    moto_bucket.client.create_bucket(Bucket=moto_bucket.name)
    moto_bucket.put("in/a.txt", b"hello")
    recovers(rig)
    rig.finish(rig.take())
    empty(queue)


def test_who_may_not_list_a_bucket_may_read_from_it(
    start: Start, monkeypatch: pytest.MonkeyPatch, moto_bucket: Bucket
) -> None:
    source = start().source

    def refuse(status: int) -> Callable[..., None]:
        def read(bucket: S3Objects, key: str) -> None:
            error = {"Error": {"Code": str(status)}, "ResponseMetadata": {"HTTPStatusCode": status}}
            with translated("reading"):
                raise ClientError(error, "GetObject")

        return read

    with monkeypatch.context() as patched:
        patched.setattr(S3Objects, "read_a_byte", refuse(403))
        source.probe()
        patched.setattr(S3Objects, "read_a_byte", refuse(500))
        with pytest.raises(EnvironmentProblem):
            source.probe()
    source.probe()  # the bucket says that the object is missing: so listing is allowed
    monkeypatch.setattr(S3Objects, "read_a_byte", refuse(403))
    with pytest.raises(EnvironmentProblem):
        source.probe()


def test_what_cannot_be_deleted_stops_receiving_until_it_can(
    start: Start, queue: Queue, moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = start()
    moto_bucket.put("in/a.txt", b"hello")
    job = rig.take()
    in_hand(queue, 1)

    def refuse(*_: Any) -> Any:
        raise EnvironmentProblem("deleting is not allowed", "allow it")

    with monkeypatch.context() as patched:
        patched.setattr(MessageQueue, "delete", refuse)
        rig.finish(job)
        until(lambda: rig.health.sick, "the watch is sick")
        assert "deleting is not allowed" in str(rig.health.condition().error)
        assert queue.counts() == (0, 1)
    empty(queue)
    recovers(rig)
    moto_bucket.put("in/b.txt", b"hello")
    rig.finish(rig.take())
    empty(queue)


def test_the_death_of_the_keeper_is_not_silent(
    start: Start, queue: Queue, moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> Any:
        raise ValueError("a fault of the test's making")

    rig = start()
    empty(queue)
    monkeypatch.setattr(MessageQueue, "delete", die)
    queue.send('{"Event": "s3:TestEvent"}')
    rig.thread.join(30)
    (error,) = rig.errors
    assert "a fault of the test's making" in str(error)
    rig.errors.clear()


@pytest.mark.parametrize("told", [True, False])
def test_a_document_that_cannot_be_looked_at_becomes_a_job_if_its_version_is_told(
    start: Start, queue: Queue, moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Its end is then told as for every document; it never stops the watch."""

    def refuse(self: SqsSource, source: bytes) -> Any:
        raise TransientError(Kind.UNREADABLE, "AccessDenied")

    monkeypatch.setattr(SqsSource, "look", refuse)
    rig = start()
    empty(queue)
    more = {"eTag": "0123456789abcdef", "size": 5} if told else {}
    queue.send(created_event(moto_bucket.name, "in/a.txt", **more))
    if told:
        job = rig.take()
        assert (job.source, job.version, job.size_bytes) == (b"a.txt", "5-0123456789abcdef", 5)
        rig.finish(job, State.FAILED)
        empty(queue)
    else:
        until(lambda: rig.health.condition().error, "it is noted")
        assert queue.counts() == (0, 1), "left to the queue"
    assert not rig.health.sick


def test_bare_requests_find_out_what_has_become_of_a_message(
    queue: Queue, settings: S3, clients: Clients, moto_bucket: Bucket
) -> None:
    messages = MessageQueue(queue.address, clients, settings)
    for number in range(11):
        queue.send(str(number))
    received = messages.receive(99, 0, 30) + messages.receive(99, 0, 30)
    assert (len(received), {message.receipts for message in received}) == (12, {1})
    assert queue.counts() == (0, 12)
    refused = messages.hide(received, 0)
    assert (refused.lost, refused.again, queue.counts()) == ([], [], (12, 0))
    assert messages.delete(received) == []
    assert queue.counts() == (0, 0)
    assert messages.hide(received, 30).lost == received
    assert messages.delete(received) == [], "no error: they are gone"


def test_waits_end_before_the_connection_is_given_up() -> None:
    assert [longest_wait(seconds) for seconds in (15.0, 60.0, 8.0, 2.0, 0.5)] == [10, 20, 4, 1, 0]
