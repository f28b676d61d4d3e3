"""Bounds in bytes, or pixels, on what one process has in hand at one time; threads alone bound nothing."""

import threading
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class Budget:
    """At most `limit` units in use at one time; whoever needs more than that gets all of it, alone.

    Who waits is served in turn, so that a large need is not passed by small ones for ever.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Wait until so much is free, and use it inside the block."""
        need, ticket = min(amount, self._limit), object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._used + need <= self._limit)
            self._waiting.popleft()
            self._used += need
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._used -= need
                self._changed.notify_all()


class Tally:
    """What is in hand, item by item, beside a limit; for those who ask before they take, and wait for nobody."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sizes: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        """Units below the limit; negative after one item that was larger than what was free."""
        with self._lock:
            return self._limit - sum(self._sizes.values())

    def add(self, item: Hashable, size: int) -> None:
        """Take an item in hand."""
        with self._lock:
            self._sizes[item] = size

    def remove(self, item: Hashable) -> None:
        """It is no longer held."""
        with self._lock:
            self._sizes.pop(item, None)
