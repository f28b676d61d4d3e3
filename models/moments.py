"""When things happened and how long they took: how many of each in a minute, and a histogram of seconds for each hour.

What happened is counted once and never taken back, so these counters only grow, as a program that scrapes them expects
(`/metrics`). Old ones are not deleted but added to one row that stands before all time (`FOLD_OLD_MINUTES`).
"""

from models.counter_statements import SINCE, SOURCE, Counting, add_to_counters
from models.statements import Statement, fill
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
"""SQL: the minute and the hour of what is too old to be told apart."""

MINUTE = "date_trunc('minute', {at})"
HOUR = "date_trunc('hour', {at}, 'UTC')"
"""SQL: of an hour that is the same in every time zone."""


_COUNT = "greatest(0, coalesce(sum(v.amount) FILTER (WHERE v.what = '{name}'), 0)) AS {name}"
_BUCKET = "greatest(0, coalesce(sum(v.sign) FILTER (WHERE v.seconds <= {bound}), 0)) AS {name}"

# `v` is one event: what, when, how many
_BY_MINUTE = """
    WITH change AS MATERIALIZED (
        SELECT * FROM (
            SELECT {minute} AS minute, {counts} FROM {events} WHERE v.at >= {since} GROUP BY 1
        ) d WHERE {any}
    ), {record}
"""
# `v` is one event: which step, when it ended, how long it took
_BY_HOUR = """
    WITH change AS MATERIALIZED (
        SELECT * FROM (
            SELECT {hour} AS hour, v.step, sum(v.sign) AS events,
                   greatest(0, sum(v.sign * v.seconds)) AS seconds, {buckets}
            FROM (
                SELECT step, at, sign, greatest(0, extract(epoch FROM took))::float8 AS seconds
                FROM {events} WHERE took IS NOT NULL AND at >= {since}
            ) v GROUP BY 1, 2
        ) d WHERE d.events > 0
    ), {record}
"""


def _by_minute(counters: tuple[str, ...], events: str) -> str:
    return fill(
        _BY_MINUTE,
        minute=fill(MINUTE, at="v.at"),
        counts=", ".join(fill(_COUNT, name=name) for name in counters),
        events=events,
        since=SINCE,
        any=" OR ".join(f"d.{name} > 0" for name in counters),
        record=add_to_counters("minute_counters", ("minute",), counters),
    )


def _by_hour(events: str) -> str:
    return fill(
        _BY_HOUR,
        hour=fill(HOUR, at="v.at"),
        since=SINCE,
        events=events,
        buckets=", ".join(fill(_BUCKET, name=name, bound=str(bound)) for name, bound in BUCKETS.items()),
        record=add_to_counters("latency_counters", ("hour", "step"), LATENCY_COUNTERS),
    )


# Every time is that of the transaction that writes it. So what happens now is told from what happened before, and from
# all the other changes of a row, before anything else is looked at.
_NOW = "(SELECT * FROM {source} r WHERE greatest({times}) >= {since}) r"


def _now(*times: str) -> str:
    return fill(_NOW, times=", ".join(times), source=SOURCE, since=SINCE)


