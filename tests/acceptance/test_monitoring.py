"""Metrics and health of a real daemon."""

from __future__ import annotations

import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from daemon.monitor import CLIENTS
from tests.harness import Daemon, running, until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def configuration(port: int) -> str:
    watch = '[[watch]]\nname = "docs"\nsource = "inbox"\nsink = "outbox"\n'
    return f'state_dir = "state"\nworkers = 2\nmetrics.listen = "127.0.0.1:{port}"\n{watch}'


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    status, text = get(port, "/metrics")
    assert status == 200
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}


def test_a_daemon_that_is_watched(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, configuration(port)) as daemon:
        assert get(port, "/healthz") == (200, "ok\n")
        daemon.drop("a.html", b"<h1>a</h1>")
        daemon.drop("empty.txt", b"")

        def ended(outcome: str) -> float:
            return samples(port).get(("convertd_jobs_total", frozenset({("watch", "docs"), ("outcome", outcome)})), 0.0)

        until(lambda: ended("completed") >= 1 and ended("failed") >= 1, "the ends are counted")
        found = samples(port)
        stages = {("watch", "docs")}
        for stage in ("fetch", "convert", "deliver"):
            assert found["convertd_stage_duration_seconds_count", frozenset({*stages, ("stage", stage)})] >= 1
        assert found["convertd_read_bytes_total", frozenset(stages)] >= 10
        assert found["convertd_conversions_total", frozenset({("engine", "html-to-markdown")})] == 1
        assert found["convertd_watch_healthy", frozenset(stages)] == 1
        assert found["convertd_job_table_commit_duration_seconds_count", frozenset()] >= 3
        assert get(port, "/")[0] == 404


def test_a_dispatcher_that_hangs_is_told_to_whoever_asks(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, configuration(port), entry=("-m", "tests.fault.daemon_that_hangs")) as daemon:
        assert get(port, "/healthz") == (200, "ok\n")
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGUSR1)
        until(lambda: get(port, "/healthz")[0] == 503, "it is not well")
        for _ in range(CLIENTS + 1):  # none of them takes a place for ever
            assert samples(port)["convertd_watch_paused", frozenset({("watch", "docs")})] == 0
        assert get(port, "/healthz") == (503, "the dispatcher has handed out nothing for 5 s\n")


def test_a_port_that_is_taken_starts_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        daemon = Daemon(tmp_path, configuration(server.getsockname()[1]))
        assert daemon.launch().wait(60) == 2
        assert "metrics.listen: cannot listen on 127.0.0.1 port" in daemon.log.read_text()


def test_each_document_has_one_line(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    for number in range(5):
        daemon.drop(f"{number}.html", b"<h1>a</h1>")
        daemon.drop(f"{number}.txt", b"")
    assert daemon.once() == 1
    lines = daemon.said()
    converted = [line for line in lines if line["event"] == "converted"]
    failed = [line for line in lines if line["event"] == "failed"]
    assert sorted(line["source"] for line in converted) == [f"{number}.html" for number in range(5)]
    assert sorted(line["source"] for line in failed) == [f"{number}.txt" for number in range(5)]
    for line in converted:
        assert line["level"] == "info"
        assert {"job", "watch", "source", "engine", "seconds"} <= set(line)


def test_a_console_or_a_file_gets_no_priorities(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.drop("a.html", b"<h1>a</h1>")
    assert daemon.launch("--once", env={"JOURNAL_STREAM": "8:12345"}).wait(120) == 0
    assert all(line.startswith("{") for line in daemon.log.read_text().splitlines())
    log = daemon.folder / "journal"
    log.touch()
    daemon.log = log
    status = log.stat()
    stream = f"{status.st_dev}:{status.st_ino}"
    assert daemon.launch("--once", env={"JOURNAL_STREAM": stream}).wait(120) == 0
    assert all(line.startswith("<6>{") for line in log.read_text().splitlines())
