"""Who is told of events. A new target is one file here, one line in REGISTRY and its keys in `settings.Notify`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from daemon.targets.base import Target

if TYPE_CHECKING:
    from daemon.settings import Notify

REGISTRY = {
    "command": "daemon.targets.command:Command",
    "webhook": "daemon.targets.webhook:Webhook",
}
"""Name → `module:Class`; the name is that of the key by which it is configured. Imported only where it is."""


def build(name: str, settings: Notify) -> Target | None:
    """This target as it is configured; None where it is not."""
    if not getattr(settings, name):
        return None
    module, _, attribute = REGISTRY[name].partition(":")
    target: Target = getattr(import_module(module), attribute).configured(settings)
    return target
