"""How much happens, how long it takes, and what came in: from counters by minute and by hour."""

from models.moments import BEFORE_ALL, BOUNDS, BUCKETS, MINUTE_COUNTERS
from models.statements import fill

THROUGHPUT = fill(
    "SELECT minute, {sums} FROM minute_counters WHERE minute > {before_all} GROUP BY minute",
    sums=", ".join(f"sum({name}) AS {name}" for name in MINUTE_COUNTERS),
    before_all=BEFORE_ALL,
)

_PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
# A percentile lies in the first bucket that reaches its share of the events, and there as far as it would if they were
# spread evenly; what took longer than the last bound counts as that bound.
LATENCY = fill(
    """
SELECT h.hour, h.step, h.events, round((h.seconds / h.events)::numeric, 3) AS mean, {percentiles}
FROM (
    SELECT hour, step, sum(events) AS events, sum(seconds) AS seconds, ARRAY[{sums}] AS upto
    FROM latency_counters WHERE hour > {before_all} GROUP BY hour, step
) h CROSS JOIN LATERAL (
    SELECT {values}
    FROM (
        SELECT b.bound, b.upto, lag(b.bound, 1, 0.0) OVER w AS least, lag(b.upto, 1, 0) OVER w AS before
        FROM unnest(ARRAY[{bounds}]::numeric[], h.upto) AS b (bound, upto) WINDOW w AS (ORDER BY b.bound)
    ) b
) p
""",
    percentiles=", ".join(f"round(coalesce(p.{name}, {BOUNDS[-1]}), 3) AS {name}" for name in _PERCENTILES),
    sums=", ".join(f"sum({name})" for name in BUCKETS),
    before_all=BEFORE_ALL,
    bounds=", ".join(str(bound) for bound in BOUNDS),
    values=", ".join(
        f"min(b.least + (b.bound - b.least) * ({share} * h.events - b.before) / (b.upto - b.before))"
        f" FILTER (WHERE b.upto >= {share} * h.events AND b.before < {share} * h.events) AS {name}"
        for name, share in _PERCENTILES.items()
    ),
)

# All hours, those too old to be told apart as well: these numbers only grow.
LATENCY_HISTOGRAM = fill(
    """
SELECT h.step, b.bound AS le, b.upto AS events, h.events AS all_events, h.seconds
FROM (
    SELECT step, sum(events) AS events, sum(seconds) AS seconds, ARRAY[{sums}] AS upto
    FROM latency_counters GROUP BY step
) h CROSS JOIN LATERAL unnest(ARRAY[{bounds}]::numeric[], h.upto) AS b (bound, upto)
""",
    sums=", ".join(f"sum({name})" for name in BUCKETS),
    bounds=", ".join(str(bound) for bound in BOUNDS),
)

# All there ever was, for whoever wants numbers that only grow.
EVENT_TOTALS = fill(
    "SELECT {sums} FROM minute_counters",
    sums=", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in MINUTE_COUNTERS),
)

CALLBACK_LEDGER = """
SELECT hour, true AS kept, effect, sum(callbacks) AS deliveries
FROM callback_counters GROUP BY hour, effect HAVING sum(callbacks) > 0
UNION ALL
SELECT hour, false, reason, count FROM rejected_callbacks
"""
