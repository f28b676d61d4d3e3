"""An answer that is sent while it is made: through a pipe, which granian reads as if it were a file.

What an application streams to granian, granian queues in memory without a bound where the client reads slowly. A file
it reads only as fast as the client takes it, and so it does with a pipe, which holds a few pages.

The end of a pipe says nothing of whether all was written. So where an answer breaks off, the connection is ended
before its pipe is: HTTP/1.1 ends the last chunk of a whole answer with a mark (RFC 9112, 7.1), which is then missing.
A last line that says "complete" would tell it too, but only to a reader who knows that line: to any other, half an
answer would look like all of it.
"""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

FILE_KEPT = 30.0
"""Seconds that the file of an answer is held open for granian, which opens it itself and says nothing about it."""
CAPACITY = 64 * 1024
"""Bytes that a pipe holds at most; when more has gone in, granian has opened it."""


class AnswerPipe:
    """A pipe into granian. It is closed by `close`; granian's own end is granian's."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._read_end: int | None = read_end
        self._sent = 0
        self.path = f"/dev/fd/{read_end}"
        """Where granian may open it for `FILE_KEPT` seconds."""

    async def send(self, piece: bytes, *, within: float) -> None:
        """Hand it over as fast as it is taken.

        Raises:
            TimeoutError: nothing of it was taken for so many seconds.
            BrokenPipeError: the client has gone.
        """
        rest = memoryview(piece)
        while rest:
            try:
                taken = os.write(self._write_end, rest)
            except BlockingIOError:
                async with asyncio.timeout(within):
                    await self._wait_until_writable()
                continue
            rest, self._sent = rest[taken:], self._sent + taken
            if self._sent > CAPACITY:
                self._close_read_end()  # so that we hear of it when granian closes its own

    async def _wait_until_writable(self) -> None:
        writable = asyncio.Event()
        self._loop.add_writer(self._write_end, writable.set)
        try:
            await writable.wait()
        finally:
            self._loop.remove_writer(self._write_end)

    def close(self) -> None:
        """Nothing more comes."""
        os.close(self._write_end)
        self._loop.call_later(FILE_KEPT, self._close_read_end)

    def _close_read_end(self) -> None:
        if self._read_end is not None:
            os.close(self._read_end)
            self._read_end = None


def end_connection(scope: Any) -> None:
    """End the connection of a request of this process; granian has no way to do so itself."""
    ours, client = (int(address.rpartition(":")[2]) for address in (scope.server, scope.client))
    for name in os.listdir("/dev/fd"):
        with suppress(OSError), _copy_of_socket(int(name)) as found:
            here, there = found.getsockname(), found.getpeername()
            if isinstance(here, tuple) and (here[1], there[1]) == (ours, client):
                found.shutdown(socket.SHUT_RDWR)


@contextmanager
def _copy_of_socket(handle: int) -> Iterator[socket.socket]:
    """A socket by the handle that somebody else holds.

    Raises:
        OSError: it is none; nothing is left open, for a copy of a pipe's end would hide that the pipe has ended.
    """
    copy = os.dup(handle)
    try:
        found = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with found:
        yield found
