"""Uploads in parts that were broken off: what they leave in a bucket is seen by nobody who reads it."""

from __future__ import annotations

import random
from collections.abc import Iterable

from tests.chaos.documents_of import SKIPPED
from tests.chaos.model import Model
from tests.chaos.places import Prefix
from tests.chaos.waiting import within
from tests.chaos.world import World

LATER_SECONDS = 2 * 86400.0
"""After a day they are given up."""
GIVE_UP_SECONDS = 60.0


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
        if not within(GIVE_UP_SECONDS, lambda: _are_gone(world, begun, remote.values())):
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


def _are_gone(world: World, begun: set[tuple[str, str]], sinks: Iterable[Prefix]) -> bool:
    """Whether a daemon has given them up, which is started again should it die of something else."""
    world.ensure()
    return not any(begun & unfinished(sink) for sink in sinks)
