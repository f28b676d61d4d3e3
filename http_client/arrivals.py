"""Every byte of an answer as it arrives, whatever it belongs to.

A body that drips is seen piece by piece. But HTTP has marks of its own around the pieces (the sizes of chunks, their
extensions, trailers), and whoever reads one of these waits for the whole line while a byte of it comes now and then.
"""

import io
import time
from collections.abc import Callable
from http.client import HTTPResponse
from typing import Any

import urllib3

Watch = Callable[[int], None]
"""Told of so many bytes that have just arrived; raises to end it."""


class TooSlow(Exception):
    """An answer drips in more slowly than anybody sends who means to send it.

    Deliberately neither an OSError nor a ValueError: `http.client` and urllib3 would take these for their own.
    """


class Pace:
    """How fast a body must come: whole within `seconds`, at least `least` bytes in every `window` seconds.

    The seconds count from now, or from `began`, a moment of the monotonic clock.
    """

    def __init__(
        self, *, seconds: float, began: float | None = None, least: int = 0, window: float = float("inf")
    ) -> None:
        self._seconds, self._least, self._window = seconds, least, window
        self._since = time.monotonic()
        self._began = self._since if began is None else began
        self._size = 0

    def __call__(self, size: int) -> None:
        """So many bytes more have come.

        Raises:
            TooSlow: they come too slowly.
        """
        self._size += size
        now = time.monotonic()
        if now - self._began > self._seconds:
            raise TooSlow(f"the reply took longer than {self._seconds:g} seconds")
        if now - self._since >= self._window:
            if self._size < self._least:
                took = now - self._since
                raise TooSlow(f"{self._size} bytes came in {took:.1f} seconds, {self._least} are the least")
            self._since, self._size = now, 0


class Arrivals(io.RawIOBase):
    """What a connection brings, told to `watch` before anybody makes sense of it."""

    def __init__(self, connection: io.RawIOBase) -> None:
        self._connection = connection
        self.watch: Watch | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """What has come, as it comes."""
        size: int | None = self._connection.readinto(buffer)
        if size and self.watch is not None:
            self.watch(size)
        return size

    def close(self) -> None:
        """Let go of the connection, which lives on."""
        self._connection.close()
        super().close()


class WatchedResponse(HTTPResponse):
    """The standard library's answer, read through `Arrivals`."""

    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.arrivals = Arrivals(self.fp.detach())
        self.fp = io.BufferedReader(self.arrivals)


def watch_arrivals(raw: urllib3.BaseHTTPResponse, watch: Watch) -> None:
    """From now on tell `watch` of everything that arrives for an answer of one of our sessions."""
    answer: WatchedResponse = raw._original_response  # type: ignore[attr-defined]  # urllib3 has no other way to it
    answer.arrivals.watch = watch
