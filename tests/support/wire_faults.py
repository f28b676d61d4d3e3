"""Real networks in small: TLS in front of a server that speaks none, and a proxy that only tunnels or forwards."""

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

CERTIFICATES = Path(__file__).parent / "certificates"
AUTHORITY = CERTIFICATES / "authority.pem"
"""Vouches for `server.pem`, whose names are localhost, 127.0.0.1, provider.example and store.example."""
QUIET_MAX = 30.0
"""Seconds without a byte after which a line is given up."""


def server_context() -> ssl.SSLContext:
    """The TLS of a server that only `AUTHORITY` vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem")
    return context


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port of loopback; each connection goes to `serve`, in a thread."""
    threads: list[threading.Thread] = []
    lines: set[socket.socket] = set()

    def hold(line: socket.socket, twin: socket.socket) -> None:
        try:
            with line, suppress(OSError):
                serve(line)
        finally:
            lines.discard(twin)
            hang_up(twin)
            twin.close()

    def accept() -> None:
        with suppress(OSError):
            while True:
                line, _ = listener.accept()
                twin = line.dup()  # what speaks TLS on a line takes its place
                lines.add(twin)
                threads.append(threading.Thread(target=hold, args=(line, twin), daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        api = threading.Thread(target=accept, daemon=True)
        api.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for line in list(lines):
                hang_up(line)
            for thread in (api, *threads):
                thread.join(60)


def hang_up(line: socket.socket) -> None:
    """End it in both directions, whoever waits on it."""
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def pump(one: socket.socket, other: socket.socket) -> None:
    """Bytes both ways until either side ends."""
    lines = (one, other)
    with suppress(OSError):
        while True:
            held = [line for line in lines if isinstance(line, ssl.SSLSocket) and line.pending()]
            ready = held or select.select(lines, (), (), QUIET_MAX)[0]
            if not ready:
                return
            for line in ready:
                data = line.recv(65536)
                if not data:
                    return
                (other if line is one else one).sendall(data)


@contextmanager
def serve_tls(port: int) -> Iterator[int]:
    """A port that speaks TLS, before one of loopback that does not."""
    context = server_context()

    def serve(line: socket.socket) -> None:
        with (
            context.wrap_socket(line, server_side=True) as secure,
            socket.create_connection(("127.0.0.1", port)) as plain,
        ):
            pump(secure, plain)

    with listening(serve) as secure_port:
        yield secure_port


@dataclass(slots=True)
class Proxy:
    """A running proxy, and what it was asked; header names in lower case."""

    port: int = 0
    requested: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    """Host name -> the port of loopback that stands for it."""
    refusal: bytes = b""
    """What every request is answered with instead, if anything."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        """The first line of each request, without its protocol."""
        return [line.rpartition(" ")[0] for line, _ in self.requested]

    def serve(self, line: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            part = line.recv(65536)
            if not part:
                return
            head += part
        start, *rest = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in rest)}
        self.requested.append((start, headers))
        if self.refusal:
            line.sendall(self.refusal)
            return
        method, target, _ = start.split(" ")
        place = target if method == "CONNECT" else target.partition("://")[2].partition("/")[0]
        host, _, port = place.rpartition(":") if ":" in place else (place, "", "80")
        with socket.create_connection(("127.0.0.1", self.names.get(host, int(port or 80)))) as other:
            if method == "CONNECT":
                line.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                other.sendall(
                    head.replace(target.encode(), b"/" + target.partition("://")[2].partition("/")[2].encode(), 1)
                )
            pump(line, other)


@contextmanager
def proxying(**names: int) -> Iterator[Proxy]:
    """A proxy that knows these host names (dots written as __), and otherwise loopback."""
    proxy = Proxy(names={name.replace("__", "."): port for name, port in names.items()})
    with listening(proxy.serve) as proxy.port:
        yield proxy
