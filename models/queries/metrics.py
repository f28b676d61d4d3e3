"""What `/metrics` asks: one question for each family of metrics, all of counters and of rows that are under way."""

from models.moments import MINUTE_COUNTERS
from models.statements import Statement

_EVENTS = "SELECT v.event, v.value FROM event_totals CROSS JOIN LATERAL (VALUES {values}) v (event, value)"
_AMOUNTS = ("reserved", "paid", "wasted", "uncertain")
_COSTS = "SELECT c.client, v.amount, v.value FROM client_costs c CROSS JOIN LATERAL (VALUES {values}) v (amount, value)"
_STATES = ("pending", "submitting", "submitted", "ready")
_OPEN = """
    SELECT v.state, v.value FROM (SELECT {sums} FROM batch_counters WHERE NOT folded) k
    CROSS JOIN LATERAL (VALUES {values}) v (state, value)
"""


def _values(names: tuple[str, ...]) -> str:
    return ", ".join(f"('{name}', {name})" for name in names)


METRICS: dict[str, Statement] = {
    "events": Statement(_EVENTS, values=_values(MINUTE_COUNTERS)),
    "latency": Statement("SELECT step, le, events, all_events, seconds FROM latency_histogram ORDER BY step, le"),
    "open_edits": Statement(
        _OPEN,
        sums=", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in _STATES),
        values=_values(_STATES),
    ),
    "unfinished_batches": Statement("SELECT count(*) AS value FROM batches WHERE finished_at IS NULL"),
    "lanes": Statement("""
        SELECT lane, due, coalesce(extract(epoch FROM waits), 0) AS waits,
               extract(epoch FROM now() - last_turn_at) AS turned, extract(epoch FROM now() - last_tick_at) AS ticked
        FROM lane_status ORDER BY lane
    """),
    "pauses": Statement("SELECT lane, subject, reason, 1 AS value FROM pauses ORDER BY lane, subject"),
    "overdue": Statement("""
        SELECT what, state, sum(number) AS value, extract(epoch FROM max(late)) AS late
        FROM overdue GROUP BY what, state ORDER BY what, state
    """),
    "callbacks": Statement("SELECT effect, sum(callbacks) AS value FROM callback_counters GROUP BY effect"),
    "rejected_callbacks": Statement("SELECT reason, sum(count) AS value FROM rejected_callbacks GROUP BY reason"),
    "costs": Statement(_COSTS, values=_values(_AMOUNTS)),
    "accounts": Statement("SELECT identity AS account, difference AS value FROM accounting"),
}
"""Family -> question."""
