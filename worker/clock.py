"""The clock that nudges the lanes, and how many nudges may lie in a queue.

An expired message stays in its Redis list until a worker takes it, so expiry alone would let messages pile up
while workers are away. Nobody sends one to a queue that holds a few already.
"""

from typing import Any

from celery import Celery
from celery.beat import ScheduleEntry, Scheduler

MESSAGES_MAX = 3
"""Messages that one lane's queue may hold; more would say nothing new."""


def has_room(app: Celery, queue: str) -> bool:
    """Whether one more message may go into a queue."""
    with app.connection_or_acquire() as connection:
        return int(connection.default_channel.client.llen(queue)) < MESSAGES_MAX


class Clock(Scheduler):  # type: ignore[misc]  # celery has no types
    """Celery beat's own scheduler, which skips a beat while its queue is full."""

    def apply_async(self, entry: ScheduleEntry, producer: Any = None, advance: bool = True, **options: Any) -> Any:
        """Send one entry's message, if there is room for it."""
        if has_room(self.app, entry.options["queue"]):
            return super().apply_async(entry, producer, advance, **options)
        return self.reserve(entry) if advance else entry
