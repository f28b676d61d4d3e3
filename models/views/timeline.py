"""Everything that happened to one edit, in order.

The states of an edit's first life follow from its times and those of its first submission. From the first arrow on that
leads back, each is an event of its own (`models/events.py`), which also says which state it left.
"""

from models.statements import fill

# `f`: the first event of the edit `e`; `s`: its first submission; `life`: the last state of its first life, until when
_FIRST_LIFE = """
    SELECT a.n, a.state, max(a.at) OVER (ORDER BY a.n) AS at, a.attempt FROM (VALUES
        (1, 'pending', true, e.created_at, 0),
        (2, 'submitting', life.state <> 'pending' AND s.posted_at <= life.until, s.posted_at, 1),
        (3, 'submitted', life.state NOT IN ('pending', 'submitting') AND s.accepted_at <= life.until
            AND (life.state = 'submitted' OR s.accepted_at IS DISTINCT FROM s.completed_at
                 AND s.accepted_at < life.until), s.accepted_at, 1),
        (4, 'ready', life.state IN ('ready', 'stored')
            OR life.state = 'failed' AND s.outcome = 'succeeded' AND s.completed_at <= life.until, s.completed_at, 1),
        (5, life.state, life.state IN ('stored', 'failed', 'cancelled'), life.until, NULL)
    ) a (n, state, reached, at, attempt) WHERE a.reached
"""
_STATES = """
    SELECT a.n, a.at, 50 AS place, 'state' AS what, lag(a.state) OVER (ORDER BY a.n) AS was, a.state, a.attempt,
           a.program AS detail, NULL::text AS message
    FROM (
        SELECT n, at, state, attempt, NULL::text AS program FROM ({first_life}) first
        UNION ALL
        SELECT 10 + id, at, state, attempt, program FROM edit_events WHERE edit_id = e.id
    ) a
"""
_OTHERS = """
    SELECT 0, p.posted_at, 10, 'posted', NULL, NULL, p.attempt, NULL, NULL FROM p
    UNION ALL
    SELECT 0, p.accepted_at, 20, 'accepted', NULL, NULL, p.attempt, p.request_id, NULL
    FROM p WHERE p.accepted_at IS NOT NULL
    UNION ALL
    SELECT 0, p.completed_at, 40, 'ended', NULL, NULL, p.attempt,
           concat_ws(', ', p.outcome, p.error_type, 'learned by ' || p.learned_by,
                     CASE WHEN p.doubled THEN 'doubled' END, CASE WHEN p.excused THEN 'excused' END), p.note
    FROM p WHERE p.completed_at IS NOT NULL
    UNION ALL
    SELECT 0, p.cancel_sent_at, 30, 'cancel sent', NULL, NULL, p.attempt, NULL, NULL
    FROM p WHERE p.cancel_sent_at IS NOT NULL
    UNION ALL
    SELECT 0, e.cancel_requested_at, 5, 'cancel requested', NULL, NULL, NULL, NULL, NULL
    WHERE e.cancel_requested_at IS NOT NULL
    UNION ALL
    SELECT 0, c.received_at, 35, 'callback', NULL, NULL, p.attempt, c.effect, NULL
    FROM p JOIN callbacks c ON c.submission_id = p.id
    UNION ALL
    SELECT 0, (x.entry ->> 'at')::timestamptz, 45, 'error', NULL, NULL, (x.entry ->> 'attempt')::integer,
           x.entry ->> 'type', x.entry ->> 'message'
    FROM jsonb_array_elements(e.errors) x (entry)
    UNION ALL
    SELECT 0, i.created_at, 60, 'image returned', NULL, NULL, p.attempt, 'image ' || i.index, NULL
    FROM p JOIN images i ON i.submission_id = p.id
    UNION ALL
    SELECT 0, (x.entry ->> 'at')::timestamptz, 44, 'image refused', NULL, NULL, p.attempt,
           'image ' || i.index || ': ' || (x.entry ->> 'type'), x.entry ->> 'message'
    FROM p JOIN images i ON i.submission_id = p.id CROSS JOIN jsonb_array_elements(i.errors) x (entry)
    UNION ALL
    SELECT 0, i.stored_at, 46, 'image stored', NULL, NULL, p.attempt,
           concat('image ', i.index, ': ', i.stored_bytes, ' bytes, ', i.stored_type,
                  ' ' || i.stored_width || ' x ' || i.stored_height), NULL
    FROM p JOIN images i ON i.submission_id = p.id WHERE i.stored_at IS NOT NULL
    UNION ALL
    SELECT 0, v.at, 70, 'batch ' || v.what, NULL, NULL, NULL, v.program, NULL
    FROM batch_events v WHERE v.batch_id = e.batch_id
    UNION ALL
    SELECT 0, n.created_at, 80, 'notification owed', NULL, NULL, NULL, n.event, NULL
    FROM notifications n WHERE n.batch_id = e.batch_id
    UNION ALL
    SELECT 0, n.delivered_at, 81, 'notification delivered', NULL, NULL, n.attempt, n.event, NULL
    FROM notifications n WHERE n.batch_id = e.batch_id AND n.delivered_at IS NOT NULL
"""
EDIT_TIMELINE = fill(
    """
SELECT e.id AS edit_id, e.batch_id, t.number, t.at, t.what, t.was, t.state, t.attempt, t.detail, t.message
FROM edits e
LEFT JOIN LATERAL (
    SELECT v.was, coalesce(v.final_since, v.at) AS at FROM edit_events v WHERE v.edit_id = e.id ORDER BY v.id LIMIT 1
) f ON true
LEFT JOIN LATERAL (
    SELECT * FROM submissions o WHERE o.edit_id = e.id ORDER BY o.posted_at, o.id LIMIT 1
) s ON true
CROSS JOIN LATERAL (
    SELECT coalesce(f.was, e.state) AS state, coalesce(f.at, e.finished_at, 'infinity') AS until
) life
CROSS JOIN LATERAL (
    WITH p AS (SELECT * FROM submissions o WHERE o.edit_id = e.id)
    SELECT row_number() OVER (ORDER BY u.at, u.place, u.n) AS number, u.* FROM ({states} UNION ALL {others}) u
) t
""",
    states=fill(_STATES, first_life=_FIRST_LIFE),
    others=_OTHERS,
)
