"""A folder as a store: files are written aside, synced, and renamed; no link in it is followed."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO
from uuid import uuid4

from core.errors import DarkroomError, DownloadError, NotFound, StorageUnavailable, Unusable, UserError
from core.resource_errors import storage_trouble
from storage.durable_files import make_folder, sync_folders, write_durably
from storage.local_paths import (
    folds_case,
    is_folder,
    list_beneath,
    move_beneath,
    open_beneath,
    remove_beneath,
    spell_distinctly,
)
from storage.store_errors import storage_error

INCOMING = ".incoming"
"""Folder of the store in which files are written before they get their names."""
ABANDONED_AFTER = 3600.0
"""Seconds; far longer than writing one file may take."""


class LocalFolder:
    """The files beneath one folder; safe for threads."""

    def __init__(self, path: Path, url: str) -> None:
        self.path, self._url = path, url
        self._folds_case: bool | None = None
        self._sweep()

    def put(self, key: str, file: IO[bytes]) -> None:
        """Write under `INCOMING`, then rename: what a killed writer leaves behind lies beside no image.

        Raises:
            DownloadError: as `Storage.put`.
        """
        part = self.path / INCOMING / str(uuid4())
        try:
            try:  # this part is the same for every image
                make_folder(part.parent)
                write_durably(part, file)
            except OSError as error:
                raise storage_trouble(error, self._url) or storage_error(error, self._url) from error
            try:
                # no link is followed: what is stored must lie where it is read from
                move_beneath(self.path, Path(key), part)
                sync_folders((self.path / key).parent, up_to=self.path)
            except OSError as error:
                raise self._judge_write(error) from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def open(self, key: str) -> BinaryIO:
        """The file under a key. No link is followed: whoever may write in the store could read what we may read.

        Raises:
            NotFound, UserError, DownloadError: as `Storage.get`.
        """
        try:
            return open_beneath(self.path, Path(key))
        except OSError as error:
            raise self._judge_read(error, key) from error

    def remove(self, key: str) -> None:
        """Remove the file under a key.

        Raises:
            OSError: there is none, or it is behind a link.
        """
        remove_beneath(self.path, Path(key))

    def list_older(self, prefix: str, before: float) -> Iterator[str]:
        """Keys under a prefix of files that were written before that, in seconds since 1970; none behind a link.

        Raises:
            OSError: they cannot be listed.
        """
        return (key for key, written_at in list_beneath(self.path, prefix) if written_at < before)

    def _sweep(self) -> None:
        """Remove what writers that were killed have left; whoever still writes is younger."""
        with suppress(OSError):
            for key in self.list_older(INCOMING, time.time() - ABANDONED_AFTER):
                with suppress(OSError):
                    self.remove(key)

    def spell(self, name: str) -> str:
        """As `Storage.key_of`."""
        if self._folds_case is None:
            with suppress(OSError):
                make_folder(self.path / INCOMING)
                self._folds_case = folds_case(self.path / INCOMING)
        return spell_distinctly(name) if self._folds_case else name

    def _judge_write(self, error: OSError) -> DownloadError:
        """What an error on the way to one key means: a folder of one batch may be in the way of this batch only."""
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ):
            return Unusable("storage_key_refused", f"{self._url} can hold no such name: {error.strerror}")
        if error.errno in (errno.EACCES, errno.EPERM) and os.access(self.path, os.W_OK | os.X_OK):
            return storage_error(error, self._url)
        return storage_trouble(error, self._url) or storage_error(error, self._url)

    def _judge_read(self, error: OSError, key: str) -> DarkroomError:
        linked = error.errno in (errno.ELOOP, errno.ENOTDIR) and self._is_linked(key)
        try:
            if not is_folder(self.path):
                return StorageUnavailable("bucket_missing", f"The folder of {self._url} is not there.")
        except OSError as trouble:
            return storage_trouble(trouble, self._url) or storage_error(trouble, self._url)
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and not linked:
            return NotFound(f"There is no {key} in {self._url}.")
        if linked:
            return UserError(f"{key} cannot be read: it is behind a link, and no link is followed out of the store")
        if error.errno in (errno.EACCES, errno.EPERM):  # of one file others know nothing
            return UserError(f"{key} cannot be read: {error.strerror}")
        return storage_trouble(error, self._url) or UserError(f"{key} cannot be read: {error.strerror or error}")

    def _is_linked(self, key: str) -> bool:
        path = Path(key)
        return any((self.path / part).is_symlink() for part in (path, *path.parents[:-1]))
