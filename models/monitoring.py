"""The SQL views that people and dashboards read instead of our tables.

Views are repeatable: every migration drops them first and, at the newest revision, creates them again from
here (`migrations/env.py`), so a view is declared in this one place. `docs/monitoring.md` explains each and
runs the queries that it shows.
"""

from collections.abc import Mapping

from sqlalchemy import Connection

from models.costs import COST_VIEWS
from models.counters import BATCH_COUNTERS, EDIT_COUNTERS, ERROR_TYPE, IMAGE_COUNTERS, SUBMISSION_COUNTERS
from models.predicates import edit_in_flight
from models.statements import fill


def _summed(alias: str) -> str:
    return ", ".join(f"sum({alias}.{name}) AS {name}" for name in BATCH_COUNTERS)


def _columns(counters: Mapping[str, str]) -> str:
    return ", ".join(f"{counters.get(name, '0')} AS {name}" for name in BATCH_COUNTERS)


# Sums over the few rows of each batch's counters.
BATCH_PROGRESS = fill(
    """
SELECT b.id AS batch_id, b.name, b.client, b.priority,
       b.created_at, b.paused_at, b.cancelled_at, b.finished_at, b.broken_criterion, b.deadline, b.max_cost,
       b.edit_count AS edits,
       c.pending, c.submitting, c.submitted, c.ready, c.stored, c.failed, c.cancelled,
       c.submissions, c.unknown, c.doubled, c.cost,
       c.images_returned, c.images_waiting, c.images_stored, c.images_failed, c.bytes_stored,
       c.first_stored_at, c.last_stored_at,
       CASE WHEN c.images_stored > 1 AND c.last_stored_at > c.first_stored_at
            THEN round((c.images_stored - 1) / extract(epoch FROM c.last_stored_at - c.first_stored_at), 2)
       END AS images_per_second,
       c.skipped, spending.committed
FROM batches b
LEFT JOIN spending ON spending.batch_id = b.id
CROSS JOIN LATERAL (
    SELECT {sums},
           min(k.first_stored_at) AS first_stored_at, max(k.last_stored_at) AS last_stored_at
    FROM batch_counters k WHERE k.batch_id = b.id
) c
""",
    sums=", ".join(f"coalesce(sum(k.{name}), 0) AS {name}" for name in BATCH_COUNTERS),
)

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

# Each row is an identity that holds at every commit; `difference` is what is unexplained. Read from the counters.
ACCOUNTING = """
SELECT 'edits = sum over states' AS identity,
       (SELECT coalesce(sum(edit_count), 0) FROM batches)
       - (SELECT coalesce(sum(pending + submitting + submitted + ready + stored + failed + cancelled), 0)
          FROM batch_counters) AS difference
UNION ALL
SELECT 'images returned = stored + failed + waiting + discarded',
       coalesce(sum(images_returned - images_stored - images_failed - images_waiting - images_discarded), 0)
FROM batch_counters
UNION ALL
SELECT 'finished batches with an edit that is not final', count(*) FROM (
    SELECT batch_id FROM batch_counters GROUP BY batch_id HAVING sum(pending + submitting + submitted + ready) <> 0
) k JOIN batches b ON b.id = k.batch_id WHERE b.finished_at IS NOT NULL
UNION ALL
SELECT 'committed under a ceiling of cost = sum over submissions',
       coalesce(sum(spending.committed - (
           SELECT coalesce(sum(k.committed), 0) FROM batch_counters k WHERE k.batch_id = spending.batch_id)), 0)
FROM spending
"""

# The same against the rows themselves: it reads all of them.
AUDIT = fill(
    """
SELECT * FROM accounting
UNION ALL
SELECT 'edits = their rows, each in a state',
       (SELECT coalesce(sum(edit_count), 0) FROM batches)
       - (SELECT count(*) FROM edits WHERE state IN
          ('pending', 'submitting', 'submitted', 'ready', 'stored', 'failed', 'cancelled'))
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
SELECT 'images returned = their rows, each in a state',
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
SELECT 'committed under a ceiling of cost = sum over rows',
       coalesce(sum(spending.committed - (
           SELECT coalesce(sum(s.committed), 0) FROM edits e JOIN submissions s ON s.edit_id = e.id
           WHERE e.batch_id = spending.batch_id)), 0)
FROM spending
UNION ALL
SELECT 'counters of batches = their rows', count(*) FROM (
    SELECT batch_id, {kept} FROM batch_counters k GROUP BY batch_id
) kept FULL JOIN (
    SELECT batch_id, {counted} FROM (
        SELECT r.batch_id, {edits} FROM edits r
        UNION ALL
        SELECT e.batch_id, {submissions} FROM submissions r JOIN edits e ON e.id = r.edit_id
        UNION ALL
        SELECT e.batch_id, {images}
        FROM images r JOIN submissions s ON s.id = r.submission_id JOIN edits e ON e.id = s.edit_id
    ) d GROUP BY batch_id
) counted USING (batch_id)
WHERE {differ}
UNION ALL
SELECT 'counters of errors = their rows', count(*) FROM (
    SELECT batch_id, type, sum(edits) AS edits, sum(failed) AS failed FROM error_counters GROUP BY batch_id, type
) kept FULL JOIN (
    SELECT r.batch_id, {error_type} AS type, count(*) AS edits, count(*) FILTER (WHERE r.state = 'failed') AS failed
    FROM edits r WHERE r.state <> 'stored' AND r.errors <> '[]' GROUP BY 1, 2
) counted USING (batch_id, type)
WHERE coalesce(kept.edits, 0) <> coalesce(counted.edits, 0) OR coalesce(kept.failed, 0) <> coalesce(counted.failed, 0)
UNION ALL
SELECT 'counters of callbacks = their rows', count(*) FROM (
    SELECT effect, sum(callbacks) AS callbacks FROM callback_counters GROUP BY effect
) kept FULL JOIN (
    SELECT effect, count(*) AS callbacks FROM callbacks GROUP BY effect
) counted USING (effect)
WHERE coalesce(kept.callbacks, 0) <> coalesce(counted.callbacks, 0)
""",
    in_flight=edit_in_flight("e"),
    kept=_summed("k"),
    counted=_summed("d"),
    edits=_columns(EDIT_COUNTERS),
    submissions=_columns(SUBMISSION_COUNTERS),
    images=_columns(IMAGE_COUNTERS),
    differ=" OR ".join(f"coalesce(kept.{name}, 0) <> coalesce(counted.{name}, 0)" for name in BATCH_COUNTERS),
    error_type=ERROR_TYPE,
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
    "audit": AUDIT,
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
