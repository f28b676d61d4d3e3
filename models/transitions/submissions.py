"""The arrows of submitting: written down, accepted, taken back, refused, revealed, given up.

At most one submission of an edit is POSTed while another is open. But one that was given up, or taken back, may show
itself while its successor is in flight; then both are open, and the edit ends with the last of them.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.criteria import MAX_IMAGES_SQL
from models.predicates import submission_open
from models.statements import RowSet, Statement, fill
from models.transitions.submission_ends import LARGE_RESULT_KEPT, RESULT_KEPT

_OTHER_OPEN = fill(
    "EXISTS (SELECT FROM submissions o WHERE o.edit_id = s.edit_id AND o.id <> s.id AND {open})",
    open=submission_open("o"),
)
"""SQL: another submission than `s` of its edit is in flight. True to the moment only while the edit is locked by a
statement before."""
NEW_ID = """(lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint), 12, '0')
               || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid"""
"""SQL: a UUID of version 7 (RFC 9562): the time `at` in milliseconds, and 74 random bits. Ids that rise with time keep
what is under way close together in every index that begins with one, however large it is."""
OPEN_OVERDUE_AFTER = 3600.0
"""Seconds until an edit counts as overdue that waits for an earlier submission of its own."""


class Submission(NamedTuple):
    """A submission written down, not yet POSTed."""

    id: UUID
    edit_id: int
    attempt: int
    endpoint: str
    arguments: dict[str, object]
    seed: int


START_SUBMISSIONS = Statement(
    """
    WITH moved AS (
        UPDATE edits e
        SET state = 'submitting', attempt = attempt + 1, due_at = now() + %(deadline)s * interval '1 s'
        WHERE id = ANY(%(ids)s) AND state = 'pending' AND cancel_requested_at IS NULL
          AND NOT EXISTS (SELECT FROM submissions s WHERE s.edit_id = e.id AND {open})
        RETURNING id, batch_id, attempt, arguments, seed, {max_images} AS images_most
    ), written AS (
        INSERT INTO submissions (id, edit_id, attempt, due_at, price, reserved)
        SELECT {new_id}, id, attempt, now() + %(deadline)s * interval '1 s',
               %(price)s, images_most * %(price)s::numeric FROM moved
        RETURNING id, edit_id
    )
    SELECT written.id, moved.id, moved.attempt, batches.endpoint, moved.arguments, moved.seed
    FROM written JOIN moved ON moved.id = written.edit_id JOIN batches ON batches.id = moved.batch_id
""",
    index="edits_pkey submissions_open",
    new_id=fill(NEW_ID, at="clock_timestamp()"),
    max_images=MAX_IMAGES_SQL,
    open=submission_open("s"),
)


def start_submissions(
    connection: Connection, edit_ids: Sequence[int], *, unknown_deadline: float, price: Decimal
) -> list[Submission]:
    """pending -> submitting: write down one submission per edit, before any POST, with what it may cost.

    The new submission's id cannot be guessed (`NEW_ID`) and becomes the token in the webhook URL.
    If nothing is heard for `unknown_deadline` seconds, the POST is dead. `price` is that of one image, in USD. An edit
    of which a submission is in flight gets none (`guards.py` refuses it too).
    """
    rows = connection.exec_driver_sql(
        START_SUBMISSIONS,
        {"ids": list(edit_ids), "deadline": unknown_deadline, "price": price},
    )
    return [Submission(*row) for row in rows]


_REPLIES = RowSet("r", id="uuid", request_id="text")
RECORD_ACCEPTED = Statement(
    """
    WITH reply AS (
        SELECT DISTINCT ON (request_id) id, request_id
        FROM {replies}
    ), locked AS (
        SELECT e.id FROM edits e JOIN submissions s ON s.edit_id = e.id JOIN reply ON reply.id = s.id
        ORDER BY e.id FOR UPDATE OF e
    ), known AS (
        UPDATE submissions s
        SET request_id = reply.request_id, accepted_at = now(),
            outcome = NULL, error_type = NULL, completed_at = NULL,
            denials = 0, denied_since = NULL, searched_to = NULL, searched_from = NULL, note = NULL,
            due_at = CASE WHEN o.cancel_requested_at IS NULL THEN now() + %(poll_after)s * interval '1 s'
                     ELSE now() END,
            result_lost_after = now() + interval '1 s' * CASE WHEN o.arguments ->> 'sync_mode' = 'true'
                                THEN %(large_kept)s::float8 ELSE %(kept)s::float8 END
        FROM reply, edits o
        WHERE s.id = reply.id AND o.id = s.edit_id AND s.request_id IS DISTINCT FROM reply.request_id
          AND (s.outcome IS NULL OR s.outcome = 'unknown') AND s.edit_id IN (SELECT id FROM locked)
          AND NOT EXISTS (SELECT FROM submissions other WHERE other.request_id = reply.request_id)
        RETURNING s.edit_id, s.attempt
    )
    UPDATE edits e SET state = 'submitted', due_at = now() + %(deadline)s * interval '1 s',
                       attempt = greatest(e.attempt, known.attempt)
    FROM known WHERE e.id = known.edit_id
      AND (e.state = 'pending' OR (e.state = 'submitting' AND e.attempt = known.attempt))
