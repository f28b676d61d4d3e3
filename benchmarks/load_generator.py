"""`python -m benchmarks.load_generator FILE PORT CONNECTIONS`: send prepared requests over kept connections.

A process of its own, with one thread and nothing but sockets, so that it is not what is measured. FILE is a pickled
list of whole requests, as bytes. Prints one JSON object: seconds, statuses, milliseconds at percentiles, CPU seconds.
"""

import json
import pickle
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

SILENT_MOST = 30.0
"""Seconds without any answer, after which it gives up."""


def main(file: str, port: str, connections: str) -> int:
    """Send all of them, and print what came of it."""
    requests: list[bytes] = pickle.loads(Path(file).read_bytes())  # our own file
    print(json.dumps(send(requests, int(port), int(connections))))
    return 0


def send(requests: Sequence[bytes], port: int, connections: int) -> dict[str, object]:
    """Each request once, over so many connections, each of which has one request under way at a time."""
    waiting = iter(requests)
    took: list[float] = []
    statuses: Counter[str] = Counter()
    started: dict[socket.socket, float] = {}
    parts: dict[socket.socket, bytes] = {}
    with selectors.DefaultSelector() as selector:

        def send_next(sock: socket.socket) -> None:
            request = next(waiting, None)
            if request is None:
                selector.unregister(sock)
                sock.close()
                started.pop(sock, None)
                return
            parts[sock], started[sock] = b"", time.perf_counter()
            sock.sendall(request)

        began = time.perf_counter()
        for _ in range(min(connections, len(requests))):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(sock, selectors.EVENT_READ)
            send_next(sock)
        while started:
            ready = selector.select(SILENT_MOST)
            if not ready:
                raise SystemExit(f"no answer for {SILENT_MOST} s; {len(started)} requests are under way")
            for key, _ in ready:
                ready_socket = key.fileobj
                assert isinstance(ready_socket, socket.socket)
                sock = ready_socket
                parts[sock] += sock.recv(65536)
                if status := _whole(parts[sock]):
                    took.append(time.perf_counter() - started[sock])
                    statuses[status] += 1
                    send_next(sock)
        seconds = time.perf_counter() - began
    took.sort()
    marks = {f"p{mark}_ms": round(1000 * took[int(len(took) * mark / 100)], 1) for mark in (50, 99)}
    return {"seconds": seconds, "statuses": statuses, **marks, "cpu_s": time.process_time()}


def _whole(answer: bytes) -> str | None:
    """The status of an answer that has come whole."""
    if not answer:
        raise SystemExit("the server hung up")
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return None
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    return head[9:12].decode() if len(body) >= length else None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
