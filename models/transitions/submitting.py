"""The arrows of submitting: written down, accepted, taken back, revealed, given up."""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.criteria import IMAGES_MOST

RESULT_KEPT, LARGE_RESULT_KEPT = 3600.0, 360.0
"""Seconds for which the provider keeps a result after completion; the shorter one from 10 KB on (fal-protocol 2.4).
Counted from acceptance, because the provider does not tell when it completed: the poll lane's order, no verdict."""


class Submission(NamedTuple):
    """A submission written down, not yet POSTed."""

    id: UUID
    edit_id: int
    attempt: int
    endpoint: str
    arguments: dict[str, object]
    seed: int


def start_submissions(
    connection: Connection, edit_ids: Sequence[int], *, patience: float, price: Decimal
) -> list[Submission]:
    """pending -> submitting: write down one submission per edit, before any POST, with what it may cost.

    The new submission's id is random (PostgreSQL's `gen_random_uuid`) and becomes the token in the webhook URL.
    `patience` (seconds) is the proven deadline: if nothing is heard by then, the POST is dead. `price` is that of
    one picture, in USD.
    """
    rows = connection.exec_driver_sql(
        f"""
        WITH moved AS (
            UPDATE edits e
            SET state = 'submitting', attempt = attempt + 1, due_at = now() + %(patience)s * interval '1 s'
            WHERE id = ANY(%(ids)s) AND state = 'pending' AND cancel_requested_at IS NULL
            RETURNING id, batch_id, attempt, arguments, seed, {IMAGES_MOST} AS images_most
        ), written AS (
            INSERT INTO submissions (id, edit_id, attempt, due_at, price, reserved)
            SELECT gen_random_uuid(), id, attempt, now() + %(patience)s * interval '1 s',
                   %(price)s, images_most * %(price)s::numeric FROM moved
            RETURNING id, edit_id
        )
        SELECT written.id, moved.id, moved.attempt, batches.endpoint, moved.arguments, moved.seed
        FROM written JOIN moved ON moved.id = written.edit_id JOIN batches ON batches.id = moved.batch_id
        """,  # noqa: S608 - a constant of ours
        {"ids": list(edit_ids), "patience": patience, "price": price},
    )
    return [Submission(*row) for row in rows]


def record_accepted(
    connection: Connection, replies: Sequence[tuple[UUID, str]], *, poll_after: float, patience: float
) -> None:
    """submitting -> submitted: the provider gave request ids.

    A callback may have come first (fal-protocol 14.3): then the submission has its request id already, and
    nothing moves. A reply recorded after its submission was given up opens it again: it is asked about. A
    request id that another submission carries is not believed; that submission stays unknown.
    """
    connection.exec_driver_sql(
        """
        WITH reply AS (
            SELECT DISTINCT ON (request_id) id, request_id
            FROM unnest(%(ids)s::uuid[], %(requests)s::text[]) AS r (id, request_id)
        ), locked AS (
            SELECT e.id FROM edits e JOIN submissions s ON s.edit_id = e.id JOIN reply ON reply.id = s.id
            ORDER BY e.id FOR UPDATE OF e
        ), known AS (
            UPDATE submissions s
            SET request_id = reply.request_id, accepted_at = now(),
                outcome = NULL, error_type = NULL, completed_at = NULL,
                due_at = CASE WHEN o.cancel_requested_at IS NULL THEN now() + %(poll_after)s * interval '1 s'
                         ELSE now() END,
                result_lost_after = now() + interval '1 s' * CASE WHEN o.arguments ->> 'sync_mode' = 'true'
                                    THEN %(large_kept)s ELSE %(kept)s END
            FROM reply, edits o
            WHERE s.id = reply.id AND o.id = s.edit_id AND s.request_id IS NULL
              AND (s.outcome IS NULL OR s.outcome = 'unknown') AND s.edit_id IN (SELECT id FROM locked)
              AND NOT EXISTS (SELECT FROM submissions other WHERE other.request_id = reply.request_id)
            RETURNING s.edit_id, s.attempt
        )
        UPDATE edits e SET state = 'submitted', due_at = now() + %(patience)s * interval '1 s'
        FROM known WHERE e.id = known.edit_id AND e.attempt = known.attempt AND e.state = 'submitting'
        """,
        {
            "ids": [submission_id for submission_id, _ in replies],
            "requests": [request_id for _, request_id in replies],
            "poll_after": poll_after,
            "patience": patience,
            "kept": RESULT_KEPT,
            "large_kept": LARGE_RESULT_KEPT,
        },
    )


