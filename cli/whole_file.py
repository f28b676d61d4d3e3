"""A file that a person names for what a command writes."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from core.errors import UserError


@contextmanager
def write_whole(path: Path, mode: str, **options: Any) -> Iterator[IO[Any]]:
    """The file to write into; it has its name, and takes the place of one before it, only once it is whole.

    A pipe or a device is written into as it is: root could put a file in the place of `/dev/full`. A link stays one.

    Raises:
        UserError: it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            with path.open(mode, **options) as file:
                yield file
            return
        whole = path.resolve()
        part = whole.with_name(f".{whole.name}.part")
        try:
            with part.open(mode, **options) as file:
                yield file
            part.replace(whole)
        finally:
            with suppress(OSError):
                part.unlink()
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None
