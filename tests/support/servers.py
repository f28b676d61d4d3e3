"""Real servers on loopback that do one thing, right or wrong, and remember what reached them."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus

LONGEST = 60.0
"""Seconds a script may be silent at most, so that no test hangs for long; far longer than a test may take that is to
give up earlier."""
SOON = 20.0
"""Seconds: far less than `LONGEST`, far more than a busy machine adds to a short wait."""


@dataclass(frozen=True, slots=True)
class Received:
    """One HTTP request as it came; header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Peer:
    """One connection that a script answers, with the request that it just brought (None: nothing was read)."""

    sock: socket.socket
    request: Received | None
    closing: threading.Event
    """Set when the test is over."""

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.sock.sendall(data)

    def reply(self, status: int = 200, body: bytes = b"", **headers: str) -> bool:
        """A whole reply; True, so that a script which ends with it keeps the connection."""
        self.send(reply(status, body, **headers))
        return True

    def reset(self) -> None:
        """Cut the connection with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def silence(self, seconds: float = LONGEST) -> None:
        """Say nothing."""
        self.closing.wait(seconds)


Script = Callable[[Peer], bool | None]
"""What to do with a request; True keeps the connection for another one."""


def reply(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a reply; `content_length=…` overrides the true one, an empty value leaves a header out."""
    lines = {"content_length": str(len(body)), **headers}
    head = "".join(f"{name.replace('_', '-').title()}: {value}\r\n" for name, value in lines.items() if value)
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{head}\r\n".encode("latin-1") + body


@dataclass(slots=True)
class Wire:
    """A running server. `received` holds every whole request, `connections` counts what was accepted, `ended` what
    the server has closed since."""

    port: int
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    ended: int = 0
    faults: list[BaseException] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serve(script: Script, *, reads: bool = True, wrap: Callable[[socket.socket], socket.socket] | None = None):
    """A server on a free port; with `reads=False` the script gets the connection before anything is read."""
    closing = threading.Event()
    threads: list[threading.Thread] = []
    open_sockets: set[socket.socket] = set()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = Wire(listener.getsockname()[1])

        def hold(sock: socket.socket) -> None:
            try:
                with suppress(OSError), wrap(sock) if wrap else sock as line:
                    _converse(line, script, wire, closing, reads=reads)
            except BaseException as error:
                wire.faults.append(error)
            finally:
                sock.close()
                wire.ended += 1
                open_sockets.discard(sock)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    wire.connections += 1
                    open_sockets.add(sock)
                    thread = threading.Thread(target=hold, args=(sock,), daemon=True)
                    threads.append(thread)
                    thread.start()

        api = threading.Thread(target=accept, daemon=True)
        api.start()
        try:
            yield wire
        finally:
            closing.set()
            listener.shutdown(socket.SHUT_RDWR)
            for sock in list(open_sockets):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            for thread in (api, *threads):
                thread.join(LONGEST)
    assert wire.faults == []


def _converse(sock: socket.socket, script: Script, wire: Wire, closing: threading.Event, *, reads: bool) -> None:
    if not reads:
        script(Peer(sock, None, closing))
        return
    with sock.makefile("rb") as stream:
        for request in _requests(stream):
            wire.received.append(request)
            if not script(Peer(sock, request, closing)):
                return


def _requests(stream) -> Iterator[Received]:
    while line := stream.readline():
        method, target, _ = line.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while (text := stream.readline().decode("latin-1").strip()) != "":
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        yield Received(method, target, headers, stream.read(int(headers.get("content-length", 0))))


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
