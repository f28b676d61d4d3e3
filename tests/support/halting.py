"""A put that stops in the middle, for as long as a test needs it to; light, for processes that are started to die."""

import io
import threading

from core.errors import DownloadError
from storage.store import IN_ONE_PUT, Storage

LARGE = IN_ONE_PUT + 4_000_000
"""Bytes; more than go in one request."""


class Halting(io.BytesIO):
    """A file that stops in the middle until it is told to go on, or to break."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.halted, self.should_continue, self.breaks = threading.Event(), threading.Event(), False

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > LARGE // 2 and not self.halted.is_set():
            self.halted.set()
            self.should_continue.wait(60)
            if self.breaks:
                raise OSError("the disk of the temporary file is gone")
        return super().read(size)


def putting(storage: Storage, key: str, file: io.BytesIO) -> tuple[threading.Thread, list[Exception]]:
    """A put under way in another thread, and what it raised."""
    errors: list[Exception] = []

    def put() -> None:
        try:
            storage.put(key, file)
        except DownloadError as error:
            errors.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    return thread, errors
