"""The arrows: the only file that writes a `state` column.

Each function moves a set of rows in one or two guarded statements and belongs into the caller's transaction.
A row that somebody else moved first is simply not moved: losing the race is an answer, not an error. Rows
are always locked edit first, then its submissions and images, in the order of edit ids, so that two sets that
overlap wait for each other instead of deadlocking. What a verdict means is decided in `rulings.py`.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from models.states import EDIT_ARROWS, FINAL, EditState, LearnedBy, Outcome
from models.verdict import DeclaredImage

ERRORS_KEPT = 50
"""Entries an edit's `errors` list may hold; the oldest go first. Attempts are bounded far below this."""

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


class EditMove(NamedTuple):
    """One edit's step along an arrow; `delay` (seconds) is when the new state next needs attention."""

    edit_id: int
    was: EditState
    state: EditState
    delay: float
    error: dict[str, object] | None = None


def start_submissions(connection: Connection, edit_ids: Sequence[int], *, patience: float) -> list[Submission]:
    """pending -> submitting: write down one submission per edit, before any POST.

    The new submission's id is random (PostgreSQL's `gen_random_uuid`) and becomes the token in the webhook URL.
    `patience` (seconds) is the proven deadline: if nothing is heard by then, the POST is dead.
    """
    rows = connection.exec_driver_sql(
        """
        WITH moved AS (
            UPDATE edits SET state = 'submitting', attempt = attempt + 1, due_at = now() + %(patience)s * interval '1 s'
            WHERE id = ANY(%(ids)s) AND state = 'pending' AND cancel_requested_at IS NULL
            RETURNING id, batch_id, attempt, arguments, seed
        ), written AS (
            INSERT INTO submissions (id, edit_id, attempt, due_at)
            SELECT gen_random_uuid(), id, attempt, now() + %(patience)s * interval '1 s' FROM moved
            RETURNING id, edit_id
        )
        SELECT written.id, moved.id, moved.attempt, batches.endpoint, moved.arguments, moved.seed
        FROM written JOIN moved ON moved.id = written.edit_id JOIN batches ON batches.id = moved.batch_id
        """,
        {"ids": list(edit_ids), "patience": patience},
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
                due_at = now() + %(poll_after)s * interval '1 s',
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


def move_edits(connection: Connection, moves: Sequence[EditMove]) -> set[int]:
    """Any arrow of `states.EDIT_ARROWS`, for a set of edits; returns the ids that really moved.

    Every move names the state it starts from; a row that is no longer there stays as it is. A final edit that
    moves on again (a retry, a late result) opens its batch again, in the same transaction.
    """
    if not moves:
        return set()
    for move in moves:
        if (move.was, move.state) not in EDIT_ARROWS:
            raise AssertionError(f"there is no arrow from {move.was} to {move.state}")
    rows = connection.exec_driver_sql(
        """
        UPDATE edits e
        SET state = m.state,
            due_at = CASE WHEN m.final THEN NULL ELSE now() + m.delay * interval '1 s' END,
            finished_at = CASE WHEN m.final THEN now() END,
            errors = CASE WHEN m.error IS NULL THEN e.errors ELSE
                jsonb_path_query_array(e.errors || jsonb_build_array(jsonb_build_object('at', now()) || m.error),
                                       %(kept)s::jsonpath) END
        FROM unnest(%(ids)s::bigint[], %(was)s::text[], %(states)s::text[], %(finals)s::boolean[], %(delays)s::float8[],
                    %(errors)s::jsonb[]) AS m (id, was, state, final, delay, error)
        WHERE e.id = m.id AND e.state = m.was
        RETURNING e.id, e.batch_id
        """,
        {
            "ids": [move.edit_id for move in moves],
            "was": [move.was.value for move in moves],
            "states": [move.state.value for move in moves],
            "finals": [move.state in FINAL for move in moves],
            "delays": [float(move.delay) for move in moves],
            "errors": [None if move.error is None else Jsonb(move.error) for move in moves],
            "kept": f"$[last - {ERRORS_KEPT - 1} to last]",
        },
    ).all()
    woken = {move.edit_id for move in moves if move.was in FINAL}
    reopened = {batch_id for edit_id, batch_id in rows if edit_id in woken}
    if reopened:
        connection.exec_driver_sql("UPDATE batches SET finished_at = NULL WHERE id = ANY(%s)", (list(reopened),))
    return {edit_id for edit_id, _ in rows}


class SubmissionEnd(NamedTuple):
    """What became of one submission."""

    id: UUID
    request_id: str | None
    outcome: Outcome
    learned_by: LearnedBy | None
    error_type: str | None = None
    images_returned: int | None = None
    cost: Decimal | None = None
    doubled: bool = False


def close_submissions(connection: Connection, ends: Sequence[SubmissionEnd]) -> None:
    """Write down how submissions ended; one that had been given up as unknown may still turn out otherwise."""
    if not ends:
        return
    connection.exec_driver_sql(
        """
        UPDATE submissions s
        SET outcome = m.outcome, learned_by = m.learned_by, error_type = m.error_type, due_at = NULL,
            completed_at = now(), images_returned = m.images_returned, cost = m.cost, doubled = m.doubled,
            request_id = coalesce(s.request_id, m.request_id),
            accepted_at = CASE WHEN coalesce(s.request_id, m.request_id) IS NOT NULL
                          THEN coalesce(s.accepted_at, now()) END
        FROM unnest(%(ids)s::uuid[], %(requests)s::text[], %(outcomes)s::text[], %(learned)s::text[],
                    %(types)s::text[], %(images)s::integer[], %(costs)s::numeric[], %(doubled)s::boolean[])
             AS m (id, request_id, outcome, learned_by, error_type, images_returned, cost, doubled)
        WHERE s.id = m.id
          AND (s.outcome IS NULL OR s.outcome IN ('unknown', 'rejected') OR s.error_type = 'result_expired')
        """,
        {
            "ids": [end.id for end in ends],
            "requests": [end.request_id for end in ends],
            "outcomes": [end.outcome.value for end in ends],
            "learned": [end.learned_by and end.learned_by.value for end in ends],
            "types": [end.error_type for end in ends],
            "images": [end.images_returned for end in ends],
            "costs": [end.cost for end in ends],
            "doubled": [end.doubled for end in ends],
        },
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
            WHEN %(resubmit)s AND o.attempt < coalesce(b.max_attempts, %(max_attempts)s) THEN 'pending'
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


def add_images(connection: Connection, found: Sequence[tuple[UUID, bool, Sequence[DeclaredImage]]]) -> None:
    """Note the pictures that submissions returned: waiting, or discarded where others were taken first."""
    if not found:
        return
    rows = [
        (submission_id, index, "waiting" if taken else "discarded", image)
        for submission_id, taken, images in found
        for index, image in enumerate(images)
    ]
    connection.exec_driver_sql(
        """
        INSERT INTO images (submission_id, index, state, due_at,
                            url, content_type, file_name, file_size, width, height)
        SELECT m.submission_id, m.index, m.state, CASE WHEN m.state = 'waiting' THEN now() END, m.url,
               m.content_type, m.file_name, m.file_size, m.width, m.height
        FROM unnest(%(ids)s::uuid[], %(indexes)s::integer[], %(states)s::text[], %(urls)s::text[], %(types)s::text[],
                    %(names)s::text[], %(sizes)s::bigint[], %(widths)s::integer[], %(heights)s::integer[])
             AS m (submission_id, index, state, url, content_type, file_name, file_size, width, height)
        """,
        {
            "ids": [row[0] for row in rows],
            "indexes": [row[1] for row in rows],
            "states": [row[2] for row in rows],
            "urls": [row[3].url for row in rows],
            "types": [row[3].content_type for row in rows],
            "names": [row[3].file_name for row in rows],
            "sizes": [row[3].file_size for row in rows],
            "widths": [row[3].width for row in rows],
            "heights": [row[3].height for row in rows],
        },
    )


class StoredImage(NamedTuple):
    """One picture that is in storage, as measured from its bytes."""

    image_id: int
    storage_key: str
    sha256: str
    stored_bytes: int
    stored_type: str
    stored_width: int
    stored_height: int


def record_stored(connection: Connection, stored: Sequence[StoredImage]) -> None:
    """Pictures waiting -> stored, and their edits ready -> stored where these were the last."""
    edit_ids = _lock_edits_of_images(connection, [image.image_id for image in stored])
    connection.exec_driver_sql(
        """
        UPDATE images i
        SET state = 'stored', due_at = NULL, stored_at = now(), storage_key = m.key, sha256 = m.sha256,
            stored_bytes = m.bytes, stored_type = m.type, stored_width = m.width, stored_height = m.height
        FROM unnest(%(ids)s::bigint[], %(keys)s::text[], %(hashes)s::text[], %(sizes)s::bigint[], %(types)s::text[],
                    %(widths)s::integer[], %(heights)s::integer[])
             AS m (id, key, sha256, bytes, type, width, height)
        WHERE i.id = m.id AND i.state = 'waiting'
        """,
        {
            "ids": [image.image_id for image in stored],
            "keys": [image.storage_key for image in stored],
            "hashes": [image.sha256 for image in stored],
            "sizes": [image.stored_bytes for image in stored],
            "types": [image.stored_type for image in stored],
            "widths": [image.stored_width for image in stored],
            "heights": [image.stored_height for image in stored],
        },
    )
    _finish_edits(connection, edit_ids)


class ImageFault(NamedTuple):
    """Why one picture could not be stored; `delay` (seconds) until it is fetched again, None: never."""

    image_id: int
    type: str
    message: str
    delay: float | None


def record_image_faults(connection: Connection, faults: Sequence[ImageFault]) -> None:
    """Pictures that stay waiting for another try, or waiting -> failed, and then their edits ready -> failed."""
    edit_ids = _lock_edits_of_images(connection, [fault.image_id for fault in faults])
    connection.exec_driver_sql(
        """
        UPDATE images i
        SET state = CASE WHEN m.delay IS NULL THEN 'failed' ELSE 'waiting' END,
            due_at = now() + m.delay * interval '1 s',
            errors = i.errors || jsonb_build_array(jsonb_build_object(
                'at', now(), 'attempt', i.attempt, 'type', m.type, 'message', m.message))
        FROM unnest(%(ids)s::bigint[], %(types)s::text[], %(messages)s::text[], %(delays)s::float8[])
             AS m (id, type, message, delay)
        WHERE i.id = m.id AND i.state = 'waiting'
        """,
        {
            "ids": [fault.image_id for fault in faults],
            "types": [fault.type for fault in faults],
            "messages": [fault.message for fault in faults],
            "delays": [None if fault.delay is None else float(fault.delay) for fault in faults],
        },
    )
    _finish_edits(connection, edit_ids)


def _lock_edits_of_images(connection: Connection, image_ids: Sequence[int]) -> list[int]:
    """Two last pictures of one edit that end at once must not be blind to each other: the edit goes first."""
    rows = connection.exec_driver_sql(
        """
        SELECT id FROM edits WHERE id IN (
            SELECT s.edit_id FROM images i JOIN submissions s ON s.id = i.submission_id WHERE i.id = ANY(%s))
        ORDER BY id FOR UPDATE
        """,
        (list(image_ids),),
    )
    return [row[0] for row in rows]


def _finish_edits(connection: Connection, edit_ids: Sequence[int]) -> None:
    """ready -> stored, or failed if a picture failed, once no picture of the edit waits any more."""
    connection.exec_driver_sql(
        """
        WITH ended AS (
            SELECT s.edit_id, bool_and(i.state = 'stored') AS whole,
                   (array_agg(i.errors -> -1 ORDER BY i.index) FILTER (WHERE i.state = 'failed'))[1] AS error
            FROM submissions s JOIN images i ON i.submission_id = s.id
            WHERE s.edit_id = ANY(%s) AND i.state <> 'discarded'
            GROUP BY s.edit_id HAVING count(*) FILTER (WHERE i.state = 'waiting') = 0
        )
        UPDATE edits e
        SET state = CASE WHEN whole THEN 'stored' ELSE 'failed' END, due_at = NULL, finished_at = now(),
            errors = CASE WHEN whole THEN e.errors
                     ELSE e.errors || jsonb_build_array(error || jsonb_build_object('attempt', e.attempt)) END
        FROM ended WHERE e.id = ended.edit_id AND e.state = 'ready'
        """,
        (list(edit_ids),),
    )


def settle_batches(connection: Connection) -> list[UUID]:
    """Finish every batch whose edits are all final; to be called in a transaction of its own.

    Asking inside the transaction of the last edit would leave batches open for ever: two last edits that end at
    once are each blind to the other's uncommitted end.
    """
    rows = connection.exec_driver_sql(
        """
        UPDATE batches b SET finished_at = now()
        WHERE b.finished_at IS NULL AND NOT EXISTS (
            SELECT FROM edits e WHERE e.batch_id = b.id AND e.due_at IS NOT NULL
            AND e.state IN ('pending', 'submitting', 'submitted', 'ready'))
        RETURNING b.id
        """
    )
    return [row[0] for row in rows]
