"""Beat: sends a message to each lane with due work, and bounds how many lie in its queue.

It looks for due work itself, in the process of Celery beat: a tick that waited in a queue for a worker would stand
behind whatever that worker does. A look is one read of a few partial indexes; the work is the lanes'.

An expired message stays in its Redis list until a worker takes it, so expiry alone would let messages pile up
while workers are away. Nobody sends one to a queue that holds a few already.
"""

import time
from typing import Any

import structlog
from celery import Celery
from celery.beat import Scheduler
from sqlalchemy import Connection, Engine

from core.settings import load
from models.database import make_engine
from models.due_work import IS_DUE, which_hold
from models.heartbeats import CLOCK, EVERY
from worker.heartbeat import beat
from worker.lane_loop import reason
from worker.settings import BeatSettings

log = structlog.get_logger()

TICK = 1.0
"""Seconds between two looks for due work."""
MESSAGE_LIFE = 2 * TICK
"""Seconds; a lane message that nobody took by then is void, so that nothing piles up while workers are away."""
MESSAGES_MAX = 3
"""Messages that one lane's queue may hold; more would say nothing new."""


def has_room(app: Celery, queue: str) -> bool:
    """Whether one more message may go into a queue."""
    with app.connection_or_acquire() as connection:
        return int(connection.default_channel.client.llen(queue)) < MESSAGES_MAX


def lanes_due(connection: Connection) -> dict[str, bool]:
    """By lane: whether it has due work right now."""
    return which_hold(connection, IS_DUE)


def start_due_lanes(app: Celery, engine: Engine) -> None:
    """Send one message to every lane that has due work."""
    with engine.begin() as connection:  # committed: after a rollback the driver forgets what it had prepared
        due = lanes_due(connection)
    for lane, has_work in due.items():
        if has_work and has_room(app, lane):
            app.send_task(f"darkroom.{lane}", expires=MESSAGE_LIFE)


class BoundedScheduler(Scheduler):  # type: ignore[misc]  # celery has no types
    """Celery beat's own scheduler, with the tick in the place of a schedule."""

    said_at = 0.0
    """When it last said that it is alive, by the process's clock."""

    def setup_schedule(self) -> None:
        """There is none to be read; what is read instead is the database."""
        url = load(BeatSettings).database_url
        self.engine = make_engine(url, application="darkroom clock", pool_size=1)

    def tick(self, *_: Any, **__: Any) -> float:
        """Start the lanes that have due work; answers the seconds until the next tick."""
        try:
            start_due_lanes(self.app, self.engine)
            if time.monotonic() - self.said_at >= EVERY:
                beat(self.engine, CLOCK)
                self.said_at = time.monotonic()
        except Exception as error:  # database or broker may be away for as long as they like
            log.warning("tick_failed", reason=reason(error))
        return TICK
