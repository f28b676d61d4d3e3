"""Paths in a folder that others may write to: used without following links, and told apart where case is folded."""

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

MARK = 8
"""Characters of the hash that tells two names apart which a file system takes for one."""


def is_folder(path: Path) -> bool:
    """Whether a folder is there; unlike `Path.is_dir`, which from Python 3.14 on takes any trouble for an absence.

    Raises:
        OSError: that cannot be found out.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise


@contextmanager
def _folder_of(folder: Path, path: Path, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The open folder of `path`, relative to `folder`, and the name in it; missing folders are made where `make` is.

    Each part is opened in the folder before it, so that nobody can put a link in its place meanwhile.
    """
    *parents, name = path.parts
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parents:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=handle)
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = below
        yield handle, name
    finally:
        os.close(handle)


def open_beneath(folder: Path, path: Path) -> BinaryIO:
    """Open the regular file at `path`, relative to `folder`, for reading; no part of the path may be a link.

    Raises:
        OSError: there is none, or a part of the path is a link (ELOOP, or ENOTDIR).
        IsADirectoryError: it is no regular file.
    """
    with _folder_of(folder, path) as (handle, name):
        # without O_NONBLOCK a pipe would wait for a writer
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise IsADirectoryError(f"{name} is no file")
    return os.fdopen(file, "rb")


def move_beneath(folder: Path, path: Path, file: Path) -> None:
    """Give a file of the same file system its place at `path`, relative to `folder`; missing folders are made.

    Raises:
        OSError: it cannot be, or a folder on the way is a link.
    """
    with _folder_of(folder, path, make=True) as (handle, name):
        os.replace(file, name, dst_dir_fd=handle)


def remove_beneath(folder: Path, path: Path) -> None:
    """Remove what stands at `path`, relative to `folder`; of a link the link.

    Raises:
        OSError: nothing does, or a folder on the way is a link.
    """
    with _folder_of(folder, path) as (handle, name):
        os.unlink(name, dir_fd=handle)


def list_beneath(folder: Path, prefix: str) -> Iterator[tuple[str, float]]:
    """Every regular file beneath `prefix`, relative to `folder`, and when it was written; nothing behind a link.

    Raises:
        OSError: the folder cannot be read.
    """
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(FileNotFoundError):  # there is nothing of that prefix
            for place, _, names, handle in os.fwalk(prefix or ".", dir_fd=top):
                for name in names:
                    with suppress(FileNotFoundError):
                        found = os.stat(name, dir_fd=handle, follow_symlinks=False)
                        if stat.S_ISREG(found.st_mode):
                            yield f"{place}/{name}".removeprefix("./"), found.st_mtime
    finally:
        os.close(top)


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
