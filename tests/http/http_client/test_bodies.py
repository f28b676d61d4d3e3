"""Large replies are read few at one time, whoever asks for them."""

import threading
import time

import pytest

from http_client import bodies
from http_client.sessions import ThreadSessions, open_response
from tests.support.servers import SOON, Peer, serve


def read(url: str, size: int, seconds: float = 60) -> bytes:
    with open_response(ThreadSessions().get(), "GET", f"{url}/{size}", headers={}, timeout=60) as response:
        return bodies.read_bounded(response.raw, limit=10 * bodies.LARGE, seconds=seconds)


def send(peer: Peer) -> bool:
    return peer.reply(200, b"x" * int(peer.request.target.removeprefix("/")))


def test_large_replies_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the places are taken a large reply waits in vain, a small one does not wait; then it is read whole."""
    monkeypatch.setattr(bodies, "LARGE_AT_ONCE", threading.BoundedSemaphore(1))
    large = 2 * bodies.LARGE
    with serve(send) as wire:
        with bodies.LARGE_AT_ONCE:
            with pytest.raises(ValueError, match="too many other large replies"):
                read(wire.url, large, seconds=0.3)
            assert len(read(wire.url, 1000)) == 1000
        assert [len(read(wire.url, large)) for _ in range(2)] == [large, large]
        wire.received.clear()


def test_a_drip_between_chunks_has_an_end() -> None:
    """No byte of the body comes, so whoever looks at pieces waits as long as the other side likes."""

    def drip(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(1000):
            peer.send(b"0")
            peer.silence(0.1)

    with serve(drip) as wire:
        began = time.monotonic()
        with pytest.raises(ValueError, match=r"longer than 0\.5 seconds"):
            read(wire.url, 1, seconds=0.5)
        assert time.monotonic() - began < SOON
