"""convertd as a service of a real systemd, under the unit that `convertd install` has written."""

from __future__ import annotations

import hmac
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import documents
from tests.harness import ROOT, until
from tests.machine import Machine, booted, unavailable

PYTHON = os.path.join(os.path.realpath(os.path.dirname(sys.executable)), "python")
CHECKOUT = {"PYTHONPATH": str(ROOT)}
CONFIG_FILE = "/etc/convertd/config.toml"
INBOX, OUTBOX = "/srv/in box 100%", "/srv/out box 100%"
WATCH = f"""
[[watch]]
name = "first"
source = "{INBOX}"
sink = "{OUTBOX}"
"""
SECOND_WATCH = """
[[watch]]
name = "second"
source = "/srv/second/in"
sink = "/srv/second/out"
on_success = "move:/srv/second/done"
"""
STATE = 'state_dir = "/var/lib/convertd"\n'
METRICS = "http://127.0.0.1:9464"
NOTIFY = """
notify.command = ["tell"]
notify.webhook = "http://localhost:8080/hook"
notify.secret_file = "/run/credentials/convertd.service/notify"
metrics.listen = "127.0.0.1:9464"
"""
TOLD = """
[Service]
ReadWritePaths=/srv/told
LoadCredential=notify:/etc/convertd/notify-secret
"""
RECEIVER = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with open("/tmp/received", "a") as file:
            print(json.dumps([dict(self.headers), body]), file=file)
        self.send_response(204)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""
# What the tests add to the unit: where this checkout is.
DROP_IN = f"[Service]\nEnvironment=PYTHONPATH={ROOT}\n"
HANGING = f"""
[Service]
ExecStart=
ExecStart={PYTHON} -m tests.fault.daemon_that_hangs run --config {CONFIG_FILE}
WatchdogSec=10
"""
WORDS = "quick brown fox"
pytestmark = pytest.mark.timeout(1200)  # the first test of a machine that has no tree yet waits for debootstrap


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """One that has convertd installed by what `convertd install` did and said."""
    if reason := unavailable():
        pytest.skip(reason)
    with ExitStack() as stack:
        try:
            machine = stack.enter_context(booted())
        except RuntimeError as error:
            pytest.skip(str(error))
        machine.write(CONFIG_FILE, STATE + WATCH + SECOND_WATCH)
        said = machine.run(PYTHON, "-m", "daemon", "install", "--config", CONFIG_FILE, env=CHECKOUT)
        machine.write("/etc/systemd/system/convertd.service.d/checkout.conf", DROP_IN)
        for command in said.partition("now run:\n")[2].splitlines():
            machine.run("sh", "-ec", command)
        yield machine
        _keep(machine)


@pytest.fixture
def service(machine: Machine) -> Iterator[Machine]:
    """A machine on which convertd has just been started with its first watch."""
    machine.write(CONFIG_FILE, STATE + WATCH)
    machine.run("systemctl", "restart", "convertd")
    yield machine
    machine.run("systemctl", "reset-failed", "convertd", check=False)


@pytest.fixture
def told(machine: Machine) -> Iterator[Machine]:
    """A machine whose convertd, under the unit for its configuration, has a command and monitoring to tell."""
    unit = machine.path("/etc/systemd/system/convertd.service")
    before = unit.read_text()
    machine.write("/usr/local/bin/tell", "#!/bin/sh\n{ cat; echo; } >>/srv/told/events\n")
    machine.path("/usr/local/bin/tell").chmod(0o755)
    machine.run("install", "-d", "-o", "convertd", "/srv/told")
    machine.write(CONFIG_FILE, STATE + NOTIFY + WATCH)
    machine.run(PYTHON, "-m", "daemon", "install", "--config", CONFIG_FILE, env=CHECKOUT)
    machine.write("/etc/systemd/system/convertd.service.d/told.conf", TOLD)
    machine.write("/etc/hosts", "127.0.0.1 localhost\n")
    machine.write("/etc/convertd/notify-secret", "hunter2\n")
    machine.path("/etc/convertd/notify-secret").chmod(0o600)
    for left in ("/tmp/received", "/srv/told/events"):
        machine.path(left).unlink(missing_ok=True)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemd-run", "--unit=receiver", "--collect", PYTHON, "-c", RECEIVER)
    machine.run("systemctl", "restart", "convertd")
    yield machine
    machine.run("systemctl", "stop", "receiver")
    machine.path("/etc/systemd/system/convertd.service.d/told.conf").unlink()
    unit.write_text(before)
    machine.run("systemctl", "daemon-reload")


