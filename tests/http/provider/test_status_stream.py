"""The status stream, and whoever follows a request by it: bounded, and never the only way."""

import json
import threading
import time
from contextlib import ExitStack

import pytest

from core.errors import AccountPaused, Gone, TryLater
from models.seedream import ENDPOINT
from provider import follow_request, queue_api, status_stream
from provider.follow_request import Update, follow
from provider.queue_api import QueueAPI
from tests.support.lane_runner import Emulator
from tests.support.queueing import ARGUMENTS, KEY, client
from tests.support.servers import SOON, Peer, closed_port, serve

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
STREAM = "/fal-ai/bytedance/requests/8f1c/status/stream?logs=1"


def entry(message: str) -> dict[str, str]:
    return {"message": message, "level": "INFO", "source": "USER", "timestamp": f"2026-01-01T00:00:00Z {message}"}


def state(name: str, *messages: str, **more: object) -> bytes:
    return json.dumps({"status": name, "request_id": "8f1c", "logs": [*map(entry, messages)], **more}).encode()


def event(body: bytes) -> bytes:
    return b"data: " + body + b"\n\n"


QUEUED, RUNNING, DONE = state("IN_QUEUE", queue_position=2), state("IN_PROGRESS", "a"), state("COMPLETED", "a", "b")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause between questions, shrunk."""
    monkeypatch.setattr(follow_request, "POLL_EVERY", 0.05)


@pytest.fixture
def deaf(manner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The silence of a stream that ends it, shrunk where it is silent."""
    if manner == "silent":
        monkeypatch.setattr(queue_api, "STREAM_SILENCE", 0.4)


def stream(url: str, seconds: float = 60) -> list[str]:
    return [status_stream.status for status_stream in client(url).stream(ENDPOINT, "8f1c", logs=True, seconds=seconds)]


def test_stream_as_it_is_asked_and_read() -> None:
    """One GET with the key; comments, odd fields, line ends of both kinds and data over two lines are read."""

    def script(peer: Peer) -> None:
        peer.send(HEAD + b": keep-alive\n\n" + event(QUEUED) + b"event: x\r\nid: 1\r\n\r\n")
        for part in (b"data:" + RUNNING[:20], RUNNING[20:] + b"\r\n\r\n", b'data: {"status":\ndata: "COMPLETED"}\n\n'):
            peer.send(part)
            peer.silence(0.05)
        peer.silence()

    with serve(script) as wire:
        assert stream(wire.url) == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]

    (request,) = wire.received
    assert (request.method, request.target) == ("GET", STREAM)
    assert request.headers["authorization"] == f"Key {KEY}"


BROKEN = {
    "closes": lambda peer: peer.send(HEAD + event(RUNNING)),
    "resets": lambda peer: [peer.send(HEAD + event(RUNNING)), peer.reset()][0],
    "silent": lambda peer: [peer.send(HEAD + event(RUNNING)), peer.silence()][0],
    "no JSON": lambda peer: peer.send(HEAD + event(RUNNING) + event(b"<html>")),
    "no status": lambda peer: peer.send(HEAD + event(RUNNING) + event(b"{}")),
    "a list": lambda peer: peer.send(HEAD + event(RUNNING) + event(b"[1]")),
    "a page": lambda peer: peer.reply(200, b"<html></html>"),
    "500": lambda peer: peer.reply(500, b"oops"),
    "redirect": lambda peer: peer.reply(307, b"", location="http://127.0.0.1:1/"),
    "endless line": lambda peer: peer.send(HEAD + b"data: " + bytes(status_stream.EVENT_MAX_BYTES + 10)),
    "endless event": lambda peer: peer.send(HEAD + (b"data: " + b"x" * 60_000 + b"\n") * 20),
}


@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize("manner", BROKEN)
def test_broken_stream_is_one_error(manner: str) -> None:
    """However it breaks: TryLater, so that whoever listens asks in another way."""
    with serve(BROKEN[manner]) as wire, pytest.raises(TryLater):
        stream(wire.url)


@pytest.mark.parametrize(("manner", "reason"), [("endless line", "a line is longer"), ("endless event", "too long")])
def test_stream_is_bounded(manner: str, reason: str) -> None:
    """Given up at its bound, not at its end."""
    with serve(BROKEN[manner]) as wire, pytest.raises(TryLater, match=reason):
        stream(wire.url)


def test_stream_of_nothing_but_comments_ends() -> None:
    """Kept alive for ever, it is left at the end of the time given."""

    def script(peer: Peer) -> None:
        peer.send(HEAD)
        while not peer.closing.wait(0.1):
            peer.send(b": keep-alive\n\n")

    began = time.monotonic()
    with serve(script) as wire, pytest.raises(TryLater):
        stream(wire.url, seconds=0.5)
    assert time.monotonic() - began < SOON


