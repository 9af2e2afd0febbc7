"""Sidecar and error file: the keys scripts rely on."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace

import pytest

from daemon import __version__
from daemon.errors import DocumentError, Kind
from daemon.model import Conversion, Job
from daemon.results import error_file, named_source, result_files, rfc3339

JOB = Job(7, "inbox", b"a/b.pdf", "10-1-2-3", 10, 5, 1, 0, 1700000000.0)
CONVERSION = Conversion(
    "# Grüße\n".encode(), "ab" * 32, "application/pdf", "liteparse", "2.18.0", 3, "Grüße", 8, ("a warning",), 0.25
)


def test_the_sidecar_has_exactly_the_contracts_keys() -> None:
    files = result_files(JOB, CONVERSION, ("md", "json"), started_at=1700000001.5, finished_at=1700000002.0)
    assert list(files) == [".json", ".md"], "the Markdown is the commit mark and comes last"
    assert json.loads(bytes(files[".json"])) == {
        "source": "a/b.pdf",
        "version": "10-1-2-3",
        "sha256": "ab" * 32,
        "size_bytes": 10,
        "media_type": "application/pdf",
        "engine": "liteparse",
        "engine_version": "2.18.0",
        "convertd_version": __version__,
        "pages": 3,
        "title": "Grüße",
        "characters": 8,
        "markdown_sha256": hashlib.sha256(CONVERSION.markdown).hexdigest(),
        "warnings": ["a warning"],
        "attempts": 2,
        "discovered_at": "2023-11-14T22:13:20.000000Z",
        "started_at": "2023-11-14T22:13:21.500000Z",
        "finished_at": "2023-11-14T22:13:22.000000Z",
        "convert_seconds": 0.25,
    }


def test_without_json_there_is_only_markdown() -> None:
    assert list(result_files(JOB, CONVERSION, ("md",), started_at=0, finished_at=0)) == [".md"]


def test_the_error_file_tells_what_to_do() -> None:
    error = DocumentError(Kind.ENCRYPTED, "it has a password")
    content = error_file(JOB, error, attempts=1, failed_at=1700000000.0, retry=["convertd", "retry", "--config", "a b"])
    assert json.loads(content) == {
        "source": "a/b.pdf",
        "version": "10-1-2-3",
        "kind": "encrypted",
        "message": "it has a password",
        "hint": "Remove the password and drop the document again.",
        "attempts": 1,
        "retry_command": "convertd retry --config 'a b' 7",
        "failed_at": "2023-11-14T22:13:20.000000Z",
    }


def test_a_name_that_is_not_utf8_is_kept_exactly() -> None:
    job = Job(7, "inbox", b"caf\xe9.pdf", "1", 10, 5, 0, 0, 0.0)
    sidecar = json.loads(bytes(result_files(job, CONVERSION, ("md", "json"), started_at=0, finished_at=0)[".json"]))
    assert sidecar["source"] == "caf\ufffd.pdf"
    assert base64.b64decode(sidecar["source_base64"]) == b"caf\xe9.pdf"


@pytest.mark.parametrize("source", [b"a/b.pdf", "Grüße \u2028.pdf".encode(), b"caf\xe9.pdf", "\ufffd.pdf".encode()])
def test_the_files_tell_of_which_document_they_are(source: bytes) -> None:
    job = replace(JOB, source=source)
    sidecar = result_files(job, CONVERSION, ("md", "json"), started_at=0, finished_at=0)[".json"]
    assert named_source(bytes(sidecar)) == source
    error = DocumentError(Kind.EMPTY, "empty")
    assert named_source(error_file(job, error, attempts=1, failed_at=0, retry=["convertd"])) == source


@pytest.mark.parametrize("content", [b"", b"words", b"[1]", b'{"source": null}', b'{"source": "\xff"}', b"{}"])
def test_a_file_of_another_kind_tells_of_no_document(content: bytes) -> None:
    assert named_source(content) is None


def test_the_files_are_laid_out_for_people() -> None:
    said = 'a "word" of Grüße,\n\x7f / </a> \u2028'
    odd = replace(CONVERSION, title=said, warnings=(), convert_seconds=0.000001)
    sidecar = bytes(result_files(JOB, odd, ("md", "json"), started_at=0, finished_at=0)[".json"])
    assert sidecar.decode() == json.dumps(json.loads(sidecar), ensure_ascii=False, indent=2) + "\n"
    assert b'  "warnings": [],\n' in sidecar
    error = error_file(JOB, DocumentError(Kind.EMPTY, "\ud800"), attempts=1, failed_at=0, retry=["convertd"])
    assert b'\n  "message": "?",\n' in error, "what is no Unicode keeps nobody from being told"


def test_times_are_rfc_3339_utc() -> None:
    assert rfc3339(0.0) == "1970-01-01T00:00:00.000000Z"