def shown(machine: Machine, name: str) -> str:
    return machine.run("systemctl", "show", "--value", f"--property={name}", "convertd").strip()


def drop(machine: Machine, folder: str, name: str, content: bytes) -> None:
    """A document that convertd may read, move and delete."""
    machine.write(f"{folder}/{name}", content)


def converted(machine: Machine, folder: str, name: str, unit: str = "convertd") -> str:
    """Wait for the Markdown of a document."""
    path = machine.path(f"{folder}/{name}.md")
    try:
        until(path.exists, f"{name} is converted")
    except AssertionError:
        print(machine.run("journalctl", "--no-pager", "--lines=100", f"--unit={unit}", check=False))
        raise
    return path.read_text()


def test_ready_means_that_it_answers(service: Machine) -> None:
    assert shown(service, "Type") in ("notify", "notify-reload")
    assert shown(service, "ActiveState") == "active"
    status = service.run(PYTHON, "-m", "daemon", "status", "--config", CONFIG_FILE, env=CHECKOUT)
    assert "running" in status
    assert shown(service, "User") == "convertd"


def test_documents_of_all_engines_and_scans_are_converted_within_the_limits_of_the_unit(service: Machine) -> None:
    contents = {
        "text.pdf": documents.pdf([WORDS]),
        "scan.pdf": documents.scanned_pdf([WORDS]),
        "picture.png": documents.png(WORDS),
        "word.docx": documents.docx(WORDS),
        "slides.pptx": documents.pptx([WORDS]),
        "table.xlsx": documents.xlsx([["quick brown fox", "1"]]),
        "open.odt": documents.odt(WORDS),
        "book.epub": documents.epub([WORDS]),
        "page.html": documents.html(WORDS),
        "old.rtf": documents.rtf(WORDS),
        "mail.eml": documents.eml(WORDS),
    }
    for name, content in contents.items():
        drop(service, INBOX, name, content)
    for name in contents:
        assert WORDS in converted(service, OUTBOX, name), name
    warnings = service.run("journalctl", "--unit=convertd", "--output=cat", "--grep=sandbox incomplete", check=False)
    assert "sandbox incomplete" not in warnings


def test_the_status_is_seen_in_systemctl(service: Machine) -> None:
    drop(service, INBOX, "seen.txt", b"words")
    converted(service, OUTBOX, "seen.txt")
    until(lambda: shown(service, "StatusText").startswith("1 watch, 0 pending, 0 processing"), "the status is told")
    assert "documents/s" in service.run("systemctl", "status", "--no-pager", "convertd")


def test_it_may_write_where_it_must_and_nowhere_else(service: Machine) -> None:
    inside = [f"--property={name}" for name in ("ReadWritePaths", "ProtectSystem", "PrivateNetwork")]
    assert "ProtectSystem=strict" in (said := service.run("systemctl", "show", *inside, "convertd"))
    assert "PrivateNetwork=yes" in said, "folders need no network"
    pid = shown(service, "MainPID")
    mounts = service.run("nsenter", f"--target={pid}", "--mount", "findmnt", "--noheadings", "--output=TARGET,OPTIONS")
    writable = {line.rsplit(None, 1)[0].strip("├─└│ ") for line in mounts.splitlines() if " rw" in line}
    assert {OUTBOX, "/srv/second/in", "/srv/second/out", "/srv/second/done", "/var/lib/convertd"} <= writable
    assert not {"/", "/srv", "/etc", "/usr", INBOX} & writable


def test_a_killed_daemon_is_started_again(service: Machine) -> None:
    before = shown(service, "MainPID")
    service.run("systemctl", "kill", "--kill-whom=all", "--signal=KILL", "convertd")
    drop(service, INBOX, "after-kill.txt", b"words")
    converted(service, OUTBOX, "after-kill.txt")
    assert shown(service, "MainPID") != before
    assert shown(service, "ActiveState") == "active"


