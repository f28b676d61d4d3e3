"""Callbacks: kept, counted where they are turned away, taken again."""

from models.statements import Statement

NAMED_BY_US = Statement(
    """
    SELECT FROM submissions s WHERE s.id = %s AND s.request_id = %s
    AND NOT EXISTS (SELECT FROM callbacks c WHERE c.submission_id = s.id AND c.request_id = s.request_id)
    """,
    index="callbacks_submission",
)
SUBMISSIONS_THAT_EXIST = Statement("SELECT id FROM submissions WHERE id = ANY(%s)", index="submissions_pkey")
KEEP_CALLBACKS = Statement("""
    INSERT INTO callbacks (effect, submission_id, token, request_id, signed_at, headers, body, sha256)
    SELECT * FROM unnest(%(effects)s::text[], %(submissions)s::uuid[], %(tokens)s::text[], %(requests)s::text[],
                         %(signed_at)s::timestamptz[], %(headers)s::jsonb[], %(bodies)s::bytea[], %(sha256)s::text[])
""")
LIMIT_LOCK_WAIT = Statement("SELECT set_config('lock_timeout', %s, true)")
COUNT_REJECTED = Statement("""
    INSERT INTO rejected_callbacks (hour, reason, count)
    VALUES (date_trunc('hour', now()), %s, %s)
    ON CONFLICT (hour, reason) DO UPDATE SET count = rejected_callbacks.count + excluded.count
""")

LAST_CALLBACK = Statement("SELECT coalesce(max(id), 0) FROM callbacks", index="callbacks_pkey")
CALLBACK = Statement("SELECT * FROM callbacks WHERE id = %s", index="callbacks_pkey")
CALLBACKS_TO_REPLAY = Statement(
    """
    SELECT c.id FROM callbacks c
    WHERE c.id > %(after)s AND c.id <= %(last)s
      AND (%(since)s::timestamptz IS NULL OR c.received_at >= %(since)s)
      AND (cardinality(%(effects)s::text[]) = 0 OR c.effect = ANY(%(effects)s::text[]))
      AND (%(batch)s::uuid IS NULL OR c.token IN (
            SELECT s.id::text FROM submissions s JOIN edits e ON e.id = s.edit_id WHERE e.batch_id = %(batch)s))
    ORDER BY c.id LIMIT %(limit)s
    """,
    index="callbacks_pkey",
)
RECORD_REPLAY = Statement("UPDATE callbacks SET effect = %s, submission_id = %s WHERE id = %s", index="callbacks_pkey")
