"""The end of a batch, and the message that its caller is owed."""

from uuid import UUID

from sqlalchemy import Connection

from models.criteria import BROKEN_BY_FAILURES

_OPEN = """EXISTS (
    SELECT FROM edits e WHERE e.batch_id = b.id AND e.due_at IS NOT NULL
    AND e.state IN ('pending', 'submitting', 'submitted', 'ready'))"""


def settle_batches(connection: Connection, *, results_prefix: str = "") -> list[UUID]:
    """Finish every batch whose edits are all final, and note what its caller is to be told; a transaction of its own.

    Asking inside the transaction of the last edit would leave batches open for ever: two last edits that end at
    once are each blind to the other's uncommitted end. And asking in the statement that finishes would finish a batch
    whose edits are just being retried or appended: it would wait for the batch's row and then judge by what it saw
    before. So the row is locked first and the question asked again. `results_prefix` is where callers reach the
    intake API.
    """
    locked = connection.exec_driver_sql(
        f"SELECT id FROM batches b WHERE finished_at IS NULL AND NOT {_OPEN} FOR UPDATE SKIP LOCKED"  # noqa: S608
    )
    rows = connection.exec_driver_sql(
        f"""
        UPDATE batches b SET finished_at = now(), broken_criterion = coalesce(b.broken_criterion, {BROKEN_BY_FAILURES})
        WHERE b.id = ANY(%s) AND NOT {_OPEN} RETURNING b.id, b.notify_url
        """,  # noqa: S608 - constants of ours
        (list(locked.scalars()),),
    ).all()
    told = [row.id for row in rows if row.notify_url]
    if told:
        _note_notifications(connection, told, results_prefix)
    return [row.id for row in rows]


def _note_notifications(connection: Connection, batch_ids: list[UUID], results_prefix: str) -> None:
    connection.exec_driver_sql(
        """
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
        WHERE b.id = ANY(%(ids)s)
        """,
        {"ids": batch_ids, "prefix": results_prefix},
    )
