"""What is under way, what is due, what stands still, and what has waited too long."""

from models.criteria import OPEN, has_edits
from models.predicates import (
    batch_submits,
    batch_to_be_audited,
    batch_waits_for_inputs,
    edit_has_inputs,
    edit_in_flight,
    submission_open,
)
from models.statements import fill
from models.states import FINAL, EditState

LANES = ("prepare", "submit", "poll", "download", "settle", "notify", "prune")
"""Those of `worker/lanes/`, which nothing here imports."""
LOOKED_AT = 1000
"""Due rows that are counted, at most: more would say nothing new."""
FIRST_EDITS = 100
"""Pending edits of a batch, in their order, among which a late one is looked for: the next that would be submitted."""

_LATE = "now() - interval '1 minute'"
# What the submit lane should have taken: of each batch that nothing holds back the pending edit that is due the
# longest, `number` of them. Nothing is late while POSTs are made: whoever has no place yet waits for one.
_PENDING_LATE = """
SELECT 'edit' AS what, 'pending' AS state, b.id AS batch_id, e.id::text AS id, e.due_at, now() - e.due_at AS late,
       (SELECT sum(k.pending) FROM batch_counters k WHERE k.batch_id = b.id)::bigint AS number
FROM batches b CROSS JOIN LATERAL (
    SELECT f.id, f.due_at FROM (
        SELECT id, due_at FROM edits
        WHERE batch_id = b.id AND state = 'pending' AND due_at IS NOT NULL AND cancel_requested_at IS NULL
          AND {has_inputs}
        ORDER BY position LIMIT {first}
    ) f ORDER BY f.due_at LIMIT 1
) e
WHERE {batch_submits} AND e.due_at < {late} AND (b.deadline IS NULL OR b.deadline > now())
  AND NOT EXISTS (SELECT FROM provider_status WHERE paused_at IS NOT NULL)
  AND NOT EXISTS (SELECT FROM lane_pauses p WHERE p.lane = 'submit' AND p.subject = b.endpoint)
  AND NOT EXISTS (SELECT FROM minute_counters m
                  WHERE m.minute >= date_trunc('minute', {late}) AND m.submitted > 0)
  AND (SELECT count(*) FROM edits f WHERE {in_flight})
      < coalesce((SELECT places FROM heartbeats WHERE name = 'submit'), 2147483647)
  AND CASE WHEN coalesce(b.max_in_flight, b.max_cost) IS NULL THEN true ELSE
      (SELECT count(*) FROM edits f WHERE f.batch_id = b.id AND {in_flight})
      < coalesce(CASE WHEN b.max_cost IS NOT NULL THEN 1 END, b.max_in_flight) END
"""
_UNDER_WAY = ", ".join(f"'{state}'" for state in EditState if state not in FINAL and state is not EditState.PENDING)
# The batch of a row is looked up row by row: few are late, and a join would be planned for many.
OVERDUE = fill(
    """
SELECT 'edit' AS what, e.state, e.batch_id, e.id::text AS id, e.due_at, now() - e.due_at AS late, 1::bigint AS number
FROM edits e
WHERE e.due_at < {late} AND e.state IN ({under_way})
  AND (SELECT b.paused_at FROM batches b WHERE b.id = e.batch_id) IS NULL
UNION ALL
{pending}
UNION ALL
SELECT 'submission', CASE WHEN s.request_id IS NULL THEN 'outcome unknown' ELSE 'unanswered' END,
       (SELECT e.batch_id FROM edits e WHERE e.id = s.edit_id), s.id::text, s.due_at, now() - s.due_at, 1
FROM submissions s WHERE s.due_at < {late}
UNION ALL
SELECT 'image', i.state,
       (SELECT e.batch_id FROM submissions s JOIN edits e ON e.id = s.edit_id WHERE s.id = i.submission_id),
       i.id::text, i.due_at, now() - i.due_at, 1
FROM images i WHERE i.due_at < {late}
UNION ALL
SELECT 'notification', CASE WHEN n.attempt = 0 THEN 'not tried' ELSE 'not tried again' END,
       n.batch_id, n.id::text, n.due_at, now() - n.due_at, 1
FROM notifications n WHERE n.due_at < {late}
UNION ALL
SELECT 'input', i.state, b.id, i.id::text, i.due_at, now() - i.due_at, 1
FROM batches b JOIN inputs i ON i.batch_id = b.id AND i.state = 'waiting'
WHERE {waits} AND i.due_at < {late}
""",
    late=_LATE,
    under_way=_UNDER_WAY,
    waits=batch_waits_for_inputs("b"),
    pending=fill(
        _PENDING_LATE,
        first=str(FIRST_EDITS),
        batch_submits=batch_submits("b"),
        late=_LATE,
        in_flight=edit_in_flight("f"),
        has_inputs=edit_has_inputs("edits", "b"),
    ),
)

