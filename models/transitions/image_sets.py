"""Which set of images an edit keeps: that of one submission, whole, and never two at once.

Sets are numbered per edit, in the order in which they are taken, and the number is part of every later set's storage
keys (`claims.claim_images`): the first writes to `{batch}/{edit}/{index}`, the second to `{batch}/{edit}/{index}.2`. A
set gives way only when it cannot be stored whole. Some download of it may still be under way then, in a process that
nobody can stop, and an object store has no transactions; but it can write only to keys of its own set, and what it then
reports moves no row, because its image is discarded. So at every moment each row tells the bytes under its key.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection

from models.statements import Statement

NUMBER_IMAGE_SET = Statement(
    """
    UPDATE submissions s SET doubled = false, set_number = coalesce(s.set_number, 1 + (
        SELECT coalesce(max(o.set_number), 0) FROM submissions o WHERE o.edit_id = s.edit_id))
    WHERE s.id = ANY(%s)
""",
    index="submissions_pkey",
)
FETCH_IMAGE_SET = Statement(
    "UPDATE images SET state = 'waiting', due_at = now() WHERE submission_id = ANY(%s) AND state = 'discarded'",
    index="images_submission_id_index_key",
)
DISCARD_OTHER_SETS = Statement(
    """
    WITH others AS (
        UPDATE submissions o SET doubled = true FROM submissions taken
        WHERE taken.id = ANY(%(ids)s) AND o.edit_id = taken.edit_id AND o.id <> taken.id
          AND o.outcome = 'succeeded'
        RETURNING o.id
    )
    UPDATE images i SET state = 'discarded', due_at = NULL FROM others
    WHERE i.submission_id = others.id AND i.state <> 'discarded'
""",
    index="submissions_pkey",
)


def replace_image_set(connection: Connection, submission_ids: Sequence[UUID]) -> None:
    """The images of these submissions, one an edit, take the place of whatever set was taken before.

    Theirs are waiting from now on, those of every other submission of the edit are discarded; a stored one keeps key
    and hash, because its bytes still lie there. The edits must be locked.
    """
    if not submission_ids:
        return
    connection.exec_driver_sql(
        NUMBER_IMAGE_SET,
        (list(submission_ids),),
    )
    connection.exec_driver_sql(
        FETCH_IMAGE_SET,
        (list(submission_ids),),
    )
    connection.exec_driver_sql(
        DISCARD_OTHER_SETS,
        {"ids": list(submission_ids)},
    )


SPARE_IMAGE_SETS = Statement(
    """
    SELECT DISTINCT ON (s.edit_id) s.id
    FROM submissions s JOIN edits e ON e.id = s.edit_id
    WHERE e.id = ANY(%s) AND e.state = 'ready' AND s.doubled AND s.set_number IS NULL
      AND NOT EXISTS (SELECT FROM submissions o JOIN images i ON i.submission_id = o.id
                      WHERE o.edit_id = e.id AND i.state = 'waiting')
      AND EXISTS (SELECT FROM submissions o JOIN images i ON i.submission_id = o.id
                  WHERE o.edit_id = e.id AND i.state = 'failed')
    ORDER BY s.edit_id, s.completed_at, s.id
""",
    index="edits_pkey submissions_edit",
)


def use_spare_image_sets(connection: Connection, edit_ids: Sequence[int]) -> None:
    """Where the set taken by an edit cannot be stored whole, and another one was paid for too: that one is taken.

    Looks only at edits that are `ready` and of which no image waits any more; they stay `ready`.
    """
    spare = connection.exec_driver_sql(
        SPARE_IMAGE_SETS,
        (list(edit_ids),),
    )
    replace_image_set(connection, list(spare.scalars()))
