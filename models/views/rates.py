"""How much happens, how long it takes, and what came in: from counters by minute and by hour."""

from models.moments import BOUNDS, BUCKETS, LATENCY_COUNTERS, MINUTE_COUNTERS
from models.past_counters import CALLBACKS, LATENCIES, MINUTES
from models.statements import fill

THROUGHPUT = fill(
    "SELECT minute, {sums} FROM {rows} m GROUP BY minute",
    sums=", ".join(f"sum({name}) AS {name}" for name in MINUTE_COUNTERS),
    rows=MINUTES.rows(*MINUTE_COUNTERS),
)

_PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
# A percentile lies in the first bucket that reaches its share of the events, and there as far as it would if they were
# spread evenly; what took longer than the last bound counts as that bound.
_PERCENTILE = "round(CASE {buckets} ELSE {last} END, 3) AS {name}"
_WITHIN = (
    "WHEN {upto} >= {share} * h.events"
    " THEN {least} + ({bound} - {least}) * ({share} * h.events - {before}) / ({upto} - {before})"
)


def _percentile(name: str, share: float) -> str:
    buckets, least, before = [], "0.0", "0"
    for bucket, bound in BUCKETS.items():
        upto = f"h.{bucket}"
        buckets.append(fill(_WITHIN, upto=upto, share=str(share), least=least, bound=f"{float(bound)}", before=before))
        least, before = f"{float(bound)}", upto
    return fill(_PERCENTILE, buckets=" ".join(buckets), last=f"{float(BOUNDS[-1])}", name=name)


LATENCY = fill(
    """
SELECT h.hour, h.step, h.events, round((h.seconds / h.events)::numeric, 3) AS mean, {percentiles}
FROM (SELECT hour, step, {sums} FROM {rows} l GROUP BY hour, step) h
""",
    percentiles=", ".join(_percentile(name, share) for name, share in _PERCENTILES.items()),
    sums=", ".join(f"sum({name}) AS {name}" for name in LATENCY_COUNTERS),
    rows=LATENCIES.rows(*LATENCY_COUNTERS),
)

# All hours, in few rows (`models/past_counters.py`): these numbers only grow.
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

CALLBACK_LEDGER = fill(
    """
SELECT hour, true AS kept, effect, sum(callbacks) AS deliveries
FROM {rows} c GROUP BY hour, effect HAVING sum(callbacks) > 0
UNION ALL
SELECT hour, false, reason, count FROM rejected_callbacks
""",
    rows=CALLBACKS.rows("callbacks"),
)
