"""Buckets and queues of a watch: a real round trip, and what the server does not know."""

from __future__ import annotations

from collections.abc import Iterator

from daemon import buckets
from daemon.buckets import Prefix, Queue
from daemon.checks.base import Finding, Stopping, ok, problem, warning
from daemon.config import Watch
from daemon.errors import ConvertdError, EnvironmentProblem, Stopped
from daemon.s3 import trial
from daemon.s3.clients import Clients
from daemon.s3.problems import forbids
from daemon.s3.queues import MessageQueue
from daemon.values import format_seconds

SKEW_SECONDS, WRONG_SECONDS = 60.0, 900.0
"""Servers refuse requests whose time is off by more than 15 minutes."""
SHORTEST_RETENTION_SECONDS = 86_400
SYNCHRONISE = "timedatectl set-ntp true, here and on the server"


def check_remote(watch: Watch, stopping: Stopping) -> Iterator[Finding]:
    """All of a watch that is no folder."""
    clients = Clients(2)
    with stopping.interrupting(clients.stop):
        if watch.prefix:
            yield from _tell_failure(_queue(clients, watch))
        source = watch.prefix or watch.source
        if buckets.is_url(source):
            yield from _tell_failure(_source(clients, watch, Prefix.parse(source)))
        if buckets.is_url(watch.sink):
            yield from _tell_failure(_sink(clients, watch, Prefix.parse(watch.sink)))
        targets = {disposal.target for disposal in (watch.on_success, watch.on_failure)}
        for target in sorted(filter(buckets.is_url, targets)):
            yield from _tell_failure(_target(clients, watch, Prefix.parse(target)))


def _tell_failure(findings: Iterator[Finding]) -> Iterator[Finding]:
    """What went wrong with one place says nothing of the next."""
    try:
        yield from findings
    except Stopped:
        raise
    except ConvertdError as error:
        yield problem(error.message, error.hint)


def _source(clients: Clients, watch: Watch, place: Prefix) -> Iterator[Finding]:
    try:
        reading = trial.read(clients, watch.s3, place)
    except ConvertdError as error:
        if not (watch.prefix and forbids(error)):
            raise
        yield ok(f"source {place.url}: may not be listed, which a watch of a queue does not need")
    else:
        how = "listed, and a byte read" if reading.read else "listed; there is nothing in it to be read"
        yield ok(f"source {place.url}: {how}")
        yield from _clock(place, reading.skew_seconds)
    if any(disposal.action != "keep" for disposal in (watch.on_success, watch.on_failure)):
        abilities = trial.write(clients, watch.s3, place)
        yield from _disposal(place, abilities)
        yield from _left(place, abilities)


def _disposal(place: Prefix, abilities: trial.Abilities) -> Iterator[Finding]:
    if abilities.conditional_delete:
        yield ok(f"source {place.url}: an object is only deleted if it is still the one that was converted (If-Match)")
    elif abilities.versions:
        yield ok(f"source {place.url}: versions are kept, so a newer object that a deletion hides is brought back")
    else:
        yield warning(
            f"source {place.url}: this server knows neither If-Match for deletions nor versions: a newer object that"
            " comes in the moment in which the converted one is deleted is deleted instead; that race remains",
            f"Keep versions: aws s3api put-bucket-versioning --bucket {place.bucket} --versioning-configuration"
            ' Status=Enabled; or on_success = "keep"; or never write twice to one key',
        )


def _sink(clients: Clients, watch: Watch, place: Prefix) -> Iterator[Finding]:
    abilities = trial.write(clients, watch.s3, place)
    yield ok(f"sink {place.url}: an object was put, read and deleted")
    if not abilities.conditional_put:
        what = f"sink {place.url}: this server knows no conditional writes (If-None-Match)"
        yield warning(what, "Let one daemon only write to it: of several, an older result may replace a newer one")
    yield from _left(place, abilities)


def _target(clients: Clients, watch: Watch, place: Prefix) -> Iterator[Finding]:
    abilities = trial.write(clients, watch.s3, place)
    yield ok(f"move target {place.url}: an object was put, read and deleted")
    yield from _left(place, abilities)


def _left(place: Prefix, abilities: trial.Abilities) -> Iterator[Finding]:
    if abilities.left:
        what = f"{place.url}: versions of {trial.CANARY}… stay behind their deletion markers"
        yield warning(what, "Allow s3:DeleteObjectVersion there, or have a lifecycle rule of the bucket expire them")


def _clock(place: Prefix, skew_seconds: float | None) -> Iterator[Finding]:
    if skew_seconds is None:
        yield ok(f"{place.url}: the server does not tell its time")
    elif abs(skew_seconds) > SKEW_SECONDS:
        level = problem if abs(skew_seconds) > WRONG_SECONDS else warning
        yield level(f"{place.url}: the server's clock differs from ours by {skew_seconds:+.0f} s", SYNCHRONISE)


def _queue(clients: Clients, watch: Watch) -> Iterator[Finding]:
    queue = Queue.parse(watch.source)
    try:
        attributes = MessageQueue(queue, clients, watch.s3).attributes()
    except EnvironmentProblem as error:
        if not isinstance(error.__cause__, ConvertdError) or not forbids(error.__cause__):
            raise
        yield warning(error.message, "Allow sqs:GetQueueAttributes to have the queue looked at; convertd does without")
        return
    waiting = int(attributes.get("ApproximateNumberOfMessages", 0))
    in_hand = int(attributes.get("ApproximateNumberOfMessagesNotVisible", 0))
    hidden = format_seconds(float(attributes.get("VisibilityTimeout", 0)))
    yield ok(
        f"queue {queue.url}: about {waiting:,} messages wait, {in_hand:,} are in hand; they are hidden for as long as"
        f" their jobs run, whatever the queue's own time is ({hidden})"
    )
    if "RedrivePolicy" not in attributes:
        yield warning(
            f"queue {queue.url} has no dead-letter queue: a message that cannot be understood comes back for ever",
            "aws sqs set-queue-attributes --queue-url URL --attributes"
            ' \'{"RedrivePolicy": "{\\"deadLetterTargetArn\\": \\"ARN\\", \\"maxReceiveCount\\": \\"10\\"}"}\'',
        )
    retention = int(attributes.get("MessageRetentionPeriod", SHORTEST_RETENTION_SECONDS))
    if retention < SHORTEST_RETENTION_SECONDS:
        what = f"queue {queue.url} forgets messages after {format_seconds(retention)}: those of a longer stop are lost"
        yield warning(what, "aws sqs set-queue-attributes --queue-url URL --attributes MessageRetentionPeriod=1209600")
