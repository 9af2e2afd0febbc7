"""What is done to a queue of SQS, with translated errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from daemon.buckets import Queue
from daemon.errors import ConvertdError, EnvironmentProblem, Stopped
from daemon.s3.clients import Clients
from daemon.s3.problems import GOES_ON, translated
from daemon.settings import S3

MOST_AT_ONCE = 10
"""Messages that one request may name or bring."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message in hand. `receipt` is what this one receipt of it may be answered with; `receipts` counts them all."""

    id: str
    receipt: str
    body: str
    receipts: int = 1


class MessageQueue:
    """One queue. Thread-safe.

    A queue has no documents that could be blamed: whatever goes wrong is raised as EnvironmentProblem, or as Stopped.
    Receiving is ended by a stop at once; what is owed to messages in hand is brought to its end.
    """

    def __init__(self, queue: Queue, clients: Clients, settings: S3) -> None:
        self._queue = queue
        self._clients = clients
        self._settings = settings
        self._url = ""

    def require(self) -> None:
        """Find out whether the queue is there."""
        self._url = ""
        self._address(reading=True)

    def attributes(self) -> dict[str, str]:
        """What the server says of the queue, by SQS's own names."""
        with self._asking("looking at", "sqs:GetQueueAttributes"):
            client, url = self._client(reading=True), self._address(reading=True)
            reply = _answer(client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]))
            return dict(reply.get("Attributes", {}))

    def receive(self, most: int, wait_seconds: int, hidden_seconds: int) -> list[Message]:
        """Up to `most` messages, hidden from others for so long; waits for the first one."""
        with self._asking("receiving from", "sqs:ReceiveMessage"):
            reply = self._client(reading=True).receive_message(
                QueueUrl=self._address(reading=True),
                MaxNumberOfMessages=max(1, min(most, MOST_AT_ONCE)),
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=hidden_seconds,
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
            return [_message(raw) for raw in _answer(reply).get("Messages", ())]

    def delete(self, messages: Sequence[Message]) -> list[Message]:
        """Delete messages; returns those for which it has to be tried again."""

        def request(url: str, entries: list[dict[str, Any]]) -> Any:
            return self._client(reading=False).delete_message_batch(QueueUrl=url, Entries=entries)

        return self._in_batches(messages, {}, "deleting from", "sqs:DeleteMessage", request).again

    def hide(self, messages: Sequence[Message], seconds: int) -> Refused:
        """Hide messages from others for so long from now on; 0 shows them to all at once."""

        def request(url: str, entries: list[dict[str, Any]]) -> Any:
            return self._client(reading=False).change_message_visibility_batch(QueueUrl=url, Entries=entries)

        more = {"VisibilityTimeout": seconds}
        return self._in_batches(messages, more, "holding messages of", "sqs:ChangeMessageVisibility", request)

    def _in_batches(
        self,
        messages: Sequence[Message],
        more: dict[str, Any],
        what: str,
        right: str,
        request: Callable[[str, list[dict[str, Any]]], Any],
    ) -> Refused:
        refused = Refused([], [])
        for batch in _batches(messages):
            entries = [{"Id": str(number), "ReceiptHandle": one.receipt, **more} for number, one in enumerate(batch)]
            with self._asking(what, right):
                reply = _answer(request(self._address(reading=False), entries))
                done = {str(success["Id"]) for success in reply.get("Successful", ())}
                failures = {str(failure["Id"]): failure for failure in reply.get("Failed", ())}
            for entry, message in zip(entries, batch, strict=True):
                if failure := failures.get(entry["Id"]):
                    (refused.lost if failure.get("SenderFault", True) else refused.again).append(message)
                elif entry["Id"] not in done:
                    refused.again.append(message)
        return refused

    def _address(self, *, reading: bool) -> str:
        """The queue's URL, asked for once: a request goes to the client's endpoint, whatever host the URL names."""
        if not self._url:
            owner = {"QueueOwnerAWSAccountId": self._queue.account} if self._queue.account else {}
            with self._asking("looking for", "sqs:GetQueueUrl"):
                reply = self._client(reading=reading).get_queue_url(QueueName=self._queue.name, **owner)
                self._url = str(_answer(reply)["QueueUrl"])
        return self._url

    def _client(self, *, reading: bool) -> Any:
        return self._clients.sqs(self._settings, reading=reading)

    @contextmanager
    def _asking(self, what: str, right: str) -> Iterator[None]:
        try:
            with translated(f"{what} {self._queue.url}", right=right):
                yield
        except (EnvironmentProblem, Stopped):
            raise
        except ConvertdError as error:
            hint = f"Check that the queue's server can be reached and that the policy allows {right}; {GOES_ON}"
            raise EnvironmentProblem(error.message, hint) from error


@dataclass(frozen=True, slots=True)
class Refused:
    """Messages of a request that was not carried out for them: `lost` are no longer in hand (the time is over, or
    somebody else has deleted them), for the others it may be tried `again`, as for those the answer does not name."""

    lost: list[Message]
    again: list[Message]


def _batches(messages: Sequence[Message]) -> Iterator[list[Message]]:
    for start in range(0, len(messages), MOST_AT_ONCE):
        yield list(messages[start : start + MOST_AT_ONCE])


def _answer(reply: dict[str, Any]) -> dict[str, Any]:
    """What the server says. boto3 takes the page of a portal or a proxy for an answer that holds nothing, which would
    be an empty queue."""
    if "html" in str(reply["ResponseMetadata"]["HTTPHeaders"].get("content-type")):
        raise ValueError("a page")
    return reply


def _message(raw: dict[str, Any]) -> Message:
    receipts = str(raw.get("Attributes", {}).get("ApproximateReceiveCount", "1"))
    count = int(receipts) if receipts.isascii() and receipts.isdigit() and len(receipts) < 10 else 1
    return Message(str(raw["MessageId"]), str(raw["ReceiptHandle"]), str(raw.get("Body", "")), count)
