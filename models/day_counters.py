"""What each client's edits cost and store, by day (UTC): counters that outlive the rows that they counted.

The money of a submission that brought images is wasted as long as its edit is failed, so a change of the edit moves it
too. Whoever changes what a submission costs holds its edit (`models/transitions/`), and no statement changes both at
one time, so either trigger sees the other's row as it is.
"""

from models.counter_statements import (
    SOURCE,
    UNFOLD,
    Addition,
    Counting,
    add_to_counters,
    any_changed,
    has_changed,
    sum_again,
    sum_signed,
)
from models.statements import fill

MONEY: dict[str, str] = {
    "reserved": "CASE WHEN r.outcome IS NULL THEN r.reserved ELSE 0 END",
    "paid": "coalesce(r.cost, 0)",
    "uncertain": (
        "CASE WHEN r.outcome = 'unknown' OR r.error_type = 'result_expired' OR r.may_be_charged"
        " THEN r.reserved ELSE 0 END"
    ),
}
"""What a row `r` of `submissions` adds to each amount, in USD; `models/costs.py` says what they mean."""
WASTED_PARTS: dict[str, str] = {
    "lost": "CASE WHEN r.doubled OR r.outcome = 'failed' THEN coalesce(r.cost, 0) ELSE 0 END",
    "brought": "CASE WHEN r.doubled OR r.outcome = 'failed' THEN 0 ELSE coalesce(r.cost, 0) END",
}
"""What is paid for nothing whatever becomes of the edit, and what is where the edit fails."""
WASTED_OF_GROUP = "sum(d.lost + CASE WHEN e.state = 'failed' THEN d.brought ELSE 0 END) AS wasted"
WASTED = "CASE WHEN r.doubled OR r.outcome = 'failed' OR e.state = 'failed' THEN coalesce(r.cost, 0) ELSE 0 END"
"""The same of one row `r` whose edit is `e`."""
AMOUNTS = ("reserved", "paid", "wasted", "uncertain")
STORED: dict[str, str] = {
    "images_stored": "(r.state = 'stored')::int",
    "bytes_stored": "CASE r.state WHEN 'stored' THEN r.stored_bytes ELSE 0 END",
}
"""The same of `images`."""
DAY_COUNTERS = (*AMOUNTS, *STORED)
DAY = "(coalesce({row}.completed_at, {row}.posted_at) AT TIME ZONE 'UTC')::date"
"""SQL: the day of a submission's money."""

_DAY_AND_CLIENT = ("day", "client")
SUBMISSIONS_BY_DAY = Addition(
    "day_counters",
    _DAY_AND_CLIENT,
    AMOUNTS,
    fill(
        """
        SELECT d.day, b.client, {summed}, {wasted}
        FROM (SELECT r.edit_id, {day} AS day, {added} FROM {source} r GROUP BY r.edit_id, {day}) d
        JOIN edits e ON e.id = d.edit_id JOIN batches b ON b.id = e.batch_id
        WHERE {any} GROUP BY d.day, b.client
        """,
        summed=sum_again(MONEY),
        wasted=WASTED_OF_GROUP,
        day=fill(DAY, row="r"),
        added=sum_signed({**MONEY, **WASTED_PARTS}),
        any=any_changed((*MONEY, *WASTED_PARTS)),
        source=SOURCE,
    ),
)
IMAGES_BY_DAY = Addition(
    "day_counters",
    _DAY_AND_CLIENT,
    tuple(STORED),
    fill(
        """
        SELECT d.day, b.client, {summed}
        FROM (
            SELECT r.submission_id, (r.stored_at AT TIME ZONE 'UTC')::date AS day, {added}
            FROM {source} r WHERE r.stored_at IS NOT NULL GROUP BY 1, 2
        ) d JOIN submissions s ON s.id = d.submission_id JOIN edits e ON e.id = s.edit_id
        JOIN batches b ON b.id = e.batch_id
        WHERE {any} GROUP BY d.day, b.client
        """,
        summed=sum_again(STORED),
        added=sum_signed(STORED),
        any=any_changed(STORED),
        source=SOURCE,
    ),
)
# of edits that became failed (1) or are no longer (-1)
_FAILING = fill(
    """
    failing AS (
        SELECT r.id, r.batch_id, sum(r.sign) AS sign FROM {source} r WHERE r.state = 'failed'
        GROUP BY r.id, r.batch_id HAVING sum(r.sign) <> 0
    ), moved AS MATERIALIZED (
        SELECT f.batch_id, {day} AS day, f.sign * s.cost AS wasted
        FROM failing f CROSS JOIN LATERAL (
            SELECT completed_at, posted_at, cost FROM submissions
            WHERE edit_id = f.id AND cost <> 0 AND NOT doubled AND outcome <> 'failed' OFFSET 0
        ) s
    )
    """,
    day=fill(DAY, row="s"),
    source=SOURCE,
)
WASTED_OF_EDITS = add_to_counters(
    Addition(
        "batch_counters",
        ("batch_id",),
        ("wasted",),
        "SELECT batch_id, sum(wasted) AS wasted FROM moved GROUP BY batch_id",
        also=UNFOLD,
    ),
    Addition(
        "day_counters",
        _DAY_AND_CLIENT,
        ("wasted",),
        """
        SELECT m.day, b.client, sum(m.wasted) AS wasted FROM moved m JOIN batches b ON b.id = m.batch_id
        GROUP BY m.day, b.client
        """,
    ),
    before=_FAILING,
)
OF_EDITS = Counting(WASTED_OF_EDITS, after_insert=None, after_update="'failed' IN (n.state, o.state)")
MONEY_CHANGED = has_changed("outcome", "error_type", "cost", "reserved", "doubled", "may_be_charged", "completed_at")
