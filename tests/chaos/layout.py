"""The watches of a campaign, of folders and of a bucket in every combination, and their configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.places import Folder, Place, Prefix
from tests.fault_proxy import FaultProxy
from tests.servers import Bucket

TOP = """
state_dir = "state"
workers = 2
[limits]
convert_time = "8s"
converter_memory = "1GiB"
spool_above = "1MiB"
[retry]
attempts = 3
backoff = ["400ms"]
[log]
format = "json"
[engines]
text = ["tests.engines_for_tests:Command"]
[notify]
command = ["/bin/sh", "-c", "(echo; cat; echo) >>'{events}'"]
"""
WATCH = """
[[watch]]
name = "{name}"
source = "{source}"
sink = "{sink}"
on_success = "{on_success}"
on_failure = "{on_failure}"
batch = "{batch}"
poll_interval = "300ms"
priority = {{priority}}
"""
SUBFOLDER = "subfolder"
S3 = """[watch.s3]
endpoint_url = "{url}"
read_timeout = "2s"
connect_timeout = "2s"
"""


@dataclass(frozen=True)
class Watch:
    """A watch, and its places as the campaign sees them.

    `done` is where documents are moved to, `failed` where those that cannot be converted are; `batched` is whether
    each of its folders is a batch. `text` is of the configuration; `{priority}` is left open in it.
    """

    name: str
    source: Place
    sink: Place
    action: str
    done: Place | None
    failed: Place | None
    batched: bool
    text: str

    @property
    def in_folder(self) -> bool:
        """Whether documents are files, which can be written slowly."""
        return isinstance(self.source, Folder)

    @property
    def across(self) -> bool:
        """Whether its documents are moved to another file system."""
        return isinstance(self.done, Folder) and os.path.ismount(self.done.path)


def watches(home: Path, bucket: Bucket | None, proxy: FaultProxy | None) -> Iterator[Watch]:
    """All of them; those of the bucket, which the daemon reaches through the proxy, only where there is one."""
    local = Layout(home)
    yield local.watch("keep", "keep")
    yield local.watch("delete", "delete")
    yield local.watch("move", "move", batch=SUBFOLDER)
    yield local.watch("across", "move")
    yield local.watch("extra", "keep", moves_failed=True)
    if bucket is not None and proxy is not None:
        remote = Layout(home, bucket, proxy.url)
        yield remote.watch("bkeep", "keep")
        yield remote.watch("bdelete", "delete", local_sink=True)
        yield remote.watch("fdelete", "delete", local_source=True)
        yield remote.watch("bmove", "move")


class Layout:
    """Makes watches, of folders below `home` or of a bucket."""

    def __init__(self, home: Path, bucket: Bucket | None = None, url: str = "") -> None:
        self._home = home
        self._bucket = bucket
        self._url = url

    def watch(
        self,
        name: str,
        action: str,
        *,
        local_source: bool = False,
        local_sink: bool = False,
        moves_failed: bool = False,
        batch: str = "none",
    ) -> Watch:
        """A watch of this name, whose places are called like it. What its documents are moved to is like its source."""
        of_documents = self._folder if local_source else self._place
        source, source_url = of_documents(name, "in")
        sink, sink_url = (self._folder if local_sink else self._place)(name, "out")
        done, done_url = of_documents(name, "done") if action == "move" else (None, "")
        failed, failed_url = of_documents(name, "failed") if moves_failed else (None, "")
        text = WATCH.format(
            name=name,
            source=source_url,
            sink=sink_url,
            on_success=f"move:{done_url}" if done_url else action,
            on_failure=f"move:{failed_url}" if failed_url else "keep",
            batch=batch,
        )
        text += S3.format(url=self._url) if self._bucket is not None else ""
        return Watch(name, source, sink, action, done, failed, batch == SUBFOLDER, text)

    def _place(self, watch: str, which: str) -> tuple[Place, str]:
        if self._bucket is None:
            return self._folder(watch, which)
        return Prefix(self._bucket, f"{watch}/{which}/"), f"s3://{self._bucket.name}/{watch}/{which}/"

    def _folder(self, watch: str, which: str) -> tuple[Place, str]:
        return Folder(self._home / watch / which), str(self._home / watch / which)