_LEARNED = f"CASE r.learned_by WHEN '{LearnedBy.CALLBACK}' THEN 'called_back' ELSE 'polled' END"
_EDITS_BY_MINUTE = _by_minute(
    ("created", EditState.STORED, EditState.FAILED, EditState.CANCELLED),
    f"""{_now("created_at", "finished_at")} CROSS JOIN LATERAL (VALUES
        ('created', r.created_at, r.sign), (r.state, r.finished_at, r.sign)) v (what, at, amount)""",
)
_EDITS_BY_HOUR = _by_hour(
    f"""{_now("finished_at")} CROSS JOIN LATERAL (VALUES (
        'whole', r.finished_at, CASE r.state WHEN 'stored' THEN r.finished_at - r.created_at END)) u (step, at, took)"""
)
_TIMES = _now("posted_at", "accepted_at", "completed_at")
_SUBMISSIONS_BY_MINUTE = _by_minute(
    ("submitted", "accepted", "called_back", "polled"),
    f"""{_TIMES} CROSS JOIN LATERAL (VALUES
        ('submitted', r.posted_at, r.sign), ('accepted', r.accepted_at, r.sign),
        ({_LEARNED}, CASE WHEN r.accepted_at IS NOT NULL THEN r.completed_at END, r.sign)) v (what, at, amount)""",
)
_SUBMISSIONS_BY_HOUR = _by_hour(
    f"""{_TIMES} JOIN edits e ON e.id = r.edit_id CROSS JOIN LATERAL (VALUES
        ('submitted', r.posted_at, CASE WHEN r.attempt = 1 THEN r.posted_at - e.created_at END),
        ('replied', r.accepted_at, r.accepted_at - r.posted_at),
        ('accepted', r.accepted_at, CASE WHEN r.attempt = 1 THEN r.accepted_at - e.created_at END),
        ({_LEARNED}, r.completed_at, r.completed_at - r.accepted_at)) u (step, at, took)"""
)
_IMAGES_BY_MINUTE = _by_minute(
    ("images_stored", "bytes_stored"),
    f"""{_now("stored_at")} CROSS JOIN LATERAL (VALUES
        ('images_stored', r.stored_at, r.sign), ('bytes_stored', r.stored_at, r.sign * r.stored_bytes))
        v (what, at, amount)""",
)
_IMAGES_BY_HOUR = _by_hour(
    f"""{_now("stored_at")} JOIN submissions s ON s.id = r.submission_id CROSS JOIN LATERAL (VALUES (
        'stored', r.stored_at, r.stored_at - s.completed_at)) u (step, at, took)"""
)


_ANY = "EXISTS (SELECT FROM new_rows WHERE {time} IS NOT NULL)"
_MORE = "(SELECT count({time}) FROM new_rows) > (SELECT count({time}) FROM old_rows)"


def _at(time: str) -> dict[str, str]:
    """When to count: only after statements by which something got such a time."""
    return {"after_insert": fill(_ANY, time=time), "after_update": fill(_MORE, time=time)}


OF_EDITS = (
    Counting(_EDITS_BY_MINUTE, after_update=fill(_MORE, time="finished_at")),
    Counting(_EDITS_BY_HOUR, **_at("finished_at")),
)
_ANSWERED = " OR ".join(fill(_MORE, time=time) for time in ("accepted_at", "completed_at"))
OF_SUBMISSIONS = (
    Counting(_SUBMISSIONS_BY_MINUTE, after_update=_ANSWERED),
    Counting(_SUBMISSIONS_BY_HOUR, after_update=_ANSWERED),
)
OF_IMAGES = (
    Counting(_IMAGES_BY_MINUTE, **_at("stored_at")),
    Counting(_IMAGES_BY_HOUR, **_at("stored_at")),
)

_FOLD_OLD = """
    WITH old AS (
        DELETE FROM {table} WHERE {time} < {cut} AND {time} > {before_all} RETURNING *
    ), sums AS (
        SELECT {group}{sums} FROM old {grouped}
    )
    INSERT INTO {table} ({columns}) SELECT {before_all}::timestamptz, {group}{names} FROM sums WHERE {any}
"""


_CUT = "date_trunc('{time}', now() - %s * interval '1 day')"
_FOUND = "{name} IS NOT NULL"


def _fold_old(table: str, time: str, counters: tuple[str, ...], group: str = "") -> Statement:
    prefix = f"{group}, " if group else ""
    return Statement(
        _FOLD_OLD,
        table=table,
        time=time,
        cut=fill(_CUT, time=time),
        before_all=BEFORE_ALL,
        group=prefix,
        grouped=f"GROUP BY {group}" if group else "",
        sums=", ".join(f"sum({name}) AS {name}" for name in counters),
        names=", ".join(counters),
        columns=", ".join([time, *([group] if group else []), *counters]),
        any=fill(_FOUND, name=counters[0]),
    )


FOLD_OLD_MINUTES = _fold_old("minute_counters", "minute", MINUTE_COUNTERS)
"""Minutes older than so many days become one, so that sums over all of them stay what they were."""
FOLD_OLD_HOURS = _fold_old("latency_counters", "hour", LATENCY_COUNTERS, "step")
"""The same of hours."""
