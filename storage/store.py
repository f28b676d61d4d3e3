"""The store behind `STORAGE_URL`: a directory, S3, GCS or Azure, with one way in.

A put is atomic: a key shows the whole new object or what was there before, never a part (local files are
written aside and renamed; object stores publish on completion). Writing the same key again replaces it.

A put is durable: when it returns, the object outlives a power cut. Local files and every folder on the way to them are
synced (`obstore` does not do that); object stores acknowledge only what they have made durable.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from core.errors import NotFound, SettingsError, Unusable, UserError
from core.settings import store_options
from core.storage_url import can_sign
from storage.attributes import encode_attributes
from storage.local_folder import LocalFolder
from storage.local_paths import is_folder
from storage.profiles import find_profile
from storage.ranges import StoredObject, read_local_range, read_range
from storage.storage_keys import check_key
from storage.store_errors import explain, explain_refusal

QUARANTINE = "quarantine"
"""Prefix under which refused files are kept for people to look at."""
LISTED_AT_ONCE = 1_000
"""Objects that an object store names in one answer."""
EXTENSIONS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif"}
"""Not the machine's own table of types, which knows more on one machine than on another."""
RETRIES: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
"""What an object store is asked again within one put; the default holds a thread for three minutes. After that the
lane pauses."""
IN_ONE_PUT = 8 * 1024 * 1024
"""Bytes up to which an object goes in one request, out of memory; a larger one in parts."""
PART = 5 * 1024 * 1024
"""Bytes of a part: the least that S3 takes, so that each fits into the time of a request on a slow line too."""
PARTS_AT_ONCE = 1
"""Parts of one object under way: the images of a lane go side by side already, and share the line."""
UNESCAPED = re.compile(r"[A-Za-z0-9._~!$'()*,:;@/-]+")
"""Keys that a URL shows as they are: of others Azure's client signs the escaped form, and Azure refuses that link."""
TROUBLE = (OSError, ValueError, obstore.exceptions.BaseError)
"""What a store's client raises."""


