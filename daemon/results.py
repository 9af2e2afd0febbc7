"""The files a job leaves in the sink, as bytes: the sidecar beside the Markdown, and the error file."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from daemon import __version__
from daemon.errors import DocumentError, TransientError
from daemon.model import Conversion, Job

MARKDOWN = ".md"
SIDECAR = ".json"
ERROR = ".error.json"


def rfc3339(timestamp: float) -> str:
    """A wall-clock time as the files carry it: UTC, microseconds, `Z`."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def result_files(
    job: Job, conversion: Conversion, formats: Sequence[str], *, started_at: float, finished_at: float
) -> dict[str, bytes | memoryview]:
    """What to publish for a success, in the order of publishing: the Markdown is the commit mark and comes last."""
    files: dict[str, bytes | memoryview] = {}
    if "json" in formats:
        files[SIDECAR] = _sidecar(job, conversion, started_at, finished_at)
    files[MARKDOWN] = conversion.markdown
    return files


def error_file(
    job: Job, error: DocumentError | TransientError, *, attempts: int, failed_at: float, retry: Sequence[str]
) -> bytes:
    """The reason of a failure, for people and scripts."""
    return _dump(
        {
            **identity(job),
            "kind": error.kind.value,
            "message": error.message,
            "hint": error.hint,
            "attempts": attempts,
            "retry_command": shlex.join([*retry, str(job.id)]),
            "failed_at": rfc3339(failed_at),
        }
    )


def _sidecar(job: Job, conversion: Conversion, started_at: float, finished_at: float) -> bytes:
    return _dump(
        {
            **identity(job),
            "sha256": conversion.sha256,
            "size_bytes": job.size_bytes,
            "media_type": conversion.media_type,
            "engine": conversion.engine,
            "engine_version": conversion.engine_version,
            "convertd_version": __version__,
            "pages": conversion.pages,
            "title": conversion.title,
            "characters": conversion.characters,
            "markdown_sha256": hashlib.sha256(conversion.markdown).hexdigest(),
            "warnings": list(conversion.warnings),
            "attempts": job.attempts + 1,
            "discovered_at": rfc3339(job.discovered_at),
            "started_at": rfc3339(started_at),
            "finished_at": rfc3339(finished_at),
            "convert_seconds": round(conversion.convert_seconds, 6),
        }
    )


def identity(job: Job) -> dict[str, Any]:
    """Which document a job is about, as everything says it that leaves convertd."""
    about: dict[str, Any] = {"source": job.source.decode("utf-8", "replace")}
    if about["source"].encode() != job.source:
        about["source_base64"] = base64.b64encode(job.source).decode()
    return about | {"version": job.version}


def named_source(content: bytes) -> bytes | None:
    """The document that a sidecar or an error file is about; None where it is neither."""
    try:
        about = msgspec.json.decode(content, type=_Identity)
        return base64.b64decode(about.source_base64) if about.source_base64 else about.source.encode()
    except (msgspec.DecodeError, ValueError):
        return None


class _Identity(msgspec.Struct):
    """What `identity` has written, as far as it names the document."""

    source: str
    source_base64: str = ""


def _dump(content: dict[str, Any]) -> bytes:
    # Indented afterwards: with `indent` json takes four times as long, at every document and with all threads waiting.
    line = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
    return msgspec.json.format(line, indent=2) + b"\n"
