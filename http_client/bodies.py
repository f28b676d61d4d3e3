"""The body of an HTTP answer as it arrives: bounded in size and time, whole or line by line."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import requests
import urllib3

from http_client.arrivals import Pace, TooSlow, watch_arrivals

LARGE = 1024 * 1024
"""Bytes from which on a body is large. A process reads few of these at one time; the others wait, in their time."""
LARGE_AT_ONCE = threading.BoundedSemaphore(4)
PIECE = 256 * 1024
"""Bytes read at one time, at most."""


class BodyTooLong(ValueError):
    """The body has more bytes than are taken."""


def read_bounded(raw: urllib3.BaseHTTPResponse, *, limit: int, seconds: float) -> bytes:
    """The whole body, if it is at most `limit` bytes long and comes within `seconds`.

    Raises:
        requests.RequestException: the connection broke.
        BodyTooLong: it is longer.
        ValueError: it dripped in too slowly.
    """
    deadline = time.monotonic() + seconds
    parts: list[bytes] = []
    size = 0
    with ExitStack() as held:
        for part in _read_within(raw, seconds):
            if size <= LARGE < size + len(part):
                if not LARGE_AT_ONCE.acquire(timeout=max(0.0, deadline - time.monotonic())):
                    raise ValueError("too many other large replies are being read")
                held.callback(LARGE_AT_ONCE.release)
            size += len(part)
            if size > limit:
                raise BodyTooLong(f"the reply is longer than {limit} bytes")
            parts.append(part)
        return b"".join(parts)


def read_pieces(raw: urllib3.BaseHTTPResponse, pace: Pace) -> Iterator[bytes]:
    """The body as it arrives; unlike `iter_content`, which gathers a whole piece however slowly it drips.

    Raises:
        requests.RequestException: the connection broke.
        TooSlow: it comes more slowly than `pace`.
    """
    watch_arrivals(raw, pace)
    try:
        while part := raw.read1(PIECE, decode_content=True):
            yield part
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(f"{type(error).__name__}: {error}") from error


def _read_within(raw: urllib3.BaseHTTPResponse, seconds: float) -> Iterator[bytes]:
    try:
        yield from read_pieces(raw, Pace(seconds=seconds))
    except TooSlow as error:
        raise ValueError(str(error)) from error


def lines(raw: urllib3.BaseHTTPResponse, *, limit: int, seconds: float) -> Iterator[bytes]:
    """The body line by line as it arrives, without the line ends.

    Raises:
        requests.RequestException: the connection broke.
        ValueError: a line is longer than `limit` bytes, or `seconds` are over.
    """
    rest = b""
    for part in _read_within(raw, seconds):
        *whole, rest = (rest + part).split(b"\n")
        yield from (line.removesuffix(b"\r") for line in whole)
        if len(rest) > limit:
            raise ValueError(f"a line is longer than {limit} bytes")