def test_a_dispatcher_that_hangs_is_restarted_by_the_watchdog(service: Machine) -> None:
    drop_in = "/run/systemd/system/convertd.service.d/hanging.conf"
    service.write(drop_in, HANGING)
    service.run("systemctl", "daemon-reload")
    try:
        service.run("systemctl", "restart", "convertd")
        drop(service, INBOX, "before-hang.txt", b"words")
        converted(service, OUTBOX, "before-hang.txt")
        before = shown(service, "MainPID")
        service.run("systemctl", "kill", "--kill-whom=main", "--signal=USR1", "convertd")
        drop(service, INBOX, "after-hang.txt", b"words")
        converted(service, OUTBOX, "after-hang.txt")
        assert shown(service, "MainPID") != before
        journal = service.run("journalctl", "--unit=convertd", "--output=cat")
        assert "Watchdog timeout" in journal
        assert "Thread 0x" in journal, "every thread says where it stood"
    finally:
        service.path(drop_in).unlink()
        service.run("systemctl", "daemon-reload")


def test_a_reload_adds_a_watch(service: Machine) -> None:
    before = shown(service, "MainPID")
    service.write(CONFIG_FILE, STATE + WATCH + SECOND_WATCH)
    service.run("systemctl", "reload", "convertd")
    drop(service, "/srv/second/in", "moved.txt", b"words")
    assert converted(service, "/srv/second/out", "moved.txt").strip() == "words"
    until(service.path("/srv/second/done/moved.txt").exists, "the source is moved, from one mount to another")
    until(lambda: shown(service, "StatusText").startswith("2 watches"), "the status tells of both")
    assert shown(service, "MainPID") == before


def test_a_folder_that_the_unit_does_not_know_is_told_with_what_helps(service: Machine) -> None:
    service.run("install", "-d", "-o", "convertd", "/srv/new/in", "/srv/new/out")
    new = '[[watch]]\nname = "new"\nsource = "/srv/new/in"\nsink = "/srv/new/out"\n'
    service.write(CONFIG_FILE, STATE + WATCH + new)
    service.run("systemctl", "reload", "convertd")
    drop(service, "/srv/new/in", "new.txt", b"words")
    until(lambda: "convertd install" in shown(service, "StatusText"), "the status says what to do")
    assert "new paused: the sink /srv/new/out cannot be written: Read-only file system" in shown(service, "StatusText")
    said = service.run(PYTHON, "-m", "daemon", "doctor", "--config", CONFIG_FILE, env=CHECKOUT, check=False)
    assert "convertd.service is of an older configuration, the service lacks: ReadWritePaths=/srv/new/out" in said
    drop(service, INBOX, "meanwhile.txt", b"words")
    converted(service, OUTBOX, "meanwhile.txt")


def test_a_configuration_with_a_mistake_is_refused_and_the_old_one_kept(service: Machine) -> None:
    service.write(CONFIG_FILE, "mistaken = true\n")
    service.run("systemctl", "reload", "convertd")
    until(
        lambda: "mistaken" in service.run("journalctl", "--unit=convertd", "--output=cat"), "the mistake is in the log"
    )
    drop(service, INBOX, "still.txt", b"words")
    converted(service, OUTBOX, "still.txt")


def test_a_stop_is_clean(service: Machine) -> None:
    service.run("systemctl", "stop", "convertd")
    assert (shown(service, "Result"), shown(service, "ExecMainStatus")) == ("success", "0")


def test_a_mistake_at_the_start_is_not_tried_again_and_again(service: Machine) -> None:
    service.write(CONFIG_FILE, "mistaken = true\n")
    service.run("systemctl", "restart", "convertd", check=False)
    assert shown(service, "ActiveState") == "failed"
    assert shown(service, "ExecMainStatus") == "2"


def test_who_is_to_be_told_is_told_from_within_the_unit(told: Machine) -> None:
    drop(told, INBOX, "told.txt", b"words")
    converted(told, OUTBOX, "told.txt")
    lines = until(lambda: _lines(told.path("/srv/told/events")), "the command has heard of it")
    assert [(event["kind"], event["source"], event["watch"]) for event in map(json.loads, lines)] == [
        ("completed", "told.txt", "first")
    ]
    asked = f"import urllib.request; print(urllib.request.urlopen('{METRICS}/%s', timeout=30).read().decode())"
    metrics = told.run(PYTHON, "-c", asked % "metrics")
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    }
    assert found["convertd_jobs_total", "completed", "first"] == 1
    assert found["convertd_notify_attempts_total", "command", "delivered"] == 1
    assert found["process_resident_memory_bytes",] > 0
    assert told.run(PYTHON, "-c", asked % "healthz").strip() == "ok"


