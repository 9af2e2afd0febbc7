"""`convertd doctor` as its users meet it: what it prints, its exit codes, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fault_proxy import Fault, FaultProxy
from tests.harness import DEADLINE_SECONDS, convertd, environment, running
from tests.servers import Bucket

CONFIG = """
state_dir = "state"
ocr.mode = "off"
[[watch]]
name = "inbox"
source = "inbox"
sink = "outbox"
on_success = "delete"
"""
BUCKET = """
[[watch]]
name = "bucket"
source = "s3://{bucket}/in/"
sink = "s3://{bucket}/out/"
[watch.s3]
endpoint_url = "{url}"
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with all that the configuration names; left as it was found."""
    (tmp_path / "convertd.toml").write_text(CONFIG)
    (tmp_path / "state").mkdir(mode=0o700)
    for name in ("inbox", "outbox"):
        (tmp_path / name).mkdir()
    (tmp_path / "inbox" / "a.pdf").write_bytes(b"words")
    yield tmp_path
    assert os.listdir(tmp_path / "inbox") == ["a.pdf"]
    assert [name for name in os.listdir(tmp_path / "outbox") if "canary" in name] == []
    assert [name for name in os.listdir(tmp_path / "state") if "canary" in name] == []


def examine(folder: Path, *options: str, **kwargs: Any) -> tuple[int, dict[str, Any]]:
    result = convertd("doctor", "--json", *options, cwd=folder, **kwargs)
    assert result.stdout, result.stderr
    return result.returncode, json.loads(result.stdout)


def problems(found: dict[str, Any]) -> list[dict[str, str]]:
    return [finding for finding in found["findings"] if finding["level"] == "problem"]


def test_all_is_well(place: Path) -> None:
    result = convertd("doctor", cwd=place)
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    assert lines[0] == "configuration" and lines[-1].startswith("no problems")
    assert f"  ok       sink {place}/outbox: a file was written" in result.stdout
    assert "pdf: converted by" in result.stdout
    assert os.listdir(place / "outbox") == []


def test_a_problem_is_told_with_its_remedy_and_an_exit_code(place: Path) -> None:
    shutil.rmtree(place / "outbox")
    (place / "outbox").touch()
    (place / "convertd.toml").write_text(CONFIG.replace('sink = "outbox"', 'sink = "no/such/folder"'))
    code, found = examine(place)
    assert code == 1
    (problem,) = problems(found)
    assert problem["subject"] == "watch inbox"
    assert "no/such/folder is not there" in problem["what"] and "mkdir -p" in problem["remedy"]
    (place / "outbox").unlink()
    (place / "outbox").mkdir()


def test_every_mistake_of_the_configuration_is_a_problem(place: Path) -> None:
    (place / "convertd.toml").write_text("workers = -1\n" + CONFIG + 'formats = "md"\nprioritee = 3\n')
    code, found = examine(place)
    assert code == 1
    assert {problem["what"].partition(":")[0] for problem in problems(found)} == {
        "workers",
        "watch[0].formats",
        "watch[0].prioritee",
    }
    assert all(problem["remedy"] for problem in problems(found))


def test_a_file_that_is_not_there_is_wrong_use(place: Path) -> None:
    assert convertd("doctor", "--config", "none.toml", cwd=place).returncode == 2


def test_warnings_alone_are_no_failure(place: Path) -> None:
    (place / "inbox" / "link").symlink_to("/")
    code, found = examine(place)
    assert (code, found["problems"], found["warnings"]) == (0, 0, 1)
    (place / "inbox" / "link").unlink()


def test_before_anything_was_set_up(tmp_path: Path) -> None:
    code, found = examine(tmp_path)
    assert (code, found["problems"]) == (0, 0)
    assert "no configuration found" in found["findings"][0]["what"]
    assert os.listdir(tmp_path) == []


def test_what_was_run_without_a_configuration_is_examined(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    assert convertd("run", "inbox", "outbox", "--once", cwd=tmp_path).returncode == 0
    shutil.rmtree(tmp_path / "outbox")
    (tmp_path / "outbox").touch()
    code, found = examine(tmp_path)
    assert code == 1 and "it is a file" in problems(found)[0]["what"]


def test_beside_a_running_daemon(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG) as daemon:
        code, found = examine(tmp_path)
        assert code == 0, found
        assert any("a daemon runs: pid" in finding["what"] for finding in found["findings"])
        assert daemon.status()["jobs"] == {"pending": 0, "processing": 0, "completed": 0, "failed": 0}
        daemon.command("pause", "inbox")
        code, found = examine(tmp_path)
        assert code == 0
        assert any(finding["remedy"] == "convertd resume inbox" for finding in found["findings"])
        shutil.rmtree(daemon.outbox)
        code, found = examine(tmp_path)
        assert code == 1 and "outbox is gone" in problems(found)[0]["what"]
        assert not daemon.outbox.exists(), "the daemon must not take a new folder for the one that it has lost"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_behind_by_who_does_not_wait(place: Path, bucket: Bucket, number: signal.Signals) -> None:
    """It is interrupted while a canary lies in the bucket and the server does not answer."""
    with FaultProxy(bucket.server.endpoint_url) as proxy:
        fault = proxy.inject(
            Fault("stall_before_headers", method="PUT", headers=lambda headers: "if-none-match" in headers)
        )
        (place / "convertd.toml").write_text(CONFIG + BUCKET.format(bucket=bucket.name, url=proxy.url))
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon", "doctor"],
            cwd=place,
            env=environment(bucket.server.env()),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert fault.fired.wait(DEADLINE_SECONDS)
        assert [key for key in bucket.keys() if "canary" in key]  # noqa: SIM118 - no dictionary
        process.send_signal(number)
        _, said = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 1
    assert b"Traceback" not in said
    assert bucket.keys() == []
