"""Edits as callers and operators see them, with their submissions and images; and how edits come in."""

from models.statements import Statement

ONLY_EDIT = Statement("SELECT id FROM edits WHERE batch_id = %s", index="edits_batch_id_position_key")
EDIT_STATUS = Statement(
    """
    SELECT e.state, e.attempt, s.request_id, b.endpoint, e.errors -> -1 AS error,
           CASE WHEN p.paused_at IS NOT NULL THEN p.reason || coalesce(': ' || p.message, '')
                WHEN b.paused_at IS NOT NULL THEN 'the batch is paused' || coalesce(': ' || b.pause_reason, '')
                WHEN e.state = 'pending' AND e.position >= b.inputs_ready_to THEN 'its inputs are looked at first'
                END AS paused
    FROM edits e JOIN batches b ON b.id = e.batch_id
    LEFT JOIN LATERAL (SELECT request_id FROM submissions WHERE edit_id = e.id
                       ORDER BY posted_at DESC LIMIT 1) s ON true
    LEFT JOIN provider_status p ON p.paused_at IS NOT NULL
    WHERE e.id = %s
    """,
    index="edits_pkey submissions_edit",
)
EDIT_END = Statement(
    """
    SELECT e.batch_id, 1 AS edits, e.custom_id, e.state, e.attempt AS attempts,
           coalesce(s.seed, e.seed) AS seed, e.errors, s.cost
    FROM edits e CROSS JOIN LATERAL (
        SELECT sum(cost) AS cost, max(seed) FILTER (WHERE outcome = 'succeeded' AND NOT doubled) AS seed
        FROM submissions WHERE edit_id = e.id
    ) s WHERE e.id = %s
    """,
    index="edits_pkey submissions_edit",
)
STORED_IMAGES_OF_EDIT = Statement(
    """
    SELECT i.index, i.storage_key, i.stored_width AS width, i.stored_height AS height,
           i.stored_type AS content_type, i.stored_bytes AS bytes, i.sha256
    FROM images i JOIN submissions s ON s.id = i.submission_id
    WHERE s.edit_id = %s AND i.state = 'stored' ORDER BY s.posted_at, i.index
    """,
    index="submissions_edit images_submission_id_index_key",
)
EDIT_OF_REQUEST = Statement(
    """
    SELECT e.batch_id, coalesce(e.custom_id, e.position::text) AS name, e.state FROM edits e
    JOIN submissions s ON s.edit_id = e.id WHERE s.request_id = %s
    """,
    index="submissions_request_id_key edits_pkey",
)
_EDIT = "SELECT id, batch_id, coalesce(custom_id, position::text) AS name, state FROM edits"
EDIT_BY_ID = Statement("{edit} WHERE id = %(id)s", edit=_EDIT, index="edits_pkey")
EDIT_BY_NAME = Statement(
    """
    {edit} WHERE batch_id = %(batch)s AND custom_id = %(name)s
    UNION ALL
    {edit} WHERE batch_id = %(batch)s AND position = %(position)s
    LIMIT 1
    """,
    edit=_EDIT,
    index="edits_custom_id edits_batch_id_position_key",
)
TIMELINE_OF_EDIT = Statement(
    "SELECT * FROM edit_timeline WHERE edit_id = %s ORDER BY number LIMIT %s", index="edits_pkey submissions_edit"
)
_LATEST_ERROR = """
    SELECT position, custom_id, state, (errors -> -1 ->> 'attempt')::integer AS attempt,
           (errors -> -1 ->> 'at')::timestamptz AS at, errors -> -1 ->> 'type' AS type,
           errors -> -1 ->> 'message' AS message
    FROM edits
    WHERE batch_id = %(batch)s AND errors -> -1 ->> 'type' = ANY(%(types)s)
"""
FAILED_EDITS = Statement(
    "{latest_error} AND state = 'failed' ORDER BY id LIMIT %(limit)s",
    latest_error=_LATEST_ERROR,
    index="edits_failed|edits_batch_id_position_key",
)
EDITS_WITH_ERRORS = Statement(
    "{latest_error} AND state NOT IN ('failed', 'stored') ORDER BY position LIMIT %(limit)s",
    latest_error=_LATEST_ERROR,
    index="edits_batch_id_position_key",
)
CONTACT_SHEET_PAGE = Statement(
    """
    SELECT e.position, coalesce(e.custom_id, e.position::text) AS name,
           CASE WHEN e.state = 'failed' THEN coalesce(e.errors -> -1 ->> 'type', 'failed') END AS error,
           ARRAY(SELECT i.storage_key FROM submissions s JOIN images i ON i.submission_id = s.id
                 WHERE s.edit_id = e.id AND i.state = 'stored' ORDER BY i.id) AS keys
    FROM edits e
    WHERE e.batch_id = %s AND e.position > %s AND e.state IN ('ready', 'stored', 'failed')
    ORDER BY e.position LIMIT %s
    """,
    index="edits_batch_id_position_key submissions_edit images_submission_id_index_key",
)
# Inputs that are as long as an image are asked for one by one.
SHEET_EDITS = Statement(
    """
    SELECT e.position, coalesce(e.custom_id, e.position::text) AS name, e.state, e.attempt, e.created_at, e.finished_at,
           coalesce(s.seed, e.seed) AS seed, s.cost, e.errors -> -1 AS error,
           e.arguments ->> 'prompt' AS prompt, e.arguments -> 'image_size' AS image_size,
           coalesce(u.inputs, 0) AS inputs, coalesce(u.urls, '[]') AS urls, coalesce(i.images, '[]') AS images
    FROM edits e
    CROSS JOIN LATERAL (
        SELECT sum(cost) AS cost, max(seed) FILTER (WHERE outcome = 'succeeded' AND NOT doubled) AS seed
        FROM submissions WHERE edit_id = e.id
    ) s
    CROSS JOIN LATERAL (
        SELECT count(*) AS inputs,
               json_agg(CASE WHEN octet_length(url) < 4096 THEN url END ORDER BY number)
                   FILTER (WHERE number <= 3) AS urls
        FROM jsonb_array_elements_text(
            CASE jsonb_typeof(e.arguments -> 'image_urls') WHEN 'array' THEN e.arguments -> 'image_urls' ELSE '[]' END
        ) WITH ORDINALITY AS input (url, number)
    ) u
    CROSS JOIN LATERAL (
        SELECT json_agg(json_build_object('key', i.storage_key, 'width', i.stored_width, 'height', i.stored_height,
                                          'bytes', i.stored_bytes) ORDER BY i.id) AS images
        FROM submissions JOIN images i ON i.submission_id = submissions.id
        WHERE submissions.edit_id = e.id AND i.state = 'stored'
    ) i
    WHERE e.batch_id = %s AND e.position > %s
    ORDER BY e.position LIMIT %s
    """,
    index="edits_batch_id_position_key submissions_edit images_submission_id_index_key",
)
SHEET_INPUT = Statement(
    "SELECT arguments -> 'image_urls' ->> %s FROM edits WHERE batch_id = %s AND position = %s",
    index="edits_batch_id_position_key",
)
EDIT_PAGE = Statement(
    """
    SELECT position, custom_id, state, attempt, seed, errors, created_at, finished_at FROM edits
    WHERE batch_id = %(batch)s AND position > %(after)s
      AND (%(state)s::text IS NULL OR state = %(state)s)
      AND (%(custom_id)s::text IS NULL OR custom_id = %(custom_id)s)
      AND (%(error_type)s::text IS NULL OR errors -> -1 ->> 'type' = %(error_type)s)
    ORDER BY position LIMIT %(limit)s
    """,
    index="edits_batch_id_position_key",
)
# The limit stands innermost, and each filter in a statement of its own: where `state = coalesce(%s, state)` stood, the
# planner took one edit in 200 to pass, so it read and sorted the whole rest of the batch for every page. What is
# stored may be compressed a hundredfold, so the text is measured too, of no more than was small enough as it is stored.
_RESULTS_PAGE = """
    SELECT result.position, row_to_json(result)::text FROM (
        SELECT e.position, e.custom_id, e.state, coalesce(i.images, '[]') AS images,
               coalesce(s.seed, e.seed) AS seed, coalesce(s.cost, 0) AS cost,
               e.errors, CASE WHEN e.custom_id IS NULL THEN e.arguments
                         ELSE jsonb_build_object('custom_id', e.custom_id) || e.arguments END AS edit
        FROM (
            SELECT *, sum(bytes) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) - bytes AS before FROM (
                SELECT *, CASE WHEN stored < 2048 THEN stored ELSE octet_length(arguments::text) END AS bytes FROM (
                    SELECT *, sum(stored) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) - stored AS stored_before
                    FROM (
                        SELECT *, pg_column_size(arguments) AS stored FROM edits
                        WHERE batch_id = %(batch)s AND position > %(after)s {condition}
                        ORDER BY position LIMIT %(edits)s
                    ) first
                ) sized WHERE stored_before < %(bytes)s
            ) measured
        ) e
        CROSS JOIN LATERAL (
            SELECT sum(cost) AS cost, max(seed) FILTER (WHERE outcome = 'succeeded' AND NOT doubled) AS seed
            FROM submissions WHERE edit_id = e.id
        ) s
        CROSS JOIN LATERAL (
            SELECT json_agg(row_to_json(image) ORDER BY image.index) AS images FROM (
                SELECT p.index, p.id,
                       CASE WHEN p.deleted_at IS NULL
                            THEN %(link)s || CASE WHEN %(by_key)s THEN p.storage_key ELSE p.id::text END END AS url,
                       p.storage_key, p.sha256, p.stored_bytes AS bytes, p.stored_type AS type,
                       p.stored_width AS width, p.stored_height AS height
                FROM submissions JOIN images p ON p.submission_id = submissions.id
                WHERE submissions.edit_id = e.id AND p.state = 'stored'
            ) image
        ) i
        WHERE e.before < %(bytes)s
    ) result ORDER BY result.position
"""
_RESULTS_INDEXES = "edits_batch_id_position_key submissions_edit images_submission_id_index_key"
RESULTS_PAGE = Statement(_RESULTS_PAGE, condition="", index=_RESULTS_INDEXES)
RESULTS_PAGE_IN_STATE = Statement(_RESULTS_PAGE, condition="AND state = %(state)s", index=_RESULTS_INDEXES)
NAMES_TAKEN = Statement(
    """
    SELECT custom_id AS name FROM edits WHERE batch_id = %(batch)s AND custom_id = ANY(%(names)s)
    UNION
    SELECT position::text FROM edits
    WHERE batch_id = %(batch)s AND custom_id IS NULL AND position = ANY(%(positions)s)
    """,
    index="edits_custom_id edits_batch_id_position_key",
)
COPY_EDITS = Statement("COPY edits (batch_id, position, custom_id, arguments, seed) FROM STDIN")
