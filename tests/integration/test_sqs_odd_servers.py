"""Servers that answer as no queue should: it is a problem of the surroundings, and nothing is taken for done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from daemon import buckets
from daemon.buckets import Prefix
from daemon.errors import EnvironmentProblem
from daemon.payload import Payloads
from daemon.s3.clients import Clients
from daemon.s3.queues import Message, MessageQueue
from daemon.settings import S3
from daemon.sources.base import Surroundings
from daemon.sources.sqs import SqsSource
from tests.loopback import Loopback, settings_for
from tests.watching import Everything

JSON, HTML = "application/x-amz-json-1.0", "text/html; charset=utf-8"
PAGE = "<html><body>Please accept our terms</body></html>"
ADDRESS = buckets.Queue("", "events")
MESSAGES = [Message(str(number), "receipt", "{}") for number in range(3)]


class OddQueues(Loopback):
    """Says what it is told to, in every case with status 200: a page, or `answers` by the name of the request."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] | None = None
        super().__init__(self._handler())

    def say(self, name: str) -> tuple[str, str]:
        """The kind and the text of an answer."""
        if self.answers is None:
            return HTML, PAGE
        return JSON, json.dumps({"GetQueueUrl": {"QueueUrl": f"{self.url}/events"}, **self.answers}[name])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                kind, text = server.say(self.headers["X-Amz-Target"].partition(".")[2])
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(text.encode())

        return Handler


@pytest.fixture
def server() -> Iterator[OddQueues]:
    with OddQueues() as odd:
        yield odd


@pytest.fixture
def settings(server: OddQueues, tmp_path: Path) -> S3:
    return settings_for(server.url, tmp_path)


@pytest.fixture
def queue(settings: S3) -> MessageQueue:
    return MessageQueue(ADDRESS, Clients(4), settings)


REQUESTS: dict[str, Callable[[MessageQueue], object]] = {
    "GetQueueUrl": MessageQueue.require,
    "GetQueueAttributes": MessageQueue.attributes,
    "ReceiveMessage": lambda queue: queue.receive(1, 0, 60),
    "DeleteMessageBatch": lambda queue: queue.delete(MESSAGES),
    "ChangeMessageVisibilityBatch": lambda queue: queue.hide(MESSAGES, 60),
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("known", [False, True], ids=["queue unknown", "queue known"])
def test_a_page_is_no_answer(server: OddQueues, queue: MessageQueue, name: str, known: bool) -> None:
    """Of a portal or a proxy that stands in the way from the start, or from some time on."""
    if known:
        server.answers = {}
        queue.require()
        server.answers = None
    with pytest.raises(EnvironmentProblem, match="makes no sense"):
        REQUESTS[name](queue)


def test_a_page_is_a_problem_of_the_watch(settings: S3, tmp_path: Path) -> None:
    surroundings = Surroundings(Payloads(str(tmp_path), 1 << 20, 1 << 10), Clients(4))
    source = SqsSource(ADDRESS, Prefix("any", "in/"), settings, Everything(), surroundings)
    with pytest.raises(EnvironmentProblem, match="makes no sense"):
        source.probe()


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("GetQueueUrl", {}),
        ("ReceiveMessage", {"Messages": [{"Body": "{}", "ReceiptHandle": "1"}]}),
        ("ReceiveMessage", {"Messages": [{"Body": "{}", "MessageId": "1"}]}),
        ("DeleteMessageBatch", {"Successful": [], "Failed": [{}]}),
        ("ChangeMessageVisibilityBatch", {"Successful": [{}], "Failed": []}),
    ],
)
def test_an_answer_that_lacks_something_is_none(
    server: OddQueues, queue: MessageQueue, name: str, answer: dict[str, Any]
) -> None:
    server.answers = {name: answer}
    with pytest.raises(EnvironmentProblem, match="makes no sense"):
        REQUESTS[name](queue)


def test_an_empty_answer_is_an_empty_queue(server: OddQueues, queue: MessageQueue) -> None:
    server.answers = {"ReceiveMessage": {}}
    assert queue.receive(1, 0, 60) == []


def test_what_an_answer_does_not_name_is_not_done(server: OddQueues, queue: MessageQueue) -> None:
    failed = {"Id": "1", "SenderFault": True, "Code": "ReceiptHandleIsInvalid"}
    done, lost, unnamed = MESSAGES
    answer = {"Successful": [{"Id": "0"}], "Failed": [failed]}
    server.answers = {"DeleteMessageBatch": answer, "ChangeMessageVisibilityBatch": answer}
    assert queue.delete(MESSAGES) == [unnamed]
    refused = queue.hide(MESSAGES, 60)
    assert (refused.lost, refused.again) == ([lost], [unnamed])
    server.answers = {"DeleteMessageBatch": {}}
    assert queue.delete([done]) == [done]
