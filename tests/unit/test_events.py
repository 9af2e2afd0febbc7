"""What receivers are told: the keys of an event, which are a contract."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

from daemon import events
from daemon.errors import DocumentError, Kind
from tests.unit.test_dispatch import job

KEYS = ["id", "kind", "watch", "batch", "job", "source", "version", "output", "error", "finished_at"]
JOB = replace(job(7), watch="inbox", source="a/ä.pdf".encode(), version="1-2-3-4", batch="march")


def test_a_document_is_converted() -> None:
    event = json.loads(events.completed(JOB, "/srv/outbox/a/ä.pdf.md", 0.5))
    assert list(event) == KEYS
    assert len(event.pop("id")) == 32
    assert event == {
        "kind": "completed",
        "watch": "inbox",
        "batch": "march",
        "job": 7,
        "source": "a/ä.pdf",
        "version": "1-2-3-4",
        "output": "/srv/outbox/a/ä.pdf.md",
        "error": None,
        "finished_at": "1970-01-01T00:00:00.500000Z",
    }


def test_a_document_fails() -> None:
    event = json.loads(events.failed(replace(JOB, batch=None), DocumentError(Kind.CORRUPT, "no", "do"), 0.5))
    assert list(event) == KEYS
    assert (event["kind"], event["batch"], event["output"]) == ("failed", None, None)
    assert event["error"] == {"kind": "corrupt", "message": "no", "hint": "do"}


def test_a_batch_is_complete() -> None:
    text = events.batch_complete("inbox", "march", {"completed": 3, "failed": 1}, "/srv/outbox/march.jsonl", 0.5)
    event: dict[str, Any] = json.loads(text)
    assert set(event) == {*KEYS, "jobs"}
    assert (event["kind"], event["watch"], event["batch"]) == ("batch-complete", "inbox", "march")
    assert (event["job"], event["source"], event["version"], event["error"]) == (None, None, None, None)
    assert event["jobs"] == {"completed": 3, "failed": 1}
    assert event["output"] == "/srv/outbox/march.jsonl"


def test_no_two_events_have_the_same_id() -> None:
    assert len({json.loads(events.completed(JOB, "", 0.5))["id"] for _ in range(100)}) == 100


def test_names_that_are_not_utf8_are_valid_json_all_the_same() -> None:
    event = json.loads(events.completed(replace(JOB, source=b"\xff.pdf"), "/srv/\udcff.pdf.md", 0.5).encode())
    assert base64.b64decode(event["source_base64"]) == b"\xff.pdf"
    assert event["source"] == "\ufffd.pdf"
