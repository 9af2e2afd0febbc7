"""What can be configured, and how it is read from the tables of the file: keys, defaults, units and bounds.

The settings are named tuples: making as many data classes would take every command longer than reading the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from daemon import buckets, values
from daemon.ground import Ground
from daemon.tables import Table, did_you_mean
from daemon.words import Disposal, show

MIB, GIB = 2**20, 2**30
DAY = 86400.0
MOMENT = 0.1
KEEP = Disposal("keep")
S3_KEYS = (
    "addressing",
    "anonymous",
    "ca_bundle",
    "connect_timeout",
    "credentials_file",
    "endpoint_url",
    "profile",
    "read_timeout",
    "region",
    "sqs_endpoint_url",
)

_AWS = r"\.amazonaws\.com(\.cn)?(:\d+)?$"
_CONFIDENTIAL = r"(?i:secret|access[_-]?key|token|passw|^key)"
T = TypeVar("T")


class Limits(NamedTuple):
    """What one document, and all at once, may use."""

    file_size_bytes: int
    in_flight_bytes: int
    spool_above_bytes: int
    convert_seconds: float
    converter_memory_bytes: int


class Retry(NamedTuple):
    """How often a document is tried, and how long to wait before each further attempt (the last repeats)."""

    attempts: int
    backoff_seconds: tuple[float, ...]


class Ocr(NamedTuple):
    """`mode` is auto, off or always; without a `tessdata_dir` the language data that pip installed is used."""

    mode: str
    languages: tuple[str, ...]
    tessdata_dir: str | None


class Log(NamedTuple):
    """`level` is debug, info, warning or error; `format` auto, json or console."""

    level: str
    format: str


class Metrics(NamedTuple):
    """`listen` is the host and the port where metrics are served; None where they are not."""

    listen: tuple[str, int] | None = None


class Notify(NamedTuple):
    """Who is told of events. What is empty or None is told nothing; a program with a slash in it is absolute."""

    command: tuple[str, ...] = ()
    webhook: str | None = None
    secret_file: str | None = None


class S3(NamedTuple):
    """How a watch reaches its buckets and its queue. What is None is left to boto3: AWS, its region, its credentials.

    `addressing` is auto, path or virtual; `anonymous` requests are not signed. Files are absolute.
    """

    endpoint_url: str | None = None
    sqs_endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    credentials_file: str | None = None
    ca_bundle: str | None = None
    addressing: str = "auto"
    anonymous: bool = False
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 15.0

    @property
    def is_aws(self) -> bool:
        """Whether the buckets are those of AWS and not of a server that merely speaks like it."""
        return self.endpoint_url is None or re.search(_AWS, self.endpoint_url) is not None

    @property
    def queue_endpoint_url(self) -> str | None:
        """Where the queue is: beside the buckets unless said otherwise, but AWS has another address for queues."""
        return self.sqs_endpoint_url or (None if self.is_aws else self.endpoint_url)


class Watch(NamedTuple):
    """One source and its sink, with the defaults of all but these. Paths and targets of moves are absolute.

    A location that is no folder is a URL as `daemon.buckets` writes it. `prefix` is set for sources that are queues.
    """

    name: str
    source: str
    sink: str
    include: tuple[str, ...] = ("**/*",)
    exclude: tuple[str, ...] = ()
    priority: int = 5
    formats: tuple[str, ...] = ("md", "json")
    on_success: Disposal = KEEP
    on_failure: Disposal = KEEP
    poll_interval_seconds: float = 30.0
    rescan_interval_seconds: float = 600.0
    settle_seconds: float = 0.02
    batch: str = "none"
    s3: S3 = S3()
    prefix: str = ""


class Config(NamedTuple):
    """A whole configuration without mistakes. `path` is the file it came from, if any."""

    path: str | None
    state_dir: str
    workers: int
    limits: Limits
    retry: Retry
    uploads_concurrency: int
    ocr: Ocr
    engines: Mapping[str, tuple[str, ...]]
    log: Log
    watches: tuple[Watch, ...]
    metrics: Metrics = Metrics()
    notify: Notify = Notify()


def settings_from(top: Table, path: str | None, ground: Ground) -> Config:
    """Everything that could be understood, with defaults for the rest; the mistakes are left with the table.

    Relative paths are relative to the base of `ground`.
    """
    config = Config(
        path=path,
        state_dir=top.value("state_dir", values.folder(ground), os.path.join(ground.base, "state")),
        workers=top.value("workers", values.whole_number(0, 1024), 0) or len(os.sched_getaffinity(0)),
        limits=_limits(top.table("limits")),
        retry=_retry(top.table("retry")),
        uploads_concurrency=_uploads(top.table("uploads")),
        ocr=_ocr(top.table("ocr"), ground),
        engines=_engines(top.table("engines")),
        log=_log(top.table("log")),
        metrics=_metrics(top.table("metrics")),
        notify=_notify(top.table("notify"), ground),
        watches=tuple(_watch(table, ground) for table in top.tables("watch")),
    )
    top.finish()
    return config


def _limits(table: Table) -> Limits:
    in_flight = table.value("in_flight", values.size_bytes(1), 512 * MIB)
    limits = Limits(
        file_size_bytes=table.value("file_size", values.size_bytes(1), 512 * MIB),
        in_flight_bytes=in_flight,
        spool_above_bytes=table.value("spool_above", values.size_bytes(0), min(100 * MIB, in_flight)),
        convert_seconds=table.value("convert_time", values.duration_seconds(MOMENT, DAY), 300.0),
        converter_memory_bytes=table.value("converter_memory", values.size_bytes(GIB), 2 * GIB),
    )
    if limits.spool_above_bytes > in_flight and table.sound("in_flight"):
        found, most = values.format_size(limits.spool_above_bytes), values.format_size(in_flight)
        table.refuse("spool_above", f'"{found}"', f"at most limits.in_flight, which is {most}")
    table.finish()
    return limits


def _retry(table: Table) -> Retry:
    backoff = values.duration_seconds(0.0, DAY)
    retry = Retry(
        attempts=table.value("attempts", values.whole_number(1, 100), 3),
        backoff_seconds=table.values("backoff", backoff, (5.0, 10.0, 20.0), "times", repeated=True),
    )
    table.finish()
    return retry


def _uploads(table: Table) -> int:
    concurrency = table.value("concurrency", values.whole_number(1, 1024), 5)
    table.finish()
    return concurrency


def _ocr(table: Table, ground: Ground) -> Ocr:
    ocr = Ocr(
        mode=table.value("mode", values.one_of("auto", "off", "always"), "auto"),
        languages=table.values("languages", values.language, ("eng",), "languages"),
        tessdata_dir=table.value("tessdata_dir", values.folder(ground), None),
    )
    table.finish()
    return ocr


def _engines(table: Table) -> Mapping[str, tuple[str, ...]]:
    orders = {kind: table.values(kind, values.engine, (), "engines") for kind in table.take_all()}
    return MappingProxyType(orders)


def _log(table: Table) -> Log:
    log = Log(
        level=table.value("level", values.one_of("debug", "info", "warning", "error"), "info"),
        format=table.value("format", values.one_of("auto", "json", "console"), "auto"),
    )
    table.finish()
    return log


def _metrics(table: Table) -> Metrics:
    metrics = Metrics(table.value("listen", _listen, None))
    table.finish()
    return metrics


def _notify(table: Table, ground: Ground) -> Notify:
    notify = Notify(
        command=_command(table, ground),
        webhook=_unseen(table, "webhook", _webhook, None),
        secret_file=_unseen(table, "secret_file", values.file(ground), None),
    )
    if notify.secret_file and not notify.webhook and table.sound("webhook"):
        table.refuse("secret_file", show(notify.secret_file), "no such key but with a webhook, whose events it signs")
    table.finish()
    return notify


def _listen(value: object) -> tuple[str, int]:
    from daemon import addresses  # few configurations have any, and every command reads one

    return addresses.listen(value)


def _webhook(value: object) -> str:
    from daemon import addresses

    return addresses.webhook(value)


def _command(table: Table, ground: Ground) -> tuple[str, ...]:
    words = table.values("command", values.word, (), "words, the program first", repeated=True)
    return (os.path.join(ground.base, words[0]), *words[1:]) if words and "/" in words[0] else words


def _watch(table: Table, ground: Ground) -> Watch:
    target = values.location(ground, ("s3",))
    source = values.location(ground, ("s3", "sqs"))
    default = Watch(name="", source="", sink="")
    interval = values.duration_seconds(MOMENT, DAY)
    s3 = table.table("s3")
    watch = Watch(
        name=table.value("name", values.watch_name, default.name, required=True),
        source=_unseen(table, "source", source, default.source, required=True),
        sink=_unseen(table, "sink", target, default.sink, required=True),
        include=table.values("include", values.glob, default.include, "globs"),
        exclude=table.values("exclude", values.glob, default.exclude, "globs", empty=True),
        priority=table.value("priority", values.whole_number(1, 10), default.priority),
        formats=table.values("formats", values.one_of("md", "json"), default.formats, "formats"),
        on_success=_unseen(table, "on_success", values.disposal(("keep", "delete"), target), default.on_success),
        on_failure=_unseen(table, "on_failure", values.disposal(("keep",), target), default.on_failure),
        poll_interval_seconds=table.value("poll_interval", interval, default.poll_interval_seconds),
        rescan_interval_seconds=table.value("rescan_interval", interval, default.rescan_interval_seconds),
        settle_seconds=table.value("settle", values.duration_seconds(0.0, 3600.0), default.settle_seconds),
        batch=table.value("batch", values.one_of("none", "subfolder"), default.batch),
        s3=_s3(s3, ground),
        prefix=_unseen(table, "prefix", values.prefix, default.prefix),
    )
    if "md" not in watch.formats:
        table.refuse("formats", show(list(watch.formats)), '["md"] or ["md", "json"]', '"md" is always written')
    if table.sound("source"):
        _check_prefix(table, watch)
        _check_targets(table, watch)
    if table.sound("source", "sink", "on_success", "on_failure"):
        _check_use(s3, watch)
    table.finish()
    return watch


def _s3(table: Table, ground: Ground) -> S3:
    default = S3()
    timeout = values.duration_seconds(MOMENT, 3600.0)
    s3 = S3(
        endpoint_url=_unseen(table, "endpoint_url", values.endpoint_url, None),
        sqs_endpoint_url=_unseen(table, "sqs_endpoint_url", values.endpoint_url, None),
        region=table.value("region", values.region, None),
        profile=table.value("profile", values.profile, None),
        credentials_file=_unseen(table, "credentials_file", values.file(ground), None),
        ca_bundle=_unseen(table, "ca_bundle", values.file(ground), None),
        addressing=table.value("addressing", values.one_of("auto", "path", "virtual"), default.addressing),
        anonymous=table.value("anonymous", values.flag, default.anonymous),
        connect_timeout_seconds=table.value("connect_timeout", timeout, default.connect_timeout_seconds),
        read_timeout_seconds=table.value("read_timeout", timeout, default.read_timeout_seconds),
    )
    if s3.anonymous and (s3.profile or s3.credentials_file):
        table.refuse("anonymous", "true", "false", "credentials are configured beside it")
    _finish_s3(table)
    return s3


def _finish_s3(table: Table) -> None:
    """Like `Table.finish`, with advice for those who look for the place of a secret."""
    for key in table.take_all():
        if key in S3_KEYS:
            continue
        if re.search(_CONFIDENTIAL, key):
            allowed = "credentials_file, profile, or the environment of the daemon"
            table.refuse(key, "what looks like a secret", allowed, "secrets do not belong in this file")
        else:
            table.refuse(key, "an unknown key", f"{', '.join(S3_KEYS)}{did_you_mean(key, S3_KEYS)}")


def _unseen(table: Table, key: str, parse: values.Parser[T], default: T, *, required: bool = False) -> T:
    """Like `Table.value`, for values in which people put secrets: a mistake that may hold one is not shown."""
    try:
        return table.value(key, parse, default, required=required)
    except values.Secret as secret:
        table.refuse(key, secret.found, secret.allowed, secret.reason)
        return default


def _check_prefix(table: Table, watch: Watch) -> None:
    """A queue needs a prefix: its events say where in the bucket, not what is above. Others have it in their source.
    Nor does one daemon of many see the whole of a folder."""
    queue = watch.source.startswith(buckets.SQS)
    if queue and not watch.prefix and table.sound("prefix"):
        table.refuse("prefix", "nothing", '"s3://BUCKET/PREFIX/", which the events of the queue are about')
    elif watch.prefix and not queue:
        table.refuse("prefix", show(watch.prefix), "no such key but with an sqs:// source")
    if queue and watch.batch != "none":
        reason = "the daemons that share a queue have a part of each folder"
        table.refuse("batch", show(watch.batch), '"none" with an sqs:// source', reason)


def _check_targets(table: Table, watch: Watch) -> None:
    """A document is moved within its own kind of place."""
    folder = os.path.isabs(watch.source)
    allowed = '"move:DIR" where DIR is ' + ("a folder, as the source" if folder else '"s3://…", as the source')
    for key, disposal in (("on_success", watch.on_success), ("on_failure", watch.on_failure)):
        if disposal.action == "move" and os.path.isabs(disposal.target) != folder:
            table.refuse(key, show(f"move:{disposal.target}"), allowed)


def _check_use(s3: Table, watch: Watch) -> None:
    """Settings for buckets and queues where there are none are meant for another watch."""
    places = (watch.source, watch.sink, watch.on_success.target, watch.on_failure.target)
    if (keys := s3.take_all()) and not any(place.startswith((buckets.S3, buckets.SQS)) for place in places):
        s3.refuse_all(", ".join(keys), "no such table but with an s3:// or sqs:// source or sink")