@pytest.mark.parametrize(("code", "error"), [(404, Gone), (401, AccountPaused), (403, AccountPaused)])
def test_refused_stream(code: int, error: type[Exception]) -> None:
    """Unknown requests and refused keys are told apart, and not asked about again."""
    with serve(lambda peer: peer.reply(code, b"{}")) as wire, pytest.raises(error):
        list(follow(client(wire.url), ENDPOINT, "8f1c"))
    assert len(wire.received) == 1


def test_nobody_listens() -> None:
    """No connection is TryLater too."""
    with pytest.raises(TryLater):
        stream(f"http://127.0.0.1:{closed_port()}")


@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize("manner", BROKEN)
def test_following_goes_on_by_polling(manner: str) -> None:
    """The stream breaks: nothing is told twice, nothing is missing, and the end comes."""

    def script(peer: Peer) -> bool | None:
        if peer.request and "stream" in peer.request.target:
            return BROKEN[manner](peer)
        return peer.reply(200, DONE)

    with serve(script) as wire:
        updates = list(follow(client(wire.url), ENDPOINT, "8f1c"))

    assert [line.message for update in updates for line in update.logs] == ["a", "b"]
    assert updates[-1].status == "COMPLETED"


def test_following_outlives_an_outage() -> None:
    """Questions that go unanswered are asked again."""
    answers = [b"<html>", b"", DONE]

    def script(peer: Peer) -> bool | None:
        if peer.request and "stream" in peer.request.target:
            return None
        return peer.reply(200, answers.pop(0))

    with serve(script) as wire:
        assert [update.status for update in follow(client(wire.url), ENDPOINT, "8f1c")] == ["COMPLETED"]


def test_following_does_not_wait_for_ever() -> None:
    """A request that never ends is TryLater after the time given."""

    def script(peer: Peer) -> bool | None:
        if peer.request and "stream" in peer.request.target:
            return None
        return peer.reply(202, RUNNING)

    with serve(script) as wire, pytest.raises(TryLater):
        list(follow(client(wire.url), ENDPOINT, "8f1c", seconds=0.3))


@pytest.mark.parametrize(
    "lists",
    [
        [["a"], ["a", "b"], ["a", "b", "c"]],
        [["a"], ["b"], ["c"]],
        [["a", "b"], [], ["b", "c"]],
        [["a", "b"], ["a"], ["a", "b", "c"]],
    ],
    ids=["so far", "delta", "window", "shrinks"],
)
def test_each_line_is_told_once(lists: list[list[str]]) -> None:
    """Whether a status carries the list so far or only what is new, which nobody promises."""
    lines = follow_request.NewLines()
    messages = [line.message for entries in lists for line in lines.take_new([*map(entry, entries)])]
    assert messages == ["a", "b", "c"]


def test_lines_are_fit_for_a_terminal() -> None:
    """A stranger's text moves no cursor, odd entries are none, and nobody prints a megabyte."""
    odd = [{"message": "\x1b[2Jred\x07\r\n"}, "text", None, {"message": None}, {"message": "x" * 10**6}]
    first, empty, long = follow_request.NewLines().take_new(odd)
    assert (first.message, empty.message) == (" [2Jred", "")
    assert len(long.message) == follow_request.LINE_MAX


def test_follow_a_real_run(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the emulator, by its stream alone: place in the queue, start, lines one by one, end, then the result."""
    monkeypatch.setattr(QueueAPI, "status", None)
    emulator.mark(latency=0.6, concurrency=0)
    queue = client(emulator.url)
    arguments = {**ARGUMENTS, "image_urls": ["data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="]}
    request_id = queue.submit(ENDPOINT, arguments, webhook_url=None)
    updates = []
    for update in follow(queue, ENDPOINT, request_id):
        updates.append(update)
        if update.status == "IN_QUEUE":
            emulator.ask("PUT", "options", concurrency=1)

    assert next(update.queue_position for update in updates if update.status == "IN_QUEUE") in (0, 1)
    assert [update.status for update in updates][-1] == "COMPLETED"
    messages = [line.message for update in updates for line in update.logs]
    assert len(messages) == len(set(messages)) > 3
    assert queue.result(ENDPOINT, request_id).kind is not None


def test_many_follow_at_once(emulator: Emulator) -> None:
    """One client serves many threads, each with its own connection."""
    queue = client(emulator.url)
    request_id = queue.submit(ENDPOINT, ARGUMENTS, webhook_url=None)
    ends: list[Update] = []
    with ExitStack() as stack:
        for _ in range(8):
            thread = threading.Thread(target=lambda: ends.append(list(follow(queue, ENDPOINT, request_id))[-1]))
            thread.start()
            stack.callback(thread.join)
    assert [end.status for end in ends] == ["COMPLETED"] * 8
