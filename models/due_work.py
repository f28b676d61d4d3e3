"""Is there work for a lane, and what has waited for it the longest? Reads only; `claims.py` takes."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection

from models.transitions import finishable_batches

EDITS_DUE: Final = """
    EXISTS (SELECT FROM batches b
            WHERE b.finished_at IS NULL AND b.paused_at IS NULL AND b.cancelled_at IS NULL
              AND NOT EXISTS (SELECT FROM lane_pauses p
                              WHERE p.lane = 'submit' AND p.subject = b.endpoint AND p.retry_at > now())
              AND EXISTS (SELECT FROM edits e WHERE e.batch_id = b.id AND e.state = 'pending' AND e.due_at <= now()))
    AND NOT EXISTS (SELECT FROM provider_status WHERE retry_at > now())
"""
SUBMISSIONS_DUE: Final = "EXISTS (SELECT FROM submissions WHERE due_at <= now())"
IMAGES_DUE: Final = """
    EXISTS (SELECT FROM images WHERE due_at <= now())
    AND NOT EXISTS (SELECT FROM lane_pauses WHERE lane = 'download' AND subject = 'storage' AND retry_at > now())
"""
BATCHES_UNFINISHED: Final = "EXISTS (SELECT FROM batches WHERE finished_at IS NULL)"
NOTIFICATIONS_DUE: Final = "EXISTS (SELECT FROM notifications WHERE due_at <= now())"


def which_hold(connection: Connection, conditions: Mapping[str, str]) -> dict[str, bool]:
    """By name: whether each of these SQL conditions of ours holds now; one cheap read, where partial indexes answer."""
    row = connection.exec_driver_sql(f"SELECT {', '.join(conditions.values())}").one()
    return dict(zip(conditions, row, strict=True))


class FirstDue(NamedTuple):
    """What a lane would take next, and for how many seconds it has been due."""

    id: str
    due: str
    seconds: float


def first_due(connection: Connection, table: str, ids: Sequence[object]) -> FirstDue | None:
    """The first of these rows of a table of ours; None where there are none."""
    if not ids:
        return None
    row = connection.exec_driver_sql(
        f"SELECT id::text, due_at::text, extract(epoch FROM now() - due_at)::float8 FROM {table} WHERE id = %s",  # noqa: S608
        (ids[0],),
    ).first()
    return FirstDue(*row) if row else None


def first_due_notification(connection: Connection) -> FirstDue | None:
    """The notification that has been due the longest."""
    query = "SELECT id FROM notifications WHERE due_at <= now() ORDER BY due_at LIMIT 1"
    return first_due(connection, "notifications", connection.exec_driver_sql(query).scalars().all())


def first_finishable_batch(connection: Connection) -> FirstDue | None:
    """The first batch that can be finished; due since its last edit was."""
    batches = finishable_batches(connection)
    if not batches:
        return None
    row = connection.exec_driver_sql(
        """
        SELECT batch_id::text, max(finished_at)::text, extract(epoch FROM now() - max(finished_at))::float8
        FROM edits WHERE batch_id = %s GROUP BY batch_id
        """,
        (batches[0].batch_id,),
    ).first()
    return FirstDue(*row) if row else None
