"""A server between a client and a real one: it hands every request on as it came, but for those that meet a fault."""

import http.client
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.support.servers import Peer, Wire, serve

Fault = Callable[[Peer], bool | None]
"""What to do with a request in the place of handing it on; None: hand it on."""
HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


@contextmanager
def meddling(address: str, faults: Iterable[Fault | None] = ()) -> Iterator[Wire]:
    """The same server as at `address`, whose first requests meet these faults, in their order."""
    target, waiting = urlsplit(address), iter(faults)

    def answer(peer: Peer) -> bool | None:
        fault = next(waiting, None)
        if fault is not None:
            return fault(peer)
        peer.send(_hand_on(target.hostname or "", target.port or 0, peer))
        return True

    with serve(answer) as wire:
        yield wire


def _hand_on(host: str, port: int, peer: Peer) -> bytes:
    """The real answer, whole; the request keeps its `Host`, for that is signed."""
    request = peer.request
    assert request
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        connection.endheaders(request.body)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    return answer_bytes(response.status, response.reason, response.getheaders(), body)


def answer_bytes(status: int, reason: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """An answer as it is sent on."""
    lines = [f"{name}: {value}" for name, value in headers if name.lower() not in HOP_BY_HOP]
    head = "\r\n".join([f"HTTP/1.1 {status} {reason}", *lines, f"Content-Length: {len(body)}"])
    return f"{head}\r\n\r\n".encode("latin-1") + body


def failing(status: int = 500) -> Fault:
    """An answer without reason."""
    return lambda peer: peer.reply(status, b"")


def resetting(peer: Peer) -> None:
    """The connection is cut."""
    peer.reset()


def silent(peer: Peer) -> None:
    """Nothing comes."""
    peer.silence()
