"""The end of a batch, and the message that its caller is owed."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection

from models.criteria import BROKEN_BY_FAILURES, OPEN, BatchSize, has_edits
from models.fold_counters import fold_counters
from models.statements import Statement

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
    WHERE b.id = ANY(%s) AND NOT {open} RETURNING b.id, b.notify_url
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
    fold_counters(connection, [row.id for row in rows])
    owed = [row.id for row in rows if row.notify_url]
    if owed:
        _note_notifications(connection, owed, results_prefix)
    return [row.id for row in rows]


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
    FROM batches b JOIN batch_progress p ON p.batch_id = b.id
    CROSS JOIN LATERAL (SELECT CASE
        WHEN b.broken_criterion IS NOT NULL THEN 'batch.failed'
        WHEN b.cancelled_at IS NOT NULL THEN 'batch.cancelled'
        ELSE 'batch.finished' END AS event) m
    WHERE b.id = ANY(%(batches)s)
""")


def _note_notifications(connection: Connection, batch_ids: list[UUID], results_prefix: str) -> None:
    connection.exec_driver_sql(
        NOTE_NOTIFICATIONS,
        {"batches": batch_ids, "prefix": results_prefix},
    )
