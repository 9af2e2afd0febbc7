"""Uploads in parts that were broken off: what they leave in a bucket is seen by nobody who reads it."""

from __future__ import annotations

import random
from collections.abc import Callable
from threading import Event

from tests.chaos.documents_of import SKIPPED
from tests.chaos.model import Model
from tests.chaos.places import Prefix
from tests.chaos.world import World

LATER_SECONDS = 2 * 86400.0
"""After a day they are given up."""
LOOKS, LOOK_SECONDS = 300, 0.2


def give_up_uploads(world: World, model: Model, chance: random.Random) -> str:
    """A daemon that is started days later gives up what those before it have begun, and what is like it."""
    sinks = {name: watch.sink for name, watch in world.watches.items() if name in world.served}
    remote = {name: sink for name, sink in sinks.items() if isinstance(sink, Prefix)}
    name = chance.choice(sorted(remote)) if remote else ""
    if world.proxy is None or not remote:
        return SKIPPED + "no buckets"
    world.terminate()
    _begin(remote[name], f"left{len(model):04}.txt.md")
    begun = {upload for sink in remote.values() for upload in unfinished(sink)}
    world.proxy.clear()  # a start sweeps once
    world.jump(LATER_SECONDS)
    try:
        if not _come_true(world, lambda: not begun & {one for sink in remote.values() for one in unfinished(sink)}):
            raise AssertionError(f"uploads in parts are not given up: {sorted(begun)}")
    finally:
        world.jump(0.0)
    return f"{len(begun)} of {', '.join(sorted({key for key, _ in begun}))}"


def unfinished(sink: Prefix) -> set[tuple[str, str]]:
    """Uploads in parts that were neither completed nor given up: their keys and ids."""
    pages = sink.bucket.client.get_paginator("list_multipart_uploads").paginate(
        Bucket=sink.bucket.name, Prefix=sink.prefix
    )
    return {(upload["Key"], upload["UploadId"]) for page in pages for upload in page.get("Uploads", [])}


def _begin(sink: Prefix, name: str) -> None:
    """As a daemon leaves it that dies between two parts."""
    client, where = sink.bucket.client, {"Bucket": sink.bucket.name, "Key": sink.prefix + name}
    upload = client.create_multipart_upload(**where)["UploadId"]
    client.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"half")


def _come_true(world: World, wanted: Callable[[], bool]) -> bool:
    """Wait, not for ever, with a daemon that is started again should it die of something else."""
    for _ in range(LOOKS):
        world.ensure()
        if wanted():
            return True
        Event().wait(LOOK_SECONDS)
    return False
