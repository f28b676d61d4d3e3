"""A service that is told when its batches end: a real receiver, which verifies, and whose answers get lost at times."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from standardwebhooks import Webhook, WebhookVerificationError

from benchmarks.books import Books

LOST_EVERY = 5
"""Of so many messages one is taken, and its answer is never sent."""


class Message(NamedTuple):
    """One delivery."""

    id: str
    verified: bool
    event: str
    data: dict[str, Any]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news here."""


class NotifiedService:
    """Listens from its making until `stop`."""

    def __init__(self, secret: str) -> None:
        self.messages: list[Message] = []
        self._webhook = Webhook(secret)
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/ended"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = service.take(self.rfile.read(int(self.headers["Content-Length"])), dict(self.headers))
                seen = sum(other.id == message.id for other in service.messages)
                if seen == 1 and len(service.messages) % LOST_EVERY == 0:
                    self.close_connection = True
                    return
                self.send_response(200 if message.verified else 401)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Silence."""

        return Handler

    def take(self, body: bytes, headers: dict[str, str]) -> Message:
        """Verify and keep one delivery."""
        given = {name.lower(): value for name, value in headers.items()}
        try:
            self._webhook.verify(body, given)
            verified = True
        except (WebhookVerificationError, ValueError):
            verified = False
        content = json.loads(body)
        message = Message(given.get("webhook-id", ""), verified, content["type"], content["data"])
        self.messages.append(message)
        return message

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


def wrong_notifications(books: Books, url: str, messages: Sequence[Message]) -> Iterator[str]:
    """Batches whose end was not told as it is, and messages that nobody should have had."""
    edits: dict[str, Counter[str]] = {}
    for edit in books.edits.values():
        edits.setdefault(edit.batch_id, Counter())[edit.state] += 1
    by_batch: dict[str, list[Message]] = {}
    for message in messages:
        if not message.verified:
            yield f"message {message.id} is not signed by us"
        by_batch.setdefault(message.data["batch_id"], []).append(message)
    for batch in books.batches.values():
        mine = by_batch.pop(batch.id, [])
        if batch.notify_url != url:
            if mine:
                yield f"batch {batch.name} was told without being asked"
        elif batch.finished_at is not None:
            # one that was opened again was told more than once: one of the messages tells how it stands now
            counts = {state: edits[batch.id][state] for state in ("stored", "failed", "cancelled")}
            expected = (_event(batch.cancelled_at, batch.broken_criterion), counts)
            if not mine:
                yield f"batch {batch.name} has ended, and nobody was told"
            elif not any((one.event, {state: one.data[state] for state in counts}) == expected for one in mine):
                yield f"batch {batch.name} ended as {expected}, told was {mine[-1].event} {mine[-1].data}"
    for batch_id in by_batch:
        yield f"a message tells of {batch_id}, which is no batch"
    contents: dict[str, dict[str, Any]] = {}
    for message in messages:
        if contents.setdefault(message.id, message.data) != message.data:
            yield f"message {message.id} told two things"


def _event(cancelled_at: float | None, broken_criterion: str | None) -> str:
    if broken_criterion is not None:
        return "batch.failed"
    return "batch.finished" if cancelled_at is None else "batch.cancelled"
