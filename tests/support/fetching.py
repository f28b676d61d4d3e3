"""What the tests of the fetcher share: a server of one image, and the two ways in which a fetch ends."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from core.errors import DownloadError, Unusable
from http_client.fetch import Fetcher
from tests.support.servers import Wire, serve

LIMIT = 300_000
IMAGE = b"\x89PNG" + bytes(range(256)) * 40


def fetcher(*hosts: str) -> Fetcher:
    return Fetcher(hosts or ("127.0.0.1",), max_bytes=LIMIT)


def fetched(url: str, *hosts: str) -> bytes:
    with fetcher(*hosts).fetch(url) as file:
        file.seek(0)
        return file.read()


def fault(url: str, *hosts: str, kind: type[DownloadError] = Unusable) -> str:
    with pytest.raises(kind) as caught:
        fetched(url, *hosts)
    return caught.value.type


@contextmanager
def images() -> Iterator[Wire]:
    """A server of one image."""
    with serve(lambda line: line.reply(200, IMAGE, content_type="image/png")) as wire:
        yield wire
