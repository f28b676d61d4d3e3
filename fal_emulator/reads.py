"""What the ledger holds for an auditor: which input each request was accepted for, and what was read of it.

A hash of the whole input says for what somebody is charged, without the input itself. The counts of what was served
whole, and of what a fault spoilt, say whether a client could have had its images.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from .store import Store

RESULT = "result"
"""The item that stands for a request's result; every other item is the path of a produced file."""
_COUNT = """
INSERT INTO reads VALUES (?, ?, ?, ?, ?) ON CONFLICT (request_id, item) DO UPDATE
   SET intact = intact + excluded.intact, spoilt = spoilt + excluded.spoilt,
       first_at = coalesce(first_at, excluded.first_at)
"""


def canonical_sha256(body: bytes) -> str:
    """SHA-256 of a JSON text whatever its spacing and the order of its keys; of the bytes where it is no JSON."""
    with contextlib.suppress(ValueError, RecursionError):
        body = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(body).hexdigest()


@dataclass(frozen=True, slots=True)
class Read:
    """How often one item was served whole and spoilt, and when it was first served whole."""

    intact: int = 0
    spoilt: int = 0
    first_at: float | None = None


class Reads:
    """What was served, and what each request was for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def count(self, request_id: str, item: str, *, intact: bool) -> None:
        """Note that a result or a file was served."""
        first_at = time.time() if intact else None
        self._store.write(_COUNT, (request_id, item, int(intact), int(not intact), first_at))

    def inputs(self, seqs: Sequence[int]) -> dict[int, str]:
        """Hashes of inputs by number of the request; one of an older state folder has none."""
        sql = "SELECT seq, sha256 FROM input_hashes WHERE seq IN (SELECT value FROM json_each(?))"
        return dict(self._store.rows(sql, (json.dumps(list(seqs)),)))

    def of(self, request_ids: Sequence[str]) -> dict[tuple[str, str], Read]:
        """Counts by request and item."""
        sql = "SELECT * FROM reads WHERE request_id IN (SELECT value FROM json_each(?))"
        rows = self._store.rows(sql, (json.dumps(list(request_ids)),))
        return {(request_id, item): Read(*counts) for request_id, item, *counts in rows}
