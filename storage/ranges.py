"""A part of a stored object, read piece by piece."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import obstore
from obstore.store import ObjectStore

from core.errors import FetchAgain, UserError
from storage.attributes import decode_attributes
from storage.store_errors import explain_read

BEYOND = r"status code: 416|InvalidRange|Invalid range"
"""How a store says that an object ends before the bytes that were asked for."""
WINDOW = 4 * 1024 * 1024
"""Bytes of an object asked for at one time. Each answer is read at once: a store ends one that is not taken for half a
minute, and a caller may take far longer over an image."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object, of which some bytes are read."""

    size: int
    """Bytes of the whole object."""
    start: int
    end: int
    """The bytes that `pieces` give, `end` excluded."""
    pieces: Iterator[bytes]
    """Each at most `WINDOW` bytes."""
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    """As it was put, where the store keeps it."""


def read_local_range(file: BinaryIO, key: str, start: int, end: int | None) -> StoredObject:
    """Of an open file.

    Raises:
        UserError: it does not reach to `start`.
    """
    size = os.fstat(file.fileno()).st_size
    end = _clip(key, size, start, end)
    file.seek(start)
    return StoredObject(size, start, end, _read_file(file, key, end - start))


def _read_file(file: BinaryIO, key: str, left: int) -> Iterator[bytes]:
    while left:
        piece = file.read(min(WINDOW, left))
        if not piece:
            raise FetchAgain("storage_error", f"{key} became shorter while it was read.")
        left -= len(piece)
        yield piece


def read_range(store: ObjectStore, url: str, key: str, start: int, end: int | None) -> StoredObject:
    """Of an object in an object store.

    Raises:
        NotFound, UserError, StorageUnavailable, FetchAgain: as `Storage.open_range`.
    """
    first = _ask(store, url, key, start, _window_end(start, end), None)
    size = int(first.meta["size"])
    end = _clip(key, size, start, end)
    content_type, metadata = decode_attributes(first.attributes)
    pieces = _read_windows(store, url, key, first, end)
    return StoredObject(size, start, end, pieces, content_type, metadata)


def _read_windows(store: ObjectStore, url: str, key: str, first: Any, end: int) -> Iterator[bytes]:
    answer, etag = first, first.meta["e_tag"]
    while True:
        try:
            yield bytes(answer.bytes())
        except (OSError, ValueError, obstore.exceptions.BaseError) as error:
            raise explain_read(error, key, url) from error
        start = answer.range[1]
        if start >= end:
            return
        answer = _ask(store, url, key, start, _window_end(start, end), etag)


def _ask(store: ObjectStore, url: str, key: str, start: int, end: int, etag: str | None) -> Any:
    """One window; with `etag` only of that very object."""
    options: Any = {"range": (start, end)} | ({"if_match": etag} if etag else {})
    try:
        return obstore.get(store, key, options=options)
    except obstore.exceptions.PreconditionError as error:
        raise FetchAgain("storage_error", f"{key} was replaced while it was read.") from error
    except (OSError, ValueError, obstore.exceptions.BaseError) as error:
        if re.search(BEYOND, str(error)):
            raise UserError(f"{key} does not reach to byte {start}.") from error
        raise explain_read(error, key, url) from error


def _window_end(start: int, end: int | None) -> int:
    return start + WINDOW if end is None else min(end, start + WINDOW)


def _clip(key: str, size: int, start: int, end: int | None) -> int:
    if not 0 <= start < size:
        raise UserError(f"{key} does not reach to byte {start}.")
    return size if end is None else max(start, min(end, size))
