"""Where results go. A new sink is one file here and one line in REGISTRY."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from daemon.sinks.base import Sink, Surroundings

if TYPE_CHECKING:
    from daemon.config import Watch
    from daemon.settings import S3

REGISTRY = {
    "folder": "daemon.sinks.folder:FolderSink",
    "s3": "daemon.sinks.s3:S3Sink",
}


def build(watch: Watch, surroundings: Surroundings) -> Sink:
    """The sink of a watch. Touches no disk and no network. Raises KeyError for a scheme without a sink."""
    return open_sink(watch.sink, surroundings, watch.s3)


def open_sink(location: str, surroundings: Surroundings, settings: S3) -> Sink:
    """The sink at a folder's path or a URL; `settings` tell how a bucket is reached."""
    scheme, separator, _ = location.partition("://")
    module, _, name = REGISTRY[scheme if separator else "folder"].partition(":")
    sink: Sink = getattr(import_module(module), name).at(location, surroundings, settings)
    return sink
