"""Where documents come from. A new source is one file here and one line in REGISTRY."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from daemon.sources.base import Source, Surroundings

if TYPE_CHECKING:
    from daemon.config import Watch

REGISTRY = {
    "folder": "daemon.sources.folder:FolderSource",
    "s3": "daemon.sources.s3:S3Source",
    "sqs": "daemon.sources.sqs:SqsSource",
}


def build(watch: Watch, surroundings: Surroundings) -> Source:
    """The source of a watch. Touches no disk and no network. Raises KeyError for a scheme without a source."""
    scheme, separator, _ = watch.source.partition("://")
    module, _, name = REGISTRY[scheme if separator else "folder"].partition(":")
    source: Source = getattr(import_module(module), name).for_watch(watch, surroundings)
    return source
