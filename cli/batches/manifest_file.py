"""A manifest as a stream that can be read more than once, wherever it comes from."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import UserError


@contextmanager
def open_manifest(manifest: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """The manifest as a stream that can be read twice, and the folder to which its paths are relative."""
    if str(manifest) == "-":
        if sys.stdin is None:
            raise UserError("There is no standard input; give the manifest as a file.")
        source = _Source(sys.stdin.fileno(), closefd=False)
    else:
        source = _Source(manifest)
    with BufferedReader(source) as stream:
        if str(manifest) != "-" and manifest.is_file():
            yield stream, manifest.parent
        else:  # a pipe, also by name, as `<(…)` and /dev/stdin are; its folder is nobody's
            with keep_manifest(lambda copy: shutil.copyfileobj(stream, copy)) as copy:
                yield copy, Path()


class _Source(FileIO):
    """What a manifest is read from."""

    def readinto(self, buffer: Any, /) -> int:
        """Read the next bytes.

        Raises:
            UserError: it cannot be read.
        """
        try:
            return super().readinto(buffer) or 0
        except OSError as error:
            raise UserError(f"The manifest cannot be read: {error.strerror}.") from None


@contextmanager
def keep_manifest(write: Callable[[BinaryIO], object]) -> Iterator[BinaryIO]:
    """What `write` writes, as a file that can be read twice and is gone afterwards.

    Raises:
        UserError: there is no room for it.
    """
    try:
        copy = tempfile.TemporaryFile()  # noqa: SIM115  # closed below, whoever fails
    except OSError as error:
        raise UserError(f"There is no folder for temporary files: {error.strerror}; set TMPDIR to one.") from None
    with copy:
        try:
            write(copy)
            copy.seek(0)
        except OSError as error:
            raise UserError(
                f"The manifest cannot be kept in {tempfile.gettempdir()}: {error.strerror}; "
                "give it as a file, or set TMPDIR to a folder with room."
            ) from None
        yield copy
