"""What must add up: by the counters, of what changed, and by every row there is."""

from collections.abc import Mapping

from models.costs import AMOUNTS
from models.counters import (
    BATCH_COUNTERS,
    EDIT_COUNTERS,
    ERROR_TYPE,
    IMAGE_COUNTERS,
    MONEY_OF_EDIT,
    SUBMISSION_COUNTERS,
)
from models.predicates import edit_in_flight
from models.statements import fill


def _summed(alias: str) -> str:
    return ", ".join(f"sum({alias}.{name}) AS {name}" for name in BATCH_COUNTERS)


def _columns(counters: Mapping[str, str]) -> str:
    return ", ".join(f"{counters.get(name, '0')} AS {name}" for name in BATCH_COUNTERS)


# Each row is an identity that holds at every commit; `difference` is what is unexplained. Read from the counters of
# batches of which something changed since their counters were folded: whatever was folded added up.
ACCOUNTING = """
WITH changed AS MATERIALIZED (
    SELECT DISTINCT batch_id FROM batch_counters WHERE NOT folded
), k AS MATERIALIZED (
    SELECT batch_id, sum(k.pending + k.submitting + k.submitted + k.ready) AS open,
           sum(k.stored + k.failed + k.cancelled) AS final,
           sum(k.images_returned - k.images_stored - k.images_failed - k.images_waiting - k.images_discarded) AS images,
           sum(k.committed) AS committed
    FROM changed JOIN batch_counters k USING (batch_id) GROUP BY batch_id
)
SELECT 'edits = sum over states' AS identity, coalesce(sum(b.edit_count - k.open - k.final), 0) AS difference
FROM k JOIN batches b ON b.id = k.batch_id
UNION ALL
SELECT 'images returned = stored + failed + waiting + discarded', coalesce(sum(k.images), 0) FROM k
UNION ALL
SELECT 'finished batches with an edit that is not final', count(*)
FROM k JOIN batches b ON b.id = k.batch_id WHERE b.finished_at IS NOT NULL AND k.open <> 0
UNION ALL
SELECT 'committed under a ceiling of cost = sum over submissions', coalesce(sum(s.committed - k.committed), 0)
FROM k JOIN spending s ON s.batch_id = k.batch_id
UNION ALL
SELECT 'finished batches that differed from their rows', count(*)
FROM batches WHERE audit_difference IS NOT NULL AND audited_at >= finished_at
"""

# The same against the rows themselves: it reads all of them. Of pruned batches there are none, or not all any more.
AUDIT = fill(
    """
SELECT * FROM accounting
UNION ALL
SELECT 'edits = their rows, each in a state',
       (SELECT coalesce(sum(edit_count), 0) FROM batches WHERE pruned_at IS NULL)
       - (SELECT count(*) FROM edits e JOIN batches b ON b.id = e.batch_id WHERE b.pruned_at IS NULL AND e.state IN
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
FROM spending JOIN batches b ON b.id = spending.batch_id WHERE b.pruned_at IS NULL
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
WHERE ({differ}) AND {unpruned}
UNION ALL
SELECT 'counters of money by day = their rows', count(*) FROM (
    SELECT day, client, reserved, paid, wasted, uncertain FROM cost_ledger
) kept FULL JOIN (
    SELECT day, client, {amounts} FROM (
        SELECT day, client, reserved, paid, wasted, uncertain FROM charges
        UNION ALL
        SELECT p.day, b.client, 0, p.paid, p.wasted, p.uncertain FROM pruned_days p JOIN batches b ON b.id = p.batch_id
    ) there GROUP BY day, client
) counted USING (day, client)
WHERE {money_differs}
UNION ALL
SELECT 'counters of money by client = their days', count(*) FROM client_costs kept FULL JOIN (
    SELECT client, {amounts} FROM cost_ledger GROUP BY client
) counted USING (client)
WHERE {money_differs}
UNION ALL
SELECT 'counters of storage by day = their rows', count(*) FROM (
    SELECT day, client, images, bytes FROM storage_usage
) kept FULL JOIN (
    SELECT day, client, sum(images) AS images, sum(bytes) AS bytes FROM (
        SELECT (i.stored_at AT TIME ZONE 'UTC')::date AS day, b.client, 1 AS images, i.stored_bytes AS bytes
        FROM images i JOIN submissions s ON s.id = i.submission_id JOIN edits e ON e.id = s.edit_id
        JOIN batches b ON b.id = e.batch_id WHERE i.state = 'stored'
        UNION ALL
        SELECT p.day, b.client, p.images_stored, p.bytes_stored
        FROM pruned_days p JOIN batches b ON b.id = p.batch_id WHERE p.images_stored > 0
    ) there GROUP BY day, client
) counted USING (day, client)
WHERE coalesce(kept.images, 0) <> coalesce(counted.images, 0) OR coalesce(kept.bytes, 0) <> coalesce(counted.bytes, 0)
UNION ALL
SELECT 'batches whose counters are folded and do not add up', count(*) FROM (
    SELECT batch_id, count(*) AS rows,
           sum(pending + submitting + submitted + ready) AS open, sum(stored + failed + cancelled) AS final
    FROM batch_counters GROUP BY batch_id HAVING bool_and(folded)
) k LEFT JOIN batches b ON b.id = k.batch_id WHERE k.rows > 1 OR k.open <> 0 OR k.final <> b.edit_count
UNION ALL
SELECT 'counters of errors = their rows', count(*) FROM (
    SELECT batch_id, type, sum(edits) AS edits, sum(failed) AS failed FROM error_counters GROUP BY batch_id, type
) kept FULL JOIN (
    SELECT r.batch_id, {error_type} AS type, count(*) AS edits, count(*) FILTER (WHERE r.state = 'failed') AS failed
    FROM edits r WHERE r.state <> 'stored' AND r.errors <> '[]' GROUP BY 1, 2
) counted USING (batch_id, type)
WHERE (coalesce(kept.edits, 0) <> coalesce(counted.edits, 0)
       OR coalesce(kept.failed, 0) <> coalesce(counted.failed, 0)) AND {unpruned}
UNION ALL
SELECT 'counters of callbacks = their rows', count(*) FROM (
    SELECT effect, sum(callbacks) AS callbacks FROM callback_counters GROUP BY effect
) kept FULL JOIN (
    SELECT effect, sum(callbacks) AS callbacks FROM (
        SELECT effect, count(*) AS callbacks FROM callbacks GROUP BY effect
        UNION ALL
        SELECT effect, callbacks FROM pruned_callbacks
    ) there GROUP BY effect
) counted USING (effect)
WHERE coalesce(kept.callbacks, 0) <> coalesce(counted.callbacks, 0)
""",
    in_flight=edit_in_flight("e"),
    kept=_summed("k"),
    counted=_summed("d"),
    edits=_columns(EDIT_COUNTERS),
    submissions=_columns({**SUBMISSION_COUNTERS, **MONEY_OF_EDIT}),
    images=_columns(IMAGE_COUNTERS),
    differ=" OR ".join(f"coalesce(kept.{name}, 0) <> coalesce(counted.{name}, 0)" for name in BATCH_COUNTERS),
    error_type=ERROR_TYPE,
    unpruned="NOT EXISTS (SELECT FROM batches b WHERE b.id = batch_id AND b.pruned_at IS NOT NULL)",
    amounts=AMOUNTS,
    money_differs=" OR ".join(
        f"coalesce(kept.{name}, 0) <> coalesce(counted.{name}, 0)"
        for name in ("reserved", "paid", "wasted", "uncertain")
    ),
)
