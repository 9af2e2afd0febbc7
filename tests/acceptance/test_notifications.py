"""Notifications by a real daemon: every event arrives, whatever the receiver and the daemon go through."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests.acceptance.test_batches import rewind
from tests.harness import Daemon, running, until, whole_lines
from tests.receiver import HANG, Receiver, receiving

WATCH = '[[watch]]\nname = "docs"\nsource = "inbox"\nsink = "outbox"\n'


def configuration(*, webhook: str | None = None, command: Path | None = None) -> str:
    lines = ['state_dir = "state"', "workers = 2"]
    lines += [f'notify.webhook = "{webhook}/hook"'] if webhook else []
    lines += [f'notify.command = ["{command}"]'] if command else []
    return "\n".join(lines) + "\n" + WATCH


def teller(folder: Path) -> tuple[Path, Path]:
    """A command, and the file to which it adds a line an event."""
    told, script = folder / "told", folder / "tell"
    script.write_text(f"#!/bin/sh\n{{ cat; echo; }} >> '{told}'\n")
    script.chmod(0o755)
    told.touch()
    return script, told


def drop(daemon: Daemon, *names: str) -> None:
    for name in names:
        daemon.drop(name, f"<h1>{name}</h1>".encode())


def sources(receiver: Receiver) -> set[str]:
    return {event["source"] for event in receiver.events}


def test_both_targets_hear_of_every_end(tmp_path: Path) -> None:
    script, told = teller(tmp_path)
    with receiving() as receiver, running(tmp_path, configuration(webhook=receiver.url, command=script)) as daemon:
        drop(daemon, "a.html", "sub/b.html")
        daemon.drop("empty.txt", b"")
        until(lambda: len(receiver.events) == 3 and len(whole_lines(told)) == 3, "both have heard everything")
        by_source = {event["source"]: event for event in receiver.events}
        assert {event["id"] for event in whole_lines(told)} == {event["id"] for event in receiver.events}
        good, bad = by_source["sub/b.html"], by_source["empty.txt"]
        assert (good["kind"], good["watch"], good["error"]) == ("completed", "docs", None)
        assert good["output"] == str(daemon.outbox / "sub/b.html.md")
        assert (bad["kind"], bad["error"]["kind"], bad["output"]) == ("failed", "empty", None)
        jobs = {job["source"]: job for job in daemon.jobs()}
        assert (good["job"], good["version"]) == (jobs["sub/b.html"]["id"], jobs["sub/b.html"]["version"])
        status = until(lambda: _nothing_waits(daemon), "nothing waits")
        assert status["notify"]["webhook"]["address"] == receiver.url
        assert status["notify"]["command"]["address"] == "tell"
        assert "notify" not in daemon.command("status").stdout


def test_paths_are_told_as_they_are(tmp_path: Path) -> None:
    name = "Screenshot at 9.00\u202fAM \u3000.html"  # spaces that Python does not call printable
    with receiving() as receiver, running(tmp_path, configuration(webhook=receiver.url)) as daemon:
        drop(daemon, name)
        (event,) = until(lambda: receiver.events, "it is told")
        assert event["source"] == name
        assert Path(event["output"]).read_text().strip()
        (job,) = daemon.jobs()
        assert (job["source"], job["output"]) == (name, event["output"])
        assert "\u202f" not in daemon.command("jobs").stdout
        assert "\u202f" not in daemon.command("why", str(job["id"])).stdout
        assert "\u202f" not in daemon.command("plan", "--limit", "5").stdout


def _nothing_waits(daemon: Daemon) -> dict[str, Any] | None:
    status = daemon.status()
    return status if all(target["waiting"] == 0 for target in status["notify"].values()) else None


def test_every_event_arrives_though_the_receiver_fails_hangs_and_is_down_and_the_daemon_dies(tmp_path: Path) -> None:
    script, told = teller(tmp_path)
    with receiving(500) as receiver:
        daemon = Daemon(tmp_path, configuration(webhook=receiver.url, command=script))
        try:
            daemon.start()
            drop(daemon, "a.html", "b.html")
            until(lambda: len(receiver.requests) >= 2, "it was told twice")
            status = daemon.status()["notify"]["webhook"]
            assert (status["error"], status["waiting"]) == ("answered 500", 2)
            shown = daemon.command("status").stdout
            assert f"! notify webhook {receiver.url}: answered 500; 2 events wait, the first for " in shown

            receiver.status = HANG
            asked = len(receiver.requests)
            until(lambda: len(receiver.requests) > asked, "it hangs")
            drop(daemon, "c.html")
            until(lambda: len(whole_lines(told)) == 3, "the command does not wait for the webhook")
            assert daemon.outcome("c.html") == "converted"
            daemon.kill()

            receiver.stop()
            daemon.start()
            drop(daemon, "d.html")
            assert daemon.outcome("d.html") == "converted"
            until(lambda: daemon.status()["notify"]["webhook"]["error"] == "Connection refused", "it is down")
            assert daemon.stop() == 0, "a receiver that is down holds up no stop"

            receiver.status = 204
            receiver.start()
            daemon.start()
            names = {"a.html", "b.html", "c.html", "d.html"}
            until(lambda: sources(receiver) == names, "every event has arrived")
            assert [event["source"] for event in receiver.events][:2] in (["a.html", "b.html"], ["b.html", "a.html"])
            until(lambda: {event["source"] for event in whole_lines(told)} == names, "at the command, too")
            until(lambda: _nothing_waits(daemon), "nothing waits")
        finally:
            daemon.close()


def test_a_hanging_receiver_holds_up_no_stop(tmp_path: Path) -> None:
    with receiving(HANG) as receiver, running(tmp_path, configuration(webhook=receiver.url)) as daemon:
        drop(daemon, "a.html")
        until(lambda: receiver.requests, "it hangs")
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        until(lambda: daemon.status()["daemon"]["state"] == "stopping", "it waits for the receiver, a little")
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(30) == 0
        receiver.stop()
        receiver.status = 204
        receiver.start()
        daemon.start()
        until(lambda: sources(receiver) == {"a.html"}, "it is told after the next start")


def test_once_tells_before_it_ends(tmp_path: Path) -> None:
    script, told = teller(tmp_path)
    with receiving() as receiver:
        daemon = Daemon(tmp_path, configuration(webhook=receiver.url, command=script))
        names = [f"{number}.html" for number in range(10)]
        drop(daemon, *names)
        assert daemon.once() == 0
        assert sorted(event["source"] for event in receiver.events) == sorted(names)
        assert sorted(event["source"] for event in whole_lines(told)) == sorted(names)


def test_targets_come_and_go_by_a_reload(tmp_path: Path) -> None:
    with receiving() as receiver, running(tmp_path, configuration()) as daemon:
        assert daemon.config is not None and daemon.process is not None
        drop(daemon, "before.html")
        daemon.outcome("before.html")
        assert "notify" not in daemon.status()

        daemon.config.write_text(configuration(webhook=receiver.url))
        os.kill(daemon.process.pid, signal.SIGHUP)
        until(lambda: "webhook" in daemon.status().get("notify", {}), "it is told from now on")
        drop(daemon, "then.html")
        until(lambda: sources(receiver) == {"then.html"}, "it is told")

        daemon.config.write_text(configuration())
        os.kill(daemon.process.pid, signal.SIGHUP)
        until(lambda: "notify" not in daemon.status(), "it is told no more")
        drop(daemon, "after.html")
        daemon.outcome("after.html")
        assert sources(receiver) == {"then.html"}
        assert "waits for a restart" not in daemon.log.read_text()


def test_a_batch_that_is_complete_is_told(tmp_path: Path) -> None:
    with receiving() as receiver:
        daemon = Daemon(tmp_path, configuration(webhook=receiver.url) + 'batch = "subfolder"\n')
        try:
            drop(daemon, "monday/a.html", "monday/b.html")
            assert daemon.once() == 0
            assert {event["batch"] for event in receiver.events} == {"monday"}
            rewind(daemon)
            daemon.start()
            until(lambda: len(receiver.events) == 3, "the end of the batch is told")
        finally:
            daemon.close()
        event = receiver.events[2]
        assert (event["kind"], event["watch"], event["batch"]) == ("batch-complete", "docs", "monday")
        assert event["jobs"] == {"completed": 2}
        assert event["output"] == str(daemon.outbox / "monday.manifest.jsonl")
        assert (event["job"], event["source"], event["error"]) == (None, None, None)
