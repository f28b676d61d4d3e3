"""The arrows that a person or a broken limit leads along: skipped, cancelled, retried.

Edits are locked first, in the order of their ids, and the batch's own row last, as in every other transition; so
steps that meet wait for each other and never in a circle.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from core.errors import Conflict, NotFound
from models.criteria import TO_CANCEL, has_edits
from models.predicates import edit_in_flight
from models.statements import RowSet, Statement
from models.states import Criterion
from models.transitions.inputs import look_again_at_refused

OF_INPUTS = frozenset({"input_refused", "input_unreachable"})
"""The error types of edits that failed for an input: once they are retried it is looked at again."""
INVALID_INPUT = "invalid_input"
"""The error type of an edit whose line was faulty; no retry can help it."""


PRUNED = "The batch is pruned: its edits are no longer kept."


class SkippedEdit(NamedTuple):
    """A faulty line among good ones, and what is wrong with it."""

    position: int
    reason: str


_SKIPPED = RowSet("m", position="integer", reason="text")
FAIL_SKIPPED = Statement(
    """
    UPDATE edits e
    SET state = 'failed', due_at = NULL, finished_at = now(),
        errors = jsonb_build_array(jsonb_build_object(
            'at', now(), 'attempt', 0, 'type', %(type)s::text, 'message', m.reason))
    FROM {skipped}
    WHERE e.batch_id = %(batch)s AND e.position = m.position AND e.state = 'pending'
""",
    skipped=_SKIPPED,
    index="edits_batch_id_position_key",
)


def fail_skipped(connection: Connection, batch_id: UUID, skipped: Sequence[SkippedEdit]) -> None:
    """pending -> failed for faulty lines, in the transaction that wrote them: no claim ever sees them."""
    connection.exec_driver_sql(
        FAIL_SKIPPED,
        {
            "batch": batch_id,
            "type": INVALID_INPUT,
            **_SKIPPED.arrays(skipped),
        },
    )


EDITS_PER_STATEMENT = 5_000
"""Edits that one statement moves at most; a batch of more is cancelled and retried in chunks."""


BATCH_TO_CANCEL = Statement(
    """
    SELECT edit_count, cancelled_at IS NULL AND finished_at IS NULL AS running, pruned_at FROM batches WHERE id = %s
    """,
    index="batches_pkey",
)
CANCEL_BATCH = Statement(
    """
    UPDATE batches SET cancelled_at = now(), broken_criterion = %s
    WHERE id = %s AND cancelled_at IS NULL AND finished_at IS NULL RETURNING id
""",
    index="batches_pkey",
)


def cancel_batch(connection: Connection, batch_id: UUID, *, criterion: Criterion | None = None) -> int:
    """Cancel what is not paid for yet: pending edits at once; answers how many edits that concerned.

    For what is in flight the poll lane sends a cancel to the provider at once; it ends `cancelled` if
    the provider says so and `stored` if the image was made anyway. A batch that is cancelled or finished already
    stays as it is. Of a batch larger than `EDITS_PER_STATEMENT` only the row of the batch is written, which is enough
    that nothing of it is submitted any more; the settle lane cancels its edits (`cancel_chunk`), and the answer is the
    most that they may be.

    Raises:
        NotFound: there is no such batch.
        Conflict: it is pruned.
    """
    batch = connection.exec_driver_sql(BATCH_TO_CANCEL, (batch_id,)).first()
    if batch is None:
        raise NotFound(f"There is no batch {batch_id}.")
    if batch.pruned_at is not None:
        raise Conflict(PRUNED)
    if not batch.running:
        return 0
    small = batch.edit_count <= EDITS_PER_STATEMENT
    concerned = _cancel_open(connection, batch_id) if small else _estimate_open(connection, batch_id, batch.edit_count)
    rows = connection.exec_driver_sql(
        CANCEL_BATCH,
        (criterion, batch_id),
    ).all()
    # edits that were being appended meanwhile held the batch's row until now, and are seen only by a new statement
    return concerned + (_cancel_open(connection, batch_id) if rows and small else 0)


ESTIMATE_OPEN = Statement(
    """
    SELECT %(edits)s - coalesce((SELECT position FROM edits
                                 WHERE batch_id = %(batch)s AND state = 'pending' AND due_at IS NOT NULL
                                 ORDER BY position LIMIT 1), %(edits)s)
           + (SELECT count(*) FROM edits WHERE batch_id = %(batch)s AND {in_flight})
