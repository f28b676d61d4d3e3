"""Paths in a folder that others may write to: read without following links, and told apart where case is folded."""

import hashlib
import os
import stat
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

MARK = 8
"""Characters of the hash that tells two names apart which a file system takes for one."""


def open_beneath(folder: Path, path: Path) -> BinaryIO:
    """Open the regular file at `path`, relative to `folder`, for reading; no part of the path may be a link.

    Each part is opened in the folder before it, so that nobody can put a link in its place meanwhile.

    Raises:
        OSError: there is none, or a part of the path is a link (ELOOP, or ENOTDIR).
        IsADirectoryError: it is no regular file.
    """
    *parents, name = path.parts
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parents:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = below
        # without O_NONBLOCK a pipe would wait for a writer
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
    finally:
        os.close(handle)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise IsADirectoryError(f"{name} is no file")
    return os.fdopen(file, "rb")


def folds_case(folder: Path) -> bool:
    """Whether a folder takes `Hat` and `hat` for one name, as on macOS and Windows; leaves nothing behind.

    Raises:
        OSError: nothing can be written there.
    """
    name = f"Case-{uuid4()}"
    probe = folder / name
    probe.touch(exist_ok=False)
    try:
        return (folder / name.lower()).exists()
    finally:
        with suppress(OSError):
            probe.unlink()


def spell_distinctly(name: str) -> str:
    """A key's name in which parts that differ only in case, or in how an accent is written, differ otherwise too.

    Lower-case parts stay as they are; every other one carries its own hash.
    """
    return "/".join(map(_spell_distinctly, name.split("/")))


def _spell_distinctly(part: str) -> str:
    if unicodedata.normalize("NFC", part).casefold() == part:
        return part
    return f"{part}~{hashlib.sha256(part.encode()).hexdigest()[:MARK]}"