def test_a_webhook_is_signed_with_a_secret_that_root_alone_can_read(told: Machine) -> None:
    drop(told, INBOX, "signed.txt", b"words")
    request = until(lambda: _lines(told.path("/tmp/received")), "the webhook has heard of it")
    head, body = json.loads(request[0])
    stamp = head["X-Convertd-Timestamp"]
    expected = hmac.new(b"hunter2", f"{stamp}.{body}".encode(), "sha256").hexdigest()
    assert head["X-Convertd-Signature"] == f"sha256={expected}"


def test_the_template_serves_several_daemons(machine: Machine) -> None:
    machine.run("systemctl", "stop", "convertd")
    machine.write("/etc/systemd/system/convertd@.service", (ROOT / "systemd/convertd@.service").read_text())
    command = f"ExecStart=\nExecStart={PYTHON} -m daemon run --config /etc/convertd/%i.toml\n"
    here = f"ReadWritePaths=/srv/out-%i\nBindReadOnlyPaths=-{os.path.realpath(sys.base_prefix)}\n"
    homes = "ProtectHome=tmpfs\nTemporaryFileSystem=/root:ro\n"
    machine.write("/etc/systemd/system/convertd@.service.d/checkout.conf", f"{DROP_IN}{command}{here}{homes}")
    machine.run("systemctl", "daemon-reload")
    names = ("first", "second-one")
    for name in names:
        machine.run("install", "-d", "-o", "convertd", f"/srv/in-{name}", f"/srv/out-{name}")
        watch = f'[[watch]]\nname = "{name}"\nsource = "/srv/in-{name}"\nsink = "/srv/out-{name}"\n'
        machine.write(f"/etc/convertd/{name}.toml", f'state_dir = "/var/lib/convertd/{name}"\n{watch}')
        machine.run("systemctl", "start", f"convertd@{name}")
    for name in names:
        drop(machine, f"/srv/in-{name}", "a.txt", b"words")
        converted(machine, f"/srv/out-{name}", "a.txt", unit=f"convertd@{name}")
        machine.run("systemctl", "stop", f"convertd@{name}")
        assert machine.run("systemctl", "show", "--value", "--property=Result", f"convertd@{name}").strip() == "success"


def test_the_journal_knows_how_serious_a_line_is(service: Machine) -> None:
    drop(service, INBOX, "good.txt", b"words")
    drop(service, INBOX, "bad\n<0>{forged}.pdf", b"%PDF-1.4 not really")
    converted(service, OUTBOX, "good.txt")

    def entries() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for line in service.run("journalctl", "--unit=convertd", "--output=json", "_COMM=convertd").splitlines():
            entry = json.loads(line)
            if not str(entry["MESSAGE"]).startswith("{"):
                continue  # where threads stood, of a daemon that a watchdog has ended
            found.setdefault(json.loads(entry["MESSAGE"])["event"], []).append(entry["PRIORITY"])
        return found

    said = until(lambda: (all_of_it := entries()).get("failed") and all_of_it, "the failure is in the journal")
    assert set(said["converted"]) == {"6"} and set(said["failed"]) == {"4"}
    assert not {"0", "1", "2"} & {priority for priorities in said.values() for priority in priorities}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _keep(machine: Machine) -> None:
    """Leave what was seen in the file that CONVERTD_TEST_KEEP names."""
    if keep := os.environ.get("CONVERTD_TEST_KEEP"):
        machine.write(CONFIG_FILE, STATE + WATCH + SECOND_WATCH)
        machine.run("systemctl", "restart", "convertd")
        commands = (
            "systemd-analyze verify /etc/systemd/system/convertd.service && echo clean",
            "systemd-analyze security --no-pager convertd | tail -n 1",
            "systemctl status --no-pager --full convertd",
            "journalctl --no-pager --unit=convertd",
        )
        shown = [f"$ {command}\n{machine.run('sh', '-c', command, check=False)}" for command in commands]
        Path(keep).write_text("\n".join(shown))
