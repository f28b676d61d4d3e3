"""The store behind `STORAGE_URL`: a directory, S3, GCS or Azure, with one way in.

A put is atomic: a key shows the whole new object or what was there before, never a part (local files are
written aside and renamed; object stores publish on completion). Writing the same key again replaces it.
"""

from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, ObjectStore, from_url

from models.errors import FetchAgain, SettingsError

QUARANTINE = "quarantine"
"""Prefix under which refused files are kept for people to look at."""
EXTENSIONS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif"}
"""Not the machine's own table of types, which knows more on one machine than on another."""


class Storage:
    """One open store; safe for threads."""

    def __init__(self, url: str) -> None:
        """Open the store.

        Raises:
            SettingsError: the URL names no store that can be opened.
        """
        self.url = url
        parts = urlsplit(url)
        self._local = parts.scheme == "file"
        try:
            self._store: ObjectStore = (
                LocalStore(Path(unquote(parts.path)), mkdir=True) if self._local else from_url(url)
            )
        except (OSError, ValueError, obstore.exceptions.BaseError) as error:
            raise SettingsError(f"STORAGE_URL cannot be opened: {error}") from None

    def put(self, key: str, file: IO[bytes], content_type: str | None = None) -> None:
        """Publish a file under a key, streaming.

        Raises:
            FetchAgain: the store did not take it this time (full disk, network, permissions).
        """
        file.seek(0)
        # a directory has nowhere to keep a type; object stores serve it to whoever downloads
        attributes = {"Content-Type": content_type} if content_type and not self._local else None
        try:
            obstore.put(self._store, key, file, attributes=attributes)
        except (OSError, ValueError, obstore.exceptions.BaseError) as error:
            raise FetchAgain("storage_error", str(error)[:500]) from error


def extension(content_type: str) -> str:
    """The file extension for a picture's real type, with its dot."""
    return EXTENSIONS.get(content_type, ".bin")