class Storage:
    """One open store; safe for threads."""

    def __init__(self, url: str, *, make: bool = True) -> None:
        """Open the store; a folder is made where it is missing, unless `make` says that it must be there.

        Raises:
            SettingsError: the URL names no store that can be opened.
        """
        self.url = url
        parts = urlsplit(url)
        folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        try:
            if folder and not make and not is_folder(folder):
                raise SettingsError(f"STORAGE_URL: the folder {folder} is not there; is its disk mounted?")
            options: Any = {} if folder else store_options(url)
            self._store: ObjectStore = LocalStore(folder, mkdir=True) if folder else _open(url, options)
            self._folder = LocalFolder(folder, url) if folder else None
        except TROUBLE as error:
            raise SettingsError(f"STORAGE_URL cannot be opened: {explain(error, url)}") from None

    def put(
        self,
        key: str,
        file: IO[bytes],
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Publish a file under a key, streaming; it is durable afterwards.

        `metadata` goes with the object where the store can keep it: a folder has nowhere to.

        Raises:
            StorageUnavailable: the store takes nothing for now (full disk, credentials, network).
            FetchAgain: it did not take this object this time.
            Unusable: no object can have this key.
        """
        check_key(key)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if self._folder:
            self._folder.put(key, file)
            return
        try:
            obstore.put(
                self._store,
                key,
                file,
                attributes=encode_attributes(content_type, metadata or {}),
                use_multipart=size > IN_ONE_PUT,
                chunk_size=PART,
                max_concurrency=PARTS_AT_ONCE,
            )
        except TROUBLE as error:
            raise explain_refusal(error, self.url) from error

    def key_of(self, name: str) -> str:
        """The name as this store keeps it apart from others: unchanged, unless the store takes `Hat` and `hat` for one.

        Asked once, at the first image; a store that cannot be asked refuses the image itself.
        """
        return self._folder.spell(name) if self._folder else name

    @contextmanager
    def get(self, key: str, *, max_bytes: int) -> Iterator[BinaryIO]:
        """The object under a key, as a file that is gone afterwards; `key` may also be its whole URL.

        Raises:
            NotFound: there is none in this store.
            UserError: it has more than `max_bytes`, or is no file that may be read.
            StorageUnavailable, FetchAgain: the store gives nothing for now, or not this.
        """
        with tempfile.TemporaryFile() as file:
            with self.open_range(key) as found:
                if found.size > max_bytes:
                    raise UserError(f"{key} has {found.size} bytes; at most {max_bytes} are read.")
                file.writelines(found.pieces)
            file.seek(0)
            yield file

    @contextmanager
    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[StoredObject]:
        """Bytes `start` to `end` (exclusive; None: to its end) of the object under a key, piece by piece.

        A few MB are held at one time, whatever the object's size, and a reader may take as long as it likes. All
        pieces are of one object: where another takes its place meanwhile, reading ends with an error.

        Raises:
            NotFound: there is none in this store.
            UserError: it does not reach to `start`, or is no file that may be read.
            StorageUnavailable, FetchAgain: the store gives nothing for now, or not this; also from the pieces.
        """
        name = self._name(key)
        if self._folder:
            with self._folder.open(name) as file:
                yield read_local_range(file, key, start, end)
        else:
            yield read_range(self._store, self.url, name, start, end)

    def sign(self, key: str, seconds: float) -> str | None:
        """A URL under which anybody may read the object for so long; None where the store has no such thing.

        S3 and GCS sign for seven days at the most, and no link outlives the credentials that made it.

        Raises:
            StorageUnavailable, FetchAgain, Unusable: as for `put`: these credentials cannot sign, say.
        """
        check_key(key)
        if not can_sign(self.url) or self._is_signed_wrongly(key):
            return None
        store: Any = self._store
        try:
            return str(obstore.sign(store, "GET", key, timedelta(seconds=seconds)))
        except TROUBLE as error:
            raise explain_refusal(error, self.url) from error

    def _is_signed_wrongly(self, key: str) -> bool:
        return self.url.startswith("az://") and not UNESCAPED.fullmatch(f"{urlsplit(self.url).path}/{key}")

    def _name(self, key: str) -> str:
        name = key.removeprefix(f"{self.url}/")
        try:
            check_key(name)
        except Unusable:
            raise NotFound(f"There is no {key} in {self.url}.") from None
        return name

    def delete(self, key: str) -> None:
        """Remove what stands under a key, if anything does.

        Raises:
            StorageUnavailable, FetchAgain, Unusable: as for `put`.
        """
        check_key(key)
        try:
            if self._folder:
                self._folder.remove(key)
                return
            obstore.delete(self._store, key)
        except (FileNotFoundError, obstore.exceptions.NotFoundError):
            return
        except TROUBLE as error:
            raise explain_refusal(error, self.url) from error

    def list_older(self, prefix: str, seconds: float) -> Iterator[str]:
        """Keys under a prefix whose objects were written longer ago than that, as they are found.

        Raises:
            StorageUnavailable: as for `put`.
        """
        before = datetime.now(UTC) - timedelta(seconds=seconds)
        try:
            if self._folder:
                yield from self._folder.list_older(prefix, before.timestamp())
                return
            for page in obstore.list(self._store, prefix, chunk_size=LISTED_AT_ONCE):
                yield from (found["path"] for found in page if found["last_modified"] < before)
        except TROUBLE as error:
            raise explain_refusal(error, self.url) from error


def _open(url: str, options: Any) -> ObjectStore:
    if url.startswith("s3://"):
        return from_url(url, client_options=options, retry_config=RETRIES, credential_provider=find_profile())
    if url.startswith("memory://"):
        return MemoryStore()
    return from_url(url, client_options=options, retry_config=RETRIES)


def extension(content_type: str) -> str:
    """The file extension for an image's real type, with its dot."""
    return EXTENSIONS.get(content_type, ".bin")
