"""`python -m benchmarks.distant_server PORT SECONDS FILE`: the least that a provider and its CDN do, at a distance.

Answers every POST with an accepted request, and every GET with FILE, each so many seconds after it came. One thread and
nothing but sockets, so that it is not what is measured.
"""

import asyncio
import sys
from pathlib import Path

ACCEPTED = b'{"status": "IN_QUEUE", "request_id": "764cabcf-b745-4b3e-ae38-1200304cf45b", "queue_position": 0}'


def answer(content_type: str, body: bytes) -> bytes:
    """As it goes over the wire."""
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Conversation(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, delay: float, file: bytes) -> None:
        self._delay, self._file = delay, file
        self._came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where answers go."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer, once the request has come whole."""
        self._came += data
        head, end, body = self._came.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        if end and len(body) >= int(length or 0):
            self._came = b""
            reply = self._file if head.startswith(b"GET ") else answer("application/json", ACCEPTED)
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, reply)


async def main(port: str, delay: str, file: str) -> None:
    """Serve until ended."""
    image = answer("image/png", Path(file).read_bytes())
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Conversation(float(delay), image), "127.0.0.1", int(port), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
