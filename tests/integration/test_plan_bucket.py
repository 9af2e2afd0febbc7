"""`convertd plan` where the source is a prefix of a bucket."""

from __future__ import annotations

import json
from pathlib import Path

from tests.harness import convertd
from tests.servers import Bucket

CONFIG = """
state_dir = "state"
[[watch]]
name = "bucket"
source = "s3://{bucket}/in/"
sink = "outbox"
exclude = ["old/"]
[watch.s3]
endpoint_url = "{server}"
connect_timeout = "1s"
read_timeout = "5s"
"""


def ask(folder: Path, bucket: Bucket, config: str) -> tuple[int, dict[str, object]]:
    (folder / "convertd.toml").write_text(config)
    result = convertd("plan", "--json", "--config", "convertd.toml", cwd=folder, env=bucket.server.env())
    return result.returncode, json.loads(result.stdout)["watches"][0]


def test_a_prefix_is_listed(tmp_path: Path, bucket: Bucket) -> None:
    for key in ("in/a.pdf", "in/old/b.pdf", "in/sub/c.mp4", "out/d.pdf"):
        bucket.put(key, b"words")
    bucket.put("in/sub/", b"")
    code, found = ask(tmp_path, bucket, CONFIG.format(bucket=bucket.name, server=bucket.server.endpoint_url))
    assert code == 0
    assert (found["new"], found["size_bytes"], found["fails"]) == (2, 10, {"unsupported_format": 1})
    assert found["passed_over"] == [{"rule": 'exclude has "old/"', "files": 1, "example": "old/b.pdf"}]
    assert sorted(bucket.keys()) == ["in/a.pdf", "in/old/b.pdf", "in/sub/", "in/sub/c.mp4", "out/d.pdf"]


def test_a_server_that_is_not_there_is_a_failure(tmp_path: Path, bucket: Bucket) -> None:
    code, found = ask(tmp_path, bucket, CONFIG.format(bucket=bucket.name, server="http://127.0.0.1:9"))
    assert code == 1
    assert "the connection failed" in str(found["error"])
