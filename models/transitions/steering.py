"""The arrows that a person or a broken limit leads along: skipped, cancelled, retried.

Edits are locked first, in the order of their ids, and the batch's own row last, as in every other transition; so
steps that meet wait for each other and never in a circle.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.states import Criterion

INVALID_INPUT = "invalid_input"
"""The error type of an edit whose line was faulty; no retry can help it."""


class SkippedEdit(NamedTuple):
    """A faulty line among good ones, and what is wrong with it."""

    position: int
    reason: str


def fail_skipped(connection: Connection, batch_id: UUID, skipped: Sequence[SkippedEdit]) -> None:
    """pending -> failed for faulty lines, in the transaction that wrote them: no claim ever sees them."""
    connection.exec_driver_sql(
        """
        UPDATE edits e
        SET state = 'failed', due_at = NULL, finished_at = now(),
            errors = jsonb_build_array(jsonb_build_object(
                'at', now(), 'attempt', 0, 'type', %(type)s::text, 'message', m.reason))
        FROM unnest(%(positions)s::integer[], %(reasons)s::text[]) AS m (position, reason)
        WHERE e.batch_id = %(batch)s AND e.position = m.position AND e.state = 'pending'
        """,
        {
            "batch": batch_id,
            "type": INVALID_INPUT,
            "positions": [edit.position for edit in skipped],
            "reasons": [edit.reason for edit in skipped],
        },
    )


def cancel_batch(connection: Connection, batch_id: UUID, *, criterion: Criterion | None = None) -> int:
    """Cancel what is not paid for yet: pending edits at once, edits in flight by a wish; answers how many these are.

    What is in flight is asked about at once, and the poll lane hands the wish to the provider; it ends `cancelled` if
    the provider says so and `stored` if the picture was made anyway. A batch that is cancelled or finished already
    stays as it is.
    """
    concerned = _cancel_open(connection, batch_id)
    rows = connection.exec_driver_sql(
        """
        UPDATE batches SET cancelled_at = now(), broken_criterion = %s
        WHERE id = %s AND cancelled_at IS NULL AND finished_at IS NULL RETURNING id
        """,
        (criterion, batch_id),
    ).all()
    # edits that were being appended meanwhile held the batch's row until now, and are seen only by a new statement
    return concerned + (_cancel_open(connection, batch_id) if rows else 0)


def _cancel_open(connection: Connection, batch_id: UUID) -> int:
    rows = connection.exec_driver_sql(
        """
        WITH open AS (
            SELECT id, state FROM edits
            WHERE batch_id = %s AND due_at IS NOT NULL AND cancel_requested_at IS NULL
              AND state IN ('pending', 'submitting', 'submitted')
            ORDER BY id FOR UPDATE
        ), wished AS (
            UPDATE edits e
            SET cancel_requested_at = now(),
                state = CASE WHEN open.state = 'pending' THEN 'cancelled' ELSE e.state END,
                due_at = CASE WHEN open.state = 'pending' THEN NULL ELSE e.due_at END,
                finished_at = CASE WHEN open.state = 'pending' THEN now() END
            FROM open WHERE e.id = open.id AND e.state = open.state RETURNING e.id
        ), asked AS (
            UPDATE submissions s SET due_at = now() FROM wished
            WHERE s.edit_id = wished.id AND s.due_at IS NOT NULL AND s.request_id IS NOT NULL
        )
        SELECT count(*) FROM wished
        """,
        (batch_id,),
    )
    return int(rows.scalar_one())


def record_cancel_asked(connection: Connection, submission_ids: Sequence[UUID]) -> None:
    """The provider has heard the wish, whatever it answered; it is not told again."""
    connection.exec_driver_sql(
        "UPDATE submissions SET cancel_asked_at = now() WHERE id = ANY(%s) AND cancel_asked_at IS NULL",
        (list(submission_ids),),
    )


def retry_failed(connection: Connection, batch_id: UUID, error_types: Sequence[str] = ()) -> int:
    """failed -> ready where pictures are paid for and only their files failed: these are fetched again, not paid again;
    failed -> submitted where a submission of it turned out to be in flight, because what it brings is paid for already;
    every other failed -> pending, with its attempts counted anew. Answers how many edits these are.

    `error_types` takes only edits whose latest error is one of these. A faulty line stays failed.
    """
    rows = connection.exec_driver_sql(
        """
        WITH chosen AS (
            SELECT id FROM edits
            WHERE batch_id = %(batch)s AND state = 'failed'
              AND coalesce(errors -> -1 ->> 'type', '') <> %(invalid)s
              AND (cardinality(%(types)s::text[]) = 0 OR errors -> -1 ->> 'type' = ANY(%(types)s::text[]))
            ORDER BY id FOR UPDATE
        ), fetched AS (
            UPDATE images i SET state = 'waiting', due_at = now(), attempt = 0
            FROM submissions s
            WHERE s.id = i.submission_id AND i.state = 'failed' AND s.edit_id IN (SELECT id FROM chosen)
            RETURNING s.edit_id
        )
        UPDATE edits e
        SET state = m.state,
            due_at = now() + CASE m.state WHEN 'pending' THEN interval '0' ELSE interval '1 hour' END,
            finished_at = NULL, cancel_requested_at = NULL, attempts_before = e.attempt
        FROM (SELECT id, CASE
                WHEN id IN (SELECT edit_id FROM fetched) THEN 'ready'
                WHEN EXISTS (SELECT FROM submissions s WHERE s.edit_id = chosen.id AND s.outcome IS NULL)
                    THEN 'submitted'
                ELSE 'pending' END AS state FROM chosen) m
        WHERE e.id = m.id AND e.state = 'failed' RETURNING e.id
        """,
        {"batch": batch_id, "invalid": INVALID_INPUT, "types": list(error_types)},
    ).all()
    if rows:
        connection.exec_driver_sql(
            "UPDATE batches SET finished_at = NULL, broken_criterion = NULL WHERE id = %s", (batch_id,)
        )
    return len(rows)
