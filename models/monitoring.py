"""The SQL views that people and dashboards read instead of our tables.

Views are repeatable: every migration drops them first and, at the newest revision, creates them again from
here (`migrations/env.py`), so a view is declared in this one place. `docs/monitoring.md` explains each and
runs the queries that it shows.
"""

from sqlalchemy import Connection

from models.costs import COST_VIEWS
from models.predicates import edit_in_flight
from models.statements import fill

BATCH_PROGRESS = """
SELECT b.id AS batch_id, b.name, b.client, b.priority,
       b.created_at, b.paused_at, b.cancelled_at, b.finished_at, b.broken_criterion, b.deadline, b.max_cost,
       b.edit_count AS edits,
       e.pending, e.submitting, e.submitted, e.ready, e.stored, e.failed, e.cancelled,
       s.submissions, s.unknown, s.doubled, s.cost,
       s.images_returned, i.images_waiting, i.images_stored, i.images_failed, i.bytes_stored,
       i.first_stored_at, i.last_stored_at,
       CASE WHEN i.images_stored > 1 AND i.last_stored_at > i.first_stored_at
            THEN round((i.images_stored - 1) / extract(epoch FROM i.last_stored_at - i.first_stored_at), 2)
       END AS images_per_second,
       e.skipped, spending.committed
FROM batches b
LEFT JOIN spending ON spending.batch_id = b.id
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE state = 'pending') AS pending,
           count(*) FILTER (WHERE state = 'submitting') AS submitting,
           count(*) FILTER (WHERE state = 'submitted') AS submitted,
           count(*) FILTER (WHERE state = 'ready') AS ready,
           count(*) FILTER (WHERE state = 'stored') AS stored,
           count(*) FILTER (WHERE state = 'failed') AS failed,
           count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
           count(*) FILTER (WHERE state = 'failed' AND attempt = 0) AS skipped
    FROM edits WHERE edits.batch_id = b.id
) e
CROSS JOIN LATERAL (
    SELECT count(*) AS submissions,
           count(*) FILTER (WHERE outcome = 'unknown') AS unknown,
           count(*) FILTER (WHERE submissions.doubled) AS doubled,
           coalesce(sum(submissions.cost), 0) AS cost,
           coalesce(sum(submissions.images_returned), 0) AS images_returned
    FROM edits JOIN submissions ON submissions.edit_id = edits.id WHERE edits.batch_id = b.id
) s
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE images.state = 'waiting') AS images_waiting,
           count(*) FILTER (WHERE images.state = 'stored') AS images_stored,
           count(*) FILTER (WHERE images.state = 'failed') AS images_failed,
           coalesce(sum(stored_bytes) FILTER (WHERE images.state = 'stored'), 0) AS bytes_stored,
           min(stored_at) FILTER (WHERE images.state = 'stored') AS first_stored_at,
           max(stored_at) FILTER (WHERE images.state = 'stored') AS last_stored_at
    FROM edits
    JOIN submissions ON submissions.edit_id = edits.id
    JOIN images ON images.submission_id = submissions.id
    WHERE edits.batch_id = b.id
) i
"""

EDIT_ERRORS = """
SELECT e.batch_id, e.id AS edit_id, e.position, e.custom_id, e.state,
       (fault.entry ->> 'at')::timestamptz AS at,
       (fault.entry ->> 'attempt')::integer AS attempt,
       fault.entry ->> 'type' AS type,
       fault.entry ->> 'message' AS message,
       fault.number = jsonb_array_length(e.errors) AS latest
FROM edits e
CROSS JOIN LATERAL jsonb_array_elements(e.errors) WITH ORDINALITY AS fault (entry, number)
"""

