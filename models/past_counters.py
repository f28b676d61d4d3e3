"""Counters of a time that is over: moved out of the way, so that whoever wants a sum over all times adds up few rows.

Each table of counters by time holds the times that are not over yet, and one row before all time (`BEFORE_ALL`) with
the sum of all that are. What is over stands in a table of its own beside it, one row for each time, where the views by
time find it. A late change of a day that is over is counted like any other, and moved after it.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from models.counter_statements import Addition, add_to_counters
from models.day_counters import DAY_COUNTERS
from models.moments import BEFORE_ALL, LATENCY_COUNTERS, MINUTE_COUNTERS
from models.statements import Statement, fill

ROWS_AT_ONCE = 2_000
"""Rows that one step moves."""


@dataclass(frozen=True)
class ByTime:
    """A table of counters by time, and the one beside it for what is over."""

    table: str
    past: str
    time: str
    others: tuple[str, ...]
    """The other columns of its key."""
    counters: tuple[str, ...]
    over: str
    """SQL: what lies before it is over."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The whole key, the time first."""
        return (self.time, *self.others)

    def rows(self, *counters: str) -> str:
        """SQL: rows of the key and these counters, of all times; several for one key, to be summed."""
        return fill(
            "(SELECT {columns} FROM {table} WHERE {time} > {before_all} UNION ALL SELECT {columns} FROM {past})",
            columns=", ".join((*self.keys, *counters)),
            table=self.table,
            time=self.time,
            before_all=BEFORE_ALL,
            past=self.past,
        )


_LAST_HOUR = "date_trunc('hour', now() - interval '1 hour', 'UTC')"
MINUTES = ByTime(
    "minute_counters", "past_minutes", "minute", (), MINUTE_COUNTERS, "date_trunc('minute', now() - interval '5 min')"
)
"""The last minutes stay: the view `overdue` asks whether anything was submitted in them."""
LATENCIES = ByTime("latency_counters", "past_latencies", "hour", ("step",), LATENCY_COUNTERS, _LAST_HOUR)
DAYS = ByTime(
    "day_counters",
    "past_days",
    "day",
    ("client",),
    DAY_COUNTERS,
    "(now() AT TIME ZONE 'UTC' - interval '1 day')::date",
)
CALLBACKS = ByTime("callback_counters", "past_callbacks", "hour", ("effect",), ("callbacks",), _LAST_HOUR)

# Only rows that nobody holds: whoever writes meanwhile writes into one that stays, or adds one, which is moved later.
_OVER = """
    moved AS (
        DELETE FROM {table} WHERE id IN (
            SELECT id FROM {table} WHERE {time} < {over} AND {time} > {before_all}
            ORDER BY {keys}, id LIMIT {most} FOR UPDATE SKIP LOCKED
        ) RETURNING *
    ), kept AS (
        INSERT INTO {past} ({keys}, {counters}) SELECT {keys}, {sums} FROM moved GROUP BY {keys} ORDER BY {keys}
        ON CONFLICT ({keys}) DO UPDATE SET {sets}
    )
"""
_SUM = "SELECT {before_all} AS {time}, {others}{sums} FROM moved GROUP BY 1{group}"


def _move(by: ByTime) -> Statement:
    sums = ", ".join(f"sum({name}) AS {name}" for name in by.counters)
    over = fill(
        _OVER,
        table=by.table,
        past=by.past,
        time=by.time,
        keys=", ".join(by.keys),
        counters=", ".join(by.counters),
        over=by.over,
        before_all=BEFORE_ALL,
        most=str(ROWS_AT_ONCE),
        sums=sums,
        sets=", ".join(f"{name} = {by.past}.{name} + excluded.{name}" for name in by.counters),
    )
    change = fill(
        _SUM,
        before_all=f"{BEFORE_ALL}::{'date' if by.time == 'day' else 'timestamptz'}",
        time=by.time,
        others="".join(f"{name}, " for name in by.others),
        sums=sums,
        group="".join(f", {name}" for name in by.others),
    )
    return Statement(add_to_counters(Addition(by.table, by.keys, by.counters, change), before=over, counted="moved"))


MOVE_MINUTES = _move(MINUTES)
MOVE_LATENCIES = _move(LATENCIES)
MOVE_DAYS = _move(DAYS)
MOVE_CALLBACKS = _move(CALLBACKS)


def move_past(connection: Connection) -> bool:
    """Move the next rows whose time is over; whether there may be more."""
    moved = [
        int(connection.exec_driver_sql(statement).scalar_one())
        for statement in (MOVE_MINUTES, MOVE_LATENCIES, MOVE_DAYS, MOVE_CALLBACKS)
    ]
    return ROWS_AT_ONCE in moved
