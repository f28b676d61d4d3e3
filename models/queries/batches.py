"""Batches as callers and operators see them, and what a caller changes of one."""

from models.statements import Statement

NEWEST_BATCH = Statement("SELECT id FROM batches ORDER BY created_at DESC, id LIMIT 1", index="batches_created")
BATCHES_BY_PREFIX = Statement("SELECT id FROM batches WHERE starts_with(id::text, %s) LIMIT 2")
NOTIFY_URL = Statement("SELECT notify_url FROM batches WHERE id = %s", index="batches_pkey")
OWN_BATCH = Statement("SELECT FROM batches WHERE id = %s AND client = %s", index="batches_pkey")
NOTIFIED_CLIENTS = Statement("""
    SELECT DISTINCT client FROM batches
    WHERE notify_url IS NOT NULL AND created_at > now() - interval '30 days' ORDER BY client LIMIT 100
""")

_PROGRESS = """
    SELECT *, (SELECT reason FROM provider_status WHERE paused_at IS NOT NULL) AS provider_paused,
           (SELECT b.pause_reason FROM batches b WHERE b.id = batch_id AND b.paused_at IS NOT NULL) AS pause_reason
    FROM batch_progress
"""
PROGRESS_OF_BATCH = Statement("{progress} WHERE batch_id = %s", progress=_PROGRESS, index="batches_pkey")
PROGRESS_OF_BATCHES = Statement("{progress} WHERE batch_id = ANY(%s::uuid[])", progress=_PROGRESS, index="batches_pkey")
PROGRESS_OF_NEWEST = Statement("{progress} ORDER BY created_at DESC LIMIT %s", progress=_PROGRESS)
LAST_NOTIFICATION = Statement(
    """
    SELECT event, attempt, created_at, due_at, delivered_at, last_status, last_error
    FROM notifications WHERE batch_id = %s ORDER BY created_at DESC LIMIT 1
    """,
    index="notifications_batch",
)
ERRORS_BY_TYPE = Statement(
    """
    SELECT type, sum(edits) AS edits, sum(failed) AS failed, min(example) AS example
    FROM error_counters WHERE batch_id = %s GROUP BY type HAVING sum(edits) > 0
    ORDER BY edits DESC, type LIMIT %s
    """
)
ERRORS_OF_BATCHES = Statement("""
    SELECT batch_id, type, sum(edits) AS edits, sum(failed) AS failed, min(example) AS example
    FROM error_counters WHERE batch_id = ANY(%s::uuid[]) GROUP BY batch_id, type HAVING sum(edits) > 0
    ORDER BY batch_id, edits DESC, type
""")
UNANSWERED_BY_REASON = Statement("""
    SELECT state, reason, count(*) AS submissions, min(asked_again_at) AS asked_again_at
    FROM unanswered WHERE batch_id = %s GROUP BY state, reason ORDER BY submissions DESC, reason LIMIT %s
""")

BATCH_STATE = """CASE WHEN b.cancelled_at IS NOT NULL THEN 'cancelled' WHEN b.finished_at IS NOT NULL THEN 'finished'
     WHEN b.paused_at IS NOT NULL THEN 'paused' ELSE 'running' END"""
"""SQL: the state of the batch `b`, as the HTTP API names it."""
_COLUMNS = f"""b.id AS batch_id, b.name, {BATCH_STATE} AS state, b.priority, b.edit_count AS edits, b.metadata,
     b.created_at, b.paused_at, CASE WHEN b.paused_at IS NOT NULL THEN b.pause_reason END AS pause_reason,
     b.cancelled_at, b.finished_at, b.pruned_at, b.broken_criterion"""
