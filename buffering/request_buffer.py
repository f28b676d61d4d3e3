"""Where bodies and long answers lie while they are gathered: in memory, above a size in a temporary file."""

from contextlib import AbstractContextManager
from tempfile import SpooledTemporaryFile
from typing import Self


class BufferFull(Exception):
    """Too many bytes are in hand already."""


class MemoryBudget:
    """The bytes of all buffers of one server together. Only the event loop counts here, one write at a time."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0


class RequestBuffer(AbstractContextManager["RequestBuffer"]):
    """One body or answer; leaves nothing behind."""

    def __init__(self, memory: MemoryBudget, in_memory: int) -> None:
        self._memory, self._in_memory = memory, in_memory
        self.file = SpooledTemporaryFile(max_size=in_memory)  # noqa: SIM115 - this is the context manager
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.held -= self.size
        self.file.close()

    @property
    def on_disk(self) -> bool:
        """Whether it is too large for memory."""
        return self.size > self._in_memory

    def write(self, data: bytes) -> None:
        """Add to it.

        Raises:
            BufferFull: all buffers together have become too long.
            OSError: the disk has.
        """
        self._memory.held += len(data)
        self.size += len(data)
        if self._memory.held > self._memory.most:
            raise BufferFull
        self.file.write(data)

    def read(self) -> bytes:
        """All of it."""
        self.file.seek(0)
        return self.file.read()

    def path(self) -> str:
        """Where the nameless file may be opened until it is closed here."""
        self.file.flush()
        self.file.seek(0)
        return f"/dev/fd/{self.file.fileno()}"
