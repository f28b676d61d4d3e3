"""Kept connections: one per thread, never for long, and never a reason to send a POST twice."""

import socket
import threading
import time
from pathlib import Path

import pytest

from core.errors import UnknownOutcome
from http_client import sessions
from provider import queue_api
from tests.support.lane_runner import wait_for
from tests.support.queueing import ENDPOINT, KEY, accepted, client, submit
from tests.support.servers import Peer, Script, serve


def test_connection_is_kept() -> None:
    """Two POSTs of one thread share a connection; another thread has its own."""
    with serve(accepted) as wire:
        api = client(wire.url)
        for _ in range(2):
            api.submit(ENDPOINT, {}, webhook_url=None)
        assert wire.connections == 1
        thread = threading.Thread(target=api.submit, args=(ENDPOINT, {}), kwargs={"webhook_url": None})
        thread.start()
        thread.join()

    assert (wire.connections, len(wire.received)) == (2, 3)


@pytest.mark.parametrize("end", [lambda peer: None, lambda peer: peer.reset()], ids=["closed", "reset"])
def test_connection_closed_while_idle(end: Script) -> None:
    """A kept connection that the other side has closed is noticed before anything is sent: a new one is made."""
    with serve(lambda peer: end(peer) if accepted(peer) else None) as wire:
        api = client(wire.url)
        api.submit(ENDPOINT, {}, webhook_url=None)
        wait_for(lambda: wire.ended == 1)
        assert api.submit(ENDPOINT, {}, webhook_url=None) == "8f1c"

    assert (wire.connections, len(wire.received)) == (2, 2)


def test_connection_is_not_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """After IDLE_LIMIT we close it ourselves: the POST cannot meet a connection that is just being closed."""
    monkeypatch.setattr(sessions, "IDLE_LIMIT", 0.2)
    gone = threading.Event()

    def watch(peer: Peer) -> bool:
        accepted(peer)
        if not peer.sock.recv(1, socket.MSG_PEEK):  # waits for the next request, or the end
            gone.set()
        return True

    with serve(watch) as wire:
        api = client(wire.url)
        api.submit(ENDPOINT, {}, webhook_url=None)
        assert not gone.is_set()
        time.sleep(0.3)
        api.submit(ENDPOINT, {}, webhook_url=None)
        assert gone.wait(60)

    assert (wire.connections, len(wire.received)) == (2, 2)


def test_race_with_a_closing_server_is_no_second_post() -> None:
    """What the idle limit guards: a kept connection dies under the POST. It was sent, so it is not sent again."""

    def script(peer: Peer) -> bool | None:
        return accepted(peer) if peer.request.body == b"{}" else None

    with serve(script) as wire:
        api = client(wire.url)
        api.submit(ENDPOINT, {}, webhook_url=None)
        with pytest.raises(UnknownOutcome):
            api.submit(ENDPOINT, {"second": 1}, webhook_url=None)

    assert (wire.connections, len(wire.received)) == (1, 2)


def test_connection_with_an_answer_half_read_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of an answer that was too long must not be taken for the answer to the next POST."""
    monkeypatch.setattr(queue_api, "REPLY_MAX_BYTES", 100)
    gone = threading.Event()

    def script(peer: Peer) -> bool:
        if peer.request.body == b"{}":
            return accepted(peer)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(200))
        peer.sock.settimeout(60)
        if not peer.sock.recv(1, socket.MSG_PEEK):  # waits for the next request, or the end
            gone.set()
        return True

    with serve(script) as wire:
        api = client(wire.url)
        with pytest.raises(UnknownOutcome):
            api.submit(ENDPOINT, {"first": 1}, webhook_url=None)
        assert gone.wait(60)
        assert api.submit(ENDPOINT, {}, webhook_url=None) == "8f1c"

    assert (wire.connections, len(wire.received)) == (2, 2)


def test_each_endpoint_has_its_own_request() -> None:
    """One client, two endpoints and their webhooks by turns: nothing of one POST is left in another."""
    with serve(accepted) as wire:
        api = client(wire.url)
        for _ in range(2):
            api.submit(ENDPOINT, {"n": 1}, webhook_url="https://h.example/1")
            api.submit("fal-ai/other", {"n": 22}, webhook_url=None)

    seen = [(request.target, request.body, request.headers["content-length"]) for request in wire.received]
    both = (
        (f"/{ENDPOINT}?fal_webhook=https%3A%2F%2Fh.example%2F1", b'{"n":1}', "7"),
        ("/fal-ai/other", b'{"n":22}', "8"),
    )
    assert (seen, wire.connections) == ([*both, *both], 1)


def test_environment_and_netrc_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy and no password of the machine's owner comes between us and the provider."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login x password y\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with serve(accepted) as proxy, serve(accepted) as wire:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        submit(wire.url)

    assert proxy.connections == 0
    assert wire.received[0].headers["authorization"] == f"Key {KEY}"


def test_cookies_are_not_sent_back() -> None:
    """One POST leaves nothing for the next."""
    with serve(lambda peer: peer.reply(200, b'{"request_id": "8f1c"}', set_cookie="a=b; Path=/")) as wire:
        api = client(wire.url)
        for _ in range(2):
            api.submit(ENDPOINT, {}, webhook_url=None)

    assert [request.headers.get("cookie") for request in wire.received] == [None, None]


def test_wire_itself() -> None:
    """The emulator server counts what it gets (a check of the tests' own tool)."""
    with serve(accepted) as wire, socket.create_connection(("127.0.0.1", wire.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")
        wait_for(lambda: len(wire.received) == 2)
    assert (wire.connections, len(wire.received)) == (1, 2)
