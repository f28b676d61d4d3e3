"""Images, and what lies in storage of them."""

from models.statements import Statement

STORED_IMAGE = Statement(
    """
    SELECT i.storage_key, i.stored_type, i.sha256, i.stored_bytes, i.deleted_at
    FROM images i JOIN submissions s ON s.id = i.submission_id JOIN edits e ON e.id = s.edit_id
    JOIN batches b ON b.id = e.batch_id
    WHERE i.id = %(image)s AND i.state = 'stored' AND b.id = %(batch)s
      AND (%(client)s::text IS NULL OR b.client = %(client)s)
    """,
    index="images_pkey submissions_pkey edits_pkey batches_pkey",
)
# An edit without an image has a row, too, so that the next page begins behind it.
IMAGES_OF_BATCH = Statement(
    """
    SELECT e.position, e.name, coalesce(s.seed, e.seed) AS seed, i.id, i.state, i.index, i.storage_key, i.sha256,
           i.stored_bytes, i.stored_type, i.stored_width, i.stored_height, i.deleted_at IS NOT NULL AS deleted
    FROM (
        SELECT id, position, coalesce(custom_id, position::text) AS name, seed FROM edits
        WHERE batch_id = %(batch)s AND position > %(after)s AND (%(state)s::text IS NULL OR state = %(state)s)
        ORDER BY position LIMIT %(edits)s
    ) e
    LEFT JOIN (submissions s JOIN images i ON i.submission_id = s.id AND i.storage_key IS NOT NULL)
        ON s.edit_id = e.id
    ORDER BY e.position, i.id
    """,
    index="edits_batch_id_position_key submissions_edit images_submission_id_index_key",
)
IMAGE_URL = Statement("SELECT url FROM images WHERE id = %s", index="images_pkey")
KEYS_WITHOUT_IMAGE = Statement(
    """
    SELECT key FROM unnest(%s::text[]) key WHERE NOT EXISTS (SELECT FROM images WHERE storage_key = key)
    """,
    index="images_storage_key",
)
