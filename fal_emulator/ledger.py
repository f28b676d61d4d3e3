"""All SQL about requests: what was accepted, how it ended, what was charged and delivered.

A charge is the column `billed_units` of the request itself, written by the one guarded UPDATE that ends it. So
a request is charged once or never, whatever is restarted, cancelled or delivered twice (provider-protocol 6).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from typing import Any

from .job import COLUMNS, Job, Verdict
from .reads import canonical_sha256
from .store import Store

LARGEST = 2**63  # beyond it SQLite has no integers
_ALL = ", ".join(COLUMNS)
_NEW = ", ".join(COLUMNS[1:])
_MARKS = ", ".join("?" * len(COLUMNS[1:]))
_SELECT = f"SELECT {_ALL} FROM requests "  # noqa: S608 - the names are the fields of Job
_INSERT = f"INSERT INTO requests ({_NEW}) VALUES ({_MARKS})"  # noqa: S608 - likewise
_values = attrgetter(*COLUMNS[1:])
_FINISH = """
UPDATE requests SET ended_at = ?, started_at = ?, status = ?, error = ?, error_type = ?, timeout_type = ?,
       needs_retry = ?, inference_time = ?, images = ?, billed_units = ?, result_bytes = ?, seed = ?, attempts = ?,
       gateway_request_id = ?, webhook_state = ?, injected = ?
 WHERE seq = ? AND ended_at IS NULL
"""
_WEBHOOK = """
UPDATE requests SET webhook_state = ?, webhook_tries = ?, webhook_status = ?, webhook_signed_at = ?,
       delivered_at = ?, injected = ?
 WHERE seq = ?