""",
    in_flight=edit_in_flight("edits"),
    index="edits_open",
)


def _estimate_open(connection: Connection, batch_id: UUID, edits: int) -> int:
    """How many edits of a large batch are open, at most: everything from the first pending one on, and what is in
    flight. To count millions would take longer than whoever asks should wait."""
    return int(
        connection.exec_driver_sql(
            ESTIMATE_OPEN,
            {"edits": edits, "batch": batch_id},
        ).scalar_one()
    )


CANCELLED_WITH_OPEN_EDITS = Statement(
    """
    SELECT b.id FROM batches b
    WHERE b.cancelled_at IS NOT NULL AND b.finished_at IS NULL AND {to_cancel}
    ORDER BY b.cancelled_at, b.id
    """,
    to_cancel=has_edits(TO_CANCEL, "e.cancel_requested_at IS NULL"),
    index="edits_open",
)


def cancelled_with_open_edits(connection: Connection) -> list[UUID]:
    """Cancelled batches of which edits are still to be cancelled: large ones, or where an edit came back meanwhile."""
    rows = connection.exec_driver_sql(CANCELLED_WITH_OPEN_EDITS)
    return list(rows.scalars())


CANCEL_CHUNK = Statement(
    """
    WITH next AS (
        SELECT id, position FROM edits
        WHERE batch_id = %(batch)s AND state = 'pending' AND due_at IS NOT NULL AND position > %(after)s
        ORDER BY position LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ), cancelled AS (
        UPDATE edits e
        SET cancel_requested_at = now(), state = 'cancelled', due_at = NULL, finished_at = now()
        FROM next WHERE e.id = next.id AND e.state = 'pending'
    )
    SELECT max(position) FROM next
""",
    index="edits_open",
)


def cancel_chunk(connection: Connection, batch_id: UUID, *, after: int) -> int | None:
    """Cancel the next pending edits of a cancelled batch, and request it for all that is in flight.

    `after` is the position up to which it was done before, -1 at first. Answers the position that is reached, None once
    nothing pending is left. A transaction of its own: whoever dies leaves nothing half done, and the next begins anew.
    What somebody else holds is left to the next turn.
    """
    _cancel_open(connection, batch_id, states=("submitting", "submitted"))
    rows = connection.exec_driver_sql(
        CANCEL_CHUNK,
        {"batch": batch_id, "after": after, "limit": EDITS_PER_STATEMENT},
    )
    reached = rows.scalar_one()
    return None if reached is None else int(reached)


CANCEL_OPEN = Statement(
    """
    WITH open AS (
        SELECT id, state FROM edits
        WHERE batch_id = %s AND due_at IS NOT NULL AND cancel_requested_at IS NULL AND state = ANY(%s)
        ORDER BY id FOR UPDATE
    ), requested AS (
        UPDATE edits e
        SET cancel_requested_at = now(),
            state = CASE WHEN open.state = 'pending' THEN 'cancelled' ELSE e.state END,
            due_at = CASE WHEN open.state = 'pending' THEN NULL ELSE e.due_at END,
            finished_at = CASE WHEN open.state = 'pending' THEN now() END
        FROM open WHERE e.id = open.id AND e.state = open.state RETURNING e.id
    ), due AS (
        UPDATE submissions s SET due_at = now() FROM requested
        WHERE s.edit_id = requested.id AND s.due_at IS NOT NULL AND s.request_id IS NOT NULL
    )
    SELECT count(*) FROM requested