# Each row is an identity that holds at every commit; `difference` is what is unexplained.
ACCOUNTING = fill(
    """
SELECT 'edits = sum over states' AS identity,
       (SELECT coalesce(sum(edit_count), 0) FROM batches)
       - (SELECT count(*) FROM edits WHERE state IN
          ('pending', 'submitting', 'submitted', 'ready', 'stored', 'failed', 'cancelled')) AS difference
UNION ALL
SELECT 'submissions accepted = succeeded + failed + cancelled + in flight',
       count(*) FILTER (WHERE request_id IS NOT NULL)
       - count(*) FILTER (WHERE request_id IS NOT NULL AND outcome IN ('succeeded', 'failed', 'cancelled'))
       - count(*) FILTER (WHERE request_id IS NOT NULL AND outcome IS NULL)
FROM submissions
UNION ALL
SELECT 'submissions never answered = rejected + unknown + in flight',
       count(*) FILTER (WHERE request_id IS NULL)
       - count(*) FILTER (WHERE request_id IS NULL AND outcome IN ('rejected', 'unknown'))
       - count(*) FILTER (WHERE request_id IS NULL AND outcome IS NULL)
FROM submissions
UNION ALL
SELECT 'edits in flight without an open submission',
       count(*) FROM edits e
WHERE {in_flight}
  AND NOT EXISTS (SELECT FROM submissions s WHERE s.edit_id = e.id AND s.due_at IS NOT NULL)
UNION ALL
SELECT 'images returned = stored + failed + waiting + discarded',
       (SELECT coalesce(sum(images_returned), 0) FROM submissions)
       - (SELECT count(*) FROM images WHERE state IN ('stored', 'failed', 'waiting', 'discarded'))
UNION ALL
SELECT 'stored edits with an image that is not stored, or without any',
       count(*) FROM edits e
WHERE e.state = 'stored' AND (
    EXISTS (SELECT FROM submissions s JOIN images i ON i.submission_id = s.id
            WHERE s.edit_id = e.id AND i.state IN ('waiting', 'failed'))
    OR NOT EXISTS (SELECT FROM submissions s JOIN images i ON i.submission_id = s.id
                   WHERE s.edit_id = e.id AND i.state = 'stored'))
UNION ALL
SELECT 'callbacks = sum over effects',
       count(*) - count(*) FILTER
       (WHERE effect IN ('applied', 'duplicate', 'late', 'orphan', 'mismatch', 'stale', 'unreadable'))
FROM callbacks
UNION ALL
SELECT 'charges = images paid: submissions with a price but no images, or the other way round',
       count(*) FILTER (WHERE (cost IS NULL) <> (coalesce(images_returned, billable_units) IS NULL))
FROM submissions
UNION ALL
SELECT 'submissions succeeded = sets of images kept + doubled',
       (SELECT count(*) FROM submissions WHERE outcome = 'succeeded' AND NOT doubled)
       - (SELECT count(DISTINCT s.edit_id) FROM submissions s JOIN images i ON i.submission_id = s.id
          WHERE i.state <> 'discarded')
UNION ALL
SELECT 'committed under a ceiling of cost = sum over submissions',
       coalesce(sum(spending.committed - (
           SELECT coalesce(sum(s.committed), 0) FROM edits e JOIN submissions s ON s.edit_id = e.id
           WHERE e.batch_id = spending.batch_id)), 0)
FROM spending
""",
    in_flight=edit_in_flight("e"),
)

# What has waited longer than its state may last, and why.
OVERDUE = """
SELECT 'edit' AS what, e.state, e.batch_id, e.id::text AS id, e.due_at, now() - e.due_at AS late
FROM edits e JOIN batches b ON b.id = e.batch_id
WHERE e.due_at < now() - interval '1 minute' AND b.paused_at IS NULL AND e.state <> 'pending'
UNION ALL
SELECT 'submission', CASE WHEN s.request_id IS NULL THEN 'outcome unknown' ELSE 'unanswered' END,
       e.batch_id, s.id::text, s.due_at, now() - s.due_at
FROM submissions s JOIN edits e ON e.id = s.edit_id WHERE s.due_at < now() - interval '1 minute'
UNION ALL
SELECT 'image', i.state, e.batch_id, i.id::text, i.due_at, now() - i.due_at
FROM images i JOIN submissions s ON s.id = i.submission_id JOIN edits e ON e.id = s.edit_id
WHERE i.due_at < now() - interval '1 minute'
UNION ALL
SELECT 'notification', CASE WHEN n.attempt = 0 THEN 'not tried' ELSE 'not tried again' END,
       n.batch_id, n.id::text, n.due_at, now() - n.due_at
FROM notifications n WHERE n.due_at < now() - interval '1 minute'
"""

# What the provider was asked about and has not answered yet, and why.
UNANSWERED = """
SELECT e.batch_id, e.id AS edit_id, e.position, e.custom_id, s.id AS submission_id, s.request_id,
       CASE WHEN s.request_id IS NULL THEN 'outcome unknown' ELSE 'result unread' END AS state,
       s.note AS reason, s.posted_at, s.polls AS asked, s.denials, s.denied_since, s.due_at AS asked_again_at
FROM submissions s JOIN edits e ON e.id = s.edit_id
WHERE s.due_at IS NOT NULL AND s.note IS NOT NULL
"""

VIEWS: dict[str, str] = {
    "batch_progress": BATCH_PROGRESS,
    "edit_errors": EDIT_ERRORS,
    "accounting": ACCOUNTING,
    "overdue": OVERDUE,
    "unanswered": UNANSWERED,
    **COST_VIEWS,
}
"""In the order of their creation: one may read another."""


def drop_views(connection: Connection) -> None:
    """Drop every view of ours, so that the tables beneath may change."""
    for name in reversed(VIEWS):
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")


def create_views(connection: Connection) -> None:
    """Create every view as declared here."""
    for name, query in VIEWS.items():
        connection.exec_driver_sql(f"CREATE VIEW {name} AS {query}")
