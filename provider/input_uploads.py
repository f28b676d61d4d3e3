"""Inputs that lie in our store, put where the provider can fetch them; the same content is uploaded once.

What was uploaded is remembered in `uploads` by content and place, as local files are (`uploads.py`).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from sqlalchemy import Engine

from core.input_images import InputImage
from models.queries.uploads import KEEP_UPLOAD, USABLE_UPLOADS
from provider.cdn import CDN
from provider.settings import ProviderSettings
from provider.uploads import KEPT_FOR, needed_for


class Uploaded(NamedTuple):
    """Where the provider has a file, and for how many seconds at the least; None: it named no end."""

    url: str
    lasts: float | None


class InputUploads:
    """Uploads for one account. Safe for threads: of two that bring the same content the second waits for the first."""

    def __init__(self, engine: Engine, settings: ProviderSettings) -> None:
        """Read who we are at the provider.

        Raises:
            SettingsError: there is no key.
        """
        self._engine, self._settings = engine, settings
        self._cdn = CDN(settings.fal_rest_url, settings.fal_cdn_url, settings.required_key())
        self._under_way: dict[str, tuple[threading.Lock, int]] = {}
        self._lock = threading.Lock()

    def put(self, file: IO[bytes], found: InputImage, file_name: str) -> Uploaded:
        """Have the provider take a file, unless it has the content already.

        Raises:
            ProviderError: it does not.
        """
        with self._one_at_a_time(found.sha256):
            if known := self._find(found.sha256):
                return known
            # once: whoever calls comes again, and has others wait meanwhile
            url = self._cdn.upload(file, content_type=found.content_type, file_name=file_name, tries=1)
            row = {"sha256": found.sha256, "content_type": found.content_type, "bytes": found.bytes}
            place = {"cdn": self._settings.fal_cdn_url, "url": url, "kept": KEPT_FOR}
            with self._engine.begin() as connection:
                connection.exec_driver_sql(KEEP_UPLOAD, {**row, **place})
            return Uploaded(url, KEPT_FOR)

    def _find(self, sha256: str) -> Uploaded | None:
        values = ([sha256], self._settings.fal_cdn_url, needed_for(self._settings))
        with self._engine.connect() as connection:
            row = connection.exec_driver_sql(USABLE_UPLOADS, values).first()
        return Uploaded(row.url, row.lasts) if row else None

    @contextmanager
    def _one_at_a_time(self, sha256: str) -> Iterator[None]:
        with self._lock:
            lock, users = self._under_way.get(sha256, (threading.Lock(), 0))
            self._under_way[sha256] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, users = self._under_way[sha256]
                if users > 1:
                    self._under_way[sha256] = lock, users - 1
                else:
                    del self._under_way[sha256]
