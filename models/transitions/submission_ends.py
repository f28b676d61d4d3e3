"""The arrows that a verdict leads along: submissions close, edits move, images are noted."""

from collections.abc import Sequence
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from models.changes import EditMove, SubmissionEnd
from models.statements import RowSet, Statement
from models.states import EDIT_ARROWS, FINAL
from models.verdict import DeclaredImage

RESULT_KEPT, LARGE_RESULT_KEPT = 3600.0, 360.0
"""Seconds for which the provider keeps a result once complete; the shorter one from 10 KB on (provider-protocol 2.4).
Counted from acceptance, because the provider does not tell when it completed: the poll lane's order, no verdict. A
request whose callback or listing came first has ended already: the shorter one holds."""
ERRORS_KEPT = 50
"""Entries an edit's `errors` list may hold; the oldest go first. Attempts are bounded far below this."""


_MOVES = RowSet("m", id="bigint", was="text", state="text", final="boolean", delay="float8", error="jsonb")
MOVE_EDITS = Statement(
    """
    UPDATE edits e
    SET state = m.state,
        due_at = CASE WHEN m.final THEN NULL ELSE now() + m.delay * interval '1 s' END,
        finished_at = CASE WHEN m.final THEN now() END,
        errors = CASE WHEN m.error IS NULL THEN e.errors ELSE
            jsonb_path_query_array(e.errors || jsonb_build_array(jsonb_build_object('at', now()) || m.error),
                                   %(kept)s::jsonpath) END
    FROM {moves}
    WHERE e.id = m.id AND e.state = m.was
    RETURNING e.id, e.batch_id
""",
    index="edits_pkey",
    moves=_MOVES,
)
REOPEN_BATCHES = Statement("UPDATE batches SET finished_at = NULL WHERE id = ANY(%s)", index="batches_pkey")


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
        MOVE_EDITS,
        {
            **_MOVES.arrays(
                (
                    move.edit_id,
                    move.was.value,
                    move.state.value,
                    move.state in FINAL,
                    float(move.delay),
                    None if move.error is None else Jsonb(move.error),
                )
                for move in moves
            ),
            "kept": f"$[last - {ERRORS_KEPT - 1} to last]",
        },
    ).all()
    woken = {move.edit_id for move in moves if move.was in FINAL}
    reopened = {batch_id for edit_id, batch_id in rows if edit_id in woken}
    if reopened:
        connection.exec_driver_sql(REOPEN_BATCHES, (list(reopened),))
    return {edit_id for edit_id, _ in rows}


_ENDS = RowSet(
    "m",
    id="uuid",
    request_id="text",
    outcome="text",
    learned_by="text",
    error_type="text",
    images_returned="integer",
    set_number="integer",
    seed="bigint",
    inference_time="float8",
    units="numeric",
    may_be_charged="boolean",
)
CLOSE_SUBMISSIONS = Statement(
    """
    UPDATE submissions s
    SET outcome = m.outcome, learned_by = m.learned_by, error_type = m.error_type, due_at = NULL,
        completed_at = now(), images_returned = m.images_returned,
        billable_units = m.units, cost = coalesce(m.units, m.images_returned) * s.price,
        may_be_charged = m.may_be_charged,
        set_number = m.set_number, doubled = m.outcome = 'succeeded' AND m.set_number IS NULL,
        seed = m.seed, inference_time = m.inference_time,
        denials = 0, denied_since = NULL, searched_to = NULL, searched_from = NULL, note = NULL,
        request_id = coalesce(s.request_id, m.request_id),
        accepted_at = CASE WHEN coalesce(s.request_id, m.request_id) IS NOT NULL
                      THEN coalesce(s.accepted_at, now()) END,
        result_lost_after = CASE WHEN coalesce(s.request_id, m.request_id) IS NOT NULL
                            THEN coalesce(s.result_lost_after, now() + %(kept)s * interval '1 s') END
    FROM {ends}
    WHERE s.id = m.id
      AND (s.outcome IS NULL OR s.outcome IN ('unknown', 'rejected') OR s.error_type = 'result_expired')
""",
    index="submissions_pkey",
    ends=_ENDS,
)


def close_submissions(connection: Connection, ends: Sequence[SubmissionEnd]) -> None:
    """Write down how submissions ended; one that had been given up as unknown may still turn out otherwise.

    A submission that succeeded and whose images are not taken is `doubled`: nothing else is. What it costs follows
    from the units that the provider reports, where it does, else from the images that came.
    """
    if not ends:
        return
    connection.exec_driver_sql(
        CLOSE_SUBMISSIONS,
        {
            **_ENDS.arrays(
                (
                    end.id,
                    end.request_id,
                    end.outcome.value,
                    end.learned_by and end.learned_by.value,
                    end.error_type,
                    end.images_returned,
                    end.set_number,
                    end.seed,
                    end.inference_time,
                    end.billable_units,
                    end.may_be_charged,
                )
                for end in ends
            ),
            "kept": LARGE_RESULT_KEPT,
        },
    )


_IMAGES = RowSet(
    "m",
    submission_id="uuid",
    index="integer",
    state="text",
    url="text",
    content_type="text",
    file_name="text",
    file_size="bigint",
    width="integer",
    height="integer",
    file_data="text",
)
ADD_IMAGES = Statement(
    """
    INSERT INTO images (submission_id, index, state, due_at, expires_at,
                        url, content_type, file_name, file_size, width, height, file_data)
    SELECT m.submission_id, m.index, m.state, CASE WHEN m.state = 'waiting' THEN now() END,
           CASE WHEN m.url NOT LIKE 'data:%%' THEN now() + %(expire_after)s * interval '1 s' END, m.url,
           m.content_type, m.file_name, m.file_size, m.width, m.height, m.file_data
    FROM {images}
""",
    images=_IMAGES,
)


def add_images(
    connection: Connection,
    found: Sequence[tuple[UUID, bool, Sequence[DeclaredImage]]],
    *,
    expire_after: float | None = None,
) -> None:
    """Note the images that submissions returned: waiting, or discarded where others are kept.

    `expire_after`: seconds for which the provider keeps their files, where that is known.
    """
    if not found:
        return
    rows = (
        (
            submission_id,
            index,
            "waiting" if taken else "discarded",
            image.url,
            image.content_type,
            image.file_name,
            image.file_size,
            image.width,
            image.height,
            image.file_data,
        )
        for submission_id, taken, images in found
        for index, image in enumerate(images)
    )
    connection.exec_driver_sql(
        ADD_IMAGES,
        {**_IMAGES.arrays(rows), "expire_after": expire_after},
    )
