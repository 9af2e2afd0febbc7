"""What a watch needs: its source, its sink and where it moves documents to, each a folder or in a bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from daemon.checks.base import Check, Finding, Group, Level, Stopping, ok, problem, warning
from daemon.checks.folders import Folder
from daemon.checks.inotify import Tally
from daemon.checks.remedies import quoted, user
from daemon.checks.tree import look_through
from daemon.config import Limits, Watch
from daemon.values import format_seconds
from daemon.words import Disposal

SECONDS = 60.0
SERVER_SECONDS = 120.0


def group(watch: Watch, limits: Limits, tally: Tally, condition: Mapping[str, Any] | None) -> Group:
    """The checks of one watch. `condition` is what a running daemon says of it; None where none serves it."""
    remote = any(not os.path.isabs(place) for place in _places(watch))
    return Group(f"watch {watch.name}", _check(watch, limits, tally, condition), SERVER_SECONDS if remote else SECONDS)


def _check(watch: Watch, limits: Limits, tally: Tally, condition: Mapping[str, Any] | None) -> Check:
    def check(stopping: Stopping) -> Iterator[Finding]:
        yield from _folders(watch, limits, tally, condition is not None, stopping)
        if any(not os.path.isabs(place) for place in _places(watch)):
            from daemon.checks.remote import check_remote  # with boto3, which only who has a bucket should pay for

            yield from check_remote(watch, stopping)
        yield from _as_the_daemon_sees_it(watch, condition)

    return check


def _places(watch: Watch) -> list[str]:
    targets = (watch.on_success.target, watch.on_failure.target)
    return [place for place in (watch.source, watch.sink, *targets) if place]


def disposals(watch: Watch) -> list[Disposal]:
    """Those that take documents away."""
    return [disposal for disposal in (watch.on_success, watch.on_failure) if disposal.action != "keep"]


def _folders(watch: Watch, limits: Limits, tally: Tally, served: bool, stopping: Stopping) -> Iterator[Finding]:
    if os.path.isabs(watch.source):
        yield from _source(watch, Folder("source", watch.source, daemon_runs=served), tally, stopping)
    if os.path.isabs(watch.sink) and not stopping():
        sink = Folder("sink", watch.sink, daemon_runs=served)
        yield from _written(sink, "results")
        yield from _folded(watch, sink)
        if os.path.isdir(watch.sink):
            yield from sink.room(limits.file_size_bytes, "a result as large as limits.file_size")
    for target in sorted({disposal.target for disposal in disposals(watch)} - {""}):
        if os.path.isabs(target) and not stopping():
            folder = Folder("move target", target, daemon_runs=served)
            yield from _written(folder, "documents")
            yield from _other_device(watch, folder)


def _written(folder: Folder, what_for: str) -> Iterator[Finding]:
    missing = list(folder.missing())
    yield from missing or folder.written(what_for)


def _folded(watch: Watch, sink: Folder) -> Iterator[Finding]:
    if not sink.folds:
        return
    what = f"{sink.name} takes names that differ in case only (A.pdf, a.pdf) for the same one"
    if "json" in watch.formats:
        what = f"{what}: the second of two such documents fails"
        yield warning(what, f"Rename such documents (convertd plan --name {quoted(watch.name)}), or use another disk")
    else:
        what = f"{what}: the second of two such documents replaces the result of the first, which no sidecar names"
        yield warning(what, 'formats = ["md", "json"]: then the second fails instead; or use another disk')


def _source(watch: Watch, source: Folder, tally: Tally, stopping: Stopping) -> Iterator[Finding]:
    if missing := list(source.missing()):
        yield from missing
        return
    unreadable = list(source.read())
    yield from unreadable
    if unreadable:
        return
    disposed = disposals(watch)
    written: list[Finding] = []
    if disposed:
        written += source.written(f"nothing, but on_… = {disposed[0].action!r} takes documents away from it")
    yield from written
    tree = look_through(watch.source, stopping)
    more = "" if tree.whole else " or more"
    if source.is_remote():
        interval = format_seconds(watch.poll_interval_seconds)
        yield ok(f"{source.name} lies on {source.filesystem()}: listed every {interval}, as no kernel reports its news")
    elif tree.link:
        what = f"{source.name}: changes are noticed late, as {tree.link} is a symbolic link to a folder"
        yield warning(what, f"rm {quoted(tree.link)} (links are never followed), or live with poll_interval")
    else:
        tally.add(tree.folders)
        kind = source.filesystem() or "unknown"
        yield ok(f"{source.name}: {tree.folders:,}{more} folders on {kind}, changes are noticed by inotify")
    if not disposed and tree.asked is False:
        yield ok(f"{source.name}: nobody says who still writes a file there; taken once quiet for 2 s")
    if tree.closed_folder:
        acl = f"setfacl -R -m u:{user().removeprefix('#')}:rX {quoted(tree.closed_folder)}"
        what = f"{tree.closed_folder} cannot be read: documents in it are not seen"
        yield warning(what, f"{acl}, or live with it if nothing in it is a document")
    if tree.closed_file:
        yield warning(f"{tree.closed_file} cannot be read", f"chmod -R u+rX {quoted(watch.source)}, as its owner")
    told = any(finding.level is Level.PROBLEM for finding in written)
    if disposed and tree.fixed_folder and not told:
        what = f"{tree.fixed_folder} cannot be written: documents in it cannot be taken away"
        yield problem(what, f"chmod u+w {quoted(tree.fixed_folder)}, or {_kept(watch)}")


def _kept(watch: Watch) -> str:
    """What is to stand in the configuration for no document to be taken away."""
    found = {"on_success": watch.on_success, "on_failure": watch.on_failure}
    return " and ".join(f'{key} = "keep"' for key, disposal in found.items() if disposal.action != "keep")


def _other_device(watch: Watch, target: Folder) -> Iterator[Finding]:
    try:
        if os.stat(watch.source).st_dev != os.stat(target.path).st_dev:
            yield ok(f"{target.name} is on another file system than the source: documents are copied there")
    except OSError:
        return


def _as_the_daemon_sees_it(watch: Watch, condition: Mapping[str, Any] | None) -> Iterator[Finding]:
    if condition is None or not condition["error"]:
        return
    by_hand = condition["error"].startswith("by `convertd pause")
    remedy = f"convertd resume {watch.name}" if by_hand else "Mend what it names; it goes on by itself"
    yield warning(f"the running daemon says: {condition['state']} {condition['error']}", remedy)
