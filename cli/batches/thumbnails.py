"""Small versions of images for a contact sheet, or a few words why there is none."""

from base64 import b64encode
from collections import Counter
from functools import lru_cache
from threading import Lock
from urllib.parse import urlsplit

from PIL import Image

from core.errors import DarkroomError, FetchAgain, NotFound, Unusable
from core.small_images import TYPE, encode_small, shrink
from http_client.fetch import Fetcher
from models.image_inputs import OBJECT, is_object
from storage.input_objects import input_key
from storage.store import Storage
from worker.settings import WorkerSettings

NOT_THERE, UNREADABLE = "not in storage", "cannot be read"
SIDE = 320
"""Pixels of the longer side of an image in a page."""
INPUT_MAX_BYTES = 50_000_000
REMEMBERED = 256
"""Thumbnails of inputs that are kept: many edits of a batch may have one input."""
FAILURES = 3
"""Inputs in a row that a host does not give, after which it is not asked for any more."""


class Refused(Exception):
    """Why an image cannot be shown, in a few words."""


class Thumbnails:
    """Makes thumbnails as data URIs, of a batch of `client`. Safe for threads."""

    def __init__(self, settings: WorkerSettings, client: str) -> None:
        self._max_bytes, self._client = settings.picture_max_bytes, client
        self._storage = Storage(settings.storage_url)
        self._fetcher = Fetcher(("*", *settings.fal_media_hosts), max_bytes=INPUT_MAX_BYTES)
        self._failures: Counter[str] = Counter()
        self._lock = Lock()
        self._of_url = lru_cache(REMEMBERED)(self._fetch)

    def of_stored(self, key: str) -> str:
        """Of an image in storage.

        Raises:
            Refused: why there is none.
        """
        small = read_stored(self._storage, self._max_bytes, key, SIDE)
        if isinstance(small, str):
            raise Refused(small)
        return _as_data_uri(small)

    def of_input(self, url: str) -> str:
        """Of an input, by its URL, data URI or name in the store; fetched under the guards of a download.

        Raises:
            Refused: why there is none.
        """
        made = self._of_url(url) if not url.startswith("data:") else self._fetch(url)
        if not made.startswith("data:"):
            raise Refused(made)
        return made

    def _fetch(self, url: str) -> str:
        if is_object(url):
            key = input_key(self._storage, self._client, url.removeprefix(OBJECT))
            small = read_stored(self._storage, INPUT_MAX_BYTES, key, SIDE)
            return small if isinstance(small, str) else _as_data_uri(small)
        try:
            host = urlsplit(url).netloc
        except ValueError:
            return "its address is no URL"
        with self._lock:
            if self._failures[host] >= FAILURES:
                return "its host does not answer"
        try:
            with self._fetcher.fetch(url) as file:
                made = _as_data_uri(shrink(file, SIDE))
        except FetchAgain as error:
            with self._lock:
                self._failures[host] += error.type in ("unreachable", "too_slow", "fetch_error")
            return f"could not be fetched: {error.type}"
        except Unusable as error:
            return f"is not fetched: {error.type}"
        except (DarkroomError, OSError, ValueError):
            return UNREADABLE
        with self._lock:
            self._failures[host] = 0
        return made


def read_stored(storage: Storage, max_bytes: int, key: str, side: int) -> Image.Image | str:
    """A stored image made small, or in a word why there is none."""
    try:
        with storage.get(key, max_bytes=max_bytes) as file:
            return shrink(file, side)
    except NotFound:
        return NOT_THERE
    except (DarkroomError, OSError, ValueError):
        return UNREADABLE


def _as_data_uri(image: Image.Image) -> str:
    return f"data:{TYPE};base64,{b64encode(encode_small(image)).decode()}"
