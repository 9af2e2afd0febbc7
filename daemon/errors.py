"""Every error convertd knows, and what is to be done about it.

An error carries a *disposition*: it tells the worker whether the document is at fault (`PERMANENT`), whether a
later attempt may help (`TRANSIENT`), whether the surroundings are sick (`ENVIRONMENT`) or whether the process
must end (`FATAL`). Errors of operating system and libraries are translated into these at the edge where they
arise; nothing above a source, sink, converter or the job table catches `OSError` or an SDK's error.
"""

from __future__ import annotations

from enum import Enum, StrEnum


class Disposition(Enum):
    """What to do with the job that met an error."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    ENVIRONMENT = "environment"
    FATAL = "fatal"


class Kind(StrEnum):
    """The `kind` of an error file: a contract with its readers, never renamed."""

    UNSUPPORTED_FORMAT = "unsupported_format"
    ENCRYPTED = "encrypted"
    CORRUPT = "corrupt"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    UNREADABLE = "unreadable"
    INTERNAL = "internal"


HINTS: dict[Kind, str] = {
    Kind.UNSUPPORTED_FORMAT: "Convert it to a format that convertd reads, or exclude such files from the watch.",
    Kind.ENCRYPTED: "Remove the password and drop the document again.",
    Kind.CORRUPT: "Open the document in the program that made it, save it anew and drop it again.",
    Kind.EMPTY: "The file holds no bytes; copy it again from where it came from.",
    Kind.TOO_LARGE: "Split the document, or raise limits.file_size and reload.",
    Kind.TIMEOUT: "Split the document, or raise limits.convert_time and retry.",
    Kind.OUT_OF_MEMORY: "Split the document, or raise limits.converter_memory and retry.",
    Kind.CRASHED: "The converter died on this document; report it with the document if you can, then exclude it.",
    Kind.UNREADABLE: "Check the permissions and the disk of the source, then retry.",
    Kind.INTERNAL: "This is a fault of convertd: report it with the log lines of this job, then retry.",
}


class ConvertdError(Exception):
    """Base of all errors. `message` says what happened, `hint` what to do; both are for users."""

    disposition = Disposition.FATAL
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class DocumentError(ConvertdError):
    """The document cannot be converted. Final: it is not tried again by itself."""

    disposition = Disposition.PERMANENT

    def __init__(self, kind: Kind, message: str, hint: str = "") -> None:
        super().__init__(message, hint or HINTS[kind])
        self.kind = kind


class TransientError(ConvertdError):
    """This attempt failed and a later one may not; `kind` is what the job fails with when none succeeds.

    `size_bytes` is what was to be written, so that the watch's probe can find out whether in truth the
    surroundings are sick (a disk can have room for a small canary only).
    """

    disposition = Disposition.TRANSIENT

    def __init__(self, kind: Kind, message: str, hint: str = "", *, size_bytes: int = 0) -> None:
        super().__init__(message, hint or HINTS[kind])
        self.kind = kind
        self.size_bytes = size_bytes


class EnvironmentProblem(ConvertdError):
    """The surroundings are sick (disk full, folder gone, permission): the watch pauses, no document is blamed.

    What is not `certain` is believed only if the watch's own probe fails too.
    """

    disposition = Disposition.ENVIRONMENT

    def __init__(self, message: str, hint: str = "", *, certain: bool = False) -> None:
        super().__init__(message, hint)
        self.certain = certain


class SourceChanged(ConvertdError):
    """The document changed while it was read: what was read is worth nothing, a newer version comes."""

    disposition = Disposition.TRANSIENT


class SourceVanished(ConvertdError):
    """The document was gone before it was read."""

    disposition = Disposition.PERMANENT


class NotYet(ConvertdError):
    """Too early: to be tried again in `seconds`."""

    disposition = Disposition.TRANSIENT

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class Stopped(ConvertdError):
    """The daemon is stopping: the job goes back to pending as if it had never been taken."""

    disposition = Disposition.TRANSIENT


class Cancelled(ConvertdError):
    """An operator has called the job off."""

    disposition = Disposition.PERMANENT


class FatalError(ConvertdError):
    """The process cannot go on; nothing is lost, a restart recovers."""


class ConfigError(ConvertdError):
    """The configuration has mistakes: `mistakes` holds one line for each."""

    exit_code = 2

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class UsageError(ConvertdError):
    """A command was called in a way that cannot work."""

    exit_code = 2


class NotRunning(ConvertdError):
    """The command needs a running daemon."""

    exit_code = 3


class Unanswered(ConvertdError):
    """The daemon is there, but did not answer a command."""

    exit_code = 1


class OutputLost(ConvertdError):
    """What a command prints cannot be written: the disk is full, or the terminal gone."""

    exit_code = 1


class AlreadyRunning(ConvertdError):
    """Another process holds this state_dir."""

    exit_code = 4
