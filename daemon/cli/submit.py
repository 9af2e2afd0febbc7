"""`convertd submit`: hand files to the daemon without an inbox."""

from __future__ import annotations

import os
import secrets
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import click

from daemon import queries
from daemon.cli.common import Place, batch_command, locate, place_options
from daemon.control import ANSWER_TIMEOUT_SECONDS, DESCRIPTORS, ask, name_to_wire
from daemon.errors import NotRunning, Unanswered
from daemon.files import NotRegularFile, open_regular
from daemon.model import State, display, printable

SLOWEST_BYTES_PER_SECOND = 4 << 20
BUSY_SECONDS = 0.2
BUSY_PATIENCE_SECONDS = 600.0
LOOK_SECONDS = (0.1, 0.2, 0.5, 1.0)
LIVE_CHECK_SECONDS = 5.0
DOWN_SECONDS = 30.0
"""So long a daemon that jobs wait for may be away: a restart is no reason to give up."""


@click.command("submit")
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE…")
@place_options
@click.option("--watch", help="The watch whose sink and formats hold [default: the first one].")
@click.option("--priority", type=click.IntRange(1, 10), help="10 goes first [default: that of the watch].")
@click.option("--batch", help="The batch they belong to, new or not [default: a new one, whose name is printed].")
@click.option("--wait", is_flag=True, help="Wait until all are done: exit code 1 if any failed. Ctrl-C ends nothing.")
def command(
    files: tuple[str, ...],
    config_path: str | None,
    state_dir: str | None,
    watch: str | None,
    priority: int | None,
    batch: str | None,
    wait: bool,
) -> None:
    """Hand files to the running daemon. Results appear in its sink as submitted/BATCH/NAME.md.

    The files are copied before the command ends and never touched. The same file again in the same batch is the same
    job; another one of the same name is refused.
    """
    place = locate(config_path, state_dir)
    place.state.require_owner()
    submission = Submission(place.state.socket, watch, priority, _new_batch() if batch is None else batch)
    try:
        failed = submission.hand_over(files)
        if wait:
            failed |= _wait(place, submission.jobs)
        elif submission.jobs:
            click.echo(f"follow it: {batch_command(submission.batch)}")
    except KeyboardInterrupt:
        click.echo(f"\nwhat was handed over goes on; see: {batch_command(submission.batch)}", err=True)
        raise SystemExit(1) from None
    raise SystemExit(1 if failed else 0)


@dataclass
class Submission:
    """What one command hands over. `jobs` holds the names of the files by their job."""

    socket: str
    watch: str | None
    priority: int | None
    batch: str
    jobs: dict[int, str] = field(default_factory=dict)

    def hand_over(self, files: tuple[str, ...]) -> bool:
        """Hand the files over, a few at a time; says which are refused, and whether any was."""
        refused = announced = False
        for start in range(0, len(files), DESCRIPTORS):
            with ExitStack() as stack:
                opened = []
                for file in files[start : start + DESCRIPTORS]:
                    fd = _opened(file)
                    if fd is None:
                        refused = True
                    else:
                        stack.callback(os.close, fd)
                        opened.append((file, fd))
                if not opened:
                    continue
                answer = self._ask(opened)
            if not announced:
                announced = True
                click.echo(f"batch {answer['batch']}")
            for (file, _), outcome in zip(opened, answer["files"], strict=True):
                refused |= not self._note(file, outcome)
        return refused

    def _ask(self, opened: list[tuple[str, int]]) -> dict[str, Any]:
        sizes = [os.fstat(fd).st_size for _, fd in opened]
        described = [
            {"name": name_to_wire(os.path.basename(os.fsencode(file))), "size_bytes": size}
            for (file, _), size in zip(opened, sizes, strict=True)
        ]
        deadline = time.monotonic() + BUSY_PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = ask(
                    self.socket,
                    "submit",
                    timeout_seconds=ANSWER_TIMEOUT_SECONDS + sum(sizes) / SLOWEST_BYTES_PER_SECOND,
                    descriptors=[fd for _, fd in opened],
                    files=described,
                    watch=self.watch,
                    priority=self.priority,
                    batch=self.batch,
                )
            except Unanswered as error:
                raise Unanswered(error.message, self._again) from error
            if not answer["busy"]:
                return answer
            time.sleep(BUSY_SECONDS)
        raise Unanswered("the daemon has its hands full with what others submit", self._again)

    @property
    def _again(self) -> str:
        batch = shlex.quote(printable(self.batch))
        return f"Submit again with --batch={batch}: what was taken already is not taken twice."

    def _note(self, file: str, outcome: dict[str, Any]) -> bool:
        """Say what became of a file; False where it was refused."""
        name = display(os.fsencode(file))
        if "error" in outcome:
            hint = f"\n  → {outcome['hint']}" if outcome["hint"] else ""
            click.echo(f"{name}: {printable(outcome['error'])}{hint}", err=True)
            return False
        known = "" if outcome["new"] else f"   (handed in before; {outcome['state']})"
        click.echo(f"{outcome['job']:>7}  {name}{known}")
        self.jobs[outcome["job"]] = name
        return True


def _opened(file: str) -> int | None:
    """A descriptor of the file; None, said on stderr, where it cannot be had."""
    path = os.fsencode(file)
    try:
        return open_regular(path)
    except NotRegularFile:
        click.echo(f"{display(path)}: not a regular file\n  → Name the files: convertd submit FOLDER/*", err=True)
    except OSError as error:
        click.echo(f"{display(path)}: {error.strerror}", err=True)
    return None


def _new_batch() -> str:
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"


def _wait(place: Place, jobs: dict[int, str]) -> bool:
    """Print each job as it ends; whether any failed."""
    failed = False
    for name, (_, state, output, kind, error) in _ends(place, dict(jobs)):
        failed |= state == State.FAILED
        said = f" → {printable(output)}" if state == State.COMPLETED else ""
        said = f": {kind}: {printable(error)}" if state == State.FAILED else said
        click.echo(f"{state or 'dropped':<10} {name}{said}")
    return failed


def _tell_what_holds_up(place: Place, live: dict[str, Any], job_id: int, said: str) -> str:
    """Say why a job may have to wait long, unless that is what was said last; returns what is true now."""
    with place.table() as db:
        job = queries.job(db, job_id)
    watch = job["watch"] if job else ""
    condition = live["watches"].get(watch, {"state": "no longer configured", "error": None})
    reason = "" if condition["state"] == "running" else f"watch {watch} is {condition['state']}"
    reason += f": {condition['error']}" if reason and condition["error"] else ""
    if reason and reason != said:
        click.echo(f"waiting: {printable(reason)}", err=True)
    return reason


def _ends(place: Place, left: dict[int, str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The jobs as they end, with their names. Raises NotRunning where nobody is there to end them."""
    looks, next_check, seen, said = 0, 0.0, time.monotonic(), ""
    while left:
        with place.table() as db:
            ended = queries.ends(db, list(left))
        for row in ended:
            yield left.pop(row[0]), row
        if ended:
            looks = 0
            continue
        now = time.monotonic()
        if now >= next_check:
            next_check = now + LIVE_CHECK_SECONDS
            live = place.live()
            if live is not None:
                seen = now
                said = said if live["version"] is None else _tell_what_holds_up(place, live, next(iter(left)), said)
            elif now - seen > DOWN_SECONDS:
                raise NotRunning(f"the daemon is not running; {len(left)} jobs wait for it", "Start it: convertd run")
        time.sleep(LOOK_SECONDS[min(looks, len(LOOK_SECONDS) - 1)])
        looks += 1
