"""Each finished batch is held against its rows once, while nobody waits for it: `accounting` reads what was found.

`batches.audited_at` says when. A batch that was opened again and finished again is audited again; a batch that differs
is never pruned, so that its rows can be looked at.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.counters import (
    BATCH_COUNTERS,
    EDIT_COUNTERS,
    ERROR_TYPE,
    IMAGE_COUNTERS,
    MONEY_OF_EDIT,
    SUBMISSION_COUNTERS,
)
from models.predicates import batch_to_be_audited
from models.statements import Statement


class FinishedBatch(NamedTuple):
    """A batch that is to be audited, as it was when it was found."""

    batch_id: UUID
    finished_at: datetime


def _columns(counters: Mapping[str, str]) -> str:
    return ", ".join(f"{counters.get(name, '0')} AS {name}" for name in BATCH_COUNTERS)


def _summed(alias: str) -> str:
    return ", ".join(f"coalesce(sum({alias}.{name}), 0) AS {name}" for name in BATCH_COUNTERS)


UNAUDITED_BATCHES = Statement(
    "SELECT id, finished_at FROM batches WHERE {unaudited} ORDER BY finished_at LIMIT %s",
    unaudited=batch_to_be_audited("batches"),
    index="batches_unaudited",
)
# every sum is over one batch, found by the keys that its rows are found by
FIND_DIFFERENCE = Statement(
    """
    SELECT concat_ws('; ',
        CASE WHEN b.edit_count <> counted.pending + counted.submitting + counted.submitted + counted.ready
                  + counted.stored + counted.failed + counted.cancelled THEN 'edits = their rows' END,
        CASE WHEN {differ} THEN 'counters = their rows' END,
        CASE WHEN errors.differ THEN 'counters of errors = their rows' END,
        CASE WHEN unstored.found THEN 'stored edits with an image that is not stored, or without any' END)
    FROM batches b
    CROSS JOIN LATERAL (SELECT {kept} FROM batch_counters k WHERE k.batch_id = b.id) kept
    CROSS JOIN LATERAL (
        SELECT {counted} FROM (
            SELECT {edits} FROM edits r WHERE r.batch_id = b.id
            UNION ALL
            SELECT {submissions} FROM edits e JOIN submissions r ON r.edit_id = e.id WHERE e.batch_id = b.id
            UNION ALL
            SELECT {images}
            FROM edits e JOIN submissions s ON s.edit_id = e.id JOIN images r ON r.submission_id = s.id
            WHERE e.batch_id = b.id
        ) d
    ) counted
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM (
                SELECT k.type, sum(k.edits) AS edits, sum(k.failed) AS failed
                FROM error_counters k WHERE k.batch_id = b.id GROUP BY k.type
            ) k FULL JOIN (
                SELECT {error_type} AS type, count(*) AS edits, count(*) FILTER (WHERE r.state = 'failed') AS failed
                FROM edits r WHERE r.batch_id = b.id AND r.state <> 'stored' AND r.errors <> '[]' GROUP BY 1
            ) c USING (type)
            WHERE coalesce(k.edits, 0) <> coalesce(c.edits, 0) OR coalesce(k.failed, 0) <> coalesce(c.failed, 0)
        ) AS differ
    ) errors
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM edits e
            CROSS JOIN LATERAL (
                SELECT count(*) FILTER (WHERE i.state = 'stored') AS stored,
                       count(*) FILTER (WHERE i.state IN ('waiting', 'failed')) AS missing
                FROM submissions s JOIN images i ON i.submission_id = s.id WHERE s.edit_id = e.id
            ) i
            WHERE e.batch_id = b.id AND e.state = 'stored' AND (i.stored = 0 OR i.missing > 0)
        ) AS found
    ) unstored
    WHERE b.id = %s
    """,
    differ=" OR ".join(f"kept.{name} <> counted.{name}" for name in BATCH_COUNTERS),
    kept=_summed("k"),
    counted=_summed("d"),
    edits=_columns(EDIT_COUNTERS),
    submissions=_columns({**SUBMISSION_COUNTERS, **MONEY_OF_EDIT}),
    images=_columns(IMAGE_COUNTERS),
    error_type=ERROR_TYPE,
    index="batches_pkey edits_batch_id_position_key submissions_edit images_submission_id_index_key",
)
RECORD_AUDIT = Statement(
    """
    UPDATE batches SET audited_at = now(), audit_difference = %s
    WHERE id = %s AND finished_at = %s AND pruned_at IS NULL
    """,
    index="batches_pkey",
)
LIMIT_AUDIT = Statement("SELECT set_config('statement_timeout', %s, true)")
AUDIT_TIMEOUT = 300.0
"""Seconds that an audit may take; half a million edits took eight."""


def unaudited_batches(connection: Connection, limit: int) -> list[FinishedBatch]:
    """Finished batches that were not audited since, the first to finish first."""
    return [FinishedBatch(*row) for row in connection.exec_driver_sql(UNAUDITED_BATCHES, (limit,))]


def audit_batch(connection: Connection, batch: FinishedBatch) -> str | None:
    """Hold a batch's counters against its rows and write down what differs; None where nothing does.

    A transaction of its own, REPEATABLE READ: counters and rows are of one moment, and where somebody changes the
    batch meanwhile, what was found is not written down (40001) and it is audited again.
    """
    connection.exec_driver_sql(LIMIT_AUDIT, (f"{AUDIT_TIMEOUT:.0f}s",))  # longer than any other statement of a lane
    difference = connection.exec_driver_sql(FIND_DIFFERENCE, (batch.batch_id,)).scalar() or None
    record_audit(connection, batch, difference)
    return difference


def record_audit(connection: Connection, batch: FinishedBatch, difference: str | None) -> None:
    """Write down what an audit found; nothing where the batch has moved on since it was found."""
    connection.exec_driver_sql(RECORD_AUDIT, (difference, batch.batch_id, batch.finished_at))
