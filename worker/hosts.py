"""How many downloads of each host are under way in this process, and which hosts asked to be left alone.

A host that is slow, or dead, holds its own places and no others; no thread ever waits for a place.
"""

import threading
import time
from collections import Counter


class Hosts:
    """The hosts of one process's downloads. Safe for threads."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()
        self._left_alone_until: dict[str, float] = {}
        self._lock = threading.Lock()

    def begin(self, host: str) -> None:
        """A download of the host is under way from now on; '' is no host."""
        if host:
            with self._lock:
                self._under_way[host] += 1

    def end(self, host: str) -> None:
        """One is over."""
        with self._lock:
            self._under_way[host] -= 1
            if self._under_way[host] <= 0:
                del self._under_way[host]

    def leave_alone(self, host: str, seconds: float) -> None:
        """The host asks that nothing be fetched from it for so long."""
        until = time.monotonic() + seconds
        with self._lock:
            self._left_alone_until[host] = max(until, self._left_alone_until.get(host, until))

    def closed(self, most: int) -> list[str]:
        """Hosts of which nothing may be claimed: `most` of their downloads are under way, or they asked to wait."""
        now = time.monotonic()
        with self._lock:
            self._left_alone_until = {host: until for host, until in self._left_alone_until.items() if until > now}
            return sorted({*self._left_alone_until, *(host for host, n in self._under_way.items() if n >= most)})

    def room(self, most: int) -> int:
        """How many downloads may begin, if all of them should be of one host that is not closed."""
        with self._lock:
            return most - max((n for n in self._under_way.values() if n < most), default=0)
