"""Stored images that are kept for a time only, and requests of finished batches that the provider is to forget.

Both go batch by batch, in steps of some edits. A row says that its image is deleted before the object goes, never the
other way round; only then is the step noted, so whoever is killed leaves a step that is done once more, and to delete
what is gone is no fault.
"""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.statements import Statement
from models.tables.batch_tables import IMAGES_TO_DELETE, REQUESTS_TO_DELETE

EDITS_AT_ONCE = 100
"""Edits of one step."""

OLD_IMAGES = Statement(
    """
    SELECT id FROM batches
    WHERE {to_be_deleted} AND output_expires_after IS NULL AND finished_at < now() - %s * interval '1 s'
    ORDER BY finished_at LIMIT 1
    """,
    to_be_deleted=IMAGES_TO_DELETE,
    index="batches_images|batches_images_expire",
)
EXPIRED_IMAGES = Statement(
    """
    SELECT id FROM batches
    WHERE {to_be_deleted} AND output_expires_after IS NOT NULL
      AND finished_at < now() - output_expires_after * interval '1 s'
    ORDER BY finished_at LIMIT 1
    """,
    to_be_deleted=IMAGES_TO_DELETE,
    index="batches_images_expire",
)
OLD_REQUESTS = Statement(
    """
    SELECT id FROM batches WHERE {to_be_deleted} AND finished_at < now() - %s * interval '1 s'
    ORDER BY finished_at LIMIT 1
    """,
    to_be_deleted=REQUESTS_TO_DELETE,
    index="batches_provider",
)
_NEXT_EDITS = """
    next AS MATERIALIZED (
        SELECT id, position FROM edits
        WHERE batch_id = %(batch)s
          AND position > coalesce((SELECT {what}_deleted_to FROM batches WHERE id = %(batch)s), -1)
        ORDER BY position LIMIT %(limit)s
    )
"""
MARK_IMAGES = Statement(
    """
    WITH {next}, marked AS (
        UPDATE images i SET deleted_at = coalesce(i.deleted_at, now())
        FROM next JOIN submissions s ON s.edit_id = next.id JOIN batches b ON b.id = %(batch)s
        WHERE i.submission_id = s.id AND i.storage_key IS NOT NULL
          -- not what went when the batch had finished before; what a step that was killed had marked, once more
          AND (i.deleted_at IS NULL OR i.deleted_at >= b.finished_at)
        RETURNING i.storage_key AS key, i.stored_bytes AS bytes
    )
    SELECT (SELECT max(position) FROM next) AS reached, (SELECT count(*) FROM next) AS edits,
           ARRAY(SELECT key FROM marked) AS keys, (SELECT coalesce(sum(bytes), 0) FROM marked) AS bytes
    """,
    next=_NEXT_EDITS.replace("{what}", "images"),
    index="edits_batch_id_position_key submissions_edit images_submission_id_index_key",
)
NEXT_REQUESTS = Statement(
    """
    WITH {next}
    SELECT (SELECT max(position) FROM next) AS reached, (SELECT count(*) FROM next) AS edits,
           ARRAY(SELECT s.request_id FROM next JOIN submissions s ON s.edit_id = next.id
                 WHERE s.request_id IS NOT NULL) AS keys, 0 AS bytes
    """,
    next=_NEXT_EDITS.replace("{what}", "provider"),
    index="edits_batch_id_position_key submissions_edit",
)
_END = """
    UPDATE batches SET {what}_deleted_to = CASE WHEN %(more)s THEN coalesce(%(reached)s, {what}_deleted_to) END,
        {what}_deleted_at = CASE WHEN %(more)s THEN {what}_deleted_at ELSE greatest(now(), finished_at) END
"""
IMAGES_DELETED = Statement(
    """{end}, images_deleted = images_deleted + %(number)s, bytes_deleted = bytes_deleted + %(bytes)s
    WHERE id = %(batch)s""",
    end=_END.replace("{what}", "images"),
    index="batches_pkey",
)
REQUESTS_DELETED = Statement("{end} WHERE id = %(batch)s", end=_END.replace("{what}", "provider"), index="batches_pkey")


class Deletion(NamedTuple):
    """What one step deletes: keys in storage, or ids of requests."""

    batch_id: UUID
    reached: int | None
    """The position of its last edit."""
    more: bool
    keys: list[str]
    bytes: int


def begin_images(connection: Connection, kept: float | None) -> Deletion | None:
    """Say of the next images that they are deleted.

    Of batches with a time of their own when that is over; of the others `kept` seconds after their end, or never
    (None). None: no batch's time is over.
    """
    batch_id = connection.exec_driver_sql(EXPIRED_IMAGES).scalar()
    if batch_id is None and kept is not None:
        batch_id = connection.exec_driver_sql(OLD_IMAGES, (kept,)).scalar()
    return None if batch_id is None else _next(connection, MARK_IMAGES, batch_id)


def begin_requests(connection: Connection, after: float) -> Deletion | None:
    """The next requests of batches that have finished `after` seconds ago; None: there is no such batch."""
    batch_id = connection.exec_driver_sql(OLD_REQUESTS, (after,)).scalar()
    return None if batch_id is None else _next(connection, NEXT_REQUESTS, batch_id)


def _next(connection: Connection, statement: Statement, batch_id: UUID) -> Deletion:
    row = connection.exec_driver_sql(statement, {"batch": batch_id, "limit": EDITS_AT_ONCE}).one()
    return Deletion(batch_id, row.reached, row.edits == EDITS_AT_ONCE, row.keys, int(row.bytes))


def end_images(connection: Connection, deletion: Deletion) -> None:
    """Note that these are gone from storage."""
    _end(connection, IMAGES_DELETED, deletion)


def end_requests(connection: Connection, deletion: Deletion) -> None:
    """Note that these are gone at the provider."""
    _end(connection, REQUESTS_DELETED, deletion)


def _end(connection: Connection, statement: Statement, deletion: Deletion) -> None:
    values = {"batch": deletion.batch_id, "reached": deletion.reached, "more": deletion.more}
    connection.exec_driver_sql(statement, {**values, "number": len(deletion.keys), "bytes": deletion.bytes})