BATCH = Statement("SELECT {columns} FROM batches b WHERE b.id = %s", columns=_COLUMNS, index="batches_pkey")
BATCH_DETAIL = Statement(
    """
    SELECT {columns}, b.max_in_flight, b.max_attempts, b.max_cost, b.tolerated_failures,
           b.tolerated_failure_percent, b.deadline, b.notify_url, b.output_expires_after, b.images_deleted,
           b.bytes_deleted, p.*
    FROM batches b JOIN batch_progress p ON p.batch_id = b.id WHERE b.id = %(batch)s
    """,
    columns=_COLUMNS,
    index="batches_pkey",
)
BATCH_PAGE = Statement(
    """
    SELECT * FROM (
        SELECT found.*, count(*) OVER () AS candidates,
               coalesce(sum(bytes) OVER (ORDER BY created_at DESC, batch_id DESC
                                         ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
        FROM (
            SELECT {columns},
                   -- what is stored may be compressed a hundredfold
                   CASE WHEN pg_column_size(b.metadata) < 2048 THEN pg_column_size(b.metadata)
                   ELSE octet_length(b.metadata::text) END AS bytes
            FROM batches b
            WHERE b.client = %(client)s
              AND (%(state)s::text IS NULL OR {state} = %(state)s)
              AND (%(name)s::text IS NULL OR b.name = %(name)s)
              AND (%(after)s::timestamptz IS NULL OR b.created_at > %(after)s)
              AND (%(until)s::timestamptz IS NULL OR b.created_at < %(until)s)
              AND (%(field)s::text IS NULL OR b.metadata ->> %(field)s = %(value)s)
              AND (%(before)s::timestamptz IS NULL OR (b.created_at, b.id) < (%(before)s, %(batch)s))
            ORDER BY b.created_at DESC, b.id DESC LIMIT %(limit)s
        ) found
    ) page WHERE bytes_before < %(bytes)s ORDER BY created_at DESC, batch_id DESC
    """,
    columns=_COLUMNS,
    state=BATCH_STATE,
)
PRUNED_AT = Statement("SELECT pruned_at FROM batches WHERE id = %s", index="batches_pkey")
PAUSE_BATCH = Statement("UPDATE batches SET paused_at = coalesce(paused_at, now()) WHERE id = %s", index="batches_pkey")
RESUME_BATCH = Statement("UPDATE batches SET paused_at = NULL, pause_reason = NULL WHERE id = %s", index="batches_pkey")

# How batches come in and grow.
CREATE_BATCH = Statement("""
    INSERT INTO batches (name, client, priority, max_in_flight, max_attempts, max_cost, tolerated_failures,
                         tolerated_failure_percent, deadline, notify_url, metadata, idempotency_key,
                         check_inputs, endpoint, traceparent, output_expires_after, edit_count)
    VALUES (%(name)s, %(client)s, %(priority)s, %(max_in_flight)s, %(max_attempts)s, %(max_cost)s,
            %(tolerated_failures)s, %(tolerated_failure_percent)s, %(deadline)s, %(notify_url)s, %(metadata)s,
            %(idempotency_key)s, %(check_inputs)s, %(endpoint)s, %(traceparent)s, %(output_expires_after)s, 1)
    ON CONFLICT (client, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING RETURNING id
""")
COMPLETE_BATCH = Statement(
    "UPDATE batches SET edit_count = %s, content_sha256 = %s, inputs = %s, inputs_ready_to = %s WHERE id = %s",
    index="batches_pkey",
)
TRACK_SPENDING = Statement("INSERT INTO spending (batch_id) VALUES (%s)")
BATCH_OF_KEY = Statement(
    "SELECT id, content_sha256 FROM batches WHERE client = %s AND idempotency_key = %s", index="batches_idempotency"
)
STATE_OF_BATCH = Statement(
    "SELECT edit_count, finished_at, cancelled_at, pruned_at, check_inputs FROM batches WHERE id = %s",
    index="batches_pkey",
)
LOCK_BATCH = Statement("{batch} FOR UPDATE", batch=STATE_OF_BATCH, index="batches_pkey")
SET_PRIORITY = Statement("UPDATE batches SET priority = %s WHERE id = %s", index="batches_pkey")
GROW_BATCH = Statement(
    """
    UPDATE batches SET edit_count = edit_count + %s, inputs = inputs + %s, inputs_ready_to = least(inputs_ready_to, %s)
    WHERE id = %s
    """,
    index="batches_pkey",
)
ADDITION_OF_KEY = Statement("SELECT content_sha256 FROM additions WHERE batch_id = %s AND idempotency_key = %s")
KEEP_ADDITION = Statement("""
    INSERT INTO additions (batch_id, idempotency_key, content_sha256, edit_count, skipped)
    VALUES (%(batch)s, %(key)s, %(content_sha256)s, %(edits)s, %(skipped)s)
""")