def take_back(connection: Connection, submission_ids: Sequence[UUID], *, reason: str, delay: float) -> None:
    """submitting -> pending (or cancelled, where that was wished): certainly not accepted, so not an attempt.

    For what never left this machine and for refusals of the account; no edit fails for either.
    """
    connection.exec_driver_sql(
        """
        WITH locked AS (
            SELECT s.id, s.edit_id FROM submissions s JOIN edits e ON e.id = s.edit_id
            WHERE s.id = ANY(%(ids)s) AND s.outcome IS NULL AND s.request_id IS NULL
            ORDER BY e.id FOR UPDATE OF e, s
        ), closed AS (
            UPDATE submissions s
            SET outcome = 'rejected', learned_by = 'reply', error_type = %(reason)s, due_at = NULL, completed_at = now()
            FROM locked WHERE s.id = locked.id RETURNING s.edit_id
        )
        UPDATE edits e
        SET attempt = e.attempt - 1,
            state = CASE WHEN cancel_requested_at IS NULL THEN 'pending' ELSE 'cancelled' END,
            due_at = CASE WHEN cancel_requested_at IS NULL THEN now() + %(delay)s * interval '1 s' END,
            finished_at = CASE WHEN cancel_requested_at IS NULL THEN NULL ELSE now() END
        FROM closed WHERE e.id = closed.edit_id AND e.state = 'submitting'
        """,
        {"ids": list(submission_ids), "reason": reason, "delay": delay},
    )


def reveal_request(connection: Connection, submission_id: UUID, request_id: str, *, patience: float) -> None:
    """submitting -> submitted by a callback whose body cannot be used as it is: asked for by the poll lane at once."""
    connection.exec_driver_sql(
        """
        WITH known AS (
            UPDATE submissions
            SET request_id = coalesce(request_id, %(request)s), accepted_at = coalesce(accepted_at, now()),
                due_at = now(), outcome = NULL, learned_by = NULL, error_type = NULL, completed_at = NULL
            WHERE id = %(id)s
              AND (outcome IS NULL OR outcome IN ('unknown', 'rejected') OR error_type = 'result_expired')
            RETURNING edit_id, attempt
        )
        UPDATE edits e SET state = 'submitted', due_at = now() + %(patience)s * interval '1 s'
        FROM known WHERE e.id = known.edit_id AND e.attempt = known.attempt AND e.state = 'submitting'
          -- a POST that was taken back left its number to the next, which may be the one in flight
          AND NOT EXISTS (SELECT FROM submissions o WHERE o.edit_id = e.id AND o.id <> %(id)s AND o.outcome IS NULL)
        """,
        {"id": submission_id, "request": request_id, "patience": patience},
    )


def poll_again(connection: Connection, delays: Sequence[tuple[UUID, float]]) -> None:
    """Put the next question about open submissions off by so many seconds each."""
    if not delays:
        return
    connection.exec_driver_sql(
        """
        UPDATE submissions s SET due_at = now() + m.delay * interval '1 s'
        FROM unnest(%(ids)s::uuid[], %(delays)s::float8[]) AS m (id, delay)
        WHERE s.id = m.id AND s.due_at IS NOT NULL
        """,
        {"ids": [submission_id for submission_id, _ in delays], "delays": [float(delay) for _, delay in delays]},
    )


def give_up_unknown(
    connection: Connection, submission_ids: Sequence[UUID], *, resubmit: bool, max_attempts: int
) -> None:
    """submitting -> pending (or failed, where parked; or cancelled, where wished): the POST is proven dead.

    Past the proven deadline an accepted request would have started and ended, or ended unstarted, and its
    callback would have come. Should its result show after all, the submission turns `succeeded`, `doubled`.
    """
    connection.exec_driver_sql(
        """
        WITH dead AS (
            SELECT s.id, s.edit_id FROM submissions s JOIN edits e ON e.id = s.edit_id
            WHERE s.id = ANY(%(ids)s) AND s.outcome IS NULL AND s.request_id IS NULL
            ORDER BY e.id FOR UPDATE OF e, s
        ), closed AS (
            UPDATE submissions s
            SET outcome = 'unknown', due_at = NULL, completed_at = now(), error_type = 'submission_unknown'
            FROM dead WHERE s.id = dead.id RETURNING s.edit_id, s.attempt
        )
        UPDATE edits e
        SET state = m.state, due_at = CASE WHEN m.state = 'pending' THEN now() END,
            finished_at = CASE WHEN m.state <> 'pending' THEN now() END,
            errors = e.errors || jsonb_build_array(jsonb_build_object(
                'at', now(), 'attempt', closed.attempt, 'type', 'submission_unknown', 'message', %(message)s::text))
        FROM closed JOIN edits o ON o.id = closed.edit_id JOIN batches b ON b.id = o.batch_id
        CROSS JOIN LATERAL (SELECT CASE
            WHEN o.cancel_requested_at IS NOT NULL THEN 'cancelled'
            WHEN %(resubmit)s AND o.attempt - o.attempts_before < coalesce(b.max_attempts, %(max_attempts)s)
                THEN 'pending'
            ELSE 'failed' END AS state) m
        WHERE e.id = closed.edit_id AND e.state = 'submitting' AND e.attempt = closed.attempt
        """,
        {
            "ids": list(submission_ids),
            "resubmit": resubmit,
            "max_attempts": max_attempts,
            "message": "The submit's outcome stayed unknown past the proven deadline; it may have been charged.",
        },
    )