""",
    index="edits_open submissions_edit",
)


def _cancel_open(
    connection: Connection, batch_id: UUID, states: Sequence[str] = ("pending", "submitting", "submitted")
) -> int:
    rows = connection.exec_driver_sql(
        CANCEL_OPEN,
        (batch_id, list(states)),
    )
    return int(rows.scalar_one())


REQUEST_CANCEL = Statement(
    """
    UPDATE edits e SET cancel_requested_at = coalesce(e.cancel_requested_at, now()) FROM submissions s
    WHERE s.request_id = %s AND s.outcome IS NULL AND e.id = s.edit_id AND e.due_at IS NOT NULL
""",
    index="submissions_request_id_key edits_pkey",
)


def request_cancel(connection: Connection, request_id: str) -> None:
    """Note that the edit in flight whose submission has this request id is to be cancelled."""
    connection.exec_driver_sql(
        REQUEST_CANCEL,
        (request_id,),
    )


RECORD_CANCEL_SENT = Statement(
    "UPDATE submissions SET cancel_sent_at = now() WHERE id = ANY(%s) AND cancel_sent_at IS NULL",
    index="submissions_pkey",
)


def record_cancel_sent(connection: Connection, submission_ids: Sequence[UUID]) -> None:
    """The cancel was sent, whatever the provider answered; it is not sent again."""
    connection.exec_driver_sql(
        RECORD_CANCEL_SENT,
        (list(submission_ids),),
    )


REOPEN_RETRIED_BATCH = Statement(
    "UPDATE batches SET finished_at = NULL, broken_criterion = NULL WHERE id = %s AND pruned_at IS NULL RETURNING id",
    index="batches_pkey",
)


def retry_failed(connection: Connection, batch_id: UUID, error_types: Sequence[str] = ()) -> int:
    """failed -> ready where images are paid for and only their files failed: these are fetched again, not paid again;
    failed -> submitted where a submission of it turned out to be in flight, because what it brings is paid for already;
    every other failed -> pending, with its attempts counted anew. Answers how many edits these are.

    `error_types` takes only edits whose latest error is one of these. A faulty line stays failed. In chunks by key, all
    in the caller's transaction; each edit once.

    Raises:
        Conflict: the batch is being pruned since; the transaction is to be rolled back.
    """
    retried = 0
    reached: int | None = 0
    while reached is not None:
        some, reached = _retry_chunk(connection, batch_id, list(error_types), reached)
        retried += some
    if retried and (not error_types or not OF_INPUTS.isdisjoint(error_types)):
        look_again_at_refused(connection, batch_id)
    if retried and connection.exec_driver_sql(REOPEN_RETRIED_BATCH, (batch_id,)).first() is None:
        raise Conflict(PRUNED)
    return retried


RETRY_CHUNK = Statement(
    """
    WITH next AS MATERIALIZED (
        SELECT id, errors -> -1 ->> 'type' AS type FROM edits
        WHERE batch_id = %(batch)s AND state = 'failed' AND id > %(after)s ORDER BY id LIMIT %(limit)s
    ), chosen AS (
        SELECT id FROM edits
        WHERE id IN (SELECT id FROM next
                     WHERE coalesce(type, '') <> %(invalid)s
                       AND (cardinality(%(types)s::text[]) = 0 OR type = ANY(%(types)s::text[])))
          AND state = 'failed'
        ORDER BY id FOR UPDATE
    ), fetched AS (
        UPDATE images i SET state = 'waiting', due_at = now(), attempt = 0
        FROM submissions s
        WHERE s.id = i.submission_id AND i.state = 'failed' AND s.edit_id IN (SELECT id FROM chosen)
        RETURNING s.edit_id
    ), retried AS (
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
    )
    SELECT (SELECT count(*) FROM retried) AS retried, (SELECT max(id) FROM next) AS reached
""",
    index="edits_failed submissions_edit",
)


def _retry_chunk(connection: Connection, batch_id: UUID, error_types: list[str], after: int) -> tuple[int, int | None]:
    """The next failed edits after a key: how many were retried, and the last key that was looked at."""
    row = connection.exec_driver_sql(
        RETRY_CHUNK,
        {
            "batch": batch_id,
            "after": after,
            "limit": EDITS_PER_STATEMENT,
            "invalid": INVALID_INPUT,
            "types": error_types,
        },
    ).one()
    return int(row.retried), row.reached
