"""How far each batch is, how fast, and what went wrong in it."""

from models.counters import FADED, RATE_OVER
from models.predicates import batch_waits_for_inputs
from models.statements import fill
from models.views.totals import JOIN_FOLDED, join_unfolded, total

INPUTS_COUNTED = 10_001
"""Waiting inputs of a batch that are counted, at most: more would say nothing new."""
_SHOWN = (
    *("pending", "submitting", "submitted", "ready", "stored", "failed", "cancelled", "skipped"),
    *("submissions", "unknown", "doubled", "cost", "images_returned"),
    *("images_waiting", "images_stored", "images_failed", "bytes_stored"),
)
_OPEN = "b.edit_count - c.stored - c.failed - c.cancelled"
_WINDOW = """{over} * CASE WHEN c.first_stored_at IS NULL THEN 1
            ELSE 1 - exp(-least(50, greatest(1, extract(epoch FROM now() - c.first_stored_at)) / {over})) END"""
# What ended lately fades, so that a rate follows the last minutes; a young batch has had less than these (`_WINDOW`).
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
       c.skipped, spending.committed,
       CASE WHEN c.ended_lately > 0.05 AND b.finished_at IS NULL AND b.paused_at IS NULL AND {open} > 0
            THEN make_interval(secs => round({open} * {window} / c.ended_lately)) END AS time_left,
       b.pruned_at, b.check_inputs, b.inputs,
       CASE WHEN {waits} THEN (SELECT count(*) FROM (
           SELECT FROM inputs i WHERE i.batch_id = b.id AND i.state = 'waiting' LIMIT {most_inputs}) w)
       END AS inputs_waiting
FROM batches b
LEFT JOIN spending ON spending.batch_id = b.id
{folded}
{unfolded}
CROSS JOIN LATERAL (
    SELECT {totals}, u.ended_lately,
           least(f.first_stored_at, u.first_stored_at) AS first_stored_at,
           greatest(f.last_stored_at, u.last_stored_at) AS last_stored_at
) c
""",
    folded=JOIN_FOLDED,
    unfolded=join_unfolded(
        _SHOWN,
        fill(
            "min(k.first_stored_at) AS first_stored_at, max(k.last_stored_at) AS last_stored_at,"
            " sum({faded}) AS ended_lately",
            faded=fill(FADED, ended="k.ended_lately", ended_at="k.ended_at", now="now()", over=str(RATE_OVER)),
        ),
    ),
    totals=", ".join(total(name) for name in _SHOWN),
    waits=batch_waits_for_inputs("b"),
    most_inputs=str(INPUTS_COUNTED),
    open=_OPEN,
    window=fill(_WINDOW, over=str(RATE_OVER)),
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


ERRORS_BY_TYPE = """
SELECT batch_id, type, sum(edits) AS edits, sum(failed) AS failed, min(example) AS example
FROM error_counters GROUP BY batch_id, type HAVING sum(edits) > 0
"""
