"""Things done at a time unless they are called off before, all by one thread: most calls end in time, and a thread for
each cost more than the rest of a small request."""

import heapq
import math
import threading
import time
from collections.abc import Callable
from itertools import count

Action = Callable[[], None]
"""Quick, and raises nothing: others wait behind it."""


class Alarm:
    """One thing to be done."""

    def __init__(self, action: Action) -> None:
        self.action: Action | None = action

    def cancel(self) -> None:
        """Call it off; what has just begun goes on to its end."""
        self.action = None


class AlarmClock:
    """Safe for threads. Its own thread begins with the first alarm."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._wakes_at = math.inf
        """When the thread looks next, by the monotonic clock."""

    def set_alarm(self, seconds: float, action: Action) -> Alarm:
        """Do something in so many seconds."""
        alarm = Alarm(action)
        at = time.monotonic() + seconds
        with self._changed:
            self._drop_cancelled()
            heapq.heappush(self._alarms, (at, next(self._numbers), alarm))
            if self._thread is None or not self._thread.is_alive():  # no thread lives on in a fork
                self._thread = threading.Thread(target=self._run, name="alarms", daemon=True)
                self._thread.start()
            elif at < self._wakes_at:
                self._changed.notify()
        return alarm

    def _drop_cancelled(self) -> None:
        # all times are much the same, so what is called off does not stay long behind what is not
        while self._alarms and self._alarms[0][2].action is None:
            heapq.heappop(self._alarms)

    def _run(self) -> None:
        while True:
            for action in self._wait_for_due():
                action()

    def _wait_for_due(self) -> list[Action]:
        """What is due; empty where it looked too early."""
        with self._changed:
            self._drop_cancelled()
            now = time.monotonic()
            if not self._alarms or self._alarms[0][0] > now:
                self._wakes_at = self._alarms[0][0] if self._alarms else math.inf
                self._changed.wait(self._wakes_at - now if self._alarms else None)
                return []
            due = []
            while self._alarms and self._alarms[0][0] <= now:
                if (action := heapq.heappop(self._alarms)[2].action) is not None:
                    due.append(action)
            return due


CLOCK = AlarmClock()
"""That of this process."""
