"""The arrows of images, and those of their edits that follow: stored, or failed."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from models.statements import RowSet, Statement
from models.transitions.image_sets import use_spare_image_sets


class StoredImage(NamedTuple):
    """One image that is in storage, as measured from its bytes."""

    image_id: int
    storage_key: str
    sha256: str
    stored_bytes: int
    stored_type: str
    stored_width: int
    stored_height: int


_STORED = RowSet(
    "m", id="bigint", key="text", sha256="text", bytes="bigint", type="text", width="integer", height="integer"
)
RECORD_STORED = Statement(
    """
    UPDATE images i
    SET state = 'stored', due_at = NULL, stored_at = now(), storage_key = m.key, sha256 = m.sha256,
        stored_bytes = m.bytes, stored_type = m.type, stored_width = m.width, stored_height = m.height
    FROM {stored}
    WHERE i.id = m.id AND i.state = 'waiting'
""",
    stored=_STORED,
    index="images_pkey",
)


def record_stored(connection: Connection, stored: Sequence[StoredImage]) -> None:
    """Images waiting -> stored, and their edits ready -> stored where these were the last."""
    edit_ids = _lock_edits_of_images(connection, [image.image_id for image in stored])
    connection.exec_driver_sql(
        RECORD_STORED,
        _STORED.arrays(stored),
    )
    _finish_edits(connection, edit_ids)


class ImageFault(NamedTuple):
    """Why one image could not be stored; `delay` (seconds) until it is fetched again, None: never."""

    image_id: int
    type: str
    message: str
    delay: float | None


_CLAIMS = RowSet("m", id="bigint", attempt="integer")
RELEASE_IMAGES = Statement(
    """
    UPDATE images i SET due_at = now() + %(delay)s * interval '1 s', attempt = i.attempt - 1
    FROM {claims}
    WHERE i.id = m.id AND i.attempt = m.attempt AND i.state = 'waiting'
""",
    claims=_CLAIMS,
    index="images_pkey",
)


def release_images(connection: Connection, claims: Sequence[tuple[int, int]], *, delay: float) -> None:
    """Images stay waiting as they were before they were claimed: for `delay` seconds, with no try used up.

    For trouble that is ours; it says nothing about an image. A claim is an image's id and its `attempt`: one whose
    lease lapsed is somebody else's by now.
    """
    connection.exec_driver_sql(
        RELEASE_IMAGES,
        {"delay": float(delay), **_CLAIMS.arrays(claims)},
    )


_FAULTS = RowSet("m", id="bigint", type="text", message="text", delay="float8")
RECORD_IMAGE_FAULTS = Statement(
    """
    UPDATE images i
    SET state = CASE WHEN m.delay IS NULL THEN 'failed' ELSE 'waiting' END,
        due_at = now() + m.delay * interval '1 s',
        errors = i.errors || jsonb_build_array(jsonb_build_object(
            'at', now(), 'attempt', i.attempt, 'type', m.type, 'message', m.message))
    FROM {faults}
    WHERE i.id = m.id AND i.state = 'waiting'
""",
    faults=_FAULTS,
    index="images_pkey",
)


def record_image_faults(connection: Connection, faults: Sequence[ImageFault]) -> None:
    """Images that stay waiting for another try, or waiting -> failed, and then their edits ready -> failed."""
    edit_ids = _lock_edits_of_images(connection, [fault.image_id for fault in faults])
    connection.exec_driver_sql(
        RECORD_IMAGE_FAULTS,
        _FAULTS.arrays(fault._replace(delay=fault.delay and float(fault.delay)) for fault in faults),
    )
    _finish_edits(connection, edit_ids)


LOCK_EDITS_OF_IMAGES = Statement(
    """
    SELECT id FROM edits WHERE id IN (
        SELECT s.edit_id FROM images i JOIN submissions s ON s.id = i.submission_id WHERE i.id = ANY(%s))
    ORDER BY id FOR UPDATE
""",
    index="images_pkey submissions_pkey edits_pkey",
)


def _lock_edits_of_images(connection: Connection, image_ids: Sequence[int]) -> list[int]:
    """Two last images of one edit that end at once must not be blind to each other: the edit goes first."""
    rows = connection.exec_driver_sql(
        LOCK_EDITS_OF_IMAGES,
        (list(image_ids),),
    )
    return [row[0] for row in rows]


FINISH_EDITS = Statement(
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
    index="submissions_edit images_submission_id_index_key edits_pkey",
)


def _finish_edits(connection: Connection, edit_ids: Sequence[int]) -> None:
    """ready -> stored, or failed if an image failed, once no image of the edit waits any more.

    Where another set was paid for as well, that one is taken before the edit fails.
    """
    use_spare_image_sets(connection, edit_ids)
    connection.exec_driver_sql(
        FINISH_EDITS,
        (list(edit_ids),),
    )
