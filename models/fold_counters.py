"""Counters of finished batches: one row each, and nobody adds them up again as long as nothing changes."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection

from models.counters import BATCH_COUNTERS, MOMENTS
from models.statements import Statement

_TIMES = {name: "min" if name.startswith("first") else "max" for name in MOMENTS}
# Only rows that we hold are added up, so that whoever writes meanwhile writes into a row of its own. A batch that does
# not add up stays as it is, for everybody to see.
FOLD_COUNTERS = Statement(
    """
    WITH held AS MATERIALIZED (
        SELECT k.* FROM batch_counters k WHERE k.batch_id = ANY(%s) ORDER BY k.id FOR UPDATE SKIP LOCKED
    ), sums AS MATERIALIZED (
        SELECT h.batch_id, coalesce(min(h.id) FILTER (WHERE h.folded), min(h.id)) AS id, {sums}
        FROM held h GROUP BY h.batch_id
    ), whole AS MATERIALIZED (
        SELECT s.* FROM sums s JOIN batches b ON b.id = s.batch_id
        WHERE b.finished_at IS NOT NULL
          AND b.edit_count = s.stored + s.failed + s.cancelled
          AND s.images_returned = s.images_stored + s.images_failed + s.images_waiting + s.images_discarded
          AND s.committed = coalesce((SELECT p.committed FROM spending p WHERE p.batch_id = b.id), s.committed)
    ), gone AS (
        DELETE FROM batch_counters k USING whole w WHERE k.batch_id = w.batch_id AND k.id <> w.id
        AND k.id IN (SELECT id FROM held)
    )
    UPDATE batch_counters k SET {sets}, ended_lately = 0, folded = true FROM whole w WHERE k.id = w.id
    """,
    sums=", ".join(
        [
            *(f"sum(h.{name}) AS {name}" for name in BATCH_COUNTERS),
            *(f"{function}(h.{name}) AS {name}" for name, function in _TIMES.items()),
        ]
    ),
    sets=", ".join(f"{name} = w.{name}" for name in (*BATCH_COUNTERS, *_TIMES)),
)


def fold_counters(connection: Connection, batch_ids: Sequence[UUID]) -> None:
    """Make one row of the counters of each of these batches that is finished and adds up; waits for nobody."""
    connection.exec_driver_sql(FOLD_COUNTERS, (list(batch_ids),))
