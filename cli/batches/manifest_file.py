"""A manifest as a stream that can be read more than once, wherever it comes from."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from core.errors import UserError


@contextmanager
def open_manifest(manifest: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """The manifest as a stream that can be read twice, and the folder to which its paths are relative."""
    if str(manifest) == "-":
        with keep_manifest(lambda copy: shutil.copyfileobj(sys.stdin.buffer, copy)) as copy:
            yield copy, Path()
    elif manifest.is_file():
        with manifest.open("rb") as stream:
            yield stream, manifest.parent
    else:  # a pipe by name, as `<(…)` and /dev/stdin are; its folder is nobody's
        with manifest.open("rb") as pipe, keep_manifest(lambda copy: shutil.copyfileobj(pipe, copy)) as copy:
            yield copy, Path()


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
