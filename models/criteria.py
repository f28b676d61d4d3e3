"""Which running batches break a limit of their own: too many failures, a deadline, a ceiling of cost.

Reads only; the settle lane cancels the rest of what is found here (`transitions.cancel_batch`).
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.predicates import edit_in_flight
from models.statements import Statement, fill
from models.states import Criterion, EditState

MAX_IMAGES_SQL = "coalesce((e.arguments ->> 'num_images')::int, 1) * coalesce((e.arguments ->> 'max_images')::int, 1)"
"""SQL: images that the edit `e` may return at most (provider-protocol 9.2)."""
BROKEN_BY_FAILURES = """
    (SELECT CASE
     WHEN tried.failed > b.tolerated_failures THEN 'tolerated_failures'
     WHEN tried.failed * 100 > b.tolerated_failure_percent * b.edit_count THEN 'tolerated_failure_percent'
     END
     FROM (SELECT sum(failed - skipped) AS failed FROM batch_counters k WHERE k.batch_id = b.id) tried)"""
"""SQL: the criterion that the failures of the batch `b` break, or NULL. Skipped lines were never tried: no failures."""


class BatchSize(NamedTuple):
    """A batch, and how many edits it has."""

    batch_id: UUID
    edits: int


_HAS_EDIT = """(SELECT true FROM edits e WHERE e.batch_id = b.id AND e.state = '{state}' AND e.due_at IS NOT NULL
               AND {also} ORDER BY e.position LIMIT 1) IS TRUE"""


def has_edits(states: Iterable[EditState], also: str = "true") -> str:
    """SQL: whether the batch `b` has an open edit `e` in one of these states.

    One row of the index `edits_open` for each state. An EXISTS over all of them is planned as one pass over every edit
    there is, once a batch has millions.
    """
    conditions = (fill(_HAS_EDIT, state=state, also=also) for state in states)
    return f"({' OR '.join(conditions)})"


TO_CANCEL = (EditState.PENDING, EditState.SUBMITTING, EditState.SUBMITTED)
"""States of edits that a cancel concerns."""
OPEN = (*TO_CANCEL, EditState.READY)
"""States of edits that keep their batch from finishing."""
_LIMITED = f"""b.finished_at IS NULL AND b.cancelled_at IS NULL
              AND coalesce(b.tolerated_failures, b.tolerated_failure_percent, b.max_cost,
                           extract(epoch FROM b.deadline)) IS NOT NULL
              AND {has_edits(TO_CANCEL)}"""


class Broken(NamedTuple):
    """A batch and the limit that it breaks."""

    batch_id: UUID
    criterion: Criterion


LIMITED_BATCHES = Statement(
    "SELECT b.id, b.edit_count FROM batches b WHERE {limited} ORDER BY b.id", limited=_LIMITED, index="edits_open"
)
BROKEN_BATCHES = Statement(
    """
    SELECT id, criterion FROM (
        SELECT b.id, CASE
            WHEN failures.criterion IS NOT NULL THEN failures.criterion
            WHEN b.deadline <= now() THEN 'deadline'
            WHEN b.max_cost IS NOT NULL AND b.paused_at IS NULL AND NOT EXISTS (
                    SELECT FROM edits e WHERE e.batch_id = b.id AND e.due_at IS NOT NULL
                    AND e.state IN ('submitting', 'submitted'))
                 AND (SELECT {max_images} * %(price)s::numeric FROM edits e
                      WHERE e.batch_id = b.id AND e.state = 'pending' AND e.due_at <= now()
                      ORDER BY e.position LIMIT 1)
                     > b.max_cost - (SELECT committed FROM spending WHERE batch_id = b.id)
                THEN 'max_cost'
            END AS criterion
        FROM batches b CROSS JOIN LATERAL (SELECT {broken_by_failures} AS criterion) failures
        WHERE {limited} AND (%(ids)s::uuid[] IS NULL OR b.id = ANY(%(ids)s))
    ) found WHERE criterion IS NOT NULL ORDER BY id
    """,
    index="edits_open",
    in_flight=edit_in_flight("e"),
    max_images=MAX_IMAGES_SQL,
    broken_by_failures=BROKEN_BY_FAILURES,
    limited=_LIMITED,
)


def limited_batches(connection: Connection) -> list[BatchSize]:
    """Running batches that have a limit of their own, and of which something is left to be cancelled."""
    rows = connection.exec_driver_sql(LIMITED_BATCHES)
    return [BatchSize(*row) for row in rows]


def broken_batches(connection: Connection, batch_ids: Sequence[UUID] | None = None, *, price: Decimal) -> list[Broken]:
    """Of running batches, all or these, those that break a limit of theirs.

    The ceiling is broken once nothing is in flight that may yet turn out cheaper than reserved, and the next edit
    would not fit at `price` (USD an image).
    """
    values = {"price": price, "ids": None if batch_ids is None else list(batch_ids)}
    rows = connection.exec_driver_sql(BROKEN_BATCHES, values)
    return [Broken(row.id, Criterion(row.criterion)) for row in rows]
