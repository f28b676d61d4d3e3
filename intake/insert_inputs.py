"""Which inputs of new edits are looked at before these are submitted: rows of `inputs`, written chunk by chunk.

Of a batch that asks for no look at its inputs and names no object of the store nothing is written or asked.
"""

import hashlib
from heapq import heappop, heappush
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.image_inputs import OBJECT, host_of, is_object
from models.input_files import FILES, renew_input_files
from models.queries.inputs import INSERT_INPUTS, NEW_INPUTS

SAMPLE = 100
"""Inputs that are drawn as a sample: those with the smallest digests, which is as good as by lot."""


class _NewInput(NamedTuple):
    digest: bytes
    position: int
    number: int
    holds_from: int
    sampled: bool
    host: str | None


class NewInputs:
    """The inputs of the edits that are being written; `check` is the batch's `check_inputs`.

    `first` is the position of the first edit that has to wait (None: none has), `written` the number of new rows.
    """

    def __init__(self, check: str) -> None:
        self._check = check
        self._chunk: dict[bytes, _NewInput] = {}
        self._files: set[str] = set()
        self._sample: dict[bytes, _NewInput] = {}
        self._largest: list[tuple[int, bytes]] = []
        self.first: int | None = None
        self.written = 0

    def add(self, position: int, entries: list[str]) -> None:
        """The inputs of one more edit, the entries of its `image_urls`."""
        for number, entry in enumerate(entries):
            if is_object(entry):
                self._hold(position, number, entry)
                if entry.startswith(OBJECT + FILES):
                    self._files.add(entry.removeprefix(OBJECT))
            elif self._check == "all":
                self._hold(position, number, entry)
            elif self._check == "sample":
                self._draw(position, number, entry)

    def _hold(self, position: int, number: int, entry: str) -> None:
        digest = digest_input(entry)
        if digest not in self._chunk:
            self._chunk[digest] = _NewInput(digest, position, number, position, False, host_of(entry))
            self.first = position if self.first is None else min(self.first, position)

    def _draw(self, position: int, number: int, entry: str) -> None:
        digest = digest_input(entry)
        if digest in self._sample:
            return
        heappush(self._largest, (-int.from_bytes(digest), digest))
        self._sample[digest] = _NewInput(digest, position, number, position, True, host_of(entry))
        if len(self._sample) > SAMPLE:
            del self._sample[heappop(self._largest)[1]]

    def write(self, connection: Connection, batch_id: UUID) -> None:
        """What was added since the last time."""
        self._insert(connection, batch_id, list(self._chunk.values()))
        self._chunk = {}
        if self._files:
            renew_input_files(connection, batch_id, sorted(self._files))
            self._files = set()

    def write_sample(self, connection: Connection, batch_id: UUID, first: int) -> None:
        """The sample, once all is added: no edit from `first` on is submitted before it was looked at."""
        if self._sample:
            self._insert(connection, batch_id, [one._replace(holds_from=first) for one in self._sample.values()])
            self.first = first

    def _insert(self, connection: Connection, batch_id: UUID, found: list[_NewInput]) -> None:
        if found:
            values = {"batch": batch_id, **NEW_INPUTS.arrays(found)}
            self.written += connection.exec_driver_sql(INSERT_INPUTS, values).rowcount


def digest_input(entry: str) -> bytes:
    """By which an input is known, and drawn into a sample, whatever asks."""
    return hashlib.sha256(entry.encode()).digest()
