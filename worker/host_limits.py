"""How many downloads of each host are under way, and which hosts asked to be left alone.

A host that is slow, or dead, holds its own places and no others; no thread ever waits for a place.
"""

import threading
import time
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


class HostBackoff:
    """Which hosts asked this process to wait. Safe for threads."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def leave_alone(self, host: str, seconds: float) -> None:
        """The host asks that nothing be fetched from it for so long."""
        until = time.monotonic() + seconds
        with self._lock:
            self._until[host] = max(until, self._until.get(host, until))

    def waiting(self) -> list[str]:
        """Hosts that are to be left alone now."""
        now = time.monotonic()
        with self._lock:
            self._until = {host: until for host, until in self._until.items() if until > now}
            return list(self._until)
