"""Read the books of a run into plain values: the provider's ledger, the database's rows, the bytes in storage.

Nothing is judged here. Times are seconds since 1970, hashes lower-case hex. Of the database it takes what was written
down, never what the judged code concluded from it: no `outcome` and no `doubled` excuses anything (`judging.py`).
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection

CONTRADICTORY = "mismatched_id"
"""The emulator's fault of a callback that names one request in its head and another in its body."""
OTHER_PROGRAM = "other-program"
"""How the User-Agent of a program begins that shares the account and is none of ours."""


class File(NamedTuple):
    """One image that the provider made, and how often it served it."""

    sha256: str
    intact: int
    spoilt: int


class Request(NamedTuple):
    """One accepted request, from the provider's ledger."""

    id: str
    token: str
    foreign: bool
    input_sha256: str
    submitted_at: float
    ended_at: float | None
    status: int | None
    error_type: str | None
    charges: int
    files: tuple[File, ...]
    faults: frozenset[str]
    listed: bool
    told_at: float | None
    """When the provider first got its answer through: a webhook taken that can be believed, or the result read."""


class Edit(NamedTuple):
    """One edit as it stands."""

    id: int
    batch_id: str
    position: int
    custom_id: str | None
    state: str
    final: bool
    input: dict[str, Any]
    """As a POST carries it, with the seed."""
    error_type: str | None
    given_up: tuple[float, ...] = ()
    """When one of its submissions was held to be dead, as it tells itself."""

    @property
    def name(self) -> str:
        """How its images are named in storage."""
        return f"{self.batch_id}/{self.custom_id or self.position}"


class Submission(NamedTuple):
    """One POST that was written down."""

    id: str
    edit_id: int
    request_id: str | None
    outcome: str | None
    images_returned: int | None
    doubled: bool
    cost: float | None
    """USD."""
    sent: dict[str, str] = {}  # noqa: RUF012  # of a NamedTuple, and never written to
    """What was sent in the place of an object of the store, by its place in `image_urls`."""


class Image(NamedTuple):
    """One image of which the database says that it lies in storage."""

    submission_id: str
    place: int
    key: str
    sha256: str
    taken: bool = True
    """It is of the set that the edit has; False where another set took its place."""


class Batch(NamedTuple):
    """One batch as it stands."""

    id: str
    name: str | None
    finished_at: float | None
    cancelled_at: float | None
    broken_criterion: str | None
    max_cost: float | None
    tolerated_failures: int | None
    notify_url: str | None
    progress: tuple[int, int, int, float] | None = None
    """Edits stored, failed and cancelled, and USD, as the views tell everybody; None: nobody asked."""


class Books(NamedTuple):
    """Everything that a run left behind."""

    requests: dict[str, Request]
    edits: dict[int, Edit]
    submissions: dict[str, Submission]
    images: list[Image]
    batches: dict[str, Batch]
    objects: dict[str, str]
    """Key -> SHA-256 of the bytes that lie in storage."""
    imbalances: list[str]
    callbacks: dict[str, int]
    delivered: dict[str, str] = {}  # noqa: RUF012
    """URL of what was sent so -> SHA-256 of the bytes that the provider has there."""


def canonical_sha256(value: Any) -> str:
    """The hash under which the ledger knows an input."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_books(
    ledger: list[dict[str, Any]],
    connection: Connection,
    folder: Path,
    fetch: Callable[[str], bytes] = lambda _: b"",
) -> Books:
    """All of it, at one moment at which nothing happens any more; `fetch` has what the provider has at a URL."""
    submissions = {row.id: Submission(*row) for row in connection.exec_driver_sql(_SUBMISSIONS)}
    sent = {url for submission in submissions.values() for url in submission.sent.values()}
    return Books(
        requests={row["request_id"]: read_request(row) for row in ledger},
        edits={edit.id: edit for edit in map(_edit, connection.exec_driver_sql(_EDITS))},
        submissions=submissions,
        delivered={url: hashlib.sha256(fetch(url)).hexdigest() for url in sorted(sent)},
        images=[Image(*row) for row in connection.exec_driver_sql(_IMAGES)],
        batches={row.id: _batch(row) for row in connection.exec_driver_sql(_BATCHES)},
        objects=_objects(folder),
        imbalances=[
            f"accounting: {row.identity}: {row.difference}"
            for row in connection.exec_driver_sql("SELECT identity, difference FROM audit WHERE difference <> 0")
        ],
        callbacks={row[0]: row[1] for row in connection.exec_driver_sql(_CALLBACKS)},
    )


def read_request(row: Mapping[str, Any]) -> Request:
    """A row of the ledger's JSON."""
    # two request ids in one callback: whoever is careful believes neither
    delivered_at = None if CONTRADICTORY in row["faults"] else row["webhook"]["delivered_at"]
    heard_at = [at for at in (delivered_at, row["reads"]["result"]["first_at"]) if at is not None]
    files = zip(row["sha256"], row["reads"]["files"], strict=True)
    return Request(
        id=row["request_id"],
        token=(row["webhook_url"] or "").rpartition("/")[2],
        foreign=row["headers"].get("User-Agent", "").startswith(OTHER_PROGRAM),
        input_sha256=row["input_sha256"],
        submitted_at=row["submitted_at"],
        ended_at=row["ended_at"],
        status=row["outcome"],
        error_type=row["error_type"],
        charges=row["charges"],
        files=tuple(File(sha256, reads["intact"], reads["spoilt"]) for sha256, reads in files),
        faults=frozenset(row["faults"]),
        listed=row["store_io"],
        told_at=min(heard_at, default=None),
    )


def _edit(row: Any) -> Edit:
    return Edit(
        id=row.id,
        batch_id=row.batch_id,
        position=row.position,
        custom_id=row.custom_id,
        state=row.state,
        final=row.final,
        input={**row.arguments, "seed": row.seed},
        error_type=row.error_type,
        given_up=tuple(row.given_up),
    )


def _batch(row: Any) -> Batch:
    *header, stored, failed, cancelled, cost = row
    return Batch._make([*header, (stored, failed, cancelled, cost)])


def _objects(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


_EDITS = """
SELECT id, batch_id::text, position, custom_id, state, due_at IS NULL AS final, arguments, seed,
       CASE WHEN state = 'failed' THEN errors -> -1 ->> 'type' END AS error_type,
       ARRAY(SELECT extract(epoch FROM (error ->> 'at')::timestamptz)::float8 FROM jsonb_array_elements(errors) AS error
             WHERE error ->> 'type' = 'submission_unknown') AS given_up
FROM edits
"""
_SUBMISSIONS = """
SELECT id::text, edit_id, request_id, outcome, images_returned, doubled, cost::float8, coalesce(sent_urls, '{}')
FROM submissions
"""
_IMAGES = """
SELECT submission_id::text, index, storage_key, sha256, state = 'stored' FROM images WHERE storage_key IS NOT NULL
"""
_BATCHES = """
SELECT b.id::text, b.name, extract(epoch FROM b.finished_at)::float8, extract(epoch FROM b.cancelled_at)::float8,
       b.broken_criterion, b.max_cost::float8, b.tolerated_failures, b.notify_url,
       p.stored, p.failed, p.cancelled, coalesce(p.cost, 0)::float8
FROM batches b JOIN batch_progress p ON p.batch_id = b.id
"""
_CALLBACKS = "SELECT effect, count(*) FROM callbacks GROUP BY effect"
