"""How many downloads of each host are under way.

A host that is slow, or dead, holds its own places and no others; no thread ever waits for a place.
"""

import threading
from collections import Counter
from collections.abc import Iterable


class HostSlots:
    """The places of one run of the lane: at most `most` for any one host. Safe for threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: Counter[str] = Counter()
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

    def full(self) -> list[str]:
        """Hosts of which no more may begin."""
        with self._lock:
            return [host for host, count in self._under_way.items() if count >= self._most]

    def count_free(self, closed: Iterable[str]) -> int:
        """How many may begin, if all of them should be of one host that is not closed."""
        with self._lock:
            return self._most - max((n for host, n in self._under_way.items() if host not in closed), default=0)
