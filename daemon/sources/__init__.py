"""Where documents come from. A new source is one file here and one line in REGISTRY."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from daemon.faults import Fault, no_fault
from daemon.sources.base import Source

if TYPE_CHECKING:
    from daemon.config import Watch

REGISTRY = {
    "folder": "daemon.sources.folder:FolderSource",
}


def build(watch: Watch, fault: Fault = no_fault) -> Source:
    """The source of a watch. Touches no disk and no network. Raises KeyError for a scheme without a source.

    `fault` is called with a label at each step that a test may want to break.
    """
    scheme, separator, _ = watch.source.partition("://")
    module, _, name = REGISTRY[scheme if separator else "folder"].partition(":")
    source: Source = getattr(import_module(module), name).for_watch(watch, fault)
    return source
