"""What the operator's page asks: batches of one client or of all, one batch, one edit, and the system."""

from models.queries.batches import BATCH_STATE
from models.statements import Statement

_LOOKED = """
    SELECT * FROM batches
    WHERE %(before)s::timestamptz IS NULL OR (created_at, id) < (%(before)s, %(batch)s)
    ORDER BY created_at DESC, id DESC LIMIT %(looked)s
"""
BATCH_LIST = Statement(
    """
    SELECT p.*, {state} AS state FROM (
        SELECT id FROM ({looked}) b
        WHERE (%(client)s::text IS NULL OR b.client = %(client)s)
          AND (%(state)s::text IS NULL OR {state} = %(state)s)
          AND (%(name)s::text IS NULL
               OR strpos(lower(b.name), lower(%(name)s)) > 0 OR starts_with(b.id::text, %(name)s))
        LIMIT %(limit)s
    ) found JOIN batches b USING (id) JOIN batch_progress p ON p.batch_id = b.id
    ORDER BY b.created_at DESC, b.id DESC
    """,
    looked=_LOOKED,
    state=BATCH_STATE,
)
"""`client`: NULL for those of all; so many as are looked through, `looked`, may hold fewer than `limit`, or none."""
LAST_LOOKED = Statement(
    "SELECT created_at, id FROM ({looked} + 1 OFFSET %(looked)s - 1) last", looked=_LOOKED, index="batches_created"
)
"""The last of those that `BATCH_LIST` looks through, and the next one, if there is one."""
BATCH_OF_CLIENT = Statement(
    """
    SELECT p.*, {state} AS state, CASE WHEN b.paused_at IS NOT NULL THEN b.pause_reason END AS pause_reason,
           b.metadata, b.notify_url, b.max_in_flight, b.max_attempts, b.tolerated_failures,
           b.tolerated_failure_percent
    FROM batches b JOIN batch_progress p ON p.batch_id = b.id
    WHERE b.id = %(batch)s AND (%(client)s::text IS NULL OR b.client = %(client)s)
    """,
    state=BATCH_STATE,
    index="batches_pkey",
)
MONEY_OF_BATCH = Statement("SELECT reserved, paid, wasted, uncertain FROM batch_costs WHERE batch_id = %s")
# A batch may be large, so its plots are drawn of edits picked evenly from it: each costs a look into three indexes.
SAMPLE_OF_BATCH = Statement(
    """
    SELECT e.position, e.created_at, e.finished_at, e.state, s.posted_at, s.completed_at, i.stored_at
    FROM edits e
    LEFT JOIN LATERAL (
        SELECT id, posted_at, completed_at FROM submissions WHERE edit_id = e.id ORDER BY posted_at DESC LIMIT 1
    ) s ON true
    LEFT JOIN LATERAL (SELECT max(stored_at) AS stored_at FROM images WHERE submission_id = s.id) i ON true
    WHERE e.batch_id = %(batch)s AND e.position = ANY(%(positions)s)
    """,
    index="edits_batch_id_position_key submissions_edit images_submission_id_index_key",
)
_IMAGES = """
    ARRAY(SELECT i.id FROM submissions s JOIN images i ON i.submission_id = s.id
          WHERE s.edit_id = e.id AND i.state = 'stored' ORDER BY i.id) AS images
"""
_INPUTS = "CASE jsonb_typeof(e.arguments -> 'image_urls') WHEN 'array' THEN e.arguments -> 'image_urls' ELSE '[]' END"
"""Of an edit whose line was faulty they may be anything."""
EDITS_OF_BATCH = Statement(
    """
    SELECT e.position, e.custom_id, e.state, e.attempt, e.errors -> -1 ->> 'type' AS error, e.finished_at,
           left(e.arguments ->> 'prompt', 300) AS prompt,
           jsonb_array_length({inputs}) AS inputs, {images}
    FROM edits e
    WHERE e.batch_id = %(batch)s AND e.position > %(after)s AND e.position <= %(until)s
      AND (%(state)s::text IS NULL OR e.state = %(state)s)
      AND (%(error_type)s::text IS NULL OR e.errors -> -1 ->> 'type' = %(error_type)s)
    ORDER BY e.position LIMIT %(limit)s
    """,
    images=_IMAGES,
    inputs=_INPUTS,
    index="edits_batch_id_position_key submissions_edit images_submission_id_index_key",
)
"""Between `after` and `until` there may be fewer than `limit`, or none."""
EDIT = Statement(
    """
    SELECT e.id, e.position, e.custom_id, e.state, e.attempt, e.seed, e.arguments - 'image_urls' AS arguments, e.errors,
           e.due_at, e.created_at, e.cancel_requested_at, e.finished_at, {images},
           ARRAY(SELECT left(url, 250) FROM jsonb_array_elements_text({inputs}) WITH ORDINALITY AS input (url, number)
                 ORDER BY number) AS inputs
    FROM edits e WHERE e.batch_id = %s AND e.position = %s
    """,
    images=_IMAGES,
    inputs=_INPUTS,
    index="edits_batch_id_position_key submissions_edit images_submission_id_index_key",
)
SUBMISSIONS_OF_EDIT = Statement(
    """
    SELECT id, attempt, request_id, outcome, learned_by, error_type, posted_at, accepted_at, completed_at, due_at,
           polls, inference_time, images_returned, cost, doubled, excused, note
    FROM submissions WHERE edit_id = %s ORDER BY posted_at, id LIMIT 100
    """,
    index="submissions_edit",
)
CALLBACKS_OF_EDIT = Statement(
    """
    SELECT c.id, c.submission_id, c.effect, c.request_id, c.received_at, c.signed_at
    FROM submissions s JOIN callbacks c ON c.submission_id = s.id WHERE s.edit_id = %s ORDER BY c.received_at LIMIT 100
    """,
    index="submissions_edit callbacks_submission",
)
IMAGES_OF_EDIT = Statement(
    """
    SELECT i.id, i.submission_id, i.index, i.state, i.attempt, i.stored_width, i.stored_height, i.stored_bytes,
           i.stored_type, i.stored_at, i.storage_key, i.sha256, i.errors -> -1 ->> 'type' AS error
    FROM submissions s JOIN images i ON i.submission_id = s.id WHERE s.edit_id = %s ORDER BY i.id LIMIT 100
    """,
    index="submissions_edit images_submission_id_index_key",
)
INPUT_IS_THERE = Statement(
    """
    SELECT b.client FROM edits e JOIN batches b ON b.id = e.batch_id
    WHERE e.batch_id = %(batch)s AND e.position = %(position)s AND e.arguments -> 'image_urls' -> %(number)s IS NOT NULL
      AND (%(client)s::text IS NULL OR b.client = %(client)s)
    """,
    index="edits_batch_id_position_key batches_pkey",
)
INPUT_OF_EDIT = Statement(
    """
    SELECT arguments -> 'image_urls' ->> %(number)s FROM edits
    WHERE batch_id = %(batch)s AND position = %(position)s
    """,
    index="edits_batch_id_position_key",
)
MINUTES_OF_AN_HOUR = Statement(
    """
    SELECT extract(epoch FROM date_trunc('minute', now()) - minute)::integer / 60 AS ago, submitted, stored, failed
    FROM throughput WHERE minute > now() - interval '60 minutes' ORDER BY minute
    """,
    index="past_minutes_pkey",
)
MONEY_BY_CLIENT = Statement("""
    SELECT client, reserved, paid, wasted, uncertain FROM client_costs ORDER BY paid DESC, client LIMIT 20
""")
