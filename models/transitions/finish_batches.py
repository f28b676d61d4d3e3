"""The end of a batch, and the message that its caller is owed."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from models.criteria import BROKEN_BY_FAILURES, OPEN, BatchSize, has_edits
from models.statements import Statement

COUNTED = 20_000
"""Edits that are counted by one statement."""

_OPEN = has_edits(OPEN)
FINISHABLE_BATCHES = Statement(
    "SELECT id, edit_count FROM batches b WHERE finished_at IS NULL AND NOT {open} ORDER BY created_at, id",
    open=_OPEN,
    index="edits_open",
)
LOCK_FINISHABLE = Statement(
    """
    SELECT id FROM batches b
    WHERE finished_at IS NULL AND (%(ids)s::uuid[] IS NULL OR id = ANY(%(ids)s)) AND NOT {open}
    ORDER BY id FOR UPDATE SKIP LOCKED
    """,
    open=_OPEN,
    index="edits_open",
)
FINISH_BATCHES = Statement(
    """
    UPDATE batches b SET finished_at = now(), broken_criterion = coalesce(b.broken_criterion, {broken_by_failures})
    WHERE b.id = ANY(%s) AND NOT {open} RETURNING b.id, b.notify_url, b.edit_count
    """,
    broken_by_failures=BROKEN_BY_FAILURES,
    open=_OPEN,
    index="edits_open",
)


def finishable_batches(connection: Connection) -> list[BatchSize]:
    """Unfinished batches whose edits are all final, as it seems now."""
    rows = connection.exec_driver_sql(FINISHABLE_BATCHES)
    return [BatchSize(*row) for row in rows]


def settle_batches(
    connection: Connection, batch_ids: Sequence[UUID] | None = None, *, results_prefix: str = ""
) -> list[UUID]:
    """Finish every batch (of all, or of these) whose edits are all final, and note what its caller is to be told; a
    transaction of its own.

    Asking inside the transaction of the last edit would leave batches open for ever: two last edits that end at
    once are each blind to the other's uncommitted end. And asking in the statement that finishes would finish a batch
    whose edits are just being retried or appended: it would wait for the batch's row and then judge by what it saw
    before. So the row is locked first and the question asked again. `results_prefix` is where callers reach the
    intake API.
    """
    locked = connection.exec_driver_sql(
        LOCK_FINISHABLE,
        {"ids": None if batch_ids is None else list(batch_ids)},
    )
    rows = connection.exec_driver_sql(
        FINISH_BATCHES,
        (list(locked.scalars()),),
    ).all()
    messages = [_count(connection, row.id, row.edit_count) for row in rows if row.notify_url]
    if messages:
        _note_notifications(connection, messages, results_prefix)
    return [row.id for row in rows]


COUNT_PIECE = Statement(
    """
    WITH piece AS MATERIALIZED (
        SELECT id, state FROM edits
        WHERE batch_id = %(batch)s AND position >= %(first)s AND position < %(first)s + %(size)s
    )
    SELECT count(*) FILTER (WHERE state = 'stored') AS stored,
           count(*) FILTER (WHERE state = 'failed') AS failed,
           count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
           (SELECT coalesce(sum(s.cost), 0) FROM piece p JOIN submissions s ON s.edit_id = p.id) AS cost,
           (SELECT count(*) FROM piece p JOIN submissions s ON s.edit_id = p.id
            JOIN images i ON i.submission_id = s.id WHERE i.state = 'stored') AS images_stored
    FROM piece
""",
    index="edits_batch_id_position_key submissions_edit",
)


def _count(connection: Connection, batch_id: UUID, edit_count: int) -> dict[str, object]:
    """What the view `batch_progress` says of a batch, counted piece by piece: it may have millions of edits."""
    counts: dict[str, Any] = {}
    for first in range(0, edit_count, COUNTED):
        row = connection.exec_driver_sql(
            COUNT_PIECE,
            {"batch": batch_id, "first": first, "size": COUNTED},
        ).one()
        counts = {name: counts.get(name, 0) + value for name, value in row._mapping.items()}
    return {"batch_id": str(batch_id), "edits": edit_count, **counts, "cost": str(counts["cost"])}


NOTE_NOTIFICATIONS = Statement("""
    INSERT INTO notifications (batch_id, event, url, payload)
    SELECT b.id, m.event, b.notify_url, jsonb_build_object(
        'type', m.event,
        'timestamp', now(),
        'data', jsonb_build_object(
            'batch_id', b.id, 'name', b.name, 'client', b.client, 'metadata', b.metadata,
            'edits', p.edits, 'stored', p.stored, 'failed', p.failed, 'cancelled', p.cancelled,
            'images_stored', p.images_stored, 'cost', p.cost,
            'created_at', b.created_at, 'finished_at', b.finished_at, 'broken_criterion', b.broken_criterion,
            'results_url', %(prefix)s::text || '/v1/batches/' || b.id || '/results',
            'storage_prefix', b.id || '/'))
    FROM jsonb_to_recordset(%(counts)s) AS p (batch_id uuid, edits int, stored int, failed int, cancelled int,
                                              images_stored int, cost numeric)
    JOIN batches b ON b.id = p.batch_id
    CROSS JOIN LATERAL (SELECT CASE
        WHEN b.broken_criterion IS NOT NULL THEN 'batch.failed'
        WHEN b.cancelled_at IS NOT NULL THEN 'batch.cancelled'
        ELSE 'batch.finished' END AS event) m
""")


def _note_notifications(connection: Connection, counts: list[dict[str, object]], results_prefix: str) -> None:
    connection.exec_driver_sql(
        NOTE_NOTIFICATIONS,
        {"counts": Jsonb(counts), "prefix": results_prefix},
    )
