"""The store behind `STORAGE_URL`: a directory, S3, GCS or Azure, with one way in.

A put is atomic: a key shows the whole new object or what was there before, never a part (local files are
written aside and renamed; object stores publish on completion). Writing the same key again replaces it.

A put is durable: when it returns, the object outlives a power cut. Local files and every folder on the way to them are
synced (`obstore` does not do that); object stores acknowledge only what they have made durable.
"""

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import obstore
from obstore.store import LocalStore, ObjectStore, from_url

from core.errors import (
    DownloadError,
    FetchAgain,
    NotFound,
    SettingsError,
    StorageUnavailable,
    Unusable,
    UserError,
)
from core.resource_errors import storage_trouble
from core.settings import store_options
from storage.durable_files import PIECE, make_folder, sync_folders, write_durably
from storage.local_paths import folds_case, open_beneath, spell_distinctly
from storage.store_errors import explain

QUARANTINE = "quarantine"
"""Prefix under which refused files are kept for people to look at."""
INCOMING = ".incoming"
"""Folder of a local store in which files are written before they get their names."""
ABANDONED_AFTER = 3600.0
"""Seconds; far longer than writing one file may take."""
LISTED_AT_ONCE = 1_000
"""Objects that an object store names in one answer."""
EXTENSIONS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif"}
"""Not the machine's own table of types, which knows more on one machine than on another."""
RETRIES: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
"""What an object store is asked again within one put; the default holds a thread for three minutes. After that the
lane pauses."""
ABOUT_ONE_OBJECT = re.compile(r"status code: 4(?!08|29)\d\d")
"""In the words of `obstore`: the store answered, and did not like this request."""

NO_TOKEN = "Error performing token request"  # noqa: S105  # in the same words: the store was not even asked


class Storage:
    """One open store; safe for threads."""

    def __init__(self, url: str) -> None:
        """Open the store.

        Raises:
            SettingsError: the URL names no store that can be opened.
        """
        self.url = url
        self._folds_case: bool | None = None
        parts = urlsplit(url)
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        try:
            options: Any = {} if self._folder else store_options(url)
            self._store: ObjectStore = (
                LocalStore(self._folder, mkdir=True)
                if self._folder
                else from_url(url, client_options=options, retry_config=RETRIES)
            )
            if self._folder:
                _sweep(self._folder / INCOMING)
        except (OSError, ValueError, obstore.exceptions.BaseError) as error:
            raise SettingsError(f"STORAGE_URL cannot be opened: {explain(error, url)}") from None

    def put(self, key: str, file: IO[bytes], content_type: str | None = None) -> None:
        """Publish a file under a key, streaming; it is durable afterwards.

        Raises:
            StorageUnavailable: the store takes nothing for now (full disk, credentials, network).
            FetchAgain: it did not take this object this time.
            Unusable: no object can have this key.
        """
        file.seek(0)
        if self._folder:
            self._write_part(self._folder, key, file)
            return
        # a directory has nowhere to keep a type; object stores serve it to whoever downloads
        attributes = {"Content-Type": content_type} if content_type else None
        try:
            obstore.put(self._store, key, file, attributes=attributes)
        except (OSError, ValueError, obstore.exceptions.BaseError) as error:
            raise _explain_refusal(error, self.url) from error

    def key_of(self, name: str) -> str:
        """The name as this store keeps it apart from others: unchanged, unless the store takes `Hat` and `hat` for one.

        Asked once, at the first image; a store that cannot be asked refuses the image itself.
        """
        if self._folder and self._folds_case is None:
            with suppress(OSError):
                make_folder(self._folder / INCOMING)
                self._folds_case = folds_case(self._folder / INCOMING)
        return spell_distinctly(name) if self._folds_case else name

    @contextmanager
    def get(self, key: str, *, max_bytes: int) -> Iterator[BinaryIO]:
        """The object under a key, as a file that is gone afterwards; `key` may also be its whole URL.

        Raises:
            NotFound: there is none in this store.
            UserError: it has more than `max_bytes`, or cannot be read.
        """
        with tempfile.TemporaryFile() as file:
            self._copy(key, file, max_bytes)
            file.seek(0)
            yield file

    def _copy(self, key: str, file: IO[bytes], max_bytes: int) -> None:
        name = key.removeprefix(f"{self.url}/")
        try:
            if self._folder:
                # no link is followed: whoever may write in the store could read with it whatever we may read
                with open_beneath(self._folder, _relative(name)) as content:
                    _bound(key, os.fstat(content.fileno()).st_size, max_bytes)
                    shutil.copyfileobj(content, file, PIECE)
                return
            found = obstore.get(self._store, name)
            _bound(key, found.meta["size"], max_bytes)
            for part in found.stream():
                file.write(part)
        except (FileNotFoundError, Unusable, obstore.exceptions.NotFoundError):
            raise NotFound(f"There is no {key} in {self.url}.") from None
        except (OSError, ValueError, obstore.exceptions.BaseError) as error:
            raise UserError(f"{key} cannot be read: {_explain_link(error) or explain(error, self.url)}") from error

    def delete(self, key: str) -> None:
        """Remove what stands under a key, if anything does.

        Raises:
            StorageUnavailable, FetchAgain, Unusable: as for `put`.
        """
        try:
            obstore.delete(self._store, key)
        except (FileNotFoundError, obstore.exceptions.NotFoundError):
            return
        except (OSError, ValueError, obstore.exceptions.BaseError) as error:
            raise _explain_refusal(error, self.url) from error

    def list_older(self, prefix: str, seconds: float) -> Iterator[str]:
        """Keys under a prefix whose objects were written longer ago than that, as they are found.

        Raises:
            StorageUnavailable, FetchAgain, Unusable: as for `put`.
        """
        before = datetime.now(UTC) - timedelta(seconds=seconds)
        if self._folder and not (self._folder / prefix).is_dir():
            return
        try:
            for page in obstore.list(self._store, prefix, chunk_size=LISTED_AT_ONCE):
                yield from (found["path"] for found in page if found["last_modified"] < before)
        except (OSError, ValueError, obstore.exceptions.BaseError) as error:
            raise _explain_refusal(error, self.url) from error

    def _write_part(self, folder: Path, key: str, file: IO[bytes]) -> None:
        """Write under `INCOMING`, then rename: what a killed writer leaves behind lies beside no image."""
        target = folder / _relative(key)
        part = folder / INCOMING / str(uuid4())
        try:
            try:  # this part is the same for every image
                make_folder(part.parent)
                write_durably(part, file)
            except OSError as error:
                raise storage_trouble(error, self.url) or _storage_error(error, self.url) from error
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                part.replace(target)
                sync_folders(target.parent, up_to=folder)
            except OSError as error:
                raise self._judge_folder(error, folder) from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _judge_folder(self, error: OSError, folder: Path) -> DownloadError:
        """What an error on the way to one key means: a folder of one batch may be in the way of this batch only."""
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ):
            return Unusable("storage_key_refused", f"{self.url} can hold no such name: {error.strerror}")
        if error.errno in (errno.EACCES, errno.EPERM) and os.access(folder, os.W_OK | os.X_OK):
            return _storage_error(error, self.url)
        return storage_trouble(error, self.url) or _storage_error(error, self.url)


