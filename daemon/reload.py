"""A configuration that is read again while the daemon runs: a bad one is refused whole, a good one applied."""

from __future__ import annotations

from collections.abc import Callable, Collection

from daemon.config import Config, Notify
from daemon.errors import ConfigError, EnvironmentProblem
from daemon.logs import Log
from daemon.pipeline import Policy
from daemon.roster import Change, Roster

APPLIED = frozenset({"path", "watches", "retry", "limits", "notify"})
FIXED_LIMITS = ("in_flight_bytes", "spool_above_bytes", "converter_memory_bytes")


class Reload:
    """Called by one thread at a SIGHUP. Returns what became of the watches, None where nothing was changed.

    `load` reads a file, or raises ConfigError with all its mistakes; `notify` has others told of events, `take_up` has
    the disposals carried out that wait for these watches, as they are now; both raise EnvironmentProblem where the job
    table cannot be used.
    """

    def __init__(
        self,
        config: Config,
        policy: Policy,
        roster: Roster,
        notify: Callable[[Notify], None],
        take_up: Callable[[Collection[str]], None],
        log: Log,
        load: Callable[[str], Config],
    ) -> None:
        self._notify = notify
        self._take_up = take_up
        self._started_with = config
        self._policy = policy
        self._roster = roster
        self._log = log
        self._load = load

    def __call__(self) -> Change | None:
        if self._started_with.path is None:
            self._log.warning("nothing to reload: the daemon runs without a configuration file")
            return None
        try:
            config = self._load(self._started_with.path)
            change = self._roster.serve(config.watches)
        except ConfigError as error:
            for mistake in error.mistakes:
                self._log.error("configuration refused, the old one is kept", mistake=mistake)
            return None
        except EnvironmentProblem as problem:
            self._log.error("configuration not applied, the old one is kept", error=problem.message, hint=problem.hint)
            return None
        self._have_told(config.notify)
        self._have_taken_up((*change.added, *change.changed))
        self._policy.limits, self._policy.retry = config.limits, config.retry
        later = needs_restart(self._started_with, config)
        self._log.info("reloaded", added=change.added, removed=change.removed, changed=change.changed)
        if later:
            self._log.warning("a part of the configuration waits for a restart", keys=later)
        return change

    def _have_told(self, notify: Notify) -> None:
        """Apart from the watches: these are served anew by now."""
        try:
            self._notify(notify)
        except EnvironmentProblem as problem:
            self._log.error("[notify] not applied: reload again", error=problem.message, hint=problem.hint)

    def _have_taken_up(self, watches: Collection[str]) -> None:
        try:
            self._take_up(watches)
        except EnvironmentProblem as problem:
            self._log.error("sources not disposed of before the next start", error=problem.message, hint=problem.hint)


def needs_restart(old: Config, new: Config) -> list[str]:
    """The keys that have changed but hold only from the next start on."""
    keys = [key for key in Config._fields if key not in APPLIED]
    changed = [key for key in keys if getattr(old, key) != getattr(new, key)]
    return changed + [f"limits.{key}" for key in FIXED_LIMITS if getattr(old.limits, key) != getattr(new.limits, key)]
