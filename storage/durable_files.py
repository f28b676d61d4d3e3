"""Files and folders that outlive a power cut: what is synced stands on the disk, name and all."""

import errno
import os
import shutil
from pathlib import Path
from typing import IO

PIECE = 1024 * 1024
"""Bytes copied at one time."""
NO_SUCH_CALL = frozenset({errno.EINVAL, errno.EBADF, errno.ENOTSUP})
"""How a file system says that its folders cannot be synced; it writes them through by itself."""


def write_durably(path: Path, file: IO[bytes]) -> None:
    """A new file with the rest of `file`, durable except for its name.

    Raises:
        OSError: it could not be written, or not be made durable.
    """
    with path.open("xb") as out:
        shutil.copyfileobj(file, out, PIECE)
        out.flush()
        os.fsync(out.fileno())


def make_folder(folder: Path) -> None:
    """A folder and those above it, each durable in the one above."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def sync_folders(folder: Path, *, up_to: Path) -> None:
    """Make the names in a folder durable, and its own name, and so on.

    Also where nothing seems to be new: another thread may have made the folder and not yet synced it.
    """
    _sync_folder(folder)
    while folder != up_to:
        folder = folder.parent
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SUCH_CALL:
            raise
    finally:
        os.close(handle)