""",
    replies=_REPLIES,
    index="submissions_pkey edits_pkey submissions_request_id_key",
)


def record_accepted(
    connection: Connection, replies: Sequence[tuple[UUID, str]], *, poll_after: float, unknown_deadline: float
) -> None:
    """submitting -> submitted: the provider gave request ids.

    A callback may have come first (provider-protocol 14.3): then the submission has its request id already, and
    nothing moves. Where a callback named another one, the reply is believed: nobody but the provider can give it, while
    a callback is anybody's who knows the token, until our account is known. A reply recorded after its submission was
    given up opens it again: it is asked about, and an edit that waits to be submitted again waits for it instead. A
    request id that another submission carries is not believed; that submission stays unknown.
    """
    connection.exec_driver_sql(
        RECORD_ACCEPTED,
        {
            **_REPLIES.arrays(replies),
            "poll_after": poll_after,
            "deadline": unknown_deadline,
            "kept": RESULT_KEPT,
            "large_kept": LARGE_RESULT_KEPT,
        },
    )


REVERT_UNSENT = Statement(
    """
    WITH closed AS (
        UPDATE submissions s
        SET outcome = 'rejected', learned_by = 'reply', error_type = %(reason)s, due_at = NULL, completed_at = now()
        WHERE s.id = ANY(%(ids)s) AND s.outcome IS NULL AND s.request_id IS NULL
        RETURNING s.edit_id, {other_open} AS others_open
    )
    UPDATE edits e
    SET attempt = e.attempt - 1,
        state = m.state,
        due_at = CASE m.state WHEN 'pending' THEN now() + %(delay)s * interval '1 s'
                 WHEN 'submitted' THEN now() + %(overdue)s * interval '1 s' END,
        finished_at = CASE m.state WHEN 'cancelled' THEN now() END
    FROM closed JOIN edits o ON o.id = closed.edit_id CROSS JOIN LATERAL (SELECT CASE
        WHEN closed.others_open THEN 'submitted'
        WHEN o.cancel_requested_at IS NULL THEN 'pending'
        ELSE 'cancelled' END AS state) m
    WHERE e.id = closed.edit_id AND e.state = 'submitting'
""",
    index="submissions_pkey|submissions_open edits_pkey",
    other_open=_OTHER_OPEN,
)


def revert_unsent(connection: Connection, submission_ids: Sequence[UUID], *, reason: str, delay: float) -> None:
    """submitting -> pending (or cancelled, where that was requested): certainly not accepted, so not an attempt.

    For what never left this machine and for refusals of the account; no edit fails for either. While an earlier
    submission of the edit is in flight after all, the edit is submitted.
    """
    lock_edits(connection, submission_ids)
    connection.exec_driver_sql(
        REVERT_UNSENT,
        {"ids": list(submission_ids), "reason": reason, "delay": delay, "overdue": OPEN_OVERDUE_AFTER},
    )


class Refusal(NamedTuple):
    """A POST that the provider refused for good, in its own words."""

    submission_id: UUID
    type: str
    message: str


_REFUSALS = RowSet("m", id="uuid", type="text", message="text")
RECORD_REFUSED = Statement(
    """
    WITH closed AS (
        UPDATE submissions s
        SET outcome = 'rejected', learned_by = 'reply', error_type = m.type, due_at = NULL, completed_at = now()
        FROM {refusals}
        WHERE s.id = m.id AND s.outcome IS NULL AND s.request_id IS NULL
        RETURNING s.edit_id, s.attempt, m.type, m.message, {other_open} AS others_open
    )
    UPDATE edits e
    SET state = CASE WHEN closed.others_open THEN 'submitted' ELSE 'failed' END,
        due_at = CASE WHEN closed.others_open THEN now() + %(overdue)s * interval '1 s' END,
        finished_at = CASE WHEN NOT closed.others_open THEN now() END,
        errors = e.errors || jsonb_build_array(jsonb_build_object(
            'at', now(), 'attempt', closed.attempt, 'type', closed.type, 'message', closed.message))
    FROM closed WHERE e.id = closed.edit_id AND e.state = 'submitting'
