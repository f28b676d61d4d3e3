"""Callbacks: kept, counted where they are turned away, taken again."""

from models.statements import RowSet, Statement

NAMED_BY_US = Statement(
    """
    SELECT FROM submissions s WHERE s.id = %s AND s.request_id = %s
    AND NOT EXISTS (SELECT FROM callbacks c WHERE c.submission_id = s.id AND c.request_id = s.request_id)
    """,
    index="callbacks_submission",
)
SUBMISSIONS_THAT_EXIST = Statement("SELECT id FROM submissions WHERE id = ANY(%s)", index="submissions_pkey")
CALLBACKS = RowSet(
    "m",
    effect="text",
    submission_id="uuid",
    token="text",  # noqa: S106 - a type
    request_id="text",
    signed_at="timestamptz",
    delivery="bytea",
    sha256="text",
)
KEEP_CALLBACKS = Statement(
    """
    INSERT INTO callbacks (effect, submission_id, token, request_id, signed_at, delivery, sha256)
    SELECT m.effect, m.submission_id, nullif(m.token, m.submission_id::text), m.request_id, m.signed_at, m.delivery,
           m.sha256
    FROM {callbacks}
    """,
    callbacks=CALLBACKS,
)
LIMIT_LOCK_WAIT = Statement("SELECT set_config('lock_timeout', %s, true)")
COUNT_REJECTED = Statement("""
    INSERT INTO rejected_callbacks (hour, reason, count)
    VALUES (date_trunc('hour', now()), %s, %s)
    ON CONFLICT (hour, reason) DO UPDATE SET count = rejected_callbacks.count + excluded.count
""")

LAST_CALLBACK = Statement("SELECT coalesce(max(id), 0) FROM callbacks", index="callbacks_pkey")
CALLBACK = Statement(
    """
    SELECT id, effect, coalesce(token, submission_id::text) AS token, request_id, received_at, signed_at, delivery,
           headers, body
    FROM callbacks WHERE id = %s
    """,
    index="callbacks_pkey",
)
CALLBACKS_TO_REPLAY = Statement(
    """
    SELECT c.id FROM callbacks c
    WHERE c.id > %(after)s AND c.id <= %(last)s
      AND (%(since)s::timestamptz IS NULL OR c.received_at >= %(since)s)
      AND (cardinality(%(effects)s::text[]) = 0 OR c.effect = ANY(%(effects)s::text[]))
      AND (c.delivery IS NOT NULL OR c.body IS NOT NULL)
      AND (%(batch)s::uuid IS NULL OR coalesce(c.token, c.submission_id::text) IN (
            SELECT s.id::text FROM submissions s JOIN edits e ON e.id = s.edit_id WHERE e.batch_id = %(batch)s))
    ORDER BY c.id LIMIT %(limit)s
    """,
    index="callbacks_pkey",
)
RECORD_REPLAY = Statement("UPDATE callbacks SET effect = %s, submission_id = %s WHERE id = %s", index="callbacks_pkey")
