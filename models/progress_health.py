"""Does the work get done? Judged by what is due and by the signs of life of the tick and the lanes, not by processes.

A long queue is no fault: a lane that takes its turns is well, however much is due. A lane stands still where something
has been due for a while and it has taken no turn since, and nothing of it is paused.
"""

from typing import Any

from sqlalchemy import Connection, Row

from models.heartbeats import CLOCK
from models.statements import Statement

TICK_LATE, LANE_LATE = 30.0, 90.0
"""Seconds without a sign of life. A tick comes every second; a lane's turn lasts a few, a call in it up to a minute."""

SIGNS_OF_LIFE = Statement("""
    SELECT lane, due, pauses, extract(epoch FROM waits)::float8 AS waits,
           extract(epoch FROM now() - last_turn_at)::float8 AS turned,
           extract(epoch FROM now() - last_tick_at)::float8 AS ticked
    FROM lane_status
""")


def find_stalled(connection: Connection) -> dict[str, str]:
    """What stands still: by the name of the lane, or `tick`, a sentence; empty where the work gets done."""
    lanes = connection.exec_driver_sql(SIGNS_OF_LIFE).all()
    ticked = lanes[0].ticked if lanes else None
    stalled = {}
    if ticked is None or ticked > TICK_LATE:
        last = "has never looked for due work" if ticked is None else f"looked for due work {ticked:.0f} s ago"
        stalled[CLOCK] = f"The clock (celery beat) {last}."
    return stalled | {lane.lane: _describe(lane) for lane in lanes if _stands_still(lane)}


def _stands_still(lane: Row[*tuple[Any, ...]]) -> bool:
    silent = lane.turned is None or lane.turned > LANE_LATE
    return bool(silent and lane.due > 0 and lane.waits > LANE_LATE and not lane.pauses)


def _describe(lane: Row[*tuple[Any, ...]]) -> str:
    return f"The lane {lane.lane} takes nothing; its work has been due for {lane.waits:.0f} s."