""",
    refusals=_REFUSALS,
    index="submissions_pkey|submissions_open edits_pkey",
    other_open=_OTHER_OPEN,
)


def record_refused(connection: Connection, refusals: Sequence[Refusal]) -> None:
    """submitting -> failed: this request was certainly not accepted, and the answer is final.

    While an earlier submission of the edit is in flight after all, the edit is submitted: that one may succeed.
    """
    if not refusals:
        return
    lock_edits(connection, [refusal.submission_id for refusal in refusals])
    connection.exec_driver_sql(
        RECORD_REFUSED,
        {
            **_REFUSALS.arrays(refusals),
            "overdue": OPEN_OVERDUE_AFTER,
        },
    )


ATTACH_REQUEST_ID = Statement(
    """
    WITH known AS (
        UPDATE submissions s
        SET request_id = coalesce(request_id, %(request)s), accepted_at = coalesce(accepted_at, now()),
            result_lost_after = coalesce(result_lost_after, now() + %(kept)s * interval '1 s'),
            due_at = now(), outcome = NULL, learned_by = NULL, error_type = NULL, completed_at = NULL,
            cost = NULL, billable_units = NULL, may_be_charged = false,
            denials = 0, denied_since = NULL, searched_to = NULL, searched_from = NULL, note = NULL
        WHERE id = %(id)s
          AND (outcome IS NULL OR outcome IN ('unknown', 'rejected') OR error_type = 'result_expired')
        RETURNING s.edit_id, s.attempt, {other_open} AS others_open
    )
    UPDATE edits e SET state = 'submitted', due_at = now() + %(deadline)s * interval '1 s',
                       attempt = greatest(e.attempt, known.attempt)
    FROM known WHERE e.id = known.edit_id
      -- a POST that was taken back left its number to the next, which may be the one in flight
      AND (e.state = 'pending' OR (e.state = 'submitting' AND e.attempt = known.attempt AND NOT known.others_open))
""",
    index="submissions_pkey edits_pkey",
    other_open=_OTHER_OPEN,
)


def attach_request_id(connection: Connection, submission_id: UUID, request_id: str, *, overdue_after: float) -> None:
    """submitting or pending -> submitted: a request id becomes known otherwise than by the reply.

    By a callback whose body cannot be used as it is, or by the listing; asked for by the poll lane at once. Opens a
    submission again that was given up or taken back. The edit must be locked (`lock_edits`).
    """
    connection.exec_driver_sql(
        ATTACH_REQUEST_ID,
        {"id": submission_id, "request": request_id, "deadline": overdue_after, "kept": LARGE_RESULT_KEPT},
    )


class DenialCount(StrEnum):
    """What the latest question about a submission does to the number of denials in a row."""

    ADD = "add"
    """One more: the provider says there is no such request. That is believed only after several, over time."""
    RESET = "reset"
    """None: the provider answered something else."""
    KEEP = "keep"
    """As it was: the provider did not answer."""


class NextPoll(NamedTuple):
    """When an open submission is asked about again, and why it has to be."""

    submission_id: UUID
    delay: float
    """Seconds."""
    note: str | None = None
    denials: DenialCount = DenialCount.KEEP
    searched_to: datetime | None = None
    """The listing, newest first, is read down to requests that ended then; NULL once it is read to its end."""
    searched_from: datetime | None = None
    """When the newest request in the listing had ended as the reading began."""


_POSTPONED = RowSet(
    "m",
    id="uuid",
    delay="float8",
    note="text",
    denials="text",
    searched_to="timestamptz",
    searched_from="timestamptz",
)
SCHEDULE_POLL = Statement(
    """
    UPDATE submissions s
    SET due_at = now() + m.delay * interval '1 s', note = m.note,
        denials = CASE m.denials WHEN 'add' THEN s.denials + 1 WHEN 'reset' THEN 0 ELSE s.denials END,
        denied_since = CASE m.denials WHEN 'add' THEN coalesce(s.denied_since, now())
                       WHEN 'keep' THEN s.denied_since END,
        searched_to = m.searched_to, searched_from = m.searched_from
    FROM {postponed}
    WHERE s.id = m.id AND s.due_at IS NOT NULL
