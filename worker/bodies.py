"""The body of an HTTP answer as it arrives: bounded in size and time, whole or line by line."""

import time
from collections.abc import Iterator

import requests
import urllib3

PIECE = 256 * 1024
"""Bytes read at one time, at most."""


class BodyTooLong(ValueError):
    """The body has more bytes than are taken."""


def read_bounded(response: requests.Response, *, limit: int, seconds: float) -> bytes:
    """The whole body, if it is at most `limit` bytes long and comes within `seconds`.

    Raises:
        requests.RequestException: the connection broke.
        BodyTooLong: it is longer.
        ValueError: it dripped in too slowly.
    """
    deadline = time.monotonic() + seconds
    parts: list[bytes] = []
    size = 0
    for part in pieces(response):
        size += len(part)
        if size > limit:
            raise BodyTooLong(f"the reply is longer than {limit} bytes")
        if time.monotonic() > deadline:
            raise ValueError(f"the reply took longer than {seconds:g} seconds")
        parts.append(part)
    return b"".join(parts)


def pieces(response: requests.Response) -> Iterator[bytes]:
    """The body as it arrives; unlike `iter_content`, which gathers a whole piece however slowly it drips.

    Raises:
        requests.RequestException: the connection broke.
    """
    try:
        while part := response.raw.read1(PIECE, decode_content=True):
            yield part
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(f"{type(error).__name__}: {error}") from error


def lines(response: requests.Response, *, limit: int, seconds: float) -> Iterator[bytes]:
    """The body line by line as it arrives, without the line ends.

    Raises:
        requests.RequestException: the connection broke.
        ValueError: a line is longer than `limit` bytes, or `seconds` are over.
    """
    deadline = time.monotonic() + seconds
    rest = b""
    for part in pieces(response):
        *whole, rest = (rest + part).split(b"\n")
        yield from (line.removesuffix(b"\r") for line in whole)
        if len(rest) > limit:
            raise ValueError(f"a line is longer than {limit} bytes")
        if time.monotonic() > deadline:
            raise ValueError(f"the reply took longer than {seconds:g} seconds")