def _bound(key: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise UserError(f"{key} has {size} bytes; at most {max_bytes} are read.")


def _explain_link(error: Exception) -> str | None:
    if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "it is behind a link, and no link is followed out of the store"
    return None


def _relative(key: str) -> Path:
    """The path of a key beneath the store.

    Raises:
        Unusable: it would lead elsewhere, or no file can have that name.
    """
    for name in key.split("/"):
        if name in ("", ".", "..") or any(ord(character) < 32 or character == "\x7f" for character in name):
            raise Unusable("storage_key_refused", f"{key!r} cannot be a key in storage."[:500])
    return Path(key)


def _explain_refusal(error: Exception, url: str) -> DownloadError:
    """What an object store's refusal means: about all objects, or about this one."""
    text = explain(error, url)
    if isinstance(error, obstore.exceptions.InvalidPathError):
        return Unusable("storage_key_refused", text)
    if isinstance(error, (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError)):
        return StorageUnavailable("credentials_refused", text)
    if isinstance(error, (obstore.exceptions.NotFoundError, FileNotFoundError)):
        return StorageUnavailable("bucket_missing", text)
    if isinstance(error, obstore.exceptions.GenericError) and _is_about_all(str(error)):
        return StorageUnavailable("credentials_refused" if "credential" in text.lower() else "unreachable", text)
    return (storage_trouble(error, "STORAGE_URL") if isinstance(error, OSError) else None) or _storage_error(error, url)


def _is_about_all(said: str) -> bool:
    return NO_TOKEN in said or not ABOUT_ONE_OBJECT.search(said)


def _storage_error(error: Exception, url: str) -> FetchAgain:
    return FetchAgain("storage_error", explain(error, url))


def _sweep(incoming: Path) -> None:
    """Remove what writers that were killed have left; whoever still writes is younger."""
    for path in incoming.glob("*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                path.unlink()


def extension(content_type: str) -> str:
    """The file extension for an image's real type, with its dot."""
    return EXTENSIONS.get(content_type, ".bin")