""",
    postponed=_POSTPONED,
    index="submissions_pkey|submissions_due",
)


def schedule_poll(connection: Connection, postponed: Sequence[NextPoll]) -> None:
    """Put the next question about open submissions off, and note what the last one brought."""
    if not postponed:
        return
    connection.exec_driver_sql(
        SCHEDULE_POLL,
        _POSTPONED.arrays(entry._replace(delay=float(entry.delay)) for entry in postponed),
    )


RESOLVE_UNKNOWN = Statement(
    """
    WITH closed AS (
        UPDATE submissions s
        SET outcome = 'unknown', due_at = NULL, completed_at = now(), error_type = 'submission_unknown',
            denials = 0, denied_since = NULL, searched_to = NULL, searched_from = NULL, note = %(note)s
        WHERE s.id = ANY(%(ids)s) AND s.outcome IS NULL AND s.request_id IS NULL
        RETURNING s.edit_id, s.attempt, {other_open} AS others_open
    )
    UPDATE edits e
    SET state = m.state,
        due_at = CASE m.state WHEN 'pending' THEN now()
                 WHEN 'submitted' THEN now() + %(overdue)s * interval '1 s' END,
        finished_at = CASE WHEN m.state IN ('failed', 'cancelled') THEN now() END,
        errors = e.errors || jsonb_build_array(jsonb_build_object(
            'at', now(), 'attempt', closed.attempt, 'type', 'submission_unknown', 'message', %(message)s::text))
    FROM closed JOIN edits o ON o.id = closed.edit_id JOIN batches b ON b.id = o.batch_id
    CROSS JOIN LATERAL (SELECT CASE
        WHEN closed.others_open THEN 'submitted'
        WHEN o.cancel_requested_at IS NOT NULL THEN 'cancelled'
        WHEN %(resubmit)s AND o.attempt - o.attempts_before < coalesce(b.max_attempts, %(max_attempts)s)
            THEN 'pending'
        ELSE 'failed' END AS state) m
    WHERE e.id = closed.edit_id AND e.state = 'submitting' AND e.attempt = closed.attempt
""",
    index="submissions_pkey|submissions_open edits_pkey",
    other_open=_OTHER_OPEN,
)


def resolve_unknown(
    connection: Connection,
    submission_ids: Sequence[UUID],
    *,
    resubmit: bool,
    max_attempts: int,
    note: str | None = None,
) -> None:
    """submitting -> pending (or failed, where parked; or cancelled, where requested): the POST is proven dead.

    `note` says by what.

    Past the unknown deadline an accepted request would have started and ended, or ended unstarted, and its
    callback would have come. Should its result show after all, the submission turns `succeeded`. While an earlier
    submission of the edit is in flight after all, the edit is submitted.
    """
    lock_edits(connection, submission_ids)
    connection.exec_driver_sql(
        RESOLVE_UNKNOWN,
        {
            "ids": list(submission_ids),
            "note": note,
            "resubmit": resubmit,
            "max_attempts": max_attempts,
            "overdue": OPEN_OVERDUE_AFTER,
            "message": "The submit's outcome stayed unknown past the unknown deadline; it may have been charged.",
        },
    )


LOCK_EDITS = Statement(
    """
    SELECT FROM edits WHERE id IN (SELECT edit_id FROM submissions WHERE id = ANY(%s)) ORDER BY id FOR UPDATE
""",
    index="submissions_pkey edits_pkey",
)


def lock_edits(connection: Connection, submission_ids: Sequence[UUID]) -> None:
    """Lock the edits of these submissions, in a statement of its own.

    What the next statement sees of the other submissions is then true until the transaction ends: whoever waited here
    would else judge by the snapshot from before.
    """
    connection.exec_driver_sql(
        LOCK_EDITS,
        (list(submission_ids),),
    )
