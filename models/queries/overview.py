"""The whole system at one moment, as `darkroom top` shows it: rows of the views, a few of each."""

from models.statements import Statement

NOW = Statement("SELECT now()")
LANES_NOW = Statement("SELECT * FROM lane_status")
IN_FLIGHT_NOW = Statement("""
    SELECT state, sum(edits)::bigint AS edits, min(oldest_at) AS oldest_at FROM in_flight GROUP BY state ORDER BY state
""")
ACCOUNT_NOW = Statement("SELECT * FROM account_status ORDER BY account LIMIT 1")
MINUTES_NOW = Statement("""
    SELECT * FROM throughput WHERE minute > now() - interval '6 minutes' ORDER BY minute DESC LIMIT 6
""")
LATENCY_NOW = Statement("""
    SELECT DISTINCT ON (step) * FROM latency
    WHERE hour >= date_trunc('hour', now()) - interval '1 hour' ORDER BY step, hour DESC
""")
OPEN_BATCHES = Statement(
    """
    SELECT p.* FROM (
        SELECT id FROM batches WHERE finished_at IS NULL ORDER BY priority DESC, created_at, id LIMIT %s
    ) b JOIN batch_progress p ON p.batch_id = b.id ORDER BY p.priority DESC, p.created_at, p.batch_id
    """,
    index="batches_active",
)
