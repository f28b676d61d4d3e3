"""The arrow back of a failure that says nothing about its edit: the model was down."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection

from models.statements import Statement
from models.transitions.submission_ends import REOPEN_BATCHES

EXCUSE_FAILURES = Statement(
    """
    WITH locked AS MATERIALIZED (
        SELECT id FROM edits WHERE id IN (SELECT edit_id FROM submissions WHERE id = ANY(%(ids)s))
        ORDER BY id FOR UPDATE SKIP LOCKED
    ), chosen AS (
        SELECT s.id, s.edit_id, s.attempt,
               row_number() OVER (PARTITION BY s.edit_id ORDER BY s.posted_at)
               + (SELECT count(*) FROM submissions o WHERE o.edit_id = s.edit_id AND o.excused) AS number
        FROM submissions s JOIN locked ON locked.id = s.edit_id
        WHERE s.id = ANY(%(ids)s) AND s.outcome = 'failed' AND NOT s.excused
    ), excused AS (
        UPDATE submissions s SET excused = true FROM chosen
        WHERE s.id = chosen.id AND chosen.number <= %(most)s RETURNING s.edit_id, s.attempt
    ), counted AS (
        SELECT edit_id, count(*) AS failures, max(attempt) AS attempt FROM excused GROUP BY edit_id
    )
    UPDATE edits e
    SET attempts_before = least(e.attempt, e.attempts_before + counted.failures),
        state = CASE WHEN NOT m.again THEN e.state WHEN m.others_open THEN 'submitted' ELSE 'pending' END,
        due_at = CASE WHEN NOT m.again THEN e.due_at WHEN m.others_open THEN now() + interval '1 hour'
                 ELSE now() END,
        finished_at = CASE WHEN m.again THEN NULL ELSE e.finished_at END
    FROM counted JOIN edits o ON o.id = counted.edit_id JOIN batches b ON b.id = o.batch_id
    CROSS JOIN LATERAL (
        SELECT o.state = 'failed' AND o.attempt = counted.attempt AND o.cancel_requested_at IS NULL
               AND b.finished_at IS NULL AND b.cancelled_at IS NULL AS again,
               EXISTS (SELECT FROM submissions s WHERE s.edit_id = o.id AND s.outcome IS NULL) AS others_open
    ) m
    WHERE e.id = counted.edit_id
    RETURNING counted.failures, CASE WHEN m.again THEN e.batch_id END AS batch_id
""",
    index="submissions_pkey edits_pkey",
)


def excuse_failures(connection: Connection, submission_ids: Sequence[UUID], *, most: int) -> int:
    """failed -> pending where such a failure was the last that the edit had; its attempt does not count any more.

    While an earlier submission of the edit is in flight after all, the edit is submitted; nothing is POSTed beside it.

    Each failure is excused once, and at most `most` of one edit, so that an edit that is bad itself ends. An edit that
    somebody else holds is left as it is, since waiting for it here could be a circle; it has lost an attempt. What
    belongs to a batch that is finished or cancelled stays failed: its caller was told. Answers how many were excused.
    """
    rows = connection.exec_driver_sql(
        EXCUSE_FAILURES,
        {"ids": list(submission_ids), "most": most},
    ).all()
    if again := list({row.batch_id for row in rows if row.batch_id}):
        # it may have been finished meanwhile, by someone who saw these edits failed
        connection.exec_driver_sql(REOPEN_BATCHES, (again,))
    return sum(row.failures for row in rows)
