"""The configuration: a TOML file, or two folders, as frozen objects; all its mistakes are reported at once.

A line of a mistake is `KEY: found VALUE; allowed: WHAT`. A relative path is relative to the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable

from daemon import buckets
from daemon.configfile import find, parse
from daemon.errors import ConfigError
from daemon.ground import Ground
from daemon.overlaps import Place, Role, overlaps
from daemon.settings import S3, Config, Limits, Log, Metrics, Notify, Ocr, Retry, Watch, settings_from
from daemon.tables import Mistakes, Table, did_you_mean
from daemon.words import show

__all__ = [
    "S3",
    "Config",
    "Limits",
    "Log",
    "Metrics",
    "Notify",
    "Ocr",
    "Retry",
    "Watch",
    "check_engines",
    "check_languages",
    "defaults",
    "find",
    "for_folders",
    "load",
]

DEFAULT_STATE_DIR = ".convertd"
_NO_RELATIVE_PATH = r"~(/|$)|[A-Za-z][A-Za-z0-9+.-]*://"

Check = Callable[[Config], Iterable[str]]
"""Finds mistakes that only somebody else can see, such as OCR languages that are not installed."""


def load(path: str, *, checks: Iterable[Check] = ()) -> Config:
    """Read a configuration file. Raises ConfigError with every mistake there is.

    `checks` run on what could be understood, so that their mistakes are reported together with the others.
    """
    path = os.path.abspath(path)
    raw = parse(path)
    mistakes = Mistakes()
    ground = Ground(os.path.dirname(path))
    config = settings_from(Table(raw, mistakes), path, ground)
    if raw.get("watch", []) == []:
        mistakes.add("watch", "nothing", "at least one [[watch]] with name, source and sink")
    _refuse_duplicate_names(config, mistakes)
    _refuse_shared_queues(config, mistakes)
    _refuse_overlaps(config, ground, mistakes)
    return _checked(config, mistakes, checks)


def for_folders(
    inbox: str, outbox: str, state_dir: str, *, name: str | None = None, checks: Iterable[Check] = ()
) -> Config:
    """The configuration of `run INBOX OUTBOX`: defaults for everything else. Raises ConfigError.

    Relative paths are relative to the working directory.
    """
    source, sink, state = (_with_its_space(path) for path in (inbox, outbox, state_dir))
    names = {"source": "INBOX", "sink": "OUTBOX", "prefix": "the prefix, which only a configuration file can have"}
    labels = {f"watch[0].{key}": name for key, name in names.items()}
    ground = Ground(os.getcwd())
    mistakes = Mistakes(labels | {"state_dir": "--state-dir"})
    raw = {"state_dir": state, "watch": [{"name": "pair", "source": source, "sink": sink}]}
    config = settings_from(Table(raw, mistakes), None, ground)
    named = [watch._replace(name=name or _pair_name(inbox, outbox)) for watch in config.watches]
    config = config._replace(watches=tuple(named))
    _refuse_overlaps(config, ground, mistakes)
    return _checked(config, mistakes, checks)


def _with_its_space(path: str) -> str:
    """Where white space around a path is no slip: a shell, or the job table, says it only where it is meant."""
    told = path.strip()
    return path if path == told or re.match(_NO_RELATIVE_PATH, told) else os.path.join(os.getcwd(), path, "")


def _pair_name(inbox: str, outbox: str) -> str:
    """A name of its own for each pair of places: what one pair has converted must not count for another. A place that
    does not answer is waited for: another name would be another watch."""
    import hashlib  # only here, and every command loads this module

    pair = "\0".join(path.rstrip("/") if buckets.is_url(path) else os.path.realpath(path) for path in (inbox, outbox))
    return f"inbox-{hashlib.sha256(os.fsencode(pair)).hexdigest()[:8]}"


def defaults() -> Config:
    """What holds where there is no configuration at all: no watch, and the state in the working directory."""
    mistakes = Mistakes()
    config = settings_from(Table({"state_dir": DEFAULT_STATE_DIR}, mistakes), None, Ground(os.getcwd()))
    return _checked(config, mistakes, ())


def check_languages(config: Config, available: Collection[str]) -> list[str]:
    """A mistake for each OCR language whose data is not installed."""
    mistakes = Mistakes()
    where = show(config.ocr.tessdata_dir) if config.ocr.tessdata_dir else "this environment"
    for index, name in enumerate(config.ocr.languages):
        if name not in available:
            allowed = ", ".join(sorted(available)) or "none"
            more = "for another, set ocr.tessdata_dir to a folder with its .traineddata"
            mistakes.add(f"ocr.languages[{index}]", f"{show(name)}, not installed in {where}", f"{allowed}; {more}")
    return mistakes.lines


def check_engines(config: Config, names: Collection[str], kinds: Collection[str]) -> list[str]:
    """A mistake for each kind or engine of [engines] that does not exist; `package.module:Class` is not looked up."""
    mistakes = Mistakes()
    for kind, order in config.engines.items():
        if kind not in kinds:
            allowed = f"{', '.join(sorted(kinds))}{did_you_mean(kind, kinds)}"
            mistakes.add(f"engines.{kind}", "an unknown kind of document", allowed)
        for index, name in enumerate(order):
            if name not in names and ":" not in name:
                allowed = f"{', '.join(sorted(names))} or package.module:Class{did_you_mean(name, names)}"
                mistakes.add(f"engines.{kind}[{index}]", show(name), allowed)
    return mistakes.lines


def _checked(config: Config, mistakes: Mistakes, checks: Iterable[Check]) -> Config:
    lines = [*mistakes.lines, *(line for check in checks for line in check(config))]
    if lines:
        raise ConfigError(lines)
    return config


# -- rules over several keys -----------------------------------------------------------------------------------------


def _refuse_duplicate_names(config: Config, mistakes: Mistakes) -> None:
    first: dict[str, int] = {}
    for index, watch in enumerate(config.watches):
        if watch.name and first.setdefault(watch.name, index) != index:
            found = f"{show(watch.name)}, the name of watch[{first[watch.name]}]"
            mistakes.add(f"watch[{index}].name", found, "a name that no other watch has")


def _refuse_shared_queues(config: Config, mistakes: Mistakes) -> None:
    """A message is handed to one reader only: of two watches, each would take documents of the other."""
    first: dict[tuple[object, ...], int] = {}
    for index, watch in enumerate(config.watches):
        if watch.source.startswith(buckets.SQS) and first.setdefault(_queue_of(watch), index) != index:
            found = f"{show(watch.source)}, the queue of watch[{first[_queue_of(watch)]}]"
            reason = "each of them would take messages that the other waits for"
            mistakes.add(f"watch[{index}].source", found, "a queue that no other watch reads", reason)


def _queue_of(watch: Watch) -> tuple[object, ...]:
    """What tells queues apart as far as the file says it; one without an account is that of the credentials."""
    queue, s3 = buckets.Queue.parse(watch.source), watch.s3
    owner = queue.account or (s3.profile, s3.credentials_file)
    return s3.queue_endpoint_url, s3.region, owner, queue.name


def _refuse_overlaps(config: Config, ground: Ground, mistakes: Mistakes) -> None:
    for overlap in overlaps(list(_places(config)), ground):
        place, other = overlap.place, overlap.other
        found = f"{show(place.path)}, {overlap.relation} {mistakes.label(other.key)} {show(other.path)}"
        mistakes.add(place.key, found, overlap.allowed)


def _places(config: Config) -> Iterable[Place]:
    yield Place("state_dir", Role.STATE, config.state_dir)
    for index, watch in enumerate(config.watches):
        disposals = {"on_success": watch.on_success, "on_failure": watch.on_failure}
        takes_away = any(disposal.action != "keep" for disposal in disposals.values())
        server = "" if watch.s3.is_aws else watch.s3.endpoint_url
        for name, role, path in (
            _documents(watch),
            ("sink", Role.SINK, watch.sink),
            *((name, Role.MOVE, disposal.target) for name, disposal in disposals.items()),
        ):
            if path:
                where = server if buckets.is_url(path) else None
                yield Place(f"watch[{index}].{name}", role, path, takes_away and role is Role.SOURCE, where)


def _documents(watch: Watch) -> tuple[str, Role, str]:
    """Where the documents of a watch lie, and the key that says so."""
    if watch.source.startswith(buckets.SQS):
        return "prefix", Role.SOURCE, watch.prefix
    return "source", Role.SOURCE, watch.source
