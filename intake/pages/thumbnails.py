"""Small versions of images for the page: made when they are first looked at, and kept in the store.

The work is done by a few threads of its own: an input comes from somebody else's host, under the same guards as a
download, and may take as long as that host likes, while requests of the API go on.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from threading import BoundedSemaphore
from typing import IO

from PIL import Image, ImageOps

from core.errors import DarkroomError
from core.image_files import DECODED, FORMATS, MAX_PIXELS
from http_client.fetch import Fetcher
from intake.settings import IntakeSettings
from storage.store import Storage

SIZE = 320
"""Pixels of the longer side."""
FOLDER = "thumbnails"
"""Prefix of their keys in the store."""
TYPE = "image/webp"
THREADS, WAITING_MAX = 3, 120
"""Made at one time, and asked for at one time; a page shows a few dozen."""
INPUT_MAX = 20_000_000
"""Bytes of an input."""
MADE_MAX = 1_000_000
"""Bytes of a thumbnail in the store; far more than one has."""


class TooMany(Exception):
    """So many are waited for that this one is not begun."""


class Thumbnails:
    """Makes and keeps them. Safe for threads."""

    def __init__(self, settings: IntakeSettings) -> None:
        self._settings = settings
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="thumbnail")
        self._places = BoundedSemaphore(WAITING_MAX)

    @cached_property
    def storage(self) -> Storage:
        """The store, opened when it is first needed."""
        return Storage(self._settings.storage_url)

    @cached_property
    def _fetcher(self) -> Fetcher:
        return Fetcher(("*", *self._settings.fal_media_hosts), max_bytes=INPUT_MAX)

    def of_output(self, key: str, digest: str) -> "Future[bytes | None]":
        """Of a stored image, by its key and the hash of its bytes; None where it cannot be had."""
        return self._start(lambda: self._keep(digest, lambda: self._read_stored(key)))

    def of_input(self, url: str) -> "Future[bytes | None]":
        """Of an input, by its URL or data URI."""
        return self._start(lambda: self._keep(sha256(url.encode()).hexdigest(), lambda: self._fetcher.fetch(url)))

    def _start(self, make: Callable[[], bytes | None]) -> "Future[bytes | None]":
        if not self._places.acquire(blocking=False):
            raise TooMany
        future = self._pool.submit(make)
        future.add_done_callback(lambda _: self._places.release())
        return future

    def _keep(self, digest: str, open_original: Callable[[], IO[bytes]]) -> bytes | None:
        key = f"{FOLDER}/{digest[:2]}/{digest}.webp"
        with suppress(DarkroomError), self.storage.get(key, max_bytes=MADE_MAX) as file:
            return file.read()
        try:
            with open_original() as original:
                made = make_small(original)
        except (DarkroomError, OSError, ValueError, Image.DecompressionBombError):
            return None
        with suppress(DarkroomError):  # a store that takes nothing now, or nothing from here, is no reason to show none
            self.storage.put(key, BytesIO(made), TYPE)
        return made

    def _read_stored(self, key: str) -> IO[bytes]:
        file = BytesIO()
        with self.storage.get(key, max_bytes=self._settings.picture_max_bytes) as stored:
            file.write(stored.read())
        file.seek(0)
        return file


def make_small(file: IO[bytes]) -> bytes:
    """An image of at most `SIZE` pixels, upright.

    Raises:
        OSError, ValueError: it is none, or too large.
    """
    with Image.open(file, formats=list(FORMATS)) as image:
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise ValueError("too large")
        with DECODED.hold(pixels):
            image.draft("RGB", (2 * SIZE, 2 * SIZE))  # a JPEG need not be decoded whole
            small = image.convert("RGBA" if image.has_transparency_data else "RGB")
            small.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS, reducing_gap=2.0)
            upright = ImageOps.exif_transpose(small)
    made = BytesIO()
    upright.save(made, "WEBP", quality=80)
    return made.getvalue()
