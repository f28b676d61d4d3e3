"""The store behind `STORAGE_URL`: a directory, S3, GCS or Azure, with one way in.

A put is atomic: a key shows the whole new object or what was there before, never a part (local files are
written aside and renamed; object stores publish on completion). Writing the same key again replaces it.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import obstore
from obstore.store import LocalStore, ObjectStore, from_url

from models.errors import FetchAgain, NotFound, SettingsError, UserError
from models.settings import store_options
from worker.store_errors import explain

QUARANTINE = "quarantine"
"""Prefix under which refused files are kept for people to look at."""
INCOMING = ".incoming"
"""Folder of a local store in which files are written before they get their names."""
ABANDONED_AFTER = 3600.0
"""Seconds; far longer than writing one file may take."""
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
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        try:
            options: Any = {} if self._folder else store_options()
            self._store: ObjectStore = (
                LocalStore(self._folder, mkdir=True) if self._folder else from_url(url, client_options=options)
            )
            if self._folder:
                _sweep(self._folder / INCOMING)
        except (OSError, ValueError, obstore.exceptions.BaseError) as error:
            raise SettingsError(f"STORAGE_URL cannot be opened: {explain(error)}") from None

    def put(self, key: str, file: IO[bytes], content_type: str | None = None) -> None:
        """Publish a file under a key, streaming.

        Raises:
            FetchAgain: the store did not take it this time (full disk, network, permissions).
        """
        file.seek(0)
        try:
            if self._folder:
                self._put_aside(key, file)
            else:  # a directory has nowhere to keep a type; object stores serve it to whoever downloads
                attributes = {"Content-Type": content_type} if content_type else None
                obstore.put(self._store, key, file, attributes=attributes)
        except (OSError, ValueError, obstore.exceptions.BaseError) as error:
            raise FetchAgain("storage_error", explain(error)) from error

    @contextmanager
    def get(self, key: str, *, max_bytes: int) -> Iterator[BinaryIO]:
        """The object under a key, as a file that is gone afterwards; `key` may also be its whole URL.

        Raises:
            NotFound: there is none in this store.
            UserError: it has more than `max_bytes`, or cannot be read.
        """
        name = key.removeprefix(f"{self.url}/")
        with tempfile.TemporaryFile() as file:
            try:
                found = obstore.get(self._store, name)
                if found.meta["size"] > max_bytes:
                    raise UserError(f"{key} has {found.meta['size']} bytes; at most {max_bytes} are read.")
                for part in found.stream():
                    file.write(part)
            except (FileNotFoundError, obstore.exceptions.NotFoundError):
                raise NotFound(f"There is no {key} in {self.url}.") from None
            except (OSError, ValueError, obstore.exceptions.BaseError) as error:
                raise UserError(f"{key} cannot be read: {explain(error)}") from error
            file.seek(0)
            yield file

    def delete(self, key: str) -> None:
        """Remove what stands under a key, if anything does.

        Raises:
            FetchAgain: the store did not do it this time.
        """
        try:
            obstore.delete(self._store, key)
        except (FileNotFoundError, obstore.exceptions.NotFoundError):
            return
        except (OSError, ValueError, obstore.exceptions.BaseError) as error:
            raise FetchAgain("storage_error", explain(error)) from error

    def _put_aside(self, key: str, file: IO[bytes]) -> None:
        """Write under `INCOMING`, then rename: what a killed writer leaves behind lies beside no picture."""
        part = f"{INCOMING}/{uuid4()}"
        try:
            obstore.put(self._store, part, file)
            obstore.rename(self._store, part, key)
        except BaseException:
            with suppress(OSError, obstore.exceptions.BaseError):
                obstore.delete(self._store, part)
            raise


def _sweep(incoming: Path) -> None:
    """Remove what writers that were killed have left; whoever still writes is younger."""
    for path in incoming.glob("*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                path.unlink()


def extension(content_type: str) -> str:
    """The file extension for a picture's real type, with its dot."""
    return EXTENSIONS.get(content_type, ".bin")
