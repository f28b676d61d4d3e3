"""Small versions of images for the page: made when they are first looked at, and kept in the store.

The work is done by a few threads of its own, while requests of the API go on. An input comes from somebody else's
host, under the same guards as a download, and may take as long as that host likes: so inputs have threads apart.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from threading import BoundedSemaphore
from typing import IO, TypeVar

from core.errors import DarkroomError
from core.small_images import TYPE, encode_small, shrink
from http_client.fetch import Fetcher
from intake.settings import IntakeSettings
from models.image_inputs import OBJECT, is_object
from storage.input_objects import input_key
from storage.store import Storage

SIZE = 320
"""Pixels of the longer side."""
FOLDER = "thumbnails"
"""Prefix of their keys in the store."""
THREADS, WAITING_MAX = 3, 120
"""Of inputs, and of stored images: made at one time, and asked for at one time; a page shows a few dozen."""
INPUT_MAX = 20_000_000
"""Bytes of an input."""
MADE_MAX = 1_000_000
"""Bytes of a thumbnail in the store; far more than one has."""

Made = TypeVar("Made")


class TooMany(Exception):
    """So many are waited for that this one is not begun."""


class Thumbnails:
    """Makes and keeps them. Safe for threads."""

    def __init__(self, settings: IntakeSettings) -> None:
        self._settings = settings
        self._inputs, self._stored = _Workers("input"), _Workers("stored image")

    @cached_property
    def storage(self) -> Storage:
        """The store, opened when it is first needed."""
        return Storage(self._settings.storage_url)

    @cached_property
    def _fetcher(self) -> Fetcher:
        return Fetcher(("*", *self._settings.fal_media_hosts), max_bytes=INPUT_MAX)

    def of_output(self, key: str, digest: str) -> "Future[bytes | None]":
        """Of a stored image, by its key and the hash of its bytes; None where it cannot be had."""
        largest = self._settings.picture_max_bytes
        return self._stored.start(lambda: self._keep(digest, lambda: self.storage.get(key, max_bytes=largest)))

    def of_input(self, find_url: Callable[[], str | None], client: str) -> "Future[bytes | None]":
        """Of an input of a client's batch, whose URL or data URI is found once its turn comes: those that wait may have
        megabytes each. It may also be the name of an object of the client."""
        return self._inputs.start(lambda: self._make_of_input(find_url(), client))

    def _make_of_input(self, url: str | None, client: str) -> bytes | None:
        if url is None:
            return None
        if not is_object(url):
            return self._keep(sha256(url.encode()).hexdigest(), lambda: self._fetcher.fetch(url))
        key = input_key(self.storage, client, url.removeprefix(OBJECT))
        return self._keep(sha256(key.encode()).hexdigest(), lambda: self.storage.get(key, max_bytes=INPUT_MAX))

    def _keep(self, digest: str, open_original: Callable[[], AbstractContextManager[IO[bytes]]]) -> bytes:
        key = f"{FOLDER}/{digest[:2]}/{digest}.webp"
        with suppress(DarkroomError), self.storage.get(key, max_bytes=MADE_MAX) as file:
            return file.read()
        with open_original() as original:
            made = encode_small(shrink(original, SIZE))
        with suppress(DarkroomError):  # a store that takes nothing now, or nothing from here, is no reason to show none
            self.storage.put(key, BytesIO(made), TYPE)
        return made


class _Workers:
    """A few threads, and a bound on what waits for them."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix=name)
        self._places = BoundedSemaphore(WAITING_MAX)

    def start(self, make: Callable[[], Made]) -> "Future[Made | None]":
        if not self._places.acquire(blocking=False):
            raise TooMany
        future = self._pool.submit(_try, make)
        future.add_done_callback(lambda _: self._places.release())
        return future


def _try(make: Callable[[], Made]) -> Made | None:
    try:
        return make()
    except Exception:  # what cannot be had is not shown; and Pillow's decoders raise what they like on hostile bytes
        return None
