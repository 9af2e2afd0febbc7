"""Where results go. A new sink is one file here and one line in REGISTRY."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from daemon.faults import Fault, no_fault
from daemon.sinks.base import Sink

if TYPE_CHECKING:
    from daemon.config import Watch

REGISTRY = {
    "folder": "daemon.sinks.folder:FolderSink",
}


def build(watch: Watch, fault: Fault = no_fault) -> Sink:
    """The sink of a watch. Touches no disk and no network. Raises KeyError for a scheme without a sink.

    `fault` is called with a label at each step that a test may want to break.
    """
    return open_sink(watch.sink, fault)


def open_sink(location: str, fault: Fault = no_fault) -> Sink:
    """The sink at a folder's path or a URL."""
    scheme, separator, _ = location.partition("://")
    module, _, name = REGISTRY[scheme if separator else "folder"].partition(":")
    sink: Sink = getattr(import_module(module), name)(location, fault=fault)
    return sink
