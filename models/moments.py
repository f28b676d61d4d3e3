"""When things happened and how long they took: how many of each in a minute, and a histogram of seconds for each hour.

What happened is counted once and never taken back, so these counters only grow, as a program that scrapes them expects
(`/metrics`). Those of a time that is over are added to one row that stands before all time (`models/past_counters.py`).
"""

from models.counter_statements import SINCE, SOURCE, Addition
from models.statements import fill
from models.states import EditState, LearnedBy

MINUTE_COUNTERS = (
    *("created", "submitted", "accepted", "called_back", "polled", "stored", "failed", "cancelled"),
    *("images_stored", "bytes_stored"),
)
"""Edits created; submissions POSTed, accepted, and answered by a callback or otherwise; edits that ended; images."""
BOUNDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 3600)
"""Seconds up to which a histogram counts; what took longer is in `events` alone."""
BUCKETS = {f"le_{str(bound).replace('.', '_')}": bound for bound in BOUNDS}
"""Column -> bound: how many took no longer than that."""
LATENCY_COUNTERS = ("events", "seconds", *BUCKETS)
STEPS = {
    "submitted": "from an edit's creation to its first POST",
    "replied": "from a POST to the provider's acceptance",
    "accepted": "from an edit's creation to the first acceptance",
    "called_back": "from acceptance to the callback that told the end",
    "polled": "from acceptance to the answer that told the end, where no callback did",
    "stored": "from the answer to an image in storage",
    "whole": "from an edit's creation to the edit stored",
}
"""What a latency is measured of."""
BEFORE_ALL = "'-infinity'"
"""SQL: the minute and the hour of what is over."""

MINUTE = "date_trunc('minute', {at})"
HOUR = "date_trunc('hour', {at}, 'UTC')"
"""SQL: of an hour that is the same in every time zone."""


_COUNT = "greatest(0, coalesce(sum(v.amount) FILTER (WHERE v.what = '{name}'), 0)) AS {name}"
# `v` is one event: what, when, how many
_BY_MINUTE = """
    SELECT * FROM (
        SELECT {minute} AS minute, {counts} FROM {events} WHERE v.at >= {since} GROUP BY 1
    ) d WHERE {any}
"""
# `within`: how many of the bounds a time keeps within; so few rows are left that every bucket can be asked of each
_BY_HOUR = """
    SELECT * FROM (
        SELECT v.hour, v.step, sum(v.events) AS events, greatest(0, sum(v.seconds)) AS seconds, {buckets}
        FROM (
            SELECT {hour} AS hour, u.step, width_bucket(-u.seconds, ARRAY[{bounds}]::float8[]) AS within,
                   sum(u.sign)::integer AS events, sum(u.sign * u.seconds) AS seconds
            FROM (
                SELECT step, at, sign, greatest(0, extract(epoch FROM took))::float8 AS seconds
                FROM {events} WHERE took IS NOT NULL AND at >= {since}
            ) u GROUP BY 1, 2, 3
        ) v GROUP BY 1, 2
    ) d WHERE d.events > 0
"""
_BUCKET = "greatest(0, coalesce(sum(v.events) FILTER (WHERE v.within >= {least}), 0)) AS {name}"


def _by_minute(counters: tuple[str, ...], events: str) -> Addition:
    change = fill(
        _BY_MINUTE,
        minute=fill(MINUTE, at="v.at"),
        counts=", ".join(fill(_COUNT, name=name) for name in counters),
        events=events,
        since=SINCE,
        any=" OR ".join(f"d.{name} > 0" for name in counters),
    )
    return Addition("minute_counters", ("minute",), counters, change)


def _by_hour(events: str) -> Addition:
    change = fill(
        _BY_HOUR,
        hour=fill(HOUR, at="u.at"),
        since=SINCE,
        events=events,
        bounds=", ".join(str(-bound) for bound in reversed(BOUNDS)),
        buckets=", ".join(
            fill(_BUCKET, name=name, least=str(len(BOUNDS) - place)) for place, name in enumerate(BUCKETS)
        ),
    )
    return Addition("latency_counters", ("hour", "step"), LATENCY_COUNTERS, change)


# Every time is that of the transaction that writes it. So what happens now is told from what happened before, and from
# all the other changes of a row, before anything else is looked at.
_NOW = "(SELECT * FROM {source} r WHERE greatest({times}) >= {since}) r"


def _now(*times: str) -> str:
    return fill(_NOW, times=", ".join(times), source=SOURCE, since=SINCE)


_LEARNED = f"CASE r.learned_by WHEN '{LearnedBy.CALLBACK}' THEN 'called_back' ELSE 'polled' END"
EDITS_BY_MINUTE = _by_minute(
    ("created", EditState.STORED, EditState.FAILED, EditState.CANCELLED),
    f"""{_now("created_at", "finished_at")} CROSS JOIN LATERAL (VALUES
        ('created', r.created_at, r.sign), (r.state, r.finished_at, r.sign)) v (what, at, amount)""",
)
EDITS_BY_HOUR = _by_hour(
    f"""{_now("finished_at")} CROSS JOIN LATERAL (VALUES (
        'whole', r.finished_at, CASE r.state WHEN 'stored' THEN r.finished_at - r.created_at END)) u (step, at, took)"""
)
_TIMES = _now("posted_at", "accepted_at", "completed_at")
SUBMISSIONS_BY_MINUTE = _by_minute(
    ("submitted", "accepted", "called_back", "polled"),
    f"""{_TIMES} CROSS JOIN LATERAL (VALUES
        ('submitted', r.posted_at, r.sign), ('accepted', r.accepted_at, r.sign),
        ({_LEARNED}, CASE WHEN r.accepted_at IS NOT NULL THEN r.completed_at END, r.sign)) v (what, at, amount)""",
)
SUBMISSIONS_BY_HOUR = _by_hour(
    f"""{_TIMES} JOIN edits e ON e.id = r.edit_id CROSS JOIN LATERAL (VALUES
        ('submitted', r.posted_at, CASE WHEN r.attempt = 1 THEN r.posted_at - e.created_at END),
        ('replied', r.accepted_at, r.accepted_at - r.posted_at),
        ('accepted', r.accepted_at, CASE WHEN r.attempt = 1 THEN r.accepted_at - e.created_at END),
        ({_LEARNED}, r.completed_at, r.completed_at - r.accepted_at)) u (step, at, took)"""
)
IMAGES_BY_MINUTE = _by_minute(
    ("images_stored", "bytes_stored"),
    f"""{_now("stored_at")} CROSS JOIN LATERAL (VALUES
        ('images_stored', r.stored_at, r.sign), ('bytes_stored', r.stored_at, r.sign * r.stored_bytes))
        v (what, at, amount)""",
)
IMAGES_BY_HOUR = _by_hour(
    f"""{_now("stored_at")} JOIN submissions s ON s.id = r.submission_id CROSS JOIN LATERAL (VALUES (
        'stored', r.stored_at, r.stored_at - s.completed_at)) u (step, at, took)"""
)
