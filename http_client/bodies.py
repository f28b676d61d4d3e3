"""The body of an HTTP answer as it arrives: bounded in size and time, whole or line by line."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import requests
import urllib3

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
        for part in read_pieces(raw):
            if size <= LARGE < size + len(part):
                if not LARGE_AT_ONCE.acquire(timeout=max(0.0, deadline - time.monotonic())):
                    raise ValueError("too many other large replies are being read")
                held.callback(LARGE_AT_ONCE.release)
            size += len(part)
            if size > limit:
                raise BodyTooLong(f"the reply is longer than {limit} bytes")
            if time.monotonic() > deadline:
                raise ValueError(f"the reply took longer than {seconds:g} seconds")
            parts.append(part)
        return b"".join(parts)


def read_pieces(raw: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The body as it arrives; unlike `iter_content`, which gathers a whole piece however slowly it drips.

    Raises:
        requests.RequestException: the connection broke.
    """
    try:
        while part := raw.read1(PIECE, decode_content=True):
            yield part
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(f"{type(error).__name__}: {error}") from error


def lines(raw: urllib3.BaseHTTPResponse, *, limit: int, seconds: float) -> Iterator[bytes]:
    """The body line by line as it arrives, without the line ends.

    Raises:
        requests.RequestException: the connection broke.
        ValueError: a line is longer than `limit` bytes, or `seconds` are over.
    """
    deadline = time.monotonic() + seconds
    rest = b""
    for part in read_pieces(raw):
        *whole, rest = (rest + part).split(b"\n")
        yield from (line.removesuffix(b"\r") for line in whole)
        if len(rest) > limit:
            raise ValueError(f"a line is longer than {limit} bytes")
        if time.monotonic() > deadline:
            raise ValueError(f"the reply took longer than {seconds:g} seconds")


class TooSlow(Exception):
    """A body drips in more slowly than anybody sends who means to send it."""


def enforce_rate(parts: Iterable[bytes], *, least: int, window: float) -> Iterator[bytes]:
    """The same parts, as long as at least `least` bytes come in every `window` seconds.

    A socket's timeout starts anew with every byte, so it never notices a body that drips.

    Raises:
        TooSlow: they do not.
    """
    began, size = time.monotonic(), 0
    for part in parts:
        size += len(part)
        now = time.monotonic()
        if now - began >= window:
            if size < least:
                raise TooSlow(f"{size} bytes came in {now - began:.1f} seconds, {least} are the least.")
            began, size = now, 0
        yield part
