"""Files that clients hand in as inputs: judged by their bytes, kept once per content, each client's apart.

`models/input_files.py` says in which order row and object come and go.
"""

from typing import IO, NamedTuple

from sqlalchemy import Engine

from core.errors import Conflict, NotFound
from core.input_images import inspect_input
from models.image_inputs import OBJECT
from models.input_files import (
    FILES,
    InputFile,
    begin_input_file,
    delete_input_file,
    end_input_file,
    find_input_file,
    lock_input_file,
    withdraw_input_file,
)
from storage.input_objects import input_key
from storage.store import Storage, extension

AGAIN = 3
"""Times a file is written whose row somebody removes at that moment."""


class KeptFile(NamedTuple):
    """A file that was handed in; `existing` where its content was there."""

    file: InputFile
    existing: bool
    warnings: tuple[str, ...]


def keep_file(engine: Engine, storage: Storage, client: str, content: IO[bytes], kept_for: float | None) -> KeptFile:
    """Store a client's file, unless it is there, to be kept for so many seconds from now on (None: for ever).

    Raises:
        UnfitInput: it is no input that the model takes.
        DownloadError: the store does not take it.
        Conflict: it is being deleted, again and again.
    """
    found = inspect_input(content, name="The file")
    name = f"{FILES}{found.sha256}{extension(found.content_type)}"
    measured = (found.content_type, found.bytes, found.width, found.height)
    wanted = InputFile(client, found.sha256, name, input_key(storage, client, name), *measured)
    warnings = tuple(f"the file {warning}" for warning in found.warnings)
    for _ in range(AGAIN):
        with engine.begin() as connection:
            begun = begin_input_file(connection, wanted, kept_for=kept_for)
        if begun.stored_at is not None:
            return KeptFile(begun, True, warnings)
        storage.put(begun.storage_key, content, found.content_type, {"sha256": found.sha256})
        with engine.begin() as connection:
            ended = end_input_file(connection, wanted)
        if ended is not None:
            return KeptFile(ended, False, warnings)
    raise Conflict("The file is being deleted; try again later.")


def show_file(engine: Engine, client: str, sha256: str) -> InputFile:
    """A client's file.

    Raises:
        NotFound: the client has no such file.
    """
    with engine.begin() as connection:
        found = find_input_file(connection, client, sha256)
    if found is None:
        raise NotFound(f"There is no file {sha256}.")
    return found


def delete_file(engine: Engine, storage: Storage, client: str, sha256: str) -> InputFile:
    """Remove a client's file; answers what it was.

    Raises:
        NotFound: the client has no such file.
        Conflict: a batch that is not finished names it.
        DownloadError: the store does not delete it; then it is there no more for whoever asks, and goes in its time.
    """
    with engine.begin() as connection:
        locked = lock_input_file(connection, client, sha256)
        if locked is None or locked[0].stored_at is None:
            raise NotFound(f"There is no file {sha256}.")
        file, used = locked
        if used:
            raise Conflict("A batch that is not finished names the file; it can be deleted afterwards.")
        withdraw_input_file(connection, file)
    with engine.begin() as connection:
        again = lock_input_file(connection, client, sha256)
        if again is not None and again[0].stored_at is None:
            storage.delete(file.storage_key)
            delete_input_file(connection, file)
    return file


def reference_of(file: InputFile) -> str:
    """What stands for a file in `image_urls`."""
    return OBJECT + file.name