"""


@dataclass(slots=True)
class Totals:
    """Running sums over the whole ledger."""

    accepted: int = 0
    completed: int = 0
    succeeded: int = 0
    cancelled: int = 0
    images: int = 0
    charges: int = 0


def _short(url: str) -> str:
    """A data URI without its data; the ledger keeps the hash."""
    return url.partition(",")[0] if url.startswith("data:") else url


class Ledger:
    """The requests and their payloads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.totals = Totals(*store.one(_TOTALS))
        self._purged = [0.0, 0.0]  # up to where payloads are purged, with and without storage

    def accept(self, job: Job, body: bytes) -> None:
        """Write a new request down; durable once `Store.committed()` has returned."""
        job.seq = int(self._store.write(_INSERT, _values(job)).lastrowid or 0)
        self._store.write("INSERT INTO payloads (seq, input) VALUES (?, ?)", (job.seq, body))
        self._store.write("INSERT INTO input_hashes VALUES (?, ?)", (job.seq, canonical_sha256(body)))
        self.totals.accepted += 1

    def start(self, job: Job) -> None:
        """Note that a runner took the request."""
        self._store.write(
            "UPDATE requests SET started_at = ?, attempts = ?, gateway_request_id = ? WHERE seq = ?",
            (job.started_at, job.attempts, job.gateway_request_id, job.seq),
        )

    def record_cancel_request(self, job: Job) -> None:
        """Note that the client asked to cancel."""
        self._store.write("UPDATE requests SET cancelled_at = ? WHERE seq = ?", (job.cancelled_at, job.seq))

    def finish(self, job: Job, verdict: Verdict, ended_at: float) -> bool:
        """End a request and charge it; False when it had ended before."""
        images = [{**asdict(image), "url": _short(image.url)} for image in verdict.hosted]
        output = verdict.body_bytes()
        job.status, job.error, job.error_type = verdict.status, verdict.error, verdict.error_type
        job.timeout_type, job.needs_retry = verdict.timeout_type, verdict.needs_retry
        job.images, job.billed_units, job.result_bytes = json.dumps(images), verdict.units, len(output)
        if verdict.seed is not None and abs(verdict.seed) < LARGEST:
            job.seed = verdict.seed
        job.inference_time = verdict.inference_time
        values = (
            *(ended_at, job.started_at, job.status, job.error, job.error_type, job.timeout_type),
            *(job.needs_retry, job.inference_time, job.images, job.billed_units, job.result_bytes, job.seed),
            *(job.attempts, job.gateway_request_id, job.webhook_state, job.injected, job.seq),
        )
        if self._store.write(_FINISH, values).rowcount != 1:
            return False
        self._store.write("UPDATE payloads SET output = ? WHERE seq = ?", (output, job.seq))
        self._count(job, len(images))
        return True

    def _count(self, job: Job, images: int) -> None:
        totals = self.totals
        totals.completed += 1
        totals.succeeded += job.status == 200
        totals.cancelled += job.error_type == "client_cancelled"
        totals.images += images
        totals.charges += job.billed_units

    def webhook(self, job: Job) -> None:
        """Note where the delivery of a webhook stands."""
        values = (job.webhook_state, job.webhook_tries, job.webhook_status, job.webhook_signed_at)
        self._store.write(_WEBHOOK, (*values, job.delivered_at, job.injected, job.seq))

    def find(self, request_id: str) -> Job | None:
        """The request with this id."""
        row = self._store.one(_SELECT + "WHERE request_id = ?", (request_id,))
        return Job(*row) if row else None

    def input(self, job: Job) -> bytes:
        """The body as it was posted."""
        row = self._store.one("SELECT input FROM payloads WHERE seq = ?", (job.seq,))
        return bytes(row[0] or b"") if row else b""

    def output(self, job: Job) -> bytes | None:
        """The result body, or None when it was never kept or is purged."""
        row = self._store.one("SELECT output FROM payloads WHERE seq = ?", (job.seq,))
        return bytes(row[0]) if row and row[0] is not None else None

    def forget(self, job: Job) -> None:
        """Delete both payloads; the row and its charge stay."""
        self._store.write("DELETE FROM payloads WHERE seq = ?", (job.seq,))

    def unfinished(self) -> list[Job]:
        """What a restart has to take up again, oldest first."""
        rows = self._store.rows(_SELECT + "WHERE ended_at IS NULL ORDER BY seq")
        return [Job(*row) for row in rows]

    def undelivered(self) -> list[Job]:
        """Finished requests whose webhook is still owed."""
        rows = self._store.rows(_SELECT + "WHERE webhook_state = 'pending' ORDER BY seq")
        return [Job(*row) for row in rows]

    def page(self, after: int, limit: int) -> list[Job]:
        """Requests in the order of acceptance, from behind `after`."""
        rows = self._store.rows(_SELECT + "WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
        return [Job(*row) for row in rows]

    def select(self, where: str, values: tuple[Any, ...], order: str, limit: int) -> Iterator[Job]:
        """Rows for the lists and the page; `where` and `order` are their own constants, never a client's text."""
        sql = _SELECT + f"WHERE {where} ORDER BY {order} LIMIT ?"
        return (Job(*row) for row in self._store.rows(sql, (*values, limit)))

    def purge_payloads(self, stored_before: float, unstored_before: float) -> None:
        """Forget payloads that are past their time; the ledger's rows themselves stay for ever."""
        for position, (before, also) in enumerate(((stored_before, ""), (unstored_before, " AND store_io = 0"))):
            which = f"SELECT seq FROM requests WHERE ended_at > ? AND ended_at <= ?{also}"  # noqa: S608 - constants
            values = (self._purged[position], before)
            if self._store.one(f"{which} LIMIT 1", values):
                self._store.write(f"DELETE FROM payloads WHERE seq IN ({which})", values)  # noqa: S608 - constants
            self._purged[position] = before


_TOTALS = """
SELECT count(*), count(ended_at), coalesce(sum(status = 200), 0), coalesce(sum(error_type = 'client_cancelled'), 0),
       coalesce(sum(json_array_length(images)), 0), coalesce(sum(billed_units), 0)
  FROM requests
"""
assert len(fields(Totals)) == 6, "the columns of _TOTALS fill Totals by position"
