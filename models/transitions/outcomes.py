"""The arrows that a verdict leads along: submissions close, edits move, pictures are noted."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from models.states import EDIT_ARROWS, FINAL, EditState, LearnedBy, Outcome
from models.verdict import DeclaredImage

ERRORS_KEPT = 50
"""Entries an edit's `errors` list may hold; the oldest go first. Attempts are bounded far below this."""


class EditMove(NamedTuple):
    """One edit's step along an arrow; `delay` (seconds) is when the new state next needs attention."""

    edit_id: int
    was: EditState
    state: EditState
    delay: float
    error: dict[str, object] | None = None


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
    doubled: bool = False


def close_submissions(connection: Connection, ends: Sequence[SubmissionEnd]) -> None:
    """Write down how submissions ended; one that had been given up as unknown may still turn out otherwise."""
    if not ends:
        return
    connection.exec_driver_sql(
        """
        UPDATE submissions s
        SET outcome = m.outcome, learned_by = m.learned_by, error_type = m.error_type, due_at = NULL,
            completed_at = now(), images_returned = m.images_returned, cost = m.images_returned * s.price,
            doubled = m.doubled,
            request_id = coalesce(s.request_id, m.request_id),
            accepted_at = CASE WHEN coalesce(s.request_id, m.request_id) IS NOT NULL
                          THEN coalesce(s.accepted_at, now()) END
        FROM unnest(%(ids)s::uuid[], %(requests)s::text[], %(outcomes)s::text[], %(learned)s::text[],
                    %(types)s::text[], %(images)s::integer[], %(doubled)s::boolean[])
             AS m (id, request_id, outcome, learned_by, error_type, images_returned, doubled)
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
            "doubled": [end.doubled for end in ends],
        },
    )


def add_images(
    connection: Connection,
    found: Sequence[tuple[UUID, bool, Sequence[DeclaredImage]]],
    *,
    expire_after: float | None = None,
) -> None:
    """Note the pictures that submissions returned: waiting, or discarded where others were taken first.

    `expire_after`: seconds for which the provider keeps their files, where that is known.
    """
    if not found:
        return
    rows = [
        (submission_id, index, "waiting" if taken else "discarded", image)
        for submission_id, taken, images in found
        for index, image in enumerate(images)
    ]
    connection.exec_driver_sql(
        """
        INSERT INTO images (submission_id, index, state, due_at, expires_at,
                            url, content_type, file_name, file_size, width, height)
        SELECT m.submission_id, m.index, m.state, CASE WHEN m.state = 'waiting' THEN now() END,
               CASE WHEN m.url NOT LIKE 'data:%%' THEN now() + %(expire_after)s * interval '1 s' END, m.url,
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
            "expire_after": expire_after,
        },
    )