IN_FLIGHT_EDITS = fill(
    """
SELECT (SELECT b.endpoint FROM batches b WHERE b.id = f.batch_id) AS endpoint, f.batch_id, f.state,
       count(*) AS edits, min(f.posted_at) AS oldest_at, now() - min(f.posted_at) AS oldest
FROM (
    SELECT e.batch_id, e.state,
           (SELECT min(s.posted_at) FROM submissions s WHERE s.edit_id = e.id AND {open}) AS posted_at
    FROM edits e WHERE {in_flight}
) f GROUP BY f.batch_id, f.state
""",
    open=submission_open("s"),
    in_flight=edit_in_flight("e"),
)

# What the provider was asked about and has not answered yet, and why.
UNANSWERED = """
SELECT e.batch_id, e.id AS edit_id, e.position, e.custom_id, s.id AS submission_id, s.request_id,
       CASE WHEN s.request_id IS NULL THEN 'outcome unknown' ELSE 'result unread' END AS state,
       s.note AS reason, s.posted_at, s.polls AS asked, s.denials, s.denied_since, s.due_at AS asked_again_at
FROM submissions s JOIN edits e ON e.id = s.edit_id
WHERE s.due_at IS NOT NULL AND s.note IS NOT NULL
"""

# Without the messages, which may quote whatever a server answered.
PAUSES = """
SELECT lane, subject, reason, paused_at, retry_at, probes FROM lane_pauses
UNION ALL
SELECT 'submit', 'account', reason, paused_at, retry_at, probes FROM provider_status WHERE paused_at IS NOT NULL
"""

ACCOUNT_STATUS = """
SELECT account, user_id IS NOT NULL AS identified, paused_at, reason, retry_at, probes, price_per_image, price_read_at,
       unknown_submits, unknown_since
FROM provider_status
"""

_DUE = "SELECT due_at FROM {table} WHERE due_at <= now() ORDER BY due_at LIMIT {most}"
_PENDING_DUE = """
    SELECT f.due_at FROM batches b CROSS JOIN LATERAL (
        SELECT e.due_at FROM edits e WHERE e.batch_id = b.id AND e.state = 'pending' AND e.due_at <= now()
            AND {has_inputs}
        ORDER BY e.position LIMIT {first}
    ) f WHERE {batch_submits} LIMIT {most}
"""
_INPUTS_DUE = """
    SELECT i.due_at FROM batches b JOIN inputs i ON i.batch_id = b.id AND i.state = 'waiting'
    WHERE {waits} AND i.due_at <= now() LIMIT {most}
"""
_FINISHABLE = """
    SELECT (SELECT max(k.ended_at) FROM batch_counters k WHERE k.batch_id = b.id) AS due_at
    FROM batches b WHERE b.finished_at IS NULL AND NOT {open} LIMIT {most}
"""
_RETENTION_DUE = """
    SELECT due_at FROM retention WHERE due_at <= now()
    UNION ALL
    (SELECT finished_at FROM batches b WHERE {unaudited} ORDER BY finished_at LIMIT {most})
"""
_MOST = str(LOOKED_AT)
_DUE_OF_LANE = {
    "prepare": fill(_INPUTS_DUE, waits=batch_waits_for_inputs("b"), most=_MOST),
    "submit": fill(
        _PENDING_DUE,
        first=str(FIRST_EDITS),
        batch_submits=batch_submits("b"),
        has_inputs=edit_has_inputs("e", "b"),
        most=_MOST,
    ),
    "poll": fill(_DUE, table="submissions", most=_MOST),
    "download": fill(_DUE, table="images", most=_MOST),
    "settle": fill(_FINISHABLE, open=has_edits(OPEN), most=_MOST),
    "notify": fill(_DUE, table="notifications", most=_MOST),
    "prune": fill(_RETENTION_DUE, unaudited=batch_to_be_audited("b"), most=_MOST),
}
_LANE_DUE = "SELECT '{lane}' AS lane, count(*) AS due, min(due_at) AS oldest_due_at FROM ({due}) {lane}"
LANE_STATUS = fill(
    """
SELECT d.lane, d.due, d.oldest_due_at, now() - d.oldest_due_at AS waits, p.pauses, p.paused_at, p.reason, p.retry_at,
       h.at AS last_turn_at, h.worked_at AS last_work_at, t.at AS last_tick_at
FROM ({due}) d
LEFT JOIN heartbeats h ON h.name = d.lane
LEFT JOIN heartbeats t ON t.name = 'tick'
CROSS JOIN LATERAL (
    SELECT count(*) AS pauses, min(paused_at) AS paused_at,
           string_agg(DISTINCT subject || ': ' || reason, ', ') AS reason, min(retry_at) AS retry_at
    FROM pauses WHERE lane = d.lane
) p
""",
    due=" UNION ALL ".join(fill(_LANE_DUE, lane=lane, due=_DUE_OF_LANE[lane]) for lane in LANES),
)
