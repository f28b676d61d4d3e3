"""The money, as views: by submission, edit, batch, client and day (UTC); all amounts in USD.

`reserved` is the worst case of what is in flight, `paid` what came back and is charged, `wasted` the part of it that
brought nothing (paid beside a resubmission, for a refusal, or for an edit that failed all the same), and `uncertain`
the worst case of what nobody will ever know: submits that were never heard of, results that were gone, refusals after
a run of which the provider did not say whether it charges for them. `charges` and `edit_costs` read the submissions,
the others the counters (`models/counters.py`, `models/day_counters.py`).
"""

from models.past_counters import DAYS
from models.statements import Statement
from models.views.totals import JOIN_FOLDED, join_unfolded, total

AMOUNTS = "sum(reserved) AS reserved, sum(paid) AS paid, sum(wasted) AS wasted, sum(uncertain) AS uncertain"

CHARGES = """
SELECT s.id AS submission_id, s.edit_id, e.batch_id, b.client,
       (coalesce(s.completed_at, s.posted_at) AT TIME ZONE 'UTC')::date AS day, s.images_returned AS images,
       CASE WHEN s.outcome IS NULL THEN s.reserved ELSE 0 END AS reserved,
       coalesce(s.cost, 0) AS paid,
       CASE WHEN s.doubled OR s.outcome = 'failed' OR e.state = 'failed' THEN coalesce(s.cost, 0) ELSE 0 END AS wasted,
       CASE WHEN s.outcome = 'unknown' OR s.error_type = 'result_expired' OR s.may_be_charged THEN s.reserved
            ELSE 0 END AS uncertain
FROM submissions s JOIN edits e ON e.id = s.edit_id JOIN batches b ON b.id = e.batch_id
"""

_KEPT = ("reserved", "cost", "wasted", "uncertain")
COST_VIEWS: dict[str, str] = {
    "charges": CHARGES,
    "edit_costs": Statement(
        "SELECT batch_id, edit_id, {amounts} FROM charges GROUP BY batch_id, edit_id", amounts=AMOUNTS
    ),
    "batch_costs": Statement(
        """
        SELECT b.id AS batch_id, b.name, b.client, b.max_cost, c.reserved, c.cost AS paid, c.wasted, c.uncertain
        FROM batches b {folded} {unfolded} CROSS JOIN LATERAL (SELECT {totals}) c
        """,
        folded=JOIN_FOLDED,
        unfolded=join_unfolded(_KEPT),
        totals=", ".join(total(name) for name in _KEPT),
    ),
    "cost_ledger": Statement(
        "SELECT day, client, {amounts} FROM {rows} d GROUP BY day, client",
        amounts=AMOUNTS,
        rows=DAYS.rows("reserved", "paid", "wasted", "uncertain"),
    ),
    "client_costs": Statement("SELECT client, {amounts} FROM day_counters GROUP BY client", amounts=AMOUNTS),
    "daily_costs": "SELECT * FROM cost_ledger",
    "storage_usage": Statement(
        """
        SELECT day, client, sum(images_stored) AS images, sum(bytes_stored) AS bytes
        FROM {rows} d GROUP BY day, client HAVING sum(images_stored) > 0
        """,
        rows=DAYS.rows("images_stored", "bytes_stored"),
    ),
}
