"""When each part last said that it is alive: the tick and the lanes, one row each, written at a bounded rate."""

from sqlalchemy import Connection

from models.statements import Statement

CLOCK = "tick"
EVERY = 2.0
"""Seconds between two writes of one heartbeat, or of its work, at least."""

BEAT = Statement("""
    INSERT INTO heartbeats (name, at, worked_at, places)
    VALUES (%(name)s, now(), CASE WHEN %(worked)s THEN now() END, %(places)s)
    ON CONFLICT (name) DO UPDATE
    SET at = excluded.at, worked_at = coalesce(excluded.worked_at, heartbeats.worked_at),
        places = coalesce(excluded.places, heartbeats.places)
    WHERE heartbeats.at < now() - %(every)s * interval '1 s'
       OR excluded.worked_at > coalesce(heartbeats.worked_at, '-infinity') + %(every)s * interval '1 s'
""")


def note_heartbeat(connection: Connection, name: str, *, worked: bool = False, places: int | None = None) -> None:
    """The tick, or a lane, is alive, and whether it did something; `places` is how many edits may be in flight."""
    connection.exec_driver_sql(BEAT, {"name": name, "worked": worked, "places": places, "every": EVERY})
